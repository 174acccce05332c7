"""``ecgnat alarms``: read an alarm history.

Tables are for a person; with ``--json`` and ``--csv`` the same goes to another program. All times are UTC.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ecgnat_stream.cli.completion import conditions
from ecgnat_stream.cli.options import a_path
from ecgnat_stream.codes import PRIORITIES, PRIORITY_MARKS
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.words import cell, cleaned, counted

if TYPE_CHECKING:
    from rich.table import Table

    from ecgnat_stream.events import Alarm
    from ecgnat_stream.sink.history.read import AlarmRecord, CommandRecord, DeliveryRecord, History, Selection

__all__ = ["add"]

_POLL_S = 0.5
_DAY_S = 86_400.0
_SPANS_S = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": _DAY_S, "w": 7 * _DAY_S}
_MOST_URGENT_FIRST = tuple(reversed(PRIORITIES))
_STYLES = {"high": "bold red", "medium": "yellow", "low": "cyan"}
_BROKEN = {"alarm": 16, "answer": 12, "condition": 12, "acknowledged": 12, "by": 6}
"""Columns that may take several lines, and the width that they keep."""
_PIPE_WIDTH = 200


class SummaryRow(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="alarm-summary-row"):
    """The alarms of one condition and priority; None where there is nothing to divide by.

    Parameters
    ----------
    per_bed_day
        Alarms for each day that one bed was watched.
    on_s
        Seconds between start and end, all alarms together.
    acknowledge_median_s
        Of those that were acknowledged, s.
    bed_days
        How long beds were watched, all together, in days.
    """

    condition: str
    priority: str
    alarms: int
    per_bed_day: float | None
    on_s: float
    acknowledged: int
    acknowledge_median_s: float | None
    bed_days: float


def add(commands: Any) -> None:
    """Add ``ecgnat alarms`` to the parser."""
    parser = commands.add_parser(
        "alarms",
        help="read an alarm history",
        description="Read the alarm history of a monitor ([history] in its configuration), also while it runs. Times are UTC.",
        epilog="""examples:
  ecgnat alarms alarms.db --active                     what has not ended
  ecgnat alarms alarms.db --since 8h --priority high
  ecgnat alarms alarms.db --bed '*/icu/*' --summary    alarms per bed and day, time to acknowledge
  ecgnat alarms alarms.db --commands --since 2026-01-01T06:00
  ecgnat alarms alarms.db --follow --json | jq .       every alarm event from now on""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "database", type=a_path, metavar="DATABASE", help="the file that --history, or history.path in a configuration, names"
    )
    parser.add_argument(
        "--bed", metavar="PATTERN", help="site/unit/bed, * and ? allowed; without a slash the bed alone; '' the worker"
    )
    condition = parser.add_argument(
        "--condition", action="append", default=[], metavar="C", help="only this condition; repeatable"
    )
    condition.completer = conditions
    parser.add_argument(
        "--priority", action="append", default=[], choices=_MOST_URGENT_FIRST, help="only this priority; repeatable"
    )
    parser.add_argument("--since", type=_moment, metavar="TIME", help="began at or after: 30m, 2h, 7d ago, or ISO 8601")
    parser.add_argument("--until", type=_moment, metavar="TIME", help="began before")
    parser.add_argument("--active", action="store_true", help="only what has not ended")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--events", action="store_true", help="every phase of every alarm instead of one line per alarm")
    what.add_argument(
        "--delivery", action="store_true", help="when each event was detected, published, at the broker and confirmed, by whom"
    )
    what.add_argument("--commands", action="store_true", help="what persons ordered, and what became of it")
    what.add_argument("--summary", action="store_true", help="alarms per bed and day, seconds on, time to acknowledge")
    what.add_argument("--follow", action="store_true", help="events as they are written; from now on, or from --since")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object per line")
    form.add_argument("--csv", action="store_true", help="comma-separated, with a header")
    parser.set_defaults(command=_alarms)


def _moment(text: str) -> datetime:
    """Return the time that ``2h`` (ago) or an ISO 8601 date or time stands for; one without a zone is UTC."""
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text)
    try:
        if ago and ago[2] in _SPANS_S:
            return datetime.now(UTC) - timedelta(seconds=float(ago[1]) * _SPANS_S[ago[2]])
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: write 30m, 2h, 7d (ago) or 2026-01-31T08:00 (UTC unless it has a zone)"
        ) from None


def _alarms(arguments: argparse.Namespace) -> int:
    from ecgnat_stream.sink.history.read import AlarmRecord, CommandRecord, DeliveryRecord, History, Selection

    since, until = arguments.since, arguments.until
    if since and until and since >= until:
        raise ConfigError(f"--since {since.isoformat()} is not before --until {until.isoformat()}")
    if arguments.active and (arguments.summary or arguments.commands or arguments.follow):
        raise ConfigError("--active goes with the list of alarms, with --events or with --delivery")
    if arguments.csv and arguments.follow:
        raise ConfigError("--follow prints lines or JSON, not CSV")
    selection = Selection(
        bed=arguments.bed,
        conditions=tuple(arguments.condition),
        priorities=tuple(arguments.priority),
        since=since,
        until=until,
        active=arguments.active,
    )
    with History(arguments.database) as history:
        lost = history.lost()
        if lost:
            print(f"ecgnat: {lost} events are missing: the file could not be written to in time", file=sys.stderr)
        if arguments.follow:
            _follow(history, selection, as_json=arguments.json)
        elif arguments.events:
            from ecgnat_stream.events import Alarm

            events = [event for _, event in history.events(selection)]
            _print(arguments, Alarm, events, lambda: _events_table(events))
        elif arguments.delivery:
            ways = history.deliveries(selection)
            _print(arguments, DeliveryRecord, ways, lambda: _delivery_table(ways))
        elif arguments.commands:
            commands = history.commands(selection)
            _print(arguments, CommandRecord, commands, lambda: _commands_table(commands))
        elif arguments.summary:
            days = sum(history.watched_s(selection).values()) / _DAY_S
            rows = _summary(history.alarms(selection), days)
            _print(arguments, SummaryRow, rows, lambda: _summary_table(rows, days))
        else:
            records = history.alarms(selection)
            _print(arguments, AlarmRecord, records, lambda: _records_table(records))
    return 0


def _print(arguments: argparse.Namespace, kind: type[msgspec.Struct], rows: Sequence[msgspec.Struct], table: Any) -> None:
    """Print rows as JSON lines or CSV, or else the table."""
    if arguments.json:
        for row in rows:
            print(msgspec.json.encode(row).decode())
    elif arguments.csv:
        writer = csv.DictWriter(sys.stdout, kind.__struct_fields__)
        writer.writeheader()
        writer.writerows(
            {key: _csv_value(value) for key, value in msgspec.to_builtins(row).items() if key != "type"} for row in rows
        )
    else:
        _show(table())


def _csv_value(value: Any) -> Any:
    return msgspec.json.encode(value).decode() if isinstance(value, dict) else cell(value)


def _show(table: Table) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, markup=False, highlight=False).print(table)


def _clock(moment: datetime, *, date: bool = True) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}" if date else f"{moment:%H:%M:%S}"


def _length(seconds: float | None) -> str:
    """Return a length of time as ``5.5 s``, ``2:31`` or ``4:42:00``."""
    if seconds is None:
        return "-"
    minutes, whole = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds:.1f} s"
    return f"{minutes}:{whole:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{whole:02}"


def _table(rows: Iterable[tuple[str, Sequence[object]]], *columns: str, title: str, right: Sequence[str] = ()) -> Table:
    """Return a table of styled rows; where there is little room, alarms and names are broken first."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="", pad_edge=False, collapse_padding=True)
    for column in columns:
        whole = column not in _BROKEN
        justify: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=whole, min_width=None if whole else _BROKEN[column])
    for style, row in rows:
        table.add_row(*map(cleaned, row), style=style)
    return table


class _Setting:
    """What the lines of a table have in common, a day and a ward, goes into its title."""

    def __init__(self, lines: Sequence[tuple[datetime, str]]) -> None:
        days = {moment.date() for moment, _ in lines}
        wards = {bed.rpartition("/")[0] for _, bed in lines if bed}
        self._ward = wards.pop() if len(wards) == 1 else ""
        self._days = len(days)
        self.title = (f", {self._ward}" if self._ward else "") + (f" on {days.pop()}" if self._days == 1 else "")

    def time(self, moment: datetime) -> str:
        return _clock(moment, date=self._days > 1)

    def bed(self, bed: str) -> str:
        return (bed.removeprefix(f"{self._ward}/") if self._ward else bed) or "worker"


def _records_table(records: Sequence[AlarmRecord]) -> Table:
    setting = _Setting([(record.started, record.bed) for record in records])

    def row(record: AlarmRecord) -> tuple[object, ...]:
        known = "-"
        if record.acknowledged is not None:
            known = f"{record.acknowledged_by or 'somebody'} after {_length(record.acknowledged_after_s)}"
        alarm = f"{PRIORITY_MARKS[record.priority]} {record.text}"
        return (setting.time(record.started), *_end(record), setting.bed(record.bed), alarm, known)

    return _table(
        ((_STYLES[record.priority] if record.ended is None else "", row(record)) for record in records),
        *("start (UTC)", "end", "lasted", "bed", "alarm", "acknowledged"),
        title=counted(len(records), "alarm") + setting.title,
        right=("lasted",),
    )


def _end(record: AlarmRecord) -> tuple[str, str]:
    """Return when an alarm ended, or that it has not, and how long it lasted."""
    length = _length(record.duration_s)
    if record.ended is None:
        return "latched" if record.presence == "latched" else "still on", length
    if record.ending == "unseen":
        return "unseen", f"> {length}"
    return _clock(record.ended, date=record.ended.date() != record.started.date()), length


def _events_table(events: Sequence[Alarm]) -> Table:
    setting = _Setting([(event.time, event.bed) for event in events])
    columns = ("time (UTC)", "stream", "bed", "phase", "state", "alarm", "by")
    rows = (("", (setting.time(event.time), _stream(event), setting.bed(event.bed), *_event_cells(event))) for event in events)
    return _table(rows, *columns, title=counted(len(events), "event") + setting.title, right=("stream",))


def _stream(event: Alarm) -> str:
    return "" if event.at_s is None else f"{event.at_s:.1f} s"


def _event_cells(event: Alarm) -> tuple[str, str, str, str]:
    state = event.presence if event.inactivation in ("none", event.presence) else f"{event.presence}, {event.inactivation}"
    return event.phase, state, f"{PRIORITY_MARKS[event.priority]} {event.text}", event.by or "-"


def _delivery_table(ways: Sequence[DeliveryRecord]) -> Table:
    setting = _Setting([(way.detected, way.bed) for way in ways])

    def row(way: DeliveryRecord) -> tuple[object, ...]:
        after = (
            "-" if moment is None else f"{(moment - way.detected).total_seconds():+.2f} s"
            for moment in (way.published, way.at_broker, way.confirmed)
        )
        alarm = f"{PRIORITY_MARKS[way.priority]} {way.condition}"
        return (setting.time(way.detected), setting.bed(way.bed), alarm, way.phase, *after, way.confirmed_by or "-")

    columns = ("detected (UTC)", "bed", "alarm", "phase", "published", "at broker", "confirmed", "by")
    title = counted(len(ways), "event") + setting.title
    return _table((("", row(way)) for way in ways), *columns, title=title, right=columns[4:7])


def _commands_table(commands: Sequence[CommandRecord]) -> Table:
    setting = _Setting([(command.time, command.bed) for command in commands])

    def row(command: CommandRecord) -> tuple[object, ...]:
        answer = {True: "accepted", False: f"refused: {command.reason}", None: "no answer"}[command.accepted]
        what = command.action if command.duration_s is None else f"{command.action} {command.duration_s:g} s"
        about = command.condition or "all"
        return setting.time(command.time), setting.bed(command.bed), what, about, command.source or "-", answer

    columns = ("time (UTC)", "bed", "command", "condition", "by", "answer")
    title = counted(len(commands), "command") + setting.title
    return _table((("", row(command)) for command in commands), *columns, title=title)


def _summary(records: Sequence[AlarmRecord], bed_days: float) -> list[SummaryRow]:
    """Return a row per priority and condition, the most urgent first."""
    groups: dict[tuple[int, str], list[AlarmRecord]] = {}
    for record in records:
        groups.setdefault((_MOST_URGENT_FIRST.index(record.priority), record.condition), []).append(record)
    return [_summary_row(name, _MOST_URGENT_FIRST[rank], group, bed_days) for (rank, name), group in sorted(groups.items())]


def _summary_row(condition: str, priority: str, records: Sequence[AlarmRecord], bed_days: float) -> SummaryRow:
    waits = [record.acknowledged_after_s for record in records if record.acknowledged_after_s is not None]
    return SummaryRow(
        condition=condition,
        priority=priority,
        alarms=len(records),
        per_bed_day=round(len(records) / bed_days, 3) if bed_days else None,
        on_s=round(sum(record.duration_s for record in records), 1),
        acknowledged=len(waits),
        acknowledge_median_s=round(median(waits), 1) if waits else None,
        bed_days=round(bed_days, 4),
    )


def _summary_table(rows: Sequence[SummaryRow], bed_days: float) -> Table:
    def row(line: SummaryRow) -> tuple[object, ...]:
        rate = "-" if line.per_bed_day is None else f"{line.per_bed_day:.1f}"
        wait = _length(line.acknowledge_median_s)
        return line.priority, line.condition, line.alarms, rate, _length(line.on_s), line.acknowledged, wait

    columns = ("priority", "condition", "alarms", "per bed-day", "on", "acknowledged", "median")
    title = f"{counted(sum(line.alarms for line in rows), 'alarm')}; beds were watched for {bed_days:.3g} days in all"
    return _table((("", row(line)) for line in rows), *columns, title=title, right=columns[2:])


def _follow(history: History, selection: Selection, *, as_json: bool) -> None:
    """Print events as they are written, until interrupted."""
    newest = 0
    if selection.since is None:
        newest = history.newest()
    while True:
        for number, event in history.events(selection, after=newest):
            newest = number
            if as_json:
                print(msgspec.json.encode(event).decode(), flush=True)
            else:
                cells = (_clock(event.time), _stream(event), event.bed or "worker", *_event_cells(event))
                print("  ".join(cleaned(cell) for cell in cells if cell), flush=True)
        time.sleep(_POLL_S)
