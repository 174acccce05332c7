"""How long the model takes on a CPU: attention back ends, batches, eager against compiled, start-up.

    python tests/bench/bench_model.py --threads 2 --out results/model_speed.json

A measurement, no test: read the ratios; the milliseconds belong to one machine and to what else it did.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from ecgnat_stream.model import EcgNat, ModelConfig, Predictor, size
from ecgnat_stream.model.attention import Backend, neighborhood_attention
from ecgnat_stream.signal import Conditioned

STAGES = ((256, 2, 8), (128, 4, 4), (64, 8, 2), (32, 16, 1))
"""Tokens, heads and dilation of nano's stages for a 10 s window; 12 channels per head."""


def milliseconds(call: Callable[[], object], repeats: int) -> dict[str, float]:
    """Return median and 99th percentile of a call's wall time."""
    call()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - began))
    return {"p50_ms": round(float(np.percentile(times, 50)), 2), "p99_ms": round(float(np.percentile(times, 99)), 2)}


def attention(repeats: int) -> dict[str, Any]:
    """Time every back end at every stage, 32 windows, kernel_size 13."""
    backends: tuple[Backend, ...] = ("reference", "masked", "natten")
    rows: dict[str, Any] = {}
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tokens, heads, dilation in STAGES:
            query, key, value = torch.randn(3, 32, tokens, heads, 12).unbind(0)
            rows[f"{tokens} tokens, {heads} heads, dilation {dilation}"] = {
                backend: milliseconds(
                    lambda q=query, k=key, v=value, d=dilation, b=backend: neighborhood_attention(q, k, v, 13, d, False, b),
                    repeats if backend == "masked" else max(repeats // 5, 3),
                )["p50_ms"]
                for backend in backends
            }
    return rows


def batches(config: ModelConfig, repeats: int) -> dict[str, Any]:
    """Start a predictor and time 1, 8 and 32 windows of 10 s, 12 leads."""
    began = time.perf_counter()
    with Predictor(config) as predictor:
        row: dict[str, Any] = {"describe": predictor.describe(), "start_s": round(time.perf_counter() - began, 2)}
        for count in (1, 8, 32):
            windows = Conditioned(0.3 * np.random.default_rng(0).standard_normal((count, 12, 1000)).astype(np.float32), 100)
            row[f"{count} windows"] = milliseconds(lambda x=windows: predictor.predict(x), repeats)
    return row


def networks(repeats: int) -> dict[str, Any]:
    """Time the three sizes, 8 windows."""
    rows: dict[str, Any] = {}
    with torch.inference_mode():
        for name in ("nano", "tiny", "mini"):
            network = EcgNat(size(name)).eval()
            x = torch.randn(8, 25, 1024)
            rows[name] = milliseconds(lambda n=network, y=x: n(y), repeats)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="ecgnat-nano")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--compiled", action="store_true", help="time torch.compile too")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    choices = ("off", "on") if arguments.compiled else ("off",)
    figures: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "threads": arguments.threads,
        "attention_p50_ms": attention(arguments.repeats),
        "sizes_8_windows": networks(max(arguments.repeats // 5, 3)),
    }
    for choice in choices:
        wish = ModelConfig(name=arguments.checkpoint, compile=choice, threads=arguments.threads, max_batch=32)
        figures[f"compile {choice}"] = batches(wish, arguments.repeats)
    text = msgspec.json.format(msgspec.json.encode(figures), indent=2)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_bytes(text + b"\n")
    print(text.decode())
