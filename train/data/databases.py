"""Read one record of each database: leads in mV with what the database states about it.

Every reader takes the folder of its database, a small pack or the full public download (nested folders included), and gives a
function from record name to :class:`Record`; one record is in memory at a time. A folder of no known database is read as signals
only. Shapes: L lead (12, in the order of ``signal.LEADS``), T time at the record's own rate, N beat.
"""

from __future__ import annotations

import ast
import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import wfdb
from numpy.typing import NDArray

from ecgnat_devices.records import Units, open_record
from ecgnat_stream.codes import RHYTHMS, SCREENS
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.score.records import headers_of, vf_table
from ecgnat_stream.score.truth import between_marks
from ecgnat_stream.signal import LEADS, assign_leads
from train.data import labels

__all__ = [
    "READERS",
    "SUPERCLASSES",
    "Reader",
    "Record",
    "Sidecar",
    "generic_files",
    "read_generic",
    "rows_of",
    "table_of",
]

SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
"""PTB-XL diagnostic superclasses (Wagner 2020)."""

_NSRDB_REACH_S = 1.5
"""Sinus rhythm is stated this far around the beats of nsrdb: longer intervals are lost signal."""

_CUDB_REACH_S = 0.6
_ALARM_S = 300.0  # cinc2015: the alarm sounds after 5 min; what follows in the long records was not known then
_SIGNALS = (".hea", ".edf", ".bdf", ".npy")


@dataclass(frozen=True, slots=True)
class Record:
    """One record.

    Parameters
    ----------
    samples
        ``(12, T)`` mV, NaN where a lead is absent.
    rhythm
        ``(T,)`` sets of allowed classes, see :mod:`train.data.labels`.
    bag
        Class that a true alarm states for the last 10 s without saying where, or -1.
    window
        Bits over :data:`SUPERCLASSES`, or -1 where nothing is stated.
    screen
        Index into ``codes.SCREENS``, or -1 where nothing is stated.
    beats, beat_class
        ``(N,)`` sample index of every beat and its index into ``codes.BEATS`` (or ``labels.BEAT_UNSTATED``); None where beats are
        not annotated.
    beats_span
        Half-open samples in which every beat is marked; None: the whole record.
    codes
        What is stated about the whole record, in the words of its database: SCP codes of ptbxl, SNOMED codes (or the words that
        CPSC2018 has in their place) of cinc2020, rhythms and pacing of ludb, rhythm and findings of chapman.
    """

    database: str
    name: str
    split: str
    fs: float
    samples: NDArray[np.float32]
    rhythm: NDArray[np.uint8]
    bag: int = -1
    window: int = -1
    screen: int = -1
    beats: NDArray[np.int64] | None = None
    beat_class: NDArray[np.uint8] | None = None
    beats_span: tuple[int, int] | None = None
    codes: tuple[str, ...] = ()


class Sidecar(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file does not say itself, in ``<record>.json`` beside it or in ``signals.json`` of the database's folder.

    NPY files need ``fs`` (Hz), ``units`` ("uV", "mV" or "V") and ``leads``; ``lead_map`` is that of the monitor's configuration.
    """

    fs: float | None = None
    units: Units | None = None
    leads: tuple[str, ...] | None = None
    lead_map: dict[str, str] = {}


Reader = Callable[[Path], Callable[[str, str], Record]]


def table_of(folder: Path, *names: str) -> Path:
    """Return the first of these files in the folder or below it."""
    for name in names:
        if found := next(iter(sorted(folder.rglob(name))), None):
            return found
    raise ValueError(f"{folder} holds no {' or '.join(names)}: fetch the database again with its tables")


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a table by column name."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        yield from csv.DictReader(file)


def _of(headers: dict[str, Path], name: str) -> Path:
    if name not in headers:
        raise ValueError(f"there is no header {name}.hea")
    return headers[name]


def _leads(path: Path, given: Sidecar | None = None) -> tuple[float, NDArray[np.float32]]:
    """Return the rate and ``(12, T)`` mV."""
    given = given or Sidecar()
    opened = open_record(path, fs=given.fs, units=given.units, leads=given.leads)
    if not 100.0 <= opened.fs <= 1000.0:
        raise ValueError(f"it is sampled at {opened.fs:g} Hz: 100 to 1000 Hz can be used")
    try:
        slots = assign_leads(opened.leads, given.lead_map)
    except ConfigError as error:
        raise ValueError(f"its leads {', '.join(opened.leads)} are not those of {', '.join(LEADS)} ({error})") from error
    samples = np.full((len(LEADS), opened.total), np.nan, np.float32)
    for source, slot in zip(opened.read(0, opened.total), slots, strict=True):
        if slot is not None:
            samples[slot] = np.where(np.isfinite(source), source, np.nan)
    if not np.isfinite(samples).any():
        raise ValueError("it holds no valid sample")
    return opened.fs, samples


def _comments(path: Path) -> list[str]:
    return [comment.strip("# ") for comment in wfdb.rdheader(str(path)).comments]


def _whole(samples: NDArray[np.float32], allowed: int) -> NDArray[np.uint8]:
    return np.full(samples.shape[1], allowed, np.uint8)


def _beats(path: Path, extensions: Iterable[str]) -> tuple[NDArray[np.int64], NDArray[np.uint8]] | None:
    """Return the beats of the first of these annotation files that has some."""
    for extension in extensions:
        if path.with_name(f"{path.name}.{extension}").is_file():
            annotation = wfdb.rdann(str(path), extension)
            classes = labels.beat_classes(annotation.symbol)
            is_beat = classes < labels.NO_BEAT
            if is_beat.any():
                return annotation.sample[is_beat].astype(np.int64), classes[is_beat]
    return None


def _with_notes(folder: Path) -> Callable[[str, str], Record]:
    """Rhythm changes and beats in ``.atr``: mitdb, vfdb (rhythm only), ltafdb; afdb has its beats, all called N, in ``.qrs``."""
    headers = headers_of(folder)

    def read(name: str, split: str) -> Record:
        path = _of(headers, name)
        fs, samples = _leads(path)
        annotation = wfdb.rdann(str(path), "atr")
        rhythm = labels.from_changes(samples.shape[1], annotation.sample.tolist(), annotation.aux_note)
        beats, beat_class = _beats(path, ("atr",)) or (None, None)
        if beats is None and (detected := _beats(path, ("qrsc", "qrs"))):
            beats, beat_class = detected[0], np.full_like(detected[1], labels.BEAT_UNSTATED)
        return Record(folder.name, name, split, fs, samples, rhythm, beats=beats, beat_class=beat_class)

    return read


def _nsrdb(folder: Path) -> Callable[[str, str], Record]:
    headers = headers_of(folder)

    def read(name: str, split: str) -> Record:
        path = _of(headers, name)
        fs, samples = _leads(path)
        beats, beat_class = _beats(path, ("atr",)) or (None, None)
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
        path = _of(headers, name)
        fs, samples = _leads(path)
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
        path = _of(headers, name)
        fs, samples = _leads(path)
        samples = samples[:, : round(_ALARM_S * fs)]
        alarm, verdict, *_ = [*_comments(path), "", ""]
        if verdict not in ("True alarm", "False alarm"):
            raise ValueError(f"its header says {verdict!r} where 'True alarm' or 'False alarm' belongs")
        rhythm = _whole(samples, labels.UNSTATED)
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
            fs, samples = _leads(_of(headers, name))
        else:
            part = signal[int(rows[name]["start"]) : int(rows[name]["stop"])]
            fs, samples = 100.0, np.full((len(LEADS), len(part)), np.nan, np.float32)
            samples[LEADS.index("II")] = part * 0.004  # where assign_leads puts an unspecified lead
        rhythm = _whole(samples, labels.CINC2017[stated[name]])
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
        fs, samples = _leads(next((path for path in places if path.with_name(path.name + ".hea").is_file()), places[0]))
        codes: dict[str, float] = ast.literal_eval(stated)
        classes = {superclass[code] for code in codes if code in superclass}
        window = sum(1 << SUPERCLASSES.index(found) for found in classes) if classes else -1
        rhythm = _whole(samples, labels.of_statements(codes, labels.PTBXL))
        return Record("ptbxl", name, split, fs, samples, rhythm, window=window, codes=tuple(sorted(codes)))

    return read


def _ludb(folder: Path) -> Callable[[str, str], Record]:
    """Beats are the QRS peaks marked in lead II (else in another); the first and the last of a record are often not marked."""
    headers = headers_of(folder)
    rows = {row["ID"].strip(): row for row in rows_of(table_of(folder, "ludb.csv"))}

    def read(name: str, split: str) -> Record:
        path = _of(headers, name)
        fs, samples = _leads(path)
        if name not in rows:
            raise ValueError("ludb.csv has no such ID")
        codes = _lines(rows[name]["Rhythms"]) + _lines(rows[name]["Cardiac pacing"])
        allowed = labels.of_statements(_lines(rows[name]["Rhythms"]), labels.LUDB)
        if "pac" in rows[name]["Cardiac pacing"].lower():  # pacing is stated beside the atrial rhythm
            allowed = labels.allow("PACED") | (allowed if allowed != labels.UNSTATED else 0)
        record = Record("ludb", name, split, fs, samples, _whole(samples, allowed), codes=codes)
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
        path = _of(headers, name)
        fs, samples = _leads(path)
        said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in _comments(path))}
        if "Rhythm" in said:
            codes = (said["Rhythm"], *said.get("Beat", "").split())
            allowed = labels.of_statements(codes[:1], labels.CHAPMAN)
        elif "Dx" in said:
            codes = tuple(code for part in said["Dx"].split(",") if (code := part.strip()))
            allowed = labels.of_codes(codes)
        else:
            raise ValueError(f"{name}.hea has neither a 'Dx:' nor a 'Rhythm:' comment")
        return Record(folder.name, name, split, fs, samples, _whole(samples, allowed), codes=codes)

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
        sides = (path.with_suffix(".json"), folder / "signals.json")
        side = next((file for file in sides if file.is_file()), None)
        given = msgspec.json.decode(side.read_bytes(), type=Sidecar) if side else Sidecar()
        if path.suffix.lower() == ".npy" and not (given.fs and given.units and given.leads):
            raise ValueError(f'{path.name} needs {path.stem}.json or signals.json: {{"fs": 250, "units": "mV", "leads": ["II"]}}')
        fs, samples = _leads(path, given)
        return Record(folder.name, name, split, fs, samples, _whole(samples, labels.UNSTATED))

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
}
