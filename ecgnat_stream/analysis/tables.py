"""Events of one recording as NumPy structured arrays, one row a beat, a span, a second or an alarm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.events import Alarm, Beat, DeviceStatus, Event, Quality, Rhythm, Vitals
from ecgnat_stream.signal import LEADS
from ecgnat_stream.spans import RhythmSpan, alarm_spans, rhythm_spans

__all__ = [
    "ALARMS",
    "BEATS",
    "DIAGNOSES",
    "QUALITY",
    "RHYTHM",
    "VITALS",
    "alarm_table",
    "beat_table",
    "no_diagnoses",
    "quality_table",
    "rhythm_table",
    "said_of_signal",
    "spans_of",
    "vitals_table",
]

Table = NDArray[np.void]

BEATS = np.dtype([("sample", "i8"), ("time_s", "f8"), ("label", "U1"), ("rr_ms", "f8"), ("lead", "U3")])
"""A QRS complex: R peak as sample of the recording and in s, AAMI EC57 class, interval to the beat before (NaN: none), and the
lead that decided the place."""

RHYTHM = np.dtype([("start_s", "f8"), ("stop_s", "f8"), ("label", "U8"), ("probability", "f4")])
"""A stretch of one rhythm, and the mean probability of its label there."""

QUALITY = np.dtype([("at_s", "f8"), ("usable", "?"), ("best_lead", "U3"), ("sqi", "f4", (12,)), ("state", "U9", (12,))])
"""The second that ends at ``at_s``; quality 0..1 and state per lead of ``LEADS``, NaN and "" where there is none."""

VITALS = np.dtype([("at_s", "f8"), ("heart_rate_bpm", "f4"), ("pvc_per_min", "f4")])
"""What is shown at ``at_s``, NaN for no value."""

ALARMS = np.dtype(
    [("condition", "U32"), ("priority", "U6"), ("kind", "U13"), ("start_s", "f8"), ("stop_s", "f8"), ("lead", "U3")]
)
"""An alarm from its start until its condition had ended."""

DIAGNOSES = np.dtype([("statement", "U32"), ("text", "U80"), ("probability", "f4"), ("made", "?")])
"""A diagnostic statement about 12 leads, and whether its probability reaches the threshold of the network's card."""


def said_of_signal(events: Iterable[Event]) -> list[Event]:
    """Return the events up to the end of the stream, where every value is taken back."""
    said: list[Event] = []
    for event in events:
        if isinstance(event, DeviceStatus) and event.state == "ended":
            break
        said.append(event)
    return said


def beat_table(events: Iterable[Event], fs: float) -> Table:
    """Return :data:`BEATS` rows in the order of time."""
    rows: list[Any] = [
        (event.sample, event.sample / fs, event.label, np.nan if event.rr_ms is None else event.rr_ms, event.lead)
        for event in events
        if isinstance(event, Beat)
    ]
    return np.array(sorted(rows, key=lambda row: row[0]), BEATS)


def rhythm_table(spans: Sequence[RhythmSpan]) -> Table:
    """Return :data:`RHYTHM` rows."""
    return np.array([tuple(span) for span in spans], RHYTHM)


def spans_of(events: Iterable[Event]) -> list[RhythmSpan]:
    """Return the stretches of rhythm that the events speak of."""
    return rhythm_spans(event for event in events if isinstance(event, Rhythm))


def quality_table(events: Iterable[Event]) -> Table:
    """Return :data:`QUALITY` rows."""
    said = [event for event in events if isinstance(event, Quality)]
    table = np.zeros(len(said), QUALITY)
    table["sqi"] = np.nan
    table["at_s"] = [event.at_s for event in said]
    table["usable"] = [event.usable for event in said]
    table["best_lead"] = [event.best_lead or "" for event in said]
    for i, event in enumerate(said):
        for lead, state in event.leads.items():
            k = LEADS.index(lead)
            table["sqi"][i, k], table["state"][i, k] = state.sqi, state.state
    return table


def vitals_table(events: Iterable[Event]) -> Table:
    """Return :data:`VITALS` rows."""
    rows: list[Any] = [
        (event.at_s, _number(event.heart_rate_bpm), _number(event.pvc_per_min)) for event in events if isinstance(event, Vitals)
    ]
    return np.array(rows, VITALS)


def alarm_table(events: Iterable[Event], length_s: float) -> Table:
    """Return :data:`ALARMS` rows in the order of their starts."""
    spans = alarm_spans((event for event in events if isinstance(event, Alarm)), length_s)
    return np.array([(s.condition, s.priority, s.kind, s.start_s, s.stop_s, s.lead or "") for s in spans], ALARMS)


def no_diagnoses() -> Table:
    """Return :data:`DIAGNOSES` without a row."""
    return np.zeros(0, DIAGNOSES)


def _number(value: float | None) -> float:
    return np.nan if value is None else value
