"""Names and places that no encoding has: one of them fails nothing, and every output can be read again."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from ecgnat_stream.cli.encoding import take_every_character

COMMAND = [sys.executable, "-m", "ecgnat_stream.cli"]
ODD = os.fsdecode(b"caf\xe9")

LOCALES = {
    "utf-8": {},
    "ascii output": {"PYTHONIOENCODING": "ascii"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with recordings of one lead, whose names are no UTF-8, are UTF-8, and are ASCII."""
    t = np.arange(20 * 250) / 250
    signal = sum(np.exp(-0.5 * ((t - k - 0.5) / 0.012) ** 2) for k in range(20))
    text = "II\n" + "".join(f"{value:.4f}\n" for value in np.asarray(signal))
    for name in (ODD, "käfer", "plain"):
        (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")
    return tmp_path


def run(folder: Path, *arguments: str, locale: str) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=folder, capture_output=True, check=False, timeout=200, env=os.environ | LOCALES[locale]
    )
    assert b"Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.timeout(300)
@pytest.mark.parametrize("locale", LOCALES)
def test_a_bed_whose_name_is_no_text_is_monitored_beside_the_others(locale: str, folder: Path, untrained: Path) -> None:
    arguments = ["replay", f"{ODD}.csv", "käfer.csv", "plain.csv", "--fs", "250", "--units", "mV", "--speed", "max", "--headless"]
    sinks = ["--record", f"{ODD}-records", "--history", f"{ODD}.db", "--log-file", f"{ODD}.log", "-v", "--model", str(untrained)]
    done = run(folder, *arguments, *sinks, locale=locale)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    devices = {event["device"] for event in events if event["type"] == "meta"}
    assert {"replay plain.csv", "replay käfer.csv", "replay caf\ufffd.csv"} == devices
    beats = [
        sum(event["type"] == "beat" and event["bed"] == bed for event in events)
        for bed in {event["bed"] for event in events if event["bed"]}
    ]
    assert len(beats) == 3 and min(beats) == max(beats) > 15
    assert len(list((folder / f"{ODD}-records").rglob("*.hea"))) == 3
    (folder / f"{ODD}.log").read_text(encoding="utf-8")
    listed = run(folder, "alarms", f"{ODD}.db", "--json", locale=locale)
    assert listed.returncode == 0
    for line in listed.stdout.splitlines():
        json.loads(line)


@pytest.mark.timeout(300)
def test_an_analysis_of_a_name_that_is_no_text_is_written_everywhere(folder: Path, untrained: Path) -> None:
    outputs = ["--csv", "t.csv", "--json", "t.json", "--html", "pages", "--annotations", "marks", "--jobs", "1"]
    done = run(folder, "analyse", ".", "--fs", "250", "--units", "mV", "--model", str(untrained), *outputs, locale="C")
    assert done.returncode == 0, done.stderr
    names = {"caf\ufffd", "käfer", "plain"}
    assert {json.loads(line)["name"] for line in (folder / "t.json").read_text(encoding="utf-8").splitlines()} == names
    with (folder / "t.csv").open(encoding="utf-8-sig", newline="") as file:
        assert {row["name"] for row in csv.DictReader(file)} == names
    assert len(list((folder / "pages" / "records").iterdir())) == 3
    assert len(list((folder / "marks").iterdir())) == 3


def test_standard_output_takes_every_character_and_json_stays_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "µ \U0001f600 \udce9 \ud800"
    with (tmp_path / "out").open("w", encoding="ascii") as out:
        monkeypatch.setattr(sys, "stdout", out)
        take_every_character()
        print(json.dumps({"a": "µ"}, ensure_ascii=False))
        print(msgspec.json.encode({"a": "\U0001f600"}).decode())
        print(text)
    first, second, third = (tmp_path / "out").read_text(encoding="ascii").splitlines()
    assert (json.loads(first), json.loads(second)) == ({"a": "µ"}, {"a": "\U0001f600"})
    assert json.loads(f'"{third}"') == text
