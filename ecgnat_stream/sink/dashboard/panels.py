"""What the panels say, as rich texts: functions of a bed's state, without markup, so that a bed may be called ``[red]``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from textwrap import wrap

from rich.cells import cell_len, set_cell_size
from rich.style import Style
from rich.text import Text

from ecgnat_stream.codes import PRIORITY_MARKS
from ecgnat_stream.events import Alarm, EngineStatus, Quality
from ecgnat_stream.signal import MONITORED_FIRST
from ecgnat_stream.sink.dashboard.state import BedState, Board
from ecgnat_stream.sink.dashboard.style import Palette, big_digits, state_word
from ecgnat_stream.words import counted

__all__ = ["alarm_lines", "alarm_text", "countdown", "number_text", "question_text", "shorten", "spread", "status_text"]

_LEVELS = "▁▂▃▄▅▆▇█"
_ANSWER_S = 10.0
_TOGETHER = timedelta(seconds=2)
"""Answers of a bed and of the worker that are not further apart are to one key: the bed's is shown."""
_INDENT = 5  # the mark of an alarm and the blanks around it
_SHORTEST = 5  # a condition cut to less says nothing
_NARROW = 40
_SHORT_STATES = {"acknowledged": "ack"}
_VALUE = re.compile(r"(?:(?:below|above) )?\d+(?:\.\d+)? (?:bpm|s|beats)\b", re.IGNORECASE)


def spread(left: str, right: str, width: int) -> str:
    """Put two texts at the ends of a line of ``width`` cells; the left one is cut if it must."""
    room = width - cell_len(right) - 1 if right else width
    if cell_len(left) > room:
        left = set_cell_size(left, max(room - 1, 0)) + "…"
    return set_cell_size(f"{set_cell_size(left, room)} {right}" if right else left, width)


def countdown(until: datetime, now: datetime) -> str:
    """Return the time left as m:ss."""
    left = max(0, round((until - now).total_seconds()))
    return f"{left // 60}:{left % 60:02d}"


def shorten(text: str, room: int) -> str:
    """Return ``condition: detail`` in ``room`` cells.

    What comes after the number goes first, then what comes before it; the condition itself is cut before a rate is.
    """
    if cell_len(text) <= room:
        return text
    condition, _, detail = text.partition(": ")
    values = [match.group() for match in _VALUE.finditer(detail)]
    value = next((value for value in values if value.lower().endswith("bpm")), values[0] if values else "")
    head = detail[: detail.find(value)] if value else ""
    sign = re.sub("above ", ">", re.sub("below ", "<", value, flags=re.IGNORECASE), flags=re.IGNORECASE)
    for form in (f"{condition}: {head}{value}", f"{condition}: {value}", f"{condition} {sign}"):
        if value and cell_len(form) <= room:
            return form
    if value and not sign.lower().endswith("bpm") and cell_len(condition) <= room:
        return condition
    left = room - cell_len(sign) - 1
    return spread(condition, sign, room) if value and left >= _SHORTEST else spread(text, "", room).rstrip()


def alarm_lines(alarm: Alarm, width: int, rows: int = 1) -> list[str]:
    """Return mark, condition and state of one alarm in one row, or in two if there are and one is too short."""
    text = alarm.text.upper() if alarm.priority == "high" else alarm.text
    state = state_word(alarm)
    if width < _NARROW:
        state = _SHORT_STATES.get(state, state)
    room = width - _INDENT - (cell_len(state) + 2 if state else 0)
    lines = wrap(text, room) if room > 0 and cell_len(text) > room and rows > 1 else []
    if not 0 < len(lines) <= rows:
        lines = [shorten(text, room)]
    first = spread(f" {PRIORITY_MARKS[alarm.priority]:<3} {lines[0]}", f"{state} " if state else "", width)
    return [first, *(set_cell_size(" " * _INDENT + line, width) for line in lines[1:])]


def alarm_text(title: str, alarms: Sequence[Alarm], paused: str, width: int, rows: int, palette: Palette, now_ns: int) -> Text:
    """Return an alarm area: its title (with the countdown while paused) and the alarms, the most urgent first.

    An alarm takes a row, and a second one if it needs it and no other alarm does.
    """
    text = Text(no_wrap=True, overflow="crop")
    notice = f" SOUND PAUSED {paused} " if paused else ""
    text.append(set_cell_size(f" {title}", width - len(notice)), palette.title)
    text.append(notice, palette.notice)
    room = rows - 1
    shown = alarms if len(alarms) <= room else alarms[: room - 1]
    spare = max(0, room - len(alarms))
    for alarm in shown:
        lines = alarm_lines(alarm, width, 1 + min(spare, 1))
        spare -= len(lines) - 1
        for line in lines:
            text.append("\n")
            text.append(line, palette.alarm(alarm, now_ns))
    if len(alarms) > len(shown):
        hidden = alarms[len(shown) :]
        text.append("\n")
        text.append(f" {PRIORITY_MARKS[hidden[0].priority]:<3} and {len(hidden)} more", palette.priorities[hidden[0].priority][1])
    elif not alarms:
        text.append("\n     none", palette.faint)
    return text


def number_text(bed: BedState, limits: tuple[float, float] | None, size: tuple[int, int], palette: Palette, now_ns: int) -> Text:
    """Return the column of numbers: heart rate in large digits with its limits, rhythm, quality, device."""
    width, height = size
    large = width >= 33 and height >= 24
    text = Text(no_wrap=True, overflow="crop")
    vitals, rhythm = bed.vitals(now_ns), bed.rhythm(now_ns)
    rate = vitals.heart_rate_bpm if vitals is not None else None
    urgent = next((a for a in bed.alarms("physiological") if a.presence == "on"), None)
    style = palette.priorities[urgent.priority][1] + Style(bold=True) if urgent is not None else palette.value
    doubt = bed.without_rate()
    if doubt is not None:
        style = palette.doubtful(doubt)
    mark = " ?" if doubt is not None and rate is not None else ""
    bounds = f"{limits[0]:.0f}-{limits[1]:.0f}" if limits is not None else ""

    def line(content: str, style: Style) -> None:
        text.append(set_cell_size(content, width) + "\n", style)

    def gap() -> None:
        if large:
            text.append("\n")

    line(spread(f"HR bpm{mark}", bounds, width), palette.title)
    for row in big_digits("---" if rate is None else f"{rate:.0f}".rjust(3), *((3, 2) if large else (2, 1))):
        line(row, style)
    rr_ms = vitals.rr_ms if vitals is not None else None
    pvc = vitals.pvc_per_min if vitals is not None else None
    ectopy = "" if pvc is None else f"PVC {pvc}/min"
    line(spread("RR ---" if rr_ms is None else f"RR {rr_ms:.0f} ms{mark}", ectopy, width), palette.text)
    text.append("\n")
    line(spread("RHYTHM", "" if rhythm is None else f"{100 * rhythm.probability:.0f} %", width), palette.title)
    for row in ((wrap("---" if rhythm is None else rhythm.text, width) or [""]) + [""])[:2]:
        line(row, palette.text + Style(bold=True) if rhythm is not None else palette.faint)
    gap()
    line("SIGNAL QUALITY", palette.title)
    for row in _quality_rows(bed.quality(now_ns), width):
        line(row, palette.text)
    gap()
    state = bed.status.state if bed.status is not None else "waiting"
    line(spread("DEVICE", state.upper(), width), palette.text if bed.online else palette.notice)
    if large and bed.meta is not None:
        line(bed.meta.device, palette.faint)
        line(f"{bed.meta.fs:g} Hz, {counted(len(bed.meta.leads), 'lead')}, session {bed.meta.session}", palette.faint)
    text.rstrip()
    return text


def _quality_rows(quality: Quality | None, width: int) -> list[str]:
    """Return four rows: a lead per row with its state if they fit, otherwise all of them in columns."""
    if quality is None:
        return ["---", "", "", ""]
    there = [lead for lead in MONITORED_FIRST if lead in quality.leads and quality.leads[lead].state != "missing"]
    if not there:
        return ["no leads", "", "", ""]
    level = {lead: _LEVELS[min(7, int(8 * quality.leads[lead].sqi))] for lead in there}
    if len(there) <= 4:
        rows = [f"{lead:<4}{level[lead] * 4}  {quality.leads[lead].state}" for lead in there]
    else:
        per_row = -(-len(there) // 4)
        marks = {lead: level[lead] if quality.leads[lead].state == "good" else quality.leads[lead].state[:3] for lead in there}
        cells = [set_cell_size(f"{lead:<3} {marks[lead]}", width // per_row) for lead in there]
        rows = ["".join(cells[i : i + per_row]) for i in range(0, len(cells), per_row)]
    return (rows + [""] * 4)[:4]


def _engine_text(engine: EngineStatus | None) -> str:
    """Return what the engine does; it counts its windows every few seconds only, so that a zero would mislead."""
    if engine is None or (engine.online and not engine.model):
        return "network loading "
    windows = f" {counted(engine.windows, 'window')}" if engine.windows else ""
    skipped = f", {engine.skipped_windows} skipped" if engine.skipped_windows else ""
    return f"{'' if engine.online else 'ENGINE OFFLINE '}{engine.model}{windows}{skipped} "


def question_text(alarm: Alarm, width: int, palette: Palette) -> Text:
    """Return the line that asks whether to leave although an alarm of high priority is on."""
    asked = " A HIGH ALARM IS ON - press q again to leave: "
    where = f"{alarm.bed.rpartition('/')[2] or 'worker'}, {alarm.text}"
    return Text(
        set_cell_size(asked + shorten(where, width - cell_len(asked)), width), palette.notice, no_wrap=True, overflow="crop"
    )


def answer_text(board: Board, bed: BedState | None, now: datetime) -> str:
    """Return the answer to the last command while it is new."""
    result, own = bed.result if bed is not None else None, board.system.result
    if result is None or (own is not None and own.time > result.time + _TOGETHER):
        result = own
    if result is None or abs((now - result.time).total_seconds()) >= _ANSWER_S:
        return ""
    whose = "worker: " if result is own else ""
    return f"{whose}{result.action} {'accepted' if result.accepted else f'REFUSED: {result.reason}'}"


def engine_alarm_text(alarms: Sequence[Alarm], width: int, palette: Palette, now_ns: int) -> Text:
    """Return the most urgent alarm that concerns every bed in one line, and the number of the others."""
    more = f" and {len(alarms) - 1} more " if len(alarms) > 1 else ""
    line = alarm_lines(alarms[0], width - cell_len(more))[0] + more
    return Text(line, palette.alarm(alarms[0], now_ns), no_wrap=True, overflow="crop")


def status_text(
    board: Board, bed: BedState | None, width: int, palette: Palette, now: datetime, note: str = "", *, keys: bool = True
) -> Text:
    """Return the line above the keys: the answer to the last command, what the device says, the note if it fits, the engine."""
    if board.over:
        return Text(
            set_cell_size(f" recording ended - {'q' if keys else 'Ctrl+C'} quits", width),
            palette.notice,
            no_wrap=True,
            overflow="crop",
        )
    right = _engine_text(board.engine)
    left = ""
    if bed is not None and bed.status is not None:
        left = f" {bed.status.state}" + (f": {bed.status.detail}" if bed.status.detail else "")
    if answer := answer_text(board, bed, now):
        left += f"   {answer}"
    if note and cell_len(left) + cell_len(note) + cell_len(right) + 4 <= width:
        right = f"{note}   {right}"
    return Text(spread(left, right, width), palette.faint, no_wrap=True, overflow="crop")
