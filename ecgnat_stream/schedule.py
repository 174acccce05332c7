"""The scheduler stage: what is due to the network, across all beds.

In come conditioned frames and the beats found so far; out go :class:`~ecgnat_stream.signal.Window` at the model rate, one per bed
and hop, stopping at whole multiples of the hop so that the same record gives the same windows however it was delivered. A
recording holds several that wait, and skips none.

:class:`WindowScheduler` cuts the last seconds anew each time. A live bed holds at most one window that waits: a newer one
replaces it, and the skipped one is counted. :class:`TokenScheduler` cuts only the whole tokens that are new. What is new of a
live bed while an older stretch waits joins it, and the decision left out is counted; if it comes to more than some seconds, they
are left out, and the network begins anew with that bed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.settings import Settings, Within
from ecgnat_stream.signal import FRAME, FRAME_S, FS, LEADS, MODEL_FS, TOKEN_S, Window

__all__ = ["BEHIND_S", "ScheduleConfig", "Scheduler", "TokenScheduler", "WindowScheduler", "scheduler"]

_STEP = FS // MODEL_FS
_MODEL_FRAME = FRAME // _STEP
_TOKEN = round(TOKEN_S * MODEL_FS)

BEHIND_S = 10.0
"""New signal of a live bed that may wait for the network: as much as a whole window of the last seconds."""


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


def scheduler(rows: int, config: ScheduleConfig, mode: Literal["window", "stream"]) -> Scheduler:
    """Return what cuts what a network reads in a ``mode``, see :func:`~ecgnat_stream.model.catalogue.reading_mode`."""
    return TokenScheduler(rows, config) if mode == "stream" else WindowScheduler(rows, config)


class Scheduler(ABC):
    """What waits for the network, bed by bed.

    Parameters
    ----------
    rows
        Number of beds.
    config
        See :class:`ScheduleConfig`.

    Attributes
    ----------
    cut, skipped
        ``(rows,)`` decisions that fell due, and those that were left out since the next one came first.
    """

    def __init__(self, rows: int, config: ScheduleConfig) -> None:
        self.config = config
        self._hop_frames = round(config.hop_s / FRAME_S)
        self._first_frames = min(round(config.first_s / FRAME_S), round(config.window_s / FRAME_S))
        self._beats: list[deque[float]] = [deque() for _ in range(rows)]
        self._waiting: list[deque[Window]] = [deque() for _ in range(rows)]
        self._turn: deque[int] = deque()
        self.cut = np.zeros(rows, np.int64)
        self.skipped = np.zeros(rows, np.int64)

    def reset(self, row: int) -> None:
        """Forget a bed's signal, its beats and what waits: a new stream begins."""
        self._beats[row].clear()
        self._waiting[row].clear()

    @abstractmethod
    def restart(self, row: int) -> None:
        """Take note that the network has lost what it remembered of a bed."""

    @abstractmethod
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
        """Take one conditioned frame of each of some beds; cut what becomes due.

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
            ``(R,)`` beds that the network passes over now, whatever is due; none if left out.

        Returns
        -------
        due
            ``(R,)`` whether a decision falls due at the end of this frame.
        """

    def _take_beats(self, beats: tuple[NDArray[np.intp], NDArray[np.float64]] | None) -> None:
        if beats is not None:
            for row, peak in zip(beats[0].tolist(), beats[1].tolist(), strict=True):
                self._beats[row].append(peak / _STEP)

    def _hold(self, window: Window, live: bool) -> None:
        """Let a window wait for its turn."""
        waiting = self._waiting[window.row]
        self.cut[window.row] += window.decides
        if not waiting:
            self._turn.append(window.row)
        elif live:
            self.skipped[window.row] += sum(before.decides for before in waiting)
            window = self._in_place_of(waiting[-1], window)
            waiting.clear()
        waiting.append(window)

    def _in_place_of(self, before: Window, window: Window) -> Window:
        """Return what a live bed's newest window becomes while one before it waits."""
        return window

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


class WindowScheduler(Scheduler):
    """Keeps each bed's last window at the model rate and cuts the ones that are due."""

    def __init__(self, rows: int, config: ScheduleConfig) -> None:
        super().__init__(rows, config)
        self._window_frames = round(config.window_s / FRAME_S)
        self._length = self._window_frames * _MODEL_FRAME
        # Every frame is written twice, one window apart, so that each window is one contiguous slice.
        self._history = np.full((rows, len(LEADS), 2 * self._length), np.nan, np.float32)

    def reset(self, row: int) -> None:
        """Forget a bed's signal, its beats and what waits: a new stream begins."""
        super().reset(row)
        self._history[row] = np.nan

    def restart(self, row: int) -> None:
        """Take note of nothing: every window stands alone."""

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
        """Take one frame of each of some beds; cut the windows that become due."""
        at = (frames % self._window_frames) * _MODEL_FRAME
        columns = at[:, None] + np.arange(_MODEL_FRAME)
        sparse = np.moveaxis(y[..., ::_STEP], 1, 2)
        self._history[rows[:, None], :, columns] = sparse
        self._history[rows[:, None], :, columns + self._length] = sparse
        self._take_beats(beats)
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
            self._hold(window, bool(live[i]))
        return due

    def _beats_from(self, row: int, start: int) -> NDArray[np.float32]:
        """Return a bed's R peaks in samples from ``start``; older ones are forgotten."""
        beats = self._beats[row]
        while beats and beats[0] < start:
            beats.popleft()
        return (np.array(beats) - start).astype(np.float32)


class TokenScheduler(Scheduler):
    """Keeps what is new of each bed at the model rate, and cuts the whole tokens of it at every hop.

    Tokens are counted from the first frame of a stream. What is less than a whole one waits for the next hop.
    """

    def __init__(self, rows: int, config: ScheduleConfig) -> None:
        super().__init__(rows, config)
        length = self._hop_frames * _MODEL_FRAME + _TOKEN
        self._new = np.zeros((rows, len(LEADS), length), np.float32)
        self._fill = np.zeros(rows, np.int64)
        self._begun = np.zeros(rows, np.bool_)
        self._start = np.zeros(rows, np.int64)
        self._fresh = np.ones(rows, np.bool_)

    def reset(self, row: int) -> None:
        """Forget a bed's signal, its beats and what waits: a new stream begins."""
        super().reset(row)
        self._pass_over(row)

    def restart(self, row: int) -> None:
        """Take note that the network has lost what it remembered of a bed: what comes next begins anew."""
        if self._waiting[row]:
            self._waiting[row][0] = replace(self._waiting[row][0], fresh=True)
        else:
            self._fresh[row] = True

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
        """Take one frame of each of some beds; cut the tokens that are new where a hop ends."""
        begins = rows[~self._begun[rows]]
        self._start[begins] = frames[~self._begun[rows]] * _MODEL_FRAME
        self._begun[begins] = True
        columns = self._fill[rows, None] + np.arange(_MODEL_FRAME)
        self._new[rows[:, None], :, columns] = np.moveaxis(y[..., ::_STEP], 1, 2)
        self._fill[rows] += _MODEL_FRAME
        self._take_beats(beats)
        if spared is not None:
            for row in rows[spared].tolist():
                self._pass_over(row)
        cut = ((frames + 1) % self._hop_frames == 0) & (self._fill[rows] >= _TOKEN)
        decides: NDArray[np.bool_] = cut & (frames + 1 >= self._first_frames)
        for i in np.flatnonzero(cut):
            row, start = int(rows[i]), int(self._start[rows[i]])
            length = int(self._fill[row]) // _TOKEN * _TOKEN
            rest = int(self._fill[row]) - length
            window = Window(
                row=row,
                start=start,
                stop=int(frames[i] + 1) * _MODEL_FRAME,
                samples=self._new[row, :, :length].copy(),
                last_sample_ns=int(last_sample_ns[i]),
                cut_ns=now_ns,
                beats=(np.array(self._beats[row]) - start).astype(np.float32),
                fresh=bool(self._fresh[row]),
                decides=bool(decides[i]),
            )
            self._new[row, :, :rest] = self._new[row, :, length : length + rest]
            self._fill[row] = rest
            self._start[row] = start + length
            self._beats[row].clear()
            self._fresh[row] = False
            self._hold(window, bool(live[i]))
        return decides

    def _pass_over(self, row: int) -> None:
        """Leave out what is new of a bed: it begins anew with what comes next."""
        self._beats[row].clear()
        self._fill[row] = 0
        self._begun[row] = False
        self._fresh[row] = True

    def _in_place_of(self, before: Window, window: Window) -> Window:
        """Join what is new to what waits; begin anew where that is too much."""
        if window.reach - before.start > BEHIND_S * MODEL_FS:
            return replace(window, fresh=True)
        samples = np.concatenate((before.samples, window.samples), axis=1)
        beats = np.concatenate((before.beats, window.beats + np.float32(window.start - before.start)))
        decides = before.decides or window.decides
        return replace(window, start=before.start, samples=samples, beats=beats, fresh=before.fresh, decides=decides)
