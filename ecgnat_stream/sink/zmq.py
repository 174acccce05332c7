"""The ZeroMQ publisher: ``[topic, sequence, payload]`` on an XPUB socket, with the topics and payloads of MQTT.

In come events from the bus, out they go at once; a subscriber that does not keep up loses messages at its high-water mark and
sees that in the sequence. A new subscription is first sent the present state of what it asks for.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import zmq
import zmq.asyncio
import zmq.auth
from zmq.auth.asyncio import AsyncioAuthenticator

from ecgnat_stream import wire
from ecgnat_stream.bus import Bus
from ecgnat_stream.clock import Clock
from ecgnat_stream.errors import SinkError
from ecgnat_stream.events import Alarm, Command, DeviceStatus, Event, Technical, Wave

__all__ = ["ZmqConfig", "ZmqSink", "try_endpoint"]

CONDITION = "publisher-failed"


class ZmqConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ZeroMQ publisher.

    Parameters
    ----------
    bind
        Endpoint to bind, for example ``tcp://127.0.0.1:5556`` or ``ipc:///run/ecgnat.sock``; port ``*`` takes a free one.
    high_water_mark
        Messages kept for each slow subscriber; more are lost to it.
    wave
        Publish wave frames.
    secret_key_file
        CURVE key pair of this publisher (``zmq.auth.create_certificates`` makes one); empty: neither encryption nor accounts.
    clients_dir
        Folder with the public keys (``*.key``) of the subscribers that are let in; needs ``secret_key_file``.
    retry_s
        Wait before binding is tried again, s.
    """

    bind: str = "tcp://127.0.0.1:5556"
    high_water_mark: Annotated[int, msgspec.Meta(ge=1)] = 10_000
    wave: bool = True
    secret_key_file: str = ""
    clients_dir: str = ""
    retry_s: Annotated[float, msgspec.Meta(gt=0)] = 5.0


def try_endpoint(config: ZmqConfig) -> None:
    """Bind the endpoint and leave it again.

    Raises
    ------
    SinkError
        If it cannot be bound, or as :class:`ZmqSink`.
    """
    _keys(config)
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        try:
            socket.bind(config.bind)
        except zmq.ZMQError as error:
            raise SinkError(f"zmq.bind: cannot publish at {config.bind}: {error}; choose another endpoint") from error


class ZmqSink:
    """Publishes what the bus carries.

    Parameters
    ----------
    config
        See :class:`ZmqConfig`.
    site, worker
        Where events that concern no single bed go, ``ecg/v1/{site}/engine/{worker}/...``.

    Raises
    ------
    SinkError
        For keys that cannot be read, or an allow-list without a key pair.
    """

    def __init__(self, config: ZmqConfig, bus: Bus, clock: Clock, *, site: str = "home", worker: str = "monitor") -> None:
        self._config, self._bus, self._clock = config, bus, clock
        self._engine = f"{site}/engine/{worker}"
        self._keys = _keys(config)
        types = (Event, Wave) if config.wave else (Event,)
        self._subscription = bus.subscribe("zmq", *types)
        self._numbers: Counter[str] = Counter()
        self._state: dict[str, tuple[bytes, bytes]] = {}
        self._cutters: dict[str, wire.WaveCutter] = {}
        self._socket: zmq.asyncio.Socket | None = None
        self._bound = asyncio.Event()
        self._endpoint = ""

    async def endpoint(self) -> str:
        """Return the endpoint once it is bound, with its port."""
        await self._bound.wait()
        return self._endpoint

    async def run(self) -> None:
        """Publish until the bus is closed."""
        publishing = asyncio.create_task(self._publish_all(), name="zmq events")
        serving = asyncio.create_task(self._serve(), name="zmq socket")
        try:
            await asyncio.wait((publishing, serving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._bus.unsubscribe(self._subscription)
            for task in (publishing, serving):
                task.cancel()
            results = await asyncio.gather(publishing, serving, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _serve(self) -> None:
        failed = False
        with zmq.asyncio.Context() as context:
            while True:
                try:
                    async with self._open(context) as socket:
                        if failed:
                            self._tell(False, "")
                            failed = False
                        await self._greet(socket)
                except zmq.ZMQError as error:
                    if not failed:
                        self._tell(True, f"cannot publish at {self._config.bind}: {error}; choose another zmq.bind")
                    failed = True
                pause_s = self._config.retry_s * (1 - 0.5 * random.random())
                await self._clock.sleep_until(self._clock.monotonic_ns() + round(pause_s * 1e9))

    @asynccontextmanager
    async def _open(self, context: zmq.asyncio.Context) -> AsyncIterator[zmq.asyncio.Socket]:
        authenticator: AsyncioAuthenticator | None = None
        socket = context.socket(zmq.XPUB)
        try:
            socket.set(zmq.LINGER, 0)
            socket.set(zmq.SNDHWM, self._config.high_water_mark)
            # Or a second subscriber to the same topic would not be noticed, and not be sent the present state.
            socket.set(zmq.XPUB_VERBOSE, 1)
            if self._keys is not None:
                authenticator = AsyncioAuthenticator(context)
                authenticator.start()
                location = self._config.clients_dir or zmq.auth.CURVE_ALLOW_ANY
                authenticator.configure_curve(domain="*", location=location)
                socket.curve_publickey, socket.curve_secretkey = self._keys
                socket.curve_server = True
            socket.bind(self._config.bind)
            self._endpoint = socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")
            self._socket = socket
            self._bound.set()
            yield socket
        finally:
            self._socket = None
            self._bound.clear()
            socket.close(linger=0)
            if authenticator is not None:
                authenticator.stop()

    async def _greet(self, socket: zmq.asyncio.Socket) -> None:
        """Send every new subscription the present state of its topics."""
        while True:
            request = await socket.recv()
            if request[:1] == b"\x01":
                prefix = request[1:].decode(errors="replace")
                for topic, (number, payload) in list(self._state.items()):
                    if topic.startswith(prefix):
                        await socket.send_multipart([topic.encode(), number, payload])

    async def _publish_all(self) -> None:
        async for event in self._subscription:
            match event:
                case Wave():
                    await self._wave(event)
                case Command():
                    pass
                case Event():
                    topic, payload = wire.topic(event, self._engine), wire.encode_json(event)
                    retained = isinstance(event, (DeviceStatus, *wire.RETAINED))
                    await self._send(topic, payload, retained=retained)
                    if isinstance(event, Alarm):
                        await self._send(wire.alarm_state_topic(event, self._engine), payload, retained=True)
        for bed, cutter in self._cutters.items():
            await self._send_frames(bed, cutter.flush())

    async def _wave(self, wave: Wave) -> None:
        cutter = self._cutters.get(wave.bed)
        if cutter is None or not cutter.fits(wave):
            if cutter is not None:
                await self._send_frames(wave.bed, cutter.flush())
            cutter = wire.WaveCutter(wave.fs, wave.leads, wave.uv_per_lsb, cutter.sequence if cutter else 0)
            self._cutters[wave.bed] = cutter
        await self._send_frames(wave.bed, cutter.cut(wave, wire.epoch_ns(self._clock.utc(wave.block.t_ns))))

    async def _send_frames(self, bed: str, frames: list[wire.WaveFrame]) -> None:
        for frame in frames:
            await self._send(wire.wave_topic(bed), frame.encode(), retained=False)

    async def _send(self, topic: str, payload: bytes, *, retained: bool) -> None:
        self._numbers[topic] += 1
        number = self._numbers[topic].to_bytes(8, "little")
        if retained:
            self._state[topic] = (number, payload)
        if self._socket is not None:
            await self._socket.send_multipart([topic.encode(), number, payload])

    def _tell(self, present: bool, detail: str) -> None:
        self._bus.publish(Technical(bed="", time=self._clock.utc(), condition=CONDITION, present=present, detail=detail))


def _keys(config: ZmqConfig) -> tuple[bytes, bytes] | None:
    if not config.secret_key_file:
        if config.clients_dir:
            raise SinkError("zmq.clients_dir lets only known keys in, which needs zmq.secret_key_file")
        return None
    try:
        public, secret = zmq.auth.load_certificate(config.secret_key_file)
    except (OSError, ValueError) as error:
        raise SinkError(f"zmq.secret_key_file: {error}") from error
    if secret is None:
        raise SinkError(f"zmq.secret_key_file: {config.secret_key_file!r} holds no secret key")
    if config.clients_dir and not any(Path(config.clients_dir).glob("*.key")):
        raise SinkError(f"zmq.clients_dir: no *.key file in {config.clients_dir!r}: nobody would be let in")
    return public, secret
