"""The recorder: one folder per bed, one WFDB record with annotations and one file of JSON lines per session.

In come waves and events; they are written in batches in a thread of its own. At any moment, also after a kill of the process, the
header describes samples that are there. What the stream lost is written as missing. Beats, rhythm and alarms stand beside the
samples as WFDB annotations (``.ecg``), some seconds behind them. A disk that is full is a technical condition: events wait for
it, samples do not, recording goes on in the same files when it can, and what was lost is told, then and at the end (``missing``).
A signal that a recording cannot hold is a technical condition as well.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

from ecgnat_stream.bus import Bus, Published
from ecgnat_stream.clock import Clock
from ecgnat_stream.errors import SinkError
from ecgnat_stream.events import Event, Meta, Technical, Wave
from ecgnat_stream.settings import PathText, Settings, Within
from ecgnat_stream.sidethread import SideThread
from ecgnat_stream.sink.files import Claim, make_folder, warn_of_readers
from ecgnat_stream.sink.record.bed import BedFiles, Tally
from ecgnat_stream.sink.record.losses import Losses

__all__ = ["RecordConfig", "RecordSink", "lock_of"]

_log = logging.getLogger(__name__)

CONDITION, CLIPPED = "recorder-failed", "clipped"
_BATCH = 2000
_PREPARE_S = 3.0
"""The start of the monitor waits so long for the disk; monitoring does not."""
_STRANGERS, _STRANGERS_S = 1000, 3600.0
"""Events of beds that are not here (commands for them): so many are written down in so long, beside the worker's own."""


class RecordConfig(Settings, frozen=True, kw_only=True):
    """The recorder.

    Parameters
    ----------
    directory
        Where to record: ``directory/site/unit/bed/``. One monitor per folder.
    max_gap_s
        A longer gap begins a new record instead of being written as missing samples, s.
    retry_s
        Wait after a failure before recording is tried again, s.
    group
        Members of the folder's group may read what is recorded (0640, folders 0750); otherwise only the account of the monitor
        (0600 and 0700), whatever the umask.
    """

    section: ClassVar[str] = "record"

    directory: PathText
    max_gap_s: Annotated[float, Within(0.1, 3600, "a gap is written as missing samples, which take memory and room")] = 600.0
    retry_s: Annotated[float, Within(0.01, 60, "nothing is recorded until it is tried again")] = 5.0
    group: bool = False


def lock_of(directory: Path) -> Path:
    """Return the file that a monitor which records in a folder has locked."""
    return directory / ".lock"


class RecordSink:
    """Records every bed.

    Parameters
    ----------
    beds
        Beds that have a folder; so has every bed that delivers a signal. Events of others go to the worker's own file.
    """

    def __init__(self, config: RecordConfig, bus: Bus, clock: Clock, *, beds: Iterable[str] = ()) -> None:
        self._config, self._bus, self._clock = config, bus, clock
        self._root = Path(config.directory)
        self.subscription = bus.subscribe("record", Event, Wave)
        self._thread = SideThread("record")
        self._claim = Claim(lock_of(self._root), f"record.directory: {config.directory}")
        self._known = {"", *beds}
        self._beds: dict[str, BedFiles] = {}
        self._due_ns: dict[str, int] = {}
        self._lost_before: dict[str, Losses] = {}
        self._clipping: dict[str, tuple[str, ...]] = {}
        self._strangers, self._strangers_ns = 0, 0
        self._tally = Tally()
        self._writing: Future[list[Technical]] | None = None
        self._batch: list[Published] = []
        self._losing = self._slow = False
        self._told = self._behind = 0

    @property
    def lost(self) -> int:
        """Events and waves that could not be recorded."""
        return self._tally.lost

    @property
    def alarms_delivered(self) -> int:
        """Alarm events that are in the files."""
        return self._tally.alarms_delivered

    @property
    def alarms_lost(self) -> int:
        """Alarm events that could not be recorded."""
        return self._tally.alarms_lost

    @property
    def missing(self) -> dict[str, str]:
        """What is not in the files and never will be, at the end, by bed."""
        found: dict[str, str] = {}
        if unread := self._unread:
            found["record"] = f"{unread} events and pieces of signal were not recorded in {self._root}: the disk is too slow"
        for bed, files in self._beds.items():
            about = f"record, {bed}" if bed else "record, events of the worker"
            if lost := files.losses.text():
                found[about] = f"{lost} were not recorded: {files.losses.why}"
            if clipped := files.losses.clipped_text():
                found[f"{about}, clipped"] = f"{clipped} did not fit into the recording in {files.folder}"
        return found

    @property
    def _unread(self) -> int:
        """Events and waves that ran over while the disk was slow."""
        return self.subscription.lost + self.subscription.dropped - self.subscription.alarms_dropped

    async def prepare(self) -> None:
        """Claim the folder before the monitor starts; a disk that does not answer within 3 s is left to :meth:`run`.

        Raises
        ------
        SinkError
            If it cannot be made or written to, or another monitor records there.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_PREPARE_S):
                await self._thread.do(self._open)

    async def run(self) -> None:
        """Record until the bus is closed."""
        await self._thread.do(self._open)
        try:
            await self._written()
            async for event in self.subscription:
                self._batch.append(event)
                while len(self.subscription) and len(self._batch) < _BATCH:
                    self._batch.append(await self.subscription.get())
                await self._written()
            await self._thread.do(self._finish)
            self._bus.unsubscribe(self.subscription)
        finally:
            self._thread.submit(self._claim.release)

    async def _written(self) -> None:
        """Write what was taken, and tell what went wrong; after a cancellation the next call waits for it."""
        while self._writing is not None or self._batch:
            if self._writing is None:
                batch, self._batch = self._batch, []
                self._writing = self._thread.submit(partial(self._write, batch))
            troubles = await asyncio.shield(asyncio.wrap_future(self._writing))
            self._writing = None
            for trouble in troubles:
                self._bus.publish(trouble)
            self._tell_losses()

    def _tell_losses(self) -> None:
        """Tell what is lost for all beds together: a queue that ran over while the disk was slow, alarm events."""
        behind, self._behind = self._unread - self._behind, self._unread
        if behind:
            self._publish(CONDITION, f"the disk is too slow: {behind} events and pieces of signal were not recorded")
        elif self._slow:
            self._publish(CONDITION, None)
        self._slow = behind > 0
        lost, self._told = self.alarms_lost - self._told, self.alarms_lost
        if lost and not self._losing:
            self._losing = True
            self._publish("alarms-lost", f"record: {lost} alarm events could not be written to {self._root}")
        elif self._losing and not lost and not self._due_ns:
            self._losing = False
            self._publish("alarms-lost", None)

    def _publish(self, condition: str, detail: str | None) -> None:
        self._bus.publish(self._technical("", condition, detail is not None, detail or ""))

    def _technical(self, bed: str, condition: str, present: bool, detail: str) -> Technical:
        return Technical(bed=bed, time=self._clock.utc(), condition=condition, present=present, detail=detail, source="record")

    def _open(self) -> None:
        try:
            make_folder(self._root, group=self._config.group)
            self._claim.take()
            probe = self._root / f".writable-{os.getpid()}"
            probe.touch(0o600)
            probe.unlink()
            warn_of_readers(self._root, group=self._config.group)
        except OSError as error:
            raise SinkError(f"record.directory: cannot write in {self._config.directory!r}: {error.strerror}") from error

    def _write(self, batch: list[Published]) -> list[Technical]:
        now_ns = self._clock.monotonic_ns()
        by_bed: dict[str, list[Published]] = {}
        for event in batch:
            if isinstance(event, Meta | Wave):
                self._known.add(event.bed)
            if event.bed in self._known:
                by_bed.setdefault(event.bed, []).append(event)
            elif self._may_write(now_ns):
                by_bed.setdefault("", []).append(event)
            else:
                self._tally.lose([event])
        troubles: list[Technical] = []
        for bed, events in by_bed.items():
            self._files(bed).take(events)
            troubles += self._write_bed(bed, now_ns)
        return troubles

    def _write_bed(self, bed: str, now_ns: int) -> Iterable[Technical]:
        files = self._files(bed)
        if now_ns < self._due_ns.get(bed, now_ns):
            files.shed()
            return
        before = files.losses.copy()
        try:
            files.write()
        except Exception as error:  # noqa: BLE001 - the border of one bed: whatever is wrong with it, the others are recorded
            wait_s, why = 0.0, f"{type(error).__name__}: {error}"
            if isinstance(error, OSError):
                wait_s, why = self._config.retry_s, _why(error, files)
            else:
                _log.error("%s cannot be recorded", bed or "an event of the worker", exc_info=True)
            if isinstance(error, FileNotFoundError):
                files.begin_anew()
            files.losses.why = why
            files.shed()
            if bed not in self._due_ns:
                self._lost_before[bed] = before
                yield self._technical(bed, CONDITION, True, why)
            self._due_ns[bed] = now_ns + round(wait_s * 1e9)
        else:
            if self._due_ns.pop(bed, None) is not None:
                lost = files.losses.since(self._lost_before.pop(bed)).text()
                yield self._technical(bed, CONDITION, False, f"{lost} were not recorded" if lost else "all was recorded late")
        if files.clipping != self._clipping.get(bed, ()):
            self._clipping[bed] = files.clipping
            yield self._technical(bed, CLIPPED, bool(files.clipping), ", ".join(files.clipping))

    def _may_write(self, now_ns: int) -> bool:
        """Return whether one more event of a bed that is not here may be written down."""
        if not self._strangers or now_ns - self._strangers_ns > _STRANGERS_S * 1e9:
            self._strangers, self._strangers_ns = 0, now_ns
        self._strangers += 1
        if self._strangers == _STRANGERS:
            _log.warning("more than %d events of beds that are not here within the hour: no more are recorded", _STRANGERS - 1)
        return self._strangers < _STRANGERS

    def _finish(self) -> None:
        """Write what still waits in every bed; the bus is closed, so that a failure is only counted and logged."""
        for bed, files in self._beds.items():
            try:
                files.finish()
            except OSError as error:
                files.losses.why = _why(error, files)
                files.give_up()
                _log.info("the end of %s could not be recorded: %s", bed or "the worker's events", error)

    def _files(self, bed: str) -> BedFiles:
        if bed not in self._beds:
            folder = self._root.joinpath(*(_safe(part) for part in bed.split("/"))) if bed else self._root
            self._beds[bed] = BedFiles(
                folder, self._clock, self._tally, max_gap_s=self._config.max_gap_s, group=self._config.group
            )
        return self._beds[bed]


def _why(error: OSError, files: BedFiles) -> str:
    """Return what happened, and to which file."""
    return f"{error.strerror}: {error.filename or files.folder}"


def _safe(name: str) -> str:
    """A folder name: no path of its own, no surprise for a shell."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip(".") or "_"
