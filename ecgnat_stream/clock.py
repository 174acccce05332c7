"""Where time comes from.

Stages ask a :class:`Clock` for monotonic nanoseconds and for the wall time that belongs to them, so that tests run
on a :class:`ManualClock` and never sleep. The sample index remains the truth; clock readings annotate it.
"""

from __future__ import annotations

import asyncio
import heapq
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["Clock", "ManualClock", "SystemClock", "run_id"]


def run_id(now: datetime) -> str:
    """Return a name that no other process start has: its wall time in ms and 40 random bits, in hexadecimal.

    Names of later starts sort after those of earlier ones; where the wall clock is wrong, as on a board without a battery, only
    the order suffers. The layout follows UUID version 7 (RFC 9562, 5.7), shorter.
    """
    return f"{max(0, round(now.timestamp() * 1000)):012x}{secrets.token_hex(5)}"


class Clock(Protocol):
    """A monotonic clock with a wall-time anchor."""

    def monotonic_ns(self) -> int:
        """Return monotonic time in ns."""
        ...

    def utc(self, monotonic_ns: int | None = None) -> datetime:
        """Return the wall time (UTC) of a monotonic reading, of now if None."""
        ...

    async def sleep_until(self, monotonic_ns: int) -> None:
        """Return once ``monotonic_ns`` is reached; at once, after one turn of the event loop, if it has passed."""
        ...


class _Anchored:
    """Wall time by an anchor taken once, so that it never runs backwards when the system's wall clock is set."""

    def __init__(self, monotonic_ns: int, wall: datetime) -> None:
        self._anchor_ns = monotonic_ns
        self._anchor_wall = wall

    def _utc(self, monotonic_ns: int) -> datetime:
        return self._anchor_wall + timedelta(microseconds=(monotonic_ns - self._anchor_ns) / 1000)


class SystemClock(_Anchored):
    """The machine's clock."""

    def __init__(self) -> None:
        super().__init__(time.monotonic_ns(), datetime.now(UTC))

    def monotonic_ns(self) -> int:
        """Return monotonic time in ns."""
        return time.monotonic_ns()

    def utc(self, monotonic_ns: int | None = None) -> datetime:
        """Return the wall time (UTC) of a monotonic reading, of now if None."""
        return self._utc(self.monotonic_ns() if monotonic_ns is None else monotonic_ns)

    async def sleep_until(self, monotonic_ns: int) -> None:
        """Sleep until ``monotonic_ns``."""
        await asyncio.sleep(max(0.0, (monotonic_ns - time.monotonic_ns()) / 1e9))


class ManualClock(_Anchored):
    """A clock that moves only when told to, for tests and for replay faster than real time."""

    def __init__(self, start_ns: int = 1_000_000_000, wall: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        super().__init__(start_ns, wall)
        self._now_ns = start_ns
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = 0

    def monotonic_ns(self) -> int:
        """Return the set time in ns."""
        return self._now_ns

    def utc(self, monotonic_ns: int | None = None) -> datetime:
        """Return the wall time (UTC) of a monotonic reading, of now if None."""
        return self._utc(self._now_ns if monotonic_ns is None else monotonic_ns)

    async def sleep_until(self, monotonic_ns: int) -> None:
        """Wait until :meth:`advance` has carried the clock to ``monotonic_ns``."""
        if monotonic_ns <= self._now_ns:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        self._order += 1
        heapq.heappush(self._sleepers, (monotonic_ns, self._order, future))
        await future

    async def advance(self, seconds: float) -> None:
        """Move time forward, waking every sleeper at its own deadline, in order, and letting it run."""
        stop_ns = self._now_ns + round(seconds * 1e9)
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= stop_ns:
            deadline, _, future = heapq.heappop(self._sleepers)
            self._now_ns = max(self._now_ns, deadline)
            if not future.done():
                future.set_result(None)
            await self._settle()
        self._now_ns = stop_ns
        await self._settle()

    @staticmethod
    async def _settle() -> None:
        for _ in range(20):
            await asyncio.sleep(0)
