"""Every event as one line of JSON, for a pipe or a file; waveforms are left out.

In come all events; nothing is dropped. A pipe that is closed at the other end ends the sink, not the monitor.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TextIO

from ecgnat_stream import wire
from ecgnat_stream.bus import Bus, Published
from ecgnat_stream.events import Event

__all__ = ["JsonLinesSink"]

_BATCH = 1000


class JsonLinesSink:
    """Writes events to a text stream as they come.

    Parameters
    ----------
    stream
        Where to write; flushed after every batch.
    """

    def __init__(self, bus: Bus, stream: TextIO) -> None:
        self._bus = bus
        self._stream = stream
        self._subscription = bus.subscribe("json lines", Event)

    async def run(self) -> None:
        """Write until the bus is closed, or until nobody reads any more."""
        try:
            async for event in self._subscription:
                batch = [event]
                while len(self._subscription) and len(batch) < _BATCH:
                    batch.append(await self._subscription.get())
                # In a thread: a full pipe makes the writer wait, and the monitor must not.
                await asyncio.to_thread(self._write, batch)
        except BrokenPipeError:
            if self._stream is sys.stdout:
                # The interpreter flushes stdout once more when it ends, and would complain.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        finally:
            self._bus.unsubscribe(self._subscription)

    def _write(self, batch: list[Published]) -> None:
        for event in batch:
            if isinstance(event, Event):
                self._stream.write(wire.encode_json(event).decode() + "\n")
        self._stream.flush()
