"""The checker itself: a log in which all went well has no findings, and each thing that goes wrong is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from ecgnat_stream.events import Alarm, Phase, Presence
from tests.chaos.check import check
from tests.chaos.conduct import Life, Log
from tests.chaos.plan import DETAILS, Fault, Onset, Plan, bed_name, make_plan
from tests.chaos.receivers import HISTORY, JSONL, MQTT, RECORD, ZMQ, Heard, Judged, Ledger
from tests.chaos.table import summary, table

BED = "bed-1"
EVERYWHERE = (JSONL, MQTT, ZMQ, HISTORY, RECORD)


def alarm(number: int, phase: Phase, presence: Presence, condition: str = "ventricular-fibrillation") -> Alarm:
    return Alarm(
        bed=bed_name(BED),
        time=datetime.fromtimestamp(1000 + number, UTC),
        condition=condition,
        kind="technical" if condition == "no-data" else "physiological",
        priority="high",
        phase=phase,
        presence=presence,
        text=condition,
        sequence=number,
        alarm_id="a",
        event_id=f"e{number}-{condition}",
    )


def said(log: Log, t: float, event: Alarm, *sinks: str) -> None:
    log.ledger.alarms += [Heard(t, sink, event) for sink in sinks or EVERYWHERE]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """One heart that fibrillates from 40 to 65 s; the alarm comes after 5 s, in every sink; the monitor ends when told."""
    plan = Plan(1, 100.0, (BED,), (Onset(BED, "vf", 40.0, 65.0),), ())
    (tmp_path / "truth.jsonl").write_text(json.dumps({"t": 1.0, "bed": BED, "true": True}) + "\n")
    (tmp_path / "loop.jsonl").write_text('{"t": 50, "late_s": 0.01, "own_s": 0.01}\n')
    log = Log(plan, tmp_path, Ledger(lambda: 100.0, lambda: 1100.0), [Life(0.0, 2.0, 101.0, "end", 0, 100.0)])
    for t in range(5, 100):
        log.ledger.judged.append(Judged(t, JSONL, bed_name(BED), t, 0.5, True))
    log.ledger.first[ZMQ] = [3.0]
    log.ledger.statuses = [(3.0, bed_name(BED), True, "")]
    said(log, 45.0, alarm(1, "start", "on"))
    said(log, 72.0, alarm(2, "update", "latched"))
    return log


def test_a_good_log_has_no_findings(log: Log) -> None:
    found = check(log)
    assert not found.items
    assert (found.hearts, found.events, found.to_alarm_s, found.exit_s) == (3, 2, [5.0], [1.0])
    assert found.bed_seconds == 90
    assert "total" in table(log, found)
    assert json.dumps(summary(log, found))


def _unheard(log: Log, sink: str) -> None:
    log.ledger.alarms = [heard for heard in log.ledger.alarms if heard.sink != sink]


def _late(log: Log) -> None:
    for index, heard in enumerate(log.ledger.alarms):
        if heard.t == 45.0 and heard.sink == MQTT:
            log.ledger.alarms[index] = Heard(55.0, MQTT, heard.alarm)


def _collides(log: Log) -> None:
    said(log, 80.0, msgspec.structs.replace(alarm(3, "start", "on", "asystole"), event_id="e1-ventricular-fibrillation"))


def _started_twice(log: Log) -> None:
    said(log, 50.0, msgspec.structs.replace(alarm(3, "start", "on"), alarm_id="b"))


def _blind(log: Log) -> None:
    log.ledger.judged = [second for second in log.ledger.judged if not 70 <= second.t < 80]


def _old(log: Log) -> None:
    log.ledger.judged = [
        Judged(second.t, second.sink, second.bed, second.at_s, 30.0 if 70 <= second.t < 80 else 0.5, True)
        for second in log.ledger.judged
    ]


def _kills(log: Log, will_after: float | None) -> None:
    log.lives = [Life(0.0, 2.0, 85.0, "kill -9", -9, 85.0), Life(85.5, 86.0, 101.0, "end", 0, 100.0)]
    if will_after is not None:
        log.ledger.statuses.append((85.0 + will_after, bed_name(BED), False, "the monitor is gone"))


def _does_not_end(log: Log) -> None:
    log.lives[-1].ended = 115.0


def _ends_by_itself(log: Log) -> None:
    log.lives = [Life(0.0, 2.0, 80.0, "by itself", 1), Life(81.0, 82.0, 101.0, "end", 0, 100.0)]


def _stale(log: Log) -> None:
    state = {"bed": bed_name(BED), "condition": "ventricular-fibrillation", "presence": "on", "event_id": "e1"}
    log.ledger.states["ecg/v1/home/icu/bed-1/alarm/state/ventricular-fibrillation"] = json.dumps(state).encode()


def _unsaid(log: Log) -> None:
    log.plan = msgspec.structs.replace(log.plan, faults=(Fault("nan", 80.0, 10.0, BED),))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda log: _unheard(log, MQTT), {("lost", MQTT, 3)}),
        (lambda log: _unheard(log, HISTORY), {("lost", HISTORY, 2)}),
        (lambda log: _unheard(log, RECORD), {("lost", RECORD, 2)}),
        (_late, {("late", MQTT, 2)}),
        (_collides, {("doubled", sink, 1) for sink in (JSONL, MQTT, ZMQ)}),
        (_started_twice, {("doubled", sink, 1) for sink in (JSONL, MQTT, ZMQ)}),
        (_blind, {("unwatched", "", 6)}),
        (_old, {("unwatched", "", 6)}),
        (lambda log: _kills(log, None), {("will", MQTT, 1)}),
        (lambda log: _kills(log, 0.5), set()),
        (_does_not_end, {("ended", "", 1)}),
        (_ends_by_itself, {("ended", "", 1)}),
        (_stale, {("stale", MQTT, 1)}),
        (_unsaid, {("unsaid", JSONL, 1)}),
        (lambda log: log.ledger.take(JSONL, b'{"type":"nothing"}'), {("control", JSONL, 1)}),
    ],
)
def test_what_goes_wrong_is_found(log: Log, spoil: Callable[[Log], None], expected: set[tuple[str, str, int]]) -> None:
    spoil(log)
    items = check(log).items
    assert {
        (what, sink, sum((i.what, i.sink) == (what, sink) for i in items)) for what, sink in {(i.what, i.sink) for i in items}
    } == (expected)


def test_a_technical_alarm_explains_a_blind_bed(log: Log) -> None:
    _blind(log)
    said(log, 73.0, alarm(3, "start", "on", "no-data"))
    said(log, 81.0, alarm(4, "end", "off", "no-data"))
    assert not check(log).items


def test_an_alarm_is_not_asked_for_while_the_signal_was_none(log: Log) -> None:
    (log.folder / "truth.jsonl").write_text(
        "".join(json.dumps({"t": t, "bed": BED, "true": true}) + "\n" for t, true in [(1, True), (48, False)])
    )
    log.ledger.alarms.clear()
    found = check(log)
    assert (found.hearts, found.items) == (0, [])


def test_an_alarm_is_not_asked_for_before_the_next_process_has_opened_the_device(log: Log) -> None:
    log.lives = [Life(0.0, 2.0, 39.0, "kill -9", -9, 39.0), Life(39.5, 57.0, 101.0, "end", 0, 100.0)]
    log.ledger.statuses.append((39.5, bed_name(BED), False, "the monitor is gone"))
    log.ledger.first[ZMQ] = [3.0, 44.0]
    truth = log.folder / "truth.jsonl"
    truth.write_text("".join(json.dumps({"t": t, "bed": BED, "true": True}) + "\n" for t in (1.0, 57.0)))
    assert check(log).hearts == 0
    truth.write_text("".join(json.dumps({"t": t, "bed": BED, "true": True}) + "\n" for t in (1.0, 42.0)))
    found = check(log)
    assert (found.hearts, found.items) == (3, [])


def test_the_way_to_the_broker_excuses_until_five_seconds_after_its_return(log: Log) -> None:
    _late(log)
    log.path_down = [(44.0, 51.0, "kill-broker")]
    found = check(log)
    assert not found.items
    assert found.returned_s == [pytest.approx(4.0)]
    log.path_down = [(44.0, 48.0, "kill-broker")]
    assert {item.what for item in check(log).items} == {"late"}


def test_a_bed_that_a_second_monitor_has_at_the_broker_is_not_asked_of_the_first_there(log: Log) -> None:
    log.ledger.alarms = [heard for heard in log.ledger.alarms if (heard.t, heard.sink) != (45.0, MQTT)]
    assert {(item.what, item.sink) for item in check(log).items} == {("lost", MQTT)}
    log.ledger.sessions = [(3.0, bed_name(BED), 7), (38.0, bed_name(BED), 9), (60.0, bed_name(BED), 7)]
    log.ledger.twin_sessions = {(bed_name(BED), 9)}
    assert not check(log).items
    # It has ended long ago: the first one should have taken the bed back.
    log.ledger.sessions, log.done = [(3.0, bed_name(BED), 9)], [(Fault("twin", 0.0, 2.0, "peers"), 0.0, 2.0)]
    assert {(item.what, item.sink) for item in check(log).items} == {("lost", MQTT)}
    log.done = [(Fault("twin", 0.0, 10.0, "peers"), 0.0, 10.0)]
    assert not check(log).items


def test_a_plan_has_every_kind_of_fault_and_fits() -> None:
    plan = make_plan(5, 3600.0, broker_kills=200, kills=100, terms=5, stands=2)
    kinds = {fault.kind for fault in plan.faults}
    assert {"kill-broker", "kill-monitor", "end-monitor", "blocks", "acl", "twin", "zmq-big", "disk-full", "hang-exit"} <= kinds
    assert sum(fault.kind == "kill-broker" for fault in plan.faults) == 200
    assert {fault.detail for fault in plan.faults if fault.kind == "raises"} == set(DETAILS["raises"])
    assert all(0 <= fault.at_s < plan.seconds for fault in plan.faults)
    for bed in plan.beds:
        assert sum(segment.seconds for segment in plan.segments(bed)) == pytest.approx(3660.0)
    assert make_plan(5, 3600.0, broker_kills=200, kills=100, terms=5, stands=2) == plan
