"""Beat tokens of running streams, for incremental execution: each heartbeat is cut once, not in every window that holds it.

In: blocks at 100 Hz in mV and the R peaks known by then. Out: :class:`StreamToken`, complete ones only. A token is complete when
the next beat is known, or when it is certain that none comes within 3 s of its own: RR is clamped there, and the mid-point to a
later beat lies far behind the wave, so that no later beat could change the token. Hence blocks of any size give the same tokens.
Where there is no beat there is no token; :meth:`TokenStream.window_of` gives tiles there.

Tokens are in mV: they are scaled by the window in which they are used.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ecgnat_stream.model.tokens import LONGEST_RR_S, R_AT, TOKEN_SAMPLES, BeatTokens, beat_tokens
from ecgnat_stream.signal import LEADS, MODEL_FS

__all__ = ["StreamToken", "TokenStream"]

_WAIT = round(LONGEST_RR_S * MODEL_FS)


class StreamToken(NamedTuple):
    """One heartbeat.

    Parameters
    ----------
    row
        Bed.
    at
        R peak in samples since the stream began.
    wave
        ``(12, 96)`` mV, R at sample 48, NaN where missing or beyond the mid-points to the neighbours.
    rr_before_s, rr_after_s
        Clamped to 3; before is 0 for the first beat.
    """

    row: int
    at: float
    wave: NDArray[np.float32]
    rr_before_s: float
    rr_after_s: float


class TokenStream:
    """Cuts the streams of all rows into heartbeats.

    Parameters
    ----------
    rows
        Number of rows (beds).
    kept_s
        Signal kept per row, s: the longest window of :meth:`window_of`, at least 4 s.

    Raises
    ------
    ValueError
        If less is to be kept than a token may wait for its successor.
    """

    def __init__(self, rows: int, kept_s: float = 10.0) -> None:
        self._kept = round(kept_s * MODEL_FS)
        if self._kept < _WAIT + TOKEN_SAMPLES:
            raise ValueError(f"{kept_s=}: at least 4 s must be kept, a beat waits up to {LONGEST_RR_S:g} s for the next one")
        self._signal = np.full((rows, len(LEADS), self._kept), np.nan, np.float32)
        self._stop = np.zeros(rows, np.int64)
        self._beats: list[deque[float]] = [deque() for _ in range(rows)]
        self._cut = np.full(rows, -np.inf)  # the last beat that was given out
        self._certain = np.full(rows, -np.inf)

    def reset(self, row: int) -> None:
        """Forget everything about a row: a new stream begins at sample 0."""
        self._signal[row] = np.nan
        self._stop[row] = 0
        self._beats[row].clear()
        self._cut[row] = self._certain[row] = -np.inf

    def add(
        self, row: int, start: int, samples: NDArray[np.float32], beats: NDArray[np.floating], certain: float
    ) -> list[StreamToken]:
        """Take a block of a row; return the tokens that are complete by now, in order.

        Parameters
        ----------
        start, samples
            Index of the first sample, and ``(12, n)`` mV at 100 Hz; what was left out before ``start`` becomes NaN.
        beats
            R peaks that became known, in samples since the stream began, ascending.
        certain
            All beats before this sample are known; no more than have come.

        Raises
        ------
        ValueError
            For another shape, samples that came before, or beats that are not in order or were said not to be there.
        """
        if samples.ndim != 2 or samples.shape[0] != len(LEADS):
            raise ValueError(f"want samples ({len(LEADS)}, n), got {samples.shape}")
        if start < self._stop[row]:
            raise ValueError(
                f"samples of row {row} from {start} on, but those up to {self._stop[row]} have come: reset() it first"
            )
        own = self._beats[row]
        for at in np.asarray(beats, np.float64).tolist():
            last = own[-1] if own else -np.inf
            if not (at > last and at >= self._certain[row]):
                raise ValueError(
                    f"beat of row {row} at {at}: there came beats up to {last}, and all before {self._certain[row]} were certain"
                )
            own.append(at)
        tokens: list[StreamToken] = []
        for first in range(0, max(samples.shape[1], 1), MODEL_FS):  # of a long block nothing is pushed out before it is cut
            self._take(row, start + first, samples[:, first : first + MODEL_FS])
            self._certain[row] = max(self._certain[row], min(certain, float(self._stop[row])))
            tokens += self._complete(row)
        return tokens

    def window_of(self, row: int, length: int = 10 * MODEL_FS) -> BeatTokens:
        """Return the tokens of a row's last ``length`` samples, as ``beat_tokens`` gives them for that window, a batch of one."""
        if not 0 < length <= self._kept:
            raise ValueError(f"{length=}: must be 1 to {self._kept} samples, set kept_s")
        start = int(self._stop[row]) - length
        beats = np.array([at for at in self._beats[row] if at >= start]) - start
        window = self._signal[row, :, self._kept - length :]
        return beat_tokens(torch.from_numpy(window.copy())[None], torch.from_numpy(beats.astype(np.float32))[None])

    def _take(self, row: int, start: int, samples: NDArray[np.float32]) -> None:
        """Push a block behind what is kept."""
        gap = min(start - int(self._stop[row]), self._kept)
        missing = np.full((len(LEADS), gap), np.nan, np.float32)
        self._signal[row] = np.concatenate([self._signal[row], missing, samples], axis=1)[:, -self._kept :]
        self._stop[row] = start + samples.shape[1]

    def _complete(self, row: int) -> list[StreamToken]:
        """Return what is complete and was not given out; forget beats that neither a token nor a window needs."""
        own, tokens = list(self._beats[row]), []
        for i, at in enumerate(own):
            if at <= self._cut[row]:
                continue
            after = own[i + 1] if i + 1 < len(own) else np.inf
            if not (np.isfinite(after) or self._certain[row] >= at + _WAIT) or self._stop[row] < _wave_stop(at, after):
                break
            before = own[i - 1] if i else -np.inf
            tokens.append(self._token(row, before, at, after))
            self._cut[row] = at
        keep_from = self._stop[row] - self._kept
        beats = self._beats[row]
        while len(beats) > 1 and beats[1] < keep_from and beats[1] <= self._cut[row]:
            beats.popleft()
        return tokens

    def _token(self, row: int, before: float, at: float, after: float) -> StreamToken:
        sample = round(at) - R_AT + np.arange(TOKEN_SAMPLES)
        column = sample - (int(self._stop[row]) - self._kept)
        inside = (sample >= np.ceil((before + at) / 2)) & (sample < np.ceil((at + after) / 2))
        inside &= (column >= 0) & (column < self._kept)
        wave = np.where(inside, self._signal[row][:, np.clip(column, 0, self._kept - 1)], np.float32(np.nan))
        rr_before_s = min((at - before) / MODEL_FS, LONGEST_RR_S) if np.isfinite(before) else 0.0
        return StreamToken(row, at, wave, rr_before_s, min((after - at) / MODEL_FS, LONGEST_RR_S))


def _wave_stop(at: float, after: float) -> float:
    """Return how many samples must have come for a token's wave."""
    return min(float(round(at) - R_AT + TOKEN_SAMPLES), float(np.ceil((at + after) / 2)))
