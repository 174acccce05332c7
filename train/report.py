"""Turn measurements into pages: the JSON of train.evaluate and of train.study to Markdown tables and plots.

    python -m train.report --results docs/results --study runs/study --out docs/results

``RESULTS/<name>.json`` with a section of train.evaluate gives ``OUT/<name>.md`` and ``OUT/<name>-<section>.png``. The runs of a
study, one JSON file each, give ``OUT/study.jsonl`` (all of them), ``OUT/study.md`` and a plot per task. Same input, same bytes.
``scripts/results_docs.py`` puts the tables into docs/results.md, so images are linked as seen from there.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import t as student

from train.study import ARMS
from train.tables import is_interval, rows
from train.targets import TARGETS, Target, target_table

__all__ = [
    "SECTIONS",
    "Run",
    "page",
    "plots",
    "read_runs",
    "report",
    "study_page",
    "tables",
]

SECTIONS = {
    "rhythm": "Dense rhythm",
    "beats": "Beats",
    "screen": "One-lead screening",
    "window": "Diagnostic statements",
    "leads": "By lead set",
    "noise": "By signal-to-noise ratio",
    "calibration": "Calibration",
    "cost": "Cost",
}
"""Sections of an evaluation, and their titles."""


class Run(msgspec.Struct, frozen=True):
    """One run of a study.

    Parameters
    ----------
    test
        The figure on the test records, of runs that were judged by one figure alone.
    auroc, auprc, f1
        Figures on the test records, ``(value, low, high)``; None where no class is stated often enough.
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


_BASES = ("ecgnat", "scratch")
"""What the others are compared with: the first of these that was run."""

_SHORT = {"ppv", "auroc", "auprc", "f1", "ece", "vf", "vt", "r", "v", "snr", "gmac"}
_NAMES = {"bw": "baseline wander", "em": "electrode motion", "ma": "muscle"}
_MEASURES = {"screen": "mean F1 of N, A and O on cinc2017", "window": "macro-AUROC of the superclasses on ptbxl"}


def tables(section: dict[str, Any]) -> Iterator[str]:
    """Yield the tables of nested figures: dicts at the same depth that share most of their keys are the rows of one table.

    The keys that lead to a row are its first columns; those that all rows of a table share are its caption. Lists that are no
    figure (bins, matrices) are left to the plots, and columns without any figure are left out.
    """
    groups: list[list[tuple[tuple[str, ...], dict[str, Any]]]] = []
    for path, figures in _leaves(section, ()):
        for group in groups:
            ours, theirs = figures.keys(), group[0][1].keys()
            if len(path) == len(group[0][0]) and 2 * len(ours & theirs) >= len(ours | theirs):
                group.append((path, figures))
                break
        else:
            groups.append([(path, figures)])
    for group in groups:
        levels = list(zip(*(path for path, _ in group), strict=True))
        own = [level for level in levels if len(set(level)) > 1]
        columns = list(dict.fromkeys(key for _, figures in group for key in figures))
        columns = [key for key in columns if any(figures.get(key) is not None for _, figures in group)]
        caption = ", ".join(_words(level[0]) for level in levels if len(set(level)) == 1)
        head = [*("" for _ in own), *map(_words, columns)]
        body = [[*(_words(level[n]) for level in own), *(f.get(key) for key in columns)] for n, (_, f) in enumerate(group)]
        if len(group) == 1 and len(columns) > 6:
            head, body = ["figure", "value"], [list(pair) for pair in zip(head, body[0], strict=True)]
        yield (f"**{caption}**\n\n" if caption else "") + rows(head, *body)


def _leaves(node: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield every dict with a figure that is not None, with the keys that lead to it."""
    figures = {key: x for key, x in node.items() if x is None or isinstance(x, str | int | float) or is_interval(x)}
    if any(value is not None for value in figures.values()):
        yield path, figures
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))


def page(results: dict[str, Any], images: dict[str, str], targets: Sequence[Target] = TARGETS) -> str:
    """Return the Markdown of one evaluation.

    Parameters
    ----------
    images
        Section to the link of its plot.
    """
    counts = ", ".join(f"{number} {name}" for name, number in results["records"].items())
    text = [f"{results['checkpoint']}, {results['split']} records: {counts}.\n", f"`{results['command']}`\n"]
    table = target_table(results, targets)
    if table:
        text += ["### Targets\n", table]
    for name, title in SECTIONS.items():
        if isinstance(results.get(name), dict):
            text += [f"### {title}\n", *tables(results[name])]
            if name in images:
                text.append(f"![{title}]({images[name]})\n")
    if results["skipped"]:
        text += ["### Not measured\n", "".join(f"- {name}: {reason}\n" for name, reason in results["skipped"].items())]
    return "\n".join(text)


def plots(results: dict[str, Any]) -> dict[str, Figure]:
    """Return the plot of every section that has something to draw."""
    drawn: dict[str, Figure] = {}
    for name in SECTIONS:
        panels = list(_panels(results, name)) if isinstance(results.get(name), dict) else []
        if panels:
            columns, lines = min(len(panels), 3), -(-len(panels) // 3)
            drawn[name] = Figure(figsize=(3.8 * columns, 3.5 * lines), layout="constrained")
            for at, (draw, title, content) in enumerate(panels):
                axes = drawn[name].add_subplot(lines, columns, at + 1)
                draw(axes, content)
                axes.set_title(title, fontsize=9)
    return drawn


def _panels(results: dict[str, Any], name: str) -> Iterator[tuple[Callable[[Any, Any], None], str, Any]]:
    """Yield what can be drawn of a section: a function, a title, and what the function draws."""
    section = results[name]
    if name == "leads":
        yield _draw_lines, SECTIONS[name], section["sets"]
    elif name == "noise":
        for kind, levels in section.items():
            if isinstance(levels, dict) and kind != "clean":
                yield _draw_lines, _words(kind), {"clean": section["clean"]} | levels
    else:
        yield from _matrices(section, SECTIONS[name])


def _matrices(node: dict[str, Any], title: str) -> Iterator[tuple[Callable[[Any, Any], None], str, Any]]:
    for key, value in node.items():
        if key == "confusion" and isinstance(value, dict):
            yield _draw_confusion, title, value
        elif key == "reliability":
            yield _draw_reliability, title, value
        elif isinstance(value, dict):
            yield from _matrices(value, _words(key))


def _draw_confusion(axes: Any, content: dict[str, Any]) -> None:
    """Draw counts, rows stated and columns said, shaded by their share of the row."""
    matrix, classes = np.array(content["confusion"], float), content["classes"]
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1e-12)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*matrix.shape):
        color = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, f"{matrix[row, column]:.0f}", ha="center", va="center", fontsize=6, color=color)
    axes.set_xticks(range(len(classes)), classes, fontsize=7, rotation=90 if max(map(len, classes)) > 4 else 0)
    axes.set_yticks(range(len(classes)), classes, fontsize=7)
    axes.set(xlabel="said", ylabel="stated")


def _draw_reliability(axes: Any, bins: list[list[float]]) -> None:
    """Draw bins of ``[mean confidence, share that is right, number]``; empty ones are left out."""
    filled = np.array([row for row in bins if row[2]], float).reshape(-1, 3)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    axes.plot(filled[:, 0], filled[:, 1], color="tab:blue", linewidth=0.8)
    axes.scatter(filled[:, 0], filled[:, 1], s=4 + 60 * filled[:, 2] / filled[:, 2].sum(), color="tab:blue")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share that is right")


def _draw_lines(axes: Any, places: dict[str, dict[str, Any]]) -> None:
    """Draw every figure that has an interval, from place to place."""
    names = list(dict.fromkeys(name for figures in places.values() for name in figures if is_interval(figures[name])))
    for number, name in enumerate(names):
        there = [(at, figures[name]) for at, figures in enumerate(places.values()) if is_interval(figures.get(name))]
        value, low, high = np.array([figure for _, figure in there], float).T
        shifted = np.array([at for at, _ in there]) + 0.06 * (number - (len(names) - 1) / 2)
        errors = np.nan_to_num(np.maximum([value - low, high - value], 0))
        axes.errorbar(shifted, value, errors, marker="o", markersize=3, linewidth=0.9, label=_words(name))
    axes.set_xticks(range(len(places)), [_words(key) for key in places], fontsize=7, rotation=30)
    axes.grid(axis="y", color="0.9")
    if names:
        axes.legend(fontsize=6)


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
    return sorted(runs, key=lambda run: (run.task, run.minutes, _arm_order(run.arm), run.size, run.fraction, run.seed))


def study_page(runs: Sequence[Run], images: dict[str, str]) -> str:
    """Return the Markdown of a study; ``images``: the keys of `budgets` to plots."""
    text = [
        "Mean over seeds (least to most), n seeds. A seed also draws the labelled records, so arms are compared seed by seed: "
        "the mean of the differences to the first arm with its 95 % t interval over seeds. Intervals of figures with all labels "
        "are 95 % bootstrap intervals over the test records, their ends averaged over the seeds.\n"
    ]
    for name, members in budgets(runs).items():
        task, minutes = members[0].task, members[0].minutes
        fractions = sorted({run.fraction for run in members})
        arms = list(dict.fromkeys(run.arm for run in members))
        of = {(arm, fraction): _by_seed(members, arm, fraction) for arm in arms for fraction in fractions}
        measured = any(map(_is_measured, members))
        budget = f"{minutes:g} minutes per run" if minutes else "the same steps for all"
        text.append(f"### {_words(task)}: {_MEASURES.get(task, 'macro-AUROC')}, {budget}\n")
        base = next((arm for arm in arms if arm.split(" (")[0] in _BASES), arms[0])
        if not measured:
            text.append("No class can be measured: none has ten test positives.\n")
        for title, line in (("test", _mean_cell), (f'test, difference to "{base}"', _difference_cell), ("steps", _steps_cell)):
            head = [title, *(_labels(members, fraction) for fraction in fractions)]
            shown = [arm for arm in arms if line is not _difference_cell or (arm != base and measured)]
            body = [[arm, *(line(of[arm, f], of.get((base, f), {})) for f in fractions)] for arm in shown]
            if body:
                text.append(rows(head, *body))
        text += _figures(members, arms)
        if name in images:
            text.append(f"![{task}]({images[name]})\n")
    return "\n".join(text)


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
    """Return the runs of every task and number of minutes: only these compare. Where sizes differ, arms are named with theirs."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(f"{run.task}-{run.minutes:g}", []).append(run)
    for name, members in groups.items():
        if len({run.size for run in members}) > 1:
            groups[name] = [msgspec.structs.replace(run, arm=f"{run.arm} ({run.size})") for run in members]
    return groups


def study_plot(runs: Sequence[Run]) -> Figure:
    """Draw score over label fraction, one line per arm, from the least to the best seed; runs of one task and budget."""
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.add_subplot()
    fractions = sorted({run.fraction for run in runs})
    arms = list(dict.fromkeys(run.arm for run in runs))
    for number, arm in enumerate(arms):
        scores = {f: list(found.values()) for f in fractions if (found := _by_seed(runs, arm, f))}
        mean = np.array([np.mean([run.score for run in some]) for some in scores.values()])
        ends = np.array([[min(run.score for run in some), max(run.score for run in some)] for some in scores.values()])
        at = 100 * np.array(list(scores)) * 1.03 ** (number - (len(arms) - 1) / 2)
        style = "--" if arm.endswith("probe") else "-"
        axes.errorbar(at, mean, [mean - ends[:, 0], ends[:, 1] - mean], marker="o", markersize=4, linestyle=style, label=arm)
    axes.set_xscale("log")
    axes.set_xticks([100 * f for f in fractions], [f"{100 * f:g} %" for f in fractions])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="labelled records", ylabel=_MEASURES.get(runs[0].task, "macro-AUROC"))
    axes.grid(axis="y", color="0.9")
    axes.legend(fontsize=7)
    return figure


def _is_measured(run: Run) -> bool:
    return math.isfinite(run.score)


def _by_seed(runs: Sequence[Run], arm: str, fraction: float) -> dict[int, Run]:
    return {run.seed: run for run in runs if run.arm == arm and run.fraction == fraction}


def _labels(runs: Sequence[Run], fraction: float) -> str:
    records = {run.records for run in runs if run.fraction == fraction and run.records}
    return f"{100 * fraction:g} % of labels" + (f" ({max(records)} records)" if records else "")


def _mean_cell(runs: dict[int, Run], base: dict[int, Run]) -> str:
    scores = [run.score for run in runs.values() if _is_measured(run)]
    return f"{np.mean(scores):.3f} ({min(scores):.3f} to {max(scores):.3f}), n {len(scores)}" if scores else "-"


def _difference_cell(runs: dict[int, Run], base: dict[int, Run]) -> str:
    pairs = [(runs[seed], base[seed]) for seed in sorted(runs.keys() & base.keys())]
    differences = np.array([one.score - other.score for one, other in pairs if _is_measured(one) and _is_measured(other)])
    number = len(differences)
    if number < 2:
        return f"{differences[0]:+z.3f}, n 1" if number else "-"
    half = float(student.ppf(0.975, number - 1)) * differences.std(ddof=1) / number**0.5
    return f"{differences.mean():+z.3f} ({differences.mean() - half:+z.3f} to {differences.mean() + half:+z.3f}), n {number}"


def _steps_cell(runs: dict[int, Run], base: dict[int, Run]) -> str:
    return f"{np.mean([run.steps for run in runs.values()]):.0f}" if runs else "-"


def report(results: Path, study: Path, out: Path) -> list[Path]:
    """Write all pages and plots and return their paths."""
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for file in sorted(results.glob("*.json")):
        content = msgspec.json.decode(file.read_bytes())
        if isinstance(content, dict) and {"command", "skipped", *SECTIONS} <= content.keys():
            images = {name: _save(figure, out / f"{file.stem}-{name}.png", written) for name, figure in plots(content).items()}
            written.append(out / f"{file.stem}.md")
            written[-1].write_text(page(content, images), encoding="utf-8")
    runs = read_runs(study) or read_runs(out / "study.jsonl")
    if runs:
        drawn = {name: some for name, members in budgets(runs).items() if (some := list(filter(_is_measured, members)))}
        images = {name: _save(study_plot(some), out / f"study-{name}.png", written) for name, some in drawn.items()}
        written += [out / "study.jsonl", out / "study.md"]
        written[-2].write_bytes(b"".join(msgspec.json.encode(run) + b"\n" for run in runs))
        written[-1].write_text(study_page(runs, images), encoding="utf-8")
    return written


def _save(figure: Figure, path: Path, written: list[Path]) -> str:
    """Write a figure without the version of its writer, and return its link."""
    figure.savefig(path, dpi=70, metadata={"Software": None})
    written.append(path)
    return f"{path.parent.name}/{path.name}"


def _arm_order(arm: str) -> tuple[int, str]:
    return (list(ARMS).index(arm) if arm in ARMS else len(ARMS), arm)


def _words(key: str) -> str:
    return " ".join(_NAMES.get(word, word.upper() if word in _SHORT else word) for word in key.split("_"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("docs/results"), help="folder of what train.evaluate wrote")
    parser.add_argument("--study", type=Path, default=Path("runs/study"), help="folder of what train.study wrote")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="folder for the pages and plots")
    arguments = parser.parse_args()
    for one in report(arguments.results, arguments.study, arguments.out):
        print(one)
