"""Fibrillation stage: is the heart fibrillating? The answer while the network is missing or late, and a second opinion beside it.

In: conditioned frames ``(R, 12, FRAME)`` and which leads to trust. Out: :class:`FibrillationFrame`, a score per bed. The last
4 s of up to three leads are measured in ways that do not depend on their amplitude (published detectors, named where they are
computed), a small fixed network of one hidden layer weighs them per lead, the log-odds of the leads are averaged. Nothing is
decided from less than 3 s of signal, and what is smaller than 0.2 mV counts as the noise of an asystole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Annotated, ClassVar, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.settings import Settings, Within
from ecgnat_stream.signal import FRAME, FS, LEADS

__all__ = [
    "FEATURES",
    "FibrillationConfig",
    "FibrillationDetector",
    "FibrillationFrame",
    "FibrillationWeights",
    "shipped_weights",
    "weigh",
]

FEATURES = (
    "leakage", "middle", "upper", "bounds", "slope middle", "slope upper", "slope steadiness", "steadiness", "weakest part",
    "slow", "centre", "quick", "concentration", "mean frequency", "entropy", "likeness", "later likeness",
    "phase space", "crossings",
)  # fmt: skip
"""What :meth:`FibrillationDetector.measure` says of a lead, in this order."""

_SLOTS = 3
"""Leads used per bed at a time, so that the cost does not grow with the leads delivered."""

_STEP = 4
_HZ = FS // _STEP
"""Rate at which is measured: fibrillation is below 10 Hz, and 25 Hz are enough to see a QRS complex beside it."""

_N = FRAME // _STEP
_FRAMES = 20
_LENGTH = _FRAMES * _N
"""Frames and samples looked back on: 4 s."""

_ENOUGH = 15
"""Frames of the last 4 s that a lead must have: 3 s."""

_THERE = 0.75
"""Share of a frame's samples that must be there."""

_LOW_HZ = 1.0
"""Drift and slow T waves are taken out below this (Kuo and Dillmann 1978, as in Amann et al. 2005)."""

_ORDER = np.array([LEADS.index(lead) for lead in ("II", "V1", "V5", "I", "V2", "V3", "V4", "V6", "aVF", "III", "aVR", "aVL")])
"""Leads in order of preference: the first ones look at the heart from three sides; those that I and II already hold come last."""

_AT_ONCE = 64
"""Windows measured at a time, so that they stay in the processor's cache."""

_TINY = 1e-6
_DELAY = _HZ // 2
_GRID = 40
"""Delay (0.5 s) and grid of the phase space (Amann, Tratnig and Unterkofler 2007)."""


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


class FibrillationWeights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fixed network, as ``train.signal.fibrillation`` fits it: F features, H hidden units.

    Parameters
    ----------
    features
        Must equal :data:`FEATURES`.
    mean, spread
        ``F`` numbers each that the features are scaled with; scaled ones are limited to +-3.
    hidden, bias
        ``H`` rows of ``F`` weights, and ``H`` offsets, before a hyperbolic tangent.
    out, offset
        ``H`` weights and the offset of the log-odds.
    """

    features: tuple[str, ...]
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    hidden: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]
    out: tuple[float, ...]
    offset: float


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
    """

    def __init__(self, rows: int, config: FibrillationConfig | None = None) -> None:
        self.config = config or FibrillationConfig()
        self._sos = np.ascontiguousarray(butter(2, _LOW_HZ, "highpass", fs=_HZ, output="sos"), dtype=np.float64)
        pairs = rows * len(LEADS)
        self._state = np.zeros((1, pairs, 2))
        self._signal = np.zeros((pairs, _FRAMES, _N), np.float32)
        self._count = np.zeros(pairs, np.int64)
        self._there = np.zeros((rows, len(LEADS), _FRAMES), bool)

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
        measured = self.measure(rows, frames, y, good)
        return FibrillationFrame(self.judge(weigh(measured.features, shipped_weights()), measured.swing))

    def measure(
        self, rows: NDArray[np.intp], frames: NDArray[np.int64], y: NDArray[np.float32], good: NDArray[np.bool_]
    ) -> _Measured:
        """Take one frame of each of ``rows``; return what :data:`FEATURES` names, of up to three leads."""
        self._keep(rows, frames, y, good)
        slots = self._choose(rows)
        features = np.full((len(FEATURES), len(rows), _SLOTS), np.nan)
        swing = np.full((len(rows), _SLOTS), np.nan)
        bed, slot = np.nonzero(slots >= 0)
        for start in range(0, len(bed), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            x = self._recent(rows[bed[part]], slots[bed[part], slot[part]])
            features[:, bed[part], slot[part]] = _measure(x)
            swing[bed[part], slot[part]] = x.max(axis=1) - x.min(axis=1)
        return _Measured(features, swing)

    def judge(self, odds: NDArray[np.float64], swing: NDArray[np.float64]) -> NDArray[np.float32]:
        """Average log-odds ``(R, SLOTS)`` over the leads that are large enough into a score ``(R,)``."""
        config = self.config
        share = np.clip((swing - config.floor_mv) / (config.full_mv - config.floor_mv), 0.0, 1.0)
        share = np.where(np.isnan(odds), 0.0, share)
        total, weighed = np.zeros(len(odds)), np.zeros(len(odds))
        for slot in range(odds.shape[1]):
            total += share[:, slot]
            weighed += share[:, slot] * np.nan_to_num(odds[:, slot])
        score = share.max(axis=1) / (1.0 + np.exp(-weighed / np.maximum(total, _TINY)))
        return np.where(np.isnan(odds).all(axis=1), np.nan, score).astype(np.float32)

    def _keep(self, rows: NDArray[np.intp], frames: NDArray[np.int64], y: NDArray[np.float32], good: NDArray[np.bool_]) -> None:
        """Filter the leads that are there and put them behind what is kept of them; what is missing is skipped."""
        missing = np.isnan(y)
        there = good & (missing.sum(axis=2) <= (1.0 - _THERE) * FRAME)
        row, lead = np.nonzero(there)
        pair = rows[row] * len(LEADS) + lead
        fresh = pair[~self._there[rows[row], lead].any(axis=1)]
        self._state[:, fresh], self._count[fresh] = 0.0, 0
        self._there[rows, :, frames % _FRAMES] = there
        if pair.size:
            x = _mean_of(_bridge(y[row, lead], missing[row, lead]))
            filtered, self._state[:, pair] = sosfilt(self._sos, x, zi=self._state[:, pair])
            self._signal[pair, self._count[pair] % _FRAMES] = filtered
            self._count[pair] += 1

    def _choose(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the first leads in order of preference that have enough signal, ``(R, SLOTS)``, -1 for none."""
        enough = self._there[rows].sum(axis=2)[:, _ORDER] >= _ENOUGH
        rank = np.cumsum(enough, axis=1)
        slots = np.full((len(rows), _SLOTS), -1, np.intp)
        row, place = np.nonzero(enough & (rank <= _SLOTS))
        slots[row, rank[row, place] - 1] = _ORDER[place]
        return slots

    def _recent(self, rows: NDArray[np.intp], leads: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the last 4 s of a lead of each row ``(P, LENGTH)``, mirrored at the start where some of it is missing."""
        pair = rows * len(LEADS) + leads
        frames = self._there[rows, leads].sum(axis=1)[:, None]
        place = np.arange(_LENGTH) - (_LENGTH - _N * frames)
        place = np.where(place < 0, -1 - place, place)
        frame = (self._count[pair][:, None] - frames + place // _N) % _FRAMES
        x: NDArray[np.float64] = self._signal[pair[:, None], frame, place % _N].astype(np.float64)
        return x


def weigh(features: NDArray[np.float64], weights: FibrillationWeights) -> NDArray[np.float64]:
    """Return the log-odds of fibrillation of features ``(F, ...)``.

    Summed feature by feature: the result of one lead must not hang on how many there are, as that of a matrix product may.
    """
    scaled = [
        np.clip((x - mean) / spread, -3.0, 3.0) for x, mean, spread in zip(features, weights.mean, weights.spread, strict=True)
    ]
    odds = np.full(features.shape[1:], weights.offset)
    for row, bias, out in zip(weights.hidden, weights.bias, weights.out, strict=True):
        unit = np.full(features.shape[1:], bias)
        for x, weight in zip(scaled, row, strict=True):
            unit += weight * x
        odds += out * np.tanh(unit)
    return odds


@cache
def shipped_weights() -> FibrillationWeights:
    """Return the shipped network.

    Raises
    ------
    ValueError
        If they are for other features.
    """
    text = resources.files("ecgnat_stream.weights").joinpath("fibrillation.json").read_bytes()
    weights = msgspec.json.decode(text, type=FibrillationWeights)
    if weights.features != FEATURES:
        raise ValueError(f"weights/fibrillation.json is for the features {weights.features}, not {FEATURES}: fit it again")
    return weights


def _bridge(x: NDArray[np.float32], missing: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Hold the last value through missing samples ``(P, n)``; the first one that is there stands before it."""
    first = (~missing).argmax(axis=1)[:, None]
    last = np.maximum.accumulate(np.where(missing, first, np.arange(x.shape[1])), axis=1)
    return np.take_along_axis(x, last, axis=1).astype(np.float64)


def _mean_of(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means of four samples in turn: a low-pass with its first zero at 50 Hz."""
    return np.asarray(0.25 * ((x[:, ::4] + x[:, 1::4]) + (x[:, 2::4] + x[:, 3::4])))


def _measure(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the features ``(F, P)`` of windows ``(P, LENGTH)``, mV."""
    size = np.abs(x)
    ordered = np.sort(size, axis=1)
    top = np.maximum(ordered[:, -_N // 2], _TINY)  # 0.1 s may be larger: an artefact, or half a beat
    slope = np.abs(x[:, 1:] - x[:, :-1])
    slopes = np.sort(slope, axis=1)
    steepest = np.maximum(slopes[:, -3], _TINY)
    square = slope * slope
    parts = square[:, : 8 * (square.shape[1] // 8)].reshape(len(x), 8, -1).mean(axis=2)
    power_of_parts = np.sort((x * x).reshape(len(x), 10, -1).mean(axis=2), axis=1)
    level = np.maximum(square.mean(axis=1), _TINY**2)
    return np.stack(
        [
            _leakage(x, size),
            # How the amplitude is spread: a wave is seldom at rest, an ECG mostly (Anas et al. 2010; Irusta et al. 2012).
            ordered[:, _LENGTH // 2] / top,
            ordered[:, 4 * _LENGTH // 5] / top,
            _bounds(x, top),
            slopes[:, slopes.shape[1] // 2] / steepest,
            slopes[:, 9 * slopes.shape[1] // 10] / steepest,
            np.log(np.maximum((square * square).mean(axis=1), _TINY**4) / (level * level)),
            np.log(np.maximum(parts.min(axis=1), _TINY**2) / level),
            np.log(np.maximum(power_of_parts[:, 1], _TINY**2) / np.maximum(power_of_parts.mean(axis=1), _TINY**2)),
            *_spectrum(x),
            _phase_space(x),
            _crossings(x, top),
        ]
    )


def _leakage(x: NDArray[np.float64], size: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what is left of the signal when it is added to itself half a mean period later (Kuo and Dillmann 1978)."""
    path = np.maximum(np.abs(np.diff(x, axis=1)).sum(axis=1), _TINY)
    half = np.clip(np.pi * size.sum(axis=1) / path, 1.0, _LENGTH // 4)[:, None]
    whole = half.astype(np.int64)
    place = np.minimum(np.arange(_LENGTH) + whole, _LENGTH - 2)
    later = np.take_along_axis(x, place, axis=1)
    later = later + (half - whole) * (np.take_along_axis(x, place + 1, axis=1) - later)
    inside = np.arange(_LENGTH) + whole < _LENGTH - 1
    both = np.where(inside, size + np.abs(later), 0.0).sum(axis=1)
    return np.asarray(np.where(inside, np.abs(x + later), 0.0).sum(axis=1) / np.maximum(both, _TINY))


def _bounds(x: NDArray[np.float64], top: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how lopsided the wave is: the smaller over the larger one of its two extremes."""
    high, low = x.max(axis=1), -x.min(axis=1)
    return np.asarray(np.minimum(high, low) / np.maximum(np.maximum(high, low), top))


def _spectrum(x: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return shares of the power in bands, its width and mean (Barro et al. 1989), and how alike the wave is to itself later."""
    power = np.abs(np.fft.rfft(x * np.hamming(_LENGTH), axis=1)) ** 2
    hz = np.arange(power.shape[1]) * (_HZ / _LENGTH)
    band = np.where((hz >= 0.75) & (hz <= 25.0), power, 0.0)
    total = np.maximum(band.sum(axis=1), _TINY**2)
    share = band / total[:, None]
    running = np.cumsum(share, axis=1)
    wide = round(1.5 * _LENGTH / _HZ)
    narrow = (running[:, wide:] - running[:, :-wide]).max(axis=1)
    entropy = -(share * np.log(np.maximum(share, 1e-9))).sum(axis=1)
    likeness = np.fft.irfft(power, axis=1)
    likeness = likeness / np.maximum(likeness[:, :1], _TINY**2)
    early, late, latest = (round(lag_s * _HZ) for lag_s in (0.1, 0.45, 1.3))
    alike, later = likeness[:, early:late].max(axis=1), likeness[:, late:latest].max(axis=1)
    edges = [running[:, round(edge * _LENGTH / _HZ)] for edge in (2.5, 9.0)]
    return [
        edges[0],
        edges[1] - edges[0],
        1.0 - edges[1],
        narrow,
        np.log((share * hz).sum(axis=1) + 0.1),
        entropy,
        alike,
        later - alike,
    ]


def _phase_space(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of the phase space that the signal against itself 0.5 s later fills (Amann et al. 2007)."""
    low = x.min(axis=1, keepdims=True)
    width = np.maximum(x.max(axis=1, keepdims=True) - low, _TINY)
    cell = np.minimum((_GRID * (x - low) / width).astype(np.int64), _GRID - 1)
    seen = np.zeros((len(x), _GRID * _GRID), bool)
    seen[np.arange(len(x))[:, None], _GRID * cell[:, _DELAY:] + cell[:, :-_DELAY]] = True
    return np.asarray(seen.sum(axis=1) / (_GRID * _GRID))


def _crossings(x: NDArray[np.float64], top: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log of how often a second the signal goes from beyond a fifth of its size on one side to the other.

    After the threshold crossing of Thakor, Zhu and Pan 1990, on both sides.
    """
    level = 0.2 * top[:, None]
    side = np.where(x > level, 1, np.where(x < -level, -1, 0))
    last = np.maximum.accumulate(np.where(side != 0, np.arange(_LENGTH), 0), axis=1)
    held = np.take_along_axis(side, last, axis=1)
    changes = (held[:, 1:] * held[:, :-1] < 0).sum(axis=1)
    return np.asarray(np.log(1.0 + changes * _HZ / _LENGTH))
