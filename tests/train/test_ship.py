"""Calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ecgnat_stream.model import load_checkpoint
from train.data.sample import Cache
from train.ship import SPECIFICITY, calibrate, fit_temperature, vf_threshold


def test_a_temperature_undoes_overconfidence() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1600, 8, generator=generator)
    torch.manual_seed(0)
    classes = torch.distributions.Categorical(logits=logits).sample()
    found = fit_temperature(lambda temperature: F.cross_entropy(4 * logits / temperature, classes))
    assert found == pytest.approx(4.0, rel=0.1)


def test_the_vf_threshold_keeps_the_specificity() -> None:
    rng = np.random.default_rng(0)
    said = np.concatenate([rng.uniform(0, 0.8, 2000), rng.uniform(0.5, 1, 200)])
    stated = np.arange(2200) >= 2000
    threshold = vf_threshold(stated, said)
    assert (said[~stated] < threshold).mean() == pytest.approx(SPECIFICITY, abs=0.002)
    assert vf_threshold(stated, np.where(stated, 1.0, 0.0)) == 0.3
    assert vf_threshold(np.ones(5, bool), np.ones(5)) == 0.5


def test_everything_that_is_stated_is_fitted_and_the_weights_stay(cache: Path, untrained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("model.safetensors", "config.json"):
        (copy / name).write_bytes((untrained / name).read_bytes())
    fitted = calibrate(copy, Cache(cache), ("val",))
    assert fitted.temperature != 1.0
    assert fitted.screen_temperature != 1.0
    assert len(fitted.window_thresholds) == 5
    assert 0.3 <= fitted.vf_threshold <= 1.0
    before, after = (load_checkpoint(path)[0].state_dict() for path in (untrained, copy))
    assert all(torch.equal(before[name], after[name]) for name in before)
