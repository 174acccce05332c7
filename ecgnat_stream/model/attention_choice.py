"""Which attention is the fastest on a device is measured there, layer by layer, for the batches that it will have.

A guess would be wrong half of the time: a fused kernel wins over long sequences, a plain product with a mask over short ones, and
where the border lies depends on device, precision, batch and library.

Shapes: B batch, L tokens, H heads, K head dim.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ecgnat_stream.model.attention import Backend, neighborhood_attention
from ecgnat_stream.model.ecgnat import NatLayer
from ecgnat_stream.model.network import Network

__all__ = ["LayerShape", "candidates", "choose_attention", "layer_shapes", "measure_backends", "seconds_per_call"]

_log = logging.getLogger(__name__)

_CALLS = 10


class LayerShape(NamedTuple):
    """What a layer attends over: ``(B, L, H, K)``, and its neighbourhood."""

    batch: int
    length: int
    heads: int
    head_dim: int
    kernel_size: int
    dilation: int
    is_causal: bool


def candidates(device: torch.device) -> tuple[Backend, ...]:
    """Name the back ends that may be the fastest one on a device."""
    if device.type != "cuda":
        return ("banded", "masked")
    return ("masked", "natten") if find_spec("natten") is not None else ("masked", "flex")


def choose_attention(
    network: Network, x: Any, among: Sequence[Backend] | None = None, dtype: torch.dtype | None = None
) -> dict[LayerShape, Backend]:
    """Give each layer the back end that is the fastest one for a batch ``x`` of :meth:`Network.prepare`, and say which.

    A back end that fails on this device is left out. ``dtype`` is what autocast makes of queries and keys, if it is on.
    """
    shapes = layer_shapes(network, x)
    first = next(network.parameters())
    among = among or candidates(first.device)
    chosen: dict[LayerShape, Backend] = {}
    for layer, shape in shapes:
        if shape not in chosen:
            measured = measure_backends(shape, first.device, dtype or first.dtype, among)
            if not measured:
                continue
            chosen[shape] = min(measured, key=lambda name: measured[name])
        layer.backend = chosen[shape]
    return chosen


@torch.inference_mode()
def layer_shapes(network: Network, x: Any) -> list[tuple[NatLayer, LayerShape]]:
    """Return the layers that attend to neighbourhoods, each with what it attends over for a batch ``x``."""
    shapes: list[tuple[NatLayer, LayerShape]] = []

    def note(layer: Any, given: tuple[Tensor, ...]) -> None:
        batch, length, width = given[0].shape
        heads = layer.num_heads
        shape = LayerShape(batch, length, heads, width // heads, layer.kernel_size, layer.dilation, layer.is_causal)
        shapes.append((layer, shape))

    handles = [module.register_forward_pre_hook(note) for module in network.modules() if isinstance(module, NatLayer)]
    try:
        network.encode(x)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


@torch.inference_mode()
def measure_backends(
    shape: LayerShape, device: torch.device, dtype: torch.dtype, among: Sequence[Backend], calls: int = _CALLS
) -> dict[Backend, float]:
    """Return seconds per call of each back end that works on a device."""
    query, key, value = torch.randn(3, *shape[:4], device=device, dtype=dtype).unbind(0)
    seconds: dict[Backend, float] = {}
    for name in among:
        call = _call(query, key, value, shape, name)
        try:
            seconds[name] = seconds_per_call(call, device, calls)
        except (RuntimeError, ValueError, ImportError) as error:  # of the library, for a shape or a device
            _log.info("attention %s does not work for %s on %s: %s", name, shape, device, error)
    return seconds


def _call(query: Tensor, key: Tensor, value: Tensor, shape: LayerShape, name: Backend) -> Callable[[], Tensor]:
    return lambda: neighborhood_attention(query, key, value, shape.kernel_size, shape.dilation, shape.is_causal, name)


def seconds_per_call(call: Callable[[], object], device: torch.device, calls: int = _CALLS) -> float:
    """Return seconds per call, the best of three series after two calls that do not count."""
    call(), call()
    series = []
    for _ in range(3):
        _settle(device)
        began = time.perf_counter()
        for _ in range(calls):
            call()
        _settle(device)
        series.append((time.perf_counter() - began) / calls)
    return min(series)


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
