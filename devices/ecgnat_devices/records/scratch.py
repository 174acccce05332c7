"""Room for what cannot be read in pieces from its own file: it goes once through bounded memory into a temporary one."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import weakref
import zlib
from pathlib import Path

from ecgnat_devices.records.contents import wrong

__all__ = ["MOST_BYTES", "Unpacked"]

MOST_BYTES = 2**34
"""Most bytes that a compressed file may become."""

_PIECE = 2**20


class Unpacked:
    """A gzip file, unpacked into a temporary folder that goes with this object.

    Raises
    ------
    DeviceError
        If it is no sound gzip file, or becomes too large.
    """

    def __init__(self, path: Path) -> None:
        folder = tempfile.mkdtemp(prefix="ecgnat-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.path = Path(folder) / path.stem
        size = 0
        try:
            with gzip.open(path) as packed, self.path.open("wb") as file:
                while piece := packed.read(_PIECE):
                    size += len(piece)
                    if size > MOST_BYTES:
                        raise wrong(path, f"becomes more than {MOST_BYTES} bytes when it is unpacked")
                    file.write(piece)
        except (OSError, EOFError, zlib.error) as error:
            raise wrong(path, f"cannot be unpacked ({error})") from error
