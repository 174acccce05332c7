"""Stretches of time as (start, stop) in seconds: joined, cut, compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["Span", "clip", "gaps", "merge", "overlaps", "shared_s", "total_s"]

Span = tuple[float, float]


def merge(spans: Iterable[Span], apart_s: float = 0.0) -> list[Span]:
    """Return the spans in order, joined where they touch, overlap or are at most ``apart_s`` apart."""
    merged: list[Span] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1] + apart_s:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        else:
            merged.append((start, stop))
    return merged


def clip(spans: Iterable[Span], start_s: float, stop_s: float = float("inf")) -> list[Span]:
    """Return what of the spans lies within ``[start_s, stop_s)``."""
    cut = [(max(start, start_s), min(stop, stop_s)) for start, stop in spans]
    return [(start, stop) for start, stop in cut if stop > start]


def overlaps(span: Span, others: Iterable[Span], within_s: float = 0.0) -> bool:
    """Tell whether a span, widened by ``within_s``, shares time with any of the others."""
    return any(span[0] - within_s < stop and span[1] + within_s > start for start, stop in others)


def total_s(spans: Iterable[Span]) -> float:
    """Return the length of all spans."""
    return sum(stop - start for start, stop in spans)


def shared_s(some: Iterable[Span], others: Sequence[Span]) -> float:
    """Return the time that two lists of disjoint spans have in common."""
    return sum(max(0.0, min(b, d) - max(a, c)) for a, b in some for c, d in others)


def gaps(at_s: NDArray[np.float64], least_s: float) -> list[Span]:
    """Return the intervals between successive places that are at least so long."""
    return [(a, b) for a, b in pairwise(at_s.tolist()) if b - a >= least_s]
