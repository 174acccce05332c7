"""SCP-ECG (EN 1064:2005, ISO 11073-91064:2009), protocol versions 1 to 2, and files of version 3 that keep sections 3 and 6.

Read are section 3 (leads), section 6 (rhythm) with Huffman coding by the default table or those of section 2, first and second
differences, and the reference beat of sections 4 and 5 put back. Samples that are thinned out between the beats (bimodal
compression) and those of section 12 are refused by name. Limb leads that a file leaves to be computed are added.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgnat_devices.records.contents import Asked, Contents, wrong
from ecgnat_devices.records.huffman import DEFAULT, Code, Table, decode
from ecgnat_devices.records.lead_codes import scp_lead, with_limb_leads
from ecgnat_devices.records.pieces import Piece, contents_of

__all__ = ["open_scp"]

Samples = NDArray[np.int64]

_MOST_BYTES, _MOST_SAMPLES = 2**24, 2**23
"""Largest file, and most samples of all leads: an hour and a half of three leads at 500 Hz."""

_MOST_BEATS = 5000

_HEADER = struct.Struct("<HHIBB6s")
_POINTER = struct.Struct("<HII")
_LEAD = struct.Struct("<IIB")
_CODE = struct.Struct("<BBBhI")
_DATA = struct.Struct("<HHBB")

_DEFAULT_TABLE = 19999
"""Number of tables in section 2 that stands for the default table (EN 1064, 5.5)."""

_VERSION_3 = 30


@dataclass(frozen=True, slots=True)
class _Lead:
    """A lead of section 3: its first sample, counted from 1, and how many."""

    first: int
    count: int
    name: str


@dataclass(frozen=True, slots=True)
class _Data:
    """Section 5 or 6, decoded."""

    step_nv: int
    interval_us: int
    rows: list[Samples]


@dataclass(frozen=True, slots=True)
class _Beats:
    """Section 4: length of the reference beat in ms, the sample of its fiducial point, and where it was taken away."""

    length_ms: int
    fiducial: int
    places: list[tuple[int, int, int, int]]


def open_scp(path: Path, asked: Asked) -> Contents:
    """Read an SCP-ECG record.

    Raises
    ------
    DeviceError
        If it is none, was cut, or has its samples in a form that is not read.
    """
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise wrong(path, f"has {size} bytes: SCP-ECG is read up to {_MOST_BYTES}")
    record = path.read_bytes()
    try:
        sections, version, notes = _sections(path, record)
        pieces = _pieces(path, sections, version)
    except (struct.error, IndexError) as error:
        raise wrong(path, f"has a section that ends too early: it was cut, or is damaged ({error})") from error
    return contents_of(path, with_limb_leads(pieces), notes)


def _sections(path: Path, record: bytes) -> tuple[dict[int, bytes], int, list[str]]:
    """Return what the sections hold, by their numbers; the version of the protocol; and what does not fit."""
    checksum, size = struct.unpack_from("<HI", record)
    if record[16:22] != b"SCPECG" and _HEADER.unpack_from(record, 6)[1] != 0:
        raise wrong(path, "is no SCP-ECG record: it does not begin with section 0")
    if size > len(record):
        raise wrong(path, f"should have {size} bytes, but has {len(record)}: it was cut")
    notes = [] if binascii.crc_hqx(record[2:size], 0xFFFF) == checksum else ["its checksum does not fit: it may be damaged"]
    _, _, length, _, version, _ = _HEADER.unpack_from(record, 6)
    sections: dict[int, bytes] = {}
    for at in range(6 + _HEADER.size, min(6 + length, size) - _POINTER.size + 1, _POINTER.size):
        number, length, place = _POINTER.unpack_from(record, at)
        if length <= _HEADER.size or place < 1:
            continue
        begin = place - 1
        if begin + length > size or _HEADER.unpack_from(record, begin)[1] != number:
            raise wrong(path, f"has no section {number} where section 0 says (byte {place}, {length} bytes): it is damaged")
        sections[number] = record[begin + _HEADER.size : begin + length]
    return sections, version, notes


def _pieces(path: Path, sections: Mapping[int, bytes], version: int) -> list[Piece]:
    if 3 not in sections or 6 not in sections:
        long = ": it has section 12, of long recordings, which is not read" if 12 in sections else ""
        raise wrong(path, f"has no leads (section 3), or no rhythm (section 6){long}")
    subtracted, leads = _leads(path, sections[3])
    tables = _tables(path, sections[2]) if 2 in sections else None
    beats = _beats(path, sections[4]) if subtracted and 4 in sections else None
    reference: _Data | None = None
    if 5 in sections and beats is not None:
        interval_us = _DATA.unpack_from(sections[5])[1] or 1
        counts = [round(1000 * beats.length_ms / interval_us)] * len(leads)
        reference = _data(path, 5, sections[5], counts, tables)
    bimodal = sections[6][5] != 0 and version < _VERSION_3
    if bimodal and not (5 in sections and sections[5][2:4] == sections[6][2:4]):
        raise wrong(path, "is thinned out between its beats (bimodal compression): that is not read; save it uncompressed")
    rhythm = _data(path, 6, sections[6], [lead.count for lead in leads], tables)
    fs = 1e6 / rhythm.interval_us
    if not subtracted:
        rows, step_nv = rhythm.rows, rhythm.step_nv
    else:
        rows, step_nv = _put_back(path, leads, rhythm, reference, beats), 1
    unit = "nV" if step_nv else ""  # counts of the converter
    return [
        Piece(lead.name, fs, unit, row, step_nv or 1, start_s=(lead.first - 1) / fs)
        for lead, row in zip(leads, rows, strict=True)
    ]


def _leads(path: Path, section: bytes) -> tuple[bool, list[_Lead]]:
    """Return whether a reference beat was taken away, and the leads."""
    count, flags = section[0], section[1]
    leads = []
    for i in range(count):
        first, last, number = _LEAD.unpack_from(section, 2 + i * _LEAD.size)
        if not 1 <= first <= last:
            raise wrong(path, f"has samples {first} to {last} of lead {i + 1}: it is damaged")
        leads.append(_Lead(first, last - first + 1, scp_lead(number) or (f"lead {number}" if number else "")))
    return bool(flags & 1), leads


def _tables(path: Path, section: bytes) -> list[Table]:
    (count,) = struct.unpack_from("<H", section)
    if count == _DEFAULT_TABLE:
        return [DEFAULT]
    tables, at = [], 2
    for _ in range(count):
        (codes,) = struct.unpack_from("<H", section, at)
        at += 2
        made = []
        for _ in range(codes):
            prefix, bits, is_value, base, word = _CODE.unpack_from(section, at)
            at += _CODE.size
            if not 1 <= prefix <= 32 or not prefix <= bits <= prefix + 32:
                raise wrong(path, f"has a Huffman code of {prefix} bits within {bits}: it is damaged")
            made.append(Code(prefix, bits - prefix, bool(is_value), base, word))
        tables.append(Table(made))
    if not tables:
        raise wrong(path, "has no Huffman table in section 2: it is damaged")
    return tables


def _beats(path: Path, section: bytes) -> _Beats:
    length_ms, fiducial, count = struct.unpack_from("<HHH", section)
    if count > _MOST_BEATS:
        raise wrong(path, f"says that it has {count} beats in section 4: at most {_MOST_BEATS} are read")
    place = struct.Struct("<HIII")
    return _Beats(length_ms, fiducial, [place.unpack_from(section, 6 + i * place.size) for i in range(count)])


def _data(path: Path, number: int, section: bytes, counts: Sequence[int], tables: Sequence[Table] | None) -> _Data:
    """Return the samples of section 5 or 6, in steps of the converter."""
    step_nv, interval_us, differences, _ = _DATA.unpack_from(section)
    if not interval_us or differences > 2:
        raise wrong(path, f"has samples every {interval_us} us and differences {differences} in section {number}: it is damaged")
    if sum(counts) > _MOST_SAMPLES:
        raise wrong(path, f"says that it has {sum(counts)} samples in section {number}: at most {_MOST_SAMPLES} are read")
    sizes = struct.unpack_from(f"<{len(counts)}H", section, _DATA.size)
    at, rows = _DATA.size + 2 * len(counts), []
    for count, size in zip(counts, sizes, strict=True):
        coded = section[at : at + size]
        at += size
        what = f"section {number} should have {count} samples of a lead"
        if len(coded) < size or count > 8 * size:
            raise wrong(path, f"{what} in {size} bytes, but {len(coded)} are there: it was cut")
        if tables is None:
            if size < 2 * count:
                raise wrong(path, f"{what}, but {size // 2} are there: it was cut")
            row = np.frombuffer(coded, "<i2", count=count).astype(np.int64)
        else:
            try:
                row = decode(coded, count, tables)
            except ValueError as error:
                raise wrong(path, f"{what}, but {error}: it was cut, or is damaged") from error
        rows.append(_summed(row, differences))
    return _Data(step_nv, interval_us, rows)


def _summed(row: Samples, differences: int) -> Samples:
    """Return samples from their differences (EN 1064, 5.8): the first one or two stand as they are. All is done with 16 bits."""
    if differences == 1:
        row = row.cumsum()
    elif differences == 2 and len(row) > 2:
        slope = np.concatenate(([row[1] - row[0]], row[2:])).cumsum()
        row = np.concatenate(([row[0]], row[0] + slope.cumsum()))
    return row.astype(np.int16).astype(np.int64)


def _put_back(path: Path, leads: Sequence[_Lead], rhythm: _Data, reference: _Data | None, beats: _Beats | None) -> list[Samples]:
    """Return the rhythm in nV with the reference beat where it was taken away, its fiducial point on that of each beat."""
    if reference is None or beats is None:
        raise wrong(path, "has a reference beat taken away, but does not hold it (sections 4 and 5): it is damaged")
    if not (reference.step_nv and rhythm.step_nv):
        raise wrong(path, "has a reference beat taken away, but does not say how large its steps are: it is damaged")
    if reference.interval_us != rhythm.interval_us:
        raise wrong(path, "has a reference beat of another rate than its rhythm: that is not read; save it uncompressed")
    rows = []
    for lead, residual, row in zip(leads, rhythm.rows, reference.rows, strict=True):
        values, beat = residual * rhythm.step_nv, row * reference.step_nv
        for kind, begin, fiducial, end in beats.places:
            if kind != 0:
                continue
            zero = fiducial - beats.fiducial + 1  # the sample on which the first of the reference beat stands
            first, last = max(begin, zero, lead.first), min(end, zero + len(beat) - 1, lead.first + lead.count - 1)
            if first <= last:
                values[first - lead.first : last - lead.first + 1] += beat[first - zero : last - zero + 1]
        rows.append(values)
    return rows
