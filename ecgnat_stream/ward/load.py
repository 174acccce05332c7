"""Is the monitor fast enough for its beds? What was due to the network in the last half minute, and what of it was left out."""

from __future__ import annotations

from collections import deque

__all__ = ["Load"]

_SPAN = 30
"""Ticks, about a second each, that are looked back on."""

_BEGINS, _ENDS = 0.02, 0.005
"""Share of windows left out at which an overload begins and ends: one in fifty is one late prediction a minute for each bed."""

_SECONDS = 3
"""An overload shows in at least so many ticks: a single pause of the machine is none."""


class Load:
    """Keeps count, tick by tick."""

    def __init__(self) -> None:
        self._ticks: deque[tuple[int, int]] = deque(maxlen=_SPAN)
        self._before = (0, 0)
        self.overload = False

    def tick(self, due: int, skipped: int) -> float:
        """Take how many windows have become due and been skipped since the beginning; return the share skipped of late."""
        self._ticks.append((due - self._before[0], skipped - self._before[1]))
        self._before = due, skipped
        share = sum(skipped for _, skipped in self._ticks) / max(1, sum(due for due, _ in self._ticks))
        if self.overload:
            self.overload = share > _ENDS
        else:
            self.overload = share >= _BEGINS and sum(skipped > 0 for _, skipped in self._ticks) >= _SECONDS
        return share
