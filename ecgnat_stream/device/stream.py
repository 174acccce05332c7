"""A device of an async iterator of arrays: :func:`stream_device`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from types import TracebackType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgnat_stream.clock import Clock, SystemClock
from ecgnat_stream.device.contract import FS_RANGE, Device
from ecgnat_stream.errors import ConfigError, DeviceError
from ecgnat_stream.signal import SampleBlock, StreamInfo

__all__ = ["stream_device"]


def stream_device(
    arrays: AsyncIterable[ArrayLike] | Callable[[], AsyncIterable[ArrayLike]],
    *,
    fs: float,
    leads: Sequence[str],
    name: str = "stream",
    uv_per_lsb: float = 1.0,
    live: bool = True,
    clock: Clock | None = None,
) -> Device:
    """Make a device of an async iterator of arrays: all that is needed to get samples of one's own into the monitor.

    Parameters
    ----------
    arrays
        Gives ``(L, n)`` arrays in mV, one row per lead, or ``(n,)`` for a single lead; NaN where a sample is missing. Best a
        function that returns such an iterator: it is called for every connection, so that a device that was lost comes back.
        What it raises takes the link down; connecting is done when the first array is there.
    fs
        Sampling rate in Hz, 100 to 1000.
    leads
        Name of each row; see :func:`~ecgnat_stream.signal.assign_leads`.
    uv_per_lsb
        Resolution of the source in microvolts per step.
    live
        True for a patient: an iterator that ends is a lost connection, and the function is called again. False for a recording:
        it ends, and it is read as fast as the monitor works.

    Raises
    ------
    ConfigError
        For a rate, leads or a source that cannot be used.
    DeviceError
        From the device: for an array of another shape or of integers, and when the iterator cannot go on.

    Examples
    --------
    >>> async def heart():
    ...     for second in range(10):
    ...         yield np.sin(np.arange(250) / 40)
    >>> device = stream_device(heart, fs=250, leads=["II"], live=False)
    """
    low, high = FS_RANGE
    if not isinstance(fs, int | float | np.number) or not low <= fs <= high:
        raise ConfigError(f"{name}: fs = {fs!r}: a sampling rate from {low:g} to {high:g} Hz is needed")
    names = (leads,) if isinstance(leads, str) else tuple(leads)
    if not names or not all(isinstance(lead, str) and lead for lead in names):
        raise ConfigError(f"{name}: leads = {leads!r}: name each row of the arrays, such as ('II', 'V1')")
    if not (callable(arrays) or isinstance(arrays, AsyncIterable)):
        raise ConfigError(
            f"{name}: {type(arrays).__name__} gives no arrays: an async iterator is needed, or a function that returns one"
        )
    info = StreamInfo(fs=float(fs), leads=names, device=name, uv_per_lsb=uv_per_lsb, live=live)
    return _ArrayDevice(arrays, info, clock or SystemClock())


class _ArrayDevice:
    """See :func:`stream_device`."""

    def __init__(
        self, arrays: AsyncIterable[ArrayLike] | Callable[[], AsyncIterable[ArrayLike]], info: StreamInfo, clock: Clock
    ) -> None:
        self._arrays, self._info, self._clock = arrays, info, clock
        self._iterator: AsyncIterator[ArrayLike] | None = None
        self._first: SampleBlock | None = None
        self._used = False

    async def __aenter__(self) -> StreamInfo:
        if callable(self._arrays):
            made: object = self._arrays()
            if not isinstance(made, AsyncIterable):
                what = f"its function returned {type(made).__name__}: an async iterator is needed (`async def` with `yield`)"
                raise self._error(what, permanent=True)
            self._iterator = aiter(made)
        elif self._used:
            raise self._error("its iterator was read already: give a function that makes one", permanent=True)
        else:
            self._iterator = aiter(self._arrays)
        self._used = True
        try:
            self._first = await self._next(0)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self._info

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        iterator, self._iterator = self._iterator, None
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()

    async def __aiter__(self) -> AsyncIterator[SampleBlock]:
        if self._iterator is None:
            raise self._error("not open: enter the device before reading it", permanent=True)
        block = self._first
        while block is not None:
            yield block
            block = await self._next(block.stop)
        if self._info.live and callable(self._arrays):
            raise self._error("its stream has ended")

    async def _next(self, start: int) -> SampleBlock | None:
        """Return the next array as a block; None at the end. Empty arrays are passed over."""
        assert self._iterator is not None
        while True:
            try:
                array = await anext(self._iterator)
            except StopAsyncIteration:
                return None
            except (OSError, EOFError, RuntimeError, ValueError, LookupError, ArithmeticError, TypeError) as error:
                raise self._error(f"{type(error).__name__}: {error}") from error
            samples = self._samples(array)
            if samples.shape[1]:
                return SampleBlock(start, samples, self._clock.monotonic_ns())

    def _samples(self, array: ArrayLike) -> NDArray[np.float32]:
        rows = len(self._info.leads)
        if np.asarray(array).dtype.kind in "iu" and np.size(array):
            raise self._error("it gives integers: multiply them by the mV of one step", permanent=True)
        try:
            samples = np.array(array, np.float32, ndmin=2)
        except (TypeError, ValueError) as error:
            raise self._error(f"what it gives is no array of numbers ({error})", permanent=True) from error
        if samples.ndim != 2 or samples.shape[0] != rows:
            names = ", ".join(self._info.leads)
            raise self._error(
                f"an array has the shape {np.shape(array)}: ({rows}, n) is needed, a row for {names}", permanent=True
            )
        return samples

    def _error(self, what: str, *, permanent: bool = False) -> DeviceError:
        return DeviceError(f"{self._info.device}: {what}", permanent=permanent)
