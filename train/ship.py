"""Calibrate a finished run on the validation records and write it as a checkpoint with its model card.

    python -m train.ship --cache runs/cache --run runs/nano --name ecgnat-nano --text card.md

Fitted are one temperature per head by maximum likelihood (Guo 2017, arXiv 1706.04599), the thresholds of diagnoses and beats by
F1, and the threshold of VF as the lowest that keeps its specificity. Biases per class were tried for the rhythm head and left
out: the few validation records state no SVT and no asystole, so that they would only learn which classes those records lack
(train/LOG.md). The model card is what a person wrote, ``--text``.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from ecgnat_stream.beats import find_beats
from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.model import ModelCard, ModelConfig, Network, Predictor, load_checkpoint, save_checkpoint
from ecgnat_stream.model.checkpoint import Calibration
from ecgnat_stream.model.preprocess import TOKEN
from ecgnat_stream.signal import MODEL_FS
from ecgnat_stream.weights import place, record_sums
from train.data.labels import token_sets
from train.data.pack import Cached
from train.data.sample import Cache
from train.fit.losses import partial_label_loss
from train.judge.metrics import best_thresholds, shockable_windows
from train.judge.reading import Reader
from train.judge.score import CELL, cell_sets
from train.judge.sections import judged_beats, superclasses

__all__ = ["calibrate", "fit_temperature", "vf_threshold"]

WINDOW, HOP, BATCH = 10 * MODEL_FS, 5 * MODEL_FS, 64
SPECIFICITY = 0.985
"""Of 4 s windows that are not VF: the goal for shockable rhythms is 0.95 (AHA 1997), ours is stricter."""

BEAT_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)


def fit_temperature(loss: Callable[[float], Tensor]) -> float:
    """Return the temperature between 0.05 and 20 that minimises ``loss(temperature)``. It changes no decision."""
    bounds = (math.log(0.05), math.log(20.0))
    found = minimize_scalar(lambda log: float(loss(math.exp(log))), bounds=bounds, method="bounded")
    return round(math.exp(found.x), 4)


@torch.no_grad()
def rhythm_logits(network: Network, cache: Cache, records: list[Cached]) -> tuple[Tensor, Tensor]:
    """Return logits ``(B, P, C)`` and sets ``(B, P)``, a window of 10 s every 5 s; alarms' records say too little."""
    places = [
        (record, start)
        for record in records
        if record.database != "cinc2015"
        for start in range(0, max(record.length - WINDOW, 0) + 1, HOP)
    ]
    logits, sets = [], []
    for at in range(0, len(places), BATCH):
        cuts = [cache.cut(record, start, WINDOW) for record, start in places[at : at + BATCH]]
        windows = np.stack([window for window, _ in cuts])
        beats = torch.from_numpy(find_beats(windows)) if network.needs_beats else None
        logits.append(network(network.prepare(torch.from_numpy(windows), beats)).rhythm)
        sets.append(torch.from_numpy(token_sets(np.stack([stated for _, stated in cuts]), TOKEN)))
    return torch.cat(logits), torch.cat(sets)


def vf_threshold(stated: NDArray[np.bool_], said: NDArray[np.floating]) -> float:
    """Return the lowest threshold at which at least :data:`SPECIFICITY` of the windows without VF stay below it, at least 0.3."""
    if stated.all():
        return 0.5
    return round(float(max(np.quantile(said[~stated], SPECIFICITY), 0.3)), 3)


def calibrate(checkpoint: Path, cache: Cache, splits: tuple[str, ...]) -> Calibration:
    """Fit everything to the records of these splits that state it; what none states keeps its default."""
    records = [record for record in cache.records if record.split in splits]
    network, _ = load_checkpoint(checkpoint)
    logits, sets = rhythm_logits(network, cache, records)
    fitted = Calibration(temperature=fit_temperature(lambda temperature: partial_label_loss(logits / temperature, sets)))
    with Predictor(ModelConfig(name=str(checkpoint), threads=1)) as predictor:
        reader = Reader(predictor, cache)
        screened = [record for record in records if record.screen >= 0]
        if screened:
            log_p = torch.from_numpy(np.log(np.maximum(reader.screen(screened), 1e-12)))
            classes = torch.tensor([record.screen for record in screened])
            found = fit_temperature(lambda temperature: F.cross_entropy(log_p / temperature, classes))
            fitted = msgspec.structs.replace(fitted, screen_temperature=found)
        diagnosed = [record for record in records if record.window >= 0]
        if diagnosed:
            said = reader.short(diagnosed)[0]
            odds = torch.logit(torch.from_numpy(said), eps=1e-6)
            stated = torch.from_numpy(superclasses(diagnosed, said.shape[1]).astype(float))
            found = fit_temperature(lambda temperature: F.binary_cross_entropy_with_logits(odds / temperature, stated))
            thresholds = best_thresholds(stated.numpy(), (odds / found).sigmoid().numpy())
            fitted = msgspec.structs.replace(fitted, window_temperature=found, window_thresholds=thresholds)
    save_checkpoint(checkpoint, network, ModelCard(model=network.config, calibration=fitted))
    return _decisions(checkpoint, cache, records, fitted)


def _decisions(checkpoint: Path, cache: Cache, records: list[Cached], fitted: Calibration) -> Calibration:
    """Choose the thresholds of beats and of VF with the calibrated probabilities."""
    marked = [record for record in records if record.database == "mitdb" and record.beats > 0]
    dense = [record for record in records if (cache.rhythm(record) == 1 << RHYTHMS.index("VF")).any()]
    with Predictor(ModelConfig(name=str(checkpoint), threads=1)) as predictor:
        if marked:
            best = 0.0
            for threshold in BEAT_THRESHOLDS:
                card = predictor.card
                predictor.card = msgspec.structs.replace(
                    card, calibration=msgspec.structs.replace(fitted, beat_threshold=threshold)
                )
                counts = [judged_beats(cache, record, Reader(predictor, cache).read(record, HOP)) for record in marked]
                score = _peak_f1([count for count in counts if count is not None])
                if score > best:
                    best, fitted = score, msgspec.structs.replace(fitted, beat_threshold=threshold)
                predictor.card = card
        if dense:
            pairs = []
            for record in [record for record in records if record.database in {one.database for one in dense}]:
                truth, said = (
                    cell_sets(cache.rhythm(record)),
                    Reader(predictor, cache).read(record).rhythm[:, RHYTHMS.index("VF")],
                )
                length = min(len(truth), len(said))
                pairs.append(shockable_windows(truth[:length], said[:length], 4 * MODEL_FS // CELL))
            stated, said = (np.concatenate(side) for side in zip(*pairs, strict=True))
            fitted = msgspec.structs.replace(fitted, vf_threshold=vf_threshold(stated, said))
    return fitted


def _peak_f1(counts: list[Any]) -> float:
    found = sum(int(count.table[:-1, :-1].sum()) for count in counts)
    stated = sum(int(count.table[:-1].sum()) for count in counts)
    said = sum(int(count.table[:, :-1].sum()) for count in counts)
    return 2 * found / max(stated + said, 1)


def last_row(run: Path) -> dict[str, Any]:
    """Return the last line of a run's log."""
    row: dict[str, Any] = msgspec.json.decode((run / "log.jsonl").read_bytes().splitlines()[-1])
    return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="what train.prepare wrote")
    parser.add_argument("--run", type=Path, required=True, help="what train.finetune wrote")
    parser.add_argument(
        "--calibrate-on", type=Path, help="calibrate another run of the same kind, that did not see the held-out records"
    )
    parser.add_argument("--splits", default="val,holdout", help="records to calibrate on")
    parser.add_argument("--name", required=True, help="name of the shipped checkpoint")
    parser.add_argument("--text", type=Path, required=True, help="what the model card says, markdown")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    the_cache = Cache(arguments.cache)
    with tempfile.TemporaryDirectory() as folder:
        measured, _ = load_checkpoint((arguments.calibrate_on or arguments.run) / "checkpoint")
        save_checkpoint(folder, measured, ModelCard(model=measured.config))
        calibration = calibrate(Path(folder), the_cache, tuple(arguments.splits.split(",")))
    trained, the_card = load_checkpoint(arguments.run / "checkpoint")
    row = last_row(arguments.run)
    card = msgspec.structs.replace(the_card, calibration=calibration, metrics={"training": row})
    record_sums(save_checkpoint(place(arguments.name), trained, card, arguments.text.read_text(encoding="utf-8")))
    print(calibration)
