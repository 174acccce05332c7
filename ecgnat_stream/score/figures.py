"""Figures with their confidence: gross and average over records, 95 % intervals by resampling records.

A record is the unit of chance, since its beats and alarms come from one patient: 2000 resamples of records with replacement,
percentile interval, a fixed seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Figure", "average", "f1", "gross", "quantiles"]

Figure = dict[str, float | None]
"""``value``, and ``low`` and ``high`` of its 95 % interval; None where it is not defined."""

_RESAMPLES, _SEED = 2000, 20150


def _resampled(units: int) -> NDArray[np.int64]:
    """Return ``(resamples, units)``: how often every record is drawn."""
    drawn = np.random.default_rng(_SEED).integers(0, units, (_RESAMPLES, units))
    return np.array([np.bincount(row, minlength=units) for row in drawn])


def _figure(statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], units: int) -> Figure:
    value = float(statistic(np.ones((1, units)))[0]) if units else np.nan
    if not np.isfinite(value):
        return {"value": None, "low": None, "high": None}
    values = statistic(_resampled(units).astype(np.float64))
    low, high = np.quantile(values[np.isfinite(values)], [0.025, 0.975])
    return {"value": round(value, 5), "low": round(float(low), 5), "high": round(float(high), 5)}


def gross(part: ArrayLike, whole: ArrayLike) -> Figure:
    """Return the ratio of sums over records, each record with its weight."""
    a, b = np.asarray(part, np.float64), np.asarray(whole, np.float64)

    def ratio(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        below = weights @ b
        shares: NDArray[np.float64] = np.divide(weights @ a, below, out=np.full(len(weights), np.nan), where=below > 0)
        return shares

    return _figure(ratio, len(a))


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
