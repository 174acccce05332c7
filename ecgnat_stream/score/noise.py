"""The noise stress test: recorded electrode motion added to a record at a stated signal-to-noise ratio.

As the program ``nst`` of the WFDB tools and the MIT-BIH Noise Stress Test Database do it (Moody 1984): noise for two minutes in
turn with two clean minutes, from the fifth minute on. The signal's power is that of a sine with the mean peak-to-peak amplitude
of the QRS complexes, ``pp^2 / 8``; the noise's is its mean square over 1 s pieces. Both means leave out 5 % at either end.
"""

from __future__ import annotations

import shutil
from math import gcd
from pathlib import Path

import numpy as np
import wfdb
from numpy.typing import NDArray
from scipy.signal import resample_poly
from scipy.stats import trim_mean

from ecgnat_stream.errors import DeviceError, InputError
from ecgnat_stream.score.records import ScoreError, open_leads
from ecgnat_stream.score.truth import Truth
from ecgnat_stream.signal import StreamInfo, same_rate

__all__ = ["mix", "noisy_record", "power_of_noise", "power_of_signal"]

FROM_S, TURN_S = 300.0, 120.0
_HALF_QRS_S = 0.05
_TRIMMED = 0.05
_GAIN = 1000.0
"""Steps per mV of the mixed record: 1 uV, of which 24 bits hold 8 V either way."""


def power_of_signal(lead: NDArray[np.float64], fs: float, beats_s: NDArray[np.float64]) -> float:
    """Return ``pp^2 / 8`` with the mean peak-to-peak amplitude within 50 ms of the beats."""
    half = round(_HALF_QRS_S * fs)
    spans = [lead[at - half : at + half + 1] for at in np.round(beats_s * fs).astype(int) if half <= at < len(lead) - half]
    heights = [float(np.ptp(part)) for part in spans if np.isfinite(part).all()]
    if not heights:
        raise ScoreError("no complete beat to measure the signal's amplitude by")
    return float(trim_mean(heights, _TRIMMED)) ** 2 / 8


def power_of_noise(noise: NDArray[np.float64], fs: float) -> float:
    """Return the mean square of 1 s pieces about their own mean."""
    size = round(fs)
    pieces = noise[: len(noise) // size * size].reshape(-1, size)
    return float(trim_mean(pieces.std(axis=1), _TRIMMED)) ** 2


def mix(
    leads: NDArray[np.float64], fs: float, noise: NDArray[np.float64], beats_s: NDArray[np.float64], snr_db: float
) -> NDArray[np.float64]:
    """Return ``(L, T)`` leads with noise ``(K, U)`` of the same rate added; noise i goes to lead i, in turn, and is repeated."""
    length = leads.shape[1]
    at_s = np.arange(length) / fs
    on = (at_s >= FROM_S) & ((at_s - FROM_S) % (2 * TURN_S) < TURN_S)
    mixed = leads.copy()
    for i, lead in enumerate(leads):
        one = np.resize(noise[i % len(noise)], length)
        power = power_of_noise(one, fs)
        gain = np.sqrt(power_of_signal(lead, fs, beats_s) / (power * 10 ** (snr_db / 10))) if power else 0.0
        mixed[i] += np.where(on, gain * one, 0.0)
    return mixed


def noisy_record(truth: Truth, noise: Path, snr_db: float, folder: Path) -> Path:
    """Write a record with noise into a folder, beside a copy of its annotations, and return its path without suffix.

    Raises
    ------
    ScoreError
        If either cannot be read, or no beats are annotated, by which the noise could be scaled.
    """
    if truth.beats_s is None:
        raise ScoreError(f"{truth.database}/{truth.name}: has no annotated beats to scale the noise by")
    try:
        info, leads = _whole(truth.path)
        other, added = _whole(noise.with_suffix(""))
        added = np.nan_to_num(added)
        added -= added.mean(axis=1, keepdims=True)
        added = np.asarray(resample_poly(added, *_ratio(info.fs, other.fs), axis=1), np.float64)
        mixed = mix(leads, info.fs, added, truth.beats_s, snr_db)
        _write(truth, folder, mixed, info)
    except (DeviceError, InputError, ValueError, TypeError, IndexError, OSError) as error:
        raise ScoreError(f"{truth.database}/{truth.name}: noise cannot be added ({error})") from error
    return folder / truth.name


def _whole(path: Path) -> tuple[StreamInfo, NDArray[np.float64]]:
    info, read = open_leads(path)
    return info, read(0, info.total or 0).astype(np.float64)


def _ratio(to_hz: float, from_hz: float) -> tuple[int, int]:
    up, down = round(100 * to_hz), round(100 * from_hz)
    common = gcd(up, down)
    return up // common, down // common


def _write(truth: Truth, folder: Path, leads: NDArray[np.float64], info: StreamInfo) -> None:
    if not same_rate(info.fs, truth.fs):
        raise ValueError(f"its annotations count at {truth.fs:g} Hz, its leads have {info.fs:g} Hz")
    folder.mkdir(parents=True, exist_ok=True)
    count = len(leads)
    wfdb.wrsamp(
        truth.name,
        truth.fs,
        ["mV"] * count,
        list(info.leads),
        p_signal=leads.T,
        fmt=["24"] * count,
        adc_gain=[_GAIN] * count,
        baseline=[0] * count,
        write_dir=str(folder),
    )
    for extension in ("atr", "ann"):
        marks = truth.path.with_name(f"{truth.name}.{extension}")
        if marks.is_file():
            shutil.copy(marks, folder)
