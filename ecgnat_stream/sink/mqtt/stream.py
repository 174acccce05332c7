"""Waves, beats and technical events, on a connection of their own: no alarm ever waits behind them.

In come waves and messages, out go the newest few thousand while there is a connection; what is too old is dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ecgnat_stream import wire
from ecgnat_stream.clock import Clock
from ecgnat_stream.events import Wave
from ecgnat_stream.sink.mqtt.client import Client, Message
from ecgnat_stream.sink.mqtt.config import MqttConfig

__all__ = ["Stream"]

_AT_ONCE = 64


class Stream:
    """Keeps the newest messages, and sends them without acknowledgement.

    Parameters
    ----------
    sent
        Called when everything is out.
    """

    def __init__(self, config: MqttConfig, clock: Clock, sent: Callable[[], None]) -> None:
        self._config, self._clock, self._sent = config, clock, sent
        self._waiting: deque[tuple[int, Message]] = deque(maxlen=config.stream_backlog)
        self._cutters: dict[str, wire.WaveCutter] = {}
        self._work = asyncio.Event()

    def __len__(self) -> int:
        """Return how many messages wait."""
        return len(self._waiting)

    def put(self, message: Message) -> None:
        """Take a message; the oldest goes when there are too many."""
        self._waiting.append((self._clock.monotonic_ns(), message))
        self._work.set()

    def wave(self, wave: Wave) -> None:
        """Take samples; they go out in frames."""
        cutter = self._cutters.get(wave.bed)
        if cutter is None or not cutter.fits(wave):
            if cutter is not None:
                self._frames(cutter.flush(), wave.bed)
            cutter = wire.WaveCutter(wave.fs, wave.leads, wave.uv_per_lsb, cutter.sequence if cutter else 0)
            self._cutters[wave.bed] = cutter
        self._frames(cutter.cut(wave, wire.epoch_ns(self._clock.utc(wave.block.t_ns))), wave.bed)

    def flush(self) -> None:
        """Take the frames that are begun: nothing more will come."""
        for bed, cutter in self._cutters.items():
            self._frames(cutter.flush(), bed)

    def _frames(self, frames: list[wire.WaveFrame], bed: str) -> None:
        for frame in frames:
            self.put(Message(wire.wave_topic(bed), frame.encode(), expiry_s=self._config.wave_expiry_s))

    async def serve(self, client: Client) -> None:
        """Send what comes, until the connection is lost."""

        async def send() -> None:
            while True:
                self._work.clear()
                while self._waiting:
                    await self._send(client)
                self._sent()
                await self._work.wait()

        async def watch_connection() -> None:
            async for _ in client.messages:
                pass

        async with asyncio.TaskGroup() as group:
            group.create_task(watch_connection())
            group.create_task(send())

    async def _send(self, client: Client) -> None:
        oldest_ns = self._clock.monotonic_ns() - round(self._config.wave_expiry_s * 1e9)
        messages = [self._waiting.popleft() for _ in range(min(len(self._waiting), _AT_ONCE))]
        fresh = [message for at_ns, message in messages if at_ns >= oldest_ns]
        for message in fresh[:-1]:
            client.post(message, qos=0)
        for message in fresh[-1:]:
            await client.send(message, qos=0)
