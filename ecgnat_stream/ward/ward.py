"""All beds' signal on its way from the devices to the alarm engines. Synchronous: no task, no waiting, no I/O.

In come what devices say (:meth:`Ward.accept`) and predictions (:meth:`Ward.apply`); out go events, through ``publish``, and
windows for the network (:meth:`Ward.next_batch`). The signal path works on every bed that has a frame ready at once, together
those of one device rate; what it finds goes to the beds as moments. Late windows are skipped and counted by the scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.alarm import CALM_SCORE, AlarmEngine, BeatMark, Evidence, pvc_per_min
from ecgnat_stream.bus import Published
from ecgnat_stream.clock import Clock, Step, run_id
from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.config import Config
from ecgnat_stream.device import LinkState
from ecgnat_stream.errors import EcgnatError
from ecgnat_stream.events import Alarm, Beat, Command, CommandResult, Quality, Rhythm, Technical, Trace, Vitals
from ecgnat_stream.model import Mode, Prediction, reading_mode
from ecgnat_stream.rhythm import RhythmTimeline
from ecgnat_stream.schedule import scheduler
from ecgnat_stream.signal import FRAME, FRAME_S, FS, MODEL_FS, SampleBlock, StreamInfo, Window
from ecgnat_stream.suggest import unknown
from ecgnat_stream.ward import reports
from ecgnat_stream.ward.bed import Bed, Moment
from ecgnat_stream.ward.load import Load
from ecgnat_stream.ward.relief import Relief
from ecgnat_stream.ward.signal_path import FrameResult, SignalPath
from ecgnat_stream.ward.streams import SCORES_KEPT, Streams
from ecgnat_stream.watchdog import BedTruth

__all__ = ["BedProgress", "Ward"]

_SECOND = round(1 / FRAME_S)

_FRAMES_PER_CALL = 10
_CALL_NS = 50_000_000
"""Frames worked on before the caller gets its turn back: at most 2 s of signal of every bed, and none begun after 50 ms."""


@dataclass(frozen=True, slots=True)
class BedProgress:
    """How far one bed has come: seconds of stream, and of how many if that is known."""

    bed: str
    done_s: float
    total_s: float | None


class Ward:
    """The signal stages of all beds, from :meth:`accept` to the alarm engines.

    Parameters
    ----------
    config
        The beds, and the stages' settings; a bed's place in ``config.bed`` is its row.
    publish
        Takes every event.
    traces
        Whether to publish conditioned frames for drawing.
    run
        See :class:`~ecgnat_stream.alarm.AlarmEngine`; made of the clock and of chance if left out.
    wanted
        Says whether anybody takes events of a type: those of signal, beats and numbers that nobody takes are not made. All are if
        left out.
    watch
        Called with every step of the signal path, before anything is published of it.
    mode
        How the network reads; as the configuration says if left out.
    """

    def __init__(
        self,
        config: Config,
        clock: Clock,
        publish: Callable[[Published], None],
        *,
        traces: bool = False,
        run: str | None = None,
        wanted: Callable[[type], bool] | None = None,
        watch: Callable[[FrameResult], None] | None = None,
        mode: Mode | None = None,
    ) -> None:
        rows = len(config.bed)
        run = run or run_id(clock.utc())
        self._watch = watch
        self._config, self._clock, self._publish, self._traces = config, clock, publish, traces
        self._wanted = wanted or (lambda _: True)
        self._streams = streams = Streams(rows, clock.monotonic_ns())
        self._beds = [
            Bed(
                config.name_of(bed),
                bed.lead_map,
                config.alarm_of(bed),
                clock,
                publish,
                run,
                wanted=self._wanted,
                streams=streams,
                row=row,
            )
            for row, bed in enumerate(config.bed)
        ]
        self._engine = AlarmEngine("", config.alarm, run=run)
        self._engine_name = f"{config.site}/engine/{config.worker}"
        self._row_of = {bed.name: row for row, bed in enumerate(self._beds)}
        self._span_s = np.array([bed.alarms.config.rhythm_span_s for bed in self._beds])
        self._lowest_bpm = np.array([bed.alarms.config.hr_low_bpm for bed in self._beds])
        self._highest_bpm = np.array([bed.alarms.config.hr_high_bpm for bed in self._beds])
        self._live = streams.live
        self._in_flight = np.zeros(rows, np.int64)
        self._path = SignalPath(rows, config, self._off)
        mode = mode or _mode_of(config)
        self._scheduler = scheduler(rows, config.schedule, mode)
        self._timeline = RhythmTimeline(rows, config.rhythm)
        self._late: set[int] = set()
        self._load = Load(rows)
        self._relief = Relief(rows, config.schedule, (self._lowest_bpm, self._highest_bpm), in_turns=mode == "stream")
        self._overload = (False, 0, False)
        self._paused = np.zeros(rows, bool)
        self._asked = False

    def is_live(self, row: int) -> bool:
        """Whether a bed's source cannot wait."""
        return self._beds[row].live

    @property
    def all_live(self) -> bool:
        """Whether no source can wait."""
        return bool(self._live.all())

    @property
    def windows_wait(self) -> bool:
        """Whether :meth:`next_batch` has something to give."""
        return len(self._scheduler) > 0

    @property
    def skipped_windows(self) -> int:
        """How many windows were never predicted on, since a newer one replaced them."""
        return int(self._scheduler.skipped.sum())

    def progress(self) -> list[BedProgress]:
        """Return how far each bed has come."""
        return [
            BedProgress(bed.name, self._path.done_s(row), bed.info.total / bed.fs if bed.info and bed.info.total else None)
            for row, bed in enumerate(self._beds)
        ]

    def truths(self) -> list[BedTruth]:
        """Return what is true of every bed, for the watchdog."""
        return [bed.truth() for bed in self._beds]

    def restore(self, alarms: Mapping[str, Sequence[Alarm]], sequences: Mapping[str, int]) -> None:
        """Go on with what an earlier process has left open, per bed ("" is the worker), before any stream begins."""
        now_ns = self._clock.monotonic_ns()
        for name, engine in [("", self._engine), *((bed.name, bed.alarms) for bed in self._beds)]:
            self._say(engine.restore(alarms.get(name, ()), self._clock.utc(), now_ns, sequences.get(name, 0)))

    def parts(self, row: int, item: StreamInfo | SampleBlock | LinkState) -> Iterator[StreamInfo | SampleBlock | LinkState]:
        """Cut what a device says into what :meth:`accept` takes at a time: a block into quarters of the ring."""
        if not isinstance(item, SampleBlock):
            return iter((item,))
        length = max(1, self._path.capacity(row) // 4)
        short = item.samples.shape[1] <= length
        return iter((item,)) if short else _cut(item, length, self._beds[row].clock_ns)

    def make_way(self, row: int, item: StreamInfo | SampleBlock | LinkState) -> bool:
        """Work off what must come before ``item``; say whether :meth:`accept` may take it now.

        Both wait for room in the ring: a device that gives much at once is worked on in turns, as all beds are. A recording waits
        for the network too. After :meth:`advance` and :meth:`apply`, ask again.
        """
        bed = self._beds[row]
        if bed.info is None:
            return True
        last = isinstance(item, LinkState) and item.state == "ended"
        if isinstance(item, SampleBlock) and not self._far(row, item):
            return self._path.behind(row) < self._path.capacity(row) // 2
        if isinstance(item, LinkState) and item.state not in ("offline", "ended"):
            return True
        self._path.end(row)
        if bed.live and not last:
            return self._settled(row)
        return self._idle(row)

    def take(self, row: int, block: SampleBlock) -> bool:
        """Take a block of a live bed if that can be at once; False: :meth:`parts`, :meth:`make_way`, :meth:`accept` take it."""
        bed = self._beds[row]
        if bed.info is None or not bed.info.live:
            return False
        capacity, half = self._path.capacity(row), self._path.capacity(row) // 2
        if block.samples.shape[1] > capacity // 4 or block.start - bed.stop > half or self._path.behind(row) >= half:
            return False
        self._fill(row, bed, block)
        return True

    def accept(self, row: int, item: StreamInfo | SampleBlock | LinkState) -> None:
        """Take what a bed's device says; for what :meth:`make_way` has made way.

        Raises
        ------
        ConfigError
            For lead names that cannot be assigned.
        ValueError
            For a rate outside 100 to 1000 Hz.
        """
        match item:
            case StreamInfo():
                self._begin(row, item)
            case SampleBlock():
                self._append(row, item)
            case LinkState():
                self._beds[row].link(item)

    def close(self, reason: str) -> None:
        """End every bed that has not ended."""
        for bed in self._beds:
            bed.close(reason)

    def _begin(self, row: int, info: StreamInfo) -> None:
        bed = self._beds[row]
        bed.begin(info)
        self._path.begin(row, info.fs, bed.slots, bed.stop)
        self._scheduler.reset(row)
        self._relief.begin(row, bed.stop / info.fs)
        self._load.begin(row, self._clock.monotonic_ns())

    def _append(self, row: int, block: SampleBlock) -> None:
        bed = self._beds[row]
        self._fill(row, bed, block, far=self._far(row, block))

    def _fill(self, row: int, bed: Bed, block: SampleBlock, *, far: bool = False) -> None:
        """Put a block into the ring; what it is ``far`` behind is left out."""
        samples = bed.place(block)
        if far:
            self._path.jump(row, block.start)
            self._scheduler.reset(row)
            self._relief.begin(row, block.start / bed.fs)
        overwritten = self._path.append(row, block.start, samples)
        if overwritten:
            detail = f"{overwritten / bed.fs:.2f} s were overwritten unread: the monitor is too slow"
            bed.technical("gap", present=True, detail=detail)

    def _far(self, row: int, block: SampleBlock) -> bool:
        """Return whether a block lies so far behind what came before that the gap is left out."""
        return block.start - self._beds[row].stop > self._path.capacity(row) // 2

    def _settled(self, row: int) -> bool:
        """Return whether what is there of a live bed is worked off, without the rest of a frame; it waits for no network."""
        self._path.hold(row, False)
        if self._path.is_ready(row):
            return False
        self._beds[row].flush()
        return True

    def _idle(self, row: int) -> bool:
        """Return whether everything that came from a bed has been decided on."""
        waits = self._in_flight[row] or self._scheduler.oldest_waiting(row) is not None
        return not waits and not self._path.is_ready(row)

    def advance(self) -> bool:
        """Work on the frames that are ready, all beds together; say whether there is more to do at once."""
        until_ns = self._clock.monotonic_ns() + _CALL_NS
        for _ in range(_FRAMES_PER_CALL):
            ready = self._path.ready()
            for rows in ready:
                self._work(rows)
            if not ready:
                return False
            if self._clock.monotonic_ns() >= until_ns:
                break
        return True

    def _work(self, rows: NDArray[np.intp]) -> None:
        step = self._path.process(rows)
        if self._watch is not None:
            self._watch(step)
        found = step.found
        now_ns = self._clock.monotonic_ns()
        stop_s = (step.frames + 1) * FRAME / FS
        last_ns = self._streams.arrival_ns(rows, stop_s)
        peaks = found.beats.row, found.beats.at
        live = self._live[rows]
        spared = self._spared(step, live, last_ns, now_ns) if live.any() else None
        due = self._scheduler.add(rows, step.frames, step.y, last_ns, live, now_ns, peaks, spared)
        for row in rows[due & ~live].tolist():
            self._hold_if_full(row)
        marks = self._say_beats(step)
        states = np.where(self._path.delivered(rows), found.quality.state, 0)
        calm = self._calm(step, states)
        passed = calm & ~due & ~self._streams.waits[rows] & (stop_s < self._streams.calm_until_s[rows])
        self._streams.pass_over(rows[passed], step.frames[passed], stop_s[passed], last_ns[passed])
        told, seen = self._told(step.frames), ~passed
        chosen = np.flatnonzero(told | seen)
        columns = (
            *(chosen, rows[chosen], stop_s[chosen], last_ns[chosen], told[chosen], seen[chosen]),
            *(found.heart_rate_bpm[chosen], found.quality.usable[chosen], found.fibrillation[chosen], step.wrong_mv[chosen]),
            *(states[chosen].any(axis=1), self._streams.gap_at[rows[chosen]] <= step.last[chosen] + 1),
            *(np.where(due, (step.frames + 1) * FRAME * MODEL_FS // FS, 0)[chosen], calm[chosen]),
        )
        for i, row, at_s, arrived_ns, tells, sees, rate, usable, score, wrong, poor, gap, due_stop, is_calm in zip(
            *(column.tolist() for column in columns), strict=True
        ):
            bed, beats = self._beds[row], tuple(marks.get(row, ()))
            time = bed.time_at(at_s, arrived_ns)
            if beats:
                bed.mark(beats, at_s)
            if tells:
                self._tell(bed, time, at_s, step, i)
            if not sees:
                continue
            wrong_mv = reports.known(wrong)
            moment = Moment(
                at_s=at_s,
                time=time,
                beats=beats if wrong_mv is None else (),
                heart_rate_bpm=reports.known(rate),
                usable=usable,
                fibrillation=reports.known(score),
                leads=bed.not_good(states[i]) if poor else (),
                gap_s=bed.lost_before(int(step.last[i]) + 1) if gap else 0.0,
                due_stop=due_stop or None,
                cut_ns=now_ns,
                wrong_mv=wrong_mv,
                calm=is_calm,
            )
            bed.add(moment)

    def _spared(self, step: FrameResult, live: NDArray[np.bool_], last_ns: NDArray[np.int64], now_ns: int) -> NDArray[np.bool_]:
        """Return ``(R,)`` the live beds that are passed over by the network, for the monitor is too slow for all."""
        self._load.worked(step.rows[live], last_ns[live], now_ns, FRAME_S / self._streams.pace[step.rows[live]])
        self._relief.see(step)
        return self._relief.spared(step.rows, step.frames) & live

    def _calm(self, step: FrameResult, states: NDArray[np.int8]) -> NDArray[np.bool_]:
        """Return ``(R,)`` in which beds nothing happened, see :attr:`AlarmEngine.calm_until_s`; ``(R, 12)`` states of the leads.

        The engine of such a bed need not see the frame, unless it is awake or the network has a say.
        """
        streams, found, rows = self._streams, step.found, step.rows
        rate, score = found.heart_rate_bpm, found.fibrillation
        streams.scores[rows, step.frames % SCORES_KEPT] = score
        calm: NDArray[np.bool_] = (streams.states[rows] == states).all(axis=1)
        streams.states[rows] = states
        calm &= found.quality.usable & np.isnan(step.wrong_mv) & (streams.gap_at[rows] > step.last + 1)
        calm &= ~((rate < self._lowest_bpm[rows]) | (rate > self._highest_bpm[rows]) | (score > CALM_SCORE))
        with_beats = np.zeros(len(self._beds), bool)
        with_beats[found.beats.row] = True
        return calm & ~with_beats[rows]

    def _off(self, rows: NDArray[np.intp], samples: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return ``(R, 12)`` which leads of some beds their devices call disconnected at a sample of each."""
        for i in np.flatnonzero(self._streams.off_at[rows] <= samples).tolist():
            self._beds[rows[i]].off_at(int(samples[i]))
        return self._streams.off[rows]

    def _told(self, frames: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return ``(R,)`` of which beds something is published after their frames that somebody takes."""
        if self._traces and self._wanted(Trace):
            return np.ones(len(frames), bool)
        if self._wanted(Vitals) or self._wanted(Quality):
            told: NDArray[np.bool_] = (frames + 1) % _SECOND == 0
            return told
        return np.zeros(len(frames), bool)

    def _tell(self, bed: Bed, time: datetime, at_s: float, step: FrameResult, i: int) -> None:
        """Publish what is told of the ``i``-th bed of a step."""
        if self._traces and self._wanted(Trace):
            self._publish(Trace(bed.name, time, at_s - FRAME_S, step.y[i]))
        if (step.frames[i] + 1) % _SECOND:
            return
        if self._wanted(Vitals):
            pvc = pvc_per_min(bed.minute(at_s), at_s) if step.found.quality.usable[i] else None
            self._publish(reports.vitals(bed.name, time, at_s, reports.known(float(step.found.heart_rate_bpm[i])), pvc))
        if self._wanted(Quality):
            self._publish(reports.quality(bed.name, time, at_s, bed.slots, step.found.quality, i))

    def _hold_if_full(self, row: int) -> None:
        """A recording of which as many windows wait as may is worked on no further; a live bed never waits."""
        if not self._live[row]:
            self._path.hold(row, self._scheduler.full(row))

    def _say_beats(self, step: FrameResult) -> dict[int, list[BeatMark]]:
        """Publish the beats found, and return them per row."""
        marks: dict[int, list[BeatMark]] = {}
        found, wanted = step.found, self._wanted(Beat)
        places, labels = step.places.tolist(), found.labels.tolist()
        for i, row in enumerate(found.beats.row.tolist()):
            at_s = places[i] / step.fs
            marks.setdefault(row, []).append(BeatMark(at_s, labels[i]))
            if wanted:
                bed = self._beds[row]
                self._publish(reports.beat(bed.name, bed.time_of(at_s), at_s, step.fs, found.beats, labels[i], i))
        return marks

    def next_batch(self) -> list[Window]:
        """Return the next windows for the network; empty if none is due. :meth:`apply` or :meth:`fail` answers."""
        self._asked = True
        windows = self._scheduler.next_batch()
        for window in windows:
            self._in_flight[window.row] += 1
            self._hold_if_full(window.row)
        return windows

    def apply(self, windows: Sequence[Window], prediction: Prediction, model: str) -> None:
        """Take the network's answer to a batch: rhythms are published, the moments that waited for them go on."""
        for part in _one_per_row(windows):
            rows = np.array([windows[i].row for i in part])
            starts = np.array([windows[i].start for i in part])
            reach = np.array([windows[i].reach for i in part])
            if prediction.covers is not None:
                starts = reach - prediction.covers
            said = prediction.rhythm[part]
            self._timeline.add(rows, starts, reach, said, prediction.token_s, edges=not prediction.once)
            self._in_flight[rows] -= 1
            due = [i for i in part if windows[i].decides]
            if due:
                self._decide(windows, due, prediction, model)

    def _decide(self, windows: Sequence[Window], due: Sequence[int], prediction: Prediction, model: str) -> None:
        """Say which rhythm the beds of some windows have, each of another bed, after the network's answer to them."""
        rows, stops = np.array([windows[i].row for i in due]), np.array([windows[i].stop for i in due])
        waited = [self._beds[row].usable_at(int(stop)) for row, stop in zip(rows, stops, strict=True)]
        decision = self._timeline.decide(rows, np.array([usable for usable, _ in waited]))
        seconds = self._seconds(rows)
        self._relief.hear(rows, decision.label, seconds)
        labels, wanted = decision.names, self._wanted(Rhythm)
        for k, i in enumerate(due):
            window, bed = windows[i], self._beds[windows[i].row]
            if wanted and not bed.lost:
                time, now_ns = bed.time_of(window.stop / MODEL_FS), self._clock.monotonic_ns()
                rate = waited[k][1]
                self._publish(reports.rhythm(bed.name, time, bed.fs, window, decision, k, rate, prediction, i, model, now_ns))
            evidence = Evidence(label=labels[k], stop_s=window.stop / MODEL_FS, seconds=tuple(seconds[k].tolist()))
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

    def fail(self, windows: Sequence[Window], detail: str) -> None:
        """Take note that the network gave no answer to a batch: the rules that need none go on."""
        for window in windows:
            self._in_flight[window.row] -= 1
            self._scheduler.restart(window.row)
            self._beds[window.row].resolve(window.stop, None)
        utc = self._clock.utc()
        self.technical(Technical(bed="", time=utc, condition="model-failed", present=True, detail=detail))

    def tick(self) -> None:
        """Let pauses run out, reminders come due and late predictions be late; about once a second."""
        now_ns, utc = self._clock.monotonic_ns(), self._clock.utc()
        for row, bed in enumerate(self._beds):
            if bed.overdue(now_ns, self._config.model_late_s) and row not in self._late:
                self._late.add(row)
                detail = f"no prediction within {self._config.model_late_s:g} s"
                bed.technical("model-late", present=True, detail=detail)
            bed.say(bed.alarms.tick(now_ns, bed.now()))
        self._say(self._engine.tick(now_ns, utc))
        self._check_load(now_ns)

    def _check_load(self, now_ns: int) -> None:
        """Do what a monitor does that is too slow for its beds; tell it, with the figure, and when it keeps up again."""
        waiting = np.zeros(len(self._beds), bool)
        for rows in self._path.ready():
            waiting[rows] = self._live[rows]
        self._relief.disturb(np.flatnonzero([bed.alarms.heart_alarms for bed in self._beds]))
        pressure = self._load.tick(now_ns, self._scheduler.cut, self._scheduler.skipped, waiting, asked=self._asked)
        if self._relief.step(now_ns, pressure.present):
            self._load.restart()
        for row in np.flatnonzero(self._relief.paused != self._paused).tolist():
            self._beds[row].technical("network-paused", present=bool(self._relief.paused[row]))
        self._paused = self._relief.paused.copy()
        level, before = self._relief.level, self._overload
        all_done = pressure.present and level == self._relief.most
        self._overload = overload = (pressure.present or level > 0, level, all_done or (before[2] and before[1] == level))
        if overload == before:
            return
        watched = [row for row, bed in enumerate(self._beds) if bed.live and bed.info and not (bed.lost or bed.ended)]
        done = self._relief.describe(np.array(watched, np.intp))
        too_slow = f"{pressure}" if pressure.present else ""
        detail = "; ".join(part for part in (too_slow, done) if part)
        event = Technical(bed="", time=self._clock.utc(), condition="overload", present=overload[0], detail=detail)
        self._publish(event)

    def clock_set(self, step: Step) -> None:
        """Take note that the wall clock was set, or that the machine slept: then no live bed was watched meanwhile."""
        now_ns = self._clock.monotonic_ns()
        self._say(self._engine.clock_set(step.step_s, self._clock.utc(), now_ns))
        for bed in self._beds:
            if not bed.ended:
                bed.say(bed.alarms.clock_set(step.step_s, bed.now(), now_ns))
                if bed.live and step.slept_s and bed.info is not None:
                    bed.flush()
                    bed.say(bed.alarms.disconnect(bed.now(), now_ns, str(step)))

    def technical(self, event: Technical) -> None:
        """Take what a stage or sink noticed, of one bed or (no bed named) of the worker."""
        row = self._row_of.get(event.bed)
        if row is not None:
            self._beds[row].technical(event.condition, present=event.present, detail=event.detail)
        else:
            self._say(self._engine.technical(event, self._clock.monotonic_ns()))

    def command(self, command: Command) -> None:
        """Carry out a person's order on one bed, the worker (``site/engine/worker``), or with no name on all of them."""
        now_ns, utc = self._clock.monotonic_ns(), self._clock.utc()
        engines = {bed.name: (bed.alarms, bed.now()) for bed in self._beds} | {self._engine_name: (self._engine, utc)}
        chosen = [engine for name, engine in engines.items() if command.bed in ("", name)]
        if not chosen:
            reason = unknown("bed", command.bed, engines)
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
            result, events = engine.command(command, now, now_ns, utc)
            self._publish(result)
            self._say(events)

    def _say(self, events: Sequence[Published]) -> None:
        for event in events:
            self._publish(event)


def _mode_of(config: Config) -> Mode:
    """Return how the network will read; what cannot be read of it is told where it is loaded."""
    try:
        return reading_mode(config.model)
    except EcgnatError:
        return "window"


def _cut(block: SampleBlock, length: int, clock_ns: Callable[[float], int]) -> Iterator[SampleBlock]:
    """Cut a block into parts of at most ``length`` samples, each with the time of its own last sample."""
    for start in range(block.start, block.stop, length):
        stop = min(start + length, block.stop)
        samples = block.samples[:, start - block.start : stop - block.start]
        yield SampleBlock(start, samples, block.t_ns - clock_ns(block.stop - stop), block.lead_off)


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
