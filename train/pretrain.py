"""Stage 1: masked-autoencoder pretraining of ECG-NAT or CLEAR over all signals of the training records, without their labels.

    python -m train.pretrain --cache runs/cache --out runs/pretrained --size nano --minutes 30
    python -m train.pretrain --cache runs/cache --out runs/clear --arch clear --attention dense --minutes 30
    torchrun --nproc-per-node 8 -m train.pretrain --cache runs/cache --out runs/pretrained --size tiny --steps 200000

Writes ``OUT/checkpoint`` (the encoder; the heads are untrained), ``OUT/log.jsonl``, ``OUT/tensorboard`` and
``OUT/reconstruction.png``; resumes from ``OUT/last.pt``. On a GPU it computes in bfloat16.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.figure
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgnat_stream.model import EcgNat, ModelCard, build, configured, save_checkpoint
from ecgnat_stream.model.clear import Clear
from ecgnat_stream.model.preprocess import TOKEN, prepare
from ecgnat_stream.model.tokens import R_AT, TOKEN_SAMPLES
from ecgnat_stream.signal import LEADS, MODEL_FS
from train.data.augment import Augment
from train.data.sample import Cache, Unlabelled
from train.fit.loop import World, add_arguments, budget_of, processes, run
from train.fit.mae import MaskedAutoencoder, draw_mask, level_and_spread
from train.fit.masked_beats import MaskedBeats, draw_beat_mask

__all__ = ["Autoencoder", "autoencoder", "plot", "pretrain"]

Autoencoder = MaskedAutoencoder | MaskedBeats

_RATIO = {"ecgnat": 0.75, "clear": 0.8}
"""Share that is masked if none is asked for: docs/models.md."""


def autoencoder(arguments: argparse.Namespace) -> Autoencoder:
    """Return the untrained autoencoder of an architecture.

    Raises
    ------
    ValueError
        For dense attention of anything but CLEAR, masked blocks of CLEAR, and as :func:`~ecgnat_stream.model.configured`.
    """
    if arguments.arch == "clear" and arguments.masking == "blocks":
        raise ValueError("--masking blocks is ECG-NAT's: CLEAR masks beats")
    if arguments.arch == "ecgnat" and arguments.attention != "sparse":
        raise ValueError(f"--attention {arguments.attention} is CLEAR's: leave it out or take --arch clear")
    changes = {"attention": arguments.attention} if arguments.arch == "clear" else {}
    encoder = build(configured(arguments.arch, arguments.size, arguments.causal, **changes))
    ratio = arguments.mask_ratio or _RATIO[arguments.arch]
    if isinstance(encoder, Clear):
        return MaskedBeats(encoder, mask_ratio=ratio)
    assert isinstance(encoder, EcgNat)
    return MaskedAutoencoder(encoder, mask_ratio=ratio)


def pretrain(arguments: argparse.Namespace, world: World) -> Autoencoder:
    """Train and return the averaged autoencoder."""
    budget = budget_of(arguments)
    torch.manual_seed(arguments.seed)
    cache = Cache(arguments.cache)
    module = autoencoder(arguments)
    config, beats = module.encoder.config, module.encoder.needs_beats or arguments.masking == "beats"
    source = Unlabelled(cache, ("train", "holdout"), arguments.length, arguments.batch, Augment(cache.noise), beats)
    unseen = Unlabelled(cache, ("val",), arguments.length, arguments.batch, None, beats)
    unseen.reseed(1)
    validation = [unseen.draw() for _ in range(arguments.validation)]
    trained_on = cache.count(("train", "holdout"))
    out: Path = arguments.out

    def measure(averaged: Autoencoder, epoch: int) -> dict[str, Any]:
        first = {name: tensor.to(world.device) for name, tensor in validation[0].items()}
        plot(averaged, first, out / "reconstruction.png")
        save_checkpoint(out / "checkpoint", averaged.encoder, ModelCard(model=config, trained_on=trained_on))
        return {f"val_{name}": value for name, value in validate(averaged, validation, world.device).items()}

    decayed = [parameter for parameter in module.parameters() if parameter.ndim > 1]
    rest = [parameter for parameter in module.parameters() if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]
    return run(module, groups, source, budget, out, measure, world)


@torch.no_grad()
def validate(module: Autoencoder, batches: list[dict[str, Tensor]], device: torch.device) -> dict[str, float]:
    """Return the mean losses under masks that are the same at every call."""
    sums: dict[str, float] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for batch in batches:
            for name, value in module({key: tensor.to(device) for key, tensor in batch.items()}).items():
                sums[name] = sums.get(name, 0.0) + float(value)
    return {name: round(total / len(batches), 4) for name, total in sums.items()}


class LeadPart(NamedTuple):
    """A part of a lead: places in s, the signal in scaled units, and the reconstruction where it was masked."""

    time: NDArray[np.float64]
    signal: NDArray[np.float32]
    guess: NDArray[np.float32] | None


@torch.no_grad()
def plot(module: Autoencoder, batch: dict[str, Tensor], path: Path, rows: int = 4) -> None:
    """Draw one lead of the first windows: the signal, what was masked (grey), and the reconstruction of it."""
    few = {name: tensor[:rows] for name, tensor in batch.items()}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = _beats(module, few) if isinstance(module, MaskedBeats) else _blocks(module, few)
    figure = matplotlib.figure.Figure(figsize=(14, 2.2 * rows), layout="constrained")
    for row, (lead, pieces) in enumerate(drawn):
        axes = figure.add_subplot(rows, 1, row + 1)
        for piece in pieces:
            axes.plot(piece.time, piece.signal, color="0.2", linewidth=0.8)
            if piece.guess is not None:
                axes.axvspan(piece.time[0], piece.time[-1] + 1 / MODEL_FS, color="0.9", linewidth=0)
                axes.plot(piece.time, piece.guess, color="tab:red", linewidth=1.0)
        axes.set_ylabel(LEADS[lead])
    axes.set_xlabel("s; grey: masked, red: reconstructed shape at the piece's own level and spread")
    figure.savefig(path, dpi=70)


def _blocks(module: MaskedAutoencoder, batch: dict[str, Tensor]) -> list[tuple[int, list[LeadPart]]]:
    """Return the lead of every window that has most samples, cut into blocks."""
    x = prepare(batch["windows"], module.encoder.config.scaling)
    mask = draw_mask(len(x), x.shape[2] // TOKEN, module.mask_ratio, x.device, batch.get("beats"))
    shape, _ = module.reconstruct(x, mask)
    drawn = []
    for row in range(len(x)):
        lead = int(x[row, len(LEADS) : 2 * len(LEADS)].sum(dim=1).argmax())
        blocks = x[row, lead].view(-1, TOKEN)
        level, spread = level_and_spread(blocks, torch.ones_like(blocks))
        guess = shape[row, lead].float().view(-1, TOKEN) * spread + level
        time = np.arange(x.shape[2]).reshape(-1, TOKEN) / MODEL_FS
        parts = zip(time, blocks.cpu().numpy(), guess.cpu().numpy(), mask[row, lead].tolist(), strict=True)
        drawn.append((lead, [LeadPart(at, signal, said if hidden else None) for at, signal, said, hidden in parts]))
    return drawn


def _beats(module: MaskedBeats, batch: dict[str, Tensor]) -> list[tuple[int, list[LeadPart]]]:
    """Return the lead of every window that has most beats, cut into them."""
    x = module.encoder.prepare(batch["windows"], batch["beats"])
    mask = draw_beat_mask(x, module.mask_ratio)
    shape, _ = module.reconstruct(x, mask)
    level, spread = level_and_spread(x.waves, x.valid)
    guess = shape.float() * spread + level
    drawn = []
    for row in range(len(mask)):
        lead = int(x.lead[row].sum(dim=0).argmax())
        pieces = []
        for beat in torch.nonzero(x.lead[row, :, lead] & x.beat[row]).flatten().tolist():
            valid = x.valid[row, beat, lead].cpu().numpy()
            time = float(x.at[row, beat]) + (np.arange(TOKEN_SAMPLES) - R_AT) / MODEL_FS
            said = guess[row, beat, lead].cpu().numpy()[valid] if mask[row, beat, lead] else None
            pieces.append(LeadPart(time[valid], x.waves[row, beat, lead].cpu().numpy()[valid], said))
        drawn.append((lead, pieces))
    return drawn


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="what train.prepare wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of this run")
    parser.add_argument("--arch", default="ecgnat", choices=sorted(_RATIO), help="which encoder")
    parser.add_argument("--size", default="nano", help="one of the architecture's sizes")
    parser.add_argument("--attention", default="sparse", choices=["sparse", "dense"], help="of CLEAR")
    parser.add_argument("--causal", action="store_true", help="the causal form")
    parser.add_argument("--masking", choices=["blocks", "beats"], help="ECG-NAT: blocks if not said; CLEAR: always beats")
    parser.add_argument("--mask-ratio", type=float, default=0.0, help="0: 0.75 of the blocks, 0.8 of the beats")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=1000, help="samples per window, 100 Hz")
    parser.add_argument("--validation", type=int, default=8, help="validation batches")
    add_arguments(parser, minutes=30, lr=1e-3)
    return parser


if __name__ == "__main__":
    with processes() as the_world:
        pretrain(options().parse_args(), the_world)
