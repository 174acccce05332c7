"""JSON lines: every event with its type, in order; a closed pipe ends the sink and nothing else."""

from __future__ import annotations

import asyncio
import io
import json
import os
from datetime import UTC, datetime

import numpy as np

from ecgnat_stream.bus import Bus
from ecgnat_stream.events import Technical, Trace, Vitals
from ecgnat_stream.sink.jsonl import JsonLinesSink
from ecgnat_stream.testing import flushed

NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def test_events_are_lines_and_waveforms_are_left_out() -> None:
    bus, stream = Bus(), io.StringIO()
    sink = JsonLinesSink(bus, stream)
    with bus:
        bus.publish(Vitals(bed="a/b/c", time=NOW, heart_rate_bpm=float("nan")))
        bus.publish(Trace("a/b/c", NOW, 0.0, np.zeros((12, 40), np.float32)))
        for k in range(1500):
            bus.publish(Technical(bed="a/b/c", time=NOW, condition=f"c{k}", present=True))
    await sink.run()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    first = {"type": "vitals", "bed": "a/b/c", "time": "2026-01-01T00:00:00Z", "at_s": None}
    assert lines[0] == first | {"heart_rate_bpm": None, "rr_ms": None, "pvc_per_min": None}
    assert [line["condition"] for line in lines[1:]] == [f"c{k}" for k in range(1500)]


async def test_a_closed_pipe_ends_the_sink_and_frees_the_bus() -> None:
    bus = Bus()
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    sink = JsonLinesSink(bus, stream)
    bus.publish(Vitals(bed="a/b/c", time=NOW, heart_rate_bpm=60))
    async with asyncio.timeout(10):
        await sink.run()
        bus.publish(Vitals(bed="a/b/c", time=NOW, heart_rate_bpm=61))
        await flushed(bus)
    assert bus.statistics() == {}
    try:
        stream.close()
    except BrokenPipeError:
        assert stream.closed
