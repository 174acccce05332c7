"""What of a bed is missing in its files, and why: told when the trouble is over, and at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ecgnat_stream.bus import Published
from ecgnat_stream.events import Alarm, Wave

__all__ = ["Losses"]


class Losses:
    """Counts what will never be in the files of one bed.

    Attributes
    ----------
    samples, signal_s
        Samples of each lead, and how long they last, s.
    events, alarms
        Events, and those of them that are alarm events.
    marks
        Annotations.
    clipped
        Samples that the recording cannot hold, by lead: they stand at the end of its range.
    why
        What happened last, and to which file.
    """

    def __init__(self) -> None:
        self.samples = self.events = self.alarms = self.marks = 0
        self.signal_s = 0.0
        self.clipped: Counter[str] = Counter()
        self.why = ""

    def lose(self, published: Iterable[Published]) -> None:
        """Count what is dropped."""
        for one in published:
            if isinstance(one, Wave):
                self.lose_signal(one.block.samples.shape[1], one.fs)
            else:
                self.events += 1
                self.alarms += isinstance(one, Alarm)

    def lose_signal(self, samples: int, fs: float) -> None:
        """Count samples of each lead."""
        self.samples += samples
        self.signal_s += samples / fs

    def since(self, before: Losses) -> Losses:
        """Return what was lost after ``before`` was."""
        new = Losses()
        new.samples, new.signal_s = self.samples - before.samples, self.signal_s - before.signal_s
        new.events, new.alarms = self.events - before.events, self.alarms - before.alarms
        new.marks = self.marks - before.marks
        return new

    def copy(self) -> Losses:
        """Return a copy that stays as it is."""
        return self.since(Losses())

    def text(self) -> str:
        """Return ``210.0 s of signal (75600 samples) and 12 events (3 of alarms)``; empty for nothing."""
        parts = []
        if self.samples:
            parts.append(f"{self.signal_s:.1f} s of signal ({self.samples} samples)")
        if self.events:
            parts.append(f"{self.events} events ({self.alarms} of alarms)")
        if self.marks:
            parts.append(f"{self.marks} annotations")
        return " and ".join(parts)

    def clipped_text(self) -> str:
        """Return ``12 samples of II, V1``; empty for nothing."""
        return f"{self.clipped.total()} samples of {', '.join(self.clipped)}" if self.clipped else ""
