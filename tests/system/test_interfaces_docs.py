"""Every example of docs/interfaces.md works as printed; only hosts, ports and the time of a recording are put in."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec
import numpy as np
import pytest

from ecgnat_stream import wire
from ecgnat_stream.bus import Bus
from ecgnat_stream.clock import ManualClock, SystemClock
from ecgnat_stream.config import parse_config
from ecgnat_stream.events import Alarm, Command, Delivery, Meta, Vitals, Wave
from ecgnat_stream.signal import SampleBlock
from ecgnat_stream.sink.mqtt import MqttConfig, MqttSink
from ecgnat_stream.sink.mqtt.home_assistant import discovery_topic
from ecgnat_stream.sink.record import RecordConfig, RecordSink
from ecgnat_stream.sink.zmq import ZmqConfig, ZmqSink

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "interfaces.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, flags=re.M | re.S)
BED = "home/icu/1"
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

pytestmark = pytest.mark.timeout(90)
needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def shell_lines(first_word: str) -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines() if line.startswith(first_word)]


def alarm() -> Alarm:
    values: dict[str, Any] = {"kind": "physiological", "priority": "high", "phase": "start", "presence": "on"}
    return Alarm(
        bed=BED, time=NOW, at_s=4.0, condition="asystole", text="asystole", sequence=1, alarm_id="a", event_id="e", **values
    )


@asynccontextmanager
async def running(sink: Any, bus: Bus) -> AsyncIterator[Bus]:
    task = asyncio.create_task(sink.run())
    try:
        yield bus
        bus.close()
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def mqtt(port: int, **options: Any) -> Any:
    bus = Bus()
    return running(
        MqttSink(MqttConfig(url=f"mqtt://127.0.0.1:{port}", linger_s=0.5, **options), bus, SystemClock(), beds=(BED,)), bus
    )


async def shell(line: str) -> str:
    """Run a line as printed and return its output."""
    process = await asyncio.create_subprocess_shell(line, stdout=subprocess.PIPE, env=ENVIRONMENT)
    async with asyncio.timeout(30):
        out, _ = await process.communicate()
    assert process.returncode == 0, line
    return out.decode()


def test_every_kind_of_example_has_a_test() -> None:
    kinds = [kind for kind, _ in BLOCKS]
    assert {kind: kinds.count(kind) for kind in kinds} == {"sh": 5, "json": 6, "": 1, "acl": 1, "toml": 3, "python": 2}
    first_words = {line.split()[0] for block in blocks("sh") for line in block.splitlines()}
    assert first_words == {"python", "mosquitto_sub", "mosquitto_pub", "jq"}


def test_the_messages_are_messages() -> None:
    vitals, status, event, request, confirmation, beat = blocks("json")
    found = [type(wire.decode_json(text.encode())) for text in (vitals, status, event, beat)]
    assert found == [Vitals, wire.BedStatus, Alarm, wire.Heartbeat]
    assert msgspec.json.decode(request, type=wire.CommandRequest).action == "pause"
    assert msgspec.json.decode(confirmation, type=wire.Confirmation).receiver == "central-1"


async def test_the_receivers_lines_print_alarms_and_confirm_them(broker: Any) -> None:
    code = next(text for text in blocks("python") if "Receiver" in text).replace("broker.example", f"127.0.0.1:{broker.port}")
    table = tomllib.loads(next(text for text in blocks("toml") if "confirm" in text))["mqtt"]
    bus = Bus()
    config = MqttConfig(confirm=table["confirm"], url=f"mqtt://127.0.0.1:{broker.port}", linger_s=0.5)
    delivered = bus.subscribe("test", Delivery)
    async with running(MqttSink(config, bus, SystemClock(), beds=(BED,)), bus):
        process = await asyncio.create_subprocess_exec(sys.executable, "-u", "-c", code, stdout=subprocess.PIPE, env=ENVIRONMENT)
        try:
            bus.publish(alarm())
            assert process.stdout is not None
            async with asyncio.timeout(60):
                assert "asystole" in (await process.stdout.readline()).decode()
                async for step in delivered:
                    if isinstance(step, Delivery) and step.step == "confirmed":
                        break
        finally:
            process.kill()
            await process.communicate()
    assert (step.event_id, step.by) == ("e", "central-1")


def test_the_configurations_are_accepted() -> None:
    for text in blocks("toml"):
        assert parse_config(tomllib.loads(text)).mqtt is not None


async def test_the_schema_is_made_by_its_line(tmp_path: Path) -> None:
    (line,) = shell_lines("python -m")
    (tmp_path / "docs" / "schema").mkdir(parents=True)
    await shell(f"cd {tmp_path} && {line}")
    made = (tmp_path / "docs" / "schema" / "messages.json").read_text()
    assert made == (ROOT / "docs" / "schema" / "messages.json").read_text()


@needs_jq
async def test_the_subscriber_lines_print_what_they_say(broker: Any) -> None:
    printed = []
    async with mqtt(broker.port) as bus:
        bus.publish(alarm())
        bus.publish(Vitals(bed=BED, time=NOW, heart_rate_bpm=60))
        for line in [line for line in shell_lines("mosquitto_sub") if "xargs" not in line]:
            here = line.replace("mosquitto_sub -h localhost", f"mosquitto_sub -h 127.0.0.1 -p {broker.port} -C 1 -W 20")
            reading = asyncio.create_task(shell(here))
            while not (await asyncio.wait([reading], timeout=0.2))[0]:
                bus.publish(alarm())  # the events are not retained
            printed.append(reading.result())
    state, vitals, event = printed
    assert state.startswith(f"ecg/v1/{BED}/alarm/state/asystole {{")
    assert vitals == f"{BED}\t60\n"
    assert json.loads(event) == ["2026-01-01T12:00:00Z", BED, "asystole", "start"]


@pytest.mark.skipif(shutil.which("xargs") is None, reason="xargs is not installed")
async def test_the_clearing_line_takes_off_what_one_name_left_and_nothing_else(broker: Any) -> None:
    (line,) = [line for line in shell_lines("mosquitto_sub") if "xargs" in line]
    here = line.replace("-h localhost", f"-h 127.0.0.1 -p {broker.port}")
    assert "localhost" not in here
    gone, there = "ecg/v1/hospital/engine/OLD-NAME", "ecg/v1/hospital/engine/OLD-NAME-2/status"
    async with aiomqtt.Client("127.0.0.1", broker.port) as client:
        for topic in (f"{gone}/status", f"{gone}/alarm/state/clock-jump", f"{gone}/alarm/summary", there):
            await client.publish(topic, b"{}", qos=1, retain=True)
        for _ in range(2):  # with nothing left to clear it is no error
            await shell(here)
            assert await broker.subscribe("ecg/v1/#", 1, "--retained-only") == [(there, {})]
        await client.subscribe("ecg/v1/#", qos=1)
        await client.publish("ecg/v1/last", b"", qos=1)
        async with asyncio.timeout(15):
            heard = [(await anext(client.messages)).topic.value for _ in range(2)]
    assert heard == [there, "ecg/v1/last"]


async def test_the_publisher_lines_acknowledge_and_remove(broker: Any) -> None:
    acknowledge, remove = (
        line.replace("-h localhost", f"-h 127.0.0.1 -p {broker.port}") for line in shell_lines("mosquitto_pub")
    )
    async with mqtt(broker.port) as bus:
        heard = bus.subscribe("test", Command)
        bus.publish(Vitals(bed=BED, time=NOW, heart_rate_bpm=60))
        await broker.subscribe(f"ecg/v1/{BED}/vitals", 1)
        await shell(acknowledge)
        async with asyncio.timeout(15):
            command = await heard.get()
    assert isinstance(command, Command)
    assert (command.bed, command.action, command.source) == (BED, "acknowledge", "desk")
    async with aiomqtt.Client("127.0.0.1", broker.port) as client:
        await client.subscribe("homeassistant/#")
        await shell(remove)
        async with asyncio.timeout(15):
            message = await anext(client.messages)
    assert (message.topic.value, message.payload) == (discovery_topic(BED), b"")


@pytest.mark.skipif(shutil.which("mosquitto_passwd") is None, reason="mosquitto_passwd is not installed")
async def test_the_access_list_gives_a_bed_to_its_own_account_only(
    start_mosquitto: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules, accounts = tmp_path / "acl", tmp_path / "accounts"
    rules.write_text(blocks("acl")[0])
    accounts.touch()
    for user in ("monitor", "bed1"):
        await shell(f"mosquitto_passwd -b {accounts} {user} {user}-password")
    server = await start_mosquitto(f"allow_anonymous false\npassword_file {accounts}\nacl_file {rules}")
    monkeypatch.setenv("ECGNAT_MQTT_USER", "monitor")
    monkeypatch.setenv("ECGNAT_MQTT_PASSWORD", "monitor-password")
    person = aiomqtt.Client("127.0.0.1", server.port, username="bed1", password="bed1-password")
    async with mqtt(server.port, home_assistant=True) as bus, person:
        heard = bus.subscribe("test", Command)
        await person.subscribe("ecg/v1/#", qos=1)
        for bed in ("home/icu/2", BED):
            bus.publish(Vitals(bed=bed, time=NOW, heart_rate_bpm=60))
        topics = []
        async with asyncio.timeout(15):
            while f"ecg/v1/{BED}/vitals" not in topics:
                topics.append((await anext(person.messages)).topic.value)
            assert all(topic.startswith(f"ecg/v1/{BED}/") for topic in topics)
            # The other bed's command and vitals were sent first.
            for bed in ("home/icu/2", BED):
                await person.publish(f"ecg/v1/{bed}/alarm/command", b'{"action": "acknowledge"}', qos=1)
            command = await heard.get()
        assert isinstance(command, Command)
        assert command.bed == BED


async def test_the_zeromq_lines_print_what_comes() -> None:
    bus = Bus()
    sink = ZmqSink(ZmqConfig(bind="tcp://127.0.0.1:*"), bus, SystemClock())
    async with running(sink, bus):
        bus.publish(Vitals(bed=BED, time=NOW, heart_rate_bpm=60))
        code = next(text for text in blocks("python") if "import zmq" in text)
        assert "tcp://127.0.0.1:5556" in code
        async with asyncio.timeout(30):
            code = code.replace("tcp://127.0.0.1:5556", await sink.endpoint())
            process = await asyncio.create_subprocess_exec(sys.executable, "-u", "-c", code, stdout=subprocess.PIPE)
            try:
                assert process.stdout is not None
                line = (await process.stdout.readline()).decode()
            finally:
                process.kill()
                await process.communicate()
    topic, number, length = line.split()
    assert (topic, int(number) % 2**20) == (f"ecg/v1/{BED}/vitals", 1)
    assert int(length) > 50


@needs_jq
async def test_the_recording_lines_read_a_recording(tmp_path: Path) -> None:
    bus = Bus()
    sink = RecordSink(RecordConfig(directory=str(tmp_path / "recordings")), bus, ManualClock(wall=NOW))
    with bus:
        bus.publish(
            Meta(bed=BED, time=NOW, leads=("II",), used_as=("II",), fs=250.0, uv_per_lsb=5.0, device="d", live=True, session=1)
        )
        samples = np.zeros((1, 250), np.float32)
        bus.publish(Wave(BED, NOW + timedelta(seconds=1), 250.0, ("II",), 5.0, SampleBlock(0, samples, 2_000_000_000)))
        bus.publish(alarm())
    await sink.run()
    read, select = shell_lines("python -c")[0], shell_lines("jq")[0]
    assert "'sig_name': ['II']" in await shell(f"cd {tmp_path} && {read}")
    assert json.loads(await shell(f"cd {tmp_path} && {select}")) == [4.0, "asystole", "start"]
