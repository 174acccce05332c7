"""JSON lines: every event with its type, in order; a closed pipe ends the sink and nothing else."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgnat_stream.bus import Bus
from ecgnat_stream.clock import ManualClock
from ecgnat_stream.events import Alarm, Technical, Trace, Vitals
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


def alarm(sequence: int, **changes: Any) -> Alarm:
    about = {
        "condition": "asystole",
        "kind": "physiological",
        "priority": "high",
        "phase": "start",
        "presence": "on",
        "text": "x",
    }
    ids = {"sequence": sequence, "alarm_id": f"a{sequence}", "event_id": f"e{sequence}"}
    return Alarm(bed="a/b/c", time=NOW, **(about | ids | changes))  # type: ignore[arg-type]


async def test_a_stream_that_fails_once_does_not_end_the_sink_for_good() -> None:
    class Stream(io.StringIO):
        broken = True

        def write(self, text: str) -> int:
            if self.broken:
                raise RuntimeError("a defect that nothing foresees")
            return super().write(text)

    bus, stream = Bus(), Stream()
    sink = JsonLinesSink(bus, stream)
    bus.publish(alarm(1))
    with pytest.raises(RuntimeError):
        await asyncio.wait_for(sink.run(), 15)
    stream.broken = False
    bus.publish(alarm(2))
    bus.close()
    await sink.run()
    assert [json.loads(line)["sequence"] for line in stream.getvalue().splitlines()] == [2]
    assert bus.statistics() == {}


async def test_an_event_that_cannot_be_json_is_left_out_and_counted_and_the_others_are_written() -> None:
    bus, stream = Bus(), io.StringIO()
    sink = JsonLinesSink(bus, stream)
    for event in (alarm(1), alarm(2, alarm_id=object()), alarm(3)):
        bus.publish(event)
    bus.close()
    await sink.run()
    assert [json.loads(line)["sequence"] for line in stream.getvalue().splitlines()] == [1, 3]
    assert (sink.alarms_delivered, sink.alarms_lost) == (2, 1)


async def test_a_pipe_that_nobody_reads_holds_nothing_and_says_what_was_lost_when_it_is_read_again() -> None:
    bus = Bus()
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as pipe, os.fdopen(writer, "w") as stream:
        sink = JsonLinesSink(bus, stream)
        running = asyncio.create_task(sink.run())
        bus.publish(alarm(0, text="x" * 500_000))
        await flushed(bus)
        assert (sink.alarms_delivered, sink.alarms_lost) == (0, 0)
        for number in range(1, 40_011):
            bus.publish(Vitals(bed="a/b/c", time=NOW, heart_rate_bpm=number))
        bus.publish(alarm(1))
        bus.close()
        lines = asyncio.create_task(asyncio.to_thread(pipe.readlines))
        await asyncio.wait_for(running, 30)
        stream.close()
        events = [json.loads(line) for line in await lines]
    assert sink.subscription.lost > 0
    assert events[1]["detail"] == f"json lines: {sink.subscription.lost} events are missing here, they were not read in time"
    assert events[-1]["event_id"] == "e1"
    assert (sink.alarms_delivered, sink.alarms_lost) == (2, 0)


async def test_a_full_disk_is_waited_for_and_no_line_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bus, clock, room, ordinary = Bus(), ManualClock(), [30], os.write

    def write(descriptor: int, data: memoryview) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = ordinary(descriptor, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr("ecgnat_stream.sink.jsonl.os.write", write)
    with (tmp_path / "events.jsonl").open("w") as stream:
        sink = JsonLinesSink(bus, stream, clock)
        running = asyncio.create_task(sink.run())
        bus.publish(alarm(1))
        await flushed(bus)
        bus.publish(alarm(2))
        bus.close()
        while not running.done():
            if "No space left" in caplog.text:
                room[0] = 1_000_000
            await clock.advance(1.0)
            await asyncio.sleep(0.001)
        await running
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["sequence"] for line in lines] == [1, 2]
    assert (sink.alarms_delivered, sink.alarms_lost) == (2, 0)


async def test_what_a_full_disk_has_not_taken_at_the_end_is_missing() -> None:
    bus, clock = Bus(), ManualClock()
    with os.fdopen(os.open("/dev/full", os.O_WRONLY), "w") as stream:
        sink = JsonLinesSink(bus, stream, clock)
        running = asyncio.create_task(sink.run())
        bus.publish(alarm(1))
        for number in range(2500):
            bus.publish(Vitals(bed="a/b/c", time=NOW, heart_rate_bpm=number))
        bus.close()
        was_absent = False
        while not running.done():
            was_absent |= sink.subscription.absent
            await clock.advance(0.5)
            await asyncio.sleep(0.001)
        await running
        assert was_absent, "no recording waits for it"
        assert "2501 events (1 of alarms) were not written to" in sink.missing["json lines"]
        assert sink.missing["json lines"].endswith(": No space left on device")
    assert (sink.alarms_delivered, sink.alarms_lost) == (0, 1)


STOPPED = """
import asyncio, signal, sys
from datetime import UTC, datetime
from ecgnat_stream.bus import Bus
from ecgnat_stream.events import Vitals
from ecgnat_stream.sink.jsonl import JsonLinesSink
async def main():
    bus = Bus()
    running = asyncio.create_task(JsonLinesSink(bus, sys.stdout).run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    for k in range(9000):
        bus.publish(Vitals(bed="a/b/c", time=datetime.now(UTC), heart_rate_bpm=k))
    await asyncio.sleep(0.5)
    print("full", file=sys.stderr, flush=True)
    await asyncio.wait([running])
asyncio.run(main())
"""


@pytest.mark.timeout(60)
def test_a_process_whose_pipe_nobody_reads_ends_when_it_is_told_to() -> None:
    with subprocess.Popen([sys.executable, "-c", STOPPED], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"full\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == b""
