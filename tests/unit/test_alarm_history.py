"""The past of one bed: what is remembered for how long, and what a break does to it."""

from __future__ import annotations

import pytest

from ecgnat_stream.alarm import BeatMark, Evidence, Observation, pvc_per_min
from ecgnat_stream.alarm.config import AlarmConfig
from ecgnat_stream.alarm.history import Past
from ecgnat_stream.alarm.picture import Picture

FRAME_S = 0.2


def play(*stretches: tuple[float, dict[str, object]]) -> Picture:
    """Return the picture after stretches of so many seconds; ``beat`` is the class of a beat every 0.8 s."""
    history, frame, picture = Past(AlarmConfig()), 0, None
    for length_s, about in stretches:
        given = dict(about)
        beat, gap_s = given.pop("beat", None), float(given.pop("gap_s", 0.0))  # type: ignore[arg-type]
        frame += round(gap_s / FRAME_S)
        for _ in range(round(length_s / FRAME_S)):
            frame += 1
            at_s = round(frame * FRAME_S, 3)
            marks = (BeatMark(at_s - 0.1, str(beat)),) if beat and frame % 4 == 0 else ()
            observation = Observation(at_s=at_s, beats=marks, gap_s=gap_s, **given)  # type: ignore[arg-type]
            picture = history.picture(observation, at_s - FRAME_S)
            gap_s = 0.0
    assert picture is not None
    return picture


def test_beats_are_kept_for_a_minute() -> None:
    picture = play((200.0, {"beat": "N"}))
    assert len(picture.beats) == 75
    assert picture.beats[0].at_s > 200.0 - 60.8


def test_ventricular_beats_are_counted_over_a_minute_and_across_a_break() -> None:
    assert play((20.0, {"beat": "V"})).pvc_per_min == 25
    assert play((20.0, {"beat": "V"}), (2.0, {"usable": False})).pvc_per_min == 25
    after = play((20.0, {"beat": "V"}), (8.0, {"beat": "V", "gap_s": 4.0}))
    assert (after.pvc_per_min, len(after.beats)) == (35, 10)
    assert play((20.0, {"beat": "V"}), (2.0, {"usable": False}), (50.0, {"beat": "N"})).pvc_per_min == 10


def test_the_count_is_of_the_last_minute() -> None:
    marks = [BeatMark(float(k), "V" if k % 2 else "N") for k in range(100)]
    assert pvc_per_min(marks, 99.0) == 30
    assert pvc_per_min(marks, 161.0) == 0
    assert pvc_per_min([], 10.0) == 0


def test_fibrillation_scores_are_averaged_over_three_seconds() -> None:
    assert play((3.0, {"fibrillation": 0.9})).fibrillation == pytest.approx(0.9)
    assert play((20.0, {"fibrillation": 0.9}), (2.0, {"fibrillation": 0.3})).fibrillation == pytest.approx(0.5)


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_a_frame_without_a_score_counts_as_none(nothing: float | None) -> None:
    assert play((1.0, {"fibrillation": 0.9})).fibrillation == pytest.approx(0.3)
    assert play((20.0, {"fibrillation": 0.9}), (2.8, {"fibrillation": nothing})).fibrillation == pytest.approx(0.06)
    assert play((20.0, {"fibrillation": 0.9}), (3.0, {"fibrillation": nothing})).fibrillation is None


def test_every_unusable_frame_is_noted_and_a_long_stretch_is_a_break() -> None:
    brief = play((10.0, {"beat": "N"}), (0.8, {"usable": False}), (2.0, {}))
    assert (brief.since_s, brief.clear_since_s) == (0.0, 10.8)
    assert len(brief.beats) == 12
    long = play((10.0, {"beat": "N"}), (1.4, {"usable": False}), (2.0, {}))
    assert (long.since_s, long.beats) == (11.4, ())


def test_a_network_that_gives_no_number_has_no_opinion() -> None:
    said = Evidence(label="UNKNOWN", stop_s=1.0, seconds=(0.0,) * 8)
    assert play((1.0, {"rhythm": said})).rhythm is None


def test_a_high_score_is_timed_without_a_break() -> None:
    assert play((20.0, {"fibrillation": 0.6})).fibrillation_since_s is None
    since_s = play((10.0, {"fibrillation": 0.1}), (10.0, {"fibrillation": 0.9})).fibrillation_since_s
    assert since_s == pytest.approx(12.2)
    assert play((10.0, {"fibrillation": 0.9}), (2.0, {"fibrillation": 0.1})).fibrillation_since_s is None
    assert play((10.0, {"fibrillation": 0.9}), (5.0, {"fibrillation": None})).fibrillation_since_s is None
