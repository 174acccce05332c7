"""Strips of ECG as SVG: 25 mm/s and 10 mm/mV on millimetre paper, the expert's marks above, the monitor's below.

One unit of the drawing is one millimetre. Beats that were missed, false or of another class are red.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
import wfdb
from numpy.typing import NDArray

from ecgnat_stream.score.compare import BeatPair
from ecgnat_stream.score.run import Observed
from ecgnat_stream.score.truth import Truth
from ecgnat_stream.signal import mv_per
from ecgnat_stream.spans import AlarmSpan

__all__ = ["DEFINITIONS", "Strip", "draw", "read_leads"]

MM_PER_S, MM_PER_MV = 25.0, 10.0
_ROW_MM, _MARGIN_MM = 5.0, 20.0
_LEAST_MM, _MOST_MM = 16.0, 45.0
"""Height of a lead: what its samples need within these bounds; what goes beyond is cut off."""

_POINT_S = 0.008
"""One point per 8 ms is drawn, the one farthest from the base line, so that no peak is lost."""

_COLOURS = {"high": "#d32f2f", "medium": "#c99700", "low": "#0097a7"}
_QUIET = ("N", "SINUS", "SBRAD", "STACH", "(N")

DEFINITIONS = """<defs>
<pattern id="mm" width="1" height="1" patternUnits="userSpaceOnUse">
<path d="M1 0H0V1" fill="none" stroke="#f3cfcf" stroke-width=".1"/></pattern>
<pattern id="cm" width="5" height="5" patternUnits="userSpaceOnUse"><rect width="5" height="5" fill="url(#mm)"/>
<path d="M5 0H0V5" fill="none" stroke="#e6a5a5" stroke-width=".2"/></pattern></defs>"""
"""The paper; needed once per document."""


class Strip(NamedTuple):
    """What a strip shows: samples ``(L, T)`` in mV from ``start_s`` on, and who said what."""

    names: tuple[str, ...]
    samples: NDArray[np.float64]
    fs: float
    start_s: float
    truth: Truth
    observed: Observed
    pairs: Sequence[BeatPair]

    @property
    def stop_s(self) -> float:
        """End of the strip."""
        return self.start_s + len(self.samples[0]) / self.fs


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


def draw(strip: Strip) -> str:
    """Return the drawing as one ``svg`` element."""
    alarms = _alarm_rows(strip)
    top = 2 * _ROW_MM
    leads = [_Paper(lead) for lead in strip.samples]
    bottom = top + sum(lead.height for lead in leads)
    height = bottom + _ROW_MM * (2 + len(alarms)) + 4
    width = _MARGIN_MM + (strip.stop_s - strip.start_s) * MM_PER_S
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" class="strip" font-size="3.2">',
        f'<rect x="{_MARGIN_MM}" y="{top}" width="{width - _MARGIN_MM:g}" height="{bottom - top:g}" fill="url(#cm)"/>',
        _name("expert", 0.0),
        *_bars(strip, strip.truth.rhythm, 0.0),
        *_beats(strip, top - 1.2, expert=True),
    ]
    y = top
    for name, samples, lead in zip(strip.names, strip.samples, leads, strict=True):
        parts += [_name(name, y + lead.height / 2 - _ROW_MM / 2), _trace(samples, strip.fs, lead, y)]
        y += lead.height
    parts += [_name("monitor", bottom), *_beats(strip, bottom + 3.8, expert=False)]
    parts += _bars(strip, [span[:3] for span in strip.observed.rhythm], bottom + _ROW_MM)
    for row, spans in enumerate(alarms):
        y = bottom + _ROW_MM * (row + 2)
        for alarm in spans:
            parts += _bar(strip, alarm.start_s, alarm.stop_s, f"{alarm.condition}", _COLOURS[alarm.priority], y)
    return "\n".join([*parts, *_times(strip, height - 0.8), "</svg>"])


def _x(strip: Strip, at_s: float) -> float:
    return _MARGIN_MM + (min(max(at_s, strip.start_s), strip.stop_s) - strip.start_s) * MM_PER_S


def _name(text: str, y: float) -> str:
    return f'<text x="1" y="{y + 3.6:g}" fill="#555">{escape(text[:10])}</text>'


class _Paper:
    """Room for one lead: its height, and the voltages at its edges."""

    def __init__(self, samples: NDArray[np.float64]) -> None:
        finite = samples[np.isfinite(samples)]
        low, high = np.quantile(finite, [0.001, 0.999]) * MM_PER_MV if len(finite) else (0.0, 0.0)
        needed = math.ceil((high - low + 4) / 5) * 5.0
        self.height = min(max(needed, _LEAST_MM), _MOST_MM)
        self.middle_mv = float(low + high) / 2 / MM_PER_MV
        self.base_mv = float(np.median(finite)) if len(finite) else 0.0


def _trace(samples: NDArray[np.float64], fs: float, paper: _Paper, y: float) -> str:
    """Draw one lead; where samples are missing the line is broken."""
    size = max(1, round(_POINT_S * fs))
    centred = samples[: len(samples) // size * size].reshape(-1, size) - paper.base_mv
    chosen = np.nan_to_num(np.abs(centred), nan=-1.0).argmax(axis=1)
    values = centred[np.arange(len(centred)), chosen]
    times = (np.arange(len(centred)) * size + chosen) / fs
    reach = paper.height / 2 / MM_PER_MV
    path, drawing = [], False
    for at_s, value in zip(times.tolist(), values.tolist(), strict=True):
        if math.isnan(value):
            drawing = False
            continue
        above = min(max(value + paper.base_mv - paper.middle_mv, -reach), reach)
        height = y + paper.height / 2 - above * MM_PER_MV
        path.append(f"{'L' if drawing else 'M'}{_MARGIN_MM + at_s * MM_PER_S:.1f} {height:.1f}")
        drawing = True
    return f'<path d="{"".join(path)}" fill="none" stroke="#111" stroke-width=".3" stroke-linejoin="round"/>'


def _beats(strip: Strip, y: float, *, expert: bool) -> Iterator[str]:
    for pair in strip.pairs:
        at_s, said = (pair.truth_s, pair.truth) if expert else (pair.found_s, pair.found)
        if at_s is not None and strip.start_s <= at_s < strip.stop_s:
            unlike = strip.truth.classes is not None and pair.truth != pair.found
            wrong = strip.truth.beats_s is not None and (pair.truth_s is None or pair.found_s is None or unlike)
            style = 'fill="#d32f2f" font-weight="bold"' if wrong else 'fill="#333"'
            yield f'<text x="{_x(strip, at_s):.1f}" y="{y:g}" text-anchor="middle" {style}>{escape(said)}</text>'


def _bars(strip: Strip, spans: Sequence[tuple[float, float, str]], y: float) -> list[str]:
    return [
        part
        for start, stop, label in spans
        for part in _bar(strip, start, stop, label, "#b0bec5" if label in _QUIET else "#7e57c2", y)
    ]


def _bar(strip: Strip, start: float, stop: float, label: str, colour: str, y: float) -> list[str]:
    left, right = _x(strip, start), _x(strip, stop)
    if stop <= strip.start_s or start >= strip.stop_s:
        return []
    return [
        f'<rect x="{left:.1f}" y="{y + 0.4:g}" width="{max(right - left, 0.5):.1f}" height="4.2" fill="{colour}" opacity=".85"/>',
        f'<text x="{left + 1:.1f}" y="{y + 3.6:g}" fill="{"#222" if colour == "#b0bec5" else "#fff"}">{escape(label)}</text>',
    ]


def _alarm_rows(strip: Strip) -> list[list[AlarmSpan]]:
    """Return the alarms that were on within the strip, one row per condition."""
    rows: dict[str, list[AlarmSpan]] = {}
    for alarm in strip.observed.alarms:
        if alarm.start_s < strip.stop_s and alarm.stop_s > strip.start_s:
            rows.setdefault(alarm.condition, []).append(alarm)
    return list(rows.values())


def _times(strip: Strip, y: float) -> Iterator[str]:
    for second in range(int(np.ceil(strip.start_s)), int(strip.stop_s) + 1):
        if second % 5 == 0:
            text = f"{second // 60}:{second % 60:02d}"
            yield f'<text x="{_x(strip, second):.1f}" y="{y:g}" text-anchor="middle" fill="#777" font-size="2.6">{text}</text>'
