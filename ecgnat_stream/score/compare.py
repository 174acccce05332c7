"""Beats and episodes compared after ANSI/AAMI EC57; pure functions of what was stated and what was said.

Beats match within 150 ms, each at most once; what lies in annotated ventricular fibrillation or flutter is left out, since there
are no beats in it. Episodes count as found when they share time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.codes import BEATS
from ecgnat_stream.score.spans import Span, clip, merge, overlaps, shared_s, total_s

__all__ = ["MATCH_S", "NO_BEAT", "BeatPair", "Counts", "beat_table", "counts", "episode_counts", "pair_beats"]

MATCH_S = 0.150
"""EC57, 4.3.2: match window for beats."""

NO_BEAT = "O"
"""Column for a stated beat that was missed, row for a detection where no beat is."""

ROWS = (*BEATS, NO_BEAT)
_EXEMPT = {"V": "FQ", "S": "Q"}
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


def pair_beats(
    truth_s: NDArray[np.float64],
    truth: Sequence[str],
    found_s: NDArray[np.float64],
    found: Sequence[str],
    *,
    from_s: float = 0.0,
    without: Sequence[Span] = (),
) -> list[BeatPair]:
    """Pair beats in order of time, each with the nearest that is left within :data:`MATCH_S`.

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
    pairs: list[BeatPair] = []
    i = j = 0
    n, m = len(truth_s), len(found_s)
    a, b = truth_s.tolist(), found_s.tolist()
    while i < n or j < m:
        if j >= m or (i < n and a[i] <= b[j]):
            nearer = j < m and i + 1 < n and abs(b[j] - a[i + 1]) < b[j] - a[i]
            if j < m and b[j] - a[i] <= MATCH_S and not nearer:
                pairs.append(BeatPair(a[i], b[j], truth[i], found[j]))
                j += 1
            else:
                pairs.append(BeatPair(a[i], None, truth[i], NO_BEAT))
            i += 1
        else:
            nearer = i < n and j + 1 < m and abs(b[j + 1] - a[i]) < a[i] - b[j]
            if i < n and a[i] - b[j] <= MATCH_S and not nearer:
                pairs.append(BeatPair(a[i], b[j], truth[i], found[j]))
                i += 1
            else:
                pairs.append(BeatPair(None, b[j], NO_BEAT, found[j]))
            j += 1
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
    false = sum(int(table[row, c]) for row, name in enumerate(ROWS) if row != c and name not in _EXEMPT.get(what, ""))
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
