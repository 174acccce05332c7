"""The checker: what happened to every heart against what reached each sink. It takes nothing of the monitor's word for itself.

``lost``, ``late`` and ``doubled`` are counted twice over: by hearts (a high alarm must be on in every live sink) and by alarm
events (what one sink has, all must have). ``unwatched`` are seconds of a bed in which no sink had a fresh judgement of its
signal, nor a technical alarm that says why not.
"""

from __future__ import annotations

import bisect
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ecgnat_stream.events import Alarm
from tests.chaos.conduct import Life, Log
from tests.chaos.evidence import Presence, Span, loop_lines, meets, true_spans, twin_spans
from tests.chaos.plan import Fault, Onset, bed_name
from tests.chaos.receivers import HISTORY, JSONL, MQTT, RECORD, ZMQ, Heard

__all__ = ["Findings", "Item", "check"]

WITHIN_S = 10.0
"""A high alarm comes within 10 s of the onset (ANSI/AAMI EC13)."""

RETURN_S = 5.0
"""After the broker's return every alarm is out within this time."""

SETTLE_S = 3.0
"""A stream that has begun is judged after this time: 2 s for the QRS detector, and a second for connecting."""

START_S = 8.0
"""From the first word of a process until every bed must be watched."""

SILENT_S = 60.0
"""A process that has said nothing for so long since it was started has not begun: Python and torch are loaded meanwhile."""

FRESH_S = 5.0
"""A bed is watched if a second of its signal was judged in the last 5 s, and is not older than that itself."""

GRAIN_S = 2.0
"""Sinks are told once a second that a bed is judged: so long after the end of an alarm that explained, its word still counts."""

CUT_S = 1.0
"""What was said within the last second before a kill -9 may have reached some sinks only."""

AGAIN_S = 16.0
"""What the broker has refused is offered again after at most 15 s (docs/interfaces.md)."""

PORT_S = 8.0
"""A taken port is tried again after 5 s."""

SAID_S = 12.0
"""A device's fault must have raised a technical alarm of its bed after this time."""

STUCK_CODE, STUCK_S = 70, 25.0
"""A process whose event loop is held ends itself with this code, within this time."""

WORKERS = {
    "acl": ("delivery-refused",),
    "quota": ("delivery-refused",),
    "refuse": ("broker-lost",),
    "syn": ("broker-lost",),
    "blackhole": ("broker-lost",),
    "kill-broker": ("broker-lost",),
    "clock-step": ("clock-jump",),
    "twin": ("name-taken",),
    "unread": ("sink-stuck",),
}
"""What the worker itself must say of a fault."""

HELD_S = 0.25
"""Nothing from outside holds the event loop for longer."""

EXPLAINS = ("no-data", "leads-off", "signal-missing", "noise", "unwatched", "overload", "worker-lost")
LIVE = (JSONL, MQTT, ZMQ)
_OUTAGES = ("kill-broker", "freeze", "cut", "refuse", "blackhole", "syn")


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that went wrong at ``t`` with a bed ("" for none): what, in which sink, in words."""

    what: str
    t: float
    bed: str
    sink: str
    text: str


@dataclass
class Findings:
    """All that was counted."""

    items: list[Item] = field(default_factory=list)
    hearts: int = 0
    """Onsets that could be seen for long enough, times live sinks."""
    events: int = 0
    cut: int = 0
    """Events that a kill -9 cut off on their way to some sink."""
    refused: int = 0
    """Events that the broker refused, as it was told to."""
    raw_doubled: int = 0
    bed_seconds: int = 0
    down_s: float = 0.0
    to_alarm_s: list[float] = field(default_factory=list)
    returned_s: list[float] = field(default_factory=list)
    delivery_s: list[float] = field(default_factory=list)
    exit_s: list[float] = field(default_factory=list)
    loop_late_s: list[float] = field(default_factory=list)
    loop_own_s: list[float] = field(default_factory=list)
    stands: list[dict[str, Any]] = field(default_factory=list)
    first_judged_s: list[float] = field(default_factory=list)

    def count(self, what: str) -> int:
        """Return how often one thing went wrong."""
        return sum(item.what == what for item in self.items)


def check(log: Log) -> Findings:
    """Count everything."""
    found = Findings()
    by_sink: dict[str, list[Heard]] = defaultdict(list)
    for heard in log.ledger.alarms:
        if heard.alarm.event_id not in log.ledger.twins:
            by_sink[heard.sink].append(heard)
    presence = {sink: Presence(by_sink[sink]) for sink in LIVE}
    found.items += [
        *_hearts(log, presence, found),
        *_lost_events(log, by_sink, found),
        *_doubled(log, by_sink, found),
        *_unwatched(log, presence, found),
        *_unsaid(log, presence),
        *_wills(log),
        *_stale_states(log, by_sink[MQTT]),
        *(Item("control", 0, "", text.split(":")[0], text) for text in log.ledger.control),
        *_ended(log, found),
    ]
    if log.files:
        found.items.append(Item("files", 0, "", RECORD, f"{log.files} folders for beds that nobody has"))
    _delivery(log, by_sink, found)
    _loop(log, found)
    found.down_s = sum(b.began - a.ended for a, b in zip(log.lives, log.lives[1:], strict=False))
    return found


def _begun(life: Life) -> float:
    """Return from when on a process is held to watch: it has said that it is there, and had time for the first seconds."""
    return min(life.said or math.inf, life.began + SILENT_S) + START_S


def _ended(log: Log, found: Findings) -> Iterator[Item]:
    """Yield ends of the monitor that were none of the plan's, or slow; one whose loop is held must end itself with code 70."""
    held = [fault for fault in log.plan.faults if fault.kind == "blocks"]
    for life in log.lives:
        if life.how == "by itself":
            if not (life.code == STUCK_CODE and any(fault.at_s <= life.ended <= fault.stop_s + 2 for fault in held)):
                yield Item("ended", life.ended, "", "", f"the monitor ended by itself with {life.code}")
        elif life.told is not None and not life.how.startswith("kill"):
            found.exit_s.append(life.ended - life.told)
            if life.ended - life.told > WITHIN_S:
                yield Item("ended", life.ended, "", "", f"SIGTERM took {life.ended - life.told:.1f} s")
    for fault in held:
        if _lived(log, fault.at_s, fault.at_s + STUCK_S):
            yield Item("ended", fault.at_s, fault.target, "", "its adapter holds the event loop, and the monitor lives on")


def _lived(log: Log, start: float, stop: float) -> bool:
    """Return whether one process watched from ``start`` to ``stop``."""
    return any(_begun(life) <= start and (life.told or life.ended) >= stop for life in log.lives)


def _died(life: Life) -> float | None:
    """Return when a process was killed, or ended itself since it was stuck; None if it ended in order."""
    if life.how == "by itself":
        return life.ended
    return life.told if life.how.startswith("kill") else None


# Hearts.


def _hearts(log: Log, presence: dict[str, Presence], found: Findings) -> Iterator[Item]:
    truths = true_spans(log)
    for onset in log.plan.onsets:
        seen = _seen(onset, truths[onset.bed], first=_begun(log.lives[0]))
        if seen is None:
            continue
        bed = bed_name(onset.bed)
        for sink in LIVE:
            due = _due(log, sink, onset.bed, seen)
            if due is None:
                continue
            found.hearts += 1
            state = presence[sink]
            first = state.first_on(bed, state.conditions(bed, "physiological", "high"), onset.at_s, max(onset.stop_s, due) + 20)
            text = f"{onset.rhythm} at {onset.at_s:.1f} s, seen from {seen:.1f} s, due at {due:.1f} s"
            if first is None:
                yield Item("lost", onset.at_s, onset.bed, sink, f"{text}: no high alarm")
            elif first > due + 0.5:
                yield Item("late", first, onset.bed, sink, f"{text}: on at {first:.1f} s")
            if first is not None and sink == JSONL and seen == onset.at_s:
                found.to_alarm_s.append(first - onset.at_s)


def _seen(onset: Onset, spans: Sequence[Span], first: float) -> float | None:
    """Return from when on a trouble could be seen for long enough to be due within the limit, None if never."""
    for start, stop in spans:
        begun = max(start + SETTLE_S, first)
        span = meets((max(onset.at_s, begun), onset.stop_s), (begun, stop))
        if span is not None and span[1] - span[0] >= WITHIN_S:
            return span[0]
    return None


def _due(log: Log, sink: str, bed: str, seen: float) -> float | None:
    """Return when the alarm must be in a sink, None if it cannot be asked for."""
    due = seen + WITHIN_S
    if sink == ZMQ and (_port_taken(log, seen) or _port_taken(log, due)):
        return None
    if sink == MQTT:
        for start, stop, kind in sorted(log.path_down):
            if kind in _OUTAGES and start <= due and stop + RETURN_S > seen:
                due = max(due, stop + RETURN_S)
        if _refused(log, bed, seen, due + 20) or _twin_has(log, bed_name(bed), (seen, due)):
            return None
    # A monitor that was killed meanwhile could not deliver: what it had seen is judged anew by the next one.
    if any(seen < life.ended <= due and _died(life) is not None for life in log.lives):
        return None
    return due


def _refused(log: Log, bed: str, start: float, stop: float) -> bool:
    return any(meets((began - 1, ended + 1), (start, stop)) for began, ended in _refusals(log, bed))


# Alarm events.


def _lost_events(log: Log, by_sink: dict[str, list[Heard]], found: Findings) -> Iterator[Item]:
    ids = {sink: {heard.alarm.event_id for heard in by_sink[sink]} for sink in (*LIVE, HISTORY, RECORD)}
    for event_id, (t, alarm) in _first_heard(log, by_sink).items():
        found.events += 1
        for sink, there in ids.items():
            if event_id in there or _not_asked(log, sink, t):
                continue
            if sink == MQTT and _twin_has(log, alarm.bed, (t - CUT_S, t + CUT_S)):
                continue
            if sink == MQTT and _refused(log, alarm.bed.rsplit("/", 1)[-1], t, t + 0.01):
                found.refused += 1
            elif _cut(log, sink, t):
                found.cut += 1
            else:
                yield Item("lost", t, alarm.bed.rsplit("/", 1)[-1], sink, f"event {event_id}: {alarm.condition} {alarm.phase}")


def _first_heard(log: Log, by_sink: dict[str, list[Heard]]) -> dict[str, tuple[float, Alarm]]:
    """Return for each event when it was said: when the first sink had it, or by its own time if only files have it."""
    first: dict[str, tuple[float, Alarm]] = {}
    offset = log.ledger.utc_s() - log.ledger.now_s()
    for sink in (*LIVE, HISTORY, RECORD):
        for heard in by_sink[sink]:
            t = heard.t if sink in LIVE else heard.alarm.time.timestamp() - offset
            if heard.alarm.event_id not in first or (sink in LIVE and t < first[heard.alarm.event_id][0]):
                first[heard.alarm.event_id] = (t, heard.alarm)
    return first


def _not_asked(log: Log, sink: str, t: float) -> bool:
    """Return whether a sink need not have an event: its subscriber was not there yet, or its disk was full."""
    if sink == ZMQ:
        starts = [life.began for life in log.lives if life.began <= t + 1]
        heard = next((first for first in log.ledger.first.get(ZMQ, []) if starts and first > starts[-1]), math.inf)
        return t <= heard or _port_taken(log, t)
    if any(
        life.told is not None and life.told + CUT_S < t <= life.ended for life in log.lives if not life.how.startswith("kill")
    ):
        return True  # the monitor was told to end: what a sink says of itself while it closes does not reach those that have
    if sink == RECORD:
        return any(began - 1 <= t <= ended + 15 for fault, began, ended in log.done if fault.kind == "disk-full")
    return False


def _port_taken(log: Log, t: float) -> bool:
    """Return whether a second monitor had the publisher's port, since it was there when the first one started."""
    for fault, began, ended in log.done:
        if fault.kind == "twin" and began <= t <= ended + PORT_S:
            return any(began <= life.began <= ended and life.began <= t for life in log.lives)
    return False


def _twin_has(log: Log, bed: str, span: Span) -> bool:
    """Return whether a second monitor had a bed at the broker: the first one publishes nothing of it there then."""
    return any(meets(span, had) for had in twin_spans(log).get(bed, ()))


def _cut(log: Log, sink: str, t: float) -> bool:
    """Return whether a kill -9 came before an event could be out of the monitor's hands."""
    for life in log.lives:
        died = _died(life)
        if died is None or not life.began <= t <= died + 0.5:
            continue
        if t >= died - CUT_S:
            return True
        # While the way to the broker was down, or the disk full, all waited in the process that was then killed.
        down = [(start, stop + RETURN_S) for start, stop, _ in log.path_down] if sink == MQTT else []
        full = [(began, ended + 15) for fault, began, ended in log.done if fault.kind == "disk-full"] if sink == HISTORY else []
        if any(start <= died <= stop and t <= stop for start, stop in (*down, *full)):
            return True
    return False


def _doubled(log: Log, by_sink: dict[str, list[Heard]], found: Findings) -> Iterator[Item]:
    """Yield what a person who dedupes by ``event_id`` would see twice, or would drop although it is new."""
    for sink in LIVE:
        times = Counter(heard.alarm.event_id for heard in by_sink[sink])
        found.raw_doubled += sum(count - 1 for count in times.values())
        bodies: dict[str, Heard] = {}
        on: dict[tuple[str, str], str] = {}
        for heard in by_sink[sink]:
            alarm = heard.alarm
            bed = alarm.bed.rsplit("/", 1)[-1]
            before = bodies.setdefault(alarm.event_id, heard)
            if before.alarm != alarm:
                text = (
                    f"event {alarm.event_id} is {before.alarm.condition} {before.alarm.phase} and {alarm.condition} {alarm.phase}"
                )
                yield Item("doubled", heard.t, bed, sink, text)
            if before is not heard:
                continue
            key = (alarm.bed, alarm.condition)
            same_life = any(life.began <= heard.t <= life.ended and on.get(key, "") for life in log.lives)
            if alarm.phase == "start" and same_life and not _started_anew(log, on[key], heard.t):
                yield Item("doubled", heard.t, bed, sink, f"{alarm.condition} started again while it was on")
            on[key] = f"{heard.t}" if alarm.presence != "off" else ""


def _started_anew(log: Log, since: str, t: float) -> bool:
    return any(float(since) < life.began <= t for life in log.lives)


# Watching.


def _unwatched(log: Log, presence: dict[str, Presence], found: Findings) -> Iterator[Item]:
    judged: dict[str, list[float]] = defaultdict(list)
    for second in log.ledger.judged:
        if second.usable and second.age_s <= FRESH_S:
            judged[second.bed].append(second.t)
    for times in judged.values():
        times.sort()
    for life in log.lives:
        for bed in log.plan.beds:
            name = bed_name(bed)
            first = next((t for t in judged[name] if t >= life.began), None)
            if first is not None and first < life.ended:
                found.first_judged_s.append(first - life.began)
            stop = min(life.told or life.ended, log.plan.seconds)
            for t in range(math.ceil(_begun(life)), math.floor(stop)):
                found.bed_seconds += 1
                fresh = any(t - FRESH_S < at <= t for at in _around(judged[name], t))
                if not fresh and not _explained(presence, name, t):
                    yield Item("unwatched", t, bed, "", "no fresh judgement, and no technical alarm")


def _around(times: list[float], t: float) -> list[float]:
    index = bisect.bisect_right(times, t)
    return times[max(0, index - 1) : index]


def _explained(presence: dict[str, Presence], bed: str, t: float) -> bool:
    return any(state.first_on(whom, EXPLAINS, t - GRAIN_S, t) is not None for state in presence.values() for whom in (bed, ""))


def _unsaid(log: Log, presence: dict[str, Presence]) -> Iterator[Item]:
    state = presence[JSONL]
    for fault in log.plan.faults:
        window = (fault.at_s, fault.at_s + max(SAID_S, fault.seconds))
        if not _lived(log, *window) or fault.kind == "blocks":
            continue
        if fault.target not in log.plan.beds:
            for condition in WORKERS.get(fault.kind, ()):
                beds = [bed_name(fault.detail)] if fault.kind == "acl" else [bed_name(bed) for bed in log.plan.beds]
                if all(state.first_on(whom, [condition], *window) is None for whom in ("", *beds)):
                    yield Item("unsaid", fault.at_s, "", JSONL, f"{fault.kind}: no {condition}")
            continue
        bed = bed_name(fault.target)
        if state.first_on(bed, state.conditions(bed, "technical"), *window) is None:
            yield Item("unsaid", fault.at_s, fault.target, JSONL, f"{fault.kind} {fault.detail}: no technical alarm of the bed")


def _wills(log: Log) -> Iterator[Item]:
    """Yield beds whose last will did not come when the monitor was killed."""
    for life in log.lives:
        if life.told is None or not life.how.startswith("kill"):
            continue
        if any(start - 2 <= life.told <= stop + RETURN_S for start, stop, _ in log.path_down):
            continue
        for bed in log.plan.beds:
            said = [(t, online) for t, name, online, _ in log.ledger.statuses if name == bed_name(bed)]
            was = [online for t, online in said if life.began < t <= life.told]
            if _twin_has(log, bed_name(bed), (life.told - CUT_S, life.told + 2)):
                continue
            if was and was[-1] and not any(life.told <= t <= life.told + 2 and not online for t, online in said):
                yield Item("will", life.told, bed, MQTT, "killed, and the broker says for 2 s that the bed is online")


def _stale_states(log: Log, heard: Sequence[Heard]) -> Iterator[Item]:
    """Yield retained alarm states that contradict the last event of the alarm."""
    last = {(item.alarm.bed, item.alarm.condition): item for item in heard}
    for topic, payload in log.ledger.states.items():
        if not payload:
            continue
        state = json.loads(payload)
        if state["event_id"] in log.ledger.twins:
            continue
        item = last.get((state["bed"], state["condition"]))
        if (
            item is not None
            and item.alarm.presence != state["presence"]
            and not _refused(log, state["bed"][-5:], item.t, item.t + 30)
        ):
            text = f"{topic} says {state['presence']}, the last event {item.alarm.presence}"
            yield Item("stale", item.t, state["bed"].rsplit("/", 1)[-1], MQTT, text)


# Times.


def _delivery(log: Log, by_sink: dict[str, list[Heard]], found: Findings) -> None:
    first: dict[str, float] = {}
    for heard in by_sink[MQTT]:
        first.setdefault(heard.alarm.event_id, heard.t)
    for heard in by_sink[JSONL]:
        there = first.get(heard.alarm.event_id)
        if there is None:
            continue
        bed = heard.alarm.bed.rsplit("/", 1)[-1]
        way = (heard.t, there)
        ends = [stop for start, stop, kind in log.path_down if kind in _OUTAGES and meets((start, stop + 0.01), way)]
        again = [stop + AGAIN_S for start, stop in _refusals(log, bed) if meets((start, stop + AGAIN_S), way)]
        had = [stop for start, stop in twin_spans(log).get(heard.alarm.bed, ()) if meets((start - CUT_S, stop), way)]
        base = max([heard.t, *ends, *again, *had])
        delay = max(0.0, there - base)
        found.delivery_s.append(delay)
        if base > heard.t and not again:
            found.returned_s.append(delay)
        if delay > RETURN_S:
            alarm = heard.alarm
            text = f"{alarm.condition} {alarm.phase}: said at {heard.t:.1f} s, at the broker {delay:.1f} s after it could be"
            found.items.append(Item("late", there, bed, MQTT, text))


def _refusals(log: Log, bed: str) -> list[Span]:
    """Return when the broker refused a bed's alarm events."""
    quota = [(start, stop) for start, stop, kind in log.path_down if kind == "quota"]
    return quota + [(began, ended) for fault, began, ended in log.done if fault.kind == "acl" and fault.detail == bed]


def _loop(log: Log, found: Findings) -> None:
    for line in loop_lines(log):
        t = float(line["t"])
        if not any(_begun(life) <= t <= (life.told or life.ended) for life in log.lives):
            continue
        if "stands" in line:
            found.stands.append(line)
        else:
            found.loop_late_s.append(float(line["late_s"]))
            found.loop_own_s.append(float(line["own_s"]))
            if found.loop_own_s[-1] > HELD_S:
                found.items.append(Item("held", t, "", "", f"the event loop was held for {found.loop_own_s[-1]:.2f} s"))


def near(fault: Fault, began: float, ended: float, item: Item) -> bool:
    """Return whether something that went wrong may come of a fault: it happened at its time, or soon after, and to its bed."""
    return began - 1 <= item.t <= ended + 15 and (fault.target.startswith("bed-") is False or fault.target == item.bed)
