"""What pretraining, the contrastive loss and neighborhood attention bring: arms trained alike on parts of the labels.

    python -m train.study --cache runs/cache --init runs/pretrained/checkpoint --out runs/study --task screen --fractions 0.01,1

Every run gets the same minutes of steps whatever its network costs per step, chooses its epoch on validation records, and is
measured once on the test records: mean F1 of N, A and O on cinc2017 (task "screen"), macro-AUROC of the superclasses on ptbxl
(task "window"). One JSON file per run; a run whose file is there is left out, so that an interrupted study goes on.
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor

from ecgnat_stream.model.preprocess import prepare
from train.augment import Augment
from train.baselines import Network, build
from train.finetune import Finetuning, load_encoder, parameter_groups, validate, validation_batches
from train.labels import UNSTATED
from train.loop import Budget, World, processes, run
from train.prepare import Cached
from train.sample import BEAT_HIDDEN, MIXES, Cache, Sampler, fraction_of
from train.sections import superclasses

__all__ = ["ARMS", "Arm", "study", "task_score"]


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train."""

    arch: str = "ecgnat"
    pretrained: bool = False
    contrast: float = 0.0
    probe: bool = False


ARMS = {
    "pretrained+supcon": Arm(pretrained=True, contrast=0.5),
    "scratch": Arm(),
    "no-contrastive": Arm(pretrained=True),
    "no-pretraining": Arm(contrast=0.5),
    "full-attention": Arm("full"),
    "xresnet1d101": Arm("xresnet1d101"),
    "random-init probe": Arm(probe=True),
    "pretrained probe": Arm(pretrained=True, probe=True),
}
"""The paper's recipe, the same network without any of it, and what lies between; full attention and xresnet1d101 as "scratch"."""

MIX = {"screen": "screen", "window": "diagnosis"}
LENGTHS = {"screen": (1000, 2000), "window": (1000,)}


@torch.no_grad()
def task_score(network: Network, cache: Cache, records: list[Cached], task: str, device: torch.device) -> float:
    """Return the task's figure over whole records: windows end to end, their log-probabilities averaged."""
    network.eval()
    stated = [record for record in records if getattr(record, task) >= 0]
    length = max(LENGTHS[task])
    places = [
        (row, record, start)
        for row, record in enumerate(stated)
        for start in range(0, max(record.length - length, 0) + 1, length)
    ]
    parts = []
    for at in range(0, len(places), 32):
        windows = torch.from_numpy(np.stack([cache.cut(record, start, length)[0] for _, record, start in places[at : at + 32]]))
        tokens = network.encode(prepare(windows.to(device), network.config.scaling))
        logits: Tensor = getattr(network.read(tokens), task).double().cpu()
        parts.append((logits.log_softmax(dim=1) if task == "screen" else logits).numpy())
    said = np.concatenate(parts)
    total = np.zeros((len(stated), said.shape[1]))
    np.add.at(total, [row for row, _, _ in places], said)
    if task == "screen":
        true = np.array([record.screen for record in stated])
        return float(f1_score(true, total.argmax(axis=1), labels=[0, 1, 2], average="macro", zero_division=0.0))
    true = superclasses(stated, said.shape[1])
    some = [c for c in range(true.shape[1]) if 0 < true[:, c].sum() < len(true)]
    return float(np.mean([roc_auc_score(true[:, c], total[:, c]) for c in some]))


def study(
    cache: Cache,
    network: Network,
    arm: Arm,
    task: str,
    fraction: float,
    budget: Budget,
    out: Path,
    world: World,
) -> dict[str, Any]:
    """Train one arm's network and return its row: validation and test figure, records, steps."""
    module = Finetuning(network, arm.contrast, arm.probe)
    labelled = [record for record in cache.records if record.split == "train" and getattr(record, task) >= 0]
    records = fraction_of(labelled, fraction, budget.seed)
    views = 2 if arm.contrast > 0 else 1
    source = _Only(Sampler(cache, records, MIXES[MIX[task]], LENGTHS[task], 32, Augment(cache.noise), views), task)
    batches = [_only(batch, task) for batch in validation_batches(cache, MIX[task], ("val",))]

    def measure(averaged: Finetuning, epoch: int) -> dict[str, Any]:
        return validate(averaged.network, batches, world.device)

    trained = run(module, parameter_groups(module, 0.8 if arm.pretrained else 1.0), source, budget, out, measure, world)
    rows = [msgspec.json.decode(line) for line in (out / "log.jsonl").read_bytes().splitlines()]
    test = [record for record in cache.records if record.split == "test"]
    return {
        "records": len(records),
        "steps": rows[-1]["step"],
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "val": max((row["score"] for row in rows if "score" in row), default=None),
        "test": round(task_score(trained.network, cache, test, task, world.device), 4),
    }


class _Only:
    """Batches that state nothing but the task, so that every network learns from the same statements."""

    def __init__(self, sampler: Sampler, task: str) -> None:
        self.sampler, self.task = sampler, task
        self.reseed = sampler.reseed

    def draw(self) -> dict[str, Tensor]:
        return _only(self.sampler.draw(), self.task)


def _only(batch: dict[str, Tensor], task: str) -> dict[str, Tensor]:
    batch["sets"].fill_(UNSTATED)
    batch["beat"].fill_(BEAT_HIDDEN)
    if task == "screen":
        batch["window"].fill_(torch.nan)
    else:
        batch["screen"].fill_(-1)
    return batch


def main(arguments: argparse.Namespace, world: World) -> None:
    """Run what is asked for and not there yet."""
    torch.set_num_threads(1)
    cache = Cache(arguments.cache)
    arguments.out.mkdir(parents=True, exist_ok=True)
    wanted = product(range(arguments.seeds), arguments.fractions.split(","), arguments.arms.split(","))
    for seed, fraction, name in wanted:
        path = arguments.out / f"{arguments.task}-{name.replace(' ', '-')}-{fraction}-{seed}.json"
        if path.exists():
            continue
        began = time.perf_counter()
        arm = ARMS[name]
        torch.manual_seed(seed)
        network = build(arm.arch, arguments.size)
        if arm.pretrained:
            load_encoder(network, arguments.init)
        budget = Budget(minutes=arguments.minutes, epoch_steps=arguments.epoch_steps, ema=0.98, seed=seed)
        out = arguments.out / path.stem
        row = {"arm": name, "task": arguments.task, "fraction": float(fraction), "seed": seed, "minutes": arguments.minutes}
        row |= study(cache, network, arm, arguments.task, float(fraction), budget, out, world)
        path.write_bytes(msgspec.json.encode(row) + b"\n")
        shutil.rmtree(out)
        print(row, f"{time.perf_counter() - began:.0f} s", flush=True)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="what train.prepare wrote")
    parser.add_argument("--init", type=Path, required=True, help="pretrained checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="folder for one JSON file per run")
    parser.add_argument("--size", default="nano", help="nano, tiny or mini")
    parser.add_argument("--task", default="screen", choices=sorted(MIX))
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--fractions", default="0.01,0.1,1", help="parts of the labelled records")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=2.0, help="minutes of steps per run")
    parser.add_argument("--epoch-steps", type=int, default=60, help="steps between two looks at the validation records")
    return parser


if __name__ == "__main__":
    with processes() as the_world:
        main(options().parse_args(), the_world)
