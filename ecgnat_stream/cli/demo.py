"""``ecgnat demo``: simulated beds, nothing else needed."""

from __future__ import annotations

import argparse
from typing import Any

from ecgnat_stream.cli.live import monitor
from ecgnat_stream.cli.options import add_output, add_sinks, sink_tables
from ecgnat_stream.errors import ConfigError

__all__ = ["add"]

_DEMO_SCRIPTS = ("tour", "af", "arrest", "block")


def add(commands: Any) -> None:
    """Add ``ecgnat demo`` to the parser."""
    demo = commands.add_parser(
        "demo",
        help="simulated beds passing through the rhythms",
        description="Simulated beds pass through the rhythms; an MQTT broker runs inside the same process. Needs nothing else.",
    )
    demo.add_argument("--beds", type=int, default=len(_DEMO_SCRIPTS), metavar="N", help="number of beds (default %(default)s)")
    add_output(demo)
    add_sinks(demo)
    demo.set_defaults(command=_demo, stay=False, attended=True)


def _demo(arguments: argparse.Namespace) -> int:
    from ecgnat_stream.config import parse_config
    from ecgnat_stream.sink.mqtt.broker import free_port

    if not 1 <= arguments.beds <= 64:
        raise ConfigError(f"--beds {arguments.beds}: 1 to 64")
    beds = [
        {
            "id": f"bed-{i + 1}",
            "device": "simulate",
            "options": {"script": _DEMO_SCRIPTS[i % len(_DEMO_SCRIPTS)], "seed": i, "loop": True},
        }
        for i in range(arguments.beds)
    ]
    table = {"site": "demo", "unit": "ward", "bed": beds, **sink_tables(arguments)}
    if "mqtt" not in table:
        table["mqtt"] = {"url": f"mqtt://127.0.0.1:{free_port()}", "embedded": True}
    return monitor(parse_config(table, "demo"), arguments)
