"""Wall time: it goes on evenly, follows the machine's clock, and says when that was set or the machine slept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from ecgnat_stream.alarm import AlarmEngine
from ecgnat_stream.bus import Published
from ecgnat_stream.clock import ManualClock, Step, SystemClock
from ecgnat_stream.config import parse_config
from ecgnat_stream.device import LinkState
from ecgnat_stream.events import Alarm, Command, Technical
from ecgnat_stream.monitor import Monitor
from ecgnat_stream.signal import SampleBlock, StreamInfo
from ecgnat_stream.ward import Ward

DAYS_200_S = 200 * 86400.0
START = datetime(2026, 1, 1, tzinfo=UTC)


class Machine:
    """A machine's clocks, which a test sets."""

    def __init__(self) -> None:
        self.up_s, self.wall, self.slept_s = 100.0, START, 0.0
        self.clock = SystemClock(
            lambda: round(self.up_s * 1e9), lambda: self.wall, lambda: round(self.slept_s * 1e9)
        )  # fmt: skip

    def run(self, seconds: float, set_by_s: float = 0.0, slept_s: float = 0.0) -> Step | None:
        """Let time pass, then let the clock follow."""
        self.up_s += seconds
        self.slept_s += slept_s
        self.wall += timedelta(seconds=seconds + set_by_s + slept_s)
        return self.clock.follow()


@pytest.mark.parametrize("step_s", [DAYS_200_S, -DAYS_200_S, 0.6, -0.6, 3600.0])
def test_a_wall_clock_that_was_set_is_followed_at_once_and_said_once(step_s: float) -> None:
    machine = Machine()
    assert machine.run(1.0) is None
    step = machine.run(1.0, set_by_s=step_s)
    assert step is not None
    assert step.step_s == pytest.approx(step_s)
    assert step.slept_s == 0.0
    assert machine.clock.utc() == machine.wall
    assert machine.run(1.0) is None
    assert machine.clock.utc() == machine.wall
    assert machine.clock.utc(machine.clock.monotonic_ns() - 5_000_000_000) == machine.wall - timedelta(seconds=5)


def test_a_small_difference_is_followed_slowly_and_time_never_runs_backwards() -> None:
    machine = Machine()
    machine.run(1.0, set_by_s=-0.4)
    said = [machine.clock.utc()]
    for _ in range(1000):
        assert machine.run(1.0) is None
        said.append(machine.clock.utc())
    steps = np.diff([moment.timestamp() for moment in said])
    assert steps.min() > 0.999
    assert abs((said[-1] - machine.wall).total_seconds()) < 0.001


def test_a_sleep_of_the_machine_is_told_from_a_clock_that_was_set() -> None:
    machine = Machine()
    step = machine.run(1.0, slept_s=3600.0)
    assert step == Step(3600.0, 3600.0)
    assert str(step) == "the machine slept for 3600 s: nothing was watched meanwhile"
    assert machine.clock.utc() == machine.wall
    assert machine.run(1.0) is None
    assert str(machine.run(1.0, set_by_s=DAYS_200_S)) == "the wall clock was set by +17280000 s"
    assert str(machine.run(1.0, set_by_s=-0.7)) == "the wall clock was set by -0.7 s"


def test_the_machine_itself_gives_plausible_times() -> None:
    clock = SystemClock()
    assert abs((clock.utc() - datetime.now(UTC)).total_seconds()) < 5
    assert clock.follow() is None


class Desk:
    """A ward of two beds on a manual clock, and what it says."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.said: list[Published] = []
        config = parse_config({"bed": [{"id": one, "device": "simulate"} for one in ("a", "b")]}, "test")
        self.ward = Ward(config, self.clock, self.said.append)
        for row in range(2):
            self.ward.accept(row, LinkState("connecting", session=1))
            self.ward.accept(row, StreamInfo(fs=250.0, leads=("II",), device="test"))
            self.ward.accept(row, LinkState("online", session=1))
        self.names = [bed.bed for bed in self.ward.progress()]
        self.start = 0

    def alarms(self) -> list[tuple[str, str, str]]:
        """Return what alarms did since the last call, and forget it."""
        events = [event for event in self.said if isinstance(event, Alarm)]
        self.said.clear()
        return [(event.bed.rpartition("/")[2] or "worker", event.condition, event.phase) for event in events]

    def technical(self, condition: str, bed: int = 0) -> Alarm:
        """Let a stage notice something; return the alarm."""
        self.ward.technical(Technical(bed=self.names[bed], time=self.clock.utc(), condition=condition, present=True))
        alarm = self.said[-1]
        assert isinstance(alarm, Alarm)
        return alarm

    async def signal(self, seconds: int) -> None:
        """Deliver a signal of both beds."""
        for _ in range(seconds * 5):
            await self.clock.advance(0.2)
            for row in range(2):
                self.ward.accept(row, SampleBlock(self.start, np.zeros((1, 50), np.float32), self.clock.monotonic_ns()))
            self.start += 50
            while self.ward.advance():
                pass

    def follow(self) -> Step:
        """Let the clock follow, and tell the ward."""
        step = self.clock.follow()
        assert step is not None
        self.ward.clock_set(step)
        return step


@pytest.mark.parametrize("step_s", [DAYS_200_S, -DAYS_200_S])
async def test_a_pause_lasts_as_long_as_it_was_to_last_and_says_until_when(step_s: float) -> None:
    desk = Desk()
    first = desk.technical("noise")
    desk.ward.command(Command(bed=desk.names[0], time=desk.clock.utc(), action="pause", duration_s=60.0))
    paused = next(event for event in desk.said if isinstance(event, Alarm) and event.paused_until)
    await desk.clock.advance(10.0)
    desk.clock.set_wall(step_s)
    desk.said.clear()
    desk.follow()
    (again,) = (event for event in desk.said if isinstance(event, Alarm))
    assert again.time == desk.clock.utc()
    assert paused.paused_until is not None and again.paused_until is not None
    assert (again.paused_until - again.time).total_seconds() == pytest.approx(50.0)
    assert (again.inactivation, again.sequence, again.alarm_id) == ("audio-paused", paused.sequence + 1, first.alarm_id)
    desk.said.clear()
    await desk.clock.advance(49.0)
    desk.ward.tick()
    assert desk.alarms() == []
    await desk.clock.advance(1.0)
    desk.ward.tick()
    assert desk.alarms() == [("a", "noise", "continue")]


@pytest.mark.parametrize("step_s", [DAYS_200_S, -DAYS_200_S])
async def test_alarms_go_on_in_order_whatever_the_wall_clock_does(step_s: float) -> None:
    desk, reference = Desk(), Desk()
    for one in (desk, reference):
        await one.signal(4)
    before = sum(isinstance(event, Alarm) for event in desk.said)
    desk.clock.set_wall(step_s)
    desk.follow()
    for one in (desk, reference):
        await one.signal(20)
    pairs = [[event for event in one.said if isinstance(event, Alarm)] for one in (desk, reference)]
    assert len(pairs[0]) > before
    for number, (mine, other) in enumerate(zip(*pairs, strict=True)):
        assert (mine.condition, mine.phase, mine.sequence, mine.at_s) == (
            other.condition,
            other.phase,
            other.sequence,
            other.at_s,
        )
        assert (mine.time - other.time).total_seconds() == pytest.approx(step_s if number >= before else 0.0)


async def test_after_a_sleep_every_live_bed_is_lost_until_its_signal_is_judged_again() -> None:
    desk = Desk()
    await desk.signal(2)
    desk.alarms()
    desk.clock.set_wall(3600.0, slept_s=3600.0)
    step = desk.follow()
    lost = [event for event in desk.said if isinstance(event, Alarm)]
    assert {(event.bed, event.condition, event.phase) for event in lost} == {(name, "no-data", "start") for name in desk.names}
    assert all(str(step) in event.text for event in lost)
    desk.alarms()
    await desk.signal(1)
    assert ("a", "no-data", "end") not in desk.alarms(), "a flat line is nothing that is judged"
    await desk.signal(4)
    said = desk.alarms()
    for name in ("a", "b"):
        assert said.index((name, "no-data", "end")) < said.index((name, "noise", "start"))


def test_a_monitor_says_that_the_wall_clock_was_set() -> None:
    clock, said = ManualClock(), list[Published]()
    monitor = Monitor(parse_config({}, "test"), clock)
    monitor.bus.listen(said.append, Technical, Alarm)  # type: ignore[arg-type]
    monitor._follow_clock()
    assert said == []
    clock.set_wall(DAYS_200_S)
    monitor._follow_clock()
    (alarm,) = (event for event in said if isinstance(event, Alarm))
    assert (alarm.bed, alarm.condition, alarm.phase, alarm.priority) == ("", "clock-jump", "start", "low")
    assert alarm.text == "a clock has jumped: the wall clock was set by +17280000 s"
    assert alarm.time == clock.utc() == START + timedelta(days=200)


def test_a_bed_without_an_engine_run_gets_one() -> None:
    one, other = (AlarmEngine("a/b/c").disconnect(START, 0)[0].event_id for _ in range(2))
    assert one != other


def test_the_history_counts_no_time_that_only_the_wall_clock_saw() -> None:
    from ecgnat_stream.events import DeviceStatus, Vitals
    from ecgnat_stream.sink.history.sink import _Watched

    for step_s in (DAYS_200_S, -DAYS_200_S):
        watched = _Watched(100)
        watched.note(DeviceStatus(bed="a/b/c", time=START, state="online"))
        for second in range(10):
            time = START + timedelta(seconds=second + (step_s if second >= 5 else 0.0))
            if second == 5:
                engine = AlarmEngine("", run="r")
                jump = Technical(bed="", time=time, condition="clock-jump", present=True, detail=str(Step(step_s)))
                for alarm in engine.technical(jump, 0):
                    watched.note(alarm)
            watched.note(Vitals(bed="a/b/c", time=time, heart_rate_bpm=None))
        lengths = [
            (datetime.fromisoformat(stretch.stopped) - datetime.fromisoformat(started)).total_seconds()
            for (_, started), stretch in watched.due().items()
        ]
        assert lengths == [4.0, 4.0]
