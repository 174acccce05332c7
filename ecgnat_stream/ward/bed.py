"""One bed of the ward: its stream's identity and time, and the moments that wait for the network.

A moment is what the signal stages found in one frame. The alarm engine of a bed sees its moments in stream order, each after the
prediction it depends on, so that what is decided depends neither on block sizes nor on replay speed nor on how long the network
took (docs/decisions/0001).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.alarm import AlarmConfig, AlarmEngine, BeatMark, Evidence, Observation
from ecgnat_stream.bus import Published
from ecgnat_stream.clock import Clock
from ecgnat_stream.device import LinkState
from ecgnat_stream.events import DeviceStatus, Technical, Wave
from ecgnat_stream.quality import STATES
from ecgnat_stream.signal import FRAME_S, INPUT_MV, LEADS, SampleBlock, StreamInfo, assign_leads, lead_notes, plainly_within
from ecgnat_stream.ward import reports
from ecgnat_stream.ward.rate import RateWatch
from ecgnat_stream.ward.streams import NONE_AHEAD, SCORES_KEPT, Streams
from ecgnat_stream.watchdog import BedTruth, explains
from ecgnat_stream.words import cleaned

__all__ = ["Bed", "Moment"]

_CLOCK_JUMP_S = 2.0
"""A live device whose samples and whose delivery times drift apart by more than this within one block has jumped."""


class Moment(msgspec.Struct, frozen=True):
    """What the signal stages found in one frame of one bed.

    ``due_stop`` is the model-rate stop of the window that was cut at its end, None if none was. ``calm``: nothing happened in it,
    as :attr:`~ecgnat_stream.alarm.engine.AlarmEngine.calm_until_s` says.
    """

    at_s: float
    time: datetime
    beats: tuple[BeatMark, ...]
    heart_rate_bpm: float | None
    usable: bool
    fibrillation: float | None
    leads: tuple[tuple[str, str], ...]
    gap_s: float
    due_stop: int | None
    cut_ns: int
    wrong_mv: float | None = None
    calm: bool = False


class Bed:
    """State of one bed between device and alarm engine.

    Parameters
    ----------
    name
        ``site/unit/bed``.
    lead_map
        See :func:`~ecgnat_stream.signal.assign_leads`.
    run
        See :class:`~ecgnat_stream.alarm.AlarmEngine`.
    wanted
        Says whether anybody takes events of a type.
    streams, row
        Where the bed's stream is kept among those of all beds; its own if left out.

    Attributes
    ----------
    session
        Of the connection to the device: never below the unix time in s at which it began, and one more at least than that of the
        one before. So it also grows over restarts of the process, without any file.
    judged_ns
        Host monotonic time of the newest usable sample that the alarm engine has really observed; until then, of the bed's
        making. It stands still when the alarm engine gets nothing, whatever the link says.
    judged_s
        How much usable signal the alarm engine has observed so far, s by the host's clock.
    ended
        Why the bed will see nothing more: its recording is over, or the monitor ends it. Empty while it goes on. A bed whose
        device was given up is not ended: it stays lost, under ``no-data``.
    """

    def __init__(
        self,
        name: str,
        lead_map: dict[str, str],
        config: AlarmConfig,
        clock: Clock,
        publish: Callable[[Published], None],
        run: str | None = None,
        *,
        wanted: Callable[[type], bool] | None = None,
        streams: Streams | None = None,
        row: int = 0,
    ) -> None:
        self.name = name
        self._streams, self._row = streams or Streams(1, clock.monotonic_ns()), row
        self._engine = AlarmEngine(name, config, run=run, calm=self._streams.calm_until_s[row : row + 1])
        self._wanted = wanted or _anything
        self.info: StreamInfo | None = None
        self.session = int(clock.utc().timestamp())
        self._connection, self._delivers = 0, False
        self.lost = self._recorded = False
        self.ended: Literal["", "recording", "monitor"] = ""
        self._reach(0, clock.monotonic_ns())
        self._lead_map = lead_map
        self._clock, self._publish = clock, publish
        self._begun = clock.utc()
        self._ends, self._near = False, 0.0
        self._sources: NDArray[np.intp] | slice = slice(None)
        self.slots: NDArray[np.intp] = np.empty(0, np.intp)
        self.marks: deque[BeatMark] = deque()
        self._moments: deque[Moment] = deque()
        self._evidence: Evidence | None = None
        self._resolved = 0
        self._gaps: deque[tuple[int, int]] = deque()
        self._off: deque[tuple[int, NDArray[np.bool_]]] = deque()
        self._off_names: frozenset[str] = frozenset()
        self._off_last = np.zeros(len(LEADS), bool)
        self._states = b""
        self._not_good: tuple[tuple[str, str], ...] = ()
        self._rate = RateWatch(0.0)

    @property
    def alarms(self) -> AlarmEngine:
        """The alarm engine, which has seen every frame up to now that waits for nothing."""
        self._catch_up()
        return self._engine

    def _catch_up(self) -> None:
        """Tell the alarm engine of the frames that were passed over."""
        streams, row = self._streams, self._row
        if streams.passed[row]:
            self._engine.pass_over(self.at_s, streams.passed_scores(row, SCORES_KEPT - 1))
            streams.passed[row] = 0

    @property
    def at_s(self) -> float:
        """Up to where the stream was judged, s."""
        return float(self._streams.at_s[self._row])

    @property
    def judged_ns(self) -> int:
        """See the class."""
        return int(self._streams.judged_ns[self._row])

    @property
    def judged_s(self) -> float:
        """See the class."""
        return float(self._streams.judged_s[self._row])

    def _reach(self, stop: int, last_ns: int) -> None:
        """Note up to which sample the stream has come, and when."""
        self.stop, self.last_ns = stop, last_ns
        self._streams.stop[self._row], self._streams.last_ns[self._row] = stop, last_ns

    @property
    def fs(self) -> float:
        """Device rate in Hz."""
        assert self.info is not None, "a bed has a rate only after its stream has begun"
        return self.info.fs

    def clock_ns(self, samples: float) -> int:
        """Return how long so many samples take by the host's clock, ns."""
        assert self.info is not None, "a bed has a rate only after its stream has begun"
        return self.info.clock_ns(samples)

    @property
    def live(self) -> bool:
        """Whether the source cannot wait."""
        return self.info is None or self.info.live

    @property
    def leads(self) -> tuple[str, ...]:
        """The standard leads that the device delivers."""
        return tuple(LEADS[slot] for slot in self.slots)

    def begin(self, info: StreamInfo) -> None:
        """Begin a stream, the bed's first or another one after a reconnection, which goes on in stream time.

        Raises
        ------
        ConfigError
            For lead names that cannot be assigned.
        """
        used_as = assign_leads(info.leads, self._lead_map, recorded=info.recorded)
        used = [i for i, slot in enumerate(used_as) if slot is not None]
        self._sources = slice(None) if len(used) == len(used_as) else np.array(used, np.intp)
        self.slots = np.array([slot for slot in used_as if slot is not None], np.intp)
        if self.info is not None:
            self._reach(int(np.ceil(self.stop * info.fs / self.info.fs)), self.last_ns)
        else:
            self._begun = self._clock.utc()
        self.info, self._ends = info, info.ends
        self._near = 0.9 * _CLOCK_JUMP_S * info.fs * info.pace
        streams, row = self._streams, self._row
        streams.fs[row], streams.pace[row], streams.live[row] = info.fs, info.pace, info.live
        streams.gap_at[row] = streams.off_at[row] = NONE_AHEAD
        streams.off[row], streams.states[row] = False, -1
        self._states = b""
        self._forget_rate()
        self.lost = False
        if self._delivers:
            self._next_session()
        self._delivers = True
        self.marks.clear()
        self._gaps.clear()
        self._off.clear()
        self._off_names, self._off_last = frozenset(), np.zeros(len(LEADS), bool)
        self.say(self.alarms.begin(self.now(), self._clock.monotonic_ns()))
        notes = lead_notes(info.leads, self._lead_map) if info.recorded else []
        told = replace(info, device=cleaned("; ".join((info.device, *notes))))
        self._publish(reports.meta(self.name, self.now(), told, used_as, self.session))

    def _next_session(self) -> None:
        self.session = max(self.session + 1, int(self._clock.utc().timestamp()))
        self._delivers = False

    def say(self, events: Iterable[Published]) -> None:
        """Publish events."""
        for event in events:
            self._publish(event)

    def place(self, block: SampleBlock) -> NDArray[np.float32]:
        """Note a block's place, time, gap and lead-off state, publish it; return the samples of the leads in :attr:`slots`."""
        assert self.info is not None, "blocks come after begin()"
        block, info, stop = _within_input(block), self.info, block.stop
        if info.live and self.stop and stop - self.stop > self._near and self._jumped(block):
            samples_s, clock_s = (stop - self.stop) / self.fs, info.pace * (block.t_ns - self.last_ns) / 1e9
            detail = f"{samples_s:.1f} s of samples within {clock_s:.1f} s"
            self.technical("clock-jump", present=True, detail=detail)
            self._rate.restart()
        if not self._ends and self._rate.see(stop, self._clock.monotonic_ns()):
            detail = f"{self.fs:g} Hz declared, {self._rate.measured_hz / info.pace:.4g} Hz measured"
            self.technical("rate-mismatch", present=self._rate.differs, detail=detail if self._rate.differs else "")
        if block.start > self.stop:
            self._gaps.append((self.stop, block.start))
            self._streams.gap_at[self._row] = self._gaps[0][1]
        self._reach(stop, block.t_ns)
        if block.lead_off != self._off_names:
            self._hear_off(block)
        if self._wanted(Wave):
            time = self.time_of(block.start / info.fs)
            self._publish(Wave(self.name, time, info.fs, info.leads, info.uv_per_lsb, block, info.pace))
        return block.samples[self._sources]

    def _hear_off(self, block: SampleBlock) -> None:
        """Take what the device says of its leads, which it has not said before."""
        assert self.info is not None, "blocks come after begin()"
        self._off_names = block.lead_off
        off = np.zeros(len(LEADS), bool)
        sources = np.arange(len(self.info.leads))[self._sources]
        for source, slot in zip(sources.tolist(), self.slots, strict=True):
            off[slot] = self.info.leads[source] in block.lead_off
        if not np.array_equal(off, self._off_last):
            self._off.append((block.start, off))
            self._off_last = off
            self._streams.off_at[self._row] = self._off[0][0]

    def _jumped(self, block: SampleBlock) -> bool:
        by_samples_s = self.clock_ns(block.stop - self.stop) / 1e9
        by_clock_s = (block.t_ns - self.last_ns) / 1e9
        # A block that was held up and is followed by a burst is late, not a jump; only samples that run ahead of time are.
        return by_samples_s - max(by_clock_s, 0.0) > _CLOCK_JUMP_S

    def time_of(self, at_s: float) -> datetime:
        """Return the wall time of a place on the stream: by the newest sample of a live one, by the start of a recording."""
        if self.live and self.info is not None:
            return self._clock.utc(self.arrival_ns(at_s))
        return self._begun + timedelta(seconds=at_s)

    def time_at(self, at_s: float, arrived_ns: int) -> datetime:
        """Return :meth:`time_of` a place whose :meth:`arrival_ns` is known."""
        return self._clock.utc(arrived_ns) if self.live and self.info is not None else self._begun + timedelta(seconds=at_s)

    def now(self) -> datetime:
        """Return the time of an event that is not about a sample: the host's, or within a recording how far it has come."""
        return self._clock.utc() if self.live else self.time_of(self.at_s)

    def arrival_ns(self, at_s: float) -> int:
        """Return the host's monotonic time of a place on the stream."""
        return self.last_ns - self.clock_ns(self.stop - at_s * self.fs)

    def off_at(self, sample: int) -> NDArray[np.bool_]:
        """Return ``(12,)`` which leads the device calls disconnected at a sample; samples are asked for in order."""
        streams, row = self._streams, self._row
        while self._off and self._off[0][0] <= sample:
            streams.off[row] = self._off.popleft()[1]
        streams.off_at[row] = self._off[0][0] if self._off else NONE_AHEAD
        off: NDArray[np.bool_] = streams.off[row]
        return off

    def lost_before(self, sample: int) -> float:
        """Return how many seconds were lost before a sample, each once."""
        lost = 0
        while self._gaps and self._gaps[0][1] <= sample:
            start, stop = self._gaps.popleft()
            lost += stop - start
        self._streams.gap_at[self._row] = self._gaps[0][1] if self._gaps else NONE_AHEAD
        return lost / self.fs

    def not_good(self, states: NDArray[np.int8]) -> tuple[tuple[str, str], ...]:
        """Return the delivered leads that are not good, with the names of their states; ``(12,)`` codes of these."""
        given = states.tobytes()
        if given != self._states:
            named = [(LEADS[slot], STATES[states[slot]]) for slot in self.slots]
            self._states, self._not_good = given, tuple([(lead, state) for lead, state in named if state != "good"])
        return self._not_good

    def mark(self, beats: Iterable[BeatMark], at_s: float) -> None:
        """Keep beats that were found up to ``at_s`` for a minute."""
        self.marks.extend(beats)
        self.minute(at_s)

    def minute(self, at_s: float) -> Sequence[BeatMark]:
        """Return the beats of the last minute; older ones are forgotten."""
        while self.marks and self.marks[0].at_s < at_s - 60.0:
            self.marks.popleft()
        return self.marks

    @property
    def waiting(self) -> bool:
        """Whether moments wait for a prediction."""
        return bool(self._moments)

    def add(self, moment: Moment) -> None:
        """Take the next frame's moment; the alarm engine sees it at once unless it or an earlier one waits for the network."""
        self._catch_up()
        self._moments.append(moment)
        self._release()

    def usable_at(self, due_stop: int) -> tuple[bool, float | None]:
        """Return the signal's usability and the heart rate where a window stopped."""
        for moment in self._moments:
            if moment.due_stop == due_stop:
                return moment.usable, moment.heart_rate_bpm
        return True, None

    def resolve(self, due_stop: int, evidence: Evidence | None) -> None:
        """Take the network's opinion (None: none) on the window that stopped at ``due_stop``; let the moments up to it go."""
        self._evidence = evidence or self._evidence
        self._resolved = max(self._resolved, due_stop)
        self._release()

    def overdue(self, now_ns: int, bound_s: float) -> bool:
        """Let moments go whose prediction is later than ``bound_s``; say whether there were any. Recordings wait."""
        late = False
        while self.live and self._moments and now_ns - self._moments[0].cut_ns > bound_s * 1e9:
            self._resolved = self._moments[0].due_stop or self._resolved
            self._release()
            late = True
        return late

    def flush(self) -> None:
        """Let every moment go: nothing more will come."""
        while self._moments:
            self._resolved = self._moments[0].due_stop or self._resolved
            self._release()

    def _release(self) -> None:
        streams, row, engine = self._streams, self._row, self._engine
        while self._moments and (self._moments[0].due_stop is None or self._moments[0].due_stop <= self._resolved):
            moment, evidence = self._moments.popleft(), self._evidence
            self._evidence = None
            streams.at_s[row] = at_s = moment.at_s
            calm = moment.calm and at_s < engine.calm_until_s
            if calm and (evidence is None or engine.takes_calmly(evidence, at_s)):
                engine.pass_over(at_s, (moment.fibrillation,), evidence)
                self._judged(at_s)
                continue
            observation = Observation(
                at_s=moment.at_s,
                beats=moment.beats,
                heart_rate_bpm=moment.heart_rate_bpm,
                usable=moment.usable,
                fibrillation=moment.fibrillation,
                leads=moment.leads,
                rhythm=evidence,
                gap_s=moment.gap_s,
                wrong_mv=moment.wrong_mv,
            )
            self.say(engine.observe(observation, moment.time, self._clock.monotonic_ns()))
            if moment.usable and engine.at_s == at_s:
                self._judged(at_s)
        streams.waits[row] = bool(self._moments) or self._evidence is not None

    def _judged(self, at_s: float) -> None:
        """Note that the frame that ends at ``at_s`` was judged."""
        streams, row = self._streams, self._row
        streams.judged_ns[row] = max(self.judged_ns, self.arrival_ns(at_s))
        streams.judged_s[row] += FRAME_S / streams.pace[row]

    def truth(self) -> BedTruth:
        """Return what is true of this bed now, for the watchdog."""
        told = frozenset(alarm.condition for alarm in self.alarms.active() if explains(alarm))
        recorded = self._recorded or (self.info is not None and self.info.recorded)
        return BedTruth(self.name, self.live, self.judged_ns, told, bool(self.ended), self.judged_s, recorded)

    def technical(self, condition: str, *, present: bool, detail: str = "") -> None:
        """Tell the alarm engine what a stage noticed about this bed."""
        event = Technical(bed=self.name, time=self.now(), condition=condition, present=present, detail=detail)
        self.say(self.alarms.technical(event, self._clock.monotonic_ns()))

    def link(self, state: LinkState) -> None:
        """Take a change of the link to the device: a lost one leaves no stale value behind and raises ``no-data``."""
        now, now_ns = self.now(), self._clock.monotonic_ns()
        self._recorded |= state.recorded
        if state.session > self._connection:
            self._connection = state.session
            self._next_session()
        self._publish(DeviceStatus(bed=self.name, time=now, state=state.state, detail=state.detail, session=self.session))
        if state.state == "online":
            self.lost = False
        elif state.state in ("stalled", "offline") or (state.state == "ended" and not self._ends):
            # A live stream has no end of its own: whatever was latched stays so until a person or the monitor ends the bed.
            self._lose(now, "no data")
            self.say(self.alarms.disconnect(now, now_ns, state.detail or state.state))
        elif state.state == "ended":
            self._end("recording", now, now_ns)

    def close(self, reason: str) -> None:
        """End the bed for the monitor, which ends too, unless it has ended: every alarm ends, latched ones too."""
        if self.ended:
            return
        now = self.now()
        self._publish(DeviceStatus(bed=self.name, time=now, state="ended", detail=reason, session=self.session))
        self._end("monitor", now, self._clock.monotonic_ns())

    def _end(self, why: Literal["recording", "monitor"], now: datetime, now_ns: int) -> None:
        self._lose(now, "ended")
        self.ended = why
        self.say(self.alarms.close(now, now_ns))

    def _forget_rate(self) -> None:
        """Measure the rate of what comes next anew; what was said of it is over."""
        if self._rate.differs:
            self.technical("rate-mismatch", present=False)
        self._rate = RateWatch(self.fs * self.info.pace if self.info is not None else 0.0)

    def _lose(self, now: datetime, reason: str) -> None:
        self.flush()
        self.lost = True
        self._forget_rate()
        self._blank(now, reason)

    def _blank(self, now: datetime, reason: str) -> None:
        """Take back every value that is shown: nothing is known any more."""
        self.say(reports.blank(self.name, now, self.at_s, self.stop, reason, self._clock.monotonic_ns()))


def _within_input(block: SampleBlock) -> SampleBlock:
    """Return a block without values that no amplifier gives: they are at its rail. Here enters every sample that is judged."""
    if plainly_within(block.samples) or not (np.abs(block.samples) > INPUT_MV).any():
        return block
    return replace(block, samples=np.clip(block.samples, -INPUT_MV, INPUT_MV))


def _anything(kind: type) -> bool:
    """Say that events of every type are wanted."""
    return True
