"""Networks prepared ahead of time, so that no start compiles: machine code by AOTInductor, or a file for onnxruntime.

In: a checkpoint. Out: a package (:mod:`ecgnat_stream.model.package`), kept only if it computes what the network computes. Of a
causal network it is the step, of others the network over windows, as ``[model] mode`` says.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ecgnat_stream.errors import ConfigError, EcgnatError
from ecgnat_stream.model.catalogue import find_checkpoint, reading_mode
from ecgnat_stream.model.checkpoint import load_checkpoint
from ecgnat_stream.model.config import ModelConfig
from ecgnat_stream.model.ecgnat import EcgNat, NatLayer
from ecgnat_stream.model.network import Network
from ecgnat_stream.model.package import (
    Kind,
    can_be_packed,
    find_package,
    keep_manifest,
    load_package,
    made_for,
    package_file,
)
from ecgnat_stream.model.predict import choose_device, fold_batch_norm, limit_threads
from ecgnat_stream.model.preprocess import TOKEN
from ecgnat_stream.model.runtime import compiler, import_onnxruntime
from ecgnat_stream.model.streaming import StepNetwork, StreamingEcgNat
from ecgnat_stream.signal import LEADS, MODEL_FS

__all__ = ["LookForm", "StepForm", "WindowForm", "make_onnx", "make_package"]

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


class LookForm(nn.Module):
    """A step that changes nothing: samples, rows and what is remembered, to logits and what is to be remembered.

    Written outside, in place: a compiled graph would copy what is remembered of all beds.
    """

    def __init__(self, step: StepNetwork) -> None:
        super().__init__()
        self.step = step

    def forward(self, samples: Tensor, rows: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return what :meth:`~ecgnat_stream.model.streaming.StepNetwork.look` returns, in one row."""
        said, new = self.step.look(samples, rows, *state)
        return (*said, *new)


class StepForm(nn.Module):
    """A step for other programs: samples and what is remembered of B beds ``(B, ...)``, to logits and to the same afterwards."""

    def __init__(self, step: StepNetwork) -> None:
        super().__init__()
        self.step = step

    def forward(self, samples: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the logits and the state after the step."""
        after = tuple(part.clone() for part in state)
        rows = torch.arange(samples.shape[0], device=samples.device)
        return (*self.step(samples, rows, *after), *after)


@dataclass(frozen=True, slots=True)
class _Form:
    """A network as it is prepared: what is exported, with which inputs, what they are called, and what grows with the batch."""

    form: Literal["window", "step"]
    module: nn.Module
    inputs: tuple[Any, ...]
    growing: tuple[Any, ...] | None
    names: tuple[list[str], list[str]]

    def exported(self) -> torch.export.ExportedProgram:
        self.module.eval()
        with torch.no_grad():
            self.module(*self.inputs)  # what is kept from call to call is made of real numbers, not of those of the export
            return torch.export.export(self.module, self.inputs, dynamic_shapes=self.growing)


def make_package(config: ModelConfig) -> Path:
    """Compile a network for this machine, unless a package fits already; return where it lies.

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
    form = _formed(config, network, onnx=False)
    if form.form == "step" and device.type == "cuda":
        raise ConfigError("a network that goes token by token is compiled ahead for a CPU only; on CUDA its steps are captured")
    package, _ = find_package(config, checkpoint, form.form, device)
    if package is not None:
        return package
    made, file = made_for(config, checkpoint, form.form, device), package_file(config, checkpoint, form.form, device)
    exported = form.exported()
    with _new_file(file) as new:
        threads = {"cpp.threads": config.threads} if config.threads else {"cpp.dynamic_threads": True}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch about itself
                torch._inductor.aoti_compile_and_package(exported, package_path=os.fspath(new), inductor_configs=threads)
        except RuntimeError as error:
            raise EcgnatError(f"the network cannot be compiled: {error}") from error
        _check(load_package(new)(*form.inputs), form)
    return keep_manifest(file, made)


def make_onnx(config: ModelConfig) -> Path:
    """Write a network as ONNX, and return where it lies.

    Raises
    ------
    ConfigError
        As :func:`make_package`, and without the libraries.
    """
    try:
        onnxruntime = import_onnxruntime()
        import onnxscript  # noqa: F401 - torch.onnx needs it
    except ImportError as error:
        raise ConfigError(f"ONNX needs its libraries ({error}): pip install 'ecgnat-stream[onnx]'") from error
    device = torch.device("cpu")
    checkpoint, network = _loaded(config, device)
    form = _formed(config, network, onnx=True)
    kind: Kind = f"{form.form}-onnx"  # type: ignore[assignment]
    made, file = made_for(config, checkpoint, kind, device), package_file(config, checkpoint, kind, device)
    exported = form.exported()
    with _new_file(file) as new:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                exported,
                form.inputs,
                os.fspath(new),
                input_names=form.names[0],
                output_names=form.names[1],
                opset_version=_OPSET,
                external_data=False,
                dynamo=True,
                verbose=False,
            )
        session = onnxruntime.InferenceSession(new, providers=["CPUExecutionProvider"])
        given = dict(zip(form.names[0], (part.numpy() for part in pytree.tree_leaves(form.inputs)), strict=True))
        _check([torch.from_numpy(part) for part in session.run(None, given)], form)
    return keep_manifest(file, made)


def _loaded(config: ModelConfig, device: torch.device) -> tuple[Path, Network]:
    checkpoint = find_checkpoint(config.name)
    network, _ = load_checkpoint(checkpoint)
    if not can_be_packed(network):
        raise ConfigError(f"{checkpoint.name} has shapes that differ from window to window: it cannot be prepared ahead of time")
    return checkpoint, fold_batch_norm(network).to(device)


def _formed(config: ModelConfig, network: Network, *, onnx: bool) -> _Form:
    most = config.max_batch
    count = min(4, most)
    device = next(network.parameters()).device
    batch = {0: torch.export.Dim("batch", min=1, max=most)} if most > 1 else None
    drawn = torch.Generator().manual_seed(0)
    if reading_mode(config) == "stream":
        assert isinstance(network, EcgNat)  # others that stream have shapes that differ
        step = StepNetwork(network)
        state = _past(step, count + 2, config.past if not onnx else "float32", drawn)
        samples = torch.randn(count, len(LEADS), TOKEN, generator=drawn).to(device)
        if onnx:
            names = list(step.shapes())
            after = [f"{name}.after" for name in names]
            own = tuple(part[1 : count + 1] for part in state)
            return _Form(
                "step", StepForm(step), (samples, own), (batch, (batch,) * len(own)),
                (["samples", *names], ["rhythm", "beat", *after]),
            )  # fmt: skip
        beds = {0: torch.export.Dim("beds", min=2)}
        rows = torch.arange(1, count + 1, device=device)
        return _Form("step", LookForm(step), (samples, rows, state), (batch, batch, (beds,) * len(state)), ([], []))
    for layer in network.modules():
        if isinstance(layer, NatLayer):
            layer.backend = "blocks"  # one graph for every batch, and for a CPU and CUDA
    windows = torch.randn(count, len(LEADS), round(config.window_s * MODEL_FS), generator=drawn).to(device)
    return _Form("window", WindowForm(network), (windows,), (batch,), (["windows"], ["rhythm", "beat", "window", "screen"]))


def _past(step: StepNetwork, beds: int, kept: str, drawn: torch.Generator) -> tuple[Tensor, ...]:
    """Return what is remembered of beds of which each has taken one token more than the one before."""
    stream = StreamingEcgNat(step, beds, kept=torch.float16 if kept == "float16" else torch.float32)
    for first in range(beds):
        stream.step(torch.arange(first, beds), torch.randn(beds - first, len(LEADS), TOKEN, generator=drawn))
    return tuple(part.clone() for part in stream.state)


@torch.inference_mode()
def _check(said: object, form: _Form) -> None:
    """Refuse a package that computes something else."""
    assert isinstance(said, list | tuple)
    wanted: Sequence[Tensor] = form.module(*form.inputs)
    apart = max((a.float() - b.float()).abs().max().item() for a, b in zip(said, wanted, strict=True))
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
