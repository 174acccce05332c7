"""Whether a signal has the size of a heart: a unit that is wrong by a factor of 1000 must not pass for an asystole.

Amplitude alone cannot tell: an asystole moves by no more than the noise of the input. What tells is the shape. A heart
whose numbers are taken for uV instead of mV still beats, a thousand times too small; a heart that stands still shows no QRS
complexes at any scale. So where all leads of a stream move less, or more, than any heart moves them (:data:`HEART_MV`), the same
samples are looked at a second time, brought to the size of a heart, by filters, quality and QRS detector of their own, and only
while these see heart beats on a trusted lead is the scale said to be wrong. An asystole stays one for four reasons:

* once three beats of a possible size were seen in a stream its unit is proven, and nothing is asked until another begins;
* what is noise gives no trusted lead and no steady beats, whatever its size;
* a line of a few steps of a converter has no shape that could be looked at;
* if the small beats stop, the condition ends, and the rules of the heart judge the signal as it is: asystole, after its time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.beats import BeatFrame, QrsDetector
from ecgnat_stream.condition import Conditioner
from ecgnat_stream.config import Config
from ecgnat_stream.quality import QualityEstimator
from ecgnat_stream.signal import FRAME, FRAME_S, FS, HEART_MV, LEADS

__all__ = ["ScaleWatch"]

_SECOND = round(1 / FRAME_S)
_LOOK = 3 * _SECOND
"""Frames (3 s) after which the size of a signal is known, and that are gone through again when it is not a heart's."""

_PROVEN = 3
"""So many beats of a possible size prove the unit of a stream."""

_QRS_MV = 1.0
"""What the signal's movement within a second is brought to: the usual size of a QRS complex."""

_STEPS = 12
"""A lead of fewer different values in :data:`_LOOK` has no shape: two or three steps of a converter are its noise."""

_BEATS, _WITHIN_S = 3, 6.0
"""Beats on the signal that was brought to size, and within how long, that say that it is a heart: 30 bpm and more."""

_TRUST = 0.5
"""Least quality index of the best lead of the signal that was brought to size."""

_HELD_S = 5.0
"""The scale stays wrong for so long after the last moment at which a heart was seen: an artefact changes no unit."""

_UNTIL_S = 10.0
"""The size that was found is measured anew when no heart was seen for so long."""

_ROW = np.zeros(1, np.intp)


@dataclass(slots=True)
class _Stream:
    """One bed's stream, until its unit is proven."""

    beats: int = 0
    seen: deque[_Frame] = field(default_factory=lambda: deque(maxlen=_LOOK))
    closer: _Closer | None = None
    moves_mv: float = np.nan
    begun_s: float = 0.0
    wrong_s: float = -np.inf


@dataclass(frozen=True, slots=True)
class _Frame:
    """One frame of one bed: its number, device samples ``(12, n)``, mV, ``(12,)`` which leads are looked at, their extremes."""

    number: int
    raw: NDArray[np.float32]
    watched: NDArray[np.bool_]
    highest: NDArray[np.float32]
    lowest: NDArray[np.float32]


class ScaleWatch:
    """Looks at the size of the signal of all rows.

    Parameters
    ----------
    rows
        Number of rows (beds).
    """

    def __init__(self, rows: int, config: Config) -> None:
        self._config = config
        self._open: list[_Stream | None] = [_Stream() for _ in range(rows)]

    def begin(self, row: int) -> None:
        """Begin a stream: its unit is not proven."""
        self._open[row] = _Stream()

    def process(
        self,
        rows: NDArray[np.intp],
        frames: NDArray[np.int64],
        fs: float,
        raw: NDArray[np.float32],
        watched: NDArray[np.bool_],
        beats: BeatFrame,
    ) -> NDArray[np.float32]:
        """Take one frame of each of ``rows``; return ``(R,)`` how far a heart in wrong units moves within a second, mV, or NaN.

        Parameters
        ----------
        rows, frames, fs, raw
            As :meth:`~ecgnat_stream.ward.signal_path.Stages.process` takes them.
        watched
            ``(R, 12)`` leads that are delivered and that the device does not call disconnected.
        beats
            What was found in these frames.
        """
        found = np.full(len(rows), np.nan, np.float32)
        if not any(self._open[row] for row in rows.tolist()):
            return found
        highest, lowest = np.maximum.reduce(raw, axis=2), np.minimum.reduce(raw, axis=2)  # NaN where a sample is missing
        for i, row in enumerate(rows.tolist()):
            stream = self._open[row]
            if stream is None:
                continue
            if not _too_large(stream.seen):
                stream.beats += int(np.count_nonzero(beats.row == row))
            if stream.beats >= _PROVEN:
                self._open[row] = None
            else:
                found[i] = self._look(stream, fs, _Frame(int(frames[i]), raw[i], watched[i], highest[i], lowest[i]))
        return found

    def _look(self, stream: _Stream, fs: float, frame: _Frame) -> float:
        if stream.seen and frame.number != stream.seen[-1].number + 1:
            stream.seen.clear()
            stream.closer = None
        stream.seen.append(frame)
        now_s = frame.number * FRAME_S
        if stream.closer is not None:
            stream.closer.see(frame)
        elif len(stream.seen) == _LOOK:
            moves_mv = _moves_mv(stream.seen)
            if np.isnan(moves_mv):
                return np.nan
            stream.closer, stream.moves_mv, stream.begun_s = _Closer(fs, stream.seen, moves_mv, self._config), moves_mv, now_s
        else:
            return np.nan
        if stream.closer.beating:
            stream.wrong_s = now_s
        if now_s - max(stream.wrong_s, stream.begun_s) > _UNTIL_S:
            stream.closer = None
        return stream.moves_mv if now_s - stream.wrong_s <= _HELD_S else np.nan


class _Closer:
    """A second look at one bed's signal, brought to the size of a heart.

    Parameters
    ----------
    frames
        What was seen so far, which the size is measured on.
    moves_mv
        By how much the device's samples move within a second. What the filters leave of that may be much less, where it is hum or
        wander, and is measured again.
    """

    def __init__(self, fs: float, frames: deque[_Frame], moves_mv: float, config: Config) -> None:
        self._gain, self._rest = np.float32(_QRS_MV / moves_mv), np.float32(1.0)
        self._conditioner = Conditioner(fs, 1, config.condition)
        self._quality = QualityEstimator(1, config.quality)
        self._detector = QrsDetector(1, config.beats)
        self._at: deque[float] = deque()
        self.beating = False
        conditioned = [self._condition(frame) for frame in frames]
        seconds = np.stack(conditioned[_SECOND:])[:, 0, frames[-1].watched].reshape(2, _SECOND, -1, FRAME)
        height = (np.maximum.reduce(seconds, axis=(1, 3)) - np.minimum.reduce(seconds, axis=(1, 3))).mean(axis=0)
        largest = float(np.max(height, initial=0.0, where=np.isfinite(height)))
        self._rest = np.float32(_QRS_MV / largest if largest > 0 else 1.0)
        for frame, y in zip(frames, conditioned, strict=True):
            self._judge(frame, y)

    def see(self, frame: _Frame) -> None:
        """Take the next frame."""
        self._judge(frame, self._condition(frame))

    def _condition(self, frame: _Frame) -> NDArray[np.float32]:
        """Return the conditioned frame ``(1, 12, FRAME)``."""
        return self._conditioner.process(_ROW, np.array([frame.number]), (frame.raw * self._gain)[None])

    def _judge(self, frame: _Frame, y: NDArray[np.float32]) -> None:
        y, watched = y * self._rest, frame.watched[None]
        raw = (frame.raw * (self._gain * self._rest))[None]
        quality = self._quality.process(_ROW, raw, y, np.zeros((1, len(LEADS)), bool), None, watched)
        sqi = quality.sqi * watched
        self._at.extend(self._detector.process(_ROW, np.array([frame.number]), y, sqi).at.tolist())
        while self._at and self._at[0] < ((frame.number + 1) * FRAME_S - _WITHIN_S) * FS:
            self._at.popleft()
        self.beating = bool(len(self._at) >= _BEATS and quality.usable[0] and sqi.max() >= _TRUST)


def _too_large(frames: deque[_Frame]) -> bool:
    """Return whether every lead has just moved more than a heart moves it: what is found there may be the rest of a huge wave."""
    if not frames:
        return True
    with np.errstate(invalid="ignore"):
        moves = np.maximum.reduce([frame.highest for frame in frames]) - np.minimum.reduce([frame.lowest for frame in frames])
    return not (moves[frames[-1].watched] <= HEART_MV[1]).any()


def _moves_mv(frames: deque[_Frame]) -> float:
    """Return by how much the signal moves within a second: of the leads' medians over the seconds the one nearest to a heart's.

    NaN if a heart may move it so, if there is nothing, or nothing with a shape.
    """
    highest = np.stack([frame.highest for frame in frames]).reshape(-1, _SECOND, len(LEADS))
    lowest = np.stack([frame.lowest for frame in frames]).reshape(-1, _SECOND, len(LEADS))
    height = np.median(np.maximum.reduce(highest, axis=1) - np.minimum.reduce(lowest, axis=1), axis=0)
    leads = np.flatnonzero(frames[-1].watched & np.isfinite(height) & (height > 0))
    if not len(leads):
        return np.nan
    least, most = HEART_MV
    away = np.abs(np.log(height[leads]) - np.log(least * most) / 2)
    lead = leads[away.argmin()]
    if least <= height[lead] <= most or len(np.unique(np.concatenate([frame.raw[lead] for frame in frames]))) < _STEPS:
        return np.nan
    return float(height[lead])
