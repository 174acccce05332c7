"""A broker in the same process, so that the demo and the tests need none: amqtt, MQTT 3.1.1, on loopback.

No accounts, no encryption, nothing kept on disk; for real use there is mosquitto.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

from ecgnat_stream.errors import SinkError
from ecgnat_stream.places import Address

with warnings.catch_warnings():
    # amqtt's account plugins, which are not used here, import the standard library's deprecated crypt.
    warnings.simplefilter("ignore", DeprecationWarning)
    from amqtt.broker import Broker
    from amqtt.errors import BrokerError
    from amqtt.plugins import authentication  # noqa: F401 - imported while its warning is off
    from amqtt.session import Session

__all__ = ["EmbeddedBroker", "free_port"]

# amqtt logs clients that leave and the like as warnings and errors, with stack traces; on a terminal that hides the dashboard.
for _name in ("amqtt", "transitions"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


_log = logging.getLogger(__name__)


class _Stable(dict[Any, Any]):
    """A dict that may change while one iterates over it."""

    def __iter__(self) -> Iterator[Any]:
        return iter(list(super().__iter__()))

    def items(self) -> Any:
        return list(super().items())


class _Broker(Broker):  # type: ignore[misc]
    """amqtt's broker, mended.

    On shutdown it forgets some of its connections: those of clients that were just coming or going, and it is itself cancelled
    with the messages that a client has left unacknowledged. And it sends a new client the retained messages of everybody's
    subscriptions.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._writers: WeakSet[asyncio.StreamWriter] = WeakSet()

    async def stream_connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str) -> None:
        self._writers.add(writer)
        await super().stream_connected(reader, writer, listener_name)

    async def _publish_retained_messages_for_subscription(self, subscription: tuple[str, int], session: Session) -> None:
        if any(owner.client_id == session.client_id for owner, _ in self._subscriptions.get(subscription[0], ())):
            await super()._publish_retained_messages_for_subscription(subscription, session)

    async def _shutdown_broadcast_loop(self) -> None:
        ending = asyncio.ensure_future(super()._shutdown_broadcast_loop())
        await asyncio.wait((ending,))
        if not ending.cancelled():
            ending.result()

    async def shutdown(self) -> None:
        await super().shutdown()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)


class EmbeddedBroker:
    """An MQTT 3.1.1 broker while the context lasts.

    Parameters
    ----------
    host
        Address to listen at.
    port
        0 takes a free one, which is then in ``port``.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self.port = port
        self._broker: _Broker | None = None

    @property
    def url(self) -> str:
        """Where clients find it."""
        return str(Address("mqtt", None, None, self.host, self.port))

    async def __aenter__(self) -> Self:
        """Start listening.

        Raises
        ------
        SinkError
            If the port is in use.
        """
        self.port = self.port or free_port(self.host)
        broker = _Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{self.host}:{self.port}"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        # amqtt goes through it with awaits in between while clients come and go, and would leave a new client unserved.
        broker._subscriptions = _Stable(broker._subscriptions)
        try:
            await broker.start()
        except BrokerError as error:
            raise SinkError(
                f"the embedded broker cannot listen at {self.host}:{self.port}: {error}; choose another port"
            ) from error
        self._broker = broker
        _log.info("the embedded broker listens at %s", self.url)
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Drop every client and stop listening."""
        if self._broker is not None:
            await self._broker.shutdown()
            self._broker = None


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody listens at now."""
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        return int(probe.getsockname()[1])
