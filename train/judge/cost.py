"""What a network costs: parameters, multiplications per 10 s, and the time of one window.

Linear maps, convolutions and attention are counted while they run, for a heart at 75 bpm; neighborhood attention by its formula
(every token has ``kernel_size`` keys), because the masked form that runs on a CPU multiplies with every token and throws most of
it away. ``python -m train.cost`` measures all architectures side by side.

Shapes: P token, E width.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ecgnat_stream.model import EcgNat, Network, Predictor, load_checkpoint
from ecgnat_stream.model.attention import fit_kernel
from ecgnat_stream.signal import LEADS, MODEL_FS, Conditioned

__all__ = ["RUNS", "count_macs", "example_window", "measure", "timed"]

_SECONDS, RUNS = 10, 30
_RR = 80
_COUNTED = ("aten.convolution", "aten.addmm", "aten.mm")


@torch.no_grad()
def count_macs(network: Network, seconds: float = _SECONDS) -> int:
    """Return the multiply-accumulate operations for one window of twelve leads; element-wise ones are left out."""
    length = round(seconds * MODEL_FS)
    x = network.prepare(torch.zeros(1, len(LEADS), length), torch.arange(_RR / 2, length, _RR)[None])
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(x)
    counts = counter.get_flop_counts()["Global"]
    of_attention = () if isinstance(network, EcgNat) else ("aten.bmm", "aten.baddbmm")
    macs = sum(flops for op, flops in counts.items() if str(op) in (*_COUNTED, *of_attention)) // 2
    return int(macs) + (_neighbourhood_macs(network, x.shape[2]) if isinstance(network, EcgNat) else 0)


def _neighbourhood_macs(network: EcgNat, length: int) -> int:
    config, macs = network.config, 0
    for stage, depth in enumerate(config.depths):
        tokens = length // (4 << stage)
        for block in range(depth):
            keys = fit_kernel(tokens, config.kernel_size, config.dilations[stage] if block % 2 else 1)[0]
            macs += 2 * tokens * keys * (config.embed_dim << stage)  # query times key, attention times value
    return macs


def measure(predictor: Predictor) -> dict[str, Any]:
    """Return parameters, GMAC per 10 s and ms per window of 10 s through the whole Predictor, on its device and threads."""
    window, beats = example_window()
    p50, p99 = timed(lambda: predictor.predict(Conditioned(window, MODEL_FS), beats))
    return {
        "parameters": predictor.parameters,
        "gmac_per_10_s": round(count_macs(load_checkpoint(predictor.path)[0]) / 1e9, 4),
        "window_ms_p50": p50,
        "window_ms_p99": p99,
        "runs": RUNS,
        "device": predictor.device.type,
        "threads": predictor.config.threads,
    }


def example_window() -> tuple[np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.float32]]]:
    """Return a window of noise with a spike every 0.8 s, and where."""
    window = np.random.default_rng(0).normal(0, 0.05, (1, len(LEADS), _SECONDS * MODEL_FS)).astype(np.float32)
    beats = np.arange(_RR / 2, window.shape[2], _RR, dtype=np.float32)[None]
    window[..., beats.astype(int)] += 1.0
    return window, beats


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return the median and the 99th percentile of the time of a call, ms, after one that does not count."""
    call()
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - began))
    p50, p99 = np.quantile(times, [0.5, 0.99])
    return round(float(p50), 2), round(float(p99), 2)
