"""A bed: moments go to the alarm engine in order, each after its prediction; time, gaps and lead-off by sample index."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
import pytest

from ecgnat_stream.alarm import AlarmConfig, Evidence
from ecgnat_stream.bus import Published
from ecgnat_stream.clock import ManualClock, run_id
from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.device import LinkState
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.events import Alarm, DeviceStatus, Meta, Vitals, Wave
from ecgnat_stream.signal import LEADS, SampleBlock, StreamInfo
from ecgnat_stream.ward.bed import Bed, Moment
from ecgnat_stream.ward.streams import Streams

VF = Evidence(label="VF", stop_s=0.0, seconds=tuple(6.0 if name == "VF" else 0.0 for name in RHYTHMS))


class Desk:
    """A bed, its clock and everything it has published."""

    def __init__(
        self, *, live: bool = True, leads: tuple[str, ...] = ("MLII", "V1"), lead_map: dict[str, str] | None = None
    ) -> None:
        self.clock = ManualClock()
        self.said: list[Published] = []
        self.bed = Bed("site/unit/bed", lead_map or {}, AlarmConfig(), self.clock, self.said.append)
        self.bed.begin(StreamInfo(fs=250.0, leads=leads, device="test", live=live))

    def moment(self, frame: int, due_stop: int | None = None) -> None:
        at_s = (frame + 1) * 0.2
        leads: tuple[tuple[str, str], ...] = ()
        self.bed.add(Moment(at_s, self.bed.time_of(at_s), (), None, True, None, leads, 0.0, due_stop, self.clock.monotonic_ns()))

    def of(self, kind: type) -> list[Published]:
        return [event for event in self.said if isinstance(event, kind)]


def block(start: int, stop: int, t_ns: int = 0, off: frozenset[str] = frozenset()) -> SampleBlock:
    return SampleBlock(start, np.full((2, stop - start), 0.5, np.float32), t_ns, off)


def test_meta_says_what_each_lead_is_taken_for() -> None:
    desk = Desk(leads=("MLII", "RESP"))
    (meta,) = desk.of(Meta)
    assert isinstance(meta, Meta)
    assert meta.used_as == ("II", None)
    assert desk.bed.leads == ("II",)


def test_unknown_leads_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="unknown lead name 'X9'"):
        Desk(leads=("X9",))
    assert Desk(leads=("X9",), lead_map={"X9": "V5"}).bed.leads == ("V5",)


def test_samples_are_put_into_their_leads() -> None:
    desk = Desk()
    leads = desk.bed.place(block(0, 50))
    assert leads.shape == (2, 50)
    assert [LEADS[slot] for slot in desk.bed.slots] == ["II", "V1"]
    (wave,) = desk.of(Wave)
    assert isinstance(wave, Wave)
    assert wave.leads == ("MLII", "V1")


def test_a_jump_of_the_index_is_a_gap_counted_once() -> None:
    desk = Desk()
    desk.bed.place(block(0, 50))
    desk.bed.place(block(175, 225))
    assert desk.bed.lost_before(100) == 0.0
    assert desk.bed.lost_before(200) == pytest.approx(0.5)
    assert desk.bed.lost_before(225) == 0.0


def test_lead_off_holds_from_its_sample_on() -> None:
    desk = Desk()
    desk.bed.place(block(0, 50))
    desk.bed.place(block(50, 100, off=frozenset({"V1"})))
    desk.bed.place(block(100, 150))
    assert not desk.bed.off_at(49).any()
    assert desk.bed.off_at(99)[LEADS.index("V1")]
    assert not desk.bed.off_at(120).any()


def test_live_time_follows_the_newest_sample_and_recorded_time_the_start() -> None:
    live, recorded = Desk(), Desk(live=False)
    t_ns = live.clock.monotonic_ns() + 7_000_000_000
    for desk in (live, recorded):
        desk.bed.place(block(0, 250, t_ns))
    assert live.bed.time_of(1.0) == live.clock.utc(t_ns)
    assert recorded.bed.time_of(1.0) == recorded.clock.utc() + timedelta(seconds=1)


def test_moments_wait_for_the_prediction_they_depend_on() -> None:
    desk = Desk(live=False)
    desk.bed.alarms.observe = observed = Observed()  # type: ignore[method-assign, assignment]
    for frame in range(4):
        desk.moment(frame)
    desk.moment(4, due_stop=100)
    desk.moment(5)
    assert observed.times == pytest.approx([0.2, 0.4, 0.6, 0.8])
    desk.bed.resolve(100, VF)
    assert observed.times == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.2])
    assert observed.rhythms == [None] * 4 + [VF, None]


def test_a_late_network_does_not_hold_a_live_bed_back() -> None:
    live, recorded = Desk(), Desk(live=False)
    for desk in (live, recorded):
        desk.moment(4, due_stop=100)
        assert not desk.bed.overdue(desk.clock.monotonic_ns() + 1_900_000_000, 2.0)
        assert desk.bed.overdue(desk.clock.monotonic_ns() + 2_100_000_000, 2.0) is desk.bed.live
        assert desk.bed.waiting is not desk.bed.live


def test_what_a_late_network_says_is_heard_with_the_next_frame_however_calm_it_is() -> None:
    clock = ManualClock()
    streams = Streams(1, clock.monotonic_ns())
    bed = Bed("site/unit/bed", {}, AlarmConfig(), clock, lambda _: None, streams=streams)
    bed.begin(StreamInfo(fs=250.0, leads=("MLII",), device="test", live=True))
    bed.alarms.observe = observed = Observed()  # type: ignore[method-assign, assignment]
    bed.add(Moment(1.0, bed.time_of(1.0), (), 60.0, True, 0.0, (), 0.0, 100, clock.monotonic_ns(), calm=True))
    assert bed.overdue(clock.monotonic_ns() + 2_100_000_000, 2.0)
    assert not streams.waits[0]
    bed.resolve(100, VF)
    assert streams.waits[0], "the ward would pass over the next frame, and what the network said with it"
    bed.add(Moment(1.2, bed.time_of(1.2), (), 60.0, True, 0.0, (), 0.0, None, clock.monotonic_ns(), calm=True))
    assert observed.rhythms == [None, VF]
    assert not streams.waits[0]


def test_a_lost_device_leaves_no_stale_value_and_an_alarm() -> None:
    desk = Desk()
    desk.moment(0)
    desk.bed.link(LinkState("offline", "cable pulled", 1))
    (status,) = desk.of(DeviceStatus)
    assert isinstance(status, DeviceStatus)
    assert not status.online
    vitals = desk.of(Vitals)[-1]
    assert isinstance(vitals, Vitals)
    assert vitals.heart_rate_bpm is None
    (alarm,) = desk.of(Alarm)
    assert isinstance(alarm, Alarm)
    assert (alarm.condition, alarm.phase) == ("no-data", "start")
    assert "cable pulled" in alarm.text


def test_samples_that_run_ahead_of_time_are_a_clock_jump() -> None:
    desk = Desk()
    t_ns = desk.clock.monotonic_ns()
    desk.bed.place(block(0, 50, t_ns))
    desk.bed.place(block(50, 100, t_ns + 200_000_000))
    assert not desk.of(Alarm)
    desk.bed.place(block(5100, 5150, t_ns + 400_000_000))
    (alarm,) = desk.of(Alarm)
    assert isinstance(alarm, Alarm)
    assert alarm.condition == "clock-jump"


def test_judged_time_follows_what_the_alarm_engine_saw_and_nothing_else() -> None:
    desk = Desk()
    begun_ns = desk.bed.judged_ns
    assert begun_ns == desk.clock.monotonic_ns()
    desk.bed.place(block(0, 250, begun_ns + 3_000_000_000))
    assert desk.bed.judged_ns == begun_ns
    desk.moment(1)
    assert desk.bed.judged_ns == desk.bed.arrival_ns(0.4) == begun_ns + 2_400_000_000
    desk.moment(2, due_stop=100)
    desk.bed.link(LinkState("online", session=1))
    assert desk.bed.judged_ns == begun_ns + 2_400_000_000
    desk.bed.resolve(100, None)
    assert desk.bed.judged_ns == begun_ns + 2_600_000_000


def test_judged_time_stands_still_when_the_alarm_engine_fails() -> None:
    desk = Desk()
    before_ns = desk.bed.judged_ns

    def defect(*_: object) -> list[Alarm]:
        raise ZeroDivisionError

    desk.bed.alarms.observe = defect  # type: ignore[method-assign, assignment]
    desk.bed.place(block(0, 250, before_ns + 3_000_000_000))
    with pytest.raises(ZeroDivisionError):
        desk.moment(1)
    assert desk.bed.judged_ns == before_ns


@pytest.mark.parametrize("state", ["offline", "ended"])
def test_a_live_bed_that_was_given_up_keeps_its_alarms_until_the_monitor_ends_it(state: Literal["offline", "ended"]) -> None:
    desk = Desk()
    desk.bed.link(LinkState("offline", "cable pulled", 1))
    desk.bed.link(LinkState(state, "no such adapter", 1))
    assert [alarm.condition for alarm in desk.bed.alarms.active()] == ["no-data"]
    assert not desk.bed.ended
    desk.bed.close("the monitor has ended")
    assert desk.bed.ended == "monitor"
    assert not desk.bed.alarms.active()
    said = len(desk.said)
    desk.bed.close("again")
    assert len(desk.said) == said


@pytest.mark.parametrize(("live", "total"), [(False, None), (True, 1000)])
def test_a_recording_that_ends_closes_its_alarms_and_says_why(live: bool, total: int | None) -> None:
    desk = Desk()
    desk.bed.begin(StreamInfo(fs=250.0, leads=("MLII", "V1"), device="test", live=live, total=total))
    desk.bed.technical("model-late", present=True)
    assert desk.bed.alarms.active()
    desk.bed.link(LinkState("ended", session=1))
    assert desk.bed.ended == "recording"
    assert not desk.bed.alarms.active()


class Observed:
    """Stands in for ``AlarmEngine.observe`` and notes what it is given."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.rhythms: list[Evidence | None] = []

    def __call__(self, observation: object, time: object, now_ns: int) -> list[Alarm]:
        self.times.append(observation.at_s)  # type: ignore[attr-defined]
        self.rhythms.append(observation.rhythm)  # type: ignore[attr-defined]
        return []


async def test_sessions_grow_with_every_connection_and_over_restarts() -> None:
    clock, said = ManualClock(), list[Published]()
    info = StreamInfo(fs=250.0, leads=("II",), device="test")

    def started(connections: int) -> tuple[Bed, list[int]]:
        bed = Bed("site/unit/bed", {}, AlarmConfig(), clock, said.append)
        for number in range(1, connections + 1):
            bed.link(LinkState("connecting", session=number))
            bed.begin(info)
            bed.link(LinkState("online", session=number))
            bed.link(LinkState("offline", "gone", session=number))
        sessions = [event.session for event in said if isinstance(event, DeviceStatus | Meta)]
        said.clear()
        return bed, sessions

    unix_s = int(clock.utc().timestamp())
    _, first = started(3)
    assert first == sorted(first) and first[0] >= unix_s
    assert len(set(first)) == 3, "connecting, the stream, online and offline of one connection have one session"
    await clock.advance(10.0)
    bed, second = started(1)
    assert second[0] > first[-1] and second[0] >= unix_s + 10
    bed.begin(info)  # a stream that nobody announced
    assert next(event.session for event in said if isinstance(event, Meta)) > second[-1]


def test_an_event_of_another_process_start_never_has_the_same_identity() -> None:
    ids, runs = set[str](), []
    for _ in range(50):
        desk = Desk()
        desk.bed.technical("noise", present=True)
        desk.bed.technical("noise", present=False)
        events = [event for event in desk.of(Alarm) if isinstance(event, Alarm)]
        assert [event.sequence for event in events] == [1, 2]
        ids |= {event.event_id for event in events}
        assert {event.alarm_id for event in events} == {events[0].event_id}
        runs.append(events[0].event_id.split(":")[1])
    assert len(ids) == 100
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert run_id(now) < run_id(now + timedelta(milliseconds=1)) < run_id(now + timedelta(days=100_000))
    assert run_id(datetime(1960, 1, 1, tzinfo=UTC)).startswith("0" * 12), "a clock before all time still gives a name"


def test_what_the_alarm_engine_does_not_take_is_not_judged() -> None:
    desk = Desk()
    desk.bed.place(block(0, 2500, desk.bed.judged_ns + 10_000_000_000))
    desk.moment(20)
    judged_ns = desk.bed.judged_ns
    desk.moment(10)
    desk.moment(20)
    assert desk.bed.judged_ns == judged_ns
    desk.moment(21)
    assert desk.bed.judged_ns > judged_ns
