"""Heart rate of every bed, from the RR intervals of its beats."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.beats.detector import NEVER, BeatFrame, rank
from ecgnat_stream.compiled import kernels_wanted
from ecgnat_stream.signal import FRAME, FS

__all__ = ["HeartRate"]


class HeartRate:
    """Heart rate per row: the mean of the last RR intervals, as bedside monitors disclose it.

    The last 12 intervals without the shortest and longest third of them; the last 4 where all of these exceed 1200 ms.
    NaN before 3 intervals, 5 s after the last beat, and while the bed is not usable.
    """

    def __init__(self, rows: int) -> None:
        self._rr = np.full((rows, 12), np.nan)
        self._last = np.full(rows, NEVER, np.int64)
        self._compiled = None
        if kernels_wanted():
            from ecgnat_stream.beats.kernels import peaks

            self._compiled = peaks.heart_rates

    def reset(self, rows: NDArray[np.intp]) -> None:
        """Forget everything about ``rows``."""
        self._rr[rows] = np.nan
        self._last[rows] = NEVER

    def process(
        self, rows: NDArray[np.intp], frames: NDArray[np.int64], beats: BeatFrame, usable: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Return ``(R,)`` the heart rate of ``rows`` in bpm at the end of their frames, NaN for none."""
        if self._compiled is not None:
            rates = np.empty(len(rows))
            self._compiled(
                np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(frames, np.int64), np.ascontiguousarray(usable, bool),
                np.ascontiguousarray(beats.row, np.int64), np.ascontiguousarray(beats.at, np.float64),
                np.ascontiguousarray(beats.rr_ms, np.float64), self._rr, self._last, rates,
            )  # fmt: skip
            return rates
        order = rank(beats.row)
        for turn in range(int(order.max(initial=-1)) + 1):
            of = order == turn
            row = beats.row[of]
            self._rr[row] = np.concatenate([self._rr[row, 1:], beats.rr_ms[of, None]], axis=1)
            self._rr[row[np.isnan(beats.rr_ms[of])]] = np.nan
            self._last[row] = beats.at[of]
        silent = ~usable | ((frames + 1) * FRAME - self._last[rows] > 5 * FS)
        self._rr[rows[silent]] = np.nan
        return 60000.0 / _usual_rr(self._rr[rows])


def _usual_rr(rr: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the robust mean ``(R,)`` of the newest-last intervals ``(R, 12)`` in ms."""
    count = (~np.isnan(rr)).sum(axis=1)
    slow = (count >= 4) & (np.where(np.isnan(rr[:, -4:]), 0.0, rr[:, -4:]).min(axis=1) > 1200.0)
    use = np.where(slow[:, None] & (np.arange(12) < 8), np.nan, rr)
    count = np.where(slow, 4, count)
    ranked = np.sort(use, axis=1)
    cut = np.where(slow, 1, count // 3)[:, None]
    index = np.arange(12)
    inside = (index >= cut) & (index < count[:, None] - cut)
    total = np.where(inside, ranked, 0.0).sum(axis=1)
    return np.where(count >= 3, total / np.maximum(inside.sum(axis=1), 1), np.nan)
