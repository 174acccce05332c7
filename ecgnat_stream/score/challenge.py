"""The PhysioNet/CinC Challenge 2015: false and true alarms of an intensive care unit.

The monitor listens to the record up to the moment of the bedside monitor's alarm, and confirms it when its own alarm of that
condition, or one that covers it, was on at any moment of the last 10 s. Only what was said by then counts: this is the real-time
event of the Challenge.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ecgnat_stream.score.truth import CHALLENGE_ALARMS, Challenge
from ecgnat_stream.spans import AlarmSpan

__all__ = ["WITHIN_S", "confirmed", "score", "summarise"]

WITHIN_S = 10.0
"""The onset of a true alarm lies within the 10 s before it (Challenge 2015; ANSI/AAMI EC13)."""


def confirmed(challenge: Challenge, alarms: Iterable[AlarmSpan]) -> bool:
    """Tell whether the monitor alarms for the same within the 10 s before the alarm."""
    conditions = CHALLENGE_ALARMS[challenge.alarm]
    since_s = challenge.at_s - WITHIN_S
    return any(a.condition in conditions and a.start_s <= challenge.at_s and a.stop_s > since_s for a in alarms)


def score(tp: float, tn: float, fp: float, fn: float) -> float | None:
    """Return the Challenge's score: (TP + TN) / (TP + TN + FP + 5 FN)."""
    whole = tp + tn + fp + 5 * fn
    return (tp + tn) / whole if whole else None


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Count verdicts per type of alarm and overall; a row has ``alarm``, ``real`` and ``confirmed``."""
    found = {}
    for name in (*sorted({row["alarm"] for row in rows}), "all"):
        part = [row for row in rows if name in (row["alarm"], "all")]
        tp, fn = (sum(row["real"] and row["confirmed"] is said for row in part) for said in (True, False))
        fp, tn = (sum(not row["real"] and row["confirmed"] is said for row in part) for said in (True, False))
        found[name] = {
            "records": len(part),
            "tp": tp,
            "tn": tn,
            "fp": fp,
            "fn": fn,
            "sensitivity": tp / (tp + fn) if tp + fn else None,
            "specificity": tn / (tn + fp) if tn + fp else None,
            "score": score(tp, tn, fp, fn),
        }
    return found
