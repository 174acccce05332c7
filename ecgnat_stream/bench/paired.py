"""Two ways to do one thing, measured in turn: on a shared machine only ratios of neighbours in time mean anything."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["Paired", "pair"]

_FEWEST, _MOST = 5, 400


@dataclass(frozen=True, slots=True)
class Paired:
    """Medians of both in s, and quantiles of ``other / ours`` over the pairs."""

    ours_s: float
    other_s: float
    times: float
    p10: float
    p90: float
    pairs: int


def pair(
    ours: Callable[[], object],
    other: Callable[[], object],
    seconds: float,
    clock: Callable[[], float] = time.process_time,
    fewest: int = _FEWEST,
) -> Paired:
    """Call both in turn, now one first and now the other, for about ``seconds``; the first call of each does not count.

    Parameters
    ----------
    seconds
        By ``clock``, in which the calls are measured: processor time, or wall time for what another device does.
    fewest
        Pairs that are measured in any case.
    """
    ours(), other()
    begun = clock()
    times: list[tuple[float, ...]] = []
    while len(times) < fewest or (clock() - begun < seconds and len(times) < _MOST):
        first, second = (ours, other) if len(times) % 2 == 0 else (other, ours)
        at = clock()
        first()
        middle = clock()
        second()
        end = clock()
        taken = (middle - at, end - middle)
        times.append(taken if first is ours else taken[::-1])
    each = np.maximum(np.array(times), 1e-9)
    ratios = each[:, 1] / each[:, 0]
    ours_s, other_s = np.median(each, axis=0)
    p10, times_, p90 = np.quantile(ratios, [0.1, 0.5, 0.9])
    return Paired(float(ours_s), float(other_s), float(times_), float(p10), float(p90), len(times))
