"""Checkpoints on disk, and directories that are none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ecgnat_stream import weights
from ecgnat_stream.errors import CheckpointError
from ecgnat_stream.model import (
    ARCHITECTURES,
    EcgNat,
    ModelCard,
    build,
    configured,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
    shipped,
    size,
)
from ecgnat_stream.model.checkpoint import Calibration


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = EcgNat(size("nano"))
    card = ModelCard(model=network.config, trained_on={"mitdb": 3}, calibration=Calibration(temperature=1.5))
    return save_checkpoint(tmp_path / "model", network, card)


def edit(checkpoint: Path, **changes: object) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize("is_causal", [False, True])
def test_round_trip(tmp_path: Path, is_causal: bool) -> None:
    network = EcgNat(size("nano", is_causal))
    save_checkpoint(tmp_path, network, ModelCard(model=network.config))
    loaded, card = load_checkpoint(tmp_path)
    assert card.model == network.config
    assert not loaded.training
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_comes_back_as_itself(tmp_path: Path, arch: str) -> None:
    network = build(configured(arch, "nano", window_classes=("one", "two")))
    save_checkpoint(tmp_path, network, ModelCard(model=network.config))
    assert json.loads((tmp_path / "config.json").read_text())["model"]["arch"] == arch
    loaded, card = load_checkpoint(tmp_path)
    assert type(loaded) is type(network)
    assert card.model == network.config
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0)


def test_an_unknown_architecture(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["model"]["arch"] = "resnet"
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="resnet"):
        load_checkpoint(checkpoint)
    with pytest.raises(ValueError, match=r"unknown architecture 'resnet': .*ecgnat, "):
        configured("resnet", "nano")
    with pytest.raises(ValueError, match="beatnet has no causal form"):
        configured("beatnet", "nano", is_causal=True)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not a checkpoint: it has no config\.json"):
        load_checkpoint(tmp_path)


def test_missing_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"it has no model\.safetensors"):
        load_checkpoint(checkpoint)


def test_damaged_weights(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        load_checkpoint(checkpoint)


def test_weights_of_another_size(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["model"]["embed_dim"] = 32
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"tensors differ, first .* wanted, .* found"):
        load_checkpoint(checkpoint)


def test_a_configuration_that_is_no_json(checkpoint: Path) -> None:
    for content in ("{", "[" * 5000, '{"fs": 1' + "0" * 10_000 + "}", '{"calibration": {"temperature": 1e999}}', "\0"):
        (checkpoint / "config.json").write_text(content)
        with pytest.raises(CheckpointError, match="is not a model configuration"):
            load_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fs": 250}, "at 250 Hz"),
        ({"leads": ["I", "II"]}, "made for leads"),
        ({"calibration": {"temperature": 0.0}}, "temperature"),
        ({"calibration": {"bias": [1.0]}}, "8 biases"),
        ({"metrics": {"x": "y" * 2_000_000}}, "is larger than 1 MB"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_configuration_that_does_not_fit(checkpoint: Path, changes: dict[str, object], said: str) -> None:
    edit(checkpoint, **changes)
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(checkpoint)


def test_other_labels(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["model"]["rhythm_classes"][0] = "NORMAL"
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="NORMAL"):
        load_checkpoint(checkpoint)


def test_an_impossible_network(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["model"]["depths"] = [1]
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="four stages"):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("arch", "changes", "said"),
    [
        ("ecgnat", {"kernel_size": 0}, "kernel_size"),
        ("ecgnat", {"drop_path": 2}, "drop_path"),
        ("ecgnat-hug", {"num_heads": [2, 4, 8, 0]}, "num_heads"),
        ("beatnet", {"num_heads": 0}, "num_heads"),
        ("beatnet", {"conv_strides": [-3, 2, 1]}, "conv_strides"),
        ("beatnet", {"dropout": 5}, "dropout"),
        ("beatnet", {"embed_dim": 90}, "divide by twice the heads"),
        ("clear", {"num_heads": 0}, "num_heads"),
        ("clear", {"embed_dim": -96}, "embed_dim"),
        ("clear", {"mlp_ratio": -1}, "mlp_ratio"),
        ("clear", {"embed_dim": 96_000_000_000}, "no network can be built"),
        ("clear", {"window_classes": ["A", "B", "A"]}, "a class stands twice"),
        ("clear", {"beat_classes": ["F", "Q", "N", "S", "V"]}, "beat classes"),
        ("beatnet", {"screen_classes": ["N", "O", "A", "~"]}, "screen classes"),
    ],
)
def test_a_network_that_cannot_be(tmp_path: Path, arch: str, changes: dict[str, object], said: str) -> None:
    network = build(configured(arch, "nano"))
    save_checkpoint(tmp_path, network, ModelCard(model=network.config))
    config = json.loads((tmp_path / "config.json").read_text())
    edit(tmp_path, model=config["model"] | changes)
    with pytest.raises(CheckpointError, match=rf"config\.json.*{said}"):
        load_checkpoint(tmp_path)


def test_weights_that_are_not_numbers(checkpoint: Path) -> None:
    whole = load_file(checkpoint / "model.safetensors")
    name = "rhythm_head.linear.weight"
    for value in (torch.nan, torch.inf):
        broken = whole[name].clone()
        broken[0, 0] = value
        save_file(whole | {name: broken}, checkpoint / "model.safetensors")
        with pytest.raises(CheckpointError, match=rf"{name} has values that are not finite"):
            load_checkpoint(checkpoint)
    save_file(whole | {name: whole[name].to(torch.int8)}, checkpoint / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"{name} is torch\.int8, not torch\.float32"):
        load_checkpoint(checkpoint)


def test_a_name_is_a_path_or_shipped(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoint.parent)
    (checkpoint.parent / "beatnet").mkdir()
    assert find_checkpoint("beatnet") == shipped("beatnet"), "a folder of results is no checkpoint"
    assert find_checkpoint("model").resolve() == checkpoint.resolve()


def test_the_home_of_nobody_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"no account nobody-of-that-name: write the whole path"):
        find_checkpoint("~nobody-of-that-name/run")


def test_an_unknown_shipped_name() -> None:
    with pytest.raises(CheckpointError, match=r"unknown model 'ecgnat-huge': there are .*ecgnat-nano"):
        shipped("ecgnat-huge")


def test_a_shipped_checkpoint_that_was_changed_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(shipped(), changed := tmp_path / "ecgnat-nano")
    load_checkpoint(changed)
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    load_checkpoint(changed)
    edit(changed, fs=100, calibration={"temperature": 2.0})
    with pytest.raises(CheckpointError, match=r"config\.json is not what was shipped"):
        load_checkpoint(changed)
