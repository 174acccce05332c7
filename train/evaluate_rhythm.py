"""Measure a checkpoint on whole test records, through the runtime's own Predictor.

    python -m train.evaluate_rhythm --cache runs/cache --checkpoint ecgnat-nano --out docs/results/rhythm.json

Windows of 10 s every 1 s; the probabilities of all windows over a place are averaged and the likeliest class is the decision.
Per class: duration sensitivity and PPV over what the annotations state; for VF also episodes. Diagnostic statements of the
window head are measured on the PTB-XL test records. Writes JSON, and a markdown table beside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from sklearn.metrics import roc_auc_score

from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.model import ModelConfig, Predictor
from ecgnat_stream.model.preprocess import TOKEN
from ecgnat_stream.signal import MODEL_FS
from train.prepare import Cached
from train.sample import Cache
from train.score import CELL, Scored, score_record, summarise

__all__ = ["evaluate", "timeline"]

WINDOW, HOP, BATCH = 10 * MODEL_FS, MODEL_FS, 64
DATABASES = ("mitdb", "vfdb", "cudb")


def timeline(predictor: Predictor, cache: Cache, record: Cached) -> NDArray[np.float32]:
    """Return averaged probabilities ``(N, C)`` of a record, one row per cell."""
    starts = range(0, max(record.length - WINDOW, 0) + 1, HOP)
    cells = -(-(starts[-1] + WINDOW) // CELL)
    total, weight = np.zeros((cells, len(RHYTHMS)), np.float32), np.zeros((cells, 1), np.float32)
    for at in range(0, len(starts), BATCH):
        some = starts[at : at + BATCH]
        windows = np.stack([cache.cut(record, start, WINDOW)[0] for start in some])
        for start, probabilities in zip(some, predictor.predict(windows).rhythm, strict=True):
            spread = np.repeat(probabilities, TOKEN // CELL, axis=0)[: WINDOW // CELL]
            total[start // CELL : start // CELL + len(spread)] += spread
            weight[start // CELL : start // CELL + len(spread)] += 1
    return total / weight


def score(predictor: Predictor, cache: Cache, record: Cached) -> Scored:
    """Score one record."""
    decision = timeline(predictor, cache, record).argmax(axis=1)
    sets = cache.rhythm(record)
    truth = sets[: len(sets) // CELL * CELL].reshape(-1, CELL)
    joined = np.bitwise_or.reduce(truth, axis=1)
    length = min(len(joined), len(decision))
    return score_record(joined[:length], decision[:length])


def diagnoses(predictor: Predictor, cache: Cache, split: str) -> dict[str, float]:
    """Return AUROC per diagnostic statement on PTB-XL records with all leads; those with fewer than 10 positives are left out."""
    records = [record for record in cache.records if record.split == split and record.window >= 0]
    stated = np.array([[record.window >> c & 1 for c in range(len(predictor.window_classes))] for record in records])
    parts = [
        predictor.predict(np.stack([cache.cut(record, 0, WINDOW)[0] for record in records[at : at + BATCH]])).window
        for at in range(0, len(records), BATCH)
    ]
    said = np.concatenate(parts)
    enough = np.flatnonzero((stated.sum(axis=0) >= 10) & (stated.sum(axis=0) <= len(records) - 10))
    return {predictor.window_classes[c]: round(float(roc_auc_score(stated[:, c], said[:, c])), 4) for c in enough}


def evaluate(predictor: Predictor, cache: Cache, split: str) -> dict[str, Any]:
    """Return all figures of a split."""
    scored: dict[str, list[Scored]] = {}
    records = [record for record in cache.records if record.split == split and record.database in DATABASES]
    for record in track(records, "test records"):
        scored.setdefault(record.database, []).append(score(predictor, cache, record))
    results: dict[str, Any] = {name: summarise(parts) for name, parts in scored.items()}
    results["all"] = summarise([one for parts in scored.values() for one in parts])
    results["window_auroc"] = diagnoses(predictor, cache, "val" if split == "holdout" else split)
    return results


def table(results: dict[str, Any]) -> str:
    """Return the figures as markdown."""
    lines = ["| database | class | stated, s | records | sensitivity (95 % CI) | PPV (95 % CI) |", "|---|---|---|---|---|---|"]
    for database in (*DATABASES, "all"):
        for name, row in results.get(database, {}).get("classes", {}).items():
            cells = [_interval(row[key]) for key in ("sensitivity", "ppv")]
            lines.append(f"| {database} | {name} | {row['stated_s']:.0f} | {row['records']} | {cells[0]} | {cells[1]} |")
    lines += [
        "",
        "| database | VF episodes | found as VF | found as VF or VT | false VF episodes | hours |",
        "|---|---|---|---|---|---|",
    ]
    for database in (*DATABASES, "all"):
        if database in results:
            vf = results[database]["vf_episodes"]
            counts = f"{vf['number']} | {vf['found_as_vf']} | {vf['found_as_vf_or_vt']} | {vf['false']}"
            lines.append(f"| {database} | {counts} | {results[database]['hours']:.1f} |")
    if results["window_auroc"]:  # of the same split; the held-out records have no diagnoses, there it is val
        auroc = ", ".join(f"{name} {value:.3f}" for name, value in results["window_auroc"].items())
        lines += ["", f"Window head, PTB-XL, AUROC: {auroc}."]
    return "\n".join(lines) + "\n"


def _interval(value: list[float] | None) -> str:
    return "-" if value is None else f"{value[0]:.3f} ({value[1]:.3f} to {value[2]:.3f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="what train.prepare wrote")
    parser.add_argument("--checkpoint", default="ecgnat-nano", help="shipped name or path")
    parser.add_argument("--split", default="test", choices=("test", "holdout"))
    parser.add_argument("--out", type=Path, required=True, help="JSON file; the table goes beside it as .md")
    arguments = parser.parse_args()
    with Predictor(ModelConfig(checkpoint=arguments.checkpoint, threads=1)) as the_predictor:
        figures = evaluate(the_predictor, Cache(arguments.cache), arguments.split)
        figures = {"checkpoint": the_predictor.path.name, "split": arguments.split} | figures
    command = (
        f"python -m train.evaluate_rhythm --cache runs/cache --checkpoint {figures['checkpoint']} --out docs/results/rhythm.json"
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_bytes(msgspec.json.format(msgspec.json.encode({"command": command} | figures), indent=2) + b"\n")
    arguments.out.with_suffix(".md").write_text(table(figures), encoding="utf-8")
    print(table(figures))
