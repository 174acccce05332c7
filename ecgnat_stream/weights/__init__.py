"""What was fitted and ships: constants of the stages (JSON), and the checkpoints, each a folder with its model card.

The monitor's network lies in this folder. The others are a distribution of their own, ``ecgnat-stream-models``, which in a
checkout is the folder ``models/``. ``SHA256SUMS`` (as ``sha256sum`` writes it) names the files of all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from ecgnat_stream.errors import CheckpointError
from ecgnat_stream.suggest import unknown

__all__ = ["DEFAULT", "FOLDER", "installed", "known", "place", "record_sums", "shipped", "verify"]

DEFAULT = "ecgnat-nano"
"""The monitor's network."""

FOLDER = Path(__file__).parent
_SUMS = FOLDER / "SHA256SUMS"
_PACKAGE = "ecgnat_stream_models"
_CHECKOUT = FOLDER.parents[1] / "models" / _PACKAGE
_CONFIG = "config.json"
_CHECKED = (_CONFIG, "model.safetensors")


def known() -> tuple[str, ...]:
    """Return the names of all checkpoints that ship, installed or not."""
    return tuple(sorted({name for name, _ in _sums()}))


def installed() -> dict[str, Path]:
    """Return name and folder of the shipped checkpoints that are here."""
    return {name: folder / name for name in known() for folder in _folders() if (folder / name / _CONFIG).is_file()}


def shipped(name: str = DEFAULT) -> Path:
    """Return the folder of a checkpoint that ships with the package or with ``ecgnat-stream-models``.

    Raises
    ------
    CheckpointError
        If there is none of that name, or if its distribution is not installed.
    """
    found = installed()
    if name not in known():
        raise CheckpointError(unknown("model", name, known()))
    if name not in found:
        raise CheckpointError(f"{name} is not installed: it comes with pip install 'ecgnat-stream[models]'")
    return found[name]


def verify(checkpoint: Path) -> bool:
    """Check that a shipped checkpoint is what was shipped, and return whether it is a shipped one; others are not looked at.

    Raises
    ------
    CheckpointError
        Naming the file that is another one.
    """
    checkpoint = checkpoint.resolve()
    if checkpoint.parent not in [folder.resolve() for folder in _folders()]:
        return False
    sums = {file: sum_ for (name, file), sum_ in _sums().items() if name == checkpoint.name}
    for file, sum_ in sums.items():
        if (found := _sum(checkpoint / file)) != sum_:
            raise CheckpointError(
                f"{checkpoint / file} is not what was shipped: its SHA-256 is {found[:12]}..., {sum_[:12]}... was shipped; "
                f"install it again, or copy the folder elsewhere and name its path"
            )
    return bool(sums)


def place(name: str) -> Path:
    """Return the folder of a checkout into which a checkpoint of that name is shipped.

    Raises
    ------
    CheckpointError
        Outside of a checkout.
    """
    if not _CHECKOUT.is_dir():
        raise CheckpointError(f"checkpoints are shipped from a checkout of the repository; there is no {_CHECKOUT}")
    return (FOLDER if name == DEFAULT else _CHECKOUT) / name


def record_sums(checkpoint: Path) -> None:
    """Write the sums of a checkpoint, as it is now, into the manifest."""
    sums = _sums() | {(checkpoint.name, file): _sum(checkpoint / file) for file in _CHECKED}
    lines = [f"{sums[key]}  {'/'.join(key)}\n" for key in sorted(sums)]
    _SUMS.write_text("".join(lines), encoding="ascii")


def _folders() -> Iterator[Path]:
    """Yield where shipped checkpoints can lie, the most particular last."""
    spec = find_spec(_PACKAGE)
    yield from map(Path, spec.submodule_search_locations or () if spec else ())
    yield _CHECKOUT
    yield FOLDER


def _sums() -> dict[tuple[str, str], str]:
    """Return the sum of every file, by checkpoint and file name."""
    found = {}
    for line in _SUMS.read_text(encoding="ascii").splitlines():
        sum_, _, path = line.partition("  ")
        name, _, file = path.partition("/")
        found[name, file] = sum_
    return found


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
