"""Figures for beats: R peaks within 150 ms, classes after AAMI EC57, confidence by resampling records.

Stated and said beats of one record become a table; ventricular fibrillation has no beats, so what lies in it is left out.

Shapes: M beat, T time (100 Hz), C class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.codes import BEATS
from ecgnat_stream.score.compare import EXEMPT, MATCH_S, match_beats
from ecgnat_stream.score.figures import ratio
from ecgnat_stream.signal import MODEL_FS
from train.data.labels import BEAT_UNSTATED
from train.judge.metrics import Interval, f1, interval

__all__ = ["BeatCounts", "count_beats", "summarise_beats"]

_C = len(BEATS)
_UNSTATED, _NONE, _MISSED = _C, _C + 1, _C


@dataclass(frozen=True, slots=True)
class BeatCounts:
    """One record.

    Parameters
    ----------
    table
        ``(C + 2, C + 1)`` beats: rows are the stated class, "class not stated" and "no beat there"; columns the said class and
        "missed".
    errors_ms
        ``(M,)`` said minus stated place of the beats found.
    """

    name: str
    table: NDArray[np.int64]
    errors_ms: NDArray[np.float64]


def count_beats(
    name: str,
    stated: NDArray[np.floating],
    positions: NDArray[np.floating],
    classes: NDArray[np.int64],
    counted: NDArray[np.bool_],
) -> BeatCounts:
    """Compare beats.

    Parameters
    ----------
    stated
        ``(M, 2)`` place in samples, and class or ``labels.BEAT_UNSTATED``.
    positions, classes
        What is said.
    counted
        ``(T,)`` False where beats are not judged: in VF, and where the annotation does not mark every beat.
    """
    stated = stated[_at(counted, stated[:, 0])]
    order = np.argsort(stated[:, 0], kind="stable")
    places, rows = stated[order, 0], stated[order, 1].astype(np.int64)
    rows = np.where(rows == BEAT_UNSTATED, _UNSTATED, rows)
    found, by = match_beats(places, positions, MATCH_S * MODEL_FS)
    table = np.zeros((_C + 2, _C + 1), np.int64)
    np.add.at(table, (rows[found], classes[by]), 1)
    np.add.at(table[:, _MISSED], np.delete(rows, found), 1)
    false = np.delete(np.arange(len(positions)), by)
    np.add.at(table[_NONE], classes[false[_at(counted, positions[false])]], 1)
    return BeatCounts(name, table, (positions[by] - places[found]) * 1000 / MODEL_FS)


def summarise_beats(counts: Sequence[BeatCounts]) -> dict[str, Any]:
    """Return gross figures with 95 % bootstrap intervals over records, and a table per record; classes never stated are None."""
    tables = np.array([one.table for one in counts])
    errors = np.concatenate([one.errors_ms for one in counts])
    peaks = _peaks(tables)
    figures: dict[str, Any] = {
        "records": len(counts),
        "beats": int(tables[:, :_NONE].sum()),
        "r_peak": _figures(*peaks, len(counts)),
        "error_ms": {
            "median": round(float(np.median(errors)), 1) if len(errors) else None,
            "median_absolute": round(float(np.median(np.abs(errors))), 1) if len(errors) else None,
        },
        "classes": None,
        "confusion": None,
        "per_record": {one.name: _one(one) for one in counts},
    }
    if tables[:, :_C].sum():
        named = {name: _counts(tables, name) for name in BEATS}
        figures["classes"] = {
            name: {"beats": int(stated.sum())} | _figures(hits, stated, said, len(counts)) if stated.sum() else None
            for name, (hits, stated, said) in named.items()
        }
        table = np.zeros((_C + 1, _C + 1), np.int64)
        table[:_C], table[_C, :_C] = tables[:, :_C].sum(axis=0), tables[:, _NONE, :_C].sum(axis=0)
        figures["confusion"] = {"classes": [*BEATS, "no beat"], "confusion": table.tolist()}
    return figures


def _peaks(tables: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return how many beats of each record are found, stated and said."""
    hits = tables[:, :_NONE, :_C].sum(axis=(1, 2))
    return hits, tables[:, :_NONE].sum(axis=(1, 2)), hits + tables[:, _NONE, :_C].sum(axis=1)


def _counts(tables: NDArray[np.int64], name: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return per record how many beats of a class are found as such, stated, and said where that can be judged."""
    c = BEATS.index(name)
    judged = [row for row in (*range(_C), _NONE) if row == _NONE or BEATS[row] not in EXEMPT.get(name, "")]
    return tables[:, c, c], tables[:, c].sum(axis=1), tables[:, judged, c].sum(axis=1)


def _figures(
    hits: NDArray[np.int64], stated: NDArray[np.int64], said: NDArray[np.int64], units: int
) -> dict[str, Interval | None]:
    return {
        "sensitivity": interval(ratio(hits, stated), units),
        "ppv": interval(ratio(hits, said), units),
        "f1": interval(f1(hits, said, stated), units),
    }


def _one(counts: BeatCounts) -> dict[str, Any]:
    """Return the figures of one record, without intervals."""
    tables = counts.table[None]
    hits, stated, said = (int(part.sum()) for part in _peaks(tables))
    row: dict[str, Any] = {"beats": stated, "sensitivity": _share(hits, stated), "ppv": _share(hits, said)}
    for name in ("V", "S"):
        hits, stated, said = (int(part.sum()) for part in _counts(tables, name))
        row |= {f"{name}_beats": stated, f"{name}_sensitivity": _share(hits, stated), f"{name}_ppv": _share(hits, said)}
    return row


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _at(counted: NDArray[np.bool_], places: NDArray[np.floating]) -> NDArray[np.bool_]:
    inside = (places >= 0) & (places < len(counted))
    judged: NDArray[np.bool_] = inside & counted[places.astype(int).clip(0, len(counted) - 1)]
    return judged
