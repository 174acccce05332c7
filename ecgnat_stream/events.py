"""Everything that travels on the alert bus. The msgspec structs are the wire schema.

Every event names its bed as ``site/unit/bed``, its wall time, and where it lies on the bed's stream: ``at_s``, seconds of
signal since the stream's first sample. JSON carries a ``type`` field per struct. :class:`Wave` and :class:`Trace` hold arrays
and travel as binary frames. What comes from outside (a device's names and words, a person's command) is cleaned as an event is
made of it, see :func:`~ecgnat_stream.words.cleaned`: who shows, logs or writes an event need not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.codes import Codes, Priority
from ecgnat_stream.signal import SampleBlock
from ecgnat_stream.words import LINE, NAME, cleaned

__all__ = [
    "Alarm",
    "Beat",
    "Command",
    "CommandResult",
    "Delivery",
    "DeviceStatus",
    "EngineStatus",
    "Event",
    "LeadQuality",
    "Meta",
    "Quality",
    "Rhythm",
    "Technical",
    "Timing",
    "Trace",
    "Vitals",
    "Wave",
]


def _tag(name: str) -> str:
    """``DeviceStatus`` to ``device-status``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


@cache
def _texts(kind: type[Event]) -> tuple[tuple[str, int], ...]:
    """Return the fields of an event that are text, and how long each may be."""
    fields = [field.name for field in msgspec.structs.fields(kind) if field.type in (str, str | None)]
    return tuple((name, _LIMITS.get(name, LINE)) for name in fields)


_LIMITS = {
    "bed": 3 * LINE, "alarm_id": 4 * LINE, "event_id": 4 * LINE, "newest": 4 * LINE, "text": 2 * LINE,
    "condition": NAME, "action": NAME, "lead": NAME, "by": NAME, "source": NAME,
}  # fmt: skip
"""How long texts may be that have another limit than ``LINE``, characters."""


Probability = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=_tag, omit_defaults=False):
    """What all events carry.

    Parameters
    ----------
    bed
        ``site/unit/bed``.
    time
        Wall time (UTC) of what the event is about, by the host's clock.
    at_s
        The same on the bed's stream, in s of signal since its first sample; None where no signal is involved.
    """

    bed: str
    time: datetime
    at_s: float | None = None

    def __post_init__(self) -> None:
        """Clean every text, whoever wrote it, so that each sink can write the event."""
        for field, limit in _texts(type(self)):
            text = getattr(self, field)
            if isinstance(text, str) and (shown := cleaned(text, limit)) != text:
                msgspec.structs.force_setattr(self, field, shown)


class Meta(Event, frozen=True, kw_only=True):
    """A stream has begun: what the device delivers, and how it was understood.

    ``leads`` are the device's names, ``used_as`` the lead each is taken for (None: left out). ``session`` grows with every stream
    of this bed, also over restarts: it is never below the unix time, s, at which the stream's connection began. ``pace`` is the
    multiple of real time at which a recording is played: what its events are apart takes so many times longer in the recording,
    or less where the host cannot keep that pace: lengths of a recording (``recorded``) are what its ``at_s`` are apart.
    """

    leads: tuple[str, ...]
    used_as: tuple[str | None, ...]
    fs: float
    uv_per_lsb: float
    device: str
    live: bool
    session: int
    clock: str = "host monotonic, wall anchor at start"
    pace: float = 1.0
    recorded: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        msgspec.structs.force_setattr(self, "leads", tuple(cleaned(lead, NAME) for lead in self.leads))


class DeviceStatus(Event, frozen=True, kw_only=True):
    """State of the link to one device."""

    state: Literal["connecting", "online", "stalled", "offline", "ended"]
    detail: str = ""
    session: int = 0

    @property
    def online(self) -> bool:
        """True while samples are expected to arrive."""
        return self.state == "online"


class Beat(Event, frozen=True, kw_only=True):
    """One detected QRS complex; ``at_s`` is its R peak.

    Parameters
    ----------
    sample
        Device-rate index of the R peak.
    rr_ms
        Interval to the beat before, ms; None for the first one or across a gap.
    label
        AAMI EC57 class N, S, V, F or Q.
    lead
        The lead that decided the position.
    """

    sample: int
    rr_ms: float | None = None
    label: Literal["N", "S", "V", "F", "Q"] = "Q"
    lead: str = ""


class Vitals(Event, frozen=True, kw_only=True):
    """Heart rate, and ventricular beats in the last minute; None when there is no valid value, so that nothing stale is shown."""

    heart_rate_bpm: float | None
    rr_ms: float | None = None
    pvc_per_min: int | None = None


BeatLabel = Literal["N", "S", "V", "F", "Q"]
LeadState = Literal["good", "noisy", "motion", "mains", "clipped", "saturated", "flat", "off", "missing"]


class LeadQuality(msgspec.Struct, frozen=True):
    """Signal quality of one lead: an index in 0..1 and what is wrong."""

    sqi: Probability
    state: LeadState


class Quality(Event, frozen=True, kw_only=True):
    """Signal quality of one bed: per lead, and whether anything can be decided from it."""

    leads: dict[str, LeadQuality]
    usable: bool
    best_lead: str | None
    reason: str = ""


class Timing(msgspec.Struct, frozen=True):
    """Host monotonic times in ns: last sample of the window, window cut, prediction ready, event published."""

    last_sample_ns: int
    cut_ns: int
    ready_ns: int
    published_ns: int


class Rhythm(Event, frozen=True, kw_only=True):
    """The rhythm as the model sees it now, one per hop.

    Parameters
    ----------
    label
        A key of ``codes.RHYTHM_TEXTS``.
    probability
        Of the label's class.
    probabilities
        Of every class in ``codes.RHYTHMS``.
    start_s, stop_s
        Stretch of the stream that the label speaks for.
    window_start, window_stop
        Samples the model saw, at the device's rate.
    without_beats
        Whether a model that reads heartbeats found none in them and looked at the signal in fixed steps.
    """

    label: str
    text: str
    probability: Probability
    probabilities: dict[str, Probability]
    start_s: float
    stop_s: float
    window_start: int
    window_stop: int
    codes: Codes
    timing: Timing
    model: str = ""
    without_beats: bool = False


Kind = Literal["physiological", "technical"]
Phase = Literal["start", "continue", "update", "escalate", "de-escalate", "end", "reset"]
Presence = Literal["on", "off", "latched", "acknowledged"]
Inactivation = Literal["none", "audio-paused", "audio-off", "alarm-paused", "alarm-off", "acknowledged"]


class Alarm(Event, frozen=True, kw_only=True):
    """One phase of one alarm (words of IEC 60601-1-8 and IEEE 11073-10207).

    Parameters
    ----------
    sequence
        Numbers the alarm events of a bed without gaps: from 1 with every start of the process, with a history on from the last.
    alarm_id, event_id
        The alarm's identity (that of its first event) and this event's own: made of bed, process start and ``sequence``, and
        never used again.
    onset_s
        Where on the stream the condition began.
    paused_until
        End of an audio or alarm pause.
    by
        Who silenced it, or ended it: the ``source`` of the command; empty where no person did.
    """

    condition: str
    kind: Kind
    priority: Priority
    phase: Phase
    presence: Presence
    text: str
    sequence: int
    alarm_id: str
    event_id: str
    onset_s: float | None = None
    inactivation: Inactivation = "none"
    paused_until: datetime | None = None
    by: str = ""
    lead: str | None = None
    codes: Codes = Codes()


class Technical(Event, frozen=True, kw_only=True):
    """A stage noticed that something works or no longer works; the alarm stage makes an alarm of it.

    ``bed`` is empty for what concerns every bed (a broker, a sink, a worker). ``source`` is the part that noticed it, where
    several may notice the same: the condition is over when none of them has it any more.
    """

    condition: str
    present: bool
    detail: str = ""
    lead: str | None = None
    source: str = ""


class Command(Event, frozen=True, kw_only=True):
    """A person's order to the alarm stage; ``bed`` may be empty: all beds.

    ``condition`` None means every condition. ``correlation`` is given back in the answer, cleaned as every text is: use letters,
    digits and signs.
    """

    action: Literal["acknowledge", "pause", "resume", "reset"]
    condition: str | None = None
    duration_s: Annotated[float, msgspec.Meta(gt=0, le=600)] | None = None
    source: str = ""
    correlation: str = ""


class CommandResult(Event, frozen=True, kw_only=True):
    """What became of a command."""

    accepted: bool
    action: str
    reason: str = ""
    source: str = ""
    correlation: str = ""


class Delivery(Event, frozen=True, kw_only=True):
    """How far an alarm event has come on its way out of the monitor; ``time`` is when, by the monitor's clock.

    Parameters
    ----------
    step
        ``published``: handed to the broker for the first time. ``at-broker``: the broker has acknowledged it. ``confirmed``: a
        receiver has acknowledged it, on the level of the application.
    by
        The receiver that confirmed; empty for the other steps.
    """

    event_id: str
    step: Literal["published", "at-broker", "confirmed"]
    by: str = ""


class EngineStatus(Event, frozen=True, kw_only=True):
    """The worker itself: ``bed`` is empty.

    Parameters
    ----------
    judged, explained, ended
        Of its ``beds``, how many are being judged, how many are not and an alarm says why, and how many have ended. What is
        left of ``beds`` has only just begun.
    """

    site: str
    worker: str
    online: bool
    session: int
    model: str = ""
    beds: int = 0
    judged: int = 0
    explained: int = 0
    ended: int = 0
    windows: int = 0
    skipped_windows: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Wave:
    """Raw samples of a bed on their way to recorders and wave subscribers; rows and ``pace`` as in the bed's :class:`Meta`."""

    bed: str
    time: datetime
    fs: float
    leads: tuple[str, ...]
    uv_per_lsb: float
    block: SampleBlock
    pace: float = 1.0


@dataclass(frozen=True, slots=True)
class Trace:
    """One conditioned frame of one bed, for drawing: ``(12, FRAME)`` at ``signal.FS``, mV, NaN where missing."""

    bed: str
    time: datetime
    at_s: float
    samples: NDArray[np.float32]
