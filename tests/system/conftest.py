"""A real mosquitto, started by the test on a free port with a configuration of its own, and its stock subscriber."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
SUBSCRIBER = shutil.which("mosquitto_sub")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """A mosquitto of the test's own on a loopback port."""

    def __init__(self, folder: Path, extra: str = "allow_anonymous true") -> None:
        self.port = _free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._configuration = folder / "mosquitto.conf"
        # As root, mosquitto would change to an account that cannot read the test's files.
        self._configuration.write_text(f"listener {self.port} 127.0.0.1\n{extra}\npersistence false\nuser root\n")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            str(MOSQUITTO), "-c", str(self._configuration), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(200):
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                await writer.wait_closed()
                return
            await asyncio.sleep(0.02)
        pytest.fail("mosquitto does not answer")

    async def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            await self._process.wait()
            self._process = None

    async def subscribe(self, topic: str, count: int, *options: str) -> list[tuple[str, Any]]:
        """Return what a stock mosquitto_sub prints: (topic, JSON) of ``count`` messages."""
        process = await asyncio.create_subprocess_exec(
            str(SUBSCRIBER),
            *("-p", str(self.port), "-t", topic, "-C", str(count), "-W", "20", "-F", "%t %p", *options),
            stdout=subprocess.PIPE,
        )
        out, _ = await process.communicate()
        lines = [line.partition(" ") for line in out.decode().splitlines()]
        return [(topic, json.loads(payload)) for topic, _, payload in lines]


@pytest.fixture
async def start_mosquitto(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Mosquitto]]]:
    """Return what starts a broker, given further lines of its configuration; all are stopped at the end."""
    if not (MOSQUITTO and SUBSCRIBER):
        pytest.skip("mosquitto and mosquitto_sub are not installed")
    started: list[Mosquitto] = []

    async def start(extra: str = "allow_anonymous true") -> Mosquitto:
        folder = tmp_path / f"mosquitto-{len(started)}"
        folder.mkdir()
        started.append(Mosquitto(folder, extra))
        await started[-1].start()
        return started[-1]

    yield start
    for server in started:
        await server.stop()


@pytest.fixture
async def broker(start_mosquitto: Callable[..., Awaitable[Mosquitto]]) -> Mosquitto:
    """Return a mosquitto that lets everybody in."""
    return await start_mosquitto()
