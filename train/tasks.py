"""Named classification tasks: which records count, what they state, and which of them train, choose and test.

    python -m train.tasks --cache runs/cache
    python -m train.tasks --cache runs/cache --task csn --epochs 100 --batch 256 --fraction 0.01

Prepared records go in; targets of zeros and ones come out, or None where a record says nothing about the task. The command
prints the positives of every class by database and part, the classes that no macro figure holds because fewer than
:data:`FEWEST` test records state them, and the statements that no task reads; or, with ``--epochs``, a number of steps.

Shapes: C class.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ecgnat_stream.codes import SCREENS
from train.prepare import Cached, check_pack
from train.statements import (
    CPSC2018,
    CSN,
    CSN_OTHER,
    GROUP_WORDS,
    GROUPS,
    PACED_WORDS,
    SCP_DIAGNOSTIC,
    SCP_FORM,
    SCP_RHYTHM,
    SCP_SUPER,
)

__all__ = ["FEWEST", "PARTS", "TASKS", "Task", "fraction_of_task", "measurable", "print_tasks", "unread"]

FEWEST = 10
"""A class that fewer test records state is listed, and left out of macro figures."""

PARTS = ("train", "val", "test")

Classes = frozenset[str]


def _own(record: Cached) -> str:
    return record.split if record.split in PARTS else ""


@dataclass(frozen=True, slots=True)
class Task:
    """One task.

    Parameters
    ----------
    databases
        Those that can state something for it.
    kind
        "multilabel": any number of classes; "exclusive": exactly one.
    states
        The classes that a record of these databases states; None where it does not count.
    counts
        Which records count, in words.
    part
        "train", "val" or "test" of a record, or "" for none of them; its split unless told otherwise.
    """

    name: str
    classes: tuple[str, ...]
    databases: tuple[str, ...]
    kind: Literal["multilabel", "exclusive"]
    states: Callable[[Cached], Classes | None]
    counts: str
    part: Callable[[Cached], str] = _own

    def target(self, record: Cached) -> NDArray[np.float32] | None:
        """Return ``(C,)`` zeros and ones, or None where the record says nothing about the task."""
        stated = self.states(record) if record.database in self.databases else None
        if stated is None:
            return None
        assert stated <= set(self.classes), (self.name, record.name, stated)
        return np.array([name in stated for name in self.classes], np.float32)

    def records(self, records: Sequence[Cached], part: str) -> list[Cached]:
        """Return the records of one part that say something about the task.

        Raises
        ------
        ValueError
            If the pack was written before statements were kept.
        """
        own = [record for record in records if record.database in self.databases]
        if own and self.name != "cinc2017" and not any(record.codes for record in own):
            raise ValueError(
                f"task {self.name}: no record of {', '.join(self.databases)} has statements: this cache was written before they "
                "were kept; write it again with: python -m train.prepare --data DATA --cache CACHE"
            )
        return [record for record in own if self.part(record) == part and self.target(record) is not None]

    def targets(self, records: Sequence[Cached]) -> NDArray[np.float32]:
        """Return ``(N, C)`` targets of records that say something about the task."""
        found = [target for record in records if (target := self.target(record)) is not None]
        assert len(found) == len(records), f"{self.name}: {len(records) - len(found)} records say nothing"
        return np.array(found, np.float32).reshape(len(found), len(self.classes))


def measurable(task: Task, records: Sequence[Cached]) -> tuple[bool, ...]:
    """Tell for each class whether at least :data:`FEWEST` test records state it and one does not."""
    true = task.targets(task.records(records, "test"))
    positives = true.sum(axis=0)
    return tuple(bool(count >= FEWEST and count < len(true)) for count in positives)


def fraction_of_task(task: Task, records: Sequence[Cached], fraction: float, seed: int) -> list[Cached]:
    """Return a part of labelled records, drawn within groups of the rarest class that each states: at least one of every group.

    A larger fraction of the same seed holds all of a smaller one.
    """
    rng = np.random.default_rng(seed)
    true = task.targets(records)
    frequency = true.sum(axis=0)
    groups: dict[int, list[Cached]] = {}
    for record, row in zip(records, true, strict=True):
        stated = np.flatnonzero(row)
        groups.setdefault(int(stated[frequency[stated].argmin()]) if len(stated) else -1, []).append(record)
    drawn: list[Cached] = []
    for _, members in sorted(groups.items()):
        count = max(round(fraction * len(members)), 1)
        drawn += [members[i] for i in rng.permutation(len(members))[:count]]
    return drawn


def _grouped(words: dict[str, tuple[str, ...]], codes: Sequence[str]) -> Classes:
    return frozenset(name for name, own in words.items() if not set(own).isdisjoint(codes))


def _some(words: dict[str, tuple[str, ...]]) -> Callable[[Cached], Classes | None]:
    """Read a record that states at least one of the classes; likelihoods are not kept, so that 0, unknown, counts as stated."""

    def states(record: Cached) -> Classes | None:
        return _grouped(words, record.codes) or None

    return states


def _ptbxl(name: str, words: dict[str, tuple[str, ...]], counts: str) -> Task:
    return Task(name, tuple(words), ("ptbxl",), "multilabel", _some(words), counts)


def _cpsc2018(record: Cached) -> Classes | None:
    return (_grouped(CPSC2018, record.codes) or None) if _is_cpsc2018(record) else None


def _csn(record: Cached) -> Classes | None:
    if not _is_csn(record) or not {code for own in CSN.values() for code in own}.union(CSN_OTHER).issuperset(record.codes):
        return None
    return _grouped(CSN, record.codes) or None


def _group(record: Cached) -> Classes | None:
    """Return the rhythm group; plain sinus rhythm gives way to a rate or rhythm stated beside it, two others say nothing."""
    if any(code in PACED_WORDS or code.startswith("Pacemaker presence") for code in record.codes):
        return None
    found = _grouped(GROUP_WORDS["cinc2020" if _is_csn(record) else record.database], record.codes)
    found = found - {"SR"} or found
    return found if len(found) == 1 else None


def _screen(record: Cached) -> Classes | None:
    return frozenset([SCREENS[record.screen]]) if record.screen >= 0 else None


def _chapman_ningbo(record: Cached) -> Classes | None:
    return _group(record) if hospital(record) == "shaoxing" else None


def _is_csn(record: Cached) -> bool:
    return record.name.startswith("JS")


def _is_cpsc2018(record: Cached) -> bool:
    return record.name[:1] == "A" and record.name[1:].isdigit()


def hospital(record: Cached) -> str:
    """Return where a twelve-lead record comes from; "" where it is of none of the four."""
    if _is_csn(record) or record.database == "chapman":
        return "shaoxing"  # and Ningbo: the release does not say which
    if record.database == "cinc2020":
        return "cpsc" if record.name[:1] in "AQ" and record.name[1:].isdigit() else ""
    return record.database


def _left_out(place: str) -> Task:
    """Train on the other hospitals and test on those records of this one that are not train: pretraining saw none of them either.

    Of the packs only ptbxl has val records: where it is left out, a fifth of the train records of the others, by a hash of their
    names, takes their place.
    """

    def part(record: Cached) -> str:
        if hospital(record) == place:
            return "" if record.split in ("train", "holdout") else "test"
        if record.split == "train" and place == "ptbxl" and hashlib.sha256(record.name.encode()).digest()[0] % 5 == 0:
            return "val"
        return record.split if record.split in ("train", "val") else ""

    counts = f"one rhythm group stated, not paced; {place} tests, with what is not train; the others train"
    return Task(f"hospitals-{place}", GROUPS, tuple(GROUP_WORDS), "exclusive", _group, counts, part)


_ALL = tuple(dict.fromkeys([*(code for own in SCP_DIAGNOSTIC.values() for code in own), *SCP_FORM, *SCP_RHYTHM]))
_SUPER = {name: tuple(code for sub in own for code in SCP_DIAGNOSTIC[sub]) for name, own in SCP_SUPER.items()}

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _ptbxl("ptbxl-all", {code: (code,) for code in _ALL}, "any statement"),
        _ptbxl("ptbxl-super", _SUPER, "at least one diagnostic statement"),
        _ptbxl("ptbxl-sub", SCP_DIAGNOSTIC, "at least one diagnostic statement"),
        _ptbxl("ptbxl-form", {code: (code,) for code in SCP_FORM}, "at least one form statement"),
        _ptbxl("ptbxl-rhythm", {code: (code,) for code in SCP_RHYTHM}, "at least one rhythm statement"),
        Task("cpsc2018", tuple(CPSC2018), ("cinc2020",), "multilabel", _cpsc2018, "names A0001 to A6877, at least one class"),
        Task(
            "chapman-rhythm", GROUPS, ("cinc2020", "chapman"), "exclusive", _chapman_ningbo,
            "one rhythm group stated, not paced",
        ),
        Task(
            "csn", tuple(CSN), ("cinc2020", "chapman"), "multilabel", _csn,
            "names JS, at least one class, no statement beyond the table of condition names",
        ),
        Task("cinc2017", SCREENS, ("cinc2017",), "exclusive", _screen, "all"),
        _left_out("shaoxing"),
        _left_out("ptbxl"),
    )
}  # fmt: skip
"""Every task by name."""


def unread(records: Sequence[Cached]) -> dict[str, Counter[str]]:
    """Return, by database, the statements that no task reads as a class, and how many records state each."""
    read = {
        "ptbxl": set(_ALL),
        "cinc2020": {code for words in (CPSC2018, CSN, GROUP_WORDS["cinc2020"]) for own in words.values() for code in own},
        "chapman": {code for own in GROUP_WORDS["chapman"].values() for code in own},
        "ludb": {code for own in GROUP_WORDS["ludb"].values() for code in own},
    }
    found: dict[str, Counter[str]] = {}
    for record in records:
        known = read["cinc2020"] if _is_csn(record) else read.get(record.database, set())
        if lost := set(record.codes) - known:
            found.setdefault(record.database, Counter()).update(lost)
    return found


def print_tasks(records: Sequence[Cached], console: Console, tasks: Sequence[Task] = ()) -> None:
    """Print what every task has to learn from and to be measured on."""
    for task in tasks or TASKS.values():
        by_part = {part: task.records(records, part) for part in PARTS}
        true = {part: task.targets(rows) for part, rows in by_part.items()}
        sources = Counter((record.database, part) for part, rows in by_part.items() for record in rows)
        said = ", ".join(f"{database} {part} {count}" for (database, part), count in sorted(sources.items())) or "no records"
        console.print(f"\n{task.name}: {len(task.classes)} classes, {task.kind}; {task.counts}", highlight=False)
        console.print(f"records: {said}", highlight=False)
        if not sources:
            continue
        table = Table(box=None, padding=(0, 1, 0, 0))
        table.add_column("class", no_wrap=True)
        for part in PARTS:
            table.add_column(part, justify="right")
        table.add_column("by database: train / val / test")
        positives = {part: rows.sum(axis=0).astype(int) for part, rows in true.items()}
        for c, name in enumerate(task.classes):
            counts = [str(positives[part][c]) for part in PARTS]
            if any(count != "0" for count in counts):
                table.add_row(name, *counts, _by_database(by_part, true, c))
        console.print(table)
        few = [name for name, enough in zip(task.classes, measurable(task, records), strict=True) if not enough]
        if few:
            console.print(f"fewer than {FEWEST} test records, in no macro figure: {', '.join(few)}", highlight=False)
    console.print()
    for database, lost in sorted(unread(records).items()):
        listed = ", ".join(f"{code} ({count})" for code, count in lost.most_common())
        console.print(f"{database}: statements that are no class of any task: {listed}", highlight=False)


def _by_database(by_part: dict[str, list[Cached]], true: dict[str, NDArray[np.float32]], c: int) -> str:
    counts = Counter(
        (record.database, part)
        for part, rows in by_part.items()
        for record, row in zip(rows, true[part], strict=True)
        if row[c] > 0
    )
    databases = sorted({database for database, _ in counts})
    return ", ".join(f"{one} {' / '.join(str(counts[one, part]) for part in PARTS)}" for one in databases)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="what train.prepare wrote")
    parser.add_argument("--task", choices=sorted(TASKS), action="append", help="only this one; may be given again")
    parser.add_argument(
        "--epochs", type=int, default=0, help="print how many steps these are; of all train records without --task"
    )
    parser.add_argument("--batch", type=int, default=32, help="records per step, for --epochs")
    parser.add_argument("--fraction", type=float, default=1.0, help="part of the labelled records, for --epochs")
    arguments = parser.parse_args()
    try:
        check_pack(arguments.cache)
        records = msgspec.json.decode((arguments.cache / "records.json").read_bytes(), type=list[Cached])
        tasks = [TASKS[name] for name in arguments.task or ()]
        if not arguments.epochs:
            print_tasks(records, Console(), tasks)
            return
        train = tasks[0].records(records, "train") if tasks else [record for record in records if record.split == "train"]
        print(arguments.epochs * max(math.ceil(arguments.fraction * len(train) / arguments.batch), 1))
    except ValueError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
