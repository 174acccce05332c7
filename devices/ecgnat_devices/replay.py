"""The ``replay`` adapter: a recording as if it were a device, at any multiple of real time.

Samples are read in pieces in a thread of its own, so that neither a long record nor a slow disk holds the monitor up.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from types import TracebackType
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from ecgnat_devices.pace import BlockSeconds, Pace, Speed
from ecgnat_devices.records import Format, Samples, Units, open_record
from ecgnat_stream.clock import Clock
from ecgnat_stream.errors import DeviceError, InputError
from ecgnat_stream.sidethread import SideThread
from ecgnat_stream.signal import SampleBlock, StreamInfo

__all__ = ["ReplayDevice", "ReplayOptions"]

_log = logging.getLogger(__name__)

_PIECE_S = 60.0


class ReplayOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to replay, and how.

    Parameters
    ----------
    path
        A WFDB record (with or without .hea), or a file of a format that is known (docs/devices.md).
    fmt
        Format; "auto" goes by what the file begins with, and its suffix.
    fs, units
        Rate in Hz and unit of a file that does not state them.
    strict
        Refuse a file that states another rate or unit than ``fs`` and ``units``; without, it keeps its own.
    scale
        Multiplies the samples before the unit counts: microvolts per step of a converter, with units uV.
    leads
        The signals to deliver, in this order (all that are ECG). Of a file that names none: the names of all, in order.
    speed
        Multiple of real time, or "max": then nothing is live, and a slow receiver holds the record back.
    loop
        Begin again at the end; the sample index runs on.
    start_s, stop_s
        The part to replay, in s of the record; the sample index counts from its beginning.
    block_s, block
        Length of a block in s, or, if given, in samples.
    """

    path: str
    fmt: Format = "auto"
    fs: Annotated[float, msgspec.Meta(gt=0)] | None = None
    units: Units | None = None
    strict: bool = True
    scale: float = 1.0
    leads: tuple[str, ...] | None = None
    speed: Speed = 1.0
    loop: bool = False
    start_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    stop_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    block_s: BlockSeconds = 0.1
    block: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None


class ReplayDevice:
    """Delivers a recording."""

    Options: ClassVar[type[msgspec.Struct]] = ReplayOptions
    recorded: ClassVar[bool] = True
    """Opening a large file may take its time (:class:`~ecgnat_stream.device.Device`)."""

    def __init__(self, options: ReplayOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._thread = SideThread(f"replay {options.path}")
        self._read: Callable[[int, int], Samples] | None = None
        self._fs, self._total = 0.0, 0
        self._beyond = ""

    def open(self) -> tuple[StreamInfo, Callable[[int, int], Samples]]:
        """Open the recording and check it: what it holds, and the function that reads a part of it, as :class:`OpenRecord` does.

        For whoever needs no stream; parts count from ``start_s``.

        Raises
        ------
        DeviceError
            If there is no usable recording, or nothing between ``start_s`` and ``stop_s``.
        InputError
            If it states another rate or unit than the options.
        """
        options = self._options
        record = open_record(
            options.path,
            options.fmt,
            fs=options.fs,
            units=options.units,
            scale=options.scale,
            leads=options.leads,
            strict=options.strict,
        )
        start = round(options.start_s * record.fs)
        stop = record.total if options.stop_s is None else min(record.total, round(options.stop_s * record.fs))
        if start >= stop:
            end = "the end" if options.stop_s is None else f"{options.stop_s:g} s"
            raise DeviceError(
                f"{record.path}: there is nothing from {options.start_s:g} s to {end}: it is {record.total / record.fs:g} s long "
                "(start_s and stop_s, --start and --stop)",
                permanent=True,
            )
        notes = record.notes
        if options.stop_s is not None and round(options.stop_s * record.fs) > record.total:
            self._beyond = f"--stop {options.stop_s:g} (stop_s): it ends at {record.total / record.fs:g} s"
            notes = (*notes, self._beyond)
        left_out = f", without {', '.join(record.left_out)}" if record.left_out else ""
        info = StreamInfo(
            fs=record.fs,
            leads=record.leads,
            device=f"replay {record.path.name}{left_out}{''.join(f'; {note}' for note in notes)}",
            uv_per_lsb=record.uv_per_lsb,
            live=options.speed != "max",
            pace=1.0 if options.speed == "max" else options.speed,
            recorded=True,
            left_out=record.left_out,
            total=None if options.loop else stop - start,
            notes=notes,
        )
        self._total = stop - start
        return info, lambda first, last: record.read(start + first, start + last)

    async def __aenter__(self) -> StreamInfo:
        """Open the recording and check it."""
        try:
            info, self._read = await self._thread.do(self.open)
        except InputError as error:
            raise DeviceError(str(error), permanent=True) from error
        self._fs = info.fs
        if self._beyond:
            _log.warning("%s: %s", self._options.path, self._beyond)
        return info

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Close the recording."""
        self._read = None

    async def __aiter__(self) -> AsyncIterator[SampleBlock]:
        """Yield the blocks, each when its last sample is due."""
        read, options = self._read, self._options
        if read is None:
            raise DeviceError(f"{options.path}: not open: enter the device before reading it", permanent=True)
        block = options.block or max(1, round(options.block_s * self._fs))
        piece = block * max(1, round(_PIECE_S * self._fs / block))
        pace = Pace(self._clock, self._fs, options.speed)
        at = 0
        while True:
            for piece_start in range(0, self._total, piece):
                piece_stop = min(self._total, piece_start + piece)
                samples = await self._thread.do(partial(read, piece_start, piece_stop))
                if options.speed == "max" and piece_start and np.isnan(samples).all():  # a long hole takes no time: a jump
                    at += samples.shape[1]
                    continue
                for cut in range(0, piece_stop - piece_start, block):
                    part = samples[:, cut : cut + block]
                    t_ns = await pace.until(at + part.shape[1])
                    yield SampleBlock(at, part, t_ns)
                    at += part.shape[1]
            if not options.loop:
                return
