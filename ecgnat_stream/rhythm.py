"""From overlapping window predictions to one rhythm per bed.

In come the network's probabilities per token of each window; they are averaged on a fixed grid of 0.2 s frames, counted from the
stream's first sample. Out goes the present rhythm, smoothed so that it does not flicker, and the seconds of every class that the
alarm rules count. Everything depends on stream time only. Frames older than ``history_s`` are overwritten; a frame that no window
covers stays without an opinion. The stretch at both ends of a window, where the network lacks context, weighs less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.settings import Settings, Within
from ecgnat_stream.signal import FRAME, FRAME_S, FS, MODEL_FS, TOKEN_S

__all__ = ["UNKNOWN", "RhythmConfig", "RhythmDecision", "RhythmTimeline", "label_text"]

UNKNOWN = -1
"""Label index that stands for "no decision"."""

SINUS_BRADYCARDIA_BPM = 60.0
SINUS_TACHYCARDIA_BPM = 100.0
"""Limits of the normal sinus rate (AHA/ACC/HRS bradycardia and supraventricular tachycardia guidelines)."""

_FRAME_SAMPLES = FRAME * MODEL_FS // FS
_EVIDENCE_S = {"SINUS": 4.0, "AF": 8.0, "SVT": 4.0, "VT": 2.4, "VF": 2.4, "ASYSTOLE": 3.0, "PACED": 5.0, "NOISE": 3.0}
_URGENT = np.array([name in ("VT", "VF", "ASYSTOLE") for name in RHYTHMS])


class RhythmConfig(Settings, frozen=True, kw_only=True):
    """How predictions become the present rhythm.

    Parameters
    ----------
    history_s
        Seconds kept per bed, at least two hops more than a window, and than 10 s.
    edge_s, edge_weight
        A token at the very end of its window weighs ``edge_weight``, rising linearly to 1 at ``edge_s`` from the end.
    enter, leave
        Mean probability above which a class may become the rhythm, and below which the present one is given up; then
        ``leave + margin`` is enough for the next. The mean is over the last seconds: 2.4 s for VT and VF, 3 s for asystole and
        noise, 4 s for sinus and SVT, 5 s for paced, 8 s for AF.
    margin
        By how much a new class must beat the present one.
    hold_s
        Shortest time that a rhythm is kept, in s, unless VT, VF or asystole takes over from another one.
    blind_s
        Unusable signal up to this length leaves the rhythm as it is; longer, it is unknown.
    """

    section: ClassVar[str] = "rhythm"

    history_s: Annotated[
        float, Within(8, 600, "the rhythms need up to 8 s of evidence, and more than minutes only take memory")
    ] = 20.0
    edge_s: Annotated[float, Within(0, 5, "the network lacks context at the edges of a window only")] = 0.96
    edge_weight: Annotated[float, Within(0.01, 1, "with none, the newest frames would have no opinion")] = 0.25
    enter: Annotated[float, Within(0.2, 0.95, "below it a guess is a rhythm, beyond it hardly any window is one")] = 0.5
    leave: Annotated[float, Within(0, 0.95, "it is a probability, not above enter")] = 0.25
    margin: Annotated[float, Within(0, 0.5, "with more no class could take over")] = 0.1
    hold_s: Annotated[float, Within(0, 10, "a rhythm that is over would be shown for longer")] = 3.0
    blind_s: Annotated[float, Within(0, 5, "a rhythm that nobody sees would be shown for longer")] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.leave > self.enter:
            raise ConfigError(f"rhythm.leave = {self.leave:g} is above rhythm.enter = {self.enter:g}: a rhythm would never stay")


@dataclass(frozen=True, slots=True)
class RhythmDecision:
    """The present rhythm of some beds, one entry per row asked for.

    Parameters
    ----------
    label
        ``(R,)`` index into ``codes.RHYTHMS``, or :data:`UNKNOWN`.
    probability
        ``(R,)`` mean probability of that class over its evidence span; 0 for unknown.
    probabilities
        ``(R, C)`` the same for every class.
    start_s, stop_s
        ``(R,)`` seconds of stream since when the label holds, and up to where predictions reach.
    """

    label: NDArray[np.int8]
    probability: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    start_s: NDArray[np.float64]
    stop_s: NDArray[np.float64]

    @property
    def names(self) -> list[str]:
        """The labels as keys of ``codes.RHYTHM_TEXTS``."""
        return [RHYTHMS[index] if index >= 0 else "UNKNOWN" for index in self.label.tolist()]


class RhythmTimeline:
    """Averaged class probabilities of many beds on the frame grid, and the decision over them.

    Parameters
    ----------
    rows
        Number of beds.
    config
        Smoothing.
    """

    def __init__(self, rows: int, config: RhythmConfig | None = None) -> None:
        self.config = config or RhythmConfig()
        self._capacity = round(self.config.history_s / FRAME_S)
        self._sum = np.zeros((rows, self._capacity, len(RHYTHMS)), np.float32)
        self._weight = np.zeros((rows, self._capacity), np.float32)
        self._stop = np.zeros(rows, np.int64)
        self._label = np.full(rows, UNKNOWN, np.int8)
        self._since = np.zeros(rows, np.int64)
        self._switched = np.zeros(rows, np.int64)
        self._usable_at = np.zeros(rows, np.int64)
        self._spread_of: dict[tuple[int, int, int, float, bool], NDArray[np.float32]] = {}

    def reset(self, rows: NDArray[np.intp]) -> None:
        """Forget these beds, for example when a new session begins at sample 0."""
        self._sum[rows] = 0
        self._weight[rows] = 0
        self._label[rows] = UNKNOWN
        for state in (self._stop, self._since, self._switched, self._usable_at):
            state[rows] = 0

    def add(
        self,
        rows: NDArray[np.intp],
        starts: NDArray[np.int64],
        stops: NDArray[np.int64],
        probs: NDArray[np.float32],
        token_s: float = TOKEN_S,
        edges: bool = True,
    ) -> None:
        """Take predictions, each row at most once per call.

        Parameters
        ----------
        rows
            ``(R,)``.
        starts, stops
            ``(R,)`` the windows, in model-rate samples since the stream began; no opinion is taken beyond ``stop``.
        probs
            ``(R, P, C)`` per token; token p speaks for ``[p, p + 1) * token_s`` of its window. Tokens that are not finite are
            left out.
        edges
            Whether the network lacked context at both ends, so that these weigh less. Not if it goes token by token.

        Raises
        ------
        ValueError
            If a window is longer than the history, or the shapes disagree.
        """
        if probs.ndim != 3 or probs.shape[0] != len(rows) or probs.shape[2] != len(RHYTHMS):
            raise ValueError(f"expected probabilities ({len(rows)}, P, {len(RHYTHMS)}), got {probs.shape}")
        phases, lengths = starts % _FRAME_SAMPLES, stops - starts
        if len(rows) and int((lengths + phases).max()) > (self._capacity - 1) * _FRAME_SAMPLES:
            raise ValueError(f"a window of {int(lengths.max())} samples does not fit a history of {self.config.history_s} s")
        for phase, length in sorted(set(zip(phases.tolist(), lengths.tolist(), strict=True))):
            same = np.flatnonzero((phases == phase) & (lengths == length))
            spread = self._spread(phase, length, probs.shape[1], token_s, edges)
            self._accumulate(rows[same], starts[same] // _FRAME_SAMPLES, probs[same], spread)

    def _accumulate(
        self, rows: NDArray[np.intp], first: NDArray[np.int64], probs: NDArray[np.float32], spread: NDArray[np.float32]
    ) -> None:
        stop = np.maximum(self._stop[rows], first + spread.shape[0])
        newest = stop[:, None] - 1
        frame_in_slot = newest - (newest - np.arange(self._capacity)) % self._capacity
        stale = frame_in_slot >= self._stop[rows, None]
        self._weight[rows] *= ~stale
        self._sum[rows] *= ~stale[:, :, None]
        self._stop[rows] = stop
        frames = first[:, None] + np.arange(spread.shape[0])
        kept = frames >= stop[:, None] - self._capacity
        finite = np.isfinite(probs).all(axis=2, keepdims=True)
        weighted = np.concatenate((np.where(finite, probs, 0.0), finite), axis=2).astype(np.float32)
        moved = np.matmul(spread, weighted) * kept[:, :, None]
        slots = frames % self._capacity
        self._sum[rows[:, None], slots] += moved[:, :, :-1]
        self._weight[rows[:, None], slots] += moved[:, :, -1]

    def _spread(self, phase: int, length: int, tokens: int, token_s: float, edges: bool) -> NDArray[np.float32]:
        """Return the ``(F, P)`` share of every token in every frame that the window touches."""
        key = (phase, length, tokens, token_s, edges)
        if key not in self._spread_of:
            frame = np.arange((phase + length + _FRAME_SAMPLES - 1) // _FRAME_SAMPLES)[:, None] * _FRAME_SAMPLES - phase
            begin = np.arange(tokens) * token_s * MODEL_FS
            end = np.minimum(begin + token_s * MODEL_FS, length)
            overlap = np.clip(np.minimum(frame + _FRAME_SAMPLES, end) - np.maximum(frame, begin), 0.0, None)
            middle = (begin + end) / 2
            distance_s = np.minimum(middle, length - middle) / MODEL_FS
            low = self.config.edge_weight if edges else 1.0
            weight = low + (1 - low) * np.clip(distance_s / max(self.config.edge_s, 1e-9), 0.0, 1.0)
            self._spread_of[key] = (overlap * weight / _FRAME_SAMPLES).astype(np.float32)
        return self._spread_of[key]

    def recent(self, rows: NDArray[np.intp], span_s: float) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the averaged probabilities ``(R, F, C)`` of the last ``span_s``, oldest first, and which frames have any."""
        count = max(1, round(span_s / FRAME_S))
        if count > self._capacity:
            raise ValueError(f"{span_s=} is more than the history of {self.config.history_s} s")
        frames = self._stop[rows, None] - count + np.arange(count)
        slots = frames % self._capacity
        weight = self._weight[rows[:, None], slots]
        known = (weight > 0) & (frames >= 0)
        mean = self._sum[rows[:, None], slots] / np.where(known, weight, 1.0)[:, :, None]
        return np.where(known[:, :, None], mean, np.float32(0.0)).astype(np.float32), known

    def seconds(self, rows: NDArray[np.intp], span_s: float) -> NDArray[np.float64]:
        """Return ``(R, C)``: how many of the last ``span_s`` have each class as their most probable one."""
        mean, known = self.recent(rows, span_s)
        top = mean.argmax(axis=2)
        hits = (top[:, :, None] == np.arange(len(RHYTHMS))) & known[:, :, None]
        return np.asarray(np.round(hits.sum(axis=1) * FRAME_S, 3), np.float64)

    def stop_s(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return ``(R,)``: up to where on the stream predictions reach, s."""
        return np.asarray(self._stop[rows] * FRAME_S, np.float64)

    def decide(self, rows: NDArray[np.intp], usable: NDArray[np.bool_] | None = None) -> RhythmDecision:
        """Return the present rhythm; call it once per hop, after :meth:`add`.

        Parameters
        ----------
        rows
            ``(R,)``.
        usable
            ``(R,)`` whether the signal quality allows a decision now; None: it does.
        """
        config = self.config
        stop = self._stop[rows]
        scores = self._scores(rows)
        each = np.arange(len(rows))
        usable_now = np.ones(len(rows), np.bool_) if usable is None else usable
        usable_at = np.where(usable_now, stop, self._usable_at[rows])
        blind = ~usable_now & (stop - usable_at > round(config.blind_s / FRAME_S))
        current = self._label[rows]
        current_score = np.where(current >= 0, scores[each, current], 0.0)
        best = scores.argmax(axis=1).astype(np.int8)
        held = stop - self._switched[rows] >= round(config.hold_s / FRAME_S)
        lost = current_score < config.leave
        needed = np.maximum(np.where(lost, config.leave + config.margin, config.enter), current_score + config.margin)
        enter = (best != current) & (scores[each, best] >= needed)
        enter &= held | (_URGENT[best] & ~_URGENT[current]) | (current == UNKNOWN)
        give_up = ~enter & held & lost
        label = np.where(enter, best, current)
        label = np.where(give_up | blind, UNKNOWN, label).astype(np.int8)
        changed = label != current
        spans = np.array([round(_EVIDENCE_S[name] / FRAME_S) for name in RHYTHMS])
        begun = np.where(label >= 0, np.maximum(stop - spans[label], 0), stop)
        self._label[rows] = label
        self._since[rows] = np.where(changed, begun, self._since[rows])
        self._switched[rows] = np.where(changed, stop, self._switched[rows])
        self._usable_at[rows] = usable_at
        probability = np.where(label >= 0, scores[each, label], 0.0).astype(np.float32)
        start_s = np.asarray(self._since[rows] * FRAME_S, np.float64)
        return RhythmDecision(label, probability, scores, start_s, self.stop_s(rows))

    def _scores(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return ``(R, C)``: every class's mean over its evidence span; 0 where less than half of the span is known."""
        mean, known = self.recent(rows, max(_EVIDENCE_S.values()))
        scores = np.zeros((len(rows), len(RHYTHMS)), np.float32)
        for index, name in enumerate(RHYTHMS):
            count = round(_EVIDENCE_S[name] / FRAME_S)
            have = known[:, -count:].sum(axis=1)
            total = mean[:, -count:, index].sum(axis=1)
            scores[:, index] = np.where(2 * have >= count, total / np.maximum(have, 1), 0.0)
        return scores


def label_text(label: str, heart_rate_bpm: float | None) -> str:
    """Return the key of ``codes.RHYTHM_TEXTS`` to show: sinus rhythm is refined by its rate, everything else stays as it is."""
    if label == "SINUS" and heart_rate_bpm is not None:
        if heart_rate_bpm < SINUS_BRADYCARDIA_BPM:
            return "SBRAD"
        if heart_rate_bpm > SINUS_TACHYCARDIA_BPM:
            return "STACH"
    return label
