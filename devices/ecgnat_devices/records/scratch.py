"""Room for what cannot be read in pieces from its own file: it goes once through bounded memory into a temporary one."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np

from ecgnat_devices.records.contents import Values, wrong

__all__ = ["MOST_BYTES", "Scratch", "Unpacked"]

MOST_BYTES = 2**34
"""Most bytes that a file may become when it is unpacked or decoded."""

_PIECE = 2**20


class Unpacked:
    """A gzip file, or a member of a ZIP archive, unpacked into a temporary folder that goes with this object.

    Raises
    ------
    DeviceError
        If it is no sound archive, or becomes too large.
    """

    def __init__(self, path: Path, member: str | None = None) -> None:
        folder = tempfile.mkdtemp(prefix="ecgnat-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.path = Path(folder) / (path.stem if member is None else "member")
        size = 0
        try:
            with ExitStack() as stack, self.path.open("wb") as file:
                packed: gzip.GzipFile | IO[bytes]
                if member is None:
                    packed = stack.enter_context(gzip.open(path))
                else:
                    packed = stack.enter_context(stack.enter_context(zipfile.ZipFile(path)).open(member))
                while piece := packed.read(_PIECE):
                    size += len(piece)
                    if size > MOST_BYTES:
                        raise wrong(path, f"becomes more than {MOST_BYTES} bytes when it is unpacked")
                    file.write(piece)
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise wrong(path, f"cannot be unpacked ({error})") from error


class Scratch:
    """Samples in a temporary file without a name, which goes with this object: written once, then read in any order.

    They are float64: on an electrode offset of 0.2 V, float32 has steps of 0.016 uV, and times of an epoch it would not hold.

    Parameters
    ----------
    path
        What is decoded, for messages.
    columns
        Values of a row.
    """

    def __init__(self, path: Path, columns: int) -> None:
        self._path, self._columns, self.total = path, columns, 0
        self._file = tempfile.TemporaryFile(prefix="ecgnat-", buffering=0)  # noqa: SIM115 (open as long as this object is there)
        weakref.finalize(self, self._file.close)

    def append(self, rows: Values) -> None:
        """Write rows ``(n, columns)`` after those that are there.

        Raises
        ------
        DeviceError
            If they are too many, or the disk has no room.
        """
        if (self.total + len(rows)) * self._columns * 8 > MOST_BYTES:
            raise wrong(self._path, f"becomes more than {MOST_BYTES} bytes when it is decoded")
        data = memoryview(np.ascontiguousarray(rows, dtype=np.float64).tobytes())
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise wrong(
                self._path, f"is decoded into {tempfile.gettempdir()}, which has no room ({error}): name another folder in TMPDIR"
            ) from error
        self.total += len(rows)

    def read(self, columns: Sequence[int], start: int, stop: int) -> Values:
        """Return some columns of rows, ``(len(columns), stop - start)``."""
        size = 8 * self._columns
        data = os.pread(self._file.fileno(), (stop - start) * size, start * size)
        return np.frombuffer(data).reshape(-1, self._columns).T[list(columns)]
