"""A broker that is only tried: does it answer, and does it let us in?"""

from __future__ import annotations

import logging
from uuid import uuid4

import aiomqtt

from ecgnat_stream.errors import SinkError
from ecgnat_stream.sink.mqtt.broker import EmbeddedBroker
from ecgnat_stream.sink.mqtt.config import BrokerAccess, MqttConfig, broker_access

__all__ = ["connection", "protocols", "refused_protocol", "try_broker"]

_client_log = logging.getLogger(f"{__name__}.client")
_client_log.setLevel(logging.CRITICAL)

_UNSUPPORTED_PROTOCOL = 132  # MQTT 5, table 3-1; paho gives it for the 3.1.1 return code 1 as well


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
    return getattr(getattr(error, "rc", None), "value", None) == _UNSUPPORTED_PROTOCOL


def connection(config: MqttConfig, to: BrokerAccess, v5: bool, purpose: str) -> aiomqtt.Client:
    """Return a client of its own identity for one short purpose."""
    return aiomqtt.Client(
        to.host,
        to.port,
        username=to.username,
        password=to.password,
        logger=_client_log,
        identifier=f"{config.client_id}ecgnat-{purpose}-{uuid4().hex[:12]}",
        protocol=aiomqtt.ProtocolVersion.V5 if v5 else aiomqtt.ProtocolVersion.V311,
        clean_session=None if v5 else True,
        timeout=config.timeout_s,
        keepalive=config.keepalive_s,
        tls_params=to.tls,
    )
