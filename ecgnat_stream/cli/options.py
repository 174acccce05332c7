"""Options that several commands share, and the configuration tables that they stand for."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from ecgnat_stream.cli.completion import models

__all__ = ["add_model", "add_output", "add_sinks", "positive", "sink_tables"]


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add where events are shown, and for how long."""
    parser.add_argument("--headless", action="store_true", help="print every event as one JSON object per line, no dashboard")
    parser.add_argument("--seconds", type=positive, metavar="N", help="stop after N seconds")


def add_sinks(parser: argparse.ArgumentParser) -> None:
    """Add the sinks and the model."""
    parser.add_argument("--record", type=Path, metavar="DIR", help="record signals (WFDB) and events (JSON lines) into DIR")
    parser.add_argument("--history", type=Path, metavar="FILE", help="keep alarms and commands in this SQLite file")
    parser.add_argument("--mqtt", metavar="URL", help="publish to this broker: mqtt://[user@]host[:port] or mqtts://...")
    parser.add_argument("--zmq", metavar="ADDRESS", help="publish over ZeroMQ, for example tcp://127.0.0.1:5556")
    add_model(parser)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add which network runs."""
    model = parser.add_argument(
        "--model", metavar="MODEL", help="name of a network (see ecgnat models), or a checkpoint directory"
    )
    model.completer = models  # type: ignore[attr-defined]


def positive(text: str) -> float:
    """Return a number above 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


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
    if arguments.model:
        table["model"] = {"name": arguments.model}
    return table
