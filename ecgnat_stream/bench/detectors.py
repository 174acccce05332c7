"""QRS detection: ours, which runs along with the signal of many beds, against detectors that see all of one lead at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.beats import QrsDetector
from ecgnat_stream.bench.paired import pair
from ecgnat_stream.bench.report import Ratio
from ecgnat_stream.bench.rivals import Missing, neurokit, xqrs
from ecgnat_stream.condition import Conditioner
from ecgnat_stream.errors import EcgnatError
from ecgnat_stream.signal import FRAME, FS, LEADS

__all__ = ["detector_ratios", "one_lead", "streaming_detector"]

_RECORD, _SECONDS = "101", 60
"""A training record of mitdb (splits.csv), where there is one."""
_BEDS = 64


def one_lead(simulated: NDArray[np.float32], fs: float) -> tuple[NDArray[np.float64], float, str]:
    """Return a minute of one lead in mV, its rate, and what it is: of mitdb where ECGNAT_DATA holds it, else simulated."""
    record = Path(os.environ.get("ECGNAT_DATA", "")) / "mitdb" / _RECORD
    if os.environ.get("ECGNAT_DATA") and record.with_suffix(".hea").is_file():
        import wfdb

        rate = wfdb.rdheader(str(record)).fs
        samples = wfdb.rdrecord(str(record), sampto=round(rate * _SECONDS)).p_signal[:, 0]
        return np.asarray(samples, np.float64), float(rate), f"mitdb/{_RECORD}"
    return simulated[0].astype(np.float64), fs, "a simulated patient"


def streaming_detector(lead: NDArray[np.float64], fs: float, beds: int) -> Callable[[], NDArray[np.float64]]:
    """Return what conditions and detects one lead in so many beds, frame by frame; it returns the beats of the first, in s."""
    before = round(fs)
    samples = np.full((beds, len(LEADS), len(lead) + 2 * before), np.nan, np.float32)
    samples[:, 1, before:-before] = lead
    rows, quality = np.arange(beds), np.zeros((beds, len(LEADS)), np.float32)
    quality[:, 1] = 1.0
    frames = int(len(lead) / fs * FS) // FRAME - 1

    def detect() -> NDArray[np.float64]:
        conditioner, detector, found = Conditioner(fs, beds), QrsDetector(beds), [np.zeros(0)]
        for k in range(frames):
            number = np.full(beds, k)
            start, length = conditioner.needed(number)
            raw = samples[:, :, int(start[0]) + before : int(start[0]) + before + length]
            beats = detector.process(rows, number, conditioner.process(rows, number, raw), quality)
            found.append(beats.at[beats.row == 0] / FS)
        return np.sort(np.concatenate(found))

    return detect


def detector_ratios(simulated: NDArray[np.float32], fs: float, seconds: float, missing: list[str]) -> Iterator[Ratio]:
    """Measure ours with 64 beds, and with one, against each of the others; what is not there is added to ``missing``."""
    lead, rate, what = one_lead(simulated, fs)
    length_s = len(lead) / rate
    for name, build in (("wfdb xqrs", xqrs), ("neurokit2", neurokit)):
        try:
            detect = build()
            beats = len(detect(lead, rate))
        except Missing as error:
            missing.append(str(error))
            continue
        except Exception as error:  # noqa: BLE001 - a library of others: whatever fails in it is said, and the rest goes on
            missing.append(f"{name} does not run here: {type(error).__name__}: {EcgnatError(str(error))}")
            continue
        for beds in (_BEDS, 1):
            ours = streaming_detector(lead, rate, beds)
            own = len(ours())
            found = pair(ours, lambda d=detect: d(lead, rate), seconds)  # type: ignore[misc]
            yield Ratio(
                group="QRS",
                what=f"conditioning and QRS detection, {beds} {'beds' if beds > 1 else 'bed'}",
                against=name,
                unit="ms per lead and minute",
                ours=round(found.ours_s / beds / length_s * 60e3, 3),
                other=round(found.other_s / length_s * 60e3, 3),
                times=round(found.times * beds, 3),
                p10=round(found.p10 * beds, 3),
                p90=round(found.p90 * beds, 3),
                pairs=found.pairs,
                note=f"{what}, {own} beats found, {name} {beats}",
            )
