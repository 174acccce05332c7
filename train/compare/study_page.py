"""The page of a study: the runs of train.study as tables, seed by seed, and plots over the label fraction."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import t as student

from train.compare.arms import ARMS
from train.judge.tables import cell, rows

__all__ = ["PAIRS", "Apart", "Run", "budgets", "joined", "read_runs", "study_page", "study_plot"]

PAIRS = {
    "BEAT-Net over a convolutional network": ("beatnet", "xresnet1d101"),
    "HUG over a linear head": ("clear-hug", "clear"),
    "HUG over a linear head, encoder frozen": ("clear-hug probe", "clear probe"),
    "HUG with a non-linearity over HUG": ("clear-hug-gelu", "clear-hug"),
    "HUG over ECG-NAT's own head": ("ecgnat-hug", "no-contrastive"),
    "sparse over dense attention in pretraining": ("clear-hug", "clear-hug dense pretraining"),
    "sparse over dense attention throughout": ("clear-hug", "clear-hug dense"),
    "sparse over dense attention, encoder frozen": ("clear-hug probe", "clear-hug dense probe"),
    "masked-beat pretraining of CLEAR-HUG": ("clear-hug", "clear-hug scratch"),
    "stretches without beats read from 0.32 s on, BEAT-Net": ("beatnet gaps", "beatnet"),
    "stretches without beats read from 0.32 s on, CLEAR-HUG": ("clear-hug gaps", "clear-hug"),
    "trained with a detector's errors, BEAT-Net": ("beatnet errors", "beatnet"),
    "trained with a detector's errors, CLEAR-HUG": ("clear-hug errors", "clear-hug"),
    "masked pretraining of ECG-NAT": ("no-contrastive", "scratch"),
    "masked pretraining and contrast of ECG-NAT": ("ecgnat", "scratch"),
    "contrast of ECG-NAT": ("ecgnat", "no-contrastive"),
    "whole beats over blocks masked in ECG-NAT's pretraining": ("no-contrastive beats", "no-contrastive"),
    "whole beats over blocks masked, encoder frozen": ("ecgnat-beats probe", "ecgnat probe"),
}
"""What a pair of arms says: the first is what is claimed to be better than the second."""

_MEASURES = {"screen": "mean F1 of N, A and O on cinc2017", "window": "macro-AUROC of the superclasses on ptbxl"}

_BASES = ("ecgnat", "scratch")
"""What the others are compared with: the first of these that was run."""


class Run(msgspec.Struct, frozen=True):
    """One run of a study.

    Parameters
    ----------
    test
        The figure on the test records, of runs that were judged by one figure alone.
    auroc, auprc, f1
        Figures on the test records, ``(value, low, high)``; None where no class is stated often enough.
    asked_steps, batch, lr
        What a command set beside the minutes.
    robustness
        "clean": macro-AUROC; condition: what it loses, ``(value, low, high)``; None where it does not apply.
    """

    arm: str
    task: str
    fraction: float
    seed: int
    test: float | None = None
    val: float | None = None
    minutes: float = 0.0
    steps: int = 0
    asked_steps: int | None = None
    batch: int | None = None
    lr: float | None = None
    records: int = 0
    parameters: int = 0
    size: str = "nano"
    auroc: tuple[float, float, float] | None = None
    auprc: tuple[float, float, float] | None = None
    f1: tuple[float, float, float] | None = None
    left_out: tuple[str, ...] = ()
    robustness: dict[str, tuple[float, float, float] | None] = {}

    @property
    def score(self) -> float:
        """The figure that arms are compared by; NaN where no class can be measured."""
        return self.test if self.test is not None else self.auroc[0] if self.auroc is not None else math.nan

    @property
    def is_measured(self) -> bool:
        """Whether there is a figure."""
        return math.isfinite(self.score)


class Apart(msgspec.Struct, frozen=True):
    """How far two arms lie apart with all labels: the difference of their macro-AUROC, ``(value, low, high)`` over test records.

    Parameters
    ----------
    seeds
        Those that both arms were run with.
    """

    seeds: tuple[int, ...]
    interval: tuple[float, float, float]

    @property
    def cell(self) -> str:
        """The figure as a table shows it."""
        return f"{cell(list(self.interval))}, n {len(self.seeds)}"


def read_runs(path: Path) -> list[Run]:
    """Return the runs of a folder of JSON files, or of one file with a run per line, in a fixed order.

    Raises
    ------
    ValueError
        For a file that holds no runs.
    """
    runs: list[Run] = []
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path] if path.is_file() else []:
        try:
            for value in [msgspec.json.decode(line) for line in file.read_bytes().splitlines() if line.strip()]:
                runs += msgspec.convert([value], list[Run])
        except msgspec.MsgspecError as error:
            raise ValueError(f"{file}: no run of a study ({error}): remove it, or run train.study again") from error
    return sorted(runs, key=_place)


def joined(before: Sequence[Run], made: Sequence[Run]) -> list[Run]:
    """Return all runs in the order of :func:`read_runs`; a run that was made again stands for the one before."""
    return sorted({_place(run): run for run in (*before, *made)}.values(), key=_place)


def _place(run: Run) -> tuple[Any, ...]:
    setting = (run.asked_steps or 0, run.batch or 0, run.lr or 0.0)
    return run.task, run.minutes, _arm_order(run.arm), run.size, run.fraction, run.seed, setting


def study_page(runs: Sequence[Run], images: dict[str, str], apart: Mapping[str, Mapping[str, Apart]] | None = None) -> str:
    """Return the Markdown of a study.

    Parameters
    ----------
    images
        The keys of `budgets` to plots.
    apart
        The keys of `budgets` to what :func:`train.compare.pairs.differences` found of the pairs.
    """
    text = [
        "# Networks side by side\n",
        "Arms trained alike (`train.study`), every run a line of `study.jsonl`. Mean over seeds (least to most), n "
        "seeds. A seed also draws the labelled records, so arms are compared seed by seed: the mean of the differences with its "
        "95 % t interval over seeds, which knows nothing of the choice of test records. Intervals over test records are 95 % "
        "bootstrap intervals; of a figure with all labels their ends are averaged over the seeds, of a pair the same records "
        "are drawn for both and all seeds.\n",
    ]
    for name, members in budgets(runs).items():
        task, minutes = members[0].task, members[0].minutes
        fractions = sorted({run.fraction for run in members})
        arms = list(dict.fromkeys(run.arm for run in members))
        of = {(arm, fraction): _by_seed(members, arm, fraction) for arm in arms for fraction in fractions}
        measured = any(run.is_measured for run in members)
        budget = f"{minutes:g} minute{'s' * (minutes != 1)} per run" if minutes else "the same steps for all"
        text.append(f"## {task}: {_MEASURES.get(task, 'macro-AUROC')}, {budget}\n")
        base = next((arm for arm in arms if arm.split(" (")[0] in _BASES), arms[0])
        if not measured:
            text.append("No class can be measured: none has ten test positives.\n")
        for title, line in (("test", _mean_cell), (f'test, difference to "{base}"', _difference_cell), ("steps", _steps_cell)):
            head = [title, *(_labels(members, fraction) for fraction in fractions)]
            shown = [arm for arm in arms if line is not _difference_cell or (arm != base and measured)]
            body = [[arm, *(line(of[arm, f], of.get((base, f), {})) for f in fractions)] for arm in shown]
            if body:
                text.append(rows(head, *body))
        over_records = (apart or {}).get(name, {})
        paired: list[list[Any]] = [
            [
                title,
                f"{a} - {b}",
                *(_difference_cell(of[a, f], of[b, f]) for f in fractions),
                over_records[title].cell if title in over_records else None,
            ]
            for title, a, b in _pairs(arms)
        ]
        if paired and measured:
            labels = [_labels(members, fraction) for fraction in fractions]
            text.append(rows(["pair", "test, difference", *labels, "all labels, interval over test records"], *paired))
        text += _figures(members, arms)
        if name in images:
            text.append(f"![{task}]({images[name]})\n")
    return "\n".join(text)


def _pairs(arms: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield the title and the two arms of every pair of `PAIRS` that was run, in one size each."""
    sized: dict[str, list[str]] = {}
    for arm in arms:
        sized.setdefault(arm.split(" (")[0], []).append(arm)
    for title, names in PAIRS.items():
        first, second = (sized.get(name, []) for name in names)
        if len(first) == len(second) == 1:
            yield title, first[0], second[0]


def _figures(members: Sequence[Run], arms: Sequence[str]) -> Iterator[str]:
    """Yield the tables of the runs with all labels: three figures with intervals over records, and the robustness."""
    full = {arm: some for arm in arms if (some := [run for run in members if run.arm == arm and run.fraction == 1 and run.auroc])}
    if not full:
        return
    figures = ("auroc", "auprc", "f1")
    body = [[arm, some[0].parameters, *(_joined(some, name) for name in figures)] for arm, some in full.items()]
    yield rows(["all labels", "parameters", "macro-AUROC", "macro-AUPRC", "macro-F1"], *body)
    left_out = full[next(iter(full))][0].left_out
    if left_out:
        yield f"Fewer than ten test positives, left out: {', '.join(left_out)}.\n"
    robust = {arm: run.robustness for arm, some in full.items() for run in some if run.robustness}
    if robust:
        conditions = list(dict.fromkeys(name for losses in robust.values() for name, x in losses.items() if x is not None))
        yield (
            "The first seed's macro-AUROC (clean), and what it loses when electrode motion is added to every lead, leads are "
            "taken away, or R peaks are wrong; at most 200 records, intervals over records drawn alike. The detector of the R "
            "peaks was fitted on the same noise record.\n"
        )
        table = ([name, *(_as_list(losses.get(name)) for losses in robust.values())] for name in conditions)
        yield rows(["condition", *robust], *table)


def _as_list(figure: tuple[float, float, float] | None) -> list[float] | None:
    return None if figure is None else list(figure)


def _joined(runs: Sequence[Run], name: str) -> list[float] | None:
    """Return the mean of the runs' figures, and of the ends of their intervals."""
    figures = [getattr(run, name) for run in runs if getattr(run, name) is not None]
    return [float(x) for x in np.mean(figures, axis=0)] if figures else None


def budgets(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs of every task and number of minutes: only these compare. Where sizes differ, arms are named with theirs.

    Raises
    ------
    ValueError
        For two runs of one arm, part of the labels and seed: they had other steps, batches or rates, and no table says which.
    """
    groups: dict[str, list[Run]] = {}
    seen: dict[tuple[Any, ...], Run] = {}
    for run in runs:
        other = seen.setdefault((run.task, run.minutes, run.arm, run.size, run.fraction, run.seed), run)
        if other is not run:
            settings = (f"asked_steps={one.asked_steps}, batch={one.batch}, lr={one.lr}" for one in (other, run))
            raise ValueError(
                f"{run.task}, {run.arm}, {run.fraction:g} of the labels, seed {run.seed}: two runs, with "
                f"{' and with '.join(settings)}; give every setting a folder of its own"
            )
        groups.setdefault(f"{run.task}-{run.minutes:g}", []).append(run)
    for name, members in groups.items():
        if len({run.size for run in members}) > 1:
            groups[name] = [msgspec.structs.replace(run, arm=f"{run.arm} ({run.size})") for run in members]
    return groups


def study_plot(runs: Sequence[Run]) -> Figure:
    """Draw score over label fraction, from the least to the best seed; runs of one task and budget.

    One line per arm; an arm of fewer fractions than others has none.
    """
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.add_subplot()
    fractions = sorted({run.fraction for run in runs})
    parts = {run.arm: len({other.fraction for other in runs if other.arm == run.arm}) for run in runs}
    arms = [arm for arm, count in parts.items() if count == max(parts.values())]
    for number, arm in enumerate(arms):
        scores = {f: list(found.values()) for f in fractions if (found := _by_seed(runs, arm, f))}
        mean = np.array([np.mean([run.score for run in some]) for some in scores.values()])
        ends = np.array([[min(run.score for run in some), max(run.score for run in some)] for some in scores.values()])
        at = 100 * np.array(list(scores)) * 1.03 ** (number - (len(arms) - 1) / 2)
        style = "--" if arm.endswith("probe") else "-"
        spread = np.maximum([mean - ends[:, 0], ends[:, 1] - mean], 0)  # a mean of equal scores may miss them by a rounding
        axes.errorbar(at, mean, spread, marker="o", markersize=4, linestyle=style, label=arm)
    axes.set_xscale("log")
    axes.set_xticks([100 * f for f in fractions], [f"{100 * f:g} %" for f in fractions])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="labelled records", ylabel=_MEASURES.get(runs[0].task, "macro-AUROC"))
    axes.grid(axis="y", color="0.9")
    axes.legend(fontsize=7)
    return figure


def _by_seed(runs: Sequence[Run], arm: str, fraction: float) -> dict[int, Run]:
    return {run.seed: run for run in runs if run.arm == arm and run.fraction == fraction}


def _labels(runs: Sequence[Run], fraction: float) -> str:
    records = {run.records for run in runs if run.fraction == fraction and run.records}
    return f"{100 * fraction:g} % of labels" + (f" ({max(records)} records)" if records else "")


def _mean_cell(runs: dict[int, Run], base: dict[int, Run]) -> str:
    scores = [run.score for run in runs.values() if run.is_measured]
    return f"{np.mean(scores):.3f} ({min(scores):.3f} to {max(scores):.3f}), n {len(scores)}" if scores else "-"


def _difference_cell(runs: dict[int, Run], base: dict[int, Run]) -> str:
    pairs = [(runs[seed], base[seed]) for seed in sorted(runs.keys() & base.keys())]
    differences = np.array([one.score - other.score for one, other in pairs if one.is_measured and other.is_measured])
    number = len(differences)
    if number == 0:
        return "-"
    if np.ptp(differences) == 0:  # one seed, or probes of one encoder with all labels: nothing is drawn
        return f"{differences[0]:+z.3f}, n {number}"
    half = float(student.ppf(0.975, number - 1)) * differences.std(ddof=1) / number**0.5
    return f"{differences.mean():+z.3f} ({differences.mean() - half:+.3f} to {differences.mean() + half:+.3f}), n {number}"


def _steps_cell(runs: dict[int, Run], base: dict[int, Run]) -> str:
    return f"{np.mean([run.steps for run in runs.values()]):.0f}" if runs else "-"


def _arm_order(arm: str) -> tuple[int, str]:
    return (list(ARMS).index(arm) if arm in ARMS else len(ARMS), arm)
