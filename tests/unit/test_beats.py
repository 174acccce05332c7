import numpy as np
import pytest

from ecgnat_devices.simulator import Patient, Signal
from ecgnat_devices.simulator.script import Segment
from ecgnat_stream.beats import DECISION_S, BeatClassifier, BeatFrame, HeartRate, QrsDetector
from ecgnat_stream.beats.detector import refine
from ecgnat_stream.condition import condition_record
from ecgnat_stream.signal import FRAME, FS, LEADS

pytestmark = pytest.mark.usefixtures("kernels")

RNG = np.random.default_rng(8)


@pytest.fixture(autouse=True)
def the_same_noise_whatever_ran_before():
    RNG.bit_generator.state = np.random.default_rng(4).bit_generator.state


def ecg(at_s, length_s: float, amplitude: float = 1.0, t_wave: float = 0.25) -> np.ndarray:
    """Return a lead with a QRS complex of 80 ms at every time in ``at_s``, each with a T wave."""
    t = np.arange(int(length_s * FS)) / FS
    y = 0.003 * RNG.normal(size=len(t))
    for at in at_s:
        y += amplitude * np.clip(1 - np.abs(t - at) / 0.04, 0, 1)
        y += amplitude * t_wave * np.exp(-0.5 * ((t - at - 0.26) / 0.05) ** 2)
    return y


def detect(leads: dict[str, np.ndarray], detector: QrsDetector | None = None, row: int = 0):
    """Run one bed; return the times of its beats in s, the frames they came in, and the labels."""
    detector = detector or QrsDetector(1)
    classifier = BeatClassifier(row + 1)
    frames = len(next(iter(leads.values()))) // FRAME
    at, said, label = [], [], []
    for k in range(frames):
        y = np.full((1, 12, FRAME), np.nan, np.float32)
        for lead, x in leads.items():
            y[0, LEADS.index(lead)] = x[k * FRAME : (k + 1) * FRAME]
        part = np.array([row]), np.array([k]), y, (~np.isnan(y).all(axis=2)).astype(np.float32)
        found = detector.process(*part)
        at += (found.at / FS).tolist()
        said += [(k + 1) * FRAME / FS] * len(found.at)
        label += classifier.process(*part, found).tolist()
    return np.array(at), np.array(said), label


@pytest.mark.parametrize("bpm", [30, 60, 120, 180, 250, 290, 300])
@pytest.mark.parametrize("amplitude", [0.3, 1.0, 3.0])
def test_every_beat_is_found_in_time_and_place(bpm, amplitude):
    truth = np.arange(3.0, 28.0, 60 / bpm)
    at, said, _ = detect({"II": ecg(truth, 30, amplitude, t_wave=0.25 if bpm < 150 else 0.0)})
    late = at[at > 7.9]
    expected = truth[truth > 7.9]
    assert len(late) == len(expected)
    assert np.abs(late - expected).max() <= 0.01
    assert np.all(said - at <= DECISION_S + FRAME / FS + 0.06)


def test_polarity_does_not_matter():
    truth = np.arange(3.0, 28.0, 0.8)
    at, _, _ = detect({"V1": -ecg(truth, 30)})
    assert np.abs(at - truth[-len(at) :]).max() <= 0.01
    assert len(at) >= len(truth) - 1


@pytest.mark.parametrize("noise_mv", [0.0, 0.005, 0.02])
def test_a_flat_line_has_no_beats(noise_mv):
    at, _, _ = detect({"II": noise_mv * RNG.normal(size=60 * FS), "V1": noise_mv * RNG.normal(size=60 * FS)})
    assert len(at) == 0


def test_asystole_after_beats_has_no_beats():
    truth = np.arange(1.0, 20.0, 0.8)
    at, _, _ = detect({"II": ecg(truth, 40) + 0.01 * RNG.normal(size=40 * FS)})
    assert at.max() <= truth.max() + 0.01


def test_a_pause_is_no_reason_to_miss_what_follows():
    truth = np.concatenate([np.arange(1.0, 10.0, 0.8), np.arange(14.0, 20.0, 0.8)])
    at, _, _ = detect({"II": ecg(truth, 22)})
    assert np.abs(at[-8:] - truth[-8:]).max() <= 0.01


def test_beats_are_found_again_after_an_artefact():
    truth = np.arange(1.0, 30.0, 0.8)
    y = ecg(truth, 32)
    y[10 * FS : 12 * FS] += 8 * np.sin(2 * np.pi * 9 * np.arange(2 * FS) / FS)
    at, _, _ = detect({"II": y})
    expected = truth[(truth > 16) & (truth < 31)]
    assert all(np.abs(at - beat).min() < 0.02 for beat in expected)


def test_a_missing_lead_is_no_loss_while_another_is_there():
    truth = np.arange(1.0, 30.0, 0.8)
    lost = ecg(truth, 32)
    lost[10 * FS : 20 * FS] = np.nan
    at, _, _ = detect({"II": lost, "V1": ecg(truth, 32, 0.7)})
    expected = truth[2:]
    assert len(at) >= len(expected)
    assert all(np.abs(at - beat).min() < 0.02 for beat in expected)


def test_wide_early_beats_are_ventricular():
    normal = np.arange(1.0, 30.0, 0.8)
    odd = normal[[12, 20, 28]]
    t = np.arange(32 * FS) / FS
    y = ecg(np.setdiff1d(normal, odd), 32)
    for beat in odd:
        y -= 1.5 * np.clip(1 - np.abs(t - beat + 0.2) / 0.09, 0, 1)
    at, _, label = detect({"II": y})
    assert [round(float(a), 1) for a, kind in zip(at, label, strict=True) if kind == "V"] == pytest.approx(odd - 0.2, abs=0.1)


def test_rows_are_independent():
    truth = np.arange(1.0, 18.0, 0.7)
    waves = [ecg(truth * factor, 20, factor) for factor in (1.0, 1.3, 0.6)]
    detector = QrsDetector(3)
    alone = [detect({"II": wave})[0] for wave in waves]
    together = [[], [], []]
    for k in range(100):
        y = np.full((3, 12, FRAME), np.nan, np.float32)
        y[:, 1] = [wave[k * FRAME : (k + 1) * FRAME] for wave in waves]
        found = detector.process(np.arange(3), np.full(3, k), y, (~np.isnan(y).all(axis=2)).astype(np.float32))
        for row, at in zip(found.row, found.at / FS, strict=True):
            together[row].append(at)
    for expected, got in zip(alone, together, strict=True):
        np.testing.assert_array_equal(expected, got)


def test_an_artefact_in_one_lead_is_no_beat():
    truth = np.arange(1.0, 40.0, 0.8)
    bad = ecg(truth, 42)
    t = np.arange(len(bad)) / FS
    for at in np.arange(10.4, 38.0, 1.6):
        bad += 1.2 * np.exp(-0.5 * ((t - at) / 0.02) ** 2)
    at, _, _ = detect({"II": ecg(truth, 42), "V1": ecg(truth, 42, 0.8), "V5": bad})
    assert all(np.abs(truth - beat).min() < 0.03 for beat in at[at > 8])
    assert np.sum(at > 8) >= np.sum(truth > 8) - 1


@pytest.mark.parametrize("fs", [125.0, 250.0, 360.0, 500.0, 1000.0])
def test_the_r_peak_is_placed_to_a_device_sample(fs):
    patient = Patient(Signal(fs=fs, leads=("II",), script=(Segment(rhythm="sinus", seconds=40),), loop=False))
    samples = np.full((12, int(40 * fs)), np.nan, np.float32)
    samples[1] = patient.read(samples.shape[1])
    y = condition_record(samples, fs).samples
    at, _, _ = detect({"II": y[1]})
    at = at[at > 5]
    truth = np.array(patient.truth.beats)
    own = truth[np.abs(truth - at[:, None] * fs).argmin(axis=1)]
    assert np.abs(at - own / fs).max() <= 1 / fs + 0.005
    peak = np.array([k + samples[1, k - int(0.02 * fs) : k + int(0.02 * fs) + 1].argmax() - int(0.02 * fs) for k in own])
    fine = refine(np.repeat(samples[1:2], len(at), axis=0), fs, at * fs)
    assert np.abs(fine - peak).max() <= 1 + 0.001 * fs


def test_refining_leaves_what_it_cannot_place():
    raw = np.zeros((3, 100), np.float32)
    raw[0, 50] = np.nan
    expected = np.array([50.3, 1.0, 98.2])
    np.testing.assert_array_equal(refine(raw, 250.0, expected), expected)


@pytest.mark.parametrize("fs", [125.0, 250.0, 1000.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_refining_finds_the_place_between_samples(fs, sign):
    t = np.arange(int(fs)) / fs
    middle = 0.5 + np.linspace(0, 1 / fs, 5)
    raw = (sign * np.exp(-0.5 * ((t - middle[:, None]) / 0.012) ** 2)).astype(np.float32)
    for error_s in (-0.006, 0.0, 0.006):
        got = refine(raw, fs, (middle + error_s) * fs)
        assert np.abs(got - middle * fs).max() < 0.1


def test_reset_forgets():
    detector = QrsDetector(1)
    wave = ecg(np.arange(1.0, 18.0, 0.7), 20)
    first = detect({"II": wave}, detector)
    detector.reset(np.array([0]))
    second = detect({"II": wave}, detector)
    np.testing.assert_array_equal(first[0], second[0])
    assert first[2] == second[2]


def beat_frame(at: int, rr_ms: float) -> BeatFrame:
    one = np.array([0])
    return BeatFrame(one, np.array([at]), one, np.ones(1, np.float32), np.array([rr_ms]))


def rate(intervals_ms: list[float], silence_s: float = 0.0, usable: bool = True) -> float:
    heart_rate, rows, at, bpm = HeartRate(1), np.array([0]), 0, np.array([np.nan])
    for i, rr_ms in enumerate([np.nan, *intervals_ms]):
        at += 0 if i == 0 else round(rr_ms * FS / 1000)
        bpm = heart_rate.process(rows, np.array([at // FRAME]), beat_frame(at, rr_ms), np.array([True]))
    none = BeatFrame(*(part[:0] for part in (np.array([0]), rows, rows, np.ones(1, np.float32), np.ones(1))))
    if silence_s or not usable:
        bpm = heart_rate.process(rows, np.array([(at + silence_s * FS) // FRAME], np.int64), none, np.array([usable]))
    return float(bpm[0])


def test_heart_rate_is_the_mean_of_the_usual_intervals():
    assert rate([800.0] * 12) == pytest.approx(75.0)
    assert rate([800.0] * 8 + [400.0, 1200.0] + [800.0] * 2) == pytest.approx(75.0)
    assert rate([600.0] * 12 + [1500.0] * 4) == pytest.approx(40.0)


def test_heart_rate_is_never_stale():
    assert np.isnan(rate([800.0] * 2))
    assert rate([800.0] * 12, silence_s=4.0) == pytest.approx(75.0)
    assert np.isnan(rate([800.0] * 12, silence_s=5.4))
    assert np.isnan(rate([800.0] * 12, usable=False))
