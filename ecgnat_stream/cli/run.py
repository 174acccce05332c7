"""``ecgnat run``: the beds of a configuration file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgnat_stream.cli.check import faults
from ecgnat_stream.cli.live import monitor
from ecgnat_stream.cli.options import a_path, add_output
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.words import cleaned, counted

if TYPE_CHECKING:
    from ecgnat_stream.config import Config

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add ``ecgnat run`` to the parser."""
    run = commands.add_parser(
        "run",
        help="monitor the beds of a configuration file",
        description="Monitor the beds of a TOML file; docs/configuration.md explains every key.",
    )
    run.add_argument("config", type=a_path, nargs="?", metavar="CONFIG.toml")
    run.add_argument("--example", action="store_true", help="print a configuration to start from")
    run.add_argument("--check", action="store_true", help="try out everything that the configuration names, and stop")
    add_output(run)
    run.set_defaults(command=_run, stay=False, attended=False)


def _run(arguments: argparse.Namespace) -> int:
    from ecgnat_stream.config import load_config

    if arguments.example:
        from importlib.resources import files

        print(files("ecgnat_stream").joinpath("example.toml").read_text(encoding="utf-8"), end="")
        return 0
    if arguments.config is None:
        raise ConfigError("which configuration? ecgnat run CONFIG.toml; `ecgnat run --example` prints one to start from")
    config = load_config(arguments.config)
    if not config.bed:
        raise ConfigError(f"{arguments.config}: no [[bed]] is configured")
    if arguments.check:
        return _check(config, arguments.config)
    return monitor(config, arguments)


def _check(config: Config, path: Path) -> int:
    import asyncio

    found = asyncio.run(faults(config))
    beds = counted(len(config.bed), "bed")
    wrong = counted(len(found), "fault") if found else "nothing to complain about"
    for fault in found:
        print(f"ecgnat: {cleaned(f'{path}: {fault}', 4000)}", file=sys.stderr)
    print(f"{path}: {beds}, {wrong}", file=sys.stderr)
    return 2 if found else 0
