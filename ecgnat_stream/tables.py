"""What a table looks like: CSV and its kin, as people, spreadsheets and recorders write them. Only the beginning is looked at.

What is found: encoding, delimiter, decimal point or comma, the lines before the first row of samples, name, unit and kind of each
column, and the rate if the lines before say it. The reader of tables and the search of folders use the same.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from ecgnat_stream.signal import is_ecg, mv_per
from ecgnat_stream.timeline import TextTimes, is_index, is_time, unit_s
from ecgnat_stream.words import NAME, cleaned

__all__ = [
    "BEGINNING",
    "TURN_ROUND",
    "Column",
    "Layout",
    "NoTableError",
    "cells_of",
    "decoded",
    "is_comment",
    "is_missing",
    "layout",
    "name_and_unit",
    "number",
]

BEGINNING = 65_536
"""Bytes of a file that are looked at."""

_RISES = 12
"""From how many rows on a first column of a table without names, which only rises, is no ECG but times or a count."""

_ROWS = 200
"""Rows of samples that are looked at."""

_MOST_NAMELESS = 64
"""Most columns of a table that names none: more are the samples of a heartbeat, or of a lead, in one row."""

_MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "-", "--", "#n/a", "#na", "missing", ".", "?", "nil", "(null)"))

_POINT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|[-+]?inf(inity)?", re.ASCII | re.IGNORECASE)
_COMMA = re.compile(r"[-+]?(\d+(,\d*)?|,\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
_GROUPED = re.compile(r"[-+]?\d{1,3}(\.\d{3})+,\d+", re.ASCII)
_UNIT_IN = re.compile(
    r"(?P<name>.*?)\s*(?:[\[(](?P<in>[^\])]*)[\])]|(?:[_/,]\s*(?P<after>[unµμm]V)|/\s*(?P<volts>V)))\s*", re.IGNORECASE
)
_BEATS = re.compile(r"(rr|r-r|nn|ibi|rri)([\s_-]*(interval|int|s|ms|sec|peaks?))*s?([\s_]*[(\[].*)?", re.IGNORECASE)
_COMMENT = ("#", "%", "//")
_UNIT_LIKE = frozenset((
    "", "cal", "raw", "uncal", "no units", "no unit", "nu", "unitless", "bpm", "mmhg", "%", "g", "m/(s^2)", "m/s^2", "deg/s",
    "ohms", "kohms", "local_flux", "°c", "degrees celsius", "hz", "counts", "adu", "lsb", "date", "yyyy/mm/dd hh:mm:ss.000",
))  # fmt: skip
_CLOCK_LIKE = re.compile(r"\W*(h+:)?m+:s+([.,]\w+)?(\s*dd/mm/yyyy)?\W*|unix.*|y+-m+-d+.*", re.IGNORECASE)

_RATE = re.compile(
    r"(?:sampl\w*[\s_-]*(?:rate|freq\w*)|abtast\w*|\bfs\b|\bs?rate\b|\bsfreq\b|échantillonnage|muestreo|campionamento)"
    r"[^0-9\r\n]{0,40}?(?P<rate>\d+(?:[.,]\d+)?)\s*(?P<kilo>k)?",
    re.IGNORECASE,
)
_HERTZ = re.compile(r"(?P<rate>\d+(?:[.,]\d+)?)\s*(?P<kilo>k)?\s*(?:hz|hertz)", re.IGNORECASE)
_LEAD = re.compile(r".*\b(I{1,3}|aV[RLF]|V[1-6])", re.DOTALL)

_OTHERS = (
    (b"PK\x03\x04", "is a spreadsheet of Excel or a ZIP archive"),
    (b"\xd0\xcf\x11\xe0", "is a spreadsheet or document of an old Office"),
    (b"%PDF", "is a PDF"),
    (b"SQLite format 3", "is a database"),
    (b"PAR1", "is a Parquet file"),
    (b"\x89HDF", "is an HDF5 file"),
    (b"ARROW1", "is a Feather file"),
    *((bytes((0x80, version)), "is a pickle of Python") for version in range(2, 6)),
)
TURN_ROUND = "a row for each sample is needed; if its rows are leads, turn it round (in pandas df.T)"
"""What to do with leads as rows."""

_SAVE = "save its table as CSV, a row for each sample and a column for each lead"

Kind = Literal["number", "text", "index", "time"]


class NoTableError(ValueError):
    """Why something is no table of samples, as a sentence without a subject."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Parameters
    ----------
    name, unit
        As the table says; "" if it does not.
    kind
        "number" for samples; "index" for numbers that count or time the rows, "time" for times as text; "text" for all other.
    """

    name: str
    unit: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table is written.

    Parameters
    ----------
    encoding
        For ``open``.
    delimiter
        Between cells; None for blanks.
    decimal
        "." or ",".
    skip
        Lines before the first row of samples.
    columns
        One for each cell of a row.
    header
        The cells of the line with the names; empty if there is none.
    fs
        Rate in Hz, if the lines before say it.
    blanks
        Whether empty lines say nothing; else one is a missing sample, if there is one column.
    clock
        Which column places the rows in time; None if none does.
    times
        Some times of that column, if they are text.
    unclear
        Why it could be one column with decimal commas as well as two; "" if it could not.
    """

    encoding: str
    delimiter: str | None
    decimal: str
    skip: int
    columns: tuple[Column, ...]
    header: tuple[str, ...] = ()
    fs: float | None = None
    blanks: bool = True
    clock: int | None = None
    times: tuple[str, ...] = ()
    unclear: str = ""


def is_comment(line: str) -> bool:
    """Return whether a line is a comment, and no row that begins with a missing value as spreadsheets write it."""
    return line.lstrip().startswith(_COMMENT) and not re.match(r"\s*#N/?A\b", line)


def is_missing(cell: str) -> bool:
    """Return whether a cell says that there is no value."""
    return cell.strip().strip("\"'").lower() in _MISSING


def number(cell: str, decimal: str = ".") -> float:
    """Return the number in a cell, NaN for a missing one.

    Raises
    ------
    ValueError
        If there is none.
    """
    text = cell.strip().strip("\"'").strip().replace("\N{MINUS SIGN}", "-")
    if decimal == "," and (_COMMA.fullmatch(text) or _GROUPED.fullmatch(text)):
        return float((text.replace(".", "") if "." in text else text).replace(",", "."))
    if decimal == "." and _POINT.fullmatch(text):
        return float(text)
    if is_missing(text):
        return float("nan")
    raise ValueError(f"{cell!r} is no number")


def cells_of(line: str, delimiter: str | None) -> list[str]:
    """Return the cells of a line, without blanks and quotes around them."""
    if delimiter is None:
        row = line.split()
    elif '"' in line:
        row = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    else:
        row = line.split(delimiter)
    return [_bare(cell) for cell in row]


def _bare(cell: str) -> str:
    cell = cell.strip()
    return cell[1:-1].strip() if len(cell) > 1 and cell[0] == cell[-1] and cell[0] in "\"'" else cell


def decoded(begins: bytes) -> tuple[str, str]:
    """Return the text that a file begins with, and its encoding: UTF-16 and UTF-8 if it is, else Latin-1."""
    if begins[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        encoding = "utf-16"
    elif len(begins) > 3 and not begins[1] and not begins[3] and begins[0] and begins[2]:
        encoding = "utf-16-le"
    elif len(begins) > 3 and not begins[0] and not begins[2] and begins[1] and begins[3]:
        encoding = "utf-16-be"
    else:
        try:
            codecs.getincrementaldecoder("utf-8")().decode(begins)
            encoding = "utf-8-sig"
        except UnicodeDecodeError:
            encoding = "latin-1"
    text = codecs.getincrementaldecoder(encoding)("replace").decode(begins)
    return text.removeprefix("\ufeff"), encoding


def layout(begins: bytes, columns: int | None = None) -> Layout:
    """Return how a table is written.

    Parameters
    ----------
    begins
        The first :data:`BEGINNING` bytes of the file, or all of it.
    columns
        How many columns of samples it has, if that is known and could be read in two ways.

    Raises
    ------
    NoTableError
        If it is no table of samples; it says what it is, and what to do.
    """
    if other := next((what for magic, what in _OTHERS if begins.startswith(magic)), None):
        raise NoTableError(f"{other}, not a table as text: {_SAVE}")
    text, encoding = decoded(begins)
    if "\0" in text:
        raise NoTableError("is no table of numbers: it is not text")
    _refuse_other_text(text)
    lines = io.StringIO(text, newline=None).read().split("\n")
    if len(begins) >= BEGINNING:
        lines.pop()  # perhaps not whole
        if not lines:
            raise NoTableError(f"has a line of more than {BEGINNING} characters: {TURN_ROUND}")
    return _Look(lines, encoding).layout(columns)


def _refuse_other_text(text: str) -> None:
    start = text.lstrip()[:200]
    if start[:1] == "<":
        raise NoTableError(f"is HTML or XML, not a table as text: {_SAVE}")
    if start[:1] == "{" or (re.match(r'\[\s*[\[{"\d-]', start) and not TextTimes.fits(start[: start.find("]") + 1])):
        raise NoTableError(f"is JSON, not a table as text: {_SAVE}")


class _Look:
    """Looks at the lines of a table."""

    def __init__(self, lines: Sequence[str], encoding: str) -> None:
        self._lines, self._encoding = list(lines), encoding
        self._is_comment = [is_comment(line) for line in self._lines]
        said = next((re.fullmatch(r"\"?sep=(.|\\t)\"?", line.strip("\r\n ")) for line in self._lines[:2] if line.strip()), None)
        self._said = said and said[1].replace("\\t", "\t")
        self._full = [
            at
            for at, line in enumerate(self._lines)
            if line.strip(" ") and not self._is_comment[at] and not (self._said and at < 2 and "sep=" in line)
        ]

    def layout(self, columns: int | None) -> Layout:
        if not self._full:
            raise NoTableError(
                "is no table of numbers: it holds nothing" if not any(self._is_comment) else "is no table of numbers"
            )
        delimiters: tuple[str | None, ...] = (self._said,) if self._said else ("\t", ";", ",", "|", None)
        delimiter, width = max(((mark, *self._judge(mark)) for mark in delimiters), key=lambda found: found[1:3])[::3]
        unclear = sure = ""
        if delimiter == "," and width == 2 and self._could_be_decimals():
            names = self._names_above()
            if names == 1 or columns == 1 or (names is None and self._rate_and_unit_above()):
                delimiter, width, sure = "\t", 1, ","
            elif names is None and columns is None:
                unclear = _unclear(self._lines[self._full[-1]])
        table = {at: cells_of(self._lines[at], delimiter) for at in self._full}
        rows = {at: cells for at, cells in table.items() if len(cells) == width}
        tail = self._tail(rows)
        self._trailing = width > 1 and not any(cells[-1] for cells in tail)
        decimal = sure or _decimal(tail)
        kinds = [_kind([cells[column] for cells in tail], decimal) for column in range(width)]
        first = self._first(rows, kinds, decimal)
        if first is None:
            raise NoTableError(f"is no table of numbers{self._units_in_cells(rows)}")
        header, units = self._header(table, first, width)
        skip, data = first, [rows[at] for at in rows if at >= first]
        if not header and _is_count_header(data):
            header = ["" if data[0][0] else "index", *[""] * (width - 1)]
            skip, data = skip + 1, data[1:]
        elif not header:
            header = self._commented_names(first, width, delimiter)
        return self._described(data, kinds, header, units, delimiter, decimal, skip, unclear)

    def _units_in_cells(self, rows: dict[int, list[str]]) -> str:
        """Say where a cell holds a number with its unit; "" if none does."""
        for at, cells in rows.items():
            for column, cell in enumerate(cells):
                match = re.fullmatch(r"[-+]?[\d.,]*\d\s*([^\W\d]{1,8})", cell)
                if match and mv_per(match[1]) is not None:
                    name = next(iter(rows.values()))[column]
                    called = f"column {cleaned(name, NAME)}" if name[:1].isalpha() else f"column {column + 1}"
                    return (
                        f": line {at + 1} in its {called} holds {cell[:40]!r}, a number with its unit: write only numbers, and "
                        f"the unit into the name of the column, as in II ({match[1]})"
                    )
        return ""

    def _could_be_decimals(self) -> bool:
        return all(re.fullmatch(r"\s*[-+]?\d+,\d+\s*", self._lines[at]) for at in self._full[len(self._full) // 2 :][-_ROWS:])

    def _names_above(self) -> int | None:
        """Return how many names stand above the numbers; None if none do."""
        above = [at for at in self._full if not re.match(r"\s*[-+]?[\d.,]", self._lines[at])]
        cells = cells_of(self._lines[above[-1]], ",") if above else []
        return len(cells) if cells and not self._rate_and_unit_above() else None

    def _rate_and_unit_above(self) -> bool:
        """Return whether lines with a name and a value stand above, and a unit or a rate is among them."""
        rows = [cells_of(line, ",") for line in self._lines]
        return any(len(cells) == 2 and ((len(cells[1]) > 1 and mv_per(cells[1])) or _HERTZ.fullmatch(cells[1])) for cells in rows)

    def _judge(self, mark: str | None) -> tuple[float, int, int]:
        """Return how well a delimiter fits: the part of cells that are values, and how many cells a row has; and that again."""
        rows = [cells_of(self._lines[at], mark) for at in self._full[-_ROWS:]]
        widths = [len(cells) for cells in rows]
        width = max(set(widths), key=widths.count)
        cells = [cell for row in rows if len(row) == width for cell in row]
        values = sum(1 for cell in cells if _is_value(cell))
        even = widths.count(width) / len(widths)
        return round(even * (0.5 + values / len(cells)) + 0.5 * (width > 1), 1), width, width

    def _tail(self, rows: dict[int, list[str]]) -> list[list[str]]:
        found = list(rows.values())
        return found[max(len(found) // 2, len(found) - _ROWS) :]

    def _first(self, rows: dict[int, list[str]], kinds: Sequence[Kind], decimal: str) -> int | None:
        """Return the line of the first row of samples."""
        if "number" not in kinds:
            return None
        for at, cells in rows.items():
            fits = [kind != "number" or _is_number(cell, decimal) for cell, kind in zip(cells, kinds, strict=True)]
            some = any(kind == "number" and not is_missing(cell) for cell, kind in zip(cells, kinds, strict=True))
            if all(fits) and (some or at > next(iter(rows))):
                return at
        return None

    def _header(self, table: dict[int, list[str]], first: int, width: int) -> tuple[list[str], list[str]]:
        """Return the cells of the line with the names, and those of the line with the units."""
        block: list[list[str]] = []
        for at in reversed([at for at in table if at < first]):
            cells = table[at]
            if len(cells) > width > 1 and "  " in self._lines[at].strip():  # names with blanks in them, between blanks
                cells = [_bare(cell) for cell in re.split(r"\s{2,}|\t", self._lines[at].strip())]
            if len(cells) == width - 1 and width > 1:
                cells = [*cells, ""] if self._trailing else ["", *cells]  # R names no column of the row names
            if len(cells) != width:
                break
            block.insert(0, cells)
        units: list[str] = []
        while len(block) > 1 and all(_is_unit_like(cell) for cell in block[-1]):
            last = [re.sub(r"^[(\[]\s*(.*?)\s*[)\]]$", r"\1", cell) for cell in block.pop()]
            units = last if not units or sum(mv_per(cell) is not None for cell in last) else units
        if width == 1 and block and is_ecg(cells_of(block[-1][0], ",")[0]) is not True and len(_pair(block[-1][0])) == 2:
            block = []  # a name and its value, as the lines above
        return (block[-1] if block else []), units

    def _commented_names(self, first: int, width: int, delimiter: str | None) -> list[str]:
        """Return the names in the last comment before the samples, or in a header of OpenSignals."""
        comments = [self._lines[at].strip().lstrip("#%/ ") for at in range(first) if self._is_comment[at]]
        for comment in comments:
            if comment.startswith("{"):
                try:
                    device = next(iter(json.loads(comment).values()))
                    if len(device["column"]) == width - self._trailing:
                        return [*map(str, device["column"]), *[""] * self._trailing]
                except (ValueError, LookupError, TypeError, AttributeError, StopIteration, RecursionError):
                    continue
        names = cells_of(comments[-1], delimiter) if comments else []
        names += [""] * (self._trailing and len(names) == width - 1)
        return names if len(names) == width and (width > 1 or is_ecg(names[0]) is True) else []

    def _described(
        self,
        data: Sequence[list[str]],
        kinds: Sequence[Kind],
        header: Sequence[str],
        units: Sequence[str],
        delimiter: str | None,
        decimal: str,
        skip: int,
        unclear: str,
    ) -> Layout:
        before = [self._lines[at] for at in range(skip)]
        preamble = [cells for line in before for cells in [_pair(line)] if len(cells) == 2]
        unit_of_all = next((value for _, value in preamble if len(value) > 1 and mv_per(value) is not None), "")
        lead = next((match[1] for key, value in preamble if not header and (match := _LEAD.fullmatch(value)) and key), "")
        columns = []
        for at, kind in enumerate(kinds):
            name, unit = name_and_unit(header[at] if at < len(header) else "")
            unit = units[at] if at < len(units) and units[at] else unit
            if kind == "number" and not header:
                name, unit = (lead if kinds.count("number") == 1 else ""), unit_of_all
            elif kind == "number" and not unit and name.upper().startswith("EXG CHANNEL"):
                unit = "uV"  # of the OpenBCI GUI
            cells = [row[at] for row in data]
            counts = (
                kind == "number"
                and len(kinds) > 1
                and _counts(header[at] if at < len(header) else None, at, cells, decimal, any(header))
            )
            columns.append(Column(name, unit, "index" if counts else kind))
        if self._trailing and not columns[-1].name:
            columns[-1] = Column("", "", "text")
        self._refuse_odd(columns, data)
        clock = _clock(columns, data)
        _refuse_unread_times(columns, clock, data)
        times = tuple(row[clock] for row in data[:_ROWS]) if clock is not None and columns[clock].kind == "time" else ()
        nothing = sum(not line.strip(" ") for line in self._lines[skip:])
        return Layout(
            self._encoding,
            delimiter,
            decimal,
            skip,
            tuple(columns),
            tuple(header),
            _rate("\n".join(before), preamble),
            len(columns) > 1 or nothing > 0.4 * len(data),
            clock,
            times,
            unclear,
        )

    def _refuse_odd(self, columns: Sequence[Column], data: Sequence[list[str]]) -> None:
        numbers = [column for column in columns if column.kind == "number"]
        texts = [column for column in columns if column.kind == "text" and column.name]
        if not numbers:
            raise NoTableError("is no table of numbers" if texts else "holds no samples: its columns count its rows")
        beats = [column.name for column in numbers if _BEATS.fullmatch(column.name)]
        if beats and not any(is_ecg(column.name) for column in numbers):
            raise NoTableError(
                f"has a column {cleaned(beats[0], NAME)}, as tables with a heartbeat in each row have: a recording has a row for "
                "each sample of the ECG"
            )
        for column, name in ((at, column.name) for at, column in enumerate(columns) if column.kind == "text" and column.name):
            leads = {row[column] for row in data}
            if len(leads) < len(data) and all(is_ecg(lead) is True for lead in leads):
                raise NoTableError(
                    f"has the names of leads in its column {cleaned(name, NAME)} (line {self._full[-1] + 1}: "
                    f"{cleaned(data[-1][column], NAME)!r}), a row for each lead and sample: give each lead a column, in pandas "
                    f"df.pivot(columns={cleaned(name, NAME)!r}, index=..., values=...)"
                )
        known = any(is_ecg(column.name) or mv_per(column.unit) is not None for column in numbers)
        if texts and not known:
            raise NoTableError("is no table of numbers")
        if len(numbers) > _MOST_NAMELESS and not any(column.name for column in numbers):
            raise NoTableError(
                f"has {len(columns)} columns of numbers without names, as tables that hold a heartbeat or a lead in each row: a "
                f"recording has a row for each sample and a column for each lead: {TURN_ROUND}"
            )


def _is_value(cell: str) -> bool:
    """Return whether a cell is a number in any writing, a time, or missing."""
    return any(pattern.fullmatch(cell) for pattern in (_POINT, _COMMA, _GROUPED)) or TextTimes.fits(cell) or is_missing(cell)


def _is_number(cell: str, decimal: str) -> bool:
    try:
        number(cell, decimal)
    except ValueError:
        return False
    return True


def _kind(cells: Sequence[str], decimal: str) -> Kind:
    there = [cell for cell in cells if not is_missing(cell)]
    numbers = sum(_is_number(cell, decimal) for cell in there)
    if 2 * numbers >= len(there):
        return "number"
    return "time" if 2 * sum(map(TextTimes.fits, there)) >= len(there) else "text"


def _is_unit_like(cell: str) -> bool:
    cell = cell.strip("()[] ")
    low = cell.lower()
    return mv_per(cell) is not None or low in _UNIT_LIKE or unit_s(cell) is not None or _CLOCK_LIKE.fullmatch(cell) is not None


def _is_count_header(data: Sequence[list[str]]) -> bool:
    """Return whether the first row are the names 0, 1, 2, ... that pandas gives, over rows that are no whole numbers."""
    if len(data) < 2:
        return False
    first = data[0][1:] if not data[0][0] else data[0]
    below = data[1][len(data[0]) - len(first) :]
    whole = all(cell == str(at) for at, cell in enumerate(first))
    return (
        whole and bool(first) and (not data[0][0] or (len(first) > 1 and all("." in cell or is_missing(cell) for cell in below)))
    )


def name_and_unit(cell: str) -> tuple[str, str]:
    """Return the name of a column and the unit that stands in it: "II (mV)", "ECG [uV]", "V1_uV"."""
    match = _UNIT_IN.fullmatch(cell)
    if match is None:
        return cell, ""
    unit = (match["in"] or match["after"] or match["volts"] or "").strip()
    if match["name"] and (mv_per(unit) is not None or unit.lower() in _UNIT_LIKE - {""} or unit_s(unit) is not None):
        return match["name"], unit
    return cell, ""


def _counts(name: str | None, at: int, cells: Sequence[str], decimal: str, named: bool) -> bool:
    """Return whether a column of numbers counts or times the rows: by its name, or without one before columns that have one."""
    if name:
        return is_index(name) or (at == 0 and unit_s(name) is not None and mv_per(name_and_unit(name)[1]) is None)
    if at or len(cells) < (2 if named else _RISES):
        return False
    values = [number(cell, decimal) for cell in cells if _is_number(cell, decimal) and not is_missing(cell)]
    falls = len(values) >= _RISES and all(one - other == 1.0 for one, other in pairwise(values))  # of a table turned round
    return falls or all(one < other for one, other in pairwise(values))


def _clock(columns: Sequence[Column], data: Sequence[list[str]]) -> int | None:
    """Return which column places the rows in time: rather times than counts, of many values than of few, numbers than text."""
    rows = data[:_ROWS]

    def rank(at: int) -> tuple[bool, int, bool, int]:
        column = columns[at]
        times = column.kind == "time" or is_time(column.name) or unit_s(column.unit) is not None
        return times, len({row[at] for row in rows}), column.kind == "index", -at

    return max((at for at, column in enumerate(columns) if column.kind in ("index", "time")), key=rank, default=None)


def _refuse_unread_times(columns: Sequence[Column], clock: int | None, data: Sequence[Sequence[str]]) -> None:
    if clock is not None and (columns[clock].kind == "time" or is_time(columns[clock].name)):
        return
    for at, column in enumerate(columns):
        if column.kind == "text" and is_time(column.name):
            cells = [row[at] for row in data if not is_missing(row[at])]
            cell = next((one for one in cells if not _POINT.fullmatch(one)), "")
            if re.fullmatch(r"\d{1,3}([\s.,]\d{3})+([.,]\d+)?", cell):
                raise NoTableError(
                    f"has {cell!r} in its column {cleaned(column.name, NAME)}: numbers with separators between thousands are not "
                    "read: save it without separators"
                )
            raise NoTableError(
                f"has a column {cleaned(column.name, NAME)}, called as times are, but it holds {cell[:40]!r}, which is no time "
                "that is known: write it in s or as hh:mm:ss.mmm; or leave it out or rename it, and its holes are lost"
            )


def _rate(text: str, preamble: Sequence[Sequence[str]]) -> float | None:
    cells = (match for _, value in preamble if (match := _HERTZ.fullmatch(value)))
    found = _RATE.search(text.replace('"', "")) or next(cells, None)
    if found is None:
        return None
    return float(found["rate"].replace(",", ".")) * (1e3 if found["kilo"] else 1.0) or None


def _pair(line: str) -> list[str]:
    """Return the name and the value in a line, or something of another length."""
    return next((cells for mark in (",", ";", "\t", ":") if len(cells := cells_of(line.lstrip("#% "), mark)) == 2), [])


def _decimal(rows: Sequence[list[str]]) -> str:
    """Return whether numbers have a decimal point or a comma.

    Raises
    ------
    NoTableError
        If commas could be either that or between thousands.
    """
    cells = [cell for row in rows for cell in row if cell]
    commas = [cell for cell in cells if "," in cell and (_COMMA.fullmatch(cell) or _GROUPED.fullmatch(cell))]
    points = sum(1 for cell in cells if "." in cell and _POINT.fullmatch(cell))
    if len(commas) <= points:
        return "."
    if all(re.fullmatch(r"[-+]?[1-9]\d{0,2},\d{3}", cell) for cell in commas):
        raise NoTableError(
            f"has numbers such as {commas[0]}, whose comma could stand before decimals or between thousands: save it with "
            "decimal points and nothing between thousands"
        )
    return ","


def _unclear(line: str) -> str:
    return (
        f"has lines such as {line.strip()}: two columns, or one with decimal commas? Name its leads, two or one (leads, on the "
        "command line --leads II,V1 or --leads II), or save it with decimal points"
    )
