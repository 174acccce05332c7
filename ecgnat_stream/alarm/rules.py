"""The conditions of the heart: pure functions from what is known of one bed now to a finding, or none.

In comes a :class:`Picture`: the beats, the heart rate and the network's rhythm up to one point of stream time. Out goes a
:class:`Finding` per condition that is present at that point. Nothing here remembers anything or reads a clock. Where the signal
cannot be judged there is no finding; ``technical.py`` then reports that instead.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, NamedTuple

import msgspec

from ecgnat_stream.alarm.config import AlarmConfig
from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.events import Kind, Priority
from ecgnat_stream.signal import FRAME_S

__all__ = ["PHYSIOLOGICAL", "BeatMark", "Condition", "Evidence", "Finding", "Observation", "Picture", "physiological"]

SETTLE_S = 2.0
"""The QRS detector may need so long after the signal has come back; silence counts from then on."""

BEAT_DELAY_S = 0.3
"""A QRS complex is reported up to so long after its R peak (look-ahead of the detector), so silence is judged that much later."""

STALE_S = 3.0
"""The network's opinion is not used once the stream is so far past what it saw (three hops: the model is late)."""

LIVE_S = 2.0
"""A run of beats counts as going on while its last beat is not older (30 bpm)."""

FIBRILLATING_S = 1.5
"""So much VF or VT in the evidence means that a missing QRS may be fibrillation ..."""

ASYSTOLE_GRACE_S = 3.0
"""... for which asystole waits so long, and no longer; likewise where the network sees nothing but a heart that beats."""

SLOW_STRETCH_S = 8.0
"""Below 40 bpm, five beats can take longer than 10 s; so long a stretch of slow intervals is enough."""

RUN_PAUSE_S = 2.0
"""A longer interval ends a run of ventricular beats."""

VT_AGREED_S = 0.4
"""A beat's label is a hint: a run of ventricular beats counts where the network saw so much VT or VF (two frames) lately ..."""

LONG_RUN_S = 7.0
"""... or, whatever the network says, once the run has lasted so long."""

TRUSTED_BEATS = 3
"""So many QRS complexes in the evidence span, all of the bed's normal shape, outweigh an asystole that only the network sees."""

HYSTERESIS_BPM = 5.0
"""A rate that is beyond its limit must come back by so much before the condition is over."""

_VT, _VF, _ASYSTOLE = RHYTHMS.index("VT"), RHYTHMS.index("VF"), RHYTHMS.index("ASYSTOLE")
_BEATING = [RHYTHMS.index(name) for name in ("SINUS", "AF", "SVT", "PACED")]


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
        The network's new opinion; None when there is none since the observation before.
    gap_s
        Signal lost before or within the frame, in s.
    """

    at_s: float
    beats: tuple[BeatMark, ...] = ()
    heart_rate_bpm: float | None = None
    usable: bool = True
    leads: tuple[tuple[str, str], ...] = ()
    rhythm: Evidence | None = None
    gap_s: float = 0.0


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """All that the rules may look at.

    Parameters
    ----------
    at_s
        Now, s of stream.
    since_s
        Since when the signal can be judged without a break; None: it cannot.
    attached
        Whether any lead has contact, however noisy.
    beats
        The latest beats within ``since_s``, oldest first.
    heart_rate_bpm
        None when there is no valid value.
    rhythm
        The network's latest opinion, if it is not stale.
    high_since_s, low_since_s, af_since_s
        Since when the heart rate is beyond its limit, the decided rhythm AF; None: it is not.
    present
        Conditions that are on now: a limit of the rate is harder to leave than to reach.
    """

    at_s: float
    since_s: float | None
    attached: bool = True
    beats: tuple[BeatMark, ...] = ()
    heart_rate_bpm: float | None = None
    rhythm: Evidence | None = None
    high_since_s: float | None = None
    low_since_s: float | None = None
    af_since_s: float | None = None
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
    "tachycardia": Condition("medium", False, "heart rate high"),
    "bradycardia": Condition("medium", False, "heart rate low"),
    "atrial-fibrillation": Condition("medium", False, "atrial fibrillation or flutter"),
}
"""Priority and latching of every condition of the heart, in the order in which they are shown."""

RATES = ("extreme-tachycardia", "extreme-bradycardia", "tachycardia", "bradycardia")
"""Conditions of the heart rate alone."""

COVERED_BY: dict[str, tuple[str, ...]] = {
    "asystole": ("ventricular-fibrillation",),
    "ventricular-tachycardia": ("ventricular-fibrillation",),
    "extreme-tachycardia": ("ventricular-fibrillation", "ventricular-tachycardia"),
    "extreme-bradycardia": ("ventricular-fibrillation", "asystole"),
    "tachycardia": ("ventricular-fibrillation", "ventricular-tachycardia", "extreme-tachycardia"),
    "bradycardia": ("ventricular-fibrillation", "asystole", "extreme-bradycardia"),
    "atrial-fibrillation": ("ventricular-fibrillation", "asystole"),
}
"""One of these, of the same or higher priority, says the same more urgently: the lesser condition does not start, or ends."""


def _finding(condition: str, onset_s: float, detail: str = "") -> Finding:
    about = PHYSIOLOGICAL[condition]
    text = f"{about.text}: {detail}" if detail else about.text
    return Finding(condition, "physiological", about.priority, about.latching, text, round(onset_s, 3))


def _seconds(picture: Picture, index: int) -> float:
    return 0.0 if picture.rhythm is None else picture.rhythm.seconds[index]


def _rate_bpm(beats: tuple[BeatMark, ...]) -> float:
    """Return the mean rate over all intervals of at least two beats."""
    span_s = beats[-1].at_s - beats[0].at_s
    return 60.0 * (len(beats) - 1) / span_s if span_s > 0 else 0.0


def ventricular_fibrillation(picture: Picture, config: AlarmConfig) -> Finding | None:
    """Find fibrillation, flutter: ``vf_s`` in all within the evidence span. Noise does not forbid it, the network knows noise."""
    seconds = _seconds(picture, _VF)
    if picture.rhythm is None or not picture.attached or seconds < config.vf_s:
        return None
    return _finding("ventricular-fibrillation", picture.rhythm.stop_s - seconds)


def asystole(picture: Picture, config: AlarmConfig) -> Finding | None:
    """Find no QRS for ``asystole_s`` in a signal that would show one, or a network that sees nothing but asystole.

    The second is for noise that is taken for QRS complexes. It must fill the whole evidence span, since around an escape beat the
    network calls the pauses asystole too; and it does not count against beats of the bed's normal shape. The first waits
    :data:`ASYSTOLE_GRACE_S` where the network sees fibrillation, that it may be recognised, or nothing but a beating heart, whose
    QRS complexes the detector may have lost.
    """
    if picture.since_s is None:
        return None
    quiet_since_s = picture.beats[-1].at_s if picture.beats else picture.since_s + SETTLE_S
    quiet_s = picture.at_s - quiet_since_s - BEAT_DELAY_S
    if quiet_s < config.asystole_s and not _nothing_but_asystole(picture, config):
        return None
    fibrillating = _seconds(picture, _VF) + _seconds(picture, _VT) >= FIBRILLATING_S
    beating = sum(_seconds(picture, index) for index in _BEATING) >= config.rhythm_span_s - FRAME_S
    if (fibrillating or beating) and quiet_s < config.asystole_s + ASYSTOLE_GRACE_S:
        return None
    if quiet_s >= config.asystole_s:
        return _finding("asystole", quiet_since_s, f"no QRS for {config.asystole_s:g} s")
    return _finding("asystole", picture.at_s - _seconds(picture, _ASYSTOLE), "seen in the waveform")


def _nothing_but_asystole(picture: Picture, config: AlarmConfig) -> bool:
    span_s = config.rhythm_span_s
    if picture.rhythm is None or picture.since_s is None or picture.at_s - picture.since_s < span_s:
        return False
    if _seconds(picture, _ASYSTOLE) < max(config.asystole_s, span_s - FRAME_S):
        return False
    labels = [beat.label for beat in picture.beats if beat.at_s >= picture.at_s - span_s]
    return len(labels) < TRUSTED_BEATS or set(labels) != {"N"}


def ventricular_run(beats: tuple[BeatMark, ...]) -> tuple[BeatMark, ...]:
    """Return the ventricular beats without a pause at the end of ``beats``."""
    start = len(beats)
    while start and beats[start - 1].label == "V":
        if start < len(beats) and beats[start].at_s - beats[start - 1].at_s > RUN_PAUSE_S:
            break
        start -= 1
    return beats[start:]


def ventricular_tachycardia(picture: Picture, config: AlarmConfig) -> Finding | None:
    """Find ventricular tachycardia by either of two ways.

    By beats: the last ``vt_beats`` or more are ventricular, faster than ``vt_rate_bpm``, and the network agrees; without its
    opinion they are enough, and so is a run of :data:`LONG_RUN_S` against it. By waveform: the network saw ``vt_s`` of it within
    the evidence span, and the heart rate or the last intervals are faster than that too; no rate at all does not forbid it.
    """
    if picture.since_s is None:
        return None
    beats = picture.beats
    if beats and beats[-1].label == "V" and picture.at_s - beats[-1].at_s <= LIVE_S:
        run = ventricular_run(beats)
        agreed = picture.rhythm is None or _seconds(picture, _VT) + _seconds(picture, _VF) >= VT_AGREED_S
        believed = agreed or run[-1].at_s - run[0].at_s >= LONG_RUN_S
        rate = _rate_bpm(run[-config.vt_beats :])
        if believed and len(run) >= config.vt_beats and rate > config.vt_rate_bpm:
            return _finding("ventricular-tachycardia", run[0].at_s, f"{config.vt_beats} ventricular beats, {rate:.0f} bpm")
    seconds = _seconds(picture, _VT)
    if picture.rhythm is None or seconds < config.vt_s:
        return None
    rates = [] if picture.heart_rate_bpm is None else [picture.heart_rate_bpm]
    recent = tuple(beat for beat in beats if beat.at_s >= picture.at_s - config.rhythm_span_s)
    if len(recent) > 1:
        rates.append(_rate_bpm(recent[-config.vt_beats :]))
    if rates and max(rates) <= config.vt_rate_bpm:
        return None
    return _finding("ventricular-tachycardia", picture.rhythm.stop_s - seconds, "seen in the waveform")


def _held_bpm(picture: Picture, condition: str) -> float:
    """Return by how much the limit is easier to meet, because the condition is present already."""
    return HYSTERESIS_BPM if condition in picture.present else 0.0


def extreme_tachycardia(picture: Picture, config: AlarmConfig) -> Finding | None:
    """Find a mean rate above ``extreme_tachy_bpm`` over the last ``extreme_tachy_beats`` beats."""
    beats = picture.beats[-config.extreme_tachy_beats :]
    if picture.since_s is None or len(beats) < config.extreme_tachy_beats or picture.at_s - beats[-1].at_s > LIVE_S:
        return None
    rate = _rate_bpm(beats)
    if rate <= config.extreme_tachy_bpm - _held_bpm(picture, "extreme-tachycardia"):
        return None
    return _finding("extreme-tachycardia", beats[0].at_s, f"{rate:.0f} bpm over {len(beats)} beats")


def extreme_bradycardia(picture: Picture, config: AlarmConfig) -> Finding | None:
    """Find a mean rate below ``extreme_brady_bpm`` over ``extreme_brady_beats`` beats, or 8 s of nothing but longer intervals.

    At most one of the intervals may be shorter, so that a single pause is no bradycardia, and none so long that it is asystole.
    The interval that has not ended yet counts towards the 8 s, so that the slowest rhythms are not found last.
    """
    beats = picture.beats
    if picture.since_s is None or len(beats) < 2:
        return None
    limit_bpm = config.extreme_brady_bpm + _held_bpm(picture, "extreme-bradycardia")
    limit_s = 60.0 / limit_bpm
    open_s = picture.at_s - beats[-1].at_s
    if open_s <= limit_s and beats[-1].at_s - beats[-2].at_s <= limit_s:
        return None
    last = beats[-config.extreme_brady_beats :]
    intervals_s = [after.at_s - before.at_s for before, after in pairwise(last)]
    one_short = sum(interval_s <= limit_s for interval_s in intervals_s) <= 1 and max(intervals_s) <= config.asystole_s
    if len(last) == config.extreme_brady_beats and one_short and (rate := _rate_bpm(last)) < limit_bpm:
        return _finding("extreme-bradycardia", last[0].at_s, f"{rate:.0f} bpm over {len(last)} beats")
    start = len(beats) - 1
    while start and limit_s < beats[start].at_s - beats[start - 1].at_s <= config.asystole_s:
        start -= 1
    stop_s = picture.at_s if limit_s < open_s <= config.asystole_s else beats[-1].at_s
    if stop_s - beats[start].at_s < SLOW_STRETCH_S:
        return None
    return _finding("extreme-bradycardia", beats[start].at_s, f"below {config.extreme_brady_bpm:g} bpm for {SLOW_STRETCH_S:g} s")


def _lasting(
    condition: Literal["tachycardia", "bradycardia", "atrial-fibrillation"],
    picture: Picture,
    since_s: float | None,
    delay_s: float,
) -> Finding | None:
    """Find a condition that has lasted for its delay; one that is present already and interrupted goes on at once."""
    if since_s is None or (condition not in picture.present and picture.at_s - since_s < delay_s):
        return None
    return _finding(condition, since_s)


def physiological(picture: Picture, config: AlarmConfig) -> list[Finding]:
    """Return every condition of the heart that is present, the most urgent first."""
    found = (
        ventricular_fibrillation(picture, config),
        asystole(picture, config),
        ventricular_tachycardia(picture, config),
        extreme_tachycardia(picture, config),
        extreme_bradycardia(picture, config),
        _lasting("tachycardia", picture, picture.high_since_s, config.hr_delay_s),
        _lasting("bradycardia", picture, picture.low_since_s, config.hr_delay_s),
        _lasting("atrial-fibrillation", picture, picture.af_since_s, config.af_delay_s),
    )
    return [finding for finding in found if finding is not None and finding.condition not in config.disabled]
