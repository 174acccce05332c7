"""What the quality stage measures of every lead and frame, and whether QRS detection was right there.

Pieces of recordings go in (:mod:`train.signal.quality_pieces`), frames per group come out. QRS complexes are detected on every
lead alone; a lead-frame is right if no beat was missed and none false (150 ms) in the 4 s before its end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.beats import QrsDetector
from ecgnat_stream.condition import Conditioner
from ecgnat_stream.quality import FEATURES, QualityEstimator
from ecgnat_stream.score.compare import match_beats
from ecgnat_stream.signal import FRAME_S, FS
from train.signal.quality_pieces import QualityPiece, alarming, annotated, fibrillating, handheld, mixed

__all__ = ["Frames", "everything"]

SLOTS = (0, 6)  # I and V1, from which no other lead is derived
SKIP = 10  # frames at the beginning of every piece
LATEST = 3  # frames at its end whose beats are not all decided on
LOOK_S = 4.0


class Frames(NamedTuple):
    """Frames of a group: index, state, features per lead; right 0 or 1, -1 where unknown; usable; record."""

    sqi: NDArray[np.float32]
    state: NDArray[np.int8]
    measured: NDArray[np.float32]
    right: NDArray[np.int8]
    usable: NDArray[np.bool_]
    record: NDArray[np.str_]


class Listening(QualityEstimator):
    """Keeps what is weighed of every row."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows, kernels=False)
        self.last = np.zeros((len(FEATURES), rows, 12), np.float32)

    def measure(self, rows: NDArray[np.intp], y: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Measure as the stage does."""
        measured, span = super().measure(rows, y)
        self.last[:, rows] = measured
        return measured, span


def run(pieces: list[QualityPiece], fs: float) -> Iterator[tuple[str, Frames]]:
    """Stream pieces side by side; yield each group with its frames."""
    rows, frames = np.arange(len(pieces)), np.array([int(len(piece.samples) / fs / FRAME_S) - 1 for piece in pieces])
    conditioner, estimator, off = Conditioner(fs, len(rows)), Listening(len(rows)), np.zeros((len(rows), 12), bool)
    slots, all_of = list(SLOTS[: pieces[0].samples.shape[1]]), []
    known = np.array([piece.beats is not None for piece in pieces])
    detectors = [QrsDetector(len(rows)) for _ in slots]
    found: list[list[NDArray[np.float64]]] = [[] for _ in slots]
    for k in range(max(frames)):
        number = np.full(len(rows), k)
        starts, n = conditioner.needed(number)
        start, raw = int(starts[0]), np.full((len(rows), 12, n), np.nan, np.float32)
        for row, piece in enumerate(pieces):
            part = piece.samples[max(start, 0) : max(start + n, 0)]
            raw[row, slots, max(-start, 0) : max(-start, 0) + len(part)] = part.T
        y = conditioner.process(rows, number, raw)
        judged = estimator.process(rows, raw, y, off, fs)
        for slot, detector, times in zip(slots, detectors, found, strict=True):
            if known.all():
                alone = np.zeros((len(rows), 12), np.float32)
                alone[:, slot] = ~np.isnan(y[:, slot]).all(axis=1)
                beats = detector.process(rows, number, y, alone)
                times.append(np.column_stack([beats.row, beats.at / FS]))
        measured = estimator.last[:, :, slots].transpose(1, 2, 0)
        all_of.append((judged.sqi[:, slots], judged.state[:, slots], measured, judged.usable))
    sqi, state, measured, usable = (np.stack(part, axis=1) for part in zip(*all_of, strict=True))
    every = [np.concatenate(times) if times else np.zeros((0, 2)) for times in found]
    for row, piece in enumerate(pieces):
        verdict = np.full((frames[row], len(slots)), -1, np.int8)
        if piece.beats is not None and known.all():
            verdict[:-LATEST] = np.column_stack(
                [right(piece.beats, np.sort(times[times[:, 0] == row, 1]), frames[row]) for times in every]
            )[:-LATEST]
        for group, begin, end in piece.what:
            of = slice(max(SKIP, int(begin / FRAME_S)), min(int(end / FRAME_S), frames[row]))
            names_of = np.full(len(usable[row, of]), piece.record)
            yield group, Frames(sqi[row, of], state[row, of], measured[row, of], verdict[of], usable[row, of], names_of)


def right(truth: NDArray[np.float64], found: NDArray[np.float64], frames: int) -> NDArray[np.int8]:
    """Return per frame whether no beat was missed and none false in the 4 s before its end, all of it within the piece."""
    matched, by = match_beats(truth, found)
    wrong = np.concatenate([np.delete(truth, matched), np.delete(found, by)])
    end = (np.arange(frames) + 1) * FRAME_S
    result = np.ones(frames, np.int8)
    for at in wrong:
        result[(end >= at) & (end < at + LOOK_S)] = 0
    result[end < 2 * LOOK_S] = -1
    return result


def everything(root: Path, split: str, tuning: bool) -> dict[str, Frames]:
    """Return every group's frames."""
    found: dict[str, list[Frames]] = defaultdict(list)
    noise = list(mixed(root, split, tuning))
    sources: list[tuple[list[QualityPiece], float]] = [(noise[:4], 360), (list(alarming(root, split)), 250)]
    sources += [(noise[at : at + 300], 360) for at in range(4, len(noise), 300)]
    sources += [(list(annotated(root, "mitdb", split)), 360), (list(annotated(root, "vfdb", split)), 250)]
    sources += [(list(fibrillating(root, split)), 250), (list(handheld(root, split)), 100)]
    for pieces, fs in sources:
        for group, frames in run(pieces, fs):
            found[group].append(frames)
    return {group: Frames(*map(np.concatenate, zip(*found[group], strict=True))) for group in sorted(found)}
