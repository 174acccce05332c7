"""Time the signal stages on one core: python tests/bench/bench_signal.py [--xqrs]. Prints ms per 0.2 s frame.

With --xqrs also the samples per second of condition + quality + beats over those of wfdb.processing.xqrs_detect, same signal.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from ecgnat_stream.beats import HeartRate, QrsDetector
from ecgnat_stream.condition import Conditioner
from ecgnat_stream.quality import QualityEstimator
from ecgnat_stream.ring import RingBuffer

RATE = 250.0
STAGES = ("ring", "condition", "quality", "beats")


def ecg(length: int) -> np.ndarray:
    """75 beats per minute with noise, mV."""
    t = np.arange(length) / RATE
    phase = t % 0.8
    wave = np.clip(1 - np.abs(phase - 0.2) / 0.04, 0, 1) + 0.25 * np.exp(-0.5 * ((phase - 0.5) / 0.05) ** 2)
    return (wave + 0.01 * np.random.default_rng(0).normal(size=length)).astype(np.float32)


def measure(beds: int, leads: int, frames: int) -> np.ndarray:
    """Return ``(frames, 4)`` seconds per stage for all beds."""
    rows, wave = np.arange(beds), ecg(int((frames + 2) * 0.2 * RATE))
    ring, conditioner = RingBuffer(beds, int(4 * RATE)), Conditioner(RATE, beds)
    quality, detector, rate = QualityEstimator(beds), QrsDetector(beds), HeartRate(beds)
    off, times, hop = np.zeros((beds, 12), bool), np.zeros((frames, 4)), int(0.2 * RATE)
    for row in rows:
        ring.append(row, 0, block(wave[:hop], leads))
    for k in range(frames):
        new = block(wave[(k + 1) * hop : (k + 2) * hop], leads)
        for row in rows:
            ring.append(row, (k + 1) * hop, new)
        number = np.full(beds, k)
        start, n = conditioner.needed(number)
        marks = [time.perf_counter()]
        raw = ring.read(rows, start, n)
        marks.append(time.perf_counter())
        y = conditioner.process(rows, number, raw)
        marks.append(time.perf_counter())
        judged = quality.process(rows, raw, y, off)
        marks.append(time.perf_counter())
        rate.process(rows, number, detector.process(rows, number, y, judged.sqi), judged.usable)
        marks.append(time.perf_counter())
        times[k] = np.diff(marks)
    return times


def block(wave: np.ndarray, leads: int) -> np.ndarray:
    """Return ``(12, T)`` with the wave on the first leads."""
    samples = np.full((12, len(wave)), np.nan, np.float32)
    samples[:leads] = wave
    return samples


def main() -> None:
    print(f"{'beds':>5} {'leads':>5} " + " ".join(f"{stage + ' p50/p99':>20}" for stage in (*STAGES, "total")))
    for leads in (2, 12):
        for beds in (1, 32, 256, 1000):
            times = measure(beds, leads, 200 if beds < 256 else 40)[5:] * 1000
            every = np.column_stack([times, times.sum(axis=1)])
            cells = [f"{np.median(column):9.2f} /{np.percentile(column, 99):9.2f}" for column in every.T]
            print(f"{beds:5d} {leads:5d} " + " ".join(cells), flush=True)
    if "--xqrs" in sys.argv:
        from wfdb.processing import xqrs_detect

        wave = ecg(int(60 * RATE)).astype(float)
        begin = time.perf_counter()
        xqrs_detect(wave, RATE, verbose=False)
        xqrs = len(wave) / (time.perf_counter() - begin)
        for beds in (1, 64):
            ours = beds * 0.2 * RATE / np.median(measure(beds, 1, 100)[5:, 1:].sum(axis=1))
            print(f"{beds:5d} beds: {ours:12.0f} samples/s, xqrs {xqrs:8.0f} samples/s, ratio {ours / xqrs:.1f}")


if __name__ == "__main__":
    main()
