"""Arrays of MATLAB: MAT-files up to version 7, with the ``.info`` file that PhysioBank puts beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgnat_devices.records.arrays import named_arrays
from ecgnat_devices.records.contents import Asked, Contents, Signal, Values, wrong
from ecgnat_devices.records.mat_file import Held, read_mat

__all__ = ["open_mat"]

_ROW = re.compile(r"\s*\d+\s+(?P<name>.+?)\s+(?P<gain>[-+\d.eE]+)\s+(?P<base>[-+\d.eE]+)\s+(?P<unit>\S+)\s*")
_FS = re.compile(r"Sampling frequency:\s*(?P<fs>[\d.]+)\s*Hz")

_INVALID = {"i2": -32768, "i4": -(2**31)}
"""What PhysioBank writes where nothing was recorded."""


def open_mat(path: Path, asked: Asked) -> Contents:
    """Open a MAT-file: an array ``(leads, samples)``, or several, perhaps in a structure, perhaps with rate, names and units.

    Raises
    ------
    DeviceError
        If it holds no such arrays, or is of version 7.3.
    """
    arrays = dict(_arrays(read_mat(path)))
    info = path.with_suffix(".info")
    if "val" in arrays and info.is_file():
        return _of_physiobank(path, arrays["val"], info)
    return named_arrays(path, arrays, asked)


def _arrays(held: Held, before: str = "") -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the arrays in variables and structures, by their names."""
    for name, value in held.items():
        if isinstance(value, dict):
            yield from _arrays(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", np.asarray(value)


def _of_physiobank(path: Path, values: NDArray[np.generic], info: Path) -> Contents:
    text = info.read_text("utf-8", "replace")
    rows = [match for line in text.splitlines() if (match := _ROW.fullmatch(line))]
    fs = _FS.search(text)
    values = values[None] if values.ndim == 1 else values
    if len(rows) != len(values) or values.ndim != 2 or values.dtype.kind not in "fiu":
        raise wrong(path, f"holds {values.dtype} {values.shape}, but {info.name} describes {len(rows)} signals")
    gains = np.array([float(row["gain"]) or 1.0 for row in rows])[:, None]
    bases = np.array([float(row["base"]) for row in rows])[:, None]
    invalid = _INVALID.get(values.dtype.str[1:])

    def read(wanted: Sequence[int], start: int, stop: int) -> Values:
        part = values[list(wanted), start:stop]
        samples: Values = (part.astype(np.float64) - bases[list(wanted)]) / gains[list(wanted)]
        samples[part == invalid] = np.nan
        return samples

    rate = float(fs["fs"]) if fs else None
    signals = (
        Signal(row["name"], rate, row["unit"], values.shape[1], abs(1 / gain), f"the gain {gain:g}")
        for row, gain in zip(rows, gains[:, 0].tolist(), strict=True)
    )
    return Contents(tuple(signals), read)
