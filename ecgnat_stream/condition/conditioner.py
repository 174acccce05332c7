"""Conditioning stage: device samples in, the 200 Hz signal of every other stage out.

In: ``(R, 12, n)`` device-rate samples of the rows that have a frame ready. Out: ``(R, 12, FRAME)`` at ``signal.FS``, mV. Per
frame: short dropouts are bridged, pacing spikes taken out, one polyphase FIR resamples and limits the band, a recursive
high-pass and mains notch follow, missing limb leads are derived. What was missing stays NaN. A row's result depends on its own
samples only. Nothing is dropped here; a late row is the ring's and the scheduler's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, iirnotch, sosfilt, tf2sos

from ecgnat_stream.compiled import kernels_wanted
from ecgnat_stream.condition.pacing import CONTEXT, remove_spikes
from ecgnat_stream.settings import Settings, Within
from ecgnat_stream.signal import FRAME, FS, LEADS, Conditioned

__all__ = ["ConditionConfig", "Conditioner", "Spikes", "condition_record", "condition_records"]

_LEADS = len(LEADS)
_LIMB = 6
_REACH_S = 0.055
"""Half length of the resampling kernel, s: the look-ahead, hence nearly all of the delay."""

_KAISER = 3.4
"""Kaiser window parameter for 40 dB (Kaiser 1974: 0.5842 (A - 21)^0.4 + 0.07886 (A - 21)); the transition is 20 Hz wide."""

_PHASES = 256
"""Most kernel phases kept per rate. Other rates round the phase to 1/256 sample, at most 20 us; positions never round."""

_BRIDGE_S = 0.02
"""Dropouts shorter than this are interpolated for the filter (and NaN in the output); longer ones restart it."""

_SAME_S = 0.01
"""Spikes of several leads within this time of each other are one."""

_RANGE_MV = 10.0
"""Input beyond baseline +- this is clipped: twice the +-5 mV input range that IEC 60601-2-27 asks for."""

_JUMP_MV = 2.0
"""A frame that lies wholly on one side of zero by more than this is a baseline jump: the high-pass restarts."""

_FROM_I_II = np.array([[1, 0], [0, 1], [-1, 1], [-0.5, -0.5], [1, -0.5], [-0.5, 1]], np.float32)
"""The six limb leads from I and II (Einthoven's law, Goldberger's augmented leads)."""


class ConditionConfig(Settings, frozen=True, kw_only=True):
    """How the signal is filtered.

    Parameters
    ----------
    low_hz
        Cut-off of the second-order high-pass; 0.5 Hz keeps the 0.67 Hz of the monitoring band (IEC 60601-2-27).
    high_hz
        Half-amplitude (-6 dB) frequency of the low-pass; its stop band begins 10 Hz above.
    mains_hz
        Mains frequency to remove: 50, 60, or 0 for none. The low-pass alone already removes 60 Hz.
    """

    section: ClassVar[str] = "condition"

    low_hz: Annotated[
        float,
        Within(0.05, 1, "below it the line wanders for seconds after every movement, above it slow wide waves are cut away"),
    ] = 0.5
    high_hz: Annotated[float, Within(25, 60, "below it QRS complexes are cut away, above it the mains and muscles come in")] = (
        42.0
    )
    mains_hz: Literal[0, 50, 60] = 50


@dataclass(frozen=True, slots=True)
class Spikes:
    """Pacing spikes that one call took out, in the order of row and time; a spike is in the frame that it lies in, once.

    Parameters
    ----------
    row
        Bed.
    at
        Time in samples at ``signal.FS``, absolute, exact to half a device sample.
    leads
        Number of leads that showed it.
    """

    row: NDArray[np.intp]
    at: NDArray[np.float64]
    leads: NDArray[np.int64]


_NO_SPIKES = Spikes(np.zeros(0, np.intp), np.zeros(0), np.zeros(0, np.int64))


class Conditioner:
    """Streaming conditioner for all rows of one device rate.

    Output sample ``n`` is the ECG at stream time ``n / FS``: the FIR is symmetric and looks ``delay_s`` ahead, the recursive
    part shifts the QRS band by about a millisecond.

    Parameters
    ----------
    fs
        Device rate in Hz, 100 to 1000, any real number.
    rows
        Number of rows (beds).
    """

    def __init__(self, fs: float, rows: int, config: ConditionConfig | None = None) -> None:
        if not 100.0 <= fs <= 1000.0:
            raise ValueError(f"a sampling rate from 100 to 1000 Hz is needed, not {fs=}")
        self.fs = fs
        self.config = config or ConditionConfig()
        self._per_frame = Fraction(fs).limit_denominator(10**6) * FRAME / FS
        self._phases = min(self._per_frame.denominator, _PHASES)
        self._back = int(np.ceil(_REACH_S * fs)) + CONTEXT
        self._length = self._back + int(np.ceil(((FRAME - 1) / FS + _REACH_S) * fs)) + 1
        self._kernels: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        self._sos = _recursive_filter(self.config)
        self._state = np.zeros((len(self._sos), 0, 2))
        self._offset, self._baseline = np.zeros(0, np.float32), np.zeros(0, np.float32)
        self._started = np.zeros(0, bool)
        self._seen = np.zeros((0, _LEADS), bool)
        self.grow(rows)
        self._compiled = _Compiled(self._phases, self._length) if kernels_wanted() else None
        self.spikes = _NO_SPIKES
        """What the last call of :meth:`process` took out."""

    @property
    def delay_s(self) -> float:
        """Longest time from an output sample's own time to the last device sample that it needs, s."""
        return _REACH_S + 1.0 / self.fs

    def grow(self, rows: int) -> None:
        """Make room for more rows; what there is stays."""
        more = rows - len(self._seen)
        if more < 1:
            return
        self._state = np.pad(self._state, ((0, 0), (0, more * _LEADS), (0, 0)))
        self._offset, self._baseline, self._started = (
            np.pad(state, (0, more * _LEADS)) for state in (self._offset, self._baseline, self._started)
        )
        self._seen = np.pad(self._seen, ((0, more), (0, 0)))

    def reset(self, rows: NDArray[np.intp]) -> None:
        """Forget everything about ``rows``: a new stream begins there at frame 0."""
        self._started.reshape(-1, _LEADS)[rows] = False
        self._seen[rows] = False

    def needed(self, frames: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
        """Say which device samples frames consume: start indices ``(R,)`` (negative at first), and their common length."""
        whole, _ = self._positions(frames)
        return whole - self._back, self._length

    def process(self, rows: NDArray[np.intp], frames: NDArray[np.int64], samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Condition one frame of each of ``rows``.

        Parameters
        ----------
        rows
            ``(R,)`` different rows.
        frames
            ``(R,)`` frame numbers; every row counts up by one from call to call (or was reset).
        samples
            ``(R, 12, n)`` mV, as :meth:`needed` says; NaN for what is missing.

        Returns
        -------
        ``(R, 12, FRAME)`` float32 mV at ``signal.FS``; NaN where missing, and in the first frame after a restart.
        """
        if self._compiled is not None:
            return self._process_compiled(self._compiled, rows, frames, samples)
        missing = np.isnan(samples)
        present = ~missing.all(axis=2)
        self._seen[rows] |= present
        row, lead = np.nonzero(present)
        pair = rows[row] * _LEADS + lead
        x = samples[row, lead]
        gap, stop = self._bridge(x, missing[row, lead], frames[row]) if missing[row, lead].any() else (None, None)
        self.spikes = self._take_spikes(x, row, rows, frames)
        x = self._limit(x, pair)
        y = self._filter(self._resample(x, frames[row]), pair)
        if gap is not None and stop is not None:
            y[gap] = np.nan
            self._started[pair[stop]] = False
        absent = rows[:, None] * _LEADS + np.arange(_LEADS)
        self._started[absent[~present]] = False
        out = np.full((len(rows), _LEADS, FRAME), np.nan, np.float32)
        out[row, lead] = y
        return self._derive_limb_leads(rows, out)

    def _process_compiled(
        self, compiled: _Compiled, rows: NDArray[np.intp], frames: NDArray[np.int64], samples: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Do the same by :mod:`ecgnat_stream.condition.kernels`."""
        whole, phase = self._positions(frames)
        for value in (0,) if self._phases == 1 else np.unique(phase).tolist():
            if not compiled.has[value]:
                compiled.weights[value], compiled.own[value] = self._weigh(value)
                compiled.has[value] = True
        out = np.empty((len(rows), _LEADS, FRAME), np.float32)
        compiled.make_room(len(rows))
        number = compiled.kernel(
            np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(frames, np.int64), whole, phase,
            np.ascontiguousarray(samples, np.float32), compiled.weights, compiled.own, self._sos, _all_limb_leads(),
            self.fs, self._back, self._state, self._offset, self._baseline, self._started, self._seen, out,
            compiled.spike_index, compiled.spike_at,
        )  # fmt: skip
        self.spikes = _NO_SPIKES
        if number:
            self.spikes = _together(rows, compiled.spike_index[:number], compiled.spike_at[:number])
        return out

    def _positions(self, frames: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Split the device position of each frame's first sample into a whole index and a phase in ``1 / self._phases``."""
        step = self._per_frame
        if step.denominator == 1:
            return frames * step.numerator, np.zeros(len(frames), np.int64)
        numerator = frames * step.numerator
        whole = numerator // step.denominator
        phase = (numerator % step.denominator) * self._phases // step.denominator
        return whole, phase

    def _kernel(self, phase: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return ``(n, FRAME)`` weights, and ones where a device sample is an output sample's own, for one phase."""
        if phase not in self._kernels:
            self._kernels[phase] = self._weigh(phase)
        return self._kernels[phase]

    def _weigh(self, phase: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        at = (np.arange(self._length) - self._back - phase / self._phases) / self.fs
        apart = at[:, None] - np.arange(FRAME) / FS
        inside = np.abs(apart) <= _REACH_S
        window = np.i0(_KAISER * np.sqrt(np.clip(1.0 - (apart / _REACH_S) ** 2, 0.0, 1.0)))
        weights = np.where(inside, np.sinc(2.0 * self.config.high_hz * apart) * window, 0.0)
        weights /= weights.sum(axis=0)
        own = np.abs(apart) <= max(0.5 / self.fs, 0.5 / FS) + 1e-9
        return weights.astype(np.float32), own.astype(np.float32)

    def _resample(self, x: NDArray[np.float32], frames: NDArray[np.int64]) -> NDArray[np.float32]:
        """Resample ``(P, n)`` to ``(P, FRAME)``. One product per pair, so that no pair's rounding depends on its neighbours."""
        return self._apply(x, frames, 0)

    def _apply(self, x: NDArray[np.float32], frames: NDArray[np.int64], which: int) -> NDArray[np.float32]:
        _, phase = self._positions(frames)
        out = np.empty((len(x), FRAME), np.float32)
        if self._phases == 1:
            np.matmul(x[:, None, :], self._kernel(0)[which], out=out[:, None])
            return out
        for value in np.unique(phase):
            of = phase == value
            out[of] = np.matmul(x[of][:, None, :], self._kernel(int(value))[which])[:, 0]
        return out

    def _bridge(
        self, x: NDArray[np.float32], missing: NDArray[np.bool_], frames: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Fill what is missing in ``x`` (in place) by straight lines, at the ends by the nearest value.

        Returns
        -------
        ``(P, FRAME)`` what has to be NaN in the output, and ``(P,)`` the pairs that a long gap has stopped.
        """
        gap = np.zeros((len(x), FRAME), bool)
        stop = np.zeros(len(x), bool)
        some = np.flatnonzero(missing.any(axis=1))
        bad = missing[some]
        n = self._length
        index = np.arange(n)
        before = np.maximum.accumulate(np.where(bad, -1, index), axis=1)
        after = np.minimum.accumulate(np.where(bad, n, index)[:, ::-1], axis=1)[:, ::-1]
        long = bad & (after - before - 1 >= _BRIDGE_S * self.fs)
        part = x[some]
        left = np.where(before < 0, after, before)
        right = np.where(after >= n, before, after)
        value_left = np.take_along_axis(part, left, axis=1)
        value_right = np.take_along_axis(part, right, axis=1)
        share = np.where(bad & (right > left), (index - left) / np.maximum(right - left, 1), 0.0)
        x[some] = np.where(bad, value_left + share * (value_right - value_left), part)
        hole = self._apply(long.astype(np.float32), frames[some], 1) > 0
        gap[some] = (self._apply(bad.astype(np.float32), frames[some], 1) > 0) | np.logical_or.accumulate(hole, axis=1)
        stop[some] = hole.any(axis=1)
        return gap, stop

    def _take_spikes(
        self, x: NDArray[np.float32], row: NDArray[np.intp], rows: NDArray[np.intp], frames: NDArray[np.int64]
    ) -> Spikes:
        """Take pacing spikes out of ``x`` (in place), and say which of them lie in the frames' own time."""
        pair, at = remove_spikes(x, self.fs)
        if not len(pair):
            return _NO_SPIKES
        start, _ = self._positions(frames)
        place = (start[row[pair]] - self._back + at) * (FS / self.fs)
        own = (place >= frames[row[pair]] * FRAME) & (place < (frames[row[pair]] + 1) * FRAME)
        return _together(rows, row[pair][own], place[own])

    def _limit(self, x: NDArray[np.float32], pair: NDArray[np.intp]) -> NDArray[np.float32]:
        """Clip ``(P, n)`` to the input range about the baseline, so that a spike or a rail does not charge the filter."""
        fresh = np.flatnonzero(~self._started[pair])
        if fresh.size:
            self._baseline[pair[fresh]] = np.median(x[fresh], axis=1)
        centre = self._baseline[pair][:, None]
        limited: NDArray[np.float32] = np.minimum(np.maximum(x, centre - _RANGE_MV), centre + _RANGE_MV)
        return limited

    def _filter(self, v: NDArray[np.float32], pair: NDArray[np.intp]) -> NDArray[np.float32]:
        """Apply the recursive part to ``(P, FRAME)``; a fresh pair begins at rest on its median, and its first frame is NaN."""
        if not len(pair):
            return v
        fresh = np.flatnonzero(~self._started[pair])
        if fresh.size:
            self._offset[pair[fresh]] = np.median(v[fresh], axis=1)
            self._state[:, pair[fresh]] = 0.0
        centred = v - self._offset[pair][:, None]
        filtered, self._state[:, pair] = sosfilt(self._sos, centred, zi=self._state[:, pair])
        y: NDArray[np.float32] = filtered.astype(np.float32)
        self._baseline[pair] = v[:, -1] - y[:, -1]
        self._started[pair] = (y.min(axis=1) < _JUMP_MV) & (y.max(axis=1) > -_JUMP_MV)
        y[fresh] = np.nan
        return y

    def _derive_limb_leads(self, rows: NDArray[np.intp], y: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fill in the limb leads that the device does not deliver, where it delivers two of the six."""
        seen = self._seen[rows, :_LIMB]
        count = seen.sum(axis=1)
        to_do = np.flatnonzero((count >= 2) & (count < _LIMB))
        if not to_do.size:
            return y
        for pattern in np.unique(seen[to_do], axis=0):
            of = to_do[(seen[to_do] == pattern).all(axis=1)]
            a, b = np.flatnonzero(pattern)[:2]
            mix = _limb_leads_from(int(a), int(b))
            for lead in np.flatnonzero(~pattern):
                y[of, lead] = mix[lead, 0] * y[of, a] + mix[lead, 1] * y[of, b]
        return y


class _Compiled:
    """The compiled kernel, and the memory that it wants: the weights of all phases, and room for spikes."""

    def __init__(self, phases: int, length: int) -> None:
        from ecgnat_stream.condition import kernels

        self.kernel: Any = kernels.condition
        self.has = np.zeros(phases, bool)
        self.weights = np.empty((phases, length, FRAME), np.float32)
        self.own = np.empty((phases, length, FRAME), bool)
        self._length = length
        self.spike_index, self.spike_at = np.empty(0, np.int64), np.empty(0)

    def make_room(self, rows: int) -> None:
        """Have room for as many spikes as there can be; memory that is never touched is never taken."""
        most = rows * _LEADS * self._length
        if most > len(self.spike_index):
            self.spike_index, self.spike_at = np.empty(most, np.int64), np.empty(most)


def _together(rows: NDArray[np.intp], index: NDArray[np.int64], place: NDArray[np.float64]) -> Spikes:
    """Take spikes of several leads for one where they are close; ``index`` is that in ``rows``."""
    order = np.lexsort((place, index))
    index, place = index[order], place[order]
    apart = np.diff(place) > _SAME_S * FS
    new = np.concatenate([[True], apart | (np.diff(index) != 0)])[: len(index)]
    first = np.flatnonzero(new)
    return Spikes(rows[index[first]], place[first], np.diff(np.append(first, len(index))))


@cache
def _all_limb_leads() -> NDArray[np.float32]:
    """Return ``(6, 6, 6, 2)`` for each two limb leads the weights that make all six of them."""
    weights = np.zeros((_LIMB, _LIMB, _LIMB, 2), np.float32)
    for a in range(_LIMB):
        for b in range(a + 1, _LIMB):
            weights[a, b] = _limb_leads_from(a, b)
    return weights


@cache
def _limb_leads_from(a: int, b: int) -> NDArray[np.float32]:
    """Return the ``(6, 2)`` weights that make the six limb leads of leads ``a`` and ``b``."""
    to_i_ii = np.linalg.inv(_FROM_I_II[[a, b]].astype(np.float64))
    return (_FROM_I_II @ to_i_ii).astype(np.float32)


def condition_record(samples: NDArray[np.float32], fs: float, config: ConditionConfig | None = None) -> Conditioned:
    """Condition a whole record ``(12, T)`` at ``fs`` into ``(12, T')`` at ``signal.FS``, exactly as the stream does."""
    return Conditioned(condition_records(samples[None], fs, config)[0], FS)


def condition_records(samples: NDArray[np.float32], fs: float, config: ConditionConfig | None = None) -> NDArray[np.float32]:
    """Condition records of one length and rate side by side: ``(B, 12, T)`` to ``(B, 12, T')``, ``T' = floor(T * FS / fs)``.

    Runs the streaming :class:`Conditioner` frame by frame, hence equals it by construction. Before and behind the record
    there is nothing (NaN), as in a stream that begins and ends there. Pad records of unequal lengths with NaN.
    """
    count, _, length = samples.shape
    conditioner = Conditioner(fs, count, config)
    rows = np.arange(count)
    stop = int(length * FS / fs)
    frames = -(-stop // FRAME)
    out = np.empty((count, _LEADS, frames * FRAME), np.float32)
    for k in range(frames):
        frame = np.full(count, k, np.int64)
        starts, n = conditioner.needed(frame)
        start = int(starts[0])
        x = np.full((count, _LEADS, n), np.nan, np.float32)
        low, high = max(start, 0), min(start + n, length)
        x[:, :, low - start : high - start] = samples[:, :, low:high]
        out[:, :, k * FRAME : (k + 1) * FRAME] = conditioner.process(rows, frame, x)
    return out[:, :, :stop]


def _recursive_filter(config: ConditionConfig) -> NDArray[np.float64]:
    """Return the second-order sections of the high-pass and the notch, at ``signal.FS``."""
    sections = butter(2, config.low_hz, "highpass", fs=FS, output="sos")
    if config.mains_hz:
        width_hz = 3.0  # rings for 0.1 s, and shifts the QRS band by less than 0.5 ms
        sections = np.vstack([sections, tf2sos(*iirnotch(config.mains_hz, config.mains_hz / width_hz, fs=FS))])
    return np.ascontiguousarray(sections, dtype=np.float64)
