"""What is known about each bed right now, as the views show it. No textual, no I/O.

In come events in any number; kept is only the latest of each kind, and every alarm that is present. Values of a device that is
not online, of an earlier session, or older than ``stale_s`` are not shown: nothing stale ever looks live.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

from ecgnat_stream.bus import Published
from ecgnat_stream.codes import URGENCY, Priority
from ecgnat_stream.events import (
    Alarm,
    CommandResult,
    DeviceStatus,
    EngineStatus,
    Kind,
    Meta,
    Quality,
    Rhythm,
    Trace,
    Vitals,
)
from ecgnat_stream.signal import LEADS, MONITORED_FIRST
from ecgnat_stream.sink.dashboard.sweep import TraceBuffer

__all__ = ["BedState", "Board"]

_PRESENCE = {"on": 0, "latched": 1, "acknowledged": 2, "off": 3}
_WITHOUT_RATE = ("ventricular-fibrillation", "asystole")
"""While one of these is present a heart rate means nothing."""


class BedState:
    """The latest of one bed."""

    def __init__(self, name: str, stale_s: float) -> None:
        self.name = name
        self.trace = TraceBuffer()
        self.meta: Meta | None = None
        self.status: DeviceStatus | None = None
        self.result: CommandResult | None = None
        self.over = False
        self._alarms: dict[str, Alarm] = {}
        self._values: dict[type, tuple[Published, int]] = {}
        self._stale_ns = round(stale_s * 1e9)

    def apply(self, event: Published, now_ns: int) -> None:
        """Take one event; ``now_ns`` is the monotonic time of its arrival."""
        match event:
            case Trace():
                self.trace.append(event.at_s, event.samples)
            case Vitals() | Rhythm() | Quality():
                self._values[type(event)] = (event, now_ns)
            case Meta():
                if self.meta is not None and self.meta.session != event.session:
                    self._values.clear()
                self.meta = event
            case DeviceStatus():
                if not event.online or (self.status is not None and self.status.session != event.session):
                    self._values.clear()
                self.status = event
            case Alarm() if event.presence == "off" and not (self.over and event.alarm_id in self._alarms):
                self._alarms.pop(event.alarm_id, None)
            case Alarm():
                self._alarms[event.alarm_id] = event
            case CommandResult():
                self.result = event
            case _:
                pass

    def end(self, over: bool) -> None:
        """Say that the recording is over: alarms that end with it stay on display; or that the bed is back, and they are gone."""
        self.over = over
        if not over:
            self._alarms = {name: alarm for name, alarm in self._alarms.items() if alarm.presence != "off"}

    def without_rate(self) -> Alarm | None:
        """Return the alarm that says that the heart does not beat as a heart rate would have it, if there is one."""
        there = (a for a in self.alarms("physiological") if a.presence in ("on", "acknowledged"))
        return next((alarm for alarm in there if alarm.condition in _WITHOUT_RATE), None)

    @property
    def online(self) -> bool:
        """True while the device delivers."""
        return self.status is not None and self.status.online

    def _fresh(self, kind: type, now_ns: int) -> Published | None:
        value, at_ns = self._values.get(kind, (None, 0))
        return value if value is not None and self.online and now_ns - at_ns <= self._stale_ns else None

    def vitals(self, now_ns: int) -> Vitals | None:
        """Return the heart rate event that may be shown."""
        value = self._fresh(Vitals, now_ns)
        return value if isinstance(value, Vitals) else None

    def rhythm(self, now_ns: int) -> Rhythm | None:
        """Return the rhythm that may be shown."""
        value = self._fresh(Rhythm, now_ns)
        return value if isinstance(value, Rhythm) else None

    def quality(self, now_ns: int) -> Quality | None:
        """Return the signal quality that may be shown."""
        value = self._fresh(Quality, now_ns)
        return value if isinstance(value, Quality) else None

    def alarms(self, kind: Kind | None = None) -> list[Alarm]:
        """Return the alarms that are present, the most urgent first, then by age."""
        return by_urgency(alarm for alarm in self._alarms.values() if kind is None or alarm.kind == kind)

    def paused_until(self, now: datetime) -> datetime | None:
        """Return the end of the pause that is running, if one is."""
        ends = [a.paused_until for a in self._alarms.values() if a.paused_until is not None and a.paused_until > now]
        return max(ends, default=None)

    def leads(self) -> tuple[str, ...]:
        """Return the leads that there is something to show of, in the order of :data:`signal.MONITORED_FIRST`."""
        if self.meta is not None:
            there = {lead for lead in self.meta.used_as if lead}
            limb = len(there & set(LEADS[:6])) >= 2
            there |= {lead for lead in LEADS[:6] if limb and self.trace.has(LEADS.index(lead))}
        else:
            there = {lead for i, lead in enumerate(LEADS) if self.trace.has(i)}
        return tuple(lead for lead in MONITORED_FIRST if lead in there)


class Board:
    """Every bed's state, and the engine's. Events of no bed belong to all: their alarms are in :attr:`system`."""

    def __init__(self, stale_s: float) -> None:
        self._stale_s = stale_s
        self.beds: dict[str, BedState] = {}
        self.system = BedState("", stale_s)
        self.engine: EngineStatus | None = None
        self.over = False

    def add(self, name: str) -> BedState:
        """Return the state of a bed, a new one if it was not known."""
        if name not in self.beds:
            self.beds[name] = BedState(name, self._stale_s)
            self.beds = dict(sorted(self.beds.items(), key=lambda item: _natural(item[0])))
        return self.beds[name]

    def apply(self, event: Published, now_ns: int) -> None:
        """Take one event from the bus."""
        if isinstance(event, EngineStatus):
            self.engine = event
        elif event.bed:
            self.add(event.bed).apply(event, now_ns)
        else:
            self.system.apply(event, now_ns)

    def technical(self, bed: BedState) -> list[Alarm]:
        """Return the technical alarms of a bed and those of the engine; what both say alike is shown once, as the bed's."""
        alarms = bed.alarms("technical")
        said = {(alarm.condition, alarm.text) for alarm in alarms}
        return by_urgency(alarms + [alarm for alarm in self.system.alarms() if (alarm.condition, alarm.text) not in said])

    def audible(self, now: datetime) -> Priority | None:
        """Return the highest priority that may be heard: present, neither acknowledged nor silenced."""
        waiting = (
            alarm.priority
            for bed in (*self.beds.values(), self.system)
            for alarm in bed.alarms()
            if alarm.presence in ("on", "latched") and not _silenced(alarm, now)
        )
        return max(waiting, key=URGENCY.__getitem__, default=None)

    def high(self) -> Alarm | None:
        """Return an alarm of high priority that has not ended, acknowledged or not, if there is one."""
        alarms = (alarm for bed in (*self.beds.values(), self.system) for alarm in bed.alarms())
        return next((alarm for alarm in alarms if alarm.priority == "high" and alarm.presence != "off"), None)


def by_urgency(alarms: Iterable[Alarm]) -> list[Alarm]:
    """Sort alarms by priority, then by presence (on, latched, acknowledged), the heart's first, then by age.

    Where there is room for one alarm only, no fault of the equipment stands before a heart that is as much in danger.
    """

    def place(alarm: Alarm) -> tuple[int, int, bool, float, str]:
        technical = alarm.kind == "technical"
        return -URGENCY[alarm.priority], _PRESENCE[alarm.presence], technical, alarm.onset_s or 0.0, alarm.alarm_id

    return sorted(alarms, key=place)


def _silenced(alarm: Alarm, now: datetime) -> bool:
    if alarm.inactivation in ("audio-paused", "alarm-paused"):
        return alarm.paused_until is None or alarm.paused_until > now
    return alarm.inactivation != "none"


def _natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """Order bed 2 before bed 10."""
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name))
