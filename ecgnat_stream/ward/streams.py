"""Where the streams of all beds stand: arrays over beds, so that a frame of all of them is looked at in one go.

Each bed writes its own place here as its blocks come; the ward reads them all. What is here is the truth about a bed's time, and
about the frames in which nothing happened to it: its alarm engine is told of those later, in one call.
"""

from __future__ import annotations

from math import isnan

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.signal import FRAME_S, LEADS

__all__ = ["NONE_AHEAD", "SCORES_KEPT", "Streams"]

SCORES_KEPT = 16
"""Fibrillation scores kept per bed: those an alarm engine looks at, and the newest."""

NONE_AHEAD = np.iinfo(np.int64).max
"""A sample beyond all others."""


class Streams:
    """One entry per row (bed).

    Parameters
    ----------
    rows
        Number of rows.
    now_ns
        Host monotonic time.

    Attributes
    ----------
    fs, pace
        Device rate in Hz, and the multiple of real time at which the stream comes.
    live
        Whether a source cannot wait.
    stop, last_ns
        The sample after the newest one, and the host monotonic time of the newest.
    gap_at, off_at
        The sample at which the next gap ends, and at which the device's word on its leads changes; :data:`NONE_AHEAD` for none.
    off
        ``(rows, 12)`` leads that the device calls disconnected, at the last frame that was worked on.
    states
        ``(rows, 12)`` quality states of the delivered leads in the last frame.
    waits
        Whether frames wait for the network, or its answer, which came too late for them, for the next frame.
    calm_until_s
        See :attr:`~ecgnat_stream.alarm.engine.AlarmEngine.calm_until_s`.
    frame, at_s
        The last frame that was judged, and the s of stream at its end.
    passed
        How many frames the alarm engine has not been told of.
    scores
        ``(rows, SCORES_KEPT)`` fibrillation scores, by frame number modulo :data:`SCORES_KEPT`.
    judged_ns, judged_s
        See :class:`~ecgnat_stream.ward.bed.Bed`.
    """

    def __init__(self, rows: int, now_ns: int) -> None:
        self.fs, self.pace = np.ones(rows), np.ones(rows)
        self.live = np.ones(rows, bool)
        self.stop = np.zeros(rows, np.int64)
        self.last_ns = np.full(rows, now_ns, np.int64)
        self.gap_at, self.off_at = np.full(rows, NONE_AHEAD), np.full(rows, NONE_AHEAD)
        self.off = np.zeros((rows, len(LEADS)), bool)
        self.states = np.full((rows, len(LEADS)), -1, np.int8)
        self.waits = np.zeros(rows, bool)
        self.calm_until_s = np.full(rows, -np.inf)
        self.frame = np.zeros(rows, np.int64)
        self.at_s = np.zeros(rows)
        self.passed = np.zeros(rows, np.int64)
        self.scores = np.full((rows, SCORES_KEPT), np.nan, np.float32)
        self.judged_ns = np.full(rows, now_ns, np.int64)
        self.judged_s = np.zeros(rows)

    def arrival_ns(self, rows: NDArray[np.intp], at_s: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the host's monotonic time of a place on each stream, as ``StreamInfo.clock_ns`` counts it."""
        fs = self.fs[rows]
        since_s = (self.stop[rows] - at_s * fs) / fs / self.pace[rows]
        return self.last_ns[rows] - np.rint(since_s * 1e9).astype(np.int64)

    def pass_over(
        self, rows: NDArray[np.intp], frames: NDArray[np.int64], at_s: NDArray[np.float64], last_ns: NDArray[np.int64]
    ) -> None:
        """Take note of a frame of each of ``rows`` in which nothing happened and that nothing waits for; its signal is judged.

        Parameters
        ----------
        at_s, last_ns
            ``(R,)`` the end of each frame, s of stream, and its host monotonic time.
        """
        self.frame[rows], self.at_s[rows] = frames, at_s
        self.passed[rows] += 1
        self.judged_ns[rows] = np.maximum(self.judged_ns[rows], last_ns)
        self.judged_s[rows] += FRAME_S / self.pace[rows]

    def passed_scores(self, row: int, most: int) -> list[float | None]:
        """Return the fibrillation scores of the frames that were passed over, at most the last ``most``, oldest first."""
        stop = int(self.frame[row]) + 1
        start = stop - min(int(self.passed[row]), most)
        kept = self.scores[row].tolist()
        scores = [kept[frame % SCORES_KEPT] for frame in range(start, stop)]
        return [None if isnan(score) else score for score in scores]
