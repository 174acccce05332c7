"""Write docs/measured/index.md and speed.md from the measurements in results/: ``python scripts/results_docs.py``."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console

from ecgnat_stream.bench import Report
from ecgnat_stream.bench.show import drawn
from train.compare.study_page import PAIRS, Apart, Run, read_runs
from train.judge.tables import find, rows
from train.judge.targets import TARGETS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
PAGE = ROOT / "docs" / "measured" / "index.md"
SPEED_PAGE = ROOT / "docs" / "measured" / "speed.md"
BENCH = RESULTS / "bench.json"
"""A whole run of ``ecgnat bench``."""

HEAD = """# All figures

What the shipped networks and the whole monitor reach, good and bad, each with the command that measured it.

- Measured on the test records of the databases' splits (`splits.csv`, patient-wise), with the shipped checkpoint and default
  settings, on two shared CPU cores.
- `ROOT` is a folder of unpacked databases.
- The numbers stand as JSON in the folder `results` of the repository. `python scripts/results_docs.py` writes this page from
  them.
- ecgnat-stream is not a certified medical device, and these figures are not a clinical validation.

More figures: [speed](speed.md), [signal](signal.md), [beat classes](beats.md), [fibrillation](fibrillation.md),
[networks](networks.md), [what the papers claim](claims.md), [replays](replay.md).
"""


NETWORKS = {
    "ecgnat-nano": "the network of the monitor",
    "ecgnat-nano-causal": "the same in its causal form: no token depends on a sample after its own 0.32 s",
    "ecgnat-nano-12lead": "for twelve-lead records of 10 s; fine-tuned on the diagnoses alone and measured on ptbxl alone",
    "beatnet": "BEAT-Net, given the beats that the monitor's detector finds in the windows; R peaks are that detector's",
    "clear-hug": "CLEAR-HUG, given the same beats",
}
"""Shipped networks, and what there is to know of them."""


def load(name: str) -> Any:
    """Return one measurement."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def printed(name: str) -> str:
    """Return what a program printed, as it was."""
    return f"```\n{(RESULTS / f'{name}.txt').read_text(encoding='utf-8').strip()}\n```\n"


def alarms() -> str:
    """What the running monitor finds, with and without noise, and how soon."""
    return f"""
## Alarms

The whole monitor, as shipped, over the test records as fast as possible. It sees ECG only, no pressure and no pleth.
[Scoring](../scoring.md) defines every figure. With `--html FILE` there is a strip for every mistake.

`ecgnat score ROOT/mitdb ROOT/vfdb ROOT/cudb ROOT/cinc2015 ROOT/nsrdb --split test`. One rule changed after it: an extreme
bradycardia may end with its shortest interval, seen on training records and needed on mitdb/232. mitdb and cinc2015 were
measured again with it, the other three were not.

{printed("score")}
### With electrode motion

`ecgnat score ROOT/mitdb --split test --noise ROOT/nstdb/em --snr 6`

{printed("score-noise")}
### Time to alarm, simulated patients

`python tests/bench/time_to_alarm.py --seeds 6`. A simulator flatters: clean onsets, one focus.

{printed("time-to-alarm")}"""


SPEED_HEAD = """# Speed

How many beds a machine carries, how late its labels are, where time and memory go, and how that compares with other ways to
do the same. Read ratios: they were measured in turn, in one run. What is absolute belongs to one machine and to what else it
did.

```sh
ecgnat bench --json results/bench.json      # everything: about 25 minutes on a quiet machine
python scripts/results_docs.py              # writes this page from it
ecgnat bench --soak --beds 500 --seconds 3600 --json soak.jsonl
```

- **Beds.** Simulated beds at 250 Hz, two thirds in sinus rhythm, in real time, each with its blocks of 0.1 s at its own
  instants. They are carried when 99 of 100 labels come within 0.5 s of the last sample that they speak for, no window is
  skipped, no bed is without labels, and the monitor does not call itself too slow. The search begins at a guess from
  processor time and ends within 8 %; every trial is a fresh process. The machine should be given three quarters of what it
  carries: alarms of many beds at once, devices that come back together, and whatever else runs there need the rest.
- **Stages.** Processor time of the event loop is shared out by stopwatches around every stage, which take some time
  themselves. Memory is what is found from a stage's objects, counted once.
- **Ratios.** Pairs in turn, by processor time: the median, and where eight of ten pairs lie.
- **Roofline.** The least time that the counted operations and bytes need at the peaks of this run (matrix product, copy),
  over the time taken. Element-wise operations are not counted, and of the signal stages only the bytes that go in and out.
- ecgnat-stream is not a certified medical device, and these figures are not a clinical validation.

[Networks](networks.md) and [signal](signal.md) hold older figures of the parts.
"""


def speed() -> str:
    """Return the page of what ``ecgnat bench`` has measured."""
    if not BENCH.is_file():
        return SPEED_HEAD + "\nNo run is written down yet.\n"
    report = msgspec.json.decode(BENCH.read_bytes(), type=Report)
    console = Console(width=200, record=True, markup=False, highlight=False, file=io.StringIO())
    console.print(drawn(report))
    text = "\n".join(line.rstrip() for line in console.export_text().splitlines())
    return f"{SPEED_HEAD}\n`{report.command}`:\n\n```text\n{text}\n```\n"


def latency() -> str:
    """How fast, how much memory: where it stands."""
    return """
## Latency, start-up, memory

`ecgnat bench` measures them: [speed](speed.md).
"""


def cost() -> str:
    """What the networks cost, side by side."""
    found = load("cost")
    networks = [
        [name, row["parameters"], row["gmac_per_10_s"], row["window_ms_p50"], row["window_ms_p99"]]
        for name, row in found["networks"].items()
    ]
    beats = found["find_beats_ms"]
    return f"""
## Cost

`python -m train.cost --json results/cost.json`: untrained networks, one window of 10 s and twelve leads at 75 bpm, one
thread, {found["runs"]} runs.

{rows(["network", "parameters", "GMAC per 10 s", "ms p50", "ms p99"], *networks)}
Networks of heartbeats (beatnet, clear) are given the beats in a monitor; elsewhere `find_beats` takes
{beats["window_ms_p50"]} ms (p99 {beats["window_ms_p99"]}) for such a window.
"""


def networks() -> str:
    """What every shipped network reaches."""
    found = {name: load(name) for name in NETWORKS}
    targets = [target for target in TARGETS if any(find(results, target.path) for results in found.values())]
    body = (
        [target.task, target.metric, target.wanted, *(find(results, target.path) for results in found.values())]
        for target in targets
    )
    pages = "".join(f"- [{name}]({name}.md): {text}\n" for name, text in NETWORKS.items())
    return f"""
## Shipped networks

`python -m train.evaluate --data ROOT --model NAME --robustness --json FILE` ([training](../training.md)), 95 % intervals from
resampling records. There are few records of mitdb, vfdb and cudb, so read the intervals. Every network has a page with all
classes and records, confusion, lead sets, noise and calibration:

{pages}
{rows(["task", "metric", "target", *NETWORKS], *body)}"""


def side_by_side() -> str:
    """The networks trained alike, in one table."""
    runs = [run for run in read_runs(RESULTS / "study.jsonl") if run.minutes == 1 and run.auroc]
    tasks, arms = (list(dict.fromkeys(getattr(run, key) for run in runs)) for key in ("task", "arm"))
    body = ([arm, *(_by_fraction([run for run in runs if (run.task, run.arm) == (task, arm)]) for task in tasks)] for arm in arms)
    apart = {name.removesuffix("-1"): pairs for name, pairs in load("pairs").items() if name.endswith("-1")}
    titles = [title for title in PAIRS if any(title in pairs for pairs in apart.values())]
    paired = (
        [title, " - ".join(PAIRS[title]), *(Apart(**pairs[title]).cell if title in pairs else None for pairs in apart.values())]
        for title in titles
    )
    return f"""
## Networks side by side

Arms are trained alike (`train/runs/comparison.sh`): as many steps as their network makes in one processor minute, after 38
minutes of pretraining where there is any. The table holds the macro-AUROC on test records with 1 / 10 / 30 / 100 % of the
labels, mean of the seeds. [The study](study.md) has spread, differences, intervals, noise, fewer leads and wrong beats.
[Claims](claims.md) says what this means for the papers.

{rows(["", *tasks], *body)}
With all labels, the difference of two arms in macro-AUROC, seeds together, and its interval from resampling test records:

{rows(["", "", *apart], *paired)}"""


def _by_fraction(runs: list[Run]) -> str:
    scores = [[run.score for run in runs if run.fraction == fraction] for fraction in (0.01, 0.1, 0.3, 1)]
    return " / ".join(f"{np.mean(some):.3f}" if some else "-" for some in scores) if runs else "-"


def page() -> str:
    """Return the whole page."""
    return HEAD + networks() + side_by_side() + cost() + alarms() + latency()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    SPEED_PAGE.write_text(speed(), encoding="utf-8")
