"""What the rules of the alarm stage see and say: an observation per frame, the picture of one bed, conditions and findings.

A :class:`Picture` is all that is known of one bed at one point of stream time; a :class:`Finding` says that a condition is
present. The tables decide once how urgent every condition of the heart is, and which one speaks for which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ecgnat_stream.codes import RHYTHMS, Priority
from ecgnat_stream.events import Kind

__all__ = [
    "BEAT_DELAY_S",
    "COVERED_BY",
    "EVENTS",
    "HELD_SCORE",
    "HIGH",
    "MINUTE_S",
    "PHYSIOLOGICAL",
    "RATES",
    "RUN_PAUSE_S",
    "BeatMark",
    "Condition",
    "Evidence",
    "Finding",
    "Observation",
    "Picture",
    "finding",
    "may_fibrillate",
    "pvc_per_min",
    "rate_bpm",
    "seen_s",
]

MINUTE_S = 60.0
"""Span over which ventricular beats are counted, and beats are kept."""


BEAT_DELAY_S = 0.3
"""A QRS complex is reported up to so long after its R peak (look-ahead of the detector), so silence is judged that much later."""

RUN_PAUSE_S = 2.0
"""A longer interval ends a run of beats."""

FIBRILLATING_S = 1.5
MAY_SCORE = 0.4
"""So much VF or VT in the evidence, or a score above this, means that a missing QRS may be fibrillation."""


HELD_SCORE = 0.4
"""What has been found by its fibrillation score lasts until the score falls below this."""


class BeatMark(NamedTuple):
    """A QRS complex: seconds of stream, and its AAMI EC57 class N, S, V, F or Q."""

    at_s: float
    label: str


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What the network saw lately.

    Parameters
    ----------
    label
        The decided rhythm, a class of ``codes.RHYTHMS`` or "UNKNOWN".
    stop_s
        Where on the stream its predictions end.
    seconds
        Per class of ``codes.RHYTHMS``: how much of the ``AlarmConfig.rhythm_span_s`` before ``stop_s`` it fills, in s.
    """

    label: str
    stop_s: float
    seconds: tuple[float, ...]

    @property
    def calm(self) -> bool:
        """Whether no rule of a rhythm can begin to speak by it: it names no tachycardia, no fibrillation and no asystole."""
        return self.label not in ("AF", "SVT") and not any(self.seconds[index] for index in _URGENT)


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """What the stages say of one bed for one frame of stream; one for every frame, in order.

    Parameters
    ----------
    at_s
        End of the frame, s of stream.
    beats
        Found since the observation before, in order.
    heart_rate_bpm
        None when there is no valid value.
    usable
        Whether a QRS could be seen.
    leads
        Those leads of the stream that are not good, with their state (``events.LeadQuality``).
    rhythm
        The network's new opinion; None when there is none since the observation before, and for ever where there is no network.
    gap_s
        Signal lost before or within the frame, in s.
    fibrillation
        Score in 0..1 of the fibrillation detector for the last 4 s; None while it has too little signal.
    wrong_mv
        By how much the signal moves within a second, mV, if it is that of a heart in wrong units; None: it is not.
    """

    at_s: float
    beats: tuple[BeatMark, ...] = ()
    heart_rate_bpm: float | None = None
    usable: bool = True
    leads: tuple[tuple[str, str], ...] = ()
    rhythm: Evidence | None = None
    gap_s: float = 0.0
    fibrillation: float | None = None
    wrong_mv: float | None = None


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """All that the rules may look at.

    Parameters
    ----------
    at_s
        Now, s of stream.
    since_s
        Since when the signal can be judged without a break; None: it cannot.
    clear_since_s
        Since when every single frame of it was usable, and no lead got better or worse.
    attached
        Whether any lead has contact, however noisy.
    beats
        The beats of the last minute within ``since_s``, oldest first.
    pvc_per_min
        Ventricular beats of the last minute, those before a break included.
    irregularity
        How much neighbouring normal intervals differ, see :func:`~ecgnat_stream.alarm.ectopy.irregularity`.
    heart_rate_bpm
        None when there is no valid value.
    rhythm
        The network's latest opinion, if it is not stale.
    fibrillation
        Mean of the fibrillation score over the last 3 s; None: there is none.
    fibrillation_since_s
        Since when that is above ``AlarmConfig.vf_score``, or, with the alarm on, above :data:`HELD_SCORE`; None: it is not.
    high_since_s, low_since_s, af_since_s, svt_since_s
        Since when the heart rate is beyond its limit, the decided rhythm AF or SVT; None: it is not.
    present
        Conditions that are on now: a limit is harder to leave than to reach.
    """

    at_s: float
    since_s: float | None
    clear_since_s: float = 0.0
    attached: bool = True
    beats: tuple[BeatMark, ...] = ()
    pvc_per_min: int = 0
    irregularity: float | None = None
    heart_rate_bpm: float | None = None
    rhythm: Evidence | None = None
    fibrillation: float | None = None
    fibrillation_since_s: float | None = None
    high_since_s: float | None = None
    low_since_s: float | None = None
    af_since_s: float | None = None
    svt_since_s: float | None = None
    present: frozenset[str] = frozenset()


class Condition(NamedTuple):
    """What is decided once about a condition: how urgent it is, whether it latches, how it reads."""

    priority: Priority
    latching: bool
    text: str


class Finding(msgspec.Struct, frozen=True):
    """A condition that is present, with the place on the stream where it began."""

    condition: str
    kind: Kind
    priority: Priority
    latching: bool
    text: str
    onset_s: float | None = None
    lead: str | None = None


PHYSIOLOGICAL: dict[str, Condition] = {
    "ventricular-fibrillation": Condition("high", True, "ventricular fibrillation or flutter"),
    "asystole": Condition("high", True, "asystole"),
    "ventricular-tachycardia": Condition("high", True, "ventricular tachycardia"),
    "extreme-tachycardia": Condition("high", True, "extreme tachycardia"),
    "extreme-bradycardia": Condition("high", True, "extreme bradycardia"),
    "supraventricular-tachycardia": Condition("medium", False, "supraventricular tachycardia"),
    "tachycardia": Condition("medium", False, "heart rate high"),
    "bradycardia": Condition("medium", False, "heart rate low"),
    "atrial-fibrillation": Condition("medium", False, "atrial fibrillation or flutter"),
    "ventricular-run": Condition("medium", False, "run of ventricular beats"),
    "r-on-t": Condition("medium", False, "ventricular beat on the T wave"),
    "pause": Condition("medium", False, "pause"),
    "ventricular-pair": Condition("low", False, "pair of ventricular beats"),
    "ventricular-bigeminy": Condition("low", False, "ventricular bigeminy"),
    "ventricular-trigeminy": Condition("low", False, "ventricular trigeminy"),
    "frequent-pvc": Condition("low", False, "frequent ventricular beats"),
    "missed-beat": Condition("low", False, "missed beat"),
    "irregular-rhythm": Condition("low", False, "irregular rhythm"),
}
"""Priority and latching of every condition of the heart, in the order in which they are found."""

HIGH = tuple(name for name, about in PHYSIOLOGICAL.items() if about.priority == "high")
"""The conditions that nothing can switch off."""

RATES = ("extreme-tachycardia", "extreme-bradycardia", "supraventricular-tachycardia", "tachycardia", "bradycardia")
"""Conditions of the heart rate."""

EVENTS = ("ventricular-run", "r-on-t", "pause")
"""Momentary conditions: each is shown for a while after it has passed."""

_VF, _VT = ("ventricular-fibrillation",), ("ventricular-fibrillation", "ventricular-tachycardia")
COVERED_BY: dict[str, tuple[str, ...]] = {
    "asystole": _VF,
    "ventricular-tachycardia": _VF,
    "extreme-tachycardia": _VT,
    "extreme-bradycardia": (*_VF, "asystole"),
    "supraventricular-tachycardia": (*_VT, "extreme-tachycardia"),
    "tachycardia": (*_VT, "extreme-tachycardia", "supraventricular-tachycardia"),
    "bradycardia": (*_VF, "asystole", "extreme-bradycardia"),
    "atrial-fibrillation": (*_VF, "asystole"),
    "ventricular-run": _VT,
    "r-on-t": _VT,
    "pause": (*_VF, "asystole", "extreme-bradycardia"),
    "ventricular-pair": (*_VT, "ventricular-run"),
    "ventricular-bigeminy": _VT,
    "ventricular-trigeminy": _VT,
    "frequent-pvc": (*_VT, "ventricular-bigeminy", "ventricular-trigeminy"),
    "missed-beat": (*_VF, "asystole", "extreme-bradycardia", "pause", "atrial-fibrillation", "irregular-rhythm"),
    "irregular-rhythm": (*_VT, "asystole", "atrial-fibrillation"),
}
"""One of these, of the same or higher priority, says the same more urgently or exactly: the lesser does not start, or ends."""

_INDEX = {name: index for index, name in enumerate(RHYTHMS)}
_URGENT = [_INDEX[name] for name in ("VF", "VT", "ASYSTOLE")]


def finding(condition: str, onset_s: float, detail: str = "") -> Finding:
    """Return the finding of a condition of the heart; its text stays the same while it lasts."""
    about = PHYSIOLOGICAL[condition]
    text = f"{about.text}: {detail}" if detail else about.text
    return Finding(condition, "physiological", about.priority, about.latching, text, round(onset_s, 3))


def seen_s(picture: Picture, rhythm: str) -> float:
    """Return how much of the evidence span the network calls so; 0 without its opinion."""
    return 0.0 if picture.rhythm is None else picture.rhythm.seconds[_INDEX[rhythm]]


def may_fibrillate(picture: Picture) -> bool:
    """Return whether QRS complexes may be missing because the heart fibrillates."""
    if (picture.fibrillation or 0.0) > MAY_SCORE:
        return True
    return seen_s(picture, "VF") + seen_s(picture, "VT") >= FIBRILLATING_S


def rate_bpm(beats: Sequence[BeatMark]) -> float:
    """Return the mean rate over all intervals of at least two beats."""
    span_s = beats[-1].at_s - beats[0].at_s
    return 60.0 * (len(beats) - 1) / span_s if span_s > 0 else 0.0


def pvc_per_min(beats: Sequence[BeatMark], at_s: float) -> int:
    """Count the ventricular beats of the last minute before ``at_s``."""
    return sum(1 for beat in beats if beat.label == "V" and beat.at_s > at_s - MINUTE_S)
