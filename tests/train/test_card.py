"""Figures get into the checkpoint they belong to, and into no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecgnat_stream.model import load_checkpoint
from train.card import BEGIN, END, write_card


def test_a_card_is_written_between_its_markers_again_and_again(untrained: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "mine"
    checkpoint.mkdir()
    for name in ("model.safetensors", "config.json"):
        (checkpoint / name).write_bytes((untrained / name).read_bytes())
    (checkpoint / "README.md").write_text(f"# mine\n\nbefore\n\n{BEGIN}\n{END}\n\nafter\n")
    results = {"checkpoint": "mine", "split": "test", "command": "python ...", "screen": {"mean_f1": [0.7, 0.6, 0.75]}}
    write_card(checkpoint, results)
    write_card(checkpoint, results | {"screen": {"mean_f1": [0.81, 0.8, 0.82]}})
    text = (checkpoint / "README.md").read_text()
    assert text.startswith("# mine\n\nbefore\n")
    assert text.endswith("\n\nafter\n")
    assert "0.810 (0.800 to 0.820) | yes" in text
    assert "0.700" not in text
    assert load_checkpoint(checkpoint)[1].metrics["test"]["one-lead screening: mean F1 of N, A, O"] == [0.81, 0.8, 0.82]
    with pytest.raises(ValueError, match="figures of other"):
        write_card(checkpoint, results | {"checkpoint": "other"})
    (checkpoint / "README.md").write_text("no markers")
    with pytest.raises(ValueError, match="once each"):
        write_card(checkpoint, results)
