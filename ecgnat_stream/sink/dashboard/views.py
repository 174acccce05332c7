"""The two views, one bed and the wall of beds, and the help. They show a :class:`Board` when told to, and decide nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.cells import set_cell_size
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.geometry import Region
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Static

from ecgnat_stream.events import Alarm
from ecgnat_stream.signal import LEADS
from ecgnat_stream.sink.dashboard import messages
from ecgnat_stream.sink.dashboard.config import DashboardConfig
from ecgnat_stream.sink.dashboard.panels import alarm_lines, alarm_text, countdown, number_text, spread
from ecgnat_stream.sink.dashboard.state import BedState, Board
from ecgnat_stream.sink.dashboard.style import Palette, big_digits
from ecgnat_stream.sink.dashboard.sweep import Sweep, braille
from ecgnat_stream.sink.dashboard.traces import GUTTER, TraceView

__all__ = ["BedView", "HelpScreen", "Panel", "WallView"]

_TILE = (26, 7)
"""Smallest tile, cells."""

HELP = """
 a        acknowledge the alarms of the bed shown or chosen
 p        pause its alarms (120 s unless configured); the countdown is shown
 r        end the pause; reset latched alarms that are over
 tab, →   next bed           shift+tab, ←   previous bed
 w        wall of beds       enter          open the chosen bed
 l        next lead          1 2 3          number of leads
 + -      gain
 q        quit: the monitor stops

 ***  high      **  medium     *  low priority
 reverse, flashing: not attended.  plain: latched or acknowledged.
 dots at the bottom of a trace: no samples. --- : no valid value.

 Not a certified medical device.
 Any key closes this page.
"""


class Panel(Static):
    """A text that is drawn again only when it changes."""

    ALLOW_SELECT = False

    def __init__(self, *, id: str) -> None:  # textual's own name
        super().__init__(id=id)
        self._shown: Text | None = None

    def show(self, text: Text) -> None:
        """Show a text; labels are never read as markup."""
        if text != self._shown:
            self._shown = text
            self.update(text, layout=False)


class BedView(Vertical):
    """One bed: alarm areas on top, traces at the left, numbers at the right."""

    def __init__(self, palette: Palette, config: DashboardConfig, limits: Mapping[str, tuple[float, float]]) -> None:
        super().__init__(id="bed")
        self._palette, self._config, self._limits = palette, config, limits
        self.gain_mm_mv = config.gain_mm_mv
        self.traces = config.traces
        self.first_lead = 0

    def compose(self) -> ComposeResult:
        """Lay out the panels."""
        with Horizontal(id="alarms"):
            yield Panel(id="physiological")
            yield Panel(id="technical")
        with Horizontal(id="main"):
            with Vertical(id="traces"):
                for _ in range(3):
                    yield TraceView(self._palette)
                yield Panel(id="ruler")
            yield Panel(id="numbers")

    def draw(self, board: Board, bed: BedState, now_ns: int, now: datetime) -> None:
        """Show the bed as it is now."""
        large = self.size.width >= 120 and self.size.height >= 34
        self.set_class(large, "large")
        until = bed.paused_until(now)
        paused = countdown(until, now) if until is not None else ""
        self._alarms("physiological", "PHYSIOLOGICAL ALARMS", bed.alarms("physiological"), paused, now_ns)
        self._alarms("technical", "TECHNICAL ALARMS", board.technical(bed), "", now_ns)
        numbers = self.query_one("#numbers", Panel)
        width, height = numbers.content_size
        if width > 0:
            numbers.show(number_text(bed, self._limits.get(bed.name), (width, height), self._palette, now_ns))
        self._traces(bed)

    def _alarms(self, area: str, title: str, alarms: Sequence[Alarm], paused: str, now_ns: int) -> None:
        panel = self.query_one(f"#{area}", Panel)
        width, height = panel.content_size
        if width > 0 and height > 1:
            panel.show(alarm_text(title, alarms, paused, width, height, self._palette, now_ns))

    def _traces(self, bed: BedState) -> None:
        area = self.query_one("#traces")
        width, height = area.size
        leads = bed.leads() or ("II",)
        count = max(1, min(self.traces, len(leads), (height - 1) // 6))
        views = list(self.query(TraceView))
        for i, view in enumerate(views):
            view.display = i < count
        dots = self._config.dots_per_mm or (2.0 if width >= 200 else 1.5 if width >= 90 and height // count >= 8 else 1.0)
        dots_per_s = self._config.speed_mm_s * dots
        for i, view in enumerate(views[:count]):
            view.draw(bed, leads[(self.first_lead + i) % len(leads)], dots_per_s, self.gain_mm_mv * dots)
        second = max(2, round(dots_per_s / 2))
        ruler = f"├{'─' * (second - 2)}┤ 1 s   {self._config.speed_mm_s:g} mm/s   {self.gain_mm_mv:g} mm/mV   "
        self.query_one("#ruler", Panel).show(Text(set_cell_size(" " * GUTTER + ruler, width), self._palette.faint))


class Tile(Widget):
    """One bed on the wall: name, heart rate, rhythm, a small trace, the most urgent alarm."""

    ALLOW_SELECT = False

    def __init__(self, bed: str, palette: Palette, config: DashboardConfig) -> None:
        super().__init__()
        self.bed = bed
        self._palette, self._config = palette, config
        self._sweep: Sweep | None = None
        self._rows: dict[int, tuple[str, Style]] = {}

    def draw(self, bed: BedState, chosen: bool, now_ns: int) -> None:
        """Show the bed as it is now; rows and cells that did not change are left alone."""
        width, height = self.size
        if width < 8 or height < 5:
            return
        rows = self._texts(bed, chosen, width, height, now_ns)
        top = len(rows) - 1
        for y in rows.keys() | self._rows.keys():
            if rows.get(y) != self._rows.get(y):
                self.refresh(Region(0, y, width, 1))
        self._rows = rows
        dots = self._config.dots_per_mm or (2.0 if height >= 14 and width >= 60 else 1.0)
        scale = (width - 1, height - len(rows), self._config.speed_mm_s * dots, self._config.gain_mm_mv * dots)
        if self._sweep is None or (self._sweep.width, self._sweep.height) != scale[:2]:
            self._sweep = Sweep(*scale)
        lead = LEADS.index((bed.leads() or ("II",))[0])
        for x, stop in self._sweep.advance(bed.trace, lead):
            self.refresh(Region(x, top, stop - x, scale[1]))

    def _texts(self, bed: BedState, chosen: bool, width: int, height: int, now_ns: int) -> dict[int, tuple[str, Style]]:
        palette = self._palette
        vitals, rhythm, alarms = bed.vitals(now_ns), bed.rhythm(now_ns), bed.alarms()
        rate = vitals.heart_rate_bpm if vitals is not None else None
        number = "---" if rate is None else f"{rate:.0f}".rjust(3)
        says = rhythm.text if rhythm is not None else "---" if bed.online else bed.status.state if bed.status else "waiting"
        alarm = alarms[0] if alarms else None
        doubt = bed.without_rate()
        mark = "?" if doubt is not None and rate is not None else ""
        value = palette.value if alarm is None else palette.priorities[alarm.priority][1] + Style(bold=True)
        more = f"+{len(alarms) - 1}" if len(alarms) > 1 else ""
        name = spread(f"{'▶' if chosen else ' '}{bed.name.rpartition('/')[2] or bed.name}", more, width - 1)
        rows = {0: (name, palette.chosen if chosen else palette.bar)}
        if height >= 14 and width >= 40:
            beside = {0: mark, 1: says, 3: "" if rhythm is None else f"{100 * rhythm.probability:.0f} %"}
            for i, digits in enumerate(big_digits(number), start=1):
                rows[i] = (set_cell_size(f" {digits}  {beside.get(i - 1, '')}", width - 1), value)
        else:
            rows[1] = (set_cell_size(f" {number}{mark:<2}{says}", width - 1), value)
        last = (set_cell_size("", width - 1), palette.faint) if alarm is None else (
            alarm_lines(alarm, width - 1)[0], palette.alarm(alarm, now_ns))  # fmt: skip
        return rows | {height - 1: last}

    def render_line(self, y: int) -> Strip:
        """Return one row of cells."""
        if y in self._rows:
            return Strip([Segment(*self._rows[y])]).apply_style(self.rich_style)
        row = y - len(self._rows) + 1
        if self._sweep is None or not 0 <= row < self._sweep.height:
            return Strip.blank(self.size.width)
        return Strip([Segment(braille(self._sweep.cells[row]), self._palette.trace)]).apply_style(self.rich_style)

    def on_click(self, event: events.Click) -> None:
        """Open the bed."""
        event.stop()
        self.post_message(messages.BedOpened(self.bed))


class WallView(VerticalScroll, can_focus=False):
    """All beds, in stable order; scrolls when they do not fit."""

    def __init__(self, palette: Palette, config: DashboardConfig) -> None:
        super().__init__(id="wall")
        self._palette, self._config = palette, config
        self._beds: tuple[str, ...] = ()
        self._chosen = ""
        self.columns = 1

    def draw(self, board: Board, chosen: str, now_ns: int) -> None:
        """Show every bed that is in sight as it is now."""
        beds = tuple(board.beds)
        if beds != self._beds:
            self._beds = beds
            self.remove_children()
            self.mount(*(Tile(bed, self._palette, self._config) for bed in beds))
        self._arrange(len(beds))
        for tile in self.query(Tile):
            if tile.bed == chosen != self._chosen:
                self._chosen = chosen
                self.scroll_to_widget(tile, animate=False)
            if self.screen.can_view_partial(tile):
                tile.draw(board.beds[tile.bed], tile.bed == chosen, now_ns)

    def _arrange(self, beds: int) -> None:
        width, height = self.size
        if not beds or not width:
            return
        most = max(1, width // _TILE[0])
        rows = next((r for r in range(1, beds + 1) if -(-beds // r) <= most and r >= -(-beds // r)), -(-beds // most))
        self.columns = -(-beds // rows)
        tile_height = max(_TILE[1], height // rows)
        self.styles.grid_size_columns = self.columns
        self.styles.grid_rows = str(tile_height)


class HelpScreen(ModalScreen[None]):
    """The keys."""

    def compose(self) -> ComposeResult:
        """Lay out the page."""
        yield Static(Text(HELP.strip("\n")), id="help")

    def on_key(self, event: events.Key) -> None:
        """Close."""
        event.stop()
        self.dismiss()
