"""The map: every stage, and how they are joined. Read this file first.

    devices -> supervise -> [ ward: ring -> condition -> quality, beats, fibrillation -> schedule ] -> model
                            [ alarm engine of each bed <- rhythm timeline <------------------------- ] <- '
                                   |
                                   '-> bus -> sinks: dashboard, MQTT, ZeroMQ, recorder, history, JSON lines

The ward holds all beds: their signal, the rhythm that the network's answers add up to, and an alarm engine each. One task per
device and per sink; one task that works on frames, one that feeds the network, one that ticks, one that only watches whether
all this is so (``watchdog``). All of them live in one event loop; only the network has a thread of its own. A task that fails
becomes a technical alarm here, and the others go on; a sink that fails is started again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import numpy as np
from msgspec.structs import replace

from ecgnat_stream.bus import Bus, Policy
from ecgnat_stream.clock import Clock, SystemClock
from ecgnat_stream.config import BedConfig, Config, load_config
from ecgnat_stream.device import Device, LinkState, open_device, supervise
from ecgnat_stream.errors import ConfigError, DeviceError, EcgnatError, SinkError, WatchdogError
from ecgnat_stream.events import Alarm, Command, EngineStatus, Event, Technical, Trace, Wave
from ecgnat_stream.model import ModelConfig, monitoring, reading_mode
from ecgnat_stream.sidethread import SideThread
from ecgnat_stream.signal import SampleBlock, StreamInfo, Window, assign_leads, check_lead_map
from ecgnat_stream.sink.keeper import Keeper, Sink, leave
from ecgnat_stream.ward import BedProgress, Ward
from ecgnat_stream.watchdog import Accountable, Watchdog
from ecgnat_stream.workername import own_name

if TYPE_CHECKING:
    from ecgnat_stream.model import Predictor, Reader

__all__ = ["Monitor", "Sink"]

_log = logging.getLogger(__name__)

_LIVE_PACE_S = 0.02
"""Live beds are worked on at most so often: blocks of many beds that arrive together are then one batch."""

_OPEN_APART_S = 0.03
"""Beds are opened one after the other, at most so far apart and all within one hop: of live beds that begin at one instant, all
windows would fall due at one instant too, and wait for each other (docs/decisions/0007)."""

_OPEN_AT_ONCE = 32
"""Of the beds whose turn has come at most so many are opened before all other tasks have theirs: a loop that opens a thousand at
a time looks at none."""

_SHARE_NS = 50_000_000
"""So long devices hand over in one round of the event loop; then every other task has its turn. Else a thousand devices that all
have something to give would keep ticks, watchdog and sinks waiting for seconds."""

_STUMBLES = 20
"""So many failures of one task in a row end the monitor: it cannot be trusted to mend itself."""

_TICK_S = 1.0
_STATUS_TICKS = 10
_LEAVE_S = 3.5
"""Tasks that have not heeded their cancellation after this time are left behind, and named. A device may take 3 s to leave."""

_LOADED_S = 3.0
"""At the end the network's loading is waited for: an interpreter that ends while libraries are loaded is aborted by them."""

_E = TypeVar("_E", bound=Event | Wave | Trace)


class Monitor:
    """Everything between the devices and the sinks of one process.

    Use it as an async context manager, in a program or in a notebook::

        async with Monitor(config) as monitor:
            async for event in monitor.events(Alarm, Rhythm):
                print(event)

    Leaving the block stops the monitoring; what failed is raised there, also when no bed's device could be used. Or call
    :meth:`run`, which returns when all has ended. What went wrong meanwhile is in ``failures``, by bed or part.

    Parameters
    ----------
    config
        See :class:`~ecgnat_stream.config.Config`, or the path of a TOML file; the default settings, without beds, if left out.
    clock
        Where time comes from; the system's clocks if left out.
    devices
        Bed id to the device that serves it: an object, or a function that builds one for every connection. A bed that the
        configuration does not name is added; one that it names keeps its limits and its ``lead_map``.
    traces
        Whether conditioned frames are published, for drawing.

    Raises
    ------
    ConfigError
        For a bed without a device.
    """

    def __init__(
        self,
        config: Config | str | os.PathLike[str] | None = None,
        clock: Clock | None = None,
        *,
        devices: Mapping[str, Device | Callable[[], Device]] | None = None,
        traces: bool = False,
    ) -> None:
        given = {} if devices is None else devices
        self.config = _completed(_settings(config), given)
        self.clock, self.bus = clock or SystemClock(), Bus()
        self.beds = tuple(self.config.name_of(bed) for bed in self.config.bed)
        self.failures: dict[str, str] = {}
        self.model = ""
        self._open_links = [self._opener(bed, given.get(bed.id)) for bed in self.config.bed]
        self._ward = Ward(self.config, self.clock, self.bus.publish, traces=traces, wanted=self.bus.wanted)
        self._running: asyncio.Task[None] | None = None
        self._begun = self._ended = False
        self._wake, self._due, self._passed, self._stop = (asyncio.Event() for _ in range(4))
        self._openings = asyncio.Semaphore(_OPEN_AT_ONCE)
        self._round_ns: int | None = None
        self._next = asyncio.Event()
        self._finished = np.zeros(len(self.beds), bool)
        self._hurt: set[int] = set()
        self._defects: dict[int, Exception] = {}
        self._windows = 0
        self._stumbles: Counter[str] = Counter()
        self._session = int(self.clock.utc().timestamp())
        self._commands = self.bus.subscribe("commands", Command, capacity=1000)
        self.bus.listen(self._technical, Technical)
        self._watchdog = Watchdog(
            self.config.watchdog, self.config.patience_s, self.bus, self.clock, self._ward.truths, self.bus.publish
        )
        self._keeper = Keeper(self.bus, self.clock, self._sink_failed, self._sink_works, self.stop)

    def _opener(self, bed: BedConfig, device: Device | Callable[[], Device] | None) -> Callable[[], Device]:
        if device is None:
            return lambda: open_device(bed.device, bed.options, self.clock)
        if isinstance(device, type) or not isinstance(device, Device):
            return device
        return lambda: device

    async def __aenter__(self) -> Self:
        if self._running is not None:
            raise EcgnatError("a monitor runs once: build another one")
        self._running = asyncio.create_task(self.run(), name="monitor")
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        assert self._running is not None, "left before it was entered"
        by_itself = self._ended
        self.stop()
        failed = (await asyncio.gather(self._running, return_exceptions=True))[0]
        if exc is not None:
            return
        if failed is not None:
            raise failed
        for what, why in self.failures.items():
            _log.warning("%s: %s", what, why)
        if by_itself and self.beds and all(bed in self.failures for bed in self.beds):
            raise DeviceError("; ".join(f"{bed}: {self.failures[bed]}" for bed in self.beds), permanent=True)

    @property
    def watched_ns(self) -> int:
        """Monotonic time at which the watchdog last looked at every bed: who guards the process looks at this."""
        return self._watchdog.checked_ns

    @property
    def skipped_windows(self) -> int:
        """How many windows the network never saw, since newer ones replaced them."""
        return self._ward.skipped_windows

    def events(self, *types: type[_E], policy: Policy = Policy.KEEP) -> AsyncGenerator[_E]:
        """Return what is published from now on, until the monitor ends.

        Call it before anything is awaited within the ``async with`` block, and nothing is missed. A recording waits for a
        reader that is slow; a live bed does not, and a reader that is far behind is told as a technical alarm.

        Parameters
        ----------
        types
            Event classes; left out, every event but waveforms.
        policy
            ``NEWEST`` gives the latest value of each kind and bed instead of every one.

        Raises
        ------
        ConfigError
            For what is no class of events.
        EcgnatError
            If the monitor has ended; while reading, if it was never started.
        """
        if self._ended:
            raise EcgnatError("this monitor has ended: nothing more will come")
        for kind in types:
            if not (isinstance(kind, type) and issubclass(kind, Event | Wave | Trace)):
                raise ConfigError(f"monitor.events({kind!r}): give classes of events, such as ecgnat_stream.Alarm")
        subscription = self.bus.subscribe("events()", *(types or (Event,)), policy=policy)

        async def read() -> AsyncGenerator[Any]:
            try:
                await asyncio.sleep(0)  # a task that was made to run the monitor has its turn
                if not self._begun:
                    raise EcgnatError("this monitor was not started: use `async with monitor`, or run() in a task")
                async for event in subscription:
                    yield event
            finally:
                self.bus.unsubscribe(subscription)

        return read()

    def add(self, sink: Sink, *, essential: bool = False) -> None:
        """Add a sink; when an ``essential`` one (what a person looks at) ends, the monitoring ends."""
        if hasattr(sink, "alarms_delivered"):
            self._watchdog.hold_to_account(cast(Accountable, sink))
        self._keeper.add(sink, essential=essential)

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
        self._begun = True
        _log.info("this monitor is %s/engine/%s", self.config.site, self.config.worker)
        async with AsyncExitStack() as stack:
            stack.callback(self._end)
            await self._add_configured()
            self._keeper.start()
            stack.push_async_callback(self._close)
            await self._work_until_done()

    def _end(self) -> None:
        self._ended = True
        self.bus.close()

    async def _add_configured(self) -> None:
        """Add the sinks that the configuration names; what none needs is not imported."""
        config, bus, clock = self.config, self.bus, self.clock
        name = {"site": config.site, "worker": config.worker}
        if config.mqtt is not None:
            from ecgnat_stream.sink.mqtt import MqttSink

            self.add(MqttSink(config.mqtt, bus, clock, session=self._session, beds=self.beds, receivers=config.receivers, **name))
        if config.zmq is not None:
            from ecgnat_stream.sink.zmq import ZmqSink

            self.add(ZmqSink(config.zmq, bus, clock, **name))
        if config.record is not None:
            from ecgnat_stream.sink.record import RecordSink

            recorder = RecordSink(config.record, bus, clock, beds=self.beds)
            await recorder.prepare()
            self.add(recorder)
        if config.history is not None:
            from ecgnat_stream.sink.history import HistorySink

            history = HistorySink(config.history, bus, clock)
            await history.prepare()
            self.add(history)
            await self._restore(history.unfinished)

    async def _restore(self, unfinished: Callable[[], Awaitable[tuple[dict[str, list[Alarm]], dict[str, int]]]]) -> None:
        """Take up the alarms that a monitor which was killed has left in the history: what was latched stays so."""
        try:
            alarms, sequences = await unfinished()
        except SinkError as error:
            self.failures["history"] = f"earlier alarms are not taken up: {error}"
            return
        self._ward.restore(alarms, sequences)

    async def _work_until_done(self) -> None:
        """Run every task until the work is done, the end is asked for, or one fails that nothing can do without."""
        work = [asyncio.create_task(self._intake(row), name=f"intake {bed}") for row, bed in enumerate(self.beds)]
        vital = [asyncio.create_task(t(), name=t.__name__) for t in (self._predict, self._tick, self._obey, self._watch)]
        ends = [asyncio.create_task(self._advance(), name="advance"), asyncio.create_task(self._stop.wait(), name="stop")]
        try:
            await asyncio.wait((*vital, *ends), return_when=asyncio.FIRST_COMPLETED)
        finally:
            failed = [why for task in (*vital, *ends) if (why := _failure(task)) is not None]
            for name in await leave(*work, *vital, *ends, within_s=_LEAVE_S):
                self.failures[name] = f"did not end within {_LEAVE_S:g} s"
        if failed:
            self.stop()  # nobody is to look at a monitor that has failed: the reason is told where it ends
            raise failed[0]

    def _sink_failed(self, name: str, why: str) -> None:
        self.failures[name] = why
        self._watchdog.sink_failed(name, why)

    def _sink_works(self, name: str) -> None:
        self.failures.pop(name, None)
        self._watchdog.sink_works(name)

    async def _close(self) -> None:
        self._ward.close("the monitor has ended")
        self._say_status(online=False)
        self.bus.close()
        for name in await self._keeper.close(self._stop.wait()):
            self.failures[name] = "did not deliver everything in time at the end"
        self.failures |= self._keeper.missing()

    async def _intake(self, row: int) -> None:
        """Carry one device's samples to the ward; what goes wrong with it concerns this bed only."""
        apart_s = min(_OPEN_APART_S, self.config.schedule.hop_s / len(self.beds))
        await self.clock.sleep_until(self.clock.monotonic_ns() + round(row * apart_s * 1e9))
        async with self._openings:
            await asyncio.sleep(0)
        lead_map = self.config.bed[row].lead_map
        accepted = False

        def accept(info: StreamInfo) -> None:
            nonlocal accepted
            if not accepted:  # a patient whose device comes back with fewer leads is watched with these
                check_lead_map(info, lead_map)
            assign_leads(info.leads, lead_map, recorded=info.recorded)
            accepted = True

        watched = supervise(
            self._open_links[row], self.clock, self.config.device, accepts=accept, takes=partial(self._take_at_once, row)
        )
        try:
            async with aclosing(watched) as link:
                async for item in link:
                    await self._hand_over_safely(row, item)
        except Exception as error:  # noqa: BLE001 - the task border: one bed's defect is its own technical alarm
            _log.info("%s: the device has failed", self.beds[row], exc_info=True)
            await self._hand_over(row, LinkState("offline", f"{type(error).__name__}: {error}"))
        await self._way_made(row, LinkState("ended"))
        self._finished[row] = True
        self._wake.set()

    def _take_at_once(self, row: int, block: SampleBlock) -> bool:
        """Give the ward a block as it comes; False: it has to wait, or is not taken, and is handed over as everything else is."""
        if row in self._hurt or not self._has_turn():
            return False
        try:
            taken = self._ward.take(row, block)
        except Exception as error:  # noqa: BLE001 - the task border: it is told where the block is handed over
            self._defects[row] = error
            return False
        if taken:
            self._wake.set()
        return taken

    def _has_turn(self) -> bool:
        """Whether devices may hand over in this round of the loop."""
        now_ns = self.clock.monotonic_ns()
        if self._round_ns is None:
            self._round_ns = now_ns
            asyncio.get_running_loop().call_soon(self._next_round)
        return now_ns - self._round_ns <= _SHARE_NS

    def _next_round(self) -> None:
        self._round_ns = None
        self._next.set()
        self._next = asyncio.Event()

    async def _hand_over_safely(self, row: int, item: StreamInfo | SampleBlock | LinkState) -> None:
        """Give the ward what a device says; what it cannot take, by a defect of ours, is left out and told."""
        while not self._has_turn():
            await self._next.wait()
        try:
            if (defect := self._defects.pop(row, None)) is not None:
                raise defect
            await self._hand_over(row, item)
        except Exception as error:  # noqa: BLE001 - the task border: one bed's defect is its own technical alarm
            _log.info("%s: a defect", self.beds[row], exc_info=True)
            self._hurt.add(row)
            await self._hand_over(row, LinkState("offline", f"{type(error).__name__}: {error}"))
            return
        if row in self._hurt and isinstance(item, SampleBlock):
            self._hurt.discard(row)
            await self._hand_over(row, LinkState("online"))

    async def _hand_over(self, row: int, item: StreamInfo | SampleBlock | LinkState) -> None:
        """Give the ward what a device says, when it can take it: a recording waits for what came before, and for the sinks."""
        for part in self._ward.parts(row, item):
            await self._way_made(row, part)
            self._ward.accept(row, part)
            self._wake.set()
            if isinstance(part, SampleBlock) and not self._ward.is_live(row):
                await self.bus.drained()
        if isinstance(item, StreamInfo):
            _log.info("%s: %s, %g Hz, leads %s", self.beds[row], item.device, item.fs, ", ".join(item.leads))
        if isinstance(item, LinkState):
            _log.info("%s: %s%s", self.beds[row], item.state, f", {item.detail}" if item.detail else "")
            if item.state == "offline":
                self.failures[self.beds[row]] = item.detail
            elif item.state == "online":
                self.failures.pop(self.beds[row], None)

    async def _way_made(self, row: int, item: StreamInfo | SampleBlock | LinkState) -> None:
        while not self._ward.make_way(row, item):
            self._wake.set()
            await self._passed.wait()

    async def _advance(self) -> None:
        """Work on frames as they become ready; return when every recording has ended."""
        while not (len(self.beds) and self._finished.all()):
            await self._wake.wait()
            self._wake.clear()
            more = bool(self._guarded("advance", self._ward.advance))
            if self._ward.windows_wait:
                self._due.set()
            self._passed.set()
            self._passed = asyncio.Event()
            if more:
                self._wake.set()
                await asyncio.sleep(0)
            elif self._ward.all_live:
                await self.clock.sleep_until(self.clock.monotonic_ns() + round(_LIVE_PACE_S * 1e9))

    async def _predict(self) -> None:
        """Feed the network, one batch in flight; what it cannot do is a technical alarm, and the rules go on without it."""
        network = await self._load()
        try:
            while True:
                windows = self._ward.next_batch()
                if not windows:
                    self._due.clear()
                    await self._due.wait()
                    continue
                if network is None:
                    self._ward.fail(windows, self.failures["model"])
                    await asyncio.sleep(0)
                else:
                    await self._answer(*network, windows)
                self._wake.set()
        finally:
            if network is not None:
                with suppress(TimeoutError):  # a network that hangs is left behind
                    async with asyncio.timeout(1.0):
                        await SideThread("model closer").do(network[0].close)

    async def _load(self) -> tuple[Predictor, Reader] | None:
        """Return the network and what reads the beds with it; None, and a technical alarm, if it cannot be loaded."""
        try:
            monitoring(self.config.model.name)
            reading_mode(self.config.model)
            loading = asyncio.wrap_future(SideThread("model loader").submit(partial(_network, self.config.model, len(self.beds))))
            try:
                predictor, reader = await asyncio.shield(loading)
            except asyncio.CancelledError:
                await asyncio.wait((loading,), timeout=_LOADED_S)
                if loading.done():
                    loading.exception()  # nobody needs it any more
                raise
        except Exception as error:  # noqa: BLE001 - the task border: whatever is wrong with it must not end the monitoring
            _log.info("the network cannot be loaded", exc_info=True)
            self.failures["model"] = f"{type(error).__name__}: {error}"
            self._report("model-failed", self.failures["model"])
            self._say_status(online=True, detail=f"no network: {self.failures['model']}")
            return None
        self.model = predictor.path.name
        _log.info("network %s", predictor.describe())
        self._say_status(online=True, detail=predictor.describe())
        return predictor, reader

    async def _answer(self, predictor: Predictor, reader: Reader, windows: list[Window]) -> None:
        try:
            prediction = await asyncio.wrap_future(reader.submit(windows))
            self._windows += sum(window.decides for window in windows)
            _log.debug("%d windows in %.0f ms", len(windows), prediction.took_s * 1e3)
            self._ward.apply(windows, prediction, predictor.path.name)
        except Exception as error:  # noqa: BLE001 - the task border: a failing network must not end the monitoring
            _log.info("the network has failed", exc_info=True)
            self.failures["model"] = f"{type(error).__name__}: {error}"
            self._ward.fail(windows, self.failures["model"])
            return
        if self.failures.pop("model", None) is not None:
            self._report("model-failed", "", present=False)

    async def _watch(self) -> None:
        """Once a second: is it true that every bed is watched? This task does nothing else; the monitor ends with it."""
        try:
            while True:
                self._watchdog.check()
                await self.clock.sleep_until(self.clock.monotonic_ns() + round(_TICK_S * 1e9))
        except WatchdogError:
            raise
        except Exception as error:
            raise WatchdogError(f"the watchdog has failed: {type(error).__name__}: {error}") from error

    async def _tick(self) -> None:
        """Once a second: pauses, reminders; now and then the worker's own status."""
        count = 0
        next_ns = self.clock.monotonic_ns()
        while True:
            next_ns += round(_TICK_S * 1e9)
            await self.clock.sleep_until(next_ns)
            self._guarded("clock", self._follow_clock)
            self._guarded("tick", self._ward.tick)
            count += 1
            if count % _STATUS_TICKS == 0:
                self._say_status(online=True)

    def _follow_clock(self) -> None:
        """Take over a wall clock that was set, and say so."""
        step = self.clock.follow()
        if step is not None:
            self._ward.clock_set(step)
            self._report("clock-jump", str(step))

    async def _obey(self) -> None:
        """Carry out commands, in order."""
        async for command in self._commands:
            assert isinstance(command, Command)
            whom = f"{command.condition or 'all alarms'} of {command.bed or 'every bed'}"
            _log.info("command of %s: %s %s", command.source or "somebody", command.action, whom)
            self._guarded("command", partial(self._ward.command, command))

    def _technical(self, event: object) -> None:
        assert isinstance(event, Technical)
        self._guarded("technical", partial(self._ward.technical, event))

    def _guarded(self, what: str, work: Callable[[], object]) -> object:
        """Do one piece of work; a defect in it is a technical alarm, and many in a row end the monitor with an error."""
        try:
            result = work()
        except Exception as error:
            self._stumbles[what] += 1
            if self._stumbles[what] == 1:
                _log.error("a defect in %s", what, exc_info=True)
            self.failures[what] = f"{type(error).__name__}: {error}"
            if self._stumbles[what] >= _STUMBLES:
                raise EcgnatError(f"{what} failed {_STUMBLES} times in a row, last with {self.failures[what]}") from error
            if what != "technical":
                self._report("worker-lost", f"{what}: {self.failures[what]}", source=what)
            self._wake.set()
            return None
        if self._stumbles.pop(what, 0):
            self._report("worker-lost", "", present=False, source=what)
        return result

    def _report(self, condition: str, detail: str, *, present: bool = True, source: str = "") -> None:
        """Publish a technical event of the worker's own."""
        _log.info("%s %s%s", condition, "begins" if present else "has ended", f": {detail}" if detail else "")
        utc = self.clock.utc()
        self.bus.publish(Technical(bed="", time=utc, condition=condition, present=present, detail=detail, source=source))

    def _say_status(self, *, online: bool, detail: str = "") -> None:
        judged, explained, ended = self._watchdog.count()
        event = EngineStatus(
            bed="",
            time=self.clock.utc(),
            site=self.config.site,
            worker=self.config.worker,
            online=online,
            session=self._session,
            model=self.model,
            beds=len(self.beds),
            judged=judged,
            explained=explained,
            ended=ended,
            windows=self._windows,
            skipped_windows=self._ward.skipped_windows,
            detail=detail,
        )
        self.bus.publish(event)

    def progress(self) -> list[BedProgress]:
        """Return how far each bed has come."""
        return self._ward.progress()


def _network(config: ModelConfig, beds: int) -> tuple[Predictor, Reader]:
    """Load the network; torch is imported here, beside the monitoring that has already begun."""
    from ecgnat_stream.model import Predictor

    predictor = Predictor(config)
    return predictor, predictor.reader(beds)


def _failure(task: asyncio.Task[Any]) -> EcgnatError | None:
    """Return why a task has ended that should not have, None if it still runs or has done its work."""
    if not task.done():
        return None
    if task.cancelled():
        return WatchdogError(f"{task.get_name()} was cancelled")
    error = task.exception()
    return (
        error
        if error is None or isinstance(error, EcgnatError)
        else EcgnatError(f"{task.get_name()}: {type(error).__name__}: {error}")
    )


def _settings(config: Config | str | os.PathLike[str] | None) -> Config:
    if isinstance(config, str | os.PathLike):
        return load_config(config)
    if config is not None and not isinstance(config, Config):
        raise ConfigError(f"config is a {type(config).__name__}: give a Config, or the path of a TOML file")
    return config or Config()


def _completed(config: Config, devices: Mapping[str, Device | Callable[[], Device]]) -> Config:
    """Return the configuration with a name for the monitor, and a bed for every device that is given as an object.

    Raises
    ------
    ConfigError
        For a bed without a device, or what is no device.
    """
    if not isinstance(devices, Mapping) or not all(isinstance(one, Device) or callable(one) for one in devices.values()):
        raise ConfigError("devices: give a dictionary, the id of each bed to its device or to a function that builds one")
    named = {bed.id for bed in config.bed}
    beds = (*config.bed, *(BedConfig(id=bed) for bed in devices if bed not in named))
    for bed in beds:
        if not bed.device and bed.id not in devices:
            raise ConfigError(f"bed {bed.id}: it has no device: name one (`ecgnat devices` lists them), or give one in devices")
    return replace(config, bed=beds, worker=config.worker or own_name())
