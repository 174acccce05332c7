"""Columns of times: rate and holes, however the stamps were made."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from ecgnat_stream.timeline import TextTimes, Timeline, TimelineError, insert_holes, is_index, timeline, unit_s

Values = NDArray[np.float64]
ROWS = 20_000
RATES = (125.0, 128.0, 250.0, 257.0, 360.0, 500.0, 512.0, 1000.0)
RNG = np.random.default_rng(5)


def line_of(times: Values, unit: float | None = None) -> Timeline | None:
    return timeline(lambda start, stop: times[start:stop], len(times), unit)


def cut(times: Values, start: int, length: int) -> Values:
    return np.delete(times, np.arange(start, start + length))


STAMPS: dict[str, tuple[Callable[[Values, float], Values], int]] = {
    "exact": (lambda times, fs: times, 0),
    "to the ms": (lambda times, fs: np.round(times, 3), 0),
    "cut off at the us": (lambda times, fs: np.floor(times * 1e6), 0),
    "of an epoch in ns": (lambda times, fs: 1.6e18 + times * 1e9, 0),
    "of an epoch in s": (lambda times, fs: 1.6e9 + times, 0),
    "to 10 ms": (lambda times, fs: np.round(times, 2), 4),
    "with jitter": (lambda times, fs: np.sort(times + RNG.normal(0, 0.2 / fs, len(times))), 1),
    "in bursts of ten": (lambda times, fs: np.ceil(np.arange(len(times)) / 10) * 10 / fs + times[0], 1),
}


@pytest.mark.parametrize("name", [name for name in STAMPS if name != "in bursts of ten"])
@pytest.mark.parametrize("fs", RATES)
def test_the_rate_and_a_hole_of_ten_seconds_are_found_in_all_kinds_of_stamps(name: str, fs: float) -> None:
    stamped, off = STAMPS[name]
    times, hole = np.arange(ROWS) / fs, round(10 * fs)
    line = line_of(cut(stamped(times, fs), 5000, hole))
    assert line is not None
    assert line.fs == fs
    assert [row for row, _ in line.holes] == [5000]
    assert abs(line.holes[0][1] - hole) <= off
    whole = line_of(stamped(times, fs))
    assert whole is not None
    assert (whole.fs, whole.holes) == (fs, ())


@pytest.mark.parametrize("fs", RATES)
def test_stamps_of_packets_are_no_holes(fs: float) -> None:
    stamped, _ = STAMPS["in bursts of ten"]
    line = line_of(stamped(np.arange(ROWS) / fs, fs))
    assert line is not None
    assert (line.fs, line.holes) == (fs, ())


@pytest.mark.parametrize("fs", [125.0, 250.0, 360.0, 500.0])
def test_single_rows_that_are_lost_are_found(fs: float) -> None:
    lost = np.sort(RNG.choice(np.arange(1, ROWS - 1), ROWS // 10, replace=False))
    line = line_of(np.round(np.delete(np.arange(ROWS) / fs, lost), 6))
    assert line is not None
    assert line.fs == fs
    filled = insert_holes(np.delete(np.arange(float(ROWS)), lost)[None], line)[0]
    assert np.array_equal(np.flatnonzero(np.isnan(filled)), lost)


def test_what_comes_late_and_catches_up_is_no_hole() -> None:
    times = np.arange(ROWS) / 250
    times[5000:5500] = times[5499] - (499 - np.arange(500)) * 1e-5
    line = line_of(np.round(times, 6))
    assert line is not None
    assert (line.fs, line.holes) == (250, ())


def test_rows_without_a_time_count() -> None:
    times = np.arange(ROWS) / 250
    times[100:130] = np.nan
    line = line_of(cut(times, 120, 20))
    assert line is not None
    assert (line.fs, line.holes) == (250, ((120, 20),)) or line.holes == ((110, 20),)


def test_counters_wrap_repeat_and_run_backwards() -> None:
    counts = np.arange(float(ROWS))
    for counter in (counts, counts + 1, counts % 256, cut(counts, 100, 30) % 256):
        line = line_of(counter)
        assert line is not None
        assert line.fs is None
        assert line.holes == (() if len(counter) == ROWS else ((100, 30),))
    assert line_of(counts // 2) is None
    assert line_of(counts * 0) is None
    assert line_of(counts[:0]) is None
    line = line_of(counts, unit_s("time_ms"))
    assert line is not None
    assert line.fs == 1000
    with pytest.raises(TimelineError, match="runs backwards") as caught:
        line_of(np.concatenate([counts[:777], counts[:500]]))
    assert caught.value.row == 777


@pytest.mark.parametrize("fs", [125.0, 257.0, 360.0, 500.0, 2000.0])
@pytest.mark.parametrize("stamp_s", [0.1, 1.0])
@pytest.mark.parametrize("after_s", [0.0, 0.4])
def test_stamps_coarser_than_the_rows_say_the_rate_as_well_as_they_can(fs: float, stamp_s: float, after_s: float) -> None:
    rows, hole = round(150 * fs), round(20 * fs)
    stamps = np.floor(np.round((np.arange(rows) / fs + after_s) / stamp_s, 6)) * stamp_s
    for whole in (line_of(stamps, 1.0), line_of(1.7e9 + stamps, 1.0)):
        assert whole is not None
        assert (whole.fs, whole.holes, whole.doubles) == (fs, (), ())
        assert whole.agrees(fs + 0.8 * fs * stamp_s / 150)
        assert not whole.agrees(1.1 * fs)
    part = np.delete(stamps, np.arange(round(50.3 * fs), round(50.3 * fs) + hole))
    line = line_of(part, 1.0)
    assert line is not None
    assert line.fs == fs
    assert [row for row, _ in line.holes] == [round(50.3 * fs)]
    assert abs(line.holes[0][1] - hole) <= 1
    counted = line_of(np.floor(part))
    assert counted is None or stamp_s < 1.0
    called = timeline(lambda start, stop: part[start:stop], len(part), times=True)
    assert called is not None
    assert (called.fs, len(called.holes)) == (fs, 1)


@pytest.mark.parametrize("fs", [125.0, 360.0, 500.0])
@pytest.mark.parametrize("digits", [3, 4, 5])
@pytest.mark.parametrize("length_s", [101.0, 103.0, 150.0])
def test_stamps_of_few_digits_grow_coarser_along_the_file(fs: float, digits: int, length_s: float) -> None:
    stamps = np.array([float(f"{row / fs:.{digits}g}") for row in range(round(length_s * fs))])
    line = line_of(stamps, 1.0)
    assert line is not None
    assert (line.fs, line.holes) == (fs, ())


def test_stamps_too_coarse_to_say_a_rate_leave_it_to_what_is_given() -> None:
    stamps = np.floor((np.arange(5 * ROWS) / 250 + 20) / 60) * 60
    line = line_of(stamps, 1.0)
    assert line is not None
    assert (line.fs, line.holes) == (None, ())
    part = np.delete(stamps, np.arange(30_000, 60_000))
    line = timeline(lambda start, stop: part[start:stop], len(part), 1.0, fs=256)
    assert line is not None
    assert line.agrees(256)
    assert [row for row, _ in line.holes] == [30_000]
    assert line.holes[0][1] == pytest.approx(30_000, abs=256 * 60)


@pytest.mark.parametrize("unit", [None, 1.0])
def test_times_that_run_backwards_all_along_are_to_be_sorted(unit: float | None) -> None:
    for times in (np.arange(ROWS)[::-1] / 250, np.arange(float(ROWS))[::-1], np.arange(ROWS)[::-1] // 250 * 1.0):
        with pytest.raises(TimelineError, match="run backwards from there on") as caught:
            line_of(times, unit)
        assert caught.value.cure == "sort the table by time"


def test_text() -> None:
    for texts, expected in (
        (("2021-03-04 23:59:59.996", "2021-03-05T00:00:00.000"), 0.004),
        (("2021-03-04T05:06:07.008Z", "2021-03-04T06:06:07.012+01:00"), 0.004),
        (("23:59:59.996", "0:00:00.000"), 0.004),
        (("00:00:50:123", "00:00:50:127"), 0.004),
        (("[05:06:07.008 04/03/2021]", "[05:06:07.012 05/03/2021]"), 86_400.004),
        (("11:59:59,996 AM", "12:00:00,000 PM"), 0.004),
        (("59:59.996", "60:00.000"), 0.004),
    ):
        read = TextTimes(texts)
        first, second = map(read, texts)
        assert second - first == pytest.approx(expected, abs=1e-6)
    months = TextTimes(["03/04/2021 05:06", "03/05/2021 05:06"])
    assert months("03/05/2021 05:06") - months("03/04/2021 05:06") == 86_400
    with pytest.raises(ValueError, match="is no time"):
        months("noon")


@pytest.mark.parametrize(
    "name", ["time", "Time (s)", "time_ms", "Elapsed time", "timestamp", "t", "sample", "sample #", "#", "nSeq", "index"]
)
def test_names_of_columns_that_count(name: str) -> None:
    assert is_index(name)


@pytest.mark.parametrize("name", ["II", "V1", "ECG", "MLII", "", "T wave", "label"])
def test_names_of_other_columns(name: str) -> None:
    assert is_index(name) == (name == "T wave")
