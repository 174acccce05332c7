"""Named classification tasks: which records count, what they state, and which of them train, choose and test.

Prepared records go in; targets of zeros and ones come out, or None where a record says nothing about the task.
``python -m train.tasks`` prints what there is.

Shapes: C class.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.codes import SCREENS
from train.data.pack import Cached
from train.data.statements import (
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

__all__ = ["FEWEST", "PARTS", "TASKS", "Task", "fraction_of_task", "measurable", "unread"]

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
