"""``ecgnat bench`` as a person calls it, on two beds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = [sys.executable, "-m", "ecgnat_stream.cli", "bench", "--quick", "--seconds", "1.5"]


@pytest.mark.timeout(600)
def test_a_quick_run_carries_two_beds_and_says_where_the_time_goes(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    done = subprocess.run(
        [*BENCH, "--only", "beds,stages", "--json", str(path)], capture_output=True, text=True, timeout=560, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(path.read_text(encoding="utf-8"))
    (limit,) = report["beds"]
    (trial,) = limit["trials"]
    assert trial["beds"] == 2 and trial["silent"] == 0 and trial["labels"] >= 2 and trial["p99_ms"] > 0, trial
    assert limit["admission"] is None, "two beds are no limit"
    (stages,) = report["stages"]
    costs = {cost["stage"]: cost for cost in stages["costs"]}
    assert all(
        costs[stage]["ms_per_bed_s"] > 0
        for stage in ("ring", "condition", "quality", "beats", "schedule", "network", "ward", "sinks")
    )
    assert all(
        costs[stage]["kb_per_bed"] > 0
        for stage in ("ring", "condition", "quality", "beats", "fibrillation", "schedule", "network")
    )
    assert report["start"] is None and report["ratios"] == [] and report["missing"] == []
    assert "beds in real time" in done.stdout and "█" in done.stdout
    assert "bench: 2 beds, 2 leads" in done.stderr
