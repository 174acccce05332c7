"""Is the monitor fast enough for its beds? What was due to the network of late and left out, and how late signal is worked on.

A machine that is too slow is too slow for many beds. One device that sends far more than time has passed is its bed's own matter:
such a bed counts for nothing here while it lasts.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.signal import FRAME_S

__all__ = ["Load", "Pressure"]

_SPAN_NS = 30_000_000_000
"""So far is looked back on."""

_BEGINS, _ENDS = 0.02, 0.005
"""Share of windows left out at which a pressure begins and ends: one in fifty is one late prediction a minute for each bed."""

_TICKS = 3
"""Windows are left out in at least so many ticks: a single pause of the machine is none."""

_BEDS = 0.05
"""Share of the beds of which windows are left out, at least."""

_LATE_S, _LATE_FOR_NS = 1.5, 3_000_000_000
"""Signal is worked on so late for so long: then the machine cannot do the work that comes before the network."""

_FEW = 0.1
"""All but this share of the beds are later than what is called late: a few that lag have reasons of their own."""

_PACE, _PACE_NS, _THERE_NS = 0.7, 10_000_000_000, 4_000_000_000
"""Nearly all beds get less than this share of their time over so long, and all deliver: their blocks wait to be taken. Beds of
which nothing came for so long have other reasons."""

_FLOOD_NS = 500_000_000
_NEVER_NS = np.iinfo(np.int64).min // 2
_AWAY_NS = 5_000_000_000
"""A bed of which nothing was worked on for so long, and nothing waits, delivers nothing."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """How the monitor keeps up.

    Parameters
    ----------
    present
        Whether it does not.
    skipped
        Share of the windows of late that were left out, of the beds that count.
    late_s
        By how much signal is worked on late, s.
    pace
        How many seconds of signal of a bed are worked on in a second.
    """

    present: bool
    skipped: float
    late_s: float
    pace: float = 1.0

    def __str__(self) -> str:
        if self.pace < _PACE:
            return f"only {100 * self.pace:.0f} % of the signal is worked on in its time"
        return f"{100 * self.skipped:.0f} % of the windows skipped, signal worked on {self.late_s:.1f} s after it came"


class Load:
    """Keeps count, tick by tick.

    Parameters
    ----------
    rows
        Number of beds.
    """

    def __init__(self, rows: int) -> None:
        self._ticks: deque[tuple[int, NDArray[np.int64], NDArray[np.int64]]] = deque()
        self._cut = np.zeros(rows, np.int64)
        self._skipped = np.zeros(rows, np.int64)
        self._worked_ns = np.full(rows, _NEVER_NS, np.int64)
        self._flooded_ns = np.full(rows, _NEVER_NS, np.int64)
        self._seen_ns = np.full(rows, _NEVER_NS, np.int64)
        self._begun_ns = np.full(rows, _NEVER_NS, np.int64)
        self._taken_s = np.zeros(rows)
        self._takes: deque[tuple[int, NDArray[np.float64]]] = deque()
        self._late_since_ns: int | None = None
        self._present = False

    def begin(self, row: int, now_ns: int) -> None:
        """Take note that a bed's stream begins."""
        self._begun_ns[row] = now_ns

    def worked(
        self, rows: NDArray[np.intp], last_ns: NDArray[np.int64], now_ns: int, frame_s: NDArray[np.float64] | float = FRAME_S
    ) -> None:
        """Take note that a frame of each of some live beds is worked on.

        Parameters
        ----------
        last_ns
            ``(R,)`` host monotonic time at which the last sample of each frame was due to come, by the newest one. It goes back
            only where a device sends more than time has passed.
        frame_s
            How long a frame of each lasts by the host's clock.
        """
        self._seen_ns[rows] = now_ns
        self._taken_s[rows] += frame_s
        back = last_ns < self._worked_ns[rows] - _FLOOD_NS
        self._flooded_ns[rows[back]] = now_ns
        self._worked_ns[rows] = last_ns

    def tick(
        self,
        now_ns: int,
        cut: NDArray[np.int64],
        skipped: NDArray[np.int64],
        waiting: NDArray[np.bool_],
        *,
        asked: bool = True,
    ) -> Pressure:
        """Look at the last half minute; about once a second.

        Parameters
        ----------
        cut, skipped
            ``(R,)`` windows of each bed that fell due and were left out since the beginning.
        waiting
            ``(R,)`` live beds that have a frame that is not worked on yet.
        asked
            Whether the network is there: while it is being loaded, no window is left out for want of time.
        """
        if asked:
            self._ticks.append((now_ns, cut - self._cut, skipped - self._skipped))
        self._cut, self._skipped = cut.copy(), skipped.copy()
        while self._ticks and self._ticks[0][0] < now_ns - _SPAN_NS:
            self._ticks.popleft()
        own = self._flooded_ns < now_ns - _SPAN_NS
        share, many = self._left_out(own)
        late_s, pace = self._late_s(now_ns, own, waiting), self._pace(now_ns)
        if late_s < _LATE_S and pace >= _PACE:
            self._late_since_ns = None
        elif self._late_since_ns is None:
            self._late_since_ns = now_ns
        late = self._late_since_ns is not None and now_ns - self._late_since_ns >= _LATE_FOR_NS
        self._present = late or (share > _ENDS if self._present else share >= _BEGINS and many)
        return Pressure(self._present, share, late_s, pace)

    def restart(self) -> None:
        """Judge only what comes from now on: something has been done about it."""
        self._ticks.clear()
        self._late_since_ns, self._present = None, False

    def _left_out(self, own: NDArray[np.bool_]) -> tuple[float, bool]:
        """Return the share of windows left out, and whether again and again, of many beds."""
        if not self._ticks:
            return 0.0, False
        due = np.array([cut[own].sum() for _, cut, _ in self._ticks])
        lost = np.array([skipped[own] for _, _, skipped in self._ticks])
        beds = int((lost.sum(axis=0) > 0).sum())
        enough = max(min(2, len(own)), _BEDS * int(own.sum()))
        again = int((lost.sum(axis=1) > 0).sum()) >= _TICKS
        return float(lost.sum() / max(1, due.sum())), again and beds >= enough

    def _pace(self, now_ns: int) -> float:
        """Return how many seconds of signal nearly every bed had worked on in a second of the last ten."""
        self._takes.append((now_ns, self._taken_s.copy()))
        while len(self._takes) > 1 and self._takes[1][0] <= now_ns - _PACE_NS:
            self._takes.popleft()
        since_ns, before = self._takes[0]
        there = (now_ns - self._seen_ns < _THERE_NS) & (self._begun_ns <= since_ns)
        if now_ns - since_ns < _PACE_NS or not there.any():
            return 1.0
        paces = (self._taken_s - before)[there] * 1e9 / (now_ns - since_ns)
        return float(np.quantile(paces, 1.0 - _FEW, method="higher"))

    def _late_s(self, now_ns: int, own: NDArray[np.bool_], waiting: NDArray[np.bool_]) -> float:
        there = own & (waiting | (now_ns - self._worked_ns < _AWAY_NS)) & (self._worked_ns > _NEVER_NS)
        if not there.any():
            return 0.0
        late_ns = np.where(waiting[there], now_ns - self._worked_ns[there], 0)
        return float(np.quantile(late_ns, _FEW, method="lower")) / 1e9
