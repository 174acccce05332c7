"""Teach a shipped network classes of one's own: a folder of recordings, a CSV of labels, minutes on two cores.

    python -m train.own --data FOLDER --labels labels.csv --init ecgnat-nano --out mymodel
    python -m train.apply --model mymodel --data FOLDER NEW_RECORDING ...

The CSV has the columns ``path,label`` or ``path,start_s,stop_s,label``, and optionally ``patient`` and ``split``; see
docs/own-labels.md. Recordings are conditioned as the monitor does, a quarter of the persons is kept for validation. The window
head of the network gets the classes: logistic regressions on the frozen network first; with ``--tune all`` the whole network is
then trained for ``--minutes``. Nothing is chosen by the validation recordings: what is printed of them is what the network
reaches on persons that it has not seen. Writes a checkpoint with its model card, and ``OUT/validation.csv`` with what was said
of each.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from ecgnat_stream.errors import EcgnatError
from ecgnat_stream.model import EcgNat, ModelCard, find_checkpoint, load_checkpoint, save_checkpoint
from ecgnat_stream.model.checkpoint import Calibration
from ecgnat_stream.score.figures import ratio
from train.data.augment import Augment
from train.data.own import Labelled, LabelsError, read_labels, records_of, split
from train.data.pack import write_pack
from train.data.sample import MIXES, Cache, Sampler
from train.data.tasks import Task
from train.fit.finetuning import Finetuning, parameter_groups
from train.fit.head import fit_head
from train.fit.loop import Budget, World, run
from train.judge.by_task import read, windows_of
from train.judge.metrics import Interval, auroc, by_unit, f1, interval, macro
from train.judge.tables import rows as table

__all__ = ["main", "teach"]

CPU = World(torch.device("cpu"))


def task_of(classes: tuple[str, ...]) -> Task:
    """Return the task of telling these classes apart, one per recording."""
    return Task("own", classes, ("own",), "exclusive", lambda record: frozenset(record.codes), "every row of the CSV")


def network_for(init: str, classes: tuple[str, ...]) -> tuple[EcgNat, ModelCard]:
    """Return a network like a checkpoint's whose window head has other classes and is untrained, and the checkpoint's card.

    Raises
    ------
    ValueError
        If the checkpoint is no ECG-NAT.
    """
    path = find_checkpoint(init)
    source, card = load_checkpoint(path)
    if type(source) is not EcgNat:
        raise ValueError(f"--init {init}: it is {type(source).__name__}, own labels need an ECG-NAT network, such as ecgnat-nano")
    network = EcgNat(msgspec.structs.replace(source.config, window_classes=classes))
    state = {name: tensor for name, tensor in source.state_dict().items() if not name.startswith("window_head.linear.")}
    network.load_state_dict(network.state_dict() | state)
    return network.eval(), card


def teach(network: EcgNat, cache: Cache, persons: NDArray[np.str_], task: Task, tune: str, minutes: float, seed: int) -> None:
    """Train the window head of a network on the records that are "train"; with tune "all" then all of it.

    Parameters
    ----------
    persons
        ``(R,)`` whose each of the cache's records is.
    """
    train = [at for at, record in enumerate(cache.records) if record.split == "train"]
    records = [cache.records[at] for at in train]
    stated = task.targets(records).argmax(axis=1)
    with torch.no_grad():
        parts = [(of, network.summary(network.encode(x))) for of, x in windows_of(network, cache, records, task, CPU.device)]
    of = np.array([row for own, _ in parts for row in own])
    features = np.concatenate([part.double().numpy() for _, part in parts])
    fit_head(network.window_head.linear, features, stated[of], persons[train][of])
    if tune == "head":
        return
    module = Finetuning(network, contrast=0.0)
    source = Sampler(cache, records, MIXES["task"], (1000,), 32, Augment(cache.noise), task=task)
    budget = Budget(minutes=minutes, epoch_steps=50, lr=3e-4, ema=0.98, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        tuned = run(module, parameter_groups(module, 0.8), source, budget, Path(folder), lambda *_: {}, CPU)
    network.load_state_dict(tuned.network.state_dict())
    network.eval()


def figures(
    classes: Sequence[str], stated: NDArray[np.intp], said: NDArray[np.floating], person: NDArray[np.str_]
) -> dict[str, Any]:
    """Return accuracy, mean sensitivity, macro F1 and AUROC, and sensitivity, PPV, F1 per class: value and 95 % interval.

    Parameters
    ----------
    stated, said
        ``(R,)`` true classes, ``(R, C)`` logits.
    person
        ``(R,)``; persons are resampled, with all their recordings.
    """
    names, unit = np.unique(person, return_inverse=True)
    decided = said.argmax(axis=1)

    def within(statistic: Any) -> Interval | None:
        return interval(by_unit(statistic, unit), len(names))

    truth = stated[:, None] == np.arange(len(classes))
    yes = decided[:, None] == np.arange(len(classes))
    each: dict[str, list[Any]] = {"sensitivity": [], "ppv": [], "f1": [], "auroc": []}
    for c in range(len(classes)):
        hits = truth[:, c] & yes[:, c]
        each["sensitivity"].append(ratio(hits, truth[:, c]))
        each["ppv"].append(ratio(hits, yes[:, c]))
        each["f1"].append(f1(hits, yes[:, c], truth[:, c]))
        each["auroc"].append(auroc(truth[:, c], said[:, c]))
    return {
        "accuracy": within(ratio(decided == stated, np.ones(len(stated)))),
        "always the largest class": round(float(np.bincount(stated).max() / len(stated)), 4),
        "mean sensitivity": within(macro(each["sensitivity"])),
        "macro F1": within(macro(each["f1"])),
        "macro AUROC": within(macro(each["auroc"])),
        "classes": {
            name: {"rows": int(truth[:, c].sum())} | {key: within(some[c]) for key, some in each.items()}
            for c, name in enumerate(classes)
        },
    }


def report(found: dict[str, Any]) -> str:
    """Return the figures as Markdown tables."""
    overall = table(
        ["validation", "value (95 % interval)"], *((name, value) for name, value in found.items() if name != "classes")
    )
    columns = ["rows", "sensitivity", "ppv", "f1", "auroc"]
    return overall + "\n" + table(["class", *columns], *((name, *row.values()) for name, row in found["classes"].items()))


def card_text(name: str, init: str, tune: str, count: dict[str, dict[str, int]], found: dict[str, Any]) -> str:
    """Return the model card."""
    rows = table(["class", "train", "validation"], *((label, own["train"], own["val"]) for label, own in count.items()))
    how = {
        "head": "Its window head was fitted; the rest is unchanged, so that rhythm, beats and screening are what they were.",
        "all": "All of it was trained further: only its window head means something, and the monitor refuses it.",
    }[tune]
    return (
        f"# {name}\n\nMade by `python -m train.own` from `{init}`, with labels of one's own. {how}\n\n{rows}\n"
        f"Measured on validation persons that the training has not seen:\n\n{report(found)}\n"
        "One class is said per recording: the most likely one. Classes count alike in the fit, whatever their numbers. "
        "It is not a certified medical device.\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the recordings")
    parser.add_argument("--labels", type=Path, required=True, help="CSV: path,label or path,start_s,stop_s,label")
    parser.add_argument("--init", default="ecgnat-nano", help="checkpoint to begin with: an ECG-NAT network")
    parser.add_argument("--out", type=Path, required=True, help="folder for the new checkpoint")
    parser.add_argument("--tune", choices=("head", "all"), default="head", help="what learns")
    parser.add_argument("--minutes", type=float, default=3.0, help="budget of --tune all, processor minutes")
    parser.add_argument("--seed", type=int, default=0, help="of the split and of --tune all")
    given = parser.parse_args(arguments)
    began = time.perf_counter()
    torch.set_num_threads(1)
    torch.manual_seed(given.seed)
    try:
        if given.out.exists() and any(given.out.iterdir()):
            raise ValueError(f"--out {given.out} is there and not empty: take another folder, or remove it")
        rows = split(read_labels(given.labels, given.data), given.labels, given.seed)
        classes = tuple(sorted({row.label for row in rows}))
        network, card = network_for(given.init, classes)
        with tempfile.TemporaryDirectory() as folder:
            write_pack(Path(folder), records_of(rows, given.labels, given.data), str(given.labels))
            cache = Cache(Path(folder))
            task = task_of(classes)
            persons = np.array([row.person for row in rows])
            print(
                f"{len(rows)} rows of {len(set(persons))} persons or recordings, {time.perf_counter() - began:.0f} s", flush=True
            )
            teach(network, cache, persons, task, given.tune, given.minutes, given.seed)
            val = [at for at, row in enumerate(rows) if row.split == "val"]
            said = read(network, cache, [cache.records[at] for at in val], replace(task, kind="multilabel"), CPU.device)
    except (LabelsError, ValueError, EcgnatError, OSError) as error:
        parser.exit(1, f"{error}\n")
    stated = np.array([classes.index(rows[at].label) for at in val])
    found = figures(classes, stated, said, persons[val])
    _save(given, network, card, rows, found)
    _write_said(given.out / "validation.csv", classes, [rows[at] for at in val], said)
    print(report(found))
    print(f"{given.out}: {', '.join(classes)}; {time.perf_counter() - began:.0f} s in all")


def _save(given: argparse.Namespace, network: EcgNat, card: ModelCard, rows: Sequence[Labelled], found: dict[str, Any]) -> None:
    count = {label: dict.fromkeys(("train", "val"), 0) for label in network.config.window_classes}
    for row in rows:
        count[row.label][row.split] += 1
    seen = card.trained_on | {"own labels": sum(own["train"] for own in count.values())}
    kept = card.calibration if given.tune == "head" else Calibration()
    own = ModelCard(
        model=network.config,
        heads=tuple(dict.fromkeys((*card.heads, "window"))) if given.tune == "head" else ("window",),
        calibration=msgspec.structs.replace(kept, window_temperature=1.0, window_thresholds=()),
        trained_on=seen,
        metrics={"own labels": found},
    )
    save_checkpoint(given.out, network, own, card_text(given.out.name, given.init, given.tune, count, found))


def _write_said(path: Path, classes: Sequence[str], rows: Sequence[Labelled], said: NDArray[np.floating]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "start_s", "stop_s", "label", "said", *classes])
        for row, logits in zip(rows, said, strict=True):
            probabilities = 1 / (1 + np.exp(-logits))
            times = ("" if row.start_s is None else row.start_s, "" if row.stop_s is None else row.stop_s)
            writer.writerow([row.path, *times, row.label, classes[int(logits.argmax())], *(f"{p:.4f}" for p in probabilities)])


if __name__ == "__main__":
    main()
