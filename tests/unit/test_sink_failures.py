"""A sink that fails leaves the bus: nobody waits for a queue that nobody reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ecgnat_stream.bus import Bus
from ecgnat_stream.clock import ManualClock
from ecgnat_stream.events import Beat
from ecgnat_stream.sink import zmq
from ecgnat_stream.sink.dashboard import Dashboard
from ecgnat_stream.sink.jsonl import JsonLinesSink


class Broken(Exception):  # noqa: N818 - stands for a defect of a sink
    """A defect that no sink foresees."""


class BrokenStream:
    """A text stream that cannot be written to."""

    def write(self, _: str) -> int:
        raise Broken

    def flush(self) -> None:
        raise Broken


def break_down(*_: object, **__: object) -> None:
    raise Broken


def zmq_sink(bus: Bus, _: Path) -> Any:
    return zmq.ZmqSink(zmq.ZmqConfig(bind="tcp://127.0.0.1:*"), bus, ManualClock())


def jsonl_sink(bus: Bus, _: Path) -> Any:
    return JsonLinesSink(bus, BrokenStream())  # type: ignore[arg-type]


BREAK: dict[Callable[[Bus, Path], Any], tuple[str, ...]] = {
    zmq_sink: ("ecgnat_stream.sink.zmq.sink.wire.topic",),
    jsonl_sink: (),
}


@pytest.mark.parametrize("make", [zmq_sink, jsonl_sink])
async def test_a_recording_does_not_wait_for_a_sink_that_has_failed(
    make: Callable[[Bus, Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = Bus()
    sink = make(bus, tmp_path)
    for name in BREAK[make]:
        monkeypatch.setattr(name, break_down)
    beat = Beat(bed="home/icu/1", time=datetime(2026, 1, 1, tzinfo=UTC), sample=0)
    bus.publish(beat)
    with pytest.raises((Broken, ExceptionGroup)):
        await asyncio.wait_for(sink.run(), 15)
    if hasattr(sink, "subscription"):
        sink.subscription.absent = True  # as the monitor does before it starts the sink again
    else:
        assert bus.statistics() == {}
    for _ in range(10_000):
        bus.publish(beat)
    await asyncio.wait_for(bus.drained(), 15)


async def test_a_dashboard_that_cannot_be_shown_leaves_the_bus() -> None:
    bus = Bus()
    dashboard = Dashboard(bus, ManualClock())
    dashboard.app.run_async = break_down  # type: ignore[assignment]
    with pytest.raises(Broken):
        await dashboard.run(headless=True)
    assert bus.statistics() == {}
