"""WFDB records: what header(5) of the WFDB Applications Guide describes, with segments, in any format of signal(5).

Headers are read by :mod:`ecgnat_stream.wfdb_header`, samples by ``wfdb_samples``. The wfdb package reads neither here: it drops
the letters of a header that it does not know, so that µV becomes V, and reads differences from the middle as from the beginning.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ecgnat_devices.records.contents import Asked, Contents, Signal, Values, wrong
from ecgnat_devices.records.wfdb_samples import SampleFile, invalid, open_samples
from ecgnat_stream.recordings import header_of
from ecgnat_stream.signal import UV_RANGE, lead_of, mv_per, same_rate
from ecgnat_stream.wfdb_header import DEFAULT_GAIN, DEFAULT_HZ, NO_FILE, Described, Header, file_of, read_header
from ecgnat_stream.words import NAME, cleaned

__all__ = ["open_wfdb"]

_Key = tuple[str, int]
"""A signal over all segments: its name, or the lead that this stands for, and the how many-th of it it is in a segment."""


def open_wfdb(path: Path, asked: Asked) -> Contents:
    """Open a WFDB record, by its name or by one of its files.

    Raises
    ------
    DeviceError
        If its header or its files cannot be read.
    """
    header_path = header_of(path)
    if header_path is None:
        raise wrong(path, "is no recording: it has no header, and what it holds is none of the formats that are read")
    header = read_header(header_path)
    parts, stated_hz = _parts(header)
    described = [part for part in parts if part.signals]
    if not described:
        raise wrong(header.path, "describes no signals")
    total = parts[-1].stop
    if total < 1:
        raise wrong(path, "holds no samples")
    notes = _match(described)
    merged = _merged(header.path, described)
    frame_hz = _frame_hz(header, stated_hz, [signal.per_frame for signal in merged.values()], asked)
    signals = tuple(signal.stated(frame_hz, total) for signal in merged.values())
    keys = list(merged)
    starts = [part.start for part in parts]

    def read(rows: Sequence[int], start: int, stop: int) -> Values:
        values = np.full((len(rows), stop - start), np.nan)
        if not rows or start >= stop:
            return values
        per_frame = merged[keys[rows[0]]].per_frame
        factors = [merged[keys[row]].factors(header.path) for row in rows]
        first, last = start // per_frame, -(-stop // per_frame)
        for index in range(max(0, bisect_right(starts, first) - 1), len(parts)):
            part = parts[index]
            if part.start >= last:
                break
            a, b = max(first, part.start), min(last, part.stop)
            if a >= b:
                continue
            got = part.read([keys[row] for row in rows], a - part.start, b - part.start)
            before, behind = max(0, start - a * per_frame), max(0, b * per_frame - stop)
            for value, samples, factor in zip(values, got, factors, strict=True):
                if samples is not None:
                    at = a * per_frame + before - start
                    kept = samples[before : len(samples) - behind] * factor.get(index, 1.0)
                    value[at : at + len(kept)] = kept
        return values

    return Contents(signals, read, (*_notes(header, described, is_assumed=stated_hz is None and asked.fs is None), *notes))


@dataclass(slots=True)
class _Part:
    """A record of one piece, or a segment of one: samples from ``start`` to ``stop`` (frames) of the whole.

    Parameters
    ----------
    signals
        Each with its place in the file that holds it.
    files
        The files that are read, by name.
    moved
        What is said of files that do not lie where the header says.
    """

    name: str
    index: int
    start: int
    stop: int
    signals: dict[_Key, _Placed] = field(default_factory=dict)
    files: dict[str, SampleFile] = field(default_factory=dict)
    moved: list[str] = field(default_factory=list)

    def read(self, keys: Sequence[_Key], start: int, stop: int) -> list[Values | None]:
        """Return the frames from ``start`` to ``stop`` of some signals, in their units; None for what is not recorded here."""
        wanted = [self.signals.get(key) for key in keys]
        values: list[Values | None] = [None] * len(keys)
        for name, file in self.files.items():
            here = [(i, placed) for i, placed in enumerate(wanted) if placed is not None and placed.described.file == name]
            if not here:
                continue
            skews = [placed.described.skew for _, placed in here]
            first, last = start + min(skews), min(stop + max(skews), file.frames)
            codes = file.read(first, last) if first < last else None
            for i, placed in here:
                values[i] = samples = np.full((stop - start) * placed.described.per_frame, np.nan)
                if codes is not None:
                    late = placed.described.skew - min(skews)
                    own = codes[late : late + stop - start, placed.columns].reshape(-1)
                    samples[: len(own)] = placed.physical(own)
        return values


@dataclass(frozen=True, slots=True)
class _Placed:
    """A signal with its columns in the frames of its file."""

    described: Described
    columns: slice

    def physical(self, codes: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Values:
        """Return samples in the unit of the signal; NaN for those that say that they are none."""
        values = (codes.astype(np.float64) - self.described.baseline) / self.described.gain
        if (none := invalid(self.described.format)) is not None:
            values[codes == none] = np.nan
        return values


@dataclass(slots=True)
class _Merged:
    """A signal over all segments; in each it has a unit and a gain of its own.

    Parameters
    ----------
    name, unit, per_frame
        As in the first segment that holds it.
    parts
        How each segment describes it, by the index of the segment.
    names
        Names of these segments.
    """

    name: str
    unit: str
    per_frame: int
    parts: dict[int, Described]
    names: dict[int, str]

    def stated(self, frame_hz: float | None, total: int) -> Signal:
        units = dict.fromkeys(described.unit for described in self.parts.values())
        alike = all(self._factor(unit) is not None for unit in units)
        # The finest step holds what all say; but one that no recording has is what must be seen.
        (least, most), uv = UV_RANGE, 1e3 * (mv_per(self.unit) or 1.0)
        odd = (described for described in self.parts.values() if not least <= uv * self._step(described) <= most)
        judged = next(odd, min(self.parts.values(), key=self._step))
        fs = None if frame_hz is None else frame_hz * self.per_frame
        unit = self.unit if alike else " and ".join(units)
        said = f"the gain (adc_gain) {judged.gain} per {cleaned(judged.unit, NAME)}"
        return Signal(self.name, fs, unit, total * self.per_frame, self._step(judged), said)

    def factors(self, path: Path) -> dict[int, float]:
        """Return what turns the values of each segment into the unit of the signal."""
        factors = {}
        for index, described in self.parts.items():
            factor = self._factor(described.unit)
            if factor is None:
                first = next(iter(self.names.values()))
                raise wrong(
                    path,
                    f"lead {self.name} is in {cleaned(self.unit, NAME)} in the segment {first}, but in "
                    f"{cleaned(described.unit, NAME)} in {self.names[index]}: choose other leads",
                )
            factors[index] = factor
        return factors

    def _step(self, described: Described) -> float:
        return abs((self._factor(described.unit) or 1.0) / described.gain)

    def _factor(self, unit: str) -> float | None:
        if unit == self.unit:
            return 1.0
        one, other = mv_per(unit), mv_per(self.unit)
        return None if one is None or other is None else one / other


def _parts(header: Header) -> tuple[list[_Part], float | None]:
    """Return the parts of a record in the order of time, with their files open, and the rate of frames that is stated."""
    if not header.segments:
        return [_part(header, 0, 0, header.length)], header.fs
    stated_hz, by = header.fs, f"has {header.fs:g} Hz" if header.fs is not None else ""
    parts: list[_Part] = []
    known: dict[str, Header] = {}
    start = 0
    for index, (name, length) in enumerate(header.segments):
        if name == NO_FILE:
            parts.append(_Part(name, index, start, start + length))
        else:
            if name not in known:
                known[name] = _segment_header(header, name)
            segment = known[name]
            if segment.fs is not None and stated_hz is None:
                stated_hz, by = segment.fs, f"has {segment.fs:g} Hz in its segment {name}"
            if segment.fs is not None and stated_hz is not None and not same_rate(segment.fs, stated_hz):
                raise wrong(header.path, f"{by}, but its segment {name} has {segment.fs:g} Hz: read each by itself")
            if length and segment.length is not None and segment.length != length:
                raise wrong(
                    header.path,
                    f"says that its segment {name} has {length} samples, but {segment.path.name} says {segment.length}",
                )
            parts.append(_part(segment, index, start, length))
        start += length
    if header.length is not None and header.length != start:
        raise wrong(header.path, f"says that it has {header.length} samples, but its segments have {start}: mend its first line")
    return parts, stated_hz


def _segment_header(header: Header, name: str) -> Header:
    path = file_of(header.path, f"{name}.hea")
    if path is None:
        raise wrong(
            header.path.with_name(f"{Path(name).name}.hea"), f"does not exist, but the header {header.path.name} names it"
        )
    if path == header.path:
        raise wrong(header.path, "names itself as a segment of its own: that is not allowed")
    segment = read_header(path)
    if segment.segments:
        raise wrong(header.path, f"names the segment {name}, which has segments of its own: that is not allowed")
    return segment


def _part(header: Header, index: int, start: int, length: int | None) -> _Part:
    """Open a record of one piece, or a segment; ``length`` is None if it is left open, 0 for the layout of segments."""
    part = _Part(header.path.stem, index, start, start)
    by_file: dict[str, list[Described]] = {}
    seen: Counter[str] = Counter()
    for described in header.signals:
        key = (described.name, seen[described.name])
        seen[described.name] += 1
        ahead = by_file.setdefault(described.file, [])
        at = sum(other.per_frame for other in ahead)
        part.signals[key] = _Placed(described, slice(at, at + described.per_frame))
        ahead.append(described)
    frames = length
    for name, signals in by_file.items():
        if length == 0 or name == NO_FILE or signals[0].format == 0:
            continue
        part.files[name] = file = _open(header, name, signals, length, part.moved)
        frames = file.frames if frames is None else min(frames, file.frames)
    part.stop = start + (frames or 0)
    return part


def _open(header: Header, name: str, signals: list[Described], length: int | None, moved: list[str]) -> SampleFile:
    for said, values in (
        ("formats", [signal.format for signal in signals]),
        ("places where its samples begin", [signal.offset for signal in signals]),
    ):
        if len(set(values)) > 1:
            raise wrong(
                header.path, f"gives its file {name} several {said} ({', '.join(map(str, sorted(set(values))))}): mend it"
            )
    file = file_of(header.path, name)
    if file is None:
        raise wrong(header.path.parent / name, f"does not exist, but the header {header.path.name} names it")
    if file != header.path.parent / name and file.name != name:
        moved.append(f"its header names the file {cleaned(name, NAME)}; {file.name} is read")
    widths, initial = tuple(signal.per_frame for signal in signals), tuple(signal.initial for signal in signals)
    return open_samples(file, signals[0].format, widths, signals[0].offset, initial, length)


def _layout(parts: Sequence[_Part]) -> set[int]:
    """Return the segments that hold no samples and only say which signals there are, in which order."""
    return {part.index for part in parts if part.stop == part.start and len(parts) > 1}


def _match(parts: Sequence[_Part]) -> list[str]:
    """Give one key to what segments call by different names of one lead ("II", "MLII"), and say so.

    Names that are no leads are one if they differ in small and capital letters only. What a segment holds beside each other, or
    with other samples per frame, is not the same.
    """
    layout = _layout(parts)
    named: dict[str, dict[str, int]] = {}
    apart: set[str] = set()
    for part in parts:
        here: dict[str, str] = {}
        for (name, _), placed in part.signals.items():
            if part.index in layout:
                continue
            stands, per_frame = _stands_for(name), placed.described.per_frame
            others = named.setdefault(stands, {})
            has_both = here.setdefault(stands, name) != name
            if has_both or any(known != per_frame for other, known in others.items() if other != name):
                apart.add(stands)
            others[name] = per_frame
    for part in parts:
        signals: dict[_Key, _Placed] = {}
        for (name, nth), placed in part.signals.items():
            stands = _stands_for(name)
            signals.setdefault((name if stands in apart else stands, nth), placed)
        part.signals = signals
    return [
        f"its segments call one lead {' and '.join(cleaned(name, NAME) for name in names)}: read as one"
        for stands, names in named.items()
        if len(names) > 1 and stands not in apart
    ]


def _stands_for(name: str) -> str:
    return lead_of(name) or name.strip().casefold()


def _merged(path: Path, parts: Sequence[_Part]) -> dict[_Key, _Merged]:
    """Return the signals of all segments. The layout, if there is one, is the first: it gives their order."""
    merged: dict[_Key, _Merged] = {}
    layout = _layout(parts)
    for part in parts:
        for row, (key, placed) in enumerate(part.signals.items()):
            described = placed.described
            known = merged.get(key)
            if known is None:
                name = described.name or f"CH{row + 1}"
                merged[key] = _Merged(name, described.unit, described.per_frame, {part.index: described}, {part.index: part.name})
                continue
            if set(known.parts) <= layout:  # it only says the order
                known.unit, known.per_frame, known.parts, known.names = described.unit, described.per_frame, {}, {}
            if described.per_frame != known.per_frame:
                raise wrong(
                    path,
                    f"has lead {known.name} with {known.per_frame} samples per frame, but {described.per_frame} in its segment "
                    f"{part.name}: read each by itself",
                )
            known.parts[part.index], known.names[part.index] = described, part.name
    return merged


def _frame_hz(header: Header, stated_hz: float | None, per_frame: Sequence[int], asked: Asked) -> float | None:
    """Return the rate of frames: as it is stated; else so that the signals have the rate asked for; else that of header(5)."""
    if stated_hz is not None:
        return stated_hz if stated_hz > 0 else None
    if asked.fs is None:
        return DEFAULT_HZ
    if len(set(per_frame)) > 1:
        raise wrong(header.path, "gives no rate, and its signals have several: write the rate of its frames into its first line")
    return asked.fs / per_frame[0]


def _notes(header: Header, parts: Sequence[_Part], *, is_assumed: bool) -> tuple[str, ...]:
    notes = list(header.notes)
    if is_assumed:
        notes.append(f"its header gives no rate: {DEFAULT_HZ:g} Hz is taken (header(5)); another is given with fs (--fs)")
    uncalibrated = dict.fromkeys(
        cleaned(placed.described.name, NAME) or "a signal without a name"
        for part in parts
        for placed in part.signals.values()
        if not placed.described.calibrated and part.stop > part.start
    )
    if uncalibrated:
        notes.append(
            f"its header gives no gain for {', '.join(uncalibrated)}: {DEFAULT_GAIN:g} steps per mV are taken (header(5))"
        )
    return (*notes, *dict.fromkeys(note for part in parts for note in part.moved))
