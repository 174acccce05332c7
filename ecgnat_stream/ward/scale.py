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


@dataclass(frozen=True, slots=True)
class _Frame:
    """One frame of one bed: its number, the device samples ``(L, n)``, mV, of these leads, and ``(12,)`` which are looked at."""

    number: int
    samples: NDArray[np.float32]
    leads: NDArray[np.intp]
    watched: NDArray[np.bool_]

    @property
    def raw(self) -> NDArray[np.float32]:
        """Return the samples of all leads ``(12, n)``, NaN where there are none."""
        raw = np.full((len(LEADS), self.samples.shape[1]), np.nan, np.float32)
        raw[self.leads] = self.samples
        return raw


@dataclass(slots=True)
class _Stream:
    """What is kept of one bed's stream until its unit is proven, besides the extremes of its frames."""

    seen: deque[_Frame] = field(default_factory=lambda: deque(maxlen=_LOOK))
    closer: _Closer | None = None
    moves_mv: float = np.nan
    begun_s: float = 0.0
    wrong_s: float = -np.inf


class ScaleWatch:
    """Looks at the size of the signal of all rows.

    Parameters
    ----------
    rows
        Number of rows (beds).
    """

    def __init__(self, rows: int, config: Config) -> None:
        self._config = config
        self._streams: list[_Stream | None] = [_Stream() for _ in range(rows)]
        self._open = np.ones(rows, bool)
        self._beats, self._seen, self._number = (np.zeros(rows, np.int64) for _ in range(3))
        self._watched = np.zeros((rows, len(LEADS)), bool)
        self._highest = np.full((rows, _LOOK, len(LEADS)), -np.inf, np.float32)
        self._lowest = np.full((rows, _LOOK, len(LEADS)), np.inf, np.float32)

    def begin(self, row: int) -> None:
        """Begin a stream: its unit is not proven."""
        self._streams[row], self._open[row], self._beats[row] = _Stream(), True, 0
        self._forget(np.array([row]))

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
        asked = np.flatnonzero(self._open[rows])
        if len(asked):
            self._prove(rows[asked], beats)
            asked = asked[self._open[rows[asked]]]
        if len(asked):
            self._look(rows[asked], frames[asked], raw[asked], watched[asked])
            closer = self._suspects(rows[asked], fs)
            for i in asked[closer].tolist():
                found[i] = self._see_closer(int(rows[i]))
        return found

    def _prove(self, rows: NDArray[np.intp], beats: BeatFrame) -> None:
        """Count the beats, but for those found in the rest of a huge wave; a stream with enough of them is asked no more."""
        count = np.bincount(beats.row, minlength=len(self._open))[rows]
        if not count.any():
            return
        # Where every lead has just moved more than a heart moves it.
        with np.errstate(invalid="ignore"):
            moves = np.maximum.reduce(self._highest[rows], axis=1) - np.minimum.reduce(self._lowest[rows], axis=1)
        possible = (self._seen[rows] > 0) & ((moves <= HEART_MV[1]) & self._watched[rows]).any(axis=1)
        self._beats[rows] += np.where(possible, count, 0)
        for row in rows[self._beats[rows] >= _PROVEN].tolist():
            self._open[row], self._streams[row] = False, None

    def _look(
        self, rows: NDArray[np.intp], frames: NDArray[np.int64], raw: NDArray[np.float32], watched: NDArray[np.bool_]
    ) -> None:
        """Keep what the frames hold; after a gap, what came before is forgotten."""
        self._forget(rows[(self._seen[rows] > 0) & (frames != self._number[rows] + 1)])
        self._number[rows], self._watched[rows] = frames, watched
        self._seen[rows] = np.minimum(self._seen[rows] + 1, _LOOK)
        self._highest[rows, frames % _LOOK] = np.maximum.reduce(raw, axis=2)  # NaN where a sample is missing
        self._lowest[rows, frames % _LOOK] = np.minimum.reduce(raw, axis=2)
        leads = np.flatnonzero(~np.isnan(raw).all(axis=(0, 2)))
        samples = raw[:, leads]
        for i, (row, number) in enumerate(zip(rows.tolist(), frames.tolist(), strict=True)):
            self._stream(row).seen.append(_Frame(number, samples[i], leads, watched[i]))

    def _forget(self, rows: NDArray[np.intp]) -> None:
        """Forget the frames of ``rows``."""
        self._seen[rows], self._highest[rows], self._lowest[rows] = 0, -np.inf, np.inf
        for row in rows.tolist():
            stream = self._stream(row)
            stream.seen.clear()
            stream.closer = None

    def _stream(self, row: int) -> _Stream:
        stream = self._streams[row]
        assert stream is not None, "what is open has a stream"
        return stream

    def _suspects(self, rows: NDArray[np.intp], fs: float) -> NDArray[np.intp]:
        """Return the places in ``rows`` that are looked at a second time, from now on those that no heart moves so."""
        looking = np.array([self._stream(row).closer is not None for row in rows.tolist()])
        full = np.flatnonzero(~looking & (self._seen[rows] == _LOOK))
        if len(full):
            lead, moves_mv = self._moves_mv(rows[full])
            for i in np.flatnonzero(~np.isnan(moves_mv)).tolist():
                stream = self._stream(int(rows[full[i]]))
                if len(np.unique(np.concatenate([frame.raw[lead[i]] for frame in stream.seen]))) >= _STEPS:
                    stream.moves_mv, stream.begun_s = float(moves_mv[i]), stream.seen[-1].number * FRAME_S
                    stream.closer = _Closer(fs, stream.seen, stream.moves_mv, self._config)
                    looking[full[i]] = True
        return np.flatnonzero(looking)

    def _moves_mv(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Return per row by how much the signal moves within a second, and on which lead.

        Of the leads' medians over the seconds the one nearest to a heart's; NaN if a heart may move it so, or nothing moves.
        """
        order = (self._number[rows, None] + 1 + np.arange(_LOOK)) % _LOOK
        shape = (len(rows), -1, _SECOND, len(LEADS))
        highest = np.maximum.reduce(self._highest[rows[:, None], order].reshape(shape), axis=2)
        lowest = np.minimum.reduce(self._lowest[rows[:, None], order].reshape(shape), axis=2)
        height = np.median(highest - lowest, axis=1)
        moving = self._watched[rows] & np.isfinite(height) & (height > 0)
        least, most = HEART_MV
        away = np.abs(np.log(np.where(moving, height, np.float32(1.0))) - np.log(least * most) / 2)
        lead = np.where(moving, away, np.inf).argmin(axis=1)
        nearest = height[np.arange(len(rows)), lead]
        none = ~moving.any(axis=1) | ((least <= nearest) & (nearest <= most))
        return lead, np.where(none, np.float32(np.nan), nearest)

    def _see_closer(self, row: int) -> float:
        """Look a second time at a bed's latest frame; return by how much it moves, mV, if a heart was seen of late."""
        stream = self._stream(row)
        assert stream.closer is not None
        frame = stream.seen[-1]
        now_s = frame.number * FRAME_S
        if stream.closer.number != frame.number:
            stream.closer.see(frame)
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
        self.beating, self.number = False, frames[-1].number
        conditioned = [self._condition(frame) for frame in frames]
        seconds = np.stack(conditioned[_SECOND:])[:, 0, frames[-1].watched].reshape(2, _SECOND, -1, FRAME)
        height = (np.maximum.reduce(seconds, axis=(1, 3)) - np.minimum.reduce(seconds, axis=(1, 3))).mean(axis=0)
        largest = float(np.max(height, initial=0.0, where=np.isfinite(height)))
        self._rest = np.float32(_QRS_MV / largest if largest > 0 else 1.0)
        for frame, y in zip(frames, conditioned, strict=True):
            self._judge(frame, y)

    def see(self, frame: _Frame) -> None:
        """Take the next frame."""
        self.number = frame.number
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
