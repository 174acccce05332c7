"""The rules: every condition at its limit, on both sides of it."""

from __future__ import annotations

import pytest

from ecgnat_stream.alarm.config import AlarmConfig
from ecgnat_stream.alarm.rules import COVERED_BY, PHYSIOLOGICAL, BeatMark, Evidence, Picture, physiological
from ecgnat_stream.codes import CONDITION_CODES, RHYTHMS
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


def test_a_quiet_bed_finds_nothing() -> None:
    assert found(beats=beats(75, 18, 99.8), heart_rate_bpm=75.0, rhythm=evidence(99.5, SINUS=6.0)) == []


@pytest.mark.parametrize(("last_s", "there"), [(95.6, True), (95.8, False)])
def test_asystole_after_four_seconds_without_qrs(last_s: float, there: bool) -> None:
    assert ("asystole" in found(beats=beats(75, 18, last_s))) is there


def test_asystole_counts_from_when_the_signal_came_back() -> None:
    assert found(since_s=93.6) == ["asystole"]
    assert found(since_s=93.8) == []
    assert found(since_s=None) == []


def test_asystole_waits_for_fibrillation_but_not_for_ever() -> None:
    fibrillating = evidence(99.8, VF=2.0)
    assert found(beats=beats(75, 18, 94.0), rhythm=fibrillating) == []
    assert found(beats=beats(75, 18, 92.0), rhythm=fibrillating) == ["asystole"]


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
    assert found(beats=pauses, rhythm=evidence(99.8, ASYSTOLE=5.2)) == []


def test_asystole_seen_by_the_network_needs_a_signal_that_long() -> None:
    seen = evidence(99.8, ASYSTOLE=6.0)
    assert found(beats=(BeatMark(98.0, "Q"),), since_s=94.2, rhythm=seen) == []
    assert found(beats=(BeatMark(98.0, "Q"),), since_s=94.0, rhythm=seen) == ["asystole"]


def test_asystole_waits_for_a_network_that_sees_nothing_but_a_beating_heart() -> None:
    beating = evidence(99.8, SINUS=4.0, AF=2.0)
    assert found(beats=beats(75, 18, 95.0), rhythm=beating) == []
    assert found(beats=beats(75, 18, 92.6), rhythm=beating) == ["asystole"]
    assert found(beats=beats(75, 18, 95.0), rhythm=evidence(99.8, SINUS=5.4)) == ["asystole"]


@pytest.mark.parametrize(("seconds", "there"), [(3.8, False), (4.0, True)])
def test_fibrillation_for_four_seconds(seconds: float, there: bool) -> None:
    regular = beats(75, 18, 99.8)
    assert ("ventricular-fibrillation" in found(beats=regular, rhythm=evidence(99.8, VF=seconds))) is there


def test_fibrillation_needs_contact_but_not_a_clean_signal() -> None:
    assert found(since_s=None, attached=True, rhythm=evidence(99.8, VF=6.0)) == ["ventricular-fibrillation"]
    assert found(since_s=None, attached=False, rhythm=evidence(99.8, VF=6.0)) == []


@pytest.mark.parametrize(("bpm", "labels", "there"), [(101, "VVVVV", True), (101, "VVVV", False), (99, "VVVVV", False)])
def test_ventricular_tachycardia_by_five_beats(bpm: float, labels: str, there: bool) -> None:
    assert ("ventricular-tachycardia" in found(beats=beats(bpm, 12, 99.8, "N" * 7 + labels))) is there


@pytest.mark.parametrize(
    ("seen", "there"),
    [({"SINUS": 6.0}, False), ({"VT": 0.2, "SINUS": 5.8}, False), ({"VT": 0.4}, True), ({"VT": 0.2, "VF": 0.2}, True)],
)
def test_a_run_of_ventricular_beats_needs_the_network_to_agree(seen: dict[str, float], there: bool) -> None:
    run = beats(130, 12, 99.8, "N" * 7 + "V" * 5)
    assert ("ventricular-tachycardia" in found(beats=run, rhythm=evidence(99.8, **seen))) is there


@pytest.mark.parametrize(("count", "there"), [(14, False), (15, True)])
def test_a_long_run_of_ventricular_beats_stands_against_the_network(count: int, there: bool) -> None:
    run = beats(120, 18, 99.8, "V" * count)
    assert ("ventricular-tachycardia" in found(beats=run, rhythm=evidence(99.8, SINUS=6.0))) is there


def test_ventricular_beats_with_another_between_are_no_run() -> None:
    assert found(beats=beats(120, 12, 99.8, "VVVNVVVV")) == []


@pytest.mark.parametrize(
    ("bpm", "beat_rate", "seconds", "there"),
    [(None, None, 3.0, True), (None, None, 2.8, False), (130.0, 130, 3.0, True), (80.0, 80, 6.0, False), (80.0, 160, 3.0, True)],
)
def test_ventricular_tachycardia_by_waveform(bpm: float | None, beat_rate: float | None, seconds: float, there: bool) -> None:
    marks = beats(beat_rate, 6, 99.8, "QQQQQQ") if beat_rate else (BeatMark(97.0, "Q"),)
    assert ("ventricular-tachycardia" in found(beats=marks, heart_rate_bpm=bpm, rhythm=evidence(99.8, VT=seconds))) is there


@pytest.mark.parametrize(("bpm", "count", "there"), [(141, 17, True), (141, 16, False), (139, 18, False)])
def test_extreme_tachycardia_over_seventeen_beats(bpm: float, count: int, there: bool) -> None:
    assert ("extreme-tachycardia" in found(beats=beats(bpm, count, 99.8))) is there


@pytest.mark.parametrize(
    ("condition", "marks"),
    [("extreme-tachycardia", beats(137, 18, 99.8)), ("extreme-bradycardia", beats(43, 8, 99.8))],
)
def test_an_extreme_rate_is_harder_to_leave_than_to_reach(condition: str, marks: tuple[BeatMark, ...]) -> None:
    assert found(beats=marks) == []
    assert found(beats=marks, present=frozenset({condition})) == [condition]


def test_what_covers_is_never_less_urgent_and_latches_as_well() -> None:
    for name, others in COVERED_BY.items():
        for about in (PHYSIOLOGICAL[other] for other in others):
            assert about.priority == "high" or PHYSIOLOGICAL[name].priority != "high"
            assert about.latching >= PHYSIOLOGICAL[name].latching


def test_a_fast_run_that_is_over_is_not_found() -> None:
    assert found(beats=beats(160, 18, 97.9)) == []
    assert found(beats=beats(160, 18, 98.1)) == ["extreme-tachycardia"]


@pytest.mark.parametrize(("bpm", "count", "there"), [(39, 5, True), (39, 4, False), (41, 6, False)])
def test_extreme_bradycardia_over_five_beats(bpm: float, count: int, there: bool) -> None:
    marks = beats(75, 5, 99.8 - (count - 1) * 60 / bpm)[:-1] + beats(bpm, count, 99.8)
    assert ("extreme-bradycardia" in found(beats=marks)) is there


def test_a_single_pause_is_no_bradycardia() -> None:
    assert found(beats=(*beats(75, 8, 95.9), BeatMark(99.8, "N"))) == []


def test_an_asystole_that_is_over_is_no_bradycardia() -> None:
    assert found(beats=(*beats(75, 8, 60.0), BeatMark(99.0, "N"), BeatMark(99.8, "N"))) == []
    assert found(beats=(*beats(38, 8, 60.0), BeatMark(99.8, "N"))) == []


def test_the_slowest_rhythm_is_not_found_last() -> None:
    marks = (*beats(75, 8, 91.0), BeatMark(94.0, "N"), BeatMark(97.0, "N"))
    assert found(beats=marks, at_s=98.9) == []
    assert found(beats=marks, at_s=99.0) == ["extreme-bradycardia"]


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
        ("reminder_s", 1e9), ("pause_max_s", 3600.0),
    ],
)  # fmt: skip
def test_a_limit_out_of_bounds_is_refused_with_its_reason(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"alarm\.{key} = .* must be .* to .*: \w+"):
        AlarmConfig(**{key: value})


def test_limits_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"take 10\.4 s"):
        AlarmConfig(extreme_tachy_bpm=110.0, extreme_tachy_beats=20, hr_high_bpm=100.0)
    with pytest.raises(ConfigError, match="the medium alarm comes before the high one"):
        AlarmConfig(hr_high_bpm=150.0)
    with pytest.raises(ConfigError, match="pause_s"):
        AlarmConfig(pause_s=150.0, pause_max_s=60.0)
    with pytest.raises(ConfigError, match="'vt' is not one of"):
        AlarmConfig(disabled=("vt",))
