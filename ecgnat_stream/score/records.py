"""Which records a folder holds, and which of them are scored."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.clock import SystemClock
from ecgnat_stream.device import open_device
from ecgnat_stream.errors import EcgnatError
from ecgnat_stream.signal import StreamInfo

__all__ = ["ScoreError", "headers_of", "open_leads", "select", "vf_table"]


class ScoreError(EcgnatError):
    """A database or record that cannot be scored."""


def select(folder: Path, paths: Mapping[str, Path], names: Sequence[str], split: str) -> list[tuple[str, str]]:
    """Return the records to score with their split: those named, else those of the split, else (no ``splits.csv``) all.

    Raises
    ------
    ScoreError
        If there is none.
    """
    database = folder.resolve().name
    splits: dict[str, str] = {}
    for table in (folder / "splits.csv", folder.resolve().parent / "splits.csv"):
        if not splits and table.is_file():
            with table.open(newline="", encoding="utf-8-sig") as file:
                splits = {row["record"]: row["split"] for row in csv.DictReader(file) if row["database"] == database}
    if names:
        return [(name, splits.get(name, "")) for name in names if name in paths]
    chosen = [(name, splits.get(name, "")) for name in sorted(paths)]
    if splits and split != "all":
        chosen = [(name, of) for name, of in chosen if of == split]
    if not chosen:
        raise ScoreError(f"{folder}: splits.csv has no record in the split {split!r}")
    return chosen


def headers_of(folder: Path) -> dict[str, Path]:
    """Return the records of a folder, or below it, by name, without the segments that a RECORDS file leaves out."""
    listed: set[Path] = set()
    covered: set[Path] = set()
    for table in folder.rglob("RECORDS"):
        names = [line.strip() for line in table.read_text(encoding="utf-8", errors="replace").splitlines()]
        found = {table.parent / name for name in names if name and not name.endswith("/")}
        listed |= found
        covered |= {table.parent} if found else set()
    paths = sorted(path.with_suffix("") for path in folder.rglob("*.hea"))
    return {path.name: path for path in paths if path in listed or covered.isdisjoint(path.parents)}


def open_leads(path: Path) -> tuple[StreamInfo, Callable[[int, int], NDArray[np.float32]]]:
    """Open the leads of a record as the monitor does: what they are, and what reads a part of them, ``(L, T)`` in mV.

    Raises
    ------
    DeviceError
        If it cannot be opened.
    """
    device: Any = open_device("replay", {"path": str(path), "speed": "max"}, SystemClock())
    opened: tuple[StreamInfo, Callable[[int, int], NDArray[np.float32]]] = device.open()
    return opened


def vf_table(folder: Path) -> dict[str, list[tuple[int, int]]] | None:
    """Return the episodes of VF in samples by record, where a table beside the records pairs the marks."""
    table = next(iter(sorted(folder.rglob("vf_episodes.csv"))), None)
    if table is None:
        return None
    found: dict[str, list[tuple[int, int]]] = {}
    with table.open(newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["record"], []).append((int(row["start"]), int(row["stop"])))
    return found
