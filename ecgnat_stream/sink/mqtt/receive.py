"""Receive the alarms of monitors over MQTT, and confirm them: for a central station, a pager, whatever persons look at.

In come the messages of beds; out go events, each once, and technical events of the receiver's own: a monitor that is not heard,
alarm events that have not come, a broker that is away. An event is confirmed when the user's code has taken it: when it asks for
the next one. What the code holds for too long is not confirmed, nor are heartbeats then, and the monitor raises an alarm.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from types import TracebackType
from typing import Self

import aiomqtt
import msgspec

from ecgnat_stream import wire
from ecgnat_stream.clock import Clock, SystemClock
from ecgnat_stream.errors import ConfigError, FrameError, SinkError
from ecgnat_stream.events import Alarm, EngineStatus, Technical
from ecgnat_stream.sink.mqtt.around import EVERY_BED, OtherReceiver, Patterns
from ecgnat_stream.sink.mqtt.client import REFUSED, Client, Message, reason
from ecgnat_stream.sink.mqtt.config import MqttConfig, broker_access, check_receiver
from ecgnat_stream.sink.mqtt.confirm import confirm_topic, read_confirmation
from ecgnat_stream.sink.mqtt.following import Followed
from ecgnat_stream.sink.mqtt.link import Link, Road, identifier

__all__ = ["Received", "Receiver"]

Received = Alarm | wire.BedStatus | Technical
"""What a receiver gives."""

_log = logging.getLogger(__name__)

_CONFIRM = "alarm/confirm"
_TOPICS = ("alarm/event", "alarm/heartbeat", "alarm/state/+", "status", _CONFIRM)
_LEVEL = re.compile(r"\+|[^+#/\0]+")
_BYTES = 65_536
_PLACES = 10_000
"""Beds that are followed at most; more are counted and left out."""
_AT_ONCE = 100
"""Events in one confirmation."""
_GAP_S = 10.0
"""A missing event is waited for so long: a monitor sends again what was not confirmed."""
_TICK_S = 1.0
_FAREWELL_S = 1.0
"""Longest time to confirm what is left at the end."""
_AGAIN_S = 10.0
"""What the broker refuses is tried again after so long."""
_MATCH_S, _AROUND_S = 5.0, 2.0
"""A bed of every pattern is waited for so long, and then what beds there are otherwise."""


class Receiver:
    """Follows beds while the context lasts::

        async with Receiver("mqtt://broker", name="central-1", beds=["home/icu/+"]) as receiver:
            async for event in receiver:
                show(event)

    Alarm events come once each, in order for every condition of a bed; after a lost connection first the state of each alarm as
    it is now, then what the monitor sends again. A bed's status comes when it changes; stale ones are left out. What concerns a
    worker has its place, ``site/engine/worker``, as ``bed``.

    Parameters
    ----------
    broker
        ``mqtt://host:port`` or ``mqtts://...``, or an :class:`~ecgnat_stream.sink.mqtt.MqttConfig` for certificates.
    name
        What the monitor's ``mqtt.confirm`` names. One receiver at a time has a name.
    beds
        ``site/unit/bed``; ``+`` stands for any name at its place. The workers of their sites are followed too.
    confirm
        Whether to confirm what is taken; without, it only listens.
    lost_s
        Silence after which a monitor counts as lost, s, until its heartbeats say how often they come.
    hold_s
        Code that holds an event for longer is taken to be stuck: heartbeats are not confirmed.
    backlog
        Events that may wait for the code; more are not taken, and so not confirmed.

    Attributes
    ----------
    malformed, refused
        Messages that were none, and those that could not be taken since too many wait.

    Raises
    ------
    ConfigError
        For a name or beds that cannot be used.
    """

    def __init__(
        self,
        broker: str | MqttConfig,
        *,
        name: str,
        beds: Collection[str],
        confirm: bool = True,
        lost_s: float = 30.0,
        hold_s: float = 5.0,
        backlog: int = 10_000,
        clock: Clock | None = None,
    ) -> None:
        check_receiver("name", name)
        if not name:
            raise ConfigError("name is empty: give the receiver the name that the monitors' mqtt.confirm has")
        self._config = MqttConfig(url=broker) if isinstance(broker, str) else broker
        self.name, self._patterns = name, _patterns(beds)
        self._matches, self._warned = Patterns(self._patterns), False
        self._confirm, self._lost_s, self._hold_s, self._backlog = confirm, lost_s, hold_s, backlog
        self._clock = clock or SystemClock()
        self._other = OtherReceiver(name, self._clock)
        now_ns = self._clock.monotonic_ns()
        self._places = {p: self._followed(p, now_ns) for p in self._patterns if "+" not in p}
        self._engines: dict[str, EngineStatus] = {}
        self._queue: deque[Received] = deque()
        self._waiting: set[str] = set()
        self._held: Received | None = None
        self._busy_ns: int | None = None
        self._filled, self._to_tell, self._all_told = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._all_told.set()
        self._owed: dict[str, list[str]] = {}
        self._troubles: dict[str, str] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._link: Link | None = None
        self.malformed = self.refused = 0

    def _followed(self, place: str, now_ns: int) -> Followed:
        return Followed(place, now_ns, lost_s=self._lost_s, gap_s=_GAP_S)

    async def __aenter__(self) -> Self:
        """Connect, and stay connected; a broker that is away is a technical event."""
        self._link = Link(
            f"{self._config.client_id}ecgnat-receiver-{identifier(self.name)}",
            broker_access(self._config),
            self._config,
            self._clock,
            Road(self._config),
            will=None,
            serve=self._serve,
            report=self._report,
            taken=self._taken_over,
            main=True,
        )
        self._busy_ns = self._clock.monotonic_ns()
        for work, name in ((self._link.run(), "receiver"), (self._tick(), "receiver ticks")):
            self._tasks.append(asyncio.create_task(work, name=name))
            self._tasks[-1].add_done_callback(lambda _: self._filled.set())
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Confirm what was taken, and disconnect; what was not taken stays unconfirmed."""
        assert self._link is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await self._all_told.wait()
        self._link.ended = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Received:
        """Confirm the event before, and return the next one.

        Raises
        ------
        SinkError
            If the receiver cannot go on.
        """
        self._settle()
        self._busy_ns = None
        while not self._queue:
            self._check()
            self._filled.clear()
            await self._filled.wait()
        self._held = self._queue.popleft()
        self._busy_ns = self._clock.monotonic_ns()
        return self._held

    def _settle(self) -> None:
        if isinstance(self._held, Alarm):
            self._waiting.discard(self._held.event_id)
            self._owe(self._held.bed, self._held.event_id)
        self._held = None

    def _check(self) -> None:
        if not self._tasks:
            raise SinkError("this receiver is not connected: use `async with Receiver(...) as receiver`")
        for task in self._tasks:
            if task.done():
                error = None if task.cancelled() else task.exception()
                raise SinkError(f"the receiver has ended: {error}") from error

    # What the broker brings.

    async def _serve(self, client: Client) -> None:
        async with asyncio.TaskGroup() as group:
            for work in (self._hear, self._ask, self._tell, self._look_around):
                group.create_task(work(client))

    async def _ask(self, client: Client) -> None:
        topics = [f"{wire.ROOT}/{pattern}/{topic}" for pattern in self._patterns for topic in _TOPICS]
        while True:
            refused = []
            for k in range(0, len(topics), _AT_ONCE):
                part = topics[k : k + _AT_ONCE]
                codes = await client.ask(part)
                # Without what others confirm, only another receiver of our name goes unnoticed.
                needed = [(topic, code) for topic, code in zip(part, codes, strict=True) if not topic.endswith(_CONFIRM)]
                refused += [(topic, code) for topic, code in needed if code >= REFUSED]
            self._trouble("delivery-refused", f"{refused[0][0]}: {reason(refused[0][1])}" if refused else "")
            topics = [topic for topic, _ in refused]
            await self._clock.sleep_until(self._clock.monotonic_ns() + round(_AGAIN_S * 1e9))

    async def _look_around(self, client: Client) -> None:
        """Say, once, which patterns match no bed, and what beds there are: a name that is wrong is silent otherwise."""
        await self._clock.sleep_until(self._clock.monotonic_ns() + round(_MATCH_S * 1e9))
        if self._warned or not self._matches.without:
            return
        every = f"{wire.ROOT}/{EVERY_BED}/status"
        asks = [f"{wire.ROOT}/{pattern}/status" for pattern in self._patterns]
        if every not in asks and (await client.ask([every]))[0] < REFUSED:
            await self._clock.sleep_until(self._clock.monotonic_ns() + round(_AROUND_S * 1e9))
            await client.unsubscribe(every)
        if self._matches.without:
            self._warned = True
            to = broker_access(self._config)
            _log.warning("%s", self._matches.warning(f"{to.host}:{to.port}"))

    async def _hear(self, client: Client) -> None:
        async for message in client.messages:
            self.take(message)

    def take(self, message: aiomqtt.Message) -> None:
        """Take a message from the broker; what is none is counted and dropped."""
        place = "/".join(message.topic.value.split("/")[2:5])
        payload = message.payload
        if not payload or not self._matches.match(place):
            return  # a retained state was cleared, or it is a bed of others
        if message.topic.value.endswith(_CONFIRM):
            self._hear_confirmation(message)
            return
        try:
            if not isinstance(payload, bytes) or len(payload) > _BYTES:
                raise FrameError(f"more than {_BYTES} bytes")
            event = wire.decode_json(payload)
            told = f"{event.site}/engine/{event.worker}" if isinstance(event, EngineStatus) else event.bed
            if told != place and (told or not _is_engine(place)):
                raise FrameError(f"about {told}, on the topic of {place}")
            known = self._places.get(place) or self._place(place)
        except FrameError:
            self.malformed += 1
            return
        now_ns = self._clock.monotonic_ns()
        match event:
            case Alarm():
                # Of the states only what the broker has stored is news: the others come as events too.
                if message.retain or message.topic.value.endswith("/alarm/event"):
                    self._alarm(known, event, now_ns, retained=bool(message.retain))
            case wire.Heartbeat():
                if not message.retain:
                    known.heartbeat(event, now_ns)
                    if event.receiver == self.name and not self._stuck(now_ns):
                        self._owe(place, event.event_id)
            case wire.BedStatus():
                if len(self._queue) < self._backlog and known.bed_status(event):
                    self._engine_says(known)
                    self._give(event)
            case EngineStatus():
                self._engine(place, event, now_ns, retained=bool(message.retain))
            case _:
                self.malformed += 1

    def _hear_confirmation(self, message: aiomqtt.Message) -> None:
        with suppress(FrameError):
            if self._confirm and not message.retain:
                self._other.heard(read_confirmation(message.payload).receiver, message.payload)
                self._tell_other()

    def _place(self, place: str) -> Followed:
        if len(self._places) >= _PLACES:
            raise FrameError(f"more than {_PLACES} beds")
        known = self._places[place] = self._followed(place, self._clock.monotonic_ns())
        return known

    def _alarm(self, known: Followed, event: Alarm, now_ns: int, *, retained: bool) -> None:
        if len(self._queue) >= self._backlog:
            self.refused += 1
            return
        if known.alarm(event, now_ns, retained=retained):
            self._waiting.add(event.event_id)
            self._give(msgspec.structs.replace(event, bed=known.place))
        elif event.event_id not in self._waiting:
            # Taken before, or not needed any more: its confirmation was lost.
            self._owe(known.place, event.event_id)

    def _engine(self, place: str, status: EngineStatus, now_ns: int, *, retained: bool) -> None:
        before = self._engines.get(place)
        if before is not None and status.session < before.session:
            return
        self._engines[place] = status
        site = place.partition("/")[0]
        for known in self._places.values():
            of_worker = known.status is not None and known.status.worker == status.worker
            if known.place == place or (of_worker and known.place.partition("/")[0] == site):
                self._engine_says(known)
                if status.online and not retained:
                    known.heard(now_ns)

    def _engine_says(self, known: Followed) -> None:
        worker = known.place.split("/")[2] if _is_engine(known.place) else known.status.worker if known.status else ""
        status = self._engines.get(f"{known.place.partition('/')[0]}/engine/{worker}")
        if status is not None:
            known.gone("" if status.online else status.detail or "the monitor has ended")

    def _give(self, event: Received) -> None:
        self._queue.append(event)
        self._filled.set()

    # What is told.

    def _stuck(self, now_ns: int) -> bool:
        return self._busy_ns is not None and now_ns - self._busy_ns > self._hold_s * 1e9

    def _owe(self, place: str, event_id: str) -> None:
        if self._confirm:
            self._owed.setdefault(place, []).append(event_id)
            self._all_told.clear()
            self._to_tell.set()

    async def _tell(self, client: Client) -> None:
        """Confirm what was taken; what is lost on the way is sent again by the monitor, and confirmed again."""
        while True:
            self._to_tell.clear()
            while self._owed:
                place = next(iter(self._owed))
                event_ids = self._owed.pop(place)
                for k in range(0, len(event_ids), _AT_ONCE):
                    await self._send(client, place, tuple(event_ids[k : k + _AT_ONCE]))
            self._all_told.set()
            await self._to_tell.wait()

    async def _send(self, client: Client, place: str, event_ids: tuple[str, ...]) -> None:
        confirmation = wire.Confirmation(receiver=self.name, events=event_ids, time=self._clock.utc())
        message = Message(confirm_topic(place), msgspec.json.encode(confirmation), correlation=event_ids[-1].encode())
        self._other.said(message.payload)
        code = await client.send(message)
        self._trouble("delivery-refused", f"{message.topic}: {reason(code)}" if code >= REFUSED else "")

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep_until(self._clock.monotonic_ns() + round(_TICK_S * 1e9))
            now_ns, time = self._clock.monotonic_ns(), self._clock.utc()
            self._tell_other()
            for known in self._places.values():
                if len(self._queue) >= self._backlog:
                    break  # told when there is room
                for event in known.tick(now_ns, time):
                    self._give(event)

    def _report(self, why: str | None) -> None:
        self._trouble("broker-lost", why or "")

    def _taken_over(self) -> None:
        self._other.sign()
        self._tell_other()

    def _tell_other(self) -> None:
        text = f"another receiver is called {self.name}, and an alarm counts as seen when either has it: give each its own name"
        self._trouble("name-taken", text if self._other.there else "")

    def _trouble(self, condition: str, detail: str) -> None:
        """Give a technical event when a trouble of the receiver's own begins or ends."""
        if bool(detail) != bool(self._troubles.get(condition)):
            self._troubles[condition] = detail
            self._give(Technical(bed="", time=self._clock.utc(), condition=condition, present=bool(detail), detail=detail))


def _is_engine(place: str) -> bool:
    return place.split("/")[1] == "engine"


def _patterns(beds: Collection[str]) -> tuple[str, ...]:
    """Return what to follow: the beds, and the workers of their sites."""
    if isinstance(beds, str) or not beds:
        raise ConfigError(f"beds = {beds!r}: give a list such as ['home/icu/+']")
    for bed in beds:
        levels = bed.split("/")
        if len(levels) != 3 or not all(_LEVEL.fullmatch(level) for level in levels):
            raise ConfigError(f"beds: {bed!r} is not site/unit/bed, or with + for any name")
    sites = dict.fromkeys(bed.partition("/")[0] for bed in beds)
    return tuple(dict.fromkeys([*beds, *(f"{site}/engine/+" for site in sites if f"{site}/+/+" not in beds)]))
