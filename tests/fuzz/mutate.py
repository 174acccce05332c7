"""Damaged inputs out of whole ones: bits, bytes, lengths, numbers and words of the format, several at a time."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Sequence

__all__ = ["Mutator"]

_MOST_BYTES = 16_384

_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_NUMBERS = (
    *(b"0", b"-1", b"1", b"-0.0", b"0.5", b"255", b"256", b"65536", b"2147483648", b"-2147483649", b"4294967296"),
    *(b"18446744073709551616", b"1e9", b"1e50", b"-1e308", b"1e309", b"1e-320", b"nan", b"inf", b"-inf", b"9" * 400, b"1_000"),
)
_BYTES = (0x00, 0x01, 0x0A, 0x20, 0x2C, 0x2F, 0x3A, 0x7F, 0x80, 0xC3, 0xFE, 0xFF)
_ODD = (
    *(b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1b[2J", b"\xed\xa0\x80", b"\xe2\x80\xae", b"\r\n", b"%s%n", b"../../etc/passwd"),
    *(b"{" * 200, b"[" * 3000, b'"', b"\\u0000", b"\\ud800", b"=HYPERLINK()", b"A" * 5000),
)
_FIELDS = (("<H", 0xFFFF), ("<I", 0xFFFFFFFF), ("<Q", 2**64 - 1), (">H", 0xFFFF), (">I", 0xFFFFFFFF), ("<i", -1), ("<f", 1e38))


class Mutator:
    """Gives inputs for ever, the same ones for the same seed.

    Parameters
    ----------
    seeds
        Whole inputs.
    words
        What means something in the format.
    """

    def __init__(self, seeds: Sequence[bytes], words: Sequence[bytes], seed: int) -> None:
        self._random = random.Random(seed)
        self._seeds, self._words = list(seeds), (*words, *_ODD)
        self._ways: tuple[Callable[[bytearray], None], ...] = (
            *(self._flip, self._byte, self._bytes, self._field, self._number, self._number, self._insert, self._word, self._word),
            *(self._delete, self._repeat, self._cut, self._splice, self._swap),
        )

    def next(self) -> bytes:
        """Return another input."""
        rng = self._random
        if rng.random() < 0.02:
            return rng.randbytes(rng.randrange(200))
        data = bytearray(rng.choice(self._seeds))
        for _ in range(1 + min(int(rng.expovariate(0.5)), 12)):
            rng.choice(self._ways)(data)
        return bytes(data[:_MOST_BYTES])

    def _at(self, data: bytearray) -> int:
        # The beginning of a file is where its meaning is.
        length = max(1, len(data))
        return self._random.randrange(min(length, 256)) if self._random.random() < 0.4 else self._random.randrange(length)

    def _flip(self, data: bytearray) -> None:
        if data:
            data[self._at(data)] ^= 1 << self._random.randrange(8)

    def _byte(self, data: bytearray) -> None:
        if data:
            data[self._at(data)] = self._random.choice(_BYTES)

    def _bytes(self, data: bytearray) -> None:
        at = self._at(data)
        part = self._random.randbytes(self._random.randrange(1, 9))
        data[at : at + len(part)] = part

    def _field(self, data: bytearray) -> None:
        layout, value = self._random.choice(_FIELDS)
        at = self._at(data)
        part = struct.pack(layout, value if self._random.random() < 0.5 else 0)
        data[at : at + len(part)] = part

    def _number(self, data: bytearray) -> None:
        found = list(_NUMBER.finditer(data))
        if found:
            one = self._random.choice(found)
            data[one.start() : one.end()] = self._random.choice(_NUMBERS)

    def _insert(self, data: bytearray) -> None:
        at = self._at(data)
        data[at:at] = self._random.randbytes(self._random.randrange(1, 17))

    def _word(self, data: bytearray) -> None:
        at, word = self._at(data), self._random.choice(self._words)
        data[at : at + self._random.choice((0, len(word)))] = word

    def _delete(self, data: bytearray) -> None:
        at = self._at(data)
        del data[at : at + int(self._random.expovariate(0.1)) + 1]

    def _repeat(self, data: bytearray) -> None:
        at = self._at(data)
        part = data[at : at + self._random.randrange(1, 65)]
        data[at:at] = part * self._random.choice((1, 2, 30))

    def _cut(self, data: bytearray) -> None:
        if self._random.random() < 0.3:
            del data[self._at(data) :]

    def _splice(self, data: bytearray) -> None:
        other = self._random.choice(self._seeds)
        at = self._random.randrange(len(other) + 1)
        data[self._at(data) :] = other[at:]

    def _swap(self, data: bytearray) -> None:
        lines = data.splitlines(keepends=True)
        if len(lines) > 1:
            i, k = self._random.randrange(len(lines)), self._random.randrange(len(lines))
            lines[i], lines[k] = lines[k], lines[i]
            data[:] = b"".join(lines)
