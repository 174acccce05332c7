"""The reference detector, and how agreement is counted."""

from __future__ import annotations

import numpy as np
import pytest

from ecgnat_stream.beats import find_beats
from train.xqrs import agreement, record_beats, xqrs_beats


def ecg(peaks: np.ndarray, length: int = 1000) -> np.ndarray:
    t = np.arange(length)[:, None]
    return np.clip(1 - np.abs(t - peaks) / 4.0, 0, 1).sum(axis=1) + 0.003 * np.random.default_rng(5).normal(size=length)


def test_both_detectors_find_the_same_clean_beats() -> None:
    peaks = np.arange(40.0, 1000, 80)
    windows = np.full((2, 12, 1000), np.nan, np.float32)
    windows[0, 1] = ecg(peaks)
    windows[0, 6] = np.random.default_rng(1).normal(size=1000)  # a noisy lead that must not be chosen
    reference, own = xqrs_beats(windows), find_beats(windows[:, [i if i != 6 else 5 for i in range(12)]])
    np.testing.assert_allclose(reference[0, np.isfinite(reference[0])], peaks, atol=3)
    np.testing.assert_allclose(own[0, np.isfinite(own[0])], peaks, atol=1.5)
    assert np.isnan(reference[1]).all()
    assert reference.dtype == np.float32


def test_whole_records_are_streamed() -> None:
    peaks = np.arange(150.0, 5900, 80)
    record = np.full((12, 6000), np.nan, np.float32)
    record[1] = ecg(peaks, 6000)
    found = record_beats(record)
    np.testing.assert_allclose(found[found > 800], peaks[peaks > 800], atol=1.5)


def test_agreement_counts_what_lies_between_two_times() -> None:
    stated, said = [np.array([50.0, 150.0, 950.0])], [np.array([52.0, 300.0, 960.0, np.nan])]
    assert agreement(stated, said, 0.05, 0, 10) == (1 / 3, 1 / 3)
    assert agreement(stated, said, 0.15, 0, 10) == (2 / 3, 2 / 3)
    assert agreement(stated, said, 0.15, 0, 1) == (1.0, 1.0)
    sensitivity, predictivity = agreement(stated, said, 0.15, 1, 2)
    assert sensitivity == 0
    assert np.isnan(predictivity)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="want windows"):
        xqrs_beats(np.zeros((12, 1000), np.float32))
