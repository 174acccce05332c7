"""The alarm state machine: one story per test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ecgnat_stream.alarm.picture import Finding
from ecgnat_stream.alarm.state import AlarmMachine, Stamp
from ecgnat_stream.codes import Priority
from ecgnat_stream.events import Alarm

TIME = datetime(2026, 1, 1, tzinfo=UTC)
VF = Finding("ventricular-fibrillation", "physiological", "high", True, "ventricular fibrillation", 3.0)
TACHY = Finding("tachycardia", "physiological", "medium", False, "heart rate high", 3.0)


def leads_off(priority: Priority = "low", text: str = "leads off: V1", onset_s: float = 3.0) -> Finding:
    return Finding("leads-off", "technical", priority, False, text, onset_s, "V1")


def stamp(seconds: float) -> Stamp:
    return Stamp(TIME + timedelta(seconds=seconds), seconds, round(seconds * 1e9))


@pytest.fixture
def machine() -> AlarmMachine:
    return AlarmMachine("site/unit/bed", "run-1", reminder_s=150.0)


def said(events: list[Alarm]) -> list[tuple[str, str, str]]:
    return [(event.phase, event.presence, event.inactivation) for event in events]


def test_a_non_latching_alarm_starts_and_ends(machine: AlarmMachine) -> None:
    assert said(machine.set(TACHY, stamp(8))) == [("start", "on", "none")]
    assert machine.set(TACHY, stamp(9)) == []
    assert said(machine.clear("tachycardia", stamp(20))) == [("end", "off", "none")]
    assert machine.clear("tachycardia", stamp(21)) == []
    assert machine.active() == []


def test_identifiers_are_those_of_the_first_event(machine: AlarmMachine) -> None:
    start, end = machine.set(TACHY, stamp(8))[0], machine.clear("tachycardia", stamp(20))[0]
    assert (start.sequence, end.sequence) == (1, 2)
    assert start.event_id == start.alarm_id == end.alarm_id == "site/unit/bed:run-1:1"
    assert end.event_id == "site/unit/bed:run-1:2"
    assert start.onset_s == 3.0
    assert start.codes.snomed == "427084000"
    assert AlarmMachine("", "run-1", 150.0).set(TACHY, stamp(1))[0].alarm_id == "worker:run-1:1"


def test_a_latched_alarm_stays_until_acknowledged(machine: AlarmMachine) -> None:
    machine.set(VF, stamp(8))
    assert said(machine.clear(VF.condition, stamp(20))) == [("update", "latched", "none")]
    assert machine.tick(stamp(5000)) == []
    assert said(machine.acknowledge(None, stamp(5001))) == [("end", "off", "none")]


def test_what_a_more_urgent_alarm_takes_over_ends_but_what_is_latched_stays(machine: AlarmMachine) -> None:
    machine.set(VF, stamp(8))
    assert said(machine.supersede(VF.condition, stamp(9))) == [("end", "off", "none")]
    assert machine.supersede(VF.condition, stamp(10)) == []
    machine.set(VF, stamp(11))
    machine.clear(VF.condition, stamp(20))
    assert machine.supersede(VF.condition, stamp(21)) == []
    assert [alarm.presence for alarm in machine.active()] == ["latched"]


def test_a_latched_condition_that_returns_is_on_again_and_breaks_its_pause(machine: AlarmMachine) -> None:
    machine.set(VF, stamp(8))
    machine.clear(VF.condition, stamp(20))
    machine.pause(None, 120, stamp(21))
    assert said(machine.set(VF, stamp(22))) == [("update", "on", "none")]
    assert machine.tick(stamp(500)) == []


def test_an_acknowledged_condition_ends_when_it_is_gone_and_starts_anew(machine: AlarmMachine) -> None:
    first = machine.set(VF, stamp(8))[0]
    assert said(machine.acknowledge(VF.condition, stamp(9))) == [("update", "acknowledged", "acknowledged")]
    assert machine.acknowledge(VF.condition, stamp(10)) == []
    assert said(machine.clear(VF.condition, stamp(20))) == [("end", "off", "none")]
    second = machine.set(VF, stamp(30))[0]
    assert second.phase == "start"
    assert second.alarm_id != first.alarm_id


def test_an_acknowledged_condition_speaks_up_again(machine: AlarmMachine) -> None:
    machine.set(VF, stamp(8))
    machine.acknowledge(None, stamp(10))
    assert machine.tick(stamp(159.9)) == []
    assert said(machine.tick(stamp(160))) == [("continue", "on", "none")]
    assert machine.tick(stamp(161)) == []


def test_a_pause_shows_its_end_and_ends(machine: AlarmMachine) -> None:
    machine.set(TACHY, stamp(8))
    paused = machine.pause(None, 120, stamp(10))
    assert said(paused) == [("update", "on", "audio-paused")]
    assert paused[0].paused_until == TIME + timedelta(seconds=130)
    assert machine.tick(stamp(129.9)) == []
    over = machine.tick(stamp(130))
    assert said(over) == [("continue", "on", "none")]
    assert over[0].paused_until is None


def test_a_pause_of_a_latched_alarm_leaves_it_latched(machine: AlarmMachine) -> None:
    machine.set(VF, stamp(8))
    machine.clear(VF.condition, stamp(9))
    assert said(machine.pause(None, 60, stamp(10))) == [("update", "latched", "audio-paused")]
    assert said(machine.tick(stamp(70))) == [("continue", "latched", "none")]


def test_a_pause_can_be_ended_early(machine: AlarmMachine) -> None:
    machine.set(TACHY, stamp(8))
    assert machine.resume(None, stamp(9)) == []
    machine.pause(None, 120, stamp(10))
    assert said(machine.resume(None, stamp(11))) == [("update", "on", "none")]
    assert machine.tick(stamp(500)) == []


def test_a_new_condition_is_heard_during_a_pause(machine: AlarmMachine) -> None:
    machine.set(TACHY, stamp(8))
    machine.pause(None, 120, stamp(10))
    assert said(machine.set(VF, stamp(11))) == [("start", "on", "none")]
    assert [event.condition for event in machine.active()] == ["ventricular-fibrillation", "tachycardia"]


@pytest.mark.parametrize("silence", ["acknowledge", "pause"])
def test_a_higher_priority_breaks_through_and_a_lower_one_does_not(machine: AlarmMachine, silence: str) -> None:
    machine.set(leads_off("low"), stamp(8))
    if silence == "acknowledge":
        machine.acknowledge(None, stamp(9))
    else:
        machine.pause(None, 120, stamp(9))
    up = machine.set(leads_off("medium", "leads off: V1, II", onset_s=9.0), stamp(10))
    assert said(up) == [("escalate", "on", "none")]
    assert up[0].onset_s == 3.0
    machine.acknowledge(None, stamp(11))
    down = machine.set(leads_off("low"), stamp(12))
    assert said(down) == [("de-escalate", "acknowledged", "acknowledged")]
    assert down[0].priority == "low"


def test_a_changed_text_is_an_update(machine: AlarmMachine) -> None:
    machine.set(leads_off(), stamp(8))
    changed = machine.set(leads_off(text="leads off: V1, V2"), stamp(9))
    assert said(changed) == [("update", "on", "none")]
    assert changed[0].text == "leads off: V1, V2"


def test_reset_drops_what_is_latched_only(machine: AlarmMachine) -> None:
    machine.set(VF, stamp(8))
    assert machine.reset(None, stamp(9)) == []
    machine.clear(VF.condition, stamp(10))
    assert said(machine.reset(None, stamp(11))) == [("reset", "off", "none")]
    assert machine.active() == []


def test_a_command_for_one_condition_leaves_the_others(machine: AlarmMachine) -> None:
    machine.set(VF, stamp(8))
    machine.set(TACHY, stamp(8))
    machine.acknowledge("tachycardia", stamp(9))
    assert {event.condition: event.presence for event in machine.active()} == {
        "ventricular-fibrillation": "on",
        "tachycardia": "acknowledged",
    }


def test_close_ends_latched_alarms_too(machine: AlarmMachine) -> None:
    machine.set(VF, stamp(8))
    machine.set(TACHY, stamp(8))
    machine.clear(VF.condition, stamp(9))
    assert said(machine.close(stamp(10))) == [("end", "off", "none")] * 2


def test_what_a_person_did_carries_the_name(machine: AlarmMachine) -> None:
    def by(events: list[Alarm]) -> list[str]:
        return [event.by for event in events]

    assert by(machine.set(VF, stamp(8))) == [""]
    assert by(machine.pause(None, 60, stamp(9), "nurse")) == ["nurse"]
    assert by(machine.resume(None, stamp(10), "dashboard")) == ["dashboard"]
    assert by(machine.acknowledge(None, stamp(11), "nurse")) == ["nurse"]
    assert by(machine.tick(stamp(161))) == [""]
    assert by(machine.acknowledge(None, stamp(162), "nurse")) == ["nurse"]
    assert by(machine.clear(VF.condition, stamp(163))) == [""]
    machine.set(VF, stamp(170))
    machine.clear(VF.condition, stamp(171))
    assert by(machine.acknowledge(None, stamp(172), "doctor")) == ["doctor"]
    machine.set(VF, stamp(180))
    machine.clear(VF.condition, stamp(181))
    assert by(machine.reset(None, stamp(182), "doctor")) == ["doctor"]


def test_a_silence_keeps_the_name_while_it_lasts(machine: AlarmMachine) -> None:
    machine.set(leads_off(), stamp(8))
    machine.pause(None, 60, stamp(9), "nurse")
    assert machine.set(leads_off(text="leads off: V1, V2"), stamp(10))[0].by == "nurse"
    assert machine.set(leads_off("medium"), stamp(11))[0].by == ""


def left_behind() -> list[Alarm]:
    """Return all events of a machine that had VF on, asystole latched, bradycardia ended, noise and tachycardia on."""
    before = AlarmMachine("site/unit/bed", "run-1", reminder_s=150.0)
    asystole = Finding("asystole", "physiological", "high", True, "asystole", 1.0)
    brady = Finding("bradycardia", "physiological", "medium", False, "heart rate low", 1.0)
    events = (
        before.set(asystole, stamp(5)) + before.set(VF, stamp(8)) + before.set(TACHY, stamp(9)) + before.set(brady, stamp(10))
    )
    events += before.clear("asystole", stamp(11)) + before.set(leads_off(), stamp(12)) + before.clear("bradycardia", stamp(13))
    return events + before.pause(None, 120, stamp(14), "nurse")


def test_a_restart_keeps_what_latches_and_ends_the_rest(machine: AlarmMachine) -> None:
    events = left_behind()
    restored = machine.restore(events, 0, stamp(0))
    assert {(event.condition, event.phase, event.presence) for event in restored} == {
        ("asystole", "update", "latched"),
        ("ventricular-fibrillation", "update", "latched"),
        ("tachycardia", "end", "off"),
        ("leads-off", "end", "off"),
    }
    assert [event.sequence for event in restored] == list(range(events[-1].sequence + 1, events[-1].sequence + 5))
    started = {event.condition: event.alarm_id for event in events}
    assert all(event.alarm_id == started[event.condition] for event in restored)
    assert all(event.inactivation == "none" and event.paused_until is None and event.by == "" for event in restored)
    assert {event.condition for event in machine.active()} == {"asystole", "ventricular-fibrillation"}
    assert said(machine.set(VF, stamp(3))) == [("update", "on", "none")]
    assert said(machine.reset(None, stamp(4))) == [("reset", "off", "none")]


def test_a_restart_goes_on_counting_where_the_bed_was(machine: AlarmMachine) -> None:
    last = {event.condition: event for event in left_behind()}
    unfinished = [event for event in last.values() if event.presence != "off"]
    assert machine.restore(unfinished, 40, stamp(0))[0].sequence == 41
    assert AlarmMachine("site/unit/bed", "run-1", 150.0).restore([], 7, stamp(0)) == []


def test_what_was_acknowledged_ends_with_a_restart(machine: AlarmMachine) -> None:
    before = AlarmMachine("site/unit/bed", "run-1", reminder_s=150.0)
    events = before.set(VF, stamp(8)) + before.acknowledge(None, stamp(9), "nurse")
    assert said(machine.restore(events, 0, stamp(0))) == [("end", "off", "none")]


def test_a_restart_is_refused_when_it_would_confuse(machine: AlarmMachine) -> None:
    with pytest.raises(ValueError, match="alarms of site/unit/bed are not this bed's"):
        AlarmMachine("site/unit/other", "run-1", 150.0).restore(left_behind(), 0, stamp(0))
    machine.set(VF, stamp(8))
    with pytest.raises(ValueError, match="not after event 1"):
        machine.restore(left_behind(), 0, stamp(9))
