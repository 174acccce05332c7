"""When a replayed or simulated block is due: absolute deadlines, so that a late delivery delays nothing after it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ecgnat_stream.clock import Clock

__all__ = ["BlockSeconds", "Pace", "Speed"]

Speed = Annotated[float, msgspec.Meta(ge=0.001, le=1_000_000.0)] | Literal["max"]
"""Multiple of real time, or "max": as fast as the receiver takes it."""

BlockSeconds = Annotated[float, msgspec.Meta(gt=0, le=10)]


class Pace:
    """Holds every block back until its last sample would have been taken.

    Parameters
    ----------
    fs
        Nominal rate in Hz.
    speed
        Multiple of real time, or "max".
    drift_ppm
        How much faster the device's own crystal runs than the host's clock, in parts per million.
    """

    def __init__(self, clock: Clock, fs: float, speed: Speed, drift_ppm: float = 0.0) -> None:
        self._clock = clock
        self._ns_per_sample = None if speed == "max" else 1e9 / (fs * speed * (1 + drift_ppm * 1e-6))
        self._start_ns = clock.monotonic_ns()
        self._last_ns = self._start_ns

    async def until(self, stop: int, late_s: float = 0.0) -> int:
        """Wait until sample ``stop`` is due, plus ``late_s``; return the time of the sample before it, ns."""
        if self._ns_per_sample is None:
            await self._clock.sleep_until(self._clock.monotonic_ns())
            return self._clock.monotonic_ns()
        due_ns = self._start_ns + round(stop * self._ns_per_sample + late_s * 1e9)
        self._last_ns = max(self._last_ns, due_ns)
        await self._clock.sleep_until(self._last_ns)
        return self._last_ns
