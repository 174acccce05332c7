"""The ZeroMQ publisher: the present state first, numbered messages, keys, a taken port."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
import zmq.asyncio
import zmq.auth

from ecgnat_stream import wire
from ecgnat_stream.bus import Bus
from ecgnat_stream.clock import ManualClock, SystemClock
from ecgnat_stream.errors import SinkError
from ecgnat_stream.events import Alarm, Technical, Vitals, Wave
from ecgnat_stream.signal import SampleBlock
from ecgnat_stream.sink.zmq import ZmqConfig, ZmqSink, try_endpoint
from ecgnat_stream.sink.zmq.state import PresentState, numbers_from
from ecgnat_stream.testing import flushed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BED = "home/icu/1"
ROOT = "ecg/v1/home/icu/1"

pytestmark = pytest.mark.timeout(60)


def vitals(bpm: float, bed: str = BED) -> Vitals:
    return Vitals(bed=bed, time=NOW, heart_rate_bpm=bpm)


@asynccontextmanager
async def publisher(**options: Any) -> AsyncIterator[tuple[Bus, str]]:
    bus = Bus()
    sink = ZmqSink(ZmqConfig(bind="tcp://127.0.0.1:*", **options), bus, SystemClock())
    task = asyncio.create_task(sink.run())
    try:
        async with asyncio.timeout(15):
            endpoint = await sink.endpoint()
        yield bus, endpoint
        bus.close()
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def subscriber(endpoint: str, prefix: str, **options: Any) -> AsyncIterator[zmq.asyncio.Socket]:
    with zmq.asyncio.Context() as context, context.socket(zmq.SUB) as socket:
        socket.linger = 0
        for name, value in options.items():
            setattr(socket, name, value)
        socket.connect(endpoint)
        socket.subscribe(prefix)
        yield socket


async def receive(socket: zmq.asyncio.Socket) -> tuple[str, int, bytes]:
    async with asyncio.timeout(15):
        topic, number, payload = await socket.recv_multipart()
    return topic.decode(), int.from_bytes(number, "little") % 2**20, payload


async def test_a_late_subscriber_gets_the_present_state_of_its_topics_first() -> None:
    async with publisher() as (bus, endpoint):
        for bpm in (60, 61):
            bus.publish(vitals(bpm))
            bus.publish(vitals(90, "home/icu/2"))
        async with subscriber(endpoint, f"{ROOT}/") as early:
            while (await receive(early))[1] < 2:  # the socket's thread has both
                continue
        async with subscriber(endpoint, f"{ROOT}/") as socket:
            topic, number, payload = await receive(socket)
            assert (topic, number, json.loads(payload)["heart_rate_bpm"]) == (f"{ROOT}/vitals", 2, 61)
            bus.publish(vitals(62))
            assert (await receive(socket))[1] == 3
        async with subscriber(endpoint, f"{ROOT}/") as second:
            assert (await receive(second))[1] == 3


async def test_alarms_have_a_state_and_an_event_and_waves_are_frames() -> None:
    alarm = Alarm(
        bed=BED,
        time=NOW,
        condition="asystole",
        kind="physiological",
        priority="high",
        phase="start",
        presence="on",
        text="asystole",
        sequence=1,
        alarm_id="a1",
        event_id="e1",
    )
    async with publisher() as (bus, endpoint):
        bus.publish(vitals(60))
        await flushed(bus)  # or the subscription may come before it is sent, and it is received twice
        async with subscriber(endpoint, ROOT) as socket:
            await receive(socket)
            bus.publish(alarm)
            bus.publish(Wave(BED, NOW, 100.0, ("II",), 5.0, SampleBlock(0, np.ones((1, 20), np.float32), 0)))
            assert [(await receive(socket))[0] for _ in range(2)] == [f"{ROOT}/alarm/event", f"{ROOT}/alarm/state/asystole"]
            topic, _, frame = await receive(socket)
            assert topic == f"{ROOT}/wave"
            assert wire.WaveFrame.decode(frame).codes.tolist() == [[200] * 20]


async def test_only_known_keys_are_let_in(tmp_path: Path) -> None:
    _, server_secret = zmq.auth.create_certificates(tmp_path, "server")
    (tmp_path / "clients").mkdir()
    zmq.auth.create_certificates(tmp_path / "clients", "known")
    public, secret = zmq.auth.load_certificate(tmp_path / "clients" / "known.key_secret")
    stranger_public, stranger_secret = zmq.curve_keypair()
    server, _ = zmq.auth.load_certificate(tmp_path / "server.key")
    async with publisher(secret_key_file=server_secret, clients_dir=str(tmp_path / "clients")) as (bus, endpoint):
        bus.publish(vitals(60))
        await flushed(bus)
        stranger = {"curve_publickey": stranger_public, "curve_secretkey": stranger_secret, "curve_serverkey": server}
        known = {"curve_publickey": public, "curve_secretkey": secret, "curve_serverkey": server}
        async with subscriber(endpoint, "", **stranger) as refused, subscriber(endpoint, "", **known) as socket:
            assert (await receive(socket))[0] == f"{ROOT}/vitals"
            for number in range(2, 12):
                bus.publish(vitals(60))
                assert (await receive(socket))[1] == number
            assert not await refused.poll(0)


async def test_a_taken_port_is_told_and_tried_again() -> None:
    bus, clock = Bus(), ManualClock()
    heard = bus.subscribe("test", Technical)
    with zmq.Context() as context, context.socket(zmq.XPUB) as squatter:
        port = squatter.bind_to_random_port("tcp://127.0.0.1")
        sink = ZmqSink(ZmqConfig(bind=f"tcp://127.0.0.1:{port}"), bus, clock)
        task = asyncio.create_task(sink.run())
        async with asyncio.timeout(15):
            trouble = await heard.get()
            assert isinstance(trouble, Technical)
            assert (trouble.condition, trouble.present) == ("publisher-failed", True)
            assert "in use" in trouble.detail
            bus.publish(vitals(60))
            squatter.close(linger=0)
            # The port is free a moment after its socket is closed.
            while not len(heard):
                await clock.advance(10.0)
                await asyncio.sleep(0.01)
            back = await heard.get()
    assert isinstance(back, Technical)
    assert not back.present
    async with subscriber(await sink.endpoint(), ROOT) as socket:
        assert (await receive(socket))[0] == f"{ROOT}/vitals"
    bus.close()
    await task


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"secret_key_file": "/nowhere.key_secret"}, "zmq.secret_key_file"),
        ({"clients_dir": "/nowhere"}, "needs zmq.secret_key_file"),
    ],
)
def test_wrong_keys_are_refused(options: dict[str, str], wrong: str) -> None:
    with pytest.raises(SinkError, match=wrong):
        ZmqSink(ZmqConfig(**options), Bus(), ManualClock())  # type: ignore[arg-type]


def test_an_empty_allow_list_is_refused(tmp_path: Path) -> None:
    _, secret = zmq.auth.create_certificates(tmp_path, "server")
    (tmp_path / "clients").mkdir()
    with pytest.raises(SinkError, match="nobody would be let in"):
        ZmqSink(ZmqConfig(secret_key_file=secret, clients_dir=str(tmp_path / "clients")), Bus(), ManualClock())


def test_the_numbers_of_a_later_process_are_higher() -> None:
    first, second = (PresentState(numbers_from(NOW + timedelta(milliseconds=ms))) for ms in (0, 1))
    for _ in range(1000):
        last = int.from_bytes(first.take("t", b"", kept=True), "little")
    again = int.from_bytes(second.take("t", b"", kept=True), "little")
    assert last % 2**20 == 1000
    assert again > last
    assert again < 2**64
    assert numbers_from(datetime(1960, 1, 1, tzinfo=UTC)) == 0, "a board whose clock was never set"


def test_an_ipv6_address_is_bound() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    try_endpoint(ZmqConfig(bind="tcp://[::1]:*"))
