"""Single beats and intervals: ectopic beats, pauses, sudden and irregular rhythm. Pure functions of a :class:`Picture`.

None of these is of high priority and none latches. What is over within a few beats is found for :data:`RECENT_S` after it;
the engine then shows it for its time. Beat classes come from ``picture.beats``; nothing here needs the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from statistics import median

from ecgnat_stream.alarm.config import AlarmConfig
from ecgnat_stream.alarm.picture import (
    BEAT_DELAY_S,
    MINUTE_S,
    RUN_PAUSE_S,
    BeatMark,
    Finding,
    Picture,
    finding,
    may_fibrillate,
    rate_bpm,
)

__all__ = ["ectopic", "irregular", "irregularity", "supraventricular_tachycardia"]

RECENT_S = 5.0
"""An event is found so long after its last beat."""

LOOK_BACK = 40
"""Beats that hold any pattern that may have ended within the last 5 s at 300 bpm, and what is looked for around it."""

RUN_BEATS = 3
"""So many ventricular beats in a row are a run, two are a pair (Lown's classes 4B and 4A)."""

QTC_S = 0.4
"""Corrected QT interval that is expected of an adult: QT = QTc * sqrt(RR / 1 s) (Bazett 1920)."""

SLOWEST_RR_S = 1.2
"""A longer interval before does not lengthen the QT that is expected: beyond 50 bpm Bazett's correction exaggerates."""

SHORTEST_RR_S = 0.2
"""A shorter interval is one QRS complex found twice."""

USUAL_BEATS = 8
"""The usual interval is the median of so many ..."""

REGULAR_SHARE = 0.15
"""... and the rhythm regular when none of them is further than this share from it."""

SUDDEN_RATIO = 0.75
"""Onset is sudden when the intervals become this much shorter than the median of the :data:`USUAL_BEATS` before."""

IRREGULAR_BEATS = 30
"""Irregularity is judged over so many pairs of normal intervals."""

HELD_SHARE = 0.8
"""What has been found irregular must fall to this share of its limit."""

PVC_HYSTERESIS = 2
"""Ventricular beats per minute by which a count must come back below its limit."""

_AS_PATTERN = str.maketrans("NSFQV", "NNNNV")


def ectopic(picture: Picture, config: AlarmConfig) -> list[Finding | None]:
    """Find what ventricular beats do: runs, pairs, bigeminy, trigeminy, R on T, and too many of them."""
    limit = config.pvc_per_min - (PVC_HYSTERESIS if "frequent-pvc" in picture.present else 0)
    found: list[Finding | None] = []
    if picture.pvc_per_min > limit:
        found.append(finding("frequent-pvc", max(0.0, picture.at_s - MINUTE_S), f"more than {config.pvc_per_min} per minute"))
    beats = picture.beats[-LOOK_BACK:]
    pattern = "".join([beat.label for beat in beats]).translate(_AS_PATTERN)
    oldest_s = picture.at_s - RECENT_S
    last = pattern.rfind("V")
    if last < 0 or beats[min(last + 1, len(beats) - 1)].at_s < oldest_s:
        return found
    cycles = config.geminy_cycles
    found += [
        _run(beats, pattern, oldest_s),
        _r_on_t(beats, pattern, oldest_s, config.r_on_t_share),
        _pair(beats, pattern, oldest_s),
        _cycles("ventricular-bigeminy", "NV" * cycles, beats, pattern, oldest_s),
        _cycles("ventricular-trigeminy", "NNV" * cycles, beats, pattern, oldest_s),
    ]
    return found


def _run(beats: Sequence[BeatMark], pattern: str, oldest_s: float) -> Finding | None:
    """Find three or more ventricular beats in a row, however slow."""
    stop = len(pattern)
    while (start := pattern.rfind("V" * RUN_BEATS, 0, stop)) >= 0 and beats[start + RUN_BEATS - 1].at_s >= oldest_s:
        intervals_s = [after.at_s - before.at_s for before, after in pairwise(beats[start : start + RUN_BEATS])]
        if max(intervals_s) <= RUN_PAUSE_S:
            return finding("ventricular-run", beats[start].at_s)
        stop = start + RUN_BEATS - 1
    return None


def _pair(beats: Sequence[BeatMark], pattern: str, oldest_s: float) -> Finding | None:
    """Find two ventricular beats in a row between others; the one after them must have come, or it could be a run."""
    start = pattern.rfind("NVVN")
    if start < 0 or beats[start + 3].at_s < oldest_s or beats[start + 2].at_s - beats[start + 1].at_s > RUN_PAUSE_S:
        return None
    return finding("ventricular-pair", beats[start + 1].at_s)


def _cycles(condition: str, cycles: str, beats: Sequence[BeatMark], pattern: str, oldest_s: float) -> Finding | None:
    """Find a pattern of beats repeated without a pause."""
    start = pattern.rfind(cycles)
    stop = start + len(cycles)
    if start < 0 or beats[stop - 1].at_s < oldest_s:
        return None
    broken = any(after.at_s - before.at_s > RUN_PAUSE_S for before, after in pairwise(beats[start:stop]))
    return None if broken else finding(condition, beats[start].at_s)


def _r_on_t(beats: Sequence[BeatMark], pattern: str, oldest_s: float, share: float) -> Finding | None:
    """Find a ventricular beat so early after another one that it falls on the T wave.

    Its interval is compared with the QT interval that Bazett's formula expects after the interval before.
    """
    for index in range(len(beats) - 1, 1, -1):
        if beats[index].at_s < oldest_s:
            break
        if pattern[index - 1 : index + 1] != "NV":
            continue
        interval_s = beats[index].at_s - beats[index - 1].at_s
        before_s = beats[index - 1].at_s - beats[index - 2].at_s
        if SHORTEST_RR_S <= interval_s < share * QTC_S * sqrt(min(before_s, SLOWEST_RR_S)):
            return finding("r-on-t", beats[index].at_s)
    return None


def irregular(picture: Picture, config: AlarmConfig) -> list[Finding | None]:
    """Find what intervals do: a pause, a missed beat, irregularity."""
    return [_pause(picture, config), _missed_beat(picture, config), _irregular_rhythm(picture, config)]


def _pause(picture: Picture, config: AlarmConfig) -> Finding | None:
    """Find an interval of ``rr_pause_s``, one that has not ended too; it waits where fibrillation could hide the beats."""
    beats, limit_s = picture.beats, config.rr_pause_s
    since_s = beats[-1].at_s if picture.at_s - beats[-1].at_s - BEAT_DELAY_S >= limit_s else None
    for index in range(len(beats) - 1, 0, -1):
        if since_s is not None or beats[index].at_s < picture.at_s - RECENT_S:
            break
        if beats[index].at_s - beats[index - 1].at_s >= limit_s:
            since_s = beats[index - 1].at_s
    return None if since_s is None or may_fibrillate(picture) else finding("pause", since_s, f"no QRS for {limit_s:g} s")


def _missed_beat(picture: Picture, config: AlarmConfig) -> Finding | None:
    """Find a regular rhythm of normal beats with one interval too long by ``missed_beat_ratio``, and the next one usual again.

    A rate that halves is no missed beat. Only in a signal that was usable all along, so that no beat went unseen.
    """
    beats = picture.beats[-USUAL_BEATS - 3 :]
    if len(beats) < USUAL_BEATS + 3:
        return None
    long_s, next_s = beats[-2].at_s - beats[-3].at_s, beats[-1].at_s - beats[-2].at_s
    if long_s <= next_s * config.missed_beat_ratio / (1 + REGULAR_SHARE) or picture.clear_since_s > beats[-3].at_s:
        return None
    intervals_s = [after.at_s - before.at_s for before, after in pairwise(beats[:-2])]
    usual_s = median(intervals_s)
    regular = max(abs(interval_s - usual_s) for interval_s in [*intervals_s, next_s]) <= REGULAR_SHARE * usual_s
    if not regular or long_s <= config.missed_beat_ratio * usual_s or any(beat.label != "N" for beat in beats):
        return None
    return finding("missed-beat", beats[-3].at_s)


def irregularity(beats: Sequence[BeatMark]) -> float | None:
    """Return by which share of their median neighbouring normal intervals differ; None without enough of them.

    The median difference, over the last :data:`IRREGULAR_BEATS` pairs of intervals between three normal beats, so that single
    ectopic or missed beats do not count; breathing changes intervals slowly and counts little. It stands for the root mean
    square of the differences over the mean interval by which Dash et al. (Ann. Biomed. Eng. 2009) find atrial fibrillation.
    """
    differences_s: list[float] = []
    intervals_s: list[float] = []
    for index in range(len(beats) - 1, 1, -1):
        third, second, first = beats[index - 2], beats[index - 1], beats[index]
        if first.label == second.label == third.label == "N":
            interval_s = first.at_s - second.at_s
            intervals_s.append(interval_s)
            differences_s.append(abs(interval_s - (second.at_s - third.at_s)))
            if len(differences_s) == IRREGULAR_BEATS:
                return median(differences_s) / median(intervals_s)
    return None


def _irregular_rhythm(picture: Picture, config: AlarmConfig) -> Finding | None:
    """Find irregular intervals of normal beats, unless the network calls the rhythm atrial fibrillation."""
    limit = config.irregular_share * (HELD_SHARE if "irregular-rhythm" in picture.present else 1.0)
    if picture.irregularity is None or picture.irregularity <= limit or picture.af_since_s is not None:
        return None
    return finding("irregular-rhythm", picture.beats[-IRREGULAR_BEATS - 2 :][0].at_s)


def supraventricular_tachycardia(picture: Picture, config: AlarmConfig) -> Finding | None:
    """Find a tachycardia that is not ventricular, by either of two ways.

    By beats: the last ``svt_beats`` or more are narrow (normal or supraventricular), every interval is faster than
    ``svt_rate_bpm``, and it began suddenly; not where the network calls it atrial fibrillation. By the network: it calls the
    rhythm SVT for ``svt_delay_s``, and the heart rate, if there is one, is beyond that too.
    """
    if picture.since_s is None:
        return None
    since_s, rate = picture.svt_since_s, picture.heart_rate_bpm
    present = "supraventricular-tachycardia" in picture.present
    if (
        since_s is not None
        and (present or picture.at_s - since_s >= config.svt_delay_s)
        and (rate is None or rate > config.svt_rate_bpm)
    ):
        return finding("supraventricular-tachycardia", since_s)
    beats, count = picture.beats[-LOOK_BACK:], config.svt_beats
    if picture.af_since_s is not None or len(beats) < count or picture.at_s - beats[-1].at_s > RUN_PAUSE_S:
        return None
    limit_s = 60.0 / config.svt_rate_bpm
    start = len(beats) - 1
    while start and beats[start].label in "NS" and beats[start].at_s - beats[start - 1].at_s < limit_s:
        start -= 1
    start += beats[start].label not in "NS"
    if len(beats) - start < count:
        return None
    before = beats[max(0, start - USUAL_BEATS) : start + 1]
    sudden = len(before) > USUAL_BEATS // 2 and 60.0 / rate_bpm(beats[start:]) <= SUDDEN_RATIO * median(
        after.at_s - earlier.at_s for earlier, after in pairwise(before)
    )
    return finding("supraventricular-tachycardia", beats[start].at_s) if present or sudden else None
