"""How far the analysis of many recordings is: a bar with the time left on a terminal, else a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self, TextIO

from ecgnat_stream.batch.choose import RecordingFile
from ecgnat_stream.words import counted

__all__ = ["Progress", "Searching"]

_EVERY_S = 10.0
"""Time between two lines where there is no terminal, s."""

_LEAST_BYTES = 10_000
"""What a recording costs beside its samples, as if it were so many bytes more."""

_SEARCH_S = 2.0
"""A search that is over sooner says nothing, s."""


class Searching:
    """Tells that folders are being searched: call it for every file that was looked at.

    Once after :data:`_SEARCH_S`; on a terminal every :data:`_EVERY_S` from then on.
    """

    def __init__(self, stream: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._now = stream, now
        self._due: float | None = now() + _SEARCH_S
        self._count = 0

    def __call__(self) -> None:
        """Take one more file."""
        self._count += 1
        if self._due is None or self._now() < self._due:
            return
        self._due = self._now() + _EVERY_S if self._stream.isatty() else None
        files = counted(self._count, "file")
        print(f"ecgnat: searching for recordings: {files} looked at so far", file=self._stream, flush=True)


class Progress:
    """Tells how far it is; recordings count by their bytes. Use as a context manager."""

    def __init__(self, recordings: Sequence[RecordingFile], stream: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._now = stream, now
        self._total = sum(_weight(recording) for recording in recordings)
        self._number = len(recordings)
        self._finished: set[str] = set()
        self._running: dict[str, float] = {}
        self._began = self._told = now()
        self._stack = ExitStack()
        self._bar: Callable[[float], None] | None = None
        self._print: Callable[[str], None] = self._line

    def __enter__(self) -> Self:
        """Show the bar on a terminal."""
        if self._number and self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bars

            columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
            bars = self._stack.enter_context(Bars(*columns, console=Console(file=self._stream), transient=True))
            task = bars.add_task(self._text(), total=self._total)
            self._print = lambda text: bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
            self._bar = lambda done: bars.update(task, completed=done, description=self._text())
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Take the bar away."""
        self._bar, self._print = None, self._line
        self._stack.close()

    def tell(self, batch: Sequence[RecordingFile], share: float) -> None:
        """Take how much of a batch is done, 0 to 1."""
        self._running |= {r.path: share * _weight(r) for r in batch if r.path not in self._finished}
        self._show()

    def finish(self, recording: RecordingFile) -> None:
        """Take that a recording is done."""
        self._finished.add(recording.path)
        self._running[recording.path] = _weight(recording)
        self._show()

    def _show(self) -> None:
        done = sum(self._running.values())
        if self._bar is not None:
            self._bar(done)
        elif self._now() - self._told >= _EVERY_S:
            self._told = self._now()
            left_s = (self._told - self._began) * (self._total / max(done, 1.0) - 1.0)
            self.say(f"ecgnat: {self._text()}, about {_length(left_s)} left")

    def say(self, text: str) -> None:
        """Print a line, above the bar."""
        self._print(text)

    def _line(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def _text(self) -> str:
        return f"{len(self._finished)} of {self._number} recordings"


def _weight(recording: RecordingFile) -> float:
    return float(recording.size + _LEAST_BYTES)


def _length(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
