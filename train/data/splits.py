"""Which part each record belongs to: train, val, test; by splits.csv, by published lists, or by a hash of the person.

In: a data root with one folder per database, small packs or full public downloads. Out: database -> record -> split.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from train.data.record import rows_of, table_of
from train.data.records import find_names, may_be_database

__all__ = ["DS2", "HOLDOUT", "LISTS", "read_splits"]

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
_PERSON_OF_AFPDB = re.compile(r"([np])(\d+)c?")
_PARTS = ("train",) * 8 + ("val", "test")
_LONG_STUDIES = ("S", "I")
"""cinc2020, cinc2021: records of PTB (S) and INCART (I) are several per person without saying whose; each stays in one part."""


def read_splits(root: Path, published: bool = False, sources: dict[str, str] | None = None) -> dict[str, dict[str, str]]:
    """Return database -> record -> split, for the databases that are there.

    ``splits.csv`` is the one truth where it exists; :data:`HOLDOUT` is "holdout" then, and a database that it does not name has
    the splits of its own index (cinc2011), or is "unassigned": not for training. Without it every record found is "test", as an
    evaluation needs it. Copies of one record in two databases count once: in the second they are "unassigned".

    Parameters
    ----------
    published
        Train on full downloads that have no splits.csv. ptbxl: folds 1-8, 9, 10 (Wagner 2020) where 9 and 10 are there. mitdb:
        de Chazal's DS1 and the paced records train, :data:`DS2` tests, :data:`HOLDOUT` is held out. nsrdb only tests. CPSC2018
        and Chapman-Ningbo: the lists of :data:`LISTS`, where they lie in cinc2020 or chapman; what they do not name is
        "unassigned" then. aftdb only trains: its persons are those of ltafdb. cinc2011 has splits of its own in the pack. All
        others, 80 / 10 / 10 by a hash of the patient, or of the record where no patient is stated.
    sources
        Takes for every database where its splits come from: "splits.csv", "every record is test", "published", "by hash", or
        which of its names are published, and how many copies are left out.

    Raises
    ------
    ValueError
        If there is no such folder, splits.csv names records that are not on disk, or published lists contradict each other,
        are not all there, or name no record.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is no folder: the data root has one folder per database (mitdb, ptbxl, ...)")
    found = {folder.name: find_names(folder) for folder in sorted(root.iterdir()) if may_be_database(folder)}
    table = root / "splits.csv"
    sources = {} if sources is None else sources
    if not table.is_file():
        found = {database: names for database, names in found.items() if names}
        if published:
            return _without_copies(_published(root, found, sources), sources)
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
    sources |= dict.fromkeys(splits, "splits.csv")
    for database, names in found.items():
        if names and database not in splits:
            own = _own_splits(root / database)
            splits[database] = {name: own.get(name, "unassigned") for name in names}
            sources[database] = f"{database}/index.csv" if own else "not in splits.csv: for no training, no choice and no test"
    return _without_copies(splits, sources)


def _own_splits(folder: Path) -> dict[str, str]:
    """Return what the index of a database says itself about its parts: cinc2011."""
    index = next(folder.rglob("index.csv"), None) if folder.name == "cinc2011" else None
    return {row["record"]: row["split"] for row in rows_of(index)} if index else {}


def _without_copies(splits: dict[str, dict[str, str]], sources: dict[str, str]) -> dict[str, dict[str, str]]:
    """Set aside what another database holds too, record or person, so that nobody is on two sides."""

    def names(*databases: str) -> set[str]:
        return {name for database in databases for name in splits.get(database, ())}

    challenge, holter = names("cinc2020"), names("mitdb", "svdb", "nsrdb")
    ningbo = any(name.startswith("JS") for name in names("cinc2020", "cinc2021"))
    ptbxl, ltafdb = "ptbxl" in splits, "ltafdb" in splits
    elsewhere = {
        "chapman": [name for name in names("chapman") if ningbo and name.startswith("MUSE")],
        "cinc2020": [name for name in challenge if ptbxl and name.startswith("HR")],  # HR00001 is record 00001 of PTB-XL
        "cinc2021": [name for name in names("cinc2021") if name in challenge or (ptbxl and name.startswith("HR"))],
        "qtdb": [name for name in names("qtdb") if name.removeprefix("sel") in holter],
        "aftdb": [name for name in names("aftdb") if ltafdb],
    }
    for database, copies in elsewhere.items():
        if copies:
            splits[database] |= dict.fromkeys(copies, "unassigned")
            sources[database] += f", {len(copies)} whose record or person is in another database: unassigned"
    return splits


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
        elif database == "aftdb":
            splits[database] = dict.fromkeys(names, "train")
        elif own := _own_splits(root / database):
            splits[database] = {name: own.get(name, "unassigned") for name in names}
        else:
            sources[database], splits[database] = _listed_or_hashed(database, found, lists if database in _LISTED_IN else {})
    return splits


def _listed_or_hashed(database: str, found: dict[str, list[str]], lists: dict[str, dict[str, str]]) -> tuple[str, dict[str, str]]:
    """Return where the splits of a database come from, and them; ``lists``: how names begin to record to split."""
    splits: dict[str, str] = {}
    used: set[str] = set()
    for name in found[database]:
        begins = next((begins for begins in lists if name.startswith(begins)), "")
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
    """Return the part of a patient; the same for the hospitals of the Challenges in whichever database they are."""
    database = "cinc2020" if database == "cinc2021" else database
    if database == "cinc2020" and patient.startswith(_LONG_STUDIES):
        patient = patient[0]
    if database == "afpdb" and (found := _PERSON_OF_AFPDB.fullmatch(patient)):
        patient = f"{found[1]}{(int(found[2]) + 1) // 2}"  # records 1 and 2 are of one person, and so on
    key = patient if patient.startswith("JS") else f"{database}/{patient}"
    return _PARTS[int(hashlib.sha256(f"{_SEED}/{key}".encode()).hexdigest(), 16) % len(_PARTS)]
