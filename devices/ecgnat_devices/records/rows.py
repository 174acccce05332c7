"""Rows of a table as numbers, a piece after the other: quickly where they are plain, cell by cell where they are not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ecgnat_devices.records.contents import Values, wrong
from ecgnat_stream.tables import TURN_ROUND, Layout, cells_of, is_comment, is_missing, number
from ecgnat_stream.timeline import TextTimes

__all__ = ["Rows"]

_PIECE = 2**20
"""Characters that are read at once."""

_LINE = 2**16
"""Longest line."""

_EMPTY = re.compile(r"(?<=[,;\t|])(?=[,;\t|\n])|^(?=[,;\t|])", re.MULTILINE)
_GROUPED = re.compile(r"[-+]?\d{1,3}([,.'\N{RIGHT SINGLE QUOTATION MARK}\s]\d{3})+([.,]\d*)?")
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}\.\d{3}", re.ASCII)
_BELOW = re.compile(r"[-+]?\d{1,3}", re.ASCII)


class Rows:
    """Reads the rows of a table.

    Parameters
    ----------
    path, layout
        The table, and how it is written.
    columns
        Which columns are read.

    Attributes
    ----------
    cut_off
        Whether the last line was left out, as it ends within a row.
    """

    def __init__(self, path: Path, layout: Layout, columns: Sequence[int]) -> None:
        self._path, self._layout, self._columns = path, layout, list(columns)
        self._numbers = [at for at in columns if layout.columns[at].kind != "time"]
        self._clock = layout.clock if layout.clock in columns and layout.clock not in self._numbers else None
        self._time = TextTimes((*layout.times, *self._last_times()))
        self._starts: list[tuple[int, int]] = []
        # Columns in which points could stand between thousands: whether one holds a number below, and where one above.
        points = layout.decimal == "." and layout.delimiter in (";", "\t")
        self._thousands: dict[int, tuple[bool, int, str]] = dict.fromkeys(self._numbers if points else (), (False, 0, ""))
        self.cut_off = False

    def line_of(self, row: int) -> int:
        """Return which line of the file, counted from 1, holds a row."""
        first, line = next(start for start in reversed(self._starts) if start[0] <= row)
        return line + row - first

    def __iter__(self) -> Iterator[Values]:
        """Yield pieces ``(n, columns)``.

        Raises
        ------
        DeviceError
            If a row has another number of cells, or a cell holds no number; it says which.
        """
        total = 0
        for line, lines in self._pieces():
            day = self._time.day
            values = self._plain(lines)
            if values is None:
                self._time.day = day
                values = self._cell_by_cell(line, lines)
            self._look_for_thousands(line, lines)
            self._starts.append((total, line))
            total += len(values)
            yield values
        for at, (below, line, cell) in self._thousands.items():
            if below and line:
                name = self._layout.columns[at].name or f"{at + 1}"
                raise wrong(
                    self._path,
                    f"has in line {line} in its column {name} {cell!r} among whole numbers below 1000: its point could stand "
                    "before decimals or between thousands: save it without separators between thousands, or with the same number "
                    "of decimals in all cells",
                )

    def _look_for_thousands(self, first: int, lines: Sequence[str]) -> None:
        """Take note of columns that mix whole numbers with numbers of three digits behind the point, and hold no others."""
        if not self._thousands:
            return
        rows = [(line, cells_of(text, self._layout.delimiter)) for line, text in enumerate(lines, first) if text]
        for at in list(self._thousands):
            below, place, example = self._thousands[at]
            for line, cells in rows:
                cell = cells[at] if at < len(cells) else ""
                if _BELOW.fullmatch(cell):
                    below = True
                elif _THOUSANDS.fullmatch(cell):
                    place, example = (place, example) if place else (line, cell)
                elif not is_missing(cell):
                    del self._thousands[at]
                    break
            else:
                self._thousands[at] = below, place, example

    def _pieces(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of a line and it with those after it."""
        at, rest, skip = 1, "", self._layout.skip
        empty = 0
        with self._path.open(encoding=self._layout.encoding, errors="replace", newline=None) as file:
            while True:
                piece = file.read(_PIECE)
                lines = (rest + piece).split("\n")
                rest = lines.pop() if piece else ""
                if not piece and lines[-1].strip(" ") and self._is_cut_off(lines[-1]):
                    self.cut_off = bool(lines.pop())
                if len(rest) > _LINE or any(len(line) > _LINE for line in (lines if len(piece) > _LINE else ())):
                    raise wrong(self._path, f"has a line of more than {_LINE} characters: {TURN_ROUND}")
                first, at = at, at + len(lines)
                if skip:
                    cut = min(skip, len(lines))
                    skip, first, lines = skip - cut, first + cut, lines[cut:]
                # Empty lines at the end are no samples: they wait for what comes after them.
                lines = [""] * empty + lines
                first, empty = first - empty, 0
                while lines and not lines[-1].strip(" "):
                    lines.pop()
                    empty += 1
                if lines:
                    yield first, lines
                if not piece:
                    return

    def _is_cut_off(self, line: str) -> bool:
        """Return whether a last line, which no line break ends, lacks cells, or the end of a number."""
        cells = cells_of(line, self._layout.delimiter)
        return len(cells) < len(self._layout.columns) or re.fullmatch(r".*([eE][-+]?|[-+]|\.)", cells[-1]) is not None

    def _plain(self, lines: list[str]) -> Values | None:
        """Return the numbers of lines in which nothing is odd; None if something is."""
        layout = self._layout
        mark, cells = layout.delimiter, len(layout.columns)
        text = "\n".join(lines)
        if "_" in text or (cells == 1 and not layout.blanks and "\n\n" in text):
            return None
        if '"' in text or "'" in text:
            lines = text.replace('"', "").replace("'", "").split("\n")
            if not all(line.strip() for line in lines):
                return None  # a line of quotes alone is a row
        if mark is not None and any(line.count(mark) != cells - 1 for line in lines if line):
            return None  # among others, a delimiter between quotes
        times: list[float] = []
        try:
            if self._clock is not None:
                rows = [line.split(mark) for line in lines if line]
                times = [self._time(row[self._clock]) for row in rows]
                for row in rows:
                    row[self._clock] = "0"
                lines = [(mark or " ").join(row) for row in rows]
            if layout.decimal == ",":
                if any("." in line for line in lines):
                    return None
                lines = [line.replace(",", ".") for line in lines]
            numbers = self._load(lines)
        except (ValueError, LookupError):
            return None
        if self._clock is None:
            return numbers
        return np.insert(numbers, self._columns.index(self._clock), times, axis=1) if len(times) == len(numbers) else None

    def _load(self, lines: list[str]) -> Values:
        whole = len(self._numbers) == len(self._layout.columns)
        if self._layout.delimiter is None and not whole and len({len(line.split()) for line in lines if line.strip()}) > 1:
            raise ValueError("rows differ in length")

        def load(lines: list[str]) -> Values:
            return np.loadtxt(
                lines,
                delimiter=self._layout.delimiter if len(self._layout.columns) > 1 else None,
                usecols=None if whole else self._numbers,
                comments=None,
                ndmin=2,
                dtype=np.float64,
            )

        try:
            return load(lines)
        except ValueError:
            return load(_EMPTY.sub("nan", "\n".join(lines) + "\n").split("\n")[:-1])

    def _cell_by_cell(self, first: int, lines: list[str]) -> Values:
        layout = self._layout
        rows = []
        for line, text in enumerate(lines, first):
            if (not text.strip(" ") and layout.blanks) or is_comment(text):
                continue
            cells = cells_of(text, layout.delimiter) if text.strip(" ") else [""]
            if len(cells) != len(layout.columns):
                raise wrong(
                    self._path,
                    f"line {line} has {len(cells)} cells, but the lines above have {len(layout.columns)}: {text[:80]!r}",
                )
            rows.append([self._value(line, at, cells) for at in self._columns])
        return np.array(rows, np.float64).reshape(-1, len(self._columns))

    def _value(self, line: int, at: int, cells: Sequence[str]) -> float:
        layout, cell = self._layout, cells[at]
        try:
            if at == self._clock and cell:
                return self._time(cell)
            return number(cell, layout.decimal)
        except ValueError:
            pass
        name = layout.columns[at].name or f"{at + 1}"
        if layout.header and list(cells) == list(layout.header):
            what = "repeats the header: several tables in one file: cut it there"
        elif _GROUPED.fullmatch(cell):
            what = f"column {name} holds {cell!r}: numbers with separators between thousands are not read: save it without them"
        else:
            what = f"column {name} holds {cell[:40]!r}, which is no {'time' if at == self._clock else 'number'}"
        raise wrong(self._path, f"is no table of numbers: line {line} {'' if what[0] == 'r' else 'in its '}{what}")

    def _last_times(self) -> list[str]:
        """Return some times of the end of the table."""
        if self._layout.clock is None or not self._layout.times or not self._layout.encoding.startswith(("utf-8", "latin")):
            return []
        with self._path.open("rb") as file:
            file.seek(max(0, self._path.stat().st_size - 4096))
            lines = file.read().decode("latin-1").splitlines()[1:]
        rows = [cells_of(line, self._layout.delimiter) for line in lines]
        return [cells[self._layout.clock] for cells in rows if len(cells) == len(self._layout.columns)]
