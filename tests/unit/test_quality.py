from itertools import pairwise

import numpy as np
import pytest

from ecgnat_stream.condition import Conditioner
from ecgnat_stream.quality import STATES, QualityEstimator
from ecgnat_stream.signal import FRAME, FS

RNG = np.random.default_rng(4)
T = np.arange(20 * FS) / FS


def beats(t: np.ndarray) -> np.ndarray:
    """A QRS-like triangle of 1 mV and 80 ms every 0.8 s, with a T wave."""
    phase = t % 0.8
    return np.clip(1 - np.abs(phase - 0.2) / 0.04, 0, 1) + 0.25 * np.exp(-0.5 * ((phase - 0.5) / 0.05) ** 2)


def last_frame(x: np.ndarray, off: bool = False):
    """Judge 20 s at 200 Hz on lead II of bed 0; return state, index, usable, best."""
    conditioner, estimator = Conditioner(FS, 1), QualityEstimator(1)
    rows = np.array([0])
    lead_off = np.zeros((1, 12), bool)
    lead_off[0, 1] = off
    padded = np.pad(x.astype(np.float32), (FS, FS), constant_values=np.nan)
    for k in range(len(x) // FRAME - 1):
        frame = np.array([k])
        start, n = conditioner.needed(frame)
        raw = np.full((1, 12, n), np.nan, np.float32)
        raw[0, 1] = padded[FS + start[0] : FS + start[0] + n]
        result = estimator.process(rows, raw, conditioner.process(rows, frame, raw), lead_off)
    return STATES[result.state[0, 1]], float(result.sqi[0, 1]), bool(result.usable[0]), int(result.best[0])


@pytest.mark.parametrize(
    "x",
    [
        pytest.param(beats(T) + 0.01 * RNG.normal(size=len(T)), id="ecg"),
        pytest.param(0.005 * RNG.normal(size=len(T)), id="asystole"),
        pytest.param(
            0.4 * np.sin(2 * np.pi * 5 * T) * (1 + 0.4 * np.sin(3 * T)) + 0.01 * RNG.normal(size=len(T)), id="fibrillation"
        ),
        pytest.param(100.0 + beats(T), id="electrode offset"),
    ],
)
def test_a_heart_however_ill_is_usable(x):
    state, sqi, usable, best = last_frame(x)
    assert (state, usable, best) == ("good", True, 1)
    assert sqi > 0.6


@pytest.mark.parametrize(
    ("x", "state"),
    [
        (np.full(len(T), 0.3), "flat"),
        (0.5 * beats(T) + 0.5 * np.diff(RNG.normal(size=len(T) + 1)), "noisy"),
        (np.clip(12 * np.sin(2 * np.pi * T), -5, 5), "saturated"),
        (np.full(len(T), np.nan), "missing"),
        (np.where(T < 10, beats(T), np.nan), "missing"),
    ],
)
def test_faults_have_names(x, state):
    got, sqi, usable, best = last_frame(x)
    assert (got, usable, best) == (state, False, -1)
    assert sqi < 0.3


def test_the_device_knows_best():
    assert last_frame(beats(T), off=True)[:3] == ("off", 0.0, False)


def test_the_best_lead_stays_until_another_is_clearly_better():
    estimator, rows = QualityEstimator(1), np.array([0])
    off = np.zeros((1, 12), bool)
    wave = beats(T).reshape(-1, FRAME).astype(np.float32)
    chosen = []
    for k in range(60):
        y = np.full((1, 12, FRAME), np.nan, np.float32)
        y[0, 0] = wave[k]
        y[0, 1] = wave[k] + (0.12 if k < 20 else 0.0) * RNG.normal(size=FRAME)
        if k >= 40:
            y[0, 0] += 0.6 * RNG.normal(size=FRAME)
        chosen.append(int(estimator.process(rows, y, y, off).best[0]))
    assert chosen[39] == chosen[19]
    assert chosen[-1] == 1


def judge(y: np.ndarray, rows: np.ndarray, estimator: QualityEstimator):
    """Pass conditioned signals ``(R, T)`` on lead II frame by frame; return the last result."""
    for k in range(y.shape[1] // FRAME):
        frame = np.full((len(rows), 12, FRAME), np.nan, np.float32)
        frame[:, 1] = y[:, k * FRAME : (k + 1) * FRAME]
        result = estimator.process(rows, frame, frame, np.zeros((len(rows), 12), bool))
    return result


def muscle(rms: float) -> np.ndarray:
    return rms * np.convolve(RNG.normal(size=len(T) + 2), [0.5, -0.7, 0.5], "valid")


def test_the_index_falls_with_muscle_noise():
    noise, rows = muscle(1.0), np.array([0])
    index = [judge((beats(T) + gain * noise)[None], rows, QualityEstimator(1)).sqi[0, 1] for gain in (0, 0.03, 0.1, 0.3)]
    assert index[0] > 0.8
    assert index[-1] < 0.3
    assert index[1] > index[2] > index[3]


def test_noise_comes_and_goes_without_flicker():
    estimator, rows, states = QualityEstimator(1), np.array([0]), []
    noise = muscle(1.0)
    for k in range(90):
        span = slice(k * FRAME, (k + 1) * FRAME)
        y = beats(T)[span] + (noise[span] if 30 <= k < 50 else 0.0)
        states.append(STATES[judge(y[None], rows, estimator).state[0, 1]])
    assert states[:30] == ["good"] * 30
    assert "noisy" in states[30:45]
    assert states[-1] == "good"
    assert sum(a != b for a, b in pairwise(states)) == 2


def test_a_row_does_not_depend_on_the_others():
    waves = np.stack([beats(T + shift) + gain * muscle(1.0) for shift, gain in ((0, 0), (0.3, 0.1), (0.5, 0.6), (0.1, 0.3))])
    together, alone = QualityEstimator(4), QualityEstimator(4)
    every = judge(waves, np.arange(4), together)
    for row in range(4):
        one = judge(waves[row : row + 1], np.array([row]), alone)
        np.testing.assert_array_equal(one.sqi[0], every.sqi[row])
        np.testing.assert_array_equal(one.state[0], every.state[row])


def test_a_reset_row_starts_anew():
    estimator, rows = QualityEstimator(1), np.array([0])
    judge(muscle(1.0)[None], rows, estimator)
    estimator.reset(rows)
    again, fresh = judge(beats(T)[None], rows, estimator), judge(beats(T)[None], rows, QualityEstimator(1))
    np.testing.assert_array_equal(again.sqi, fresh.sqi)
