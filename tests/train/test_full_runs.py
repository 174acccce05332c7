"""The scripts from the full public databases to the papers' tables, dry, on a root of a few records."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import wfdb
from numpy.typing import NDArray

from ecgnat_stream.signal import LEADS
from train.data.record import rows_of
from train.data.statements import SCP_DIAGNOSTIC, SCP_FORM, SCP_RHYTHM, SCP_SUPER

RUNS = Path(__file__).parents[2] / "train" / "runs"
SCRIPTS = ("beatnet.sh", "clear_hug.sh", "ecgnat_tables.sh")
RECORDS = 40
COLUMNS = ("ecg_id", "patient_id", "scp_codes", "strat_fold", "filename_lr", "filename_hr")
BLOCK = ("59118001", "RBBB")
"""Right bundle branch block: ten test records of cpsc2018 state it, so that it can be measured. No other task has so many."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data root in the downloads' layouts, with folds and published lists: recorded signals where there are some."""
    root = tmp_path_factory.mktemp("data")
    given = os.environ.get("ECGNAT_DATA")
    ptbxl = root / "ptbxl" / "records100" / "00000"
    a, js = root / "cinc2020" / "training" / "cpsc_2018" / "g1", root / "chapman" / "WFDBRecords" / "01" / "010"
    for folder in (ptbxl, a, js, root / "nstdb"):
        folder.mkdir(parents=True)
    _write_tables(root / "ptbxl", _recorded(Path(given) / "ptbxl", ptbxl) if given else _simulated(ptbxl))
    if given:
        blocked, others = _cpsc2018(Path(given) / "cinc2020", a)
        _copy(sorted((Path(given) / "cinc2020").rglob("JS*.hea"))[:16], js)
    else:
        blocked, others = ([f"A{number:04d}" for number in numbers] for numbers in (range(1, 15), range(15, 23)))
        for number, name in enumerate([*blocked, *others]):
            _write(a / name, 500, 10, number, (BLOCK[0] if name in blocked else "164889003",))
        for number in range(1, 17):
            _write(js / f"JS{number:05d}", 500, 10, number, ("426783006",) if number // 4 % 2 else ("427084000", "284470004"))
    for number, name in enumerate(("bw", "em", "ma")):
        _write(root / "nstdb" / name, 360, 60, number, leads=("noise1", "noise2"))
    _write_lists(root / "cinc2020", "icbeb", "filename", blocked[:10] + others[:2], others[2:4], blocked[10:] + others[4:])
    names = sorted(path.stem for path in js.glob("*.hea"))
    _write_lists(root / "chapman", "chapman", "ecg_path", names[::4], names[1::4], names[2::4] + names[3::4])
    return root


def _write_tables(folder: Path, stated: Sequence[tuple[int, str]]) -> None:
    with (folder / "ptbxl_database.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for number, (ecg_id, codes) in enumerate(stated):
            name, fold = f"{ecg_id:05d}", {0: 10, 2: 9}.get(number % 8, number % 8)
            low, high = f"records100/00000/{name}_lr", f"records500/00000/{name}_hr"
            table.writerow(dict(zip(COLUMNS, (ecg_id, ecg_id, codes, fold, low, high), strict=True)))
    with (folder / "scp_statements.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("", "diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass"))
        above = {sub: name for name, own in SCP_SUPER.items() for sub in own}
        for sub, own in SCP_DIAGNOSTIC.items():
            lines.writerows((code, "1.0", "", "", above[sub], sub) for code in own)
        lines.writerows((code, "", "1.0", "", "", "") for code in SCP_FORM[:-4])
        lines.writerows((code, "", "", "1.0", "", "") for code in SCP_RHYTHM)


def _write_lists(folder: Path, name: str, column: str, test: list[str], val: list[str], train: list[str]) -> None:
    for part, names in (("test", test), ("val", val), ("train", train)):
        lines = [f"age,{column}", *(f"50,/somewhere/{name}.mat" for name in names)]
        (folder / f"{name}_{part}.csv").write_text("\n".join(lines) + "\n")


def _copy(headers: Sequence[Path], into: Path) -> None:
    for path in headers:
        for one in path.parent.glob(f"{path.stem}.*"):
            shutil.copy(one, into)


def _recorded(pack: Path, into: Path) -> list[tuple[int, str]]:
    stated: list[tuple[int, str]] = []
    for row in rows_of(pack / "ptbxl_database.csv"):
        here = next(pack.rglob(f"{int(row['ecg_id']):05d}_lr.hea"), None)
        if here and len(stated) < RECORDS:
            _copy([here], into)
            stated.append((int(row["ecg_id"]), row["scp_codes"]))
    return stated


def _cpsc2018(pack: Path, into: Path) -> tuple[list[str], list[str]]:
    """Copy the shortest records; return 14 with the block and 8 without."""
    headers = sorted(pack.rglob("A*.hea"), key=lambda path: (path.with_suffix(".mat").stat().st_size, path.name))
    with_block = [path for path in headers if not set(BLOCK).isdisjoint(re.split(r"[\s,]", path.read_text()))][:14]
    without = [path for path in headers if path not in with_block][:8]
    _copy([*with_block, *without], into)
    return [path.stem for path in with_block], [path.stem for path in without]


def _simulated(into: Path) -> list[tuple[int, str]]:
    stated: list[tuple[int, str]] = []
    for number in range(1, RECORDS + 1):
        _write(into / f"{number:05d}_lr", 100, 10, number)
        kind = number // 8 % 2
        stated.append((number, "{'NORM': 100.0, 'SR': 0.0}" if kind else "{'IMI': 35.0, 'PVC': 100.0, 'SBRAD': 0.0}"))
    return stated


def _write(path: Path, fs: int, seconds: int, number: int, codes: Sequence[str] = (), leads: Sequence[str] = LEADS) -> None:
    rng = np.random.default_rng(number)
    at = np.arange(seconds * fs) * 100 // fs
    beat = np.exp(-(((at % (70 + number % 5 * 10) - 30) / 2.0) ** 2))
    signal: NDArray[np.float64] = beat[:, None] * rng.uniform(-1, 1, len(leads))
    signal += 0.02 * rng.standard_normal(signal.shape)
    wfdb.wrsamp(
        path.name, fs, ["mV"] * len(leads), list(leads), signal, fmt=["16"] * len(leads), adc_gain=[1000.0] * len(leads),
        baseline=[0] * len(leads), comments=[f"Dx: {','.join(codes)}"], write_dir=str(path.parent),
    )  # fmt: skip


def bash(*command: str, out: Path) -> subprocess.CompletedProcess[str]:
    """Run dry, in the environment of these tests."""
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": paths, "DRY": "1", "OUT": str(out), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(["bash", *command], env=environment, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.parametrize(
    ("script", "folder", "arms"),
    [
        ("beatnet.sh", "beatnet", "beatnet,xresnet1d101,random-init probe"),
        ("clear_hug.sh", "clear-hug", "clear probe,clear-hug probe,random-init probe,xresnet1d101"),
        (
            "ecgnat_tables.sh",
            "ecgnat",
            "ecgnat,ecgnat-hug,scratch,no-contrastive,no-pretraining,ecgnat probe,random-init probe,xresnet1d101",
        ),
    ],
    ids=SCRIPTS,
)
def test_a_script_ends_with_a_table(root: Path, script: str, folder: str, arms: str) -> None:
    out = root.parent / f"out-{root.name}"  # one cache for the three, as in earnest
    done = bash(str(RUNS / script), str(root), out=out)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "skipped, no" not in done.stderr
    manifest = json.loads((out / "cache" / "manifest.json").read_bytes())
    assert manifest["splits"] == "published splits" and manifest["noise"]
    assert manifest["sources"] == dict.fromkeys(("ptbxl", "cinc2020", "chapman"), "published")
    (tasks,) = re.findall(r'^tasks="(.*)"$', (RUNS / script).read_text(), re.MULTILINE)
    runs = [json.loads(line) for line in (out / folder / "study.jsonl").read_text().splitlines()]
    wanted = sorted(product(tasks.split(), arms.split(","), (0.1, 1.0)))
    assert sorted((run["task"], run["arm"], run["fraction"]) for run in runs) == wanted
    assert all(run["steps"] == (0 if run["arm"].endswith("probe") else 1) for run in runs)
    assert {run["task"] for run in runs if run["auroc"] is not None} == {"cpsc2018"}
    assert all(any(run["robustness"].values()) for run in runs if run["auroc"] is not None and run["fraction"] == 1)
    page = (out / folder / "study.md").read_text()
    assert page.count("\n## ") == len(tasks.split()) and done.stdout.rstrip().endswith(page.rstrip())
    assert page.count("No class can be measured") == len(tasks.split()) - 1 and not re.search(r"\bnan\b", page)


def test_tasks_without_records_are_skipped_and_epochs_become_steps(root: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("ptbxl", "nstdb"):
        (tmp_path / "data" / name).symlink_to(root / name)
    program = (
        f"source {RUNS / 'tables.sh'}; gpus=2 spread echo ptbxl-super csn cpsc2018 ptbxl-rhythm; dry= steps 50 8 ptbxl-super 0.5"
    )
    done = bash("-c", program, "bash", str(tmp_path / "data"), out=tmp_path / "out")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sorted(lines[-3:-1]) == ["ptbxl-rhythm", "ptbxl-super"]
    assert int(lines[-1]) == 50 * 2, "two batches of 8 hold half of the 28 or 30 train records"
    assert "  ptbxl: published\n" in done.stdout
    assert "csn: skipped, no train, no val, no test records" in done.stderr
    assert "cpsc2018: skipped" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_says_what_it_needs(script: str, tmp_path: Path) -> None:
    done = bash(str(RUNS / script), out=tmp_path)
    assert done.returncode != 0
    assert "folder of the databases" in done.stderr
    (tmp_path / "ptbxl").mkdir()
    done = bash(str(RUNS / script), str(tmp_path), out=tmp_path)
    assert done.returncode != 0
    assert f"{tmp_path}/nstdb is missing" in done.stderr
