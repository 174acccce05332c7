"""What is measured of a conditioned lead, and what two small networks conclude from it."""

from __future__ import annotations

from functools import cache
from importlib import resources
from types import ModuleType

import msgspec
import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.signal import LEADS

__all__ = ["FEATURES", "Features", "QualityWeights", "layers", "shipped_weights", "weigh"]

FEATURES = (
    "below 2.5 Hz", "above 2.5 Hz", "slope", "bend", "burst low", "burst high", "burst slope", "burst bend",
    "peak 15 %", "peak 40 %", "peak 60 %", "peak 75 %", "peak 85 %", "peak 100 %", "share of high peaks", "share of middle peaks",
    "spread of peaks", "lowest of 1 s", "highest of 1 s",
)  # fmt: skip
"""What :meth:`QualityEstimator.measure` says of a lead, in this order."""

_MEMORY = 15
"""Frames (3 s) whose powers are averaged."""

_FLOOR = np.array([0.02, 0.02, 0.004, 0.004], np.float32)[:, None, None] ** 2
"""Powers below which a signal is quiet, mV^2: IEC 60601-2-27 allows a monitor 30 uV peak to peak of its own."""

_HALF = 8
"""Samples (40 ms) between the middle and the flanks of the wave that is looked for: half the width of a QRS complex."""

_TAIL = 2 * _HALF + 3

_PEAKS = 20
"""Frames (4 s) whose largest QRS-like wave is kept."""

_SECOND = 5
_RANKS = np.array([3, 8, 12, 15, 17, 19])
_BEAT_RANK = 4
"""Which of the sorted waves are looked at, and which of these is taken for that of a beat."""

_PEAK_FLOOR = np.float32(0.01)

_LIMIT = 3.5
"""Spreads about the mean to which features are limited, so that nothing is weighed that was not seen in the fit."""


class QualityWeights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Two small networks on the same features, as ``train.signal.quality`` fits them: F features, H hidden units.

    Parameters
    ----------
    features
        Must equal :data:`FEATURES`.
    mean, spread
        ``F`` numbers each that the features are scaled with.
    hidden, bias
        ``H`` rows of ``F`` weights, and ``H`` offsets, before a hyperbolic tangent.
    right, right_offset
        ``H`` weights and the offset of the log-odds that QRS detection is right.
    noise, noise_offset
        The same for noise that would hide any rhythm.
    """

    features: tuple[str, ...]
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    hidden: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]
    right: tuple[float, ...]
    right_offset: float
    noise: tuple[float, ...]
    noise_offset: float


class Features:
    """Running measures of all rows' leads.

    Samples are handled time first, ``(T, P)`` for ``P`` pairs of bed and lead, so that every step runs along all pairs at once.

    Parameters
    ----------
    rows
        Number of rows (beds).
    kernels
        The compiled kernels, if they are to be used.
    """

    def __init__(self, rows: int, kernels: ModuleType | None = None) -> None:
        self._kernels = kernels
        shape = (rows, len(LEADS))
        self._powers = np.ones((rows, _MEMORY, 8, len(LEADS)), np.float32)
        self._tail = np.full((*shape, _TAIL), np.nan, np.float32)
        self._peaks = np.zeros((rows, _PEAKS, 1, len(LEADS)), np.float32)
        self._frames = np.zeros(rows, np.intp)
        self.count = np.zeros(shape, np.int32)

    def reset(self, rows: NDArray[np.intp]) -> None:
        """Forget everything about ``rows``."""
        self.count[rows] = 0
        self._tail[rows] = np.nan
        self._frames[rows] = 0

    def measure(self, rows: NDArray[np.intp], y: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Take one frame ``(R, 12, FRAME)``.

        Four levels (log of the mean power of frame mean, rest, first and second difference: to 2.5 Hz, above, and the quicker the
        more), and how bursty each of the four is: log of the mean over mean of the log, 0 for a steady power. Then the largest
        QRS-like wave of each of the last 20 frames: some in their order of size, as logarithms; how many exceed half a beat's,
        and how many a quarter but not 0.6; how far they spread; and the least and the largest of the last second.

        Returns
        -------
        ``(F, R, 12)`` what is weighed, see :data:`FEATURES`, and ``(R, 12)`` the frame's peak-to-peak amplitude, mV, or NaN. What
        is measured of a lead without a sample in the frame means nothing.
        """
        shape = y.shape[:2]
        if self._kernels is not None:
            measured, span = np.empty((*shape, len(FEATURES)), np.float32), np.empty(shape, np.float32)
            state = self._powers, self._tail, self._peaks, self._frames, self.count
            self._kernels.measure(rows, y, *state, measured, span)
            return measured.transpose(2, 0, 1), span
        wave = np.concatenate([self._tail[rows], y], axis=2).reshape(-1, _TAIL + y.shape[2]).T.copy()
        self._tail[rows] = y[:, :, -_TAIL:]
        frame = wave[_TAIL:]
        new = np.empty((8, frame.shape[1]), np.float32)
        _powers(frame, new[:4])
        np.log(new[:4], out=new[4:])
        whole = ~np.isnan(new[0]).reshape(shape)
        count = np.minimum(self.count[rows] + whole, _MEMORY)
        self.count[rows] = np.where((np.isnan(frame[0]) & np.isnan(frame[-1])).reshape(shape), 0, count)
        first = whole & (count == 1)
        self._frames[rows] = at = self._frames[rows] + 1
        out = np.empty((len(FEATURES), *shape), np.float32)
        sums = np.add.reduce(_push(self._powers, rows, at, new.reshape(8, *shape), whole, first), axis=1)
        mean = sums.transpose(1, 0, 2).copy()
        mean /= np.float32(_MEMORY)
        np.log(np.maximum(mean[:4], _FLOOR), out=out[:4])
        np.subtract(out[:4], mean[4:], out=out[4:8])
        peaks = _push(self._peaks, rows, at, _largest_wave(wave).reshape(1, *shape), whole, first)
        _rank(peaks[:, :, 0], at, out[8:])
        return out, np.fmax.reduce(frame, axis=0).reshape(shape) - np.fmin.reduce(frame, axis=0).reshape(shape)


def _rank(peaks: NDArray[np.float32], at: NDArray[np.intp], out: NDArray[np.float32]) -> None:
    """Write into ``out`` ``(11, R, 12)`` what the waves ``(R, 20, 12)`` say, of which that at ``at % 20`` is the latest."""
    lines = peaks.transpose(0, 2, 1).copy()
    lines.sort(axis=2)
    ranked = lines.transpose(2, 0, 1).copy()
    beat = ranked[_RANKS[_BEAT_RANK]]
    half, quarter, most = (
        np.add.reduce((ranked > np.float32(part) * beat).view(np.uint8), axis=0, dtype=np.uint8) for part in (0.5, 0.25, 0.6)
    )
    second = peaks[np.arange(len(at))[:, None], (at[:, None] - np.arange(_SECOND)) % _PEAKS]
    sizes = np.empty((len(_RANKS) + 3, *beat.shape), np.float32)
    sizes[: len(_RANKS)] = ranked[_RANKS]
    np.min(second, axis=1, out=sizes[-2])
    np.max(second, axis=1, out=sizes[-1])
    ranked -= ranked[_PEAKS // 2].copy()
    np.mean(np.abs(ranked, out=ranked), axis=0, out=sizes[-3])
    logs = np.log(np.maximum(sizes, _PEAK_FLOOR, out=sizes), out=sizes)
    out[: len(_RANKS)], out[-3:] = logs[: len(_RANKS)], logs[-3:]
    np.divide(half, np.float32(_PEAKS), out=out[len(_RANKS)], dtype=np.float32)
    np.divide(quarter - most, np.float32(_PEAKS), out=out[len(_RANKS) + 1], dtype=np.float32)


def _push(
    kept: NDArray[np.float32],
    rows: NDArray[np.intp],
    at: NDArray[np.intp],
    new: NDArray[np.float32],
    whole: NDArray[np.bool_],
    first: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Keep ``new`` ``(K, R, 12)`` as the ``at``-th of the rings ``(R, depth, K, 12)`` of ``rows``, and return these.

    What is not whole repeats the last value, and the first one fills the ring.
    """
    depth = kept.shape[1]
    newest = new.transpose(1, 0, 2)
    if not whole.all():
        newest = np.where(whole[:, None], newest, kept[rows, (at - 1) % depth])
    kept[rows, at % depth] = newest
    row, lead = np.nonzero(first)
    if len(row):
        kept[rows[row], :, :, lead] = newest[row, None, :, lead]
    return kept[rows]


def weigh(weights: QualityWeights, measured: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the probabilities that QRS detection is right, and of noise, for features ``(F, ...)``.

    Sums in a fixed order, one feature and one hidden unit after the other, so that no lead's rounding depends on the others.
    """
    mean, spread, hidden, out = layers(weights)
    shape = measured.shape[1:]
    scaled = np.ones((len(mean) + 1, 1, int(np.prod(shape))), np.float32)
    part = scaled[1:, 0]
    np.subtract(measured.reshape(len(mean), -1), mean, out=part)
    part /= spread
    np.clip(part, -_LIMIT, _LIMIT, out=part)
    unit = np.ones((hidden.shape[1] + 1, 1, part.shape[1]), np.float32)
    np.tanh(np.add.reduce(hidden * scaled, axis=0), out=unit[1:, 0])
    odds = np.float32(1.0) / (np.float32(1.0) + np.exp(-np.add.reduce(out * unit, axis=0)))
    return odds[0].reshape(shape), odds[1].reshape(shape)


@cache
def layers(weights: QualityWeights) -> tuple[NDArray[np.float32], ...]:
    """Return mean and spread ``(F, 1)``, then per layer an offset and the weights of its inputs, ``(1 + inputs, outputs, 1)``."""
    mean, spread = (np.array(values, np.float32)[:, None] for values in (weights.mean, weights.spread))
    hidden = np.column_stack([weights.bias, weights.hidden]).astype(np.float32).T.copy()
    out = [[weights.right_offset, weights.noise_offset], *zip(weights.right, weights.noise, strict=True)]
    return mean, spread, hidden[:, :, None], np.array(out, np.float32)[:, :, None]


@cache
def shipped_weights() -> QualityWeights:
    """Return the weights that are part of the package.

    Raises
    ------
    ValueError
        If they are for other features.
    """
    text = resources.files("ecgnat_stream.weights").joinpath("quality.json").read_bytes()
    weights = msgspec.json.decode(text, type=QualityWeights)
    if weights.features != FEATURES:
        raise ValueError(f"weights/quality.json is for the features {weights.features}, not {FEATURES}: fit it again")
    return weights


def _largest_wave(y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the height over its flanks of the largest wave of 80 ms in ``(_TAIL + FRAME, P)``, smoothed over 20 ms.

    Where the tail is not whole, ``y`` is changed: the frame's first sample stands for it.
    """
    broken = np.isnan(np.add.reduce(y[:_TAIL], axis=0))
    if broken.any():
        y[:_TAIL] = np.where(broken, y[_TAIL], y[:_TAIL])
    pair = y[1:] + y[:-1]
    smooth = pair[2:] + pair[:-2]
    flanks = smooth[2 * _HALF :] + smooth[: -2 * _HALF]
    flanks *= np.float32(0.5)
    wave = np.subtract(smooth[_HALF:-_HALF], flanks, out=flanks)
    largest: NDArray[np.float32] = np.maximum.reduce(np.abs(wave, out=wave), axis=0) / np.float32(4.0)
    return largest


def _powers(y: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Write into ``out`` ``(4, P)`` the squared mean of each frame, its variance, and the power of its first two differences."""
    step = y[1:] - y[:-1]
    bend = step[1:] - step[:-1]
    np.square(np.add.reduce(y, axis=0) / np.float32(len(y)), out=out[0])
    for k, part in enumerate((y, step, bend), start=1):
        np.divide(np.add.reduce(np.square(part), axis=0), np.float32(len(part)), out=out[k])
    out[1] = np.maximum(out[1] - out[0], 0.0)
    out += _FLOOR[:, 0]
