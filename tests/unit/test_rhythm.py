"""The rhythm timeline: averaging on the frame grid, decisions that do not flicker, labels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ecgnat_stream.codes import RHYTHM_TEXTS, RHYTHMS
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.rhythm import UNKNOWN, RhythmConfig, RhythmTimeline, label_text
from ecgnat_stream.signal import TOKEN_S

TOKENS = 32
WINDOW = 1000
SINUS, AF, VT, VF = (RHYTHMS.index(name) for name in ("SINUS", "AF", "VT", "VF"))
ROW = np.array([0])


def window_of(labels_at: list[tuple[float, int]], start: int, sure: float = 0.93) -> NDArray[np.float32]:
    """Return ``(P, C)`` probabilities of a perfect network for a rhythm that changes at the given seconds."""
    middle = start / 100 + (np.arange(TOKENS) + 0.5) * TOKEN_S
    probs = np.full((TOKENS, len(RHYTHMS)), (1 - sure) / (len(RHYTHMS) - 1), np.float32)
    for at_s, label in labels_at:
        probs[middle >= at_s] = (1 - sure) / (len(RHYTHMS) - 1)
        probs[middle >= at_s, label] = sure
    return probs


def run(labels_at: list[tuple[float, int]], seconds: int, timeline: RhythmTimeline | None = None) -> list[tuple[float, str]]:
    """Return the decided label after every hop."""
    timeline = timeline or RhythmTimeline(1)
    said = []
    for stop in range(WINDOW, seconds * 100 + 1, 100):
        start = stop - WINDOW
        timeline.add(ROW, np.array([start]), np.array([stop]), window_of(labels_at, start)[None])
        decision = timeline.decide(ROW)
        said.append((float(decision.stop_s[0]), decision.names[0]))
    return said


def changes(said: list[tuple[float, str]]) -> list[str]:
    return [name for k, (_, name) in enumerate(said) if k == 0 or name != said[k - 1][1]]


def test_one_rhythm_is_said_at_the_first_window() -> None:
    assert run([(0, SINUS)], 10) == [(10.0, "SINUS")]


@pytest.mark.parametrize(("label", "within_s"), [("VF", 3.5), ("VT", 3.5), ("ASYSTOLE", 4.0), ("AF", 8.0), ("PACED", 6.0)])
def test_a_new_rhythm_is_said_once_and_soon(label: str, within_s: float) -> None:
    said = run([(0, SINUS), (20, RHYTHMS.index(label))], 40)
    assert changes(said) == ["SINUS", label]
    assert next(at_s for at_s, name in said if name == label) <= 20 + within_s


def test_a_single_odd_second_changes_nothing() -> None:
    assert changes(run([(0, SINUS), (20, VT), (21, SINUS)], 40)) == ["SINUS"]


def test_alternating_opinions_do_not_flicker() -> None:
    labels = [(0.0, SINUS)] + [(15 + 0.6 * k, (AF, SINUS)[k % 2]) for k in range(60)]
    assert len(changes(run(labels, 60))) <= 3


def test_label_is_given_up_where_the_signal_is_unusable_for_long() -> None:
    timeline = RhythmTimeline(1)
    names = []
    for k, usable in enumerate([True, False, True, False, False, False, True]):
        start = 100 * k
        timeline.add(ROW, np.array([start]), np.array([start + WINDOW]), window_of([(0, SINUS)], start)[None])
        names.append(timeline.decide(ROW, np.array([usable])).names[0])
    assert names == ["SINUS", "SINUS", "SINUS", "SINUS", "UNKNOWN", "UNKNOWN", "SINUS"]


def test_nothing_yet_is_unknown() -> None:
    decision = RhythmTimeline(2).decide(np.array([0, 1]))
    assert decision.label.tolist() == [UNKNOWN, UNKNOWN]
    assert decision.names == ["UNKNOWN", "UNKNOWN"]
    assert decision.probability.tolist() == [0.0, 0.0]


def test_seconds_count_the_last_span_only() -> None:
    timeline = RhythmTimeline(1)
    run([(0, SINUS), (17, VF)], 20, timeline)
    seconds = timeline.seconds(ROW, 6.0)[0]
    assert seconds[VF] == pytest.approx(3.0, abs=0.4)
    assert seconds.sum() == pytest.approx(6.0)


def test_the_ends_of_a_window_weigh_less() -> None:
    timeline = RhythmTimeline(1)
    timeline.add(ROW, np.array([0]), np.array([1000]), window_of([(0, SINUS)], 0)[None])
    timeline.add(ROW, np.array([500]), np.array([1500]), window_of([(0, VF)], 500)[None])
    mean, _ = timeline.recent(ROW, 10.0)
    begins, both, ends = mean[0, 0, VF], mean[0, 12, VF], mean[0, 24, VF]
    assert begins < 0.3
    assert both == pytest.approx(0.5, abs=0.05)
    assert 0.6 < ends < mean[0, 25, VF]


def test_no_opinion_beyond_the_window() -> None:
    timeline = RhythmTimeline(1)
    timeline.add(ROW, np.array([0]), np.array([WINDOW]), window_of([(0, SINUS)], 0)[None])
    assert timeline.stop_s(ROW).tolist() == [10.0]


def test_frames_between_windows_stay_without_opinion_and_old_ones_are_overwritten() -> None:
    timeline = RhythmTimeline(1)
    timeline.add(ROW, np.array([0]), np.array([WINDOW]), window_of([(0, VF)], 0)[None])
    timeline.add(ROW, np.array([1500]), np.array([2500]), window_of([(0, SINUS)], 1500)[None])
    _, known = timeline.recent(ROW, 20.0)
    assert known[0].tolist() == [True] * 25 + [False] * 25 + [True] * 50
    timeline.add(ROW, np.array([9000]), np.array([10000]), window_of([(0, SINUS)], 9000)[None])
    mean, known = timeline.recent(ROW, 20.0)
    assert known[0].tolist() == [False] * 50 + [True] * 50
    assert mean[0, :50].max() == 0.0


def test_windows_off_the_grid_and_broken_tokens() -> None:
    timeline = RhythmTimeline(1)
    probs = window_of([(0, AF)], 7)[None].copy()
    probs[0, 3] = np.nan
    timeline.add(ROW, np.array([7]), np.array([7 + WINDOW]), probs)
    mean, known = timeline.recent(ROW, 9.0)
    assert np.isfinite(mean).all()
    assert mean[0][known[0]][:, AF].min() > 0.9


def test_a_row_does_not_depend_on_the_others() -> None:
    rng = np.random.default_rng(3)
    rows = 5
    together, alone = RhythmTimeline(rows), RhythmTimeline(rows)
    every = np.arange(rows)
    for k in range(25):
        starts = 100 * k + np.array([0, 0, 20, 7, 100])
        probs = rng.dirichlet(np.full(len(RHYTHMS), 0.3), (rows, TOKENS)).astype(np.float32)
        usable = rng.random(rows) > 0.2
        together.add(every, starts, starts + WINDOW, probs)
        both = together.decide(every, usable)
        for row in every[::-1]:
            one = np.array([row])
            alone.add(one, starts[one], starts[one] + WINDOW, probs[one])
            single = alone.decide(one, usable[one])
            assert single.label[0] == both.label[row]
            assert single.start_s[0] == both.start_s[row]
            assert np.array_equal(single.probabilities[0], both.probabilities[row])
            assert np.array_equal(alone.seconds(one, 6.0)[0], together.seconds(every, 6.0)[row])


def test_reset_forgets_one_bed_only() -> None:
    timeline = RhythmTimeline(2)
    rows = np.array([0, 1])
    starts = np.zeros(2, np.int64)
    timeline.add(rows, starts, starts + WINDOW, np.stack([window_of([(0, AF)], 0)] * 2))
    assert timeline.decide(rows).names == ["AF", "AF"]
    timeline.reset(ROW)
    assert timeline.decide(rows).names == ["UNKNOWN", "AF"]
    assert timeline.stop_s(rows).tolist() == [0.0, 10.0]


def test_wrong_input_is_refused_with_its_values() -> None:
    timeline = RhythmTimeline(1)
    with pytest.raises(ValueError, match=r"\(1, 32, 3\)"):
        timeline.add(ROW, np.array([0]), np.array([WINDOW]), np.zeros((1, TOKENS, 3), np.float32))
    with pytest.raises(ValueError, match="2500 samples"):
        timeline.add(ROW, np.array([0]), np.array([2500]), np.zeros((1, TOKENS, len(RHYTHMS)), np.float32))
    with pytest.raises(ValueError, match="history of 20"):
        timeline.recent(ROW, 21.0)
    with pytest.raises(ConfigError, match=r"rhythm\.enter: 2\.0 must be"):
        RhythmConfig(enter=2.0)


@pytest.mark.parametrize(
    ("label", "rate", "key"),
    [
        ("SINUS", 59.0, "SBRAD"),
        ("SINUS", 60.0, "SINUS"),
        ("SINUS", 100.0, "SINUS"),
        ("SINUS", 101.0, "STACH"),
        ("SINUS", None, "SINUS"),
        ("AF", 150.0, "AF"),
        ("UNKNOWN", 30.0, "UNKNOWN"),
    ],
)
def test_sinus_rhythm_is_refined_by_its_rate(label: str, rate: float | None, key: str) -> None:
    assert label_text(label, rate) == key
    assert key in RHYTHM_TEXTS
