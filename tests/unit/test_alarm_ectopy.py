"""Ectopic beats and intervals: every condition at its limit, on both sides of it."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest

from ecgnat_stream.alarm.config import AlarmConfig
from ecgnat_stream.alarm.ectopy import irregularity
from ecgnat_stream.alarm.picture import PHYSIOLOGICAL, BeatMark, Evidence, Picture
from ecgnat_stream.alarm.rules import physiological
from ecgnat_stream.codes import CONDITION_CODES, RHYTHMS, Codes

CONFIG = AlarmConfig()
LESSER = {name for name, about in PHYSIOLOGICAL.items() if about.priority != "high"}


def marks(labels: str, intervals_s: list[float] | float = 0.8, stop_s: float = 99.8) -> tuple[BeatMark, ...]:
    """Return beats of these classes, the last at ``stop_s``, with ``intervals_s`` at the end, and 0.8 s before them."""
    given = [intervals_s] * (len(labels) - 1) if isinstance(intervals_s, float) else intervals_s
    gaps = [0.8] * (len(labels) - 1 - len(given)) + given
    back = list(accumulate(reversed(gaps), initial=0.0))[::-1]
    return tuple(BeatMark(stop_s - before_s, label) for before_s, label in zip(back, labels, strict=True))


def found(config: AlarmConfig = CONFIG, **picture: object) -> list[str]:
    """Return what is found below high priority."""
    given = {"at_s": 100.0, "since_s": 0.0} | picture
    return [one.condition for one in physiological(Picture(**given), config) if one.condition in LESSER]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "there"),
    [
        ("NNNNNNNN", []),
        ("NNNNNNVN", []),
        ("NNNNNVVN", ["ventricular-pair"]),
        ("NNNNNNVV", []),
        ("NNNNSVVF", ["ventricular-pair"]),
        ("NNNNVVVN", ["ventricular-run"]),
        ("NNNNNVVV", ["ventricular-run"]),
        ("NNNVVNVV", ["ventricular-pair"]),
        ("NVVNVVVN", ["ventricular-run", "ventricular-pair"]),
        ("NNNVNVNV", ["ventricular-bigeminy"]),
        ("NNNNVNVN", []),
        ("NNVNNVNNV", ["ventricular-trigeminy"]),
        ("NVNNVNNVN", []),
        ("NNNVNNNVNNNV", []),
    ],
)
def test_patterns_of_ventricular_beats(labels: str, there: list[str]) -> None:
    assert found(beats=marks(labels)) == there


def test_a_pattern_is_interrupted_by_a_pause() -> None:
    config = AlarmConfig(disabled=("pause",))
    assert found(config, beats=marks("NNNNVVN", [2.1, 0.8])) == []
    assert found(config, beats=marks("NNNNVVV", [2.1, 0.8])) == []
    assert found(config, beats=marks("NNNVNVNV", [2.1, 0.8])) == []


@pytest.mark.parametrize("labels", ["NNNVVN", "NNNVVV", "NVNVNV", "NNVNNVNNV"])
def test_what_is_over_is_found_for_five_seconds(labels: str) -> None:
    before = marks(labels, stop_s=95.2)
    assert len(found(beats=before + marks("NNNNNN"))) == 1
    assert found(beats=marks(labels, stop_s=94.4) + marks("NNNNNNN")) == []


@pytest.mark.parametrize(("cycles", "there"), [(3, ["ventricular-bigeminy"]), (4, [])])
def test_bigeminy_needs_its_cycles(cycles: int, there: list[str]) -> None:
    assert found(AlarmConfig(geminy_cycles=cycles), beats=marks("NNNNVNVNV")) == there


@pytest.mark.parametrize(
    ("before_s", "interval_s", "there"),
    [(0.8, 0.32, True), (0.8, 0.33, False), (0.8, 0.19, False), (0.5, 0.25, True), (0.5, 0.26, False), (1.6, 0.39, True)],
)
def test_r_on_t_by_the_interval_before(before_s: float, interval_s: float, there: bool) -> None:
    beats = marks("NNNNNVN", [before_s, interval_s, 1.0])
    assert ("r-on-t" in found(beats=beats)) is there


def test_r_on_t_is_of_a_ventricular_beat_after_another_one() -> None:
    assert found(beats=marks("NNNNNNN", [0.3, 1.0])) == []
    assert found(beats=marks("NNNVVNN", [0.8, 0.8, 0.3, 1.0, 0.8])) == ["ventricular-pair"]


@pytest.mark.parametrize(("count", "held", "there"), [(11, False, True), (10, False, False), (9, True, True), (8, True, False)])
def test_frequent_ventricular_beats_and_their_hysteresis(count: int, held: bool, there: bool) -> None:
    present = frozenset({"frequent-pvc"} if held else ())
    assert ("frequent-pvc" in found(beats=marks("N" * 8), pvc_per_min=count, present=present)) is there


@pytest.mark.parametrize(("interval_s", "there"), [(2.98, []), (3.0, ["pause"])])
def test_a_pause_that_is_over(interval_s: float, there: list[str]) -> None:
    assert found(beats=marks("NNNNVNN", [interval_s, 0.8])) == there
    assert found(beats=marks("NNNNVNN", [interval_s, 0.8], stop_s=94.0) + marks("N" * 8, 0.7)) == []


@pytest.mark.parametrize(("last_s", "there"), [(96.8, []), (96.6, ["pause"])])
def test_a_pause_that_is_not(last_s: float, there: list[str]) -> None:
    assert found(beats=marks("N" * 9, stop_s=last_s)) == there


def test_no_pause_where_the_heart_may_fibrillate() -> None:
    silent = marks("N" * 9, stop_s=96.0)
    seen = Evidence(label="VF", stop_s=99.8, seconds=tuple(1.6 if name == "VF" else 0.0 for name in RHYTHMS))
    assert found(beats=silent) == ["pause"]
    assert found(beats=silent, rhythm=seen) == []
    assert found(beats=silent, fibrillation=0.5) == []


@pytest.mark.parametrize(
    ("labels", "intervals_s", "there"),
    [
        ("N" * 11, [1.5, 0.8], True),
        ("N" * 11, [1.42, 0.8], False),
        ("N" * 11, [1.5, 1.5], False),
        ("N" * 10, [1.5, 0.8], False),
        ("N" * 8 + "VNN", [1.5, 0.8], False),
        ("N" * 11, [0.6, 0.8, 0.8, 1.5, 0.8], False),
    ],
)
def test_a_missed_beat_of_a_regular_rhythm(labels: str, intervals_s: list[float], there: bool) -> None:
    assert ("missed-beat" in found(beats=marks(labels, intervals_s))) is there


def test_a_beat_that_went_unseen_is_not_missed() -> None:
    beats = marks("N" * 11, [1.5, 0.8])
    assert found(beats=beats, clear_since_s=beats[-3].at_s) == ["missed-beat"]
    assert found(beats=beats, clear_since_s=beats[-3].at_s + 0.2) == []


@pytest.mark.parametrize(("bpm", "count", "there"), [(152.0, 9, True), (152.0, 7, False), (148.0, 12, False)])
def test_supraventricular_tachycardia_by_beats(bpm: float, count: int, there: bool) -> None:
    beats = marks("N" * (10 + count), [60 / bpm] * (count - 1))
    assert ("supraventricular-tachycardia" in found(beats=beats)) is there


def test_supraventricular_tachycardia_begins_suddenly_and_is_not_ventricular() -> None:
    faster = [60 / 120] * 10 + [60 / 155] * 9
    assert found(beats=marks("N" * 20, faster)) == []
    assert found(beats=marks("N" * 20, faster), present=frozenset({"supraventricular-tachycardia"})) != []
    assert found(beats=marks("N" * 16 + "VNNN", [60 / 155] * 9)) == []
    assert found(beats=marks("N" * 16 + "QNNN", [60 / 155] * 9)) == []
    assert found(beats=marks("N" * 11 + "S" * 9, [60 / 155] * 9)) == ["supraventricular-tachycardia"]
    config = AlarmConfig(disabled=("atrial-fibrillation",))
    assert found(config, beats=marks("N" * 20, [60 / 155] * 9), af_since_s=50.0) == []
    assert found(beats=marks("N" * 20, [60 / 155] * 9, stop_s=97.9)) == []


@pytest.mark.parametrize(
    ("since_s", "bpm", "there"), [(95.0, 160.0, True), (95.2, 160.0, False), (95.0, 150.0, False), (95.0, None, True)]
)
def test_supraventricular_tachycardia_by_the_network(since_s: float, bpm: float | None, there: bool) -> None:
    result = found(beats=marks("NNNN"), svt_since_s=since_s, heart_rate_bpm=bpm)
    assert ("supraventricular-tachycardia" in result) is there


def test_irregularity_is_of_neighbouring_normal_intervals() -> None:
    assert irregularity(marks("N" * 31, 0.8)) is None
    assert irregularity(marks("N" * 32, 0.8)) == pytest.approx(0.0, abs=1e-9)
    assert irregularity(marks("N" * 33, [0.9, 0.7] * 16)) == pytest.approx(0.25)
    breathing = [0.8 + 0.002 * abs(k % 40 - 20) for k in range(40)]
    assert irregularity(marks("N" * 41, breathing)) == pytest.approx(0.0025, abs=0.001)


def test_irregularity_does_not_count_ectopic_beats() -> None:
    labels = "N" * 20 + "NNNVN" * 12
    intervals_s = [0.8, 0.8, 0.5, 1.1, 0.8] * 12
    assert irregularity(marks(labels, intervals_s)) is not None
    assert irregularity(marks(labels, intervals_s)) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("share", "held", "there"), [(0.121, False, True), (0.119, False, False), (0.097, True, True), (0.095, True, False)]
)
def test_an_irregular_rhythm_and_its_hysteresis(share: float, held: bool, there: bool) -> None:
    present = frozenset({"irregular-rhythm"} if held else ())
    picture: dict[str, Any] = {"beats": marks("N" * 40), "irregularity": share, "present": present}
    assert ("irregular-rhythm" in found(**picture)) is there
    assert "irregular-rhythm" not in found(**picture, af_since_s=90.0)


def test_nothing_is_found_in_a_signal_that_cannot_be_judged() -> None:
    assert found(since_s=None, beats=marks("NNNVVV", [3.5, 0.8]), pvc_per_min=50, irregularity=0.4, svt_since_s=0.0) == []
    assert found(beats=(), pvc_per_min=0) == []


SEEN: dict[str, dict[str, Any]] = {
    "supraventricular-tachycardia": {"svt_since_s": 0.0},
    "tachycardia": {"high_since_s": 0.0},
    "bradycardia": {"low_since_s": 0.0},
    "atrial-fibrillation": {"af_since_s": 0.0},
    "ventricular-run": {"beats": marks("NNNVVV")},
    "r-on-t": {"beats": marks("NNNNNVN", [0.3, 1.0])},
    "pause": {"beats": marks("NNN", stop_s=96.0)},
    "ventricular-pair": {"beats": marks("NNNVVN")},
    "ventricular-bigeminy": {"beats": marks("NVNVNV")},
    "ventricular-trigeminy": {"beats": marks("NNVNNVNNV")},
    "frequent-pvc": {"beats": marks("NNN"), "pvc_per_min": 11},
    "missed-beat": {"beats": marks("N" * 11, [1.5, 0.8])},
    "irregular-rhythm": {"beats": marks("N" * 40), "irregularity": 0.3},
}


@pytest.mark.parametrize("condition", sorted(LESSER))
def test_every_lesser_condition_has_a_switch(condition: str) -> None:
    assert found(**SEEN[condition]) == [condition]
    assert found(AlarmConfig(disabled=(condition,)), **SEEN[condition]) == []


def test_codes_are_those_that_exist() -> None:
    given = {
        "supraventricular-tachycardia": Codes("426761007", 10, 9504),
        "ventricular-run": Codes(None, 3, 3212),
        "r-on-t": Codes(),
        "pause": Codes(None, 3, 3108),
        "ventricular-pair": Codes(None, 10, 9952),
        "ventricular-bigeminy": Codes("11157007", 10, 9920),
        "ventricular-trigeminy": Codes("251180001", 10, 9936),
        "frequent-pvc": Codes("427172004", None, None),
        "missed-beat": Codes(),
        "irregular-rhythm": Codes(),
    }
    assert {name: CONDITION_CODES[name] for name in given} == given
    assert set(PHYSIOLOGICAL) == set(CONDITION_CODES) - {"leads-off"}
