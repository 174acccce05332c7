"""Samples in the files of WFDB records: any frames of a file, in every format of signal(5) of the WFDB Applications Guide.

Arrays are ``(T, S)``: T frames, S the samples of one frame in the order of the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from ecgnat_devices.records.contents import wrong

__all__ = ["FLAC", "PACKINGS", "SampleFile", "invalid", "open_samples"]

Codes = NDArray[np.int64]
_Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Packing:
    """How a format packs samples: groups of so many samples in so many bytes.

    Parameters
    ----------
    bits
        Of a sample. Its lowest value says that there is none, except where samples are differences.
    unpack
        Takes groups ``(N, bytes)`` and gives ``(N, samples)``.
    rests
        Bytes that 0, 1, ... samples of a last group take, which need not be whole.
    """

    bits: int
    unpack: Callable[[_Bytes], Codes]
    rests: tuple[int, ...] = (0,)
    samples: int = 1
    size: int = 1

    def bytes_of(self, samples: int) -> int:
        """Return how many bytes so many samples take."""
        groups, rest = divmod(samples, self.samples)
        return groups * self.size + self.rests[rest]

    def samples_in(self, size: int) -> int:
        """Return how many samples so many bytes hold."""
        groups, rest = divmod(max(0, size), self.size)
        return groups * self.samples + max(i for i, taken in enumerate(self.rests) if taken <= rest)


def _as(dtype: str, zero: int = 0) -> Callable[[_Bytes], Codes]:
    return lambda groups: np.ascontiguousarray(groups).view(dtype).astype(np.int64) - zero


def _signed(codes: Codes, bits: int) -> Codes:
    return np.where(codes >= 1 << (bits - 1), codes - (1 << bits), codes)


def _of_24(groups: _Bytes) -> Codes:
    a, b, c = groups.T.astype(np.int64)
    return _signed(a | b << 8 | c << 16, 24)[:, None]


def _of_212(groups: _Bytes) -> Codes:
    a, b, c = groups.T.astype(np.int64)
    return _signed(np.stack([a | (b & 0x0F) << 8, c | (b & 0xF0) << 4], axis=1), 12)


def _of_310(groups: _Bytes) -> Codes:
    a, b, c, d = groups.T.astype(np.int64)
    return _signed(np.stack([a >> 1 | (b & 7) << 7, c >> 1 | (d & 7) << 7, b >> 3 | (d >> 3) << 5], axis=1), 10)


def _of_311(groups: _Bytes) -> Codes:
    a, b, c, d = groups.T.astype(np.int64)
    return _signed(np.stack([a | (b & 3) << 8, b >> 2 | (c & 0x0F) << 6, c >> 4 | (d & 0x3F) << 4], axis=1), 10)


DIFFERENCES = 8

PACKINGS: dict[int, Packing] = {
    DIFFERENCES: Packing(8, _as("i1")),
    16: Packing(16, _as("<i2"), size=2),
    24: Packing(24, _of_24, size=3),
    32: Packing(32, _as("<i4"), size=4),
    61: Packing(16, _as(">i2"), size=2),
    80: Packing(8, _as("u1", 0x80)),
    160: Packing(16, _as("<u2", 0x8000), size=2),
    212: Packing(12, _of_212, (0, 2), samples=2, size=3),
    310: Packing(10, _of_310, (0, 2, 4), samples=3, size=4),
    311: Packing(10, _of_311, (0, 2, 3), samples=3, size=4),
}

FLAC = {508: 8, 516: 16, 524: 24}
"""Bits of a sample in a compressed file, at most."""

_SUBTYPES = {"PCM_S8": 8, "PCM_16": 16, "PCM_24": 24}
_CHECKPOINT = 2**16
"""Frames of differences after which a sum is kept."""


def invalid(fmt: int) -> int | None:
    """Return the code that says that there is no sample; None for differences, which have none."""
    bits = FLAC.get(fmt) or (PACKINGS[fmt].bits if fmt != DIFFERENCES else None)
    return None if bits is None else -(1 << (bits - 1))


class SampleFile(Protocol):
    """An open file of samples: how many frames it holds, and any of them."""

    frames: int

    def read(self, start: int, stop: int) -> Codes:
        """Return the frames from ``start`` to ``stop``, (T, S)."""


def open_samples(
    file: Path, fmt: int, per_frame: tuple[int, ...], offset: int, initial: tuple[int, ...], most: int | None
) -> SampleFile:
    """Open a file of samples.

    Parameters
    ----------
    per_frame, initial
        Samples in a frame of each of its signals, and its sample before the first.
    offset
        Where the samples begin: bytes; of a compressed file samples.
    most
        Frames that it must hold; None if nobody said.

    Raises
    ------
    DeviceError
        If it is none, or holds less.
    """
    if fmt in FLAC:
        return _Compressed(file, fmt, per_frame, offset, most)
    if fmt not in PACKINGS:
        raise wrong(file, f"has the signal format {fmt}, which is not known")
    packed = _Packed(file, PACKINGS[fmt], sum(per_frame), offset, most)
    return _Differences(packed, per_frame, initial) if fmt == DIFFERENCES else packed


class _Packed:
    def __init__(self, file: Path, packing: Packing, width: int, offset: int, most: int | None) -> None:
        self._file, self._packing, self._width, self._offset = file, packing, width, offset
        size = file.stat().st_size
        self.frames = packing.samples_in(size - offset) // width if most is None else most
        expected = offset + packing.bytes_of(self.frames * width)
        if most is not None and size < expected:
            raise wrong(file, f"is truncated: {expected} bytes expected, {size} found; fetch the record again")

    def read(self, start: int, stop: int) -> Codes:
        packing, first, last = self._packing, start * self._width, stop * self._width
        group, groups = first // packing.samples, -(-last // packing.samples)
        wanted = packing.bytes_of(last) - group * packing.size
        with self._file.open("rb") as file:
            file.seek(self._offset + group * packing.size)
            content = file.read(wanted)
        if len(content) < wanted:
            raise wrong(self._file, f"has become shorter: {wanted} bytes expected, {len(content)} found")
        padded = np.zeros((groups - group) * packing.size, np.uint8)
        padded[:wanted] = np.frombuffer(content, np.uint8)
        codes = packing.unpack(padded.reshape(-1, packing.size)).reshape(-1)
        at = first - group * packing.samples
        return codes[at : at + last - first].reshape(-1, self._width)


class _Differences:
    """Format 8: what a sample is, only all before it say. Sums are kept on the way, so that no part is read twice."""

    def __init__(self, packed: _Packed, per_frame: tuple[int, ...], initial: tuple[int, ...]) -> None:
        self.frames = packed.frames
        self._packed = packed
        edges = np.cumsum((0, *per_frame))
        self._columns = [slice(a, b) for a, b in pairwise(edges)]
        self._sums = [np.array(initial, np.int64)]

    def read(self, start: int, stop: int) -> Codes:
        while len(self._sums) <= start // _CHECKPOINT:
            at = (len(self._sums) - 1) * _CHECKPOINT
            differences = self._packed.read(at, at + _CHECKPOINT)
            self._sums.append(self._sums[-1] + np.array([differences[:, columns].sum() for columns in self._columns], np.int64))
        first = start // _CHECKPOINT * _CHECKPOINT
        codes = self._packed.read(first, stop)
        for columns, before in zip(self._columns, self._sums[start // _CHECKPOINT], strict=True):
            summed = before + np.cumsum(codes[:, columns].reshape(-1))
            codes[:, columns] = summed.reshape(len(codes), -1)
        return codes[start - first :]


class _Compressed:
    def __init__(self, file: Path, fmt: int, per_frame: tuple[int, ...], offset: int, most: int | None) -> None:
        self._file, self._channels, self._offset = file, len(per_frame), offset
        if len(set(per_frame)) > 1:
            raise wrong(file, "is FLAC with signals of several rates: a FLAC file has one rate")
        self._per_frame = per_frame[0]
        try:
            info = soundfile.info(str(file))
        except soundfile.LibsndfileError as error:
            raise wrong(file, f"is no FLAC file ({error})") from error
        bits = _SUBTYPES.get(info.subtype, 99)
        if info.format != "FLAC" or bits > FLAC[fmt] or info.channels != self._channels:
            raise wrong(
                file,
                f"is {info.format} with {info.channels} signals of {info.subtype}, but its header says FLAC of {FLAC[fmt]} bits "
                f"with {self._channels}",
            )
        self._shift = 32 - bits
        found = (info.frames - offset) // self._per_frame
        self.frames = found if most is None else most
        if found < self.frames:
            raise wrong(file, f"is truncated: {most} samples expected, {found} found")

    def read(self, start: int, stop: int) -> Codes:
        wanted = (stop - start) * self._per_frame
        with soundfile.SoundFile(self._file) as file:
            file.seek(self._offset + start * self._per_frame)
            # libsndfile fails for more than 2**24 values at once
            pieces = [file.read(min(2**20, wanted - at), dtype="int32", always_2d=True) for at in range(0, wanted, 2**20)]
        codes = np.concatenate([*pieces, np.zeros((0, self._channels), np.int32)])
        if len(codes) < wanted:
            raise wrong(self._file, f"ends early: {wanted} samples expected, {len(codes)} found")
        frames = (codes.astype(np.int64) >> self._shift).reshape(-1, self._per_frame, self._channels)
        return frames.transpose(0, 2, 1).reshape(stop - start, -1)
