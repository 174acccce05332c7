"""Quality stage: how far each lead can be trusted, and whether anything can be decided from a bed.

In: raw and conditioned frames ``(R, 12, ...)`` and what the device says about its electrodes. Out: :class:`QualityFrame`. A quiet
line with the noise of a working input is asystole, not a fault; only an exactly constant one is flat. Fibrillation is slow
and is not noise; noise is what lies above the band of the QRS complex, or far outside any ECG's amplitude.
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
_LOOK_BACK = 6
"""Frames (1.2 s) looked back: at 50 beats per minute and above, one of them holds a QRS complex and one does not."""

_FAST_GAIN = 0.82
"""Gain of the second difference at 30 Hz, the middle of what muscle noise leaves between QRS band and low-pass."""

_RAIL_SHARE = 0.4
"""Share of device samples at one extreme value that means saturation."""

_SMALL_MV = 1.0
"""No signal this small about zero is at a rail; the check is for constant stretches of large amplitude."""

_QUIET_MV = 1e-4
"""Peak-to-peak below which a frame is constant: 0.1 uV, less than one step of any ECG converter."""

_NOISE_FLOOR_MV = 0.02
"""High-frequency RMS that is never called noise: IEC 60601-2-27 allows a monitor 30 uV peak to peak of its own."""


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
    noise_ratio
        RMS about 30 Hz between the beats, over RMS of the whole signal, at which the index falls to 0.5.
    range_mv
        Peak-to-peak amplitude of the conditioned signal at which the index falls to 0.5.
    min_sqi
        A lead below this index is noisy and not usable.
    """

    flat_s: float = 1.0
    noise_ratio: float = 0.35
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
        self._fast = np.zeros((*shape, _LOOK_BACK), np.float32)
        self._whole = np.zeros((*shape, _LOOK_BACK), np.float32)
        self._swing = np.zeros((*shape, _LOOK_BACK), np.float32)
        self._still = np.zeros(shape, np.int32)
        self._railed = np.zeros(shape, np.int32)
        self._turn = np.zeros(rows, np.intp)
        self._best = np.full(rows, -1, np.intp)

    def reset(self, rows: NDArray[np.intp]) -> None:
        """Forget everything about ``rows``."""
        for state in (self._fast, self._whole, self._swing, self._still, self._railed, self._turn):
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
        missing, absent = np.isnan(y).all(axis=2), np.isnan(raw).all(axis=2)
        top, bottom = _extremes(raw)
        still = np.where(absent, _range(y) < _QUIET_MV, top - bottom < _QUIET_MV)
        self._still[rows] = np.where(still & ~missing, self._still[rows] + 1, 0)
        self._railed[rows] = np.where(_at_rail(raw, top, bottom), self._railed[rows] + 1, np.maximum(self._railed[rows] - 1, 0))
        self._railed[rows] = np.minimum(self._railed[rows], 2 * _LOOK_BACK)
        sqi = self._index(rows, np.where(np.isnan(y), np.float32(0.0), y))
        flat = self._still[rows] * FRAME_S >= config.flat_s
        state = np.where(sqi < config.min_sqi, _NOISY, _GOOD)
        lost = missing & absent
        for condition, code in (
            (self._railed[rows] >= _LOOK_BACK // 2, _SATURATED),
            (flat, _FLAT),
            (lost, _MISSING),
            (lead_off, _OFF),
        ):
            state = np.where(condition, code, state)
        sqi = np.where((state <= _NOISY) & ~missing, sqi, np.float32(0.0))
        good = (state == _GOOD) & ~missing
        return QualityFrame(sqi, state.astype(np.int8), good.any(axis=1), self._choose(rows, np.where(good, sqi, -1.0)))

    def _index(self, rows: NDArray[np.intp], y: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the quality index ``(R, 12)`` from the last frames: noise between the beats, and amplitude."""
        turn = self._turn[rows]
        self._turn[rows] = (turn + 1) % _LOOK_BACK
        bend = y[:, :, 2:] - 2.0 * y[:, :, 1:-1] + y[:, :, :-2]
        self._fast[rows, :, turn] = _rms(bend) / _FAST_GAIN
        self._whole[rows, :, turn] = _rms(y)
        self._swing[rows, :, turn] = _range(y)
        noise = np.maximum(self._fast[rows].min(axis=2) - _NOISE_FLOOR_MV, 0.0)
        ratio = noise / np.maximum(self._whole[rows].max(axis=2), _NOISE_FLOOR_MV)
        swing = self._swing[rows].max(axis=2)
        index: NDArray[np.float32] = 1.0 / (
            (1.0 + (ratio / self.config.noise_ratio) ** 4) * (1.0 + (swing / self.config.range_mv) ** 4)
        )
        return index

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


def _range(y: NDArray[np.float32]) -> NDArray[np.float32]:
    span: NDArray[np.float32] = np.fmax.reduce(y, axis=2) - np.fmin.reduce(y, axis=2)
    return span


def _rms(y: NDArray[np.float32]) -> NDArray[np.float32]:
    rms: NDArray[np.float32] = np.sqrt(np.einsum("rlt,rlt->rl", y, y) / y.shape[2])
    return rms
