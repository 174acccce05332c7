"""Contents from pieces: what a file holds of each signal, and where in time. A signal may have several, and holes between."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgnat_devices.records.contents import MOST_SIGNALS, Contents, Signal, Values, wrong
from ecgnat_devices.records.runs import Run, read_runs

__all__ = ["Piece", "contents_of", "rate_of", "without_step"]

_MOST_S = 31 * 86_400.0
"""Longest recording in s, holes counted: a Holter recorder has at most some weeks."""

_HIGHEST_HZ = 1e6


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive samples of a signal. One is ``raw * gain + baseline`` in ``unit``.

    Parameters
    ----------
    name
        Of the signal.
    fs
        Rate in Hz.
    unit
        Unit of its values.
    raw
        ``(T,)``, numbers as they stand in the file.
    gain, baseline
        One step, and what zero stands for, in ``unit``.
    missing
        The number that stands for "no sample here"; NaN stands for it always.
    start_s
        Time of the first sample in s; of all pieces of a file, the first is at the beginning of the recording.
    """

    name: str
    fs: float
    unit: str
    raw: NDArray[Any]
    gain: float = 1.0
    baseline: float = 0.0
    missing: int | None = None
    start_s: float = 0.0

    def part(self, start: int, stop: int) -> Values:
        """Return some of the samples in ``unit``."""
        raw = self.raw[start:stop]
        with np.errstate(over="ignore", invalid="ignore"):  # of a damaged step
            values = raw.astype(np.float64) * self.gain + self.baseline
        if self.missing is not None:
            values[raw == self.missing] = np.nan
        return values


def rate_of(path: Path, fs: float) -> float:
    """Return a rate in Hz that a header states, or refuse it."""
    if not 0 < fs <= _HIGHEST_HZ:
        raise wrong(path, f"states a sampling rate of {fs:g} Hz")
    return fs


def contents_of(path: Path, pieces: Sequence[Piece], notes: Sequence[str] = ()) -> Contents:
    """Put the pieces of each signal, which have one name and one rate, in their places.

    All signals of one rate have one length; what one lacks at its end is NaN. Of two pieces of a signal that stand for the same
    time, the longer is taken.

    Raises
    ------
    DeviceError
        If there are no samples, or sizes that no recording has.
    """
    pieces = [piece for piece in pieces if len(piece.raw)]
    if not pieces:
        raise wrong(path, "holds no samples")
    first_s = min(piece.start_s for piece in pieces)
    by_signal: dict[tuple[str, int, float, str], list[Piece]] = defaultdict(list)
    unnamed = 0
    for piece in pieces:
        _check(path, piece, first_s)
        unnamed += not piece.name
        by_signal[piece.name, 0 if piece.name else unnamed, piece.fs, piece.unit].append(piece)
    if len(by_signal) > MOST_SIGNALS:
        raise wrong(path, f"has {len(by_signal)} signals: at most {MOST_SIGNALS} are read")
    placed = [_place(group, first_s) for group in by_signal.values()]
    totals: dict[float, int] = defaultdict(int)
    for row in placed:
        totals[row.pieces[0].fs] = max(totals[row.pieces[0].fs], row.stop)
    signals = tuple(_signal(row.pieces[0], totals[row.pieces[0].fs]) for row in placed)
    twice = sorted({row.pieces[0].name for row in placed if row.left_out})
    if twice:
        notes = (*notes, f"holds {', '.join(twice)} more than once for the same time: the longest piece is read")

    def read(rows: Sequence[int], start: int, stop: int) -> Values:
        return np.concatenate([placed[row].read(start, stop) for row in rows]) if rows else np.empty((0, stop - start))

    return Contents(signals, read, (*notes, *without_step(signals)))


def without_step(signals: Sequence[Signal]) -> tuple[str, ...]:
    """Return what to say of signals without a unit: their numbers are counts of a converter."""
    names = [signal.name or "a lead" for signal in signals if not signal.unit]
    if not names:
        return ()
    how = "with scale and units, on the command line for example --scale 4.88 --units uV"
    return (f"does not say how large a step of {', '.join(names)} is: say it {how}",)


@dataclass(frozen=True, slots=True)
class _Placed:
    """The pieces of one signal that are read, in the order of time, and where they stand."""

    pieces: list[Piece]
    runs: list[Run]
    left_out: int

    @property
    def stop(self) -> int:
        return self.runs[-1].start + self.runs[-1].length

    def read(self, start: int, stop: int) -> Values:
        return read_runs(self.runs, [0], start, stop, self._part)

    def _part(self, rows: Sequence[int], at: int, at_stop: int) -> Values:
        index = bisect_right(self.runs, at, key=lambda run: run.at) - 1
        run = self.runs[index]
        return self.pieces[index].part(at - run.at, at_stop - run.at)[None]


def _check(path: Path, piece: Piece, first_s: float) -> None:
    rate_of(path, piece.fs)
    name = piece.name or "a signal"
    if not (math.isfinite(piece.gain) and math.isfinite(piece.baseline)):
        raise wrong(path, f"{name} has a step of {piece.gain:g} and a zero of {piece.baseline:g} {piece.unit}: it is damaged")
    length_s = piece.start_s - first_s + len(piece.raw) / piece.fs
    if not 0 <= length_s <= _MOST_S:
        raise wrong(path, f"{name} ends {length_s:.3g} s after the recording begins: at most {_MOST_S:g} s are read")


def _place(group: Sequence[Piece], first_s: float) -> _Placed:
    """Put pieces one after another; two may meet within one sample, by the rounding of their times."""
    taken: list[tuple[int, int, Piece]] = []
    for piece in sorted(group, key=lambda piece: -len(piece.raw)):
        start = round((piece.start_s - first_s) * piece.fs)
        if any(start < stop - 1 and start + len(piece.raw) > begin + 1 for begin, stop, _ in taken):
            continue
        taken.append((start, start + len(piece.raw), piece))
    taken.sort(key=lambda place: place[0])
    runs: list[Run] = []
    at = after = 0
    for start, stop, _ in taken:
        begin = max(start, after)
        after = begin + stop - start
        runs.append(Run(begin, at, stop - start))
        at += stop - start
    return _Placed([piece for *_, piece in taken], runs, len(group) - len(taken))


def _signal(piece: Piece, total: int) -> Signal:
    return Signal(piece.name, piece.fs, piece.unit, total, abs(piece.gain) if _is_whole(piece.raw) else None)


def _is_whole(raw: NDArray[Any]) -> bool:
    """Return whether samples are the whole numbers of a converter, written as text perhaps."""
    return raw.dtype.kind in "iu" or bool(np.all((raw % 1 == 0) | np.isnan(raw)))
