"""Who is connected to the publisher, and who is sent away: too many connections, messages, bytes or subscriptions in a time.

ZeroMQ has no way to hang up on a peer. But it tells the descriptor of every connection that it takes and that a message came
by, and what is shut down there it clears away by itself. A thread of its own looks, so that it can also end what holds the thread
that sends. A connection is known by the inode of its socket: descriptors are used again, inodes are not.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Container

import zmq
from zmq.utils.monitor import recv_monitor_message

__all__ = ["Allowance", "Door", "Peer"]

_LOOK_MS = 100
_KEYS_S = 1.0
_EVENTS = 64

_CONNECTIONS, _CONNECTIONS_PER_S = 64.0, 4.0
_AFTER_FLOOD = 16.0
"""Connections of one address: a burst, then so many a second (libzmq comes back ten times a second when it is hung up on). One
that floods counts as sixteen."""

_BYTES, _BYTES_PER_S = 262_144.0, 16_384.0
"""What a connection may send: its handshake and a thousand subscriptions are less than 100 kB."""

_MESSAGES, _MESSAGES_PER_S = 4_000.0, 100.0
_SUBSCRIPTIONS, _PREFIX, _PREFIXES = 2_000, 512, 65_536
"""Subscriptions of one connection, bytes of each, and of all: libzmq takes some 90 bytes of memory for each byte of them."""

_ADDRESSES = 1_024
_KEY_GONE = "its key has been taken away"
_TOLD_AGAIN_S = 10.0
_TOLD, _TOLD_PER_S = 5.0, 0.2

_TCP_INFO_RECEIVED = 128
"""Offset of ``tcpi_bytes_received`` in Linux's ``struct tcp_info`` (linux/tcp.h, since 4.1)."""


class Allowance:
    """So much at once, and so much a second (a token bucket).

    Parameters
    ----------
    most
        What may be taken at once.
    per_s
        What comes back in a second.
    """

    def __init__(self, most: float, per_s: float) -> None:
        self._most, self._per_s = most, per_s
        self._left = most
        self._at_s: float | None = None

    def take(self, amount: float, now_s: float) -> bool:
        """Take an amount; return False, and take nothing, where less is left."""
        if self._at_s is not None:
            self._left = min(self._most, self._left + self._per_s * (now_s - self._at_s))
        self._at_s = now_s
        if amount > self._left:
            return False
        self._left -= amount
        return True

    def drain(self, amount: float) -> None:
        """Take an amount even where less is left."""
        self._left -= amount

    def widen(self, most: float) -> None:
        """Let more be taken at once, and a tenth of it come back each second."""
        if most > self._most:
            self._left += most - self._most
            self._most, self._per_s = most, most / 10


class Peer:
    """One connection."""

    def __init__(self, fd: int, inode: int, host: str) -> None:
        self.fd, self.inode, self.host = fd, inode, host
        self.gone = False
        self.key = b""
        self.received = 0
        self.subscriptions: set[bytes] = set()
        self.prefixes = 0
        self.messages = Allowance(_MESSAGES, _MESSAGES_PER_S)
        self.bytes = Allowance(_BYTES, _BYTES_PER_S)
        self.greetings = Allowance(0.0, 0.0)


class Door:
    """Counts the connections of a socket, and ends those that ask for too much.

    Parameters
    ----------
    most
        Connections at the same time; half of them from one address.
    tell
        Called with a sentence for whoever is sent away; at most a few times in a minute, the rest are counted.
    now
        Monotonic seconds.
    known
        The keys (Z85) that are let in; None without a list.
    """

    def __init__(
        self,
        most: int,
        tell: Callable[[str], None],
        now: Callable[[], float],
        known: Container[bytes] | None = None,
    ) -> None:
        self._most, self._tell, self._now, self._known = most, tell, now, known
        self._lock = threading.RLock()
        self._peers: dict[int, Peer] = {}
        self._addresses: OrderedDict[str, Allowance] = OrderedDict()
        self._told: OrderedDict[str, float] = OrderedDict()
        self._telling = Allowance(_TOLD, _TOLD_PER_S)
        self._untold = 0
        self._place: str | int = 0
        self._stopped = threading.Event()

    def __len__(self) -> int:
        """Return how many connections there are."""
        return len(self._peers)

    def watch(self, monitor: zmq.Socket[bytes], refresh: Callable[[], None] | None) -> None:
        """Look until :meth:`stop`; runs in a thread of its own.

        Parameters
        ----------
        monitor
            Where ZeroMQ tells of connections.
        refresh
            Reads the keys again; called about once a second, and whose key has gone is sent away.
        """
        look_s, refresh_s = 0.0, 0.0
        while not self._stopped.is_set():
            if monitor.poll(_LOOK_MS):
                for _ in range(_EVENTS):
                    event = recv_monitor_message(monitor)
                    if event["event"] == zmq.EVENT_ACCEPTED:
                        self.who(int(event["value"]))
                    if not monitor.poll(0):
                        break
            now_s = time.monotonic()
            if now_s >= look_s:
                self._look()
                look_s = now_s + _LOOK_MS / 1000
            if refresh is not None and now_s >= refresh_s:
                refresh()
                self._send_strangers_away()
                refresh_s = now_s + _KEYS_S

    def opened(self, endpoint: str) -> None:
        """Note where the socket is bound: only connections to there are ours to end."""
        transport, _, address = endpoint.partition("://")
        port = address.rpartition(":")[2]
        self._place = int(port) if transport == "tcp" and port.isdecimal() else address

    def stop(self) -> None:
        """End :meth:`watch`."""
        self._stopped.set()

    def who(self, fd: int) -> Peer | None:
        """Return the connection behind a descriptor; None if it has gone or is sent away now."""
        with self._lock:
            inode = _inode(fd)
            peer = self._peers.get(fd)
            if peer is not None and peer.inode == inode:
                return peer
            if peer is not None:
                self._forget(peer)
            # The message may be late, and its descriptor by now a file of ours, or the way to the broker.
            peer = _connection(fd, self._place)
            return None if peer is None else self._admit(peer)

    def count(self, peer: Peer, message: bytes, key: bytes) -> bytes | None:
        """Count a message that a peer has sent; return the prefix of a subscription that is new to us.

        Parameters
        ----------
        key
            The peer's public key (Z85); empty without CURVE.
        """
        peer.key = key
        kind, prefix = message[:1], message[1:]
        with self._lock:
            return self._count(peer, kind, prefix)

    def _count(self, peer: Peer, kind: bytes, prefix: bytes) -> bytes | None:
        if peer.gone:
            return None
        if self._is_stranger(peer):
            self.send_away(peer, _KEY_GONE, flood=False)
        elif not peer.messages.take(1, self._now()):
            self.send_away(peer, f"more than {_MESSAGES:.0f} messages in a short time")
        elif len(prefix) > _PREFIX:
            self.send_away(peer, f"a subscription of {len(prefix)} bytes; {_PREFIX} are the most")
        elif kind == b"\x00" and prefix in peer.subscriptions:
            peer.subscriptions.remove(prefix)
            peer.prefixes -= len(prefix)
        elif kind == b"\x01" and prefix not in peer.subscriptions:
            peer.subscriptions.add(prefix)
            peer.prefixes += len(prefix)
            if len(peer.subscriptions) <= _SUBSCRIPTIONS and peer.prefixes <= _PREFIXES:
                return prefix
            self.send_away(peer, f"more than {_SUBSCRIPTIONS} subscriptions, or than {_PREFIXES} bytes of them")
        return None

    def send_away(self, peer: Peer, why: str, *, flood: bool = True) -> None:
        """Hang up on a peer, and say so."""
        with self._lock:
            if peer.gone:
                return
            if flood:
                self._allowance(peer.host).drain(_AFTER_FLOOD)
            _hang_up(peer)
            self._forget(peer)
            self._say(peer.host, why)

    def _is_stranger(self, peer: Peer) -> bool:
        return bool(peer.key) and self._known is not None and peer.key not in self._known

    def _admit(self, peer: Peer) -> Peer | None:
        same = sum(other.host == peer.host for other in self._peers.values())
        if len(self._peers) >= self._most:
            why = f"more than {self._most} connections"
        elif same >= max(1, self._most // 2):
            why = f"more than {max(1, self._most // 2)} connections from one address"
        elif not self._allowance(peer.host).take(1, self._now()):
            why = "connects too often"
        else:
            self._peers[peer.fd] = peer
            return peer
        _hang_up(peer)
        peer.gone = True
        self._say(peer.host, why)
        return None

    def _allowance(self, host: str) -> Allowance:
        found = self._addresses.setdefault(host, Allowance(_CONNECTIONS, _CONNECTIONS_PER_S))
        self._addresses.move_to_end(host)
        if len(self._addresses) > _ADDRESSES:
            self._addresses.popitem(last=False)
        return found

    def _look(self) -> None:
        """Forget who has gone, and send away who sends too much."""
        with self._lock:
            for peer in list(self._peers.values()):
                if _inode(peer.fd) != peer.inode:
                    self._forget(peer)
                    continue
                received = _received(peer.fd)
                new, peer.received = max(0, received - peer.received), received
                if new and not peer.bytes.take(new, self._now()):
                    self.send_away(peer, f"{new} bytes within a moment")

    def _send_strangers_away(self) -> None:
        with self._lock:
            for peer in list(self._peers.values()):
                if self._is_stranger(peer):
                    self.send_away(peer, _KEY_GONE, flood=False)

    def _forget(self, peer: Peer) -> None:
        peer.gone = True
        if self._peers.get(peer.fd) is peer:
            del self._peers[peer.fd]

    def _say(self, host: str, why: str) -> None:
        now_s = self._now()
        if now_s - self._told.get(host, float("-inf")) < _TOLD_AGAIN_S or not self._telling.take(1, now_s):
            self._untold += 1
            return
        self._told[host] = now_s
        self._told.move_to_end(host)
        if len(self._told) > _ADDRESSES:
            self._told.popitem(last=False)
        others, self._untold = (f" (and {self._untold} more before)" if self._untold else ""), 0
        self._tell(f"{host} was disconnected: {why}{others}")


def _inode(fd: int) -> int | None:
    try:
        return os.fstat(fd).st_ino
    except OSError:
        return None


def _duplicate(fd: int) -> socket.socket | None:
    """Return a socket on a descriptor that is ZeroMQ's; closing it leaves ZeroMQ's open."""
    try:
        copy = os.dup(fd)
    except OSError:
        return None
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None


def _connection(fd: int, place: str | int) -> Peer | None:
    """Return the connection behind a descriptor, if it is one to our own port or path."""
    copy = _duplicate(fd)
    if copy is None:
        return None
    with copy:
        try:
            here = copy.getsockname()
            if (here if copy.family == socket.AF_UNIX else here[1]) != place:
                return None
            return Peer(fd, os.fstat(copy.fileno()).st_ino, _host(copy))
        except (OSError, IndexError):
            return None


def _host(connection: socket.socket) -> str:
    """Return where a connection comes from: an address, or the process and account of this machine."""
    if connection.family != socket.AF_UNIX:
        return str(connection.getpeername()[0])
    if not hasattr(socket, "SO_PEERCRED"):
        return "somebody on this machine"
    process, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return f"process {process} of account {user}"


def _received(fd: int) -> int:
    """Return how many bytes a connection has sent us since it began; 0 where the system does not tell."""
    copy = _duplicate(fd)
    if copy is None:
        return 0
    with copy:
        try:
            about = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_RECEIVED + 8)
        except (OSError, AttributeError):
            return 0
    return int(struct.unpack_from("=Q", about, _TCP_INFO_RECEIVED)[0]) if len(about) >= _TCP_INFO_RECEIVED + 8 else 0


def _hang_up(peer: Peer) -> None:
    """Shut a connection down; nothing happens if its descriptor is already another one's."""
    copy = _duplicate(peer.fd)
    if copy is None:
        return
    with copy:
        if _inode(copy.fileno()) == peer.inode:
            try:
                copy.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it has gone by itself
