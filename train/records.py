"""Read the databases: every record as leads in mV with what is stated about it.

Shapes: L lead (12, in the order of ``signal.LEADS``), T time at the record's own rate. Statements are per sample at that rate.
"""

from __future__ import annotations

import ast
import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import wfdb
from numpy.typing import NDArray

from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.signal import LEADS, assign_leads
from train import labels

__all__ = ["HOLDOUT", "SUPERCLASSES", "Record", "read_database", "read_noise", "read_splits"]

HOLDOUT = {
    "mitdb": ("217", "223"),
    "vfdb": ("418", "425"),
    "cudb": ("cu04", "cu13", "cu22"),
}
"""Train records held out for choosing and calibrating where splits.csv names no validation part; fixed by what they contain."""

SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
"""PTB-XL diagnostic superclasses (Wagner 2020)."""

_INVALID = -32768  # cudb


@dataclass(frozen=True, slots=True)
class Record:
    """One record.

    Parameters
    ----------
    samples
        ``(12, T)`` mV, NaN where a lead is absent.
    rhythm
        ``(T,)`` sets of allowed classes, see :mod:`train.labels`.
    bag
        Class that a true alarm states for the last 10 s without saying where, or -1.
    window
        Bits over :data:`SUPERCLASSES`, or -1 where nothing is stated.
    """

    database: str
    name: str
    split: str
    fs: float
    samples: NDArray[np.float32]
    rhythm: NDArray[np.uint8]
    bag: int = -1
    window: int = -1


def read_splits(root: Path) -> dict[str, dict[str, str]]:
    """Return database -> record -> split, with :data:`HOLDOUT` as "holdout"."""
    splits: dict[str, dict[str, str]] = {}
    with (root / "splits.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            held_out = row["split"] == "train" and row["record"] in HOLDOUT.get(row["database"], ())
            splits.setdefault(row["database"], {})[row["record"]] = "holdout" if held_out else row["split"]
    return splits


def read_database(root: Path, database: str, splits: dict[str, str]) -> Iterator[Record]:
    """Yield the records of one database that ``splits`` names."""
    yield from _READERS[database](root / database, splits)


def read_noise(root: Path) -> Iterator[tuple[str, float, NDArray[np.float32]]]:
    """Yield name, rate and ``(12, T)`` of the noise records: two leads, in slots I and II."""
    for name in ("bw", "em", "ma"):
        record = wfdb.rdrecord(str(root / "nstdb" / name))
        samples = np.full((len(LEADS), record.sig_len), np.nan, np.float32)
        samples[:2] = record.p_signal.T
        yield name, float(record.fs), samples


def _leads(path: Path) -> tuple[float, NDArray[np.float32], wfdb.Record]:
    record = wfdb.rdrecord(str(path))
    samples = np.full((len(LEADS), record.sig_len), np.nan, np.float32)
    names = [_NAMES.get(name, name) for name in record.sig_name]
    for source, slot in enumerate(assign_leads(names)):
        if slot is not None:
            samples[slot] = record.p_signal[:, source]
    return float(record.fs), samples, record


_NAMES = {name.upper(): name for name in LEADS} | {name.lower(): name for name in LEADS}


def _with_notes(folder: Path, splits: dict[str, str]) -> Iterator[Record]:
    for name, split in splits.items():
        fs, samples, _ = _leads(folder / name)
        annotation = wfdb.rdann(str(folder / name), "atr")
        rhythm = labels.from_changes(samples.shape[1], annotation.sample.tolist(), annotation.aux_note)
        yield Record(folder.name, name, split, fs, samples, rhythm)


def _cudb(folder: Path, splits: dict[str, str]) -> Iterator[Record]:
    episodes: dict[str, list[tuple[int, int]]] = {}
    with (folder / "vf_episodes.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            episodes.setdefault(row["record"], []).append((int(row["start"]), int(row["stop"])))
    for name, split in splits.items():
        fs, samples, _ = _leads(folder / name)
        annotation = wfdb.rdann(str(folder / name), "ann")
        beats = [at for at, symbol in zip(annotation.sample.tolist(), annotation.symbol, strict=True) if symbol == "N"]
        near = [(round(at - 0.6 * fs), round(at + 0.6 * fs)) for at in beats]
        beating = labels.forbid("VF", "ASYSTOLE", "NOISE")
        rhythm = labels.from_spans(samples.shape[1], beating, labels.forbid("VF"), near)
        for start, stop in episodes.get(name, []):
            rhythm[start:stop] = labels.allow("VF")
        yield Record("cudb", name, split, fs, samples, rhythm)


def _cinc2015(folder: Path, splits: dict[str, str]) -> Iterator[Record]:
    for name, split in splits.items():
        fs, samples, record = _leads(folder / name)
        alarm, verdict = (comment.strip("# ") for comment in record.comments[:2])
        rhythm = np.full(samples.shape[1], labels.UNSTATED, np.uint8)
        bag = -1
        if alarm in labels.ALARM_CLASSES:
            about = labels.ALARM_CLASSES[alarm]
            if verdict == "True alarm":
                bag = RHYTHMS.index(about)
            else:
                rhythm[-round(10 * fs) :] = labels.forbid(about)
        yield Record("cinc2015", name, split, fs, samples, rhythm, bag=bag)


def _cinc2017(folder: Path, splits: dict[str, str]) -> Iterator[Record]:
    signal = np.load(folder / "signal_100hz_4uV_int16.npy", mmap_mode="r")
    with (folder / "index.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["record"] in splits:
                part = signal[int(row["start"]) : int(row["stop"])]
                samples = np.full((len(LEADS), len(part)), np.nan, np.float32)
                samples[LEADS.index("II")] = part * 0.004  # where assign_leads puts an unspecified lead
                rhythm = np.full(len(part), labels.CINC2017[row["label"]], np.uint8)
                yield Record("cinc2017", row["record"], splits[row["record"]], 100.0, samples, rhythm)


def _ptbxl(folder: Path, splits: dict[str, str]) -> Iterator[Record]:
    with (folder / "scp_statements.csv").open(newline="") as file:
        superclass = {row[""]: row["diagnostic_class"] for row in csv.DictReader(file) if row["diagnostic"]}
    with (folder / "ptbxl_database.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            name = f"{int(row['ecg_id']):05d}"
            if name not in splits:
                continue
            codes: dict[str, float] = ast.literal_eval(row["scp_codes"])
            nested = folder / row["filename_lr"]  # as in the full download; else one flat folder
            flat = folder / "records100" / nested.name
            fs, samples, _ = _leads(flat if flat.with_suffix(".hea").is_file() else nested)
            rhythm = np.full(samples.shape[1], labels.of_statements(codes, labels.PTBXL), np.uint8)
            classes = {superclass[code] for code in codes if code in superclass}
            window = sum(1 << SUPERCLASSES.index(found) for found in classes) if classes else -1
            yield Record("ptbxl", name, splits[name], fs, samples, rhythm, window=window)


def _ludb(folder: Path, splits: dict[str, str]) -> Iterator[Record]:
    with (folder / "ludb.csv").open(newline="") as file:
        rows = {row["ID"]: row for row in csv.DictReader(file)}
    for name, split in splits.items():
        fs, samples, _ = _leads(folder / "data" / name)
        allowed = labels.of_statements((line.strip() for line in rows[name]["Rhythms"].splitlines()), labels.LUDB)
        if "pac" in rows[name]["Cardiac pacing"].lower():  # pacing is stated beside the atrial rhythm
            allowed = labels.allow("PACED") | (allowed if allowed != labels.UNSTATED else 0)
        yield Record("ludb", name, split, fs, samples, np.full(samples.shape[1], allowed, np.uint8))


def _cinc2020(folder: Path, splits: dict[str, str]) -> Iterator[Record]:
    for name, split in splits.items():
        fs, samples, record = _leads(folder / name)
        stated = next(comment for comment in record.comments if comment.lstrip("# ").startswith("Dx"))
        codes = (code.strip() for code in stated.split(":")[1].split(","))
        allowed = labels.of_statements(codes, labels.SNOMED)
        yield Record("cinc2020", name, split, fs, samples, np.full(samples.shape[1], allowed, np.uint8))


_READERS: dict[str, Callable[[Path, dict[str, str]], Iterator[Record]]] = {
    "mitdb": _with_notes,
    "vfdb": _with_notes,
    "cudb": _cudb,
    "cinc2015": _cinc2015,
    "cinc2017": _cinc2017,
    "ptbxl": _ptbxl,
    "ludb": _ludb,
    "cinc2020": _cinc2020,
}
