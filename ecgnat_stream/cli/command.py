"""``ecgnat command``: acknowledge, pause, resume or reset alarms of a running monitor, over MQTT."""

from __future__ import annotations

import argparse
import getpass
import math
import os
from typing import TYPE_CHECKING, Any

from ecgnat_stream.cli.completion import conditions
from ecgnat_stream.cli.live import named
from ecgnat_stream.cli.options import a_broker, a_path
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.suggest import unknown
from ecgnat_stream.words import NAME, cleaned

if TYPE_CHECKING:
    from ecgnat_stream.sink.mqtt.config import MqttConfig

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add ``ecgnat command`` to the parser."""
    parser = commands.add_parser(
        "command",
        help="acknowledge, pause, resume or reset alarms of a running monitor",
        description="Send a command over MQTT to the monitor of a bed and print its answer. Exit code 0: accepted, 1: refused or "
        "not answered, 2: wrong usage. User and password of the broker come from ECGNAT_MQTT_USER and ECGNAT_MQTT_PASSWORD.",
        epilog="example: ecgnat command pause --bed home/icu/1 --duration 60 --by 'nurse 7' --mqtt mqtt://localhost",
    )
    parser.add_argument("action", choices=("acknowledge", "pause", "resume", "reset"))
    parser.add_argument("--bed", required=True, metavar="SITE/UNIT/BED", help="or SITE/engine/WORKER for the worker's own alarms")
    condition = parser.add_argument("--condition", metavar="C", help="only this condition (default: all of the bed)")
    condition.completer = conditions
    parser.add_argument("--duration", type=float, metavar="S", help="length of a pause in seconds, at most 600")
    parser.add_argument("--by", metavar="NAME", help="who orders it (default: the name of the account)")
    broker = parser.add_mutually_exclusive_group(required=True)
    broker.add_argument("--mqtt", type=a_broker, metavar="URL", help="the broker: mqtt://[user@]host[:port] or mqtts://...")
    broker.add_argument("--config", type=a_path, metavar="CONFIG.toml", help="take the broker from [mqtt] of a configuration")
    parser.add_argument(
        "--timeout", type=float, default=5.0, metavar="S", help="longest wait for the answer (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    parser.set_defaults(command=_command)


def _command(arguments: argparse.Namespace) -> int:
    import asyncio

    import msgspec

    from ecgnat_stream.alarm import PHYSIOLOGICAL, TECHNICAL
    from ecgnat_stream.sink.mqtt.command import send_command
    from ecgnat_stream.wire import CommandRequest

    parts = arguments.bed.split("/")
    if len(parts) != 3 or not all(parts) or set(arguments.bed) & set("+#") or not arguments.bed.isprintable():
        raise ConfigError(f"--bed {arguments.bed}: write site/unit/bed, as the topics of the bed have it")
    if arguments.condition not in (None, *PHYSIOLOGICAL, *TECHNICAL):
        raise ConfigError(f"--condition: {unknown('condition', arguments.condition, (*PHYSIOLOGICAL, *TECHNICAL))}")
    if arguments.duration is not None:
        if arguments.action != "pause":
            raise ConfigError("--duration goes with pause")
        if not 0 < arguments.duration <= 600:
            raise ConfigError(f"--duration {arguments.duration:g}: above 0 and at most 600 s")
    if not 0 < arguments.timeout < math.inf:
        raise ConfigError(f"--timeout {arguments.timeout:g}: a number of seconds above 0")
    source = cleaned(_account() if arguments.by is None else arguments.by, NAME)
    request = CommandRequest(action=arguments.action, condition=arguments.condition, duration_s=arguments.duration, source=source)
    broker = _broker(arguments)
    with named(arguments.config):
        result = asyncio.run(send_command(broker, arguments.bed, request, arguments.timeout))
    if arguments.json:
        print(msgspec.json.encode(result).decode())
    else:
        about = f"{arguments.action} {arguments.condition or 'all alarms'} of {arguments.bed}"
        print(f"accepted: {about}" if result.accepted else f"refused: {about}: {cleaned(result.reason)}")
    return 0 if result.accepted else 1


def _account() -> str:
    """Return the name of the account; in a container it may have none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _broker(arguments: argparse.Namespace) -> MqttConfig:
    if arguments.config is not None:
        from ecgnat_stream.config import load_config

        config = load_config(arguments.config)
        if config.mqtt is None:
            raise ConfigError(f"{arguments.config}: has no [mqtt]")
        return config.mqtt
    from ecgnat_stream.sink.mqtt.config import MqttConfig

    return MqttConfig(url=arguments.mqtt)
