"""What of one bed's past the rules need: from one observation per frame to the picture at its end.

Everything is bounded in stream time: beats by a minute, fibrillation scores and the network's opinion by seconds. A stretch
that cannot be judged makes the rules begin anew, unless it is short, as where a radio link loses a block now and then; only
ventricular beats are counted across it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import inf, isfinite

from ecgnat_stream.alarm.config import AlarmConfig
from ecgnat_stream.alarm.ectopy import irregularity
from ecgnat_stream.alarm.picture import HELD_SCORE, MINUTE_S, BeatMark, Evidence, Observation, Picture, pvc_per_min
from ecgnat_stream.alarm.rules import HYSTERESIS_BPM, ROUNDING_S, STALE_S, calm_until_s

__all__ = ["CALM_SCORE", "Past"]

BLIND_S = 1.0
"""Unusable or lost signal up to this length does not break a run of beats; longer, everything is judged anew."""

SCORE_FRAMES = 15
"""The fibrillation score is averaged over so many frames (3 s); a frame without one counts as none."""

CALM_SCORE = 0.39
"""No rule looks at fibrillation scores that are all below this."""


class Past:
    """The past of one bed.

    Parameters
    ----------
    config
        Limits: what is beyond its limit is timed here.
    """

    def __init__(self, config: AlarmConfig) -> None:
        self._config = config
        self.reset()

    def reset(self) -> None:
        """Forget everything: another stream begins, or the device was lost."""
        self._since_s: float | None = None
        self._blind_since_s: float | None = None
        self._clear_since_s = 0.0
        self._leads: tuple[tuple[str, str], ...] = ()
        self._beats: tuple[BeatMark, ...] = ()
        self._ventricular: tuple[BeatMark, ...] = ()
        self._earlier: tuple[BeatMark, ...] = ()
        self._irregularity: float | None = None
        self._scores: deque[float | None] = deque(maxlen=SCORE_FRAMES)
        self._score_since_s: float | None = None
        self._rhythm: Evidence | None = None
        self._high_since_s: float | None = None
        self._low_since_s: float | None = None
        self._af_since_s: float | None = None
        self._svt_since_s: float | None = None

    def picture(self, observation: Observation, before_s: float, present: frozenset[str] = frozenset()) -> Picture:
        """Take one observation, which begins at ``before_s``; return what is known at its end, ``present`` being on."""
        at_s = observation.at_s
        if observation.gap_s > BLIND_S:
            self._break()
        self._see(observation, before_s)
        before = self._beats
        if observation.beats and self._since_s is not None:
            self._beats = _last_minute(self._beats, at_s) + observation.beats
        self._rate(observation.heart_rate_bpm, before_s, present)
        self._hear(observation.rhythm, at_s, before_s)
        score = self._score(observation.fibrillation, before_s, present)
        if self._beats is not before:
            self._ventricular = tuple([beat for beat in self._beats if beat.label == "V"])
            self._irregularity = irregularity(self._beats)
        return Picture(
            at_s=at_s,
            since_s=self._since_s,
            clear_since_s=self._clear_since_s,
            attached=observation.usable or any(state not in ("off", "missing") for _, state in observation.leads),
            beats=self._beats,
            pvc_per_min=pvc_per_min(self._earlier, at_s) + pvc_per_min(self._ventricular, at_s),
            irregularity=self._irregularity,
            heart_rate_bpm=observation.heart_rate_bpm,
            rhythm=self._rhythm,
            fibrillation=score,
            fibrillation_since_s=self._score_since_s,
            high_since_s=self._high_since_s,
            low_since_s=self._low_since_s,
            af_since_s=self._af_since_s,
            svt_since_s=self._svt_since_s,
            present=present,
        )

    def calm_until_s(self, picture: Picture) -> float:
        """Return until when frames need no picture of their own, see :func:`~ecgnat_stream.alarm.rules.calm_until_s`."""
        if any(score is not None and score > CALM_SCORE for score in self._scores):
            return -inf
        return calm_until_s(picture, self._config)

    @property
    def heard_until_s(self) -> float:
        """Until when the network's opinion lasts, s of stream; endless where there is none that could become stale."""
        return inf if self._rhythm is None else self._rhythm.stop_s + STALE_S - ROUNDING_S

    def takes_calmly(self, rhythm: Evidence, at_s: float) -> bool:
        """Return whether an opinion of the network changes nothing but what is remembered of it."""
        is_new = at_s < rhythm.stop_s + STALE_S - ROUNDING_S
        return is_new and rhythm.calm and self._af_since_s is None and self._svt_since_s is None

    def pass_over(self, scores: Iterable[float | None], rhythm: Evidence | None = None) -> None:
        """Take note of frames in which nothing happened, by their fibrillation scores, and of an opinion that changes nothing."""
        self._scores.extend(scores)
        if rhythm is not None and any(rhythm.seconds):
            self._rhythm = rhythm

    def _break(self) -> None:
        """Begin to judge anew: what comes next does not follow on the beats so far."""
        if self._ventricular:
            self._earlier = _last_minute(self._earlier, self._ventricular[-1].at_s) + self._ventricular
        self._since_s, self._irregularity = None, None
        self._beats = self._ventricular = ()

    def _see(self, observation: Observation, before_s: float) -> None:
        # A line that goes flat after a heartbeat, with no lead reported off, is asystole until someone knows better.
        flat = bool(self._beats and observation.leads) and all(state == "flat" for _, state in observation.leads)
        if not observation.usable or observation.leads != self._leads:
            self._clear_since_s, self._leads = observation.at_s, observation.leads
        if observation.usable or flat:
            self._blind_since_s = None
            if self._since_s is None:
                self._since_s = before_s
            return
        if self._blind_since_s is None:
            self._blind_since_s = before_s
        if observation.at_s - self._blind_since_s > BLIND_S:
            self._break()

    def _hear(self, rhythm: Evidence | None, at_s: float, before_s: float) -> None:
        """Take the network's opinion, if it has one; drop it once it is stale."""
        if rhythm is not None and any(rhythm.seconds):
            self._rhythm = rhythm
            self._af_since_s = None if rhythm.label != "AF" else before_s if self._af_since_s is None else self._af_since_s
            self._svt_since_s = None if rhythm.label != "SVT" else before_s if self._svt_since_s is None else self._svt_since_s
        if self._rhythm is not None and not at_s - self._rhythm.stop_s <= STALE_S:
            self._rhythm = self._af_since_s = self._svt_since_s = None

    def _score(self, score: float | None, before_s: float, present: frozenset[str]) -> float | None:
        """Take a fibrillation score; return the mean of the last ones, None while there was none at all."""
        self._scores.append(score if score is not None and isfinite(score) else None)
        known = [value for value in self._scores if value is not None]
        mean = sum(known) / SCORE_FRAMES if known else None
        enough = HELD_SCORE if "ventricular-fibrillation" in present else self._config.vf_score
        if mean is None or not mean > enough:
            self._score_since_s = None
        elif self._score_since_s is None:
            self._score_since_s = before_s
        return mean

    def _rate(self, bpm: float | None, before_s: float, present: frozenset[str]) -> None:
        high_bpm = self._config.hr_high_bpm - (HYSTERESIS_BPM if "tachycardia" in present else 0.0)
        low_bpm = self._config.hr_low_bpm + (HYSTERESIS_BPM if "bradycardia" in present else 0.0)
        if bpm is None or not bpm > high_bpm:
            self._high_since_s = None
        elif self._high_since_s is None:
            self._high_since_s = before_s
        if bpm is None or not bpm < low_bpm:
            self._low_since_s = None
        elif self._low_since_s is None:
            self._low_since_s = before_s


def _last_minute(beats: tuple[BeatMark, ...], at_s: float) -> tuple[BeatMark, ...]:
    start = 0
    while start < len(beats) and beats[start].at_s <= at_s - MINUTE_S:
        start += 1
    return beats[start:] if start else beats
