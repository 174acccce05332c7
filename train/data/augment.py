"""What a ward does to a signal: fewer leads, electrodes swapped, other gains and bands, recorded noise, mains, gaps.

A :class:`LabelledWindow` goes in with what is stated about it, and comes out changed together with its statements.

Shapes: L lead (12), T time (100 Hz), N beat.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, lfilter

from ecgnat_stream.signal import LEADS, MODEL_FS
from train.data.labels import UNSTATED

__all__ = ["Augment", "LabelledWindow", "stack_beats", "swapped", "wrong_beats"]

_SPECTRUM_SLOTS = (1, 6, 10)
"""II, V1, V5: where an unspecified lead is put."""

_SUBSETS = ((1,), (0, 1), (0, 1, 7), (0, 1, 2, 3, 4, 5))
"""Lead sets of devices: II; I and II; I, II, V2; the limb leads."""

_I, _II, _III, _AVR, _AVL, _AVF = range(6)
_SWAPS: tuple[dict[int, tuple[int, int]], ...] = (
    {_I: (_I, -1), _II: (_III, 1), _III: (_II, 1), _AVR: (_AVL, 1), _AVL: (_AVR, 1)},
    {_I: (_III, -1), _II: (_II, -1), _III: (_I, -1), _AVR: (_AVF, 1), _AVF: (_AVR, 1)},
    {_I: (_II, 1), _II: (_I, 1), _III: (_III, -1), _AVL: (_AVF, 1), _AVF: (_AVL, 1)},
)
"""Right arm with left arm, right arm with left leg, left arm with left leg: lead -> (lead it then shows, sign)."""

_LATE = round(0.35 * MODEL_FS)
"""Samples at the end of a window whose beats a monitor does not know: 0.225 s until the detector decides, and up to a frame."""


@dataclass(frozen=True, slots=True)
class LabelledWindow:
    """A cut of a record and its statements.

    Parameters
    ----------
    leads
        ``(12, T)`` mV, NaN = missing.
    sets
        ``(T,)`` allowed rhythm classes.
    beats
        ``(N, 2)`` place in samples from the start of the window and class; None where beats are not annotated.
    marked
        Samples between which beats are annotated; may reach beyond the window.
    """

    leads: NDArray[np.float32]
    sets: NDArray[np.uint8]
    beats: NDArray[np.float32] | None = None
    marked: tuple[float, float] = (0, np.inf)


class Augment:
    """Change windows at random.

    Parameters
    ----------
    noise
        ``(N, T)`` recorded noise in mV at 100 Hz, two leads per recording, or empty; only its first ``share`` is used: the rest
        stays for tests.
    beat_errors
        Part of the windows whose R peaks get a detector's errors, see :meth:`beats`.
    """

    def __init__(self, noise: NDArray[np.float32], share: float = 0.7, beat_errors: float = 0.0) -> None:
        self.noise, self.beat_errors = noise[:, : int(noise.shape[1] * share)], beat_errors

    def __call__(self, window: LabelledWindow, rng: np.random.Generator, whole: bool = False) -> LabelledWindow:
        """Return a changed copy; ``whole`` forbids gaps (a bag must be seen as a whole)."""
        if rng.random() < 0.25:
            window = _warped(window, rng)
        leads = window.leads.copy()
        if rng.random() < 0.05:
            leads = swapped(leads, int(rng.integers(len(_SWAPS))))
        if rng.random() < 0.3:
            leads = _projected(leads, rng)
        leads = _fewer_leads(leads, rng)
        if rng.random() < 0.3:
            leads = _more_leads(leads, rng)
        if rng.random() < 0.2:
            leads = _band_limited(leads, rng)
        leads = leads * np.float32(np.exp(rng.uniform(np.log(0.6), np.log(1.7))))
        if rng.random() < 0.12:
            leads = -leads
        if rng.random() < 0.35 and self.noise.size:
            leads = self._noisy(leads, rng)
        if rng.random() < 0.1:
            leads = _disturbed(leads, rng)
        window = replace(window, leads=leads)
        if not whole and rng.random() < 0.12:
            window = _gap(window, rng)
        return window

    def beats(self, found: NDArray[np.float32], length: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Change the R peaks ``(B, N)`` found in windows of ``length`` samples.

        In a monitor the beats of the last moment are not known yet when a window is cut: half of the windows lack them. Of
        ``beat_errors`` of the windows up to 40 % of the beats are missed, up to 20 % more are false, and all are up to 20 ms
        (standard deviation) beside their place.
        """
        if self.beat_errors > 0:
            rows = [row[np.isfinite(row)] for row in found]
            for at in np.flatnonzero(rng.random(len(rows)) < self.beat_errors):
                rows[at] = wrong_beats(rows[at], length, rng, rng.uniform(0, 20), rng.uniform(0, 0.4), rng.uniform(0, 0.2))
            found = stack_beats(rows)
        late = (rng.random(len(found)) < 0.5)[:, None] & (found > length - _LATE)
        return np.where(late, np.float32(np.nan), found)

    def _noisy(self, leads: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Add recorded noise at 0 to 24 dB below each lead."""
        length = leads.shape[1]
        out = leads.copy()
        which = rng.integers(len(self.noise) // 2)
        decibels = rng.uniform(0, 24)
        for lead in np.flatnonzero(np.isfinite(leads).any(axis=1)):
            row = 2 * which + rng.integers(2)
            at = rng.integers(self.noise.shape[1] - length)
            noise = self.noise[row, at : at + length]
            power = np.nanstd(leads[lead]) / max(float(noise.std()), 1e-3)
            out[lead] += noise * np.float32(power * 10 ** (-decibels / 20))
        return out


def swapped(leads: NDArray[np.float32], which: int) -> NDArray[np.float32]:
    """Return ``(12, T)`` as recorded with two limb electrodes exchanged: 0 arms, 1 right arm and leg, 2 left arm and leg."""
    out = leads.copy()
    for lead, (source, sign) in _SWAPS[which].items():
        out[lead] = sign * leads[source]
    return out


def wrong_beats(
    peaks: NDArray[np.floating], length: int, rng: np.random.Generator, jitter_ms: float, missed: float, false: float
) -> NDArray[np.float32]:
    """Return the R peaks ``(N,)`` of a window of ``length`` samples as a detector with errors would find them.

    Parameters
    ----------
    jitter_ms
        Standard deviation of a normal displacement of every R peak.
    missed
        Share of the beats that is taken away.
    false
        Share of the beats beside which another is put, anywhere in the window.
    """
    peaks = peaks[rng.random(len(peaks)) >= missed]
    peaks = peaks + rng.normal(0, jitter_ms * MODEL_FS / 1000, len(peaks))
    extra = rng.uniform(0, length, rng.binomial(len(peaks), false) if false else 0)
    return np.unique(np.clip(np.concatenate([peaks, extra]), 0, length - 1).astype(np.float32))


def stack_beats(rows: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return R peaks of several windows as ``(B, N)``, NaN behind the last."""
    out = np.full((len(rows), max([1, *map(len, rows)])), np.nan, np.float32)
    for row, peaks in zip(out, rows, strict=True):
        row[: len(peaks)] = peaks
    return out


def _warped(window: LabelledWindow, rng: np.random.Generator) -> LabelledWindow:
    """Play the window up to 12 % faster or slower: other rates of the same rhythm. What is lacking at the end is missing."""
    length = window.leads.shape[1]
    factor = float(np.exp(rng.uniform(-0.12, 0.12)))
    at = np.arange(length) * factor
    left = np.minimum(at.astype(int), length - 2)
    share = (at - left).astype(np.float32)
    leads = window.leads[:, left] * (1 - share) + window.leads[:, left + 1] * share
    beyond = at > length - 1
    leads[:, beyond] = np.nan
    sets = window.sets[left]
    sets[beyond] = UNSTATED
    beats = None if window.beats is None else (window.beats / (factor, 1)).astype(np.float32)
    return LabelledWindow(leads, sets, beats, (window.marked[0] / factor, window.marked[1] / factor))


def _projected(leads: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Replace a lead by a mixture of two simultaneous ones: what electrodes elsewhere could have seen of the same heart."""
    there = np.flatnonzero(np.isfinite(leads).any(axis=1))
    if len(there) < 2:
        return leads
    first, second = rng.choice(there, 2, replace=False)
    angle = rng.uniform(0, 2 * np.pi)
    out = leads.copy()
    out[first] = np.float32(np.cos(angle)) * leads[first] + np.float32(np.sin(angle)) * leads[second]
    return out


def _more_leads(leads: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Spread one or two leads over six or twelve by random mixtures that obey Einthoven.

    The databases hold VT, VF and asystole in one or two leads only, and the number of leads must not speak for a rhythm.
    """
    there = np.flatnonzero(np.isfinite(leads).any(axis=1))
    if not 1 <= len(there) <= 2:
        return leads
    mix = rng.normal(0, 0.8, (len(LEADS), len(there))).astype(np.float32)
    mix[2:6] = np.array([[-1, 1], [-0.5, -0.5], [1, -0.5], [-0.5, 1]], np.float32) @ mix[:2]
    out: NDArray[np.float32] = np.einsum("ls,st->lt", mix, leads[there])
    out += rng.normal(0, 0.005, out.shape).astype(np.float32)
    if rng.random() < 0.3:
        out[6:] = np.nan
    return out


def _band_limited(leads: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Filter as a monitor of narrower band would: a first-order low-pass at 8 to 25 Hz or high-pass at 0.7 to 2 Hz."""
    if rng.random() < 0.5:
        b, a = butter(1, rng.uniform(8.0, 25.0), "lowpass", fs=MODEL_FS)
    else:
        b, a = butter(1, rng.uniform(0.7, 2.0), "highpass", fs=MODEL_FS)
    missing = ~np.isfinite(leads)
    out: NDArray[np.float32] = lfilter(b, a, np.where(missing, 0, leads)).astype(np.float32)
    out[missing] = np.nan
    return out


def _disturbed(leads: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Add what the conditioner may leave of mains (a tone near the band's end) or of breathing (0.15 to 0.6 Hz), per lead."""
    time = np.arange(leads.shape[1]) / MODEL_FS
    hz = rng.uniform(35.0, 48.0) if rng.random() < 0.5 else rng.uniform(0.15, 0.6)
    size = rng.uniform(0.01, 0.15) * rng.random((len(leads), 1))
    return leads + (size * np.sin(2 * np.pi * (hz * time + rng.random((len(leads), 1))))).astype(np.float32)


def _fewer_leads(leads: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Keep a part of the leads, as devices have them or at random; sometimes put a lone lead where devices put unnamed ones."""
    there = np.flatnonzero(np.isfinite(leads).any(axis=1))
    keep = there
    if len(there) > 1 and rng.random() < (0.3 if len(there) == 2 else 0.6):
        if len(there) > 2 and rng.random() < 0.5:
            chosen = np.intersect1d(there, _SUBSETS[rng.integers(len(_SUBSETS))])
            keep = chosen if len(chosen) else there
        else:
            keep = rng.choice(there, min(len(there) - 1, int(rng.integers(1, 4))), replace=False)
    out = np.full_like(leads, np.nan)
    if len(keep) == 1 and rng.random() < 0.35:
        out[_SPECTRUM_SLOTS[rng.integers(len(_SPECTRUM_SLOTS))]] = leads[keep[0]]
    else:
        out[keep] = leads[keep]
    return out


def _gap(window: LabelledWindow, rng: np.random.Generator) -> LabelledWindow:
    """Lose 0.2 to 3 s of one lead or of all; where all are lost nothing is stated. Or let one of several leads go flat."""
    leads, sets, beats = window.leads.copy(), window.sets, window.beats
    there = np.flatnonzero(np.isfinite(leads).any(axis=1))
    if len(there) == 0:
        return window
    length = int(rng.integers(20, 300))
    at = int(rng.integers(max(leads.shape[1] - length, 1)))
    if len(there) > 1 and rng.random() < 0.7:
        lead = rng.choice(there)
        if rng.random() < 0.3:
            leads[lead] = rng.normal(0, 0.003, leads.shape[1])
        else:
            leads[lead, at : at + length] = np.nan
        return replace(window, leads=leads)
    leads[:, at : at + length] = np.nan
    sets = sets.copy()
    sets[at : at + length] = UNSTATED
    if beats is not None:
        beats = beats[(beats[:, 0] < at) | (beats[:, 0] >= at + length)]
    return replace(window, leads=leads, sets=sets, beats=beats)
