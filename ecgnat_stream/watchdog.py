"""The watchdog of the truth: is every bed being judged, does every receiver get its alarms, and if not, does an alarm say so?

It does none of the work. Once a second it compares what was really judged and really delivered with what ought to have been: of
every bed one of three things is true, or the technical alarm ``unwatched`` is raised. Its signal is being judged, or a technical
alarm says why not, or a person or the end of its recording has ended it. An alarm that waits too long for its receiver is
``sink-stuck``, one that was given up is ``alarms-lost``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol

from ecgnat_stream.bus import Bus, Subscription
from ecgnat_stream.clock import Clock
from ecgnat_stream.errors import WatchdogError
from ecgnat_stream.events import Alarm, Technical
from ecgnat_stream.settings import Settings, Within
from ecgnat_stream.words import counted

__all__ = ["Accountable", "BedTruth", "Watchdog", "WatchdogConfig", "explains"]

_EXPLAINS = ("no-data", "leads-off", "signal-missing", "noise", "wrong-units")
"""Technical conditions that say why a bed's signal is not being judged."""

_OWN = "unwatched"

_LEAST = 1 / 3
"""Least part of the time of which signal must have been judged: rules that count its seconds are three times as slow then."""

_LOST_SHOWN_S = 60.0
"""Alarm events that were given up are told for so long after the last of them."""


class WatchdogConfig(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a bed counts as unwatched, and a receiver as stuck.

    Parameters
    ----------
    judged_s
        Greatest age of the newest sample that was judged, of a live bed, s. Where another stage may rightly take longer (a
        stalled device, noise, leads off, the network), its own delay and 2 s are waited for.
    delivered_s
        Longest time that an alarm event may wait for a receiver, s.
    loop_s
        An event loop that stands still for this long ends the process, s; so that it is started again.
    """

    section: ClassVar[str] = "watchdog"

    judged_s: Annotated[float, Within(4, 15, "shorter is a network that hesitates, longer hides a bed that nobody watches")] = 5.0
    delivered_s: Annotated[float, Within(2, 60, "shorter is a broker that hesitates, longer hides one that gets no alarms")] = (
        10.0
    )
    loop_s: Annotated[float, Within(3, 60, "shorter is a busy machine, longer hides a monitor that does nothing")] = 5.0


def explains(alarm: Alarm) -> bool:
    """Return whether an alarm that is on says why its bed is not being judged."""
    if alarm.presence not in ("on", "acknowledged") or alarm.condition not in (*_EXPLAINS, _OWN):
        return False
    # A lead that is off is of low priority as long as another one is usable: that explains nothing.
    return not (alarm.condition == "leads-off" and alarm.priority == "low")


@dataclass(frozen=True, slots=True)
class BedTruth:
    """What is true of one bed now.

    Parameters
    ----------
    live
        Whether a patient may lie there; a recording is nobody's danger, and may be held back.
    judged_ns
        Host monotonic time of the newest usable sample that the alarm rules have judged; of the bed's beginning before that.
    told
        Conditions that are on and say why the bed is not being judged (:func:`explains`), the watchdog's own among them.
    ended
        Whether a person or the end of a recording has ended it.
    judged_s
        How much usable signal has been judged of it so far, s; None if that is not counted.
    recorded
        Whether a recording is read there, at whatever speed: that a disk is slow leaves no patient unwatched.
    """

    bed: str
    live: bool
    judged_ns: int
    told: frozenset[str]
    ended: bool
    judged_s: float | None = None
    recorded: bool = False


class Accountable(Protocol):
    """A sink that keeps a ledger of the alarm events it has delivered and given up."""

    subscription: Subscription
    alarms_delivered: int
    alarms_lost: int


class Watchdog:
    """Checks every bed and every receiver of alarms.

    Parameters
    ----------
    patience_s
        Longest time without a judged sample that is no fault, of any bed, s.
    truths
        Returns what is true of every bed.
    publish
        Takes the technical events.
    """

    def __init__(
        self,
        config: WatchdogConfig,
        patience_s: float,
        bus: Bus,
        clock: Clock,
        truths: Callable[[], Iterable[BedTruth]],
        publish: Callable[[Technical], None],
    ) -> None:
        self._config, self._bus, self._clock, self._truths, self._publish = config, bus, clock, truths, publish
        self._patience_ns = round(max(config.judged_s, patience_s) * 1e9)
        self._unwatched: set[str] = set()
        self._shares: dict[str, deque[tuple[int, float]]] = {}
        self._failed: dict[str, str] = {}
        self._late: dict[str, str] = {}
        self._sinks: dict[Subscription, Accountable] = {}
        self._marks: dict[Subscription, deque[tuple[int, int]]] = {}
        self._stuck: set[str] = set()
        self._lost: dict[str, int] = {}
        self._lost_ns: int | None = None
        self.checked_ns = clock.monotonic_ns()

    def hold_to_account(self, sink: Accountable) -> None:
        """Believe a sink's own ledger of what it has delivered, not that it has taken an event out of its queue."""
        self._sinks[sink.subscription] = sink

    def sink_failed(self, name: str, why: str) -> None:
        """Take note that a sink has failed and will be started again."""
        self._failed[name] = why
        self._say_stuck()

    def sink_works(self, name: str) -> None:
        """Take note that a sink that had failed works again."""
        if self._failed.pop(name, None) is not None:
            self._say_stuck()

    def check(self) -> None:
        """Look at every bed and every receiver; about once a second.

        Raises
        ------
        WatchdogError
            If an alarm that was raised here is not on: what should raise it does not work.
        """
        now_ns = self._clock.monotonic_ns()
        truths = list(self._truths())
        for truth in truths:
            self._check_bed(truth, now_ns)
        if any(truth.live and not truth.ended for truth in truths):
            self._late = self._check_delivery(now_ns)
        self._say_stuck()
        self._check_lost(now_ns)
        self.checked_ns = now_ns

    def count(self) -> tuple[int, int, int]:
        """Return of how many beds each is true now: they are being judged, an alarm says why not, they have ended."""
        truths, now_ns = list(self._truths()), self._clock.monotonic_ns()
        ended = sum(truth.ended for truth in truths)
        explained = sum(bool(truth.told) for truth in truths if not truth.ended)
        open_ = [truth for truth in truths if not (truth.ended or truth.told)]
        judged = (truth for truth in open_ if not truth.live or truth.recorded or now_ns - truth.judged_ns <= self._patience_ns)
        return sum(1 for _ in judged), explained, ended

    def _check_bed(self, truth: BedTruth, now_ns: int) -> None:
        age_ns = now_ns - truth.judged_ns
        why = f"what was judged last is {age_ns / 1e9:.1f} s old" if age_ns > self._patience_ns else self._trickles(truth, now_ns)
        watched = not truth.live or truth.recorded or truth.ended or not why or bool(truth.told - {_OWN})
        if truth.bed in self._unwatched:
            if _OWN not in truth.told and not truth.ended:
                raise WatchdogError(f"{truth.bed} is unwatched, and the alarm that says so is not on")
            if watched:
                self._unwatched.discard(truth.bed)
                self._technical(_OWN, "", bed=truth.bed)
        elif not watched:
            self._unwatched.add(truth.bed)
            self._technical(_OWN, why, bed=truth.bed)

    def _trickles(self, truth: BedTruth, now_ns: int) -> str:
        """Return how little signal has been judged over twice the patience, if it was too little; no sample of it is too old."""
        if truth.judged_s is None:
            return ""
        marks = self._shares.setdefault(truth.bed, deque())
        if truth.told - {_OWN} or truth.ended:
            marks.clear()  # that time is explained
        marks.append((now_ns, truth.judged_s))
        while len(marks) > 1 and marks[1][0] <= now_ns - 2 * self._patience_ns:
            marks.popleft()
        passed_s, judged_s = (now_ns - marks[0][0]) / 1e9, truth.judged_s - marks[0][1]
        if passed_s < 2 * self._patience_ns / 1e9 or judged_s >= _LEAST * passed_s:
            return ""
        return f"only {judged_s:.1f} s of signal were judged in {passed_s:.0f} s"

    def _check_delivery(self, now_ns: int) -> dict[str, str]:
        """Return which receivers have an alarm event waiting for too long, and since when."""
        late = {}
        subscriptions = [s for s in self._bus.subscriptions if any(issubclass(Alarm, kind) for kind in s.types)]
        for subscription in subscriptions:
            sink = self._sinks.get(subscription)
            done = subscription.alarms_taken if sink is None else sink.alarms_delivered + sink.alarms_lost
            done += subscription.alarms_dropped + subscription.alarms_lost
            marks = self._marks.setdefault(subscription, deque())
            if subscription.alarms > (marks[-1][1] if marks else 0):
                marks.append((now_ns, subscription.alarms))
            while marks and marks[0][1] <= done and len(marks) > 1:
                marks.popleft()
            if marks and done < marks[0][1] and now_ns - marks[0][0] > self._config.delivered_s * 1e9:
                waiting = subscription.alarms - done
                age_s = (now_ns - marks[0][0]) / 1e9
                late[subscription.name] = f"{counted(waiting, 'alarm event')} waiting for {age_s:.0f} s"
        for gone in self._marks.keys() - set(subscriptions):
            del self._marks[gone]
        return late

    def _say_stuck(self) -> None:
        """Tell which receivers have failed, are behind or overfull: one alarm for all, heard anew when another joins."""
        overfull = {
            s.name: f"{s.lost} events lost" if s.lost else "its queue is full" for s in self._bus.subscriptions if s.overfull
        }
        wrong = overfull | self._late | self._failed
        for name in sorted(wrong.keys() - self._stuck):
            self._technical("sink-stuck", f"{name}: {wrong[name]}", source=name)
        for name in sorted(self._stuck - wrong.keys()):
            self._technical("sink-stuck", "", source=name)
        self._stuck = set(wrong)

    def _check_lost(self, now_ns: int) -> None:
        lost = {s.name: s.alarms_lost for s in self._bus.subscriptions if s.alarms_lost}
        if lost != self._lost:
            self._lost, self._lost_ns = lost, now_ns
            self._technical("alarms-lost", ", ".join(f"{name}: {count}" for name, count in sorted(lost.items())))
        elif self._lost_ns is not None and now_ns - self._lost_ns > _LOST_SHOWN_S * 1e9:
            self._lost_ns = None
            self._technical("alarms-lost", "")

    def _technical(self, condition: str, detail: str, bed: str = "", source: str = "watchdog") -> None:
        event = Technical(
            bed=bed, time=self._clock.utc(), condition=condition, present=bool(detail), detail=detail, source=source
        )
        self._publish(event)
