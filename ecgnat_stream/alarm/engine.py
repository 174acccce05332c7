"""The alarm stage of one bed: joins the rules, the technical conditions and the state machine.

In come one :class:`~ecgnat_stream.alarm.picture.Observation` per frame, what other stages report, and a person's commands; out go
``events.Alarm``. Everything about the heart is decided in stream time, so a record gives the same alarms at any speed; only
pauses, reminders and the display time of momentary conditions are monotonic. Nothing is dropped, nothing waits, no clock is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from ecgnat_stream.alarm.config import AlarmConfig
from ecgnat_stream.alarm.ectopy import RECENT_S
from ecgnat_stream.alarm.history import Past
from ecgnat_stream.alarm.picture import COVERED_BY, EVENTS, PHYSIOLOGICAL, RATES, Evidence, Finding, Observation
from ecgnat_stream.alarm.rules import physiological
from ecgnat_stream.alarm.state import AlarmMachine, Stamp
from ecgnat_stream.alarm.technical import MOMENTARY_S, TECHNICAL, SignalWatch, reported
from ecgnat_stream.clock import run_id
from ecgnat_stream.events import Alarm, Command, CommandResult, Technical
from ecgnat_stream.signal import FRAME_S
from ecgnat_stream.suggest import unknown

__all__ = ["AlarmEngine"]

RATE_OFF_S = 10.0
"""A rate hovers around its limit: its conditions end later than others."""

_NEVER = float("-inf")


class AlarmEngine:
    """Alarms of one bed, or with an empty bed name those of the worker itself.

    Parameters
    ----------
    bed
        ``site/unit/bed``; empty for what concerns every bed.
    config
        Limits and delays.
    run
        Part of every identifier: what no other process start has, so that they are unique without any file; made of the time and
        of chance if left out.
    calm
        ``(1,)`` where :attr:`calm_until_s` is kept: a part of an array over beds, which are looked at all at once.
    """

    def __init__(
        self,
        bed: str,
        config: AlarmConfig | None = None,
        *,
        run: str | None = None,
        calm: NDArray[np.float64] | None = None,
    ) -> None:
        self.bed = bed
        self.config = config or AlarmConfig()
        self._machine = AlarmMachine(bed, run or run_id(datetime.now(UTC)), self.config.reminder_s)
        self._history = Past(self.config)
        self._watch = SignalWatch(self.config)
        self._at_s = _NEVER
        self._lost = False
        self._calm = np.zeros(1) if calm is None else calm
        self._calm[0] = self._open_until_s = _NEVER
        self._last_seen_s: dict[str, float] = {}
        self._covered_s: dict[str, float] = {}
        self._momentary_ns: dict[str, int] = {}
        self._reports: dict[str, dict[str, Technical]] = {}

    def active(self) -> list[Alarm]:
        """Return the latest event of every alarm that has not ended, the most urgent first: for whoever connects late."""
        return self._machine.active()

    @property
    def heart_alarms(self) -> bool:
        """Whether any alarm of the heart has not ended, a latched one included."""
        return any(name in PHYSIOLOGICAL for name in self._machine.conditions())

    @property
    def at_s(self) -> float | None:
        """Where on the stream the last observation was that was judged, s."""
        return None if self._at_s == _NEVER else self._at_s

    @property
    def calm_until_s(self) -> float:
        """Until when, s of stream, frames in which nothing happens may be passed over; minus infinity: not one.

        In such a frame no beat is found, the signal is usable and in the state of the frame before, no lead is off, the heart
        rate lies within its limits, the fibrillation score is below :data:`~ecgnat_stream.alarm.history.CALM_SCORE`.
        """
        return float(self._calm[0])

    def takes_calmly(self, rhythm: Evidence, at_s: float) -> bool:
        """Return whether :meth:`pass_over` may take an opinion of the network."""
        return self._history.takes_calmly(rhythm, at_s)

    def pass_over(self, at_s: float, scores: Iterable[float | None], rhythm: Evidence | None = None) -> None:
        """Take note of frames in which nothing happened, the last of which ends at ``at_s``: as if each had been observed.

        Parameters
        ----------
        at_s
            Before :attr:`calm_until_s`.
        scores
            The fibrillation score of each frame, or of the last :data:`~ecgnat_stream.alarm.history.SCORE_FRAMES`.
        rhythm
            The network's opinion, if :meth:`takes_calmly` says so.
        """
        self._at_s = at_s
        self._history.pass_over(scores, rhythm)
        self._watch.pass_over(at_s)
        if rhythm is not None and any(rhythm.seconds):
            self._calm[0] = min(self._open_until_s, self._history.heard_until_s)

    def observe(self, observation: Observation, time: datetime, now_ns: int) -> list[Alarm]:
        """Take the next frame's observation; one that is not later on the stream than the last is ignored.

        Parameters
        ----------
        observation
            One per frame, in order.
        time
            Wall time of the end of the frame.
        now_ns
            Monotonic time, for reminders only.
        """
        at_s = observation.at_s
        if not at_s > self._at_s:
            return []
        before_s = max(self._at_s, at_s - FRAME_S)
        self._at_s = at_s
        found = self._watch.watch(observation, before_s)
        present = frozenset(name for name in self._last_seen_s if name in PHYSIOLOGICAL)
        picture = self._history.picture(observation, before_s, present)
        found += self._watch.interrupted(observation, picture, before_s, found)
        if observation.wrong_mv is None:
            found += physiological(picture, self.config)
        if not found and not self._last_seen_s and not self._lost:
            calm = observation.usable and self._watch.calm
            self._open_until_s = self._history.calm_until_s(picture) if calm else _NEVER
            self._calm[0] = min(self._open_until_s, self._history.heard_until_s)
            return []
        self._calm[0] = _NEVER
        stamp = Stamp(time, at_s, now_ns)
        events: list[Alarm] = []
        if self._lost and (observation.usable or found):
            # Not before the heart is seen again, or something says why it is not: one alarm takes over from the other.
            self._lost = False
            events += self._machine.clear("no-data", stamp)
        return events + self._settle(found, stamp)

    def _settle(self, found: list[Finding], stamp: Stamp) -> list[Alarm]:
        """Bring the machine in line with what was found in an observation."""
        at_s = self._at_s
        events: list[Alarm] = []
        names = {finding.condition for finding in found}
        for finding in found:
            name = finding.condition
            if self._covered(name, names):
                self._covered_s[name] = at_s
            elif not self._waits(name):
                self._last_seen_s[name] = at_s
                events += self._machine.set(finding, stamp)
        for name in [name for name in self._last_seen_s if self._covered(name, names)]:
            del self._last_seen_s[name]
            self._covered_s[name] = at_s
            events += self._machine.supersede(name, stamp)
        for name in [name for name, last_s in self._last_seen_s.items() if at_s - last_s >= self._off_delay_s(name)]:
            del self._last_seen_s[name]
            events += self._machine.clear(name, stamp)
        return events

    def _covered(self, condition: str, found: set[str]) -> bool:
        """Return whether something more urgent that is present says the same.

        It covers until it is off; but asystole after fibrillation is news, and waits only while that is found.
        """
        others = COVERED_BY.get(condition, ())
        return any(other in found or (condition != "asystole" and self._machine.present(other)) for other in others)

    def _waits(self, condition: str) -> bool:
        """Return whether a condition of low priority stays away, because something more urgent has just said the same."""
        if condition not in self._covered_s or condition in self._last_seen_s or PHYSIOLOGICAL[condition].priority != "low":
            return False
        return self._at_s - self._covered_s[condition] < self.config.ectopy_off_s

    def _off_delay_s(self, condition: str) -> float:
        if condition == "asystole":
            return max(self.config.off_delay_s, self.config.asystole_s + 1.0)
        if condition == "atrial-fibrillation":
            return self.config.af_delay_s
        if condition in RATES:
            return max(self.config.off_delay_s, RATE_OFF_S)
        if condition in EVENTS:
            return self.config.event_s - RECENT_S
        if condition not in PHYSIOLOGICAL:
            return 1.0
        return self.config.ectopy_off_s if PHYSIOLOGICAL[condition].priority == "low" else self.config.off_delay_s

    def technical(self, event: Technical, now_ns: int) -> list[Alarm]:
        """Take what a stage reports; ``no-data`` is a disconnection.

        What several sources have is one alarm, which ends with the last of them; no silence covers one that joins later.

        Raises
        ------
        ValueError
            If the condition is one of the heart, which only the rules decide.
        """
        if event.condition in PHYSIOLOGICAL:
            raise ValueError(f"{event.condition} is a physiological condition: it cannot be reported as a technical one")
        if event.condition == "no-data" and event.present:
            return self.disconnect(event.time, now_ns, event.detail)
        stamp = Stamp(event.time, event.at_s, now_ns)
        if event.present and event.condition in MOMENTARY_S:
            self._momentary_ns[event.condition] = now_ns + round(MOMENTARY_S[event.condition] * 1e9)
            return self._machine.set(reported(event), stamp)
        having = self._reports.setdefault(event.condition, {})
        another = event.present and bool(having) and event.source not in having
        having.pop(event.source, None)
        if event.present:
            having[event.source] = event
        if having:
            detail = "; ".join(dict.fromkeys(report.detail for report in having.values() if report.detail))
            last = next(reversed(having.values()))
            return self._machine.set(reported(replace(last, detail=detail)), stamp, another=another)
        del self._reports[event.condition]
        self._momentary_ns.pop(event.condition, None)
        return self._machine.clear(event.condition, stamp)

    def disconnect(self, time: datetime, now_ns: int, detail: str = "") -> list[Alarm]:
        """Take note that the device is lost: ``no-data`` is on, the heart cannot be judged, latched stays latched."""
        stamp = self._stamp(time, now_ns)
        self._lost = True
        self._calm[0] = _NEVER
        report = Technical(bed=self.bed, time=time, at_s=stamp.at_s, condition="no-data", present=True, detail=detail)
        events = self._machine.set(reported(report), stamp)
        return events + self._unverified(stamp)

    def clock_set(self, step_s: float, time: datetime, now_ns: int) -> list[Alarm]:
        """Take note that the wall clock was set by ``step_s``; ``time`` is by the new one. What a pause lasts stays the same."""
        return self._machine.clock_set(step_s, self._stamp(time, now_ns))

    def begin(self, time: datetime, now_ns: int) -> list[Alarm]:
        """Begin another stream of the same bed at 0 s; what is latched stays, the event numbers run on."""
        events = self._unverified(self._stamp(time, now_ns))
        self._at_s = _NEVER
        return events

    def restore(self, alarms: Iterable[Alarm], time: datetime, now_ns: int, sequence: int = 0) -> list[Alarm]:
        """Take up the alarms of an earlier process, before anything else happens; the event numbers go on from theirs.

        What was latched stays latched. What was on could not be watched meanwhile: it becomes latched if it latches, else it
        ends, as it does when a device is lost; if it is still there it starts anew. No silence outlives the process.

        Parameters
        ----------
        alarms
            Events of this bed; of every condition only the last one counts, and it is left alone if the alarm has ended.
        sequence
            Number of the bed's last event, in case it is not among them.

        Raises
        ------
        ValueError
            If the engine has said something already, or an event is another bed's.
        """
        return self._machine.restore(alarms, sequence, self._stamp(time, now_ns))

    def close(self, time: datetime, now_ns: int) -> list[Alarm]:
        """End every alarm, latched ones too: the recording is over, or the bed is no longer monitored."""
        stamp = self._stamp(time, now_ns)
        self._unverified_state()
        self._momentary_ns.clear()
        self._lost = False
        return self._machine.close(stamp)

    def _unverified(self, stamp: Stamp) -> list[Alarm]:
        """Clear whatever the observations had raised: it cannot be seen any more."""
        events = [event for name in self._last_seen_s for event in self._machine.clear(name, stamp)]
        self._unverified_state()
        return events

    def _unverified_state(self) -> None:
        self._last_seen_s.clear()
        self._covered_s.clear()
        self._calm[0] = _NEVER
        self._history.reset()
        self._watch.reset()

    def command(
        self, command: Command, time: datetime, now_ns: int, utc: datetime | None = None
    ) -> tuple[CommandResult, list[Alarm]]:
        """Carry out a person's order, or say why not.

        Parameters
        ----------
        utc
            The host's wall time: that of the answer, and what the end of a pause counts from. ``time`` if left out; within a
            recording that is read as fast as possible they differ, and persons live by the host's.
        """
        utc = utc or time
        stamp, condition, machine = self._stamp(time, now_ns), command.condition, self._machine
        duration_s = self.config.pause_s if command.duration_s is None else command.duration_s
        events: list[Alarm] = []
        # A stage may report conditions of its own that no list has.
        known = (*PHYSIOLOGICAL, *TECHNICAL, *machine.conditions())
        if condition is not None and condition not in known:
            reason = unknown("condition", condition, known)
        elif command.action == "acknowledge":
            events, reason = machine.acknowledge(condition, stamp, command.source), "nothing to acknowledge"
        elif command.action == "resume":
            events, reason = machine.resume(condition, stamp, command.source), "nothing is paused"
        elif command.action == "reset":
            events = machine.reset(condition, stamp, command.source)
            reason = "nothing is latched; what is present can be acknowledged, not reset"
        elif duration_s > self.config.pause_max_s:
            reason = f"a pause of {duration_s:g} s is longer than the {self.config.pause_max_s:g} s allowed"
        else:
            events = machine.pause(condition, duration_s, stamp, command.source, utc)
            reason = "nothing to pause: alarms are not paused in advance"
        if not events and condition in known and condition not in machine.conditions():
            reason = f"{condition}: no such alarm is active"
        result = CommandResult(
            bed=self.bed,
            time=utc,
            at_s=stamp.at_s,
            accepted=bool(events),
            action=command.action,
            reason="" if events else reason,
            source=command.source,
            correlation=command.correlation,
        )
        return result, events

    def tick(self, now_ns: int, utc: datetime) -> list[Alarm]:
        """Let pauses run out, reminders come due and momentary conditions end; about once a second."""
        stamp = self._stamp(utc, now_ns)
        events = self._machine.tick(stamp)
        for name in [name for name, due_ns in self._momentary_ns.items() if due_ns <= now_ns]:
            del self._momentary_ns[name]
            events += self._machine.clear(name, stamp)
        return events

    def _stamp(self, time: datetime, now_ns: int) -> Stamp:
        return Stamp(time, self.at_s, now_ns)
