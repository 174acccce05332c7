"""Measure a checkpoint on whole records of one split, through the runtime's own Predictor.

    python -m train.evaluate --data DATA --model ecgnat-nano --json results.json
    python -m train.evaluate --data DATA --model runs/study/cinc2017-ecgnat-1-0 --task cinc2017 --json results.json

DATA is laid out as train.prepare reads it; where it has no splits.csv every record counts as test. A figure is ``[value, low,
high]``, the 95 % interval by resampling records, or null where nothing is stated to measure it by. What could not be measured is
named under "skipped", with the reason. Thresholds and temperatures are those of the checkpoint: nothing is fitted here.

train.study trains a checkpoint for one task, its window head alone. With ``--task`` that head is judged as the study does it
(:mod:`train.judge.by_task`: thresholds from validation records, 0.5 where there are none) on the test records of the task, and
nothing else is said.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from ecgnat_stream.errors import EcgnatError
from ecgnat_stream.model import ModelConfig, Predictor, load_checkpoint
from train.data.pack import DATABASES, Cached, Manifest, check_pack, prepare
from train.data.sample import Cache
from train.data.tasks import TASKS, Task
from train.judge import by_task
from train.judge.cost import measure
from train.judge.reading import Reader
from train.judge.robustness import beat_errors_section, leads_section, noise_section
from train.judge.sections import check_classes, long_sections, screen_section, window_section
from train.judge.tables import cell, rows

__all__ = ["SECTIONS", "evaluate", "evaluate_task", "main", "summary", "task_summary"]

SECTIONS = {
    "rhythm": "no record of two minutes or more states a rhythm",
    "beats": "no record has marked beats",
    "screen": "no record states a class of the Challenge 2017",
    "window": "no record states diagnostic superclasses",
    "leads": "no twelve-lead record states a rhythm, or superclasses often enough",
    "noise": "nstdb is absent, or no record to add noise to",
    "beat_errors": "the network is not given heartbeats, or no record to read by wrong ones",
    "calibration": "nothing is stated to calibrate against",
    "cost": "",
}
"""The sections, and why each may be absent."""

MEASURED = (
    "mitdb", "vfdb", "cudb", "nsrdb", "afdb", "ltafdb", "cinc2015", "cinc2017", "ptbxl", "ludb", "cinc2020", "chapman",
)  # fmt: skip
"""The databases behind the tables of docs/measured; others are measured where ``--databases`` names them."""

_ROBUSTNESS = ("noise", "beat_errors")


def evaluate(
    predictor: Predictor,
    cache: Cache,
    split: str = "test",
    robustness: bool = False,
    databases: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return all sections for the records of a split, of all databases or of some, and "skipped": name to reason."""
    databases = sorted({*MEASURED, *(record.database for record in cache.records)}) if databases is None else databases
    records = [record for record in cache.records if record.split == split and record.database in databases]
    reader = Reader(predictor, cache)
    results: dict[str, Any] = {
        "checkpoint": predictor.path.name,
        "network": predictor.card.model.name,
        "split": split,
        "records": _count(records),
        "skipped": _absent(cache, records, split, databases),
    }
    long = long_sections(reader, records)
    screen, window = screen_section(reader, records), window_section(reader, records)
    calibration = {"rhythm": long.pop("calibration")}
    for name, section in (("screen", screen), ("window", window)):
        calibration[name] = section.pop("calibration") if section else None
    results |= long | {"screen": screen, "window": window, "leads": leads_section(reader, records)}
    results["noise"] = noise_section(reader, records) if robustness else None
    results["beat_errors"] = beat_errors_section(reader, records) if robustness else None
    results["calibration"] = calibration if any(calibration.values()) else None
    results["cost"] = measure(predictor)
    for name, reason in SECTIONS.items():
        if results[name] is None:
            asked = robustness or name not in _ROBUSTNESS
            results["skipped"][name] = reason if asked else "not asked for: --robustness"
    return results


def evaluate_task(predictor: Predictor, cache: Cache, task: Task, robustness: bool = False) -> dict[str, Any]:
    """Return what :func:`train.judge.by_task.judge` says of the test records of a task, and how many state each class.

    Raises
    ------
    ValueError
        If the cache has no test records of the task.
    """
    network, device = load_checkpoint(predictor.path)[0].to(predictor.device), predictor.device
    val, test = (task.records(cache.records, part) for part in ("val", "test"))
    if not test:
        raise ValueError(f"task {task.name} needs test records of {', '.join(task.databases)} ({task.counts}): there are none")
    stated = task.targets(test)
    val_said, said = (by_task.read(network, cache, some, task, device) for some in (val, test))
    results: dict[str, Any] = {
        "checkpoint": predictor.path.name,
        "network": predictor.card.model.name,
        "task": task.name,
        "records": _count(test),
        "positives": dict(zip(task.classes, stated.sum(axis=0).astype(int).tolist(), strict=True)),
    }
    results |= by_task.judge(task, stated, said, task.targets(val), val_said)
    return results | ({"robustness": by_task.robustness(network, cache, test, task, device)} if robustness else {})


def _count(records: Sequence[Cached]) -> dict[str, int]:
    return {name: sum(record.database == name for record in records) for name in sorted({record.database for record in records})}


def _absent(cache: Cache, records: Sequence[Cached], split: str, databases: Sequence[str]) -> dict[str, str]:
    """Return the databases that give nothing, and why."""
    prepared, used = {record.database for record in cache.records}, {record.database for record in records}
    reasons = {
        name: "no records prepared: absent from the data root, or not readable" for name in databases if name not in prepared
    }
    reasons |= dict.fromkeys(sorted(prepared - set(databases)), "not asked for: --databases")
    return reasons | dict.fromkeys(sorted(prepared & set(databases) - used), f"has no record of split {split}")


def _unknown(data: Path) -> list[str]:
    """Return the folders of a data root that are no database we can read statements of."""
    folders = [path.name for path in data.iterdir() if path.is_dir()] if data.is_dir() else []
    return sorted(name for name in folders if name not in (*DATABASES, "nstdb") and not name.startswith("."))


def summary(results: dict[str, Any]) -> str:
    """Return the main figures as a few lines."""
    lines = [
        f"{results['checkpoint']} on {results['split']}: " + ", ".join(f"{n} {name}" for name, n in results["records"].items())
    ]
    rhythm = results["rhythm"] or {}
    everything = rhythm.get("arrhythmia") or rhythm.get("all") or {"classes": {}}
    for name, row in everything["classes"].items():
        lines.append(f"  rhythm {name}: Se {_text(row['sensitivity'])}, PPV {_text(row['ppv'])}")
    if shockable := everything.get("shockable_4_s"):
        lines.append(f"  VF in 4 s: Se {_text(shockable['sensitivity'])}, Sp {_text(shockable['specificity'])}")
    for name, row in (results["beats"] or {}).items():
        classes = [f"{c} F1 {_text(one['f1'])}" for c, one in (row["classes"] or {}).items() if one and c in "VS"]
        lines.append(", ".join([f"  beats {name}: R peak F1 {_text(row['r_peak']['f1'])}", *classes]))
    if screen := results["screen"]:
        lines.append(f"  screen: mean F1 {_text(screen['mean_f1'])}, macro-AUROC {_text(screen['macro_auroc'])}")
    if window := results["window"]:
        lines.append(f"  window: macro-AUROC {_text(window['macro_auroc'])}")
    if results["leads"]:
        lost = results["leads"]["loss_from_12_to_1"]
        lines.append("  lost from 12 leads to II: " + ", ".join(f"{key} {_text(value)}" for key, value in lost.items()))
    lines += [f"  skipped {name}: {reason}" for name, reason in results["skipped"].items()]
    return "\n".join(lines)


def task_summary(results: dict[str, Any]) -> str:
    """Return the figures of a task as tables."""
    figures = {"macro-AUROC": "auroc", "macro-AUPRC": "auprc", "macro-F1": "f1"}
    parts = [
        f"{results['checkpoint']} on {results['task']}: " + ", ".join(f"{n} {name}" for name, n in results["records"].items()),
        rows([*figures, "left out"], [*(results[key] for key in figures.values()), ", ".join(results["left_out"]) or None]),
    ]
    if "robustness" in results:
        (_, clean), *conditions = results["robustness"].items()
        parts.append(f"At most 200 records: macro-AUROC {cell(clean)}, and what is lost of it")
        parts.append(rows(["condition", "lost"], *(row for row in conditions if row[1] is not None)))
    return "\n\n".join(part.rstrip() for part in parts)


def _text(value: list[float] | None) -> str:
    return "-" if value is None else f"{value[0]:.3f} ({value[1]:.3f} to {value[2]:.3f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data root: one folder per database")
    parser.add_argument("--model", default="ecgnat-nano", help="shipped name, or path of a checkpoint directory")
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--task", choices=sorted(TASKS), help="of a checkpoint of train.study: what it was trained for")
    parser.add_argument("--split", default="test", choices=("test", "val", "holdout"), help="not with --task: it has its own")
    parser.add_argument("--cache", type=Path, help="prepared records: read if they are there, else written and kept")
    parser.add_argument("--databases", default=",".join(MEASURED), help="which databases, with commas; not with --task")
    parser.add_argument(
        "--robustness", action="store_true", help="also with recorded noise and wrong R peaks, or all that a task is read under"
    )
    given = parser.parse_args(arguments)
    task = TASKS[given.task] if given.task else None
    if task is not None and given.split != "test":
        parser.error(f"--task is measured on its test records, not on split {given.split}")
    with ExitStack() as stack:
        try:
            predictor = stack.enter_context(Predictor(ModelConfig(name=given.model, threads=1)))
            check_classes(predictor.window_classes, task)
            path = given.cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            if not (path / "records.json").is_file():
                prepare(given.data, path, tuple(given.databases.split(",")))
            check_pack(path)
            cache = Cache(path)
            results = evaluate_task(predictor, cache, task, given.robustness) if task else {}
        except (ValueError, EcgnatError) as error:
            parser.exit(1, f"{error}\n")
        if task is None:
            results = evaluate(predictor, cache, given.split, given.robustness, tuple(given.databases.split(",")))
            results["skipped"] |= dict.fromkeys(_unknown(given.data), "what its annotations state is not known here")
        if (path / "manifest.json").is_file():
            results["unreadable"] = msgspec.json.decode((path / "manifest.json").read_bytes(), type=Manifest).unreadable
    options = f"--model {results['checkpoint']} " + (f"--task {task.name}" if task else f"--split {given.split}")
    options += " --robustness" * given.robustness
    options += f" --databases {given.databases}" * (task is None and given.databases != ",".join(MEASURED))
    results = {"command": f"python -m train.evaluate --data DATA {options} --json FILE"} | results
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    print(task_summary(results) if task else summary(results))


if __name__ == "__main__":
    main()
