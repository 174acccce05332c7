"""Tables of numbers: CSV and its kin, a row for each sample and a column for each signal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecgnat_devices.records.contents import Asked, Contents, Signal, Values, wrong
from ecgnat_stream.recordings import decimal_comma
from ecgnat_stream.signal import is_time

__all__ = ["open_table"]

_CSV_BYTES, _CSV_LINE = 2**31, 2**16
"""Largest table that is read whole, and its longest line."""


def open_table(path: Path, asked: Asked) -> Contents:
    """Open a table of numbers.

    Raises
    ------
    DeviceError
        If it is none.
    """
    names, values = _load(path)

    def read(rows: Sequence[int], start: int, stop: int) -> Values:
        return values[list(rows), start:stop]

    return Contents(tuple(Signal(name, None, "", values.shape[1]) for name in names), read)


def _number(text: str) -> float:
    return float(text) if text.strip() else math.nan


def _load(path: Path) -> tuple[tuple[str, ...], Values]:
    if commas := decimal_comma(path):
        raise wrong(path, commas)
    _check_lines(path)
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline().strip()
        delimiter = next((mark for mark in ",;\t" if mark in first), None)
        cells = [cell.strip().strip('"') for cell in first.split(delimiter)]
        names = () if all(_is_number(cell) for cell in cells) else tuple(cells)
        values = np.loadtxt(
            path,
            delimiter=delimiter,
            skiprows=int(bool(names)),
            converters=_number,
            ndmin=2,
            encoding="utf-8-sig",
            dtype=np.float64,
        ).T
    except (ValueError, OSError) as error:
        raise wrong(path, f"is no table of numbers ({error})") from error
    if values.size == 0:
        raise wrong(path, "holds no samples")
    if names and len(names) != len(values):
        raise wrong(path, f"names {len(names)} columns in its first line, but the lines below have {len(values)}")
    if names and is_time(names[0]):
        return names[1:], values[1:]
    return names or ("",) * len(values), values


def _check_lines(path: Path) -> None:
    """Refuse a table that would not fit into memory, or that has no lines."""
    size = path.stat().st_size
    if size > _CSV_BYTES:
        raise wrong(path, f"has {size} bytes, but a table is read whole: up to {_CSV_BYTES}; save it as NPY or WFDB")
    length = 0
    with path.open("rb") as file:
        while piece := file.read(_CSV_LINE):
            first, last = piece.find(b"\n"), piece.rfind(b"\n")
            if (length + len(piece) if first < 0 else max(length + first, len(piece) - 1 - last)) > _CSV_LINE:
                raise wrong(path, f"has a line of more than {_CSV_LINE} characters: a row for each sample is needed")
            length = length + len(piece) if last < 0 else len(piece) - 1 - last


def _is_number(cell: str) -> bool:
    try:
        _number(cell)
    except ValueError:
        return False
    return True
