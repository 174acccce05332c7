"""Streaming QRS detection on MIT-BIH records: python tests/bench/bench_qrs.py [--quality] RECORD... (needs ECGNAT_DATA).

150 ms match window (EC57); all leads given quality 1, or with --quality what the quality stage says; ventricular flutter is
left out. Prints both with and without the first 5 minutes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import wfdb

from ecgnat_stream.beats import QrsDetector
from ecgnat_stream.condition import ConditionConfig, Conditioner
from ecgnat_stream.quality import QualityEstimator
from ecgnat_stream.signal import FRAME, FS, assign_leads

BEATS = set("NLRBAaJSVrFejnE/fQ?")


def detect(path: str, quality: bool) -> np.ndarray:
    """Return the times in s of the beats found in a record."""
    record = wfdb.rdrecord(path)
    fs, samples = record.fs, np.full((12, record.sig_len), np.nan, np.float32)
    for i, slot in enumerate(assign_leads(record.sig_name)):
        if slot is not None:
            samples[slot] = record.p_signal[:, i]
    conditioner, estimator = Conditioner(fs, 1, ConditionConfig(mains_hz=60)), QualityEstimator(1)
    detector, rows, off, times = QrsDetector(1), np.array([0]), np.zeros((1, 12), bool), []
    padded = np.pad(samples, ((0, 0), (int(fs), int(fs))), constant_values=np.nan)
    for k in range(int(record.sig_len * FS / fs) // FRAME):
        starts, n = conditioner.needed(np.array([k]))
        start = int(starts[0]) + int(fs)
        raw = padded[None, :, start : start + n]
        frame = conditioner.process(rows, np.array([k]), raw)
        sqi = (~np.isnan(frame).all(axis=2)).astype(np.float32)
        if quality:
            sqi = estimator.process(rows, raw, frame, off).sqi
        times += (detector.process(rows, np.array([k]), frame, sqi).at / FS).tolist()
    return np.sort(times)


def count(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return true positives, false negatives, false positives."""
    i = j = hits = 0
    while i < len(truth) and j < len(found):
        apart = found[j] - truth[i]
        hits += abs(apart) <= 0.15
        i, j = (i + 1, j + 1) if abs(apart) <= 0.15 else (i, j + 1) if apart < 0 else (i + 1, j)
    return np.array([hits, len(truth) - hits, len(found) - hits])


def main() -> None:
    total, quality = np.zeros((2, 3), int), "--quality" in sys.argv
    for name in sys.argv[1:]:
        if name.startswith("--"):
            continue
        path = str(Path(os.environ["ECGNAT_DATA"]) / "mitdb" / name)
        marks = wfdb.rdann(path, "atr")
        at, symbol = marks.sample / 360, np.array(marks.symbol)
        truth, found = at[np.isin(symbol, list(BEATS))], detect(path, quality)
        for on, off in zip(at[symbol == "["], at[symbol == "]"], strict=False):
            truth, found = truth[(truth < on) | (truth > off)], found[(found < on) | (found > off)]
        each = np.array([count(truth[truth >= skip], found[found >= skip - 0.15]) for skip in (300, 0)])
        total += each
        print(name, *each.tolist())
    for skip, (tp, fn, fp) in zip((300, 0), total, strict=True):
        rates = f"Se {tp / (tp + fn):.4f}, P+ {tp / (tp + fp):.4f}, F1 {2 * tp / (2 * tp + fn + fp):.5f}"
        print(f"from {skip:3d} s: {fn} missed, {fp} false, {rates}")


if __name__ == "__main__":
    main()
