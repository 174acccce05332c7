"""What looking ahead makes of the first seconds of a recording: classes of the first beats, the rhythm from the first sample on.

A monitor that has just been connected has nothing to compare beats with and calls the first ones "Q"; it names a rhythm after
5 s. Whoever has the whole recording need not wait: the classifier goes through the first seconds again with what it has learned
there, and the windows that saw the beginning say which rhythm it was. The events stay as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.beats import BeatClassifier, BeatFrame
from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.config import Config
from ecgnat_stream.model import Prediction, Predictor
from ecgnat_stream.rhythm import RhythmTimeline, label_text
from ecgnat_stream.signal import FRAME, FS, LEADS, MODEL_FS, Conditioned, Window
from ecgnat_stream.spans import RhythmSpan
from ecgnat_stream.ward import FrameResult

__all__ = ["Beginning"]

_KEPT_S = 30.0
"""Signal that is gone through again: 20 beats, over which a shape settles, at 40 bpm."""

_LEAST_BEATS = 3
"""Fewer do not say what is usual."""

_LEAST_SIGNAL_S = 2.0
"""Half of what sinus rhythm is decided on; of less the network is not asked."""

_ROW = np.zeros(1, np.intp)


class _Frame(NamedTuple):
    """One frame of one bed: number, signal ``(12, FRAME)``, quality ``(12,)``, beats found, which of them are paced."""

    number: int
    y: NDArray[np.float32]
    sqi: NDArray[np.floating]
    usable: bool
    beats: BeatFrame
    paced: NDArray[np.bool_]


class Beginning:
    """Keeps the first seconds of one recording, while it goes through the ward."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._frames: list[_Frame] = []
        self._timeline = RhythmTimeline(1, config.rhythm)
        self._heard = False

    def see(self, step: FrameResult, i: int) -> None:
        """Take what the signal path found in the recording's frame, the ``i``-th of a step."""
        number = int(step.frames[i])
        if (number + 1) * FRAME > _KEPT_S * FS:
            return
        beats, quality = step.found.beats, step.found.quality
        own = beats.row == step.rows[i]
        mine = BeatFrame(np.zeros(own.sum(), np.intp), beats.at[own], beats.lead[own], beats.amplitude[own], beats.rr_ms[own])
        self._frames.append(
            _Frame(number, step.y[i].copy(), quality.sqi[i].copy(), bool(quality.usable[i]), mine, step.found.paced[own])
        )

    def hear(self, window: Window, answer: Prediction, i: int) -> None:
        """Take the network's answer to one window."""
        self._heard |= window.decides
        if window.stop <= (self._config.rhythm.history_s - 1.0) * MODEL_FS:
            start = window.start if answer.covers is None else window.reach - answer.covers
            self._add(start, window.reach, answer, i)

    def _add(self, start: int, stop: int, answer: Prediction, i: int) -> None:
        said = answer.rhythm[i : i + 1]
        self._timeline.add(_ROW, np.array([start]), np.array([stop]), said, answer.token_s, edges=not answer.once)

    def classes(self, used_as: Sequence[str | None]) -> list[str]:
        """Return the classes of the first beats, in the order in which they were found, by what was learned from all of them."""
        delivered = np.isin(LEADS, [lead for lead in used_as if lead])
        classifier = BeatClassifier(1)
        labels = self._go_through(classifier, delivered)
        if classifier.seen(_ROW)[0] < _LEAST_BEATS:
            return labels
        while True:
            learned = classifier.has_learned(_ROW)[0]
            labels = self._go_through(classifier, delivered)
            if learned:
                return labels

    def _go_through(self, classifier: BeatClassifier, delivered: NDArray[np.bool_]) -> list[str]:
        classifier.rewind(_ROW)
        labels: list[str] = []
        for frame in self._frames:
            sqi = (frame.sqi * delivered)[None]
            labels += classifier.process(_ROW, np.array([frame.number]), frame.y[None], sqi, frame.beats, frame.paced).tolist()
        return labels

    def rhythm(
        self, said: Sequence[RhythmSpan], rate_bpm: float | None, length_s: float, predictor: Predictor
    ) -> list[RhythmSpan]:
        """Return the stretches of rhythm from the first to the last sample.

        Parameters
        ----------
        said
            What the monitor said.
        rate_bpm
            Heart rate of the beginning.
        predictor
            Asked once more if the recording ended before its first window.
        """
        spans = list(said)
        if not self._heard:
            spans = [self._one_window(rate_bpm, predictor)]
        elif spans:
            spans = [*self._before(spans[0], rate_bpm), *spans]
        if len(spans) > 1 and spans[0].label == spans[1].label and spans[0].stop_s == spans[1].start_s:
            spans[:2] = [RhythmSpan(spans[0].start_s, spans[1].stop_s, spans[1].label, spans[1].probability)]
        if spans and spans[-1].stop_s < length_s <= spans[-1].stop_s + self._config.schedule.hop_s:
            spans[-1] = spans[-1]._replace(stop_s=length_s)
        return spans

    def _one_window(self, rate_bpm: float | None, predictor: Predictor) -> RhythmSpan:
        """Ask the network about a recording that is shorter than what the first window waits for."""
        length_s = len(self._frames) * FRAME / FS
        if length_s < _LEAST_SIGNAL_S:
            return RhythmSpan(0.0, length_s, "UNKNOWN", 0.0)
        signal = np.concatenate([frame.y for frame in self._frames], axis=1)[:, :: FS // MODEL_FS]
        whole = round(self._config.schedule.window_s * MODEL_FS)
        window = np.full((1, len(LEADS), whole), np.nan, np.float32)
        window[0, :, whole - signal.shape[1] :] = signal
        at = np.concatenate([frame.beats.at for frame in self._frames]) * MODEL_FS / FS + whole - signal.shape[1]
        beats = np.sort(at)[None].astype(np.float32) if len(at) else np.full((1, 1), np.nan, np.float32)
        self._timeline.reset(_ROW)
        self._add(signal.shape[1] - whole, signal.shape[1], predictor.predict(Conditioned(window, MODEL_FS), beats), 0)
        decision = self._timeline.decide(_ROW, np.array([self._frames[-1].usable]))
        (label,) = decision.names
        return RhythmSpan(0.0, length_s, label_text(label, rate_bpm), float(decision.probability[0]))

    def _before(self, first: RhythmSpan, rate_bpm: float | None) -> list[RhythmSpan]:
        """Return the stretch before the first label, with the class that most of the windows' answers there have."""
        stop_s = float(self._timeline.stop_s(_ROW)[0])
        if first.start_s <= 0.0 or not stop_s:
            return []
        mean, known = self._timeline.recent(_ROW, stop_s)
        there = known[0, : round(first.start_s * FS / FRAME)]
        if not there.any():
            return []
        average = mean[0, : len(there)][there].mean(axis=0)
        best = int(average.argmax())
        if average[best] < self._config.rhythm.enter:
            return []
        label = label_text(RHYTHMS[best], rate_bpm)
        return [RhythmSpan(0.0, first.start_s, label, float(average[best]))]
