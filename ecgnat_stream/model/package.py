"""Packages: the network prepared ahead of time, found by what it was made for.

``ecgnat compile`` makes them (:mod:`ecgnat_stream.model.ahead`), a later start finds them. A package is machine code and is run
as such: it is looked for in this account's cache, or in the folder that the configuration names, never beside a checkpoint that
came from elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec
import torch
from torch import Tensor

from ecgnat_stream import __version__
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.model.catalogue import CONFIG_FILE, WEIGHTS_FILE
from ecgnat_stream.model.config import ModelConfig
from ecgnat_stream.model.network import Network
from ecgnat_stream.model.preprocess import TOKEN
from ecgnat_stream.places import cache_folder
from ecgnat_stream.signal import MODEL_FS

__all__ = ["Kind", "Manifest", "can_be_packed", "find_package", "keep_manifest", "load_package", "made_for", "package_file"]

Kind = Literal["window", "window-onnx", "step", "step-onnx"]

_LARGEST_MANIFEST = 1_000_000  # bytes


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a package was made of, and for: used where all of it is so here.

    Parameters
    ----------
    checkpoint
        SHA-256 of configuration and weights.
    code
        SHA-256 of the modules of the network.
    torch, device, processor
        Versions and machine that the code was compiled for; "any" for ONNX.
    threads
        Threads that it computes with, 0 for as many as it is told.
    samples, max_batch
        Length of its windows or steps, and the largest batch.
    past
        Numbers that a step remembers; "any" for windows and ONNX.
    package
        SHA-256 of the package.
    """

    checkpoint: str
    code: str
    torch: str
    device: str
    processor: str
    threads: int
    samples: int
    max_batch: int
    past: str = "any"
    package: str = ""


def can_be_packed(network: Network) -> bool:
    """Return whether a network can be prepared ahead of time: its shapes must not depend on what the signal holds."""
    return network.static and not network.needs_beats


def find_package(config: ModelConfig, checkpoint: Path, kind: Kind, device: torch.device) -> tuple[Path | None, str]:
    """Return the package that fits here, or None and why there is none."""
    try:
        file = package_file(config, checkpoint, kind, device)
        manifest = msgspec.json.decode(_manifest_file(file).read_bytes()[:_LARGEST_MANIFEST], type=Manifest)
    except FileNotFoundError:
        return None, "no package: ecgnat compile"
    except (ConfigError, OSError, msgspec.DecodeError) as error:
        return None, f"the package cannot be used ({error}): ecgnat compile"
    if (why := _not_ours(file)) is not None:
        return None, f"the package is not used: {why}"
    wanted = made_for(config, checkpoint, kind, device)
    for name in ("checkpoint", "code", "torch", "device", "processor", "threads", "samples", "past"):
        made, here = getattr(manifest, name), getattr(wanted, name)
        if made != here:
            said = f"another {name}" if name in ("checkpoint", "code") else f"{name} {made!r}, here it is {here!r}"
            return None, f"the package was made for {said}: ecgnat compile"
    if manifest.max_batch < config.max_batch:
        return None, f"the package was made for batches of {manifest.max_batch}, not {config.max_batch}: ecgnat compile"
    try:
        if _digest(file) != manifest.package:
            return None, "the package is not the one that was made: ecgnat compile"
    except OSError as error:
        return None, f"the package cannot be read ({error.strerror}): ecgnat compile"
    return file, str(file)


def package_file(config: ModelConfig, checkpoint: Path, kind: Kind, device: torch.device) -> Path:
    """Return where a package of a checkpoint lies, or would lie."""
    folder = Path(config.packages) if config.packages else cache_folder("packages")
    name = f"{checkpoint.name}-{_digest_of(checkpoint)[:12]}"
    form, _, onnx = kind.partition("-")
    return folder / name / (f"{form}.onnx" if onnx else f"{form}-{device.type}.pt2")


def _manifest_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def keep_manifest(file: Path, made: Manifest) -> Path:
    """Write what a package was made for beside it, and return where the package lies."""
    manifest = msgspec.structs.replace(made, package=_digest(file))
    _manifest_file(file).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    return file


def load_package(file: Path) -> Callable[..., list[Tensor]]:
    """Return what a package of machine code computes: tensors, or tuples of them, to a list of tensors.

    torch's public function imports its compiler first, which takes a start as long as torch itself: it is called only where the
    loader behind it is not as expected.
    """
    try:
        loader = torch._C._aoti.AOTIModelPackageLoader(os.fspath(file), "model", False, 1, -1)
    except (AttributeError, TypeError):
        public = torch._inductor.aoti_load_package(os.fspath(file))
        return lambda *inputs: list(public(*inputs))
    return lambda *inputs: loader.boxed_run([*_leaves(inputs)])


def _leaves(inputs: Iterable[Tensor | tuple[Tensor, ...]]) -> Iterator[Tensor]:
    for given in inputs:
        if isinstance(given, tuple):
            yield from given
        else:
            yield given


def made_for(config: ModelConfig, checkpoint: Path, kind: Kind, device: torch.device) -> Manifest:
    """Return what a package must have been made for to be used here."""
    native, by_step = not kind.endswith("-onnx"), kind.startswith("step")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Manifest(
        checkpoint=_digest_of(checkpoint),
        code=_code(),
        torch=str(torch.__version__) if native else "any",
        device=name if native else "any",
        processor=_processor() if native else "any",
        threads=config.threads if native else 0,
        samples=TOKEN if by_step else round(config.window_s * MODEL_FS),
        max_batch=config.max_batch,
        past=config.past if native and by_step else "any",
    )


def _not_ours(file: Path) -> str | None:
    """Return why this account must not run a file as its own code."""
    for path in (file.parent, file):
        try:
            found = path.stat()
        except OSError as error:
            return f"{path}: {error.strerror}"
        if found.st_uid not in (os.geteuid(), 0) or found.st_mode & 0o022:
            return f"others than this account can write to {path}"
    return None


def _digest_of(checkpoint: Path) -> str:
    content = hashlib.sha256()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        content.update(_digest(checkpoint / name).encode())
    return content.hexdigest()


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@cache
def _code() -> str:
    """Return a digest of what the network is built of."""
    content = hashlib.sha256(__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        content.update(path.read_bytes())
    return content.hexdigest()


@cache
def _processor() -> str:
    """Return what machine code may use here: an instruction that a processor lacks ends the process."""
    try:
        flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        flags = ""
    digest = hashlib.sha256(" ".join(sorted(flags.partition(":")[2].split())).encode()).hexdigest()[:8]
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {digest}"
