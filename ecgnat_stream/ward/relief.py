"""What a monitor does that is too slow for its beds: those at rest get the network less often, in steps, until it keeps up.

A bed is at rest when for a while its signal could be judged, its rhythm was one and the same, its rate lay within the limits,
no ventricular beat, no sign of fibrillation or of a stop was seen, and no alarm of the heart is on. Every other bed gets the
network as always, from the next frame on. What needs no network, beats and the detectors of a lethal rhythm, is never left out.

A network that reads whole windows is given a window of a bed at rest every second, fourth, ... hop. One that goes token by token
cannot leave samples out and go on: it is given the beds at rest in turns, and begins a bed anew when its turn comes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.schedule import ScheduleConfig
from ecgnat_stream.signal import FRAME_S, FS
from ecgnat_stream.ward.signal_path import FrameResult

__all__ = ["REST_S", "Relief"]

REST_S = 15.0
"""A bed of which nothing unusual was seen for so long is at rest."""

_PAUSE_S = 2.3
"""No beat for so long may be a heart that stops. A beat is known 0.3 s after its peak."""

_SCORE = 0.3
"""A fibrillation score above this is a sign of it."""

_LETHAL = [RHYTHMS.index(name) for name in ("VT", "VF", "ASYSTOLE")]
_STABLE = np.array([name not in ("VT", "VF", "ASYSTOLE", "NOISE") for name in RHYTHMS])

_RAISE_NS = 5_000_000_000
"""What a step brings is seen after so long."""

_LOWER_NS, _LONGEST_NS = 60_000_000_000, 960_000_000_000
"""A step is taken back after so long without pressure; after twice as long each time that it has come back soon."""


class Relief:
    """Decides which beds are passed over.

    Parameters
    ----------
    rows
        Number of beds.
    limits_bpm
        ``(rows,)`` each: between these the rate of each bed lies as a rule.
    in_turns
        Whether the network goes token by token.

    Attributes
    ----------
    level
        Steps taken; 0 is none, ``most`` all there are.
    paused
        ``(rows,)`` beds out of turn.
    """

    def __init__(
        self,
        rows: int,
        config: ScheduleConfig,
        limits_bpm: tuple[NDArray[np.float64], NDArray[np.float64]],
        *,
        in_turns: bool = False,
    ) -> None:
        self._config, self._in_turns = config, in_turns
        self._lowest_bpm, self._highest_bpm = limits_bpm
        self._hop = round(config.hop_s / FRAME_S)
        self._turn = round(config.turn_s / FRAME_S)
        slowest_s = max(min(config.slowest_hop_s, config.window_s), config.hop_s)
        self.level, self.most = 0, int(np.log2(slowest_s / config.hop_s) + 1e-9)
        self.paused = np.zeros(rows, bool)
        self._at_s = np.zeros(rows)
        self._beat_s = np.zeros(rows)
        self._unrest_s = np.zeros(rows)
        self._label = np.full(rows, -1, np.int8)
        self._changed_ns: int | None = None
        self._pressed_ns: int | None = None
        self._lowered_ns: int | None = None
        self._patience_ns = _LOWER_NS

    def begin(self, row: int, at_s: float) -> None:
        """Begin a bed's stream at ``at_s``: nothing is known of it."""
        self._at_s[row] = self._beat_s[row] = self._unrest_s[row] = at_s
        self._label[row] = -1
        self.paused[row] = False

    def see(self, step: FrameResult) -> None:
        """Take what was found in a frame of each of some beds."""
        rows, found = step.rows, step.found
        self._at_s[rows] = stop_s = (step.frames + 1) * FRAME_S
        self._beat_s[found.beats.row] = found.beats.at / FS
        rate = found.heart_rate_bpm
        within = (rate >= self._lowest_bpm[rows]) & (rate <= self._highest_bpm[rows])
        calm = within & found.quality.usable & np.isnan(step.wrong_mv)
        calm &= ~(found.fibrillation > _SCORE) & (stop_s - self._beat_s[rows] <= _PAUSE_S)
        self.disturb(rows[~calm])
        self.disturb(found.beats.row[np.asarray(found.labels) == "V"])

    def hear(self, rows: NDArray[np.intp], label: NDArray[np.int8], seconds: NDArray[np.float64]) -> None:
        """Take the network's answer: the rhythm of each of some beds, and ``(R, C)`` seconds of every class of late."""
        stable = (label >= 0) & _STABLE[label] & (label == self._label[rows])
        self._label[rows] = label
        self.disturb(rows[~stable | (seconds[:, _LETHAL] > 0).any(axis=1)])

    def disturb(self, rows: NDArray[np.intp]) -> None:
        """Take note that something about these beds is unusual now."""
        self._unrest_s[rows] = self._at_s[rows]

    def at_rest(self, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return ``(R,)`` whether nothing unusual was seen of late."""
        quiet: NDArray[np.bool_] = self._at_s[rows] - self._unrest_s[rows] >= REST_S
        return quiet

    def spared(self, rows: NDArray[np.intp], frames: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return ``(R,)`` the beds that are passed over after these frames, whatever is due."""
        spared = np.zeros(len(rows), bool)
        if self.level:
            number = frames // self._turn if self._in_turns else (frames + 1) // self._hop
            spared = ((number + rows) % (1 << self.level) != 0) & self.at_rest(rows)
        if self._in_turns:
            self.paused[rows] = spared
        return spared

    def step(self, now_ns: int, pressed: bool) -> bool:
        """Go a step further while the pressure lasts, or back after a while without; say whether there was a step.

        Parameters
        ----------
        pressed
            Whether the monitor is too slow, judged by what came since the last step.
        """
        if pressed:
            self._pressed_ns = now_ns
            waited = self._changed_ns is None or now_ns - self._changed_ns >= _RAISE_NS
            if self.level >= self.most or not waited:
                return False
            if self._lowered_ns is not None:
                soon = now_ns - self._lowered_ns < self._patience_ns
                self._patience_ns = min(2 * self._patience_ns, _LONGEST_NS) if soon else _LOWER_NS
                self._lowered_ns = None
            return self._move(1, now_ns)
        since_ns = max(self._changed_ns or 0, self._pressed_ns or 0)
        if not self.level or now_ns - since_ns < self._patience_ns:
            return False
        self._lowered_ns = now_ns
        return self._move(-1, now_ns)

    def _move(self, by: int, now_ns: int) -> bool:
        self.level += by
        self._changed_ns = now_ns
        return True

    def describe(self, rows: NDArray[np.intp]) -> str:
        """Say what is done, and to how many of these beds."""
        if not self.level:
            return ""
        count = f"{int(self.at_rest(rows).sum())} beds of {len(rows)} are at rest"
        parts = 1 << self.level
        if self._in_turns:
            return f"step {self.level} of {self.most}: {count}, and have the network one in {parts} at a time, in turns"
        return f"step {self.level} of {self.most}: {count}, and have the network every {parts * self._config.hop_s:g} s"
