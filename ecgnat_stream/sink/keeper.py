"""Keeps the sinks running: each in a task of its own, again whenever it fails, and for a bounded time at the end.

A sink that fails is told and started again after a pause; the events of its subscription wait for it, within their bounds, and no
recording waits for them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from ecgnat_stream.bus import Bus, Subscription
from ecgnat_stream.clock import Clock

__all__ = ["Keeper", "Sink", "leave"]

_log = logging.getLogger(__name__)

_AGAIN_S = (0.5, 30.0)
"""First and longest wait before a sink that has failed is started again; one that has worked for the longest begins anew."""

_SETTLED_S = 5.0
"""A sink that was started again counts as sound after this time."""

_CLOSE_S = 3.5
"""Sinks that have not read out their queue so long after the end are cut off, and named."""


class Sink(Protocol):
    """A receiver of events: subscribes when it is built, reads until the bus is closed.

    One that keeps what it reads as ``subscription`` is run again when :meth:`run` has raised: it goes on where it was, and an
    event that it could not handle does not come again. One that also counts ``alarms_delivered`` and ``alarms_lost`` is held to
    account for its alarms (:class:`~ecgnat_stream.watchdog.Accountable`). One that has ``missing``, what of it will never reach
    anybody, by part, with number, place and reason, makes these failures of the monitor at its end.
    """

    async def run(self) -> None:
        """Consume until the bus is closed and the queue is read out."""
        ...


class Keeper:
    """Keeps sinks running from :meth:`start` to :meth:`close`.

    Parameters
    ----------
    failed
        Called with the name of a sink and why it has failed.
    works
        Called with the name of a sink that has worked for some seconds.
    stop
        Called when a sink that a person looks at has ended.
    """

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        failed: Callable[[str, str], None],
        works: Callable[[str], None],
        stop: Callable[[], None],
    ) -> None:
        self._bus, self._clock, self._failed, self._works, self._stop = bus, clock, failed, works, stop
        self._sinks: list[tuple[Sink, bool]] = []
        self._tasks: list[asyncio.Task[None]] | None = None
        self._closing = asyncio.Event()

    def add(self, sink: Sink, *, essential: bool) -> None:
        """Add a sink, before the start or after it."""
        self._sinks.append((sink, essential))
        if self._tasks is not None:
            self._tasks.append(self._task(sink, essential))

    def start(self) -> None:
        """Start every sink."""
        self._tasks = [self._task(*sink) for sink in self._sinks]

    def _task(self, sink: Sink, essential: bool) -> asyncio.Task[None]:
        return asyncio.create_task(self._run(sink, essential), name=type(sink).__name__)

    async def close(self, stopped: Coroutine[Any, Any, object]) -> list[str]:
        """Let the sinks read out their queues, the bus being closed; return the names of those that did not in time.

        Parameters
        ----------
        stopped
            Waited for while a person still looks: the recordings may have ended, but what they gave is to be seen.
        """
        self._closing.set()
        tasks = self._tasks or []
        if any(essential for _, essential in self._sinks):
            await stopped
        else:
            stopped.close()
        _, late = await asyncio.wait(tasks, timeout=_CLOSE_S) if tasks else ((), ())
        await leave(*late, within_s=1.0)
        return [task.get_name() for task in late]

    def missing(self) -> dict[str, str]:
        """Return what the sinks could not deliver and never will."""
        return {what: why for sink, _ in self._sinks for what, why in getattr(sink, "missing", {}).items()}

    async def _run(self, sink: Sink, essential: bool) -> None:
        name, wait_s = type(sink).__name__, _AGAIN_S[0]
        subscription: Subscription | None = getattr(sink, "subscription", None)
        while True:
            begun_ns = self._clock.monotonic_ns()
            sound = await self._sound(sink, name)
            if sound and not (essential or self._closing.is_set()):
                self._failed(name, "it has ended by itself")  # nobody gets its alarms any more
            if sound or subscription is None or self._closing.is_set():
                break
            self._bus.forget(subscription, absent=True)
            if self._clock.monotonic_ns() - begun_ns > _AGAIN_S[1] * 1e9:
                wait_s = _AGAIN_S[0]
            await self._pause(wait_s)
            wait_s = min(2 * wait_s, _AGAIN_S[1])
            self._bus.forget(subscription, absent=False)
        if subscription is not None:
            self._bus.unsubscribe(subscription)
        if essential:
            self._stop()

    async def _sound(self, sink: Sink, name: str) -> bool:
        """Run a sink; say whether it came to its end as it should."""
        settling = asyncio.create_task(self._settle(name), name=f"{name} settles")
        try:
            await sink.run()
        except (Exception, asyncio.CancelledError) as error:
            # The task border: a sink that fails, or that cancels itself, is a technical alarm, and the others go on.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            _log.info("%s has failed", name, exc_info=True)
            self._failed(name, f"{type(error).__name__}: {error}")
            return False
        finally:
            settling.cancel()
        return True

    async def _settle(self, name: str) -> None:
        await self._clock.sleep_until(self._clock.monotonic_ns() + round(_SETTLED_S * 1e9))
        self._works(name)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not beyond the end of the monitoring."""
        until_ns = self._clock.monotonic_ns() + round(seconds * 1e9)
        waits = [asyncio.ensure_future(self._clock.sleep_until(until_ns)), asyncio.ensure_future(self._closing.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


async def leave(*tasks: asyncio.Task[Any], within_s: float) -> list[str]:
    """Cancel tasks and wait for them, but not for ever; return the names of those that do not heed it."""
    for task in tasks:
        task.cancel()
    _, stuck = await asyncio.wait(tasks, timeout=within_s) if tasks else ((), ())
    return [task.get_name() for task in stuck]
