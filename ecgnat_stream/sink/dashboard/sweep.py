"""The swept trace in braille dots: what has been received, how far it is shown, which cells change. numpy only.

A cell of the terminal holds 2 x 4 dots. A dot column shows the range of its samples, joined to the sample before, so that no
peak is lost however coarse the columns are. A column without samples stays empty but for a sparse mark at the bottom:
a gap is neither bridged nor drawn as a flat line.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.signal import FS, LEADS

__all__ = ["BASELINE", "CELL_DOTS", "Sweep", "TraceBuffer", "braille", "pack"]

CELL_DOTS = (4, 2)
"""Dot rows and columns of a cell."""

BASELINE = 0.6
"""Where 0 mV lies, as a share of the height from the top: QRS complexes are mostly upright."""

# Bit of each dot of a cell, by dot row and column (Unicode, Braille Patterns, U+2800).
_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.uint8)

_MAX_LAG_S = 0.6
_ERASE_CELLS = 2
_GAP_MARK_EVERY = 6


def pack(dots: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Turn ``(4 H, 2 W)`` dots into the ``(H, W)`` braille codes of their cells."""
    rows, columns = dots.shape
    blocks = dots.reshape(rows // 4, 4, columns // 2, 2)
    cells: NDArray[np.uint8] = np.einsum("hrwc,rc->hw", blocks, _BITS, dtype=np.uint8, casting="unsafe")
    return cells


def braille(cells: NDArray[np.uint8]) -> str:
    """Return one row of cells as text; an empty cell is a space, which every font has."""
    return "".join(chr(0x2800 + code) if code else " " for code in cells.tolist())


class TraceBuffer:
    """The last ``seconds`` of one bed's conditioned signal, by absolute sample index, and how far it is shown.

    Frames arrive in steps of 0.2 s; :meth:`play` lets the shown part follow evenly, at most 0.6 s behind.
    """

    def __init__(self, seconds: float = 30.0) -> None:
        self.capacity = int(seconds * FS)
        self.stop = 0
        self.shown = 0.0
        self.streams = 0
        self._samples = np.full((len(LEADS), self.capacity), np.nan, dtype=np.float32)
        self._played_ns: int | None = None

    def append(self, at_s: float, samples: NDArray[np.float32]) -> None:
        """Take a ``(12, T)`` frame in mV; what is missing before it becomes NaN, and an earlier one begins a new stream."""
        start = round(at_s * FS)
        if not self.streams or start < self.stop or start - self.stop >= self.capacity:
            self._samples[:] = np.nan
            self.streams += 1
            self.shown = float(start)
        elif start > self.stop:
            self._samples[:, np.arange(self.stop, start) % self.capacity] = np.nan
        self.stop = start + samples.shape[1]
        self._samples[:, np.arange(start, self.stop) % self.capacity] = samples

    def read(self, lead: int, start: int, stop: int) -> NDArray[np.float32]:
        """Return samples ``[start, stop)`` of a lead, NaN where there are none or none any more."""
        out = np.full(stop - start, np.nan, dtype=np.float32)
        first, last = max(start, self.stop - self.capacity, 0), min(stop, self.stop)
        if first < last:
            out[first - start : last - start] = self._samples[lead, np.arange(first, last) % self.capacity]
        return out

    def play(self, now_ns: int) -> None:
        """Move the shown part on by the time that has passed."""
        elapsed_s = 0.0 if self._played_ns is None else (now_ns - self._played_ns) / 1e9
        self._played_ns = now_ns
        self.shown = min(float(self.stop), max(self.shown + elapsed_s * FS, self.stop - _MAX_LAG_S * FS))

    def has(self, lead: int) -> bool:
        """Say whether the lead has had any sample lately."""
        return bool(np.isfinite(self._samples[lead]).any())


class Sweep:
    """One lead's picture: ``height`` rows of ``width`` cells, written from left to right behind an erase bar.

    Parameters
    ----------
    dots_per_s, dots_per_mv
        Scale in dots. ``dots_per_s`` is at most :data:`~ecgnat_stream.signal.FS`, so that every column has a sample.
    """

    def __init__(self, width: int, height: int, dots_per_s: float, dots_per_mv: float) -> None:
        if not (width > 0 and height > 0 and 0 < dots_per_s <= FS):
            raise ValueError(f"no picture of {width=} {height=} cells at {dots_per_s=}")
        self.width, self.height = width, height
        self.columns, self.rows = 2 * width, 4 * height
        self.dots_per_s, self.dots_per_mv = dots_per_s, dots_per_mv
        self.cells = np.zeros((height, width), dtype=np.uint8)
        self._dots = np.zeros((self.rows, self.columns), dtype=np.bool_)
        self._head: int | None = None
        self._source: tuple[int, int, int] | None = None

    def advance(self, buffer: TraceBuffer, lead: int) -> list[tuple[int, int]]:
        """Draw what is newly shown of a lead; return the half-open ranges of cell columns that changed.

        Another lead, buffer or stream than before, or a jump of a whole width, redraws everything.
        """
        source = (id(buffer), buffer.streams, lead)
        head = int(buffer.shown * self.dots_per_s / FS)
        if source != self._source or self._head is None or not self._head <= head < self._head + self.columns - 2 * _ERASE_CELLS:
            self._source = source
            self._dots[:] = False
            oldest = int(np.ceil(max(0, buffer.stop - buffer.capacity) * self.dots_per_s / FS))
            self._head = min(head, max(oldest, head - self.columns + 2 * _ERASE_CELLS))
            changed = [(0, self.width)]
        elif head == self._head:
            return []
        else:
            changed = self._cell_ranges(self._head, head + 2 * _ERASE_CELLS)
        self._draw(buffer, lead, self._head, head)
        self._head = head
        self._dots[:, np.arange(head, head + 2 * _ERASE_CELLS) % self.columns] = False
        for start, stop in changed:
            self.cells[:, start:stop] = pack(self._dots[:, 2 * start : 2 * stop])
        return changed

    def _draw(self, buffer: TraceBuffer, lead: int, first: int, stop: int) -> None:
        if first == stop:
            return
        edges = np.ceil(np.arange(first, stop + 1) * (FS / self.dots_per_s)).astype(np.intp)
        y = buffer.read(lead, int(edges[0]) - 1, int(edges[-1]))
        starts = edges[:-1] - edges[0]
        before = y[starts]
        low, high = np.fmin.reduceat(y[1:], starts), np.fmax.reduceat(y[1:], starts)
        gap = np.isnan(low)
        top, bottom = self._row(np.fmax(high, before)), self._row(np.fmin(low, before))
        row = np.arange(self.rows)[:, None]
        picture = (row >= top) & (row <= bottom) & ~gap
        columns = np.arange(first, stop)
        picture[-1] |= gap & (columns % _GAP_MARK_EVERY == 0)
        self._dots[:, columns % self.columns] = picture

    def _row(self, mv: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the dot row of a voltage, at the edge for what is beyond it."""
        return np.clip(np.round(BASELINE * self.rows - np.nan_to_num(mv) * self.dots_per_mv), 0, self.rows - 1)

    def _cell_ranges(self, first: int, stop: int) -> list[tuple[int, int]]:
        start, end = first % self.columns, (stop - 1) % self.columns
        if start <= end:
            return [(start // 2, end // 2 + 1)]
        return [(start // 2, self.width), (0, end // 2 + 1)]
