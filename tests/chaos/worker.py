"""The monitor process: ``python -m tests.chaos.worker FOLDER``. As ``ecgnat run --headless``, with the plan's devices.

Besides, it measures how late its event loop is: a task that wants to run every 20 ms notes by how much it ran later, and how much
of that its thread only waited for a processor (schedstat), which other programs of the machine can cause. A thread of its own
notes where the loop stands while it does not run.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
import traceback
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from ecgnat_stream.cli.guard import Guard, guarded
from ecgnat_stream.clock import SystemClock
from ecgnat_stream.config import load_config
from ecgnat_stream.monitor import Monitor
from ecgnat_stream.sink.jsonl import JsonLinesSink
from tests.chaos.devices import HeartDevice, Truth
from tests.chaos.hearts import Heart
from tests.chaos.plan import read_plan

BEAT_S = 0.02
STANDS_S = 0.2
UNREAD_FD = "ECGNAT_CHAOS_UNREAD"
"""Number of a pipe that nobody reads: another receiver of JSON lines."""
NOTES = "ECGNAT_CHAOS_NOTES"
"""Folder within the harness's for the configuration and the notes of the devices and of the loop watch."""
CONFIGURATION = "monitor.toml"
"""File within that folder."""
CLOCK = "clock"
"""File within the harness's folder that holds by how many seconds the wall clock has been set, if it has."""


def wall(setting: Path) -> datetime:
    """Return the wall time, as somebody has set it."""
    offset_s = float(setting.read_text() or 0) if setting.exists() else 0.0
    return datetime.now(UTC) + timedelta(seconds=offset_s)


class LoopWatch:
    """How late the event loop is, once a second into a file: ``{"t", "late_s", "own_s"}``, and stands of more than 0.2 s."""

    def __init__(self, path: Path, t0_ns: int) -> None:
        self._file = path.open("a", buffering=1, encoding="utf-8")
        self._t0_ns = t0_ns
        self._beat_ns = time.monotonic_ns()
        self._schedstat = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        self._loop_thread = threading.get_ident()
        threading.Thread(target=self._watch, name="loop watch", daemon=True).start()

    def _waited_s(self) -> float:
        try:
            return int(self._schedstat.read_text().split()[1]) / 1e9
        except (OSError, IndexError):
            return 0.0

    def _say(self, **what: object) -> None:
        self._file.write(json.dumps({"t": (time.monotonic_ns() - self._t0_ns) / 1e9, **what}) + "\n")

    async def run(self) -> None:
        """Measure until cancelled."""
        worst = own = 0.0
        said = time.monotonic()
        while True:
            before, waited = time.monotonic(), self._waited_s()
            await asyncio.sleep(BEAT_S)
            self._beat_ns = time.monotonic_ns()
            late = time.monotonic() - before - BEAT_S
            worst, own = max(worst, late), max(own, late - (self._waited_s() - waited))
            if time.monotonic() - said >= 1.0:
                self._say(late_s=round(worst, 4), own_s=round(own, 4))
                worst = own = 0.0
                said = time.monotonic()

    def _watch(self) -> None:
        told = 0
        while True:
            time.sleep(STANDS_S / 2)
            beat_ns = self._beat_ns
            if time.monotonic_ns() - beat_ns > STANDS_S * 1e9 and told != beat_ns:
                told = beat_ns
                frame = sys._current_frames().get(self._loop_thread)
                stack = traceback.extract_stack(frame)[-6:] if frame else []
                self._say(stands=[f"{Path(part.filename).name}:{part.lineno} {part.name}" for part in stack])


async def monitor(folder: Path, guard: Guard) -> None:
    """Monitor until told to end."""
    plan = read_plan(folder / "plan.json")
    notes = folder / os.environ.get(NOTES, "")
    watch = LoopWatch(notes / "loop.jsonl", plan.t0_ns)
    hearts = {bed: Heart(folder, bed, plan.t0_ns) for bed in plan.beds}
    truth = Truth(notes / "truth.jsonl", hearts[plan.beds[0]].now_s)
    devices = {bed: partial(HeartDevice, bed, hearts[bed], plan.of(bed), truth) for bed in plan.beds}
    config = load_config(notes / CONFIGURATION)
    instance = Monitor(config, SystemClock(wall=partial(wall, folder / CLOCK)), devices=devices)
    instance.add(JsonLinesSink(instance.bus, sys.stdout), essential=True)
    if unread := os.environ.get(UNREAD_FD):
        instance.add(JsonLinesSink(instance.bus, os.fdopen(int(unread), "w")))
    loop = asyncio.get_running_loop()

    def heard(_: int) -> None:
        loop.call_soon_threadsafe(instance.stop)

    watching = asyncio.create_task(watch.run(), name="loop watch")
    guard.watch(heard, lambda: instance.watched_ns, config.watchdog.loop_s)
    try:
        await instance.run()
    finally:
        guard.leave()
        watching.cancel()
    for what, why in instance.failures.items():
        print(f"{what}: {why}", file=sys.stderr)


if __name__ == "__main__":
    with guarded() as made:
        asyncio.run(monitor(Path(sys.argv[1]), made))
