"""The detector of fibrillation: what it says of simulated hearts and faults, and that a bed's score hangs on that bed alone."""

from __future__ import annotations

import numpy as np
import pytest

from ecgnat_devices.simulator import Artefact, Patient, Segment, Signal
from ecgnat_stream.condition import condition_record
from ecgnat_stream.fibrillation import FEATURES, FibrillationConfig, FibrillationDetector
from ecgnat_stream.signal import FRAME, FRAME_S, FS, LEADS

pytestmark = pytest.mark.usefixtures("kernels")

II, V1, V5 = (LEADS.index(lead) for lead in ("II", "V1", "V5"))


def run(
    y: np.ndarray, good: np.ndarray | None = None, detector: FibrillationDetector | None = None, row: int = 0, first: int = 0
):
    """Stream a bed ``(12, T)``; return its scores. ``good`` is ``(12, K)``."""
    detector = detector or FibrillationDetector(row + 1)
    scores = []
    for k in range(y.shape[1] // FRAME):
        part = y[None, :, k * FRAME : (k + 1) * FRAME].astype(np.float32)
        trusted = ~np.isnan(part).all(axis=2) if good is None else good[None, :, k]
        scores.append(detector.process(np.array([row]), np.array([first + k]), part, trusted).score[0])
    return np.array(scores)


def leads(**signals: np.ndarray) -> np.ndarray:
    """Return ``(12, T)`` with these leads, NaN elsewhere."""
    y = np.full((12, len(next(iter(signals.values())))), np.nan, np.float32)
    for name, x in signals.items():
        y[LEADS.index(name)] = x
    return y


def simulated(*script: Segment, names: tuple[str, ...] = ("II", "V1"), seed: int = 3, artefacts=(), **more: float) -> np.ndarray:
    """Return a conditioned simulated patient ``(12, T)``."""
    signal = Signal(leads=names, script=script, loop=False, seed=seed, artefacts=tuple(artefacts), **more)
    x = Patient(signal).read(round(sum(segment.seconds for segment in script) * signal.fs))
    samples = np.full((12, x.shape[1]), np.nan, np.float32)
    samples[[LEADS.index(name) for name in names]] = x
    return condition_record(samples, signal.fs).samples


def heart(bpm: float, seconds: float = 12.0, amplitude: float = 1.0) -> np.ndarray:
    """Return QRS complexes and T waves, as quick as the rate wants them, at ``FS``."""
    t = np.arange(round(seconds * FS)) / FS
    rr = 60 / bpm
    phase = (t + 0.3 * rr) % rr
    st = 0.3 * np.sqrt(rr)
    return amplitude * (
        np.clip(1 - np.abs(phase - 0.3 * rr) / 0.04, 0, 1) + 0.2 * np.exp(-0.5 * ((phase - 0.3 * rr - st) / 0.045) ** 2)
    )


def noise(seconds: float, rms: float, seed: int = 0) -> np.ndarray:
    return rms * np.random.default_rng(seed).normal(size=round(seconds * FS))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rhythm", ["vf", "vflutter"])
def test_fibrillation_and_flutter_are_seen_within_six_seconds(rhythm, seed):
    score = run(simulated(Segment(rhythm="sinus", seconds=10), Segment(rhythm=rhythm, seconds=20), seed=seed))
    onset = round(10 / FRAME_S)
    assert np.nanmax(score[:onset]) < 0.3
    assert score[onset + 30 : onset + 90].min() > 0.5


@pytest.mark.parametrize("amplitude", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("bpm", [40, 60, 80, 100, 120, 150, 180, 200])
def test_sinus_rhythm_of_any_rate_is_not_fibrillation(bpm, amplitude):
    score = run(leads(II=heart(bpm, amplitude=amplitude) + noise(12, 0.01)))
    assert np.nanmax(score) < 0.3


@pytest.mark.parametrize(
    "rhythm", ["sinus", "bradycardia", "tachycardia", "af", "flutter", "svt", "pvc", "paced", "avb3", "asystole"]
)
def test_other_rhythms_of_the_simulator_are_not_fibrillation(rhythm):
    score = run(simulated(Segment(rhythm=rhythm, seconds=30)))
    assert np.nanmax(score[20:]) < 0.5


@pytest.mark.parametrize("kind", ["mains", "muscle", "noise", "wander", "spikes"])
def test_noise_on_a_beating_heart_is_not_fibrillation(kind):
    burst = Artefact(kind=kind, start_s=8, seconds=6, level_mv=0.3)
    score = run(simulated(Segment(rhythm="sinus", seconds=20), artefacts=[burst]))
    assert np.nanmax(score) < 0.5


def test_mains_noise_alone_and_a_flat_line_are_not_fibrillation():
    t = np.arange(12 * FS) / FS
    assert np.nanmax(run(leads(II=0.5 * np.sin(2 * np.pi * 50 * t)))) < 0.1
    assert np.nanmax(run(leads(II=np.zeros(len(t))))) == 0.0


def test_what_is_smaller_than_the_floor_is_asystole():
    wave = simulated(Segment(rhythm="vf", seconds=20), noise_mv=0.0, wander_mv=0.0)
    wave = wave / np.nanmax(np.ptp(wave[:, 400:800], axis=1))
    assert np.nanmin(run(0.5 * wave)[30:60]) > 0.5
    assert np.nanmax(run(0.05 * wave)) == 0.0
    small = FibrillationConfig(floor_mv=0.02, full_mv=0.05)
    assert np.nanmin(run(0.1 * wave, detector=FibrillationDetector(1, small))[30:60]) > 0.5
    assert np.nanmin(run(0.1 * wave)[30:60]) < 0.1


def test_the_size_of_the_wave_does_not_matter_above_the_floor():
    wave = simulated(Segment(rhythm="vf", seconds=16), names=("II",))
    first, second = run(wave), run(3 * wave)
    assert np.allclose(first[20:60], second[20:60], atol=2e-3)


def test_nothing_is_said_of_less_than_three_seconds():
    score = run(leads(II=heart(70, 6)))
    assert np.isnan(score[:14]).all()
    assert not np.isnan(score[14:]).any()
    assert np.isnan(run(np.full((12, 4 * FS), np.nan))).all()


def test_three_seconds_are_enough_for_fibrillation():
    score = run(simulated(Segment(rhythm="vf", seconds=5), names=("II",))[:, FRAME:])
    assert score[15] > 0.5


def test_a_fallen_lead_does_not_hide_fibrillation_in_the_other():
    y = simulated(Segment(rhythm="vf", seconds=20))
    fallen = y.copy()
    fallen[II, 10 * FS :] = np.nan
    score = run(fallen)
    assert not np.isnan(score[20:]).any()
    assert score[20:].min() > 0.5
    alone = y.copy()
    alone[II] = np.nan
    assert np.array_equal(score[-20:], run(alone)[-20:])


def test_untrusted_and_quiet_leads_do_not_count():
    y = simulated(Segment(rhythm="vf", seconds=15), names=("V1",))
    expected = run(y)
    y[II] = heart(80, y.shape[1] / FS)[: y.shape[1]]
    good = np.zeros((12, y.shape[1] // FRAME), bool)
    good[V1] = ~np.isnan(y[V1, ::FRAME][: good.shape[1]])
    assert np.array_equal(run(y, good), expected, equal_nan=True)
    y[II] = noise(15, 0.005)[: y.shape[1]]
    assert np.allclose(run(y)[20:], expected[20:])


def test_a_gap_is_skipped_and_a_long_one_begins_anew():
    y = simulated(Segment(rhythm="vf", seconds=30), names=("II",))
    y[:, 10 * FS : 10 * FS + 60] = np.nan
    assert run(y)[25:75].min() > 0.5
    y[:, 15 * FS : 20 * FS] = np.nan
    score = run(y)
    assert np.isnan(score[90:114]).all()
    assert np.array_equal(score[120:], run(y[:, 20 * FS :])[20:])


def test_reset_forgets_a_bed_and_no_other():
    y = simulated(Segment(rhythm="vf", seconds=15), names=("II",))
    detector = FibrillationDetector(2)
    for row in range(2):
        run(y, detector=detector, row=row)
    detector.reset(np.array([0]))
    quiet = leads(II=heart(70, 12))
    assert np.array_equal(run(quiet, detector=detector), run(quiet), equal_nan=True)
    part = y[None, :, -FRAME:].astype(np.float32)
    again = detector.process(np.array([1]), np.array([75]), part, ~np.isnan(part).all(axis=2))
    assert again.score[0] > 0.5


def test_a_bed_does_not_hang_on_the_others_bit_for_bit():
    rng = np.random.default_rng(5)
    beds, frames = 70, 30
    y = (0.3 * rng.normal(size=(beds, 12, frames * FRAME)).cumsum(axis=2) % 1.0).astype(np.float32)
    for bed in range(beds):
        y[bed, rng.permutation(12)[: bed % 12]] = np.nan
        y[bed, :, rng.integers(0, frames * FRAME, 30)] = np.nan
    together, alone, parts = FibrillationDetector(beds), FibrillationDetector(beds), FibrillationDetector(beds)
    rows = rng.permutation(beds)
    for k in range(frames):
        part = y[:, :, k * FRAME : (k + 1) * FRAME]
        good = ~np.isnan(part).all(axis=2)
        number = np.full(beds, k)
        whole = together.measure(rows, number, part, good)
        for bed in range(0, beds, 7):
            one = alone.measure(rows[[bed]], number[:1], part[[bed]], good[[bed]])
            assert np.array_equal(one.features[:, 0], whole.features[:, bed], equal_nan=True)
        for some in (slice(0, 13), slice(13, 16), slice(16, 70)):
            said = parts.process(rows[some], number[some], part[some], good[some])
            if some.start == 13:
                kept = said.score
    assert whole.features.shape == (len(FEATURES), beds, 3)
    score = FibrillationDetector(beds)
    for k in range(frames):
        part = y[:, :, k * FRAME : (k + 1) * FRAME]
        all_of = score.process(rows, np.full(beds, k), part, ~np.isnan(part).all(axis=2)).score
    assert np.array_equal(all_of[13:16], kept, equal_nan=True)
    assert np.isfinite(all_of[1:]).any()


def test_the_kernels_measure_what_the_plain_code_does():
    pytest.importorskip("numba")
    rng = np.random.default_rng(6)
    beds, frames = 12, 45
    t = np.arange(frames * FRAME) / FS
    y = np.empty((beds, 12, len(t)), np.float32)
    for bed in range(beds):
        for lead in range(12):
            beating = heart(rng.uniform(40, 200), len(t) / FS) * rng.choice([0.0, 1.0])
            wave = rng.choice([0.0, 0.3]) * np.sin(2 * np.pi * rng.uniform(3, 8) * t)
            y[bed, lead] = beating + wave + rng.choice([0.0, 0.01, 0.3]) * rng.normal(size=len(t))
        y[bed, rng.permutation(12)[: bed % 12]] = np.nan
        y[bed, :, rng.integers(0, len(t), 60)] = np.nan
        gap = rng.integers(0, len(t))
        y[bed, :, gap : gap + 250] = np.nan
    y[0, 0], y[1] = 0.0, np.round(y[1], 1)
    plain, compiled = (FibrillationDetector(beds, kernels=kernels) for kernels in (False, True))
    again = [FibrillationDetector(beds, kernels=kernels) for kernels in (False, True)]
    rows, measured = rng.permutation(beds), 0
    for k in range(frames):
        part = y[:, :, k * FRAME : (k + 1) * FRAME]
        good = ~np.isnan(part).all(axis=2)
        number = np.full(beds, k)
        expected, got = (detector.measure(rows, number, part, good) for detector in (plain, compiled))
        assert np.array_equal(got.swing, expected.swing, equal_nan=True)
        assert np.allclose(got.features, expected.features, rtol=0, atol=1e-12, equal_nan=True)
        expected_score, score = (detector.process(rows, number, part, good).score for detector in again)
        assert np.allclose(score, expected_score, rtol=0, atol=1e-6, equal_nan=True)
        measured += np.isfinite(expected.swing).sum()
    assert measured > 20 * beds


def test_beds_may_be_at_different_frames():
    y = simulated(Segment(rhythm="vf", seconds=12), names=("II",))
    assert np.array_equal(run(y), run(y, first=7), equal_nan=True)


def test_a_bed_that_pauses_goes_on_where_it_was():
    y = simulated(Segment(rhythm="vf", seconds=12), names=("II",))
    detector = FibrillationDetector(3)
    first = run(y[:, : 8 * FS], detector=detector, row=2)
    run(leads(V1=heart(60, 5)), detector=detector, row=1)
    rest = run(y[:, 8 * FS :], detector=detector, row=2, first=40)
    assert np.array_equal(np.concatenate([first, rest]), run(y), equal_nan=True)
