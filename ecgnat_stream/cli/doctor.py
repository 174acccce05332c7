"""``ecgnat doctor``: what is installed, what is compiled, what is reachable.

Each check gives a line: ``ok``, ``note`` (works without it) or ``FAIL`` (the monitor will not run), with what to do.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import time
from collections.abc import Coroutine, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any, NamedTuple

from ecgnat_stream import compiled
from ecgnat_stream.cli.options import a_broker, a_path
from ecgnat_stream.cli.security import examine_security
from ecgnat_stream.errors import ConfigError, EcgnatError
from ecgnat_stream.words import cleaned, counted

__all__ = ["Check", "add", "examine"]

_REACH_S = 5.0
"""Longest wait for a broker, s."""

_STYLES = {"ok": "green", "note": "yellow", "FAIL": "bold red"}

_CAUSAL = "ecgnat-nano-causal"


class Check(NamedTuple):
    """One line of the examination."""

    verdict: str
    what: str
    detail: str


def add(commands: Any) -> None:
    """Add ``ecgnat doctor`` to the parser."""
    parser = commands.add_parser("doctor", help="check what is installed, compiled and reachable")
    parser.add_argument("--mqtt", type=a_broker, metavar="URL", help="also try this broker, for example mqtt://localhost:1883")
    parser.add_argument(
        "--security", type=a_path, metavar="CONFIG.toml", help="say what this configuration leaves open, and nothing else"
    )
    parser.add_argument("--json", action="store_true", help="print what --security finds as JSON")
    parser.set_defaults(command=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    if arguments.security is not None:
        return examine_security(arguments.security, as_json=arguments.json)
    if arguments.json:
        raise ConfigError(
            "--json prints what --security finds: name a configuration, ecgnat doctor --security CONFIG.toml --json"
        )
    return examine(arguments.mqtt)


def examine(mqtt: str | None = None) -> int:
    """Print every finding; return 1 if one is a failure."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(markup=False, highlight=False)  # findings hold foreign text: [natten] is an extra, not a style
    table = Table("", "what", "found")
    worst = 0
    for finding in _findings(mqtt):
        table.add_row(Text(finding.verdict, _STYLES[finding.verdict]), finding.what, cleaned(finding.detail, 2000))
        worst |= finding.verdict == "FAIL"
    console.print(table)
    return worst


def _findings(mqtt: str | None) -> Iterator[Check]:
    yield Check(
        "ok",
        "machine",
        f"{platform.system()} {platform.machine()}, {counted(os.cpu_count() or 1, 'core')}, Python {platform.python_version()}",
    )
    yield from _packages()
    yield from _torch()
    yield Check("ok", "signal stages", compiled.describe())
    yield from _model()
    yield from _devices()
    yield from _terminal()
    yield from _brokers(mqtt)
    yield _data()


def _packages() -> Iterator[Check]:
    names = [line.partition(";")[0].split("[")[0] for line in requires("ecgnat-stream") or [] if "extra ==" not in line]
    found: list[str] = []
    for name in sorted({name.rstrip("<>=!~.,0123456789 ") for name in names}):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            yield Check("FAIL", name, f"not installed: pip install {name}")
    yield Check("ok", "packages", ", ".join(found))
    try:
        yield Check("ok", "natten", f"{version('natten')}: fast path on CUDA")
    except PackageNotFoundError:
        yield Check(
            "note", "natten", "not installed; only needed on CUDA: pip install --no-build-isolation 'ecgnat-stream[natten]'"
        )


def _torch() -> Iterator[Check]:
    import torch

    threads = f"{counted(torch.get_num_threads(), 'thread')} by default"
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    yield Check("ok", "torch", f"{torch.__version__}, {threads}, {cuda}")
    compiler = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    if compiler:
        yield Check("ok", "C++ compiler", f"{compiler}: `ecgnat compile` is possible")
    else:
        yield Check("note", "C++ compiler", "none: `ecgnat compile` needs one")


def _model() -> Iterator[Check]:
    import numpy as np

    from ecgnat_stream.model import ModelConfig, Predictor, list_models
    from ecgnat_stream.signal import LEADS, MODEL_FS, Conditioned

    try:
        began = time.perf_counter()
        with Predictor(ModelConfig()) as predictor:
            loaded_s = time.perf_counter() - began
            took = []
            for batch in (1, 32):
                windows = Conditioned(np.zeros((batch, len(LEADS), 10 * MODEL_FS), np.float32), MODEL_FS)
                predictor.predict(windows)
                took.append(min(predictor.predict(windows).took_s for _ in range(3)) * 1e3)
            speed = f"{took[0]:.0f} ms for 1 window, {took[1]:.0f} ms for 32"
            yield Check("ok", "network", f"{predictor.describe()}; loaded in {loaded_s:.1f} s; {speed}")
    except EcgnatError as error:
        yield Check("FAIL", "network", str(error))
    try:
        if any(entry.name == _CAUSAL and entry.installed for entry in list_models()):
            with Predictor(ModelConfig(name=_CAUSAL)) as predictor:
                yield Check("ok", "causal network", predictor.describe())
    except EcgnatError as error:
        yield Check("FAIL", "causal network", str(error))


def _devices() -> Iterator[Check]:
    from ecgnat_stream.device import adapter, device_names

    for name in device_names():
        try:
            adapter(name)
        except EcgnatError as error:
            yield Check("FAIL", f"device {name}", str(error))
        else:
            yield Check("ok", f"device {name}", "loads")


def _terminal() -> Iterator[Check]:
    if not sys.stdout.isatty():
        yield Check("note", "terminal", "standard output is no terminal: only --headless works here")
        return
    from rich.console import Console

    console = Console()
    size = f"{console.width}x{console.height}, {console.color_system or 'no'} colour, {console.encoding}"
    yield Check(
        "ok" if console.width >= 80 and console.height >= 24 else "note", "terminal", f"{size} (80x24 or more is comfortable)"
    )


def _brokers(mqtt: str | None) -> Iterator[Check]:
    yield _try("embedded MQTT broker", _embedded())
    if mqtt is not None:
        yield _try("MQTT broker", _reach(mqtt))
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    yield Check("ok" if found else "note", "mosquitto", found or "not installed; only needed for a broker of its own")


async def _embedded() -> str:
    from ecgnat_stream.sink.mqtt.broker import EmbeddedBroker

    async with EmbeddedBroker() as broker:
        return f"starts, for example at {broker.url}"


async def _reach(url: str) -> str:
    import asyncio
    import socket
    from functools import partial

    from ecgnat_stream.sidethread import SideThread
    from ecgnat_stream.sink.mqtt.config import MqttConfig, broker_access

    broker = broker_access(MqttConfig(url=url))
    connect = partial(socket.create_connection, (broker.host, broker.port), _REACH_S)
    async with asyncio.timeout(_REACH_S):  # a name service that does not answer is left behind
        (await SideThread("doctor").do(connect)).close()
    return f"{broker.host}:{broker.port} takes connections"


def _try(what: str, attempt: Coroutine[None, None, str]) -> Check:
    import asyncio

    try:
        return Check("ok", what, asyncio.run(attempt))
    except (EcgnatError, OSError) as error:
        return Check("FAIL", what, str(error) or type(error).__name__)


def _data() -> Check:
    root = os.environ.get("ECGNAT_DATA")
    if not root:
        return Check("note", "recorded databases", "ECGNAT_DATA is not set; only needed for training and the data tests")
    names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir()) if os.path.isdir(root) else []
    return Check("ok" if names else "note", "recorded databases", f"{root}: {', '.join(names) or 'nothing there'}")
