"""A broker that is only tried: does it answer, and does it let us in?"""

from __future__ import annotations

from uuid import uuid4

import aiomqtt

from ecgnat_stream.errors import SinkError
from ecgnat_stream.sink.mqtt.broker import EmbeddedBroker
from ecgnat_stream.sink.mqtt.client import UNSUPPORTED_PROTOCOL, Client, code_of
from ecgnat_stream.sink.mqtt.config import BrokerAccess, MqttConfig, broker_access

__all__ = ["connection", "protocols", "refused_protocol", "try_broker"]


async def try_broker(config: MqttConfig) -> None:
    """Connect to the broker and leave again; of an embedded one see that it can listen.

    Raises
    ------
    ConfigError
        As :func:`~ecgnat_stream.sink.mqtt.config.broker_access`.
    SinkError
        If it cannot be reached, does not let us in, or cannot listen.
    """
    to = broker_access(config)
    if config.embedded:
        async with EmbeddedBroker(to.host, to.port):
            return
    for v5 in protocols(config):
        try:
            async with connection(config, to, v5, "check"):
                return
        except aiomqtt.MqttError as error:
            if not (v5 and config.protocol == "auto" and refused_protocol(error)):
                raise SinkError(
                    f"{to.host}:{to.port}: {error}; is the broker running, and does it let this account in?"
                ) from error


def protocols(config: MqttConfig) -> tuple[bool, ...]:
    """Return which versions to try: True for 5, False for 3.1.1."""
    return {"5": (True,), "3.1.1": (False,)}.get(config.protocol, (True, False))


def refused_protocol(error: aiomqtt.MqttError) -> bool:
    """Return whether the broker speaks another version."""
    return code_of(error) == UNSUPPORTED_PROTOCOL


def connection(config: MqttConfig, to: BrokerAccess, v5: bool, purpose: str) -> Client:
    """Return a client of its own identity for one short purpose."""
    return Client(config, to, f"{config.client_id}ecgnat-{purpose}-{uuid4().hex[:12]}", v5, plain=True)
