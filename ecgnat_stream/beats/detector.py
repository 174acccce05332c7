"""QRS complexes and RR intervals, streaming, for all beds at once.

In: conditioned frames ``(R, 12, FRAME)`` with a quality index per lead. Out: :class:`BeatFrame`, one entry per QRS complex. Up to
three leads per bed are turned into one envelope (a complex wavelet, so polarity does not matter); its peaks are judged in the
order of time, by :class:`~ecgnat_stream.beats.judge.Judge`. Nothing is decided from absent or unusable leads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from ecgnat_stream.beats.judge import FLOOR, NEVER, POINTS, Judge, Peaks
from ecgnat_stream.compiled import kernels_wanted
from ecgnat_stream.settings import Settings, Within
from ecgnat_stream.signal import FRAME, FS, LEADS

__all__ = ["DECISION_S", "NEVER", "Accepted", "BeatFrame", "BeatsConfig", "QrsDetector", "collect", "rank", "refine"]

_SLOTS = 3
"""Leads used per bed at a time, so that the cost does not grow with the leads delivered."""

_REACH = 15
"""Half length of the wavelet in samples (75 ms)."""

_APART = 30
"""A peak is the largest value within this many samples (150 ms) on both sides."""

_DECISION = _REACH + _APART
DECISION_S = _DECISION / FS
"""Signal needed behind a QRS complex before it is decided on, s; missed beats found by search-back come later."""

_KEPT = 4
"""Frames of signal kept per lead."""

_PAST = 160
"""Samples of envelope (0.8 s) before a peak that say how busy the signal is there."""

_OWN = 20
"""Samples about a peak (100 ms on both sides) that are its own, not its surroundings."""

_MARGIN = _PAST + _APART

_BEFORE, _AFTER = 18, 26
"""Samples before and after the R peak within which its amplitude is taken (90 and 130 ms)."""

_SPREAD = np.arange(-12, 13, 3)
"""Samples about an envelope's peak (60 ms on both sides) where its shape is taken."""

_FIND = 12
"""The R peak lies within this many samples (60 ms) of the envelope's peak."""

_FIRST_SHARE = 0.6
"""The R peak is the first extreme of at least this share of the largest one."""

_SEARCH_BACK = 1.66
"""A beat is missed after this many mean RR intervals (Pan and Tompkins 1985)."""

_SKIPPED = 72
"""Samples after the last beat (360 ms) before which search-back looks for none."""

_SEARCH_BACK_ODDS = 1.5
"""How far below the threshold a peak may be that search-back takes."""

_REFINE_S = 0.006
"""Half length of the parabola that places an R peak among device samples."""

_ORDER = np.array([LEADS.index(lead) for lead in ("II", "V5", "V2", "I", "V1", "V3", "V4", "V6", "aVF", "III", "aVR", "aVL")])
"""Leads in order of preference at equal quality."""

_CENTRE_HZ = 16.0
_SIGMA_S = 0.02
"""The wavelet: QRS complexes stand out at 5 to 20 Hz (Thakor 1984), T waves below; 16 Hz and 20 ms by the training records."""


_SMALL_SHARE = 0.3
"""A lead does not place beats if they are smaller in it than this share of their size in another."""


class BeatsConfig(Settings, frozen=True, kw_only=True):
    """What counts as a QRS complex.

    Parameters
    ----------
    floor_mv
        Smallest QRS complex, mV peak to peak; IEC 60601-2-27 wants none reported below 0.15 mV.
    refractory_s
        Shortest time between two beats: that of 300 bpm, less the 5 ms by which places differ.
    threshold
        Log-odds from which a peak is a beat. Lower: fewer beats missed, more false ones in noise.
    min_sqi
        Leads below this quality index are not used.
    """

    section: ClassVar[str] = "beats"

    floor_mv: Annotated[
        float, Within(0.05, 0.25, "below it noise counts as beats and hides an asystole, above it small beats are missed")
    ] = 0.15
    refractory_s: Annotated[
        float, Within(0.15, 0.25, "below it a wide beat counts twice, above it a rate of 240 bpm is halved")
    ] = 0.195
    threshold: Annotated[
        float, Within(-2, 1, "below it noise counts as beats and hides an asystole, above it beats are missed")
    ] = -0.5
    min_sqi: Annotated[float, Within(0, 0.3, "above it leads that show the heart are left out")] = 0.05


@dataclass(frozen=True, slots=True)
class BeatFrame:
    """The beats found in one call, in the order of row and time.

    Parameters
    ----------
    row
        Bed.
    at
        R peak, absolute, in samples at ``signal.FS``; a fraction of one is meant.
    lead
        Index in ``signal.LEADS`` of the lead that decided the position.
    amplitude
        Peak-to-peak amplitude of the complex on that lead, mV.
    rr_ms
        Interval to the bed's beat before, NaN for none.
    """

    row: NDArray[np.intp]
    at: NDArray[np.float64]
    lead: NDArray[np.intp]
    amplitude: NDArray[np.float32]
    rr_ms: NDArray[np.float64]


def _wavelet() -> NDArray[np.float32]:
    """Return ``(2, FRAME + 2 _REACH, FRAME)`` weights of the even and odd wavelet, scaled to 1 for a 1 mV, 80 ms QRS complex."""
    t = np.arange(-_REACH, _REACH + 1) / FS
    bell = np.exp(-0.5 * (t / _SIGMA_S) ** 2)
    even = np.cos(2 * np.pi * _CENTRE_HZ * t) * bell
    even -= bell * (even.sum() / bell.sum())
    odd = np.sin(2 * np.pi * _CENTRE_HZ * t) * bell
    triangle = np.clip(1.0 - np.abs(t) / 0.04, 0.0, 1.0)
    scale = 1.0 / (even @ triangle)
    kernel = np.zeros((2, FRAME + 2 * _REACH, FRAME), np.float32)
    for i in range(FRAME):
        kernel[0, i : i + len(t), i] = even * scale
        kernel[1, i : i + len(t), i] = odd * scale
    return kernel


def _look(wavelet: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``(2 _REACH + 25, POINTS)`` weights of both wavelets at the places of ``_SPREAD``."""
    kernel = wavelet[:, : 2 * _REACH + 1, 0]
    places = _SPREAD - _SPREAD[0]
    look = np.zeros((kernel.shape[1] + places[-1], 2, len(places)), np.float32)
    for i, place in enumerate(places):
        look[place : place + kernel.shape[1], :, i] = kernel.T
    return look.reshape(len(look), POINTS)


Accepted = tuple[Peaks, NDArray[np.float64]]
"""Peaks taken as beats, their RR in samples."""


class QrsDetector:
    """Streaming QRS detector for all rows.

    Parameters
    ----------
    rows
        Number of rows (beds).
    judge
        Who says what is a beat.
    """

    def __init__(self, rows: int, config: BeatsConfig | None = None, judge: Judge | None = None) -> None:
        self.config = config or BeatsConfig()
        self._wavelet = _wavelet()
        self._look = _look(self._wavelet)
        self._judge = judge or Judge(rows, self.config.floor_mv)
        self._signal = np.zeros((rows, _KEPT, len(LEADS), FRAME), np.float32)
        self._envelope = np.zeros((rows, _MARGIN), np.float32)
        self._slots = np.full((rows, _SLOTS), -1, np.intp)
        self._missed = Peaks(
            row=np.arange(rows),
            time=np.zeros(rows, np.int64),
            height=np.zeros(rows),
            at=np.zeros(rows),
            lead=np.zeros(rows, np.intp),
            amplitude=np.zeros(rows, np.float32),
            slots=np.zeros((rows, _SLOTS), np.intp),
            weights=np.zeros((rows, _SLOTS), np.float32),
            shape=np.zeros((rows, _SLOTS, POINTS), np.float32),
            busy=np.zeros(rows),
            odds=np.full(rows, -np.inf),
        )
        self._compiled = _Compiled(self) if judge is None and kernels_wanted() else None
        self.reset(np.arange(rows))

    def reset(self, rows: NDArray[np.intp]) -> None:
        """Forget everything about ``rows``."""
        self._judge.reset(rows)
        self._signal[rows] = 0.0
        self._envelope[rows] = 0.0
        self._slots[rows] = -1
        self._missed.odds[rows] = -np.inf

    def process(
        self, rows: NDArray[np.intp], frames: NDArray[np.int64], y: NDArray[np.float32], sqi: NDArray[np.floating]
    ) -> BeatFrame:
        """Take one frame of each of ``rows``; return the beats that are certain by now.

        Parameters
        ----------
        rows, frames
            ``(R,)`` different rows, and the frame number of each, one more than in the call before.
        y
            ``(R, 12, FRAME)`` mV at ``signal.FS``, NaN where missing.
        sqi
            ``(R, 12)`` quality index 0..1 per lead; 0 for what is missing.
        """
        if self._compiled is not None:
            return self._compiled.beats(rows, frames, y, sqi)
        self._signal[rows, frames % _KEPT] = _fill(y)
        slots, weights = self._choose(rows, sqi)
        recent = self._recent(rows, frames, slots)
        envelope = np.concatenate([self._envelope[rows], self._measure(recent, weights)], axis=1)
        self._envelope[rows] = envelope[:, FRAME:]
        found = self._peaks(rows, frames, slots, weights, recent, envelope)
        accepted: list[Accepted] = []
        order = rank(found.row)
        for turn in range(int(order.max(initial=-1)) + 1):
            peaks = found.pick(order == turn)
            self._search_back(peaks.row, peaks.time, accepted)
            self._decide(peaks, accepted)
        decided = (frames + 1) * FRAME - _DECISION
        self._search_back(rows, decided, accepted)
        self._judge.relax(rows, decided)
        return collect(accepted)

    def _choose(self, rows: NDArray[np.intp], sqi: NDArray[np.floating]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Choose up to three leads per row, and their weights; a lead in use stays until another is clearly better."""
        used = self._slots[rows]
        score = np.where(sqi >= self.config.min_sqi, sqi, 0.0)
        liking = score.copy()
        at, slot = np.nonzero(used >= 0)
        liking[at, used[at, slot]] *= 1.5
        order = np.argsort(-liking[:, _ORDER], axis=1, kind="stable")[:, :_SLOTS]
        slots = _ORDER[order]
        self._slots[rows] = slots
        weights = np.take_along_axis(score, slots, axis=1)
        total = weights.sum(axis=1, keepdims=True)
        return slots, (weights / np.where(total > 0, total, 1.0)).astype(np.float32)

    def _recent(self, rows: NDArray[np.intp], frames: NDArray[np.int64], slots: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the last four frames of the chosen leads, ``(R, _SLOTS, _KEPT FRAME)``."""
        turn = (frames[:, None] + 1 + np.arange(_KEPT)) % _KEPT
        recent: NDArray[np.float32] = self._signal[rows[:, None, None], turn[:, None, :], slots[:, :, None]]
        return recent.reshape(len(rows), _SLOTS, _KEPT * FRAME)

    def _measure(self, recent: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the envelope ``(R, FRAME)``, mV of a typical QRS complex, up to ``_REACH`` samples before the frame's end."""
        part = np.ascontiguousarray(recent[:, :, -(FRAME + 2 * _REACH) :])
        energy = np.square(part @ self._wavelet[0]) + np.square(part @ self._wavelet[1])
        envelope: NDArray[np.float32] = np.sqrt((energy * weights[:, :, None]).sum(axis=1))
        return envelope

    def _peaks(
        self,
        rows: NDArray[np.intp],
        frames: NDArray[np.int64],
        slots: NDArray[np.intp],
        weights: NDArray[np.float32],
        recent: NDArray[np.float32],
        envelope: NDArray[np.float32],
    ) -> Peaks:
        """Find the envelope's peaks, at most two per row, and look at the chosen leads there."""
        centre = envelope[:, _PAST : _PAST + FRAME]
        highest = maximum_filter1d(envelope[:, _PAST - _APART :], 2 * _APART + 1, axis=1)[:, _APART : _APART + FRAME]
        which, column = np.nonzero((centre == highest) & (centre > FLOOR * self.config.floor_mv))
        time = frames[which] * FRAME - _DECISION + column
        at = (_KEPT - 1) * FRAME - _DECISION + column
        each = np.arange(len(which))
        slot = _telling(self._judge.usual_size(rows[which], slots[which]), weights[which])
        wave = recent[which, slot]
        near = wave[each[:, None], at[:, None] + np.arange(-_FIND, _FIND + 1)]
        move = _first_extreme(near) - _FIND
        beat = wave[each[:, None], (at + move)[:, None] + np.arange(-_BEFORE, _AFTER)]
        amplitude = beat.max(axis=1) - beat.min(axis=1)
        around = at[:, None] + np.arange(_SPREAD[0] - _REACH, _SPREAD[-1] + _REACH + 1)
        part = recent[which[:, None, None], np.arange(_SLOTS)[:, None], around[:, None, :]]
        ring = np.concatenate([np.arange(-_PAST, -_OWN), np.arange(_OWN + 1, _APART + 1)])
        found = Peaks(
            row=rows[which],
            time=time,
            height=centre[which, column].astype(np.float64),
            at=time + move + _vertex(beat[:, _BEFORE - 1 : _BEFORE + 2]),
            lead=slots[which, slot],
            amplitude=amplitude,
            slots=slots[which],
            weights=weights[which],
            shape=np.ascontiguousarray(part) @ self._look,
            busy=envelope[which[:, None], (_PAST + column)[:, None] + ring].mean(axis=1, dtype=np.float64),
            odds=np.zeros(len(which)),
        )
        return found.pick(amplitude >= self.config.floor_mv)

    def _decide(self, peaks: Peaks, accepted: list[Accepted]) -> None:
        """Decide on peaks of different rows: beat, or noise that search-back may come back to."""
        peaks = peaks.pick(peaks.at - self._judge.last_at[peaks.row] >= self.config.refractory_s * FS)
        peaks = peaks._replace(odds=self._judge.odds(peaks))
        beat = peaks.odds > self.config.threshold
        rest = peaks.pick(~beat)
        self._judge.reject(rest)
        late = rest.at - self._judge.last_at[rest.row] >= _SKIPPED
        self._missed.keep(rest.pick(late & (rest.odds > self._missed.odds[rest.row])))
        self._accept(peaks.pick(beat), accepted)

    def _search_back(self, rows: NDArray[np.intp], now: NDArray[np.int64], accepted: list[Accepted]) -> None:
        """Take the likeliest peak since the last beat after all where a beat is overdue."""
        overdue = now - self._judge.last[rows] > _SEARCH_BACK * self._judge.rr[rows]
        rows = rows[overdue & (self._missed.odds[rows] > self.config.threshold - _SEARCH_BACK_ODDS)]
        self._accept(self._missed.pick(rows), accepted)

    def _accept(self, beats: Peaks, accepted: list[Accepted]) -> None:
        """Take peaks of different rows as beats."""
        if beats.row.size:
            accepted.append((beats, self._judge.accept(beats)))
            self._missed.odds[beats.row] = -np.inf


class _Compiled:
    """The same by :mod:`ecgnat_stream.beats.kernels.peaks`, on the state of a detector."""

    def __init__(self, detector: QrsDetector) -> None:
        from ecgnat_stream.beats.kernels import peaks

        self._kernel: Any = peaks.beats
        most = peaks.MOST * len(detector._signal)  # memory that is never touched is never taken
        self._row, self._at, self._lead = np.empty(most, np.int64), np.empty(most), np.empty(most, np.int64)
        self._amplitude, self._rr_ms = np.empty(most, np.float32), np.empty(most)
        config, judge, missed = detector.config, detector._judge, detector._missed
        wavelet = np.ascontiguousarray(detector._wavelet[:, : 2 * _REACH + 1, 0])
        settings = np.array(
            [config.floor_mv, config.refractory_s, config.threshold, config.min_sqi, FLOOR * config.floor_mv], np.float64
        )
        state = detector._signal, detector._envelope, detector._slots
        self._given = (wavelet, judge.by, settings, *state, *missed[1:], *judge.state)

    def beats(
        self, rows: NDArray[np.intp], frames: NDArray[np.int64], y: NDArray[np.float32], sqi: NDArray[np.floating]
    ) -> BeatFrame:
        number = self._kernel(
            np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(frames, np.int64),
            np.ascontiguousarray(y, np.float32), np.ascontiguousarray(sqi, np.float32),
            *self._given, self._row, self._at, self._lead, self._amplitude, self._rr_ms,
        )  # fmt: skip
        if not number:
            return _NO_BEATS
        row = self._row[:number]
        of = np.argsort(row, kind="stable")
        return BeatFrame(row[of], self._at[of], self._lead[of], self._amplitude[of], self._rr_ms[of])


def _telling(usual: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return which chosen lead ``(C,)`` places a peak: the first one, unless beats are usually small in it beside another."""
    size = np.where(weights > 0.0, usual, np.float32(0.0))
    largest = size.argmax(axis=1)
    small = size[:, 0] < _SMALL_SHARE * size[np.arange(len(size)), largest]
    slot: NDArray[np.intp] = np.where(small, largest, 0)
    return slot


def _first_extreme(near: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return where ``(C, 2 _FIND + 1)`` has its first extreme value of some size: in a wide complex the R peak, not the slur."""
    size = np.abs(near - near[:, :1] - np.linspace(0.0, 1.0, near.shape[1], dtype=np.float32) * (near[:, -1:] - near[:, :1]))
    turning = np.zeros(size.shape, bool)
    turning[:, 1:-1] = (size[:, 1:-1] >= size[:, :-2]) & (size[:, 1:-1] >= size[:, 2:])
    large = size >= _FIRST_SHARE * size.max(axis=1, keepdims=True, initial=0.0)
    first = (turning & large).argmax(axis=1)
    found: NDArray[np.intp] = np.where((turning & large).any(axis=1), first, _FIND)
    return found


def _vertex(three: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return where, -0.5 to 0.5, the parabola through three values ``(C, 3)`` has its extreme; 0 where that is not in between."""
    left, middle, right = three.astype(np.float64).T
    bend = left - 2.0 * middle + right
    vertex = 0.5 * (left - right) / np.where(bend == 0.0, 1.0, bend)
    return np.where((bend == 0.0) | (np.abs(vertex) > 0.5), 0.0, vertex)


def refine(raw: NDArray[np.float32], fs: float, expected: NDArray[np.float64], reach_s: float = 0.01) -> NDArray[np.float64]:
    """Place R peaks among device samples: the extreme near where each is expected, between samples by a parabola.

    Parameters
    ----------
    raw
        ``(B, n)`` mV at ``fs``: of each beat the lead that decided it, as the device delivered it, at least ``reach_s`` and
        10 ms on both sides of the beat.
    expected
        ``(B,)`` R peak, index in ``raw``.
    reach_s
        How far from there the R peak may be, s.

    Returns
    -------
    ``(B,)`` R peak, index in ``raw``; ``expected`` where samples are missing or too few.
    """
    half = max(1, round(_REFINE_S * fs))
    reach = max(1, round(reach_s * fs))
    if kernels_wanted():
        from ecgnat_stream.beats.kernels import peaks

        placed = np.empty(len(expected))
        peaks.places(np.ascontiguousarray(raw, np.float32), np.ascontiguousarray(expected, np.float64), reach, half, placed)
        return placed
    centre = np.round(expected).astype(np.int64)
    span = np.arange(-reach - half, reach + half + 1)
    inside = (centre + span[0] >= 0) & (centre + span[-1] < raw.shape[1])
    index = np.clip(centre[:, None] + span, 0, raw.shape[1] - 1)
    part = np.take_along_axis(raw, index, axis=1).astype(np.float64)
    inside &= ~np.isnan(part).any(axis=1)
    part = np.where(inside[:, None], part, 0.0)
    t = np.arange(-half, half + 1.0)
    windows = np.lib.stride_tricks.sliding_window_view(part, len(t), axis=1)
    smooth = windows.mean(axis=2)
    up = smooth[:, reach] >= 0.5 * (smooth[:, 0] + smooth[:, -1])
    best = np.where(up[:, None], smooth, -smooth).argmax(axis=1)
    y = windows[np.arange(len(best)), best]
    square = np.square(t) - np.square(t).mean()
    bend = y @ square / (square @ square)
    slope = y @ t / (t @ t)
    vertex = np.where(bend == 0.0, 0.0, -slope / np.where(bend == 0.0, 1.0, 2.0 * bend))
    return np.where(inside, centre - reach + best + np.clip(vertex, -half, half), expected)


def _fill(y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Hold the last value through missing samples, zero where there is none in the frame."""
    missing = np.isnan(y)
    partly = missing.any(axis=2)
    out = np.where(missing, np.float32(0.0), y)
    row, lead = np.nonzero(partly & ~missing.all(axis=2))
    if row.size:
        bad = missing[row, lead]
        before = np.maximum.accumulate(np.where(bad, 0, np.arange(FRAME)), axis=1)
        out[row, lead] = np.take_along_axis(out[row, lead], before, axis=1)
    return out


def rank(rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return which of its row's entries each is, 0, 1, ...; equal rows stand together."""
    if not rows.size:
        return np.zeros(0, np.int64)
    index = np.arange(len(rows))
    first = np.concatenate([[True], rows[1:] != rows[:-1]])
    return index - np.maximum.accumulate(np.where(first, index, 0))


def collect(accepted: list[Accepted]) -> BeatFrame:
    """Join the beats of one call in the order of row and time."""
    if not accepted:
        return _NO_BEATS
    row = np.concatenate([found.row for found, _ in accepted])
    at = np.concatenate([found.at for found, _ in accepted])
    order = np.lexsort((at, row))
    return BeatFrame(
        row=row[order],
        at=at[order],
        lead=np.concatenate([found.lead for found, _ in accepted])[order],
        amplitude=np.concatenate([found.amplitude for found, _ in accepted])[order],
        rr_ms=np.concatenate([rr for _, rr in accepted])[order] * (1000.0 / FS),
    )


_NO_BEATS = BeatFrame(np.zeros(0, np.intp), np.zeros(0), np.zeros(0, np.intp), np.zeros(0, np.float32), np.zeros(0))
