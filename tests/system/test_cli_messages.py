"""What the program says about its work, and how much of it: -v, --log-level, --log-file; and that asking for help stays cheap."""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ecgnat_stream.cli import main, parser, progress
from ecgnat_stream.cli.logs import kept_back, logging_as_told, told
from ecgnat_stream.cli.progress import progress_line
from ecgnat_stream.ward import BedProgress

LOG = logging.getLogger("ecgnat_stream.some.stage")
FOREIGN = logging.getLogger("somebody.else")


def say_everything() -> None:
    for log in (LOG, FOREIGN):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            log.log(level, "%s of %s", logging.getLevelName(level), log.name.split(".")[0])


@pytest.mark.parametrize(
    ("given", "ours", "foreign"),
    [
        ([], ["WARNING", "ERROR"], ["WARNING", "ERROR"]),
        (["-v"], ["INFO", "WARNING", "ERROR"], ["WARNING", "ERROR"]),
        (["-vv"], ["DEBUG", "INFO", "WARNING", "ERROR"], ["INFO", "WARNING", "ERROR"]),
        (["--log-level", "error"], ["ERROR"], ["ERROR"]),
        (["-vv", "--log-level", "info"], ["INFO", "WARNING", "ERROR"], ["WARNING", "ERROR"]),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_how_much_is_said(
    given: list[str], ours: list[str], foreign: list[str], before: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = parser().parse_args([*given, "devices"] if before else ["devices", *given])
    with logging_as_told(arguments):
        say_everything()
    said = [line.removeprefix("ecgnat: ") for line in capsys.readouterr().err.splitlines()]
    assert [line.split(" of ")[0].split()[-1] for line in said if line.endswith("ecgnat_stream")] == ours
    assert [line.split(" of ")[0].split()[-1] for line in said if line.endswith("somebody")] == foreign
    say_everything()
    assert not [line for line in capsys.readouterr().err.splitlines() if "DEBUG" in line], "it is as it was before"


def test_a_file_takes_what_is_said_with_time_and_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log"
    with logging_as_told(parser().parse_args(["devices", "-v", "--log-file", str(path)])):
        say_everything()
    assert capsys.readouterr().err == ""
    line = path.read_text(encoding="utf-8").splitlines()[0]
    assert line.endswith("INFO ecgnat_stream.some.stage: INFO of ecgnat_stream")
    assert line[:4].isdigit()


def test_a_file_that_cannot_be_written_to_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["devices", "--log-file", "/dev/null/log"])
    assert "--log-file /dev/null/log: cannot be written to" in capsys.readouterr().err


def test_what_the_system_refuses_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(_: argparse.Namespace) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere/else")

    monkeypatch.setattr("ecgnat_stream.cli.devices._devices", full)
    with pytest.raises(SystemExit, match="1"):
        main(["devices"])
    assert capsys.readouterr() == ("", "ecgnat: /somewhere/else: No space left on device\n")


def test_what_is_said_while_the_dashboard_draws_comes_when_it_is_closed(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_as_told(parser().parse_args(["demo"])):
        with kept_back():
            for number in range(300):
                LOG.warning("line %d", number)
            assert capsys.readouterr().err == ""
        said = capsys.readouterr().err.splitlines()
        LOG.warning("behind")
    assert (said[0], said[-1], len(said)) == ("ecgnat: line 100", "ecgnat: line 299", 200)
    assert capsys.readouterr().err == "ecgnat: behind\n"


def test_one_source_may_inform_where_only_warnings_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for given, expected in (([], "ecgnat: here\n"), (["--log-level", "error"], "")):
        with logging_as_told(parser().parse_args(["demo", *given])), told(LOG.name):
            LOG.info("here")
        assert capsys.readouterr().err == expected


def test_every_command_has_the_options() -> None:
    commands = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    assert len(commands.choices) >= 10
    for name in commands.choices:
        text = commands.choices[name].format_help()
        for option in ("--verbose", "--log-level", "--log-file"):
            assert option in text, name


def test_help_needs_none_of_the_heavy_packages() -> None:
    program = (
        "import sys\n"
        "from ecgnat_stream.cli import parser\n"
        "parser().format_help()\n"
        "heavy = {'torch', 'textual', 'aiomqtt', 'rich', 'numpy', 'scipy', 'wfdb', 'asyncio', 'argcomplete'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_progress_in_one_line() -> None:
    beds = [BedProgress("a", 300.0, 600.0), BedProgress("b", 600.0, 600.0), BedProgress("live", 50.0, None)]
    assert progress_line(beds, 30.0) == "75 % of 1200 s in 2 recordings, about 10 s left"
    assert progress_line(beds[1:2], 30.0) == "100 % of 600 s in 1 recording"
    assert progress_line(beds[2:], 30.0) == ""


def test_many_recordings_share_a_bar() -> None:
    few = [BedProgress(f"r{i}", 10.0 * i, 100.0) for i in range(3)]
    assert progress._bars(few) == [("r0", 0.0, 100.0), ("r1", 10.0, 100.0), ("r2", 20.0, 100.0)]
    assert progress._bars([BedProgress(f"r{i}", 10.0, 100.0) for i in range(40)]) == [("40 recordings", 400.0, 4000.0)]


@pytest.mark.parametrize("verbose", [True, False])
async def test_without_a_terminal_progress_is_information(
    verbose: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told_once = asyncio.Event()

    class Half:
        def progress(self) -> list[BedProgress]:
            told_once.set()
            return [BedProgress("a", 5.0, 10.0)]

    monkeypatch.setattr(progress, "_LINE_S", 0.0)
    with logging_as_told(parser().parse_args(["replay", "a", *(["-v"] if verbose else [])])):
        async with progress.progress_shown(Half()):  # type: ignore[arg-type]
            await told_once.wait()
    assert ("50 % of 10 s in 1 recording" in capsys.readouterr().err) == verbose


def test_a_message_is_one_line_that_moves_no_cursor(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = logging.getLogger("ecgnat_stream.test")
    with logging_as_told(argparse.Namespace(log_file=path, log_level="info")):
        log.info("%s: offline, %s", "bed-1", "\x1b[2J\x9b31mgone\n2026-01-01 WARNING all is well")
        try:
            raise OSError("\x1b]0;owned\x07 no disk")
        except OSError:
            log.exception("a sink\u202e has failed")
    text = path.read_text(encoding="utf-8")
    assert all(line.isprintable() for line in text.splitlines())
    odd = "\N{REPLACEMENT CHARACTER}"
    assert f"bed-1: offline, {odd}gone 2026-01-01 WARNING all is well\n" in text
    assert f"a sink{odd} has failed\nTraceback" in text and f"OSError: {odd} no disk" in text
