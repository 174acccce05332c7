"""R peaks of windows, by the monitor's own detector: for training, evaluation and whoever has no stream.

In: windows ``(B, 12, T)`` at 100 Hz, mV. Out: their R peaks ``(B, N)``. Every window is a bed of its own. What the detector does
frame by frame is done here for all frames of a window at once, but for judging the peaks, which goes in the order of time: first
over the window's first seconds, to learn what its beats look like, then over all of it.

Shapes: B window, S lead used (3), T time, K frame, N beat.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ecgnat_stream.beats.detector import DECISION_S, Accepted, BeatFrame, BeatsConfig, QrsDetector, collect, rank
from ecgnat_stream.beats.judge import Peaks
from ecgnat_stream.signal import FRAME, FRAME_S, FS, LEADS, MODEL_FS

__all__ = ["find_beats"]

_STEP = FS // MODEL_FS
_DECISION = round(DECISION_S * FS)
_RUN_IN = round(5 / FRAME_S)
"""Frames from which the detector learns what the beats look like: 5 of them at 60 bpm."""

_SINCE = 0.6
"""RR intervals taken to have passed since a beat at the start of a window whose beats are too few to tell; 0.4 and 0.8 did
about as well on training records of MIT-BIH."""

_TALL = 0.6
"""A beat's height, as a part of the usual one, below which it may be a T wave taken for a beat before anything was known."""

_LEAST_PERIOD = round(1.05 * FS)
"""Samples after the first beat from which on another one is looked for to go on from: as many are looked back on."""

_FLAT_MV = 0.02
"""A lead whose samples differ by less shows no heart."""

_MOST_MV = 1000.0
"""No electrode gives more."""

_LEAST = 2 * MODEL_FS
"""Samples from which on a lead's beats can be told."""


def find_beats(windows: NDArray[np.floating], config: BeatsConfig | None = None) -> NDArray[np.float32]:
    """Find the R peaks of windows.

    Parameters
    ----------
    windows
        ``(B, 12, T)`` mV at 100 Hz, conditioned; NaN where a lead or a sample is missing.
    config
        See :class:`~ecgnat_stream.beats.detector.BeatsConfig`.

    Returns
    -------
    NDArray
        ``(B, N)`` R peaks in samples at 100 Hz from the start of the window, ascending, NaN behind the last.

    Raises
    ------
    ValueError
        For any other shape.
    """
    if windows.ndim != 3 or windows.shape[1] != len(LEADS) or windows.shape[2] == 0:
        raise ValueError(f"want windows (B, {len(LEADS)}, T), got {windows.shape}")
    if not len(windows):
        return np.full((0, 1), np.nan, np.float32)
    found = _WindowDetector(len(windows), config).find(windows)
    return _table(found.row, found.at, len(windows), windows.shape[2] * _STEP)


class _WindowDetector(QrsDetector):
    """The detector, given whole windows."""

    def find(self, windows: NDArray[np.floating]) -> BeatFrame:
        """Return the beats of all windows."""
        count, length = len(windows), windows.shape[2] * _STEP
        rows = np.arange(count)
        slots, weights = self._choose(rows, _usable(windows))
        signal = _upsample(_bridge(np.take_along_axis(windows, slots[:, :, None], axis=1)))
        frames = -(-(length + _DECISION) // FRAME)
        kept = self._signal.shape[1] * FRAME
        behind = frames * FRAME - length
        recent = _cuts(np.pad(signal, ((0, 0), (0, 0), (kept - FRAME, behind)), mode="edge"), kept)
        each = recent.reshape(-1, *recent.shape[2:])
        reach = (self._wavelet.shape[1] - FRAME) // 2
        envelope = self._measure(each, weights.repeat(frames, axis=0)).reshape(count, -1)[:, reach:]
        before = self._envelope.shape[1] + reach - np.arange(self._envelope.shape[1] + reach)

        def look(past: NDArray[np.intp], until: int) -> Peaks:
            """Find the peaks of the first frames; ``past`` is where the envelope before the window is taken from."""
            past = np.clip(past, 0, envelope.shape[1] - 1)
            whole = np.concatenate([np.take_along_axis(envelope, past, axis=1), envelope], axis=1)
            around = _cuts(whole[:, None], self._envelope.shape[1] + FRAME)[:, :until, 0].reshape(count * until, -1)
            own = slots.repeat(until, axis=0), weights.repeat(until, axis=0)
            part = recent[:, :until].reshape(count * until, *recent.shape[2:])
            peaks = self._peaks(rows.repeat(until), np.tile(np.arange(until), count), *own, part, around)
            return peaks.pick(peaks.time >= 0)

        run_in = look(np.broadcast_to(before - 1, (count, len(before))), min(_RUN_IN, frames))
        period = self._go_back(self._go_through(run_in))
        past = np.where(period[:, None] > 0, period[:, None] - before, before - 1)
        accepted = self._go_through(look(past, frames))
        self._search_back(rows, np.full(count, length), accepted)
        return collect(accepted)

    def _go_back(self, accepted: list[Accepted]) -> NDArray[np.intp]:
        """Return to the start of the windows with what was learned, as if they went on from a later place of the same phase.

        That place is as far before a beat as the start is before the first one. So T waves at the start follow a beat, too.

        Returns
        -------
        ``(B,)`` the place, 0 where beats are too few to tell.
        """
        judge, period = self._judge, np.zeros(len(self._judge.last), np.intp)
        since = _SINCE * judge.rr
        row_of, where, height = (
            np.concatenate([np.zeros(0), *(getattr(peaks, name) for peaks, _ in accepted)]) for name in ("row", "at", "height")
        )
        for row in np.unique(row_of).astype(np.intp):
            own = row_of == row
            own &= height >= _TALL * np.median(height[own])
            at = np.sort(where[own])
            again = at[at - at[:1] >= _LEAST_PERIOD]
            if len(again):
                place = again[0] - at[0]
                period[row] = round(place)
                since[row] = place - at[at < place].max() if at[0] < place else since[row]
        judge.last_at[:] = -since
        judge.last[:] = -since
        self._missed.odds[:] = -np.inf
        return period

    def _go_through(self, peaks: Peaks) -> list[Accepted]:
        """Judge peaks in the order of time, each with all other rows' peak of the same number; return the beats."""
        accepted: list[Accepted] = []
        frame = (peaks.time + _DECISION) // FRAME
        done = np.zeros(len(self._judge.last), np.int64)
        order = rank(peaks.row)
        for turn in range(int(order.max(initial=-1)) + 1):
            of = np.flatnonzero(order == turn)
            now = peaks.pick(of)
            while (behind := now.row[done[now.row] < frame[of]]).size:
                done[behind] += 1
                self._judge.relax(behind, done[behind] * FRAME - _DECISION)
            self._search_back(now.row, now.time, accepted)
            self._decide(now, accepted)
        return accepted


def _usable(windows: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return ``(B, 12)`` 1 for leads that are not flat and there long enough: 2 s, and half of the time that any is; else 0."""
    highest, lowest = np.fmax.reduce(windows, axis=2), np.fmin.reduce(windows, axis=2)
    there = np.isfinite(windows)
    least = np.maximum(there.any(axis=1).sum(axis=1), min(2 * _LEAST, windows.shape[2])) / 2
    usable: NDArray[np.bool_] = (highest >= lowest + _FLAT_MV) & (there.sum(axis=2) >= least[:, None])
    return usable.astype(np.float32)


def _bridge(y: NDArray[np.floating]) -> NDArray[np.float32]:
    """Lay lines across missing samples, level ones at the ends; 0 where there is nothing. A step would look like a beat."""
    there = np.isfinite(y)
    out = np.where(there, y, 0.0).clip(-_MOST_MV, _MOST_MV).astype(np.float32)
    place = np.arange(y.shape[2])
    for row, lead in np.argwhere(there.any(axis=2) & ~there.all(axis=2)):
        own = there[row, lead]
        out[row, lead] = np.interp(place, place[own], out[row, lead, own])
    return out


def _upsample(y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``(B, S, 2 T)``: in between the cubic through four neighbours; the last value is held."""
    wide = np.pad(y, ((0, 0), (0, 0), (1, 2)), mode="edge")
    out = np.empty((*y.shape[:2], _STEP * y.shape[2]), np.float32)
    out[..., ::2] = y
    out[..., 1::2] = (9.0 * (wide[..., 1:-2] + wide[..., 2:-1]) - wide[..., :-3] - wide[..., 3:]) / 16.0
    return out


def _cuts(y: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Return ``(B, K, S, length)``: overlapping cuts of ``(B, S, T)`` every ``FRAME`` samples."""
    cuts: NDArray[np.float32] = np.ascontiguousarray(sliding_window_view(y, length, axis=2)[:, :, ::FRAME].transpose(0, 2, 1, 3))
    return cuts


def _table(row: NDArray[np.intp], at: NDArray[np.float64], count: int, length: int) -> NDArray[np.float32]:
    """Return ``(B, N)`` the peaks within the windows, padded with NaN."""
    within = (at >= 0) & (at < length)
    row, at = row[within], (at[within] / _STEP).astype(np.float32)
    place = rank(row)
    beats = np.full((count, int(place.max(initial=0)) + 1), np.nan, np.float32)
    beats[row, place] = at
    return beats
