"""Open a recording of any format: which of its signals, in which order, in mV.

What a file states is believed; what is given must agree with it. Formats differ in ``registry``, and in nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os.path import isdir, isfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgnat_devices.records.contents import Asked, Contents, Signal, Units, border, wrong
from ecgnat_devices.records.registry import reader
from ecgnat_devices.records.scratch import Unpacked
from ecgnat_stream.errors import ConfigError, DeviceError, InputError
from ecgnat_stream.places import path_of
from ecgnat_stream.recordings import Format, format_of, header_of, is_recording, no_file
from ecgnat_stream.signal import LEADS, MONITORED_FIRST, UV_RANGE, ecg_signals, is_ecg, mv_per, same_rate, twice
from ecgnat_stream.suggest import proposal
from ecgnat_stream.words import NAME, cleaned, counted

__all__ = ["OpenRecord", "Samples", "open_record"]

Samples = NDArray[np.float32]

_SCALES = (1e-12, 1e12)
"""Smallest and largest size of a scale: beyond, it is a slip of the pen."""

_UNKNOWN_STEP_UV = 1.0
"""Resolution in microvolts of numbers without steps."""

_LOOK = 1000
"""Samples that are looked at to see whether they are whole numbers."""

_OF_STEPS = ". Its whole numbers may be steps of a converter: then give scale too, for a step of 5 uV --units uV --scale 5"
"""What is added for numbers that are no voltage yet."""


@dataclass(frozen=True, slots=True)
class OpenRecord:
    """An open recording.

    Parameters
    ----------
    path
        What was opened.
    fs
        Rate in Hz.
    leads
        One name per row.
    total
        Length in samples.
    uv_per_lsb
        Finest resolution among the leads, microvolts per step.
    read
        ``read(start, stop)`` gives ``(L, stop - start)`` float32 in mV, NaN where invalid.
    left_out
        Signals of the file that are not delivered.
    notes
        What a person should know of the file.
    """

    path: Path
    fs: float
    leads: tuple[str, ...]
    total: int
    uv_per_lsb: float
    read: Callable[[int, int], Samples]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def open_record(
    path: str | Path,
    fmt: Format = "auto",
    *,
    fs: float | None = None,
    units: Units | None = None,
    scale: float = 1.0,
    leads: Sequence[str] | None = None,
    strict: bool = True,
) -> OpenRecord:
    """Open a recording.

    Parameters
    ----------
    path
        A WFDB record with or without suffix, or a file, also one that gzip has packed.
    fmt
        Format, "auto": by what the file begins with and its suffix, WFDB otherwise.
    fs
        Rate in Hz of a file that does not state it.
    units
        Unit of the samples, where the file states none, or none of voltage.
    scale
        Multiplies the samples before the unit counts: microvolts per step of a converter, with ``units="uV"``.
    leads
        Which signals to read, in this order. Of a file that names none: the names of all, in order.
    strict
        Whether a file that states another rate or unit than ``fs`` and ``units`` is refused. Without, it keeps its own.

    Raises
    ------
    InputError
        If the file states another rate or unit.
    DeviceError
        If there is no usable recording.
    """
    try:
        path = path_of(path)
    except ConfigError as error:
        raise DeviceError(str(error), permanent=True) from error
    if not _SCALES[0] <= abs(scale) <= _SCALES[1]:
        raise wrong(path, f"scale is {scale:g}: give the size of one step in the unit, not 0 and finite; negative turns it over")
    if again := twice(leads or ()):
        raise wrong(path, f"leads names {', '.join(again)} more than once: name each lead once")
    if isdir(path):
        raise wrong(path, "is a folder: name one record in it")
    if not isfile(path) and header_of(path) is None:
        raise wrong(path, _not_there(path))
    asked = Asked(fs, units, scale, None if leads is None else tuple(leads), strict)
    unpacked = Unpacked(path) if path.suffix.lower() == ".gz" else None
    file = path if unpacked is None else unpacked.path
    with border(path, "cannot be read"), _named(path, file):
        contents = reader(format_of(file) if fmt == "auto" else fmt)(file, asked)
        record = _record(path, contents, asked)

    def read(start: int, stop: int, _keep: object = unpacked) -> Samples:
        with border(path, f"cannot be read at sample {start}"), _named(path, file):
            return record.read(start, stop)

    return OpenRecord(
        path, record.fs, record.leads, record.total, record.uv_per_lsb, read, left_out=record.left_out, notes=record.notes
    )


@contextmanager
def _named(path: Path, file: Path) -> Iterator[None]:
    """Name in messages what was asked for, not the file that it was unpacked to."""
    try:
        yield
    except DeviceError as error:
        if file == path:
            raise
        raise DeviceError(str(error).replace(str(file), str(path)), permanent=error.permanent) from error


def _not_there(path: Path) -> str:
    """Say that there is no such recording, and propose one of the same folder, or a folder if that is not there."""
    if why := no_file(path):
        return why
    there = next(parent for parent in path.absolute().parents if isdir(parent))
    try:
        files = sorted(there.iterdir())
    except OSError:
        files = []
    if there != path.absolute().parent:
        wanted, known = path.absolute().relative_to(there).parts[0], [file.name for file in files if file.is_dir()]
    else:
        wanted, known = path.name, [file.stem if file.suffix == ".hea" else file.name for file in files if is_recording(file)]
    return f"is no recording: there is no such file, and no header {path.name}.hea{proposal(wanted, known)}"


def _record(path: Path, contents: Contents, asked: Asked) -> OpenRecord:
    _refuse_what_is_not_said(path, contents, asked)
    names = _names(path, contents.signals, asked)
    rows = _choose(path, names, contents, asked)
    chosen = [contents.signals[row] for row in rows]
    factors = [_to_mv(path, names[row], signal, asked) for row, signal in zip(rows, chosen, strict=True)]
    steps = [
        _step(path, names[row], signal, factor, asked)
        for row, signal, factor in zip(rows, chosen, factors, strict=True)
        if signal.step is not None
    ]
    total = min(signal.total for signal in chosen)
    if total < 1:
        empty = [names[row] for row, signal in zip(rows, chosen, strict=True) if signal.total < 1]
        raise wrong(path, f"holds no samples of {', '.join(empty)}")
    rate = _rate(path, contents, chosen[0].fs, asked)
    to_mv = np.array(factors)[:, None]

    def read(start: int, stop: int) -> Samples:
        with np.errstate(over="ignore"):  # becomes infinite: supervision takes that for no sample
            return np.asarray(contents.read(rows, start, stop) * to_mv, dtype=np.float32)

    return OpenRecord(
        path=path,
        fs=rate,
        leads=tuple(names[row] for row in rows),
        total=total,
        uv_per_lsb=min(steps, default=_UNKNOWN_STEP_UV),
        read=read,
        left_out=tuple(name for row, name in enumerate(names) if row not in rows),
        notes=tuple(map(cleaned, contents.notes)),
    )


def _refuse_what_is_not_said(path: Path, contents: Contents, asked: Asked) -> None:
    """Refuse a file that does not say what nobody gives, all of it in one message."""
    signals = contents.signals
    if not signals:
        raise wrong(path, "describes no signals")
    nameless = len(signals) > 1 and not any(signal.name.strip() for signal in signals)
    usual = LEADS if len(signals) == len(LEADS) else MONITORED_FIRST
    example = ",".join((*usual, *(f"CH{row}" for row in range(12, len(signals))))[: len(signals)])
    missing = {
        "fs": "--fs 250" if asked.fs is None and all(signal.fs is None for signal in signals) else "",
        "units": "--units mV" if asked.units is None and not any(signal.unit.strip() for signal in signals) else "",
        "leads": f"--leads {example}" if nameless and asked.leads is None else "",
    }
    if lacks := [name for name, option in missing.items() if option]:
        how = {
            "fs": "fs in Hz",
            "units": "units (uV, mV or V)",
            "leads": f"leads, a name for each of its {len(signals)} signals in their order",
        }
        raise wrong(
            path,
            f"does not say its {' and '.join(lacks)}: give {', '.join(how[name] for name in lacks)}; on the command line for "
            f"example {' '.join(filter(None, missing.values()))}"
            + (_OF_STEPS if missing["units"] and asked.scale == 1.0 and _holds_whole_numbers(contents) else ""),
        )


def _holds_whole_numbers(contents: Contents) -> bool:
    """Return whether a signal is stored as whole numbers, or holds only such in its first samples."""
    looked = (contents.read([row], 0, min(signal.total, _LOOK)) for row, signal in enumerate(contents.signals[: len(LEADS)]))
    there = (values[np.isfinite(values)] for values in looked)
    whole = any(values.any() and bool(np.all(values == np.round(values))) for values in there)  # zeros alone tell nothing
    return whole or any(signal.step is not None for signal in contents.signals)


def _names(path: Path, signals: Sequence[Signal], asked: Asked) -> list[str]:
    """Return a name for each signal: as the file says, or as asked if it says none."""
    names = [cleaned(signal.name, NAME) for signal in signals]
    if any(names):
        return [name or f"CH{row + 1}" for row, name in enumerate(names)]
    if asked.leads is None:
        return ["ECG"]
    if len(asked.leads) != len(names):
        given = counted(len(asked.leads), "lead") + (" is" if len(asked.leads) == 1 else " are")
        held = counted(len(names), "signal")
        raise wrong(path, f"holds {held} without names, but {given} named ({', '.join(asked.leads)}): name each")
    return list(asked.leads)


def _choose(path: Path, names: Sequence[str], contents: Contents, asked: Asked) -> list[int]:
    """Return the signals to read: those asked for, in that order, or the ECG of the highest rate."""
    signals = contents.signals
    if asked.leads is not None:
        if unknown := [lead for lead in asked.leads if lead not in names]:
            raise wrong(path, f"has no lead {', '.join(unknown)}: it has {', '.join(names)}")
        rows = [names.index(lead) for lead in asked.leads]
        if len({signals[row].fs for row in rows}) > 1:
            rates = ", ".join(f"{names[row]} {signals[row].fs:g} Hz" for row in rows)
            raise wrong(path, f"the leads asked for are of several rates ({rates}): ask for leads of one rate")
        return rows
    units = [signal.unit.strip() for signal in signals]
    voltages = [row for row, unit in enumerate(units) if mv_per(unit or asked.units or "") is not None]
    rows = ecg_signals(names, units, asked.units) or voltages  # a person may know what their names do not say
    if not rows:
        said = ", ".join(f"{name} ({signal.unit or 'no unit'})" for name, signal in zip(names, signals, strict=True))
        raise wrong(
            path,
            f"holds no ECG that is known as one: {said}; name its ECG and the unit: leads and units, on the command line "
            f"--leads {names[0]} --units mV",
        )
    named = [row for row in rows if is_ecg(names[row])] or rows
    rate = max(signals[row].fs or 0.0 for row in named)
    return [row for row in rows if (signals[row].fs or 0.0) == rate]


def _to_mv(path: Path, lead: str, signal: Signal, asked: Asked) -> float:
    """Return how many mV one of a signal is."""
    stated, given = mv_per(signal.unit), mv_per(asked.units or "")
    if stated is None and given is None:
        what = f"is in {cleaned(signal.unit, NAME)}, which is no voltage" if signal.unit.strip() else "has no unit"
        raise wrong(
            path, f"lead {lead} {what}: give units (uV, mV or V), on the command line --units, or choose other leads with --leads"
        )
    if asked.strict and stated is not None and given is not None and stated != given:
        raise InputError(
            f"{path}: it states that lead {lead} is in {signal.unit.strip()}, but units is {asked.units}: leave units (--units) "
            "out; if the file is wrong, give its samples as an array"
        )
    return asked.scale * (stated if stated is not None else given or 0.0)


def _step(path: Path, lead: str, signal: Signal, to_mv: float, asked: Asked) -> float:
    """Return the size of one step of a lead in microvolts; what turns the signal over is none the smaller for it."""
    least, most = UV_RANGE
    step_uv = abs(1e3 * to_mv * (signal.step or 0.0))
    if not least <= step_uv <= most:
        said = signal.step_by or f"the step {signal.step:g} {cleaned(signal.unit, NAME)}".rstrip()
        scaled = "" if asked.scale == 1.0 and not asked.units else f" with the scale {asked.scale:g} {asked.units or ''}".rstrip()
        raise wrong(
            path, f"lead {lead} has {said}{scaled}: one step would be {step_uv:.3g} uV, not {least:g} to {most:g}; mend it"
        )
    return step_uv


def _rate(path: Path, contents: Contents, stated: float | None, asked: Asked) -> float:
    """Return the rate that a file states, or the one that is given if it states none."""
    given = asked.fs
    if stated is not None and not stated > 0:
        stated = None
    if stated is not None and given is not None and asked.strict and not same_rate(stated, given):
        how = f" ({contents.rate_by})" if contents.rate_by else ""
        raise InputError(
            f"{path}: it states a rate of {stated:g} Hz{how}, but fs is {given:g}: leave fs (--fs) out. To have another "
            "rate, resample it first; if the file is wrong, give its samples as an array"
        )
    rate = given if stated is None else stated
    if rate is None:
        raise wrong(path, "states no sampling rate: give fs in Hz, on the command line for example --fs 250")
    if not (math.isfinite(rate) and rate > 0):
        raise wrong(path, f"states a sampling rate of {rate:g} Hz: give fs in Hz, on the command line --fs")
    return rate
