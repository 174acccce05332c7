"""Read one record of each database: leads in mV with what the database states about it.

Every reader takes the folder of its database, a small pack or the full public download (nested folders included), and gives a
function from record name to :class:`Record`; one record is in memory at a time. A folder of no known database is read as signals
only.
"""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import wfdb

from ecgnat_stream.codes import RHYTHMS, SCREENS
from ecgnat_stream.score.records import headers_of, vf_table
from ecgnat_stream.score.truth import between_marks
from ecgnat_stream.signal import LEADS
from train.data import labels
from train.data.record import (
    SUPERCLASSES,
    Reader,
    Record,
    Sidecar,
    beats_of,
    comments_of,
    header_of,
    leads_of,
    rows_of,
    sidecar_of,
    table_of,
    whole,
)

__all__ = ["READERS", "generic_files", "read_generic"]

_NSRDB_REACH_S = 1.5
"""Sinus rhythm is stated this far around the beats of nsrdb: longer intervals are lost signal."""

_CUDB_REACH_S = 0.6
_ALARM_S = 300.0  # cinc2015: the alarm sounds after 5 min; what follows in the long records was not known then
_SIGNALS = (".hea", ".edf", ".bdf", ".npy")


def _with_notes(folder: Path) -> Callable[[str, str], Record]:
    """Rhythm changes and beats in ``.atr``: mitdb, vfdb (rhythm only), ltafdb; afdb has its beats, all called N, in ``.qrs``."""
    headers = headers_of(folder)

    def read(name: str, split: str) -> Record:
        path = header_of(headers, name)
        fs, samples = leads_of(path)
        annotation = wfdb.rdann(str(path), "atr")
        rhythm = labels.from_changes(samples.shape[1], annotation.sample.tolist(), annotation.aux_note)
        beats, beat_class = beats_of(path, ("atr",)) or (None, None)
        if beats is None and (detected := beats_of(path, ("qrsc", "qrs"))):
            beats, beat_class = detected[0], np.full_like(detected[1], labels.BEAT_UNSTATED)
        return Record(folder.name, name, split, fs, samples, rhythm, beats=beats, beat_class=beat_class)

    return read


def _nsrdb(folder: Path) -> Callable[[str, str], Record]:
    headers = headers_of(folder)

    def read(name: str, split: str) -> Record:
        path = header_of(headers, name)
        fs, samples = leads_of(path)
        beats, beat_class = beats_of(path, ("atr",)) or (None, None)
        if beats is None:
            raise ValueError(f"{name}.atr holds no beats, or is not there")
        reach = round(_NSRDB_REACH_S * fs)
        near = ((at - reach, at + reach) for at in beats.tolist())
        rhythm = labels.from_spans(samples.shape[1], labels.allow("SINUS"), labels.UNSTATED, near)
        return Record("nsrdb", name, split, fs, samples, rhythm, beats=beats, beat_class=beat_class)

    return read


def _cudb(folder: Path) -> Callable[[str, str], Record]:
    """VF by ``vf_episodes.csv`` and ``.ann`` in the pack, by the marks [ and ] of ``.atr`` in the download."""
    headers = headers_of(folder)
    episodes = vf_table(folder)

    def read(name: str, split: str) -> Record:
        path = header_of(headers, name)
        fs, samples = leads_of(path)
        annotation = wfdb.rdann(str(path), "atr" if episodes is None else "ann")
        beats = annotation.sample[labels.beat_classes(annotation.symbol) < labels.NO_BEAT].astype(np.int64)
        near = [(round(at - _CUDB_REACH_S * fs), round(at + _CUDB_REACH_S * fs)) for at in beats.tolist()]
        beating = labels.forbid("VF", "ASYSTOLE", "NOISE")
        rhythm = labels.from_spans(samples.shape[1], beating, labels.forbid("VF"), near)
        marks = between_marks(annotation.sample.tolist(), annotation.symbol, samples.shape[1])
        for start, stop in marks if episodes is None else episodes.get(name, []):
            rhythm[start:stop] = labels.allow("VF")
        unstated = np.full(len(beats), labels.BEAT_UNSTATED, np.uint8)
        return Record("cudb", name, split, fs, samples, rhythm, beats=beats, beat_class=unstated)

    return read


def _cinc2015(folder: Path) -> Callable[[str, str], Record]:
    headers = headers_of(folder)

    def read(name: str, split: str) -> Record:
        path = header_of(headers, name)
        fs, samples = leads_of(path)
        samples = samples[:, : round(_ALARM_S * fs)]
        alarm, verdict, *_ = [*comments_of(path), "", ""]
        if verdict not in ("True alarm", "False alarm"):
            raise ValueError(f"its header says {verdict!r} where 'True alarm' or 'False alarm' belongs")
        rhythm = whole(samples, labels.UNSTATED)
        bag = -1
        if about := labels.ALARM_CLASSES.get(alarm):
            if verdict == "True alarm":
                bag = RHYTHMS.index(about)
            else:
                rhythm[-round(10 * fs) :] = labels.forbid(about)
        return Record("cinc2015", name, split, fs, samples, rhythm, bag=bag)

    return read


def _cinc2017(folder: Path) -> Callable[[str, str], Record]:
    """One array with its index in the pack; ``training2017/*.mat`` with REFERENCE in the download."""
    index = next(folder.rglob("index.csv"), None)
    if index is None:
        with table_of(folder, "REFERENCE-v3.csv", "REFERENCE.csv").open(newline="") as file:
            stated = {name: label for name, label, *_ in csv.reader(file)}
        headers = headers_of(folder)
    else:
        rows = {row["record"]: row for row in rows_of(index)}
        stated = {name: row["label"] for name, row in rows.items()}
        signal = np.load(index.with_name("signal_100hz_4uV_int16.npy"), mmap_mode="r")

    def read(name: str, split: str) -> Record:
        if name not in stated:
            raise ValueError("it has no label in REFERENCE or index.csv")
        if index is None:
            fs, samples = leads_of(header_of(headers, name))
        else:
            part = signal[int(rows[name]["start"]) : int(rows[name]["stop"])]
            fs, samples = 100.0, np.full((len(LEADS), len(part)), np.nan, np.float32)
            samples[LEADS.index("II")] = part * 0.004  # where assign_leads puts an unspecified lead
        rhythm = whole(samples, labels.CINC2017[stated[name]])
        return Record("cinc2017", name, split, fs, samples, rhythm, screen=SCREENS.index(stated[name]))

    return read


def _ptbxl(folder: Path) -> Callable[[str, str], Record]:
    """``records100`` where it is there, else ``records500``; nested by thousands in the download, flat in the pack."""
    database, scp = table_of(folder, "ptbxl_database.csv"), table_of(folder, "scp_statements.csv")
    superclass = {row[""]: row["diagnostic_class"] for row in rows_of(scp) if row["diagnostic"]}
    rows = {f"{int(r['ecg_id']):05d}": (r["scp_codes"], r["filename_lr"], r["filename_hr"]) for r in rows_of(database)}

    def read(name: str, split: str) -> Record:
        if name not in rows:
            raise ValueError("ptbxl_database.csv has no such ecg_id")
        stated, low, high = rows[name]
        places = [database.parent / file for file in (low, f"records100/{Path(low).name}", high, f"records500/{Path(high).name}")]
        fs, samples = leads_of(next((path for path in places if path.with_name(path.name + ".hea").is_file()), places[0]))
        codes: dict[str, float] = ast.literal_eval(stated)
        classes = {superclass[code] for code in codes if code in superclass}
        window = sum(1 << SUPERCLASSES.index(found) for found in classes) if classes else -1
        rhythm = whole(samples, labels.of_statements(codes, labels.PTBXL))
        return Record("ptbxl", name, split, fs, samples, rhythm, window=window, codes=tuple(sorted(codes)))

    return read


def _ludb(folder: Path) -> Callable[[str, str], Record]:
    """Beats are the QRS peaks marked in lead II (else in another); the first and the last of a record are often not marked."""
    headers = headers_of(folder)
    rows = {row["ID"].strip(): row for row in rows_of(table_of(folder, "ludb.csv"))}

    def read(name: str, split: str) -> Record:
        path = header_of(headers, name)
        fs, samples = leads_of(path)
        if name not in rows:
            raise ValueError("ludb.csv has no such ID")
        codes = _lines(rows[name]["Rhythms"]) + _lines(rows[name]["Cardiac pacing"])
        allowed = labels.of_statements(_lines(rows[name]["Rhythms"]), labels.LUDB)
        if "pac" in rows[name]["Cardiac pacing"].lower():  # pacing is stated beside the atrial rhythm
            allowed = labels.allow("PACED") | (allowed if allowed != labels.UNSTATED else 0)
        record = Record("ludb", name, split, fs, samples, whole(samples, allowed), codes=codes)
        order = ("ii", *(lead.lower() for lead in LEADS))
        marked = next((lead for lead in order if path.with_name(f"{name}.{lead}").is_file()), None)
        if marked is None:
            return record
        annotation = wfdb.rdann(str(path), marked)
        beats = annotation.sample[np.array(annotation.symbol) == "N"].astype(np.int64)
        unstated = np.full(len(beats), labels.BEAT_UNSTATED, np.uint8)
        span = (int(annotation.sample[0]), int(annotation.sample[-1]) + 1)
        return replace(record, beats=beats, beat_class=unstated, beats_span=span)

    return read


def _lines(cell: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in cell.splitlines() if line.strip())


def _with_header(folder: Path) -> Callable[[str, str], Record]:
    """Statements in the header: SNOMED codes after ``Dx:`` (cinc2020, Chapman-Ningbo), or ``Rhythm:``, ``Beat:`` (Shaoxing)."""
    headers = headers_of(folder)

    def read(name: str, split: str) -> Record:
        path = header_of(headers, name)
        fs, samples = leads_of(path)
        said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in comments_of(path))}
        if "Rhythm" in said:
            codes = (said["Rhythm"], *said.get("Beat", "").split())
            allowed = labels.of_statements(codes[:1], labels.CHAPMAN)
        elif "Dx" in said:
            codes = tuple(code for part in said["Dx"].split(",") if (code := part.strip()))
            allowed = labels.of_codes(codes)
        else:
            raise ValueError(f"{name}.hea has neither a 'Dx:' nor a 'Rhythm:' comment")
        return Record(folder.name, name, split, fs, samples, whole(samples, allowed), codes=codes)

    return read


_AFPDB = re.compile(r"[np]\d+")
"""Records of afpdb whose rhythm is known not to be AF; those that end in c, and the test set t.., are unlabelled."""

_QTDB_LEADS = {
    "D3": "III", "D4": "", "mod.V1": "V1", "CM2": "V2", "CM4": "V4", "ML5": "V5", "V2-V3": "", "V1-V2": "", "V4-V5": "",
}  # fmt: skip
"""Lead names of qtdb. Bipolar leads from the manubrium go by their chest electrode, as CM5 does; differences of two chest
electrodes, and what nobody knows (D4), are left out."""


def _svdb(folder: Path) -> Callable[[str, str], Record]:
    """Every beat by its class in ``.atr``; nothing about rhythm."""
    headers = headers_of(folder)

    def read(name: str, split: str) -> Record:
        path = header_of(headers, name)
        fs, samples = leads_of(path)
        beats, beat_class = beats_of(path, ("atr",)) or (None, None)
        if beats is None:
            raise ValueError(f"{name}.atr holds no beats, or is not there")
        return Record("svdb", name, split, fs, samples, whole(samples, labels.UNSTATED), beats=beats, beat_class=beat_class)

    return read


def _qtdb(folder: Path) -> Callable[[str, str], Record]:
    """Beats and rhythm changes in ``.atr`` where there is one; notes beside other marks are about ST and T, not rhythm."""
    headers = headers_of(folder)

    def read(name: str, split: str) -> Record:
        path = header_of(headers, name)
        fs, samples = leads_of(path, Sidecar(lead_map=_QTDB_LEADS))
        rhythm = whole(samples, labels.UNSTATED)
        beats, beat_class = beats_of(path, ("atr",)) or (None, None)
        if beats is not None:
            annotation = wfdb.rdann(str(path), "atr")
            changes = [
                (int(at), note)
                for at, symbol, note in zip(annotation.sample, annotation.symbol, annotation.aux_note, strict=True)
                if symbol == "+"
            ]
            rhythm = labels.from_changes(samples.shape[1], [at for at, _ in changes], [note for _, note in changes])
        return Record("qtdb", name, split, fs, samples, rhythm, beats=beats, beat_class=beat_class)

    return read


def _afpdb(folder: Path) -> Callable[[str, str], Record]:
    """``n..`` and ``p..`` are not in AF (Moody 2001); what follows them, ``...c``, is unverified and states nothing."""
    headers = headers_of(folder)

    def read(name: str, split: str) -> Record:
        fs, samples = leads_of(header_of(headers, name))
        stated = labels.forbid("AF") if _AFPDB.fullmatch(name) else labels.UNSTATED
        return Record("afpdb", name, split, fs, samples, whole(samples, stated))

    return read


def _aftdb(folder: Path) -> Callable[[str, str], Record]:
    """All of it is AF (Moody 2004)."""
    headers = headers_of(folder)

    def read(name: str, split: str) -> Record:
        fs, samples = leads_of(header_of(headers, name))
        return Record("aftdb", name, split, fs, samples, whole(samples, labels.allow("AF")))

    return read


def _mimic_perform_af(folder: Path) -> Callable[[str, str], Record]:
    """AF throughout, or never: a comment of the header says so, else the name (``af`` or ``non_af`` in it)."""
    headers = headers_of(folder)

    def read(name: str, split: str) -> Record:
        path = header_of(headers, name)
        fs, samples = leads_of(path)
        said = next((value.strip() for key, _, value in (c.partition(":") for c in comments_of(path)) if key == "rhythm"), name)
        stated = {"atrial fibrillation": True, "not atrial fibrillation": False}.get(said)
        if stated is None:
            if "af_" not in name:
                raise ValueError(f"{name}.hea says neither 'rhythm: atrial fibrillation' nor 'rhythm: not atrial fibrillation'")
            stated = "non_af_" not in name
        rhythm = whole(samples, labels.allow("AF") if stated else labels.forbid("AF"))
        return Record("mimic_perform_af", name, split, fs, samples, rhythm)

    return read


def _cinc2011(folder: Path) -> Callable[[str, str], Record]:
    """One array with its index in the pack; WFDB records with RECORDS-acceptable and RECORDS-unacceptable in the download.

    The quality of the whole record and the leads marked as bad are kept as words; nothing is said about rhythm.
    """
    index = next(folder.rglob("index.csv"), None)
    headers = headers_of(folder)
    rows: dict[str, tuple[int, dict[str, str]]] = {}
    listed: dict[str, str] = {}
    if index is not None:
        rows = {row["record"]: (at, row) for at, row in enumerate(rows_of(index))}
        signals = np.load(index.with_name("signals.npy"), mmap_mode="r")
        if len(signals) != len(rows):
            raise ValueError(f"{index.with_name('signals.npy')} holds {len(signals)} records, index.csv has {len(rows)} rows")
    for word in ("acceptable", "unacceptable"):
        for table in folder.rglob(f"RECORDS-{word}"):
            listed |= dict.fromkeys(table.read_text().split(), word)

    def read(name: str, split: str) -> Record:
        codes: tuple[str, ...] = (listed[name],) if name in listed else ()
        if index is None:
            fs, samples = leads_of(header_of(headers, name))
        else:
            if name not in rows:
                raise ValueError("index.csv has no such record")
            at, row = rows[name]
            fs, samples = 250.0, signals[at].astype(np.float32) * np.float32(0.005)
            words = {"1": ("acceptable",), "0": ("unacceptable",)}.get(row["acceptable"], ())
            codes = words + tuple(f"bad {lead}" for lead in LEADS if row.get(f"bad_{lead}") == "1")
        return Record("cinc2011", name, split, fs, samples, whole(samples, labels.UNSTATED), codes=codes)

    return read


def generic_files(folder: Path) -> dict[str, Path]:
    """Return the files that hold signals, by path below the folder without suffix; of two that differ in suffix, the WFDB one."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in _SIGNALS)
    ranked = sorted(found, key=lambda path: _SIGNALS.index(path.suffix.lower()), reverse=True)
    return {path.relative_to(folder).as_posix()[: -len(path.suffix)]: path for path in ranked}


def read_generic(folder: Path) -> Callable[[str, str], Record]:
    """Read signals only, from WFDB, EDF, BDF and NPY files with their :class:`Sidecar`; a name is a path without suffix."""
    files = generic_files(folder)

    def read(name: str, split: str) -> Record:
        if name not in files:
            raise ValueError(f"there is no file {name} with one of the suffixes {', '.join(_SIGNALS)}")
        path = files[name]
        given = sidecar_of(path, folder)
        if path.suffix.lower() == ".npy" and not (given.fs and given.units and given.leads):
            raise ValueError(f'{path.name} needs {path.stem}.json or signals.json: {{"fs": 250, "units": "mV", "leads": ["II"]}}')
        fs, samples = leads_of(path, given)
        return Record(folder.name, name, split, fs, samples, whole(samples, labels.UNSTATED))

    return read


READERS: dict[str, Reader] = {
    "mitdb": _with_notes,
    "vfdb": _with_notes,
    "cudb": _cudb,
    "nsrdb": _nsrdb,
    "afdb": _with_notes,
    "ltafdb": _with_notes,
    "cinc2015": _cinc2015,
    "cinc2017": _cinc2017,
    "ptbxl": _ptbxl,
    "ludb": _ludb,
    "cinc2020": _with_header,
    "chapman": _with_header,
    "svdb": _svdb,
    "qtdb": _qtdb,
    "afpdb": _afpdb,
    "aftdb": _aftdb,
    "mimic_perform_af": _mimic_perform_af,
    "cinc2011": _cinc2011,
    "cinc2021": _with_header,
}
