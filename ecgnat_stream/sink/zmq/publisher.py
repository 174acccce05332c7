"""The thread that sends: it owns the socket, the present state and the greetings, and takes what the event loop hands over.

Each turn sends all that is live, then a few greetings, then reads a few subscriptions: none of the three can hold up another, and
nothing of it holds the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import zmq
from zmq.auth.thread import ThreadAuthenticator

from ecgnat_stream.clock import Clock
from ecgnat_stream.errors import SinkError
from ecgnat_stream.sink.zmq.config import ZmqConfig
from ecgnat_stream.sink.zmq.door import Door
from ecgnat_stream.sink.zmq.keys import ClientKeys
from ecgnat_stream.sink.zmq.state import Greetings, PresentState

__all__ = ["Handover", "Message", "Publisher", "listen"]

_WAITING = 10_000
"""Messages that wait for the thread at most; the event loop then stops reading its subscription, which is bounded too."""

_GREETINGS_A_TURN = _REQUESTS_A_TURN = 64
_IDLE_MS = 1_000
_PACED_MS = 20
_LINGER_MS = 1_000
_MESSAGE_BYTES = 4_096
"""Longest message of a peer; a handshake with keys has less than 500 bytes. ZeroMQ hangs up on whoever announces more."""

_HANDSHAKE_MS = 5_000
_KEEPALIVE_S = 30


class Message(NamedTuple):
    """What one event becomes: topics and payloads, whether each is kept, and whether it is an alarm event."""

    parts: tuple[tuple[str, bytes, bool], ...]
    alarm: bool = False


class Handover:
    """A bounded queue from the event loop to the thread; both sides only ever append or pop."""

    def __init__(self) -> None:
        self._waiting: deque[Message] = deque()
        self._bell: tuple[socket.socket, socket.socket] | None = None
        self._rung = False
        self._room = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        """Return how many messages wait."""
        return len(self._waiting)

    def open(self) -> socket.socket:
        """Return what becomes readable when something waits; for one thread, until :meth:`close`."""
        self._bell = reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        self._rung = False
        self.ring()
        return reader

    def close(self) -> None:
        """End what :meth:`open` began."""
        bell, self._bell = self._bell, None
        for end in bell or ():
            end.close()

    async def room(self) -> None:
        """Wait until there is room for another message."""
        self._loop = asyncio.get_running_loop()
        while len(self._waiting) >= _WAITING:
            self._room.clear()
            if len(self._waiting) >= _WAITING:
                await self._room.wait()

    def put(self, message: Message) -> None:
        """Add a message."""
        self._waiting.append(message)
        self.ring()

    def ring(self) -> None:
        """Wake the thread, if there is one."""
        if self._bell is not None and not self._rung:
            self._rung = True
            self._bell[1].send(b"!")

    def hear(self) -> None:
        """Take note of the bell; then take all that waits."""
        assert self._bell is not None
        with contextlib.suppress(BlockingIOError):
            self._bell[0].recv(64)
        self._rung = False

    def pop(self) -> Message | None:
        """Take a message; None if there is none."""
        try:
            message = self._waiting.popleft()
        except IndexError:
            return None
        if len(self._waiting) == _WAITING // 2 and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                self._loop.call_soon_threadsafe(self._room.set)
        return message


class Publisher:
    """A bound socket, for as long as it works.

    Parameters
    ----------
    waiting, state
        What is sent, and what has been; used by this thread alone while it runs.
    tell
        Called in the event loop with a sentence for each peer that is sent away.

    Attributes
    ----------
    opened, ended
        Set in the event loop when the socket is bound, and when the thread is through.
    error
        What ended it, if that was not :meth:`stop`.
    endpoint
        Where it is bound, with its port.
    alarms
        Alarm events that the socket has taken.
    """

    def __init__(
        self,
        config: ZmqConfig,
        keys: tuple[bytes, bytes] | None,
        clients: ClientKeys | None,
        waiting: Handover,
        state: PresentState,
        clock: Clock,
        tell: Callable[[str], None],
    ) -> None:
        self._config, self._keys, self._clients = config, keys, clients
        self._waiting, self._state, self._clock = waiting, state, clock
        self._greetings = Greetings(state)
        self._loop = asyncio.get_running_loop()
        self._door = Door(
            config.peers,
            lambda text: self._say(lambda: tell(text)),
            self._now_s,
            clients,
        )
        self.opened, self.ended = asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None
        self.endpoint = ""
        self.alarms = 0
        self._stopped = False
        self._bell = waiting.open()
        threading.Thread(target=self._run, name="ecgnat-zmq", daemon=True).start()

    def stop(self) -> None:
        """Send what waits, and end."""
        self._stopped = True
        self._waiting.ring()

    def _now_s(self) -> float:
        return self._clock.monotonic_ns() / 1e9

    def _say(self, what: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop has ended
            self._loop.call_soon_threadsafe(what)

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:  # noqa: BLE001 - the border of the thread: the sink raises it in the event loop
            self.error = error
        self._say(self.ended.set)

    def _serve(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        authenticator: ThreadAuthenticator | None = None
        try:
            with context.socket(zmq.XPUB) as out:
                if self._keys is not None:
                    authenticator = self._authenticate(context, out)
                monitor = out.get_monitor_socket(zmq.EVENT_ACCEPTED)
                try:
                    listen(out, self._config)
                    self.endpoint = out.get_string(zmq.LAST_ENDPOINT).rstrip("\0")
                    self._door.opened(self.endpoint)
                    with self._watched(monitor) as watching:
                        self._say(self.opened.set)
                        self._work(out, [watching] if authenticator is None else [watching, authenticator])
                finally:
                    out.disable_monitor()
                    monitor.close(linger=0)
        finally:
            if authenticator is not None:
                authenticator.stop()
            context.destroy()

    @contextlib.contextmanager
    def _watched(self, monitor: zmq.Socket[bytes]) -> Iterator[threading.Thread]:
        """Have somebody at the door."""
        refresh = None if self._clients is None else self._clients.refresh
        watching = threading.Thread(target=self._door.watch, args=(monitor, refresh), name="ecgnat-zmq-door", daemon=True)
        watching.start()
        try:
            yield watching
        finally:
            self._door.stop()
            watching.join()

    def _authenticate(self, context: zmq.Context[zmq.Socket[bytes]], out: zmq.Socket[bytes]) -> ThreadAuthenticator:
        assert self._keys is not None
        authenticator = ThreadAuthenticator(context)
        if self._clients is None:
            authenticator.configure_curve(domain="*", location=zmq.auth.CURVE_ALLOW_ANY)
        else:
            authenticator.configure_curve_callback(domain="*", credentials_provider=self._clients)
        authenticator.start()
        out.curve_publickey, out.curve_secretkey = self._keys
        out.curve_server = True
        return authenticator

    def _work(self, out: zmq.Socket[bytes], others: Sequence[threading.Thread | ThreadAuthenticator]) -> None:
        poller = zmq.Poller()
        poller.register(out, zmq.POLLIN)
        poller.register(self._bell, zmq.POLLIN)
        pause_ms = 0
        while True:
            poller.poll(pause_ms)
            self._waiting.hear()
            stopped = self._stopped
            while (message := self._waiting.pop()) is not None:
                self._send(out, message)
            if stopped:
                return
            if not all(other.is_alive() for other in others):
                raise SinkError("who watches the connections, or knows their keys, has failed")
            greeted, read = self._greet(out), self._read(out)
            pause_ms = 0 if greeted or read else _PACED_MS if len(self._greetings) else _IDLE_MS

    def _send(self, out: zmq.Socket[bytes], message: Message) -> None:
        for topic, payload, kept in message.parts:
            out.send_multipart([topic.encode(), self._state.take(topic, payload, kept=kept), payload], zmq.NOBLOCK)
        self.alarms += message.alarm

    def _greet(self, out: zmq.Socket[bytes]) -> bool:
        """Send some of what new subscribers wait for; return whether more may be sent at once."""
        for _ in range(_GREETINGS_A_TURN):
            topic = self._greetings.next(self._now_s())
            if topic is None:
                return False
            present = self._state.of(topic)
            if present is not None:
                out.send_multipart([topic.encode(), *present], zmq.NOBLOCK)
        return True

    def _read(self, out: zmq.Socket[bytes]) -> bool:
        """Read some of what subscribers ask for; return whether more may wait."""
        for _ in range(_REQUESTS_A_TURN):
            try:
                frame = out.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return False
            fd = _told(frame, zmq.SRCFD)
            peer = self._door.who(fd) if isinstance(fd, int) else None
            if peer is None:
                continue  # of a connection that has gone: ZeroMQ takes its subscriptions back by itself
            key = _told(frame, "User-Id") if self._keys is not None else ""
            prefix = self._door.count(peer, frame.bytes, key.encode() if isinstance(key, str) else b"")
            if prefix is not None:
                self._greetings.ask(peer, prefix)
        return True


def listen(out: zmq.Socket[bytes], config: ZmqConfig) -> None:
    """Set a socket's bounds, and bind it.

    Raises
    ------
    zmq.ZMQError
        If the endpoint cannot be bound.
    """
    out.set(zmq.LINGER, _LINGER_MS)
    out.set(zmq.SNDHWM, config.high_water_mark)
    out.set(zmq.RCVHWM, _REQUESTS_A_TURN)
    out.set(zmq.MAXMSGSIZE, _MESSAGE_BYTES)
    out.set(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
    out.set(zmq.TCP_KEEPALIVE, 1)
    out.set(zmq.TCP_KEEPALIVE_IDLE, _KEEPALIVE_S)
    out.set(zmq.TCP_KEEPALIVE_INTVL, _KEEPALIVE_S // 3)
    out.set(zmq.TCP_KEEPALIVE_CNT, 3)
    # Every subscription and its end is told, also a second one to the same topic.
    out.set(zmq.XPUB_VERBOSER, 1)
    out.set(zmq.IPV6, int(config.bind.startswith("tcp://[")))
    out.bind(config.bind)


def _told(frame: zmq.Frame, about: str | int) -> str | int | None:
    """Return what ZeroMQ tells of the connection that a message came by; None for what came by none."""
    try:
        told: str | int = frame.get(about)
    except zmq.ZMQError:
        return None
    return told
