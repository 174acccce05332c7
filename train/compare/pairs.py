"""How far two arms of a study lie apart, with intervals over the test records: what was said of the same records, drawn alike.

The interval over seeds (:mod:`train.compare.study_page`) knows how much a training is worth by chance; this one knows how much
the choice of test records is. Only runs with all labels are compared so; their seeds count together, by the mean of their
figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.score.figures import Statistic
from train.compare.study_page import PAIRS, Apart, Run
from train.judge.by_task import judged
from train.judge.metrics import auroc, difference, interval, macro

__all__ = ["Differences", "differences", "joined_differences"]

Differences = dict[str, dict[str, Apart]]
"""Task and minutes as `budgets` names them, then the title of a pair."""


class _Answers(NamedTuple):
    """What a run said of the test records: their names, what they state and what was said, both ``(R, C)``."""

    file: Path
    records: NDArray[np.str_]
    stated: NDArray[np.bool_]
    said: NDArray[np.float64]


def differences(study: Path) -> Differences:
    """Return the macro-AUROC's difference of every pair of `PAIRS` that was run.

    Parameters
    ----------
    study
        Folder of train.study: runs as JSON with their answers (``.npz``). Runs without answers are left out.

    Raises
    ------
    ValueError
        For answers without a run, and where runs of one task were asked about different test records.
    """
    said: dict[str, dict[str, dict[int, _Answers]]] = {}
    firsts: dict[str, _Answers] = {}
    for file in sorted(study.glob("*.npz")):
        path = file.with_suffix(".json")
        if not path.is_file():
            raise ValueError(f"{file}: answers without their run {path.name}: remove them, or run train.study again")
        run = msgspec.json.decode(path.read_bytes(), type=Run)
        if run.fraction == 1:
            found = np.load(file)
            answers = _Answers(file, found["records"], found["stated"], found["said"].astype(float))
            name = f"{run.task}-{run.minutes:g}"
            _check_alike(firsts.setdefault(name, answers), answers)
            said.setdefault(name, {}).setdefault(run.arm, {})[run.seed] = answers
    return {name: pairs for name, arms in said.items() if (pairs := _pairs(firsts[name].stated, arms))}


def joined_differences(before: Differences, made: Differences) -> Differences:
    """Return all pairs; one that was made again, of at least the same seeds, stands for the one before."""
    out = {name: dict(pairs) for name, pairs in before.items()}
    for name, pairs in made.items():
        old = out.setdefault(name, {})
        old |= {title: new for title, new in pairs.items() if title not in old or set(old[title].seeds) <= set(new.seeds)}
    return {name: out[name] for name in sorted(out)}


def _check_alike(one: _Answers, other: _Answers) -> None:
    if not (np.array_equal(one.records, other.records) and np.array_equal(one.stated, other.stated)):
        raise ValueError(
            f"{other.file}: other test records, or other statements about them, than {one.file.name}: "
            "runs of one study need one cache; take another --out"
        )


def _pairs(stated: NDArray[np.bool_], arms: Mapping[str, Mapping[int, _Answers]]) -> dict[str, Apart]:
    found: dict[str, Apart] = {}
    for title, (first, second) in PAIRS.items():
        seeds = sorted(arms.get(first, {}).keys() & arms.get(second, {}).keys())
        if seeds and judged(stated):
            one, other = (_mean_auroc(stated, [arms[arm][seed].said for seed in seeds]) for arm in (first, second))
            if apart := interval(difference(one, other), len(stated)):
                value, low, high = apart
                found[title] = Apart(tuple(seeds), (value, low, high))
    return found


def _mean_auroc(stated: NDArray[np.bool_], said: Sequence[NDArray[np.float64]]) -> Statistic:
    """Return the macro-AUROC over the judged classes, averaged over seeds."""
    return macro([auroc(stated[:, c], one[:, c]) for one in said for c in judged(stated)])
