"""What is given to be analysed, as one thing: rate, leads, length, and samples in mV that are read in pieces.

A path is opened by the adapter that replays it, so that an analysis and a replay read the same samples; this stage knows no file
format. Arrays and wfdb records stay where they are: a piece is converted when it is read.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgnat_stream.analysis.frames import of_frame
from ecgnat_stream.clock import SystemClock
from ecgnat_stream.condition import condition_record
from ecgnat_stream.device import FS_RANGE, open_device
from ecgnat_stream.errors import InputError
from ecgnat_stream.recordings import SINGLE_FILES, WFDB_SUFFIXES
from ecgnat_stream.signal import (
    HEART_MV,
    LEADS,
    UV_RANGE,
    Conditioned,
    StreamInfo,
    assign_leads,
    ecg_signals,
    lead_notes,
    mv_per,
    same_rate,
    twice,
    unit_named,
)
from ecgnat_stream.words import as_text

__all__ = ["Recording", "Source", "WfdbRecord", "condition_samples", "open_source", "standard_leads"]

_LEAST_S = 1.0
"""Nothing can be said of less."""

_MOST_STEP_OF_V_UV = 100.0
"""Largest step of a signal in V that wfdb has read: an R wave would have ten steps. A step of 0.01 uV, taken for V, is larger."""

_LOOKS, _LOOK_S = 6, 10.0
"""Places, and seconds at each, that are looked at to question the unit."""

_NAMED = 12
"""At most so many signals that are left out are named."""

_MOST_LEADS = 64

_PACKAGE = str(Path(__file__).parents[1]) + os.sep

Samples = NDArray[np.float32]


class Frame(Protocol):
    """What is used of a ``pandas.DataFrame``, or of another table with columns."""

    columns: Any

    def __getitem__(self, key: Any, /) -> Any: ...


class WfdbRecord(Protocol):
    """What is used of a ``wfdb.Record``."""

    fs: float
    sig_name: list[str]
    units: list[str]
    p_signal: Any


Source = str | os.PathLike[str] | ArrayLike | WfdbRecord | Frame
"""What can be analysed: a path, an array ``(L, T)``, a wfdb record or what ``wfdb.rdsamp`` returns, a table."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Something that can be analysed.

    Parameters
    ----------
    name
        For people, and for the names of files.
    info
        Rate in Hz, leads, device text; never live.
    total
        Length in samples.
    read
        ``read(start, stop)`` gives ``(L, stop - start)`` float32 mV, NaN where invalid.
    """

    name: str
    info: StreamInfo
    total: int
    read: Callable[[int, int], Samples]

    @property
    def length_s(self) -> float:
        """Length in s."""
        return self.total / self.info.fs


def open_source(
    source: Source,
    *,
    fs: float | None = None,
    leads: Sequence[str] | None = None,
    units: str | None = None,
    scale: float = 1.0,
    start_s: float | None = None,
    stop_s: float | None = None,
    lead_map: Mapping[str, str] | None = None,
    strict: bool = True,
) -> Recording:
    """Open a path, an array, a table or a wfdb record; see :func:`ecgnat_stream.analyse` for what they may be.

    ``strict`` is that of :func:`ecgnat_stream.analyse_many`. ``lead_map`` only keeps what a person has named out of the notes.

    Raises
    ------
    InputError
        For samples that cannot be analysed as they were given.
    DeviceError
        For a file that is not there or cannot be read.
    """
    leads = (leads,) if isinstance(leads, str) else leads
    if again := twice(leads or ()):
        raise InputError(f"leads names {', '.join(again)} more than once: name each lead once")
    if units is not None:
        units = unit_named(units) or units
    if isinstance(source, str | os.PathLike):
        recording = _of_path(Path(source), fs, leads, units, scale, start_s, stop_s, strict)
    else:
        whole = _scaled(_of_object(source, fs, leads, units, strict), scale)
        recording = _part(whole, start_s or 0.0, stop_s)
    names = lead_notes(recording.info.leads, lead_map) if recording.info.recorded else []
    notes = (*recording.info.notes, *names, *_check(recording))
    for note in notes:
        warnings.warn(f"{recording.name}: {note}", UserWarning, stacklevel=_caller_level())
    if leads is None and recording.info.left_out:
        notes += (_left_out(recording.info.left_out),)
    return replace(recording, info=replace(recording.info, notes=notes))


def _left_out(names: Sequence[str]) -> str:
    """Say which signals are not read; nobody is warned of them, since most are no ECG."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"left out: {', '.join(names[:_NAMED])}{more} (no ECG, or another rate than the ECG)"


def _of_object(source: Any, fs: float | None, leads: Sequence[str] | None, units: str | None, strict: bool) -> Recording:
    """Open what is in memory, by what it has: no library is needed for what nobody gives."""
    match source:
        case (samples, {"sig_name": names, "units": stated, "fs": rate}):  # of wfdb.rdsamp
            record = SimpleNamespace(p_signal=samples, sig_name=names, units=stated, fs=rate, adc_gain=None, record_name=None)
            return _of_wfdb(record, fs, leads, units, strict)
    if hasattr(source, "sig_name") and hasattr(source, "p_signal"):
        return _of_wfdb(source, fs, leads, units, strict)
    if hasattr(source, "columns") and hasattr(source, "__getitem__"):
        return _of_table(source, fs, leads, units, strict)
    return _of_array(source, fs, leads, units)


def _of_path(
    path: Path,
    fs: float | None,
    leads: Sequence[str] | None,
    units: str | None,
    scale: float,
    start_s: float | None,
    stop_s: float | None,
    strict: bool,
) -> Recording:
    options = {
        "strict": strict,
        "scale": scale,
        "fs": fs,
        "leads": leads and list(leads),
        "units": units,
        "start_s": start_s,
        "stop_s": stop_s,
    }
    given = {key: value for key, value in options.items() if value is not None}
    device: Any = open_device("replay", {"path": str(path), "speed": "max", **given}, SystemClock())
    info, read = device.open()
    return Recording(_name(path), info, info.total, _finite(read))


def _name(path: Path) -> str:
    name = path.name[: -len(".gz")] if path.suffix.lower() == ".gz" else path.name
    return as_text(Path(name).stem if Path(name).suffix.lower() in (*SINGLE_FILES, *WFDB_SUFFIXES) else name)


def _of_table(source: Any, fs: float | None, leads: Sequence[str] | None, units: str | None, strict: bool) -> Recording:
    """Read a table: a column is a lead, but for those that time the rows, and for text."""
    table = of_frame(source, fs, leads, units, strict)
    recording = _of_array(table.samples, table.fs, table.leads, table.units)
    if not table.left_out:
        return recording
    device = f"{recording.info.device}, without {', '.join(table.left_out)}"
    return replace(recording, info=replace(recording.info, device=device, left_out=tuple(table.left_out)))


def _numbers(source: Any) -> NDArray[Any]:
    """Return an array; what is masked stays so."""
    if hasattr(source, "detach") and hasattr(source, "cpu"):
        source = source.detach().cpu()  # a torch tensor: one that has a gradient, or lies on another device, is no array
    try:
        if isinstance(source, np.ma.MaskedArray):
            return source
        if isinstance(source, list | tuple) and any(isinstance(row, np.ma.MaskedArray) for row in source):
            return np.ma.stack(source)
        return np.asarray(source)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{type(source).__name__} is no array of numbers ({error}): give a NumPy array (leads, samples) in mV, or a path"
        ) from error


def _of_array(source: Any, fs: float | None, leads: Sequence[str] | None, units: str | None) -> Recording:
    samples = _numbers(source)
    if samples.dtype.kind not in "fiu":
        raise InputError(f"samples of type {samples.dtype} are no numbers: give an array (leads, samples) in mV, or a path")
    if samples.ndim == 1:
        samples = samples[None]
    if samples.ndim != 2 or samples.size == 0:
        raise InputError(f"samples of shape {samples.shape}: want (leads, samples), none of them 0")
    if fs is None:
        raise InputError("what is given does not say its rate: give fs in Hz, for example fs=360")
    rows, total = samples.shape
    if rows > min(total, _MOST_LEADS) or (rows > total and leads is not None and len(leads) == total):
        raise InputError(f"samples of shape {samples.shape} look like (samples, leads): want (leads, samples), so give samples.T")
    names = _names(rows, leads)
    if samples.dtype.kind in "iu" and units is None:
        raise InputError(
            f"samples of type {samples.dtype} do not say their unit: give units='uV' if a step is 1 uV; steps of a converter are "
            "to be turned into mV first: (samples - baseline) / gain"
        )
    factor = mv_per(units or "mV")
    if factor is None:
        raise InputError(f"units={units!r} is no voltage: give 'uV', 'mV' or 'V'")

    def read(start: int, stop: int) -> Samples:
        return np.asarray(np.ma.filled(samples[:, start:stop] * factor, np.nan), np.float32)

    step_uv = 1e3 * factor if samples.dtype.kind in "iu" else 1.0
    info = StreamInfo(fs=float(fs), leads=names, device="samples", uv_per_lsb=step_uv, live=False, total=total)
    return Recording("samples", info, total, _finite(read))


def _names(rows: int, leads: Sequence[str] | None) -> tuple[str, ...]:
    if leads is None:
        if rows == 1:
            return ("ECG",)
        standard = (
            ", or leads=ecgnat_stream.LEADS if they are the twelve in this order: " + ", ".join(LEADS) if rows == 12 else ""
        )
        raise InputError(f"an array does not name its {rows} leads: give leads, for example leads=('II', 'V1'){standard}")
    names = tuple(leads)
    if len(names) != rows:
        raise InputError(f"the array has {rows} leads, but {len(names)} are named ({', '.join(names)}): give one name a row")
    return names


def _of_wfdb(source: Any, fs: float | None, leads: Sequence[str] | None, units: str | None, strict: bool) -> Recording:
    """Read a ``wfdb.Record`` in mV; digital samples are converted by its gain and baseline."""
    name = str(source.record_name or "record")
    signal = source.p_signal
    if signal is None and getattr(source, "d_signal", None) is not None:
        signal = source.dac()
    if signal is None or np.ndim(signal) != 2:
        raise InputError(
            f"wfdb record {name!r} holds no samples of one rate: read it with wfdb.rdrecord(path, smooth_frames=True)"
        )
    all_names = [name or f"CH{i + 1}" for i, name in enumerate(source.sig_name)]
    if leads is not None and (unknown := [lead for lead in leads if lead not in all_names]):
        raise InputError(f"the record has no lead {', '.join(unknown)}: it has {', '.join(all_names)}")
    rows = ecg_signals(all_names, source.units, units) if leads is None else [i for i, n in enumerate(all_names) if n in leads]
    if not rows:
        raise InputError(f"wfdb record {name!r} holds no voltage: {', '.join(all_names)}")
    rate = float(source.fs or fs or 0.0)
    if strict and fs is not None and not same_rate(rate, fs):
        raise InputError(
            f"wfdb record {name!r} states a rate of {rate:g} Hz, but fs is {fs:g}: leave fs out. To have another rate, resample "
            "it first; if the record is wrong, give its samples as an array"
        )
    scale = np.array([_factor(all_names[i], source.units[i], units, strict) for i in rows])

    def read(start: int, stop: int) -> Samples:
        return np.ascontiguousarray(np.ma.filled(signal[start:stop, rows] * scale, np.nan).T, dtype=np.float32)

    gains = np.array([source.adc_gain[i] if source.adc_gain else 1e3 for i in rows], float)
    steps_uv = 1e3 * scale / np.where(gains == 0.0, np.nan, np.abs(gains))
    if wrong := [all_names[i] for i, step in zip(rows, steps_uv, strict=True) if not UV_RANGE[0] <= step <= UV_RANGE[1]]:
        raise InputError(f"wfdb record {name!r}: the gain (adc_gain) of lead {wrong[0]} gives no step of a converter: mend it")
    if odd := [i for i, step in zip(rows, steps_uv, strict=True) if mv_per(source.units[i]) == 1e3 and step > _MOST_STEP_OF_V_UV]:
        raise InputError(
            f"wfdb record {name!r}: lead {all_names[odd[0]]} is in V, in steps of {steps_uv[rows.index(odd[0])]:g} uV, which no "
            "recorder of an ECG has: wfdb reads V for µV where a header has that letter. Give the path of the record instead"
        )
    info = StreamInfo(
        fs=rate,
        leads=tuple(all_names[i] for i in rows),
        device=f"wfdb record {name}",
        uv_per_lsb=float(np.min(steps_uv)),
        live=False,
        total=len(signal),
    )
    return Recording(name, info, len(signal), _finite(read))


def _factor(lead: str, stated: str | None, given: str | None, strict: bool) -> float:
    """Return how many mV a step of a lead is: by the unit that the record states, or the one given if that is no voltage."""
    factor, wanted = mv_per(stated or ""), mv_per(given or "")
    if strict and given is not None and factor is not None and factor != wanted:
        raise InputError(
            f"the record states that lead {lead} is in {stated}, but units is {given}: leave units out; if the record is wrong, "
            "give its samples as an array"
        )
    if factor is None and wanted is None:
        raise InputError(f"lead {lead} is in {given or stated or 'no unit'}, which is no voltage: give units, or leads")
    return factor or wanted or 0.0


def _finite(read: Callable[[int, int], Samples]) -> Callable[[int, int], Samples]:
    """Return a reader that gives NaN for infinite values, as supervision of a device does."""

    def finite(start: int, stop: int) -> Samples:
        samples = read(start, stop)
        return np.where(np.isinf(samples), np.float32(np.nan), samples) if np.isinf(samples).any() else samples

    return finite


def _scaled(whole: Recording, scale: float) -> Recording:
    if scale == 1.0:
        return whole
    step_uv = abs(scale * whole.info.uv_per_lsb)
    if not UV_RANGE[0] <= step_uv <= UV_RANGE[1]:
        raise InputError(f"scale={scale:g}: give the size of one step in the unit, not 0 and finite; negative turns it over")
    info, read, factor = replace(whole.info, uv_per_lsb=step_uv), whole.read, np.float32(scale)
    return replace(whole, info=info, read=lambda start, stop: read(start, stop) * factor)


def _part(whole: Recording, start_s: float, stop_s: float | None) -> Recording:
    if not start_s and stop_s is None:
        return whole
    fs = whole.info.fs
    start = round(start_s * fs)
    stop = whole.total if stop_s is None else min(whole.total, round(stop_s * fs))
    if not 0 <= start < stop:
        raise InputError(f"nothing between start_s={start_s:g} and stop_s={stop_s}: the samples are {whole.length_s:g} s long")
    read = whole.read
    return Recording(whole.name, whole.info, stop - start, lambda first, last: read(start + first, start + last))


def _check(recording: Recording) -> list[str]:
    """Refuse what the stages cannot take; return what is questioned, a unit."""
    fs, (low, high) = recording.info.fs, FS_RANGE
    if not low <= fs <= high:
        how = "resample it first, for example scipy.signal.resample_poly(samples, 250, round(fs), axis=1) with fs=250"
        raise InputError(f"{recording.name}: a rate of {fs:g} Hz is outside {low:g} to {high:g} Hz: {how}")
    if recording.length_s < _LEAST_S:
        samples = f"{recording.total} sample{'s' if recording.total > 1 else ''}"
        raise InputError(
            f"{recording.name}: {samples} ({recording.length_s:.3g} s) are too few: at least {_LEAST_S:g} s are needed"
        )
    moves_mv = _moves_mv(recording)
    if moves_mv > HEART_MV[1]:
        raise InputError(
            f"{recording.name}: its leads move by {moves_mv:.3g} mV within a second, which no heart does: are the samples in uV, "
            "or in steps of a converter? Give units='uV' (--units uV), or mV: (samples - baseline) / gain. If a file states a "
            "wrong unit, give its samples as an array"
        )
    if 0 < moves_mv < HEART_MV[0]:
        # Not refused: leads that are off, and a heart that stands still, look like this too.
        return [
            f"its leads move by no more than {moves_mv:.2g} mV within a second, which is too little for a beating heart: are the "
            "samples in V? Then give units='V' (--units V)"
        ]
    return []


def _caller_level() -> int:
    """Return the ``stacklevel`` at which a warning of the function that asks points at the first line outside of this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level


def _moves_mv(recording: Recording) -> float:
    """Return how far a lead moves within a second, peak to peak: the median over seconds and leads; 0 if nothing is there.

    For the lower bound the largest lead would do; a wrong unit moves the median as much.
    """
    second, look = round(recording.info.fs), round(_LOOK_S * recording.info.fs)
    last = max(0, recording.total - look)
    moves: list[NDArray[np.floating]] = []
    for start in sorted({round(last * k / max(1, _LOOKS - 1)) for k in range(_LOOKS)}):
        samples = recording.read(start, min(recording.total, start + look))
        seconds = samples[:, : samples.shape[1] // second * second].reshape(len(samples), -1, second)
        whole = np.isfinite(seconds).all(axis=2)
        moves.append((seconds.max(axis=2) - seconds.min(axis=2))[whole])
    found = np.concatenate(moves)
    found = found[found > 0]
    return float(np.median(found)) if len(found) else 0.0


def standard_leads(samples: Samples, used_as: Sequence[str | None]) -> Samples:
    """Return ``(12, T)``: each row of ``(L, T)`` in the place of the lead that it is taken for, NaN without one."""
    leads = np.full((len(LEADS), samples.shape[1]), np.nan, np.float32)
    for row, lead in zip(samples, used_as, strict=True):
        if lead:
            leads[LEADS.index(lead)] = row
    return leads


def condition_samples(
    source: Source,
    *,
    fs: float | None = None,
    leads: Sequence[str] | None = None,
    units: str | None = None,
    lead_map: Mapping[str, str] | None = None,
    start_s: float | None = None,
    stop_s: float | None = None,
) -> Conditioned:
    """Turn raw samples into what the stages and the networks read: twelve leads, filtered, with their rate.

    Parameters
    ----------
    source, fs, leads, units, lead_map, start_s, stop_s
        As for :func:`ecgnat_stream.analyse`; all of the part is held in memory.

    Raises
    ------
    InputError, DeviceError, ConfigError
        As :func:`ecgnat_stream.analyse`.

    Examples
    --------
    >>> t = np.arange(20 * 250) / 250
    >>> raw = np.exp(-(((t % 0.8 - 0.4) / 0.02) ** 2))
    >>> signal = condition_samples(raw, fs=250, leads=["II"])
    >>> signal.samples.shape, signal.fs
    ((12, 4000), 200)
    >>> signal.windows(10).samples.shape  # for Predictor.predict
    (2, 12, 2000)
    """
    recording = open_source(source, fs=fs, leads=leads, units=units, start_s=start_s, stop_s=stop_s, lead_map=lead_map)
    slots = assign_leads(recording.info.leads, lead_map, recorded=recording.info.recorded)
    used_as = [None if slot is None else LEADS[slot] for slot in slots]
    return condition_record(standard_leads(recording.read(0, recording.total), used_as), recording.info.fs)
