"""Shipped checkpoints are found by name wherever they lie, and are what was shipped."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from ecgnat_stream import weights
from ecgnat_stream.errors import CheckpointError


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an installation of its own: the monitor's network, a manifest that knows another, no checkout."""
    folder = tmp_path / "site" / "ecgnat_stream" / "weights"
    _checkpoint(folder / "ecgnat-nano")
    monkeypatch.setattr(weights, "FOLDER", folder)
    monkeypatch.setattr(weights, "_SUMS", folder / "SHA256SUMS")
    monkeypatch.setattr(weights, "_CHECKOUT", tmp_path / "models" / "ecgnat_stream_models")
    monkeypatch.setattr(weights, "_PACKAGE", "ecgnat_stream_models_of_a_test")
    (folder / "SHA256SUMS").write_text("")
    weights.record_sums(folder / "ecgnat-nano")
    _checkpoint(tmp_path / "other")
    weights.record_sums(tmp_path / "other")
    return tmp_path


def _checkpoint(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text(f"{folder.name} {name}")


def test_everything_that_ships_is_in_a_checkout_and_as_the_manifest_says() -> None:
    assert set(weights.installed()) == set(weights.known())
    assert {"ecgnat-nano", "ecgnat-nano-12lead", "ecgnat-nano-causal", "beatnet", "clear-hug"} <= set(weights.known())
    lines = dict(reversed(line.split("  ")) for line in (weights.FOLDER / "SHA256SUMS").read_text().splitlines())
    for name, folder in weights.installed().items():
        weights.verify(folder)
        for file in ("config.json", "model.safetensors"):
            assert lines[f"{name}/{file}"] == hashlib.sha256((folder / file).read_bytes()).hexdigest()


def test_only_the_monitors_network_lies_in_the_package() -> None:
    assert [folder.parent.name for folder in weights.FOLDER.glob("*/config.json")] == [weights.DEFAULT]


def test_a_known_model_that_is_not_installed_says_how_to_get_it(elsewhere: Path) -> None:
    assert set(weights.installed()) == {"ecgnat-nano"}
    assert weights.shipped() == elsewhere / "site" / "ecgnat_stream" / "weights" / "ecgnat-nano"
    with pytest.raises(CheckpointError, match=r"other is not installed: .*pip install 'ecgnat-stream\[models\]'"):
        weights.shipped("other")
    with pytest.raises(CheckpointError, match="unknown model 'third': there are ecgnat-nano, other"):
        weights.shipped("third")


def test_models_are_found_in_their_own_package_and_in_a_checkout(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = elsewhere / "wheel" / "ecgnat_stream_models_of_a_test"
    (elsewhere / "other").rename(package.parent.parent / "kept")
    _checkpoint(package / "other")
    (package / "__init__.py").write_text("raise ImportError('never imported, only looked at')")
    monkeypatch.syspath_prepend(str(package.parent))
    assert weights.shipped("other") == package / "other"
    _checkpoint(elsewhere / "models" / "ecgnat_stream_models" / "other")
    assert weights.shipped("other") == elsewhere / "models" / "ecgnat_stream_models" / "other"
    assert "ecgnat_stream_models_of_a_test" not in sys.modules


def test_a_shipped_checkpoint_that_was_changed_is_refused(elsewhere: Path) -> None:
    folder = weights.shipped()
    weights.verify(folder)
    (folder / "model.safetensors").write_text("others")
    with pytest.raises(CheckpointError, match=r"ecgnat-nano/model\.safetensors is not what was shipped: its SHA-256 is"):
        weights.verify(folder)
    copy = elsewhere / "mine" / "ecgnat-nano"
    _checkpoint(copy)
    (copy / "model.safetensors").write_text("others")
    weights.verify(copy)  # a folder of the user's own may hold what it likes, whatever it is called


def test_a_checkpoint_is_shipped_into_a_checkout_alone(elsewhere: Path) -> None:
    with pytest.raises(CheckpointError, match="from a checkout"):
        weights.place("other")
    (elsewhere / "models" / "ecgnat_stream_models").mkdir(parents=True)
    assert weights.place("other") == elsewhere / "models" / "ecgnat_stream_models" / "other"
    assert weights.place("ecgnat-nano") == weights.FOLDER / "ecgnat-nano"
