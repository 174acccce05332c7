"""The hearts: each bed's signal for the whole plan, made once and read at the time of the wall by every process.

A heart does not wait for its monitor: a device that connects again finds it where it is by now.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgnat_devices.simulator import Patient, Signal
from tests.chaos.plan import FS, LEADS, Plan

__all__ = ["Heart", "write_hearts"]


def write_hearts(plan: Plan, folder: Path) -> None:
    """Simulate every heart of the plan into ``folder``."""
    for number, bed in enumerate(plan.beds):
        signal = Signal(fs=FS, leads=LEADS, seed=plan.seed * 100 + number, script=plan.segments(bed), loop=False)
        patient = Patient(signal)
        assert patient.total is not None
        np.save(folder / f"{bed}.npy", patient.read(patient.total))


class Heart:
    """One bed's signal ``(L, T)`` in mV, from second 0 of the plan on."""

    def __init__(self, folder: Path, bed: str, t0_ns: int) -> None:
        self._samples: NDArray[np.float32] = np.load(folder / f"{bed}.npy", mmap_mode="r")
        self._t0_ns = t0_ns

    def now_s(self) -> float:
        """Return the seconds since the plan began."""
        return (time.monotonic_ns() - self._t0_ns) / 1e9

    def place(self) -> int:
        """Return how many samples the heart has given by now."""
        return min(max(0, int(self.now_s() * FS)), int(self._samples.shape[1]))

    def ns(self, place: int) -> int:
        """Return the monotonic time at which a sample was given."""
        return self._t0_ns + round(place / FS * 1e9)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return a copy of some samples."""
        return np.array(self._samples[:, start:stop])
