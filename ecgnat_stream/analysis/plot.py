"""An analysis as a picture: the heart rate of the whole recording, and strips on ECG paper, 25 mm/s and 10 mm/mV.

Drawn with matplotlib, which is imported here only; one unit of a strip is one millimetre of the figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.analysis.excerpts import find_excerpts
from ecgnat_stream.codes import RHYTHM_TEXTS, URGENCY, Priority
from ecgnat_stream.colours import DARK_TEXT, PAPER, PRIORITY_COLOURS, rhythm_colour
from ecgnat_stream.errors import EcgnatError, InputError
from ecgnat_stream.events import Quality
from ecgnat_stream.signal import LEADS, MONITORED_FIRST
from ecgnat_stream.spans import unusable_spans
from ecgnat_stream.words import clock

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ecgnat_stream.analysis.result import Analysis

__all__ = ["draw"]

_MM = 1 / 25.4
_MM_PER_S, _MM_PER_MV = 25.0, 10.0
_ROW_S = 10.0
"""Signal in one row."""

_LEFT_MM, _RIGHT_MM, _TOP_MM, _BOTTOM_MM, _GAP_MM = 15.0, 6.0, 20.0, 10.0, 9.0
_COURSE_MM, _LEGEND_MM, _BAND_MM = 38.0, 6.0, 5.0
_LEAST_MM, _MOST_MM = 25.0, 60.0
"""Height of a row of signal: what its samples need, within these bounds."""

_WHOLE_S = 60.0
"""Recordings up to this length are drawn whole."""

_MOST_ROWS, _MOST_STRIPS, _MOST_TEXTS = 24, 7, 3

_INK, _GREY = "#111111", "#667078"
_BEAT_COLOURS = {"N": "#667078", "S": "#0277bd", "V": "#d32f2f", "F": "#e65100", "Q": "#a0a7ad"}
_BEAT_TEXTS = {"V": "ventricular", "S": "supraventricular", "F": "fusion", "Q": "without a class"}

_SMALL: dict[str, Any] = {"fontsize": 6.5, "color": "#667078"}


class _Row:
    """One lead over one stretch."""

    def __init__(self, analysis: Analysis, lead: str, start_s: float, stop_s: float) -> None:
        self.lead, self.start_s, self.stop_s = lead, start_s, stop_s
        start, stop = round(start_s * analysis.fs), round(min(stop_s, analysis.length_s) * analysis.fs)
        samples = analysis.read(start, stop)[analysis.used_as.index(lead)].astype(float)
        self.time_s = start_s + np.arange(len(samples)) / analysis.fs
        finite = samples[np.isfinite(samples)]
        self.samples = samples - (np.median(finite) if len(finite) else 0.0)
        low, high = np.quantile(self.samples[np.isfinite(samples)], [0.001, 0.999]) if len(finite) else (0.0, 0.0)
        needed = np.ceil(((high - low) * _MM_PER_MV + 10.0) / 5.0) * 5.0
        self.height_mm = float(np.clip(needed, _LEAST_MM, _MOST_MM))
        middle = round((low + high) / 2 * _MM_PER_MV / 5.0) * 5.0 / _MM_PER_MV
        reach = self.height_mm / 2 / _MM_PER_MV
        self.bounds_mv = middle - reach, middle + reach


def draw(
    analysis: Analysis, start_s: float | None = None, stop_s: float | None = None, leads: Sequence[str] | None = None
) -> Figure:
    """Return the picture; see :meth:`Analysis.plot`."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise EcgnatError("plot() needs matplotlib: pip install matplotlib") from error
    shown = _shown_leads(analysis, leads, one=start_s is None and stop_s is None and analysis.length_s > _ROW_S * 1.5)
    most = max(1, _MOST_ROWS // len(shown))
    strips = [
        (text, [_Row(analysis, lead, start, stop) for lead in shown])
        for start, stop, text in _parts(analysis, start_s, stop_s)[:most]
    ]
    width_mm = _LEFT_MM + _ROW_S * _MM_PER_S + _RIGHT_MM
    heights = [sum(row.height_mm for row in rows) + _BAND_MM + _GAP_MM for _, rows in strips]
    height_mm = _TOP_MM + _COURSE_MM + _GAP_MM + _LEGEND_MM + sum(heights) + _BOTTOM_MM
    figure = plt.figure(figsize=(width_mm * _MM, height_mm * _MM), facecolor="white")
    plt.close(figure)  # the caller's alone: a notebook draws what a cell returns, and nothing gathers in memory

    def axes(top: float, height: float) -> Axes:
        box = (_LEFT_MM / width_mm, 1 - (top + height) / height_mm, _ROW_S * _MM_PER_S / width_mm, height / height_mm)
        made: Axes = figure.add_axes(box)
        return made

    _title(figure, analysis, width_mm, height_mm)
    _course(axes(_TOP_MM, _COURSE_MM), analysis, [rows[0].start_s for _, rows in strips])
    top = _TOP_MM + _COURSE_MM + _GAP_MM + _LEGEND_MM
    for text, rows in strips:
        _band(axes(top, _BAND_MM), analysis, rows[0].start_s, text)
        top += _BAND_MM
        for row in rows:
            _strip(axes(top, row.height_mm), analysis, row, first=row is rows[0], last=row is rows[-1])
            top += row.height_mm
        top += _GAP_MM
    figure.text(_LEFT_MM / width_mm, 3.0 / height_mm, "25 mm/s   10 mm/mV", va="bottom", **_SMALL)
    note = "ecgnat-stream is not a certified medical device"
    figure.text(1 - _RIGHT_MM / width_mm, 3.0 / height_mm, note, ha="right", va="bottom", **_SMALL)
    return figure


def _shown_leads(analysis: Analysis, leads: Sequence[str] | None, one: bool) -> list[str]:
    there = [lead for lead in analysis.used_as if lead]
    if leads is not None:
        if missing := [lead for lead in leads if lead not in there]:
            raise InputError(f"{analysis.name} has no lead {', '.join(missing)}: it has {', '.join(there)}")
        return list(leads)
    if not one:
        return [lead for lead in LEADS if lead in there]
    names, counts = np.unique(analysis.quality["best_lead"], return_counts=True)
    usual = [name for name in names[counts.argsort()[::-1]].tolist() if name in there]
    return (usual or [lead for lead in MONITORED_FIRST if lead in there])[:1]


def _parts(analysis: Analysis, start_s: float | None, stop_s: float | None) -> list[tuple[float, float, str]]:
    """Return the stretches to draw, and why: those asked for, a short recording whole, or what stands out in a long one."""
    if start_s is None and stop_s is None and analysis.length_s > _WHOLE_S:
        excerpts, _ = find_excerpts(analysis, _MOST_STRIPS)
        return [(at.start_s, at.stop_s, "; ".join(remark.text for remark in at.remarks[:_MOST_TEXTS])) for at in excerpts]
    begin, end = start_s or 0.0, min(analysis.length_s, analysis.length_s if stop_s is None else stop_s)
    if not 0 <= begin < end:
        raise InputError(f"nothing between start_s={begin:g} and stop_s={end:g}: {analysis.name} is {analysis.length_s:g} s long")
    return [(float(at), float(min(end, at + _ROW_S)), "") for at in np.arange(begin, end, _ROW_S)]


def _priority(alarm: Any) -> Priority:
    priority: Priority = str(alarm["priority"])  # type: ignore[assignment]
    return priority


def _title(figure: Figure, analysis: Analysis, width_mm: float, height_mm: float) -> None:
    summary = analysis.summary()
    left, top = _LEFT_MM / width_mm, 1 - 5.0 / height_mm
    figure.text(left, top, analysis.name, fontsize=13, fontweight="bold", color=_INK, va="top")
    rate = summary.heart_rate_mean_bpm
    facts = [
        clock(analysis.length_s) + (" min" if analysis.length_s < 3600 else " h"),
        ", ".join(lead for lead in analysis.used_as if lead),
        f"{analysis.fs:g} Hz",
        "no heart rate"
        if rate is None
        else f"{rate:.0f} bpm ({summary.heart_rate_min_bpm:.0f} to {summary.heart_rate_max_bpm:.0f})",
        RHYTHM_TEXTS[summary.leading_rhythm] if summary.leading_rhythm else "no rhythm told",
        f"{summary.beats} beats, {summary.ventricular} V, {summary.supraventricular} S",
    ]
    if summary.diagnoses:
        facts.append(", ".join(summary.diagnoses))
    figure.text(left, 1 - 12.0 / height_mm, "   ·   ".join(facts), fontsize=7.5, color=_GREY, va="top")


def _course(ax: Axes, analysis: Analysis, starts_s: Sequence[float]) -> None:
    """Draw the tachogram: the rate of every beat, in the colour of its class, over the rhythm; where strips are taken from."""
    beats = analysis.beats[np.isfinite(analysis.beats["rr_ms"])]
    rate = 6e4 / beats["rr_ms"] if len(beats) else np.zeros(0)
    high = float(np.clip(np.quantile(rate, 0.995) * 1.15, 120, 320)) if len(rate) else 120.0
    ax.set_xlim(0, analysis.length_s)
    ax.set_ylim(0, high)
    for span in analysis.rhythm:
        ax.axvspan(span["start_s"], span["stop_s"], color=rhythm_colour(str(span["label"])), alpha=0.28, lw=0)
    for start_s, stop_s in _unusable(analysis):
        ax.axvspan(start_s, stop_s, color="#ffffff", alpha=0.8, lw=0)
    for label, colour in _BEAT_COLOURS.items():
        of = beats["label"] == label
        size = float(np.clip(6e3 / max(1, len(beats)), 1.5, 9.0))
        front = 3 if label in "NQ" else 4
        ax.scatter(
            beats["time_s"][of],
            np.minimum(rate[of], high),
            s=size,
            color=colour,
            lw=0,
            zorder=front,
            rasterized=len(beats) > 5000,
        )
    for start_s in starts_s if analysis.length_s > _WHOLE_S else ():
        ax.plot([start_s, start_s + _ROW_S], [0, 0], color=_INK, lw=3, solid_capstyle="butt", clip_on=False, zorder=5)
    for alarm in analysis.alarms[analysis.alarms["kind"] == "physiological"]:
        y = high * (1.03 + 0.03 * URGENCY[_priority(alarm)])
        stop_s = max(alarm["stop_s"], alarm["start_s"] + analysis.length_s / 500)
        colour = PRIORITY_COLOURS[_priority(alarm)]
        ax.plot([alarm["start_s"], stop_s], [y, y], color=colour, lw=2, solid_capstyle="butt", clip_on=False, zorder=5)
    ax.set_ylabel("bpm", fontsize=7, color=_GREY, labelpad=2)
    _quiet(ax)
    ax.grid(axis="y", color="#e3e7ea", lw=0.5, zorder=0)
    ax.set_axisbelow(True)
    ax.xaxis.set_major_formatter(lambda at_s, _: clock(at_s))
    ax.xaxis.set_major_locator(_ticker(analysis.length_s))
    _legend(ax, analysis)


def _legend(ax: Axes, analysis: Analysis) -> None:
    labels = list(dict.fromkeys(str(label) for label in analysis.rhythm["label"]))
    keys = [("■", rhythm_colour(label), RHYTHM_TEXTS[label]) for label in labels[:5]]
    there = set(analysis.beats["label"].tolist())
    keys += [("●", _BEAT_COLOURS[label], text) for label, text in _BEAT_TEXTS.items() if label in there]
    x = 0.0
    for mark, colour, text in keys:
        ax.text(x, -0.185, mark, fontsize=7, color=colour, transform=ax.transAxes, va="center")
        ax.text(x + 0.011, -0.185, text, fontsize=6.5, color=_INK, transform=ax.transAxes, va="center")
        x += 0.026 + 0.0052 * len(text)


def _unusable(analysis: Analysis) -> list[tuple[float, float]]:
    events = (event for event in analysis.events if isinstance(event, Quality))
    return unusable_spans(events, analysis.length_s)


def _ticker(length_s: float) -> Any:
    from matplotlib.ticker import MultipleLocator

    steps = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 4 * 3600)
    return MultipleLocator(next((step for step in steps if length_s / step <= 13), 8 * 3600))


def _quiet(ax: Axes) -> None:
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color("#c4cbd0")
    ax.tick_params(labelsize=6.5, colors=_GREY, length=2, width=0.5)


def _band(ax: Axes, analysis: Analysis, start_s: float, why: str) -> None:
    """Draw the rhythm over a strip, named in it, and why the strip is shown."""
    ax.set_xlim(start_s, start_s + _ROW_S)
    ax.set_ylim(0, 1)
    ax.axis("off")
    ax.text(start_s, 1.05, why, va="bottom", **_SMALL)
    for span in analysis.rhythm:
        start, stop = max(span["start_s"], start_s), min(span["stop_s"], start_s + _ROW_S)
        if start < stop:
            colour = rhythm_colour(str(span["label"]))
            ax.axvspan(start, stop, ymin=0.12, ymax=0.92, color=colour, lw=0)
            if stop - start > 0.6:
                words = RHYTHM_TEXTS[str(span["label"])]
                text = words if len(words) * 0.07 < stop - start else str(span["label"])
                dark = colour in DARK_TEXT
                ax.text(start + 0.06, 0.5, text, fontsize=6.5, va="center", color=_INK if dark else "white", clip_on=True)


def _strip(ax: Axes, analysis: Analysis, row: _Row, *, first: bool, last: bool) -> None:
    low, high = row.bounds_mv
    ax.set_xlim(row.start_s, row.start_s + _ROW_S)
    ax.set_ylim(low, high)
    _paper(ax, row)
    for start_s, stop_s in _unusable(analysis):
        if start_s < row.start_s + _ROW_S and stop_s > row.start_s:
            ax.axvspan(start_s, stop_s, color="#78909c", alpha=0.25, lw=0, zorder=2)
    ax.plot(row.time_s, np.clip(row.samples, low, high), color=_INK, lw=0.65, zorder=3, solid_joinstyle="round")
    beats = analysis.beats
    for beat in beats[(beats["time_s"] >= row.start_s) & (beats["time_s"] < row.stop_s)] if first else ():
        label = str(beat["label"])
        style: dict[str, Any] = {"fontweight": "bold" if label in "VSF" else "normal", "color": _BEAT_COLOURS[label]}
        ax.text(beat["time_s"], high - 0.08, label, fontsize=7, ha="center", va="top", zorder=4, clip_on=True, **style)
    ax.text(row.start_s + 0.05, low + 0.1, row.lead, fontsize=8, fontweight="bold", color=_INK, va="bottom", zorder=4)
    ax.tick_params(labelsize=6.5, colors=_GREY, length=0, pad=2)
    ax.set_yticks([])
    seconds = np.arange(np.ceil(row.start_s), row.start_s + _ROW_S + 1e-6, 1.0)
    ax.set_xticks(seconds[::2] if last else [], [clock(at_s) for at_s in seconds[::2]] if last else [])
    for spine in ax.spines.values():
        spine.set_color(PAPER[1])
        spine.set_linewidth(0.6)


def _paper(ax: Axes, row: _Row) -> None:
    """Draw the lines of the paper, every millimetre and every five, counted from the row's corner."""
    from matplotlib.collections import LineCollection

    low, high = row.bounds_mv
    across, up = round(_ROW_S * _MM_PER_S), round(row.height_mm)
    for step, colour, width in ((1, PAPER[0], 0.25), (5, PAPER[1], 0.45)):
        x = row.start_s + np.arange(0, across + 1, step) / _MM_PER_S
        y = low + np.arange(0, up + 1, step) / _MM_PER_MV
        lines: list[NDArray[np.float64]] = [np.array([[at, low], [at, high]]) for at in x]
        lines += [np.array([[row.start_s, at], [row.start_s + _ROW_S, at]]) for at in y]
        ax.add_collection(LineCollection(lines, colors=colour, linewidths=width, zorder=1), autolim=False)
