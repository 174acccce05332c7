"""The simulated patient: samples in fixed quanta, so that the way they are cut into blocks changes nothing, and the truth."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ecgnat_devices.simulator.rhythms import Happening, RhythmSource, begin
from ecgnat_devices.simulator.script import LABELS, SCRIPTS, Artefact, Segment, Signal
from ecgnat_devices.simulator.waves import DIPOLE_TO_ELECTRODES, ELECTRODES, ELECTRODES_TO_LEADS
from ecgnat_stream.signal import LEADS

__all__ = ["COUNTER", "Patient", "Simulated"]

COUNTER = "COUNTER"
"""Name of the sample-counter lead: 0.001 mV per sample, modulo 30 000 samples, so that it survives packing as int16 at 1 uV."""

_COUNTER_MODULO = 30_000
_SPIKES_HZ = 70 / 60
_SPIKE = np.array([-0.9, 1.3, 0.8])
"""Direction of a pacemaker's pulse in the dipole's space."""

_QUANTUM_S = 2.0
_AHEAD_S = 0.6  # the waves of a beat begin at most this long before its R peak
_REACH = 4.5  # sigmas after which a Gaussian is nothing (4e-5 of its peak)


@dataclass(frozen=True, slots=True)
class Simulated:
    """What was simulated.

    Parameters
    ----------
    rhythms
        (name, class of ``codes.RHYTHMS``, start, stop) in samples.
    beats
        Sample index of every R peak.
    labels
        AAMI EC57 label of each.
    """

    rhythms: list[tuple[str, str, int, int]] = field(default_factory=list)
    beats: list[int] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)


class Patient:
    """Makes the samples of a :class:`Signal` one after the other.

    Raises
    ------
    ValueError
        For a script or a lead that does not exist.
    """

    def __init__(self, signal: Signal) -> None:
        self.signal = signal
        self.truth = Simulated()
        self._segments = _segments(signal)
        self._round_s = sum(segment.seconds for segment in self._segments)
        self.total = None if signal.loop else round(self._round_s * signal.fs)
        self._rows = _rows(signal.leads)
        self.leads = (*signal.leads, COUNTER) if signal.counter else signal.leads
        self._off = [(artefact, _fallen(artefact, signal.leads)) for artefact in signal.artefacts if artefact.kind == "lead_off"]
        rng = np.random.default_rng([signal.seed, 0])
        self._body = _body(rng)
        self._phases = rng.uniform(0, 2 * np.pi, (4, len(ELECTRODES), 1))
        self._wander_hz = rng.uniform([[[0.04]], [[0.12]], [[0.22]]], [[[0.1]], [[0.2]], [[0.32]]], (3, len(ELECTRODES), 1))
        self._hum = rng.uniform(0.3, 1.0, (len(ELECTRODES), 1))
        self._course = self._segment_course()
        self._happenings = self._happen()
        self._next = next(self._happenings, None)
        self._rhythms: list[tuple[float, float, RhythmSource]] = []
        self._waves = np.empty((0, 5))
        self._bumps = np.empty((0, 2 + len(ELECTRODES)))
        self._tremor = np.zeros((len(ELECTRODES), 1))
        self._quantum = round(_QUANTUM_S * signal.fs)
        self._made = 0
        self._ready: deque[NDArray[np.float32]] = deque()
        self._ready_samples = 0

    def read(self, length: int) -> NDArray[np.float32]:
        """Return the next ``(L, length)`` samples in mV; less at the end of a script that does not loop."""
        while self._ready_samples < length and (self.total is None or self._made < self.total):
            part = self._make()
            self._ready.append(part)
            self._ready_samples += part.shape[1]
        parts = []
        while length and self._ready:
            part = self._ready.popleft()
            if part.shape[1] > length:
                self._ready.appendleft(part[:, length:])
                part = part[:, :length]
            parts.append(part)
            length -= part.shape[1]
            self._ready_samples -= part.shape[1]
        return np.concatenate(parts, axis=1) if parts else np.empty((len(self.leads), 0), np.float32)

    def delivered(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the parts of ``start`` to ``stop`` that do get through: gaps are cut out, and a lead's fall begins a part."""
        parts = [(start, stop)]
        for artefact, _ in self._off:
            for edge in {edge for span in self._spans(artefact, start, stop) for edge in span}:
                parts = [p for c, d in parts for p in ((c, min(d, edge)), (max(c, edge), d)) if p[0] < p[1]]
        for artefact in self.signal.artefacts:
            if artefact.kind == "gap":
                for a, b in self._spans(artefact, start, stop):
                    parts = [p for c, d in parts for p in ((c, min(d, a)), (max(c, b), d)) if p[0] < p[1]]
        return parts

    def lead_off(self, start: int, stop: int) -> frozenset[str]:
        """Return the leads that the device reports as disconnected somewhere in ``start`` to ``stop``."""
        reported = (leads for artefact, leads in self._off if artefact.reported and self._spans(artefact, start, stop))
        return frozenset(lead for leads in reported for lead in leads)

    def _spans(self, artefact: Artefact, start: int, stop: int) -> list[tuple[int, int]]:
        """Return where in ``start`` to ``stop`` an artefact is on, over all rounds of the script."""
        fs = self.signal.fs
        first = max(0, int((start / fs - artefact.start_s - artefact.seconds) // self._round_s))
        last = int((stop / fs) // self._round_s) if self.signal.loop else 0
        spans = []
        for turn in range(first, last + 1):
            at = turn * self._round_s + artefact.start_s
            a, b = max(start, round(at * fs)), min(stop, round((at + artefact.seconds) * fs))
            if a < b:
                spans.append((a, b))
        return spans

    def _segment_course(self) -> Iterator[tuple[Segment, float]]:
        at, turn = 0.0, 0
        while True:
            for segment in self._segments:
                yield segment, at
                at += segment.seconds
            turn += 1
            if not self.signal.loop:
                return
            at = turn * self._round_s

    def _happen(self) -> Iterator[Happening | tuple[float, float, RhythmSource]]:
        """Yield rhythms as they begin, and what happens in them, in order."""
        fs, last_r = self.signal.fs, -10.0
        for turn, (segment, start) in enumerate(self._course):
            rhythm = begin(segment, start, last_r, fs, np.random.default_rng([self.signal.seed, 1, turn]))
            name, stop = segment.rhythm, start + segment.seconds
            self.truth.rhythms.append((name, LABELS[name], round(start * fs), round(stop * fs)))
            yield start, stop, rhythm
            for happening in rhythm.happenings:
                if happening.label:
                    last_r = happening.at
                    self.truth.beats.append(round(last_r * fs))
                    self.truth.labels.append(happening.label)
                yield happening

    def _advance(self, until: float) -> None:
        """Take everything that begins before ``until`` (s)."""
        new = [self._waves]
        while self._next is not None:
            if isinstance(self._next, Happening):
                if self._next.at >= until:
                    break
                new.append(self._next.waves)
            else:
                if self._next[0] >= until:
                    break
                self._rhythms.append(self._next)
            self._next = next(self._happenings, None)
        self._waves = np.vstack(new)

    def _make(self) -> NDArray[np.float32]:
        signal, start = self.signal, self._made
        stop = start + self._quantum if self.total is None else min(start + self._quantum, self.total)
        self._made = stop
        t = np.arange(start, stop) / signal.fs
        self._advance(t[-1] + _AHEAD_S)
        self._waves = self._waves[self._waves[:, 0] + _REACH * self._waves[:, 1] > t[0]]
        self._rhythms = [entry for entry in self._rhythms if entry[1] > t[0]]
        dipole = _sum(self._waves, t)
        for begun, _, rhythm in self._rhythms:
            if rhythm.field and begun <= t[-1]:
                dipole = dipole + rhythm.field(t)
        dipole *= 1 + 0.04 * np.sin(2 * np.pi * 0.25 * t + self._phases[0, 0])
        dipole = dipole + _SPIKE[:, None] * self._spikes(start, stop)
        electrodes = self._body @ dipole + self._disturb(t, start, stop)
        samples = (ELECTRODES_TO_LEADS[self._rows] @ electrodes).astype(np.float32)
        for artefact, leads in self._off:
            for a, b in self._spans(artefact, start, stop):
                value = np.nan if artefact.rail_mv is None else artefact.rail_mv
                samples[[signal.leads.index(lead) for lead in leads], a - start : b - start] = value
        if signal.counter:
            count = np.arange(start, stop) % _COUNTER_MODULO
            samples = np.vstack([samples, (count * 1e-3).astype(np.float32)[None]])
        return samples

    def _spikes(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return ``(T,)`` the pulses of a pacemaker, mV, each on one sample."""
        numbers = np.arange(np.ceil(start / self.signal.fs * _SPIKES_HZ), np.ceil(stop / self.signal.fs * _SPIKES_HZ) + 1)
        at = np.round(numbers / _SPIKES_HZ * self.signal.fs).astype(np.int64)
        pulses = np.isin(np.arange(start, stop), at)
        return np.asarray(pulses * self._level("spikes", 0.0, start, stop), np.float64)

    def _level(self, kind: str, constant: float, start: int, stop: int) -> NDArray[np.float64] | float:
        level: NDArray[np.float64] | float = constant
        for artefact in self.signal.artefacts:
            if artefact.kind == kind:
                for a, b in self._spans(artefact, start, stop):
                    level = np.full(stop - start, level) if isinstance(level, float) else level
                    level[a - start : b - start] += artefact.level_mv
        return level

    def _disturb(self, t: NDArray[np.float64], start: int, stop: int) -> NDArray[np.float64]:
        """Return what each electrode picks up beside the heart, ``(9, T)`` in mV."""
        signal = self.signal
        rng = np.random.Generator(np.random.SFC64([signal.seed, 2, start]))
        shape = (len(ELECTRODES), stop - start)
        out = self._level("noise", signal.noise_mv, start, stop) * rng.standard_normal(shape, np.float32) / np.sqrt(2)
        wander = self._level("wander", signal.wander_mv, start, stop)
        if np.any(wander):
            out = out + wander * (np.sin(2 * np.pi * self._wander_hz * t + self._phases[:3]).sum(axis=0) / 2)
        mains = self._level("mains", signal.mains_mv, start, stop)
        if np.any(mains):
            hum = 2 * np.pi * signal.mains_hz * t
            out = out + mains * self._hum * (np.sin(hum + self._phases[3]) + 0.15 * np.sin(3 * hum))
        muscle = self._level("muscle", signal.muscle_mv, start, stop)
        if np.any(muscle):
            white = np.hstack([self._tremor, rng.standard_normal(shape)])
            self._tremor = white[:, -1:]
            bursts = 1 + 0.6 * np.sin(2 * np.pi * 0.6 * t + self._phases[1])
            out = out + muscle * bursts * (white[:, 1:] - 0.6 * white[:, :-1]) / 1.65
        motion = self._level("motion", signal.motion_mv, start, stop)
        if np.any(motion):
            self._bump(rng, t, motion)
        if len(self._bumps):
            self._bumps = self._bumps[self._bumps[:, 0] + _REACH * self._bumps[:, 1] > t[0]]
            out = out + _sum(self._bumps, t)
        return np.asarray(out)

    def _bump(self, rng: np.random.Generator, t: NDArray[np.float64], level: NDArray[np.float64] | float) -> None:
        """Add movements of single electrodes: about two per second, each a slow or a quick bump."""
        count = rng.poisson(2 * _QUANTUM_S)
        bumps = np.zeros((count, self._bumps.shape[1]))
        bumps[:, 1] = rng.uniform(0.03, 0.2, count)
        bumps[:, 0] = rng.uniform(t[0], t[-1], count) + _REACH * bumps[:, 1]
        size = np.broadcast_to(level, t.shape)[np.searchsorted(t, bumps[:, 0] - _REACH * bumps[:, 1]).clip(max=t.size - 1)]
        bumps[np.arange(count), 2 + rng.integers(len(ELECTRODES), size=count)] = size * rng.normal(0, 1.5, count)
        self._bumps = np.vstack([self._bumps, bumps])


def _sum(waves: NDArray[np.float64], t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of Gaussian waves at the times ``t``: ``(axes, T)``."""
    z = (t - waves[:, :1]) / waves[:, 1:2]
    shape = np.exp(-0.5 * z * z)
    shape[np.abs(z) > _REACH] = 0
    return np.asarray(waves[:, 2:].T @ shape)


def _segments(signal: Signal) -> tuple[Segment, ...]:
    script = SCRIPTS.get(signal.script, ()) if isinstance(signal.script, str) else signal.script
    if not script:
        raise ValueError(f"no script {signal.script!r}: there are {', '.join(SCRIPTS)}, or give a list of segments")
    return script


def _rows(leads: tuple[str, ...]) -> list[int]:
    if unknown := [lead for lead in leads if lead not in LEADS]:
        raise ValueError(f"no lead {', '.join(unknown)} to simulate: there are {', '.join(LEADS)}")
    if not leads or len(set(leads)) < len(leads):
        raise ValueError(f"leads must be 1 to 12 different ones, got {', '.join(leads) or 'none'}")
    return [LEADS.index(lead) for lead in leads]


def _fallen(artefact: Artefact, leads: tuple[str, ...]) -> tuple[str, ...]:
    """Return the leads that go with the leads or electrodes of a lead_off."""
    gone: set[str] = set()
    for name in artefact.leads:
        if name in LEADS:
            gone.add(name)
        elif name in ELECTRODES:
            column = ELECTRODES.index(name)
            gone.update(LEADS[row] for row in range(6) if ELECTRODES_TO_LEADS[row, column])
        else:
            raise ValueError(f"lead_off: no lead or electrode {name!r}: there are {', '.join((*LEADS, *ELECTRODES[:3]))}")
    return tuple(lead for lead in leads if lead in gone)


def _body(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the electrode potentials of this patient's dipole: an axis and a size of its own."""
    turn = rng.normal(0, 0.12)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    return np.asarray(rng.uniform(0.85, 1.15) * DIPOLE_TO_ELECTRODES @ rotation)
