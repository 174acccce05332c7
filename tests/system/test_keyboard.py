"""Where the dashboard takes keys from: a terminal, and nothing else."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.test_cli_signals import DEMO, ENDS_WITHIN_S, read_until

KEYS = b"aaaappprrrqqq\n\x03qq"


@pytest.mark.parametrize("given", ["file", "pipe", "nothing", "closed"])
def test_what_no_person_has_pressed_is_no_key(given: str, untrained: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_bytes(KEYS)
    history = tmp_path / "alarms.db"
    command = [*DEMO, "--model", str(untrained), "--history", str(history)]
    ours, theirs = pty.openpty()
    reading, writing = os.pipe()
    os.write(writing, KEYS)
    stdin = {"file": os.open(keys, os.O_RDONLY), "pipe": reading, "nothing": os.open(os.devnull, os.O_RDONLY)}
    closing = "import os, sys; os.close(0); os.execv(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", closing, *command] if given == "closed" else command,
        stdin=stdin.get(given, theirs),
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30", "TEXTUAL_DRIVER": "no.such:Driver"},
    )
    os.close(theirs)
    said = read_until(ours, lambda said: b"no keys" in said and said.count(b"bpm") > 0)
    said += read_until(ours, lambda said: said.count(b"RR ") > 3)  # it goes on
    assert b"standard input is no terminal: the dashboard takes no keys" in said.split(b"\x1b[?1049h")[0], "said at the start"
    assert process.poll() is None
    for asked in (b"\x1b[?1000h", b"\x1b[?1004h", b"\x1b[?2004h", b"\x1b[?2048$p", b"\x1b[>"):
        assert asked not in said, "nothing makes the terminal answer to nobody"
    process.send_signal(signal.SIGTERM)
    read_until(ours, lambda said: False)
    assert process.wait(timeout=ENDS_WITHIN_S) == 0
    for descriptor in (ours, writing, *stdin.values()):
        os.close(descriptor)
    commands = subprocess.run(
        [*DEMO[:3], "alarms", str(history), "--commands", "--csv"],
        capture_output=True,
        text=True,
        check=True,
        timeout=ENDS_WITHIN_S,
    )
    assert commands.stdout.splitlines()[1:] == [], "nobody ordered anything"
