"""What the MQTT sink is told: where the broker is, how to be let in, what to publish."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

import msgspec
from aiomqtt import TLSParameters

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.exposure import refuse_exposed
from ecgnat_stream.settings import Settings, Within

__all__ = ["BrokerAccess", "MqttConfig", "broker_access", "check_receiver"]

_RECEIVER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")

USER, PASSWORD = "ECGNAT_MQTT_USER", "ECGNAT_MQTT_PASSWORD"


class MqttConfig(Settings, frozen=True, kw_only=True):
    """The MQTT sink.

    User and password come from the environment (``ECGNAT_MQTT_USER``, ``ECGNAT_MQTT_PASSWORD``) or from ``credentials_file``,
    never from here.

    Parameters
    ----------
    url
        ``mqtt://[user@]host[:port]`` or ``mqtts://...``; ports 1883 and 8883 unless given.
    embedded
        Start a broker of our own (MQTT 3.1.1, for trying things out) at ``url``; port 0 takes a free one.
    insecure
        Let an embedded broker be reached from other machines, although it knows no accounts; warned about at every start.
    protocol
        MQTT version; ``auto`` takes 5, and 3.1.1 where the broker refuses it.
    credentials_file
        File with ``user:password`` in its first line.
    ca_file, cert_file, key_file
        PEM files for ``mqtts``: the authority (the system's if empty), and this client's certificate and key.
    client_id
        Put before the client identifiers, which are made of site, worker and bed and must be unique at the broker.
    keepalive_s
        Longest silence before the broker holds the monitor for dead and publishes its last will, s (MQTT: after 1.5 times it).
    timeout_s
        Longest wait for an acknowledgement, s.
    wave
        Publish wave frames.
    home_assistant
        Let Home Assistant find the beds: publish ``homeassistant/device/{id}/config`` and ``alarm/summary``, retained.
    wave_expiry_s
        How long a broker keeps a wave frame for a slow subscriber, s (MQTT 5).
    bed_wills
        This many beds get a connection of their own, so that their status is a last will; the status of further beds has to be
        read together with that of the engine.
    backoff_first_s, backoff_max_s
        First and longest wait before the next attempt to connect, s; half of each wait is random. The longest is for a broker
        that refuses us; one that is away is tried at least every 2 s.
    confirm
        Name of the receiver that has to confirm the alarm events of every bed and of the worker; empty: none has to. A bed may
        name another one.
    confirm_within_s
        Longest time between an alarm event and its confirmation, s; then the bed has the technical alarm ``unconfirmed``.
    confirm_every_s
        Time between two heartbeats of a bed, which are confirmed like alarm events, s.
    linger_s
        Longest time to deliver what is left at the end, s.
    alarm_backlog
        Alarm events and answers to commands kept while the broker is away. Beyond it the bed with the most loses its oldest,
        and that is an alarm itself.
    stream_backlog
        Wave frames, beats and technical events that may wait; the oldest go first.
    """

    section: ClassVar[str] = "mqtt"

    url: str = "mqtt://127.0.0.1:1883"
    embedded: bool = False
    insecure: bool = False
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    credentials_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    client_id: str = ""
    keepalive_s: Annotated[int, Within(1, 60, "the loss of a monitor is told after 1.5 times it")] = 15
    timeout_s: Annotated[float, Within(0.1, 30, "alarms wait for an acknowledgement that does not come")] = 5.0
    wave: bool = True
    home_assistant: bool = False
    wave_expiry_s: Annotated[int, Within(1, 60, "an older wave is no longer live")] = 3
    bed_wills: Annotated[int, Within(0, 10_000, "each is a connection to the broker")] = 64
    backoff_first_s: Annotated[float, Within(0.01, 10, "alarms wait for the broker to be tried again")] = 0.5
    backoff_max_s: Annotated[float, Within(0.01, 60, "alarms wait for the broker to be tried again")] = 30.0
    confirm: str = ""
    confirm_within_s: Annotated[float, Within(1, 30, "that nobody sees an alarm must be known while it matters")] = 5.0
    confirm_every_s: Annotated[float, Within(1, 60, "a receiver that is missing is noticed after so long")] = 10.0
    linger_s: Annotated[float, Within(0, 8, "a monitor ends within 10 s of being told to")] = 3.0
    alarm_backlog: Annotated[int, Within(1, 1_000_000, "what waits takes memory, about 2 KB an event")] = 10_000
    stream_backlog: Annotated[int, Within(1, 1_000_000, "what waits takes memory, about 2 KB an event")] = 2_000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_receiver("mqtt.confirm", self.confirm)


def check_receiver(path: str, name: str) -> None:
    """Refuse what cannot be the name of a receiver; empty stands for none.

    Raises
    ------
    ConfigError
        Naming the path.
    """
    if name and not _RECEIVER.fullmatch(name):
        raise ConfigError(f"{path} = {name[:100]!r}: up to 80 letters, digits, '.', '_' and '-'")


class BrokerAccess(msgspec.Struct, frozen=True):
    """A broker and the way in; never shown, it holds the password."""

    host: str
    port: int
    username: str | None
    password: str | None
    tls: TLSParameters | None

    def __repr__(self) -> str:
        return f"BrokerAccess({self.host}:{self.port})"


def broker_access(config: MqttConfig) -> BrokerAccess:
    """Read URL, credentials and certificate paths.

    Raises
    ------
    ConfigError
        For a URL that is none or holds a password, for files that cannot be read, and for an embedded broker that other machines
        reach unless ``insecure`` says so.
    """
    example = "give mqtt://host:port or mqtts://host:port"
    try:
        parts = urlsplit(config.url)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except (ValueError, UnicodeError) as error:
        raise ConfigError(f"mqtt.url: {error}: {example}") from error
    if parts.scheme not in ("mqtt", "mqtts") or not host or parts.path.strip("/") or parts.query or parts.fragment:
        # Not the URL itself: it may hold a password.
        raise ConfigError(f"mqtt.url: scheme {parts.scheme!r}, host {host!r} and path {parts.path!r}: {example}")
    if parts.password is not None:
        raise ConfigError(f"mqtt.url holds a password: give it in {PASSWORD} or in credentials_file")
    for name in ("ca_file", "cert_file", "key_file", "credentials_file"):
        path = getattr(config, name)
        if path and not os.access(path, os.R_OK):
            raise ConfigError(f"mqtt.{name}: cannot read {path!r}")
    if port == 0 and not config.embedded:
        raise ConfigError(f"mqtt.url: port 0: {example}")
    if config.key_file and not config.cert_file:
        raise ConfigError("mqtt.key_file: name the certificate too, in cert_file")
    if parts.scheme == "mqtt" and (config.ca_file or config.cert_file):
        raise ConfigError("mqtt.url: mqtt:// is not encrypted, but ca_file or cert_file is given: write mqtts://")
    tls = None
    if parts.scheme == "mqtts":
        tls = TLSParameters(config.ca_file or None, config.cert_file or None, config.key_file or None)
    default = 8883 if tls else 1883
    if config.embedded:
        refuse_exposed("mqtt.url", host, False, config.insecure, instead="use mosquitto with accounts")
    username, password = _credentials(config, parts.username)
    return BrokerAccess(host, default if port is None else port, username, password, tls)


def _credentials(config: MqttConfig, user: str | None) -> tuple[str | None, str | None]:
    if not config.credentials_file:
        return user or os.environ.get(USER), os.environ.get(PASSWORD)
    try:
        first = Path(config.credentials_file).read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"mqtt.credentials_file: cannot read {config.credentials_file!r}: {error}") from error
    name, colon, password = first.partition(":")
    if not colon:
        raise ConfigError(f"mqtt.credentials_file: the first line of {config.credentials_file!r} is not user:password")
    return user or name, password
