"""A record with what its database states about it, and how the readers of databases find files, leads and beats.

Shapes: L lead (12, in the order of ``signal.LEADS``), T time at the record's own rate, N beat.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import wfdb
from numpy.typing import NDArray

from ecgnat_devices.records import OpenRecord, Units, open_record
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.signal import LEADS, assign_leads
from ecgnat_stream.wfdb_header import read_header
from train.data import labels

__all__ = [
    "SUPERCLASSES",
    "Reader",
    "Record",
    "Sidecar",
    "beats_of",
    "comments_of",
    "header_of",
    "leads_of",
    "opened",
    "read_leads",
    "rows_of",
    "sidecar_of",
    "table_of",
    "whole",
]

SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
"""PTB-XL diagnostic superclasses (Wagner 2020)."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record.

    Parameters
    ----------
    samples
        ``(12, T)`` mV, NaN where a lead is absent.
    rhythm
        ``(T,)`` sets of allowed classes, see :mod:`train.data.labels`.
    bag
        Class that a true alarm states for the last 10 s without saying where, or -1.
    window
        Bits over :data:`SUPERCLASSES`, or -1 where nothing is stated.
    screen
        Index into ``codes.SCREENS``, or -1 where nothing is stated.
    beats, beat_class
        ``(N,)`` sample index of every beat and its index into ``codes.BEATS`` (or ``labels.BEAT_UNSTATED``); None where beats are
        not annotated.
    beats_span
        Half-open samples in which every beat is marked; None: the whole record.
    codes
        What is stated about the whole record, in the words of its database: SCP codes of ptbxl, SNOMED codes (or the words that
        CPSC2018 has in their place) of cinc2020 and cinc2021, rhythms and pacing of
        ludb, rhythm and findings of chapman, quality and bad leads of cinc2011.
    """

    database: str
    name: str
    split: str
    fs: float
    samples: NDArray[np.float32]
    rhythm: NDArray[np.uint8]
    bag: int = -1
    window: int = -1
    screen: int = -1
    beats: NDArray[np.int64] | None = None
    beat_class: NDArray[np.uint8] | None = None
    beats_span: tuple[int, int] | None = None
    codes: tuple[str, ...] = ()


class Sidecar(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file does not say itself, in ``<record>.json`` beside it or in ``signals.json`` of the database's folder.

    NPY files need ``fs`` (Hz), ``units`` ("uV", "mV" or "V") and ``leads``; ``lead_map`` is that of the monitor's configuration.
    """

    fs: float | None = None
    units: Units | None = None
    leads: tuple[str, ...] | None = None
    lead_map: dict[str, str] = {}


Reader = Callable[[Path], Callable[[str, str], Record]]


def table_of(folder: Path, *names: str) -> Path:
    """Return the first of these files in the folder or below it."""
    for name in names:
        if found := next(iter(sorted(folder.rglob(name))), None):
            return found
    raise ValueError(f"{folder} holds no {' or '.join(names)}: fetch the database again with its tables")


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a table by column name."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        yield from csv.DictReader(file)


def header_of(headers: dict[str, Path], name: str) -> Path:
    """Return where a record lies, or say that it is not there."""
    if name not in headers:
        raise ValueError(f"there is no header {name}.hea")
    return headers[name]


def opened(path: Path, given: Sidecar | None = None) -> tuple[OpenRecord, tuple[int | None, ...]]:
    """Open a recording; return it, and which of the twelve leads each of its rows is.

    Raises
    ------
    ValueError
        If its rate or its leads cannot be used; what is wrong with the file itself is a DeviceError.
    """
    given = given or Sidecar()
    record = open_record(path, fs=given.fs, units=given.units, leads=given.leads, strict=False)
    if not 100.0 <= record.fs <= 1000.0:
        raise ValueError(f"it is sampled at {record.fs:g} Hz: 100 to 1000 Hz can be used")
    try:
        return record, assign_leads(record.leads, given.lead_map)
    except ConfigError as error:
        raise ValueError(f"its leads {', '.join(record.leads)} are not those of {', '.join(LEADS)} ({error})") from error


def read_leads(record: OpenRecord, slots: Sequence[int | None], start: int, stop: int) -> NDArray[np.float32]:
    """Return ``(12, stop - start)`` mV of an opened recording, or say that none of it is valid."""
    samples = np.full((len(LEADS), stop - start), np.nan, np.float32)
    for source, slot in zip(record.read(start, stop), slots, strict=True):
        if slot is not None:
            samples[slot] = np.where(np.isfinite(source), source, np.nan)
    if not np.isfinite(samples).any():
        raise ValueError("it holds no valid sample")
    return samples


def leads_of(path: Path, given: Sidecar | None = None) -> tuple[float, NDArray[np.float32]]:
    """Return the rate and ``(12, T)`` mV of a whole recording."""
    record, slots = opened(path, given)
    return record.fs, read_leads(record, slots, 0, record.total)


def sidecar_of(path: Path, folder: Path) -> Sidecar:
    """Return what ``<record>.json`` beside a file says of it, else what ``signals.json`` of the folder says, else nothing."""
    side = next((file for file in (path.with_suffix(".json"), folder / "signals.json") if file.is_file()), None)
    return msgspec.json.decode(side.read_bytes(), type=Sidecar) if side else Sidecar()


def comments_of(path: Path) -> list[str]:
    """Return the comments of a record's header."""
    return list(read_header(path.with_name(f"{path.name}.hea")).comments)


def whole(samples: NDArray[np.float32], allowed: int) -> NDArray[np.uint8]:
    """Return the same set of allowed classes for every sample."""
    return np.full(samples.shape[1], allowed, np.uint8)


def beats_of(path: Path, extensions: Iterable[str]) -> tuple[NDArray[np.int64], NDArray[np.uint8]] | None:
    """Return the beats of the first of these annotation files that has some."""
    for extension in extensions:
        if path.with_name(f"{path.name}.{extension}").is_file():
            annotation = wfdb.rdann(str(path), extension)
            classes = labels.beat_classes(annotation.symbol)
            is_beat = classes < labels.NO_BEAT
            if is_beat.any():
                return annotation.sample[is_beat].astype(np.int64), classes[is_beat]
    return None
