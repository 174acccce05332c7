"""Stage 1: masked-autoencoder pretraining of ECG-NAT over all signals of the training records, without their labels.

    python -m train.pretrain --cache runs/cache --out runs/pretrained --size nano --minutes 30
    torchrun --nproc-per-node 8 -m train.pretrain --cache runs/cache --out runs/pretrained --size tiny --steps 200000

Writes ``OUT/checkpoint`` (the encoder; the heads are untrained), ``OUT/log.jsonl``, ``OUT/tensorboard`` and
``OUT/reconstruction.png``; resumes from ``OUT/last.pt``. On a GPU it computes in bfloat16.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib.figure
import torch
from torch import Tensor

from ecgnat_stream.model import EcgNat, ModelCard, save_checkpoint, size
from ecgnat_stream.model.preprocess import TOKEN, prepare
from ecgnat_stream.signal import LEADS, MODEL_FS
from train.augment import Augment
from train.loop import World, add_arguments, budget_of, processes, run
from train.mae import MaskedAutoencoder, draw_mask
from train.sample import Cache, Unlabelled

__all__ = ["plot", "pretrain"]


def pretrain(arguments: argparse.Namespace, world: World) -> MaskedAutoencoder:
    """Train and return the averaged autoencoder."""
    budget = budget_of(arguments)
    torch.manual_seed(arguments.seed)
    cache = Cache(arguments.cache)
    config = size(arguments.size, arguments.causal)
    module = MaskedAutoencoder(EcgNat(config), mask_ratio=arguments.mask_ratio)
    source = Unlabelled(cache, ("train", "holdout"), arguments.length, arguments.batch, Augment(cache.noise))
    unseen = Unlabelled(cache, ("val",), arguments.length, arguments.batch, None)
    unseen.reseed(1)
    validation = [unseen.draw() for _ in range(arguments.validation)]
    trained_on = cache.count(("train", "holdout"))
    out: Path = arguments.out

    def measure(averaged: MaskedAutoencoder, epoch: int) -> dict[str, Any]:
        plot(averaged, validation[0]["windows"].to(world.device), out / "reconstruction.png")
        save_checkpoint(out / "checkpoint", averaged.encoder, ModelCard(model=config, trained_on=trained_on))
        return {f"val_{name}": value for name, value in validate(averaged, validation, world.device).items()}

    decayed = [parameter for parameter in module.parameters() if parameter.ndim > 1]
    rest = [parameter for parameter in module.parameters() if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]
    return run(module, groups, source, budget, out, measure, world)


@torch.no_grad()
def validate(module: MaskedAutoencoder, batches: list[dict[str, Tensor]], device: torch.device) -> dict[str, float]:
    """Return the mean losses under masks that are the same at every call."""
    sums: dict[str, float] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for batch in batches:
            for name, value in module({key: tensor.to(device) for key, tensor in batch.items()}).items():
                sums[name] = sums.get(name, 0.0) + float(value)
    return {name: round(total / len(batches), 4) for name, total in sums.items()}


@torch.no_grad()
def plot(module: MaskedAutoencoder, windows: Tensor, path: Path, rows: int = 4) -> None:
    """Draw one lead of the first windows: the signal, what was masked (grey), and the reconstruction of it."""
    x = prepare(windows[:rows], module.encoder.config.scaling)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mask = draw_mask(len(x), x.shape[2] // TOKEN, module.mask_ratio, x.device)
    shape, _ = module.reconstruct(x, mask)
    figure = matplotlib.figure.Figure(figsize=(14, 2.2 * rows), layout="constrained")
    for row in range(len(x)):
        axes = figure.add_subplot(rows, 1, row + 1)
        lead = int(x[row, len(LEADS) : 2 * len(LEADS)].sum(dim=1).argmax())
        blocks = x[row, lead].view(-1, TOKEN)
        level, spread = blocks.mean(dim=1, keepdim=True), (blocks.var(dim=1, keepdim=True, unbiased=False) + 0.01).sqrt()
        guess = shape[row, lead].float().view(-1, TOKEN) * spread + level
        hidden = mask[row, lead].bool()
        time = torch.arange(x.shape[2]) / MODEL_FS
        axes.plot(time, x[row, lead].cpu(), color="0.2", linewidth=0.8)
        for block in torch.nonzero(hidden).flatten().tolist():
            at = slice(block * TOKEN, (block + 1) * TOKEN)
            axes.axvspan(block * TOKEN / MODEL_FS, (block + 1) * TOKEN / MODEL_FS, color="0.9", linewidth=0)
            axes.plot(time[at], guess[block].cpu(), color="tab:red", linewidth=1.0)
        axes.set_ylabel(LEADS[lead])
    axes.set_xlabel("s; grey: masked, red: reconstructed shape at the block's own level and spread")
    figure.savefig(path, dpi=70)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="what train.prepare wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of this run")
    parser.add_argument("--size", default="nano", help="nano, tiny or mini")
    parser.add_argument("--causal", action="store_true", help="the causal form")
    parser.add_argument("--mask-ratio", type=float, default=0.75)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=1000, help="samples per window, 100 Hz")
    parser.add_argument("--validation", type=int, default=8, help="validation batches")
    add_arguments(parser, minutes=30, lr=1e-3)
    return parser


if __name__ == "__main__":
    with processes() as the_world:
        pretrain(options().parse_args(), the_world)
