"""scripts/gpu-check, as far as it goes without a GPU: everything in it runs, and no part's failure ends the others."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "scripts/gpu_check.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_check", module)
    spec.loader.exec_module(module)
    return module


def test_all_of_it_runs_on_a_cpu(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    command = [ROOT / "scripts/gpu-check", "--device", "cpu", "--quick", "--json", file]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    report = json.loads(file.read_text())
    assert report["ok"] and report["device"] == "cpu" and report["quick"]
    parts = {part["part"]: part for part in report["parts"]}
    named = ["what runs", "windows equal", "steps equal", "graphs", "beds", "compiled", "attention", "windows", "training"]
    assert list(parts) == named
    rows = {name: {row["what"]: row for row in part["rows"]} for name, part in parts.items()}
    assert all(len(row) >= 2 for name, row in rows.items() if name != "training")
    for network in ("ecgnat", "ecgnat-causal", "ecgnat-hug", "beatnet", "clear"):
        assert rows["windows equal"][f"{network}: float32 off by"]["value"] <= 1e-4
        assert 0 < rows["windows equal"][f"{network}: bfloat16 off by"]["value"] <= 0.1
    assert rows["beds"]["float32, 16 beds: as many in real time"]["value"] > 0
    assert "all parts ok" in ran.stdout


def test_without_a_gpu_it_says_so(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu-check"])
    with pytest.raises(SystemExit):
        program.main()
    assert "no CUDA device; with --device cpu --quick" in capsys.readouterr().err


def test_a_part_that_fails_says_why_with_what_it_found(program: ModuleType) -> None:
    def breaks(at: Any) -> Iterator[Any]:
        yield program.Row("first", 1.0, "ms", True)
        raise RuntimeError("CUDA error: an illegal memory access")

    def never(at: Any) -> Iterator[Any]:
        raise AssertionError("a lost device is of no use to the next part")

    program.PARTS = {"one": (breaks, 5.0), "two": (never, 5.0)}
    out = io.StringIO()
    program.child(["one", "two"], "cpu", True, out)
    (report,) = [json.loads(line) for line in out.getvalue().splitlines()]
    assert report["error"] == "RuntimeError: CUDA error: an illegal memory access"
    assert not report["ok"] and report["rows"][0]["what"] == "first"


def test_parts_that_fail_crash_or_hang_do_not_end_the_others(program: ModuleType, tmp_path: Path) -> None:
    stub = tmp_path / "stub.py"
    stub.write_text("""
import json, os, sys, threading
names = sys.argv[sys.argv.index("--child") + 1].split(",")
for name in names:
    if name == "crashes":
        os._exit(11)
    if name == "hangs":
        threading.Event().wait()
    error = "it fails" if name == "fails" else ""
    print(json.dumps({"part": name, "ok": not error, "seconds": 1.0, "error": error, "rows": []}), flush=True)
    if error:
        break
""")
    program.__file__ = str(stub)
    program._START_S = 20.0
    names = ["good", "fails", "crashes", "well", "hangs", "last"]
    program.PARTS = {name: (None, 0.1 if name == "hangs" else 30.0) for name in names}
    reports = list(program.run_all(names, "cpu", True))
    assert [report["part"] for report in reports] == names
    assert [report["ok"] for report in reports] == [True, False, False, True, False, True]
    assert [report["error"] for report in reports][1:3] == ["it fails", "its process ended with code 11"]
    assert "took longer than" in reports[4]["error"]
