"""One connection to a broker: aiomqtt's client, connected in a thread of its own, that tells what the broker answers.

aiomqtt connects in the executor that everybody shares, and passes over the codes with which an MQTT 5 broker refuses a message.
Here a name that is not found or a broker that does not answer holds nobody up, and every refusal has its code.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiomqtt
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from ecgnat_stream.sink.mqtt.config import BrokerAccess, MqttConfig
from ecgnat_stream.sink.mqtt.tls import tls_context

__all__ = ["NOBODY", "REFUSED", "SESSION_TAKEN_OVER", "UNSUPPORTED_PROTOCOL", "Client", "Message", "code_of", "reason"]

# What the client library would log is told by the technical condition; on a terminal it would break the dashboard.
_log = logging.getLogger(__name__)
_log.setLevel(logging.CRITICAL)

REFUSED = 0x80
"""Reason codes from here on are refusals (MQTT 5, 2.4)."""

NOBODY = 0x10
"""Taken, but nobody has subscribed to it."""

SESSION_TAKEN_OVER = 0x8E
UNSUPPORTED_PROTOCOL = 0x84  # paho gives it for the 3.1.1 return code 1 as well

_INCOMING_BYTES = 65_536
"""Largest packet that a broker may send us (MQTT 5)."""

_INCOMING = 1000
"""Messages from the broker that may wait for us; more are dropped."""

_TCP_S = 3.0
"""Longest wait for one address, s: a broker that comes back must not wait for an attempt that was lost with it."""

_FAREWELL_S = 1.0
"""Longest time to disconnect, s."""

_threads = threading.BoundedSemaphore(8)
"""Attempts to connect at the same time; one that waits for a name service cannot be ended, only left behind."""


@dataclass(frozen=True, slots=True)
class Message:
    """What to publish; correlation data, expiry and response topic only with MQTT 5."""

    topic: str
    payload: bytes
    correlation: bytes | None = None
    expiry_s: int | None = None
    response: str | None = None


class Client(aiomqtt.Client):
    """A connection, while the context lasts.

    Parameters
    ----------
    v5
        MQTT 5, or 3.1.1.
    plain
        Greet without properties: a 3.1.1 broker that misreads them waits for more instead of refusing.

    Attributes
    ----------
    receive_maximum
        Messages that may wait for their acknowledgement; 65535 unless the broker says less.
    maximum_packet
        Longest message that the broker takes, bytes.
    """

    def __init__(
        self,
        config: MqttConfig,
        to: BrokerAccess,
        identifier: str,
        v5: bool,
        will: aiomqtt.Will | None = None,
        *,
        plain: bool = False,
    ) -> None:
        properties = None
        if v5 and not plain:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = _INCOMING_BYTES
        super().__init__(
            to.host,
            to.port,
            username=to.username,
            password=to.password,
            logger=_log,
            identifier=identifier,
            protocol=aiomqtt.ProtocolVersion.V5 if v5 else aiomqtt.ProtocolVersion.V311,
            will=will,
            clean_session=None if v5 else True,
            timeout=config.timeout_s,
            keepalive=config.keepalive_s,
            max_queued_incoming_messages=_INCOMING,
            max_inflight_messages=0,  # who sends keeps to receive_maximum
            properties=properties,
        )
        self.v5 = v5
        self.receive_maximum, self.maximum_packet = 65_535, 268_435_455
        self._to = to
        self._acknowledgements: dict[int, tuple[float, asyncio.Future[int]]] = {}

    @property
    def in_flight(self) -> int:
        """Messages that wait for their acknowledgement."""
        return len(self._acknowledgements)

    async def __aenter__(self) -> Self:
        """Connect.

        Raises
        ------
        aiomqtt.MqttError
            If the broker cannot be reached, does not answer within the time limit, or refuses.
        """
        try:
            connected = await _socket(self._to, self.timeout)
        except OSError as error:
            raise aiomqtt.MqttError(str(error)) from None
        self._client._create_socket = lambda: connected  # type: ignore[method-assign]
        try:
            self._client.connect(
                self._hostname, self._port, self._keepalive, clean_start=self._clean_start, properties=self._properties
            )
            both = (self._connected, self._disconnected)
            await asyncio.wait(both, timeout=self.timeout, return_when=asyncio.FIRST_COMPLETED)
            if self._connected.done():
                self._connected.result()  # raises the broker's refusal
            if self._disconnected.done():
                raise self._failure()
            if not self._connected.done():
                raise aiomqtt.MqttError(f"no answer to the greeting within {self.timeout:g} s")
        except BaseException as error:
            self._drop()
            if isinstance(error, OSError):
                raise aiomqtt.MqttError(str(error)) from None
            raise
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Disconnect, if need be without the broker's consent."""
        try:
            if not self._disconnected.done() and self._client.disconnect() == MQTTErrorCode.MQTT_ERR_SUCCESS:
                await asyncio.wait((self._disconnected,), timeout=_FAREWELL_S)
        finally:
            self._drop()

    def post(self, message: Message, *, qos: int = 1, retain: bool = False) -> asyncio.Future[int]:
        """Hand a message over without waiting.

        Returns
        -------
        asyncio.Future
            The broker's reason code once it has acknowledged (0 if it gives none); with ``qos`` 0, 0 once it is on its way.
            Cancelled when the connection ends before that.

        Raises
        ------
        aiomqtt.MqttError
            If there is no connection.
        """
        properties = None
        if self.v5 and any(part is not None for part in (message.correlation, message.expiry_s, message.response)):
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            if message.correlation is not None:
                properties.CorrelationData = message.correlation
            if message.expiry_s is not None:
                properties.MessageExpiryInterval = message.expiry_s
            if message.response is not None:
                properties.ResponseTopic = message.response
        acknowledgement: asyncio.Future[int] = self._loop.create_future()
        if len(message.payload) + len(message.topic) + 64 > self.maximum_packet:
            acknowledgement.set_result(0x95)  # as a broker would say that a packet is too large
            return acknowledgement
        info = self._client.publish(message.topic, message.payload, qos, retain, properties)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS or self._disconnected.done():
            raise self._failure()
        self._acknowledgements[info.mid] = (self._loop.time(), acknowledgement)
        return acknowledgement

    async def send(self, message: Message, *, qos: int = 1, retain: bool = False) -> int:
        """Publish a message and return the broker's reason code.

        Raises
        ------
        aiomqtt.MqttError
            If there is no connection, or no answer within the time limit.
        """
        posted = self.post(message, qos=qos, retain=retain)
        await asyncio.wait((posted, self._disconnected), timeout=self.timeout, return_when=asyncio.FIRST_COMPLETED)
        if posted.done() and not posted.cancelled():
            return posted.result()
        raise self._failure() if self._disconnected.done() else self.overdue()

    async def ask(self, topics: Sequence[str]) -> list[int]:
        """Subscribe to topics with quality of service 1 and return the broker's reason codes.

        Raises
        ------
        aiomqtt.MqttError
            As :meth:`send`.
        """
        result, mid = self._client.subscribe([(topic, 1) for topic in topics])
        if result != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            raise self._failure()
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._pending_subscribes[mid] = answer
        await asyncio.wait((answer, self._disconnected), timeout=self.timeout, return_when=asyncio.FIRST_COMPLETED)
        self._pending_subscribes.pop(mid, None)
        if not answer.done():
            raise self._failure() if self._disconnected.done() else self.overdue()
        return [getattr(code, "value", code) for code in answer.result()]

    def owes_s(self) -> float:
        """Return how long the oldest message has waited for its acknowledgement, s."""
        return self._loop.time() - next(iter(self._acknowledgements.values()))[0] if self._acknowledgements else 0.0

    def overdue(self) -> aiomqtt.MqttError:
        """Return the error of a broker that does not acknowledge."""
        return aiomqtt.MqttError(f"no acknowledgement within {self.timeout:g} s")

    def _failure(self) -> aiomqtt.MqttError:
        error = self._disconnected.exception() if self._disconnected.done() else None
        return error if isinstance(error, aiomqtt.MqttError) else aiomqtt.MqttError(f"the connection is lost: {error}")

    def _drop(self) -> None:
        self._client._sock_close()
        for _, acknowledgement in self._acknowledgements.values():
            acknowledgement.cancel()
        self._acknowledgements.clear()
        for future in (self._connected, self._disconnected):
            if future.done() and not future.cancelled():
                future.exception()  # looked at, so that asyncio does not print it

    # What paho calls.

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None) -> None:
        self.receive_maximum = getattr(properties, "ReceiveMaximum", self.receive_maximum)
        self.maximum_packet = getattr(properties, "MaximumPacketSize", self.maximum_packet)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None) -> None:
        if self._disconnected.done():
            return
        if reason_code == 0 and not getattr(flags, "is_disconnect_packet_from_server", False):
            self._disconnected.set_result(None)
            return
        self._disconnected.set_exception(_Left(self._why(flags, reason_code), reason_code))

    def _why(self, flags: Any, reason_code: ReasonCode) -> str:
        alert = getattr(self._client.socket(), "alert", "") or getattr(self, "_alert", "")
        if alert:
            return f"the broker has ended the TLS connection: {alert}"
        if getattr(flags, "is_disconnect_packet_from_server", False):
            return f"the broker has ended the connection: {reason(reason_code.value)}"
        if reason_code.value == 0x8D:
            return "the broker does not answer any more"
        if self._connected.done():
            return "the connection is lost"
        no_certificate = self._to.tls is not None and self._to.tls.certfile is None
        hint = ": does it ask for a client certificate (cert_file, key_file)?" if no_certificate else ""
        return f"the broker has closed the connection before it answered{hint}"

    def _on_socket_close(self, client: Any, userdata: Any, sock: Any) -> None:
        self._alert = getattr(sock, "alert", "")
        super()._on_socket_close(client, userdata, sock)

    def _on_socket_register_write(self, client: Any, userdata: Any, sock: Any) -> None:
        # At once: aiomqtt leaves it to the loop, and may then watch the number of a socket that is closed, or another's.
        def write() -> None:
            try:
                client.loop_write()
            except Exception as error:  # noqa: BLE001 - as in aiomqtt: the connection is broken
                if not self._disconnected.done():
                    self._disconnected.set_exception(error)

        self._loop.add_writer(sock.fileno(), write)

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any) -> None:
        _, acknowledgement = self._acknowledgements.pop(mid, (0.0, None))
        if acknowledgement is not None and not acknowledgement.done():
            acknowledgement.set_result(reason_code.value)
        super()._on_publish(client, userdata, mid, reason_code, properties)


class _Left(aiomqtt.MqttCodeError):
    """The broker has ended the connection; with its reason code."""

    def __init__(self, why: str, code: ReasonCode) -> None:
        super().__init__(code)
        self._text = why

    def __str__(self) -> str:
        return self._text


def code_of(error: BaseException) -> int | None:
    """Return the reason code that a broker gave with an error, if any."""
    code = getattr(error, "rc", None)
    return code if isinstance(code, int) else getattr(code, "value", None)


def reason(code: int) -> str:
    """Return a reason code as a person reads it: its name in the standard, and its number."""
    for kind in (PacketTypes.PUBACK, PacketTypes.SUBACK, PacketTypes.DISCONNECT, PacketTypes.CONNACK):
        with suppress(KeyError, ValueError):
            return f"{ReasonCode(kind, identifier=code).getName()} (0x{code:02x})"
    return f"reason 0x{code:02x}"


class _TlsSocket(ssl.SSLSocket):
    """Keeps what the other side said when it broke off: with TLS 1.3 a refused certificate is told after the handshake."""

    alert = ""

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        try:
            return super().recv(buflen, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self.alert = (error.reason or str(error)).replace("_", " ").lower()
            raise


async def _socket(to: BrokerAccess, timeout_s: float) -> socket.socket:
    """Return a connected socket; raises OSError. The thread that connects is left behind when it takes too long."""
    if not _threads.acquire(blocking=False):
        raise OSError("earlier attempts to connect still wait for the name service or the network")
    loop = asyncio.get_running_loop()
    made: asyncio.Future[socket.socket] = loop.create_future()

    def hand_over(outcome: socket.socket | Exception) -> None:
        if isinstance(outcome, Exception):
            if not made.done():
                made.set_exception(outcome)
        elif made.done():
            outcome.close()
        else:
            made.set_result(outcome)

    def connect() -> None:
        outcome: socket.socket | Exception
        try:
            outcome = _connected(to, timeout_s)
        except Exception as error:  # noqa: BLE001 - the thread's border: handed over to who waits
            outcome = error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}")
        finally:
            _threads.release()
        try:
            loop.call_soon_threadsafe(hand_over, outcome)
        except RuntimeError:  # the loop has ended
            if isinstance(outcome, socket.socket):
                outcome.close()

    try:
        threading.Thread(target=connect, name="mqtt connect", daemon=True).start()
    except RuntimeError as error:  # the machine has no thread left
        _threads.release()
        raise OSError(str(error)) from None
    try:
        async with asyncio.timeout(timeout_s):
            return await made
    except BaseException as error:
        if made.done() and not made.cancelled() and made.exception() is None:
            made.result().close()  # it came at the moment of the cancellation
        if isinstance(error, TimeoutError):
            raise OSError(f"no connection within {timeout_s:g} s") from None
        raise


def _connected(to: BrokerAccess, timeout_s: float) -> socket.socket:
    context = None
    if to.tls is not None:
        context = tls_context(to.tls)
        context.sslsocket_class = _TlsSocket
    plain = socket.create_connection((to.host, to.port), min(timeout_s, _TCP_S))
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return plain if context is None else context.wrap_socket(plain, server_hostname=to.host)
    except BaseException:
        plain.close()
        raise
