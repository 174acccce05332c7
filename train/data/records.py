"""Which records there are, and reading them one after the other.

In: a data root with one folder per database, small packs or full public downloads. Out: a :class:`Record` per record.
A record that cannot be read is an error that names it, or is listed by name and left out; nothing is passed over in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from ecgnat_devices.records import open_record
from ecgnat_stream.errors import EcgnatError
from ecgnat_stream.score.records import headers_of
from ecgnat_stream.signal import LEADS
from ecgnat_stream.wfdb_header import file_of, read_header
from train.data.databases import READERS, generic_files, read_generic
from train.data.record import SUPERCLASSES, Record, rows_of

__all__ = ["STATES", "SUPERCLASSES", "Record", "find_names", "left_out", "may_be_database", "read_database", "read_noise"]

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
    "svdb": ("beats",),
    "qtdb": ("rhythm", "beats"),
    "afpdb": ("rhythm",),
    "aftdb": ("rhythm",),
    "mimic_perform_af": ("rhythm",),
    "cinc2011": ("quality",),
    "cinc2021": ("rhythm",),
}
"""What each database can state; it says nothing about the rest.

``rhythm`` over time in mitdb, vfdb, cudb (VF or not), nsrdb (sinus near every beat), afdb and ltafdb; of the whole record in
cinc2017, ptbxl, ludb, cinc2020, cinc2021 and chapman; of the 10 s before a false alarm in cinc2015, whose true alarms give a
``bag``.
``beats`` have classes in mitdb, nsrdb and ltafdb, places only in cudb (not in VF), ludb (not at the record's ends) and afdb
(detected by a program, unaudited). ``window`` is the diagnostic superclass, ``screen`` the class of the Challenge 2017.
Not AF in afpdb, AF in aftdb, either in mimic_perform_af; svdb has beats with classes and no rhythm, qtdb has both in the records
with ``.atr``. ``quality``, in words (``Record.codes``), of cinc2011: nothing is trained with it.
"""

_NO_DATABASE = ("nstdb",)

_TROUBLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, OSError, EcgnatError, msgspec.DecodeError)
"""What wfdb, numpy and our own checks raise for damaged files."""


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
    if folder.name in ("cinc2011", "cinc2017") and (index := next(folder.rglob("index.csv"), None)):
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


def may_be_database(folder: Path) -> bool:
    """Tell whether a folder of a data root may hold a database: not hidden, not noise, not a pack of train.prepare."""
    hidden = folder.name.startswith(".") or folder.name in _NO_DATABASE
    return folder.is_dir() and not hidden and not (folder / "records.json").exists()


def left_out(root: Path, databases: Sequence[str]) -> dict[str, str]:
    """Return the folders of a data root that are not read when these databases are asked for, and why, in words."""
    reasons: dict[str, str] = {}
    for folder in sorted(root.iterdir()):
        if not may_be_database(folder):
            continue
        if folder.name not in STATES and not has_signals(folder):
            reasons[folder.name] = "annotations without signals: there is nothing to condition"
        elif folder.name not in databases:
            known = folder.name in STATES
            reasons[folder.name] = "not asked for" if known else "no known database; --databases with its name reads signals only"
    return reasons


def has_signals(folder: Path) -> bool:
    """Tell whether a database's folder holds signals: a file that a WFDB header names, or one of another format."""
    headers = headers_of(folder)
    if not headers:
        return bool(list(folder.rglob("*.npy")) or generic_files(folder))
    for path in headers.values():
        try:
            header = read_header(path.with_name(f"{path.name}.hea"))
        except _TROUBLE:
            return True  # read_database says what is wrong with it
        if any(file_of(header.path, described.file) is not None for described in header.signals):
            return True
    return len(generic_files(folder)) > len(headers)
