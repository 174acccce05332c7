"""``ecgnat alarms`` and ``ecgnat command`` as a person and a script meet them."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import re
import shlex
import signal
import sqlite3
import sys
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiomqtt
import numpy as np
import pytest
import wfdb

from ecgnat_stream.bus import Bus
from ecgnat_stream.cli import main, parser
from ecgnat_stream.clock import ManualClock, SystemClock
from ecgnat_stream.config import parse_config
from ecgnat_stream.events import Alarm, Command, CommandResult, Delivery, DeviceStatus, Vitals
from ecgnat_stream.sink.history import HistoryConfig, HistorySink
from ecgnat_stream.sink.mqtt import MqttConfig, MqttSink
from ecgnat_stream.sink.mqtt.broker import EmbeddedBroker

if TYPE_CHECKING:
    from tests.system.conftest import Mosquitto

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "history.md").read_text(encoding="utf-8")
START = datetime(2026, 1, 1, 6, tzinfo=UTC)
BED, OTHER = "home/icu/1", "home/icu/2"

pytestmark = pytest.mark.timeout(120)


def ecgnat(*arguments: str) -> int:
    """Run a command in this process and return its exit code."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    code = end.value.code
    return code if isinstance(code, int) else 0


@asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command as a user does; killed at the end if it still runs."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ecgnat_stream.cli", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        limit=2**20,
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
            await running.communicate()


async def result(*arguments: str) -> tuple[int, str, str]:
    """Run a command as a user does and return its exit code, output and errors."""
    async with process(*arguments) as running:
        out, errors = await running.communicate()
    assert running.returncode is not None
    assert "Traceback" not in errors.decode()
    return running.returncode, out.decode(), errors.decode()


def alarm(bed: str, number: int, seconds: float, phase: Any, presence: Any, condition: str, priority: Any, by: str = "") -> Alarm:
    return Alarm(
        bed=bed,
        time=START + timedelta(seconds=seconds),
        at_s=seconds,
        condition=condition,
        kind="physiological",
        priority=priority,
        phase=phase,
        presence=presence,
        text=f"{condition} [1 of 2]",
        sequence=number,
        alarm_id=f"{bed}:{condition}",
        event_id=f"{bed}:{number}",
        by=by,
    )


def shift() -> list[Any]:
    """Two beds, twelve hours each: an asystole that is acknowledged after 20 s, one that is not, a tachycardia that lasts."""
    bell = "\x1b[31m\a"
    events: list[Any] = []
    for bed in (BED, OTHER):
        events += [
            DeviceStatus(bed=bed, time=START, state="online"),
            Vitals(bed=bed, time=START + timedelta(hours=12), heart_rate_bpm=60),
        ]
    return [
        *events,
        alarm(BED, 1, 100, "start", "on", "asystole", "high"),
        *(
            Delivery(bed=BED, time=START + timedelta(seconds=after_s), event_id=f"{BED}:1", step=step, by=by)
            for after_s, step, by in ((100.01, "published", ""), (100.02, "at-broker", ""), (100.05, "confirmed", "central-1"))
        ),
        Command(bed=BED, time=START + timedelta(seconds=120), action="acknowledge", source="nurse 7", correlation="c"),
        CommandResult(
            bed=BED, time=START + timedelta(seconds=120), accepted=True, action="acknowledge", source="nurse 7", correlation="c"
        ),
        alarm(BED, 2, 120, "update", "acknowledged", "asystole", "high", by="nurse 7"),
        alarm(BED, 3, 150, "end", "off", "asystole", "high"),
        alarm(OTHER, 1, 200, "start", "on", "asystole", "high"),
        alarm(OTHER, 2, 230, "end", "off", "asystole", "high"),
        alarm(OTHER, 3, 7200, "start", "on", "tachycardia", "medium"),
        Command(bed=OTHER, time=START + timedelta(hours=3), action="pause", duration_s=60.0, source=bell, correlation="d"),
    ]


async def write(path: Path, *events: Any) -> None:
    bus = Bus()
    sink = HistorySink(HistoryConfig(path=str(path), keep_days=0), bus, ManualClock())
    for event in events:
        bus.publish(event)
    bus.close()
    await sink.run()


@pytest.fixture
def database(tmp_path: Path) -> str:
    """Return the path of a history of one shift."""
    path = tmp_path / "alarms.db"
    asyncio.run(write(path, *shift()))
    return str(path)


SHELL = [
    line.partition("  #")[0].strip() for block in re.findall(r"```sh\n(.*?)```", PAGE, flags=re.S) for line in block.splitlines()
]


@pytest.mark.parametrize("line", [line for line in SHELL if line.startswith("ecgnat")])
def test_the_commands_of_the_page_are_understood(line: str) -> None:
    parser().parse_args(shlex.split(line.partition(" > ")[0])[1:])


@pytest.mark.parametrize("line", [line for line in SHELL if line.startswith("sqlite3")])
def test_the_queries_of_the_page_find_something(line: str, database: str, tmp_path: Path) -> None:
    query = shlex.split(line)[-1]
    with closing(sqlite3.connect(f"{Path(database).as_uri()}?mode=ro", uri=True)) as connection:
        if query.startswith(".backup"):
            with closing(sqlite3.connect(tmp_path / query.split()[1])) as copy:
                connection.backup(copy)
            assert ecgnat("alarms", str(tmp_path / "copy.db"), "--json") == 0
        else:
            # The technical alarm that the first query counts is not in the shift.
            assert bool(connection.execute(query).fetchall()) is ("technical" not in query)


def test_the_configuration_of_the_page_is_accepted() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.S)
    assert parse_config(tomllib.loads(text)).history is not None


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_person_reads_a_line_per_alarm(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ecgnat("alarms", database) == 0
    out = capsys.readouterr().out
    title, *lines = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines() if line.strip() and "─" not in line]
    assert title == ["3 alarms, home/icu on 2026-01-01"]
    assert lines == [
        ["start (UTC)", "end", "lasted", "bed", "alarm", "acknowledged"],
        ["06:01:40", "06:02:30", "50.0 s", "1", "*** asystole [1 of 2]", "nurse 7 after 20.0 s"],
        ["06:03:20", "06:03:50", "30.0 s", "2", "*** asystole [1 of 2]", "-"],
        ["08:00:00", "still on", "10:00:00", "2", "** tachycardia [1 of 2]", "-"],
    ]


def test_a_program_reads_an_object_per_alarm(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ecgnat("alarms", database, "--json", "--bed", "1") == 0
    assert rows(capsys.readouterr().out) == [
        {
            "type": "alarm-record",
            "bed": BED,
            "condition": "asystole",
            "kind": "physiological",
            "priority": "high",
            "presence": "off",
            "text": "asystole [1 of 2]",
            "started": "2026-01-01T06:01:40Z",
            "at_s": 100.0,
            "ended": "2026-01-01T06:02:30Z",
            "ending": "end",
            "duration_s": 50.0,
            "acknowledged": "2026-01-01T06:02:00Z",
            "acknowledged_by": "nurse 7",
            "acknowledged_after_s": 20.0,
            "alarm_id": "home/icu/1:asystole",
        }
    ]


@pytest.mark.parametrize(
    ("options", "beds"),
    [
        ([], [BED, OTHER, OTHER]),
        (["--bed", "*/icu/2"], [OTHER, OTHER]),
        (["--condition", "asystole"], [BED, OTHER]),
        (["--condition", "asystole", "--condition", "tachycardia"], [BED, OTHER, OTHER]),
        (["--priority", "medium"], [OTHER]),
        (["--since", "2026-01-01T06:02"], [OTHER, OTHER]),
        (["--since", "2026-01-01T07:02+01:00", "--until", "2026-01-01 07:00:00"], [OTHER]),
        (["--since", "1s", "--until", "2100-01-01"], []),
        (["--active"], [OTHER]),
    ],
)
def test_alarms_are_chosen(options: list[str], beds: list[str], database: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ecgnat("alarms", database, "--json", *options) == 0
    assert [row["bed"] for row in rows(capsys.readouterr().out)] == beds


def test_a_span_is_counted_back_from_now(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    days = (datetime.now(UTC) - START).days
    assert ecgnat("alarms", database, "--json", "--since", f"{days + 2}d") == 0
    assert len(rows(capsys.readouterr().out)) == 3
    assert ecgnat("alarms", database, "--json", "--since", f"{days - 1}d") == 0
    assert rows(capsys.readouterr().out) == []


def test_events_are_those_of_the_bus(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ecgnat("alarms", database, "--events", "--json", "--active") == 0
    (event,) = rows(capsys.readouterr().out)
    assert (event["type"], event["phase"], event["sequence"], event["codes"]) == ("alarm", "start", 3, {})
    assert ecgnat("alarms", database, "--events") == 0
    out = capsys.readouterr().out
    assert "6 events" in out
    assert re.search(r"06:02:00 +120\.0 s +1 +update +acknowledged +\*\*\* asystole \[1 of 2\] +nurse 7", out)


def test_commands_are_told_with_their_answers_and_cannot_move_the_cursor(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ecgnat("alarms", database, "--commands") == 0
    out = capsys.readouterr().out
    assert re.search(r"06:02:00 +1 +acknowledge +all +nurse 7 +accepted", out)
    assert re.search("09:00:00 +2 +pause 60 s +all +\N{REPLACEMENT CHARACTER} +no answer", out)
    assert ecgnat("alarms", database, "--commands", "--json", "--bed", "1") == 0
    (command,) = rows(capsys.readouterr().out)
    assert (command["action"], command["source"], command["accepted"]) == ("acknowledge", "nurse 7", True)


def test_the_summary_counts_per_bed_day(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ecgnat("alarms", database, "--summary", "--json") == 0
    high, medium = rows(capsys.readouterr().out)
    assert high == {
        "type": "alarm-summary-row",
        "condition": "asystole",
        "priority": "high",
        "alarms": 2,
        "per_bed_day": 2.0,
        "on_s": 80.0,
        "acknowledged": 1,
        "acknowledge_median_s": 20.0,
        "bed_days": 1.0,
    }
    assert (medium["condition"], medium["on_s"], medium["acknowledge_median_s"]) == ("tachycardia", 36000.0, None)
    assert ecgnat("alarms", database, "--summary", "--until", "2026-01-01T07:00", "--bed", "2") == 0
    out = capsys.readouterr().out
    assert "1 alarm; beds were watched for 0.0417 days in all" in out
    assert re.search(r"high +asystole +1 +24\.0 +30\.0 s +0 +-", out)


def test_the_way_of_an_event_is_told_with_its_times(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ecgnat("alarms", database, "--delivery") == 0
    out = capsys.readouterr().out
    assert re.search(r"06:01:40 +1 +\*\*\* asystole +start +\+0\.01 s +\+0\.02 s +\+0\.05 s +central-1", out)
    assert re.search(r"06:02:30 +1 +\*\*\* asystole +end +- +- +- +-", out)
    assert ecgnat("alarms", database, "--delivery", "--json", "--bed", "1", "--until", "2026-01-01T06:02") == 0
    (way,) = rows(capsys.readouterr().out)
    assert way["detected"] == "2026-01-01T06:01:40Z"
    assert (way["at_broker"], way["confirmed_by"]) == ("2026-01-01T06:01:40.020000Z", "central-1")


@pytest.mark.parametrize("what", [[], ["--events"], ["--delivery"], ["--commands"], ["--summary"]])
def test_csv_has_the_same_columns_as_json(what: list[str], database: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ecgnat("alarms", database, "--json", *what) == 0
    objects = rows(capsys.readouterr().out)
    assert ecgnat("alarms", database, "--csv", *what) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(table) == len(objects) > 0
    for line, values in zip(table, objects, strict=True):
        assert list(line) == [key for key in values if key != "type"]
        assert {key: text for key, text in line.items() if text} == {
            key: json.dumps(value) if isinstance(value, dict) else str(value)
            for key, value in values.items()
            if key != "type" and value not in (None, "")
        }


@pytest.mark.parametrize("what", [[], ["--events"], ["--commands"]])
def test_what_a_person_calls_himself_is_no_formula_and_moves_no_cursor(
    what: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, name = str(tmp_path / "alarms.db"), '=HYPERLINK("http://x","nurse 7")'
    asyncio.run(write(Path(path), *shift()))
    with closing(sqlite3.connect(path)) as connection, connection:
        # As a program that is not ours would write it.
        connection.execute("UPDATE alarm SET acknowledged_by = ?, text = ?", (name, "\x9b2Jall is well"))
        connection.execute("UPDATE command SET source = ?", (name,))
        connection.execute("UPDATE event SET body = json_set(body, '$.by', ?)", (name,))
    assert ecgnat("alarms", path, "--csv", *what) == 0
    out = capsys.readouterr().out
    cells = [cell for line in csv.reader(io.StringIO(out)) for cell in line]
    assert f"'{name}" in cells
    assert not [cell for cell in cells if cell.startswith("=")]
    assert ecgnat("alarms", path, "--json", *what) == 0
    assert "\x9b" not in out + capsys.readouterr().out


@pytest.mark.parametrize("what", [[], ["--events"], ["--delivery"], ["--commands"], ["--summary"], ["--active"], ["--json"]])
def test_an_empty_history_is_no_mistake(what: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(write(tmp_path / "written.db"))
    (tmp_path / "empty.db").touch()
    for name in ("written.db", "empty.db"):
        assert ecgnat("alarms", str(tmp_path / name), *what) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        assert captured.out == "" if what == ["--json"] else "0 " in captured.out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["none.db"], 1, "none.db: there is no such file"),
        (["letter.db"], 1, "letter.db: cannot be read as an alarm history: file is not a database"),
        (["DB", "--since", "yesterday"], 2, "'yesterday' is no time: write 30m, 2h, 7d"),
        (["DB", "--since", "99999999999999h"], 2, "is no time"),
        (["DB", "--since", "2026-01-02", "--until", "2026-01-01"], 2, "is not before --until"),
        (["DB", "--priority", "urgent"], 2, "unknown value 'urgent'"),
        (["DB", "--json", "--csv"], 2, "not allowed with"),
        (["DB", "--summary", "--events"], 2, "not allowed with"),
        (["DB", "--active", "--summary"], 2, "--active goes with"),
        (["DB", "--follow", "--csv"], 2, "--follow prints lines or JSON"),
    ],
)
def test_mistakes_end_with_a_clear_line(
    arguments: list[str],
    code: int,
    said: str,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(Path(database).parent)
    Path("letter.db").write_text("Dear monitor, " * 100)
    assert ecgnat("alarms", *(database if part == "DB" else part for part in arguments)) == code
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_lost_events_are_told(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE run SET lost = 12")
    assert ecgnat("alarms", database, "--json") == 0
    assert "12 events are missing" in capsys.readouterr().err


@pytest.mark.parametrize(("form", "first"), [([], "2026-01-02 "), (["--json"], '{"type":"alarm",')])
async def test_a_reader_follows_a_monitor_that_writes(form: list[str], first: str, tmp_path: Path) -> None:
    path = tmp_path / "alarms.db"
    await write(path, *shift())
    bus = Bus()
    sink = HistorySink(HistoryConfig(path=str(path)), bus, SystemClock())
    writing = asyncio.create_task(sink.run())

    def event(number: int) -> Alarm:
        values = {"kind": "technical", "priority": "low", "presence": "on", "text": "\x1b[2J noise", "phase": "start"}
        time = START + timedelta(days=1, seconds=number)
        identity = {"alarm_id": f"n{number}", "event_id": f"n{number}", "sequence": number}
        return Alarm(bed=BED, time=time, condition="noise", **values, **identity)  # type: ignore[arg-type]

    async def publish() -> None:
        number = 0
        while True:
            bus.publish(event(number))
            number += 1
            await asyncio.sleep(0.05)

    async with process("alarms", str(path), "--follow", "--condition", "noise", *form) as reader, asyncio.timeout(60):
        publishing = asyncio.create_task(publish())
        assert reader.stdout is not None
        lines = [(await reader.stdout.readline()).decode() for _ in range(5)]
        publishing.cancel()
        reader.send_signal(signal.SIGINT)
        _, errors = await reader.communicate()
    bus.close()
    await writing
    assert reader.returncode == 130
    assert b"Traceback" not in errors
    assert all("\x1b" not in line for line in lines)
    assert lines[0].startswith(first)
    seconds = [int(re.findall(r"06:00:(\d\d)", line)[0]) for line in lines]
    assert seconds == list(range(seconds[0], seconds[0] + 5))


# Commands over MQTT.


@asynccontextmanager
async def answering(url: str, answer: Callable[[Command], CommandResult | None], **options: Any) -> AsyncIterator[list[Command]]:
    """A monitor's MQTT sink whose alarm stage is ``answer``; gives the commands that came."""
    bus, came = Bus(), list[Command]()
    sink = MqttSink(MqttConfig(url=url, linger_s=0.2, **options), bus, SystemClock(), worker="w1", beds=(BED,))
    running = asyncio.create_task(sink.run())
    commands = bus.subscribe("test", Command)

    async def obey() -> None:
        async for command in commands:
            assert isinstance(command, Command)
            came.append(command)
            reply = answer(command)
            if reply is not None:
                bus.publish(reply)

    obeying = asyncio.create_task(obey())
    try:
        yield came
        bus.close()
        await asyncio.gather(running, obeying)
    finally:
        running.cancel()
        await asyncio.gather(running, obeying, return_exceptions=True)


def reply(command: Command, *, accepted: bool, reason: str = "") -> CommandResult:
    return CommandResult(
        bed=command.bed,
        time=command.time,
        accepted=accepted,
        action=command.action,
        reason=reason,
        source=command.source,
        correlation=command.correlation,
    )


async def connected(url: str) -> None:
    """Wait until a monitor has said on the broker that it is there."""
    port = int(url.rpartition(":")[2])
    async with asyncio.timeout(20), aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe("ecg/v1/home/engine/w1/status", qos=1)
        await anext(client.messages)


async def test_an_accepted_command_names_who_gave_it(broker: Mosquitto) -> None:
    async with answering(broker.url, lambda command: reply(command, accepted=True)) as came:
        await connected(broker.url)
        given = ("--bed", BED, "--condition", "asystole", "--duration", "60", "--by", "nurse 7", "--mqtt", broker.url)
        code, out, errors = await result("command", "pause", *given)
    assert (code, out, errors) == (0, "accepted: pause asystole of home/icu/1\n", "")
    (command,) = came
    assert (command.bed, command.action, command.condition, command.duration_s) == (BED, "pause", "asystole", 60.0)
    assert command.source == "nurse 7"


async def test_a_refusal_tells_why_and_fails(broker: Mosquitto, tmp_path: Path) -> None:
    config = tmp_path / "ward.toml"
    config.write_text(f'[mqtt]\nurl = "{broker.url}"\n')
    async with answering(broker.url, lambda command: reply(command, accepted=False, reason="nothing to acknowledge")) as came:
        await connected(broker.url)
        code, out, _ = await result("command", "acknowledge", "--bed", BED, "--config", str(config), "--json")
    assert code == 1
    answer = json.loads(out)
    assert (answer["type"], answer["accepted"], answer["reason"]) == ("command-result", False, "nothing to acknowledge")
    assert came[0].source != ""


async def test_of_two_monitors_the_one_that_has_the_bed_counts(broker: Mosquitto) -> None:
    def refuse(command: Command) -> CommandResult:
        return reply(command, accepted=False, reason="no such bed here")

    def accept(command: Command) -> CommandResult:
        return reply(command, accepted=True)

    async with answering(broker.url, refuse, client_id="a"), answering(broker.url, accept, client_id="b") as came:
        await connected(broker.url)
        for _ in range(3):
            code, out, _ = await result("command", "reset", "--bed", BED, "--mqtt", broker.url)
            assert (code, out) == (0, "accepted: reset all alarms of home/icu/1\n")
    assert len(came) == 3


async def test_a_broker_of_the_older_protocol_will_do() -> None:
    async with EmbeddedBroker() as server:
        async with answering(server.url, lambda command: reply(command, accepted=True), protocol="3.1.1") as came:
            await connected(server.url)
            code, out, errors = await result("command", "resume", "--bed", BED, "--mqtt", server.url)
        assert (code, out) == (0, "accepted: resume all alarms of home/icu/1\n"), errors
        assert len(came) == 1


async def test_a_command_for_a_bed_that_nobody_has_says_so(broker: Mosquitto) -> None:
    code, out, errors = await result("command", "reset", "--bed", BED, "--mqtt", broker.url)
    assert (code, out) == (1, "")
    assert errors == f"ecgnat: nobody takes commands for {BED}: no monitor with this bed is connected to the broker\n"


async def test_without_an_answer_the_command_fails(broker: Mosquitto) -> None:
    async with answering(broker.url, lambda _: None):
        await connected(broker.url)
        code, out, errors = await result("command", "reset", "--bed", BED, "--mqtt", broker.url, "--timeout", "0.3")
    assert (code, out) == (1, "")
    assert errors.startswith(f"ecgnat: no answer within 0.3 s: is there a monitor of {BED}, and is it connected to 127.0.0.1:")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["reset", "--bed", "1", "--mqtt", "mqtt://a"], 2, "--bed 1: write site/unit/bed"),
        (["reset", "--bed", "a/+/c", "--mqtt", "mqtt://a"], 2, "--bed a/+/c: write site/unit/bed"),
        (["reset", "--bed", "a/b/c", "--mqtt", "http://a"], 2, "argument --mqtt: scheme 'http' is not known"),
        (["reset", "--bed", "a/b/c", "--mqtt", "mqtt://u:secret@a"], 2, "argument --mqtt: holds a password"),
        (["reset", "--bed", "a/b/c"], 2, "one of the arguments --mqtt --config is required"),
        (["reset", "--bed", "a/b/c", "--config", "none.toml"], 2, "none.toml: cannot be read"),
        (["reset", "--bed", "a/b/c", "--duration", "9", "--mqtt", "mqtt://a"], 2, "--duration goes with pause"),
        (["pause", "--bed", "a/b/c", "--duration", "601", "--mqtt", "mqtt://a"], 2, "--duration 601: above 0 and at most 600 s"),
        (["pause", "--bed", "a/b/c", "--timeout", "nan", "--mqtt", "mqtt://a"], 2, "--timeout nan"),
        (["snooze", "--bed", "a/b/c", "--mqtt", "mqtt://a"], 2, "unknown value 'snooze'"),
    ],
)
def test_mistakes_in_a_command_are_told(arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ecgnat("command", *arguments) == code
    error = capsys.readouterr().err
    assert said in error
    assert "secret" not in error
    assert "Traceback" not in error


def test_a_broker_that_is_not_there_is_told(free_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert ecgnat("command", "reset", "--bed", BED, "--mqtt", f"mqtt://127.0.0.1:{free_port}") == 1
    assert f"ecgnat: 127.0.0.1:{free_port}: " in capsys.readouterr().err


async def test_a_running_monitor_is_commanded_and_remembers_it(broker: Mosquitto, untrained: Path, tmp_path: Path) -> None:
    """The whole way: beats that stop, a nurse at another machine, the history after the monitor was killed."""
    t = np.arange(90 * 250) / 250
    beats = sum(np.exp(-0.5 * ((t - k - 0.4) / 0.012) ** 2) for k in range(6))
    samples = (np.asarray(beats) + 0.01 * np.random.default_rng(0).standard_normal(t.size))[:, None]
    wfdb.wrsamp("arrest", fs=250, units=["mV"], sig_name=["II"], p_signal=samples, fmt=["16"], write_dir=str(tmp_path))
    path, config = tmp_path / "alarms.db", tmp_path / "ward.toml"
    config.write_text(f"""
site = "home"
unit = "icu"
bed = [{{ id = "1", device = "replay", options = {{ path = "{tmp_path / "arrest"}" }} }}]
mqtt = {{ url = "{broker.url}" }}
history = {{ path = "{path}" }}
model = {{ name = "{untrained}" }}
""")
    port = int(broker.url.rpartition(":")[2])
    async with process("run", str(config), "--headless") as monitor, asyncio.timeout(100):
        reading = asyncio.create_task(monitor.communicate())
        async with aiomqtt.Client("127.0.0.1", port) as client:
            await client.subscribe(f"ecg/v1/{BED}/alarm/state/asystole", qos=1)
            alarmed = asyncio.ensure_future(anext(client.messages))
            await asyncio.wait((alarmed, reading), return_when=asyncio.FIRST_COMPLETED)
            assert alarmed.done(), reading.result()[1].decode()
        code, out, errors = await result("command", "acknowledge", "--bed", BED, "--by", "nurse 7", "--config", str(config))
        assert (code, out) == (0, f"accepted: acknowledge all alarms of {BED}\n"), errors
        answered = False
        while not answered:
            _, out, _ = await result("alarms", str(path), "--commands", "--json")
            answered = any(row["accepted"] for row in rows(out))
        monitor.kill()
        await reading
    assert [(row["action"], row["source"]) for row in rows(out)] == [("acknowledge", "nurse 7")]
    _, out, _ = await result("alarms", str(path), "--active", "--condition", "asystole", "--json")
    (alarm,) = rows(out)
    assert (alarm["bed"], alarm["priority"], alarm["ended"], alarm["acknowledged_by"]) == (BED, "high", None, "nurse 7")
