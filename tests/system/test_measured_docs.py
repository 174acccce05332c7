"""docs/measured/index.md and speed.md are what the measurements in results/ say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_pages_are_written_from_the_results() -> None:
    spec = importlib.util.spec_from_file_location("results_docs", ROOT / "scripts" / "results_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run python scripts/results_docs.py"
    assert module.SPEED_PAGE.read_text(encoding="utf-8") == module.speed(), "run python scripts/results_docs.py"
