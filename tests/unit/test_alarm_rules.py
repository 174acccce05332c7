"""The rules: every condition at its limit, on both sides of it."""

from __future__ import annotations

import pytest

from ecgnat_stream.alarm.config import AlarmConfig
from ecgnat_stream.alarm.picture import COVERED_BY, PHYSIOLOGICAL, BeatMark, Evidence, Picture
from ecgnat_stream.alarm.picture import HIGH as HIGH_CONDITIONS
from ecgnat_stream.alarm.rules import physiological
from ecgnat_stream.codes import CONDITION_CODES, RHYTHMS, URGENCY
from ecgnat_stream.errors import ConfigError

CONFIG = AlarmConfig()

HIGH = ["ventricular-fibrillation", "asystole", "ventricular-tachycardia", "extreme-tachycardia", "extreme-bradycardia"]


def beats(bpm: float, count: int, stop_s: float, labels: str = "N") -> tuple[BeatMark, ...]:
    """Return ``count`` regular beats, the last at ``stop_s``; the labels end with ``labels``."""
    named = ("N" * count + labels)[-count:]
    return tuple(BeatMark(stop_s - (count - 1 - k) * 60 / bpm, named[k]) for k in range(count))


def evidence(stop_s: float, label: str = "SINUS", **seconds: float) -> Evidence:
    return Evidence(label=label, stop_s=stop_s, seconds=tuple(seconds.get(name, 0.0) for name in RHYTHMS))


def found(config: AlarmConfig = CONFIG, **picture: object) -> list[str]:
    given = {"at_s": 100.0, "since_s": 0.0} | picture
    return [finding.condition for finding in physiological(Picture(**given), config)]  # type: ignore[arg-type]


def urgent(config: AlarmConfig = CONFIG, **picture: object) -> list[str]:
    """Return what is found of high priority."""
    return [name for name in found(config, **picture) if name in HIGH]


def test_a_quiet_bed_finds_nothing() -> None:
    assert found(beats=beats(75, 18, 99.8), heart_rate_bpm=75.0, rhythm=evidence(99.5, SINUS=6.0)) == []


@pytest.mark.parametrize(("last_s", "there"), [(95.6, True), (95.8, False)])
def test_asystole_after_four_seconds_without_qrs(last_s: float, there: bool) -> None:
    assert ("asystole" in found(beats=beats(75, 18, last_s))) is there


def test_asystole_counts_from_when_the_signal_came_back() -> None:
    assert urgent(since_s=93.6) == ["asystole"]
    assert urgent(since_s=93.8) == []
    assert urgent(since_s=None) == []


def test_asystole_waits_for_fibrillation_but_not_for_ever() -> None:
    fibrillating = evidence(99.8, VF=2.0)
    assert urgent(beats=beats(75, 18, 94.0), rhythm=fibrillating) == []
    assert urgent(beats=beats(75, 18, 92.0), rhythm=fibrillating) == ["asystole"]


def test_fibrillation_wins_over_asystole() -> None:
    assert found(beats=beats(75, 18, 90.0), rhythm=evidence(99.8, VF=4.0))[0] == "ventricular-fibrillation"


@pytest.mark.parametrize(
    ("seconds", "after_pause", "there"),
    [(6.0, "Q", True), (6.0, "QQQQ", True), (6.0, "NNVN", True), (6.0, "NN", True), (6.0, "NNN", False), (5.4, "Q", False)],
)
def test_asystole_seen_by_the_network_despite_stray_beats(seconds: float, after_pause: str, there: bool) -> None:
    stray = (*beats(75, 5, 93.0), *beats(60, len(after_pause), 99.0, after_pause))
    assert ("asystole" in found(beats=stray, rhythm=evidence(99.8, ASYSTOLE=seconds))) is there


def test_pauses_around_an_escape_beat_are_no_asystole() -> None:
    pauses = (*beats(75, 5, 94.4), BeatMark(98.2, "Q"))
    assert urgent(beats=pauses, rhythm=evidence(99.8, ASYSTOLE=5.2)) == []


def test_asystole_seen_by_the_network_needs_a_signal_that_long() -> None:
    seen = evidence(99.8, ASYSTOLE=6.0)
    assert found(beats=(BeatMark(98.0, "Q"),), since_s=94.2, rhythm=seen) == []
    assert found(beats=(BeatMark(98.0, "Q"),), since_s=94.0, rhythm=seen) == ["asystole"]


def test_asystole_waits_for_a_network_that_sees_nothing_but_a_beating_heart() -> None:
    beating = evidence(99.8, SINUS=4.0, AF=2.0)
    assert urgent(beats=beats(75, 18, 95.0), rhythm=beating) == []
    assert urgent(beats=beats(75, 18, 92.6), rhythm=beating) == ["asystole"]
    assert urgent(beats=beats(75, 18, 95.0), rhythm=evidence(99.8, SINUS=5.4)) == ["asystole"]


@pytest.mark.parametrize(("seconds", "there"), [(3.8, False), (4.0, True)])
def test_fibrillation_for_four_seconds(seconds: float, there: bool) -> None:
    regular = beats(75, 18, 99.8)
    assert ("ventricular-fibrillation" in found(beats=regular, rhythm=evidence(99.8, VF=seconds))) is there


def test_fibrillation_needs_contact_but_not_a_clean_signal() -> None:
    assert found(since_s=None, attached=True, rhythm=evidence(99.8, VF=6.0)) == ["ventricular-fibrillation"]
    assert found(since_s=None, attached=False, rhythm=evidence(99.8, VF=6.0)) == []


@pytest.mark.parametrize(
    ("score", "present", "there"),
    [(0.71, "", True), (0.69, "", False), (0.41, "ventricular-fibrillation", True), (0.39, "ventricular-fibrillation", False)],
)
def test_fibrillation_without_the_network_by_its_score(score: float, present: str, there: bool) -> None:
    result = found(fibrillation=score, present=frozenset({present} - {""}))
    assert ("ventricular-fibrillation" in result) is there


def test_fibrillation_without_the_network_needs_contact_only() -> None:
    assert found(since_s=None, fibrillation=0.9) == ["ventricular-fibrillation"]
    assert found(since_s=None, fibrillation=0.9, attached=False) == []


@pytest.mark.parametrize(
    ("seen", "score", "there"),
    [
        ({"VF": 4.0}, 0.5, True),
        ({"VF": 6.0}, 0.49, False),
        ({"VF": 2.0, "VT": 2.0}, 0.5, True),
        ({"VF": 2.0, "VT": 2.0}, 0.49, False),
        ({"VF": 2.0, "VT": 1.8}, 0.6, False),
        ({"VF": 0.4, "VT": 3.6}, 0.5, True),
        ({"VF": 0.2, "VT": 5.8}, 0.6, False),
    ],
)
def test_what_the_network_calls_fibrillation_needs_the_detector_to_support_it(
    seen: dict[str, float], score: float, there: bool
) -> None:
    result = found(beats=beats(200, 18, 99.8, "Q" * 18), rhythm=evidence(99.8, **seen), fibrillation=score)
    assert ("ventricular-fibrillation" in result) is there


@pytest.mark.parametrize(
    ("seen", "score", "there"),
    [
        ({"NOISE": 6.0}, 0.71, True),
        ({"NOISE": 6.0}, 0.69, False),
        ({"SINUS": 3.0, "NOISE": 3.0}, 0.9, False),
        ({"SINUS": 2.8, "NOISE": 3.0}, 0.9, True),
        ({"VT": 6.0}, 0.9, True),
    ],
)
def test_a_high_score_stands_where_no_heart_is_seen_to_beat(seen: dict[str, float], score: float, there: bool) -> None:
    assert ("ventricular-fibrillation" in found(rhythm=evidence(99.8, **seen), fibrillation=score)) is there


@pytest.mark.parametrize(("lasted_s", "there"), [(5.8, False), (6.0, True)])
def test_a_network_that_sees_a_beating_heart_delays_fibrillation_and_no_more(lasted_s: float, there: bool) -> None:
    seen = {"rhythm": evidence(99.8, SINUS=6.0), "fibrillation": 0.9, "fibrillation_since_s": 100.0 - lasted_s}
    assert ("ventricular-fibrillation" in found(**seen)) is there
    assert "ventricular-fibrillation" not in found(**{**seen, "fibrillation": 0.69})


def test_asystole_waits_for_a_score_and_for_a_network_that_sees_noise() -> None:
    for waits in ({"fibrillation": 0.5}, {"rhythm": evidence(99.8, NOISE=4.0)}):
        assert urgent(beats=beats(75, 18, 94.0), **waits) == []
        assert urgent(beats=beats(75, 18, 92.0), **waits) == ["asystole"]


@pytest.mark.parametrize(("bpm", "labels", "there"), [(101, "VVVVV", True), (101, "VVVV", False), (99, "VVVVV", False)])
def test_ventricular_tachycardia_by_five_beats(bpm: float, labels: str, there: bool) -> None:
    assert ("ventricular-tachycardia" in found(beats=beats(bpm, 12, 99.8, "N" * 7 + labels))) is there


@pytest.mark.parametrize(
    ("seen", "there"),
    [({"SINUS": 6.0}, False), ({"VT": 0.6, "SINUS": 5.4}, False), ({"VT": 0.8}, True), ({"VT": 0.4, "VF": 0.4}, True)],
)
def test_a_run_of_ventricular_beats_needs_the_network_to_agree(seen: dict[str, float], there: bool) -> None:
    run = beats(130, 12, 99.8, "N" * 7 + "V" * 5)
    assert ("ventricular-tachycardia" in found(beats=run, rhythm=evidence(99.8, **seen))) is there


@pytest.mark.parametrize(("count", "seconds", "there"), [(4, 1.0, True), (4, 0.8, False), (3, 6.0, False)])
def test_one_ventricular_beat_fewer_is_enough_where_the_network_is_sure(count: int, seconds: float, there: bool) -> None:
    run = beats(130, 12, 99.8, "N" * (12 - count) + "V" * count)
    seen = evidence(99.8, VF=seconds) if seconds < 3 else evidence(99.8, VF=seconds, VT=0.0)
    assert ("ventricular-tachycardia" in found(beats=run, rhythm=seen, fibrillation=0.0)) is there


@pytest.mark.parametrize(("last_s", "there"), [(1.2, True), (1.3, False)])
def test_a_run_with_intervals_too_unlike_is_an_artefact(last_s: float, there: bool) -> None:
    run = (*beats(120, 12, 98.5, "N" * 8 + "VVVV"), BeatMark(98.5 + last_s, "V"))
    config = AlarmConfig(vt_rate_bpm=80.0)
    assert ("ventricular-tachycardia" in found(config, beats=run)) is there


@pytest.mark.parametrize(("score", "there"), [(None, True), (0.5, True), (0.49, False)])
def test_a_waveform_needs_the_detector_to_support_it(score: float | None, there: bool) -> None:
    result = found(beats=beats(130, 6, 99.8, "QQQQQQ"), rhythm=evidence(99.8, VT=3.0), fibrillation=score)
    assert ("ventricular-tachycardia" in result) is there


@pytest.mark.parametrize("labels", ["NNNNNNNN", "NNNNNNVN"])
def test_a_waveform_is_doubted_among_plain_beats(labels: str) -> None:
    marks = beats(130, 8, 99.8, labels)
    assert found(beats=marks, heart_rate_bpm=130.0, rhythm=evidence(99.8, VT=3.0)) == []
    assert urgent(beats=beats(130, 8, 99.8, "NNNNVQNQ"), rhythm=evidence(99.8, VT=3.0)) == ["ventricular-tachycardia"]


@pytest.mark.parametrize(("count", "there"), [(12, False), (13, True)])
def test_a_long_run_of_ventricular_beats_stands_against_the_network(count: int, there: bool) -> None:
    run = beats(120, 18, 99.8, "V" * count)
    assert ("ventricular-tachycardia" in found(beats=run, rhythm=evidence(99.8, SINUS=6.0))) is there


def test_ventricular_beats_with_another_between_are_no_tachycardia() -> None:
    assert urgent(beats=beats(120, 12, 99.8, "VVVNVVVV")) == []


@pytest.mark.parametrize(
    ("bpm", "beat_rate", "seconds", "there"),
    [(None, None, 3.0, True), (None, None, 2.8, False), (130.0, 130, 3.0, True), (80.0, 80, 6.0, False), (80.0, 160, 3.0, True)],
)
def test_ventricular_tachycardia_by_waveform(bpm: float | None, beat_rate: float | None, seconds: float, there: bool) -> None:
    marks = beats(beat_rate, 6, 99.8, "QQQQQQ") if beat_rate else (BeatMark(97.0, "Q"),)
    assert ("ventricular-tachycardia" in found(beats=marks, heart_rate_bpm=bpm, rhythm=evidence(99.8, VT=seconds))) is there


@pytest.mark.parametrize(("bpm", "count", "there"), [(141, 10, True), (141, 9, False), (139, 18, False)])
def test_extreme_tachycardia_over_ten_beats(bpm: float, count: int, there: bool) -> None:
    assert ("extreme-tachycardia" in found(beats=beats(bpm, count, 99.8))) is there


@pytest.mark.parametrize(
    ("condition", "marks"),
    [("extreme-tachycardia", beats(137, 18, 99.8)), ("extreme-bradycardia", beats(45, 8, 99.8))],
)
def test_an_extreme_rate_is_harder_to_leave_than_to_reach(condition: str, marks: tuple[BeatMark, ...]) -> None:
    assert found(beats=marks) == []
    assert found(beats=marks, present=frozenset({condition})) == [condition]


def test_what_covers_is_never_less_urgent_and_latches_as_well() -> None:
    for name, others in COVERED_BY.items():
        for about in (PHYSIOLOGICAL[other] for other in others):
            assert URGENCY[about.priority] >= URGENCY[PHYSIOLOGICAL[name].priority]
            assert about.latching >= PHYSIOLOGICAL[name].latching


def test_a_fast_run_that_is_over_is_not_found() -> None:
    assert found(beats=beats(160, 18, 97.9)) == []
    assert found(beats=beats(160, 18, 98.1)) == ["extreme-tachycardia"]


@pytest.mark.parametrize(("bpm", "count", "there"), [(41, 4, True), (41, 3, False), (43, 6, False)])
def test_extreme_bradycardia_over_four_beats(bpm: float, count: int, there: bool) -> None:
    marks = beats(75, 5, 99.8 - (count - 1) * 60 / bpm)[:-1] + beats(bpm, count, 99.8)
    assert ("extreme-bradycardia" in found(beats=marks)) is there


def test_a_bradycardia_may_end_with_its_shortest_interval() -> None:
    marks = (*beats(75, 8, 94.0), BeatMark(96.0, "N"), BeatMark(97.9, "N"), BeatMark(99.0, "N"))
    assert urgent(beats=marks) == ["extreme-bradycardia"]


def test_a_single_pause_is_no_bradycardia() -> None:
    assert urgent(beats=(*beats(75, 8, 95.9), BeatMark(99.8, "N"))) == []


def test_an_asystole_that_is_over_is_no_bradycardia() -> None:
    assert urgent(beats=(*beats(75, 8, 60.0), BeatMark(99.0, "N"), BeatMark(99.8, "N"))) == []
    assert urgent(beats=(*beats(38, 8, 60.0), BeatMark(99.8, "N"))) == []


def test_the_slowest_rhythm_is_not_found_last() -> None:
    marks = (*beats(75, 8, 91.0), BeatMark(94.0, "N"), BeatMark(97.0, "N"))
    assert urgent(beats=marks, at_s=98.9) == []
    assert urgent(beats=marks, at_s=99.0) == ["extreme-bradycardia"]


@pytest.mark.parametrize(("longest_s", "there"), [(5.0, True), (7.2, True), (7.4, False)])
def test_intervals_for_which_asystole_waits_are_a_bradycardia(longest_s: float, there: bool) -> None:
    """Between the two no heart is without an alarm, whatever the network sees: from 7.3 s on it is asystole."""
    marks = (*beats(75, 8, 99.5 - 2 * longest_s), BeatMark(99.5 - longest_s, "N"), BeatMark(99.5, "N"))
    assert ("extreme-bradycardia" in urgent(beats=marks, rhythm=evidence(99.8, SINUS=6.0))) is there


@pytest.mark.parametrize("condition", ["tachycardia", "bradycardia", "atrial-fibrillation"])
def test_lasting_conditions_and_their_switch(condition: str) -> None:
    key, delay = {
        "tachycardia": ("high_since_s", CONFIG.hr_delay_s),
        "bradycardia": ("low_since_s", CONFIG.hr_delay_s),
        "atrial-fibrillation": ("af_since_s", CONFIG.af_delay_s),
    }[condition]
    regular = beats(75, 18, 99.8)
    assert found(beats=regular, **{key: 100.0 - delay}) == [condition]
    assert found(beats=regular, **{key: 100.1 - delay}) == []
    assert found(beats=regular, **{key: 99.8}, present=frozenset({condition})) == [condition]
    assert found(AlarmConfig(disabled=(condition,)), beats=regular, **{key: 0.0}) == []


def test_priorities_are_decided_here() -> None:
    assert [name for name, about in PHYSIOLOGICAL.items() if about.priority == "high"] == HIGH
    assert all(about.latching == (about.priority == "high") for about in PHYSIOLOGICAL.values())
    assert list(HIGH_CONDITIONS) == HIGH
    assert set(PHYSIOLOGICAL) <= set(CONDITION_CODES)


@pytest.mark.parametrize("condition", HIGH)
def test_no_high_condition_can_be_switched_off(condition: str) -> None:
    with pytest.raises(ConfigError, match=f"{condition} is of high priority"):
        AlarmConfig(disabled=(condition,))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("asystole_s", 2.9), ("asystole_s", 10.1), ("asystole_s", float("nan")), ("vf_s", 60.0), ("vt_beats", 2),
        ("vt_rate_bpm", 300.0), ("extreme_tachy_bpm", 500.0), ("extreme_brady_beats", 50), ("hr_high_bpm", 0.0),
        ("reminder_s", 1e9), ("pause_max_s", 3600.0), ("vf_score", 0.1), ("svt_rate_bpm", 90.0), ("svt_beats", 3),
        ("svt_delay_s", 61.0), ("rr_pause_s", 1.0), ("missed_beat_ratio", 1.2), ("pvc_per_min", 0), ("geminy_cycles", 2),
        ("r_on_t_share", 2.0), ("irregular_share", 0.01), ("event_s", 5.0), ("ectopy_off_s", 301.0),
    ],
)  # fmt: skip
def test_a_limit_out_of_bounds_is_refused_with_its_reason(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"alarm\.{key}: .* must be .* to .*: \w+"):
        AlarmConfig(**{key: value})


def test_limits_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"take 10\.4 s"):
        AlarmConfig(extreme_tachy_bpm=110.0, extreme_tachy_beats=20, hr_high_bpm=100.0)
    with pytest.raises(ConfigError, match="the medium alarm comes before the high one"):
        AlarmConfig(hr_high_bpm=150.0)
    with pytest.raises(ConfigError, match="such a pause is asystole already"):
        AlarmConfig(rr_pause_s=4.5)
    with pytest.raises(ConfigError, match="pause_s"):
        AlarmConfig(pause_s=150.0, pause_max_s=60.0)
    with pytest.raises(ConfigError, match="unknown condition 'vt'"):
        AlarmConfig(disabled=("vt",))
