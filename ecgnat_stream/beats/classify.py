"""The class of every beat, AAMI EC57: what comes when, how wide it is, and how unlike the bed's usual beats.

In: conditioned frames ``(R, 12, FRAME)``, the quality of the leads and the beats that
:class:`~ecgnat_stream.beats.detector.QrsDetector` found in them. Out: a class per beat and the probability that it is
ventricular. Logistic regression weighs what tells a beat from the bed's gallery of shapes; ``train/signal/beat_classes.py``
fitted it, docs/measured/beats.md has its numbers. "Q" are a bed's first beats and beats without a usable lead.

Shapes: R row, B beat, F feature.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.beats.detector import BeatFrame, rank
from ecgnat_stream.beats.gallery import FEATURES, SPAN, Gallery
from ecgnat_stream.compiled import kernels_wanted
from ecgnat_stream.signal import FRAME, LEADS

__all__ = ["LIMIT", "BeatClassifier", "BeatWeights", "Regression", "log_odds", "read_weights"]

_KEPT = 16
"""Frames of signal kept per lead: beats that search-back finds are up to 3 s old."""

_LEARNING = 5
"""The first beats of a bed are "Q": there is nothing to compare them with."""

_MIN_SQI = 0.05
"""Leads below this quality index are not used, as in the detector."""

LIMIT = 3.0
"""Largest scaled feature."""

_FAST_S, _FREQUENT = 0.5, 0.1
"""Median RR below which, and share of the bed's beats above which, broad complexes are V even if they are the usual ones: a
tachycardia with broad complexes counts as ventricular until shown otherwise, and a bed may be connected in the midst of one."""

_PUNCTUAL, _REGULAR, _PUNCTUAL_LESS = 0.6, 0.08, 2.0
"""In a regular rhythm that is not fast, a beat that is on time, of a shape that mostly is, needs so much higher log-odds to be V:
it is rather conducted, with bundle branch block, than ventricular. Limits of ``on_time`` and of the usual change of the RR."""

_MEDIAN_RR, _OWN_SHARE = FEATURES.index("median_rr"), FEATURES.index("own_share")
_ON_TIME, _IRREGULAR = [FEATURES.index("on_time"), FEATURES.index("own_on_time")], FEATURES.index("irregular")


class Regression(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Log-odds that are linear in the scaled features: more than 0 means yes."""

    weights: tuple[float, ...]
    offset: float


class BeatWeights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fitted classifier: log-odds that are linear in the features.

    Parameters
    ----------
    features
        Must equal :data:`FEATURES`.
    centre, scale
        Of the features; scaled features are limited to +-3.
    ventricular, supraventricular, broad
        V against all others, S against N, and V by the width of its shape alone.
    """

    features: tuple[str, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    ventricular: Regression
    supraventricular: Regression
    broad: Regression


@cache
def read_weights() -> BeatWeights:
    """Return the shipped coefficients.

    Raises
    ------
    ValueError
        If they are for other features.
    """
    weights = msgspec.json.decode((files("ecgnat_stream.weights") / "beats.json").read_bytes(), type=BeatWeights)
    if weights.features != FEATURES:
        raise ValueError(f"weights/beats.json is for the features {weights.features}, not {FEATURES}: fit it again")
    return weights


class BeatClassifier:
    """Streaming beat classes of all rows.

    Parameters
    ----------
    rows
        Number of rows (beds).

    Attributes
    ----------
    ventricular
        ``(B,)`` probability that each beat of the last call is ventricular, NaN where its class is "Q".
    features
        ``(B, F)`` what was measured of it, NaN where nothing could be; see :data:`~ecgnat_stream.beats.gallery.FEATURES`.
    """

    def __init__(self, rows: int, weights: BeatWeights | None = None) -> None:
        self.ventricular = np.zeros(0, np.float32)
        self.features = np.zeros((0, len(FEATURES)))
        self._weights = weights or read_weights()
        self._signal = np.full((rows, _KEPT, len(LEADS), FRAME), np.nan, np.float32)
        self._gallery = Gallery(rows)
        self._compiled = _Compiled(self._weights) if kernels_wanted() else None
        self.reset(np.arange(rows))

    def reset(self, rows: NDArray[np.intp]) -> None:
        """Forget everything about ``rows``."""
        self._signal[rows] = np.nan
        self._gallery.reset(rows)

    def rewind(self, rows: NDArray[np.intp]) -> None:
        """Go back to the start of the signal of ``rows``, with what was learned: for whoever has it all."""
        self._signal[rows] = np.nan

    def seen(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """Return ``(R,)`` how many beats there were to learn from."""
        return self._gallery.seen[rows]

    def has_learned(self, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return ``(R,)`` whether there were enough of them, so that beats get a class."""
        return self._gallery.seen[rows] >= _LEARNING

    def process(
        self,
        rows: NDArray[np.intp],
        frames: NDArray[np.int64],
        y: NDArray[np.float32],
        sqi: NDArray[np.floating],
        beats: BeatFrame,
        paced: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.str_]:
        """Take one frame of each of ``rows``, and the beats found with it; return ``(B,)`` their classes.

        Parameters
        ----------
        rows, frames, y, sqi
            As :meth:`QrsDetector.process` took them.
        beats
            What it returned.
        paced
            ``(B,)`` beats that follow a pacing pulse: EC57 counts them as "Q".
        """
        self._signal[rows, frames % _KEPT] = y
        labels = np.full(len(beats.row), "Q")
        self.ventricular = np.full(len(beats.row), np.nan, np.float32)
        self.features = np.full((len(beats.row), len(FEATURES)), np.nan)
        if not len(beats.row):
            return labels
        place = np.zeros(len(self._signal), np.intp)
        place[rows] = np.arange(len(rows))
        frame, sqi = frames[place[beats.row]], sqi[place[beats.row]]
        if self._compiled is not None:
            return self._compiled.classes(
                self._signal, self._gallery, beats, frame, sqi, paced, features=self.features, ventricular=self.ventricular
            )
        wave, weight = self._cut(beats, frame, sqi)
        order = rank(beats.row)
        usable = (weight > 0.0).any(axis=1)
        for turn in range(int(order.max()) + 1):
            of = np.flatnonzero((order == turn) & usable)
            if not of.size:
                continue
            row = beats.row[of]
            told = self.has_learned(row)
            features = self._gallery.measure(row, beats.rr_ms[of], wave[of], weight[of])
            v, s = log_odds(features, self._weights)
            self.features[of] = features
            labels[of] = np.where(told, np.where(v > 0.0, "V", np.where(s > 0.0, "S", "N")), "Q")
            self.ventricular[of] = np.where(told, 1.0 / (1.0 + np.exp(-v)), np.nan)
        if paced is not None:
            labels[paced] = "Q"
            self.ventricular[paced] = np.nan
        return labels

    def _cut(
        self, beats: BeatFrame, frame: NDArray[np.int64], sqi: NDArray[np.floating]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return ``(B, 12, sum(SPAN))`` the signal about each beat, and the trust ``(B, 12)`` in each lead of it."""
        r = np.minimum(np.round(beats.at).astype(np.int64), (frame + 1) * FRAME - SPAN[1])  # a late R peak of a wide complex
        at = r[:, None] + np.arange(-SPAN[0], SPAN[1])
        wave = self._signal[beats.row[:, None], at // FRAME % _KEPT, :, at % FRAME].transpose(0, 2, 1)
        kept = at[:, 0] // FRAME > frame - _KEPT
        there = kept[:, None] & np.isfinite(wave).all(axis=2)
        weight = np.where(there & (sqi > _MIN_SQI), sqi, 0.0).astype(np.float64)
        return np.where(there[:, :, None], wave, np.float32(0.0)), weight


class _Compiled:
    """The same by :mod:`ecgnat_stream.beats.kernels.shapes`."""

    def __init__(self, weights: BeatWeights) -> None:
        from ecgnat_stream.beats.kernels import shapes

        self._kernel: Any = shapes.beat_classes
        by = weights.ventricular, weights.supraventricular, weights.broad
        self._fitted = np.array([weights.centre, weights.scale, *(one.weights for one in by)])
        self._offsets = np.array([one.offset for one in by])

    def classes(
        self,
        signal: NDArray[np.float32],
        gallery: Gallery,
        beats: BeatFrame,
        frame: NDArray[np.int64],
        sqi: NDArray[np.floating],
        paced: NDArray[np.bool_] | None,
        *,
        features: NDArray[np.float64],
        ventricular: NDArray[np.float32],
    ) -> NDArray[np.str_]:
        count = len(beats.row)
        weight = np.where(sqi > _MIN_SQI, sqi, 0.0).astype(np.float64)
        labels = np.full(count, ord("Q"), np.uint32)
        of = np.zeros(count, bool) if paced is None else paced
        self._kernel(
            np.ascontiguousarray(beats.row, np.int64), np.ascontiguousarray(frame, np.int64),
            np.ascontiguousarray(beats.at, np.float64), np.ascontiguousarray(beats.rr_ms, np.float64), weight, of, count,
            signal, *gallery.state, self._fitted, self._offsets, features, ventricular, labels,
        )  # fmt: skip
        return labels.view("<U1")


def log_odds(features: NDArray[np.float64], weights: BeatWeights) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ``(B,)`` the log-odds of V and those of S against N, row by row, whatever else is in the call.

    Parameters
    ----------
    features
        ``(B, F)``, C-contiguous.
    """
    z: NDArray[np.float64] = np.clip((features - np.array(weights.centre)) / np.array(weights.scale), -LIMIT, LIMIT)
    v, s, broad = (
        (z * np.array(by.weights)).sum(axis=1) + by.offset
        for by in (weights.ventricular, weights.supraventricular, weights.broad)
    )
    fast = features[:, _MEDIAN_RR] < np.log(_FAST_S)
    punctual = (features[:, _ON_TIME] > _PUNCTUAL).all(axis=1) & (features[:, _IRREGULAR] < _REGULAR) & ~fast
    v = v - np.where(punctual, _PUNCTUAL_LESS, 0.0)
    return np.where(fast & (features[:, _OWN_SHARE] > np.log(0.01 + _FREQUENT)), np.maximum(v, broad), v), s
