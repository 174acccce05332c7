"""What the quality stage makes of noise and of hearts.

    python tests/bench/bench_quality.py --data ROOT [--split test] [--json FILE] [--fit]

Noise of nstdb, scaled to an SNR per lead (power of the QRS complexes as nst defines it, peak-to-peak squared over 8), is mixed
into 60 s of every mitdb record of the split; rhythms and noise of vfdb, cudb, cinc2015 (16 s before true alarms), cinc2017 as
annotated. Prints per group the mean index, the share of noisy lead-frames, and the share of frames in which the bed is usable.
The last 5 minutes of each noise are used. With --fit, prints the weights for ``ecgnat_stream/quality.py``: logistic regression
on the training records and the first 10 minutes of each noise.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import wfdb
from numpy.typing import NDArray
from scipy.optimize import minimize

from ecgnat_stream.condition import Conditioner
from ecgnat_stream.quality import STATES, QualityEstimator
from ecgnat_stream.signal import FRAME_S

SLOTS = (0, 6)  # I and V1, from which no other lead is derived
SNR_DB = (24, 18, 12, 6, 0)
TUNED_S = 600
SKIP = 10  # frames at the beginning of every piece
BEATS = list("NLRBAaJSVrFejnE/fQ")
SICK = {
    "vfdb VFIB": 4,
    "vfdb VFL": 4,
    "cudb VF": 6,
    "cinc2015 Ventricular_Flutter_Fib": 4,
    "vfdb ASYS": 5,
    "cinc2015 Asystole": 5,
}
SICK |= {"vfdb VT": 4, "cinc2015 Ventricular_Tachycardia": 8, "cinc2015 Tachycardia": 4}
SICK |= {"mitdb AFIB": 3, "mitdb AFL": 4, "mitdb B": 3, "mitdb N": 3}
NOISY = {"bw alone": 1.5, "em alone": 2, "ma alone": 2, "em 0 dB": 3, "ma 0 dB": 3, "bw 0 dB": 1, "em 6 dB": 1, "ma 6 dB": 1}
NOISY |= {"vfdb NOISE": 0.7, "cinc2017 ~": 0.7}
BETWEEN = {"em 12 dB": 0.5, "ma 12 dB": 0.5, "bw 12 dB": 0.5, "bw 6 dB": 0.5}

Piece = tuple[NDArray[np.float32], list[tuple[str, float, float]]]
"""Samples ``(T, leads)`` and what they are: group, from, to (s)."""


class Listening(QualityEstimator):
    """Keeps what the index weighs."""

    def measure(self, rows: NDArray[np.intp], y: NDArray[np.float32]) -> NDArray[np.float32]:
        """Measure as the stage does."""
        self.last = super().measure(rows, y)
        return self.last


def names(root: Path, database: str, split: str) -> list[str]:
    """Return the records of a split; what is not test is for training."""
    with (root / "splits.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["database"] == database]
    return [row["record"] for row in rows if (row["split"] == "test") == (split == "test")]


def annotated(root: Path, database: str, split: str) -> Iterator[Piece]:
    """Yield whole records of mitdb or vfdb with their rhythms."""
    for name in names(root, database, split):
        record, marks = wfdb.rdrecord(str(root / database / name)), wfdb.rdann(str(root / database / name), "atr")
        notes = [(s / record.fs, n.strip("\0( ")) for s, n in zip(marks.sample, marks.aux_note, strict=True) if n.startswith("(")]
        stops = [at for at, _ in notes[1:]] + [record.sig_len / record.fs]
        what = [(f"{database} {note}", at, stop) for (at, note), stop in zip(notes, stops, strict=True)]
        ventricular = sum(symbol == "V" for symbol in marks.symbol) >= 100 if database == "mitdb" else False
        yield record.p_signal, [*what, *([("mitdb with 100 PVC or more", 0.0, stops[-1])] if ventricular else [])]


def fibrillating(root: Path, split: str) -> Iterator[Piece]:
    """Yield cudb with its fibrillation."""
    with (root / "cudb" / "vf_episodes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for name in names(root, "cudb", split):
        spans = [("cudb VF", int(row["start"]) / 250, int(row["stop"]) / 250) for row in rows if row["record"] == name]
        yield wfdb.rdrecord(str(root / "cudb" / name)).p_signal, spans


def alarming(root: Path, split: str) -> Iterator[Piece]:
    """Yield cinc2015 with the 16 s before true alarms."""
    for name in names(root, "cinc2015", split):
        record = wfdb.rdrecord(str(root / "cinc2015" / name))
        alarm, verdict = (comment.strip("# ") for comment in record.comments[:2])
        stop = record.sig_len / record.fs
        if verdict == "True alarm":
            yield record.p_signal, [(f"cinc2015 {alarm}", stop - 16, stop)]


def handheld(root: Path, split: str) -> Iterator[Piece]:
    """Yield the first 150 recordings of each class of cinc2017."""
    signal = np.load(root / "cinc2017" / "signal_100hz_4uV_int16.npy", mmap_mode="r")
    chosen, count = set(names(root, "cinc2017", split)), defaultdict(int)
    with (root / "cinc2017" / "index.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["record"] in chosen and count[row["label"]] < 150:
                count[row["label"]] += 1
                start, stop = int(row["start"]), int(row["stop"])
                yield signal[start:stop, None] * np.float32(0.004), [(f"cinc2017 {row['label']}", 0.0, (stop - start) / 100)]


def mixed(root: Path, split: str, tuning: bool) -> Iterator[Piece]:
    """Yield the noises alone, and mixed into a minute of every record."""
    rng, edge = np.random.default_rng(0), TUNED_S * 360
    noises = {name: wfdb.rdrecord(str(root / "nstdb" / name)).p_signal for name in ("bw", "em", "ma")}
    noises = {name: noise[:edge] if tuning else noise[edge:] for name, noise in noises.items()}
    for name, noise in noises.items():
        yield noise, [(f"{name} alone", 0.0, len(noise) / 360)]
    minute = 60 * 360
    for record in names(root, "mitdb", split):
        signal, marks = wfdb.rdrecord(str(root / "mitdb" / record)).p_signal, wfdb.rdann(str(root / "mitdb" / record), "atr")
        beats = marks.sample[np.isin(marks.symbol, BEATS)]
        for name, noise in noises.items():
            at, begin = 0, int(rng.integers(len(noise) - minute))
            while ((beats > at) & (beats < at + minute)).sum() <= 25 or at == 0:
                at = int(rng.integers(1, len(signal) - minute))
            near = beats[(beats > at + 60) & (beats < at + minute - 60)]
            height = np.median([np.ptp(signal[beat - 18 : beat + 18], axis=0) for beat in near], axis=0)
            part = noise[begin : begin + minute] - noise[begin : begin + minute].mean(axis=0)
            for snr in SNR_DB:
                gain = np.sqrt(height**2 / 8 / part.var(axis=0) / 10 ** (snr / 10))
                yield signal[at : at + minute] + gain * part, [(f"{name} {snr} dB", 0.0, 60.0)]


def run(pieces: list[Piece], fs: float) -> Iterator[tuple[str, NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Stream pieces side by side; yield group, index and state ``(K, leads)``, usable ``(K,)``, measured ``(K, leads, 8)``."""
    rows, frames = np.arange(len(pieces)), np.array([int(len(x) / fs / FRAME_S) - 1 for x, _ in pieces])
    conditioner, estimator, off = Conditioner(fs, len(rows)), Listening(len(rows)), np.zeros((len(rows), 12), bool)
    slots, all_of = list(SLOTS[: pieces[0][0].shape[1]]), []
    for k in range(max(frames)):
        number = np.full(len(rows), k)
        starts, n = conditioner.needed(number)
        start, raw = int(starts[0]), np.full((len(rows), 12, n), np.nan, np.float32)
        for row, (x, _) in enumerate(pieces):
            part = x[max(start, 0) : max(start + n, 0)]
            raw[row, slots, max(-start, 0) : max(-start, 0) + len(part)] = part.T
        judged = estimator.process(rows, raw, conditioner.process(rows, number, raw), off)
        all_of.append(
            (judged.sqi[:, slots], judged.state[:, slots], judged.usable, estimator.last[:, :, slots].transpose(1, 2, 0))
        )
    sqi, state, usable, measured = (np.stack(part, axis=1) for part in zip(*all_of, strict=True))
    for row, (_, what) in enumerate(pieces):
        for group, begin, end in what:
            of = slice(max(SKIP, int(begin / FRAME_S)), min(int(end / FRAME_S), frames[row]))
            yield group, sqi[row, of], state[row, of], usable[row, of], measured[row, of]


def everything(root: Path, split: str, tuning: bool) -> dict[str, list[NDArray[Any]]]:
    """Return group -> index, state, usable, measured over all its frames."""
    found: dict[str, list[tuple[NDArray[Any], ...]]] = defaultdict(list)
    noise = list(mixed(root, split, tuning))
    sources: list[tuple[list[Piece], float]] = [(noise[:3], 360), (noise[3:], 360), (list(alarming(root, split)), 250)]
    sources += [(list(annotated(root, "mitdb", split)), 360), (list(annotated(root, "vfdb", split)), 250)]
    sources += [(list(fibrillating(root, split)), 250), (list(handheld(root, split)), 100)]
    for pieces, fs in sources:
        for group, *values in run(pieces, fs):
            found[group].append(tuple(values))
    return {group: [np.concatenate(part) for part in zip(*found[group], strict=True)] for group in sorted(found)}


def fit(groups: dict[str, list[NDArray[Any]]]) -> None:
    """Print the weights of a logistic regression, noise 1 and all else 0, groups weighed as above."""
    rng = np.random.default_rng(0)
    x, noisy, weight = [], [], []
    for group, (*_, measured) in groups.items():
        lines = measured.reshape(-1, 8)
        lines = lines[rng.permutation(len(lines))[:1500]]
        x.append(lines)
        noisy.append(np.full(len(lines), group in NOISY))
        share = NOISY.get(group, SICK.get(group, BETWEEN.get(group, 1.0)))
        weight.append(np.full(len(lines), share * 1500 / max(len(lines), 300)))
    every, target, weights = np.concatenate(x).astype(float), np.concatenate(noisy), np.concatenate(weight)
    weights[target] *= 0.5 * weights[~target].sum() / weights[target].sum()
    weights /= weights.mean()
    mean, spread = every.mean(axis=0), every.std(axis=0)
    design = np.column_stack([(every - mean) / spread, np.ones(len(every))])

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        score = design @ w
        error = 1.0 / (1.0 + np.exp(-score)) - target
        value = (weights * (np.logaddexp(0.0, score) - target * score)).sum() + 1.7 * (w[:-1] ** 2).sum()
        return value, design.T @ (weights * error) + 3.4 * np.append(w[:-1], 0.0)

    w = minimize(loss, np.zeros(9), jac=True, method="L-BFGS-B").x
    slope = w[:-1] / spread
    print("level", np.round(slope[:4], 2), "burst", np.round(slope[4:], 2), "offset", round(float(w[-1] - slope @ mean), 2))


def main() -> None:
    """Print the table, or the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--fit", action="store_true")
    arguments = parser.parse_args()
    groups = everything(arguments.data, "train" if arguments.fit else arguments.split, arguments.fit)
    if arguments.fit:
        fit(groups)
    report = {}
    print(f"{'group':<34}{'minutes':>8}{'index':>8}{'noisy %':>9}{'usable %':>10}")
    for group, (sqi, state, usable, _) in groups.items():
        if not len(usable):
            continue
        noisy = float((state == STATES.index("noisy")).mean())
        report[group] = {
            "minutes": round(len(usable) * FRAME_S / 60, 1),
            "index": round(float(sqi.mean()), 3),
            "noisy": round(noisy, 4),
            "usable": round(float(usable.mean()), 4),
        }
        row = report[group]
        print(f"{group:<34}{row['minutes']:8.1f}{row['index']:8.2f}{100 * row['noisy']:9.1f}{100 * row['usable']:10.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
