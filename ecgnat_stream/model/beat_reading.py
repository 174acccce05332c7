"""A ward's beds read beat by beat: new samples and new R peaks in, what the network says of the last 10 s out.

A network of heartbeats looks both ways, so that the rhythm of earlier seconds is said again with each answer, as of windows; but
only what is new is cut, encoded and carried.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecgnat_stream.model.beat_streaming import StreamingBeats
from ecgnat_stream.model.network import NetworkOutput
from ecgnat_stream.model.prediction import Prediction
from ecgnat_stream.model.reading import Remembering
from ecgnat_stream.signal import TOKEN_S, Window

__all__ = ["BeatReader"]

_Probable = Callable[[NetworkOutput], tuple[NDArray[np.float32], ...]]


class BeatReader(Remembering):
    """Reads what is new of each bed, after what came before.

    Parameters
    ----------
    stream
        What is remembered; its rows are those of the ward.
    submit
        Does work in the thread of the network.
    probable
        Turns logits into probabilities of rhythm, beats, window and screening.
    most
        Beds of a batch at most.
    """

    _stream: StreamingBeats

    def __init__(self, stream: StreamingBeats, submit: Callable[..., Future[Any]], probable: _Probable, most: int) -> None:
        super().__init__(stream, submit)
        self._probable, self._most = probable, most

    def submit(self, windows: Sequence[Window]) -> Future[Prediction]:
        """Return probabilities for the 10 s that end with each window; ``fresh`` ones begin without a past."""
        answer: Future[Prediction] = self._submit(self._read, tuple(windows))
        return answer

    def _read(self, windows: Sequence[Window]) -> Prediction:
        began = time.perf_counter()
        answers: list[tuple[NDArray[Any], ...]] = [()] * len(windows)
        for turn in _turns(windows):
            for number, answer in zip(turn, self._batch([windows[number] for number in turn]), strict=True):
                answers[number] = answer
        rhythm, beat, window, screen, tiled = (np.stack(part) for part in zip(*answers, strict=True))
        now_ns, took_s = time.monotonic_ns(), time.perf_counter() - began
        return Prediction(rhythm, window, screen, beat, tiled, TOKEN_S, now_ns, took_s, covers=self._stream.window)

    def _batch(self, windows: Sequence[Window]) -> list[tuple[NDArray[Any], ...]]:
        """Take and read windows of different beds."""
        fresh = [window.row for window in windows if window.fresh]
        if fresh:
            self._stream.reset(torch.tensor(fresh))
        by_length: dict[int, list[Window]] = {}
        for window in windows:
            by_length.setdefault(window.samples.shape[1], []).append(window)
        for group in by_length.values():
            rows = torch.tensor([window.row for window in group])
            peaks = np.full((len(group), max(len(window.beats) for window in group)), np.nan)
            for row, window in zip(peaks, group, strict=True):
                row[: len(window.beats)] = window.beats
            begun = self._stream.stream.received[rows, None]
            samples = torch.from_numpy(np.stack([window.samples for window in group]))
            self._stream.take(rows, samples, torch.from_numpy(peaks) + begun)
        answers: list[tuple[NDArray[Any], ...]] = []
        for at in range(0, len(windows), self._most):
            rows = torch.tensor([window.row for window in windows[at : at + self._most]])
            said, tiled = self._stream.read(rows), self._stream.without_beats(rows).numpy()
            answers += zip(*self._probable(said), tiled, strict=True)
        return answers


def _turns(windows: Sequence[Window]) -> list[list[int]]:
    """Return the numbers of windows in turns, each of which has a bed once; of a bed, in their order."""
    turns: list[list[int]] = []
    seen: dict[int, int] = {}
    for number, window in enumerate(windows):
        turn = seen.get(window.row, 0)
        seen[window.row] = turn + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(number)
    return turns
