"""A model on disk: one directory with ``model.safetensors``, ``config.json`` and a model card ``README.md``.

The configuration holds everything needed to rebuild the network and to read its outputs, so that code and weights cannot disagree
silently: what does not fit is a :class:`CheckpointError` that says which file and what.
"""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ecgnat_stream.codes import BEATS, RHYTHMS, SCREENS
from ecgnat_stream.errors import CheckpointError
from ecgnat_stream.model.catalogue import CONFIG_FILE, WEIGHTS_FILE, Head, read_configuration
from ecgnat_stream.model.network import Network
from ecgnat_stream.model.networks import AnyConfig, build
from ecgnat_stream.signal import LEADS, MODEL_FS
from ecgnat_stream.weights import verify

__all__ = ["Calibration", "ModelCard", "load_checkpoint", "save_checkpoint"]

_CARD = "README.md"

LARGEST_WEIGHTS = 4_000_000_000
"""Bytes of the weights: more than any network that is built here has, and less than would fill the memory."""


Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How logits become probabilities and probabilities decisions, fitted on validation records.

    Parameters
    ----------
    temperature, bias
        Rhythm: ``softmax(logits / temperature + bias)``; one bias per class, or none.
    screen_temperature, window_temperature
        Divide the logits of the screening and the window head.
    window_thresholds
        Probability from which a diagnostic statement is made, one per class; empty for 0.5.
    beat_threshold
        Probability from which a beat is marked.
    vf_threshold
        Mean probability of VF from which 4 s are called shockable.
    """

    temperature: float = 1.0
    bias: tuple[float, ...] = ()
    screen_temperature: float = 1.0
    window_temperature: float = 1.0
    window_thresholds: tuple[Probability, ...] = ()
    beat_threshold: Probability = 0.5
    vf_threshold: Probability = 0.5


class ModelCard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``config.json`` holds.

    Parameters
    ----------
    model
        The network's configuration; its ``rhythm_classes`` and ``window_classes`` are the labels.
    fs, leads
        What the input must be.
    heads
        Those that were trained; the others say nothing that means anything.
    trained_on
        Database name to number of records.
    metrics
        Measured figures, as they came out of the evaluation.
    """

    model: AnyConfig
    fs: int = MODEL_FS
    leads: tuple[str, ...] = LEADS
    heads: tuple[Head, ...] = ("rhythm", "beat", "window", "screen")
    calibration: Calibration = Calibration()
    trained_on: dict[str, int] = {}
    metrics: dict[str, Any] = {}


def save_checkpoint(path: Path | str, network: Network, card: ModelCard, text: str = "") -> Path:
    """Write a checkpoint directory and return its path.

    Parameters
    ----------
    text
        The model card, markdown.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().contiguous().cpu() for name, tensor in network.state_dict().items()}, path / WEIGHTS_FILE)
    (path / WEIGHTS_FILE).chmod(0o644)  # safetensors leaves it to the owner alone
    (path / CONFIG_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")
    if text or not (path / _CARD).exists():
        (path / _CARD).write_text(text or f"# {card.model.name}\n\nNo model card was written.\n", encoding="utf-8")
    return path


def load_checkpoint(path: Path | str) -> tuple[Network, ModelCard]:
    """Rebuild a network in eval mode, with what its configuration says.

    Raises
    ------
    CheckpointError
        For a directory that is not a checkpoint: missing or damaged files, other labels or leads, a configuration that cannot be
        built, weights of other shapes or kinds, or that are not numbers; for a shipped one that is not what was shipped.
    """
    path = Path(path)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (path / name).is_file():
            raise CheckpointError(f"{path} is not a checkpoint: it has no {name}")
    if (size := (path / WEIGHTS_FILE).stat().st_size) > LARGEST_WEIGHTS:
        raise CheckpointError(f"{path / WEIGHTS_FILE} has {size / 1e9:.1f} GB; {LARGEST_WEIGHTS / 1e9:g} GB are the most")
    verify(path)
    card = _read_card(path / CONFIG_FILE)
    try:
        tensors = load_file(path / WEIGHTS_FILE)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path / WEIGHTS_FILE} cannot be read: {error}") from error
    try:
        network = build(card.model)
    except (ValueError, RuntimeError, ArithmeticError, MemoryError) as error:
        raise CheckpointError(f"{path / CONFIG_FILE}: no network can be built from it: {error}") from error
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"{path / WEIGHTS_FILE} does not fit {CONFIG_FILE}: {len(wrong)} tensors differ, "
            f"first {name}: {wanted.get(name, 'absent')} wanted, {found.get(name, 'absent')} found"
        )
    for name, tensor in network.state_dict().items():
        if tensors[name].is_floating_point() != tensor.is_floating_point():
            raise CheckpointError(f"{path / WEIGHTS_FILE}: {name} is {tensors[name].dtype}, not {tensor.dtype}")
        if not tensors[name].isfinite().all():
            raise CheckpointError(
                f"{path / WEIGHTS_FILE}: {name} has values that are not finite: the training went wrong, or the file"
            )
    network.load_state_dict(tensors)
    return network.eval(), card


def _read_card(path: Path) -> ModelCard:
    content = read_configuration(path)
    try:
        card = msgspec.json.decode(content, type=ModelCard)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a model configuration: {error}") from error
    for kind, classes in (("rhythm", RHYTHMS), ("beat", BEATS), ("screen", SCREENS)):
        if (own := getattr(card.model, f"{kind}_classes")) != classes:
            raise CheckpointError(f"{path}: {kind} classes {own} are not {classes}")
    if len(set(card.model.window_classes)) != len(card.model.window_classes):
        raise CheckpointError(f"{path}: a class stands twice in {card.model.window_classes}")
    if card.leads != LEADS or card.fs != MODEL_FS:
        raise CheckpointError(f"{path}: made for leads {card.leads} at {card.fs} Hz, not for {LEADS} at {MODEL_FS} Hz")
    calibration, statements = card.calibration, len(card.model.window_classes)
    temperatures = (calibration.temperature, calibration.screen_temperature, calibration.window_temperature)
    numbers = (*temperatures, *calibration.bias)
    if not all(map(isfinite, numbers)) or min(temperatures) <= 0 or len(calibration.bias) not in (0, len(RHYTHMS)):
        raise CheckpointError(f"{path}: calibration {calibration} needs temperatures > 0 and {len(RHYTHMS)} biases or none")
    if len(calibration.window_thresholds) not in (0, statements):
        raise CheckpointError(f"{path}: calibration {calibration} needs {statements} window thresholds or none")
    return card
