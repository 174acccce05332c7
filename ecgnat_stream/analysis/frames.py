"""Tables in memory, as pandas and polars have them: a column for each lead; times in the index or a column place its rows.

What a table says counts as in a file: the rate and the holes of its times, the units in the names of its columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.errors import InputError
from ecgnat_stream.signal import is_ecg, mv_per, twice
from ecgnat_stream.tables import name_and_unit, number
from ecgnat_stream.timeline import TextTimes, TimelineError, insert_holes, is_index, is_time, timeline, unit_s

__all__ = ["OfFrame", "of_frame"]

Values = NDArray[np.float64]


class OfFrame(NamedTuple):
    """What a table in memory holds: ``(L, T)``, rate, names, their unit, and the columns that are left out."""

    samples: NDArray[Any]
    fs: float | None
    leads: Sequence[str] | None
    units: str | None
    left_out: list[str]


def of_frame(source: Any, fs: float | None, leads: Sequence[str] | None, units: str | None, strict: bool = True) -> OfFrame:
    """Read a table; without ``strict`` one that says another rate or unit than what is given keeps its own.

    Raises
    ------
    InputError
        If it has no samples, or says another rate or unit than what is given.
    """
    columns = [column for column in source.columns if not is_index(str(column))]
    values = {at: _samples(source, column) for at, column in enumerate(columns)}
    said = {at: name_and_unit(column) if isinstance(column, str) else ("", "") for at, column in enumerate(columns)}
    named = [name for name, _ in said.values() if name]
    if again := twice(named):
        raise InputError(f"the table has several columns called {', '.join(again)}: give each lead a name of its own")
    chosen = [at for at, column in values.items() if column is not None and is_ecg(said[at][0]) is not False]
    if leads is not None and set(leads) <= set(named):
        places = {name: at for at, (name, _) in said.items()}
        chosen = [places[lead] for lead in leads]
        if text := [lead for lead, at in zip(leads, chosen, strict=True) if values[at] is None]:
            raise InputError(f"column {text[0]!r} of the table holds no numbers: leave it out of leads")
    elif leads is None and len(named) == len(columns):
        leads = [said[at][0] for at in chosen]
    if not chosen:
        raise InputError("the table has no column with samples: want one for each lead")
    samples = [column for at in chosen if (column := values[at]) is not None]
    stated = [mv_per(said[at][1]) for at in chosen]
    if any(factor is not None for factor in stated):
        samples, units = _in_mv([str(columns[at]) for at in chosen], samples, stated, units, strict), "mV"
    stacked, fs = _placed(source, np.stack(samples), fs, strict)
    left_out = [str(columns[at]) for at in values if at not in chosen]
    return OfFrame(stacked, fs, leads, units, left_out)


def _samples(source: Any, column: Any) -> NDArray[Any] | None:
    """Return the numbers of a column; None if it holds other things."""
    values = np.asarray(source[column])
    if values.ndim == 1 and values.dtype.kind in "fiu":
        return values
    if values.ndim != 1 or values.dtype.kind not in "OUT":
        return None
    try:
        return np.array([_number(value) for value in values.tolist()], np.float64)
    except (TypeError, ValueError):
        return None


def _number(value: Any) -> float:
    if isinstance(value, str):
        return number(value)
    return float("nan") if value is None or str(value) in ("<NA>", "NaT") else float(value)


def _in_mv(
    names: Sequence[str], samples: Sequence[NDArray[Any]], stated: Sequence[float | None], units: str | None, strict: bool
) -> list[NDArray[Any]]:
    given = mv_per(units or "")
    for name, factor in zip(names, stated, strict=True):
        if factor is None and given is None:
            raise InputError(f"column {name!r} of the table has no unit, but others have: give units, or leads")
        if strict and factor is not None and given is not None and factor != given:
            raise InputError(f"column {name!r} of the table states its unit, but units is {units}: leave units out")
    return [values * (given if factor is None else factor) for values, factor in zip(samples, stated, strict=True)]


def _placed(source: Any, samples: NDArray[Any], fs: float | None, strict: bool) -> tuple[NDArray[Any], float | None]:
    """Return samples with NaN where rows are missing, and their rate."""
    found = _times(source)
    if found is None or len(found[1]) != samples.shape[1]:
        return samples, fs
    what, times, unit, called = found
    try:
        line = timeline(lambda start, stop: times[start:stop], len(times), unit, fs=fs, times=called)
    except TimelineError as error:
        raise InputError(f"row {error.row} of the table, {what}: {error}; {error.cure}") from error
    if line is None:
        return samples, fs
    if fs is not None and not line.agrees(fs):
        if not strict:
            return _placed(source, samples, None, strict)
        raise InputError(f"the table states a rate of {line.fs:g} Hz ({what}), but fs is {fs:g}: leave fs out")
    rate = line.fs if fs is None else fs
    return (insert_holes(samples.astype(np.float64), line) if line.holes else samples), rate


def _times(source: Any) -> tuple[str, Values, float | None, bool] | None:
    """Return what times the rows, in which unit in s, and whether it is called as times are: the index, or a column."""
    index = getattr(source, "index", None)
    count = None
    if index is not None and not callable(index):
        if getattr(index, "tz", None) is not None:
            index = index.tz_convert(None)
        values, name = np.asarray(index), str(getattr(index, "name", None) or "")
        if values.dtype.kind in "mM" or (values.dtype.kind in "fiu" and is_index(name)):
            return "its index", *_seconds(values, name), is_time(name)
        if values.dtype.kind in "iu" and not name:
            count = "its index", values.astype(np.float64), None, False
    found = {column: np.asarray(source[column]) for column in source.columns if is_index(str(column))}
    for kinds in ("mM", "fiu", "OUT"):
        for column, values in found.items():
            if values.dtype.kind in kinds and values.ndim == 1 and len(values):
                try:
                    return f"its column {column}", *_seconds(values, str(column)), is_time(str(column))
                except (TypeError, ValueError) as error:
                    if is_time(str(column)):
                        raise InputError(
                            f"column {column!r} of the table is called as times are, but holds {str(values[0])[:40]!r}, which is "
                            "no time that is known: convert it (pandas.to_datetime), leave it out or rename it"
                        ) from error
    return count


def _seconds(values: NDArray[Any], name: str) -> tuple[Values, float | None]:
    if values.dtype.kind in "mM":
        steps = (values - values[:1]).astype("timedelta64[ns]")
        return np.where(np.isnat(steps), np.nan, steps.astype(np.int64) * 1e-9), 1.0
    if values.dtype.kind in "fiu":
        return values.astype(np.float64), unit_s(name)
    texts = [str(value) for value in values.tolist()]
    read = TextTimes((*texts[:100], *texts[-100:]))
    return np.array([read(text) for text in texts]), 1.0
