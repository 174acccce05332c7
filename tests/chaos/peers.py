"""Peers that misbehave: floods of subscriptions and commands, orders for beds that do not exist, text that draws on a screen."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import aiomqtt
import msgspec
import zmq

__all__ = ["Disk", "acknowledge", "command_flood", "escapes", "malformed", "zmq_flood"]

INVENTED = 10_000
SUBSCRIPTIONS = 10_000
BIG = 60_000_000
"""Bytes of one subscription."""

_MALFORMED = (
    b"",
    b"pause",
    b"[" * 4000,
    b'{"action": "explode"}',
    b'{"action":"pause","duration_s":1e999}',
    b"\xff\xfe",
    b"x" * 100_000,
)


async def acknowledge(client: aiomqtt.Client, bed: str, source: str = "nurse") -> None:
    """Acknowledge all alarms of a bed."""
    request = msgspec.json.encode({"action": "acknowledge", "source": source})
    await client.publish(f"ecg/v1/{bed}/alarm/command", request, qos=1)


async def command_flood(port: int) -> None:
    """Send orders for ten thousand beds that nobody has."""
    async with aiomqtt.Client("127.0.0.1", port) as client:
        for number in range(INVENTED):
            await client.publish(f"ecg/v1/home/icu/invented-{number}/alarm/command", b'{"action":"acknowledge"}', qos=0)
            if number % 200 == 199:
                await asyncio.sleep(0.01)


async def escapes(port: int, bed: str) -> None:
    """Send orders whose texts would clear a screen, set a title, open a spreadsheet's formula."""
    texts = (
        "\x1b[2J\x1b[Hno alarm",
        "\x1b]0;title\x07",
        '=HYPERLINK("http://example.org")',
        "a\u202eb\r\nc",
        "\x9b31m",
        "x" * 3000,
    )
    async with aiomqtt.Client("127.0.0.1", port) as client:
        for text in texts:
            for action in ("resume", "acknowledge"):
                request = msgspec.json.encode({"action": action, "condition": text, "source": text, "correlation": text})
                await client.publish(f"ecg/v1/{bed}/alarm/command", request, qos=1)


async def malformed(port: int, bed: str) -> None:
    """Send what is no order."""
    async with aiomqtt.Client("127.0.0.1", port) as client:
        for payload in _MALFORMED:
            await client.publish(f"ecg/v1/{bed}/alarm/command", payload, qos=1)


async def zmq_flood(endpoint: str, kind: str) -> None:
    """Subscribe ten thousand times to the same, or to a topic of sixty megabytes; in a process of its own."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.chaos.peers", endpoint, kind)
    try:
        async with asyncio.timeout(20):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _requests(kind: str) -> list[bytes]:
    return [b"\x01" + b"e" * BIG] * 3 if kind == "big" else [b"\x01ecg/v1/"] * SUBSCRIPTIONS


def _greet(endpoint: str, requests: list[bytes]) -> None:
    with zmq.Context() as context, context.socket(zmq.XSUB) as socket:
        socket.set(zmq.SNDHWM, 0)
        socket.set(zmq.RCVHWM, 100)
        socket.set(zmq.LINGER, 2000)
        socket.set(zmq.SNDTIMEO, 3000)
        socket.connect(endpoint)
        with suppress(zmq.Again):
            for request in requests:
                socket.send(request)
            for _ in range(200):
                socket.set(zmq.RCVTIMEO, 1000)
                socket.recv()


class Disk:
    """A file system of its own for what the monitor writes, where that may be mounted; it holds hours, and is filled on demand.

    Where nothing may be mounted, the monitor's files may not grow instead (RLIMIT_FSIZE).
    """

    SIZE = 256_000_000

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        mounting = ["mount", "-t", "tmpfs", "-o", f"size={self.SIZE},mode=0700", "tmpfs", str(folder)]
        self.mounted = subprocess.run(mounting, capture_output=True, check=False).returncode == 0

    def fill(self, pid: int) -> None:
        """Leave no byte free."""
        if not self.mounted:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            return
        with (self.folder / "ballast").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"\0" * 65536)

    def free(self, pid: int) -> None:
        """Give the room back."""
        if self.mounted:
            (self.folder / "ballast").unlink(missing_ok=True)
        else:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def close(self) -> None:
        """Take the file system away."""
        if self.mounted:
            os.sync()
            subprocess.run(["umount", "-l", str(self.folder)], check=False, capture_output=True)


if __name__ == "__main__":
    _greet(sys.argv[1], _requests(sys.argv[2]))
