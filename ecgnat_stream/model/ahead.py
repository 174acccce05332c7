"""Networks prepared ahead of time, so that no start compiles: machine code by AOTInductor, or a file for onnxruntime.

In: a checkpoint. Out: a package (:mod:`ecgnat_stream.model.package`), kept only if it computes what the network computes.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ecgnat_stream.errors import ConfigError, EcgnatError
from ecgnat_stream.model.catalogue import find_checkpoint
from ecgnat_stream.model.checkpoint import load_checkpoint
from ecgnat_stream.model.config import ModelConfig
from ecgnat_stream.model.ecgnat import NatLayer
from ecgnat_stream.model.network import Network
from ecgnat_stream.model.package import can_be_packed, keep_manifest, package_file
from ecgnat_stream.model.predict import choose_device, fold_batch_norm, limit_threads
from ecgnat_stream.model.runtime import compiler
from ecgnat_stream.signal import LEADS, MODEL_FS

__all__ = ["WindowForm", "make_onnx", "make_package"]

_TOLERANCE = 1e-4
"""Logits of a package differ from the network's by less, or it is not kept: about 4e-6 are usual."""

_OPSET = 20


class WindowForm(nn.Module):
    """The network over whole windows ``(B, 12, T)`` in mV, NaN = missing, to the logits of its four heads."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, windows: Tensor) -> tuple[Tensor, ...]:
        """Return rhythm, beat, window and screening logits."""
        return tuple(self.network(self.network.prepare(windows)))


def make_package(config: ModelConfig) -> Path:
    """Compile a network for this machine, and return where the package lies.

    Raises
    ------
    ConfigError
        For a network of heartbeats, without a compiler, and where nothing can be kept.
    EcgnatError
        If it cannot be compiled, or does not compute what the network computes.
    """
    if compiler() is None:
        raise ConfigError(
            "no C++ compiler: apt install g++ (Debian, Ubuntu), dnf install gcc-c++ (Fedora), xcode-select --install"
        )
    device = choose_device(config.device)
    limit_threads(config)
    checkpoint, network = _loaded(config, device)
    windows, exported = _exported(config, network)
    with _new_file(package_file(config, checkpoint, "window", device)) as new:
        threads = {"cpp.threads": config.threads} if config.threads else {"cpp.dynamic_threads": True}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch about itself
                torch._inductor.aoti_compile_and_package(exported, package_path=os.fspath(new), inductor_configs=threads)
        except RuntimeError as error:
            raise EcgnatError(f"the network cannot be compiled: {error}") from error
        run = torch._inductor.aoti_load_package(os.fspath(new))
        _check(run(windows), network, windows)
    return keep_manifest(config, checkpoint, "window", device)


def make_onnx(config: ModelConfig) -> Path:
    """Write a network as ONNX, and return where it lies.

    Raises
    ------
    ConfigError
        As :func:`make_package`, and without the libraries.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch.onnx needs it
    except ImportError as error:
        raise ConfigError(f"ONNX needs its libraries ({error}): pip install 'ecgnat-stream[onnx]'") from error
    device = torch.device("cpu")
    checkpoint, network = _loaded(config, device)
    windows, exported = _exported(config, network)
    with _new_file(package_file(config, checkpoint, "window-onnx", device)) as new:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                exported,
                (windows,),
                os.fspath(new),
                input_names=["windows"],
                output_names=["rhythm", "beat", "window", "screen"],
                opset_version=_OPSET,
                external_data=False,
                dynamo=True,
                verbose=False,
            )
        session = onnxruntime.InferenceSession(new, providers=["CPUExecutionProvider"])
        _check([torch.from_numpy(part) for part in session.run(None, {"windows": windows.numpy()})], network, windows)
    return keep_manifest(config, checkpoint, "window-onnx", device)


def _loaded(config: ModelConfig, device: torch.device) -> tuple[Path, Network]:
    checkpoint = find_checkpoint(config.name)
    network, _ = load_checkpoint(checkpoint)
    if not can_be_packed(network):
        raise ConfigError(f"{checkpoint.name} has shapes that differ from window to window: it cannot be prepared ahead of time")
    return checkpoint, fold_batch_norm(network).to(device)


def _exported(config: ModelConfig, network: Network) -> tuple[Tensor, torch.export.ExportedProgram]:
    samples = round(config.window_s * MODEL_FS)
    windows = torch.randn(min(4, config.max_batch), len(LEADS), samples, generator=torch.Generator().manual_seed(0)).to(
        next(network.parameters()).device
    )
    form = WindowForm(network).eval()
    for layer in network.modules():
        if isinstance(layer, NatLayer):
            layer.backend = "blocks"  # one graph for every batch, and for a CPU and CUDA
    with torch.no_grad():
        form(windows)  # what is kept from call to call is made of real numbers, not of those of the export
        batch = torch.export.Dim("batch", min=1, max=config.max_batch) if config.max_batch > 1 else None
        return windows, torch.export.export(form, (windows,), dynamic_shapes=({0: batch} if batch is not None else None,))


@torch.inference_mode()
def _check(said: object, network: Network, windows: Tensor) -> None:
    """Refuse a package that computes something else."""
    assert isinstance(said, list | tuple)
    wanted = WindowForm(network)(windows)
    apart = max((a.float() - b).abs().max().item() for a, b in zip(said, wanted, strict=True))
    if not apart < _TOLERANCE:
        raise EcgnatError(f"what was prepared differs from the network by {apart:.2g}, more than {_TOLERANCE:g}: it is not kept")


@contextmanager
def _new_file(file: Path) -> Iterator[Path]:
    """Give a place to write to; what is whole takes the place of the file."""
    new = file.with_name(f"{file.stem}.{os.getpid()}{file.suffix}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield new
        new.replace(file)
    except OSError as error:
        raise ConfigError(f"cannot keep the package in {file.parent} ({error.strerror}); name a folder: --out") from error
    finally:
        new.unlink(missing_ok=True)
