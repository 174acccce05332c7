"""Beats of windows by a detector that is not ours, and how the two compare: xqrs of the WFDB package.

    python -m train.xqrs --cache runs/cache [--split train] [--database mitdb]

Windows of 10 s are cut from the records of a split whose beats are annotated. Printed are sensitivity and positive predictivity
within 50, 75 and 150 ms (EC57) of :func:`ecgnat_stream.beats.find_beats`, of the same detector over whole records and of xqrs,
for whole windows and for their first and last second. It is for looking: nothing is fitted here.

Shapes: B window, T time (100 Hz), N beat.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import wfdb.processing
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ecgnat_stream.beats import QrsDetector, find_beats
from ecgnat_stream.score.compare import MATCH_S, match_beats
from ecgnat_stream.signal import FRAME, FS, LEADS, MODEL_FS
from train.data.labels import allow
from train.data.pack import Cached
from train.data.sample import Cache

__all__ = ["Cut", "agreement", "cut_windows", "record_beats", "xqrs_beats"]

_LENGTH = 10 * MODEL_FS
_TOLERANCES_S = (0.05, 0.075, MATCH_S)
_BATCH = 32
_FLAT_MV = 0.02
_VF = allow("VF")
_PLACE = 8
"""Samples about the place that xqrs gives (up to 60 ms from the R peak at this rate) where the largest value is the peak."""

_Beats = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cut:
    """A window ``(12, T)``, its annotated R peaks, and those detected in the whole record, in samples from its start."""

    samples: NDArray[np.float32]
    stated: _Beats
    streamed: _Beats


def xqrs_beats(windows: NDArray[np.floating]) -> NDArray[np.float32]:
    """Find the R peaks of windows with ``wfdb.processing.xqrs_detect`` on each window's best lead.

    The best lead is the one whose slopes are steepest beside its usual slope. Each beat is placed at the largest value nearby.

    Parameters
    ----------
    windows
        ``(B, 12, T)`` mV at 100 Hz, NaN where a lead or a sample is missing.

    Returns
    -------
    NDArray
        ``(B, N)`` R peaks in samples from the start of the window, ascending, NaN behind the last.

    Raises
    ------
    ValueError
        For any other shape.
    """
    if windows.ndim != 3 or windows.shape[1] != len(LEADS) or windows.shape[2] == 0:
        raise ValueError(f"want windows (B, {len(LEADS)}, T), got {windows.shape}")
    return _padded([_xqrs(window) for window in windows])


def _xqrs(window: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the R peaks of ``(12, T)``."""
    there = np.isfinite(window)
    filled = np.where(there, window, 0.0).astype(np.float64)
    usable = (2 * there.sum(axis=1) >= window.shape[1]) & (np.ptp(filled, axis=1) >= _FLAT_MV)
    if not usable.any() or window.shape[1] < MODEL_FS:
        return np.zeros(0)
    slope = np.abs(np.diff(filled, axis=1))
    steep = np.where(usable, np.quantile(slope, 0.99, axis=1) / np.maximum(slope.mean(axis=1), 1e-9), -1.0)
    y = filled[steep.argmax()]
    found = np.asarray(wfdb.processing.xqrs_detect(y, MODEL_FS, verbose=False), np.intp)
    near = np.clip(found[:, None] + np.arange(-_PLACE, _PLACE + 1), 0, len(y) - 1)
    best = np.abs(y[near] - np.median(y)).argmax(axis=1)
    return np.unique(np.take_along_axis(near, best[:, None], axis=1)).astype(np.float64)


def _padded(beats: Sequence[NDArray[np.floating]]) -> NDArray[np.float32]:
    """Return ``(B, N)``, NaN behind the last."""
    out = np.full((len(beats), max(1, *(len(own) for own in beats), 1)), np.nan, np.float32)
    for row, own in zip(out, beats, strict=True):
        row[: len(own)] = own
    return out


def record_beats(leads: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the R peaks of a whole record ``(12, T)`` in samples at 100 Hz, by the streaming detector.

    The signal between two samples is their mean: the rate of the detector is twice that of the network.
    """
    detector, row = QrsDetector(1), np.array([0])
    between: NDArray[np.float32] = (leads + np.concatenate([leads[:, 1:], leads[:, -1:]], axis=1)) / 2
    wide: NDArray[np.float32] = np.stack([leads, between], axis=2).reshape(len(LEADS), -1)
    sqi = np.where(np.isfinite(leads).any(axis=1), 1.0, 0.0)[None]
    found: list[NDArray[np.float64]] = [
        detector.process(row, np.array([k]), wide[None, :, k * FRAME : (k + 1) * FRAME], sqi).at
        for k in range(wide.shape[1] // FRAME)
    ]
    return np.sort(np.concatenate([np.zeros(0), *found])) * MODEL_FS / FS


def cut_windows(cache: Cache, records: Sequence[Cached], every_s: float = 30.0) -> list[Cut]:
    """Cut windows in which every beat is annotated; none with ventricular fibrillation, which has no beats."""
    cuts: list[Cut] = []
    for record in records:
        streamed = record_beats(cache.cut(record, 0, record.length)[0])
        for start in range(0, record.length - _LENGTH + 1, round(every_s * MODEL_FS)):
            window = cache.window(record, start, _LENGTH)
            if window.beats is None or window.marked[0] > 0 or window.marked[1] < _LENGTH or bool(np.any(window.sets == _VF)):
                continue
            own = streamed[(streamed >= start) & (streamed < start + _LENGTH)] - start
            cuts.append(Cut(window.leads, np.sort(window.beats[:, 0]), own))
    return cuts


def agreement(
    stated: Sequence[NDArray[np.floating]],
    said: Sequence[NDArray[np.floating]],
    tolerance_s: float,
    start_s: float,
    stop_s: float,
) -> tuple[float, float]:
    """Return sensitivity and positive predictivity of the beats between two times of the windows; NaN where there are none."""
    start, stop = start_s * MODEL_FS, stop_s * MODEL_FS
    counts = np.zeros(4)
    for truth, claims in zip(stated, said, strict=True):
        claim = claims[np.isfinite(claims)]
        found, by = match_beats(truth, claim, tolerance_s * MODEL_FS)
        inside, within = (truth >= start) & (truth < stop), (claim >= start) & (claim < stop)
        counts += inside[found].sum(), inside.sum(), within[by].sum(), within.sum()
    hit, beats, right, all_said = counts
    return float(hit / beats) if beats else float("nan"), float(right / all_said) if all_said else float("nan")


def _timed(
    detect: Callable[[NDArray[np.floating]], NDArray[np.float32]], windows: NDArray[np.float32]
) -> tuple[list[_Beats], float]:
    """Return the beats of each window, and the ms of processor time that 32 windows take."""
    found: list[_Beats] = []
    began = time.process_time()
    for first in range(0, len(windows), _BATCH):
        found += list(detect(windows[first : first + _BATCH]))
    return found, (time.process_time() - began) * 1e3 * _BATCH / len(windows)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--split", default="train", help="whose records; no annotated beats are in val")
    parser.add_argument("--database", default="mitdb")
    parser.add_argument("--every", type=float, default=30.0, help="s between the starts of two windows")
    arguments = parser.parse_args()
    cache = Cache(arguments.cache)
    records = [r for r in cache.records if (r.database, r.split) == (arguments.database, arguments.split) and r.beats > 0]
    cuts = cut_windows(cache, records, arguments.every)
    if not cuts:
        parser.error(f"{arguments.cache} has no windows of {arguments.database}, split {arguments.split}, with annotated beats")
    windows, stated = np.stack([cut.samples for cut in cuts]), [cut.stated for cut in cuts]
    rows: dict[str, tuple[list[_Beats], float]] = {
        "find_beats": _timed(find_beats, windows),
        "whole record": ([cut.streamed for cut in cuts], float("nan")),
        "xqrs": _timed(xqrs_beats, windows),
    }
    table = Table(title=f"{len(cuts)} windows of {len(records)} records, {arguments.database} {arguments.split}: Se / +P in %")
    for column in ("detector", *(f"{s * 1000:g} ms" for s in _TOLERANCES_S), "first second", "last second", "ms per 32"):
        table.add_column(column)
    spans = [(tolerance, 0.0, 10.0) for tolerance in _TOLERANCES_S] + [(MATCH_S, 0.0, 1.0), (MATCH_S, 9.0, 10.0)]
    for name, (said, cost_ms) in rows.items():
        figures = (agreement(stated, said, *span) for span in spans)
        shown = (f"{100 * sensitivity:.2f} / {100 * predictivity:.2f}" for sensitivity, predictivity in figures)
        table.add_row(name, *shown, f"{cost_ms:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
