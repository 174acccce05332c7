"""The recorder: one folder per bed, one WFDB record with annotations and one file of JSON lines per session.

In come waves and events, none is dropped; they are written in batches in a thread. Samples are appended first and the header is
replaced after them, so that at any moment, also after a power cut of the process, the header describes samples that are there.
What the stream lost is written as missing. Beats, rhythm and alarms stand beside the samples as WFDB annotations (``.ecg``),
some seconds behind them. A disk that is full is a technical condition; recording goes on when it can.
"""

from __future__ import annotations

import asyncio
import os
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream import wire
from ecgnat_stream.annotate import END, Annotator, Mark, encode
from ecgnat_stream.bus import Bus, Published
from ecgnat_stream.clock import Clock
from ecgnat_stream.errors import SinkError
from ecgnat_stream.events import Event, Meta, Technical, Wave
from ecgnat_stream.settings import Settings, Within

__all__ = ["RecordConfig", "RecordSink"]

CONDITION = "recorder-failed"
_BATCH = 2000
FINEST_UV = 10_000 / 32767
"""Finest step of a recording in microvolts: int16 then spans 10 mV either way. Finer devices are rounded to it."""


class RecordConfig(Settings, frozen=True, kw_only=True):
    """The recorder.

    Parameters
    ----------
    directory
        Where to record: ``directory/site/unit/bed/``.
    max_gap_s
        A longer gap begins a new record instead of being written as missing samples, s.
    retry_s
        Wait after a failure before recording is tried again, s.
    """

    section: ClassVar[str] = "record"

    directory: str
    max_gap_s: Annotated[float, Within(0.1, 86_400, "a gap is written as missing samples, which take room")] = 600.0
    retry_s: Annotated[float, Within(0.01, 60, "nothing is recorded until it is tried again")] = 5.0


class RecordSink:
    """Records every bed.

    Raises
    ------
    SinkError
        If the directory cannot be made or written to.
    """

    def __init__(self, config: RecordConfig, bus: Bus, clock: Clock) -> None:
        self._config, self._bus, self._clock = config, bus, clock
        self._root = Path(config.directory)
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            probe = self._root / f".writable-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise SinkError(f"record.directory: cannot write in {config.directory!r}: {error.strerror}") from error
        self._subscription = bus.subscribe("record", Event, Wave)
        self._beds: dict[str, _BedRecorder] = {}
        self._failed: dict[str, int] = {}
        self.lost = 0

    async def run(self) -> None:
        """Record until the bus is closed."""
        try:
            async for event in self._subscription:
                batch = [event]
                while len(self._subscription) and len(batch) < _BATCH:
                    batch.append(await self._subscription.get())
                await self._write(batch)
            await asyncio.to_thread(self._finish)
        finally:
            self._bus.unsubscribe(self._subscription)

    async def _write(self, batch: list[Published]) -> None:
        """Write a batch; a cancellation waits for the thread, which would otherwise write on behind our back."""
        writing = asyncio.create_task(asyncio.to_thread(self._write_batch, batch))
        try:
            troubles = await asyncio.shield(writing)
        except asyncio.CancelledError:
            await writing
            raise
        for trouble in troubles:
            self._bus.publish(trouble)

    def _write_batch(self, batch: list[Published]) -> list[Technical]:
        by_bed: dict[str, list[Published]] = {}
        for event in batch:
            by_bed.setdefault(event.bed, []).append(event)
        troubles = []
        for bed, events in by_bed.items():
            now_ns = self._clock.monotonic_ns()
            if bed in self._failed and now_ns < self._failed[bed]:
                self.lost += len(events)
                continue
            try:
                self._recorder(bed).write(events)
            except OSError as error:
                self.lost += len(events)
                if bed not in self._failed:
                    troubles.append(self._trouble(bed, f"{error.strerror}: {error.filename or self._root}"))
                self._failed[bed] = now_ns + round(self._config.retry_s * 1e9)
                self._recorder(bed).give_up()
            else:
                if self._failed.pop(bed, None) is not None:
                    troubles.append(self._trouble(bed, None))
        return troubles

    def _finish(self) -> None:
        """Write what still waits in every bed; the bus is closed, so that a failure is only counted."""
        for recorder in self._beds.values():
            try:
                recorder.finish()
            except OSError:
                self.lost += 1

    def _recorder(self, bed: str) -> _BedRecorder:
        if bed not in self._beds:
            folder = self._root.joinpath(*(_safe(part) for part in bed.split("/"))) if bed else self._root
            self._beds[bed] = _BedRecorder(folder, self._clock, self._config.max_gap_s)
        return self._beds[bed]

    def _trouble(self, bed: str, detail: str | None) -> Technical:
        return Technical(bed=bed, time=self._clock.utc(), condition=CONDITION, present=detail is not None, detail=detail or "")


class _BedRecorder:
    """Writes the files of one bed; every call leaves them complete."""

    def __init__(self, folder: Path, clock: Clock, max_gap_s: float) -> None:
        self._folder, self._clock, self._max_gap_s = folder, clock, max_gap_s
        self._session = 0
        self._record: _Record | None = None
        self._events: Path | None = None
        self._annotator: Annotator | None = None

    def write(self, events: list[Published]) -> None:
        """Append events and waves in order."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lines: list[bytes] = []
        for event in events:
            if isinstance(event, Wave):
                self._wave(event)
            elif isinstance(event, Event):
                if isinstance(event, Meta):
                    self._append(lines)
                    lines = []
                    self._begin(event)
                elif self._annotator is not None:
                    self._annotator.add(event)
                lines.append(wire.encode_json(event))
        self._append(lines)
        if self._record is not None:
            self._record.flush()
            if self._annotator is not None:
                self._record.annotate(self._annotator.ready())

    def finish(self) -> None:
        """Write the samples and marks that wait."""
        if self._record is not None:
            self._record.flush()
            if self._annotator is not None:
                self._record.annotate(self._annotator.finish())

    def give_up(self) -> None:
        """Begin new files after a failure: the old ones may end in the middle of a sample."""
        self._record = self._events = None

    def _begin(self, meta: Meta) -> None:
        self.finish()
        self._session = meta.session
        self._record = self._events = None
        self._annotator = Annotator(meta.fs, meta.used_as)

    def _append(self, lines: list[bytes]) -> None:
        if lines:
            if self._events is None:
                self._events = self._name(self._clock.utc(), ".jsonl")
            with self._events.open("ab") as file:
                file.write(b"\n".join(lines) + b"\n")

    def _wave(self, wave: Wave) -> None:
        if self._record is None or not self._record.continues(wave, self._max_gap_s):
            self.finish()
            block = wave.block
            first = self._clock.utc(block.t_ns) - timedelta(seconds=(block.samples.shape[1] - 1) / wave.fs)
            self._record = _Record(self._name(first, ".hea"), wave, first)
            if self._annotator is not None:
                self._annotator.begin(block.start)
        self._record.append(wave)

    def _name(self, time: datetime, suffix: str) -> Path:
        """Return a name that is not taken, of characters that WFDB allows."""
        stem = f"{time:%Y%m%dT%H%M%SZ}-s{self._session}"
        number, path = 1, self._folder / f"{stem}{suffix}"
        while path.exists():
            number += 1
            path = self._folder / f"{stem}-{number}{suffix}"
        return path


class _Record:
    """A WFDB record of format 16 that grows (header(5) and signal(5) of the WFDB Applications Guide)."""

    def __init__(self, header: Path, wave: Wave, first: datetime) -> None:
        self._header, self._samples = header, header.with_suffix(".dat")
        self._fs, self._leads, self._first = wave.fs, wave.leads, first
        self._uv_per_lsb = wave.uv_per_lsb
        self._step = max(wave.uv_per_lsb, FINEST_UV)
        self._next = wave.block.start
        self._start = wave.block.start
        self._annotations, self._marked = header.with_suffix(".ecg"), 0
        self._initial: list[int] = []
        self._checksums = np.zeros(len(wave.leads), np.int64)
        self._pending: list[NDArray[np.int16]] = []

    def continues(self, wave: Wave, max_gap_s: float) -> bool:
        """Return whether a wave belongs into this record."""
        same = (wave.fs, wave.leads, wave.uv_per_lsb) == (self._fs, self._leads, self._uv_per_lsb)
        return same and 0 <= wave.block.start - self._next <= max_gap_s * self._fs

    def append(self, wave: Wave) -> None:
        """Take a wave, with what is missing before it."""
        gap = wave.block.start - self._next
        if gap:
            self._pending.append(np.full((gap, len(self._leads)), wire.MISSING, np.int16))
        self._pending.append(wire.quantise(wave.block.samples, self._step).T)
        self._next = wave.block.stop

    def flush(self) -> None:
        """Append the samples, then replace the header."""
        if not self._pending:
            return
        codes = np.concatenate(self._pending)
        with self._samples.open("ab") as file:
            file.write(codes.astype("<i2").tobytes())
        self._pending.clear()
        self._initial = self._initial or [int(code) for code in codes[0]]
        self._checksums += codes.sum(axis=0, dtype=np.int64)
        draft = self._header.with_suffix(".hea.tmp")
        draft.write_text(self._text(), encoding="ascii", errors="replace")
        os.replace(draft, self._header)

    def annotate(self, marks: list[Mark]) -> None:
        """Append marks in the place of the word that ended the file, which then ends it again."""
        here = [mark._replace(sample=mark.sample - self._start) for mark in marks]
        if not here:
            return
        data = encode(here, self._marked) + END
        with self._annotations.open("r+b" if self._annotations.exists() else "wb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - len(END)))
            file.write(data)
        self._marked = here[-1].sample

    def _text(self) -> str:
        total = self._next - self._start
        lines = [
            f"{self._header.stem} {len(self._leads)} {self._fs:.10g} {total} {self._first:%H:%M:%S.%f} {self._first:%d/%m/%Y}"
        ]
        gain = 1000 / self._step
        for lead, initial, checksum in zip(self._leads, self._initial, self._checksums, strict=True):
            wrapped = (int(checksum) + 2**15) % 2**16 - 2**15
            lines.append(f"{self._samples.name} 16 {gain:.10g}(0)/mV 16 0 {initial} {wrapped} 0 {' '.join(lead.split())}")
        return "\n".join(lines) + "\n"


def _safe(name: str) -> str:
    """A folder name: no path of its own, no surprise for a shell."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip(".") or "_"
