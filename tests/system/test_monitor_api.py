"""The monitor as a program uses it: ``async with Monitor(...)``, devices as objects, events as an async iterator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from ecgnat_devices.simulate import SimulateDevice, SimulateOptions
from ecgnat_stream.bus import Bus, Policy
from ecgnat_stream.clock import SystemClock
from ecgnat_stream.config import BedConfig, Config, parse_config
from ecgnat_stream.device import Device, stream_device
from ecgnat_stream.errors import ConfigError, DeviceError, EcgnatError
from ecgnat_stream.events import Alarm, Beat, DeviceStatus, EngineStatus, Event, Meta, Rhythm, Vitals, Wave
from ecgnat_stream.model import ModelConfig
from ecgnat_stream.monitor import Monitor

SCRIPT = [{"rhythm": "sinus", "seconds": 10}, {"rhythm": "asystole", "seconds": 8}]


def simulated(seed: int = 3) -> Device:
    options = {"script": SCRIPT, "loop": False, "speed": "max", "seed": seed, "leads": ["II"]}
    return SimulateDevice(msgspec.convert(options, SimulateOptions), SystemClock())


@pytest.fixture
def config(untrained: Path) -> Config:
    return Config(model=ModelConfig(name=str(untrained), threads=1))


async def test_events_of_a_device_come_in_order_and_end_with_the_recording(config: Config) -> None:
    async with asyncio.timeout(60):
        async with Monitor(config, devices={"one": simulated()}) as monitor:
            assert monitor.beds == ("site/unit/one",)
            events = [event async for event in monitor.events(Beat, Alarm, Meta)]
    assert {type(event) for event in events} == {Beat, Alarm, Meta}
    assert isinstance(events[0], Meta), "nothing is missed"
    beats = [event.at_s for event in events if isinstance(event, Beat)]
    assert len(beats) > 8
    assert beats == sorted(beats)
    assert "asystole" in [event.condition for event in events if isinstance(event, Alarm)]
    assert not monitor.failures


async def test_without_types_every_event_comes_but_no_waveform(config: Config) -> None:
    async with Monitor(config, devices={"one": simulated()}) as monitor:
        kinds = {type(event) async for event in monitor.events()}
    assert {Beat, Vitals, Rhythm, DeviceStatus, EngineStatus} <= kinds
    assert Wave not in kinds


async def test_two_readers_get_the_same_and_the_newest_is_enough_for_one(config: Config) -> None:
    async with Monitor(config, devices={"one": simulated()}) as monitor:
        every, newest = monitor.events(Vitals), monitor.events(Vitals, policy=Policy.NEWEST)
        seen = [event async for event in every]
        last = [event async for event in newest]
    assert len(seen) > 10
    assert last == seen[-1:]


async def test_leaving_early_stops_and_leaves_no_task(config: Config) -> None:
    before = asyncio.all_tasks()
    async with asyncio.timeout(60):
        async with Monitor(config, devices={"one": simulated(), "two": simulated(4)}) as monitor:
            async for event in monitor.events(Beat):
                if event.at_s is not None and event.at_s > 2:
                    break
    assert asyncio.all_tasks() <= before


async def test_a_reader_that_stops_reading_does_not_hold_the_others_up(config: Config) -> None:
    async with asyncio.timeout(60):
        async with Monitor(config, devices={"one": simulated()}) as monitor:
            async for _ in monitor.events(Event):
                break
            beats = [event async for event in monitor.events(Beat)]
    assert len(beats) > 5


async def test_stop_ends_a_live_monitor(config: Config) -> None:
    async def flat() -> AsyncIterator[np.ndarray]:
        while True:
            yield np.zeros(25)
            await asyncio.sleep(0.01)

    async with asyncio.timeout(60):
        async with Monitor(config, devices={"one": stream_device(flat, fs=250, leads=["II"])}) as monitor:
            async for event in monitor.events(Vitals):
                assert event.heart_rate_bpm is None
                monitor.stop()
    assert "two" not in monitor.beds


async def test_what_cannot_be_started_is_raised_and_nobody_waits_for_ever(config: Config, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    broken = parse_config({"record": {"directory": str(blocked / "inside")}, "model": {"name": str(config.model.name)}})
    with pytest.raises(EcgnatError):
        async with asyncio.timeout(60):
            async with Monitor(broken, devices={"one": simulated()}) as monitor:
                async for _ in monitor.events():
                    pass


async def test_an_error_of_the_program_comes_through_and_the_monitor_stops(config: Config) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with Monitor(config, devices={"one": simulated()}) as monitor:
            async for _ in monitor.events(Beat):
                raise KeyError("mine")


async def test_a_monitor_runs_once(config: Config) -> None:
    monitor = Monitor(config, devices={"one": simulated()})
    async with monitor:
        monitor.stop()
    with pytest.raises(EcgnatError, match="runs once"):
        async with monitor:
            pass


class Collector:
    """A sink as somebody would write it."""

    def __init__(self, bus: Bus) -> None:
        self._events = bus.subscribe("collector", Alarm)
        self.conditions: list[str] = []

    async def run(self) -> None:
        async for event in self._events:
            assert isinstance(event, Alarm)
            self.conditions.append(event.condition)


@pytest.mark.parametrize("late", [False, True])
async def test_a_sink_is_added_before_or_within_the_block(config: Config, late: bool) -> None:
    monitor = Monitor(config, devices={"one": simulated()})
    sinks = [] if late else [Collector(monitor.bus)]
    for sink in sinks:
        monitor.add(sink)
    async with monitor:
        started = monitor.events(Meta)
        if late:
            await anext(started)
            sinks.append(Collector(monitor.bus))
            monitor.add(sinks[0])
        async for _ in monitor.events(Beat):
            pass
    assert "asystole" in sinks[0].conditions


async def test_a_configured_bed_keeps_its_settings_with_a_device_given_as_an_object(untrained: Path) -> None:
    async def strange() -> AsyncIterator[np.ndarray]:
        yield np.zeros((1, 250))

    bed = BedConfig(id="7", unit="icu", lead_map={"X1": "V5"}, alarm={"hr_high_bpm": 100})
    config = Config(site="home", bed=(bed,), model=ModelConfig(name=str(untrained), threads=1))
    device = stream_device(strange, fs=250, leads=["X1"], live=False)
    async with Monitor(config, devices={"7": lambda: device}) as monitor:
        assert monitor.beds == ("home/icu/7",)
        metas = [event async for event in monitor.events(Meta)]
    assert metas[0].used_as == ("V5",)
    assert not monitor.failures


def test_a_bed_without_a_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="bed 1: it has no device"):
        Monitor(parse_config({"bed": [{"id": "1"}]}))


async def test_what_is_no_event_is_refused() -> None:
    monitor = Monitor(devices={"one": simulated()})
    for wrong in (int, "Alarm"):
        strange: Any = wrong
        with pytest.raises(ConfigError, match="give classes of events"):
            monitor.events(strange)


async def test_events_are_refused_by_a_monitor_that_has_ended_or_was_never_started(config: Config) -> None:
    monitor = Monitor(config, devices={"one": simulated()})
    with pytest.raises(EcgnatError, match="was not started"):
        await anext(monitor.events(Beat))
    async with monitor:
        monitor.stop()
    with pytest.raises(EcgnatError, match="has ended"):
        monitor.events(Beat)


async def test_events_may_be_read_beside_a_task_that_runs_the_monitor(config: Config) -> None:
    monitor = Monitor(config, devices={"one": simulated()})
    running = asyncio.create_task(monitor.run())
    assert [event async for event in monitor.events(Meta)]
    await running


async def test_devices_that_can_never_work_are_an_error_and_one_among_others_is_told(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    async def wrong() -> AsyncIterator[np.ndarray]:
        yield np.zeros((25, 2))

    broken = stream_device(wrong, fs=250, leads=["II"], name="amplifier")
    with pytest.raises(DeviceError, match=r"site/unit/one: amplifier: an array has the shape \(25, 2\)"):
        async with Monitor(config, devices={"one": broken}) as monitor:
            async for _ in monitor.events(Rhythm):
                pass
    async with Monitor(config, devices={"one": broken, "two": simulated()}) as monitor:
        async for _ in monitor.events(Rhythm):
            pass
    assert "site/unit/one: amplifier: an array has the shape" in caplog.text


def test_settings_are_a_config_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "ward.toml"
    file.write_text('site = "home"\n[[bed]]\nid = "7"\ndevice = "simulate"\n')
    assert Monitor(file).beds == Monitor(str(file)).beds == ("home/unit/7",)
    wrong: Any = {"bed": []}
    with pytest.raises(ConfigError, match="config is a dict: give a Config, or the path of a TOML file"):
        Monitor(wrong)
    for devices in ([1], {"one": 1}):
        strange: Any = devices
        with pytest.raises(ConfigError, match="devices: give a dictionary"):
            Monitor(devices=strange)
