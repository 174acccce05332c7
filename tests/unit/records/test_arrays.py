"""Arrays in files: NPY, NPZ, MAT, and what is beside the samples."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgnat_devices.records import open_record
from ecgnat_stream.errors import DeviceError, EcgnatError, InputError

ECG = np.arange(2000.0).reshape(2, 1000) % 97
TIME = np.delete(np.arange(1300) / 250, np.arange(500, 800))
GIVEN: dict[str, Any] = {"fs": 250, "units": "mV", "leads": ("II", "V1")}

INFO = """Source: record mitdb/100  Start: [00:00:00.000]
val has 2 rows (signals) and 3600 columns (samples/signal)
Duration:     0:10
Sampling frequency: 360 Hz  Sampling interval: 0.002777777778 sec
Row\tSignal\tGain\tBase\tUnits
1\tMLII\t200\t1024\tmV
2\tV5\t100\t0\tmV

To convert from raw units to the physical units shown
above, subtract 'base' and divide by 'gain'.
"""


def test_a_transposed_array_is_turned_round_and_said(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ECG.T)
    record = open_record(tmp_path / "a.npy", **GIVEN)
    np.testing.assert_array_equal(record.read(0, 1000), ECG)
    assert record.notes == ("the array is (samples, leads): each of its columns is taken for a lead",)
    with gzip.open(tmp_path / "b.npy.gz", "wb") as file:
        file.write((tmp_path / "a.npy").read_bytes())
    np.testing.assert_array_equal(open_record(tmp_path / "b.npy.gz", **GIVEN).read(0, 1000), ECG)


def test_arrays_with_names_say_rate_names_units_and_holes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", II=ECG[0], V1=ECG[1], sampling_rate=[250], unit="uV", time=TIME, peaks=np.arange(9))
    record = open_record(tmp_path / "a.npz")
    assert (record.fs, record.leads, record.total) == (250, ("II", "V1"), 1300)
    samples = record.read(0, 1300)
    assert np.isnan(samples[:, 500:800]).all()
    np.testing.assert_allclose(np.delete(samples, np.arange(500, 800), axis=1), ECG / 1e3, rtol=1e-6)
    assert record.notes == ("without its arrays peaks",)
    with pytest.raises(InputError, match=r"a rate of 250 Hz \(its array time\), but fs is 360"):
        open_record(tmp_path / "a.npz", fs=360)


def test_physiobank_writes_gain_and_base_beside_a_mat_file(tmp_path: Path) -> None:
    raw = np.array([[1024, 1224, -32768], [100, -100, 0]], np.int16)
    scipy.io.savemat(tmp_path / "100m.mat", {"val": raw})
    (tmp_path / "100m.info").write_text(INFO)
    record = open_record(tmp_path / "100m.mat")
    assert (record.fs, record.leads, record.uv_per_lsb) == (360, ("MLII", "V5"), 5)
    np.testing.assert_array_equal(record.read(0, 3), np.array([[0, 1, np.nan], [1, -1, 0]], np.float32))
    (tmp_path / "100m.info").unlink()
    bare = open_record(tmp_path / "100m.mat", fs=360, units="uV", scale=5, leads=("II", "V1"))
    np.testing.assert_allclose(bare.read(1, 2), [[6.12], [-0.5]], rtol=1e-6)


@pytest.mark.parametrize(
    "held", [{"ecg": ECG.T, "fs": 250}, {"val": ECG, "Fs": 250.0}, {"s": {"data": ECG, "samplingRate": [[250]]}}]
)
def test_mat_files_of_many_hands(held: dict[str, Any], tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", held)
    record = open_record(tmp_path / "a.mat", units="mV", leads=("II", "V1"))
    assert record.fs == 250
    np.testing.assert_array_equal(record.read(0, 1000), ECG)


@pytest.mark.parametrize(
    ("name", "arrays", "said"),
    [
        ("a.npz", {"foo": ECG, "bar": ECG}, "does not say which of its arrays is the ECG (foo float64 (2, 1000), bar"),
        ("a.npz", {"X": np.zeros((90, 187)), "y": np.zeros(90)}, "holds an array (90, 187), as sets of heartbeats do"),
        ("a.npz", {"fs": 250}, "does not say which of its arrays"),
        (
            "a.npz",
            {"ecg": ECG, "fs": 500, "time": np.arange(1000) / 250},
            "states a rate of 500 Hz, but 250 Hz by its array time",
        ),
        ("a.npz", {"ecg": ECG, "time": np.r_[0:500, 0:500] / 250}, "its array time, value 500: the time runs backwards"),
        (
            "a.npy",
            np.zeros((2, 3, 4)),
            "holds float64 (2, 3, 4): numbers of shape (leads, samples) are needed. It seems to hold 2 recordings: save one",
        ),
        ("a.npy", np.array([{}], object), "holds Python objects"),
        (
            "a.mat",
            b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(200),
            "version 7.3 (HDF5), which is not read: in MATLAB, save(",
        ),
        ("a.mat", b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(200), "is no MAT-file that can be read"),
    ],
)
def test_what_is_no_recording_is_said(name: str, arrays: Any, said: str, tmp_path: Path) -> None:
    if isinstance(arrays, bytes):
        (tmp_path / name).write_bytes(arrays)
    elif isinstance(arrays, dict):
        np.savez(tmp_path / name, **arrays)
    else:
        np.save(tmp_path / name, arrays, allow_pickle=True)
    with pytest.raises(DeviceError) as caught:
        open_record(tmp_path / name, units="mV", leads=("II", "V1"))
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["a.npz", "a.mat"])
def test_spoiled_bytes_are_an_error_or_a_recording(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "a.npz":
        np.savez_compressed(path, ecg=ECG, fs=250)
    else:
        scipy.io.savemat(path, {"ecg": ECG, "fs": 250}, do_compression=True)
    whole = path.read_bytes()

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=6), st.integers(0, len(whole)))
    def spoiled(changes: list[tuple[int, int]], stop: int) -> None:
        content = bytearray(whole)
        for at, value in changes:
            content[at] = value
        path.write_bytes(content[:stop])
        try:
            open_record(path, **GIVEN, strict=False).read(0, 1)
        except EcgnatError as error:
            assert name in str(error)

    spoiled()


def test_an_array_without_names_rate_and_unit_is_told_all_of_it_with_twelve_leads_in_the_usual_order(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((5000, 12), np.int16))
    with pytest.raises(DeviceError) as caught:
        open_record(tmp_path / "a.npy")
    said = str(caught.value)
    assert "does not say its fs and units and leads" in said
    assert "leads, a name for each of its 12 signals in their order" in said
    assert said.count("--leads I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6") == 1
    assert "--fs 250 --units mV --leads" in said
    assert said.endswith("give scale too, for a step of 5 uV --units uV --scale 5")
    np.save(tmp_path / "b.npy", np.zeros((2, 5000)))
    with pytest.raises(DeviceError, match=r"--leads II,V1$"):
        open_record(tmp_path / "b.npy")


@pytest.mark.parametrize(("shape", "held"), [((1, 500, 12), "one recording"), ((4, 500, 12), "4 recordings")])
def test_an_array_of_several_recordings_is_refused_with_how_to_save_one(
    shape: tuple[int, ...], held: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape))
    with pytest.raises(DeviceError, match=rf"It seems to hold {held}: save one alone, .*np\.save\('one\.npy', a\[0\]\)"):
        open_record(tmp_path / "a.npy", **GIVEN)
