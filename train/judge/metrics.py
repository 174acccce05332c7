"""Figures and their confidence: pure functions of what was stated and what was said.

Statistics are those of :mod:`ecgnat_stream.score.figures`; :func:`interval` turns one into value and 95 % bootstrap interval.
Beats are decoded here too, and the thresholds are chosen that a checkpoint is shipped with.

Shapes: R resample, N unit, C class, P token, Q calibration bin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.signal import find_peaks
from sklearn.metrics import precision_recall_curve

from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.model.heads import BEAT_TOKEN
from ecgnat_stream.score.figures import Statistic, bootstrap, divide, ratio
from ecgnat_stream.signal import MODEL_FS
from train.data.labels import UNSTATED

__all__ = [
    "BINS",
    "Interval",
    "auroc",
    "average_precision",
    "best_thresholds",
    "by_unit",
    "calibration_gaps",
    "decode_beats",
    "difference",
    "ece",
    "f1",
    "far_apart",
    "interval",
    "macro",
    "shockable_windows",
]

Floats = NDArray[np.float64]
Interval = list[float]
"""Value, lower and upper end."""

BINS = 15
"""Bins of the calibration error (Guo 2017)."""

_REFRACTORY = round(0.200 * MODEL_FS)
_RESAMPLES, _SEED = 1000, 0


def interval(statistic: Statistic, units: int, resamples: int = _RESAMPLES) -> Interval | None:
    """Return the value and its 95 % interval by resampling units with replacement; None where it is not defined."""
    found = bootstrap(statistic, units, resamples, _SEED)
    return None if found is None else [round(x, 4) for x in found]


def f1(hits: ArrayLike, said: ArrayLike, stated: ArrayLike) -> Statistic:
    """Return F1 from counts ``(N,)``: ``2 hits / (said + stated)``."""
    return ratio(2 * np.asarray(hits, float), np.asarray(said, float) + np.asarray(stated, float))


def auroc(stated: ArrayLike, said: ArrayLike) -> Statistic:
    """Return the area under the receiver operating characteristic of statements 0 or 1 ``(N,)`` and scores ``(N,)``."""
    order, edges, truth = _ranked(stated, np.asarray(said, float))

    def statistic(weights: Floats) -> Floats:
        ranked = weights[:, order]
        positives = np.add.reduceat(ranked * truth, edges, axis=1)
        negatives = np.add.reduceat(ranked * (1 - truth), edges, axis=1)
        below = negatives.cumsum(axis=1) - negatives / 2  # ties count by half
        return divide((positives * below).sum(axis=1), positives.sum(axis=1) * negatives.sum(axis=1))

    return statistic


def average_precision(stated: ArrayLike, said: ArrayLike) -> Statistic:
    """Return the area under the precision-recall curve as a sum of steps, as scikit-learn does; arguments as in :func:`auroc`."""
    order, edges, truth = _ranked(stated, -np.asarray(said, float))

    def statistic(weights: Floats) -> Floats:
        ranked = weights[:, order]
        positives = np.add.reduceat(ranked * truth, edges, axis=1)
        precision = divide(positives.cumsum(axis=1), np.add.reduceat(ranked, edges, axis=1).cumsum(axis=1))
        return divide((positives * np.nan_to_num(precision)).sum(axis=1), positives.sum(axis=1))

    return statistic


def _ranked(stated: ArrayLike, scores: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Return the order of rising scores, where each group of equal ones begins, and the statements in that order."""
    order = np.argsort(scores, kind="stable")
    edges = np.flatnonzero(np.concatenate([[True], np.diff(scores[order]) > 0]))
    return order, edges, np.asarray(stated, float)[order]


def ece(gaps: ArrayLike, counts: ArrayLike) -> Statistic:
    """Return the expected calibration error from the gaps ``(N, Q)`` and numbers of decisions ``(N,)`` of each unit."""
    summed, number = np.asarray(gaps, float), np.asarray(counts, float)
    return lambda weights: divide(np.abs(weights @ summed).sum(axis=1), weights @ number)


def calibration_gaps(confidence: ArrayLike, correct: ArrayLike, bins: int = BINS) -> Floats:
    """Return ``(N, Q)``: confidence minus outcome of each decision, in the bin of its confidence. Add rows to join decisions."""
    said, outcome = np.asarray(confidence, float), np.asarray(correct, float)
    gaps = np.zeros((len(said), bins))
    gaps[np.arange(len(said)), np.minimum((said * bins).astype(int), bins - 1)] = said - outcome
    return gaps


def macro(statistics: Sequence[Statistic]) -> Statistic:
    """Return the mean of several, in every resample over those that are defined there."""

    def statistic(weights: Floats) -> Floats:
        each = np.array([one(weights) for one in statistics]).reshape(-1, len(weights))
        return divide(np.nansum(each, axis=0), np.isfinite(each).sum(axis=0).astype(float))

    return statistic


def difference(first: Statistic, second: Statistic) -> Statistic:
    """Return ``first - second``, both on the same resamples."""
    return lambda weights: first(weights) - second(weights)


def by_unit(statistic: Statistic, unit: NDArray[np.intp]) -> Statistic:
    """Resample units that hold several rows each: ``unit`` ``(rows,)`` says whose each row is."""
    return lambda weights: statistic(weights[:, unit])


def best_thresholds(stated: NDArray[np.generic], said: NDArray[np.floating]) -> tuple[float, ...]:
    """Return per class the probability from which F1 is best, 0.5 where a class is never or always stated, or nothing is.

    Parameters
    ----------
    stated, said
        ``(N, C)`` statements 0 or 1, and probabilities.
    """
    chosen = []
    for truth, score in zip(np.asarray(stated, float).T, np.asarray(said, float).T, strict=True):
        if truth.min(initial=1) >= truth.max(initial=0):
            chosen.append(0.5)
            continue
        precision, recall, thresholds = precision_recall_curve(truth, score)
        scores = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        chosen.append(_rounded_down(float(thresholds[scores[:-1].argmax()])))
    return tuple(chosen)


def _rounded_down(at: float) -> float:
    """Return four digits, however small: a score of ``at`` must still reach it, and one far below must not."""
    scale = 10.0 ** (3 - math.floor(math.log10(at))) if at > 0 else 1.0
    return min(math.floor(at * scale) / scale, at)


def decode_beats(
    beat: NDArray[np.floating], threshold: float = 0.5
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Return positions (samples at 100 Hz), classes and probabilities of the beats in one window.

    A beat is a token whose peak probability is a local maximum and reaches the threshold; of two within 200 ms the surer stays.

    Parameters
    ----------
    beat
        ``(P, 2 + C)`` as in ``Prediction.beat``: probability of a peak, its place in the token, class probabilities.
    """
    peak = np.concatenate([[0.0], np.asarray(beat[:, 0], float), [0.0]])  # find_peaks finds none at the ends
    tokens = find_peaks(peak, height=threshold)[0] - 1
    positions = (tokens + np.asarray(beat[tokens, 1], float)) * BEAT_TOKEN
    probabilities = peak[tokens + 1]
    keep = far_apart(positions, probabilities)
    classes = beat[tokens, 2:].argmax(axis=1).astype(np.int64)
    return positions[keep], classes[keep], probabilities[keep]


def far_apart(positions: NDArray[np.floating], probabilities: NDArray[np.floating]) -> NDArray[np.intp]:
    """Return the indices of the beats to keep, in order of place: none within 200 ms of a surer one that is kept."""
    kept: list[int] = []
    free = np.ones(len(positions), bool)
    order = np.argsort(positions, kind="stable")
    places = np.asarray(positions)[order]
    for at in np.argsort(-np.asarray(probabilities)[order], kind="stable"):
        if free[at]:
            kept.append(int(at))
            start = np.searchsorted(places, places[at] - _REFRACTORY, side="right")
            stop = np.searchsorted(places, places[at] + _REFRACTORY, side="left")
            free[start:stop] = False
    return order[np.sort(np.array(kept, np.intp))]


def shockable_windows(
    truth: NDArray[np.uint8], probability: NDArray[np.floating], cells: int
) -> tuple[NDArray[np.bool_], Floats]:
    """Return for windows of ``cells``, end to end, whether VF is stated, and the mean probability of VF.

    A window is positive where at least half of its stated cells are VF, negative where no cell allows VF; others are left out.

    Parameters
    ----------
    truth, probability
        ``(N,)`` allowed sets, and probability of VF, per cell.
    """
    vf = 1 << RHYTHMS.index("VF")
    windows = min(len(truth), len(probability)) // cells
    sets = truth[: windows * cells].reshape(windows, cells)
    stated = (sets != UNSTATED).sum(axis=1)
    positive = (stated > 0) & (2 * (sets == vf).sum(axis=1) >= stated)
    negative = ((sets & vf) == 0).all(axis=1)
    mean = np.asarray(probability[: windows * cells], float).reshape(windows, cells).mean(axis=1)
    used = positive | negative
    return positive[used], mean[used]
