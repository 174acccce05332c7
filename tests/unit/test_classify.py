"""The beat classifier on simulated signals: what is V, what stays N, and that beds do not touch each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgnat_stream.beats import BeatClassifier, BeatFrame, QrsDetector
from ecgnat_stream.beats.classify import LIMIT, log_odds, read_weights
from ecgnat_stream.beats.gallery import FEATURES
from ecgnat_stream.signal import FRAME, FS, LEADS

NARROW, WIDE = 0.04, 0.09
"""Half widths of complexes in s."""


class Shape(NamedTuple):
    """A triangle with a T wave behind and a P wave before it."""

    half_s: float = NARROW
    size: float = 1.0
    t_wave: float = 0.2
    p_wave: float = 0.1


NORMAL = Shape()
PVC = Shape(WIDE, -1.5, -0.25, 0.0)
BLOCK = Shape(0.075, 1.2, -0.2)


def ecg(beats: list[tuple[float, Shape]], length_s: float, noise_mv: float = 0.01, seed: int = 3) -> np.ndarray:
    t = np.arange(int(length_s * FS)) / FS
    y = noise_mv * np.random.default_rng(seed).normal(size=len(t))
    for at, shape in beats:
        y += shape.size * np.clip(1 - np.abs(t - at) / shape.half_s, 0, 1)
        y += shape.t_wave * np.exp(-0.5 * ((t - at - 0.28) / 0.05) ** 2)
        y += shape.p_wave * np.exp(-0.5 * ((t - at + 0.16) / 0.02) ** 2)
    return y


def with_pvcs(
    every: int, count: int = 60, usual: Shape = NORMAL, odd: Shape = PVC, rr_s: float = 0.8
) -> list[tuple[float, Shape]]:
    """Return a regular rhythm in which every so many-th beat comes 0.3 s early."""
    return [
        (1.0 + k * rr_s - (0.3 if k % every == every - 1 else 0.0), odd if k % every == every - 1 else usual)
        for k in range(count)
    ]


def classify(leads: dict[str, np.ndarray], classifier: BeatClassifier | None = None, row: int = 0, paced_s: float | None = None):
    """Return time, label and probability of V of each beat."""
    classifier = classifier or BeatClassifier(row + 1)
    detector, at, label, probability = QrsDetector(row + 1), [], [], []
    rows = np.array([row])
    for k in range(len(next(iter(leads.values()))) // FRAME):
        y = np.full((1, 12, FRAME), np.nan, np.float32)
        for lead, wave in leads.items():
            y[0, LEADS.index(lead)] = wave[k * FRAME : (k + 1) * FRAME]
        sqi = (~np.isnan(y).all(axis=2)).astype(np.float32)
        beats = detector.process(rows, np.array([k]), y, sqi)
        paced = None if paced_s is None else beats.at / FS > paced_s
        label += classifier.process(rows, np.array([k]), y, sqi, beats, paced).tolist()
        probability += classifier.ventricular.tolist()
        at += (beats.at / FS).tolist()
    return np.array(at), np.array(label), np.array(probability)


def said(at: np.ndarray, label: np.ndarray, truth: list[tuple[float, Shape]], of: Shape, since_s: float = 6.0) -> list[str]:
    """Return the labels of the beats of one shape."""
    found = []
    for time, shape in truth:
        near = np.abs(at - time) < 0.15
        if shape is of and time > since_s and near.any():
            found.append(str(label[near][0]))
    return found


@pytest.mark.parametrize("every", [2, 3, 4, 9])
@pytest.mark.parametrize("lead", ["II", "V1", "aVL"])
def test_early_wide_beats_are_ventricular(every: int, lead: str) -> None:
    truth = with_pvcs(every)
    at, label, _ = classify({lead: ecg(truth, 50)})
    assert set(said(at, label, truth, PVC)) == {"V"}
    assert set(said(at, label, truth, NORMAL)) <= {"N"}


def test_a_run_after_sinus_rhythm_is_ventricular_from_its_first_beat() -> None:
    truth = [(1.0 + 0.8 * k, NORMAL) for k in range(25)] + [(20.75 + 0.4 * k, PVC) for k in range(30)]
    at, label, probability = classify({"II": ecg(truth, 34)})
    assert set(said(at, label, truth, PVC)) == {"V"}
    assert probability[label == "V"].min() > 0.5


@pytest.mark.parametrize("rr_s", [0.3, 0.4])
def test_a_broad_tachycardia_is_ventricular_even_if_the_bed_was_connected_in_it(rr_s: float) -> None:
    truth = [(1.0 + rr_s * k, PVC) for k in range(60)] + [(2.0 + 60 * rr_s + 0.8 * k, NORMAL) for k in range(40)]
    at, label, _ = classify({"II": ecg(truth, 60 * rr_s + 36)})
    assert set(said(at, label, truth, PVC)) == {"V"}
    assert set(said(at, label, truth, NORMAL, since_s=60 * rr_s + 12)) == {"N"}


@pytest.mark.parametrize("rr_s", [0.55, 0.8, 1.1])
def test_bundle_branch_block_in_sinus_rhythm_is_normal(rr_s: float) -> None:
    truth = [(1.0 + rr_s * k, BLOCK) for k in range(int(48 / rr_s))]
    at, label, _ = classify({"II": ecg(truth, 50), "V1": -ecg(truth, 50, seed=4)})
    assert set(said(at, label, truth, BLOCK)) == {"N"}


@pytest.mark.parametrize("odd", [Shape(0.09, 1.3, -0.25), Shape(0.07, -1.0, 0.2)])
@pytest.mark.parametrize("blocked", [lambda k: k // 12 % 2 == 1, lambda k: k > 30])
def test_broad_beats_on_time_are_normal_and_the_same_early_are_ventricular(odd: Shape, blocked: Callable[[int], bool]) -> None:
    truth = [(1.0 + 0.8 * k, odd if blocked(k) else NORMAL) for k in range(60)]
    at, label, _ = classify({"II": ecg(truth, 50)})
    on_time = said(at, label, truth, odd)
    assert on_time.count("N") >= 0.9 * len(on_time)
    truth = with_pvcs(5, odd=odd)
    at, label, _ = classify({"II": ecg(truth, 50)})
    assert set(said(at, label, truth, odd)) == {"V"}


def test_being_on_time_speaks_against_v_in_a_regular_rhythm_only() -> None:
    weights = read_weights()
    features = np.tile(np.array(weights.centre), (4, 1))
    for name, value in {"on_time": 1.0, "own_on_time": 1.0, "irregular": 0.02, "median_rr": -0.2}.items():
        features[:, FEATURES.index(name)] = value
    features[1, FEATURES.index("irregular")] = 0.3
    features[2, FEATURES.index("median_rr")] = np.log(0.4)
    features[3, FEATURES.index("own_on_time")] = 0.3
    z = np.clip((features - np.array(weights.centre)) / np.array(weights.scale), -LIMIT, LIMIT)
    plain = z @ np.array(weights.ventricular.weights) + weights.ventricular.offset
    v, _ = log_odds(features, weights)
    assert v[0] < plain[0] - 1.0
    assert (v[1:] > plain[1:] - 1e-9).all()


def test_the_irregular_beats_of_atrial_fibrillation_are_not_ventricular() -> None:
    rng = np.random.default_rng(5)
    truth = [(float(time), NORMAL._replace(p_wave=0.0)) for time in 1.0 + np.cumsum(rng.uniform(0.4, 1.0, 100))]
    at, label, _ = classify({"II": ecg(truth, 70)})
    late = label[at > 6.0]
    assert (late == "V").sum() == 0
    assert (late == "N").mean() > 0.7


def test_an_early_narrow_beat_is_supraventricular_not_ventricular() -> None:
    truth = with_pvcs(8, odd=Shape(p_wave=0.0))
    at, label, _ = classify({"II": ecg(truth, 50)})
    early = said(at, label, truth, truth[7][1])
    assert "V" not in early
    assert set(early) == {"S"}


def test_the_first_beats_are_unknown() -> None:
    truth = [(1.0 + 0.8 * k, NORMAL) for k in range(12)]
    _, label, probability = classify({"II": ecg(truth, 12)})
    assert label[:5].tolist() == ["Q"] * 5
    assert "Q" not in label[5:].tolist()
    np.testing.assert_array_equal(np.isnan(probability), label == "Q")


def test_paced_beats_are_q() -> None:
    _, label, probability = classify({"II": ecg(with_pvcs(5), 50)}, paced_s=20.0)
    assert set(label[-20:]) == {"Q"}
    assert np.isnan(probability[-20:]).all()


@settings(max_examples=8, deadline=None)
@given(gain=st.floats(0.4, 4.0), turned=st.booleans())
def test_amplitude_and_polarity_do_not_matter(gain: float, turned: bool) -> None:
    truth = with_pvcs(4, count=30)
    wave = ecg(truth, 26, noise_mv=0.003)
    at, label, _ = classify({"II": wave * (-gain if turned else gain)})
    assert set(said(at, label, truth, PVC)) == {"V"}
    assert set(said(at, label, truth, NORMAL)) <= {"N"}


def test_a_lead_that_comes_and_goes_does_not_matter() -> None:
    truth = with_pvcs(4)
    first, second = ecg(truth, 50), -0.7 * ecg(truth, 50, seed=7)
    first[20 * FS : 30 * FS] = np.nan
    second[: 10 * FS] = np.nan
    at, label, _ = classify({"II": first, "V1": second})
    assert set(said(at, label, truth, PVC)) == {"V"}
    assert set(said(at, label, truth, NORMAL)) <= {"N"}


def run_together(waves: list[np.ndarray]) -> list[list[tuple[float, str, float]]]:
    """Classify one record per row, all rows in each call."""
    rows = len(waves)
    detector, classifier = QrsDetector(rows), BeatClassifier(rows)
    found: list[list[tuple[float, str, float]]] = [[] for _ in waves]
    for k in range(len(waves[0]) // FRAME):
        y = np.full((rows, 12, FRAME), np.nan, np.float32)
        y[:, 1] = [wave[k * FRAME : (k + 1) * FRAME] for wave in waves]
        sqi = (~np.isnan(y).all(axis=2)).astype(np.float32)
        args = np.arange(rows), np.full(rows, k), y, sqi
        beats = detector.process(*args)
        labels = classifier.process(*args, beats)
        for row, at, label, probability in zip(beats.row, beats.at, labels, classifier.ventricular, strict=True):
            found[row].append((float(at), str(label), float(probability)))
    return found


def test_a_bed_depends_on_no_other_bitwise() -> None:
    waves = [ecg(with_pvcs(every, 24, rr_s=0.8 - 0.05 * every), 18, 0.03, seed=every) for every in (2, 3, 4, 5, 6)]
    together = run_together(waves)
    for wave, expected in zip(waves, together, strict=True):
        alone = run_together([wave])[0]
        np.testing.assert_array_equal([a[:2] for a in alone], [e[:2] for e in expected])
        np.testing.assert_array_equal([a[2] for a in alone], [e[2] for e in expected])


def test_reset_forgets() -> None:
    classifier = BeatClassifier(2)
    wave = ecg(with_pvcs(4, 24), 18)
    other = {"II": ecg(with_pvcs(3, 24, usual=BLOCK), 18)}
    first = classify({"II": wave}, classifier, row=1)
    classify(other, classifier, row=1)
    classifier.reset(np.array([1]))
    for before, after in zip(first, classify({"II": wave}, classifier, row=1), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_beat_without_signal_is_unknown() -> None:
    classifier, one = BeatClassifier(1), np.array([0])
    y = np.full((1, 12, FRAME), np.nan, np.float32)
    beats = BeatFrame(one, np.array([20.0]), one, np.ones(1, np.float32), np.array([np.nan]))
    assert classifier.process(one, one, y, np.zeros((1, 12), np.float32), beats).tolist() == ["Q"]
    assert np.isnan(classifier.features).all()


def test_no_beats_give_no_labels() -> None:
    classifier, one = BeatClassifier(1), np.array([0])
    none = BeatFrame(one[:0], np.zeros(0), one[:0], np.zeros(0, np.float32), np.zeros(0))
    labels = classifier.process(one, one, np.zeros((1, 12, FRAME), np.float32), np.ones((1, 12), np.float32), none)
    assert len(labels) == len(classifier.ventricular) == 0


def test_log_odds_are_limited_and_row_by_row() -> None:
    weights = read_weights()
    features = np.random.default_rng(1).normal(size=(50, len(FEATURES))) * 5
    together = np.stack(log_odds(features, weights))
    alone = np.concatenate([np.stack(log_odds(features[i : i + 1], weights)) for i in range(50)], axis=1)
    np.testing.assert_array_equal(together, alone)
    reach = LIMIT * np.abs(weights.ventricular.weights).sum() + abs(weights.ventricular.offset)
    assert np.abs(np.stack(log_odds(features * 1e6, weights))[0]).max() <= reach


def test_weights_for_other_features_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecgnat_stream.beats.classify.FEATURES", ("width",))
    read_weights.cache_clear()
    with pytest.raises(ValueError, match="fit it again"):
        read_weights()
    read_weights.cache_clear()


def test_the_shipped_weights_are_complete() -> None:
    weights = read_weights()
    for by in (weights.ventricular, weights.supraventricular, weights.broad):
        assert len(by.weights) == len(FEATURES)
    assert min(weights.scale) > 0
    assert msgspec.json.decode(msgspec.json.encode(weights), type=type(weights)) == weights
