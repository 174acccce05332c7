"""Where the constants of the signal path come from: the fits are programs of train/signal."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import msgspec
import numpy as np
import pytest

from ecgnat_stream.beats.judge import PARTS, Judge, Peaks, shipped_weights
from ecgnat_stream.quality import FEATURES, weigh
from ecgnat_stream.score.compare import LEARNING_S
from train.signal import qrs, quality
from train.signal.quality_frames import Frames

ROOT = Path(__file__).parents[2]


def test_the_judge_weighs_as_before_its_constants_were_a_file() -> None:
    before = [1.21, 0.83, -4.28, -0.52, -1.59, -2.9, -3.25, -2.37, -5.74, -1.98, -0.56, 4.62, -3.1, 3.05, 2.95, 2.72]
    assert list(shipped_weights().parts.values()) == before
    judge = Judge(1, 0.15)
    judge.reset(np.array([0]))
    shape = np.random.default_rng(0).normal(size=(1, 3, 18)).astype(np.float32)
    one = np.array([1.0])
    peak = Peaks(
        np.array([0]), np.array([400]), 0.7 * one, 400.5 * one, np.array([1]), one.astype(np.float32), np.array([[0, 1, 2]]),
        np.full((1, 3), 1 / 3, np.float32), shape, 0.2 * one, 0.0 * one,
    )  # fmt: skip
    parts = judge.weigh(peak)
    assert len(parts) == len(PARTS)
    want = 0.0
    for weight, part in zip(before, parts, strict=True):
        want = want + weight * part
    assert judge.odds(peak).tobytes() == want.tobytes()  # to the last bit; without a beat before, patience adds nothing


def test_a_regression_finds_the_weights_of_its_data() -> None:
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(20000), rng.normal(size=(20000, 2))])
    true = np.array([0.5, -2.0, 1.0])
    label = rng.random(20000) < 1 / (1 + np.exp(-x @ true))
    found = qrs.regress(x, label, np.ones(20000))
    np.testing.assert_allclose(found, true, atol=0.1)
    assert abs(qrs.regress(x, label, np.where(label, 4.0, 1.0))[0] - true[0] - np.log(4)) < 0.15  # beats that count four times


def test_noise_is_added_at_its_level_in_every_other_two_minutes() -> None:
    rate, beats = qrs.RATE, np.arange(200, 360 * 600, 360)
    ecg = np.zeros((360 * 600, 1))
    ecg[beats] = 2.0
    noise = np.random.default_rng(0).normal(0.0, 0.3, (360 * 400, 1))
    added = qrs.add_noise(ecg, beats, noise, 6.0) - ecg
    begins = round(LEARNING_S)
    assert not added[: begins * rate].any()
    assert not added[(begins + 130) * rate : (begins + 230) * rate].any()
    power = np.square(added[(begins + 10) * rate : (begins + 110) * rate]).mean()
    assert 10 * np.log10(2.0**2 / 8 / power) == pytest.approx(6.0, abs=0.3)


def frames(rng: np.random.Generator, level: float, right: int, record: str) -> Frames:
    """Return frames of two leads whose features lie around a level."""
    count = 400
    measured = rng.normal(level, 1.0, (count, 2, len(FEATURES))).astype(np.float32)
    verdict = np.full((count, 2), right, np.int8)
    return Frames(
        np.ones((count, 2), np.float32), np.zeros((count, 2), np.int8), measured, verdict, np.ones(count, bool),
        np.full(count, record),
    )  # fmt: skip


def test_the_quality_fit_tells_hearts_from_noise_and_right_from_wrong() -> None:
    rng = np.random.default_rng(0)
    groups = {
        "clean": frames(rng, 1.0, 1, "100"),
        "em alone": frames(rng, -1.0, -1, "em"),
        "em 0 dB": frames(rng, -0.8, 0, "101"),
    }
    data = quality.samples(groups)
    assert set(np.unique(data.record)) == {"100", "em", "101"}
    weights = quality.fit(data)
    hearts, noises = (rng.normal(level, 1.0, (len(FEATURES), 200)).astype(np.float32) for level in (1.0, -1.0))
    right, noise = weigh(weights, np.concatenate([hearts, noises], axis=1))
    assert (right[:200] > 0.5).mean() > 0.95
    assert (right[200:] < 0.5).mean() > 0.95
    assert noise[:200].mean() < noise[200:].mean()
    assert msgspec.json.decode(msgspec.json.encode(weights), type=type(weights)) == weights


def test_every_file_of_constants_has_its_program() -> None:
    made_by = {"qrs": "qrs", "quality": "quality", "beats": "beat_classes", "fibrillation": "fibrillation"}
    assert {path.stem for path in (ROOT / "ecgnat_stream" / "weights").glob("*.json")} == set(made_by)
    for name in made_by.values():
        assert import_module(f"train.signal.{name}").main.__doc__


def test_measurements_fit_nothing() -> None:
    """What is in tests/bench may refit for a cross-validation, with the function of train/signal; it writes no weights."""
    for path in (ROOT / "tests" / "bench").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert not {name for name in defined if name.startswith("fit")}, path
        assert "ecgnat_stream/weights" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("ecgnat_stream.beats.judge", "PARTS"),
        ("ecgnat_stream.quality.features", "FEATURES"),
        ("ecgnat_stream.fibrillation.features", "FEATURES"),
    ],
)
def test_weights_for_other_features_are_refused(module: str, names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = import_module(module)
    monkeypatch.setattr(stage, names, ("width",))
    with pytest.raises(ValueError, match="fit it again"):
        getattr(stage.shipped_weights, "__wrapped__", stage.shipped_weights)()
