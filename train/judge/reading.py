"""Read whole records through the runtime's own Predictor: rhythm averaged over windows, beats, statements about the record.

Cached records go in; what comes out is what the network says about them, on the records' own time at 100 Hz. A ``change`` may be
laid between, which takes leads away or adds noise.

Shapes: L lead, T time, N cell of ``score.CELL`` samples, P token, C class, M beat, K statement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.beats import find_beats
from ecgnat_stream.codes import RHYTHMS, SCREENS
from ecgnat_stream.model import Prediction, Predictor
from ecgnat_stream.model.preprocess import TOKEN
from ecgnat_stream.signal import MODEL_FS, Conditioned
from train.data.pack import Cached
from train.data.sample import Cache
from train.judge.metrics import decode_beats, far_apart
from train.judge.score import CELL

__all__ = ["WINDOW", "Change", "Reader", "Reading", "starts"]

WINDOW, HOP, BEAT_HOP = 10 * MODEL_FS, MODEL_FS, 5 * MODEL_FS
_SCREEN, _SCREEN_HOP = 20 * MODEL_FS, 10 * MODEL_FS
_SEAM = 10  # samples by which neighbouring windows overlap in what they may say about beats; twins are dropped afterwards
_BATCH = 64

Change = Callable[[NDArray[np.float32], Cached, int], NDArray[np.float32]]
"""Takes a window ``(12, T)``, its record and where it starts; returns another window."""

Place = tuple[Cached, int]
"""A record, and a start in it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What is said about a stretch of a record.

    Parameters
    ----------
    rhythm
        ``(N, C)`` probabilities per cell, averaged over all windows that hold it.
    tokens
        ``(W, P, C)`` probabilities of windows end to end, as the network gave them.
    positions, classes, probabilities
        ``(M,)`` beats: samples from the start of the stretch, index into ``codes.BEATS``, probability of the peak.
    """

    rhythm: NDArray[np.float32]
    tokens: NDArray[np.float32]
    positions: NDArray[np.float64]
    classes: NDArray[np.int64]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads records of a cache with a predictor.

    Parameters
    ----------
    change
        Laid between cache and predictor.
    beats
        Finds the R peaks of windows for a network that needs them.
    """

    predictor: Predictor
    cache: Cache
    change: Change | None = None
    beats: Callable[[NDArray[np.float32]], NDArray[np.float32]] = find_beats

    def read(self, record: Cached, hop: int = HOP, span: tuple[int, int] | None = None) -> Reading:
        """Read a record, or half-open ``span`` of it, in windows of 10 s; ``hop`` divides 5 s. Beats are taken every 5 s."""
        begin, end = span or (0, record.length)
        length = end - begin
        central = _central(starts(length, WINDOW, BEAT_HOP))
        begins = sorted({*starts(length, WINDOW, hop), *central})
        cells = -(-max(length, WINDOW) // CELL)
        total, weight = np.zeros((cells, len(RHYTHMS)), np.float32), np.zeros((cells, 1), np.float32)
        threshold = self.predictor.card.calibration.beat_threshold
        tokens, found = [], [np.zeros((0, 3))]
        for (_, place), rhythm, beat in self._rows([(record, begin + start) for start in begins]):
            start = place - begin
            spread = np.repeat(rhythm, TOKEN // CELL, axis=0)[: WINDOW // CELL]
            total[start // CELL : start // CELL + len(spread)] += spread
            weight[start // CELL : start // CELL + len(spread)] += 1
            if start % WINDOW == 0:
                tokens.append(rhythm)
            if start in central:
                beats: NDArray[np.float64] = np.stack(decode_beats(beat, threshold), axis=1)
                beats[:, 0] += start
                found.append(beats[(beats[:, 0] >= central[start][0]) & (beats[:, 0] < central[start][1])])
        joined = np.concatenate(found)
        joined = joined[joined[:, 0] < length]
        joined = joined[far_apart(joined[:, 0], joined[:, 2])]
        total /= np.maximum(weight, 1)
        return Reading(total[: length // CELL], np.stack(tokens), joined[:, 0], joined[:, 1].astype(np.int64), joined[:, 2])

    def screen(self, records: Sequence[Cached]) -> NDArray[np.float64]:
        """Return ``(R, 4)`` probabilities: windows of 20 s, or the whole record where it is shorter; mean of the logarithms."""
        logs = np.zeros((len(records), len(SCREENS)))
        for places, prediction in self._predictions(_by_length(records, _SCREEN, _SCREEN_HOP)):
            for (which, _), row in zip(places, prediction.screen, strict=True):
                logs[which] += np.log(np.maximum(row, 1e-12))
        counts = [[len(starts(record.length, _SCREEN, _SCREEN_HOP))] for record in records]
        means = np.exp(logs / counts)
        probabilities: NDArray[np.float64] = means / means.sum(axis=1, keepdims=True)
        return probabilities

    def short(self, records: Sequence[Cached]) -> tuple[NDArray[np.float64], list[NDArray[np.float32]]]:
        """Return ``(R, K)`` probabilities of the statements, and per record the ``(P, C)`` rhythm of all its tokens."""
        statements = np.zeros((len(records), len(self.predictor.window_classes)))
        rhythm: list[list[NDArray[np.float32]]] = [[] for _ in records]
        places = [(which, record, start) for which, record in enumerate(records) for start in _starts_of(record)]
        for some, prediction in self._predictions([(WINDOW, places)]):
            for (which, start), window, tokens in zip(some, prediction.window, prediction.rhythm, strict=True):
                statements[which] += window / len(_starts_of(records[which]))
                rhythm[which].append(tokens[: -(-min(records[which].length - start, WINDOW) // TOKEN)])
        return statements, [np.concatenate(parts) for parts in rhythm]

    def _rows(self, places: list[Place]) -> Iterator[tuple[Place, NDArray[np.float32], NDArray[np.float32]]]:
        for at in range(0, len(places), _BATCH):
            some = places[at : at + _BATCH]
            prediction = self._predict(some, WINDOW)
            yield from zip(some, prediction.rhythm, prediction.beat, strict=True)

    def _predictions(
        self, groups: Iterable[tuple[int, list[tuple[int, Cached, int]]]]
    ) -> Iterator[tuple[list[tuple[int, int]], Prediction]]:
        """Yield (index of the record, start) of every window of a batch, and what is said about them."""
        for length, places in groups:
            for at in range(0, len(places), _BATCH):
                some = places[at : at + _BATCH]
                prediction = self._predict([(record, start) for _, record, start in some], length)
                yield [(which, start) for which, _, start in some], prediction

    def _predict(self, places: list[Place], length: int) -> Prediction:
        windows = []
        for record, start in places:
            window = self.cache.cut(record, start, length)[0]
            windows.append(window if self.change is None else self.change(window, record, start))
        batch = np.stack(windows)
        return self.predictor.predict(Conditioned(batch, MODEL_FS), self.beats(batch) if self.predictor.needs_beats else None)


def starts(length: int, window: int, hop: int) -> list[int]:
    """Return where windows start: every hop, and a last one that reaches the end (but for less than a cell)."""
    last = max(length - window, 0) // CELL * CELL
    return [*range(0, last, hop), last]


def _starts_of(record: Cached) -> list[int]:
    return starts(record.length, WINDOW, BEAT_HOP)


def _central(starts: list[int]) -> dict[int, tuple[float, float]]:
    """Return per window the part of the record that lies most centrally in it, a little widened."""
    seams = [(a + b + WINDOW) / 2 for a, b in pairwise(starts)]
    bounds = pairwise([-np.inf, *seams, np.inf])
    return {start: (low - _SEAM, high + _SEAM) for start, (low, high) in zip(starts, bounds, strict=True)}


def _by_length(records: Sequence[Cached], longest: int, hop: int) -> list[tuple[int, list[tuple[int, Cached, int]]]]:
    """Group the windows of all records by their length."""
    groups: dict[int, list[tuple[int, Cached, int]]] = {}
    for which, record in enumerate(records):
        places = groups.setdefault(min(record.length, longest), [])
        places += [(which, record, start) for start in starts(record.length, longest, hop)]
    return sorted(groups.items(), key=lambda group: group[0])
