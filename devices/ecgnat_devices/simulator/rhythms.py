"""Rhythms: when the chambers beat, and the waves of atria and ventricles that never come to rest.

A rhythm is an iterator of :class:`Happening` in time order, and for fibrillation and flutter a field: a closed form of time, so
that any stretch of it can be computed alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecgnat_devices.simulator.script import Segment
from ecgnat_devices.simulator.waves import Waves, beat, p_wave, paced_beat, ventricular

__all__ = ["Field", "Happening", "RhythmSource", "begin"]

Field = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Times in s to the dipole ``(3, T)`` in mV."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Waves around ``at`` (s), and the label of the beat (AAMI EC57), "" for a P wave alone."""

    at: float
    waves: Waves
    label: str = ""


@dataclass(frozen=True, slots=True)
class RhythmSource:
    """What a segment of the script becomes."""

    happenings: Iterator[Happening]
    field: Field | None = None


_RATES = {
    "sinus": 72, "bradycardia": 42, "tachycardia": 128, "af": 95, "svt": 185, "pvc": 76, "vt": 175, "paced": 70,
    "avb1": 68, "avb2": 75, "avb3": 36, "vflutter": 270, "vf": 310,
}  # fmt: skip
_FLUTTER_HZ = 5.0  # 300 per minute
_FOCI = np.array([[0.35, 1.5, -0.25], [-1.0, 1.15, -0.9], [0.9, -1.1, 0.8]])  # outflow tract; left ventricle; right apex, mV


def begin(segment: Segment, start: float, last_r: float, fs: float, rng: np.random.Generator) -> RhythmSource:
    """Return the rhythm of a segment that starts at ``start`` (s), the last R before it having been at ``last_r``."""
    stop = start + segment.seconds
    name = segment.rhythm
    if name == "asystole":
        return RhythmSource(iter(()))
    if name in ("vf", "vflutter"):
        field = _vf(segment, start, rng) if name == "vf" else _vflutter(segment, start, rng)
        return RhythmSource(iter(()), _within(field, start, stop))
    if name == "flutter":
        period = 1 / _FLUTTER_HZ
        return RhythmSource(_flutter(segment, start, stop, last_r), _within(_sawtooth(start, period), start, stop))
    rate = segment.rate_bpm or _RATES[name]
    heart = _Heart(60 / rate, start, stop, last_r, fs, rng)
    if name == "af":
        return RhythmSource(heart.fibrillating(), _within(_f_waves(rng), start, stop))
    if name == "vt":
        return RhythmSource(heapq.merge(heart.runaway(), heart.atria(60 / 78), key=_when))
    if name == "avb3":
        return RhythmSource(heapq.merge(heart.escape(), heart.atria(60 / 82), key=_when))
    streams: dict[str, Callable[[], Iterator[Happening]]] = {
        "svt": heart.reentry,
        "paced": heart.paced,
        "avb2": heart.wenckebach,
        "pvc": lambda: heart.ectopic(segment),
        "avb1": lambda: heart.sinus(pr=0.30),
    }
    return RhythmSource(streams.get(name, heart.sinus)())


def _when(happening: Happening) -> float:
    return happening.at


class _Heart:
    """Beats of one segment.

    RR varies with breathing and with the 0.1 Hz waves of the blood pressure (the two peaks of McSharry et al. 2003), and a little
    at random.
    """

    def __init__(self, rr: float, start: float, stop: float, last_r: float, fs: float, rng: np.random.Generator) -> None:
        self.rr, self.start, self.stop, self.fs, self.rng = rr, start, stop, fs, rng
        self.first = max(start + 0.25 * min(rr, 1.0), last_r + 0.85 * rr)
        self._phases = rng.uniform(0, 2 * np.pi, 2)

    def _rr(self, at: float, vary: float = 1.0) -> float:
        breath = 0.035 * np.sin(2 * np.pi * 0.25 * at + self._phases[0])
        pressure = 0.02 * np.sin(2 * np.pi * 0.1 * at + self._phases[1])
        return float(self.rr * (1 + vary * (breath + pressure + 0.008 * self.rng.standard_normal())))

    def _size(self) -> float:
        return float(1 + 0.02 * self.rng.standard_normal())

    def _pr(self) -> float:
        return min(0.165, 0.09 + 0.08 * self.rr)

    def _conducted(self, at: float, rr: float, pr: float, label: str = "N") -> Happening:
        return Happening(at, np.vstack([p_wave(at - pr), beat(at, rr, self._size())]), label)

    def sinus(self, pr: float | None = None) -> Iterator[Happening]:
        at = self.first
        while at < self.stop:
            yield self._conducted(at, self.rr, pr or self._pr())
            at += self._rr(at)

    def fibrillating(self) -> Iterator[Happening]:
        """No two RR alike: gamma distributed above the refractory period of the AV node."""
        at = self.first
        refractory = min(0.3, 0.5 * self.rr)
        while at < self.stop:
            rr = float(refractory + self.rng.gamma(3.2, (self.rr - refractory) / 3.2))
            yield Happening(at, beat(at, rr, 1.5 * self._size() - 0.5), "N")
            at += rr

    def reentry(self) -> Iterator[Happening]:
        """Narrow, fast and very regular; the retrograde P sits in the end of the QRS."""
        at = self.first
        while at < self.stop:
            waves = np.vstack([beat(at, self.rr, self._size()), p_wave(at + 0.085, -0.7)])
            yield Happening(at, waves, "S")
            at += self._rr(at, 0.1)

    def paced(self) -> Iterator[Happening]:
        at = self.first
        while at < self.stop:
            yield Happening(at, paced_beat(at, self.rr, self.fs, self._size()), "Q")
            at += self.rr

    def runaway(self) -> Iterator[Happening]:
        axis = _FOCI[self.rng.integers(len(_FOCI))] * self.rng.uniform(0.85, 1.1)
        at = self.first
        while at < self.stop:
            yield Happening(at, ventricular(at, self.rr, axis, self._size()), "V")
            at += self._rr(at, 0.25)

    def atria(self, pp: float) -> Iterator[Happening]:
        """P waves that no QRS follows."""
        at = self.start + pp * float(self.rng.uniform(0.2, 0.8))
        while at < self.stop:
            yield Happening(at, p_wave(at))
            at += pp * float(1 + 0.01 * self.rng.standard_normal())

    def escape(self) -> Iterator[Happening]:
        at = self.first
        while at < self.stop:
            yield Happening(at, beat(at, 1.0, self._size(), width=1.7), "V")
            at += self._rr(at, 0.3)

    def wenckebach(self) -> Iterator[Happening]:
        """Four P waves, three QRS: PR grows until one is not conducted (Mobitz I)."""
        at, turn = self.first, 0
        while at < self.stop:
            pr = (0.18, 0.27, 0.32, None)[turn % 4]
            if pr is None:
                yield Happening(at, p_wave(at - 0.18))
            else:
                r = at - 0.18 + pr
                yield Happening(r, np.vstack([p_wave(at - 0.18), beat(r, self.rr, self._size())]), "N")
            at += self._rr(at, 0.4)
            turn += 1

    def ectopic(self, segment: Segment) -> Iterator[Happening]:
        """Sinus beats, and premature ventricular ones with a compensatory pause."""
        axis = _FOCI[self.rng.integers(2)]
        at, since = self.first, 0
        chance = segment.pvc_per_min / 60 * self.rr
        while at < self.stop:
            yield self._conducted(at, self.rr, self._pr())
            since += 1
            rr = self._rr(at)
            premature = since == segment.every - 1 if segment.every else self.rng.uniform() < chance
            if premature:
                since = 0
                ectopic = at + 0.62 * rr
                for _ in range(segment.run):
                    if ectopic < self.stop:
                        yield Happening(ectopic, ventricular(ectopic, 0.8 * self.rr, axis, self._size()), "V")
                    ectopic += 0.42
                at = max(at + 2 * rr, ectopic - 0.42 + rr)
            else:
                at += rr


def _flutter(segment: Segment, start: float, stop: float, last_r: float) -> Iterator[Happening]:
    rr = segment.ratio / _FLUTTER_HZ
    at = start + 0.11 + np.ceil(max(0.0, last_r + 0.8 * rr - start) * _FLUTTER_HZ) / _FLUTTER_HZ
    while at < stop:
        yield Happening(float(at), beat(float(at), rr), "N")
        at += rr


def _within(field: Field, start: float, stop: float, ramp_s: float = 0.25) -> Field:
    """Fade a field in at ``start`` and out at ``stop``."""

    def faded(t: NDArray[np.float64]) -> NDArray[np.float64]:
        inside = np.clip(np.minimum(t - start, stop - t) / ramp_s, 0, 1)
        return field(t) * inside

    return faded


def _column(*values: float) -> NDArray[np.float64]:
    return np.array(values)[:, None]


def _sawtooth(start: float, period: float) -> Field:
    """Typical flutter: slow down, quick up in the inferior leads, upright in V1; the first harmonics of a sawtooth."""

    def field(t: NDArray[np.float64]) -> NDArray[np.float64]:
        phase = 2 * np.pi * (t - start) / period
        saw = np.sum([np.sin(k * phase) / k for k in range(1, 5)], axis=0)
        return np.asarray(_column(0.01, 0.13, -0.05) * saw)

    return field


def _f_waves(rng: np.random.Generator) -> Field:
    """Fibrillatory waves of the atria, 4 to 9 Hz: sawtooth harmonics of modulated rate and size.

    Model of Stridh and Sornmo, IEEE Trans Biomed Eng 48, 2001, section III.
    """
    f0, swing, slow = rng.uniform(5.2, 7.2), rng.uniform(0.3, 0.6), rng.uniform(0.1, 0.3, 3)
    phases = rng.uniform(0, 2 * np.pi, 6)

    def field(t: NDArray[np.float64]) -> NDArray[np.float64]:
        theta = 2 * np.pi * f0 * t + swing / slow[0] * np.sin(2 * np.pi * slow[0] * t + phases[0])
        theta += 0.35 / 0.9 * np.sin(2 * np.pi * 0.9 * t + phases[1])
        size = 1 + 0.3 * np.sin(2 * np.pi * slow[1] * t + phases[2]) + 0.2 * np.sin(2 * np.pi * 0.7 * t + phases[3])
        saw = size * np.sum([np.sin(k * theta) / k for k in range(1, 4)], axis=0)
        second = np.sin(0.83 * theta + phases[4]) * (1 + 0.4 * np.sin(2 * np.pi * slow[2] * t + phases[5]))
        return np.asarray(_column(0.02, 0.045, -0.065) * saw + _column(0.02, -0.02, 0.02) * second)

    return field


def _vf(segment: Segment, start: float, rng: np.random.Generator) -> Field:
    """Ventricular fibrillation: four drifting oscillators in changing directions, waxing and waning, from coarse to fine."""
    rate = (segment.rate_bpm or _RATES["vf"]) / 60
    begin_mv = segment.amplitude_mv or 0.75
    end_mv = segment.end_amplitude_mv or 0.3 * begin_mv
    rates = rate * np.array([1.0, 0.80, 1.22, 0.62]) * rng.uniform(0.96, 1.04, 4)
    sizes = np.array([1.0, 0.75, 0.55, 0.45])
    axes = rng.standard_normal((4, 3)) * [0.8, 1.0, 0.6]
    axes *= 0.62 / np.linalg.norm(axes, axis=1, keepdims=True)
    axes[0] = [0.25, 0.62, -0.2]
    slow = rng.uniform([[0.15], [0.3], [0.2]], [[0.3], [0.6], [0.5]], (3, 4))
    phases = rng.uniform(0, 2 * np.pi, (4, 4))

    def field(t: NDArray[np.float64]) -> NDArray[np.float64]:
        out = np.zeros((3, t.size))
        size = np.interp(t, [start, start + segment.seconds], [begin_mv, end_mv])
        for k in range(4):
            theta = 2 * np.pi * rates[k] * t + phases[0, k]
            theta += 0.45 / slow[0, k] * np.sin(2 * np.pi * slow[0, k] * t + phases[1, k])
            theta += 0.5 / slow[1, k] * np.sin(2 * np.pi * slow[1, k] * t + phases[2, k])
            swell = 0.72 + 0.28 * np.sin(2 * np.pi * slow[2, k] * t + phases[3, k])
            out += axes[k][:, None] * (sizes[k] * swell * np.sin(theta))
        return np.asarray(1.25 * size * out)

    return field


def _vflutter(segment: Segment, start: float, rng: np.random.Generator) -> Field:
    """Ventricular flutter: one large sine-like wave without a line between the beats."""
    rate = (segment.rate_bpm or _RATES["vflutter"]) / 60
    begin_mv = segment.amplitude_mv or 1.1
    end_mv = segment.end_amplitude_mv or begin_mv
    phase = rng.uniform(0, 2 * np.pi)

    def field(t: NDArray[np.float64]) -> NDArray[np.float64]:
        theta = 2 * np.pi * rate * (t - start) + 0.25 * np.sin(2 * np.pi * 0.2 * t + phase)
        size = np.interp(t, [start, start + segment.seconds], [begin_mv, end_mv])
        size = size * (1 + 0.06 * np.sin(2 * np.pi * 0.35 * t + phase))
        return size * (_column(0.3, 0.85, -0.3) * np.sin(theta) + _column(0.08, -0.14, 0.07) * np.sin(2 * theta + 0.8))

    return field
