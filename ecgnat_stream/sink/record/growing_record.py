"""A WFDB record that grows. Samples are appended first and the header is replaced after them: it describes what is there.

Samples have 24 or 32 bits, so that the whole input of an amplifier fits, at the device's own step: whatever electrodes add to an
ECG, and however it drifts, needs no baseline that would have to follow it.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream import wire
from ecgnat_stream.annotate import END, Mark, encode
from ecgnat_stream.events import Wave
from ecgnat_stream.signal import INPUT_MV
from ecgnat_stream.sink.files import Growing, make_file

__all__ = ["FINEST_UV", "GrowingRecord"]

FINEST_UV = 0.001
"""Finest step of a recording in microvolts: 32 bits then span 2.1 V either way. Finer devices are rounded to it."""


class GrowingRecord:
    """A WFDB record of format 24 or 32 (header(5) and signal(5) of the WFDB Applications Guide).

    Parameters
    ----------
    header
        Path of its header, which is not there yet.
    wave
        Its first samples, which are not taken yet.
    first
        The time of the first sample.

    Attributes
    ----------
    fs
        Sampling rate in Hz.
    dropped
        Samples of each lead that could not be written.
    """

    def __init__(self, header: Path, wave: Wave, first: datetime, *, group: bool = False) -> None:
        self._header, self._group = header, group
        self.fs, self._leads, self._first = wave.fs, wave.leads, first
        self._uv_per_lsb = wave.uv_per_lsb
        self._step = max(wave.uv_per_lsb, FINEST_UV)
        self._bits = 24 if self._step * wire.largest(24) >= 1000 * INPUT_MV else 32
        self.dropped = 0
        self._start = self._next = self._written = self._described = wave.block.start
        self._samples = Growing(header.with_suffix(".dat"), group=group)
        self._annotations, self._marked = Growing(header.with_suffix(".ecg"), tail=END, group=group), 0
        self._initial: list[int] = []
        self._checksums = np.zeros(len(wave.leads), np.int64)
        self._pending: list[NDArray[np.int32]] = []
        self._pending_samples = 0

    def continues(self, wave: Wave, max_gap_s: float) -> bool:
        """Return whether a wave belongs into this record."""
        same = (wave.fs, wave.leads, wave.uv_per_lsb) == (self.fs, self._leads, self._uv_per_lsb)
        return same and 0 <= wave.block.start - self._next <= max_gap_s * self.fs

    def append(self, wave: Wave) -> NDArray[np.int64]:
        """Take a wave, with what is missing before it; return how many samples of each lead do not fit."""
        gap = wave.block.start - self._next
        if gap:
            self._pending.append(np.full((gap, len(self._leads)), wire.missing(self._bits), np.int32))
        steps = wire.quantise(wave.block.samples, self._step)
        # What lies at the end of the input was cut there before it came here.
        beyond = (np.abs(steps) > wire.largest(self._bits)) | (np.abs(wave.block.samples) >= INPUT_MV)
        clipped: NDArray[np.int64] = beyond.sum(axis=1)
        self._pending.append(wire.pack(steps, self._bits).T)
        self._pending_samples += steps.shape[1]
        self._next = wave.block.stop
        return clipped

    def flush(self) -> None:
        """Append the samples, then replace the header.

        Raises
        ------
        OSError
            Samples that could not be written are dropped, and become missing ones when others come after them.
        """
        if self._pending:
            pending, self._pending = self._pending, []
            codes = np.concatenate(pending)
            samples, self._pending_samples = self._pending_samples, 0
            reached, self._next = self._next, self._written
            try:
                self._samples.append(_bytes(codes, self._bits))
            except OSError:
                self.dropped += samples
                raise
            self._next = self._written = reached
            self._initial = self._initial or [int(code) for code in codes[0]]
            self._checksums += codes.sum(axis=0, dtype=np.int64)
        if self._described != self._written:
            self._replace_header()
            self._described = self._written

    @property
    def unsaved(self) -> int:
        """Samples of each lead that were taken, but are not on the disk, or not in what the header describes."""
        return self._pending_samples + self._written - self._described

    def _replace_header(self) -> None:
        draft = self._header.with_suffix(".hea.tmp")
        try:
            descriptor = make_file(draft, group=self._group)
        except FileExistsError:  # of a process that was killed
            draft.unlink()
            descriptor = make_file(draft, group=self._group)
        try:
            with open(descriptor, "wb") as file:
                file.write(self._text().encode("ascii", "replace"))
            os.replace(draft, self._header)
        except OSError:
            draft.unlink(missing_ok=True)
            raise

    def annotate(self, marks: list[Mark]) -> None:
        """Append marks; their samples count from the beginning of the stream."""
        here = [mark._replace(sample=mark.sample - self._start) for mark in marks]
        if here:
            self._annotations.append(encode(here, self._marked))
            self._marked = here[-1].sample

    def _text(self) -> str:
        total = self._written - self._start
        lines = [
            f"{self._header.stem} {len(self._leads)} {self.fs:.10g} {total} {self._first:%H:%M:%S.%f} {self._first:%d/%m/%Y}"
        ]
        gain = repr(1000 / self._step)
        for lead, initial, checksum in zip(self._leads, self._initial, self._checksums, strict=True):
            wrapped = (int(checksum) + 2**15) % 2**16 - 2**15
            form = f"{self._bits} {gain}(0)/mV {self._bits} 0"
            lines.append(f"{self._samples.path.name} {form} {initial} {wrapped} 0 {' '.join(lead.split())}")
        return "\n".join(lines) + "\n"


def _bytes(codes: NDArray[np.int32], bits: int) -> bytes:
    """Return codes as little-endian numbers of so many bits, sample after sample."""
    words = np.ascontiguousarray(codes, "<i4")
    return words.view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes()
