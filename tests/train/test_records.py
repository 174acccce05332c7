"""Reading the databases: miniature downloads in every layout, damaged files, and counts of the recorded ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyedflib
import pytest
import wfdb

from ecgnat_stream.codes import BEATS, RHYTHMS, SCREENS
from ecgnat_stream.signal import LEADS
from train.data.databases import READERS
from train.data.labels import BEAT_UNSTATED, UNSTATED, allow, forbid
from train.data.records import STATES, SUPERCLASSES, Record, find_names, read_database, read_noise
from train.data.splits import DS2, HOLDOUT, read_splits

data = pytest.mark.data


def one(root: Path, database: str, name: str) -> Record:
    return next(iter(read_database(root, database, {name: "train"})))


def there(record: Record) -> list[str]:
    return [LEADS[slot] for slot in np.flatnonzero(np.isfinite(record.samples).any(axis=1))]


def write(
    folder: Path, name: str, fs: int = 250, leads: Sequence[str] = ("ECG",), seconds: float = 4.0, comments: Sequence[str] = ()
) -> Path:
    """Write a WFDB record of sines of 1 mV and return its path without suffix."""
    folder.mkdir(parents=True, exist_ok=True)
    signal = np.sin(np.arange(int(seconds * fs)) / fs * 2 * np.pi * 5)[:, None].repeat(len(leads), axis=1)
    count = len(leads)
    wfdb.wrsamp(
        name,
        fs,
        ["mV"] * count,
        list(leads),
        signal,
        fmt=["16"] * count,
        adc_gain=[1000.0] * count,
        baseline=[0] * count,
        comments=list(comments),
        write_dir=str(folder),
    )
    return folder / name


def as_mat(path: Path) -> None:
    """Turn a record into the form of the Challenges: a header of 24 bytes before the samples, in a .mat."""
    dat, header = path.with_suffix(".dat"), path.with_suffix(".hea")
    path.with_suffix(".mat").write_bytes(bytes(24) + dat.read_bytes())
    dat.unlink()
    header.write_text(header.read_text().replace(".dat 16 ", ".mat 16+24 "))


def annotate(path: Path, extension: str, marks: Sequence[tuple[int, str, str]]) -> None:
    at, symbols, notes = zip(*marks, strict=True)
    wfdb.wrann(path.name, extension, np.array(at), list(symbols), aux_note=list(notes), write_dir=str(path.parent))


@pytest.mark.parametrize("nested", ["", "1.0.0"])
def test_rhythm_notes_and_beats(tmp_path: Path, nested: str) -> None:
    path = write(tmp_path / "mitdb" / nested, "100", 360, ("MLII", "V5"))
    annotate(path, "atr", [(10, "+", "(N"), (100, "N", ""), (500, "V", ""), (720, "+", "(AFIB"), (900, "~", ""), (1000, "A", "")])
    record = one(tmp_path, "mitdb", "100")
    assert there(record) == ["II", "V5"]
    assert (record.rhythm[10:720] == allow("SINUS")).all()
    assert (record.rhythm[720:] == allow("AF")).all()
    assert record.beats is not None and record.beats.tolist() == [100, 500, 1000]
    assert record.beat_class is not None and [BEATS[c] for c in record.beat_class] == ["N", "V", "S"]
    assert record.samples[1].max() == pytest.approx(1.0, abs=0.01)


def test_vfdb_gives_rhythm_without_beats(tmp_path: Path) -> None:
    annotate(write(tmp_path / "vfdb", "418", leads=("ECG1", "ECG2")), "atr", [(5, "+", "(VFL"), (500, "+", "(ASYS")])
    record = one(tmp_path, "vfdb", "418")
    assert record.beats is None
    assert (record.rhythm[5:500] == allow("VF")).all()
    assert there(record) == ["II", "V1"]


def test_beats_that_a_program_found_have_no_class(tmp_path: Path) -> None:
    path = write(tmp_path / "afdb", "04015", leads=("ECG1", "ECG2"))
    annotate(path, "atr", [(0, "+", "(AFIB"), (500, "+", "(J")])
    annotate(path, "qrs", [(100, "N", ""), (300, "N", "")])
    record = one(tmp_path, "afdb", "04015")
    assert record.beats is not None and record.beats.tolist() == [100, 300]
    assert record.beat_class is not None and set(record.beat_class.tolist()) == {BEAT_UNSTATED}
    assert (record.rhythm[500:] == allow("SINUS", "SVT")).all()


def test_cudb_as_pack_and_as_download(tmp_path: Path) -> None:
    pack, full = tmp_path / "pack", tmp_path / "full"
    annotate(write(pack / "cudb", "cu01"), "ann", [(100, "N", ""), (400, "+", "")])
    (pack / "cudb" / "vf_episodes.csv").write_text("record,start,stop\ncu01,400,800\n")
    annotate(write(full / "cudb", "cu01"), "atr", [(100, "N", ""), (400, "[", ""), (800, "]", "")])
    for root in (pack, full):
        record = one(root, "cudb", "cu01")
        assert (record.rhythm[400:800] == allow("VF")).all()
        assert (record.rhythm[:250] == forbid("VF", "ASYSTOLE", "NOISE")).all()
        assert (record.rhythm[800:] == forbid("VF")).all()
        assert record.beats is not None and record.beats.tolist() == [100]


def test_nsrdb_states_sinus_near_its_beats(tmp_path: Path) -> None:
    annotate(write(tmp_path / "nsrdb", "16265", 128, ("ECG1", "ECG2"), 10), "atr", [(200, "N", ""), (300, "V", "")])
    record = one(tmp_path, "nsrdb", "16265")
    assert (record.rhythm[8:492] == allow("SINUS")).all()
    assert (record.rhythm[492:] == UNSTATED).all()
    assert record.beat_class is not None and record.beat_class.tolist() == [0, BEATS.index("V")]


@pytest.mark.parametrize(("verdict", "bag"), [("True alarm", RHYTHMS.index("VT")), ("False alarm", -1)])
def test_cinc2015_ends_at_the_alarm(tmp_path: Path, verdict: str, bag: int) -> None:
    comments = ("Ventricular_Tachycardia", verdict)
    write(tmp_path / "pack" / "cinc2015", "v101l", leads=("II", "V"), seconds=90, comments=comments)
    as_mat(
        write(tmp_path / "full" / "cinc2015" / "training", "v101l", leads=("II", "V", "PLETH"), seconds=330, comments=comments)
    )
    for root, seconds in ((tmp_path / "pack", 90), (tmp_path / "full", 300)):
        record = one(root, "cinc2015", "v101l")
        assert record.samples.shape == (12, seconds * 250)
        assert there(record) == ["II", "V1"]
        assert record.bag == bag
        assert (record.rhythm[-2500:] == (UNSTATED if bag >= 0 else forbid("VT"))).all()


def test_cinc2017_as_pack_and_as_download(tmp_path: Path) -> None:
    pack = tmp_path / "pack" / "cinc2017"
    pack.mkdir(parents=True)
    np.save(pack / "signal_100hz_4uV_int16.npy", np.arange(2000, dtype=np.int16))
    (pack / "index.csv").write_text("record,label,start,stop\nA00001,N,0,900\nA00002,A,900,2000\n")
    for name in ("A00001", "A00002"):
        as_mat(write(tmp_path / "full" / "cinc2017" / "training2017", name, 300, seconds=9))
    (tmp_path / "full" / "cinc2017" / "REFERENCE-v3.csv").write_text("A00001,N\nA00002,A\n")
    (tmp_path / "full" / "cinc2017" / "training2017" / "REFERENCE.csv").write_text("A00001,N\nA00002,~\n")
    for root, fs in ((tmp_path / "pack", 100.0), (tmp_path / "full", 300.0)):
        assert find_names(root / "cinc2017") == ["A00001", "A00002"]
        record = one(root, "cinc2017", "A00002")
        assert (record.fs, there(record)) == (fs, ["II"])
        assert SCREENS[record.screen] == "A"
        assert (record.rhythm == allow("AF")).all()
    assert one(tmp_path / "pack", "cinc2017", "A00002").samples[1, 0] == pytest.approx(3.6)


def write_ptbxl(root: Path, low: Sequence[str], folds: Sequence[int]) -> None:
    folder = root / "ptbxl"
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["ecg_id,patient_id,scp_codes,strat_fold,filename_lr,filename_hr"]
    for number, (file, fold) in enumerate(zip(low, folds, strict=True), 1):
        high = file.replace("100/", "500/").replace("_lr", "_hr")
        codes = "{'NORM': 100.0, 'SR': 0.0}" if number == 1 else "{'IMI': 80.0, 'LAFB': 0.0, 'AFIB': 0.0}"
        lines.append(f'{number},{100 + number // 2}.0,"{codes}",{fold},{file},{high}')
    (folder / "ptbxl_database.csv").write_text("\n".join(lines) + "\n")
    (folder / "scp_statements.csv").write_text(
        ",description,diagnostic,diagnostic_class\nNORM,,1.0,NORM\nIMI,,1.0,MI\nLAFB,,1.0,CD\nSR,,,\nAFIB,,,\n"
    )


def test_ptbxl_flat_nested_and_500_hz(tmp_path: Path) -> None:
    files = ["records100/00000/00001_lr", "records100/00000/00002_lr", "records100/00000/00003_lr"]
    write_ptbxl(tmp_path, files, (1, 9, 10))
    folder = tmp_path / "ptbxl"
    upper = [lead.upper() for lead in LEADS]
    write(folder / "records100", "00001_lr", 100, upper, 10)
    write(folder / "records100" / "00000", "00002_lr", 100, LEADS, 10)
    write(folder / "records500" / "00000", "00003_hr", 500, LEADS, 10)
    first, second, third = read_database(tmp_path, "ptbxl", dict.fromkeys(find_names(folder), "train"))
    assert [record.fs for record in (first, second, third)] == [100, 100, 500]
    assert there(first) == list(LEADS)
    assert (first.window, int(first.rhythm[0])) == (1 << SUPERCLASSES.index("NORM"), allow("SINUS"))
    assert second.window == (1 << SUPERCLASSES.index("MI")) | (1 << SUPERCLASSES.index("CD"))
    assert (second.rhythm == allow("AF")).all()
    assert read_splits(tmp_path)["ptbxl"] == {"00001": "test", "00002": "test", "00003": "test"}
    sources: dict[str, str] = {}
    assert read_splits(tmp_path, published=True, sources=sources)["ptbxl"] == {"00001": "train", "00002": "val", "00003": "test"}
    assert sources == {"ptbxl": "published"}


def test_without_its_test_fold_ptbxl_is_split_by_patient(tmp_path: Path) -> None:
    files = [f"records100/{number:05d}_lr" for number in range(1, 61)]
    write_ptbxl(tmp_path, files, [1] * 60)
    for file in files:
        path = tmp_path / "ptbxl" / f"{file}.hea"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    sources: dict[str, str] = {}
    splits = read_splits(tmp_path, published=True, sources=sources)["ptbxl"]
    assert sources == {"ptbxl": "by hash"}
    assert set(splits.values()) == {"train", "val", "test"}
    assert all(splits[f"{number:05d}"] == splits[f"{number + 1:05d}"] for number in range(2, 60, 2))


def test_ludb_says_where_its_beats_are_marked(tmp_path: Path) -> None:
    path = write(tmp_path / "ludb" / "data", "7", 500, [lead.lower() for lead in LEADS], 10)
    annotate(path, "ii", [(600, "(", ""), (620, "N", ""), (640, ")", ""), (700, "t", ""), (1100, "N", ""), (1180, ")", "")])
    (tmp_path / "ludb" / "ludb.csv").write_text(
        'ID,Rhythms,Cardiac pacing\n7,"Atrial fibrillation\nAberrant conduction",\n8,,"Unipolar ventricular pacing"\n'
    )
    write(tmp_path / "ludb" / "data", "8", 500, [lead.lower() for lead in LEADS], 10)
    record, unmarked = read_database(tmp_path, "ludb", {"7": "train", "8": "train"})
    assert record.beats is not None and record.beats.tolist() == [620, 1100]
    assert record.beat_class is not None and set(record.beat_class.tolist()) == {BEAT_UNSTATED}
    assert record.beats_span == (600, 1181)
    assert (record.rhythm == allow("AF")).all()
    assert unmarked.beats is None
    assert (unmarked.rhythm == allow("PACED")).all()


@pytest.mark.parametrize(
    ("database", "place", "comment", "allowed"),
    [
        ("cinc2020", "", "Dx: 59118001,426783006", allow("SINUS")),
        ("cinc2020", "training/georgia/g1", "Dx: 164890007", allow("AF")),
        ("cinc2020", "training/cpsc_2018/g1", "Dx: Normal", allow("SINUS")),
        ("cinc2020", "", "Dx: 426177001,425856008", allow("SINUS", "VT")),
        ("cinc2020", "", "Dx: 164895002", UNSTATED),
        ("chapman", "WFDBRecords/01/010", "Dx: 233896004", allow("SVT")),
        ("chapman", "", "Rhythm: AF", allow("AF")),
        ("chapman", "", "Rhythm: ST", allow("SINUS")),
        ("chapman", "", "Rhythm: NEVER SEEN", UNSTATED),
    ],
)
def test_statements_in_the_header(tmp_path: Path, database: str, place: str, comment: str, allowed: int) -> None:
    comments = ("Age: 88", "Sex: MALE", comment, "Beat: NONE")
    as_mat(write(tmp_path / database / place, "JS00001", 500, LEADS, 10, comments))
    assert find_names(tmp_path / database) == ["JS00001"]
    record = one(tmp_path, database, "JS00001")
    assert there(record) == list(LEADS)
    assert (record.rhythm == allowed).all()


def test_a_folder_of_signals_states_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "ours"
    write(folder / "deep", "walk", leads=("II",))
    np.save(folder / "stick.npy", np.full((1, 500), 800, np.int16))
    (folder / "stick.json").write_text(json.dumps({"fs": 200, "units": "uV", "leads": ["X"], "lead_map": {"X": "V1"}}))
    with pyedflib.EdfWriter(str(folder / "night.edf"), 1) as edf:
        edf.setSignalHeader(0, {"label": "ECG II", "dimension": "mV", "sample_frequency": 200} | _RANGE)
        edf.writeSamples([np.full(800, 0.25)])
    splits = read_splits(tmp_path)["ours"]
    assert splits == dict.fromkeys(splits, "test")
    records = {record.name: record for record in read_database(tmp_path, "ours", splits)}
    assert set(records) == {"deep/walk", "stick", "night"}
    assert (records["stick"].fs, there(records["stick"])) == (200, ["V1"])
    assert records["stick"].samples[6].tolist() == pytest.approx([0.8] * 500)
    assert records["night"].samples[1].mean() == pytest.approx(0.25, abs=0.001)
    assert all((record.rhythm == UNSTATED).all() and record.beats is None for record in records.values())


_RANGE = {"physical_min": -5, "physical_max": 5, "digital_min": -32768, "digital_max": 32767, "transducer": "", "prefilter": ""}


def test_an_npy_file_must_say_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    np.save(tmp_path / "ours" / "stick.npy", np.zeros((1, 500)))
    with pytest.raises(ValueError, match=r"stick.json or signals.json.*fs"):
        one(tmp_path, "ours", "stick")
    (tmp_path / "ours" / "signals.json").write_text('{"fs": 200, "unit": "mV"}')
    with pytest.raises(ValueError, match=r"ours record stick .*`unit`"):
        one(tmp_path, "ours", "stick")


def damage(path: Path, how: str) -> None:
    header, dat = path.with_suffix(".hea"), path.with_suffix(".dat")
    if how == "no header":
        header.unlink()
    elif how == "no samples":
        dat.unlink()
    elif how == "truncated":
        dat.write_bytes(dat.read_bytes()[:100])
    elif how == "lead names":
        header.write_text(header.read_text().replace("MLII", "EEG"))
    elif how == "all missing":
        dat.write_bytes(np.full(1000, -32768, np.int16).tobytes())
    elif how == "rate":
        header.write_text(header.read_text().replace("bad 1 250", "bad 1 50"))
    else:
        path.with_suffix(".atr").unlink()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("no header", "no header bad.hea"),
        ("no samples", "bad.dat: does not exist"),
        ("truncated", "truncated: 2000 bytes expected, 100 found"),
        ("lead names", "leads EEG are not those of I, II"),
        ("all missing", "no valid sample"),
        ("rate", "50 Hz: 100 to 1000"),
        ("no annotation", "bad.atr"),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, how: str, says: str) -> None:
    for name in ("bad", "good"):
        annotate(write(tmp_path / "mitdb", name, leads=("MLII",)), "atr", [(0, "+", "(N"), (9, "N", "")])
    damage(tmp_path / "mitdb" / "bad", how)
    splits = {"bad": "train", "good": "train"}
    with pytest.raises(ValueError, match=r"mitdb record bad .* cannot be read") as caught:
        list(read_database(tmp_path, "mitdb", splits))
    assert says in str(caught.value)
    problems: list[str] = []
    assert [record.name for record in read_database(tmp_path, "mitdb", splits, problems)] == ["good"]
    assert len(problems) == 1 and says in problems[0]


def test_missing_samples_stay_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "chapman", "MUSE_1", leads=("I", "II"), comments=["Rhythm: SR"])
    values = np.fromfile(path.with_suffix(".dat"), np.int16).reshape(-1, 2)
    values[100:200, 1] = -32768
    path.with_suffix(".dat").write_bytes(values.tobytes())
    record = one(tmp_path, "chapman", "MUSE_1")
    assert np.isnan(record.samples[1, 100:200]).all()
    assert np.isfinite(record.samples[0]).all()


def test_a_table_that_is_missing_is_named(tmp_path: Path) -> None:
    write(tmp_path / "ludb" / "data", "1", 500, LEADS)
    with pytest.raises(ValueError, match=r"holds no ludb\.csv"):
        one(tmp_path, "ludb", "1")


def test_records_files_leave_out_what_is_no_record(tmp_path: Path) -> None:
    for place, name in (("", "100"), ("", "101"), ("x_mitdb", "x_108")):
        write(tmp_path / "mitdb" / place, name)
    assert find_names(tmp_path / "mitdb") == ["100", "101", "x_108"]
    (tmp_path / "mitdb" / "RECORDS").write_text("100\n101\n102\n")
    assert find_names(tmp_path / "mitdb") == ["100", "101"]


def test_without_splits_all_is_test_and_absent_is_absent(tmp_path: Path) -> None:
    for database, name in (("mitdb", "101"), ("nstdb", "bw"), (".hidden", "1")):
        write(tmp_path / database, name)
    (tmp_path / "vfdb").mkdir()
    assert read_splits(tmp_path) == {"mitdb": {"101": "test"}}
    assert list(read_noise(tmp_path / "mitdb")) == []
    with pytest.raises(ValueError, match="is no folder"):
        read_splits(tmp_path / "nowhere")


def test_splits_csv_wins_and_the_rest_is_unassigned(tmp_path: Path) -> None:
    for database, name in (("mitdb", "101"), ("mitdb", "217"), ("chapman", "MUSE_1")):
        write(tmp_path / database, name)
    (tmp_path / "splits.csv").write_text("database,record,split\nmitdb,101,train\nmitdb,217,train\nptbxl,00001,test\n")
    expected = {"mitdb": {"101": "train", "217": "holdout"}, "chapman": {"MUSE_1": "unassigned"}}
    sources: dict[str, str] = {}
    assert read_splits(tmp_path) == expected
    assert read_splits(tmp_path, published=True, sources=sources) == expected
    assert sources["mitdb"] == "splits.csv"
    assert sources["chapman"] == "not in splits.csv: for no training, no choice and no test"


def test_splits_csv_may_not_name_what_is_not_there(tmp_path: Path) -> None:
    write(tmp_path / "mitdb", "101")
    lines = "".join(f"mitdb,{name},train\n" for name in range(101, 109))
    (tmp_path / "splits.csv").write_text(f"database,record,split\n{lines}")
    with pytest.raises(ValueError, match=r"7 of 8 mitdb records .*: 102, 103, 104, 105, 106, \.\.\.\. Fetch"):
        read_splits(tmp_path)


def headers(folder: Path, names: Sequence[str]) -> None:
    folder.mkdir(parents=True)
    for name in names:
        (folder / f"{name}.hea").touch()


def test_published_splits_keep_persons_apart(tmp_path: Path) -> None:
    js = [f"JS{number:05d}" for number in range(60)]
    headers(tmp_path / "mitdb", ["100", "101", "201", "202", "217", "223"])
    headers(tmp_path / "vfdb", [str(number) for number in (*range(418, 431), 602, 605, 607, 609, 610, 611, 612, 614, 615)])
    headers(tmp_path / "nsrdb", ["16265"])
    headers(tmp_path / "ptbxl", [])
    headers(tmp_path / "cinc2020", [*js, *(f"I{number:04d}" for number in range(30)), "HR00001"])
    headers(tmp_path / "chapman", [*js, "MUSE_1"])
    splits = read_splits(tmp_path, published=True)
    assert [splits["mitdb"][name] for name in ("100", "101", "201", "202")] == ["test", "train", "train", "train"]
    assert [splits["mitdb"][name] for name in HOLDOUT["mitdb"]] == ["holdout", "holdout"]
    assert set(splits["vfdb"].values()) == {"train", "val", "test"}
    assert splits["nsrdb"] == {"16265": "test"}
    assert all(splits["chapman"][name] == splits["cinc2020"][name] for name in js)
    assert {splits["cinc2020"][name] for name in js} == {"train", "val", "test"}
    assert len({split for name, split in splits["cinc2020"].items() if name.startswith("I")}) == 1
    assert splits["chapman"]["MUSE_1"] == "unassigned"
    headers(tmp_path / "ptbxl" / "records100", ["00001_lr"])
    write_ptbxl(tmp_path, ["records100/00001_lr"], [1])
    assert read_splits(tmp_path, published=True)["cinc2020"]["HR00001"] == "unassigned"


def lists(folder: Path, name: str, column: str, **parts: Sequence[str]) -> None:
    for part in ("train", "val", "test"):
        rows = [f"7,{record}" for record in parts.get(part, ())]
        (folder / f"{name}_{part}.csv").write_text("\n".join([f"age,{column}", *rows]) + "\n")


def test_published_lists_decide_where_they_lie(tmp_path: Path) -> None:
    a, q, js = ([f"{begins}{number:05d}" for number in range(1, 31)] for begins in ("A", "Q", "JS"))
    headers(tmp_path / "cinc2020", [*a, *q])
    headers(tmp_path / "chapman" / "WFDBRecords" / "01", js)
    headers(tmp_path / "afdb", ["04015"])
    sources: dict[str, str] = {}
    by_hash = read_splits(tmp_path, published=True, sources=sources)
    assert sources == dict.fromkeys(("afdb", "chapman", "cinc2020"), "by hash")
    lists(tmp_path / "cinc2020", "icbeb", "filename", train=a[3:6], val=a[2:3], test=[*a[:2], "A09999"])
    named = [f"/chapman/WFDBRecords/01/{name}.mat" for name in js[:8]]
    lists(tmp_path / "chapman", "chapman", "ecg_path", train=named[:6], val=named[6:7], test=named[7:])
    splits = read_splits(tmp_path, published=True, sources=sources)
    assert [splits["cinc2020"][name] for name in a[:6]] == ["test", "test", "val", "train", "train", "train"]
    assert [splits["chapman"][name] for name in js[:8]] == ["train"] * 6 + ["val", "test"]
    assert {splits["cinc2020"][name] for name in a[6:]} == {splits["chapman"][name] for name in js[8:]} == {"unassigned"}
    assert {name: splits["cinc2020"][name] for name in q} == {name: by_hash["cinc2020"][name] for name in q}
    assert {splits["cinc2020"][name] for name in q} >= {"train", "test"}
    assert sources == {
        "afdb": "by hash",
        "chapman": "published",
        "cinc2020": "published where names begin with A, by hash elsewhere",
    }


def test_published_lists_must_be_whole_and_fit(tmp_path: Path) -> None:
    headers(tmp_path / "cinc2020", ["A0001", "A0002"])
    lists(tmp_path / "cinc2020", "icbeb", "filename", train=["A0001"], test=["A0001"])
    with pytest.raises(ValueError, match=r"icbeb_test\.csv: record A0001 is in train too"):
        read_splits(tmp_path, published=True)
    lists(tmp_path / "cinc2020", "icbeb", "filename", train=["HR00001"])
    with pytest.raises(ValueError, match=r"icbeb_test\.csv name none of the 2 records A\.\.\."):
        read_splits(tmp_path, published=True)
    (tmp_path / "cinc2020" / "icbeb_train.csv").unlink()
    with pytest.raises(ValueError, match=r"not icbeb_train\.csv: fetch all three"):
        read_splits(tmp_path, published=True)


def test_records_keep_the_words_of_their_database(tmp_path: Path) -> None:
    write(tmp_path / "chapman", "MUSE_1", leads=("I", "II"), comments=["Rhythm: AFIB", "Beat: AQW TWC"])
    write(tmp_path / "cinc2020", "JS00001", leads=("I", "II"), comments=["Dx: 426177001,164934002"])
    write(tmp_path / "ludb", "1", 500, ("I", "II"))
    table = 'ID,Rhythms,Cardiac pacing\n1,"Sinus rhythm\nSinus arrhythmia\n","Pacemaker presence, undefined\n"\n'
    (tmp_path / "ludb" / "ludb.csv").write_text(table)
    write_ptbxl(tmp_path, ["records100/00001_lr"], [1])
    write(tmp_path / "ptbxl" / "records100", "00001_lr", 100, LEADS)
    assert one(tmp_path, "chapman", "MUSE_1").codes == ("AFIB", "AQW", "TWC")
    assert one(tmp_path, "cinc2020", "JS00001").codes == ("426177001", "164934002")
    assert one(tmp_path, "ludb", "1").codes == ("Sinus rhythm", "Sinus arrhythmia", "Pacemaker presence, undefined")
    assert one(tmp_path, "ptbxl", "00001").codes == ("NORM", "SR")


def test_every_known_database_says_what_it_states() -> None:
    assert set(STATES) == set(READERS)
    assert {what for states in STATES.values() for what in states} == {"rhythm", "beats", "window", "screen", "bag", "quality"}
    assert len(set(DS2)) == 21


@data
def test_splits_hold_out_and_never_touch_test(data_root: Path) -> None:
    splits = read_splits(data_root)
    for database, names in HOLDOUT.items():
        assert [splits[database][name] for name in names] == ["holdout"] * len(names)
    assert splits["mitdb"]["100"] == "test"
    assert set(splits["nsrdb"].values()) == {"test"}
    assert set(splits["chapman"].values()) == {"unassigned"}
    assert "nstdb" not in splits


@data
def test_mitdb(data_root: Path) -> None:
    record = one(data_root, "mitdb", "203")
    assert (record.fs, there(record)) == (360.0, ["II", "V1"])
    assert {allow("AF"), allow("VT")} <= set(np.unique(record.rhythm).tolist())


@data
def test_mitdb_beats(data_root: Path) -> None:
    record = one(data_root, "mitdb", "106")
    assert record.beat_class is not None
    assert np.bincount(record.beat_class, minlength=5).tolist() == [1507, 0, 520, 0, 0]


@data
def test_vfdb(data_root: Path) -> None:
    record = one(data_root, "vfdb", "422")
    assert there(record) == ["II", "V1"]
    assert (record.rhythm == allow("VF")).sum() / record.fs == pytest.approx(520, abs=2)


@data
def test_cudb_states_vf_by_its_episodes(data_root: Path) -> None:
    record = one(data_root, "cudb", "cu01")
    assert set(np.unique(record.rhythm).tolist()) == {allow("VF"), forbid("VF"), forbid("VF", "ASYSTOLE", "NOISE")}
    assert (record.rhythm == allow("VF")).sum() == 127_230 - 53_540
    assert record.beats is not None and len(record.beats) == 203


@data
def test_nsrdb(data_root: Path) -> None:
    record = one(data_root, "nsrdb", "16265")
    assert record.beat_class is not None
    assert np.bincount(record.beat_class, minlength=5).tolist() == [11_430, 0, 4, 1, 0]
    assert (record.rhythm == allow("SINUS")).mean() > 0.99


@data
def test_cinc2015_true_and_false_alarms(data_root: Path) -> None:
    record = one(data_root, "cinc2015", "a103l")
    assert record.bag == -1
    assert (record.rhythm[-2500:] == forbid("ASYSTOLE")).all()
    assert (record.rhythm[:-2500] == UNSTATED).all()
    splits = dict(list(read_splits(data_root)["cinc2015"].items())[::5])
    bags = {RHYTHMS[r.bag] for r in read_database(data_root, "cinc2015", splits) if r.bag >= 0}
    assert bags == {"ASYSTOLE", "VT", "VF"}


@data
def test_cinc2017(data_root: Path) -> None:
    splits = read_splits(data_root)["cinc2017"]
    assert len(splits) == 6838
    records = list(read_database(data_root, "cinc2017", dict(list(splits.items())[::8])))
    counts = np.bincount([record.screen for record in records], minlength=4)
    assert len(records) == 855
    assert counts.min() > 10 and counts.argmax() == SCREENS.index("N")


@data
def test_ptbxl_has_twelve_leads_and_diagnoses(data_root: Path) -> None:
    record = one(data_root, "ptbxl", "00001")
    assert there(record) == list(LEADS)
    assert record.window == 1
    assert (record.rhythm == allow("SINUS")).all()


@data
def test_chapman(data_root: Path) -> None:
    splits = read_splits(data_root)["chapman"]
    stated = [int(record.rhythm[0]) for record in read_database(data_root, "chapman", splits)]
    assert {allowed: stated.count(allowed) for allowed in stated} == {allow("SINUS"): 56, allow("AF"): 33, allow("SVT"): 11}


@data
@pytest.mark.parametrize("database", ["ludb", "cinc2020"])
def test_twelve_lead_rhythms(data_root: Path, database: str) -> None:
    splits = dict(list(read_splits(data_root)[database].items())[:25])
    records = list(read_database(data_root, database, splits))
    assert len(records) == 25
    assert all(there(record) == list(LEADS) for record in records)
    assert allow("SINUS") in {int(record.rhythm[0]) for record in records}


@data
def test_ludb_marks_lie_on_the_qrs_peaks(data_root: Path) -> None:
    record = one(data_root, "ludb", "1")
    assert record.beats is not None and record.beats_span is not None
    assert record.beats_span[0] < record.beats.min() and record.beats.max() < record.beats_span[1]
    for at in record.beats:
        near = record.samples[1, at - 30 : at + 30]
        assert abs(int(np.abs(near - np.median(near)).argmax()) - 30) <= 2
