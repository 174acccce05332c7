"""Figures for dense rhythm: duration sensitivity and PPV per class, VF episodes, confidence by resampling records.

Everything counts cells of :data:`CELL` samples. Truth is a set of allowed classes per cell, a decision is one class per cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.score.figures import ratio
from ecgnat_stream.signal import MODEL_FS
from train.judge.metrics import f1, interval

__all__ = ["CELL", "CELL_S", "Scored", "cell_sets", "episodes", "found", "score_record", "summarise"]

CELL = 4
"""Samples per cell: divides both the token (32) and the hop (100), so that windows need no interpolation."""

CELL_S = CELL / MODEL_FS

_SUSTAINED_S = 2.0


@dataclass(frozen=True, slots=True)
class Scored:
    """Counts of one record, ``(C,)`` each, in cells; episodes in number.

    ``named`` counts decisions for a class where truth either states that class alone or rules it out. ``confusion`` ``(C, C)``
    counts what is said (columns) where one class alone is stated (rows).
    """

    hits: NDArray[np.int64]
    stated: NDArray[np.int64]
    named: NDArray[np.int64]
    confusion: NDArray[np.int64]
    vf_episodes: int
    vf_found: int
    vf_or_vt_found: int
    vf_false: int
    hours: float


def cell_sets(sets: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Join sets per sample ``(T,)`` into cells ``(N,)``; an incomplete last one is left out."""
    joined: NDArray[np.uint8] = np.bitwise_or.reduce(sets[: len(sets) // CELL * CELL].reshape(-1, CELL), axis=1)
    return joined


def score_record(truth: NDArray[np.uint8], decision: NDArray[np.int64]) -> Scored:
    """Compare ``(N,)`` sets with ``(N,)`` classes; cells that state nothing are left out, except as time."""
    bits = 1 << np.arange(len(RHYTHMS))
    hits, stated, named = (np.zeros(len(RHYTHMS), np.int64) for _ in range(3))
    confusion = np.zeros((len(RHYTHMS), len(RHYTHMS)), np.int64)
    for c, bit in enumerate(bits.tolist()):
        true = truth == bit
        said = decision == c
        hits[c] = (true & said).sum()
        stated[c] = true.sum()
        named[c] = (said & (true | ((truth & bit) == 0))).sum()
        confusion[c] = np.bincount(decision[true], minlength=len(RHYTHMS))
    vf, vt = RHYTHMS.index("VF"), RHYTHMS.index("VT")
    real = [span for span in episodes(truth == 1 << vf) if _seconds(span) >= _SUSTAINED_S]
    false = sum(
        not ((truth[start:stop] & (1 << vf)) != 0).any()
        for start, stop in episodes(decision == vf)
        if _seconds((start, stop)) >= _SUSTAINED_S
    )
    return Scored(
        hits,
        stated,
        named,
        confusion,
        len(real),
        sum(found(decision == vf, span) for span in real),
        sum(found((decision == vf) | (decision == vt), span) for span in real),
        false,
        len(truth) * CELL_S / 3600,
    )


def episodes(present: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return half-open runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], present, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def found(said: NDArray[np.bool_], span: tuple[int, int]) -> bool:
    """Tell whether a run of at least 2 s is said inside an episode."""
    return any(_seconds(run) >= _SUSTAINED_S for run in episodes(said[span[0] : span[1]]))


def summarise(scored: Sequence[Scored]) -> dict[str, Any]:
    """Return gross figures with 95 % bootstrap intervals over records; the confusion matrix is in seconds."""
    units = len(scored)
    classes: dict[str, Any] = {}
    for c, name in enumerate(RHYTHMS):
        hits, stated, named = (np.array([getattr(one, field)[c] for one in scored]) for field in ("hits", "stated", "named"))
        if stated.sum() == 0 and named.sum() == 0:
            continue
        classes[name] = {
            "stated_s": round(float(stated.sum()) * CELL_S, 1),
            "said_s": round(float(named.sum()) * CELL_S, 1),
            "records": int((stated > 0).sum()),
            "sensitivity": interval(ratio(hits, stated), units),
            "ppv": interval(ratio(hits, named), units),
            "f1": interval(f1(hits, named, stated), units) if stated.sum() else None,
        }
    confusion = np.sum([one.confusion for one in scored], axis=0) * CELL_S
    return {
        "records": units,
        "hours": round(sum(one.hours for one in scored), 2),
        "classes": classes,
        "vf_episodes": _vf_episodes(scored),
        "confusion": {"classes": RHYTHMS, "confusion": confusion.round(1).tolist()},
    }


def _vf_episodes(scored: Sequence[Scored]) -> dict[str, Any]:
    number, as_vf, as_either, false = (
        np.array([getattr(one, field) for one in scored]) for field in ("vf_episodes", "vf_found", "vf_or_vt_found", "vf_false")
    )
    return {
        "number": int(number.sum()),
        "found_as_vf": int(as_vf.sum()),
        "found_as_vf_or_vt": int(as_either.sum()),
        "false": int(false.sum()),
        "sensitivity": interval(ratio(as_vf, number), len(scored)),
        "sensitivity_vf_or_vt": interval(ratio(as_either, number), len(scored)),
        "false_per_hour": interval(ratio(false, [one.hours for one in scored]), len(scored)),
    }


def _seconds(span: tuple[int, int]) -> float:
    return (span[1] - span[0]) * CELL_S
