"""What leaves the process, byte for byte: wave frames, topic names, JSON and its schema.

Every sink and every gateway speaks this. Nothing here waits or does I/O. A frame or a message that is not exactly as described
is a :class:`~ecgnat_stream.errors.FrameError` that says what is wrong with it; the caller counts it and goes on.
"""

from __future__ import annotations

import inspect
import math
import struct
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.codes import Priority
from ecgnat_stream.errors import FrameError
from ecgnat_stream.events import (
    Alarm,
    Beat,
    Command,
    CommandResult,
    Delivery,
    DeviceStatus,
    EngineStatus,
    Event,
    Meta,
    Quality,
    Rhythm,
    Technical,
    Vitals,
    Wave,
)
from ecgnat_stream.signal import FRAME_S, UV_RANGE, plainly_within

__all__ = [
    "HEADER",
    "MAX_LEADS",
    "MISSING",
    "RETAINED",
    "ROOT",
    "AlarmSummary",
    "BedStatus",
    "CommandRequest",
    "Confirmation",
    "Heartbeat",
    "WaveCutter",
    "WaveFrame",
    "alarm_state_topic",
    "decode_json",
    "encode_json",
    "epoch_ns",
    "largest",
    "missing",
    "pack",
    "quantise",
    "schema",
    "topic",
    "wave_topic",
]

ROOT = "ecg/v1"
MAGIC = b"ECGW"
VERSION = 1
MISSING = -32768
"""Sample code for "no sample here", as in WFDB format 16."""

HEADER = struct.Struct("<4sBBBxQQIIIIf")
"""magic, version, flags, leads, a zero byte, start, t0_ns, samples, fs_mhz, sequence, lead_off, uv_per_lsb: 44 bytes."""

_FLAG_LOSS, _FLAG_BASELINE = 0x01, 0x02
_BITS = 16
MAX_LEADS = 32
MAX_SAMPLES = 65535

_MOST_PER_MV = 1e30
"""Steps of a mV that still count as a number in float32."""

_MOST_DOUBLINGS = 60
"""A step is doubled at most so often; what does not fit then is at the end of the range."""


class BedStatus(Event, frozen=True, kw_only=True):
    """Whether a bed is monitored; retained, and the last will of its monitor.

    Parameters
    ----------
    online
        True while samples arrive.
    since
        Wall time at which ``state`` began.
    worker
        The monitor that has the bed; when ``engine/{worker}/status`` is offline, so is the bed.
    session
        Counts the bed's streams, to tell a stale will from a fresh status.
    """

    online: bool
    since: datetime
    worker: str
    session: int
    state: Literal["connecting", "online", "stalled", "offline", "ended"]
    detail: str = ""


class AlarmSummary(Event, frozen=True, kw_only=True):
    """All alarms of a bed in one retained message, for displays that can read only one topic.

    Parameters
    ----------
    priority
        Of the most urgent alarm that is not over; None if there is none.
    conditions
        Of all that are not over, latched and acknowledged ones too, the most urgent first.
    text
        Of the most urgent one.
    """

    priority: Priority | None
    conditions: tuple[str, ...]
    text: str = ""


class CommandRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person's program sends to ``.../alarm/command``; the bed is that of the topic, the time that of its arrival."""

    action: Literal["acknowledge", "pause", "resume", "reset"]
    condition: str | None = None
    duration_s: Annotated[float, msgspec.Meta(gt=0, le=600)] | None = None
    source: str = ""
    correlation: str = ""


class Heartbeat(Event, frozen=True, kw_only=True):
    """A sign of life of a bed's alarm path, confirmed like an alarm event: both ends know of each other without an alarm.

    Parameters
    ----------
    event_id
        What the receiver confirms.
    every_s
        The next one comes after so long, s.
    receiver
        Who has to confirm it.
    newest
        ``event_id`` of the bed's newest alarm event; empty if there was none. Who has not seen it has lost it.
    """

    event_id: str
    every_s: Annotated[float, msgspec.Meta(gt=0, le=3600)]
    receiver: str
    newest: str = ""


class Confirmation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a receiver publishes to ``.../alarm/confirm``: it has taken these events of the bed.

    Parameters
    ----------
    receiver
        Its name, as the monitor's ``mqtt.confirm`` has it.
    events
        The ``event_id`` of each.
    time
        When it took the last of them, by its own clock.
    """

    receiver: Annotated[str, msgspec.Meta(min_length=1, max_length=80)]
    events: Annotated[tuple[Annotated[str, msgspec.Meta(max_length=200)], ...], msgspec.Meta(min_length=1, max_length=100)]
    time: datetime | None = None


_Message = (
    Alarm
    | AlarmSummary
    | Beat
    | BedStatus
    | Command
    | CommandResult
    | Delivery
    | DeviceStatus
    | EngineStatus
    | Heartbeat
    | Meta
    | Quality
    | Rhythm
    | Technical
    | Vitals
)
_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(_Message)

_SUFFIXES: dict[type[Event], str] = {
    Alarm: "alarm/event",
    AlarmSummary: "alarm/summary",
    Beat: "beat",
    BedStatus: "status",
    Command: "alarm/command",
    CommandResult: "alarm/command/result",
    Delivery: "alarm/delivery",
    DeviceStatus: "status",
    EngineStatus: "status",
    Heartbeat: "alarm/heartbeat",
    Meta: "meta",
    Quality: "quality",
    Rhythm: "rhythm",
    Technical: "technical",
    Vitals: "vitals",
}

RETAINED = (BedStatus, EngineStatus, Meta, Quality, Rhythm, Vitals)
"""Events that are the present state of something: a late subscriber gets the last one first."""


def topic(event: Event, engine: str = "") -> str:
    """Return the topic of an event, ``ecg/v1/{site}/{unit}/{bed}/...``.

    Parameters
    ----------
    engine
        ``{site}/engine/{worker}``, where events that concern no single bed go.
    """
    place = f"{event.site}/engine/{event.worker}" if isinstance(event, EngineStatus) else event.bed or engine
    if not place:
        raise ValueError(f"a {type(event).__name__} without a bed needs an engine to be published under")
    return f"{ROOT}/{place}/{_SUFFIXES[type(event)]}"


def wave_topic(bed: str) -> str:
    """Return the topic of a bed's wave frames."""
    return f"{ROOT}/{bed}/wave"


def alarm_state_topic(alarm: Alarm, engine: str = "") -> str:
    """Return the retained topic that holds the latest phase of an alarm condition; ``engine`` as for :func:`topic`."""
    place = topic(alarm, engine).removesuffix(f"/{_SUFFIXES[Alarm]}")
    return f"{place}/alarm/state/{alarm.condition}"


def encode_json(event: Event) -> bytes:
    """Return an event as JSON, with its ``type``; values that are not a number become null."""
    return _encoder.encode(event)


def decode_json(data: bytes) -> Event:
    """Return the event that JSON bytes hold.

    Raises
    ------
    FrameError
        If they are not JSON, or no event; the message names the field.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"not an event: {error}") from error


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of every message, and of what others send to ``alarm/command`` and ``alarm/confirm``."""
    kinds = (_Message, CommandRequest, Confirmation)
    (events, request, confirmation), components = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ecgnat-stream messages, version 1",
        **events,
        "$defs": {name: _dedented(component) for name, component in sorted(components.items())},
        "x-command-request": request,
        "x-confirmation": confirmation,
    }


def _dedented(component: dict[str, Any]) -> dict[str, Any]:
    """Return a message's schema without its docstring's indent, which only some versions of msgspec and Python take away."""
    text = component.get("description")
    return component if text is None else component | {"description": inspect.cleandoc(text)}


@dataclass(frozen=True, slots=True)
class WaveFrame:
    """A stretch of one bed's samples as it travels.

    Parameters
    ----------
    sequence
        Numbers a bed's frames, 0 to 2**32 - 1 and around; a jump is a frame lost on the way.
    start
        Absolute index of the first sample at ``fs_mhz``.
    t0_ns
        Wall time of the first sample, ns since 1970-01-01 UTC.
    fs_mhz
        Sampling rate in mHz.
    uv_per_lsb
        Microvolts per step, exact in float32.
    codes
        ``(L, T)`` int16; :data:`MISSING` where there is no sample.
    lead_off
        Bit i: the device reports row i as disconnected.
    loss
        True if some sample of the frame is missing.
    baseline
        What is added to the codes of each lead, in steps; empty for nothing.
    """

    sequence: int
    start: int
    t0_ns: int
    fs_mhz: int
    uv_per_lsb: float
    codes: NDArray[np.int16]
    lead_off: int = 0
    loss: bool = False
    baseline: tuple[int, ...] = ()

    @property
    def fs(self) -> float:
        """Sampling rate in Hz."""
        return self.fs_mhz / 1000

    @property
    def samples(self) -> NDArray[np.float32]:
        """``(L, T)`` float32 in mV, NaN where there is no sample."""
        steps = self.codes.astype(np.float64)
        if self.baseline:
            steps += np.array(self.baseline)[:, None]
        steps[self.codes == MISSING] = np.nan
        return (steps * (self.uv_per_lsb / 1000)).astype(np.float32)

    def encode(self) -> bytes:
        """Return the header, the baselines if there are any, and the samples, row after row, little-endian."""
        leads, samples = self.codes.shape
        header = HEADER.pack(
            MAGIC,
            VERSION,
            (_FLAG_LOSS if self.loss else 0) | (_FLAG_BASELINE if self.baseline else 0),
            leads,
            self.start,
            self.t0_ns,
            samples,
            self.fs_mhz,
            self.sequence,
            self.lead_off,
            self.uv_per_lsb,
        )
        return header + np.array(self.baseline, "<i4").tobytes() + self.codes.astype("<i2", copy=False).tobytes()

    @classmethod
    def decode(cls, data: bytes) -> WaveFrame:
        """Return the frame that bytes hold.

        Raises
        ------
        FrameError
            Naming the first thing that is wrong.
        """
        if len(data) < HEADER.size:
            raise FrameError(f"wave frame of {len(data)} bytes is shorter than its header of {HEADER.size}")
        magic, version, flags, leads, start, t0_ns, samples, fs_mhz, sequence, lead_off, uv_per_lsb = HEADER.unpack_from(data)
        if magic != MAGIC:
            raise FrameError(f"wave frame begins with {magic!r}, not with {MAGIC!r}")
        if version != VERSION:
            raise FrameError(f"wave frame of version {version}: this program knows version {VERSION}")
        if flags & ~(_FLAG_LOSS | _FLAG_BASELINE) or data[7]:
            raise FrameError(f"wave frame with unknown flags {flags:#04x} or a reserved byte {data[7]:#04x} that is not zero")
        if not 1 <= leads <= MAX_LEADS:
            raise FrameError(f"wave frame of {leads} leads: 1 to {MAX_LEADS} are possible")
        if not 1 <= samples <= MAX_SAMPLES:
            raise FrameError(f"wave frame of {samples} samples: 1 to {MAX_SAMPLES} are possible")
        if not fs_mhz:
            raise FrameError("wave frame with a sampling rate of 0")
        if not (math.isfinite(uv_per_lsb) and uv_per_lsb > 0):
            raise FrameError(f"wave frame with {uv_per_lsb} microvolts per step")
        if lead_off >> leads:
            raise FrameError(f"wave frame of {leads} leads reports leads beyond them as off ({lead_off:#x})")
        before = HEADER.size + (4 * leads if flags & _FLAG_BASELINE else 0)
        expected = before + 2 * leads * samples
        if len(data) != expected:
            raise FrameError(f"wave frame of {len(data)} bytes: {leads} leads of {samples} samples need {expected}")
        baseline = tuple(np.frombuffer(data[HEADER.size : before], "<i4").tolist())
        codes = np.frombuffer(data, "<i2", offset=before).reshape(leads, samples).astype(np.int16)
        return cls(sequence, start, t0_ns, fs_mhz, uv_per_lsb, codes, lead_off, bool(flags & _FLAG_LOSS), baseline)


def quantise(samples: NDArray[np.float32], uv_per_lsb: float) -> NDArray[np.float64]:
    """Return samples in mV as whole steps, NaN where there is no sample.

    Raises
    ------
    ValueError
        For a step that is none.
    """
    if not (math.isfinite(uv_per_lsb) and uv_per_lsb > 0):
        raise ValueError(f"a step is positive and finite, not {uv_per_lsb=}")
    steps: NDArray[np.float64] = np.rint(samples.astype(np.float64) * min(1000 / uv_per_lsb, _MOST_PER_MV))
    return steps


def largest(bits: int) -> int:
    """Return the largest code of so many bits, in either direction."""
    return (1 << bits - 1) - 1


def missing(bits: int) -> int:
    """Return the code for "no sample here", as in the WFDB formats."""
    return -(1 << bits - 1)


def pack(steps: NDArray[np.float64], bits: int) -> NDArray[np.int32]:
    """Return whole steps as codes of so many bits: NaN as :func:`missing`, what is out of range at the end of it."""
    limit = largest(bits)
    codes: NDArray[np.int32] = np.clip(np.nan_to_num(steps, nan=0.0, posinf=limit, neginf=-limit), -limit, limit).astype(np.int32)
    codes[np.isnan(steps)] = missing(bits)
    return codes


class WaveCutter:
    """Cuts one bed's waves into frames of 0.2 s, whatever the device's block size.

    Frame k holds the samples ``[k n, (k + 1) n)``; lost samples are MISSING, frames without any sample are left out. Where the
    signal does not fit into int16 steps of ``uv_per_lsb``, each lead of that frame has a baseline, the middle between its
    extremes; where that is not enough, the step of the frame is doubled until it is. Samples that no step holds, infinite ones
    too, are at the end of the range.

    Parameters
    ----------
    fs
        Sampling rate in Hz.
    leads
        The names of the rows.
    uv_per_lsb
        Finest step, in microvolts; brought into :data:`~ecgnat_stream.signal.UV_RANGE`. It packs the samples and says nothing
        about their size, so that a stream with a step that is none is still sent.
    sequence
        Number of the first frame, to go on where a cutter before this one stopped.
    """

    def __init__(self, fs: float, leads: tuple[str, ...], uv_per_lsb: float, sequence: int = 0) -> None:
        self.fs, self.leads, self.uv_per_lsb = fs, leads, uv_per_lsb
        least, most = UV_RANGE
        self._finest = float(np.float32(1.0 if math.isnan(uv_per_lsb) else min(max(uv_per_lsb, least), most)))
        self.sequence = sequence
        self.length = max(1, round(FRAME_S * fs))
        self._samples = np.full((len(leads), self.length), np.nan, np.float32)
        self._start: int | None = None
        self._t0_ns = 0
        self._lead_off = 0

    def fits(self, wave: Wave) -> bool:
        """Return whether a wave is of the stream that this cutter was made for."""
        return (wave.fs, wave.leads, wave.uv_per_lsb) == (self.fs, self.leads, self.uv_per_lsb)

    def cut(self, wave: Wave, stop_ns: int) -> list[WaveFrame]:
        """Take a wave whose last sample was taken at wall time ``stop_ns``; return the frames that are now full."""
        block, frames = wave.block, []
        for first in range(block.start - block.start % self.length, block.stop, self.length):
            if self._start is not None and first != self._start:
                frames += self.flush()
            start, stop = max(first, block.start), min(first + self.length, block.stop)
            if self._start is None:
                self._start = first
                self._t0_ns = max(0, stop_ns - round((block.stop - first) / (self.fs * wave.pace) * 1e9))
            self._samples[:, start - first : stop - first] = block.samples[:, start - block.start : stop - block.start]
            self._lead_off |= sum(1 << row for row, name in enumerate(self.leads) if name in block.lead_off)
            if stop == first + self.length:
                frames += self.flush()
        return frames

    def flush(self) -> list[WaveFrame]:
        """Return the frame that is begun, if any: at the end of a stream."""
        if self._start is None or np.isnan(self._samples).all():
            self._reset()
            return []
        uv_per_lsb, baseline, codes = self._codes()
        frame = WaveFrame(
            self.sequence,
            self._start,
            self._t0_ns,
            round(self.fs * 1000),
            uv_per_lsb,
            codes,
            self._lead_off,
            bool((codes == MISSING).any()),
            baseline,
        )
        self.sequence = (self.sequence + 1) % 2**32
        self._reset()
        return [frame]

    def _codes(self) -> tuple[float, tuple[int, ...], NDArray[np.int16]]:
        """Return the step of the frame that is begun, the baseline of each lead in such steps, and the samples in them."""
        if plainly_within(self._samples) and 1000.0 * float(np.abs(self._samples).max()) <= largest(_BITS) * self._finest:
            return self._finest, (), quantise(self._samples, self._finest).astype(np.int16)  # nearly every frame
        uv_per_lsb, baseline = self._scale()
        steps = quantise(self._samples, uv_per_lsb)
        if baseline:
            steps -= np.array(baseline)[:, None]
        return uv_per_lsb, baseline, pack(steps, _BITS).astype(np.int16)

    def _scale(self) -> tuple[float, tuple[int, ...]]:
        """Return the step of the frame that is begun, and the baseline of each lead in such steps; none where none is needed."""
        finite = np.isfinite(self._samples)
        lowest, highest = (
            1000.0 * np.where(finite.any(axis=1), extreme, 0.0).astype(np.float64)
            for extreme in (
                self._samples.min(axis=1, initial=np.inf, where=finite),
                self._samples.max(axis=1, initial=-np.inf, where=finite),
            )
        )
        step = self._finest
        if max(-lowest.min(), highest.max()) <= largest(_BITS) * step:
            return step, ()
        middle, reach = (lowest + highest) / 2, float((highest - lowest).max()) / 2
        room = largest(_BITS) - bool(middle.any())  # the rounding of a baseline takes one
        need = max(reach / room, float(np.abs(middle).max()) / largest(32)) / step
        step *= 2.0 ** min(_MOST_DOUBLINGS, max(0, math.ceil(math.log2(need))))
        baseline = np.clip(np.rint(middle / step), -largest(32), largest(32))
        return step, tuple(int(one) for one in baseline) if baseline.any() else ()

    def _reset(self) -> None:
        self._samples[:] = np.nan
        self._start, self._lead_off = None, 0


def epoch_ns(time: datetime) -> int:
    """Return a wall time as ns since 1970-01-01 UTC, without rounding."""
    return (time - datetime(1970, 1, 1, tzinfo=time.tzinfo)) // timedelta(microseconds=1) * 1000


if __name__ == "__main__":
    # The schema in docs/schema: python -m ecgnat_stream.wire > docs/schema/messages.json
    print(msgspec.json.format(msgspec.json.encode(schema(), order="sorted"), indent=2).decode())
