"""Every event as one line of JSON, for a pipe or a file; waveforms are left out.

In come all events. A thread of its own writes them, so a pipe that is full stops nothing but this: events wait in the bounded
queue of the bus, and what runs over there is counted and told. So it is with a file on a disk that is full, for which no
recording waits; what is not written at the end is ``missing``. A pipe that is closed at the other end ends the sink, not the
monitor; one that nobody reads does not keep the program from ending.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import select
import sys
from concurrent.futures import Future
from functools import partial
from typing import TextIO

from ecgnat_stream import wire
from ecgnat_stream.bus import Bus, Published
from ecgnat_stream.clock import Clock, SystemClock
from ecgnat_stream.events import Alarm, Event, Technical
from ecgnat_stream.sidethread import SideThread

__all__ = ["JsonLinesSink"]

_log = logging.getLogger(__name__)

_BATCH = 20_000
_RETRY_S = 1.0
_LAST_TRIES = 3
"""After the end of the monitoring it is tried so often, before what waits is given up."""
_UNFIT = (ValueError, TypeError, OverflowError)
"""What the encoder raises for an event that cannot be JSON."""


class JsonLinesSink:
    """Writes events to a text stream as they come.

    Parameters
    ----------
    stream
        Where to write; flushed after every batch.
    """

    def __init__(self, bus: Bus, stream: TextIO, clock: Clock | None = None) -> None:
        self._bus, self._stream, self._clock = bus, stream, clock or SystemClock()
        self.subscription = bus.subscribe("json lines", Event)
        self._thread = SideThread("json lines")
        self._batch: list[Published] = []
        self._rest = memoryview(b"")
        self._alarms = 0
        self._writing: Future[None] | None = None
        self._behind = 0
        self._failed = self._why = ""
        self._last_tries, self._gone = _LAST_TRIES, False
        self.alarms_delivered = self.alarms_lost = self.lost = 0

    @property
    def missing(self) -> dict[str, str]:
        """What will never be written, at the end."""
        lost, alarms = self.lost + self.subscription.lost, self.alarms_lost + self.subscription.alarms_lost
        if self._gone or not lost:
            return {}
        name = "standard output" if self._stream is sys.stdout else getattr(self._stream, "name", "the stream")
        why = self._why or "it did not take them in time"
        return {"json lines": f"{lost} events ({alarms} of alarms) were not written to {name}: {why}"}

    async def run(self) -> None:
        """Write until the bus is closed, or until nobody reads any more."""
        try:
            await self._written()
            async for event in self.subscription:
                self._batch.append(event)
                while len(self.subscription) and len(self._batch) < _BATCH:
                    self._batch.append(await self.subscription.get())
                await self._written()
        except BrokenPipeError:
            self._gone = True  # who has gone misses nothing
            if self._stream is sys.stdout:
                # The interpreter flushes stdout once more when it ends, and would complain.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        self._bus.unsubscribe(self.subscription)

    async def _written(self) -> None:
        """Write what was taken; after a cancellation the thread goes on, and the next call waits for it."""
        while self._writing is not None or self._batch or self._rest:
            if self._writing is None:
                batch, self._batch = self._batch, []
                self._writing = self._thread.submit(partial(self._write, self._with_gap(batch)))
            writing = asyncio.wrap_future(self._writing)
            try:
                await asyncio.shield(writing)
            except BrokenPipeError:
                raise
            except OSError as error:
                if not self._failed:
                    _log.warning("events cannot be written as JSON lines, and wait: %s", error.strerror)
                self._failed = self._why = str(error.strerror)
                self._writing = None
                self._bus.forget(self.subscription, absent=True)
                if self.subscription.closed:
                    self._last_tries -= 1
                if self._last_tries <= 0:
                    self._give_up()
                    return
                await self._clock.sleep_until(self._clock.monotonic_ns() + round(_RETRY_S * 1e9))
            else:
                self._failed = ""
                self._bus.forget(self.subscription, absent=False)
            finally:
                if writing.done():
                    self._writing = None

    def _give_up(self) -> None:
        """Count what waits as lost: nothing more will be written."""
        self.lost += bytes(self._rest).count(b"\n")
        self.alarms_lost += self._alarms
        self._rest, self._alarms = self._rest[:0], 0

    def _with_gap(self, batch: list[Published]) -> list[Event]:
        """Return the events of a batch; where some were lost before it, it begins with a line that says so."""
        lost, self._behind = self.subscription.lost - self._behind, self.subscription.lost
        events = [event for event in batch if isinstance(event, Event)]
        if lost:
            detail = f"json lines: {lost} events are missing here, they were not read in time"
            events.insert(0, Technical(bed="", time=self._clock.utc(), condition="sink-stuck", present=True, detail=detail))
        return events

    def _write(self, events: list[Event]) -> None:
        lines = bytearray()
        for event in events:
            is_alarm = isinstance(event, Alarm)
            try:
                lines += wire.encode_json(event) + b"\n"
            except _UNFIT:
                _log.error("an event of %s cannot be written as JSON: %r", event.bed or "the worker", event, exc_info=True)
                self.alarms_lost += is_alarm
            else:
                self._alarms += is_alarm
        # What an earlier failure has left comes first: a line may have been cut in two.
        self._rest = memoryview(bytes(self._rest) + bytes(lines))
        self._put()
        self.alarms_delivered += self._alarms
        self._alarms = 0

    def _put(self) -> None:
        try:
            descriptor = self._stream.fileno()
        except (AttributeError, io.UnsupportedOperation):
            text, self._rest = str(self._rest, "utf-8"), self._rest[:0]
            self._stream.write(text)
            self._stream.flush()
            return
        # Past the stream's own buffer: the interpreter would wait at its end for a thread that stands in the middle of it.
        self._stream.flush()
        while self._rest:
            try:
                self._rest = self._rest[os.write(descriptor, self._rest) :]
            except BlockingIOError:
                select.select((), (descriptor,), ())
