"""The figures, on decisions whose figures are known."""

from __future__ import annotations

import numpy as np
import pytest

from ecgnat_stream.codes import RHYTHMS
from train.data.labels import UNSTATED, allow, forbid
from train.judge.score import CELL_S, cell_sets, episodes, found, score_record, summarise

SINUS, VT, VF = (RHYTHMS.index(name) for name in ("SINUS", "VT", "VF"))


def spread(*parts: tuple[int, float]) -> np.ndarray:
    return np.concatenate([np.full(round(seconds / CELL_S), value) for value, seconds in parts])


def test_episodes_are_half_open_runs() -> None:
    assert episodes(np.array([True, True, False, True])) == [(0, 2), (3, 4)]
    assert episodes(np.zeros(3, bool)) == []


def test_durations() -> None:
    truth = spread((allow("SINUS"), 60), (allow("VF"), 20), (UNSTATED, 20)).astype(np.uint8)
    decision = spread((SINUS, 55), (VF, 20), (SINUS, 25))
    figures = summarise([score_record(truth, decision)])
    assert figures["classes"]["VF"]["sensitivity"][0] == pytest.approx(15 / 20)
    assert figures["classes"]["VF"]["ppv"][0] == pytest.approx(15 / 20)
    assert figures["classes"]["SINUS"]["sensitivity"][0] == pytest.approx(55 / 60, abs=1e-3)
    assert figures["classes"]["SINUS"]["ppv"][0] == pytest.approx(55 / 60, abs=1e-3)
    counts = {key: figures["vf_episodes"][key] for key in ("number", "found_as_vf", "found_as_vf_or_vt", "false")}
    assert counts == {"number": 1, "found_as_vf": 1, "found_as_vf_or_vt": 1, "false": 0}
    assert figures["vf_episodes"]["false_per_hour"][0] == 0


def test_confusion_counts_seconds_where_one_class_is_stated() -> None:
    truth = spread((allow("SINUS"), 8), (allow("VF"), 20), (forbid("VT"), 30)).astype(np.uint8)
    table = summarise([score_record(truth, spread((VT, 8), (VF, 16), (SINUS, 34)))])["confusion"]
    matrix = np.array(table["confusion"])
    assert matrix.sum() == 28
    assert (matrix[SINUS, VT], matrix[VF, VF], matrix[VF, SINUS]) == (8, 16, 4)


def test_cells_join_what_their_samples_allow() -> None:
    sets = np.array([1, 1, 1, 1, 1, 1, 2, 2, 2, 2], np.uint8)
    assert cell_sets(sets).tolist() == [1, 3]


def test_a_class_that_truth_rules_out_counts_against_it() -> None:
    truth = spread((forbid("VF"), 30)).astype(np.uint8)
    figures = summarise([score_record(truth, spread((VF, 10), (SINUS, 20)))])
    assert figures["classes"]["VF"]["ppv"][0] == 0
    assert figures["classes"]["VF"]["sensitivity"] is None
    assert "SINUS" not in figures["classes"]
    assert figures["vf_episodes"]["false"] == 1


def test_an_episode_needs_two_seconds_in_one_run() -> None:
    said = np.zeros(250, bool)
    said[:40] = said[60:100] = True
    assert not found(said, (0, 250))
    said[40:60] = True
    assert found(said, (0, 250))


def test_the_interval_holds_the_value() -> None:
    rng = np.random.default_rng(0)
    truth = spread((allow("VF"), 40)).astype(np.uint8)
    scored = [score_record(truth, np.where(rng.random(len(truth)) < rate, VF, VT)) for rate in (0.5, 0.7, 0.9)]
    value, low, high = summarise(scored)["classes"]["VF"]["sensitivity"]
    assert low < value < high
