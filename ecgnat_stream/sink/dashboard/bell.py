"""The sound of alarms: bursts of 10, 3 or 1 pulses for high, medium and low priority, on a terminal bell or any other hook.

Number of pulses, order of the intervals and the urgency of the bursts after IEC 60601-1-8 table 3: pulses of a burst come
faster for higher priorities, and bursts are repeated after 2.5 to 15 s (high), 2.5 to 30 s (medium), more than 15 s (low).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ecgnat_stream.codes import URGENCY, Priority

__all__ = ["Bell", "Sound"]

Sound = Callable[[Priority], None]
"""Called once per pulse."""


@dataclass(frozen=True, slots=True)
class _Burst:
    pulses: int
    spacing_s: float
    repeat_s: float


_BURSTS: dict[Priority, _Burst] = {
    "high": _Burst(10, 0.25, 8.0),
    "medium": _Burst(3, 0.4, 15.0),
    "low": _Burst(1, 0.4, 30.0),
}


class Bell:
    """Decides when the next pulse is due; a higher priority interrupts the burst of a lower one."""

    def __init__(self, sound: Sound, enabled: bool = True) -> None:
        self._sound = sound
        self._enabled = enabled
        self._priority: Priority | None = None
        self._done = 0
        self._due_ns = 0

    def update(self, priority: Priority | None, now_ns: int) -> None:
        """Sound what is due for the highest priority that may be heard; None is silence.

        At most one pulse per call: after a stop of the program there is nothing to catch up.
        """
        if priority is None or not self._enabled:
            self._priority = None
            return
        if self._priority is None or URGENCY[priority] > URGENCY[self._priority]:
            self._done, self._due_ns = 0, now_ns
        elif priority != self._priority:
            self._done, self._due_ns = 0, now_ns + round(_BURSTS[priority].repeat_s * 1e9)
        self._priority = priority
        if now_ns < self._due_ns:
            return
        burst = _BURSTS[priority]
        self._sound(priority)
        self._done += 1
        if self._done == burst.pulses:
            self._done = 0
            self._due_ns = now_ns + round(burst.repeat_s * 1e9)
        else:
            self._due_ns = now_ns + round(burst.spacing_s * 1e9)
