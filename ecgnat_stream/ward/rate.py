"""Whether a live device sends at the rate that it declares: samples against the host's time.

Late, held up and bunched blocks only ever make samples later than they are. So of every stretch of time the least delay counts,
and only if it grows or shrinks over several stretches alike is the rate another one.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise

__all__ = ["RateWatch"]

_STRETCH_NS = 10_000_000_000
"""Length of a stretch, ns."""

_MOST = 0.02
"""Largest difference of the rates, as a part of the declared one. A crystal is within 1e-4; a heart rate may be wrong by 10 % or
5 bpm (IEC 60601-2-27), so that this is said well before one that is shown is."""

_KEPT = 7
"""Stretches over which the rate is measured for people."""

_CALM = 0.01
"""Below this difference, the rates are the same again."""


class RateWatch:
    """Watches one stream.

    Parameters
    ----------
    fs
        Declared rate, Hz.
    """

    def __init__(self, fs: float) -> None:
        self._fs = fs
        self.differs = False
        self.restart()

    def restart(self) -> None:
        """Begin to measure anew: the stream has jumped or stood still, which is said otherwise."""
        self._begun_ns: int | None = None
        self._least_s = float("inf")
        self._stretches: deque[tuple[int, float]] = deque(maxlen=_KEPT)

    @property
    def measured_hz(self) -> float:
        """The rate as measured over the last minute, or what there is of it, Hz."""
        if len(self._stretches) < 2:
            return self._fs
        return self._fs * (1.0 - _growth(self._stretches[0], self._stretches[-1]))

    def see(self, stop: int, now_ns: int) -> bool:
        """Take note that sample ``stop`` has been reached by now; return whether :attr:`differs` has changed."""
        delay_s = now_ns / 1e9 - stop / self._fs
        if self._begun_ns is None:
            self._begun_ns = now_ns
        elif now_ns - self._begun_ns >= _STRETCH_NS:
            changed = self._end(self._begun_ns)
            self._begun_ns, self._least_s = now_ns, delay_s
            return changed
        self._least_s = min(self._least_s, delay_s)
        return False

    def _end(self, begun_ns: int) -> bool:
        """Compare the stretch that ends with those before."""
        self._stretches.append((begun_ns, self._least_s))
        if len(self._stretches) < 2:
            return False
        *before, second, last = self._stretches
        growth = [_growth(one, other) for one, other in pairwise((*before[-1:], second, last))]
        now = self.differs
        if len(growth) == 2 and (min(growth) > _MOST or max(growth) < -_MOST):
            now = True
        elif max(map(abs, growth)) < _CALM:
            now = False
        changed, self.differs = now != self.differs, now
        return changed


def _growth(one: tuple[int, float], other: tuple[int, float]) -> float:
    """Return by how much the least delay grew from one stretch to another, as a part of the time between them."""
    return (other[1] - one[1]) / ((other[0] - one[0]) / 1e9)
