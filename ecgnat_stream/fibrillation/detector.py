"""Fibrillation stage: is the heart fibrillating? The answer while the network is missing or late, and a second opinion beside it.

In: conditioned frames ``(R, 12, FRAME)`` and which leads to trust. Out: :class:`FibrillationFrame`, a score per bed. The last
4 s of up to three leads are measured in ways that do not depend on their amplitude (published detectors, named where they are
computed), a small fixed network of one hidden layer weighs them per lead, the log-odds of the leads are averaged. Nothing is
decided from less than 3 s of signal, and what is smaller than 0.2 mV counts as the noise of an asystole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

from ecgnat_stream.compiled import kernels_wanted
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.fibrillation.features import FEATURES, FRAMES, HZ, LENGTH, TINY, N, measure, shipped_weights, weigh
from ecgnat_stream.settings import Settings, Within
from ecgnat_stream.signal import FRAME, LEADS

__all__ = ["FibrillationConfig", "FibrillationDetector", "FibrillationFrame"]

SLOTS = 3
"""Leads used per bed at a time, so that the cost does not grow with the leads delivered."""

ENOUGH = 15
"""Frames of the last 4 s that a lead must have: 3 s."""

THERE = 0.75
"""Share of a frame's samples that must be there."""

_LOW_HZ = 1.0
"""Drift and slow T waves are taken out below this (Kuo and Dillmann 1978, as in Amann et al. 2005)."""

ORDER = np.array([LEADS.index(lead) for lead in ("II", "V1", "V5", "I", "V2", "V3", "V4", "V6", "aVF", "III", "aVR", "aVL")])
"""Leads in order of preference: the first ones look at the heart from three sides; those that I and II already hold come last."""

_AT_ONCE = 64
"""Windows measured at a time, so that they stay in the processor's cache."""


class FibrillationConfig(Settings, frozen=True, kw_only=True):
    """How large a wave must be.

    Parameters
    ----------
    floor_mv
        Peak-to-peak amplitude below which nothing is fibrillation; the score falls from there up to ``full_mv``.
    full_mv
        Peak-to-peak amplitude from which the score counts in full.
    """

    section: ClassVar[str] = "fibrillation"

    floor_mv: Annotated[
        float,
        Within(0.02, 0.15, "below it the noise of an asystole passes for fibrillation, above it fine fibrillation is missed"),
    ] = 0.12
    full_mv: Annotated[
        float,
        Within(0.05, 0.3, "a fibrillation that is larger than this has to count in full; smaller is the noise of an asystole"),
    ] = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.floor_mv >= self.full_mv:
            raise ConfigError(f"fibrillation.floor_mv = {self.floor_mv:g} must be below fibrillation.full_mv = {self.full_mv:g}")


@dataclass(frozen=True, slots=True)
class FibrillationFrame:
    """What is thought of ``R`` beds after one frame.

    Parameters
    ----------
    score
        ``(R,)`` 0..1, whether the last 4 s are ventricular fibrillation, flutter or the like; NaN with less than 3 s of signal.
    """

    score: NDArray[np.float32]


class _Measured(NamedTuple):
    """Features ``(F, R, SLOTS)`` and peak-to-peak amplitude ``(R, SLOTS)``, mV, NaN where a slot has no lead."""

    features: NDArray[np.float64]
    swing: NDArray[np.float64]


class FibrillationDetector:
    """Streaming detector of all rows.

    Parameters
    ----------
    rows
        Number of rows (beds).
    kernels
        Whether to use the compiled kernels; if left out, as :func:`~ecgnat_stream.compiled.kernels_wanted` says.
    """

    def __init__(self, rows: int, config: FibrillationConfig | None = None, kernels: bool | None = None) -> None:
        self.config = config or FibrillationConfig()
        self._compiled: _Compiled | None = None
        if kernels_wanted() if kernels is None else kernels:
            self._compiled = _Compiled()
        self._sos = np.ascontiguousarray(butter(2, _LOW_HZ, "highpass", fs=HZ, output="sos"), dtype=np.float64)
        pairs = rows * len(LEADS)
        self._state = np.zeros((1, pairs, 2))
        self._signal = np.zeros((pairs, FRAMES, N), np.float32)
        self._count = np.zeros(pairs, np.int64)
        self._there = np.zeros((rows, len(LEADS), FRAMES), bool)

    def reset(self, rows: NDArray[np.intp]) -> None:
        """Forget everything about ``rows``."""
        self._there[rows] = False

    def process(
        self, rows: NDArray[np.intp], frames: NDArray[np.int64], y: NDArray[np.float32], good: NDArray[np.bool_]
    ) -> FibrillationFrame:
        """Take one frame of each of ``rows``; say how much the last 4 s look like fibrillation.

        Parameters
        ----------
        rows, frames
            ``(R,)`` different rows, and the frame number of each, one more than in the call before.
        y
            ``(R, 12, FRAME)`` mV at ``signal.FS``, NaN where missing.
        good
            ``(R, 12)`` leads in contact, neither flat nor saturated; noise is judged here.
        """
        if self._compiled is not None:
            return FibrillationFrame(self._compiled.judge(*self._follow(self._compiled, rows, frames, y, good), self.config))
        measured = self.measure(rows, frames, y, good)
        return FibrillationFrame(self.judge(weigh(measured.features, shipped_weights()), measured.swing))

    def measure(
        self, rows: NDArray[np.intp], frames: NDArray[np.int64], y: NDArray[np.float32], good: NDArray[np.bool_]
    ) -> _Measured:
        """Take one frame of each of ``rows``; return what :data:`FEATURES` names, of up to three leads."""
        if self._compiled is not None:
            features, swing = self._follow(self._compiled, rows, frames, y, good)
            return _Measured(features.transpose(2, 0, 1), swing)
        self._keep(rows, frames, y, good)
        slots = self._choose(rows)
        features = np.full((len(FEATURES), len(rows), SLOTS), np.nan)
        swing = np.full((len(rows), SLOTS), np.nan)
        bed, slot = np.nonzero(slots >= 0)
        for start in range(0, len(bed), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            x = self._recent(rows[bed[part]], slots[bed[part], slot[part]])
            features[:, bed[part], slot[part]] = measure(x)
            swing[bed[part], slot[part]] = x.max(axis=1) - x.min(axis=1)
        return _Measured(features, swing)

    def _follow(
        self,
        compiled: _Compiled,
        rows: NDArray[np.intp],
        frames: NDArray[np.int64],
        y: NDArray[np.float32],
        good: NDArray[np.bool_],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Take one frame of each of ``rows``; return the features ``(R, SLOTS, F)`` and amplitudes ``(R, SLOTS)``."""
        rows, y, good = np.ascontiguousarray(rows), np.ascontiguousarray(y), np.ascontiguousarray(good)
        features, swing = np.empty((len(rows), SLOTS, len(FEATURES))), np.empty((len(rows), SLOTS))
        compiled.kernels.keep(
            rows, np.ascontiguousarray(frames), y, good, self._sos[0], self._state[0], self._signal, self._count, self._there
        )
        compiled.kernels.measure(rows, self._signal, self._count, self._there, features, swing)
        return features, swing

    def judge(self, odds: NDArray[np.float64], swing: NDArray[np.float64]) -> NDArray[np.float32]:
        """Average log-odds ``(R, SLOTS)`` over the leads that are large enough into a score ``(R,)``."""
        config = self.config
        share = np.clip((swing - config.floor_mv) / (config.full_mv - config.floor_mv), 0.0, 1.0)
        share = np.where(np.isnan(odds), 0.0, share)
        total, weighed = np.zeros(len(odds)), np.zeros(len(odds))
        for slot in range(odds.shape[1]):
            total += share[:, slot]
            weighed += share[:, slot] * np.nan_to_num(odds[:, slot])
        score = share.max(axis=1) / (1.0 + np.exp(-weighed / np.maximum(total, TINY)))
        return np.where(np.isnan(odds).all(axis=1), np.nan, score).astype(np.float32)

    def _keep(self, rows: NDArray[np.intp], frames: NDArray[np.int64], y: NDArray[np.float32], good: NDArray[np.bool_]) -> None:
        """Filter the leads that are there and put them behind what is kept of them; what is missing is skipped."""
        missing = np.isnan(y)
        there = good & (missing.sum(axis=2) <= (1.0 - THERE) * FRAME)
        row, lead = np.nonzero(there)
        pair = rows[row] * len(LEADS) + lead
        fresh = pair[~self._there[rows[row], lead].any(axis=1)]
        self._state[:, fresh], self._count[fresh] = 0.0, 0
        self._there[rows, :, frames % FRAMES] = there
        if pair.size:
            x = _mean_of(_bridge(y[row, lead], missing[row, lead]))
            filtered, self._state[:, pair] = sosfilt(self._sos, x, zi=self._state[:, pair])
            self._signal[pair, self._count[pair] % FRAMES] = filtered
            self._count[pair] += 1

    def _choose(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the first leads in order of preference that have enough signal, ``(R, SLOTS)``, -1 for none."""
        enough = self._there[rows].sum(axis=2)[:, ORDER] >= ENOUGH
        rank = np.cumsum(enough, axis=1)
        slots = np.full((len(rows), SLOTS), -1, np.intp)
        row, place = np.nonzero(enough & (rank <= SLOTS))
        slots[row, rank[row, place] - 1] = ORDER[place]
        return slots

    def _recent(self, rows: NDArray[np.intp], leads: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the last 4 s of a lead of each row ``(P, LENGTH)``, mirrored at the start where some of it is missing."""
        pair = rows * len(LEADS) + leads
        frames = self._there[rows, leads].sum(axis=1)[:, None]
        place = np.arange(LENGTH) - (LENGTH - N * frames)
        place = np.where(place < 0, -1 - place, place)
        frame = (self._count[pair][:, None] - frames + place // N) % FRAMES
        x: NDArray[np.float64] = self._signal[pair[:, None], frame, place % N].astype(np.float64)
        return x


class _Compiled:
    """The kernels, and the weights as they take them."""

    def __init__(self) -> None:
        from ecgnat_stream.fibrillation import kernels

        self.kernels = kernels
        weights = shipped_weights()
        self._scale = np.array(weights.mean), np.array(weights.spread)
        self._hidden = np.array(weights.hidden).T.copy(), np.array(weights.bias)
        self._out = np.array(weights.out), weights.offset

    def judge(self, features: NDArray[np.float64], swing: NDArray[np.float64], config: FibrillationConfig) -> NDArray[np.float32]:
        """Return the score ``(R,)``."""
        score = np.empty(len(features), np.float32)
        self.kernels.judge(features, swing, *self._scale, *self._hidden, *self._out, config.floor_mv, config.full_mv, score)
        return score


def _bridge(x: NDArray[np.float32], missing: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Hold the last value through missing samples ``(P, n)``; the first one that is there stands before it."""
    first = (~missing).argmax(axis=1)[:, None]
    last = np.maximum.accumulate(np.where(missing, first, np.arange(x.shape[1])), axis=1)
    return np.take_along_axis(x, last, axis=1).astype(np.float64)


def _mean_of(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means of four samples in turn: a low-pass with its first zero at 50 Hz."""
    return np.asarray(0.25 * ((x[:, ::4] + x[:, 1::4]) + (x[:, 2::4] + x[:, 3::4])))
