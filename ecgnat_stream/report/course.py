"""A whole recording in one drawing: rhythm, the rate of every beat, alarms, unusable stretches, and where the strips are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.analysis import Analysis
from ecgnat_stream.analysis.excerpts import Excerpt
from ecgnat_stream.codes import PRIORITIES, RHYTHM_TEXTS
from ecgnat_stream.report.strips import PRIORITY_COLOURS, rhythm_colour
from ecgnat_stream.words import clock

__all__ = ["BEAT_COLOURS", "draw_course"]

_LEFT, _WIDTH, _RIGHT = 62.0, 1000.0, 22.0
_RHYTHM_Y, _RATE_Y, _RATE_HEIGHT = 18.0, 44.0, 150.0
_ROW = 16.0
_HIGHEST_BPM = 300.0
_MOST_DOTS, _FEW_DOTS = 4000, 300
_GRID_BPM = 50.0

BEAT_COLOURS = {"N": "var(--dot)", "S": "#ef8e00", "V": "#e53935", "F": "#8e24aa", "Q": "#8d99a5"}
"""Colour of a beat by its class, readable on light and dark."""

_STEPS_S = (1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200)
_MOST_TIMES = 12


def draw_course(analysis: Analysis, excerpts: Sequence[Excerpt]) -> str:
    """Return the drawing as one ``svg`` element; marks lead to the strips, ``#strip-1`` and so on."""
    rates = _rates(analysis.beats)
    top_bpm = _top(rates)
    below = _RATE_Y + _RATE_HEIGHT
    height = below + 2 * _ROW + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH + _LEFT + _RIGHT:g} {height:g}" class="course" role="img" '
        'aria-label="rhythm, heart rate and alarms over the whole recording">',
        *_marks(analysis, excerpts),
        *_side("rhythm", _RHYTHM_Y + 13),
        *_rhythm(analysis),
        *_grid(analysis, top_bpm, below + 2 * _ROW + 10),
        *_dots(analysis, rates, top_bpm),
        *_side("alarms", below + 19),
        *_alarms(analysis, below + 9),
        *_side("unusable", below + _ROW + 19),
        *_unusable(analysis, below + _ROW + 9),
        "</svg>",
    ]
    return "\n".join(parts)


def _x(analysis: Analysis, at_s: float) -> float:
    return _LEFT + _WIDTH * min(max(at_s / analysis.length_s, 0.0), 1.0)


def _side(text: str, y: float) -> Iterator[str]:
    yield f'<text x="{_LEFT - 8:g}" y="{y:g}" text-anchor="end">{text}</text>'


def _bar(analysis: Analysis, start_s: float, stop_s: float, y: float, height: float, colour: str, title: str) -> str:
    left, right = _x(analysis, start_s), _x(analysis, stop_s)
    return (
        f'<rect x="{left:.1f}" y="{y:g}" width="{max(right - left, 1.0):.1f}" height="{height:g}" fill="{colour}">'
        f"<title>{escape(title)}</title></rect>"
    )


def _marks(analysis: Analysis, excerpts: Sequence[Excerpt]) -> Iterator[str]:
    for number, excerpt in enumerate(excerpts, 1):
        x = _x(analysis, (excerpt.start_s + excerpt.stop_s) / 2)
        urgency = excerpt.remarks[0].urgency
        colour = PRIORITY_COLOURS[PRIORITIES[urgency - 1]] if urgency > 0 else "#78909c"
        texts = "; ".join(remark.text for remark in excerpt.remarks)
        yield (
            f'<a href="#strip-{number}"><path d="M{x - 5:.1f} 3h10l-5 9z" fill="{colour}">'
            f"<title>{clock(excerpt.start_s)}: {escape(texts)}</title></path></a>"
        )


def _rhythm(analysis: Analysis) -> Iterator[str]:
    for span in analysis.rhythm:
        start_s, stop_s, label = float(span["start_s"]), float(span["stop_s"]), str(span["label"])
        title = f"{RHYTHM_TEXTS.get(label, label)}, {clock(start_s)} to {clock(stop_s)}"
        yield _bar(analysis, start_s, stop_s, _RHYTHM_Y, 18, rhythm_colour(label), title)


def _alarms(analysis: Analysis, y: float) -> Iterator[str]:
    for alarm in sorted(analysis.alarms, key=lambda alarm: PRIORITIES.index(alarm["priority"])):
        start_s, stop_s, priority = float(alarm["start_s"]), float(alarm["stop_s"]), str(alarm["priority"])
        title = f"{alarm['condition']} ({priority}), {clock(start_s)} to {clock(stop_s)}"
        colour = PRIORITY_COLOURS[priority] if alarm["kind"] == "physiological" else "#90a4ae"  # type: ignore[index]
        yield _bar(analysis, start_s, stop_s, y, _ROW - 3, colour, title)


def _unusable(analysis: Analysis, y: float) -> Iterator[str]:
    bad_s = analysis.quality["at_s"][~analysis.quality["usable"]]
    for stretch in np.split(bad_s, np.flatnonzero(np.diff(bad_s) > 1.5) + 1):
        if len(stretch):
            start_s, stop_s = max(0.0, float(stretch[0]) - 1.0), float(stretch[-1])
            title = f"unusable, {clock(start_s)} to {clock(stop_s)}"
            yield _bar(analysis, start_s, stop_s, y, _ROW - 3, "#9e9e9e", title)


def _rates(beats: NDArray[np.void]) -> NDArray[np.float64]:
    """Return the rate of each beat in bpm, NaN where there is none before it."""
    rr_ms: NDArray[np.float64] = beats["rr_ms"]
    rates = np.full(len(rr_ms), np.nan)
    np.divide(60_000.0, rr_ms, out=rates, where=rr_ms > 0)
    return rates


def _top(rates: NDArray[np.float64]) -> float:
    known = rates[np.isfinite(rates)]
    high = float(np.quantile(known, 0.995)) if len(known) else 100.0
    return min(_HIGHEST_BPM, max(150.0, math.ceil(high / _GRID_BPM) * _GRID_BPM))


def _y(bpm: float, top_bpm: float) -> float:
    return _RATE_Y + _RATE_HEIGHT * (1.0 - min(bpm, top_bpm) / top_bpm)


def _grid(analysis: Analysis, top_bpm: float, bottom: float) -> Iterator[str]:
    for step in range(int(top_bpm // _GRID_BPM) + 1):
        y = _y(step * _GRID_BPM, top_bpm)
        yield f'<path class="grid" d="M{_LEFT:g} {y:.1f}H{_LEFT + _WIDTH:g}"/>'
        unit = " bpm" if step * _GRID_BPM == top_bpm else ""
        yield f'<text x="{_LEFT - 8:g}" y="{y + 4:.1f}" text-anchor="end">{step * _GRID_BPM:.0f}{unit}</text>'
    step_s = next((step for step in _STEPS_S if analysis.length_s / step <= _MOST_TIMES), 86_400)
    for k in range(int(analysis.length_s // step_s) + 1):
        x = _x(analysis, k * step_s)
        yield f'<path class="grid" d="M{x:.1f} {_RATE_Y:g}V{bottom:g}"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 13:g}" text-anchor="middle">{clock(k * step_s)}</text>'


def _dots(analysis: Analysis, rates: NDArray[np.float64], top_bpm: float) -> Iterator[str]:
    """Draw a dot a beat, one path per class; of very many, the lowest and the highest of each place of the drawing."""
    for label, colour in BEAT_COLOURS.items():
        chosen = np.flatnonzero((analysis.beats["label"] == label) & np.isfinite(rates))
        if len(chosen) > _MOST_DOTS:
            chosen = _extremes(analysis, rates, chosen)
        times, values = analysis.beats["time_s"][chosen].tolist(), rates[chosen].tolist()
        path = "".join(f"M{_x(analysis, at_s):.1f} {_y(bpm, top_bpm):.1f}h0" for at_s, bpm in zip(times, values, strict=True))
        if path:
            size = (2.4 if label == "N" else 3.6) + (2.0 if len(rates) < _FEW_DOTS else 0.0)
            yield f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{size}" stroke-linecap="round"/>'


def _extremes(analysis: Analysis, rates: NDArray[np.float64], chosen: NDArray[np.intp]) -> NDArray[np.intp]:
    places = (analysis.beats["time_s"][chosen] / analysis.length_s * _WIDTH).astype(np.int64)
    order = np.lexsort((rates[chosen], places))
    placed = places[order]
    first = np.flatnonzero(np.diff(placed, prepend=-1))
    last = np.append(first[1:] - 1, len(placed) - 1)
    kept: NDArray[np.intp] = chosen[order[np.union1d(first, last)]]
    return kept
