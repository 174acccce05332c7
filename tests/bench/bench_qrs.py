"""Streaming QRS detection on MIT-BIH records, with and without noise, and its cost.

    python tests/bench/bench_qrs.py --data ROOT [--split train|test] [--quality] [--noise em --snr 6] [RECORD...]
    python tests/bench/bench_qrs.py --data ROOT --speed

150 ms match window (EC57); all leads given quality 1, or with --quality what the quality stage says; ventricular flutter is
left out. Prints both with and without the first 5 minutes.

Noise is added as :mod:`train.signal.qrs` says, which fits the judge.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path

import numpy as np

from ecgnat_stream.beats import QrsDetector
from ecgnat_stream.condition import Conditioner
from ecgnat_stream.score.compare import LEARNING_S, match_beats
from ecgnat_stream.signal import FRAME, FS
from train.signal.qrs import RATE, detect, load, truth


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


def speed(root: Path) -> None:
    """Print the cost of 64 beds on one core, and its ratio to that of xqrs_detect on the same signal: medians of one run."""
    from wfdb.processing import xqrs_detect

    beds, seconds = 64, 60
    one = load(root, ["101"], None, 0.0)[:, :, : (seconds + 2) * RATE]
    lead = one[0, 1, RATE:-RATE].astype(float)
    runs = []
    for _ in range(3):
        begin = time.perf_counter()
        xqrs_detect(lead, RATE, verbose=False)
        runs.append(time.perf_counter() - begin)
    xqrs = float(np.median(runs))
    for leads in (1, 2):
        samples = np.repeat(one, beds, axis=0)
        if leads == 1:
            samples[:, 2:] = np.nan
        each = measure(samples, seconds)
        for name, ms in (("detector", each[:, 1] * 1000), ("condition + detector", each.sum(axis=1) * 1000)):
            ratio = xqrs / seconds * 0.2 * beds / (np.median(ms) / 1000)
            cells = f"p50 {np.median(ms):.2f}, p99 {np.percentile(ms, 99):.2f}; {ratio:.1f} x xqrs"
            print(f"{name:20s} {beds} beds, {leads} leads, ms per frame: {cells}")


def measure(samples: np.ndarray, seconds: int) -> np.ndarray:
    """Return the time in s that conditioning and detection take, per frame of all beds."""
    beds = len(samples)
    rows, conditioner, detector, times = np.arange(beds), Conditioner(RATE, beds), QrsDetector(beds), []
    for k in range(seconds * FS // FRAME):
        frames = np.full(beds, k)
        starts, n = conditioner.needed(frames)
        raw = samples[:, :, int(starts[0]) + RATE : int(starts[0]) + RATE + n]
        begin = time.perf_counter()
        y = conditioner.process(rows, frames, raw)
        sqi = (~np.isnan(y).all(axis=2)).astype(np.float32)
        middle = time.perf_counter()
        detector.process(rows, frames, y, sqi)
        times.append((middle - begin, time.perf_counter() - middle))
    return np.array(times[5:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("ECGNAT_DATA"))
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--noise", choices=("em", "ma", "bw"))
    parser.add_argument("--snr", type=float, default=6.0)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("record", nargs="*")
    options = parser.parse_args()
    with (options.data / "splits.csv").open(encoding="utf-8") as file:
        split = [row["record"] for row in csv.DictReader(file) if (row["database"], row["split"]) == ("mitdb", options.split)]
    names = options.record or split
    if options.speed:
        speed(options.data)
    else:
        samples = load(options.data, names, options.noise, options.snr)
        report(options.data, names, detect(samples, QrsDetector(len(names)), options.quality))


if __name__ == "__main__":
    main()
