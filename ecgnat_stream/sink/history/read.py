"""The alarm history as it is read: by persons (``ecgnat alarms``), and by a monitor that starts after one that was killed.

Reading changes nothing, and a monitor that writes at the same time does not notice it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from ecgnat_stream import wire
from ecgnat_stream.codes import Priority
from ecgnat_stream.errors import FrameError, SinkError
from ecgnat_stream.events import Alarm, Kind, Phase, Presence
from ecgnat_stream.sink.history.store import MIGRATIONS, schema_version, utc_text
from ecgnat_stream.words import cleaned

__all__ = ["AlarmRecord", "CommandRecord", "DeliveryRecord", "History", "Selection", "unfinished"]


_WITH_PACE, _WITH_PLACE = 3, 4
"""Schemas from which on the pace of a recording is kept, and where on it each stretch lies."""


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which alarms to read; what is left out selects everything.

    Parameters
    ----------
    bed
        Pattern of the shell (``*/icu/*``); without a slash it stands for the last part of the name, and "" for the worker itself.
    since, until
        The alarm began, or the event happened, in this half-open stretch of time.
    active
        Only alarms that have not ended.
    """

    bed: str | None = None
    conditions: tuple[str, ...] = ()
    priorities: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    active: bool = False

    def where(self, time: str) -> tuple[str, list[str]]:
        """Return the SQL condition and its values for a table whose time stands in the column ``time``."""
        bed, values = self.where_bed()
        parts = [bed]
        for column, allowed in (("condition", self.conditions), ("priority", self.priorities)):
            if allowed:
                parts.append(f"{column} IN ({', '.join('?' * len(allowed))})")
                values += allowed
        for sign, limit in ((">=", self.since), ("<", self.until)):
            if limit is not None:
                parts.append(f"{time} {sign} ?")
                values.append(utc_text(limit))
        return " AND ".join(parts), values

    def where_bed(self) -> tuple[str, list[str]]:
        """Return the SQL condition for the bed alone."""
        if self.bed is None:
            return "TRUE", []
        if not self.bed:
            return "bed = ''", []
        return "bed GLOB ?", [self.bed if "/" in self.bed else f"*/{self.bed}"]


class AlarmRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="alarm-record"):
    """One alarm from its start to its end.

    Parameters
    ----------
    priority
        The highest it had.
    presence, text
        The latest.
    at_s
        Its start on the bed's stream, s.
    ended, ending
        When and how: ``end``, ``reset``, or ``unseen`` (it began anew and no end had been seen); None while it lasts.
    duration_s
        Until its end, or as far as the bed was watched; of a recording in its own seconds, however fast it was played.
    acknowledged, acknowledged_by, acknowledged_after_s
        When and by whom it was first acknowledged, and how long after its start.
    """

    bed: str
    condition: str
    kind: Kind
    priority: Priority
    presence: Presence
    text: str
    started: datetime
    at_s: float | None
    ended: datetime | None
    ending: Literal["end", "reset", "unseen"] | None
    duration_s: float
    acknowledged: datetime | None
    acknowledged_by: str
    acknowledged_after_s: float | None
    alarm_id: str


class CommandRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="command-record"):
    """A command and what became of it; ``accepted`` is None where no answer was seen."""

    time: datetime
    bed: str
    action: str
    condition: str | None
    duration_s: float | None
    source: str
    accepted: bool | None
    reason: str | None


class DeliveryRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="delivery-record"):
    """The way of one alarm event out of the monitor, by the monitor's clock; None for what has not happened.

    Parameters
    ----------
    detected
        What the event is about happened then.
    published, at_broker
        First handed to the broker; acknowledged by it.
    confirmed, confirmed_by
        Acknowledged by a receiver on the level of the application, the first one if there are several.
    """

    bed: str
    condition: str
    priority: Priority
    phase: Phase
    sequence: int
    event_id: str
    detected: datetime
    published: datetime | None
    at_broker: datetime | None
    confirmed: datetime | None
    confirmed_by: str


class History:
    """The reading side: a connection that changes nothing and that a writing monitor does not notice.

    Raises
    ------
    SinkError
        If there is no such file, or it is none that can be read; also from every method.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._told():
            if not path.is_file():
                there = "is a folder" if path.is_dir() else "is no file" if path.exists() else "there is no such file"
                what = f"{there}: name the file of an alarm history (that of --history, or of history.path in a configuration)"
                raise SinkError(f"{path}: {what}")
        with self._told():
            self._connection = self._open()
            version = schema_version(self._connection, path)
        self._empty = version == 0
        version = version or len(MIGRATIONS)
        pace = "pace" if version >= _WITH_PACE else "1.0 AS pace"
        place = "from_s, to_s" if version >= _WITH_PLACE else "NULL AS from_s, NULL AS to_s"
        self._stretches = f"(SELECT rowid AS id, bed, started, stopped, {pace}, {place} FROM monitored)"

    def _open(self) -> sqlite3.Connection:
        uri = self._path.resolve().as_uri()
        try:
            connection = sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=5.0)
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1")
        except sqlite3.OperationalError:
            if self._path.with_name(f"{self._path.name}-wal").exists():
                raise
            # In a folder that cannot be written to, WAL's shared memory cannot be made; without a WAL nobody writes either.
            connection = sqlite3.connect(f"{uri}?immutable=1", uri=True)
        connection.row_factory = sqlite3.Row
        return connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, FrameError, ValueError, TypeError, AttributeError) as error:
            # A damaged file may hold whatever it likes where a time, a number or an event belongs.
            raise SinkError(f"{self._path}: cannot be read as an alarm history: {error}") from error

    def _rows(self, query: str, values: Iterable[Any] = ()) -> list[sqlite3.Row]:
        with self._told():
            if self._empty:
                # The monitor may just have made the file.
                self._empty = schema_version(self._connection, self._path) == 0
            return [] if self._empty else self._connection.execute(query, tuple(values)).fetchall()

    def alarms(self, selection: Selection = Selection()) -> list[AlarmRecord]:  # noqa: B008 - it is frozen
        """Return alarms by their start."""
        where, values = selection.where("started")
        if selection.active:
            where += " AND ended IS NULL"

        def stretch(until: str) -> str:
            """The stretch of watching that had begun last at a time."""
            begun = f"AND started <= {until} " if until else ""
            return f"(SELECT rowid FROM monitored WHERE bed = alarm.bed {begun}ORDER BY started DESC LIMIT 1)"

        rows = self._rows(
            f"SELECT alarm.*, mine.pace, mine.from_s, mine.to_s, latest.stopped AS watched, latest.to_s AS latest_s, "
            f"mine.id IS coalesce({stretch('alarm.ended')}, CASE WHEN alarm.ended IS NULL THEN latest.id END) AS same, "
            "(SELECT event.at_s FROM event WHERE event.alarm = alarm.id ORDER BY event.id DESC LIMIT 1) AS last_s "
            f"FROM (SELECT * FROM alarm WHERE {where}) AS alarm LEFT JOIN {self._stretches} AS mine ON mine.id = "
            f"{stretch('alarm.started')} LEFT JOIN {self._stretches} AS latest ON latest.id = {stretch('')} "
            "ORDER BY alarm.started, alarm.id",
            values,
        )
        with self._told():
            return [_record(row) for row in rows]

    def events(self, selection: Selection = Selection(), after: int = 0) -> list[tuple[int, Alarm]]:  # noqa: B008
        """Return alarm events in the order in which they were written, each with its number, after the one numbered ``after``."""
        where, values = selection.where("time")
        if selection.active:
            where += " AND alarm IN (SELECT id FROM alarm WHERE ended IS NULL)"
        rows = self._rows(f"SELECT id, body FROM event WHERE {where} AND id > ? ORDER BY id", [*values, after])
        with self._told():
            return [(row["id"], _event(row["body"])) for row in rows]

    def newest(self) -> int:
        """Return the number of the newest event, 0 if there is none."""
        return next((row[0] or 0 for row in self._rows("SELECT max(id) FROM event")), 0)

    def watched_s(self, selection: Selection = Selection()) -> dict[str, float]:  # noqa: B008
        """Return for how many seconds each bed was watched between ``since`` and ``until``; the worker itself is left out.

        Of a recording they are its own seconds, however fast it was played.
        """
        where, values = selection.where_bed()
        rows = self._rows(f"SELECT * FROM {self._stretches} WHERE {where} AND bed <> ''", values)
        total: dict[str, float] = {}
        with self._told():
            for row in rows:
                begin, end = datetime.fromisoformat(row["started"]), datetime.fromisoformat(row["stopped"])
                wall_s = (end - begin).total_seconds()
                length_s = wall_s * row["pace"] if row["from_s"] is None else row["to_s"] - row["from_s"]
                begin = max(begin, selection.since or begin)
                end = min(end, selection.until or end)
                share = max(0.0, (end - begin).total_seconds()) / wall_s if wall_s > 0 else float(begin <= end)
                total[row["bed"]] = total.get(row["bed"], 0.0) + max(0.0, length_s) * share
        return total

    def commands(self, selection: Selection = Selection()) -> list[CommandRecord]:  # noqa: B008
        """Return commands, each as often as it was answered; the selection's priorities do not matter."""
        where, values = msgspec.structs.replace(selection, priorities=()).where("time")
        rows = self._rows(
            "SELECT * FROM (SELECT command.id, result.id AS answer, command.time, coalesce(result.bed, command.bed) AS bed, "
            "action, condition, duration_s, source, accepted, reason "
            "FROM command LEFT JOIN result ON result.command = command.id) "
            f"WHERE {where} ORDER BY id, answer",
            values,
        )
        with self._told():
            return [msgspec.convert(_values(row), CommandRecord, strict=False) for row in rows]

    def deliveries(self, selection: Selection = Selection()) -> list[DeliveryRecord]:  # noqa: B008
        """Return how far alarm events have come, in the order in which they were written; none of before schema 2."""
        if not self._rows("SELECT 1 FROM sqlite_master WHERE name = 'delivery'"):
            return []
        where, values = selection.where("time")
        if selection.active:
            where += " AND alarm IN (SELECT id FROM alarm WHERE ended IS NULL)"

        def step(name: str, column: str = "time") -> str:
            return (
                f"(SELECT {column} FROM delivery WHERE delivery.event_id = event.event_id AND step = '{name}' "
                "ORDER BY time LIMIT 1)"
            )

        rows = self._rows(
            f"SELECT bed, condition, priority, phase, sequence, event_id, time AS detected, {step('published')} AS published, "
            f"{step('at-broker')} AS at_broker, {step('confirmed')} AS confirmed, "
            f"coalesce({step('confirmed', 'receiver')}, '') AS confirmed_by FROM event WHERE {where} ORDER BY id",
            values,
        )
        with self._told():
            return [msgspec.convert(_values(row), DeliveryRecord) for row in rows]

    def lost(self) -> int:
        """Return how many events could not be kept, in all runs together."""
        with self._told():
            return int(sum(row[0] for row in self._rows("SELECT lost FROM run")))

    def unfinished(self) -> tuple[dict[str, list[Alarm]], dict[str, int]]:
        """Return what :func:`unfinished` does."""
        alarms: dict[str, list[Alarm]] = {}
        with self._told():
            numbers = {str(row[0]): int(row[1]) for row in self._rows("SELECT bed, sequence FROM numbering")}
            for row in self._rows(
                "SELECT body FROM event WHERE id IN "
                "(SELECT (SELECT max(id) FROM event WHERE event.alarm = alarm.id) FROM alarm WHERE ended IS NULL) ORDER BY id"
            ):
                event = _event(row["body"])
                alarms.setdefault(event.bed, []).append(event)
        return alarms, numbers


def unfinished(path: Path) -> tuple[dict[str, list[Alarm]], dict[str, int]]:
    """Return what a monitor that was killed has left open, for the alarm engines of the next one.

    Returns
    -------
    alarms
        Per bed ("" is the worker) the last event of every alarm that has not ended, in the order of these events.
    sequences
        Per bed the highest sequence number that was used.

    Raises
    ------
    SinkError
        If there is a file and it cannot be read.
    """
    try:
        if not path.exists():
            return {}, {}
    except OSError as error:
        raise SinkError(f"{path}: cannot be read: {error.strerror}") from error
    with History(path) as history:
        return history.unfinished()


def _event(body: str) -> Alarm:
    event = wire.decode_json(body.encode())
    if not isinstance(event, Alarm):
        raise FrameError(f"a {type(event).__name__} stands where an alarm belongs")
    return event


def _values(row: sqlite3.Row) -> dict[str, Any]:
    """Return a row by column; its text may be what anybody has written into the file."""
    return {key: cleaned(row[key]) if isinstance(row[key], str) else row[key] for key in row.keys()}  # noqa: SIM118 - a Row has no others


def _record(row: sqlite3.Row) -> AlarmRecord:
    values = {key: value for key, value in _values(row).items() if key in AlarmRecord.__struct_fields__}
    started = datetime.fromisoformat(row["started"])
    acknowledged = row["acknowledged"] and datetime.fromisoformat(row["acknowledged"])
    values["duration_s"] = _duration_s(row, started)
    values["acknowledged_after_s"] = max(0.0, (acknowledged - started).total_seconds()) if acknowledged else None
    return msgspec.convert(values, AlarmRecord)


def _duration_s(row: sqlite3.Row, started: datetime) -> float:
    """Return how long an alarm lasted: by the places on the stream of a recording, else by the wall clock."""
    at_s, last_s, pace = row["at_s"], row["last_s"], row["pace"] or 1.0
    if row["from_s"] is not None and at_s is not None:
        if row["same"] and last_s is not None:
            return float(max(at_s, last_s, last_s if row["ended"] else row["latest_s"]) - at_s)
        if pace != 1:
            # It was ended when the recording was not played any more: the wall clock says nothing of it.
            return float(max(at_s, row["to_s"]) - at_s)
    seen = row["ended"] or max(row["last"], row["watched"] or row["last"])
    # Where the wall clock was set back meanwhile, nothing is known of how long it took.
    return max(0.0, (datetime.fromisoformat(seen) - started).total_seconds()) * pace
