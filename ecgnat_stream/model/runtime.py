"""What computes the network's logits: eager torch, a graph compiled at start-up, a package compiled before, or onnxruntime.

:func:`choose_runtime` takes what the configuration wishes and what is there, and says why. A package is preferred where one fits.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.model.config import ModelConfig
from ecgnat_stream.model.network import Network, NetworkOutput
from ecgnat_stream.model.package import can_be_packed, find_package
from ecgnat_stream.model.tokens import BeatTokens

__all__ = ["Runtime", "choose_runtime", "compiler"]

_Run = Callable[[Tensor, Tensor | None], tuple[NetworkOutput, Tensor | None]]


@dataclass(frozen=True, slots=True)
class Runtime:
    """How windows are answered.

    Parameters
    ----------
    name, why
        What runs ("eager", "compiled", "package", "onnx"), and the reason.
    fixed
        Whether only batches of sizes that were run before are fast: others compile.
    run
        Windows ``(B, 12, T)`` and R peaks ``(B, N)`` or None to logits, and to ``(B,)`` whether a row was read without beats,
        None for a network that does not read beats.
    """

    name: str
    why: str
    fixed: bool
    run: _Run


def choose_runtime(config: ModelConfig, checkpoint: Path, network: Network, device: torch.device) -> Runtime:
    """Choose how a network in eval mode, already on its device, is run.

    Raises
    ------
    ConfigError
        If ``runtime = "onnx"`` was asked for, and is not there.
    """
    if config.runtime == "onnx":
        return _onnx(config, checkpoint, network)
    why_not = ""
    if config.compile != "off" and can_be_packed(network):
        package, said = find_package(config, checkpoint, "window", device)
        if package is not None:
            run = torch._inductor.aoti_load_package(os.fspath(package))
            return Runtime("package", said, False, _of_windows(run))
        why_not = f"; {said}"
    compiled, why = _choose_compile(config.compile, device, network.static)
    call = torch.compile(network, dynamic=False) if compiled else network
    return Runtime("compiled" if compiled else "eager", why + why_not, compiled, _of_network(network, call))


def _of_network(network: Network, call: Callable[[Any], NetworkOutput]) -> _Run:
    def run(windows: Tensor, peaks: Tensor | None) -> tuple[NetworkOutput, Tensor | None]:
        x = network.prepare(windows, peaks)
        output = call(x)
        return output, (x.fixed | ~x.beat).all(dim=1) if isinstance(x, BeatTokens) else None

    return run


def _of_windows(call: Callable[[Tensor], Any]) -> _Run:
    return lambda windows, _: (NetworkOutput(*call(windows)), None)


def _onnx(config: ModelConfig, checkpoint: Path, network: Network) -> Runtime:
    if not can_be_packed(network):
        raise ConfigError("model.runtime = 'onnx' does not go with a network that reads heartbeats: use 'torch'")
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(f"model.runtime = 'onnx' needs onnxruntime ({error}): pip install 'ecgnat-stream[onnx]'") from error
    if config.device == "cuda":
        raise ConfigError("model.runtime = 'onnx' runs on a CPU here: set model.device = 'cpu', or model.runtime = 'torch'")
    file, said = find_package(config, checkpoint, "window-onnx", torch.device("cpu"))
    if file is None:
        raise ConfigError(f"model.runtime = 'onnx': {said.replace('ecgnat compile', 'ecgnat compile --onnx')}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config.threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def call(windows: Tensor) -> list[Tensor]:
        return [torch.from_numpy(part) for part in session.run(None, {"windows": windows.numpy()})]

    return Runtime("onnx", f"onnxruntime {onnxruntime.__version__}", False, _of_windows(call))


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
