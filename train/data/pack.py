"""Condition every record once, exactly as the monitor does, into a compact cache (a pack) that training maps into memory.

:func:`prepare` writes ``leads.f16`` (mV at 100 Hz, the leads of one record behind each other), ``rhythm.u8`` (sets per sample),
``beats.npy`` (place in samples at 100 Hz, class), ``noise.npy`` ``(N, T)``, ``manifest.json`` (:class:`Manifest`) and, last,
``records.json``: an interrupted run leaves no pack that looks whole, and running it again is always right. Records are read one
at a time; one of 24 h takes a few GB of memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ecgnat_stream.condition import condition_records
from ecgnat_stream.signal import FS, MODEL_FS
from train.data.labels import UNSTATED
from train.data.records import STATES, Record, left_out, read_database, read_noise
from train.data.splits import read_splits

__all__ = ["DATABASES", "FORMAT", "Cached", "Manifest", "Tally", "check_pack", "prepare", "summary", "write_pack"]

DATABASES = tuple(STATES)
"""What is prepared unless named otherwise; those that are absent are skipped, and said to be."""

FORMAT = 2
"""Number of the layout of a pack; it changes when packs written before can no longer be read."""

_BATCH_SAMPLES = 12_000_000  # (12, T) samples conditioned side by side: about 50 MB
_FILES = ("leads.f16", "rhythm.u8", "beats.npy", "noise.npy", "manifest.json", "records.json")


class Cached(msgspec.Struct, frozen=True):
    """Where one record lies in the cache.

    Parameters
    ----------
    slots
        The leads that are there, as indices into ``signal.LEADS``.
    length
        Samples per lead at 100 Hz.
    at
        Index of its first sample in ``leads.f16``.
    rhythm_at
        Index of its first set in ``rhythm.u8``.
    beats_at, beats
        Its first row in ``beats.npy``, and how many rows; -1 rows where beats are not annotated.
    beats_start, beats_stop
        Half-open samples at 100 Hz in which every beat is marked; a stop of -1 is the end of the record.
    codes
        What its database states about the whole record, in its own words, see :class:`train.data.record.Record`.
    """

    database: str
    name: str
    split: str
    slots: tuple[int, ...]
    length: int
    at: int
    rhythm_at: int
    bag: int
    window: int
    screen: int = -1
    beats_at: int = 0
    beats: int = -1
    beats_start: int = 0
    beats_stop: int = -1
    codes: tuple[str, ...] = ()


class Tally(msgspec.Struct):
    """What a database gave: records, hours, hours with a stated rhythm, beats, and records with the other statements."""

    records: int = 0
    hours: float = 0.0
    rhythm_hours: float = 0.0
    beats: int = 0
    window: int = 0
    screen: int = 0
    bag: int = 0

    def add(self, row: Cached, sets: NDArray[np.uint8]) -> None:
        """Count one record."""
        self.records += 1
        self.hours += row.length / MODEL_FS / 3600
        self.rhythm_hours += int((sets != UNSTATED).sum()) / MODEL_FS / 3600
        self.beats += max(row.beats, 0)
        self.window += row.window >= 0
        self.screen += row.screen >= 0
        self.bag += row.bag >= 0


class Manifest(msgspec.Struct, frozen=True):
    """What a pack was made of.

    Parameters
    ----------
    format
        :data:`FORMAT` when it was written.
    splits
        Where the splits come from, in words.
    skipped
        Databases that were asked for and gave nothing.
    left_out
        Why: for these, and for the other folders of the data root.
    unreadable
        What is wrong with each record that was left out.
    noise
        False where nstdb is absent and ``noise.npy`` is therefore empty.
    sources
        Where the splits of each database come from, see :func:`train.data.splits.read_splits`.
    """

    format: int
    splits: str
    databases: dict[str, Tally]
    skipped: tuple[str, ...]
    unreadable: tuple[str, ...]
    noise: bool
    sources: dict[str, str] = {}
    left_out: dict[str, str] = {}


def prepare(
    data: Path,
    cache: Path,
    databases: tuple[str, ...] = DATABASES,
    published: bool = False,
    console: Console | None = None,
) -> list[Cached]:
    """Write the cache, print what it holds and what was left out, and return its records.

    Parameters
    ----------
    published
        See :func:`train.data.splits.read_splits`.

    Raises
    ------
    ValueError
        If there is none of the databases.
    """
    console = console or Console()
    sources: dict[str, str] = {}
    splits = read_splits(data, published, sources)
    reasons = left_out(data, databases)
    present = [database for database in databases if database in splits and database not in reasons]
    if not present:
        raise ValueError(f"{data} holds none of {', '.join(databases)}: it needs one folder per database, named like this")
    cache.mkdir(parents=True, exist_ok=True)
    rows: list[Cached] = []
    beats: list[NDArray[np.float32]] = [np.zeros((0, 2), np.float32)]
    tallies: dict[str, Tally] = {}
    unreadable: list[str] = []
    with _part(cache, "leads.f16").open("wb") as leads, _part(cache, "rhythm.u8").open("wb") as rhythm:
        writer = _Writer(leads, rhythm, beats)
        for database in present:
            records = read_database(data, database, splits[database], unreadable)
            tracked = track(records, f"{database:9}", total=len(splits[database]), console=console)
            for record, conditioned, sets in _conditioned(iter(tracked)):
                rows.append(writer.write(record, conditioned, sets))
                tallies.setdefault(database, Tally()).add(rows[-1], sets)
    if not rows:
        raise ValueError(f"no record of {', '.join(present)} in {data} can be read. The first: {unreadable[0]}")
    noise = _noise(data)
    source = "splits.csv" if (data / "splits.csv").is_file() else "published splits" if published else "every record is test"
    skipped = tuple(database for database in databases if database not in tallies)
    sources = {database: sources[database] for database in tallies}
    reasons |= {
        database: "no record of it can be read" if database in present else "not in the data root"
        for database in skipped
        if database not in reasons
    }
    manifest = Manifest(FORMAT, source, tallies, skipped, tuple(unreadable), noise.size > 0, sources, reasons)
    _finish(cache, rows, beats, noise, manifest)
    summary(manifest, console)
    return rows


def write_pack(cache: Path, records: Iterable[Record], splits: str) -> list[Cached]:
    """Condition any records and write them as a pack without noise; return them.

    Parameters
    ----------
    splits
        Where their splits come from, in words.
    """
    cache.mkdir(parents=True, exist_ok=True)
    rows: list[Cached] = []
    beats: list[NDArray[np.float32]] = [np.zeros((0, 2), np.float32)]
    tallies: dict[str, Tally] = {}
    with _part(cache, "leads.f16").open("wb") as leads, _part(cache, "rhythm.u8").open("wb") as rhythm:
        writer = _Writer(leads, rhythm, beats)
        for record, conditioned, sets in _conditioned(iter(records)):
            rows.append(writer.write(record, conditioned, sets))
            tallies.setdefault(record.database, Tally()).add(rows[-1], sets)
    _finish(cache, rows, beats, np.zeros((0, 0), np.float16), Manifest(FORMAT, splits, tallies, (), (), False))
    return rows


def _finish(
    cache: Path, rows: list[Cached], beats: list[NDArray[np.float32]], noise: NDArray[np.float16], manifest: Manifest
) -> None:
    """Write what comes after the signals, and put all files in their places."""
    _save(_part(cache, "beats.npy"), np.concatenate(beats))
    _save(_part(cache, "noise.npy"), noise)
    _part(cache, "manifest.json").write_bytes(msgspec.json.encode(manifest))
    _part(cache, "records.json").write_bytes(msgspec.json.encode(rows))
    (cache / "records.json").unlink(missing_ok=True)  # no pack while its files are of two runs
    for name in _FILES:
        _part(cache, name).replace(cache / name)


def check_pack(path: Path) -> None:
    """Make sure that a folder holds a whole pack of a layout that can be read; a pack without a manifest says no format.

    Raises
    ------
    ValueError
        Says what is wrong with it, and what to do.
    """
    again = f"write it with: python -m train.prepare --data DATA --cache {path}"
    if missing := [name for name in _FILES if name != "manifest.json" and not (path / name).is_file()]:
        raise ValueError(f"{path} is no prepared cache, or an unfinished one: it lacks {', '.join(missing)}; {again}")
    try:
        if (path / "manifest.json").is_file():
            found = msgspec.json.decode((path / "manifest.json").read_bytes(), type=_Format).format
            if found != FORMAT:
                raise ValueError(f"{path} is a cache of format {found}, format {FORMAT} is needed; {again}")
        rows = msgspec.json.decode((path / "records.json").read_bytes(), type=list[Cached])
    except msgspec.DecodeError as error:
        raise ValueError(f"{path} is no cache of format {FORMAT} ({error}); {again}") from error
    needed = {
        "leads.f16": max((2 * (row.at + len(row.slots) * row.length) for row in rows), default=0),
        "rhythm.u8": max((row.rhythm_at + row.length for row in rows), default=0),
    }
    for name, size in needed.items():
        if (path / name).stat().st_size != size:
            raise ValueError(f"{path / name} has {(path / name).stat().st_size} bytes instead of {size}: it is damaged; {again}")


class _Format(msgspec.Struct):
    """The part of a manifest that every format has."""

    format: int


class _Writer:
    """Append records to the files of a pack."""

    def __init__(self, leads: BinaryIO, rhythm: BinaryIO, beats: list[NDArray[np.float32]]) -> None:
        self._leads, self._rhythm, self._beats = leads, rhythm, beats
        self._at = self._rhythm_at = self._beats_at = 0

    def write(self, record: Record, conditioned: NDArray[np.float32], sets: NDArray[np.uint8]) -> Cached:
        slots = tuple(int(slot) for slot in np.flatnonzero(np.isfinite(conditioned).any(axis=1)))
        self._leads.write(conditioned[list(slots)].astype(np.float16).tobytes())
        self._rhythm.write(sets.tobytes())
        row = Cached(
            record.database,
            record.name,
            record.split,
            slots,
            conditioned.shape[1],
            self._at,
            self._rhythm_at,
            record.bag,
            record.window,
            record.screen,
            codes=record.codes,
        )
        self._at += len(slots) * row.length
        self._rhythm_at += row.length
        if record.beats is None or record.beat_class is None:
            return row
        count, first = len(record.beats), self._beats_at
        self._beats.append(np.stack([record.beats * MODEL_FS / record.fs, record.beat_class], axis=1).astype(np.float32))
        self._beats_at += count
        start, stop = (int(at * MODEL_FS / record.fs) for at in record.beats_span) if record.beats_span else (0, -1)
        return msgspec.structs.replace(row, beats_at=first, beats=count, beats_start=start, beats_stop=stop)


def _part(cache: Path, name: str) -> Path:
    return cache / f"{name}.part"


def _save(path: Path, values: NDArray[np.generic]) -> None:
    with path.open("wb") as file:  # np.save would add a suffix
        np.save(file, values)


def _conditioned(records: Iterator[Record]) -> Iterator[tuple[Record, NDArray[np.float32], NDArray[np.uint8]]]:
    """Yield every record with its conditioned leads and its sets, both at 100 Hz."""
    group: list[Record] = []
    for record in records:
        widest = max((one.samples.size for one in [*group, record]), default=0)
        if group and (record.fs != group[0].fs or (len(group) + 1) * widest > _BATCH_SAMPLES):
            yield from _side_by_side(group)
            group = []
        group.append(record)
    if group:
        yield from _side_by_side(group)


def _side_by_side(group: list[Record]) -> Iterator[tuple[Record, NDArray[np.float32], NDArray[np.uint8]]]:
    """Condition records of one rate, padded to the longest of them."""
    fs = group[0].fs
    longest = max(record.samples.shape[1] for record in group)
    stacked = np.full((len(group), group[0].samples.shape[0], longest), np.nan, np.float32)
    for row, record in enumerate(group):
        stacked[row, :, : record.samples.shape[1]] = record.samples
    for record, leads in zip(group, condition_records(stacked, fs), strict=True):
        stop = int(record.samples.shape[1] * FS / fs)
        out = leads[:, :stop:2]
        own = (np.arange(out.shape[1]) * fs / MODEL_FS).round().astype(int).clip(max=len(record.rhythm) - 1)
        yield record, out, record.rhythm[own]


def _noise(data: Path) -> NDArray[np.float16]:
    """Return ``(N, T)`` noise leads in mV at 100 Hz: baseline wander, electrode motion, muscle. Conditioned like ECG."""
    leads = [condition_records(samples[None], fs)[0, :2, ::2] for _, fs, samples in read_noise(data)]
    if not leads:
        return np.zeros((0, 0), np.float16)
    length = min(part.shape[1] for part in leads)
    noise: NDArray[np.float16] = np.nan_to_num(np.concatenate([part[:, :length] for part in leads])).astype(np.float16)
    return noise


def summary(manifest: Manifest, console: Console) -> None:
    """Print what a pack holds and what was left out."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("database", no_wrap=True)
    for column in ("records", "hours", "rhythm h", "beats", "window", "screen", "bag"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("can state", no_wrap=True)
    for database, tally in manifest.databases.items():
        hours = (f"{tally.hours:.1f}", f"{tally.rhythm_hours:.1f}")
        counts = (str(count) if count else "" for count in (tally.beats, tally.window, tally.screen, tally.bag))
        states = ", ".join(STATES.get(database, ("signals only",)))
        table.add_row(database, str(tally.records), *hours, *counts, states)
    console.print(table)
    console.print(f"splits: {manifest.splits}", highlight=False)
    for database, source in manifest.sources.items():
        if source != manifest.splits:
            console.print(f"  {database}: {source}", highlight=False, soft_wrap=True)
    for reason in dict.fromkeys(manifest.left_out.values()):
        names = (name for name, own in manifest.left_out.items() if own == reason)
        console.print(f"skipped: {', '.join(names)}: {reason}", highlight=False, markup=False, soft_wrap=True)
    if not manifest.noise:
        console.print("no nstdb: noise.npy is empty, training cannot add recorded noise", highlight=False)
    if manifest.unreadable:
        console.print(f"left out, {len(manifest.unreadable)} records that cannot be read:", highlight=False)
    for problem in manifest.unreadable:
        console.print(f"  {problem}", highlight=False, markup=False, soft_wrap=True)
