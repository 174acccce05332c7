"""Lets a plan happen: starts broker, receivers and monitor, does every fault at its time, notes what really happened."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiomqtt
import msgspec

from tests.chaos import peers
from tests.chaos.broker import Mosquitto, Proxy, free_port
from tests.chaos.hearts import write_hearts
from tests.chaos.plan import Fault, Plan, bed_name
from tests.chaos.receivers import JSONL, Ledger, read_history, read_recordings, receive_mqtt, receive_zmq
from tests.chaos.worker import CLOCK, CONFIGURATION, NOTES, UNREAD_FD

__all__ = ["Life", "Log", "conduct"]

_CONFIGURATION = """\
site = "home"
unit = "icu"
worker = "ward"

[mqtt]
url = "mqtt://127.0.0.1:{mqtt}"

[zmq]
bind = "tcp://127.0.0.1:{zmq}"

[record]
directory = "{disk}/recordings"

[history]
path = "{disk}/alarms.db"
"""

_LIGHT = {"OMP_NUM_THREADS": "1"}

ENDS_WITHIN_S = 20.0
"""A monitor that has not ended so long after SIGTERM is killed; it should take 10 s at most."""


@dataclass(slots=True)
class Life:
    """One run of the monitor process, from ``began`` to ``ended``.

    ``said`` is when its first word came, ``told`` when it was told to end; None if never.
    """

    began: float
    said: float | None = None
    ended: float = 0.0
    how: str = ""
    code: int | None = None
    told: float | None = None


@dataclass
class Log:
    """What happened, and what was received."""

    plan: Plan
    folder: Path
    ledger: Ledger
    lives: list[Life] = field(default_factory=list)
    path_down: list[tuple[float, float, str]] = field(default_factory=list)
    """When the way to the broker was not as it should be: (from, to, kind)."""
    done: list[tuple[Fault, float, float]] = field(default_factory=list)
    files: int = 0
    """Folders of beds that nobody has, at the end."""
    errors: list[str] = field(default_factory=list)


async def conduct(plan: Plan, folder: Path, told: Callable[[str], None] = lambda _: None) -> Log:
    """Run the whole plan.

    Parameters
    ----------
    folder
        An empty one, for everything that is written.
    told
        Is given a line for everything that happens.
    """
    write_hearts(plan, folder)
    stage = _Stage(msgspec.structs.replace(plan, t0_ns=time.monotonic_ns()), folder, told)
    try:
        return await stage.run()
    finally:
        await stage.close()


class _Stage:
    """All that stands around the monitor."""

    def __init__(self, plan: Plan, folder: Path, told: Callable[[str], None]) -> None:
        self.plan, self.folder, self._told = plan, folder, told
        (folder / "plan.json").write_bytes(msgspec.json.encode(plan))
        self._set_s = 0.0
        self.log = Log(plan, folder, Ledger(self.now_s, lambda: time.time() + self._set_s))
        self.broker = Mosquitto(folder)
        self.proxy = Proxy(self.broker.port)
        self.disk = peers.Disk(folder / "disk")
        self.zmq_port = free_port()
        self._there = asyncio.Event()
        self._stop = threading.Event()
        self._hearing: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._unread: tuple[int, int] = os.pipe()
        self._tasks: list[asyncio.Task[None]] = []
        self._errors = (folder / "monitor.err").open("ab")
        self._configure(folder, self.disk.folder)

    def _configure(self, folder: Path, files: Path) -> None:
        """Write the configuration of a monitor that writes its recordings and its history below ``files``."""
        configuration = _CONFIGURATION.format(mqtt=self.proxy.port, zmq=self.zmq_port, disk=files)
        beds = "".join(f'\n[[bed]]\nid = "{bed}"\n' for bed in self.plan.beds)
        (folder / CONFIGURATION).write_text(configuration + beds, encoding="utf-8")

    @property
    def endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self.zmq_port}"

    def now_s(self) -> float:
        return (time.monotonic_ns() - self.plan.t0_ns) / 1e9

    async def until(self, at_s: float) -> None:
        await asyncio.sleep(max(0.0, at_s - self.now_s()))

    async def run(self) -> Log:
        await self.broker.start()
        self._tasks.append(asyncio.create_task(receive_mqtt(self.broker.port, self.log.ledger, self._there)))
        await self._there.wait()
        await self.proxy.open()
        beds = [*map(bed_name, self.plan.beds), "home/engine/ward"]
        self._hearing = asyncio.create_task(asyncio.to_thread(receive_zmq, self.endpoint, beds, self.log.ledger, self._stop))
        await self._start()
        lanes: dict[str, list[Fault]] = {}
        for fault in self.plan.faults:
            if fault.target not in (*self.plan.beds, "stdout"):
                lanes.setdefault(fault.target, []).append(fault)
        async with asyncio.TaskGroup() as group:
            for faults in lanes.values():
                group.create_task(self._lane(faults))
            group.create_task(self._nurse())
            await self.until(self.plan.seconds)
        await self._end("end", signal.SIGTERM)
        self._read()
        return self.log

    async def close(self) -> None:
        """Leave nothing behind."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._stop.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *([self._hearing] if self._hearing else []), return_exceptions=True)
        await self.proxy.close()
        await self.broker.kill()
        self.disk.close()
        for descriptor in self._unread:
            os.close(descriptor)
        self._errors.close()

    # The monitor process.

    async def _start(self) -> None:
        """Start the monitor; its JSON lines are read at once, those of its second pipe never."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.worker", str(self.folder)),
            stdout=subprocess.PIPE,
            stderr=self._errors,
            pass_fds=(self._unread[1],),
            env=os.environ | _LIGHT | self._second_pipe,
            limit=2**24,
        )
        self.log.lives.append(Life(self.now_s()))
        self._tasks.append(asyncio.create_task(self._lines(self._process, self.log.lives[-1])))

    async def _lines(self, process: asyncio.subprocess.Process, life: Life) -> None:
        """Read its events to the end; a monitor that ends by itself with an error is started again, as systemd does."""
        assert process.stdout is not None
        async for line in process.stdout:
            if life.said is None:
                life.said = self.now_s()
            self.log.ledger.take(JSONL, line)
        life.code = await process.wait()
        life.ended = self.now_s()
        if not life.how:
            life.how = "by itself"
            self._told(f"{life.ended:8.2f} the monitor has ended by itself with {life.code}")
            if life.code != 0 and len(self.log.lives) < 1000:
                await asyncio.sleep(0.1)
                await self._start()

    @property
    def _second_pipe(self) -> dict[str, str]:
        return {UNREAD_FD: str(self._unread[1])} if self.plan.of("stdout") else {}

    async def _end(self, how: str, number: signal.Signals) -> None:
        process, life = self._process, self.log.lives[-1]
        assert process is not None
        if process.returncode is not None:
            return
        life.how, life.told = how, self.now_s()
        process.send_signal(number)
        try:
            async with asyncio.timeout(ENDS_WITHIN_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            life.how = f"{how}, killed after {ENDS_WITHIN_S:g} s"
        life.ended, life.code = self.now_s(), process.returncode

    async def _nurse(self) -> None:
        """Acknowledge a bed's alarms a while after each of its troubles: the next one would find them latched."""
        for onset in sorted(self.plan.onsets, key=lambda onset: onset.stop_s):
            await self.until(onset.stop_s + 12)
            with suppress(aiomqtt.MqttError):
                async with aiomqtt.Client("127.0.0.1", self.broker.port) as client:
                    await peers.acknowledge(client, bed_name(onset.bed))

    # The faults.

    async def _lane(self, faults: list[Fault]) -> None:
        """Do the faults of one target, one after the other."""
        for fault in faults:
            await self.until(fault.at_s)
            began = self.now_s()
            self._told(f"{began:8.2f} {fault.kind} {fault.detail}")
            try:
                await self._do(fault)
            except (OSError, aiomqtt.MqttError) as error:
                # The fault of another lane is in the way, a broker that was just killed for example.
                self.log.errors.append(f"{began:.1f} {fault.kind}: {error}")
            self.log.done.append((fault, began, self.now_s()))

    async def _do(self, fault: Fault) -> None:
        bed = bed_name(self.plan.beds[0])
        port = self.broker.port
        doing: dict[str, Callable[[], Awaitable[None]]] = {
            "kill-broker": partial(self._kill_broker, fault),
            "freeze": partial(self._path, fault, self.proxy.freeze),
            "cut": partial(self._path, fault, self.proxy.cut),
            "refuse": partial(self._path, fault, self.proxy.refuse),
            "delay": partial(self._path, fault, self.proxy.delay),
            "blackhole": partial(self._path, fault, self.proxy.swallow),
            "syn": partial(self._path, fault, self.proxy.drop),
            "acl": partial(self._acl, fault),
            "kill-monitor": partial(self._again, fault, signal.SIGKILL),
            "end-monitor": partial(self._again, fault, signal.SIGTERM),
            "disk-full": partial(self._disk, fault),
            "quota": partial(self._path, fault, self.proxy.refuse_messages),
            "clock-step": partial(self._set_clock, fault),
            "twin": partial(self._twin, fault),
            "zmq-subscriptions": partial(peers.zmq_flood, self.endpoint, "subscriptions"),
            "zmq-big": partial(peers.zmq_flood, self.endpoint, "big"),
            "commands-invented": partial(peers.command_flood, port),
            "commands-escape": partial(peers.escapes, port, bed),
            "commands-malformed": partial(peers.malformed, port, bed),
        }
        await doing[fault.kind]()

    async def _kill_broker(self, fault: Fault) -> None:
        began = self.now_s()
        await self.broker.kill()
        await self.proxy.refuse()
        await asyncio.sleep(fault.seconds)
        await self.broker.start()
        # The receiver was there all the time; that it has to subscribe again is no fault of the monitor's.
        async with asyncio.timeout(10):
            await asyncio.sleep(0.05)
            await self._there.wait()
        await self.proxy.open()
        self.log.path_down.append((began, self.now_s(), fault.kind))

    async def _path(self, fault: Fault, change: Callable[[], Awaitable[None] | None]) -> None:
        began = self.now_s()
        changing = change()
        if changing is not None:
            await changing
        await asyncio.sleep(fault.seconds)
        await self.proxy.open()
        self.log.path_down.append((began, self.now_s(), fault.kind))

    async def _acl(self, fault: Fault) -> None:
        self.broker.deny(f"ecg/v1/{bed_name(fault.detail)}/alarm/event")
        await asyncio.sleep(fault.seconds)
        self.broker.deny("")

    async def _again(self, fault: Fault, number: signal.Signals) -> None:
        await self._end("kill -9" if number == signal.SIGKILL else "SIGTERM", number)
        await asyncio.sleep(fault.seconds)
        await self._start()

    async def _set_clock(self, fault: Fault) -> None:
        """Set the wall clock of the monitor, and after a while back again."""
        for set_s in (float(fault.detail), 0.0):
            draft = self.folder / "clock.new"
            draft.write_text(str(set_s))
            draft.replace(self.folder / CLOCK)
            self._set_s = set_s
            await asyncio.sleep(fault.seconds / 2)

    async def _disk(self, fault: Fault) -> None:
        assert self._process is not None
        pid = self._process.pid
        await asyncio.to_thread(self.disk.fill, pid)
        await asyncio.sleep(fault.seconds)
        self.disk.free(pid)

    async def _twin(self, fault: Fault) -> None:
        """Start a second monitor of the same name and beds, which writes into a folder of its own; end it after a while.

        With the same folder it would not start: a second process never writes into a recording.
        """
        notes = self.folder / f"twin-{fault.at_s:.0f}"
        notes.mkdir()
        self._configure(notes, notes)
        twin = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.worker", str(self.folder)),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | _LIGHT | {NOTES: notes.name},
            limit=2**24,
        )
        reading = asyncio.create_task(self._twins_lines(twin))
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            twin.kill()
            await twin.wait()
            await reading

    async def _twins_lines(self, twin: asyncio.subprocess.Process) -> None:
        assert twin.stdout is not None
        async for line in twin.stdout:
            if line.endswith(b"\n"):  # it is killed: the last one may not be whole
                self.log.ledger.take_twin(line)

    def _read(self) -> None:
        """Read the files that are left."""
        t, disk = self.now_s(), self.disk.folder
        if (disk / "alarms.db").exists():
            self.log.ledger.alarms += read_history(disk / "alarms.db", t)
        self.log.ledger.alarms += read_recordings(disk / "recordings", t)
        happened = {"lives": self.log.lives, "path_down": self.log.path_down, "done": self.log.done}
        (self.folder / "happened.json").write_bytes(msgspec.json.encode(happened))
        with (self.folder / "heard.jsonl").open("wb") as file:
            for heard in self.log.ledger.alarms:
                file.write(msgspec.json.encode({"t": heard.t, "sink": heard.sink, "alarm": heard.alarm}) + b"\n")
        self.log.files = len(list((disk / "recordings").rglob("invented-*")))
