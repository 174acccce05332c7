"""WFDB records: signal formats as in wfdb, FLAC and .mat included. header(5) and signal(5) of the WFDB Applications Guide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import wfdb

from ecgnat_devices.records.contents import MOST_AT_ONCE, MOST_SIGNALS, TROUBLE, Asked, Contents, Signal, Values, wrong
from ecgnat_stream.recordings import WFDB_SUFFIXES

__all__ = ["open_wfdb"]

_SHORT_S = 60.0
"""A record up to this length is read at once."""

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

_MOST_SEGMENTS, _MOST_PER_FRAME = 10_000, 1000
_MOST_SKEW_S = 10.0
"""Largest skew between signals: wfdb reads so much more of a signal, each time."""


def open_wfdb(path: Path, asked: Asked) -> Contents:
    """Open a WFDB record, by its name or by one of its files.

    Raises
    ------
    DeviceError
        If its header or its files cannot be read.
    """
    path = _name(path)
    header_name = f"{path.name}.hea"
    _check_header_size(path.with_name(header_name))
    try:
        header = wfdb.rdheader(str(path), rd_segments=True)
    except TROUBLE as error:
        raise wrong(path.with_name(header_name), f"is no WFDB header ({error})") from error
    if not header.n_sig:
        raise wrong(path.with_name(header_name), "describes no signals")
    segments = [s for s in header.segments if s is not None] if isinstance(header, wfdb.MultiRecord) else [header]
    for segment in segments:
        _check_header(path.with_name(f"{segment.record_name}.hea"), segment)
    lengths = [_check_files(path, segment) for segment in segments]
    total = lengths[0] if len(segments) == 1 else int(header.sig_len or 0)
    if total < 1:
        raise wrong(path, "holds no samples")
    described = segments[0]
    signals = tuple(
        Signal(
            name or f"CH{row + 1}",
            float(header.fs) if header.fs else None,
            described.units[row],
            total,
            1 / gain if (gain := float(described.adc_gain[row] or 0.0)) else math.inf,
            f"the gain (adc_gain) {described.adc_gain[row]} per {described.units[row]}",
        )
        for row, name in enumerate(described.sig_name)
    )
    size = total * len(signals)
    if not header.sig_len and size > MOST_AT_ONCE:
        raise wrong(path.with_name(header_name), f"leaves the length open, and {total} samples are too many then: write it there")

    def read(rows: Sequence[int], start: int, stop: int) -> Values:
        part_of = {"sampfrom": start, "sampto": stop} if header.sig_len else {}
        part = wfdb.rdrecord(str(path), channels=list(rows), m2s=True, **part_of)
        if part.p_signal is None or part.p_signal.shape != (stop - start, len(rows)):
            raise wrong(path, f"cannot be read from sample {start} to {stop}")
        return np.ascontiguousarray(part.p_signal.T, dtype=np.float64)

    # A recorder that was killed leaves the length open; wfdb reads such a record only as a whole. Of a short one, wfdb would take
    # longer for its header, each time, than for its samples.
    short = header.fs and total / header.fs <= _SHORT_S and size <= MOST_AT_ONCE
    if header.sig_len and not short:
        return Contents(signals, read)
    whole = read(range(len(signals)), 0, total)
    return Contents(signals, lambda rows, start, stop: whole[list(rows), start:stop])


def _name(path: Path) -> Path:
    if path.suffix.lower() in WFDB_SUFFIXES:
        path = path.with_suffix("")
    if not path.with_name(path.name + ".hea").is_file():
        raise wrong(path, "is no recording: it has no header, and what it holds is none of the formats that are read")
    return path


def _check_header_size(header: Path) -> None:
    """Refuse a header that is too large to be one, and one with segments that are made of segments."""
    size = header.stat().st_size
    if size > _HEADER_BYTES:
        raise wrong(header, f"has {size} bytes: a WFDB header has at most {_HEADER_BYTES}")
    with header.open(encoding="utf-8", errors="replace") as lines:
        said = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    several = said[0][0].partition("/")[2] if said else ""
    if not several:
        return
    parts = {words[0] for words in said[1:]} - {"~"}
    if not several.isdigit() or len(said) > _MOST_SEGMENTS + 1:
        raise wrong(header, f"names {several[:20]} segments: at most {_MOST_SEGMENTS} are read")
    for part in parts:
        file = header.with_name(f"{part}.hea")
        if not file.is_file():
            continue
        if file.stat().st_size > _HEADER_BYTES:
            raise wrong(file, f"has {file.stat().st_size} bytes: a WFDB header has at most {_HEADER_BYTES}")
        with file.open(encoding="utf-8", errors="replace") as lines:
            first = next((line.split()[0] for line in lines if line.strip() and not line.startswith("#")), "")
        if "/" in first:
            raise wrong(header, f"names the segment {part}, which has segments of its own: that is not allowed")


def _check_header(file: Path, segment: wfdb.Record) -> None:
    """Refuse numbers of a header that no recording has, before memory is taken for them."""
    if segment.n_sig > MOST_SIGNALS:
        raise wrong(file, f"describes {segment.n_sig} signals: at most {MOST_SIGNALS} are read")
    most_skew = _MOST_SKEW_S * (segment.fs or 0.0)
    for i in range(segment.n_sig or 0):
        lead = segment.sig_name[i] or f"CH{i + 1}"
        skew, per_frame, offset = (
            (getattr(segment, field) or [None] * segment.n_sig)[i] or 0 for field in ("skew", "samps_per_frame", "byte_offset")
        )
        if not 0 <= skew <= most_skew:
            raise wrong(file, f"lead {lead} has a skew of {skew:g} samples: at most {_MOST_SKEW_S:g} s are read")
        if not 0 <= per_frame <= _MOST_PER_FRAME:
            raise wrong(file, f"lead {lead} has {per_frame:g} samples per frame: at most {_MOST_PER_FRAME} are read")
        if offset < 0:
            raise wrong(file, f"lead {lead} begins at byte {offset:g} of its file")


def _check_files(path: Path, segment: wfdb.Record) -> int:
    """Return the length of a record whose signal files hold what the header says."""
    length = segment.sig_len
    for name in dict.fromkeys(segment.file_name or ()):
        if name == "~":
            continue
        file = path.with_name(name)
        rows = [i for i, other in enumerate(segment.file_name) if other == name]
        fmt = segment.fmt[rows[0]]
        if not file.is_file():
            raise wrong(file, f"does not exist, but the header {segment.record_name}.hea names it")
        if fmt in _WFDB_FLAC:
            try:
                found = soundfile.info(str(file)).frames // (segment.samps_per_frame[rows[0]] or 1)
            except soundfile.LibsndfileError as error:
                raise wrong(file, f"is no FLAC file ({error})") from error
            if length is not None and found < length:
                raise wrong(file, f"is truncated: {length} samples expected, {found} found")
            length = found if length is None else length
        elif fmt in _WFDB_BYTES:
            per_frame = sum(segment.samps_per_frame[i] or 1 for i in rows) * _WFDB_BYTES[fmt]
            offset = segment.byte_offset[rows[0]] or 0
            size = file.stat().st_size
            if length is None:
                length = int((size - offset) / per_frame)
            expected = offset + math.floor(length * per_frame)
            if size < expected:
                raise wrong(file, f"is truncated: {expected} bytes expected, {size} found; fetch the record again")
        else:
            raise wrong(file, f"has the signal format {fmt}, which is not known")
    return int(length or 0)
