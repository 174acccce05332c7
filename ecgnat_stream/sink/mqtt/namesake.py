"""Another monitor that runs under our name: noticed, and said as a technical alarm, by both."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import aiomqtt

from ecgnat_stream import wire
from ecgnat_stream.clock import Clock
from ecgnat_stream.errors import FrameError
from ecgnat_stream.events import EngineStatus, Technical
from ecgnat_stream.sink.mqtt.claims import GONE_S
from ecgnat_stream.sink.mqtt.config import BrokerAccess

__all__ = ["Namesake"]

_OURS = 64
"""So many of our own statuses are known again when the broker sends them back."""


class Namesake:
    """Watches the topic of our own status for what we did not say.

    Parameters
    ----------
    name
        ``site/worker``.
    publish
        Takes the technical events ``name-taken``.
    again
        Called when our status has to be said again, for the other one to hear or since it has said that we are gone.
    """

    def __init__(
        self, name: str, broker: BrokerAccess, clock: Clock, publish: Callable[[Technical], None], again: Callable[[], None]
    ) -> None:
        self._name, self._broker, self._clock, self._publish, self._again = name, broker, clock, publish, again
        self._ours: deque[bytes] = deque(maxlen=_OURS)
        self._sign_ns: int | None = None
        self._connections = 0

    def connected(self) -> None:
        """Note a new connection: a retained status is from before it."""
        self._connections += 1

    def said(self, payload: bytes) -> None:
        """Note a status of ours, or a last will."""
        self._ours.append(payload)

    def heard(self, message: aiomqtt.Message) -> EngineStatus | None:
        """Return a status that the broker sends, if another monitor of our name has said it.

        A retained one on our first connection, or a late last will, is that of a monitor before us. On a later connection,
        whatever we did not say is of somebody else. Where ours is not what the broker has now, it is said again.
        """
        payload = message.payload
        if not isinstance(payload, bytes) or (message.retain and self._connections < 2):
            return None
        try:
            status = wire.decode_json(payload) if payload else None
        except FrameError:
            return None
        if status is not None and not isinstance(status, EngineStatus):
            return None
        if not message.retain and (status is None or not status.online):
            self._again()
        if status is None or payload in self._ours:
            return None
        if status.online or message.retain:
            self._sign("it publishes a status of the same name")
        return status

    def took_ours(self) -> None:
        """Note that another client has come to the broker with our identifier."""
        self._sign("another client has taken over our connection")

    def tick(self) -> None:
        """End the alarm when the other monitor gives no sign any more."""
        if self._sign_ns is not None and self._clock.monotonic_ns() - self._sign_ns > GONE_S * 1e9:
            self._sign_ns = None
            self._tell("", present=False)

    def _sign(self, why: str) -> None:
        first = self._sign_ns is None
        self._sign_ns = self._clock.monotonic_ns()
        if first:
            self._again()
            where = f"{self._broker.host}:{self._broker.port}"
            self._tell(f"{self._name} at {where}: {why}; give every monitor a worker name of its own", present=True)

    def _tell(self, detail: str, *, present: bool) -> None:
        self._publish(Technical(bed="", time=self._clock.utc(), condition="name-taken", present=present, detail=detail))
