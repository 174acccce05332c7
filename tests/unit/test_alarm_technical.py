"""Technical conditions: found in the signal, or reported by a stage."""

from __future__ import annotations

from datetime import UTC, datetime

from ecgnat_stream.alarm.config import AlarmConfig
from ecgnat_stream.alarm.engine import AlarmEngine
from ecgnat_stream.alarm.picture import PHYSIOLOGICAL, Finding, Observation
from ecgnat_stream.alarm.technical import TECHNICAL, SignalWatch, reported
from ecgnat_stream.events import Technical

TIME = datetime(2026, 1, 1, tzinfo=UTC)
Leads = tuple[tuple[str, str], ...]


def watch(frames: list[tuple[bool, Leads, float]]) -> list[list[Finding]]:
    """Return what is found at the end of every frame of 0.2 s."""
    watcher = SignalWatch(AlarmConfig())
    return [
        watcher.watch(Observation(at_s=(k + 1) * 0.2, usable=usable, leads=leads, gap_s=gap_s), k * 0.2)
        for k, (usable, leads, gap_s) in enumerate(frames)
    ]


def last(usable: bool, leads: Leads, seconds: float) -> list[tuple[str, str, str | None]]:
    result = watch([(usable, leads, 0.0)] * round(seconds * 5))[-1]
    return [(finding.condition, finding.priority, finding.lead) for finding in result]


def test_a_good_signal_finds_nothing() -> None:
    assert last(True, (), 60) == []


def test_a_lead_off_is_low_while_another_lead_carries_on() -> None:
    assert last(True, (("V1", "off"),), 1.8) == []
    assert last(True, (("V1", "off"),), 2.0) == [("leads-off", "low", "V1")]


def test_no_usable_lead_is_medium_and_names_every_lead() -> None:
    result = watch([(False, (("II", "off"), ("V1", "off")), 0.0)] * 20)[-1]
    assert [(finding.condition, finding.priority) for finding in result] == [("leads-off", "medium")]
    assert "II, V1" in result[0].text


def test_noise_says_which_lead_and_why_and_grows_in_urgency() -> None:
    leads = (("II", "noisy"), ("V1", "saturated"))
    assert last(False, leads, 2.8) == []
    assert last(False, leads, 3.0) == [("noise", "low", "II")]
    assert last(False, leads, 15.0) == [("noise", "medium", "II")]
    assert "II noisy, V1 saturated" in watch([(False, leads, 0.0)] * 20)[-1][0].text


def test_missing_values_are_named_as_such() -> None:
    assert last(False, (("II", "missing"),), 4.0) == [("signal-missing", "medium", "II")]


def test_an_unusable_signal_without_a_reason_is_reported_too() -> None:
    assert last(False, (), 4.0) == [("noise", "low", None)]


def test_a_gap_is_shown_for_ten_seconds_and_short_ones_are_not() -> None:
    frames: list[tuple[bool, Leads, float]] = [(True, (), 0.0)] * 5 + [(True, (), 1.4)] + [(True, (), 0.0)] * 60
    counts = [len(findings) for findings in watch(frames)]
    assert sum(counts) == 50
    assert counts[5] == 1
    finding = watch(frames)[5][0]
    assert (finding.condition, finding.priority, finding.text) == ("gap", "low", "signal was lost: 1.4 s")
    assert sum(len(findings) for findings in watch([(True, (), 0.3)] * 3)) == 0


def test_a_stage_reports_and_the_priority_is_given_here() -> None:
    for condition, about in TECHNICAL.items():
        finding = reported(Technical(bed="", time=TIME, condition=condition, present=True, detail="why"))
        assert (finding.kind, finding.priority) == ("technical", about.priority)
        assert finding.text == f"{about.text}: why"
    assert reported(Technical(bed="", time=TIME, condition="fan-stopped", present=True)).priority == "medium"


def test_no_name_is_both_technical_and_physiological() -> None:
    assert not set(TECHNICAL) & set(PHYSIOLOGICAL)


def test_lost_alarms_are_urgent_and_a_failed_publisher_is_not() -> None:
    assert TECHNICAL["alarms-lost"].priority == "high"
    assert TECHNICAL["publisher-failed"].priority == "medium"


def test_what_several_parts_have_noticed_ends_with_the_last_of_them() -> None:
    engine = AlarmEngine("")

    def report(source: str, present: bool, detail: str = "") -> list[tuple[str, str]]:
        event = Technical(bed="", time=TIME, condition="alarms-lost", present=present, detail=detail, source=source)
        return [(alarm.phase, alarm.text) for alarm in engine.technical(event, 0)]

    lost = "alarm events are being lost"
    assert report("history", True, "disk full") == [("start", f"{lost}: disk full")]
    assert report("mqtt", True, "broker away") == [("update", f"{lost}: disk full; broker away")]
    assert report("mqtt", True, "broker away") == [], "nothing new"
    assert report("history", False) == [("update", f"{lost}: broker away")]
    assert report("zmq", False) == [], "it never had it"
    assert report("mqtt", False) == [("end", f"{lost}: broker away")]
    assert report("mqtt", False) == []
