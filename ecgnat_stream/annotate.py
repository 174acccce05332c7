"""What the monitor says as WFDB annotations: beats, rhythm changes, VF on and off, unreadable stretches, notes of alarms.

Events go in as they are published; marks come out in order of place, and bytes of the MIT annotation format for them. A mark
waits until the signal stages are :data:`HOLD_S` past its place, since a rhythm is told of after it began. The files are what the
reference programs bxb and epicmp (ANSI/AAMI EC57) read; annot(5) of the WFDB Applications Guide describes the format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ecgnat_stream.events import Alarm, Beat, Event, Meta, Quality, Rhythm
from ecgnat_stream.spans import QUALITY_S, Onsets, RhythmSpan

__all__ = ["END", "HOLD_S", "RHYTHM_NOTES", "Annotator", "Mark", "encode", "marks_of"]

HOLD_S = 20.0
"""Longer than any label is dated back (evidence span, late network), so that marks leave in order."""

END = b"\0\0"
"""The word that ends an annotation file."""

RHYTHM_NOTES = {
    "SINUS": "(N",
    "STACH": "(N",
    "SBRAD": "(SBR",
    "AF": "(AFIB",
    "SVT": "(SVTA",
    "VT": "(VT",
    "VF": "(VF",
    "ASYSTOLE": "(ASYS",
    "PACED": "(P",
    "NOISE": "(NOISE",
    "UNKNOWN": "(U",
}
"""Rhythm label to rhythm note; "(U" is ours: no decision, the rhythm before it has ended."""

CODES = {"N": 1, "V": 5, "F": 6, "S": 9, "Q": 13, "~": 14, '"': 22, "+": 28, "[": 32, "]": 33}
"""Annotation codes of the WFDB library (ecgcodes.h)."""

_ORDER = {symbol: i for i, symbol in enumerate(("N", "S", "V", "F", "Q", "]", "~", "+", "[", '"'))}
_BEATS = "NSVFQ"

UNREADABLE = -1
"""Subtype of "~" where no signal can be used: bits 4 and 5 are set, which bxb takes for a shutdown, until the next "~"."""

_SKIP, _SUBTYPE, _NOTE = 59, 61, 63
_NOTED_LEADS = 4
_LONGEST_NOTE = 255


class Mark(NamedTuple):
    """One annotation: absolute sample at the device's rate, symbol, subtype, note."""

    sample: int
    symbol: str
    subtype: int = 0
    note: str = ""


class Annotator:
    """Makes marks of one stream's events.

    Parameters
    ----------
    fs
        The device's rate in Hz.
    leads
        The standard lead that each of its signals is taken for.
    """

    def __init__(self, fs: float, leads: Sequence[str | None] = ()) -> None:
        self._fs, self._leads = fs, tuple(leads)[:_NOTED_LEADS]
        self._waiting: list[Mark] = []
        self._quality = 0
        self._label, self._onsets = "", Onsets()
        self._last, self._reached_s = -1, 0.0
        self._note = ""
        self._unreadable = False
        self._held: list[Mark] = []

    def begin(self, sample: int) -> None:
        """Begin a new file at this sample: what was said before it is left out, what still holds is said again."""
        self._waiting = [mark for mark in self._waiting if mark.sample >= sample]
        self._held = []
        self._last = sample - 1
        if self._unreadable:
            self._waiting.append(Mark(sample, "~", UNREADABLE))
        if self._note:
            self._waiting.append(Mark(sample, "+", 0, self._note))
        self._note, self._unreadable = "", False

    def add(self, event: Event) -> None:
        """Take an event; those that say nothing that is marked are passed over."""
        match event:
            case Beat():
                if event.sample > self._last:
                    self._waiting.append(Mark(event.sample, event.label))
            case Rhythm():
                self.hold(event.label, self._onsets.start_of(event))
            case Quality(at_s=float(at_s), reason=reason) if reason != "ended":
                self._reached_s = max(self._reached_s, at_s)
                self._signal(event, self._sample(at_s - QUALITY_S))
            case Alarm(at_s=float(at_s), phase="start" | "end" | "reset"):
                place = f" {event.lead}" if event.lead else ""
                note = f"alarm {event.phase}: {event.condition}{place} ({event.priority})"
                self._waiting.append(Mark(self._sample(at_s), '"', 0, note))

    def ready(self) -> list[Mark]:
        """Return the marks that nothing can come before any more, in order; places rise strictly."""
        return self._release(self._sample(self._reached_s - HOLD_S))

    def finish(self) -> list[Mark]:
        """Return all that wait: nothing more will come."""
        return self._release(max((mark.sample for mark in self._waiting), default=0) + 1)

    def _release(self, until: int) -> list[Mark]:
        now = sorted((m for m in self._waiting if m.sample < until), key=lambda mark: (mark.sample, _ORDER[mark.symbol]))
        self._waiting = [mark for mark in self._waiting if mark.sample >= until]
        marks: list[Mark] = []
        for mark in now:
            marks += self._emit(mark)
        return marks

    def _sample(self, at_s: float) -> int:
        return max(0, round(at_s * self._fs))

    def hold(self, label: str, start_s: float) -> None:
        """Note that a rhythm holds from here on; it takes back what was said of the time after."""
        note = RHYTHM_NOTES.get(label, RHYTHM_NOTES["UNKNOWN"])
        if note == self._label:
            return
        self._label = note
        sample = self._sample(start_s)
        self._waiting = [mark for mark in self._waiting if mark.symbol != "+" or mark.sample < sample]
        self._waiting.append(Mark(sample, "+", 0, note))

    def _signal(self, event: Quality, sample: int) -> None:
        quality = UNREADABLE
        if event.usable:
            states = [event.leads.get(lead or "") for lead in self._leads]
            quality = sum(1 << i for i, lead in enumerate(states) if lead is not None and lead.state != "good")
        if quality != self._quality:
            self._quality = quality
            self._waiting.append(Mark(sample, "~", quality))

    def _emit(self, mark: Mark) -> list[Mark]:
        """Return a mark with what belongs to it. While the signal is unreadable only its end is marked, as bxb expects it."""
        if mark.symbol == "~":
            self._unreadable = mark.subtype == UNREADABLE
            held, self._held = ([], self._held) if self._unreadable else (self._held, [])
            return [self._place(mark), *(one for late in held for one in self._emit(late))]
        if self._unreadable:
            if mark.symbol not in _BEATS:
                self._held.append(mark)
            return []
        if mark.symbol != "+":
            return [self._place(mark)]
        if mark.note == self._note:
            return []
        was, self._note = self._note, mark.note
        around = [Mark(mark.sample, "]")] if was == RHYTHM_NOTES["VF"] else []
        around.append(mark)
        if mark.note == RHYTHM_NOTES["VF"]:
            around.append(Mark(mark.sample, "["))
        return [self._place(one) for one in around]

    def _place(self, mark: Mark) -> Mark:
        """Two annotations at one sample are not in canonical order: the lesser one moves on by a sample."""
        self._last = max(mark.sample, self._last + 1)
        return mark._replace(sample=self._last)


def marks_of(events: Iterable[Event], fs: float, rhythm: Sequence[RhythmSpan] | None = None) -> list[Mark]:
    """Return the marks of a whole stream's events, in order.

    Parameters
    ----------
    rhythm
        To be marked in place of what the events say of it.
    """
    annotator: Annotator | None = None
    for event in events:
        if isinstance(event, Meta) and annotator is None:
            annotator = Annotator(fs, event.used_as)
        annotator = annotator or Annotator(fs)
        if rhythm is None or not isinstance(event, Rhythm):
            annotator.add(event)
    annotator = annotator or Annotator(fs)
    for span in rhythm or ():
        annotator.hold(span.label, span.start_s)
    return annotator.finish()


def encode(marks: Iterable[Mark], after: int = 0) -> bytes:
    """Return marks in the MIT format, without :data:`END`.

    Parameters
    ----------
    after
        Sample of the mark before the first one; 0 at the beginning of a file.
    """
    words = bytearray()
    for mark in marks:
        interval = mark.sample - after
        if not 0 <= interval < 1024:
            words += struct.pack("<HHH", _SKIP << 10, interval >> 16 & 0xFFFF, interval & 0xFFFF)
            interval = 0
        words += struct.pack("<H", CODES[mark.symbol] << 10 | interval)
        if mark.subtype:
            words += struct.pack("<H", _SUBTYPE << 10 | mark.subtype & 0x3FF)
        if mark.note:
            note = mark.note.encode("ascii", "replace")[:_LONGEST_NOTE]
            words += struct.pack("<H", _NOTE << 10 | len(note)) + note + b"\0" * (len(note) % 2)
        after = mark.sample
    return bytes(words)
