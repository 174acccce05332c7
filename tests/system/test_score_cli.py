"""`ecgnat score` from the command line to its files: the real monitor over annotated records."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb
from wfdb.processing import compare_annotations

from ecgnat_stream.cli import main
from ecgnat_stream.cli.score import _Work, add
from ecgnat_stream.errors import ConfigError, EcgnatError

FS = 200
DATA = os.environ.get("ECGNAT_DATA")


def score(*options: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add(parser.add_subparsers())
    arguments = parser.parse_args(["score", *map(str, options)])
    return int(arguments.command(arguments))


def heart(seconds: float, pause: tuple[float, float]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return a lead with a QRS complex every 0.8 s but in a pause, and their places in s."""
    beats = np.arange(0.6, seconds - 0.5, 0.8)
    beats = beats[(beats <= pause[0]) | (beats >= pause[1])]
    at_s = np.arange(round(seconds * FS)) / FS
    apart = at_s[:, None] - beats
    lead = (1.2 * np.exp(-((apart / 0.014) ** 2)) + 0.3 * np.exp(-(((apart - 0.25) / 0.05) ** 2))).sum(axis=1)
    return lead + np.random.default_rng(0).normal(0, 0.008, len(at_s)), beats


def write(folder: Path, name: str, lead: np.ndarray[Any, Any], beats: np.ndarray[Any, Any], comments: Sequence[str] = ()) -> None:
    folder.mkdir(exist_ok=True)
    wfdb.wrsamp(name, FS, ["mV"], ["II"], p_signal=lead[:, None], fmt=["16"], adc_gain=[200], baseline=[0], write_dir=str(folder),
                comments=list(comments))  # fmt: skip
    if len(beats):
        places = np.round(np.append(0.1, beats) * FS).astype(int)
        notes = ["(N", *[""] * len(beats)]
        wfdb.wrann(name, "atr", places, ["+", *["N"] * (len(beats) - 1), "V"], aux_note=notes, write_dir=str(folder))


@pytest.mark.timeout(180)
def test_records_are_scored_and_a_broken_one_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "little"
    lead, beats = heart(60, (30.0, 40.0))
    write(folder, "pause", lead, beats)
    write(folder, "true", heart(50, (42.0, 60.0))[0], np.empty(0), ["Asystole", "True alarm"])
    write(folder, "false", heart(50, (60.0, 60.0))[0], np.empty(0), ["Asystole", "False alarm"])
    write(folder, "torn", lead, beats)
    (folder / "torn.dat").write_bytes(b"12")
    found, page, marks = tmp_path / "score.json", tmp_path / "score.html", tmp_path / "marks"
    assert score(folder, "--json", found, "--html", page, "--annotations", marks) == 1
    printed = capsys.readouterr()
    assert "torn" in printed.err
    assert "little: Challenge 2015" in printed.out
    report = json.loads(found.read_text())
    assert list(report["failed"]) == ["little/torn"]
    assert {row["record"] for row in report["records"]} == {"pause", "true", "false"}
    (asystole,) = [one for row in report["records"] for one in row["found"] if one["condition"] == "asystole"]
    assert asystole["required"]
    assert 4 <= asystole["alarm_after_s"] <= 10
    summary = report["databases"]["little"]
    assert summary["beats"]["QRS"]["sensitivity"]["value"] > 0.97
    assert summary["alarms"]["priorities"]["high"]["false"] == 0
    assert summary["challenge"]["all"] | {"records": 2, "tp": 1, "tn": 1, "score": 1.0} == summary["challenge"]["all"]
    assert "How good the monitor is" in page.read_text()
    said = wfdb.rdann(str(marks / "little" / "pause"), "ecg")
    assert (np.diff(said.sample) > 0).all()
    at = said.sample[np.isin(said.symbol, list("NSVFQ"))]
    matched = compare_annotations(np.round(beats * FS).astype(int), at, 30)
    assert [matched.tp, matched.fn, matched.fp] == [report["records"][1]["beats"]["QRS"][key] for key in ("tp", "fn", "fp")]


def test_a_result_that_cannot_be_written_is_told_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    work = _Work()
    work.write(Path("/dev/full"), "a page")
    work.write(Path("/dev/null/folder/score.json"), b"{}")
    said = ["/dev/full: cannot be written (No space left on device)"]
    said += ["/dev/null/folder/score.json: cannot be written (Not a directory)"]
    assert work.unwritten == said
    assert capsys.readouterr().err.splitlines() == [f"ecgnat: {line}" for line in said]


def test_wrong_usage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EcgnatError, match="is no folder of records"):
        score(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="--snr needs --noise"):
        score(tmp_path, "--snr", "6")
    with pytest.raises(ConfigError, match="--at-once 0"):
        score(tmp_path, "--at-once", "0")


@pytest.mark.data
@pytest.mark.skipif(not DATA, reason="ECGNAT_DATA is not set: it needs the recorded databases")
@pytest.mark.timeout(280)
def test_real_databases_are_known_by_their_files(tmp_path: Path) -> None:
    assert DATA is not None
    found = tmp_path / "score.json"
    names = ("cu17", "a103l", "a109l")
    assert score(Path(DATA) / "cudb", Path(DATA) / "cinc2015", "--records", *names, "--json", found) == 0
    report = json.loads(found.read_text())
    by_name = {row["record"]: row for row in report["records"]}
    assert by_name["cu17"]["truth"]["ventricular-fibrillation"]
    assert by_name["cu17"]["beats"]["QRS"]["tp"] > 100
    assert by_name["a103l"]["challenge"]["alarm"] == "Asystole"
    assert report["databases"]["cinc2015"]["challenge"]["all"]["records"] == 2


def command(*arguments: str) -> int:
    """Run a whole command and return its exit code."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert isinstance(end.value.code, int)
    return end.value.code


def test_a_folder_of_annotations_without_signals_is_left_out_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.hea").write_text(f"{name} 1 128 1280\n{name}.dat 16 200 12 0 0 0 0 ECG\n", encoding="utf-8")
        wfdb.wrann(name, "atr", np.array([100, 228]), ["N", "N"], write_dir=str(tmp_path))
    assert command("score", str(tmp_path), "--split", "all") == 1
    captured = capsys.readouterr()
    said = [line for line in captured.err.splitlines() if line.startswith("ecgnat: ")]
    assert said == [f"ecgnat: {tmp_path.name}/a and 2 more: its signals are not there, annotations alone cannot be scored"]
    assert captured.out == ""
    assert "0 records scored" in captured.err


@pytest.mark.data
@pytest.mark.parametrize(
    ("database", "why"),
    [
        ("afpdb", "nothing to compare with"),
        ("aftdb", "nothing to compare with"),
        ("cinc2011", "holds no WFDB records"),
        ("cinc2021", "nothing to compare with"),
        ("ltafdb_rr", "its signals are not there"),
        ("mimic_perform_af", "nothing to compare with"),
    ],
)
def test_a_database_that_cannot_be_scored_says_why(
    database: str, why: str, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (data_root / database).is_dir():
        pytest.skip(f"{database} is not there")
    assert command("score", str(data_root / database), "--split", "all") == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ecgnat: ")]
    assert len(said) == 1
    assert why in said[0]
