"""Recordings are found by their names, and by a look into files that could be something else."""

from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path

import pytest

from ecgnat_devices.records import open_record
from ecgnat_stream.batch.choose import choose
from ecgnat_stream.errors import DeviceError
from ecgnat_stream.recordings import files_of, find_recordings, header_of, no_file, suffix_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "a.hea": "a 2 360 650000\na.dat 212 200 11 1024\n",
        "a.dat": "",
        "a.atr": "",
        "deep/er/b.HEA": "",
        "deep/m.hea": "m/3 2 360 650000\nm_1 325000\n~ 100\nm_2 325000\n",
        "deep/m_1.hea": "m_1 2 360 325000\n",
        "deep/m_2.hea": "m_2 2 360 325000\n",
        "marks.hea": "# annotations alone\nmarks 0 128\n",
        "broken.hea": "\x00\x01",
        "c.EDF": "",
        "d.npy": "",
        "leads.csv": "II,V1\n0.1,0.2\n",
        "semicolons.txt": "0,1;2\n",
        "numbers.tsv": "1\t2\n",
        "splits.csv": "database,record,split\nmitdb,100,train\n",
        "README.txt": "Read me\nfirst\n",
        "empty.csv": "",
        ".hidden.csv": "1,2\n",
        ".git/e.csv": "1,2\n",
        "picture.png": "",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.xlsx",
            b"PK\x03\x04" + bytes(30),
            "is a spreadsheet of Excel or a ZIP archive, not a table as text: save its table as CSV",
        ),
        ("a.xls", b"\xd0\xcf\x11\xe0" + bytes(30), "is a spreadsheet or document of an old Office, not a table as text: save"),
        ("a.JSON", b'{"fs": 250, "ecg": [1, 2, 3]}', "JSON"),
        ("a.json.gz", gzip.compress(b'{"fs": 250, "ecg": [1, 2, 3]}'), "JSON"),
        ("a.parquet", b"PAR1" + bytes(30), "is a Parquet file, not a table as text: save its table as CSV"),
        ("a.pkl", pickle.dumps({"ecg": [1, 2]}), "is a pickle of Python, not a table as text: save its table as CSV"),
        ("a.h5", b"\x89HDF\r\n" + bytes(30), "is an HDF5 file, not a table as text: save its table as CSV"),
    ],
)
def test_kinds_of_files_that_are_not_read_are_named_once_with_the_cure(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    for folder in ("1", "2", "3"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(content)
    ((path, why),) = find_recordings(tmp_path).passed.items()
    assert path == tmp_path / "1" / name
    assert said in why
    suffix = suffix_of(path)
    assert why.endswith(f" (and 2 more {suffix} files)")
    chosen = choose([str(tmp_path / "*" / name)])
    assert chosen.passed == {str(path): why}
    assert list(chosen.missing.values()) == ["matches no recording"]
    with pytest.raises(DeviceError) as caught:
        open_record(path)
    assert why.removesuffix(f" (and 2 more {suffix} files)") in str(caught.value)
    (tmp_path / "2" / name).unlink()
    (tmp_path / "3" / name).unlink()
    assert why.startswith(find_recordings(tmp_path).passed[path])


def test_pictures_programs_and_pages_are_passed_over_in_silence(tmp_path: Path) -> None:
    for name in ("a.png", "a.py", "a.html", "a.pdf", ".a.json", "LICENSE"):
        (tmp_path / name).write_bytes(b"x")
    assert find_recordings(tmp_path) == ([], {})


def test_a_folder_gives_its_recordings_and_says_what_it_passes_over(folder: Path) -> None:
    found = find_recordings(folder)
    names = [str(path.relative_to(folder)) for path in found.recordings]
    assert names == [
        "a.hea",
        "broken.hea",
        "c.EDF",
        "d.npy",
        "leads.csv",
        "numbers.tsv",
        "semicolons.txt",
        "deep/m.hea",
        "deep/er/b.HEA",
    ]
    assert {path.name: why for path, why in found.passed.items()} == {
        "README.txt": "is no table of numbers",
        "empty.csv": "is no table of numbers: it holds nothing",
        "marks.hea": "describes no signals",
        "splits.csv": "is no table of numbers",
    }


def test_every_file_of_a_record_leads_to_its_header(folder: Path) -> None:
    for name in ("a", "a.hea", "a.dat", "a.atr"):
        assert header_of(folder / name) == folder / "a.hea"
    assert header_of(folder / "c.EDF") is None
    assert header_of(folder / "gone") is None


def test_a_recording_is_read_from_the_files_that_its_header_names(folder: Path) -> None:
    assert {path.name for path in files_of(folder / "a.hea")} == {"a.hea", "a.dat", "a.mat", "a.flac"}
    assert {"m.hea", "m_1.hea", "m_2.hea", "m_1.dat"} <= {path.name for path in files_of(folder / "deep" / "m.hea")}
    assert files_of(folder / "c.EDF") == {folder / "c.EDF"}
    assert files_of(folder / "broken.hea") >= {folder / "broken.hea"}


@pytest.mark.parametrize("name", ["", ".", "..", "/"])
def test_a_folder_has_no_header(name: str) -> None:
    assert header_of(Path(name)) is None


@pytest.mark.parametrize("name", ["s1/2", "s\0x", "../s", "~", "-", "/"])
def test_a_header_that_names_odd_segments_is_passed_over(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.hea"
    path.write_text(f"m/2 1 250 500\n{name} 250\n~ 250\n")
    assert path in find_recordings(tmp_path).recordings
    assert path in files_of(path)


def test_a_folder_with_pipes_is_looked_at_without_waiting(tmp_path: Path) -> None:
    for name in ("a.hea", "a.csv", "a.xml", "a.csv.gz"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "b.hea").write_text("b 1 250 100\nb.dat 16 200/mV 16 0 0 0 0 II\n")
    assert tmp_path / "b.hea" in find_recordings(tmp_path).recordings
    assert files_of(tmp_path / "a.hea") >= {tmp_path / "a.hea"}


def test_files_and_segments_are_those_of_the_header_whatever_they_are_called(tmp_path: Path) -> None:
    (tmp_path / "rec.hea").write_text("\ufeffrec/2 1 250 200\r\n\r\nmy part 1 100\r\nother\t100\r\n", encoding="utf-8")
    (tmp_path / "my part 1.hea").write_text("my part 1 1 250 100\nsub/my größe.dat 16 200/µV 16 0 0 0 0 II\n", encoding="latin-1")
    (tmp_path / "other.hea").write_text("other 1 250 100\nC:\\data\\x.dat 16 200/mV 16 0 0 0 0 II\n")
    assert find_recordings(tmp_path).recordings == [tmp_path / "rec.hea"]
    files = files_of(tmp_path / "rec.hea")
    assert {tmp_path / name for name in ("rec.hea", "my part 1.hea", "other.hea", "sub/my größe.dat", "x.dat")} <= files


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pipe", "is no file but a pipe, which cannot be read from any place: copy what it gives into a file"),
        ("pipe.csv", "is no file but a pipe, which cannot be read from any place: copy what it gives into a file"),
        ("/dev/zero", "is no file but a device, which cannot be read from any place: copy what it gives into a file"),
        ("loop", "is no file but a loop of links: name a recording"),
        ("loop.edf", "is no file but a loop of links: name a recording"),
        ("lost.edf", "is no file but a link to what is not there: name a recording"),
        ("x", "is no recording: its header x.hea is no file but a folder"),
        ("y", "is no recording: its header y.hea is no file but a pipe"),
        ("y.dat", "is no recording: its header y.hea is no file but a pipe"),
        ("z", "is no recording: its header z.hea is no file but a loop of links"),
    ],
)
def test_what_is_no_file_is_called_what_it_is(name: str, said: str, tmp_path: Path) -> None:
    for pipe in ("pipe", "pipe.csv", "y.hea"):
        os.mkfifo(tmp_path / pipe)
    for loop in ("loop", "loop.edf", "z.hea"):
        (tmp_path / loop).symlink_to(loop)
    (tmp_path / "lost.edf").symlink_to("gone.edf")
    (tmp_path / "x.hea").mkdir()
    with pytest.raises(DeviceError) as caught:
        open_record(tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: {said}"
    assert choose([str(tmp_path / name)]).missing == {str(tmp_path / name): said}
    assert (no_file(tmp_path / "gone"), no_file(tmp_path / "w")) == (None, None)
