"""What the network is meant to reach on the test records, and how far an evaluation got."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from train.judge.tables import find, is_interval, rows

__all__ = ["TARGETS", "Target", "target_table"]


class Target(msgspec.Struct, frozen=True):
    """What a figure should reach, what to compare it with, and where it lies in the evaluation: keys, outermost first."""

    task: str
    metric: str
    limit: float
    compare: str
    path: tuple[str, ...]
    at_most: bool = False

    @property
    def wanted(self) -> str:
        """The target as text."""
        return f"{'at most' if self.at_most else 'at least'} {self.limit:g}"

    def met(self, value: float) -> bool:
        """Tell whether a figure reaches the target."""
        return value <= self.limit if self.at_most else value >= self.limit


_DENSE, _MITDB = ("rhythm", "arrhythmia"), ("beats", "mitdb")
TARGETS = (
    Target("one-lead screening", "mean F1 of N, A, O", 0.80, ".83, Challenge winners, more data", ("screen", "mean_f1")),
    Target("VF in 4 s", "sensitivity", 0.95, "AHA > .90; .997 published", (*_DENSE, "shockable_4_s", "sensitivity")),
    Target("VF in 4 s", "specificity", 0.985, "AHA > .95; .989 published", (*_DENSE, "shockable_4_s", "specificity")),
    Target("VT duration", "sensitivity", 0.80, "", (*_DENSE, "classes", "VT", "sensitivity")),
    Target("VT duration", "PPV", 0.70, "", (*_DENSE, "classes", "VT", "ppv")),
    Target("AF duration", "sensitivity", 0.95, ".97 on mitdb, RR only", (*_DENSE, "classes", "AF", "sensitivity")),
    Target("AF duration", "PPV", 0.90, ".48 to .55 on mitdb, RR only", (*_DENSE, "classes", "AF", "ppv")),
    Target("R peaks, mitdb", "F1", 0.995, ".999 published", (*_MITDB, "r_peak", "f1")),
    Target("V beats, mitdb", "F1", 0.93, ".90 to .95, inter-patient", (*_MITDB, "classes", "V", "f1")),
    Target("S beats, mitdb", "F1", 0.65, ".60 to .85, inter-patient", (*_MITDB, "classes", "S", "f1")),
    Target("PTB-XL superclasses", "macro-AUROC", 0.87, ".875 with 1,700 training records", ("window", "macro_auroc")),
    Target("calibration, rhythm", "ECE", 0.05, "", ("calibration", "rhythm", "ece"), at_most=True),
    Target("calibration, screening", "ECE", 0.05, "", ("calibration", "screen", "ece"), at_most=True),
    Target("calibration, diagnoses", "ECE", 0.05, "", ("calibration", "window", "ece"), at_most=True),
)
"""What the network is meant to reach on the test records, and published figures, most of more training data."""


def target_table(results: dict[str, Any], targets: Sequence[Target] = TARGETS) -> str:
    """Return the Markdown table of the targets that were measured; empty where none was."""
    measured = [(target, find(results, target.path)) for target in targets]
    lines = [
        [one.task, one.metric, one.wanted, value, one.met(value[0]), one.compare or "-"]
        for one, value in measured
        if is_interval(value)
    ]
    return rows(["task", "metric", "target", "measured (95 % CI)", "met", "for comparison"], *lines) if lines else ""
