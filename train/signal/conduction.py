"""Streams in which the conduction changes, composed from beats of different persons.

Bundle branch block that comes and goes at the rate of the sinus node is not in the training records of mitdb, and looks like
ventricular ectopy but for its timing. So beats of persons with bundle branch block (PTB-XL and the Challenge 2020, training
parts) are laid into the sinus rhythm of another person: in stretches, in alternation and single, on time, most of them with
the P wave that was there. The counterpart are ventricular beats of mitdb in the same sinus rhythms, early and in fast runs.

Shapes: L lead (2), T sample at :data:`RATE`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from ecgnat_stream.codes import BEATS
from ecgnat_stream.signal import LEADS
from train.data.labels import allow
from train.data.record import rows_of, table_of
from train.data.records import Record, read_database

__all__ = ["BLOCK", "Donor", "compose", "donors", "streams", "ventricular_donors"]

BLOCK = len(BEATS) + 1
"""Class of a beat with bundle branch block in a composed stream; counts as N."""

RATE = 250.0
LENGTH_S = 150.0
BEFORE_S, BEFORE_V_S = 0.28, 0.16
"""A sinus beat begins so long before its R peak, a ventricular one so long."""

P_END_S = 0.11
"""Up to here before the R peak of a blocked beat the P wave of the other person may stay."""

P_KEPT = 0.8
"""Share of the streams in which it does."""

QT_S = 0.4
"""What comes later behind the R peak is stretched where the interval is longer."""

_SINUS = {"SR", "SBRAD", "STACH", "SARRH"}
_NOT_SINUS = {"AFIB", "AFLT", "PACE", "PVC", "BIGU", "TRIGU", "PAC", "WPW"}
_BLOCK = {"CLBBB", "CRBBB", "ILBBB"}
_BLOCK_CODES = {"RBBB", "LBBB", "164909002", "59118001", "713427006", "733534002"}
_NOT_SINUS_CODES = {"AF", "164889003", "164890007", "10370003", "PVC", "427172004", "164884008", "17338001", "PAC", "284470004"}
_V, _N = BEATS.index("V"), BEATS.index("N")


@dataclass(frozen=True, slots=True)
class Donor:
    """Beats of one person.

    Parameters
    ----------
    samples
        ``(12, T)`` mV.
    r
        ``(N,)`` samples of the R peaks that can be used, ``length`` the interval to the next.
    """

    name: str
    samples: NDArray[np.float32]
    r: NDArray[np.int64]
    length: NDArray[np.int64]


Find = Callable[[NDArray[np.float32], float], list[NDArray[np.float64]]]


def donors(root: Path, splits: dict[str, dict[str, str]], find: Find, normals: int) -> tuple[list[Donor], list[Donor]]:
    """Return persons with bundle branch block in sinus rhythm, and persons with normal records, of the training parts.

    Parameters
    ----------
    find
        Returns the times of the R peaks of records ``(R, 12, T)`` at a rate.
    normals
        How many of the normal ones, at most.
    """
    blocked: list[tuple[str, str]] = []
    normal: list[tuple[str, str]] = []
    train = {name: part for name, part in splits.get("ptbxl", {}).items() if part == "train"}
    if train:
        persons: set[str] = set()
        for row in rows_of(table_of(root / "ptbxl", "ptbxl_database.csv")):
            name, codes = f"{int(row['ecg_id']):05d}", set(ast.literal_eval(row["scp_codes"]))
            if name not in train or row["patient_id"] in persons or not codes & _SINUS or codes & _NOT_SINUS:
                continue
            if codes & _BLOCK or ("NORM" in codes and len(normal) < normals):
                persons.add(row["patient_id"])
                (blocked if codes & _BLOCK else normal).append(("ptbxl", name))
    for name, part in splits.get("cinc2020", {}).items():
        text = next((root / "cinc2020").rglob(f"{name}.hea")).read_text()
        stated = {code.strip() for line in text.splitlines() if "Dx:" in line for code in line.split(":")[1].split(",")}
        if part == "train" and stated & _BLOCK_CODES and not stated & _NOT_SINUS_CODES:
            blocked.append(("cinc2020", name))
    return _read(root, blocked, find), _read(root, normal, find)


def _read(root: Path, names: Sequence[tuple[str, str]], find: Find) -> list[Donor]:
    """Read 10 s of each; R peaks are looked for in the record laid end to end with itself, so that none is too early."""
    whole = []
    for database in sorted({database for database, _ in names}):
        for record in read_database(root, database, {name: "train" for of, name in names if of == database}):
            x = resample_poly(np.nan_to_num(record.samples), round(RATE), round(record.fs), axis=1, padtype="line")
            if x.shape[1] >= 9.9 * RATE:
                whole.append((f"{database} {record.name}", np.resize(x[:, : round(9.9 * RATE)], (12, round(9.9 * RATE)))))
    if not whole:
        return []
    length = whole[0][1].shape[1]
    found = []
    times = find(np.stack([np.concatenate([x, x, x[:, : length // 5]], axis=1) for _, x in whole]).astype(np.float32), RATE)
    for (name, x), at_s in zip(whole, times, strict=True):
        r = np.round(at_s * RATE).astype(np.int64) - length
        r = r[(r > 0.35 * RATE) & (r < length - 0.35 * RATE)]
        apart = np.diff(r)
        usable = (apart > 0.45 * RATE) & (apart < 1.6 * RATE)
        if usable.sum() >= 3 and apart.std() < 0.15 * apart.mean():
            found.append(Donor(name, x.astype(np.float32), r[:-1][usable], apart[usable]))
    return found


def ventricular_donors(records: Iterable[Record]) -> list[Donor]:
    """Return the ventricular beats, with an interval of half a second or more behind them, of records with ten of them."""
    found = []
    for record in records:
        if record.beats is None or record.beat_class is None:
            continue
        apart = np.diff(record.beats, append=record.beats[-1]) / record.fs
        inner = (record.beats > record.fs) & (record.beats < record.samples.shape[1] - 2 * record.fs)
        usable = (record.beat_class == _V) & (apart > 0.5) & (apart < 1.6) & inner
        if usable.sum() >= 10:
            x = resample_poly(np.nan_to_num(record.samples), round(RATE), round(record.fs), axis=1, padtype="line")
            r = np.round(record.beats[usable] / record.fs * RATE).astype(np.int64)
            found.append(Donor(record.name, x.astype(np.float32), r, np.round(apart[usable] * RATE).astype(np.int64)))
    return found


def compose(usual: Donor, other: Donor, ventricular: bool, rng: np.random.Generator) -> Record:
    """Lay beats of ``other``, ventricular or with bundle branch block, into the rhythm of ``usual``; two leads.

    The record is named after ``other``, so that a person can be held out.
    """
    leads = rng.choice(len(LEADS), 2, replace=False)
    theirs = leads
    if ventricular:
        theirs = np.flatnonzero(np.abs(other.samples).max(axis=1) > 0.0)[:2]
        theirs = rng.permutation(np.resize(theirs, 2))
    own, odd = usual.samples[leads], other.samples[theirs]
    size = (np.exp(rng.uniform(-0.3, 0.6, 2)) if ventricular else np.exp(rng.uniform(-0.4, 0.4, 2))) * _size(usual, own)
    odd = odd * np.clip(size / np.maximum(_size(other, odd), 0.05), 0.3, 3.0)[:, None].astype(np.float32)
    plan = _ectopy(usual, rng) if ventricular else _conduction(usual, rng)
    keep_p = not ventricular and rng.random() < P_KEPT
    before = [BEFORE_V_S if ventricular and is_odd else BEFORE_S for _, is_odd in plan]
    parts, beats, at = [], [], 0
    for k, (rr, is_odd) in enumerate(plan[:-1]):
        lead_in, follow = round(before[k] * RATE), max(round((rr - before[k + 1]) * RATE), round(0.12 * RATE))
        part = _piece(other if is_odd else usual, odd if is_odd else own, lead_in, follow, rng)
        if is_odd and keep_p:
            p = _piece(usual, own, lead_in, follow, rng)
            cut, fade = lead_in - round(P_END_S * RATE), round(0.03 * RATE)
            mix = np.clip((np.arange(part.shape[1]) - cut) / fade, 0.0, 1.0)
            shift = p[:, cut : cut + fade].mean(axis=1) - part[:, cut : cut + fade].mean(axis=1)
            part = _level((1 - mix) * p + mix * (part + shift[:, None]))
        parts.append(part)
        beats.append((at + lead_in, (_V if ventricular else BLOCK) if is_odd else _N))
        at += part.shape[1]
    total = round(LENGTH_S * RATE)
    samples = np.full((len(LEADS), total), np.nan, np.float32)
    samples[leads] = np.concatenate(parts, axis=1)[:, :total]
    samples[leads] += rng.normal(0.0, 0.004, (2, total))
    marks = np.array([beat for beat in beats if beat[0] < total])
    rhythm, classes = np.full(total, allow("SINUS"), np.uint8), marks[:, 1].astype(np.uint8)
    return Record("composed", other.name, "train", RATE, samples, rhythm, beats=marks[:, 0], beat_class=classes)


def _conduction(usual: Donor, rng: np.random.Generator) -> list[tuple[float, bool]]:
    """Return the interval behind each beat in s, and whether it is blocked; the rate wanders, block at higher rates in some."""
    base = float(np.clip(np.median(usual.length) / RATE, 0.5, 1.2))
    swing, period, jitter = rng.uniform(0.0, 0.1), rng.uniform(15.0, 60.0), rng.uniform(0.005, 0.04)
    with_rate = rng.random() < 0.3
    plan: list[tuple[float, bool]] = []
    time = 0.0

    def add(is_odd: bool) -> None:
        nonlocal time
        phase = np.sin(2.0 * np.pi * time / period)
        rr = base * float(np.exp(-swing * phase + jitter * rng.normal()))
        plan.append((rr, phase > 0.3 and time > 12.0 if with_rate else is_odd))
        time += rr

    for _ in range(int(rng.integers(8, 25))):
        add(False)
    while time < LENGTH_S + 5.0:
        kind, count = rng.integers(4), int(rng.integers(6, 30))
        if kind < 2:
            for _ in range(count):
                add(kind == 1)
        elif kind == 2:
            every = int(rng.integers(2, 6))
            for k in range(count):
                add(k % every == every - 1)
        else:
            share = rng.uniform(0.05, 0.6)
            for _ in range(count):
                add(bool(rng.random() < share))
    return plan


def _ectopy(usual: Donor, rng: np.random.Generator) -> list[tuple[float, bool]]:
    """Return the interval behind each beat in s, and whether it is ventricular: single, coupled, in bigeminy, in fast runs."""
    base = float(np.clip(np.median(usual.length) / RATE, 0.5, 1.2))
    jitter, early = rng.uniform(0.005, 0.04), rng.uniform(0.5, 0.8)
    plan: list[tuple[float, bool]] = []
    time = 0.0

    def add(rr: float, is_odd: bool = False) -> None:
        nonlocal time
        plan.append((rr * float(np.exp(jitter * rng.normal())), is_odd))
        time += plan[-1][0]

    for _ in range(int(rng.integers(8, 20))):
        add(base)
    while time < LENGTH_S + 5.0:
        for _ in range(int(rng.choice((1, 1, 2, 3, 5, 10)))):
            add(base)
        coupling = max(early * base, 0.33)
        add(coupling)
        run = int(rng.choice((1, 1, 1, 1, 2, 3, 6, 12)))
        for _ in range(run - 1):
            add(max(min(rng.uniform(0.32, 0.5), 0.75 * base), 0.3), True)
        add(2.0 * base - coupling if run == 1 and rng.random() < 0.7 else base, True)
    return plan


def _piece(donor: Donor, x: NDArray[np.float32], before: int, after: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return one of the donor's beats, ``(L, before + after)`` about its R peak, ends at 0; the diastole stretched if need be."""
    i = int(rng.integers(len(donor.r)))
    r, there = int(donor.r[i]), int(donor.length[i]) - round(BEFORE_S * RATE)
    systole = min(round(QT_S * RATE), there)
    source = np.arange(-before, after, dtype=np.float64)
    if after > there:
        later = source >= systole
        source[later] = systole + (source[later] - systole) * (there - systole) / max(after - systole, 1)
    at = np.arange(x.shape[1])
    return _level(np.stack([np.interp(r + source, at, lead) for lead in x]))


def _level(part: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take the straight line between the ends off."""
    first, last = part[:, :3].mean(axis=1), part[:, -3:].mean(axis=1)
    level: NDArray[np.float64] = part - first[:, None] - (last - first)[:, None] * np.linspace(0.0, 1.0, part.shape[1])
    return level


def _size(donor: Donor, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return ``(L,)`` the median peak-to-peak amplitude of the QRS complex."""
    about = donor.r[:, None] + np.arange(-round(0.08 * RATE), round(0.1 * RATE))
    size: NDArray[np.float64] = np.median(np.ptp(x[:, about], axis=2), axis=1).astype(np.float64)
    return size


def streams(
    blocked: Sequence[Donor], normal: Sequence[Donor], ventricular: Sequence[Donor], each: int, rng: np.random.Generator
) -> Iterator[Record]:
    """Yield ``each`` streams of every person with bundle branch block and of every one with ventricular beats."""
    for others, is_ventricular in ((blocked, False), (ventricular, True)):
        for other in others:
            for _ in range(each):
                yield compose(normal[int(rng.integers(len(normal)))], other, is_ventricular, rng)
