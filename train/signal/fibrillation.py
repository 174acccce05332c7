"""Fit and measure the detector of fibrillation that needs no network.

    python -m train.signal.fibrillation --data ROOT --out ecgnat_stream/weights/fibrillation.json

Streams the training records through conditioning, quality and :class:`FibrillationDetector`, as the ward does, fits the weights
to single leads, and measures by cross-validation that leaves whole records out. ``--test`` measures the
shipped weights on the test records and fits nothing.
Shapes: T time, K frame of 0.2 s, S lead slot, F feature, N window, H hidden unit.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from ecgnat_stream.condition import Conditioner
from ecgnat_stream.fibrillation import FEATURES, FibrillationDetector, FibrillationWeights, shipped_weights, weigh
from ecgnat_stream.quality import STATES, QualityEstimator
from ecgnat_stream.signal import FRAME, FRAME_S, FS, LEADS
from train.data.labels import allow
from train.data.records import Record, read_database, read_noise
from train.data.splits import read_splits

__all__ = [
    "ENTER",
    "LEAVE",
    "MEAN_S",
    "FibrillationPiece",
    "FibrillationRun",
    "cross_validate",
    "episodes",
    "fit",
    "folds",
    "measure",
    "on_spans",
    "piece_of",
    "pieces",
    "scores",
    "stream",
    "targets",
    "windows",
]

DATABASES = ("mitdb", "vfdb", "cudb", "cinc2015", "cinc2017", "ptbxl", "cinc2020", "ludb", "nsrdb")
EVERY = 16
"""One in so many records of cinc2017 is taken: there are thousands of them, all much alike here."""

WINDOW = 20
"""Frames of the detector's window."""

MARGIN = 25
"""Frames (5 s) around an episode in which nothing is learned: onsets are marked where an expert was sure."""

MEAN_S = 3.0
ENTER, LEAVE = 0.7, 0.4
"""The rule that is measured: on when the mean score of the last ``MEAN_S`` is above ENTER, until it is below LEAVE."""

EPISODE_S = 5.0
"""Shorter episodes are not counted."""

FOLDS = 6
HIDDEN = 10
DECAY = 3.0
"""Hidden units, and weight decay in thousandths of the sum of squares: by cross-validation, which hardly tells them apart."""

STRIDE, PER_RECORD = (5, 2), (60, 150)
"""Frames between the windows learned from, without and with fibrillation, and the most of them from one lead of a record."""

GROUP_WEIGHT = {"cinc2017": 0.5, "ptbxl": 0.5}
"""What a window counts for; those of the groups that are not named, 1."""

PRIOR = 0.3
"""Share of fibrillation in what is fitted to, by weight."""

NOISE_S = 600.0
"""Seconds of each noise record that are trained with; the rest is for testing."""

SNR_DB = (6.0, 0.0)
MIXED_S = 60.0
"""Signal-to-noise ratios and length of the minutes with noise mixed in."""

UNTRUSTED = {"flat", "saturated", "clipped", "off", "missing"}
"""States of a lead, of those that the quality stage knows, in which the detector is not given it."""

UNSURE = {"v540s", "a145l", "a539l", "v564s"}
"""Records of cinc2015 that fibrillate, or look it, for long in what is stated to be about another rhythm."""

TOGETHER = {"202": "201"}
"""Records of mitdb that are of one person."""


@dataclass(frozen=True, slots=True)
class FibrillationPiece:
    """Signal ``(12, T)`` in mV with its truth ``(T,)``: 1 fibrillation, 0 none, -1 not stated or not counted."""

    group: str
    name: str
    fs: float
    samples: NDArray[np.float32]
    truth: NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class FibrillationRun:
    """What the detector measured of a piece: ``(F, K, S)`` features, ``(K, S)`` swing in mV, truth ``(K,)`` of every frame."""

    group: str
    name: str
    features: NDArray[np.float32]
    swing: NDArray[np.float32]
    truth: NDArray[np.int8]


def pieces(root: Path, test: bool) -> Iterator[FibrillationPiece]:
    """Yield what is trained with, or the test records."""
    splits = read_splits(root)
    for database in DATABASES:
        names = {name: split for name, split in splits.get(database, {}).items() if (split == "test") == test}
        if database == "cinc2017":
            names = dict(islice(names.items(), 0, None, EVERY))
        for record in read_database(root, database, names, []) if names else ():
            yield piece_of(record)
    yield from noisy(root, test)


def piece_of(record: Record) -> FibrillationPiece:
    """Return a record with what is said of fibrillation in it; ventricular tachycardia is not counted for either side."""
    possible = (record.rhythm & allow("VF")) > 0 if record.database not in ("cinc2015", "cinc2017") else np.array(False)
    uncounted = possible | (record.rhythm == allow("VT"))
    truth = np.where(record.rhythm == allow("VF"), 1, np.where(uncounted, -1, 0)).astype(np.int8)
    group = record.database
    if record.database == "cinc2015":
        truth[:] = -1 if record.name in UNSURE else 0
        group = "cinc2015 true alarm" if record.bag >= 0 else "cinc2015"
        if record.bag >= 0:
            truth[-round(20 * record.fs) :] = -1
    elif record.rhythm[0] == allow("NOISE") and (record.rhythm == record.rhythm[0]).all():
        group = f"{record.database} noise"
    return FibrillationPiece(group, record.name, record.fs, record.samples, truth)


def noisy(root: Path, test: bool) -> Iterator[FibrillationPiece]:
    """Yield the noise records alone, and mixed into a minute of each record of mitdb, from the part of both that is meant."""
    rng = np.random.default_rng(0)
    noises = list(read_noise(root))
    for name, fs, samples in noises:
        edge = round(NOISE_S * fs)
        part = samples[:, edge:] if test else samples[:, :edge]
        yield FibrillationPiece("nstdb", name, fs, part, np.zeros(part.shape[1], np.int8))
    splits = {name: split for name, split in read_splits(root).get("mitdb", {}).items() if (split == "test") == test}
    for record in read_database(root, "mitdb", splits, []) if splits and noises else ():
        clean = piece_of(record)
        length = round(MIXED_S * record.fs)
        for number, (_, fs, samples) in enumerate(noises):
            edge = round(NOISE_S * fs)
            low, high = (edge, samples.shape[1] - length) if test else (0, edge - length)
            begin, at = int(rng.integers(low, high)), int(rng.integers(0, clean.samples.shape[1] - length))
            noise = samples[:2, begin : begin + length] - samples[:2, begin : begin + length].mean(axis=1, keepdims=True)
            part = clean.samples[:, at : at + length].copy()
            leads = np.flatnonzero(~np.isnan(part).all(axis=1))
            for lead, added in zip(leads, noise, strict=False):
                height = np.quantile(part[lead], 0.99) - np.quantile(part[lead], 0.01)
                part[lead] += added * float(height / np.sqrt(8 * added.var() * 10 ** (SNR_DB[number % 2] / 10)))
            yield FibrillationPiece("mitdb with noise", record.name, record.fs, part, clean.truth[at : at + length])


def stream(source: Iterable[FibrillationPiece], at_once: int = 16) -> Iterator[FibrillationRun]:
    """Run pieces through the stages, several of one rate and similar length side by side."""
    waiting: dict[tuple[float, int], list[FibrillationPiece]] = defaultdict(list)
    for piece in source:
        key = (piece.fs, int(np.log2(piece.samples.shape[1])))
        waiting[key].append(piece)
        if len(waiting[key]) == at_once:
            yield from _together(waiting.pop(key))
    for rest in waiting.values():
        yield from _together(rest)


def _together(batch: list[FibrillationPiece]) -> Iterator[FibrillationRun]:
    fs, rows = batch[0].fs, np.arange(len(batch))
    conditioner, quality, detector = Conditioner(fs, len(rows)), QualityEstimator(len(rows)), FibrillationDetector(len(rows))
    frames = [int(piece.samples.shape[1] / fs / FRAME_S) - 1 for piece in batch]
    delivered = np.stack([~np.isnan(piece.samples).all(axis=1) for piece in batch])
    untrusted = np.array([state in UNTRUSTED for state in STATES])
    off = np.zeros((len(rows), len(LEADS)), bool)
    features, swing = [], []
    for k in range(max(frames)):
        number = np.full(len(rows), k, np.int64)
        starts, n = conditioner.needed(number)
        start = int(starts[0])
        raw = np.full((len(rows), len(LEADS), n), np.nan, np.float32)
        for row, piece in enumerate(batch):
            part = piece.samples[:, max(start, 0) : max(start + n, 0)]
            raw[row, :, max(-start, 0) : max(-start, 0) + part.shape[1]] = part
        y = conditioner.process(rows, number, raw)
        good = delivered & ~untrusted[quality.process(rows, raw, y, off).state]
        measured = detector.measure(rows, number, y, good)
        features.append(measured.features.astype(np.float32))
        swing.append(measured.swing.astype(np.float32))
    every, swings = np.stack(features, axis=2), np.stack(swing, axis=1)
    for row, piece in enumerate(batch):
        middle = ((np.arange(frames[row]) + 0.5) * FRAME / FS * fs).astype(np.int64)
        yield FibrillationRun(
            piece.group, piece.name, every[:, row, : frames[row]], swings[row, : frames[row]], piece.truth[middle]
        )


def targets(truth: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return what a window that ends with each frame is: 1 all of it fibrillation, 0 none of it nor near it, -1 neither."""

    def share(of: NDArray[np.bool_], back: int, ahead: int) -> NDArray[np.int64]:
        total = np.concatenate([[0], np.cumsum(of)])
        k = np.arange(len(of))
        return np.asarray(total[np.minimum(k + 1 + ahead, len(of))] - total[np.maximum(k + 1 - back, 0)])

    whole = share(truth == 1, WINDOW, 0) == WINDOW
    none = (share(truth == 1, WINDOW + MARGIN, MARGIN) == 0) & (share(truth != 0, WINDOW, 0) == 0)
    return np.where(whole, 1, np.where(none, 0, -1)).astype(np.int8)


def folds(runs: list[FibrillationRun]) -> NDArray[np.int64]:
    """Return which part of the cross-validation each run is in; a record, and a person, is in one of them only."""
    index: dict[str, int] = {}
    number = []
    for run in runs:
        name = TOGETHER.get(run.name, run.name)
        number.append(index.setdefault(name, len(index)) % FOLDS)
    return np.array(number)


def windows(runs: Iterable[FibrillationRun]) -> tuple[NDArray[np.float32], NDArray[np.int8], NDArray[np.float64]]:
    """Return features ``(N, F)``, targets and weights ``(N,)`` of single leads; no record counts for more than PER_RECORD."""
    x, target, weight = [], [], []
    for run in runs:
        kind = targets(run.truth)
        slots = [slot for slot in range(run.swing.shape[1]) if np.isfinite(run.swing[:, slot]).any()]
        for slot in slots:
            for value in (0, 1):
                usable = np.isfinite(run.swing[:, slot]) & (run.swing[:, slot] > 0.12) & (kind == value)
                at = np.flatnonzero(usable)[:: STRIDE[value]]
                at = at[:: -(-len(at) // PER_RECORD[value])] if len(at) else at
                x.append(run.features[:, at, slot].T)
                target.append(np.full(len(at), value, np.int8))
                weight.append(np.full(len(at), GROUP_WEIGHT.get(run.group, 1.0) / len(slots)))
    return np.concatenate(x), np.concatenate(target), np.concatenate(weight)


def fit(runs: Iterable[FibrillationRun], hidden: int = HIDDEN, decay: float = DECAY, seed: int = 0) -> FibrillationWeights:
    """Fit the network to windows of single leads, with weight decay, by L-BFGS."""
    x, target, weight = windows(runs)
    mean, spread = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    positive = target == 1
    weight = weight / np.where(positive, weight[positive].sum() / PRIOR, weight[~positive].sum() / (1 - PRIOR))
    scaled = torch.tensor(np.clip((x - mean) / spread, -3.0, 3.0), dtype=torch.float64)
    wanted, weights = torch.tensor(positive, dtype=torch.float64), torch.tensor(weight)
    generator = torch.Generator().manual_seed(seed)
    first = (0.3 * torch.randn(len(FEATURES), hidden, generator=generator, dtype=torch.float64)).requires_grad_()
    bias = torch.zeros(hidden, dtype=torch.float64, requires_grad=True)
    out = (0.3 * torch.randn(hidden, generator=generator, dtype=torch.float64)).requires_grad_()
    offset = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([first, bias, out, offset], max_iter=150, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        odds = torch.tanh(scaled @ first + bias) @ out + offset
        loss = (weights * torch.nn.functional.binary_cross_entropy_with_logits(odds, wanted, reduction="none")).sum()
        loss = loss + 1e-3 * decay * ((first**2).sum() + (out**2).sum())
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return FibrillationWeights(
        features=FEATURES,
        mean=_numbers(mean),
        spread=_numbers(spread),
        hidden=tuple(_numbers(row) for row in first.detach().numpy().T),
        bias=_numbers(bias.detach().numpy()),
        out=_numbers(out.detach().numpy()),
        offset=round(float(offset.detach()), 6),
    )


def _numbers(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(np.round(values, 6).tolist())


def scores(run: FibrillationRun, weights: FibrillationWeights) -> NDArray[np.float32]:
    """Return the bed's score ``(K,)``."""
    return FibrillationDetector(1).judge(weigh(run.features.astype(np.float64), weights), run.swing.astype(np.float64))


def on_spans(
    score: NDArray[np.float32], enter: float = ENTER, leave: float = LEAVE, mean_s: float = MEAN_S
) -> list[tuple[int, int]]:
    """Return the half-open spans of frames in which the rule is fulfilled; where there is no score, it is not."""
    length = round(mean_s / FRAME_S)
    known = np.concatenate([[0], np.cumsum(~np.isnan(score))])
    total = np.concatenate([[0.0], np.cumsum(np.nan_to_num(score), dtype=np.float64)])
    k = np.arange(1, len(score) + 1)
    before = np.maximum(k - length, 0)
    count = known[k] - known[before]
    mean = np.where(count > 0, (total[k] - total[before]) / np.maximum(count, 1), 0.0)
    mean = np.where(np.isnan(score), 0.0, mean)
    spans: list[tuple[int, int]] = []
    on = -1
    for at in np.flatnonzero((mean > enter) | (mean < leave)).tolist():
        if on < 0 and mean[at] > enter:
            on = at
        elif on >= 0 and mean[at] < leave:
            spans.append((on, at))
            on = -1
    return spans if on < 0 else [*spans, (on, len(score))]


def episodes(truth: NDArray[np.int8]) -> list[tuple[int, int]]:
    """Return the spans of frames with fibrillation that last EPISODE_S or longer."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], truth == 1, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2) if (b - a) * FRAME_S >= EPISODE_S]


def measure(runs: list[FibrillationRun], every: list[NDArray[np.float32]], **rule: float) -> dict[str, Any]:
    """Compare the scores ``(K,)`` of the runs with what is stated.

    Returns
    -------
    dict
        ``episodes``: per group how many of at least EPISODE_S there are, in which the rule was fulfilled, and within 10 s of the
        onset. ``windows``: sensitivity and specificity of the score at 0.5 over windows of 4 s, one per second. ``false``: per
        group, spans that meet no fibrillation (nor what is not counted), their sum in s, and per hour.
    """
    found: dict[str, dict[str, Any]] = defaultdict(
        lambda: {"episodes": 0, "found": 0, "within_10_s": 0, "after_s": [], "missed": []}
    )
    pairs: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    false: dict[str, dict[str, Any]] = defaultdict(lambda: {"hours": 0.0, "spans": 0, "seconds": 0.0, "where": []})
    for run, score in zip(runs, every, strict=True):
        spans = on_spans(score, **rule)
        for start, stop in episodes(run.truth):
            row = found[run.group]
            row["episodes"] += 1
            after = [max(a, start) - start for a, b in spans if a < stop and b > start]
            if after:
                row["found"] += 1
                row["within_10_s"] += after[0] * FRAME_S <= 10.0
                row["after_s"].append(after[0] * FRAME_S)
            if not after or after[0] * FRAME_S > 10.0:
                row["missed"].append(f"{run.name} at {start * FRAME_S:.0f} s, {(stop - start) * FRAME_S:.0f} s")
        kind = targets(run.truth)
        said = np.isfinite(score)
        for value in (0, 1):
            of = ((kind == value) & said)[::5]
            pairs[run.group][2 * value] += int(of.sum())
            pairs[run.group][2 * value + 1] += int(((score[::5] > 0.5) == bool(value))[of].sum())
        row = false[run.group]
        row["hours"] += float((run.truth == 0).sum()) * FRAME_S / 3600
        for start, stop in spans:
            if not (run.truth[max(start - MARGIN, 0) : stop] != 0).any():
                row["spans"] += 1
                row["seconds"] += (stop - start) * FRAME_S
                row["where"].append(f"{run.name} at {start * FRAME_S:.0f} s, {(stop - start) * FRAME_S:.0f} s")
    for row in found.values():
        after = row.pop("after_s")
        row["median_s"], row["worst_s"] = (round(float(np.median(after)), 1), round(max(after), 1)) if after else (None, None)
    table = {}
    for group, (none, right_none, some, right_some) in pairs.items():
        table[group] = {"vf": some, "se": _share(right_some, some), "other": none, "sp": _share(right_none, none)}
    for row in false.values():
        row["per_hour"] = round(row["spans"] / row["hours"], 2) if row["hours"] else None
        row["hours"], row["seconds"] = round(row["hours"], 2), round(row["seconds"], 1)
    return {"episodes": dict(found), "windows": table, "false": dict(false)}


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def cross_validate(runs: list[FibrillationRun]) -> list[NDArray[np.float32]]:
    """Return the scores of every run by weights fitted without its record."""
    part = folds(runs)
    every: dict[int, NDArray[np.float32]] = {}
    for fold in range(FOLDS):
        weights = fit(run for run, of in zip(runs, part, strict=True) if of != fold)
        every |= {i: scores(runs[i], weights) for i in np.flatnonzero(part == fold).tolist()}
        print(f"part {fold + 1} of {FOLDS}", file=sys.stderr)
    return [every[i] for i in range(len(runs))]


def main() -> None:
    """Fit, write the weights, print what the cross-validation found; or measure the test records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder per database")
    parser.add_argument("--out", type=Path, help="where the fitted weights go, as fibrillation.json")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--test", action="store_true", help="measure the shipped weights on the test records")
    arguments = parser.parse_args()
    runs = list(stream(pieces(arguments.data, arguments.test)))
    if arguments.test:
        every = [scores(run, shipped_weights()) for run in runs]
    else:
        every = cross_validate(runs)
        if arguments.out:
            arguments.out.write_bytes(msgspec.json.format(msgspec.json.encode(fit(runs)), indent=1) + b"\n")
    report = measure(runs, every)
    print(json.dumps(report, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
