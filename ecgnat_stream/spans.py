"""Stretches of time out of events: which rhythm held, where the signal was unusable, how long each alarm was on.

Events of one bed go in as they were published; spans in s of its stream come out. The comparison with annotations, annotation
files and analyses all make their spans here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ecgnat_stream.codes import URGENCY, Priority
from ecgnat_stream.events import Alarm, Kind, Quality, Rhythm

__all__ = ["QUALITY_S", "AlarmSpan", "Onsets", "RhythmSpan", "alarm_spans", "rhythm_spans", "unusable_spans"]

QUALITY_S = 1.0
"""A quality event speaks of the second before it."""

_SINUS = ("SINUS", "SBRAD", "STACH")
"""Labels of one rhythm, which its rate tells apart."""


class RhythmSpan(NamedTuple):
    """A stretch that one label speaks for, and its mean probability there."""

    start_s: float
    stop_s: float
    label: str
    probability: float


class AlarmSpan(NamedTuple):
    """From the start of an alarm's condition, or its coming back, until it had ended or was only latched, in s of stream."""

    condition: str
    start_s: float
    stop_s: float
    priority: Priority
    kind: Kind
    lead: str | None = None


class Onsets:
    """Says from where on the label of each rhythm event of one bed holds.

    A rhythm that is found is dated back to where it began. What refines it later (sinus rhythm becomes bradycardia) holds since
    the event before: it tells of the rate, which was another one until then.
    """

    def __init__(self) -> None:
        self._rhythm: tuple[str, float] | None = None
        self._stop_s = self._lost_s = 0.0

    def start_of(self, event: Rhythm) -> float:
        """Return from where on the label of the next event holds, s."""
        rhythm = ("SINUS" if event.label in _SINUS else event.label, event.start_s)
        start_s = self._stop_s if rhythm == self._rhythm else max(event.start_s, self._lost_s)
        self._rhythm, self._stop_s = rhythm, event.stop_s
        if event.label == "UNKNOWN" and not event.probabilities:  # the link was lost: no rhythm is known to go on across it
            self._lost_s = event.stop_s
        return start_s


def rhythm_spans(events: Iterable[Rhythm]) -> list[RhythmSpan]:
    """Return the stretch of every label, in order, disjoint.

    A rhythm that is found takes back what was said of the time before it was found; a refined label does not.
    """
    onsets = Onsets()
    spans: list[RhythmSpan] = []
    for event in events:
        start_s = onsets.start_of(event)
        if event.stop_s <= start_s:
            continue
        said = RhythmSpan(start_s, event.stop_s, event.label, event.probability)
        while spans and spans[-1].start_s >= start_s:
            spans.pop()
        if spans and spans[-1].stop_s > start_s:
            spans[-1] = spans[-1]._replace(stop_s=start_s)
        if spans and spans[-1].label == event.label and spans[-1].stop_s == start_s:
            spans[-1] = _joined(spans[-1], said)
        else:
            spans.append(said)
    return spans


def _joined(first: RhythmSpan, second: RhythmSpan) -> RhythmSpan:
    lengths = first.stop_s - first.start_s, second.stop_s - second.start_s
    mean = (first.probability * lengths[0] + second.probability * lengths[1]) / sum(lengths)
    return RhythmSpan(first.start_s, second.stop_s, first.label, mean)


def unusable_spans(events: Iterable[Quality], length_s: float) -> list[tuple[float, float]]:
    """Return the stretches of a stream of this length, in order, in which nothing could be decided from the signal.

    A hole of which nothing was said is one of them.
    """
    spans: list[tuple[float, float]] = []
    said_s: float | None = None
    for event in events:
        if event.at_s is None or event.reason == "ended" or event.at_s > length_s:
            continue
        start_s = max(0.0, event.at_s - QUALITY_S)
        if said_s is not None and start_s - said_s > QUALITY_S / 2:
            spans.append((said_s, start_s))
        said_s = event.at_s
        if event.usable:
            continue
        if spans and spans[-1][1] >= start_s:
            spans[-1] = spans[-1][0], event.at_s
        else:
            spans.append((start_s, event.at_s))
    return spans


def alarm_spans(events: Iterable[Alarm], end_s: float) -> list[AlarmSpan]:
    """Turn alarm events, in order, into the stretches in which each condition was present, with its highest priority.

    Parameters
    ----------
    end_s
        Where an alarm ends that nothing has ended, s.
    """
    open_: dict[tuple[str, str | None], AlarmSpan] = {}
    spans: list[AlarmSpan] = []
    for event in events:
        if event.at_s is None:
            continue
        key = (event.condition, event.lead)
        span = open_.get(key)
        if event.phase not in ("end", "reset") and event.presence != "latched":
            if span is None:
                open_[key] = AlarmSpan(event.condition, event.at_s, end_s, event.priority, event.kind, event.lead)
            elif URGENCY[event.priority] > URGENCY[span.priority]:
                open_[key] = span._replace(priority=event.priority)
        elif span is not None:
            spans.append(open_.pop(key)._replace(stop_s=event.at_s))
    return sorted([*spans, *open_.values()], key=lambda span: (span.start_s, span.condition))
