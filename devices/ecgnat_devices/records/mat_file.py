"""What is in a MAT-file of version 4 to 7: numbers, text and structures (MathWorks, MAT-File Format, R2023).

scipy reads such files too, but ends the whole process over some that are damaged: a monitor with it. Here every length is
compared with what is there before anything is taken.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgnat_devices.records.contents import MOST_AT_ONCE, wrong

__all__ = ["Held", "read_mat"]

Held = dict[str, "NDArray[np.generic] | str | Held"]
"""Variables, or fields of a structure, by their names; arrays without axes of length 1, several texts as an array of them."""

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin-1", 2: "utf-8", 16: "utf-8", 4: "utf-16", 17: "utf-16", 18: "utf-32"}
_MATRIX, _COMPRESSED = 14, 15
_CELLS, _STRUCTURE, _CHARACTERS = 1, 2, 4
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX = 0x08
_VERSION_4 = ("f8", "f4", "i4", "i2", "u2", "u1")

_DEPTH, _MOST_ELEMENTS = 8, 100_000
_MOST_BYTES = 8 * MOST_AT_ONCE


class _DamagedError(ValueError):
    """The file is not what it says."""


def read_mat(path: Path) -> Held:
    """Return the real numbers, texts and structures of a MAT-file; what is of another kind is passed over.

    Raises
    ------
    DeviceError
        If it is none, is of version 7.3, or is damaged.
    """
    data = np.memmap(path, np.uint8, mode="r") if path.stat().st_size else np.zeros(0, np.uint8)
    begins = data[:128].tobytes()
    if b"MATLAB 7.3" in begins or begins.startswith(b"\x89HDF"):
        raise wrong(path, "is a MAT-file of version 7.3 (HDF5), which is not read: in MATLAB, save(file, 'ecg', '-v7')")
    try:
        return dict(_version_4(data) if 0 in begins[:4] else _Elements(begins[126:128]).variables(data[128:]))
    except (_DamagedError, struct.error, zlib.error, ValueError) as error:
        raise wrong(path, f"is no MAT-file that can be read ({error})") from error


def _version_4(data: NDArray[np.uint8]) -> Iterator[tuple[str, NDArray[np.generic] | str]]:
    at = 0
    while at < len(data):
        order = "<" if struct.unpack("<i", data[at : at + 4].tobytes())[0] < 1000 else ">"
        kind, rows, columns, imaginary, name_length = struct.unpack(f"{order}5i", data[at : at + 20].tobytes())
        packing, what = kind // 10 % 10, kind % 10
        if kind // 1000 not in (0, 1) or packing >= len(_VERSION_4) or min(rows, columns) < 0 or not 0 < name_length <= 256:
            raise _DamagedError("its header is none of version 4")
        dtype = np.dtype(order + _VERSION_4[packing])
        name = data[at + 20 : at + 20 + name_length].tobytes().rstrip(b"\0").decode("latin-1")
        at += 20 + name_length
        size = rows * columns * dtype.itemsize * (2 if imaginary else 1)
        if size > len(data) - at:
            raise _DamagedError(f"{name} states {rows} by {columns} values: there are not so many")
        values = data[at : at + rows * columns * dtype.itemsize].view(dtype).reshape(rows, columns, order="F")
        at += size
        if what == 1:
            yield name, "".join(map(chr, values[:1].ravel().astype(np.uint8).tolist()))
        elif what == 0 and not imaginary:
            yield name, values.squeeze()


class _Elements:
    """Reads the elements of version 5 to 7: a tag with type and length, then the data, which may hold elements again."""

    def __init__(self, mark: bytes) -> None:
        if mark not in (b"IM", b"MI"):
            raise _DamagedError("it does not begin as one")
        self._order = "<" if mark == b"IM" else ">"
        self._left = _MOST_ELEMENTS
        self._unpacked = 0

    def variables(self, data: NDArray[np.uint8]) -> Iterator[tuple[str, NDArray[np.generic] | str | Held]]:
        for kind, part in self._elements(data):
            if kind == _COMPRESSED:
                unpacked = zlib.decompressobj().decompress(part.tobytes(), _MOST_BYTES + 1)
                self._unpacked += len(unpacked)
                if self._unpacked > _MOST_BYTES:
                    raise _DamagedError(f"it becomes more than {_MOST_BYTES} bytes when it is unpacked")
                yield from self.variables(np.frombuffer(unpacked, np.uint8))
            elif kind == _MATRIX:
                name, value = self._matrix(part, 0)
                if name and value is not None:
                    yield name, value

    def _elements(self, data: NDArray[np.uint8]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        at = 0
        while at + 8 <= len(data):
            self._left -= 1
            if self._left < 0:
                raise _DamagedError(f"it has more than {_MOST_ELEMENTS} elements")
            first, length = struct.unpack(f"{self._order}2I", data[at : at + 8].tobytes())
            if first >> 16:  # up to four bytes, in the tag itself
                kind, length, begin, after = first & 0xFFFF, first >> 16, at + 4, at + 8
                if length > 4:
                    raise _DamagedError("an element in its own tag has more than 4 bytes")
            else:
                kind, begin = first, at + 8
                after = begin + (length if kind == _COMPRESSED else length + -length % 8)
            if begin + length > len(data):
                raise _DamagedError("it was cut off")
            yield kind, data[begin : begin + length]
            at = after

    def _matrix(self, data: NDArray[np.uint8], depth: int) -> tuple[str, NDArray[np.generic] | str | Held | None]:
        """Return name and value of an array; None if it is of a kind that is passed over."""
        parts = self._elements(data)
        flags, shape, name = (next(parts, None) for _ in range(3))
        if flags is None or shape is None or name is None:
            return "", None  # an empty one
        word = int(self._numbers(*flags)[0])
        what, dims = word & 0xFF, tuple(self._numbers(*shape).tolist())
        called = name[1].tobytes().decode("utf-8", "replace")
        if len(dims) < 2 or min(dims) < 0 or depth > _DEPTH:
            raise _DamagedError(f"{called or 'a field'} has the shape {dims}")
        if what == _STRUCTURE:
            return called, self._structure(parts, depth) if dims == (1, 1) else None
        if what == _CELLS:
            texts = [self._matrix(part, depth + 1)[1] for kind, part in parts if kind == _MATRIX]
            return called, np.array(texts) if texts and all(isinstance(text, str) for text in texts) else None
        held = next(parts, None)
        if held is None or word >> 8 & _COMPLEX:
            return called, None
        if what == _CHARACTERS:
            return called, _rows_of_text(self._text(*held), dims[0])
        if what not in _CLASSES:
            return called, None
        values = self._numbers(*held)
        if values.size != np.prod(dims, dtype=float):
            raise _DamagedError(f"{called or 'a field'} has the shape {dims}, but {values.size} values")
        values = values.reshape(dims, order="F")
        return called, (values if values.dtype.str[1:] == _CLASSES[what] else values.astype(_CLASSES[what])).squeeze()

    def _structure(self, parts: Iterator[tuple[int, NDArray[np.uint8]]], depth: int) -> Held:
        length, names = next(parts, None), next(parts, None)
        if length is None or names is None:
            raise _DamagedError("a structure lacks the names of its fields")
        each, text = int(self._numbers(*length)[0]), names[1].tobytes()
        if not 0 < each <= 1024:
            raise _DamagedError(f"a structure has names of {each} characters")
        fields: Held = {}
        for at in range(0, len(text), each):
            field = next(parts, None)
            value = self._matrix(field[1], depth + 1)[1] if field is not None and field[0] == _MATRIX else None
            if value is not None:
                fields[text[at : at + each].partition(b"\0")[0].decode("utf-8", "replace")] = value
        return fields

    def _numbers(self, kind: int, data: NDArray[np.uint8]) -> NDArray[np.generic]:
        if kind not in _NUMBERS:
            raise _DamagedError(f"numbers are of the type {kind}, which is not known")
        dtype = np.dtype(self._order + _NUMBERS[kind])
        return np.ascontiguousarray(data[: len(data) // dtype.itemsize * dtype.itemsize]).view(dtype)

    def _text(self, kind: int, data: NDArray[np.uint8]) -> str:
        coding = _TEXTS.get(kind)
        if coding in ("utf-16", "utf-32"):
            coding += "-le" if self._order == "<" else "-be"
        if coding is None:
            raise _DamagedError(f"text is of the type {kind}, which is not known")
        return data.tobytes().decode(coding, "replace")


def _rows_of_text(text: str, rows: int) -> NDArray[np.generic] | str:
    """Return text; if it has several rows, which stand column by column, an array of them."""
    return text if rows <= 1 else np.array([text[row::rows].rstrip() for row in range(min(rows, len(text)))])
