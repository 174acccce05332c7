"""The class of every beat: what looks unlike the bed's usual beat and comes early is ventricular.

In: conditioned frames ``(R, 12, FRAME)`` and the beats that :class:`~ecgnat_stream.beats.detector.QrsDetector` found in them.
Out: an AAMI EC57 class per beat.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.beats.detector import BeatFrame, rank
from ecgnat_stream.signal import FRAME, LEADS

__all__ = ["BeatClassifier"]

_KEPT = 4
"""Frames of signal kept per lead."""

_BEFORE, _AFTER = 18, 26
"""Samples before and after the R peak that make up a beat's shape (90 and 130 ms)."""

_SHAPE = _BEFORE + _AFTER


class BeatClassifier:
    """Streaming beat classes of all rows.

    Parameters
    ----------
    rows
        Number of rows (beds).
    """

    def __init__(self, rows: int) -> None:
        self._signal = np.zeros((rows, len(LEADS), _KEPT * FRAME), np.float32)
        self._usual = np.zeros((rows, _SHAPE), np.float32)
        self._lead = np.full(rows, -1, np.intp)
        self._beats = np.zeros(rows, np.int64)
        self._strange = np.zeros(rows, np.int64)
        self._rr = np.full(rows, 800.0)

    def reset(self, rows: NDArray[np.intp]) -> None:
        """Forget everything about ``rows``."""
        self._signal[rows] = 0.0
        self._beats[rows] = 0
        self._lead[rows] = -1
        self._rr[rows] = 800.0

    def process(
        self,
        rows: NDArray[np.intp],
        frames: NDArray[np.int64],
        y: NDArray[np.float32],
        sqi: NDArray[np.floating],
        beats: BeatFrame,
    ) -> NDArray[np.str_]:
        """Take one frame of each of ``rows``, and the beats found with it; return ``(B,)`` their classes.

        Parameters
        ----------
        rows, frames, y, sqi
            As :meth:`QrsDetector.process` took them.
        beats
            What it returned.
        """
        self._signal[rows] = np.concatenate([self._signal[rows][:, :, FRAME:], np.nan_to_num(y)], axis=2)
        labels = np.full(len(beats.row), "Q")
        first = np.zeros(len(self._rr), np.int64)
        first[rows] = (frames + 1 - _KEPT) * FRAME
        order = rank(beats.row)
        for turn in range(int(order.max(initial=-1)) + 1):
            of = np.flatnonzero(order == turn)
            row = beats.row[of]
            at = np.clip(beats.at[of] - first[row], _BEFORE, _KEPT * FRAME - _AFTER).astype(np.intp)
            shape = self._signal[row[:, None], beats.lead[of, None], at[:, None] + np.arange(-_BEFORE, _AFTER)]
            labels[of] = self._label(row, beats.lead[of], shape, beats.rr_ms[of])
        return labels

    def _label(
        self, row: NDArray[np.intp], lead: NDArray[np.intp], shape: NDArray[np.float32], rr_ms: NDArray[np.float64]
    ) -> NDArray[np.str_]:
        shape = shape - shape.mean(axis=1, keepdims=True)
        fresh = row[(self._lead[row] != lead) | (self._strange[row] > 10)]
        self._beats[fresh] = 0
        self._strange[fresh] = 0
        self._lead[row] = lead
        usual = self._usual[row]
        power, usual_power = np.square(shape).sum(axis=1), np.square(usual).sum(axis=1)
        alike = (shape * usual).sum(axis=1) / np.sqrt(np.maximum(power * usual_power, 1e-12))
        learning = self._beats[row] < 5
        early = np.where(np.isnan(rr_ms), 1.0, rr_ms / self._rr[row]) < 0.88
        ventricular = ~learning & ((alike < 0.5) | (early & (alike < 0.75)))
        learn = learning | (alike > 0.85)
        share = np.where(learn, np.maximum(0.125, 1.0 / (self._beats[row] + 1.0)), 0.0)[:, None]
        self._usual[row] = usual + share * (shape - usual)
        self._beats[row] += learn
        self._strange[row] = np.where(learn, 0, self._strange[row] + 1)
        step = np.clip(rr_ms, 0.6 * self._rr[row], 1.5 * self._rr[row]) - self._rr[row]
        self._rr[row] += np.where(np.isnan(rr_ms), 0.0, 0.125 * step)
        return np.where(learning, "Q", np.where(ventricular, "V", "N"))
