"""Fitting the beat classifier: counting as EC57 does, and what a fit may and may not learn."""

from __future__ import annotations

import numpy as np
import pytest

from ecgnat_stream.beats.gallery import FEATURES
from ecgnat_stream.signal import FS
from train.data.labels import allow
from train.data.records import Record
from train.signal.beat_classes import FALSE, SIGNS, Beats, collect, fit, measure, score, variants

N, S, V, F, Q = range(5)


def beats(label: np.ndarray, features: np.ndarray, name: str = "1", missed: tuple[int, ...] = ()) -> Beats:
    at = 400.0 + np.arange(len(label))
    return Beats(name, 1.0, at, features, label, np.full(len(missed), 500.0), np.array(missed, np.int64))


def sample(count: int, seed: int, lies: bool = False) -> Beats:
    """Return beats of which V are wide; with ``lies``, they are late as well, which speaks for nothing."""
    rng = np.random.default_rng(seed)
    label = rng.choice([N, S, V], count, p=[0.7, 0.1, 0.2])
    features = rng.normal(size=(count, len(FEATURES)))
    features[:, FEATURES.index("irregular")] = 1.0  # so that being on time requires nothing more
    features[:, FEATURES.index("width")] += 3.0 * (label == V)
    features[:, FEATURES.index("rr_median")] -= 3.0 * (label == S)
    if lies:
        features[:, FEATURES.index("rr_before")] += 3.0 * (label == V)
    return beats(label, features, str(seed))


def record(length_s: float = 30.0, fs: float = 250.0, annotated: bool = True) -> Record:
    t = np.arange(int(length_s * fs)) / fs
    marks = np.arange(1.0, length_s - 1.0, 0.8)
    wave = sum(np.clip(1 - np.abs(t - at) / 0.04, 0, 1) for at in marks)
    samples = np.full((12, len(t)), np.nan, np.float32)
    samples[1], samples[6] = wave, -0.5 * wave
    at = np.round(marks * fs).astype(np.int64) if annotated else None
    classes = np.zeros(len(marks), np.uint8) if annotated else None
    rhythm = np.full(len(t), allow("SINUS"), np.uint8)
    return Record("mitdb", "x", "train", fs, samples, rhythm, beats=at, beat_class=classes)


def test_scores_count_as_ec57() -> None:
    width = FEATURES.index("width")
    label = np.array([V, V, N, F, Q, FALSE, S, N])
    features = np.zeros((8, len(FEATURES)))
    features[[0, 2, 3, 4, 5], width] = 10.0
    weights = fit([sample(2000, 1)])
    centred = features + np.array(weights.centre)
    features = np.where(features == 0.0, centred, features)
    v, _ = score(beats(label, features, missed=(V, N)), weights)
    assert (v.hits, v.missed, v.false) == (1, 2, 2)
    assert "Se 0.3333, +P 0.3333" in str(v)
    v, _ = score(beats(label, features), weights, since_s=404.0)
    assert (v.hits, v.missed, v.false) == (0, 0, 1)


def test_a_beat_without_features_is_missed() -> None:
    features = np.full((3, len(FEATURES)), np.nan)
    v, s = score(beats(np.array([V, S, N]), features), fit([sample(2000, 1)]))
    assert (v.hits, v.missed, v.false, s.missed) == (0, 1, 0, 1)


def test_a_fit_finds_what_tells_the_classes_apart() -> None:
    v, s = score(sample(1000, 2), fit([sample(3000, 1)]))
    assert v.hits > 0.85 * (v.hits + v.missed)
    assert s.hits > 0.7 * (s.hits + s.missed)


def test_no_weight_has_a_sign_against_physiology() -> None:
    weights = fit([sample(3000, 1, lies=True)])
    for name, weight in zip(FEATURES, weights.ventricular.weights, strict=True):
        assert weight * SIGNS.get(name, 0) >= 0 or name not in SIGNS, name
    assert weights.ventricular.weights[FEATURES.index("rr_before")] == 0.0
    assert weights.ventricular.weights[FEATURES.index("width")] > 0.3
    assert set(SIGNS) < set(FEATURES)
    assert {name for name, weight in zip(FEATURES, weights.broad.weights, strict=True) if weight} <= {
        "own_spread", "own_width", "own_slope", "own_area", "own_late",
    }  # fmt: skip


def test_one_record_with_many_beats_does_not_rule() -> None:
    other = sample(20000, 3)
    other.features[:, FEATURES.index("width")] *= -1.0
    mixed = fit([sample(1000, seed) for seed in range(10, 18)] + [other])
    assert mixed.ventricular.weights[FEATURES.index("width")] > 0.1


def test_a_fit_is_reproducible() -> None:
    assert fit([sample(500, 1), sample(500, 2)]) == fit([sample(500, 1), sample(500, 2)])


def test_copies_are_the_leads_alone_and_one_with_noise() -> None:
    noise = [np.random.default_rng(1).normal(size=20000).astype(np.float32)]
    whole = record()
    copies = list(variants(whole, noise, np.random.default_rng(2)))
    assert [weight for weight, _ in copies] == [1.0, 0.5, 0.5, 0.5]
    there = [np.flatnonzero(~np.isnan(samples).all(axis=1)).tolist() for _, samples in copies]
    assert there == [[1, 6], [1], [6], [1, 6]]
    assert np.nanmax(np.abs(copies[3][1] - whole.samples)) > 0.01
    assert len(list(variants(whole, (), np.random.default_rng(2)))) == 3


def test_beats_are_collected_from_a_stream() -> None:
    whole = record()
    part, *_ = collect([whole], (), np.random.default_rng(1))
    assert whole.beats is not None
    assert len(part.at_s) > 30
    assert (part.label == N).all()
    assert len(part.missed) <= 3
    usable = ~np.isnan(part.features).any(axis=1)
    assert usable[6:].all()
    ((at_s, features, labels),) = measure(whole.samples[None], whole.fs)
    np.testing.assert_array_equal(at_s, part.at_s)
    np.testing.assert_array_equal(features, part.features)
    assert set(labels[:5]) == {"Q"}
    assert at_s.max() < whole.samples.shape[1] / whole.fs < at_s.max() + 3 + 1 / FS


def test_a_record_without_beat_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no beat marks"):
        list(collect([record(annotated=False)], (), np.random.default_rng(1)))
