"""The MQTT sink against a real mosquitto: stock subscribers, last wills, lost brokers, commands, refused accounts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiomqtt
import numpy as np
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from ecgnat_stream import wire
from ecgnat_stream.bus import Bus
from ecgnat_stream.clock import Clock, ManualClock, SystemClock
from ecgnat_stream.events import Alarm, Command, CommandResult, DeviceStatus, Technical, Vitals, Wave
from ecgnat_stream.signal import SampleBlock
from ecgnat_stream.sink.mqtt import MqttConfig, MqttSink
from ecgnat_stream.testing import flushed

if TYPE_CHECKING:
    from tests.system.conftest import Mosquitto

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BED = "home/icu/1"
ROOT = "ecg/v1/home/icu/1"

pytestmark = pytest.mark.timeout(60)


@asynccontextmanager
async def monitor(url: str, clock: Clock | None = None, **options: Any) -> AsyncIterator[Bus]:
    """A bus with an MQTT sink on it."""
    bus = Bus()
    config = MqttConfig(url=url, **({"backoff_first_s": 0.1, "backoff_max_s": 0.2, "linger_s": 2.0} | options))
    sink = MqttSink(config, bus, clock or SystemClock(), worker="w1", session=5, beds=(BED,))
    running = asyncio.create_task(sink.run())
    try:
        yield bus
        bus.close()
        await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class Heard:
    """Events of a bus as they come, to wait for one."""

    def __init__(self, bus: Bus, *types: type) -> None:
        self._subscription = bus.subscribe("test", *types)

    async def next(self) -> Any:
        async with asyncio.timeout(15):
            return await self._subscription.get()


def alarm(sequence: int, **changes: Any) -> Alarm:
    values = {"bed": BED, "phase": "start", "presence": "on"} | changes
    return Alarm(
        time=NOW,
        condition="asystole",
        kind="physiological",
        priority="high",
        text="asystole",
        sequence=sequence,
        alarm_id="a1",
        event_id=f"e{sequence}",
        **values,
    )


def fill(bus: Bus) -> None:
    bus.publish(DeviceStatus(bed=BED, time=NOW, state="online", session=2))
    bus.publish(Vitals(bed=BED, time=NOW, heart_rate_bpm=60))
    bus.publish(alarm(1))


async def test_a_late_stock_subscriber_gets_the_present_state(broker: Mosquitto) -> None:
    async with monitor(broker.url) as bus:
        fill(bus)
        bus.publish(Vitals(bed=BED, time=NOW, heart_rate_bpm=61))
        bus.publish(alarm(2, phase="end", presence="off"))
        await flushed(bus)
        await broker.subscribe(f"{ROOT}/alarm/state/asystole", 1)
        messages = dict(await broker.subscribe("ecg/v1/#", 4, "--retained-only"))
    assert messages[f"{ROOT}/status"]["online"] is True
    assert messages[f"{ROOT}/status"]["session"] == 2
    assert messages[f"{ROOT}/vitals"]["heart_rate_bpm"] == 61
    assert messages[f"{ROOT}/alarm/state/asystole"]["presence"] == "off"
    assert messages["ecg/v1/home/engine/w1/status"]["online"] is True


async def test_a_monitor_that_ends_says_so(broker: Mosquitto) -> None:
    async with monitor(broker.url) as bus:
        fill(bus)
        await broker.subscribe(f"{ROOT}/status", 1)
    messages = dict(await broker.subscribe("ecg/v1/home/#", 4, "--retained-only"))
    assert messages[f"{ROOT}/status"]["online"] is False
    assert messages["ecg/v1/home/engine/w1/status"]["online"] is False


async def test_an_alarm_of_the_worker_goes_to_the_engines_topics(broker: Mosquitto) -> None:
    engine = "ecg/v1/home/engine/w1"
    async with monitor(broker.url) as bus, aiomqtt.Client("127.0.0.1", broker.port) as client:
        await client.subscribe(f"{engine}/alarm/#", qos=1)
        bus.publish(alarm(1, bed=""))
        async with asyncio.timeout(15):
            topics = [(await anext(client.messages)).topic.value for _ in range(2)]
    assert sorted(topics) == [f"{engine}/alarm/event", f"{engine}/alarm/state/asystole"]


async def test_alarm_states_that_a_dead_monitor_left_behind_are_cleared(broker: Mosquitto) -> None:
    other = f"{ROOT}x/alarm/state/asystole"
    async with aiomqtt.Client("127.0.0.1", broker.port) as dead:
        for condition in ("asystole", "tachycardia"):
            await dead.publish(f"{ROOT}/alarm/state/{condition}", wire.encode_json(alarm(7)), qos=1, retain=True)
        await dead.publish("ecg/v1/home/engine/w1/alarm/state/sink-stuck", b'{"presence": "on"}', qos=1, retain=True)
        await dead.publish(other, b'{"presence": "on"}', qos=1, retain=True)
    async with monitor(broker.url) as bus, aiomqtt.Client("127.0.0.1", broker.port) as client:
        await client.subscribe("ecg/v1/+/+/+/alarm/state/+", qos=1)
        fill(bus)
        seen: dict[str, bytes] = {}
        async with asyncio.timeout(15):
            async for message in client.messages:
                seen[message.topic.value] = message.payload
                if list(seen.values()).count(b"") == 2:
                    break
        # The present alarm stays, and so does what belongs to another bed.
        left = {topic for topic, payload in await broker.subscribe("ecg/v1/+/+/+/alarm/state/+", 2, "--retained-only")}
        assert left == {f"{ROOT}/alarm/state/asystole", other}


async def test_alarm_states_are_cleared_after_a_broker_came_back_with_old_ones(broker: Mosquitto) -> None:
    clock = ManualClock()
    async with monitor(broker.url, clock) as bus:
        heard = Heard(bus, Technical)
        fill(bus)
        await broker.subscribe(f"{ROOT}/alarm/state/asystole", 1)
        await broker.stop()
        assert (await heard.next()).present is True
        await broker.start()
        async with aiomqtt.Client("127.0.0.1", broker.port) as old:
            await old.publish(f"{ROOT}/alarm/state/tachycardia", b'{"presence": "on"}', qos=1, retain=True)
            await old.subscribe(f"{ROOT}/alarm/state/tachycardia", qos=1)
            await clock.advance(1.0)
            assert (await heard.next()).present is False
            passing = asyncio.create_task(_time_passes(clock))  # until no other monitor says that the bed is its own
            try:
                async with asyncio.timeout(15):
                    async for message in old.messages:
                        if not message.payload:
                            break
            finally:
                passing.cancel()
                await asyncio.gather(passing, return_exceptions=True)


async def _time_passes(clock: ManualClock) -> None:
    while True:
        await clock.advance(0.5)
        await asyncio.sleep(0.05)


KILLED = f"""
import asyncio, sys
from datetime import UTC, datetime
from ecgnat_stream.bus import Bus
from ecgnat_stream.clock import SystemClock
from ecgnat_stream.events import DeviceStatus
from ecgnat_stream.sink.mqtt import MqttConfig, MqttSink
from ecgnat_stream.testing import flushed
async def main():
    bus = Bus()
    sink = MqttSink(MqttConfig(url=sys.argv[1]), bus, SystemClock(), worker="w1", session=5)
    bus.publish(DeviceStatus(bed="{BED}", time=datetime.now(UTC), state="online", session=2))
    await sink.run()
asyncio.run(main())
"""


async def test_the_wills_of_a_killed_monitor_appear(broker: Mosquitto) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, broker.url)
    try:
        for topic in (f"{ROOT}/status", "ecg/v1/home/engine/w1/status"):
            ((_, before),) = await broker.subscribe(topic, 1)
            assert before["online"] is True
    finally:
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    for topic, session in ((f"{ROOT}/status", 2), ("ecg/v1/home/engine/w1/status", 5)):
        ((_, after),) = await broker.subscribe(topic, 1)
        assert (after["online"], after["session"]) == (False, session)
        assert after["detail"] == "the monitor is gone"


async def test_a_new_session_of_a_bed_renews_its_will(broker: Mosquitto) -> None:
    async with monitor(broker.url) as bus, aiomqtt.Client("127.0.0.1", broker.port) as client:
        await client.subscribe(f"{ROOT}/status")
        fill(bus)
        seen = []
        async with asyncio.timeout(15):
            async for message in client.messages:
                seen.append(json.loads(message.payload))
                if len(seen) == 1:
                    bus.publish(DeviceStatus(bed=BED, time=NOW, state="stalled", session=2))
                    bus.publish(DeviceStatus(bed=BED, time=NOW, state="online", session=3))
                elif seen[-1]["session"] == 3:
                    break
    assert all(status["detail"] != "the monitor is gone" for status in seen)


async def test_beds_beyond_the_limit_get_a_status_without_a_will(broker: Mosquitto) -> None:
    async with monitor(broker.url, bed_wills=0) as bus:
        fill(bus)
        ((_, status),) = await broker.subscribe(f"{ROOT}/status", 1)
    assert (status["online"], status["worker"]) == (True, "w1")


async def test_alarms_are_kept_over_a_lost_broker_and_arrive_in_order(broker: Mosquitto) -> None:
    clock = ManualClock()
    async with monitor(broker.url, clock) as bus:
        heard = Heard(bus, Technical)
        fill(bus)
        await broker.subscribe(f"{ROOT}/alarm/state/asystole", 1)
        await broker.stop()
        lost = await heard.next()
        assert (lost.condition, lost.present) == ("broker-lost", True)
        for sequence in range(2, 42):
            bus.publish(alarm(sequence, phase="update"))
        for bpm in range(30, 70):
            bus.publish(Vitals(bed=BED, time=NOW, heart_rate_bpm=bpm))
        sequences: list[int] = []
        await broker.start()
        async with aiomqtt.Client("127.0.0.1", broker.port) as client:
            await client.subscribe(f"{ROOT}/alarm/event", qos=1)
            await clock.advance(1.0)  # now the sink tries again
            async with asyncio.timeout(15):
                async for message in client.messages:
                    sequences.append(json.loads(message.payload)["sequence"])
                    if sequences[-1] == 41:
                        break
        assert (await heard.next()).present is False
        vitals = dict(await broker.subscribe(f"{ROOT}/vitals", 1))
    # An alarm whose acknowledgement was lost with the broker is sent again.
    assert sequences in (list(range(2, 42)), list(range(1, 42)))
    assert vitals[f"{ROOT}/vitals"]["heart_rate_bpm"] == 69


async def test_wave_frames_arrive_whole(broker: Mosquitto) -> None:
    async with monitor(broker.url) as bus, aiomqtt.Client("127.0.0.1", broker.port) as client:
        await client.subscribe(f"{ROOT}/wave")
        samples = np.arange(230, dtype=np.float32)[None] / 100
        # The sink forgets waves from before its connection; a state that came through says that it is there.
        fill(bus)
        await broker.subscribe(f"{ROOT}/vitals", 1)
        bus.publish(Wave(BED, NOW, 250.0, ("II",), 10.0, SampleBlock(0, samples, 0)))
        frames: list[wire.WaveFrame] = []
        async with asyncio.timeout(15):
            async for message in client.messages:
                frames.append(wire.WaveFrame.decode(message.payload))
                if len(frames) == 4:
                    break
    assert [(f.sequence, f.start, f.codes.shape) for f in frames] == [(k, 50 * k, (1, 50)) for k in range(4)]
    np.testing.assert_allclose(np.hstack([f.samples for f in frames]), samples[:, :200], atol=1e-5)


def answer(bus: Bus) -> Callable[[Any], None]:
    """Stand in for the alarm stage."""

    def accept(command: Command) -> None:
        bus.publish(
            CommandResult(bed=command.bed, time=NOW, accepted=True, action=command.action, correlation=command.correlation)
        )

    return accept


async def test_a_command_is_answered_on_the_response_topic_with_its_correlation(broker: Mosquitto) -> None:
    async with monitor(broker.url) as bus:
        bus.listen(answer(bus), Command)
        heard = Heard(bus, Technical, Command)
        fill(bus)
        await broker.subscribe(f"{ROOT}/vitals", 1)
        async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as nurse:
            await nurse.subscribe(f"{ROOT}/alarm/command/result/nurse-7", qos=1)
            properties = Properties(PacketTypes.PUBLISH)
            properties.ResponseTopic, properties.CorrelationData = f"{ROOT}/alarm/command/result/nurse-7", b"\x00\x01q"
            request = b'{"action": "pause", "condition": "asystole", "duration_s": 120, "source": "nurse 7"}'
            await nurse.publish(f"{ROOT}/alarm/command", request, qos=1, properties=properties)
            async with asyncio.timeout(15):
                message = await anext(nurse.messages)
    command = await heard.next()
    assert (command.bed, command.action, command.condition, command.duration_s) == (BED, "pause", "asystole", 120)
    assert message.properties.CorrelationData == b"\x00\x01q"
    result = wire.decode_json(message.payload)
    assert isinstance(result, CommandResult)
    assert result.accepted


@pytest.mark.parametrize(
    ("payload", "wrong"),
    [
        (b"pause", "malformed"),
        (b'{"action": "explode"}', "explode"),
        (b'{"action": "pause", "duraton_s": 1}', "duraton_s"),
        (b'{"action": "pause", "duration_s": -1}', "duration_s"),
        (b" " * 5000, "4096"),
    ],
)
async def test_a_malformed_command_is_named_and_stops_nothing(broker: Mosquitto, payload: bytes, wrong: str) -> None:
    async with monitor(broker.url) as bus, aiomqtt.Client("127.0.0.1", broker.port) as nurse:
        heard = Heard(bus, Technical, Command)
        fill(bus)
        await broker.subscribe(f"{ROOT}/vitals", 1)
        await nurse.publish(f"{ROOT}/alarm/command", payload, qos=1)
        trouble = await heard.next()
        assert (trouble.condition, trouble.bed) == ("malformed-frame", "")
        assert BED in trouble.detail
        assert wrong in trouble.detail
        await nurse.publish(f"{ROOT}/alarm/command", b'{"action": "acknowledge"}', qos=1)
        assert (await heard.next()).action == "acknowledge"


async def test_a_refused_account_is_told_and_tried_again(
    start_mosquitto: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = tmp_path / "accounts"
    accounts.touch()
    server = await start_mosquitto(f"allow_anonymous false\npassword_file {accounts}")
    monkeypatch.setenv("ECGNAT_MQTT_USER", "icu")
    monkeypatch.setenv("ECGNAT_MQTT_PASSWORD", "wrong-secret")
    async with monitor(server.url, linger_s=0.1) as bus:
        heard = Heard(bus, Technical)
        trouble = await heard.next()
        assert trouble.condition == "broker-lost"
        assert "ot authori" in trouble.detail
        assert "wrong-secret" not in trouble.detail
