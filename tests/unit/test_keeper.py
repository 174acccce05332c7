"""The keeper of the sinks: one that fails is started again and goes on, none is waited for beyond the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from ecgnat_stream.bus import Bus
from ecgnat_stream.clock import ManualClock
from ecgnat_stream.events import Vitals
from ecgnat_stream.sink.keeper import Keeper

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def vitals(bpm: float) -> Vitals:
    return Vitals(bed="home/a/1", time=NOW, heart_rate_bpm=bpm)


class Fragile:
    """A sink that cannot bear certain values."""

    def __init__(self, bus: Bus, breaks: Callable[[float], BaseException | None]) -> None:
        self.subscription = bus.subscribe("fragile", Vitals, capacity=4)
        self.breaks = breaks
        self.seen: list[float] = []
        self.runs = 0

    async def run(self) -> None:
        self.runs += 1
        async for event in self.subscription:
            assert isinstance(event, Vitals)
            assert event.heart_rate_bpm is not None
            error = self.breaks(event.heart_rate_bpm)
            if error is not None:
                raise error
            self.seen.append(event.heart_rate_bpm)


class Kept:
    def __init__(self) -> None:
        self.clock, self.bus = ManualClock(), Bus()
        self.said: list[tuple[str, str]] = []
        self.stopped = asyncio.Event()
        self.keeper = Keeper(
            self.bus,
            self.clock,
            lambda name, why: self.said.append((name, why)),
            lambda name: self.said.append((name, "works")),
            self.stopped.set,
        )

    async def close(self) -> list[str]:
        self.bus.close()
        async with asyncio.timeout(20):
            return await self.keeper.close(self.stopped.wait())


@pytest.mark.parametrize("error", [ZeroDivisionError("scale"), ExceptionGroup("tasks", [OSError()]), asyncio.CancelledError()])
async def test_a_sink_that_fails_goes_on_behind_what_it_could_not_handle(error: BaseException) -> None:
    kept = Kept()
    sink = Fragile(kept.bus, lambda bpm: error if bpm == 2 else None)
    kept.keeper.add(sink, essential=False)
    kept.keeper.start()
    for bpm in (1, 2, 3):
        kept.bus.publish(vitals(bpm))
    await kept.clock.advance(0.4)
    assert sink.seen == [1]
    await kept.clock.advance(0.2)
    assert sink.seen == [1, 3]
    assert [why for _, why in kept.said] == [f"{type(error).__name__}: {error}"]
    await kept.clock.advance(5.0)
    assert kept.said[1:] == [("Fragile", "works")]
    assert await kept.close() == []
    assert kept.bus.statistics() == {}


async def test_a_sink_that_always_fails_is_tried_ever_more_rarely_and_no_recording_waits_for_it() -> None:
    kept = Kept()
    sink = Fragile(kept.bus, lambda _: OSError("no space"))
    kept.keeper.add(sink, essential=False)
    kept.keeper.start()
    for _ in range(200):
        for _ in range(3):
            kept.bus.publish(vitals(60))
        await kept.bus.drained()
        await kept.clock.advance(1.0)
    assert 8 < sink.runs < 16, "0.5, 1, 2, 4, 8, 16, 30, 30 ... s apart"
    assert ("Fragile", "works") not in kept.said
    assert len(sink.subscription) <= 16
    await kept.close()


async def test_a_sink_that_waits_for_its_next_start_gets_a_last_one_at_the_end() -> None:
    kept = Kept()
    sink = Fragile(kept.bus, lambda bpm: OSError() if bpm == 1 else None)
    kept.keeper.add(sink, essential=False)
    kept.keeper.start()
    kept.bus.publish(vitals(1))
    kept.bus.publish(vitals(2))
    await kept.clock.advance(0.1)
    assert await kept.close() == []
    assert sink.seen == [2]


async def test_a_sink_that_does_not_end_is_left_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        async def run(self) -> None:
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    if released.is_set():
                        raise

    released = asyncio.Event()
    monkeypatch.setattr("ecgnat_stream.sink.keeper._CLOSE_S", 0.05)
    kept = Kept()
    kept.keeper.add(Stuck(), essential=False)
    kept.keeper.start()
    await asyncio.sleep(0)
    assert await kept.close() == ["Stuck"]
    released.set()
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "Stuck")
    task.cancel()


async def test_an_essential_sink_that_ends_ends_the_monitoring() -> None:
    kept = Kept()
    sink = Fragile(kept.bus, lambda _: None)
    kept.keeper.add(sink, essential=True)
    kept.keeper.start()
    kept.bus.unsubscribe(sink.subscription)
    async with asyncio.timeout(5):
        await kept.stopped.wait()
    assert await kept.close() == []


async def test_a_sink_that_ends_by_itself_is_told() -> None:
    class Brief:
        async def run(self) -> None:
            return

    kept = Kept()
    kept.keeper.add(Brief(), essential=False)
    kept.keeper.start()
    await kept.clock.advance(0.1)
    assert kept.said == [("Brief", "it has ended by itself")]
    assert await kept.close() == []
