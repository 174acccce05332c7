"""The watchdog: an unwatched bed is told within its bound, a receiver that gets no alarms too, and it ends what cannot tell."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from ecgnat_stream.bus import Bus, Policy
from ecgnat_stream.clock import ManualClock
from ecgnat_stream.errors import WatchdogError
from ecgnat_stream.events import Alarm, Event, Technical, Vitals
from ecgnat_stream.watchdog import BedTruth, Watchdog, WatchdogConfig, explains

BED = "home/icu/1"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def alarm(condition: str = "asystole", **given: object) -> Alarm:
    about = {
        "bed": BED, "time": NOW, "condition": condition, "kind": "physiological", "priority": "high", "phase": "start",
        "presence": "on", "text": condition, "sequence": 1, "alarm_id": "a", "event_id": "e",
    }  # fmt: skip
    return Alarm(**(about | given))  # type: ignore[arg-type]


class Watched:
    """A watchdog with beds and receivers that a test moves; a technical alarm that it raises is on at once."""

    def __init__(self, patience_s: float = 5.0, obey: bool = True, **truth: object) -> None:
        self.clock, self.bus, self.said = ManualClock(), Bus(), []  # type: ignore[var-annotated]
        start = BedTruth(BED, live=True, judged_ns=self.clock.monotonic_ns(), told=frozenset(), ended=False)
        self.truth = replace(start, **truth)  # type: ignore[arg-type]
        self.obey = obey
        self.dog = Watchdog(WatchdogConfig(), patience_s, self.bus, self.clock, lambda: [self.truth], self.take)

    def take(self, event: Technical) -> None:
        self.said.append((event.bed, event.condition, event.present))
        if event.bed and self.obey:
            told = self.truth.told | {event.condition} if event.present else self.truth.told - {event.condition}
            self.truth = replace(self.truth, told=told)

    async def pass_s(self, seconds: float, judged: bool = False) -> None:
        for _ in range(round(seconds)):
            await self.clock.advance(1.0)
            if judged:
                self.truth = replace(self.truth, judged_ns=self.clock.monotonic_ns())
            self.dog.check()


async def test_a_bed_that_is_judged_is_left_alone() -> None:
    watched = Watched()
    await watched.pass_s(60, judged=True)
    assert watched.said == []
    assert watched.dog.count() == (1, 0, 0)


async def test_a_bed_of_which_only_a_trickle_is_judged_is_told_however_fresh_that_is() -> None:
    watched = Watched()

    async def pass_s(seconds: int, share: float) -> None:
        for _ in range(seconds):
            watched.truth = replace(watched.truth, judged_s=(watched.truth.judged_s or 0.0) + share)
            await watched.pass_s(1, judged=True)

    await pass_s(20, 1.0)
    assert watched.said == []
    await pass_s(12, 0.1)
    assert watched.said == [(BED, "unwatched", True)]
    await pass_s(6, 1.0)
    assert watched.said == [(BED, "unwatched", True), (BED, "unwatched", False)]
    watched.truth = replace(watched.truth, told=frozenset({"no-data"}))
    await pass_s(20, 0.0)
    watched.truth = replace(watched.truth, told=frozenset())
    await pass_s(9, 0.0)
    assert len(watched.said) == 2, "what an alarm has explained does not count"
    await pass_s(2, 0.0)
    assert len(watched.said) == 3


async def test_a_bed_that_nobody_judges_is_told_within_the_bound_and_its_return_too() -> None:
    watched = Watched()
    await watched.pass_s(5)
    assert watched.said == []
    await watched.pass_s(1)
    assert watched.said == [(BED, "unwatched", True)]
    assert watched.dog.count() == (0, 1, 0)
    await watched.pass_s(5)
    assert len(watched.said) == 1, "said once"
    await watched.pass_s(1, judged=True)
    assert watched.said[1:] == [(BED, "unwatched", False)]


async def test_the_bound_is_never_shorter_than_what_other_stages_may_take() -> None:
    watched = Watched(patience_s=12.0)
    await watched.pass_s(12)
    assert watched.said == []
    await watched.pass_s(1)
    assert watched.said == [(BED, "unwatched", True)]


@pytest.mark.parametrize("truth", [{"told": frozenset({"no-data"})}, {"ended": True}, {"live": False}])
async def test_what_an_alarm_or_a_person_explains_is_no_news(truth: dict[str, object]) -> None:
    watched = Watched(**truth)
    await watched.pass_s(60)
    assert watched.said == []


async def test_an_explanation_that_ends_before_the_judging_begins_is_not_believed() -> None:
    watched = Watched(told=frozenset({"no-data"}))
    await watched.pass_s(60)
    watched.truth = replace(watched.truth, told=frozenset())
    await watched.pass_s(1)
    assert watched.said == [(BED, "unwatched", True)]


async def test_an_alarm_that_does_not_come_on_ends_the_monitor() -> None:
    watched = Watched(obey=False)
    with pytest.raises(WatchdogError, match="unwatched, and the alarm that says so is not on"):
        await watched.pass_s(20)


@pytest.mark.parametrize(
    ("about", "does"),
    [
        ({"condition": "no-data", "priority": "medium"}, True),
        ({"condition": "no-data", "presence": "acknowledged"}, True),
        ({"condition": "no-data", "presence": "off"}, False),
        ({"condition": "leads-off", "priority": "medium"}, True),
        ({"condition": "leads-off", "priority": "low"}, False),
        ({"condition": "noise", "priority": "low"}, True),
        ({"condition": "asystole"}, False),
        ({"condition": "model-late", "priority": "medium"}, False),
    ],
)
def test_only_what_says_why_nothing_is_seen_explains_it(about: dict[str, object], does: bool) -> None:
    assert explains(alarm(**about)) is does  # type: ignore[arg-type]


async def test_a_receiver_that_does_not_take_an_alarm_is_told_and_its_return_too() -> None:
    watched = Watched(ended=False)
    reader = watched.bus.subscribe("pager", Event)
    watched.bus.subscribe("charts", Vitals)
    watched.bus.publish(alarm())
    await watched.pass_s(11, judged=True)
    assert watched.said == []
    await watched.pass_s(1, judged=True)
    assert watched.said == [("", "sink-stuck", True)]
    await reader.get()
    await watched.pass_s(1, judged=True)
    assert watched.said[1:] == [("", "sink-stuck", False)]


async def test_a_sink_is_believed_what_it_has_delivered_not_what_it_has_taken() -> None:
    class Sink:
        def __init__(self, bus: Bus) -> None:
            self.subscription = bus.subscribe("broker", Event)
            self.alarms_delivered = self.alarms_lost = 0

    watched = Watched()
    sink = Sink(watched.bus)
    watched.dog.hold_to_account(sink)
    for k in range(4):
        watched.bus.publish(alarm(alarm_id=f"a{k}"))
        await sink.subscription.get()
    await watched.pass_s(12, judged=True)
    assert watched.said == [("", "sink-stuck", True)]
    sink.alarms_delivered, sink.alarms_lost = 3, 1
    await watched.pass_s(1, judged=True)
    assert watched.said[1:] == [("", "sink-stuck", False)]
    for k in range(100):  # a sink that always is a little behind is not stuck
        watched.bus.publish(alarm(alarm_id=f"b{k}"))
        await sink.subscription.get()
        await watched.pass_s(1, judged=True)
        sink.alarms_delivered += k > 0
    assert len(watched.said) == 2


async def test_newest_wins_is_no_loss() -> None:
    watched = Watched()
    reader = watched.bus.subscribe("dashboard", Event, policy=Policy.NEWEST)
    for _ in range(50):
        watched.bus.publish(alarm(phase="update"))
    await reader.get()
    await watched.pass_s(30, judged=True)
    assert watched.said == []


async def test_alarms_that_a_full_queue_gives_up_are_told() -> None:
    watched = Watched()
    watched.bus.subscribe("pipe", Alarm, capacity=1)
    for k in range(9):
        watched.bus.publish(alarm(alarm_id=f"a{k}"))
    await watched.pass_s(1, judged=True)
    assert ("", "alarms-lost", True) in watched.said
    assert ("", "sink-stuck", True) in watched.said
    await watched.pass_s(61, judged=True)
    assert ("", "alarms-lost", False) in watched.said


async def test_sinks_that_fail_are_one_alarm_until_the_last_works_again() -> None:
    watched = Watched()
    watched.dog.sink_failed("RecordSink", "disk")
    watched.dog.sink_failed("ZmqSink", "port")
    watched.dog.sink_works("RecordSink")
    watched.dog.sink_works("RecordSink")
    watched.dog.sink_works("ZmqSink")
    assert [present for _, condition, present in watched.said if condition == "sink-stuck"] == [True, True, False, False]
