"""Hours of signal: do memory and latency stay as they are?

Every some seconds of signal a JSON line goes to a file. The same command goes on with that file after an interruption, as a new
process with a number of its own. At the end a line is laid through every process's rows; what rises counts as flat when that
cannot be told from chance, or is too small to matter within a day. What falls does no harm.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
from scipy.stats import theilslopes

from ecgnat_stream.bench.feeder import FEEDER, Feeder, leads_of, patients
from ecgnat_stream.bench.live import resident_mb
from ecgnat_stream.clock import SystemClock
from ecgnat_stream.config import parse_config
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.events import Rhythm
from ecgnat_stream.monitor import Monitor

__all__ = ["SoakOptions", "SoakRow", "Verdict", "read_rows", "soak", "verdicts"]

_FIRST_S = 60.0
"""Rows before are left out: rings and queues fill, and Python's memory with them."""

_FEWEST_ROWS = 5
_A_DAY_MATTERS = 0.25
"""A slope that would not change the level by so much in a day is flat: a process is restarted more often than that."""


class SoakOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to run.

    Parameters
    ----------
    seconds
        Of signal per bed, over all processes.
    live
        In real time; else as fast as possible, where a row's latency is the wall time of a second of signal of all beds.
    every_s
        Of signal per row.
    """

    beds: int = 500
    leads: int = 2
    fs: float = 250.0
    seconds: float = 3600.0
    live: bool = True
    every_s: float = 10.0
    model: dict[str, object] = {}


class SoakRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the file.

    Parameters
    ----------
    run
        Number of the process, from 1.
    at_s, run_s
        Signal so far of every bed: over all processes, and in this one.
    wall_s
        Wall time of this row's signal.
    cpu_ms
        Processor time per bed and second of signal.
    """

    run: int
    beds: int
    leads: int
    live: bool
    at_s: float
    run_s: float
    wall_s: float
    rss_mb: float
    labels: int
    p50_ms: float | None
    p99_ms: float | None
    worst_ms: float | None
    skipped: int
    cpu_ms: float


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A line through the rows of one process: median level, slope per hour of signal, its 95 % interval, what it means."""

    run: int
    what: str
    level: float
    per_hour: float
    low: float
    high: float
    flat: bool


def read_rows(path: Path, options: SoakOptions) -> list[SoakRow]:
    """Return what a file holds of earlier processes; a last line that was cut off is left out.

    Raises
    ------
    ConfigError
        For a file of something else, or of another number of beds.
    """
    rows: list[SoakRow] = []
    lines = path.read_bytes().splitlines() if path.exists() else []
    for number, line in enumerate(lines):
        try:
            row = msgspec.json.decode(line, type=SoakRow)
        except msgspec.DecodeError as error:
            if number == len(lines) - 1:
                break
            raise ConfigError(f"{path}, line {number + 1}: no row of a soak ({error}); name another file") from error
        if (row.beds, row.leads, row.live) != (options.beds, options.leads, options.live):
            kind = "in real time" if row.live else "as fast as possible"
            raise ConfigError(
                f"{path} is of {row.beds} beds with {row.leads} leads {kind}: go on with these, or name another file"
            )
        rows.append(row)
    return rows


async def soak(options: SoakOptions, path: Path, said: Callable[[SoakRow], object] = lambda row: None) -> list[SoakRow]:
    """Run until ``path`` holds rows of ``options.seconds`` of signal; return all of them.

    Raises
    ------
    ConfigError
        As :func:`read_rows`.
    """
    rows = read_rows(path, options)
    done_s = rows[-1].at_s if rows else 0.0
    if done_s >= options.seconds:
        return rows
    run, left_s = (rows[-1].run if rows else 0) + 1, options.seconds - done_s
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:  # written anew without a line that was cut off
        for row in rows:
            file.write(msgspec.json.encode(row) + b"\n")
        file.flush()

        def note(row: SoakRow) -> None:
            rows.append(row)
            file.write(msgspec.json.encode(row) + b"\n")
            file.flush()
            os.fsync(file.fileno())
            said(row)

        await _run(options, run, done_s, left_s, note)
    return rows


async def _run(options: SoakOptions, run: int, done_s: float, left_s: float, note: Callable[[SoakRow], None]) -> None:
    clock, leads = SystemClock(), leads_of(options.leads)
    signals = await patients(leads, options.fs)
    feeder = Feeder(signals, options.beds, options.fs, leads, clock, live=options.live, total_s=left_s)
    names = [f"bed-{row}" for row in range(options.beds)]
    table = {"site": "bench", "bed": [{"id": name, "device": "simulate"} for name in names]}
    config = parse_config(table | ({"model": options.model} if options.model else {}))
    monitor = Monitor(config, clock, devices=dict(zip(names, feeder.devices, strict=True)))
    latency: list[float] = []

    def hear(event: object) -> None:
        assert isinstance(event, Rhythm)
        latency.append((event.timing.published_ns - event.timing.last_sample_ns) / 1e6)

    monitor.bus.listen(hear, Rhythm)
    feeding = asyncio.create_task(feeder.run(), name=FEEDER)
    running = asyncio.create_task(monitor.run(), name="monitor")
    try:
        before_s = 0.0
        marks = time.monotonic(), time.process_time(), 0
        while not running.done() and before_s < left_s:
            await asyncio.wait((running,), timeout=0.05 if not options.live else 0.5)
            reached_s = sum(bed.done_s for bed in monitor.progress()) / options.beds  # recordings are not worked off evenly
            if reached_s - before_s < options.every_s and not (running.done() and reached_s > before_s):
                continue
            now = time.monotonic(), time.process_time(), monitor.skipped_windows
            wall, process, skipped = (after - before for after, before in zip(now, marks, strict=True))
            step_s = reached_s - before_s
            each = latency if options.live else [1e3 * wall / step_s]
            p50, p99, worst = (round(float(q), 2) for q in np.percentile(each, [50, 99, 100])) if each else (None, None, None)
            note(
                SoakRow(
                    run=run,
                    beds=options.beds,
                    leads=options.leads,
                    live=options.live,
                    at_s=round(done_s + reached_s, 1),
                    run_s=round(reached_s, 1),
                    wall_s=round(wall, 2),
                    rss_mb=round(resident_mb(), 2),
                    labels=len(latency),
                    p50_ms=p50,
                    p99_ms=p99,
                    worst_ms=worst,
                    skipped=int(skipped),
                    cpu_ms=round(1e3 * process / (options.beds * step_s), 4),
                )
            )
            latency.clear()
            marks, before_s = now, reached_s
    finally:
        feeding.cancel()
        monitor.stop()
        with suppress(asyncio.CancelledError):
            await feeding
        await running


def verdicts(rows: Sequence[SoakRow]) -> list[Verdict]:
    """Lay a line through memory, p50, p99 and processor time of every process with enough rows (Theil and Sen)."""
    found = []
    for run in sorted({row.run for row in rows}):
        own = [row for row in rows if row.run == run and row.run_s > _FIRST_S]
        for what, values in (
            ("memory, MB", [row.rss_mb for row in own]),
            ("p50, ms", [row.p50_ms for row in own]),
            ("p99, ms", [row.p99_ms for row in own]),
            ("processor time, ms per bed and s", [row.cpu_ms for row in own]),
        ):
            points = [(row.run_s / 3600, value) for row, value in zip(own, values, strict=True) if value is not None]
            if len(points) < _FEWEST_ROWS:
                continue
            hours, level = np.array(points).T
            slope, _, low, high = theilslopes(level, hours, 0.95)
            middle = float(np.median(level))
            flat = bool(low <= 0 or 24 * slope <= _A_DAY_MATTERS * abs(middle))
            found.append(
                Verdict(run=run, what=what, level=round(middle, 3), per_hour=round(float(slope), 4), low=round(float(low), 4),
                        high=round(float(high), 4), flat=flat)
            )  # fmt: skip
    return found
