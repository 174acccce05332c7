"""Beats, episodes, alarms and Challenge verdicts compared, against counts that were made by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wfdb.processing import compare_annotations

from ecgnat_stream.codes import BEATS
from ecgnat_stream.score.alarms import false_s, found_episodes, verdict
from ecgnat_stream.score.challenge import confirmed, score, summarise
from ecgnat_stream.score.compare import Counts, beat_table, counts, episode_counts, match_beats, pair_beats
from ecgnat_stream.score.figures import average, f1, gross, quantiles
from ecgnat_stream.score.spans import gaps, merge, overlaps, shared_s
from ecgnat_stream.score.truth import Challenge, Episode, Truth
from ecgnat_stream.spans import AlarmSpan

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def pairs(truth: list[tuple[float, str]], found: list[tuple[float, str]], **options: Any) -> list[tuple[str, str]]:
    a, b = np.array([at for at, _ in truth]), np.array([at for at, _ in found])
    return [(p.truth, p.found) for p in pair_beats(a, [c for _, c in truth], b, [c for _, c in found], **options)]


def test_beats_match_within_150_ms_each_once_with_the_nearest() -> None:
    assert pairs([(1.0, "N")], [(1.15, "N")]) == [("N", "N")]
    assert pairs([(1.0, "N")], [(1.16, "N")]) == [("N", "O"), ("O", "N")]
    assert pairs([(1.0, "N")], [(0.9, "V"), (1.01, "N")]) == [("O", "V"), ("N", "N")]
    assert pairs([(1.0, "N"), (1.14, "V")], [(1.13, "V")]) == [("N", "O"), ("V", "V")]


def test_learning_and_fibrillation_are_left_out() -> None:
    truth, found = [(1.0, "N"), (5.0, "N"), (9.0, "N")], [(1.0, "N"), (6.0, "V"), (9.0, "V")]
    assert pairs(truth, found, from_s=4.0) == [("N", "O"), ("O", "V"), ("N", "V")]
    assert pairs(truth, found, without=[(4.0, 7.0)]) == [("N", "N"), ("N", "V")]


def test_a_fusion_beat_called_ventricular_is_no_false_ventricular_beat() -> None:
    said = [
        ("V", "V"),
        ("V", "N"),
        ("V", None),
        ("F", "V"),
        ("Q", "V"),
        ("N", "V"),
        ("S", "V"),
        (None, "V"),
        ("S", "S"),
        ("Q", "S"),
    ]
    truth = [(float(i), c) for i, (c, _) in enumerate(said) if c]
    found = [(float(i), c) for i, (_, c) in enumerate(said) if c]
    a, b = np.array([at for at, _ in truth]), np.array([at for at, _ in found])
    table = beat_table(pair_beats(a, [c for _, c in truth], b, [c for _, c in found]))
    assert counts(table, "V") == Counts(1, 2, 3)
    assert counts(table, "S") == Counts(1, 1, 0)
    assert counts(table, "QRS") == Counts(8, 1, 1)


beats = st.lists(st.integers(0, 4000), unique=True, min_size=1, max_size=40).map(
    lambda places: np.array(sorted(places)) * 60 + 60
)


@given(beats, beats, st.sampled_from(BEATS))
def test_the_count_is_that_of_wfdb_for_beats_that_lie_apart(truth: Any, found: Any, label: str) -> None:
    rng = np.random.default_rng(len(truth))
    found = found + rng.integers(-20, 21, len(found))
    paired = pair_beats(truth / 360, [label] * len(truth), found / 360, [label] * len(found))
    one = compare_annotations(truth, found, 29)
    near = [p for p in paired if p.truth_s is not None and p.found_s is not None]
    if all(abs(p.truth_s - p.found_s) * 360 < 29 for p in near if p.truth_s is not None and p.found_s is not None):
        assert counts(beat_table(paired), "QRS") == Counts(one.tp, one.fn, one.fp)


def test_a_detection_matches_the_nearest_beat_within_150_ms() -> None:
    truth, nothing = np.array([1.0, 2.0, 3.0, 4.0]), np.zeros(0)
    first, second = match_beats(truth, np.array([0.9, 1.02, 2.14, 3.2, 4.1]))
    assert (first.tolist(), second.tolist()) == ([0, 1, 3], [1, 2, 4])
    assert [len(side) for side in (*match_beats(truth, nothing), *match_beats(nothing, truth))] == [0, 0, 0, 0]
    first, second = match_beats(np.array([100.0, 200.0]), np.array([110.0, 112.0, 216.0]), tolerance=15.0)
    assert (first.tolist(), second.tolist()) == ([0], [0])


@given(beats, beats)
def test_what_matches_is_within_reach_in_order_and_in_one_pair(truth: Any, found: Any) -> None:
    first, second = match_beats(truth, found, 100.0)
    assert (np.abs(truth[first] - found[second]) <= 100.0).all()
    assert (np.diff(first) > 0).all()
    assert (np.diff(second) > 0).all()


def test_every_beat_is_in_one_pair() -> None:
    rng = np.random.default_rng(1)
    truth, found = np.sort(rng.uniform(0, 100, 300)), np.sort(rng.uniform(0, 100, 280))
    paired = pair_beats(truth, ["N"] * 300, found, ["N"] * 280)
    assert sorted(p.truth_s for p in paired if p.truth_s is not None) == truth.tolist()
    assert sorted(p.found_s for p in paired if p.found_s is not None) == found.tolist()


def test_episodes_are_found_when_they_share_time_and_durations_are_those_in_common() -> None:
    found = episode_counts([(0, 10), (20, 30), (40, 50)], [(5, 25), (60, 70)], from_s=2)
    assert found == {
        "stated": 3, "stated_found": 2, "said": 2, "said_true": 1, "stated_s": 28, "said_s": 30, "shared_s": 10
    }  # fmt: skip


def test_spans_join_overlap_and_share() -> None:
    assert merge([(5, 6), (0, 2), (2, 3), (2.5, 4)]) == [(0, 4), (5, 6)]
    assert overlaps((0, 1), [(1.5, 2)], 0.6)
    assert not overlaps((0, 1), [(1, 2)])
    assert shared_s([(0, 10)], [(2, 3), (9, 12)]) == 2
    assert gaps(np.array([0.0, 1.0, 6.0]), 4.0) == [(1.0, 6.0)]


def truth(**episodes: list[Episode]) -> Truth:
    named = {name.replace("_", "-"): found for name, found in episodes.items()}
    stated = frozenset({"asystole", "ventricular-tachycardia", "ventricular-fibrillation"})
    return Truth("db", "a", "", Path("a"), 100.0, 1000.0, 0.0, episodes=named, stated=stated)


def span(condition: str, start_s: float, stop_s: float) -> AlarmSpan:
    return AlarmSpan(condition, start_s, stop_s, "high", "physiological")


def test_an_alarm_is_false_far_from_what_it_says_and_for_so_long() -> None:
    stated = truth(ventricular_fibrillation=[Episode(100, 120, True)], ventricular_tachycardia=[Episode(300, 310, True)])
    assert verdict(stated, span("ventricular-fibrillation", 129, 140)) == "true"
    assert verdict(stated, span("ventricular-fibrillation", 131, 140)) == "false"
    assert verdict(stated, span("asystole", 105, 140)) == "true"
    assert verdict(stated, span("ventricular-fibrillation", 302, 312)) == "other"
    assert verdict(stated, span("extreme-tachycardia", 500, 510)) == "unjudged"
    assert verdict(stated, span("leads-off", 500, 510)._replace(kind="technical")) == "technical"
    assert false_s(stated, span("ventricular-fibrillation", 80, 150)) == 30
    assert false_s(stated, span("extreme-tachycardia", 500, 510)) == 0


def test_the_time_to_alarm_counts_from_the_onset_and_a_covering_alarm_will_do() -> None:
    stated = truth(ventricular_tachycardia=[Episode(100, 120, True), Episode(200, 203, True), Episode(300, 330, True)])
    alarms = [span("ventricular-fibrillation", 104, 130), span("ventricular-tachycardia", 209, 215), span("asystole", 290, 400)]
    rows = found_episodes(stated, alarms)
    assert [row.alarm_after_s for row in rows] == [4, 9, None]
    assert [row.any_high_after_s for row in rows] == [4, 9, 0]


@pytest.mark.parametrize(
    ("name", "condition", "start_s", "stop_s", "expected"),
    [
        ("Asystole", "asystole", 85, 90, True),
        ("Asystole", "asystole", 40, 80, False),
        ("Asystole", "asystole", 40, 81, True),
        ("Asystole", "asystole", 90.2, 95, False),
        ("Asystole", "ventricular-fibrillation", 85, 90, False),
        ("Bradycardia", "asystole", 85, 90, True),
        ("Tachycardia", "ventricular-tachycardia", 85, 90, True),
        ("Ventricular_Tachycardia", "ventricular-fibrillation", 85, 90, True),
        ("Ventricular_Flutter_Fib", "ventricular-tachycardia", 85, 90, False),
    ],
)
def test_an_alarm_of_the_challenge_is_confirmed_by_the_last_ten_seconds(
    name: str, condition: str, start_s: float, stop_s: float, expected: bool
) -> None:
    assert confirmed(Challenge(name, True, 90.0), [span(condition, start_s, stop_s)]) is expected


def test_the_score_of_the_challenge_counts_a_missed_alarm_five_times() -> None:
    assert score(8, 10, 2, 1) == 18 / 25
    rows = [
        {"alarm": "Asystole", "real": r, "confirmed": c} for r, c in ((True, True), (True, False), (False, False), (False, True))
    ]
    assert summarise(rows)["all"] | {"records": 4} == summarise(rows)["Asystole"]
    assert summarise(rows)["all"]["score"] == 2 / 8


def test_figures_are_gross_and_average_with_an_interval_that_holds_them() -> None:
    found = gross([90, 1], [100, 10])
    assert found["value"] == round(91 / 110, 5)
    assert found["low"] == 0.1
    assert found["high"] == 0.9
    assert average([90, 1, 0], [100, 10, 0]) == 0.5
    assert f1([8], [2], [2])["value"] == 0.8
    assert gross([0], [0]) == {"value": None, "low": None, "high": None}
    assert quantiles([1, 2, 3]) == {"median": 2, "p95": 2.9, "worst": 3}
    assert quantiles([])["median"] is None
