"""What is measured of 4 s of one lead, in ways that do not hang on its amplitude, and the small fixed network that weighs it."""

from __future__ import annotations

from functools import cache
from importlib import resources

import msgspec
import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.signal import FRAME, FS

__all__ = [
    "FEATURES",
    "FRAMES",
    "HZ",
    "LENGTH",
    "STEP",
    "TINY",
    "FibrillationWeights",
    "N",
    "measure",
    "shipped_weights",
    "weigh",
]

FEATURES = (
    "leakage", "middle", "upper", "bounds", "slope middle", "slope upper", "slope steadiness", "steadiness", "weakest part",
    "slow", "centre", "quick", "concentration", "mean frequency", "entropy", "likeness", "later likeness",
    "phase space", "crossings",
)  # fmt: skip
"""What :meth:`~ecgnat_stream.fibrillation.FibrillationDetector.measure` says of a lead, in this order."""

STEP = 4
HZ = FS // STEP
"""Rate at which is measured: fibrillation is below 10 Hz, and 25 Hz are enough to see a QRS complex beside it."""

N = FRAME // STEP
FRAMES = 20
LENGTH = FRAMES * N
"""Samples in a frame, frames and samples looked back on: 4 s."""

TINY = 1e-6
DELAY = HZ // 2
GRID = 40
"""Delay (0.5 s) and grid of the phase space (Amann, Tratnig and Unterkofler 2007)."""


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


def measure(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the features ``(F, P)`` of windows ``(P, LENGTH)``, mV."""
    size = np.abs(x)
    ordered = np.sort(size, axis=1)
    top = np.maximum(ordered[:, -N // 2], TINY)  # 0.1 s may be larger: an artefact, or half a beat
    slope = np.abs(x[:, 1:] - x[:, :-1])
    slopes = np.sort(slope, axis=1)
    steepest = np.maximum(slopes[:, -3], TINY)
    square = slope * slope
    parts = square[:, : 8 * (square.shape[1] // 8)].reshape(len(x), 8, -1).mean(axis=2)
    power_of_parts = np.sort((x * x).reshape(len(x), 10, -1).mean(axis=2), axis=1)
    level = np.maximum(square.mean(axis=1), TINY**2)
    return np.stack(
        [
            _leakage(x, size),
            # How the amplitude is spread: a wave is seldom at rest, an ECG mostly (Anas et al. 2010; Irusta et al. 2012).
            ordered[:, LENGTH // 2] / top,
            ordered[:, 4 * LENGTH // 5] / top,
            _bounds(x, top),
            slopes[:, slopes.shape[1] // 2] / steepest,
            slopes[:, 9 * slopes.shape[1] // 10] / steepest,
            np.log(np.maximum((square * square).mean(axis=1), TINY**4) / (level * level)),
            np.log(np.maximum(parts.min(axis=1), TINY**2) / level),
            np.log(np.maximum(power_of_parts[:, 1], TINY**2) / np.maximum(power_of_parts.mean(axis=1), TINY**2)),
            *_spectrum(x),
            _phase_space(x),
            _crossings(x, top),
        ]
    )


def _leakage(x: NDArray[np.float64], size: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what is left of the signal when it is added to itself half a mean period later (Kuo and Dillmann 1978)."""
    path = np.maximum(np.abs(np.diff(x, axis=1)).sum(axis=1), TINY)
    half = np.clip(np.pi * size.sum(axis=1) / path, 1.0, LENGTH // 4)[:, None]
    whole = half.astype(np.int64)
    place = np.minimum(np.arange(LENGTH) + whole, LENGTH - 2)
    later = np.take_along_axis(x, place, axis=1)
    later = later + (half - whole) * (np.take_along_axis(x, place + 1, axis=1) - later)
    inside = np.arange(LENGTH) + whole < LENGTH - 1
    both = np.where(inside, size + np.abs(later), 0.0).sum(axis=1)
    return np.asarray(np.where(inside, np.abs(x + later), 0.0).sum(axis=1) / np.maximum(both, TINY))


def _bounds(x: NDArray[np.float64], top: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how lopsided the wave is: the smaller over the larger one of its two extremes."""
    high, low = x.max(axis=1), -x.min(axis=1)
    return np.asarray(np.minimum(high, low) / np.maximum(np.maximum(high, low), top))


def _spectrum(x: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return shares of the power in bands, its width and mean (Barro et al. 1989), and how alike the wave is to itself later."""
    power = np.abs(np.fft.rfft(x * np.hamming(LENGTH), axis=1)) ** 2
    hz = np.arange(power.shape[1]) * (HZ / LENGTH)
    band = np.where((hz >= 0.75) & (hz <= 25.0), power, 0.0)
    total = np.maximum(band.sum(axis=1), TINY**2)
    share = band / total[:, None]
    running = np.cumsum(share, axis=1)
    wide = round(1.5 * LENGTH / HZ)
    narrow = (running[:, wide:] - running[:, :-wide]).max(axis=1)
    entropy = -(share * np.log(np.maximum(share, 1e-9))).sum(axis=1)
    likeness = np.fft.irfft(power, axis=1)
    likeness = likeness / np.maximum(likeness[:, :1], TINY**2)
    early, late, latest = (round(lag_s * HZ) for lag_s in (0.1, 0.45, 1.3))
    alike, later = likeness[:, early:late].max(axis=1), likeness[:, late:latest].max(axis=1)
    edges = [running[:, round(edge * LENGTH / HZ)] for edge in (2.5, 9.0)]
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
    width = np.maximum(x.max(axis=1, keepdims=True) - low, TINY)
    cell = np.minimum((GRID * (x - low) / width).astype(np.int64), GRID - 1)
    seen = np.zeros((len(x), GRID * GRID), bool)
    seen[np.arange(len(x))[:, None], GRID * cell[:, DELAY:] + cell[:, :-DELAY]] = True
    return np.asarray(seen.sum(axis=1) / (GRID * GRID))


def _crossings(x: NDArray[np.float64], top: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log of how often a second the signal goes from beyond a fifth of its size on one side to the other.

    After the threshold crossing of Thakor, Zhu and Pan 1990, on both sides.
    """
    level = 0.2 * top[:, None]
    side = np.where(x > level, 1, np.where(x < -level, -1, 0))
    last = np.maximum.accumulate(np.where(side != 0, np.arange(LENGTH), 0), axis=1)
    held = np.take_along_axis(side, last, axis=1)
    changes = (held[:, 1:] * held[:, :-1] < 0).sum(axis=1)
    return np.asarray(np.log(1.0 + changes * HZ / LENGTH))
