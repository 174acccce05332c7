"""What the running monitor finds on annotated test records: QRS complexes, ventricular fibrillation, what else alarms.

    python tests/bench/detection.py --data ROOT [--json FILE]

Runs the real monitor over the test records of mitdb, vfdb and cudb, several at a time, and compares its beats and
alarms with the experts' marks. QRS complexes match within 150 ms (AAMI EC57); the first five minutes are counted apart.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import wfdb
from numpy.typing import NDArray

from ecgnat_stream.clock import SystemClock
from ecgnat_stream.config import parse_config
from ecgnat_stream.events import Alarm, Beat, Rhythm
from ecgnat_stream.monitor import Monitor

MATCH_S = 0.15
LEARNING_S = 300.0
BEATS = set("NLRBAaJSVrFejnE/fQ?")
EPISODE_S = 5.0
AT_ONCE = 5


def records(root: Path, database: str, split: str) -> list[str]:
    """Return the records of a database's split; every record where the root has no splits.csv."""
    table = root / "splits.csv"
    if not table.exists():
        return sorted(path.stem for path in (root / database).glob("*.hea"))
    with table.open(encoding="utf-8") as file:
        return [row["record"] for row in csv.DictReader(file) if (row["database"], row["split"]) == (database, split)]


async def monitor(root: Path, database: str, names: Iterable[str], lost: Counter[str]) -> dict[str, list[Any]]:
    """Return every beat, rhythm and alarm of the records, by name."""
    beds = [{"id": name, "device": "replay", "options": {"path": str(root / database / name), "speed": "max"}} for name in names]
    instance = Monitor(parse_config({"bed": beds}), SystemClock())
    found: dict[str, list[Any]] = defaultdict(list)
    instance.bus.listen(lambda event: found[event.bed.split("/")[-1]].append(event), Beat, Rhythm, Alarm)
    await instance.run()
    for what, why in instance.failures.items():
        print(f"{what}: {why}", file=sys.stderr)
        lost[what] += 1
    return found


def match(truth: NDArray[np.int64], found: NDArray[np.int64], within: float) -> tuple[int, int, int]:
    """Return true positives, misses and false detections; every mark is matched at most once, in the order of time."""
    i = j = hits = 0
    while i < len(truth) and j < len(found):
        apart = found[j] - truth[i]
        if abs(apart) <= within:
            hits, i, j = hits + 1, i + 1, j + 1
        elif apart > 0:
            i += 1
        else:
            j += 1
    return hits, len(truth) - hits, len(found) - hits


def qrs(root: Path, name: str, events: list[Any]) -> dict[str, Any]:
    """Compare one mitdb record's beats; ventricular flutter is left out, as EC57 does."""
    marks = wfdb.rdann(str(root / "mitdb" / name), "atr")
    beats = np.array([s for s, symbol in zip(marks.sample, marks.symbol, strict=True) if symbol in BEATS], np.int64)
    found = np.array(sorted(event.sample for event in events if isinstance(event, Beat)), np.int64)
    flutter = spans(marks.sample, [{"[": "on", "]": "off"}.get(symbol) for symbol in marks.symbol], 1 << 40)
    for start, stop in flutter:
        beats = beats[(beats < start) | (beats > stop)]
        found = found[(found < start) | (found > stop)]
    fs = float(marks.fs)
    result: dict[str, Any] = {"record": name}
    for key, begin in (("all", 0.0), ("after_5_min", LEARNING_S)):
        hits, missed, false = match(beats[beats >= begin * fs], found[found >= begin * fs], MATCH_S * fs)
        result[key] = {"tp": hits, "fn": missed, "fp": false}
    return result


def spans(samples: Iterable[int], changes: Iterable[str | None], end: int) -> list[tuple[int, int]]:
    """Turn on and off marks into half-open spans."""
    found: list[tuple[int, int]] = []
    start: int | None = None
    for sample, change in zip(samples, changes, strict=True):
        if change == "on" and start is None:
            start = int(sample)
        elif change == "off" and start is not None:
            found.append((start, int(sample)))
            start = None
    return found if start is None else [*found, (start, end)]


def fibrillation(root: Path, database: str, name: str) -> list[tuple[float, float]]:
    """Return the annotated episodes of ventricular fibrillation or flutter, in s."""
    header = wfdb.rdheader(str(root / database / name))
    if database == "cudb":
        with (root / "cudb" / "vf_episodes.csv").open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["record"] == name]
        found = [(int(row["start"]), int(row["stop"])) for row in rows]
    else:
        marks = wfdb.rdann(str(root / database / name), "atr")
        notes = [(s, note.strip("\0")) for s, note in zip(marks.sample, marks.aux_note, strict=True) if note.startswith("(")]
        changes = ["on" if note in ("(VF", "(VFL") else "off" for _, note in notes]
        found = spans([s for s, _ in notes], changes, header.sig_len)
    return [(start / header.fs, stop / header.fs) for start, stop in found if (stop - start) / header.fs >= EPISODE_S]


def on_spans(events: list[Any], condition: str) -> list[tuple[float, float]]:
    """Return when an alarm's condition was present, in s: from its start, or its coming back, until it ended or only latched."""
    found: list[tuple[float, float]] = []
    start: float | None = None
    for event in events:
        if not isinstance(event, Alarm) or event.condition != condition or event.at_s is None:
            continue
        present = event.phase not in ("end", "reset") and event.presence != "latched"
        if present and start is None:
            start = event.at_s
        elif not present and start is not None:
            found.append((start, event.at_s))
            start = None
    return found if start is None else [*found, (start, float("inf"))]


def episodes(root: Path, database: str, name: str, events: list[Any]) -> dict[str, Any]:
    """Say for every episode whether the alarm was on within it, how long after its onset, and whether the label said VF."""
    alarms = on_spans(events, "ventricular-fibrillation")
    labels = [event for event in events if isinstance(event, Rhythm) and event.label == "VF"]
    rows = []
    for start, stop in fibrillation(root, database, name):
        hits = [max(on, start) - start for on, off in alarms if on < stop and off > start]
        rows.append(
            {
                "start_s": round(start, 1),
                "seconds": round(stop - start, 1),
                "alarm_after_s": round(min(hits), 1) if hits else None,
                "labelled": any(start <= event.at_s < stop + 2 for event in labels),
            }
        )
    starts = Counter(event.condition for event in events if isinstance(event, Alarm) and event.phase == "start")
    false = [on for on, off in alarms if not any(on < b and off > a for a, b in fibrillation(root, database, name))]
    return {"record": name, "episodes": rows, "vf_alarms_elsewhere": len(false), "alarm_starts": dict(starts)}


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """Return the gross figures."""
    total: dict[str, Any] = {}
    for key in ("all", "after_5_min"):
        tp, fn, fp = (sum(row[key][what] for row in report["qrs"]) for what in ("tp", "fn", "fp"))
        total[f"qrs_{key}"] = {
            "se": round(tp / max(tp + fn, 1), 5),
            "ppv": round(tp / max(tp + fp, 1), 5),
            "f1": round(2 * tp / max(2 * tp + fn + fp, 1), 5),
            "beats": tp + fn,
        }
    rows = [episode for database in ("vfdb", "cudb") for record in report[database] for episode in record["episodes"]]
    after = [row["alarm_after_s"] for row in rows if row["alarm_after_s"] is not None]
    total["vf"] = {
        "episodes": len(rows),
        "alarmed": len(after),
        "alarmed_within_10_s": sum(value <= 10 for value in after),
        "labelled": sum(row["labelled"] for row in rows),
        "median_s": float(np.median(after)) if after else None,
        "worst_s": max(after, default=None),
        "alarms_elsewhere": sum(record["vf_alarms_elsewhere"] for database in ("vfdb", "cudb") for record in report[database]),
    }
    return total


def main() -> None:
    """Run, print the summary, write the whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    report: dict[str, Any] = {"split": arguments.split, "qrs": [], "vfdb": [], "cudb": []}
    lost: Counter[str] = Counter()
    for database in ("mitdb", "vfdb", "cudb"):
        names = records(arguments.data, database, arguments.split)
        for at in range(0, len(names), AT_ONCE):
            part = names[at : at + AT_ONCE]
            found = asyncio.run(monitor(arguments.data, database, part, lost))
            for name in part:
                if database == "mitdb":
                    report["qrs"].append(qrs(arguments.data, name, found[name]))
                else:
                    report[database].append(episodes(arguments.data, database, name, found[name]))
            print(f"{database}: {', '.join(part)}", file=sys.stderr)
    report["summary"] = summary(report)
    report["failed"] = dict(lost)
    print(json.dumps(report["summary"], indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
