"""Sampling and augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ecgnat_stream.beats import find_beats
from ecgnat_stream.codes import BEATS
from ecgnat_stream.model.tokens import check_beats
from ecgnat_stream.signal import LEADS
from train.data.augment import Augment, LabelledWindow, _more_leads, _projected, _warped, stack_beats, swapped
from train.data.labels import UNSTATED, allow
from train.data.pack import Cached
from train.data.sample import BEAT_HIDDEN, BEAT_NONE, BEAT_OTHER, MIXES, Cache, Sampler, _chances, beat_targets, fraction_of


def train_records(data: Cache) -> list[Cached]:
    return [record for record in data.records if record.split == "train"]


def test_a_sampler_is_reproducible_and_draws_every_kind(cache: Path) -> None:
    data = Cache(cache)
    sampler = Sampler(data, train_records(data), MIXES["monitor"], (1000, 2000), 32, Augment(data.noise), views=2)
    sampler.reseed(7)
    one = sampler.draw()
    sampler.reseed(7)
    two = sampler.draw()
    assert all(torch.equal(one[name].nan_to_num(-9), two[name].nan_to_num(-9)) for name in one)
    plain = Sampler(data, train_records(data), MIXES["monitor"], (1000,), 128)
    batch = plain.draw()
    assert {allow("SINUS"), allow("VF")} <= set(torch.unique(batch["sets"]).tolist())
    assert (batch["screen"] >= 0).any()
    assert torch.isfinite(batch["window"]).all(dim=1).any()
    assert {BEAT_HIDDEN, BEAT_NONE, 0, 1, 2} <= set(torch.unique(batch["beat"]).tolist())


def test_long_windows_make_smaller_batches_and_views_share_their_statements(cache: Path) -> None:
    data = Cache(cache)
    sampler = Sampler(data, train_records(data), MIXES["monitor"], (1000, 2000), 16, Augment(data.noise), views=2)
    shapes = set()
    for seed in range(8):
        sampler.reseed(seed)
        batch = sampler.draw()
        shapes.add(tuple(batch["windows"].shape))
        half = len(batch["screen"]) // 2
        assert torch.equal(batch["screen"][:half], batch["screen"][half:])
    assert shapes == {(16, 12, 1000), (8, 12, 2000)}


def test_beats_are_found_in_what_is_drawn_and_the_last_moment_is_often_unknown(cache: Path) -> None:
    data = Cache(cache)
    records = [record for record in train_records(data) if record.beats > 0]
    plain = Sampler(data, records, {"any": 1.0}, (1000,), 32, beats=True)
    plain.reseed(3)
    batch = plain.draw()
    np.testing.assert_array_equal(batch["beats"].numpy(), find_beats(batch["windows"].numpy()))
    ends = [row[np.isfinite(row)].max() for row in batch["beats"].numpy()]
    assert sum(end > 965 for end in ends) > 2, "nothing is hidden where nothing is augmented"
    changed = Sampler(data, records, {"any": 1.0}, (1000,), 32, Augment(data.noise), beats=True)
    late = unknown = 0
    for seed in range(6):
        changed.reseed(seed)
        batch = changed.draw()
        whole = find_beats(batch["windows"].numpy())
        known = batch["beats"].numpy()
        gone = np.isfinite(whole) & ~np.isfinite(known)
        assert (whole[gone] > 965).all(), "only late beats are hidden"
        late += int((whole > 965).sum())
        unknown += int(gone.sum())
    assert 0.25 < unknown / late < 0.75


def test_beats_get_a_detectors_errors_in_as_many_windows_as_asked_for() -> None:
    rng, length = np.random.default_rng(0), 1000
    rows = [np.arange(30.0, 930, 60, dtype=np.float32)] * 400 + [np.empty(0, np.float32)]
    found = stack_beats(rows)
    noise = np.zeros((0, 0), np.float32)
    np.testing.assert_array_equal(Augment(noise).beats(found, length, rng), found)
    changed = Augment(noise, beat_errors=0.5).beats(found, length, rng)
    known = [row[np.isfinite(row)] for row in changed]
    wrong = [row for row in known[:-1] if not np.array_equal(row, rows[0])]
    assert 0.4 < len(wrong) / 400 < 0.6
    near = [np.abs(row[:, None] - rows[0]).min(axis=1) < 10 for row in wrong]
    missed = [1 - (np.abs(row[:, None] - rows[0]) < 10).any(axis=0).mean() for row in wrong]
    assert 0.15 < np.mean(missed) < 0.25
    assert 0.03 < np.mean([(~some).sum() / len(rows[0]) for some in near]) < 0.10
    for row in wrong:
        assert (np.diff(row) > 0).all() and row[0] >= 0 and row[-1] < length
    check_beats(torch.from_numpy(changed))
    assert not len(known[-1]), "a window without beats stays without"


def test_a_mix_that_no_record_serves_is_refused(cache: Path) -> None:
    data = Cache(cache)
    with pytest.raises(ValueError, match="none of the 4 records holds any of ASYSTOLE"):
        Sampler(data, train_records(data)[:4], {"ASYSTOLE": 1.0})


def test_a_database_of_many_short_records_does_not_stand_for_a_class() -> None:
    long = [Cached("mitdb", "0", "train", (1,), 160_000, 0, 0, -1, -1)]
    short = [Cached("cinc2017", str(n), "train", (1,), 3000, 0, 0, -1, -1) for n in range(1000)]
    chances = _chances(long + short, [160_000] + [3000] * 1000)
    assert chances.sum() == pytest.approx(1)
    assert chances[0] / chances[1:].sum() == pytest.approx((160_000 / 3_000_000) ** 0.5)


def test_beat_targets_say_where_a_peak_lies_in_its_token() -> None:
    leads = np.full((12, 100), np.nan, np.float32)
    leads[1, :72] = 0.0
    sets = np.full(100, allow("SINUS"), np.uint8)
    sets[48:56] = allow("VF")
    beats = np.array([[3, 0], [21.5, 2], [34, 255], [50, 0], [90, 1]], np.float32)
    beat, place = beat_targets(LabelledWindow(leads, sets, beats))
    assert len(beat) == 16  # padded to whole rhythm tokens
    assert beat[:9].tolist() == [
        0,
        BEAT_NONE,
        BEATS.index("V"),
        BEAT_NONE,
        BEAT_OTHER,
        BEAT_NONE,
        BEAT_HIDDEN,
        BEAT_NONE,
        BEAT_NONE,
    ]
    assert (beat[9:] == BEAT_HIDDEN).all()
    assert place[0] == pytest.approx(3 / 8)
    assert place[2] == pytest.approx(5.5 / 8)
    assert (beat_targets(LabelledWindow(leads, sets))[0] == BEAT_HIDDEN).all()


def test_windows_carry_the_beats_inside_them(cache: Path) -> None:
    data = Cache(cache)
    window = data.window(data.records[1], 1000, 500)
    assert window.beats is not None
    assert window.beats[:, 0].tolist() == [25, 125, 225, 325, 425]
    peaks = [int(at) - 10 + int(np.argmax(window.leads[1, int(at) - 10 : int(at) + 10])) for at in window.beats[:, 0]]
    np.testing.assert_allclose(peaks, window.beats[:, 0], atol=3)
    assert data.window(data.records[0], 0, 500).beats is None


def test_a_fraction_keeps_every_class_and_depends_on_the_seed() -> None:
    records = [Cached("cinc2017", str(n), "train", (1,), 3000, 0, 0, -1, -1, screen=0 if n < 97 else 1) for n in range(100)]
    part = fraction_of(records, 0.1, 0)
    assert len(part) == 11
    assert {record.screen for record in part} == {0, 1}
    assert part == fraction_of(records, 0.1, 0)
    assert part != fraction_of(records, 0.1, 1)


def test_a_mixture_of_leads_stays_between_them() -> None:
    leads = np.full((12, 100), np.nan, np.float32)
    leads[1], leads[6] = 1.0, -1.0
    for seed in range(20):
        mixed = _projected(leads, np.random.default_rng(seed))
        assert np.nanmax(np.abs(mixed)) <= 2**0.5 + 1e-5
        assert np.flatnonzero(np.isfinite(mixed).any(axis=1)).tolist() == [1, 6]


def test_more_leads_obey_einthoven() -> None:
    leads = np.full((12, 500), np.nan, np.float32)
    leads[1] = np.sin(np.arange(500) / 5)
    leads[6] = np.cos(np.arange(500) / 7)
    for seed in range(10):
        limb = _more_leads(leads, np.random.default_rng(seed))[:6]
        np.testing.assert_allclose(limb[2], limb[1] - limb[0], atol=0.06)
        np.testing.assert_allclose(limb[3] + limb[4] + limb[5], 0, atol=0.06)
    twelve = np.zeros((12, 500), np.float32)
    assert _more_leads(twelve, np.random.default_rng(0)) is twelve


@pytest.mark.parametrize("which", [0, 1, 2])
def test_swapped_electrodes_obey_einthoven_and_undo_themselves(which: int) -> None:
    rng = np.random.default_rng(which)
    ra, la, ll = rng.standard_normal((3, 50)).astype(np.float32)
    leads = np.zeros((12, 50), np.float32)

    def limb(ra: np.ndarray, la: np.ndarray, ll: np.ndarray) -> list[np.ndarray]:
        return [la - ra, ll - ra, ll - la, ra - (la + ll) / 2, la - (ra + ll) / 2, ll - (ra + la) / 2]

    leads[:6] = limb(ra, la, ll)
    exchanged = [(la, ra, ll), (ll, la, ra), (ra, ll, la)][which]
    np.testing.assert_allclose(swapped(leads, which)[:6], limb(*exchanged), atol=1e-5)
    np.testing.assert_array_equal(swapped(swapped(leads, which), which), leads)


def test_warping_moves_statements_and_beats_with_the_signal() -> None:
    leads = np.full((12, 1000), np.nan, np.float32)
    sets = np.full(1000, allow("SINUS"), np.uint8)
    leads[1] = 0.0
    leads[1, 500:] = 1.0
    sets[500:] = allow("VF")
    for seed in range(20):
        warped = _warped(LabelledWindow(leads, sets, np.array([[500, 0]], np.float32)), np.random.default_rng(seed))
        assert abs(int((warped.sets == allow("SINUS")).sum()) - int((warped.leads[1] < 0.5).sum())) <= 1
        assert (warped.sets[np.isnan(warped.leads[1])] == UNSTATED).all()
        assert warped.beats is not None
        edge = int(np.argmax(warped.leads[1] > 0.5))
        assert warped.beats[0, 0] == pytest.approx(edge, abs=1.5)


def test_augmentation_invents_no_lead_and_unstates_what_it_removes(cache: Path) -> None:
    data = Cache(cache)
    augment = Augment(data.noise)
    rng = np.random.default_rng(3)
    for _ in range(200):
        window = data.window(data.records[1], 0, 1000)
        before = window.leads.copy()
        changed = augment(window, rng)
        np.testing.assert_array_equal(window.leads, before)
        assert np.isfinite(changed.leads).any(axis=1).sum() in (1, 2, 6, 12)
        assert changed.leads.shape == (len(LEADS), 1000)
        nothing = ~np.isfinite(changed.leads).any(axis=0)
        assert (changed.sets[nothing] == UNSTATED).all()
        assert (beat_targets(changed)[0][: 1000 // 8][nothing.reshape(-1, 8).all(axis=1)] == BEAT_HIDDEN).all()


def test_without_recorded_noise_augmentation_goes_on(cache: Path) -> None:
    data = Cache(cache)
    augment = Augment(np.zeros((0, 0), np.float32))
    rng = np.random.default_rng(0)
    assert all(np.isfinite(augment(data.window(data.records[1], 0, 1000), rng).leads).any() for _ in range(50))


def test_a_cut_beyond_the_record_is_missing_and_unstated(cache: Path) -> None:
    data = Cache(cache)
    leads, sets = data.cut(data.records[0], 2500, 1000)
    assert np.isnan(leads[:, 500:]).all()
    assert (sets[500:] == UNSTATED).all()
    assert np.isfinite(leads[[1, 6], :500]).all()
