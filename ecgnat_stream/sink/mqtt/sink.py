"""The MQTT sink: events, retained state, wave frames and commands, on any MQTT 5 or 3.1.1 broker.

In come events from the bus, read at once into buffers of our own, which are bounded: alarm events have a queue and a
subscription of their own and go before all else, states are newest wins per topic and sent again on every connection, waves and
beats travel on a connection of their own. A lost broker is a technical condition and nothing more; the connection is tried again
for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

import aiomqtt
import msgspec

from ecgnat_stream import wire
from ecgnat_stream.bus import Bus, Published, Subscription
from ecgnat_stream.clock import Clock
from ecgnat_stream.errors import FrameError
from ecgnat_stream.events import Alarm, Beat, CommandResult, DeviceStatus, EngineStatus, Event, Technical, Wave
from ecgnat_stream.sink.mqtt.alarms import AlarmQueue
from ecgnat_stream.sink.mqtt.broker import EmbeddedBroker
from ecgnat_stream.sink.mqtt.claims import BedClaims
from ecgnat_stream.sink.mqtt.client import Client, Message
from ecgnat_stream.sink.mqtt.config import MqttConfig, broker_access
from ecgnat_stream.sink.mqtt.confirm import Confirmations
from ecgnat_stream.sink.mqtt.home_assistant import HomeAssistant
from ecgnat_stream.sink.mqtt.inbox import Inbox, command_topic
from ecgnat_stream.sink.mqtt.link import BedLink, Link, Road, identifier
from ecgnat_stream.sink.mqtt.namesake import Namesake
from ecgnat_stream.sink.mqtt.refusals import Refusals
from ecgnat_stream.sink.mqtt.states import IN_FLIGHT, States
from ecgnat_stream.sink.mqtt.stream import Stream

__all__ = ["MqttConfig", "MqttSink"]

_log = logging.getLogger(__name__)

_LOOK_S = 0.5
"""How often it is looked whether the broker owes an acknowledgement, and what may be tried again."""

_AGAIN_S = 10.0
"""Refused states and subscriptions are tried again after so long."""

_FOLLOWED = 1000
"""Statuses of other monitors that are asked for in one connection, at most."""

_STRANGE_S = 3.0
"""So long another monitor has to say that a bed is its own, before the alarm states that are not ours are cleared."""

_TOLD_S = 10.0
"""Events of a bed that cannot be published are told at most so often."""


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
    beds
        The configured beds, ``site/unit/bed``: commands are taken for these, and alarm states that a dead monitor has left behind
        are cleared for these, and for no others.
    receivers
        Bed, or ``{site}/engine/{worker}``, to the receiver that has to confirm its alarm events, "" for none; left out, it is
        ``config.confirm`` for all.

    Attributes
    ----------
    subscription
        Alarm events and answers, before they are in our queue.
    """

    def __init__(
        self,
        config: MqttConfig,
        bus: Bus,
        clock: Clock,
        *,
        site: str = "home",
        worker: str = "monitor",
        session: int = 1,
        beds: Collection[str] = (),
        receivers: Mapping[str, str] | None = None,
    ) -> None:
        self._config, self._bus, self._clock = config, bus, clock
        self._site, self._worker = site, worker
        self._engine = f"{site}/engine/{worker}"
        self._places = (self._engine, *beds)
        self._target = broker_access(config)
        self.subscription: Subscription = bus.subscribe("mqtt alarms", Alarm, CommandResult)
        others = (Beat, DeviceStatus, Technical, *wire.RETAINED)
        self._others = bus.subscribe("mqtt", *others, *((Wave,) if config.wave else ()))
        self._status = EngineStatus(bed="", time=clock.utc(), site=site, worker=worker, online=True, session=session)
        self._refusals = Refusals(frozenset(beds), clock, bus.publish)
        self.confirmations = Confirmations(
            dict.fromkeys(self._places, config.confirm) if receivers is None else receivers,
            self._engine,
            within_s=config.confirm_within_s,
            every_s=config.confirm_every_s,
            capacity=config.alarm_backlog,
            clock=clock,
            publish=bus.publish,
        )
        self._work, self._asking, self._sent = (asyncio.Event() for _ in range(3))
        self._alarms = AlarmQueue(
            config.alarm_backlog,
            clock,
            changed=self._work.set,
            refused=self._refusals.refused,
            accepted=self._refusals.accepted,
            lost=self._alarm_lost,
            published=self.confirmations.published,
            acknowledged=self.confirmations.at_broker,
        )
        self._inbox = Inbox(frozenset(self._places), bus, clock)
        self._namesake = Namesake(f"{site}/{worker}", self._target, clock, bus.publish, self._status_again)
        self._claims = BedClaims(worker, self._target, clock, bus.publish, changed=self._bed_changes, again=self._bed_again)
        self._bed_of: dict[str, str] = {}
        self._held: dict[str, dict[str, Alarm]] = {}
        self._alarms_held = 0
        self._strange: dict[str, int] = {}
        self._states = States(changed=self._work.set, posted=self._posted, answered=self._judge, may=self._may)
        self._to_ask: dict[str, None] = {}
        self._refused: dict[str, int] = {}
        self._stream = Stream(config, clock, self._sent.set)
        self._beds: dict[str, wire.BedStatus] = {}
        self._links: dict[str, BedLink] = {}
        self._every_link: list[Link] = []
        self._home = HomeAssistant(worker) if config.home_assistant else None
        self._lost: str | None = None
        self._losing = False
        self._told_ns: dict[str, int] = {}
        self._state(self._status)

    @property
    def alarms_delivered(self) -> int:
        """Alarm events that the broker has acknowledged."""
        return self._alarms.alarms_delivered

    @property
    def alarms_lost(self) -> int:
        """Alarm events that were given up, and those of beds that another monitor has."""
        return self._alarms.alarms_lost + self._alarms_held

    @property
    def missing(self) -> dict[str, str]:
        """What the broker never got, at the end; alarm events of beds that another monitor has are that one's."""
        lost = self._alarms.alarms_lost + self.subscription.alarms_lost
        if not lost:
            return {}
        return {"mqtt": f"{lost} alarm events were not delivered to {self._target.host}: {self._lost or 'it was too slow'}"}

    async def run(self) -> None:
        """Publish until the bus is closed and everything is out, or ``linger_s`` has passed.

        It may be called again after it has raised: what waits is kept.
        """
        self._bus.forget(self._others, absent=False)
        try:
            async with AsyncExitStack() as stack:
                if self._config.embedded:
                    broker = EmbeddedBroker(self._target.host, self._target.port)
                    await stack.enter_async_context(broker)
                    self._target = msgspec.structs.replace(self._target, port=broker.port)
                await self._run(await stack.enter_async_context(asyncio.TaskGroup()))
        except Exception as error:
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            self._bus.forget(self._others, absent=True)  # as the monitor does with ``subscription``
            raise error from None
        for subscription in (self.subscription, self._others):
            self._bus.unsubscribe(subscription)

    async def _run(self, tasks: asyncio.TaskGroup) -> None:
        road = Road(self._config)
        self._every_link, self._links = [], {}
        self._tasks: list[asyncio.Task[None]] = []

        def add(*names: str, **options: Any) -> Link:
            client_id = f"{self._config.client_id}ecgnat-{identifier(*names)}"
            ended = partial(self._refusals.ended, f"the connection {'/'.join(names)}")
            link = Link(client_id, self._target, self._config, self._clock, road, ended=ended, **options)
            self._every_link.append(link)
            self._tasks.append(tasks.create_task(link.run(), name=f"mqtt {'/'.join(names)}"))
            return link

        def add_bed(status: wire.BedStatus) -> None:
            judged = (self._refusals.refused, self._refusals.accepted)
            bed = BedLink(status, self._clock, *judged, ours=self._claims.ours(status.bed))
            self._links[status.bed] = bed
            add(self._worker, *status.bed.split("/"), will=bed.will, serve=bed.serve, taken=self._namesake.took_ours)

        self._add_bed = add_bed
        try:
            own = {"will": self._will, "serve": self._serve, "report": self._report, "taken": self._namesake.took_ours}
            add(self._site, self._worker, main=True, **own)
            add(self._site, self._worker, "stream", will=None, serve=self._stream.serve)
            self._tasks.append(tasks.create_task(self._watch_confirmations(), name="mqtt confirmations"))
            for status in list(self._beds.values())[: self._config.bed_wills]:
                add_bed(status)
            await asyncio.gather(self._read(self.subscription), self._read(self._others))
            self._stream.flush()
            await self._finish()
        finally:
            # A connection that breaks while it is being cancelled is not to be made again.
            for link in self._every_link:
                link.ended = True
        for task in self._tasks:
            task.cancel()

    def _will(self) -> Message:
        gone = msgspec.structs.replace(self._status, time=self._clock.utc(), online=False, detail="the monitor is gone")
        payload = wire.encode_json(gone)
        self._namesake.said(payload)
        return Message(wire.topic(gone), payload)

    async def _finish(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._config.linger_s):
                while len(self._alarms) or self._states.waiting or len(self._stream):
                    self._sent.clear()
                    await self._sent.wait()
        if len(self._alarms):
            _log.info("%d alarm events could not be delivered to %s", len(self._alarms), self._target.host)
            self._losing = True  # nobody is left to be told
            self._alarms.abandon()

    def _report(self, reason: str | None) -> None:
        if reason != self._lost:
            self._lost = reason
            self._tell("broker-lost", reason or "", present=reason is not None)

    def _tell(self, condition: str, detail: str = "", *, bed: str = "", present: bool = True) -> None:
        self._bus.publish(
            Technical(bed=bed, time=self._clock.utc(), condition=condition, present=present, detail=detail, source="mqtt")
        )

    # From the bus into the buffers.

    async def _read(self, subscription: Subscription) -> None:
        async for event in subscription:
            try:
                self._take(event)
                if self._home is not None:
                    for topic, payload in self._home.messages(event):
                        self._bed_of[topic] = event.bed
                        self._retain(topic, payload)
            except Exception as error:  # noqa: BLE001 - one event that cannot be told must not keep back the others
                self._untold(event, error)

    def _untold(self, event: Published, error: Exception) -> None:
        _log.error("%s of %s cannot be published", type(event).__name__, event.bed, exc_info=error)
        if isinstance(event, Alarm):
            self._alarms.give_up(event)
            return
        now_ns = self._clock.monotonic_ns()
        if not isinstance(event, Technical) and now_ns >= self._told_ns.get(event.bed, now_ns):
            self._told_ns[event.bed] = now_ns + round(_TOLD_S * 1e9)
            why = f"{type(event).__name__} cannot be published: {type(error).__name__}: {error}"
            self._tell("malformed-frame", why, bed=event.bed)

    def _take(self, event: Published) -> None:
        match event:
            case Wave():
                if self._claims.ours(event.bed):
                    self._stream.wave(event)
            case Alarm() if not self._claims.ours(event.bed):
                self._hold(event)
            case Alarm():
                message = self.confirmations.asking(wire.topic(event, self._engine), event)
                self._retain(wire.alarm_state_topic(event, self._engine), message.payload)
                self._alarms.put(event, message)
            case CommandResult():
                self._alarms.put(event, self._inbox.answer(event, self._engine))
            case EngineStatus():
                self._status = event
                self._state(event)
            case DeviceStatus():
                self._bed_status(event)
            case Event() if type(event) in wire.RETAINED:
                self._state(event)
            case Event() if self._claims.ours(event.bed):
                self._stream.put(Message(wire.topic(event, self._engine), wire.encode_json(event)))

    def _alarm_lost(self, event: Alarm | CommandResult) -> None:
        if not self._losing and isinstance(event, Alarm):
            # Once only: the alarm that comes of it goes into the same buffer.
            self._losing = True
            self._tell("alarms-lost", f"more than {self._config.alarm_backlog} wait for {self._target.host}: the oldest are lost")

    def _state(self, event: Event) -> None:
        self._retain(wire.topic(event, self._engine), wire.encode_json(event))

    def _retain(self, topic: str, payload: bytes) -> None:
        self._states.keep(topic, payload, send=topic not in self._refused)

    def _bed_status(self, event: DeviceStatus) -> None:
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
        self._claims.is_now(status)
        if self._claims.ours(event.bed):
            (self.confirmations.ended if event.state == "ended" else self.confirmations.begun)(event.bed)
        if event.bed in self._links:
            self._links[event.bed].update(status)
        elif len(self._links) < self._config.bed_wills:
            self._add_bed(status)
        else:
            self._state(status)

    # Another monitor has a bed of ours, or is gone.

    def _may(self, topic: str) -> bool:
        return self._claims.ours(self._bed_of.get(topic) or _place(topic))

    def _hold(self, event: Alarm) -> None:
        """Keep what a bed's alarms are now, for when it is ours again."""
        self._alarms_held += 1
        self._retain(wire.alarm_state_topic(event, self._engine), wire.encode_json(event))
        held = self._held.setdefault(event.bed, {})
        held.pop(event.condition, None)
        if event.presence != "off":
            held[event.condition] = event

    def _bed_changes(self, bed: str, ours: bool) -> None:
        if bed in self._links:
            self._links[bed].be_ours(ours)
        if not ours:
            self.confirmations.ended(bed)
            return
        self._to_ask[f"{wire.ROOT}/{bed}/alarm/state/+"] = None  # what the other one has left behind
        self._asking.set()
        if bed in self._beds and self._beds[bed].state != "ended":
            self.confirmations.begun(bed)
        for event in self._held.pop(bed, {}).values():
            self._alarms.put(event, self.confirmations.asking(wire.topic(event, self._engine), event), counted=True)
        self._bed_again(bed)

    def _bed_again(self, bed: str) -> None:
        """Say everything that is retained of a bed once more."""
        if bed in self._links:
            self._links[bed].again()
        for topic in list(self._states):
            if bed == (self._bed_of.get(topic) or _place(topic)):
                self._states.again(topic)

    def _status_again(self) -> None:
        self._states.again(wire.topic(self._status))

    # From the buffers to the broker: what is kept, on the main connection.

    async def _serve(self, client: Client) -> None:
        self._alarms.rewind()
        self._namesake.connected()
        self._states.all_again()
        self._refused = {}
        self._to_ask = dict.fromkeys(map(command_topic, self._places))
        self._to_ask |= dict.fromkeys(f"{wire.ROOT}/{place}/status" for place in self._places)
        self._followed = set[str]()
        self._to_ask |= dict.fromkeys(self.confirmations.topics)
        self._to_ask |= dict.fromkeys(f"{wire.ROOT}/{place}/alarm/state/+" for place in self._places)
        try:
            async with asyncio.TaskGroup() as group:
                # Here and not in the link's own task, which still counts as cancelled after a lost connection (Python 3.11).
                # It asks before it sends, without waiting: who sees a state of ours can give us commands.
                for work in (self._ask, self._receive, self._send, self._remind, self._look):
                    group.create_task(work(client))
        except* aiomqtt.MqttError:
            self._alarms.lost()
            raise

    async def _send(self, client: Client) -> None:
        while True:
            self._work.clear()
            self._alarms.post(client)
            if not self._alarms.ready():
                self._states.post(client)
            if self._losing and not len(self._alarms):
                self._losing = False
                self._tell("alarms-lost", f"{self.alarms_lost} alarm events are lost", present=False)
            self._sent.set()
            await self._work.wait()

    def _posted(self, topic: str, payload: bytes) -> None:
        if topic == wire.topic(self._status):
            self._namesake.said(payload)

    def _judge(self, topic: str, code: int) -> None:
        """Note whether the broker takes a state or a subscription; what it refuses is tried again later."""
        if not self._refusals.judge(topic, code):
            self._refused[topic] = self._clock.monotonic_ns() + round(_AGAIN_S * 1e9)

    async def _look(self, client: Client) -> None:
        """See now and then what the broker owes, and what is due to be tried again."""
        while True:
            await self._clock.sleep_until(self._clock.monotonic_ns() + round(_LOOK_S * 1e9))
            if client.owes_s() > self._config.timeout_s:
                raise client.overdue()
            now_ns = self._clock.monotonic_ns()
            for topic in [topic for topic, due_ns in self._refused.items() if due_ns <= now_ns]:
                del self._refused[topic]
                if topic in self._states:
                    self._states.again(topic)
                else:
                    self._to_ask[topic] = None
            self._refusals.tick()
            self._namesake.tick()
            self._claims.tick()
            new = [topic for topic in self._claims.topics if topic not in self._followed]
            if len(self._followed) < _FOLLOWED:
                self._to_ask |= dict.fromkeys(new)
                self._followed.update(new)
            self._clear_strange(now_ns)
            self._asking.set()
            self._work.set()

    # What a receiver has to confirm.

    async def _watch_confirmations(self) -> None:
        """Say what is overdue, with or without a broker."""
        while True:
            await self._clock.sleep_until(self._clock.monotonic_ns() + round(_LOOK_S * 1e9))
            self.confirmations.tick()

    async def _remind(self, client: Client) -> None:
        """Send heartbeats, and again what a receiver has missed; alarm events that come now go on meanwhile."""
        while True:
            posted: list[asyncio.Future[int]] = []
            for event in self.confirmations.due():
                if len(posted) >= min(IN_FLIGHT, client.receive_maximum - client.in_flight):
                    await (asyncio.wait(posted) if posted else asyncio.sleep(0))
                    posted = []
                topic = wire.topic(event, self._engine)
                posted.append(client.post(self.confirmations.message(topic, event)))
                posted[-1].add_done_callback(partial(self._reminded, topic))
            await self._clock.sleep_until(self._clock.monotonic_ns() + round(_LOOK_S * 1e9))

    def _reminded(self, topic: str, answer: asyncio.Future[int]) -> None:
        if not answer.cancelled():
            self._refusals.judge(topic, answer.result())

    # From the broker.

    async def _ask(self, client: Client) -> None:
        """Subscribe to the commands for our own beds, and have their retained alarm states sent, a few at a time."""
        while True:
            self._asking.clear()
            while topics := list(self._to_ask)[:IN_FLIGHT]:
                for topic, code in zip(topics, await client.ask(topics), strict=True):
                    self._to_ask.pop(topic, None)
                    self._judge(topic, code)
            await self._asking.wait()

    async def _receive(self, client: Client) -> None:
        async for message in client.messages:
            topic = message.topic.value
            if topic == wire.topic(self._status):
                other = self._namesake.heard(message)
                if other is not None:
                    self._claims.engine(other)
            elif topic in self._claims.topics:
                self._hear_of_other(message)
            elif topic.endswith("/alarm/command"):
                if self._claims.ours(_place(topic)):
                    self._inbox.take(message)
            elif topic.endswith("/alarm/confirm"):
                self.confirmations.take(message)
            elif topic.endswith("/status"):
                self._claims.heard(message)
            else:
                self._stranger(message)

    def _hear_of_other(self, message: aiomqtt.Message) -> None:
        with suppress(FrameError):
            status = wire.decode_json(message.payload) if isinstance(message.payload, bytes) and message.payload else None
            if isinstance(status, EngineStatus):
                self._claims.engine(status)

    def _stranger(self, message: aiomqtt.Message) -> None:
        """Note an alarm state that is not ours; it is cleared when it is sure that nobody else has the bed."""
        topic = message.topic.value
        place = _place(topic)
        stored = message.retain or self._claims.shared(place)
        if stored and message.payload and topic not in self._states and place in self._places:
            self._strange[topic] = self._clock.monotonic_ns() + round(_STRANGE_S * 1e9)

    def _clear_strange(self, now_ns: int) -> None:
        """Clear the alarm states of a monitor that is gone: nobody else would ever say that they are over."""
        for topic in [topic for topic, due_ns in self._strange.items() if due_ns <= now_ns]:
            del self._strange[topic]
            if topic not in self._states and self._may(topic):
                self._retain(topic, b"")


def _place(topic: str) -> str:
    return "/".join(topic.split("/")[2:5])
