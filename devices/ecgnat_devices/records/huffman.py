"""Huffman codes of SCP-ECG (EN 1064, 5.5, annex C): prefixes stand for a value, a number that follows, or a change of table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["DEFAULT", "Code", "Table", "decode"]


class Code(NamedTuple):
    """One code.

    Parameters
    ----------
    prefix
        Its length in bits.
    follow
        Bits of a number with sign that follows and is added to ``base``.
    is_value
        False for a change of the table: to number ``base``, counted from 1.
    base
        What it stands for.
    word
        The prefix, its first bit in the lowest place.
    """

    prefix: int
    follow: int
    is_value: bool
    base: int
    word: int


class Table:
    """Codes of which none begins another."""

    def __init__(self, codes: Iterable[Code]) -> None:
        self._codes = {(code.prefix, int(f"{code.word % 2**code.prefix:0{code.prefix}b}"[::-1], 2)): code for code in codes}
        self._lengths = sorted({prefix for prefix, _ in self._codes})

    def find(self, window: int) -> Code | None:
        """Return the code with which 32 bits begin."""
        for length in self._lengths:
            code = self._codes.get((length, window >> (32 - length)))
            if code is not None:
                return code
        return None


def _default() -> Table:
    """Return the default table: n ones, a zero and the sign for +-n up to 8; nine ones before a number of 8 or 16 bits."""
    codes = [Code(1, 0, True, 0, 0b0)]
    for value in range(1, 9):
        ones = 2**value - 1
        codes += [Code(value + 2, 0, True, value, ones), Code(value + 2, 0, True, -value, ones | 1 << (value + 1))]
    return Table([*codes, Code(10, 8, True, 0, 2**9 - 1), Code(10, 16, True, 0, 2**10 - 1)])


DEFAULT = _default()
"""The table of annex C, which section 2 names by 19999."""


def decode(coded: bytes, count: int, tables: Sequence[Table]) -> NDArray[np.int64]:
    """Return the values for which bits stand, the highest of each byte first.

    Raises
    ------
    ValueError
        If they end before ``count`` values, or stand for nothing.
    """
    values = np.empty(count, np.int64)
    padded, end = coded + bytes(16), 8 * len(coded)
    table, at, done = tables[0], 0, 0
    while done < count:
        begin = at >> 3
        window = int.from_bytes(padded[begin : begin + 9], "big") >> (40 - (at & 7)) & 0xFFFFFFFF
        code = table.find(window)
        if code is None:
            raise ValueError(f"bit {at} begins no code")
        at += code.prefix
        if code.is_value:
            value = code.base
            if code.follow:
                begin = at >> 3
                number = int.from_bytes(padded[begin : begin + 9], "big") >> (72 - (at & 7) - code.follow) & (2**code.follow - 1)
                value += number - (number >> (code.follow - 1) << code.follow)
                at += code.follow
            values[done] = value
            done += 1
        elif not 1 <= code.base <= len(tables):
            raise ValueError(f"bit {at} changes to table {code.base}, which is not there")
        else:
            table = tables[code.base - 1]
        if at > end:
            raise ValueError(f"its codes end after {max(0, done - 1)}")
    return values
