"""Fitting and measuring the detector of fibrillation: what counts as what, and that it learns."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import wfdb

from ecgnat_stream.fibrillation import FEATURES, FibrillationWeights, shipped_weights
from train.data.labels import UNSTATED, allow, forbid
from train.data.records import Record
from train.signal import fibrillation
from train.signal.fibrillation import (
    MARGIN,
    WINDOW,
    FibrillationPiece,
    FibrillationRun,
    cross_validate,
    episodes,
    fit,
    folds,
    measure,
    on_spans,
    piece_of,
    pieces,
    scores,
    stream,
    targets,
    windows,
)


def run(name: str, truth: np.ndarray, seed: int = 0, group: str = "cudb") -> FibrillationRun:
    """Return a run whose first two features tell fibrillation apart, on one of three leads."""
    rng = np.random.default_rng(seed)
    features = np.full((len(FEATURES), len(truth), 3), np.nan, np.float32)
    features[:, :, 0] = rng.normal(size=(len(FEATURES), len(truth)))
    features[:2, :, 0] += 4.0 * (truth == 1)
    swing = np.full((len(truth), 3), np.nan, np.float32)
    swing[:, 0] = 1.0
    return FibrillationRun(group, name, features, swing, truth.astype(np.int8))


def course(*parts: tuple[int, int]) -> np.ndarray:
    return np.concatenate([np.full(frames, value, np.int8) for value, frames in parts])


def record(database: str, rhythm: np.ndarray, bag: int = -1) -> Record:
    return Record(database, "x", "train", 250.0, np.zeros((12, len(rhythm)), np.float32), rhythm.astype(np.uint8), bag=bag)


def test_what_is_stated_becomes_truth():
    rhythm = np.array([allow("SINUS"), allow("VF"), allow("VT"), allow("NOISE"), UNSTATED, forbid("VF")])
    assert piece_of(record("vfdb", rhythm)).truth.tolist() == [0, 1, -1, 0, -1, 0]
    alarm = np.full(90 * 250, UNSTATED)
    assert not piece_of(record("cinc2015", alarm)).truth.any()
    true = piece_of(record("cinc2015", alarm, bag=3))
    assert true.group == "cinc2015 true alarm"
    assert (true.truth[-20 * 250 :] == -1).all()
    assert not true.truth[: 70 * 250].any()
    assert piece_of(record("cinc2017", np.full(9, allow("NOISE")))).group == "cinc2017 noise"


def test_a_window_is_one_kind_only_as_a_whole_and_away_from_onsets():
    kind = targets(course((0, 100), (1, 60), (0, 100), (-1, 10), (0, 60)))
    assert (kind[WINDOW : 100 - MARGIN] == 0).all()
    assert (kind[100 - MARGIN : 100 + WINDOW - 1] == -1).all()
    assert (kind[100 + WINDOW - 1 : 160] == 1).all()
    assert (kind[160 : 160 + WINDOW + MARGIN - 1] == -1).all()
    assert (kind[160 + WINDOW + MARGIN : 260] == 0).all()
    assert (kind[260 : 270 + WINDOW - 1] == -1).all()
    assert kind[-1] == 0


def test_the_rule_enters_high_and_leaves_low():
    score = np.concatenate([np.zeros(30), np.ones(40), np.full(30, 0.5), np.zeros(30)]).astype(np.float32)
    ((start, stop),) = on_spans(score, enter=0.7, leave=0.4, mean_s=3.0)
    assert (start, stop) == (30 + 10, 100 + 3)
    score[50:60] = np.nan
    assert on_spans(score, enter=0.7, leave=0.4, mean_s=3.0)[0] == (40, 50)
    assert on_spans(np.full(50, np.nan, np.float32)) == []
    assert on_spans(np.ones(50, np.float32), enter=0.7, leave=0.4, mean_s=3.0) == [(0, 50)]


def test_episodes_missed_found_and_false_are_counted():
    truth = course((0, 300), (1, 100), (0, 300), (1, 100), (0, 100), (1, 20), (0, 200))
    assert episodes(truth) == [(300, 400), (700, 800)]
    score = np.zeros(len(truth), np.float32)
    score[310:400], score[100:140] = 1.0, 1.0
    report = measure([run("a", truth)], [score], enter=0.7, leave=0.4, mean_s=3.0)
    found = report["episodes"]["cudb"]
    assert (found["episodes"], found["found"], found["within_10_s"]) == (2, 1, 1)
    assert found["median_s"] == pytest.approx(0.2 * 20)
    assert found["missed"] == ["a at 140 s, 20 s"]
    false = report["false"]["cudb"]
    assert false["spans"] == 1
    assert false["where"][0].startswith("a at 22 s")
    assert report["windows"]["cudb"]["se"] == pytest.approx(0.5, abs=0.1)


def test_no_record_is_on_both_sides_of_a_fold():
    names = ["201", "5", "202", "201", "7"]
    part = folds([run(name, course((0, 50))) for name in names])
    assert part[0] == part[2] == part[3]
    assert len({part[0], part[1], part[4]}) == 3


def test_no_record_counts_for_more_than_its_share():
    short, long = run("a", course((0, 200), (1, 100))), run("b", course((0, 20_000), (1, 20_000)))
    few, many = (np.bincount(windows([one])[1]) for one in (short, long))
    assert few[0] > 10
    assert few[1] > 10
    assert many.max() <= 150


def test_the_fit_separates_what_can_be_separated_and_is_repeatable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fibrillation, "FOLDS", 2)
    runs = [run(str(seed), course((0, 200), (1, 150), (0, 200)), seed) for seed in range(4)]
    weights = fit(runs)
    assert weights == fit(runs)
    (tmp_path / "weights.json").write_bytes(msgspec.json.encode(weights))
    assert msgspec.json.decode((tmp_path / "weights.json").read_bytes(), type=FibrillationWeights) == weights
    other = run("new", course((0, 200), (1, 150), (0, 200)), 99)
    score = scores(other, weights)
    assert score[220:350].mean() > 0.85
    assert score[:150].mean() < 0.15
    every = cross_validate(runs)
    found = measure(runs, every, enter=0.6, leave=0.4)["episodes"]["cudb"]
    assert found["within_10_s"] == 4


def test_the_shipped_weights_fit_the_features():
    weights = shipped_weights()
    assert len(weights.mean) == len(weights.spread) == len(FEATURES)
    assert all(len(row) == len(FEATURES) for row in weights.hidden)
    assert len(weights.hidden) == len(weights.bias) == len(weights.out)


def test_records_run_the_same_alone_and_side_by_side():
    rng = np.random.default_rng(1)
    batch = []
    for number, seconds in enumerate((12, 15, 14)):
        samples = np.full((12, seconds * 250), np.nan, np.float32)
        samples[1] = rng.normal(size=seconds * 250).cumsum() % 1.0
        batch.append(FibrillationPiece("cudb", str(number), 250.0, samples, np.zeros(seconds * 250, np.int8)))
    together = {one.name: one for one in stream(batch)}
    for piece in batch:
        (alone,) = stream([piece])
        assert alone.truth.shape == (round(piece.samples.shape[1] / 50) - 1,)
        assert np.array_equal(alone.features, together[piece.name].features, equal_nan=True)


def test_a_folder_of_records_is_read(tmp_path: Path):
    folder = tmp_path / "cudb"
    folder.mkdir()
    signal = 0.4 * np.sin(np.arange(20 * 250) * 2 * np.pi * 5 / 250)[:, None]
    for name in ("cu01", "cu02"):
        wfdb.wrsamp(name, 250, ["mV"], ["ECG"], signal, fmt=["16"], write_dir=str(folder))
        wfdb.wrann(name, "ann", np.array([10]), np.array(["~"]), write_dir=str(folder))
    (folder / "vf_episodes.csv").write_text("record,start,stop\ncu01,1000,4000\n")
    (tmp_path / "splits.csv").write_text("database,record,split\ncudb,cu01,train\ncudb,cu02,test\n")
    (train,) = pieces(tmp_path, test=False)
    assert (train.name, train.group) == ("cu01", "cudb")
    assert train.truth.sum() == 3000
    assert [piece.name for piece in pieces(tmp_path, test=True)] == ["cu02"]
