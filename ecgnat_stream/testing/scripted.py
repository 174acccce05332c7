"""A device that does what a test tells it, and a clock that jumps to whatever it is asked to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar

import msgspec

from ecgnat_stream.clock import Clock, ManualClock
from ecgnat_stream.errors import DeviceError
from ecgnat_stream.signal import SampleBlock, StreamInfo

__all__ = ["InstantClock", "ScriptedDevice", "ScriptedOptions", "Step"]


class InstantClock(ManualClock):
    """A clock on which waiting takes no time: :meth:`sleep_until` moves it there."""

    async def sleep_until(self, monotonic_ns: int) -> None:
        """Move to ``monotonic_ns``, if that is later, after one turn of the event loop."""
        self._now_ns = max(self._now_ns, monotonic_ns)
        await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class Step:
    """What happens ``at_s`` seconds after connecting: a block is delivered, or an error raised."""

    at_s: float
    what: SampleBlock | BaseException


class ScriptedOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The script.

    Parameters
    ----------
    info
        What entering returns; an error: what it raises.
    steps
        In order of time.
    connect_s
        How long connecting takes.
    silent_end
        Stay silent after the last step, instead of ending.
    """

    info: StreamInfo | BaseException
    steps: tuple[Step, ...] = ()
    connect_s: float = 0.0
    silent_end: bool = False


class ScriptedDevice:
    """Delivers given blocks and raises given errors at given times; ``t_ns`` of a block becomes the time of its delivery.

    ``entered`` and ``left`` count how often it was connected and disconnected.
    """

    Options: ClassVar[type[msgspec.Struct]] = ScriptedOptions

    def __init__(self, options: ScriptedOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._start_ns: int | None = None
        self.entered = 0
        self.left = 0

    async def __aenter__(self) -> StreamInfo:
        """Connect, or raise what the script says."""
        options = self._options
        if options.connect_s:
            await self._clock.sleep_until(self._clock.monotonic_ns() + round(options.connect_s * 1e9))
        if isinstance(options.info, BaseException):
            raise options.info
        self.entered += 1
        self._start_ns = self._clock.monotonic_ns()
        return options.info

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Disconnect."""
        self.left += self._start_ns is not None
        self._start_ns = None

    async def __aiter__(self) -> AsyncIterator[SampleBlock]:
        """Do what the script says."""
        start_ns = self._start_ns
        if start_ns is None:
            raise DeviceError("scripted: not open: enter the device before reading it", permanent=True)
        for step in self._options.steps:
            await self._clock.sleep_until(start_ns + round(step.at_s * 1e9))
            if isinstance(step.what, BaseException):
                raise step.what
            block = step.what
            yield SampleBlock(block.start, block.samples, self._clock.monotonic_ns(), block.lead_off)
        if self._options.silent_end:
            await asyncio.get_running_loop().create_future()
