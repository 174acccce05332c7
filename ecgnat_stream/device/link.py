"""The link to one device: how it is watched, checked, and brought back when it is lost.

In come the samples of one device; out go :class:`~ecgnat_stream.signal.SampleBlock` with an absolute index that never runs
backwards, over any number of reconnections. What the device lost stays a gap. Only blocks that repeat or overlap earlier ones
are dropped here, and that is said.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np

from ecgnat_stream.clock import Clock
from ecgnat_stream.device.contract import FS_RANGE, Device
from ecgnat_stream.errors import DeviceError
from ecgnat_stream.settings import Settings, Within
from ecgnat_stream.signal import SampleBlock, StreamInfo
from ecgnat_stream.words import cleaned

__all__ = ["LinkState", "SuperviseConfig", "supervise", "try_device"]


class SuperviseConfig(Settings, frozen=True, kw_only=True):
    """When a link counts as stalled, and how it is brought back.

    Parameters
    ----------
    connect_s
        Longest time that connecting may take, in s.
    stall_s
        A live device that is silent for this long is stalled, in s.
    reconnect_s
        A device that is silent for this long is disconnected and opened again, in s.
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
    connect_s = (config or SuperviseConfig()).connect_s
    try:
        async with asyncio.timeout(connect_s), open_link() as info:
            _check_info(info)
            return info
    except TimeoutError:
        raise DeviceError(f"no connection for {connect_s:g} s") from None


@dataclass(frozen=True, slots=True)
class LinkState:
    """State of the link to a device; words as in ``events.DeviceStatus``.

    ``session`` counts the connections from 1. An ``online`` with a ``detail`` reports samples that were dropped or masked.
    """

    state: Literal["connecting", "online", "stalled", "offline", "ended"]
    detail: str = ""
    session: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", cleaned(self.detail))


async def supervise(
    open_link: Callable[[], Device], clock: Clock, config: SuperviseConfig | None = None, rng: random.Random | None = None
) -> AsyncGenerator[StreamInfo | SampleBlock | LinkState]:
    """Yield what a device delivers, over any number of reconnections.

    Each connection gives ``connecting``, its :class:`StreamInfo`, ``online``, then blocks. Indices continue after a
    reconnection at the previous stop plus the time lost. Ends after ``ended`` (the recording is over) or after an ``offline``
    that trying again cannot mend. Close it (``contextlib.aclosing``) when leaving early.

    A block of a wrong type, shape or dtype, or with a time that runs backwards, takes the link down and a new one is made; one
    that repeats or overlaps earlier samples is dropped; infinite values become NaN. The first of the latter two is reported
    per connection.
    """
    config = config or SuperviseConfig()
    rng = rng or random.Random()
    index = _Index()
    wait_s = config.backoff_first_s
    session = 0
    while True:
        session += 1
        link = _Link(open_link, clock, config, session, index)
        try:
            while (item := await link.get()) is not None:
                yield item
            yield LinkState("ended", session=session)
            return
        except DeviceError as error:
            yield LinkState("offline", str(error), session)
            if error.permanent:
                return
        finally:
            await link.close()
        if link.delivered_s >= config.stable_s:
            wait_s = config.backoff_first_s
        pause_s = wait_s * (1 - config.jitter * rng.random())
        wait_s = min(2 * wait_s, config.backoff_max_s)
        await clock.sleep_until(clock.monotonic_ns() + round(pause_s * 1e9))


class _Index:
    """Keeps the sample index of one bed running forwards over all its connections."""

    def __init__(self) -> None:
        self.fs = 0.0
        self.stop = 0
        self.last_ns = 0
        self._offset: int | None = 0

    def connected(self, info: StreamInfo) -> None:
        """Begin a connection; its first block will say how much was lost."""
        if self.last_ns:
            self.stop = int(np.ceil(self.stop * info.fs / self.fs))
            self._offset = None
        self.fs = info.fs

    def place(self, block: SampleBlock) -> SampleBlock:
        """Return the block on the bed's own index."""
        if self._offset is None:
            begun_ns = block.t_ns - round(block.samples.shape[1] / self.fs * 1e9)
            lost = max(0, round((begun_ns - self.last_ns) / 1e9 * self.fs))
            self._offset = self.stop + lost - block.start
        return replace(block, start=block.start + self._offset) if self._offset else block

    def passed(self, block: SampleBlock) -> None:
        """Note a placed block as delivered."""
        self.stop = block.stop
        self.last_ns = block.t_ns


_Item = StreamInfo | SampleBlock | LinkState
_FUTURE_NS = 1_000_000_000
"""Times of samples this far ahead of the host's clock are reported; none is believed, or all later ones would run backwards."""

_MAILBOX = 8


class _Link:
    """One connection: a task that reads the device and one that watches for silence; :meth:`close` ends both."""

    def __init__(
        self, open_link: Callable[[], Device], clock: Clock, config: SuperviseConfig, session: int, index: _Index
    ) -> None:
        self._open, self._clock, self._config, self._session, self._index = open_link, clock, config, session, index
        self._mailbox: deque[_Item] = deque()
        self._filled, self._emptied = asyncio.Event(), asyncio.Event()
        self._heard_ns: int | None = clock.monotonic_ns()  # None while the device waits for the receiver
        self._info: StreamInfo | None = None
        self._stalled = False
        self._told: set[str] = set()
        self._silence: DeviceError | None = None
        self.delivered_s = 0.0
        self._reader = asyncio.create_task(self._read(), name=f"device link {session}")
        self._reader.add_done_callback(lambda _: self._filled.set())
        self._watcher = asyncio.create_task(self._watch(), name=f"device watch {session}")

    async def get(self) -> _Item | None:
        """Return what comes next, None at the end of a recording; raises what broke the link."""
        while not self._mailbox:
            if self._silence:
                raise self._silence
            if self._reader.done():
                return self._reader.result()
            self._filled.clear()
            await self._filled.wait()
        self._emptied.set()
        return self._mailbox.popleft()

    async def close(self) -> None:
        """Disconnect and leave nothing running."""
        self._reader.cancel()
        self._watcher.cancel()
        await asyncio.gather(self._reader, self._watcher, return_exceptions=True)

    def _say(self, state: Literal["connecting", "online", "stalled"], detail: str = "") -> None:
        self._post(LinkState(state, detail, self._session))

    def _post(self, item: _Item) -> None:
        self._mailbox.append(item)
        self._filled.set()

    async def _read(self) -> None:
        self._say("connecting")
        device = self._open()
        async with device as info:
            _check_info(info)
            self._index.connected(info)
            self._info = info
            self._heard_ns = self._clock.monotonic_ns()
            self._post(info)
            self._say("online")
            async for block in device:
                self._take(block, info)
                if len(self._mailbox) >= _MAILBOX:
                    await self._room()

    async def _room(self) -> None:
        self._heard_ns = None
        while len(self._mailbox) >= _MAILBOX:
            self._emptied.clear()
            await self._emptied.wait()
        self._heard_ns = self._clock.monotonic_ns()

    def _take(self, block: SampleBlock, info: StreamInfo) -> None:
        self._heard_ns = self._clock.monotonic_ns()
        _check_block(block, info)
        if block.t_ns > self._heard_ns:
            if block.t_ns - self._heard_ns > _FUTURE_NS:
                self._tell("future", f"the time of its samples lies in the future at sample {block.start}: taken as now")
            block = replace(block, t_ns=self._heard_ns)
        placed = self._index.place(block)
        if self._stalled:
            self._stalled = False
            self._say("online")
        if placed.start < self._index.stop:
            self._tell("overlap", f"dropped samples {placed.start} to {placed.stop}: {self._index.stop} was reached already")
            return
        if placed.t_ns < self._index.last_ns:
            raise DeviceError(f"{info.device}: the time of its samples runs backwards at sample {placed.start}")
        if np.isinf(placed.samples).any():
            self._tell("infinite", f"infinite values from sample {placed.start} on are shown as missing")
            samples = np.where(np.isinf(placed.samples), np.float32(np.nan), placed.samples)
            placed = replace(placed, samples=samples)
        self._index.passed(placed)
        self.delivered_s += placed.samples.shape[1] / info.fs
        self._post(placed)

    def _tell(self, what: str, detail: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._say("online", detail)

    async def _watch(self) -> None:
        """Report silence; a recording, which may be held back at will, is only watched while it opens."""
        config = self._config
        while self._info is None or self._info.live:
            heard_ns, opening = self._heard_ns, self._info is None
            limit_s = config.connect_s if opening else config.reconnect_s if self._stalled else config.stall_s
            now = self._clock.monotonic_ns()
            deadline = (now if heard_ns is None else heard_ns) + round(limit_s * 1e9)
            if now < deadline:
                await self._clock.sleep_until(deadline)
            elif opening or self._stalled:
                what = "no connection" if opening else "no samples"
                self._silence = DeviceError(f"{what} for {limit_s:g} s")
                self._filled.set()
                return
            else:
                self._stalled = True
                self._say("stalled", f"no samples for {limit_s:g} s")


def _check_info(info: StreamInfo) -> None:
    low, high = FS_RANGE
    if not low <= info.fs <= high:
        raise DeviceError(f"{info.device}: a sampling rate of {info.fs:g} Hz is outside {low:g} to {high:g} Hz", permanent=True)
    if not info.leads:
        raise DeviceError(f"{info.device}: it names no leads", permanent=True)


def _check_block(block: SampleBlock, info: StreamInfo) -> None:
    samples = block.samples
    rows = len(info.leads)
    if samples.dtype != np.float32 or samples.ndim != 2 or samples.shape[0] != rows or not samples.shape[1] or block.start < 0:
        raise DeviceError(
            f"{info.device}: a block of {samples.dtype} {samples.shape} at sample {block.start} is no "
            f"float32 block of {rows} leads at a sample from 0 on"
        )
