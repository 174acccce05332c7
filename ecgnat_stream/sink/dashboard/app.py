"""The dashboard as the monitor sees it, and the textual application that draws it.

The readers only change the :class:`Board`; a timer draws it ``fps`` times a second. So a flood of events costs no drawing,
and the newest value wins. Everything runs in the monitor's event loop, in short turns.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, ClassVar
from uuid import uuid4

from rich.console import Console
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.driver import Driver
from textual.widgets import ContentSwitcher

from ecgnat_stream.bus import Bus, Policy, Subscription
from ecgnat_stream.clock import Clock
from ecgnat_stream.errors import SinkError
from ecgnat_stream.events import Alarm, Command, CommandResult, DeviceStatus, EngineStatus, Meta, Quality, Rhythm, Trace, Vitals
from ecgnat_stream.sink.dashboard.bell import Bell, Sound
from ecgnat_stream.sink.dashboard.config import DashboardConfig
from ecgnat_stream.sink.dashboard.messages import BedOpened, CommandOrdered, Redraw
from ecgnat_stream.sink.dashboard.panels import answer_text, engine_alarm_text, question_text, spread, status_text
from ecgnat_stream.sink.dashboard.state import BedState, Board
from ecgnat_stream.sink.dashboard.style import Palette, palette_of
from ecgnat_stream.sink.dashboard.terminal import lasting_terminal
from ecgnat_stream.sink.dashboard.views import BedView, HelpScreen, Panel, WallView
from ecgnat_stream.words import counted

__all__ = ["Dashboard", "DashboardApp"]

NOT_A_DEVICE = "Not a certified medical device"
_KEYS = "a ack  p pause  r reset  ⇥ next  w wall  l lead  +- gain  ? help  q quit"
_NO_KEYS = "no keys: standard input is no terminal; Ctrl+C ends the monitor"
_TRACE_FRAMES = 1024
_READ_AT_ONCE = 50
_ASK_S = 10.0
"""So long a person has to press q a second time while an alarm of high priority is on."""


class DashboardApp(App[None]):
    """Draws a :class:`Board` and turns keys into :class:`CommandOrdered`."""

    TITLE = "ecgnat-stream"
    CSS_PATH = "dashboard.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c", "quit", priority=True),
        Binding("tab,right", "step(1)", priority=True),
        Binding("shift+tab,left", "step(-1)", priority=True),
        Binding("down", "row(1)", priority=True),
        Binding("up", "row(-1)", priority=True),
        ("a", "order('acknowledge')"), ("p", "order('pause')"), ("r", "reset"),
        ("w", "wall"), ("enter", "open"), ("l", "lead"),
        ("1", "traces(1)"), ("2", "traces(2)"), ("3", "traces(3)"),
        ("plus,equals_sign", "gain(2)"), ("minus", "gain(0.5)"), ("question_mark,h", "help"),
    ]  # fmt: skip

    def get_driver_class(self) -> type[Driver]:
        """Return our way to the terminal, whatever the environment says to Textual (``TEXTUAL_DRIVER``)."""
        from ecgnat_stream.sink.dashboard.driver import PatientDriver  # it imports what other systems lack

        return PatientDriver

    def __init__(self, dashboard: Dashboard, palette: Palette, config: DashboardConfig) -> None:
        super().__init__(ansi_color=palette.ansi)
        self._dashboard, self._palette, self._config = dashboard, palette, config
        self.board, self.clock = dashboard.board, dashboard.clock
        self.chosen = ""
        self._asked_for_view = config.view != "auto"
        self._bell = Bell(dashboard.sound or self._ring, config.bell)
        self.ready = asyncio.Event()
        self._asked_until_ns = 0

    def _ring(self, _: object) -> None:
        self.bell()

    def compose(self) -> ComposeResult:
        """Lay out head, views, status and keys."""
        yield Panel(id="head")
        with ContentSwitcher(id="views", initial="wall" if self._config.view == "wall" else "bed"):
            yield BedView(self._palette, self._config, self._dashboard.limits)
            yield WallView(self._palette, self._config)
        yield Panel(id="status")
        yield Panel(id="keys")

    def on_mount(self) -> None:
        """Choose the colours and begin to draw."""
        # Textual makes every task of the loop eager where Python can; the loop is the monitor's, so its own way is put back.
        asyncio.get_running_loop().set_task_factory(self._dashboard.task_factory)
        self.register_theme(self._palette.theme)
        self.theme = self._palette.theme.name
        if self._config.colour == "16":
            self.console = Console(color_system="standard", file=io.StringIO(), markup=True, highlight=False, emoji=False,
                                   legacy_windows=False)  # fmt: skip
        self.ready.set()
        self.set_interval(1 / self._config.fps, lambda: self.post_message(Redraw()))
        self.post_message(Redraw())

    @property
    def bed(self) -> BedState | None:
        """The bed on display, or chosen on the wall."""
        return self.board.beds.get(self.chosen)

    @property
    def on_wall(self) -> bool:
        """True while the wall is shown."""
        return self.query_one(ContentSwitcher).current == "wall"

    def on_redraw(self) -> None:
        """Show what is known now."""
        now_ns = self.clock.monotonic_ns()
        now = self.clock.utc(now_ns)
        board = self.board
        for state in board.beds.values():
            state.trace.play(now_ns)
        self._bell.update(board.audible(now), now_ns)
        if self.chosen not in board.beds:
            self.chosen = next(iter(board.beds), "")
        if not self._asked_for_view and not isinstance(self.screen, HelpScreen):
            self.query_one(ContentSwitcher).current = "wall" if len(board.beds) > 1 else "bed"
        if isinstance(self.screen, HelpScreen):
            return
        bed, width = self.bed, self.size.width
        place = (counted(len(board.beds), "bed") if self.on_wall else self.chosen) or "waiting for a bed"
        left = spread(f" {place}", "", max(0, (width - len(NOT_A_DEVICE)) // 2 - 1))
        head = spread(f"{left} {NOT_A_DEVICE}", f"{now:%H:%M:%S} UTC ", width)
        self.query_one("#head", Panel).show(Text(head, self._palette.bar, no_wrap=True))
        self.query_one("#status", Panel).show(self._status(width, now_ns, now))
        self.query_one("#keys", Panel).show(
            Text(f" {_KEYS if self._dashboard.keys else _NO_KEYS}", self._palette.text, no_wrap=True)
        )
        if self.on_wall:
            self.query_one(WallView).draw(board, self.chosen, now_ns)
        elif bed is not None:
            self.query_one(BedView).draw(board, bed, now_ns, now)

    def _status(self, width: int, now_ns: int, now: datetime) -> Text:
        alarm = self.board.high() if now_ns < self._asked_until_ns else None
        if alarm is not None:
            return question_text(alarm, width, self._palette)
        alarms = self.board.system.alarms() if self.on_wall and not self.board.over else []
        if alarms and not answer_text(self.board, self.bed, now):
            return engine_alarm_text(alarms, width, self._palette, now_ns)
        dashboard = self._dashboard
        return status_text(self.board, self.bed, width, self._palette, now, dashboard.note, keys=dashboard.keys)

    async def action_quit(self) -> None:
        """Leave; but ask once, in the status line, while an alarm of high priority is on."""
        now_ns = self.clock.monotonic_ns()
        if self.board.high() is None or now_ns < self._asked_until_ns:
            self.exit()
            return
        self._asked_until_ns = now_ns + round(_ASK_S * 1e9)
        if isinstance(self.screen, HelpScreen):
            self.pop_screen()  # it would hide the question
        self.post_message(Redraw())

    def on_bed_opened(self, message: BedOpened) -> None:
        """Show one bed."""
        self.chosen = message.bed
        self._show("bed")

    def on_command_ordered(self, message: CommandOrdered) -> None:
        """Pass a person's order on."""
        if self.bed is not None:
            self._dashboard.order(self.bed.name, message.action)

    def _show(self, view: str) -> None:
        self._asked_for_view = True
        self.query_one(ContentSwitcher).current = view
        self.post_message(Redraw())

    def action_order(self, action: Any) -> None:
        """Acknowledge or pause."""
        self.post_message(CommandOrdered(action))

    def action_reset(self) -> None:
        """End a pause, and reset what is latched."""
        self.post_message(CommandOrdered("resume"))
        self.post_message(CommandOrdered("reset"))

    def action_step(self, beds: int) -> None:
        """Go some beds on, around the end."""
        names = list(self.board.beds)
        if names:
            self.chosen = names[(names.index(self.chosen) + beds) % len(names)] if self.chosen in names else names[0]
            self.post_message(Redraw())

    def action_row(self, rows: int) -> None:
        """Go a row of the wall up or down."""
        names = list(self.board.beds)
        if self.on_wall and self.chosen in names:
            target = names.index(self.chosen) + rows * self.query_one(WallView).columns
            self.chosen = names[target] if 0 <= target < len(names) else self.chosen
            self.post_message(Redraw())

    def action_wall(self) -> None:
        """Show the wall."""
        self._show("wall")

    def action_open(self) -> None:
        """Open the chosen bed."""
        self._show("bed")

    def action_lead(self) -> None:
        """Begin with the next lead."""
        self.query_one(BedView).first_lead += 1

    def action_traces(self, count: int) -> None:
        """Show so many leads, if there is room."""
        self.query_one(BedView).traces = count

    def action_gain(self, factor: float) -> None:
        """Enlarge or reduce the traces."""
        view = self.query_one(BedView)
        view.gain_mm_mv = min(80.0, max(2.5, view.gain_mm_mv * factor))

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(HelpScreen())


class Dashboard:
    """The dashboard as a sink: construct it before the monitor starts, run it as a task; q ends :meth:`run`.

    Parameters
    ----------
    beds
        Names of the beds that are going to come, so that they are shown from the beginning.
    limits
        Heart rate alarm limits of each bed in bpm, for display.
    sound
        Called for every pulse of an alarm burst; the terminal bell if None.
    note
        Shown above the keys where there is room, such as the address of a broker.
    stay
        Stay open when the bus closes, because a recording has ended, until a person quits or :meth:`leave` is called.
    keys
        Whether there is a keyboard (:func:`~ecgnat_stream.sink.dashboard.terminal.has_keyboard`); without, none are offered.
    """

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        config: DashboardConfig | None = None,
        *,
        beds: Sequence[str] = (),
        limits: Mapping[str, tuple[float, float]] | None = None,
        sound: Sound | None = None,
        note: str = "",
        stay: bool = False,
        keys: bool = True,
    ) -> None:
        config = config or DashboardConfig()
        self.bus, self.clock, self.limits, self.sound, self.note = bus, clock, limits or {}, sound, note
        self.keys = keys
        self._left = asyncio.Event()
        if not stay:
            self.leave()
        self.task_factory: Any = None
        self._pause_s = config.pause_s
        self.board = Board(config.stale_s)
        for bed in beds:
            self.board.add(bed)
        self._newest = bus.subscribe(
            "dashboard", Trace, Vitals, Rhythm, Quality, Meta, DeviceStatus, EngineStatus,
            policy=Policy.NEWEST, capacity=_TRACE_FRAMES,
        )  # fmt: skip
        # The state of the device a second time: in order with the alarms, it tells which of them end with the recording.
        self._alarms = bus.subscribe("dashboard-alarms", Alarm, CommandResult, DeviceStatus, policy=Policy.KEEP)
        self.app = DashboardApp(self, palette_of(config.colour), config)

    async def run(self, **options: Any) -> None:
        """Draw until a person quits, or the bus is closed and read out and nobody asked to ``stay``.

        ``options`` go to textual's ``run_async`` (``headless``, ``size``, ``auto_pilot``).

        Raises
        ------
        SinkError
            When drawing failed; textual has then printed why.
        """
        self.task_factory = asyncio.get_running_loop().get_task_factory()
        reader = asyncio.create_task(self._read_all(), name="dashboard readers")
        try:
            with lasting_terminal():
                await self.app.run_async(**options)
        finally:
            self.bus.unsubscribe(self._newest)
            self.bus.unsubscribe(self._alarms)
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # textual ends quietly when cancelled; whoever cancelled must hear of it
            raise asyncio.CancelledError
        if self.app.return_code:
            raise SinkError("the dashboard stopped: its drawing failed, see the traceback above")

    def leave(self) -> None:
        """Do not stay open once the bus is closed: the monitor was told to stop."""
        self._left.set()

    async def _read_all(self) -> None:
        try:
            await asyncio.gather(self._read(self._newest), self._read(self._alarms))
            await self.app.ready.wait()
            self.board.over = True
            await self._left.wait()
        finally:
            # Also after a defect: a picture that no longer changes must not stay.
            self.app.exit()

    async def _read(self, subscription: Subscription) -> None:
        count = 0
        async for event in subscription:
            if subscription is self._alarms and isinstance(event, DeviceStatus):
                self.board.add(event.bed).end(event.state == "ended")
            else:
                self.board.apply(event, self.clock.monotonic_ns())
            count += 1
            if count % _READ_AT_ONCE == 0:
                await asyncio.sleep(0)
            if subscription is self._alarms and self.app.is_running:
                self.app.post_message(Redraw())

    def order(self, bed: str, action: Any) -> None:
        """Publish a person's command for a bed, and for the engine where it has alarms of its own on display."""
        now = self.clock.utc()
        duration_s = self._pause_s if action == "pause" else None
        engine = self.board.engine
        names = [bed]
        if engine is not None and self.board.system.alarms():
            own = f"{engine.site}/engine/{engine.worker}"
            # A bed without alarms would refuse what is meant for the engine's, and its refusal be all that is seen.
            names = [own] if action in ("acknowledge", "reset") and not self.board.add(bed).alarms() else [bed, own]
        for name in names:
            self.bus.publish(
                Command(bed=name, time=now, action=action, duration_s=duration_s, source="dashboard", correlation=uuid4().hex)
            )
