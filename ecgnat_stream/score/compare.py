"""Beats and episodes compared after ANSI/AAMI EC57; pure functions of what was stated and what was said.

Beats match within 150 ms, each at most once; what lies in annotated ventricular fibrillation or flutter is left out, since there
are no beats in it. Episodes count as found when they share time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.codes import BEATS
from ecgnat_stream.score.spans import Span, clip, merge, overlaps, shared_s, total_s

__all__ = [
    "EXEMPT",
    "LEARNING_S",
    "MATCH_S",
    "NO_BEAT",
    "BeatPair",
    "Counts",
    "beat_table",
    "counts",
    "episode_counts",
    "match_beats",
    "pair_beats",
]

MATCH_S = 0.150
"""EC57, 4.3.2: match window for beats."""

LEARNING_S = 300.0
"""EC57: the first five minutes of a long record are not counted."""

NO_BEAT = "O"
"""Column for a stated beat that was missed, row for a detection where no beat is."""

ROWS = (*BEATS, NO_BEAT)
EXEMPT = {"V": "FQ", "S": "Q"}
"""EC57, 4.3.3: a fusion or unclassifiable beat that is called ventricular is not a false ventricular beat; likewise Q for S."""


class BeatPair(NamedTuple):
    """A stated beat with what was said of it; one of the places is None where there is no counterpart."""

    truth_s: float | None
    found_s: float | None
    truth: str
    found: str


class Counts(NamedTuple):
    """True positives, misses, false ones."""

    tp: int
    fn: int
    fp: int


def match_beats(
    truth: NDArray[np.floating], found: NDArray[np.floating], tolerance: float = MATCH_S
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the indices of the beats that match, one each per pair, in order of time.

    Each beat is paired at most once, in order of time with the nearest that is left.

    Parameters
    ----------
    truth, found
        ``(N,)`` and ``(M,)``, sorted; in s, or in the unit of the tolerance.
    """
    pairs = [(i, j) for i, j in _walk(truth.tolist(), found.tolist(), tolerance) if i is not None and j is not None]
    first, second = np.array(pairs, np.intp).reshape(-1, 2).T
    return first, second


def _walk(a: Sequence[float], b: Sequence[float], tolerance: float) -> Iterator[tuple[int | None, int | None]]:
    """Yield the indices of every beat of both sides once, None for the one that has no counterpart."""
    i = j = 0
    n, m = len(a), len(b)
    while i < n or j < m:
        if j >= m or (i < n and a[i] <= b[j]):
            nearer = j < m and i + 1 < n and abs(b[j] - a[i + 1]) < b[j] - a[i]
            pair = j < m and b[j] - a[i] <= tolerance and not nearer
            yield i, j if pair else None
            i, j = i + 1, j + pair
        else:
            nearer = i < n and j + 1 < m and abs(b[j + 1] - a[i]) < a[i] - b[j]
            pair = i < n and a[i] - b[j] <= tolerance and not nearer
            yield i if pair else None, j
            i, j = i + pair, j + 1


def pair_beats(
    truth_s: NDArray[np.float64],
    truth: Sequence[str],
    found_s: NDArray[np.float64],
    found: Sequence[str],
    *,
    from_s: float = 0.0,
    without: Sequence[Span] = (),
) -> list[BeatPair]:
    """Pair beats as :func:`match_beats` does, and keep those that have no counterpart.

    Parameters
    ----------
    truth_s, found_s
        ``(N,)`` and ``(M,)`` in s, sorted.
    truth, found
        Their EC57 classes.
    from_s
        Pairs before it are left out: the learning period.
    without
        Stretches in which beats are not compared.
    """
    a, b = truth_s.tolist(), found_s.tolist()
    pairs = [
        BeatPair(
            None if i is None else a[i],
            None if j is None else b[j],
            NO_BEAT if i is None else truth[i],
            NO_BEAT if j is None else found[j],
        )
        for i, j in _walk(a, b, MATCH_S)
    ]
    return [pair for pair in pairs if _counted(pair, from_s, without)]


def _counted(pair: BeatPair, from_s: float, without: Sequence[Span]) -> bool:
    at_s = pair.truth_s if pair.truth_s is not None else pair.found_s
    assert at_s is not None, "a pair has at least one place"
    return at_s >= from_s and not any(start <= at_s <= stop for start, stop in without)


def beat_table(pairs: Sequence[BeatPair]) -> NDArray[np.int64]:
    """Return ``(6, 6)`` counts: rows stated class or none, columns said class or none, in the order N S V F Q O."""
    table = np.zeros((len(ROWS), len(ROWS)), np.int64)
    for pair in pairs:
        table[ROWS.index(pair.truth), ROWS.index(pair.found)] += 1
    return table


def counts(table: NDArray[np.int64], what: str) -> Counts:
    """Return the counts of "QRS", or of one class against the others, from a table of :func:`beat_table`."""
    if what == "QRS":
        return Counts(int(table[:-1, :-1].sum()), int(table[:-1, -1].sum()), int(table[-1, :-1].sum()))
    c = ROWS.index(what)
    false = sum(int(table[row, c]) for row, name in enumerate(ROWS) if row != c and name not in EXEMPT.get(what, ""))
    return Counts(int(table[c, c]), int(table[c].sum() - table[c, c]), false)


def episode_counts(truth: Sequence[Span], found: Sequence[Span], *, from_s: float = 0.0) -> dict[str, float]:
    """Compare episodes and their durations (EC57, 4.5.2 and 4.5.3).

    Returns
    -------
    dict
        ``stated``, ``stated_found``, ``said``, ``said_true``: episodes; ``stated_s``, ``said_s``, ``shared_s``: durations.
    """
    truth, found = merge(clip(truth, from_s)), merge(clip(found, from_s))
    return {
        "stated": len(truth),
        "stated_found": sum(overlaps(span, found) for span in truth),
        "said": len(found),
        "said_true": sum(overlaps(span, truth) for span in found),
        "stated_s": round(total_s(truth), 2),
        "said_s": round(total_s(found), 2),
        "shared_s": round(shared_s(truth, found), 2),
    }
