"""The signal stages of all beds, one frame at a time: quality, beats, fibrillation. Conditioned frames in, findings out.

What needs no network is here, batched over beds. A bed's findings depend on its own samples only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.beats import BeatClassifier, BeatFrame, HeartRate, QrsDetector
from ecgnat_stream.condition import Spikes
from ecgnat_stream.config import Config
from ecgnat_stream.fibrillation import FibrillationDetector
from ecgnat_stream.quality import STATES, QualityEstimator, QualityFrame
from ecgnat_stream.signal import FS

__all__ = ["Findings", "Stages"]

_CONTACT = np.array([state not in ("off", "flat", "saturated", "clipped", "missing") for state in STATES])
"""Whether a lead in each state of quality shows how the heart moves, however badly."""

_CAPTURE = round(0.15 * FS), round(0.01 * FS)
"""A beat is paced when a spike lies so many samples before its R peak, or so few behind: a paced QRS complex is wide."""

_SPIKES_KEPT = 4
"""Pacing spikes remembered per bed: more than fall between an R peak and the time when its beat is decided on."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What one frame of ``R`` beds shows.

    Parameters
    ----------
    quality
        Per lead and bed.
    beats, labels
        QRS complexes, and the AAMI EC57 class of each.
    heart_rate_bpm
        ``(R,)``, NaN for none.
    fibrillation
        ``(R,)`` score 0..1, NaN for none.
    """

    quality: QualityFrame
    beats: BeatFrame
    labels: NDArray[np.str_]
    heart_rate_bpm: NDArray[np.float64]
    fibrillation: NDArray[np.float32]


class Stages:
    """The signal stages of all rows.

    Parameters
    ----------
    rows
        Number of rows (beds).
    """

    def __init__(self, rows: int, config: Config) -> None:
        self._quality = QualityEstimator(rows, config.quality)
        self._detector = QrsDetector(rows, config.beats)
        self._classifier = BeatClassifier(rows)
        self._rate = HeartRate(rows)
        self._fibrillation = FibrillationDetector(rows, config.fibrillation)
        self._spikes = np.full((rows, _SPIKES_KEPT), -np.inf)

    def reset(self, rows: NDArray[np.intp]) -> None:
        """Forget everything about ``rows``: their signal begins afresh."""
        for stage in (self._quality, self._detector, self._classifier, self._rate, self._fibrillation):
            stage.reset(rows)
        self._spikes[rows] = -np.inf

    def process(
        self,
        rows: NDArray[np.intp],
        frames: NDArray[np.int64],
        fs: float,
        raw: NDArray[np.float32],
        y: NDArray[np.float32],
        off: NDArray[np.bool_],
        delivered: NDArray[np.bool_],
        spikes: Spikes,
    ) -> Findings:
        """Take one frame of each of ``rows``.

        Parameters
        ----------
        rows, frames
            ``(R,)`` different rows, and the frame number of each, one more than in the call before.
        fs, raw
            Device rate in Hz, and ``(R, 12, n)`` the device samples behind the frame, mV, NaN where missing.
        y
            ``(R, 12, FRAME)`` the conditioned frame, mV.
        off, delivered
            ``(R, 12)`` leads that the device calls disconnected, and those that it delivers.
        spikes
            The pacing spikes that conditioning took out of these frames.
        """
        quality = self._quality.process(rows, raw, y, off, fs)
        # A derived lead adds nothing to those it is derived from, and where they are equal it is noise alone.
        sqi = quality.sqi * delivered
        beats = self._detector.process(rows, frames, y, sqi)
        paced = self._paced(spikes, beats)
        return Findings(
            quality=quality,
            beats=beats,
            labels=self._classifier.process(rows, frames, y, sqi, beats, paced),
            heart_rate_bpm=self._rate.process(rows, frames, beats, quality.usable),
            fibrillation=self._fibrillation.process(rows, frames, y, _CONTACT[quality.state] & delivered).score,
        )

    def _paced(self, spikes: Spikes, beats: BeatFrame) -> NDArray[np.bool_]:
        """Take note of the spikes; return ``(B,)`` which beats follow one."""
        for row, at in zip(spikes.row.tolist(), spikes.at.tolist(), strict=True):
            self._spikes[row] = [*self._spikes[row, 1:], at]
        since = beats.at[:, None] - self._spikes[beats.row]
        followed: NDArray[np.bool_] = ((since <= _CAPTURE[0]) & (since >= -_CAPTURE[1])).any(axis=1)
        return followed
