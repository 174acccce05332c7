"""The device stage: what an adapter is, how one is opened by name, how a lost one is brought back.

In come the samples of one device; out go :class:`~ecgnat_stream.signal.SampleBlock` with an absolute index that never runs
backwards, over any number of reconnections. Nothing is dropped here; what the device lost stays a gap.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, ClassVar, Protocol, runtime_checkable

import msgspec

from ecgnat_stream.clock import Clock
from ecgnat_stream.signal import SampleBlock, StreamInfo

__all__ = ["Device"]


@runtime_checkable
class Device(Protocol):
    """A source of ECG: ``async with device as info: async for block in device: ...``.

    An adapter is a class with its options as a frozen ``msgspec.Struct`` (``forbid_unknown_fields=True``) in ``Options``, built
    from them and a clock, and registered under the entry-point group ``ecgnat_stream.devices``. Entering connects and returns
    the :class:`StreamInfo`; iterating yields blocks until a recording ends; leaving disconnects. Everything that goes wrong is
    a :class:`~ecgnat_stream.errors.DeviceError`.
    """

    Options: ClassVar[type[msgspec.Struct]]

    def __init__(self, options: Any, clock: Clock) -> None: ...

    async def __aenter__(self) -> StreamInfo:
        """Connect and say what will come."""
        ...

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Disconnect."""
        ...

    def __aiter__(self) -> AsyncIterator[SampleBlock]:
        """Yield blocks as they come."""
        ...
