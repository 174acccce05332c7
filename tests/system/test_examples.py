"""Every program in examples/ is short and runs anywhere, with data that it makes itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted((ROOT / "examples").glob("*.py"))
PRINTS = {
    "analyse_array.py": r"high priority: ventricular-",
    "analyse_folder.py": r"\naf\.csv,\d+,\d+,[A-Z ]*AF",
    "central_station.py": r"home/icu/1: high asystole.* \(start\)",
    "monitor_asyncio.py": r"asystole",
    "own_sink.py": r"high,ventricular-tachycardia,start",
    "tcp_device.py": r"bed-1 \d+\.\d",
}
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "devices"), os.environ.get("PYTHONPATH", "")])}


def test_there_are_six_and_each_is_short() -> None:
    assert [path.name for path in PROGRAMS] == sorted(PRINTS)
    for path in PROGRAMS:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 40, path.name


@pytest.mark.timeout(120)
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_it_runs_and_prints_what_it_is_for(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", str(path)],
        env=ENVIRONMENT,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(PRINTS[path.name], done.stdout), done.stdout
