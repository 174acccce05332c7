"""How a network reads what the scheduler cuts: whole windows, or only what is new, with what it remembers of each bed.

A :class:`Reader` takes cut stretches of the beds of one ward and gives probabilities for each. It works in the thread of its
:class:`~ecgnat_stream.model.predict.Predictor`, one call at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ecgnat_stream.model.prediction import Prediction
from ecgnat_stream.model.preprocess import TOKEN
from ecgnat_stream.signal import MODEL_FS, TOKEN_S, Conditioned, Window

if TYPE_CHECKING:
    from ecgnat_stream.model.beat_streaming import StreamingBeats
    from ecgnat_stream.model.predict import Predictor
    from ecgnat_stream.model.streaming import StreamingEcgNat

__all__ = ["Reader", "Remembering", "TokenReader", "WindowReader"]

_LONGEST = 8
"""Tokens that a step takes at most: more make attention look at ever more that it does not see."""


class Reader(Protocol):
    """Reads what was cut of the beds of one ward."""

    def submit(self, windows: Sequence[Window]) -> Future[Prediction]:
        """Return probabilities for each window; of one bed, they come in order."""

    def save(self, row: int) -> dict[str, torch.Tensor]:
        """Return what is remembered of a bed; nothing, if the network reads whole windows."""

    def restore(self, row: int, state: Mapping[str, torch.Tensor]) -> None:
        """Let a bed go on where :meth:`save` of another process has left it.

        Raises
        ------
        ValueError
            If the state is that of another network.
        """


class WindowReader:
    """Reads each window anew."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def submit(self, windows: Sequence[Window]) -> Future[Prediction]:
        """Return probabilities for each window."""
        samples = np.stack([window.samples for window in windows])
        beats = np.full((len(windows), max(1, *(len(window.beats) for window in windows))), np.nan, np.float32)
        for row, window in zip(beats, windows, strict=True):
            row[: len(window.beats)] = window.beats
        return self._predictor.submit(Conditioned(samples, MODEL_FS), beats)

    def save(self, row: int) -> dict[str, torch.Tensor]:
        """Return nothing: nothing is remembered."""
        return {}

    def restore(self, row: int, state: Mapping[str, torch.Tensor]) -> None:
        """Take nothing.

        Raises
        ------
        ValueError
            If the state is that of a network that remembers.
        """
        if state:
            raise ValueError("the state is that of a network that goes token by token")


class Remembering:
    """What readers share that remember something of each bed: it is looked at in the thread of the network alone."""

    def __init__(self, stream: StreamingEcgNat | StreamingBeats, submit: Callable[..., Future[Any]]) -> None:
        self._stream, self._submit = stream, submit

    def save(self, row: int) -> dict[str, torch.Tensor]:
        """Return what is remembered of a bed, after what was submitted before."""
        state: dict[str, torch.Tensor] = self._submit(self._stream.save, row).result()
        return state

    def restore(self, row: int, state: Mapping[str, torch.Tensor]) -> None:
        """Let a bed go on where :meth:`save` of another process has left it.

        Raises
        ------
        ValueError
            If the state is that of another network.
        """
        self._submit(self._stream.restore, row, state).result()


@dataclass(slots=True)
class _Stretch:
    """New samples of one bed, end to end, and the windows that they were cut as."""

    row: int
    fresh: bool
    samples: list[NDArray[np.float32]]
    windows: list[int]
    rhythm: list[NDArray[np.float32]] = field(default_factory=list)
    beat: list[NDArray[np.float32]] = field(default_factory=list)


class TokenReader(Remembering):
    """Reads the new tokens of each bed, after those that came before.

    Parameters
    ----------
    stream
        What is remembered; its rows are those of the ward.
    submit
        Does work in the thread of the network.
    probable
        Turns logits of rhythm and beats into probabilities.
    sizes
        Beds of a step, ascending: at most the last.
    fixed
        Whether steps have one token, and are filled up to one of the sizes: for what was compiled for these.
    """

    _stream: StreamingEcgNat

    def __init__(
        self,
        stream: StreamingEcgNat,
        submit: Callable[..., Future[Any]],
        probable: Callable[[torch.Tensor, torch.Tensor], tuple[NDArray[np.float32], NDArray[np.float32]]],
        sizes: Sequence[int],
        *,
        fixed: bool = False,
    ) -> None:
        super().__init__(stream, submit)
        self._probable = probable
        self._sizes, self._fixed, self._longest = tuple(sizes), fixed, 1 if fixed else _LONGEST

    def submit(self, windows: Sequence[Window]) -> Future[Prediction]:
        """Return probabilities for the tokens of each window; ``fresh`` ones begin without a past."""
        for window in windows:
            if window.samples.shape[1] % TOKEN or not window.samples.shape[1]:
                raise ValueError(f"want whole tokens of {TOKEN} samples, got {window.samples.shape[1]} samples")
        answer: Future[Prediction] = self._submit(self._read, tuple(windows))
        return answer

    def _read(self, windows: Sequence[Window]) -> Prediction:
        began = time.perf_counter()
        rest = _stretches(windows)
        most = max(window.samples.shape[1] for window in windows) // TOKEN
        rhythm: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(windows)
        beat = list(rhythm)
        while rest:
            turn: list[_Stretch] = []
            later: list[_Stretch] = []
            seen: set[int] = set()
            for stretch in rest:
                (later if stretch.row in seen else turn).append(stretch)
                seen.add(stretch.row)
            self._walk(turn)
            for stretch in turn:
                said, beats, at = np.concatenate(stretch.rhythm), np.concatenate(stretch.beat), 0
                for number in stretch.windows:
                    count = windows[number].samples.shape[1] // TOKEN
                    rhythm[number], beat[number] = said[at : at + count], beats[4 * at : 4 * (at + count)]
                    at += count
            rest = later
        return Prediction(
            _stacked(rhythm, most),
            np.zeros((len(windows), 0), np.float32),
            np.zeros((len(windows), 0), np.float32),
            _stacked(beat, 4 * most),
            np.zeros(len(windows), np.bool_),
            TOKEN_S,
            time.monotonic_ns(),
            time.perf_counter() - began,
            once=True,
        )

    def _walk(self, stretches: Sequence[_Stretch]) -> None:
        """Take one stretch of each of some beds, in steps that many of them share."""
        top = max(stretch.row for stretch in stretches) + 1
        if top > self._stream.beds:
            self._stream.grow(max(top, self._stream.beds * 3 // 2))
        fresh = [stretch.row for stretch in stretches if stretch.fresh]
        if fresh:
            self._stream.reset(torch.tensor(fresh))
        waiting = [(stretch, np.concatenate(stretch.samples, axis=1)) for stretch in stretches]
        while waiting:
            by_length: dict[int, list[tuple[_Stretch, NDArray[np.float32]]]] = {}
            for stretch, samples in waiting:
                by_length.setdefault(min(self._longest, samples.shape[1] // TOKEN), []).append((stretch, samples))
            waiting = []
            for length, group in sorted(by_length.items()):
                cut = length * TOKEN
                for at in range(0, len(group), self._sizes[-1]):
                    some = group[at : at + self._sizes[-1]]
                    self._step([stretch for stretch, _ in some], np.stack([samples[:, :cut] for _, samples in some]))
                waiting += [(stretch, samples[:, cut:]) for stretch, samples in group if samples.shape[1] > cut]

    def _step(self, stretches: Sequence[_Stretch], samples: NDArray[np.float32]) -> None:
        size = next(size for size in self._sizes if size >= len(stretches)) if self._fixed else None
        said = self._stream.step(torch.tensor([stretch.row for stretch in stretches]), torch.from_numpy(samples), size)
        for stretch, rhythm, beat in zip(stretches, *self._probable(said.rhythm, said.beat), strict=True):
            stretch.rhythm.append(rhythm)
            stretch.beat.append(beat)


def _stretches(windows: Sequence[Window]) -> list[_Stretch]:
    """Join what lies end to end of each bed."""
    found: list[_Stretch] = []
    last: dict[int, _Stretch] = {}
    for number, window in enumerate(windows):
        if window.row not in last or window.fresh:
            last[window.row] = _Stretch(window.row, window.fresh, [], [])
            found.append(last[window.row])
        last[window.row].samples.append(window.samples)
        last[window.row].windows.append(number)
    return found


def _stacked(parts: Sequence[NDArray[np.float32]], most: int) -> NDArray[np.float32]:
    """Return arrays ``(N, C)`` of different length as one, NaN behind their ends."""
    whole = np.full((len(parts), most, parts[0].shape[1]), np.nan, np.float32)
    for row, part in zip(whole, parts, strict=True):
        row[: len(part)] = part
    return whole
