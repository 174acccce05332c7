"""What a device is, and how one is opened by name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import TracebackType
from typing import Any, ClassVar, Protocol, runtime_checkable

import msgspec

from ecgnat_stream.clock import Clock
from ecgnat_stream.errors import ConfigError, DeviceError
from ecgnat_stream.settings import fields_of, read_settings
from ecgnat_stream.signal import SampleBlock, StreamInfo
from ecgnat_stream.suggest import unknown

__all__ = ["ENTRY_POINTS", "FS_RANGE", "Adapter", "Device", "adapter", "device_names", "open_device"]

ENTRY_POINTS = "ecgnat_stream.devices"
"""Entry-point group under which adapters register their class."""

FS_RANGE = (100.0, 1000.0)
"""Sampling rates in Hz that the stages behind this one take."""


@runtime_checkable
class Device(Protocol):
    """A source of ECG: ``async with device as info: async for block in device: ...``.

    Entering connects and returns the :class:`StreamInfo`; iterating yields blocks until a recording ends; leaving disconnects.
    Block indices count from the first sample after connecting. Everything that goes wrong is a
    :class:`~ecgnat_stream.errors.DeviceError`; an iteration that merely ends says that there is nothing more to come.
    :func:`stream_device` makes one of an async iterator of arrays.

    A device that reads a recording says so before it is entered, with an attribute ``recorded = True``, and afterwards with
    :attr:`StreamInfo.recorded`. Then none of the time limits of a live device count: a large file or a slow disk takes as long
    as it takes, and no patient lies unwatched meanwhile.
    """

    async def __aenter__(self) -> StreamInfo:
        """Connect and say what will come."""
        ...

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Disconnect."""
        ...

    def __aiter__(self) -> AsyncIterator[SampleBlock]:
        """Yield blocks as they come."""
        ...


class Adapter(Device, Protocol):
    """A :class:`Device` that configurations can name.

    It is a class with its options as a frozen ``msgspec.Struct`` (``forbid_unknown_fields=True``) in ``Options``, built from them
    and a clock, and registered under the entry-point group ``ecgnat_stream.devices``.
    """

    Options: ClassVar[type[msgspec.Struct]]

    def __init__(self, options: Any, clock: Clock) -> None: ...


@cache
def _adapters() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def device_names() -> tuple[str, ...]:
    """Return the names of all installed adapters, sorted."""
    return tuple(sorted(_adapters()))


def open_device(name: str, options: Mapping[str, Any], clock: Clock) -> Device:
    """Build the adapter registered as ``name``; it connects when it is entered.

    Raises
    ------
    ConfigError
        For an unknown adapter, an unknown option or a value that does not fit; the message lists what is known.
    DeviceError
        If the adapter's module cannot be imported.
    """
    kind = adapter(name)
    device: Device = kind(_convert_options(name, options, kind.Options), clock)
    return device


def adapter(name: str) -> type[Adapter]:
    """Return the class registered as ``name``.

    Raises
    ------
    ConfigError
        For an unknown adapter; the message lists what is installed.
    DeviceError
        If the adapter's module cannot be imported.
    """
    if not name:
        raise ConfigError(f"no device is named: installed are {', '.join(device_names()) or 'none'}")
    adapters = _adapters()
    if name not in adapters:
        raise ConfigError(unknown("device", name, sorted(adapters)))
    try:
        kind: type[Adapter] = adapters[name].load()
    except ImportError as error:
        message = f"device {name!r} cannot be imported ({error}): install what it needs"
        raise DeviceError(message, permanent=True) from error
    return kind


def _convert_options(name: str, options: Mapping[str, Any], kind: type[msgspec.Struct]) -> msgspec.Struct:
    known = list(fields_of(kind))
    for key in options:
        if key not in known:
            raise ConfigError(f"device {name!r}: {unknown('option', key, known)}")
    return read_settings(options, kind, where=f"device {name!r}: option ")
