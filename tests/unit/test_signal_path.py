"""The signal path: rings and conditioners have places for the beds of their rate alone, and beds come and go without a trace."""

from __future__ import annotations

import numpy as np
import pytest

from ecgnat_stream.config import Config
from ecgnat_stream.signal import LEADS
from ecgnat_stream.ward.signal_path import FrameResult, SignalPath

II = np.array([1])


def nothing_off(rows: np.ndarray, _: np.ndarray) -> np.ndarray:
    return np.zeros((len(rows), len(LEADS)), bool)


def heart(length: int, fs: float, shift: int = 0) -> np.ndarray:
    """75 beats per minute, ``(1, length)`` mV."""
    t = (np.arange(length) + shift) / fs
    return np.clip(1 - np.abs(t % 0.8 - 0.2) / 0.04, 0, 1).astype(np.float32)[None]


def memory(path: SignalPath) -> int:
    """Bytes of all rings."""
    return sum(group.ring._memory.nbytes for group in path._groups.values())


def steps(path: SignalPath, row: int) -> list[FrameResult]:
    done = []
    while path.is_ready(row):
        done.append(path.process(np.array([row])))
    return done


def test_rings_are_as_large_as_the_beds_of_their_rate_need() -> None:
    path = SignalPath(1000, Config(), nothing_off)
    assert memory(path) == 0
    one_bed = 20 * 500 * len(LEADS) * 4
    path.begin(0, 500.0, II, 0)
    assert memory(path) <= 4 * one_bed
    for row in range(1, 100):
        path.begin(row, 500.0, II, 0)
    assert 100 * one_bed <= memory(path) <= 150 * one_bed
    path.begin(100, 250.0, II, 0)
    assert memory(path) <= 152 * one_bed


def test_a_ring_that_grows_keeps_what_it_holds() -> None:
    alone, joined = SignalPath(1, Config(), nothing_off), SignalPath(50, Config(), nothing_off)
    found: list[list[FrameResult]] = []
    for path in (alone, joined):
        path.begin(0, 250.0, II, 0)
        path.append(0, 0, heart(500, 250.0))
        early = steps(path, 0)
        for row in range(1, 40 if path is joined else 1):
            path.begin(row, 250.0, II, 0)
            path.append(row, 0, heart(700, 250.0, 60 * row))
        path.append(0, 500, heart(1500, 250.0, 500))
        found.append(early + steps(path, 0))
    assert len(found[0]) == len(found[1]) > 30
    assert sum(len(step.places) for step in found[0]) > 6
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(mine.y, theirs.y)
        np.testing.assert_array_equal(mine.places, theirs.places)
        assert set(theirs.found.beats.row) <= {0}


def test_beds_of_one_rate_are_ready_together_and_those_of_another_apart() -> None:
    path = SignalPath(6, Config(), nothing_off)
    for row, fs in enumerate((250.0, 500.0, 250.0, 128.0)):
        path.begin(row, fs, II, 0)
        path.append(row, 0, heart(int(fs), fs))
    assert sorted(rows.tolist() for rows in path.ready()) == [[0, 2], [1], [3]]
    path.hold(2, True)
    assert sorted(rows.tolist() for rows in path.ready()) == [[0], [1], [3]]
    assert not path.is_ready(5), "a bed whose stream has not begun"


def test_a_bed_that_comes_back_at_another_rate_frees_its_place() -> None:
    path = SignalPath(3, Config(), nothing_off)
    path.begin(0, 250.0, II, 0)
    path.append(0, 0, heart(250, 250.0))
    path.begin(0, 500.0, II, 100)
    assert list(path._groups) == [500.0]
    assert path.behind(0) == pytest.approx(0)
    path.begin(1, 500.0, II, 0)
    path.begin(0, 500.0, II, 300)
    assert len(path._groups[500.0].rows) == 2
    path.append(0, 300, heart(2000, 500.0, 300))
    assert sum(len(step.places) for step in steps(path, 0)) > 2


def test_spikes_and_beats_name_the_bed_and_not_its_place() -> None:
    path = SignalPath(9, Config(), nothing_off)
    for row in (7, 3):
        path.begin(row, 250.0, II, 0)
        path.append(row, 0, heart(2000, 250.0))
    for row in (7, 3):
        assert {int(r) for step in steps(path, row) for r in step.found.beats.row} == {row}


def test_samples_that_nobody_read_in_time_are_counted() -> None:
    path = SignalPath(1, Config(ring_s=5.0), nothing_off)
    path.begin(0, 100.0, II, 0)
    assert path.capacity(0) == 500
    assert path.append(0, 0, heart(500, 100.0)) == 0
    assert path.append(0, 500, heart(100, 100.0)) == 100


def test_leads_that_are_derived_make_nothing_usable() -> None:
    limbs = np.array([0, 1])
    for off in ((), (0,), (0, 1)):
        state = np.zeros((1, len(LEADS)), bool)
        state[0, list(off)] = True
        path = SignalPath(1, Config(), lambda _, __, state=state: state)
        path.begin(0, 250.0, limbs, 0)
        lead_ii = heart(1000, 250.0)
        path.append(0, 0, np.concatenate([np.float32(0.6) * lead_ii, lead_ii]))
        last = steps(path, 0)[-1]
        assert not np.isnan(last.y[0, 2]).any(), "lead III is derived"
        assert bool(last.found.quality.usable[0]) == (len(off) < 2)
