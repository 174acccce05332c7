"""Measure what networks cost: parameters, multiplications per 10 s, and the time of one window.

    python -m train.cost --json results/cost.json

All architectures and sizes side by side, untrained, on one thread, as :mod:`train.judge.cost` counts; "find_beats_ms" is what
networks that read heartbeats need besides, outside of a monitor, which has the beats already.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec
import torch

from ecgnat_stream.beats import find_beats
from ecgnat_stream.model import ARCHITECTURES, Network
from train.fit.baselines import build
from train.judge.cost import RUNS, count_macs, example_window, timed

__all__ = ["compare"]


def compare(wanted: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the costs of untrained networks, (architecture, size) each, and of finding the beats; one thread of a CPU."""
    torch.set_num_threads(1)
    window, beats = (torch.from_numpy(array) for array in example_window())
    costs: dict[str, Any] = {}
    for arch, size in wanted:
        network = build(arch, size).eval()

        def predict(network: Network = network) -> None:
            with torch.inference_mode():
                network(network.prepare(window, beats))

        p50, p99 = timed(predict)
        costs[f"{arch} {size}"] = {
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "gmac_per_10_s": round(count_macs(network) / 1e9, 4),
            "window_ms_p50": p50,
            "window_ms_p99": p99,
        }
    p50, p99 = timed(lambda: find_beats(window.numpy()))
    return {"networks": costs, "find_beats_ms": {"window_ms_p50": p50, "window_ms_p99": p99}, "runs": RUNS}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    arguments = parser.parse_args()
    pairs = [(arch, size) for arch, sizes in ARCHITECTURES.items() for size in sizes]
    found = compare([*pairs, ("xresnet1d101", "nano")])
    arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    for name, row in found["networks"].items():
        print(name, row)
