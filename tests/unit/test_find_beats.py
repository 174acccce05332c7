"""R peaks of windows: found as in a stream, at the edges too, whatever is missing."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from ecgnat_devices.simulator import Patient, Signal
from ecgnat_devices.simulator.script import Segment
from ecgnat_stream.beats import QrsDetector, find_beats
from ecgnat_stream.condition import condition_record
from ecgnat_stream.signal import FRAME, FS, LEADS


def lead(peaks: NDArray[np.floating], length: int = 1000, amplitude: float = 1.0, t_wave: float = 0.25) -> NDArray[np.float32]:
    """Return a lead at 100 Hz with a QRS complex of 80 ms and a T wave at every peak, in samples."""
    t = np.arange(length)[:, None]
    y = amplitude * np.clip(1 - np.abs(t - peaks) / 4.0, 0, 1)
    y += amplitude * t_wave * np.exp(-0.5 * ((t - peaks - 26) / 5.0) ** 2)
    return (y.sum(axis=1) + np.random.default_rng(5).normal(scale=0.003, size=length)).astype(np.float32)


def window(leads: dict[str, NDArray[np.float32]], length: int = 1000) -> NDArray[np.float32]:
    out = np.full((1, 12, length), np.nan, np.float32)
    for name, y in leads.items():
        out[0, LEADS.index(name)] = y
    return out


def known(beats: NDArray[np.float32]) -> NDArray[np.float32]:
    return beats[np.isfinite(beats)]


@pytest.mark.parametrize("bpm", [40, 60, 75, 120, 180, 300])
@pytest.mark.parametrize("phase", [0.07, 0.3, 0.55, 0.8])
def test_every_beat_of_a_window_is_found_the_first_and_last_second_too(bpm: int, phase: float) -> None:
    rr = 6000 / bpm
    peaks = np.arange(phase * rr - rr, 1100, rr)
    found = known(find_beats(window({"II": lead(peaks, t_wave=0.25 if bpm < 150 else 0.0)})))
    inside = peaks[(peaks >= 2) & (peaks < 998)]
    assert len(found) == len(inside)
    np.testing.assert_allclose(found, inside, atol=1.5)


def test_a_t_wave_at_the_start_is_no_beat() -> None:
    for first in range(60, 84, 3):
        peaks = np.arange(first - 85, 1000, 85)
        found = known(find_beats(window({"II": lead(peaks, t_wave=0.4)})))
        assert abs(found[0] - first) < 2, first


@pytest.mark.parametrize("rhythm", ["sinus", "af"])
def test_windows_of_a_simulated_patient_have_the_beats_of_its_stream(rhythm: str) -> None:
    patient = Patient(Signal(fs=500.0, leads=("II", "V1", "V5"), script=(Segment(rhythm=rhythm, seconds=60),), loop=False))
    raw = np.full((12, 30_000), np.nan, np.float32)
    raw[[LEADS.index(name) for name in ("II", "V1", "V5")]] = patient.read(30_000)
    y = condition_record(raw, 500.0).samples
    detector, row, at = QrsDetector(1), np.array([0]), []
    sqi = np.isfinite(y).any(axis=1).astype(np.float32)[None]
    for k in range(y.shape[1] // FRAME):
        at.append(detector.process(row, np.array([k]), y[None, :, k * FRAME : (k + 1) * FRAME], sqi).at)
    streamed = np.concatenate(at) * 100 / FS
    starts = range(1000, 4600, 170)
    found = find_beats(np.stack([y[:, 2 * start : 2 * start + 2000 : 2] for start in starts]))
    missed = extra = total = 0
    for start, own in zip(starts, found, strict=True):
        here, stream = known(own), streamed[(streamed >= start) & (streamed < start + 1000)] - start
        apart = np.abs(here[:, None] - stream[None])
        inside = (stream >= 3) & (stream < 997)
        missed += (apart.min(axis=0)[inside] > 2).sum()
        extra += (apart.min(axis=1) > 4).sum()
        total += inside.sum()
    assert total > 180
    assert missed <= 0.01 * total
    assert extra <= 0.01 * total


def test_rows_do_not_know_each_other() -> None:
    rng = np.random.default_rng(2)
    rows = [window({"II": lead(np.cumsum(rng.uniform(50, 110, 30)), amplitude=a)}) for a in (0.4, 1.0, 3.0, 0.0)]
    together = find_beats(np.concatenate(rows))
    for own, row in zip(rows, together, strict=True):
        np.testing.assert_array_equal(known(find_beats(own)), known(row))


def test_missing_leads_and_gaps() -> None:
    peaks = np.arange(40.0, 1000, 80)
    whole = window({"V5": lead(peaks)})
    np.testing.assert_allclose(known(find_beats(whole)), peaks, atol=1.5)
    gap = whole.copy()
    gap[:, :, 310:490] = np.nan
    found = known(find_beats(gap))
    np.testing.assert_allclose(found, peaks[(peaks < 310) | (peaks >= 490)], atol=1.5)


@pytest.mark.parametrize("seconds", [3, 4.6, 9])
def test_a_part_of_a_window_is_enough(seconds: float) -> None:
    """Records shorter than the window are padded; what is there is ECG like any other."""
    peaks = np.arange(40.0, 1000, 80)
    part = window({"II": lead(peaks), "V5": lead(peaks)})
    part[:, :, round(100 * seconds) :] = np.nan
    part[:, 10, 50:] = np.nan
    found = known(find_beats(part))
    np.testing.assert_allclose(found, peaks[peaks < 100 * seconds - 10], atol=1.5)


@pytest.mark.parametrize("value", [np.nan, 0.0, 1.5, np.inf])
@pytest.mark.parametrize("length", [1, 50, 400, 1000, 1003])
def test_where_there_is_nothing_there_are_no_beats(value: float, length: int) -> None:
    found = find_beats(np.full((2, 12, length), value, np.float32))
    assert found.shape[0] == 2
    assert found.dtype == np.float32
    assert not len(known(found))


def test_noise_gives_ascending_beats_within_the_window() -> None:
    found = find_beats(np.random.default_rng(1).normal(size=(8, 12, 1000)).astype(np.float32))
    for row in found:
        own = known(row)
        assert (np.diff(own) >= 19.9).all()
        assert np.isnan(row[len(own) :]).all()
        assert ((own >= 0) & (own < 1000)).all()


@pytest.mark.parametrize("value", [1e30, -1e30, 1e300])
def test_absurd_voltages_are_read_without_a_warning(value: float) -> None:
    x = np.random.default_rng(0).standard_normal((2, 12, 1000))
    x[0, :, 500:510] = value
    x[1] = value
    assert find_beats(x).shape[0] == 2


def test_no_windows_give_no_rows_and_other_shapes_are_refused() -> None:
    assert find_beats(np.zeros((0, 12, 1000), np.float32)).shape[0] == 0
    with pytest.raises(ValueError, match="want windows"):
        find_beats(np.zeros((12, 1000), np.float32))


def test_a_batch_costs_a_part_of_its_windows_one_by_one() -> None:
    one = window(dict.fromkeys(LEADS, lead(np.arange(40.0, 1000, 80))))
    took = []
    for windows in (one, np.repeat(one, 32, axis=0)):
        find_beats(windows)
        runs = []
        for _ in range(5):
            began = time.process_time()
            find_beats(windows)
            runs.append(time.process_time() - began)
        took.append(min(runs))
    assert took[1] < 32 * took[0] / 3
