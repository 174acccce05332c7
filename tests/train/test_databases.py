"""Readers of Holter, ICU and quality databases, what they share with others, and why a folder of a data root gives nothing."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
import wfdb
from rich.console import Console

from ecgnat_stream.codes import BEATS
from ecgnat_stream.signal import LEADS
from train.data.labels import UNSTATED, allow, forbid
from train.data.pack import DATABASES, Manifest, prepare
from train.data.record import Record
from train.data.records import left_out, read_database
from train.data.splits import read_splits

data = pytest.mark.data


def one(root: Path, database: str, name: str) -> Record:
    return next(iter(read_database(root, database, {name: "train"})))


def there(record: Record) -> list[str]:
    return [LEADS[slot] for slot in np.flatnonzero(np.isfinite(record.samples).any(axis=1))]


def write(folder: Path, name: str, fs: int = 128, leads: Sequence[str] = ("ECG1", "ECG2"), comments: Sequence[str] = ()) -> Path:
    """Write 10 s of sines of 1 mV and return its path without suffix."""
    folder.mkdir(parents=True, exist_ok=True)
    signal = np.sin(np.arange(10 * fs) / fs * 2 * np.pi * 5)[:, None].repeat(len(leads), axis=1)
    count = len(leads)
    wfdb.wrsamp(
        name, fs, ["mV"] * count, list(leads), signal, fmt=["16"] * count, adc_gain=[1000.0] * count, baseline=[0] * count,
        comments=list(comments), write_dir=str(folder),
    )  # fmt: skip
    return folder / name


def annotate(path: Path, marks: Sequence[tuple[int, str, str]]) -> None:
    at, symbols, notes = zip(*marks, strict=True)
    wfdb.wrann(path.name, "atr", np.array(at), list(symbols), aux_note=list(notes), write_dir=str(path.parent))


def test_svdb_states_beats_and_no_rhythm(tmp_path: Path) -> None:
    path = write(tmp_path / "svdb", "800")
    annotate(path, [(100, "N", ""), (200, "S", ""), (250, "~", ""), (300, "V", ""), (400, "|", "")])
    record = one(tmp_path, "svdb", "800")
    assert there(record) == ["II", "V1"] and record.fs == 128
    assert record.beats is not None and record.beats.tolist() == [100, 200, 300]
    assert record.beat_class is not None and [BEATS[c] for c in record.beat_class] == ["N", "S", "V"]
    assert (record.rhythm == UNSTATED).all()
    path.with_suffix(".atr").unlink()
    with pytest.raises(ValueError, match="holds no beats"):
        one(tmp_path, "svdb", "800")


def test_qtdb_takes_rhythm_from_rhythm_changes_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "qtdb", "sele0104", 250, ("D3", "CM4"))
    changes = [(10, "+", "(N"), (600, "s", "(ST0+"), (900, "T", "T0+)"), (1500, "+", "(SAB")]
    annotate(path, sorted([*changes, (100, "N", ""), (1600, "V", "")]))
    record = one(tmp_path, "qtdb", "sele0104")
    assert there(record) == ["III", "V4"]
    assert (record.rhythm[10:1500] == allow("SINUS")).all()  # the note about ST is none about rhythm
    assert (record.rhythm[1500:] == UNSTATED).all()  # a rhythm without a class
    write(tmp_path / "qtdb", "sel30", 250, ("ECG1", "V2-V3"))
    bare = one(tmp_path, "qtdb", "sel30")
    assert bare.beats is None and (bare.rhythm == UNSTATED).all() and there(bare) == ["II"]
    annotate(write(tmp_path / "qtdb", "sel301", 250), [(100, "N", ""), (300, "V", "")])
    plain = one(tmp_path, "qtdb", "sel301")  # beats, and not one word about rhythm
    assert plain.beats is not None and len(plain.beats) == 2 and (plain.rhythm == UNSTATED).all()
    write(tmp_path / "qtdb", "sel31", 250, ("V1-V2", "V4-V5"))
    with pytest.raises(ValueError, match=r"sel31 .* cannot be read"):
        one(tmp_path, "qtdb", "sel31")


@pytest.mark.parametrize(
    ("database", "name", "comments", "stated"),
    [
        ("afpdb", "n01", (), forbid("AF")),
        ("afpdb", "p02", (), forbid("AF")),
        ("afpdb", "p02c", (), UNSTATED),
        ("afpdb", "t05", (), UNSTATED),
        ("aftdb", "ta_a01", (), allow("AF")),
        ("mimic_perform_af", "af_001", ("rhythm: atrial fibrillation",), allow("AF")),
        ("mimic_perform_af", "non_af_001", ("rhythm: not atrial fibrillation",), forbid("AF")),
        ("mimic_perform_af", "mimic_perform_af_001", (), allow("AF")),
        ("mimic_perform_af", "mimic_perform_non_af_001", (), forbid("AF")),
    ],
)
def test_whole_records_in_or_out_of_af(tmp_path: Path, database: str, name: str, comments: Sequence[str], stated: int) -> None:
    write(tmp_path / database, name, comments=comments)
    record = one(tmp_path, database, name)
    assert (record.rhythm == stated).all() and record.beats is None


def test_a_record_of_mimic_that_does_not_say_its_rhythm(tmp_path: Path) -> None:
    write(tmp_path / "mimic_perform_af", "s001", comments=["rhythm: paced"])
    with pytest.raises(ValueError, match=r"s001\.hea says neither"):
        one(tmp_path, "mimic_perform_af", "s001")


def cinc2011(folder: Path) -> None:
    folder.mkdir(parents=True)
    np.save(folder / "signals.npy", np.repeat(np.arange(200, 800, 200, dtype=np.int16), 12 * 2500).reshape(3, 12, 2500))
    columns = ",".join(f"bad_{lead}" for lead in LEADS)
    rows = ["7,train,1" + "," * 12, "8,val,0,1,0,0,0,0,0,1,0,0,0,0,0", "9,test," + "," * 12]
    (folder / "index.csv").write_text("\n".join([f"record,split,acceptable,{columns}", *rows]) + "\n")


def test_cinc2011_as_pack_and_as_download(tmp_path: Path) -> None:
    cinc2011(tmp_path / "pack" / "cinc2011")
    record = one(tmp_path / "pack", "cinc2011", "8")
    assert record.codes == ("unacceptable", "bad I", "bad V1")
    np.testing.assert_allclose(record.samples, 2.0)
    assert record.samples.shape == (12, 2500) and record.fs == 250 and (record.rhythm == UNSTATED).all()
    assert one(tmp_path / "pack", "cinc2011", "9").codes == ()
    with pytest.raises(ValueError, match=r"index\.csv has no such record"):
        one(tmp_path / "pack", "cinc2011", "10")
    with (tmp_path / "pack" / "cinc2011" / "index.csv").open("a") as file:
        file.write("10,train,1" + "," * 12 + "\n")
    with pytest.raises(ValueError, match=r"holds 3 records, index\.csv has 4"):
        one(tmp_path / "pack", "cinc2011", "7")
    folder = tmp_path / "full" / "cinc2011" / "set-a"
    write(folder, "1002603", 500, LEADS)
    (folder / "RECORDS-unacceptable").write_text("1002603\n")
    assert one(tmp_path / "full", "cinc2011", "1002603").codes == ("unacceptable",)


def test_a_database_that_splits_csv_lacks_has_its_own_or_none(tmp_path: Path) -> None:
    cinc2011(tmp_path / "cinc2011")
    write(tmp_path / "svdb", "800")
    write(tmp_path / "aftdb", "l_n01")
    (tmp_path / "splits.csv").write_text("database,record,split\naftdb,l_n01,train\n")
    sources: dict[str, str] = {}
    splits = read_splits(tmp_path, sources=sources)
    assert splits["cinc2011"] == {"7": "train", "8": "val", "9": "test"}
    assert (splits["aftdb"], splits["svdb"]) == ({"l_n01": "train"}, {"800": "unassigned"})
    assert sources["cinc2011"] == "cinc2011/index.csv" and "no training" in sources["svdb"]


def test_nobody_is_on_two_sides(tmp_path: Path) -> None:
    for database, names in {
        "mitdb": ["100"], "qtdb": ["sel100", "sel30"], "aftdb": ["n01"], "cinc2020": ["A0001"],
        "cinc2021": ["A0001", "A0700", "HR00008", "S0001", "S0002"], "afpdb": ["n01", "n02", "n02c", "n03"],
    }.items():  # fmt: skip
        for name in names:
            write(tmp_path / database, name)
    (tmp_path / "ptbxl").mkdir()
    sources: dict[str, str] = {}
    splits = read_splits(tmp_path, published=True, sources=sources)
    assert splits["aftdb"] == {"n01": "train"}
    assert splits["qtdb"]["sel100"] == "unassigned" and splits["qtdb"]["sel30"] != "unassigned"
    assert splits["cinc2021"]["A0001"] == "unassigned" and splits["cinc2021"]["A0700"] != "unassigned"
    assert splits["cinc2021"]["S0001"] == splits["cinc2021"]["S0002"]
    assert len({splits["afpdb"][name] for name in ("n01", "n02", "n02c")}) == 1
    assert splits["cinc2021"]["HR00008"] != "unassigned"  # without ptbxl it is nobody's copy
    assert "1 whose record or person is in another database" in sources["qtdb"]
    write(tmp_path / "ltafdb", "00")
    assert read_splits(tmp_path, published=True)["aftdb"] == {"n01": "unassigned"}
    rows = ["ptbxl,00008,test", "cinc2021,HR00008,train", "cinc2021,A0700,train", "ltafdb,00,test", "aftdb,n01,train"]
    write(tmp_path / "ptbxl", "00008_lr", 100)
    (tmp_path / "splits.csv").write_text("\n".join(["database,record,split", *rows]) + "\n")
    given = read_splits(tmp_path)
    assert given["cinc2021"] == {"HR00008": "unassigned", "A0700": "train"} and given["aftdb"] == {"n01": "unassigned"}


def test_every_folder_is_read_or_named(tmp_path: Path) -> None:
    root = tmp_path / "data"
    annotate(write(root / "svdb", "800"), [(100, "N", "")])
    annotate(write(root / "ltafdb_rr", "00"), [(100, "N", "")])
    (root / "ltafdb_rr" / "00.dat").unlink()
    write(root / "ours", "walk")
    write(root / "aftdb", "n01")
    out = io.StringIO()
    databases = tuple(name for name in DATABASES if name != "aftdb")
    rows = prepare(root, tmp_path / "cache", databases, console=Console(file=out, width=120))
    assert [row.database for row in rows] == ["svdb"]
    found = msgspec.json.decode((tmp_path / "cache" / "manifest.json").read_bytes(), type=Manifest)
    assert found.left_out["ltafdb_rr"] == "annotations without signals: there is nothing to condition"
    assert found.left_out["ours"].startswith("no known database") and found.left_out["aftdb"] == "not asked for"
    assert found.left_out["mitdb"] == "not in the data root"
    for line in ("skipped: ltafdb_rr: annotations without signals", "skipped: ours: no known database", "aftdb: not asked for"):
        assert line in out.getvalue()


@data
def test_all_of_the_data_root_is_read_or_named(data_root: Path) -> None:
    splits, reasons = read_splits(data_root), left_out(data_root, DATABASES)
    folders = {path.name for path in data_root.iterdir() if path.is_dir()} - {"nstdb"}
    assert folders - set(reasons) <= set(DATABASES) & set(splits)
    if (data_root / "ltafdb_rr").is_dir():
        assert "without signals" in reasons["ltafdb_rr"]
    for database in ("svdb", "qtdb", "afpdb", "aftdb", "mimic_perform_af", "cinc2011", "cinc2021"):
        if (data_root / database).is_dir():
            some = dict(list(splits[database].items())[::9])
            records = list(read_database(data_root, database, some, unreadable := []))
            assert len(records) >= 0.9 * len(some), unreadable
            assert all(there(record) for record in records)


@data
def test_counts_of_what_is_stated(data_root: Path) -> None:
    if not (data_root / "svdb").is_dir():
        pytest.skip("no svdb in this data root")
    record = one(data_root, "svdb", "801")
    assert record.beat_class is not None and len(record.beat_class) > 1500
    states = {int(r.rhythm[0]) for r in read_database(data_root, "mimic_perform_af", read_splits(data_root)["mimic_perform_af"])}
    assert states == {allow("AF"), forbid("AF")}
    hospital = [name for name in read_splits(data_root)["cinc2021"] if name.startswith("HR")]
    assert hospital and {read_splits(data_root)["cinc2021"][name] for name in hospital} == {"unassigned"}
