"""The MQTT sink with the embedded broker (3.1.1), its configuration, and brokers that are not there."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiomqtt
import numpy as np
import pytest

from ecgnat_stream import wire
from ecgnat_stream.bus import Bus
from ecgnat_stream.clock import ManualClock, SystemClock
from ecgnat_stream.errors import ConfigError, SinkError
from ecgnat_stream.events import Alarm, Command, CommandResult, DeviceStatus, Technical, Vitals, Wave
from ecgnat_stream.signal import SampleBlock
from ecgnat_stream.sink.mqtt import MqttConfig, MqttSink, client
from ecgnat_stream.sink.mqtt.broker import EmbeddedBroker
from ecgnat_stream.sink.mqtt.config import broker_access
from ecgnat_stream.sink.mqtt.home_assistant import discovery_topic
from ecgnat_stream.testing import flushed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BED = "home/icu/1"
ROOT = "ecg/v1/home/icu/1"

pytestmark = pytest.mark.timeout(60)


@asynccontextmanager
async def running(config: MqttConfig) -> AsyncIterator[Bus]:
    bus = Bus()
    task = asyncio.create_task(MqttSink(config, bus, SystemClock(), worker="w1", beds=(BED,)).run())
    try:
        yield bus
        bus.close()
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def first(client: aiomqtt.Client, topic: str) -> Any:
    """Return the first message of a topic."""
    async with asyncio.timeout(15):
        async for message in client.messages:
            if message.topic.value == topic:
                return message.payload
    raise AssertionError("the broker has gone")


async def test_the_embedded_broker_serves_state_waves_and_commands_over_3_1_1() -> None:
    async with (
        EmbeddedBroker() as broker,
        running(MqttConfig(url=broker.url)) as bus,
        aiomqtt.Client(broker.host, broker.port) as client,
    ):
        bus.publish(DeviceStatus(bed=BED, time=NOW, state="online", session=1))
        bus.publish(Vitals(bed=BED, time=NOW, heart_rate_bpm=60))
        await client.subscribe(f"{ROOT}/#", qos=1)
        assert json.loads(await first(client, f"{ROOT}/vitals"))["heart_rate_bpm"] == 60
        async with aiomqtt.Client(broker.host, broker.port) as late:
            await late.subscribe(f"{ROOT}/+", qos=1)
            missing = {f"{ROOT}/vitals", f"{ROOT}/status"}
            async with asyncio.timeout(15):
                while missing:
                    missing.discard((await anext(late.messages)).topic.value)
        bus.publish(Wave(BED, NOW, 250.0, ("II",), 5.0, SampleBlock(0, np.ones((1, 50), np.float32), 0)))
        assert wire.WaveFrame.decode(await first(client, f"{ROOT}/wave")).samples[0, 0] == np.float32(1.0)

        def accept(command: Any) -> None:
            bus.publish(CommandResult(bed=BED, time=NOW, accepted=True, action="pause", correlation=command.correlation))

        bus.listen(accept, Command)
        await client.publish(f"{ROOT}/alarm/command", b'{"action": "pause", "correlation": "q7"}', qos=1)
        result = wire.decode_json(await first(client, f"{ROOT}/alarm/command/result"))
        assert isinstance(result, CommandResult)
        assert result.correlation == "q7"


async def test_the_embedded_broker_is_cleared_of_alarm_states_left_behind() -> None:
    topic = f"{ROOT}/alarm/state/asystole"
    async with EmbeddedBroker() as broker, aiomqtt.Client(broker.host, broker.port) as client:
        await client.publish(topic, b'{"presence": "on"}', qos=1, retain=True)
        await client.subscribe(topic, qos=1)
        assert await first(client, topic) == b'{"presence": "on"}'
        async with running(MqttConfig(url=broker.url)) as bus:
            bus.publish(DeviceStatus(bed=BED, time=NOW, state="online", session=1))
            assert await first(client, topic) == b""
        async with aiomqtt.Client(broker.host, broker.port) as late:
            await late.subscribe(f"{ROOT}/#", qos=1)
            assert await first(late, f"{ROOT}/status")
            await late.subscribe(topic, qos=1)
            await client.publish(topic, b"now", qos=1)
            assert await first(late, topic) == b"now"


async def test_the_embedded_broker_publishes_and_retains_wills() -> None:
    async with EmbeddedBroker() as broker, aiomqtt.Client(broker.host, broker.port) as client:
        await client.subscribe("gone")
        # A client that just drops its connection: CONNECT with a retained will, then nothing.
        reader, writer = await asyncio.open_connection(broker.host, broker.port)
        fields = b"\x00\x04MQTT\x04\x26\x00\x3c" + b"\x00\x01x" + b"\x00\x04gone" + b"\x00\x03bye"
        writer.write(b"\x10" + bytes([len(fields)]) + fields)
        assert (await reader.readexactly(4))[3] == 0
        writer.close()
        await writer.wait_closed()
        assert await first(client, "gone") == b"bye"
        async with aiomqtt.Client(broker.host, broker.port) as late:
            await late.subscribe("gone")
            assert await first(late, "gone") == b"bye"


async def test_the_sink_can_bring_its_own_broker() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with running(MqttConfig(url=f"mqtt://127.0.0.1:{port}", embedded=True)) as bus:
        bus.publish(Vitals(bed=BED, time=NOW, heart_rate_bpm=60))
        await flushed(bus)
        async with aiomqtt.Client("127.0.0.1", port) as client:
            await client.subscribe(f"{ROOT}/vitals")
            assert json.loads(await first(client, f"{ROOT}/vitals"))["heart_rate_bpm"] == 60


async def test_a_taken_port_of_the_embedded_broker_is_told() -> None:
    async with EmbeddedBroker() as broker:
        with pytest.raises(SinkError, match=f"{broker.port}.*choose another port"):
            async with EmbeddedBroker(port=broker.port):
                pass


@pytest.mark.parametrize(("host", "reason"), [("127.0.0.1", "refused"), ("nowhere.invalid", "nowhere.invalid:1")])
async def test_an_unreachable_broker_is_told_once_and_holds_nothing_up(host: str, reason: str) -> None:
    config = MqttConfig(url=f"mqtt://{host}:1", backoff_first_s=0.01, backoff_max_s=0.02, linger_s=0.1)
    async with running(config) as bus:
        heard = bus.subscribe("test", Technical)
        async with asyncio.timeout(20):
            trouble = await heard.get()
            for bpm in range(100):
                bus.publish(Vitals(bed=BED, time=NOW, heart_rate_bpm=bpm))
            await flushed(bus)
    assert isinstance(trouble, Technical)
    assert (trouble.condition, trouble.present) == ("broker-lost", True)
    assert reason in trouble.detail
    assert len(heard) == 0


def alarm(k: int, bed: str = BED, **changes: Any) -> Alarm:
    values = {"priority": "high", "phase": "update", "condition": "asystole"} | changes
    return Alarm(
        bed=bed,
        time=NOW,
        kind="physiological",
        presence="on",
        text="asystole",
        sequence=k,
        alarm_id="a1",
        event_id=f"{bed} {k}",
        **values,
    )


async def test_alarm_events_beyond_the_backlog_are_an_alarm_that_ends_with_the_delivery(free_port: int) -> None:
    clock = ManualClock()
    bus = Bus()
    sink = MqttSink(MqttConfig(url=f"mqtt://127.0.0.1:{free_port}", alarm_backlog=3, protocol="3.1.1"), bus, clock)
    heard = bus.subscribe("test", Technical)
    # As the alarm stage does: a technical condition is an alarm event, which comes back to the sink.
    bus.listen(lambda _: bus.publish(alarm(100)), Technical)
    task = asyncio.create_task(sink.run())

    async def told() -> tuple[str, bool]:
        async with asyncio.timeout(15):
            event = await heard.get()
        assert isinstance(event, Technical)
        return event.condition, event.present

    try:
        assert await told() == ("broker-lost", True)
        for k in range(5):
            bus.publish(alarm(k))
        assert await told() == ("alarms-lost", True)
        await flushed(bus)
        assert len(heard) == 0
        assert sink.alarms_lost == 4
        async with EmbeddedBroker(port=free_port) as broker, aiomqtt.Client(broker.host, broker.port) as client:
            await client.subscribe(f"{ROOT}/alarm/event", qos=1)
            await clock.advance(1.0)  # now the sink tries again
            sequences = [json.loads(await first(client, f"{ROOT}/alarm/event"))["sequence"] for _ in range(3)]
            assert await told() == ("broker-lost", False)
            assert await told() == ("alarms-lost", False)
            bus.close()
            await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert sequences[-1] == 100
    assert sink.alarms_lost + sink.alarms_delivered == sink.subscription.alarms == 9
    assert sink.missing["mqtt"].startswith(f"{sink.alarms_lost} alarm events were not delivered to ")


async def test_home_assistant_is_told_of_the_beds_on_request(free_port: int) -> None:
    async with EmbeddedBroker(port=free_port) as broker:
        for wanted in (False, True):
            async with (
                running(MqttConfig(url=broker.url, home_assistant=wanted)) as bus,
                aiomqtt.Client(broker.host, broker.port) as client,
            ):
                bus.publish(DeviceStatus(bed=BED, time=NOW, state="online", session=1))
                bus.publish(Vitals(bed=BED, time=NOW, heart_rate_bpm=60))
                await flushed(bus)
                await client.subscribe([("homeassistant/#", 1), (f"{ROOT}/vitals", 1)])
                seen = set()
                async with asyncio.timeout(15):
                    async for message in client.messages:
                        seen.add(message.topic.value)
                        if len(seen) == 1 + wanted:
                            break
                assert seen == {f"{ROOT}/vitals", *([discovery_topic(BED)] if wanted else [])}


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"url": "mqtt://icu:geheim@host"}, "holds a password"),
        ({"url": "host:1883"}, "mqtt://host:port"),
        ({"url": "http://host"}, "scheme 'http'"),
        ({"url": "mqtt://host:99999"}, "out of range"),
        ({"url": "mqtt://"}, "host ''"),
        ({"url": "mqtt://host/path"}, "path '/path'"),
        ({"url": "mqtt://host:0"}, "port 0"),
        ({"ca_file": "/nowhere/ca.pem"}, "mqtt.ca_file: cannot read"),
        ({"ca_file": __file__}, "write mqtts://"),
        ({"url": "mqtts://host", "key_file": __file__}, "name the certificate too"),
        ({"credentials_file": "."}, "mqtt.credentials_file: cannot read"),
    ],
)
def test_a_wrong_configuration_is_refused_without_the_password(options: dict[str, str], wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong) as caught:
        broker_access(MqttConfig(**options))  # type: ignore[arg-type]
    assert "geheim" not in str(caught.value)


def test_credentials_come_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECGNAT_MQTT_USER", "icu")
    monkeypatch.setenv("ECGNAT_MQTT_PASSWORD", "geheim")
    found = broker_access(MqttConfig(url="mqtts://[::1]"))
    assert (found.host, found.port, found.username, found.password) == ("::1", 8883, "icu", "geheim")
    assert found.tls is not None
    assert "geheim" not in repr(found)
    secret = tmp_path / "credentials"
    secret.write_text("ward:a:b\nmore\n")
    found = broker_access(MqttConfig(credentials_file=str(secret)))
    assert (found.port, found.username, found.password) == (1883, "ward", "a:b")
    secret.write_text("ward")
    with pytest.raises(ConfigError, match="not user:password"):
        broker_access(MqttConfig(credentials_file=str(secret)))


async def test_a_machine_without_threads_costs_no_later_attempt_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    free = client._threads._value
    monkeypatch.setattr(threading.Thread, "start", refuse)
    config = MqttConfig(url="mqtt://127.0.0.1:1")
    for _ in range(20):
        with pytest.raises(aiomqtt.MqttError, match="can't start new thread"):
            async with client.Client(config, broker_access(config), "one", True):
                pass
    assert client._threads._value == free
