"""Adapters with every fault: whatever they raise, forget or flood with is a lost connection that is tried again."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ecgnat_stream.clock import ManualClock
from ecgnat_stream.device import Device, LinkState, SuperviseConfig, stream_device, supervise, try_device
from ecgnat_stream.errors import ConfigError, DeviceError
from ecgnat_stream.signal import SampleBlock, StreamInfo
from ecgnat_stream.wire import MAX_LEADS

INFO = StreamInfo(fs=250, leads=("II",), device="odd")


def block(start: int, length: int = 25) -> SampleBlock:
    return SampleBlock(start, np.zeros((1, length), np.float32), 0)


class Odd:
    """A device that works, until a test puts a fault in one of its methods."""

    def __init__(self, clock: ManualClock, info: Any = INFO) -> None:
        self.clock, self.info = clock, info
        self.left = 0

    async def __aenter__(self) -> Any:
        return self.info

    async def __aexit__(self, *args: object) -> bool | None:
        self.left += 1
        return None

    async def __aiter__(self) -> AsyncIterator[Any]:
        for start in itertools.count(0, 25):
            await self.wait(0.1)
            yield self.at(block(start))

    async def wait(self, seconds: float) -> None:
        await self.clock.sleep_until(self.clock.monotonic_ns() + round(seconds * 1e9))

    def at(self, one: SampleBlock) -> SampleBlock:
        return replace(one, t_ns=self.clock.monotonic_ns())


class Link:
    """A supervised device on a manual clock, and what came of it."""

    def __init__(self, open_link: Callable[[ManualClock], Device], accepts: Any = None, **config: Any) -> None:
        self.clock = ManualClock()
        self.items: list[Any] = []
        given = SuperviseConfig(**{"jitter": 0.0, "backoff_first_s": 1.0, **config})
        self.watched = supervise(lambda: open_link(self.clock), self.clock, given, random.Random(0), accepts)
        self.task = asyncio.create_task(self._collect())

    async def _collect(self) -> None:
        async with aclosing(self.watched) as items:  # type: ignore[type-var]
            async for item in items:
                self.items.append(item)

    async def advance(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        if self.task.done():
            self.task.result()

    async def close(self) -> None:
        self.task.cancel()
        for _ in range(3):
            await self.clock.advance(5)
        assert self.task.done()

    @property
    def states(self) -> list[str]:
        return [item.state for item in self.items if isinstance(item, LinkState)]

    @property
    def details(self) -> list[str]:
        return [item.detail for item in self.items if isinstance(item, LinkState) and item.detail]

    @property
    def starts(self) -> list[int]:
        return [item.start for item in self.items if isinstance(item, SampleBlock)]


class Wordless(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise ZeroDivisionError


RAISED: list[Callable[[], BaseException]] = [
    lambda: ConnectionResetError("by peer"),
    lambda: ValueError("a bug"),
    asyncio.CancelledError,
    lambda: ExceptionGroup("several", [OSError("a"), KeyError("b")]),
    lambda: BaseExceptionGroup("several", [asyncio.CancelledError(), SystemExit(3)]),
    StopAsyncIteration,
    StopIteration,
    lambda: SystemExit(1),
    MemoryError,
    TimeoutError,
    RecursionError,
    lambda: DeviceError("permanent, it says", permanent=True),
    lambda: ConfigError("since when"),
    Wordless,
]


@pytest.mark.parametrize("raised", RAISED)
async def test_whatever_a_device_that_has_delivered_raises_is_a_lost_connection(raised: Callable[[], BaseException]) -> None:
    class Failing(Odd):
        async def __aiter__(self) -> AsyncIterator[Any]:
            yield self.at(block(0))
            raise raised()

    link = Link(Failing)
    await link.advance(2.5)
    assert link.states == ["connecting", "online", "offline"] * 2
    assert all(link.details)
    assert link.starts == [0, 250]
    await link.close()


@pytest.mark.parametrize("raised", RAISED[:-3])
@pytest.mark.parametrize("where", ["open", "enter", "anext"])
async def test_whatever_is_raised_before_the_first_sample_is_tried_again(raised: Callable[[], BaseException], where: str) -> None:
    class Failing(Odd):
        async def __aenter__(self) -> Any:
            if where == "enter":
                raise raised()
            return self.info

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> Any:
            raise raised()

    def make(clock: ManualClock) -> Device:
        if where == "open":
            raise raised()
        return Failing(clock)

    link = Link(make)
    await link.advance(1.5)
    assert [state for state in link.states if state != "online"] == ["connecting", "offline"] * 2
    await link.close()


@pytest.mark.parametrize("error", [ConfigError("no such option"), DeviceError("no such file", permanent=True)])
async def test_what_can_never_be_opened_ends_before_it_has_delivered(error: Exception) -> None:
    def make(clock: ManualClock) -> Device:
        raise error

    link = Link(make)
    await link.advance(60)
    assert link.states == ["connecting", "offline"]
    assert link.task.done()


async def test_a_recording_that_breaks_for_good_ends() -> None:
    class Broken(Odd):
        async def __aiter__(self) -> AsyncIterator[Any]:
            yield self.at(block(0))
            raise DeviceError("cannot be read", permanent=True)

    link = Link(lambda clock: Broken(clock, replace(INFO, live=False)))
    await link.advance(60)
    assert link.states == ["connecting", "online", "offline"]
    assert link.task.done()


@pytest.mark.parametrize(("info", "ends"), [(INFO, False), (replace(INFO, live=False), True), (replace(INFO, total=25), True)])
async def test_only_a_recording_ends(info: StreamInfo, ends: bool) -> None:
    class Short(Odd):
        async def __aiter__(self) -> AsyncIterator[Any]:
            yield self.at(block(0))

    link = Link(lambda clock: Short(clock, info))
    await link.advance(0.5)
    assert link.states == ["connecting", "online", "ended" if ends else "offline"]
    assert link.task.done() is ends
    await link.close()


async def test_an_iterator_that_is_used_up_stays_lost_and_is_not_ended() -> None:
    async def once() -> AsyncIterator[np.ndarray]:
        yield np.zeros(25)

    clock = ManualClock()
    device = stream_device(once(), fs=250, leads=["II"], clock=clock)
    link = Link(lambda _: device)
    await link.advance(20)
    assert "ended" not in link.states
    assert link.states[-1] == "offline"
    assert not link.task.done()
    await link.close()


async def test_leads_that_the_receiver_cannot_take_end_a_new_device_and_are_tried_again_later() -> None:
    names = iter([("II",), ("X9",), ("X9",), ("II",)])

    def accepts(info: StreamInfo) -> None:
        if info.leads == ("X9",):
            raise ConfigError("unknown lead name 'X9'")

    class Renamed(Odd):
        async def __aenter__(self) -> Any:
            return replace(self.info, leads=next(names))

        async def __aiter__(self) -> AsyncIterator[Any]:
            yield self.at(block(0))
            raise OSError("gone")

    link = Link(Renamed, accepts)
    await link.advance(8)
    assert len(link.starts) == 2
    assert link.details.count("unknown lead name 'X9'") == 2
    await link.close()
    names = iter([("X9",)])
    link = Link(Renamed, accepts)
    await link.advance(8)
    assert link.task.done()


class Clinging(Odd):
    """Does not let go."""

    swallows = False

    async def __aiter__(self) -> AsyncIterator[Any]:
        yield self.at(block(0))
        raise OSError("gone")

    async def __aexit__(self, *args: object) -> None:
        while True:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                if self.swallows:
                    continue
                raise


async def test_a_device_that_hangs_while_disconnecting_is_cut_off_and_tried_again() -> None:
    link = Link(Clinging, disconnect_s=2.0)
    await link.advance(1)
    assert link.states == ["connecting", "online", "offline"], "the loss is said before the device has let go"
    await link.advance(2.5)
    assert link.states == ["connecting", "online", "offline"] * 2
    await link.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("device")]


async def test_connections_that_nothing_ends_are_left_behind_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clinging, "swallows", True)
    link = Link(Clinging, disconnect_s=1.0, backoff_max_s=1.0)
    await link.advance(60)
    assert link.states.count("connecting") == 8
    assert "does not let go of 8 connections" in link.details[-1]
    monkeypatch.setattr(Clinging, "swallows", False)
    stuck = [task for task in asyncio.all_tasks() if task.get_name().startswith("device link")]
    assert len(stuck) == 8
    for task in stuck:
        task.cancel()
    await link.advance(1)
    assert link.states.count("connecting") == 9
    await link.close()


async def test_a_device_that_swallows_errors_and_cancellation_cannot_hide_a_malformed_block() -> None:
    class Swallowing(Odd):
        async def __aexit__(self, *args: object) -> bool:
            return True

        async def __aiter__(self) -> AsyncIterator[Any]:
            yield "no block"

    link = Link(Swallowing)
    await link.advance(0.5)
    assert link.states[-1] == "offline"
    assert "it delivers a str" in link.details[-1]
    await link.close()


async def test_a_device_that_raises_while_disconnecting_is_tried_again() -> None:
    class Raising(Clinging):
        async def __aexit__(self, *args: object) -> None:
            raise RuntimeError("socket closed twice")

    link = Link(Raising)
    await link.advance(1.5)
    assert link.states == ["connecting", "online", "offline"] * 2
    assert link.details[0] == "OSError: gone"
    await link.close()


async def test_one_device_object_serves_every_connection() -> None:
    class Short(Odd):
        async def __aiter__(self) -> AsyncIterator[Any]:
            yield self.at(block(0))
            raise OSError("gone")

    devices: list[Short] = []

    def same(clock: ManualClock) -> Device:
        devices[:] = devices or [Short(clock)]
        return devices[0]

    link = Link(same)
    await link.advance(8)
    assert len(link.starts) == 4
    assert devices[0].left == 4
    await link.close()


@pytest.mark.parametrize("repeating", [True, False])
async def test_a_device_that_never_waits_does_not_hold_the_loop(repeating: bool) -> None:
    class Flood(Odd):
        def __aiter__(self) -> Any:
            self.count = itertools.count()
            return self

        async def __anext__(self) -> Any:
            return self.at(block(0 if repeating else 25 * next(self.count)))

    link = Link(Flood)
    turns = 0
    for _ in range(200):
        await asyncio.sleep(0)
        turns += 1
        await link.advance(0)
    assert turns == 200
    await link.close()


async def test_a_device_that_floods_is_disconnected() -> None:
    class Flood(Odd):
        async def __aiter__(self) -> AsyncIterator[Any]:
            for start in itertools.count(0, 2500):
                yield self.at(block(start, 2500))

    link = Link(Flood)
    await link.advance(0.2)
    assert link.states == ["connecting", "online", "offline"]
    assert "runs ahead of time" in link.details[-1]
    assert len(link.starts) <= 60
    await link.close()


async def test_a_counter_that_begins_again_is_a_new_connection_at_once() -> None:
    class Restarting(Odd):
        async def __aiter__(self) -> AsyncIterator[Any]:
            for start in [*range(0, 2500, 25), *range(0, 2500, 25)]:
                await self.wait(0.1)
                yield self.at(block(start))

    link = Link(Restarting)
    await link.advance(10.05)
    assert link.states == ["connecting", "online"]
    await link.advance(0.1)
    assert link.states == ["connecting", "online", "offline"]
    assert "its sample counter has begun again at 0" in link.details[-1]
    await link.advance(2)
    assert link.states[-1] == "online"
    assert len({item.session for item in link.items if isinstance(item, LinkState)}) == 2
    assert link.starts == sorted(set(link.starts))
    await link.close()


async def test_a_counter_that_falls_back_somewhere_is_found_within_a_second() -> None:
    class Falling(Odd):
        async def __aiter__(self) -> AsyncIterator[Any]:
            for start in [*range(50_000, 52_500, 25), *range(10_000, 12_500, 25)]:
                await self.wait(0.1)
                yield self.at(block(start))

    link = Link(Falling)
    await link.advance(10.0)
    await link.advance(1.2)
    assert link.states == ["connecting", "online", "online", "offline"]
    assert "dropped samples" in link.details[0]
    assert "begun again at 10225" in link.details[1]
    await link.close()


async def test_samples_that_are_sent_twice_are_dropped_and_nothing_is_lost() -> None:
    class Resending(Odd):
        async def __aiter__(self) -> AsyncIterator[Any]:
            for start in itertools.count(50_000, 25):
                await self.wait(0.1)
                if start == 52_500:
                    for old in range(51_000, 52_500, 25):
                        yield self.at(block(old))
                yield self.at(block(start))

    link = Link(Resending)
    await link.advance(30)
    assert link.states == ["connecting", "online", "online"]
    assert link.starts[-1] - link.starts[0] == 25 * (len(link.starts) - 1)
    await link.close()


async def test_repeating_the_last_samples_for_ever_is_a_stall_and_then_a_lost_connection() -> None:
    class Stuck(Odd):
        async def __aiter__(self) -> AsyncIterator[Any]:
            yield self.at(block(1000))
            while True:
                await self.wait(0.1)
                yield self.at(block(1000))

    link = Link(Stuck, stall_s=3, reconnect_s=10)
    await link.advance(9.9)
    assert link.states == ["connecting", "online", "online", "stalled"]
    assert link.details[-1] == "only samples that were there before for 3 s"
    await link.advance(0.2)
    assert link.states[-1] == "offline"
    await link.close()


async def test_values_that_are_all_missing_are_samples() -> None:
    class Empty(Odd):
        async def __aiter__(self) -> AsyncIterator[Any]:
            for start in itertools.count(0, 25):
                await self.wait(0.1)
                yield self.at(replace(block(start), samples=np.full((1, 25), np.nan, np.float32)))

    link = Link(Empty)
    await link.advance(30)
    assert link.states == ["connecting", "online"]
    await link.close()


@pytest.mark.parametrize(
    "given",
    [
        None,
        "block",
        SampleBlock(0, [[0.0]], 0),  # type: ignore[arg-type]
        SampleBlock(0.5, np.zeros((1, 5), np.float32), 0),  # type: ignore[arg-type]
        SampleBlock(10**30, np.zeros((1, 5), np.float32), 0),
        SampleBlock(0, np.zeros((1, 5), np.float32), float("nan")),  # type: ignore[arg-type]
        SampleBlock(0, np.broadcast_to(np.float32(0), (1, 10**12)), 0),
    ],
)
async def test_what_is_no_block_takes_the_link_down(given: Any) -> None:
    class Wrong(Odd):
        async def __aiter__(self) -> AsyncIterator[Any]:
            yield given

    link = Link(Wrong)
    await link.advance(0.5)
    assert link.states == ["connecting", "online", "offline"]
    await link.close()


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (None, "connecting gives a NoneType"),
        (replace(INFO, fs="250"), "sampling rate of"),  # type: ignore[arg-type]
        (replace(INFO, fs=float("inf")), "sampling rate of inf Hz"),
        (replace(INFO, leads=("II", " ")), "one of its leads has no name"),
        (replace(INFO, leads=("II", 5)), "one of its leads has no name"),  # type: ignore[arg-type]
        (replace(INFO, leads=tuple(f"CH{i}" for i in range(MAX_LEADS + 1))), "it has 33 leads: at most 32"),
        *[(replace(INFO, uv_per_lsb=step), "uv_per_lsb") for step in (0.0, -1.0, float("nan"), float("inf"), 1e50, 1e-50)],
        (replace(INFO, total=0), "total 0"),
        (replace(INFO, total=10**4000), r"total \(int\)"),
        (replace(INFO, pace=0.0), "pace 0"),
    ],
)
async def test_a_stream_is_checked_where_it_begins(info: Any, said: str) -> None:
    link = Link(lambda clock: Odd(clock, info))
    await link.advance(5)
    assert link.states == ["connecting", "offline"]
    assert link.task.done()
    with pytest.raises(DeviceError, match=said):
        await try_device(lambda: Odd(ManualClock(), info))


async def test_names_from_outside_are_cleaned_and_lead_off_still_means_the_lead() -> None:
    raw = "V1\x1b[2J" + "x" * 10_000
    info = replace(INFO, leads=("II", raw), device="evil\x1b]0;title\x07\nname")

    class Naming(Odd):
        async def __aiter__(self) -> AsyncIterator[Any]:
            samples = np.zeros((2, 25), np.float32)
            yield self.at(SampleBlock(0, samples, 0, frozenset({raw, "unheard of"})))
            raise OSError("\x1b[31m" + "y" * 100_000)

    link = Link(lambda clock: Naming(clock, info))
    await link.advance(0.5)
    told = next(item for item in link.items if isinstance(item, StreamInfo))
    got = next(item for item in link.items if isinstance(item, SampleBlock))
    assert "\x1b" not in told.device + "".join(told.leads) + "".join(link.details)
    assert max(map(len, (*told.leads, *link.details))) <= 300
    assert got.lead_off == {told.leads[1]}
    await link.close()


async def test_a_long_block_is_worked_on_in_pieces() -> None:
    class Whole(Odd):
        async def __aiter__(self) -> AsyncIterator[Any]:
            yield self.at(SampleBlock(0, np.arange(250_000, dtype=np.float32)[None], 0))

    link = Link(lambda clock: Whole(clock, replace(INFO, live=False)))
    await link.advance(0.5)
    parts = [item for item in link.items if isinstance(item, SampleBlock)]
    assert max(part.samples.shape[1] for part in parts) == 2500
    assert np.array_equal(np.concatenate([part.samples for part in parts], axis=1)[0], np.arange(250_000))


async def test_a_device_whose_times_are_all_zero_comes_back() -> None:
    class Timeless(Odd):
        async def __aiter__(self) -> AsyncIterator[Any]:
            for start in (0, 25, 50):
                yield block(start)
            raise OSError("gone")

    link = Link(Timeless)
    await link.advance(1.5)
    assert link.starts == [0, 25, 50, 75, 100, 125]
    await link.close()
