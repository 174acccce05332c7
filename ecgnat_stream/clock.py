"""Where time comes from.

Stages ask a :class:`Clock` for monotonic nanoseconds and for the wall time that belongs to them, so that tests run
on a :class:`ManualClock` and never sleep. The sample index remains the truth; clock readings annotate it. Wall time
follows the machine's: slowly, or in a step that is said (:meth:`Clock.follow`).
"""

from __future__ import annotations

import asyncio
import heapq
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["Clock", "ManualClock", "Step", "SystemClock", "run_id"]


def run_id(now: datetime) -> str:
    """Return a name that no other process start has: its wall time in ms and 40 random bits, in hexadecimal.

    Names of later starts sort after those of earlier ones; where the wall clock is wrong, as on a board without a battery, only
    the order suffers. The layout follows UUID version 7 (RFC 9562, 5.7), shorter.
    """
    return f"{max(0, round(now.timestamp() * 1000)):012x}{secrets.token_hex(5)}"


_STEP_S = 0.5
"""A wall clock that is off by more was set; what is less is followed slowly."""

_SLEW_S = 0.0005
"""How far wall time is moved at most per :meth:`Clock.follow`: with one a second as fast as a kernel does it (adjtimex(2))."""

_SLEEP_S = 1.0


@dataclass(frozen=True, slots=True)
class Step:
    """What became of the wall clock since it was last asked: set by ``step_s``, for ``slept_s`` of which the machine slept."""

    step_s: float
    slept_s: float = 0.0

    def __str__(self) -> str:
        """Say it for a person."""
        if self.slept_s:
            return f"the machine slept for {self.slept_s:.0f} s: nothing was watched meanwhile"
        return f"the wall clock was set by {self.step_s:+.{0 if abs(self.step_s) >= 10 else 1}f} s"


class Clock(Protocol):
    """A monotonic clock with a wall-time anchor."""

    def monotonic_ns(self) -> int:
        """Return monotonic time in ns."""
        ...

    def utc(self, monotonic_ns: int | None = None) -> datetime:
        """Return the wall time (UTC) of a monotonic reading, of now if None."""
        ...

    def follow(self) -> Step | None:
        """Follow the machine's wall clock, which somebody may have set; say so if it was. To be asked about once a second."""
        ...

    async def sleep_until(self, monotonic_ns: int) -> None:
        """Return once ``monotonic_ns`` is reached; at once, after one turn of the event loop, if it has passed."""
        ...


class _Anchored:
    """Wall time by an anchor: it goes on evenly, and changes only in :meth:`_follow`."""

    def __init__(self, monotonic_ns: int, wall: datetime) -> None:
        self._anchor_ns = monotonic_ns
        self._anchor_wall = wall

    def _utc(self, monotonic_ns: int) -> datetime:
        return self._anchor_wall + timedelta(microseconds=(monotonic_ns - self._anchor_ns) / 1000)

    def _follow(self, monotonic_ns: int, wall: datetime, slept_s: float) -> Step | None:
        off_s = (wall - self._utc(monotonic_ns)).total_seconds()
        if abs(off_s) <= _STEP_S:
            self._anchor_wall += timedelta(seconds=max(-_SLEW_S, min(_SLEW_S, off_s)))
            return None
        self._anchor_ns, self._anchor_wall = monotonic_ns, wall
        return Step(off_s, slept_s if slept_s > _SLEEP_S else 0.0)


def _suspended_ns() -> int:
    """Return for how long the machine has slept since it was started: CLOCK_MONOTONIC stands still meanwhile (Linux)."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class SystemClock(_Anchored):
    """The machine's clock.

    Monotonic time stands still while the machine sleeps: delays, pauses and deadlines go on after it. What was not watched
    meanwhile is told by :meth:`follow`.

    Parameters
    ----------
    monotonic_ns, wall, suspended_ns
        Where the readings come from: monotonic time, wall time (UTC), and how long the machine has slept.
    """

    def __init__(
        self,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        suspended_ns: Callable[[], int] = _suspended_ns,
    ) -> None:
        self._monotonic_ns, self._wall, self._suspended = monotonic_ns, wall, suspended_ns
        self._suspended_ns = suspended_ns()
        super().__init__(monotonic_ns(), wall())

    def monotonic_ns(self) -> int:
        """Return monotonic time in ns."""
        return self._monotonic_ns()

    def utc(self, monotonic_ns: int | None = None) -> datetime:
        """Return the wall time (UTC) of a monotonic reading, of now if None."""
        return self._utc(self.monotonic_ns() if monotonic_ns is None else monotonic_ns)

    def follow(self) -> Step | None:
        """Follow the machine's wall clock; say so if it was set, or the machine slept."""
        suspended_ns = self._suspended()
        slept_s, self._suspended_ns = (suspended_ns - self._suspended_ns) / 1e9, suspended_ns
        return self._follow(self.monotonic_ns(), self._wall(), slept_s)

    async def sleep_until(self, monotonic_ns: int) -> None:
        """Sleep until ``monotonic_ns``."""
        await asyncio.sleep(max(0.0, (monotonic_ns - self.monotonic_ns()) / 1e9))


class ManualClock(_Anchored):
    """A clock that moves only when told to, for tests and for replay faster than real time."""

    def __init__(self, start_ns: int = 1_000_000_000, wall: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        super().__init__(start_ns, wall)
        self._now_ns = start_ns
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = 0
        self._set_by, self._slept_s = timedelta(0), 0.0

    def set_wall(self, step_s: float, slept_s: float = 0.0) -> None:
        """Set the wall clock forwards or backwards, as somebody else does or a sleep: it is noticed in :meth:`follow`."""
        self._set_by += timedelta(seconds=step_s)
        self._slept_s += slept_s

    def follow(self) -> Step | None:
        """Take over what :meth:`set_wall` has set."""
        set_by, slept_s = self._set_by, self._slept_s
        self._set_by, self._slept_s = timedelta(0), 0.0
        return self._follow(self._now_ns, self.utc() + set_by, slept_s)

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
