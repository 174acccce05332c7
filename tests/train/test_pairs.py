"""Pairs of arms: their difference is that of the same test records, and seeds count together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from train.compare.pairs import differences, joined_differences
from train.compare.study_page import Apart
from train.report import report

STATED = np.arange(80)[:, None] % 4 == np.arange(4)
"""Of four classes twenty records each."""

SAME = {"csn-1": {"HUG over a linear head": Apart((0,), (0.0, 0.0, 0.0))}}


def write(
    folder: Path, arm: str, seed: int, said: NDArray[np.float64], stated: NDArray[Any] = STATED, fraction: float = 1
) -> None:
    file = folder / f"csn-1min-{arm}-{fraction:g}-{seed}.json"
    row = {"arm": arm, "task": "csn", "fraction": fraction, "seed": seed, "minutes": 1, "auroc": (0.8, 0.7, 0.9), "other": 1}
    file.write_bytes(msgspec.json.encode(row))
    names = [f"csn/JS{number:05d}" for number in range(len(stated))]
    np.savez(file.with_suffix(".npz"), records=names, stated=stated, said=said.astype(np.float32))


def guess(seed: int, skill: float) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=STATED.shape).astype(np.float32) + skill * STATED


def test_a_difference_is_the_mean_over_seeds_that_both_have(tmp_path: Path) -> None:
    for seed in (0, 1):
        write(tmp_path, "beatnet", seed, guess(seed, 2))
        write(tmp_path, "xresnet1d101", seed, guess(10 + seed, 1))
    write(tmp_path, "beatnet", 2, guess(2, 9))
    write(tmp_path, "clear", 0, guess(3, 9), fraction=0.1)
    write(tmp_path, "clear-hug", 0, guess(4, 9))
    found = differences(tmp_path)
    assert found.keys() == {"csn-1"}
    assert found["csn-1"].keys() == {"BEAT-Net over a convolutional network"}, "clear has no run with all labels"
    assert found["csn-1"]["BEAT-Net over a convolutional network"].seeds == (0, 1)
    value, low, high = found["csn-1"]["BEAT-Net over a convolutional network"].interval
    ours, theirs = ([roc_auc_score(STATED, guess(at + seed, skill)) for seed in (0, 1)] for at, skill in ((0, 2), (10, 1)))
    assert value == pytest.approx(np.mean(ours) - np.mean(theirs), abs=1e-4)
    assert low < value < high


def test_the_same_answers_do_not_differ_whatever_records_are_drawn(tmp_path: Path) -> None:
    for arm in ("clear", "clear-hug"):
        write(tmp_path, arm, 0, guess(0, 1))
    assert differences(tmp_path) == SAME


def test_classes_that_are_rarely_stated_do_not_count(tmp_path: Path) -> None:
    rare = STATED & (np.arange(80)[:, None] < [80, 80, 80, 30])
    worse = guess(0, 1)
    worse[:, 3] *= -1
    write(tmp_path, "clear", 0, worse, rare)
    write(tmp_path, "clear-hug", 0, guess(0, 1), rare)
    assert differences(tmp_path) == SAME
    for arm in ("clear", "clear-hug"):
        write(tmp_path, arm, 0, guess(0, 1), np.zeros_like(STATED))
    assert differences(tmp_path) == {}, "nothing can be measured"


def test_the_report_keeps_them_for_a_page_without_the_runs(tmp_path: Path) -> None:
    for arm, skill in (("clear", 1), ("clear-hug", 2)):
        write(tmp_path, arm, 0, guess(0, skill))
    out = tmp_path / "out"
    report(tmp_path / "nowhere", tmp_path, out)
    before = (out / "study.md").read_text()
    (line,) = [line for line in before.splitlines() if line.startswith("| HUG over a linear head |")]
    assert re.fullmatch(r" 0\.\d+ \(0\.\d+ to 0\.\d+\), n 1 ", line.split("|")[-2])
    report(tmp_path / "nowhere", tmp_path / "nowhere", out)
    assert (out / "study.md").read_text() == before


def test_a_study_goes_on_where_its_first_runs_are_not(tmp_path: Path) -> None:
    first, second, out = (tmp_path / name for name in ("first", "second", "out"))
    first.mkdir()
    second.mkdir()
    for arm, skill in (("clear", 1), ("clear-hug", 2), ("beatnet", 3), ("xresnet1d101", 1)):
        write(first, arm, 0, guess(0, skill))
    report(tmp_path / "nowhere", first, out)
    before = msgspec.json.decode((out / "pairs.json").read_bytes())["csn-1"]
    for arm, skill in (("clear", 2), ("clear-hug", 1)):  # made again: HUG is worse now
        write(second, arm, 0, guess(0, skill))
    row = {"arm": "clear", "task": "csn", "fraction": 1, "seed": 0, "minutes": 1, "auroc": (0.9, 0.8, 1.0)}
    (second / "csn-1min-clear-1-0.json").write_bytes(msgspec.json.encode(row))
    report(tmp_path / "nowhere", second, out)
    lines = [msgspec.json.decode(line) for line in (out / "study.jsonl").read_bytes().splitlines()]
    assert [(line["arm"], line["auroc"][0]) for line in lines] == [
        ("beatnet", 0.8), ("clear", 0.9), ("clear-hug", 0.8), ("xresnet1d101", 0.8)
    ]  # fmt: skip
    pairs = msgspec.json.decode((out / "pairs.json").read_bytes())["csn-1"]
    assert pairs.keys() == before.keys() and len(pairs) == 2
    assert pairs["BEAT-Net over a convolutional network"] == before["BEAT-Net over a convolutional network"]
    assert pairs["HUG over a linear head"]["interval"][0] < 0 < before["HUG over a linear head"]["interval"][0]


def test_an_interval_of_more_seeds_is_not_replaced_by_one_of_fewer() -> None:
    three, one, other = Apart((0, 1, 2), (0.1, 0.0, 0.2)), Apart((3,), (0.5, 0.4, 0.6)), Apart((0, 1, 2, 3), (0.3, 0.2, 0.4))
    assert joined_differences({"csn-1": {"a": three}}, {"csn-1": {"a": one, "b": one}}) == {"csn-1": {"a": three, "b": one}}
    assert joined_differences({"csn-1": {"a": three}}, {"csn-1": {"a": other}, "aaa-1": {"a": one}}) == {
        "aaa-1": {"a": one}, "csn-1": {"a": other}
    }  # fmt: skip


def test_answers_about_other_records_are_refused(tmp_path: Path) -> None:
    for arm in ("clear", "clear-hug"):
        write(tmp_path, arm, 0, guess(0, 1))
    file = tmp_path / "csn-1min-clear-1-0.npz"
    answers = dict(np.load(file))
    turned = {name: values[::-1] for name, values in answers.items()}
    np.savez(file, **turned)
    with pytest.raises(ValueError, match=r"clear-hug-1-0\.npz: other test records.*than csn-1min-clear-1-0\.npz"):
        differences(tmp_path)
    np.savez(file, **answers)
    (tmp_path / "csn-1min-clear-1-0.json").unlink()
    with pytest.raises(ValueError, match=r"clear-1-0\.npz: answers without their run"):
        differences(tmp_path)
