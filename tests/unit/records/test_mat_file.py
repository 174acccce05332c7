"""MAT-files are read as scipy reads them, and damaged ones end nothing."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgnat_devices.records.mat_file import read_mat
from ecgnat_stream.errors import DeviceError

TYPES = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
ECG = np.arange(60.0).reshape(2, 30) / 7


def saved(path: Path, held: dict[str, Any], **how: Any) -> Path:
    scipy.io.savemat(path, held, **how)
    return path


@pytest.mark.parametrize("packed", [False, True])
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(
        st.text("abcdefgXYZ", min_size=1, max_size=12),
        st.tuples(st.sampled_from(TYPES), st.integers(1, 5), st.integers(1, 40)),
        min_size=1,
        max_size=5,
    )
)
def test_numbers_are_those_of_scipy(tmp_path: Path, packed: bool, arrays: dict[str, tuple[str, int, int]]) -> None:
    rng = np.random.default_rng(1)
    held = {name: rng.integers(0, 100, (rows, columns)).astype(kind) for name, (kind, rows, columns) in arrays.items()}
    path = saved(tmp_path / "a.mat", held, do_compression=packed)
    expected = scipy.io.loadmat(path, simplify_cells=True)
    found = read_mat(path)
    assert set(found) == set(held)
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name])
        assert np.asarray(value).dtype.kind == np.asarray(held[name]).dtype.kind


def test_structures_texts_and_cells(tmp_path: Path) -> None:
    names = np.array(["II", "V1"], dtype=object)
    held = {
        "ecg": {"data": ECG, "fs": 250.0, "units": "µV", "deep": {"deeper": ECG[0]}},
        "names": names,
        "rows": np.array(["one", "three"]),
        "empty": np.zeros((0, 0)),
        "complex": ECG + 1j,
        "mixed": np.array(["a", 1.0], dtype=object),
    }
    found = read_mat(saved(tmp_path / "a.mat", held))
    assert set(found) == {"ecg", "names", "rows", "empty"}
    ecg: Any = found["ecg"]
    assert (float(ecg["fs"]), ecg["units"]) == (250.0, "µV")
    np.testing.assert_array_equal(ecg["data"], ECG)
    np.testing.assert_array_equal(ecg["deep"]["deeper"], ECG[0])
    assert np.asarray(found["names"]).tolist() == ["II", "V1"]
    assert np.asarray(found["rows"]).tolist() == ["one", "three"]
    assert np.asarray(found["empty"]).size == 0


def test_version_4(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.mat", {"ecg": ECG, "fs": 250.0, "name": "II"}, format="4")
    found = read_mat(path)
    np.testing.assert_array_equal(found["ecg"], ECG)
    assert (float(np.asarray(found["fs"])), found["name"]) == (250.0, "II")


def test_big_endian(tmp_path: Path) -> None:
    values = np.arange(6, dtype=">i2")
    name = b"val"
    parts = [(6, np.array([10, 0], ">u4").tobytes()), (5, np.array([1, 6], ">i4").tobytes()), (1, name), (3, values.tobytes())]
    body = b"".join(np.array([kind, len(data)], ">u4").tobytes() + data + bytes(-len(data) % 8) for kind, data in parts)
    element = np.array([14, len(body)], ">u4").tobytes() + body
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI" + element)
    np.testing.assert_array_equal(read_mat(tmp_path / "a.mat")["val"], np.arange(6))


def test_what_becomes_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecgnat_devices.records.mat_file._MOST_BYTES", 10_000)
    packed = zlib.compress(bytes(1_000_000))
    element = np.array([15, len(packed)], "<u4").tobytes() + packed
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + element)
    with pytest.raises(DeviceError, match="more than 10000 bytes"):
        read_mat(tmp_path / "a.mat")


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_whatever_is_damaged_is_an_error_or_something(tmp_path: Path, data: st.DataObject) -> None:
    version = data.draw(st.sampled_from(["4", "5"]))
    out = io.BytesIO()
    held: dict[str, Any] = {"val": ECG.astype("<i2"), "fs": 250.0, "names": "II"} | ({"s": {"a": ECG}} if version == "5" else {})
    scipy.io.savemat(out, held, format=version, do_compression=version == "5" and data.draw(st.booleans()))
    spoiled = bytearray(out.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "a.mat").write_bytes(spoiled[: data.draw(st.integers(0, len(spoiled)))])
    try:
        read_mat(tmp_path / "a.mat")
    except DeviceError as error:
        assert "a.mat" in str(error)
