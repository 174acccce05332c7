"""What every adapter must do, checked by doing it: run :func:`check_device` in the tests of each adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.clock import Clock, ManualClock
from ecgnat_stream.device import FS_RANGE, Device
from ecgnat_stream.errors import DeviceError
from ecgnat_stream.signal import SampleBlock, StreamInfo
from ecgnat_stream.testing.scripted import InstantClock

__all__ = ["check_device"]


Peer = Callable[[], AbstractAsyncContextManager[object]]


def check_device(
    factory: Callable[[Clock], Device],
    cut: Callable[[Clock, int], Device] | None = None,
    *,
    peer: Peer | None = None,
    blocks: int = 50,
    sizes: Sequence[int] = (1, 7, 50, 1000),
) -> None:
    """Check that an adapter keeps the contract of :class:`~ecgnat_stream.device.Device`.

    It runs an event loop of its own: call it in a plain function, there is nothing to await.

    Parameters
    ----------
    factory
        Builds the device on a clock. The clock never waits, so that the check takes no longer than the device itself.
    cut
        Builds it so that it delivers blocks of the given number of samples, for an adapter that can: what it delivers must
        then not depend on the block size.
    peer
        What has to run meanwhile, such as a server that the device connects to; entered before, in the same event loop.
    blocks
        How many blocks are looked at.
    sizes
        Block sizes to compare.

    Raises
    ------
    AssertionError
        Naming the promise that was not kept.
    RuntimeError
        Within a running event loop.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(_check(factory, cut, peer or nullcontext, blocks, sizes))
    else:
        raise RuntimeError("check_device runs an event loop of its own: call it in a plain function, not in a coroutine")


async def _check(
    factory: Callable[[Clock], Device],
    cut: Callable[[Clock, int], Device] | None,
    peer: Peer,
    blocks: int,
    sizes: Sequence[int],
) -> None:
    async with peer():
        _check_kind(factory(InstantClock()))
        await _check_refusal(factory(InstantClock()))
        await _check_blocks(factory, blocks)
        await _check_again(factory)
        await _check_cancellation(factory)
        if cut is not None:
            await _check_cuts(cut, sizes)


def _check_kind(device: Device) -> None:
    """Every device has the methods of one; the options of an adapter refuse what they do not know."""
    assert isinstance(device, Device), f"{type(device).__name__} has not all methods of Device"
    options = getattr(type(device), "Options", None)
    if options is None:
        return
    assert issubclass(options, msgspec.Struct), "Options is no msgspec.Struct"
    config = options.__struct_config__
    assert config.frozen, "Options is not frozen"
    assert config.forbid_unknown_fields, "Options lets unknown fields pass"


async def _check_refusal(device: Device) -> None:
    """Reading before connecting is refused; disconnecting before connecting does nothing."""
    try:
        await anext(aiter(device))
    except DeviceError:
        await device.__aexit__(None, None, None)
        return
    raise AssertionError("a device that is not entered can be read: raise DeviceError")


def _check_info(info: StreamInfo) -> None:
    assert FS_RANGE[0] <= info.fs <= FS_RANGE[1], f"fs is {info.fs}"
    assert info.leads, "no leads"
    assert all(isinstance(lead, str) and lead for lead in info.leads), f"a lead without a name: {info.leads}"
    assert info.device, "no device name"
    assert info.uv_per_lsb > 0, f"uv_per_lsb is {info.uv_per_lsb}"
    assert info.total is None or info.total > 0, f"total is {info.total}"


async def _take(device: Device, count: int) -> list[SampleBlock]:
    """Return up to ``count`` blocks and close the iteration."""
    iterator = aiter(device)
    taken: list[SampleBlock] = []
    try:
        while len(taken) < count:
            taken.append(await anext(iterator))
    except StopAsyncIteration:
        pass
    finally:
        await _close(iterator)
    return taken


async def _close(iterator: AsyncIterator[SampleBlock]) -> None:
    if hasattr(iterator, "aclose"):
        await cast(AsyncGenerator[SampleBlock, None], iterator).aclose()


async def _check_blocks(factory: Callable[[Clock], Device], count: int) -> None:
    clock = InstantClock()
    device = factory(clock)
    async with device as info:
        _check_info(info)
        iterator = aiter(device)
        seen: list[tuple[SampleBlock, NDArray[np.float32]]] = []
        stop, t_ns = 0, 0
        try:
            while len(seen) < count:
                block = await anext(iterator)
                _check_block(block, info)
                assert block.start >= stop, f"block at {block.start} after samples up to {stop}"
                assert t_ns <= block.t_ns <= clock.monotonic_ns(), (
                    f"t_ns {block.t_ns} is not in order, or in the future: does the device use the clock it was built with?"
                )
                stop, t_ns = block.stop, block.t_ns
                seen.append((block, block.samples.copy()))
        except StopAsyncIteration:
            assert info.total is None or stop == info.total, f"total is {info.total}, but {stop} samples came"
        finally:
            await _close(iterator)
        assert seen, "no block at all"
        for block, copy in seen:
            assert np.array_equal(block.samples, copy, equal_nan=True), "the samples of a delivered block changed later"
    await device.__aexit__(None, None, None)


def _check_block(block: SampleBlock, info: StreamInfo) -> None:
    samples = block.samples
    assert samples.dtype == np.float32, f"samples are {samples.dtype}"
    assert samples.ndim == 2, f"samples have the shape {samples.shape}"
    assert samples.shape[0] == len(info.leads), f"{samples.shape[0]} rows for {len(info.leads)} leads"
    assert samples.shape[1] > 0, "an empty block"
    assert not np.isinf(samples).any(), "infinite samples"
    assert block.lead_off <= set(info.leads), f"lead_off {set(block.lead_off)} is not among {info.leads}"


async def _check_again(factory: Callable[[Clock], Device]) -> None:
    """A device that was left either connects again and delivers, or says clearly that it does not."""
    device = factory(InstantClock())
    async with device as first:
        await _take(device, 1)
    try:
        async with device as second:
            assert second == first, "connecting again gives another StreamInfo"
            assert await _take(device, 1), "connecting again gives no samples"
    except DeviceError as error:
        assert str(error), "connecting again is refused without a word"


async def _check_cancellation(factory: Callable[[Clock], Device]) -> None:
    """Cancelling a read on a clock that stands still ends it, and leaves no task behind."""
    before = asyncio.all_tasks()
    device = factory(ManualClock())

    async def read() -> None:
        async with device:
            async for _ in device:
                await asyncio.sleep(0)

    task = asyncio.create_task(read())
    await asyncio.wait({task}, timeout=0.05)
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=10)
    assert done, "a cancelled read does not end"
    if not task.cancelled() and (error := task.exception()):
        raise error
    left = asyncio.all_tasks() - before
    if left:
        _, left = await asyncio.wait(left, timeout=1)  # a peer in the same loop may still be hanging up
    assert not left, f"tasks left behind: {left}"


async def _check_cuts(cut: Callable[[Clock, int], Device], sizes: Sequence[int]) -> None:
    first: tuple[NDArray[np.float32], NDArray[np.int64]] | None = None
    length = 2 * max(sizes)
    for size in sizes:
        device = cut(InstantClock(), size)
        async with device:
            blocks = await _take(device, -(-length // size))
        samples = np.concatenate([block.samples for block in blocks], axis=1)[:, :length]
        index = np.concatenate([np.arange(block.start, block.stop) for block in blocks])[:length]
        if first is None:
            first = samples, index
        assert np.array_equal(index, first[1]), f"other sample indices in blocks of {size} than of {sizes[0]}"
        assert np.array_equal(samples, first[0], equal_nan=True), f"other samples in blocks of {size} than of {sizes[0]}"
