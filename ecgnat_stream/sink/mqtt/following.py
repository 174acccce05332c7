"""One bed as its receiver follows it: what is new, what is stale, what is missing, and whether its monitor is still there.

In come a bed's messages, out go answers to "is this to be given to the user" and the receiver's own technical conditions. Nothing
here waits or reads a clock.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime

from ecgnat_stream import wire
from ecgnat_stream.events import Alarm, Technical

__all__ = ["Followed"]

_SEEN = 4096
"""Events of a bed that are remembered, to know a second copy."""

_MISSING = 100
"""Missing numbers that are waited for."""

_TOLD_S = 60.0
"""What has not come is told for so long."""


class Followed:
    """A bed, or a worker (``site/engine/worker``), as its messages show it.

    Parameters
    ----------
    place
        The first three levels of its topics after ``ecg/v1``.
    now_ns
        Monotonic time at which it is followed from.
    lost_s
        Silence after which its monitor counts as lost, s; heartbeats shorten it to two and a half of theirs.
    gap_s
        How long a missing event is waited for, s.
    """

    def __init__(self, place: str, now_ns: int, *, lost_s: float, gap_s: float) -> None:
        self.place = place
        self.status: wire.BedStatus | None = None
        self._lost_s, self._gap_s = lost_s, gap_s
        self._silent_s = lost_s
        self._heard_ns = now_ns
        self._gone = ""
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._newest: dict[str, Alarm] = {}
        self._last: Alarm | None = None
        self._live = False
        self._missing: dict[int, int] = {}
        self._owed: tuple[str, int] | None = None
        self._present: dict[str, str] = {}

    def alarm(self, event: Alarm, now_ns: int, *, retained: bool) -> bool:
        """Take an alarm event; return whether it is news.

        It is none if it came before, if a later event of the same condition has come already, or if it is the stored end of an
        alarm whose beginning was never seen.
        """
        if not retained:
            self.heard(now_ns)
        if event.event_id in self._seen:
            return False
        self._seen[event.event_id] = None
        if len(self._seen) > _SEEN:
            self._seen.popitem(last=False)
        self._count(event, now_ns, retained=retained)
        before = self._newest.get(event.condition)
        if before is not None and _precedes(event, before):
            return False
        self._newest[event.condition] = event
        return not (retained and before is None and event.presence == "off")

    def _count(self, event: Alarm, now_ns: int, *, retained: bool) -> None:
        """Note which numbers between this event and the one before are missing; stored states alone show none."""
        last, live = self._last, self._live
        self._live = live or not retained
        self._missing.pop(event.sequence, None)
        if last is None or not _precedes(event, last):
            self._last = event
            if last is not None and event.sequence < last.sequence:
                self._missing.clear()
            elif last is not None and live:
                due_ns = now_ns + round(self._gap_s * 1e9)
                first = max(last.sequence + 1, event.sequence - _MISSING)
                self._missing |= dict.fromkeys(range(first, event.sequence), due_ns)
                while len(self._missing) > _MISSING:
                    del self._missing[next(iter(self._missing))]

    def bed_status(self, status: wire.BedStatus) -> bool:
        """Take a status; return whether it is news and not stale: of an older session, or another worker's last will."""
        before = self.status
        if before is not None:
            if status.session < before.session or (before.online and not status.online and status.worker != before.worker):
                return False
            if (status.online, status.state, status.session, status.worker, status.detail) == (
                *(before.online, before.state, before.session, before.worker, before.detail),
            ):
                return False
        self.status = status
        return True

    def heartbeat(self, beat: wire.Heartbeat, now_ns: int) -> None:
        """Take a heartbeat; it says when the next one is due, and which event should have come."""
        self.heard(now_ns)
        self._silent_s = 2.5 * beat.every_s
        if not beat.newest or beat.newest in self._seen:
            self._owed = None
        elif self._owed is None or self._owed[0] != beat.newest:
            self._owed = (beat.newest, now_ns + round(self._gap_s * 1e9))

    def heard(self, now_ns: int) -> None:
        """Take note that the monitor lives."""
        self._heard_ns, self._gone = now_ns, ""

    def gone(self, why: str) -> None:
        """Take note that the monitor has gone, by its own word or its last will."""
        self._gone = why

    def tick(self, now_ns: int, time: datetime) -> list[Technical]:
        """Return which conditions begin and end."""
        over = self.status is not None and self.status.state == "ended"
        silent = now_ns - self._heard_ns >= self._silent_s * 1e9
        lost = self._gone or (f"nothing heard for {self._silent_s:g} s" if silent else "")
        return [
            *self._turn("monitor-lost", "" if over else lost, time),
            *self._turn("alarms-lost", self._lost(now_ns), time),
        ]

    def _lost(self, now_ns: int) -> str:
        if self._owed is not None and self._owed[0] in self._seen:
            self._owed = None
        for number in [number for number, due_ns in self._missing.items() if now_ns - due_ns >= _TOLD_S * 1e9]:
            del self._missing[number]
        late = sorted(number for number, due_ns in self._missing.items() if due_ns <= now_ns)
        if late:
            return f"{len(late)} alarm events have not arrived, the first is number {late[0]}"
        if self._owed is not None and self._owed[1] <= now_ns:
            return "the newest alarm event has not arrived"
        return ""

    def _turn(self, condition: str, detail: str, time: datetime) -> list[Technical]:
        if bool(detail) == (condition in self._present):
            return []
        if detail:
            self._present[condition] = detail
        else:
            del self._present[condition]
        return [Technical(bed=self.place, time=time, condition=condition, present=bool(detail), detail=detail)]


def _precedes(event: Alarm, other: Alarm) -> bool:
    """Return whether an event came before another one; a smaller number that comes later is that of another run."""
    if event.sequence >= other.sequence:
        return False
    same_run = event.event_id.rpartition(":")[0] == other.event_id.rpartition(":")[0]
    return same_run or event.time <= other.time
