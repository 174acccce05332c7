"""Confirmed delivery with a real mosquitto: receivers and monitors that are killed, freeze, come back, or have a wrong name."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiomqtt
import msgspec
import pytest

from ecgnat_stream import Receiver, wire
from ecgnat_stream.bus import Bus
from ecgnat_stream.clock import ManualClock
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.events import Alarm, Delivery, DeviceStatus, Technical
from ecgnat_stream.sink.history import HistoryConfig, HistorySink
from ecgnat_stream.sink.history.read import History
from ecgnat_stream.sink.mqtt import MqttConfig, MqttSink

if TYPE_CHECKING:
    from tests.system.conftest import Mosquitto

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BED, OTHER, ENGINE = "home/icu/1", "home/icu/2", "home/engine/w1"
WITHIN_S, EVERY_S = 5.0, 10.0

pytestmark = pytest.mark.timeout(120)


def alarm(sequence: int, condition: str = "asystole", **changes: Any) -> Alarm:
    values = {"bed": BED, "phase": "start", "presence": "on", "kind": "physiological", "priority": "high"} | changes
    return Alarm(
        time=NOW, condition=condition, text=condition, sequence=sequence, alarm_id="r1:1", event_id=f"r1:{sequence}", **values
    )


class Ward:
    """A bus with an MQTT sink on it, on a manual clock, and what it said."""

    def __init__(self, broker: Mosquitto, **options: Any) -> None:
        self.bus, self.clock = Bus(), ManualClock()
        self.said: list[Any] = []
        self.bus.listen(self.said.append, Technical, Delivery)
        values = {"confirm": "central-1", "confirm_within_s": WITHIN_S, "confirm_every_s": EVERY_S, "backoff_first_s": 0.1}
        receivers = {BED: "central-1", OTHER: "", ENGINE: "central-1"}
        config = MqttConfig(url=broker.url, **(values | options))
        self.sink = MqttSink(config, self.bus, self.clock, worker="w1", session=5, beds=(BED, OTHER), receivers=receivers)

    def ways(self, event_id: str) -> list[str]:
        return [one.step for one in self.said if isinstance(one, Delivery) and one.event_id == event_id]

    def is_on(self, condition: str, bed: str = BED) -> bool:
        turns = [e.present for e in self.said if isinstance(e, Technical) and (e.condition, e.bed) == (condition, bed)]
        return bool(turns) and turns[-1]

    async def until(self, reached: Callable[[], bool], most_s: float = 0.0) -> float:
        """Wait until something is so, and return how long that took by the ward's clock, at most ``most_s``."""
        began = self.clock.monotonic_ns()
        async with asyncio.timeout(30):
            while not reached():
                passed_s = (self.clock.monotonic_ns() - began) / 1e9
                if passed_s < most_s:
                    await self.clock.advance(0.25)
                await asyncio.sleep(0.01)  # the broker works
        return (self.clock.monotonic_ns() - began) / 1e9


@asynccontextmanager
async def ward(broker: Mosquitto, **options: Any) -> AsyncIterator[Ward]:
    one = Ward(broker, **options)
    running = asyncio.create_task(one.sink.run())
    try:
        yield one
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class Desk:
    """A receiver in this process, and what it gave."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver, self.given = receiver, list[Any]()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def run(self) -> None:
        async for event in self.receiver:
            self.given.append(event)
            await self.go_on.wait()

    def alarms(self, bed: str = BED) -> list[int]:
        return [event.sequence for event in self.given if isinstance(event, Alarm) and event.bed == bed]

    def is_on(self, condition: str, bed: str = BED) -> bool:
        turns = [e.present for e in self.given if isinstance(e, Technical) and (e.condition, e.bed) == (condition, bed)]
        return bool(turns) and turns[-1]


@asynccontextmanager
async def desk(broker: Mosquitto, **options: Any) -> AsyncIterator[Desk]:
    values = {"name": "central-1", "beds": ["home/icu/+"]} | options
    protocol = values.pop("protocol", "auto")
    config = MqttConfig(url=broker.url, backoff_first_s=0.1, backoff_max_s=0.2, protocol=protocol)
    async with Receiver(config, **values) as receiver:
        one = Desk(receiver)
        running = asyncio.create_task(one.run())
        try:
            yield one
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not reached():  # noqa: ASYNC110 - other processes do it
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_confirmed_event_has_its_whole_way_in_the_history(broker: Mosquitto, protocol: Any, tmp_path: Path) -> None:
    path = tmp_path / "alarms.db"
    async with desk(broker) as station, ward(broker, protocol=protocol) as one:
        history = HistorySink(HistoryConfig(path=str(path)), one.bus, one.clock)
        writing = asyncio.create_task(history.run())
        one.bus.publish(alarm(1))
        one.bus.publish(alarm(2, bed=OTHER))
        await one.until(lambda: "confirmed" in one.ways("r1:1") and len(one.ways("r1:2")) == 2)
        one.bus.close()
        await writing
        await until(lambda: station.alarms() == [1] and station.alarms(OTHER) == [2])
    with History(path) as file:
        first, second = file.deliveries()
    assert (first.event_id, first.confirmed_by) == ("r1:1", "central-1")
    assert None not in (first.published, first.at_broker, first.confirmed)
    assert (second.event_id, second.confirmed) == ("r1:2", None), "this bed asks for no confirmation"


async def test_an_alarm_event_carries_the_topic_and_the_name_of_its_confirmation(broker: Mosquitto) -> None:
    async with (
        aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client,
        ward(broker) as one,
    ):
        await client.subscribe(f"ecg/v1/{BED}/alarm/event", qos=1)
        one.bus.publish(alarm(1))
        async with asyncio.timeout(15):
            message = await anext(client.messages)
        assert message.properties is not None
        assert message.properties.ResponseTopic == f"ecg/v1/{BED}/alarm/confirm"  # type: ignore[attr-defined]
        assert message.properties.CorrelationData == b"r1:1"  # type: ignore[attr-defined]
        confirmation = wire.Confirmation(receiver="central-1", events=("r1:1",))
        await client.publish(f"ecg/v1/{BED}/alarm/confirm", msgspec.json.encode(confirmation), qos=1)
        await one.until(lambda: "confirmed" in one.ways("r1:1"))


async def test_without_a_receiver_an_alarm_and_the_silence_are_noticed_within_their_bounds(broker: Mosquitto) -> None:
    async with ward(broker) as one:
        one.bus.publish(alarm(1))
        await one.until(lambda: "at-broker" in one.ways("r1:1"))
        took_s = await one.until(lambda: one.is_on("unconfirmed"), most_s=WITHIN_S + 2)
        assert took_s <= WITHIN_S + 1.5
        await one.until(lambda: one.is_on("unconfirmed", ""), most_s=EVERY_S + WITHIN_S + 2)
    assert not one.is_on("unconfirmed", OTHER)


async def test_a_receiver_of_another_name_does_not_count(broker: Mosquitto) -> None:
    async with desk(broker, name="central-2") as station, ward(broker) as one:
        one.bus.publish(alarm(1))
        await until(lambda: station.alarms() == [1])
        await one.until(lambda: one.sink.confirmations.foreign > 0)
        await one.until(lambda: one.is_on("unconfirmed"), most_s=WITHIN_S + 2)
        assert "confirmed" not in one.ways("r1:1")


async def test_code_that_holds_an_event_leaves_it_unconfirmed_until_it_goes_on(broker: Mosquitto) -> None:
    async with desk(broker) as station, ward(broker) as one:
        station.go_on.clear()
        one.bus.publish(alarm(1))
        await until(lambda: station.alarms() == [1])
        await one.until(lambda: one.is_on("unconfirmed"), most_s=WITHIN_S + 2)
        station.go_on.set()
        await one.until(lambda: not one.is_on("unconfirmed"), most_s=60.0)
        assert "confirmed" in one.ways("r1:1")


async def test_what_was_taken_is_confirmed_before_the_receiver_leaves(broker: Mosquitto) -> None:
    async with ward(broker) as one:
        for sequence in range(1, 31):
            one.bus.publish(alarm(sequence, f"condition-{sequence}"))
        async with Receiver(broker.url, name="central-1", beds=[BED]) as receiver:
            taken: list[int] = []
            async for event in receiver:
                if isinstance(event, Alarm):
                    taken.append(event.sequence)
                    if len(taken) == 30:
                        break
        await one.until(lambda: all("confirmed" in one.ways(f"r1:{sequence}") for sequence in taken[:-1]))
        assert "confirmed" not in one.ways(f"r1:{taken[-1]}"), "it was still in the hands of the code"


RECEIVER = """
import asyncio, sys
from ecgnat_stream import Alarm, Receiver
async def main():
    async with Receiver(sys.argv[1], name="central-1", beds=["home/icu/+"]) as receiver:
        print("ready", flush=True)
        async for event in receiver:
            if isinstance(event, Alarm):
                print(event.sequence, flush=True)
asyncio.run(main())
"""


async def started(code: str, *arguments: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"ready\n"
    return process


async def killed(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        os.kill(process.pid, signal.SIGKILL)
    await process.wait()


async def test_a_receiver_that_is_killed_is_noticed_and_what_it_missed_reaches_the_next_one(broker: Mosquitto) -> None:
    process = await started(RECEIVER, broker.url)
    try:
        async with ward(broker) as one:
            one.bus.publish(alarm(1))
            await one.until(lambda: "confirmed" in one.ways("r1:1"))
            await killed(process)
            took_s = await one.until(lambda: one.is_on("unconfirmed"), most_s=EVERY_S + WITHIN_S + 2)
            assert took_s <= EVERY_S + WITHIN_S + 1.5
            for sequence in (2, 3, 4):
                one.bus.publish(alarm(sequence, phase="update"))
            await one.until(lambda: "at-broker" in one.ways("r1:4"))
            async with desk(broker) as station:
                await one.until(lambda: not one.is_on("unconfirmed"), most_s=60.0)
                assert all("confirmed" in one.ways(f"r1:{sequence}") for sequence in (2, 3, 4))
                # The newest state is there at once; older ones of the same condition are confirmed without being shown.
                assert station.alarms()[0] == 4
    finally:
        await killed(process)


async def test_a_broker_that_is_killed_is_noticed_on_both_sides_and_what_waited_arrives(broker: Mosquitto) -> None:
    async with desk(broker) as station, ward(broker) as one:
        one.bus.publish(alarm(1))
        await one.until(lambda: "confirmed" in one.ways("r1:1"))
        await broker.stop()
        await until(lambda: station.is_on("broker-lost", ""))
        one.bus.publish(alarm(2, "ventricular-fibrillation"))
        await one.until(lambda: one.is_on("unconfirmed"), most_s=WITHIN_S + 2)
        assert one.is_on("broker-lost", "")
        await broker.start()
        await one.until(lambda: "confirmed" in one.ways("r1:2"), most_s=60.0)
        await one.until(lambda: not one.is_on("unconfirmed"), most_s=60.0)
        await until(lambda: station.alarms() == [1, 2] and not station.is_on("broker-lost", ""))


MONITOR = """
import asyncio, sys
from datetime import UTC, datetime
from ecgnat_stream.bus import Bus
from ecgnat_stream.clock import SystemClock
from ecgnat_stream.events import DeviceStatus
from ecgnat_stream.sink.mqtt import MqttConfig, MqttSink
async def main():
    bus = Bus()
    config = MqttConfig(url=sys.argv[1], confirm="central-1", confirm_within_s=1.0, confirm_every_s=1.0)
    receivers = {"home/icu/1": "central-1", "home/engine/w1": "central-1"}
    sink = MqttSink(config, bus, SystemClock(), worker="w1", session=int(sys.argv[2]), beds=("home/icu/1",), receivers=receivers)
    bus.publish(DeviceStatus(bed="home/icu/1", time=datetime.now(UTC), state="online", session=int(sys.argv[2])))
    print("ready", flush=True)
    await sink.run()
asyncio.run(main())
"""


async def test_a_monitor_that_is_killed_or_freezes_is_noticed_by_the_receiver_and_so_is_its_return(broker: Mosquitto) -> None:
    async with desk(broker) as station:
        process = await started(MONITOR, broker.url, "5")
        try:
            await until(lambda: any(isinstance(event, wire.BedStatus) and event.online for event in station.given))
            await killed(process)
            await until(lambda: station.is_on("monitor-lost"))
            process = await started(MONITOR, broker.url, "6")
            await until(lambda: not station.is_on("monitor-lost"))
            # Frozen: no last will, the broker has no reason for one yet.
            os.kill(process.pid, signal.SIGSTOP)
            await until(lambda: station.is_on("monitor-lost"))
            os.kill(process.pid, signal.SIGCONT)
            await until(lambda: not station.is_on("monitor-lost"))
        finally:
            await killed(process)


async def test_a_monitor_that_ends_says_so(broker: Mosquitto) -> None:
    async with desk(broker) as station:
        async with ward(broker) as one:
            one.bus.publish(DeviceStatus(bed=BED, time=NOW, state="online", session=2))
            await until(lambda: any(isinstance(event, wire.BedStatus) for event in station.given))
        await until(lambda: station.is_on("monitor-lost"))


async def test_a_bed_that_nobody_monitors_is_lost_to_a_receiver_that_names_it(broker: Mosquitto) -> None:
    clock = ManualClock()
    async with desk(broker, beds=[BED, "home/icu/+"], clock=clock, lost_s=20.0) as station:
        await clock.advance(19)
        assert station.given == []
        await clock.advance(2)
        await until(lambda: station.is_on("monitor-lost"))


async def test_a_late_receiver_gets_the_present_alarms_and_not_what_is_over(broker: Mosquitto) -> None:
    async with ward(broker) as one:
        one.bus.publish(alarm(1))
        one.bus.publish(alarm(2, "tachycardia"))
        one.bus.publish(alarm(3, "tachycardia", phase="end", presence="off"))
        await broker.subscribe(f"ecg/v1/{BED}/alarm/state/+", 2)
        async with desk(broker) as station:
            await one.until(lambda: not one.is_on("unconfirmed") and "confirmed" in one.ways("r1:3"), most_s=60.0)
            assert station.alarms() == [1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": ""}, "name is empty"),
        ({"name": "a/b"}, "letters, digits"),
        ({"beds": []}, "give a list"),
        ({"beds": "home/icu/1"}, "give a list"),
        ({"beds": ["home/#"]}, "site/unit/bed"),
        ({"beds": ["home/icu/1/status"]}, "site/unit/bed"),
    ],
)
def test_what_a_receiver_cannot_be_told(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Receiver("mqtt://127.0.0.1", **({"name": "central-1", "beds": [BED]} | options))


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_two_receivers_of_one_name_both_say_so_and_stay_connected(broker: Mosquitto, protocol: Any) -> None:
    async with ward(broker) as here, desk(broker, protocol=protocol) as one, desk(broker, protocol=protocol) as two:
        await here.until(lambda: one.is_on("name-taken", "") and two.is_on("name-taken", ""), most_s=EVERY_S)
        assert not any(isinstance(e, Technical) and e.condition == "broker-lost" for e in (*one.given, *two.given))
        here.bus.publish(alarm(1))
        await until(lambda: one.alarms() == two.alarms() == [1])


@pytest.mark.parametrize("name", ["central-2", "central-1"])
async def test_one_receiver_of_a_name_is_alone(broker: Mosquitto, name: str) -> None:
    async with ward(broker) as here, desk(broker) as one, desk(broker, name=name, confirm=name == "central-2") as two:
        here.bus.publish(alarm(1))
        await until(lambda: one.alarms() == two.alarms() == [1])
        await here.until(lambda: "confirmed" in here.ways("r1:1"))
        assert not one.is_on("name-taken", "")
        assert not two.is_on("name-taken", "")


async def test_a_receiver_whose_beds_nobody_has_says_so_and_what_there_is(
    broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    async with ward(broker) as here, desk(broker, beds=["home/icu/+", "home/uci/+"], clock=clock) as station:
        here.bus.publish(DeviceStatus(bed=BED, time=NOW, state="online", session=1))
        here.bus.publish(DeviceStatus(bed=OTHER, time=NOW, state="online", session=1))
        await until(lambda: len([e for e in station.given if isinstance(e, wire.BedStatus)]) == 2)
        async with asyncio.timeout(30):
            while "no bed at" not in caplog.text:
                await clock.advance(0.5)
                await asyncio.sleep(0.01)  # the broker works
        assert f"no bed at 127.0.0.1:{broker.port} matches 'home/uci/+'; no other bed is known there" in caplog.text
    caplog.clear()
    async with ward(broker) as here, desk(broker, beds=["home/uci/+"], clock=clock) as station:
        here.bus.publish(DeviceStatus(bed=BED, time=NOW, state="online", session=1))
        async with asyncio.timeout(30):
            while "no bed at" not in caplog.text:
                await clock.advance(0.5)
                await asyncio.sleep(0.01)
        assert f"matches 'home/uci/+'; there are {BED}, {OTHER}: is it" in caplog.text
        assert not station.given  # the beds of others are not followed


async def test_anybodys_messages_cannot_stop_a_receiver(start_mosquitto: Callable[..., Awaitable[Mosquitto]]) -> None:
    server = await start_mosquitto()
    async with desk(server) as station, aiomqtt.Client("127.0.0.1", server.port) as client:
        await until(lambda: station.receiver.malformed == 0 and not station.is_on("broker-lost", ""))
        odd = (b"{", b"x" * 70_000, wire.encode_json(alarm(1, bed=OTHER)), b"\xff", b"[" * 5000)
        while station.receiver.malformed < len(odd):
            for payload in odd:
                await client.publish(f"ecg/v1/{BED}/alarm/event", payload, qos=1)
            await asyncio.sleep(0.05)
        await client.publish(f"ecg/v1/{BED}/alarm/event", wire.encode_json(alarm(7)), qos=1)
        await until(lambda: station.alarms() == [7])
