"""Spans of events: what the monitor said at each moment, dated back where a rhythm was found, not where it was refined."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgnat_stream.codes import RHYTHMS, Codes
from ecgnat_stream.events import Alarm, Quality, Rhythm, Timing
from ecgnat_stream.spans import AlarmSpan, alarm_spans, rhythm_spans, unusable_spans

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def rhythm(label: str, start_s: float, stop_s: float, probability: float = 1.0, *, lost: bool = False) -> Rhythm:
    return Rhythm(
        bed="a/b/c", time=NOW, at_s=stop_s, label=label, text=label, probability=probability,
        probabilities={} if lost else dict.fromkeys(RHYTHMS, 0.0), start_s=start_s, stop_s=stop_s, window_start=0,
        window_stop=1, codes=Codes(), timing=Timing(0, 0, 0, 0),
    )  # fmt: skip


def quality(at_s: float, usable: bool, reason: str = "") -> Quality:
    return Quality(bed="a/b/c", time=NOW, at_s=at_s, leads={}, usable=usable, best_lead=None, reason=reason)


def alarm(at_s: float, phase: Any, presence: Any = "on", priority: Any = "high", lead: str | None = None) -> Alarm:
    return Alarm(
        bed="a/b/c", time=NOW, at_s=at_s, condition="asystole", kind="physiological", priority=priority, phase=phase,
        presence=presence, text="", sequence=1, alarm_id="1", event_id="1", lead=lead,
    )  # fmt: skip


def spans(*events: Rhythm) -> list[tuple[float, float, str]]:
    return [span[:3] for span in rhythm_spans(events)]


def test_a_rhythm_takes_back_what_was_said_of_the_time_before_it_was_found() -> None:
    said = [
        rhythm("SINUS", 0, 5),
        rhythm("SINUS", 0, 10),
        rhythm("VT", 8, 12),
        rhythm("VF", 7, 13),
        rhythm("SINUS", 7, 14),
    ]
    assert spans(*said[:3]) == [(0, 8, "SINUS"), (8, 12, "VT")]
    assert spans(*said[:4]) == [(0, 7, "SINUS"), (7, 13, "VF")]
    assert spans(*said) == [(0, 14, "SINUS")]


def test_a_refined_label_begins_when_it_is_first_said() -> None:
    said = [rhythm("SINUS", 1, 5), rhythm("SBRAD", 1, 6), rhythm("SBRAD", 1, 7), rhythm("SINUS", 1, 8), rhythm("STACH", 1, 9)]
    assert spans(*said) == [(1, 5, "SINUS"), (5, 7, "SBRAD"), (7, 8, "SINUS"), (8, 9, "STACH")]
    assert spans(*said, rhythm("AF", 7.5, 10), rhythm("SBRAD", 7, 11)) == [(1, 5, "SINUS"), (5, 11, "SBRAD")]


def test_a_rhythm_that_is_refined_from_the_first_is_dated_back_as_any_other() -> None:
    assert spans(rhythm("AF", 0, 10), rhythm("SBRAD", 8, 12)) == [(0, 8, "AF"), (8, 12, "SBRAD")]


def test_no_decision_ends_the_rhythm_and_a_lost_link_is_not_dated_over() -> None:
    gone = [rhythm("AF", 0, 10), rhythm("UNKNOWN", 11, 11), rhythm("UNKNOWN", 11, 12)]
    assert spans(*gone) == [(0, 10, "AF"), (11, 12, "UNKNOWN")]
    assert spans(*gone, rhythm("SINUS", 9, 13)) == [(0, 9, "AF"), (9, 13, "SINUS")]
    lost = rhythm("UNKNOWN", 10, 10, 0.0, lost=True)
    assert spans(rhythm("AF", 0, 9), lost, rhythm("SINUS", 0, 60)) == [(0, 9, "AF"), (10, 60, "SINUS")]


def test_the_probability_of_a_span_is_the_mean_over_its_time() -> None:
    assert rhythm_spans([rhythm("AF", 0, 8, 0.5), rhythm("AF", 0, 10, 1.0)])[0].probability == pytest.approx(0.6)


@given(st.lists(st.tuples(st.sampled_from(("SINUS", "SBRAD", "STACH")), st.integers(1, 3)), min_size=1, max_size=40))
def test_within_one_rhythm_the_spans_say_at_each_moment_what_the_events_said(said: list[tuple[str, int]]) -> None:
    events, at_s = [], 4.0
    for label, step in said:
        at_s += step
        events.append(rhythm(label, 2.0, at_s))
    found = rhythm_spans(events)
    for before, event in zip([2.0, *(event.stop_s for event in events)], events, strict=False):
        for moment in (before, (before + event.stop_s) / 2, event.stop_s - 1e-6):
            assert [span.label for span in found if span.start_s <= moment < span.stop_s] == [event.label]


def test_unusable_seconds_are_joined_and_the_end_of_a_recording_is_none() -> None:
    said = [
        quality(1, True),
        quality(2, False),
        quality(3, False),
        quality(4, True),
        quality(6, False),
        quality(6, False, "ended"),
    ]
    assert unusable_spans(said, 10) == [(1, 3), (4, 6)]  # nothing was said of the fifth second
    assert unusable_spans(said, 5) == [(1, 3)]
    assert unusable_spans([quality(6, False, "ended")], 10) == []


def test_an_alarm_is_on_until_it_ends_or_is_only_latched() -> None:
    events = [alarm(1, "start"), alarm(3, "continue"), alarm(5, "update", "latched"), alarm(9, "update"), alarm(12, "end", "off")]
    assert [(s.start_s, s.stop_s) for s in alarm_spans(events, 20)] == [(1, 5), (9, 12)]
    assert [
        (s.start_s, s.stop_s, s.priority) for s in alarm_spans([alarm(1, "start", priority="low"), alarm(2, "escalate")], 20)
    ] == [(1, 20, "high")]


def test_alarms_of_one_condition_on_two_leads_are_two() -> None:
    events = [alarm(1, "start", lead="II"), alarm(2, "start", lead="V1"), alarm(3, "end", "off", lead="II")]
    assert alarm_spans(events, 9) == [
        AlarmSpan("asystole", 1, 3, "high", "physiological", "II"),
        AlarmSpan("asystole", 2, 9, "high", "physiological", "V1"),
    ]
