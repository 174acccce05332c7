"""What a person should know of a recording reaches every place where results are: the analysis, CSV, JSON and pages."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from ecgnat_stream.analysis import analyse
from ecgnat_stream.batch.choose import RecordingFile
from ecgnat_stream.batch.lines import Lines
from ecgnat_stream.batch.table import as_csv
from ecgnat_stream.batch.work import Order, Worker
from ecgnat_stream.config import Config
from ecgnat_stream.events import Meta
from ecgnat_stream.model import ModelConfig
from ecgnat_stream.report.index import Entry, index_page
from ecgnat_stream.signal import LEADS, lead_notes

FS = 200
GUESSED = "its signals ch1, ch2 do not say which leads they are: taken for II, V1; "
LEFT_OUT = "left out: ABP (no ECG, or another rate than the ECG)"


def write(path: Path, names: tuple[str, ...]) -> Path:
    """Write 8 s with a QRS complex every 0.8 s."""
    path.parent.mkdir(parents=True, exist_ok=True)
    at_s = np.arange(8 * FS) / FS
    beats = np.exp(-(((at_s % 0.8 - 0.4) / 0.02) ** 2))
    np.savetxt(path, np.tile(beats, (len(names), 1)).T, "%.5f", delimiter=",", header=",".join(names), comments="")
    return path


def test_signals_whose_names_say_no_lead_are_named_with_what_they_are_taken_for() -> None:
    (note,) = lead_notes(["EXG Channel 0", "II", "EXG Channel 1", "ABP"])
    assert note.startswith("its signals EXG Channel 0, EXG Channel 1 do not say which leads they are: taken for V1, V5; ")
    assert "--lead NAME=LEAD" in note
    assert "--leads" in note
    (note,) = lead_notes([f"ECG{at}" for at in range(1, 15)])
    assert "; 2 signals more left out; " in note


@pytest.mark.parametrize("names", [["ECG"], ["II", "ECG"], ["MLII", "V5"], list(LEADS), ["Resp"], ["foo", "bar"]])
def test_of_one_such_signal_and_of_leads_nothing_is_said(names: list[str]) -> None:
    assert lead_notes(names) == []


def test_of_what_a_person_has_named_nothing_is_said() -> None:
    names = ["ch1", "ch2", "ch3", "B1"]
    assert lead_notes(names, {"ch1": "V1", "ch2": "", "B1": "aVF"}) == []
    (note,) = lead_notes(names, {"ch1": "II", "B1": "aVF"})
    assert "its signals ch2, ch3 do not say which leads they are: taken for V1, V5; " in note


def test_a_bed_says_in_its_meta_what_a_recording_is_taken_for(tmp_path: Path, untrained: Path) -> None:
    path = write(tmp_path / "a.csv", ("ch1", "ch2"))
    with pytest.warns(UserWarning, match="its signals ch1, ch2"):
        analysis = analyse(path, fs=FS, units="mV", model=untrained, diagnose=False)
    (meta,) = [event for event in analysis.events if isinstance(event, Meta)]
    assert GUESSED.strip() in meta.device
    named = analyse(path, fs=FS, units="mV", lead_map={"ch1": "II", "ch2": "V1"}, model=untrained, diagnose=False)
    (meta,) = [event for event in named.events if isinstance(event, Meta)]
    assert (named.notes, meta.device) == ((), "replay a.csv")


def test_a_signal_whose_name_is_no_lead_is_said_to_be_left_out() -> None:
    assert lead_notes(["II", "my B"]) == [
        "its signal my B has a name that is no lead: it is left out, unless you say which lead it is, for example with --lead "
        "'my B=II'"
    ]


def test_notes_are_in_the_analysis_the_csv_the_json_and_the_pages(tmp_path: Path, untrained: Path) -> None:
    path = write(tmp_path / "in" / "a.csv", ("ch1", "ch2", "ABP"))
    plain = write(tmp_path / "other" / "a.csv", ("II", "V1"))  # of the same name: it has none of the other's notes
    order = Order(fs=FS, units="mV", json=True, html=tmp_path / "pages", diagnose=False,
                  config=Config(model=ModelConfig(name=str(untrained))))  # fmt: skip
    asked = [RecordingFile(path=str(one), name=f"{one.parent.name}/a", size=1, modified_ns=1) for one in (path, plain)]
    results = list(Worker(order).work(asked, lambda share: None))
    assert [len(result.notes) for result in results] == [2, 0]
    assert results[0].notes[0].startswith(GUESSED)
    assert results[0].notes[1] == LEFT_OUT
    row, other = csv.DictReader(io.StringIO(as_csv(results).decode()))
    assert row["notes"] == " | ".join(results[0].notes)
    assert other["notes"] == ""
    page = (tmp_path / "pages" / "records" / "in" / "a.html").read_text()
    top = page[: page.index('<dl class="figures">')]
    assert GUESSED in top
    assert LEFT_OUT in top
    assert 'class="notice notes"' not in (tmp_path / "pages" / "records" / "other" / "a.html").read_text()
    index = index_page([Entry("a", "", results[0].summary, "", results[0].notes)])
    assert "2 notes" in index
    assert LEFT_OUT in index

    lines = tmp_path / "all.jsonl"
    with Lines(lines, order, asked) as file:
        file.write(results[0])
    assert json.loads(lines.read_text())["notes"] == list(results[0].notes)
    with Lines(lines, order, asked, resume=True) as file:
        assert file.finished[0].notes == results[0].notes


def test_python_warns_of_what_is_taken_for_what_and_not_of_what_is_no_ecg(tmp_path: Path, untrained: Path) -> None:
    path = write(tmp_path / "a.csv", ("ch1", "ch2", "ABP"))
    with pytest.warns(UserWarning, match="a: its signals ch1, ch2 do not say") as warned:
        analysis = analyse(path, fs=FS, units="mV", model=untrained, diagnose=False)
    assert len(warned) == 1
    assert analysis.notes[1] == LEFT_OUT


@pytest.mark.parametrize(
    ("names", "lead_map", "said"),
    [
        (("MLII", "V5"), {"V5": "II"}, ["its signal MLII is left out: lead II is V5, as --lead or lead_map says"]),
        (("II", "MLII"), {}, ["its signal MLII is left out: lead II is II"]),
        (("MLII", "V5"), {"V5": "II", "MLII": ""}, []),
        (("MLII", "V5"), {"V5": "II", "MLII": "V5"}, []),
        (("ECG", "RESP", "MLII"), {}, []),
        (("II", "V1"), None, []),
    ],
)
def test_a_lead_that_another_signal_takes_is_said_to_be_left_out(
    names: tuple[str, ...], lead_map: dict[str, str] | None, said: list[str]
) -> None:
    assert lead_notes(names, lead_map) == said
