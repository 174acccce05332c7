"""Quality stage: how far each lead can be trusted, and whether anything can be decided from a bed.

In: raw and conditioned frames ``(R, 12, ...)`` and what the device says about its electrodes. Out: :class:`QualityFrame`. The
index weighs how strong and how steady a signal is in four bands over the last 3 s: an ECG is quick in bursts and calm between
them, fibrillation is slow and narrow-band, muscle quick all the time, wander and electrode motion slower still. A quiet line
with the noise of a working input is asystole, not a fault; only an exactly constant one is flat.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.signal import FRAME_S, LEADS

__all__ = ["STATES", "QualityConfig", "QualityEstimator", "QualityFrame"]

STATES = ("good", "noisy", "flat", "saturated", "off", "missing")
"""Names of the codes in :attr:`QualityFrame.state`, as in ``events.LeadQuality``."""

_GOOD, _NOISY, _FLAT, _SATURATED, _OFF, _MISSING = range(len(STATES))
_RAILED = 3
"""Frames at a rail, less those without, that make a lead saturated; up to four times as many are counted."""

_MEMORY = 15
"""Frames (3 s) that the running means look back."""

_SETTLED = 10
"""Frames (2 s) that a lead is seen before its index counts in full."""

_FLOOR = np.array([0.02, 0.02, 0.004, 0.004], np.float32)[:, None, None] ** 2
"""Powers below which a signal is quiet, mV^2: IEC 60601-2-27 allows a monitor 30 uV peak to peak of its own."""

_LEVEL = (2.08, -3.61, 0.61, 1.83)
_BURST = (-0.44, -0.25, 0.72, -2.19)
_OFFSET = 13.0
"""Log-odds of noise: weights of the four levels and their burstiness, and the odds at zero. Logistic regression on training
records, ``tests/bench/bench_quality.py --fit``; the offset is 0.6 below the fitted one, in favour of the heart."""

_HARMLESS_MV = 0.05
"""RMS above 2.5 Hz below which noise cannot hide a heart beat: that of a wave of 0.15 mV peak to peak, the smallest QRS complex
that IEC 60601-2-27 wants detected. So a quiet line with wander under it, as in asystole, stays usable."""

_CALM = 0.1
"""How far above ``min_sqi`` the index of a noisy lead must rise again."""

_SWING_KEPT = 0.8
"""Share of the largest swing that is left after each frame."""

_RAIL_SHARE = 0.4
"""Share of device samples at one extreme value that means saturation."""

_SMALL_MV = 1.0
"""No signal this small about zero is at a rail; the check is for constant stretches of large amplitude."""

_QUIET_MV = 1e-4
"""Peak-to-peak below which a frame is constant: 0.1 uV, less than one step of any ECG converter."""

_HOLD = 1.25
"""How much better another lead must be to take over as the best one."""

_ORDER = np.array([LEADS.index(lead) for lead in ("II", "V5", "V2", "I", "V1", "V3", "V4", "V6", "aVF", "III", "aVR", "aVL")])
"""Leads in order of preference at equal quality."""


class QualityConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a lead is not to be trusted.

    Parameters
    ----------
    flat_s
        A lead constant for this long is flat.
    range_mv
        Peak-to-peak amplitude of the conditioned signal in one frame at which the index is halved.
    min_sqi
        A lead below this index is noisy and not usable, until it is clearly above.
    """

    flat_s: float = 1.0
    range_mv: float = 8.0
    min_sqi: float = 0.3


@dataclass(frozen=True, slots=True)
class QualityFrame:
    """Quality of ``R`` beds in one frame.

    Parameters
    ----------
    sqi
        ``(R, 12)`` index 0..1.
    state
        ``(R, 12)`` codes, indices into :data:`STATES`.
    usable
        ``(R,)`` whether at least one lead is good.
    best
        ``(R,)`` the best lead's index, -1 for none.
    """

    sqi: NDArray[np.float32]
    state: NDArray[np.int8]
    usable: NDArray[np.bool_]
    best: NDArray[np.intp]


class QualityEstimator:
    """Streaming signal quality of all rows.

    Parameters
    ----------
    rows
        Number of rows (beds).
    """

    def __init__(self, rows: int, config: QualityConfig | None = None) -> None:
        self.config = config or QualityConfig()
        shape = (rows, len(LEADS))
        self._mean = np.zeros((8, *shape), np.float32)
        self._count = np.zeros(shape, np.int32)
        self._swing = np.zeros(shape, np.float32)
        self._noisy = np.zeros(shape, bool)
        self._still = np.zeros(shape, np.int32)
        self._railed = np.zeros(shape, np.int32)
        self._best = np.full(rows, -1, np.intp)

    def reset(self, rows: NDArray[np.intp]) -> None:
        """Forget everything about ``rows``."""
        for state in (self._count, self._swing, self._noisy, self._still, self._railed):
            state[rows] = 0
        self._best[rows] = -1

    def process(
        self, rows: NDArray[np.intp], raw: NDArray[np.float32], y: NDArray[np.float32], lead_off: NDArray[np.bool_]
    ) -> QualityFrame:
        """Judge one frame of each of ``rows``.

        Parameters
        ----------
        rows
            ``(R,)`` different rows.
        raw
            ``(R, 12, n)`` the device samples behind the frame, mV, NaN where missing.
        y
            ``(R, 12, FRAME)`` the conditioned frame, mV.
        lead_off
            ``(R, 12)`` what the device itself reports as disconnected.
        """
        config = self.config
        top, bottom = _extremes(raw)
        high, low = _extremes(y)
        absent, missing, span = np.isnan(top), np.isnan(high), high - low
        still = np.where(absent, span, top - bottom) < _QUIET_MV
        self._still[rows] = np.where(still & ~missing, self._still[rows] + 1, 0)
        railed = self._railed[rows] + np.where(_at_rail(raw, top, bottom), 1, -1)
        self._railed[rows] = railed = np.clip(railed, 0, 4 * _RAILED)
        sqi = self._index(rows, y, np.where(missing, np.float32(0.0), span))
        noisy = sqi < np.where(self._noisy[rows], config.min_sqi + _CALM, config.min_sqi)
        self._noisy[rows] = noisy & ~missing
        state = np.where(noisy, _NOISY, _GOOD)
        for condition, code in (
            (railed >= _RAILED, _SATURATED),
            (self._still[rows] * FRAME_S >= config.flat_s, _FLAT),
            (missing & absent, _MISSING),
            (lead_off, _OFF),
        ):
            state = np.where(condition, code, state)
        sqi = np.where((state <= _NOISY) & ~missing, sqi, np.float32(0.0))
        good = (state == _GOOD) & ~missing
        return QualityFrame(sqi, state.astype(np.int8), good.any(axis=1), self._choose(rows, np.where(good, sqi, -1.0)))

    def measure(self, rows: NDArray[np.intp], y: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take one frame ``(R, 12, FRAME)`` into the running means; return ``(8, R, 12)`` what the index weighs.

        Four levels (log of the mean power of frame mean, rest, first and second difference: to 2.5 Hz, above, and the quicker the
        more), and how bursty each of the four is: log of the mean over mean of the log, 0 for a steady power.
        """
        power = _powers(y) + _FLOOR
        whole = ~np.isnan(power[0])
        count = np.minimum(self._count[rows] + whole, _MEMORY)
        self._count[rows] = np.where(np.isnan(y[:, :, 0]) & np.isnan(y[:, :, -1]), 0, count)
        now = np.concatenate([power, np.log(power)])
        mean: NDArray[np.float32] = self._mean[:, rows]
        gain = np.float32(1.0) / np.maximum(count, 1).astype(np.float32)
        mean = np.where(whole, mean + gain * (now - mean), np.where(count > 0, mean, np.float32(0.0)))
        self._mean[:, rows] = mean
        level = np.log(np.maximum(mean[:4], _FLOOR))
        return np.concatenate([level, level - mean[4:]])

    def _index(self, rows: NDArray[np.intp], y: NDArray[np.float32], span: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the quality index ``(R, 12)`` from what was measured and from the amplitude of the last frames."""
        score = np.full(span.shape, _OFFSET, np.float32)
        measured = self.measure(rows, y)
        for weight, part in zip((*_LEVEL, *_BURST), measured, strict=True):
            score += np.float32(weight) * part
        harm = np.minimum(np.exp(measured[1]) / np.float32(_HARMLESS_MV**2), np.float32(1.0))
        noise = (
            harm
            * np.minimum(self._count[rows] / np.float32(_SETTLED), np.float32(1.0))
            / (1.0 + np.exp(-np.clip(score, -30.0, 30.0)))
        )
        self._swing[rows] = swing = np.maximum(span, _SWING_KEPT * self._swing[rows])
        index: NDArray[np.float32] = (1.0 - noise) / (1.0 + (swing / np.float32(self.config.range_mv)) ** 4)
        return index.astype(np.float32)

    def _choose(self, rows: NDArray[np.intp], score: NDArray[np.float32]) -> NDArray[np.intp]:
        """Return the best lead per row; the one in use stays until another is clearly better."""
        used = self._best[rows]
        with_hold = score.copy()
        held = np.flatnonzero(used >= 0)
        with_hold[held, used[held]] *= _HOLD
        best = np.where(score.max(axis=1) > 0, _ORDER[with_hold[:, _ORDER].argmax(axis=1)], -1)
        self._best[rows] = best
        return best


def _extremes(raw: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the largest and smallest of each lead's samples that are there, NaN for none."""
    top: NDArray[np.float32] = np.fmax.reduce(raw, axis=2)
    bottom: NDArray[np.float32] = np.fmin.reduce(raw, axis=2)
    return top, bottom


def _at_rail(raw: NDArray[np.float32], top: NDArray[np.float32], bottom: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Say where much of a frame lies exactly on its own largest or smallest value, and moves elsewhere."""
    wide = np.argwhere(top - bottom > _SMALL_MV)
    out = np.zeros(top.shape, bool)
    row, lead = wide[:, 0], wide[:, 1]
    part = raw[row, lead]
    share = np.maximum((part == top[row, lead, None]).mean(axis=1), (part == bottom[row, lead, None]).mean(axis=1))
    out[row, lead] = share > _RAIL_SHARE
    return out


def _powers(y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``(4, R, 12)`` the squared mean of each frame, its variance, and the power of its first and second difference."""
    step = y[:, :, 1:] - y[:, :, :-1]
    bend = step[:, :, 1:] - step[:, :, :-1]
    low = np.square(y.mean(axis=2))
    return np.stack([low, np.maximum(_power(y) - low, 0.0), _power(step), _power(bend)])


def _power(y: NDArray[np.float32]) -> NDArray[np.float32]:
    power: NDArray[np.float32] = np.einsum("rlt,rlt->rl", y, y) / np.float32(y.shape[2])
    return power
