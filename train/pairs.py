"""How far two arms of a study lie apart, with intervals over the test records: what was said of the same records, drawn alike.

The interval over seeds (:mod:`train.study_page`) knows how much a training is worth by chance; this one knows how much the
choice of test records is. Only runs with all labels are compared so; their seeds count together, by the mean of their figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from train.judging import judged
from train.metrics import Interval, Statistic, auroc, difference, interval, macro
from train.study_page import PAIRS, Run

__all__ = ["differences"]

Said = dict[int, NDArray[np.float64]]
"""Seed to logits ``(R, C)``."""


def differences(study: Path) -> dict[str, dict[str, Interval]]:
    """Return, by task and minutes as `budgets` names them, the macro-AUROC's difference of every pair of `PAIRS` that was run.

    Parameters
    ----------
    study
        Folder of train.study: runs as JSON with their answers (``.npz``). Runs without answers are left out.
    """
    stated: dict[str, NDArray[np.bool_]] = {}
    said: dict[str, dict[str, Said]] = {}
    for file in sorted(study.glob("*.npz")):
        run = msgspec.json.decode(file.with_suffix(".json").read_bytes(), type=Run)
        if run.fraction == 1:
            answers = np.load(file)
            name = f"{run.task}-{run.minutes:g}"
            stated[name] = answers["stated"]
            said.setdefault(name, {}).setdefault(run.arm, {})[run.seed] = answers["said"].astype(float)
    return {name: found for name, arms in said.items() if (found := _pairs(stated[name], arms))}


def _pairs(stated: NDArray[np.bool_], arms: dict[str, Said]) -> dict[str, Interval]:
    found: dict[str, Interval] = {}
    for title, (first, second) in PAIRS.items():
        seeds = sorted(arms.get(first, {}).keys() & arms.get(second, {}).keys())
        if seeds and judged(stated):
            one, other = (_mean_auroc(stated, [arms[arm][seed] for seed in seeds]) for arm in (first, second))
            if apart := interval(difference(one, other), len(stated)):
                found[title] = apart
    return found


def _mean_auroc(stated: NDArray[np.bool_], said: Sequence[NDArray[np.float64]]) -> Statistic:
    """Return the macro-AUROC over the judged classes, averaged over seeds."""
    return macro([auroc(stated[:, c], one[:, c]) for one in said for c in judged(stated)])
