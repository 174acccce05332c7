"""Run a monitor from the command line: with the dashboard, or headless with one JSON object per line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ecgnat_stream import __version__
from ecgnat_stream.cli.check import check_devices
from ecgnat_stream.cli.logs import beside, kept_back, told
from ecgnat_stream.cli.options import options_named
from ecgnat_stream.cli.progress import progress_shown
from ecgnat_stream.cli.streams import is_open
from ecgnat_stream.errors import CheckpointError, ConfigError, SinkError
from ecgnat_stream.words import cleaned

if TYPE_CHECKING:
    from ecgnat_stream.cli.guard import Guard
    from ecgnat_stream.config import Config

__all__ = ["NOT_A_DEVICE", "has_terminal", "monitor", "named"]

_BROKER = "ecgnat_stream.sink.mqtt.broker"
"""Says where the embedded broker listens, which others need to know."""

NOT_A_DEVICE = "ecgnat-stream is not a certified medical device: do not use it to monitor a patient."


def monitor(config: Config, arguments: argparse.Namespace) -> int:
    """Monitor until the end; return the exit code.

    Raises
    ------
    ConfigError
        For a device that cannot be built, or without a terminal for the dashboard.
    CheckpointError
        For a network that does not exist or cannot monitor; where somebody sits before it, also for a damaged one. A ward that
        starts by itself goes on without it, under an alarm.
    """
    import asyncio

    from ecgnat_stream.cli.guard import guarded
    from ecgnat_stream.model import check_model, is_damaged
    from ecgnat_stream.sink.dashboard import has_keyboard

    with named(getattr(arguments, "config", None)):
        check_devices(config)
    if not arguments.headless and not has_terminal():
        raise ConfigError(
            "the dashboard needs a terminal, for standard error too (it draws there); "
            "use --headless to print the events as JSON lines"
        )
    if arguments.headless and not is_open(sys.stdout):
        raise ConfigError("standard output is closed, and the events go there: send it to a file, a pipe or /dev/null")
    try:
        check_model(config.model)
    except CheckpointError as error:
        if arguments.attended or not is_damaged(config.model.name):
            raise
        print(f"ecgnat: monitoring without a network: {error}", file=sys.stderr)
    if arguments.headless:
        print(f"ecgnat-stream {__version__}. {NOT_A_DEVICE}", file=sys.stderr)
        with told(_BROKER), beside(), guarded() as guard, named(getattr(arguments, "config", None)):
            return asyncio.run(_run_monitor(config, arguments, guard))
    if not has_keyboard():
        print("ecgnat: standard input is no terminal: the dashboard takes no keys, Ctrl+C ends it", file=sys.stderr)
    with kept_back(), beside(), guarded() as guard, named(getattr(arguments, "config", None)):
        return asyncio.run(_run_monitor(config, arguments, guard))


@contextmanager
def named(configuration: Path | None) -> Iterator[None]:
    """Put the file before what is said of its settings, where they come from one; else name the options."""
    try:
        yield
    except (ConfigError, SinkError) as error:
        if configuration is None:
            raise type(error)(options_named(str(error))) from error
        raise type(error)(f"{configuration}: {error}") from error


def has_terminal() -> bool:
    """Return whether there is a terminal to draw the dashboard on."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdout, sys.stderr))


async def _run_monitor(config: Config, arguments: argparse.Namespace, guard: Guard) -> int:
    import asyncio
    import signal

    from ecgnat_stream.clock import SystemClock
    from ecgnat_stream.monitor import Monitor

    clock = SystemClock()
    instance = Monitor(config, clock, traces=not arguments.headless)
    stop = instance.stop
    if arguments.headless:
        from ecgnat_stream.sink.jsonl import JsonLinesSink

        instance.add(JsonLinesSink(instance.bus, sys.stdout), essential=True)
    else:
        from ecgnat_stream.sink.dashboard import Dashboard, has_keyboard

        alarms = {config.name_of(bed): config.alarm_of(bed) for bed in config.bed}
        limits = {name: (alarm.hr_low_bpm, alarm.hr_high_bpm) for name, alarm in alarms.items()}
        note = config.mqtt.url if config.mqtt is not None and config.mqtt.embedded else ""
        stay = arguments.stay
        keys = has_keyboard()
        dashboard = Dashboard(
            instance.bus, clock, config.dashboard, beds=instance.beds, limits=limits, stay=stay, note=note, keys=keys
        )
        instance.add(dashboard, essential=True)

        def stop() -> None:
            dashboard.leave()
            instance.stop()

    loop = asyncio.get_running_loop()
    terminals = [descriptor for descriptor in range(3) if os.isatty(descriptor)]

    def asked_to_end(number: int) -> None:
        if number == signal.SIGHUP:
            _let_go(terminals)
        stop()

    def heard(number: int) -> None:
        with suppress(RuntimeError):  # the loop is closed: it has ended already
            loop.call_soon_threadsafe(asked_to_end, number)

    def ends() -> None:
        guard.leave()  # from here on nobody looks at the beds, and the sinks take what there is
        stop()

    if arguments.seconds:
        loop.call_later(arguments.seconds, ends)
    guard.watch(heard, lambda: instance.watched_ns, config.watchdog.loop_s)
    try:
        async with progress_shown(instance) if arguments.headless else nullcontext():
            await instance.run()
    finally:
        guard.leave()
    for what, why in instance.failures.items():
        said = f"{what}: {why}"
        if getattr(arguments, "config", None) is None:
            said = options_named(said)
        print(f"ecgnat: {cleaned(said, 1000)}", file=sys.stderr)
    return 1 if instance.failures else 0


def _let_go(terminals: Sequence[int]) -> None:
    """Put nothing in the place of terminals that are gone, so that what is still said does not fail."""
    for descriptor in terminals:
        if not os.isatty(descriptor):
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, descriptor)
            os.close(nothing)
