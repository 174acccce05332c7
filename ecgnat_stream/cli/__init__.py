"""The command line: ``ecgnat COMMAND``; ``ecgnat --help`` names them all.

One module per command.

Events go to standard output, one JSON object per line, or to the dashboard; everything meant for a person goes to standard error.
Heavy modules are imported by the commands that need them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from ecgnat_stream import __version__
from ecgnat_stream.cli import (
    alarms,
    analyse,
    bench,
    command,
    compile,
    completion,
    demo,
    devices,
    doctor,
    models,
    replay,
    run,
    score,
    streams,
)
from ecgnat_stream.cli.encoding import take_every_character
from ecgnat_stream.cli.live import NOT_A_DEVICE
from ecgnat_stream.cli.logs import add_logging, logging_as_told
from ecgnat_stream.errors import CheckpointError, ConfigError, EcgnatError, WatchdogError
from ecgnat_stream.suggest import unknown
from ecgnat_stream.words import cleaned

__all__ = ["main", "parser"]

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit.

    0 done, 1 something failed, 2 wrong usage or configuration, 70 the monitor could not be trusted any more: start it again.
    """
    streams.steady()
    take_every_character()
    raise SystemExit(streams.settled(_outcome(argv)))


def _outcome(argv: Sequence[str] | None) -> int:
    """Run one command; return its exit code."""
    try:
        known = parser()
        if completion.asked_by_the_shell():
            completion.answer_the_shell(known)
        arguments = known.parse_args(_help_asked(sys.argv[1:] if argv is None else argv))
        _check_folder()
        with logging_as_told(arguments):
            return _run(arguments)
    except SystemExit as done:  # of --help, of a wrong option, or of rich where nobody reads its table any more
        return 0 if isinstance(done.__context__, BrokenPipeError) else int(done.code or 0)
    except (ConfigError, CheckpointError) as error:
        print(f"ecgnat: {error}", file=sys.stderr)
        return 2
    except WatchdogError as error:
        from ecgnat_stream.cli.guard import DIED

        print(f"ecgnat: {error}", file=sys.stderr)
        return DIED
    except EcgnatError as error:
        if isinstance(error, streams.OutputError):
            streams.let_go()
        print(f"ecgnat: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        streams.let_go()  # the reader has seen enough
        return 0
    except OSError as error:  # what the system refuses, a full disk say, is no defect of ours
        what = f"{error.filename}: " if error.filename is not None else ""
        print(f"ecgnat: {cleaned(f'{what}{error.strerror or error}', 1000)}", file=sys.stderr)
        return 1


def _help_asked(words: Sequence[str]) -> Sequence[str]:
    """Return ``help`` and ``help COMMAND`` as what they mean, ``--help``."""
    return [*words[1:2], "--help"] if list(words[:1]) == ["help"] else words


def _check_folder() -> None:
    """Refuse a working folder that is gone: a library that asks for it ends the process without a word that helps."""
    try:
        os.getcwd()
    except OSError as error:
        raise ConfigError(f"the working folder cannot be used ({error.strerror}): change to one that is there") from error


def _run(arguments: argparse.Namespace) -> int:
    try:
        return int(arguments.command(arguments))
    except OSError:
        _log.debug("where the system refused something", exc_info=True)
        raise


class _Parser(argparse.ArgumentParser):
    """Proposes a command or a value that may have been meant; argparse makes the parsers of commands of the same class."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        is_command = isinstance(action, argparse._SubParsersAction)
        text = unknown("command" if is_command else "value", str(value), map(str, action.choices))
        raise argparse.ArgumentError(None if is_command else action, text)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = _Parser(
        prog="ecgnat",
        description=f"Real-time ECG rhythm monitoring.\n{NOT_A_DEVICE}",
        epilog="""examples:
  ecgnat demo                                   simulated beds in the dashboard, nothing else needed
  ecgnat demo --headless --seconds 30 | jq .    the same as JSON, one event per line
  ecgnat replay mitdb/100 --speed 1             a WFDB record in the dashboard, in real time
  ecgnat replay a.edf b.hea --headless --speed max --record out | jq 'select(.type == "alarm")'
  ecgnat analyse mitdb --html report            a folder of recordings: table, and a page for each
  ecgnat run --example > ward.toml; ecgnat run ward.toml
  ecgnat alarms alarms.db --since 8h --summary  what a monitor with a [history] has written down
  ecgnat command acknowledge --bed home/icu/1 --mqtt mqtt://localhost
  ecgnat models                                 the networks that ship, and how good they are
  ecgnat bench                                  how many beds this machine carries, and where the time goes
  ecgnat doctor                                 what is installed, compiled, reachable
  ecgnat compile                                prepare all that can be compiled, for faster starts and steps
  eval "$(ecgnat completion bash)"              let the tab key complete all of this""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ecgnat-stream {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for one in (demo, run, replay, analyse, alarms, command, score, models, devices, bench, doctor, compile, completion):
        one.add(commands)
    for each in (parser, *commands.choices.values()):
        add_logging(each)
    return parser
