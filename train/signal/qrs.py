"""Fit the weights of the QRS judge: a logistic regression of the envelope peaks that it meets on the training records of mitdb.

    python -m train.signal.qrs --data ROOT --out ecgnat_stream/weights/qrs.json

Each record is met as it is and with noise of nstdb (:data:`FIT`); peaks within 100 ms of an expert's beat are beats, those 100 to
160 ms away are left out, ventricular flutter too. What the detector is worth measures ``tests/bench/bench_qrs.py``.

Noise is added as the program nst does (Moody, Muldrow and Mark 1984): each signal of the noise record to the signal of the same
number, from 5 min on, 2 min with and 2 min without in turn. SNR = 10 log10(S / N), where S is an eighth of the square of the
mean peak-to-peak QRS amplitude (50 ms on both sides of the first 300 beats, 5 % cut off at both ends), the power of a sine
of that height, and N the square of the mean RMS of the first 300 s of noise (each second's mean taken off, 5 % cut off too).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import wfdb
from numpy.typing import NDArray

from ecgnat_stream.beats import QrsDetector
from ecgnat_stream.beats.judge import PARTS, Judge, JudgeWeights, Peaks
from ecgnat_stream.codes import BEAT_OF_SYMBOL
from ecgnat_stream.condition import Conditioner
from ecgnat_stream.quality import QualityEstimator
from ecgnat_stream.score.compare import LEARNING_S
from ecgnat_stream.signal import FRAME, FS, assign_leads
from train.data.splits import read_splits

__all__ = ["RATE", "add_noise", "detect", "fit", "load", "truth"]

RATE = 360
PERIOD_S = 120
FIT = ((None, 0.0, 8.0), ("em", 6.0, 1.0), ("em", 12.0, 1.0), ("ma", 12.0, 1.0))
"""Noise, SNR and weight of what the judge is fitted on."""


class Diary(Judge):
    """A judge that writes down what it weighed."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows, 0.15)
        self.lines: list[NDArray[Any]] = []

    def odds(self, peaks: Peaks) -> NDArray[Any]:
        self.lines.append(np.vstack([peaks.row, peaks.at / FS, self.weigh(peaks)]).T)
        return super().odds(peaks)


def trimmed_mean(x: NDArray[Any]) -> float:
    """Return the mean without the largest and smallest 5 %."""
    cut = len(x) // 20
    return float(np.sort(x)[cut : len(x) - cut].mean())


def add_noise(ecg: NDArray[Any], beats: NDArray[Any], noise: NDArray[Any], snr_db: float) -> NDArray[Any]:
    """Return ``(T, L)`` with the noise ``(T', L')`` added as the module says."""
    half, out, t = RATE // 20, ecg.copy(), np.arange(len(ecg)) / RATE
    on = (t >= LEARNING_S) & ((t - LEARNING_S) // PERIOD_S % 2 == 0)
    first = [at for at in beats if half <= at < len(ecg) - half][:300]
    for i in range(ecg.shape[1]):
        high = trimmed_mean(np.array([np.ptp(ecg[at - half : at + half + 1, i]) for at in first]))
        source = noise[:, i % noise.shape[1]]
        power = trimmed_mean(source[: 300 * RATE].reshape(300, RATE).std(axis=1)) ** 2
        out[:, i] += on * np.sqrt(high**2 / 8 / power / 10 ** (snr_db / 10)) * np.resize(source, len(ecg))
    return out


def truth(path: str) -> tuple[NDArray[Any], list[tuple[float, float]]]:
    """Return the times in s of a record's beats, and of its ventricular flutter."""
    marks = wfdb.rdann(path, "atr")
    at, symbol = marks.sample / marks.fs, np.array(marks.symbol)
    return at[np.isin(symbol, list(BEAT_OF_SYMBOL))], list(zip(at[symbol == "["], at[symbol == "]"], strict=False))


def load(root: Path, names: list[str], noise: str | None, snr_db: float) -> NDArray[Any]:
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


def detect(samples: NDArray[Any], detector: QrsDetector, quality: bool) -> list[NDArray[Any]]:
    """Return the times in s of the beats found in each record, all records side by side as beds."""
    rows = np.arange(len(samples))
    conditioner, estimator = Conditioner(RATE, len(rows)), QualityEstimator(len(rows))
    off, delivered, found = np.zeros((len(rows), 12), bool), ~np.isnan(samples).all(axis=2), []
    for k in range(int((samples.shape[2] - 2 * RATE) * FS / RATE) // FRAME):
        frames = np.full(len(rows), k)
        starts, n = conditioner.needed(frames)
        raw = samples[:, :, int(starts[0]) + RATE : int(starts[0]) + RATE + n]
        y = conditioner.process(rows, frames, raw)
        sqi = np.asarray(~np.isnan(y).all(axis=2), np.float32)
        if quality:
            sqi = np.asarray(estimator.process(rows, raw, y, off).sqi * delivered)
        beats = detector.process(rows, frames, y, sqi)
        found.append(np.stack([beats.row, beats.at / FS]))
    row, at = np.concatenate(found, axis=1)
    return [np.sort(at[row == i]) for i in rows]


def fit(root: Path, names: list[str]) -> tuple[JudgeWeights, float, int]:
    """Return the weights, the share of peaks that they get wrong, and of how many: each beat by a step of Newton's."""
    x, y, weight = [], [], []
    for noise, snr_db, part in FIT:
        diary = Diary(len(names))
        detect(load(root, names, noise, snr_db), QrsDetector(len(names), judge=diary), True)
        lines = np.concatenate(diary.lines)
        for i, name in enumerate(names):
            beats, flutter = truth(str(root / "mitdb" / name))
            own = lines[(lines[:, 0] == i) & (lines[:, 1] > (LEARNING_S if noise else 10))]
            for start, stop in flutter:
                own = own[(own[:, 1] < start) | (own[:, 1] > stop)]
            place = np.searchsorted(beats, own[:, 1]).clip(1, len(beats) - 1)
            apart = np.minimum(np.abs(own[:, 1] - beats[place]), np.abs(own[:, 1] - beats[place - 1]))
            clear = (apart < 0.1) | (apart > 0.16)
            x.append(own[clear, 2:])
            y.append(apart[clear] < 0.1)
            weight.append(np.full(clear.sum(), part))
    matrix, label, scale = np.concatenate(x), np.concatenate(y), np.concatenate(weight)
    w = regress(matrix, label, scale)
    weights = JudgeWeights(dict(zip(PARTS, np.round(w, 2).tolist(), strict=True)))
    return weights, float(((matrix @ w > 0) != label).mean()), len(label)


def regress(matrix: NDArray[np.float64], label: NDArray[np.bool_], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weights ``(F,)`` of a logistic regression with an L2 penalty of 3, by Newton's method.

    Parameters
    ----------
    matrix, label, scale
        ``(N, F)`` parts, ``(N,)`` whether it is a beat, and how much each peak counts.
    """
    w = np.zeros(matrix.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-np.clip(matrix @ w, -30, 30)))
        slope = matrix.T @ (scale * (p - label)) + 3 * w
        w -= np.linalg.solve((matrix.T * (scale * p * (1 - p))) @ matrix + 3 * np.eye(len(w)), slope)
    return w


def main() -> None:
    """Fit on the training records of mitdb, write the weights and print how many peaks they get wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default_root = os.environ.get("ECGNAT_DATA")
    parser.add_argument("--data", type=Path, default=default_root, required=default_root is None, help="with mitdb and nstdb")
    parser.add_argument("--out", type=Path, required=True, help="where the weights go, as qrs.json")
    arguments = parser.parse_args()
    splits = read_splits(arguments.data)["mitdb"]
    weights, wrong, of = fit(arguments.data, [name for name, split in splits.items() if split in ("train", "holdout")])
    arguments.out.write_bytes(msgspec.json.format(msgspec.json.encode(weights), indent=1) + b"\n")
    print(f"{of} peaks, {wrong:.4f} wrong\n{weights.parts}")


if __name__ == "__main__":
    main()
