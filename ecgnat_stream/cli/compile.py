"""``ecgnat compile``: prepare what a start would otherwise do without, or compile: the network, and the kernels of the stages."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgnat_stream import compiled
from ecgnat_stream.cli.options import a_path, add_mode, add_model
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.words import counted

if TYPE_CHECKING:
    from ecgnat_stream.model import ModelConfig

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add ``ecgnat compile`` to the parser."""
    parser = commands.add_parser(
        "compile",
        help="prepare the network and the signal stages for this machine, so that no start compiles",
        description="Compile the network and the signal stages for this machine: later starts find it and run faster. It takes "
        "a few minutes, and a C++ compiler. Do it again after an update; `ecgnat doctor` says what is in use.",
    )
    parser.add_argument(
        "config", nargs="?", type=a_path, metavar="CONFIG.toml", help="take the settings of [model] from this configuration"
    )
    add_model(parser)
    add_mode(parser)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where the network will run")
    parser.add_argument("--onnx", action="store_true", help='write the network for [model] runtime = "onnx" instead')
    parser.add_argument(
        "--out", type=a_path, metavar="DIR", help="write the network here, for [model] packages, not into this account's cache"
    )
    parser.set_defaults(command=_compile)


def _compile(arguments: argparse.Namespace) -> int:
    config = _settings(arguments)
    if not arguments.onnx:
        try:
            began = time.perf_counter()
            modules = compiled.prepare_kernels()
            _say(f"signal stages: {counted(len(modules), 'module')} of kernels", began)
        except ConfigError as error:
            print(f"signal stages: not compiled: {error}", file=sys.stderr)
    from ecgnat_stream.model.ahead import make_onnx, make_package

    began = time.perf_counter()
    print(f"network {config.name}: this takes a few minutes", file=sys.stderr)
    _say(f"network: {make_onnx(config) if arguments.onnx else make_package(config)}", began)
    return 0


def _settings(arguments: argparse.Namespace) -> ModelConfig:
    from msgspec.structs import replace

    from ecgnat_stream.config import load_config
    from ecgnat_stream.model import ModelConfig

    config = ModelConfig() if arguments.config is None else load_config(arguments.config).model
    given: dict[str, str | Path | None] = {
        "name": arguments.model,
        "mode": arguments.mode,
        "device": arguments.device,
        "packages": arguments.out,
    }
    return replace(config, **{name: str(value) for name, value in given.items() if value is not None})


def _say(what: str, began: float) -> None:
    print(f"{what}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
