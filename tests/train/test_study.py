"""A study of two steps: one row per run, nothing done twice, nothing mixed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from ecgnat_stream.model import load_checkpoint
from train import study
from train.compare.arms import ARMS
from train.fit.loop import World

ALONE = World(torch.device("cpu"))


@pytest.fixture
def labelled(cache: Path) -> Path:
    records = msgspec.json.decode((cache / "records.json").read_bytes())
    for number, record in enumerate(records):
        record |= {"database": "cinc2017", "screen": number % 2, "split": ("train", "val", "test")[number % 12 // 4]}
    (cache / "records.json").write_bytes(msgspec.json.encode(records))
    return cache


def run(cache: Path, out: Path, *extra: str) -> None:
    options = ["--cache", str(cache), "--out", str(out), "--task", "cinc2017", "--fractions", "1", "--keep"]
    study.main(study.options().parse_args([*options, *extra]), ALONE)


def test_every_run_has_its_row_and_is_not_made_twice(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    arms = ("beatnet", "clear-hug-scratch", "random-init-probe", "scratch", "xresnet1d101")
    given = ("--seeds", "0,1", "--batch", "4", "--arms", "scratch,beatnet,clear-hug scratch,xresnet1d101,random-init probe")
    run(labelled, out, *given, "--steps", "2")
    files = sorted(out.glob("*.json"))
    assert [file.name for file in files] == [f"cinc2017-2steps-{arm}-1-{seed}.json" for arm in arms for seed in (0, 1)]
    rows = [msgspec.json.decode(file.read_bytes()) for file in files]
    assert [row["steps"] for row in rows[::2]] == [2, 2, 0, 2, 2]
    first, second = rows[:2]
    assert (first["arm"], first["minutes"], first["records"]) == ("beatnet", 0, 4)
    assert first["left_out"] == ["N", "A", "O", "~"], "none of the classes has ten test records"
    assert first["robustness"]["clean"] is None
    assert "robustness" not in second, "only the first seed is read under every condition"
    network, _ = load_checkpoint(files[0].with_suffix(""))
    assert network.config.window_classes == ("N", "A", "O", "~")
    before = [file.stat().st_mtime_ns for file in files]
    run(labelled, out, *given, "--steps", "2")
    assert [file.stat().st_mtime_ns for file in files] == before
    run(labelled, out, "--seeds", "0", "--batch", "4", "--arms", "beatnet", "--steps", "3")
    assert (out / "cinc2017-3steps-beatnet-1-0.json").exists()


def test_rows_of_other_settings_are_not_mixed_in(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    run(labelled, out, "--seeds", "0", "--arms", "random-init probe")
    with pytest.raises(SystemExit, match=r"cinc2017-1min-random-init-probe-1-0.json: made with \{'lr': 0.001\}"):
        run(labelled, out, "--seeds", "0", "--arms", "random-init probe", "--lr", "0.002")


def test_an_arm_that_begins_with_an_encoder_is_given_one(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="give --init clear-dense=CHECKPOINT"):
        run(labelled, tmp_path / "study", "--steps", "1", "--arms", "clear-hug dense")
    assert ARMS["clear-hug dense"].attention == "dense"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--arms", "beatnet,foo"], "unknown arm 'foo': one of ecgnat, "),
        (["--arms", "beatnet", "--fractions", "1,-1"], "--fractions -1: want parts"),
        (["--arms", "beatnet", "--batch", "0"], "arguments.batch=0"),
        (["--arms", "beatnet", "--minutes", "0"], "arguments.minutes=0"),
        (["--arms", "beatnet", "--size", "huge"], "arm 'beatnet': unknown size of beatnet 'huge'"),
        (["--arms", "beatnet,ecgnat", "--init", "ecgnat=nowhere"], "arm 'ecgnat': .*nowhere"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is(labelled: Path, tmp_path: Path, given: list[str], said: str) -> None:
    out = tmp_path / "study"
    with pytest.raises(SystemExit, match=said):
        run(labelled, out, "--seeds", "0", *given)
    assert not out.exists()


@pytest.mark.parametrize("given", [["--init", "foo"], ["--fractions", "x"], ["--seeds", "0.5"]])
def test_options_that_cannot_be_read(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        study.options().parse_args(["--cache", "c", "--out", "o", *given])
    assert f"argument {given[0]}: want" in capsys.readouterr().err


def test_arms_that_train_the_same_network_make_the_same_steps() -> None:
    trained = {name: arm.trained for name, arm in ARMS.items()}
    assert trained["clear-hug"] == trained["clear-hug dense pretraining"] == trained["clear-hug scratch"] == "clear hug"
    assert trained["scratch"] == trained["no-contrastive"] == trained["no-contrastive beats"] == "ecgnat"
    assert trained["ecgnat"] == trained["no-pretraining"] == "ecgnat contrast"
    others = ("clear-hug dense", "clear", "clear-hug-gelu", "ecgnat-hug", "beatnet", "xresnet1d101", "full-attention")
    assert len({trained[name] for name in (*others, "clear-hug", "scratch", "ecgnat")}) == 10
