"""A device that delivers a heart as it is, and at the times of the plan does what devices must not do.

It notes in the truth file from when to when what it delivers is true: the checker asks for alarms only of what could be seen.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.errors import DeviceError
from ecgnat_stream.signal import SampleBlock, StreamInfo
from tests.chaos.hearts import Heart
from tests.chaos.plan import FS, LEADS, Fault

__all__ = ["HeartDevice", "Truth"]

_BLOCK_S = 0.2

_RAISED: dict[str, Callable[[], BaseException]] = {
    "CancelledError": lambda: asyncio.CancelledError("the adapter's own"),
    "ExceptionGroup": lambda: ExceptionGroup("two at once", [ValueError("one"), OSError("other")]),
    "UnicodeDecodeError": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no text"),
    "DeviceError": lambda: DeviceError("the cable \x1b[2J\x07 has gone"),
    "ConnectionResetError": lambda: ConnectionResetError("the amplifier has gone"),
}


class Truth:
    """Where every change between true signal and none is written, at once, so that it outlives the process."""

    def __init__(self, path: Path, now_s: Callable[[], float]) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._now_s = now_s
        self._last: dict[str, bool] = {}

    def note(self, bed: str, *, true: bool, why: str = "") -> None:
        """Write a change of one bed."""
        if self._last.get(bed) != true:
            self._last[bed] = true
            os.write(self._file, json.dumps({"t": self._now_s(), "bed": bed, "true": true, "why": why}).encode() + b"\n")


class HeartDevice:
    """One connection to one heart."""

    def __init__(self, bed: str, heart: Heart, faults: tuple[Fault, ...], truth: Truth) -> None:
        self._bed, self._heart, self._faults, self._truth = bed, heart, faults, truth
        self._entered_s = 0.0

    def _fault(self) -> Fault | None:
        now = self._heart.now_s()
        return next((fault for fault in self._faults if fault.at_s <= now < fault.stop_s), None)

    async def __aenter__(self) -> StreamInfo:
        """Connect, or do what the fault of this moment says."""
        fault = self._fault()
        self._entered_s = self._heart.now_s()
        uv_per_lsb = 1.0
        if fault is not None:
            match fault.kind:
                case "raises" | "silent":
                    raise ConnectionRefusedError("the device is off")
                case "hang-enter":
                    await asyncio.Event().wait()
                case "gain":
                    uv_per_lsb = float(fault.detail)
        return StreamInfo(fs=FS, leads=LEADS, device=f"heart {self._bed}", uv_per_lsb=uv_per_lsb, live=True)

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Leave; or hang there, deaf to being cancelled."""
        self._truth.note(self._bed, true=False, why="left")
        fault = self._fault()
        while fault is not None and fault.kind == "hang-exit" and self._heart.now_s() < fault.stop_s:
            try:
                await asyncio.sleep(0.5)
            except asyncio.CancelledError:
                continue

    async def __aiter__(self) -> AsyncIterator[SampleBlock]:
        """Deliver what the heart gives, every 0.2 s."""
        start, place = self._heart.place(), 0
        lied = False
        while True:
            await asyncio.sleep(_BLOCK_S)
            stop = self._heart.place()
            if stop <= start:
                continue
            samples, t_ns, begun = self._heart.read(start, stop), self._heart.ns(stop - 1), start
            start = stop
            fault = self._fault()
            if fault is None:
                # A counter that has once begun again, or run ahead, stays wrong until the next connection.
                self._truth.note(self._bed, true=not lied)
                yield SampleBlock(place, samples, t_ns)
                place += stop - begun
                continue
            self._truth.note(self._bed, true=False, why=fault.kind)
            match fault.kind:
                case "silent":
                    continue
                case "blocks":
                    time.sleep(fault.stop_s - self._heart.now_s())  # noqa: ASYNC251 - the fault itself: it holds the loop
                case "ends":
                    return
                case "raises":
                    raise _raised(fault.detail)
                case "hang-enter" | "hang-exit":
                    raise ConnectionResetError("the amplifier has gone")
                case "gain" if self._entered_s < fault.at_s:
                    raise ConnectionResetError("the amplifier begins again")
                case "counter" if not lied:
                    lied, place = True, 0
                case "rate":
                    samples = _faster(samples, float(fault.detail))
                case "huge":
                    samples[:] += float(fault.detail)
                case "nan":
                    samples[:] = np.nan
                case "garbage":
                    garbage: Any = _garbage(fault.detail, place, samples, t_ns)
                    yield garbage
                    continue
            yield SampleBlock(place, samples, t_ns)
            place += samples.shape[1]


def _raised(name: str) -> BaseException:
    if name in _RAISED:
        return _RAISED[name]()
    kind: type[BaseException] = vars(__import__("builtins"))[name]
    return kind(f"{name} of the adapter")


def _faster(samples: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    return np.repeat(samples, round(factor), axis=1) if factor > 1 else samples[:, :: round(1 / factor)].copy()


def _garbage(kind: str, place: int, samples: NDArray[np.float32], t_ns: int) -> object:
    match kind:
        case "None":
            return None
        case "text":
            return "\x1b[2J a line"
        case "shape":
            return SampleBlock(place, samples[0], t_ns)
        case "dtype":
            complex_ones: Any = samples.astype(np.complex64)
            return SampleBlock(place, complex_ones, t_ns)
    return SampleBlock(place, samples[:, :0], t_ns)
