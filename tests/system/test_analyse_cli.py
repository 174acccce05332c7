"""`ecgnat analyse` from the command line to its files: folders, bad files among good ones, runs that are ended and go on."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyedflib
import pyedflib.highlevel
import pytest
import wfdb

from ecgnat_stream.cli import main

FS = 200
PROGRAM = (sys.executable, "-m", "ecgnat_stream.cli", "analyse")


def heart(seconds: float) -> np.ndarray[Any, Any]:
    """Return ``(2, T)`` mV with a QRS complex every 0.8 s."""
    at_s = np.arange(round(seconds * FS)) / FS
    apart = at_s[:, None] - np.arange(0.6, seconds - 0.4, 0.8)
    lead = (1.2 * np.exp(-((apart / 0.014) ** 2)) + 0.3 * np.exp(-(((apart - 0.25) / 0.05) ** 2))).sum(axis=1)
    return lead * np.array([[1.0], [0.6]]) + np.random.default_rng(0).normal(0, 0.008, (2, len(at_s)))


def write(path: Path, samples: np.ndarray[Any, Any], names: tuple[str, ...] = ("II", "V1"), gain: float = 500.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count = len(samples)
    wfdb.wrsamp(path.name, FS, ["mV"] * count, list(names), p_signal=samples.T, fmt=["16"] * count, adc_gain=[gain] * count,
                baseline=[0] * count, write_dir=str(path.parent))  # fmt: skip


def write_edf(path: Path, samples: np.ndarray[Any, Any]) -> None:
    with pyedflib.EdfWriter(str(path), len(samples), pyedflib.FILETYPE_EDFPLUS) as edf:
        for i, name in enumerate(("II", "V1")[: len(samples)]):
            edf.setSignalHeader(i, pyedflib.highlevel.make_signal_header(name, "mV", FS, -5, 5))
        edf.writeSamples(list(samples))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def analyse(*arguments: str | Path | int) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["analyse", *map(str, arguments)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_good_and_bad_files_of_every_kind(tmp_path: Path, untrained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    write(folder / "one" / "a", heart(12))
    write(folder / "two" / "a", heart(12))
    write_edf(folder / "two" / "ä &<i>#'.edf", heart(12)[:1])
    write(folder / "nothing", np.full((2, 12 * FS), np.nan))
    write(folder / "single", heart(12)[:, :1])
    write(folder / "foreign", heart(12), ("II", "liver"))
    write(folder / "volts", heart(12) * 1000, gain=5.0)
    np.savetxt(folder / "norate.csv", heart(12).T, delimiter=",", header="II,V1", comments="")
    (folder / "torn.edf").write_bytes(b"0       torn")
    (folder / "splits.csv").write_text("database,record,split\nx,a,train\n")
    files = {"--csv": "f.csv", "--json": "all.jsonl", "--html": "pages", "--annotations": "marks", "--plot": "pictures"}
    options = [part for name, file in files.items() for part in (name, out / file)]
    assert analyse(folder, *options, "--model", untrained, "--no-diagnose", "--jobs", 2) == 1

    shown = capsys.readouterr()
    rows = {row["name"]: row for row in table(out / "f.csv")}
    good = {"one/a", "two/a", "two/ä &<i>#'", "nothing", "foreign"}
    wrong = {
        "single": "1 sample",
        "volts": "no heart",
        "norate": "does not say its fs",
        "torn": "no readable EDF",
    }
    assert set(rows) == good | set(wrong)
    assert {name for name, row in rows.items() if not row["error"]} == good
    for name, why in wrong.items():
        assert why in rows[name]["error"]
        assert why in shown.err
    told = "its signal liver has a name that is no lead: it is left out"
    assert told in rows["foreign"]["notes"]
    assert told in shown.err
    assert told in (out / "pages" / "records" / "foreign.html").read_text(encoding="utf-8")
    assert "splits.csv is no table of numbers" in shown.err
    assert "splits.csv</b> is no table of numbers" in (out / "pages" / "index.html").read_text(encoding="utf-8")
    assert "5 of 9 recordings analysed" in shown.err
    assert int(rows["one/a"]["beats"]) == pytest.approx(15, abs=2)
    assert float(rows["one/a"]["heart_rate_mean_bpm"]) == pytest.approx(75, abs=2)
    assert rows["nothing"]["unusable_share"] == "1.0"
    assert "one/a" in shown.out

    lines = [json.loads(line) for line in (out / "all.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {line["name"] for line in lines if line["type"] == "analysis"} == good
    assert {line["name"] for line in lines if line["type"] == "failure"} == set(wrong)
    (one,) = [line for line in lines if line["name"] == "one/a"]
    assert one["analysis"]["summary"]["beats"] == len(one["analysis"]["beats"]) == int(rows["one/a"]["beats"])

    index = (out / "pages" / "index.html").read_text(encoding="utf-8")
    links = re.findall(r'<td class="name"[^>]*><a href="([^"]*)"', index)
    assert len(links) == len(good)
    for link in links:
        page = (out / "pages" / unquote(link)).read_text(encoding="utf-8")
        assert 'class="strip"' in page
        assert "<i>" not in page.replace("<i></i>", "")
    marks = wfdb.rdann(str(out / "marks" / "one" / "a"), "ecg")
    assert sum(symbol in "NSVFQ" for symbol in marks.symbol) == int(rows["one/a"]["beats"])
    assert "+" in marks.symbol
    assert {str(path.relative_to(out / "pictures")) for path in (out / "pictures").rglob("*.png")} == {f"{n}.png" for n in good}
    assert not list(out.rglob("*.part"))


def test_a_result_that_cannot_be_written_leaves_the_others(
    tmp_path: Path, untrained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder of marks is taken away between the trial and the analysis, as by somebody else."""
    write(tmp_path / "a", heart(12))
    (tmp_path / "marks").write_text("taken")
    monkeypatch.setattr("ecgnat_stream.batch.targets.check_targets", lambda *_: None)
    options = ("--csv", tmp_path / "f.csv", "--json", tmp_path / "all.jsonl", "--html", tmp_path / "pages")
    assert analyse(tmp_path / "a", *options, "--annotations", tmp_path / "marks", "--model", untrained, "--no-diagnose") == 1
    shown = capsys.readouterr()
    assert "marks/a.ecg: cannot be written" in shown.err
    assert "1 of 1 recordings analysed" in shown.err
    assert "1 result could not be written" in shown.err
    assert "could not be analysed" not in shown.err + shown.out
    (row,) = table(tmp_path / "f.csv")
    assert (row["error"], int(row["beats"]) > 10) == ("", True)
    (line,) = [json.loads(text) for text in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert (line["type"], "marks" in line["notes"][0]) == ("analysis", True)


def test_options_say_what_files_do_not_and_a_record_keeps_what_it_states(tmp_path: Path, untrained: Path) -> None:
    folder = tmp_path / "in"
    write(folder / "record", heart(12))
    np.save(folder / "array.npy", heart(12) * 1000)
    np.savetxt(folder / "table.csv", heart(12).T * 1000, delimiter=",")
    for fs in (FS, FS * 2):
        said = ("--fs", str(fs), "--units", "uV", "--leads", "II,V1")
        assert analyse(folder, *said, "--csv", tmp_path / "f.csv", "--model", untrained, "--no-diagnose", "--jobs", 1) == 0
        rows = {row["name"]: row for row in table(tmp_path / "f.csv")}
        assert {name: float(row["length_s"]) for name, row in rows.items()} == {
            "record": 12, "array": 12 * FS / fs, "table": 12 * FS / fs,
        }  # fmt: skip
        assert {row["leads"] for row in rows.values()} == {"II V1"}


def test_one_recording_needs_no_other_process_and_an_unknown_signal_is_told(
    tmp_path: Path, untrained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def started(*_: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("ecgnat_stream.batch.pool.Pool._start", started)
    write(tmp_path / "a", heart(12), ("ECG1", "V1"))
    named = ("--lead", "ECG1=II", "--lead", "EGC1=V5", "--lead", "FOO=V6")
    assert analyse(tmp_path / "a", "--model", untrained, "--no-diagnose", *named) == 1
    assert "a: EGC1=V5: unknown signal 'EGC1': did you mean ECG1? There are ECG1, V1" in capsys.readouterr().err
    assert analyse(tmp_path / "a", "--model", untrained, "--no-diagnose", *named[:2]) == 0
    monkeypatch.undo()
    write(tmp_path / "b", heart(12), ("ECG1", "V1"))
    both = (tmp_path / "a", tmp_path / "b")
    assert analyse(*both, "--model", untrained, "--no-diagnose", "--jobs", "1", *named) == 1
    said = capsys.readouterr().err
    assert "--lead EGC1=...: no recording has an ECG signal 'EGC1'; did you mean ECG1?" in said
    assert "--lead FOO=...: no recording has an ECG signal 'FOO': there are ECG1, V1" in said
    assert "--lead ECG1" not in said
    write(tmp_path / "foreign", heart(12), ("spleen", "liver"))
    assert analyse(tmp_path / "foreign", "--model", untrained, "--no-diagnose", "--lead", "spleen=") == 1
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count("unknown lead name 'liver'") == 1
    assert str(tmp_path) not in shown.err


def test_pictures_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("ecgnat_stream.cli.analyse.find_spec", lambda name: None)
    assert analyse(tmp_path, "--plot", tmp_path) == 2
    assert "--plot needs matplotlib" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["empty"], "nothing to analyse: no recording (.hea, "),
        (["gone"], "gone: there is no such file, folder or record"),
        (["empty/*.edf"], "matches nothing"),
        (["a.csv", "--csv", "a.csv"], "a.csv: will not be written over"),
        (["a.csv", "--html", "a.csv"], "a.csv: is a file, but a folder is wanted"),
        (["a.csv", "--plot", "/dev/null"], "/dev/null: is a file, but a folder is wanted"),
        (["a.csv", "--json", "empty"], "empty: is a folder, but a file is wanted"),
        ([""], "'': names nothing"),
        (["a.csv", "--resume"], "--resume needs --json FILE"),
        (["a.csv", "--start", "9", "--stop", "3"], "--stop 3 is not after --start 9"),
        (["a.csv", "--lead", "x=II2"], "unknown lead 'II2'"),
        (["a.csv", "--leads", "II,II"], "names II more than once"),
        (["a.csv", "--leads", "II,,V1"], "has an empty name"),
        (["a.csv", "--model", "ecgnat-nanno"], "did you mean ecgnat-nano"),
    ],
)
def test_wrong_usage_ends_with_2(
    arguments: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").write_text("II\n0.1\n")
    assert analyse(*arguments) == 2
    assert why in capsys.readouterr().err


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A folder of records, enough for several batches."""
    for i in range(12):
        write(tmp_path / "in" / f"r{i}", heart(20 + i / 10))
    return tmp_path / "in"


def _started(many: Path, untrained: Path, out: Path) -> subprocess.Popen[str]:
    """Start an analysis and wait until its first results are on disk."""
    options = ("--json", out / "all.jsonl", "--csv", out / "f.csv", "--html", out / "pages", "--jobs", "1", "--no-diagnose")
    command = (*PROGRAM, many, *options, "--model", untrained)
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = out / "all.jsonl"
    while not lines.is_file() or not lines.read_bytes().count(b"\n"):
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
        pytest.fail(f"it ended before it could be ended: {process.communicate()[1]}")
    return process


def test_a_killed_run_goes_on(many: Path, untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    process = _started(many, untrained, out)
    process.kill()
    process.communicate()
    before = [line for line in (out / "all.jsonl").read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    assert 1 <= len(before) < 12
    again = ("--json", out / "all.jsonl", "--csv", out / "f.csv", "--html", out / "pages", "--no-diagnose", "--model", untrained)
    assert analyse(many, *again, "--resume") == 0
    assert f"{len(before)} of 12 are finished already" in capsys.readouterr().err
    after = (out / "all.jsonl").read_bytes().splitlines(keepends=True)
    assert after[: len(before)] == before
    assert sorted(json.loads(line)["name"] for line in after) == sorted(f"r{i}" for i in range(12))
    assert len(table(out / "f.csv")) == 12
    assert (out / "pages" / "index.html").read_text(encoding="utf-8").count('<td class="name"') == 12
    assert analyse(many, *again, "--resume") == 0
    assert (out / "all.jsonl").read_bytes().splitlines(keepends=True) == after


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_writes_what_is_finished(many: Path, untrained: Path, tmp_path: Path, number: int) -> None:
    out = tmp_path / "out"
    process = _started(many, untrained, out)
    process.send_signal(number)
    shown, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "what was finished is written" in said
    assert "Traceback" not in said
    finished = [json.loads(line)["name"] for line in (out / "all.jsonl").read_text().splitlines()]
    rows = table(out / "f.csv")
    assert sorted(row["name"] for row in rows) == sorted(finished)
    assert 1 <= len(rows) < 12
    assert all(name in shown for name in finished)
    assert (out / "pages" / "index.html").is_file()


@pytest.mark.data
def test_a_record_of_the_arrhythmia_database(data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--stop", "120", "--csv", tmp_path / "f.csv", "--html", tmp_path / "pages")
    assert analyse(data_root / "mitdb" / "203.dat", *options) == 0
    (row,) = table(tmp_path / "f.csv")
    assert (row["name"], row["leading_rhythm"]) == ("203", "AF")
    assert int(row["ventricular"]) > 10
    assert "203" in capsys.readouterr().out
    assert os.path.getsize(tmp_path / "pages" / "records" / "203.html") > 50_000
