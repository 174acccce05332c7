"""Strips of ECG as SVG: 25 mm/s and 10 mm/mV on millimetre paper, with rows of bars and letters above and below.

One unit of the drawing is one millimetre. Who said what is the caller's: a row is a name, bars (stretches of time with a label)
and letters (a beat's class over its place).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.colours import DARK_TEXT, PRIORITY_COLOURS, rhythm_colour
from ecgnat_stream.words import clock

__all__ = ["DEFINITIONS", "PRIORITY_COLOURS", "Bar", "Letter", "Row", "Strip", "draw", "rhythm_colour"]

MM_PER_S, MM_PER_MV = 25.0, 10.0
_ROW_MM, _MARGIN_MM = 5.0, 20.0
_LEAST_MM, _MOST_MM = 16.0, 45.0
"""Height of a lead: what its samples need within these bounds; what goes beyond is cut off."""

_POINT_S = 0.008
"""One point per 8 ms is drawn, the one farthest from the base line, so that no peak is lost."""

_EVERY_SECOND_BELOW_S = 12.0
_LONGEST_NAME = 10

DEFINITIONS = """<defs>
<pattern id="mm" width="1" height="1" patternUnits="userSpaceOnUse">
<path d="M1 0H0V1" fill="none" stroke="#f3cfcf" stroke-width=".1"/></pattern>
<pattern id="cm" width="5" height="5" patternUnits="userSpaceOnUse"><rect width="5" height="5" fill="url(#mm)"/>
<path d="M5 0H0V5" fill="none" stroke="#e6a5a5" stroke-width=".2"/></pattern></defs>"""
"""The paper; needed once per document."""


class Bar(NamedTuple):
    """A stretch of time with a label."""

    start_s: float
    stop_s: float
    label: str
    colour: str


class Letter(NamedTuple):
    """A short text over a place; red where it is marked."""

    at_s: float
    text: str
    marked: bool = False


class Row(NamedTuple):
    """One row above or below the leads."""

    name: str
    bars: Sequence[Bar] = ()
    letters: Sequence[Letter] = ()


class Strip(NamedTuple):
    """What a strip shows: samples ``(L, T)`` in mV from ``start_s`` on, and rows of what was said."""

    names: tuple[str, ...]
    samples: NDArray[np.floating]
    fs: float
    start_s: float
    above: Sequence[Row] = ()
    below: Sequence[Row] = ()

    @property
    def stop_s(self) -> float:
        """End of the strip."""
        return self.start_s + len(self.samples[0]) / self.fs


def draw(strip: Strip) -> str:
    """Return the drawing as one ``svg`` element."""
    top = _ROW_MM * len(strip.above)
    leads = [_Paper(lead) for lead in strip.samples]
    bottom = top + sum(lead.height for lead in leads)
    height = bottom + _ROW_MM * len(strip.below) + 4
    width = _MARGIN_MM + (strip.stop_s - strip.start_s) * MM_PER_S
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" class="strip" font-size="3.2">',
        f'<rect x="{_MARGIN_MM}" y="{top}" width="{width - _MARGIN_MM:g}" height="{bottom - top:g}" fill="url(#cm)"/>',
    ]
    for i, row in enumerate(strip.above):
        parts += _row(strip, row, _ROW_MM * i)
    y = top
    for name, samples, lead in zip(strip.names, strip.samples, leads, strict=True):
        parts += [_name(name, y + lead.height / 2 - _ROW_MM / 2), _trace(samples, strip.fs, lead, y)]
        y += lead.height
    for i, row in enumerate(strip.below):
        parts += _row(strip, row, bottom + _ROW_MM * i)
    return "\n".join([*parts, *_times(strip, height - 0.8), "</svg>"])


def _x(strip: Strip, at_s: float) -> float:
    return _MARGIN_MM + (min(max(at_s, strip.start_s), strip.stop_s) - strip.start_s) * MM_PER_S


def _name(text: str, y: float) -> str:
    return f'<text x="1" y="{y + 3.6:g}" fill="#555">{escape(text[:_LONGEST_NAME])}</text>'


class _Paper:
    """Room for one lead: its height, and the voltages at its edges."""

    def __init__(self, samples: NDArray[np.floating]) -> None:
        finite = samples[np.isfinite(samples)]
        low, high = np.quantile(finite, [0.001, 0.999]) * MM_PER_MV if len(finite) else (0.0, 0.0)
        needed = math.ceil((high - low + 4) / 5) * 5.0
        self.height = min(max(needed, _LEAST_MM), _MOST_MM)
        self.middle_mv = float(low + high) / 2 / MM_PER_MV
        self.base_mv = float(np.median(finite)) if len(finite) else 0.0


def _trace(samples: NDArray[np.floating], fs: float, paper: _Paper, y: float) -> str:
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


def _row(strip: Strip, row: Row, y: float) -> Iterator[str]:
    if row.name:
        yield _name(row.name, y)
    for bar in row.bars:
        if bar.stop_s > strip.start_s and bar.start_s < strip.stop_s:
            left, right = _x(strip, bar.start_s), _x(strip, bar.stop_s)
            wide = max(right - left, 0.5)
            yield f'<rect x="{left:.1f}" y="{y + 0.4:g}" width="{wide:.1f}" height="4.2" fill="{bar.colour}" opacity=".85"/>'
            text = "#222" if bar.colour in DARK_TEXT else "#fff"
            yield f'<text x="{left + 1:.1f}" y="{y + 3.6:g}" fill="{text}">{escape(bar.label)}</text>'
    for letter in row.letters:
        if strip.start_s <= letter.at_s < strip.stop_s:
            style = 'fill="#d32f2f" font-weight="bold"' if letter.marked else 'fill="#333"'
            x = _x(strip, letter.at_s)
            yield f'<text x="{x:.1f}" y="{y + 3.8:g}" text-anchor="middle" {style}>{escape(letter.text)}</text>'


def _times(strip: Strip, y: float) -> Iterator[str]:
    step = 1 if strip.stop_s - strip.start_s < _EVERY_SECOND_BELOW_S else 5
    for second in range(math.ceil(strip.start_s), int(strip.stop_s) + 1):
        if second % step == 0:
            x = min(_x(strip, second), _x(strip, strip.stop_s) - 3.0)
            yield f'<text x="{x:.1f}" y="{y:g}" text-anchor="middle" fill="#777" font-size="2.6">{clock(second)}</text>'
