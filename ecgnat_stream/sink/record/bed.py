"""The files of one bed: a WFDB record with annotations and one file of JSON lines per session.

Events wait here while the disk fails, in a bounded queue: others are dropped before alarm events, and all are counted. Samples
do not wait: what could not be written is missing in the record, and counted too (``losses``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path

from ecgnat_stream import wire
from ecgnat_stream.annotate import Annotator, Mark
from ecgnat_stream.bus import Published
from ecgnat_stream.clock import Clock
from ecgnat_stream.events import Alarm, Event, Meta, Wave
from ecgnat_stream.sink.files import Growing, make_folder, warn_of_readers
from ecgnat_stream.sink.record.growing_record import GrowingRecord
from ecgnat_stream.sink.record.losses import Losses

__all__ = ["BedFiles", "Tally"]

_WAITING = 2000
"""So many events of a bed wait for a disk that fails."""

_CLIPPED_S = 10.0
"""A signal that does not fit counts as one that does so long after its last sample beyond the range, s of signal."""


class Tally:
    """How many events are on the disk, and how many will never be.

    Parameters
    ----------
    lost
        Events and waves that were dropped.
    """

    def __init__(self) -> None:
        self.alarms_delivered = self.alarms_lost = self.lost = 0

    def lose(self, events: Iterable[Published]) -> None:
        """Count what is dropped."""
        for event in events:
            self.lost += 1
            self.alarms_lost += isinstance(event, Alarm)


class BedFiles:
    """Writes the files of one bed; every call leaves them complete.

    Parameters
    ----------
    tally
        What is counted for all beds together.

    Attributes
    ----------
    losses
        What of this bed is missing in its files.
    clipping
        Leads whose signal the recording cannot hold now.
    """

    def __init__(self, folder: Path, clock: Clock, tally: Tally, *, max_gap_s: float, group: bool) -> None:
        self.folder, self._clock, self._tally = folder, clock, tally
        self._max_gap_s, self._group = max_gap_s, group
        self._session = 0
        self._seen = False
        self._queue: deque[Published] = deque()
        self._lines: list[bytes] = []
        self._marks: list[Mark] = []
        self._alarms = 0
        self._record: GrowingRecord | None = None
        self._events: Growing | None = None
        self._annotator: Annotator | None = None
        self._dropped = 0
        self._clipped_stop = 0
        self.losses = Losses()
        self.clipping: tuple[str, ...] = ()

    def take(self, events: Iterable[Published]) -> None:
        """Queue events and waves, in order; nothing is written yet."""
        self._queue.extend(events)

    def write(self) -> None:
        """Write what waits.

        Raises
        ------
        OSError
            Events that are not on the disk wait on.
        """
        make_folder(self.folder, group=self._group)
        if not self._seen:
            self._seen = True
            warn_of_readers(self.folder, group=self._group)
        self._save()
        while self._queue:
            if self._ends_record(self._queue[0]):
                self._save()
                self._end_marks()
            event = self._queue.popleft()
            try:
                self._place(event)
            except Exception:
                self._lose([event])
                self.begin_anew()
                raise
        self._save()

    def finish(self) -> None:
        """Write what waits, and the marks that were held back.

        Raises
        ------
        OSError
            If something of it could not be written: :meth:`give_up` counts it.
        """
        if self._queue or self._lines or self._record is not None:
            self.write()
        self._end_marks()

    def _lose(self, events: Iterable[Published]) -> None:
        dropped = list(events)
        self._tally.lose(dropped)
        self.losses.lose(dropped)

    def begin_anew(self) -> None:
        """Go on in new files: the ones before are gone, or nobody knows what is in them."""
        if self._record is not None:
            self.losses.lose_signal(self._record.unsaved, self._record.fs)
        self._record = self._events = None
        self._dropped = 0
        self.losses.marks += len(self._marks)
        self._marks.clear()

    def shed(self, most: int = _WAITING) -> None:
        """Drop what may not wait: waves, then the oldest events beyond the bound, alarm events last."""
        self._drop(lambda event: isinstance(event, Wave), 0)
        self._drop(lambda event: not isinstance(event, Alarm | Meta), most)
        self._drop(lambda event: True, most)

    def _drop(self, which: Callable[[Published], bool], most: int) -> None:
        dropped, kept, over = list[Published](), deque[Published](), len(self._queue) - most
        for event in self._queue:
            if len(dropped) < over and which(event):
                dropped.append(event)
            else:
                kept.append(event)
        self._queue = kept
        self._lose(dropped)

    def give_up(self) -> None:
        """Count everything that waits as lost."""
        self.shed(0)
        self._tally.lost += len(self._lines)
        self._tally.alarms_lost += self._alarms
        self.losses.events += len(self._lines)
        self.losses.alarms += self._alarms
        self._lines.clear()
        self._alarms = 0
        if self._record is not None:
            self.losses.lose_signal(self._record.unsaved, self._record.fs)
        if self._annotator is not None:
            self._marks += self._annotator.finish()
        self.losses.marks += len(self._marks)
        self._marks.clear()

    def _ends_record(self, event: Published) -> bool:
        if isinstance(event, Wave):
            return self._record is not None and not self._record.continues(event, self._max_gap_s)
        return isinstance(event, Meta)

    def _place(self, event: Published) -> None:
        if isinstance(event, Wave):
            self._wave(event)
        elif isinstance(event, Event):
            line = wire.encode_json(event)
            if isinstance(event, Meta):
                self._session, self.clipping = event.session, ()
                self.begin_anew()
                self._annotator = Annotator(event.fs, event.used_as)
            elif self._annotator is not None:
                self._annotator.add(event)
            self._lines.append(line)
            self._alarms += isinstance(event, Alarm)

    def _save(self) -> None:
        if self._lines:
            if self._events is None:
                self._events = Growing(self._name(self._clock.utc(), ".jsonl"), group=self._group)
            self._events.append(b"\n".join(self._lines) + b"\n")
            self._lines.clear()
            self._tally.alarms_delivered += self._alarms
            self._alarms = 0
        if self._record is not None:
            try:
                self._record.flush()
            finally:
                new, self._dropped = self._record.dropped - self._dropped, self._record.dropped
                self.losses.lose_signal(new, self._record.fs)
            if self._annotator is not None:
                self._marks += self._annotator.ready()
                self._mark()

    def _mark(self) -> None:
        if self._record is not None:
            self._record.annotate(self._marks)
        self._marks.clear()

    def _end_marks(self) -> None:
        if self._record is not None and self._annotator is not None:
            self._marks += self._annotator.finish()
            self._mark()

    def _wave(self, wave: Wave) -> None:
        if self._record is None or self._ends_record(wave):
            block = wave.block
            first = self._clock.utc(block.t_ns) - timedelta(seconds=(block.samples.shape[1] - 1) / (wave.fs * wave.pace))
            self._record = GrowingRecord(self._name(first, ".hea"), wave, first, group=self._group)
            self._dropped = 0
            if self._annotator is not None:
                self._annotator.begin(block.start)
        clipped = self._record.append(wave)
        if clipped.any():
            counts = {lead: int(count) for lead, count in zip(wave.leads, clipped, strict=True) if count}
            self.losses.clipped.update(counts)
            self.clipping = tuple(lead for lead in wave.leads if lead in (*self.clipping, *counts))
            self._clipped_stop = wave.block.stop
        elif self.clipping and wave.block.stop - self._clipped_stop > _CLIPPED_S * wave.fs:
            self.clipping = ()

    def _name(self, time: datetime, suffix: str) -> Path:
        """Return a name that is not taken, of characters that WFDB allows."""
        stem = f"{time:%Y%m%dT%H%M%SZ}-s{self._session}"
        number, path = 1, self.folder / f"{stem}{suffix}"
        while path.exists() or (suffix == ".hea" and path.with_suffix(".dat").exists()):
            number += 1
            path = self.folder / f"{stem}-{number}{suffix}"
        return path
