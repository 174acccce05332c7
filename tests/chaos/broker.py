"""A real mosquitto, and the way to it: a proxy that freezes, cuts, refuses, delays, swallows."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

__all__ = ["MOSQUITTO", "Mosquitto", "Proxy", "free_port"]

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")

_EVERYTHING = "topic readwrite #\n"
_DELAY_S = 0.2


def free_port() -> int:
    """Return a loopback port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """A broker on a loopback port that can be killed and started again; it keeps nothing."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._acl = folder / "acl"
        self._acl.write_text(_EVERYTHING)
        self._configuration = folder / "mosquitto.conf"
        self._configuration.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\nuser root\nacl_file {self._acl}\n"
            "max_queued_messages 100000\nmax_inflight_messages 100\n"
        )
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it answers."""
        command = [str(MOSQUITTO), "-c", str(self._configuration)]
        nothing = subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(*command, stdout=nothing, stderr=nothing)
        for _ in range(500):
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                await writer.wait_closed()
                return
            await asyncio.sleep(0.02)
        raise RuntimeError("mosquitto does not answer")

    async def kill(self) -> None:
        """End it at once (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    def deny(self, topics: str) -> None:
        """Refuse everybody some topics from now on; none if empty. Mosquitto reads its list anew on SIGHUP."""
        self._acl.write_text((f"topic deny {topics}\n" if topics else "") + _EVERYTHING)
        if self._process is not None:
            self._process.send_signal(1)


class Packets:
    """The packets that a client sends, whole; messages of QoS 1 can be refused instead of passed on (MQTT 5, 3.3 and 3.4)."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self._client = client
        self._rest = b""

    def pass_on(self, data: bytes, *, refuse: bool) -> bytes:
        """Return what goes to the broker of the packets that ``data`` completes; nothing is held back at the end."""
        if not data:
            return self._rest
        self._rest += data
        passed = b""
        while (packet := self._next()) is not None:
            if refuse and packet[0] & 0xF6 == 0x32:
                self._client.write(b"\x40\x03" + self._identifier(packet) + b"\x97")
            else:
                passed += packet
        return passed

    def _next(self) -> bytes | None:
        """Take the next whole packet, None if there is none."""
        length, shift = 0, 0
        for place, byte in enumerate(self._rest[1:5], 1):
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                stop = place + 1 + length
                if len(self._rest) < stop:
                    return None
                packet, self._rest = self._rest[:stop], self._rest[stop:]
                return packet
        return None

    @staticmethod
    def _identifier(packet: bytes) -> bytes:
        body = next(place for place, byte in enumerate(packet[1:5], 1) if byte < 128) + 1
        topic = int.from_bytes(packet[body : body + 2], "big")
        return packet[body + 2 + topic : body + 4 + topic]


class Proxy:
    """The only way of the monitor to its broker."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._server: asyncio.Server | None = None
        self._deaf: list[socket.socket] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._delay_s = 0.0
        self._swallow = self._quota = False
        self._answers = asyncio.Event()
        self._serving: set[asyncio.Task[None] | None] = set()

    async def open(self) -> None:
        """Let everything pass."""
        for sock in self._deaf:
            sock.close()
        self._deaf.clear()
        self._answers.set()  # and cuts off what was swallowed: nobody will ever answer there
        self._delay_s, self._swallow, self._quota = 0.0, False, False
        self._flows.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    def cut(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def refuse(self) -> None:
        """Reset every connection and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        await asyncio.sleep(0)

    def freeze(self) -> None:
        """Let nothing pass; connections stay."""
        self._flows.clear()

    def delay(self) -> None:
        """Let everything pass 200 ms later, each way."""
        self._delay_s = _DELAY_S

    def swallow(self) -> None:
        """Cut what there is; accept new connections and never answer."""
        self._swallow = True
        self._answers.clear()
        self.cut()

    def refuse_messages(self) -> None:
        """Answer every message of QoS 1 with 0x97 (quota exceeded) instead of passing it on."""
        self._quota = True

    async def drop(self) -> None:
        """Answer no new connection at all: the queue of a listener that never accepts is full, further SYNs are dropped."""
        await self.refuse()
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        deaf.bind(("127.0.0.1", self.port))
        deaf.listen(0)
        self._deaf.append(deaf)
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(("127.0.0.1", self.port))
            self._deaf.append(filler)

    async def close(self) -> None:
        """End."""
        await self.refuse()
        self._answers.set()
        for task in list(self._serving):
            if task is not None:
                task.cancel()
        for sock in self._deaf:
            sock.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self._serving.add(task := asyncio.current_task())
        try:
            if self._swallow:
                await self._answers.wait()
                return
            there, away = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(away)
            try:
                up = self._carry(reader, away, Packets(writer))
                ways = [asyncio.create_task(up), asyncio.create_task(self._carry(there, writer))]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
            finally:
                self._writers.discard(away)
                away.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass  # the broker is gone, or the harness ends: the monitor's connection is reset below
        finally:
            self._serving.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, packets: Packets | None = None) -> None:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1000)

        async def deliver() -> None:
            while True:
                due, data = await queue.get()
                if (wait_s := due - loop.time()) > 0:
                    await asyncio.sleep(wait_s)
                await self._flows.wait()
                if not data:
                    return
                writer.write(data)
                await writer.drain()

        delivering = asyncio.create_task(deliver())
        try:
            while True:
                await self._flows.wait()
                data = await reader.read(65536)
                end = not data
                if packets is not None:
                    data = packets.pass_on(data, refuse=self._quota)
                    if not data and not end:
                        continue
                await queue.put((loop.time() + self._delay_s, data))
                if not data:
                    await delivering
                    return
        except OSError:
            return
        finally:
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)
