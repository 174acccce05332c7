"""The ``simulate`` adapter: a patient who passes through the rhythms of a script, on a device with its own faults."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from ecgnat_devices.pace import BlockSeconds, Pace, Speed
from ecgnat_devices.simulator import Patient, Signal, Simulated
from ecgnat_stream.clock import Clock
from ecgnat_stream.errors import DeviceError
from ecgnat_stream.signal import SampleBlock, StreamInfo

__all__ = ["SimulateDevice", "SimulateOptions"]


class SimulateOptions(Signal, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to simulate, and how it is delivered.

    Parameters
    ----------
    fs
        Rate in Hz, 100 to 1000.
    leads
        Any of the twelve leads.
    seed
        Same seed, same samples, whatever the block size.
    script
        Name of a built-in script (``simulator.SCRIPTS``), or a list of ``Segment``.
    artefacts
        A list of ``Artefact``.
    loop
        Begin the script again at its end.
    noise_mv, muscle_mv
        White noise and muscle tremor throughout, root mean square per lead, mV.
    wander_mv, mains_mv, motion_mv
        Baseline wander, mains hum and movements of electrodes throughout, amplitude, mV.
    mains_hz
        Frequency of the hum.
    counter
        Add a lead COUNTER that counts samples: 0.001 mV each, modulo 30 000.
    speed
        Multiple of real time, or "max".
    block_s, block
        Length of a block in s, or, if given, in samples.
    clock_drift_ppm
        How much faster the device's crystal runs than the host's clock.
    jitter_s
        Longest random delay of a block, s.
    """

    speed: Speed = 1.0
    block_s: BlockSeconds = 0.1
    block: Annotated[int, msgspec.Meta(gt=0)] | None = None
    clock_drift_ppm: Annotated[float, msgspec.Meta(ge=-1e5, le=1e5)] = 0.0
    jitter_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class SimulateDevice:
    """Delivers a simulated patient."""

    Options: ClassVar[type[msgspec.Struct]] = SimulateOptions

    def __init__(self, options: SimulateOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._patient: Patient | None = None
        self._truth = Simulated()

    async def __aenter__(self) -> StreamInfo:
        """Begin with a fresh patient."""
        options = self._options
        try:
            self._patient = Patient(options)
        except ValueError as error:
            raise DeviceError(f"simulate: {error}", permanent=True) from error
        self._truth = self._patient.truth
        script = options.script if isinstance(options.script, str) else "script"
        return StreamInfo(
            fs=options.fs,
            leads=self._patient.leads,
            device=f"simulate {script} seed {options.seed}",
            live=options.speed != "max",
            pace=1.0 if options.speed == "max" else options.speed,
            total=self._patient.total,
        )

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Let the patient go."""
        self._patient = None

    def truth(self) -> Simulated:
        """Return what was simulated since entering; it runs a few seconds ahead of what was delivered."""
        return self._truth

    async def __aiter__(self) -> AsyncIterator[SampleBlock]:
        """Yield the blocks, each when its last sample is due."""
        options, patient = self._options, self._patient
        if patient is None:
            raise DeviceError("simulate: not open: enter the device before reading it", permanent=True)
        length = options.block or max(1, round(options.block_s * options.fs))
        pace = Pace(self._clock, options.fs, options.speed, options.clock_drift_ppm)
        delays = np.random.default_rng([options.seed, 3])
        start = 0
        while (samples := patient.read(length)).shape[1]:
            stop = start + samples.shape[1]
            for a, b in patient.delivered(start, stop):
                late_s = options.jitter_s * delays.random() if options.jitter_s else 0.0
                t_ns = await pace.until(b, late_s)
                yield SampleBlock(a, samples[:, a - start : b - start], t_ns, patient.lead_off(a, b))
            start = stop
