"""The signal path of all beds, frame by frame: ring, conditioning, quality, beats, fibrillation. Samples in, findings out.

What needs no network is here, batched over the beds of one device rate. A bed's findings depend on its own samples only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.beats import BeatClassifier, BeatFrame, HeartRate, QrsDetector, refine
from ecgnat_stream.condition import Conditioner, Spikes
from ecgnat_stream.config import Config
from ecgnat_stream.fibrillation import FibrillationDetector
from ecgnat_stream.quality import STATES, QualityEstimator, QualityFrame
from ecgnat_stream.ring import RingBuffer
from ecgnat_stream.signal import FRAME_S, FS, LEADS
from ecgnat_stream.ward.scale import ScaleWatch

__all__ = ["Findings", "FrameResult", "SignalPath", "Stages"]

_CONTACT = np.array([state not in ("off", "flat", "saturated", "clipped", "missing") for state in STATES])
"""Whether a lead in each state of quality shows how the heart moves, however badly."""

_CAPTURE = round(0.15 * FS), round(0.01 * FS)
"""A beat is paced when a spike lies so many samples before its R peak, or so few behind: a paced QRS complex is wide."""

_SPIKES_KEPT = 4
"""Pacing spikes remembered per bed: more than fall between an R peak and the time when its beat is decided on."""

_PLACE_S = 0.03
"""Raw signal on both sides of an R peak that is needed to place it."""

_FIRST_PLACES = 4
"""Beds that a rate has room for at first."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What one frame of ``R`` beds shows.

    Parameters
    ----------
    quality
        Per lead and bed.
    beats, labels, paced
        QRS complexes, the AAMI EC57 class of each, and whether it follows a pacing spike.
    heart_rate_bpm
        ``(R,)``, NaN for none.
    fibrillation
        ``(R,)`` score 0..1, NaN for none.
    """

    quality: QualityFrame
    beats: BeatFrame
    labels: NDArray[np.str_]
    paced: NDArray[np.bool_]
    heart_rate_bpm: NDArray[np.float64]
    fibrillation: NDArray[np.float32]


class Stages:
    """The signal stages of all rows.

    Parameters
    ----------
    rows
        Number of rows (beds).
    """

    def __init__(self, rows: int, config: Config) -> None:
        self._quality = QualityEstimator(rows, config.quality)
        self._detector = QrsDetector(rows, config.beats)
        self._classifier = BeatClassifier(rows)
        self._rate = HeartRate(rows)
        self._fibrillation = FibrillationDetector(rows, config.fibrillation)
        self._spikes = np.full((rows, _SPIKES_KEPT), -np.inf)

    def reset(self, rows: NDArray[np.intp]) -> None:
        """Forget everything about ``rows``: their signal begins afresh."""
        for stage in (self._quality, self._detector, self._classifier, self._rate, self._fibrillation):
            stage.reset(rows)
        self._spikes[rows] = -np.inf

    def process(
        self,
        rows: NDArray[np.intp],
        frames: NDArray[np.int64],
        fs: float,
        raw: NDArray[np.float32],
        y: NDArray[np.float32],
        off: NDArray[np.bool_],
        delivered: NDArray[np.bool_],
        spikes: Spikes,
    ) -> Findings:
        """Take one frame of each of ``rows``.

        Parameters
        ----------
        rows, frames
            ``(R,)`` different rows, and the frame number of each, one more than in the call before.
        fs, raw
            Device rate in Hz, and ``(R, 12, n)`` the device samples behind the frame, mV, NaN where missing.
        y
            ``(R, 12, FRAME)`` the conditioned frame, mV.
        off, delivered
            ``(R, 12)`` leads that the device calls disconnected, and those that it delivers.
        spikes
            The pacing spikes that conditioning took out of these frames.
        """
        quality = self._quality.process(rows, raw, y, off, fs, delivered)
        # A derived lead adds nothing to those it is derived from, and where they are equal it is noise alone.
        sqi = quality.sqi * delivered
        beats = self._detector.process(rows, frames, y, sqi)
        paced = self._paced(spikes, beats)
        return Findings(
            quality=quality,
            beats=beats,
            labels=self._classifier.process(rows, frames, y, sqi, beats, paced),
            paced=paced,
            heart_rate_bpm=self._rate.process(rows, frames, beats, quality.usable),
            fibrillation=self._fibrillation.process(rows, frames, y, _CONTACT[quality.state] & delivered).score,
        )

    def _paced(self, spikes: Spikes, beats: BeatFrame) -> NDArray[np.bool_]:
        """Take note of the spikes; return ``(B,)`` which beats follow one."""
        for row, at in zip(spikes.row.tolist(), spikes.at.tolist(), strict=True):
            self._spikes[row] = [*self._spikes[row, 1:], at]
        if not len(beats.row):
            return np.zeros(0, bool)
        since = beats.at[:, None] - self._spikes[beats.row]
        followed: NDArray[np.bool_] = ((since <= _CAPTURE[0]) & (since >= -_CAPTURE[1])).any(axis=1)
        return followed


@dataclass(frozen=True, slots=True)
class FrameResult:
    """One frame of ``R`` beds of one rate, conditioned and looked at.

    Parameters
    ----------
    rows, frames
        ``(R,)`` beds, and the number of the frame of each.
    fs
        Device rate in Hz.
    y
        ``(R, 12, FRAME)`` the conditioned frames, mV.
    last
        ``(R,)`` the last device sample of each frame.
    found
        What the stages found.
    places
        ``(B,)`` where the beats found lie, in device samples.
    wrong_mv
        ``(R,)`` by how much a signal moves within a second that is a heart's in wrong units, mV; NaN where it is not. It is not
        usable.
    """

    rows: NDArray[np.intp]
    frames: NDArray[np.int64]
    fs: float
    y: NDArray[np.float32]
    last: NDArray[np.int64]
    found: Findings
    places: NDArray[np.float64]
    wrong_mv: NDArray[np.float32]


class _RateGroup:
    """The beds of one device rate: they share a ring and a conditioner, which have places for these beds alone."""

    def __init__(self, fs: float, beds: int, config: Config) -> None:
        self.fs = fs
        self._beds = beds
        self._place = np.full(beds, -1)
        self._row = np.full(min(_FIRST_PLACES, beds), -1)
        self.ring = RingBuffer(len(self._row), int(np.ceil(config.ring_s * fs)))
        self.conditioner = Conditioner(fs, len(self._row), config.condition)

    @property
    def rows(self) -> NDArray[np.intp]:
        """The beds of this group, ascending."""
        return np.flatnonzero(self._place >= 0)

    def places(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return where in ring and conditioner these beds lie."""
        return self._place[rows]

    def place(self, row: int) -> int:
        """Return where in ring and conditioner a bed lies."""
        return int(self._place[row])

    def join(self, row: int) -> None:
        """Give a bed a place; there are half as many more when all are taken."""
        if self._place[row] >= 0:
            return
        free = np.flatnonzero(self._row < 0)
        if not len(free):
            number = min(len(self._row) * 3 // 2, self._beds)
            self.ring.grow(number)
            self.conditioner.grow(number)
            free = np.arange(len(self._row), number)
            self._row = np.concatenate([self._row, np.full(len(free), -1)])
        self._place[row], self._row[free[0]] = free[0], row

    def leave(self, row: int) -> None:
        """Take a bed's place back."""
        if self._place[row] >= 0:
            self._row[self._place[row]] = -1
            self._place[row] = -1

    def clear(self, row: int, start: int, slots: NDArray[np.intp]) -> None:
        """Forget a bed's signal; its next block may begin at ``start`` and holds the leads in ``slots``."""
        self.ring.clear(self.place(row), start, slots)
        self.conditioner.reset(np.array([self.place(row)]))

    def condition(
        self, rows: NDArray[np.intp], frames: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], Spikes]:
        """Return the device samples behind one frame of each of ``rows``, the conditioned frames, and the spikes taken out."""
        places = self._place[rows]
        start, length = self.conditioner.needed(frames)
        raw = self.ring.read(places, start, length)
        y = self.conditioner.process(places, frames, raw)
        spikes = self.conditioner.spikes
        return raw, y, replace(spikes, row=self._row[spikes.row])


class SignalPath:
    """From raw samples to findings, for all beds: rings and conditioners by device rate, then the signal stages.

    Parameters
    ----------
    rows
        Number of beds.
    off
        Gives ``(R, 12)`` which leads of some beds their devices call disconnected, each at a sample; asked in order of samples.
    """

    def __init__(
        self, rows: int, config: Config, off: Callable[[NDArray[np.intp], NDArray[np.int64]], NDArray[np.bool_]]
    ) -> None:
        self._config, self._off = config, off
        self._frame = np.zeros(rows, np.int64)
        self._held = np.zeros(rows, bool)
        self._ending = np.zeros(rows, bool)
        self._needed = np.zeros(rows)
        self._delivered = np.zeros((rows, len(LEADS)), bool)
        self._groups: dict[float, _RateGroup] = {}
        self._group_of: list[_RateGroup | None] = [None] * rows
        self._place_of = [-1] * rows
        self._slots: list[NDArray[np.intp]] = [np.empty(0, np.intp)] * rows
        self._stages = Stages(rows, config)
        self._scale = ScaleWatch(rows, config)

    def begin(self, row: int, fs: float, slots: NDArray[np.intp], start: int) -> None:
        """Begin a bed's stream at sample ``start``; ``slots`` are the leads that it delivers."""
        self._held[row] = False
        self._scale.begin(row)
        self._delivered[row] = False
        self._delivered[row, slots] = True
        self._slots[row] = slots
        before = self._group_of[row]
        if before is None or before.fs != fs:
            if before is not None:
                before.leave(row)
                if not len(before.rows):
                    del self._groups[before.fs]
            if fs not in self._groups:
                self._groups[fs] = _RateGroup(fs, len(self._frame), self._config)
            self._groups[fs].join(row)
            self._group_of[row], self._place_of[row] = self._groups[fs], self._groups[fs].place(row)
        self.jump(row, start)

    def jump(self, row: int, start: int) -> None:
        """Leave out what will never come, and begin afresh at the first whole frame from ``start``."""
        group = self._group(row)
        group.clear(row, start, self._slots[row])
        self._frame[row] = int(np.ceil(start / group.fs / FRAME_S))
        self._ending[row] = False
        self._await(group, np.array([row]))
        self._stages.reset(np.array([row]))

    def _group(self, row: int) -> _RateGroup:
        group = self._group_of[row]
        assert group is not None, "a bed has a rate only after its stream has begun"
        return group

    def capacity(self, row: int) -> int:
        """Return how many device samples of a bed are held."""
        return self._group(row).ring.capacity

    def append(self, row: int, start: int, samples: NDArray[np.float32]) -> int:
        """Take ``(L, T)`` mV of the leads that :meth:`begin` was told of; return how many samples were overwritten unread."""
        group = self._group(row)
        return group.ring.append(self._place_of[row], start, samples)

    def delivered(self, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return ``(R, 12)`` which leads each bed's device delivers."""
        return self._delivered[rows]

    def behind(self, row: int) -> float:
        """Return how many device samples of a bed wait to be worked on."""
        group = self._group(row)
        newest = group.ring.next[self._place_of[row]]
        return float(newest) - int(self._frame[row]) * FRAME_S * group.fs

    def done_s(self, row: int) -> float:
        """Return up to where a bed has been worked on, in s of its stream."""
        return float(self._frame[row] * FRAME_S)

    def hold(self, row: int, held: bool) -> None:
        """Work no further on a bed for now, or again."""
        self._held[row] = held

    def end(self, row: int) -> None:
        """Note that nothing more will come from a bed, so that its last frame is not waited for."""
        self._ending[row] = True
        if (group := self._group_of[row]) is not None:
            self._await(group, np.array([row]))

    def ready(self) -> list[NDArray[np.intp]]:
        """Return the beds that have a frame ready, together those of one rate."""
        return [rows for group in self._groups.values() if len(rows := self._ready_of(group, group.rows))]

    def is_ready(self, row: int) -> bool:
        """Return whether a bed has a frame ready."""
        group = self._group_of[row]
        return group is not None and not self._held[row] and bool(group.ring.next[self._place_of[row]] >= self._needed[row])

    def _ready_of(self, group: _RateGroup, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        return rows[~self._held[rows] & (group.ring.next[group.places(rows)] >= self._needed[rows])]

    def _await(self, group: _RateGroup, rows: NDArray[np.intp]) -> None:
        """Note which samples the next frames need; at the end of a stream those behind it are not waited for."""
        frames = self._frame[rows]
        start, length = group.conditioner.needed(frames)
        own_stop = np.ceil((frames + 1) * (FRAME_S * group.fs) - 1e-6)
        self._needed[rows] = np.where(self._ending[rows], own_stop, start + length)

    def process(self, rows: NDArray[np.intp]) -> FrameResult:
        """Work on one frame of each of ``rows``, which are ready and of one rate."""
        group, frames = self._group(int(rows[0])), self._frame[rows]
        raw, y, spikes = group.condition(rows, frames)
        last = np.ceil((frames + 1) * (FRAME_S * group.fs) - 1e-6).astype(np.int64) - 1
        off = self._off(rows, last)
        found = self._stages.process(rows, frames, group.fs, raw, y, off, self._delivered[rows], spikes)
        wrong_mv = self._scale.process(rows, frames, group.fs, raw, self._delivered[rows] & ~off, found.beats)
        self._frame[rows] += 1
        self._await(group, rows)
        return FrameResult(rows, frames, group.fs, y, last, _without(found, wrong_mv), _places(group, found.beats), wrong_mv)


def _without(found: Findings, wrong_mv: NDArray[np.float32]) -> Findings:
    """Return the findings without what was measured of a signal in wrong units."""
    wrong = ~np.isnan(wrong_mv)
    if not wrong.any():
        return found
    return replace(
        found,
        quality=replace(found.quality, usable=found.quality.usable & ~wrong),
        heart_rate_bpm=np.where(wrong, np.nan, found.heart_rate_bpm),
        fibrillation=np.where(wrong, np.float32(np.nan), found.fibrillation),
    )


def _places(group: _RateGroup, beats: BeatFrame) -> NDArray[np.float64]:
    """Return ``(B,)`` the device samples at which the R peaks of beats lie, looked for in the raw signal."""
    if not len(beats.row):
        return np.zeros(0)
    if not len(beats.row):
        return np.zeros(0)
    reach = int(np.ceil(_PLACE_S * group.fs))
    expected = beats.at / FS * group.fs
    first = np.round(expected).astype(np.int64) - reach
    raw = group.ring.read(group.places(beats.row), first, 2 * reach + 1)[np.arange(len(beats.row)), beats.lead]
    placed: NDArray[np.float64] = first + refine(raw, group.fs, expected - first)
    return placed
