"""How a monitor ends when it is told to: SIGTERM and SIGHUP (the terminal is gone), headless and with the dashboard."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

DEMO = [sys.executable, "-m", "ecgnat_stream.cli", "demo", "--beds", "1"]
ENDS_WITHIN_S = 60


def read_until(descriptor: int, seen: Callable[[bytes], bool]) -> bytes:
    """Read from a pipe or terminal until something is seen there, or its end."""
    said = b""
    until = time.monotonic() + ENDS_WITHIN_S
    while not seen(said):
        ready, _, _ = select.select([descriptor], [], [], until - time.monotonic())
        assert ready, said
        try:
            more = os.read(descriptor, 65536)
        except OSError:  # a terminal whose other side is closed
            return said
        if not more:
            return said
        said += more
    return said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_headless_monitoring_ends_cleanly(number: signal.Signals, untrained: Path, tmp_path: Path) -> None:
    recordings = tmp_path / "recordings"
    command = [*DEMO, "--headless", "--model", str(untrained), "--record", str(recordings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), lambda said: b'"type":"vitals"' in said)
        process.send_signal(number)
        out, error = process.communicate(timeout=ENDS_WITHIN_S)
    assert process.returncode == 0, error
    assert b"Traceback" not in error
    assert b"the monitor has ended" in out
    assert list(recordings.rglob("*.hea")), "the recording was closed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_dashboard_ends_cleanly(number: signal.Signals, untrained: Path) -> None:
    process, terminal = started_in_a_terminal(untrained)
    read_until(terminal, lambda said: b"bed-1" in said and b"bpm" in said)
    process.send_signal(number)
    said = read_until(terminal, lambda said: False)
    assert process.wait(timeout=ENDS_WITHIN_S) == 0
    assert b"Traceback" not in said
    assert b"\x1b[?1049l" in said, "the screen is given back"


def test_the_dashboard_ends_when_its_terminal_is_gone(untrained: Path) -> None:
    process, terminal = started_in_a_terminal(untrained)
    read_until(terminal, lambda said: b"bed-1" in said and b"bpm" in said)
    os.close(terminal)  # the kernel sends SIGHUP, and writing to the terminal fails from now on
    assert process.wait(timeout=ENDS_WITHIN_S) == 0


IN_A_TERMINAL = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


def started_in_a_terminal(model: Path, *options: str) -> tuple[subprocess.Popen[bytes], int]:
    """Return a demo that a terminal of its own controls, and what is on the other side of the terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", IN_A_TERMINAL, *DEMO, "--model", str(model), *options],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
    )
    os.close(theirs)
    return process, ours


def test_a_terminal_that_nobody_reads_stops_neither_the_monitoring_nor_its_end(untrained: Path, tmp_path: Path) -> None:
    recordings = tmp_path / "recordings"
    process, terminal = started_in_a_terminal(untrained, "--record", str(recordings))
    read_until(terminal, lambda said: b"bed-1" in said and b"bpm" in said)
    time.sleep(12)  # longer than an event loop may stand still, which would end the process
    assert process.poll() is None
    (samples,) = recordings.rglob("*.dat")
    size = samples.stat().st_size
    time.sleep(3)
    assert samples.stat().st_size > size, "the recording goes on"
    read_until(terminal, lambda said: said.count(b"bed-1") > 1)  # what was left out is drawn anew
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=ENDS_WITHIN_S) == 0


def test_an_error_pipe_that_nobody_reads_stops_nothing(untrained: Path) -> None:
    command = [*DEMO, "--headless", "--model", str(untrained), "-vv"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        seen = read_until(process.stdout.fileno(), lambda said: said.count(b'"type":"vitals"') > 25)
        assert process.poll() is None, seen[-300:]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=ENDS_WITHIN_S)
    assert process.returncode == 0
