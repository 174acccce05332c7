"""Tasks: their classes against the databases' own tables, what known records state, parts, and statements nobody reads."""

from __future__ import annotations

import io
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

from train.data import databases
from train.data.databases import READERS
from train.data.labels import UNSTATED
from train.data.pack import Cached
from train.data.record import rows_of
from train.data.sample import BEAT_HIDDEN, MIXES, Cache, Sampler
from train.data.splits import read_splits
from train.data.statements import CSN, CSN_OTHER, GROUP_WORDS, SCP_DIAGNOSTIC, SCP_FORM, SCP_RHYTHM, SCP_SUPER
from train.data.tasks import PARTS, TASKS, Task, fraction_of_task, hospital, measurable, unread
from train.tasks import main, print_tasks

data = pytest.mark.data


def record(database: str, codes: tuple[str, ...] = (), name: str = "1", split: str = "train", **stated: Any) -> Cached:
    return Cached(database, name, split, tuple(range(12)), 1000, 0, 0, -1, -1, codes=codes, **stated)


def stated(task: str, one: Cached) -> set[str] | None:
    target = TASKS[task].target(one)
    return None if target is None else {TASKS[task].classes[c] for c in np.flatnonzero(target)}


@pytest.fixture(scope="session")
def twelve_lead(data_root: Path) -> list[Cached]:
    """Return the records of the twelve-lead packs, without their signals."""
    splits = read_splits(data_root)
    read = {database: READERS[database](data_root / database) for database in ("ptbxl", "ludb", "cinc2020", "chapman")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(databases, "leads_of", lambda _path: (500.0, np.zeros((12, 1), np.float32)))
        return [
            record(database, read[database](name, split).codes, name, split)
            for database in read
            for name, split in splits[database].items()
        ]


def test_the_sizes_are_those_of_the_benchmarks() -> None:
    sizes = {name: len(task.classes) for name, task in TASKS.items()}
    assert sizes == {
        "ptbxl-all": 71,
        "ptbxl-super": 5,
        "ptbxl-sub": 23,
        "ptbxl-form": 19,
        "ptbxl-rhythm": 12,
        "cpsc2018": 9,
        "chapman-rhythm": 4,
        "csn": 38,
        "cinc2017": 4,
        "hospitals-shaoxing": 4,
        "hospitals-ptbxl": 4,
    }
    assert all(len(set(task.classes)) == len(task.classes) for task in TASKS.values())
    condition_names = [code for own in CSN.values() for code in own] + list(CSN_OTHER)
    assert len(set(condition_names)) == len(condition_names) == 55


@data
def test_the_statements_are_those_of_the_table(data_root: Path) -> None:
    rows = {row[""]: row for row in rows_of(data_root / "ptbxl" / "scp_statements.csv")}
    subclass, superclass = defaultdict(set), defaultdict(set)
    for code, row in rows.items():
        if row["diagnostic"]:
            subclass[row["diagnostic_subclass"]].add(code)
            superclass[row["diagnostic_class"]].add(row["diagnostic_subclass"])
    assert {name: set(own) for name, own in SCP_DIAGNOSTIC.items()} == subclass
    assert {name: set(own) for name, own in SCP_SUPER.items()} == superclass
    assert set(SCP_FORM) == {code for code, row in rows.items() if row["form"]}
    assert set(SCP_RHYTHM) == {code for code, row in rows.items() if row["rhythm"]}
    assert set(TASKS["ptbxl-all"].classes) == set(rows)


@data
def test_targets_of_known_records(twelve_lead: list[Cached]) -> None:
    by_name = {(one.database, one.name): one for one in twelve_lead}
    first = by_name["ptbxl", "00001"]  # {'NORM': 100.0, 'LVOLT': 0.0, 'SR': 0.0}: likelihood 0 counts
    assert stated("ptbxl-all", first) == {"NORM", "LVOLT", "SR"}
    assert stated("ptbxl-super", first) == stated("ptbxl-sub", first) == {"NORM"}
    assert stated("ptbxl-form", first) == {"LVOLT"}
    assert stated("ptbxl-rhythm", first) == {"SR"}
    assert stated("hospitals-shaoxing", first) == {"SR"}
    assert stated("cpsc2018", first) is None
    assert stated("cpsc2018", by_name["cinc2020", "A0001"]) == {"CRBBB"}  # Dx: 59118001
    assert stated("csn", by_name["cinc2020", "A0001"]) is None
    sinus_tachycardia = by_name["chapman", "MUSE_20180111_155115_19000"]  # Rhythm: ST, Beat: AQW RBBB
    assert sinus_tachycardia.codes == ("ST", "AQW", "RBBB")
    assert stated("chapman-rhythm", sinus_tachycardia) == {"GSVT"}
    assert stated("hospitals-shaoxing", by_name["ludb", "1"]) == {"SB"}


@data
def test_the_packs_give_these_counts(twelve_lead: list[Cached]) -> None:
    counts = {
        name: tuple(len(TASKS[name].records(twelve_lead, part)) for part in PARTS)
        for name in ("ptbxl-super", "ptbxl-form", "cpsc2018", "hospitals-shaoxing")
    }
    assert counts == {
        "ptbxl-super": (655, 95, 135),
        "ptbxl-form": (220, 31, 46),
        "cpsc2018": (50, 0, 15),
        "hospitals-shaoxing": (717, 89, 109),
    }
    assert measurable(TASKS["ptbxl-super"], twelve_lead) == (True,) * 5
    assert measurable(TASKS["hospitals-shaoxing"], twelve_lead) == (True, True, True, False)


@data
def test_a_patient_is_in_one_part_of_a_task(twelve_lead: list[Cached], data_root: Path) -> None:
    patients = {f"{int(r['ecg_id']):05d}": r["patient_id"] for r in rows_of(data_root / "ptbxl" / "ptbxl_database.csv")}
    for task in TASKS.values():
        parts: dict[str, set[str]] = defaultdict(set)
        for part in PARTS:
            for one in twelve_lead:
                if task.target(one) is not None and task.part(one) == part:
                    person = patients[one.name] if one.database == "ptbxl" else one.name
                    parts[f"{one.database}/{person}"].add(part)
        assert all(len(found) == 1 for found in parts.values()), task.name
    places = {part: {hospital(one) for one in TASKS["hospitals-shaoxing"].records(twelve_lead, part)} for part in PARTS}
    assert places["test"] == {"shaoxing"}
    assert "shaoxing" not in places["train"] | places["val"]


def test_which_records_count() -> None:
    assert stated("ptbxl-form", record("ptbxl", ("NORM", "SR"))) is None
    assert stated("ptbxl-super", record("ptbxl", ("SR",))) is None
    assert stated("ptbxl-super", record("ptbxl", ("ASMI", "LAFB", "SR"))) == {"MI", "CD"}
    assert stated("ptbxl-all", record("ludb", ("SR",))) is None
    both = ("164909002", "164889003")
    assert stated("cpsc2018", record("cinc2020", both, "A0007")) == {"CLBBB", "AFIB"}
    assert stated("cpsc2018", record("cinc2020", both, "Q0007")) is None
    assert stated("csn", record("chapman", ("426177001", "164934002"), "JS00003")) == {"TWC"}  # sinus bradycardia is no class
    assert stated("csn", record("chapman", ("426177001",), "JS00004")) is None
    assert stated("csn", record("chapman", ("164934002", "999"), "JS00005")) is None
    assert stated("cinc2017", record("cinc2017", screen=1)) == {"A"}
    assert stated("cinc2017", record("cinc2017")) is None


@pytest.mark.parametrize(
    ("one", "group"),
    [
        (record("ptbxl", ("SR", "AFIB")), {"AFIB"}),
        (record("ptbxl", ("AFIB", "STACH")), None),
        (record("ptbxl", ("SR", "PACE")), None),
        (record("ptbxl", ("NORM",)), None),
        (record("ludb", ("Sinus arrhythmia", "Sinus bradycardia")), {"SB"}),
        (record("ludb", ("Sinus rhythm", "Pacemaker presence, undefined")), None),
        (record("cinc2020", ("427393009",), "JS00001"), {"SR"}),
        (record("chapman", ("426177001",), "JS00001"), {"SB"}),
        (record("chapman", ("AF",), "MUSE_1"), {"AFIB"}),
        (record("cinc2020", ("10370003", "426783006"), "Q0001"), None),
    ],
)
def test_rhythm_groups(one: Cached, group: set[str] | None) -> None:
    assert stated("hospitals-shaoxing", one) == group


def test_a_hospital_that_is_left_out_trains_nothing() -> None:
    place = TASKS["hospitals-ptbxl"].part
    assert [place(record("ptbxl", split=split)) for split in ("train", "val", "test")] == ["", "test", "test"]
    others = [place(record("ludb", name=str(number), split="train")) for number in range(200)]
    assert others.count("train") + others.count("val") == 200 and 20 < others.count("val") < 60
    assert place(record("ludb", split="test")) == ""
    assert hospital(record("cinc2020", name="HR00001")) == ""
    assert TASKS["ptbxl-all"].part(record("ptbxl", split="unassigned")) == ""


def test_a_fraction_holds_every_class_and_grows() -> None:
    task = TASKS["ptbxl-super"]
    records = [record("ptbxl", ("NORM",) if n % 50 else ("LVH",), str(n)) for n in range(400)]
    few, more = (fraction_of_task(task, records, fraction, seed=3) for fraction in (0.01, 0.1))
    assert len(few) == 5 and {one.name for one in few} < {one.name for one in more}
    assert task.targets(few).any(axis=0).tolist() == [True, False, False, False, True]
    assert {one.name for one in few} != {one.name for one in fraction_of_task(task, records, 0.01, seed=4)}
    with pytest.raises(AssertionError, match="1 records say nothing"):
        task.targets([record("ptbxl", ("SR",))])


def test_a_pack_without_statements_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"task csn: no record of cinc2020, chapman has statements.*python -m train.prepare"):
        TASKS["csn"].records([record("cinc2020", name="JS00001")], "train")
    assert TASKS["csn"].records([], "train") == []
    assert len(TASKS["cinc2017"].records([record("cinc2017", screen=0)], "train")) == 1


def test_statements_that_nobody_reads_are_named() -> None:
    records = [record("ptbxl", ("NORM", "XYZ")), record("ludb", ("Sinus rhythm", "Aberrant conduction")), record("mitdb")]
    assert unread(records) == {"ptbxl": {"XYZ": 1}, "ludb": {"Aberrant conduction": 1}}
    out = io.StringIO()
    print_tasks(records, Console(file=out, width=120), [TASKS["ptbxl-super"]])
    assert "XYZ (1)" in out.getvalue() and "Aberrant conduction (1)" in out.getvalue()
    assert "in no macro figure: NORM, MI, STTC, CD, HYP" in out.getvalue()


def test_words_of_groups_do_not_overlap() -> None:
    for words in GROUP_WORDS.values():
        flat = [word for own in words.values() for word in own]
        assert len(set(flat)) == len(flat)


def labelled(cache: Path, **codes: tuple[str, ...]) -> Cache:
    """Give the synthetic pack's records the database and statements of ptbxl, by number."""
    rows = msgspec.json.decode((cache / "records.json").read_bytes(), type=list[Cached])
    rows = [msgspec.structs.replace(row, database="ptbxl", codes=codes.get(f"r{row.name}", ())) for row in rows]
    (cache / "records.json").write_bytes(msgspec.json.encode(rows))
    return Cache(cache)


@pytest.mark.parametrize("name", ["ptbxl-super", "hospitals-shaoxing"])
def test_the_sampler_draws_what_states_something(cache: Path, name: str) -> None:
    found = labelled(cache, r0=("NORM", "SR"), r1=("ASMI", "SBRAD"), r2=("PVC",))
    task: Task = TASKS[name]
    batch = Sampler(found, found.records, MIXES["task"], (1000,), 64, task=task).draw()
    assert batch["window"].shape == (64, len(task.classes))
    nothing_else = (batch["sets"] == UNSTATED, batch["beat"] == BEAT_HIDDEN, batch["screen"] == -1, batch["bag"] == -1)
    assert all(stated.all() for stated in nothing_else), "networks without dense heads must learn the same"
    drawn = {tuple(row) for row in batch["window"].int().tolist()}
    assert drawn == {tuple(task.targets([found.records[n]])[0].astype(int).tolist()) for n in (0, 1)}
    any_place = Sampler(found, found.records, {"any": 1.0}, (1000,), 64, task=task).draw()["window"]
    assert any_place.isnan().all(dim=1).any() and not any_place.isnan().all()
    with pytest.raises(ValueError, match="holds any of task"):
        Sampler(found, found.records[2:], MIXES["task"], task=task)


def test_the_command_line(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    labelled(cache, r0=("NORM", "SR"), r1=("ASMI", "SBRAD"))
    monkeypatch.setattr("sys.argv", ["tasks", "--cache", str(cache), "--task", "ptbxl-super"])
    main()
    assert "records: ptbxl train 2" in capsys.readouterr().out
    steps = ["--epochs", "100", "--batch", "1", "--fraction"]
    for fraction, expected in (("1", "200"), ("0.01", "100")):
        monkeypatch.setattr("sys.argv", ["tasks", "--cache", str(cache), "--task", "ptbxl-super", *steps, fraction])
        main()
        assert capsys.readouterr().out.strip() == expected
    labelled(cache)
    monkeypatch.setattr("sys.argv", ["tasks", "--cache", str(cache)])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert "write it again" in capsys.readouterr().err


def test_statements_are_read_as_codes_not_as_parts_of_words() -> None:
    """The published tables of CSN were made by search for parts of names: AFIB set AF as well, STTC set ST."""
    assert stated("csn", record("cinc2020", ("164889003",), "JS1")) == {"AFIB"}
    assert stated("csn", record("cinc2020", ("428750005",), "JS1")) == {"STTC"}
