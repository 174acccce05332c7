"""Turn a finished run into a shipped checkpoint: calibrate on the validation records, write weights and configuration.

    python -m train.ship --cache runs/cache --run runs/nano --name ecgnat-nano

One temperature is fitted to the validation records, read evenly in time. Biases per class were tried and left out: the few
validation records state no SVT and no asystole, so that they would only learn which classes those records lack (train/LOG.md).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from ecgnat_stream.model import EcgNat, load_checkpoint, save_checkpoint
from ecgnat_stream.model.checkpoint import WEIGHTS, Calibration
from ecgnat_stream.model.preprocess import TOKEN, prepare
from ecgnat_stream.signal import MODEL_FS
from train.labels import token_sets
from train.rhythm import partial_label_loss
from train.sample import Cache

__all__ = ["calibrate", "held_out_logits"]

WINDOW, HOP, BATCH = 10 * MODEL_FS, 5 * MODEL_FS, 64


@torch.no_grad()
def held_out_logits(network: EcgNat, cache: Cache, splits: tuple[str, ...] = ("val",)) -> tuple[Tensor, Tensor]:
    """Return logits ``(B, P, C)`` and sets ``(B, P)`` of the validation records, a window every 5 s."""
    places = [
        (record, start)
        for record in cache.records
        if record.split in splits and record.database != "cinc2015"
        for start in range(0, max(record.length - WINDOW, 0) + 1, HOP)
    ]
    logits, sets = [], []
    for at in range(0, len(places), BATCH):
        cuts = [cache.cut(record, start, WINDOW) for record, start in places[at : at + BATCH]]
        windows = torch.from_numpy(np.stack([window for window, _ in cuts]))
        logits.append(network(prepare(windows, network.config.scaling)).rhythm)
        sets.append(torch.from_numpy(token_sets(np.stack([stated for _, stated in cuts]), TOKEN)))
    return torch.cat(logits), torch.cat(sets)


def calibrate(logits: Tensor, sets: Tensor) -> Calibration:
    """Fit the temperature by maximum likelihood of the partial labels (Guo 2017). It changes no decision, only its certainty."""
    log_temperature = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=60)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = partial_label_loss(logits / log_temperature.exp(), sets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return Calibration(temperature=round(float(log_temperature.detach().exp()), 4))


def run_log(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log."""
    return [msgspec.json.decode(line) for line in (run / "log.jsonl").read_bytes().splitlines()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="what train.prepare wrote")
    parser.add_argument("--run", type=Path, required=True, help="what train.rhythm wrote")
    parser.add_argument("--name", default="ecgnat-nano", help="folder under ecgnat_stream/weights")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    the_network, card = load_checkpoint(arguments.run / "checkpoint")
    calibration = calibrate(*held_out_logits(the_network, Cache(arguments.cache)))
    last = run_log(arguments.run)[-1]
    training = {key: last[key] for key in ("epoch", "minutes", "windows", "train_loss")}
    validation = {key: last[key] for key in ("loss", "recall", "precision")}
    card = msgspec.structs.replace(card, calibration=calibration, metrics={"training": training, "validation": validation})
    target = WEIGHTS / arguments.name
    save_checkpoint(target, the_network, card)
    print(f"{target}: {calibration}")
