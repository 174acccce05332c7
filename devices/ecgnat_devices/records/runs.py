"""Recordings with holes: runs of samples that follow one another, each with its place in time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ecgnat_devices.records.contents import Values

__all__ = ["Run", "read_runs"]


@dataclass(frozen=True, slots=True)
class Run:
    """Samples without a hole.

    Parameters
    ----------
    start
        Index of the first sample in the recording, holes counted.
    at
        Index of the first sample in the file, where there are no holes.
    length
        How many.
    """

    start: int
    at: int
    length: int


def read_runs(
    runs: Sequence[Run], rows: Sequence[int], start: int, stop: int, read: Callable[[Sequence[int], int, int], Values]
) -> Values:
    """Read a part of a recording with holes; NaN in these.

    Parameters
    ----------
    runs
        In the order of time; they do not overlap.
    rows
        Which signals.
    start, stop
        Samples of the recording, holes counted.
    read
        Reads the file, where there are no holes: ``read(rows, at, at_stop)``.
    """
    values = np.full((len(rows), stop - start), np.nan)
    begin = bisect_right(runs, start, key=lambda run: run.start)  # a recording can have many
    for run in runs[max(0, begin - 1) :]:
        if run.start >= stop:
            break
        first, last = max(start, run.start), min(stop, run.start + run.length)
        if first < last:
            offset = run.at - run.start
            values[:, first - start : last - start] = read(rows, first + offset, last + offset)
    return values
