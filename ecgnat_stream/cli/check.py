"""``ecgnat run --check``: everything that a configuration names is tried out, and all that is wrong is told in one go.

Devices are connected to and left again, recordings opened, the network loaded, brokers asked to let us in, ports bound for a
moment. Nothing is written.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ecgnat_stream.errors import ConfigError, EcgnatError

if TYPE_CHECKING:
    from ecgnat_stream.config import BedConfig, Config

__all__ = ["check_devices", "faults"]

_AT_ONCE = 16
"""Devices that are connected to at the same time."""


def check_devices(config: Config) -> None:
    """Refuse a device or an option that does not exist; connects to nothing."""
    from ecgnat_stream.clock import SystemClock
    from ecgnat_stream.device import open_device

    for bed in config.bed:
        try:
            open_device(bed.device, bed.options, SystemClock())
        except ConfigError as error:
            raise ConfigError(f"bed {bed.id}: {error}") from error


async def faults(config: Config) -> list[str]:
    """Return everything that would keep the monitor from its work, a sentence each."""
    import asyncio

    gate = asyncio.Semaphore(_AT_ONCE)

    async def tried(bed: BedConfig) -> str | None:
        async with gate:
            return await _bed(config, bed)

    found = [fault for fault in await asyncio.gather(*map(tried, config.bed)) if fault is not None]
    found += _model(config)
    found += [fault async for fault in _brokers(config)]
    return [*found, *_files(config)]


async def _bed(config: Config, bed: BedConfig) -> str | None:
    from ecgnat_stream.clock import SystemClock
    from ecgnat_stream.device import open_device, try_device
    from ecgnat_stream.signal import assign_leads, check_lead_map

    clock = SystemClock()
    try:
        info = await try_device(lambda: open_device(bed.device, bed.options, clock), config.device)
        check_lead_map(info, bed.lead_map)
        assign_leads(info.leads, bed.lead_map, recorded=info.recorded)
    except (EcgnatError, OSError) as error:
        return f"bed {bed.id}: {error}"
    return None


def _model(config: Config) -> Iterator[str]:
    from ecgnat_stream.model import check_model

    try:
        check_model(config.model)
    except EcgnatError as error:
        yield f"model: {error}"


async def _brokers(config: Config) -> AsyncIterator[str]:
    """Build the sinks as the monitor does, so that what it refuses is refused here; then try to reach what they name."""
    from ecgnat_stream.bus import Bus
    from ecgnat_stream.clock import SystemClock

    if config.mqtt is not None:
        from ecgnat_stream.sink.mqtt import MqttSink
        from ecgnat_stream.sink.mqtt.reach import try_broker

        try:
            MqttSink(config.mqtt, Bus(), SystemClock())
            await try_broker(config.mqtt)
        except EcgnatError as error:
            yield str(error) if str(error).startswith("mqtt.") else f"mqtt: {error}"
    if config.zmq is not None:
        from ecgnat_stream.sink.zmq import ZmqSink, try_endpoint

        try:
            ZmqSink(config.zmq, Bus(), SystemClock())
            try_endpoint(config.zmq)
        except EcgnatError as error:
            yield str(error)


def _files(config: Config) -> Iterator[str]:
    from ecgnat_stream.sink.files import holder, taken, unfit

    if config.record is not None:
        from ecgnat_stream.sink.record.sink import lock_of as lock_of_recordings

        folder = Path(config.record.directory)
        if why := _unwritable(folder):
            yield f"record.directory: {why}"
        elif process := holder(lock_of_recordings(folder)):
            yield taken(f"record.directory: {folder}", process)
    if config.history is not None:
        from ecgnat_stream.sink.history.read import History
        from ecgnat_stream.sink.history.sink import lock_of

        path = Path(config.history.path)
        if why := unfit(path):
            yield f"history.path: {why}"
            return
        if process := holder(lock_of(path)):
            yield taken(f"history.path: {path}", process)
        if path.exists() and path.stat().st_size:
            try:
                with History(path):
                    pass
            except EcgnatError as error:
                yield f"history.path: {error}"


def _unwritable(path: Path) -> str | None:
    """Return why nothing can be written to a file or folder that may have to be made first."""
    there = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    if there != path.absolute() and not there.is_dir():
        return f"{path} cannot be made: {there} is no folder"
    if not os.access(there, os.W_OK):
        return f"cannot write to {path}: {there} is not writable for this account"
    return None
