"""Quality stage: how far each lead can be trusted, and whether anything can be decided from a bed.

In: raw and conditioned frames ``(R, 12, ...)`` and what the device says about its electrodes. Out: :class:`QualityFrame`. Two
questions are asked of every lead. Is QRS detection on it right? The answer is a probability, the index. Is it noise that would
hide any rhythm? That alone makes a lead unusable: fibrillation has no QRS complex to detect, but is no noise, and a quiet line
with the noise of a working input is asystole, not a fault; only an exactly constant one is flat.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.compiled import kernels_wanted
from ecgnat_stream.quality.contact import ContactCheck
from ecgnat_stream.quality.features import FEATURES, Features, layers, shipped_weights, weigh
from ecgnat_stream.settings import Settings, Within
from ecgnat_stream.signal import LEADS

__all__ = ["STATES", "QualityConfig", "QualityEstimator", "QualityFrame"]

STATES = ("good", "noisy", "motion", "mains", "clipped", "saturated", "flat", "off", "missing")
"""Names of the codes in :attr:`QualityFrame.state`, as in ``events.LeadState``."""

_GOOD, _NOISY, _MOTION, _MAINS, _CLIPPED, _SATURATED, _FLAT, _OFF, _MISSING = range(len(STATES))
_TRUSTED = np.array([state in ("good", "mains", "clipped") for state in STATES])
"""States in which something can be decided from a lead: the notch removes hum, and a cut peak is still a beat."""

_SETTLED = 10
"""Frames (2 s) that a lead is seen before its index counts in full."""

_CREDIT = 0.8
"""Index of a lead of which nothing is known yet."""

_HARMLESS_MV = 0.05

_SMALL_QRS_MV = 0.15
"""Noise cannot hide a heart beat while its RMS above 2.5 Hz is below the first, that of a wave of 0.15 mV peak to peak, or while
in 60 % of the time not even a wave of the second is there: the smallest QRS complex that IEC 60601-2-27 wants detected. So a
quiet line with wander under it or single artefacts in it, as in asystole, stays usable."""

_QUIET = FEATURES.index("peak 60 %")
_CALM = 0.1
"""How far below ``max_noise`` the noise of a noisy lead must fall again."""

_SWING_KEPT = 0.8
"""Share of the largest swing that is left after each frame."""

_MOTION_FROM = 0.0
"""Log of power below over power above 2.5 Hz from which a noise is that of motion."""

_AT_ONCE = 256
"""Beds measured at a time, so that what is computed stays in the processor's cache."""

_HOLD = 1.25
"""How much better another lead must be to take over as the best one."""

_ORDER = np.array([LEADS.index(lead) for lead in ("II", "V5", "V2", "I", "V1", "V3", "V4", "V6", "aVF", "III", "aVR", "aVL")])
"""Leads in order of preference at equal quality."""


class QualityConfig(Settings, frozen=True, kw_only=True):
    """When a lead is not to be trusted.

    Parameters
    ----------
    flat_s
        A lead constant for this long is flat.
    range_mv
        Peak-to-peak amplitude of the conditioned signal in one frame at which the index is halved.
    max_noise
        A lead is noise, and not usable, from this probability of noise until clearly below.
    mains_mv
        Amplitude of 50 or 60 Hz in the device's samples from which a lead is said to have mains hum.
    """

    section: ClassVar[str] = "quality"

    flat_s: Annotated[
        float, Within(0.4, 3, "shorter takes a baseline for a lead that is off, longer takes a lead that is off for asystole")
    ] = 1.0
    range_mv: Annotated[float, Within(4, 20, "below it a large QRS complex makes a lead unusable, above it no artefact does")] = (
        8.0
    )
    max_noise: Annotated[
        float,
        Within(
            0.5, 0.95, "below it clean signal is called noise, and nothing is found in noise; above it noise passes for signal"
        ),
    ] = 0.7
    mains_mv: Annotated[float, Within(0.005, 1, "below it every lead hums, above it none does")] = 0.05


@dataclass(frozen=True, slots=True)
class QualityFrame:
    """Quality of ``R`` beds in one frame.

    Parameters
    ----------
    sqi
        ``(R, 12)`` probability that QRS detection on this lead alone was right in the last 4 s; 0 for a lead without signal.
    state
        ``(R, 12)`` codes, indices into :data:`STATES`.
    usable
        ``(R,)`` whether something can be decided from at least one lead that is delivered.
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
    kernels
        Whether to use the compiled kernels; if left out, as :func:`~ecgnat_stream.compiled.kernels_wanted` says.
    """

    def __init__(self, rows: int, config: QualityConfig | None = None, kernels: bool | None = None) -> None:
        self.config = config or QualityConfig()
        self._weights = shipped_weights()
        self._kernels: ModuleType | None = None
        if kernels_wanted() if kernels is None else kernels:
            from ecgnat_stream.quality import kernels as compiled

            self._kernels = compiled
        self._contact = ContactCheck(rows, self.config.flat_s, self._kernels)
        self._features = Features(rows, self._kernels)
        self._swing = np.zeros((rows, len(LEADS)), np.float32)
        self._noisy = np.zeros((rows, len(LEADS)), bool)
        self._best = np.full(rows, -1, np.intp)

    def reset(self, rows: NDArray[np.intp]) -> None:
        """Forget everything about ``rows``."""
        self._contact.reset(rows)
        self._features.reset(rows)
        self._swing[rows] = 0.0
        self._noisy[rows] = False
        self._best[rows] = -1

    def process(
        self,
        rows: NDArray[np.intp],
        raw: NDArray[np.float32],
        y: NDArray[np.float32],
        lead_off: NDArray[np.bool_],
        fs: float | None = None,
        delivered: NDArray[np.bool_] | None = None,
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
        fs
            Rate of the device samples, Hz; without it mains hum is not looked for.
        delivered
            ``(R, 12)`` leads that the device delivers; all if left out. One that is derived from others makes nothing usable: it
            is quiet where noise is the same on both, and its electrodes may be off.
        """
        if delivered is None:
            delivered = np.ones(lead_off.shape, bool)
        if self._kernels is not None:
            return self._weigh_up(self._kernels, rows, raw, y, lead_off, fs, delivered)
        if len(rows) <= _AT_ONCE:
            return QualityFrame(*self._process(rows, raw, y, lead_off, fs, delivered))
        parts = [slice(start, start + _AT_ONCE) for start in range(0, len(rows), _AT_ONCE)]
        judged = [self._process(rows[part], raw[part], y[part], lead_off[part], fs, delivered[part]) for part in parts]
        sqi, state, usable, best = (np.concatenate(values) for values in zip(*judged, strict=True))
        return QualityFrame(sqi, state, usable, best)

    def _weigh_up(
        self,
        kernels: ModuleType,
        rows: NDArray[np.intp],
        raw: NDArray[np.float32],
        y: NDArray[np.float32],
        lead_off: NDArray[np.bool_],
        fs: float | None,
        delivered: NDArray[np.bool_],
    ) -> QualityFrame:
        rows, raw, y = np.ascontiguousarray(rows), np.ascontiguousarray(raw), np.ascontiguousarray(y)
        lead_off, delivered = np.ascontiguousarray(lead_off), np.ascontiguousarray(delivered)
        measured, span = self.measure(rows, y)
        contact = self._contact.process(rows, raw, span, fs)
        shape, config = span.shape, self.config
        sqi, state = np.empty(shape, np.float32), np.empty(shape, np.int8)
        usable, best = np.empty(len(rows), bool), np.empty(len(rows), np.intp)
        kernels.weigh_up(
            *(rows, measured.transpose(1, 2, 0), span, contact.missing, contact.flat, contact.saturated, contact.clipped),
            *(contact.hum_mv, lead_off, delivered, self._features.count, *layers(self._weights)),
            *(config.range_mv, config.max_noise, config.mains_mv, self._swing, self._noisy, self._best),
            *(sqi, state, usable, best),
        )
        return QualityFrame(sqi, state, usable, best)

    def _process(
        self,
        rows: NDArray[np.intp],
        raw: NDArray[np.float32],
        y: NDArray[np.float32],
        lead_off: NDArray[np.bool_],
        fs: float | None,
        delivered: NDArray[np.bool_],
    ) -> tuple[NDArray[np.float32], NDArray[np.int8], NDArray[np.bool_], NDArray[np.intp]]:
        measured, span = self.measure(rows, y)
        contact = self._contact.process(rows, raw, span, fs)
        there = ~np.isnan(span)
        sqi, noisy = self._judge(rows, measured, np.where(there, span, np.float32(0.0)), contact.missing)
        self._noisy[rows] = noisy & there
        moved = measured[0] - measured[1] > _MOTION_FROM
        state = np.zeros(there.shape, np.int8)
        for condition, code in (
            (contact.clipped, _CLIPPED),
            (contact.hum_mv > self.config.mains_mv, _MAINS),
            (noisy, _NOISY),
            (noisy & moved, _MOTION),
            (contact.saturated, _SATURATED),
            (contact.flat, _FLAT),
            (contact.missing, _MISSING),
            (lead_off, _OFF),
        ):
            np.copyto(state, np.int8(code), where=condition)
        np.copyto(sqi, np.float32(0.0), where=(state > _CLIPPED) | ~there)
        trusted = _TRUSTED[state] & there
        usable: NDArray[np.bool_] = np.logical_or.reduce(trusted & delivered, axis=1)
        return sqi, state, usable, self._choose(rows, np.where(trusted, sqi, np.float32(-1.0)))

    def measure(self, rows: NDArray[np.intp], y: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Take one frame ``(R, 12, FRAME)``; return ``(F, R, 12)`` what is weighed, see :data:`FEATURES`, and the amplitude."""
        return self._features.measure(rows, y)

    def _judge(
        self,
        rows: NDArray[np.intp],
        measured: NDArray[np.float32],
        span: NDArray[np.float32],
        missing: NDArray[np.bool_],
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the index and whether a lead is noise, ``(R, 12)``, with the size of the signal and how long it was seen."""
        if missing.any():
            right, noise = np.full((2, *missing.shape), np.float32(0.5))
            right[~missing], noise[~missing] = weigh(self._weights, measured[:, ~missing])
        else:
            right, noise = weigh(self._weights, measured)
        quiet = np.exp(measured[_QUIET]) / np.float32(_SMALL_QRS_MV)
        harm = np.minimum(np.exp(measured[1]) / np.float32(_HARMLESS_MV**2), np.square(quiet))
        seen = np.minimum(self._features.count[rows] / np.float32(_SETTLED), np.float32(1.0))
        self._swing[rows] = swing = np.maximum(span, _SWING_KEPT * self._swing[rows])
        within = np.float32(1.0) / (1.0 + np.square(np.square(swing / np.float32(self.config.range_mv))))
        calm = (1.0 - np.minimum(harm, 1.0) * seen * noise) * within
        noisy = calm < 1.0 - self.config.max_noise + np.where(self._noisy[rows], _CALM, 0.0)
        index = (_CREDIT + seen * (right - _CREDIT)) * within
        return index.astype(np.float32), noisy

    def _choose(self, rows: NDArray[np.intp], score: NDArray[np.float32]) -> NDArray[np.intp]:
        """Return the best lead per row; the one in use stays until another is clearly better."""
        used = self._best[rows]
        with_hold = score.copy()
        held = np.flatnonzero(used >= 0)
        with_hold[held, used[held]] *= _HOLD
        best = np.where(score.max(axis=1) > 0, _ORDER[with_hold[:, _ORDER].argmax(axis=1)], -1)
        self._best[rows] = best
        return best
