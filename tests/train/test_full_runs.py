"""The scripts from the full public databases to the papers' tables, dry, on a root of a few records."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecgnat_stream.signal import LEADS
from train.databases import rows_of
from train.statements import SCP_DIAGNOSTIC, SCP_FORM, SCP_RHYTHM, SCP_SUPER

RUNS = Path(__file__).parents[2] / "train" / "runs"
RECORDS = 40
COLUMNS = ("ecg_id", "patient_id", "scp_codes", "strat_fold", "filename_lr", "filename_hr")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data root of ptbxl with folds 1 to 10, in the download's layout: recorded signals where there are some."""
    folder = tmp_path_factory.mktemp("data") / "ptbxl"
    records = folder / "records100" / "00000"
    records.mkdir(parents=True)
    given = os.environ.get("ECGNAT_DATA")
    rows = _recorded(Path(given) / "ptbxl", records) if given else _simulated(records)
    with (folder / "ptbxl_database.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for number, (ecg_id, codes) in enumerate(rows):
            name = f"{ecg_id:05d}"
            low, high = f"records100/00000/{name}_lr", f"records500/00000/{name}_hr"
            table.writerow(dict(zip(COLUMNS, (ecg_id, ecg_id, codes, number % 10 + 1, low, high), strict=True)))
    with (folder / "scp_statements.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("", "diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass"))
        above = {sub: name for name, own in SCP_SUPER.items() for sub in own}
        for sub, own in SCP_DIAGNOSTIC.items():
            lines.writerows((code, "1.0", "", "", above[sub], sub) for code in own)
        lines.writerows((code, "", "1.0", "", "", "") for code in SCP_FORM[:-4])
        lines.writerows((code, "", "", "1.0", "", "") for code in SCP_RHYTHM)
    return folder.parent


def _recorded(pack: Path, into: Path) -> list[tuple[int, str]]:
    rows: list[tuple[int, str]] = []
    for row in rows_of(pack / "ptbxl_database.csv"):
        here = next(pack.rglob(f"{int(row['ecg_id']):05d}_lr.hea"), None)
        if here and len(rows) < RECORDS:
            for path in (here, here.with_suffix(".dat")):
                shutil.copy(path, into)
            rows.append((int(row["ecg_id"]), row["scp_codes"]))
    return rows


def _simulated(into: Path) -> list[tuple[int, str]]:
    rng = np.random.default_rng(0)
    rows: list[tuple[int, str]] = []
    for number in range(1, RECORDS + 1):
        beat = np.exp(-(((np.arange(1000) % (70 + number % 5 * 10) - 30) / 2.0) ** 2))
        signal = beat[:, None] * rng.uniform(-1, 1, len(LEADS)) + 0.02 * rng.standard_normal((1000, len(LEADS)))
        wfdb.wrsamp(
            f"{number:05d}_lr", 100, ["mV"] * 12, list(LEADS), signal, fmt=["16"] * 12, adc_gain=[1000.0] * 12,
            baseline=[0] * 12, write_dir=str(into),
        )  # fmt: skip
        rows.append((number, "{'NORM': 100.0, 'SR': 0.0}" if number // 2 % 2 else "{'IMI': 35.0, 'SBRAD': 0.0}"))
    return rows


@pytest.mark.parametrize(
    ("script", "folder", "arms"),
    [
        ("beatnet.sh", "beatnet", {"beatnet"}),
        ("clear_hug.sh", "clear-hug", {"clear probe", "clear-hug probe", "random-init probe"}),
        ("ecgnat_tables.sh", "ecgnat", {"ecgnat", "ecgnat probe"}),
    ],
)
def test_a_script_ends_with_a_table(root: Path, script: str, folder: str, arms: set[str]) -> None:
    out = root.parent / f"out-{root.name}"  # one cache for the three, as in earnest
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": paths, "DRY": "1", "OUT": str(out), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        ["bash", str(RUNS / script), str(root)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "published splits" in (out / "cache" / "manifest.json").read_text()
    runs = [json.loads(line) for line in (out / folder / "study.jsonl").read_text().splitlines()]
    assert {run["arm"] for run in runs} == arms
    assert {run["task"] for run in runs} == {"ptbxl-super"}
    assert all(run["steps"] == 2 for run in runs)
    page = (out / folder / "study.md").read_text()
    assert page.count("|---|") >= 1 and done.stdout.rstrip().endswith(page.rstrip())


@pytest.mark.parametrize("script", ["beatnet.sh", "clear_hug.sh", "ecgnat_tables.sh"])
def test_a_script_without_a_folder_says_what_it_needs(script: str) -> None:
    done = subprocess.run(["bash", str(RUNS / script)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "folder of the databases" in done.stderr
