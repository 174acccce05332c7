"""Arrays of MATLAB: MAT-files up to version 7, with the ``.info`` file that PhysioBank puts beside them."""

from __future__ import annotations

import math
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from ecgnat_devices.records.arrays import named_arrays
from ecgnat_devices.records.contents import MOST_AT_ONCE, TROUBLE, Asked, Contents, Signal, Values, wrong

__all__ = ["open_mat"]

_TROUBLE = (*TROUBLE, NotImplementedError, zlib.error, scipy.io.matlab.MatReadError)

_ROW = re.compile(r"\s*\d+\s+(?P<name>.+?)\s+(?P<gain>[-+\d.eE]+)\s+(?P<base>[-+\d.eE]+)\s+(?P<unit>\S+)\s*")
_FS = re.compile(r"Sampling frequency:\s*(?P<fs>[\d.]+)\s*Hz")

_DEPTH = 4

_INVALID = {"i2": -32768, "i4": -(2**31)}
"""What PhysioBank writes where nothing was recorded."""


def open_mat(path: Path, asked: Asked) -> Contents:
    """Open a MAT-file: an array ``(leads, samples)``, or several, perhaps in a structure, perhaps with rate, names and units.

    Raises
    ------
    DeviceError
        If it holds no such arrays, or is of version 7.3.
    """
    arrays = dict(_arrays(_read(path)))
    info = path.with_suffix(".info")
    if "val" in arrays and info.is_file():
        return _of_physiobank(path, arrays["val"], info)
    return named_arrays(path, arrays, asked)


def _read(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        begins = file.read(128)
    if b"MATLAB 7.3" in begins or begins.startswith(b"\x89HDF"):
        raise wrong(path, "is a MAT-file of version 7.3 (HDF5), which is not read: in MATLAB, save(file, 'ecg', '-v7')")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", scipy.io.matlab.MatReadWarning)  # what is doubled or not known is no signal
            held = sum(math.prod(shape) for _, shape, kind in scipy.io.whosmat(path) if kind not in ("struct", "cell"))
            if held > MOST_AT_ONCE:
                raise wrong(path, f"holds {held} values: a MAT-file is read whole, up to {MOST_AT_ONCE}; save it as NPY or WFDB")
            found: dict[str, Any] = scipy.io.loadmat(path, simplify_cells=True)
    except _TROUBLE as error:
        raise wrong(path, f"is no MAT-file that can be read ({error})") from error
    return {name: value for name, value in found.items() if not name.startswith("__")}


def _arrays(held: dict[str, Any], before: str = "", depth: int = 0) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the arrays in variables and structures, by their names."""
    for name, value in held.items():
        if isinstance(value, dict):
            if depth < _DEPTH:
                yield from _arrays(value, f"{before}{name}.", depth + 1)
        elif isinstance(value, list | tuple | str | int | float | np.generic | np.ndarray):
            try:
                yield f"{before}{name}", np.asarray(value)
            except ValueError:
                continue  # a list of arrays that differ in shape is no signal


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
