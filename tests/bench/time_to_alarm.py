"""How long the running monitor takes from the onset of a dangerous rhythm to its alarm, with the network and without.

    python tests/bench/time_to_alarm.py [--seeds 20] [--no-network] [--only vf,vt-slow] [--disturbance harsh] [--json FILE]

Simulated patients: 25 to 35 s of sinus rhythm, 20 s of the dangerous rhythm, 30 s of sinus rhythm again. Heart rate, leads,
sampling rate and a mild disturbance change from one patient to the next. The onset is where the script changes the rhythm, which
may be a little after the last beat before it. An alarm counts when the condition, or one that says the same more urgently, is on
within 10 s of the onset (ANSI/AAMI EC13). Supraventricular and sinus tachycardia must be called by their rate: there a
ventricular alarm does not count. A high alarm that comes on in sinus rhythm is false, but for the first 10 s after the episode;
"other" are those of another name that come on in the episode or in these 10 s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter, defaultdict
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ecgnat_stream.alarm.config import ALARM_WITHIN_S
from ecgnat_stream.alarm.picture import COVERED_BY
from ecgnat_stream.clock import SystemClock
from ecgnat_stream.config import parse_config
from ecgnat_stream.events import Alarm, Beat, Quality, Rhythm
from ecgnat_stream.monitor import Monitor
from ecgnat_stream.signal import LEADS
from ecgnat_stream.spans import alarm_spans

EPISODE_S, AFTER_S = 20.0, 30.0
MISSING = "no-such-network"
_LINE = "{:10} {:>4} {:>8} {:>7} {:>6} {:>6} {:>6} {:>20}  {}"
DAY_S = 86400.0


class Case(NamedTuple):
    """A dangerous rhythm: its name in a script, rates in turn, its condition, what it may not pass for, size of vf at first."""

    rhythm: str
    rates_bpm: tuple[float | None, ...]
    condition: str
    never: tuple[str, ...] = ()
    amplitude_mv: float | None = None


_NARROW = ("ventricular-tachycardia", "ventricular-fibrillation")
CASES = {
    "asystole": Case("asystole", (None,), "asystole"),
    "vf": Case("vf", (None,), "ventricular-fibrillation"),
    "vf-fine": Case("vf", (None,), "ventricular-fibrillation", amplitude_mv=0.3),
    "vflutter": Case("vflutter", (None, 220, 250, 300), "ventricular-fibrillation"),
    "vt-slow": Case("vt", (120, 127, 133, 140, 147), "ventricular-tachycardia"),
    "vt-fast": Case("vt", (160, 175, 190, 205, 220), "ventricular-tachycardia"),
    "brady": Case("bradycardia", (25, 28, 31, 34, 36), "extreme-bradycardia"),
    "avb3": Case("avb3", (30,), "extreme-bradycardia"),
    "tachy": Case("sinus", (150, 160, 175, 185, 200), "extreme-tachycardia", _NARROW),
    "svt": Case("svt", (170, 177, 185, 192, 200), "extreme-tachycardia", _NARROW),
}

_ELECTRODES = tuple(product((("II",), ("II", "V1"), LEADS), (125.0, 250.0, 500.0)))
_DISTURBANCES: dict[str, tuple[dict[str, float], ...]] = {
    "mild": ({}, {"noise_mv": 0.025}, {"wander_mv": 0.2}, {"muscle_mv": 0.03, "wander_mv": 0.1}),
    "harsh": (
        {"noise_mv": 0.06, "mains_mv": 0.1},
        {"wander_mv": 0.6},
        {"muscle_mv": 0.1, "wander_mv": 0.2},
        {"motion_mv": 0.15, "wander_mv": 0.2},
    ),
}


def patient(name: str, seed: int, disturbance: str) -> dict[str, Any]:
    """Return the options of one simulated patient."""
    case = CASES[name]
    rng = np.random.default_rng([seed, *name.encode()])
    leads, fs = _ELECTRODES[seed % len(_ELECTRODES)]
    sinus_bpm, before_s = float(rng.integers(55, 96)), round(float(rng.uniform(25, 35)), 1)
    rate = case.rates_bpm[seed % len(case.rates_bpm)]
    episode = {"rhythm": case.rhythm, "seconds": EPISODE_S, "rate_bpm": rate, "amplitude_mv": case.amplitude_mv}
    sinus = {"rhythm": "sinus", "rate_bpm": sinus_bpm}
    return {
        "fs": fs,
        "leads": leads,
        "seed": int(rng.integers(1 << 31)),
        "script": [sinus | {"seconds": before_s}, episode, sinus | {"seconds": AFTER_S}],
        "loop": False,
        "speed": "max",
        **_DISTURBANCES[disturbance][seed % 4],
    }


async def monitor(patients: dict[str, dict[str, Any]], checkpoint: str | None) -> dict[str, list[Any]]:
    """Return the beats, rhythms, qualities and alarms of every patient, by name; the default network unless another is named."""
    table: dict[str, Any] = {"bed": [{"id": key, "device": "simulate", "options": value} for key, value in patients.items()]}
    if checkpoint is not None:
        table["model"] = {"name": checkpoint}
    instance = Monitor(parse_config(table), SystemClock())
    found: dict[str, list[Any]] = defaultdict(list)
    instance.bus.listen(lambda event: found[event.bed.split("/")[-1]].append(event), Beat, Rhythm, Quality, Alarm)
    await instance.run()
    if failed := {what: why for what, why in instance.failures.items() if not (checkpoint == MISSING and what == "model")}:
        raise SystemExit(f"the monitor failed: {failed}")
    return found


def changes(events: list[Any], onset_s: float) -> list[tuple[float, str]]:
    """Return the network's labels, and whether the signal was usable, where they change; s from the onset."""
    found: list[tuple[float, str]] = []
    last: dict[type, str] = {}
    for event in events:
        text = event.label if isinstance(event, Rhythm) else "usable" if event.usable else f"unusable: {event.reason}"
        if last.get(type(event)) != text:
            last[type(event)] = text
            found.append((round((event.at_s or 0.0) - onset_s, 1), text))
    return found


def judge(name: str, seed: int, options: dict[str, Any], events: list[Any]) -> dict[str, Any]:
    """Return what became of one patient; all times in s from the onset."""
    case = CASES[name]
    before, episode, _ = options["script"]
    onset_s = before["seconds"]
    alarms = [event for event in events if isinstance(event, Alarm)]
    spans = [
        (span.condition, round(span.start_s - onset_s, 1), round(span.stop_s - onset_s, 1))
        for span in alarm_spans(alarms, onset_s + EPISODE_S + AFTER_S)
        if span.priority == "high" and span.kind == "physiological"
    ]
    named = {case.condition, *COVERED_BY.get(case.condition, ())} - set(case.never)
    hits = [
        (max(start, 0.0), condition) for condition, start, stop in spans if condition in named and stop > 0 and start < EPISODE_S
    ]
    after_s, by = min(hits, default=(None, None))
    quiet_s = EPISODE_S + ALARM_WITHIN_S
    beats = [event for event in events if isinstance(event, Beat) and 0 <= (event.at_s or 0.0) - onset_s < EPISODE_S]
    return {
        "case": name,
        "seed": seed,
        "rate_bpm": episode["rate_bpm"],
        "sinus_bpm": before["rate_bpm"],
        "leads": len(options["leads"]),
        "fs": options["fs"],
        "disturbance": {key: value for key, value in options.items() if key.endswith("_mv")},
        "onset_s": onset_s,
        "after_s": None if after_s is None else round(after_s, 1),
        "by": by,
        "found": after_s is not None and after_s <= ALARM_WITHIN_S,
        "sinus_s": onset_s + AFTER_S - ALARM_WITHIN_S,
        "false": [span for span in spans if span[1] < 0 or span[1] >= quiet_s],
        "other": [span for span in spans if 0 <= span[1] < quiet_s and span[0] not in named],
        "alarms": [(round((event.at_s or 0.0) - onset_s, 1), event.condition, event.phase, event.presence) for event in alarms],
        "changes": changes([event for event in events if isinstance(event, (Rhythm, Quality))], onset_s),
        "beats": [(round((event.at_s or 0.0) - onset_s, 2), event.label) for event in beats],
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of one condition, or of all."""
    after = [row["after_s"] for row in rows if row["after_s"] is not None]
    false = sum(len(row["false"]) for row in rows)
    return {
        "n": len(rows),
        "found": sum(row["found"] for row in rows),
        "median_s": round(float(np.median(after)), 1) if after else None,
        "p95_s": round(float(np.percentile(after, 95)), 1) if after else None,
        "worst_s": max(after, default=None),
        "never": len(rows) - len(after),
        "false": false,
        "false_per_bed_day": round(false / (sum(row["sinus_s"] for row in rows) / DAY_S), 1),
        "other": dict(Counter(span[0] for row in rows for span in row["other"])),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return one line per condition, then every patient whose alarm was late or missing, and every false alarm."""
    lines = [_LINE.format("condition", "n", "<= 10 s", "median", "p95", "worst", "never", "false (per bed-day)", "other")]
    for name in (*dict.fromkeys(row["case"] for row in rows), "all"):
        figures = summary([row for row in rows if name in (row["case"], "all")])
        times = ("-" if figures[key] is None else f"{figures[key]:.1f}" for key in ("median_s", "p95_s", "worst_s"))
        share = f"{100 * figures['found'] / figures['n']:.1f} %"
        false = f"{figures['false']} ({figures['false_per_bed_day']:.1f})"
        other = ", ".join(f"{condition} {count}" for condition, count in figures["other"].items())
        lines.append(_LINE.format(name, figures["n"], share, *times, figures["never"], false, other).rstrip())
    for row in rows:
        rate = row["rate_bpm"] or "usual"
        about = f"{row['case']} seed {row['seed']}: {rate} bpm, {row['leads']} leads, {row['fs']:g} Hz, {row['disturbance']}"
        if not row["found"]:
            lines.append(f"  missed  {about}: " + ("never" if row["after_s"] is None else f"after {row['after_s']} s"))
        lines += [f"  false   {about}: {condition} at {start:+.1f} s from the onset" for condition, start, _ in row["false"]]
    return "\n".join(lines)


def main() -> None:
    """Run, print the tables, write every run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="patients per condition")
    parser.add_argument("--no-network", action="store_true", help="measure only without the network")
    parser.add_argument("--only", default=",".join(CASES), help="conditions, separated by commas")
    parser.add_argument("--disturbance", choices=_DISTURBANCES, default="mild")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    if unknown := [name for name in names if name not in CASES]:
        parser.error(f"no condition {', '.join(unknown)}: there are {', '.join(CASES)}")
    report: dict[str, Any] = {}
    for title, checkpoint in (("without network", MISSING), ("with network", None))[: 1 if arguments.no_network else 2]:
        began, rows = time.monotonic(), []
        for name in names:
            patients = {f"{name}-{seed}": patient(name, seed, arguments.disturbance) for seed in range(arguments.seeds)}
            found = asyncio.run(monitor(patients, checkpoint))
            rows += [judge(name, seed, options, found[key]) for seed, (key, options) in enumerate(patients.items())]
            print(f"{title}: {name}, {time.monotonic() - began:.0f} s", file=sys.stderr)
        print(f"{title}\n{table(rows)}\n")
        by_case = {name: summary([row for row in rows if row["case"] == name]) for name in names}
        report[title] = {"summary": by_case | {"all": summary(rows)}, "runs": rows}
    if arguments.json:
        arguments.json.write_text(json.dumps(report) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
