import numpy as np
import pytest

from ecgnat_devices.simulator import Patient, Signal
from ecgnat_devices.simulator.script import Segment
from ecgnat_stream.beats import QrsDetector
from ecgnat_stream.condition import Conditioner
from ecgnat_stream.condition.pacing import remove_spikes
from ecgnat_stream.signal import FRAME, FS, LEADS

pytestmark = pytest.mark.usefixtures("kernels")

RATES = [125.0, 200.0, 250.0, 360.0, 500.0, 1000.0]


def simulated(rhythm: str, fs: float, seconds: float = 30) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(12, T)`` of leads II and V5, and the times of the R peaks in s."""
    segments = (Segment(rhythm=rhythm, seconds=seconds),)
    patient = Patient(Signal(fs=fs, leads=("II", "V5"), script=segments, loop=False))
    samples = np.full((12, int(seconds * fs)), np.nan, np.float32)
    samples[[1, LEADS.index("V5")]] = patient.read(samples.shape[1])
    return samples, np.array(patient.truth.beats) / fs


def add_spikes(samples: np.ndarray, at_s: np.ndarray, fs: float, height_mv: float, width: int = 1) -> None:
    for at in at_s:
        start = round(at * fs)
        samples[1, start : start + width] += height_mv
        samples[10, start : start + width] -= 0.5 * height_mv


def run(samples: np.ndarray, fs: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the times of beats and of spikes in s, and the conditioned signal."""
    rows, conditioner, detector, beats, spikes, out = np.array([0]), Conditioner(fs, 1), QrsDetector(1), [], [], []
    padded = np.pad(samples, ((0, 0), (int(fs), int(fs))), constant_values=np.nan)
    for k in range(int(samples.shape[1] / fs * FS) // FRAME):
        starts, n = conditioner.needed(np.array([k]))
        start = int(starts[0]) + int(fs)
        y = conditioner.process(rows, np.array([k]), padded[None, :, start : start + n])
        beats += (detector.process(rows, np.array([k]), y, (~np.isnan(y).all(axis=2)).astype(np.float32)).at / FS).tolist()
        spikes += (conditioner.spikes.at / FS).tolist()
        out.append(y[0])
    return np.array(beats), np.array(spikes), np.concatenate(out, axis=1)


@pytest.mark.parametrize("fs", RATES)
@pytest.mark.parametrize("height_mv", [2.0, 20.0, 700.0])
def test_spikes_without_capture_are_no_beats_and_all_are_told(fs, height_mv):
    samples, _ = simulated("asystole", fs)
    stimuli = np.arange(1.0, 29.0, 0.817)
    add_spikes(samples, stimuli, fs, height_mv)
    beats, spikes, y = run(samples, fs)
    assert len(beats) == 0
    assert len(spikes) == len(stimuli)
    assert np.abs(spikes - stimuli).max() <= 1 / fs
    assert np.nanmax(np.abs(y[1])) < 0.25


@pytest.mark.parametrize(("fs", "width"), [(250.0, 2), (360.0, 3), (500.0, 3), (1000.0, 2), (1000.0, 3)])
def test_a_spike_may_be_some_samples_long(fs, width):
    samples, _ = simulated("asystole", fs)
    stimuli = np.arange(1.0, 29.0, 0.817)
    add_spikes(samples, stimuli, fs, 5.0, width)
    beats, spikes, _ = run(samples, fs)
    assert len(beats) == 0
    assert len(spikes) == len(stimuli)


@pytest.mark.parametrize("fs", RATES)
def test_paced_beats_count_once_and_follow_their_spikes(fs):
    samples, truth = simulated("paced", fs)
    expected = truth[truth > 5]
    add_spikes(samples, truth - 0.055, fs, 20.0)
    beats, spikes, _ = run(samples, fs)
    late = beats[beats > 4.9]
    assert len(late) in (len(expected), len(expected) - 1)
    assert np.abs(late - expected[: len(late)]).max() < 0.15
    before = late[:, None] - spikes
    assert ((before > 0.0) & (before < 0.15)).any(axis=1).all()


@pytest.mark.parametrize("fs", [100.0, 125.0, 200.0, 250.0, 360.0, 500.0, 1000.0])
@pytest.mark.parametrize("width_s", [0.04, 0.06, 0.1])
@pytest.mark.parametrize("height_mv", [0.5, 2.0, 5.0])
def test_narrow_qrs_complexes_stay(fs, width_s, height_mv):
    t = np.arange(int(4 * fs)) / fs
    for middle in 2 + np.linspace(0, 1 / fs, 7):
        triangle = height_mv * np.clip(1 - np.abs(t - middle) / (width_s / 2), 0, 1)
        bell = height_mv * np.exp(-0.5 * ((t - middle) / (width_s / 5)) ** 2)
        x = np.array([triangle, bell], np.float32)
        pair, _ = remove_spikes(x.copy(), fs)
        assert len(pair) == 0


@pytest.mark.parametrize("fs", RATES)
@pytest.mark.parametrize("rhythm", ["sinus", "svt", "pvc", "vt", "vf", "af"])
def test_nothing_is_taken_out_of_an_ecg_without_spikes(fs, rhythm):
    samples, _ = simulated(rhythm, fs)
    pair, _ = remove_spikes(samples[[1, 10]].copy(), fs)
    assert len(pair) == 0


def test_a_spike_that_rings_goes_with_its_ringing():
    fs, t = 250.0, np.arange(1000) / 250
    x = (1.2 * np.sinc((t - 2.001) * 125) * np.exp(-0.5 * ((t - 2.001) / 0.05) ** 2))[None].astype(np.float32)
    pair, at = remove_spikes(x, fs)
    assert len(pair) == 1
    assert abs(at[0] / fs - 2.0) < 0.006
    assert np.abs(x).max() < 0.5


@pytest.mark.parametrize("fs", [125.0, 250.0, 500.0])
def test_a_spike_disturbs_no_frame_wherever_it_falls(fs):
    samples, _ = simulated("asystole", fs, 8)
    _, _, expected = run(samples, fs)
    for start_s in np.arange(4.0, 4.4, 0.016):
        spiked = samples.copy()
        add_spikes(spiked, np.array([start_s]), fs, 50.0)
        _, spikes, y = run(spiked, fs)
        assert len(spikes) == 1
        assert np.nanmax(np.abs(y - expected)) < 0.1


def test_rows_and_leads_are_told():
    fs, conditioner = 250.0, Conditioner(250.0, 4)
    samples = np.zeros((2, 12, conditioner.needed(np.zeros(2, np.int64))[1]), np.float32)
    first = -int(conditioner.needed(np.zeros(1, np.int64))[0][0])
    samples[1, [1, 6, 7], first + 10] = 5.0
    samples[1, [1], first + 30] = 5.0
    conditioner.process(np.array([3, 2]), np.array([7, 7]), samples)
    assert conditioner.spikes.row.tolist() == [2, 2]
    assert conditioner.spikes.leads.tolist() == [3, 1]
    assert conditioner.spikes.at == pytest.approx([7 * FRAME + 10 * FS / fs, 7 * FRAME + 30 * FS / fs])
    conditioner.process(np.array([3, 2]), np.array([8, 8]), np.zeros_like(samples))
    assert len(conditioner.spikes.row) == 0
