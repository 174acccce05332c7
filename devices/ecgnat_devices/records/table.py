"""Tables of numbers: CSV and its kin, a row for each sample and a column for each lead.

The table goes once through bounded memory into a scratch file. A column of times, or of a counter, says where rows are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecgnat_devices.records.contents import MOST_SIGNALS, Asked, Contents, Signal, Values, wrong
from ecgnat_devices.records.rows import Rows
from ecgnat_devices.records.runs import Run, read_runs
from ecgnat_devices.records.scratch import Scratch
from ecgnat_stream.tables import BEGINNING, TURN_ROUND, Layout, NoTableError, layout
from ecgnat_stream.timeline import Timeline, TimelineError, is_time, timeline, unit_s
from ecgnat_stream.words import NAME, cleaned

__all__ = ["open_table"]


def open_table(path: Path, asked: Asked) -> Contents:
    """Open a table of numbers.

    Raises
    ------
    DeviceError
        If it is none, or its times are not usable.
    """
    table = _layout(path, asked)
    shown = [at for at, column in enumerate(table.columns) if column.kind == "number" or (column.kind == "text" and column.name)]
    if len(shown) > MOST_SIGNALS:
        raise wrong(path, f"has {len(shown)} columns: a recording has at most {MOST_SIGNALS} signals, a column for each lead")
    kept = [at for at, column in enumerate(table.columns) if column.kind == "number" or at == table.clock]
    scratch, rows = Scratch(path, len(kept)), Rows(path, table, kept)
    for values in rows:
        scratch.append(values)
    if not scratch.total:
        raise wrong(path, "holds no samples")
    nameless = not any(table.columns[at].name for at in shown)
    if nameless and 3 < len(shown) > scratch.total:
        raise wrong(
            path,
            f"has {scratch.total} rows and {len(shown)} columns: its rows look like leads: {TURN_ROUND}",
        )
    line, notes = _timeline(path, table, scratch, kept, rows, asked)
    notes += ("its last line is cut off and left out",) if rows.cut_off else ()
    runs, total = _runs(path, line, scratch, kept, table, rows)
    if line.doubles:
        notes += (f"{len(line.doubles)} of its rows are there twice and count once",)
    fs, rate_by = _rate(path, table, line, asked)

    def read(wanted: Sequence[int], start: int, stop: int) -> Values:
        places = [shown[row] for row in wanted]
        if text := next((table.columns[at].name for at in places if table.columns[at].kind == "text"), None):
            raise wrong(path, f"column {cleaned(text, NAME)} holds text: choose other leads")
        return read_runs(runs, [kept.index(at) for at in places], start, stop, scratch.read)

    signals = (
        Signal(table.columns[at].name, fs, "text" if table.columns[at].kind == "text" else table.columns[at].unit, total)
        for at in shown
    )
    return Contents(tuple(signals), read, notes, rate_by)


def _layout(path: Path, asked: Asked) -> Layout:
    with path.open("rb") as file:
        begins = file.read(BEGINNING)
    try:
        found = layout(begins)
        if found.unclear and asked.leads is not None and len(asked.leads) < 3:
            found = layout(begins, len(asked.leads))
    except NoTableError as error:
        raise wrong(path, str(error)) from error
    if found.unclear:
        raise wrong(path, found.unclear)
    return found


def _called(table: Layout) -> str:
    name = "" if table.clock is None else cleaned(table.columns[table.clock].name, NAME)
    return f"its column {name}" if name else "its first column"


def _timeline(
    path: Path, table: Layout, scratch: Scratch, kept: Sequence[int], rows: Rows, asked: Asked
) -> tuple[Timeline, tuple[str, ...]]:
    none = Timeline(None, 0.0, ())
    if table.clock is None:
        return none, ()
    column, at = table.columns[table.clock], kept.index(table.clock)
    unit = 1.0 if column.kind == "time" else unit_s(column.unit) or unit_s(column.name)
    try:
        line = timeline(
            lambda start, stop: scratch.read([at], start, stop)[0],
            scratch.total,
            unit,
            fs=asked.fs or table.fs,
            times=is_time(column.name),
        )
    except TimelineError as error:
        raise wrong(path, f"line {rows.line_of(error.row)}, {_called(table)}: {error}; {error.cure}") from error
    if line is None and scratch.total > 1:
        return none, (f"{_called(table)} does not tell when its rows were sampled: it is not used",)
    return line or none, ()


def _runs(path: Path, line: Timeline, scratch: Scratch, kept: Sequence[int], table: Layout, rows: Rows) -> tuple[list[Run], int]:
    """Return the runs without a hole; a row that is there twice counts once."""
    missing = dict(line.holes)
    twice = set(line.doubles)
    numbers = [place for place, at in enumerate(kept) if at != table.clock]
    for row in line.doubles:
        before, here = scratch.read(numbers, row - 1, row + 1).T
        if not np.array_equal(before, here, equal_nan=True):
            raise wrong(path, f"line {rows.line_of(row)} has the time of the line before ({_called(table)}), but other samples")
    runs, start, at = [], 0, 0
    for row in sorted({*missing, *twice, scratch.total}):
        if row > at:
            runs.append(Run(start, at, row - at))
            start, at = start + row - at, row
        start, at = start + missing.get(row, 0), at + (row in twice)
    return runs, start


def _rate(path: Path, table: Layout, line: Timeline, asked: Asked) -> tuple[float | None, str]:
    if line.vague and asked.fs is None and table.fs is None:
        raise wrong(
            path, f"{_called(table)} holds stamps too coarse to say its rate: give fs in Hz, on the command line --fs 250"
        )
    if line.fs is None:
        return table.fs, ""
    if asked.fs is not None and line.agrees(asked.fs):
        return asked.fs, _called(table)
    if table.fs is not None and not line.agrees(table.fs):
        raise wrong(
            path,
            f"states a rate of {table.fs:g} Hz above its samples, but {line.fs:g} Hz by {_called(table)}: remove what is wrong",
        )
    return table.fs or line.fs, _called(table)
