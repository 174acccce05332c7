"""The compiled beats stage equals the plain one, and a bed's beats do not depend on the beds beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import wfdb
from numpy.typing import NDArray

from ecgnat_stream.beats import BeatClassifier, BeatFrame, HeartRate, QrsDetector, refine
from ecgnat_stream.beats.gallery import FEATURES
from ecgnat_stream.condition import condition_record
from ecgnat_stream.signal import FRAME, FS, LEADS

pytest.importorskip("numba")

BEDS, FRAMES = 6, 200


def hearts(seed: int = 3) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return conditioned frames ``(FRAMES, BEDS, 12, FRAME)`` and a quality of each lead ``(FRAMES, BEDS, 12)``.

    Beats at all rates, early wide ones between them, pauses, noise that comes and goes, samples that are missing.
    """
    rng = np.random.default_rng(seed)
    t = np.arange(FRAMES * FRAME) / FS
    y = np.full((BEDS, 12, len(t)), np.nan)
    for bed in range(BEDS):
        leads = rng.permutation(12)[: (1, 2, 3, 4, 8, 12)[bed]]
        at, beats = 0.3, []
        while at < t[-1]:
            wide = rng.random() < 0.2
            beats.append((at, 0.08 if wide else 0.04, 1.3 if wide else 1.0))
            at += rng.choice([0.35, 0.5, 0.8, 1.1, 3.5], p=[0.15, 0.2, 0.45, 0.18, 0.02]) * rng.uniform(0.95, 1.05)
        for lead in leads:
            gain = rng.uniform(0.3, 1.5) * rng.choice([-1, 1])
            y[bed, lead] = 0.01 * rng.normal(size=len(t))
            for at, half, size in beats:
                y[bed, lead] += gain * size * np.clip(1 - np.abs(t - at) / half, 0, 1)
                y[bed, lead] += 0.2 * gain * np.exp(-0.5 * ((t - at - 0.26) / 0.05) ** 2)
            for _ in range(3):
                begin = rng.integers(0, len(t) - 600)
                y[bed, lead, begin : begin + 600] += rng.uniform(0.1, 0.6) * rng.normal(size=600)
            for long in (3, 25, 300):
                begin = rng.integers(0, len(t) - long)
                y[bed, lead, begin : begin + long] = np.nan
    frames = y.reshape(BEDS, 12, FRAMES, FRAME).transpose(2, 0, 1, 3).astype(np.float32)
    sqi = rng.uniform(0, 1, (FRAMES, BEDS, 12)).round(1) * np.isfinite(frames).any(axis=3)
    return frames, sqi.astype(np.float32)


class Stage:
    """Detector, classifier and heart rate of some beds, and everything that they said."""

    def __init__(self, beds: int) -> None:
        self.detector, self.classifier, self.rate = QrsDetector(beds), BeatClassifier(beds), HeartRate(beds)
        self.beats: list[BeatFrame] = []
        self.labels: list[NDArray[np.str_]] = []
        self.features: list[NDArray[np.float64]] = []
        self.ventricular: list[NDArray[np.float32]] = []
        self.rates: list[NDArray[np.float64]] = []

    def take(self, rows: NDArray[np.intp], frame: int, y: NDArray[np.float32], sqi: NDArray[np.float32]) -> None:
        frames = np.full(len(rows), frame)
        beats = self.detector.process(rows, frames, y, sqi)
        paced = np.round(beats.at) % 7 == 6
        self.beats.append(beats)
        self.labels.append(self.classifier.process(rows, frames, y, sqi, beats, paced))
        self.features.append(self.classifier.features)
        self.ventricular.append(self.classifier.ventricular)
        rates = np.full(len(self.rate._last), np.nan)
        rates[rows] = self.rate.process(rows, frames, beats, (sqi > 0).any(axis=1))
        self.rates.append(rates)

    def joined(self, row: int | None = None) -> dict[str, NDArray[np.generic]]:
        """Return everything, of one row or of all."""
        of = np.concatenate([beats.row for beats in self.beats])
        keep = np.ones(len(of), bool) if row is None else of == row
        found = {
            name: np.concatenate([getattr(beats, name) for beats in self.beats])[keep]
            for name in ("at", "lead", "amplitude", "rr_ms")
        }
        found |= {name: np.concatenate(getattr(self, name))[keep] for name in ("labels", "features", "ventricular")}
        rates = np.stack(self.rates)
        return found | {"rates": rates if row is None else rates[:, row]}


def run(rows: NDArray[np.intp], seed: int = 3) -> Stage:
    stage, (y, sqi) = Stage(BEDS), hearts(seed)
    for frame in range(FRAMES):
        stage.take(rows, frame, y[frame][rows], sqi[frame][rows])
        if frame == 120:
            stage.detector.reset(rows[:1])
            stage.classifier.reset(rows[:1])
            stage.rate.reset(rows[:1])
    return stage


@pytest.mark.parametrize("seed", [3, 4])
def test_kernels_equal_the_plain_code(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setenv("ECGNAT_KERNELS", "off")
    plain = run(np.arange(BEDS), seed)
    monkeypatch.setenv("ECGNAT_KERNELS", "on")
    fast = run(np.arange(BEDS), seed)
    assert fast.detector._compiled is not None
    want, got = plain.joined(), fast.joined()
    assert len(want["at"]) > 150
    assert set(want["labels"]) == {"N", "S", "V", "Q"}
    for name in ("lead", "labels"):
        np.testing.assert_array_equal(got[name], want[name])
    for name in ("at", "amplitude", "rr_ms", "ventricular", "rates"):
        np.testing.assert_allclose(got[name], want[name], rtol=2e-5, err_msg=name)
    for index, name in enumerate(FEATURES):
        np.testing.assert_allclose(got["features"][:, index], want["features"][:, index], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("row", [1, 5])
def test_a_bed_is_the_same_alone_and_among_others(kernels: str, row: int) -> None:
    y, sqi = hearts()
    together, alone, one = Stage(BEDS), Stage(1), np.array([0])
    for frame in range(FRAMES):
        rows = np.flatnonzero((np.arange(BEDS) == row) | (frame < 100))
        together.take(rows, frame, y[frame, rows], sqi[frame, rows])
        alone.take(one, frame, y[frame, row : row + 1], sqi[frame, row : row + 1])
    want, got = together.joined(row), alone.joined(0)
    assert len(want["at"]) > 20
    for name in ("at", "lead", "amplitude", "rr_ms", "features", "rates"):
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)


def test_rows_in_any_order_give_beats_in_the_order_of_rows(kernels: str) -> None:
    order = np.array([4, 0, 5, 2])
    for beats in run(order).beats:
        assert (np.diff(beats.row) >= 0).all()


def test_places_equal_the_plain_code(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    for fs in (100.0, 250.0, 257.3, 1000.0):
        length = 2 * int(np.ceil(0.03 * fs)) + 1
        t = (np.arange(length) - length // 2) / fs
        raw = rng.choice([-1, 1], (200, 1)) * np.exp(-0.5 * ((t - rng.uniform(-0.02, 0.02, (200, 1))) / 0.01) ** 2)
        raw = (raw + 0.05 * rng.normal(size=raw.shape)).astype(np.float32)
        raw[::17, length // 2] = np.nan
        raw[::19] = 0.25
        expected = length / 2 + rng.uniform(-2, 2, 200)
        expected[::23] = 0.4
        monkeypatch.setenv("ECGNAT_KERNELS", "off")
        want = refine(raw, fs, expected)
        monkeypatch.setenv("ECGNAT_KERNELS", "on")
        np.testing.assert_allclose(refine(raw, fs, expected), want, atol=1e-6)


@pytest.mark.data
@pytest.mark.parametrize("record", ["mitdb/207", "cudb/cu07", "svdb/806"])
def test_recorded_signals_give_the_same_beats(data_root: Path, monkeypatch: pytest.MonkeyPatch, record: str) -> None:
    read = wfdb.rdrecord(str(data_root / record), sampto=15_000)
    samples = np.full((12, read.sig_len), np.nan, np.float32)
    samples[[LEADS.index("II"), LEADS.index("V1")][: read.n_sig]] = read.p_signal.T[:2]
    samples[:, 5000:5003] = np.nan
    found = []
    for setting in ("off", "on"):
        monkeypatch.setenv("ECGNAT_KERNELS", setting)
        y = condition_record(samples, read.fs).samples
        stage = Stage(1)
        for frame in range(y.shape[1] // FRAME):
            part = y[None, :, frame * FRAME : (frame + 1) * FRAME]
            stage.take(np.array([0]), frame, part, np.isfinite(part).all(axis=2).astype(np.float32))
        found.append(stage.joined())
    want, got = found
    assert len(want["at"]) > 40
    for name in ("lead", "labels"):
        np.testing.assert_array_equal(got[name], want[name])
    for name in ("at", "amplitude", "rr_ms", "ventricular", "rates"):
        np.testing.assert_allclose(got[name], want[name], rtol=1e-4, atol=1e-4, err_msg=name)
