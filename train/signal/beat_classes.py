"""Fit the beat classifier of the signal path on the training records of mitdb.

    python -m train.signal.beat_classes --data ROOT --out ecgnat_stream/weights/beats.json [--cross-validate]
    python -m train.signal.beat_classes --data ROOT --test ecgnat_stream/weights/beats.json

The records go through the monitor's own conditioning, quality, detector and gallery: as they are, each lead alone, and with
noise of nstdb in other proportions. Beats get the class of the expert's mark within 150 ms, detections without a mark count as
N. Logistic regressions are fitted: V against the rest, S against N, and V by width alone. The weights of a feature may only have
the sign that physiology gives it: without that, cross-validation over patients is clearly worse (docs/measured/beats.md). The
streams of :mod:`train.signal.conduction` are measured beside it, not learnt from.

Shapes: B beat, F feature.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from ecgnat_stream.beats import BeatClassifier, QrsDetector
from ecgnat_stream.beats.classify import LIMIT, BeatWeights, Regression, log_odds
from ecgnat_stream.beats.gallery import FEATURES
from ecgnat_stream.codes import BEATS
from ecgnat_stream.condition import Conditioner
from ecgnat_stream.quality import QualityEstimator
from ecgnat_stream.score.compare import LEARNING_S, match_beats
from ecgnat_stream.signal import FRAME, FS, LEADS
from train.data.labels import allow
from train.data.records import Record, read_database, read_noise
from train.data.splits import read_splits
from train.signal.conduction import BLOCK, donors, streams, ventricular_donors

__all__ = ["SIGNS", "Beats", "Score", "fit", "measure", "score", "variants"]

PACED = ("102", "104", "107", "217")
"""Records that EC57 leaves out; their paced beats count as N in the fit, with little weight."""

THIN = 3
"""Every so many-th beat of class N is learnt from, with so much more weight; there are more than enough of them."""

SAME_PERSON = {"202": "201"}
RECORDS_AT_ONCE, COMPOSED_AT_ONCE = 9, 24
FOLDS = 9

_N, _S, _V, _F, _Q = range(len(BEATS))
FALSE = len(BEATS)
"""Class of a detection without a mark. :data:`train.signal.conduction.BLOCK` is one more class that counts as N."""

_EARLIER = ("rr_median", "rr_before", "rr_usual", "surprise", "on_time")
_UNLIKE = {"alike": -1, "alike_worst": -1, "alike_best": -1, "rest": 1, "p_rest": 1, "t_rest": 1}
_WIDER = {"spread": 1, "width": 1, "slope": -1, "area": 1, "late": 1, "discordant": -1}
_ODD = {**dict.fromkeys(_EARLIER, -1), **_UNLIKE, **_WIDER, **{f"{name}_change": sign for name, sign in _WIDER.items()}}
SIGNS = {
    **_ODD,
    **{f"own_{name}": sign for name, sign in _ODD.items()},
    "own_share": -1,
    "own_usual": -1,
    "own_in_time": -1,
    "own_after": 1,
}
"""What speaks for V (1) or against it (-1): earlier or not on time, unlike the usual beat, wider, rarer; the rest is free."""

_BROAD = {"own_spread": 1, "own_width": 1, "own_slope": -1, "own_area": 1, "own_late": 1}
"""The features, and signs, that tell a broad complex without a comparison."""

_SIGNS_S = {**dict.fromkeys((*_EARLIER, *(f"own_{name}" for name in _EARLIER)), -1)}

RIDGE = 0.01
V_BIAS = 0.25
"""Log-odds added for V, so that sensitivity and predictivity of the cross-validation are about equal."""

BROAD_BIAS = -0.7
"""Log-odds added for V by width alone: bundle branch block stays below 0."""

STREAMS, NORMALS = 2, 60
"""Composed streams of every donor, and how many persons with normal records they are laid in."""

NOISE_SHARE, NOISE_SNR = 0.7, (0.1, 0.7)
"""Of noisy copies: share of 30 s stretches with noise, and its standard deviation over that of the lead."""


@dataclass(frozen=True, slots=True)
class Beats:
    """What was found in one copy of a record.

    Parameters
    ----------
    at_s, features, label
        ``(B,)`` time, ``(B, F)`` features (NaN: none), ``(B,)`` index into ``codes.BEATS`` or :data:`FALSE`.
    missed_s, missed
        Times and classes of the marks that no detection matched.
    weight
        Of the copy: 1 for the record as it is.
    """

    name: str
    weight: float
    at_s: NDArray[np.float64]
    features: NDArray[np.float64]
    label: NDArray[np.int64]
    missed_s: NDArray[np.float64]
    missed: NDArray[np.int64]


@dataclass(slots=True)
class Score:
    """Counts of one class as EC57 has them: ventricular fusion and paced beats called V are no false ones."""

    hits: int = 0
    missed: int = 0
    false: int = 0

    def __str__(self) -> str:
        """Say how many are marked, and are called so without being it; sensitivity and positive predictivity."""
        marked, called = max(self.hits + self.missed, 1), max(self.hits + self.false, 1)
        f1 = 2 * self.hits / max(2 * self.hits + self.missed + self.false, 1)
        rates = f"Se {self.hits / marked:.4f}, +P {self.hits / called:.4f}, F1 {f1:.4f}"
        return f"{self.hits + self.missed} beats, {self.false} false, {rates}"


def variants(
    record: Record, noise: Sequence[NDArray[np.float32]], rng: np.random.Generator
) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """Yield weight and samples of copies of a record: as it is, each lead alone, and with noise where there is some.

    Polarity and amplitude need none: no feature depends on them.
    """
    yield 1.0, record.samples
    leads = np.flatnonzero(~np.isnan(record.samples).all(axis=1))
    for lead in leads if len(leads) > 1 else ():
        yield 0.5, np.where(np.arange(len(LEADS))[:, None] == lead, record.samples, np.float32(np.nan))
    if noise:
        noisy, stretch = record.samples.copy(), round(30 * record.fs)
        for lead in leads:
            for start in range(0, noisy.shape[1], stretch):
                part = noisy[lead, start : start + stretch]
                source = noise[int(rng.integers(len(noise)))]
                begin = rng.integers(0, len(source) - len(part))
                added = source[begin : begin + len(part)]
                size = rng.uniform(*NOISE_SNR) * float(np.nanstd(part)) / max(float(added.std()), 1e-6)
                if rng.random() < NOISE_SHARE:
                    part += np.float32(size) * (added - added.mean())
        yield 0.5, noisy


def measure(samples: NDArray[np.float32], fs: float) -> list[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.str_]]]:
    """Stream records of one rate side by side; return the times, features and labels of each one's beats.

    Parameters
    ----------
    samples
        ``(R, 12, T)`` mV, NaN where missing.
    """
    count, _, length = samples.shape
    rows, off = np.arange(count), np.zeros((count, len(LEADS)), bool)
    delivered = ~np.isnan(samples).all(axis=2)
    conditioner, quality = Conditioner(fs, count), QualityEstimator(count)
    detector, classifier = QrsDetector(count), BeatClassifier(count)
    row, at, features, labels = [], [], [], []
    for k in range(int(length / fs / FRAME * FS)):
        frame = np.full(count, k, np.int64)
        starts, n = conditioner.needed(frame)
        start = int(starts[0])
        raw = np.full((count, len(LEADS), n), np.nan, np.float32)
        low, high = max(start, 0), min(start + n, length)
        raw[:, :, low - start : high - start] = samples[:, :, low:high]
        y = conditioner.process(rows, frame, raw)
        sqi = quality.process(rows, raw, y, off).sqi * delivered
        beats = detector.process(rows, frame, y, sqi)
        labels.append(classifier.process(rows, frame, y, sqi, beats))
        row.append(beats.row)
        at.append(beats.at / FS)
        features.append(np.where((labels[-1] == "Q")[:, None], np.nan, classifier.features))
    found = tuple(np.concatenate(parts) for parts in (row, at, features, labels))
    order = np.lexsort((found[1], found[0]))
    of, time, feature, label = (part[order] for part in found)
    return [(time[of == r], feature[of == r], label[of == r]) for r in rows]


def collect(records: Iterable[Record], noise: Sequence[NDArray[np.float32]], rng: np.random.Generator) -> Iterator[Beats]:
    """Stream the copies of some records of one length and rate."""
    copies, of = [], []
    for record in records:
        for weight, samples in variants(record, noise, rng):
            copies.append(samples)
            of.append((record, weight))
    if not copies:
        return
    for (record, weight), (at_s, features, _) in zip(of, measure(np.stack(copies), of[0][0].fs), strict=True):
        if record.beats is None or record.beat_class is None:
            raise ValueError(f"{record.database} {record.name} has no beat marks: it cannot be learnt from")
        marks_s, classes = record.beats / record.fs, record.beat_class.astype(np.int64)
        mark, by = match_beats(marks_s, at_s)
        missed = np.setdiff1d(np.arange(len(marks_s)), mark)
        label = np.full(len(at_s), FALSE)
        label[by] = classes[mark]
        here = np.minimum((at_s * record.fs).astype(np.int64), len(record.rhythm) - 1)
        keep = record.rhythm[here] != allow("VF")  # the waves of flutter are not marked
        yield Beats(record.name, weight, at_s[keep], features[keep], label[keep], marks_s[missed], classes[missed])


def fit(parts: Sequence[Beats]) -> BeatWeights:
    """Fit the regressions; every record and class weighs as the root of its beats."""
    features = np.concatenate([part.features for part in parts])
    label = np.concatenate([part.label for part in parts])
    weight = np.concatenate([_weights(part) for part in parts])
    usable = ~np.isnan(features).any(axis=1) & (label != _F) & (weight > 0.0)
    features, label, weight = features[usable], label[usable], weight[usable]
    low, high = np.percentile(features, [1, 99], axis=0)
    centre = np.median(features, axis=0)
    scale = np.maximum(np.clip(features, low, high).std(axis=0), 1e-3)
    z = np.clip((features - centre) / scale, -LIMIT, LIMIT)
    v = _regress(z, label == _V, weight, [SIGNS.get(name, 0) for name in FEATURES])
    v[-1] += V_BIAS
    rest = label != _V
    s = _regress(z[rest], label[rest] == _S, weight[rest], [_SIGNS_S.get(name, 0) for name in FEATURES])
    only = [FEATURES.index(name) for name in _BROAD]
    known = (label != FALSE) & (label != _Q)
    broad = np.zeros(len(FEATURES) + 1)
    broad[[*only, -1]] = _regress(z[known][:, only], label[known] == _V, weight[known], list(_BROAD.values()))
    broad[-1] += BROAD_BIAS
    centred, scaled, *lines = (tuple(round(float(x), 5) for x in part) for part in (centre, scale, v, s, broad))
    return BeatWeights(FEATURES, centred, scaled, *(Regression(line[:-1], line[-1]) for line in lines))


def _weights(part: Beats) -> NDArray[np.float64]:
    classes = np.where(np.isin(part.label, (_S, _V, _F)), part.label, _N)
    counts = np.bincount(classes)
    weight: NDArray[np.float64] = part.weight / np.sqrt(counts[classes])
    thinned = np.where(classes == _N, np.where(np.cumsum(classes == _N) % THIN, 0.0, THIN), 1.0)
    return np.where(part.label == _Q, 0.3, 1.0) * thinned * weight


def _regress(
    z: NDArray[np.float64], yes: NDArray[np.bool_], weight: NDArray[np.float64], signs: Sequence[int]
) -> NDArray[np.float64]:
    """Return ``(F + 1,)`` weights and offset of a ridge logistic regression whose weights have given signs (0: free)."""
    turn = np.where(yes, 1.0, -1.0)
    weight = weight / weight.sum()

    def loss(b: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = turn * (z @ b[:-1] + b[-1])
        pull = -weight * turn / (1.0 + np.exp(np.clip(margin, -50.0, 50.0)))
        value = float((weight * np.logaddexp(0.0, -margin)).sum() + 0.5 * RIDGE * np.square(b[:-1]).sum())
        return value, np.append(z.T @ pull + RIDGE * b[:-1], pull.sum())

    bounds = [{1: (0.0, None), -1: (None, 0.0)}.get(sign, (None, None)) for sign in signs]
    found = minimize(loss, np.zeros(len(signs) + 1), jac=True, method="L-BFGS-B", bounds=[*bounds, (None, None)])
    b: NDArray[np.float64] = found.x
    return b


def score(part: Beats, weights: BeatWeights, since_s: float = LEARNING_S) -> tuple[Score, Score]:
    """Return the counts of V and S after ``since_s``; a beat without features is "Q"."""
    there = ~np.isnan(part.features).any(axis=1)
    v, s = log_odds(np.nan_to_num(part.features), weights)
    late = part.at_s >= since_s
    called = np.where(~there, _Q, np.where(v > 0.0, _V, np.where(s > 0.0, _S, _N)))[late]
    label, missed = part.label[late], part.missed[part.missed_s >= since_s]
    wrong_v, wrong_s = np.isin(label, (_N, _S, FALSE, BLOCK)), np.isin(label, (_N, _V, _F, FALSE, BLOCK))
    return tuple(
        Score(
            int(((label == kind) & (called == kind)).sum()),
            int(((label == kind) & (called != kind)).sum() + (missed == kind).sum()),
            int((wrong & (called == kind)).sum()),
        )
        for kind, wrong in ((_V, wrong_v), (_S, wrong_s))
    )  # type: ignore[return-value]


def called_v(part: Beats, weights: BeatWeights) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return of blocked and of ventricular beats, how many are called V, and of how many."""
    there = ~np.isnan(part.features).any(axis=1)
    v = there & (log_odds(np.nan_to_num(part.features), weights)[0] > 0.0)
    blocked, ventricular = (there & (part.label == kind) for kind in (BLOCK, _V))
    return (int((v & blocked).sum()), int(blocked.sum())), (int((v & ventricular).sum()), int(ventricular.sum()))


def _print(parts: Sequence[tuple[Beats, Score, Score]]) -> None:
    """Print records and gross figures, records with pacemakers left out."""
    gross = [Score(), Score()]
    for part, *scores in parts:
        print(f"{part.name}{' (left out)' if part.name in PACED else ''}: V {scores[0]}; S {scores[1]}")
        for total, one in zip(gross, scores, strict=True):
            if part.name not in PACED:
                total.hits, total.missed, total.false = total.hits + one.hits, total.missed + one.missed, total.false + one.false
    print(f"gross from {LEARNING_S:g} s: V {gross[0]}; S {gross[1]}")


def _read(root: Path, splits: dict[str, str], noise: Sequence[NDArray[np.float32]], rng: np.random.Generator) -> list[Beats]:
    names = sorted(splits)
    parts: list[Beats] = []
    for at in range(0, len(names), RECORDS_AT_ONCE):
        some = {name: splits[name] for name in names[at : at + RECORDS_AT_ONCE]}
        parts += collect(read_database(root, "mitdb", some), noise, rng)
        print(f"streamed {', '.join(some)}", flush=True)
    return parts


def _compose(
    root: Path, splits: dict[str, dict[str, str]], noise: Sequence[NDArray[np.float32]], rng: np.random.Generator
) -> list[Beats]:
    """Stream what :mod:`train.signal.conduction` composes of the training parts."""
    blocked, normal = donors(root, splits, lambda samples, fs: [at_s for at_s, *_ in measure(samples, fs)], NORMALS)
    names = {name: part for name, part in splits["mitdb"].items() if part != "test"}
    ventricular = ventricular_donors(read_database(root, "mitdb", names))
    print(f"{len(blocked)} with bundle branch block and {len(ventricular)} with ventricular beats into {len(normal)} normal ones")
    parts: list[Beats] = []
    records = streams(blocked, normal, ventricular, STREAMS, rng)
    while some := list(islice(records, COMPOSED_AT_ONCE)):
        parts += collect(some, noise, rng)
    return parts


def _cross_validate(parts: Sequence[Beats], composed: Sequence[Beats]) -> None:
    """Print the figures of fits without groups of three of the persons whose beats they are of."""
    person = {part.name: SAME_PERSON.get(part.name, part.name) for part in (*parts, *composed)}
    fold: dict[str, int] = {}
    for group in ({person[part.name] for part in parts}, {part.name for part in composed} - {part.name for part in parts}):
        fold |= {name: at % FOLDS for at, name in enumerate(sorted(group))}
    results, blocks = [], []
    for number in range(FOLDS):
        inner, outer = ([part for part in parts if (fold[person[part.name]] == number) == out] for out in (False, True))
        weights = fit(inner)
        results += [(part, *score(part, weights)) for part in outer]
        blocks += [(part.weight == 1.0, *called_v(part, weights)) for part in composed if fold[person[part.name]] == number]
    for copies in (True, False):
        print("all leads" if copies else "one lead alone, or noise")
        _print([result for result in results if (result[0].weight == 1.0) == copies])
        counts = np.sum([[block, v] for whole, block, v in blocks if whole == copies], axis=0)
        for name, (called, beats) in zip(("bundle branch block", "ventricular"), counts, strict=True):
            print(f"composed streams, {name}: {called / max(beats, 1):.4f} of {beats} beats called V")


def main() -> None:
    """Fit on the training records; with ``--test`` only measure the shipped weights on the test records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cross-validate", action="store_true", help="leave out three persons at a time, and print the figures")
    parser.add_argument("--test", type=Path, help="measure these weights on the test records")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    everything = read_splits(arguments.data)
    splits = everything["mitdb"]
    if arguments.test:
        weights = msgspec.json.decode(arguments.test.read_bytes(), type=BeatWeights)
        tested = _read(arguments.data, {name: part for name, part in splits.items() if part == "test"}, (), rng)
        for copies in (True, False):
            print("all leads" if copies else "one lead alone")
            _print([(part, *score(part, weights)) for part in tested if (part.weight == 1.0) == copies])
        return
    noise = [lead[: len(lead) // 2] for _, _, samples in read_noise(arguments.data) for lead in samples[:2]]
    parts = _read(arguments.data, {name: part for name, part in splits.items() if part != "test"}, noise, rng)
    if arguments.out:
        arguments.out.write_bytes(msgspec.json.format(msgspec.json.encode(fit(parts)), indent=1) + b"\n")
    if arguments.cross_validate:
        _cross_validate(parts, _compose(arguments.data, everything, noise, rng))


if __name__ == "__main__":
    main()
