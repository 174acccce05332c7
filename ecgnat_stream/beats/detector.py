"""QRS complexes and RR intervals, streaming, for all beds at once.

In: conditioned frames ``(R, 12, FRAME)`` with a quality index per lead. Out: :class:`BeatFrame`, one entry per QRS complex. Up to
three leads per bed are turned into one envelope (a complex wavelet, so polarity does not matter); its peaks are judged against
adaptive levels in the order of time. Nothing is decided from absent or unusable leads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from ecgnat_stream.signal import FRAME, FS, LEADS

__all__ = ["DECISION_S", "BeatFrame", "BeatsConfig", "QrsDetector", "rank"]

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

_MARGIN = 2 * _APART
NEVER = -(10**9)
"""Time of the last beat where there is none."""

_BEFORE, _AFTER = 18, 26
"""Samples before and after the envelope peak that make up a beat's shape (90 and 130 ms)."""

_SHAPE = _BEFORE + _AFTER

_FIND = 12
"""The R peak lies within this many samples (60 ms) of the envelope's peak."""

_FIRST_SHARE = 0.6
"""The R peak is the first extreme of at least this share of the largest one."""

_SEARCH_BACK = 1.66
"""A beat is missed after this many mean RR intervals (Pan and Tompkins 1985)."""

_T_WAVE = 72
"""Samples (360 ms) within which a peak of less than half the last beat's height is a T wave (Pan and Tompkins 1985)."""

_ORDER = np.array([LEADS.index(lead) for lead in ("II", "V5", "V2", "I", "V1", "V3", "V4", "V6", "aVF", "III", "aVR", "aVL")])
"""Leads in order of preference at equal quality."""

_FIRST_LEVEL = 0.6
"""QRS level before the first beat, mV of envelope."""

_FLOOR = 0.4
"""Envelope of the smallest QRS complex, as a part of its peak-to-peak amplitude."""

_CENTRE_HZ = 14.0
_SIGMA_S = 0.022
"""The wavelet: QRS complexes stand out at 5 to 20 Hz (Thakor 1984), T waves below; 14 Hz and 22 ms by the training records."""


class BeatsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What counts as a QRS complex.

    Parameters
    ----------
    floor_mv
        Smallest QRS complex, mV peak to peak; IEC 60601-2-27 wants none reported below 0.15 mV.
    refractory_s
        Shortest time between two beats.
    threshold
        Where between the noise level and the QRS level a peak begins to count.
    min_sqi
        Leads below this quality index are not used.
    """

    floor_mv: float = 0.15
    refractory_s: float = 0.2
    threshold: float = 0.3
    min_sqi: float = 0.05


@dataclass(frozen=True, slots=True)
class BeatFrame:
    """The beats found in one call, in the order of row and time.

    Parameters
    ----------
    row
        Bed.
    at
        R peak, absolute sample index at ``signal.FS``.
    lead
        Index in ``signal.LEADS`` of the lead that decided the position.
    amplitude
        Peak-to-peak amplitude of the complex on that lead, mV.
    rr_ms
        Interval to the bed's beat before, NaN for none.
    """

    row: NDArray[np.intp]
    at: NDArray[np.int64]
    lead: NDArray[np.intp]
    amplitude: NDArray[np.float32]
    rr_ms: NDArray[np.float64]


class _Found(NamedTuple):
    """Envelope peaks of one call: bed, time and height of the peak, and what the deciding lead shows there."""

    row: NDArray[np.intp]
    time: NDArray[np.int64]
    height: NDArray[np.float64]
    at: NDArray[np.int64]
    lead: NDArray[np.intp]
    amplitude: NDArray[np.float32]
    shape: NDArray[np.float32]

    def pick(self, of: NDArray[np.bool_] | NDArray[np.intp]) -> _Found:
        """Return some of the peaks."""
        return _Found(
            self.row[of], self.time[of], self.height[of], self.at[of], self.lead[of], self.amplitude[of], self.shape[of]
        )

    def keep(self, new: _Found) -> None:
        """Overwrite the entries of ``new``'s rows."""
        row = new.row
        self.time[row], self.height[row], self.at[row] = new.time, new.height, new.at
        self.lead[row], self.amplitude[row], self.shape[row] = new.lead, new.amplitude, new.shape


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


_Accepted = tuple[_Found, NDArray[np.float64]]
"""Peaks taken as beats, their RR in ms."""


class QrsDetector:
    """Streaming QRS detector for all rows.

    Parameters
    ----------
    rows
        Number of rows (beds).
    """

    def __init__(self, rows: int, config: BeatsConfig | None = None) -> None:
        self.config = config or BeatsConfig()
        self._wavelet = _wavelet()
        self._signal = np.zeros((rows, _KEPT, len(LEADS), FRAME), np.float32)
        self._envelope = np.zeros((rows, _MARGIN), np.float32)
        self._slots = np.full((rows, _SLOTS), -1, np.intp)
        self._level = np.zeros(rows)
        self._noise = np.zeros(rows)
        self._height = np.zeros(rows)
        self._rr = np.zeros(rows)
        self._last = np.zeros(rows, np.int64)
        self._last_at = np.zeros(rows, np.int64)
        self._count = np.zeros(rows, np.int64)
        none = np.zeros(rows, np.int64)
        self._missed = _Found(
            np.arange(rows),
            none,
            np.zeros(rows),
            none.copy(),
            none.copy(),
            np.zeros(rows, np.float32),
            np.zeros((rows, _SHAPE), np.float32),
        )
        self.reset(np.arange(rows))

    def reset(self, rows: NDArray[np.intp]) -> None:
        """Forget everything about ``rows``."""
        self._signal[rows] = 0.0
        self._envelope[rows] = 0.0
        self._slots[rows] = -1
        self._level[rows] = _FIRST_LEVEL
        self._noise[rows] = 0.0
        self._height[rows] = 0.0
        self._rr[rows] = 0.8 * FS
        self._last[rows] = NEVER
        self._last_at[rows] = NEVER
        self._count[rows] = 0
        self._missed.height[rows] = 0.0

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
        self._signal[rows, frames % _KEPT] = _fill(y)
        slots, weights = self._choose(rows, sqi)
        recent = self._recent(rows, frames, slots)
        envelope = np.concatenate([self._envelope[rows], self._measure(recent, weights)], axis=1)
        self._envelope[rows] = envelope[:, FRAME:]
        found = self._peaks(rows, frames, slots, recent, envelope)
        accepted: list[_Accepted] = []
        order = rank(found.row)
        for turn in range(int(order.max(initial=-1)) + 1):
            peaks = found.pick(order == turn)
            self._search_back(peaks.row, peaks.time, accepted)
            self._judge(peaks, accepted)
        decided = (frames + 1) * FRAME - _DECISION
        self._search_back(rows, decided, accepted)
        self._relax(rows, decided)
        return _collect(accepted)

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
        recent: NDArray[np.float32],
        envelope: NDArray[np.float32],
    ) -> _Found:
        """Find the envelope's peaks, at most two per row, and look at the first chosen lead there."""
        centre = envelope[:, _APART : _APART + FRAME]
        highest = maximum_filter1d(envelope, 2 * _APART + 1, axis=1)[:, _APART : _APART + FRAME]
        which, column = np.nonzero((centre == highest) & (centre > _FLOOR * self.config.floor_mv))
        time = frames[which] * FRAME - _DECISION + column
        lead = slots[which, 0]
        wave = recent[which, 0]
        at = (_KEPT - 1) * FRAME - _DECISION + column
        near = wave[np.arange(len(which))[:, None], at[:, None] + np.arange(-_FIND, _FIND + 1)]
        move = _first_extreme(near) - _FIND
        shape = wave[np.arange(len(which))[:, None], (at + move)[:, None] + np.arange(-_BEFORE, _AFTER)]
        amplitude = shape.max(axis=1) - shape.min(axis=1)
        height = centre[which, column].astype(np.float64)
        found = _Found(rows[which], time, height, time + move, lead, amplitude, shape)
        return found.pick(amplitude >= self.config.floor_mv)

    def _threshold(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        noise = np.minimum(self._noise[rows], 0.6 * self._level[rows])
        return noise + self.config.threshold * (self._level[rows] - noise)

    def _judge(self, peaks: _Found, accepted: list[_Accepted]) -> None:
        """Decide on peaks of different rows: beat, or noise that search-back may come back to."""
        row, height = peaks.row, peaks.height
        since = peaks.at - self._last_at[row]
        threshold, level = self._threshold(row), self._level[row]
        grade = np.clip((_T_WAVE - since) / (_T_WAVE - FRAME), 0.0, 1.0)
        early = np.maximum(0.5 * self._height[row], np.minimum(threshold * (1.0 + grade), 0.7 * level))
        late = since >= self.config.refractory_s * FS
        beat = late & (height > np.where(since < _T_WAVE, np.maximum(threshold, early), threshold))
        rest = row[late & ~beat]
        self._noise[rest] += 0.125 * (np.minimum(height[late & ~beat], self._level[rest]) - self._noise[rest])
        missed = late & ~beat & (since >= _T_WAVE) & (height > self._missed.height[row])
        self._missed.keep(peaks.pick(missed))
        self._accept(peaks.pick(beat), accepted)

    def _search_back(self, rows: NDArray[np.intp], now: NDArray[np.int64], accepted: list[_Accepted]) -> None:
        """Take the largest peak since the last beat after all where a beat is overdue."""
        overdue = now - self._last[rows] > _SEARCH_BACK * self._rr[rows]
        rows = rows[overdue & (self._missed.height[rows] > 0.5 * self._threshold(rows))]
        if rows.size:
            self._accept(self._missed.pick(rows), accepted)

    def _accept(self, beats: _Found, accepted: list[_Accepted]) -> None:
        """Take peaks of different rows as beats: levels and RR follow them."""
        row = beats.row
        if not row.size:
            return
        rr = (beats.at - self._last_at[row]).astype(np.float64)
        known = rr < 3 * FS
        share = np.maximum(0.125, 1.0 / (self._count[row] + 2.0))
        level = self._level[row]
        self._level[row] = level + share * (np.minimum(beats.height, 2.0 * level) - level)
        usual = self._rr[row]
        self._rr[row] = np.where(known, usual + share * (np.clip(rr, 0.6 * usual, 1.5 * usual) - usual), usual)
        self._height[row] = beats.height
        self._last[row] = beats.time
        self._last_at[row] = beats.at
        self._count[row] += 1
        self._missed.height[row] = 0.0
        accepted.append((beats, np.where(known, rr * 1000.0 / FS, np.nan)))

    def _relax(self, rows: NDArray[np.intp], now: NDArray[np.int64]) -> None:
        """Let the QRS level of rows without a beat sink, so that a small ECG after a large artefact is found again."""
        quiet = rows[now - self._last[rows] > np.maximum(2.0 * self._rr[rows], 1.2 * FS)]
        self._level[quiet] = np.maximum(0.92 * self._level[quiet], _FLOOR * self.config.floor_mv)
        self._noise[quiet] *= 0.92


def _first_extreme(near: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return where ``(C, 2 _FIND + 1)`` has its first extreme value of some size: in a wide complex the R peak, not the slur."""
    size = np.abs(near - 0.5 * (near[:, :1] + near[:, -1:]))
    turning = np.zeros(size.shape, bool)
    turning[:, 1:-1] = (size[:, 1:-1] >= size[:, :-2]) & (size[:, 1:-1] >= size[:, 2:])
    large = size >= _FIRST_SHARE * size.max(axis=1, keepdims=True, initial=0.0)
    first = (turning & large).argmax(axis=1)
    found: NDArray[np.intp] = np.where((turning & large).any(axis=1), first, _FIND)
    return found


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


def _collect(accepted: list[_Accepted]) -> BeatFrame:
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
        rr_ms=np.concatenate([rr for _, rr in accepted])[order],
    )


_NO_BEATS = BeatFrame(np.zeros(0, np.intp), np.zeros(0, np.int64), np.zeros(0, np.intp), np.zeros(0, np.float32), np.zeros(0))
