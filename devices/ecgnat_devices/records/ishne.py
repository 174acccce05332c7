"""ISHNE Holter standard output file (Badilini, Annals of Noninvasive Electrocardiology 1998; 3: 263-266), version 1.

A header of 522 bytes, a block of variable length, and 16 bit little-endian samples, all leads of each time together. The
step of each lead is in nanovolts. -32768 stands for a lead that failed. Files of annotations ("ANN  1.0") are refused by name.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecgnat_devices.records.contents import Asked, Contents, Signal, Values, wrong
from ecgnat_devices.records.pieces import rate_of, without_step

__all__ = ["open_ishne"]

_HEADER = struct.Struct("<8sHiiiih40s40s20shh3h3h3h3hh12h12h12hh40sh")
"""The fixed header up to the sampling rate, in the order of the standard."""

_FIXED_END = 522
_COUNT, _LEADS, _STEPS, _RATE = 24, slice(25, 37), slice(49, 61), 63
"""Which fields of it are read."""

_FAILED = -32768
_MOST_LEADS = 12

_NAMES = {
    **{2: "X", 3: "Y", 4: "Z", 5: "I", 6: "II", 7: "III", 8: "aVR", 9: "aVL", 10: "aVF"},
    **{11: "V1", 12: "V2", 13: "V3", 14: "V4", 15: "V5", 16: "V6", 17: "ES", 18: "AS", 19: "AI"},
}
"""Lead specifications; 0 is unknown and 1 a bipolar lead of any place: these are ECG leads without a name."""


def open_ishne(path: Path, asked: Asked) -> Contents:
    """Read a Holter recording.

    Raises
    ------
    DeviceError
        If it is no ISHNE file, or states sizes that no recording has.
    """
    with path.open("rb") as file:
        head = file.read(_FIXED_END)
    if head[:8] == b"ANN  1.0":
        raise wrong(path, "holds annotations, no samples: give the .ecg file")
    if head[:8] != b"ISHNE1.0":
        raise wrong(path, "is no ISHNE file: it does not begin with ISHNE1.0")
    if len(head) < _FIXED_END:
        raise wrong(path, f"has {len(head)} bytes, but the header alone has {_FIXED_END}: it was cut")
    fields = _HEADER.unpack_from(head)
    _, checksum, variable, stated, _, begin, *_ = fields
    leads, fs = fields[_COUNT], rate_of(path, float(fields[_RATE]))
    if not 1 <= leads <= _MOST_LEADS:
        raise wrong(path, f"says that it has {leads} leads: 1 to {_MOST_LEADS} are possible")
    if variable < 0 or begin < _FIXED_END:
        raise wrong(path, f"has its samples at byte {begin}, within its header of {_FIXED_END}: it is damaged")
    there = max(0, path.stat().st_size - begin) // (2 * leads)
    total, notes = _total(stated, there, leads)
    if checksum != _checksum(path, variable):
        notes += ("its checksum does not fit its header, which may be damaged",)
    stated_nv = fields[_STEPS][:leads]
    steps = np.array([step if step > 0 else 1.0 for step in stated_nv])
    names = [_NAMES.get(number, f"ECG{i + 1}") for i, number in enumerate(fields[_LEADS][:leads])]

    def read(rows: Sequence[int], start: int, stop: int) -> Values:
        raw = np.fromfile(path, dtype="<i2", count=(stop - start) * leads, offset=begin + 2 * leads * start)
        values = raw.reshape(stop - start, leads)[:, list(rows)].T.astype(np.float64)
        values[values == _FAILED] = np.nan
        values *= steps[list(rows), None]
        return values

    signals = tuple(
        Signal(name, fs, "nV" if step > 0 else "", total, max(step, 1)) for name, step in zip(names, stated_nv, strict=True)
    )
    return Contents(signals, read, notes + without_step(signals))


def _total(stated: int, there: int, leads: int) -> tuple[int, tuple[str, ...]]:
    """Return the length in samples, and what does not fit. Some recorders count the samples of all leads, some write none."""
    if stated <= 0 or stated == there * leads:
        return there, ()
    if stated > there:
        return there, (f"says that it has {stated} samples of each lead, but holds {there}: it may have been cut",)
    return stated, ()


def _checksum(path: Path, variable: int) -> int:
    """Return the CRC-CCITT of the header after it, as far as it is there."""
    with path.open("rb") as file:
        file.seek(10)
        return binascii.crc_hqx(file.read(_FIXED_END - 10 + min(variable, 2**20)), 0xFFFF)
