"""Networks side by side: arms trained alike on parts of the labels of a task, judged once on the test records.

    python -m train.study --cache runs/cache --out runs/study --task ptbxl-super --fractions 0.01,0.1,0.3,1 \\
        --init ecgnat=runs/pretrained/checkpoint --init clear=runs/pretrained-clear/checkpoint

Every run gets the steps that its network makes in the same minutes of one thread (or the same steps, ``--steps``). What a step
costs is measured once per network and kept in ``OUT/<task>.steps``, so that other work on the machine takes nothing from a run,
and a study can be repeated to the last bit or go on elsewhere. A run chooses its epoch by the macro-AUROC on validation records
and is measured once on the test records (:mod:`train.judge.by_task`). One JSON file per run, and beside it what was stated and
said of the test records (``.npz``); a run whose file is there is left out, so that an interrupted study goes on. Runs with all
labels and the first seed are read under noise, with fewer leads and with wrong beats too. With ``--keep`` the networks trained
with all labels are kept beside their files.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from ecgnat_stream.model import ARCHITECTURES, ModelCard, Network, save_checkpoint
from train.compare.arms import ARMS, Arm
from train.compare.probe import fit_probe
from train.data.augment import Augment
from train.data.pack import Cached
from train.data.sample import MIXES, Cache, Sampler
from train.data.tasks import PARTS, TASKS, Task, fraction_of_task
from train.fit.baselines import build
from train.fit.finetuning import Finetuning, load_encoder, parameter_groups
from train.fit.loop import Budget, World, processes, run
from train.judge.by_task import judge, lengths_of, quick_score, read, robustness

__all__ = ["Setting", "study"]

MEMORY = 10
"""Part of a run, as its inverse, over which its averaged weights reach: 1 - MEMORY / steps is their decay."""

LOOKS = 4
"""How often a run looks at the validation records."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all runs of one command have in common."""

    cache: Cache
    task: Task
    arguments: argparse.Namespace
    world: World

    def as_row(self) -> dict[str, Any]:
        """Return what runs of one table must have in common."""
        asked = self.arguments
        minutes, steps = (0, asked.steps) if asked.steps else (asked.minutes, None)
        return {"size": asked.size, "minutes": minutes, "asked_steps": steps, "batch": asked.batch, "lr": asked.lr}


def study(
    setting: Setting, network: Network, name: str, fraction: float, seed: int
) -> tuple[dict[str, Any], Network, tuple[NDArray[np.floating], NDArray[np.floating]]]:
    """Train an arm's network; return its row, the network, and what is stated and said of the test records, each ``(R, C)``."""
    cache, task, device = setting.cache, setting.task, setting.world.device
    of = {part: task.records(cache.records, part) for part in PARTS}
    records = of["train"] if fraction >= 1 else fraction_of_task(task, of["train"], fraction, seed)
    row = {"arm": name, "task": task.name, "fraction": fraction, "seed": seed, "records": len(records), **setting.as_row()}
    row |= {"parameters": sum(parameter.numel() for parameter in network.parameters()), "steps": 0}
    trained: Network
    if ARMS[name].probe:
        trained, row["val"] = fit_probe(network, cache, records, of["val"], task, device)
    else:
        trained, row["steps"], row["val"] = _train(setting, network, name, records, of["val"], seed)
    val_said, said = (read(trained, cache, of[part], task, device) for part in ("val", "test"))
    stated = task.targets(of["test"])
    row |= judge(task, stated, said, task.targets(of["val"]), val_said)
    if fraction == 1 and seed == 0:
        row["robustness"] = robustness(trained, cache, of["test"], task, device)
    return row, trained, (stated, said)


def _train(
    setting: Setting, network: Network, name: str, records: list[Cached], val: list[Cached], seed: int
) -> tuple[Network, int, float | None]:
    """Train; return the network of the best epoch, the steps, and its macro-AUROC on validation records, if they have one."""
    cache, task, arguments = setting.cache, setting.task, setting.arguments
    arm, batch = ARMS[name], arguments.batch
    module = Finetuning(network, arm.contrast, exclusive=task.kind == "exclusive")
    views, beats, augment = 2 if arm.contrast > 0 else 1, network.needs_beats, Augment(cache.noise, beat_errors=arm.beat_errors)
    source = Sampler(cache, records, MIXES["task"], lengths_of(task), batch, augment, views, beats=beats, task=task)
    ledger = arguments.out / f"{task.name}.steps"
    steps = arguments.steps or steps_in(arguments.minutes, f"{arm.trained} {arguments.size} {batch}", module, source, ledger)
    ema = max(1 - MEMORY / steps, 0.0)
    budget = Budget(steps=steps, epoch_steps=max(steps // LOOKS, 1), lr=arguments.lr, ema=ema, seed=seed)
    val_stated = task.targets(val)

    def measure(averaged: Finetuning, epoch: int) -> dict[str, Any]:
        score = quick_score(val_stated, read(averaged.network, cache, val, task, setting.world.device))
        return {"score": score} if np.isfinite(score) else {}

    with tempfile.TemporaryDirectory() as folder:
        out, groups = Path(folder), parameter_groups(module, 0.8 if arm.init else 1.0)
        trained = run(module, groups, source, budget, out, measure, setting.world).network
        log = [msgspec.json.decode(line) for line in (out / "log.jsonl").read_bytes().splitlines()]
    return trained, steps, max((line["score"] for line in log if "score" in line), default=None)


def steps_in(minutes: float, key: str, module: Finetuning, source: Sampler, ledger: Path) -> int:
    """Return how many steps a module makes in so many minutes; what a step costs is read from a file, or measured and added."""
    known: dict[str, float] = msgspec.json.decode(ledger.read_bytes()) if ledger.is_file() else {}
    if key not in known:
        known[key] = round(_step_seconds(copy.deepcopy(module), source), 4)
        ledger.write_bytes(msgspec.json.format(msgspec.json.encode(known), indent=1))
    return max(round(60 * minutes / known[key]), 1)


def _step_seconds(module: Finetuning, source: Sampler) -> float:
    """Return the least processor seconds of drawing a batch, forward and backward, per window length; their mean."""
    optimizer = torch.optim.AdamW(parameter_groups(module, 1.0))
    module.train()
    source.reseed(0)
    costs: dict[int, list[float]] = {}
    for _ in range(6 * len(source.lengths)):
        began = time.process_time()
        batch = source.draw()
        module(batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        costs.setdefault(batch["windows"].shape[2], []).append(time.process_time() - began)
    return float(np.mean([min(some) for some in costs.values()]))


def main(arguments: argparse.Namespace, world: World) -> None:
    """Run what is asked for and not there yet.

    Raises
    ------
    SystemExit
        Before anything is run, for what cannot be run; and at a run that is there with other settings.
    """
    torch.set_num_threads(1)
    task, inits = TASKS[arguments.task], _checked(arguments)
    cache = Cache(arguments.cache)
    arguments.out.mkdir(parents=True, exist_ok=True)
    setting = Setting(cache, task, arguments, world)
    for seed, fraction, name in product(arguments.seeds, arguments.fractions, arguments.arms):
        budget = f"{arguments.steps}steps" if arguments.steps else f"{arguments.minutes:g}min"
        path = arguments.out / f"{task.name}-{budget}-{name.replace(' ', '-')}-{fraction:g}-{seed}.json"
        if path.exists():
            _same(path, setting)
            continue
        began = time.perf_counter()
        arm = ARMS[name]
        torch.manual_seed(seed)
        network = _build(arm, arguments.size, task)
        if arm.init:
            load_encoder(network, inits[arm.init])
        row, trained, (stated, said) = study(setting, network, name, fraction, seed)
        if arguments.keep and fraction == 1 and arm.arch in ARCHITECTURES and not arm.probe:
            save_checkpoint(path.with_suffix(""), trained, ModelCard(model=trained.config))
        names = [f"{record.database}/{record.name}" for record in task.records(cache.records, "test")]
        np.savez_compressed(path.with_suffix(".npz"), records=names, stated=stated.astype(bool), said=said.astype(np.float32))
        path.write_bytes(msgspec.json.encode(row) + b"\n")
        print(row, f"{time.perf_counter() - began:.0f} s", flush=True)


def _build(arm: Arm, size: str, task: Task) -> Network:
    changes: dict[str, Any] = {key: value for key in ("head", "attention", "gap_s") if (value := getattr(arm, key))}
    return build(arm.arch, size, window_classes=task.classes, **changes)


def _checked(arguments: argparse.Namespace) -> dict[str, Path]:
    """Return the pretrained encoders by name; refuse at once what would fail when its turn comes."""
    inits = {name: Path(path) for name, path in arguments.init}
    if min(arguments.minutes, arguments.batch, arguments.lr) <= 0 or arguments.steps < 0:
        raise SystemExit(
            f"want minutes, batch and lr above 0 and steps from 0, got {arguments.minutes=}, {arguments.batch=}, "
            f"{arguments.lr=}, {arguments.steps=}"
        )
    if bad := [fraction for fraction in arguments.fractions if not 0 < fraction <= 1]:
        raise SystemExit(f"--fractions {bad[0]:g}: want parts of the labelled records, above 0 and at most 1")
    for name in arguments.arms:
        if name not in ARMS:
            raise SystemExit(f"unknown arm {name!r}: one of {', '.join(ARMS)}")
        init = ARMS[name].init
        if init and init not in inits:
            raise SystemExit(f"arm {name!r} begins with a pretrained encoder: give --init {init}=CHECKPOINT")
        try:
            network = _build(ARMS[name], arguments.size, TASKS[arguments.task])
            if init:
                load_encoder(network, inits[init])
        except (ValueError, OSError, SafetensorError) as error:
            raise SystemExit(f"arm {name!r}: {error}") from error
    return inits


def _same(path: Path, setting: Setting) -> None:
    """Refuse a run that is there with other settings."""
    row, wanted = msgspec.json.decode(path.read_bytes()), setting.as_row()
    if other := {key: row.get(key) for key, value in wanted.items() if row.get(key) != value}:
        raise SystemExit(f"{path}: made with {other}, now asked for with {wanted}: take another --out, or remove it")


def _pair(text: str) -> tuple[str, str]:
    name, found, path = text.partition("=")
    if not (name and found and path):
        raise argparse.ArgumentTypeError(f"want NAME=CHECKPOINT, got {text!r}")
    return name, path


def _numbers(kind: type[float]) -> Callable[[str], list[Any]]:
    def between_commas(text: str) -> list[Any]:
        try:
            return [kind(part) for part in text.split(",")]
        except ValueError:
            raise argparse.ArgumentTypeError(f"want numbers between commas, got {text!r}") from None

    return between_commas


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="what train.prepare wrote")
    parser.add_argument(
        "--init",
        type=_pair,
        action="append",
        default=[],
        help="NAME=CHECKPOINT, pretrained: ecgnat, ecgnat-beats, clear, clear-dense",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for one JSON file per run")
    parser.add_argument("--size", default="nano", help="nano, tiny, mini, small or paper")
    parser.add_argument("--task", default="cinc2017", choices=sorted(TASKS))
    parser.add_argument("--arms", type=lambda text: text.split(","), default=",".join(ARMS), help="names of ARMS")
    parser.add_argument("--fractions", type=_numbers(float), default="0.01,0.1,0.3,1", help="parts of the labelled records")
    parser.add_argument("--seeds", type=_numbers(int), default="0,1,2", help="one run for each")
    parser.add_argument("--minutes", type=float, default=1.0, help="minutes of steps per run")
    parser.add_argument("--steps", type=int, default=0, help="steps per run, instead of minutes")
    parser.add_argument("--batch", type=int, default=32, help="rows per step at the shortest length, all views counted")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--keep", action="store_true", help="keep the networks trained with all labels")
    return parser


if __name__ == "__main__":
    with processes() as the_world:
        main(options().parse_args(), the_world)
