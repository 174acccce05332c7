"""The MQTT sink: events, retained state, wave frames and commands, on any MQTT 5 or 3.1.1 broker.

In come events from the bus, read at once into buffers of our own, which are bounded: alarm events are kept in order over a lost
connection, states are newest wins per topic and sent again on every connection, waves and beats are dropped while there is no
broker. A lost broker is a technical condition and nothing more; the connection is tried again for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

import aiomqtt
import msgspec

from ecgnat_stream import wire
from ecgnat_stream.bus import Bus, Published
from ecgnat_stream.clock import Clock, run_id
from ecgnat_stream.errors import FrameError
from ecgnat_stream.events import Alarm, Command, CommandResult, DeviceStatus, EngineStatus, Event, Technical, Wave
from ecgnat_stream.sink.mqtt.broker import EmbeddedBroker
from ecgnat_stream.sink.mqtt.config import MqttConfig, broker_access
from ecgnat_stream.sink.mqtt.home_assistant import HomeAssistant
from ecgnat_stream.sink.mqtt.link import STATES_IN_FLIGHT, BedLink, Link, Message, publish, subscribe

__all__ = ["MqttConfig", "MqttSink"]

_log = logging.getLogger(__name__)
_COMMAND_BYTES = 4096
_ASKERS = 1000


class MqttSink:
    """Publishes what the bus carries, and brings commands back.

    Parameters
    ----------
    config
        See :class:`MqttConfig`.
    site, worker
        Where the monitor's own status goes: ``ecg/v1/{site}/engine/{worker}/status``.
    session
        Counts the starts of this monitor; travels in its status and its last will.
    """

    def __init__(
        self, config: MqttConfig, bus: Bus, clock: Clock, *, site: str = "home", worker: str = "monitor", session: int = 1
    ) -> None:
        self._config, self._bus, self._clock = config, bus, clock
        self._site, self._worker = site, worker
        self._engine = f"{site}/engine/{worker}"
        self._target = broker_access(config)
        types = (Event, Wave) if config.wave else (Event,)
        self._subscription = bus.subscribe("mqtt", *types)
        self._status = EngineStatus(bed="", time=clock.utc(), site=site, worker=worker, online=True, session=session)
        self._alarms: deque[Message] = deque()
        self._states: dict[str, bytes] = {}
        self._dirty: dict[str, None] = {}
        self._stream: deque[Message] = deque(maxlen=config.stream_backlog)
        self._in_flight = 0
        self._work = asyncio.Event()
        self._sent = asyncio.Event()
        self._cutters: dict[str, wire.WaveCutter] = {}
        self._beds: dict[str, wire.BedStatus] = {}
        self._links: dict[str, BedLink] = {}
        self._own: dict[str, None] = {self._engine: None}
        self._unwatched: dict[str, None] = {}
        self._every_link: list[Link] = []
        self._askers: dict[str, _Asker] = {}
        self._home = HomeAssistant(worker) if config.home_assistant else None
        self._lost: str | None = None
        self.lost_alarms = 0
        self._losing = False
        self._state(self._status)

    async def run(self) -> None:
        """Publish until the bus is closed and everything is out, or ``linger_s`` has passed."""
        async with AsyncExitStack() as stack:
            stack.callback(self._bus.unsubscribe, self._subscription)
            if self._config.embedded:
                broker = EmbeddedBroker(self._target.host, self._target.port)
                await stack.enter_async_context(broker)
                self._target = msgspec.structs.replace(self._target, port=broker.port)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            main = self._link(f"ecgnat-{self._site}-{self._worker}", self._will, self._serve, self._report)
            links = [tasks.create_task(main.run(), name="mqtt")]
            # A connection that breaks while it is being cancelled is not to be made again.
            stack.callback(self._end_links)
            async for event in self._subscription:
                self._take(event)
                if self._home is not None:
                    for topic, payload in self._home.messages(event):
                        self._retain(topic, payload)
                if event.bed and event.bed not in self._own:
                    self._own[event.bed] = self._unwatched[event.bed] = None
                    self._work.set()
                if isinstance(event, DeviceStatus):
                    links += self._bed_status(event, tasks)
            for bed, cutter in self._cutters.items():
                self._waves(cutter.flush(), bed)
            await self._finish()
            self._end_links()
            for link in links:
                link.cancel()

    def _end_links(self) -> None:
        for link in self._every_link:
            link.ended = True

    def _link(
        self,
        client_id: str,
        will: Callable[[], Message],
        serve: Callable[[aiomqtt.Client, bool], Awaitable[None]],
        report: Callable[[str | None], None],
    ) -> Link:
        link = Link(self._config.client_id + client_id, self._target, self._config, self._clock, will, serve, report)
        self._every_link.append(link)
        return link

    def _will(self) -> Message:
        gone = msgspec.structs.replace(self._status, time=self._clock.utc(), online=False, detail="the monitor is gone")
        return Message(wire.topic(gone), wire.encode_json(gone))

    async def _finish(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._config.linger_s):
                while self._alarms or self._dirty or self._stream or self._in_flight:
                    self._sent.clear()
                    await self._sent.wait()
        if self._alarms:
            _log.warning("%d alarm events could not be delivered to %s", len(self._alarms), self._target.host)

    def _report(self, reason: str | None) -> None:
        if reason == self._lost:
            return
        self._lost = reason
        self._bus.publish(
            Technical(bed="", time=self._clock.utc(), condition="broker-lost", present=reason is not None, detail=reason or "")
        )

    # From the bus into the buffers.

    def _take(self, event: Published) -> None:
        match event:
            case Wave():
                self._wave(event)
            case Alarm():
                self._urgent(Message(wire.topic(event, self._engine), wire.encode_json(event)))
                self._state(event, wire.alarm_state_topic(event, self._engine))
            case CommandResult():
                self._answer(event)
            case EngineStatus():
                self._status = event
                self._state(event)
            case DeviceStatus() | Command():
                pass
            case Event() if type(event) in wire.RETAINED:
                self._state(event)
            case Event():
                self._stream.append(Message(wire.topic(event, self._engine), wire.encode_json(event)))
                self._work.set()

    def _urgent(self, message: Message) -> None:
        self._alarms.append(message)
        if len(self._alarms) > self._config.alarm_backlog:
            self._alarms.popleft()
            self.lost_alarms += 1
            if not self._losing:
                # Once only: the alarm that comes of it goes into the same buffer.
                self._losing = True
                self._tell_losing(f"more than {self._config.alarm_backlog} wait for {self._target.host}: the oldest are lost")
        self._work.set()

    def _tell_losing(self, detail: str) -> None:
        self._bus.publish(Technical(bed="", time=self._clock.utc(), condition="alarms-lost", present=self._losing, detail=detail))

    def _state(self, event: Event, topic: str = "") -> None:
        self._retain(topic or wire.topic(event, self._engine), wire.encode_json(event))

    def _retain(self, topic: str, payload: bytes) -> None:
        self._states[topic] = payload
        self._dirty[topic] = None
        self._work.set()

    def _bed_status(self, event: DeviceStatus, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        before = self._beds.get(event.bed)
        status = wire.BedStatus(
            bed=event.bed,
            time=event.time,
            at_s=event.at_s,
            online=event.online,
            since=before.since if before and before.state == event.state else event.time,
            worker=self._worker,
            session=event.session,
            state=event.state,
            detail=event.detail,
        )
        self._beds[event.bed] = status
        if event.bed in self._links:
            self._links[event.bed].update(status)
        elif len(self._links) < self._config.bed_wills:
            link = self._links[event.bed] = BedLink(status)
            client_id = f"ecgnat-{self._worker}-{event.bed.replace('/', '-')}"
            run = self._link(client_id, link.will, link.serve, lambda _: None).run()
            return [tasks.create_task(run, name=f"mqtt {event.bed}")]
        else:
            self._state(status)
        return []

    def _wave(self, wave: Wave) -> None:
        cutter = self._cutters.get(wave.bed)
        if cutter is None or not cutter.fits(wave):
            if cutter is not None:
                self._waves(cutter.flush(), wave.bed)
            cutter = wire.WaveCutter(wave.fs, wave.leads, wave.uv_per_lsb, cutter.sequence if cutter else 0)
            self._cutters[wave.bed] = cutter
        self._waves(cutter.cut(wave, wire.epoch_ns(self._clock.utc(wave.block.t_ns))), wave.bed)

    def _waves(self, frames: list[wire.WaveFrame], bed: str) -> None:
        for frame in frames:
            message = Message(wire.wave_topic(bed), frame.encode(), expiry_s=self._config.wave_expiry_s)
            self._stream.append(message)
            self._work.set()

    # From the buffers to the broker.

    async def _serve(self, client: aiomqtt.Client, v5: bool) -> None:
        self._stream.clear()
        self._dirty = dict.fromkeys(self._states)
        self._unwatched = dict(self._own)
        self._in_flight = 0
        self._work.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._receive(client))
            group.create_task(self._send(client, v5))

    async def _send(self, client: aiomqtt.Client, v5: bool) -> None:
        while True:
            while self._alarms:
                message = self._alarms[0]
                await publish(client, message, v5)
                if self._alarms and self._alarms[0] is message:
                    self._alarms.popleft()
            if self._losing:
                self._losing = False
                self._tell_losing(f"{self.lost_alarms} alarm events are lost")
            await self._send_states(client, v5)
            for _ in range(min(len(self._stream), 64)):
                await publish(client, self._stream.popleft(), v5, qos=0)
            await self._watch_states(client)
            self._sent.set()
            if not (self._alarms or self._dirty or self._stream or self._unwatched):
                self._work.clear()
                await self._work.wait()

    async def _send_states(self, client: aiomqtt.Client, v5: bool) -> None:
        topics = list(self._dirty)[:STATES_IN_FLIGHT]
        for topic in topics:
            del self._dirty[topic]
        self._in_flight = len(topics)
        async with asyncio.TaskGroup() as group:
            for topic in topics:
                group.create_task(publish(client, Message(topic, self._states[topic]), v5, retain=True))
                if not self._states[topic]:
                    del self._states[topic]
        self._in_flight = 0

    # What a monitor that died has left behind.

    async def _watch_states(self, client: aiomqtt.Client) -> None:
        """Have the broker send the retained alarm states of our own beds, a few beds at a time."""
        beds = list(self._unwatched)[:STATES_IN_FLIGHT]
        if beds:
            await subscribe(client, [f"{wire.ROOT}/{bed}/alarm/state/+" for bed in beds])
            for bed in beds:
                del self._unwatched[bed]

    def _clear(self, message: aiomqtt.Message) -> None:
        """Clear an alarm state that is not ours: its monitor is gone, and nobody else would ever say that it is over."""
        topic = message.topic.value
        if message.retain and message.payload and topic not in self._states:
            self._retain(topic, b"")

    # Commands.

    async def _receive(self, client: aiomqtt.Client) -> None:
        # Here and not in the link's own task, which still counts as cancelled after a lost connection (Python 3.11).
        await subscribe(client, [f"{wire.ROOT}/{self._site}/+/+/alarm/command"])
        async for message in client.messages:
            if not message.topic.value.endswith("/alarm/command"):
                self._clear(message)
                continue
            try:
                self._bus.publish(self._command(message))
            except FrameError as error:
                bed = "/".join(message.topic.value.split("/")[2:5])
                detail = f"command on {message.topic.value}: {error}"
                self._bus.publish(
                    Technical(bed=bed, time=self._clock.utc(), condition="malformed-frame", present=True, detail=detail)
                )

    def _command(self, message: aiomqtt.Message) -> Command:
        payload = message.payload
        if message.retain:
            raise FrameError("it is retained: a command must be given now, not before")
        if not isinstance(payload, bytes) or len(payload) > _COMMAND_BYTES:
            raise FrameError(f"more than {_COMMAND_BYTES} bytes")
        try:
            request = msgspec.json.decode(payload, type=wire.CommandRequest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FrameError(str(error)) from error
        bed = "/".join(message.topic.value.split("/")[2:5])
        response = getattr(message.properties, "ResponseTopic", None)
        if response is not None:
            _check_response(response)
        token = f"mqtt-{run_id(self._clock.utc())}"
        data = getattr(message.properties, "CorrelationData", None)
        self._askers[token] = _Asker(response, data, request.correlation)
        if len(self._askers) > _ASKERS:
            del self._askers[next(iter(self._askers))]
        return Command(
            bed=bed,
            time=self._clock.utc(),
            action=request.action,
            condition=request.condition,
            duration_s=request.duration_s,
            source=request.source or "mqtt",
            correlation=token,
        )

    def _answer(self, result: CommandResult) -> None:
        asker = self._askers.pop(result.correlation, _Asker())
        if asker.correlation is not None:
            result = msgspec.structs.replace(result, correlation=asker.correlation)
        topic = asker.response or wire.topic(result, self._engine)
        self._urgent(Message(topic, wire.encode_json(result), correlation=asker.data))


@dataclass(frozen=True, slots=True)
class _Asker:
    """Where and how to answer a command; None for one that did not come from here."""

    response: str | None = None
    data: bytes | None = None
    correlation: str | None = None


def _check_response(topic: str) -> None:
    """Refuse an answer on a topic where it would pass for something else."""
    if "+" in topic or "#" in topic or (topic.startswith(f"{wire.ROOT}/") and not topic.endswith("/alarm/command/result")):
        raise FrameError(f"response topic {topic!r} is not allowed: take one outside {wire.ROOT}")
