"""The conditioning stage as one compiled loop over leads: the plain code of ``conditioner`` and ``pacing``, lead by lead.

In: the device samples of a call, and the state of each lead, which follows. Out: conditioned frames, and where spikes were. What
each step means stands in the plain code.

Shapes: R row, L lead (12), n device samples of a call, C phase.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ecgnat_stream.compiled import kernel
from ecgnat_stream.condition import conditioner, pacing
from ecgnat_stream.signal import FRAME, FS, LEADS

_L, _LIMB = len(LEADS), conditioner._LIMB
_RANGE, _JUMP = np.float32(conditioner._RANGE_MV), np.float32(conditioner._JUMP_MV)
_BRIDGE_S = conditioner._BRIDGE_S
_NAN, _HALF, _TWO = np.float32(np.nan), np.float32(0.5), np.float32(2.0)

_AHEAD, _NEAR, _NEAR_COARSE, _COARSE_HZ = pacing._AHEAD, pacing._NEAR, pacing._NEAR_COARSE, pacing._COARSE_HZ
_CALM, _CALM_COARSE, _RINGING = np.float32(pacing._CALM), np.float32(pacing._CALM_COARSE), np.float32(pacing._RINGING)
_LEAST, _FIRST_STEP, _HELD = np.float32(pacing._LEAST_MV), np.float32(pacing._FIRST_STEP_MV), np.float32(pacing._JUMP_MV)
_LARGE, _LONG, _LONG_S, _NARROW_S = np.float32(pacing._LARGE_MV), pacing._LONG, pacing._LONG_S, pacing._NARROW_S
_RINGING_LONG, _RINGING_S, _STILL = pacing._RINGING_LONG, pacing._RINGING_S, np.float32(0.1)


@kernel("float32(float32[::1])")
def _median(x: Any) -> Any:
    ranked = np.sort(x)
    middle = len(x) // 2
    return ranked[middle] if len(x) % 2 else (ranked[middle - 1] + ranked[middle]) / _TWO


@kernel("boolean(float32[::1], int64, float32)")
def _rings(x: Any, start: int, least: Any) -> bool:
    """Say whether the samples before a spike swing up and down in turn."""
    swing, turn = np.empty(_AHEAD - 2, np.float32), np.empty(_AHEAD - 4, np.bool_)
    for i in range(_AHEAD - 2):
        swing[i] = x[start - _AHEAD + i + 2] - x[start - _AHEAD + i]
    for i in range(_AHEAD - 4):
        turn[i] = swing[i + 2] * swing[i] < 0 and min(abs(swing[i + 2]), abs(swing[i])) >= least
    rings = False
    for i in range(_AHEAD - 6):
        rings |= turn[i + 2] and turn[i]
    return rings


@kernel("int64(float32[::1], int64, float64, int64, int64)")
def _width(x: Any, start: int, fs: float, longest: int, near: int) -> int:
    """Return how many samples the spike that begins at ``start`` is long, 0 where there is none."""
    coarse = fs < _COARSE_HZ
    last = x[start - 1] if coarse else _HALF * (x[start - 1] + x[start - 2])
    low = high = last
    for i in range(1, _NEAR if coarse else _NEAR - 1):
        value = x[start - 1 - i] if coarse else _HALF * (x[start - 1 - i] + x[start - 2 - i])
        low, high = min(low, value), max(high, value)
    before = high - low
    for length in range(1, longest + 1):
        end = start + length
        if end + near > len(x):
            break
        first = x[end] if coarse else _HALF * (x[end + 1] + x[end])
        low = high = first
        for i in range(1, near if coarse else near - 1):
            value = x[end + i] if coarse else _HALF * (x[end + i + 1] + x[end + i])
            low, high = min(low, value), max(high, value)
        change = max(before, high - low, abs(first - last))
        middle, height = _HALF * (last + first), np.float32(0)
        for i in range(length):
            height = max(height, abs(x[start + i] - middle))
        if not (change <= (_CALM_COARSE if coarse else _CALM) * height and height >= _LEAST):
            continue
        if length > max(1, int(_NARROW_S * fs)):
            large = height >= _LARGE and length <= max(np.float64(_LONG), _LONG_S * fs)
            if not large:
                short = length <= min(np.float64(_RINGING_LONG), _RINGING_S * fs)
                if not (short and _rings(x, start, _RINGING * height)):
                    continue
        return length
    return 0


@kernel("int64(float32[::1], float64, int64[::1], int64[::1], float32[:, ::1])")
def _take_spikes(x: Any, fs: float, starts: Any, widths: Any, ends: Any) -> int:
    """Put straight lines in the place of spikes, as :func:`pacing.remove_spikes`; return how many there were."""
    size = len(x)
    longest = max(_RINGING_LONG, math.ceil(_LONG_S * fs))
    near = _NEAR_COARSE if fs < _COARSE_HZ else _NEAR
    stop = size - near
    if stop <= _AHEAD:
        return 0
    found = 0
    older, old = abs(x[_AHEAD - 2] - x[_AHEAD - 3]), abs(x[_AHEAD - 1] - x[_AHEAD - 2])
    for start in range(_AHEAD, stop):
        step = abs(x[start] - x[start - 1])
        before = max(old, older)
        older, old = old, step
        if not (step >= _FIRST_STEP and step > _TWO * before):
            continue
        least, most = np.float32(np.inf), np.float32(0)
        for i in range(longest + 1):
            jump = abs(x[min(start + i, size - 1)] - x[start - 1])
            most = max(most, jump)
            if i:
                least = min(least, jump)
        if not least <= _HALF * most:
            continue
        width = _width(x, start, fs, longest, near)
        if not width:
            continue
        left, right = x[start - 1], x[start + width]
        for i in range(1, near):
            left += x[start - 1 - i]
            right += x[start + width + i]
        starts[found], widths[found] = start, width
        ends[found, 0], ends[found, 1] = left / np.float32(near), right / np.float32(near)
        found += 1
    for offset in range(longest if found else 0):
        for i in range(found):
            if offset < widths[i]:
                share = np.float32((offset + 1) / (widths[i] + 1))
                x[starts[i] + offset] = ends[i, 0] + share * (ends[i, 1] - ends[i, 0])
    for at in range(max(size - longest - near, 3), size):
        step = abs(x[at] - x[at - 1])
        before = max(abs(x[at - 1] - x[at - 2]), abs(x[at - 2] - x[at - 3]))
        if step >= _HELD and before <= _STILL * step:
            x[at:] = x[at - 1]
            break
    return found


@kernel("boolean(float32[::1], float64, boolean[:, ::1], boolean[::1])")
def _bridge(x: Any, fs: float, own: Any, gap: Any) -> bool:
    """Fill what is missing; say what has to be missing in the output, and whether a long gap has stopped the lead."""
    n = len(x)
    gap[:] = False
    first_hole = FRAME
    after = -1
    for start in range(n):
        if start < after or not math.isnan(x[start]):
            continue
        after = start
        while after < n and math.isnan(x[after]):
            after += 1
        before = start - 1
        left, right = (after if before < 0 else before), (before if after >= n else after)
        value, rise = x[left], x[right] - x[left]
        long = after - before - 1 >= _BRIDGE_S * fs
        for t in range(start, after):
            share = (t - left) / max(right - left, 1) if right > left else 0.0
            x[t] = value + share * rise
            for i in range(FRAME):
                if own[t, i]:
                    gap[i] = True
                    if long:
                        first_hole = min(first_hole, i)
    gap[first_hole:] = True
    return first_hole < FRAME


@kernel(
    "int64(int64[::1], int64[::1], int64[::1], int64[::1], float32[:, :, ::1], float32[:, :, ::1], boolean[:, :, ::1],"
    " float64[:, ::1], float32[:, :, :, ::1], float64, int64, float64[:, :, ::1], float32[::1], float32[::1], boolean[::1],"
    " boolean[:, ::1], float32[:, :, ::1], int64[::1], float64[::1])"
)
def condition(
    rows: Any,
    frames: Any,
    whole: Any,
    phase: Any,
    samples: Any,
    weights: Any,
    own: Any,
    sos: Any,
    limb: Any,
    fs: float,
    back: int,
    state: Any,
    offset: Any,
    baseline: Any,
    started: Any,
    seen: Any,
    out: Any,
    spike_index: Any,
    spike_at: Any,
) -> int:
    """Condition one frame of each row; return the number of spikes.

    Parameters
    ----------
    rows, frames, whole, phase
        ``(R,)`` row, frame, and the device position of the frame's first sample.
    samples
        ``(R, L, n)``.
    weights, own
        ``(C, n, FRAME)``.
    sos, limb
        ``(sections, 6)``; ``(6, 6, 6, 2)`` the weights that make all limb leads of two.
    fs, back
        Device rate, and the device samples before the frame.
    state, offset, baseline, started, seen
        The state of the conditioner; written.
    out
        ``(R, L, FRAME)``; written.
    spike_index, spike_at
        Of each spike of the frames' own time the index in ``rows`` and the time in samples; written.
    """
    n = samples.shape[2]
    x, v, filtered = np.empty(n, np.float32), np.empty(FRAME, np.float32), np.empty(FRAME)
    gap = np.zeros(FRAME, np.bool_)
    starts, widths, ends = np.empty(n, np.int64), np.empty(n, np.int64), np.empty((n, 2), np.float32)
    spikes = 0
    for r in range(len(rows)):
        row = rows[r]
        for lead in range(_L):
            pair = row * _L + lead
            y = out[r, lead]
            missing = 0
            for t in range(n):
                x[t] = samples[r, lead, t]
                missing += math.isnan(x[t])
            if missing == n:
                started[pair] = False
                y[:] = _NAN
                continue
            seen[row, lead] = True
            stop = _bridge(x, fs, own[phase[r]], gap) if missing else False
            found = _take_spikes(x, fs, starts, widths, ends)
            for i in range(found):
                at = (whole[r] - back + (starts[i] + 0.5 * (widths[i] - 1))) * (FS / fs)
                if frames[r] * FRAME <= at < (frames[r] + 1) * FRAME:
                    spike_index[spikes], spike_at[spikes] = r, at
                    spikes += 1
            fresh = not started[pair]
            if fresh:
                baseline[pair] = _median(x)
            low, high = baseline[pair] - _RANGE, baseline[pair] + _RANGE
            v[:] = np.float32(0)
            by = weights[phase[r]]
            for t in range(n):
                value = min(max(x[t], low), high)
                for i in range(FRAME):
                    v[i] += value * by[t, i]
            if fresh:
                offset[pair] = _median(v)
                state[:, pair] = 0.0
            for i in range(FRAME):
                filtered[i] = np.float64(v[i] - offset[pair])
            for s in range(len(sos)):
                b0, b1, b2, a1, a2 = sos[s, 0], sos[s, 1], sos[s, 2], sos[s, 4], sos[s, 5]
                z0, z1 = state[s, pair, 0], state[s, pair, 1]
                for i in range(FRAME):
                    value_in = filtered[i]
                    value_out = b0 * value_in + z0
                    z0 = b1 * value_in - a1 * value_out + z1
                    z1 = b2 * value_in - a2 * value_out
                    filtered[i] = value_out
                state[s, pair, 0], state[s, pair, 1] = z0, z1
            least, most = np.float32(np.inf), np.float32(-np.inf)
            for i in range(FRAME):
                y[i] = filtered[i]
                least, most = min(least, y[i]), max(most, y[i])
            baseline[pair] = v[FRAME - 1] - y[FRAME - 1]
            started[pair] = least < _JUMP and most > -_JUMP and not stop
            if fresh:
                y[:] = _NAN
            elif missing:
                for i in range(FRAME):
                    if gap[i]:
                        y[i] = _NAN
        count, a, b = 0, 0, 0
        for lead in range(_LIMB):
            if seen[row, lead]:
                a, b = (lead if count == 0 else a), (lead if count == 1 else b)
                count += 1
        if 2 <= count < _LIMB:
            for lead in range(_LIMB):
                if not seen[row, lead]:
                    for i in range(FRAME):
                        out[r, lead, i] = limb[a, b, lead, 0] * out[r, a, i] + limb[a, b, lead, 1] * out[r, b, i]
    return spikes
