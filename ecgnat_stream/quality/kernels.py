"""The quality stage, compiled: lead by lead, what ``contact``, ``features`` and ``estimator`` do for all beds at once.

Nearly all of it is computed in the order of the plain code, in the same single precision; the functions of the C library (log,
exp, tanh) may differ from those of numpy in the last digit.
"""

from __future__ import annotations

from math import exp, log, sqrt, tanh

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.compiled import kernel
from ecgnat_stream.quality import contact, estimator, features
from ecgnat_stream.signal import FRAME, FRAME_S, LEADS

__all__ = ["look", "measure", "weigh_up"]

_F32 = np.float32
_LEADS = len(LEADS)
_NOTHING, _ONE, _HALF = _F32(0.0), _F32(1.0), _F32(0.5)

_RAILED, _RAIL_SHARE = contact._RAILED, contact._RAIL_SHARE
_QUIET_MV, _RAIL_MV, _SMALL_MV = _F32(contact._QUIET_MV), _F32(contact._RAIL_MV), _F32(contact._SMALL_MV)
_NEAR, _AROUND, _BASE = _F32(contact._CUT_NEAR), _F32(contact._CUT_AROUND), _F32(contact._CUT_BASE)
_LEVEL, _CUT_SHARE = _F32(contact._CUT_LEVEL), contact._CUT_SHARE
_CUT_STEP, _CUT_FROM, _CUT_MOST = contact._CUT_STEP, contact._CUT_FROM, contact._CUT_MOST
_HUMS, _HUM_FRAMES, _HUM_ABOVE = len(contact._HUM_HZ), _F32(contact._HUM_FRAMES), float(contact._HUM_ABOVE)
_LEAST_HUM = _F32(1e-5)

_FEATURES = len(features.FEATURES)
_TAIL, _FLANK, _MEMORY, _PEAKS, _SECOND = features._TAIL, features._HALF, features._MEMORY, features._PEAKS, features._SECOND
_FLOOR = np.ascontiguousarray(features._FLOOR[:, 0, 0])
_RANKS, _BEAT, _PEAK_FLOOR = features._RANKS, int(features._RANKS[features._BEAT_RANK]), _F32(features._PEAK_FLOOR)
_SHARES = np.array([0.5, 0.25, 0.6], np.float32)
_LIMIT = _F32(features._LIMIT)

_NOISY, _MOTION, _MAINS, _CLIPPED = estimator._NOISY, estimator._MOTION, estimator._MAINS, estimator._CLIPPED
_SATURATED, _FLAT, _OFF, _MISSING = estimator._SATURATED, estimator._FLAT, estimator._OFF, estimator._MISSING
_TRUSTED, _ORDER = estimator._TRUSTED, estimator._ORDER
_QUIET, _SETTLED, _CREDIT, _CALM = estimator._QUIET, estimator._SETTLED, estimator._CREDIT, estimator._CALM
_HARMLESS, _SMALL_QRS_MV = _F32(estimator._HARMLESS_MV**2), _F32(estimator._SMALL_QRS_MV)
_SWING_KEPT, _MOTION_FROM, _HOLD = _F32(estimator._SWING_KEPT), _F32(estimator._MOTION_FROM), _F32(estimator._HOLD)


@kernel("Tuple((int64, float32, float32))(float32[::1])")
def _extremes(x: NDArray[np.float32]) -> tuple[int, np.float32, np.float32]:
    """Return how many samples are there, the largest and the smallest of them, NaN for none."""
    there = 0
    for i in range(len(x)):
        there += x[i] == x[i]
    highest = lowest = _F32(np.nan)
    if there:
        highest, lowest = _F32(-np.inf), _F32(np.inf)
        for i in range(len(x)):
            highest = x[i] if x[i] > highest else highest
            lowest = x[i] if x[i] < lowest else lowest
    return there, highest, lowest


@kernel("boolean(float32[::1], float32, float32, float32, boolean[::1])")
def _edges(x: NDArray[np.float32], highest: np.float32, lowest: np.float32, mean: np.float32, cut: NDArray[np.bool_]) -> bool:
    """Return whether much lies exactly on an extreme value; write into ``cut`` whether the upper and the lower peaks are cut."""
    height, length = highest - lowest, len(x)
    railed = False
    for side in range(2):
        edge = highest if side == 0 else lowest
        far = abs(mean - edge) > _BASE * height and height > _HALF * _SMALL_MV
        there = height > _SMALL_MV and abs(edge) > _SMALL_MV
        cut[side] = False
        if not far and not there:
            continue
        at, near, around = 0, 0, 0
        most_near, most_around = _NEAR * height, _AROUND * height
        for i in range(length):
            away = abs(x[i] - edge)
            at += away == _NOTHING
            near += away <= most_near
            around += away <= most_around
        if there and at > _RAIL_SHARE * length:
            railed = True
        cut[side] = far and near >= max(3, round(length / 30)) and near >= _CUT_SHARE * around
    return railed


@kernel(
    "void(int64[::1], float32[:, :, ::1], float32[:, ::1], float64, float32[:, ::1], boolean[::1], int32[:, ::1], int32[:, ::1],"
    "float32[:, :, ::1], float32[:, :, ::1], int32[:, :, ::1], boolean[:, :, ::1], float32[:, ::1])"
)
def look(
    rows: NDArray[np.int64],
    raw: NDArray[np.float32],
    span: NDArray[np.float32],
    flat_s: float,
    probes: NDArray[np.float32],
    below: NDArray[np.bool_],
    still: NDArray[np.int32],
    railed: NDArray[np.int32],
    hum: NDArray[np.float32],
    cut_at: NDArray[np.float32],
    cuts: NDArray[np.int32],
    flags: NDArray[np.bool_],
    hum_mv: NDArray[np.float32],
) -> None:
    """Write the fields of :class:`Contact`: ``flags`` ``(4, R, 12)`` and ``hum_mv`` ``(R, 12)``.

    ``probes`` is ``(n, 2 F)``, empty to look for no hum; ``below`` says of each frequency whether it can be measured.
    """
    length = raw.shape[2]
    wave, cut = np.empty(2 * _HUMS, np.float32), np.empty(2, np.bool_)
    for r in range(len(rows)):
        row = rows[r]
        for lead in range(_LEADS):
            x = raw[r, lead]
            there, highest, lowest = _extremes(x)
            total = _NOTHING
            if there:
                for i in range(length):
                    total += x[i]
            height, mean, here = highest - lowest, total / _F32(length), span[r, lead]
            nothing, missing = there == 0, np.isnan(here)
            at_rail = height < _QUIET_MV and abs(mean) >= _RAIL_MV
            at_edge = False
            cut[0] = cut[1] = False
            if not nothing:
                at_edge = _edges(x, highest, lowest, mean, cut)
            quiet = (here if nothing else height) < _QUIET_MV
            constant = still[row, lead] + 1 if quiet and not missing else 0
            still[row, lead] = constant
            counted = min(max(railed[row, lead] + 2 * at_edge + quiet - 1, 0), 4 * _RAILED)
            if at_rail:
                counted = max(counted, _RAILED)
            railed[row, lead] = counted
            clipped = False
            for side in range(2):
                credit = max(cuts[side, row, lead] - 1, 0)
                if cut[side]:
                    edge = highest if side == 0 else lowest
                    known = abs(edge - cut_at[side, row, lead]) <= _LEVEL * height
                    credit = min((credit + 1 if known else 0) + _CUT_STEP, _CUT_MOST)
                    cut_at[side, row, lead] = edge
                cuts[side, row, lead] = credit
                clipped |= credit >= _CUT_FROM
            flags[0, r, lead] = missing and nothing
            flags[1, r, lead] = constant * FRAME_S >= flat_s and not at_rail
            flags[2, r, lead] = counted >= _RAILED
            flags[3, r, lead] = clipped
            hum_mv[r, lead] = _NOTHING
            if len(probes) == 0:
                continue
            if not nothing:
                for k in range(2 * _HUMS):
                    wave[k] = _NOTHING
                for i in range(length):
                    for k in range(2 * _HUMS):
                        wave[k] += x[i] * probes[i, k]
                for k in range(_HUMS):
                    now = log(sqrt(wave[k] * wave[k] + wave[_HUMS + k] * wave[_HUMS + k]) + _LEAST_HUM)
                    before = hum[k, row, lead]
                    if np.isnan(before):
                        hum[k, row, lead] = now
                    elif not np.isnan(now):
                        hum[k, row, lead] = before + (now - before) / _HUM_FRAMES
            for k in range(_HUMS - 1):
                if below[k] and hum[k, row, lead] - hum[_HUMS - 1, row, lead] > _HUM_ABOVE:
                    hum_mv[r, lead] = max(hum_mv[r, lead], exp(hum[k, row, lead]))


@kernel("void(float32[::1], float32[::1])")
def _powers(y: NDArray[np.float32], new: NDArray[np.float32]) -> None:
    """Write the squared mean of a frame, its variance, the power of its first two differences, and their logarithms."""
    total, square, step, bend = y[0], y[0] * y[0], _NOTHING, _NOTHING
    for i in range(1, FRAME):
        first = y[i] - y[i - 1]
        total += y[i]
        square += y[i] * y[i]
        step += first * first
        if i > 1:
            second = first - (y[i - 1] - y[i - 2])
            bend += second * second
    mean = total / _F32(FRAME)
    new[0] = mean * mean
    new[1] = max(square / _F32(FRAME) - new[0], _NOTHING)
    new[2] = step / _F32(FRAME - 1)
    new[3] = bend / _F32(FRAME - 2)
    for k in range(4):
        new[k] += _FLOOR[k]
        new[4 + k] = log(new[k])


@kernel("float32(float32[::1], float32[::1], float32[::1], float32[::1])")
def _largest_wave(
    tail: NDArray[np.float32], y: NDArray[np.float32], wave: NDArray[np.float32], smooth: NDArray[np.float32]
) -> np.float32:
    """Return the height over its flanks of the largest wave of 80 ms; the frame's first sample stands for a broken tail."""
    total = _NOTHING
    for i in range(_TAIL):
        total += tail[i]
    broken = np.isnan(total)
    for i in range(_TAIL):
        wave[i] = y[0] if broken else tail[i]
    for i in range(FRAME):
        wave[_TAIL + i] = y[i]
    for i in range(_TAIL + FRAME - 3):
        smooth[i] = (wave[i + 3] + wave[i + 2]) + (wave[i + 1] + wave[i])
    largest = _NOTHING
    for i in range(_TAIL + FRAME - 3 - 2 * _FLANK):
        flanks = (smooth[i + 2 * _FLANK] + smooth[i]) * _HALF
        largest = max(largest, abs(smooth[i + _FLANK] - flanks))
    return largest / _F32(4.0)


@kernel("void(float32[:, :, ::1], int64, int64, float32[::1], float32[::1])")
def _rank(peaks: NDArray[np.float32], lead: int, at: int, ranked: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Write what the waves ``(20, 1, 12)`` of a lead say, of which that at ``at % 20`` is the latest."""
    for i in range(_PEAKS):
        value, j = peaks[i, 0, lead], i
        while j > 0 and ranked[j - 1] > value:
            ranked[j] = ranked[j - 1]
            j -= 1
        ranked[j] = value
    beat, first = ranked[_BEAT], 2 * len(_FLOOR)
    half = quarter = most = 0
    spread = _NOTHING
    for i in range(_PEAKS):
        half += ranked[i] > _SHARES[0] * beat
        quarter += ranked[i] > _SHARES[1] * beat
        most += ranked[i] > _SHARES[2] * beat
        spread += abs(ranked[i] - ranked[_PEAKS // 2])
    lowest = highest = peaks[at % _PEAKS, 0, lead]
    for k in range(1, _SECOND):
        value = peaks[(at - k) % _PEAKS, 0, lead]
        lowest, highest = min(lowest, value), max(highest, value)
    for k in range(len(_RANKS)):
        out[first + k] = log(max(ranked[_RANKS[k]], _PEAK_FLOOR))
    first += len(_RANKS)
    out[first] = _F32(half) / _F32(_PEAKS)
    out[first + 1] = _F32(quarter - most) / _F32(_PEAKS)
    out[first + 2] = log(max(spread / _F32(_PEAKS), _PEAK_FLOOR))
    out[first + 3] = log(max(lowest, _PEAK_FLOOR))
    out[first + 4] = log(max(highest, _PEAK_FLOOR))


@kernel(
    "void(int64[::1], float32[:, :, ::1], float32[:, :, :, ::1], float32[:, :, ::1], float32[:, :, :, ::1], int64[::1],"
    "int32[:, ::1], float32[:, :, ::1], float32[:, ::1])"
)
def measure(
    rows: NDArray[np.int64],
    y: NDArray[np.float32],
    powers: NDArray[np.float32],
    tail: NDArray[np.float32],
    peaks: NDArray[np.float32],
    frames: NDArray[np.int64],
    count: NDArray[np.int32],
    measured: NDArray[np.float32],
    span: NDArray[np.float32],
) -> None:
    """Write the features ``(R, 12, F)`` and the amplitude ``(R, 12)`` of one frame of each row.

    Of a lead without a sample in the frame only the first two features are written, the rest are NaN.
    """
    new, wave, smooth = np.empty(8, np.float32), np.empty(_TAIL + FRAME, np.float32), np.empty(_TAIL + FRAME, np.float32)
    ranked, sums = np.empty(_PEAKS, np.float32), np.empty((8, _LEADS), np.float32)
    for r in range(len(rows)):
        row = rows[r]
        at = frames[row] + 1
        frames[row] = at
        ring, waves = powers[row], peaks[row]
        for lead in range(_LEADS):
            x = y[r, lead]
            there, highest, lowest = _extremes(x)
            span[r, lead] = highest - lowest
            whole = there == FRAME
            seen = min(count[row, lead] + whole, _MEMORY)
            count[row, lead] = 0 if np.isnan(x[0]) and np.isnan(x[FRAME - 1]) else seen
            if whole:
                _powers(x, new)
                largest = _largest_wave(tail[row, lead], x, wave, smooth)
            else:
                for k in range(8):
                    new[k] = ring[(at - 1) % _MEMORY, k, lead]
                largest = waves[(at - 1) % _PEAKS, 0, lead]
            for i in range(_TAIL):
                tail[row, lead, i] = x[FRAME - _TAIL + i]
            if whole and seen == 1:
                for i in range(_MEMORY):
                    for k in range(8):
                        ring[i, k, lead] = new[k]
                for i in range(_PEAKS):
                    waves[i, 0, lead] = largest
            else:
                for k in range(8):
                    ring[at % _MEMORY, k, lead] = new[k]
                waves[at % _PEAKS, 0, lead] = largest
        for k in range(8):
            for lead in range(_LEADS):
                sums[k, lead] = ring[0, k, lead]
        for i in range(1, _MEMORY):
            for k in range(8):
                for lead in range(_LEADS):
                    sums[k, lead] += ring[i, k, lead]
        for lead in range(_LEADS):
            out, moves = measured[r, lead], not np.isnan(span[r, lead])
            for k in range(4 if moves else 2):
                out[k] = log(max(sums[k, lead] / _F32(_MEMORY), _FLOOR[k]))
            if moves:
                for k in range(4):
                    out[4 + k] = out[k] - sums[4 + k, lead] / _F32(_MEMORY)
                _rank(waves, lead, at, ranked, out)
            else:
                for k in range(2, _FEATURES):
                    out[k] = _F32(np.nan)


@kernel(
    "UniTuple(float32, 2)(float32[::1], float32[:, ::1], float32[:, ::1], float32[:, :, ::1], float32[:, :, ::1], float32[::1])"
)
def _weigh(
    measured: NDArray[np.float32],
    mean: NDArray[np.float32],
    spread: NDArray[np.float32],
    hidden: NDArray[np.float32],
    out: NDArray[np.float32],
    unit: NDArray[np.float32],
) -> tuple[np.float32, np.float32]:
    """Return the probabilities that QRS detection is right, and of noise."""
    for h in range(len(unit)):
        unit[h] = hidden[0, h, 0]
    for f in range(_FEATURES):
        scaled = min(max((measured[f] - mean[f, 0]) / spread[f, 0], -_LIMIT), _LIMIT)
        for h in range(len(unit)):
            unit[h] += hidden[1 + f, h, 0] * scaled
    right, noise = out[0, 0, 0], out[0, 1, 0]
    for h in range(len(unit)):
        bent = tanh(unit[h])
        right += out[1 + h, 0, 0] * bent
        noise += out[1 + h, 1, 0] * bent
    return _ONE / (_ONE + exp(-right)), _ONE / (_ONE + exp(-noise))


@kernel(
    "void(int64[::1], float32[:, :, ::1], float32[:, ::1], boolean[:, ::1], boolean[:, ::1], boolean[:, ::1], boolean[:, ::1],"
    "float32[:, ::1], boolean[:, ::1], boolean[:, ::1], int32[:, ::1], float32[:, ::1], float32[:, ::1], float32[:, :, ::1],"
    "float32[:, :, ::1], float64, float64, float64,"
    "float32[:, ::1], boolean[:, ::1], int64[::1], float32[:, ::1], int8[:, ::1], boolean[::1], int64[::1])"
)
def weigh_up(
    rows: NDArray[np.int64],
    measured: NDArray[np.float32],
    span: NDArray[np.float32],
    missing: NDArray[np.bool_],
    flat: NDArray[np.bool_],
    saturated: NDArray[np.bool_],
    clipped: NDArray[np.bool_],
    hum_mv: NDArray[np.float32],
    lead_off: NDArray[np.bool_],
    delivered: NDArray[np.bool_],
    count: NDArray[np.int32],
    mean: NDArray[np.float32],
    spread: NDArray[np.float32],
    hidden: NDArray[np.float32],
    out: NDArray[np.float32],
    range_mv: float,
    max_noise: float,
    mains_mv: float,
    swings: NDArray[np.float32],
    noisy: NDArray[np.bool_],
    best: NDArray[np.int64],
    sqi: NDArray[np.float32],
    state: NDArray[np.int8],
    usable: NDArray[np.bool_],
    chosen: NDArray[np.int64],
) -> None:
    """Write the fields of :class:`QualityFrame`."""
    unit, score = np.empty(hidden.shape[1], np.float32), np.empty(_LEADS, np.float32)
    for r in range(len(rows)):
        row = rows[r]
        can, most = False, _F32(-1.0)
        for lead in range(_LEADS):
            there, what = not np.isnan(span[r, lead]), measured[r, lead]
            swing = max(span[r, lead] if there else _NOTHING, _SWING_KEPT * swings[row, lead])
            swings[row, lead] = swing
            part = swing / _F32(range_mv)
            within = _ONE / (_ONE + (part * part) * (part * part))
            seen = min(count[row, lead] / _SETTLED, 1.0) if there else 0.0
            calm, index = float(within), _CREDIT * within
            if seen > 0.0:
                right, noise = _weigh(what, mean, spread, hidden, out, unit)
                quiet = exp(what[_QUIET]) / _SMALL_QRS_MV
                harm = min(exp(what[1]) / _HARMLESS, quiet * quiet, _ONE)
                calm = (1.0 - harm * seen * noise) * within
                index = (_CREDIT + seen * (right - _CREDIT)) * within
            noise_found = calm < 1.0 - max_noise + (_CALM if noisy[row, lead] else 0.0)
            noisy[row, lead] = noise_found and there
            code = 0
            if lead_off[r, lead]:
                code = _OFF
            elif missing[r, lead]:
                code = _MISSING
            elif flat[r, lead]:
                code = _FLAT
            elif saturated[r, lead]:
                code = _SATURATED
            elif noise_found:
                code = _MOTION if what[0] - what[1] > _MOTION_FROM else _NOISY
            elif hum_mv[r, lead] > _F32(mains_mv):
                code = _MAINS
            elif clipped[r, lead]:
                code = _CLIPPED
            state[r, lead] = code
            sqi[r, lead] = index if code <= _CLIPPED and there else 0.0
            trusted = _TRUSTED[code] and there
            can |= trusted and delivered[r, lead]
            score[lead] = sqi[r, lead] if trusted else _F32(-1.0)
            most = max(most, score[lead])
        usable[r] = can
        if best[row] >= 0:
            score[best[row]] *= _HOLD
        first = _ORDER[0]
        for place in range(1, _LEADS):
            if score[_ORDER[place]] > score[first]:
                first = _ORDER[place]
        best[row] = chosen[r] = first if most > _NOTHING else -1
