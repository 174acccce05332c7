"""A device made of an async iterator of arrays: the contract, what it refuses, and coming back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest

from ecgnat_stream.clock import Clock
from ecgnat_stream.device import LinkState, stream_device, supervise
from ecgnat_stream.errors import ConfigError, DeviceError
from ecgnat_stream.signal import SampleBlock, StreamInfo
from ecgnat_stream.testing import InstantClock, check_device


def of(*arrays: Any) -> Callable[[], AsyncIterator[Any]]:
    async def every() -> AsyncIterator[Any]:
        for array in arrays:
            if isinstance(array, BaseException):
                raise array
            yield array

    return every


async def read(device: Any) -> np.ndarray:
    async with device:
        return np.concatenate([block.samples async for block in device], axis=1)


def test_it_conforms() -> None:
    arrays = of(*np.zeros((20, 2, 25)))
    check_device(lambda clock: stream_device(arrays, fs=250, leads=["I", "II"], live=False, clock=clock))


async def test_samples_and_indices_are_those_of_the_arrays() -> None:
    x = np.arange(60.0).reshape(2, 30)
    device = stream_device(of(x[:, :10], x[:, 10:10], x[:, 10:]), fs=250, leads=("I", "II"), name="mine", live=False)
    async with device as info:
        assert info == StreamInfo(fs=250.0, leads=("I", "II"), device="mine", live=False)
        blocks = [block async for block in device]
    assert [(block.start, block.stop) for block in blocks] == [(0, 10), (10, 30)]
    np.testing.assert_array_equal(np.concatenate([block.samples for block in blocks], axis=1), x)
    assert blocks[0].samples.dtype == np.float32


async def test_one_lead_needs_no_second_axis() -> None:
    assert (await read(stream_device(of([1.0, 2.0, 3.0], [4.0]), fs=250, leads=["II"], live=False))).tolist() == [[1, 2, 3, 4]]


async def test_an_array_that_the_caller_reuses_does_not_change_what_was_delivered() -> None:
    buffer = np.zeros((1, 2), np.float32)

    async def reused() -> AsyncIterator[np.ndarray]:
        for k in range(3):
            buffer[:] = k
            yield buffer

    assert (await read(stream_device(reused, fs=250, leads=["II"], live=False))).tolist() == [[0, 0, 1, 1, 2, 2]]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ((np.zeros((3, 10)),), r"has the shape \(3, 10\): \(2, n\) is needed, a row for I, II"),
        ((np.zeros((2, 2, 10)),), r"has the shape \(2, 2, 10\)"),
        ((["a", "b"],), "no array of numbers"),
        ((np.zeros((2, 5), np.int16),), "integers: multiply them by the mV of one step"),
        ((np.zeros((2, 5)), ConnectionResetError("gone")), "ConnectionResetError: gone"),
        ((np.zeros((2, 5)), ValueError("a bad frame")), "ValueError: a bad frame"),
    ],
)
async def test_what_goes_wrong_is_a_device_error_that_says_what(arrays: Any, said: str) -> None:
    with pytest.raises(DeviceError, match=said) as caught:
        await read(stream_device(of(*arrays), fs=250, leads=["I", "II"], name="mine"))
    assert str(caught.value).startswith("mine: ")


async def test_an_iterator_can_be_read_once_and_a_function_again() -> None:
    again = stream_device(of([1.0]), fs=250, leads=["II"], live=False)
    assert (await read(again)).tolist() == (await read(again)).tolist() == [[1.0]]
    once = stream_device(of([1.0])(), fs=250, leads=["II"], live=False)
    await read(once)
    with pytest.raises(DeviceError, match="give a function that makes one") as caught:
        await read(once)
    assert caught.value.permanent


async def test_a_live_stream_that_ends_is_opened_again_and_a_recording_ends() -> None:
    async def states(live: bool, want: int) -> list[str]:
        clock: Clock = InstantClock()
        device = stream_device(of(np.zeros((1, 50))), fs=250, leads=["II"], live=live, clock=clock)
        said: list[str] = []
        async with aclosing(supervise(lambda: device, clock)) as link:
            async for item in link:
                if isinstance(item, LinkState):
                    said.append(item.state)
                elif isinstance(item, SampleBlock):
                    said.append("block")
                if len(said) >= want:
                    break
        return said

    assert await states(True, 7) == ["connecting", "online", "block", "offline", "connecting", "online", "block"]
    assert await states(False, 4) == ["connecting", "online", "block", "ended"]


async def test_leaving_closes_the_iterator() -> None:
    closed: list[bool] = []

    async def watched() -> AsyncIterator[np.ndarray]:
        try:
            while True:
                yield np.zeros((1, 10))
        finally:
            closed.append(True)

    device = stream_device(watched, fs=250, leads=["II"])
    async with device:
        await anext(aiter(device))
    assert closed == [True]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fs": 0}, "fs = 0: a sampling rate from 100 to 1000 Hz"),
        ({"fs": 2000}, "fs = 2000"),
        ({"fs": "a"}, "fs = 'a'"),
        ({"leads": ()}, "name each row"),
        ({"arrays": iter([1.0])}, "an async iterator is needed"),
        ({"arrays": np.zeros((1, 5))}, "ndarray gives no arrays"),
    ],
)
def test_what_can_never_work_is_refused_when_it_is_built(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        stream_device(**({"arrays": of([1.0]), "fs": 250, "leads": ["II"]} | options))


async def test_a_function_that_returns_no_async_iterator_is_named() -> None:
    plain: Any = lambda: [1.0]  # noqa: E731
    with pytest.raises(DeviceError, match="its function returned list: an async iterator is needed"):
        await read(stream_device(plain, fs=250, leads="II"))


async def test_one_lead_may_be_given_as_its_name() -> None:
    async with stream_device(of([1.0]), fs=250, leads="II") as info:
        assert info.leads == ("II",)
