"""The detector of fibrillation, compiled: bed by bed, what ``detector`` and ``features`` do for all beds at once.

The spectrum comes from a discrete Fourier transform in two steps (Cooley and Tukey 1965), the order statistics from a sort into
buckets of which only those are put in order that are asked for. Sums are taken eight by eight, so they differ from those of the
plain code in the last digits.
"""

from __future__ import annotations

from math import exp, log, tanh

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.compiled import kernel
from ecgnat_stream.fibrillation import detector
from ecgnat_stream.fibrillation.features import DELAY, FEATURES, FRAMES, GRID, HZ, LENGTH, STEP, TINY, N
from ecgnat_stream.signal import FRAME, LEADS

__all__ = ["judge", "keep", "measure"]

_LEADS = len(LEADS)
_FEATURES = len(FEATURES)
_SLOTS, _ENOUGH, _ORDER = detector.SLOTS, detector.ENOUGH, detector.ORDER
_MISSING = (1.0 - detector.THERE) * FRAME

_BUCKETS = 256

_FIRST, _SECOND = 25, LENGTH // 25
"""Lengths of the transforms that the spectrum is made of: 25 values each, of eight interleaved parts; then over these parts."""

_HALF = _FIRST // 2 + 1
_BINS = LENGTH // 2 + 1
_EARLY, _LATE, _LATEST = (round(lag_s * HZ) for lag_s in (0.1, 0.45, 1.3))
_LOWEST = int(np.ceil(0.75 * LENGTH / HZ))
_WIDE, _SLOW, _QUICK = round(1.5 * LENGTH / HZ), round(2.5 * LENGTH / HZ), round(9.0 * LENGTH / HZ)
_PARTS = 8
_PART = (LENGTH - 1) // _PARTS
_POWERS = 10

_WINDOW = np.hamming(LENGTH)
_turn = 2.0 * np.pi / LENGTH
_PAIRS = _FIRST // 2
_INNER = np.stack([f(_turn * _SECOND * np.outer(np.arange(_HALF), np.arange(1, _PAIRS + 1))) for f in (np.cos, np.sin)])
"""``(2, HALF, PAIRS)`` cosine and sine."""
_TWIST = np.stack([f(_turn * np.outer(np.arange(_HALF), np.arange(_SECOND))) for f in (np.cos, np.sin)])
_EIGHTH = np.stack([f(_turn * _FIRST * np.arange(4)) for f in (np.cos, np.sin)])
_at = np.arange(_HALF)[:, None] + _FIRST * np.arange(_SECOND)
_BIN = np.minimum(_at, LENGTH - _at)
"""``(HALF, SECOND)`` bin of the spectrum of each value: above the middle it runs backwards."""

_EVEN = np.arange(_EARLY + _EARLY % 2, _LATEST, 2)
_ODD = np.arange(_EARLY + 1 - _EARLY % 2, _LATEST, 2)
_QUARTER = _BINS // 2 + 1
_quarter = np.arange(_QUARTER)
_times = np.where((_quarter > 0) & (_quarter < _QUARTER - 1), 2.0, 1.0)[:, None]
_EVENLY, _ODDLY = (_times * np.cos(_turn * np.outer(_quarter, lags)) for lags in (_EVEN, _ODD))
"""``(QUARTER, lags)``: autocorrelation from the sums and differences of bins that mirror each other there."""


@kernel("float64(float64[::1], int64, int64)")
def _sum(x: NDArray[np.float64], start: int, stop: int) -> float:
    """Add up ``x[start:stop]``, in eight sums side by side."""
    a = b = c = d = e = f = g = h = 0.0
    i = start
    while i + 8 <= stop:
        a += x[i]
        b += x[i + 1]
        c += x[i + 2]
        d += x[i + 3]
        e += x[i + 4]
        f += x[i + 5]
        g += x[i + 6]
        h += x[i + 7]
        i += 8
    while i < stop:
        a += x[i]
        i += 1
    return ((a + b) + (c + d)) + ((e + f) + (g + h))


@kernel("void(float64[::1], int64, float64, int64, int64, int64, int32[::1], int32[::1], float64[::1], float64[::1])")
def _ranked(
    x: NDArray[np.float64],
    length: int,
    largest: float,
    first: int,
    second: int,
    third: int,
    bucket: NDArray[np.int32],
    starts: NDArray[np.int32],
    spread: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Write into ``out`` which of the first ``length`` values, 0 to ``largest``, have three ranks."""
    scale = (_BUCKETS - 1) / largest if largest > 0.0 else 0.0
    for i in range(_BUCKETS + 1):
        starts[i] = 0
    for i in range(length):
        bucket[i] = min(max(int(x[i] * scale), 0), _BUCKETS - 1)
    for i in range(length):
        starts[bucket[i] + 1] += 1
    for i in range(_BUCKETS):
        starts[i + 1] += starts[i]
    for i in range(length):
        place = starts[bucket[i]]
        spread[place] = x[i]
        starts[bucket[i]] = place + 1
    for k in range(3):
        rank = first if k == 0 else second if k == 1 else third
        # By now a bucket's entry is its end, and the one before it its start. Within it: quickselect (Hoare 1961).
        which = min(max(int(spread[rank] * scale), 0), _BUCKETS - 1)
        low, high = starts[which - 1] if which else 0, starts[which] - 1
        while low < high:
            middle, i, j = spread[(low + high) // 2], low, high
            while i <= j:
                while spread[i] < middle:
                    i += 1
                while spread[j] > middle:
                    j -= 1
                if i <= j:
                    spread[i], spread[j] = spread[j], spread[i]
                    i += 1
                    j -= 1
            if rank <= j:
                high = j
            elif rank >= i:
                low = i
            else:
                break
        out[k] = spread[rank]


@kernel("void(float64[::1], float64[:, :, ::1], float64[:, ::1], float64[::1])")
def _power(x: NDArray[np.float64], pairs: NDArray[np.float64], parts: NDArray[np.float64], power: NDArray[np.float64]) -> None:
    """Write into ``power`` the power spectrum of a window, ``(BINS,)``."""
    # The signal is real, so that of each of the eight parts the sums and differences of mirrored values are enough.
    for i in range(1, _PAIRS + 1):
        for j in range(_SECOND):
            before, behind = _SECOND * i + j, _SECOND * (_FIRST - i) + j
            a, b = x[before] * _WINDOW[before], x[behind] * _WINDOW[behind]
            pairs[0, i - 1, j], pairs[1, i - 1, j] = a + b, a - b
    for k in range(_HALF):
        for j in range(_SECOND):
            parts[0, j], parts[1, j] = x[j] * _WINDOW[j], 0.0
        for i in range(0, _PAIRS, 3):
            c, d, e = _INNER[0, k, i], _INNER[0, k, i + 1], _INNER[0, k, i + 2]
            for j in range(_SECOND):
                parts[0, j] += c * pairs[0, i, j] + d * pairs[0, i + 1, j] + e * pairs[0, i + 2, j]
            c, d, e = _INNER[1, k, i], _INNER[1, k, i + 1], _INNER[1, k, i + 2]
            for j in range(_SECOND):
                parts[1, j] += c * pairs[1, i, j] + d * pairs[1, i + 1, j] + e * pairs[1, i + 2, j]
        for j in range(_SECOND):
            a, b = parts[0, j], parts[1, j]
            parts[0, j] = a * _TWIST[0, k, j] - b * _TWIST[1, k, j]
            parts[1, j] = a * _TWIST[1, k, j] + b * _TWIST[0, k, j]
        # A transform of eight values is two of four: of the sums, and of the differences turned by an eighth.
        for j in range(4):
            a, b = parts[0, j] - parts[0, j + 4], parts[1, j] - parts[1, j + 4]
            parts[0, j] += parts[0, j + 4]
            parts[1, j] += parts[1, j + 4]
            parts[0, j + 4] = a * _EIGHTH[0, j] - b * _EIGHTH[1, j]
            parts[1, j + 4] = a * _EIGHTH[1, j] + b * _EIGHTH[0, j]
        for half in range(2):
            o = 4 * half
            a, b = parts[0, o] + parts[0, o + 2], parts[1, o] + parts[1, o + 2]
            c, d = parts[0, o] - parts[0, o + 2], parts[1, o] - parts[1, o + 2]
            e, f = parts[0, o + 1] + parts[0, o + 3], parts[1, o + 1] + parts[1, o + 3]
            g, h = parts[0, o + 1] - parts[0, o + 3], parts[1, o + 1] - parts[1, o + 3]
            power[_BIN[k, half]] = (a + e) * (a + e) + (b + f) * (b + f)
            power[_BIN[k, half + 2]] = (c - h) * (c - h) + (d + g) * (d + g)
            power[_BIN[k, half + 4]] = (a - e) * (a - e) + (b - f) * (b - f)
            power[_BIN[k, half + 6]] = (c + h) * (c + h) + (d - g) * (d - g)


@kernel("void(float64[::1], float64[::1], float64[::1], float64[::1], float64[::1])")
def _spectrum(
    power: NDArray[np.float64],
    running: NDArray[np.float64],
    even: NDArray[np.float64],
    odd: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Write into ``out`` what ``features`` concludes from a power spectrum."""
    total = max(_sum(power, _LOWEST, _BINS), TINY * TINY)
    so_far = entropy = mean = 0.0
    for k in range(_LOWEST):
        running[k] = 0.0
    for k in range(_LOWEST, _BINS):
        share = power[k] / total
        so_far += share
        running[k] = so_far
        mean += share * (k * (HZ / LENGTH))
        entropy -= share * log(max(share, 1e-9))
    narrow = 0.0
    for k in range(_WIDE, _BINS):
        narrow = max(narrow, running[k] - running[k - _WIDE])
    slow, quick = running[_SLOW], running[_QUICK]
    for j in range(len(_EVEN)):
        even[j] = 0.0
    for j in range(len(_ODD)):
        odd[j] = 0.0
    for k in range(0, _QUARTER, 3):
        a, b, c = power[k], power[k + 1], power[k + 2]
        d, e, f = power[_BINS - 1 - k], power[_BINS - 2 - k], power[_BINS - 3 - k]
        for j in range(len(_EVEN)):
            even[j] += (a + d) * _EVENLY[k, j] + (b + e) * _EVENLY[k + 1, j] + (c + f) * _EVENLY[k + 2, j]
        for j in range(len(_ODD)):
            odd[j] += (a - d) * _ODDLY[k, j] + (b - e) * _ODDLY[k + 1, j] + (c - f) * _ODDLY[k + 2, j]
    whole = power[0] + power[_BINS - 1] + 2.0 * _sum(power, 1, _BINS - 1)
    scale = max(whole / LENGTH, TINY * TINY) * LENGTH
    alike = later = -np.inf
    for j in range(len(_EVEN)):
        if _EVEN[j] < _LATE:
            alike = max(alike, even[j])
        else:
            later = max(later, even[j])
    for j in range(len(_ODD)):
        if _ODD[j] < _LATE:
            alike = max(alike, odd[j])
        else:
            later = max(later, odd[j])
    out[9], out[10], out[11], out[12] = slow, quick - slow, 1.0 - quick, narrow
    out[13], out[14], out[15], out[16] = log(mean + 0.1), entropy, alike / scale, (later - alike) / scale


@kernel("float64(float64[::1], float64[::1], float64, float64)")
def _leakage(x: NDArray[np.float64], size: NDArray[np.float64], sizes: float, path: float) -> float:
    """Return what is left of the signal when it is added to itself half a mean period later."""
    half = min(max(np.pi * sizes / max(path, TINY), 1.0), float(LENGTH // 4))
    whole = min(max(int(half), 1), LENGTH // 4)
    part = half - whole
    left_a = left_b = both_a = both_b = 0.0
    for i in range(0, (LENGTH - 1 - whole) // 2 * 2, 2):
        later = x[i + whole] + part * (x[i + whole + 1] - x[i + whole])
        left_a += abs(x[i] + later)
        both_a += size[i] + abs(later)
        later = x[i + whole + 1] + part * (x[i + whole + 2] - x[i + whole + 1])
        left_b += abs(x[i + 1] + later)
        both_b += size[i + 1] + abs(later)
    if (LENGTH - 1 - whole) % 2:
        i = LENGTH - 2 - whole
        later = x[i + whole] + part * (x[i + whole + 1] - x[i + whole])
        left_a += abs(x[i] + later)
        both_a += size[i] + abs(later)
    return (left_a + left_b) / max(both_a + both_b, TINY)


@kernel("float64(float64[::1], float64, float64, int64[::1], int64[::1], int64)")
def _phase_space(
    x: NDArray[np.float64], low: float, high: float, cell: NDArray[np.int64], seen: NDArray[np.int64], mark: int
) -> float:
    """Return the share of the phase space that is filled; a cell of ``seen`` counts when it does not hold this window's mark."""
    width = max(high - low, TINY)
    for i in range(LENGTH):
        cell[i] = min(max(int(GRID * (x[i] - low) / width), 0), GRID - 1)
    filled = 0
    for i in range(LENGTH - DELAY):
        at = GRID * cell[i + DELAY] + cell[i]
        filled += seen[at] != mark
        seen[at] = mark
    return filled / (GRID * GRID)


@kernel("float64(float64[::1], float64)")
def _crossings(x: NDArray[np.float64], top: float) -> float:
    """Return the log of how often a second the signal goes from beyond a fifth of its size on one side to the other."""
    level, side, changes = 0.2 * top, 0, 0
    for i in range(LENGTH):
        now = 1 if x[i] > level else -1 if x[i] < -level else 0
        changes += now * side < 0
        side = now if now != 0 else side
    return log(1.0 + changes * HZ / LENGTH)


@kernel(
    "void(int64[::1], int64[::1], float32[:, :, ::1], boolean[:, ::1], float64[::1], float64[:, ::1], float32[:, :, ::1],"
    "int64[::1], boolean[:, :, ::1])"
)
def keep(
    rows: NDArray[np.int64],
    frames: NDArray[np.int64],
    y: NDArray[np.float32],
    good: NDArray[np.bool_],
    filter_: NDArray[np.float64],
    state: NDArray[np.float64],
    signal: NDArray[np.float32],
    count: NDArray[np.int64],
    there: NDArray[np.bool_],
) -> None:
    """Filter the leads that are there and put them behind what is kept of them; what is missing is skipped."""
    b0, b1, b2, a1, a2 = filter_[0], filter_[1], filter_[2], filter_[4], filter_[5]
    whole = np.empty(FRAME)
    for r in range(len(rows)):
        row, frame = rows[r], frames[r] % FRAMES
        for lead in range(_LEADS):
            missing, first = 0, -1
            if good[r, lead]:
                for i in range(FRAME):
                    if np.isnan(y[r, lead, i]):
                        missing += 1
                    elif first < 0:
                        first = i
            present = good[r, lead] and missing <= _MISSING
            known = False
            if present:
                for k in range(FRAMES):
                    known |= there[row, lead, k]
            there[row, lead, frame] = present
            if not present:
                continue
            pair = row * _LEADS + lead
            if not known:
                state[pair, 0] = state[pair, 1] = 0.0
                count[pair] = 0
            last = y[r, lead, first]
            for i in range(FRAME):
                if not np.isnan(y[r, lead, i]):
                    last = y[r, lead, i]
                whole[i] = last
            z0, z1, at = state[pair, 0], state[pair, 1], count[pair] % FRAMES
            for i in range(N):
                x = 0.25 * ((whole[STEP * i] + whole[STEP * i + 1]) + (whole[STEP * i + 2] + whole[STEP * i + 3]))
                filtered = b0 * x + z0
                z0 = b1 * x - a1 * filtered + z1
                z1 = b2 * x - a2 * filtered
                signal[pair, at, i] = filtered
            state[pair, 0], state[pair, 1] = z0, z1
            count[pair] += 1


@kernel("void(float32[:, ::1], int64, int64, float64[::1])")
def _recent(signal: NDArray[np.float32], count: int, held: int, x: NDArray[np.float64]) -> None:
    """Write into ``x`` the last 4 s of a lead, of which it has ``held`` frames; what is missing at the start is mirrored."""
    missing = LENGTH - N * held
    for k in range(held):
        frame = (count - held + k) % FRAMES
        for i in range(N):
            x[missing + N * k + i] = signal[frame, i]
    for i in range(missing):
        x[i] = x[2 * missing - 1 - i]


@kernel("float64(float64[::1])")
def _weakest(square: NDArray[np.float64]) -> float:
    """Return the log of the power of the last but one of ten parts, in order of their power, over the mean."""
    mean, weakest, second = 0.0, np.inf, np.inf
    for k in range(_POWERS):
        part = _sum(square, k * (LENGTH // _POWERS), (k + 1) * (LENGTH // _POWERS)) / (LENGTH // _POWERS)
        mean += part / _POWERS
        second = min(second, max(weakest, part))
        weakest = min(weakest, part)
    return log(max(second, TINY * TINY) / max(mean, TINY * TINY))


@kernel("void(int64[::1], float32[:, :, ::1], int64[::1], boolean[:, :, ::1], float64[:, :, ::1], float64[:, ::1])")
def measure(
    rows: NDArray[np.int64],
    signal: NDArray[np.float32],
    count: NDArray[np.int64],
    there: NDArray[np.bool_],
    features: NDArray[np.float64],
    swing: NDArray[np.float64],
) -> None:
    """Write the features ``(R, SLOTS, F)`` and amplitudes ``(R, SLOTS)`` of up to three leads of each row; NaN without a lead."""
    x, size, slope, square, fourth, spread = (
        np.empty(LENGTH), np.empty(LENGTH), np.empty(LENGTH), np.empty(LENGTH), np.empty(LENGTH), np.empty(LENGTH)
    )  # fmt: skip
    bucket, starts = np.empty(LENGTH, np.int32), np.empty(_BUCKETS + 1, np.int32)
    ranked, ranked_slopes = np.empty(3), np.empty(3)
    pairs, parts = np.empty((2, _PAIRS, _SECOND)), np.empty((2, _SECOND))
    power, running, even, odd = np.empty(_BINS), np.empty(_BINS), np.empty(len(_EVEN)), np.empty(len(_ODD))
    cell, seen, mark = np.empty(LENGTH, np.int64), np.zeros(GRID * GRID, np.int64), 0
    for r in range(len(rows)):
        row, slot = rows[r], 0
        for k in range(_SLOTS):
            swing[r, k] = np.nan
            for f in range(_FEATURES):
                features[r, k, f] = np.nan
        for place in range(_LEADS):
            lead = _ORDER[place]
            held = 0
            for k in range(FRAMES):
                held += there[row, lead, k]
            if held < _ENOUGH:
                continue
            _recent(signal[row * _LEADS + lead], count[row * _LEADS + lead], held, x)
            low, high = x[0], x[0]
            for i in range(LENGTH):
                low, high = min(low, x[i]), max(high, x[i])
                size[i] = abs(x[i])
            steepest = 0.0
            for i in range(LENGTH - 1):
                slope[i] = abs(x[i + 1] - x[i])
                steepest = max(steepest, slope[i])
                square[i] = slope[i] * slope[i]
                fourth[i] = square[i] * square[i]
            out = features[r, slot]
            swing[r, slot] = high - low
            sizes, path = _sum(size, 0, LENGTH), _sum(slope, 0, LENGTH - 1)
            out[0] = _leakage(x, size, sizes, path)
            _ranked(x=size, length=LENGTH, largest=max(high, -low), first=LENGTH // 2, second=4 * LENGTH // 5,
                    third=LENGTH + -N // 2, bucket=bucket, starts=starts, spread=spread, out=ranked)  # fmt: skip
            top = max(ranked[2], TINY)
            out[1], out[2] = ranked[0] / top, ranked[1] / top
            out[3] = min(high, -low) / max(high, -low, top)
            _ranked(slope, LENGTH - 1, steepest, (LENGTH - 1) // 2, 9 * (LENGTH - 1) // 10, LENGTH - 4, bucket, starts, spread,
                    ranked_slopes)  # fmt: skip
            steep = max(ranked_slopes[2], TINY)
            out[4], out[5] = ranked_slopes[0] / steep, ranked_slopes[1] / steep
            level = max(_sum(square, 0, LENGTH - 1) / (LENGTH - 1), TINY * TINY)
            out[6] = log(max(_sum(fourth, 0, LENGTH - 1) / (LENGTH - 1), TINY * TINY * TINY * TINY) / (level * level))
            calmest = np.inf
            for k in range(_PARTS):
                calmest = min(calmest, _sum(square, k * _PART, (k + 1) * _PART) / _PART)
            out[7] = log(max(calmest, TINY * TINY) / level)
            for i in range(LENGTH):
                square[i] = x[i] * x[i]
            out[8] = _weakest(square)
            _power(x, pairs, parts, power)
            _spectrum(power, running, even, odd, out)
            mark += 1
            out[17] = _phase_space(x, low, high, cell, seen, mark)
            out[18] = _crossings(x, top)
            slot += 1
            if slot == _SLOTS:
                break


@kernel(
    "void(float64[:, :, ::1], float64[:, ::1], float64[::1], float64[::1], float64[:, ::1], float64[::1], float64[::1], float64,"
    "float64, float64, float32[::1])"
)
def judge(
    features: NDArray[np.float64],
    swing: NDArray[np.float64],
    mean: NDArray[np.float64],
    spread: NDArray[np.float64],
    hidden: NDArray[np.float64],
    bias: NDArray[np.float64],
    out: NDArray[np.float64],
    offset: float,
    floor_mv: float,
    full_mv: float,
    score: NDArray[np.float32],
) -> None:
    """Write the score ``(R,)`` of features ``(R, SLOTS, F)`` and amplitudes: ``hidden`` has a row of weights for each feature."""
    unit = np.empty(len(bias))
    for r in range(len(features)):
        total = weighed = most = 0.0
        said = False
        for slot in range(_SLOTS):
            if np.isnan(swing[r, slot]):
                continue
            said = True
            for h in range(len(bias)):
                unit[h] = bias[h]
            for f in range(_FEATURES):
                scaled = min(max((features[r, slot, f] - mean[f]) / spread[f], -3.0), 3.0)
                for h in range(len(bias)):
                    unit[h] += hidden[f, h] * scaled
            odds = offset
            for h in range(len(bias)):
                odds += out[h] * tanh(unit[h])
            share = min(max((swing[r, slot] - floor_mv) / (full_mv - floor_mv), 0.0), 1.0)
            most = max(most, share)
            total += share
            weighed += share * odds
        score[r] = most / (1.0 + exp(-weighed / max(total, TINY))) if said else np.nan
