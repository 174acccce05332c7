"""The MQTT sink against scripted brokers: what they refuse, how little they take, and how they end a connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from ecgnat_stream.bus import Bus
from ecgnat_stream.clock import ManualClock
from ecgnat_stream.events import Alarm, Technical
from ecgnat_stream.sink.mqtt import MqttConfig, MqttSink

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BED = "home/icu/1"
CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, DISCONNECT = 1, 2, 3, 4, 8, 9, 14

pytestmark = pytest.mark.timeout(60)


def packet(kind: int, body: bytes) -> bytes:
    assert len(body) < 128
    return bytes([kind << 4, len(body)]) + body


class ScriptedBroker:
    """MQTT 5 as far as the sink uses it; what it answers is up to the test.

    Parameters
    ----------
    properties
        Of its greeting.
    judge
        Topic to reason code.
    """

    def __init__(self, properties: bytes = b"", judge: Callable[[str], int] = lambda _: 0) -> None:
        self._properties, self.judge = properties, judge
        self.clients: list[str] = []
        self.topics: list[str] = []
        self.most_in_flight = 0
        self.hold = False
        self._held: list[tuple[asyncio.StreamWriter, bytes]] = []
        self.main: asyncio.StreamWriter | None = None

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        writers = self._writers = list[asyncio.StreamWriter]()
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for writer in writers:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError), closing(writer):
            while True:
                first = (await reader.readexactly(1))[0]
                length = shift = 0
                while True:
                    byte = (await reader.readexactly(1))[0]
                    length |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        break
                self._answer(first, await reader.readexactly(length), writer)

    def _answer(self, first: int, body: bytes, writer: asyncio.StreamWriter) -> None:
        kind = first >> 4
        if kind == CONNECT:
            at = 10 + 1 + body[10]
            client = body[at + 2 : at + 2 + int.from_bytes(body[at : at + 2], "big")].decode()
            self.clients.append(client)
            if "stream" not in client:
                self.main = writer
            writer.write(packet(CONNACK, bytes([0, 0, len(self._properties)]) + self._properties))
        elif kind == SUBSCRIBE:
            at, codes = 3 + body[2], []
            while at < len(body):
                size = int.from_bytes(body[at : at + 2], "big")
                code = self.judge(body[at + 2 : at + 2 + size].decode())
                codes.append(code if code >= 0x80 else 1)
                at += 3 + size
            writer.write(packet(SUBACK, body[:2] + b"\x00" + bytes(codes)))
        elif kind == PUBLISH and first & 0x06:
            size = int.from_bytes(body[:2], "big")
            topic = body[2 : 2 + size].decode()
            self.topics.append(topic)
            self._held.append((writer, packet(PUBACK, body[2 + size : 4 + size] + bytes([self.judge(topic), 0]))))
            self.most_in_flight = max(self.most_in_flight, len(self._held))
            if not self.hold:
                self.release()

    def release(self) -> None:
        for writer, answer in self._held:
            writer.write(answer)
        self._held.clear()


def alarm(sequence: int, bed: str = BED) -> Alarm:
    return Alarm(
        bed=bed,
        time=NOW,
        condition="asystole",
        kind="physiological",
        priority="high",
        phase="update",
        presence="on",
        text="asystole",
        sequence=sequence,
        alarm_id="a1",
        event_id=f"{bed} {sequence}",
    )


@asynccontextmanager
async def running(port: int, clock: ManualClock, *beds: str) -> AsyncIterator[tuple[MqttSink, Bus, Any]]:
    bus = Bus()
    config = MqttConfig(url=f"mqtt://127.0.0.1:{port}", protocol="5", bed_wills=0, linger_s=0.2)
    sink = MqttSink(config, bus, clock, worker="w1", beds=beds or (BED,))
    heard = bus.subscribe("test", Technical)
    task = asyncio.create_task(sink.run())
    try:
        yield sink, bus, heard
    finally:
        bus.close()
        await asyncio.wait((task,), timeout=10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(true: Callable[[], bool], clock: ManualClock | None = None) -> None:
    async with asyncio.timeout(20):
        while not true():
            if clock is not None:
                await clock.advance(0.5)
            await asyncio.sleep(0.001)


async def told(heard: Any, condition: str, *, present: bool = True) -> Technical:
    async with asyncio.timeout(20):
        async for event in heard:
            if (event.condition, event.present) == (condition, present):
                assert isinstance(event, Technical)
                return event
    raise AssertionError("the bus is closed")


async def test_no_more_is_in_flight_than_the_broker_takes() -> None:
    broker, clock = ScriptedBroker(properties=b"\x21\x00\x03"), ManualClock()
    broker.hold = True
    async with broker.listening() as port, running(port, clock) as (sink, bus, _):
        for k in range(20):
            bus.publish(alarm(k))
        while sink.alarms_delivered < 20:
            await until(lambda: len(broker._held) >= min(3, 20 - sink.alarms_delivered))
            broker.release()
            await asyncio.sleep(0)
    assert broker.most_in_flight == 3


async def test_a_quota_is_named_and_the_refused_alarm_comes_later() -> None:
    broker, clock = ScriptedBroker(), ManualClock()
    broker.judge = lambda topic: 0x97 if topic == f"ecg/v1/{BED}/alarm/event" else 0
    async with broker.listening() as port, running(port, clock, BED, "home/icu/2") as (sink, bus, heard):
        bus.publish(alarm(0))
        refused = await told(heard, "delivery-refused")
        assert refused.bed == BED
        assert refused.detail.endswith("alarm/event: Quota exceeded (0x97)")
        bus.publish(alarm(0, "home/icu/2"))
        await until(lambda: sink.alarms_delivered == 1)
        before = broker.topics.count(f"ecg/v1/{BED}/alarm/event")
        for _ in range(120):
            await clock.advance(0.5)
            await asyncio.sleep(0.001)
        # 1, 2, 4, 8, 15, 15 s: not in a loop.
        assert 3 <= broker.topics.count(f"ecg/v1/{BED}/alarm/event") - before <= 7
        broker.judge = lambda _: 0
        await until(lambda: sink.alarms_delivered == 2, clock)
        await told(heard, "delivery-refused", present=False)
        assert sink.alarms_lost == 0


async def test_what_was_acknowledged_just_before_is_sent_again_as_often_as_the_broker_dies() -> None:
    broker, clock = ScriptedBroker(), ManualClock()
    topic = f"ecg/v1/{BED}/alarm/event"
    async with broker.listening() as port, running(port, clock) as (sink, bus, _):
        bus.publish(alarm(0))
        for times in (1, 2, 3):
            await until(lambda times=times: broker.topics.count(topic) == times, clock)
            await until(lambda: not len(sink._alarms))
            if times == 3:
                await clock.advance(1.5)  # longer ago than just before
            assert broker.main is not None
            broker.main.transport.abort()
        bus.publish(alarm(1))
        await until(lambda: sink.alarms_delivered == 2, clock)
    assert broker.topics.count(topic) == 4
    assert sink.alarms_lost == 0


async def test_a_refused_subscription_is_named() -> None:
    broker = ScriptedBroker(judge=lambda topic: 0x87 if topic == f"ecg/v1/{BED}/alarm/command" else 0)
    async with broker.listening() as port, running(port, ManualClock()) as (_, _, heard):
        refused = await told(heard, "delivery-refused")
    assert (refused.bed, refused.detail) == (BED, f"ecg/v1/{BED}/alarm/command: Not authorized (0x87)")


async def test_a_client_that_takes_our_name_is_said_and_not_fought() -> None:
    broker, clock = ScriptedBroker(), ManualClock()
    async with broker.listening() as port, running(port, clock) as (sink, bus, heard):
        bus.publish(alarm(0))
        await until(lambda: sink.alarms_delivered == 1)
        assert broker.main is not None
        broker.main.write(packet(DISCONNECT, b"\x8e\x00"))
        assert "Session taken over (0x8e)" in (await told(heard, "broker-lost")).detail
        assert "home/w1" in (await told(heard, "name-taken")).detail
        bus.publish(alarm(1))
        await until(lambda: sink.alarms_delivered == 2, clock)
        mains = [client for client in broker.clients if "stream" not in client]
        assert len(set(mains)) == len(mains) == 2
        assert {client.rpartition("-")[0] for client in mains} == {"ecgnat-home_2fw1"}
        await until(lambda: bool(len(heard)), clock)
        await clock.advance(40)
        await told(heard, "name-taken", present=False)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (0x97, "Quota exceeded"),
        (0x9B, "QoS not supported"),
        (0x87, "Not authorized"),
        (0x9A, "Retain not supported"),
        (0x98, "Administrative action"),
    ],
)
async def test_why_the_broker_ends_the_connection_is_a_refusal_with_its_reason(
    code: int, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker, clock = ScriptedBroker(), ManualClock()
    async with broker.listening() as port, running(port, clock) as (sink, bus, heard):
        bus.publish(alarm(0))
        await until(lambda: sink.alarms_delivered == 1)
        assert broker.main is not None
        broker.main.write(packet(DISCONNECT, bytes([code, 0])))
        assert (await told(heard, "delivery-refused")).detail == f"the connection home/w1: {name} (0x{code:02x})"
        assert f"{name} (0x{code:02x})" in (await told(heard, "broker-lost")).detail
        assert sink._refusals.count == 1
        assert f"the broker refuses the connection home/w1: {name}" in caplog.text
        await until(lambda: bool(len(heard)), clock)  # it comes back
        await told(heard, "broker-lost", present=False)
        for _ in range(130):
            await clock.advance(0.5)
        await told(heard, "delivery-refused", present=False)


@pytest.mark.parametrize(("code", "name"), [(0x8B, "Server shutting down"), (0x89, "Server busy")])
async def test_a_broker_that_ends_is_no_refusal_but_is_named(code: int, name: str, caplog: pytest.LogCaptureFixture) -> None:
    broker, clock = ScriptedBroker(), ManualClock()
    async with broker.listening() as port, running(port, clock) as (sink, bus, heard):
        bus.publish(alarm(0))
        await until(lambda: sink.alarms_delivered == 1)
        assert broker.main is not None
        broker.main.write(packet(DISCONNECT, bytes([code, 0])))
        assert f"{name} (0x{code:02x})" in (await told(heard, "broker-lost")).detail
        assert (sink._refusals.count, f"ended the connection home/w1: {name}" in caplog.text) == (0, True)


async def test_a_broker_that_gives_all_clients_one_identifier_is_asked_less_and_less(caplog: pytest.LogCaptureFixture) -> None:
    broker, clock = ScriptedBroker(), ManualClock()
    async with broker.listening() as port, running(port, clock) as (_, _, heard):
        details = []
        for _ in range(4):
            await until(lambda: broker.main is not None, clock)
            before, broker.main = broker.main, None
            assert before is not None
            before.write(packet(DISCONNECT, b"\x8e\x00"))
            details.append((await told(heard, "broker-lost")).detail)
            before_ns = clock.monotonic_ns()
        assert "does the broker give several clients one identifier?" not in details[1]
        assert "does the broker give several clients one identifier?" in details[2]
        await until(lambda: broker.main is not None, clock)
        assert clock.monotonic_ns() - before_ns >= 2e9


async def test_an_alarm_that_is_too_large_for_the_broker_is_a_refusal_and_not_the_end_of_the_connection() -> None:
    broker, clock = ScriptedBroker(properties=b"\x27\x00\x00\x00\xc8"), ManualClock()
    async with broker.listening() as port, running(port, clock) as (_, bus, heard):
        bus.publish(alarm(0))
        assert "Packet too large (0x95)" in (await told(heard, "delivery-refused")).detail
    assert f"ecg/v1/{BED}/alarm/event" not in broker.topics
