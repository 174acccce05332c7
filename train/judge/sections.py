"""The sections of an evaluation: what is said about the records of one split, against what is stated about them.

A :class:`train.judge.reading.Reader` and cached records go in; nested dicts come out whose figures are ``[value, low, high]``
with 95 % bootstrap intervals over records, or None where there is nothing to measure. Which records speak about what is read
from their statements, never from their names.

Shapes: N record, C class, K statement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from ecgnat_stream.codes import RHYTHMS, SCREENS
from ecgnat_stream.model.preprocess import TOKEN
from ecgnat_stream.score.figures import Statistic, ratio
from ecgnat_stream.signal import MODEL_FS
from train.data.labels import token_sets
from train.data.pack import Cached
from train.data.records import SUPERCLASSES
from train.data.sample import Cache
from train.data.tasks import TASKS, Task
from train.judge.metrics import (
    BINS,
    auroc,
    average_precision,
    by_unit,
    calibration_gaps,
    ece,
    f1,
    interval,
    macro,
    shockable_windows,
)
from train.judge.reading import HOP, WINDOW, Reader, Reading
from train.judge.score import CELL, Scored, cell_sets, score_record, summarise
from train.judge.score_beats import BeatCounts, count_beats, summarise_beats

__all__ = [
    "check_classes",
    "class_f1",
    "is_dense",
    "judged_beats",
    "long_sections",
    "reliability",
    "screen_f1",
    "screen_section",
    "superclasses",
    "window_classes",
    "window_section",
]

_LONG = 120 * MODEL_FS
_SHOCK_S = 4
_FEWEST = 10
_VF = RHYTHMS.index("VF")


@dataclass(frozen=True, slots=True)
class _Long:
    """What is kept of the reading of one record."""

    record: Cached
    scored: Scored
    shockable: tuple[NDArray[np.bool_], NDArray[np.float64]]
    beats: BeatCounts | None
    gaps: NDArray[np.float64]
    reliability: NDArray[np.float64]


def long_sections(reader: Reader, records: Sequence[Cached]) -> dict[str, Any]:
    """Return the sections "rhythm" and "beats", and "rhythm" of "calibration": all from one pass over the records.

    "arrhythmia" joins the databases that state more than sinus rhythm, "all" joins all of them.
    """
    dense = {record.database for record in records if record.length >= _LONG and is_dense(reader.cache, record)}
    used = [record for record in records if record.database in dense or record.beats > 0]
    kept = [_read(reader, record, record.database in dense) for record in track(used, "long records")]
    rhythm = {database: [one for one in kept if one.record.database == database] for database in sorted(dense)}
    beats: dict[str, list[BeatCounts]] = {}
    for one in kept:
        if one.beats is not None:
            beats.setdefault(one.record.database, []).append(one.beats)
    threshold = reader.predictor.card.calibration.vf_threshold
    everything = [one for part in rhythm.values() for one in part]
    ill = [one for part in rhythm.values() if any(_arrhythmic(one.scored) for one in part) for one in part]
    parts = rhythm | ({"arrhythmia": ill} if ill else {}) | {"all": everything} if everything else {}
    return {
        "rhythm": {name: _rhythm(part, threshold) for name, part in parts.items()} or None,
        "beats": {name: summarise_beats(part) for name, part in sorted(beats.items())} or None,
        "calibration": reliability(
            np.array([one.gaps for one in everything]), np.array([one.reliability for one in everything]), len(everything)
        ),
    }


def _arrhythmic(scored: Scored) -> bool:
    return bool(np.delete(scored.stated, RHYTHMS.index("SINUS")).any())


def _rhythm(part: list[_Long], threshold: float) -> dict[str, Any]:
    """Return the figures of one database."""
    stated = np.concatenate([one.shockable[0] for one in part])
    said = np.concatenate([one.shockable[1] for one in part])
    unit = np.repeat(np.arange(len(part)), [len(one.shockable[0]) for one in part])
    decided, units = said >= threshold, len(part)
    shockable = {
        "windows": len(stated),
        "positive": int(stated.sum()),
        "threshold": threshold,
        "sensitivity": interval(by_unit(ratio(decided & stated, stated), unit), units),
        "specificity": interval(by_unit(ratio(~decided & ~stated, ~stated), unit), units),
        "auroc": interval(by_unit(auroc(stated, said), unit), units) if len(stated) else None,
    }
    return summarise([one.scored for one in part]) | {"shockable_4_s": shockable}


def _read(reader: Reader, record: Cached, whole: bool) -> _Long:
    reading = reader.read(record, HOP if whole else WINDOW // 2)
    truth = cell_sets(reader.cache.rhythm(record))
    length = min(len(truth), len(reading.rhythm))
    truth, said = truth[:length], reading.rhythm[:length]
    gaps, bins = _token_gaps(reader.cache.rhythm(record), reading)
    scored = score_record(truth, said.argmax(axis=1))
    shockable = shockable_windows(truth, said[:, _VF], round(_SHOCK_S * MODEL_FS / CELL))
    return _Long(record, scored, shockable, judged_beats(reader.cache, record, reading), gaps, bins)


def is_dense(cache: Cache, record: Cached) -> bool:
    """Tell whether some sample of a record is stated to be one rhythm and no other."""
    return bool(_alone(cache.rhythm(record)).any())


def judged_beats(cache: Cache, record: Cached, reading: Reading, span: tuple[int, int] | None = None) -> BeatCounts | None:
    """Compare the beats read in a record, or in the ``span`` of it that was read; None where none are annotated."""
    stated = cache.beats(record)
    if stated is None or not len(stated):
        return None
    begin, end = span or (0, record.length)
    counted = cache.rhythm(record)[begin:end] != 1 << _VF
    at = np.arange(begin, end)
    counted &= (at >= record.beats_start) & (at < (record.length if record.beats_stop < 0 else record.beats_stop))
    shifted = stated.astype(float) - (begin, 0)
    return count_beats(record.name, shifted, reading.positions, reading.classes, counted)


def _token_gaps(sets: NDArray[np.uint8], reading: Reading) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return :func:`_binned` of the tokens where one rhythm alone is stated, as the network gave them."""
    said = reading.tokens.reshape(-1, len(RHYTHMS))
    windows = [sets[at : at + WINDOW] for at in range(0, len(reading.tokens) * WINDOW, WINDOW)]
    stated = np.concatenate([_padded(token_sets(window, TOKEN), reading.tokens.shape[1]) for window in windows])
    alone = _alone(stated)
    correct = stated[alone] == 1 << said[alone].argmax(axis=1)
    return _binned(said[alone].max(axis=1), correct)


def _padded(sets: NDArray[np.uint8], tokens: int) -> NDArray[np.uint8]:
    return np.pad(sets, (0, tokens - len(sets)))  # the empty set: nothing to judge


def _alone(sets: NDArray[np.uint8]) -> NDArray[np.bool_]:
    alone: NDArray[np.bool_] = (sets != 0) & ((sets & (sets - 1)) == 0)
    return alone


def _binned(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the gaps ``(Q,)`` and, per bin, number, summed confidence and correct ones ``(3, Q)``."""
    which = np.minimum((confidence * BINS).astype(int), BINS - 1)
    sums = [np.bincount(which, weights, BINS) for weights in (None, confidence, correct)]
    return calibration_gaps(confidence, correct).sum(axis=0), np.array(sums, float)


def reliability(gaps: NDArray[np.float64], bins: NDArray[np.float64], units: int) -> dict[str, Any] | None:
    """Return calibration error and reliability diagram from gaps ``(N, Q)`` and bins ``(N, 3, Q)`` of each record."""
    if not units or not bins[:, 0].sum():
        return None
    count, confidence, correct = bins.sum(axis=0)
    used = np.flatnonzero(count)
    return {
        "decisions": int(count.sum()),
        "ece": interval(ece(gaps, bins[:, 0].sum(axis=1)), units),
        "reliability": [
            [round(float(confidence[q] / count[q]), 4), round(float(correct[q] / count[q]), 4), int(count[q])] for q in used
        ],
    }


def class_f1(stated: NDArray[np.int64], decided: NDArray[np.int64], classes: Sequence[int]) -> dict[int, Statistic]:
    """Return F1 of every class that is stated; one class per record, stated and decided."""
    true, said = ((side[:, None] == np.asarray(classes)) for side in (stated, decided))
    return {c: f1(true[:, i] & said[:, i], said[:, i], true[:, i]) for i, c in enumerate(classes) if true[:, i].any()}


def screen_f1(stated: NDArray[np.int64], decided: NDArray[np.int64]) -> Statistic:
    """Return the score of the Challenge 2017: mean F1 of N, A and O, of those that are stated."""
    return macro(list(class_f1(stated, decided, range(3)).values()))


def screen_section(reader: Reader, records: Sequence[Cached]) -> dict[str, Any] | None:
    """Return the section "screen", with its calibration under "calibration"."""
    records = [record for record in records if record.screen >= 0]
    if not records:
        return None
    stated, said, units = np.array([record.screen for record in records]), reader.screen(records), len(records)
    decided = said.argmax(axis=1)
    scores = class_f1(stated, decided, range(len(SCREENS)))
    areas = {c: (auroc(stated == c, said[:, c]), average_precision(stated == c, said[:, c])) for c in scores}
    confusion = np.zeros((len(SCREENS), len(SCREENS)), np.int64)
    np.add.at(confusion, (stated, decided), 1)
    return {
        "records": units,
        "mean_f1": interval(screen_f1(stated, decided), units),
        "accuracy": interval(ratio(stated == decided, np.ones(units)), units),
        "macro_auroc": interval(macro([area for area, _ in areas.values()]), units),
        "macro_auprc": interval(macro([area for _, area in areas.values()]), units),
        "classes": {
            name: {
                "records": int((stated == c).sum()),
                "f1": interval(scores[c], units),
                "auroc": interval(areas[c][0], units),
                "auprc": interval(areas[c][1], units),
            }
            if c in scores
            else None
            for c, name in enumerate(SCREENS)
        },
        "confusion": {"classes": SCREENS, "confusion": confusion.tolist()},
        "calibration": _top_label(said.max(axis=1), stated == decided),
    }


def _top_label(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> dict[str, Any] | None:
    rows = [_binned(confidence[i : i + 1], correct[i : i + 1]) for i in range(len(correct))]
    return reliability(np.array([gaps for gaps, _ in rows]), np.array([bins for _, bins in rows]), len(rows))


def check_classes(classes: Sequence[str], task: Task | None) -> None:
    """Refuse a checkpoint whose window classes are not those that it is measured by: a task's, or the superclasses.

    Raises
    ------
    ValueError
        Names both, and the tasks that have the checkpoint's.
    """
    wanted = SUPERCLASSES if task is None else task.classes
    if tuple(classes) == wanted:
        return
    fitting = " or ".join(name for name, other in TASKS.items() if other.classes == tuple(classes))
    raise ValueError(
        f"the checkpoint knows {', '.join(classes)}, not the {'superclasses' if task is None else f'classes of {task.name}'} "
        f"{', '.join(wanted)}: {f'give --task {fitting}' if fitting else 'no task has its classes'}"
    )


def superclasses(records: Sequence[Cached], count: int) -> NDArray[np.bool_]:
    """Return what is stated about records, ``(N, K)``."""
    bits = np.array([record.window for record in records], np.int64).reshape(-1, 1)
    stated: NDArray[np.bool_] = (bits >> np.arange(count)) & 1 == 1
    return stated


def window_classes(stated: NDArray[np.bool_]) -> list[int]:
    """Return the statements that at least 10 records make and at least 10 do not."""
    positive = stated.sum(axis=0)
    return [int(k) for k in np.flatnonzero((positive >= _FEWEST) & (len(stated) - positive >= _FEWEST))]


def window_section(reader: Reader, records: Sequence[Cached]) -> dict[str, Any] | None:
    """Return the section "window", with its calibration (per statement, and the mean) under "calibration"."""
    records = [record for record in records if record.window >= 0]
    if not records:
        return None
    names, units = reader.predictor.window_classes, len(records)
    stated, said = superclasses(records, len(names)), reader.short(records)[0]
    thresholds = reader.predictor.card.calibration.window_thresholds or (0.5,) * len(names)
    used = window_classes(stated)
    gaps = {k: calibration_gaps(said[:, k], stated[:, k]) for k in used}
    errors = {k: ece(gaps[k], np.ones(units)) for k in used}
    kinds: dict[str, Callable[[int], Statistic]] = {
        "auroc": lambda k: auroc(stated[:, k], said[:, k]),
        "auprc": lambda k: average_precision(stated[:, k], said[:, k]),
        "f1": lambda k: f1(stated[:, k] & (said[:, k] >= thresholds[k]), said[:, k] >= thresholds[k], stated[:, k]),
    }
    statistics = {kind: {k: make(k) for k in used} for kind, make in kinds.items()}
    return {
        "records": units,
        **{f"macro_{kind}": interval(macro(list(each.values())), units) for kind, each in statistics.items()},
        "classes": {
            names[k]: {"positive": int(stated[:, k].sum()), "threshold": thresholds[k]}
            | {kind: interval(each[k], units) for kind, each in statistics.items()}
            for k in used
        },
        "left_out": {names[k]: int(stated[:, k].sum()) for k in range(len(names)) if k not in used},
        "calibration": {
            "decisions": units * len(used),
            "ece": interval(macro(list(errors.values())), units),
            "classes": {names[k]: interval(errors[k], units) for k in used},
        },
    }
