"""Confirmed delivery without a broker: what the monitor expects, and what a receiver makes of what it hears."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from ecgnat_stream import wire
from ecgnat_stream.clock import ManualClock
from ecgnat_stream.events import Alarm, Delivery, Technical
from ecgnat_stream.sink.mqtt.confirm import Confirmations, confirm_topic
from ecgnat_stream.sink.mqtt.following import Followed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BED, OTHER, ENGINE = "home/icu/1", "home/icu/2", "home/engine/w1"


def alarm(sequence: int, condition: str = "asystole", **changes: Any) -> Alarm:
    values: dict[str, Any] = {"bed": BED, "phase": "start", "presence": "on", "run": "r1"} | changes
    run = values.pop("run")
    values.setdefault("time", NOW + timedelta(seconds=sequence))
    return Alarm(
        condition=condition,
        kind="physiological",
        priority="high",
        text=condition,
        sequence=sequence,
        alarm_id="a1",
        event_id=f"{run}:{sequence}",
        **values,
    )


class Desk:
    """The monitor's side on a manual clock, and what it said."""

    def __init__(self, receivers: dict[str, str] | None = None, **options: Any) -> None:
        self.clock = ManualClock()
        self.said: list[Delivery | Technical] = []
        self.confirmations = Confirmations(
            {BED: "central-1", OTHER: "", ENGINE: "central-1"} if receivers is None else receivers,
            ENGINE,
            **({"within_s": 5.0, "every_s": 10.0, "capacity": 100} | options),
            clock=self.clock,
            publish=self.said.append,
        )

    async def later(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        self.confirmations.tick()

    def confirm(self, *event_ids: str, receiver: str = "central-1", place: str = BED, retain: bool = False) -> None:
        self.hand(msgspec.json.encode(wire.Confirmation(receiver=receiver, events=event_ids)), place, retain=retain)

    def hand(self, payload: object, place: str = BED, *, retain: bool = False) -> None:
        topic = SimpleNamespace(value=confirm_topic(place))
        self.confirmations.take(SimpleNamespace(topic=topic, payload=payload, retain=retain))  # type: ignore[arg-type]

    def due(self) -> list[Any]:
        return list(self.confirmations.due())

    def answer(self) -> None:
        """Confirm every heartbeat that is due."""
        for event in list(self.confirmations.due()):
            self.confirm(event.event_id, place=event.bed or ENGINE)

    @property
    def alarms(self) -> list[tuple[str, str, bool]]:
        return [(one.bed, one.condition, one.present) for one in self.said if isinstance(one, Technical)]

    @property
    def ways(self) -> list[tuple[str, str, str]]:
        return [(one.event_id, one.step, one.by) for one in self.said if isinstance(one, Delivery)]


async def test_a_confirmed_event_is_told_with_who_did_and_raises_nothing() -> None:
    desk = Desk()
    desk.answer()
    assert desk.confirmations.expected(alarm(1)) == f"ecg/v1/{BED}/alarm/confirm"
    desk.confirmations.published(alarm(1))
    desk.confirmations.at_broker(alarm(1))
    await desk.later(4.9)
    desk.confirm("r1:1")
    await desk.later(0.2)
    assert desk.ways == [("r1:1", "published", ""), ("r1:1", "at-broker", ""), ("r1:1", "confirmed", "central-1")]
    assert desk.alarms == []


async def test_an_event_that_nobody_confirms_is_an_alarm_of_its_bed_until_it_is() -> None:
    desk = Desk({BED: "central-1", OTHER: "central-2"}, every_s=60.0)
    desk.answer()
    desk.confirmations.expected(alarm(1))
    await desk.later(4.9)
    assert desk.alarms == []
    await desk.later(0.2)
    assert desk.alarms == [(BED, "unconfirmed", True)]
    assert desk.said[-1].detail == "central-1 has not confirmed asystole within 5 s"  # type: ignore[union-attr]
    await desk.later(20)
    desk.confirm("r1:1")
    assert desk.alarms == [(BED, "unconfirmed", True), (BED, "unconfirmed", False)]


async def test_a_receiver_that_is_missing_is_noticed_without_an_alarm_and_within_a_bound() -> None:
    desk = Desk({BED: "central-1"})
    for _ in range(3):
        desk.answer()
        await desk.later(10)
    assert len(desk.due()) == 1
    await desk.later(4.9)
    assert desk.alarms == []
    await desk.later(0.2)
    assert desk.alarms == [(BED, "unconfirmed", True)]
    await desk.later(30)
    desk.due()
    await desk.later(1)
    assert desk.alarms == [(BED, "unconfirmed", True)], "it stays while nobody answers"
    await desk.later(10)
    desk.answer()
    assert desk.alarms[-1] == (BED, "unconfirmed", False)


async def test_without_a_broker_heartbeats_cannot_be_sent_and_that_is_an_alarm_too() -> None:
    desk = Desk({BED: "central-1"})
    await desk.later(6)
    await desk.later(1)
    assert desk.alarms == [(BED, "unconfirmed", True)]


@pytest.mark.parametrize("place", [BED, OTHER, "home/icu/9"])
async def test_another_receiver_or_the_topic_of_another_bed_does_not_count(place: str) -> None:
    desk = Desk()
    desk.answer()
    desk.confirmations.expected(alarm(1))
    desk.confirm("r1:1", receiver="central-1" if place != BED else "central-2", place=place)
    desk.confirm("r1:1", retain=True)
    await desk.later(5.1)
    assert (BED, "unconfirmed", True) in desk.alarms
    assert desk.confirmations.foreign == 2


async def test_a_bed_without_a_receiver_expects_nothing() -> None:
    desk = Desk()
    assert desk.confirmations.expected(alarm(1, bed=OTHER)) == ""
    assert desk.confirmations.topics == [confirm_topic(BED), confirm_topic(ENGINE)]
    assert Desk({BED: ""}).confirmations.topics == []


async def test_the_workers_own_alarms_are_confirmed_under_its_own_topic() -> None:
    desk = Desk()
    desk.answer()
    assert desk.confirmations.expected(alarm(1, bed="")) == f"ecg/v1/{ENGINE}/alarm/confirm"
    await desk.later(5.1)
    assert desk.alarms == [("", "unconfirmed", True)]


async def test_what_was_missed_is_sent_again_in_order_once_the_receiver_is_heard() -> None:
    desk = Desk({BED: "central-1"}, every_s=60.0)
    desk.answer()
    assert desk.due() == []
    for number in range(1, 121):
        desk.confirmations.expected(alarm(number))
    await desk.later(5.1)
    assert desk.due() == [], "a receiver that is not there is not sent to for ever"
    desk.confirm("r1:1")
    again = desk.due()
    assert [event.sequence for event in again] == list(range(21, 71)), "the oldest 20 were given up"
    assert desk.due() == []
    desk.confirm(*(event.event_id for event in again))
    assert [event.sequence for event in desk.due()] == list(range(71, 121))
    assert desk.confirmations.given_up == 20
    assert (BED, "alarms-lost", True) in desk.alarms
    desk.confirm(*(f"r1:{number}" for number in range(71, 121)))
    assert desk.alarms[-2:] == [(BED, "unconfirmed", False), (BED, "alarms-lost", False)]


async def test_a_heartbeat_names_the_newest_event() -> None:
    desk = Desk({BED: "central-1"})
    desk.confirmations.expected(alarm(7))
    (beat,) = desk.due()
    assert (beat.bed, beat.newest, beat.receiver, beat.every_s) == (BED, "r1:7", "central-1", 10.0)


async def test_the_heartbeats_of_many_beds_are_spread_over_their_period() -> None:
    desk = Desk({f"home/icu/{number}": "central-1" for number in range(20)})
    count = []
    for _ in range(20):
        count.append(len(desk.due()))
        await desk.later(0.5)
    assert (sum(count), max(count)) == (20, 1)


async def test_a_bed_that_has_ended_has_no_heartbeats_until_it_begins_again() -> None:
    desk = Desk({BED: "central-1"})
    desk.confirmations.ended(BED)
    await desk.later(100)
    assert (desk.due(), desk.alarms) == ([], [])
    desk.confirmations.begun(BED)
    assert len(desk.due()) == 1


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b'{"receiver": "central-1", "events": []}',
        b'{"receiver": "", "events": ["r1:1"]}',
        b'{"receiver": "central-1", "events": ["r1:1"], "more": 1}',
        msgspec.json.encode({"receiver": "central-1", "events": ["r1:1"] * 101}),
        msgspec.json.encode({"receiver": "central-1", "events": ["x" * 201]}),
        b'{"receiver": "central-1", "events": ["' + b"x" * 20_000 + b'"]}',
        b"[" * 5000,
        None,
    ],
)
async def test_what_is_no_confirmation_is_counted_and_nothing_more(payload: object) -> None:
    desk = Desk()
    desk.confirmations.expected(alarm(1))
    desk.hand(payload)
    assert (desk.confirmations.malformed, desk.confirmations.confirmed, desk.said) == (1, 0, [])


async def test_a_flood_is_dropped_and_counted_and_the_next_second_counts_again() -> None:
    desk = Desk()
    for _ in range(5000):
        desk.confirm("unknown")
    assert (desk.confirmations.unknown, desk.confirmations.flooding) == (1000, 4000)
    assert desk.alarms == [("", "peer-flood", True)]
    desk.confirmations.expected(alarm(1))
    await desk.later(1)
    desk.confirm("r1:1")
    assert desk.confirmations.confirmed == 1


# The receiver's side.

S = 1_000_000_000


def followed(**options: Any) -> Followed:
    return Followed(BED, 0, **({"lost_s": 30.0, "gap_s": 10.0} | options))


def news(bed: Followed, *events: Alarm, retained: bool = False, at: int = 0) -> list[int]:
    return [event.sequence for event in events if bed.alarm(event, at * S, retained=retained)]


def said(bed: Followed, at: int) -> list[tuple[str, bool]]:
    return [(one.condition, one.present) for one in bed.tick(at * S, NOW)]


def test_copies_are_no_news() -> None:
    assert news(followed(), alarm(1), alarm(1), alarm(2), alarm(1)) == [1, 2]


def test_a_late_event_is_news_unless_a_later_one_of_its_condition_has_come() -> None:
    bed = followed()
    assert news(bed, alarm(1), alarm(4), alarm(2), alarm(3, "tachycardia")) == [1, 4, 3]


def test_stored_states_are_news_once_and_ends_only_of_what_was_seen() -> None:
    bed = followed()
    over = {"phase": "end", "presence": "off"}
    assert news(bed, alarm(7), alarm(5, "tachycardia", **over), retained=True) == [7]
    assert news(bed, alarm(7)) == []
    assert news(bed, alarm(8, **over), retained=True) == [8]


def test_the_numbers_of_another_run_begin_again() -> None:
    bed = followed()
    later = NOW + timedelta(hours=1)
    assert news(bed, alarm(8), alarm(9), alarm(1, run="r2", time=later), alarm(2, run="r2", time=later)) == [8, 9, 1, 2]
    assert said(bed, 20) == []


def test_a_number_that_is_missing_is_told_until_it_comes() -> None:
    bed = followed()
    news(bed, alarm(1), alarm(4), at=1)
    assert said(bed, 10) == []
    (lost,) = bed.tick(11 * S, NOW)
    assert (lost.bed, lost.condition, lost.detail) == (
        BED,
        "alarms-lost",
        "2 alarm events have not arrived, the first is number 2",
    )
    news(bed, alarm(2), alarm(3), at=12)
    assert said(bed, 12) == [("alarms-lost", False)]


def test_stored_states_at_the_beginning_are_not_gaps_but_after_a_lost_connection_they_are() -> None:
    bed = followed(lost_s=1000.0)
    news(bed, alarm(9), alarm(4, "tachycardia"), retained=True)
    news(bed, alarm(10))
    assert said(bed, 20) == []
    news(bed, alarm(13), retained=True, at=20)
    assert said(bed, 30) == [("alarms-lost", True)]


def test_the_newest_event_of_a_heartbeat_has_to_come() -> None:
    bed = followed()
    beat = wire.Heartbeat(bed=BED, time=NOW, event_id="h", every_s=10.0, receiver="central-1", newest="r1:3")
    bed.heartbeat(beat, 0)
    bed.heartbeat(beat, 9 * S)
    assert said(bed, 10) == [("alarms-lost", True)]
    news(bed, alarm(3))
    assert said(bed, 11) == [("alarms-lost", False)]


def test_a_monitor_that_is_not_heard_is_lost_and_a_heartbeat_tells_how_soon() -> None:
    bed = followed()
    assert said(bed, 29) == []
    assert said(bed, 30) == [("monitor-lost", True)]
    beat = wire.Heartbeat(bed=BED, time=NOW, event_id="h", every_s=4.0, receiver="central-1")
    bed.heartbeat(beat, 31 * S)
    assert said(bed, 40) == [("monitor-lost", False)]
    assert said(bed, 41) == [("monitor-lost", True)]
    news(bed, alarm(1), retained=True, at=42)
    assert said(bed, 42) == [], "what the broker has stored is no sign of life"


def test_a_last_will_is_told_at_once_and_a_bed_that_has_ended_is_not_missed() -> None:
    bed = followed()
    bed.gone("the monitor is gone")
    assert said(bed, 1) == [("monitor-lost", True)]
    bed.bed_status(status(state="ended", online=False))
    assert said(bed, 100) == [("monitor-lost", False)]


def status(**changes: Any) -> wire.BedStatus:
    values: dict[str, Any] = {"online": True, "state": "online", "worker": "w1", "session": 5} | changes
    return wire.BedStatus(bed=BED, time=NOW, since=NOW, **values)


def test_stale_statuses_are_no_news() -> None:
    bed = followed()
    assert bed.bed_status(status())
    assert not bed.bed_status(status())
    assert not bed.bed_status(status(session=4, online=False, state="offline"))
    assert not bed.bed_status(status(worker="w2", online=False, state="offline"))
    assert bed.bed_status(status(session=6))
    assert bed.bed_status(status(session=6, online=False, state="offline"))
