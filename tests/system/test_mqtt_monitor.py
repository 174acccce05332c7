"""The whole monitor as a user starts it, publishing to brokers: a real mosquitto, and the demo's own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiomqtt
import numpy as np
import pytest
import wfdb
import zmq
import zmq.asyncio
from numpy.typing import NDArray

from ecgnat_stream import wire
from ecgnat_stream.sink.zmq import ZmqConfig

if TYPE_CHECKING:
    from tests.system.conftest import Mosquitto

pytestmark = pytest.mark.timeout(120)

FS = 250
BED = "ecg/v1/replay/records/pause"
ENGINE = "ecg/v1/replay/engine/+"
STATES = {f"{BED}/{kind}" for kind in ("status", "meta", "rhythm", "vitals", "quality", "alarm/state/asystole")} | {
    f"{ENGINE}/status"
}


def of_any_worker(topic: str) -> str:
    """Return a topic without the name of the monitor: it is the machine's."""
    return re.sub("/engine/[^/]+/", "/engine/+/", topic)


@pytest.fixture
def record(tmp_path: Path) -> tuple[Path, NDArray[np.float64]]:
    """Return a record of 6 s of beats and a pause of 8 s, and its samples in mV, as the file holds them."""
    t = np.arange(14 * FS) / FS
    beats = sum(np.exp(-0.5 * ((t - k - 0.4) / 0.012) ** 2) for k in range(6))
    noise = 0.01 * np.random.default_rng(0).standard_normal((t.size, 2))
    samples = np.outer(beats, (1.0, 0.6)) + noise
    options = {"fs": FS, "units": ["mV", "mV"], "sig_name": ["II", "V1"], "fmt": ["16", "16"]}
    wfdb.wrsamp("pause", p_signal=samples, write_dir=str(tmp_path), **options)
    return tmp_path / "pause", wfdb.rdrecord(str(tmp_path / "pause")).p_signal.T


@asynccontextmanager
async def ecgnat(*arguments: object) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command as a user does; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ecgnat_stream.cli", *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        limit=2**20,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        assert process.stdout is not None
        assert process.stderr is not None
        await asyncio.gather(process.stdout.read(), process.stderr.read())
        await process.wait()


async def until(lines: asyncio.StreamReader | None, wanted: Callable[[str], bool]) -> str:
    """Return the first line that is wanted."""
    assert lines is not None
    async with asyncio.timeout(60):
        while line := (await lines.readline()).decode():
            if wanted(line):
                return line
    raise AssertionError("the process has ended")


@asynccontextmanager
async def reading(lines: asyncio.StreamReader | None) -> AsyncIterator[None]:
    """Read on and forget, as a pipe into nothing does, or the monitor would wait for a reader."""

    async def read() -> None:
        assert lines is not None
        while await lines.readline():
            pass

    task = asyncio.create_task(read())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Heard:
    """What a stock mosquitto_sub prints of a tree of topics: topic, retained or not, payload."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.messages: list[tuple[str, bool, bytes]] = []

    async def until(self, wanted: Callable[[str, bytes], bool]) -> bytes:
        """Return the first message from now on that is wanted."""
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            while line := (await self._process.stdout.readline()).decode():
                topic, retained, payload = line.split()
                topic = of_any_worker(topic)
                self.messages.append((topic, retained == "1", bytes.fromhex(payload)))
                if wanted(topic, self.messages[-1][2]):
                    return self.messages[-1][2]
        raise AssertionError("mosquitto_sub has ended")

    def json(self, topic: str, retained: bool) -> dict[str, Any]:
        """Return the first message of a topic."""
        found: dict[str, Any] = next(json.loads(p) for t, r, p in self.messages if (t, r) == (topic, retained))
        return found


@asynccontextmanager
async def mosquitto_sub(port: int, *options: str) -> AsyncIterator[Heard]:
    process = await asyncio.create_subprocess_exec(
        *("stdbuf", "-oL", "mosquitto_sub", "-p", str(port), "-V", "mqttv5", "-q", "1", "-F", "%t %r %x", *options),
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    try:
        yield Heard(process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


def is_type(kind: str) -> Callable[[str], bool]:
    return lambda line: json.loads(line)["type"] == kind


async def test_a_stock_subscriber_of_a_real_broker_follows_a_replay_to_its_violent_end(
    broker: Mosquitto, record: tuple[Path, NDArray[np.float64]], untrained: Path
) -> None:
    path, samples = record
    given = ("--headless", "--speed", 1, "--loop", "--mqtt", broker.url, "--model", untrained)
    async with ecgnat("replay", path, *given) as monitor:
        await until(monitor.stdout, is_type("vitals"))
        async with reading(monitor.stdout), mosquitto_sub(broker.port, "-t", "ecg/v1/#") as heard:
            event = json.loads(
                await heard.until(lambda topic, payload: topic.endswith("alarm/event") and b'"asystole"' in payload)
            )
            assert (event["phase"], event["presence"], event["priority"]) == ("start", "on", "high")
            # It came late: what was there before came as retained.
            assert heard.json(f"{BED}/status", retained=True)["online"] is True
            assert heard.json(f"{BED}/meta", retained=True)["leads"] == ["II", "V1"]
            assert heard.json(f"{ENGINE}/status", retained=True)["online"] is True
            assert not any(retained for topic, retained, _ in heard.messages if topic.endswith(("event", "wave", "beat")))
            # Not with --retained-only: that ends at the first live message, and waves overtake what waits for acknowledgements.
            async with mosquitto_sub(broker.port, "-t", "ecg/v1/#") as late:
                missing = set(STATES)
                while missing:
                    await late.until(lambda topic, _: topic in missing and late.messages[-1][1])
                    missing.discard(late.messages[-1][0])
            assert late.json(f"{BED}/alarm/state/asystole", retained=True)["presence"] == "on"
            assert late.json(f"{BED}/quality", retained=True)["leads"].keys() == {"II", "V1"}
            assert 0 <= late.json(f"{BED}/rhythm", retained=True)["probability"] <= 1
            monitor.kill()
            gone: dict[str, dict[str, Any]] = {}
            while len(gone) < 2:
                will = json.loads(await heard.until(lambda topic, payload: b'"online":false' in payload))
                gone[heard.messages[-1][0]] = will
            assert set(gone) == {f"{BED}/status", f"{ENGINE}/status"}
            assert {will["detail"] for will in gone.values()} == {"the monitor is gone"}
    check_waves([payload for topic, _, payload in heard.messages if topic == f"{BED}/wave"], samples)


def check_waves(payloads: list[bytes], samples: NDArray[np.float64]) -> None:
    """Compare frames with the record they came from, as far as it was played once: half a step, and the rounding of float32."""
    frames = [wire.WaveFrame.decode(payload) for payload in payloads]
    frames = [frame for frame in frames if frame.start + frame.codes.shape[1] <= samples.shape[1]]
    assert len(frames) >= 20
    assert [frame.sequence for frame in frames] == list(range(frames[0].sequence, frames[0].sequence + len(frames)))
    for frame in frames:
        assert (frame.fs, frame.loss, frame.codes.shape) == (FS, False, (2, FS // 5))
        expected = samples[:, frame.start : frame.start + FS // 5]
        np.testing.assert_allclose(frame.samples, expected, rtol=2**-23, atol=frame.uv_per_lsb / 1000 / 2)


async def test_the_demo_says_where_its_broker_listens_and_serves_others(
    record: tuple[Path, NDArray[np.float64]], untrained: Path
) -> None:
    async with ecgnat("demo", "--headless", "--beds", 1, "--model", untrained) as demo, reading(demo.stdout):
        said = await until(demo.stderr, lambda line: "broker listens at" in line)
        url = said.split()[-1]
        host, _, port = url.removeprefix("mqtt://").partition(":")
        async with aiomqtt.Client(host, int(port)) as client:
            await client.subscribe("ecg/v1/demo/#", qos=1)
            await client.subscribe("ecg/v1/replay/+/+/status", qos=1)
            kinds = ("status", "meta", "rhythm", "vitals", "quality", "wave")
            missing = {f"ecg/v1/demo/ward/bed-1/{kind}" for kind in kinds} | {"ecg/v1/demo/engine/+/status"}
            async with asyncio.timeout(60):
                async for message in client.messages:
                    missing.discard(of_any_worker(message.topic.value))
                    if not missing:
                        break
            # A second monitor at the demo's broker, killed: the broker publishes its wills.
            given = ("--headless", "--speed", 1, "--loop", "--mqtt", url, "--model", untrained)
            async with ecgnat("replay", record[0], *given) as other, reading(other.stdout):
                awaited = {f"{BED}/status": True, f"{ENGINE}/status": True}
                async with asyncio.timeout(60):
                    async for message in client.messages:
                        topic = of_any_worker(message.topic.value)
                        if topic not in awaited or json.loads(message.payload)["online"] is not awaited[topic]:
                            continue
                        if awaited[topic]:
                            awaited[topic] = False
                            if not any(awaited.values()):
                                other.kill()
                        else:
                            assert json.loads(message.payload)["detail"] == "the monitor is gone"
                            del awaited[topic]
                            if not awaited:
                                break


async def test_a_late_zeromq_subscriber_has_the_present_state_and_no_holes(
    record: tuple[Path, NDArray[np.float64]], untrained: Path, free_port: int
) -> None:
    path, samples = record
    address = f"tcp://127.0.0.1:{free_port}"
    async with ecgnat("replay", path, "--headless", "--zmq", address, "--model", untrained) as monitor:
        await until(monitor.stdout, is_type("rhythm"))
        first: dict[str, bytes] = {}
        numbers: dict[str, list[int]] = {}
        waves: list[bytes] = []
        with zmq.asyncio.Context() as context, context.socket(zmq.SUB) as socket:
            socket.linger = 0
            socket.connect(address)
            socket.subscribe("ecg/v1/replay/")
            async with reading(monitor.stdout), asyncio.timeout(60):
                while True:
                    name, number, payload = await socket.recv_multipart()
                    topic = of_any_worker(name.decode())
                    first.setdefault(topic, payload)
                    numbers.setdefault(topic, []).append(int.from_bytes(number, "little") % 2**20)
                    if topic == f"{BED}/wave":
                        waves.append(payload)
                    if topic == f"{BED}/status" and json.loads(payload)["state"] == "ended":
                        break
    assert ZmqConfig().high_water_mark > sum(map(len, numbers.values()))
    for state in STATES:
        assert state in first
    assert json.loads(first[f"{BED}/status"])["state"] == "online"
    assert numbers[f"{BED}/meta"] == [1]
    for topic, seen in numbers.items():
        # Only the present state may come twice: once as such, once live.
        assert sorted(set(seen)) == list(range(seen[0], seen[0] + len(set(seen)))), topic
    assert numbers[f"{BED}/vitals"][0] > 1
    check_waves(waves[:20], samples)
