"""Draw training windows from the cache: balanced over what they state, databases and records; augmented as a ward would.

Shapes: B batch, L lead (12), T time (100 Hz), P token of 0.32 s, so 4 P beat tokens of 80 ms; C class.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgnat_stream.beats import find_beats
from ecgnat_stream.codes import BEATS
from ecgnat_stream.model.heads import BEAT_TOKEN
from ecgnat_stream.model.preprocess import TOKEN
from ecgnat_stream.signal import LEADS
from train.data.augment import Augment, LabelledWindow
from train.data.labels import BEAT_UNSTATED, UNSTATED, allow, token_sets
from train.data.pack import Cached, check_pack
from train.data.records import SUPERCLASSES
from train.data.tasks import Task

__all__ = [
    "BEAT_HIDDEN",
    "BEAT_NONE",
    "BEAT_OTHER",
    "MIXES",
    "Cache",
    "Sampler",
    "Unlabelled",
    "as_batch",
    "batch_row",
    "beat_targets",
    "fraction_of",
]

MIXES: dict[str, dict[str, float]] = {
    "monitor": {
        "SINUS": 0.08, "AF": 0.05, "SVT": 0.04, "VT": 0.08, "VF": 0.08, "ASYSTOLE": 0.02, "PACED": 0.03, "NOISE": 0.04,
        "any": 0.03, "bag": 0.02, "screen": 0.33, "diagnosis": 0.07, "beat V": 0.08, "beat S": 0.05,
    },
    "screen": {"screen": 1.0},
    "diagnosis": {"diagnosis": 1.0},
    "task": {"task": 1.0},
}  # fmt: skip
"""What windows are drawn for: a stated rhythm, any place, an alarm's bag, a Challenge 2017 record, a diagnosed record, a beat,
or a record that states something for a task."""

BEAT_NONE, BEAT_OTHER, BEAT_HIDDEN = -1, len(BEATS), -2
"""Beat tokens without a beat, with one of unstated class, and those about which nothing is stated; else an index into BEATS."""

_VF = allow("VF")


class Cache:
    """The prepared records, mapped into memory."""

    def __init__(self, path: Path) -> None:
        check_pack(path)
        self.records = msgspec.json.decode((path / "records.json").read_bytes(), type=list[Cached])
        self._leads = np.memmap(path / "leads.f16", np.float16, "r")
        self._rhythm = np.memmap(path / "rhythm.u8", np.uint8, "r")
        self._beats = np.load(path / "beats.npy")
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

    def window(self, record: Cached, start: int, length: int) -> LabelledWindow:
        """Return a cut with all that is stated about its samples."""
        leads, sets = self.cut(record, start, length)
        beats = self.beats(record)
        if beats is not None:
            inside = beats[np.searchsorted(beats[:, 0], start) : np.searchsorted(beats[:, 0], start + length)]
            beats = inside - np.array([start, 0], np.float32)
        last = record.length if record.beats_stop < 0 else record.beats_stop
        return LabelledWindow(leads, sets, beats, (record.beats_start - start, last - start))

    def rhythm(self, record: Cached) -> NDArray[np.uint8]:
        """Return the sets of a whole record."""
        return self._rhythm[record.rhythm_at : record.rhythm_at + record.length]

    def beats(self, record: Cached) -> NDArray[np.float32] | None:
        """Return ``(N, 2)``: place of every beat in samples at 100 Hz, and its class; None where beats are not annotated."""
        if record.beats < 0:
            return None
        rows: NDArray[np.float32] = self._beats[record.beats_at : record.beats_at + record.beats]
        return rows

    def count(self, splits: tuple[str, ...]) -> dict[str, int]:
        """Return how many records of these splits each database gives."""
        return dict(Counter(record.database for record in self.records if record.split in splits))


class Sampler:
    """Draw a kind by share, then a record of that kind, then a place in it, then where in the window that place lies.

    The chance of a database, and of a record within it, grows with the square root of what it holds of the kind: neither one
    long record nor one database of many short ones stands for a class.

    Parameters
    ----------
    records
        What to draw from.
    mix
        Shares of the kinds, see :data:`MIXES`; kinds that no record holds are left out.
    lengths
        Samples per window; every batch draws one of them and has ``batch`` rows at the shortest, fewer at longer ones.
    views
        How often every cut is augmented; the views of a cut lie ``B / views`` rows apart.
    beats
        Whether the R peaks that the runtime's detector finds in the windows are wanted.
    task
        What the kind "task" is about; "window" then holds its targets, NaN for records that say nothing about it.
    """

    def __init__(
        self,
        cache: Cache,
        records: list[Cached],
        mix: dict[str, float],
        lengths: tuple[int, ...] = (1000,),
        batch: int = 32,
        augment: Augment | None = None,
        views: int = 1,
        beats: bool = False,
        task: Task | None = None,
    ) -> None:
        self.cache, self.records, self.lengths, self.size, self.task = cache, records, lengths, batch, task
        self.augment, self.views, self.beats = augment, views, beats
        self.rng = np.random.default_rng(0)
        self._places = {kind: self._find(kind) for kind in mix}
        there = [kind for kind in mix if self._places[kind][0]]
        if not there:
            raise ValueError(f"none of the {len(records)} records holds any of {', '.join(mix)}")
        shares = np.array([mix[kind] for kind in there])
        self._kinds, self._shares = there, shares / shares.sum()

    def reseed(self, *seed: int) -> None:
        """Make what follows depend on these numbers alone."""
        self.rng = np.random.default_rng(seed)

    def draw(self) -> dict[str, Tensor]:
        """Return one batch.

        Returns
        -------
        dict
            "windows" ``(B, 12, T)`` mV; "sets" ``(B, P)`` allowed classes; "bag" ``(B,)`` class that occurs somewhere, or -1;
            "window" ``(B, C)`` statements 0 or 1, or NaN; "screen" ``(B,)`` class or -1; "beat" ``(B, 4 P)`` as in
            :data:`BEAT_NONE`, and "place" ``(B, 4 P)`` of the peak in its token, 0..1; where beats are wanted "beats" ``(B, N)``.
        """
        length = self.lengths[self.rng.integers(len(self.lengths))]
        count = max(self.size * self.lengths[0] // (length * self.views), 1)
        drawn = [self._draw(self._kinds[kind], length) for kind in self.rng.choice(len(self._kinds), count, p=self._shares)]
        rows = []
        for _ in range(self.views):
            for record, window, bag in drawn:
                changed = window if self.augment is None else self.augment(window, self.rng, whole=bag >= 0)
                rows.append(batch_row(record, changed, bag, self.task))
        batch = as_batch(rows, self.beats)
        if self.beats and self.augment is not None:
            batch["beats"] = torch.from_numpy(self.augment.beats(batch["beats"].numpy(), length, self.rng))
        return batch

    def _find(self, kind: str) -> tuple[list[Cached], NDArray[np.float64], list[NDArray[np.int64]]]:
        """Return records that hold a kind, their chances, and the starts and stops ``(N, 2)`` of its spans."""
        records, weights, spans = [], [], []
        for record in self.records:
            edges = self._spans(kind, record)
            if len(edges):
                records.append(record)
                weights.append(int((edges[:, 1] - edges[:, 0]).sum()))
                spans.append(edges)
        if kind == "screen" or (kind == "task" and self.task and self.task.kind == "exclusive"):
            of = [record.screen for record in records]
            if kind == "task" and self.task:
                of = self.task.targets(records).argmax(axis=1).tolist()
            held = Counter(of)  # by class, like databases elsewhere
            chances = np.array([held[c] ** -0.5 for c in of])
            return records, chances / chances.sum(), spans
        return records, _chances(records, weights), spans

    def _spans(self, kind: str, record: Cached) -> NDArray[np.int64]:
        whole = np.array([[0, record.length]])
        nothing = np.empty((0, 2), np.int64)
        if kind == "any":
            return whole
        if kind == "bag":
            return whole if record.bag >= 0 else nothing
        if kind == "screen":
            return whole if record.screen >= 0 else nothing
        if kind == "diagnosis":
            return whole if record.window >= 0 else nothing
        if kind == "task":
            return whole if self.task and self.task.target(record) is not None else nothing
        if kind.startswith("beat "):
            beats = self.cache.beats(record)
            if beats is None:
                return nothing
            at = beats[beats[:, 1] == BEATS.index(kind.removeprefix("beat ")), 0].astype(np.int64)
            return np.stack([at, at + 1], axis=1)
        here = np.concatenate([[False], self.cache.rhythm(record) == allow(kind), [False]])
        return np.flatnonzero(here[1:] != here[:-1]).reshape(-1, 2)

    def _draw(self, kind: str, length: int) -> tuple[Cached, LabelledWindow, int]:
        rng = self.rng
        records, chances, spans = self._places[kind]
        which = int(rng.choice(len(records), p=chances))
        record, edges = records[which], spans[which]
        last = max(record.length - length, 0)
        if kind == "bag":
            return record, self.cache.window(record, last, length), record.bag
        sizes = edges[:, 1] - edges[:, 0]
        span = edges[rng.choice(len(edges), p=sizes / sizes.sum())]
        place = int(rng.integers(span[0], span[1]))
        start = min(max(place - int(rng.integers(length)), 0), last)
        return record, self.cache.window(record, start, length), -1


class Unlabelled:
    """Draw windows for pretraining: any place of any record, databases and records by the square root of what they hold."""

    def __init__(
        self, cache: Cache, splits: tuple[str, ...], length: int, batch: int, augment: Augment | None, beats: bool = False
    ) -> None:
        records = [record for record in cache.records if record.split in splits]
        self._sampler = Sampler(cache, records, {"any": 1.0}, (length,), batch, augment, beats=beats)

    def reseed(self, *seed: int) -> None:
        """Make what follows depend on these numbers alone."""
        self._sampler.reseed(*seed)

    def draw(self) -> dict[str, Tensor]:
        """Return "windows" ``(B, 12, T)``, and "beats" ``(B, N)`` where they are wanted."""
        drawn = self._sampler.draw()
        return {name: drawn[name] for name in ("windows", "beats") if name in drawn}


def beat_targets(window: LabelledWindow) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return class and place per beat token, ``(4 P,)``; hidden where no lead is there, in VF, or where beats are not marked."""
    samples = -(-window.leads.shape[1] // TOKEN) * TOKEN
    beat = np.full(samples // BEAT_TOKEN, BEAT_HIDDEN, np.int64)
    place = np.zeros(samples // BEAT_TOKEN, np.float32)
    if window.beats is None:
        return beat, place
    seen = np.isfinite(window.leads).any(axis=0) & (window.sets != _VF)
    whole = len(seen) // BEAT_TOKEN
    token = np.arange(whole) * BEAT_TOKEN
    marked = (token >= window.marked[0]) & (token + BEAT_TOKEN <= window.marked[1])
    beat[:whole][marked & seen[: whole * BEAT_TOKEN].reshape(whole, -1).all(axis=1)] = BEAT_NONE
    inside = window.beats[(window.beats[:, 0] >= 0) & (window.beats[:, 0] < whole * BEAT_TOKEN)]
    token = (inside[:, 0] // BEAT_TOKEN).astype(int)
    classes = np.where(inside[:, 1] == BEAT_UNSTATED, BEAT_OTHER, inside[:, 1]).astype(np.int64)
    visible = beat[token] != BEAT_HIDDEN
    beat[token[visible]] = classes[visible]
    place[token] = inside[:, 0] / BEAT_TOKEN - token
    return beat, place


def fraction_of(records: list[Cached], fraction: float, seed: int) -> list[Cached]:
    """Return a part of the records, at least one of every screening class and of every diagnosis combination's first class."""
    rng = np.random.default_rng(seed)
    groups: dict[tuple[int, int], list[Cached]] = {}
    for record in records:
        first = (record.window & -record.window).bit_length() if record.window > 0 else record.window
        groups.setdefault((record.screen, first), []).append(record)
    part: list[Cached] = []
    for _, members in sorted(groups.items()):
        count = max(round(fraction * len(members)), 1)
        part += [members[i] for i in rng.permutation(len(members))[:count]]
    return part


def batch_row(record: Cached, window: LabelledWindow, bag: int, task: Task | None = None) -> dict[str, NDArray[np.generic]]:
    """Return one row of a batch; with a task "window" is about it and nothing else is stated: all networks learn the same."""
    if record.window < 0:
        statements = np.full(len(SUPERCLASSES), np.nan, np.float32)
    else:
        statements = np.array([record.window >> c & 1 for c in range(len(SUPERCLASSES))], np.float32)
    beat, place = beat_targets(window)
    sets, screen = token_sets(window.sets, TOKEN), record.screen
    if task:
        target = task.target(record)
        statements = np.full(len(task.classes), np.nan, np.float32) if target is None else target
        sets, beat = np.full_like(sets, UNSTATED), np.full_like(beat, BEAT_HIDDEN)
        screen = bag = -1
    return {
        "windows": window.leads,
        "sets": sets,
        "bag": np.array(bag, np.int64),
        "window": statements,
        "screen": np.array(screen, np.int64),
        "beat": beat,
        "place": place,
    }


def as_batch(rows: list[dict[str, NDArray[np.generic]]], beats: bool = False) -> dict[str, Tensor]:
    """Stack rows into a batch; with ``beats``, add the R peaks found in the windows, ``(B, N)``, NaN behind the last."""
    batch = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
    if beats:
        batch["beats"] = torch.from_numpy(find_beats(batch["windows"].numpy()))
    return batch


def _chances(records: list[Cached], samples: list[int]) -> NDArray[np.float64]:
    """Return the chance of every record from how much of a kind each holds."""
    held: dict[str, list[float]] = {}
    for record, count in zip(records, samples, strict=True):
        total = held.setdefault(record.database, [0.0, 0.0])
        total[0] += count
        total[1] += count**0.5
    chances = np.array(
        [(held[r.database][0] * count) ** 0.5 / held[r.database][1] for r, count in zip(records, samples, strict=True)], float
    )
    return chances / chances.sum() if len(chances) else chances
