"""Strips of a comparison: experts above, the monitor below; beats that were missed, false or of another class are red."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.errors import EcgnatError
from ecgnat_stream.report.strips import PRIORITY_COLOURS, Bar, Letter, Row, Strip, rhythm_colour
from ecgnat_stream.score.compare import BeatPair
from ecgnat_stream.score.records import open_leads
from ecgnat_stream.score.run import Observed
from ecgnat_stream.score.truth import Truth

__all__ = ["compared", "read_leads"]


def compared(start_s: float, stop_s: float, truth: Truth, observed: Observed, pairs: Sequence[BeatPair]) -> Strip:
    """Return the strip of a part of a record, with who said what.

    Raises
    ------
    ValueError
        If the record cannot be read.
    """
    names, fs, samples = read_leads(truth, start_s, stop_s)
    expert, monitor = (list(_letters(truth, pairs, expert=expert)) for expert in (True, False))
    alarms: dict[str, list[Bar]] = {}
    for alarm in observed.alarms:
        if alarm.start_s < stop_s and alarm.stop_s > start_s:
            bar = Bar(alarm.start_s, alarm.stop_s, alarm.condition, PRIORITY_COLOURS[alarm.priority])
            alarms.setdefault(alarm.condition, []).append(bar)
    above = (Row("expert", _rhythm(truth.rhythm)), Row("", letters=expert))
    below = (Row("monitor", letters=monitor), Row("", _rhythm([span[:3] for span in observed.rhythm])))
    return Strip(names, samples, fs, start_s, above, (*below, *(Row("", bars) for bars in alarms.values())))


def read_leads(truth: Truth, start_s: float, stop_s: float) -> tuple[tuple[str, ...], float, NDArray[np.float64]]:
    """Return the names, the rate in Hz and the samples ``(L, T)`` in mV of a part of a record.

    Raises
    ------
    ValueError
        If it cannot be read.
    """
    try:
        info, read = open_leads(truth.path)
        first, last = max(0, round(start_s * info.fs)), round(min(stop_s, truth.length_s) * info.fs)
        return info.leads, info.fs, read(first, min(last, info.total or last)).astype(np.float64)
    except EcgnatError as error:
        raise ValueError(str(error)) from error


def _rhythm(spans: Sequence[tuple[float, float, str]]) -> list[Bar]:
    return [Bar(start, stop, label, rhythm_colour(label)) for start, stop, label in spans]


def _letters(truth: Truth, pairs: Sequence[BeatPair], *, expert: bool) -> Iterator[Letter]:
    for pair in pairs:
        at_s, said = (pair.truth_s, pair.truth) if expert else (pair.found_s, pair.found)
        if at_s is not None:
            unlike = truth.classes is not None and pair.truth != pair.found
            wrong = truth.beats_s is not None and (pair.truth_s is None or pair.found_s is None or unlike)
            yield Letter(at_s, said, wrong)
