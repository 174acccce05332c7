"""Which networks there are, found by name, and what their cards say of them; read without torch, so that it is known at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
from safetensors import SafetensorError, safe_open

from ecgnat_stream.errors import CheckpointError, ConfigError
from ecgnat_stream.model.config import ModelConfig
from ecgnat_stream.places import path_of
from ecgnat_stream.weights import DEFAULT, installed, known, shipped, verify

__all__ = [
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "Head",
    "Mode",
    "NetworkEntry",
    "check_model",
    "find_checkpoint",
    "is_damaged",
    "list_models",
    "monitoring",
    "read_configuration",
    "reading_mode",
]

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"

_BY_BEATS = ("beatnet", "clear")

Mode = Literal["window", "stream"]
"""How a network reads a bed's signal: the last seconds anew each time, or only what is new."""

LARGEST_CONFIGURATION = 1_000_000
"""Bytes of a ``config.json``; those that ship have about 3,000."""

Head = Literal["rhythm", "beat", "window", "screen"]

_ALL_HEADS: tuple[Head, ...] = ("rhythm", "beat", "window", "screen")
_NEEDED: Head = "rhythm"
"""The head without which a network has nothing to say to the monitor."""

_NOT_PARAMETERS = ("running_mean", "running_var", "num_batches_tracked")
"""Tensors of a checkpoint that are statistics of the training, not learned."""


class NetworkEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One network of the catalogue.

    Parameters
    ----------
    heads
        What was trained: rhythm of every 0.32 s, beats, window (diagnoses), screen (one verdict on a short recording).
    monitors
        Whether the monitor can run it.
    classes
        Names of what each trained head tells apart.
    installed
        If not, nothing else is known of it.
    size_bytes
        Of the weights.
    trained_on
        Database name to number of records.
    measured
        Figure of the evaluation to ``[value, low, high]``, a 95 % interval, on test records.
    """

    name: str
    installed: bool = True
    architecture: str = ""
    heads: tuple[Head, ...] = ()
    monitors: bool = False
    classes: dict[str, tuple[str, ...]] = {}
    parameters: int | None = None
    size_bytes: int | None = None
    trained_on: dict[str, int] = {}
    measured: dict[str, tuple[float, float, float]] = {}


class _Card(msgspec.Struct, frozen=True):
    """The part of ``config.json`` that needs no network to be read."""

    model: dict[str, Any]
    heads: tuple[Head, ...] = _ALL_HEADS
    trained_on: dict[str, int] = {}
    metrics: dict[str, Any] = {}


def list_models() -> list[NetworkEntry]:
    """Return every network that ships, installed or not, the monitor's own first.

    Raises
    ------
    CheckpointError
        For a card that cannot be read.
    """
    here = installed()
    entries = [_entry(here[name]) if name in here else NetworkEntry(name=name, installed=False) for name in known()]
    return sorted(entries, key=lambda entry: (entry.name != DEFAULT, not entry.installed, not entry.monitors, entry.name))


def find_checkpoint(name: str) -> Path:
    """Return the folder that a name stands for: a path, a checkpoint in the working directory, or a shipped one.

    Raises
    ------
    CheckpointError
        If it is no path, and none of that name is shipped, or it is not installed.
    """
    try:
        path = path_of(name)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    return path if len(path.parts) > 1 or (path / CONFIG_FILE).is_file() else shipped(name)


def monitoring(name: str) -> Path:
    """Return the folder of a network that the monitor can run.

    Raises
    ------
    CheckpointError
        As :func:`find_checkpoint`; for a folder that holds no whole checkpoint; for a network whose card says that it was not
        trained to tell rhythms.
    """
    path = find_checkpoint(name)
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (path / file).is_file():
            raise CheckpointError(f"{path} is not a checkpoint: it has no {file}")
    heads = _card(path).heads
    if _NEEDED not in heads:
        others = ", ".join(entry.name for entry in list_models() if entry.monitors)
        raise CheckpointError(
            f"{path.name} cannot monitor: of its heads only {' and '.join(heads) or 'none'} was trained, and the monitor needs "
            f"{_NEEDED}; `ecgnat models` says what each network is for, for monitoring there are {others}"
        )
    _shapes(path)
    return path


def reading_mode(config: ModelConfig) -> Mode:
    """Return how the monitor's network reads: as set, and with "auto" token by token if it can. Beat by beat only if asked for.

    Raises
    ------
    ConfigError
        For "stream" with a network that looks ahead.
    CheckpointError
        As :func:`find_checkpoint`.
    """
    if config.mode == "window":
        return "window"
    model = _card(find_checkpoint(config.name)).model
    if model.get("arch") == "ecgnat" and model.get("is_causal") is True:
        return "stream"
    if config.mode == "stream" and model.get("arch") in _BY_BEATS:
        return "stream"
    if config.mode == "stream":
        raise ConfigError(
            f'model.mode is "stream", but the network {config.name} looks ahead: only a causal one, such as ecgnat-nano-causal, '
            'can go token by token, and beatnet and clear-hug beat by beat; name one, or leave mode at "auto"'
        )
    return "window"


def check_model(config: ModelConfig) -> None:
    """Refuse what the monitor could not run: first by name and card, at once, then by loading it.

    What was shipped and is unchanged is known to load, and torch takes its time: it is not loaded here unless something else
    about it can be wrong.

    Raises
    ------
    ConfigError, CheckpointError
        As :func:`monitoring` and :class:`~ecgnat_stream.model.predict.Predictor`.
    """
    path = monitoring(config.name)
    reading_mode(config)
    if verify(path) and config.device != "cuda" and config.runtime == "torch":
        return
    from ecgnat_stream.model.predict import try_loading

    try_loading(config)


def is_damaged(name: str) -> bool:
    """Return whether a network that does not run is there and made for monitoring: its files have gone bad since.

    Such a network does not end a ward (docs/decisions/0004); a name that does not exist is a mistake of whoever wrote it.
    """
    try:
        path = find_checkpoint(name)
        return path.is_dir() and _NEEDED in _card(path).heads
    except CheckpointError:
        return False


def _entry(path: Path) -> NetworkEntry:
    card = _card(path)
    return NetworkEntry(
        name=path.name,
        architecture=f"{card.model.get('arch', '')} {card.model.get('name', '')}".strip(),
        heads=card.heads,
        monitors=_NEEDED in card.heads,
        classes={head: tuple(card.model.get(f"{head}_classes", ())) for head in card.heads},
        parameters=_parameters(path),
        size_bytes=(path / WEIGHTS_FILE).stat().st_size,
        trained_on=card.trained_on,
        measured={name: tuple(figure) for name, figure in card.metrics.get("test", {}).items() if figure is not None},
    )


def read_configuration(path: Path) -> bytes:
    """Return the content of a checkpoint's ``config.json``.

    Raises
    ------
    CheckpointError
        If it cannot be read, or is larger than any.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_CONFIGURATION + 1)
    except OSError as error:
        raise CheckpointError(f"{path} is not a model configuration: {error}") from error
    if len(content) > LARGEST_CONFIGURATION:
        raise CheckpointError(f"{path} is not a model configuration: it is larger than {LARGEST_CONFIGURATION / 1e6:g} MB")
    return content


def _card(path: Path) -> _Card:
    content = read_configuration(path / CONFIG_FILE)
    try:
        return msgspec.json.decode(content, type=_Card)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path / CONFIG_FILE} is not a model configuration: {error}") from error


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor, from the file's head alone; a file that was cut short is refused."""
    file = path / WEIGHTS_FILE
    try:
        with safe_open(file, framework="numpy") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error


def _parameters(path: Path) -> int:
    total = 0
    for name, shape in _shapes(path).items():
        if name.rpartition(".")[2] not in _NOT_PARAMETERS:
            size = 1
            for length in shape:
                size *= length
            total += size
    return total
