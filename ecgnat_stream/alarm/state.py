"""The alarm state machine of one bed: what becomes of a condition between its start and its end.

In come findings (present, gone) and a person's commands; out go ``events.Alarm``, numbered without gaps. Presence is on
(present), latched (gone, not yet acknowledged), acknowledged (present, and someone knows) or off. No end without a start; the
priority is the finding's and is never worked out again; a pause or an acknowledgement silences what was there, never what comes
after it. What a person did carries that person's name. Times of pauses and reminders are monotonic and come from the caller.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from ecgnat_stream.alarm.picture import PHYSIOLOGICAL, Finding
from ecgnat_stream.codes import CONDITION_CODES, URGENCY, Codes
from ecgnat_stream.events import Alarm, Inactivation, Phase, Presence

__all__ = ["AlarmMachine", "Stamp"]


class Stamp(msgspec.Struct, frozen=True):
    """When something happens: wall time, seconds of stream, monotonic ns."""

    time: datetime
    at_s: float | None
    now_ns: int


@dataclass(slots=True)
class _Active:
    """One alarm that has started and not ended."""

    finding: Finding
    alarm_id: str
    present: bool = True
    presence: Presence = "on"
    inactivation: Inactivation = "none"
    paused_until: datetime | None = None
    by: str = ""
    due_ns: int | None = None
    last: Alarm | None = None

    def sound(self) -> None:
        """Take back every silence."""
        self.presence, self.inactivation = ("on" if self.present else "latched"), "none"
        self.paused_until = self.due_ns = None
        self.by = ""


class AlarmMachine:
    """The alarms of one bed.

    Parameters
    ----------
    bed
        ``site/unit/bed``, or empty for the worker itself.
    run
        See :class:`~ecgnat_stream.alarm.engine.AlarmEngine`.
    reminder_s
        After how long an acknowledged condition that is still present speaks up again.
    """

    def __init__(self, bed: str, run: str, reminder_s: float) -> None:
        self.bed = bed
        self.sequence = 0
        self._run = run
        self._reminder_ns = round(reminder_s * 1e9)
        self._alarms: dict[str, _Active] = {}
        self._told: datetime | None = None

    def active(self) -> list[Alarm]:
        """Return the latest event of every alarm that has not ended, the most urgent and newest first."""
        events = [alarm.last for alarm in self._alarms.values() if alarm.last is not None]
        return sorted(events, key=lambda event: (-URGENCY[event.priority], -event.sequence))

    def present(self, condition: str) -> bool:
        """Return whether the condition is there now, acknowledged or not."""
        return condition in self._alarms and self._alarms[condition].present

    def conditions(self) -> list[str]:
        """Return the conditions of all alarms that have not ended."""
        return list(self._alarms)

    def set(self, finding: Finding, stamp: Stamp, *, another: bool = False) -> list[Alarm]:
        """Take note that a condition is present; with ``another`` somewhere else too, which no silence covers."""
        alarm = self._alarms.get(finding.condition)
        if alarm is None:
            alarm = _Active(finding, alarm_id=self._next_id())
            self._alarms[finding.condition] = alarm
            return [self._emit(alarm, "start", stamp)]
        before = alarm.finding
        rise = URGENCY[finding.priority] - URGENCY[before.priority]
        returned = not alarm.present
        if returned or rise > 0 or another:
            alarm.present = True
            alarm.sound()
        elif rise == 0 and (alarm.finding.latching or (finding.text == before.text and finding.lead == before.lead)):
            return []
        alarm.finding = finding if returned else msgspec.structs.replace(finding, onset_s=before.onset_s)
        phase: Phase = "escalate" if rise > 0 else "de-escalate" if rise < 0 else "update"
        return [self._emit(alarm, phase, stamp)]

    def clear(self, condition: str, stamp: Stamp) -> list[Alarm]:
        """Take note that a condition is gone: it ends, or stays latched until someone acknowledges it."""
        alarm = self._alarms.get(condition)
        if alarm is None or not alarm.present:
            return []
        alarm.present = False
        if alarm.finding.latching and alarm.presence == "on":
            alarm.presence = "latched"
            return [self._emit(alarm, "update", stamp)]
        return [self._finish(condition, "end", stamp)]

    def supersede(self, condition: str, stamp: Stamp) -> list[Alarm]:
        """End a condition that is present, a latching one too: another one, no less urgent, is on and says it.

        What is only latched stays so: it was another event.
        """
        return [self._finish(condition, "end", stamp)] if self.present(condition) else []

    def close(self, stamp: Stamp) -> list[Alarm]:
        """End every alarm, latched ones too: the bed is no longer monitored."""
        return [self._finish(condition, "end", stamp) for condition in self.conditions()]

    def restore(self, alarms: Iterable[Alarm], sequence: int, stamp: Stamp) -> list[Alarm]:
        """Take up what an earlier process left behind, see :meth:`AlarmEngine.restore`."""
        if self.sequence or self._alarms:
            raise ValueError(
                f"{self.bed}: earlier alarms are restored before anything else happens, not after event {self.sequence}"
            )
        last = {alarm.condition: alarm for alarm in sorted(alarms, key=lambda alarm: alarm.sequence)}
        strangers = {alarm.bed for alarm in last.values()} - {self.bed}
        if strangers:
            raise ValueError(f"{self.bed}: alarms of {', '.join(sorted(strangers))} are not this bed's")
        self.sequence = max([sequence, *(alarm.sequence for alarm in last.values())])
        events = []
        for name, alarm in last.items():
            if alarm.presence == "off":
                continue
            about = PHYSIOLOGICAL.get(name)
            latching = about is not None and about.latching
            finding = Finding(name, alarm.kind, alarm.priority, latching, alarm.text, alarm.onset_s, alarm.lead)
            self._alarms[name] = _Active(finding, alarm.alarm_id, present=False, presence="latched")
            if latching and alarm.presence in ("on", "latched"):
                events.append(self._emit(self._alarms[name], "update", stamp))
            else:
                events.append(self._finish(name, "end", stamp))
        return events

    def acknowledge(self, condition: str | None, stamp: Stamp, by: str = "") -> list[Alarm]:
        """Acknowledge what is on; end what is latched."""
        events = []
        for name, alarm in self._chosen(condition):
            if alarm.presence == "latched":
                events.append(self._finish(name, "end", stamp, by))
            elif alarm.presence == "on":
                alarm.presence = alarm.inactivation = "acknowledged"
                alarm.paused_until, alarm.due_ns, alarm.by = None, stamp.now_ns + self._reminder_ns, by
                events.append(self._emit(alarm, "update", stamp))
        return events

    def pause(
        self, condition: str | None, duration_s: float, stamp: Stamp, by: str = "", utc: datetime | None = None
    ) -> list[Alarm]:
        """Pause the sound of what is on or latched now; what comes later is not paused. ``utc`` is the host's wall time."""
        events = []
        for _, alarm in self._chosen(condition):
            if alarm.presence != "acknowledged":
                alarm.inactivation = "audio-paused"
                alarm.paused_until = (utc or stamp.time) + timedelta(seconds=duration_s)
                alarm.due_ns, alarm.by = stamp.now_ns + round(duration_s * 1e9), by
                events.append(self._emit(alarm, "update", stamp))
        return events

    def resume(self, condition: str | None, stamp: Stamp, by: str = "") -> list[Alarm]:
        """End audio pauses before their time."""
        events = []
        for _, alarm in self._chosen(condition):
            if alarm.inactivation == "audio-paused":
                alarm.sound()
                alarm.by = by
                events.append(self._emit(alarm, "update", stamp))
                alarm.by = ""
        return events

    def reset(self, condition: str | None, stamp: Stamp, by: str = "") -> list[Alarm]:
        """Drop what is latched; what is present stays."""
        chosen = self._chosen(condition)
        return [self._finish(name, "reset", stamp, by) for name, alarm in chosen if alarm.presence == "latched"]

    def tick(self, stamp: Stamp) -> list[Alarm]:
        """End pauses whose time is over and remind of what was acknowledged long ago and is still present."""
        events = []
        for alarm in self._alarms.values():
            if alarm.due_ns is not None and alarm.due_ns <= stamp.now_ns:
                alarm.sound()
                events.append(self._emit(alarm, "continue", stamp))
        return events

    def clock_set(self, step_s: float, stamp: Stamp) -> list[Alarm]:
        """Say the ends of pauses anew: the wall clock was set, and they are where they were on the monotonic one."""
        self._told = None
        events = []
        for alarm in self._alarms.values():
            if alarm.paused_until is not None:
                alarm.paused_until += timedelta(seconds=step_s)
                events.append(self._emit(alarm, "update", stamp))
        return events

    def _chosen(self, condition: str | None) -> Iterable[tuple[str, _Active]]:
        return [(name, alarm) for name, alarm in self._alarms.items() if condition in (None, name)]

    def _next_id(self) -> str:
        return f"{self.bed or 'worker'}:{self._run}:{self.sequence + 1}"

    def _finish(self, condition: str, phase: Phase, stamp: Stamp, by: str = "") -> Alarm:
        alarm = self._alarms.pop(condition)
        alarm.presence, alarm.inactivation, alarm.paused_until, alarm.by = "off", "none", None, by
        return self._emit(alarm, phase, stamp)

    def _emit(self, alarm: _Active, phase: Phase, stamp: Stamp) -> Alarm:
        event_id = self._next_id()
        self.sequence += 1
        finding = alarm.finding
        # What a late sample shows was so before what was told meanwhile by the clock; events stay in the order of time.
        self._told = stamp.time if self._told is None else max(self._told, stamp.time)
        alarm.last = Alarm(
            bed=self.bed,
            time=self._told,
            at_s=stamp.at_s,
            condition=finding.condition,
            kind=finding.kind,
            priority=finding.priority,
            phase=phase,
            presence=alarm.presence,
            text=finding.text,
            sequence=self.sequence,
            alarm_id=alarm.alarm_id,
            event_id=event_id,
            onset_s=finding.onset_s,
            inactivation=alarm.inactivation,
            paused_until=alarm.paused_until,
            by=alarm.by,
            lead=finding.lead,
            codes=CONDITION_CODES.get(finding.condition, Codes()),
        )
        return alarm.last
