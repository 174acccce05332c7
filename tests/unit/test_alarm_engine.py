"""The alarm engine on scripted beds: onset to alarm, technical conditions in place of hidden ones, commands, lost devices."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from ecgnat_stream.alarm import AlarmConfig, AlarmEngine, BeatMark, Evidence, Observation
from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.events import Alarm, Command, Technical
from ecgnat_stream.rhythm import RhythmTimeline

TIME = datetime(2026, 1, 1, tzinfo=UTC)
FRAME_S = 0.2
OFF = (("II", "off"),)


class Bed:
    """Feeds an engine frame by frame; monotonic time goes with the stream."""

    def __init__(self, config: AlarmConfig | None = None) -> None:
        self.engine = AlarmEngine("site/unit/bed", config, run="run-1")
        self.frame = 0
        self.last_beat_s = 0.0
        self.beats = 0
        self.events: list[Alarm] = []

    @property
    def at_s(self) -> float:
        return round(self.frame * FRAME_S, 3)

    @property
    def time(self) -> datetime:
        return TIME + timedelta(seconds=self.at_s)

    @property
    def now_ns(self) -> int:
        return round(self.at_s * 1e9)

    def live(
        self,
        seconds: float,
        bpm: float | None,
        beat: str = "N",
        rhythm: str = "SINUS",
        seen_s: float = 6.0,
        usable: bool = True,
        leads: tuple[tuple[str, str], ...] = (),
        score: float | None = None,
    ) -> list[Alarm]:
        """Let the stream run; ``bpm`` None: no beats. ``seen_s`` of the rhythm is in the network's span, once a second.

        Every beat takes its class in turn from ``beat``. Without a network ``rhythm`` is empty.
        """
        new: list[Alarm] = []
        for _ in range(round(seconds / FRAME_S)):
            self.frame += 1
            beats = tuple(BeatMark(at_s, self._class(beat)) for at_s in self._beats(bpm))
            evidence = None
            if rhythm and self.frame % 5 == 0 and usable:
                counted = tuple(seen_s if name == rhythm else 0.0 for name in RHYTHMS)
                evidence = Evidence(label=rhythm, stop_s=self.at_s, seconds=counted)
            observation = Observation(
                at_s=self.at_s,
                beats=beats,
                heart_rate_bpm=bpm,
                usable=usable,
                leads=leads,
                rhythm=evidence,
                fibrillation=score,
            )
            new += self.engine.observe(observation, self.time, self.now_ns)
            new += self.engine.tick(self.now_ns, self.time)
        self.events += new
        return new

    def _beats(self, bpm: float | None) -> Iterator[float]:
        while bpm is not None and self.last_beat_s + 60 / bpm <= self.at_s:
            self.last_beat_s = max(self.last_beat_s + 60 / bpm, self.at_s - FRAME_S)
            yield self.last_beat_s

    def _class(self, beat: str) -> str:
        self.beats += 1
        return beat[self.beats % len(beat)]

    def say(self, action: str, **options: object) -> tuple[bool, str, list[Alarm]]:
        command = Command(bed="", time=self.time, action=action, **options)  # type: ignore[arg-type]
        result, events = self.engine.command(command, self.time, self.now_ns)
        self.events += events
        return result.accepted, result.reason, events


def phases(events: list[Alarm]) -> list[tuple[str, str, str]]:
    return [(event.condition, event.phase, event.presence) for event in events]


@pytest.fixture
def bed() -> Bed:
    bed = Bed()
    assert bed.live(30, 75) == []
    return bed


@pytest.mark.parametrize(
    ("condition", "script"),
    [
        ("asystole", {"bpm": None, "rhythm": "ASYSTOLE", "seen_s": 0.0}),
        ("ventricular-fibrillation", {"bpm": None, "rhythm": "VF", "seen_s": 4.0}),
        ("ventricular-tachycardia", {"bpm": 150, "beat": "V", "rhythm": "VT", "seen_s": 0.0}),
        ("ventricular-tachycardia", {"bpm": 150, "beat": "Q", "rhythm": "VT", "seen_s": 4.0}),
        ("extreme-tachycardia", {"bpm": 142, "rhythm": "SVT"}),
        ("extreme-bradycardia", {"bpm": 38}),
        ("extreme-bradycardia", {"bpm": 20}),
    ],
)
def test_high_alarms_come_within_ten_seconds(bed: Bed, condition: str, script: dict[str, object]) -> None:
    onset_s = bed.at_s
    events = bed.live(12, **script)  # type: ignore[arg-type]
    starts = [event for event in events if event.condition == condition and event.phase == "start"]
    assert len(starts) == 1
    assert starts[0].at_s is not None
    assert starts[0].at_s - onset_s <= 10.0
    assert starts[0].priority == "high"
    assert starts[0].onset_s == pytest.approx(onset_s, abs=4.1)


@pytest.mark.parametrize("condition", ["ventricular-fibrillation", "ventricular-tachycardia"])
def test_from_overlapping_windows_to_the_alarm(condition: str) -> None:
    onset_s, row = 30.0, np.array([0])
    timeline, engine = RhythmTimeline(1), AlarmEngine("site/unit/bed")
    classes = np.array([RHYTHMS.index("SINUS"), RHYTHMS.index("VF" if condition.endswith("fibrillation") else "VT")])
    starts = []
    for frame in range(1, 250):
        at_s, evidence = round(frame * FRAME_S, 3), None
        if frame % 5 == 0 and frame >= 50:
            start = round(at_s * 100) - 1000
            changed = (start / 100 + (np.arange(32) + 0.5) * 0.32 >= onset_s).astype(int)
            probs = np.full((1, 32, len(RHYTHMS)), 0.05, np.float32)
            probs[0, np.arange(32), classes[changed]] = 0.65
            timeline.add(row, np.array([start]), np.array([start + 1000]), probs)
            seconds = timeline.seconds(row, engine.config.rhythm_span_s)[0]
            evidence = Evidence(label=timeline.decide(row).names[0], stop_s=at_s, seconds=tuple(seconds.tolist()))
        beats = (BeatMark(at_s, "N"),) if frame % 4 == 0 and at_s < onset_s else ()
        starts += engine.observe(Observation(at_s=at_s, beats=beats, rhythm=evidence), TIME, 0)
    assert phases(starts)[0] == (condition, "start", "on")
    assert starts[0].at_s is not None
    assert starts[0].at_s - onset_s <= 6.0
    assert starts[0].onset_s == pytest.approx(onset_s, abs=0.7)


def test_a_latched_alarm_survives_the_return_of_sinus_rhythm(bed: Bed) -> None:
    bed.live(10, 75, rhythm="VF", seen_s=5.0)
    assert phases(bed.live(60, 75)) == [("ventricular-fibrillation", "update", "latched")]
    assert bed.say("acknowledge")[0]
    assert bed.engine.active() == []


def test_one_alarm_through_an_asystole_with_escape_beats(bed: Bed) -> None:
    bed.live(6, None, rhythm="UNKNOWN")
    for _ in range(5):
        bed.live(4.8, None, rhythm="UNKNOWN")
        bed.live(0.2, 300, rhythm="UNKNOWN")
    asystole = [event for event in bed.events if event.condition == "asystole"]
    assert phases(asystole) == [("asystole", "start", "on")]


def test_leads_off_in_place_of_asystole(bed: Bed) -> None:
    events = bed.live(20, None, usable=False, leads=OFF)
    assert phases(events) == [("leads-off", "start", "on")]
    assert (events[0].priority, events[0].lead, events[0].kind) == ("medium", "II", "technical")
    assert events[0].at_s is not None
    assert events[0].at_s - 30 <= 2.2
    assert phases(bed.live(10, 75)) == [("leads-off", "end", "off")]


def test_noise_in_place_of_asystole_grows_in_urgency(bed: Bed) -> None:
    events = bed.live(30, None, usable=False, leads=(("II", "noisy"),))
    assert phases(events) == [("noise", "start", "on"), ("noise", "escalate", "on")]
    assert [event.priority for event in events] == ["low", "medium"]


def test_a_line_that_goes_flat_after_a_heartbeat_is_asystole(bed: Bed) -> None:
    events = bed.live(8, None, usable=False, leads=(("II", "flat"),))
    assert ("asystole", "start", "on") in phases(events)


def test_a_line_that_always_was_flat_is_technical() -> None:
    bed = Bed()
    assert phases(bed.live(12, None, usable=False, leads=(("II", "flat"),))) == [("noise", "start", "on")]


def test_a_condition_that_becomes_unverifiable_stays_latched(bed: Bed) -> None:
    bed.live(8, None, rhythm="ASYSTOLE")
    events = bed.live(20, None, usable=False, leads=OFF)
    assert ("asystole", "update", "latched") in phases(events)
    assert [event.condition for event in bed.engine.active()] == ["asystole", "leads-off"]


def test_a_rate_beyond_its_limit_for_long_enough(bed: Bed) -> None:
    assert phases(bed.live(9.8, 130)) == []
    assert phases(bed.live(0.4, 130)) == [("tachycardia", "start", "on")]
    assert phases(bed.live(9.6, 75)) == []
    assert phases(bed.live(0.6, 75)) == [("tachycardia", "end", "off")]
    assert phases(bed.live(11, 45)) == [("bradycardia", "start", "on")]


@pytest.mark.parametrize(
    ("condition", "beyond", "hovering", "back"),
    [("tachycardia", 125, (121, 116), 114), ("bradycardia", 48, (49, 54), 56)],
)
def test_a_rate_that_hovers_around_its_limit_is_one_alarm(
    bed: Bed, condition: str, beyond: float, hovering: tuple[float, float], back: float
) -> None:
    assert phases(bed.live(12, beyond)) == [(condition, "start", "on")]
    for _ in range(10):
        assert bed.live(8, hovering[0]) == []
        assert bed.live(8, hovering[1]) == []
    bed.live(6, back)
    assert bed.live(8, hovering[0]) == []
    assert phases(bed.live(12, back)) == [(condition, "end", "off")]


def test_a_rate_within_the_hysteresis_starts_nothing(bed: Bed) -> None:
    for _ in range(5):
        assert bed.live(8, 125) == []
        assert bed.live(1, 118) == []
    assert bed.live(20, 117) == []


@pytest.mark.parametrize(("condition", "bpm", "within", "back"), [("tachycardia", 150, 137, 130), ("bradycardia", 35, 43, 47)])
def test_an_extreme_rate_must_come_back_by_more_than_it_went(
    bed: Bed, condition: str, bpm: float, within: float, back: float
) -> None:
    extreme = f"extreme-{condition}"
    assert (extreme, "start", "on") in phases(bed.live(25, bpm))
    assert phases(bed.live(60, within)) == []
    assert phases(bed.live(60, back))[:1] == [(extreme, "update", "latched")]
    assert all(event.condition != extreme for event in bed.live(60, within))


def test_a_run_of_ventricular_beats_needs_the_network_or_most_of_seven_seconds(bed: Bed) -> None:
    assert {event.condition for event in bed.live(5.0, 130, beat="V")} == {"ventricular-run", "frequent-pvc"}
    assert phases(bed.live(3.0, 130, beat="V")) == [
        ("ventricular-tachycardia", "start", "on"),
        ("ventricular-run", "end", "off"),
        ("frequent-pvc", "end", "off"),
    ]


def test_a_run_of_ventricular_beats_stands_alone_without_the_network(bed: Bed) -> None:
    starts: dict[str, int] = {}
    for frame in range(1, 30):
        at_s = bed.at_s + frame * FRAME_S
        beats = (BeatMark(at_s - 0.1, "V" if frame > 16 else "N"),) if frame % 2 == 0 else ()
        for event in bed.engine.observe(Observation(at_s=at_s, beats=beats), bed.time, bed.now_ns):
            starts.setdefault(event.condition, frame)
    assert starts == {"extreme-tachycardia": 20, "ventricular-run": 22, "ventricular-tachycardia": 26}


def test_asystole_is_found_where_noise_is_taken_for_beats(bed: Bed) -> None:
    onset_s = bed.at_s
    events = bed.live(10, 70, beat="Q", rhythm="ASYSTOLE", seen_s=0.0)
    assert events == []
    events = bed.live(2, 70, beat="Q", rhythm="ASYSTOLE", seen_s=6.0)
    assert phases(events) == [("asystole", "start", "on")]
    assert events[0].onset_s is not None
    assert events[0].onset_s > onset_s


def test_the_more_urgent_takes_over_and_the_lesser_ends(bed: Bed) -> None:
    bed.live(10, 150, rhythm="SVT")
    assert [event.condition for event in bed.engine.active()] == ["extreme-tachycardia"]
    events = bed.live(6, 150, rhythm="VF", seen_s=5.0)
    assert phases(events) == [("ventricular-fibrillation", "start", "on"), ("extreme-tachycardia", "end", "off")]
    assert bed.live(4, 150, rhythm="SVT") == []
    events = bed.live(6, 150, rhythm="SVT")
    assert phases(events) == [("ventricular-fibrillation", "update", "latched"), ("extreme-tachycardia", "start", "on")]


def test_what_was_latched_before_stays_latched_when_the_more_urgent_begins(bed: Bed) -> None:
    bed.live(10, 150, rhythm="SVT")
    bed.live(30, 75)
    events = bed.live(6, 75, rhythm="VF", seen_s=5.0)
    assert phases(events) == [("ventricular-fibrillation", "start", "on")]
    assert {event.condition: event.presence for event in bed.engine.active()} == {
        "ventricular-fibrillation": "on",
        "extreme-tachycardia": "latched",
    }


def test_asystole_does_not_wait_until_fibrillation_is_off(bed: Bed) -> None:
    bed.live(6, None, rhythm="VF", seen_s=5.0)
    events = bed.live(1.2, None, rhythm="ASYSTOLE", seen_s=3.0)
    assert phases(events) == [("asystole", "start", "on")]


def test_atrial_fibrillation_has_onset_and_end_only(bed: Bed) -> None:
    assert phases(bed.live(60, 90, rhythm="AF")) == [("atrial-fibrillation", "start", "on")]
    assert phases(bed.live(60, 75)) == [("atrial-fibrillation", "end", "off")]


def test_a_stale_opinion_of_the_network_is_not_used(bed: Bed) -> None:
    bed.live(1, 75, rhythm="VF", seen_s=3.0)
    seen = Evidence(label="VF", stop_s=20.0, seconds=tuple(6.0 for _ in RHYTHMS))
    observation = Observation(at_s=bed.at_s + 0.1, heart_rate_bpm=75.0, rhythm=seen)
    assert bed.engine.observe(observation, bed.time, bed.now_ns) == []


def test_a_gap_breaks_runs_and_is_reported(bed: Bed) -> None:
    bed.live(4, 75)
    observation = Observation(at_s=bed.at_s + 20, gap_s=20.0)
    events = bed.engine.observe(observation, bed.time, bed.now_ns)
    assert phases(events) == [("gap", "start", "on")]


def test_an_observation_from_the_past_is_ignored(bed: Bed) -> None:
    old = Observation(at_s=3.0, usable=False, gap_s=9.0)
    assert bed.engine.observe(old, bed.time, bed.now_ns) == []
    assert bed.live(5, 75) == []


def test_a_lost_device_clears_what_cannot_be_verified(bed: Bed) -> None:
    bed.live(10, 150, rhythm="SVT")
    bed.say("acknowledge", condition="tachycardia")
    events = bed.engine.disconnect(bed.time, bed.now_ns, "no samples for 2 s")
    assert phases(events)[0] == ("no-data", "start", "on")
    assert ("extreme-tachycardia", "update", "latched") in phases(events)
    assert [event.condition for event in bed.engine.active()] == ["extreme-tachycardia", "no-data"]
    assert bed.engine.disconnect(bed.time, bed.now_ns, "no samples for 2 s") == []
    assert phases(bed.live(20, 75)) == [("no-data", "end", "off")]


def test_no_data_as_reported_by_a_stage_is_a_disconnection(bed: Bed) -> None:
    bed.live(10, 130)
    lost = Technical(bed="site/unit/bed", time=bed.time, condition="no-data", present=True, detail="stalled")
    assert phases(bed.engine.technical(lost, bed.now_ns)) == [("no-data", "start", "on"), ("tachycardia", "end", "off")]


def test_a_new_stream_begins_at_zero_and_keeps_what_is_latched(bed: Bed) -> None:
    bed.live(10, None, rhythm="ASYSTOLE")
    assert phases(bed.engine.begin(bed.time, bed.now_ns)) == [("asystole", "update", "latched")]
    bed.frame, bed.last_beat_s = 0, 0.0
    assert bed.live(10, 75) == []
    accepted, _, events = bed.say("reset")
    assert accepted
    assert phases(events) == [("asystole", "reset", "off")]
    assert [(event.condition, event.sequence) for event in bed.events] == [
        ("pause", 1), ("asystole", 2), ("pause", 3), ("asystole", 5),
    ]  # fmt: skip
    assert events[0].alarm_id == "site/unit/bed:run-1:2"
    assert events[0].event_id == "site/unit/bed:run-1:5"


def test_closing_a_bed_ends_everything(bed: Bed) -> None:
    bed.live(10, None, rhythm="ASYSTOLE")
    assert phases(bed.engine.close(bed.time, bed.now_ns)) == [("asystole", "end", "off")]
    assert bed.engine.active() == []


def test_a_stage_reports_a_beginning_and_an_end() -> None:
    engine = AlarmEngine("")
    lost = Technical(bed="", time=TIME, condition="broker-lost", present=True, detail="localhost:1883")
    assert phases(engine.technical(lost, 0)) == [("broker-lost", "start", "on")]
    assert engine.technical(lost, 1) == []
    back = Technical(bed="", time=TIME, condition="broker-lost", present=False)
    assert phases(engine.technical(back, 2)) == [("broker-lost", "end", "off")]
    assert engine.technical(back, 3) == []


def test_a_momentary_condition_ends_by_itself() -> None:
    engine = AlarmEngine("site/unit/bed")
    jump = Technical(bed="site/unit/bed", time=TIME, condition="clock-jump", present=True, detail="3 s")
    assert phases(engine.technical(jump, 0)) == [("clock-jump", "start", "on")]
    assert engine.tick(9_900_000_000, TIME) == []
    assert phases(engine.tick(10_000_000_000, TIME)) == [("clock-jump", "end", "off")]


def test_a_condition_of_the_heart_cannot_be_reported_as_technical() -> None:
    event = Technical(bed="", time=TIME, condition="asystole", present=False)
    with pytest.raises(ValueError, match="asystole is a physiological condition"):
        AlarmEngine("").technical(event, 0)


def test_commands_answer_with_the_reason_and_the_correlation(bed: Bed) -> None:
    for action, reason in [("acknowledge", "nothing"), ("pause", "in advance"), ("resume", "nothing"), ("reset", "latched")]:
        accepted, why, events = bed.say(action)
        assert not accepted
        assert reason in why
        assert events == []
    for action in ("acknowledge", "pause", "resume", "reset"):
        refused = (False, "unknown condition 'vf': did you mean ventricular-fibrillation?", [])
        assert bed.say(action, condition="vf") == refused
    assert "asystole: no such alarm" in bed.say("acknowledge", condition="asystole")[1]
    bed.live(10, 130)
    assert "longer than the 180 s allowed" in bed.say("pause", duration_s=600.0)[1]
    command = Command(bed="", time=TIME, action="pause", source="nurse", correlation="7")
    result, events = bed.engine.command(command, TIME, bed.now_ns)
    assert (result.accepted, result.bed, result.source, result.correlation) == (True, "site/unit/bed", "nurse", "7")
    assert events[0].paused_until == TIME + timedelta(seconds=120)
    assert "not reset" in bed.say("reset")[1]


def test_a_reminder_comes_after_two_to_three_minutes(bed: Bed) -> None:
    bed.live(10, 130)
    bed.say("acknowledge")
    begun_s = bed.at_s
    events = bed.live(200, 130)
    assert phases(events) == [("tachycardia", "continue", "on")]
    assert events[0].at_s is not None
    assert 120 <= events[0].at_s - begun_s <= 180


def test_the_most_urgent_says_it_alone(bed: Bed) -> None:
    events = bed.live(15, 220, beat="V", rhythm="VF", seen_s=5.0)
    assert [event.condition for event in events if event.phase == "start"] == ["ventricular-run", "ventricular-fibrillation"]
    assert [event.condition for event in bed.engine.active()] == ["ventricular-fibrillation"]


@pytest.fixture
def alone() -> Bed:
    """Return a bed without a network."""
    bed = Bed()
    assert bed.live(30, 75, rhythm="", score=0.02) == []
    return bed


@pytest.mark.parametrize(
    ("condition", "script"),
    [
        ("asystole", {"bpm": None, "score": 0.0}),
        ("asystole", {"bpm": None}),
        ("ventricular-tachycardia", {"bpm": 150, "beat": "V", "score": 0.3}),
        ("ventricular-tachycardia", {"bpm": 150, "beat": "V"}),
        ("extreme-tachycardia", {"bpm": 142}),
        ("extreme-bradycardia", {"bpm": 38}),
    ],
)
def test_without_the_network_high_alarms_come_within_ten_seconds(alone: Bed, condition: str, script: dict[str, object]) -> None:
    onset_s = alone.at_s
    starts = [event for event in alone.live(12, rhythm="", **script) if event.phase == "start"]  # type: ignore[arg-type]
    found = [event for event in starts if event.condition == condition]
    assert len(found) == 1
    assert found[0].at_s is not None
    assert found[0].at_s - onset_s <= 10.0


@pytest.mark.parametrize("vf_s", [3.0, 4.0, 6.0])
@pytest.mark.parametrize("bpm", [None, 180.0])
def test_without_the_network_fibrillation_comes_within_ten_seconds(vf_s: float, bpm: float | None) -> None:
    bed = Bed(AlarmConfig(vf_s=vf_s))
    bed.live(30, 75, rhythm="", score=0.02)
    onset_s, events = bed.at_s, []
    for frame in range(60):
        events += bed.live(FRAME_S, bpm, beat="Q", rhythm="", score=min(1.0, frame / 20))
    starts = [event for event in events if event.condition == "ventricular-fibrillation" and event.phase == "start"]
    assert len(starts) == 1
    assert starts[0].at_s is not None
    assert starts[0].at_s - onset_s <= 10.0
    assert starts[0].onset_s == pytest.approx(onset_s, abs=1.0)
    assert next(event.condition for event in bed.engine.active() if event.presence == "on") == "ventricular-fibrillation"


def test_a_network_that_falls_silent_leaves_fibrillation_to_the_detector(bed: Bed) -> None:
    assert bed.live(2, 110, beat="Q", rhythm="", score=0.9) == []
    assert ("ventricular-fibrillation", "start", "on") in phases(bed.live(3, 110, beat="Q", rhythm="", score=0.9))


def test_fibrillation_seen_among_plain_beats_with_the_detector_against_it(bed: Bed) -> None:
    bed.live(6, 75, score=0.02)
    assert bed.live(20, 75, rhythm="VF", seen_s=6.0, score=0.02) == []
    assert phases(bed.live(4, 75, rhythm="VF", seen_s=6.0, score=0.6)) == [("ventricular-fibrillation", "start", "on")]


@pytest.mark.parametrize(
    ("condition", "beat"),
    [
        ("ventricular-pair", "VVNNNNNN"), ("ventricular-bigeminy", "VN"), ("ventricular-trigeminy", "VNN"),
        ("frequent-pvc", "VNNN"), ("ventricular-run", "VVVNNNNN"),
    ],
)  # fmt: skip
def test_what_goes_on_is_one_alarm_per_stretch(bed: Bed, condition: str, beat: str) -> None:
    about = [phase for phase in phases(bed.live(600, 70, beat=beat)) if phase[0] == condition]
    assert about == [(condition, "start", "on")]
    assert (condition, "end", "off") in phases(bed.live(130, 70))


def test_what_is_low_stays_away_for_a_minute_after_what_was_more_urgent(bed: Bed) -> None:
    bed.live(60, 70, beat="VNNN")
    bed.live(8, 150, beat="V", rhythm="VT", seen_s=6.0)
    bed.live(300, 70, beat="VNNN")
    low = [(event.phase, event.at_s) for event in bed.events if event.condition == "frequent-pvc"]
    tachycardia = [
        event.at_s for event in bed.events if (event.condition, event.presence) == ("ventricular-tachycardia", "latched")
    ]
    assert [phase for phase, _ in low] == ["start", "end", "start"]
    assert tachycardia[0] is not None
    assert low[2][1] == pytest.approx(tachycardia[0] + 60, abs=1.0)


def test_an_event_is_shown_for_its_time(bed: Bed) -> None:
    started = bed.live(2.4, 75, beat="V") + bed.live(1.6, 75)
    assert phases(started) == [("ventricular-run", "start", "on")]
    ended = bed.live(60, 75)
    assert phases(ended) == [("ventricular-run", "end", "off")]
    assert ended[0].at_s is not None
    assert ended[0].at_s - 32.4 == pytest.approx(30.0, abs=0.4)


def test_a_silence_grows_from_a_pause_to_asystole(bed: Bed) -> None:
    assert phases(bed.live(8, None, rhythm="")) == [
        ("pause", "start", "on"),
        ("asystole", "start", "on"),
        ("pause", "end", "off"),
    ]


def test_a_restart_of_the_process_loses_nothing(bed: Bed) -> None:
    bed.live(10, 150, rhythm="SVT")
    bed.live(10, 150, rhythm="VF", seen_s=6.0)
    after = AlarmEngine("site/unit/bed")
    events = after.restore(bed.events, TIME, 0, sequence=len(bed.events))
    assert phases(events) == [("ventricular-fibrillation", "update", "latched")]
    assert [event.sequence for event in bed.events + events] == list(range(1, len(bed.events) + 2))
    bed.engine, bed.frame, bed.last_beat_s = after, 0, 0.0
    assert phases(after.begin(TIME, 0)) == []
    again = bed.live(10, 75, rhythm="VF", seen_s=6.0)
    assert phases(again) == [("ventricular-fibrillation", "update", "on")]
    assert again[0].alarm_id == events[0].alarm_id


def test_what_a_person_did_is_said_with_the_source(bed: Bed) -> None:
    bed.live(10, None, rhythm="ASYSTOLE")
    for action in ("pause", "resume", "acknowledge"):
        events = bed.say(action, condition="asystole", source="ward/nurse")[2]
        assert [event.by for event in events] == ["ward/nurse"]


def test_no_data_stays_until_the_heart_is_seen_or_something_says_why_not() -> None:
    engine = AlarmEngine("home/icu/1")
    engine.disconnect(TIME, 0, "unplugged")

    def on(at_s: float, usable: bool) -> set[str]:
        leads = () if usable else (("II", "noisy"),)
        for k in range(5):
            engine.observe(Observation(at_s=at_s + 0.2 * k, usable=usable, leads=leads), TIME, 0)
        return {alarm.condition for alarm in engine.active()}

    engine.begin(TIME, 0)
    assert on(1.0, usable=False) == {"no-data"}
    assert on(2.0, usable=False) == {"no-data"}
    assert on(4.2, usable=False) == {"noise"}, "one takes over from the other"
    engine.disconnect(TIME, 0, "unplugged")
    assert on(9.0, usable=True) == set()


def test_a_heart_that_stops_is_found_where_a_block_is_lost_now_and_then() -> None:
    bed = Bed()
    bed.live(20, 70)
    onset_s = bed.at_s
    for _ in range(10):
        bed.live(1.8, None, rhythm="")
        bed.frame += 1
        lost = Observation(at_s=bed.at_s, usable=False, leads=(("II", "missing"),), gap_s=0.1)
        bed.events += bed.engine.observe(lost, bed.time, bed.now_ns)
    found = [event.at_s for event in bed.events if event.condition == "asystole" and event.phase == "start"]
    assert found and found[0] is not None and found[0] - onset_s < 6.0
    assert [event.presence for event in bed.engine.active() if event.condition == "asystole"] == ["on"]


@pytest.mark.parametrize(("bad_s", "good_s"), [(2.8, 0.2), (1.4, 2.6), (2.0, 1.0)])
def test_a_signal_that_breaks_off_too_often_to_be_judged_is_told(bad_s: float, good_s: float) -> None:
    bed = Bed()
    bed.live(20, 70)
    begun_s = bed.at_s
    while bed.at_s < begun_s + 40:
        bed.live(bad_s, None, rhythm="", usable=False, leads=(("II", "noisy"),))
        bed.live(good_s, None, rhythm="")
    said = [(event.phase, event.priority, event.at_s) for event in bed.events if event.condition == "noise"]
    assert [(phase, priority) for phase, priority, _ in said] == [("start", "low"), ("escalate", "medium")]
    assert said[0][2] is not None and said[0][2] - begun_s < 12.0
    bed.live(10, 70)
    assert not [event for event in bed.engine.active() if event.condition == "noise"]


def test_breaks_that_leave_room_for_the_rules_are_not_told() -> None:
    bed = Bed()
    bed.live(20, 70)
    for _ in range(10):
        bed.live(2.0, None, rhythm="", usable=False, leads=(("II", "noisy"),))
        bed.live(6.0, 70)
    assert not [event for event in bed.events if event.condition == "noise"]


def test_no_silence_of_a_technical_alarm_covers_another_receiver_that_fails() -> None:
    engine = AlarmEngine("")

    def stuck(name: str, *, present: bool = True) -> list[Alarm]:
        detail = f"{name}: 3 alarm events waiting" if present else ""
        return engine.technical(
            Technical(bed="", time=TIME, condition="sink-stuck", present=present, detail=detail, source=name), 0
        )

    stuck("mqtt")
    engine.command(Command(bed="", time=TIME, action="acknowledge", source="nurse"), TIME, 0)
    assert [event.presence for event in engine.active()] == ["acknowledged"]
    assert [(event.phase, event.presence) for event in stuck("history")] == [("update", "on")]
    engine.command(Command(bed="", time=TIME, action="pause", source="nurse"), TIME, 0)
    assert [event.inactivation for event in stuck("zmq")] == ["none"]
    assert [event.presence for event in stuck("mqtt", present=False)] == ["on"]
    stuck("history", present=False)
    assert [event.presence for event in stuck("zmq", present=False)] == ["off"]
