"""Draw training windows from the cache: balanced over classes and records, augmented as a ward would.

Shapes: B batch, L lead (12), T time (100 Hz), P token.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, lfilter

from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.model.preprocess import TOKEN
from ecgnat_stream.signal import LEADS, MODEL_FS
from train.labels import UNSTATED, token_sets
from train.prepare import Cached

__all__ = ["Augment", "Batch", "Cache", "Sampler"]

SHARES = {"SINUS": 0.34, "AF": 0.13, "SVT": 0.07, "VT": 0.12, "VF": 0.11, "ASYSTOLE": 0.03, "PACED": 0.05, "NOISE": 0.07}
"""Share of windows drawn around each class; :data:`ANY` and :data:`BAGS` make up the rest."""

ANY = 0.05
BAGS = 0.03

_SPECTRUM_SLOTS = (1, 6, 10)  # II, V1, V5: where an unspecified lead is put


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows with their statements.

    Parameters
    ----------
    windows
        ``(B, 12, T)`` mV, NaN = missing.
    sets
        ``(B, P)`` allowed classes per token.
    bag
        ``(B,)`` class that occurs somewhere in the window, or -1.
    window
        ``(B, C)`` diagnostic statements 0 or 1, NaN where nothing is stated.
    """

    windows: NDArray[np.float32]
    sets: NDArray[np.uint8]
    bag: NDArray[np.int64]
    window: NDArray[np.float32]


class Cache:
    """The prepared records, mapped into memory."""

    def __init__(self, path: Path) -> None:
        self.records = msgspec.json.decode((path / "records.json").read_bytes(), type=list[Cached])
        self._leads = np.memmap(path / "leads.f16", np.float16, "r")
        self._rhythm = np.memmap(path / "rhythm.u8", np.uint8, "r")
        self.noise = np.load(path / "noise.npy").astype(np.float32)

    def cut(self, record: Cached, start: int, length: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return ``(12, length)`` mV and ``(length,)`` sets; NaN and unstated beyond the record's end."""
        stop = min(start + length, record.length)
        stored = self._leads[record.at : record.at + len(record.slots) * record.length].reshape(-1, record.length)
        window = np.full((len(LEADS), length), np.nan, np.float32)
        window[list(record.slots), : stop - start] = stored[:, start:stop]
        sets = np.full(length, UNSTATED, np.uint8)
        sets[: stop - start] = self._rhythm[record.rhythm_at + start : record.rhythm_at + stop]
        sets[~np.isfinite(window).any(axis=0)] = UNSTATED
        return window, sets

    def rhythm(self, record: Cached) -> NDArray[np.uint8]:
        """Return the sets of a whole record."""
        return self._rhythm[record.rhythm_at : record.rhythm_at + record.length]


class Sampler:
    """Draw class by share, then a record of that class, then a place in it, then where in the window that place lies.

    The chance of a database, and of a record within it, grows with the square root of what it holds of the class: neither one
    long record nor one database of many short ones stands for a class.

    Parameters
    ----------
    splits
        Which parts of splits.csv (with ``records.HOLDOUT``) to draw from.
    """

    def __init__(
        self, cache: Cache, splits: tuple[str, ...], length: int, classes: int, augment: Augment | None, seed: int
    ) -> None:
        self.cache, self.length, self.classes, self.augment = cache, length, classes, augment
        self.rng = np.random.default_rng(seed)
        self.records = [record for record in cache.records if record.split in splits]
        self.bags = [record for record in self.records if record.bag >= 0]
        self._any = _chances(self.records, [record.length for record in self.records])
        self.places = {name: self._places(1 << c) for c, name in enumerate(RHYTHMS)}
        names = [name for name in SHARES if self.places[name][0]]
        shares = np.array([*(SHARES[name] for name in names), ANY, BAGS if self.bags else 0.0])
        self._kinds, self._shares = [*names, "", "bag"], shares / shares.sum()

    def batch(self, count: int) -> Batch:
        """Draw ``count`` windows."""
        drawn = [self._draw(self._kinds[kind]) for kind in self.rng.choice(len(self._kinds), count, p=self._shares)]
        windows, sets, bags, statements = zip(*drawn, strict=True)
        return Batch(np.stack(windows), token_sets(np.stack(sets), TOKEN), np.array(bags, np.int64), np.stack(statements))

    def _places(self, only: int) -> tuple[list[Cached], NDArray[np.float64], list[NDArray[np.int64]]]:
        """Return records that state exactly this class, their chances, and the starts and stops ``(N, 2)`` of its spans."""
        records, weights, spans = [], [], []
        for record in self.records:
            here = np.concatenate([[False], self.cache.rhythm(record) == only, [False]])
            edges = np.flatnonzero(here[1:] != here[:-1]).reshape(-1, 2)
            if len(edges):
                records.append(record)
                weights.append(int((edges[:, 1] - edges[:, 0]).sum()))
                spans.append(edges)
        return records, _chances(records, weights), spans

    def _draw(self, kind: str) -> tuple[NDArray[np.float32], NDArray[np.uint8], int, NDArray[np.float32]]:
        rng = self.rng
        bag = -1
        if kind == "bag":
            record = self.bags[rng.integers(len(self.bags))]
            start, bag = max(record.length - self.length, 0), record.bag
        elif kind == "":
            record = self.records[rng.choice(len(self.records), p=self._any)]
            start = int(rng.integers(max(record.length - self.length, 0) + 1))
        else:
            records, chances, spans = self.places[kind]
            which = int(rng.choice(len(records), p=chances))
            record, edges = records[which], spans[which]
            sizes = edges[:, 1] - edges[:, 0]
            span = edges[rng.choice(len(edges), p=sizes / sizes.sum())]
            place = int(rng.integers(span[0], span[1]))
            start = min(max(place - int(rng.integers(self.length)), 0), max(record.length - self.length, 0))
        window, sets = self.cache.cut(record, start, self.length)
        if self.augment is not None:
            window = self.augment(window, sets, rng, bool(bag >= 0))
        if record.window < 0:
            statements = np.full(self.classes, np.nan, np.float32)
        else:
            statements = np.array([record.window >> c & 1 for c in range(self.classes)], np.float32)
        return window, sets, bag, statements


def _chances(records: list[Cached], samples: list[int]) -> NDArray[np.float64]:
    """Return the chance of every record from how much of a class each holds."""
    held: dict[str, list[float]] = {}
    for record, count in zip(records, samples, strict=True):
        total = held.setdefault(record.database, [0.0, 0.0])
        total[0] += count
        total[1] += count**0.5
    chances = np.array(
        [(held[r.database][0] * count) ** 0.5 / held[r.database][1] for r, count in zip(records, samples, strict=True)], float
    )
    return chances / chances.sum() if len(chances) else chances


class Augment:
    """What a ward does to a signal: fewer leads, other gains, cables swapped, recorded noise, gaps. Sets are changed in place.

    Parameters
    ----------
    noise
        ``(N, T)`` recorded noise at 100 Hz; only its first ``share`` is used, so that the rest stays for tests.
    """

    def __init__(self, noise: NDArray[np.float32], share: float = 0.7) -> None:
        self.noise = noise[:, : int(noise.shape[1] * share)]

    def __call__(
        self, window: NDArray[np.float32], sets: NDArray[np.uint8], rng: np.random.Generator, whole: bool
    ) -> NDArray[np.float32]:
        """Return a changed copy of ``(12, T)``; ``whole`` forbids gaps (a bag must be seen as a whole)."""
        if rng.random() < 0.25:
            window, sets[:] = _warped(window, sets, rng)
        if rng.random() < 0.3:
            window = _projected(window, rng)
        window = _fewer_leads(window, rng)
        if rng.random() < 0.3:
            window = _more_leads(window, rng)
        if rng.random() < 0.2:
            window = _band_limited(window, rng)
        window = window * np.float32(np.exp(rng.uniform(np.log(0.6), np.log(1.7))))
        if rng.random() < 0.12:
            window = -window
        if rng.random() < 0.35:
            window = self._noisy(window, rng)
        if not whole and rng.random() < 0.12:
            _gap(window, sets, rng)
        return window

    def _noisy(self, window: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Add recorded noise at 2 to 24 dB below each lead."""
        length = window.shape[1]
        out = window.copy()
        which = rng.integers(len(self.noise) // 2)
        for lead in np.flatnonzero(np.isfinite(window).any(axis=1)):
            row = 2 * which + rng.integers(2)
            at = rng.integers(self.noise.shape[1] - length)
            noise = self.noise[row, at : at + length]
            power = np.nanstd(window[lead]) / max(float(noise.std()), 1e-3)
            out[lead] += noise * np.float32(power * 10 ** (-rng.uniform(2, 24) / 20))
        return out


def _warped(
    window: NDArray[np.float32], sets: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Play the window up to 12 % faster or slower: other rates of the same rhythm. What is lacking at the end is missing."""
    length = window.shape[1]
    at = np.arange(length) * float(np.exp(rng.uniform(-0.12, 0.12)))
    left = np.minimum(at.astype(int), length - 2)
    share = (at - left).astype(np.float32)
    out = window[:, left] * (1 - share) + window[:, left + 1] * share
    beyond = at > length - 1
    out[:, beyond] = np.nan
    warped = sets[left]
    warped[beyond] = UNSTATED
    return out, warped


def _projected(window: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Replace a lead by a mixture of two simultaneous ones: what electrodes elsewhere could have seen of the same heart."""
    there = np.flatnonzero(np.isfinite(window).any(axis=1))
    if len(there) < 2:
        return window
    first, second = rng.choice(there, 2, replace=False)
    angle = rng.uniform(0, 2 * np.pi)
    out = window.copy()
    out[first] = np.float32(np.cos(angle)) * window[first] + np.float32(np.sin(angle)) * window[second]
    return out


def _more_leads(window: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Spread one or two leads over six or twelve by random mixtures that obey Einthoven.

    The databases hold VT, VF and asystole in one or two leads only, and the number of leads must not speak for a rhythm.
    """
    there = np.flatnonzero(np.isfinite(window).any(axis=1))
    if not 1 <= len(there) <= 2:
        return window
    mix = rng.normal(0, 0.8, (len(LEADS), len(there))).astype(np.float32)
    mix[2:6] = np.array([[-1, 1], [-0.5, -0.5], [1, -0.5], [-0.5, 1]], np.float32) @ mix[:2]
    out: NDArray[np.float32] = np.einsum("ls,st->lt", mix, window[there])
    out += rng.normal(0, 0.005, out.shape).astype(np.float32)
    if rng.random() < 0.3:
        out[6:] = np.nan
    return out


def _band_limited(window: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Filter as a monitor of narrower band would: a first-order low-pass at 8 to 25 Hz or high-pass at 0.7 to 2 Hz."""
    if rng.random() < 0.5:
        b, a = butter(1, rng.uniform(8.0, 25.0), "lowpass", fs=MODEL_FS)
    else:
        b, a = butter(1, rng.uniform(0.7, 2.0), "highpass", fs=MODEL_FS)
    missing = ~np.isfinite(window)
    out: NDArray[np.float32] = lfilter(b, a, np.where(missing, 0, window)).astype(np.float32)
    out[missing] = np.nan
    return out


def _fewer_leads(window: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Keep a random part of the leads, and sometimes put a lone lead into a slot where devices put unnamed ones."""
    there = np.flatnonzero(np.isfinite(window).any(axis=1))
    if len(there) > 1 and rng.random() < (0.3 if len(there) == 2 else 0.6):
        keep = rng.choice(there, min(len(there) - 1, int(rng.integers(1, 4))), replace=False)
    else:
        keep = there
    out = np.full_like(window, np.nan)
    if len(keep) == 1 and rng.random() < 0.35:
        out[_SPECTRUM_SLOTS[rng.integers(len(_SPECTRUM_SLOTS))]] = window[keep[0]]
    else:
        out[keep] = window[keep]
    return out


def _gap(window: NDArray[np.float32], sets: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Lose 0.2 to 3 s of one lead or of all; where all are lost nothing is stated. Or let one of several leads go flat."""
    there = np.flatnonzero(np.isfinite(window).any(axis=1))
    if len(there) == 0:
        return
    length = int(rng.integers(20, 300))
    at = int(rng.integers(max(window.shape[1] - length, 1)))
    if len(there) > 1 and rng.random() < 0.7:
        lead = rng.choice(there)
        if rng.random() < 0.3:
            window[lead] = rng.normal(0, 0.003, window.shape[1])
        else:
            window[lead, at : at + length] = np.nan
    else:
        window[:, at : at + length] = np.nan
        sets[at : at + length] = UNSTATED
