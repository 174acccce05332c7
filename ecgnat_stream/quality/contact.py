"""What the device's own samples say of a lead: flat, at a rail, cut peaks, mains hum. Conditioning would hide all of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.signal import FRAME_S, LEADS

__all__ = ["Contact", "ContactCheck"]

_RAILED = 3
"""Frames at a rail, less those without, that make a lead saturated; up to four times as many are counted."""

_RAIL_SHARE = 0.4
"""Share of device samples at one extreme value that means saturation."""

_SMALL_MV = 1.0
"""No value this small is a rail, and no signal of so small a height is at one: a clean ECG may rest at zero between its beats."""

_RAIL_MV = 10.0
"""A line that is constant from here on is at a rail, not the flat line of a heart that stands still: an ECG input reaches +-5 mV
about its baseline (IEC 60601-2-27), and what follows a larger offset of the electrodes moves with them."""

_QUIET_MV = 1e-4
"""Peak-to-peak below which a frame is constant: 0.1 uV, less than one step of any ECG converter."""

_CUT_NEAR, _CUT_AROUND, _CUT_SHARE = 0.01, 0.1, 0.5
"""A peak is cut where of the samples within the second part of its height so many lie within the first: a dome has a third."""

_CUT_BASE = 0.4
"""A cut peak is this much of the frame's height away from the frame's mean; a base line under a deep S wave is not."""

_CUT_LEVEL = 0.05
"""Cut peaks end at the same level, within this part of their height."""

_CUT_STEP, _CUT_FROM, _CUT_MOST = 12, 24, 48
"""Credit of a frame with a cut peak, each frame without takes one away; from where a lead is clipped, and the most kept."""

_HUM_HZ = (50.0, 60.0, 40.0)

_HUM_NYQUIST = 0.47

_HUM_ABOVE = np.log(2.5)
"""Mains stands out by this factor (as a logarithm) above 40 Hz, the last of the frequencies looked at; what is less than 6 %
below half the device's rate cannot be measured."""

_HUM_FRAMES = 15
"""Frames (3 s) that the mean of the hum looks back."""


@dataclass(frozen=True, slots=True)
class Contact:
    """What holds of each lead, ``(R, 12)``.

    Parameters
    ----------
    missing, flat, saturated, clipped
        No sample; constant; much of the signal at a rail; an ECG whose peaks are cut.
    hum_mv
        Amplitude of 50 or 60 Hz, whichever is larger, as far as it stands out; 0 if not.
    """

    missing: NDArray[np.bool_]
    flat: NDArray[np.bool_]
    saturated: NDArray[np.bool_]
    clipped: NDArray[np.bool_]
    hum_mv: NDArray[np.float32]


class ContactCheck:
    """Streaming check of all rows.

    Parameters
    ----------
    rows
        Number of rows (beds).
    flat_s
        A lead constant for this long is flat.
    kernels
        The compiled kernels, if they are to be used.
    """

    def __init__(self, rows: int, flat_s: float, kernels: ModuleType | None = None) -> None:
        self._flat_s, self._kernels = flat_s, kernels
        shape = (rows, len(LEADS))
        self._still = np.zeros(shape, np.int32)
        self._railed = np.zeros(shape, np.int32)
        self._hum = np.full((len(_HUM_HZ), *shape), np.nan, np.float32)
        self._cut_at = np.full((2, *shape), np.nan, np.float32)
        self._cuts = np.zeros((2, *shape), np.int32)

    def reset(self, rows: NDArray[np.intp]) -> None:
        """Forget everything about ``rows``."""
        for state in (self._still, self._railed):
            state[rows] = 0
        self._hum[:, rows] = np.nan
        self._cuts[:, rows] = 0

    def process(self, rows: NDArray[np.intp], raw: NDArray[np.float32], span: NDArray[np.float32], fs: float | None) -> Contact:
        """Look at one frame of each of ``rows``.

        Parameters
        ----------
        rows, raw, fs
            As :meth:`QualityEstimator.process` takes them.
        span
            ``(R, 12)`` peak-to-peak amplitude of the conditioned frame, mV, NaN where there is none.
        """
        if self._kernels is not None:
            return self._look(self._kernels, rows, raw, span, fs)
        lines = raw.reshape(-1, raw.shape[2])
        frame = lines.T.copy()
        extremes = np.stack([np.fmax.reduce(frame, axis=0), np.fmin.reduce(frame, axis=0)])
        height, mean = extremes[0] - extremes[1], np.add.reduce(frame, axis=0) / np.float32(len(frame))
        nothing = np.isnan(height)
        at_rail = (height < _QUIET_MV) & (np.abs(mean) >= _RAIL_MV)
        railed, cut = np.zeros(len(height), bool), np.zeros(extremes.shape, bool)
        delivered = np.flatnonzero(~nothing) if nothing.any() else slice(None)
        railed[delivered], cut[:, delivered] = _edges(
            frame[:, delivered], extremes[:, delivered], height[delivered], mean[delivered]
        )
        nothing, at_rail, missing = nothing.reshape(span.shape), at_rail.reshape(span.shape), np.isnan(span)
        still = np.where(nothing, span, height.reshape(span.shape)) < _QUIET_MV
        self._still[rows] = constant = np.where(still & ~missing, self._still[rows] + 1, 0)
        step = 2 * railed.reshape(span.shape) + still - 1
        counted = np.clip(self._railed[rows] + step, 0, 4 * _RAILED)
        # A rail of its own kind is seen at once, and over with the first frame that moves.
        self._railed[rows] = counted = np.where(at_rail, np.maximum(counted, _RAILED), counted)
        return Contact(
            missing=missing & nothing,
            flat=(constant * FRAME_S >= self._flat_s) & ~at_rail,
            saturated=counted >= _RAILED,
            clipped=self._clipped(rows, cut, extremes, height),
            hum_mv=self._hums(rows, lines[delivered], delivered, fs),
        )

    def _look(
        self, kernels: ModuleType, rows: NDArray[np.intp], raw: NDArray[np.float32], span: NDArray[np.float32], fs: float | None
    ) -> Contact:
        flags, hum_mv = np.empty((4, *span.shape), bool), np.empty(span.shape, np.float32)
        state = self._still, self._railed, self._hum, self._cut_at, self._cuts
        kernels.look(rows, raw, span, self._flat_s, *_interleaved(raw.shape[2], fs), *state, flags, hum_mv)
        missing, flat, saturated, clipped = flags
        return Contact(missing, flat, saturated, clipped, hum_mv)

    def _hums(
        self, rows: NDArray[np.intp], lines: NDArray[np.float32], delivered: NDArray[np.intp] | slice, fs: float | None
    ) -> NDArray[np.float32]:
        """Return the hum ``(R, 12)`` that stands out steadily: by the mean of the logarithm, which one QRS does not move."""
        hum = np.zeros((len(rows), len(LEADS)), np.float32)
        if fs is None:
            return hum
        wave = np.einsum("pn,ckn->ckp", lines, _probes(lines.shape[1], fs))
        now = np.log(np.sqrt(np.add.reduce(np.square(wave, out=wave), axis=0)) + np.float32(1e-5))
        levels = np.take(self._hum, rows, axis=1)
        flat = levels.reshape(len(_HUM_HZ), -1)
        before = flat[:, delivered]
        mean = before + (now - before) / np.float32(_HUM_FRAMES)
        if np.isnan(mean).any():
            mean = np.where(np.isnan(before), now, np.where(np.isnan(now), before, mean))
        flat[:, delivered] = mean
        self._hum[:, rows] = levels
        for hz, level in zip(_HUM_HZ[:-1], levels[:-1], strict=True):
            out = level - levels[-1] > _HUM_ABOVE
            if hz < _HUM_NYQUIST * fs and out.any():
                hum[out] = np.maximum(hum[out], np.exp(level[out]))
        return hum

    def _clipped(
        self, rows: NDArray[np.intp], cut: NDArray[np.bool_], extremes: NDArray[np.float32], height: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """Return where ``(R, 12)`` peaks again and again end in a plateau at one level."""
        cuts = np.maximum(self._cuts[:, rows] - 1, 0)
        side, pair = np.nonzero(cut)
        if len(side):
            at, edge = (side, pair // len(LEADS), pair % len(LEADS)), extremes[side, pair]
            of = side, rows[at[1]], at[2]
            known = np.abs(edge - self._cut_at[of]) <= _CUT_LEVEL * height[pair]
            cuts[at] = np.minimum(np.where(known, cuts[at] + 1, 0) + _CUT_STEP, _CUT_MOST)
            self._cut_at[of] = edge
        self._cuts[:, rows] = cuts
        clipped: NDArray[np.bool_] = np.maximum(cuts[0], cuts[1]) >= _CUT_FROM
        return clipped


@cache
def _probes(length: int, fs: float) -> NDArray[np.float32]:
    """Return ``(2, F, n)`` a cosine and a sine per frequency of :data:`_HUM_HZ`, which under a Hann window measure mV."""
    t = np.arange(length) / fs
    bell = np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 2
    bell *= 2.0 / bell.sum()
    waves = np.array([[bell * wave(2.0 * np.pi * hz * t) for hz in _HUM_HZ] for wave in (np.cos, np.sin)])
    level: NDArray[np.float32] = (waves - bell * waves.sum(axis=2, keepdims=True) / bell.sum()).astype(np.float32)
    return level


@cache
def _interleaved(length: int, fs: float | None) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the probes as ``(n, 2 F)``, and which frequencies of mains can be measured."""
    below = np.array([fs is not None and hz < _HUM_NYQUIST * fs for hz in _HUM_HZ[:-1]])
    if fs is None:
        return np.empty((0, 2 * len(_HUM_HZ)), np.float32), below
    return np.ascontiguousarray(_probes(length, fs).reshape(2 * len(_HUM_HZ), length).T), below


def _edges(
    frame: NDArray[np.float32], extremes: NDArray[np.float32], height: NDArray[np.float32], mean: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Look at the samples of ``(n, P)`` near their extremes ``(2, P)``, given their height and mean ``(P,)``.

    Returns
    -------
    ``(P,)`` where much lies exactly on the largest or smallest value, and moves elsewhere, and ``(2, P)`` where they end on a
    side in a plateau of 10 ms or more, far from their mean, with steep flanks.
    """
    length = len(frame)
    far = (np.abs(mean - extremes) > _CUT_BASE * height) & (height > _SMALL_MV / 2)
    railed, wide = np.zeros(len(height), bool), height > _SMALL_MV
    for side, edge in enumerate(extremes):
        away = np.abs(frame - edge)
        railed |= wide & (np.abs(edge) > _SMALL_MV) & (_count(away == 0.0) > _RAIL_SHARE * length)
        if far[side].any():
            near = _count(away <= _CUT_NEAR * height)
            far[side] &= (near >= max(3, round(length / 30))) & (near >= _CUT_SHARE * _count(away <= _CUT_AROUND * height))
    return railed, far


def _count(where: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Count along the first axis, in bytes as long as these do not overflow."""
    counts = np.zeros(where.shape[1], np.int32)
    for start in range(0, len(where), 255):
        counts += np.add.reduce(where[start : start + 255].view(np.uint8), axis=0, dtype=np.uint8)
    return counts
