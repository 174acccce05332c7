"""QRS complexes, their places and the heart rate as compiled loops: the plain code of detector, judge and rate, bed by bed.

In: the frames of a call, and a bed's state, which follows. Out: beats. What each step means stands in the plain code.

Shapes: L lead (12), S lead used (3), P point of a peak's shape.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ecgnat_stream.beats import detector, judge
from ecgnat_stream.compiled import kernel
from ecgnat_stream.signal import FRAME, FS, LEADS

MOST = 2 * FRAME + 1
"""Beats that a bed can have in one call: one of a peak, one by search-back before it, one at the end."""

_L, _S, _P, _HALF = len(LEADS), detector._SLOTS, judge.POINTS, judge.POINTS // 2
_KEPT, _REACH, _APART, _DECISION = detector._KEPT, detector._REACH, detector._APART, detector._DECISION
_PAST, _OWN, _MARGIN, _FIND = detector._PAST, detector._OWN, detector._MARGIN, detector._FIND
_BEFORE, _AFTER = detector._BEFORE, detector._AFTER
_FIRST_SHARE, _SMALL_SHARE = np.float32(detector._FIRST_SHARE), np.float32(detector._SMALL_SHARE)
_STAY, _TAPS = np.float32(1.5), 2 * detector._REACH + 1
_ORDER = np.ascontiguousarray(detector._ORDER, np.int64)
_SPREAD = int(detector._SPREAD[0]), int(detector._SPREAD[1] - detector._SPREAD[0])
_RAMP = np.linspace(0.0, 1.0, 2 * detector._FIND + 1, dtype=np.float32)
_SEARCH_BACK, _SKIPPED, _SEARCH_BACK_ODDS = detector._SEARCH_BACK, detector._SKIPPED, detector._SEARCH_BACK_ODDS
_SHARE, _KNOWN, _LARGE, _PATIENCE = judge._SHARE, judge._KNOWN, judge._LARGE, judge._PATIENCE
_ALIKE, _NOT_UNLIKE, _T_WAVE, _T_EARLY = np.float32(judge._ALIKE), np.float32(judge._NOT_UNLIKE), judge._T_WAVE, judge._T_EARLY
_STEP, _TINY, _ONE, _TWO, _ZERO = np.float32(judge._SHARE), np.float32(1e-6), np.float32(1), np.float32(2), np.float32(0)
_HEARD = np.float32(0.15)

# Columns of a bed's state as the kernel takes it.
_RR, _LAST_AT, _LEVEL, _NOISE, _HEIGHT = range(5)


@kernel("void(float32[:, ::1], float32[:, :, ::1], int64)")
def _take(y: Any, signal: Any, turn: int) -> None:
    """Keep a frame; what is missing holds the value before, 0 where there is none in the frame."""
    for lead in range(_L):
        held = _ZERO
        for t in range(FRAME):
            if not math.isnan(y[lead, t]):
                held = y[lead, t]
            signal[turn, lead, t] = held


@kernel("void(float32[::1], float32, int64[::1], float32[::1])")
def _choose(sqi: Any, least: Any, slots: Any, weights: Any) -> None:
    """Choose the leads used, best first; one in use stays until another is clearly better."""
    liking = np.empty(_L, np.float32)
    for lead in range(_L):
        liking[lead] = sqi[lead] if sqi[lead] >= least else _ZERO
    for slot in range(_S):
        if slots[slot] >= 0:
            liking[slots[slot]] *= _STAY
    total = _ZERO
    for slot in range(_S):
        best, of = np.float32(-1), 0
        for place in range(_L):
            if liking[_ORDER[place]] > best:
                best, of = liking[_ORDER[place]], _ORDER[place]
        liking[of] = np.float32(-2)
        slots[slot] = of
        weights[slot] = sqi[of] if sqi[of] >= least else _ZERO
        total += weights[slot]
    if total > _ZERO:
        for slot in range(_S):
            weights[slot] /= total


@kernel("void(float32[:, ::1], float32[::1], float32[:, ::1], float32[::1])")
def _measure(recent: Any, weights: Any, wavelet: Any, envelope: Any) -> None:
    """Write the newest frame of the envelope behind what there is."""
    even, odd = np.empty(FRAME, np.float32), np.empty(FRAME, np.float32)
    energy = np.zeros(FRAME, np.float32)
    first = _KEPT * FRAME - FRAME - 2 * _REACH
    for slot in range(_S):
        by = weights[slot]
        if by == _ZERO:
            continue
        even[:] = _ZERO
        odd[:] = _ZERO
        for tap in range(_TAPS):
            a, b = wavelet[0, tap], wavelet[1, tap]
            part = recent[slot, first + tap : first + tap + FRAME]
            for t in range(FRAME):
                even[t] += part[t] * a
                odd[t] += part[t] * b
        for t in range(FRAME):
            energy[t] += (even[t] * even[t] + odd[t] * odd[t]) * by
    for t in range(FRAME):
        envelope[_MARGIN + t] = np.sqrt(energy[t])


@kernel("int64(float32[::1])")
def _first_extreme(near: Any) -> int:
    """Return where the first extreme of some size lies, from the middle."""
    size = np.empty(2 * _FIND + 1, np.float32)
    rise = near[2 * _FIND] - near[0]
    largest = _ZERO
    for t in range(2 * _FIND + 1):
        size[t] = abs(near[t] - near[0] - _RAMP[t] * rise)
        largest = max(largest, size[t])
    for t in range(1, 2 * _FIND):
        if size[t] >= size[t - 1] and size[t] >= size[t + 1] and size[t] >= _FIRST_SHARE * largest:
            return t - _FIND
    return 0


@kernel("float64(float32, float32, float32)")
def _vertex(a: Any, b: Any, c: Any) -> float:
    left, middle, right = np.float64(a), np.float64(b), np.float64(c)
    bend = left - 2.0 * middle + right
    if bend == 0.0:
        return 0.0
    vertex = 0.5 * (left - right) / bend
    return 0.0 if abs(vertex) > 0.5 else vertex


@kernel("float32(float32[::1])")
def _length(x: Any) -> Any:
    total = _ZERO
    for i in range(_P):
        total += x[i] * x[i]
    return np.sqrt(total)


@kernel("void(float32[:, ::1], float32[:, :, ::1], int64[::1], float32[::1], float32[::1], float32[::1])")
def _cosines(shape: Any, usual: Any, slots: Any, weights: Any, size: Any, alike: Any) -> None:
    """Add up the weighted cosines with the two usual shapes: ``alike`` ``(2,)``; ``size`` ``(S,)`` the lengths."""
    alike[0] = alike[1] = _ZERO
    for slot in range(_S):
        size[slot] = _length(shape[slot])
        if weights[slot] == _ZERO:
            continue
        for kind in range(2):
            other = usual[kind, slots[slot]]
            product = _ZERO
            for i in range(_P):
                product += shape[slot, i] * other[i]
            alike[kind] += product / max(size[slot] * _length(other), _TINY) * weights[slot]


@kernel("float64(float64, float64, float64)")
def _clip(value: Any, low: float, high: float) -> Any:
    return min(max(value, low), high)


@kernel(
    "float64(float64[::1], int64, int64, float32[:, :, ::1], float32[::1], float64[::1], int64, float64, float64, float64,"
    " int64[::1], float32[::1], float32[:, ::1])"
)
def _odds(
    bed: Any,
    last: int,
    count: int,
    usual: Any,
    sizes: Any,
    by: Any,
    time: int,
    at: float,
    height: float,
    busy: float,
    slots: Any,
    weights: Any,
    shape: Any,
) -> Any:
    """Return the log-odds that a peak is a QRS complex: the parts of ``Judge.weigh``, weighted, and patience."""
    size, alike, heard = np.empty(_S, np.float32), np.empty(2, np.float32), np.empty(_S, np.float32)
    total = _ZERO
    for slot in range(_S):
        heard[slot] = weights[slot] if sizes[slots[slot]] > _ZERO else _ZERO
        total += heard[slot]
    known = total > 0.5 and count >= _KNOWN
    unlike, least = 0.0, 0.0
    if known:
        _cosines(shape, usual, slots, heard, size, alike)
        unlike = _clip(np.float64(_ONE - max(alike[0], alike[1]) / max(total, _TINY)), 0.0, 1.0)
        least = 9.0
        for slot in range(_S):
            if heard[slot] > _HEARD:
                ratio = np.log(max(size[slot], _TINY) / max(sizes[slots[slot]], _TINY))
                least = min(least, np.float64(ratio))
        least = _clip(least, -2.0, 0.5)
    level, rr = bed[_LEVEL], bed[_RR]
    since = (at - bed[_LAST_AT]) / rr
    tall = math.log(height / level)
    noise = _clip(math.log(max(bed[_NOISE], 1e-6) / level), -3.0, 0.0)
    noisy = 1.0 + noise / 3.0
    early = _clip(1.0 - since, 0.0, 1.0) if known else 0.0
    t_wave = _clip((_T_WAVE - since * rr) / (_T_WAVE - _T_EARLY), 0.0, 1.0)
    odds = by[0]
    odds += by[1] * _clip(tall, -2.5, 0.0)
    odds += by[2] * (_clip(tall - 0.4, 0.0, 1.0) if known else 0.0)
    odds += by[3] * noise
    odds += by[4] * unlike
    odds += by[5] * (unlike * noisy)
    odds += by[6] * (0.0 if known else 1.0)
    odds += by[7] * early
    odds += by[8] * (early * noisy)
    odds += by[9] * _clip(since - 1.0, 0.0, 1.0)
    odds += by[10] * t_wave
    odds += by[11] * (t_wave * _clip(math.log(height / bed[_HEIGHT]), -1.5, 0.5))
    odds += by[12] * (t_wave * unlike)
    odds += by[13] * _clip(math.log(height / max(busy, 1e-3)), 0.0, 2.5)
    odds += by[14] * least
    odds += by[15] * (early * unlike)
    wait_s = (time - last - max(1.3 * rr, np.float64(FS))) / FS
    if count > 0 and height >= _LARGE * bed[_HEIGHT]:
        odds += _PATIENCE * _clip(wait_s, 0.0, 2.5)
    return odds


@kernel(
    "float64(float64[::1], int64, float32[:, :, ::1], float32[::1], float64, float64, int64[::1], float32[::1], float32[:, ::1])"
)
def _accept(
    bed: Any, count: int, usual: Any, sizes: Any, at: float, height: float, slots: Any, weights: Any, shape: Any
) -> float:
    """Take a peak as a beat: what the judge knows follows; return the RR in samples, NaN for none."""
    rr = at - bed[_LAST_AT]
    near = rr < 3 * FS
    share = max(_SHARE, 1.0 / (count + 2.0))
    level, was = bed[_LEVEL], bed[_RR]
    bed[_LEVEL] = level + share * (min(height, (4.0 if count < _KNOWN else 2.0) * level) - level)
    if near:
        bed[_RR] = was + share * (_clip(rr, 0.6 * was, 1.5 * was) - was)
    bed[_NOISE] *= 0.98
    bed[_HEIGHT] = max(height, 0.05)
    bed[_LAST_AT] = at
    size, alike = np.empty(_S, np.float32), np.empty(2, np.float32)
    _cosines(shape, usual, slots, weights, size, alike)
    first = alike[0] > _ALIKE or (alike[0] >= alike[1] and alike[0] > _NOT_UNLIKE)
    for slot in range(_S):
        if weights[slot] == _ZERO or size[slot] == _ZERO:
            continue
        lead, own = slots[slot], size[slot]
        before = sizes[lead]
        old = usual[0 if before == _ZERO or first else 1, lead]
        fresh = True
        for i in range(_P):
            fresh &= old[i] == _ZERO
        by = _ONE if fresh else _STEP
        for i in range(_P):
            old[i] += by * (shape[slot, i] / own - old[i])
        sizes[lead] = before + _STEP * (min(own, _TWO * before) - before) if before > _ZERO else own
    return rr if near else math.nan


@kernel(
    "int64(int64[::1], int64[::1], float32[:, :, ::1], float32[:, ::1], float32[:, ::1], float64[::1], float64[::1],"
    " float32[:, :, :, ::1], float32[:, ::1], int64[:, ::1],"
    " int64[::1], float64[::1], float64[::1], int64[::1], float32[::1], int64[:, ::1], float32[:, ::1], float32[:, :, ::1],"
    " float64[::1], float64[::1],"
    " float64[::1], int64[::1], float64[::1], float64[::1], float64[::1], float64[::1], int64[::1],"
    " float32[:, :, :, ::1], float32[:, ::1],"
    " int64[::1], float64[::1], int64[::1], float32[::1], float64[::1])"
)
def beats(
    rows: Any,
    frames: Any,
    y: Any,
    sqi: Any,
    wavelet: Any,
    by: Any,
    config: Any,
    signal: Any,
    envelopes: Any,
    used: Any,
    m_time: Any,
    m_height: Any,
    m_at: Any,
    m_lead: Any,
    m_amplitude: Any,
    m_slots: Any,
    m_weights: Any,
    m_shape: Any,
    m_busy: Any,
    m_odds: Any,
    rr: Any,
    last: Any,
    last_at: Any,
    level: Any,
    noise: Any,
    height: Any,
    count: Any,
    usual: Any,
    sizes: Any,
    out_row: Any,
    out_at: Any,
    out_lead: Any,
    out_amplitude: Any,
    out_rr_ms: Any,
) -> int:
    """Take one frame of each row; write the beats that are certain by now, by row and time, and return their number.

    Parameters
    ----------
    rows, frames, y, sqi
        As ``QrsDetector.process`` takes them.
    wavelet, by, config
        ``(2, _TAPS)``; ``(16,)`` the judge's weights; floor_mv, refractory_s, threshold, min_sqi, and the judge's floor.
    signal, envelopes, used, m_...
        The state of the detector, and the peak that each bed may come back to; written.
    rr, ..., sizes
        The state of the judge; written.
    """
    floor_mv, refractory, threshold, floor = np.float32(config[0]), config[1] * FS, config[2], config[4]
    lowest, least = np.float32(judge.FLOOR * config[0]), np.float32(config[3])
    recent, envelope = np.empty((_S, _KEPT * FRAME), np.float32), np.empty(_MARGIN + FRAME, np.float32)
    slots, weights, bed = np.empty(_S, np.int64), np.empty(_S, np.float32), np.empty(5)
    shape = np.empty((_S, _P), np.float32)
    n = 0
    for r in range(len(rows)):
        row, frame = rows[r], frames[r]
        _take(y[r], signal[row], frame % _KEPT)
        slots[:] = used[row]
        _choose(sqi[r], least, slots, weights)
        used[row] = slots
        for slot in range(_S):
            for k in range(_KEPT):
                recent[slot, k * FRAME : (k + 1) * FRAME] = signal[row, (frame + 1 + k) % _KEPT, slots[slot]]
        envelope[:_MARGIN] = envelopes[row]
        _measure(recent, weights, wavelet, envelope)
        envelopes[row] = envelope[FRAME:]
        bed[_RR], bed[_LAST_AT], bed[_LEVEL], bed[_NOISE], bed[_HEIGHT] = (
            rr[row],
            last_at[row],
            level[row],
            noise[row],
            height[row],
        )
        own = n
        decided = (frame + 1) * FRAME - _DECISION
        for column in range(FRAME + 1):
            end = column == FRAME
            if not end:
                centre = envelope[_PAST + column]
                if not centre > lowest:
                    continue
                highest = True
                for t in range(_PAST + column - _APART, _PAST + column + _APART + 1):
                    highest &= envelope[t] <= centre
                if not highest:
                    continue
                time, at = frame * FRAME - _DECISION + column, (_KEPT - 1) * FRAME - _DECISION + column
                largest, slot = _ZERO, 0
                for s in range(_S):
                    size = sizes[row, slots[s]] if weights[s] > _ZERO else _ZERO
                    if s == 0 or size > largest:
                        largest, slot = size, s
                if not (sizes[row, slots[0]] if weights[0] > _ZERO else _ZERO) < _SMALL_SHARE * largest:
                    slot = 0
                wave = recent[slot]
                move = _first_extreme(wave[at - _FIND : at + _FIND + 1])
                low = high = wave[at + move - _BEFORE]
                for t in range(at + move - _BEFORE, at + move + _AFTER):
                    low, high = min(low, wave[t]), max(high, wave[t])
                if not high - low >= floor_mv:
                    continue
                now = time
            else:
                now = decided
            if now - last[row] > _SEARCH_BACK * bed[_RR] and m_odds[row] > threshold - _SEARCH_BACK_ODDS:
                interval = _accept(
                    bed, count[row], usual[row], sizes[row], m_at[row], m_height[row], m_slots[row], m_weights[row], m_shape[row]
                )
                last[row] = m_time[row]
                count[row] += 1
                m_odds[row] = -math.inf
                out_row[n], out_at[n], out_lead[n], out_amplitude[n] = row, m_at[row], m_lead[row], m_amplitude[row]
                out_rr_ms[n] = interval * (1000.0 / FS)
                n += 1
            if end:
                break
            place = time + move + _vertex(wave[at + move - 1], wave[at + move], wave[at + move + 1])
            if not place - bed[_LAST_AT] >= refractory:
                continue
            for s in range(_S):
                for i in range(_HALF):
                    a, b = _ZERO, _ZERO
                    if weights[s] > _ZERO:
                        begin = at + _SPREAD[0] + i * _SPREAD[1] - _REACH
                        for tap in range(_TAPS):
                            value = recent[s, begin + tap]
                            a += value * wavelet[0, tap]
                            b += value * wavelet[1, tap]
                    shape[s, i], shape[s, _HALF + i] = a, b
            busy = 0.0
            for t in range(_PAST + column - _PAST, _PAST + column - _OWN):
                busy += np.float64(envelope[t])
            for t in range(_PAST + column + _OWN + 1, _PAST + column + _APART + 1):
                busy += np.float64(envelope[t])
            busy /= _PAST - _OWN + _APART - _OWN
            tall = np.float64(centre)
            odds = _odds(bed, last[row], count[row], usual[row], sizes[row], by, time, place, tall, busy, slots, weights, shape)
            if odds > threshold:
                interval = _accept(bed, count[row], usual[row], sizes[row], place, tall, slots, weights, shape)
                last[row] = time
                count[row] += 1
                m_odds[row] = -math.inf
                out_row[n], out_at[n], out_lead[n], out_amplitude[n] = row, place, slots[slot], high - low
                out_rr_ms[n] = interval * (1000.0 / FS)
                n += 1
                continue
            bed[_NOISE] += _SHARE * (min(tall, bed[_LEVEL]) - bed[_NOISE])
            if place - bed[_LAST_AT] >= _SKIPPED and odds > m_odds[row]:
                m_time[row], m_height[row], m_at[row], m_lead[row] = time, tall, place, slots[slot]
                m_amplitude[row], m_busy[row], m_odds[row] = high - low, busy, odds
                m_slots[row], m_weights[row], m_shape[row] = slots, weights, shape
        if decided - last[row] > max(2.0 * bed[_RR], 1.2 * FS):
            bed[_LEVEL] = max(0.92 * bed[_LEVEL], floor)
            bed[_NOISE] *= 0.92
        rr[row], last_at[row], level[row], noise[row], height[row] = (
            bed[_RR],
            bed[_LAST_AT],
            bed[_LEVEL],
            bed[_NOISE],
            bed[_HEIGHT],
        )
        for i in range(own + 1, n):
            j = i
            while j > own and out_at[j - 1] > out_at[j]:
                out_at[j - 1], out_at[j] = out_at[j], out_at[j - 1]
                out_lead[j - 1], out_lead[j] = out_lead[j], out_lead[j - 1]
                out_amplitude[j - 1], out_amplitude[j] = out_amplitude[j], out_amplitude[j - 1]
                out_rr_ms[j - 1], out_rr_ms[j] = out_rr_ms[j], out_rr_ms[j - 1]
                j -= 1
    return n


@kernel("void(float32[:, ::1], float64[::1], int64, int64, float64[::1])")
def places(raw: Any, expected: Any, reach: int, half: int, out: Any) -> None:
    """Place R peaks among device samples, as :func:`ecgnat_stream.beats.detector.refine`."""
    length = 2 * half + 1
    mean_square = half * (half + 1) / 3.0
    smooth = np.empty(2 * reach + 1)
    for b in range(len(raw)):
        out[b] = expected[b]
        if not math.isfinite(expected[b]):
            continue
        centre = np.int64(np.rint(expected[b]))
        first = centre - reach - half
        if first < 0 or centre + reach + half >= raw.shape[1]:
            continue
        there = True
        for t in range(2 * (reach + half) + 1):
            there &= not math.isnan(raw[b, first + t])
        if not there:
            continue
        for m in range(2 * reach + 1):
            total = 0.0
            for t in range(length):
                total += np.float64(raw[b, first + m + t])
            smooth[m] = total / length
        sign = 1.0 if smooth[reach] >= 0.5 * (smooth[0] + smooth[2 * reach]) else -1.0
        best = 0
        for m in range(2 * reach + 1):
            if sign * smooth[m] > sign * smooth[best]:
                best = m
        bend, slope, squares, lines = 0.0, 0.0, 0.0, 0.0
        for t in range(length):
            value, away = np.float64(raw[b, first + best + t]), np.float64(t - half)
            square = away * away - mean_square
            bend += value * square
            squares += square * square
            slope += value * away
            lines += away * away
        bend /= squares
        slope /= lines
        vertex = 0.0 if bend == 0.0 else -slope / (2.0 * bend)
        out[b] = centre - reach + best + _clip(vertex, np.float64(-half), np.float64(half))


@kernel(
    "void(int64[::1], int64[::1], boolean[::1], int64[::1], float64[::1], float64[::1],"
    " float64[:, ::1], int64[::1], float64[::1])"
)
def heart_rates(
    rows: Any, frames: Any, usable: Any, beat_row: Any, beat_at: Any, beat_rr: Any, kept: Any, last: Any, out: Any
) -> None:
    """Write the heart rate of each row at the end of its frame, NaN for none, as :class:`ecgnat_stream.beats.rate.HeartRate`."""
    number = kept.shape[1]
    for b in range(len(beat_row)):
        rr = kept[beat_row[b]]
        if math.isnan(beat_rr[b]):
            rr[:] = math.nan
        else:
            for i in range(number - 1):
                rr[i] = rr[i + 1]
            rr[number - 1] = beat_rr[b]
        last[beat_row[b]] = np.int64(beat_at[b])
    ranked = np.empty(number)
    for r in range(len(rows)):
        rr = kept[rows[r]]
        out[r] = math.nan
        if not usable[r] or (frames[r] + 1) * FRAME - last[rows[r]] > 5 * FS:
            rr[:] = math.nan
            continue
        there, slow = 0, True
        for i in range(number):
            there += not math.isnan(rr[i])
        for i in range(number - 4, number):
            slow &= rr[i] > 1200.0
        if there < 3:
            continue
        slow &= there >= 4
        count = 0
        for i in range(number - 4 if slow else 0, number):
            if not math.isnan(rr[i]):
                value, j = rr[i], count
                while j > 0 and ranked[j - 1] > value:
                    ranked[j] = ranked[j - 1]
                    j -= 1
                ranked[j] = value
                count += 1
        cut = 1 if slow else count // 3
        total = 0.0
        for i in range(cut, count - cut):
            total += ranked[i]
        out[r] = 60000.0 / (total / (count - 2 * cut))
