"""Opening devices by name, and supervising links: reconnection, stalls, indices, faults."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ecgnat_stream.clock import ManualClock
from ecgnat_stream.device import Device, LinkState, SuperviseConfig, device_names, open_device, supervise
from ecgnat_stream.errors import ConfigError, DeviceError
from ecgnat_stream.signal import SampleBlock, StreamInfo
from ecgnat_stream.testing import InstantClock, ScriptedDevice, ScriptedOptions, Step

INFO = StreamInfo(fs=250, leads=("II",), device="scripted")


def _block(start: int, length: int = 25, value: float = 0.0) -> SampleBlock:
    return SampleBlock(start, np.full((1, length), value, np.float32), 0)


def _steps(count: int, first_s: float = 0.1, start: int = 0) -> tuple[Step, ...]:
    return tuple(Step(first_s + 0.1 * i, _block(start + 25 * i)) for i in range(count))


class _Run:
    """Supervises a series of scripted devices on a manual clock, and collects what comes."""

    def __init__(self, scripts: list[ScriptedOptions], **config: Any) -> None:
        self.clock = ManualClock()
        self.devices: list[ScriptedDevice] = []
        self.items: list[tuple[float, Any]] = []
        self._scripts: Iterator[ScriptedOptions] = iter(scripts)
        self._config = SuperviseConfig(**({"jitter": 0.0} | config))
        self._begun_ns = self.clock.monotonic_ns()
        self.task = asyncio.create_task(self._collect())

    def _open(self) -> Device:
        self.devices.append(ScriptedDevice(next(self._scripts, ScriptedOptions(info=DeviceError("no more"))), self.clock))
        return self.devices[-1]

    async def _collect(self) -> None:
        async with aclosing(supervise(self._open, self.clock, self._config, random.Random(0))) as items:  # type: ignore[type-var]
            async for item in items:
                self.items.append(((self.clock.monotonic_ns() - self._begun_ns) / 1e9, item))

    async def advance(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        if self.task.done():
            self.task.result()

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    @property
    def blocks(self) -> list[SampleBlock]:
        return [item for _, item in self.items if isinstance(item, SampleBlock)]

    @property
    def states(self) -> list[str]:
        return [item.state for _, item in self.items if isinstance(item, LinkState)]

    @property
    def details(self) -> list[str]:
        return [item.detail for _, item in self.items if isinstance(item, LinkState) and item.detail]

    def times(self, state: str) -> list[float]:
        return [round(at, 3) for at, item in self.items if isinstance(item, LinkState) and item.state == state]


@pytest.fixture
async def run() -> Any:
    runs: list[_Run] = []

    def begin(*scripts: ScriptedOptions, **config: Any) -> _Run:
        runs.append(_Run(list(scripts), **config))
        return runs[-1]

    yield begin
    for one in runs:
        await one.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("device")]
    assert all(device.entered == device.left for one in runs for device in one.devices)


Begin = Callable[..., _Run]


async def test_recording_is_delivered_and_ends(run: Begin) -> None:
    one = run(ScriptedOptions(info=replace(INFO, live=False), steps=_steps(5)))
    await one.advance(2)
    assert one.states == ["connecting", "online", "ended"]
    kinds = [type(item).__name__ for _, item in one.items]
    assert kinds == ["LinkState", "StreamInfo", "LinkState", *["SampleBlock"] * 5, "LinkState"]
    assert one.task.done()


async def test_reconnects_with_growing_waits(run: Begin) -> None:
    dead = ScriptedOptions(info=DeviceError("no answer"))
    one = run(*[dead] * 6, backoff_first_s=1, backoff_max_s=5)
    await one.advance(18)
    assert one.times("offline") == [0, 1, 3, 7, 12, 17]
    assert set(one.details) == {"no answer"}


async def test_waits_are_jittered(run: Begin) -> None:
    dead = ScriptedOptions(info=DeviceError("no answer"))
    one = run(*[dead] * 4, backoff_first_s=1, jitter=0.5)
    await one.advance(20)
    waits = np.diff(one.times("offline"))[:3]
    assert all(0.5 * wait <= got <= wait for got, wait in zip(waits, (1, 2, 4), strict=True))
    assert list(waits) != [1, 2, 4]


async def test_a_link_that_was_stable_starts_with_the_first_wait(run: Begin) -> None:
    dead = ScriptedOptions(info=DeviceError("no answer"))
    good = ScriptedOptions(info=INFO, steps=(*_steps(20), Step(2.0, DeviceError("cable pulled"))))
    one = run(dead, dead, good, dead, dead, backoff_first_s=1, stable_s=1.5)
    await one.advance(12)
    assert one.times("offline")[:5] == [0, 1, 5, 6, 8]


async def test_permanent_error_ends(run: Begin) -> None:
    one = run(ScriptedOptions(info=DeviceError("no such file", permanent=True)))
    await one.advance(60)
    assert one.states == ["connecting", "offline"]
    assert one.task.done()


async def test_indices_continue_with_the_time_lost(run: Begin) -> None:
    first = ScriptedOptions(info=INFO, steps=(*_steps(4), Step(0.4, DeviceError("gone"))))
    one = run(first, ScriptedOptions(info=INFO, steps=_steps(3), silent_end=True), backoff_first_s=2)
    await one.advance(2.8)
    assert [block.start for block in one.blocks] == [0, 25, 50, 75, 600, 625, 650]
    assert [item.session for _, item in one.items if isinstance(item, LinkState)] == [1, 1, 1, 2, 2]


async def test_indices_after_a_change_of_rate(run: Begin) -> None:
    first = ScriptedOptions(info=INFO, steps=(*_steps(4), Step(0.4, DeviceError("gone"))))
    second = ScriptedOptions(info=replace(INFO, fs=500), steps=(Step(0.05, _block(1000)),), silent_end=True)
    one = run(first, second, backoff_first_s=2)
    await one.advance(3)
    assert [block.start for block in one.blocks] == [0, 25, 50, 75, 1200]
    assert [item.fs for _, item in one.items if isinstance(item, StreamInfo)] == [250, 500]


async def test_silence_is_a_stall_then_a_new_connection(run: Begin) -> None:
    silent = ScriptedOptions(info=INFO, steps=_steps(2), silent_end=True)
    one = run(silent, ScriptedOptions(info=INFO, steps=_steps(200)), stall_s=3, reconnect_s=10, backoff_first_s=1)
    await one.advance(12)
    assert one.states == ["connecting", "online", "stalled", "offline", "connecting", "online"]
    assert one.times("stalled") == [3.2]
    assert one.times("offline") == [10.2]
    assert one.devices[0].left == 1


async def test_a_stalled_device_comes_back_by_itself(run: Begin) -> None:
    one = run(ScriptedOptions(info=INFO, steps=(*_steps(2), *_steps(2, 5.0, 1225)), silent_end=True))
    await one.advance(6)
    assert one.states == ["connecting", "online", "stalled", "online"]
    assert [block.start for block in one.blocks] == [0, 25, 1225, 1250]


async def test_a_recording_never_stalls(run: Begin) -> None:
    one = run(ScriptedOptions(info=replace(INFO, live=False), steps=_steps(2), silent_end=True))
    await one.advance(100)
    assert one.states == ["connecting", "online"]


async def test_connecting_has_its_limit(run: Begin) -> None:
    one = run(ScriptedOptions(info=INFO, connect_s=60), connect_s=5)
    await one.advance(5.1)
    assert one.states == ["connecting", "offline"]
    assert one.details == ["no connection for 5 s"]


class _Recorded(ScriptedDevice):
    recorded = True


async def test_opening_a_recording_takes_as_long_as_it_takes_and_is_said() -> None:
    clock, items = ManualClock(), []
    info = replace(INFO, live=True, pace=0.5, recorded=True, total=50)
    steps = (Step(0.1, _block(0)), Step(500.0, _block(25)))
    script = ScriptedOptions(info=info, steps=steps, connect_s=3600.0)

    async def collect() -> None:
        async with aclosing(supervise(lambda: _Recorded(script, clock), clock, SuperviseConfig(jitter=0.0))) as link:
            async for item in link:
                items.append(item)

    task = asyncio.create_task(collect())
    await clock.advance(3599)
    assert items == [LinkState("connecting", "the recording is being opened", 1, True)]
    await clock.advance(502)
    await task
    assert [item.state for item in items if isinstance(item, LinkState)] == ["connecting", "online", "ended"]
    assert sum(item.samples.shape[1] for item in items if isinstance(item, SampleBlock)) == 50


async def test_what_opens_a_recording_is_left_at_once() -> None:
    clock = ManualClock()
    script = ScriptedOptions(info=INFO, connect_s=1e6)
    link = supervise(lambda: _Recorded(script, clock), clock, SuperviseConfig(disconnect_s=0.1))
    assert isinstance(await anext(link), LinkState)
    closing = asyncio.create_task(link.aclose())
    await clock.advance(0.2)
    assert closing.done()


async def test_overlap_is_dropped_and_said_once(run: Begin) -> None:
    blocks = (_block(0), _block(10), _block(0), _block(25))
    steps = tuple(Step(0.1 * (i + 1), block) for i, block in enumerate(blocks))
    one = run(ScriptedOptions(info=INFO, steps=steps, silent_end=True))
    await one.advance(1)
    assert [block.start for block in one.blocks] == [0, 25]
    assert len(one.details) == 1
    assert "dropped samples 10 to 35" in one.details[0]
    assert one.states[-1] == "online"


async def test_infinite_values_become_missing(run: Begin) -> None:
    block = _block(0)
    block.samples[0, 5] = np.inf
    block.samples[0, 6] = -np.inf
    one = run(ScriptedOptions(info=INFO, steps=(Step(0.1, block),), silent_end=True))
    await one.advance(1)
    assert np.flatnonzero(np.isnan(one.blocks[0].samples[0])).tolist() == [5, 6]
    assert "infinite" in one.details[0]
    assert np.isinf(block.samples).sum() == 2


@pytest.mark.parametrize(
    "block",
    [
        SampleBlock(0, np.zeros((2, 25), np.float32), 0),
        SampleBlock(0, np.zeros((1, 25), np.float64), 0),  # type: ignore[arg-type]
        SampleBlock(0, np.zeros((1, 0), np.float32), 0),
        SampleBlock(0, np.zeros(25, np.float32), 0),
        SampleBlock(-5, np.zeros((1, 25), np.float32), 0),
    ],
)
async def test_a_malformed_block_takes_the_link_down(run: Begin, block: SampleBlock) -> None:
    one = run(ScriptedOptions(info=INFO, steps=(Step(0.1, block),)), backoff_first_s=5)
    await one.advance(1)
    assert one.states == ["connecting", "online", "offline"]
    assert not one.blocks


@pytest.mark.parametrize(
    "info", [replace(INFO, fs=50), replace(INFO, fs=0), replace(INFO, fs=float("nan")), replace(INFO, leads=())]
)
async def test_an_unusable_stream_ends(run: Begin, info: StreamInfo) -> None:
    one = run(ScriptedOptions(info=info, steps=_steps(3)))
    await one.advance(1)
    assert one.states == ["connecting", "offline"]
    assert one.task.done()


async def test_a_slow_receiver_holds_a_recording_back() -> None:
    clock = InstantClock()
    device = ScriptedDevice(ScriptedOptions(info=replace(INFO, live=False), steps=_steps(100)), clock)
    got = []
    async with aclosing(supervise(lambda: device, clock)) as items:  # type: ignore[type-var]
        async for item in items:
            if isinstance(item, SampleBlock):
                got.append(item.start)
                for _ in range(50):
                    await asyncio.sleep(0)
                assert (clock.monotonic_ns() - 1_000_000_000) / 1e9 < 0.1 * len(got) + 1.2
    assert got == [25 * i for i in range(100)]


async def test_leaving_early_disconnects() -> None:
    clock = InstantClock()
    device = ScriptedDevice(ScriptedOptions(info=INFO, steps=_steps(100)), clock)
    before = asyncio.all_tasks()
    async with aclosing(supervise(lambda: device, clock)) as items:  # type: ignore[type-var]
        async for item in items:
            if isinstance(item, SampleBlock):
                break
    assert device.left == 1
    assert asyncio.all_tasks() == before


def test_unknown_device_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"'holter'.*replay.*simulate"):
        open_device("holter", {}, ManualClock())


def test_installed_devices() -> None:
    assert {"replay", "simulate"} <= set(device_names())
    assert isinstance(open_device("simulate", {}, ManualClock()), Device)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"noise": 1}, r"unknown option 'noise': did you mean noise_mv\?"),
        ({"fs": "fast"}, r"device 'simulate': option fs: .*float.*str"),
        (
            {"script": [{"rhythm": "vf", "seconds": 3, "size": 2}]},
            r"option script\[0\]\.size: unknown key 'size': there are rhythm",
        ),
        ({"script": [{"rhythm": "vf"}]}, r"option script\[0\]\.seconds: missing"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_device("simulate", options, ManualClock())
