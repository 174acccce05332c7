"""The widget of one swept lead: calibration pulse, lead name, trace. Only cells that changed are drawn again."""

from __future__ import annotations

import numpy as np
from rich.segment import Segment
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from ecgnat_stream.signal import LEADS
from ecgnat_stream.sink.dashboard.state import BedState
from ecgnat_stream.sink.dashboard.style import Palette
from ecgnat_stream.sink.dashboard.sweep import BASELINE, Sweep, braille, pack

__all__ = ["GUTTER", "TraceView", "calibration"]

GUTTER = 6
"""Cells left of a trace, for the lead's name and the calibration pulse."""


def calibration(height: int, dots_per_mv: float) -> list[str]:
    """Return the gutter's rows: a pulse of 1 mV on the trace's own baseline, cut at the top if it does not fit."""
    dots = np.zeros((4 * height, 2 * (GUTTER - 2)), dtype=np.bool_)
    base = round(BASELINE * 4 * height)
    top = max(0, round(base - dots_per_mv))
    dots[base, :2] = dots[base, -2:] = True
    dots[top, 2:-2] = True
    dots[top : base + 1, 2] = dots[top : base + 1, -3] = True
    return [" " + braille(row) + " " for row in pack(dots)]


class TraceView(Widget):
    """One lead of one bed, swept."""

    ALLOW_SELECT = False

    def __init__(self, palette: Palette) -> None:
        super().__init__()
        self._palette = palette
        self._sweep: Sweep | None = None
        self._pulse: list[str] = []
        self._lead = ""

    def draw(self, bed: BedState, lead: str, dots_per_s: float, dots_per_mv: float) -> None:
        """Bring the picture up to date; a new size or scale begins a new one."""
        width, height = self.size.width - GUTTER, self.size.height
        if width < 1 or height < 1:
            return
        scale = (width, height, dots_per_s, dots_per_mv)
        old = self._sweep
        if old is None or (old.width, old.height, old.dots_per_s, old.dots_per_mv) != scale:
            self._sweep = old = Sweep(*scale)
            self._pulse = calibration(height, dots_per_mv)
            self.refresh()
        if lead != self._lead:
            self._lead = lead
            self.refresh()
        regions = [Region(GUTTER + x, 0, stop - x, height) for x, stop in old.advance(bed.trace, LEADS.index(lead))]
        if regions:
            self.refresh(*regions)

    def render_line(self, y: int) -> Strip:
        """Return one row of cells."""
        if self._sweep is None or y >= self._sweep.height:
            return Strip.blank(self.size.width)
        name = f" {self._lead}" if y == 0 else ""
        segments = [
            Segment(name, self._palette.text),
            Segment(self._pulse[y][len(name) :], self._palette.faint),
            Segment(braille(self._sweep.cells[y]), self._palette.trace),
        ]
        return Strip(segments).apply_style(self.rich_style)
