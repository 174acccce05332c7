"""The service of systemd in examples: its command is understood, and what it promises fits the monitor."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ecgnat_stream.cli import parser
from ecgnat_stream.cli.guard import LEAVE_S

UNIT = Path(__file__).parents[2] / "examples" / "ecgnat.service"
SETTINGS: dict[str, list[str]] = {}
for _name, _value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text(encoding="utf-8"), flags=re.M):
    SETTINGS.setdefault(_name, []).append(_value)


def seconds(name: str) -> float:
    return float(SETTINGS[name][0])


def test_its_command_is_understood() -> None:
    program, *arguments = SETTINGS["ExecStart"][0].split()
    assert program.endswith("/ecgnat")
    known = parser().parse_args(arguments)
    assert known.headless
    assert known.config == Path("/etc/ecgnat/ward.toml")


def test_a_monitor_is_started_again_whatever_ended_it() -> None:
    assert SETTINGS["Restart"] == ["always"]
    assert "RestartPreventExitStatus" not in SETTINGS
    assert SETTINGS["StartLimitIntervalSec"] == ["0"]
    assert seconds("TimeoutStopSec") > LEAVE_S


def test_what_cannot_be_set_is_not() -> None:
    # torch writes code while it runs; libzmq aborts where it may not set the scheduling of its threads.
    assert "MemoryDenyWriteExecute" not in SETTINGS
    assert not any("@resources" in value for value in SETTINGS["SystemCallFilter"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_it_closed() -> None:
    command = ["systemd-analyze", "security", "--offline=true", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= 2.0
