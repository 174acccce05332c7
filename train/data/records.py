"""Which records there are, which part each belongs to, and reading them one after the other.

In: a data root with one folder per database, small packs or full public downloads. Out: splits, and a :class:`Record` per record.
A record that cannot be read is an error that names it, or is listed by name and left out; nothing is passed over in silence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from ecgnat_devices.records import open_record
from ecgnat_stream.errors import EcgnatError
from ecgnat_stream.score.records import headers_of
from ecgnat_stream.signal import LEADS
from train.data.databases import READERS, SUPERCLASSES, Record, generic_files, read_generic, rows_of, table_of

__all__ = ["HOLDOUT", "LISTS", "STATES", "SUPERCLASSES", "Record", "find_names", "read_database", "read_noise", "read_splits"]

STATES: dict[str, tuple[str, ...]] = {
    "mitdb": ("rhythm", "beats"),
    "vfdb": ("rhythm",),
    "cudb": ("rhythm", "beats"),
    "nsrdb": ("rhythm", "beats"),
    "afdb": ("rhythm", "beats"),
    "ltafdb": ("rhythm", "beats"),
    "cinc2015": ("rhythm", "bag"),
    "cinc2017": ("rhythm", "screen"),
    "ptbxl": ("rhythm", "window"),
    "ludb": ("rhythm", "beats"),
    "cinc2020": ("rhythm",),
    "chapman": ("rhythm",),
}
"""What each database can state; it says nothing about the rest.

``rhythm`` over time in mitdb, vfdb, cudb (VF or not), nsrdb (sinus near every beat), afdb and ltafdb; of the whole record in
cinc2017, ptbxl, ludb, cinc2020 and chapman; of the 10 s before a false alarm in cinc2015, whose true alarms give a ``bag``.
``beats`` have classes in mitdb, nsrdb and ltafdb, places only in cudb (not in VF), ludb (not at the record's ends) and afdb
(detected by a program, unaudited). ``window`` is the diagnostic superclass, ``screen`` the class of the Challenge 2017.
"""

HOLDOUT = {
    "mitdb": ("217", "223"),
    "vfdb": ("418", "425"),
    "cudb": ("cu04", "cu13", "cu22"),
}
"""Train records held out for choosing and calibrating where splits.csv names no validation part; fixed by what they contain."""

DS2 = (
    "100", "103", "105", "111", "113", "117", "121", "123", "200", "210", "212",
    "213", "214", "219", "221", "222", "228", "231", "232", "233", "234",
)  # fmt: skip
"""Test records of mitdb (de Chazal 2004), without 202: it is of the same person as 201 of DS1, and goes there."""

LISTS = {"icbeb": ("filename", "A"), "chapman": ("ecg_path", "JS")}
"""Published lists ``<name>_train.csv``, ``<name>_val.csv``, ``<name>_test.csv`` (MERL, Liu 2024, arXiv 2403.06659; HeartLang and
CLEAR-HUG take the same): their column of names, and how the names begin of the records that they decide about. CPSC2018, and
half of Chapman-Shaoxing-Ningbo. Both were drawn at random over records in an order that only those lists tell: they cannot be
derived from the databases."""

_SEED = 12
"""Leaves no part of vfdb, cudb and afdb empty."""

_LISTED_IN = ("cinc2020", "chapman")
_NO_DATABASE = ("nstdb",)
_PARTS = ("train",) * 8 + ("val", "test")
_LONG_STUDIES = ("S", "I")
"""cinc2020: records of PTB (S) and INCART (I) are several per person without saying whose; each of the two stays in one part."""

_TROUBLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, OSError, EcgnatError, msgspec.DecodeError)
"""What wfdb, numpy and our own checks raise for damaged files."""


def read_splits(root: Path, published: bool = False, sources: dict[str, str] | None = None) -> dict[str, dict[str, str]]:
    """Return database -> record -> split, for the databases that are there.

    ``splits.csv`` is the one truth where it exists; :data:`HOLDOUT` is "holdout" then, and a database that it does not name is
    "unassigned": not for training. Without it every record found is "test", as an evaluation needs it.

    Parameters
    ----------
    published
        Train on full downloads that have no splits.csv. ptbxl: folds 1-8, 9, 10 (Wagner 2020) where 9 and 10 are there. mitdb:
        de Chazal's DS1 and the paced records train, :data:`DS2` tests, :data:`HOLDOUT` is held out. nsrdb only tests. CPSC2018
        and Chapman-Ningbo: the lists of :data:`LISTS`, where they lie in cinc2020 or chapman; what they do not name is
        "unassigned" then. All others, 80 / 10 / 10 by a hash of the patient, or of the record where no patient is stated.
        Copies of one record in two databases get one split, or are "unassigned" in the second.
    sources
        Takes for every database where its splits come from: "splits.csv", "every record is test", "published", "by hash", or
        which of its names are published.

    Raises
    ------
    ValueError
        If there is no such folder, splits.csv names records that are not on disk, or published lists contradict each other,
        are not all there, or name no record.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is no folder: the data root has one folder per database (mitdb, ptbxl, ...)")
    found = {folder.name: find_names(folder) for folder in sorted(root.iterdir()) if _may_be_database(folder)}
    table = root / "splits.csv"
    sources = {} if sources is None else sources
    if not table.is_file():
        found = {database: names for database, names in found.items() if names}
        if published:
            return _published(root, found, sources)
        sources |= dict.fromkeys(found, "every record is test")
        return {database: dict.fromkeys(names, "test") for database, names in found.items()}
    splits: dict[str, dict[str, str]] = {}
    for row in rows_of(table):
        if row["database"] in found:
            splits.setdefault(row["database"], {})[row["record"]] = _held_out(row["database"], row["record"], row["split"])
    for database, named in splits.items():
        on_disk = set(found[database])
        if lacking := [name for name in named if name not in on_disk]:
            raise ValueError(
                f"{table} names {len(lacking)} of {len(named)} {database} records that are not in {root / database}: "
                f"{', '.join(lacking[:5])}{', ...' if len(lacking) > 5 else ''}. Fetch them, or remove their lines"
            )
    for database, names in found.items():
        if names and database not in splits:
            splits[database] = dict.fromkeys(names, "unassigned")
    sources |= dict.fromkeys(splits, "splits.csv")
    return splits


def read_database(root: Path, database: str, splits: dict[str, str], unreadable: list[str] | None = None) -> Iterator[Record]:
    """Yield the records of one database that ``splits`` names, in its order; signals only where the database is not a known one.

    Parameters
    ----------
    unreadable
        Takes what is wrong with each record that cannot be read, which is then left out.

    Raises
    ------
    ValueError
        If a record cannot be read and ``unreadable`` is None; or if a table of the whole database is missing.
    """
    folder = root / database
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: {database} is not in this data root")
    read = READERS.get(database, read_generic)(folder)
    for name, split in splits.items():
        try:
            record = read(name, split)
        except _TROUBLE as error:
            said = str(error) if isinstance(error, (ValueError, EcgnatError)) else f"{type(error).__name__}: {error}"
            problem = (
                f"{database} record {name} in {folder} cannot be read: {said}. Fetch it again, or leave it out of splits.csv"
            )
            if unreadable is None:
                raise ValueError(problem) from error
            unreadable.append(problem)
        else:
            yield record


def find_names(folder: Path) -> list[str]:
    """Return the names of the records in a database's folder."""
    if folder.name == "ptbxl":
        return sorted({name[:5] for name in headers_of(folder) if name.endswith(("_lr", "_hr"))})
    if folder.name == "cinc2017" and (index := next(folder.rglob("index.csv"), None)):
        return [row["record"] for row in rows_of(index)]
    if folder.name in READERS:
        return sorted(headers_of(folder))
    return sorted(generic_files(folder))


def read_noise(root: Path) -> Iterator[tuple[str, float, NDArray[np.float32]]]:
    """Yield name, rate and ``(12, T)`` of the noise records: two leads, in slots I and II. Nothing where nstdb is absent."""
    if not (root / "nstdb").is_dir():
        return
    headers = headers_of(root / "nstdb")
    for name in ("bw", "em", "ma"):
        opened = open_record(headers[name])
        samples = np.full((len(LEADS), opened.total), np.nan, np.float32)
        samples[:2] = opened.read(0, opened.total)
        yield name, opened.fs, samples


def _may_be_database(folder: Path) -> bool:
    hidden = folder.name.startswith(".") or folder.name in _NO_DATABASE
    return folder.is_dir() and not hidden and not (folder / "records.json").exists()  # the last: what train.prepare wrote


def _held_out(database: str, name: str, split: str) -> str:
    return "holdout" if split == "train" and name in HOLDOUT.get(database, ()) else split


def _published(root: Path, found: dict[str, list[str]], sources: dict[str, str]) -> dict[str, dict[str, str]]:
    lists = _lists(root, found)
    splits: dict[str, dict[str, str]] = {}
    for database, names in found.items():
        sources[database] = "published"
        if database == "nsrdb":
            splits[database] = dict.fromkeys(names, "test")
        elif database == "mitdb":
            splits[database] = {name: _held_out(database, name, "test" if name in DS2 else "train") for name in names}
        elif database == "ptbxl":
            sources[database], splits[database] = _published_ptbxl(root, names)
        else:
            sources[database], splits[database] = _listed_or_hashed(database, found, lists if database in _LISTED_IN else {})
    return splits


def _listed_or_hashed(database: str, found: dict[str, list[str]], lists: dict[str, dict[str, str]]) -> tuple[str, dict[str, str]]:
    """Return where the splits of a database come from, and them; ``lists``: how names begin to record to split."""
    copied = {
        "cinc2020": "HR" if found.get("ptbxl") else "",  # HR00001 is record 00001 of PTB-XL
        "chapman": "MUSE" if any(name.startswith("JS") for name in found.get("cinc2020", ())) else "",
    }.get(database, "")
    splits: dict[str, str] = {}
    used: set[str] = set()
    for name in found[database]:
        begins = next((begins for begins in lists if name.startswith(begins)), "")
        if copied and name.startswith(copied):
            splits[name] = "unassigned"
            continue
        splits[name] = lists[begins].get(name, "unassigned") if begins else _hashed(database, name)
        used.add(begins)
    if listed := ", ".join(sorted(used - {""})):
        return f"published where names begin with {listed}, by hash elsewhere" if "" in used else "published", splits
    return "by hash", splits


def _lists(root: Path, found: dict[str, list[str]]) -> dict[str, dict[str, str]]:
    """Return how names begin to record to split, for the published lists that are there."""
    there = {table.name: table for folder in _LISTED_IN for table in sorted((root / folder).rglob("*.csv"))}
    lists: dict[str, dict[str, str]] = {}
    for name, (column, begins) in LISTS.items():
        wanted = {f"{name}_{part}.csv": part for part in ("train", "val", "test")}
        lacking = wanted.keys() - there.keys()
        if len(lacking) == len(wanted):
            continue
        if lacking:
            raise ValueError(f"{root} holds some of {', '.join(wanted)}, but not {', '.join(sorted(lacking))}: fetch all three")
        splits: dict[str, str] = {}
        for table, part in wanted.items():
            for record in (Path(row[column]).stem for row in rows_of(there[table])):
                if splits.setdefault(record, part) != part:
                    raise ValueError(f"{there[table]}: record {record} is in {splits[record]} too")
        own = {record for folder in _LISTED_IN for record in found.get(folder, ()) if record.startswith(begins)}
        if own and own.isdisjoint(splits):
            raise ValueError(f"{', '.join(wanted)} name none of the {len(own)} records {begins}... below {root}")
        lists[begins] = splits
    return lists


def _published_ptbxl(root: Path, names: list[str]) -> tuple[str, dict[str, str]]:
    rows = {f"{int(row['ecg_id']):05d}": row for row in rows_of(table_of(root / "ptbxl", "ptbxl_database.csv"))}
    if lacking := [name for name in names if name not in rows]:
        raise ValueError(f"ptbxl_database.csv lacks {len(lacking)} records that are on disk: {', '.join(lacking[:5])}")
    folds = {name: int(rows[name]["strat_fold"]) for name in names}
    if {9, 10} <= set(folds.values()):
        return "published", {name: {9: "val", 10: "test"}.get(fold, "train") for name, fold in folds.items()}
    return "by hash", {name: _hashed("ptbxl", rows[name]["patient_id"]) for name in names}


def _hashed(database: str, patient: str) -> str:
    """Return the part of a patient; the same for the records of Chapman-Ningbo (JS) in whichever database they are."""
    if database == "cinc2020" and patient.startswith(_LONG_STUDIES):
        patient = patient[0]
    key = patient if patient.startswith("JS") else f"{database}/{patient}"
    return _PARTS[int(hashlib.sha256(f"{_SEED}/{key}".encode()).hexdigest(), 16) % len(_PARTS)]
