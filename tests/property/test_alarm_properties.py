"""What must hold for the alarms of any bed, whatever happens to it in whatever order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgnat_stream.alarm import CALM_SCORE, PHYSIOLOGICAL, TECHNICAL, AlarmConfig, AlarmEngine, BeatMark, Evidence, Observation
from ecgnat_stream.alarm.picture import COVERED_BY
from ecgnat_stream.codes import RHYTHMS, URGENCY
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.events import Alarm, Command, Technical

TIME = datetime(2026, 1, 1, tzinfo=UTC)

CONFIG = AlarmConfig(asystole_s=3.0, vt_beats=3, extreme_tachy_beats=5, extreme_brady_beats=3, off_delay_s=2.0, af_delay_s=5.0)

Step = tuple[str, object]

stretches = st.tuples(
    st.just("stretch"),
    st.fixed_dictionaries(
        {
            "seconds": st.integers(1, 12),
            "bpm": st.sampled_from([None, 20.0, 38.0, 45.0, 75.0, 130.0, 160.0, 220.0]),
            "beat": st.sampled_from(["N", "N", "V", "VN", "VNN", "VVNN", "VVVN", "S", "Q"]),
            "rhythm": st.sampled_from([*RHYTHMS, "UNKNOWN", None, None]),
            "score": st.sampled_from([None, None, 0.0, 0.4, 0.9, float("nan")]),
            "usable": st.sampled_from([True, True, True, False]),
            "leads": st.sampled_from([(), (("II", "noisy"),), (("II", "flat"),), (("II", "off"),), (("II", "missing"),)]),
            "gap_s": st.sampled_from([0.0, 0.0, 0.0, 2.0]),
        }
    ),
)
commands = st.tuples(
    st.just("command"),
    st.tuples(
        st.sampled_from(["acknowledge", "pause", "resume", "reset"]),
        st.sampled_from([None, "asystole", "ventricular-fibrillation", "noise", "no-data"]),
        st.sampled_from([None, 30.0, 600.0]),
    ),
)
reports = st.tuples(st.just("report"), st.tuples(st.sampled_from([*TECHNICAL, "fan-stopped"]), st.booleans()))
others = st.tuples(st.sampled_from(["disconnect", "session", "restart", "wait"]), st.integers(1, 200))
stories = st.lists(st.one_of(stretches, stretches, commands, reports, others), max_size=25)
relaxed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Story:
    """Plays steps to one engine; ``on_frame`` is called between frames, ``pace`` is wall-clock time per stream time."""

    def __init__(self, on_frame: Callable[[Story], list[Alarm]] | None = None, pace: float = 1.0) -> None:
        self.engine = AlarmEngine("site/unit/bed", CONFIG, run="run-1")
        self.pace = pace
        self.frame = 0
        self.now_ns = 0
        self.events: list[Alarm] = []
        self.on_frame = on_frame

    @property
    def time(self) -> datetime:
        return TIME + timedelta(microseconds=self.now_ns // 1000)

    def play(self, steps: list[Step]) -> list[Alarm]:
        for step in steps:
            self.tell(step)
        return self.events

    def tell(self, step: Step) -> list[Alarm]:
        name, value = step
        events: list[Alarm] = getattr(self, f"_{name}")(value)
        self.events += events
        return events

    def _stretch(self, about: dict[str, object]) -> list[Alarm]:
        events: list[Alarm] = []
        bpm, leads, gap_s = about["bpm"], about["leads"], float(about["gap_s"])  # type: ignore[arg-type]
        self.frame += round(gap_s / 0.2)
        every = max(1, round(300 / bpm)) if bpm else 0  # type: ignore[operator]
        for _ in range(5 * int(about["seconds"])):  # type: ignore[call-overload]
            self.frame += 1
            self.now_ns += round(200_000_000 * self.pace)
            at_s = self.frame * 0.2
            seen = tuple(6.0 if name == about["rhythm"] else 0.0 for name in RHYTHMS)
            new = about["rhythm"] is not None and self.frame % 5 == 0
            evidence = Evidence(label=str(about["rhythm"]), stop_s=at_s, seconds=seen) if new else None
            pattern = str(about["beat"])
            label = pattern[(self.frame // max(every, 1)) % len(pattern)]
            beats = (BeatMark(at_s - 0.1, label),) if every and self.frame % every == 0 else ()
            observation = Observation(
                at_s=at_s,
                beats=beats,
                heart_rate_bpm=bpm,  # type: ignore[arg-type]
                usable=bool(about["usable"]),
                leads=leads,  # type: ignore[arg-type]
                rhythm=evidence,
                gap_s=gap_s,
                fibrillation=about["score"],  # type: ignore[arg-type]
            )
            gap_s = 0.0
            events += self.observe(observation)
            if self.on_frame:
                events += self.on_frame(self)
        return events

    def observe(self, observation: Observation) -> list[Alarm]:
        return self.engine.observe(observation, self.time, self.now_ns)

    def _command(self, about: tuple[str, str | None, float | None]) -> list[Alarm]:
        action, condition, duration_s = about
        command = Command(
            bed="",
            time=self.time,
            action=action,  # type: ignore[arg-type]
            condition=condition,
            duration_s=duration_s,
            source="nurse",
        )
        result, events = self.engine.command(command, self.time, self.now_ns)
        assert {event.by for event in events} <= {"nurse"}
        assert result.accepted == bool(events)
        assert result.accepted == (result.reason == "")
        return events

    def _report(self, about: tuple[str, bool]) -> list[Alarm]:
        condition, present = about
        return self.engine.technical(Technical(bed="", time=self.time, condition=condition, present=present), self.now_ns)

    def _disconnect(self, _: int) -> list[Alarm]:
        return self.engine.disconnect(self.time, self.now_ns)

    def _session(self, _: int) -> list[Alarm]:
        self.frame = 0
        return self.engine.begin(self.time, self.now_ns)

    def _restart(self, some: int) -> list[Alarm]:
        self.engine = AlarmEngine("site/unit/bed", CONFIG, run="run-1")
        self.frame = 0
        if some % 2:
            return self.engine.restore(self.events, self.time, self.now_ns)
        last = {event.condition: event for event in self.events}
        unfinished = [event for event in last.values() if event.presence != "off"]
        return self.engine.restore(unfinished, self.time, self.now_ns, len(self.events))

    def _wait(self, seconds: int) -> list[Alarm]:
        self.now_ns += seconds * 1_000_000_000
        return self.engine.tick(self.now_ns, self.time)


class Passing(Story):
    """A story whose engine is not shown the frames in which nothing happens, see ``AlarmEngine.calm_until_s``."""

    passed = 0
    leads: tuple[tuple[str, str], ...] | None = None

    def observe(self, observation: Observation) -> list[Alarm]:
        engine, rhythm, score = self.engine, observation.rhythm, observation.fibrillation
        bpm = observation.heart_rate_bpm
        score = None if score is None or np.isnan(score) else score
        calm = (
            not observation.beats
            and observation.usable
            and observation.leads == self.leads
            and not observation.gap_s
            and (bpm is None or CONFIG.hr_low_bpm <= bpm <= CONFIG.hr_high_bpm)
            and (score is None or score <= CALM_SCORE)
        )
        self.leads = observation.leads
        calm = calm and observation.at_s < engine.calm_until_s
        if not calm or (rhythm is not None and not engine.takes_calmly(rhythm, observation.at_s)):
            return super().observe(observation)
        self.passed += 1
        engine.pass_over(observation.at_s, (score,), rhythm)
        return []


@relaxed
@given(stories)
def test_numbers_have_no_gaps_and_identifiers_never_repeat(steps: list[Step]) -> None:
    events = Story().play(steps)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert len({event.event_id for event in events}) == len(events)


@relaxed
@given(stories)
def test_every_alarm_starts_once_ends_at_most_once_and_says_nothing_outside(steps: list[Step]) -> None:
    story = Story()
    alive: dict[str, Alarm] = {}
    for event in story.play(steps):
        if event.phase == "start":
            assert event.alarm_id == event.event_id
            assert event.condition not in alive
            alive[event.condition] = event
            continue
        assert alive[event.condition].alarm_id == event.alarm_id
        if event.phase in ("end", "reset"):
            assert (event.presence, event.inactivation) == ("off", "none")
            del alive[event.condition]
        else:
            assert event.presence != "off"
            alive[event.condition] = event
    assert {event.event_id for event in story.engine.active()} == {event.event_id for event in alive.values()}
    closing = story.engine.close(story.time, story.now_ns)
    assert {event.alarm_id for event in closing} == {event.alarm_id for event in alive.values()}
    assert {event.phase for event in closing} <= {"end"}
    assert story.engine.active() == []


@relaxed
@given(stories)
def test_high_is_never_lowered_hidden_or_listed_after_lower(steps: list[Step]) -> None:
    story = Story()
    before: dict[str, Alarm] = {}
    for event in story.play(steps):
        last = before.get(event.alarm_id)
        if last is not None and last.priority == "high":
            assert event.priority == "high"
        if last is not None and event.phase not in ("end", "reset"):
            rise = URGENCY[event.priority] - URGENCY[last.priority]
            assert (event.phase == "escalate") == (rise > 0)
            assert (event.phase == "de-escalate") == (rise < 0)
            if rise > 0:
                assert event.inactivation == "none"
        before[event.alarm_id] = event
    ranks = [URGENCY[event.priority] for event in story.engine.active()]
    assert ranks == sorted(ranks, reverse=True)


@relaxed
@given(stories)
def test_a_latching_alarm_never_ends_without_a_person_or_a_more_urgent_one(steps: list[Step]) -> None:
    latching = {name for name, about in PHYSIOLOGICAL.items() if about.latching}
    story = Story()
    presence: dict[str, str] = {}
    for step in steps:
        for event in story.tell(step):
            if event.condition not in latching:
                continue
            before = presence.get(event.condition)
            if event.phase in ("end", "reset") and step[0] != "command" and before != "acknowledged":
                assert before == "on"
                assert {presence.get(other) for other in COVERED_BY.get(event.condition, ())} & {"on", "acknowledged"}
            presence[event.condition] = event.presence


@relaxed
@given(stories)
def test_a_new_alarm_is_heard_whatever_was_silenced(steps: list[Step]) -> None:
    for event in Story().play(steps):
        if event.phase in ("start", "escalate", "continue"):
            assert event.inactivation == "none"
            assert event.presence in ("on", "latched")
        assert (event.paused_until is not None) == (event.inactivation == "audio-paused")
        assert (event.presence == "acknowledged") == (event.inactivation == "acknowledged")


@relaxed
@given(stories)
def test_silence_ends_in_time(steps: list[Step]) -> None:
    story = Story()
    story.play(steps)
    silent = [event.alarm_id for event in story.engine.active() if event.inactivation != "none"]
    heard = story._wait(180)
    assert {event.alarm_id for event in heard if event.phase in ("continue", "end")} >= set(silent)
    assert all(event.inactivation == "none" for event in story.engine.active())


def _there(story: Story) -> dict[str, Alarm]:
    """Return what is present, acknowledged or not."""
    return {event.condition: event for event in story.engine.active() if event.presence in ("on", "acknowledged")}


@relaxed
@given(stories)
def test_a_lost_device_leaves_a_technical_alarm_and_nothing_of_the_heart_present(steps: list[Step]) -> None:
    story = Story()
    story.play(steps)
    story.tell(("disconnect", 1))
    there = _there(story)
    assert "no-data" in there
    assert all(event.kind == "technical" for event in there.values())


@relaxed
@given(stories, st.sampled_from(["noisy", "off", "missing", "flat"]))
def test_a_signal_that_cannot_be_judged_leaves_a_technical_alarm(steps: list[Step], state: str) -> None:
    story = Story()
    story.play(steps)
    blind = {"seconds": 6, "bpm": None, "beat": "N", "rhythm": None, "score": None, "usable": False, "gap_s": 0.0}
    story.tell(("stretch", blind | {"leads": (("II", state), ("V1", state))}))
    assert set(_there(story)) & {"leads-off", "noise", "signal-missing"}


@relaxed
@given(stories, st.sampled_from([None, 120.0]))
def test_high_alarms_need_no_network(steps: list[Step], bpm: float | None) -> None:
    blind: dict[str, object] = {"beat": "V", "rhythm": None, "score": None, "usable": True, "leads": (), "gap_s": 0.0}
    story = Story()
    story.play([(name, about | {"rhythm": None} if name == "stretch" else about) for name, about in steps])  # type: ignore[operator]
    story.tell(("stretch", blind | {"seconds": 12, "bpm": bpm}))
    assert ("asystole" if bpm is None else "ventricular-tachycardia") in _there(story)
    story.tell(("stretch", blind | {"seconds": 6, "bpm": bpm, "score": 0.9}))
    assert "ventricular-fibrillation" in _there(story)


@relaxed
@given(stories)
def test_what_speaks_for_another_condition_speaks_alone(steps: list[Step]) -> None:
    story = Story()
    for step in steps:
        story.tell(step)
        there = _there(story)
        for name in set(there) - {"asystole"}:
            assert not set(COVERED_BY.get(name, ())) & set(there)


@given(st.sets(st.sampled_from(sorted(PHYSIOLOGICAL)), min_size=1))
def test_only_what_is_not_of_high_priority_can_be_switched_off(names: set[str]) -> None:
    high = [name for name in names if PHYSIOLOGICAL[name].priority == "high"]
    if high:
        with pytest.raises(ConfigError, match="cannot be switched off"):
            AlarmConfig(disabled=tuple(sorted(names)))
    else:
        assert AlarmConfig(disabled=tuple(sorted(names))).disabled == tuple(sorted(names))


@relaxed
@given(stories)
def test_a_restart_forgets_no_latched_alarm(steps: list[Step]) -> None:
    story = Story()
    story.play(steps)
    present = {name for name, event in _there(story).items() if event.presence == "on"}
    latching = {name for name in present if name in PHYSIOLOGICAL and PHYSIOLOGICAL[name].latching}
    latched = {event.condition: event.alarm_id for event in story.engine.active() if event.presence == "latched"}
    story.tell(("restart", 1))
    after = {event.condition: event.alarm_id for event in story.engine.active()}
    assert set(after) == latching | set(latched)
    assert all(after[name] == alarm_id for name, alarm_id in latched.items())


@relaxed
@given(st.lists(stretches, max_size=15), st.integers(1, 7), st.floats(0.0, 40.0))
def test_alarms_depend_neither_on_ticks_between_nor_on_speed(steps: list[Step], every: int, pace: float) -> None:
    def decided(events: list[Alarm]) -> list[Alarm]:
        return [msgspec.structs.replace(event, time=TIME) for event in events]

    def tick(story: Story) -> list[Alarm]:
        story.now_ns += 3_000_000
        return story.engine.tick(story.now_ns, story.time) if story.frame % every == 0 else []

    assert decided(Story().play(steps)) == decided(Story(tick, pace).play(steps))


@given(stories)
@relaxed
def test_frames_that_are_passed_over_change_nothing(steps: list[Step]) -> None:
    assert Passing().play(steps) == Story().play(steps)


def test_between_the_beats_of_a_normal_rhythm_frames_are_passed_over() -> None:
    calm = {"seconds": 60, "bpm": 75.0, "beat": "N", "rhythm": "SINUS", "score": 0.0, "usable": True, "leads": (), "gap_s": 0.0}
    story = Passing()
    assert story.play([("stretch", calm)]) == []
    assert story.passed > 0.6 * story.frame
