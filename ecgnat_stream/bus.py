"""The alert bus: in-process publish and subscribe.

Publishing never waits. Every subscription is bounded: a ``NEWEST`` one keeps the latest event per type, bed and condition (for
waveforms the latest few); a ``KEEP`` one loses no event, and reports itself as overfull when its reader is stuck, which is a
technical condition. A recording, which can wait, is held back by :meth:`Bus.drained`.
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
        Bound of the queue. ``NEWEST`` drops the oldest waveforms and counts what it dropped or replaced in ``dropped``. ``KEEP``
        never drops an event: beyond the bound ``overfull`` is True until the reader has caught up to half of it, waveforms are
        dropped and counted, and an ``Alarm`` update or continuation takes the place of the one before it of the same alarm.
    taken
        Set whenever an event is taken out.
    """

    def __init__(self, name: str, types: tuple[type, ...], policy: Policy, capacity: int, taken: asyncio.Event) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity=}")
        self.name = name
        self.types = types
        self.policy = policy
        self.capacity = capacity
        self.dropped = 0
        self.delivered = 0
        self.overfull = False
        self._queue: deque[Published] = deque()
        self._latest: OrderedDict[tuple[object, ...], Published] = OrderedDict()
        self._wake = asyncio.Event()
        self._taken = taken
        self._closed = False

    def __len__(self) -> int:
        """Return how many events wait."""
        return len(self._queue) + len(self._latest)

    def put(self, event: Published) -> None:
        """Take an event from the bus."""
        if self.policy is Policy.KEEP:
            self._keep(event)
        elif isinstance(event, Wave | Trace):
            self._queue.append(event)
            if len(self._queue) > self.capacity:
                self._queue.popleft()
                self.dropped += 1
        else:
            # A replaced event keeps its place, or a slow reader would see the first beds of every round and never the last.
            key = _key(event)
            self.dropped += key in self._latest
            self._latest[key] = event
        self._wake.set()

    def _keep(self, event: Published) -> None:
        if len(self._queue) >= self.capacity:
            self.overfull = True
            if isinstance(event, Wave | Trace):
                self.dropped += 1
                return
            if isinstance(event, Alarm):
                self._fold(event)
        self._queue.append(event)

    def _fold(self, alarm: Alarm) -> None:
        """Take out the newest waiting event of this alarm if ``alarm`` says the same, newer."""
        for index in range(len(self._queue) - 1, -1, -1):
            waiting = self._queue[index]
            if isinstance(waiting, Alarm) and waiting.alarm_id == alarm.alarm_id:
                if waiting.phase == alarm.phase and alarm.phase in ("update", "continue"):
                    del self._queue[index]
                    self.dropped += 1
                return

    def close(self) -> None:
        """End the iteration once the queue is empty."""
        self._closed = True
        self._wake.set()

    async def get(self) -> Published:
        """Return the next event.

        Raises
        ------
        StopAsyncIteration
            When the bus is closed and nothing waits.
        """
        while not len(self):
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        event = self._queue.popleft() if self._queue else self._latest.popitem(last=False)[1]
        if self.overfull and len(self._queue) <= self.capacity // 2:
            self.overfull = False
        self.delivered += 1
        self._taken.set()
        return event

    def __aiter__(self) -> AsyncIterator[Published]:
        return self

    async def __anext__(self) -> Published:
        return await self.get()


class Bus:
    """Joins the stages' publications to their subscribers; lives in one event loop."""

    def __init__(self) -> None:
        self._subscriptions: list[Subscription] = []
        self._listeners: list[tuple[tuple[type, ...], Callable[[Published], None]]] = []
        self._taken = asyncio.Event()

    def subscribe(self, name: str, *types: type, policy: Policy = Policy.KEEP, capacity: int = 10_000) -> Subscription:
        """Return a new bounded queue of the given event types; subscribe before the monitor starts, or miss its beginning."""
        if not types:
            raise ValueError(f"subscription {name!r} names no event types")
        subscription = Subscription(name, types, policy, capacity, self._taken)
        self._subscriptions.append(subscription)
        return subscription

    def listen(self, listener: Callable[[Published], None], *types: type) -> None:
        """Call ``listener`` at once for every event of the types; for stages that must not lag, and never wait."""
        self._listeners.append((types, listener))

    def unsubscribe(self, subscription: Subscription) -> None:
        """Take a subscription off the bus and end its iteration."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
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

    def statistics(self) -> dict[str, dict[str, int]]:
        """Return per subscription how many events wait, were delivered and were dropped."""
        return {
            s.name: {
                "waiting": len(s),
                "delivered": s.delivered,
                "dropped": s.dropped,
                "capacity": s.capacity,
            }
            for s in self._subscriptions
        }

    @property
    def overfull(self) -> tuple[str, ...]:
        """Names of ``KEEP`` subscriptions whose reader is stuck."""
        return tuple(s.name for s in self._subscriptions if s.overfull)

    async def drained(self) -> None:
        """Wait until every ``KEEP`` queue is at most half full: how a recording is held back."""
        while any(s.policy is Policy.KEEP and len(s) > s.capacity // 2 for s in self._subscriptions):
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
