"""What of a recording is worth a strip: alarms, runs, pauses, onsets of atrial fibrillation, extremes of the rate, the beginning.

What lies close together shares a strip. Where there is more than is asked for, every kind of thing gives some, the most
urgent first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np

from ecgnat_stream.codes import PRIORITY_MARKS, URGENCY
from ecgnat_stream.words import length

if TYPE_CHECKING:
    from ecgnat_stream.analysis.result import Analysis

__all__ = ["STRIP_S", "Excerpt", "Remark", "find_excerpts"]

STRIP_S = 10.0
_ALARM_AFTER_S, _ONSET_AFTER_S, _EVENT_AFTER_S = 6.0, 4.0, 2.5
"""How far into its strip something lies: an alarm comes after what it is about, a pause is where it is."""

_SHARED_S = 3.0
"""What lies within a strip, and not this close to its end, needs no strip of its own."""

_LEAST_RUN, _LEAST_PAUSE_S = 3, 1.5
_WHOLE_S = 12.0
"""A recording up to this length is one strip."""


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing that was found.

    Parameters
    ----------
    kind
        What is alike shares a kind.
    text
        For a person.
    urgency
        Larger is more urgent: 3 to 1 for alarms from high to low, 0 for what is no alarm, -1 for what is only context.
    at_s, before_s
        Place, and how much of a strip is before it.
    """

    kind: str
    text: str
    urgency: int
    at_s: float
    before_s: float


@dataclass(slots=True)
class Excerpt:
    """A strip to draw: where it begins, and what is to be seen on it."""

    start_s: float
    stop_s: float
    remarks: list[Remark] = field(default_factory=list)


def find_excerpts(analysis: Analysis, most: int) -> tuple[list[Excerpt], Counter[str]]:
    """Return at most ``most`` strips in the order of time, and what else there is that has none: number by kind."""
    remarks = [*_alarms(analysis), *_runs(analysis), *_pause(analysis), *_onsets(analysis), *_extremes(analysis)]
    whole = analysis.length_s <= _WHOLE_S
    first = Excerpt(0.0, analysis.length_s if whole else STRIP_S)
    first.remarks.append(Remark("beginning", "the whole recording" if whole else "the first seconds", -1, 0.0, 0.0))
    excerpts = [first]
    left: Counter[str] = Counter()
    for remark in _in_turn(remarks):
        shared = next((m for m in excerpts if m.start_s <= remark.at_s < m.stop_s - (0 if whole else _SHARED_S)), None)
        if shared is not None:
            shared.remarks.append(remark)
        elif len(excerpts) < most:
            start_s = max(0.0, min(remark.at_s - remark.before_s, analysis.length_s - STRIP_S))
            excerpts.append(Excerpt(start_s, start_s + STRIP_S, [remark]))
        else:
            left[remark.kind] += 1
    for excerpt in excerpts:
        excerpt.remarks.sort(key=lambda one: (-one.urgency, one.at_s))
    return sorted(excerpts, key=lambda excerpt: excerpt.start_s), left


def _in_turn(remarks: list[Remark]) -> Iterator[Remark]:
    """Yield the remarks, one of every kind in turn; kinds and what they hold by urgency."""
    kinds: dict[str, list[Remark]] = {}
    for remark in sorted(remarks, key=lambda one: -one.urgency):
        kinds.setdefault(remark.kind, []).append(remark)
    for turn in zip_longest(*kinds.values()):
        yield from (remark for remark in turn if remark is not None)


def _alarms(analysis: Analysis) -> Iterator[Remark]:
    for alarm in analysis.alarms:
        priority, condition = str(alarm["priority"]), str(alarm["condition"])
        heart = alarm["kind"] == "physiological"
        place = f" {alarm['lead']}" if alarm["lead"] else ""
        lasted = length(float(alarm["stop_s"] - alarm["start_s"]))
        text = f"{PRIORITY_MARKS[priority]} {condition.replace('-', ' ')}{place}, {lasted}"  # type: ignore[index]
        urgency = URGENCY[priority] + 1 if heart else 0  # type: ignore[index]
        yield Remark(condition, text, urgency, float(alarm["start_s"]), _ALARM_AFTER_S)


def _runs(analysis: Analysis) -> Iterator[Remark]:
    """Yield runs of ventricular beats, the longest first."""
    ventricular = analysis.beats["label"] == "V"
    edges = np.flatnonzero(np.diff(np.concatenate([[False], ventricular, [False]]).astype(np.int8)))
    runs = [(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if stop - start >= _LEAST_RUN]
    for start, stop in sorted(runs, key=lambda run: run[0] - run[1]):
        at_s = float(analysis.beats["time_s"][start])
        yield Remark("ventricular run", f"{stop - start} ventricular beats in a row", 0, at_s, _EVENT_AFTER_S)


def _pause(analysis: Analysis) -> Iterator[Remark]:
    pause = analysis.summary().longest_pause
    if pause is not None and pause.length >= _LEAST_PAUSE_S:
        yield Remark("longest pause", f"longest pause, {pause.length:.2f} s", 0, pause.at_s, _EVENT_AFTER_S)


def _onsets(analysis: Analysis) -> Iterator[Remark]:
    """Yield where atrial fibrillation begins, the longest stretch first."""
    spans = analysis.rhythm[analysis.rhythm["label"] == "AF"]
    for span in sorted(spans, key=lambda span: float(span["start_s"] - span["stop_s"])):
        lasted = length(float(span["stop_s"] - span["start_s"]))
        text = f"atrial fibrillation or flutter {'begins' if span['start_s'] > 0 else 'from the start'}, {lasted}"
        yield Remark("atrial fibrillation", text, 0, float(span["start_s"]), _ONSET_AFTER_S)


def _extremes(analysis: Analysis) -> Iterator[Remark]:
    rates = analysis.vitals["heart_rate_bpm"]
    if analysis.length_s <= 2 * STRIP_S or not np.isfinite(rates).any():
        return
    for kind, row in (("lowest heart rate", np.nanargmin(rates)), ("highest heart rate", np.nanargmax(rates))):
        at_s = float(analysis.vitals["at_s"][row])
        yield Remark(kind, f"{kind}, {rates[row]:.0f} bpm", -1, max(0.0, at_s - 1.0), STRIP_S - 2.0)
