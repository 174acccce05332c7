"""The monitor's alarms against the annotated episodes: found in time, missed, false, and for how long they were on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from ecgnat_stream.alarm.config import ALARM_WITHIN_S
from ecgnat_stream.alarm.picture import COVERED_BY
from ecgnat_stream.score.spans import Span, merge, overlaps, shared_s, total_s
from ecgnat_stream.score.truth import Truth
from ecgnat_stream.spans import AlarmSpan

__all__ = ["NEAR_S", "EpisodeReport", "false_s", "found_episodes", "verdict"]

NEAR_S = 10.0
"""An alarm is not false if the condition is annotated within so much of the time it was on."""


_ARREST = ("ventricular-tachycardia", "ventricular-fibrillation", "asystole")


def _says(condition: str) -> tuple[str, ...]:
    """The alarms that tell of a condition: its own, and those that cover it."""
    return (condition, *COVERED_BY.get(condition, ()))


class EpisodeReport(msgspec.Struct, frozen=True):
    """An annotated episode, and how long after its onset an alarm was on.

    ``alarm_after_s`` is for the condition's alarm or one that covers it, ``any_high_after_s`` for any alarm of high priority:
    None where none was on between the onset and the later of the episode's end and 10 s after the onset; 0: it was on already.
    """

    condition: str
    start_s: float
    stop_s: float
    required: bool
    alarm_after_s: float | None
    any_high_after_s: float | None


def found_episodes(truth: Truth, alarms: Sequence[AlarmSpan]) -> list[EpisodeReport]:
    """Say for every episode whether, and how long after its onset, it was alarmed."""
    rows = []
    for condition, episodes in truth.episodes.items():
        own = [a for a in alarms if a.condition in _says(condition)]
        high = [a for a in alarms if a.priority == "high" and a.kind == "physiological"]
        for episode in episodes:
            after, any_after = _after_s(episode.start_s, episode.stop_s, own), _after_s(episode.start_s, episode.stop_s, high)
            places = (round(episode.start_s, 2), round(episode.stop_s, 2))
            rows.append(EpisodeReport(condition, *places, episode.required, after, any_after))
    return rows


def _after_s(start_s: float, stop_s: float, alarms: Iterable[AlarmSpan]) -> float | None:
    last_s = max(stop_s, start_s + ALARM_WITHIN_S)
    hits = [max(a.start_s, start_s) - start_s for a in alarms if a.start_s <= last_s and a.stop_s > start_s]
    return round(min(hits), 2) if hits else None


def verdict(truth: Truth, alarm: AlarmSpan) -> str:
    """Judge one alarm: "true", "false", "other" (false, but within another annotated high-priority episode) or "unjudged".

    True: the condition, or one that covers it, is annotated within :data:`NEAR_S` of the time it was on.
    """
    if alarm.kind != "physiological":
        return "technical"
    span = (alarm.start_s, alarm.stop_s)
    if overlaps(span, _due(truth, alarm.condition)):
        return "true"
    if alarm.condition not in truth.stated or overlaps(span, truth.possible.get(alarm.condition, ()), NEAR_S):
        return "unjudged"
    return "other" if any(overlaps(span, truth.spans(condition), NEAR_S) for condition in _ARREST) else "false"


def false_s(truth: Truth, alarm: AlarmSpan) -> float:
    """Return for how long an alarm was on farther than :data:`NEAR_S` from what is annotated; 0 where that is not judged."""
    if alarm.kind != "physiological" or alarm.condition not in truth.stated:
        return 0.0
    unjudged = [(start - NEAR_S, stop + NEAR_S) for start, stop in truth.possible.get(alarm.condition, ())]
    span = (alarm.start_s, alarm.stop_s)
    return total_s([span]) - shared_s([span], merge([*_due(truth, alarm.condition), *unjudged]))


def _due(truth: Truth, condition: str) -> list[Span]:
    """Return where an alarm of this condition is right."""
    return merge((start - NEAR_S, stop + NEAR_S) for name in _says(condition) for start, stop in truth.spans(name))
