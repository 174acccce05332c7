"""Labels of one's own: a folder of recordings and a CSV with one label per recording, or per stretch of one.

In: ``path,label`` or ``path,start_s,stop_s,label``, and optionally ``patient`` and ``split``. Out: rows that were checked, split
by person, and records for :func:`train.data.pack.write_pack`. What is wrong is a :class:`LabelsError` that names file, line,
column and what to do; nothing is passed over.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from ecgnat_stream.errors import EcgnatError
from ecgnat_stream.suggest import close_to
from train.data.labels import UNSTATED
from train.data.record import Record, opened, read_leads, sidecar_of, whole

__all__ = ["COLUMNS", "FEWEST", "Labelled", "LabelsError", "read_labels", "records_of", "split"]

COLUMNS = ("path", "label", "start_s", "stop_s", "patient", "split")
"""Columns of the CSV; the first two are needed, start_s and stop_s come together."""

FEWEST = 5
"""Persons (or recordings, where persons are not stated) that every class needs."""

SHORTEST_S = 2.0

_VAL_SHARE = 0.25
_SHOWN = 10
_WFDB = (".hea", ".dat", ".mat")


class LabelsError(ValueError):
    """A CSV of labels that cannot be used; the message has one line per problem."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """One row of the CSV.

    Parameters
    ----------
    line
        Where it stands in the file.
    path
        As written, relative to the folder of recordings.
    start_s, stop_s
        Of the stretch, s; None for the whole recording.
    person
        The stated patient, else the recording.
    split
        "train", "val", or "" where the file does not say.
    """

    line: int
    path: str
    label: str
    start_s: float | None
    stop_s: float | None
    person: str
    split: str

    @property
    def name(self) -> str:
        """The path, with the stretch if there is one."""
        return self.path if self.start_s is None else f"{self.path} {self.start_s:g}-{self.stop_s:g} s"


class _Problems:
    """Collects what is wrong in a file, and says it at once."""

    def __init__(self, file: Path) -> None:
        self.file, self.found = file, dict[tuple[int, str], str]()

    def add(self, line: int, column: str, what: str) -> None:
        """Note one problem; a cell has one at most."""
        self.found.setdefault((line, column), what)

    def check(self) -> None:
        """Raise if there is any."""
        if not self.found:
            return
        lines = [
            f"{self.file}, line {line}{f', column {column}' * bool(column)}: {what}"
            for (line, column), what in sorted(self.found.items())
        ]
        more = [f"... and {len(lines) - _SHOWN} more"] * (len(lines) > _SHOWN)
        raise LabelsError("\n".join([*lines[:_SHOWN], *more]))


def read_labels(file: Path, folder: Path) -> list[Labelled]:
    """Return the rows of a CSV, checked as far as that goes without opening the recordings.

    Raises
    ------
    LabelsError
        Names every problem by line and column, up to ten.
    """
    if not folder.is_dir():
        raise LabelsError(f"{folder} is no folder: --data wants the folder of the recordings")
    header, lines = _cells(file)
    problems = _Problems(file)
    rows: list[Labelled] = []
    for line, cells in lines:
        if len(cells) != len(header):
            problems.add(line, "", f"it has {len(cells)} cells, the header has {len(header)}: quote what holds a comma")
            continue
        row = _row(line, dict(zip(header, cells, strict=True)), folder, problems)
        rows.append(row)
    if not lines:
        raise LabelsError(f"{file}, line 1: there is a header and no row: want one line per recording below it")
    problems.check()
    _repeated(rows, problems)
    _sides(rows, problems)
    problems.check()
    _enough(rows, file)
    return rows


def split(rows: Sequence[Labelled], file: Path, seed: int = 0) -> list[Labelled]:
    """Return the rows with "train" or "val" each, no person in both; as the file says where it does, else a quarter is "val".

    Raises
    ------
    LabelsError
        If a class lacks in one of the two.
    """
    if not any(row.split for row in rows):
        rng = np.random.default_rng(seed)
        of = Counter(row.label for row in rows)
        rarest: dict[str, str] = {}
        for row in sorted(rows, key=lambda row: of[row.label], reverse=True):
            rarest[row.person] = row.label
        val: set[str] = set()
        for label in sorted(of):
            persons = sorted(person for person, own in rarest.items() if own == label)
            val |= {persons[i] for i in rng.permutation(len(persons))[: max(round(_VAL_SHARE * len(persons)), 1)]}
        rows = [replace(row, split="val" if row.person in val else "train") for row in rows]
    for part in ("train", "val"):
        if lacking := sorted({row.label for row in rows} - {row.label for row in rows if row.split == part}):
            raise LabelsError(
                f"{file}, column split: no row of class {lacking[0]!r} is {part}: every class is needed in both; "
                "leave the column out and persons are drawn so"
            )
    return list(rows)


def records_of(rows: Sequence[Labelled], file: Path, folder: Path) -> Iterator[Record]:
    """Open the recordings and yield one record per row, with its label as ``codes``.

    Raises
    ------
    LabelsError
        For a recording that cannot be read, or a stretch that reaches beyond its end.
    """
    problems = _Problems(file)
    for row in rows:
        path = folder / row.path
        try:
            source, slots = opened(path, sidecar_of(path, folder))
            length_s = source.total / source.fs
            start_s, stop_s = row.start_s or 0.0, length_s if row.stop_s is None else row.stop_s
            if stop_s > length_s + 0.5 / source.fs:
                problems.add(row.line, "stop_s", f"{stop_s:g} s lies beyond the end of {row.path}, {length_s:.1f} s")
                continue
            if stop_s - start_s < SHORTEST_S:
                problems.add(row.line, "path", f"{row.name} has {stop_s - start_s:.2g} s: {SHORTEST_S:g} s are the least")
                continue
            start, stop = round(start_s * source.fs), min(round(stop_s * source.fs), source.total)
            samples = read_leads(source, slots, start, stop)
        except (EcgnatError, ValueError, OSError, msgspec.DecodeError) as error:
            problems.add(row.line, "path", f"{row.path} cannot be read: {error}")
            continue
        yield Record("own", row.name, row.split, source.fs, samples, whole(samples, UNSTATED), codes=(row.label,))
    problems.check()


def _cells(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header, and the cells of every line that is not blank with its number."""
    if not file.is_file():
        raise LabelsError(f"{file} is no file: --labels wants a CSV with the columns path and label")
    raw = file.read_bytes()
    if not raw.strip():
        raise LabelsError(f"{file} is empty: want a line path,label and one line per recording below it")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise LabelsError(
            f"{file}, line {line}: byte 0x{raw[error.start]:02x} is not UTF-8: save the file as CSV UTF-8"
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise LabelsError(f"{file}, line {reader.line_num}: {error}: a quote that is not closed?") from None
    line, header = lines[0]
    if "path" not in header and (wrong := next((mark for mark in (";", "\t") if mark in header[0]), None)):
        raise LabelsError(f"{file}, line {line}: the columns are separated by {wrong!r}: want commas")
    for needed in ("path", "label"):
        if needed not in header:
            raise LabelsError(f"{file}, line {line}: there is no column {needed}: want path and label, found {', '.join(header)}")
    if twice := next((name for name in header if header.count(name) > 1), None):
        raise LabelsError(f"{file}, line {line}: column {twice} stands twice")
    for name in header:
        if name not in COLUMNS and (close := close_to(name, [known for known in COLUMNS if known not in header])):
            raise LabelsError(f"{file}, line {line}: column {name!r}: did you mean {close[0]}? Columns are {', '.join(COLUMNS)}")
    if ("start_s" in header) != ("stop_s" in header):
        lone = "start_s" if "start_s" in header else "stop_s"
        raise LabelsError(f"{file}, line {line}: column {lone} stands alone: start_s and stop_s come together")
    return header, lines[1:]


def _row(line: int, cells: dict[str, str], folder: Path, problems: _Problems) -> Labelled:
    path, label = cells["path"], cells["label"]
    for column in ("path", "label"):
        if not cells[column]:
            problems.add(line, column, "the cell is empty")
    if path and (what := _wrong_path(path, folder)):
        problems.add(line, "path", what)
    times: dict[str, float | None] = {}
    for column in ("start_s", "stop_s"):
        times[column] = _seconds(line, column, cells.get(column, ""), problems)
    start_s, stop_s = times["start_s"], times["stop_s"]
    if (start_s is None) != (stop_s is None):
        problems.add(line, "start_s" if start_s is None else "stop_s", "the cell is empty: give both times, or none")
    if start_s is not None and stop_s is not None and start_s >= stop_s:
        problems.add(line, "start_s", f"{start_s:g} s is not less than stop_s, {stop_s:g} s")
    part = cells.get("split", "")
    if part not in ("train", "val", ""):
        problems.add(line, "split", f"{part!r}: want train or val; keep recordings for a later test in a file of their own")
    stem = os.path.normpath(path)
    recording = stem[: -len(Path(stem).suffix)] if Path(stem).suffix.lower() in _WFDB else stem
    return Labelled(line, path, label, start_s, stop_s, cells.get("patient", "") or recording, part)


def _wrong_path(path: str, folder: Path) -> str:
    """Return what is wrong with a path, or nothing."""
    if os.path.isabs(path) or os.path.normpath(path).split(os.sep)[0] == os.pardir:
        return f"{path} lies outside of {folder}: paths are relative to it"
    found = folder / path
    if found.is_dir():
        return f"{path} is a folder: name one recording"
    if not found.is_file() and not found.with_name(f"{found.name}.hea").is_file():
        near = close_to(found.name, [one.name for one in found.parent.iterdir()]) if found.parent.is_dir() else []
        return f"there is no recording {path} in {folder}" + f": did you mean {near[0] if near else ''}?" * bool(near)
    return ""


def _seconds(line: int, column: str, cell: str, problems: _Problems) -> float | None:
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        problems.add(line, column, f"{cell!r} is no time in seconds from 0")
        return None
    return value


def _repeated(rows: Sequence[Labelled], problems: _Problems) -> None:
    seen: dict[tuple[str, float | None, float | None], Labelled] = {}
    for row in rows:
        first = seen.setdefault((os.path.normpath(row.path), row.start_s, row.stop_s), row)
        if first is not row:
            same = first.label == row.label
            what = (
                f"the same row as line {first.line}"
                if same
                else f"{row.label!r} contradicts {first.label!r} in line {first.line}"
            )
            problems.add(row.line, "path" if same else "label", what)


def _sides(rows: Sequence[Labelled], problems: _Problems) -> None:
    """Refuse a split that is stated for some rows only, or differs within a person."""
    stated = next((row for row in rows if row.split), None)
    first: dict[str, Labelled] = {}
    for row in rows:
        if stated and not row.split:
            problems.add(
                row.line, "split", f"the cell is empty, line {stated.line} has {stated.split!r}: give it for every row, or none"
            )
        before = first.setdefault(row.person, row)
        if before.split and row.split and before.split != row.split:
            problems.add(row.line, "split", f"{row.person} is {row.split!r} here and {before.split!r} in line {before.line}")


def _enough(rows: Sequence[Labelled], file: Path) -> None:
    persons: dict[str, set[str]] = {}
    for row in rows:
        persons.setdefault(row.label, set()).add(row.person)
    if len(persons) < 2:
        raise LabelsError(f"{file}, column label: all rows are of the class {next(iter(persons))!r}: want two or more")
    few = {label: len(own) for label, own in persons.items() if len(own) < FEWEST}
    if few:
        counted = ", ".join(f"{label!r} has {count}" for label, count in sorted(few.items()))
        raise LabelsError(f"{file}, column label: {counted} persons or recordings: want {FEWEST} of every class")
