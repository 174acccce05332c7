"""Arrays in files: NPY and NPZ; and what arrays with names say of a recording, whatever file they are from."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgnat_devices.records.contents import MOST_SIGNALS, TROUBLE, Asked, Contents, Signal, Values, wrong
from ecgnat_devices.records.runs import Run, read_runs
from ecgnat_devices.records.scratch import Unpacked
from ecgnat_stream.signal import is_ecg
from ecgnat_stream.timeline import Timeline, TimelineError, is_index, is_time, timeline, unit_s
from ecgnat_stream.words import NAME, cleaned

__all__ = ["named_arrays", "open_npy"]

_MOST_LEADS = 64

_RATES = frozenset(
    (
        "fs",
        "samplingrate",
        "samplerate",
        "samplingfrequency",
        "samplefrequency",
        "sfreq",
        "srate",
        "rate",
        "freq",
        "frequency",
        "hz",
    )
)
_NAMES = frozenset(
    (
        "leads",
        "lead",
        "leadnames",
        "channels",
        "channelnames",
        "chnames",
        "signames",
        "signame",
        "names",
        "labels",
        "columns",
        "label",
    )
)
_UNITS = frozenset(("unit", "units", "sigunits"))


def open_npy(path: Path, asked: Asked) -> Contents:
    """Open an NPY file: one signal, or ``(leads, samples)``, or that transposed; or an NPZ file, whose arrays have names.

    Raises
    ------
    DeviceError
        If it holds no such array.
    """
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            return _open_npz(path, asked)
    values = _loaded(path, path)
    rows, notes = _leads(path, values, "the array")
    return _contents(path, {"": rows}, None, {}, notes, asked)


def _loaded(path: Path, file: Path) -> NDArray[np.generic]:
    """Map an NPY file; ``path`` is what the user named."""
    try:
        values: NDArray[np.generic] = np.lib.format.open_memmap(file, mode="r")
    except TROUBLE as error:
        if "Python objects" in str(error):
            raise wrong(
                path, "holds Python objects, which are not read: save numbers, for example array.astype(float)"
            ) from error
        raise wrong(path, f"is no NPY file ({error})") from error
    return values


def _open_npz(path: Path, asked: Asked) -> Contents:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
    except (*TROUBLE, zipfile.BadZipFile, NotImplementedError) as error:
        raise wrong(path, f"is no NPZ file that can be read ({error})") from error
    if not 0 < len(members) <= MOST_SIGNALS:
        raise wrong(path, f"is a ZIP archive with {len(members)} arrays: an NPZ file of a recording has 1 to {MOST_SIGNALS}")
    unpacked = [Unpacked(path, member) for member in members]
    contents = named_arrays(
        path, {member[: -len(".npy")]: _loaded(path, one.path) for member, one in zip(members, unpacked, strict=True)}, asked
    )

    def read(rows: Sequence[int], start: int, stop: int, _keep: object = unpacked) -> Values:
        return contents.read(rows, start, stop)

    return Contents(contents.signals, read, contents.notes, contents.rate_by)


def named_arrays(path: Path, arrays: Mapping[str, NDArray[np.generic]], asked: Asked) -> Contents:
    """Return what arrays with names hold: one ``(leads, samples)``, or several signals; perhaps rate, names, units, times.

    Raises
    ------
    DeviceError
        If it is not clear which of them are signals.
    """
    numbers = {name: np.squeeze(values) for name, values in arrays.items() if values.dtype.kind in "fiu" and values.size > 1}
    signals = {name: values for name, values in numbers.items() if not is_index(_last(name))}
    wide = {name: values for name, values in signals.items() if values.ndim == 2}
    if len(wide) > 1:
        wide = {name: values for name, values in wide.items() if _is_said(name)} or wide
    flat = {name: values for name, values in signals.items() if values.ndim == 1}
    said: dict[str, NDArray[np.generic]] = {name: values for name, values in flat.items() if _is_said(name)}
    if len(wide) == 1:
        ((name, values),) = wide.items()
        rows, notes = _leads(path, values, f"its array {cleaned(name, NAME)}")
        chosen = {name: rows}
    elif not wide and (said or flat):
        longest = max(len(values) for values in (said or flat).values())
        chosen, notes = {name: values[None] for name, values in (said or flat).items() if len(values) == longest}, ()
        if not said and len(flat) != len(chosen):
            chosen = {}
    else:
        chosen, notes = {}, ()
    if not chosen:
        there = ", ".join(f"{cleaned(name, NAME)} {values.dtype} {values.shape}" for name, values in arrays.items()) or "nothing"
        raise wrong(
            path, f"does not say which of its arrays is the ECG ({there[:300]}): save one array (leads, samples), called ecg"
        )
    length = next(iter(chosen.values())).shape[1]
    times = {name: values for name, values in numbers.items() if is_index(_last(name)) and values.shape == (length,)}
    left = [name for name in numbers if name not in chosen and name not in times]
    if left:
        notes += (f"without its arrays {', '.join(cleaned(name, NAME) for name in left[:8])}",)
    return _contents(path, chosen, next(iter(times.items()), None), arrays, notes, asked)


def _contents(
    path: Path,
    chosen: Mapping[str, NDArray[np.generic]],
    times: tuple[str, NDArray[np.generic]] | None,
    arrays: Mapping[str, NDArray[np.generic]],
    notes: tuple[str, ...],
    asked: Asked,
) -> Contents:
    """Return arrays ``(leads, samples)`` as a recording; further arrays may say its rate, names and units."""
    texts = {_key(name): _texts(values) for name, values in arrays.items()}
    names = next((texts[key] for key in texts if key in _NAMES and texts[key]), ())
    units = next((texts[key] for key in texts if key in _UNITS and texts[key]), ())
    rows = [(name, values, row) for name, values in chosen.items() for row in range(len(values))]
    if len(rows) > MOST_SIGNALS:
        raise wrong(path, f"holds {len(rows)} signals: a recording has at most {MOST_SIGNALS}")
    fs = _rate(arrays)
    line = _timeline(path, times, asked.fs or fs)
    rate_by = ""
    if line.fs is not None and times is not None:
        if asked.fs is not None and line.agrees(asked.fs):
            fs, rate_by = asked.fs, f"its array {times[0]}"
        elif fs is not None and not line.agrees(fs):
            raise wrong(path, f"states a rate of {fs:g} Hz, but {line.fs:g} Hz by its array {times[0]}: remove what is wrong")
        else:
            fs, rate_by = fs or line.fs, f"its array {times[0]}"
    signals = []
    total = rows[0][1].shape[1] + sum(missing for _, missing in line.holes)
    for at, (name, values, _) in enumerate(rows):
        called = _last(name) if len(chosen) > 1 or (name and len(values) == 1 and is_ecg(_last(name))) else ""
        called = names[at] if len(names) == len(rows) else called
        unit = units[at] if len(units) == len(rows) else units[0] if len(units) == 1 else ""
        signals.append(Signal(called, fs, unit, total, 1.0 if values.dtype.kind in "iu" else None))
    runs, start, at = [], 0, 0
    for row, missing in (*line.holes, (rows[0][1].shape[1], 0)):
        runs.append(Run(start, at, row - at))
        start, at = start + row - at + missing, row

    def stored(wanted: Sequence[int], first: int, stop: int) -> Values:
        return np.stack([np.asarray(rows[at][1][rows[at][2], first:stop], dtype=np.float64) for at in wanted])

    def read(wanted: Sequence[int], first: int, stop: int) -> Values:
        return read_runs(runs, wanted, first, stop, stored) if line.holes else stored(wanted, first, stop)

    return Contents(tuple(signals), read, notes, rate_by)


def _leads(path: Path, values: NDArray[np.generic], what: str) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    """Return an array as ``(leads, samples)``, and what was done to it."""
    if values.ndim == 1:
        values = values[None]
    if values.ndim != 2 or values.dtype.kind not in "fiu" or not values.size:
        several = ""
        if values.ndim == 3 and values.shape[0]:
            held = "one recording" if len(values) == 1 else f"{len(values)} recordings"
            several = f". It seems to hold {held}: save one alone, for example np.save('one.npy', a[0])"
        raise wrong(path, f"holds {values.dtype} {values.shape}: numbers of shape (leads, samples) are needed{several}")
    if min(values.shape) > _MOST_LEADS:
        raise wrong(
            path,
            f"holds an array {values.shape}, as sets of heartbeats do: a recording has a row for each lead, (leads, samples)",
        )
    if values.shape[0] <= values.shape[1]:
        return values, ()
    if values.shape[1] == 1:
        return values.T, ()
    return values.T, (f"{what} is (samples, leads): each of its columns is taken for a lead",)


def _timeline(path: Path, times: tuple[str, NDArray[np.generic]] | None, fs: float | None) -> Timeline:
    none = Timeline(None, 0.0, ())
    if times is None:
        return none
    name, values = times

    def read(start: int, stop: int) -> Values:
        return np.asarray(values[start:stop], dtype=np.float64)

    try:
        return timeline(read, len(values), unit_s(_last(name)), fs=fs, times=is_time(_last(name))) or none
    except TimelineError as error:
        raise wrong(path, f"its array {name}, value {error.row}: {error}; {error.cure}") from error


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _key(name: str) -> str:
    return "".join(character for character in _last(name).lower() if character.isalnum())


def _is_said(name: str) -> bool:
    """Return whether an array is called as samples of an ECG are."""
    return is_ecg(_last(name)) is True or _key(name) in ("val", "signal", "signals", "data", "psignal", "x", "samples")


def _texts(values: NDArray[np.generic]) -> tuple[str, ...]:
    """Return the texts in an array of texts."""
    if values.dtype.kind not in "USO" or not 0 < values.size <= MOST_SIGNALS:
        return ()
    found = [one.decode("utf-8", "replace") if isinstance(one, bytes) else one for one in values.ravel().tolist()]
    return tuple(text.strip() for text in found) if all(isinstance(text, str) for text in found) else ()


def _rate(arrays: Mapping[str, NDArray[np.generic]]) -> float | None:
    for name, values in arrays.items():
        if _key(name) in _RATES and values.size == 1 and values.dtype.kind in "fiu":
            fs = float(values.ravel()[0])
            return fs if np.isfinite(fs) and fs > 0 else None
    return None
