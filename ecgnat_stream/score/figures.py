"""Figures with their confidence: gross and average over records, 95 % intervals by resampling records.

A record is the unit of chance, since its beats and alarms come from one patient: 2000 resamples of records with replacement,
percentile interval, a fixed seed. All resamples are computed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Figure", "Statistic", "average", "bootstrap", "divide", "f1", "gross", "quantiles", "ratio"]

Figure = dict[str, float | None]
"""``value``, and ``low`` and ``high`` of its 95 % interval; None where it is not defined."""

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Takes weights ``(R, N)``, how often each of N units is drawn in each of R resamples; gives ``(R,)``, NaN where undefined."""

_RESAMPLES, _SEED = 2000, 20150
_AT_ONCE = 100


def bootstrap(
    statistic: Statistic, units: int, resamples: int = _RESAMPLES, seed: int = _SEED
) -> tuple[float, float, float] | None:
    """Return a value and the ends of its 95 % percentile interval; None where it is not defined.

    Resamples in which it is not defined are left out.
    """
    if units == 0 or not np.isfinite(value := float(statistic(np.ones((1, units)))[0])):
        return None
    drawn = _drawn(units, resamples, seed)
    values = np.concatenate([statistic(drawn[at : at + _AT_ONCE].astype(np.float64)) for at in range(0, resamples, _AT_ONCE)])
    values = values[np.isfinite(values)]
    low, high = np.quantile(values, [0.025, 0.975]) if len(values) else (value, value)
    return value, float(low), float(high)


@lru_cache(maxsize=8)
def _drawn(units: int, resamples: int, seed: int) -> NDArray[np.uint16]:
    """Return how often each unit is drawn, once per number of units: figures of the same records are resampled alike."""
    drawn = np.random.default_rng(seed).integers(units, size=(resamples, units))
    drawn += np.arange(resamples)[:, None] * units
    return np.bincount(drawn.ravel(), minlength=resamples * units).reshape(resamples, units).astype(np.uint16)


def ratio(part: ArrayLike, whole: ArrayLike) -> Statistic:
    """Return the ratio of sums over units, of counts ``(N,)``."""
    above, below = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return lambda weights: divide(weights @ above, weights @ below)


def divide(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the quotients, NaN where there is nothing to divide by."""
    quotient: NDArray[np.float64] = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
    return quotient


def gross(part: ArrayLike, whole: ArrayLike) -> Figure:
    """Return the ratio of sums over records, each record with its weight."""
    found = bootstrap(ratio(part, whole), np.size(part))
    return dict(zip(("value", "low", "high"), (None,) * 3 if found is None else (round(x, 5) for x in found), strict=True))


def average(part: ArrayLike, whole: ArrayLike) -> float | None:
    """Return the mean of the records' own ratios, over those that have one."""
    a, b = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return round(float(np.mean(a[b > 0] / b[b > 0])), 5) if (b > 0).any() else None


def f1(tp: ArrayLike, fn: ArrayLike, fp: ArrayLike) -> Figure:
    """Return the harmonic mean of sensitivity and positive predictivity, 2 TP / (2 TP + FN + FP)."""
    hits = 2 * np.asarray(tp, np.float64)
    return gross(hits, hits + np.asarray(fn, np.float64) + np.asarray(fp, np.float64))


def quantiles(values: Sequence[float]) -> dict[str, float | None]:
    """Return median, 95th percentile and the largest."""
    if not values:
        return {"median": None, "p95": None, "worst": None}
    median, p95 = np.quantile(values, [0.5, 0.95])
    return {"median": round(float(median), 2), "p95": round(float(p95), 2), "worst": round(max(values), 2)}
