"""Recordings whose numbers no recording has: refused by name before memory is taken for them, or read for what they are."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecgnat_devices.records import open_record
from ecgnat_stream.analysis.source import open_source
from ecgnat_stream.errors import DeviceError, InputError
from ecgnat_stream.recordings import files_of

FS = 250


def wfdb_record(folder: Path, line: str = "rec.dat 16 200 16 0 0 0 0 II", first: str = "rec 1 250 1000") -> Path:
    (np.arange(1000) % 400).astype("<i2").tofile(folder / "rec.dat")
    (folder / "rec.hea").write_text(f"{first}\n{line}\n")
    return folder / "rec"


def test_a_negative_gain_turns_the_signal_over_and_the_step_is_positive(tmp_path: Path) -> None:
    upright = open_record(wfdb_record(tmp_path))
    samples = upright.read(0, 1000)
    turned = open_record(wfdb_record(tmp_path, "rec.dat 16 -200 16 0 0 0 0 II"))
    assert np.array_equal(turned.read(0, 1000), -samples)
    assert turned.uv_per_lsb == upright.uv_per_lsb == 5.0


def test_a_wfdb_record_in_memory_with_a_negative_gain_is_turned_over(tmp_path: Path) -> None:
    upright = open_source(wfdb.rdrecord(str(wfdb_record(tmp_path))))
    turned = open_source(wfdb.rdrecord(str(wfdb_record(tmp_path, "rec.dat 16 -200 16 0 0 0 0 II"))))
    assert turned.info.uv_per_lsb == upright.info.uv_per_lsb == 5.0
    assert np.array_equal(turned.read(0, 1000), -upright.read(0, 1000))


def test_a_wfdb_record_in_memory_without_a_gain_is_refused(tmp_path: Path) -> None:
    record = wfdb.rdrecord(str(wfdb_record(tmp_path)))
    for gain in (0.0, 1e50, float("nan"), float("inf")):
        record.adc_gain = [gain]
        with pytest.raises(InputError, match=r"gain .* of lead II"):
            open_source(record)


@pytest.mark.parametrize("gain", ["1e50", "-1e50", "1e-50", "inf", "nan"])
def test_a_gain_that_none_has_is_refused_with_the_lead(tmp_path: Path, gain: str) -> None:
    with pytest.raises(DeviceError, match=r"rec.*: lead II (has the gain|is in (inf|nan))") as told:
        open_record(wfdb_record(tmp_path, f"rec.dat 16 {gain} 16 0 0 0 0 II"))
    assert told.value.permanent


@pytest.mark.parametrize("scale", [0.0, float("nan"), float("inf"), 1e50, -1e50, 1e-50])
@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_a_scale_that_is_none_is_refused(tmp_path: Path, scale: float, kind: type) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 1000), kind))
    with pytest.raises(DeviceError, match=r"x\.npy: scale is "):
        open_record(tmp_path / "x.npy", fs=FS, units="mV", scale=scale)


def test_a_negative_scale_turns_the_signal_over(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(1000, dtype=np.int16)[None])
    record = open_record(tmp_path / "x.npy", fs=FS, units="uV", scale=-5.0)
    assert record.uv_per_lsb == 5.0
    assert record.read(0, 1000)[0, 100] == pytest.approx(-0.5)


def test_steps_too_large_for_an_ecg_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 1000), np.int16))
    with pytest.raises(DeviceError, match="the scale 100 V"):
        open_record(tmp_path / "x.npy", fs=FS, units="V", scale=100.0)


def skew(folder: Path) -> Path:
    return wfdb_record(folder, "rec.dat 16:1000000000 200 16 0 0 0 0 II")


def frames(folder: Path) -> Path:
    return wfdb_record(folder, "rec.dat 16x1000000000 200 16 0 0 0 0 II")


def signals(folder: Path) -> Path:
    lines = "\n".join(f"rec.dat 16 200 16 0 0 0 0 S{i}" for i in range(300))
    return wfdb_record(folder, lines, "rec 300 250 1")


def more_signals_than_lines(folder: Path) -> Path:
    return wfdb_record(folder, first="rec 1000000000 250 1000")


def samples(folder: Path) -> Path:
    return wfdb_record(folder, first="rec 1 250 1000000000000")


def large_header(folder: Path) -> Path:
    return wfdb_record(folder, "rec.dat 16 200 16 0 0 0 0 II\n" + "# x\n" * 300_000)


def digits(folder: Path) -> Path:
    return wfdb_record(folder, first=f"rec 1 250 {'9' * 10_000}")


def segments(folder: Path) -> Path:
    return wfdb_record(folder, "\n".join("s 1000" for _ in range(10_001)), "rec/10001 1 250 10001000")


def a_segment_of_itself(folder: Path) -> Path:
    return wfdb_record(folder, "rec 500\nrec 500", "rec/2 1 250 1000")


def segments_in_a_ring(folder: Path) -> Path:
    (folder / "other.hea").write_text("other/1 1 250 1000\nrec 1000\n")
    return wfdb_record(folder, "other 1000", "rec/1 1 250 1000")


def one_line(folder: Path) -> Path:
    (folder / "rec.csv").write_text("0.1," * 5_000_000)
    return folder / "rec.csv"


def a_long_line_later(folder: Path) -> Path:
    (folder / "rec.csv").write_text("II\n0.1\n" + "0.1," * 5_000_000)
    return folder / "rec.csv"


def no_end(folder: Path) -> Path:
    path = folder / "rec.csv"
    with path.open("wb") as file:
        file.truncate(2**31 + 1)
    return path


@pytest.mark.parametrize(
    "make",
    [
        skew, frames, signals, more_signals_than_lines, samples, large_header, digits, segments, a_segment_of_itself,
        segments_in_a_ring, one_line, a_long_line_later, no_end,
    ],
)  # fmt: skip
def test_numbers_that_no_recording_has_are_refused_before_memory_is_taken(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    files_of(path if path.suffix else path.with_suffix(".hea"))
    tracemalloc.start()
    try:
        with pytest.raises(DeviceError, match="rec") as told:
            open_record(path, fs=FS, units="mV")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert told.value.permanent
    assert len(str(told.value)) < 700
    assert peak < 64 * 2**20, f"{peak / 2**20:.0f} MiB"


def test_a_wfdb_record_in_memory_that_lost_the_mu_of_microvolts_is_refused(tmp_path: Path) -> None:
    """wfdb 4.3 reads headers as ASCII, and leaves out the rest."""
    path = wfdb_record(tmp_path, "rec.dat 16 200(0)/µV 16 0 0 0 0 II")
    read = wfdb.rdrecord(str(path))
    assert read.units == ["V"]
    with pytest.raises(InputError, match=r"is in V, in steps of 5000 uV, .* Give the path"):
        open_source(read)
    read.units = ["ÂµV"]
    with pytest.raises(InputError, match="lead II is in ÂµV, which is no voltage"):
        open_source(read)
    assert open_record(path).uv_per_lsb == 0.005
