"""A live load that costs next to nothing: blocks made beforehand, handed to all beds by one task.

A simulated device of its own for each of a thousand beds would measure the simulator. Here sixteen simulated patients are cut
into blocks once; every bed reads one of them from a place of its own, over and over. One task hands the blocks out, each bed's at
its own instant within a block's time. A block carries the time at which it was due, so that a loop that comes late to it shows as
latency. What the task costs is measured (:attr:`Feeder.cost_s`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.clock import Clock, SystemClock
from ecgnat_stream.device import open_device
from ecgnat_stream.signal import LEADS, SampleBlock, StreamInfo

__all__ = ["FEEDER", "FedDevice", "Feeder", "leads_of", "patients"]

FEEDER = "bench load"
"""Name of the task that hands out the blocks."""

_BLOCK_S = 0.1
_PHASES = 10
_PATIENTS, _LENGTH_S = 16, 60.0
_SCRIPTS = {3: "af", 6: "ectopy", 9: "svt", 12: "block", 15: "tour"}
"""Patients with another rhythm than sinus: a third, as on a ward with monitors."""


def leads_of(count: int) -> tuple[str, ...]:
    """Return the leads of a bed with so many.

    Raises
    ------
    ValueError
        For a number other than 1 to 12.
    """
    if not 1 <= count <= len(LEADS):
        raise ValueError(f"want 1 to {len(LEADS)} leads, got {count}")
    return ("II", "V1")[:count] if count <= 2 else LEADS[:count]


async def patients(
    leads: Sequence[str], fs: float, count: int = _PATIENTS, seconds: float = _LENGTH_S
) -> list[NDArray[np.float32]]:
    """Return simulated patients, ``(L, T)`` mV each: two thirds in sinus rhythm of different rates, some noisier than others."""
    found = []
    for seed in range(count):
        rhythm: Any = _SCRIPTS.get(seed) or [{"rhythm": "sinus", "seconds": 600, "rate_bpm": 55 + 3.0 * seed}]
        options = {"fs": fs, "leads": list(leads), "seed": seed, "script": rhythm, "noise_mv": 0.005 + 0.002 * (seed % 8)}
        device = open_device("simulate", options | {"speed": "max", "block_s": 1.0}, SystemClock())
        parts: list[NDArray[np.float32]] = []
        async with device:
            async for block in device:
                parts.append(block.samples)
                if len(parts) >= seconds:
                    break
        found.append(np.concatenate(parts, axis=1))
    return found


class Feeder:
    """Hands blocks to beds, each at its own instant.

    Parameters
    ----------
    signals
        ``(L, T)`` mV each; bed ``r`` reads the signal ``r`` modulo their number, from a place of its own.
    live
        If not, a bed's device is a recording of ``total_s`` that gives its blocks as fast as they are taken.
    """

    def __init__(
        self,
        signals: Sequence[NDArray[np.float32]],
        beds: int,
        fs: float,
        leads: Sequence[str],
        clock: Clock,
        *,
        live: bool = True,
        total_s: float = 0.0,
    ) -> None:
        self.fs, self.leads, self.clock, self.live = fs, tuple(leads), clock, live
        self.length = round(_BLOCK_S * fs)
        self.total = None if live else round(total_s * fs)
        self.cost_s = 0.0
        cut = [
            [
                np.ascontiguousarray(signal[:, at : at + self.length])
                for at in range(0, signal.shape[1] - self.length + 1, self.length)
            ]
            for signal in signals
        ]
        self._wheel: list[list[FedDevice]] = [[] for _ in range(_PHASES)]
        self.devices = [FedDevice(self, cut[row % len(cut)], row) for row in range(beds)]

    def connect(self, device: FedDevice) -> None:
        """Begin to give blocks to a device."""
        self._wheel[device.row % _PHASES].append(device)

    def disconnect(self, device: FedDevice) -> None:
        """Give a device no more."""
        self._wheel[device.row % _PHASES].remove(device)

    async def run(self) -> None:
        """Hand out blocks in real time, for ever."""
        step_ns, tick = round(_BLOCK_S / _PHASES * 1e9), 0
        begin_ns = self.clock.monotonic_ns()
        while True:
            await self.clock.sleep_until(begin_ns + tick * step_ns)
            began = time.perf_counter()
            while (due_ns := begin_ns + tick * step_ns) <= self.clock.monotonic_ns():
                for device in self._wheel[tick % _PHASES]:
                    device.deliver(due_ns)
                tick += 1
            self.cost_s += time.perf_counter() - began


class FedDevice:
    """One bed's device, which waits for the feeder."""

    def __init__(self, feeder: Feeder, blocks: Sequence[NDArray[np.float32]], row: int) -> None:
        self.row, self.recorded = row, False
        self._feeder, self._blocks = feeder, blocks
        self._next, self._at = 0, 37 * row % len(blocks)
        self._waiting: deque[SampleBlock] = deque()
        self._reader: asyncio.Future[None] | None = None

    async def __aenter__(self) -> StreamInfo:
        """Connect."""
        feeder = self._feeder
        self._next = 0
        self._waiting.clear()
        if feeder.live:
            feeder.connect(self)
        return StreamInfo(fs=feeder.fs, leads=feeder.leads, device="bench", live=feeder.live, total=feeder.total)

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Disconnect."""
        if self._feeder.live:
            self._feeder.disconnect(self)

    def deliver(self, due_ns: int) -> None:
        """Take the next block, due at ``due_ns``."""
        self._waiting.append(self._block(due_ns))
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _block(self, t_ns: int) -> SampleBlock:
        block = SampleBlock(self._next, self._blocks[self._at], t_ns)
        self._next += self._feeder.length
        self._at = (self._at + 1) % len(self._blocks)
        return block

    async def __aiter__(self) -> AsyncIterator[SampleBlock]:
        """Yield the blocks as they come."""
        total = self._feeder.total
        while total is not None and self._next + self._feeder.length <= total:
            yield self._block(self._feeder.clock.monotonic_ns())
        loop = asyncio.get_running_loop()
        while total is None:
            while self._waiting:
                yield self._waiting.popleft()
            self._reader = loop.create_future()
            await self._reader
