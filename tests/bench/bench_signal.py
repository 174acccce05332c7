"""Time the signal stages on one core: python tests/bench/bench_signal.py [--xqrs]. Prints ms of processor time per 0.2 s frame.

``stages`` is all that follows conditioning, as the monitor calls it; its parts are timed beside it. ``total`` is ring,
conditioning and stages. The beds' beats fall into different frames. With --xqrs also the samples per second over those of
wfdb.processing.xqrs_detect, same signal.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from ecgnat_stream.beats import BeatClassifier, HeartRate, QrsDetector
from ecgnat_stream.condition import Conditioner
from ecgnat_stream.config import Config
from ecgnat_stream.fibrillation import FibrillationDetector
from ecgnat_stream.quality import QualityEstimator
from ecgnat_stream.ring import RingBuffer
from ecgnat_stream.ward.signal_path import Stages

RATE = 250.0
STAGES = ("ring", "condition", "stages", "quality", "beats", "classes", "fibrillation")


def ecg(length: int) -> np.ndarray:
    """75 beats per minute with noise, mV."""
    t = np.arange(length) / RATE
    phase = t % 0.8
    wave = np.clip(1 - np.abs(phase - 0.2) / 0.04, 0, 1) + 0.25 * np.exp(-0.5 * ((phase - 0.5) / 0.05) ** 2)
    return (wave + 0.01 * np.random.default_rng(0).normal(size=length)).astype(np.float32)


def measure(beds: int, leads: int, frames: int) -> np.ndarray:
    """Return ``(frames, 7)`` seconds per stage for all beds."""
    rows, wave, config = np.arange(beds), ecg(int((frames + 6) * 0.2 * RATE)), Config()
    ring, conditioner, stages = RingBuffer(beds, int(4 * RATE)), Conditioner(RATE, beds), Stages(beds, config)
    quality, detector, rate = QualityEstimator(beds), QrsDetector(beds), HeartRate(beds)
    classifier, fibrillation = BeatClassifier(beds), FibrillationDetector(beds, config.fibrillation)
    off, times, hop = np.zeros((beds, 12), bool), np.zeros((frames, len(STAGES))), int(0.2 * RATE)
    delivered = np.broadcast_to(np.arange(12) < leads, off.shape)
    for k in range(-1, frames):
        start = (k + 1) * hop
        for row in rows:
            shift = 37 * row % (4 * hop)
            ring.append(row, start, block(wave[start + shift : start + shift + hop], leads))
        if k < 0:
            continue
        number = np.full(beds, k)
        start, n = conditioner.needed(number)
        marks = [time.process_time()]
        raw = ring.read(rows, start, n)
        marks.append(time.process_time())
        y = conditioner.process(rows, number, raw)
        marks.append(time.process_time())
        stages.process(rows, number, RATE, raw, y, off, delivered, conditioner.spikes)
        marks.append(time.process_time())
        judged = quality.process(rows, raw, y, off, RATE)
        marks.append(time.process_time())
        sqi = judged.sqi * delivered
        beats = detector.process(rows, number, y, sqi)
        rate.process(rows, number, beats, judged.usable)
        marks.append(time.process_time())
        classifier.process(rows, number, y, sqi, beats)
        marks.append(time.process_time())
        fibrillation.process(rows, number, y, delivered)
        marks.append(time.process_time())
        times[k] = np.diff(marks)
    return times


def block(wave: np.ndarray, leads: int) -> np.ndarray:
    """Return ``(12, T)`` with the wave on the first leads."""
    samples = np.full((12, len(wave)), np.nan, np.float32)
    samples[:leads] = wave
    return samples


def main() -> None:
    """Print the tables."""
    print(f"{'beds':>5} {'leads':>5} " + " ".join(f"{stage + ' p50/p99':>20}" for stage in (*STAGES, "total")))
    for leads in (2, 12):
        for beds in (1, 32, 256, 1000):
            times = measure(beds, leads, 200 if beds < 256 else 40)[5:] * 1000
            every = np.column_stack([times, times[:, :3].sum(axis=1)])
            cells = [f"{np.median(column):9.2f} /{np.percentile(column, 99):9.2f}" for column in every.T]
            print(f"{beds:5d} {leads:5d} " + " ".join(cells), flush=True)
    if "--xqrs" in sys.argv:
        from wfdb.processing import xqrs_detect

        wave = ecg(int(60 * RATE)).astype(float)
        begin = time.process_time()
        xqrs_detect(wave, RATE, verbose=False)
        xqrs = len(wave) / (time.process_time() - begin)
        for beds in (1, 64):
            times = measure(beds, 1, 100)[5:]
            for what, part in (("condition, quality, beats", [1, 3, 4]), ("condition, all stages", [1, 2])):
                ours = beds * 0.2 * RATE / np.median(times[:, part].sum(axis=1))
                print(f"{beds:5d} beds, {what}: {ours:.0f} samples/s, xqrs {xqrs:.0f}, ratio {ours / xqrs:.1f}")


if __name__ == "__main__":
    main()
