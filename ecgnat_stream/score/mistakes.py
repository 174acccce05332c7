"""Which strips a report shows: every missed and every false alarm of high priority first, then the worst stretches of beats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

from ecgnat_stream.alarm import PHYSIOLOGICAL
from ecgnat_stream.alarm.config import ALARM_WITHIN_S
from ecgnat_stream.score.compare import BeatPair
from ecgnat_stream.score.report import FALSE, RecordReport
from ecgnat_stream.score.truth import Truth

__all__ = ["STRIP_S", "Mistake", "choose", "of_record"]

STRIP_S = 16.0
_LEAD_IN_S = 4.0
_BEATS_SHARE = 0.25
"""At least so much of the strips is for beats, where there are that many to show."""


class Mistake(NamedTuple):
    """One mistake: its record, what it is, where its strip begins, and how many errors it holds (0: an alarm's)."""

    key: tuple[str, str]
    what: str
    start_s: float
    errors: int = 0


def of_record(row: RecordReport, truth: Truth, pairs: Sequence[BeatPair]) -> list[Mistake]:
    """Return the mistakes of one record, those of alarms in order of time, then the stretches of beats, the worst first."""
    key = (row.database, row.record)
    alarms = sorted(_alarms(key, row), key=lambda mistake: mistake.start_s)
    found = [mistake._replace(start_s=_within(mistake.start_s, truth.length_s)) for mistake in alarms]
    wrong = [pair for pair in pairs if pair.truth_s is None or pair.found_s is None]
    beats = _worst(key, "QRS", wrong, truth)
    if truth.classes is not None:
        both = [pair for pair in pairs if pair.truth_s is not None and pair.found_s is not None]
        beats += _worst(key, "VEB", [pair for pair in both if (pair.truth == "V") != (pair.found == "V")], truth)
    return found + sorted(beats, key=lambda mistake: -mistake.errors)


def choose(mistakes: Iterable[Mistake], limit: int) -> list[Mistake]:
    """Return at most ``limit`` of them: in turn one of every record, so that one bad record does not fill the report."""
    every = list(mistakes)
    alarms, beats = [m for m in every if not m.errors], [m for m in every if m.errors]
    for_beats = min(len(beats), max(round(limit * _BEATS_SHARE), limit - len(alarms)))
    chosen = {*_in_turn(alarms)[: limit - for_beats], *_in_turn(beats)[:for_beats]}
    return [mistake for mistake in every if mistake in chosen]


def _alarms(key: tuple[str, str], row: RecordReport) -> Iterator[Mistake]:
    for one in row.found:
        about = PHYSIOLOGICAL.get(one.condition)
        after = one.alarm_after_s
        if one.required and about is not None and about.priority == "high" and (after is None or after > ALARM_WITHIN_S):
            late = "no alarm" if after is None else f"alarm after {after:.1f} s"
            what = f"missed: {one.condition} of {one.stop_s - one.start_s:.1f} s, {late}"
            yield Mistake(key, what, one.start_s - _LEAD_IN_S)
    for alarm in row.alarms:
        if alarm.priority == "high" and alarm.verdict in FALSE:
            what = f"false: {alarm.condition} for {alarm.stop_s - alarm.start_s:.1f} s"
            yield Mistake(key, what, alarm.start_s - STRIP_S + _LEAD_IN_S)
    said = row.challenge
    if said is not None and said["real"] != said["confirmed"]:
        what = f"{'missed' if said['real'] else 'false'}: {said['alarm']} alarm of the Challenge"
        yield Mistake(key, what, said["at_s"] - STRIP_S)


def _worst(key: tuple[str, str], kind: str, wrong: Sequence[BeatPair], truth: Truth) -> list[Mistake]:
    """Return the stretches of one strip's length that hold wrong beats."""
    places = [pair.truth_s if pair.truth_s is not None else pair.found_s for pair in wrong]
    number = Counter(int(at_s // STRIP_S) for at_s in places if at_s is not None)
    return [
        Mistake(key, f"{kind}: {errors} wrong", _within(piece * STRIP_S, truth.length_s), errors)
        for piece, errors in sorted(number.items())
    ]


def _within(start_s: float, length_s: float) -> float:
    return max(0.0, min(start_s, length_s - STRIP_S))


def _in_turn(mistakes: Sequence[Mistake]) -> list[Mistake]:
    by_record: dict[tuple[str, str], list[Mistake]] = {}
    for mistake in mistakes:
        by_record.setdefault(mistake.key, []).append(mistake)
    return [mistake for turn in zip_longest(*by_record.values()) for mistake in turn if mistake is not None]
