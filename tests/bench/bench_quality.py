"""What the quality stage makes of noise and of hearts, and whether its index is the probability that it says it is.

    python tests/bench/bench_quality.py --data ROOT [--split test] [--json FILE] [--fit | --calibration]

Noise of nstdb, scaled to an SNR per lead (power of the QRS complexes as nst defines it, peak-to-peak squared over 8), is mixed
into 60 s of every mitdb record of the split, and into quiet lines; rhythms and noise of vfdb, cudb, cinc2015 (16 s before true
alarms), cinc2017 as annotated. Prints per group the mean index, the share of noisy and moving lead-frames, and the share of
frames in which the bed is usable. The last 5 minutes of each noise are used.

With --calibration also the reliability of the index: QRS complexes are detected on every lead alone, and a frame's index is held
against whether no beat was missed and none false (150 ms) in the 4 s before its end. On training records the weights are fitted
anew without a fifth of the records and tried on these (``as shipped``: not so), on test records those shipped are used. With
--fit, fits ``ecgnat_stream/weights/quality.json`` on the training records and the first 10 minutes of each noise.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import wfdb
from numpy.typing import NDArray
from quality_fit import Frames, Samples, fit, reliability, samples
from scipy.signal import butter, sosfilt

from ecgnat_devices.simulator import Artefact, Patient, Signal
from ecgnat_stream.beats import QrsDetector
from ecgnat_stream.condition import Conditioner
from ecgnat_stream.quality import FEATURES, STATES, QualityEstimator, weigh
from ecgnat_stream.signal import FRAME_S, FS

SLOTS = (0, 6)  # I and V1, from which no other lead is derived
SNR_DB = (24, 18, 12, 6, 0, -6)
TUNED_S = 600
SKIP = 10  # frames at the beginning of every piece
LATEST = 3  # frames at its end whose beats are not all decided on
LOOK_S = 4.0
MATCH_S = 0.15
FOLDS = 5
BEATS = list("NLRBAaJSVrFejnE/fQ?")
WEIGHTS = Path(__file__).parents[2] / "ecgnat_stream" / "weights" / "quality.json"


class Piece(NamedTuple):
    """Samples ``(T, leads)``; what they are (group, from, to in s); its beats, s, if they are known; from which record."""

    samples: NDArray[np.float32]
    what: list[tuple[str, float, float]]
    beats: NDArray[np.float64] | None = None
    record: str = ""


class Listening(QualityEstimator):
    """Keeps what is weighed of every row."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self.last = np.zeros((len(FEATURES), rows, 12), np.float32)

    def measure(self, rows: NDArray[np.intp], y: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Measure as the stage does."""
        measured, span = super().measure(rows, y)
        self.last[:, rows] = measured
        return measured, span


def names(root: Path, database: str, split: str) -> list[str]:
    """Return the records of a split; what is not test is for training."""
    with (root / "splits.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["database"] == database]
    return [row["record"] for row in rows if (row["split"] == "test") == (split == "test")]


def annotated(root: Path, database: str, split: str) -> Iterator[Piece]:
    """Yield whole records of mitdb or vfdb with their rhythms."""
    for name in names(root, database, split):
        record, marks = wfdb.rdrecord(str(root / database / name)), wfdb.rdann(str(root / database / name), "atr")
        notes = [(s / record.fs, n.strip("\0( ")) for s, n in zip(marks.sample, marks.aux_note, strict=True) if n.startswith("(")]
        stops = [at for at, _ in notes[1:]] + [record.sig_len / record.fs]
        what = [(f"{database} {note}", at, stop) for (at, note), stop in zip(notes, stops, strict=True)]
        ventricular = sum(symbol == "V" for symbol in marks.symbol) >= 100 if database == "mitdb" else False
        yield Piece(record.p_signal, [*what, *([("mitdb with 100 PVC or more", 0.0, stops[-1])] if ventricular else [])])


def fibrillating(root: Path, split: str) -> Iterator[Piece]:
    """Yield cudb with its fibrillation."""
    with (root / "cudb" / "vf_episodes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for name in names(root, "cudb", split):
        spans = [("cudb VF", int(row["start"]) / 250, int(row["stop"]) / 250) for row in rows if row["record"] == name]
        yield Piece(wfdb.rdrecord(str(root / "cudb" / name)).p_signal, spans)


def alarming(root: Path, split: str) -> Iterator[Piece]:
    """Yield cinc2015 with the 16 s before true alarms."""
    for name in names(root, "cinc2015", split):
        record = wfdb.rdrecord(str(root / "cinc2015" / name))
        alarm, verdict = (comment.strip("# ") for comment in record.comments[:2])
        stop = record.sig_len / record.fs
        if verdict == "True alarm":
            yield Piece(record.p_signal, [(f"cinc2015 {alarm}", stop - 16, stop)])


def handheld(root: Path, split: str) -> Iterator[Piece]:
    """Yield the first 150 recordings of each class of cinc2017."""
    signal = np.load(root / "cinc2017" / "signal_100hz_4uV_int16.npy", mmap_mode="r")
    chosen, count = set(names(root, "cinc2017", split)), defaultdict(int)
    with (root / "cinc2017" / "index.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["record"] in chosen and count[row["label"]] < 150:
                count[row["label"]] += 1
                start, stop = int(row["start"]), int(row["stop"])
                yield Piece(
                    signal[start:stop, None] * np.float32(0.004), [(f"cinc2017 {row['label']}", 0.0, (stop - start) / 100)]
                )


def mixed(root: Path, split: str, tuning: bool) -> Iterator[Piece]:
    """Yield the noises alone, then a minute of every record clean and with each noise, then quiet lines with noise.

    For the fit twice as many, half of them with noise in a part of the minute only, and larger or smaller as a whole.
    """
    rng, edge = np.random.default_rng(0), TUNED_S * 360
    noises = {name: wfdb.rdrecord(str(root / "nstdb" / name)).p_signal for name in ("bw", "em", "ma")}
    noises = {name: noise[:edge] if tuning else noise[edge:] for name, noise in noises.items()}
    noises["white"] = rng.normal(0.0, 0.2, (len(noises["bw"]), 2))
    for name, noise in noises.items():
        yield Piece(noise, [(f"{name} alone", 0.0, len(noise) / 360)])
    minute = 60 * 360
    mixes = [(name, snr) for name in noises for snr in SNR_DB] * (2 if tuning else 1)

    def noisy(clean: NDArray[np.float64], height: NDArray[np.float64], name: str, snr: int) -> NDArray[np.float64]:
        begin = int(rng.integers(len(noises[name]) - minute))
        part = noises[name][begin : begin + minute, rng.permutation(2)]
        part = part - part.mean(axis=0)
        gain = np.sqrt(height**2 / 8 / part.var(axis=0) / 10 ** (snr / 10))
        if not tuning or rng.random() < 0.5:
            return clean + gain * part
        begin, stop = np.sort(rng.integers(0, minute, 2))
        within = (np.arange(minute) >= begin) & (np.arange(minute) < stop)
        return (clean + gain * part * within[:, None]) * np.exp(rng.normal(0.0, 0.35))

    for record in names(root, "mitdb", split):
        signal, marks = wfdb.rdrecord(str(root / "mitdb" / record)).p_signal, wfdb.rdann(str(root / "mitdb" / record), "atr")
        symbol = np.array(marks.symbol)
        beats, flutter = marks.sample[np.isin(symbol, BEATS)], marks.sample[np.isin(symbol, ["[", "]", "!"])]
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
            yield Piece(part, [(name if name == "clean" else f"{name} {snr} dB", 0.0, 60.0)], (beats[inside] - at) / 360, record)
    if tuning:
        yield from simulated()
    for turn in range(6):
        for name, snr in mixes[: len(noises) * len(SNR_DB)]:
            line = rng.normal(0.0, rng.choice([0.003, 0.008]), (minute, 2))
            line += 0.05 * np.sin(2 * np.pi * rng.uniform(0.1, 0.3) / 360 * np.arange(minute))[:, None]
            line = noisy(line, np.ones(2), name, snr)
            yield Piece(line, [(f"quiet line, {name} {snr} dB", 0.0, 60.0)], np.zeros(0), f"line {turn}")


def simulated() -> Iterator[Piece]:
    """Yield simulated minutes: cleaner than any recording, with artefacts, and white noise of every band and size alone."""
    rng = np.random.default_rng(1)
    for seed, script in enumerate(("sinus", "af", "ectopy", "svt", "block", "sinus") * 3):
        for kind in ("", "", "noise", "noise", "muscle", "muscle", "motion", "motion"):
            level = float(np.exp(rng.uniform(np.log(0.05), np.log(1.5))))
            wrong = (Artefact(kind=kind, start_s=0.0, seconds=60.0, level_mv=level),) if kind else ()
            noise_mv, wander_mv = float(rng.choice([0.0, 0.01, 0.03])), 0.04 * (seed % 3)
            signal = Signal(
                fs=360, leads=("I", "V1"), seed=seed, script=script, noise_mv=noise_mv, wander_mv=wander_mv, artefacts=wrong
            )
            patient = Patient(signal)
            samples = patient.read(60 * 360).T
            beats = np.array([beat for beat in patient.truth.beats if beat < len(samples)]) / 360
            yield Piece(samples, [(f"simulated {kind}".strip(), 0.0, 60.0)], beats, f"simulated {seed}")
    for turn in range(40):
        band = butter(2, (rng.uniform(3.0, 20.0), rng.uniform(35.0, 120.0)), "bandpass", fs=360, output="sos")
        noise = sosfilt(band, rng.normal(size=(60 * 360, 2)), axis=0)
        noise *= np.exp(rng.uniform(np.log(0.1), np.log(2.0))) / noise.std()
        yield Piece(noise, [("band noise", 0.0, 60.0)], np.zeros(0), f"band noise {turn}")


def run(pieces: list[Piece], fs: float) -> Iterator[tuple[str, Frames]]:
    """Stream pieces side by side; yield each group with its frames."""
    rows, frames = np.arange(len(pieces)), np.array([int(len(piece.samples) / fs / FRAME_S) - 1 for piece in pieces])
    conditioner, estimator, off = Conditioner(fs, len(rows)), Listening(len(rows)), np.zeros((len(rows), 12), bool)
    slots, all_of = list(SLOTS[: pieces[0].samples.shape[1]]), []
    known = np.array([piece.beats is not None for piece in pieces])
    detectors, found = [QrsDetector(len(rows)) for _ in slots], [[] for _ in slots]
    for k in range(max(frames)):
        number = np.full(len(rows), k)
        starts, n = conditioner.needed(number)
        start, raw = int(starts[0]), np.full((len(rows), 12, n), np.nan, np.float32)
        for row, piece in enumerate(pieces):
            part = piece.samples[max(start, 0) : max(start + n, 0)]
            raw[row, slots, max(-start, 0) : max(-start, 0) + len(part)] = part.T
        y = conditioner.process(rows, number, raw)
        judged = estimator.process(rows, raw, y, off, fs)
        for slot, detector, times in zip(slots, detectors, found, strict=True):
            if known.all():
                alone = np.zeros((len(rows), 12), np.float32)
                alone[:, slot] = ~np.isnan(y[:, slot]).all(axis=1)
                beats = detector.process(rows, number, y, alone)
                times.append(np.column_stack([beats.row, beats.at / FS]))
        measured = estimator.last[:, :, slots].transpose(1, 2, 0)
        all_of.append((judged.sqi[:, slots], judged.state[:, slots], measured, judged.usable))
    sqi, state, measured, usable = (np.stack(part, axis=1) for part in zip(*all_of, strict=True))
    every = [np.concatenate(times) if times else np.zeros((0, 2)) for times in found]
    for row, piece in enumerate(pieces):
        verdict = np.full((frames[row], len(slots)), -1, np.int8)
        if known.all():
            verdict[:-LATEST] = np.column_stack(
                [right(piece.beats, np.sort(times[times[:, 0] == row, 1]), frames[row]) for times in every]
            )[:-LATEST]
        for group, begin, end in piece.what:
            of = slice(max(SKIP, int(begin / FRAME_S)), min(int(end / FRAME_S), frames[row]))
            names_of = np.full(len(usable[row, of]), piece.record)
            yield group, Frames(sqi[row, of], state[row, of], measured[row, of], verdict[of], usable[row, of], names_of)


def right(truth: NDArray[np.float64], found: NDArray[np.float64], frames: int) -> NDArray[np.int8]:
    """Return per frame whether no beat was missed and none false in the 4 s before its end, all of it within the piece."""
    wrong, i, j = [], 0, 0
    while i < len(truth) or j < len(found):
        if i < len(truth) and j < len(found) and abs(found[j] - truth[i]) <= MATCH_S:
            i, j = i + 1, j + 1
        elif j >= len(found) or (i < len(truth) and truth[i] < found[j]):
            wrong.append(truth[i])
            i += 1
        else:
            wrong.append(found[j])
            j += 1
    end = (np.arange(frames) + 1) * FRAME_S
    result = np.ones(frames, np.int8)
    for at in wrong:
        result[(end >= at) & (end < at + LOOK_S)] = 0
    result[end < 2 * LOOK_S] = -1
    return result


def everything(root: Path, split: str, tuning: bool) -> dict[str, Frames]:
    """Return every group's frames."""
    found: dict[str, list[Frames]] = defaultdict(list)
    noise = list(mixed(root, split, tuning))
    sources: list[tuple[list[Piece], float]] = [(noise[:4], 360), (list(alarming(root, split)), 250)]
    sources += [(noise[at : at + 300], 360) for at in range(4, len(noise), 300)]
    sources += [(list(annotated(root, "mitdb", split)), 360), (list(annotated(root, "vfdb", split)), 250)]
    sources += [(list(fibrillating(root, split)), 250), (list(handheld(root, split)), 100)]
    for pieces, fs in sources:
        for group, frames in run(pieces, fs):
            found[group].append(frames)
    return {group: Frames(*map(np.concatenate, zip(*found[group], strict=True))) for group in sorted(found)}


def calibration(root: Path, split: str, groups: dict[str, Frames]) -> dict[str, Any]:
    """Return the reliability of the index of records that the weights have not seen."""
    chosen = {
        group: frames for group, frames in groups.items() if (group.endswith("dB") and "line" not in group) or group == "clean"
    }
    x, index, truth, record = (
        np.concatenate(part)
        for part in zip(
            *[
                (
                    f.measured.reshape(-1, len(FEATURES)),
                    f.sqi.reshape(-1),
                    f.right.reshape(-1),
                    np.repeat(f.record, f.sqi.shape[1]),
                )
                for f in chosen.values()
            ],
            strict=True,
        )
    )
    known, shipped, index = truth >= 0, index, index.copy()
    if split == "train":
        data = samples(everything(root, "train", True))
        fold = {name: k % FOLDS for k, name in enumerate(np.unique(np.where(record == "202", "201", record)))}
        fold["202"] = fold.get("201", 0)  # one person
        for k in range(FOLDS):
            kept = np.array([fold.get(name, -1) != k for name in data.record])
            weights = fit(Samples(*(part[kept] for part in data)))
            of = np.array([fold[name] == k for name in record])
            index[of] = weigh(weights, x[of].T)[0]
    found = {"all": reliability(index[known], truth[known]), "as shipped": reliability(shipped[known], truth[known])}
    return found | {
        name: reliability(index[of & known], truth[of & known])
        for name, of in (
            (group, np.repeat([g == group for g in chosen], [f.sqi.size for f in chosen.values()])) for group in chosen
        )
    }


def main() -> None:
    """Print the table, or write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--calibration", action="store_true")
    arguments = parser.parse_args()
    if arguments.fit:
        weights = fit(samples(everything(arguments.data, "train", True)))
        WEIGHTS.write_bytes(msgspec.json.format(msgspec.json.encode(weights), indent=0) + b"\n")
        return
    groups = everything(arguments.data, arguments.split, False)
    report: dict[str, Any] = {}
    print(f"{'group':<34}{'minutes':>8}{'index':>8}{'right':>8}{'noisy %':>9}{'motion %':>9}{'other %':>9}{'usable %':>10}")
    for group, frames in groups.items():
        if not len(frames.usable):
            continue
        share = [float((frames.state == code).mean()) for code in range(len(STATES))]
        known = frames.right >= 0
        report[group] = row = {
            "minutes": round(len(frames.usable) * FRAME_S / 60, 1),
            "index": round(float(frames.sqi.mean()), 3),
            "right": round(float(frames.right[known].mean()), 3) if known.any() else None,
            "states": {state: round(part, 4) for state, part in zip(STATES, share, strict=True) if part},
            "usable": round(float(frames.usable.mean()), 4),
        }
        right_of = "" if row["right"] is None else f"{row['right']:.2f}"
        print(
            f"{group:<34}{row['minutes']:8.1f}{row['index']:8.2f}{right_of:>8}{100 * share[1]:9.1f}{100 * share[2]:9.1f}"
            f"{100 * sum(share[3:]):9.1f}{100 * row['usable']:10.1f}"
        )
    if arguments.calibration:
        report["calibration"] = calibration(arguments.data, arguments.split, groups)
        for group, found in report["calibration"].items():
            print(f"{group:<12} ECE {found['ece']:.3f}, Brier {found['brier']:.3f} (constant {found['brier_of_a_constant']:.3f})")
        for step in report["calibration"]["all"]["table"]:
            said, true = step["index"], step["right"]
            print(f"index from {step['from']:.1f}: {step['frames']:7d} lead-frames, mean {said:.3f}, right {true:.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
