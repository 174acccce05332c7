"""Losses against their definitions, sampling and augmentation, and a training run in miniature."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.model import load_checkpoint
from ecgnat_stream.signal import LEADS
from train.labels import UNSTATED, allow, forbid
from train.prepare import Cached
from train.rhythm import bag_loss, learning_rate, partial_label_loss, train, window_loss
from train.sample import Augment, Cache, Sampler, _chances, _more_leads, _projected, _warped
from train.ship import calibrate


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Write a cache of synthetic records: two classes that differ in their frequency."""
    rng = np.random.default_rng(0)
    rows, leads, rhythm = [], [], []
    at = rhythm_at = 0
    for number in range(6):
        name, hz = ("SINUS", 1.0) if number % 2 else ("VF", 5.0)
        time = np.arange(3000) / 100
        signal = (np.sin(2 * np.pi * hz * time) + 0.05 * rng.standard_normal(3000)).astype(np.float16)
        slots = (1, 6) if number < 4 else (1,)
        split = "val" if number >= 4 else "train"
        rows.append(Cached("mitdb", str(number), split, slots, 3000, at, rhythm_at, -1, number % 4 if number < 2 else -1))
        leads += [signal] * len(slots)
        rhythm.append(np.full(3000, allow(name), np.uint8))
        at += 3000 * len(slots)
        rhythm_at += 3000
    (tmp_path / "leads.f16").write_bytes(np.concatenate(leads).tobytes())
    (tmp_path / "rhythm.u8").write_bytes(np.concatenate(rhythm).tobytes())
    (tmp_path / "records.json").write_bytes(msgspec.json.encode(rows))
    np.save(tmp_path / "noise.npy", rng.standard_normal((6, 5000)).astype(np.float16))
    return tmp_path


def test_one_allowed_class_is_cross_entropy() -> None:
    logits = torch.randn(2, 3, 8)
    classes = torch.randint(8, (2, 3))
    sets = (1 << classes).to(torch.uint8)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), classes.flatten())
    torch.testing.assert_close(partial_label_loss(logits, sets), expected)


def test_several_allowed_classes_sum_their_probabilities() -> None:
    logits = torch.randn(1, 1, 8)
    sets = torch.tensor([[forbid("VF", "AF")]], dtype=torch.uint8)
    p = logits.softmax(-1)[0, 0]
    allowed = 1 - p[RHYTHMS.index("VF")] - p[RHYTHMS.index("AF")]
    torch.testing.assert_close(partial_label_loss(logits, sets), -allowed.log())


def test_unstated_tokens_have_no_gradient() -> None:
    logits = torch.randn(1, 2, 8, requires_grad=True)
    partial_label_loss(logits, torch.tensor([[UNSTATED, allow("VT")]], dtype=torch.uint8)).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0].eq(0).all()
    assert logits.grad[0, 1].abs().sum() > 0


def test_nothing_stated_at_all_is_zero() -> None:
    assert partial_label_loss(torch.randn(1, 2, 8), torch.full((1, 2), UNSTATED, dtype=torch.uint8)) == 0
    assert bag_loss(torch.randn(2, 9, 8), torch.tensor([-1, -1])) == 0
    assert window_loss(torch.randn(2, 5), torch.full((2, 5), torch.nan)) == 0


def test_a_bag_wants_its_class_somewhere() -> None:
    logits = torch.zeros(1, 32, 8)
    nowhere = bag_loss(logits, torch.tensor([3]))
    logits[0, 10:16, 3] = 9.0
    assert bag_loss(logits, torch.tensor([3])) < 0.01 < nowhere


def test_one_cycle_rises_and_falls() -> None:
    rates = [learning_rate(step / 100, 1.0) for step in range(101)]
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates.index(max(rates)) == 10
    assert rates[-1] == pytest.approx(0.01)


def test_a_sampler_is_reproducible_and_balanced(cache: Path) -> None:
    data = Cache(cache)
    one, two = (Sampler(data, ("train",), 1000, 5, Augment(data.noise), 7).batch(16) for _ in range(2))
    np.testing.assert_array_equal(one.windows, two.windows)
    np.testing.assert_array_equal(one.sets, two.sets)
    stated = set(np.unique(Sampler(data, ("train",), 1000, 5, None, 0).batch(64).sets).tolist())
    assert {allow("SINUS"), allow("VF")} <= stated
    assert np.isfinite(one.window).all(axis=1).any()


def test_a_database_of_many_short_records_does_not_stand_for_a_class() -> None:
    long = [Cached("mitdb", "0", "train", (1,), 160_000, 0, 0, -1, -1)]
    short = [Cached("cinc2017", str(n), "train", (1,), 3000, 0, 0, -1, -1) for n in range(1000)]
    chances = _chances(long + short, [160_000] + [3000] * 1000)
    assert chances.sum() == pytest.approx(1)
    assert chances[0] / chances[1:].sum() == pytest.approx((160_000 / 3_000_000) ** 0.5)


def test_a_mixture_of_leads_stays_between_them() -> None:
    window = np.full((12, 100), np.nan, np.float32)
    window[1], window[6] = 1.0, -1.0
    for seed in range(20):
        mixed = _projected(window, np.random.default_rng(seed))
        assert np.nanmax(np.abs(mixed)) <= 2**0.5 + 1e-5
        assert np.flatnonzero(np.isfinite(mixed).any(axis=1)).tolist() == [1, 6]


def test_more_leads_obey_einthoven() -> None:
    window = np.full((12, 500), np.nan, np.float32)
    window[1] = np.sin(np.arange(500) / 5)
    window[6] = np.cos(np.arange(500) / 7)
    for seed in range(10):
        limb = _more_leads(window, np.random.default_rng(seed))[:6]
        np.testing.assert_allclose(limb[2], limb[1] - limb[0], atol=0.06)
        np.testing.assert_allclose(limb[3] + limb[4] + limb[5], 0, atol=0.06)
    twelve = np.zeros((12, 500), np.float32)
    assert _more_leads(twelve, np.random.default_rng(0)) is twelve


def test_warping_moves_statements_with_the_signal() -> None:
    window = np.full((12, 1000), np.nan, np.float32)
    sets = np.full(1000, allow("SINUS"), np.uint8)
    window[1] = 0.0
    window[1, 500:] = 1.0
    sets[500:] = allow("VF")
    for seed in range(20):
        warped, moved = _warped(window, sets, np.random.default_rng(seed))
        assert abs(int((moved == allow("SINUS")).sum()) - int((warped[1] < 0.5).sum())) <= 1
        assert (moved[np.isnan(warped[1])] == UNSTATED).all()


def test_augmentation_invents_no_lead_and_unstates_what_it_removes(cache: Path) -> None:
    data = Cache(cache)
    augment = Augment(data.noise)
    rng = np.random.default_rng(3)
    for _ in range(200):
        window, sets = data.cut(data.records[0], 0, 1000)
        changed = augment(window, sets, rng, False)
        leads = np.isfinite(changed).any(axis=1)
        assert leads.sum() in (1, 2, 6, 12)
        assert changed.shape == (len(LEADS), 1000)
        nothing = ~np.isfinite(changed).any(axis=0)
        assert (sets[nothing] == UNSTATED).all()


def test_a_cut_beyond_the_record_is_missing_and_unstated(cache: Path) -> None:
    data = Cache(cache)
    window, sets = data.cut(data.records[0], 2500, 1000)
    assert np.isnan(window[:, 500:]).all()
    assert (sets[500:] == UNSTATED).all()
    assert np.isfinite(window[[1, 6], :500]).all()


def test_calibration_undoes_overconfidence() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 4, 8, generator=generator)
    classes = torch.distributions.Categorical(logits=logits).sample()
    fitted = calibrate(4 * logits, (1 << classes).to(torch.uint8))
    assert fitted.temperature == pytest.approx(4.0, rel=0.15)
    assert fitted.bias == ()


def test_a_run_in_miniature_learns_stops_and_resumes(cache: Path, tmp_path: Path) -> None:
    options = {
        "cache": cache, "out": tmp_path / "run", "size": "nano", "causal": False, "batch": 8, "length": 1000, "steps": 3,
        "lr": 1e-3, "ema": 0.5, "threads": 1, "seed": 0, "validation": 1, "holdout": False,
    }  # fmt: skip
    train(argparse.Namespace(**options, minutes=1e-3))
    first = (tmp_path / "run" / "log.jsonl").read_bytes().splitlines()
    train(argparse.Namespace(**options, minutes=0.1))
    rows = [msgspec.json.decode(line) for line in (tmp_path / "run" / "log.jsonl").read_bytes().splitlines()]
    assert len(rows) > len(first) >= 1
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    _, card = load_checkpoint(tmp_path / "run" / "checkpoint")
    assert card.trained_on == {"mitdb": 4}
