"""Composed streams: beats of one person in the rhythm of another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ecgnat_stream.codes import BEATS
from train.data.labels import allow
from train.data.records import Record
from train.signal.conduction import BEFORE_V_S, BLOCK, RATE, Donor, compose, streams, ventricular_donors

N, V = BEATS.index("N"), BEATS.index("V")


def donor(name: str, half_s: float, size: float, p_wave: float, offset: float = 0.0) -> Donor:
    """Return triangles 0.8 s apart in all leads, a P wave 0.2 s before each."""
    t = np.arange(round(10 * RATE)) / RATE
    at = 1.0 + 0.8 * np.arange(10)
    qrs = sum(size * np.clip(1 - np.abs(t - r) / half_s, 0, 1) for r in at)
    p = sum(p_wave * np.exp(-0.5 * ((t - r + 0.2) / 0.02) ** 2) for r in at)
    samples = np.tile((qrs + p + offset).astype(np.float32), (12, 1))
    r = np.round(at * RATE).astype(np.int64)
    return Donor(name, samples, r, np.full(len(r), round(0.8 * RATE)))


USUAL, OTHER = donor("usual", 0.03, 1.0, 0.15), donor("7", 0.08, 1.5, 0.0, offset=0.5)


@pytest.mark.parametrize("ventricular", [False, True])
def test_marks_are_where_the_beats_are(ventricular: bool) -> None:
    for seed in range(6):
        record = compose(USUAL, OTHER, ventricular, np.random.default_rng(seed))
        assert record.name == "7"
        assert record.beats is not None and record.beat_class is not None
        assert set(record.beat_class.tolist()) == {N, V if ventricular else BLOCK}
        leads = np.flatnonzero(~np.isnan(record.samples).all(axis=1))
        assert len(leads) == 2
        assert np.isfinite(record.samples[leads]).all()
        inner = record.beats[(record.beats > 50) & (record.beats < record.samples.shape[1] - 50)]
        about = np.abs(record.samples[leads[0], inner[:, None] + np.arange(-10, 11)])
        assert np.median(np.abs(about.argmax(axis=1) - 10)) <= 2


def test_blocked_beats_are_on_time_and_ventricular_ones_early() -> None:
    early = {False: [], True: []}
    for ventricular in (False, True):
        for seed in range(8):
            record = compose(USUAL, OTHER, ventricular, np.random.default_rng(seed))
            assert record.beats is not None and record.beat_class is not None
            rr = np.diff(record.beats) / RATE
            early[ventricular] += (rr[record.beat_class[1:] != N] / 0.8).tolist()
    assert np.percentile(early[False], 1) > 0.75
    assert np.percentile(early[True], 99) < 0.9
    assert min(early[True]) * 0.8 > BEFORE_V_S


def test_the_p_wave_of_the_rhythm_stays_before_most_blocked_beats_and_before_no_ventricular_one() -> None:
    def p_waves(ventricular: bool) -> list[float]:
        found = []
        for seed in range(20):
            record = compose(USUAL, OTHER, ventricular, np.random.default_rng(seed))
            assert record.beats is not None and record.beat_class is not None
            lead = np.flatnonzero(~np.isnan(record.samples).all(axis=1))[0]
            at = record.beats[(record.beat_class != N) & (record.beats > 100)]
            before = record.samples[lead, at[:, None] + np.arange(-65, -28)]
            found.append(float(np.median(before.max(axis=1) - before[:, :2].mean(axis=1))))
        return found

    assert 0.5 < np.mean(np.array(p_waves(False)) > 0.08) < 1.0
    assert max(p_waves(True)) < 0.08


def test_pieces_join_without_a_step() -> None:
    record = compose(USUAL, OTHER, False, np.random.default_rng(3))
    lead = np.flatnonzero(~np.isnan(record.samples).all(axis=1))[0]
    steps = np.abs(np.diff(record.samples[lead]))
    assert steps.max() < 0.3
    assert abs(float(np.median(record.samples[lead]))) < 0.1


def test_composing_is_reproducible() -> None:
    one, two = (list(streams([OTHER], [USUAL], [replace(OTHER, name="8")], 2, np.random.default_rng(4))) for _ in range(2))
    assert [record.name for record in one] == ["7", "7", "8", "8"]
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.samples, b.samples)


def test_ventricular_donors_have_ten_isolated_beats() -> None:
    t = np.arange(round(60 * 360.0))
    beats = np.arange(360, len(t) - 720, 300)
    classes = np.full(len(beats), N, np.uint8)
    samples = np.full((12, len(t)), np.nan, np.float32)
    samples[1] = np.random.default_rng(1).normal(size=len(t))
    record = Record("mitdb", "5", "train", 360.0, samples, np.full(len(t), allow("SINUS"), np.uint8), beats=beats)
    assert list(ventricular_donors([record, replace(record, beat_class=classes)])) == []
    classes[1:40:3] = V
    (found,) = ventricular_donors([replace(record, beat_class=classes)])
    np.testing.assert_allclose(found.r / RATE, beats[classes == V] / 360.0, atol=0.5 / RATE)
