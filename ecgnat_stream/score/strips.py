"""Strips of a comparison: experts above, the monitor below; beats that were missed, false or of another class are red."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import wfdb
from numpy.typing import NDArray

from ecgnat_stream.report.strips import PRIORITY_COLOURS, Bar, Letter, Row, Strip, rhythm_colour
from ecgnat_stream.score.compare import BeatPair
from ecgnat_stream.score.run import Observed
from ecgnat_stream.score.truth import Truth
from ecgnat_stream.signal import mv_per

__all__ = ["compared", "read_leads"]


def compared(start_s: float, stop_s: float, truth: Truth, observed: Observed, pairs: Sequence[BeatPair]) -> Strip:
    """Return the strip of a part of a record, with who said what.

    Raises
    ------
    ValueError
        If the record cannot be read.
    """
    names, samples = read_leads(truth, start_s, stop_s)
    expert, monitor = (list(_letters(truth, pairs, expert=expert)) for expert in (True, False))
    alarms: dict[str, list[Bar]] = {}
    for alarm in observed.alarms:
        if alarm.start_s < stop_s and alarm.stop_s > start_s:
            bar = Bar(alarm.start_s, alarm.stop_s, alarm.condition, PRIORITY_COLOURS[alarm.priority])
            alarms.setdefault(alarm.condition, []).append(bar)
    above = (Row("expert", _rhythm(truth.rhythm)), Row("", letters=expert))
    below = (Row("monitor", letters=monitor), Row("", _rhythm([span[:3] for span in observed.rhythm])))
    return Strip(names, samples, truth.fs, start_s, above, (*below, *(Row("", bars) for bars in alarms.values())))


def read_leads(truth: Truth, start_s: float, stop_s: float) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Return the names and the samples ``(L, T)`` in mV of a part of a record.

    Raises
    ------
    ValueError
        If it cannot be read.
    """
    first, last = max(0, round(start_s * truth.fs)), min(round(stop_s * truth.fs), round(truth.length_s * truth.fs))
    try:
        part = wfdb.rdrecord(str(truth.path), sampfrom=first, sampto=last)
    except (TypeError, IndexError, AttributeError, OSError) as error:
        raise ValueError(f"{truth.path}: {error}") from error
    scale = np.array([mv_per(str(unit)) or 0.0 for unit in part.units])
    kept = scale > 0
    names = tuple(name or f"signal {i + 1}" for i, name in enumerate(part.sig_name))
    samples = (np.asarray(part.p_signal, np.float64) * scale).T[kept]
    return tuple(name for name, keep in zip(names, kept, strict=True) if keep), samples


def _rhythm(spans: Sequence[tuple[float, float, str]]) -> list[Bar]:
    return [Bar(start, stop, label, rhythm_colour(label)) for start, stop, label in spans]


def _letters(truth: Truth, pairs: Sequence[BeatPair], *, expert: bool) -> Iterator[Letter]:
    for pair in pairs:
        at_s, said = (pair.truth_s, pair.truth) if expert else (pair.found_s, pair.found)
        if at_s is not None:
            unlike = truth.classes is not None and pair.truth != pair.found
            wrong = truth.beats_s is not None and (pair.truth_s is None or pair.found_s is None or unlike)
            yield Letter(at_s, said, wrong)
