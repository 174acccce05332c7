"""The networks that are there, found and judged without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ecgnat_stream.errors import CheckpointError
from ecgnat_stream.model import Predictor, find_checkpoint, list_models, load_checkpoint, monitoring, shipped
from ecgnat_stream.model.config import ModelConfig


def test_every_shipped_network_is_listed_with_what_its_card_says() -> None:
    found = {entry.name: entry for entry in list_models()}
    assert next(iter(found)) == "ecgnat-nano", "the monitor's own comes first"
    for name in ("ecgnat-nano", "beatnet", "clear-hug"):
        entry = found[name]
        network, card = load_checkpoint(shipped(name))
        assert entry.parameters == sum(parameter.numel() for parameter in network.parameters())
        assert entry.classes["rhythm"] == card.model.rhythm_classes
        assert entry.trained_on == card.trained_on
        assert entry.measured["one-lead screening: mean F1 of N, A, O"][0] > 0.7
        assert entry.monitors
        assert entry.installed
    twelve = found["ecgnat-nano-12lead"]
    assert (twelve.heads, twelve.monitors) == (("window",), False)
    assert set(twelve.measured) == {"PTB-XL superclasses: macro-AUROC", "calibration, diagnoses: ECE"}, (
        "what was not judged is left out"
    )


def test_what_the_monitor_cannot_run_is_refused_with_the_reason() -> None:
    assert monitoring("beatnet") == shipped("beatnet")
    with pytest.raises(CheckpointError, match=r"ecgnat-nano-12lead cannot monitor: .*only window.*there are ecgnat-nano, "):
        monitoring("ecgnat-nano-12lead")
    with pytest.raises(CheckpointError, match=r"unknown model 'ecgnat-nan': did you mean ecgnat-nano\?"):
        monitoring("ecgnat-nan")


def test_a_network_that_cannot_monitor_still_diagnoses() -> None:
    with Predictor(ModelConfig(name="ecgnat-nano-12lead")) as predictor:
        assert predictor.card.heads == ("window",)


def test_a_checkpoint_that_was_cut_short_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "cut"
    shutil.copytree(shipped("beatnet"), path)
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        monitoring(str(path))
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"is not a checkpoint: it has no model\.safetensors"):
        monitoring(str(path))


def test_heads_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd"
    shutil.copytree(shipped("beatnet"), path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"heads": ["rhythm", "tail"]}))
    with pytest.raises(CheckpointError, match=r"config\.json is not a model configuration"):
        monitoring(str(path))
    with pytest.raises(CheckpointError, match=r"config\.json is not a model configuration"):
        load_checkpoint(path)


def test_names_are_found_without_torch() -> None:
    program = (
        "import sys, ecgnat_stream.config\n"
        "from ecgnat_stream.model import list_models, monitoring\n"
        "monitoring('ecgnat-nano'), list_models()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_a_folder_of_that_name_without_a_checkpoint_is_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beatnet").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("beatnet") == shipped("beatnet")
