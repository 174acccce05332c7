"""How likely a peak of the envelope is a QRS complex, given the beats before it.

In: peaks of different beds, each with its shape in up to three leads. Out: log-odds. A logistic regression weighs how high the
peak is among the beats and the noise before it, how much it looks like them, when it comes, and whether every lead shows it.
What it compares with follows the peaks that were taken as beats and those that were not.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.signal import FS, LEADS

__all__ = ["FLOOR", "NEVER", "PARTS", "POINTS", "Judge", "JudgeWeights", "Peaks", "shipped_weights"]

NEVER = -(10**9)
"""Time of the last beat where there is none."""

POINTS = 18
"""Numbers that make up the shape of a peak in one lead."""

FLOOR = 0.4
"""Envelope of the smallest QRS complex, as a part of its peak-to-peak amplitude."""

_FIRST_LEVEL = 0.6
"""QRS level before the first beat, mV of envelope."""

_T_WAVE = 72
_T_EARLY = 40
"""A T wave is likely within 200 ms of the last beat, and no more from 360 ms on (Pan and Tompkins 1985), in samples."""

_KNOWN = 4
"""Beats before the usual shape counts."""

_LARGE = 0.35
"""Height, as a part of the last beat's, of peaks that cannot be passed over for long: wide beats are low behind the wavelet."""

_PATIENCE = 2.0
"""Log-odds per second."""

_ALIKE = 0.8
_NOT_UNLIKE = 0.5
"""Cosine of a beat with the first usual shape from which it belongs to that, and below which it never does."""

_SHARE = 0.125
"""Weight of a new peak in the running means (Pan and Tompkins 1985)."""

PARTS = (
    "offset", "height", "tall", "noise", "unlike", "unlike_in_noise", "unknown", "early", "early_in_noise", "late", "t_wave",
    "t_wave_height", "t_wave_unlike", "stands_out", "least", "early_unlike",
)  # fmt: skip
"""Names of the parts of :meth:`Judge.weigh`, in order."""


class JudgeWeights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fitted judge, as ``train.signal.qrs`` fits it: the weight of each of :data:`PARTS`, in their order."""

    parts: dict[str, float]


@cache
def shipped_weights() -> JudgeWeights:
    """Return the weights that are part of the package.

    Raises
    ------
    ValueError
        If they are for other parts.
    """
    weights = msgspec.json.decode((files("ecgnat_stream.weights") / "qrs.json").read_bytes(), type=JudgeWeights)
    if tuple(weights.parts) != PARTS:
        raise ValueError(f"weights/qrs.json is for the parts {tuple(weights.parts)}, not {PARTS}: fit it again")
    return weights


class Peaks(NamedTuple):
    """Envelope peaks of different beds.

    ``row`` is the bed, ``time`` and ``height`` those of the envelope's peak, ``at``, ``lead`` and ``amplitude`` the R peak on the
    deciding lead. ``slots`` and ``weights`` ``(C, S)`` are the leads used; ``shape`` ``(C, S, POINTS)`` is the wavelet's output
    around the peak in each. ``busy`` is the mean envelope around the peak, ``odds`` what the judge said of it.
    """

    row: NDArray[np.intp]
    time: NDArray[np.int64]
    height: NDArray[np.float64]
    at: NDArray[np.float64]
    lead: NDArray[np.intp]
    amplitude: NDArray[np.float32]
    slots: NDArray[np.intp]
    weights: NDArray[np.float32]
    shape: NDArray[np.float32]
    busy: NDArray[np.float64]
    odds: NDArray[np.float64]

    def pick(self, of: NDArray[np.bool_] | NDArray[np.intp]) -> Peaks:
        """Return some of the peaks."""
        return Peaks(
            self.row[of],
            self.time[of],
            self.height[of],
            self.at[of],
            self.lead[of],
            self.amplitude[of],
            self.slots[of],
            self.weights[of],
            self.shape[of],
            self.busy[of],
            self.odds[of],
        )

    def keep(self, new: Peaks) -> None:
        """Overwrite the entries of ``new``'s rows, where there is one entry per bed."""
        row = new.row
        self.time[row], self.height[row], self.at[row], self.lead[row] = new.time, new.height, new.at, new.lead
        self.amplitude[row], self.slots[row], self.weights[row] = new.amplitude, new.slots, new.weights
        self.shape[row], self.busy[row], self.odds[row] = new.shape, new.busy, new.odds


class Judge:
    """Knows the usual beat of every row.

    Parameters
    ----------
    rows
        Number of rows (beds).
    floor_mv
        Smallest QRS complex, mV peak to peak.
    """

    def __init__(self, rows: int, floor_mv: float) -> None:
        self._floor = FLOOR * floor_mv
        self._weights = np.array(list(shipped_weights().parts.values()))
        self.rr = np.zeros(rows)
        self.last = np.zeros(rows, np.int64)
        self.last_at = np.zeros(rows)
        self._level = np.zeros(rows)
        self._noise = np.zeros(rows)
        self._height = np.zeros(rows)
        self._count = np.zeros(rows, np.int64)
        self._usual = np.zeros((rows, 2, len(LEADS), POINTS), np.float32)
        self._size = np.zeros((rows, len(LEADS)), np.float32)

    def reset(self, rows: NDArray[np.intp]) -> None:
        """Forget everything about ``rows``."""
        self.rr[rows] = 0.8 * FS
        self.last[rows] = NEVER
        self.last_at[rows] = NEVER
        self._level[rows] = _FIRST_LEVEL
        self._noise[rows] = 0.0
        self._height[rows] = 0.05
        self._count[rows] = 0
        self._usual[rows] = 0.0
        self._size[rows] = 0.0

    @property
    def by(self) -> NDArray[np.float64]:
        """The weights of :data:`PARTS`."""
        return self._weights

    @property
    def state(self) -> tuple[NDArray[np.generic], ...]:
        """Everything that is known, for whoever judges in its place (:mod:`ecgnat_stream.beats.kernels.peaks`)."""
        return (
            self.rr, self.last, self.last_at, self._level, self._noise, self._height, self._count, self._usual, self._size,
        )  # fmt: skip

    def odds(self, peaks: Peaks) -> NDArray[np.float64]:
        """Return the log-odds ``(C,)`` that peaks of different rows are QRS complexes."""
        parts = self.weigh(peaks)
        total = np.zeros(len(peaks.row))
        for weight, part in zip(self._weights, parts, strict=True):
            total += weight * part
        return total + self._patience(peaks)

    def _patience(self, peaks: Peaks) -> NDArray[np.float64]:
        """Return what is added to the odds of beat-sized peaks while no beat comes: a new rhythm may look like none before."""
        row = peaks.row
        wait_s = (peaks.time - self.last[row] - np.maximum(1.3 * self.rr[row], FS)) / FS
        large = (self._count[row] > 0) & (peaks.height >= _LARGE * self._height[row])
        return np.where(large, _PATIENCE * np.clip(wait_s, 0.0, 2.5), 0.0)

    def weigh(self, peaks: Peaks) -> NDArray[np.float64]:
        """Return ``(16, C)`` what speaks for and against the peaks.

        Height to the QRS level (log), and beyond 1.5 times of it; noise level to QRS level (log); unlikeness to the usual beat,
        alone and in noise; that there is no usual beat; earliness, alone and in noise; lateness; T wave possible, and with it
        the height to the last beat's (log) and the unlikeness; height to the surroundings (log); height to the usual one on the
        lead where that is least (log); earliness with unlikeness. Where there is no usual beat, nothing is early or too high.
        """
        row, level = peaks.row, self._level[peaks.row]
        since = (peaks.at - self.last_at[row]) / self.rr[row]
        tall = np.log(peaks.height / level)
        noise = np.clip(np.log(np.maximum(self._noise[row], 1e-6) / level), -3.0, 0.0)
        noisy = 1.0 + noise / 3.0
        unlike, least, known = self._compare(peaks)
        early = np.where(known, np.clip(1.0 - since, 0.0, 1.0), 0.0)
        t_wave = np.clip((_T_WAVE - since * self.rr[row]) / (_T_WAVE - _T_EARLY), 0.0, 1.0)
        return np.stack(
            [
                np.ones(len(row)),
                np.clip(tall, -2.5, 0.0),
                np.where(known, np.clip(tall - 0.4, 0.0, 1.0), 0.0),
                noise,
                unlike,
                unlike * noisy,
                np.where(known, 0.0, 1.0),
                early,
                early * noisy,
                np.clip(since - 1.0, 0.0, 1.0),
                t_wave,
                t_wave * np.clip(np.log(peaks.height / self._height[row]), -1.5, 0.5),
                t_wave * unlike,
                np.clip(np.log(peaks.height / np.maximum(peaks.busy, 1e-3)), 0.0, 2.5),
                least,
                early * unlike,
            ]
        )

    def _compare(self, peaks: Peaks) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """Return unlikeness 0..1, the log of the least height to the usual one among the leads, and whether these are known."""
        row, size = peaks.row, _length(peaks.shape)
        usual = self.usual_size(row, peaks.slots)
        weights = peaks.weights * (usual > 0)
        total = weights.sum(axis=1)
        known = (total > 0.5) & (self._count[row] >= _KNOWN)
        alike = (self._cosines(peaks, size) * weights[:, :, None]).sum(axis=1) / np.maximum(total, 1e-6)[:, None]
        ratio = np.log(np.maximum(size, 1e-6) / np.maximum(usual, 1e-6))
        least = np.where(weights > 0.15, ratio, 9.0).min(axis=1)
        unlike = np.clip(1.0 - alike.max(axis=1), 0.0, 1.0)
        return np.where(known, unlike, 0.0), np.where(known, np.clip(least, -2.0, 0.5), 0.0), known

    def _cosines(self, peaks: Peaks, size: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``(C, S, 2)`` cosines of the peaks' shapes with the two usual ones, 0 where there is none."""
        usual = self._usual[peaks.row[:, None], :, peaks.slots]
        product = (peaks.shape[:, :, None] * usual).sum(axis=3)
        cosines: NDArray[np.float32] = product / np.maximum(size[:, :, None] * _length(usual), np.float32(1e-6))
        return cosines

    def usual_size(self, row: NDArray[np.intp], slots: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return ``(C, S)`` how large beats usually are in these leads, 0 where that is not known."""
        size: NDArray[np.float32] = self._size[row[:, None], slots]
        return size

    def reject(self, peaks: Peaks) -> None:
        """Take peaks of different rows as noise."""
        row = peaks.row
        self._noise[row] += _SHARE * (np.minimum(peaks.height, self._level[row]) - self._noise[row])

    def accept(self, beats: Peaks) -> NDArray[np.float64]:
        """Take peaks of different rows as beats; return their RR in samples, NaN for none."""
        row = beats.row
        rr = beats.at - self.last_at[row]
        near = rr < 3 * FS
        share = np.maximum(_SHARE, 1.0 / (self._count[row] + 2.0))
        level, usual = self._level[row], self.rr[row]
        most = np.where(self._count[row] < _KNOWN, 4.0, 2.0) * level
        self._level[row] = level + share * (np.minimum(beats.height, most) - level)
        self.rr[row] = np.where(near, usual + share * (np.clip(rr, 0.6 * usual, 1.5 * usual) - usual), usual)
        self._noise[row] *= 0.98
        self._height[row] = np.maximum(beats.height, 0.05)
        self.last[row] = beats.time
        self.last_at[row] = beats.at
        self._count[row] += 1
        self._learn(beats)
        return np.where(near, rr, np.nan)

    def _learn(self, beats: Peaks) -> None:
        """Move one of the two usual shapes of each lead in use towards the beat's: the first, or the one for beats unlike it."""
        size = _length(beats.shape)
        alike = (self._cosines(beats, size) * beats.weights[:, :, None]).sum(axis=1)
        first = (alike[:, 0] > _ALIKE) | ((alike[:, 0] >= alike[:, 1]) & (alike[:, 0] > _NOT_UNLIKE))
        beat, slot = np.nonzero((beats.weights > 0) & (size > 0))
        row, lead, size = beats.row[beat], beats.slots[beat, slot], size[beat, slot]
        usual = self._size[row, lead]
        kind = np.where((usual == 0) | first[beat], 0, 1)
        old = self._usual[row, kind, lead]
        fresh = ~old.any(axis=1)
        share = np.where(fresh, 1.0, _SHARE).astype(np.float32)[:, None]
        self._usual[row, kind, lead] = old + share * (beats.shape[beat, slot] / size[:, None] - old)
        step = np.float32(_SHARE) * (np.minimum(size, 2.0 * usual) - usual)
        self._size[row, lead] = np.where(usual > 0, usual + step, size)

    def relax(self, rows: NDArray[np.intp], now: NDArray[np.int64]) -> None:
        """Let the QRS level of rows without a beat sink, so that a small ECG after a large artefact is found again."""
        quiet = rows[now - self.last[rows] > np.maximum(2.0 * self.rr[rows], 1.2 * FS)]
        self._level[quiet] = np.maximum(0.92 * self._level[quiet], self._floor)
        self._noise[quiet] *= 0.92


def _length(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the Euclidean length along the last axis."""
    length: NDArray[np.float32] = np.sqrt(np.square(x).sum(axis=-1))
    return length
