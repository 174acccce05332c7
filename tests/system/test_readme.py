"""The README's commands are commands, and its links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ecgnat_stream.cli import parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, flags=re.S)
COMMANDS = [line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines() if line.startswith("./run")]


def calls(command: str) -> list[list[str]]:
    """Return the arguments of every ./run within a line."""
    return [shlex.split(part)[1:] for part in re.split(r"\||&&|>", command) if part.strip().startswith("./run")]


def test_the_two_commands_are_there() -> None:
    assert COMMANDS[:2] == ["./run demo", "./run test"]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "./run test"])
def test_every_command_is_understood(command: str) -> None:
    for arguments in calls(command):
        parser().parse_args(arguments)


def test_every_link_leads_to_a_file() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


@pytest.mark.data
@pytest.mark.parametrize("command", [c for c in COMMANDS if "replay" in c and "--headless" in c])
def test_the_replays_run(command: str, data_root: Path) -> None:
    line = command.replace("./run", f"{sys.executable} -m ecgnat_stream.cli")
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=data_root,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env=os.environ,
    )
    assert result.returncode == 0, result.stderr
    assert '"condition":"ventricular-fibrillation"' in result.stdout
