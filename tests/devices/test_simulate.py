"""The simulator: physiology that can be counted, Einthoven, artefacts, determinism."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgnat_devices.simulate import SimulateDevice, SimulateOptions
from ecgnat_devices.simulator import SCRIPTS, Patient, Segment, Signal
from ecgnat_devices.simulator.script import LABELS, RhythmName
from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.device import open_device
from ecgnat_stream.errors import ConfigError, DeviceError
from ecgnat_stream.signal import LEADS, SampleBlock
from ecgnat_stream.testing import InstantClock

FS = 250


def _patient(rhythm: str, seconds: float = 30, **options: Any) -> tuple[Patient, np.ndarray]:
    signal = msgspec.convert({"script": [{"rhythm": rhythm, "seconds": seconds}], "loop": False} | options, Signal)
    patient = Patient(signal)
    return patient, patient.read(round(seconds * signal.fs))


async def _deliver(seconds: float, **options: Any) -> tuple[SimulateDevice, list[SampleBlock]]:
    device = SimulateDevice(msgspec.convert(options, SimulateOptions), InstantClock())
    blocks = []
    async with device as info:
        async for block in device:
            blocks.append(block)
            if block.stop >= seconds * info.fs:
                break
    return device, blocks


@pytest.mark.parametrize("rhythm", get_args(RhythmName))
@pytest.mark.parametrize("fs", [100.0, 360.0, 1000.0])
def test_every_rhythm_obeys_einthoven(rhythm: str, fs: float) -> None:
    _, x = _patient(rhythm, 10, fs=fs, mains_mv=0.2, motion_mv=0.3, muscle_mv=0.1)
    assert x.shape == (12, round(10 * fs))
    assert np.isfinite(x).all()
    i, ii, iii, avr, avl, avf = x[:6].astype(float)
    np.testing.assert_allclose(iii, ii - i, atol=2e-6)
    np.testing.assert_allclose(avr, -(i + ii) / 2, atol=2e-6)
    np.testing.assert_allclose(avl, i - ii / 2, atol=2e-6)
    np.testing.assert_allclose(avf, ii - i / 2, atol=2e-6)


@pytest.mark.parametrize(
    ("rhythm", "low", "high"),
    [("sinus", 60, 85), ("bradycardia", 36, 48), ("tachycardia", 115, 140), ("svt", 170, 195), ("vt", 160, 185), ("af", 70, 125),
     ("flutter", 70, 80), ("paced", 66, 74), ("avb1", 60, 75), ("avb3", 30, 42),
     ("asystole", 0, 0), ("vf", 0, 0), ("vflutter", 0, 0)],
)  # fmt: skip
def test_ventricular_rate(rhythm: str, low: float, high: float) -> None:
    patient, _ = _patient(rhythm, 60)
    assert low <= len(patient.truth.beats) <= high


def test_r_peaks_lie_where_the_truth_says() -> None:
    patient, x = _patient("sinus", 30, noise_mv=0, wander_mv=0)
    beats = np.array(patient.truth.beats)
    beats = beats[(beats > 25) & (beats < x.shape[1] - 25)]
    peaks = [beat - 20 + int(np.argmax(x[1, beat - 20 : beat + 20])) for beat in beats]
    assert np.abs(np.array(peaks) - beats).max() <= 2
    assert 0.6 < np.median(x[1, beats]) < 2.0


def test_af_is_irregular_and_has_no_p_wave() -> None:
    def spread(rhythm: str) -> float:
        rr = np.diff(_patient(rhythm, 120)[0].truth.beats)
        return float(rr.std() / rr.mean())

    assert spread("af") > 0.15
    assert spread("sinus") < 0.08
    assert spread("svt") < 0.02

    def before_qrs(rhythm: str) -> float:
        patient, x = _patient(rhythm, 120, noise_mv=0, wander_mv=0, seed=4)
        rows = [x[1, b - 50 : b - 25] for b in patient.truth.beats if b > 60]
        mean = np.mean(rows, axis=0)
        return float(mean.max() - mean.min())

    assert before_qrs("sinus") > 2 * before_qrs("af")


def _dominant_hz(x: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(x * np.hanning(x.size)))
    hz = np.fft.rfftfreq(x.size, 1 / FS)
    return float(hz[1:][np.argmax(spectrum[1:])])


@pytest.mark.parametrize("seed", range(4))
def test_fibrillation_is_fast_disorganised_and_becomes_fine(seed: int) -> None:
    _, x = _patient("vf", 60, seed=seed, noise_mv=0, wander_mv=0)
    assert 3 <= _dominant_hz(x[1, 500:5500]) <= 7.5
    sizes = x[1].reshape(6, -1).std(axis=1)
    assert sizes[0] > 1.8 * sizes[-1]
    assert np.abs(x[1]).max() < 2.5


def test_ventricular_flutter_is_one_wave() -> None:
    _, x = _patient("vflutter", 20, noise_mv=0, wander_mv=0)
    assert 4 <= _dominant_hz(x[1]) <= 5


def test_flutter_waves_go_300_a_minute() -> None:
    patient, x = _patient("flutter", 20, noise_mv=0, wander_mv=0)
    assert np.abs(np.diff(patient.truth.beats) - 200).max() <= 1
    shape = np.abs(np.fft.rfft(x[5, 500:4500] - x[5, 500:4500].mean()))
    at_5_hz = shape[round(5 * 4000 / FS)]
    assert at_5_hz > 3 * np.median(shape)


@pytest.mark.parametrize(("every", "ratio"), [(2, 1 / 2), (3, 1 / 3), (4, 1 / 4)])
def test_premature_beats_come_as_ordered(every: int, ratio: float) -> None:
    signal = Signal(script=(Segment(rhythm="pvc", seconds=120, every=every),), loop=False)
    patient = Patient(signal)
    patient.read(30_000)
    labels = np.array(patient.truth.labels)
    assert np.mean(labels == "V") == pytest.approx(ratio, abs=0.02)
    rr = np.diff(patient.truth.beats)
    early = rr[(labels[1:] == "V")]
    assert early.max() < 0.75 * np.median(rr[(labels[1:] == "N") & (labels[:-1] == "V")])


def test_wenckebach_drops_every_fourth() -> None:
    patient, _ = _patient("avb2", 60)
    rr = np.diff(patient.truth.beats)
    assert np.mean(rr > 1.4 * np.median(rr)) == pytest.approx(1 / 3, abs=0.05)


def test_ventricular_beats_are_wide() -> None:
    def width(rhythm: str) -> float:
        patient, x = _patient(rhythm, 30, noise_mv=0, wander_mv=0, seed=1)
        speed = np.sqrt((np.diff(x[[1, 6, 10]].astype(float), axis=1) ** 2).sum(axis=0))
        beats = [b for b in patient.truth.beats if 60 < b < 7400]
        return float(np.median([np.mean(speed[b - 20 : b + 25] > 0.1 * speed[b - 20 : b + 25].max()) for b in beats]))

    assert width("vt") > 1.25 * width("sinus")


def test_asystole_is_flat_but_not_dead() -> None:
    _, x = _patient("asystole", 20)
    assert 0 < x[1].std() < 0.1


def test_paced_beats_carry_a_spike() -> None:
    patient, x = _patient("paced", 20, noise_mv=0, wander_mv=0, fs=500.0)
    steep = np.abs(np.diff(x[1].astype(float)))
    beats = [b for b in patient.truth.beats if 60 < b < 9900]
    assert all(steep[b - 40 : b - 15].max() > 0.5 for b in beats)


def test_truth_names_rhythms_in_order() -> None:
    patient = Patient(Signal(script="tour", loop=False))
    patient.read(10**6)
    names = [name for name, _, _, _ in patient.truth.rhythms]
    assert names == [segment.rhythm for segment in SCRIPTS["tour"]]
    assert all(label in RHYTHMS for _, label, _, _ in patient.truth.rhythms)
    assert [stop for *_, stop in patient.truth.rhythms[:-1]] == [start for _, _, start, _ in patient.truth.rhythms[1:]]
    assert patient.truth.beats == sorted(patient.truth.beats)
    assert set(LABELS) == set(get_args(RhythmName))


@given(cuts=st.lists(st.integers(1, 700), min_size=1, max_size=30), seed=st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_cutting_changes_nothing(cuts: list[int], seed: int) -> None:
    signal = Signal(seed=seed, script="ectopy", motion_mv=0.2, muscle_mv=0.05, counter=True)
    length = sum(cuts)
    one, many = Patient(signal), Patient(signal)
    np.testing.assert_array_equal(one.read(length), np.concatenate([many.read(cut) for cut in cuts], axis=1))


def test_seeds_differ() -> None:
    assert not np.array_equal(_patient("sinus", seed=1)[1], _patient("sinus", seed=2)[1])


async def test_lead_off_is_missing_and_said() -> None:
    off = {"kind": "lead_off", "start_s": 1.0, "seconds": 1.0, "leads": ["V2"]}
    _, blocks = await _deliver(3, artefacts=[off], block=50)
    for block in blocks:
        inside = 250 <= block.start < 500
        assert block.lead_off == (frozenset({"V2"}) if inside else frozenset())
        assert np.isnan(block.samples[LEADS.index("V2")]).all() == inside
        assert not np.isnan(block.samples[LEADS.index("V3")]).any()


async def test_electrode_takes_its_leads_along() -> None:
    off = {"kind": "lead_off", "start_s": 0.0, "seconds": 1.0, "leads": ["LA"], "rail_mv": 5.0, "reported": False}
    _, blocks = await _deliver(1, artefacts=[off])
    x = np.concatenate([block.samples for block in blocks], axis=1)
    assert not any(block.lead_off for block in blocks)
    assert [lead for lead in LEADS if (x[LEADS.index(lead)] == 5.0).all()] == ["I", "III", "aVR", "aVL", "aVF"]


@pytest.mark.parametrize("block", [1, 7, 50, 1000])
async def test_gap_is_a_jump_of_the_index_and_of_the_counter(block: int) -> None:
    gaps = [{"kind": "gap", "start_s": 1.0, "seconds": 0.4}]
    _, blocks = await _deliver(4, artefacts=gaps, counter=True, block=block, leads=["II"])
    index = np.concatenate([np.arange(b.start, b.stop) for b in blocks])
    count = np.concatenate([np.rint(b.samples[1] * 1000).astype(int) for b in blocks])
    np.testing.assert_array_equal(index, count)
    assert sorted(set(range(int(index[-1]) + 1)) - set(index.tolist())) == list(range(250, 350))


async def test_artefacts_come_again_with_the_loop() -> None:
    off = {"kind": "lead_off", "start_s": 1.0, "seconds": 0.5, "leads": ["II"]}
    script = [{"rhythm": "sinus", "seconds": 2.0}]
    _, blocks = await _deliver(6, artefacts=[off], script=script, leads=["II"], block=25)
    x = np.concatenate([block.samples for block in blocks], axis=1)[0]
    runs = np.flatnonzero(np.diff(np.isnan(x).astype(int)) == 1) + 1
    assert runs.tolist() == [250, 750, 1250]


def test_noise_artefacts_are_seen() -> None:
    quiet = _patient("asystole", 10, noise_mv=0, wander_mv=0)[1]
    assert not quiet.any()
    for kind in ("noise", "wander", "mains", "muscle", "motion"):
        artefact = {"kind": kind, "start_s": 4.0, "seconds": 6.0, "level_mv": 0.5}
        x = _patient("asystole", 10, noise_mv=0, wander_mv=0, artefacts=[artefact])[1]
        assert x[0, 1000:].std() > 0.05, kind
        assert not x[:, :1000].any(), kind
    x = _patient("asystole", 10, noise_mv=0, wander_mv=0, mains_mv=0.3, mains_hz=60.0)[1]
    assert _dominant_hz(x[1]) == pytest.approx(60, abs=0.2)


def test_spikes_come_at_seventy_a_minute_whatever_the_heart_does() -> None:
    artefacts = [{"kind": "spikes", "start_s": 5, "seconds": 20, "level_mv": 5}]
    patient, x = _patient("asystole", 30, fs=FS, artefacts=artefacts)
    at = np.flatnonzero(x[1] > 3) / FS
    assert at[0] > 5
    assert at[-1] < 25
    assert np.abs(np.diff(at) - 60 / 70).max() < 2 / FS
    assert not patient.truth.beats


async def test_drift_and_jitter_move_the_times_and_not_the_samples() -> None:
    _, plain = await _deliver(10)
    _, drifting = await _deliver(10, clock_drift_ppm=1000)
    _, shaken = await _deliver(10, jitter_s=0.05)
    for other in (drifting, shaken):
        assert all(np.array_equal(a.samples, b.samples) for a, b in zip(plain, other, strict=True))
    assert plain[-1].t_ns - drifting[-1].t_ns == pytest.approx(10e9 * 1e-3, rel=0.01)
    late = np.array([b.t_ns - a.t_ns for a, b in zip(plain, shaken, strict=True)])
    assert 0 <= late.min() < late.max() <= 0.05e9


async def test_script_that_does_not_loop_ends() -> None:
    device = SimulateDevice(SimulateOptions(script="sinus", loop=False, speed="max"), InstantClock())
    async with device as info:
        stop = [block.stop async for block in device][-1]
    assert stop == info.total == 60 * FS
    assert len(device.truth().beats) > 50


@pytest.mark.parametrize(
    "options", [{"script": "nothing"}, {"leads": ["X"]}, {"leads": []}, {"leads": ["I", "I"]}, {"script": []}]
)
async def test_what_cannot_be_simulated_is_refused(options: dict[str, Any]) -> None:
    device = open_device("simulate", options, InstantClock())
    with pytest.raises(DeviceError) as caught:
        await device.__aenter__()
    assert caught.value.permanent


@pytest.mark.parametrize("options", [
    {"fs": 99}, {"seeds": 1}, {"script": [{"rhythm": "salsa", "seconds": 3}]}, {"script": [{"rhythm": "vf", "second": 3}]},
])  # fmt: skip
def test_option_errors(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="simulate"):
        open_device("simulate", options, InstantClock())
