"""Stage 2: fine-tune all heads on one backbone with supervised contrastive and classification losses.

    python -m train.finetune --cache runs/cache --out runs/nano --init runs/pretrained/checkpoint --minutes 60
    python -m train.finetune --cache runs/cache --out runs/probe --init runs/pretrained/checkpoint --probe --mix screen

``loss = contrast * SupCon + (1 - contrast) * (cross-entropies of what each database states)``, after arXiv 2605.13194. The
learning rate falls by ``--layer-decay`` from the heads to the stem; ``--probe`` freezes the encoder; with ``--teacher`` the
answers of another network are learned beside what is stated (:mod:`train.fit.teacher`). Writes ``OUT/checkpoint``,
``OUT/log.jsonl``, ``OUT/tensorboard``; resumes from ``OUT/last.pt``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor

from ecgnat_stream.codes import BEATS, RHYTHMS
from ecgnat_stream.model import ARCHITECTURES, ModelCard, Network, save_checkpoint
from ecgnat_stream.model.catalogue import Head
from train.data.augment import Augment
from train.data.pack import Cached
from train.data.sample import BEAT_HIDDEN, BEAT_OTHER, MIXES, Cache, Sampler, as_batch, batch_row, fraction_of
from train.fit.baselines import TRAINED, build
from train.fit.finetuning import Finetuning, load_encoder, parameter_groups
from train.fit.loop import World, add_arguments, budget_of, processes, run
from train.fit.teacher import Teacher

__all__ = ["finetune", "validate"]

TAUGHT: dict[str, tuple[Head, ...]] = {
    "screen": ("screen",),
    "diagnosis": ("window",),
    "task": ("window",),
}
"""Heads that a mix teaches, where it does not teach all: the card names them, and the monitor asks for rhythm."""


@torch.no_grad()
def validate(network: Network, batches: list[dict[str, Tensor]], device: torch.device) -> dict[str, float]:
    """Return what the validation windows say about every head; a head about which they state nothing is left out.

    "screen": mean F1 of N, A and O; "window": macro-AUROC; "rhythm": mean recall over the classes; "beat": F1 of V; and "score",
    their mean.
    """
    rows: dict[str, list[Tensor]] = {}
    for batch in batches:
        placed = {name: batch[name].to(device) for name in ("windows", "beats") if name in batch}
        output = network(network.prepare(placed["windows"], placed.get("beats")))
        for name in ("screen", "window", "sets", "beat"):
            rows.setdefault(name, []).append(batch[name].flatten() if name in ("sets", "beat") else batch[name])
        for name in ("screen", "window"):
            rows.setdefault(f"said {name}", []).append(getattr(output, name).float().cpu())
        rows.setdefault("said sets", []).append(output.rhythm.argmax(dim=-1).flatten().cpu())
        rows.setdefault("said beat", []).append(output.beat.flatten(0, 1).float().cpu())
    if not rows:
        return {}
    said = {name: torch.cat(parts).numpy() for name, parts in rows.items()}
    figures: dict[str, float] = {}
    there = said["screen"] >= 0
    if there.any():
        figures["screen"] = _f1(said["screen"][there], said["said screen"][there].argmax(axis=1), [0, 1, 2])
    there = np.isfinite(said["window"]).all(axis=1)
    if there.any():
        stated, guess = said["window"][there], said["said window"][there]
        some = np.flatnonzero((stated.sum(axis=0) > 0) & (stated.sum(axis=0) < len(stated)))
        if len(some):
            figures["window"] = float(np.mean([roc_auc_score(stated[:, c], guess[:, c]) for c in some]))
    if len(said["said sets"]):
        recalls = [
            (said["said sets"][said["sets"] == 1 << c] == c).mean() for c in range(len(RHYTHMS)) if (said["sets"] == 1 << c).any()
        ]
        if recalls:
            figures["rhythm"] = float(np.mean(recalls))
        there = (said["beat"] >= -1) & (said["beat"] != BEAT_OTHER)
        if (said["beat"] >= 0).any():
            beats = np.where(said["said beat"][:, 0] > 0, said["said beat"][:, 2:].argmax(axis=1), -1)
            figures["beat"] = _f1(said["beat"][there], beats[there], [BEATS.index("V")])
    if figures:
        figures["score"] = float(np.mean(list(figures.values())))
    return {name: round(value, 4) for name, value in figures.items()}


def _f1(true: NDArray[np.int64], said: NDArray[np.int64], classes: list[int]) -> float:
    return float(f1_score(true, said, labels=classes, average="macro", zero_division=0.0))


def validation_batches(cache: Cache, mix: str, splits: tuple[str, ...], beats: bool = False) -> list[dict[str, Tensor]]:
    """Return windows of validation records, unchanged, the same at every call: the middle of every stated record, and draws."""
    records = [record for record in cache.records if record.split in splits]
    batches = []
    for kind, length in (("screen", 2000), ("diagnosis", 1000)):
        stated = [record for record in records if (record.screen if kind == "screen" else record.window) >= 0]
        if stated and mix in (kind, "monitor"):
            for at in range(0, len(stated), 64):
                batches.append(_middles(cache, stated[at : at + 64], length, beats))
    if mix == "monitor":
        kinds = {kind: share for kind, share in MIXES["monitor"].items() if kind in RHYTHMS or kind.startswith("beat")}
        sampler = Sampler(cache, records, kinds, (1000,), 64, beats=beats)
        sampler.reseed(1)
        batches += [sampler.draw() for _ in range(12)]
        for batch in batches[-12:]:
            batch["screen"].fill_(-1)
            batch["window"].fill_(float("nan"))
    return batches


def _middles(cache: Cache, records: list[Cached], length: int, beats: bool) -> dict[str, Tensor]:
    rows = [batch_row(record, cache.window(record, max((record.length - length) // 2, 0), length), -1) for record in records]
    batch = as_batch(rows, beats)
    batch["beat"].fill_(BEAT_HIDDEN)
    return batch


def finetune(arguments: argparse.Namespace, world: World) -> Finetuning:
    """Train and return the averaged module, of its best epoch where the run may end early."""
    budget = budget_of(arguments, arguments.patience)
    torch.manual_seed(arguments.seed)
    cache = Cache(arguments.cache)
    network = build(arguments.arch, arguments.size, arguments.causal)
    beats = network.needs_beats
    if not 0 <= arguments.beat_errors <= (1 if beats else 0):
        raise ValueError(
            f"--beat-errors {arguments.beat_errors:g}: want a part of the windows, 0 to 1, and 0 for networks that are given no "
            f"R peaks (all but beatnet and clear)"
        )
    if arguments.init is not None:
        load_encoder(network, arguments.init, arguments.heads)
    teacher = _teacher(arguments, beats)
    module = Finetuning(network, arguments.contrast, arguments.probe, teacher=teacher)
    splits = ("train", "holdout") if arguments.holdout else ("train",)
    records = [record for record in cache.records if record.split in splits]
    if arguments.fraction < 1:
        records = fraction_of([r for r in records if r.screen >= 0 or r.window >= 0], arguments.fraction, arguments.seed)
    lengths = tuple(int(length) for length in arguments.lengths.split(","))
    views = 2 if arguments.contrast > 0 else 1
    augment = Augment(cache.noise, beat_errors=arguments.beat_errors)
    source = Sampler(cache, records, MIXES[arguments.mix], lengths, arguments.batch, augment, views, beats=beats)
    batches = validation_batches(cache, arguments.mix, ("val",) if arguments.holdout else ("val", "holdout"), beats)
    # A baseline is measured where it is trained, and has no place in a monitor.
    card = None
    if arguments.arch in ARCHITECTURES:
        card = ModelCard(model=network.config, trained_on=cache.count(splits))
        card = msgspec.structs.replace(card, heads=TAUGHT.get(arguments.mix, card.heads))

    def measure(averaged: Finetuning, epoch: int) -> dict[str, Any]:
        figures = validate(averaged.network, batches, world.device)
        if card is not None:
            save_checkpoint(arguments.out / "checkpoint", averaged.network, card)
        if not arguments.patience and "score" in figures:
            figures["val"] = figures.pop("score")  # not a score to choose an epoch by: the last one counts
        return figures

    trained = run(module, parameter_groups(module, arguments.layer_decay), source, budget, arguments.out, measure, world)
    if world.rank == 0 and card is not None:
        save_checkpoint(arguments.out / "checkpoint", trained.network, card)
    return trained


def _teacher(arguments: argparse.Namespace, beats: bool) -> Teacher | None:
    """Return the network of ``--teacher``.

    Raises
    ------
    ValueError
        If the network that learns has other tokens, or not all heads.
    """
    if arguments.teacher is None:
        return None
    if beats or arguments.arch == "xresnet1d101" or arguments.mix != "monitor":
        raise ValueError(f"--teacher: it teaches ecgnat or full all heads (--mix monitor), not {arguments.arch} {arguments.mix}")
    return Teacher(arguments.teacher)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="what train.prepare wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of this run")
    parser.add_argument("--init", type=Path, help="checkpoint whose encoder to begin with")
    parser.add_argument("--heads", action="store_true", help="take the heads of --init too")
    parser.add_argument("--teacher", type=Path, help="checkpoint whose answers to learn from beside what is stated")
    parser.add_argument("--arch", default="ecgnat", choices=TRAINED, help="network; full and xresnet1d101 are baselines")
    parser.add_argument("--size", default="nano", help="size of the network: nano, tiny, mini, small or paper")
    parser.add_argument("--causal", action="store_true", help="the causal form")
    parser.add_argument("--mix", default="monitor", choices=sorted(MIXES), help="what to learn")
    parser.add_argument("--contrast", type=float, default=0.5, help="weight of the contrastive loss")
    parser.add_argument("--layer-decay", type=float, default=1.0, help="factor of the learning rate per level below the heads")
    parser.add_argument("--probe", action="store_true", help="freeze the encoder")
    parser.add_argument("--fraction", type=float, default=1.0, help="part of the labelled records")
    parser.add_argument("--holdout", action="store_true", help="train on the held-out mitdb, vfdb and cudb records too")
    parser.add_argument(
        "--beat-errors", type=float, default=0.0, help="part of the windows whose R peaks get a detector's errors"
    )
    parser.add_argument("--batch", type=int, default=32, help="rows per step at the shortest length, all views counted")
    parser.add_argument("--lengths", default="1000,2000", help="samples per window, 100 Hz; every step takes one of them")
    parser.add_argument("--patience", type=int, default=0, help="end after so many epochs without a better validation score")
    add_arguments(parser, minutes=60, lr=1e-3)
    return parser


if __name__ == "__main__":
    with processes() as the_world:
        finetune(options().parse_args(), the_world)
