"""The alert bus: in-process publish and subscribe.

Publishing never waits. Every subscription is bounded: a ``NEWEST`` one keeps the latest event per type, bed and condition (for
waveforms the latest few); a ``KEEP`` one keeps every event until it is full, and reports itself as overfull then, which is a
technical condition. What a full one has to give up goes in this order: waveforms, other events, alarms; each is counted. A
recording, which can wait, is held back by :meth:`Bus.drained`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from enum import Enum
from types import TracebackType
from typing import Self

from ecgnat_stream.events import Alarm, Event, Technical, Trace, Wave

__all__ = ["Bus", "Policy", "Subscription"]

Published = Event | Wave | Trace

_BOUND = 4
"""A queue holds at most so many times its capacity: recordings of many beds are held back at once, each with a part in hand."""

_TURN = 64
"""A reader that never waits, since so much lies there, lets the other tasks run after this number of events."""


class Policy(Enum):
    """What a subscription does when its reader is slow."""

    NEWEST = "newest"
    KEEP = "keep"


def _key(event: Published) -> tuple[object, ...]:
    """What a newer event replaces: the same thing about the same bed."""
    about = (event.condition, event.lead) if isinstance(event, Alarm | Technical) else ()
    return (type(event), event.bed, *about)


class Subscription:
    """One reader's bounded queue; iterate it, it ends when the bus is closed and the queue is empty.

    Parameters
    ----------
    types
        Event classes to receive.
    policy
        ``NEWEST`` or ``KEEP``.
    capacity
        Events that may wait. ``NEWEST`` drops the oldest waveforms and counts what it dropped or replaced in ``dropped``. A
        ``KEEP`` queue with more is ``overfull`` until the reader has caught up to half of it: waveforms are dropped, and an
        ``Alarm`` update or continuation takes the place of the one before it of the same alarm (both count as ``dropped``). Its
        bound is four times as far: there the oldest event that is no alarm goes, only then the oldest alarm (both ``lost``).
    taken
        Set whenever an event is taken out.

    Attributes
    ----------
    alarms, alarms_taken, alarms_dropped, alarms_lost
        The ledger of ``Alarm`` events: those put in, taken out, replaced by a newer one of the same alarm, and given up.
    absent
        True while its reader has failed and is about to be started again: no recording waits for it.
    """

    def __init__(self, name: str, types: tuple[type, ...], policy: Policy, capacity: int, taken: asyncio.Event) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity=}")
        self.name = name
        self.types = types
        self.policy = policy
        self.capacity = capacity
        self.dropped = self.delivered = self.lost = 0
        self.alarms = self.alarms_taken = self.alarms_dropped = self.alarms_lost = 0
        self.overfull = self.absent = False
        self._alarms: deque[tuple[int, Alarm]] = deque()
        self._others: deque[tuple[int, Published]] = deque()
        self._number = 0
        self._latest: OrderedDict[tuple[object, ...], Published] = OrderedDict()
        self._wake = asyncio.Event()
        self._taken = taken
        self._closed = False

    def __len__(self) -> int:
        """Return how many events wait."""
        return self._queued + len(self._latest)

    @property
    def _queued(self) -> int:
        return len(self._alarms) + len(self._others)

    def put(self, event: Published) -> None:
        """Take an event from the bus."""
        self.alarms += isinstance(event, Alarm)
        if self.policy is Policy.KEEP:
            if self._queued < self.capacity or self._made_room(event):
                self._append(event)
        elif isinstance(event, Wave | Trace):
            self._append(event)
            if self._queued > self.capacity:
                self._others.popleft()
                self.dropped += 1
        else:
            # A replaced event keeps its place, or a slow reader would see the first beds of every round and never the last.
            key = _key(event)
            self.dropped += key in self._latest
            self.alarms_dropped += key in self._latest and isinstance(event, Alarm)
            self._latest[key] = event
        self._wake.set()

    def _append(self, event: Published) -> None:
        # Two queues, numbered together: they are read in one order, and what may be given up is found at once.
        self._number += 1
        if isinstance(event, Alarm):
            self._alarms.append((self._number, event))
        else:
            self._others.append((self._number, event))

    def _made_room(self, event: Published) -> bool:
        """Give up what is worth least in a full queue; False if that is ``event`` itself."""
        self.overfull = True
        if isinstance(event, Wave | Trace):
            self.dropped += 1
            return False
        if isinstance(event, Alarm) and self._fold(event):
            self.dropped += 1
            self.alarms_dropped += 1
        elif self._queued >= _BOUND * self.capacity:
            self.lost += 1
            if self._others:
                self._others.popleft()
            elif not isinstance(event, Alarm):
                return False
            else:
                self._alarms.popleft()
                self.alarms_lost += 1
        return True

    def _fold(self, alarm: Alarm) -> bool:
        """Take out the newest waiting event of this alarm if ``alarm`` says the same, newer; say whether there was one."""
        for index in range(len(self._alarms) - 1, -1, -1):
            waiting = self._alarms[index][1]
            if waiting.alarm_id == alarm.alarm_id:
                if waiting.phase == alarm.phase and alarm.phase in ("update", "continue"):
                    del self._alarms[index]
                    return True
                return False
        return False

    @property
    def closed(self) -> bool:
        """Whether nothing more will come than what waits."""
        return self._closed

    def close(self) -> None:
        """End the iteration once the queue is empty."""
        self._closed = True
        self._wake.set()

    async def get(self) -> Published:
        """Return the next event; now and then the other tasks have their turn, also while much waits.

        Raises
        ------
        StopAsyncIteration
            When the bus is closed and nothing waits.
        """
        if self.delivered % _TURN == _TURN - 1:
            await asyncio.sleep(0)
        while not len(self):
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        event = self._next()
        if self.overfull and self._queued <= self.capacity // 2:
            self.overfull = False
        self.delivered += 1
        self.alarms_taken += isinstance(event, Alarm)
        self._taken.set()
        return event

    def _next(self) -> Published:
        if self._alarms and not (self._others and self._others[0][0] < self._alarms[0][0]):
            return self._alarms.popleft()[1]
        return self._others.popleft()[1] if self._others else self._latest.popitem(last=False)[1]

    def __aiter__(self) -> AsyncIterator[Published]:
        return self

    async def __anext__(self) -> Published:
        return await self.get()


class Bus:
    """Joins the stages' publications to their subscribers; lives in one event loop."""

    def __init__(self) -> None:
        self._subscriptions: list[Subscription] = []
        self._listeners: list[tuple[tuple[type, ...], Callable[[Published], None]]] = []
        self._wanted: dict[type, bool] = {}
        self._taken = asyncio.Event()

    def subscribe(self, name: str, *types: type, policy: Policy = Policy.KEEP, capacity: int = 10_000) -> Subscription:
        """Return a new bounded queue of the given event types; subscribe before the monitor starts, or miss its beginning."""
        if not types:
            raise ValueError(f"subscription {name!r} names no event types")
        subscription = Subscription(name, types, policy, capacity, self._taken)
        self._subscriptions.append(subscription)
        self._wanted.clear()
        return subscription

    def listen(self, listener: Callable[[Published], None], *types: type) -> None:
        """Call ``listener`` at once for every event of the types; for stages that must not lag, and never wait."""
        self._listeners.append((types, listener))
        self._wanted.clear()

    def wanted(self, kind: type) -> bool:
        """Return whether anybody takes events of a type: what nobody does need not be made."""
        known = self._wanted.get(kind)
        if known is None:
            taken = [types for types, _ in self._listeners] + [subscription.types for subscription in self._subscriptions]
            known = self._wanted[kind] = any(issubclass(kind, types) for types in taken)
        return known

    def unsubscribe(self, subscription: Subscription) -> None:
        """Take a subscription off the bus and end its iteration."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            self._wanted.clear()
            self._taken.set()
        subscription.close()

    def publish(self, event: Published) -> None:
        """Hand an event to every subscriber; never waits."""
        for types, listener in self._listeners:
            if isinstance(event, types):
                listener(event)
        for subscription in self._subscriptions:
            if isinstance(event, subscription.types):
                subscription.put(event)

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """All readers."""
        return tuple(self._subscriptions)

    def forget(self, subscription: Subscription, *, absent: bool) -> None:
        """Say that a reader has failed, so that no recording waits for it, or that it reads again."""
        subscription.absent = absent
        self._taken.set()

    def statistics(self) -> dict[str, dict[str, int]]:
        """Return per subscription how many events wait, were delivered and were dropped."""
        return {
            s.name: {
                "waiting": len(s),
                "delivered": s.delivered,
                "dropped": s.dropped,
                "lost": s.lost,
                "capacity": s.capacity,
            }
            for s in self._subscriptions
        }

    @property
    def overfull(self) -> tuple[str, ...]:
        """Names of ``KEEP`` subscriptions whose reader is stuck."""
        return tuple(s.name for s in self._subscriptions if s.overfull)

    async def drained(self) -> None:
        """Wait until every ``KEEP`` queue that is being read is at most half full: how a recording is held back."""
        while any(s.policy is Policy.KEEP and not s.absent and len(s) > s.capacity // 2 for s in self._subscriptions):
            self._taken.clear()
            await self._taken.wait()

    def close(self) -> None:
        """End every subscription once it is read out."""
        for subscription in self._subscriptions:
            subscription.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
