"""The alarm history: what is kept, also after a kill; duplicates; runs; a file that cannot be written to; pruning; reading."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ecgnat_stream.bus import Bus
from ecgnat_stream.clock import ManualClock
from ecgnat_stream.errors import ConfigError, SinkError
from ecgnat_stream.events import Alarm, Command, CommandResult, Delivery, DeviceStatus, EngineStatus, Meta, Technical, Vitals
from ecgnat_stream.sink.history import HistoryConfig, HistorySink, unfinished
from ecgnat_stream.sink.history import store as history_store
from ecgnat_stream.sink.history.read import AlarmRecord, History, Selection
from ecgnat_stream.testing import flushed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BED = "home/icu/1"


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def alarm(sequence: int, seconds: float = 0.0, **changes: Any) -> Alarm:
    values: dict[str, Any] = {
        "bed": BED,
        "condition": "asystole",
        "kind": "physiological",
        "priority": "high",
        "phase": "start",
        "presence": "on",
        "text": "asystole",
        "alarm_id": "a1",
        "at_s": seconds,
    } | changes
    values.setdefault("event_id", f"{values['bed']}:{sequence}")
    return Alarm(time=at(seconds), sequence=sequence, **values)


def end(sequence: int, seconds: float, **changes: Any) -> Alarm:
    return alarm(sequence, seconds, **({"phase": "end", "presence": "off"} | changes))


@asynccontextmanager
async def keeping(path: Path, clock: ManualClock | None = None, **options: Any) -> AsyncIterator[Bus]:
    """A bus with a history on it, read out at the end."""
    bus = Bus()
    sink = HistorySink(HistoryConfig(path=str(path), **options), bus, clock or ManualClock())
    running = asyncio.create_task(sink.run())
    try:
        yield bus
        bus.close()
        await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def keep(path: Path, *events: Any, **options: Any) -> None:
    async with keeping(path, **options) as bus:
        for event in events:
            bus.publish(event)


async def until(reached: Callable[[], bool]) -> None:
    """Let the sink's thread work until something is so."""
    async with asyncio.timeout(15):
        while not reached():  # noqa: ASYNC110 - a thread does it
            await asyncio.sleep(0.001)


def records(path: Path, **selection: Any) -> list[AlarmRecord]:
    with History(path) as history:
        return history.alarms(Selection(**selection))


def kept(path: Path) -> list[Alarm]:
    with History(path) as history:
        return [event for _, event in history.events()]


async def test_every_phase_is_kept_as_it_was_and_an_alarm_is_told_from_start_to_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "alarms.db"
    events = [
        alarm(1, 10, onset_s=6.0, priority="medium"),
        alarm(2, 12, phase="escalate"),
        alarm(3, 15, phase="update", presence="acknowledged", inactivation="acknowledged", by="nurse 7"),
        alarm(4, 20, phase="de-escalate", priority="low", presence="acknowledged"),
        end(5, 40, priority="low", by="nurse 8"),
    ]
    await keep(path, *events)
    assert kept(path) == events
    (record,) = records(path)
    assert record == AlarmRecord(
        bed=BED,
        condition="asystole",
        kind="physiological",
        priority="high",
        presence="off",
        text="asystole",
        started=at(10),
        at_s=10.0,
        ended=at(40),
        ending="end",
        duration_s=30.0,
        acknowledged=at(15),
        acknowledged_by="nurse 7",
        acknowledged_after_s=5.0,
        alarm_id="a1",
    )


async def test_a_latched_alarm_that_a_person_ended_was_acknowledged_and_one_that_ended_itself_was_not(tmp_path: Path) -> None:
    path = tmp_path / "alarms.db"
    await keep(
        path,
        *(alarm(1), alarm(2, 5, phase="update", presence="latched"), end(3, 9, by="desk")),
        *(alarm(4, 20, alarm_id="a4"), end(5, 22, alarm_id="a4")),
    )
    first, second = records(path)
    assert (first.acknowledged_by, first.acknowledged_after_s, first.ending) == ("desk", 9.0, "end")
    assert (second.acknowledged, second.acknowledged_by, second.duration_s) == (None, "", 2.0)


async def test_the_same_event_is_kept_once_also_when_it_comes_in_another_run(tmp_path: Path) -> None:
    path = tmp_path / "alarms.db"
    await keep(path, alarm(1), alarm(1), end(2, 3), end(2, 3), alarm(1))
    await keep(path, alarm(1), end(2, 3))
    assert [event.sequence for event in kept(path)] == [1, 2]
    assert len(records(path)) == 1


async def test_a_second_run_with_the_same_identifiers_is_another_history(tmp_path: Path) -> None:
    path = tmp_path / "alarms.db"
    await keep(path, alarm(1), end(2, 3))
    await keep(path, alarm(1, 100), end(2, 107))
    assert [(r.started, r.duration_s) for r in records(path)] == [(at(0), 3.0), (at(100), 7.0)]


async def test_an_alarm_whose_start_was_lost_is_still_one_and_one_whose_end_was_lost_ends_where_it_begins_anew(
    tmp_path: Path,
) -> None:
    path = tmp_path / "alarms.db"
    await keep(
        path, alarm(2, 5, phase="update"), alarm(3, 8, phase="update"), alarm(1, 50, alarm_id="b"), end(2, 51, alarm_id="b")
    )
    first, second = records(path)
    assert (first.started, first.ended, first.ending) == (at(5), at(8), "unseen")
    assert (second.started, second.ended, second.ending) == (at(50), at(51), "end")


async def test_commands_are_kept_with_who_gave_them_and_every_answer(tmp_path: Path) -> None:
    path = tmp_path / "alarms.db"
    asked = Command(bed="", time=at(1), action="pause", duration_s=60.0, source="desk", correlation="c1")
    lone = Command(bed=BED, time=at(2), action="reset", condition="asystole", source="nurse 7", correlation="c2")
    answer = CommandResult(bed=BED, time=at(1), accepted=True, action="pause", source="desk", correlation="c1")
    refusal = CommandResult(bed="", time=at(1), accepted=False, action="pause", reason="no", source="desk", correlation="c1")
    await keep(path, asked, answer, refusal, lone)
    with History(path) as history:
        found = history.commands()
        of_the_worker = history.commands(Selection(bed=""))
    assert [(c.bed, c.action, c.condition, c.duration_s, c.source, c.accepted, c.reason) for c in found] == [
        (BED, "pause", None, 60.0, "desk", True, ""),
        ("", "pause", None, 60.0, "desk", False, "no"),
        (BED, "reset", "asystole", None, "nurse 7", None, None),
    ]
    assert [c.reason for c in of_the_worker] == ["no"]


async def test_what_is_written_again_after_a_failure_that_was_none_is_kept_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock, ordinary, failures = tmp_path / "alarms.db", ManualClock(), history_store.Store.write, list[int]()

    def write(store: history_store.Store, events: Any, stretches: Any, lost: int) -> Any:
        refused = ordinary(store, events, stretches, lost)
        if events and not failures:
            failures.append(1)
            raise sqlite3.OperationalError("the disk did not say that it had done it")
        return refused

    monkeypatch.setattr(history_store.Store, "write", write)
    command = Command(bed="", time=at(1), action="reset", source="desk", correlation="c1")
    answer = CommandResult(bed=BED, time=at(1), accepted=True, action="reset", source="desk", correlation="c1")
    async with keeping(path, clock, retry_s=1.0) as bus:
        heard: list[Any] = []
        bus.listen(heard.append, Technical)
        for event in (command, answer, alarm(1)):
            bus.publish(event)
        await until(lambda: bool(heard))
        while len(heard) < 2:
            await clock.advance(1.0)
    assert [t.present for t in heard] == [True, False]
    with History(path) as history:
        assert len(history.commands()) == 1
        assert len(history.events()) == 1


async def test_the_same_answer_in_a_later_run_belongs_to_the_later_command(tmp_path: Path) -> None:
    path = tmp_path / "alarms.db"
    for second, accepted in ((1, True), (50, False)):
        command = Command(bed=BED, time=at(second), action="reset", source="desk", correlation="mqtt-1")
        answer = CommandResult(bed=BED, time=at(second), accepted=accepted, action="reset", source="desk", correlation="mqtt-1")
        await keep(path, command, answer)
    with History(path) as history:
        assert [(c.time, c.accepted) for c in history.commands()] == [(at(1), True), (at(50), False)]


async def test_a_bed_is_watched_from_online_to_the_last_sign_of_life(tmp_path: Path) -> None:
    path = tmp_path / "alarms.db"

    def status(seconds: float, state: Any) -> DeviceStatus:
        return DeviceStatus(bed=BED, time=at(seconds), state=state)

    engine = {"bed": "", "site": "home", "worker": "w", "session": 1}
    await keep(
        path,
        EngineStatus(time=at(0), online=True, **engine),  # type: ignore[arg-type]
        *(Vitals(bed=BED, time=at(second), heart_rate_bpm=60) for second in (0, 1)),
        *(status(2, "connecting"), status(5, "online"), status(7, "online")),
        *(Vitals(bed=BED, time=at(second), heart_rate_bpm=60) for second in range(8, 38)),
        *(status(40, "stalled"), Vitals(bed=BED, time=at(50), heart_rate_bpm=None), status(100, "online")),
        *(Vitals(bed=BED, time=at(second), heart_rate_bpm=60) for second in range(101, 125)),
        EngineStatus(time=at(130), online=False, **engine),  # type: ignore[arg-type]
        alarm(1, 110),
    )
    with History(path) as history:
        assert history.watched_s() == {BED: 35.0 + 24.0}
        assert history.watched_s(Selection(since=at(30), until=at(101))) == {BED: 10.0 + 1.0}
        assert history.watched_s(Selection(bed="2")) == {}
    (open_alarm,) = records(path, active=True)
    assert open_alarm.duration_s == 14.0


def recorded(pace: float, begun_s: float, length_s: int, took_s: float) -> list[Any]:
    """A bed that plays a recording, not as fast as it should: what is said of it, with an alarm from 10 s to 40 s."""
    wall = took_s / length_s
    meta = {"leads": ("II",), "used_as": ("II",), "fs": 250.0, "uv_per_lsb": 1.0, "device": "replay", "live": True, "session": 1}

    def status(at_s: float, state: Any) -> DeviceStatus:
        return DeviceStatus(bed=BED, time=at(begun_s + at_s * wall), state=state)

    def phase(sequence: int, at_s: float, **changes: Any) -> Alarm:
        return alarm(sequence, begun_s + at_s * wall, at_s=at_s, alarm_id=f"r{begun_s:g}", **changes)

    first = round(begun_s) + 1
    vitals = [
        Vitals(bed=BED, time=at(begun_s + second * wall), at_s=float(second), heart_rate_bpm=60) for second in range(1, length_s)
    ]
    return [
        Meta(bed=BED, time=at(begun_s), pace=pace, recorded=True, **meta),  # type: ignore[arg-type]
        status(0, "online"),
        *vitals[:9],
        phase(first, 10),
        *vitals[9:39],
        phase(first + 1, 40, phase="end", presence="off"),
        *vitals[39:],
        status(length_s, "ended"),
        Vitals(bed=BED, time=at(begun_s + took_s), at_s=float(length_s), heart_rate_bpm=None),
    ]


@pytest.mark.parametrize("pace", [0.5, 1.0, 50.0, 1000.0])
@pytest.mark.parametrize("took_s", [1.3, 77.0, 500.0])
async def test_lengths_of_a_recording_are_its_own_whatever_pace_was_kept(pace: float, took_s: float, tmp_path: Path) -> None:
    path = tmp_path / "alarms.db"
    await keep(path, *recorded(pace, 0.0, 60, took_s))
    await keep(path, *recorded(2 * pace, 1000.0, 60, 2 * took_s), clock=ManualClock(wall=at(1000)))
    assert [record.duration_s for record in records(path)] == [30.0, 30.0]
    with History(path) as history:
        assert history.watched_s() == {BED: 120.0}
        assert history.watched_s(Selection(since=at(1000 + took_s)))[BED] == pytest.approx(30.0)


async def test_an_alarm_of_a_recording_that_is_still_on_or_was_killed_has_lasted_as_far_as_it_was_played(tmp_path: Path) -> None:
    path = tmp_path / "alarms.db"
    events = recorded(50.0, 0.0, 60, 77.0)
    await keep(path, *events[:31])  # up to the 28th second
    assert [record.duration_s for record in records(path, active=True)] == [18.0]
    await keep(path, alarm(9, 3600, at_s=None, alarm_id="r0", phase="end", presence="off"), clock=ManualClock(wall=at(3600)))
    await keep(path, *recorded(50.0, 5000.0, 60, 77.0), clock=ManualClock(wall=at(5000)))
    assert [record.duration_s for record in records(path)] == [18.0, 30.0]


async def test_how_long_a_bed_was_watched_is_written_down_every_ten_seconds(tmp_path: Path) -> None:
    path, clock = tmp_path / "alarms.db", ManualClock()

    def watched() -> float:
        with History(path) as history:
            return history.watched_s().get(BED, 0.0)

    async with keeping(path, clock) as bus:
        bus.publish(DeviceStatus(bed=BED, time=at(0), state="online"))
        await until(path.exists)
        for second in range(1, 12):
            await clock.advance(1.0)
            bus.publish(Vitals(bed=BED, time=at(second), heart_rate_bpm=60))
        await until(lambda: watched() >= 10.0)


async def test_what_a_killed_monitor_left_open_is_given_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "alarms.db"
    assert unfinished(path) == ({}, {})
    last = alarm(3, 5, phase="update", presence="acknowledged", inactivation="acknowledged", by="desk", onset_s=0.5, lead="II")
    worker = alarm(1, 3, bed="", condition="broker-lost", kind="technical", priority="medium", alarm_id="w1")
    other = alarm(9, 2, bed="home/icu/2", alarm_id="b")
    await keep(
        path,
        *(
            alarm(1),
            alarm(2, 1, condition="noise", alarm_id="n"),
            other,
            worker,
            last,
            end(4, 6, condition="noise", alarm_id="n"),
        ),
        *(alarm(5, 7, condition="ventricular-tachycardia", alarm_id="vt"), end(10, 8, bed="home/icu/2", alarm_id="b")),
    )
    alarms, sequences = unfinished(path)
    assert alarms == {"": [worker], BED: [last, alarm(5, 7, condition="ventricular-tachycardia", alarm_id="vt")]}
    assert sequences == {"": 1, BED: 5, "home/icu/2": 10}
    await keep(path, end(6, 9, alarm_id="a1"))  # the next monitor goes on with the same alarm
    (record,) = records(path, conditions=("asystole",), bed=BED)
    assert (record.started, record.ended) == (at(0), at(9))


async def test_alarms_are_selected_by_bed_condition_priority_time_and_whether_they_last(tmp_path: Path) -> None:
    path = tmp_path / "alarms.db"
    await keep(
        path,
        *(alarm(1), end(2, 5)),
        alarm(1, 60, bed="home/icu/2", condition="noise", kind="technical", priority="low", alarm_id="b"),
        alarm(1, 120, bed="home/er/1", alarm_id="c"),
        alarm(1, 180, bed="", condition="broker-lost", kind="technical", priority="medium", alarm_id="d"),
    )

    def beds(**selection: Any) -> list[str]:
        return [record.bed for record in records(path, **selection)]

    assert beds() == ["home/icu/1", "home/icu/2", "home/er/1", ""]
    assert beds(bed="*/icu/*") == ["home/icu/1", "home/icu/2"]
    assert beds(bed="1") == ["home/icu/1", "home/er/1"]
    assert beds(bed="") == [""]
    assert beds(conditions=("noise", "broker-lost")) == ["home/icu/2", ""]
    assert beds(priorities=("high",)) == ["home/icu/1", "home/er/1"]
    assert beds(since=at(60), until=at(180)) == ["home/icu/2", "home/er/1"]
    assert beds(active=True, priorities=("high",)) == ["home/er/1"]
    with History(path) as history:
        assert [event.bed for _, event in history.events(Selection(active=True), after=1)] == beds(active=True)
        newest = history.events()[-1][0]
        assert history.events(after=newest) == []


KILLED = """
import asyncio, sys
from datetime import datetime, timedelta, UTC
from pathlib import Path
from ecgnat_stream.bus import Bus
from ecgnat_stream.clock import SystemClock
from ecgnat_stream.sink.history import HistoryConfig, HistorySink
from ecgnat_stream.events import Alarm
from ecgnat_stream.testing import flushed
async def main():
    bus = Bus()
    running = asyncio.create_task(HistorySink(HistoryConfig(path=sys.argv[1]), bus, SystemClock()).run())
    number = 0
    while not running.done():
        for phase, presence in (("start", "on"), ("end", "off")):
            number += 1
            bus.publish(Alarm(bed="a/b/c", time=datetime.now(UTC), condition="asystole", kind="physiological", priority="high",
                phase=phase, presence=presence, text="x" * 200, sequence=number, alarm_id=f"a{(number + 1) // 2}",
                event_id=f"e{number}"))
        await flushed(bus)
        await asyncio.sleep(0.0005)
asyncio.run(main())
"""


@pytest.mark.timeout(60)
async def test_a_killed_process_leaves_every_event_that_could_be_read(tmp_path: Path) -> None:
    path = tmp_path / "alarms.db"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, str(path))
    seen = 0
    try:
        async with asyncio.timeout(30):
            while seen < 1000:
                await asyncio.sleep(0.02)
                # A reader beside the writer, from its first moment on.
                if path.exists():
                    seen = max([event.sequence for event in kept(path)], default=0)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    events = kept(path)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert len(events) >= seen >= 1000
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    await keep(path, end(len(events) + 1, 9, alarm_id="z"))
    assert len(kept(path)) == len(events) + 1


def full(connection: sqlite3.Connection) -> None:
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")


def read_only(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA query_only = ON")


@pytest.mark.parametrize(("spoil", "said"), [(full, "database or disk is full"), (read_only, "readonly database")])
async def test_a_disk_that_is_full_or_read_only_is_told_once_and_nothing_is_lost(
    spoil: Callable[[sqlite3.Connection], None], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock, heard, opened = tmp_path / "alarms.db", ManualClock(), list[Any](), list[int]()
    ordinary = history_store.connect
    spoiled = True

    def connect(path: Path, timeout_s: float) -> sqlite3.Connection:
        connection = ordinary(path, timeout_s)
        opened.append(threading.get_ident())
        if spoiled:
            spoil(connection)
        return connection

    monkeypatch.setattr(history_store, "connect", connect)
    async with keeping(path, clock, retry_s=5.0) as bus:
        bus.listen(heard.append, Technical)
        for number in range(1, 200):
            bus.publish(alarm(number, number, phase="update", text="x" * 500))
        await until(lambda: bool(heard))
        while len(opened) < 4:
            await clock.advance(5.0)
        assert [(t.condition, t.present) for t in heard] == [("history-failed", True)]
        assert said in heard[0].detail
        assert str(path) in heard[0].detail
        spoiled = False
        while len(heard) == 1:
            await clock.advance(5.0)
    assert [t.present for t in heard] == [True, False]
    assert [event.sequence for event in kept(path)] == list(range(1, 200))
    assert len(set(opened)) == 1
    with History(path) as history:
        assert history.lost() == 0


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_is_removed_while_it_is_written_is_told_and_begun_anew(tmp_path: Path, replaced: bool) -> None:
    path, clock, heard = tmp_path / "history" / "alarms.db", ManualClock(), list[Any]()
    async with keeping(path, clock, retry_s=1.0) as bus:
        bus.listen(heard.append, Technical)
        bus.publish(alarm(1))
        await until(lambda: path.is_file() and len(kept(path)) == 1)
        shutil.rmtree(path.parent)
        if replaced:
            await keep(path)
        bus.publish(end(2, 4))
        await until(lambda: bool(heard))
        assert "removed or replaced" in heard[0].detail
        while len(heard) == 1:
            await clock.advance(1.0)
    assert [(t.condition, t.present) for t in heard] == [("history-failed", True), ("history-failed", False)]
    assert [event.sequence for event in kept(path)] == [2]


async def test_a_locked_file_is_waited_for(tmp_path: Path) -> None:
    path, clock, heard = tmp_path / "alarms.db", ManualClock(), list[Any]()
    await keep(path, alarm(1))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with keeping(path, clock, busy_s=0.01, retry_s=1.0) as bus:
        bus.listen(heard.append, Technical)
        bus.publish(end(2, 4))
        await until(lambda: bool(heard))
        assert "locked" in heard[0].detail
        other.execute("COMMIT")
        other.close()
        await clock.advance(1.0)
        await until(lambda: len(heard) > 1)
    assert [event.sequence for event in kept(path)] == [1, 2]


def text_file(path: Path) -> None:
    path.write_text("this is a letter, not a database\n" * 100)


def later_version(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE alarm (x)")
        connection.execute(f"PRAGMA application_id = {history_store.APPLICATION}")
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def other_program(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (x)")
    connection.close()


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (text_file, "file is not a database"),
        (later_version, "later version of this program (schema 99, this one knows 4)"),
        (other_program, "database of another program"),
        (folder, "unable to open database file"),
    ],
)
async def test_a_file_that_is_no_history_is_an_alarm_and_stays_as_it_is(
    spoil: Callable[[Path], None], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ecgnat_stream.sink.history")
    path, heard = tmp_path / "alarms.db", list[Any]()
    spoil(path)
    before = path.read_bytes() if path.is_file() else b""
    async with keeping(path) as bus:
        other = bus.subscribe("another sink", Alarm)
        bus.listen(heard.append, Technical)
        bus.publish(alarm(1))
        await until(lambda: bool(heard))
        assert (await other.get()) == alarm(1)
    assert [(t.condition, t.present, t.bed) for t in heard] == [("history-failed", True, "")]
    assert said in heard[0].detail
    assert "1 alarm events and commands could not be written" in caplog.text
    assert (path.read_bytes() if path.is_file() else b"") == before
    with pytest.raises(SinkError, match=r"alarms\.db"):
        unfinished(path)


async def test_a_folder_that_cannot_be_made_is_an_alarm(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    heard: list[Any] = []
    async with keeping(tmp_path / "file" / "alarms.db") as bus:
        bus.listen(heard.append, Technical)
        await until(lambda: bool(heard))
    assert "file" in heard[0].detail


async def test_beyond_the_backlog_others_go_before_alarms_and_that_is_told_once_and_counted(tmp_path: Path) -> None:
    path, clock, heard = tmp_path / "alarms.db", ManualClock(), list[Any]()
    path.write_text("not a database, for now" * 100)
    bus = Bus()
    sink = HistorySink(HistoryConfig(path=str(path), backlog=10, retry_s=5.0), bus, clock)
    running = asyncio.create_task(sink.run())
    bus.listen(heard.append, Technical)
    await until(lambda: bool(heard))
    for second in range(5):
        bus.publish(Command(bed=BED, time=at(second), action="reset", source="desk"))
    for number in range(1, 10):
        bus.publish(alarm(number, number, phase="update"))
    await flushed(bus)
    assert [t.condition for t in heard] == ["history-failed", "history-failed"]
    assert (sink.lost, sink.alarms_lost) == (4, 0)
    for number in range(10, 31):
        bus.publish(alarm(number, number, phase="update"))
    await until(lambda: len(heard) > 2)
    await flushed(bus)
    path.unlink()
    await clock.advance(5.0)
    await until(lambda: len(heard) > 4)
    bus.close()
    await running
    assert [(t.condition, t.present) for t in heard[2:]] == [
        ("alarms-lost", True),
        ("alarms-lost", False),
        ("history-failed", False),
    ]
    assert [event.sequence for event in kept(path)] == list(range(21, 31))
    assert (sink.alarms_delivered, sink.alarms_lost, sink.subscription.alarms) == (10, 20, 30)
    with History(path) as history:
        assert history.lost() == 25
    said = sink.missing["history"]
    assert said.startswith(f"25 alarm events and commands (20 of alarms) were not written: {path}: file is not a database")


async def test_a_slow_disk_holds_a_recording_back_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "alarms.db"
    async with keeping(path, backlog=5) as bus:
        for number in range(1, 2001):
            bus.publish(alarm(number, number, phase="update"))
            await bus.drained()
    assert [event.sequence for event in kept(path)] == list(range(1, 2001))


async def test_old_alarms_are_forgotten_and_what_lasts_is_kept(tmp_path: Path) -> None:
    path, day = tmp_path / "alarms.db", 86400
    command = {"bed": BED, "action": "reset", "source": "desk"}
    await keep(
        path,
        *(alarm(1), end(2, 5), alarm(3, 10, condition="noise", alarm_id="n"), Command(time=at(0), correlation="c1", **command)),
        CommandResult(bed=BED, time=at(0), accepted=True, action="reset", source="desk", correlation="c1"),
        *(DeviceStatus(bed=BED, time=at(0), state="online"), DeviceStatus(bed=BED, time=at(9), state="offline")),
        *(
            alarm(4, 2 * day, alarm_id="b"),
            end(5, 2 * day + 3, alarm_id="b"),
            Command(time=at(2 * day), correlation="c2", **command),
        ),
        keep_days=0,
    )
    assert len(records(path)) == 3
    await keep(path, clock=ManualClock(wall=at(2.5 * day)), keep_days=1.0)
    assert [(r.condition, r.started) for r in records(path)] == [("noise", at(10)), ("asystole", at(2 * day))]
    assert [event.sequence for event in kept(path)] == [3, 4, 5]
    with History(path) as history:
        assert [c.time for c in history.commands()] == [at(2 * day)]
        assert history.watched_s() == {}
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM result").fetchone() == (0,)
    connection.close()


async def test_the_schema_is_brought_up_to_date_with_what_is_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "alarms.db"
    await keep(path, alarm(1))
    migrations = (*history_store.MIGRATIONS, "ALTER TABLE run ADD COLUMN host TEXT;\nUPDATE run SET host = 'here';\n")
    monkeypatch.setattr(history_store, "MIGRATIONS", migrations)
    await keep(path, end(2, 4), clock=ManualClock(wall=at(100)))
    assert len(kept(path)) == 2
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (5,)
        assert connection.execute("SELECT host FROM run ORDER BY id").fetchall() == [("here",), (None,)]
    connection.close()


def went(sequence: int, step: str, seconds: float, by: str = "") -> Delivery:
    return Delivery(bed=BED, time=at(seconds), event_id=f"{BED}:{sequence}", step=step, by=by)  # type: ignore[arg-type]


async def test_the_way_of_every_event_is_kept_with_its_first_times(tmp_path: Path) -> None:
    path = tmp_path / "alarms.db"
    way = [went(1, "published", 0.1), went(1, "at-broker", 0.2), went(1, "confirmed", 0.5, "central-1")]
    again = [went(1, "at-broker", 7), went(1, "confirmed", 8, "central-1"), went(1, "confirmed", 9, "central-2")]
    await keep(path, alarm(1), *way, alarm(2, 3), went(2, "published", 3.5), *again)
    with History(path) as history:
        first, second = history.deliveries()
        assert history.deliveries(Selection(priorities=("low",))) == []
    assert (first.detected, first.published, first.at_broker, first.confirmed) == (NOW, at(0.1), at(0.2), at(0.5))
    assert (first.event_id, first.confirmed_by) == (f"{BED}:1", "central-1")
    assert (second.published, second.at_broker, second.confirmed, second.confirmed_by) == (at(3.5), None, None, "")


async def test_a_file_of_the_first_schema_is_read_and_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "alarms.db"
    await keep(path, alarm(1))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "DROP TABLE delivery; ALTER TABLE monitored DROP COLUMN from_s; "
            "ALTER TABLE monitored DROP COLUMN to_s; ALTER TABLE monitored DROP COLUMN pace; PRAGMA user_version = 1;"
        )
    assert [record.duration_s for record in records(path)] == [0.0]
    assert unfinished(path) == ({BED: [alarm(1)]}, {BED: 1})
    with History(path) as history:
        assert history.deliveries() == []
    await keep(path, went(1, "confirmed", 2, "central-1"), clock=ManualClock(wall=at(100)))
    with History(path) as history:
        (way,) = history.deliveries()
    assert (way.published, way.confirmed, way.confirmed_by) == (None, at(2), "central-1")


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE event SET body = '{}'",
        "UPDATE event SET body = x'ff'",
        "UPDATE alarm SET started = 'noon'",
        "UPDATE alarm SET kind = 7",
        "UPDATE numbering SET sequence = 'many'",
    ],
)
async def test_what_a_damaged_file_holds_is_told_as_such(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "alarms.db"
    await keep(path, alarm(1))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(damage)
    with pytest.raises(SinkError, match="cannot be read as an alarm history"), History(path) as history:
        history.alarms()
        history.events()
        history.unfinished()


async def test_the_way_of_what_is_forgotten_is_forgotten(tmp_path: Path) -> None:
    path, day = tmp_path / "alarms.db", 86_400.0
    await keep(path, alarm(1), went(1, "at-broker", 1), end(2, 2), alarm(3, 3), went(3, "at-broker", 4))
    await keep(path, clock=ManualClock(wall=at(3 * day)), keep_days=1.0)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT event_id FROM delivery").fetchall() == [(f"{BED}:3",)]


async def test_an_interrupted_migration_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, heard = tmp_path / "alarms.db", list[Any]()
    await keep(path, alarm(1))
    monkeypatch.setattr(history_store, "MIGRATIONS", (*history_store.MIGRATIONS, "DROP TABLE result;\nDROP TABLE nothing;\n"))
    async with keeping(path) as bus:
        bus.listen(heard.append, Technical)
        await until(lambda: bool(heard))
    monkeypatch.undo()
    assert "nothing" in heard[0].detail
    assert kept(path) == [alarm(1)]
    await keep(path, end(2, 4))
    assert len(kept(path)) == 2


async def test_an_empty_file_is_an_empty_history(tmp_path: Path) -> None:
    path = tmp_path / "alarms.db"
    path.touch()
    with History(path) as history:
        assert (history.alarms(), history.events(), history.commands(), history.watched_s(), history.lost()) == (
            [],
            [],
            [],
            {},
            0,
        )
    await keep(path, alarm(1))
    assert len(records(path)) == 1


@pytest.mark.parametrize("poison", [{"sequence": 2**70}, {"alarm_id": object()}])
async def test_an_event_that_cannot_be_stored_keeps_no_other_waiting_and_is_told(poison: dict[str, Any], tmp_path: Path) -> None:
    path, heard, bus = tmp_path / "alarms.db", list[Any](), Bus()
    bus.listen(heard.append, Technical)
    sink = HistorySink(HistoryConfig(path=str(path)), bus, ManualClock())
    for event in (alarm(1), alarm(**{"sequence": 2, "event_id": "p", "alarm_id": "p"} | poison), end(3, 5)):
        bus.publish(event)
    bus.close()
    await sink.run()
    assert [event.sequence for event in kept(path)] == [1, 3]
    assert [(t.condition, t.present) for t in heard] == [("alarms-lost", True)]
    assert (sink.alarms_delivered, sink.alarms_lost) == (2, 1)


async def test_a_sink_that_failed_goes_on_where_it_was_when_it_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Exception):  # noqa: N818 - stands for a defect that nothing foresees
        pass

    def break_down(*_: object) -> None:
        raise Broken

    bus = Bus()
    sink = HistorySink(HistoryConfig(path=str(tmp_path / "alarms.db")), bus, ManualClock())
    bus.publish(alarm(1))
    with monkeypatch.context() as broken:
        broken.setattr(history_store.Store, "write", break_down)
        with pytest.raises(ExceptionGroup):
            await asyncio.wait_for(sink.run(), 15)
    bus.publish(end(2, 5))
    bus.close()
    await sink.run()
    assert [event.sequence for event in kept(tmp_path / "alarms.db")] == [1, 2]
    assert bus.statistics() == {}


async def test_a_cancelled_sink_leaves_no_lock_and_goes_on_when_it_is_run_again(tmp_path: Path) -> None:
    path = tmp_path / "alarms.db"
    bus = Bus()
    sink = HistorySink(HistoryConfig(path=str(path)), bus, ManualClock())
    running = asyncio.create_task(sink.run())
    bus.publish(alarm(1))
    await flushed(bus)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await keep(path, alarm(1))
    assert len(kept(path)) == 1
    bus.publish(end(2, 4))
    bus.close()
    await sink.run()
    assert len(kept(path)) == 2


async def test_a_disk_that_hangs_keeps_neither_the_loop_nor_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hang, bus = threading.Event(), Bus()
    ordinary = history_store.Store.write

    def write(*given: Any) -> Any:
        hang.wait(30)
        return ordinary(*given)

    monkeypatch.setattr(history_store.Store, "write", write)
    sink = HistorySink(HistoryConfig(path=str(tmp_path / "alarms.db")), bus, ManualClock())
    bus.publish(alarm(1))
    running = asyncio.create_task(sink.run())
    await flushed(bus)
    assert (sink.subscription.alarms, sink.alarms_delivered, sink.alarms_lost) == (1, 0, 0)
    running.cancel()
    _, late = await asyncio.wait([running], timeout=5)
    assert not late
    hang.set()
    bus.close()
    await sink.run()
    assert (sink.alarms_delivered, len(kept(tmp_path / "alarms.db"))) == (1, 1)


async def test_a_second_monitor_on_the_same_file_is_refused_and_the_first_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "alarms.db"
    async with keeping(path) as bus:
        await until(path.exists)
        second = HistorySink(HistoryConfig(path=str(path)), Bus(), ManualClock())
        with pytest.raises(SinkError, match=rf"alarms\.db: another monitor writes there \(process {os.getpid()}\)"):
            await second.prepare()
        bus.publish(alarm(1))
    await second.prepare()
    assert len(kept(path)) == 1


@pytest.mark.parametrize(("group", "modes"), [(False, (0o600, 0o700)), (True, (0o640, 0o750))])
async def test_the_file_is_private_or_the_groups_whatever_the_umask(
    group: bool, modes: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "alarms.db"
    before = os.umask(0)
    try:
        async with keeping(path, group=group) as bus:
            bus.publish(alarm(1))
            await until(lambda: path.exists() and len(kept(path)) == 1)
            names = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    lock = names.pop("alarms.db.lock")
    assert lock == 0o600
    assert names == dict.fromkeys(("alarms.db", "alarms.db-wal", "alarms.db-shm"), modes[0])
    assert path.parent.stat().st_mode & 0o777 == modes[1]


async def test_a_file_that_others_may_read_is_named_and_left_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "alarms.db"
    path.touch(0o644)
    path.chmod(0o644)
    await keep(path, alarm(1))
    assert "alarms.db can be read by others (mode 644)" in caplog.text
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_history_without_a_file_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"history\.path is empty"):
        HistoryConfig(path="")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"none\.db: there is no such file"):
        History(tmp_path / "none.db")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("/", "is a folder: name a file"),
        (".", "is a folder: name a file"),
        ("..", "is a folder: name a file"),
        ("/dev/full", "is a device: name a file"),
        ("/dev/null", "is a device: name a file"),
        ("/proc/self/mem", "cannot write to"),
        ("nodir/alarms.db", "there is no folder"),
        ("file/alarms.db", "Not a directory"),
        ("pipe", "is a pipe: name a file"),
        ("loop", "symbolic links"),
        ("folder", "is a folder: name a file"),
    ],
)
async def test_a_place_where_no_history_can_be_is_refused_at_the_start(
    place: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    sink = HistorySink(HistoryConfig(path=place), Bus(), ManualClock())
    with pytest.raises(SinkError, match=rf"history\.path \(--history\): .*{said}"):
        await sink.prepare()
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "loop", "pipe"]
    assert not {"full.lock", "full-journal", "null.lock", "null-journal"} & set(os.listdir("/dev"))


async def test_a_full_disk_at_the_start_is_an_alarm_and_the_monitor_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ecgnat_stream.sink.files.Claim.take", full)
    await HistorySink(HistoryConfig(path=str(tmp_path / "alarms.db")), Bus(), ManualClock()).prepare()
