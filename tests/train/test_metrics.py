"""Figures against scikit-learn, and beats whose decoding is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from ecgnat_stream.codes import BEATS
from ecgnat_stream.score.figures import ratio
from train.data.labels import UNSTATED, allow, forbid
from train.judge.metrics import (
    auroc,
    average_precision,
    best_thresholds,
    by_unit,
    calibration_gaps,
    decode_beats,
    difference,
    ece,
    f1,
    far_apart,
    interval,
    macro,
    shockable_windows,
)


@pytest.fixture
def scored() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    rng = np.random.default_rng(1)
    stated = (rng.random(300) < 0.3).astype(np.int64)
    return stated, (rng.random(300) * 0.6 + 0.3 * stated).round(2)  # rounded: ties


def test_areas_agree_with_scikit_learn_in_every_resample(scored: tuple[NDArray[np.int64], NDArray[np.float64]]) -> None:
    stated, said = scored
    weights = np.random.default_rng(2).integers(0, 3, (5, 300)).astype(float)
    for statistic, reference in ((auroc, roc_auc_score), (average_precision, average_precision_score)):
        wanted = [reference(stated, said, sample_weight=row) for row in weights]
        np.testing.assert_allclose(statistic(stated, said)(weights), wanted, atol=1e-12)


def test_areas_of_one_class_alone_are_undefined() -> None:
    assert interval(auroc([1, 1, 1], [0.1, 0.2, 0.3]), 3) is None
    assert interval(average_precision([0, 0], [0.1, 0.2]), 2) is None
    assert interval(macro([]), 3) is None
    assert interval(ratio([], []), 0) is None


def test_f1_agrees_with_scikit_learn(scored: tuple[NDArray[np.int64], NDArray[np.float64]]) -> None:
    stated, said = scored[0] == 1, scored[1] > 0.5
    found = interval(f1(stated & said, said, stated), 300)
    assert found is not None
    assert found[0] == pytest.approx(f1_score(stated, said), abs=1e-4)
    assert found[1] < found[0] < found[2]


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        found = interval(ratio(rng.random(80) < 0.6, np.ones(80)), 80)
        assert found is not None
        covered += found[1] <= 0.6 <= found[2]
    assert 0.89 <= covered / 200 <= 0.99


def test_differences_are_paired() -> None:
    share = ratio(np.arange(20) % 3 == 0, np.ones(20))
    assert interval(difference(share, share), 20) == [0, 0, 0]


def test_rows_are_resampled_with_their_unit() -> None:
    unit = np.array([0, 0, 1])
    statistic = by_unit(ratio([1, 1, 0], [1, 1, 1]), unit)
    np.testing.assert_allclose(statistic(np.array([[1.0, 1.0], [0.0, 2.0], [2.0, 0.0]])), [2 / 3, 0, 1])


def test_macro_leaves_out_what_is_undefined() -> None:
    assert macro([ratio([1], [2]), ratio([0], [0])])(np.ones((1, 1))).tolist() == [0.5]


def test_calibration_error() -> None:
    rng = np.random.default_rng(4)
    confidence = rng.random(20_000)
    honest = calibration_gaps(confidence, rng.random(20_000) < confidence).sum(axis=0, keepdims=True)
    assert ece(honest, [20_000])(np.ones((1, 1)))[0] < 0.02
    boasting = calibration_gaps(np.full(10, 0.9), np.arange(10) < 6)
    assert ece(boasting, np.ones(10))(np.ones((1, 10)))[0] == pytest.approx(0.3)
    assert calibration_gaps([1.0], [1.0]).shape == (1, 15)


@pytest.mark.parametrize("shift", [0, -4, -12, -30])
def test_best_thresholds_of_rare_classes_are_not_zero(shift: float) -> None:
    stated = np.arange(200) % 10 == 0
    logits = shift + 3.0 * stated + np.random.default_rng(0).normal(size=200)
    said = 1 / (1 + np.exp(-logits))
    (at,) = best_thresholds(stated[:, None], said[:, None])
    assert 0 < at <= said[said >= at].min() < at * 1.001
    assert 15 <= (said >= at).sum() <= 25


def test_best_thresholds_maximise_f1(scored: tuple[NDArray[np.int64], NDArray[np.float64]]) -> None:
    stated, said = scored
    chosen, lonely = best_thresholds(np.stack([stated, np.zeros(300)], axis=1), np.stack([said, said], axis=1))
    tried = [f1_score(stated, said >= at) for at in np.unique(said)]
    assert f1_score(stated, said >= chosen) == pytest.approx(max(tried))
    assert lonely == 0.5


def beats(*marks: tuple[int, float, float, str]) -> NDArray[np.float32]:
    out = np.zeros((125, 2 + len(BEATS)), np.float32)
    for token, probability, place, name in marks:
        out[token, :2] = probability, place
        out[token, 2 + BEATS.index(name)] = 1
    return out


def test_decoding_places_beats_in_their_token() -> None:
    marks = beats((0, 0.9, 0.5, "N"), (50, 0.6, 0.0, "V"), (124, 0.8, 0.75, "S"), (80, 0.4, 0.5, "N"))
    positions, classes, probabilities = decode_beats(marks)
    np.testing.assert_allclose(positions, [4, 400, 998])
    assert [BEATS[c] for c in classes] == ["N", "V", "S"]
    np.testing.assert_allclose(probabilities, [0.9, 0.6, 0.8], atol=1e-6)
    assert len(decode_beats(marks, 0.3)[0]) == 4


def test_decoding_keeps_the_surer_of_two_within_200_ms() -> None:
    positions, classes, _ = decode_beats(beats((10, 0.7, 0.9, "V"), (12, 0.9, 0.1, "N"), (15, 0.8, 0.0, "N")))
    np.testing.assert_allclose(positions, [96.8, 120])
    assert classes.tolist() == [0, 0]
    assert len(decode_beats(beats())[0]) == 0


def test_far_apart_lets_a_beat_stay_whose_neighbour_goes() -> None:
    assert far_apart(np.array([0.0, 15.0, 30.0]), np.array([0.6, 0.7, 0.8])).tolist() == [0, 2]
    assert far_apart(np.array([30.0, 0.0]), np.array([0.6, 0.7])).tolist() == [1, 0]
    assert far_apart(np.zeros(0), np.zeros(0)).tolist() == []


def test_shockable_windows() -> None:
    vf, sinus, beating = allow("VF"), allow("SINUS"), forbid("VF")
    truth = np.repeat([vf, sinus, vf, sinus, UNSTATED, UNSTATED, vf, UNSTATED, beating, beating, sinus, UNSTATED], 50)
    probability = np.repeat([0.9, 0.1, 1, 1, 0, 0, 0.5, 0.5, 0.2, 0.4, 0, 0], 50)
    stated, said = shockable_windows(truth.astype(np.uint8), probability, 100)
    assert stated.tolist() == [True, True, True, False]
    np.testing.assert_allclose(said, [0.5, 1.0, 0.5, 0.3])
