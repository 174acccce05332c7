"""A few damaged inputs through every target, and the driver itself: ``python -m tests.fuzz`` puts a million through."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ecgnat_stream.errors import FrameError
from tests.fuzz.mutate import Mutator
from tests.fuzz.run import run
from tests.fuzz.targets import TARGETS, Take, Target

ROOT = Path(__file__).parents[2]
FEW = 150


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_raise_nothing_but_what_is_meant_for_them(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    taker = run(target, tmp_path, round(FEW * min(1.0, target.share / 10)), seed=20)
    assert [finding.what for finding in taker.found.values()] == []
    assert taker.inputs >= 15


@pytest.mark.filterwarnings("ignore:samples. its leads move")
@pytest.mark.parametrize("name", TARGETS)
def test_some_of_the_whole_inputs_are_taken(name: str, tmp_path: Path) -> None:
    take = TARGETS[name].prepare(tmp_path)
    taken = 0
    for data in TARGETS[name].seeds():
        try:
            take(data)
            taken += 1
        except TARGETS[name].allowed:
            continue
    assert taken or name == "model-weights", "with nothing but refused inputs a target tries nothing"


def test_the_same_seed_gives_the_same_inputs_and_another_one_others() -> None:
    first, again, other = (Mutator([b"abc 12\nx", b"{}"], [b"w"], seed) for seed in (1, 1, 2))
    inputs = [first.next() for _ in range(200)]
    assert inputs == [again.next() for _ in range(200)]
    assert inputs != [other.next() for _ in range(200)]
    assert len(set(inputs)) > 150


def _spoilt(_: Path) -> Take:
    def take(data: bytes) -> None:
        if data.startswith(b"a"):
            raise FrameError("no frame")
        if data.startswith(b"b"):
            raise FrameError("")
        if data.startswith(b"c"):
            raise KeyError("c")
        while data.startswith(b"d"):
            pass

    return take


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"a", []), (b"b", ["an error without a word"]), (b"c", ["KeyError"]), (b"d", ["TooLong"]), (b"x", [])],
)
def test_what_an_input_may_not_do_is_found(data: bytes, said: list[str], tmp_path: Path) -> None:
    target = Target("spoilt", 1, lambda: [data], _spoilt, (FrameError,))
    taker = run(target, tmp_path, 1, seed=1, limit_s=0.05)
    assert [finding.what.partition(":")[0] for finding in taker.found.values()] == said


@pytest.mark.timeout(120)
def test_the_driver_prints_what_it_did(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--inputs", "500", "--target", "event-json", "--findings", str(tmp_path / "found")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [["event-json", "500"], ["all", "500"]]
    assert not (tmp_path / "found").exists()
