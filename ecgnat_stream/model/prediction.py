"""What a network says of some windows, as probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Prediction"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """Probabilities for a batch of windows.

    Parameters
    ----------
    rhythm
        ``(B, P, 8)`` over ``codes.RHYTHMS``, each token sums to 1; token p speaks for window time ``[p, p + 1) * token_s``.
        The last token may reach beyond the window.
    window
        ``(B, K)`` diagnostic statements, independent of each other; names in :attr:`Predictor.window_classes`.
    screen
        ``(B, 4)`` over ``codes.SCREENS``, sums to 1.
    beat
        ``(B, 4 P, 2 + 5)`` per token of 80 ms: probability that an R peak lies in it, where in it (0..1), and probabilities over
        ``codes.BEATS``.
    without_beats
        ``(B,)`` whether a network that reads heartbeats was given none within the window, so that it read tiles of 0.96 s alone;
        False for the others.
    once
        Whether every token is said once, with all its past, by a network that goes token by token. Then ``window`` and ``screen``
        are ``(B, 0)``, and tokens behind the end of a row NaN.
    covers
        Samples that a row speaks for, back from the end of its window; None: all of the window and no more. A network that goes
        beat by beat is given what is new, and speaks for the last 10 s.
    ready_ns
        Host monotonic time when the batch was ready.
    took_s
        Time in the worker, s.
    """

    rhythm: NDArray[np.float32]
    window: NDArray[np.float32]
    screen: NDArray[np.float32]
    beat: NDArray[np.float32]
    without_beats: NDArray[np.bool_]
    token_s: float
    ready_ns: int
    took_s: float
    once: bool = False
    covers: int | None = None
