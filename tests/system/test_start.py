"""A stranger's walk: every block of docs/start.md is run as printed, in the order of the page; only ports are put in."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ecgnat_stream.cli import parser

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', PAGE, flags=re.M | re.S)
"""(language, name of the file, text) of every block; a block without a name belongs to the notebook or to the terminal."""

FILES = {name: text for _, name, text in BLOCKS if name}
LINES = [line for language, _, text in BLOCKS if language == "sh" for line in text.splitlines()]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "devices"), os.environ.get("PYTHONPATH", "")]),
    "MPLBACKEND": "agg",
}
pytestmark = pytest.mark.timeout(180)


def terminal(line: str) -> list[str]:
    """Return a line of the page as this interpreter runs it."""
    words = shlex.split(line)
    return [sys.executable, "-m", "ecgnat_stream.cli", *words[1:]] if words[0] == "ecgnat" else words


@asynccontextmanager
async def running(*command: str, cwd: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line_with(process: asyncio.subprocess.Process, text: str, seconds: float = 60) -> str:
    """Return the next line that holds a text; an end without it is an error that shows what the program complained of."""
    assert process.stdout is not None and process.stderr is not None
    async with asyncio.timeout(seconds):
        while line := (await process.stdout.readline()).decode():
            if text in line:
                return line
        pytest.fail(f"ended without {text!r}: {(await process.stderr.read()).decode()[-2000:]}")


def test_every_block_is_known() -> None:
    assert set(FILES) == {"heart.toml", "amplifier.py", "my_device.py", "ward.toml", "listen.py"}
    assert {language for language, _, _ in BLOCKS} == {"sh", "python", "toml"}
    assert {line.split()[0] for line in LINES} == {"./run", ".", "ecgnat", "mosquitto_sub"}
    assert len(FILES["my_device.py"].split("async def samples")[1].strip().splitlines()) <= 22, "a device in 20 lines"


def test_the_first_lines_are_those_of_the_readme_and_understood() -> None:
    assert LINES[:2] == ["./run demo", ". .venv/bin/activate"]
    parser().parse_args(["demo"])
    assert "./run demo" in (ROOT / "README.md").read_text(encoding="utf-8")


async def test_the_notebook_and_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All unnamed blocks, one after the other, in one folder and one namespace."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    names: dict[str, Any] = {}
    for language, name, text in BLOCKS:
        if language == "python" and not name:
            running = eval(compile(text, "docs/start.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
            if inspect.isawaitable(running):
                await running
        for line in text.splitlines() if language == "sh" else ():
            if line.startswith("ecgnat"):
                done = await asyncio.to_thread(
                    subprocess.run, terminal(line), env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=150
                )
                assert done.returncode == 0, done.stderr
    analysis = names["analysis"]
    assert {"N", "V"} <= set(analysis.beats["label"].tolist())
    assert len(names["ventricular"]) and len(names["table"]) == len(analysis.beats)
    assert "AF" in analysis.rhythm["label"]
    assert {"found.csv", "mine.json", "annotated", "report"} <= set(os.listdir(tmp_path))
    assert "index.html" in os.listdir(tmp_path / "report")
    assert len(names["twelve"]) == 12 and names["event"].condition == "asystole"


async def test_the_device_of_ones_own_is_lost_and_found_again(tmp_path: Path, free_port: int) -> None:
    for name in ("amplifier.py", "my_device.py"):
        assert "4000" in FILES[name]
        (tmp_path / name).write_text(FILES[name].replace("4000", str(free_port)))
    async with running(sys.executable, "my_device.py", cwd=tmp_path) as monitor:
        async with running(sys.executable, "amplifier.py", cwd=tmp_path):
            assert "bed-1" in await line_with(monitor, "sinus rhythm")
        assert "no data from the device" in await line_with(monitor, "no data")
        async with running(sys.executable, "amplifier.py", cwd=tmp_path):
            await line_with(monitor, "sinus rhythm")


@pytest.mark.skipif(shutil.which("mosquitto_sub") is None, reason="mosquitto_sub is not installed")
async def test_alarms_arrive_over_mqtt_and_zeromq(tmp_path: Path, start_mosquitto: Any, free_port: int) -> None:
    server = await start_mosquitto()
    ward = FILES["ward.toml"].replace("mqtt://localhost", server.url).replace("5556", str(free_port))
    (tmp_path / "ward.toml").write_text(ward)
    (tmp_path / "listen.py").write_text(FILES["listen.py"].replace("5556", str(free_port)))
    (line,) = [line for line in LINES if line.startswith("mosquitto_sub")]
    subscriber = terminal(line.replace("-h localhost", f"-h 127.0.0.1 -p {server.port}"))
    assert "`ecgnat run ward.toml` runs it" in PAGE
    async with (
        running(sys.executable, "listen.py", cwd=tmp_path) as listener,
        running(*subscriber, cwd=tmp_path) as reader,
        running(*terminal("ecgnat run ward.toml --headless"), cwd=tmp_path),
    ):
        assert "/alarm/event" in await line_with(listener, '"condition":"asystole"')
        await line_with(reader, '"condition":"asystole"')
