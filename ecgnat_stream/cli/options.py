"""Options that several commands share, and the configuration tables that they stand for."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ecgnat_stream.cli.completion import models
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.places import NAMES_NOTHING, broker_address, endpoint, path_of
from ecgnat_stream.suggest import unknown

__all__ = [
    "a_broker",
    "a_path",
    "a_place",
    "a_record",
    "a_whole_number",
    "add_mode",
    "add_model",
    "add_output",
    "add_reading",
    "add_sinks",
    "an_endpoint",
    "check_part",
    "lead_map",
    "model_table",
    "options_named",
    "positive",
    "sink_tables",
    "stated_differently",
]

_LONGEST_S = 1e9
"""No recording is longer: 31 years."""

_MOST_DIGITS = 18

_OPTIONS = {
    "record.directory": "--record",
    "history.path": "--history",
    "mqtt.url": "--mqtt",
    "zmq.bind": "--zmq",
    "model.name": "--model",
    "model.mode": "--mode",
}
"""Settings that :func:`sink_tables` makes of an option."""


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add where events are shown, and for how long."""
    parser.add_argument("--headless", action="store_true", help="print every event as one JSON object per line, no dashboard")
    parser.add_argument("--seconds", type=positive, metavar="N", help="stop after N seconds")


def add_sinks(parser: argparse.ArgumentParser) -> None:
    """Add the sinks and the model."""
    parser.add_argument("--record", type=a_path, metavar="DIR", help="record signals (WFDB) and events (JSON lines) into DIR")
    parser.add_argument("--history", type=a_path, metavar="FILE", help="keep alarms and commands in this SQLite file")
    parser.add_argument(
        "--mqtt", type=a_broker, metavar="URL", help="publish to this broker: mqtt://[user@]host[:port] or mqtts://..."
    )
    parser.add_argument(
        "--zmq", type=an_endpoint, metavar="ADDRESS", help="publish over ZeroMQ, for example tcp://127.0.0.1:5556"
    )
    add_model(parser)
    add_mode(parser)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add which network runs."""
    model = parser.add_argument(
        "--model", metavar="MODEL", help="name of a network (see ecgnat models), or a checkpoint directory"
    )
    model.completer = models  # type: ignore[attr-defined]


def add_mode(parser: argparse.ArgumentParser) -> None:
    """Add how the network reads the signal."""
    parser.add_argument(
        "--mode",
        choices=("auto", "window", "stream"),
        help="stream: a causal network reads only what is new; window: the last 10 s each time; auto (default): stream if it can",
    )


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add what is read of recordings, and how."""
    parser.add_argument("--start", type=a_place, metavar="S", help="begin S seconds into the record")
    parser.add_argument("--stop", type=a_place, metavar="S", help="end S seconds into the record")
    parser.add_argument("--fs", type=positive, metavar="HZ", help="sampling rate of files that state none, such as NPY")
    parser.add_argument(
        "--units", type=_units, metavar="UNIT", help="units of files that state none, such as CSV and NPY: uV, mV or V"
    )
    parser.add_argument(
        "--scale", type=_scale, default=1.0, metavar="X",
        help="multiplies the samples before the unit counts: uV per step of a converter, with --units uV; -1 turns them over",
    )  # fmt: skip
    parser.add_argument(
        "--leads",
        type=_leads,
        metavar="LEADS",
        help="which signals to read, in this order; of files that name none, such as NPY: the names of all, for example II,V1",
    )
    parser.add_argument(
        "--lead", action="append", default=[], metavar="NAME=LEAD", help='which lead a signal is ("" leaves it out); repeatable'
    )


def check_part(arguments: argparse.Namespace) -> None:
    """Refuse a part of a recording that has no length.

    Raises
    ------
    ConfigError
        Naming the option.
    """
    start, stop = arguments.start, arguments.stop
    if stop is not None and not stop > (start or 0.0):
        raise ConfigError(f"--stop {stop:g} is not after --start {start or 0.0:g}")


def stated_differently(arguments: argparse.Namespace) -> str:
    """Return what becomes of options that count only where a recording does not say it by itself; "" if none is given."""
    given = [option for option, value in (("--fs", arguments.fs), ("--units", arguments.units)) if value is not None]
    if not given:
        return ""
    count = "counts" if len(given) == 1 else "count"
    return f"{' and '.join(given)} {count} for the recordings that do not say theirs; one that does keeps its own"


def _units(text: str) -> str:
    from ecgnat_stream.signal import UNITS, unit_named

    unit = unit_named(text)
    if unit is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no unit of an ECG: give {', '.join(UNITS[:-1])} or {UNITS[-1]}")
    return unit


def _scale(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value or not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no size of a step: give a number that is not 0")
    return value


def _leads(text: str) -> tuple[str, ...]:
    from ecgnat_stream.signal import twice

    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name: write names with commas between, for example II,V1")
    if again := twice(names):
        raise argparse.ArgumentTypeError(f"{text!r} names {', '.join(again)} more than once: name each lead once")
    return names


def lead_map(texts: Iterable[str]) -> dict[str, str]:
    """Return which lead each name stands for, of the values of ``--lead``.

    Raises
    ------
    ConfigError
        For a text that is not NAME=LEAD, or an unknown lead.
    """
    pairs = [_lead(text) for text in texts]
    for name in dict(pairs):
        said = list(dict.fromkeys(lead or "left out" for other, lead in pairs if other == name))
        if len(said) > 1:
            raise ConfigError(f"--lead {name}: is said to be {' and '.join(said)}")
    return dict(pairs)


def _lead(text: str) -> tuple[str, str]:
    from ecgnat_stream.signal import LEADS

    name, equals, lead = text.partition("=")
    lead = lead.strip('"')
    if not equals or not name:
        raise ConfigError(f"--lead {text}: write NAME=LEAD, for example --lead ECG1=II; nothing behind the = leaves it out")
    if lead and lead not in LEADS:
        raise ConfigError(f"--lead {text}: {unknown('lead', lead, LEADS)}")
    return name, lead


def a_path(text: str) -> Path:
    """Return the value of an option that is a path."""
    if not text:
        raise argparse.ArgumentTypeError("is empty: is a variable of the shell empty? A dot is this folder")
    try:
        return path_of(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def a_broker(text: str) -> str:
    """Return the value of an option that is the URL of a broker."""
    try:
        broker_address(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def an_endpoint(text: str) -> str:
    """Return the value of an option that is an endpoint of ZeroMQ."""
    try:
        return endpoint(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> float:
    """Return a number above 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def a_place(text: str) -> float:
    """Return a place on a recording in s, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= _LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text!r} is no place on a recording: give seconds, from 0 to {_LONGEST_S:g}")
    return value


def a_whole_number(low: int, high: int) -> Callable[[str], int]:
    """Return what reads a whole number between two bounds, for argparse."""

    def read(text: str) -> int:
        plain = re.fullmatch(rf"\s*[+-]?[0-9]{{1,{_MOST_DIGITS}}}\s*", text)
        if plain is None or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return read


def a_record(text: str) -> str:
    """Return the value of an argument that names a recording."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r}: {NAMES_NOTHING}")
    return text


def options_named(text: str) -> str:
    """Return what is said of settings, for a person who has no configuration: with the options that they come from."""
    for setting, option in _OPTIONS.items():
        text = re.sub(rf"(?<![\w./-]){re.escape(setting)}(?![\w/-]|\.\w)", option, text)
    return text


def sink_tables(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the configuration tables for the sinks and the model that the command line asks for."""
    table: dict[str, Any] = {}
    if arguments.mqtt:
        table["mqtt"] = {"url": arguments.mqtt}
    if arguments.zmq:
        table["zmq"] = {"bind": arguments.zmq}
    if arguments.record:
        table["record"] = {"directory": str(arguments.record)}
    if arguments.history:
        table["history"] = {"path": str(arguments.history)}
    if model := model_table(arguments):
        table["model"] = model
    return table


def model_table(arguments: argparse.Namespace) -> dict[str, str]:
    """Return what the command line says of the network."""
    given = {"name": arguments.model, "mode": arguments.mode}
    return {name: value for name, value in given.items() if value}
