"""Judging a task: macro figures over the classes that are stated often enough, and readings under worse conditions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ecgnat_stream.beats import find_beats
from ecgnat_stream.model import build, configured
from train.data.sample import Cache
from train.data.tasks import TASKS
from train.judge.by_task import CONDITIONS, _under, judge, lengths_of, quick_score, read, robustness
from train.judge.robustness import disturb_beats

CPU = torch.device("cpu")
SUPER, SCREEN = TASKS["ptbxl-super"], TASKS["cinc2017"]


def statements(rows: int, classes: int, positives: list[int]) -> np.ndarray:
    stated = np.zeros((rows, classes), np.float32)
    for c, count in enumerate(positives):
        stated[:count, c] = 1
    return stated


def test_classes_with_fewer_than_ten_test_positives_are_left_out_and_named() -> None:
    stated = statements(40, 5, [20, 10, 9, 0, 40])
    said = stated + np.random.default_rng(0).normal(0, 0.01, stated.shape)
    figures = judge(SUPER, stated, said, stated, said)
    assert figures["left_out"] == [SUPER.classes[c] for c in (2, 3, 4)]
    assert figures["auroc"][0] == figures["auprc"][0] == 1
    assert judge(SUPER, stated[:9], said[:9], stated, said)["auroc"] is None


def test_a_worthless_reading_has_an_area_of_a_half_within_its_interval() -> None:
    stated = statements(200, 5, [100, 60, 40, 30, 20])
    said = np.random.default_rng(1).normal(size=stated.shape)
    value, low, high = judge(SUPER, stated, said, stated, said)["auroc"]
    assert low < 0.5 < high
    assert low < value < high


def test_thresholds_come_from_validation() -> None:
    stated = statements(40, 5, [20, 20, 20, 20, 20])
    said = 10 * stated + 3  # every logit is above 0
    good = judge(SUPER, stated, said, stated, said)["f1"]
    assert good[0] == 1
    misled = judge(SUPER, stated, said, stated, said - 20)["f1"]
    assert misled[0] < 0.7, "thresholds of another scale say yes to all"
    exclusive = np.eye(4, dtype=np.float32)[np.arange(60) % 4]
    logs = np.log(np.where(exclusive, 0.7, 0.1))
    assert judge(SCREEN, exclusive, logs, exclusive, logs)["f1"][0] == 1
    assert judge(SCREEN, exclusive, logs - 2.5, exclusive, logs)["f1"][0] == 0, "thresholds that nothing reaches"


def test_no_class_that_differs_gives_no_score() -> None:
    assert np.isnan(quick_score(np.ones((4, 2)), np.ones((4, 2))))


def labelled(cache: Path) -> Cache:
    records = msgspec.json.decode((cache / "records.json").read_bytes())
    for number, record in enumerate(records):
        record |= {"database": "cinc2017", "screen": number % 2}
    (cache / "records.json").write_bytes(msgspec.json.encode(records))
    return Cache(cache)


@pytest.mark.parametrize("arch", ["ecgnat", "beatnet", "clear"])
def test_a_record_is_read_in_windows_end_to_end(cache: Path, arch: str) -> None:
    data = labelled(cache)
    torch.manual_seed(0)
    network = build(configured(arch, "nano", window_classes=SCREEN.classes)).eval()
    said = read(network, data, data.records[:3], SCREEN, CPU)
    length, both = max(lengths_of(SCREEN)), []
    for start in (0, data.records[0].length // 4 * 4 - length):  # a window and a half: the last one reaches the end
        windows = np.stack([data.cut(record, start, length)[0] for record in data.records[:3]])
        beats = torch.from_numpy(find_beats(windows)) if network.needs_beats else None
        with torch.no_grad():
            both.append(network(network.prepare(torch.from_numpy(windows), beats)).window.log_softmax(dim=1))
    assert (both[0] - both[1]).abs().max() > 1e-3
    torch.testing.assert_close(torch.from_numpy(said).float(), (both[0] + both[1]) / 2, atol=1e-4, rtol=1e-4)


def test_wrong_beats_change_what_reads_beats_and_nothing_else(cache: Path) -> None:
    data = labelled(cache)
    torch.manual_seed(0)
    records = 2 * data.records  # ten of a class
    scores = {
        arch: robustness(build(configured(arch, "nano", window_classes=SCREEN.classes)), data, records, SCREEN, CPU)
        for arch in ("ecgnat", "beatnet")
    }
    assert scores["ecgnat"].keys() == scores["beatnet"].keys() == {"clean", *CONDITIONS}
    assert scores["ecgnat"]["R jitter 50 ms"] is None
    assert scores["beatnet"]["R jitter 50 ms"] is not None
    assert scores["beatnet"]["1 lead"] is None, "a pack of one and two leads has none to lose"


def test_every_condition_is_felt(cache: Path) -> None:
    data = labelled(cache)
    record = data.records[1]
    window = np.tile(data.cut(record, 0, 2000)[0][1:2], (12, 1)).astype(np.float32)
    found = find_beats(window[None])
    for name, (kind, value) in CONDITIONS.items():
        change, beats = _under(data, kind, value)
        if kind in ("snr_db", "leads", "amplitude"):
            assert change is not None
            assert not np.array_equal(change(window, record, 0), window, equal_nan=True), name
        else:
            assert change is None
            assert not np.array_equal(beats(window[None]), found, equal_nan=True), name
    noisy = [_under(data, "snr_db", snr)[0] for snr in (24, 12, 0)]
    louder = [np.nanstd(change(window, record, 0)[1] - window[1]) for change in noisy if change is not None]
    assert louder[0] * 3.9 < louder[1] < louder[2] / 3.9, "12 dB are a factor of 4"


def test_losses_are_of_the_classes_that_are_judged(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = labelled(cache)
    records = [data.records[k % 12] for k in range(40)]
    asked = 0

    def said(*given: Any) -> NDArray[np.float64]:
        nonlocal asked
        asked += 1
        truth = SCREEN.targets(given[2]).astype(float)
        return truth if asked == 1 else np.random.default_rng(asked).normal(size=truth.shape)

    monkeypatch.setattr("train.judge.by_task.read", said)
    losses = robustness(build(configured("ecgnat", "nano")), data, records, SCREEN, CPU)
    assert losses["clean"] == [1.0, 1.0, 1.0]
    value, low, high = losses["noise 0 dB"]
    assert low < 0.5 < high
    assert low <= value <= high
    assert robustness(build(configured("ecgnat", "nano")), data, records[:9], SCREEN, CPU)["clean"] is None, "too few records"


def test_errors_of_the_beats_are_as_large_as_they_are_said_to_be() -> None:
    time = np.arange(1000) / 100
    spikes = np.exp(-(((time % 0.8) - 0.4) ** 2) / 2e-4)
    windows = np.full((16, 12, 1000), np.nan, np.float32)
    windows[:, 1] = spikes + np.random.default_rng(0).normal(0, 0.01, (16, 1000))
    true = find_beats(windows)
    count = np.isfinite(true).sum()
    assert count == 16 * 12 or abs(count - 16 * 12) <= 32
    assert np.array_equal(disturb_beats()(windows), true, equal_nan=True)
    assert np.isfinite(disturb_beats(missed=0.5)(windows)).sum() == pytest.approx(count / 2, rel=0.2)
    assert np.isfinite(disturb_beats(false=0.5)(windows)).sum() == pytest.approx(count * 1.5, rel=0.15)
    moved = disturb_beats(jitter_ms=50)(windows)
    assert np.nanstd(moved - true) == pytest.approx(5, rel=0.3)
    assert np.array_equal(moved, disturb_beats(jitter_ms=50)(windows), equal_nan=True)
    assert (np.diff(moved, axis=1)[np.isfinite(np.diff(moved, axis=1))] > 0).all()
