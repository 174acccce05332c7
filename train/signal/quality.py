"""Fit the weights of the quality stage: two small networks on one hidden layer, for right detection and for noise.

    python -m train.signal.quality --data ROOT --out ecgnat_stream/weights/quality.json

Which lead-frames of the training records, and how much each counts, is decided here; what they are is in
:mod:`train.signal.quality_pieces`. What the result is worth measures ``tests/bench/bench_quality.py``.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from ecgnat_stream.quality import FEATURES, QualityWeights
from train.signal.quality_frames import Frames, everything

__all__ = ["Samples", "fit", "reliability", "samples"]

HIDDEN = 12
FOR_THE_HEART = 0.6  # taken off the log-odds of noise: a heart called noise is worse than noise called a heart
HEART = {"vfdb VFIB": 4, "vfdb VF": 4, "vfdb VFL": 4, "cudb VF": 6, "cinc2015 Ventricular_Flutter_Fib": 4, "vfdb ASYS": 5}
HEART |= {"cinc2015 Asystole": 5, "vfdb VT": 4, "cinc2015 Ventricular_Tachycardia": 8, "cinc2015 Tachycardia": 4}
HEART |= {"mitdb AFIB": 3, "mitdb AFL": 4, "mitdb B": 3, "mitdb N": 3}
NOISE = {"bw alone": 1.5, "em alone": 3, "ma alone": 2, "white alone": 1.5, "band noise": 3, "vfdb NOISE": 0.7, "cinc2017 ~": 0.7}
"""What is a heart and what is noise in the fit, and how much each counts; other groups count 1, as hearts."""


class Samples(NamedTuple):
    """Lead-frames for the fit: features, right or not (-1 unknown), noise or not, weight, record."""

    x: NDArray[np.float32]
    right: NDArray[np.int8]
    noise: NDArray[np.bool_]
    weight: NDArray[np.float64]
    record: NDArray[np.str_]


def samples(groups: dict[str, Frames], most: int = 6000) -> Samples:
    """Return some lead-frames of every group. What is mixed is noise where it made the detection fail."""
    rng, parts = np.random.default_rng(0), []
    for group, frames in groups.items():
        leads = frames.sqi.shape[1]
        x, verdict = frames.measured.reshape(-1, len(FEATURES)), frames.right.reshape(-1)
        mix = group.startswith("simulated ") or (group.endswith("dB") and not group.endswith(("24 dB", "18 dB")))
        take = (
            np.flatnonzero(verdict >= 0) if mix or group.endswith("dB") or group in ("clean", "simulated") else np.arange(len(x))
        )
        take = rng.permutation(take)[: 4 * most if group == "clean" else most]
        noise = verdict[take] == 0 if mix else np.full(len(take), group in NOISE)
        share = NOISE.get(group, HEART.get(group, 1.0)) * min(1.0, len(take) / 600)
        weight = np.full(len(take), share / max(len(take), 1))
        parts.append(Samples(x[take], verdict[take], noise, weight, np.repeat(frames.record, leads)[take]))
    return Samples(*map(np.concatenate, zip(*parts, strict=True)))


def fit(data: Samples) -> QualityWeights:
    """Fit the two networks on their common hidden layer: noise with the groups' weights, half of all on either side."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    mean, spread = data.x.mean(axis=0, dtype=float), data.x.std(axis=0, dtype=float)
    x = torch.tensor(np.clip((data.x - mean) / spread, -3.5, 3.5), dtype=torch.float32)
    weight = data.weight.copy()
    weight[data.noise] *= weight[~data.noise].sum() / weight[data.noise].sum()
    noise_weight = torch.tensor(weight / weight.mean(), dtype=torch.float32)
    right_weight = torch.tensor(data.right >= 0, dtype=torch.float32)
    target = torch.tensor(np.column_stack([data.right == 1, data.noise]), dtype=torch.float32)
    weights = torch.stack([right_weight / right_weight.mean(), noise_weight], dim=1)
    hidden, out = torch.nn.Linear(x.shape[1], HIDDEN), torch.nn.Linear(HIDDEN, 2)
    network = torch.nn.Sequential(hidden, torch.nn.Tanh(), out)
    epochs, batch = 12, 1024
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02, weight_decay=3e-4)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, epochs)
    for _ in range(epochs):
        for part in torch.split(torch.randperm(len(x)), batch):
            optimizer.zero_grad()
            losses = torch.nn.functional.binary_cross_entropy_with_logits(network(x[part]), target[part], weights[part])
            losses.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()

    def numbers(values: Any) -> Any:
        return np.round(np.asarray(values, float), 4).tolist()

    state = {
        "mean": numbers(mean), "spread": numbers(spread), "hidden": numbers(hidden.weight.detach()),
        "bias": numbers(hidden.bias.detach()), "right": numbers(out.weight[0].detach()), "noise": numbers(out.weight[1].detach()),
        "right_offset": numbers(out.bias[0].detach()), "noise_offset": numbers(out.bias[1].detach() - FOR_THE_HEART),
    }  # fmt: skip
    return msgspec.convert({"features": FEATURES} | state, QualityWeights)


def reliability(index: NDArray[np.floating], truth: NDArray[np.integer]) -> dict[str, Any]:
    """Return the table of ten steps of the index, expected calibration error and Brier score (and that of a constant)."""
    step = np.minimum((10 * index).astype(int), 9)
    rows = [(k, int((step == k).sum()), index[step == k].mean(), truth[step == k].mean()) for k in range(10) if (step == k).any()]
    return {
        "table": [{"from": k / 10, "frames": n, "index": round(float(p), 3), "right": round(float(r), 3)} for k, n, p, r in rows],
        "ece": round(float(sum(n * abs(p - r) for _, n, p, r in rows) / len(index)), 4),
        "brier": round(float(np.square(index - truth).mean()), 4),
        "brier_of_a_constant": round(float(truth.mean() * (1 - truth.mean())), 4),
    }


def main() -> None:
    """Fit on the training records and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default_root = os.environ.get("ECGNAT_DATA")
    parser.add_argument("--data", type=Path, default=default_root, required=default_root is None, help="one folder per database")
    parser.add_argument("--out", type=Path, required=True, help="where the weights go, as quality.json")
    arguments = parser.parse_args()
    weights = fit(samples(everything(arguments.data, "train", True)))
    arguments.out.write_bytes(msgspec.json.format(msgspec.json.encode(weights), indent=1) + b"\n")


if __name__ == "__main__":
    main()
