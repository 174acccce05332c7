"""EDF and BDF files byte by byte, with whatever a header can hold: pyedflib writes only what it would read itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

STEP_MV = 0.001


@dataclass
class Channel:
    """One signal: its steps, how many of them stand in a record, and its fields as text or bytes."""

    steps: NDArray[np.int_]
    per_record: int
    label: str | bytes = "ECG II"
    unit: str | bytes = "mV"
    physical: tuple[str | bytes, str | bytes] = ("-32.768", "32.767")
    digital: tuple[str | bytes, str | bytes] = ("-32768", "32767")


@dataclass
class Header:
    """The fields of the first 256 bytes; ``records`` None is what is there, ``size`` None what it is."""

    version: bytes = b"0"
    patient: str | bytes = "X X X X"
    recording: str | bytes = "Startdate 02-MAR-2021 X X X"
    date: str | bytes = "02.03.21"
    time: str | bytes = "10.20.30"
    kind: str | bytes = ""
    length: str | bytes = "1"
    records: str | bytes | None = None
    size: str | bytes | None = None
    onsets: Sequence[str | bytes] | None = field(default=None)
    """What the signal of annotations holds in each record; None: there is none."""


def steps(seconds: float, fs: float = 250.0, seed: int = 1) -> NDArray[np.int_]:
    """Return samples of which none is like its neighbour."""
    return np.random.default_rng(seed).integers(-3000, 3000, round(seconds * fs))


def onset(seconds: float) -> str:
    """Return the annotation that keeps the time of a record."""
    return f"+{seconds:.9g}\x14\x14\0"


def write(path: Path, channels: Sequence[Channel], header: Header | None = None, tail: bytes = b"") -> Path:
    """Write a file; what its signals hold beyond the last whole record is left out."""
    header = header or Header()
    width = 3 if header.version.startswith(b"\xff") else 2
    blocks = [_packed(channel.steps, width, channel.per_record) for channel in channels]
    count = min(
        (len(block) for block, channel in zip(blocks, channels, strict=True) if channel.per_record),
        default=len(header.onsets or ()),
    )
    fields = [*channels]
    if header.onsets is not None:
        room = -(-max(30, *(len(one) for one in header.onsets)) // (2 * width)) * 2 * width
        name = f"{'BDF' if width == 3 else 'EDF'} Annotations"
        fields.append(Channel(np.zeros(0, int), room // width, name, "", ("-1", "1"), ("-32768", "32767")))
        blocks.append([_raw(one).ljust(room, b"\0") for one in header.onsets])
    with path.open("wb") as file:
        file.write(_fixed(header.version, 8))
        for text, size in (
            (header.patient, 80),
            (header.recording, 80),
            (header.date, 8),
            (header.time, 8),
            (str(256 * (len(fields) + 1)) if header.size is None else header.size, 8),
            (header.kind, 44),
            (str(count) if header.records is None else header.records, 8),
            (header.length, 8),
            (str(len(fields)), 4),
        ):
            file.write(_fixed(text, size))
        for size, column in (
            (16, [one.label for one in fields]),
            (80, ["" for one in fields]),
            (8, [one.unit for one in fields]),
            (8, [one.physical[0] for one in fields]),
            (8, [one.physical[1] for one in fields]),
            (8, [one.digital[0] for one in fields]),
            (8, [one.digital[1] for one in fields]),
            (80, ["" for one in fields]),
            (8, [str(one.per_record) for one in fields]),
            (32, ["" for one in fields]),
        ):
            file.write(b"".join(_fixed(text, size) for text in column))
        for record in range(count):
            file.write(b"".join(block[record] for block in blocks if block))
        file.write(tail)
    return path


def _packed(values: NDArray[np.int_], width: int, per_record: int) -> list[bytes]:
    raw = b"".join(int(value).to_bytes(width, "little", signed=True) for value in values)
    size = width * per_record
    return [raw[at : at + size] for at in range(0, len(raw) - size + 1, size)] if size else []


def _fixed(text: str | bytes, size: int) -> bytes:
    raw = _raw(text)
    assert len(raw) <= size, (text, size)
    return raw.ljust(size)


def _raw(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
