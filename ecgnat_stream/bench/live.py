"""One trial: a number of live beds for some seconds, in a process of its own.

The clock of a label runs from the moment at which its last sample was due. Nothing is measured before every bed has had a label,
and for some seconds after.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ecgnat_stream.bench.feeder import FEEDER, Feeder, leads_of, patients
from ecgnat_stream.bench.report import StageCost, Trial
from ecgnat_stream.bench.stages import ORDER, Stopwatch, held, python_threads
from ecgnat_stream.clock import SystemClock
from ecgnat_stream.config import parse_config
from ecgnat_stream.errors import EcgnatError
from ecgnat_stream.events import Rhythm, Technical
from ecgnat_stream.model import reading_mode
from ecgnat_stream.monitor import Monitor

__all__ = ["LATEST_MS", "SINKS", "LiveTask", "resident_mb", "run_live", "trial"]

LATEST_MS = 500.0
"""Labels that come later are late: 99 of 100 have to come within this time."""

SINKS = ("jsonl", "zmq", "history", "record")

_TOO_SLOW = ("overload", "gap", "model-late", "model-failed", "worker-lost")
"""Technical conditions that say that the monitor does not keep up, or not as a whole."""

_HEARD_S = 90.0
"""Longest wait for a label of every bed; the network is loaded meanwhile."""

_FEWER = 0.9
"""With less than this share of the labels per bed of the smallest trial, beds are passed over."""

_INTERPRETER = [sys.executable, "-m", "ecgnat_stream.bench"]


class LiveTask(msgspec.Struct, frozen=True, kw_only=True):
    """What to run.

    Parameters
    ----------
    model
        Table ``[model]`` of the configuration.
    sinks
        Any of :data:`SINKS`; JSON lines go to nobody, the others to a folder that is removed.
    settle_s
        Time between the first labels and the measurement.
    stages
        Whether to find out where the time goes; takes some time itself.
    labels_per_bed_s
        What is expected of every bed, None if nothing is known.
    """

    beds: int
    leads: int = 2
    fs: float = 250.0
    seconds: float = 20.0
    settle_s: float = 3.0
    model: dict[str, Any] = {}
    sinks: tuple[str, ...] = ()
    stages: bool = False
    labels_per_bed_s: float | None = None


def trial(task: LiveTask) -> Trial:
    """Run a trial in a fresh process.

    Raises
    ------
    EcgnatError
        If the process ends with an error, or not at all.
    """
    limit_s = _HEARD_S + task.settle_s + 4 * task.seconds + 120
    given = msgspec.json.encode(task)
    try:
        done = subprocess.run(_INTERPRETER, input=given, capture_output=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        raise EcgnatError(f"a trial of {task.beds} beds did not end within {limit_s:.0f} s") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise EcgnatError(f"a trial of {task.beds} beds failed: {words[-1] if words else f'exit code {done.returncode}'}")
    return msgspec.json.decode(done.stdout, type=Trial)


async def run_live(task: LiveTask) -> Trial:
    """Run a trial in this process."""
    clock, leads = SystemClock(), leads_of(task.leads)
    feeder = Feeder(await patients(leads, task.fs), task.beds, task.fs, leads, clock)
    names = [f"bed-{row}" for row in range(task.beds)]
    table = {"site": "bench", "bed": [{"id": name, "device": "simulate"} for name in names]}
    watch = Stopwatch()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ecgnat-bench-")))
        config = parse_config(table | ({"model": task.model} if task.model else {}) | _sink_tables(task.sinks, folder))
        stack.enter_context(watch.started() if task.stages else nullcontext())
        monitor = Monitor(config, clock, devices=dict(zip(names, feeder.devices, strict=True)))
        if "jsonl" in task.sinks:
            _to_nobody(monitor, stack)
        ear = _Ear(task.beds)
        monitor.bus.listen(ear, Rhythm, Technical)
        feeding = asyncio.create_task(feeder.run(), name=FEEDER)
        running = asyncio.create_task(monitor.run(), name="monitor")
        try:
            return await _measured(task, monitor, feeder, ear, watch)
        finally:
            feeding.cancel()
            monitor.stop()
            with suppress(asyncio.CancelledError):
                await feeding
            await running


def _to_nobody(monitor: Monitor, stack: AsyncExitStack) -> None:
    from ecgnat_stream.sink.jsonl import JsonLinesSink

    monitor.add(JsonLinesSink(monitor.bus, stack.enter_context(open(os.devnull, "w", encoding="utf-8"))))  # noqa: SIM115


class _Ear:
    """Hears the labels and what is wrong."""

    def __init__(self, beds: int) -> None:
        self._missing = beds
        self._heard: set[str] = set()
        self.all_heard = asyncio.Event()
        self.latency_ms: list[float] = []
        self.wrong: list[str] = []

    def __call__(self, event: object) -> None:
        if isinstance(event, Rhythm):
            self.latency_ms.append((event.timing.published_ns - event.timing.last_sample_ns) / 1e6)
            if event.bed not in self._heard:
                self._heard.add(event.bed)
                if len(self._heard) == self._missing:
                    self.all_heard.set()
        elif isinstance(event, Technical) and event.present and event.condition in _TOO_SLOW:
            self.wrong.append(event.condition)

    @property
    def silent(self) -> int:
        return self._missing - len(self._heard)

    def clear(self) -> None:
        self.latency_ms.clear()
        self.wrong.clear()


async def _measured(task: LiveTask, monitor: Monitor, feeder: Feeder, ear: _Ear, watch: Stopwatch) -> Trial:
    with suppress(TimeoutError):
        async with asyncio.timeout(_HEARD_S):
            await ear.all_heard.wait()
    await asyncio.sleep(task.settle_s)
    ear.clear()
    watch.clear()
    skipped, load, threads = monitor.skipped_windows, feeder.cost_s, python_threads()
    began, process, loop = time.monotonic(), time.process_time(), time.thread_time()
    await asyncio.sleep(task.seconds)
    took = time.monotonic() - began
    process, loop = time.process_time() - process, time.thread_time() - loop
    load, skipped = feeder.cost_s - load, monitor.skipped_windows - skipped
    after = python_threads()
    threads = {name: s - threads.get(name, 0.0) for name, s in after.items()}
    latency, wrong, silent = np.array(ear.latency_ms), tuple(sorted(set(ear.wrong))), ear.silent
    per = 1e3 / (task.beds * took)
    labels = len(latency) / (task.beds * took)
    p50, p99, worst = (round(float(q), 1) for q in np.percentile(latency, [50, 99, 100])) if len(latency) else (None, None, None)
    why = _against(task, p99, skipped, wrong, silent, labels, monitor.failures)
    network = sum(s for name, s in threads.items() if name.startswith("model"))
    return Trial(
        beds=task.beds,
        leads=task.leads,
        fs=task.fs,
        seconds=round(took, 2),
        model=monitor.model,
        mode=reading_mode(monitor.config.model),
        labels=len(latency),
        labels_per_bed_s=round(labels, 3),
        p50_ms=p50,
        p99_ms=p99,
        worst_ms=worst,
        skipped=skipped,
        late=wrong,
        silent=silent,
        cpu_ms=round(max(0.0, process - load) * per, 4),
        loop_ms=round(max(0.0, loop - load) * per, 4),
        network_ms=round(network * per, 4),
        load_ms=round(load * per, 4),
        cores_used=round(max(0.0, process - load) / took, 3),
        rss_mb=round(resident_mb(), 1),
        sustained=not why,
        why=why,
        stages=_stage_costs(task, watch, max(0.0, loop - load), threads, process - load, took) if task.stages else (),
    )


def _against(
    task: LiveTask,
    p99: float | None,
    skipped: int,
    wrong: tuple[str, ...],
    silent: int,
    labels: float,
    failures: Mapping[str, str],
) -> str:
    """Return what speaks against calling the beds carried; "" if nothing does."""
    found = []
    if failures:
        found.append("; ".join(f"{what}: {why}" for what, why in list(failures.items())[:3]))
    if silent:
        found.append(f"{silent} of {task.beds} beds without a label")
    if p99 is not None and p99 > LATEST_MS:
        found.append(f"p99 {p99:.0f} ms is beyond {LATEST_MS:.0f}")
    if skipped:
        found.append(f"{skipped} windows skipped")
    if wrong:
        found.append(f"it says {', '.join(wrong)}")
    if task.labels_per_bed_s is not None and labels < _FEWER * task.labels_per_bed_s:
        found.append(f"{labels:.2f} labels per bed and second, {task.labels_per_bed_s:.2f} with few beds")
    return "; ".join(found)


def _stage_costs(
    task: LiveTask, watch: Stopwatch, loop_s: float, threads: Mapping[str, float], process_s: float, took: float
) -> tuple[StageCost, ...]:
    spent, bytes_held = watch.shares(loop_s), held()
    network = sum(s for name, s in threads.items() if name.startswith("model"))
    spent["network"] = spent.get("network", 0.0) + network
    spent["sinks"] = spent.get("sinks", 0.0) + max(0.0, process_s - loop_s - network)  # their threads, and nothing else is left
    per = task.beds * took
    return tuple(
        StageCost(
            stage=stage,
            ms_per_bed_s=round(1e3 * spent.get(stage, 0.0) / per, 4),
            kb_per_bed=round(bytes_held.get(stage, 0) / task.beds / 1e3, 1),
            bytes_per_bed_s=round(watch.moved.get(stage, 0) / per, 1),
        )
        for stage in ORDER
    )


def _sink_tables(sinks: tuple[str, ...], folder: Path) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    if "zmq" in sinks:
        tables["zmq"] = {"bind": f"ipc://{folder}/zmq"}
    if "history" in sinks:
        tables["history"] = {"path": str(folder / "alarms.db")}
    if "record" in sinks:
        tables["record"] = {"directory": str(folder / "record")}
    return tables


def resident_mb() -> float:
    """Return the memory of this process that is in use, MB; where the system does not say it, the most that ever was."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / 1e6 if sys.platform == "darwin" else most / 1e3
