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
    assert sqi > 0.8


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
