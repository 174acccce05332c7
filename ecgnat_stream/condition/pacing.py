"""Pacing spikes: found and taken out of device samples before anything is filtered.

In: device samples of many leads, side by side. Out: the same without spikes, and where they were. A pacemaker's spike lasts 0.1
to 2 ms and reaches 2 to 700 mV (IEC 60601-2-27); a device delivers it as one to three steep samples between calm ones. A QRS
complex is as steep around its peak as at it, and stays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["CONTEXT", "remove_spikes"]

_AHEAD = 8
"""Samples looked at before a spike."""

_NEAR = 4
_NEAR_COARSE = 2
"""Samples on both sides that must be calm, the means of two neighbours each; fewer, and each alone, at low rates."""

CONTEXT = _AHEAD + 6
"""Samples before the first wanted one that let every spike there be found."""

_CALM = 0.25
"""Largest change of the surroundings, and across the spike, as a part of its height."""

_CALM_COARSE = 0.15
_COARSE_HZ = 200.0
"""The same, of single samples, at rates below: there a whole QRS complex of 40 ms is four to eight samples long."""

_RINGING = 0.06
"""Smallest swing, as a part of the height, of an anti-alias filter that rings up, down and up again before a spike."""

_RINGING_LONG, _RINGING_S = 5, 0.02
"""Longest spike behind ringing, the smaller of samples and s."""

_LEAST_MV = 0.2
"""Lowest spike taken out. One sample of this height is below the smallest QRS complex (0.15 mV) behind the low-pass at 42 Hz."""

_JUMP_MV = 2.0
"""Smallest spike whose beginning alone is taken out, at the end of what is there."""

_FIRST_STEP_MV = 0.08
"""Smallest first step of a spike: three samples may rise by halves."""

_NARROW_S = 0.009
"""Longest spike of any height: half the height of an R wave within a QRS complex of 40 ms is held for longer."""

_LONG = 3
_LONG_S = 0.004
"""Longest large spike at every rate, the larger of samples and s."""

_LARGE_MV = 6.0
"""A spike higher than any R wave may be long at every rate."""


def remove_spikes(x: NDArray[np.float32], fs: float) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Put straight lines in the place of spikes in ``x``, in place.

    Parameters
    ----------
    x
        ``(P, n)`` mV at ``fs``, without gaps. Spikes in the first ``CONTEXT`` and last few samples may stay.
    fs
        Device rate, Hz.

    Returns
    -------
    Row and middle (in samples, may be half) of every spike removed, in the order of row and time.
    """
    longest = max(_RINGING_LONG, int(np.ceil(_LONG_S * fs)))
    size = x.shape[1]
    near = _NEAR_COARSE if fs < _COARSE_HZ else _NEAR
    stop = size - near
    if stop <= _AHEAD:
        return np.zeros(0, np.intp), np.zeros(0)
    step = np.abs(x[:, 1:] - x[:, :-1])
    first = slice(_AHEAD - 1, stop - 1)
    before = np.maximum(step[:, _AHEAD - 2 : stop - 2], step[:, _AHEAD - 3 : stop - 3])
    pair, start = np.nonzero((step[:, first] >= _FIRST_STEP_MV) & (step[:, first] > 2.0 * before))
    start += _AHEAD
    jump = np.abs(x[pair[:, None], np.minimum(start[:, None] + np.arange(longest + 1), size - 1)] - x[pair, start - 1, None])
    returns = jump.min(axis=1, initial=np.inf, where=np.arange(longest + 1) > 0) <= 0.5 * jump.max(axis=1)
    pair, start = pair[returns], start[returns]
    if not len(pair):
        _hold(x, longest + near)
        return np.zeros(0, np.intp), np.zeros(0)
    width = _widths(x, pair, start, fs, longest, near)
    found = width > 0
    pair, start, width = pair[found], start[found], width[found]
    around = np.arange(near)
    left = x[pair[:, None], start[:, None] - 1 - around].mean(axis=1)
    right = x[pair[:, None], (start + width)[:, None] + around].mean(axis=1)
    for offset in range(longest):
        of = offset < width
        share = ((offset + 1) / (width[of] + 1)).astype(np.float32)
        x[pair[of], start[of] + offset] = left[of] + share * (right - left)[of]
    _hold(x, longest + near)
    return pair, start + 0.5 * (width - 1)


def _widths(
    x: NDArray[np.float32], pair: NDArray[np.intp], start: NDArray[np.intp], fs: float, longest: int, near: int
) -> NDArray[np.intp]:
    """Return how many samples the spike that begins at ``start`` is long, 0 where there is none."""
    index = start[:, None] + np.arange(-_AHEAD, longest + near)
    part = np.where(index < x.shape[1], x[pair[:, None], np.minimum(index, x.shape[1] - 1)], np.float32(np.nan))
    width = np.zeros(len(pair), np.intp)
    coarse = fs < _COARSE_HZ
    ahead = part[:, :_AHEAD]
    for length in range(longest, 0, -1):
        inside = part[:, _AHEAD : _AHEAD + length]
        before, after = ahead[:, -_NEAR:], part[:, _AHEAD + length : _AHEAD + length + near]
        if not coarse:
            before, after = _means(before), _means(after)
        height = np.abs(inside - 0.5 * (before[:, -1:] + after[:, :1])).max(axis=1)
        change = np.maximum(np.ptp(before, axis=1), np.ptp(after, axis=1))
        change = np.maximum(change, np.abs(after[:, 0] - before[:, -1]))
        found = (change <= (_CALM_COARSE if coarse else _CALM) * height) & (height >= _LEAST_MV)
        if length > max(1, int(_NARROW_S * fs)):
            large = (height >= _LARGE_MV) & (length <= max(_LONG, _LONG_S * fs))
            rings = _rings(ahead, _RINGING * height) & (length <= min(_RINGING_LONG, _RINGING_S * fs))
            found &= large | rings
        width[found] = length
    return width


def _hold(x: NDArray[np.float32], length: int) -> None:
    """Hold the value before a large jump among the last samples: its end is not there yet, the next frame will see it."""
    last = x[:, -length - 3 :]
    step = np.abs(last[:, 1:] - last[:, :-1])
    jump = (step[:, 2:] >= _JUMP_MV) & (np.maximum(step[:, 1:-1], step[:, :-2]) <= 0.1 * step[:, 2:])
    pair = np.flatnonzero(jump.any(axis=1))
    first = jump[pair].argmax(axis=1) + 3
    value = last[pair, first - 1]
    last[pair] = np.where(np.arange(last.shape[1]) >= first[:, None], value[:, None], last[pair])


def _means(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the means of neighbours, ``(C, n)`` to ``(C, n - 1)``."""
    return 0.5 * (x[:, 1:] + x[:, :-1])


def _rings(x: NDArray[np.float32], least: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Say which of ``(C, n)`` swing by ``least`` or more three times, up and down in turn, within two samples each."""
    swing = x[:, 2:] - x[:, :-2]
    size = np.abs(swing)
    turn = (swing[:, 2:] * swing[:, :-2] < 0) & (np.minimum(size[:, 2:], size[:, :-2]) >= least[:, None])
    rings: NDArray[np.bool_] = (turn[:, 2:] & turn[:, :-2]).any(axis=1)
    return rings
