"""The watchdog in the whole monitor: whatever stops the judging of a bed, an alarm says so within the bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgnat_stream.clock import ManualClock
from ecgnat_stream.config import BedConfig, Config
from ecgnat_stream.device import Device, stream_device
from ecgnat_stream.errors import WatchdogError
from ecgnat_stream.events import Alarm, DeviceStatus, EngineStatus
from ecgnat_stream.model import ModelConfig
from ecgnat_stream.monitor import Monitor
from ecgnat_stream.signal import SampleBlock
from ecgnat_stream.ward.bed import Bed

FS = 250
_t = np.arange(10 * FS) / FS
HEART = (np.exp(-(((_t % 0.8) - 0.4) ** 2) / 2e-4) + 0.02 * np.sin(40 * _t)).astype(np.float32)
"""Ten seconds at 75 bpm."""


class Ward:
    """A monitor of one live bed on a manual clock; the heart beats in blocks of 0.2 s."""

    def __init__(self, untrained: Path) -> None:
        self.clock = ManualClock()
        config = Config(bed=(BedConfig(id="a"),), model=ModelConfig(name=str(untrained), threads=1))
        self.monitor = Monitor(config, self.clock, devices={"a": self.device()})
        self.alarms: list[Alarm] = []
        self.statuses: list[EngineStatus] = []
        self.monitor.bus.listen(self.alarms.append, Alarm)  # type: ignore[arg-type]
        self.monitor.bus.listen(self.statuses.append, EngineStatus)  # type: ignore[arg-type]

    def device(self) -> Callable[[], Device]:
        async def heart() -> AsyncIterator[np.ndarray[Any, Any]]:
            block = 0
            while True:
                yield np.roll(HEART, -block * 50)[:50]
                block += 1
                await self.clock.sleep_until(self.clock.monotonic_ns() + 200_000_000)

        return lambda: stream_device(heart, fs=FS, leads=["II"], clock=self.clock)

    async def pass_s(self, seconds: float) -> None:
        for _ in range(round(seconds * 5)):
            await self.clock.advance(0.2)
            await asyncio.sleep(0.002)  # the network has a thread of its own

    def on(self, condition: str) -> bool:
        said = [alarm for alarm in self.alarms if alarm.condition == condition]
        return bool(said) and said[-1].presence == "on"


async def test_a_bed_whose_signal_reaches_nobody_is_told(untrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ward = Ward(untrained)
    async with ward.monitor:
        await ward.pass_s(12)
        assert not ward.on("unwatched")
        assert (ward.statuses[-1].judged, ward.statuses[-1].explained) == (1, 0)
        advance = ward.monitor._ward.advance
        monkeypatch.setattr(ward.monitor._ward, "advance", lambda: False)  # all is well, and nothing is done
        await ward.pass_s(7.5)
        assert ward.on("unwatched")
        assert not ward.on("no-data")
        assert [alarm.priority for alarm in ward.alarms if alarm.condition == "unwatched"] == ["high"]
        monkeypatch.setattr(ward.monitor._ward, "advance", advance)
        await ward.pass_s(3)
        assert not ward.on("unwatched")


async def test_a_task_that_is_cancelled_behind_our_back_is_told(untrained: Path) -> None:
    ward = Ward(untrained)
    async with ward.monitor:
        await ward.pass_s(5)
        (intake,) = (task for task in asyncio.all_tasks() if task.get_name() == "intake site/unit/a")
        intake.cancel()
        await ward.pass_s(8)
        assert ward.on("unwatched") or ward.on("no-data")


async def test_a_watchdog_that_dies_ends_the_monitor(untrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ward = Ward(untrained)

    def bark() -> None:
        raise ZeroDivisionError("dead")

    monitor = ward.monitor
    with pytest.raises(WatchdogError, match="the watchdog has failed: ZeroDivisionError: dead"):
        async with monitor:
            await ward.pass_s(2)
            monkeypatch.setattr(monitor._watchdog, "check", bark)
            await ward.pass_s(2)
            assert monitor._running is not None
            await asyncio.wait([monitor._running], timeout=30)  # it ends by itself
            assert monitor._ended


async def test_a_watchdog_that_is_cancelled_ends_the_monitor(untrained: Path) -> None:
    ward = Ward(untrained)
    with pytest.raises(WatchdogError, match="_watch was cancelled"):
        async with ward.monitor:
            await ward.pass_s(2)
            (watch,) = (task for task in asyncio.all_tasks() if task.get_name() == "_watch")
            watch.cancel()
            await ward.pass_s(1)


async def test_an_alarm_that_cannot_be_raised_ends_the_monitor(untrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ward = Ward(untrained)
    with pytest.raises(WatchdogError, match="is unwatched, and the alarm that says so is not on"):
        async with ward.monitor:
            await ward.pass_s(2)
            monkeypatch.setattr(ward.monitor._ward, "advance", lambda: False)
            monkeypatch.setattr(ward.monitor._ward, "technical", lambda event: None)
            await ward.pass_s(10)


async def test_a_defect_while_taking_one_block_costs_a_bed_that_block(untrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ward = Ward(untrained)
    states: list[str] = []
    ward.monitor.bus.listen(lambda event: states.append(event.state), DeviceStatus)  # type: ignore[union-attr]
    fill = ward.monitor._ward._fill
    broken = iter([True])

    def fragile(row: int, bed: Bed, block: SampleBlock, *, far: bool = False) -> None:
        if block.start > 1000 and next(broken, False):
            raise ZeroDivisionError("a defect")
        fill(row, bed, block, far=far)

    monkeypatch.setattr(ward.monitor._ward, "_fill", fragile)
    async with ward.monitor:
        await ward.pass_s(8)
        assert states == ["connecting", "online", "offline", "online"]
        assert ("no-data", "start") in [(alarm.condition, alarm.phase) for alarm in ward.alarms]
        assert not ward.on("no-data")
        assert not ward.monitor.failures
