"""The alarm history: every alarm event, every command and its answer, kept in an SQLite file.

In come alarm events, commands and answers, and the signs of life that tell when a bed was watched. A thread of its own writes
them, all that waits in one transaction. Where no file can be (a folder, a device, not writable) the monitor does not start. One
that cannot be written to later (disk full, locked, read-only, not a history) is a technical condition, and is tried again;
meanwhile events wait in a bounded queue, and those that have to be dropped, alarm events last, are counted and told. One monitor
writes to a file: the second one does not start.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sqlite3
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

from ecgnat_stream.bus import Bus, Published
from ecgnat_stream.clock import Clock
from ecgnat_stream.errors import ConfigError, SinkError
from ecgnat_stream.events import Alarm, Command, CommandResult, Delivery, DeviceStatus, EngineStatus, Meta, Technical, Vitals
from ecgnat_stream.settings import PathText, Settings, Within
from ecgnat_stream.sidethread import SideThread
from ecgnat_stream.sink.files import Claim, make_folder, unfit, warn_of_readers
from ecgnat_stream.sink.history.read import unfinished
from ecgnat_stream.sink.history.store import Store, Stored, Stretch, Stretches, utc_text

__all__ = ["HistoryConfig", "HistorySink", "lock_of"]

_log = logging.getLogger(__name__)

CONDITION = "history-failed"
_BATCH = 500
_SAVE_S = 10.0
"""How long beds have been watched is written down so often, and with whatever else is."""
_PRUNE_S = 3600.0
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_PREPARE_S = 3.0
"""The start of the monitor waits so long for the disk; monitoring does not."""


class HistoryConfig(Settings, frozen=True, kw_only=True):
    """The alarm history, an SQLite file that `ecgnat alarms` reads.

    Parameters
    ----------
    path
        The file; made if it is not there, in a folder that is. One monitor per file.
    keep_days
        Days after which alarms that ended, and commands, are forgotten; 0 keeps them for ever.
    busy_s
        Longest wait while another process has the file locked, s.
    retry_s
        Wait after a failure before writing is tried again, s.
    backlog
        Events kept while the file cannot be written to; then others go before alarm events, the oldest first, and that is told
        and counted.
    group
        Members of the folder's group may read the file (0640); otherwise only the account of the monitor (0600), whatever the
        umask.
    """

    section: ClassVar[str] = "history"

    path: PathText
    keep_days: Annotated[float, Within(0, 36_500, "a hundred years are enough")] = 365.0
    busy_s: Annotated[float, Within(0.01, 4, "alarms wait for the file meanwhile")] = 2.0
    retry_s: Annotated[float, Within(0.01, 60, "alarms wait for the file to be tried again")] = 5.0
    backlog: Annotated[int, Within(1, 1_000_000, "what waits takes memory, about 1 KB an event")] = 10_000
    group: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise ConfigError("history.path is empty: name a file")


def lock_of(path: Path) -> Path:
    """Return the file that a monitor which writes to a history has locked."""
    real = Path(os.path.realpath(path))
    return real.parent / f"{real.name}.lock"


class HistorySink:
    """Writes down what alarmed and what persons did about it."""

    def __init__(self, config: HistoryConfig, bus: Bus, clock: Clock) -> None:
        self._config, self._bus, self._clock = config, bus, clock
        types = (Alarm, Command, CommandResult, Delivery, DeviceStatus, EngineStatus, Meta, Vitals)
        self.subscription = bus.subscribe("history", *types)
        self._path = Path(config.path)
        self._started = utc_text(clock.utc())
        self._thread = SideThread("history")
        self._claim: Claim | None = None
        self._store: Store | None = None
        self._queue: deque[Stored] = deque()
        self._batch: list[Stored] = []
        self._saving: Stretches = {}
        self._writing: Future[list[Stored]] | None = None
        self._watched = _Watched(config.backlog)
        self._save_ns = self._prune_ns = clock.monotonic_ns()
        self._failed: str | None = None
        self._why = ""
        self._losing: str | None = None
        self._work, self._room, self._closing = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.lost = self.alarms_delivered = self.alarms_lost = 0

    @property
    def missing(self) -> dict[str, str]:
        """What is not in the file and never will be, at the end."""
        lost, alarms = self.lost + self.subscription.lost, self.alarms_lost + self.subscription.alarms_lost
        if not lost:
            return {}
        why = self._why or f"{self._path}: the disk is too slow"
        return {"history": f"{lost} alarm events and commands ({alarms} of alarms) were not written: {why}"}

    async def prepare(self) -> None:
        """Claim the file before the monitor starts; a disk that does not answer within 3 s is left to :meth:`run`.

        Raises
        ------
        SinkError
            If another monitor writes to it, or none can: a folder, a device, a place that is not there or not writable. What
            passes, such as a full disk, is an alarm while monitoring.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_PREPARE_S):
                await self._thread.do(self._take_at_first)

    async def unfinished(self) -> tuple[dict[str, list[Alarm]], dict[str, int]]:
        """Return what the monitor before this one left open (:func:`~ecgnat_stream.sink.history.unfinished`).

        Raises
        ------
        SinkError
            If there is a file and it cannot be read, or not within 3 s.
        """
        try:
            async with asyncio.timeout(_PREPARE_S):
                return await self._thread.do(partial(unfinished, self._path))
        except TimeoutError:
            raise SinkError(f"{self._path}: the disk did not answer within {_PREPARE_S:g} s") from None

    async def run(self) -> None:
        """Write until the bus is closed and everything is on the disk, or cannot be."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write_all(), name="history writer")
                while True:
                    await self._room_made()
                    try:
                        self._take_in(await self.subscription.get())
                    except StopAsyncIteration:
                        break
                self._closing.set()
                self._work.set()
            self._bus.unsubscribe(self.subscription)
            await self._thread.do(self._close)
        finally:
            self._thread.submit(self._close)

    async def _room_made(self) -> None:
        """Wait while the disk is behind, but not stuck: let the bus hold what comes."""
        while len(self._queue) >= self._config.backlog and self._failed is None:
            self._room.clear()
            await self._room.wait()

    def _take_in(self, event: Published) -> None:
        if isinstance(event, Stored):
            if len(self._queue) >= self._config.backlog:
                self._drop_one()
            self._queue.append(event)
            self._work.set()
            return
        self._watched.note(event)
        now_ns = self._clock.monotonic_ns()
        if now_ns >= self._save_ns:
            self._save_ns = now_ns + round(_SAVE_S * 1e9)
            self._work.set()

    def _drop_one(self) -> None:
        """Give up the oldest event that is no alarm, or else the oldest alarm."""
        index = next((i for i, event in enumerate(self._queue) if not isinstance(event, Alarm)), 0)
        dropped = self._queue[index]
        del self._queue[index]
        self._lose([dropped], f"{self._failed}; events are being lost")

    def _lose(self, events: Sequence[Stored], why: str) -> None:
        alarms = sum(isinstance(event, Alarm) for event in events)
        self.lost += len(events)
        self.alarms_lost += alarms
        # Once only: the alarm that comes of it goes into the same queue.
        condition = "alarms-lost" if alarms else CONDITION
        if self._losing is None or (alarms and self._losing != condition):
            self._losing, self._why = condition, why
            self._report(condition, why)

    async def _write_all(self) -> None:
        while True:
            while self._writing is None and len(self._batch) < _BATCH and self._queue:
                self._batch.append(self._queue.popleft())
            self._room.set()
            self._work.clear()
            try:
                refused = await self._written()
            except (sqlite3.Error, OSError, SinkError) as error:
                self._fail(str(error) if isinstance(error, SinkError) else f"{self._path}: {error}")
                if self._closing.is_set():
                    self._give_up()
                    return
                await self._wait()
                continue
            self.alarms_delivered += sum(isinstance(event, Alarm) for event in self._batch)
            self.alarms_delivered -= sum(isinstance(event, Alarm) for event in refused)
            self._batch.clear()
            self._watched.saved(self._saving)
            self._recovered()
            if refused:
                self._lose(refused, f"{self._path}: {len(refused)} events cannot be stored: {refused[0]!r}")
            if self._closing.is_set() and not (self._queue or self._watched.due()):
                return
            if not self._queue:
                await self._work.wait()

    def _recovered(self) -> None:
        if self._losing == "alarms-lost":
            self._report("alarms-lost", None)
        if self._failed is not None or self._losing == CONDITION:
            self._report(CONDITION, None)
        self._failed = self._losing = None

    async def _written(self) -> list[Stored]:
        """Write the batch; after a cancellation the thread goes on, and the next call waits for it."""
        if self._writing is None:
            self._saving = self._watched.due()
            self._writing = self._thread.submit(partial(self._write, tuple(self._batch), self._saving))
        writing = asyncio.wrap_future(self._writing)
        try:
            return await asyncio.shield(writing)
        finally:
            if writing.done():
                self._writing = None

    def _write(self, events: Sequence[Stored], stretches: Stretches) -> list[Stored]:
        """Write what waits, return what cannot be stored; on failure open the file anew the next time."""
        try:
            if self._store is not None and not self._store.in_place:
                self._close()
                raise SinkError(f"{self._path}: the file was removed or replaced while it was written; another one is begun")
            self._take()
            if self._store is None:
                self._store = Store(self._path, self._started, self._config.busy_s, group=self._config.group)
            now_ns = self._clock.monotonic_ns()
            if self._config.keep_days and now_ns >= self._prune_ns:
                self._prune_ns = now_ns + round(_PRUNE_S * 1e9)
                self._store.prune(self._clock.utc() - timedelta(days=self._config.keep_days))
            return self._store.write(events, stretches, self.lost)
        except BaseException:
            self._close_store()
            raise

    def _take_at_first(self) -> None:
        """Claim the file unless that can never be done, in the thread."""
        if why := unfit(self._path):
            raise SinkError(f"history.path (--history): {why}")
        try:
            self._take()
        except OSError as error:
            if error.errno not in _PASSING:
                raise SinkError(f"history.path (--history): cannot write to {self._path} ({error.strerror})") from error

    def _take(self) -> None:
        """Claim the file, in the thread."""
        if self._claim is None:
            lock = lock_of(self._path)
            make_folder(lock.parent, group=self._config.group)
            claim = Claim(lock, f"history.path: {self._path}")
            claim.take()
            self._claim = claim
            if self._path.is_file():
                warn_of_readers(self._path, group=self._config.group)

    def _close_store(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _close(self) -> None:
        self._close_store()
        if self._claim is not None:
            self._claim.release()
            self._claim = None

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
        self.alarms_lost += sum(isinstance(event, Alarm) for event in (*self._batch, *self._queue))
        self._batch.clear()
        self._queue.clear()
        _log.info("%d alarm events and commands could not be written to the history: %s", left, self._failed)

    def _fail(self, detail: str) -> None:
        if detail != self._failed:
            self._failed = self._why = detail
            self._room.set()
            self._report(CONDITION, detail)

    def _report(self, condition: str, detail: str | None) -> None:
        self._bus.publish(
            Technical(
                bed="",
                time=self._clock.utc(),
                condition=condition,
                present=detail is not None,
                detail=detail or "",
                source="history",
            )
        )


class _Watched:
    """When each bed was watched: from ``online`` to the last sign of life before it was not, or before the wall clock was set.

    Of a recording also from where to where: the host may not keep the pace at which it is to be played.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[str, tuple[datetime, float]] = {}
        self._ended: dict[str, tuple[str, str]] = {}
        self._meta: dict[str, Meta] = {}
        self._at_s: dict[str, float] = {}
        self._cut: set[str] = set()
        self._due: dict[tuple[str, str], Stretch] = {}

    def note(self, event: Published) -> None:
        """Note a sign of life, or that the wall clock was set: what was before it and what comes after cannot be compared."""
        if isinstance(event, Alarm) and event.condition == "clock-jump" and not event.bed:
            self._cut.update(self._open)
        if isinstance(event, Meta):
            self._meta[event.bed] = event
        if not isinstance(event, DeviceStatus | EngineStatus | Vitals):
            return
        bed = event.bed
        if event.at_s is not None:
            self._at_s[bed] = event.at_s
        at_s = self._at_s.get(bed, 0.0)
        if isinstance(event, Vitals):
            self._until(self._ended.pop(bed, None), at_s)
        elif event.online and bed not in self._open:
            self._open[bed] = event.time, at_s
            self._ended.pop(bed, None)
        if bed not in self._open:
            return
        if bed in self._cut:
            self._cut.discard(bed)
            self._open[bed] = event.time, at_s
        started, from_s = self._open[bed]
        key, stopped = (bed, utc_text(started)), utc_text(event.time)
        meta = self._meta.get(bed)
        if meta is None or not (meta.recorded or meta.pace != 1):
            self._due[key] = Stretch(stopped)
        else:
            self._due[key] = Stretch(stopped, meta.pace, from_s, at_s)
        if len(self._due) > self._most:
            del self._due[next(iter(self._due))]
        if not isinstance(event, Vitals) and not event.online:
            del self._open[bed]
            self._ended[bed] = key

    def _until(self, key: tuple[str, str] | None, at_s: float) -> None:
        """Note how far a recording had come: that is told once it has ended."""
        stretch = None if key is None else self._due.get(key)
        if key is not None and stretch is not None and stretch.to_s is not None:
            self._due[key] = stretch._replace(to_s=max(at_s, stretch.to_s))

    def due(self) -> Stretches:
        """Return what is to be written down."""
        return dict(self._due)

    def saved(self, stretches: Stretches) -> None:
        """Take note of what is on the disk."""
        for key, stretch in stretches.items():
            if self._due.get(key) == stretch:
                del self._due[key]
