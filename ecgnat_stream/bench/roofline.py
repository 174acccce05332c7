"""The roofline: what a piece of work needs at the least on this machine, from its arithmetic and from its memory.

The peaks are measured in the same run and with as many threads: a matrix product, and a copy between arrays that fit into no
cache. Arithmetic is counted while the network runs (:mod:`torch.utils.flop_counter`): matrix products, convolutions and dense
attention; neighborhood attention by its formula, since what runs may multiply more than is needed. What is element-wise is not
counted. Bytes are weights, input, and what every layer writes and the next one reads. See Williams 2009, "Roofline".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ecgnat_stream.bench.report import Peaks, Roof
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.model import EcgNat
from ecgnat_stream.model.attention import fit_kernel

__all__ = ["Work", "attention_work", "device_of", "measured_peaks", "network_work", "roof", "torch_version"]

_SIZE = 1536
_COPY_BYTES = 1 << 27
_TAKE_S, _TAKES = 0.4, 5


@dataclass(frozen=True, slots=True)
class Work:
    """What has to be done: operations (None: not counted) and bytes."""

    flop: float | None
    bytes: float

    def __mul__(self, times: float) -> Work:
        return Work(None if self.flop is None else self.flop * times, self.bytes * times)


def torch_version() -> str:
    """Return the version of torch."""
    return str(torch.__version__)


def device_of(wish: str) -> str:
    """Return the device that a network runs on, as ``[model] device`` wishes: "cpu", or "cuda: " and its name.

    Raises
    ------
    ConfigError
        For CUDA where there is none.
    """
    if wish == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch finds no CUDA device; leave it out, or give cpu")
    return f"cuda: {torch.cuda.get_device_name()}" if wish != "cpu" and torch.cuda.is_available() else "cpu"


def measured_peaks(threads: int, device: str = "cpu") -> Peaks:
    """Measure what so many threads, or the device, reach."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        a, b = torch.randn(2, _SIZE, _SIZE, device=device).unbind(0)
        out = torch.empty_like(a)
        clock = time.perf_counter if device != "cpu" else lambda: time.process_time() / threads
        product_s = _fastest(lambda: torch.mm(a, b, out=out), device, clock)
        source = torch.zeros(_COPY_BYTES // 4, device=device)
        goal = torch.empty_like(source)
        copy_s = _fastest(lambda: goal.copy_(source), device, clock)
    finally:
        torch.set_num_threads(before)
    return Peaks(
        threads=threads, gflop_per_s=round(2 * _SIZE**3 / product_s / 1e9, 1), gb_per_s=round(2 * _COPY_BYTES / copy_s / 1e9, 1)
    )


def _fastest(call: Callable[[], object], device: str, clock: Callable[[], float]) -> float:
    """Return the least time of a call in s: a peak is what is possible, whatever else the machine does."""
    call()
    best, until, taken = float("inf"), time.perf_counter() + _TAKE_S, 0
    while taken < _TAKES or time.perf_counter() < until:
        _wait(device)
        began = clock()
        call()
        _wait(device)
        best, taken = min(best, clock() - began), taken + 1
    return best


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def roof(work: Work, peaks: Peaks, measured_s: float) -> Roof:
    """Hold the time that a piece of work took against the least that it needs."""
    arithmetic = (work.flop or 0.0) / (peaks.gflop_per_s * 1e9)
    memory = work.bytes / (peaks.gb_per_s * 1e9)
    least = max(arithmetic, memory)
    return Roof(
        flop=work.flop,
        bytes=work.bytes,
        fraction=round(least / measured_s, 5) if measured_s > 0 else 0.0,
        bound="arithmetic" if arithmetic >= memory else "memory",
    )


@torch.no_grad()
def network_work(network: nn.Module, *inputs: object, windows: int = 1) -> Work:
    """Count what ``network(*inputs)`` has to do, per window of ``windows``."""
    written, hooks = [0], []
    for module in network.modules():
        if not any(module.children()):
            hooks.append(module.register_forward_hook(lambda _module, _inputs, output: _add(written, output)))
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    counts = {str(operation): flop for operation, flop in counter.get_flop_counts()["Global"].items()}
    flop = float(sum(counts.values()))
    if isinstance(network, EcgNat):
        own = sum(count for name, count in counts.items() if "bmm" in name or "attention" in name)
        flop += windows * _neighbourhoods(network, inputs[0]) - own
    weights = sum(parameter.nbytes for parameter in network.parameters())
    given = sum(tensor.nbytes for tensor in inputs if isinstance(tensor, Tensor))
    return Work(flop / windows, (weights + given + 2 * written[0]) / windows)


def _add(written: list[int], output: object) -> None:
    for part in output if isinstance(output, tuple | list) else (output,):
        if isinstance(part, Tensor):
            written[0] += part.nbytes


def _neighbourhoods(network: EcgNat, prepared: object) -> float:
    """Return the operations of one window's neighborhood attention: query times key, attention times value."""
    assert isinstance(prepared, Tensor)
    config, flop = network.config, 0.0
    for stage, depth in enumerate(config.depths):
        tokens = prepared.shape[-1] // (4 << stage)
        for block in range(depth):
            dilation = config.dilations[stage] if block % 2 else 1
            keys = fit_kernel(tokens, config.kernel_size, dilation)[0]
            flop += 4.0 * tokens * keys * (config.embed_dim << stage)
    return flop


def attention_work(windows: int, tokens: int, heads: int, head_dim: int, keys: int) -> Work:
    """Return what attention with so many keys per token has to do: queries, keys, values in, their mixture out."""
    width = heads * head_dim
    return Work(4.0 * windows * tokens * keys * width, 4.0 * 4 * windows * tokens * width)
