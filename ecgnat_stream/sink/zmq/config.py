"""What the ZeroMQ publisher is told: where it listens, its keys, whom it lets in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

import msgspec
import zmq.auth

from ecgnat_stream.errors import ConfigError, SinkError
from ecgnat_stream.exposure import refuse_exposed
from ecgnat_stream.places import endpoint, regular_file
from ecgnat_stream.settings import PathText, Settings, Within

__all__ = ["ZmqConfig", "check_exposure", "host_of", "own_keys"]


class ZmqConfig(Settings, frozen=True, kw_only=True):
    """The ZeroMQ publisher.

    Parameters
    ----------
    bind
        Endpoint to bind, for example ``tcp://127.0.0.1:5556`` or ``ipc:///run/ecgnat.sock``; port ``*`` takes a free one.
    insecure
        Let ``bind`` name an address that other machines reach, without keys: everybody there can read every bed.
    high_water_mark
        Messages kept for each slow subscriber; more are lost to it.
    peers
        Connections at the same time, at most half of them from one address; more are hung up.
    wave
        Publish wave frames.
    secret_key_file
        CURVE key pair of this publisher (``zmq.auth.create_certificates`` makes one); empty: neither encryption nor accounts.
    clients_dir
        Folder with the public keys (``*.key``) of the subscribers that are let in; needs ``secret_key_file``. Keys that are added
        or taken away count within a second or two.
    retry_s
        Wait before binding is tried again, s.
    """

    section: ClassVar[str] = "zmq"

    bind: str = "tcp://127.0.0.1:5556"
    insecure: bool = False
    high_water_mark: Annotated[int, Within(1, 1_000_000, "what waits takes memory, for every subscriber")] = 10_000
    peers: Annotated[int, Within(1, 4096, "each takes a socket and memory")] = 128
    wave: bool = True
    secret_key_file: PathText = ""
    clients_dir: PathText = ""
    retry_s: Annotated[float, Within(0.01, 60, "alarms wait for the endpoint to be tried again")] = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            msgspec.structs.force_setattr(self, "bind", endpoint(self.bind))
        except ConfigError as error:
            raise ConfigError(f"zmq.bind: {error}") from error


def host_of(bind: str) -> str:
    """Return the host of an endpoint; ``localhost`` for what cannot leave this machine."""
    transport, _, address = bind.partition("://")
    if transport in ("ipc", "inproc"):
        return "localhost"
    return address.rpartition(":")[0].strip("[]") if transport == "tcp" else bind


def check_exposure(config: ZmqConfig) -> None:
    """Refuse an endpoint that other machines reach without keys, unless that is said twice.

    Raises
    ------
    ConfigError
        As :func:`~ecgnat_stream.exposure.refuse_exposed`.
    """
    keys = "set zmq.secret_key_file and zmq.clients_dir"
    refuse_exposed("zmq.bind", host_of(config.bind), bool(config.secret_key_file), config.insecure, instead=keys)


def own_keys(config: ZmqConfig) -> tuple[bytes, bytes] | None:
    """Return the publisher's public and secret key, or None where there are none.

    Raises
    ------
    SinkError
        For keys that cannot be read, or an allow-list that is empty or without a key pair.
    """
    if not config.secret_key_file:
        if config.clients_dir:
            raise SinkError("zmq.clients_dir lets only known keys in, which needs zmq.secret_key_file")
        return None
    try:
        public, secret = zmq.auth.load_certificate(regular_file(config.secret_key_file))
    except ConfigError as error:
        raise SinkError(f"zmq.secret_key_file: {error}") from error
    except (OSError, ValueError, IndexError) as error:
        raise SinkError(
            f"zmq.secret_key_file: {config.secret_key_file!r} is no key, as zmq.auth.create_certificates makes them: {error}"
        ) from error
    if secret is None:
        raise SinkError(f"zmq.secret_key_file: {config.secret_key_file!r} holds no secret key")
    if config.clients_dir and not any(Path(config.clients_dir).glob("*.key")):
        raise SinkError(f"zmq.clients_dir: no *.key file in {config.clients_dir!r}: nobody would be let in")
    return public, secret
