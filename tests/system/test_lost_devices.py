"""From a device's fault to the alarm: what a bed says while its device repeats itself, ends, or fails for ever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest

from ecgnat_stream.bus import Published
from ecgnat_stream.clock import ManualClock
from ecgnat_stream.config import BedConfig, Config, parse_config
from ecgnat_stream.device import LinkState, SuperviseConfig, open_device, supervise
from ecgnat_stream.events import Alarm, DeviceStatus, Vitals
from ecgnat_stream.signal import SampleBlock, StreamInfo
from ecgnat_stream.ward import Ward

FS = 250
INFO = StreamInfo(fs=FS, leads=("II",), device="scripted")


class Chain:
    """A supervised device, a ward behind it, and everything that is published."""

    def __init__(self, blocks: Callable[[], AsyncIterator[SampleBlock]], clock: ManualClock) -> None:
        self.clock, self.said = clock, []  # type: ignore[var-annotated]
        self.ward = Ward(parse_config({"bed": [{"id": "a", "device": "simulate"}]}), clock, self._hear)
        self._blocks = blocks
        self.task = asyncio.create_task(self._intake())

    def _hear(self, event: Published) -> None:
        self.said.append((self.clock.monotonic_ns() / 1e9 - 1, event))

    async def __aenter__(self) -> StreamInfo:
        return INFO

    async def __aexit__(self, *args: object) -> None:
        pass

    def __aiter__(self) -> AsyncIterator[SampleBlock]:
        return self._blocks()

    async def _intake(self) -> None:
        config = SuperviseConfig(jitter=0.0)
        async with aclosing(supervise(lambda: self, self.clock, config, random.Random(0))) as items:  # type: ignore[type-var]
            async for item in items:
                for part in self.ward.parts(0, item):
                    while not self.ward.make_way(0, part):
                        self.ward.advance()
                    self.ward.accept(0, part)
                while self.ward.advance():
                    pass
                while windows := self.ward.next_batch():
                    self.ward.fail(windows, "no network here")

    async def run(self, seconds: int) -> None:
        for _ in range(seconds):
            await self.clock.advance(1)
            self.ward.tick()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def alarms(self, condition: str) -> list[tuple[float, str]]:
        return [(at, event.phase) for at, event in self.said if isinstance(event, Alarm) and event.condition == condition]

    def rates(self, from_s: float) -> list[float | None]:
        return [event.heart_rate_bpm for at, event in self.said if isinstance(event, Vitals) and at >= from_s]


async def heart(seconds: int) -> np.ndarray:
    script = [{"rhythm": "sinus", "seconds": seconds}]
    options: dict[str, Any] = {"script": script, "loop": False, "speed": "max", "leads": ["II"], "fs": float(FS)}
    device = open_device("simulate", options, ManualClock())
    async with device:
        return np.concatenate([block.samples async for block in device], axis=1)


def paced(clock: ManualClock, samples: np.ndarray, start: int) -> AsyncIterator[SampleBlock]:
    async def blocks() -> AsyncIterator[SampleBlock]:
        for at in range(0, samples.shape[1], 50):
            await clock.sleep_until(clock.monotonic_ns() + 200_000_000)
            yield SampleBlock(start + at, samples[:, at : at + 50], clock.monotonic_ns())

    return blocks()


@pytest.mark.parametrize("again_at", [0, 1500], ids=["from zero", "from somewhere"])
async def test_a_heart_that_stops_while_the_counter_begins_again_is_seen(again_at: int) -> None:
    clock, beating = ManualClock(), await heart(20)
    tremor = np.random.default_rng(0).normal(0, 0.01, (1, 30 * FS)).astype(np.float32)
    calls = 0

    async def blocks() -> AsyncIterator[SampleBlock]:
        nonlocal calls
        calls += 1
        if calls == 1:
            async for block in paced(clock, beating, 0):
                yield block
        async for block in paced(clock, tremor, again_at):
            yield block

    chain = Chain(blocks, clock)
    await chain.run(45)
    (lost_s, phase), *_ = chain.alarms("no-data")
    assert phase == "start"
    assert 20 <= lost_s < 21.5
    # What was there of the signal is still worked off in the instant of the loss, then nothing is left standing.
    assert not any(chain.rates(lost_s + 0.01)), "no heart rate stands of a heart that is not seen"
    assert calls == 2


async def test_a_patients_stream_that_ends_again_and_again_keeps_its_alarm() -> None:
    clock = ManualClock()

    async def blocks() -> AsyncIterator[SampleBlock]:
        async for block in paced(clock, np.zeros((1, 100), np.float32), 0):
            yield block
        raise asyncio.CancelledError

    chain = Chain(blocks, clock)
    await chain.run(60)
    assert chain.task.cancelled(), "it was still trying"
    states = [event.state for _, event in chain.said if isinstance(event, DeviceStatus)]
    assert states.count("offline") > 3
    assert "ended" not in states
    assert {phase for _, phase in chain.alarms("no-data")} <= {"start", "return", "end"}
    assert chain.alarms("no-data")[-1][1] != "end" or states[-1] == "online"


def test_a_device_that_gives_minutes_at_once_is_worked_on_in_turns() -> None:
    clock = ManualClock()
    ward = Ward(Config(bed=(BedConfig(id="a"),)), clock, lambda _: None)
    ward.accept(0, StreamInfo(fs=250.0, leads=("II",), device="kept it", live=True))
    minute = SampleBlock(0, np.zeros((1, 60 * 250), np.float32), clock.monotonic_ns())
    parts = list(ward.parts(0, minute))
    taken = 0
    while taken < len(parts) and ward.make_way(0, parts[taken]):
        ward.accept(0, parts[taken])
        taken += 1
    assert 0 < taken < len(parts), "the rest waits until there is room: nothing is overwritten"
    assert not ward.make_way(0, LinkState("offline", "gone")), "what is there is worked off first, not at once"
    turns = 0
    while not ward.make_way(0, LinkState("offline", "gone")):
        ward.advance()
        turns += 1
    assert 1 <= turns < 20
