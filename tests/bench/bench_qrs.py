"""Streaming QRS detection on MIT-BIH records, with and without noise, and its cost.

    python tests/bench/bench_qrs.py --data ROOT [--split train|test] [--quality] [--noise em --snr 6] [RECORD...]
    python tests/bench/bench_qrs.py --data ROOT --fit
    python tests/bench/bench_qrs.py --data ROOT --speed

150 ms match window (EC57); all leads given quality 1, or with --quality what the quality stage says; ventricular flutter is
left out. Prints both with and without the first 5 minutes.

Noise is added as the program nst does (Moody, Muldrow and Mark 1984): each signal of the noise record to the signal of the same
number, from 5 min on, 2 min with and 2 min without in turn. SNR = 10 log10(S / N), where S is an eighth of the square of the
mean peak-to-peak QRS amplitude (50 ms on both sides of the first 300 beats, 5 % cut off at both ends), the power of a sine
of that height, and N the square of the mean RMS of the first 300 s of noise (each second's mean taken off, 5 % cut off too).
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path

import numpy as np
import wfdb

from ecgnat_stream.beats import QrsDetector
from ecgnat_stream.beats.judge import Judge, Peaks
from ecgnat_stream.condition import Conditioner
from ecgnat_stream.quality import QualityEstimator
from ecgnat_stream.signal import FRAME, FS, assign_leads

BEATS = list("NLRBAaJSVrFejnE/fQ?")
RATE = 360
LEARN_S, PERIOD_S = 300, 120
FIT = ((None, 0.0, 8.0), ("em", 6.0, 1.0), ("em", 12.0, 1.0), ("ma", 12.0, 1.0))
"""Noise, SNR and weight of what the judge is fitted on."""


class Diary(Judge):
    """A judge that writes down what it weighed."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows, 0.15)
        self.lines: list[np.ndarray] = []

    def odds(self, peaks: Peaks) -> np.ndarray:
        self.lines.append(np.vstack([peaks.row, peaks.at / FS, self.weigh(peaks)]).T)
        return super().odds(peaks)


def trimmed_mean(x: np.ndarray) -> float:
    """Return the mean without the largest and smallest 5 %."""
    cut = len(x) // 20
    return float(np.sort(x)[cut : len(x) - cut].mean())


def add_noise(ecg: np.ndarray, beats: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Return ``(T, L)`` with the noise ``(T', L')`` added as the module says."""
    half, out, t = RATE // 20, ecg.copy(), np.arange(len(ecg)) / RATE
    on = (t >= LEARN_S) & ((t - LEARN_S) // PERIOD_S % 2 == 0)
    first = [at for at in beats if half <= at < len(ecg) - half][:300]
    for i in range(ecg.shape[1]):
        high = trimmed_mean(np.array([np.ptp(ecg[at - half : at + half + 1, i]) for at in first]))
        source = noise[:, i % noise.shape[1]]
        power = trimmed_mean(source[: 300 * RATE].reshape(300, RATE).std(axis=1)) ** 2
        out[:, i] += on * np.sqrt(high**2 / 8 / power / 10 ** (snr_db / 10)) * np.resize(source, len(ecg))
    return out


def truth(path: str) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Return the times in s of a record's beats, and of its ventricular flutter."""
    marks = wfdb.rdann(path, "atr")
    at, symbol = marks.sample / marks.fs, np.array(marks.symbol)
    return at[np.isin(symbol, BEATS)], list(zip(at[symbol == "["], at[symbol == "]"], strict=False))


def load(root: Path, names: list[str], noise: str | None, snr_db: float) -> np.ndarray:
    """Return the records ``(R, 12, T)``, a second of nothing before and behind."""
    records = [wfdb.rdrecord(str(root / "mitdb" / name)) for name in names]
    source = wfdb.rdrecord(str(root / "nstdb" / noise)).p_signal if noise else None
    samples = np.full((len(names), 12, max(record.sig_len for record in records) + 2 * RATE), np.nan, np.float32)
    for i, record in enumerate(records):
        ecg = record.p_signal
        if source is not None:
            beats = (truth(str(root / "mitdb" / names[i]))[0] * RATE).round().astype(int)
            ecg = add_noise(ecg, beats, source, snr_db)
        for j, slot in enumerate(assign_leads(record.sig_name)):
            if slot is not None:
                samples[i, slot, RATE : RATE + len(ecg)] = ecg[:, j]
    return samples


def detect(samples: np.ndarray, detector: QrsDetector, quality: bool) -> list[np.ndarray]:
    """Return the times in s of the beats found in each record, all records side by side as beds."""
    rows = np.arange(len(samples))
    conditioner, estimator = Conditioner(RATE, len(rows)), QualityEstimator(len(rows))
    off, delivered, found = np.zeros((len(rows), 12), bool), ~np.isnan(samples).all(axis=2), []
    for k in range(int((samples.shape[2] - 2 * RATE) * FS / RATE) // FRAME):
        frames = np.full(len(rows), k)
        starts, n = conditioner.needed(frames)
        raw = samples[:, :, int(starts[0]) + RATE : int(starts[0]) + RATE + n]
        y = conditioner.process(rows, frames, raw)
        sqi = estimator.process(rows, raw, y, off).sqi * delivered if quality else (~np.isnan(y).all(axis=2)).astype(np.float32)
        beats = detector.process(rows, frames, y, sqi)
        found.append(np.stack([beats.row, beats.at / FS]))
    row, at = np.concatenate(found, axis=1)
    return [np.sort(at[row == i]) for i in rows]


def match(beats: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the beats and which of the detections have a partner within 150 ms."""
    hit, right = np.zeros(len(beats), bool), np.zeros(len(found), bool)
    i = j = 0
    while i < len(beats) and j < len(found):
        apart = found[j] - beats[i]
        if abs(apart) <= 0.15:
            hit[i] = right[j] = True
            i, j = i + 1, j + 1
        else:
            i, j = (i, j + 1) if apart < 0 else (i + 1, j)
    return hit, right


def report(root: Path, names: list[str], found: list[np.ndarray]) -> None:
    """Print what was missed and what was false, per record and in all."""
    total = np.zeros((2, 3), int)
    for name, times in zip(names, found, strict=True):
        (beats, flutter), at = truth(str(root / "mitdb" / name)), times
        for start, stop in flutter:
            beats, at = beats[(beats < start) | (beats > stop)], at[(at < start) | (at > stop)]
        hit, right = match(beats, at)
        each = np.array(
            [[hit[beats >= skip].sum(), (~hit[beats >= skip]).sum(), (~right[at >= skip]).sum()] for skip in (LEARN_S, 0)]
        )
        total += each
        print(name, *each.tolist())
    for skip, (tp, fn, fp) in zip((LEARN_S, 0), total, strict=True):
        rates = f"Se {tp / (tp + fn):.5f}, P+ {tp / (tp + fp):.5f}, F1 {2 * tp / (2 * tp + fn + fp):.5f}"
        print(f"from {skip:3d} s: {fn} missed, {fp} false, {rates}")


def fit(root: Path, names: list[str]) -> None:
    """Print the judge's weights fitted to what it meets on the records: logistic regression, each beat by a step of Newton's."""
    x, y, weight = [], [], []
    for noise, snr_db, part in FIT:
        diary = Diary(len(names))
        detect(load(root, names, noise, snr_db), QrsDetector(len(names), judge=diary), True)
        lines = np.concatenate(diary.lines)
        for i, name in enumerate(names):
            beats, flutter = truth(str(root / "mitdb" / name))
            own = lines[(lines[:, 0] == i) & (lines[:, 1] > (LEARN_S if noise else 10))]
            for start, stop in flutter:
                own = own[(own[:, 1] < start) | (own[:, 1] > stop)]
            place = np.searchsorted(beats, own[:, 1]).clip(1, len(beats) - 1)
            apart = np.minimum(np.abs(own[:, 1] - beats[place]), np.abs(own[:, 1] - beats[place - 1]))
            clear = (apart < 0.1) | (apart > 0.16)
            x.append(own[clear, 2:])
            y.append(apart[clear] < 0.1)
            weight.append(np.full(clear.sum(), part))
    matrix, label, scale = np.concatenate(x), np.concatenate(y), np.concatenate(weight)
    w = np.zeros(matrix.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-np.clip(matrix @ w, -30, 30)))
        slope = matrix.T @ (scale * (p - label)) + 3 * w
        w -= np.linalg.solve((matrix.T * (scale * p * (1 - p))) @ matrix + 3 * np.eye(len(w)), slope)
    print(f"{len(label)} peaks, {((matrix @ w > 0) != label).mean():.4f} wrong\n{np.round(w, 2).tolist()}")


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
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("record", nargs="*")
    options = parser.parse_args()
    with (options.data / "splits.csv").open(encoding="utf-8") as file:
        split = [row["record"] for row in csv.DictReader(file) if (row["database"], row["split"]) == ("mitdb", options.split)]
    names = options.record or split
    if options.speed:
        speed(options.data)
    elif options.fit:
        fit(options.data, names)
    else:
        samples = load(options.data, names, options.noise, options.snr)
        report(options.data, names, detect(samples, QrsDetector(len(names)), options.quality))


if __name__ == "__main__":
    main()
