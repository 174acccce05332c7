"""The scripts of train/runs ask the programs for what they know: options, arms, encoders that were trained before."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from train.compare.arms import ARMS

RUNS = Path(__file__).parents[2] / "train" / "runs"

_FAKE = """#!{python}
import json, os, sys
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
"""


@pytest.fixture
def calls(tmp_path: Path, request: pytest.FixtureRequest) -> list[list[str]]:
    """What a script would run: the arguments behind ``python`` and ``torchrun``, which are played by a recorder."""
    fakes, log, data = tmp_path / "bin", tmp_path / "calls", tmp_path / "data"
    fakes.mkdir()
    data.mkdir()
    copy = tmp_path / "checkout" / "train" / "runs" / request.param
    copy.parent.mkdir(parents=True)  # a checkout of its own: what the script makes of folders and links stays in it
    copy.write_bytes((RUNS / request.param).read_bytes())
    shutil.copytree(RUNS / "steps", copy.parent / "steps")
    for folder in ("ptbxl", "splits.csv"):
        (data / folder).mkdir()
    for name in ("python", "torchrun"):
        (fakes / name).write_text(_FAKE.format(python=sys.executable))
        (fakes / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{fakes}{os.pathsep}{os.environ['PATH']}", "CALLS": str(log)}
    arguments = [] if request.param == "comparison.sh" else [str(data)]
    done = subprocess.run(["bash", str(copy), *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.parametrize("calls", ["comparison.sh", "cpu.sh", "full.sh", "shipped.sh"], indirect=True)
def test_a_script_asks_for_what_there_is(calls: list[list[str]]) -> None:
    made: set[str] = set()
    for call in calls:
        if "-m" not in call:
            assert call == ["scripts/results_docs.py"]
            continue
        name, *given = call[call.index("-m") + 1 :]
        program = import_module(name)
        if name in ("train.pretrain", "train.finetune", "train.study"):
            asked = program.options().parse_args(given)
            if name == "train.study":
                inits = dict(asked.init)
                for arm in asked.arms:
                    assert not ARMS[arm].init or inits[ARMS[arm].init] in made, arm
            elif name == "train.finetune":
                assert asked.init is None or str(asked.init) in made
            made.add(f"{asked.out}/checkpoint")
    assert made


@pytest.mark.parametrize("calls", ["comparison.sh"], indirect=True)
def test_the_minute_of_every_network_that_is_compared_is_kept(calls: list[list[str]]) -> None:
    """What a file of steps does not hold is measured, and another machine makes other runs."""
    studies = [import_module("train.study").options().parse_args(call[2:]) for call in calls if call[:2] == ["-m", "train.study"]]
    assert len(studies) > 5
    for asked in studies:
        known = json.loads((RUNS / "steps" / f"{asked.task}.steps").read_bytes())
        for arm in (ARMS[name] for name in asked.arms):
            assert arm.probe or f"{arm.trained} {asked.size} {asked.batch}" in known
