"""EDF, EDF+ and BDF (Kemp et al. 1992; Kemp and Olivan 2003; BioSemi: 24 bits).

The header is 256 bytes and 256 more per signal, in text; behind it stand records of one length, each with some samples of every
signal. It is read here and not by a library: EDFlib refuses what recorders really write (a date that is none, a number of records
that is open, holes), prints to standard output and lets only one reader have a file; edfio takes a BDF file into memory whole and
passes over holes. Nothing is kept open or mapped: a file may grow while it is read; one that is shortened or replaced is told.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, time
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from ecgnat_devices.records.contents import Asked, Contents, Signal, Values, wrong
from ecgnat_devices.records.edf_times import Stretch, stretches
from ecgnat_devices.records.runs import Run, read_runs
from ecgnat_stream.errors import DeviceError
from ecgnat_stream.signal import is_ecg

__all__ = ["open_edf"]

_VERSIONS: Final = {b"0": ("EDF", 2), b"\xffBIOSEMI": ("BDF", 3)}
"""First field of a header, and what it tells: the format, and the bytes of a sample."""

_MAIN = {"version": 8, "patient": 80, "recording": 80, "date": 8, "time": 8, "size": 8, "kind": 44, "records": 8, "length": 8}
"""Fields of the first 256 bytes and their widths; the number of signals ends them."""

_RECORDS = slice(236, 244)
"""Where the number of records stands."""

_OF_SIGNAL = {
    "label": 16,
    "transducer": 80,
    "unit": 8,
    "physical minimum": 8,
    "physical maximum": 8,
    "digital minimum": 8,
    "digital maximum": 8,
    "filter": 80,
    "samples": 8,
    "reserved": 32,
}
"""Fields of each signal and their widths; the first of all signals, then the second of all, and so on."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE)

_LEAST_S = 1e-6
"""Shortest record: one sample of a million per second."""

_MOST_S = 10 * 366 * 86_400
"""Longest record, and longest time from the first to the last one: ten years, which is more than any recorder runs."""

_ONSET_BYTES = 64
"""Bytes of a record that tell its time, and more."""

_AT_ONCE = 2**18
"""Bytes of the file that are read at once."""


@dataclass(frozen=True, slots=True)
class _Channel:
    """One signal in the records: where its samples stand in each, how many they are, and what a value is."""

    label: str
    unit: str
    offset: int
    samples: int
    gain: float
    zero: float
    ranges: str

    @property
    def is_annotation(self) -> bool:
        return self.label in ("EDF Annotations", "BDF Annotations")


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where in the file the records begin, how long one is, how many there are, and how wide a sample is; all in bytes.

    ``header`` is what it was read from: another one is another file.
    """

    path: Path
    header: bytes
    begin: int
    record: int
    records: int
    width: int


def open_edf(path: Path, asked: Asked) -> Contents:
    """Open an EDF, EDF+ or BDF file.

    Raises
    ------
    DeviceError
        If it cannot be read.
    """
    with path.open("rb") as file:
        fields, size = _main(path, file), file.seek(0, 2)
        kind, width = _VERSIONS[fields["version"]]
        count = _whole(path, "number of signals", fields["signals"], 0)
        if size < 256 * (count + 1):
            raise _unreadable(path, "it ends within its header: fetch it again")
        file.seek(256)
        channels = _channels(path, file.read(256 * count), count, width)
        header = _header(file, 256 * (count + 1))
    signals = [channel for channel in channels if not channel.is_annotation]
    if channels and not signals:
        raise wrong(path, "holds only annotations, no signal")
    notes: list[str] = []
    layout = _layout(path, header, fields, size, width * sum(channel.samples for channel in channels), width, notes)
    length = _length(path, fields["length"])
    notes += _untimely(fields)
    found = [Stretch(0.0, 0, layout.records)]
    is_open = fields["kind"].startswith((b"EDF+D", b"BDF+D"))
    if (timed := _timed(fields["kind"], channels)) is not None:
        place = (layout.begin + timed.offset, layout.record, min(width * timed.samples, _ONSET_BYTES))
        fastest = max(channel.samples for channel in signals)
        found = stretches(path, place, layout.records, float(length or 0), fastest, is_open=is_open, notes=notes)
    elif is_open:
        raise wrong(path, f"is discontinuous ({kind}+D), but has no signal that says when its records were: export it again")
    if found and found[-1].start > _MOST_S:
        raise wrong(path, f"lasts {found[-1].start:.0f} s by the times of its records: at most {_MOST_S} s are read")
    rates = {channel.samples: float(channel.samples / length) if length else None for channel in signals}
    runs = {samples: _runs(found, samples, rate) for samples, rate in rates.items()}

    def read(rows: Sequence[int], start: int, stop: int) -> Values:
        chosen = [signals[row] for row in rows]
        return read_runs(
            runs[chosen[0].samples], range(len(chosen)), start, stop, lambda _, at, end: _read(layout, chosen, at, end)
        )

    return Contents(
        tuple(
            Signal(
                _name(channel.label),
                rates[channel.samples],
                channel.unit,
                max((run.start + run.length for run in runs[channel.samples]), default=0),
                abs(channel.gain),
                channel.ranges,
            )
            for channel in signals
        ),
        read,
        tuple(notes),
    )


def _unreadable(path: Path, why: str) -> DeviceError:
    return wrong(path, f"is no readable EDF or BDF file ({why})")


def _main(path: Path, file: BinaryIO) -> dict[str, bytes]:
    """Return the fields of the first 256 bytes, and check that it is a file of this kind."""
    header = file.read(256)
    if not header:
        raise _unreadable(path, "it is empty: fetch it again")
    begins = header[:8].rstrip(b" \0")
    if begins.startswith(b"GDF"):
        raise wrong(path, "is a GDF file, which is not read: convert it to EDF or BDF, for example with EDFbrowser or BioSig")
    if begins not in _VERSIONS:
        raise _unreadable(path, f"it begins with {begins.decode('latin-1')!r}, not with 0 or BIOSEMI")
    if len(header) < 256:
        raise _unreadable(path, "it ends within its header: fetch it again")
    fields, at = {}, 0
    for name, width in (_MAIN | {"signals": 4}).items():
        fields[name] = header[at : at + width].split(b"\0")[0].strip()
        at += width
    return fields | {"version": begins}


def _channels(path: Path, header: bytes, count: int, width: int) -> list[_Channel]:
    columns, at = {}, 0
    for name, size in _OF_SIGNAL.items():
        columns[name] = [header[at + row * size : at + (row + 1) * size].split(b"\0")[0].strip() for row in range(count)]
        at += count * size
    channels, offset = [], 0
    for row in range(count):
        label, unit = _text(columns["label"][row]), _text(columns["unit"][row])
        samples = _whole(path, f"number of samples of {label or f'signal {row + 1}'} per record", columns["samples"][row], 0)
        names = ("physical minimum", "physical maximum", "digital minimum", "digital maximum")
        gain, zero, ranges = _scaling([columns[name][row] for name in names], unit)
        channels.append(_Channel(label, unit, offset, samples, gain, zero, ranges))
        offset += width * samples
    return channels


def _scaling(ranges: Sequence[bytes], unit: str) -> tuple[float, float, str]:
    """Return one step, the value of 0, and what the header says of them; the step is 0 if it says nothing of use.

    The physical range is that of the digital one; either may be turned over (EDF: "physical minimum and maximum").
    """
    values = [_number(field) for field in ranges]
    said = "the physical range {} to {} {} and the digital range {} to {}".format(
        *(_text(field) or "nothing" for field in ranges[:2]), unit, *(_text(field) or "nothing" for field in ranges[2:])
    )
    least, most, first, last = (math.nan if value is None else value for value in values)
    if not math.isfinite((most - least) * (last - first)) or last == first:
        return 0.0, 0.0, said
    gain = (most - least) / (last - first)
    return gain, least - first * gain, said


def _header(file: BinaryIO, size: int) -> bytes:
    """Return the header without the number of records, which a recorder writes when it ends."""
    file.seek(0)
    header = bytearray(file.read(size))
    header[_RECORDS] = b""
    return bytes(header)


def _layout(path: Path, head: bytes, fields: dict[str, bytes], size: int, record: int, width: int, notes: list[str]) -> _Layout:
    """Return where the records stand. How many they are is what the header says; if it leaves that open, the size tells."""
    begin = len(head) + _RECORDS.stop - _RECORDS.start
    stated, header = _number(fields["records"]), _number(fields["size"])
    if header is not None and header > begin and stated is not None and size == header + stated * record:
        begin = int(header)
    elif header != begin:
        notes.append(f"it states a header of {_text(fields['size']) or 'no'} bytes, which has {begin}")
    there, rest = divmod(size - begin, record) if record else (0, 0)
    if stated is None or not stated.is_integer() or stated < 1:
        if there:
            cut = f"; {rest} bytes of one that was not finished are left out" if rest else ""
            notes.append(
                f"it does not say how many records it has, as if its recorder was stopped: the {there} in it are read{cut}"
            )
        return _Layout(path, head, begin, record, there, width)
    records = int(stated)
    if record and there < records:
        raise wrong(
            path,
            f"is truncated: {records} records expected, {there} found; fetch it again, or, if this is all there is, write -1 "
            "as the number of records into its header (8 characters from byte 236)",
        )
    if record and there > records:
        notes.append(f"it holds {there} records, and its header says {records}: the others are not read")
    return _Layout(path, head, begin, record, records if record else 0, width)


def _length(path: Path, field: bytes) -> Fraction | None:
    """Return the length of a record in s; None if it is 0, as in files whose samples have no rate."""
    length = _number(field)
    if length is None or not (length == 0 or _LEAST_S <= length <= _MOST_S):
        raise wrong(path, f"states records of {_text(field) or 'no'} s: {_LEAST_S:g} to {_MOST_S} s can be read")
    return Fraction(_text(field).replace(",", ".")) if length else None


def _timed(kind: bytes, channels: Sequence[_Channel]) -> _Channel | None:
    """Return the signal that says when each record was; only EDF+ and BDF+ files have one."""
    if not kind.startswith((b"EDF+", b"BDF+")):
        return None
    return next((channel for channel in channels if channel.is_annotation and channel.samples), None)


def _runs(found: Sequence[Stretch], samples: int, rate: float | None) -> list[Run]:
    """Return where the samples of a signal are, in samples of its own rate."""
    runs: list[Run] = []
    for stretch in found:
        after = runs[-1].start + runs[-1].length if runs else 0
        start = max(after, math.floor(stretch.start * (rate or 0.0) + 0.5))
        runs.append(Run(start, stretch.first * samples, stretch.records * samples))
    return runs


def _read(layout: _Layout, chosen: Sequence[_Channel], start: int, stop: int) -> Values:
    """Read samples of signals that have as many in each record; ``start`` and ``stop`` count them in the file."""
    samples = chosen[0].samples
    values = np.empty((len(chosen), stop - start))
    several = max(1, _AT_ONCE // layout.record)
    with layout.path.open("rb") as file:
        if not _header(file, layout.begin).startswith(layout.header):
            raise wrong(layout.path, "has become another file while it was read: open it again")
        for record in range(start // samples, -(-stop // samples), several):
            first, last = max(start, record * samples), min(stop, (record + several) * samples)
            skipped, place = first - record * samples, slice(first - start, last - start)
            if several == 1:
                for row, channel in enumerate(chosen):
                    at = layout.begin + record * layout.record + channel.offset + skipped * layout.width
                    values[row, place] = _numbers(_bytes(layout, file, at, (last - first) * layout.width), layout.width)
                continue
            count = -(-last // samples) - record
            block = _bytes(layout, file, layout.begin + record * layout.record, count * layout.record).reshape(count, -1)
            for row, channel in enumerate(chosen):
                part = np.ascontiguousarray(block[:, channel.offset : channel.offset + samples * layout.width]).reshape(-1)
                values[row, place] = _numbers(part, layout.width)[skipped : skipped + last - first]
    gain, zero = (np.array([getattr(channel, name) for channel in chosen])[:, None] for name in ("gain", "zero"))
    values *= gain
    values += zero
    return values


def _bytes(layout: _Layout, file: BinaryIO, at: int, count: int) -> NDArray[np.uint8]:
    file.seek(at)
    part = np.frombuffer(file.read(count), np.uint8)
    if part.size < count:
        raise wrong(layout.path, "has become shorter while it was read: fetch it again")
    return part


def _numbers(part: NDArray[np.uint8], width: int) -> NDArray[np.int16] | NDArray[np.int32]:
    """Return the samples of bytes, the least significant byte first."""
    if width == 2:
        return part.view("<i2")
    wide = np.zeros((part.size // 3, 4), np.uint8)
    wide[:, 1:] = part.reshape(-1, 3)
    return wide.view("<i4")[:, 0] >> 8


def _untimely(fields: dict[str, bytes]) -> list[str]:
    """Say why it is not known when the file was recorded, if so. No date makes a file unreadable."""
    day, hour = _text(fields["date"]), _text(fields["time"])
    if _text(fields["recording"]).split()[:2] == ["Startdate", "X"]:
        return ["it does not say its date: the time is unknown"]
    parts = re.split(r"[.\-/:]", day)
    written = _text(fields["recording"]).split()[1:2]  # EDF+ writes yy from 2085 on, and the whole year there
    if parts[2:] == ["yy"] and written:
        parts[2] = written[0].rpartition("-")[2][-2:]
    try:
        if len(parts) != 3:
            raise ValueError("not three parts")
        date(2000 + int(parts[2]), int(parts[1]), int(parts[0]))
    except ValueError:
        return [f"its date is {day or 'empty'}: the time is unknown"]
    try:
        hours, minutes, seconds = map(int, re.split(r"[.\-/:]", hour))
        time(hours, minutes, seconds)
    except ValueError:
        return [f"its time of day is {hour or 'empty'}: the time is unknown"]
    return []


def _name(label: str) -> str:
    """Return the lead of an EDF+ label, which writes "ECG V1" (EDF+ 2003, 3.2); all others, and "ECG 1", stay whole."""
    kind, _, lead = label.partition(" ")
    return lead.strip() if kind.upper() in ("ECG", "EKG") and is_ecg(lead) else label


def _text(field: bytes) -> str:
    """Return text of a header, which should be ASCII and is often UTF-8 or Latin-1."""
    try:
        return field.decode()
    except UnicodeDecodeError:
        return field.decode("latin-1")


def _number(field: bytes) -> float | None:
    """Return a number, which some write with a decimal comma; None if it is none."""
    text = _text(field).replace(",", ".")
    value = float(text) if _NUMBER.fullmatch(text) else math.inf
    return value if math.isfinite(value) else None


def _whole(path: Path, what: str, field: bytes, least: int) -> int:
    value = _number(field)
    if value is None or not value.is_integer() or value < least:
        raise _unreadable(path, f"the {what} is {_text(field)!r}")
    return int(value)
