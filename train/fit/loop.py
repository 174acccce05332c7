"""One training run, the same for pretraining and fine-tuning: schedule, averaged weights, log, resume, several processes.

A program gives a module whose ``forward(batch)`` returns named losses with their sum under "loss", parameter groups, a source of
batches, and what to measure after an epoch. The rest is here. Budgets are steps or minutes: steps make a run repeatable to the
last bit on one machine (same seed, same loss), minutes make runs of different networks equally dear. On a CPU minutes are those
of the processor, so that other work on the machine takes nothing away.

``OUT/last.pt`` is rewritten after every epoch and a run that finds it goes on from there; ``OUT/log.jsonl`` holds one line per
epoch, ``OUT/tensorboard`` the same for TensorBoard.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torch.utils.tensorboard import SummaryWriter

__all__ = ["Budget", "Source", "World", "add_arguments", "budget_of", "learning_rate", "processes", "run"]

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Budget:
    """How long and how a run trains.

    Parameters
    ----------
    minutes, steps
        Exactly one is above 0: the length of the run, in minutes of steps or in optimiser steps.
    epoch_steps
        Steps between two measurements.
    lr
        Peak learning rate of a group whose ``scale`` is 1.
    ema
        Decay of the averaged weights per step.
    patience
        Epochs without a better ``score`` before the run ends early; 0 = never.
    workers
        Processes that draw batches beside the training; 0 draws them in between.
    """

    minutes: float = 0.0
    steps: int = 0
    epoch_steps: int = 300
    lr: float = 1e-3
    weight_decay: float = 0.05
    ema: float = 0.998
    patience: int = 0
    workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a budget of no or two lengths."""
        if (self.minutes > 0) == (self.steps > 0):
            raise ValueError(f"want minutes or steps, one of them above 0, got {self.minutes=}, {self.steps=}")

    def progress(self, used_s: float, step: int) -> float:
        """Return the share of the budget that is used up."""
        return step / self.steps if self.steps else used_s / (self.minutes * 60)


@dataclass(frozen=True, slots=True)
class World:
    """This process among those that torchrun started."""

    device: torch.device
    rank: int = 0
    size: int = 1


class Source(Protocol):
    """Draws batches; ``reseed`` makes what follows depend on these numbers alone."""

    def reseed(self, *seed: int) -> None:
        """Begin a new sequence of draws."""
        ...

    def draw(self) -> dict[str, Tensor]:
        """Return one batch as named tensors, rows first."""
        ...


def add_arguments(parser: argparse.ArgumentParser, minutes: float, lr: float) -> None:
    """Add the options that :func:`budget_of` reads."""
    parser.add_argument("--minutes", type=float, default=minutes, help="budget in minutes of steps")
    parser.add_argument("--steps", type=int, default=0, help="budget in steps, instead of minutes: repeatable")
    parser.add_argument("--epoch-steps", type=int, default=300, help="steps between two measurements")
    parser.add_argument("--lr", type=float, default=lr, help="peak learning rate")
    parser.add_argument("--ema", type=float, default=0.998, help="decay of the averaged weights per step")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw batches")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch on a CPU")
    parser.add_argument("--seed", type=int, default=0)


def budget_of(arguments: argparse.Namespace, patience: int = 0) -> Budget:
    """Return the budget that the options of :func:`add_arguments` state."""
    torch.set_num_threads(arguments.threads)
    return Budget(
        minutes=0.0 if arguments.steps else arguments.minutes,
        steps=arguments.steps,
        epoch_steps=arguments.epoch_steps,
        lr=arguments.lr,
        ema=arguments.ema,
        patience=patience,
        workers=arguments.workers,
        seed=arguments.seed,
    )


@contextmanager
def processes() -> Iterator[World]:
    """Join the processes that torchrun started; alone, take the GPU if there is one."""
    cuda = torch.cuda.is_available()
    if "WORLD_SIZE" not in os.environ:
        yield World(torch.device("cuda" if cuda else "cpu"))
        return
    torch.distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
        yield World(device, torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        torch.distributed.destroy_process_group()


def learning_rate(progress: float, peak: float) -> float:
    """One cycle: linear rise over the first tenth, cosine fall to a hundredth of the peak."""
    if progress < 0.1:
        return peak * (0.05 + 0.95 * progress / 0.1)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min((progress - 0.1) / 0.9, 1.0))))


def run(
    module: M,
    groups: list[dict[str, Any]],
    source: Source,
    budget: Budget,
    out: Path,
    measure: Callable[[M, int], dict[str, Any]],
    world: World,
) -> M:
    """Train until the budget is used up and return the averaged module.

    Parameters
    ----------
    groups
        AdamW parameter groups; ``scale`` multiplies the learning rate.
    measure
        Called by the first process with the averaged module and the number of the epoch; what it returns goes to the log. Its
        "score", if there is one, is better the higher it is: ``OUT/best.pt`` keeps the weights that had the highest, and they are
        what is returned.

    Raises
    ------
    ValueError
        If several processes share a budget in minutes: they could not agree on its end.
    FloatingPointError
        If the loss stops being a number.
    """
    if world.size > 1 and not budget.steps:
        raise ValueError(f"{world.size} processes need a budget in steps (--steps), not in minutes")
    out.mkdir(parents=True, exist_ok=True)
    module.to(world.device)
    trainer = _Trainer(module, groups, budget, world)
    if (out / "last.pt").exists():
        trainer.restore(torch.load(out / "last.pt", weights_only=True, map_location=world.device))
    state = trainer.state
    averaged = cast(M, trainer.average.module)
    writer = SummaryWriter(str(out / "tensorboard")) if world.rank == 0 else None
    while budget.progress(state["used_s"], state["step"]) < 1 and not (budget.patience and state["stale"] >= budget.patience):
        losses = trainer.epoch(source)
        if writer is not None:
            row = {"epoch": state["epoch"], "step": state["step"], "minutes": round(state["used_s"] / 60, 2)}
            row |= {f"train_{name}": round(value, 4) for name, value in losses.items()}
            averaged.eval()
            row |= measure(averaged, state["epoch"])
            state["stale"] += 1
            if row.get("score", -math.inf) > state["best"]:
                state["best"], state["stale"] = row["score"], 0
                _save(out / "best.pt", averaged.state_dict())
            _write(out / "log.jsonl", row, writer)
            _save(out / "last.pt", trainer.saved())
        if world.size > 1:
            stale = torch.tensor([state["stale"]], device=world.device)
            torch.distributed.broadcast(stale, 0)
            state["stale"] = int(stale)
    if writer is not None:
        writer.close()
    if (out / "best.pt").exists():
        averaged.load_state_dict(torch.load(out / "best.pt", weights_only=True, map_location=world.device))
    return averaged.eval()


class _Trainer:
    """Module, average and optimizer, and where the run stands."""

    def __init__(self, module: nn.Module, groups: list[dict[str, Any]], budget: Budget, world: World) -> None:
        self.module, self.budget, self.world = module, budget, world
        ema = get_ema_multi_avg_fn(budget.ema)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(module, multi_avg_fn=ema, use_buffers=True)
        self.optimizer = torch.optim.AdamW(groups, lr=budget.lr, weight_decay=budget.weight_decay)
        self.state: dict[str, Any] = {"used_s": 0.0, "step": 0, "epoch": 0, "best": -math.inf, "stale": 0}
        self._wrapped = DistributedDataParallel(module, find_unused_parameters=True) if world.size > 1 else module
        self._clock = time.process_time if world.device.type == "cpu" else time.perf_counter

    def saved(self) -> dict[str, Any]:
        """Return everything that :meth:`restore` needs."""
        parts: dict[str, Any] = {"module": self.module, "average": self.average, "optimizer": self.optimizer}
        return self.state | {name: part.state_dict() for name, part in parts.items()}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from what :meth:`saved` returned."""
        self.module.load_state_dict(saved.pop("module"))
        self.average.load_state_dict(saved.pop("average"))
        self.optimizer.load_state_dict(saved.pop("optimizer"))
        self.state.update(saved)

    def epoch(self, source: Source) -> dict[str, float]:
        """Train for an epoch, or until the budget is used up, and return the mean losses."""
        state, budget = self.state, self.budget
        self.module.train()
        torch.manual_seed(hash((budget.seed, state["epoch"], self.world.rank)) & 0x7FFFFFFF)
        sums: dict[str, float] = {}
        steps = 0
        began = self._clock()
        for batch in _batches(source, budget, state["epoch"], self.world):
            progress = budget.progress(state["used_s"] + self._clock() - began, state["step"])
            if progress >= 1:
                break
            for name, value in self._step(batch, progress).items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            state["step"] += 1
            steps += 1
        state["used_s"] += self._clock() - began
        state["epoch"] += 1
        return {name: total / steps for name, total in sums.items()}

    def _step(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(progress, self.budget.lr) * group.get("scale", 1.0)
        device = self.world.device
        placed = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
        with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
            losses: dict[str, Tensor] = self._wrapped(placed)
        if not torch.isfinite(losses["loss"]):
            raise FloatingPointError(f"the loss is {float(losses['loss'].detach())} in step {self.state['step']}: lower --lr")
        self.optimizer.zero_grad()
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        self.average.update_parameters(self.module)
        return losses


class _Drawn(IterableDataset[dict[str, Tensor]]):
    """One epoch of batches; every worker draws its own part from its own seed."""

    def __init__(self, source: Source, steps: int, seed: tuple[int, ...]) -> None:
        self.source, self.steps, self.seed = source, steps, seed

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        self.source.reseed(*self.seed, worker)
        for _ in range(worker, self.steps, workers):
            yield self.source.draw()


def _batches(source: Source, budget: Budget, epoch: int, world: World) -> DataLoader[dict[str, Tensor]]:
    drawn = _Drawn(source, budget.epoch_steps, (budget.seed, epoch, world.rank))
    return DataLoader(drawn, batch_size=None, num_workers=budget.workers, pin_memory=world.device.type == "cuda")


def _save(path: Path, content: dict[str, Any]) -> None:
    """Write so that an interruption leaves the old file."""
    torch.save(content, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def _write(path: Path, row: dict[str, Any], writer: SummaryWriter) -> None:
    with path.open("ab") as log:
        log.write(msgspec.json.encode(row) + b"\n")
    print(row, flush=True)
    for name, value in row.items():
        if isinstance(value, int | float) and np.isfinite(value):
            writer.add_scalar(name, value, row["step"])
