"""The alarm history on disk: the schema of its SQLite file, and how events are written into it.

``event`` holds every phase of every alarm as it went over the bus, ``alarm`` one row for each alarm from its start to its end,
``command`` and ``result`` what persons ordered and what became of it, ``delivery`` how far each event has come on its way out,
``monitored`` when each bed was watched, of a recording also at which pace and from where to where on it (s),
``numbering`` the highest sequence number of each bed,
``run`` the starts of the monitor.
Times are UTC as text of one length (``2026-01-01T12:00:00.000000Z``), so that they sort. The file is in WAL mode: it can be read
while a monitor writes, and a process that is killed leaves whole transactions.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ecgnat_stream import __version__, wire
from ecgnat_stream.codes import URGENCY
from ecgnat_stream.errors import SinkError
from ecgnat_stream.events import Alarm, Command, CommandResult, Delivery
from ecgnat_stream.sink.files import make_file, make_folder

__all__ = ["MIGRATIONS", "Store", "Stored", "Stretch", "Stretches", "connect", "schema_version", "utc_text"]

APPLICATION = 0x45434748
"""``application_id`` of the file: "ECGH"."""

MIGRATIONS = (
    """
    CREATE TABLE run (id INTEGER PRIMARY KEY, started TEXT NOT NULL, program TEXT NOT NULL, lost INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE alarm (
        id INTEGER PRIMARY KEY, alarm_id TEXT NOT NULL, bed TEXT NOT NULL, condition TEXT NOT NULL, kind TEXT NOT NULL,
        priority TEXT NOT NULL, presence TEXT NOT NULL, text TEXT NOT NULL, started TEXT NOT NULL, at_s REAL, last TEXT NOT NULL,
        ended TEXT, ending TEXT, acknowledged TEXT, acknowledged_by TEXT NOT NULL DEFAULT '');
    CREATE INDEX alarm_by_bed ON alarm (bed, started);
    CREATE INDEX alarm_by_time ON alarm (started);
    CREATE INDEX alarm_by_end ON alarm (ended);
    CREATE INDEX alarm_open ON alarm (bed, condition) WHERE ended IS NULL;
    CREATE TABLE event (
        id INTEGER PRIMARY KEY, alarm INTEGER NOT NULL REFERENCES alarm (id) ON DELETE CASCADE, event_id TEXT NOT NULL,
        time TEXT NOT NULL, at_s REAL, bed TEXT NOT NULL, sequence INTEGER NOT NULL, condition TEXT NOT NULL, phase TEXT NOT NULL,
        priority TEXT NOT NULL, presence TEXT NOT NULL, source TEXT NOT NULL, body TEXT NOT NULL, UNIQUE (event_id, time));
    CREATE INDEX event_by_alarm ON event (alarm);
    CREATE INDEX event_by_bed ON event (bed, time);
    CREATE INDEX event_by_time ON event (time);
    CREATE TABLE command (
        id INTEGER PRIMARY KEY, time TEXT NOT NULL, bed TEXT NOT NULL, action TEXT NOT NULL, condition TEXT, duration_s REAL,
        source TEXT NOT NULL, correlation TEXT NOT NULL, UNIQUE (correlation, action, source, bed, time));
    CREATE INDEX command_by_bed ON command (bed, time);
    CREATE INDEX command_by_time ON command (time);
    CREATE TABLE result (
        id INTEGER PRIMARY KEY, command INTEGER REFERENCES command (id) ON DELETE CASCADE, time TEXT NOT NULL, at_s REAL,
        bed TEXT NOT NULL, accepted INTEGER NOT NULL, reason TEXT NOT NULL, UNIQUE (command, bed, time));
    CREATE INDEX result_by_bed ON result (bed, time);
    CREATE INDEX result_by_time ON result (time);
    CREATE TABLE numbering (bed TEXT PRIMARY KEY, sequence INTEGER NOT NULL);
    CREATE TABLE monitored (bed TEXT NOT NULL, started TEXT NOT NULL, stopped TEXT NOT NULL, PRIMARY KEY (bed, started));
    """,
    """
    CREATE TABLE delivery (
        event_id TEXT NOT NULL, step TEXT NOT NULL, receiver TEXT NOT NULL, time TEXT NOT NULL,
        PRIMARY KEY (event_id, step, receiver)) WITHOUT ROWID;
    CREATE INDEX delivery_by_time ON delivery (time);
    """,
    "ALTER TABLE monitored ADD COLUMN pace REAL NOT NULL DEFAULT 1",
    "ALTER TABLE monitored ADD COLUMN from_s REAL;\nALTER TABLE monitored ADD COLUMN to_s REAL",
)
"""The statements that lead from version i of the schema (``user_version``) to version i + 1."""


_log = logging.getLogger(__name__)

_UNFIT = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
"""What SQLite raises for an event that it cannot hold; everything else that it raises is the file's fault."""

SqlValue = str | int | float | None
Stored = Alarm | Command | CommandResult | Delivery


class Stretch(NamedTuple):
    """A stretch in which a bed was watched: its end, the pace of its stream, and where on a recording it lies, s.

    ``from_s`` and ``to_s`` are None of what is no recording: there the wall clock says how long it was.
    """

    stopped: str
    pace: float = 1.0
    from_s: float | None = None
    to_s: float | None = None


Stretches = Mapping[tuple[str, str], Stretch]
"""When beds were watched, by bed and beginning."""


def utc_text(time: datetime) -> str:
    """Return a time as it stands in the file: UTC, microseconds, always the same length."""
    return f"{time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def schema_version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of the schema, 0 for an empty file.

    Raises
    ------
    SinkError
        If the file is another program's, or of a later version of this one.
    """
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if application != APPLICATION and not (empty and application == version == 0):
        raise SinkError(f"{path}: is the database of another program; choose another path")
    if version > len(MIGRATIONS):
        raise SinkError(
            f"{path}: was written by a later version of this program (schema {version}, this one knows {len(MIGRATIONS)}); "
            "update, or choose another path"
        )
    return version


def connect(path: Path, timeout_s: float) -> sqlite3.Connection:
    """Open the file for writing and bring its schema up to date.

    Raises
    ------
    sqlite3.Error, SinkError
        If it cannot be used.
    """
    connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
    try:
        if schema_version(connection, path) < len(MIGRATIONS):
            connection.execute("PRAGMA journal_mode = WAL")
            # Under the lock the version is read again: another process may have come first.
            with _transaction(connection):
                for version in range(schema_version(connection, path), len(MIGRATIONS)):
                    for statement in MIGRATIONS[version].split(";\n"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {version + 1}")
                connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


class Store:
    """The writing side; used by one thread at a time.

    Raises
    ------
    sqlite3.Error, OSError, SinkError
        If the file cannot be made or used.
    """

    def __init__(self, path: Path, started: str, timeout_s: float, *, group: bool = False) -> None:
        make_folder(path.parent, group=group)
        with suppress(FileExistsError):
            # Made here, so that it is private from the first byte; SQLite gives its -wal and -shm the same mode.
            os.close(make_file(Path(os.path.realpath(path)), group=group))
        self._connection = connection = connect(path, timeout_s)
        self._path = path
        try:
            self._file = os.stat(path)
            # A monitor that opens its file again after a failure is still the same run.
            known = connection.execute("SELECT id FROM run WHERE started = ?", (started,)).fetchone()
            self._run = known[0] if known else self._insert("run", started=started, program=f"ecgnat-stream {__version__}")
        except BaseException:
            connection.close()
            raise

    def _insert(self, table: str, **values: SqlValue) -> int:
        """Insert a row, unless it is there already; return its number if it was not."""
        columns, places = ", ".join(values), ", ".join("?" * len(values))
        insert = f"INSERT INTO {table} ({columns}) VALUES ({places}) ON CONFLICT DO NOTHING"
        row = self._connection.execute(insert, tuple(values.values())).lastrowid
        assert row is not None
        return row

    def write(self, events: Sequence[Stored], stretches: Stretches, lost: int) -> list[Stored]:
        """Write all of it, or nothing; what is there already is left out.

        Parameters
        ----------
        lost
            How many events of this run could not be kept, so far.

        Returns
        -------
        list of events
            Those that cannot be stored, whatever the state of the file: text that is no Unicode, a number beyond 64 bits.
        """
        with _transaction(self._connection):
            unfit = [event for event in events if not self._event(event)]
            self._connection.executemany(
                "INSERT INTO monitored (bed, started, stopped, pace, from_s, to_s) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (bed, started) DO UPDATE SET stopped = excluded.stopped, pace = excluded.pace, "
                "from_s = excluded.from_s, to_s = excluded.to_s",
                [(*key, *stretch) for key, stretch in stretches.items()],
            )
            self._connection.execute("UPDATE run SET lost = ? WHERE id = ?", (lost + len(unfit), self._run))
        return unfit

    def _event(self, event: Stored) -> bool:
        """Write one event; return whether it can be stored at all. One that cannot must not keep the others waiting."""
        self._connection.execute("SAVEPOINT event")
        try:
            match event:
                case Alarm():
                    self._alarm(event)
                case Command():
                    self._command(event)
                case CommandResult():
                    self._result(event)
                case Delivery():
                    # Of an event that is sent again the first time counts.
                    about = (event.event_id, event.step, event.by, utc_text(event.time))
                    self._connection.execute("INSERT INTO delivery VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", about)
        except Exception as error:  # whatever one event does to the writer, the others are kept
            if isinstance(error, sqlite3.Error | OSError | MemoryError) and not isinstance(error, _UNFIT):
                raise
            _log.error("an event cannot be stored: %r", event, exc_info=True)
            self._connection.execute("ROLLBACK TO event")
            return False
        finally:
            if self._connection.in_transaction:
                self._connection.execute("RELEASE event")
        return True

    def _alarm(self, event: Alarm) -> None:
        execute, time = self._connection.execute, utc_text(event.time)
        if execute("SELECT 1 FROM event WHERE event_id = ? AND time = ?", (event.event_id, time)).fetchone():
            return
        is_open = "bed = ? AND condition = ? AND ended IS NULL"
        if event.phase == "start":
            # One condition of a bed is one alarm at a time: the end of the one before was never seen.
            execute(f"UPDATE alarm SET ended = last, ending = 'unseen' WHERE {is_open}", (event.bed, event.condition))
        now = {"priority": event.priority, "presence": event.presence}
        about = {"bed": event.bed, "condition": event.condition, "at_s": event.at_s}
        alarm, priority, acknowledged = execute(
            f"SELECT id, priority, acknowledged FROM alarm WHERE {is_open} AND alarm_id = ?",
            (event.bed, event.condition, event.alarm_id),
        ).fetchone() or (
            self._insert(
                "alarm", **about, **now, alarm_id=event.alarm_id, kind=event.kind, text=event.text, started=time, last=time
            ),
            event.priority,
            None,
        )
        body = wire.encode_json(event).decode()
        by: dict[str, SqlValue] = {
            "event_id": event.event_id,
            "sequence": event.sequence,
            "phase": event.phase,
            "source": event.by,
        }
        self._insert("event", **about, **now, **by, alarm=alarm, time=time, body=body)
        execute(
            "INSERT INTO numbering VALUES (?, ?) ON CONFLICT (bed) DO UPDATE SET sequence = max(sequence, excluded.sequence)",
            (event.bed, event.sequence),
        )
        over = event.phase in ("end", "reset")
        ending = (time, event.phase) if over else (None, None)
        highest = max(priority, event.priority, key=URGENCY.__getitem__)
        execute(
            "UPDATE alarm SET priority = ?, presence = ?, text = ?, last = ?, ended = ?, ending = ? WHERE id = ?",
            (highest, event.presence, event.text, time, *ending, alarm),
        )
        if acknowledged is None and (event.presence == "acknowledged" or (over and event.by)):
            execute("UPDATE alarm SET acknowledged = ?, acknowledged_by = ? WHERE id = ?", (time, event.by, alarm))

    def _command(self, event: Command) -> None:
        self._insert(
            "command",
            time=utc_text(event.time),
            bed=event.bed,
            action=event.action,
            condition=event.condition,
            duration_s=event.duration_s,
            source=event.source,
            correlation=event.correlation,
        )

    def _result(self, event: CommandResult) -> None:
        asked = (event.correlation, event.action, event.source)
        query = "SELECT max(id) FROM command WHERE correlation = ? AND action = ? AND source = ?"
        self._insert(
            "result",
            command=self._connection.execute(query, asked).fetchone()[0],
            time=utc_text(event.time),
            at_s=event.at_s,
            bed=event.bed,
            accepted=event.accepted,
            reason=event.reason,
        )

    def prune(self, before: datetime) -> None:
        """Forget alarms that ended, commands, and times of monitoring before a moment; what has not ended is kept."""
        limit = (utc_text(before),)
        with _transaction(self._connection):
            self._connection.execute("DELETE FROM alarm WHERE ended < ?", limit)
            self._connection.execute(
                "DELETE FROM delivery WHERE time < ? AND event_id NOT IN (SELECT event_id FROM event)", limit
            )
            self._connection.execute("DELETE FROM command WHERE time < ?", limit)
            self._connection.execute("DELETE FROM result WHERE time < ?", limit)
            self._connection.execute("DELETE FROM monitored WHERE stopped < ?", limit)

    @property
    def in_place(self) -> bool:
        """Whether the file is still the one at its path; what is written into one that was removed is read by nobody."""
        try:
            return os.path.samestat(self._file, os.stat(self._path))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
