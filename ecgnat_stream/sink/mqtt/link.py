"""Connections to an MQTT broker, each with one last will, made again for ever whenever they are lost.

In comes what to do with a connection; a broker that cannot be reached, refuses or leaves is reported and tried again after a
jittered wait. MQTT 5, or 3.1.1 where the broker knows no other.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import aiomqtt
import msgspec
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from ecgnat_stream import wire
from ecgnat_stream.clock import Clock
from ecgnat_stream.sink.mqtt.config import BrokerAccess, MqttConfig

__all__ = ["STATES_IN_FLIGHT", "BedLink", "Link", "Message", "publish", "subscribe"]

# What the client library would log is told by the technical condition; on a terminal it would break the dashboard.
_client_log = logging.getLogger(f"{__name__}.client")
_client_log.setLevel(logging.CRITICAL)

_UNSUPPORTED_PROTOCOL = 132  # MQTT 5, table 3-1; paho gives it for the 3.1.1 return code 1 as well
STATES_IN_FLIGHT = 16
"""Messages that may wait for their acknowledgement at the same time."""


@dataclass(frozen=True, slots=True)
class Message:
    """What to publish; correlation data and expiry only with MQTT 5."""

    topic: str
    payload: bytes
    correlation: bytes | None = None
    expiry_s: int | None = None


class _Lost(Exception):  # noqa: N818 - not an error: the state of a link
    """No connection, and why."""

    def __init__(self, reason: str, *, other_protocol: bool = False) -> None:
        super().__init__(reason)
        self.other_protocol = other_protocol


class Link:
    """One connection with one last will, made again whenever it is lost or ``serve`` returns.

    Parameters
    ----------
    will
        Returns the message for the broker to publish, retained, when this connection breaks; also our farewell.
    serve
        Called with every new client; returns to have a new connection with a fresh will.
    report
        Called with the reason when there is no connection, with None when there is.
    """

    def __init__(
        self,
        client_id: str,
        to: BrokerAccess,
        config: MqttConfig,
        clock: Clock,
        will: Callable[[], Message],
        serve: Callable[[aiomqtt.Client, bool], Awaitable[None]],
        report: Callable[[str | None], None],
    ) -> None:
        self._id, self._to, self._config, self._clock = client_id, to, config, clock
        self._will, self._serve, self._report = will, serve, report
        self._v5 = config.protocol != "3.1.1" and not config.embedded
        self._asked_version = config.protocol != "auto" or config.embedded
        self.ended = False

    async def run(self) -> None:
        """Stay connected until cancelled; then say farewell and disconnect."""
        wait_s = self._config.backoff_first_s
        while not self.ended:
            lost = await self._once()
            if lost is None:
                wait_s = self._config.backoff_first_s
                continue
            if lost.other_protocol and not self._asked_version:
                self._v5, self._asked_version = False, True
                continue
            self._report(str(lost))
            pause_s = wait_s * (1 - 0.5 * random.random())
            wait_s = min(2 * wait_s, self._config.backoff_max_s)
            await self._clock.sleep_until(self._clock.monotonic_ns() + round(pause_s * 1e9))

    async def _once(self) -> _Lost | None:
        lost: _Lost | None = None
        try:
            if not self._asked_version:
                # Without a will: a 3.1.1 broker that misreads the properties of one waits for more instead of refusing.
                async with _entered(self._client(None)):
                    self._asked_version = True
            async with _entered(self._client(self._will())) as client:
                self._report(None)
                try:
                    await self._serve(client, self._v5)
                except asyncio.CancelledError:
                    with suppress(aiomqtt.MqttError, TimeoutError):
                        async with asyncio.timeout(self._config.linger_s):
                            await publish(client, self._will(), self._v5, retain=True)
                    raise
        except* aiomqtt.MqttError as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            code = getattr(getattr(error, "rc", None), "value", None)
            lost = _Lost(f"{self._to.host}:{self._to.port}: {error}", other_protocol=code == _UNSUPPORTED_PROTOCOL)
        return lost

    def _client(self, will: Message | None) -> aiomqtt.Client:
        client = aiomqtt.Client(
            self._to.host,
            self._to.port,
            username=self._to.username,
            password=self._to.password,
            logger=_client_log,
            identifier=self._id,
            protocol=aiomqtt.ProtocolVersion.V5 if self._v5 else aiomqtt.ProtocolVersion.V311,
            will=aiomqtt.Will(will.topic, will.payload, qos=1, retain=True) if will else None,
            clean_session=None if self._v5 else True,
            timeout=self._config.timeout_s,
            keepalive=self._config.keepalive_s,
            max_queued_incoming_messages=1000,
            tls_params=self._to.tls,
        )
        client.pending_calls_threshold = 2 * STATES_IN_FLIGHT
        return client


@asynccontextmanager
async def _entered(client: aiomqtt.Client) -> AsyncIterator[aiomqtt.Client]:
    """Connect and disconnect; a cancellation waits for the connecting thread, so that no socket stays behind."""
    entering = asyncio.ensure_future(client.__aenter__())
    try:
        await asyncio.shield(entering)
    except asyncio.CancelledError:
        with suppress(aiomqtt.MqttError):
            await entering
            await client.__aexit__(None, None, None)
        raise
    try:
        yield client
    finally:
        with suppress(aiomqtt.MqttError):
            await client.__aexit__(None, None, None)


async def publish(client: aiomqtt.Client, message: Message, v5: bool, *, qos: int = 1, retain: bool = False) -> None:
    """Publish a message; with MQTT 5 with its correlation data and expiry. Waits for the acknowledgement if ``qos`` is 1."""
    properties = None
    if v5 and (message.correlation is not None or message.expiry_s is not None):
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if message.correlation is not None:
            properties.CorrelationData = message.correlation
        if message.expiry_s is not None:
            properties.MessageExpiryInterval = message.expiry_s
    await client.publish(message.topic, message.payload, qos=qos, retain=retain, properties=properties)
    _heed_cancellation()


async def subscribe(client: aiomqtt.Client, topics: list[str]) -> None:
    """Subscribe to topics with quality of service 1 and wait for the acknowledgement."""
    await client.subscribe([(topic, 1) for topic in topics])
    _heed_cancellation()


def _heed_cancellation() -> None:
    """Raise what may have been lost: before Python 3.12, wait_for swallows a cancellation that meets its result."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class BedLink:
    """Publishes one bed's status on a connection of its own, whose last will is that the bed is offline."""

    def __init__(self, status: wire.BedStatus) -> None:
        self.status = status
        self._changed = asyncio.Event()

    def update(self, status: wire.BedStatus) -> None:
        """Publish a new status."""
        self.status = status
        self._changed.set()

    def will(self) -> Message:
        """Return the status of a bed whose monitor is gone."""
        gone = msgspec.structs.replace(self.status, online=False, state="offline", detail="the monitor is gone")
        return Message(wire.topic(gone), wire.encode_json(gone))

    async def serve(self, client: aiomqtt.Client, v5: bool) -> None:
        """Publish what changes; return when the will no longer fits the session."""
        session = self.status.session

        async def send() -> None:
            while self.status.session == session:
                self._changed.clear()
                await publish(client, Message(wire.topic(self.status), wire.encode_json(self.status)), v5, retain=True)
                await self._changed.wait()
            watch.cancel()

        async def watch_connection() -> None:
            async for _ in client.messages:
                pass

        async with asyncio.TaskGroup() as group:
            watch = group.create_task(watch_connection())
            group.create_task(send())
