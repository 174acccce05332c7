"""The sections about harder input: fewer leads, recorded noise, and R peaks that are wrong.

Leads that are taken away are missing, also those that the monitor would derive from the ones left. Noise comes from the last 30 %
of the noise records, which no network sees in training; the detector of R peaks was fitted with all of it. Its level is per
lead: the standard deviation of the conditioned signal over the stretch that is read, against that of the noise after the same
conditioning.

Shapes: L lead (12), T time, C class, K statement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from ecgnat_stream.beats import find_beats
from ecgnat_stream.codes import BEATS, RHYTHMS
from ecgnat_stream.score.figures import Statistic
from ecgnat_stream.signal import LEADS, MODEL_FS
from train.data.augment import stack_beats, wrong_beats
from train.data.pack import Cached
from train.data.sample import Cache
from train.judge.metrics import Interval, auroc, difference, f1, interval, macro
from train.judge.reading import WINDOW, Change, Reader
from train.judge.score_beats import summarise_beats
from train.judge.sections import class_f1, judged_beats, screen_f1, superclasses, window_classes

__all__ = [
    "BEAT_ERRORS",
    "LEAD_SETS",
    "AddNoise",
    "FindBeats",
    "beat_errors_section",
    "disturb_beats",
    "keep",
    "leads_section",
    "noise_section",
]

LEAD_SETS = {"1": LEADS[1:2], "2": LEADS[:2], "3": (*LEADS[:2], "V2"), "6": LEADS[:6], "12": LEADS}
NOISES = ("bw", "em", "ma")
SNRS_DB = (24, 18, 12, 6, 0)
BEAT_ERRORS: dict[str, tuple[str, float]] = (
    {f"R jitter {ms} ms": ("jitter_ms", ms) for ms in (20, 50, 100)}
    | {f"{share} % beats missed": ("missed", share / 100) for share in (5, 20)}
    | {f"{share} % beats false": ("false", share / 100) for share in (5, 20)}
)
"""Errors of :func:`disturb_beats`: which, and how much of it."""

FindBeats = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""R peaks ``(B, N)`` of windows ``(B, 12, T)``, in samples, NaN behind the last."""

_SHORT = 60 * MODEL_FS
_SHARE = 0.7  # what training may use of the noise
_STRETCH = 180 * MODEL_FS
_SCREENED = 300


def keep(names: Sequence[str]) -> Change:
    """Return a change that leaves only these leads."""
    gone = [slot for slot, name in enumerate(LEADS) if name not in names]

    def change(window: NDArray[np.float32], _record: Cached, _start: int) -> NDArray[np.float32]:
        out = window.copy()
        out[gone] = np.nan
        return out

    return change


class AddNoise:
    """Add recorded noise at one level. A record gets the same noise at the same place, whichever window it is seen in.

    Parameters
    ----------
    kind
        Index into :data:`NOISES`.
    spans
        Half-open stretch by which the signal's level is measured, for records that are not read as a whole.
    """

    def __init__(self, cache: Cache, kind: int, snr_db: float, spans: dict[tuple[str, str], tuple[int, int]]) -> None:
        self.cache, self.spans = cache, spans
        rest = cache.noise[2 * kind : 2 * kind + 2, int(_SHARE * cache.noise.shape[1]) :]
        self._noise = (rest / np.maximum(rest.std(axis=1, keepdims=True), 1e-6)).astype(np.float32)
        self._gain = 10 ** (-snr_db / 20)
        self._levels: dict[tuple[str, str], NDArray[np.float32]] = {}

    def __call__(self, window: NDArray[np.float32], record: Cached, start: int) -> NDArray[np.float32]:
        """Return the noisy window."""
        key = (record.database, record.name)
        if key not in self._levels:
            begin, end = self.spans.get(key, (0, record.length))
            whole = np.ma.masked_invalid(self.cache.cut(record, begin, end - begin)[0])
            self._levels[key] = whole.std(axis=1).filled(0).astype(np.float32)
        at = (start + crc32("/".join(key).encode()) + np.arange(window.shape[1])) % self._noise.shape[1]
        rows = np.arange(len(LEADS)) % len(self._noise)
        out: NDArray[np.float32] = window + self._noise[rows][:, at] * (self._levels[key] * self._gain)[:, None]
        return out


def disturb_beats(jitter_ms: float = 0.0, missed: float = 0.0, false: float = 0.0) -> FindBeats:
    """Return a detector with errors: the runtime's own, then those of ``wrong_beats``. The same windows get the same errors."""

    def find(windows: NDArray[np.float32]) -> NDArray[np.float32]:
        found, length = find_beats(windows), windows.shape[2]
        rows = []
        for window, row in zip(windows, found, strict=True):
            rng = np.random.default_rng(crc32(window.tobytes()))
            rows.append(wrong_beats(row[np.isfinite(row)], length, rng, jitter_ms, missed, false))
        return stack_beats(rows)

    return find


def leads_section(reader: Reader, records: Sequence[Cached]) -> dict[str, Any] | None:
    """Return the section "leads": statements and rhythm of twelve-lead records, read by fewer and fewer leads.

    The rhythm of a record is what most of its tokens are said to be, for records that state one rhythm and no other.
    """
    records = [record for record in records if len(record.slots) == len(LEADS) and record.length <= _SHORT]
    stated = superclasses([record for record in records if record.window >= 0], len(reader.predictor.window_classes))
    rhythm = np.array([_one_rhythm(reader.cache, record) for record in records], np.int64)
    used = window_classes(stated)
    if not used and not (rhythm >= 0).any():
        return None
    sets, macros = {}, {}
    for count, leads in LEAD_SETS.items():
        per_class, macros[count] = _by_leads(replace(reader, change=keep(leads)), records, stated, rhythm)
        sets[count] = {
            "leads": " ".join(leads),
            **{key: interval(statistic, units) for key, (statistic, units) in macros[count].items()},
            "rhythm_f1": {RHYTHMS[c]: interval(statistic, int((rhythm >= 0).sum())) for c, statistic in per_class.items()},
        }
    return {
        "window_records": len(stated) if used else 0,
        "rhythm_records": {name: int((rhythm == c).sum()) for c, name in enumerate(RHYTHMS) if (rhythm == c).any()},
        "sets": sets,
        "loss_from_12_to_1": {
            key: interval(difference(statistic, macros["1"][key][0]), units) for key, (statistic, units) in macros["12"].items()
        },
    }


def _by_leads(
    reader: Reader, records: Sequence[Cached], stated: NDArray[np.bool_], rhythm: NDArray[np.int64]
) -> tuple[dict[int, Statistic], dict[str, tuple[Statistic, int]]]:
    """Return F1 per rhythm, and the macro figures, each with the number of its records.

    Parameters
    ----------
    stated, rhythm
        ``(N', K)`` of the records with statements, and ``(N,)`` class or -1.
    """
    probabilities, tokens = reader.short(records)
    said = probabilities[[record.window >= 0 for record in records]]
    marked = said >= (reader.predictor.card.calibration.window_thresholds or 0.5)
    decided = np.array([np.bincount(part.argmax(axis=1), minlength=len(RHYTHMS)).argmax() for part in tokens], np.int64)
    known, used = rhythm >= 0, window_classes(stated)
    per_class = class_f1(rhythm[known], decided[known], range(len(RHYTHMS)))
    return per_class, {
        "window_macro_auroc": (macro([auroc(stated[:, k], said[:, k]) for k in used]), len(stated)),
        "window_macro_f1": (macro([f1(stated[:, k] & marked[:, k], marked[:, k], stated[:, k]) for k in used]), len(stated)),
        "rhythm_macro_f1": (macro(list(per_class.values())), int(known.sum())),
    }


def _one_rhythm(cache: Cache, record: Cached) -> int:
    """Return the class that is stated for the whole record, or -1."""
    sets = np.unique(cache.rhythm(record))
    return int(sets[0]).bit_length() - 1 if len(sets) == 1 and int(sets[0]).bit_count() == 1 else -1


def noise_section(reader: Reader, records: Sequence[Cached]) -> dict[str, Any] | None:
    """Return the section "noise": screening of at most 300 records, beats in the middle 3 minutes of databases that mark V."""
    screened, beating = _read_under_conditions(reader, records)
    if not reader.cache.noise.size or not (screened or beating):
        return None
    section: dict[str, Any] = {"snr": "std of the conditioned signal to std of the conditioned noise, per lead of a record"}
    section |= _clean(reader, screened, beating)
    spans = {(record.database, record.name): _middle(record) for record in beating}
    for kind, name in enumerate(NOISES):
        section[name] = {}
        for snr_db in track(SNRS_DB, f"noise {name}"):
            noisy = replace(reader, change=AddNoise(reader.cache, kind, snr_db, spans))
            section[name][f"{snr_db} dB"] = _under(noisy, screened, beating)
    return section


def beat_errors_section(reader: Reader, records: Sequence[Cached]) -> dict[str, Any] | None:
    """Return the section "beat_errors" of a network that is given R peaks: what "noise" measures, with peaks that are wrong."""
    screened, beating = _read_under_conditions(reader, records)
    if not reader.predictor.needs_beats or not (screened or beating):
        return None
    section = _clean(reader, screened, beating)
    for name, (kind, value) in track(BEAT_ERRORS.items(), "wrong beats"):
        section[name] = _under(replace(reader, beats=disturb_beats(**{kind: value})), screened, beating)
    return section


def _read_under_conditions(reader: Reader, records: Sequence[Cached]) -> tuple[list[Cached], list[Cached]]:
    """Return at most 300 screened records, and all with beats of databases that mark V."""
    screened = sorted((record for record in records if record.screen >= 0), key=lambda record: (record.database, record.name))
    if len(screened) > _SCREENED:
        chosen = np.random.default_rng(0).choice(len(screened), _SCREENED, replace=False)
        screened = [screened[i] for i in np.sort(chosen)]
    ectopic = {record.database for record in records if _has_v(reader.cache, record)}
    return screened, [record for record in records if record.database in ectopic and record.beats > 0]


def _clean(reader: Reader, screened: Sequence[Cached], beating: Sequence[Cached]) -> dict[str, Any]:
    return {"screen_records": len(screened), "beat_records": len(beating), "clean": _under(reader, screened, beating)}


def _under(reader: Reader, screened: Sequence[Cached], beating: Sequence[Cached]) -> dict[str, Interval | None]:
    """Return the figures under one condition."""
    figures: dict[str, Interval | None] = {"screen_mean_f1": None, "r_peak_f1": None, "v_f1": None}
    if screened:
        stated = np.array([record.screen for record in screened])
        figures["screen_mean_f1"] = interval(screen_f1(stated, reader.screen(screened).argmax(axis=1)), len(screened))
    counts = []
    for record in beating:
        span = _middle(record)
        if one := judged_beats(reader.cache, record, reader.read(record, WINDOW // 2, span), span):
            counts.append(one)
    if counts:
        beats = summarise_beats(counts)
        figures["r_peak_f1"] = beats["r_peak"]["f1"]
        figures["v_f1"] = beats["classes"]["V"]["f1"] if beats["classes"] and beats["classes"]["V"] else None
    return figures


def _has_v(cache: Cache, record: Cached) -> bool:
    beats = cache.beats(record)
    return beats is not None and bool((beats[:, 1] == BEATS.index("V")).any())


def _middle(record: Cached) -> tuple[int, int]:
    begin = max(record.length - _STRETCH, 0) // 2
    return begin, min(begin + _STRETCH, record.length)
