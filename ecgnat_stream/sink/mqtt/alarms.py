"""Alarm events and answers on their way to the broker: their own queue, nothing else before them.

In come events, out go messages, the most urgent first and each topic's in order; as many are in flight as the broker takes. What
a lost connection has left unacknowledged is sent again, in order, and so is what was acknowledged just before: a broker that dies
takes it along. What the broker refuses is tried again at a bounded pace and holds up its own topic only.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ecgnat_stream.clock import Clock
from ecgnat_stream.codes import URGENCY
from ecgnat_stream.events import Alarm, CommandResult
from ecgnat_stream.sink.mqtt.client import REFUSED, Client, Message

__all__ = ["AlarmQueue"]

_IN_FLIGHT = 256
"""Bound of our own, whatever the broker takes."""

_AGAIN_S, _AGAIN_MAX_S = 1.0, 15.0
"""First and longest wait before a refused event is sent again, s."""

_JUST_BEFORE_S = 1.0
"""Events acknowledged so shortly before a connection is lost are sent again: a broker that died may not have passed them on."""

_ANSWER_URGENCY = URGENCY["medium"]


@dataclass(eq=False, slots=True)
class _Entry:
    number: int
    event: Alarm | CommandResult
    message: Message
    acknowledged: bool = False
    was_posted: bool = False

    @property
    def urgency(self) -> int:
        return URGENCY[self.event.priority] if isinstance(self.event, Alarm) else _ANSWER_URGENCY


@dataclass(eq=False, slots=True)
class _Lane:
    """One topic: its events keep their order."""

    waiting: deque[_Entry] = field(default_factory=deque)
    posted: dict[int, _Entry] = field(default_factory=dict)
    urgent: list[int] = field(default_factory=lambda: [0] * (max(URGENCY.values()) + 1))
    again_s: float = 0.0
    held_until_ns: int = 0

    @property
    def urgency(self) -> int:
        """That of its most urgent event; what stands before that one must go first."""
        return max((rank for rank, count in enumerate(self.urgent) if count), default=-1)

    def ready(self, now_ns: int) -> bool:
        """Return whether its next event may be sent; after a refusal one at a time."""
        return bool(self.waiting) and not (self.again_s and (self.posted or now_ns < self.held_until_ns))

    def add(self, entry: _Entry) -> None:
        self.waiting.append(entry)
        self.urgent[entry.urgency] += 1

    def take(self) -> _Entry:
        entry = self.waiting.popleft()
        self.urgent[entry.urgency] -= 1
        return entry

    def put_back(self, entry: _Entry) -> None:
        place = next((k for k, other in enumerate(self.waiting) if other.number > entry.number), len(self.waiting))
        self.waiting.insert(place, entry)
        self.urgent[entry.urgency] += 1


class AlarmQueue:
    """Keeps alarm events and answers until the broker has acknowledged them.

    Parameters
    ----------
    capacity
        Events that may wait; beyond it the topic with the most loses its oldest, so that no bed pushes another's out.
    changed
        Called when :meth:`post` may have something to do.
    published
        Called with every event that is handed to the broker for the first time.
    acknowledged
        Called with every event that the broker has taken.
    refused, accepted
        Called with the topic (and the reason code) when the broker refuses a message, and when it takes one.
    lost
        Called with every event that is given up.

    Attributes
    ----------
    alarms_delivered, alarms_lost
        ``Alarm`` events that the broker has acknowledged, and those given up.
    """

    def __init__(
        self,
        capacity: int,
        clock: Clock,
        *,
        changed: Callable[[], None],
        refused: Callable[[str, int], None],
        accepted: Callable[[str], None],
        lost: Callable[[Alarm | CommandResult], None],
        published: Callable[[Alarm | CommandResult], None] = lambda _: None,
        acknowledged: Callable[[Alarm | CommandResult], None] = lambda _: None,
    ) -> None:
        self._capacity, self._clock = capacity, clock
        self._changed, self._published, self._acknowledged, self._given_up = changed, published, acknowledged, lost
        self._refused, self._accepted = refused, accepted
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()
        self._just_before: deque[tuple[int, _Entry]] = deque(maxlen=_IN_FLIGHT)
        self._number = 0
        self._waiting = self._posted = 0
        self.alarms_delivered = self.alarms_lost = 0

    def __len__(self) -> int:
        """Return how many events are not acknowledged."""
        return self._waiting + self._posted

    def put(self, event: Alarm | CommandResult, message: Message, *, counted: bool = False) -> None:
        """Take an event and the message that tells it; one that was ``counted`` before counts no more."""
        self._number += 1
        self._lanes.setdefault(message.topic, _Lane()).add(_Entry(self._number, event, message, acknowledged=counted))
        self._waiting += 1
        if self._waiting > self._capacity:
            self._drop(max(self._lanes.values(), key=lambda lane: len(lane.waiting)).take())
            self._waiting -= 1
        self._changed()

    def give_up(self, event: Alarm | CommandResult) -> None:
        """Count an event that will not be delivered."""
        self.alarms_lost += isinstance(event, Alarm)
        self._given_up(event)

    def _drop(self, entry: _Entry) -> None:
        if not entry.acknowledged:
            self.give_up(entry.event)

    def post(self, client: Client) -> None:
        """Hand as much to the broker as it takes now; never waits."""
        now_ns = self._clock.monotonic_ns()
        room = min(_IN_FLIGHT, client.receive_maximum) - client.in_flight
        while room > 0:
            ready = [topic for topic, lane in self._lanes.items() if lane.ready(now_ns)]
            if not ready:
                return
            topic = max(ready, key=lambda topic: self._lanes[topic].urgency)
            self._lanes.move_to_end(topic)
            self._post(client, self._lanes[topic])
            room -= 1

    def _post(self, client: Client, lane: _Lane) -> None:
        entry = lane.waiting[0]
        acknowledgement = client.post(entry.message)
        lane.take()
        if not entry.was_posted:
            entry.was_posted = True
            self._published(entry.event)
        lane.posted[entry.number] = entry
        self._waiting -= 1
        self._posted += 1
        acknowledgement.add_done_callback(lambda code: self._answered(lane, entry, code))

    def ready(self) -> bool:
        """Return whether something waits that could be sent if there were room."""
        now_ns = self._clock.monotonic_ns()
        return any(lane.ready(now_ns) for lane in self._lanes.values())

    def lost(self) -> None:
        """Take back what may not have arrived: the connection is lost."""
        self.rewind()
        since_ns = self._clock.monotonic_ns() - round(_JUST_BEFORE_S * 1e9)
        for at_ns, entry in self._just_before:
            if at_ns >= since_ns:
                self._lanes.setdefault(entry.message.topic, _Lane()).put_back(entry)
                self._waiting += 1
        self._just_before.clear()

    def rewind(self) -> None:
        """Take back what was not acknowledged."""
        for topic, lane in list(self._lanes.items()):
            for entry in lane.posted.values():
                lane.put_back(entry)
            self._waiting += len(lane.posted)
            self._posted -= len(lane.posted)
            lane.posted.clear()
            self._tidy(topic, lane)

    def abandon(self) -> None:
        """Give up what is left: the monitor ends."""
        self.rewind()
        for lane in self._lanes.values():
            while lane.waiting:
                self._drop(lane.take())
        self._waiting = 0

    def _answered(self, lane: _Lane, entry: _Entry, acknowledgement: asyncio.Future[int]) -> None:
        if acknowledgement.cancelled() or lane.posted.pop(entry.number, None) is None:
            return
        self._posted -= 1
        code, topic = acknowledgement.result(), entry.message.topic
        if code < REFUSED:
            lane.again_s = 0.0
            self._take_acknowledgement(entry)
            self._accepted(topic)
        elif isinstance(entry.event, Alarm):
            lane.put_back(entry)
            self._waiting += 1
            lane.again_s = min(2 * lane.again_s, _AGAIN_MAX_S) or _AGAIN_S
            lane.held_until_ns = self._clock.monotonic_ns() + round(lane.again_s * 1e9)
            self._refused(topic, code)
        else:
            self._drop(entry)
            self._refused(topic, code)
        self._tidy(topic, lane)
        self._changed()

    def _take_acknowledgement(self, entry: _Entry) -> None:
        # Each time: the broker may die again before it has passed on what was sent again.
        self._just_before.append((self._clock.monotonic_ns(), entry))
        if not entry.acknowledged:
            entry.acknowledged = True
            self.alarms_delivered += isinstance(entry.event, Alarm)
            self._acknowledged(entry.event)

    def _tidy(self, topic: str, lane: _Lane) -> None:
        if not (lane.waiting or lane.posted) and self._lanes.get(topic) is lane:
            del self._lanes[topic]
