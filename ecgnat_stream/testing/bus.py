"""Waiting for the readers of a bus, so that a test of a sink looks when everything has been read."""

from __future__ import annotations

import asyncio

from ecgnat_stream.bus import Bus

__all__ = ["flushed"]


async def flushed(bus: Bus) -> None:
    """Wait until no event waits to be read by any subscriber."""
    while any(reader["waiting"] for reader in bus.statistics().values()):  # noqa: ASYNC110 (a bus in service signals no such thing)
        await asyncio.sleep(0)
