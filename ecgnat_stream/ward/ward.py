"""All beds' signal on its way from the ring to the alarm engines. Synchronous: no task, no waiting, no I/O.

In come device blocks and predictions; out go events, through ``publish``. The signal stages work on every bed that has a frame
ready at once, grouped by device rate; what they find goes to the beds as moments. Late windows are skipped and counted by the
scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.alarm import AlarmEngine, BeatMark, Evidence, pvc_per_min
from ecgnat_stream.beats import BeatFrame, refine
from ecgnat_stream.bus import Published
from ecgnat_stream.clock import Clock
from ecgnat_stream.codes import RHYTHM_CODES, RHYTHM_TEXTS, RHYTHMS
from ecgnat_stream.condition import Conditioner
from ecgnat_stream.config import Config
from ecgnat_stream.events import (
    Alarm,
    Beat,
    BeatLabel,
    Command,
    CommandResult,
    LeadQuality,
    LeadState,
    Quality,
    Rhythm,
    Technical,
    Timing,
    Trace,
    Vitals,
)
from ecgnat_stream.model import Prediction
from ecgnat_stream.quality import STATES, QualityFrame
from ecgnat_stream.rhythm import RhythmDecision, RhythmTimeline, label_text
from ecgnat_stream.ring import RingBuffer
from ecgnat_stream.schedule import Scheduler
from ecgnat_stream.signal import FRAME, FRAME_S, FS, LEADS, MODEL_FS, SampleBlock, StreamInfo, Window
from ecgnat_stream.ward.bed import Bed, Moment
from ecgnat_stream.ward.signal_path import Stages

__all__ = ["Progress", "Ward"]

_SECOND = round(1 / FRAME_S)
_PLACE_S = 0.03
"""Raw signal on both sides of an R peak that is needed to place it."""

_FRAMES_PER_CALL = 10
"""Frames worked on before the caller gets its turn back: at most 2 s of signal of every bed."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one bed has come: seconds of stream, and of how many if that is known."""

    bed: str
    done_s: float
    total_s: float | None


class _Group:
    """The beds of one device rate: they share a ring and a conditioner."""

    def __init__(self, fs: float, rows: int, config: Config) -> None:
        self.fs = fs
        self.ring = RingBuffer(rows, int(np.ceil(config.ring_s * fs)))
        self.conditioner = Conditioner(fs, rows, config.condition)
        self.member = np.zeros(rows, bool)


class Ward:
    """The signal stages of all beds, from :meth:`append` to the alarm engines.

    Parameters
    ----------
    config
        The beds, and the stages' settings; a bed's place in ``config.bed`` is its row.
    publish
        Takes every event.
    traces
        Whether to publish conditioned frames for drawing.
    """

    def __init__(
        self,
        config: Config,
        clock: Clock,
        publish: Callable[[Published], None],
        *,
        traces: bool = False,
    ) -> None:
        rows = len(config.bed)
        self._config, self._clock, self._publish, self._traces = config, clock, publish, traces
        self.beds = [Bed(config.name_of(bed), bed.lead_map, config.alarm_of(bed), clock, publish) for bed in config.bed]
        self.engine = AlarmEngine("", config.alarm)
        self._engine_name = f"{config.site}/engine/{config.worker}"
        self._row_of = {bed.name: row for row, bed in enumerate(self.beds)}
        self._span_s = np.array([bed.alarms.config.rhythm_span_s for bed in self.beds])
        self._groups: dict[float, _Group] = {}
        self._frame = np.zeros(rows, np.int64)
        self._live = np.ones(rows, bool)
        self._held = np.zeros(rows, bool)
        self._ending = np.zeros(rows, bool)
        self._delivered = np.zeros((rows, len(LEADS)), bool)
        self._in_flight = np.zeros(rows, np.int64)
        self._stages = Stages(rows, config)
        self.scheduler = Scheduler(rows, config.schedule)
        self._timeline = RhythmTimeline(rows, config.rhythm)
        self._late: set[int] = set()

    def restore(self, alarms: Mapping[str, Sequence[Alarm]], sequences: Mapping[str, int]) -> None:
        """Take up what an earlier process has left open, per bed ("" is the worker), before any stream begins."""
        now_ns = self._clock.monotonic_ns()
        for name, engine in [("", self.engine), *((bed.name, bed.alarms) for bed in self.beds)]:
            self._say(engine.restore(alarms.get(name, ()), self._clock.utc(), now_ns, sequences.get(name, 0)))

    def begin(self, row: int, info: StreamInfo) -> None:
        """Begin a stream of a bed; a reconnected one goes on in stream time.

        Raises
        ------
        ConfigError
            For lead names that cannot be assigned, or a rate outside 100 to 1000 Hz.
        """
        bed = self.beds[row]
        bed.begin(info)
        self._live[row] = info.live
        self._ending[row] = False
        self._delivered[row] = False
        self._delivered[row, bed.slots] = True
        for group in self._groups.values():
            group.member[row] = False
        self._groups = {fs: group for fs, group in self._groups.items() if group.member.any() or fs == info.fs}
        if info.fs not in self._groups:
            self._groups[info.fs] = _Group(info.fs, len(self.beds), self._config)
        self._groups[info.fs].member[row] = True
        self._jump(row, self._groups[info.fs], bed.stop)

    def append(self, row: int, block: SampleBlock) -> None:
        """Take a block of a bed whose stream has begun, no longer than :meth:`largest_block`.

        Before a block that :meth:`far` calls far off, whatever is still to be worked off must have been: see :meth:`settle`.
        """
        bed = self.beds[row]
        group = self._group(row)
        far = self.far(row, block)
        samples = bed.take(block)
        if far:
            self._jump(row, group, block.start)
        before = int(group.ring.overwritten[row])
        group.ring.append(row, block.start, samples)
        overwritten = int(group.ring.overwritten[row]) - before
        if overwritten:
            detail = f"{overwritten / group.fs:.2f} s were overwritten unread: the monitor is too slow"
            bed.technical("gap", present=True, detail=detail)

    def far(self, row: int, block: SampleBlock) -> bool:
        """Return whether a block lies so far behind what came before that the gap is left out."""
        return block.start - self.beds[row].stop > self._group(row).ring.capacity // 2

    def largest_block(self, row: int) -> int:
        """Return the most samples that :meth:`append` takes at a time, a quarter of the ring."""
        return max(1, self._group(row).ring.capacity // 4)

    def settle(self, row: int) -> None:
        """Work off at once what is there of a bed, without waiting for the rest of a frame or for the network."""
        bed = self.beds[row]
        if bed.info is None:
            return
        group = self._group(row)
        self._ending[row] = True
        self._held[row] = False
        while row in self._ready(group):
            self._work(group, np.array([row]))
            self._held[row] = False
        bed.flush()

    def _jump(self, row: int, group: _Group, start: int) -> None:
        """Leave out what will never come, and begin afresh at the first whole frame from ``start``."""
        one = np.array([row])
        group.ring.clear(row, start)
        self._frame[row] = int(np.ceil(start / group.fs / FRAME_S))
        self._ending[row] = False
        group.conditioner.reset(one)
        self._stages.reset(one)
        self.scheduler.reset(row)

    def _group(self, row: int) -> _Group:
        return self._groups[self.beds[row].fs]

    def room(self, row: int) -> bool:
        """Return whether a recording may deliver more: half of its ring is free."""
        group = self._group(row)
        behind = group.ring.next[row] - self._frame[row] * FRAME_S * group.fs
        return bool(behind < group.ring.capacity // 2)

    def end(self, row: int) -> None:
        """Note that nothing more will come from a bed, so that its last frame is not waited for."""
        self._ending[row] = True

    def idle(self, row: int) -> bool:
        """Return whether everything that came from a bed has been decided on."""
        if self.beds[row].info is None:
            return True
        waits = self._in_flight[row] or self.scheduler.oldest_waiting(row) is not None
        return not waits and row not in self._ready(self._group(row))

    def progress(self, row: int) -> Progress:
        """Return how far a bed has come."""
        bed = self.beds[row]
        total = bed.info.total if bed.info else None
        return Progress(bed.name, float(self._frame[row] * FRAME_S), total / bed.fs if total else None)

    def _ready(self, group: _Group) -> NDArray[np.intp]:
        """Return the rows that have a frame ready. At the end of a stream the samples behind it are not waited for."""
        start, length = group.conditioner.needed(self._frame)
        own_stop = np.ceil((self._frame + 1) * (FRAME_S * group.fs) - 1e-6)
        stop = np.where(self._ending, own_stop, start + length)
        return np.flatnonzero(group.member & ~self._held & (group.ring.next >= stop))

    def advance(self) -> bool:
        """Work on the frames that are ready, all beds together; say whether there is more to do at once."""
        for _ in range(_FRAMES_PER_CALL):
            worked = False
            for group in self._groups.values():
                rows = self._ready(group)
                if len(rows):
                    self._work(group, rows)
                    worked = True
            if not worked:
                return False
        return True

    def _work(self, group: _Group, rows: NDArray[np.intp]) -> None:
        frames = self._frame[rows]
        start, length = group.conditioner.needed(frames)
        raw = group.ring.read(rows, start, length)
        y = group.conditioner.process(rows, frames, raw)
        beds = [self.beds[row] for row in rows]
        last = np.ceil((frames + 1) * (FRAME_S * group.fs) - 1e-6).astype(np.int64) - 1
        off = np.stack([bed.off_at(int(sample)) for bed, sample in zip(beds, last, strict=True)])
        found = self._stages.process(rows, frames, group.fs, raw, y, off, self._delivered[rows], group.conditioner.spikes)
        now_ns = self._clock.monotonic_ns()
        stop_s = (frames + 1) * FRAME / FS
        last_ns = np.array([bed.arrival_ns(float(at_s)) for bed, at_s in zip(beds, stop_s, strict=True)])
        peaks = found.beats.row, found.beats.at
        due = self.scheduler.add(rows, frames, y, last_ns, self._live[rows], now_ns, peaks)
        self._frame[rows] += 1
        self._held[rows] = [self.scheduler.full(row) for row in rows] & ~self._live[rows]
        marks = self._say_beats(group, found.beats, found.labels)
        for i, bed in enumerate(beds):
            at_s = float(stop_s[i])
            time = bed.time_of(at_s)
            rate = _known(found.heart_rate_bpm[i])
            states = _lead_states(bed.slots, found.quality, i)
            if self._traces:
                self._publish(Trace(bed.name, time, at_s - FRAME_S, y[i]))
            beats = tuple(marks.get(int(rows[i]), ()))
            bed.marks.extend(beats)
            if (frames[i] + 1) % _SECOND == 0:
                self._say_second(bed, at_s, rate, found.quality, i, states)
            moment = Moment(
                at_s=at_s,
                time=time,
                beats=beats,
                heart_rate_bpm=rate,
                usable=bool(found.quality.usable[i]),
                fibrillation=_known(found.fibrillation[i]),
                leads=tuple((lead, state.state) for lead, state in states.items() if state.state != "good"),
                gap_s=bed.lost_before(int(last[i]) + 1),
                due_stop=int(frames[i] + 1) * FRAME * MODEL_FS // FS if due[i] else None,
                cut_ns=now_ns,
            )
            bed.add(moment)

    def _say_beats(self, group: _Group, beats: BeatFrame, labels: NDArray[np.str_]) -> dict[int, list[BeatMark]]:
        """Publish the beats found, each placed to a device sample, and return them per row."""
        marks: dict[int, list[BeatMark]] = {}
        fs, reach = group.fs, int(np.ceil(_PLACE_S * group.fs))
        expected = beats.at / FS * fs
        first = np.round(expected).astype(np.int64) - reach
        raw = group.ring.read(beats.row, first, 2 * reach + 1)[np.arange(len(beats.row)), beats.lead]
        place = first + refine(raw, fs, expected - first)
        for i, row in enumerate(beats.row.tolist()):
            bed, at_s, label = self.beds[row], float(place[i]) / fs, cast(BeatLabel, str(labels[i]))
            marks.setdefault(row, []).append(BeatMark(at_s, label))
            rr_ms = float(beats.rr_ms[i])
            beat = Beat(
                bed=bed.name,
                time=bed.time_of(at_s),
                at_s=at_s,
                sample=round(at_s * fs),
                rr_ms=None if np.isnan(rr_ms) else round(rr_ms, 1),
                label=label,
                lead=LEADS[int(beats.lead[i])],
            )
            self._publish(beat)
        return marks

    def _say_second(
        self, bed: Bed, at_s: float, rate: float | None, quality: QualityFrame, i: int, states: dict[str, LeadQuality]
    ) -> None:
        """Publish a bed's vitals and quality, once per second of stream."""
        time, best = bed.time_of(at_s), int(quality.best[i])
        if best >= 0 and best not in bed.slots:
            best = int(bed.slots[quality.sqi[i, bed.slots].argmax()])
        shown = None if rate is None else round(rate, 1)
        usable = bool(quality.usable[i])
        vitals = Vitals(
            bed=bed.name,
            time=time,
            at_s=at_s,
            heart_rate_bpm=shown,
            rr_ms=shown and round(6e4 / shown, 1),
            pvc_per_min=pvc_per_min(bed.minute(at_s), at_s) if usable else None,
        )
        self._publish(vitals)
        reason = "" if usable else ", ".join(f"{lead} {state.state}" for lead, state in states.items())
        best_lead = LEADS[best] if best >= 0 else None
        event = Quality(bed=bed.name, time=time, at_s=at_s, leads=states, usable=usable, best_lead=best_lead, reason=reason)
        self._publish(event)

    def take(self) -> list[Window]:
        """Return the next batch of windows for the network; empty if none is due."""
        windows = self.scheduler.take()
        for window in windows:
            self._in_flight[window.row] += 1
            self._held[window.row] = self.scheduler.full(window.row) and not self._live[window.row]
        return windows

    def apply(self, windows: Sequence[Window], prediction: Prediction, model: str) -> None:
        """Take the network's answer to a batch: rhythms are published, the moments that waited for them go on."""
        for part in _one_per_row(windows):
            rows = np.array([windows[i].row for i in part])
            starts = np.array([windows[i].start for i in part])
            stops = np.array([windows[i].stop for i in part])
            self._timeline.add(rows, starts, stops, prediction.rhythm[part], prediction.token_s)
            waited = [self.beds[row].usable_at(int(stop)) for row, stop in zip(rows, stops, strict=True)]
            decision = self._timeline.decide(rows, np.array([usable for usable, _ in waited]))
            seconds = self._seconds(rows)
            for k, i in enumerate(part):
                window, bed = windows[i], self.beds[windows[i].row]
                self._in_flight[window.row] -= 1
                if not bed.lost:
                    self._say_rhythm(bed, window, decision, k, waited[k][1], prediction, i, model)
                label = decision.names[k]
                evidence = Evidence(label=label, stop_s=window.stop / MODEL_FS, seconds=tuple(seconds[k].tolist()))
                bed.resolve(window.stop, evidence)
                if window.row in self._late:
                    self._late.discard(window.row)
                    bed.technical("model-late", present=False)

    def _seconds(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return ``(R, C)``: how much of each bed's evidence span every class fills, s."""
        seconds = np.zeros((len(rows), len(RHYTHMS)))
        for span_s in np.unique(self._span_s[rows]):
            same = self._span_s[rows] == span_s
            seconds[same] = self._timeline.seconds(rows[same], float(span_s))
        return seconds

    def _say_rhythm(
        self,
        bed: Bed,
        window: Window,
        decision: RhythmDecision,
        k: int,
        rate: float | None,
        prediction: Prediction,
        i: int,
        model: str,
    ) -> None:
        label = label_text(decision.names[k], rate)
        probabilities = [min(1.0, max(0.0, round(float(p), 4))) for p in decision.probabilities[k]]
        at_s = window.stop / MODEL_FS
        timing = Timing(window.last_sample_ns, window.cut_ns, prediction.ready_ns, self._clock.monotonic_ns())
        event = Rhythm(
            bed=bed.name,
            time=bed.time_of(at_s),
            at_s=at_s,
            label=label,
            text=RHYTHM_TEXTS[label],
            probability=min(1.0, max(0.0, round(float(decision.probability[k]), 4))),
            probabilities=dict(zip(RHYTHMS, probabilities, strict=True)),
            start_s=float(decision.start_s[k]),
            stop_s=float(decision.stop_s[k]),
            window_start=max(0, round(window.start / MODEL_FS * bed.fs)),
            window_stop=round(at_s * bed.fs),
            codes=RHYTHM_CODES[label],
            timing=timing,
            model=model,
            without_beats=bool(prediction.without_beats[i]),
        )
        self._publish(event)

    def fail(self, windows: Sequence[Window], detail: str) -> None:
        """Take note that the network gave no answer to a batch: the rules that need none go on."""
        for window in windows:
            self._in_flight[window.row] -= 1
            self.beds[window.row].resolve(window.stop, None)
        self.technical(self.report("model-failed", detail))

    def report(self, condition: str, detail: str, *, present: bool = True) -> Technical:
        """Return the worker's own technical event, for :meth:`technical`."""
        return Technical(bed="", time=self._clock.utc(), condition=condition, present=present, detail=detail)

    def tick(self) -> None:
        """Let pauses run out, reminders come due and late predictions be late; about once a second."""
        now_ns, utc = self._clock.monotonic_ns(), self._clock.utc()
        for row, bed in enumerate(self.beds):
            if bed.overdue(now_ns, self._config.model_late_s) and row not in self._late:
                self._late.add(row)
                detail = f"no prediction within {self._config.model_late_s:g} s"
                bed.technical("model-late", present=True, detail=detail)
            bed.say(bed.alarms.tick(now_ns, bed.now()))
        self._say(self.engine.tick(now_ns, utc))

    def technical(self, event: Technical) -> None:
        """Take what a stage or sink noticed, of one bed or (no bed named) of the worker."""
        row = self._row_of.get(event.bed)
        if row is not None:
            self.beds[row].technical(event.condition, present=event.present, detail=event.detail)
        else:
            self._say(self.engine.technical(event, self._clock.monotonic_ns()))

    def command(self, command: Command) -> None:
        """Carry out a person's order on one bed, the worker (``site/engine/worker``), or with no name on all of them."""
        now_ns, utc = self._clock.monotonic_ns(), self._clock.utc()
        engines = {bed.name: (bed.alarms, bed.now()) for bed in self.beds} | {self._engine_name: (self.engine, utc)}
        chosen = [engine for name, engine in engines.items() if command.bed in ("", name)]
        if not chosen:
            known = ", ".join(list(engines)[:8])
            reason = f"no such bed here; known are {known}{', ...' if len(engines) > 8 else ''}"
            refusal = CommandResult(
                bed=command.bed,
                time=utc,
                accepted=False,
                action=command.action,
                reason=reason,
                source=command.source,
                correlation=command.correlation,
            )
            self._publish(refusal)
        for engine, now in chosen:
            result, events = engine.command(command, now, now_ns)
            self._publish(result)
            self._say(events)

    def _say(self, events: Sequence[Published]) -> None:
        for event in events:
            self._publish(event)


def _known(value: np.floating) -> float | None:
    return None if np.isnan(value) else float(value)


def _lead_states(slots: NDArray[np.intp], quality: QualityFrame, i: int) -> dict[str, LeadQuality]:
    """Return the quality of the leads that a device delivers."""
    sqi, state = quality.sqi[i], quality.state[i]
    return {LEADS[k]: LeadQuality(round(min(1.0, max(0.0, float(sqi[k]))), 3), cast(LeadState, STATES[state[k]])) for k in slots}


def _one_per_row(windows: Sequence[Window]) -> Iterator[list[int]]:
    """Split a batch so that each part holds a bed at most once, in order."""
    rest = list(range(len(windows)))
    while rest:
        part: list[int] = []
        seen: set[int] = set()
        later: list[int] = []
        for i in rest:
            (later if windows[i].row in seen else part).append(i)
            seen.add(windows[i].row)
        yield part
        rest = later
