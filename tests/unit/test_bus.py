"""The bus: bounds, newest wins, nothing kept is lost, recordings are held back, closing ends every reader."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import numpy as np
import pytest

from ecgnat_stream.bus import Bus, Policy
from ecgnat_stream.events import Alarm, Event, Technical, Trace, Vitals
from ecgnat_stream.testing import flushed

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def vitals(bpm: float, bed: str = "home/a/1") -> Vitals:
    return Vitals(bed=bed, time=NOW, heart_rate_bpm=bpm)


def trace(at_s: float) -> Trace:
    return Trace("home/a/1", NOW, at_s, np.zeros((12, 40), np.float32))


def alarm(sequence: int, phase: str, alarm_id: str = "a1") -> Alarm:
    return Alarm(
        bed="home/a/1",
        time=NOW,
        condition="asystole",
        kind="physiological",
        priority="high",
        phase=phase,  # type: ignore[arg-type]
        presence="on",
        text="asystole",
        sequence=sequence,
        alarm_id=alarm_id,
        event_id=str(sequence),
    )


async def read(bus: Bus, subscription: object) -> list[object]:
    bus.close()
    return [event async for event in subscription]  # type: ignore[attr-defined]


async def test_only_the_types_asked_for_arrive() -> None:
    bus = Bus()
    everything, only_vitals = bus.subscribe("all", Event), bus.subscribe("vitals", Vitals)
    bus.publish(technical := Technical(bed="", time=NOW, condition="broker-lost", present=True))
    bus.publish(value := vitals(60))
    assert await read(bus, everything) == [technical, value]
    assert await read(bus, only_vitals) == [value]


async def test_newest_keeps_one_per_bed_type_and_condition_in_the_order_of_first_arrival() -> None:
    bus = Bus()
    subscription = bus.subscribe("dashboard", Event, policy=Policy.NEWEST)
    for bed in ("home/a/1", "home/a/2"):
        bus.publish(vitals(60, bed))
    for condition in ("noise", "no-data"):
        bus.publish(Technical(bed="home/a/1", time=NOW, condition=condition, present=True))
    bus.publish(vitals(61))
    events = await read(bus, subscription)
    assert [e.heart_rate_bpm for e in events if isinstance(e, Vitals)] == [61, 60]
    assert [e.condition for e in events if isinstance(e, Technical)] == ["noise", "no-data"]
    assert subscription.dropped == 1


async def test_a_slow_newest_reader_sees_every_bed() -> None:
    bus = Bus()
    beds = [f"home/a/{i}" for i in range(6)]
    subscription = bus.subscribe("dashboard", Vitals, policy=Policy.NEWEST)
    seen = set()
    for second in range(3):
        for bed in beds:
            bus.publish(vitals(second, bed))
        for _ in range(2):
            seen.add((await subscription.get()).bed)
    assert seen == set(beds)


async def test_newest_waveforms_are_bounded_and_the_oldest_go() -> None:
    bus = Bus()
    subscription = bus.subscribe("sweep", Trace, policy=Policy.NEWEST, capacity=3)
    for k in range(5):
        bus.publish(trace(k))
    assert bus.statistics()["sweep"] == {"waiting": 3, "delivered": 0, "dropped": 2, "lost": 0, "capacity": 3}
    assert [t.at_s for t in await read(bus, subscription)] == [2, 3, 4]  # type: ignore[attr-defined]


async def test_keep_loses_no_event_and_says_that_it_is_overfull_until_half_is_read() -> None:
    bus = Bus()
    subscription = bus.subscribe("recorder", Vitals, Trace, capacity=4)
    for k in range(6):
        bus.publish(vitals(k))
    bus.publish(trace(0))
    assert bus.overfull == ("recorder",)
    assert (len(subscription), subscription.dropped) == (6, 1)
    values = [(await subscription.get()).heart_rate_bpm for _ in range(3)]  # type: ignore[union-attr]
    assert bus.overfull == ("recorder",)
    values.append((await subscription.get()).heart_rate_bpm)  # type: ignore[union-attr]
    assert bus.overfull == ()
    assert values + [e.heart_rate_bpm for e in await read(bus, subscription)] == list(range(6))  # type: ignore[attr-defined]


async def test_an_overfull_alarm_queue_folds_updates_of_one_alarm_and_nothing_else() -> None:
    bus = Bus()
    subscription = bus.subscribe("pager", Alarm, capacity=2)
    for event in (
        alarm(1, "start"),
        alarm(2, "update"),
        alarm(3, "start", "b1"),
        alarm(4, "update"),
        alarm(5, "continue"),
        alarm(6, "continue"),
        alarm(7, "end"),
    ):
        bus.publish(event)
    assert [e.sequence for e in await read(bus, subscription)] == [1, 3, 4, 6, 7]  # type: ignore[attr-defined]


async def test_a_full_queue_gives_up_other_events_before_alarms_and_counts_each() -> None:
    bus = Bus()
    subscription = bus.subscribe("pipe", Alarm, Vitals, capacity=2)
    for k in range(10):
        bus.publish(alarm(k, "start", f"a{k}"))
        bus.publish(vitals(k))
    # Eight fit: the alarms that came last; an alarm makes room for an alarm, never for anything else.
    assert (len(subscription), subscription.lost, subscription.alarms_lost) == (8, 12, 2)
    left = await read(bus, subscription)
    assert [e.sequence for e in left if isinstance(e, Alarm)] == list(range(2, 10))
    assert (subscription.alarms, subscription.alarms_taken, subscription.alarms_dropped) == (10, 8, 0)


async def test_the_ledger_of_alarms_adds_up_for_every_policy() -> None:
    bus = Bus()
    subscriptions = [bus.subscribe("keep", Alarm, capacity=2), bus.subscribe("new", Alarm, policy=Policy.NEWEST, capacity=2)]
    for k, phase in enumerate(["start", "update", "update", "update", "end"] * 4):
        bus.publish(alarm(k, phase, f"a{k // 5}"))
    for s in subscriptions:
        waiting = len(s)
        assert s.alarms == 20 == waiting + s.alarms_taken + s.alarms_dropped + s.alarms_lost
        await read(bus, s)
        assert s.alarms == s.alarms_taken + s.alarms_dropped + s.alarms_lost


async def test_a_reader_that_never_waits_lets_the_other_tasks_run() -> None:
    bus = Bus()
    subscription = bus.subscribe("busy", Vitals)
    for k in range(1000):
        bus.publish(vitals(k))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await read(bus, subscription)
    task.cancel()
    assert turns >= 10


async def test_no_recording_waits_for_a_reader_that_has_failed() -> None:
    bus = Bus()
    subscription = bus.subscribe("broken", Vitals, capacity=2)
    for k in range(4):
        bus.publish(vitals(k))
    async with asyncio.timeout(10):
        waiting = asyncio.create_task(bus.drained())
        await asyncio.sleep(0)
        assert not waiting.done()
        bus.forget(subscription, absent=True)
        await waiting
        bus.forget(subscription, absent=False)
        again = asyncio.create_task(bus.drained())
        await asyncio.sleep(0)
        assert not again.done()
        again.cancel()


async def test_drained_holds_a_recording_back_until_half_is_read() -> None:
    bus = Bus()
    subscription = bus.subscribe("recorder", Vitals, capacity=4)
    bus.subscribe("dashboard", Vitals, policy=Policy.NEWEST)
    for k in range(4):
        bus.publish(vitals(k))
    async with asyncio.timeout(10):
        waiting = asyncio.create_task(bus.drained())
        await subscription.get()
        await asyncio.sleep(0)
        assert not waiting.done()
        await subscription.get()
        await waiting


async def test_drained_and_flushed_end_when_a_stuck_reader_leaves() -> None:
    bus = Bus()
    subscription = bus.subscribe("stuck", Vitals, capacity=1)
    for k in range(3):
        bus.publish(vitals(k))
    async with asyncio.timeout(10):
        waiting = [asyncio.create_task(bus.drained()), asyncio.create_task(flushed(bus))]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        bus.unsubscribe(subscription)
        await asyncio.gather(*waiting)


async def test_flushed_waits_for_every_queue() -> None:
    bus = Bus()
    subscription = bus.subscribe("sink", Vitals, policy=Policy.NEWEST)
    await flushed(bus)
    bus.publish(vitals(60))
    async with asyncio.timeout(10):
        waiting = asyncio.create_task(flushed(bus))
        await asyncio.sleep(0)
        assert not waiting.done()
        await subscription.get()
        await waiting


async def test_closing_ends_a_waiting_reader() -> None:
    bus = Bus()
    subscription = bus.subscribe("sink", Vitals)
    async with asyncio.timeout(10):
        with bus:
            reader = asyncio.create_task(read(bus, subscription))
            await asyncio.sleep(0)
        assert await reader == []


async def test_a_listener_is_called_before_publish_returns() -> None:
    bus, heard = Bus(), []
    bus.listen(heard.append, Vitals)
    bus.publish(vitals(60))
    bus.publish(trace(0))
    assert heard == [vitals(60)]


def test_mistakes_are_refused() -> None:
    bus = Bus()
    with pytest.raises(ValueError, match="names no event types"):
        bus.subscribe("nothing")
    with pytest.raises(ValueError, match="capacity=0"):
        bus.subscribe("none", Vitals, capacity=0)


def test_the_bus_knows_which_events_anybody_takes() -> None:
    bus = Bus()
    assert not bus.wanted(Vitals)
    alarms, everything = bus.subscribe("alarms", Alarm), bus.subscribe("all", Event)
    assert bus.wanted(Vitals)
    assert not bus.wanted(Trace)
    bus.unsubscribe(everything)
    assert bus.wanted(Alarm)
    assert not bus.wanted(Vitals)
    bus.listen(lambda _: None, Technical)
    assert bus.wanted(Technical)
    bus.unsubscribe(alarms)
    assert not bus.wanted(Alarm)
