"""Streaming QRS detection on MIT-BIH records, with and without noise; ``ecgnat bench`` measures what it costs.

    python tests/bench/bench_qrs.py --data ROOT [--split train|test] [--quality] [--noise em --snr 6] [RECORD...]

150 ms match window (EC57); all leads given quality 1, or with --quality what the quality stage says; ventricular flutter is
left out. Prints both with and without the first 5 minutes.

Noise is added as :mod:`train.signal.qrs` says, which fits the judge.
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path

import numpy as np

from ecgnat_stream.beats import QrsDetector
from ecgnat_stream.score.compare import LEARNING_S, match_beats
from train.signal.qrs import detect, load, truth


def report(root: Path, names: list[str], found: list[np.ndarray]) -> None:
    """Print what was missed and what was false, per record and in all."""
    total = np.zeros((2, 3), int)
    for name, times in zip(names, found, strict=True):
        (beats, flutter), at = truth(str(root / "mitdb" / name)), times
        for start, stop in flutter:
            beats, at = beats[(beats < start) | (beats > stop)], at[(at < start) | (at > stop)]
        hit, right = np.zeros(len(beats), bool), np.zeros(len(at), bool)
        matched, by = match_beats(beats, at)
        hit[matched] = right[by] = True
        each = np.array(
            [[hit[beats >= skip].sum(), (~hit[beats >= skip]).sum(), (~right[at >= skip]).sum()] for skip in (LEARNING_S, 0)]
        )
        total += each
        print(name, *each.tolist())
    for skip, (tp, fn, fp) in zip((LEARNING_S, 0), total, strict=True):
        rates = f"Se {tp / (tp + fn):.5f}, P+ {tp / (tp + fp):.5f}, F1 {2 * tp / (2 * tp + fn + fp):.5f}"
        print(f"from {skip:3.0f} s: {fn} missed, {fp} false, {rates}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("ECGNAT_DATA"))
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--noise", choices=("em", "ma", "bw"))
    parser.add_argument("--snr", type=float, default=6.0)
    parser.add_argument("record", nargs="*")
    options = parser.parse_args()
    with (options.data / "splits.csv").open(encoding="utf-8") as file:
        split = [row["record"] for row in csv.DictReader(file) if (row["database"], row["split"]) == ("mitdb", options.split)]
    names = options.record or split
    samples = load(options.data, names, options.noise, options.snr)
    report(options.data, names, detect(samples, QrsDetector(len(names)), options.quality))


if __name__ == "__main__":
    main()
