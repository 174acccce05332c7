"""What a person waits for: the start of the monitor, and recordings put through whole commands as fast as possible.

Every command runs in a process of its own. What it takes to start is told apart by a second run over short recordings.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.bench.feeder import patients
from ecgnat_stream.bench.report import Speed, Start
from ecgnat_stream.errors import EcgnatError

__all__ = ["recording_speeds", "start_up", "write_records"]

_ECGNAT = [sys.executable, "-m", "ecgnat_stream.cli"]
_LEADS, _FS = ("II", "V1"), 250.0
_SHORT_S = 20.0
_AT_ONCE = 8
_LONGEST_S = 1800.0
_NOISE = 0.05
"""A difference of two runs that is a smaller share of the shorter one says nothing."""


def start_up(runs: int, model: str, seconds: float = 60.0) -> Start:
    """Return medians of several starts of the demo, from the command on.

    Raises
    ------
    EcgnatError
        If a start gives no label.
    """
    found = [_one_start(model, seconds) for _ in range(runs)]
    beats = [start["beat"] for start in found if "beat" in start]
    return Start(
        first_event_s=round(median(start["event"] for start in found), 2),
        first_beat_s=round(median(beats), 2) if beats else None,
        first_label_s=round(median(start["label"] for start in found), 2),
        signal_s=round(median(start["signal"] for start in found), 2),
        own_s=round(median(start["label"] - start["signal"] for start in found), 2),
        runs=runs,
    )


def _one_start(model: str, seconds: float) -> dict[str, float]:
    command = [*_ECGNAT, "demo", "--beds", "1", "--headless", "--seconds", f"{seconds:g}", "--model", model]
    began = time.monotonic()
    found: dict[str, float] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            now, event = time.monotonic() - began, msgspec.json.decode(line)
            found.setdefault("event", now)
            if event["type"] == "beat":
                found.setdefault("beat", now)
            if event["type"] == "rhythm" and event["label"] != "UNKNOWN":
                found |= {"label": now, "signal": float(event["at_s"])}
                break
        process.terminate()
        words = process.stderr.read().decode(errors="replace").strip().splitlines()
    if "label" not in found:
        raise EcgnatError(f"the demo gave no label within {seconds:g} s: {words[-1] if words else 'it said nothing'}")
    return found


def write_records(folder: Path, seconds: float, count: int) -> list[Path]:
    """Write so many simulated recordings of two leads as WFDB records, with a beat annotated every second; return their paths."""
    import wfdb

    signals = asyncio.run(patients(_LEADS, _FS, count, seconds))
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, signal in enumerate(signals):
        name = f"sim{number}"
        wfdb.wrsamp(
            name,
            _FS,
            ["mV"] * len(_LEADS),
            list(_LEADS),
            np.asarray(signal.T, np.float64),
            fmt=["16"] * len(_LEADS),
            write_dir=str(folder),
        )
        at: NDArray[np.int64] = np.arange(1, int(seconds)) * round(_FS)
        wfdb.wrann(name, "atr", at, np.array(["N"] * len(at)), write_dir=str(folder))
        paths.append(folder / name)
    return paths


def recording_speeds(seconds: float, model: str, at_once: Sequence[int] = (1, _AT_ONCE)) -> Iterator[Speed]:
    """Return how fast ``replay --speed max``, ``analyse`` and ``score`` work off recordings, alone and several at once.

    Parameters
    ----------
    seconds
        Length of a recording.

    Raises
    ------
    EcgnatError
        If a command fails.
    """
    with tempfile.TemporaryDirectory(prefix="ecgnat-bench-") as folder:
        root, most = Path(folder), max(at_once)
        write_records(root / "long", seconds, most)
        write_records(root / "short", _SHORT_S, most)
        for command in ("replay", "analyse", "score"):
            for count in at_once:
                runs = {length: _timed(_words(command, root / length, count, model)) for length in ("short", "long")}
                yield _speed(command, count, count * (seconds - _SHORT_S), runs["short"], runs["long"])


def _speed(command: str, count: int, signal_s: float, short: tuple[float, float], long: tuple[float, float]) -> Speed:
    """Return what the signal took that the long recordings have more than the short ones; pairs of wall and processor time, s."""
    wall_s, cpu_s = (max(0.0, more - less) for less, more in zip(short, long, strict=True))
    return Speed(
        command=f"ecgnat {command}{' --speed max' if command == 'replay' else ''}",
        records=count,
        signal_s=signal_s,
        wall_s=round(wall_s, 2),
        cpu_s=round(cpu_s, 2),
        start_s=round(max(0.0, short[0] - wall_s * _SHORT_S * count / signal_s), 2),
        times_real_time=round(signal_s / wall_s, 1) if wall_s > _NOISE * short[0] else None,
        per_cpu_s=round(signal_s / cpu_s, 1) if cpu_s > _NOISE * short[1] else None,
    )


def _words(command: str, folder: Path, count: int, model: str) -> list[str]:
    names = [f"sim{number}" for number in range(count)]
    match command:
        case "replay":
            return ["replay", *(str(folder / name) for name in names), "--speed", "max", "--headless", "--model", model]
        case "analyse":
            return ["analyse", *(str(folder / name) for name in names), "--model", model]
        case _:
            return ["score", str(folder), "--records", *names, "--model", model]


def _timed(words: list[str]) -> tuple[float, float]:
    """Return the wall and the processor time of a command, with those of its own processes, in s."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done: Any = subprocess.run(
        [*_ECGNAT, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=_LONGEST_S, check=False
    )
    took, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise EcgnatError(f"ecgnat {words[0]} failed: {said[-1] if said else f'exit code {done.returncode}'}")
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
