"""Beat classes as one compiled loop: :mod:`ecgnat_stream.beats.classify` and :mod:`ecgnat_stream.beats.gallery` for one beat.

In: the beats of a call, the signal kept, and a bed's gallery, which learns. Out: features, probability and class of each beat.
What each step means stands in the plain code, in the same order. Leads and shapes that have nothing to compare are passed over.

Shapes: L lead (12), K shape of the gallery, T sample, F feature, M movement.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ecgnat_stream.beats import classify, gallery
from ecgnat_stream.compiled import kernel
from ecgnat_stream.signal import FRAME, LEADS

_L, _F = len(LEADS), len(gallery.FEATURES)
_KEPT, _LEARNING, _LIMIT = classify._KEPT, classify._LEARNING, classify.LIMIT
_FAST, _OWN = math.log(classify._FAST_S), math.log(0.01 + classify._FREQUENT)
_PUNCTUAL, _REGULAR, _PUNCTUAL_LESS = classify._PUNCTUAL, classify._REGULAR, classify._PUNCTUAL_LESS
_MEDIAN_RR, _OWN_SHARE, _IRREGULAR = classify._MEDIAN_RR, classify._OWN_SHARE, classify._IRREGULAR
_ON_TIME_NOW, _ON_TIME_OWN = classify._ON_TIME
_V, _S, _N, _Q = (ord(label) for label in "VSNQ")

_K, _MOVE, _BEFORE, _LENGTH = gallery._SHAPES, gallery._MOVE, gallery._BEFORE, gallery._BEFORE + gallery._AFTER
_R, _T, _M = gallery.SPAN[0], sum(gallery.SPAN), 2 * gallery._MOVE + 1
_QRS, _QRS_STOP = gallery._QRS.start, gallery._QRS.stop
_WIDTH, _P_STOP = _QRS_STOP - _QRS, gallery._P.stop
_ALIKE, _LARGER, _GREGARIOUS = gallery._ALIKE, gallery._LARGER, gallery._GREGARIOUS
_MEMORY, _SETTLE, _INTERVALS = gallery._MEMORY, gallery._SETTLE, gallery._INTERVALS
_PUNCTUAL_WITHIN = gallery._PUNCTUAL
_C, _D, _CHANGED = len(gallery._COMPARED), len(gallery._DESCRIBED), gallery._CHANGED.start
_EARLY, _ON_TIME = gallery._EARLY, gallery._ON_TIME
_AGAINST = _CHANGED - 7


@kernel("float64(float64[::1], int64)")
def _lower_median(values: Any, count: int) -> float:
    """Return the lower median of the first values without its NaN, NaN where nothing is left; puts them in order."""
    there = 0
    for i in range(count):
        if not math.isnan(values[i]):
            value, j = values[i], there
            while j > 0 and values[j - 1] > value:
                values[j] = values[j - 1]
                j -= 1
            values[j] = value
            there += 1
    return math.nan if there == 0 else values[(there - 1) // 2]


@kernel("void(float64[:, ::1], float64[::1], float64[::1], float64[::1], float64[::1])")
def _describe(x: Any, trust: Any, height: Any, energy: Any, out: Any) -> None:
    energy[:] = 0.0
    big = 0.0
    area = 0.0
    discord = 0.0
    for lead in range(_L):
        by = trust[lead]
        if by == 0.0:
            continue
        wave = x[lead]
        for t in range(_T - 2):
            slope = 0.5 * (wave[t + 2] - wave[t])
            energy[t] += slope * slope * by
        big += height[lead] * height[lead] * by
        mean = 0.0
        for t in range(_R - 24, _R + 36):
            mean += wave[t]
        mean /= 60.0
        deflection = 0.0
        for t in range(_R - 24, _R + 36):
            deflection += abs(wave[t] - mean)
        deflection /= 60.0
        area += deflection * deflection * by
        base = 0.0
        for t in range(_R - 36, _R - 20):
            base += wave[t]
        base /= 16.0
        qrs = 0.0
        for t in range(_R - 14, _R + 20):
            qrs += wave[t]
        t_wave = 0.0
        for t in range(_R + 30, _R + 44):
            t_wave += wave[t]
        discord += (qrs / 34.0 - base) * (t_wave / 14.0 - base) * by
    for t in range(_T - 4):
        energy[t] = (energy[t] + energy[t + 1] + energy[t + 2]) / 3.0
    total, peak, centre = 0.0, 0.0, 0.0
    first = _R - 26
    for t in range(60):
        value = energy[first + t]
        total += value
        peak = max(peak, value)
        centre += value * t
    total, peak = max(total, 1e-12), max(peak, 1e-12)
    centre /= total
    spread, wide = 0.0, 0
    for t in range(60):
        value = energy[first + t]
        spread += value * (t - centre) * (t - centre)
        wide += value > 0.06 * peak
    late, early = 0.0, 0.0
    for t in range(_R + 18, _R + 40):
        late += energy[t]
    for t in range(_R - 32, _R - 14):
        early += energy[t]
    size = math.sqrt(max(big, 1e-12))
    out[0] = math.log(math.sqrt(spread / total) + 0.5)
    out[1] = math.log(wide) if wide else -math.inf
    out[2] = math.log(math.sqrt(peak) / size)
    out[3] = math.log(math.sqrt(max(area, 1e-12)) / size)
    out[4] = math.log(late / total + 0.01)
    out[5] = math.log(early / total + 0.01)
    out[6] = min(max(discord / (size * size), -0.2), 0.2)


@kernel(
    "void(float64[:, ::1], float64[::1], float32[:, :, ::1], boolean[:, ::1], float64[::1], int64[::1], float64[::1],"
    " float64[:, ::1], float64[:, ::1], float64[:, ::1], float64[:, ::1])"
)
def _lay(
    x: Any,
    trust: Any,
    shape: Any,
    has: Any,
    alike: Any,
    place: Any,
    size: Any,
    leads: Any,
    moved: Any,
    product: Any,
    power: Any,
) -> None:
    """Lay a beat over the shapes: ``alike``, ``place``, ``size`` ``(K,)`` and ``leads`` ``(K, L)``; the rest is scratch."""
    dot = np.empty((_L, _K, _M))
    beat_power = np.empty((_L, _M))
    shape_power = np.zeros((_L, _K))
    own_power = np.zeros(_K)
    middle = np.empty(_WIDTH)
    product[:] = 0.0
    power[:] = 0.0
    leads[:] = math.nan
    for lead in range(_L):
        if trust[lead] == 0.0:
            continue
        some = False
        for k in range(_K):
            some |= has[k, lead]
        if not some:
            continue
        wave = x[lead]
        for m in range(_M):
            mean = 0.0
            for t in range(_WIDTH):
                mean += wave[_QRS + m + t]
            mean /= _WIDTH
            total = 0.0
            for t in range(_WIDTH):
                value = wave[_QRS + m + t] - mean
                moved[t, m] = value
                total += value * value
            beat_power[lead, m] = total
        for k in range(_K):
            if not has[k, lead]:
                continue
            mean = 0.0
            for t in range(_WIDTH):
                mean += np.float64(shape[k, lead, _QRS + t])
            mean /= _WIDTH
            total = 0.0
            for t in range(_WIDTH):
                middle[t] = np.float64(shape[k, lead, _QRS + t]) - mean
                total += middle[t] * middle[t]
            shape_power[lead, k] = total
            own_power[k] += total * trust[lead]
            own = dot[lead, k]
            own[:] = 0.0
            for t in range(_WIDTH):
                value = middle[t]
                for m in range(_M):
                    own[m] += value * moved[t, m]
            for m in range(_M):
                product[k, m] += own[m] * trust[lead]
                power[k, m] += beat_power[lead, m] * trust[lead]
    for k in range(_K):
        best, where = -math.inf, 0
        for m in range(_M):
            value = product[k, m] / math.sqrt(max(power[k, m] * own_power[k], 1e-18))
            if value > best:
                best, where = value, m
        alike[k], place[k] = best, where
        size[k] = 0.5 * math.log(max(power[k, where], 1e-9) / max(own_power[k], 1e-9))
        for lead in range(_L):
            if trust[lead] > 0.0 and has[k, lead]:
                leads[k, lead] = dot[lead, k, where] / math.sqrt(max(beat_power[lead, where] * shape_power[lead, k], 1e-18))


@kernel("void(float64[:, ::1], float64[::1], float32[:, ::1], boolean[::1], int64, float64[::1])")
def _rests(x: Any, trust: Any, shape: Any, has: Any, place: int, out: Any) -> None:
    """Compare what lies before and behind the QRS complex with the usual shape: ``out[0]`` and ``out[1]``."""
    scale, before, behind = 0.0, 0.0, 0.0
    for lead in range(_L):
        if trust[lead] == 0.0 or not has[lead]:
            continue
        level, here = 0.0, 0.0
        for t in range(_BEFORE - 34, _BEFORE - 20):
            level += np.float64(shape[lead, t])
            here += x[lead, place + t]
        level /= 14.0
        here /= 14.0
        total = 0.0
        for t in range(_QRS, _QRS_STOP):
            value = np.float64(shape[lead, t]) - level
            total += value * value
        scale += total * trust[lead]
        total = 0.0
        for t in range(_P_STOP):
            value = (x[lead, place + t] - here) - (np.float64(shape[lead, t]) - level)
            total += value * value
        before += total * trust[lead]
        total = 0.0
        for t in range(_QRS_STOP, _LENGTH):
            value = (x[lead, place + t] - here) - (np.float64(shape[lead, t]) - level)
            total += value * value
        behind += total * trust[lead]
    scale = max(scale, 1e-9)
    out[0] = math.log(1e-3 + before / scale)
    out[1] = math.log(1e-3 + behind / scale)


@kernel("int64(float64[::1], float64[:, ::1])")
def _usual(count: Any, mean: Any) -> int:
    narrowest = math.inf
    for k in range(_K):
        if count[k] > 0.0:
            narrowest = min(narrowest, mean[k, _CHANGED])
    best, usual = -math.inf, 0
    for k in range(_K):
        wide = mean[k, _CHANGED] - narrowest if count[k] > 0.0 else 0.0
        score = math.log(count[k] if count[k] > 0.0 else 1e-9) - 4.0 * wide + 3.0 * min(mean[k, _EARLY], 0.0)
        if score > best:
            best, usual = score, k
    return usual


@kernel("float64(float64)")
def _known(value: float) -> float:
    return 0.0 if math.isnan(value) else value


@kernel("void(float64[::1], float64, float64, float64[::1], float64[::1])")
def _intervals(kept_rr: Any, rr_ms: float, usual_rr: float, rhythm: Any, about: Any) -> None:
    kept, steps = np.empty(_INTERVALS), np.empty(_INTERVALS - 1)
    for i in range(_INTERVALS):
        kept[i] = math.log(kept_rr[i])
    for i in range(_INTERVALS - 1):
        steps[i] = abs(kept[i + 1] - kept[i])
    last = kept[_INTERVALS - 1]
    middle, step = _lower_median(kept, _INTERVALS), _lower_median(steps, _INTERVALS - 1)
    rr = rr_ms if math.isnan(rr_ms) else math.log(min(max(rr_ms, 150.0), 3000.0) / 1000.0)
    usual = math.log(max(usual_rr, 0.1)) if usual_rr > 0.0 else middle
    away = (rr - usual) / _PUNCTUAL_WITHIN
    rhythm[0] = _known(rr - middle)
    rhythm[1] = _known(rr - last)
    rhythm[2] = _known(rr - usual)
    rhythm[3] = _known((rr - middle) / (0.07 + step))
    rhythm[4] = _known(math.exp(-0.5 * (away * away)))
    about[0], about[1], about[2] = _known(last - middle), _known(step), _known(middle)


@kernel("boolean(float32[:, :, ::1], int64, float64, float64[::1], float64[:, ::1], float64[::1])")
def _cut(signal: Any, frame: Any, at: Any, sqi: Any, x: Any, weight: Any) -> bool:
    """Cut the signal about a beat, with a weight of 0 where a lead is not all there; return whether any can be used."""
    first = min(np.int64(np.rint(at)), (frame + 1) * FRAME - (_T - _R)) - _R
    kept = first // FRAME > frame - _KEPT
    total = 0.0
    for lead in range(_L):
        weight[lead] = 0.0
        there = kept and sqi[lead] > 0.0
        if not there:
            continue
        slot, offset = first // FRAME % _KEPT, first % FRAME
        for t in range(_T):
            value = np.float64(signal[slot, lead, offset])
            x[lead, t] = value
            there &= math.isfinite(value)
            offset += 1
            if offset == FRAME:
                slot, offset = (slot + 1) % _KEPT, 0
        if there:
            weight[lead] = sqi[lead]
        total += weight[lead]
    if total > 0.0:
        for lead in range(_L):
            weight[lead] /= total
    return total > 0.0


@kernel(
    "void(int64[::1], int64[::1], float64[::1], float64[::1], float64[:, ::1], boolean[::1], int64, float32[:, :, :, ::1],"
    " float32[:, :, :, ::1], boolean[:, :, ::1], float64[:, ::1], float64[:, :, ::1], float64[:, ::1], float64[:, ::1],"
    " float64[::1], boolean[::1], int64[::1], float64[:, ::1], float64[::1], int64[::1],"
    " float64[:, ::1], float64[::1], float64[:, ::1], float32[::1], uint32[::1])"
)
def beat_classes(
    rows: Any,
    frames: Any,
    ats: Any,
    rrs: Any,
    sqi: Any,
    paced: Any,
    beats: int,
    signal: Any,
    shape: Any,
    has: Any,
    count: Any,
    mean: Any,
    size: Any,
    kept_rr: Any,
    usual_rr: Any,
    last: Any,
    last_shape: Any,
    after: Any,
    clean: Any,
    seen: Any,
    fitted: Any,
    offsets: Any,
    features: Any,
    ventricular: Any,
    labels: Any,
) -> None:
    """Measure and class beats, in their order.

    Parameters
    ----------
    rows, frames, ats, rrs, sqi, paced
        ``(B,)`` row, newest frame of the row, R peak, RR interval in ms; ``(B, L)`` trust in each lead; ``(B,)`` paced.
    beats
        ``B``.
    signal
        ``(rows, _KEPT, L, FRAME)``.
    shape, has, ..., seen
        The state of the gallery, by row; written.
    fitted, offsets
        ``(5, F)`` centre, scale and the weights of V, S and broad; ``(3,)``.
    features, ventricular, labels
        ``(B, F)``, ``(B,)`` probability, ``(B,)`` code point of the label; written where there is something to say.
    """
    x, weight, trust, height = np.empty((_L, _T)), np.empty(_L), np.empty(_L), np.empty(_L)
    energy, described = np.empty(_T - 2), np.empty(_D)
    alike, place, larger, leads = np.empty(_K), np.empty(_K, np.int64), np.empty(_K), np.empty((_K, _L))
    moved, product, power = np.empty((_WIDTH, _M)), np.empty((_K, _M)), np.empty((_K, _M))
    rests, about, share, beat = np.empty(2), np.empty(3), np.empty(_K), np.empty(_C)
    for b in range(beats):
        row = rows[b]
        if not _cut(signal[row], frames[b], ats[b], sqi[b], x, weight):
            continue
        for lead in range(_L):
            trust[lead] = 0.0
            if weight[lead] == 0.0:
                continue
            low, high = math.inf, -math.inf
            for t in range(_QRS + _MOVE, _QRS_STOP + _MOVE):
                low, high = min(low, x[lead, t]), max(high, x[lead, t])
            height[lead] = high - low
            if size[row, lead] == 0.0:
                size[row, lead] = height[lead]
            usually = max(size[row, lead], 0.02)
            trust[lead] = weight[lead] / (usually * usually)
        _lay(x, trust, shape[row], has[row], alike, place, larger, leads, moved, product, power)
        usual = _usual(count[row], mean[row])
        total, most = 0.0, 0.0
        for k in range(_K):
            total += count[row, k]
            most = max(most, count[row, k])
        known = most > 0.0
        best, own, fits, likest = -2.0, 0, False, -math.inf
        for k in range(_K):
            share[k] = count[row, k] / max(total, 1.0)
            likest = max(likest, alike[k])
            belongs = alike[k] >= _ALIKE and abs(larger[k]) < _LARGER
            liking = alike[k] + _GREGARIOUS * share[k] if belongs else -1.0
            if liking > best:
                best, own, fits = liking, k, belongs
        _describe(x, trust, height, energy, described)
        _intervals(kept_rr[row], rrs[b], usual_rr[row], beat[:_AGAINST], about)
        if known:
            worst, top, none = math.inf, -math.inf, True
            for lead in range(_L):
                value = leads[usual, lead]
                if not math.isnan(value):
                    worst, top, none = min(worst, value), max(top, value), False
            ratio = math.exp(-abs(larger[usual]))
            _rests(x, trust, shape[row, usual], has[row, usual], place[usual], rests)
            beat[_AGAINST] = alike[usual]
            beat[_AGAINST + 1] = 1.0 if none else worst
            beat[_AGAINST + 2] = 1.0 if none else top
            beat[_AGAINST + 3] = math.log(1.01 + ratio * (ratio - 2.0 * alike[usual]))
            beat[_AGAINST + 4] = larger[usual]
            beat[_AGAINST + 5], beat[_AGAINST + 6] = rests[0], rests[1]
        else:
            beat[_AGAINST] = beat[_AGAINST + 1] = beat[_AGAINST + 2] = 1.0
            beat[_AGAINST + 3], beat[_AGAINST + 4], beat[_AGAINST + 5], beat[_AGAINST + 6] = -3.0, 0.0, -3.0, -3.0
        for d in range(_D):
            beat[_CHANGED + d] = described[d]
            beat[_CHANGED + _D + d] = described[d] - mean[row, usual, _CHANGED + d] if known else 0.0
        k = own
        if not fits:
            for i in range(_K):
                k = 0 if i == 0 else (i if count[row, i] < count[row, k] else k)
        as_usual = fits and own == usual
        out = features[b]
        out[:_C] = beat
        at = 2 * _C
        out[at], out[at + 1], out[at + 2] = about[0], about[1], about[2]
        out[at + 3] = math.log(0.01 + (share[own] if fits else 0.0))
        out[at + 4] = as_usual
        out[at + 5] = share[usual]
        out[at + 6] = last[row]
        out[at + 7] = clean[row]
        told = seen[row] >= _LEARNING

        fade = 1.0 - 1.0 / _MEMORY
        for i in range(_K):
            count[row, i] *= fade
        before_count = count[row, k] if fits else 0.0
        part = 1.0 / min(before_count + 1.0, _SETTLE)
        count[row, k] = before_count + 1.0
        for c in range(_C):
            mean[row, k, c] += part * (beat[c] - mean[row, k, c])
        move = place[k] if fits else _MOVE
        step = max(1.0 / _SETTLE, 1.0 / (seen[row] + 1.0))
        for lead in range(_L):
            had, used = has[row, k, lead] and fits, weight[lead] > 0.0
            old = shape[row, k, lead]
            if used:
                by = part if had else 1.0
                for t in range(_LENGTH):
                    old[t] = np.float64(old[t]) + by * (x[lead, move + t] - np.float64(old[t]))
                size[row, lead] += step * (height[lead] - size[row, lead])
            elif not had:
                old[:] = 0.0
            has[row, k, lead] = had or used
        clean[row] += max(step, 1.0 / max(np.float64(seen[row]), 1.0)) * (likest - clean[row])
        no_rr = math.isnan(rrs[b])
        rr, usually = (0.0 if no_rr else rrs[b]) / 1000.0, usual_rr[row]
        limited = min(max(rr, 0.15), 3.0)
        before = last_shape[row]
        if usually > 0.0 and not no_rr:
            apart = abs(math.log(limited / max(usually, 0.15)))
            after[row, before] += (apart - after[row, before]) * (1.0 / min(max(count[row, before], 1.0), _SETTLE))
        if not fits:
            after[row, k] = 0.0
        last_shape[row] = k
        if as_usual and last[row] and not no_rr:
            usual_rr[row] = usually + 0.1 * (rr - usually) if usually > 0.0 else rr
        newest = kept_rr[row, _INTERVALS - 1] if no_rr else limited
        for i in range(_INTERVALS - 1):
            kept_rr[row, i] = kept_rr[row, i + 1]
        kept_rr[row, _INTERVALS - 1] = newest
        last[row] = as_usual
        seen[row] += 1

        out[_C:at] = mean[row, k]
        out[at + 8] = mean[row, k, _ON_TIME] - mean[row, usual, _ON_TIME]
        out[at + 9] = after[row, k] - after[row, usual]
        v, s, broad = 0.0, 0.0, 0.0
        for f in range(_F):
            z = min(max((out[f] - fitted[0, f]) / fitted[1, f], -_LIMIT), _LIMIT)
            v += z * fitted[2, f]
            s += z * fitted[3, f]
            broad += z * fitted[4, f]
        v, s, broad = v + offsets[0], s + offsets[1], broad + offsets[2]
        fast = out[_MEDIAN_RR] < _FAST
        punctual = out[_ON_TIME_NOW] > _PUNCTUAL and out[_ON_TIME_OWN] > _PUNCTUAL and out[_IRREGULAR] < _REGULAR and not fast
        if punctual:
            v -= _PUNCTUAL_LESS
        if fast and out[_OWN_SHARE] > _OWN:
            v = max(v, broad)
        if told and not paced[b]:
            labels[b] = _V if v > 0.0 else (_S if s > 0.0 else _N)
            ventricular[b] = 1.0 / (1.0 + math.exp(-v))
