"""Train ECG-NAT's two heads on what the databases state; one linear program.

    python -m train.rhythm --cache runs/cache --out runs/nano --size nano --minutes 45

Resumes from ``OUT/last.pt`` if it is there. Every epoch it measures the averaged weights on the validation records, appends one
JSON line to ``OUT/log.jsonl`` and rewrites ``OUT/last.pt`` and ``OUT/checkpoint``. The learning rate follows the share of the
time that is used up, so that a slow machine ends its cycle too, with fewer steps.

Shapes: B batch, P token, C class.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.model import EcgNat, ModelCard, save_checkpoint, size
from ecgnat_stream.model.preprocess import prepare
from train.labels import UNSTATED
from train.sample import Augment, Batch, Cache, Sampler

__all__ = ["bag_loss", "learning_rate", "partial_label_loss", "train"]

_BITS = 1 << torch.arange(len(RHYTHMS))


def partial_label_loss(logits: Tensor, sets: Tensor) -> Tensor:
    """Return ``-log(sum of p over the allowed classes)``, mean over the tokens that state something.

    Parameters
    ----------
    logits
        ``(B, P, C)``.
    sets
        ``(B, P)`` bit masks; all bits = nothing stated.
    """
    allowed = (sets.long()[..., None] & _BITS.to(sets.device)) != 0
    log_p = logits.log_softmax(dim=-1).masked_fill(~allowed, float("-inf")).logsumexp(dim=-1)
    stated = sets != UNSTATED
    return -torch.where(stated, log_p, 0.0).sum() / stated.sum().clamp(min=1)


def bag_loss(logits: Tensor, bag: Tensor, tokens: int = 6) -> Tensor:
    """Return ``-log`` of the mean probability of the bag's class over its ``tokens`` likeliest tokens; 0 without bags.

    Six tokens are 1.9 s: five beats of a ventricular tachycardia at 150 bpm, and half of an alarmed asystole.
    """
    rows = torch.nonzero(bag >= 0).squeeze(1)
    if len(rows) == 0:
        return logits.sum() * 0.0
    p = logits[rows].softmax(dim=-1).gather(2, bag[rows, None, None].expand(-1, logits.shape[1], 1)).squeeze(2)
    return -p.topk(tokens, dim=1).values.mean(dim=1).clamp(min=1e-4).log().mean() * len(rows) / len(bag)


def window_loss(logits: Tensor, stated: Tensor) -> Tensor:
    """Return binary cross-entropy over the windows whose diagnoses are stated, weighted by their share."""
    there = torch.isfinite(stated).all(dim=1)
    if not there.any():
        return logits.sum() * 0.0
    return F.binary_cross_entropy_with_logits(logits[there], stated[there]) * there.float().mean()


def learning_rate(progress: float, peak: float) -> float:
    """One cycle: linear rise over the first tenth, cosine fall to a hundredth of the peak."""
    if progress < 0.1:
        return peak * (0.05 + 0.95 * progress / 0.1)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min((progress - 0.1) / 0.9, 1.0))))


def step_loss(network: EcgNat, batch: Batch) -> Tensor:
    """Return the joint loss of one batch."""
    output = network(prepare(torch.from_numpy(batch.windows), network.config.scaling))
    return (
        partial_label_loss(output.rhythm, torch.from_numpy(batch.sets))
        + bag_loss(output.rhythm, torch.from_numpy(batch.bag))
        + window_loss(output.window, torch.from_numpy(batch.window))
    )


@torch.inference_mode()
def validate(network: EcgNat, batches: list[Batch]) -> dict[str, Any]:
    """Return the loss, and recall and precision per class over tokens that state one class."""
    network.eval()
    hits, stated, named = (np.zeros(len(RHYTHMS), int) for _ in range(3))
    losses = []
    for batch in batches:
        logits = network(prepare(torch.from_numpy(batch.windows), network.config.scaling)).rhythm
        losses.append(float(partial_label_loss(logits, torch.from_numpy(batch.sets))))
        guess = logits.argmax(dim=-1).numpy()
        for c in range(len(RHYTHMS)):
            single = np.isin(batch.sets, 1 << np.arange(len(RHYTHMS)))
            true = batch.sets == 1 << c
            hits[c] += int((true & (guess == c)).sum())
            stated[c] += int(true.sum())
            named[c] += int((single & (guess == c)).sum())
    network.train()
    recall = {name: round(float(hits[c] / stated[c]), 3) for c, name in enumerate(RHYTHMS) if stated[c]}
    precision = {name: round(float(hits[c] / named[c]), 3) for c, name in enumerate(RHYTHMS) if named[c]}
    return {"loss": round(float(np.mean(losses)), 4), "recall": recall, "precision": precision}


def train(arguments: argparse.Namespace) -> None:
    """Train until the minutes are used up."""
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    cache = Cache(arguments.cache)
    network = EcgNat(size(arguments.size, arguments.causal))
    classes = len(network.config.window_classes)
    splits = ("train", "holdout") if arguments.holdout else ("train",)
    sampler = Sampler(cache, splits, arguments.length, classes, Augment(cache.noise), arguments.seed)
    held_out = Sampler(cache, ("val",) if arguments.holdout else ("val", "holdout"), 1000, classes, None, 1)
    validation = [held_out.batch(64) for _ in range(arguments.validation)]
    optimizer = torch.optim.AdamW(network.parameters(), lr=arguments.lr, weight_decay=0.05)
    ema = get_ema_multi_avg_fn(arguments.ema)  # type: ignore[no-untyped-call]
    average = AveragedModel(network, multi_avg_fn=ema, use_buffers=True)
    averaged = cast(EcgNat, average.module)
    used_s, epoch = 0.0, 0
    if (out / "last.pt").exists():
        state = torch.load(out / "last.pt", weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        used_s, epoch = state["used_s"], state["epoch"]
        sampler.rng = np.random.default_rng([arguments.seed, epoch])
    trained_on = dict(Counter(record.database for record in sampler.records))
    while used_s < arguments.minutes * 60:
        losses = []
        for _ in range(arguments.steps):
            began = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(used_s / (arguments.minutes * 60), arguments.lr)
            loss = step_loss(network, sampler.batch(arguments.batch))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            average.update_parameters(network)
            losses.append(float(loss.detach()))
            used_s += time.perf_counter() - began
        epoch += 1
        row = {"epoch": epoch, "minutes": round(used_s / 60, 1), "windows": epoch * arguments.steps * arguments.batch}
        row |= {"train_loss": round(float(np.mean(losses)), 4)} | validate(averaged, validation)
        with (out / "log.jsonl").open("ab") as log:
            log.write(msgspec.json.encode(row) + b"\n")
        print(row, flush=True)
        state = {"network": network.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state | {"used_s": used_s, "epoch": epoch}, out / "last.tmp")
        (out / "last.tmp").replace(out / "last.pt")
        save_checkpoint(out / "checkpoint", averaged, ModelCard(model=network.config, trained_on=trained_on))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="what train.prepare wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of this run")
    parser.add_argument("--size", default="nano", help="nano, tiny or mini")
    parser.add_argument("--causal", action="store_true", help="the causal form")
    parser.add_argument("--minutes", type=float, default=45.0, help="training time, without validation")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=1000, help="samples per window, 100 Hz")
    parser.add_argument("--steps", type=int, default=300, help="steps per epoch")
    parser.add_argument("--validation", type=int, default=16, help="validation batches of 64 windows")
    parser.add_argument("--holdout", action="store_true", help="train on the held-out mitdb, vfdb and cudb records too")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--ema", type=float, default=0.998, help="decay of the averaged weights per step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())
