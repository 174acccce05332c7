"""The map: every stage, and how they are joined. Read this file first.

    devices -> supervise -> [ring -> condition -> quality, beats -> schedule] -> model -> rhythm -> alarm -> bus -> sinks
                            '----------------- ward ---------------------'

One task per device and per sink; one task that works on frames, one that feeds the network, one that ticks. All of them live in
one TaskGroup and one event loop; only the network has a thread of its own. A task that fails becomes a technical alarm here, and
the others go on.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from ecgnat_stream.bus import Bus
from ecgnat_stream.clock import Clock
from ecgnat_stream.config import Config
from ecgnat_stream.device import Device, LinkState, open_device, supervise
from ecgnat_stream.errors import EcgnatError, SinkError
from ecgnat_stream.events import Command, EngineStatus, Technical
from ecgnat_stream.model import Predictor
from ecgnat_stream.signal import SampleBlock, StreamInfo, Window
from ecgnat_stream.sink.history import HistorySink
from ecgnat_stream.sink.history.read import unfinished
from ecgnat_stream.sink.mqtt import MqttSink
from ecgnat_stream.sink.record import RecordSink
from ecgnat_stream.sink.zmq import ZmqSink
from ecgnat_stream.ward import Progress, Ward

__all__ = ["Monitor", "Sink"]

_LIVE_PACE_S = 0.02
"""Live beds are worked on at most so often: blocks of many beds that arrive together are then one batch."""

_STUMBLES = 20
"""So many failures of one task in a row end the monitor: it cannot be trusted to mend itself."""

_TICK_S = 1.0
_STATUS_TICKS = 10
_CLOSE_S = 5.0
"""Sinks that have not read out their queue so long after the end are cut off, and named."""


class Sink(Protocol):
    """A receiver of events: subscribes when it is built, reads until the bus is closed."""

    async def run(self) -> None:
        """Consume until the bus is closed and the queue is read out."""
        ...


class Monitor:
    """Everything between the devices and the sinks of one process.

    Parameters
    ----------
    config
        See :class:`~ecgnat_stream.config.Config`.
    clock
        Where time comes from.
    open_links
        Per bed what builds its device, instead of the adapters that the configuration names; for tests and for embedding.
    traces
        Whether conditioned frames are published, for drawing.
    """

    def __init__(
        self,
        config: Config,
        clock: Clock,
        *,
        open_links: Sequence[Callable[[], Device]] | None = None,
        traces: bool = False,
    ) -> None:
        self.config, self.clock, self.bus = config, clock, Bus()
        self.beds = tuple(config.name_of(bed) for bed in config.bed)
        self.failures: dict[str, str] = {}
        self.model = ""
        self._open_links = open_links or [self._opener(row) for row in range(len(self.beds))]
        self.ward = Ward(config, clock, self.bus.publish, traces=traces)
        self._sinks: list[tuple[Sink, bool]] = []
        self._wake, self._due, self._passed, self._stop = (asyncio.Event() for _ in range(4))
        self._finished = np.zeros(len(self.beds), bool)
        self._windows = 0
        self._stumbles: Counter[str] = Counter()
        self._session = int(clock.utc().timestamp())
        self._commands = self.bus.subscribe("commands", Command, capacity=1000)
        self.bus.listen(self._technical, Technical)

    def _opener(self, row: int) -> Callable[[], Device]:
        bed = self.config.bed[row]
        return lambda: open_device(bed.device, bed.options, self.clock)

    def add(self, sink: Sink, *, essential: bool = False) -> None:
        """Add a sink, before :meth:`run`; with an ``essential`` one (what a person looks at) the monitoring ends."""
        self._sinks.append((sink, essential))

    def stop(self) -> None:
        """End the monitoring: devices are closed, what was published is delivered, sinks are closed."""
        self._stop.set()

    async def run(self) -> None:
        """Monitor until every recording has ended, :meth:`stop` is called or a sink that a person uses is closed.

        Raises
        ------
        EcgnatError
            If a part cannot be started at all: a port in use, a folder that is not writable. A network that cannot be loaded is
            a technical alarm instead.
        """
        async with AsyncExitStack() as stack:
            config = self.config
            name = {"site": config.site, "worker": config.worker}
            if config.mqtt is not None:
                self.add(MqttSink(config.mqtt, self.bus, self.clock, session=self._session, **name))
            if config.zmq is not None:
                self.add(ZmqSink(config.zmq, self.bus, self.clock, **name))
            if config.record is not None:
                self.add(RecordSink(config.record, self.bus, self.clock))
            if config.history is not None:
                self.add(HistorySink(config.history, self.bus, self.clock))
                await self._restore(Path(config.history.path))
            sinks = [asyncio.create_task(self._sink(*sink), name=type(sink[0]).__name__) for sink in self._sinks]
            stack.push_async_callback(self._close, sinks)
            await self._work_until_done()

    async def _restore(self, history: Path) -> None:
        """Take up the alarms that a monitor which was killed has left in the history: what was latched stays so."""
        try:
            alarms, sequences = await asyncio.to_thread(unfinished, history)
        except SinkError as error:
            self.failures["history"] = f"earlier alarms are not taken up: {error}"
            return
        self.ward.restore(alarms, sequences)

    async def _work_until_done(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                work = [group.create_task(self._intake(row), name=f"intake {bed}") for row, bed in enumerate(self.beds)]
                work += [group.create_task(task(), name=task.__name__) for task in (self._predict, self._tick, self._obey)]
                done = group.create_task(self._advance(), name="advance")
                stopped = group.create_task(self._stop.wait(), name="stop")
                await asyncio.wait((done, stopped), return_when=asyncio.FIRST_COMPLETED)
                for task in (*work, done, stopped):
                    task.cancel()
        except* EcgnatError as failures:
            self.stop()  # nobody is to look at a monitor that has failed: the reason is told where it ends
            errors = failures.exceptions
            raise errors[0] if len(errors) == 1 else EcgnatError("; ".join(map(str, errors))) from None

    async def _sink(self, sink: Sink, essential: bool) -> None:
        name = type(sink).__name__
        try:
            await sink.run()
        except Exception as error:  # noqa: BLE001 - the task border: a sink that fails is a technical alarm, the others go on
            self.failures[name] = f"{error}"
            self._report("sink-stuck", f"{name} has failed: {error}")
        if essential:
            self.stop()

    async def _close(self, sinks: Sequence[asyncio.Task[None]]) -> None:
        for bed in self.ward.beds:
            if not bed.ended:
                bed.link(LinkState("ended", "the monitor has ended", bed.session))
        self._say_status(online=False)
        self.bus.close()
        if not sinks:
            return
        if any(essential for _, essential in self._sinks):
            # The recordings may have ended, but a person still looks; an essential sink that ends sets the event too.
            await self._stop.wait()
        _, stuck = await asyncio.wait(sinks, timeout=_CLOSE_S)
        for task in stuck:
            self.failures[task.get_name()] = f"did not deliver everything within {_CLOSE_S:g} s of the end"
            task.cancel()
        await asyncio.gather(*sinks, return_exceptions=True)

    async def _intake(self, row: int) -> None:
        """Carry one device's samples to the ward; what goes wrong with it concerns this bed only."""
        try:
            async with aclosing(supervise(self._open_links[row], self.clock, self.config.device)) as link:
                async for item in link:
                    await self._take(row, item)
        except EcgnatError as error:
            await self._lose(row, str(error))
        except Exception as error:  # noqa: BLE001 - the task border: one bed's defect is its own technical alarm
            await self._lose(row, f"{type(error).__name__}: {error}")
        await self._drained(row)
        self._finished[row] = True
        self._wake.set()

    async def _take(self, row: int, item: StreamInfo | SampleBlock | LinkState) -> None:
        bed = self.ward.beds[row]
        match item:
            case StreamInfo():
                await self._settled(row)
                self.ward.begin(row, item)
            case SampleBlock():
                for part in _parts(item, self.ward.largest_block(row), bed.fs):
                    await self._append(row, part)
            case LinkState():
                if item.state == "ended":
                    await self._drained(row)
                elif item.state == "offline":
                    await self._settled(row)
                    self.failures[bed.name] = item.detail
                elif item.state == "online":
                    self.failures.pop(bed.name, None)
                bed.link(item)

    async def _append(self, row: int, block: SampleBlock) -> None:
        bed = self.ward.beds[row]
        if self.ward.far(row, block):
            await self._settled(row)
        self.ward.append(row, block)
        self._wake.set()
        while not bed.live and not self.ward.room(row):
            await self._passed.wait()
        if not bed.live:
            await self.bus.drained()

    async def _settled(self, row: int) -> None:
        """Have decided what there is of a bed before something else begins; a live one does not wait for the network."""
        bed = self.ward.beds[row]
        if bed.info is None:
            return
        if bed.live:
            self.ward.settle(row)
        else:
            await self._drained(row)

    async def _lose(self, row: int, detail: str) -> None:
        bed = self.ward.beds[row]
        await self._settled(row)
        self.failures[bed.name] = detail
        bed.link(LinkState("offline", detail, bed.session))

    async def _drained(self, row: int) -> None:
        """Wait until everything that came from a bed has been decided on."""
        self.ward.end(row)
        self._wake.set()
        while not self.ward.idle(row):
            await self._passed.wait()

    async def _advance(self) -> None:
        """Work on frames as they become ready; return when every recording has ended."""
        while not (len(self.beds) and self._finished.all()):
            await self._wake.wait()
            self._wake.clear()
            more = bool(self._guarded("advance", self.ward.advance))
            if len(self.ward.scheduler):
                self._due.set()
            self._passed.set()
            self._passed = asyncio.Event()
            if more:
                self._wake.set()
                await asyncio.sleep(0)
            elif all(bed.live for bed in self.ward.beds):
                await self.clock.sleep_until(self.clock.monotonic_ns() + round(_LIVE_PACE_S * 1e9))

    async def _predict(self) -> None:
        """Feed the network, one batch in flight; what it cannot do is a technical alarm, and the rules go on without it."""
        predictor = await self._load()
        try:
            while True:
                windows = self.ward.take()
                if not windows:
                    self._due.clear()
                    await self._due.wait()
                    continue
                if predictor is None:
                    self.ward.fail(windows, self.failures["model"])
                    await asyncio.sleep(0)
                else:
                    await self._answer(predictor, windows)
                self._wake.set()
        finally:
            if predictor is not None:
                predictor.close()

    async def _load(self) -> Predictor | None:
        """Return the network; None, and a technical alarm, if it cannot be loaded: the monitoring goes on without."""
        try:
            predictor = await asyncio.to_thread(Predictor, self.config.model)
        except Exception as error:  # noqa: BLE001 - the task border: whatever is wrong with it must not end the monitoring
            self.failures["model"] = f"{type(error).__name__}: {error}"
            self._report("model-failed", self.failures["model"])
            self._say_status(online=True, detail=f"no network: {self.failures['model']}")
            return None
        self.model = predictor.path.name
        self._say_status(online=True, detail=predictor.describe())
        return predictor

    async def _answer(self, predictor: Predictor, windows: list[Window]) -> None:
        samples = np.stack([window.samples for window in windows])
        beats = np.full((len(windows), max(1, *(len(window.beats) for window in windows))), np.nan, np.float32)
        for row, window in zip(beats, windows, strict=True):
            row[: len(window.beats)] = window.beats
        try:
            prediction = await asyncio.wrap_future(predictor.submit(samples, beats))
            self._windows += len(windows)
            self.ward.apply(windows, prediction, predictor.path.name)
        except Exception as error:  # noqa: BLE001 - the task border: a failing network must not end the monitoring
            self.failures["model"] = f"{type(error).__name__}: {error}"
            self.ward.fail(windows, self.failures["model"])
            return
        if self.failures.pop("model", None) is not None:
            self._report("model-failed", "", present=False)

    async def _tick(self) -> None:
        """Once a second: pauses, reminders, stuck sinks; now and then the worker's own status."""
        stuck: tuple[str, ...] = ()
        count = 0
        next_ns = self.clock.monotonic_ns()
        while True:
            next_ns += round(_TICK_S * 1e9)
            await self.clock.sleep_until(next_ns)
            self._guarded("tick", self.ward.tick)
            if self.bus.overfull != stuck:
                stuck = self.bus.overfull
                self._report("sink-stuck", ", ".join(stuck), present=bool(stuck))
            count += 1
            if count % _STATUS_TICKS == 0:
                self._say_status(online=True)

    async def _obey(self) -> None:
        """Carry out commands, in order."""
        async for command in self._commands:
            assert isinstance(command, Command)
            self._guarded("command", partial(self.ward.command, command))

    def _technical(self, event: object) -> None:
        assert isinstance(event, Technical)
        self._guarded("technical", partial(self.ward.technical, event))

    def _guarded(self, what: str, work: Callable[[], object]) -> object:
        """Do one piece of work; a defect in it is a technical alarm, and many in a row end the monitor with an error."""
        try:
            result = work()
        except Exception as error:
            self._stumbles[what] += 1
            self.failures[what] = f"{type(error).__name__}: {error}"
            if self._stumbles[what] >= _STUMBLES:
                raise EcgnatError(f"{what} failed {_STUMBLES} times in a row, last with {self.failures[what]}") from error
            if what != "technical":
                self._report("worker-lost", f"{what}: {self.failures[what]}")
            self._wake.set()
            return None
        if self._stumbles.pop(what, 0):
            self._report("worker-lost", "", present=False)
        return result

    def _report(self, condition: str, detail: str, *, present: bool = True) -> None:
        self.bus.publish(self.ward.report(condition, detail, present=present))

    def _say_status(self, *, online: bool, detail: str = "") -> None:
        event = EngineStatus(
            bed="",
            time=self.clock.utc(),
            site=self.config.site,
            worker=self.config.worker,
            online=online,
            session=self._session,
            model=self.model,
            beds=len(self.beds),
            windows=self._windows,
            skipped_windows=int(self.ward.scheduler.skipped.sum()),
            detail=detail,
        )
        self.bus.publish(event)

    def progress(self) -> list[Progress]:
        """Return how far each bed has come."""
        return [self.ward.progress(row) for row in range(len(self.beds))]


def _parts(block: SampleBlock, length: int, fs: float) -> Iterator[SampleBlock]:
    """Cut a block into parts of at most ``length`` samples, each with the time of its own last sample."""
    for start in range(block.start, block.stop, length):
        stop = min(start + length, block.stop)
        samples = block.samples[:, start - block.start : stop - block.start]
        yield SampleBlock(start, samples, block.t_ns - round((block.stop - stop) / fs * 1e9), block.lead_off)
