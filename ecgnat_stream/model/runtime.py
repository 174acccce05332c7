"""What computes the network's logits: eager torch, a graph compiled at start-up, a package compiled before, or onnxruntime.

:func:`choose_runtime` takes what the configuration wishes and what is there, and says why. A package is preferred where one fits.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.model.config import ModelConfig
from ecgnat_stream.model.network import Network, NetworkOutput
from ecgnat_stream.model.package import Kind, can_be_packed, find_package, load_package
from ecgnat_stream.model.preprocess import TOKEN
from ecgnat_stream.model.streaming import StepNetwork
from ecgnat_stream.model.tokens import BeatTokens

__all__ = ["Runtime", "StepRun", "WindowRun", "choose_runtime", "choose_step_runtime", "compiler", "eager", "import_onnxruntime"]

WindowRun = Callable[[Tensor, Tensor | None], tuple[NetworkOutput, Tensor | None]]
"""Windows ``(B, 12, T)`` and R peaks ``(B, N)`` or None to logits, and to ``(B,)`` whether a row was read without beats, None for
a network that does not read beats."""

StepRun = Callable[..., tuple[Tensor, ...]]
"""What :class:`~ecgnat_stream.model.streaming.StepNetwork` takes, gives and changes."""

_Run = TypeVar("_Run", WindowRun, StepRun)


@dataclass(frozen=True, slots=True)
class Runtime(Generic[_Run]):
    """How windows or steps are answered.

    Parameters
    ----------
    name, why
        What runs ("eager", "compiled", "package", "onnx"), and the reason.
    fixed
        Whether only batches of sizes that were run before are fast: others compile.
    run
        What answers: a :data:`WindowRun` or a :data:`StepRun`.
    """

    name: str
    why: str
    fixed: bool
    run: _Run


def choose_runtime(config: ModelConfig, checkpoint: Path, network: Network, device: torch.device) -> Runtime[WindowRun]:
    """Choose how a network in eval mode, already on its device, reads windows.

    Raises
    ------
    ConfigError
        If ``runtime = "onnx"`` was asked for, and is not there.
    """
    if config.runtime == "onnx":
        if not can_be_packed(network):
            raise ConfigError("model.runtime = 'onnx' does not go with a network that reads heartbeats: use 'torch'")
        why, session = _session(config, checkpoint, "window-onnx")
        return Runtime("onnx", why, False, _of_windows(lambda windows: session({"windows": windows})))
    why_not = ""
    if config.compile != "off" and can_be_packed(network):
        package, said = find_package(config, checkpoint, "window", device)
        if package is not None:
            run = load_package(package)
            return Runtime("package", said, False, _of_windows(run))
        why_not = f"; {said}"
    compiled, why = _choose_compile(config.compile, device, network.static)
    call = torch.compile(network, dynamic=False) if compiled else network
    return Runtime("compiled" if compiled else "eager", why + why_not, compiled, _of_network(network, call))


def choose_step_runtime(config: ModelConfig, checkpoint: Path, step: StepNetwork, device: torch.device) -> Runtime[StepRun]:
    """Choose how a causal network, already on its device, goes token by token.

    Packages are for a CPU: on CUDA the step is captured in graphs.

    Raises
    ------
    ConfigError
        As :func:`choose_runtime`.
    """
    if config.runtime == "onnx":
        why, session = _session(config, checkpoint, "step-onnx")
        return Runtime("onnx", why, False, _of_session(step, session))
    why_not = ""
    if config.compile != "off" and device.type == "cpu":
        package, said = find_package(config, checkpoint, "step", device)
        if package is not None:
            call = load_package(package)
            return Runtime("package", said, False, _of_look(step, call))
        why_not = f"; {said}"
    compiled, why = _choose_compile(config.compile, device, True)
    run = torch.compile(step, dynamic=False) if compiled else step
    return Runtime("compiled" if compiled else "eager", why + why_not, compiled, run)


def eager(network: Network, why: str) -> Runtime[WindowRun]:
    """Return the network over windows as it is."""
    return Runtime("eager", why, False, _of_network(network, network))


def _of_look(step: StepNetwork, call: Callable[..., Any]) -> StepRun:
    heads = 4 if step.statements else 2

    def run(samples: Tensor, rows: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        if samples.shape[2] != TOKEN:  # a recording: torch takes several tokens at once
            said: tuple[Tensor, ...] = step(samples, rows, *state)
            return said
        found = call(samples, rows, state)
        step.keep(1, rows, found[heads:], *state)
        return tuple(found[:heads])

    return run


def _of_session(step: StepNetwork, call: Callable[[dict[str, Tensor]], list[Tensor]]) -> StepRun:
    names = list(step.shapes())

    def run(samples: Tensor, rows: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        said = []
        for at in range(0, samples.shape[2], TOKEN):
            before = {name: kept[rows] for name, kept in zip(names, state, strict=True)}
            given = {name: kept if name == "taken" else kept.float() for name, kept in before.items()}
            found = call({"samples": samples[..., at : at + TOKEN], **given})
            for kept, after in zip(state, found[-len(state) :], strict=True):
                kept[rows] = after.to(kept.dtype)
            said.append(found[: -len(state)])
        return tuple(torch.cat(parts, dim=1) for parts in zip(*said, strict=True))

    return run


def _of_network(network: Network, call: Callable[[Any], NetworkOutput]) -> WindowRun:
    def run(windows: Tensor, peaks: Tensor | None) -> tuple[NetworkOutput, Tensor | None]:
        x = network.prepare(windows, peaks)
        output = call(x)
        return output, (x.fixed | ~x.beat).all(dim=1) if isinstance(x, BeatTokens) else None

    return run


def _of_windows(call: Callable[[Tensor], Any]) -> WindowRun:
    return lambda windows, _: (NetworkOutput(*call(windows)), None)


def _session(config: ModelConfig, checkpoint: Path, kind: Kind) -> tuple[str, Callable[[dict[str, Tensor]], list[Tensor]]]:
    """Return what runs, and the file in onnxruntime, from named tensors to tensors."""
    try:
        onnxruntime = import_onnxruntime()
    except ImportError as error:
        raise ConfigError(f"model.runtime = 'onnx' needs onnxruntime ({error}): pip install 'ecgnat-stream[onnx]'") from error
    if config.device == "cuda":
        raise ConfigError("model.runtime = 'onnx' runs on a CPU here: set model.device = 'cpu', or model.runtime = 'torch'")
    file, said = find_package(config, checkpoint, kind, torch.device("cpu"))
    if file is None:
        raise ConfigError(f"model.runtime = 'onnx': {said.replace('ecgnat compile', 'ecgnat compile --onnx')}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config.threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def call(given: dict[str, Tensor]) -> list[Tensor]:
        return [torch.from_numpy(part) for part in session.run(None, {name: part.numpy() for name, part in given.items()})]

    return f"onnxruntime {onnxruntime.__version__}", call


def import_onnxruntime() -> ModuleType:
    """Return onnxruntime, told beforehand to report nothing to its maker: its own builds do, and give the machine a number.

    Raises
    ------
    ImportError
        Where it is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    module: ModuleType = onnxruntime
    return module


def compiler() -> str | None:
    """Return the C++ compiler that torch would take."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    return next((path for name in names if (path := shutil.which(name))), None)


def _choose_compile(wish: str, device: torch.device, static: bool) -> tuple[bool, str]:
    """Decide whether to compile at start-up, and say why."""
    if wish == "off":
        return False, "compile = off"
    if not static:
        return False, "shapes differ from window to window"
    if wish == "auto" and device.type == "cpu":
        return False, "compile = auto does not compile at a start on a CPU"
    if compiler() is None:
        return False, "no C++ compiler found"
    return True, f"compile = {wish}"
