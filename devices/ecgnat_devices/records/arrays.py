"""Arrays in files: NPY."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecgnat_devices.records.contents import TROUBLE, Asked, Contents, Signal, Values, wrong

__all__ = ["open_npy"]


def open_npy(path: Path, asked: Asked) -> Contents:
    """Open an NPY file: one signal, or ``(leads, samples)``, or that transposed.

    Raises
    ------
    DeviceError
        If it holds no such array.
    """
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except TROUBLE as error:
        raise wrong(path, f"is no NPY file ({error})") from error
    if values.ndim == 1:
        values = values[None]
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise wrong(path, f"holds {values.dtype} {values.shape}: numbers of shape (leads, samples) are needed")
    if values.shape[0] > values.shape[1]:
        values = values.T
    step = 1.0 if values.dtype.kind in "iu" else None

    def read(rows: Sequence[int], start: int, stop: int) -> Values:
        return np.asarray(values[list(rows), start:stop], dtype=np.float64)

    return Contents(tuple(Signal("", None, "", values.shape[1], step) for _ in values), read)
