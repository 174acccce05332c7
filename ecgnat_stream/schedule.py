"""The scheduler stage: which windows are due, across all beds.

In come conditioned frames and the beats found so far; out go :class:`~ecgnat_stream.signal.Window` at the model rate, one per bed
and hop, stopping at whole multiples of the hop so that the same record gives the same windows however it was delivered. A live
bed holds at most one window that waits: a newer one replaces it, and the skipped one is counted. A recording holds several and
skips none.
"""

from __future__ import annotations

from collections import deque
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.settings import Settings, Within
from ecgnat_stream.signal import FRAME, FRAME_S, FS, LEADS, MODEL_FS, Window

__all__ = ["ScheduleConfig", "Scheduler"]

_STEP = FS // MODEL_FS
_MODEL_FRAME = FRAME // _STEP


class ScheduleConfig(Settings, frozen=True, kw_only=True):
    """When a bed gets a prediction.

    Parameters
    ----------
    window_s
        Length of a window in s, a whole number of frames (0.2 s).
    hop_s
        Time between the ends of two windows of a bed in s, a whole number of frames.
    first_s
        Signal needed before the first window in s; what the window lacks is told to the network as missing.
    max_batch
        Most windows in one batch.
    ahead
        Windows of one recording that may wait at a time.
    slowest_hop_s
        Longest time between two windows of a bed at rest while the monitor is too slow for its beds, in s: it is doubled step by
        step, up to this and to ``window_s``. See docs/reliability.md.
    turn_s
        How long a bed at rest has a network that goes token by token, in s, while the beds at rest have it in turns.
    """

    section: ClassVar[str] = "schedule"

    window_s: Annotated[float, Within(4, 60, "the network needs a few beats, and knows windows of up to a minute")] = 10.0
    hop_s: Annotated[float, Within(0.2, 3, "what the network said is not used once it is 3 s old")] = 1.0
    first_s: Annotated[
        float, Within(1, 60, "the network says nothing about shorter signal, and something before the first minute is over")
    ] = 5.0
    max_batch: Annotated[int, Within(1, 1024, "a larger batch makes every bed in it wait")] = 64
    ahead: Annotated[int, Within(1, 256, "windows that wait take memory")] = 16
    slowest_hop_s: Annotated[float, Within(0.2, 60, "a rhythm that changes quietly would be seen after a minute")] = 8.0
    turn_s: Annotated[
        float, Within(20, 600, "a network that begins anew needs a while to know a heart; others wait meanwhile")
    ] = 30.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("window_s", "hop_s"):
            value = getattr(self, name)
            if abs(value / FRAME_S - round(value / FRAME_S)) > 1e-6:
                raise ConfigError(f"schedule.{name} = {value}: must be a whole number of {FRAME_S} s frames")
        if self.slowest_hop_s < self.hop_s:
            raise ConfigError(f"schedule.slowest_hop_s = {self.slowest_hop_s:g} is below schedule.hop_s = {self.hop_s:g}")


class Scheduler:
    """Keeps each bed's last window at the model rate and cuts the ones that are due.

    Parameters
    ----------
    rows
        Number of beds.
    config
        See :class:`ScheduleConfig`.
    """

    def __init__(self, rows: int, config: ScheduleConfig) -> None:
        self.config = config
        self._window_frames = round(config.window_s / FRAME_S)
        self._hop_frames = round(config.hop_s / FRAME_S)
        self._first_frames = min(round(config.first_s / FRAME_S), self._window_frames)
        self._length = self._window_frames * _MODEL_FRAME
        # Every frame is written twice, one window apart, so that each window is one contiguous slice.
        self._history = np.full((rows, len(LEADS), 2 * self._length), np.nan, np.float32)
        self._beats: list[deque[float]] = [deque() for _ in range(rows)]
        self._waiting: list[deque[Window]] = [deque() for _ in range(rows)]
        self._turn: deque[int] = deque()
        self.cut = np.zeros(rows, np.int64)
        self.skipped = np.zeros(rows, np.int64)

    def reset(self, row: int) -> None:
        """Forget a bed's signal, its beats and its waiting windows: a new stream begins."""
        self._history[row] = np.nan
        self._beats[row].clear()
        self._waiting[row].clear()

    def add(
        self,
        rows: NDArray[np.intp],
        frames: NDArray[np.int64],
        y: NDArray[np.float32],
        last_sample_ns: NDArray[np.int64],
        live: NDArray[np.bool_],
        now_ns: int,
        beats: tuple[NDArray[np.intp], NDArray[np.float64]] | None = None,
        spared: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.bool_]:
        """Take one conditioned frame of each of some beds; cut the windows that become due.

        Parameters
        ----------
        rows, frames
            ``(R,)`` bed and absolute frame index, consecutive per bed.
        y
            ``(R, 12, FRAME)`` conditioned signal in mV at ``signal.FS``.
        last_sample_ns
            ``(R,)`` host monotonic time of each frame's last sample.
        live
            ``(R,)`` False for recordings.
        beats
            Bed and R peak, absolute in samples at ``signal.FS``, of the beats that became known with these frames; per bed
            ascending from call to call.
        spared
            ``(R,)`` beds that get no window now, whatever is due; none if left out.

        Returns
        -------
        due
            ``(R,)`` whether a window that stops with this frame was cut.
        """
        at = (frames % self._window_frames) * _MODEL_FRAME
        columns = at[:, None] + np.arange(_MODEL_FRAME)
        sparse = np.moveaxis(y[..., ::_STEP], 1, 2)
        self._history[rows[:, None], :, columns] = sparse
        self._history[rows[:, None], :, columns + self._length] = sparse
        if beats is not None:
            for row, peak in zip(beats[0].tolist(), beats[1].tolist(), strict=True):
                self._beats[row].append(peak / _STEP)
        due: NDArray[np.bool_] = ((frames + 1) % self._hop_frames == 0) & (frames + 1 >= self._first_frames)
        if spared is not None:
            due &= ~spared
        for i in np.flatnonzero(due):
            row, stop = int(rows[i]), int(frames[i] + 1) * _MODEL_FRAME
            begin = int(at[i]) + _MODEL_FRAME
            window = Window(
                row=row,
                start=stop - self._length,
                stop=stop,
                samples=self._history[row, :, begin : begin + self._length].copy(),
                last_sample_ns=int(last_sample_ns[i]),
                cut_ns=now_ns,
                beats=self._beats_from(row, stop - self._length),
            )
            self.cut[row] += 1
            waiting = self._waiting[row]
            if live[i] and waiting:
                self.skipped[row] += len(waiting)
                waiting.clear()
            elif not waiting:
                self._turn.append(row)
            waiting.append(window)
        return due

    def _beats_from(self, row: int, start: int) -> NDArray[np.float32]:
        """Return a bed's R peaks in samples from ``start``; older ones are forgotten."""
        beats = self._beats[row]
        while beats and beats[0] < start:
            beats.popleft()
        return (np.array(beats) - start).astype(np.float32)

    def full(self, row: int) -> bool:
        """Return whether a recording must be held back: as many windows wait as may."""
        return len(self._waiting[row]) >= self.config.ahead

    def oldest_waiting(self, row: int) -> int | None:
        """Return the model-rate stop of the oldest window that waits, None if none does."""
        waiting = self._waiting[row]
        return waiting[0].stop if waiting else None

    def __len__(self) -> int:
        """Return how many windows wait."""
        return sum(map(len, self._waiting))

    def next_batch(self) -> list[Window]:
        """Return the next batch, oldest beds first; empty if nothing is due."""
        batch: list[Window] = []
        while self._turn and len(batch) < self.config.max_batch:
            row = self._turn.popleft()
            waiting = self._waiting[row]
            while waiting and len(batch) < self.config.max_batch:
                batch.append(waiting.popleft())
            if waiting:
                self._turn.appendleft(row)
        return batch
