"""One record's comparison, and what the records of a database come to: what goes into the JSON report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from ecgnat_stream.codes import BEATS, PRIORITIES, Priority
from ecgnat_stream.score import challenge
from ecgnat_stream.score.alarms import EpisodeReport, false_s, found_episodes, verdict
from ecgnat_stream.score.compare import NO_BEAT, BeatPair, beat_table, counts, episode_counts, pair_beats
from ecgnat_stream.score.figures import average, f1, gross, quantiles
from ecgnat_stream.score.run import Observed
from ecgnat_stream.score.truth import Truth
from ecgnat_stream.spans import AlarmSpan

__all__ = ["RHYTHM_OF", "AlarmReport", "RecordReport", "SaidSpan", "StatedSpan", "pairs_of", "record_report", "summarise"]

RHYTHM_OF = {"AF": "atrial-fibrillation", "VF": "ventricular-fibrillation", "VT": "ventricular-tachycardia"}
"""Rhythm label and alarm condition of the episodes that EC57 compares."""

_WITHIN_S = 10.0
_DAY_S = 86400.0
VERDICTS = ("true", "false", "other", "unjudged", "technical")
FALSE = ("false", "other")


def pairs_of(truth: Truth, observed: Observed, *, whole: bool = False) -> list[BeatPair]:
    """Pair the record's beats where they are compared, or all of them; a class that is not stated counts as N."""
    if truth.beats_s is None and not whole:
        return []
    beats_s = np.empty(0) if truth.beats_s is None else truth.beats_s
    stated = ["N"] * len(beats_s) if truth.classes is None else truth.classes.tolist()
    from_s, without = (0.0, []) if whole else (truth.learning_s, truth.vf)
    return pair_beats(beats_s, stated, observed.beats_s, observed.classes, from_s=from_s, without=without)


class AlarmReport(msgspec.Struct, frozen=True):
    """One alarm: when it was on, what is to be said of it (:data:`VERDICTS`), and for how long it was on without a cause."""

    condition: str
    start_s: float
    stop_s: float
    priority: Priority
    verdict: str
    false_s: float


class StatedSpan(msgspec.Struct, frozen=True):
    """A stretch in which a condition is annotated; ``required``: an alarm is due."""

    start_s: float
    stop_s: float
    required: bool


class SaidSpan(msgspec.Struct, frozen=True):
    """A stretch for which the monitor said one rhythm."""

    start_s: float
    stop_s: float
    label: str


class RecordReport(msgspec.Struct, frozen=True, kw_only=True):
    """One record's comparison.

    Parameters
    ----------
    truth
        The annotated stretches of each condition.
    found
        The same as they were alarmed.
    beats
        ``table`` of classes, and counts of QRS complexes, V and S; None where no beats are stated.
    episodes
        Per rhythm, by ``label`` and by ``alarm``, what :func:`~ecgnat_stream.score.compare.episode_counts` gives.
    challenge
        The alarm of the Challenge 2015 and whether it was confirmed.
    """

    database: str
    record: str
    split: str
    seconds: float
    learning_s: float
    unusable_s: float
    stated: list[str]
    truth: dict[str, list[StatedSpan]]
    alarms: list[AlarmReport]
    found: list[EpisodeReport]
    rhythm: list[SaidSpan]
    beats: dict[str, Any] | None
    episodes: dict[str, dict[str, dict[str, float]]]
    challenge: dict[str, Any] | None


def record_report(truth: Truth, observed: Observed) -> RecordReport:
    """Compare one record."""
    asked = truth.challenge
    beats: dict[str, Any] | None = None
    if truth.beats_s is not None:
        table = beat_table(pairs_of(truth, observed))
        kinds = ("QRS",) if truth.classes is None else ("QRS", "V", "S")
        beats = {"table": table.tolist()} | {kind: counts(table, kind)._asdict() for kind in kinds}
    return RecordReport(
        database=truth.database,
        record=truth.name,
        split=truth.split,
        seconds=round(truth.length_s, 1),
        learning_s=truth.learning_s,
        unusable_s=round(sum(stop - start for start, stop in observed.unusable), 1),
        stated=sorted(truth.stated),
        truth={
            condition: [StatedSpan(round(e.start_s, 2), round(e.stop_s, 2), e.required) for e in episodes]
            for condition, episodes in truth.episodes.items()
        },
        alarms=[_alarm(truth, alarm) for alarm in observed.alarms],
        found=found_episodes(truth, observed.alarms),
        rhythm=[SaidSpan(round(span.start_s, 2), round(span.stop_s, 2), span.label) for span in observed.rhythm],
        beats=beats,
        episodes={
            label: {
                "label": episode_counts(truth.spans(condition), observed.labelled(label), from_s=truth.learning_s),
                "alarm": episode_counts(truth.spans(condition), observed.alarmed(condition), from_s=truth.learning_s),
            }
            for label, condition in RHYTHM_OF.items()
            if condition in truth.stated
        },
        challenge=None if asked is None else asked._asdict() | {"confirmed": challenge.confirmed(asked, observed.alarms)},
    )


def _alarm(truth: Truth, alarm: AlarmSpan) -> AlarmReport:
    """Judge an alarm; of a record of the Challenge only the alarm in question is judged."""
    said, wrong_s = verdict(truth, alarm), round(false_s(truth, alarm), 1)
    if truth.challenge is not None and said != "technical":
        said, wrong_s = "unjudged", 0.0
    return AlarmReport(alarm.condition, round(alarm.start_s, 2), round(alarm.stop_s, 2), alarm.priority, said, wrong_s)


def summarise(rows: Sequence[RecordReport]) -> dict[str, Any]:
    """Return the figures over records: beats, episodes, alarms, Challenge; parts of which nothing is stated are left out."""
    summary: dict[str, Any] = {"records": len(rows), "hours": round(sum(row.seconds for row in rows) / 3600, 3)}
    with_beats = [row.beats for row in rows if row.beats is not None]
    if with_beats:
        summary["beats"] = _beats(with_beats)
    episodes = {
        label: {by: _episodes([row.episodes[label][by] for row in rows if label in row.episodes]) for by in ("label", "alarm")}
        for label in RHYTHM_OF
        if any(label in row.episodes for row in rows)
    }
    if episodes:
        summary["episodes"] = episodes
    judged = [row for row in rows if row.stated]
    if judged:
        summary["alarms"] = _alarms(judged)
    alarmed = [row.challenge for row in rows if row.challenge is not None]
    if alarmed:
        summary["challenge"] = challenge.summarise(alarmed)
    return summary


def _beats(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in ("QRS", "V", "S"):
        part = [row[kind] for row in rows if kind in row]
        if not part:
            continue
        tp, fn, fp = (np.array([one[key] for one in part]) for key in ("tp", "fn", "fp"))
        found[kind] = {
            "tp": int(tp.sum()),
            "fn": int(fn.sum()),
            "fp": int(fp.sum()),
            "sensitivity": gross(tp, tp + fn),
            "ppv": gross(tp, tp + fp),
            "f1": f1(tp, fn, fp),
            "average_sensitivity": average(tp, tp + fn),
            "average_ppv": average(tp, tp + fp),
        }
    table = np.sum([row["table"] for row in rows], axis=0)
    return found | {"table": table.tolist(), "table_classes": [*BEATS, NO_BEAT]}


def _episodes(rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    total = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    return {key: round(float(values.sum()), 1) for key, values in total.items()} | {
        "episode_sensitivity": gross(total["stated_found"], total["stated"]),
        "episode_ppv": gross(total["said_true"], total["said"]),
        "duration_sensitivity": gross(total["shared_s"], total["stated_s"]),
        "duration_ppv": gross(total["shared_s"], total["said_s"]),
        "average_duration_sensitivity": average(total["shared_s"], total["stated_s"]),
        "average_duration_ppv": average(total["shared_s"], total["said_s"]),
    }


def _alarms(rows: Sequence[RecordReport]) -> dict[str, Any]:
    days = np.array([row.seconds for row in rows]) / _DAY_S
    conditions = sorted(
        {alarm.condition for row in rows for alarm in row.alarms} | {found.condition for row in rows for found in row.found}
    )
    table = {condition: _condition(rows, condition, days) for condition in conditions}
    priorities = {}
    for priority in reversed(PRIORITIES):
        false = np.array([sum(a.priority == priority and a.verdict in FALSE for a in row.alarms) for row in rows])
        every = [sum(a.priority == priority for a in row.alarms) for row in rows]
        priorities[priority] = {
            "alarms": int(sum(every)),
            "false": int(false.sum()),
            "false_per_bed_day": gross(false, days),
            "alarms_per_bed_day": gross(every, days),
            "seconds": round(sum(a.stop_s - a.start_s for row in rows for a in row.alarms if a.priority == priority), 1),
            "false_seconds": round(sum(a.false_s for row in rows for a in row.alarms if a.priority == priority), 1),
        }
    return {"bed_days": round(float(days.sum()), 4), "conditions": table, "priorities": priorities}


def _condition(rows: Sequence[RecordReport], condition: str, days: Any) -> dict[str, Any]:
    alarms = [[a for a in row.alarms if a.condition == condition] for row in rows]
    verdicts = {name: [sum(a.verdict == name for a in part) for part in alarms] for name in VERDICTS}
    false = np.array(verdicts["false"]) + np.array(verdicts["other"])
    due = [[f for f in row.found if f.condition == condition and f.required] for row in rows]
    after = [f.alarm_after_s for part in due for f in part if f.alarm_after_s is not None]
    within = [sum(f.alarm_after_s is not None and f.alarm_after_s <= _WITHIN_S for f in part) for part in due]
    any_high = [sum(f.any_high_after_s is not None and f.any_high_after_s <= _WITHIN_S for f in part) for part in due]
    number = [len(part) for part in due]
    return {
        "alarms": sum(map(len, alarms)),
        **{name: sum(each) for name, each in verdicts.items() if sum(each) or name in ("true", "false")},
        "false_per_bed_day": gross(false, days),
        "seconds": round(sum(a.stop_s - a.start_s for part in alarms for a in part), 1),
        "false_seconds": round(sum(a.false_s for part in alarms for a in part), 1),
        "episodes": sum(number),
        "alarmed": len(after),
        "missed": sum(number) - len(after),
        "within_10_s": sum(within),
        "any_high_within_10_s": sum(any_high),
        "sensitivity_10_s": gross(within, number),
        "after_s": quantiles(after),
    }
