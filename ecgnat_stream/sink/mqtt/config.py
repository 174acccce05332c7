"""What the MQTT sink is told: where the broker is, how to be let in, what to publish."""

from __future__ import annotations

import os
import re
from typing import Annotated, ClassVar, Literal

import msgspec
from aiomqtt import TLSParameters

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.exposure import refuse_exposed
from ecgnat_stream.places import Address, broker_address, file_bytes, regular_file, text_of
from ecgnat_stream.settings import PathText, Settings, Within
from ecgnat_stream.sink.mqtt.tls import tls_context

__all__ = ["BrokerAccess", "MqttConfig", "broker_access", "check_receiver"]

_RECEIVER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")

USER, PASSWORD = "ECGNAT_MQTT_USER", "ECGNAT_MQTT_PASSWORD"

_LARGEST = 65_536
"""Bytes of a file with credentials; user and password of MQTT have at most so many each (MQTT 5, 1.5.4)."""


class MqttConfig(Settings, frozen=True, kw_only=True):
    """The MQTT sink.

    User and password come from the environment (``ECGNAT_MQTT_USER``, ``ECGNAT_MQTT_PASSWORD``) or from ``credentials_file``,
    never from here.

    Parameters
    ----------
    url
        ``mqtt://[user@]host[:port]`` or ``mqtts://...``; ports 1883 and 8883 unless given. An ``@`` within the user name is
        written ``%40``, an IPv6 address in brackets.
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
    credentials_file: PathText = ""
    ca_file: PathText = ""
    cert_file: PathText = ""
    key_file: PathText = ""
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
        _address(self)
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
    at = _address(config)
    for name in ("ca_file", "cert_file", "key_file", "credentials_file"):
        try:
            if path := getattr(config, name):
                regular_file(path)
        except ConfigError as error:
            raise ConfigError(f"mqtt.{name}: {error}") from error
    if config.key_file and not config.cert_file:
        raise ConfigError("mqtt.key_file: name the certificate too, in cert_file")
    if at.scheme == "mqtt" and (config.ca_file or config.cert_file):
        raise ConfigError("mqtt.url: mqtt:// is not encrypted, but ca_file or cert_file is given: write mqtts://")
    tls = None
    if at.scheme == "mqtts":
        tls = TLSParameters(config.ca_file or None, config.cert_file or None, config.key_file or None)
        tls_context(tls)
    if config.embedded:
        refuse_exposed("mqtt.url", at.host, False, config.insecure, instead="use mosquitto with accounts")
    username, password = _credentials(config, at.user)
    assert at.port is not None
    return BrokerAccess(at.host, at.port, username, password, tls)


def _address(config: MqttConfig) -> Address:
    try:
        at = broker_address(config.url)
    except ConfigError as error:
        raise ConfigError(f"mqtt.url: {error}") from error
    if at.port == 0 and not config.embedded:
        raise ConfigError("mqtt.url: port 0 is that of an embedded broker: name the port of yours, for example 1883")
    return at


def _credentials(config: MqttConfig, user: str | None) -> tuple[str | None, str | None]:
    if not config.credentials_file:
        return user or _environment(USER), _environment(PASSWORD)
    try:
        first = text_of(file_bytes(config.credentials_file, _LARGEST)).partition("\n")[0].rstrip("\r")
    except ConfigError as error:
        raise ConfigError(f"mqtt.credentials_file: {config.credentials_file!r}: {error}") from error
    name, colon, password = first.partition(":")
    if not colon:
        raise ConfigError(f"mqtt.credentials_file: the first line of {config.credentials_file!r} is not user:password")
    return user or name, password


def _environment(name: str) -> str | None:
    """Return a variable, which goes to the broker as UTF-8.

    Raises
    ------
    ConfigError
        For bytes that are none; they are not shown.
    """
    value = os.environ.get(name)
    try:
        return None if value is None else os.fsencode(value).decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} in the environment is not UTF-8") from error
