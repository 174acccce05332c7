"""The example adapter and the example script of docs/devices.md work as printed."""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgnat_stream.clock import Clock, SystemClock
from ecgnat_stream.device import open_device
from ecgnat_stream.errors import DeviceError
from ecgnat_stream.testing import InstantClock, check_device

_DOCS = Path(__file__).parents[2] / "docs" / "devices.md"


def _example(language: str, holding: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", _DOCS.read_text(), re.DOTALL)
    return next(block for block in blocks if holding in block)


@pytest.fixture
def adapter() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(_example("python", "class TcpDevice"), names)
    return names


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for k in range(20):
        writer.write(np.arange(25 * k, 25 * k + 25).astype("<i2").tobytes())
    with suppress(ConnectionResetError):
        await reader.read()
    writer.close()


def test_example_adapter_conforms(adapter: dict[str, Any]) -> None:
    ports: list[int] = []

    @asynccontextmanager
    async def server() -> AsyncIterator[None]:
        async with await asyncio.start_server(_serve, "127.0.0.1", 0) as listening:
            ports.append(listening.sockets[0].getsockname()[1])
            yield

    def factory(clock: Clock) -> Any:
        return adapter["TcpDevice"](adapter["TcpOptions"](host="127.0.0.1", port=ports[-1]), clock)

    async def leads() -> tuple[str, ...]:
        async with server(), factory(SystemClock()) as info:
            return tuple(info.leads)

    assert asyncio.run(leads()) == ("II",)
    check_device(factory, peer=server, blocks=20)


def test_example_of_a_check_passes() -> None:
    names: dict[str, Any] = {}
    exec(_example("python", "def test_my_device"), names)
    names["test_my_device"]()


async def test_example_adapter_says_when_nobody_answers(adapter: dict[str, Any]) -> None:
    device = adapter["TcpDevice"](adapter["TcpOptions"](host="127.0.0.1", port=1), InstantClock())
    with pytest.raises(DeviceError, match=r"127\.0\.0\.1:1"):
        await device.__aenter__()


async def test_example_script_runs() -> None:
    options = tomllib.loads(_example("toml", "script = ["))
    device = open_device("simulate", options | {"speed": "max", "loop": False}, InstantClock())
    async with device as info:
        blocks = [block async for block in device]
    assert info.total == 90 * 250
    assert sum(block.samples.shape[1] for block in blocks) == info.total - round(1.5 * 250)
