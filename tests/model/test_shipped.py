"""The checkpoint that comes with the package, on recorded ECG that it was trained on: a check of the wiring, no figure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecgnat_devices.simulator import Patient, Signal
from ecgnat_devices.simulator.script import Segment
from ecgnat_stream.beats import find_beats
from ecgnat_stream.codes import BEATS, RHYTHMS
from ecgnat_stream.condition import condition_record
from ecgnat_stream.model import ModelConfig, Predictor, load_checkpoint, shipped
from ecgnat_stream.signal import LEADS, MODEL_FS, Conditioned
from ecgnat_stream.weights import installed
from train.judge.metrics import decode_beats

NAMES = ("ecgnat-nano", "ecgnat-nano-causal")
OF_HEARTBEATS = ("beatnet", "clear-hug")


@pytest.fixture(scope="module", params=NAMES)
def predictor(request: pytest.FixtureRequest) -> Iterator[Predictor]:
    with Predictor(ModelConfig(name=request.param, threads=1)) as predictor:
        yield predictor


@pytest.mark.parametrize("name", NAMES)
def test_it_is_there_with_its_card(name: str) -> None:
    network, card = load_checkpoint(shipped(name))
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(1.29e6, rel=0.01)
    assert card.model.is_causal == name.endswith("causal")
    assert {"mitdb", "vfdb", "cudb", "cinc2017"} <= card.trained_on.keys()
    assert card.calibration.temperature != 1
    assert len(card.calibration.window_thresholds) == len(card.model.window_classes)
    assert card.metrics["test"]["one-lead screening: mean F1 of N, A, O"][0] > 0.5
    text = (shipped(name) / "README.md").read_text()
    for part in ("not a medical device", "ODC-By", "CC BY 4.0", "train.evaluate", "VT duration", *card.trained_on):
        assert part in text


def test_the_diagnostic_network_says_what_it_is_for() -> None:
    network, card = load_checkpoint(shipped("ecgnat-nano-12lead"))
    assert not network.config.is_causal
    assert len(card.calibration.window_thresholds) == len(card.model.window_classes)
    assert card.metrics["test"]["PTB-XL superclasses: macro-AUROC"][0] > 0.8
    text = (shipped("ecgnat-nano-12lead") / "README.md").read_text()
    assert "not a medical device" in text
    assert "use `ecgnat-nano`" in text


@pytest.mark.parametrize("name", OF_HEARTBEATS)
def test_a_network_of_heartbeats_is_there_with_its_card(name: str) -> None:
    network, card = load_checkpoint(shipped(name))
    assert network.needs_beats
    assert {"mitdb", "vfdb", "cudb", "cinc2017"} <= card.trained_on.keys()
    assert len(card.calibration.window_thresholds) == len(card.model.window_classes)
    assert card.metrics["test"]["PTB-XL superclasses: macro-AUROC"][0] > 0.8
    text = (shipped(name) / "README.md").read_text()
    for part in ("not a medical device", "ODC-By", "CC BY 4.0", "train.evaluate", "find_beats", *card.trained_on):
        assert part in text


@pytest.mark.parametrize("name", OF_HEARTBEATS)
@pytest.mark.parametrize("bpm", [60, 34, 30, 26])
def test_a_slow_regular_heart_is_in_sinus_rhythm(name: str, bpm: int) -> None:
    """Below 31 bpm tiles lie between the beats; they once took the T waves, and BEAT-Net gave sinus rhythm 0.41 at 30 bpm."""
    patient = Patient(
        Signal(fs=500.0, leads=("II", "V1"), script=(Segment(rhythm="sinus", seconds=60, rate_bpm=bpm),), loop=False)
    )
    raw = np.full((12, 30_000), np.nan, np.float32)
    raw[[LEADS.index(lead) for lead in ("II", "V1")]] = patient.read(30_000)
    signal = condition_record(raw, 500.0).samples
    x = np.stack([signal[:, 2 * start : 2 * start + 2000 : 2] for start in range(500, 4900, 110)])
    with Predictor(ModelConfig(name=name, threads=1)) as predictor:
        rhythm = predictor.predict(Conditioned(x, MODEL_FS), find_beats(x)).rhythm
    assert rhythm[..., RHYTHMS.index("SINUS")].mean() > 0.7
    assert rhythm[..., RHYTHMS.index("NOISE")].mean() < 0.12


def test_all_weights_are_small() -> None:
    assert sum((folder / "model.safetensors").stat().st_size for folder in installed().values()) < 25e6


def window(root: Path, record: str, at_s: float, slot: int = 1) -> np.ndarray:
    """Return 10 s of a record's first lead, conditioned, as the model sees it."""
    fs = wfdb.rdheader(str(root / record)).fs
    start = round((at_s - 5) * fs)
    signal = wfdb.rdrecord(str(root / record), sampfrom=start, sampto=start + round(15 * fs)).p_signal[:, 0]
    samples = np.full((12, len(signal)), np.nan, np.float32)
    samples[slot] = signal
    return condition_record(samples, fs).at(MODEL_FS).samples[None, :, -1000:]


@pytest.mark.data
@pytest.mark.parametrize(
    ("record", "at_s", "rhythm"),
    [
        ("mitdb/101", 100, "SINUS"),
        ("mitdb/107", 300, "PACED"),
        ("cudb/cu01", 300, "VF"),
        ("vfdb/422", 1900, "VF"),
        ("vfdb/607", 1750, "ASYSTOLE"),
        ("vfdb/611", 600, "SVT"),
        ("vfdb/611", 1500, "VT"),
    ],
)
def test_it_names_what_it_has_learned(predictor: Predictor, data_root: Path, record: str, at_s: float, rhythm: str) -> None:
    probabilities = predictor.predict(Conditioned(window(data_root, record, at_s), MODEL_FS)).rhythm[0].mean(axis=0)
    assert RHYTHMS[int(probabilities.argmax())] == rhythm, dict(zip(RHYTHMS, probabilities.round(2).tolist(), strict=True))


@pytest.mark.data
@pytest.mark.parametrize("name", OF_HEARTBEATS)
@pytest.mark.parametrize(
    ("record", "at_s", "rhythm"), [("mitdb/101", 100, "SINUS"), ("cudb/cu01", 300, "VF"), ("vfdb/611", 1500, "VT")]
)
def test_heartbeats_name_what_they_have_learned(data_root: Path, name: str, record: str, at_s: float, rhythm: str) -> None:
    samples = window(data_root, record, at_s)
    with Predictor(ModelConfig(name=name, threads=1)) as predictor:
        probabilities = predictor.predict(Conditioned(samples, MODEL_FS), find_beats(samples)).rhythm[0].mean(axis=0)
    assert RHYTHMS[int(probabilities.argmax())] == rhythm, dict(zip(RHYTHMS, probabilities.round(2).tolist(), strict=True))


@pytest.mark.data
@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_gain_does_not_change_the_rhythm(predictor: Predictor, data_root: Path, gain: float) -> None:
    louder = Conditioned(np.float32(gain) * window(data_root, "mitdb/101", 200), MODEL_FS)
    assert predictor.predict(louder).rhythm[0].mean(axis=0).argmax() == RHYTHMS.index("SINUS")


@pytest.mark.data
def test_it_finds_the_beats(predictor: Predictor, data_root: Path) -> None:
    samples = wfdb.rdann(str(data_root / "mitdb/101"), "atr")
    start = 200 * 360
    stated = (samples.sample[(samples.sample >= start) & (samples.sample < start + 3600)] - start) / 3.6
    beat = predictor.predict(Conditioned(window(data_root, "mitdb/101", 200), MODEL_FS)).beat[0]
    positions, classes, _ = decode_beats(beat, predictor.card.calibration.beat_threshold)
    assert len(positions) == pytest.approx(len(stated), abs=1)
    assert np.median([np.abs(positions - at).min() for at in stated]) < 5
    assert (classes == BEATS.index("N")).all()
