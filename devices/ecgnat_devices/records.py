"""Recordings on disk as one thing: rate, leads, length, and samples in mV read in pieces.

WFDB (signal formats as in wfdb, FLAC and .mat included), EDF and BDF, CSV, NPY. Every way in which a file can be wrong is a
permanent :class:`~ecgnat_stream.errors.DeviceError` that names the file, what is wrong and what to do.
"""

from __future__ import annotations

import math
import struct
import threading
import tokenize
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyedflib
import soundfile
import wfdb
from numpy.typing import NDArray

from ecgnat_stream.errors import DeviceError, EcgnatError, InputError
from ecgnat_stream.recordings import SINGLE_FILES, WFDB_SUFFIXES, Format, decimal_comma
from ecgnat_stream.signal import UV_RANGE, ecg_signals, is_time, mv_per, same_rate, twice
from ecgnat_stream.suggest import proposal

__all__ = ["Format", "OpenRecord", "Samples", "Units", "open_record"]

Units = Literal["uV", "mV", "V"]

_SHORT_S = 60.0
"""A record up to this length is read at once."""

_EDF_LOCK = threading.Lock()  # edflib refuses a file that is open already, so that two beds take turns
_WFDB_BYTES = {
    "8": 1.0,
    "80": 1.0,
    "16": 2.0,
    "61": 2.0,
    "160": 2.0,
    "24": 3.0,
    "32": 4.0,
    "212": 1.5,
    "310": 4 / 3,
    "311": 4 / 3,
}
"""Bytes per sample of the WFDB signal formats (signal(5) of the WFDB Applications Guide)."""
_WFDB_FLAC = ("508", "516", "524")

_HEADER_BYTES = 2**20
"""Largest WFDB header: one of 256 signals has less than 50 KB, one of 10,000 segments less than 300 KB."""

_MOST_SIGNALS, _MOST_SEGMENTS, _MOST_PER_FRAME = 256, 10_000, 1000
_MOST_SKEW_S = 10.0
"""Largest skew between signals: wfdb reads so much more of a signal, each time."""

_MOST_AT_ONCE = 2**28
"""Most values of a recording that are read at once, 1 GiB of float32."""

_CSV_BYTES, _CSV_LINE = 2**31, 2**16
"""Largest table that is read whole, and its longest line."""

_SCALES = (1e-12, 1e12)
"""Smallest and largest size of a scale: beyond, it is a slip of the pen."""

Samples = NDArray[np.float32]


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
        Coarsest resolution among the leads, microvolts per step.
    read
        ``read(start, stop)`` gives ``(L, stop - start)`` float32 in mV, NaN where invalid.
    left_out
        Signals of the file that are not delivered.
    """

    path: Path
    fs: float
    leads: tuple[str, ...]
    total: int
    uv_per_lsb: float
    read: Callable[[int, int], Samples]
    left_out: tuple[str, ...] = ()


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
        A WFDB record with or without suffix, or a file.
    fmt
        Format, "auto": by suffix, WFDB otherwise.
    fs
        Rate in Hz of a file that does not state it: CSV and NPY.
    units
        Unit of the samples, where the file states none, or none of voltage: CSV and NPY.
    scale
        Multiplies the samples of CSV and NPY before the unit counts (uV per step, say).
    leads
        Which leads to read. If the table of a CSV or NPY file has no such names: those of all its columns, in order.
    strict
        Whether a file that states another rate or unit than ``fs`` and ``units`` is refused. Without, it keeps its own.

    Raises
    ------
    InputError
        If the file states another rate or unit.
    DeviceError
        If there is no usable recording.
    """
    path = Path(path).expanduser()
    if not _SCALES[0] <= abs(scale) <= _SCALES[1]:
        raise _wrong(path, f"scale is {scale:g}: give the size of one step in the unit, not 0 and finite; negative turns it over")
    if again := twice(leads or ()):
        raise _wrong(path, f"leads names {', '.join(again)} more than once: name each lead once")
    if path.is_dir():
        raise _wrong(path, "is a folder: name one record in it")
    kind = SINGLE_FILES.get(path.suffix.lower(), "wfdb") if fmt == "auto" else fmt
    if kind != "wfdb" and not path.is_file():
        raise _wrong(path, f"does not exist{_proposal(path)}")
    with _border(path, "cannot be read"):
        record = _open(path, kind, fs, units, scale, leads, strict)
    if not (math.isfinite(record.fs) and record.fs > 0):
        raise _wrong(path, f"states a sampling rate of {record.fs:g} Hz: give fs in Hz, on the command line --fs")
    if record.total < 1:
        raise _wrong(path, "holds no samples")

    def read(start: int, stop: int) -> Samples:
        with _border(path, f"cannot be read at sample {start}"):
            return record.read(start, stop)

    return replace(record, read=read)


_TROUBLE = (
    *(ValueError, TypeError, LookupError, AttributeError, OSError, ArithmeticError, EOFError, MemoryError, RecursionError),
    *(SyntaxError, NameError, AssertionError, tokenize.TokenError, struct.error, soundfile.LibsndfileError),
)
"""What the libraries that read files raise for broken ones, each in its way."""


@contextmanager
def _border(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a library raises for a broken file into what this module promises."""
    try:
        yield
    except EcgnatError:
        raise
    except _TROUBLE as error:
        raise _wrong(path, f"{what} ({str(error) or type(error).__name__})") from error


def _open(
    path: Path,
    kind: str,
    fs: float | None,
    units: Units | None,
    scale: float,
    leads: Sequence[str] | None,
    strict: bool,
) -> OpenRecord:
    if kind == "wfdb":
        return _open_wfdb(_wfdb_name(path), fs, units, leads, strict)
    if kind == "edf":
        return _open_edf(path, fs, units, leads, strict)
    if fs is None or units is None:
        missing = " and ".join(name for name, value in (("fs", fs), ("units", units)) if value is None)
        raise _wrong(
            path,
            f"does not say its {missing}: give fs in Hz and units (uV, mV or V); on the command line --fs 250 --units mV",
        )
    table = _load_csv if kind == "csv" else _load_npy
    return _from_table(path, table(path), fs, units, scale, leads)


def _wrong(path: Path, what: str) -> DeviceError:
    return DeviceError(f"{path}: {what}", permanent=True)


def _step(path: Path, lead: str, step_uv: float, field: str) -> float:
    """Return the size of one step of a lead; what turns the signal over is none the smaller for it.

    ``field`` is what the file says, in its own words.
    """
    least, most = UV_RANGE
    if not least <= abs(step_uv) <= most:
        raise _wrong(
            path, f"lead {lead} has {field}: one step would be {abs(step_uv):.3g} uV, not {least:g} to {most:g}; mend it"
        )
    return abs(step_uv)


def _to_mv(path: Path, lead: str, unit: str) -> float:
    factor = mv_per(unit)
    if factor is None:
        raise _wrong(
            path,
            f"lead {lead} is in {unit.strip() or 'no unit'}, which is no voltage: give units (uV, mV or V), on the command line "
            "--units, or choose other leads with leads, --leads",
        )
    return factor


def _rate(path: Path, stated: float, given: float | None, strict: bool) -> float:
    """Return the rate that a file states, or the one that is given where it states none."""
    if given is None or not stated > 0:
        return given or stated
    if strict and not same_rate(stated, given):
        raise InputError(
            f"{path}: it states a rate of {stated:g} Hz, but fs is {given:g}: leave fs out. To have another rate, resample it "
            "first; if the file is wrong, give its samples as an array"
        )
    return stated


def _unit(path: Path, lead: str, stated: str, given: Units | None, strict: bool) -> str:
    """Return the unit that a file states, or the one that is given where it states no voltage."""
    factor = mv_per(stated)
    if given is None or factor is None:
        return given or stated
    if strict and factor != mv_per(given):
        raise InputError(
            f"{path}: it states that lead {lead} is in {stated.strip()}, but units is {given}: leave units out; if the file is "
            "wrong, give its samples as an array"
        )
    return stated


def _choose(path: Path, names: Sequence[str], units: Sequence[str], leads: Sequence[str] | None) -> list[int]:
    """Return the signals to read: those asked for, or all but what is known to be no ECG and no voltage."""
    if leads is None:
        return ecg_signals(names, units)
    if unknown := [lead for lead in leads if lead not in names]:
        raise _wrong(path, f"has no lead {', '.join(unknown)}: it has {', '.join(names)}")
    return [i for i, name in enumerate(names) if name in leads]


# WFDB


def _wfdb_name(path: Path) -> Path:
    if path.suffix.lower() in WFDB_SUFFIXES:
        path = path.with_suffix("")
    if not path.with_name(path.name + ".hea").is_file():
        what = "is no recording: there is no header with this name and .hea, and the suffix names no other format"
        raise _wrong(path, what + _proposal(path))
    return path


def _proposal(path: Path) -> str:
    """Propose a recording of the same folder; where there is no such folder, one that is there."""
    there = next(parent for parent in path.absolute().parents if parent.is_dir())
    try:
        files = sorted(there.iterdir())
    except OSError:
        return ""
    if there != path.absolute().parent:
        wanted = path.absolute().relative_to(there).parts[0]
        return proposal(wanted, (file.name for file in files if file.is_dir()))
    return proposal(path.name, (file.stem if file.suffix == ".hea" else file.name for file in files if _is_recording(file)))


def _is_recording(file: Path) -> bool:
    return file.suffix == ".hea" or file.suffix.lower() in SINGLE_FILES


def _open_wfdb(path: Path, fs: float | None, units: Units | None, leads: Sequence[str] | None, strict: bool) -> OpenRecord:
    header_name = f"{path.name}.hea"
    _check_header_size(path.with_name(header_name))
    try:
        header = wfdb.rdheader(str(path), rd_segments=True)
    except _TROUBLE as error:
        raise _wrong(path.with_name(header_name), f"is no WFDB header ({error})") from error
    if not header.n_sig:
        raise _wrong(path.with_name(header_name), "describes no signals")
    if not header.fs:
        header.fs = 0.0
    segments = [s for s in header.segments if s is not None] if isinstance(header, wfdb.MultiRecord) else [header]
    for segment in segments:
        _check_header(path.with_name(f"{segment.record_name}.hea"), segment)
    lengths = [_check_wfdb_files(path, segment) for segment in segments]
    total = lengths[0] if len(segments) == 1 else int(header.sig_len or 0)
    if total < 1:
        raise _wrong(path, "holds no samples")
    described = segments[0]
    names = [name or f"CH{i + 1}" for i, name in enumerate(described.sig_name)]
    chosen = _choose(path, names, described.units, leads)
    rate = _rate(path, float(header.fs), fs, strict)
    factors = np.array([_to_mv(path, names[i], _unit(path, names[i], described.units[i], units, strict)) for i in chosen])
    steps = [
        _step(
            path.with_name(header_name),
            names[i],
            1e3 * float(factor) / gain if (gain := float(described.adc_gain[i] or 0.0)) else math.inf,
            f"the gain (adc_gain) {described.adc_gain[i]} per {described.units[i]}",
        )
        for i, factor in zip(chosen, factors, strict=True)
    ]
    size = total * len(chosen)
    if not header.sig_len and size > _MOST_AT_ONCE:
        raise _wrong(
            path.with_name(header_name), f"leaves the length open, and {total} samples are too many then: write it there"
        )

    def read(start: int, stop: int) -> Samples:
        part_of = {"sampfrom": start, "sampto": stop} if header.sig_len else {}
        try:
            part = wfdb.rdrecord(str(path), channels=chosen, m2s=True, **part_of)
        except _TROUBLE as error:
            raise _wrong(path, f"cannot be read at sample {start} ({error})") from error
        if part.p_signal is None or part.p_signal.shape != (stop - start, len(chosen)):
            raise _wrong(path, f"cannot be read from sample {start} to {stop}")
        return np.ascontiguousarray((part.p_signal * factors).T, dtype=np.float32)

    # A recorder that was killed leaves the length open; wfdb reads such a record only as a whole. Of a short one, wfdb would take
    # longer for its header, each time, than for its samples.
    short = header.fs and total / header.fs <= _SHORT_S and size <= _MOST_AT_ONCE
    whole = read(0, total) if short or not header.sig_len else None
    return OpenRecord(
        path=path,
        fs=rate,
        leads=tuple(names[i] for i in chosen),
        total=total,
        uv_per_lsb=max(steps, default=1.0),
        read=read if whole is None else lambda start, stop: whole[:, start:stop],
        left_out=tuple(name for i, name in enumerate(names) if i not in chosen),
    )


def _check_header_size(header: Path) -> None:
    """Refuse a header that is too large to be one, and one with segments that are made of segments."""
    size = header.stat().st_size
    if size > _HEADER_BYTES:
        raise _wrong(header, f"has {size} bytes: a WFDB header has at most {_HEADER_BYTES}")
    with header.open(encoding="utf-8", errors="replace") as lines:
        said = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    several = said[0][0].partition("/")[2] if said else ""
    if not several:
        return
    parts = {words[0] for words in said[1:]} - {"~"}
    if not several.isdigit() or len(said) > _MOST_SEGMENTS + 1:
        raise _wrong(header, f"names {several[:20]} segments: at most {_MOST_SEGMENTS} are read")
    for part in parts:
        file = header.with_name(f"{part}.hea")
        if not file.is_file():
            continue
        if file.stat().st_size > _HEADER_BYTES:
            raise _wrong(file, f"has {file.stat().st_size} bytes: a WFDB header has at most {_HEADER_BYTES}")
        with file.open(encoding="utf-8", errors="replace") as lines:
            first = next((line.split()[0] for line in lines if line.strip() and not line.startswith("#")), "")
        if "/" in first:
            raise _wrong(header, f"names the segment {part}, which has segments of its own: that is not allowed")


def _check_header(file: Path, segment: wfdb.Record) -> None:
    """Refuse numbers of a header that no recording has, before memory is taken for them."""
    if segment.n_sig > _MOST_SIGNALS:
        raise _wrong(file, f"describes {segment.n_sig} signals: at most {_MOST_SIGNALS} are read")
    most_skew = _MOST_SKEW_S * (segment.fs or 0.0)
    for i in range(segment.n_sig or 0):
        lead = segment.sig_name[i] or f"CH{i + 1}"
        skew, per_frame, offset = (
            (getattr(segment, field) or [None] * segment.n_sig)[i] or 0 for field in ("skew", "samps_per_frame", "byte_offset")
        )
        if not 0 <= skew <= most_skew:
            raise _wrong(file, f"lead {lead} has a skew of {skew:g} samples: at most {_MOST_SKEW_S:g} s are read")
        if not 0 <= per_frame <= _MOST_PER_FRAME:
            raise _wrong(file, f"lead {lead} has {per_frame:g} samples per frame: at most {_MOST_PER_FRAME} are read")
        if offset < 0:
            raise _wrong(file, f"lead {lead} begins at byte {offset:g} of its file")


def _check_wfdb_files(path: Path, segment: wfdb.Record) -> int:
    """Return the length of a record whose signal files hold what the header says."""
    length = segment.sig_len
    for name in dict.fromkeys(segment.file_name or ()):
        if name == "~":
            continue
        file = path.with_name(name)
        rows = [i for i, other in enumerate(segment.file_name) if other == name]
        fmt = segment.fmt[rows[0]]
        if not file.is_file():
            raise _wrong(file, f"does not exist, but the header {segment.record_name}.hea names it")
        if fmt in _WFDB_FLAC:
            try:
                found = soundfile.info(str(file)).frames // (segment.samps_per_frame[rows[0]] or 1)
            except soundfile.LibsndfileError as error:
                raise _wrong(file, f"is no FLAC file ({error})") from error
            if length is not None and found < length:
                raise _wrong(file, f"is truncated: {length} samples expected, {found} found")
            length = found if length is None else length
        elif fmt in _WFDB_BYTES:
            per_frame = sum(segment.samps_per_frame[i] or 1 for i in rows) * _WFDB_BYTES[fmt]
            offset = segment.byte_offset[rows[0]] or 0
            size = file.stat().st_size
            if length is None:
                length = int((size - offset) / per_frame)
            expected = offset + math.floor(length * per_frame)
            if size < expected:
                raise _wrong(file, f"is truncated: {expected} bytes expected, {size} found; fetch the record again")
        else:
            raise _wrong(file, f"has the signal format {fmt}, which is not known")
    return int(length or 0)


# EDF and BDF


def _open_edf(path: Path, fs: float | None, units: Units | None, leads: Sequence[str] | None, strict: bool) -> OpenRecord:
    try:
        with _EDF_LOCK, pyedflib.EdfReader(str(path), pyedflib.DO_NOT_READ_ANNOTATIONS, pyedflib.CHECK_FILE_SIZE) as edf:
            names = [_edf_lead(label) for label in edf.getSignalLabels()]
            stated = [edf.getPhysicalDimension(i) for i in range(edf.signals_in_file)]
            rates = [edf.getSampleFrequency(i) for i in range(edf.signals_in_file)]
            lengths = [int(n) for n in edf.getNSamples()]
            steps = [
                abs(
                    (edf.getPhysicalMaximum(i) - edf.getPhysicalMinimum(i))
                    / ((edf.getDigitalMaximum(i) - edf.getDigitalMinimum(i)) or 1)
                )
                for i in range(edf.signals_in_file)
            ]
    except OSError as error:
        raise _wrong(path, f"is no readable EDF or BDF file ({error})") from error
    chosen = _choose(path, names, stated, leads)
    if not chosen:
        raise _wrong(path, f"holds no voltage: {', '.join(names) or 'no signals at all'}")
    rate = max(rates[i] for i in chosen)
    chosen = [i for i in chosen if rates[i] == rate]
    factors = [_to_mv(path, names[i], _unit(path, names[i], stated[i], units, strict)) for i in chosen]

    def read(start: int, stop: int) -> Samples:
        try:
            with (
                _EDF_LOCK,
                pyedflib.EdfReader(str(path), pyedflib.DO_NOT_READ_ANNOTATIONS, pyedflib.DO_NOT_CHECK_FILE_SIZE) as edf,
            ):
                rows = [edf.readSignal(i, start, stop - start) * factor for i, factor in zip(chosen, factors, strict=True)]
        except OSError as error:
            raise _wrong(path, f"cannot be read at sample {start} ({error})") from error
        return np.array(rows, dtype=np.float32)

    return OpenRecord(
        path=path,
        fs=_rate(path, float(rate), fs, strict),
        leads=tuple(names[i] for i in chosen),
        total=min(lengths[i] for i in chosen),
        uv_per_lsb=max(
            _step(path, names[i], 1e3 * f * steps[i], f"the step {steps[i]:.3g} {stated[i].strip()} (physical by digital range)")
            for i, f in zip(chosen, factors, strict=True)
        ),
        read=read,
        left_out=tuple(name for i, name in enumerate(names) if i not in chosen),
    )


def _edf_lead(label: str) -> str:
    """Return the lead of an EDF+ label: the standard writes "ECG V1" (EDF+ 2003, 3.2)."""
    kind, _, lead = label.strip().partition(" ")
    return lead.strip() if kind.upper() in ("ECG", "EKG") and lead.strip() else label.strip()


# Tables


@dataclass(frozen=True, slots=True)
class _Table:
    values: NDArray[np.generic]  # (L, T)
    names: tuple[str, ...] = ()


def _load_npy(path: Path) -> _Table:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except _TROUBLE as error:
        raise _wrong(path, f"is no NPY file ({error})") from error
    if values.ndim == 1:
        values = values[None]
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise _wrong(path, f"holds {values.dtype} {values.shape}: numbers of shape (leads, samples) are needed")
    return _Table(values.T if values.shape[0] > values.shape[1] else values)


def _number(text: str) -> float:
    return float(text) if text.strip() else math.nan


def _load_csv(path: Path) -> _Table:
    if commas := decimal_comma(path):
        raise _wrong(path, commas)
    _check_lines(path)
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline().strip()
        delimiter = next((mark for mark in ",;\t" if mark in first), None)
        cells = [cell.strip().strip('"') for cell in first.split(delimiter)]
        names = () if all(_is_number(cell) for cell in cells) else tuple(cells)
        values = np.loadtxt(
            path,
            delimiter=delimiter,
            skiprows=int(bool(names)),
            converters=_number,
            ndmin=2,
            encoding="utf-8-sig",
            dtype=np.float64,
        ).T
    except (ValueError, OSError) as error:
        raise _wrong(path, f"is no table of numbers ({error})") from error
    if values.size == 0:
        raise _wrong(path, "holds no samples")
    if names and len(names) != len(values):
        raise _wrong(path, f"names {len(names)} columns in its first line, but the lines below have {len(values)}")
    if names and is_time(names[0]):
        return _Table(values[1:], names[1:])
    return _Table(values, names)


def _check_lines(path: Path) -> None:
    """Refuse a table that would not fit into memory, or that has no lines."""
    size = path.stat().st_size
    if size > _CSV_BYTES:
        raise _wrong(path, f"has {size} bytes, but a table is read whole: up to {_CSV_BYTES}; save it as NPY or WFDB")
    length = 0
    with path.open("rb") as file:
        while piece := file.read(_CSV_LINE):
            first, last = piece.find(b"\n"), piece.rfind(b"\n")
            if (length + len(piece) if first < 0 else max(length + first, len(piece) - 1 - last)) > _CSV_LINE:
                raise _wrong(path, f"has a line of more than {_CSV_LINE} characters: a row for each sample is needed")
            length = length + len(piece) if last < 0 else len(piece) - 1 - last


def _is_number(cell: str) -> bool:
    try:
        _number(cell)
    except ValueError:
        return False
    return True


def _from_table(path: Path, table: _Table, fs: float, units: Units, scale: float, leads: Sequence[str] | None) -> OpenRecord:
    rows = table.values.shape[0]
    names, values = table.names, table.values
    left_out: tuple[str, ...] = ()
    if leads is not None and set(leads) <= set(names):
        chosen = _choose(path, names, [units] * rows, leads)
        left_out = tuple(name for i, name in enumerate(names) if i not in chosen)
        names, values = tuple(names[i] for i in chosen), values[chosen]
    elif leads is not None:
        if len(leads) != rows:
            called = f", called {', '.join(names)}" if names else ""
            raise _wrong(
                path, f"has {rows} columns of samples{called}, but {len(leads)} leads are named ({', '.join(leads)}): name each"
            )
        names = tuple(leads)
    elif not names and rows == 1:
        names = ("ECG",)
    elif not names:
        raise _wrong(
            path, f"does not name its {rows} leads: give leads, one name a column; on the command line for example --leads II,V1"
        )
    factor = _to_mv(path, names[0], units) * scale

    def read(start: int, stop: int) -> Samples:
        return np.asarray(values[:, start:stop].astype(np.float64) * factor, dtype=np.float32)

    is_step = values.dtype.kind in "iu"
    step_uv = _step(path, names[0], 1e3 * factor, f"the scale {scale:g} {units}") if is_step else 1.0
    return OpenRecord(path, fs, names, values.shape[1], step_uv, read, left_out)
