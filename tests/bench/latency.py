"""How long from a sample to the event it leads to, how fast the monitor starts, how much memory a bed takes.

    python tests/bench/latency.py [--beds 1,32] [--seconds 60] [--models ecgnat-nano,beatnet] [--json FILE]

Simulated twelve-lead beds at 250 Hz in real time, all of one age, so that all windows fall due at the same instant: the worst
case. Latency runs from the last sample of the window that a rhythm event speaks for (by the time that the device gave it) to the
event's publication, and includes the look-ahead of the resampling filter. Every number of beds and network runs in a process of
its own, the networks in turn, so that their ratios hold on a shared machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ecgnat_stream.clock import SystemClock
from ecgnat_stream.config import parse_config
from ecgnat_stream.events import EngineStatus, Rhythm
from ecgnat_stream.monitor import Monitor

LEARNING_S = 12.0


async def _run(beds: int, seconds: float, model: str) -> dict[str, Any]:
    config = {
        "model": {"name": model},
        "bed": [{"id": f"bed-{i}", "device": "simulate", "options": {"seed": i, "script": "tour"}} for i in range(beds)],
    }
    monitor = Monitor(parse_config(config), SystemClock())
    latencies: list[float] = []
    waits: list[float] = []
    skipped = 0

    def listen(event: object) -> None:
        nonlocal skipped
        if isinstance(event, Rhythm) and (event.at_s or 0) > LEARNING_S:
            timing = event.timing
            latencies.append((timing.published_ns - timing.last_sample_ns) / 1e6)
            waits.append((timing.cut_ns - timing.last_sample_ns) / 1e6)
        elif isinstance(event, EngineStatus):
            skipped = event.skipped_windows

    monitor.bus.listen(listen, Rhythm, EngineStatus)
    process = psutil.Process()
    asyncio.get_running_loop().call_later(seconds + LEARNING_S, monitor.stop)
    cpu, began = process.cpu_times(), time.monotonic()
    await monitor.run()
    after, took = process.cpu_times(), time.monotonic() - began
    p50, p99, worst = (float(np.percentile(latencies, q)) for q in (50, 99, 100))
    return {
        "model": Path(model).name,
        "beds": beds,
        "seconds": seconds,
        "events": len(latencies),
        "sample_to_event_ms": {"p50": round(p50, 1), "p99": round(p99, 1), "max": round(worst, 1)},
        "sample_to_cut_ms": {"p50": round(float(np.percentile(waits, 50)), 1), "p99": round(float(np.percentile(waits, 99)), 1)},
        "skipped_windows": skipped,
        "cores_used": round((after.user + after.system - cpu.user - cpu.system) / took, 3),
        "rss_mb": round(process.memory_info().rss / 1e6, 1),
    }


def start_up(model: str) -> dict[str, float]:
    """Return seconds from the command to the first event, beat, and rhythm label of the demo."""
    command = [sys.executable, "-m", "ecgnat_stream.cli", "demo", "--headless", "--seconds", "40", "--model", model]
    began = time.monotonic()
    found: dict[str, float] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            found.setdefault("first_event_s", round(time.monotonic() - began, 2))
            if event["type"] == "beat":
                found.setdefault("first_beat_s", round(time.monotonic() - began, 2))
            if event["type"] == "rhythm" and event["label"] != "UNKNOWN":
                found["first_rhythm_label_s"] = round(time.monotonic() - began, 2)
                break
        process.terminate()
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beds", default="1,32")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--models", default="ecgnat-nano", help="shipped names or folders; the start is measured with the first")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(asyncio.run(_run(arguments.one, arguments.seconds, arguments.models))))
        return
    runs, models = [], arguments.models.split(",")
    for beds, model in product(arguments.beds.split(","), models):
        command = [sys.executable, __file__, "--one", beds, "--seconds", str(arguments.seconds), "--models", model]
        runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print(json.dumps(runs[-1]), file=sys.stderr)
    report: dict[str, Any] = {"cores": psutil.cpu_count(), "runs": runs, "start_up": start_up(models[0])}
    if len(runs) > len(models):
        few, many = runs[0], runs[-len(models)]
        report["mb_per_bed"] = round((many["rss_mb"] - few["rss_mb"]) / (many["beds"] - few["beds"]), 2)
    print(json.dumps(report, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
