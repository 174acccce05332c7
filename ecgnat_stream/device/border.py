"""The border to an adapter: what it says is checked, bounded and cleaned here before anybody works on it.

An adapter is foreign code that reads foreign bytes. Out of here come a stream info and blocks that every stage can take; whatever
is wrong, or is raised, is a :class:`~ecgnat_stream.errors.DeviceError`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from ecgnat_stream.device.contract import FS_RANGE
from ecgnat_stream.errors import ConfigError, DeviceError, InputError
from ecgnat_stream.signal import UV_RANGE, SampleBlock, StreamInfo
from ecgnat_stream.wire import MAX_LEADS
from ecgnat_stream.words import LINE, NAME, cleaned

__all__ = ["as_device_error", "checked_block", "checked_info", "pieces"]

_LIVE_BLOCK_S = 600.0
"""Longest block of a patient: a device that kept what it could not send for so long may send it at once."""

_RECORDED_BLOCK_S = 7 * 86_400.0
"""Longest block of a recording, which may be handed over whole."""

_PIECE_S = 10.0
"""Blocks are worked on in pieces of this length, so that none holds the event loop for long."""

_MOST = 2**53
"""Largest sample index and total: beyond, a float64 no longer tells neighbours apart."""


def as_device_error(error: BaseException) -> DeviceError:
    """Return what an adapter raised as the loss of its connection; a setting that cannot be used stays permanent."""
    if isinstance(error, DeviceError):
        return DeviceError(cleaned(_said(error)), permanent=error.permanent)
    if isinstance(error, ConfigError | InputError):
        return DeviceError(cleaned(_said(error)), permanent=True)
    said = _said(error)
    return DeviceError(cleaned(f"{type(error).__name__}: {said}" if said else type(error).__name__))


def _said(error: BaseException) -> str:
    try:
        return str(error)[: 4 * LINE]
    except Exception:  # noqa: BLE001 - foreign code: an error that cannot even say what it is
        return "an error without words"


def checked_info(info: object) -> StreamInfo:
    """Return what a device says will come, its texts cleaned.

    Raises
    ------
    DeviceError
        Permanent, for what no stage can take; it names the field.
    """
    if not isinstance(info, StreamInfo):
        raise _refused("device", f"connecting gives a {type(info).__name__}: a StreamInfo is needed")
    device = cleaned(info.device, LINE) or "device"
    low, high = FS_RANGE
    if not _is_number(info.fs) or not low <= info.fs <= high:
        raise _refused(device, f"a sampling rate of {_shown(info.fs)} Hz is outside {low:g} to {high:g} Hz")
    leads = info.leads
    if not isinstance(leads, tuple | list) or not leads:
        raise _refused(device, "it names no leads")
    if len(leads) > MAX_LEADS:
        raise _refused(device, f"it has {len(leads)} leads: at most {MAX_LEADS} are taken, choose them with leads (--leads)")
    if not all(isinstance(lead, str) and lead.strip() for lead in leads):
        raise _refused(device, "one of its leads has no name")
    least, most = UV_RANGE
    if not _is_number(info.uv_per_lsb) or not least <= info.uv_per_lsb <= most:
        raise _refused(device, f"uv_per_lsb {_shown(info.uv_per_lsb)} is no resolution: {least:g} to {most:g} uV per step")
    if not _is_number(info.pace) or not 0 < info.pace < math.inf:
        raise _refused(device, f"pace {_shown(info.pace)} is no multiple of real time")
    if info.total is not None and not (_is_whole(info.total) and 0 < info.total <= _MOST):
        raise _refused(device, f"total {_shown(info.total)} is no number of samples")
    return replace(
        info,
        fs=float(info.fs),
        leads=tuple(cleaned(lead, NAME) for lead in leads),
        left_out=tuple(cleaned(str(lead), NAME) for lead in info.left_out),
        recorded=bool(info.recorded),
        device=device,
        uv_per_lsb=float(info.uv_per_lsb),
        live=bool(info.live),
    )


def checked_block(block: object, info: StreamInfo) -> SampleBlock:
    """Return a block whose type, place and size are those of the stream.

    Raises
    ------
    DeviceError
        For what is no block of this stream.
    """
    if not isinstance(block, SampleBlock):
        raise DeviceError(f"{info.device}: it delivers a {type(block).__name__}: a SampleBlock is needed")
    samples, rows = block.samples, len(info.leads)
    if not (isinstance(samples, np.ndarray) and _is_whole(block.start) and _is_whole(block.t_ns)):
        raise DeviceError(f"{info.device}: a block at {_shown(block.start)} is no array of samples with a place and a time")
    if (
        samples.dtype != np.float32
        or samples.ndim != 2
        or samples.shape[0] != rows
        or not samples.shape[1]
        or not 0 <= block.start <= _MOST - samples.shape[1]
    ):
        raise DeviceError(
            f"{info.device}: a block of {samples.dtype} {samples.shape} at sample {_shown(block.start)} is no "
            f"float32 block of {rows} leads at a sample from 0 on"
        )
    longest_s = _LIVE_BLOCK_S if info.live else _RECORDED_BLOCK_S
    if samples.shape[1] > longest_s * info.fs:
        raise DeviceError(f"{info.device}: a block of {samples.shape[1]} samples is longer than {longest_s:g} s")
    if type(block.start) is int and type(block.t_ns) is int and not block.lead_off:
        return block
    return SampleBlock(int(block.start), samples, int(block.t_ns), block.lead_off.intersection(info.leads))


def pieces(block: SampleBlock, info: StreamInfo, after_ns: int) -> Iterable[SampleBlock]:
    """Cut a block into parts that are worked on at a time, each with the time of its own last sample, none before ``after_ns``.

    A block that is longer than the time since the one before was kept back by the device; its time must still run forwards.
    """
    if block.samples.shape[1] <= _PIECE_S * info.fs:
        return (block,)
    return _cut(block, info, after_ns)


def _cut(block: SampleBlock, info: StreamInfo, after_ns: int) -> Iterator[SampleBlock]:
    length = max(1, round(_PIECE_S * info.fs))
    for start in range(block.start, block.stop, length):
        stop = min(start + length, block.stop)
        samples = block.samples[:, start - block.start : stop - block.start]
        t_ns = max(block.t_ns - info.clock_ns(block.stop - stop), min(after_ns, block.t_ns))
        yield SampleBlock(start, samples, t_ns, block.lead_off)


def _refused(device: str, what: str) -> DeviceError:
    return DeviceError(f"{device}: {what}", permanent=True)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return type(value) is int or (isinstance(value, int | np.integer) and not isinstance(value, bool))


def _shown(value: object) -> str:
    """Return a number for a message; of what is none, or is endless, the kind alone."""
    if not _is_number(value) or (isinstance(value, int) and value.bit_length() > 100):
        return f"({type(value).__name__})"
    return f"{value:g}" if isinstance(value, float) else str(value)
