"""Confirmed delivery, the monitor's side: which alarm events a receiver still owes its word for, and whether it is there at all.

In come alarm events on their way out and confirmations from the broker; out go events to be sent again, heartbeats, the technical
condition ``unconfirmed`` of a bed, and each event's way as ``Delivery``. An event counts as delivered only when the receiver that
the bed names has confirmed it. Heartbeats are confirmed like events, so that a receiver that is missing is noticed without one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal
from uuid import uuid4

import aiomqtt
import msgspec

from ecgnat_stream import wire
from ecgnat_stream.clock import Clock
from ecgnat_stream.errors import FrameError
from ecgnat_stream.events import Alarm, CommandResult, Delivery, Technical
from ecgnat_stream.sink.mqtt.client import Message
from ecgnat_stream.words import NAME, cleaned

__all__ = ["Confirmations", "confirm_topic", "read_confirmation"]

_BYTES = 16_384
_A_SECOND, _AT_ONCE = 200.0, 1000.0
"""Confirmations that are read: lasting, and in a burst. A ward of 128 beds gives 13 a second without alarms."""

_TOLD_S = 10.0
"""A flood is told at most so often."""

_MOST = 10_000
"""Unconfirmed events that are kept, whatever is asked for: all of them are looked at now and then."""

_AGAIN = 50
"""Events of one bed that are sent again at a time."""

_NEVER_NS = 2**63


def confirm_topic(place: str) -> str:
    """Return where receivers confirm the alarm events of a bed, or of ``{site}/engine/{worker}``."""
    return f"{wire.ROOT}/{place}/alarm/confirm"


def read_confirmation(payload: object) -> wire.Confirmation:
    """Return what a receiver says.

    Raises
    ------
    FrameError
        If it is too long, or no confirmation.
    """
    if not isinstance(payload, bytes) or len(payload) > _BYTES:
        raise FrameError(f"more than {_BYTES} bytes")
    try:
        return msgspec.json.decode(payload, type=wire.Confirmation)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(str(error)) from error


@dataclass(slots=True)
class _Owed:
    """An event, or a heartbeat, that the receiver has not confirmed yet."""

    event: Alarm | wire.Heartbeat
    due_ns: int
    late: bool = False


@dataclass(slots=True)
class _Place:
    """A bed or the worker itself."""

    bed: str
    receiver: str
    beat_ns: int
    beat: _Owed | None = None
    owed: OrderedDict[str, _Owed] = field(default_factory=OrderedDict)
    again: bool = False
    newest: str = ""
    losing: bool = False
    reason: str = ""

    def late(self) -> bool:
        return (self.beat is not None and self.beat.late) or any(owed.late for owed in self.owed.values())


class Confirmations:
    """Keeps what has not been confirmed, and says when it should have been.

    Parameters
    ----------
    receivers
        Place (``site/unit/bed``, or ``site/engine/worker``) to the name of the receiver that has to confirm; "" for none.
    engine
        The place of the worker's own alarms.
    within_s
        Longest time between an event and its confirmation, s.
    every_s
        Time between two heartbeats of a place, s.
    capacity
        Unconfirmed events kept to be sent again; the oldest are given up first.
    publish
        Takes ``Delivery`` and ``Technical``.

    Attributes
    ----------
    given_up
        Events that will not be sent again, since too many wait.
    confirmed, unknown, foreign, malformed, flooding
        Confirmations of events and heartbeats that counted; of others; by others than the named receiver; messages that were
        none; messages that were dropped because there were too many.
    """

    def __init__(
        self,
        receivers: Mapping[str, str],
        engine: str,
        *,
        within_s: float,
        every_s: float,
        capacity: int,
        clock: Clock,
        publish: Callable[[Delivery | Technical], None],
    ) -> None:
        self._engine, self._clock, self._publish = engine, clock, publish
        self._within_s, self._every_s, self._capacity = within_s, every_s, min(capacity, _MOST)
        self._run = uuid4().hex
        self._beats = 0
        self._tokens, self._tokens_ns = _AT_ONCE, clock.monotonic_ns()
        names = [place for place, receiver in receivers.items() if receiver]
        now_ns, apart_ns = clock.monotonic_ns(), round(every_s * 1e9 / max(1, len(names)))
        self._places = {
            place: _Place("" if place == engine else place, receivers[place], now_ns + k * apart_ns)
            for k, place in enumerate(names)
        }
        self._told_ns: int | None = None
        self._kept = 0
        self.given_up = self.confirmed = self.unknown = self.foreign = self.malformed = self.flooding = 0

    @property
    def topics(self) -> list[str]:
        """Where confirmations arrive; empty if none are asked for."""
        return [confirm_topic(place) for place in self._places]

    def asking(self, topic: str, event: Alarm) -> Message:
        """Take note of an alarm event on its way out; return its message, which asks for its confirmation."""
        self.expected(event)
        return self.message(topic, event)

    def message(self, topic: str, event: Alarm | wire.Heartbeat) -> Message:
        """Return the message of an event, with where and under what name it is to be confirmed."""
        place = event.bed or self._engine
        if place not in self._places:
            return Message(topic, wire.encode_json(event))
        return Message(topic, wire.encode_json(event), correlation=event.event_id.encode(), response=confirm_topic(place))

    def expected(self, alarm: Alarm) -> str:
        """Take note of an event on its way out, and return where it is to be confirmed; empty if it need not be."""
        place = alarm.bed or self._engine
        about = self._places.get(place)
        if about is None:
            return ""
        about.newest = alarm.event_id
        about.owed[alarm.event_id] = _Owed(alarm, self._due_ns())
        self._kept += 1
        if self._kept > self._capacity:
            fullest = max(self._places.values(), key=lambda one: len(one.owed))
            fullest.owed.popitem(last=False)
            self._kept -= 1
            self.given_up += 1
            if not fullest.losing:
                fullest.losing = True
                self._say(fullest, "alarms-lost", f"{fullest.receiver} has not confirmed more than {self._capacity}")
        return confirm_topic(place)

    def published(self, event: Alarm | CommandResult) -> None:
        """Take note that an event was handed to the broker."""
        self._went(event, "published")

    def at_broker(self, event: Alarm | CommandResult) -> None:
        """Take note that the broker has acknowledged an event."""
        self._went(event, "at-broker")

    def _went(self, event: Alarm | CommandResult, step: Literal["published", "at-broker"]) -> None:
        if isinstance(event, Alarm):
            self._publish(Delivery(bed=event.bed, time=self._clock.utc(), event_id=event.event_id, step=step))

    def ended(self, bed: str) -> None:
        """Take note that a bed is not monitored any more: it has no heartbeats until it begins again."""
        about = self._places.get(bed)
        if about is not None:
            about.beat, about.beat_ns = None, _NEVER_NS

    def begun(self, bed: str) -> None:
        """Take note that a bed is monitored."""
        about = self._places.get(bed)
        if about is not None and about.beat_ns == _NEVER_NS:
            about.beat_ns = self._clock.monotonic_ns()

    def take(self, message: aiomqtt.Message) -> None:
        """Read what a receiver confirms; what is none, of others or unknown is counted and nothing more."""
        place = "/".join(message.topic.value.split("/")[2:5])
        about = self._places.get(place)
        if about is None or message.retain:
            self.foreign += 1
        elif not self._may():
            self.flooding += 1
            self._tell_flood()
        else:
            try:
                confirmation = read_confirmation(message.payload)
            except FrameError:
                self.malformed += 1
                return
            self._confirmed(about, confirmation)

    def _may(self) -> bool:
        now_ns = self._clock.monotonic_ns()
        self._tokens = min(_AT_ONCE, self._tokens + _A_SECOND * (now_ns - self._tokens_ns) / 1e9)
        self._tokens_ns = now_ns
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _tell_flood(self) -> None:
        now_ns = self._clock.monotonic_ns()
        if self._told_ns is None or now_ns - self._told_ns >= _TOLD_S * 1e9:
            self._told_ns = now_ns
            detail = f"{self.flooding} confirmations dropped: more than {_A_SECOND:g} a second"
            self._publish(Technical(bed="", time=self._clock.utc(), condition="peer-flood", present=True, detail=detail))

    def _confirmed(self, about: _Place, confirmation: wire.Confirmation) -> None:
        if confirmation.receiver != about.receiver:
            self.foreign += 1
            return
        about.again = True
        for event_id in confirmation.events:
            if about.beat is not None and about.beat.event.event_id == event_id:
                about.beat = None
            elif about.owed.pop(event_id, None) is not None:
                self._kept -= 1
                time = self._clock.utc()
                self._publish(Delivery(bed=about.bed, time=time, event_id=event_id, step="confirmed", by=about.receiver))
            else:
                self.unknown += 1
                continue
            self.confirmed += 1
        self._settle(about)

    def tick(self) -> None:
        """Say what is overdue; about once a second, with or without a broker."""
        now_ns = self._clock.monotonic_ns()
        for about in self._places.values():
            if about.beat is None and now_ns > about.beat_ns + round(self._within_s * 1e9):
                # It could not even be sent: there is no broker.
                about.beat = _Owed(self._heartbeat(about), now_ns)
            for owed in (*about.owed.values(), *((about.beat,) if about.beat is not None else ())):
                if now_ns >= owed.due_ns and not owed.late:
                    owed.late = True
            self._settle(about)

    def _settle(self, about: _Place) -> None:
        late = about.late()
        if late == bool(about.reason):
            return
        about.reason = self._why(about) if late else ""
        self._say(about, "unconfirmed", about.reason)
        if about.losing and not late:
            about.losing = False
            self._say(about, "alarms-lost", "")

    def _say(self, about: _Place, condition: str, detail: str) -> None:
        time = self._clock.utc()
        self._publish(
            Technical(bed=about.bed, time=time, condition=condition, present=bool(detail), detail=detail, source="confirm")
        )

    def _why(self, about: _Place) -> str:
        if about.beat is not None and about.beat.late:
            return f"{about.receiver} does not answer"
        what = next(owed.event for owed in about.owed.values() if owed.late)
        condition = what.condition if isinstance(what, Alarm) else "a heartbeat"
        return f"{about.receiver} has not confirmed {cleaned(condition, NAME)} within {self._within_s:g} s"

    def due(self) -> Iterator[Alarm | wire.Heartbeat]:
        """Yield what is to be sent now: heartbeats, and events that a receiver has missed.

        Events are sent again once the receiver is heard, so that one that is not there is not sent to for ever.
        """
        now_ns = self._clock.monotonic_ns()
        for about in self._places.values():
            if about.again:
                about.again = False
                missed = (owed for owed in about.owed.values() if owed.late and owed.due_ns <= now_ns)
                for owed in list(islice(missed, _AGAIN)):
                    owed.due_ns = self._due_ns()
                    yield owed.event
            if now_ns >= about.beat_ns:
                about.beat_ns = now_ns + round(self._every_s * 1e9)
                late = about.beat is not None and about.beat.late
                about.beat = _Owed(self._heartbeat(about), self._due_ns(), late)
                yield about.beat.event

    def _heartbeat(self, about: _Place) -> wire.Heartbeat:
        self._beats += 1
        return wire.Heartbeat(
            bed=about.bed,
            time=self._clock.utc(),
            event_id=f"{self._run}:{self._beats}",
            every_s=self._every_s,
            receiver=about.receiver,
            newest=about.newest,
        )

    def _due_ns(self) -> int:
        return self._clock.monotonic_ns() + round(self._within_s * 1e9)
