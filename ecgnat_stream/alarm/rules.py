"""The conditions of the heart: pure functions from what is known of one bed now to a finding, or none.

In comes a :class:`Picture`: the beats, the heart rate, the network's rhythm and the fibrillation score up to one point of stream
time. Out goes a :class:`Finding` per condition that is present at that point. Here are those of high priority and the rates,
in ``ectopy.py`` those of single beats and intervals. Every one of high priority can be met without the network. Nothing here
remembers anything or reads a clock. Where the signal cannot be judged there is no finding; ``technical.py`` reports that instead.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from math import inf

from ecgnat_stream.alarm.config import AlarmConfig
from ecgnat_stream.alarm.ectopy import ectopic, irregular, supraventricular_tachycardia
from ecgnat_stream.alarm.picture import (
    BEAT_DELAY_S,
    HELD_SCORE,
    RUN_PAUSE_S,
    BeatMark,
    Finding,
    Picture,
    finding,
    may_fibrillate,
    rate_bpm,
    seen_s,
)
from ecgnat_stream.signal import FRAME_S

__all__ = ["SLOW_SHARE", "calm_until_s", "physiological"]

SETTLE_S = 2.0
"""The QRS detector may need so long after the signal has come back; silence counts from then on."""

STALE_S = 3.0
"""The network's opinion is not used once the stream is so far past what it saw (three hops: the model is late)."""

LIVE_S = 2.0
"""A run of beats counts as going on while its last beat is not older (30 bpm)."""

ASYSTOLE_GRACE_S = 3.0
"""Asystole waits so long, and no longer, where the heart may fibrillate, or the network sees nothing but a heart that beats."""

SLOW_SHARE = 0.7
"""No interval of an extreme bradycardia is shorter than this share of its limit: a single pause is none."""

SLOW_STRETCH_S = 8.0
"""Below 40 bpm, five beats can take longer than 10 s; so long a stretch of slow intervals is enough."""

VT_AGREED_S = 0.8
"""A beat's label is a hint: a run of ventricular beats counts where the network saw so much VT or VF (four frames) lately ..."""

VT_SURE_S = 1.0
"""... one beat fewer is enough where it saw so much ..."""

LONG_RUN_S = 7.0
LONG_SHARE = 0.85
"""... and, whatever the network says, where nearly all beats of so many seconds are ventricular."""

STEADY_RATIO = 2.5
"""The longest interval of a run is at most so many times the shortest."""

LONGEST_RUN = 36
"""So many beats of a run are looked at: those of 7 s at 300 bpm."""

TRUSTED_BEATS = 3
"""So many QRS complexes in the evidence span, all of the bed's normal shape, outweigh an asystole that only the network sees."""

HYSTERESIS_BPM = 5.0
"""A rate that is beyond its limit must come back by so much before the condition is over."""

SPLIT_S = 0.4
"""So much of what the network calls VF (two frames) lets what it calls VT count too, where the detector supports it."""

SUPPORT = 0.5
"""The least score of the fibrillation detector with which the network's word on a waveform is taken."""

OVERRULE_S = 6.0
"""A score that has been high for so long counts whatever the network sees: it may delay an alarm, never prevent it."""

SCORE_LAG_S = 4.0
"""A score says that the last 4 s fibrillate."""

PLAIN_SHARE = 0.8
"""At least so many of the QRS complexes must be of the normal shape to raise a doubt about a ventricular rhythm."""

ROUNDING_S = 1e-6
"""Times that are compared with each other are rounded by less."""

_BEATING = ("SINUS", "AF", "SVT", "PACED")


def fibrillating_s(picture: Picture, config: AlarmConfig) -> float | None:
    """Return how long the heart has been fibrillating by the network and the detector together; None: it is not.

    Each alone is enough where the other has nothing to say. Of the two, the detector misses less and the network knows more
    rhythms: a high score counts unless the network sees a heart that beats, and then too once it has lasted
    :data:`OVERRULE_S`; the network's ``vf_s``, with what it splits between VF and VT, counts unless the score is low.
    """
    vf_s, both_s, score = seen_s(picture, "VF"), seen_s(picture, "VF") + seen_s(picture, "VT"), picture.fibrillation
    if score is None:
        return vf_s if vf_s >= config.vf_s else None
    if score >= SUPPORT and vf_s >= config.vf_s:
        return vf_s
    if score >= SUPPORT and vf_s >= SPLIT_S and both_s >= config.vf_s:
        return both_s
    beating_s = sum(seen_s(picture, name) for name in _BEATING)
    enough = HELD_SCORE if "ventricular-fibrillation" in picture.present else config.vf_score
    if score <= enough:
        return None
    since_s = picture.fibrillation_since_s
    lasted_s = SCORE_LAG_S if since_s is None else SCORE_LAG_S + picture.at_s - since_s
    return lasted_s if beating_s < config.rhythm_span_s / 2 or lasted_s >= SCORE_LAG_S + OVERRULE_S else None


def _plain(picture: Picture, span_s: float) -> bool:
    """Return whether the last ``span_s`` hold QRS complexes, nearly all of the bed's normal shape."""
    labels = [beat.label for beat in picture.beats if beat.at_s >= picture.at_s - span_s]
    return labels.count("N") >= max(TRUSTED_BEATS, PLAIN_SHARE * len(labels))


def ventricular_fibrillation(picture: Picture, config: AlarmConfig) -> Finding | None:
    """Find fibrillation or flutter on any lead with contact. Noise does not forbid it: network and detector know noise."""
    lasted_s = fibrillating_s(picture, config) if picture.attached else None
    if lasted_s is None:
        return None
    stop_s = picture.at_s if picture.rhythm is None else picture.rhythm.stop_s
    return finding("ventricular-fibrillation", max(0.0, stop_s - lasted_s))


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
    beating = sum(seen_s(picture, name) for name in _BEATING) >= config.rhythm_span_s - FRAME_S
    noisy = seen_s(picture, "NOISE") >= config.asystole_s
    if (may_fibrillate(picture) or beating or noisy) and quiet_s < config.asystole_s + ASYSTOLE_GRACE_S:
        return None
    if quiet_s >= config.asystole_s:
        return finding("asystole", quiet_since_s, f"no QRS for {config.asystole_s:g} s")
    return finding("asystole", picture.at_s - seen_s(picture, "ASYSTOLE"), "seen in the waveform")


def _nothing_but_asystole(picture: Picture, config: AlarmConfig) -> bool:
    span_s = config.rhythm_span_s
    if picture.rhythm is None or picture.since_s is None or picture.at_s - picture.since_s < span_s:
        return False
    if seen_s(picture, "ASYSTOLE") < max(config.asystole_s, span_s - FRAME_S):
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
    opinion they are enough, and so are nearly all beats of :data:`LONG_RUN_S` against it. By waveform: the network saw ``vt_s``
    of it within the evidence span, the detector supports it, the beats are not plain ones, and the heart rate or the last
    intervals are faster than that too; no rate at all does not forbid it.
    """
    if picture.since_s is None:
        return None
    beats = picture.beats
    if beats and beats[-1].label == "V" and picture.at_s - beats[-1].at_s <= LIVE_S:
        seen = config.vf_s if picture.rhythm is None else seen_s(picture, "VT") + seen_s(picture, "VF")
        needed = config.vt_beats - (picture.rhythm is not None and seen >= VT_SURE_S)
        run, long = ventricular_run(beats[-LONGEST_RUN:]), _long_run(beats[-LONGEST_RUN:])
        agreed = seen >= VT_AGREED_S and len(run) >= needed and _steady(run[-needed:])
        run = run[-needed:] if agreed else long
        if run and (rate := rate_bpm(run)) > config.vt_rate_bpm:
            return finding("ventricular-tachycardia", run[0].at_s, f"{len(run)} beats, {rate:.0f} bpm")
    seconds = seen_s(picture, "VT")
    if picture.rhythm is None or seconds < config.vt_s or _plain(picture, seconds):
        return None
    if picture.fibrillation is not None and picture.fibrillation < SUPPORT:
        return None
    rates = [] if picture.heart_rate_bpm is None else [picture.heart_rate_bpm]
    recent = tuple(beat for beat in beats if beat.at_s >= picture.at_s - config.rhythm_span_s)
    if len(recent) > 1:
        rates.append(rate_bpm(recent[-config.vt_beats :]))
    if rates and max(rates) <= config.vt_rate_bpm:
        return None
    return finding("ventricular-tachycardia", picture.rhythm.stop_s - seconds, "seen in the waveform")


def _long_run(beats: tuple[BeatMark, ...]) -> tuple[BeatMark, ...]:
    """Return the beats of the last :data:`LONG_RUN_S` if they reach back so far and nearly all are ventricular; else none."""
    since_s = beats[-1].at_s - LONG_RUN_S
    start = bisect_left(beats, since_s, key=lambda beat: beat.at_s)
    long = beats[start:]
    enough = start > 0 and sum(beat.label == "V" for beat in long) >= LONG_SHARE * len(long)
    return long if enough and len(long) > 1 else ()


def _steady(run: tuple[BeatMark, ...]) -> bool:
    """Return whether the intervals of a run are alike enough for one focus; those of an artefact are not."""
    intervals_s = [after.at_s - before.at_s for before, after in pairwise(run)]
    return max(intervals_s) <= STEADY_RATIO * min(intervals_s)


def _held_bpm(picture: Picture, condition: str) -> float:
    """Return by how much the limit is easier to meet, because the condition is present already."""
    return HYSTERESIS_BPM if condition in picture.present else 0.0


def extreme_tachycardia(picture: Picture, config: AlarmConfig) -> Finding | None:
    """Find a mean rate above ``extreme_tachy_bpm`` over the last ``extreme_tachy_beats`` beats."""
    beats = picture.beats[-config.extreme_tachy_beats :]
    if picture.since_s is None or len(beats) < config.extreme_tachy_beats or picture.at_s - beats[-1].at_s > LIVE_S:
        return None
    rate = rate_bpm(beats)
    if rate <= config.extreme_tachy_bpm - _held_bpm(picture, "extreme-tachycardia"):
        return None
    return finding("extreme-tachycardia", beats[0].at_s, f"{rate:.0f} bpm over {len(beats)} beats")


def extreme_bradycardia(picture: Picture, config: AlarmConfig) -> Finding | None:
    """Find a mean rate below ``extreme_brady_bpm`` over ``extreme_brady_beats`` beats, or 8 s of nothing but longer intervals.

    At most one of the intervals may be shorter, so that a single pause is no bradycardia, and none so long that it is asystole;
    within the 8 s, none so long that asystole would have waited no longer.
    The interval that has not ended yet counts towards the 8 s, so that the slowest rhythms are not found last.
    """
    beats = picture.beats
    if picture.since_s is None or len(beats) < 2:
        return None
    limit_bpm = config.extreme_brady_bpm + _held_bpm(picture, "extreme-bradycardia")
    limit_s = 60.0 / limit_bpm
    open_s = picture.at_s - beats[-1].at_s
    if open_s <= limit_s and beats[-1].at_s - beats[-2].at_s <= SLOW_SHARE * limit_s:
        return None
    last = beats[-config.extreme_brady_beats :]
    intervals_s = [after.at_s - before.at_s for before, after in pairwise(last)]
    slow = min(intervals_s) > SLOW_SHARE * limit_s and max(intervals_s) <= config.asystole_s
    if len(last) == config.extreme_brady_beats and slow and (rate := rate_bpm(last)) < limit_bpm:
        return finding("extreme-bradycardia", last[0].at_s, f"{rate:.0f} bpm over {len(last)} beats")
    start = len(beats) - 1
    longest_s = config.asystole_s + ASYSTOLE_GRACE_S + BEAT_DELAY_S
    while start and limit_s < beats[start].at_s - beats[start - 1].at_s <= longest_s:
        start -= 1
    stop_s = picture.at_s if limit_s < open_s <= longest_s else beats[-1].at_s
    if stop_s - beats[start].at_s < SLOW_STRETCH_S:
        return None
    return finding("extreme-bradycardia", beats[start].at_s, f"below {config.extreme_brady_bpm:g} bpm for {SLOW_STRETCH_S:g} s")


def _lasting(condition: str, picture: Picture, since_s: float | None, delay_s: float) -> Finding | None:
    """Find a condition that has lasted for its delay; one that is present already and interrupted goes on at once."""
    if since_s is None or (condition not in picture.present and picture.at_s - since_s < delay_s):
        return None
    return finding(condition, since_s)


def calm_until_s(picture: Picture, config: AlarmConfig) -> float:
    """Return until when, s of stream, nothing new can be found in a picture without findings, if nothing happens meanwhile.

    Nothing happens where no beat is found, the signal stays as it is, the heart rate lies within its limits, the fibrillation
    score is low, and the network says nothing new. Then only time passes: an interval that is open grows, a rhythm reaches its
    delay. Minus infinity where the picture is such that this cannot be said.
    """
    rhythm = picture.rhythm
    urgent = rhythm is not None and (seen_s(picture, "VF") or seen_s(picture, "VT") or seen_s(picture, "ASYSTOLE"))
    settled = picture.since_s is not None and picture.at_s - picture.since_s >= SETTLE_S + config.asystole_s
    rates = picture.high_since_s is not None or picture.low_since_s is not None
    if not settled or not picture.beats or urgent or rates or picture.fibrillation_since_s is not None or picture.present:
        return -inf
    last_s = picture.beats[-1].at_s
    until_s = last_s + min(BEAT_DELAY_S + min(config.asystole_s, config.rr_pause_s), 60.0 / config.extreme_brady_bpm)
    if picture.af_since_s is not None:
        until_s = min(until_s, picture.af_since_s + config.af_delay_s)
    if picture.svt_since_s is not None:
        until_s = min(until_s, picture.svt_since_s + config.svt_delay_s)
    return until_s - ROUNDING_S


def physiological(picture: Picture, config: AlarmConfig) -> list[Finding]:
    """Return every condition of the heart that is present, in the order of ``picture.PHYSIOLOGICAL``."""
    found = [
        ventricular_fibrillation(picture, config),
        asystole(picture, config),
        ventricular_tachycardia(picture, config),
        extreme_tachycardia(picture, config),
        extreme_bradycardia(picture, config),
        supraventricular_tachycardia(picture, config),
        _lasting("tachycardia", picture, picture.high_since_s, config.hr_delay_s),
        _lasting("bradycardia", picture, picture.low_since_s, config.hr_delay_s),
        _lasting("atrial-fibrillation", picture, picture.af_since_s, config.af_delay_s),
    ]
    if picture.since_s is not None and picture.beats:
        found += ectopic(picture, config)
        found += irregular(picture, config)
    return [one for one in found if one is not None and one.condition not in config.disabled]
