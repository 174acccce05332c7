"""The link to one device: how it is watched, checked, and brought back when it is lost.

In come the samples of one device; out go :class:`~ecgnat_stream.signal.SampleBlock` with an absolute index that never runs
backwards, over any number of reconnections. What the device lost stays a gap. Only blocks that repeat or overlap earlier ones
are dropped here, and that is said. Whatever an adapter raises, and whatever it does not do in time, is a lost connection.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np

from ecgnat_stream.clock import Clock, SystemClock
from ecgnat_stream.device.border import as_device_error, checked_block, checked_info, pieces
from ecgnat_stream.device.contract import Device
from ecgnat_stream.errors import DeviceError
from ecgnat_stream.settings import Settings, Within
from ecgnat_stream.signal import SampleBlock, StreamInfo, plainly_within
from ecgnat_stream.words import cleaned, counted

__all__ = ["OPENING", "LinkState", "SuperviseConfig", "supervise", "try_device"]

OPENING = "the recording is being opened"
"""What is said of a recording until its first sample is there."""


_log = logging.getLogger(__name__)


class SuperviseConfig(Settings, frozen=True, kw_only=True):
    """When a link counts as stalled, and how it is brought back.

    Parameters
    ----------
    connect_s
        Longest time that connecting may take, in s.
    disconnect_s
        Longest time that disconnecting may take, in s; what takes longer is left behind.
    stall_s
        A live device that delivers nothing new for this long is stalled, in s.
    reconnect_s
        A device that delivers nothing new for this long is disconnected and opened again, in s.
    backoff_first_s
        First wait before the next attempt, in s; each wait is twice the one before.
    backoff_max_s
        Longest wait before the next attempt, in s.
    jitter
        Part of each wait that is random, 0 to 1, so that many beds do not come back at the same instant.
    stable_s
        A link that has delivered for this long starts again with the first wait, in s.
    """

    section: ClassVar[str] = "device"

    connect_s: Annotated[float, Within(0.1, 60, "a bed whose device never answers would be unwatched for longer")] = 10.0
    disconnect_s: Annotated[float, Within(0.1, 4, "the monitor would not end in time")] = 3.0
    stall_s: Annotated[float, Within(0.5, 10, "shorter is a network that hesitates, longer hides a bed that is lost")] = 3.0
    reconnect_s: Annotated[float, Within(0.5, 60, "a device that is silent for so long does not come back by itself")] = 10.0
    backoff_first_s: Annotated[float, Within(0.01, 10, "the first attempt to bring a lost bed back does not wait longer")] = 0.5
    backoff_max_s: Annotated[float, Within(0.01, 60, "a bed whose device is back would be unwatched for longer")] = 30.0
    jitter: Annotated[float, Within(0, 1, "it is a share of the wait")] = 0.5
    stable_s: Annotated[float, Within(0, 300, "a link that has been good for minutes is good")] = 10.0


async def try_device(open_link: Callable[[], Device], config: SuperviseConfig | None = None) -> StreamInfo:
    """Connect to a device, see what it says will come, and leave it again.

    Raises
    ------
    DeviceError
        If it cannot be opened, does not answer within ``connect_s``, or delivers what the stages cannot take.
    """
    config = config or SuperviseConfig()
    link = _Link(open_link, SystemClock(), config, 1, _Index())
    try:
        while (item := await link.get()) is not None:
            if isinstance(item, StreamInfo):
                return item
    finally:
        await link.close()
    raise DeviceError("it ended before it said what will come")


@dataclass(frozen=True, slots=True)
class LinkState:
    """State of the link to a device; words as in ``events.DeviceStatus``.

    ``session`` counts the connections from 1. An ``online`` with a ``detail`` reports samples that were dropped or masked.
    ``recorded``: the device reads a recording.
    """

    state: Literal["connecting", "online", "stalled", "offline", "ended"]
    detail: str = ""
    session: int = 0
    recorded: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", cleaned(self.detail))


async def supervise(
    open_link: Callable[[], Device],
    clock: Clock,
    config: SuperviseConfig | None = None,
    rng: random.Random | None = None,
    accepts: Callable[[StreamInfo], object] | None = None,
    takes: Callable[[SampleBlock], bool] | None = None,
) -> AsyncGenerator[StreamInfo | SampleBlock | LinkState]:
    """Yield what a device delivers, over any number of reconnections.

    Each connection gives ``connecting``, its :class:`StreamInfo`, ``online``, then blocks. Indices continue after a
    reconnection at the previous stop plus the time lost. Ends after ``ended`` (the recording is over) or after an ``offline``
    that trying again cannot mend: a permanent error of a recording, or of a patient's device that has never delivered a sample.
    Everything else that an adapter raises, and a patient's stream that merely ends, is a lost connection, and is tried again.
    Close it (``contextlib.aclosing``) when leaving early.

    A block of a wrong type, shape or dtype, or with a time that runs backwards, takes the link down and a new one is made; so
    does a sample counter that begins again or runs away. A block that repeats or overlaps earlier samples is dropped; infinite
    values become NaN. The first of the latter two is reported per connection. Only what is new ends a stall.

    Parameters
    ----------
    accepts
        Called with every stream's info; raises :class:`~ecgnat_stream.errors.ConfigError` for what the receiver cannot take.
    takes
        Called with a block as it comes, while the receiver waits for the next one; what it says to have taken is not yielded. So
        a block costs no change of tasks.
    """
    config = config or SuperviseConfig()
    rng = rng or random.Random()
    index = _Index()
    wait_s = config.backoff_first_s
    session = 0
    stuck: set[asyncio.Task[None]] = set()
    while True:
        session += 1
        link = _Link(open_link, clock, config, session, index, accepts, takes)
        try:
            while (item := await link.get()) is not None:
                yield item
            yield LinkState("ended", session=session)
            return
        except DeviceError as error:
            yield LinkState("offline", str(error), session)
            if error.permanent and not index.tries_again:
                return
        finally:
            stuck |= await link.close()
        if link.delivered_s >= config.stable_s:
            wait_s = config.backoff_first_s
        pause_s = wait_s * (1 - config.jitter * rng.random())
        wait_s = min(2 * wait_s, config.backoff_max_s)
        await clock.sleep_until(clock.monotonic_ns() + round(pause_s * 1e9))
        stuck = {task for task in stuck if not task.done()}
        if len(stuck) >= _STUCK_MOST:
            yield LinkState(
                "offline", f"its adapter does not let go of {counted(len(stuck), 'connection')}: waiting for one", session
            )
            await asyncio.wait(stuck, return_when=asyncio.FIRST_COMPLETED)


class _Index:
    """Keeps the sample index of one bed running forwards over all its connections."""

    def __init__(self) -> None:
        self.info: StreamInfo | None = None
        self.stop = 0
        self.last_ns = 0
        self.begun = False
        self._offset: int | None = 0

    @property
    def tries_again(self) -> bool:
        """Whether there was a patient's signal, so that no mistake counts as one that trying again cannot mend."""
        return self.begun and self.info is not None and not self.info.ends

    def connected(self, info: StreamInfo) -> None:
        """Begin a connection; its first block will say how much was lost."""
        if self.begun and self.info is not None:
            self.stop = int(np.ceil(self.stop * info.fs / self.info.fs))
            self._offset = None
        self.info = info

    def place(self, block: SampleBlock) -> SampleBlock:
        """Return the block on the bed's own index."""
        assert self.info is not None, "blocks come after connected()"
        if self._offset is None:
            begun_ns = block.t_ns - self.info.clock_ns(block.samples.shape[1])
            lost = max(0, round((begun_ns - self.last_ns) / 1e9 * self.info.fs * self.info.pace))
            self._offset = self.stop + lost - block.start
        return replace(block, start=block.start + self._offset) if self._offset else block

    def passed(self, block: SampleBlock) -> None:
        """Note a placed block as delivered."""
        self.begun = True
        self.stop = block.stop
        self.last_ns = block.t_ns


_Item = StreamInfo | SampleBlock | LinkState
_FUTURE_NS = 1_000_000_000
"""Times of samples this far ahead of the host's clock are reported; none is believed, or all later ones would run backwards."""

_MAILBOX = 8

_BEHIND_S = 2.0
"""Repeated samples that end this far before the newest may be those of a counter that began again; nearer ones soon catch up."""

_RESTART_S = 1.0
"""Nothing new for this long, while such samples come: the counter did begin again. At its very beginning, one block shows it."""

_AHEAD_S = 600.0
"""A patient's samples that run this far ahead of the host's time are not of now: a counter ran away, or the device floods."""

_REPEATS = 10_000
"""A source that repeats itself in so many blocks in a row will not go on."""

_STUCK_MOST = 8
"""So many connections of one bed that an adapter does not let go of are the most; before, another one may well work."""


class _Link:
    """One connection: a task that reads the device and one that watches for silence; :meth:`close` ends both.

    The device's iteration and its disconnecting run in a task of their own, so that nothing an adapter does or fails to do can
    hold up who reads the link.
    """

    def __init__(
        self,
        open_link: Callable[[], Device],
        clock: Clock,
        config: SuperviseConfig,
        session: int,
        index: _Index,
        accepts: Callable[[StreamInfo], object] | None = None,
        takes: Callable[[SampleBlock], bool] | None = None,
    ) -> None:
        self._open, self._clock, self._config, self._session, self._index = open_link, clock, config, session, index
        self._accepts, self._takes = accepts, takes
        self._awaited = False  # whether who reads this has done with all that came before
        self._mailbox: deque[_Item] = deque()
        self._filled, self._emptied = asyncio.Event(), asyncio.Event()
        self._new_ns: int | None = (
            clock.monotonic_ns()
        )  # of the newest sample taken; None while the device waits for the receiver
        self._info: StreamInfo | None = None
        self._stalled = self._closing = self._leaving = self._over = self._recorded = False
        self._told: set[str] = set()
        self._repeats = 0
        self._first: tuple[int, int] | None = None
        self._lost: DeviceError | None = None
        self.delivered_s = 0.0
        self._reader = asyncio.create_task(self._serve(), name=f"device link {session}")
        self._watcher = asyncio.create_task(self._watch(), name=f"device watch {session}")

    async def get(self) -> _Item | None:
        """Return what comes next, None at the end of a recording; raises what broke the link."""
        while not self._mailbox:
            if self._lost is not None:
                raise self._lost
            if self._over:
                return None
            self._filled.clear()
            self._awaited = True
            await self._filled.wait()
            self._awaited = False
        self._emptied.set()
        return self._mailbox.popleft()

    async def close(self) -> set[asyncio.Task[None]]:
        """Disconnect; return what would not end within ``disconnect_s``, which is nothing of a sound adapter."""
        self._closing = True
        self._watcher.cancel()
        if not self._leaving:
            self._reader.cancel()
        try:
            await self._ends_within(self._config.disconnect_s)
        finally:
            if not self._reader.done():
                self._reader.cancel()
                await self._ends_within(0.0)
        await asyncio.gather(self._watcher, return_exceptions=True)
        if self._reader.done():
            return set()
        _log.warning("a device does not let go of its connection %d within %g s", self._session, self._config.disconnect_s)
        return {self._reader}

    async def _ends_within(self, seconds: float) -> None:
        for _ in range(5):
            if self._reader.done():
                return
            await asyncio.sleep(0)
        if seconds:
            deadline_ns = self._clock.monotonic_ns() + round(seconds * 1e9)
            timer = asyncio.create_task(_sleep_until(self._clock, deadline_ns), name="device disconnect")
            try:
                await asyncio.wait({self._reader, timer}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                timer.cancel()
                await asyncio.gather(timer, return_exceptions=True)

    def _say(self, state: Literal["connecting", "online", "stalled"], detail: str = "") -> None:
        self._post(LinkState(state, detail, self._session, self._recorded))

    def _post(self, item: _Item) -> None:
        self._mailbox.append(item)
        self._filled.set()

    def _lose(self, error: DeviceError) -> None:
        if self._lost is None and not self._over:
            self._lost = error
        self._filled.set()

    async def _serve(self) -> None:
        """Use the adapter, from its making to its disconnecting; this task never fails, whatever the adapter does."""
        try:
            device = self._made()
            entered: object = await device.__aenter__()
        except BaseException as error:  # noqa: BLE001 - the border to an adapter
            self._note(error)
            return
        iterator: AsyncIterator[object] | None = None
        failure: BaseException | None = None
        try:
            info = self._connected(entered)
            iterator = aiter(device)
            await self._read(iterator, info)
        except BaseException as error:  # noqa: BLE001 - the border to an adapter
            failure = error
            self._note(error)
        self._leaving = True
        await self._leave(device, iterator, failure)

    def _made(self) -> Device:
        """Make the adapter; that it connects is said even if its making fails."""
        try:
            device = self._open()
            self._recorded = getattr(device, "recorded", False) is True
            return device
        finally:
            self._say("connecting", OPENING if self._recorded else "")

    def _note(self, error: BaseException) -> None:
        """Take what came out of an adapter: a lost connection, unless this link is being closed."""
        if isinstance(error, KeyboardInterrupt):
            raise error
        self._lose(as_device_error(error))

    async def _leave(self, device: Device, iterator: AsyncIterator[object] | None, failure: BaseException | None) -> None:
        """Disconnect. What goes wrong in this concerns a connection that is over: it is logged."""
        try:
            if isinstance(iterator, AsyncGenerator):
                await iterator.aclose()
        except BaseException as error:  # noqa: BLE001 - the border to an adapter
            _log.info("closing a device's iteration: %s", as_device_error(error))
        try:
            await device.__aexit__(type(failure) if failure else None, failure, failure.__traceback__ if failure else None)
        except BaseException as error:  # noqa: BLE001 - the border to an adapter
            _log.info("disconnecting a device: %s", as_device_error(error))

    def _connected(self, entered: object) -> StreamInfo:
        info = checked_info(entered)
        if self._accepts is not None:
            self._accepts(info)
        self._index.connected(info)
        self._info = info
        self._new_ns = self._clock.monotonic_ns()
        self._post(info)
        self._say("online")
        return info

    async def _read(self, iterator: AsyncIterator[object], info: StreamInfo) -> None:
        while not self._closing:
            try:
                given = await anext(iterator)
            except StopAsyncIteration:
                break
            for block in pieces(checked_block(given, info), info, self._index.last_ns):
                if not self._take(block, info) and self._repeats % _MAILBOX == 0:
                    await asyncio.sleep(0)  # an adapter that never waits must not keep the loop to itself
                if len(self._mailbox) >= _MAILBOX:
                    await self._room()
        if self._closing:
            return
        if not info.ends:
            raise DeviceError(f"{info.device}: its stream has ended")
        self._over = True
        self._filled.set()

    async def _room(self) -> None:
        self._new_ns = None
        while len(self._mailbox) >= _MAILBOX:
            self._emptied.clear()
            await self._emptied.wait()
        self._new_ns = self._clock.monotonic_ns()

    def _take(self, block: SampleBlock, info: StreamInfo) -> bool:
        """Take a block; return whether there was anything new in it."""
        now_ns = self._clock.monotonic_ns()
        if block.t_ns > now_ns:
            if block.t_ns - now_ns > _FUTURE_NS:
                self._tell("future", f"the time of its samples lies in the future at sample {block.start}: taken as now")
            block = replace(block, t_ns=now_ns)
        placed = self._index.place(block)
        if placed.start < self._index.stop:
            self._repeated(block, placed, info, now_ns)
            return False
        if placed.t_ns < self._index.last_ns:
            raise DeviceError(f"{info.device}: the time of its samples runs backwards at sample {placed.start}")
        self._check_ahead(placed, info, now_ns)
        if self._stalled:
            self._stalled = False
            self._say("online")
        if not plainly_within(placed.samples) and np.isinf(placed.samples).any():
            self._tell("infinite", f"infinite values from sample {placed.start} on are shown as missing")
            samples = np.where(np.isinf(placed.samples), np.float32(np.nan), placed.samples)
            placed = replace(placed, samples=samples)
        self._new_ns, self._repeats = now_ns, 0
        self._index.passed(placed)
        self.delivered_s += placed.samples.shape[1] / info.fs
        if not (self._awaited and not self._mailbox and self._takes is not None and self._takes(placed)):
            self._post(placed)
        return True

    def _repeated(self, block: SampleBlock, placed: SampleBlock, info: StreamInfo, now_ns: int) -> None:
        """Drop samples that were there before, unless they show that the device counts from anew."""
        self._repeats += 1
        reached, behind_s = self._index.stop, (self._index.stop - placed.stop) / info.fs
        waited_s = (now_ns - (now_ns if self._new_ns is None else self._new_ns)) / 1e9
        begins = block.start < info.fs and info.live
        if (behind_s > _BEHIND_S and (begins or (info.live and waited_s >= _RESTART_S))) or self._repeats >= _REPEATS:
            raise DeviceError(f"{info.device}: its sample counter has begun again at {block.start}, {behind_s:.1f} s back")
        self._tell("overlap", f"dropped samples {placed.start} to {placed.stop}: {reached} was reached already")

    def _check_ahead(self, placed: SampleBlock, info: StreamInfo, now_ns: int) -> None:
        if info.ends:
            return
        first, first_ns = self._first = self._first or (placed.start, now_ns)
        ahead_s = (placed.stop - first) / info.fs - (now_ns - first_ns) / 1e9 * info.pace
        if ahead_s > _AHEAD_S:
            raise DeviceError(f"{info.device}: its sample counter runs ahead of time by {ahead_s:.0f} s")

    def _tell(self, what: str, detail: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._say("online", detail)

    async def _watch(self) -> None:
        """Report silence; a recording may take its time, and what may be held back at will is only watched while it opens."""
        config = self._config
        while not self._recorded and (self._info is None or (self._info.live and not self._info.recorded)):
            new_ns, opening = self._new_ns, self._info is None
            limit_s = config.connect_s if opening else config.reconnect_s if self._stalled else config.stall_s
            now = self._clock.monotonic_ns()
            deadline = (now if new_ns is None else new_ns) + round(limit_s * 1e9)
            what = "no connection" if opening else "only samples that were there before" if self._repeats else "no samples"
            if now < deadline:
                await self._clock.sleep_until(deadline)
            elif opening or self._stalled:
                self._lose(DeviceError(f"{what} for {limit_s:g} s"))
                return
            else:
                self._stalled = True
                self._say("stalled", f"{what} for {limit_s:g} s")


async def _sleep_until(clock: Clock, monotonic_ns: int) -> None:
    await clock.sleep_until(monotonic_ns)
