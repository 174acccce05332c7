"""Ring stage: the last seconds of every bed of one device rate, addressed by absolute sample index.

In: blocks per row as they come. Out: any stretch of any rows at once, ``(R, 12, n)``, NaN where a sample was lost, overwritten or
never came. The memory never rolls, and grows only with the number of rows. When the reader is late, the oldest samples are
overwritten and counted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.signal import LEADS

__all__ = ["RingBuffer"]

_GAPS_KEPT = 64
"""Gaps remembered per row; older ones are forgotten, ``lost`` still counts them."""


class RingBuffer:
    """Fixed memory ``(rows, n_leads, capacity)``, float32 mV; of leads that a row does not have, the system gives no page.

    Parameters
    ----------
    rows
        Number of rows (beds).
    capacity
        Samples kept per row.
    n_leads
        Leads per row.

    Attributes
    ----------
    next
        ``(rows,)`` index after the newest sample.
    overwritten
        ``(rows,)`` samples that were there but left the ring before anybody read them.
    """

    def __init__(self, rows: int, capacity: int, n_leads: int = len(LEADS)) -> None:
        if rows < 1 or capacity < 1 or n_leads < 1:
            raise ValueError(f"a ring needs at least one row, sample and lead, not {rows=}, {capacity=}, {n_leads=}")
        self.capacity = capacity
        self._memory = np.zeros((rows, n_leads, capacity), np.float32)
        self._has = np.ones((rows, n_leads), bool)
        self._which: list[slice | NDArray[np.intp]] = [slice(None)] * rows
        self.next = np.zeros(rows, np.int64)
        self._first = np.zeros(rows, np.int64)
        self._read = np.zeros(rows, np.int64)
        self.overwritten = np.zeros(rows, np.int64)
        self._gaps: list[list[tuple[int, int]]] = [[] for _ in range(rows)]

    @property
    def oldest(self) -> NDArray[np.int64]:
        """``(rows,)`` index of the oldest sample still held."""
        return np.maximum(self._first, self.next - self.capacity)

    def append(self, row: int, start: int, samples: NDArray[np.float32]) -> int:
        """Add a block; a jump over ``next[row]`` is recorded as a gap. Return how many samples were overwritten unread by it.

        Parameters
        ----------
        start
            Absolute index of the first sample.
        samples
            ``(L, T)`` mV of the row's leads, see :meth:`clear`, NaN where missing; any length.

        Raises
        ------
        ValueError
            If the block begins before ``next[row]``: what repeats is for the caller to cut off.
        """
        expected = int(self.next[row])
        if start < expected:
            raise ValueError(f"block starts at {start}, but row {row} already reaches {expected}")
        stop = start + samples.shape[1]
        if start > expected:
            self._gaps[row] = [*self._gaps[row][1 - _GAPS_KEPT :], (expected, start)]
            self._write(row, max(expected, start - self.capacity), start, None)
        kept = max(start, stop - self.capacity)
        self._write(row, kept, stop, samples if kept == start else samples[:, kept - start :])
        self.next[row] = stop
        late: int = stop - self.capacity - max(int(self._read[row]), int(self._first[row]))
        if late <= 0:
            return 0
        self.overwritten[row] += late
        self._read[row] = stop - self.capacity
        return late

    def read(self, rows: NDArray[np.intp], start: NDArray[np.int64], length: int) -> NDArray[np.float32]:
        """Return ``(R, n_leads, length)`` from ``start`` ``(R,)``; NaN for what is lost, overwritten, no lead or not there."""
        if length > self.capacity:
            raise ValueError(f"{length=} is more than the ring holds: {self.capacity}")
        index = start[:, None] + np.arange(length)
        out = np.full((len(rows), self._memory.shape[1], length), np.nan, np.float32)
        at, lead = np.nonzero(self._has[rows])
        line = (rows[at] * self._memory.shape[1] + lead) * self.capacity
        out[at, lead] = self._memory.reshape(-1).take(line[:, None] + (index % self.capacity)[at])
        first, stop = self.oldest[rows], self.next[rows]
        partly = np.flatnonzero((start < first) | (start + length > stop))
        if partly.size:
            outside = (index[partly] < first[partly, None]) | (index[partly] >= stop[partly, None])
            out[partly] = np.where(outside[:, None], np.float32(np.nan), out[partly])
        self._read[rows] = np.maximum(self._read[rows], np.minimum(start + length, stop))
        return out

    def gaps(self, row: int) -> list[tuple[int, int]]:
        """Return the recorded gaps of a row as half-open index ranges, oldest first."""
        return list(self._gaps[row])

    def grow(self, rows: int) -> None:
        """Make room for more rows; what there is stays."""
        more = rows - len(self.next)
        if more < 1:
            return
        memory, there = np.zeros((rows, *self._memory.shape[1:]), np.float32), np.nonzero(self._has)
        memory[there] = self._memory[there]
        self._memory = memory
        self._has = np.concatenate([self._has, np.ones((more, self._has.shape[1]), bool)])
        self._which += [slice(None)] * more
        self.next, self._first, self._read, self.overwritten = (
            np.concatenate([counts, np.zeros(more, np.int64)])
            for counts in (self.next, self._first, self._read, self.overwritten)
        )
        self._gaps += [[] for _ in range(more)]

    def clear(self, row: int, start: int = 0, leads: NDArray[np.intp] | None = None) -> None:
        """Forget a row's samples, gaps and counts.

        Parameters
        ----------
        start
            Where its next block may begin.
        leads
            ``(L,)`` the leads of its blocks from now on; as before if left out.
        """
        if leads is not None:
            self._has[row] = False
            self._has[row, leads] = True
            self._which[row] = _evenly(leads)
        self.next[row] = self._first[row] = self._read[row] = start
        self.overwritten[row] = 0
        self._gaps[row] = []

    def _write(self, row: int, start: int, stop: int, samples: NDArray[np.float32] | None) -> None:
        """Write ``[start, stop)``, at most ``capacity`` samples: ``(L, T)`` or NaN."""
        at, length = start % self.capacity, stop - start
        head = min(length, self.capacity - at)
        memory, which = self._memory[row], self._which[row]
        memory[which, at : at + head] = np.nan if samples is None else samples[:, :head]
        if length > head:
            memory[which, : length - head] = np.nan if samples is None else samples[:, head:]


def _evenly(leads: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Return leads as a slice, which is written at once, if they ascend evenly."""
    steps = np.diff(leads)
    if not len(leads) or (len(steps) and (steps.min() < 1 or steps.min() != steps.max())):
        return leads
    return slice(int(leads[0]), int(leads[-1]) + 1, int(steps[0]) if len(steps) else 1)
