"""What the checker knows besides what was received: when each bed's signal was true, when the monitor lived, how its loop did."""

from __future__ import annotations

import bisect
import json
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.chaos.conduct import Life, Log
from tests.chaos.receivers import Heard

__all__ = ["Presence", "Span", "loop_lines", "meets", "true_spans", "twin_spans"]

Span = tuple[float, float]

TAKEN_BACK_S = 40.0
"""A bed of a second monitor that has ended is the first one's again after this time at most: 35 s if it ended without a word."""


def meets(one: Span, other: Span) -> Span | None:
    """Return what two spans share, None if nothing."""
    start, stop = max(one[0], other[0]), min(one[1], other[1])
    return (start, stop) if start < stop else None


def true_spans(log: Log) -> dict[str, list[Span]]:
    """Return per bed when its device delivered the heart as it is, to a monitor that lived."""
    lines = _json_lines(log.folder / "truth.jsonl")
    spans: dict[str, list[Span]] = defaultdict(list)
    since: dict[str, float] = {}
    for line in lines:
        bed, t = str(line["bed"]), float(line["t"])
        if bed in since:
            spans[bed].append((since.pop(bed), t))
        if line["true"]:
            since[bed] = t
    for bed, t in since.items():
        spans[bed].append((t, log.plan.seconds))
    return {bed: [part for span in spans[bed] for part in _alive(span, log.lives)] for bed in log.plan.beds}


def _alive(span: Span, lives: Iterable[Life]) -> list[Span]:
    """Cut a span at the end of the life that it began in: what a killed process did not close ends with it.

    The next process has not opened the device yet, which its own word tells.
    """
    begun = (life for life in lives if life.began <= span[0] <= (life.told or life.ended))
    return [part for life in begun if (part := meets(span, (life.began, life.told or life.ended)))]


def twin_spans(log: Log) -> dict[str, list[Span]]:
    """Return per bed when a second monitor had it at the broker: until a status of the first one's stream stands there.

    A bed that the first one has not taken back in time counts as its own again.
    """
    spans: dict[str, list[Span]] = defaultdict(list)
    since: dict[str, float] = {}
    for t, bed, session in log.ledger.sessions:
        if (bed, session) in log.ledger.twin_sessions:
            since.setdefault(bed, t)
        elif bed in since:
            spans[bed].append((since.pop(bed), t))
    for bed, t in since.items():
        spans[bed].append((t, math.inf))
    ends = [ended + TAKEN_BACK_S for fault, _, ended in log.done if fault.kind == "twin"]
    return {
        bed: [(start, min([stop, *(end for end in ends if end > start)])) for start, stop in found]
        for bed, found in spans.items()
    }


def loop_lines(log: Log) -> list[dict[str, Any]]:
    """Return what the monitor's loop watch has noted."""
    return _json_lines(log.folder / "loop.jsonl")


def _json_lines(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


class Presence:
    """When each condition was on, by what one sink has received.

    Parameters
    ----------
    heard
        Alarm events of one sink.
    """

    def __init__(self, heard: Iterable[Heard]) -> None:
        self._changes: dict[tuple[str, str], list[tuple[float, bool]]] = defaultdict(list)
        self.about: dict[tuple[str, str], tuple[str, str]] = {}
        for item in sorted(heard, key=lambda item: item.t):
            alarm = item.alarm
            key = (alarm.bed, alarm.condition)
            self.about[key] = (alarm.kind, alarm.priority)
            self._changes[key].append((item.t, alarm.presence in ("on", "acknowledged")))

    def conditions(self, bed: str, kind: str, priority: str = "") -> list[str]:
        """Return the conditions of a bed that were ever said, of one kind and priority."""
        return [c for (b, c), (k, p) in self.about.items() if b == bed and k == kind and priority in ("", p)]

    def on(self, bed: str, condition: str, t: float) -> bool:
        """Return whether a condition was on at ``t``."""
        changes = self._changes.get((bed, condition), [])
        index = bisect.bisect_right(changes, (t, True)) - 1
        return index >= 0 and changes[index][1]

    def first_on(self, bed: str, conditions: Iterable[str], start: float, stop: float) -> float | None:
        """Return when the first of some conditions was on between two times, None if never."""
        times = [start for condition in conditions if self.on(bed, condition, start)]
        for condition in conditions:
            times += [t for t, present in self._changes.get((bed, condition), []) if present and start <= t <= stop]
        return min(times, default=None)
