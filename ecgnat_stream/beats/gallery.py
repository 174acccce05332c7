"""The beat shapes that every bed has shown, learnt without labels, and what tells a beat from them.

In: the signal about a beat on all leads, how far each is trusted, and the RR interval. Out: its :data:`FEATURES`. None of them
is an amplitude or a polarity, and none belongs to a particular lead: what leads there are, are taken together.

Shapes: B beat, L lead (12), K shape of the gallery, T sample, F feature.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ecgnat_stream.signal import LEADS

__all__ = ["FEATURES", "SPAN", "Gallery"]

_MOVE = 9
"""A beat is laid over a shape with up to this many samples (45 ms) of movement."""

_BEFORE, _AFTER = 46, 35
"""Samples before and after the R peak in a shape of the gallery (230 and 175 ms)."""

SPAN = (_BEFORE + _MOVE, _AFTER + _MOVE)
"""Samples needed before and after the R peak (275 and 220 ms)."""

_P, _QRS, _T = slice(0, 28), slice(28, 68), slice(68, _BEFORE + _AFTER)
"""Parts of a shape: before the QRS complex, -90 to 110 ms, after it."""

_SHAPES = 6
_ALIKE = 0.88
_LARGER = 0.7
_GREGARIOUS = 0.06
"""A beat belongs to the shape that it correlates with best, if by ``_ALIKE`` and within a factor ``exp(_LARGER)`` of size; a
shape of all the bed's beats is preferred to a new one by ``_GREGARIOUS``, so that noise does not split the usual beats up."""

_MEMORY = 150.0
"""Beats over which the count of a shape fades."""

_SETTLE = 20.0
"""A shape is the running mean of this many beats."""

_INTERVALS = 12
"""RR intervals kept."""

_PUNCTUAL = 0.1
"""A beat is on time if its RR is that of the usual beats, give or take about so much (log)."""

_DESCRIBED = ("spread", "width", "slope", "area", "late", "early", "discordant")
"""What is measured of every complex by itself, :func:`_describe`."""

_COMPARED = (
    *("rr_median", "rr_before", "rr_usual", "surprise", "on_time"),
    *("alike", "alike_worst", "alike_best", "rest", "size", "p_rest", "t_rest"),
    *_DESCRIBED,
    *(f"{name}_change" for name in _DESCRIBED),
)
"""What is known of a beat; of a shape its running mean is known."""

FEATURES = (
    *_COMPARED,
    *(f"own_{name}" for name in _COMPARED),
    *(
        "before_median",
        "irregular",
        "median_rr",
        "own_share",
        "own_usual",
        "usual_share",
        "last_usual",
        "clean",
        "own_in_time",
        "own_after",
    ),
)
"""Names of the inputs of the classifier, in order; docs/beats.md says what they are."""

_CHANGED = slice(_COMPARED.index("spread"), _COMPARED.index("spread") + len(_DESCRIBED))
_EARLY, _ON_TIME = _COMPARED.index("rr_median"), _COMPARED.index("on_time")


class _Overlay(NamedTuple):
    """Beats laid over the shapes of their row's gallery, each at its best place."""

    alike: NDArray[np.float64]
    """``(B, K)`` correlation of the QRS complexes over the leads that both have, 0 where there is nothing to compare."""
    place: NDArray[np.intp]
    """``(B, K)`` movement, 0 to ``2 _MOVE``."""
    size: NDArray[np.float64]
    """``(B, K)`` log of the beat's size over the shape's."""
    leads: NDArray[np.float64]
    """``(B, K, L)`` correlation on each lead, NaN where there is none."""


class Gallery:
    """The beat shapes of every row, and what tells a beat from them.

    Parameters
    ----------
    rows
        Number of rows (beds).
    """

    def __init__(self, rows: int) -> None:
        leads, length = len(LEADS), _BEFORE + _AFTER
        self._shape = np.zeros((rows, _SHAPES, leads, length), np.float32)
        self._has = np.zeros((rows, _SHAPES, leads), bool)
        self._count = np.zeros((rows, _SHAPES))
        self._mean = np.zeros((rows, _SHAPES, len(_COMPARED)))
        self._size = np.zeros((rows, leads))
        self._rr = np.full((rows, _INTERVALS), np.nan)
        self._usual_rr = np.zeros(rows)
        self._last = np.zeros(rows, bool)
        self._last_shape = np.zeros(rows, np.intp)
        self._after = np.zeros((rows, _SHAPES))
        self._clean = np.zeros(rows)
        self.seen = np.zeros(rows, np.int64)

    def reset(self, rows: NDArray[np.intp]) -> None:
        """Forget everything about ``rows``."""
        for state in (self._has, self._count, self._mean, self._size, self._usual_rr, self._clean, self._after, self.seen):
            state[rows] = 0
        self._shape[rows] = 0.0
        self._last[rows] = True
        self._last_shape[rows] = 0
        self._rr[rows] = np.nan

    @property
    def state(self) -> tuple[NDArray[np.generic], ...]:
        """Everything that is known, for whoever measures in its place (:mod:`ecgnat_stream.beats.kernels.shapes`)."""
        return (
            self._shape, self._has, self._count, self._mean, self._size, self._rr, self._usual_rr, self._last, self._last_shape,
            self._after, self._clean, self.seen,
        )  # fmt: skip

    def measure(
        self, row: NDArray[np.intp], rr_ms: NDArray[np.float64], wave: NDArray[np.float32], weight: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Take one beat of each of different rows; return ``(B, F)`` its :data:`FEATURES`.

        Parameters
        ----------
        row, rr_ms
            ``(B,)`` row and interval to the beat before, NaN for none.
        wave
            ``(B, 12, sum(SPAN))`` mV about the R peak, finite.
        weight
            ``(B, 12)`` trust in each lead, 0 for none; some lead of each beat has some.
        """
        x = wave.astype(np.float64)
        weight = weight / weight.sum(axis=1, keepdims=True)
        height = _height(x)
        fresh = (self._size[row] == 0.0) & (weight > 0.0)
        self._size[row] = np.where(fresh, height, self._size[row])
        trust = np.where(weight > 0.0, weight / np.maximum(self._size[row], 0.02) ** 2, 0.0)
        over = self._lay(row, x, trust)
        usual = self._usual(row)
        one = np.arange(len(row))
        share = self._count[row] / np.maximum(self._count[row].sum(axis=1, keepdims=True), 1.0)
        belongs = (over.alike >= _ALIKE) & (np.abs(over.size) < _LARGER)
        own = np.where(belongs, over.alike + _GREGARIOUS * share, -1.0).argmax(axis=1)
        fits = belongs[one, own]
        known = self._count[row].max(axis=1) > 0.0
        described = _describe(x, trust)
        change = np.where(known[:, None], described - self._mean[row, usual, _CHANGED], 0.0)
        rhythm, about = self._intervals(row, rr_ms)
        beat = np.column_stack([rhythm, self._against(row, usual, x, trust, over, known), described, change])
        k = np.where(fits, own, self._count[row].argmin(axis=1))
        as_usual = fits & (own == usual)
        context = [np.log(0.01 + np.where(fits, share[one, own], 0.0)), as_usual, share[one, usual], self._last[row]]
        clean = self._clean[row]
        self._learn(row, k, fits, as_usual, rr_ms, x, weight, height, beat, over)
        in_time = self._mean[row, k, _ON_TIME] - self._mean[row, usual, _ON_TIME]
        after = self._after[row, k] - self._after[row, usual]
        return np.column_stack([beat, self._mean[row, k], about, *context, clean, in_time, after])

    def _lay(self, row: NDArray[np.intp], x: NDArray[np.float64], trust: NDArray[np.float64]) -> _Overlay:
        length = _QRS.stop - _QRS.start
        views = sliding_window_view(x[:, :, _QRS.start : _QRS.stop + 2 * _MOVE], length, axis=2)
        beat = np.ascontiguousarray(views - views.mean(axis=3, keepdims=True))
        shape = self._shape[row][..., _QRS].astype(np.float64)
        shape = shape - shape.mean(axis=3, keepdims=True)
        # One product per beat and lead, so that no beat's rounding depends on its neighbours.
        dot = np.matmul(beat, np.ascontiguousarray(shape.transpose(0, 2, 3, 1)))
        beat_power, shape_power = np.square(beat).sum(axis=3), np.square(shape).sum(axis=3)
        both = trust[:, None] * self._has[row]
        product = _sum_leads(dot.transpose(0, 3, 2, 1) * both[:, :, None])
        power = _sum_leads(beat_power.transpose(0, 2, 1)[:, None] * both[:, :, None])
        own_power = _sum_leads(shape_power * both)[:, :, None]
        alike = product / np.sqrt(np.maximum(power * own_power, 1e-18))
        place = alike.argmax(axis=2)
        at = place[:, :, None]
        size = 0.5 * np.log(np.maximum(np.take_along_axis(power, at, 2), 1e-9) / np.maximum(own_power, 1e-9))[:, :, 0]
        by_lead = dot.transpose(0, 3, 1, 2) / np.sqrt(np.maximum(beat_power[:, None] * shape_power[:, :, :, None], 1e-18))
        chosen = np.take_along_axis(by_lead, np.broadcast_to(at[..., None], (*by_lead.shape[:3], 1)), 3)[..., 0]
        return _Overlay(np.take_along_axis(alike, at, 2)[:, :, 0], place, size, np.where(both > 0.0, chosen, np.nan))

    def _usual(self, row: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the shape that is taken for the bed's own conducted beat: frequent, narrow and not early."""
        count, spread = self._count[row], self._mean[row, :, _CHANGED.start]
        narrowest = np.where(count > 0.0, spread, np.inf).min(axis=1, keepdims=True)
        there = count > 0.0
        wide = np.where(there, spread - np.where(np.isfinite(narrowest), narrowest, 0.0), 0.0)
        score = np.log(np.where(there, count, 1e-9)) - 4.0 * wide + 3.0 * np.minimum(self._mean[row, :, _EARLY], 0.0)
        usual: NDArray[np.intp] = score.argmax(axis=1)
        return usual

    def _intervals(self, row: NDArray[np.intp], rr_ms: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return how early the beat is, ``(B, 5)``, and how the rhythm was before it, ``(B, 3)``; 0 where not known."""
        kept = np.log(self._rr[row])
        rr = np.log(np.clip(rr_ms, 150.0, 3000.0) / 1000.0)
        middle, step = _median(kept), _median(np.abs(kept[:, 1:] - kept[:, :-1]))
        usual = np.where(self._usual_rr[row] > 0.0, np.log(np.maximum(self._usual_rr[row], 0.1)), middle)
        on_time = np.exp(-0.5 * np.square((rr - usual) / _PUNCTUAL))
        rhythm = np.column_stack([rr - middle, rr - kept[:, -1], rr - usual, (rr - middle) / (0.07 + step), on_time])
        return np.nan_to_num(rhythm), np.nan_to_num(np.column_stack([kept[:, -1] - middle, step, middle]))

    def _against(
        self,
        row: NDArray[np.intp],
        usual: NDArray[np.intp],
        x: NDArray[np.float64],
        trust: NDArray[np.float64],
        over: _Overlay,
        known: NDArray[np.bool_],
    ) -> NDArray[np.float64]:
        """Compare with the usual shape: QRS complex, and what lies before and behind it."""
        one = np.arange(len(row))
        alike, size, leads = over.alike[one, usual], over.size[one, usual], over.leads[one, usual]
        none = np.isnan(leads).all(axis=1)
        worst = np.where(none, 1.0, np.fmin.reduce(leads, axis=1))
        best = np.where(none, 1.0, np.fmax.reduce(leads, axis=1))
        ratio = np.exp(-np.abs(size))
        rest = np.log(1.01 + ratio * (ratio - 2.0 * alike))
        shape = self._shape[row, usual].astype(np.float64)
        here = _place(x, over.place[one, usual])
        both = trust * self._has[row, usual]
        scale = np.maximum(_sum_leads(np.square(_level(shape)[..., _QRS]).sum(axis=2) * both), 1e-9)
        apart = np.square(_level(here) - _level(shape))
        p_rest = np.log(1e-3 + _sum_leads(apart[..., _P].sum(axis=2) * both) / scale)
        t_rest = np.log(1e-3 + _sum_leads(apart[..., _T].sum(axis=2) * both) / scale)
        found = np.column_stack([alike, worst, best, rest, size, p_rest, t_rest])
        return np.where(known[:, None], found, np.array([1.0, 1.0, 1.0, -3.0, 0.0, -3.0, -3.0]))

    def _learn(
        self,
        row: NDArray[np.intp],
        k: NDArray[np.intp],
        fits: NDArray[np.bool_],
        as_usual: NDArray[np.bool_],
        rr_ms: NDArray[np.float64],
        x: NDArray[np.float64],
        weight: NDArray[np.float64],
        height: NDArray[np.float64],
        beat: NDArray[np.float64],
        over: _Overlay,
    ) -> None:
        """Take the beats into the shapes ``k``, or where they fit none, let them be new shapes in their places."""
        one = np.arange(len(row))
        self._count[row] *= 1.0 - 1.0 / _MEMORY
        count = np.where(fits, self._count[row, k], 0.0)
        share = 1.0 / np.minimum(count + 1.0, _SETTLE)
        self._count[row, k] = count + 1.0
        self._mean[row, k] += share[:, None] * (beat - self._mean[row, k])
        here = _place(x, np.where(fits, over.place[one, k], _MOVE))
        used = weight > 0.0
        has = self._has[row, k] & fits[:, None]
        part = np.where(has, share[:, None], 1.0)[:, :, None]
        old = self._shape[row, k]
        self._shape[row, k] = np.where(used[:, :, None], old + part * (here - old), np.where(has[:, :, None], old, 0.0))
        self._has[row, k] = has | used
        step = np.maximum(1.0 / _SETTLE, 1.0 / (self.seen[row] + 1.0))
        size = self._size[row]
        self._size[row] = np.where(used, size + step[:, None] * (height - size), size)
        self._clean[row] += np.maximum(step, 1.0 / np.maximum(self.seen[row], 1.0)) * (over.alike.max(axis=1) - self._clean[row])
        rr, usual_rr = np.nan_to_num(rr_ms) / 1000.0, self._usual_rr[row]
        apart = np.abs(np.log(np.clip(rr, 0.15, 3.0) / np.maximum(usual_rr, 0.15)))
        before = self._last_shape[row]
        told = (usual_rr > 0.0) & ~np.isnan(rr_ms)
        about = 1.0 / np.clip(self._count[row, before], 1.0, _SETTLE)
        self._after[row, before] += np.where(told, about * (apart - self._after[row, before]), 0.0)
        self._after[row, k] = np.where(fits, self._after[row, k], 0.0)
        self._last_shape[row] = k
        regular = as_usual & self._last[row] & ~np.isnan(rr_ms)
        self._usual_rr[row] = np.where(regular, np.where(usual_rr > 0.0, usual_rr + 0.1 * (rr - usual_rr), rr), usual_rr)
        kept = np.where(np.isnan(rr_ms), self._rr[row, -1], np.clip(rr, 0.15, 3.0))
        self._rr[row] = np.concatenate([self._rr[row, 1:], kept[:, None]], axis=1)
        self._last[row] = as_usual
        self.seen[row] += 1


def _height(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``(B, L)`` the peak-to-peak amplitude of the QRS complex."""
    part = x[:, :, _QRS.start + _MOVE : _QRS.stop + _MOVE]
    height: NDArray[np.float64] = part.max(axis=2) - part.min(axis=2)
    return height


def _describe(x: NDArray[np.float64], trust: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``(B, 7)`` width, steepness and surroundings of the QRS complex, none of them amplitudes.

    The squared slope of all leads, each in units of its own usual amplitude, is taken for the energy of the beat. Its standard
    deviation in time about its centre, the time that it is above a part of its peak, the steepest slope and the mean deflection
    over the peak-to-peak amplitude; then its share late and early in the beat (logs). QRS and T of opposite sign: discordant.
    """
    r = SPAN[0]
    slope = 0.5 * (x[:, :, 2:] - x[:, :, :-2])
    energy = _sum_leads(np.square(slope).transpose(0, 2, 1) * trust[:, None])
    energy = (energy[:, :-2] + energy[:, 1:-1] + energy[:, 2:]) / 3.0  # entry j is of sample j + 2
    zone = np.ascontiguousarray(energy[:, r - 2 - 24 : r - 2 + 36])
    total, peak = np.maximum(zone.sum(axis=1), 1e-12), np.maximum(zone.max(axis=1), 1e-12)
    t = np.arange(zone.shape[1])
    centre = (zone * t).sum(axis=1) / total
    spread = np.sqrt((zone * np.square(t - centre[:, None])).sum(axis=1) / total)
    size = np.sqrt(np.maximum(_sum_leads(np.square(_height(x)) * trust), 1e-12))
    part = x[:, :, r - 24 : r + 36]
    deflection = np.abs(part - part.mean(axis=2, keepdims=True)).mean(axis=2)
    area = np.sqrt(np.maximum(_sum_leads(np.square(deflection) * trust), 1e-12)) / size
    late = energy[:, r - 2 + 20 : r - 2 + 42].sum(axis=1) / total
    early = energy[:, r - 2 - 30 : r - 2 - 12].sum(axis=1) / total
    base = x[:, :, r - 36 : r - 20].mean(axis=2)
    qrs, t_wave = x[:, :, r - 14 : r + 20].mean(axis=2) - base, x[:, :, r + 30 : r + 44].mean(axis=2) - base
    return np.column_stack(
        [
            np.log(spread + 0.5),
            np.log((zone > 0.06 * peak[:, None]).sum(axis=1)),
            np.log(np.sqrt(peak) / size),
            np.log(area),
            np.log(late + 0.01),
            np.log(early + 0.01),
            np.clip(_sum_leads(qrs * t_wave * trust) / np.square(size), -0.2, 0.2),
        ]
    )


def _sum_leads(parts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add over the last axis, the leads one by one, so that the order does not depend on the layout."""
    total: NDArray[np.float64] = parts[..., 0].copy()
    for lead in range(1, parts.shape[-1]):
        total += parts[..., lead]
    return total


def _level(shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take the baseline, the mean from 170 to 100 ms before the R peak, off ``(B, L, T)``."""
    level: NDArray[np.float64] = shape - shape[:, :, _BEFORE - 34 : _BEFORE - 20].mean(axis=2, keepdims=True)
    return level


def _place(x: NDArray[np.float64], place: NDArray[np.intp]) -> NDArray[np.float64]:
    """Cut ``(B, L, sum(SPAN))`` to shapes, each moved to its place."""
    at = place[:, None] + np.arange(_BEFORE + _AFTER)
    return np.take_along_axis(x, np.broadcast_to(at[:, None], (*x.shape[:2], at.shape[1])), axis=2)


def _median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lower median of each row without its NaN, NaN where nothing is left."""
    ranked = np.sort(values, axis=1)
    count = (~np.isnan(values)).sum(axis=1)
    middle: NDArray[np.float64] = ranked[np.arange(len(values)), np.maximum(count - 1, 0) // 2]
    return middle
