"""Alarms on their way to a real broker: far away, killed, refusing, silent; and others that use our name or flood us."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
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
from ecgnat_stream.clock import ManualClock, SystemClock
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.events import Alarm, Command, CommandResult, DeviceStatus, EngineStatus, Technical, Vitals, Wave
from ecgnat_stream.signal import SampleBlock
from ecgnat_stream.sink.mqtt import MqttConfig, MqttSink
from ecgnat_stream.sink.mqtt.client import Client
from ecgnat_stream.sink.mqtt.config import BrokerAccess

if TYPE_CHECKING:
    from tests.system.conftest import Mosquitto

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BEDS = tuple(f"home/icu/{k}" for k in range(64))
BED = BEDS[1]
V5 = aiomqtt.ProtocolVersion.V5

pytestmark = pytest.mark.timeout(90)


def alarm(sequence: int, bed: str = BED, **changes: Any) -> Alarm:
    values = {"priority": "high", "phase": "update", "presence": "on"} | changes
    return Alarm(
        bed=bed,
        time=NOW,
        condition="asystole",
        kind="physiological",
        text="asystole",
        sequence=sequence,
        alarm_id=f"a {bed}",
        event_id=f"{bed} {sequence}",
        **values,
    )


def status() -> EngineStatus:
    return EngineStatus(bed="", time=datetime.now(UTC), site="home", worker="w1", online=True, session=1)


class Running:
    """A sink that runs on a bus."""

    def __init__(self, url: str, clock: Any = None, beds: tuple[str, ...] = BEDS, worker: str = "w1", **options: Any) -> None:
        self.bus = Bus()
        config = MqttConfig(url=url, **({"linger_s": 2.0} | options))
        self.sink = MqttSink(config, self.bus, clock or SystemClock(), worker=worker, beds=beds)
        self._heard = self.bus.subscribe("test", Technical)

    async def __aenter__(self) -> Running:
        self._task = asyncio.create_task(self.sink.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.bus.close()
        try:
            async with asyncio.timeout(10):
                await asyncio.shield(self._task)
        finally:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def told(self, condition: str, *, present: bool = True) -> Technical:
        """Return the next technical event of a condition."""
        async with asyncio.timeout(30):
            async for event in self._heard:
                assert isinstance(event, Technical)
                if (event.condition, event.present) == (condition, present):
                    return event
        raise AssertionError("the bus is closed")

    async def delivered(self, count: int) -> None:
        async with asyncio.timeout(60):
            while self.sink.alarms_delivered < count:  # noqa: ASYNC110 (the sink signals no such thing)
                await asyncio.sleep(0.005)


@asynccontextmanager
async def far_away(port: int, delay_s: float, at: int = 0) -> AsyncIterator[int]:
    """A TCP proxy through which every byte takes ``delay_s``, each way; its port."""
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes]]()

        async def late() -> None:
            while True:
                due, data = await queue.get()
                await asyncio.sleep(due - loop.time())
                writer.write(data)
                if not data:
                    writer.close()
                    return

        sending = asyncio.create_task(late())
        tasks.add(sending)
        while data := await read(reader):
            queue.put_nowait((loop.time() + delay_s, data))
        queue.put_nowait((loop.time() + delay_s, b""))

    async def read(reader: asyncio.StreamReader) -> bytes:
        with suppress(ConnectionError):
            return await reader.read(65536)
        return b""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            writer.close()
            return
        writers.extend((back, writer))
        tasks.add(asyncio.create_task(carry(reader, back)))
        tasks.add(asyncio.create_task(carry(there, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", at)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Receiver:
    """Every alarm event that a subscriber has received, by bed, as it came."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client
        self.events: list[Alarm] = []

    async def until(self, count: int) -> list[Alarm]:
        async with asyncio.timeout(60):
            while len(self.events) < count:
                event = wire.decode_json((await anext(self._client.messages)).payload)
                assert isinstance(event, Alarm)
                self.events.append(event)
        return self.events


@asynccontextmanager
async def receiving(port: int) -> AsyncIterator[Receiver]:
    async with aiomqtt.Client("127.0.0.1", port, protocol=V5) as client:
        await client.subscribe("ecg/v1/+/+/+/alarm/event", qos=1)
        yield Receiver(client)


async def test_many_alarms_at_once_take_about_a_round_trip(start_mosquitto: Any) -> None:
    broker = await start_mosquitto("allow_anonymous true\nmax_inflight_messages 200")
    async with far_away(broker.port, 0.1) as port, Running(f"mqtt://127.0.0.1:{port}", bed_wills=0) as here:
        here.bus.publish(alarm(0))
        await here.delivered(1)
        began = time.monotonic()
        for k in range(128):
            here.bus.publish(alarm(k, BEDS[k % 64]))
        await here.delivered(129)
        took_s = time.monotonic() - began
    print(f"128 events, 200 ms: {took_s:.2f} s")
    assert took_s < 5 * 0.2


async def test_what_is_urgent_goes_first_and_each_bed_keeps_its_order(start_mosquitto: Any) -> None:
    broker = await start_mosquitto("allow_anonymous true\nmax_inflight_messages 1")
    clock = ManualClock()
    async with receiving(broker.port) as receiver, Running(broker.url, clock, bed_wills=0) as here:
        for k in range(4):
            here.bus.publish(alarm(k, BEDS[0], priority="low"))
        here.bus.publish(alarm(0, BEDS[1], priority="medium"))
        here.bus.publish(alarm(0, BEDS[2], priority="low"))
        here.bus.publish(alarm(1, BEDS[2], priority="high"))
        events = await receiver.until(7)
    assert [(event.bed, event.sequence) for event in events] == [
        (BEDS[2], 0),  # before the urgent one of the same bed
        (BEDS[2], 1),
        (BEDS[1], 0),
        *((BEDS[0], k) for k in range(4)),
    ]


async def test_alarms_do_not_wait_behind_waves_of_many_beds(broker: Mosquitto) -> None:
    block = SampleBlock(0, np.zeros((12, 500), np.float32), 0)
    leads = tuple(f"L{k}" for k in range(12))
    async with far_away(broker.port, 0.05) as port, Running(f"mqtt://127.0.0.1:{port}", bed_wills=0) as here:
        here.bus.publish(alarm(0))
        await here.delivered(1)
        for bed in BEDS:
            here.bus.publish(Wave(bed, NOW, 500.0, leads, 5.0, block))
            for _ in range(20):
                here.bus.publish(Vitals(bed=bed, time=NOW, heart_rate_bpm=60))
        began = time.monotonic()
        for k in range(20):
            here.bus.publish(alarm(k, BEDS[k]))
        await here.delivered(21)
        took_s = time.monotonic() - began
    print(f"20 events behind 64 beds' waves, 100 ms: {took_s:.2f} s")
    assert took_s < 2


async def kill(broker: Mosquitto) -> None:
    process = broker._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()


async def test_no_alarm_is_lost_while_the_broker_is_killed_again_and_again(broker: Mosquitto, free_port: int) -> None:
    kills = int(os.environ.get("ECGNAT_KILLS", "6"))
    received: list[Alarm] = []
    back_s: list[float] = []

    async def listen(client: aiomqtt.Client) -> None:
        with suppress(aiomqtt.MqttError):
            async for message in client.messages:
                event = wire.decode_json(message.payload)
                assert isinstance(event, Alarm)
                received.append(event)

    async def passed_on(count: int) -> None:
        with suppress(TimeoutError):  # what is missing is counted below
            async with asyncio.timeout(10):
                while len({event.event_id for event in received}) < count:  # noqa: ASYNC110 (the client signals no such thing)
                    await asyncio.sleep(0.005)

    @asynccontextmanager
    async def service() -> AsyncIterator[None]:
        """The receiver first, then the way to the broker: whatever is acknowledged, it can have, as long as the broker lives.

        What the broker still holds for it dies with the broker, and is sent again when there is a way again.
        """
        receiver = Client(MqttConfig(), BrokerAccess("127.0.0.1", broker.port, None, None, None), "receiver", True)
        async with receiver, far_away(broker.port, 0.0, free_port):
            await receiver.ask(["ecg/v1/+/+/+/alarm/event"])
            listening = asyncio.create_task(listen(receiver))
            yield
            await listening

    async with Running(f"mqtt://127.0.0.1:{free_port}", bed_wills=4) as here:
        sent = 0

        def burst(count: int) -> None:
            nonlocal sent
            for _ in range(count):
                here.bus.publish(alarm(sent // 8, BEDS[sent % 8]))
                sent += 1

        for bed in BEDS[:4]:
            here.bus.publish(DeviceStatus(bed=bed, time=NOW, state="online", session=1))
        burst(8)
        for round_ in range(kills + 1):
            async with service():
                began = time.monotonic()
                await here.delivered(sent)
                back_s.append(time.monotonic() - began)
                if round_ < kills:
                    burst(8)
                    await asyncio.sleep((0, 0.001, 0.003)[round_ % 3])
                else:
                    # Nobody is there to receive what is sent again after this end: it comes when all has been passed on.
                    await passed_on(sent)
                await kill(broker)
            burst(16 if round_ < kills else 0)
            await asyncio.sleep((0.05, 1.0, 3.0)[round_ % 3] if round_ < kills else 0)
            await broker.start()
        ledger = (here.sink.alarms_delivered, here.sink.alarms_lost, here.sink.subscription.alarms)
    counts = Counter((event.bed, event.sequence) for event in received)
    back_s = sorted(back_s[1:])
    print(f"{kills} kills, {sent} events: received {len(counts)}, doubled on the wire {len(received) - len(counts)}")
    print(f"all out after the broker's return: median {back_s[len(back_s) // 2]:.2f} s, longest {back_s[-1]:.2f} s")
    assert ledger == (sent, 0, sent)
    assert len(counts) == sent
    assert back_s[-1] < 5
    for bed in BEDS[:8]:
        sequences = [event.sequence for event in received if event.bed == bed]
        assert list(dict.fromkeys(sequences)) == sorted(set(sequences))


async def test_a_broker_that_refuses_one_bed_is_named_and_the_others_go_on(start_mosquitto: Any, tmp_path: Path) -> None:
    rules = tmp_path / "acl"
    rules.write_text("".join(f"topic readwrite ecg/v1/{place}/#\n" for place in (BEDS[0], BEDS[2], "home/engine/w1")))
    broker = await start_mosquitto(f"allow_anonymous true\nacl_file {rules}")
    clock = ManualClock()
    async with receiving(broker.port) as receiver, Running(broker.url, clock, beds=BEDS[:3], bed_wills=0) as here:
        for k in range(10):
            for bed in BEDS[:3]:
                here.bus.publish(alarm(k, bed))
        refused = await here.told("delivery-refused")
        assert refused.bed == BED
        assert "ot authorized (0x87)" in refused.detail
        events = await receiver.until(20)
        assert {event.bed for event in events} == {BEDS[0], BEDS[2]}
        await here.delivered(20)
        assert here.sink.alarms_lost == 0
        # They come when the broker lets them: in order, and the alarm ends.
        rules.write_text("topic readwrite #\n")
        assert broker._process is not None
        broker._process.send_signal(signal.SIGHUP)
        for _ in range(40):
            await clock.advance(1.0)
            await asyncio.sleep(0.02)
        late = (await receiver.until(30))[20:]
        assert [(event.bed, event.sequence) for event in late] == [(BED, k) for k in range(10)]
        await here.told("delivery-refused", present=False)


async def test_answers_go_nowhere_else_than_to_our_own_tree(broker: Mosquitto) -> None:
    async with (
        Running(broker.url, beds=(BED,), bed_wills=0) as here,
        aiomqtt.Client("127.0.0.1", broker.port, protocol=V5) as one,
    ):
        commands = here.bus.subscribe("commands", Command)
        here.bus.publish(alarm(0))
        await here.delivered(1)
        await one.subscribe(f"ecg/v1/{BED}/alarm/command/result", qos=1)
        for topic in ("elsewhere/7", "ecg/v1/home/icu/2/alarm/command/result", f"ecg/v1/{BED}/alarm/event"):
            properties = Properties(PacketTypes.PUBLISH)
            properties.ResponseTopic, properties.CorrelationData = topic, b"q"
            await one.publish(f"ecg/v1/{BED}/alarm/command", b'{"action": "reset"}', qos=1, properties=properties)
            async with asyncio.timeout(10):
                message = await anext(one.messages)
            answer = wire.decode_json(message.payload)
            assert isinstance(answer, CommandResult)
            assert (answer.accepted, message.properties.CorrelationData) == (False, b"q")
            assert "response topic must be" in answer.reason
        assert not len(commands)


async def test_ten_thousand_commands_for_invented_beds_do_nothing(broker: Mosquitto) -> None:
    async with Running(broker.url, beds=(BED,), bed_wills=0) as here, aiomqtt.Client("127.0.0.1", broker.port) as one:
        events = here.bus.subscribe("all", Command, CommandResult)
        here.bus.publish(alarm(0))
        await here.delivered(1)
        one.pending_calls_threshold = 200
        for first in range(0, 10_000, 100):
            topics = [f"ecg/v1/home/icu/invented-{k}/alarm/command" for k in range(first, first + 100)]
            await asyncio.gather(*(one.publish(topic, b'{"action": "reset"}', qos=1) for topic in topics))
        await one.publish(f"ecg/v1/{BED}/alarm/command", b'{"action": "acknowledge"}', qos=1)
        async with asyncio.timeout(10):
            command = await events.get()
        assert isinstance(command, Command)
        assert (command.bed, command.action, len(events)) == (BED, "acknowledge", 0)
        assert sorted(here.sink._states) == ["ecg/v1/home/engine/w1/status", f"ecg/v1/{BED}/alarm/state/asystole"]


async def test_a_flood_of_commands_is_bounded_and_said_once(broker: Mosquitto) -> None:
    clock = ManualClock()
    async with Running(broker.url, clock, beds=(BED,), bed_wills=0) as here, aiomqtt.Client("127.0.0.1", broker.port) as one:
        commands = here.bus.subscribe("commands", Command)
        here.bus.publish(alarm(0))
        await here.delivered(1)
        one.pending_calls_threshold = 600
        for payload in (b'{"action": "acknowledge"}', b"nonsense"):
            await asyncio.gather(*(one.publish(f"ecg/v1/{BED}/alarm/command", payload, qos=1) for _ in range(300)))
        told = await here.told("peer-flood")
        assert BED in told.detail
        assert len(commands) == 50


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_the_same_name_twice_is_said_by_both_and_neither_throws_the_other_off(broker: Mosquitto, protocol: str) -> None:
    others, options = ("home/icu/2",), {"bed_wills": 0, "protocol": protocol}
    async with receiving(broker.port) as receiver, Running(broker.url, beds=(BED,), **options) as first:
        lost = first.bus.subscribe("lost", Technical)
        first.bus.publish(alarm(0))
        await first.delivered(1)
        async with Running(broker.url, beds=others, **options) as second:
            second.bus.publish(alarm(1, *others))
            await second.delivered(1)
            assert "home/w1" in (await first.told("name-taken")).detail
            assert "worker name of its own" in (await second.told("name-taken")).detail
            first.bus.publish(alarm(2))
            await first.delivered(2)
            assert [event.sequence for event in await receiver.until(3)] == [0, 1, 2]
        # The second has said that this monitor is gone: it has not.
        topic = "ecg/v1/home/engine/w1/status"
        async with asyncio.timeout(10):
            while not (await broker.subscribe(topic, 1))[0][1]["online"]:
                pass
        first.bus.close()
        assert {event.condition async for event in lost if isinstance(event, Technical)} == {"name-taken"}


def online(bed: str, session: int) -> DeviceStatus:
    return DeviceStatus(bed=bed, time=datetime.now(UTC), state="online", session=session)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize("wills", [0, 8])
@pytest.mark.parametrize("worker", ["w1", "w2"])
async def test_a_bed_of_two_monitors_is_left_to_the_first_until_it_is_gone(
    broker: Mosquitto, protocol: str, wills: int, worker: str
) -> None:
    options: dict[str, Any] = {"beds": (BED,), "bed_wills": wills, "protocol": protocol, "home_assistant": True}
    state = f"ecg/v1/{BED}/alarm/state/asystole"
    async with receiving(broker.port) as receiver, Running(broker.url, **options) as first:
        first.bus.publish(online(BED, 1))
        first.bus.publish(alarm(0))
        await first.delivered(1)
        async with Running(broker.url, worker=worker, **options) as second:
            second.bus.publish(online(BED, 2))
            assert f"also a bed of monitor {worker}: we have it" in (await first.told("bed-taken")).detail
            assert f"{BED} at 127.0.0.1" in (told := (await second.told("bed-taken")).detail)
            assert "also a bed of monitor w1: it has it" in told
            # What the second says of its bed, and that it goes, does not reach the topics of the first.
            second.bus.publish(alarm(1, phase="end", presence="off"))
            second.bus.publish(Vitals(bed=BED, time=NOW, heart_rate_bpm=99))
            await until_lost(second, 1)
        first.bus.publish(alarm(2))
        await first.delivered(2)
        assert [event.sequence for event in await receiver.until(2)] == [0, 2]
        stored = dict(await broker.subscribe(f"ecg/v1/{BED}/#", 3))
        assert stored.keys() == {state, f"ecg/v1/{BED}/status", f"ecg/v1/{BED}/alarm/summary"}
        assert stored[state]["presence"] == "on"
        assert (stored[f"ecg/v1/{BED}/status"]["online"], stored[f"ecg/v1/{BED}/status"]["worker"]) == (True, "w1")
        ((_, found),) = await broker.subscribe("homeassistant/device/+/config", 1)
        assert found["availability"][1]["topic"] == "ecg/v1/home/engine/w1/status"


async def until_lost(here: Running, count: int) -> None:
    async with asyncio.timeout(10):
        while here.sink.alarms_lost < count:  # noqa: ASYNC110 (the sink signals no such thing)
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("wills", [0, 8])
async def test_the_second_monitor_takes_the_bed_over_with_its_alarms_when_the_first_goes(broker: Mosquitto, wills: int) -> None:
    options: dict[str, Any] = {"beds": (BED,), "bed_wills": wills}
    async with receiving(broker.port) as receiver, Running(broker.url, worker="w2", **options) as second:
        async with Running(broker.url, **options) as first:
            first.bus.publish(online(BED, 1))
            first.bus.publish(alarm(0))
            await first.delivered(1)
            second.bus.publish(online(BED, 2))
            await second.told("bed-taken")
            second.bus.publish(alarm(1))
            await until_lost(second, 1)
            await receiver.until(1)
        await second.told("bed-taken", present=False)
        events = await receiver.until(2)
        assert [event.sequence for event in events] == [0, 1]
        async with asyncio.timeout(10):
            while (await broker.subscribe(f"ecg/v1/{BED}/status", 1))[0][1]["worker"] != "w2":
                pass
        ((_, stored),) = await broker.subscribe(f"ecg/v1/{BED}/alarm/state/asystole", 1)
        assert stored["sequence"] == 1
        assert (second.sink.alarms_delivered, second.sink.alarms_lost) == (0, 1)  # counted once


async def test_the_monitor_before_us_is_no_namesake(broker: Mosquitto) -> None:
    topic = "ecg/v1/home/engine/w1/status"
    async with aiomqtt.Client("127.0.0.1", broker.port) as before:
        await before.publish(topic, wire.encode_json(status()), qos=1, retain=True)
        async with Running(broker.url, beds=(BED,), bed_wills=0) as here:
            here.bus.publish(alarm(1))
            await here.delivered(1)
            await broker.subscribe(topic, 1)
            assert not len(here._heard)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_two_beds_whose_names_look_alike_do_not_share_a_client(broker: Mosquitto, protocol: str) -> None:
    beds = ("s/u/1-2", "s/u-1/2")
    async with Running(broker.url, beds=beds, protocol=protocol) as here:
        for bed in beds:
            here.bus.publish(DeviceStatus(bed=bed, time=NOW, state="online", session=1))
        for bed in beds:
            ((_, told),) = await broker.subscribe(f"ecg/v1/{bed}/status", 1)
            assert told["online"] is True


@asynccontextmanager
async def black_hole() -> AsyncIterator[int]:
    """A port whose queue of connections is full: it answers no SYN any more."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port = server.getsockname()[1]
        fill = [socket.socket() for _ in range(3)]
        for one in fill:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        try:
            yield port
        finally:
            for one in fill:
                one.close()


async def test_a_broker_that_answers_nothing_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "run_in_executor", lambda *_: pytest.fail("the loop's executor is everybody's"))
    async with black_hole() as port, Running(f"mqtt://127.0.0.1:{port}", linger_s=0.2, timeout_s=1.0) as here:
        here.bus.publish(DeviceStatus(bed=BED, time=NOW, state="online", session=1))
        assert "no connection within 1 s" in (await here.told("broker-lost")).detail
        here.bus.publish(alarm(0))
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert (here.sink.alarms_lost, here.sink.alarms_delivered) == (1, 0)


async def test_a_sink_whose_run_has_failed_goes_on_when_it_is_run_again(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = Bus()
    sink = MqttSink(MqttConfig(url=broker.url), bus, SystemClock(), worker="w1", beds=(BED,))
    with monkeypatch.context() as broken:
        broken.setattr(sink, "_look", None)
        bus.publish(DeviceStatus(bed=BED, time=NOW, state="online", session=1))
        bus.publish(alarm(0))
        with pytest.raises(TypeError):
            await asyncio.wait_for(sink.run(), 20)
    async with receiving(broker.port) as receiver:
        bus.publish(alarm(1))
        running = asyncio.create_task(sink.run())
        assert (await receiver.until(1))[-1].bed == BED
        ((_, told),) = await broker.subscribe(f"ecg/v1/{BED}/status", 1)
        assert told["online"] is True
        bus.close()
        await asyncio.wait_for(running, 20)
    assert (sink.alarms_delivered, sink.alarms_lost, sink.subscription.alarms) == (2, 0, 2)


async def test_an_event_that_cannot_be_published_keeps_no_other_back(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = wire.topic

    def broken(event: Any, engine: str = "") -> str:
        if event.bed == BEDS[0]:
            raise ZeroDivisionError("float division by zero")
        return topic(event, engine)

    monkeypatch.setattr(wire, "topic", broken)
    async with Running(broker.url, beds=BEDS[:2], bed_wills=0) as here:
        here.bus.publish(Vitals(bed=BEDS[0], time=NOW, heart_rate_bpm=60))
        here.bus.publish(alarm(0, BEDS[0]))
        here.bus.publish(alarm(0, BED))
        await here.delivered(1)
        told = await here.told("malformed-frame")
        assert (told.bed, here.sink.alarms_lost) == (BEDS[0], 1)
        assert "ZeroDivisionError" in told.detail


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "monitor.example"])
def test_an_embedded_broker_that_others_reach_is_refused_unless_said_twice(host: str, caplog: pytest.LogCaptureFixture) -> None:
    url = f"mqtt://{host}:1883"
    with pytest.raises(ConfigError, match=r"insecure = true in \[mqtt\]"):
        MqttSink(MqttConfig(url=url, embedded=True), Bus(), ManualClock())
    MqttSink(MqttConfig(url=url, embedded=True, insecure=True), Bus(), ManualClock())
    assert "without key or account" in caplog.text
