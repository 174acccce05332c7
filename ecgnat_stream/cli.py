"""The command line: ``ecgnat demo | run | replay | alarms | command | score | devices | doctor``.

Events go to standard output, one JSON object per line, or to the dashboard; everything meant for a person goes to standard error.
Heavy modules are imported by the commands that need them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from ecgnat_stream import __version__
from ecgnat_stream.alarms_cli import add_alarms, add_command
from ecgnat_stream.errors import ConfigError, EcgnatError
from ecgnat_stream.score.command import add_parser as add_score
from ecgnat_stream.signal import LEADS

if TYPE_CHECKING:
    from ecgnat_stream.config import Config
    from ecgnat_stream.monitor import Monitor

__all__ = ["main", "parser"]

NOT_A_DEVICE = "ecgnat-stream is not a certified medical device: do not use it to monitor a patient."

_DEMO_SCRIPTS = ("tour", "af", "arrest", "block")


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 something failed, 2 wrong usage or configuration."""
    arguments = parser().parse_args(argv)
    try:
        code = arguments.command(arguments)
    except ConfigError as error:
        print(f"ecgnat: {error}", file=sys.stderr)
        code = 2
    except EcgnatError as error:
        print(f"ecgnat: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # The reader has seen enough; the interpreter would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    raise SystemExit(code)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="ecgnat",
        description=f"Real-time ECG rhythm monitoring.\n{NOT_A_DEVICE}",
        epilog="""examples:
  ecgnat demo                                   simulated beds in the dashboard, nothing else needed
  ecgnat demo --headless --seconds 30 | jq .    the same as JSON, one event per line
  ecgnat replay mitdb/100 --speed 1             a WFDB record in the dashboard, in real time
  ecgnat replay a.edf b.hea --headless --speed max --record out | jq 'select(.type == "alarm")'
  ecgnat run --example > ward.toml; ecgnat run ward.toml
  ecgnat alarms alarms.db --since 8h --summary  what a monitor with a [history] has written down
  ecgnat command acknowledge --bed home/icu/1 --mqtt mqtt://localhost
  ecgnat doctor                                 what is installed, compiled, reachable""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ecgnat-stream {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_run(commands)
    _add_replay(commands)
    add_alarms(commands)
    add_command(commands)
    add_score(commands)
    devices = commands.add_parser("devices", help="list the device adapters and their options")
    devices.set_defaults(command=_devices)
    doctor = commands.add_parser("doctor", help="check what is installed, compiled and reachable")
    doctor.add_argument("--mqtt", metavar="URL", help="also try this broker, for example mqtt://localhost:1883")
    doctor.set_defaults(command=_doctor)
    return parser


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--headless", action="store_true", help="print every event as one JSON object per line, no dashboard")
    parser.add_argument("--seconds", type=_positive, metavar="N", help="stop after N seconds")


def _add_sinks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--record", type=Path, metavar="DIR", help="record signals (WFDB) and events (JSON lines) into DIR")
    parser.add_argument("--history", type=Path, metavar="FILE", help="keep alarms and commands in this SQLite file")
    parser.add_argument("--mqtt", metavar="URL", help="publish to this broker: mqtt://[user@]host[:port] or mqtts://...")
    parser.add_argument("--zmq", metavar="ADDRESS", help="publish over ZeroMQ, for example tcp://127.0.0.1:5556")
    parser.add_argument("--model", metavar="DIR", help="a checkpoint directory, or the name of a shipped one")


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="simulated beds passing through the rhythms",
        description="Simulated beds pass through the rhythms; an MQTT broker runs inside the same process. Needs nothing else.",
    )
    demo.add_argument("--beds", type=int, default=len(_DEMO_SCRIPTS), metavar="N", help="number of beds (default %(default)s)")
    _add_output(demo)
    _add_sinks(demo)
    demo.set_defaults(command=_demo)


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        help="monitor the beds of a configuration file",
        description="Monitor the beds of a TOML file; docs/configuration.md explains every key.",
    )
    run.add_argument("config", type=Path, nargs="?", metavar="CONFIG.toml")
    run.add_argument("--example", action="store_true", help="print a configuration to start from")
    run.add_argument("--check", action="store_true", help="only check the configuration")
    _add_output(run)
    run.set_defaults(command=_run)


def _add_replay(commands: Any) -> None:
    replay = commands.add_parser(
        "replay",
        help="monitor recordings as if they were live",
        description="Replay recordings (WFDB header or name, EDF, CSV, NPY), one bed each, through the whole monitor.",
        epilog="example: ecgnat replay vfdb/418 vfdb/419 --speed max --headless | jq 'select(.type == \"alarm\")'",
    )
    replay.add_argument("records", nargs="+", metavar="RECORD", help="path of a record, with or without its ending")
    replay.add_argument(
        "--speed", type=_speed, default=1.0, metavar="X", help="1 is real time, 20 is faster, max as fast as possible"
    )
    replay.add_argument("--start", type=float, metavar="S", help="begin S seconds into the record")
    replay.add_argument("--stop", type=float, metavar="S", help="end S seconds into the record")
    replay.add_argument("--loop", action="store_true", help="begin again at the end")
    replay.add_argument("--fs", type=float, metavar="HZ", help="sampling rate of CSV and NPY files")
    replay.add_argument(
        "--units", metavar="UNIT", help="units of CSV and NPY files, or of a record that states none: uV, mV or V"
    )
    replay.add_argument(
        "--lead", action="append", default=[], metavar="NAME=LEAD", help='which lead a signal is ("" leaves it out); repeatable'
    )
    replay.add_argument("--block", type=int, metavar="N", help="samples per block, as the simulated device delivers them")
    _add_output(replay)
    _add_sinks(replay)
    replay.set_defaults(command=_replay)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _speed(text: str) -> float | str:
    try:
        return text if text == "max" else _positive(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number above 0 nor max") from None


def _sinks(arguments: argparse.Namespace) -> dict[str, Any]:
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


def _demo(arguments: argparse.Namespace) -> int:
    from ecgnat_stream.config import parse_config
    from ecgnat_stream.sink.broker import free_port

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
    table = {"site": "demo", "unit": "ward", "bed": beds, **_sinks(arguments)}
    if "mqtt" not in table:
        table["mqtt"] = {"url": f"mqtt://127.0.0.1:{free_port()}", "embedded": True}
    return _monitor(parse_config(table, "demo"), arguments)


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
        _check_devices(config)
        print(f"{arguments.config}: {len(config.bed)} beds, nothing to complain about", file=sys.stderr)
        return 0
    return _monitor(config, arguments)


def _replay(arguments: argparse.Namespace) -> int:
    from ecgnat_stream.config import parse_config

    lead_map = dict(_lead(text) for text in arguments.lead)
    given = {
        "start_s": arguments.start,
        "stop_s": arguments.stop,
        "fs": arguments.fs,
        "units": arguments.units,
        "block": arguments.block,
    }
    options = {"speed": arguments.speed, "loop": arguments.loop} | {k: v for k, v in given.items() if v is not None}
    beds: list[dict[str, Any]] = []
    for record in arguments.records:
        name = _bed_id(Path(record).name.removesuffix(".hea"), {bed["id"] for bed in beds})
        beds.append({"id": name, "device": "replay", "options": {"path": record, **options}, "lead_map": lead_map})
    return _monitor(parse_config({"site": "replay", "unit": "records", "bed": beds, **_sinks(arguments)}, "replay"), arguments)


def _lead(text: str) -> tuple[str, str]:
    name, equals, lead = text.partition("=")
    lead = lead.strip('"')
    if not equals or not name or lead not in ("", *LEADS):
        raise ConfigError(f"--lead {text}: write NAME=LEAD, for example --lead ECG1=II; leads are {', '.join(LEADS)}, or nothing")
    return name, lead


def _bed_id(name: str, taken: set[str]) -> str:
    """Return a bed id for a record: its name, in characters that a topic can hold, numbered if it is taken."""
    clean = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name).lstrip("._-") or "record"
    return next(candidate for i in range(1, len(taken) + 2) if (candidate := clean if i == 1 else f"{clean}-{i}") not in taken)


def _check_devices(config: Config) -> None:
    """Refuse a device or an option that does not exist before anything runs."""
    from ecgnat_stream.clock import SystemClock
    from ecgnat_stream.device import open_device

    for bed in config.bed:
        try:
            open_device(bed.device, bed.options, SystemClock())
        except ConfigError as error:
            raise ConfigError(f"bed {bed.id}: {error}") from error


def _monitor(config: Config, arguments: argparse.Namespace) -> int:
    _check_devices(config)
    if not arguments.headless and not (sys.stdout.isatty() and sys.stderr.isatty()):
        raise ConfigError(
            "the dashboard needs a terminal, for standard error too (it draws there); "
            "use --headless to print the events as JSON lines"
        )
    if arguments.headless:
        print(f"ecgnat-stream {__version__}. {NOT_A_DEVICE}", file=sys.stderr)
        with _told_to_the_person():
            return asyncio.run(_run_monitor(config, arguments))
    return asyncio.run(_run_monitor(config, arguments))


@contextmanager
def _told_to_the_person() -> Iterator[None]:
    """Show what the monitor logs, such as where its embedded broker listens, on standard error."""
    log = logging.getLogger("ecgnat_stream")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("ecgnat: %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)


async def _run_monitor(config: Config, arguments: argparse.Namespace) -> int:
    from ecgnat_stream.clock import SystemClock
    from ecgnat_stream.monitor import Monitor

    clock = SystemClock()
    monitor = Monitor(config, clock, traces=not arguments.headless)
    stop = monitor.stop
    if arguments.headless:
        from ecgnat_stream.sink.jsonl import JsonLinesSink

        monitor.add(JsonLinesSink(monitor.bus, sys.stdout), essential=True)
    else:
        from ecgnat_stream.sink.dashboard import Dashboard

        alarms = {config.name_of(bed): config.alarm_of(bed) for bed in config.bed}
        limits = {name: (alarm.hr_low_bpm, alarm.hr_high_bpm) for name, alarm in alarms.items()}
        note = config.mqtt.url if config.mqtt is not None and config.mqtt.embedded else ""
        stay = arguments.command is _replay
        dashboard = Dashboard(monitor.bus, clock, config.dashboard, beds=monitor.beds, limits=limits, stay=stay, note=note)
        monitor.add(dashboard, essential=True)

        def stop() -> None:
            dashboard.leave()
            monitor.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    if arguments.seconds:
        loop.call_later(arguments.seconds, stop)
    progress = asyncio.create_task(_show_progress(monitor)) if arguments.headless and sys.stderr.isatty() else None
    try:
        await monitor.run()
    finally:
        if progress is not None:
            progress.cancel()
            await asyncio.gather(progress, return_exceptions=True)
    for what, why in monitor.failures.items():
        print(f"ecgnat: {what}: {why}", file=sys.stderr)
    return 1 if monitor.failures else 0


async def _show_progress(monitor: Monitor) -> None:
    """Draw a bar per recording on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f} s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}
        while True:
            for bed in monitor.progress():
                if bed.total_s is not None:
                    if bed.bed not in tasks:
                        tasks[bed.bed] = bars.add_task(bed.bed, total=bed.total_s)
                    bars.update(tasks[bed.bed], completed=bed.done_s)
            await asyncio.sleep(0.25)


def _devices(_: argparse.Namespace) -> int:
    import msgspec
    from rich.console import Console
    from rich.table import Table

    from ecgnat_stream.device import adapter, device_names

    console = Console(markup=False, highlight=False)
    for name in device_names():
        kind = adapter(name)
        title = f"{name}: {(kind.__doc__ or '').strip().splitlines()[0]}"
        table = Table("option", "type", "default", title=title, title_justify="left")
        for option in msgspec.structs.fields(kind.Options):
            default = "required" if option.required else repr(option.default)
            table.add_row(option.encode_name, _type_name(option.type), default)
        console.print(table)
    console.print("What each option means: docs/configuration.md", style="dim")
    return 0


def _type_name(kind: Any) -> str:
    """Return a type as a person would write it: number, text, one of ..."""
    parts = get_args(kind)
    if get_origin(kind) is Annotated:
        return _type_name(parts[0])
    if get_origin(kind) is Literal:
        return " or ".join(map(str, parts))
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_type_name(part) for part in parts if part is not type(None))
    if get_origin(kind) is tuple:
        return f"list of {_type_name(parts[0])}"
    names = {"float": "number", "int": "whole number", "str": "text", "bool": "true or false"}
    name: str = kind.__name__
    return names.get(name, name)


def _doctor(arguments: argparse.Namespace) -> int:
    from ecgnat_stream.doctor import examine

    return examine(arguments.mqtt)


if __name__ == "__main__":
    main()
