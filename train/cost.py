"""What the network costs: parameters, multiplications per 10 s, and the time of one window.

Linear maps and convolutions are counted while they run; neighborhood attention by its formula (every token has ``kernel_size``
keys), because the masked form that runs on a CPU multiplies with every token and throws most of it away.

Shapes: P token, E width.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ecgnat_stream.model import EcgNat, Predictor, load_checkpoint
from ecgnat_stream.model.attention import fit_kernel
from ecgnat_stream.model.preprocess import prepare
from ecgnat_stream.signal import LEADS, MODEL_FS

__all__ = ["count_macs", "measure"]

_SECONDS, _RUNS = 10, 30
_COUNTED = ("aten.convolution", "aten.addmm", "aten.mm")


@torch.no_grad()
def count_macs(network: EcgNat, seconds: float = _SECONDS) -> int:
    """Return the multiply-accumulate operations for one window of twelve leads; element-wise ones are left out."""
    x = prepare(torch.zeros(1, len(LEADS), round(seconds * MODEL_FS)), network.config.scaling)
    with FlopCounterMode(display=False) as counter:
        network(x)
    counts = counter.get_flop_counts()["Global"]
    macs = sum(flops for op, flops in counts.items() if str(op) in _COUNTED) // 2
    config = network.config
    for stage, depth in enumerate(config.depths):
        tokens = x.shape[2] // (4 << stage)
        for block in range(depth):
            keys = fit_kernel(tokens, config.kernel_size, config.dilations[stage] if block % 2 else 1)[0]
            macs += 2 * tokens * keys * (config.embed_dim << stage)  # query times key, attention times value
    return int(macs)


def measure(predictor: Predictor) -> dict[str, Any]:
    """Return parameters, GMAC per 10 s and ms per window of 10 s through the whole Predictor, on its device and threads."""
    window = np.random.default_rng(0).normal(0, 0.2, (1, len(LEADS), _SECONDS * MODEL_FS)).astype(np.float32)
    predictor.predict(window)
    times = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        predictor.predict(window)
        times.append(1000 * (time.perf_counter() - began))
    p50, p99 = np.quantile(times, [0.5, 0.99])
    return {
        "parameters": predictor.parameters,
        "gmac_per_10_s": round(count_macs(load_checkpoint(predictor.path)[0]) / 1e9, 4),
        "window_ms_p50": round(float(p50), 2),
        "window_ms_p99": round(float(p99), 2),
        "runs": _RUNS,
        "device": predictor.device.type,
        "threads": predictor.config.threads,
    }
