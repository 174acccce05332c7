"""The checkpoint that comes with the package, on recorded ECG that it was trained on: a check of the wiring, no figure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.condition import condition_record
from ecgnat_stream.model import ModelConfig, Predictor, load_checkpoint, shipped


@pytest.fixture(scope="module")
def predictor() -> Iterator[Predictor]:
    with Predictor(ModelConfig(threads=1)) as predictor:
        yield predictor


def test_it_is_there_with_its_card() -> None:
    network, card = load_checkpoint(shipped())
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(1.26e6, rel=0.01)
    assert {"mitdb", "vfdb", "cudb", "cinc2017"} <= card.trained_on.keys()
    assert card.calibration.temperature > 0
    text = (shipped() / "README.md").read_text()
    for part in ("not a medical device", "ODC-By", "CC BY 4.0", "train.evaluate_rhythm", *card.trained_on):
        assert part in text


def window(root: Path, record: str, at_s: float, slot: int = 1) -> np.ndarray:
    """Return 10 s of a record's first lead, conditioned, as the model sees it."""
    fs = wfdb.rdheader(str(root / record)).fs
    start = round((at_s - 5) * fs)
    signal = wfdb.rdrecord(str(root / record), sampfrom=start, sampto=start + round(15 * fs)).p_signal[:, 0]
    samples = np.full((12, len(signal)), np.nan, np.float32)
    samples[slot] = signal
    return condition_record(samples, fs)[None, :, ::2][..., -1000:]


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
    probabilities = predictor.predict(window(data_root, record, at_s)).rhythm[0].mean(axis=0)
    assert RHYTHMS[int(probabilities.argmax())] == rhythm, dict(zip(RHYTHMS, probabilities.round(2).tolist(), strict=True))


@pytest.mark.data
@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_gain_does_not_change_the_rhythm(predictor: Predictor, data_root: Path, gain: float) -> None:
    plain = window(data_root, "mitdb/101", 200)
    assert predictor.predict(np.float32(gain) * plain).rhythm[0].mean(axis=0).argmax() == RHYTHMS.index("SINUS")
