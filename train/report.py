"""Turn measurements into pages: the JSON of train.evaluate and of train.study to Markdown tables and plots.

    python -m train.report --results results --study runs/study --out results --pages docs/measured

``RESULTS/<name>.json`` with a section of train.evaluate gives ``PAGES/<name>.md`` and ``PAGES/<name>-<section>.png``. The runs
of a study, one JSON file each, give ``OUT/study.jsonl`` (all of them), ``OUT/pairs.json`` (from their answers),
``PAGES/study.md`` and a plot per task. Same input, same bytes. What OUT held of other runs stays, so that a study goes on where
its first runs are not. ``scripts/results_docs.py`` sums them up in docs/measured/index.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from matplotlib.figure import Figure

from train.compare.pairs import Differences, differences, joined_differences
from train.compare.study_page import budgets, joined, read_runs, study_page, study_plot
from train.judge.tables import is_interval, rows
from train.judge.targets import TARGETS, Target, target_table

__all__ = ["SECTIONS", "page", "plots", "report", "tables"]

SECTIONS = {
    "rhythm": "Dense rhythm",
    "beats": "Beats",
    "screen": "One-lead screening",
    "window": "Diagnostic statements",
    "leads": "By lead set",
    "noise": "By signal-to-noise ratio",
    "beat_errors": "By errors of the R peaks",
    "calibration": "Calibration",
    "cost": "Cost",
}
"""Sections of an evaluation, and their titles."""

_SHORT = {"ppv", "auroc", "auprc", "f1", "ece", "vf", "vt", "r", "v", "snr", "gmac"}
_NAMES = {"bw": "baseline wander", "em": "electrode motion", "ma": "muscle"}


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
    text = [f"# {results['checkpoint']}\n", f"{results['split'].capitalize()} records: {counts}.\n", f"`{results['command']}`\n"]
    text.append("Every figure with its 95 % interval from resampling records; where there are few records, read the intervals.\n")
    table = target_table(results, targets)
    if table:
        text += ["## Targets\n", table]
    for name, title in SECTIONS.items():
        if isinstance(results.get(name), dict):
            text += [f"## {title}\n", *tables(results[name])]
            if name in images:
                text.append(f"![{title}]({images[name]})\n")
    if results["skipped"]:
        text += ["## Not measured\n", "".join(f"- {name}: {reason}\n" for name, reason in results["skipped"].items())]
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


def report(results: Path, study: Path, out: Path, pages: Path | None = None) -> list[Path]:
    """Write all pages and plots to PAGES (OUT if there is none), what they are made of to OUT, and return the paths."""
    pages = pages or out
    for folder in (out, pages):
        folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for file in sorted(results.glob("*.json")):
        content = msgspec.json.decode(file.read_bytes())
        if isinstance(content, dict) and {"command", "skipped"} <= content.keys() and not SECTIONS.keys().isdisjoint(content):
            images = {name: _save(figure, pages / f"{file.stem}-{name}.png", written) for name, figure in plots(content).items()}
            written.append(pages / f"{file.stem}.md")
            written[-1].write_text(page(content, images), encoding="utf-8")
    if runs := joined(read_runs(out / "study.jsonl"), read_runs(study)):
        drawn = {name: some for name, members in budgets(runs).items() if (some := [run for run in members if run.is_measured])}
        images = {name: _save(study_plot(some), pages / f"study-{name}.png", written) for name, some in drawn.items()}
        pairs = out / "pairs.json"
        before = msgspec.json.decode(pairs.read_bytes(), type=Differences) if pairs.is_file() else {}
        if apart := joined_differences(before, differences(study)):
            pairs.write_bytes(msgspec.json.format(msgspec.json.encode(apart), indent=1) + b"\n")
            written.append(pairs)
        written += [out / "study.jsonl", pages / "study.md"]
        written[-2].write_bytes(b"".join(msgspec.json.encode(run) + b"\n" for run in runs))
        written[-1].write_text(study_page(runs, images, apart), encoding="utf-8")
    return written


def _save(figure: Figure, path: Path, written: list[Path]) -> str:
    """Write a figure without the version of its writer, and return its link."""
    figure.savefig(path, dpi=70, metadata={"Software": None})
    written.append(path)
    return path.name


def _words(key: str) -> str:
    return " ".join(_NAMES.get(word, word.upper() if word in _SHORT else word) for word in key.split("_"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of what train.evaluate wrote")
    parser.add_argument("--study", type=Path, default=Path("runs/study"), help="folder of what train.study wrote")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for study.jsonl and pairs.json")
    parser.add_argument("--pages", type=Path, default=Path("docs/measured"), help="folder for the pages and plots")
    arguments = parser.parse_args()
    for one in report(arguments.results, arguments.study, arguments.out, arguments.pages):
        print(one)
