"""The recordings that the quality stage is fitted to and measured on: hearts, noise, and both mixed.

Noise of nstdb, scaled to an SNR per lead (power of the QRS complexes as nst defines it, peak-to-peak squared over 8), is mixed
into 60 s of every mitdb record of the split, and into quiet lines; rhythms and noise of vfdb, cudb, cinc2015 (16 s before true
alarms), cinc2017 as annotated. The fit takes the first 10 minutes of each noise, a measurement the last 5.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import wfdb
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

from ecgnat_devices.simulator import Artefact, Patient, Signal
from ecgnat_stream.codes import BEAT_OF_SYMBOL

__all__ = ["QualityPiece", "alarming", "annotated", "fibrillating", "handheld", "mixed"]

SNR_DB = (24, 18, 12, 6, 0, -6)
TUNED_S = 600


class QualityPiece(NamedTuple):
    """Samples ``(T, leads)``; what they are (group, from, to in s); its beats, s, if they are known; from which record."""

    samples: NDArray[np.floating]
    what: list[tuple[str, float, float]]
    beats: NDArray[np.float64] | None = None
    record: str = ""


def names(root: Path, database: str, split: str) -> list[str]:
    """Return the records of a split; what is not test is for training."""
    with (root / "splits.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["database"] == database]
    return [row["record"] for row in rows if (row["split"] == "test") == (split == "test")]


def annotated(root: Path, database: str, split: str) -> Iterator[QualityPiece]:
    """Yield whole records of mitdb or vfdb with their rhythms."""
    for name in names(root, database, split):
        record, marks = wfdb.rdrecord(str(root / database / name)), wfdb.rdann(str(root / database / name), "atr")
        notes = [(s / record.fs, n.strip("\0( ")) for s, n in zip(marks.sample, marks.aux_note, strict=True) if n.startswith("(")]
        stops = [at for at, _ in notes[1:]] + [record.sig_len / record.fs]
        what = [(f"{database} {note}", at, stop) for (at, note), stop in zip(notes, stops, strict=True)]
        ventricular = sum(symbol == "V" for symbol in marks.symbol) >= 100 if database == "mitdb" else False
        yield QualityPiece(record.p_signal, [*what, *([("mitdb with 100 PVC or more", 0.0, stops[-1])] if ventricular else [])])


def fibrillating(root: Path, split: str) -> Iterator[QualityPiece]:
    """Yield cudb with its fibrillation."""
    with (root / "cudb" / "vf_episodes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for name in names(root, "cudb", split):
        spans = [("cudb VF", int(row["start"]) / 250, int(row["stop"]) / 250) for row in rows if row["record"] == name]
        yield QualityPiece(wfdb.rdrecord(str(root / "cudb" / name)).p_signal, spans)


def alarming(root: Path, split: str) -> Iterator[QualityPiece]:
    """Yield cinc2015 with the 16 s before true alarms."""
    for name in names(root, "cinc2015", split):
        record = wfdb.rdrecord(str(root / "cinc2015" / name))
        alarm, verdict = (comment.strip("# ") for comment in record.comments[:2])
        stop = record.sig_len / record.fs
        if verdict == "True alarm":
            yield QualityPiece(record.p_signal, [(f"cinc2015 {alarm}", stop - 16, stop)])


def handheld(root: Path, split: str) -> Iterator[QualityPiece]:
    """Yield the first 150 recordings of each class of cinc2017."""
    signal = np.load(root / "cinc2017" / "signal_100hz_4uV_int16.npy", mmap_mode="r")
    chosen = set(names(root, "cinc2017", split))
    count: defaultdict[str, int] = defaultdict(int)
    with (root / "cinc2017" / "index.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["record"] in chosen and count[row["label"]] < 150:
                count[row["label"]] += 1
                start, stop = int(row["start"]), int(row["stop"])
                yield QualityPiece(
                    signal[start:stop, None] * np.float32(0.004), [(f"cinc2017 {row['label']}", 0.0, (stop - start) / 100)]
                )


def mixed(root: Path, split: str, tuning: bool) -> Iterator[QualityPiece]:
    """Yield the noises alone, then a minute of every record clean and with each noise, then quiet lines with noise.

    For the fit twice as many, half of them with noise in a part of the minute only, and larger or smaller as a whole.
    """
    rng, edge = np.random.default_rng(0), TUNED_S * 360
    noises = {name: wfdb.rdrecord(str(root / "nstdb" / name)).p_signal for name in ("bw", "em", "ma")}
    noises = {name: noise[:edge] if tuning else noise[edge:] for name, noise in noises.items()}
    noises["white"] = rng.normal(0.0, 0.2, (len(noises["bw"]), 2))
    for name, noise in noises.items():
        yield QualityPiece(noise, [(f"{name} alone", 0.0, len(noise) / 360)])
    minute = 60 * 360
    mixes = [(name, snr) for name in noises for snr in SNR_DB] * (2 if tuning else 1)

    def noisy(clean: NDArray[np.float64], height: NDArray[np.float64], name: str, snr: int) -> NDArray[np.float64]:
        begin = int(rng.integers(len(noises[name]) - minute))
        part = noises[name][begin : begin + minute, rng.permutation(2)]
        part = part - part.mean(axis=0)
        gain = np.sqrt(height**2 / 8 / part.var(axis=0) / 10 ** (snr / 10))
        if not tuning or rng.random() < 0.5:
            whole: NDArray[np.float64] = clean + gain * part
            return whole
        begin, stop = np.sort(rng.integers(0, minute, 2))
        within = (np.arange(minute) >= begin) & (np.arange(minute) < stop)
        scaled: NDArray[np.float64] = (clean + gain * part * within[:, None]) * np.exp(rng.normal(0.0, 0.35))
        return scaled

    for record in names(root, "mitdb", split):
        signal, marks = wfdb.rdrecord(str(root / "mitdb" / record)).p_signal, wfdb.rdann(str(root / "mitdb" / record), "atr")
        symbol = np.array(marks.symbol)
        beats, flutter = marks.sample[np.isin(symbol, list(BEAT_OF_SYMBOL))], marks.sample[np.isin(symbol, ["[", "]", "!"])]
        for name, snr in [("clean", 0)] * (6 if tuning else 3) + mixes:
            at = 0
            while (
                at == 0 or (inside := (beats > at) & (beats < at + minute)).sum() <= 25 or np.any(abs(flutter - at) < 2 * minute)
            ):
                at = int(rng.integers(1, len(signal) - minute))
            near = beats[(beats > at + 60) & (beats < at + minute - 60)]
            height = np.median([np.ptp(signal[beat - 18 : beat + 18], axis=0) for beat in near], axis=0)
            part = signal[at : at + minute]
            part = part if name == "clean" else noisy(part, height, name, snr)
            yield QualityPiece(
                part, [(name if name == "clean" else f"{name} {snr} dB", 0.0, 60.0)], (beats[inside] - at) / 360, record
            )
    if tuning:
        yield from simulated()
    for turn in range(6):
        for name, snr in mixes[: len(noises) * len(SNR_DB)]:
            line = rng.normal(0.0, rng.choice([0.003, 0.008]), (minute, 2))
            line += 0.05 * np.sin(2 * np.pi * rng.uniform(0.1, 0.3) / 360 * np.arange(minute))[:, None]
            line = noisy(line, np.ones(2), name, snr)
            yield QualityPiece(line, [(f"quiet line, {name} {snr} dB", 0.0, 60.0)], np.zeros(0), f"line {turn}")


def simulated() -> Iterator[QualityPiece]:
    """Yield simulated minutes: cleaner than any recording, with artefacts, and white noise of every band and size alone."""
    rng = np.random.default_rng(1)
    kinds: tuple[Literal["", "noise", "muscle", "motion"], ...]
    kinds = ("", "", "noise", "noise", "muscle", "muscle", "motion", "motion")
    for seed, script in enumerate(("sinus", "af", "ectopy", "svt", "block", "sinus") * 3):
        for kind in kinds:
            level = float(np.exp(rng.uniform(np.log(0.05), np.log(1.5))))
            wrong = (Artefact(kind=kind, start_s=0.0, seconds=60.0, level_mv=level),) if kind else ()
            noise_mv, wander_mv = float(rng.choice([0.0, 0.01, 0.03])), 0.04 * (seed % 3)
            signal = Signal(
                fs=360, leads=("I", "V1"), seed=seed, script=script, noise_mv=noise_mv, wander_mv=wander_mv, artefacts=wrong
            )
            patient = Patient(signal)
            samples = patient.read(60 * 360).T
            beats = np.array([beat for beat in patient.truth.beats if beat < len(samples)]) / 360
            yield QualityPiece(samples, [(f"simulated {kind}".strip(), 0.0, 60.0)], beats, f"simulated {seed}")
    for turn in range(40):
        band = butter(2, (rng.uniform(3.0, 20.0), rng.uniform(35.0, 120.0)), "bandpass", fs=360, output="sos")
        noise = sosfilt(band, rng.normal(size=(60 * 360, 2)), axis=0)
        noise *= np.exp(rng.uniform(np.log(0.1), np.log(2.0))) / noise.std()
        yield QualityPiece(noise, [("band noise", 0.0, 60.0)], np.zeros(0), f"band noise {turn}")
