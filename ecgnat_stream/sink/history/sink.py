"""The alarm history: every alarm event, every command and its answer, kept in an SQLite file.

In come alarm events, commands and answers, and the signs of life that tell when a bed was watched. One thread writes them, all
that waits in one transaction. A file that cannot be written to (disk full, locked, read-only, not a history) is a technical
condition, and writing is tried again; meanwhile events wait in a bounded queue, and those that have to be dropped are counted.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

from ecgnat_stream.bus import Bus, Published
from ecgnat_stream.clock import Clock
from ecgnat_stream.errors import ConfigError, SinkError
from ecgnat_stream.events import Alarm, Command, CommandResult, Delivery, DeviceStatus, EngineStatus, Technical, Vitals
from ecgnat_stream.settings import Settings, Within
from ecgnat_stream.sink.history.read import unfinished
from ecgnat_stream.sink.history.store import Store, Stored, Stretches, utc_text

__all__ = ["HistoryConfig", "HistorySink", "unfinished"]

_log = logging.getLogger(__name__)

CONDITION = "history-failed"
_BATCH = 500
_SAVE_S = 10.0
"""How long beds have been watched is written down so often, and with whatever else is."""
_PRUNE_S = 3600.0


class HistoryConfig(Settings, frozen=True, kw_only=True):
    """The alarm history, an SQLite file that `ecgnat alarms` reads.

    Parameters
    ----------
    path
        The file; made if it is not there. One monitor per file.
    keep_days
        Days after which alarms that ended, and commands, are forgotten; 0 keeps them for ever.
    busy_s
        Longest wait while another process has the file locked, s.
    retry_s
        Wait after a failure before writing is tried again, s.
    backlog
        Events kept while the file cannot be written to; the oldest go first, and that is told and counted.
    """

    section: ClassVar[str] = "history"

    path: str
    keep_days: Annotated[float, Within(0, 36_500, "a hundred years are enough")] = 365.0
    busy_s: Annotated[float, Within(0.01, 4, "alarms wait for the file meanwhile")] = 2.0
    retry_s: Annotated[float, Within(0.01, 60, "alarms wait for the file to be tried again")] = 5.0
    backlog: Annotated[int, Within(1, 1_000_000, "what waits takes memory, about 1 KB an event")] = 10_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise ConfigError("history.path is empty: name a file")


class HistorySink:
    """Writes down what alarmed and what persons did about it."""

    def __init__(self, config: HistoryConfig, bus: Bus, clock: Clock) -> None:
        self._config, self._bus, self._clock = config, bus, clock
        types = (Alarm, Command, CommandResult, Delivery, DeviceStatus, EngineStatus, Vitals)
        self._subscription = bus.subscribe("history", *types)
        self._path = Path(config.path)
        self._started = utc_text(clock.utc())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="history")
        self._store: Store | None = None
        self._queue: deque[Stored] = deque()
        self._batch: list[Stored] = []
        self._watched = _Watched(config.backlog)
        self._save_ns = self._prune_ns = clock.monotonic_ns()
        self._failed: str | None = None
        self._losing = False
        self._work, self._room, self._closing = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.lost = 0

    async def run(self) -> None:
        """Write until the bus is closed and everything is on the disk, or cannot be."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write_all(), name="history writer")
                async for event in self._subscription:
                    await self._take(event)
                self._closing.set()
                self._work.set()
        finally:
            self._bus.unsubscribe(self._subscription)
            self._thread.submit(self._close)
            self._thread.shutdown()

    async def _take(self, event: Published) -> None:
        if not isinstance(event, Stored):
            self._watched.note(event)
            now_ns = self._clock.monotonic_ns()
            if now_ns >= self._save_ns:
                self._save_ns = now_ns + round(_SAVE_S * 1e9)
                self._work.set()
            return
        while len(self._queue) >= self._config.backlog and self._failed is None:
            # Behind, but not stuck: let the bus hold what comes.
            self._room.clear()
            await self._room.wait()
        if len(self._queue) >= self._config.backlog:
            self._queue.popleft()
            self.lost += 1
            if not self._losing:
                # Once only: the alarm that comes of it goes into the same queue.
                self._losing = True
                self._report(f"{self._failed}; events are being lost")
        self._queue.append(event)
        self._work.set()

    async def _write_all(self) -> None:
        while True:
            while len(self._batch) < _BATCH and self._queue:
                self._batch.append(self._queue.popleft())
            self._room.set()
            self._work.clear()
            stretches = self._watched.due()
            try:
                await self._in_thread(partial(self._write, stretches))
            except (sqlite3.Error, OSError, SinkError) as error:
                self._fail(str(error) if isinstance(error, SinkError) else f"{self._path}: {error}")
                if self._closing.is_set():
                    self._give_up()
                    return
                await self._wait()
                continue
            self._batch.clear()
            self._watched.saved(stretches)
            if self._failed is not None:
                self._failed, self._losing = None, False
                self._report(None)
            if self._closing.is_set() and not (self._queue or self._watched.due()):
                return
            if not self._queue:
                await self._work.wait()

    async def _in_thread(self, work: Callable[[], None]) -> None:
        """Run in the writer's thread; a cancellation waits for it, which would otherwise write on behind our back."""
        writing = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            raise

    def _write(self, stretches: Stretches) -> None:
        """Write what waits; on failure open the file anew the next time."""
        try:
            if self._store is None:
                self._store = Store(self._path, self._started, self._config.busy_s)
            now_ns = self._clock.monotonic_ns()
            if self._config.keep_days and now_ns >= self._prune_ns:
                self._prune_ns = now_ns + round(_PRUNE_S * 1e9)
                self._store.prune(self._clock.utc() - timedelta(days=self._config.keep_days))
            self._store.write(self._batch, stretches, self.lost)
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    async def _wait(self) -> None:
        """Wait until it is time to try again, or the last chance to."""
        due_ns = self._clock.monotonic_ns() + round(self._config.retry_s * 1e9)
        waits = [asyncio.ensure_future(self._clock.sleep_until(due_ns)), asyncio.ensure_future(self._closing.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _give_up(self) -> None:
        left = len(self._batch) + len(self._queue)
        self.lost += left
        self._queue.clear()
        _log.warning("%d alarm events and commands could not be written to the history: %s", left, self._failed)

    def _fail(self, detail: str) -> None:
        if detail != self._failed:
            self._failed = detail
            self._room.set()
            self._report(detail)

    def _report(self, detail: str | None) -> None:
        self._bus.publish(
            Technical(bed="", time=self._clock.utc(), condition=CONDITION, present=detail is not None, detail=detail or "")
        )


class _Watched:
    """When each bed was watched: from ``online`` to the last sign of life before it was not, or before the wall clock was set."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[str, datetime] = {}
        self._cut: set[str] = set()
        self._due: dict[tuple[str, str], str] = {}

    def note(self, event: Published) -> None:
        """Note a sign of life, or that the wall clock was set: what was before it and what comes after cannot be compared."""
        if isinstance(event, Alarm) and event.condition == "clock-jump" and not event.bed:
            self._cut.update(self._open)
        if isinstance(event, DeviceStatus | EngineStatus) and event.online:
            self._open.setdefault(event.bed, event.time)
        if isinstance(event, DeviceStatus | EngineStatus | Vitals) and event.bed in self._open:
            if event.bed in self._cut:
                self._cut.discard(event.bed)
                self._open[event.bed] = event.time
            self._due[event.bed, utc_text(self._open[event.bed])] = utc_text(event.time)
            if len(self._due) > self._most:
                del self._due[next(iter(self._due))]
            if not isinstance(event, Vitals) and not event.online:
                del self._open[event.bed]

    def due(self) -> Stretches:
        """Return what is to be written down."""
        return dict(self._due)

    def saved(self, stretches: Stretches) -> None:
        """Take note of what is on the disk."""
        for key, stopped in stretches.items():
            if self._due.get(key) == stopped:
                del self._due[key]
