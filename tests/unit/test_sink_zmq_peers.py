"""Peers of the ZeroMQ publisher that ask for too much: they are sent away and named, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.asyncio
import zmq.auth

from ecgnat_stream.bus import Bus, Subscription
from ecgnat_stream.clock import ManualClock, SystemClock
from ecgnat_stream.errors import ConfigError, SinkError
from ecgnat_stream.events import Alarm, Technical, Vitals
from ecgnat_stream.sink.zmq import ZmqConfig, ZmqSink, try_endpoint
from ecgnat_stream.sink.zmq.config import check_exposure, host_of
from ecgnat_stream.sink.zmq.door import Allowance, Door, Peer
from ecgnat_stream.sink.zmq.state import Greetings, PresentState
from ecgnat_stream.testing import flushed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BED = "home/icu/1"
ROOT = f"ecg/v1/{BED}"

pytestmark = pytest.mark.timeout(90)


def vitals(bpm: float, bed: str = BED) -> Vitals:
    return Vitals(bed=bed, time=NOW, heart_rate_bpm=bpm)


def alarm(sequence: int) -> Alarm:
    values: dict[str, Any] = {"kind": "physiological", "priority": "high", "phase": "start", "presence": "on"}
    return Alarm(
        bed=BED,
        time=NOW,
        condition="asystole",
        text="asystole",
        sequence=sequence,
        alarm_id="a",
        event_id=f"e{sequence}",
        **values,
    )


class Running:
    """A publisher and what it says of its peers."""

    def __init__(self, bus: Bus, sink: ZmqSink, heard: Subscription, endpoint: str) -> None:
        self.bus, self.sink, self.heard, self.endpoint = bus, sink, heard, endpoint

    async def told(self, condition: str = "peer-flood") -> Technical:
        async with asyncio.timeout(30):
            while True:
                event = await self.heard.get()
                assert isinstance(event, Technical)
                if event.condition == condition:
                    return event


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Running]:
    bus = Bus()
    heard = bus.subscribe("test", Technical)
    sink = ZmqSink(ZmqConfig(**({"bind": "tcp://127.0.0.1:*"} | options)), bus, SystemClock())
    task = asyncio.create_task(sink.run())
    try:
        async with asyncio.timeout(15):
            endpoint = await sink.endpoint()
        yield Running(bus, sink, heard, endpoint)
        bus.close()
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def all_sent(at: Running) -> None:
    """Wait until all that was published has reached the socket."""
    await flushed(at.bus)
    while len(at.sink._waiting):  # noqa: ASYNC110 (the thread signals no such thing)
        await asyncio.sleep(0.001)


@contextmanager
def subscriber(endpoint: str, prefix: str, **options: Any) -> Iterator[zmq.asyncio.Socket]:
    with zmq.asyncio.Context() as context, context.socket(zmq.SUB) as out:
        out.linger = 0
        for name, value in options.items():
            setattr(out, name, value)
        out.connect(endpoint)
        out.subscribe(prefix)
        yield out


async def receive(out: zmq.asyncio.Socket) -> tuple[str, int, bytes]:
    async with asyncio.timeout(30):
        topic, number, payload = await out.recv_multipart()
    return topic.decode(), int.from_bytes(number, "little") % 2**20, payload


def connected(endpoint: str) -> socket.socket:
    """Connect without saying anything."""
    if endpoint.startswith("ipc://"):
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(30)
        peer.connect(endpoint.removeprefix("ipc://"))
        return peer
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host, int(port)), 30)


def handmade(endpoint: str) -> socket.socket:
    """Connect as a subscriber of ZMTP 3.0 (rfc.zeromq.org/spec/23) that does what no library does."""
    peer = connected(endpoint)
    peer.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
    greeting = b""
    while len(greeting) < 64:
        greeting += peer.recv(64 - len(greeting))
    ready = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", 3) + b"SUB"
    peer.sendall(b"\x04" + bytes([len(ready)]) + ready)
    peer.recv(1000)
    return peer


def subscription(prefix: bytes) -> bytes:
    return b"\x00" + bytes([len(prefix) + 1]) + b"\x01" + prefix


def send_until_hung_up(peer: socket.socket, chunks: Iterator[bytes]) -> int:
    """Return how many bytes were taken."""
    taken = 0
    try:
        for chunk in chunks:
            peer.sendall(chunk)
            taken += len(chunk)
        while peer.recv(65_536):
            pass
    except OSError:
        return taken
    return taken


async def flood(endpoint: str, chunks: Iterator[bytes]) -> int:
    with await asyncio.to_thread(handmade, endpoint) as peer:
        return await asyncio.to_thread(send_until_hung_up, peer, chunks)


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


FLOODS = {
    "the same again and again": (lambda: (subscription(b"ecg/") * 1000 for _ in range(1000)), "bytes within|messages in a short"),
    "always another": (
        lambda: (b"".join(subscription(b"%07d" % (k * 1000 + j)) for j in range(1000)) for k in range(1000)),
        "bytes within|messages in a short|subscriptions",
    ),
    "many, slowly": (
        lambda: (b"".join(subscription(b"%04d" % (k * 50 + j)) for j in range(50)) for k in range(80) if not time.sleep(0.005)),
        "more than 2000 subscriptions",
    ),
    "many long ones": (
        lambda: (b"\x02" + struct.pack(">Q", 501) + b"\x01" + b"%0500d" % k for k in range(140)),
        "more than 2000 subscriptions, or than 65536 bytes of them",
    ),
    "too long": (lambda: iter([b"\x02" + struct.pack(">Q", 1001) + b"\x01" + b"x" * 1000]), "a subscription of 1000 bytes"),
    "no subscription at all": (lambda: (b"\x00\x05hello" * 1000 for _ in range(1000)), "bytes within|messages in a short"),
}


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
@pytest.mark.parametrize("kind", FLOODS)
async def test_who_floods_is_sent_away_and_named_and_alarms_go_on(kind: str, transport: str, tmp_path: Path) -> None:
    make, why = FLOODS[kind]
    bind = "tcp://127.0.0.1:*" if transport == "tcp" else f"ipc://{tmp_path}/out"
    async with running(bind=bind) as at:
        for bed in range(200):
            at.bus.publish(vitals(60, f"home/icu/{bed}"))
        await all_sent(at)
        with subscriber(at.endpoint, f"{ROOT}/alarm/event") as other:
            await asyncio.to_thread(handmade(at.endpoint).close)  # a peer that comes and goes
            while len(at.sink._publisher._door) < 1:  # type: ignore[union-attr]  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            flooding = asyncio.create_task(flood(at.endpoint, make()))
            numbers: list[int] = []
            sent = 0
            while not flooding.done() or not numbers:
                sent += 1
                at.bus.publish(alarm(sent))
                try:
                    async with asyncio.timeout(0.5):
                        numbers.append(int.from_bytes((await other.recv_multipart())[1], "little") % 2**20)
                except TimeoutError:
                    assert not numbers, "an alarm event did not come while a peer floods"
            await flooding
            assert numbers == list(range(numbers[0], sent + 1))
        told = await at.told()
        assert told.present
        assert pytest.fail(told.detail) if not any(part in told.detail for part in why.split("|")) else True
        assert told.detail.startswith("127.0.0.1 was" if transport == "tcp" else f"process {os.getpid()} of account")


async def test_an_announced_message_of_60_mb_takes_no_memory() -> None:
    async with running() as at:
        before = resident_mb()
        huge = b"\x02" + struct.pack(">Q", 60_000_000) + b"\x01"
        taken = await flood(at.endpoint, (chunk for chunk in (huge, *(b"x" * 1_000_000 for _ in range(60)))))
        assert taken < 60_000_000
        assert resident_mb() - before < 100
        with subscriber(at.endpoint, ROOT) as out:
            at.bus.publish(vitals(60))
            assert (await receive(out))[0] == f"{ROOT}/vitals"


async def test_a_repeated_subscription_is_greeted_once_and_another_peers_too() -> None:
    async with running() as at:
        at.bus.publish(vitals(60))
        await all_sent(at)
        with subscriber(at.endpoint, ROOT) as first:
            assert (await receive(first))[1] == 1
            with await asyncio.to_thread(handmade, at.endpoint) as peer:
                peer.sendall(subscription(ROOT.encode()) * 500)
                assert (await receive(first))[1] == 1  # the greeting of the other peer, which every subscriber sees
                with subscriber(at.endpoint, ROOT) as third:
                    assert (await receive(third))[1] == 1
                    assert (await receive(first))[1] == 1
                    at.bus.publish(vitals(61))
                    assert (await receive(third))[1] == 2
                    assert (await receive(first))[1] == 2  # and nothing for the other 499


async def test_a_descriptor_that_is_used_again_is_another_peer() -> None:
    async with running() as at:
        at.bus.publish(vitals(60))
        await all_sent(at)
        for _ in range(5):
            with subscriber(at.endpoint, ROOT) as out:
                assert (await receive(out))[1] == 1


async def test_alarm_states_are_greeted_before_the_rest() -> None:
    async with running() as at:
        for bed in range(100):
            at.bus.publish(vitals(60, f"home/icu/{bed}"))
        at.bus.publish(alarm(1))
        await all_sent(at)
        with subscriber(at.endpoint, "") as out:
            assert (await receive(out))[0] == f"{ROOT}/alarm/state/asystole"


async def test_more_connections_than_allowed_are_hung_up_and_named() -> None:
    async with running(peers=4) as at:
        with ExitStack() as stack:
            silent = [stack.enter_context(await asyncio.to_thread(connected, at.endpoint)) for _ in range(3)]
            told = await at.told()
            assert told.detail == "127.0.0.1 was disconnected: more than 2 connections from one address"
            closed = 0
            for peer in silent:
                peer.setblocking(False)
            async with asyncio.timeout(15):
                while not closed:
                    await asyncio.sleep(0.01)
                    for peer in silent:
                        try:
                            data = peer.recv(1000)
                        except BlockingIOError:
                            continue
                        except ConnectionError:
                            data = b""
                        closed += not data
            assert closed == 1


async def test_who_says_nothing_is_hung_up_after_five_seconds() -> None:
    async with running() as at:
        began = time.monotonic()
        with await asyncio.to_thread(connected, at.endpoint) as peer:
            assert await asyncio.to_thread(send_until_hung_up, peer, iter([b"\xff"])) == 1
        assert time.monotonic() - began < 20  # libzmq itself waits for 30 s


async def test_who_connects_too_often_is_named() -> None:
    async with running(peers=4096) as at:
        with ExitStack() as stack:
            for _ in range(120):
                stack.enter_context(await asyncio.to_thread(connected, at.endpoint))
            assert (await at.told()).detail == "127.0.0.1 was disconnected: connects too often"


def curve(folder: Path, name: str, server: bytes) -> dict[str, Any]:
    public, secret = zmq.auth.load_certificate(folder / f"{name}.key_secret")
    return {"curve_publickey": public, "curve_secretkey": secret, "curve_serverkey": server}


async def test_a_key_that_is_taken_away_hangs_up_and_one_that_is_added_is_let_in(tmp_path: Path) -> None:
    _, server_secret = zmq.auth.create_certificates(tmp_path, "server")
    server, _ = zmq.auth.load_certificate(tmp_path / "server.key")
    (folder := tmp_path / "clients").mkdir()
    zmq.auth.create_certificates(folder, "first")
    zmq.auth.create_certificates(folder, "second")
    zmq.auth.create_certificates(tmp_path, "third")
    first, second = curve(folder, "first", server), curve(folder, "second", server)
    async with running(secret_key_file=server_secret, clients_dir=str(folder)) as at:
        at.bus.publish(vitals(60))
        await all_sent(at)
        with subscriber(at.endpoint, "", **first) as one, subscriber(at.endpoint, "", **second) as two:
            for out in (one, two):
                assert (await receive(out))[0] == f"{ROOT}/vitals"
            (folder / "first.key").unlink()
            assert (await at.told()).detail == "127.0.0.1 was disconnected: its key has been taken away"
            while await one.poll(200):
                await one.recv_multipart()
            at.bus.publish(vitals(61))
            while json.loads((await receive(two))[2])["type"] != "vitals" or await two.poll(200):
                pass
            assert not await one.poll(0)
            (tmp_path / "third.key").rename(folder / "third.key")
            with subscriber(at.endpoint, ROOT, **curve(tmp_path, "third", server)) as three:
                assert (await receive(three))[1] == 2


async def test_a_file_that_is_no_key_leaves_the_others_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, server_secret = zmq.auth.create_certificates(tmp_path, "server")
    server, _ = zmq.auth.load_certificate(tmp_path / "server.key")
    (folder := tmp_path / "clients").mkdir()
    zmq.auth.create_certificates(folder, "known")
    (folder / "half.key").write_text("curve\n    public-", encoding="utf-8")
    async with running(secret_key_file=server_secret, clients_dir=str(folder)) as at:
        with subscriber(at.endpoint, ROOT, **curve(folder, "known", server)) as out:
            at.bus.publish(vitals(60))
            assert (await receive(out))[0] == f"{ROOT}/vitals"
    assert "half.key is no public key" in caplog.text


async def test_the_ledger_counts_what_the_socket_took_and_what_nobody_could_hear() -> None:
    bus, clock = Bus(), ManualClock()
    heard = bus.subscribe("test", Technical)
    with zmq.Context() as context, context.socket(zmq.XPUB) as squatter:
        port = squatter.bind_to_random_port("tcp://127.0.0.1")
        sink = ZmqSink(ZmqConfig(bind=f"tcp://127.0.0.1:{port}"), bus, clock)
        bus.publish(alarm(1))
        task = asyncio.create_task(sink.run())
        async with asyncio.timeout(15):
            said = [await heard.get(), await heard.get()]
        assert {event.condition for event in said if isinstance(event, Technical)} == {"publisher-failed", "alarms-lost"}
        assert (sink.alarms_delivered, sink.alarms_lost, sink.subscription.alarms) == (0, 1, 1)
        squatter.close(linger=0)
    while not len(heard):
        await clock.advance(10.0)
        await asyncio.sleep(0.01)
    assert not any(event.present for event in [await heard.get(), await heard.get()] if isinstance(event, Technical))
    bus.publish(alarm(2))
    with subscriber(await sink.endpoint(), f"{ROOT}/alarm/state") as out:
        assert (await receive(out))[1] in (1, 2)
    bus.close()
    await task
    assert (sink.alarms_delivered, sink.alarms_lost) == (1, 1)


async def test_a_sink_that_is_run_again_goes_on_with_its_numbers_and_state(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = Bus()
    sink = ZmqSink(ZmqConfig(bind="tcp://127.0.0.1:*"), bus, SystemClock())
    task = asyncio.create_task(sink.run())
    await sink.endpoint()
    bus.publish(vitals(60))
    await flushed(bus)
    with monkeypatch.context() as broken:
        broken.setattr("ecgnat_stream.sink.zmq.sink.wire.encode_json", lambda _: 1 / 0)
        bus.publish(alarm(1))
        with pytest.raises(ZeroDivisionError):
            await task
    assert sink.alarms_lost == 1
    bus.publish(alarm(2))
    task = asyncio.create_task(sink.run())
    with subscriber(await sink.endpoint(), f"{ROOT}/vitals") as out:
        assert (await receive(out))[1] == 1
        bus.publish(vitals(61))
        assert (await receive(out))[1] == 2
    bus.close()
    await task
    assert (sink.alarms_delivered, sink.alarms_lost, sink.subscription.alarms) == (1, 1, 2)
    assert bus.statistics() == {}


async def test_a_descriptor_that_has_become_another_connection_is_left_alone() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as broker,
        socket.create_connection(broker.getsockname()) as way,
        broker.accept()[0] as far,
    ):
        said: list[str] = []
        door = Door(1, said.append, lambda: 0.0)
        door.opened("tcp://127.0.0.1:1")
        for _ in range(200):
            assert door.who(way.fileno()) is None  # a late message of a peer that had this descriptor before
        assert not said
        door.opened(f"tcp://127.0.0.1:{broker.getsockname()[1]}")
        peer = door.who(far.fileno())
        assert peer is not None
        peer.inode += 1  # the connection has gone, and its descriptor is another one's
        door.send_away(peer, "a flood")
        way.sendall(b"still there")
        assert far.recv(100) == b"still there"
        file = os.open(__file__, os.O_RDONLY)
        assert door.who(file) is None
        os.close(file)
        assert door.who(10_000) is None


async def test_alarms_that_a_broken_publisher_took_along_are_lost_not_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = Bus()
    sink = ZmqSink(ZmqConfig(bind="tcp://127.0.0.1:*"), bus, SystemClock())
    task = asyncio.create_task(sink.run())
    await sink.endpoint()
    with monkeypatch.context() as broken:
        broken.setattr("ecgnat_stream.sink.zmq.publisher.Publisher._send", lambda *_: 1 / 0)
        bus.publish(alarm(1))
        bus.publish(alarm(2))
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(task, 15)
    assert sink.alarms_delivered + sink.alarms_lost == sink.subscription.alarms_taken
    bus.close()
    await sink.run()
    assert (sink.alarms_delivered, sink.alarms_delivered + sink.alarms_lost) == (0, 2)


async def test_a_thread_that_hangs_keeps_nobody_and_what_it_held_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr("ecgnat_stream.sink.zmq.sink._END_S", 0.2)
    with monkeypatch.context() as broken:
        broken.setattr("ecgnat_stream.sink.zmq.publisher.Publisher._read", lambda *_: release.wait(60))
        bus = Bus()
        sink = ZmqSink(ZmqConfig(bind="tcp://127.0.0.1:*"), bus, SystemClock())
        task = asyncio.create_task(sink.run())
        await sink.endpoint()
        publisher = sink._publisher
        assert publisher is not None
        for number in range(1, 4):
            bus.publish(alarm(number))
        bus.close()
        await asyncio.wait_for(task, 15)
        assert sink.alarms_delivered + sink.alarms_lost == sink.subscription.alarms == 3
        release.set()
        await asyncio.wait_for(publisher.ended.wait(), 15)
        publisher._waiting.close()


async def test_without_somebody_at_the_door_the_publisher_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecgnat_stream.sink.zmq.door.Door.watch", lambda *_: None)
    sink = ZmqSink(ZmqConfig(bind="tcp://127.0.0.1:*"), Bus(), SystemClock())
    with pytest.raises(SinkError, match="who watches the connections"):
        await asyncio.wait_for(sink.run(), 15)


async def test_a_publisher_that_breaks_down_raises_in_the_sink(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecgnat_stream.sink.zmq.publisher.Publisher._work", lambda *_: 1 / 0)
    sink = ZmqSink(ZmqConfig(bind="tcp://127.0.0.1:*"), Bus(), SystemClock())
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(sink.run(), 15)


@pytest.mark.parametrize(
    ("bind", "host"),
    [
        ("tcp://127.0.0.1:5556", "127.0.0.1"),
        ("tcp://[::1]:5556", "::1"),
        ("tcp://*:*", "*"),
        ("ipc:///run/x", "localhost"),
        ("ws://127.0.0.1:1", "ws://127.0.0.1:1"),
    ],
)
def test_the_host_of_an_endpoint(bind: str, host: str) -> None:
    assert host_of(bind) == host


def test_an_endpoint_without_a_port_is_told_as_such() -> None:
    with pytest.raises(ConfigError, match=r"'tcp://127.0.0.1' has no port: write tcp://127.0.0.1:5556"):
        check_exposure(ZmqConfig(bind="tcp://127.0.0.1"))


def test_an_exposed_endpoint_without_keys_is_refused_unless_said_twice(caplog: pytest.LogCaptureFixture) -> None:
    for attempt in (lambda c: ZmqSink(c, Bus(), ManualClock()), try_endpoint):
        with pytest.raises(ConfigError, match=r"zmq\.bind.*insecure = true in \[zmq\]"):
            attempt(ZmqConfig(bind="tcp://*:*"))
        caplog.clear()
        attempt(ZmqConfig(bind="tcp://*:*", insecure=True))
        assert "without key or account (insecure = true)" in caplog.text


def test_the_present_state_forgets_the_topic_that_was_silent_for_longest() -> None:
    state = PresentState(capacity=3)
    for topic in ("a", "b", "c", "a", "d"):
        state.take(topic, topic.encode(), kept=True)
    assert state.topics("") == ["a", "c", "d"]
    assert state.of("a") == ((2).to_bytes(8, "little"), b"a")
    assert state.of("b") is None


def test_an_allowance_comes_back_with_time() -> None:
    allowance = Allowance(2, 1)
    assert [allowance.take(1, 0.0) for _ in range(3)] == [True, True, False]
    assert not allowance.take(2, 1.5)
    assert allowance.take(1, 1.5)
    assert allowance.take(2, 100.0)
    assert not allowance.take(1, 100.0)


def test_a_greeting_is_sent_once_for_all_who_wait_and_a_greedy_peer_waits() -> None:
    state = PresentState()
    topics = [f"t{number:04d}" for number in range(1000)]
    for topic in topics:
        state.take(topic, b"", kept=True)
    greetings = Greetings(state)
    first, second = Peer(1, 1, "a"), Peer(2, 2, "b")

    def due(now_s: float) -> int:
        count = 0
        while greetings.next(now_s) is not None:
            count += 1
        return count

    greetings.ask(first, b"t")
    greetings.ask(second, b"t")
    assert due(0.0) == 2000  # each is due again only when it has been sent
    for length in range(4):
        greetings.ask(first, b"t000"[: length + 1])
    assert due(0.0) == 1000 + 100  # of t, then of t00; of t0 it was not allowed all, and of t000 nothing was left
    assert len(greetings) == 2
    assert due(1000.0) > 0
