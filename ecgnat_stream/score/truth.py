"""What the experts' annotations of a record state: beats, rhythm, and the stretches in which an alarm is due.

A database is known by its files, not by its name: ``.atr`` or ``.ann`` annotations hold beats, rhythm changes ("(AFIB") and VF
marks ("[" and "]"), ``vf_episodes.csv`` pairs VF marks that were merged, a header names the alarm of a Challenge 2015 record.
What an annotation does not speak of is not judged. All times are seconds since the record's first sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import wfdb
from numpy.typing import NDArray

from ecgnat_stream.alarm import AlarmConfig
from ecgnat_stream.alarm.rules import SLOW_SHARE
from ecgnat_stream.codes import BEAT_OF_SYMBOL
from ecgnat_stream.errors import DeviceError
from ecgnat_stream.score.compare import LEARNING_S
from ecgnat_stream.score.records import ScoreError, headers_of, vf_table
from ecgnat_stream.score.spans import Span, gaps, merge, overlaps
from ecgnat_stream.suggest import unknown
from ecgnat_stream.wfdb_header import DEFAULT_HZ, file_of, read_header

__all__ = ["CHALLENGE_ALARMS", "ECTOPY", "Challenge", "Database", "Episode", "Truth", "between_marks"]

_Place = TypeVar("_Place", int, float)
"""In samples, or in s."""

_EXTENSIONS = ("atr", "ann")
ECTOPY = ("(B", "(T", "(AB")
"""Bigeminy, trigeminy, atrial bigeminy: they speak of beats; the rhythm stated before goes on."""

_CONDITION_OF = {
    "(VF": "ventricular-fibrillation", "(VFL": "ventricular-fibrillation", "(VFIB": "ventricular-fibrillation",
    "(VT": "ventricular-tachycardia", "(ASYS": "asystole", "(AFIB": "atrial-fibrillation", "(AFL": "atrial-fibrillation",
}  # fmt: skip
_MAYBE_OF = {
    "(HGEA": "ventricular-tachycardia", "(SVTA": "extreme-tachycardia",
    "(IVR": "extreme-bradycardia", "(VER": "extreme-bradycardia",
}  # fmt: skip
"""Rhythms in which the condition may or may not hold: high-grade ectopy with runs, fast and slow rhythms of unstated rate."""

VF, VT, ASYSTOLE, AF = "ventricular-fibrillation", "ventricular-tachycardia", "asystole", "atrial-fibrillation"
_RATES = ("extreme-tachycardia", "extreme-bradycardia", "tachycardia", "bradycardia")

_REQUIRED_S = 5.0
"""VF and VT without marked beats count as to be alarmed from this length on: the rule needs 4 s, and the marks are set by eye."""

_MARGIN_S, _MARGIN_BPM = 0.5, 2.0
"""A pause or a rate must exceed the alarm's limit by so much before the lack of an alarm is a miss."""

_INSIDE_S = 0.01
"""The beats at either end of a pause belong to the rhythms before and after it."""

_LIMIT_BEATS = 8
"""Beats over which the truth about the limits of the heart rate is averaged."""

_LONG_S = 600.0

_ALARM_AT_S = 300.0
"""Challenge 2015: the alarm sounds at 5 min; the "long" records go on after it."""

CHALLENGE_ALARMS = {
    "Asystole": (ASYSTOLE,),
    "Bradycardia": ("extreme-bradycardia", ASYSTOLE),
    "Tachycardia": ("extreme-tachycardia", VT, VF),
    "Ventricular_Flutter_Fib": (VF,),
    "Ventricular_Tachycardia": (VT, VF),
}
"""Which of the monitor's alarms confirms an alarm of the Challenge: that condition, or one that says the same more urgently."""


class Episode(NamedTuple):
    """A stretch that is annotated; ``required``: an alarm is due, since the alarm's own rule holds with a margin."""

    start_s: float
    stop_s: float
    required: bool


class Challenge(NamedTuple):
    """An alarm of the PhysioNet/CinC Challenge 2015: its type, whether it was true, and when it sounded."""

    alarm: str
    real: bool
    at_s: float


@dataclass(frozen=True, slots=True)
class Truth:
    """What is stated of one record.

    Parameters
    ----------
    path
        Without suffix.
    beats_s, classes
        ``(N,)`` QRS complexes and their EC57 classes; None where they are not annotated. ``classes`` is None where every beat is
        called normal by convention.
    rhythm
        Rhythm notes with their stretch, for showing.
    episodes
        Per condition its annotated stretches.
    stated
        The conditions that the annotation speaks of: an alarm outside the episodes is false.
    possible
        Stretches in which an alarm of that condition is not judged.
    learning_s
        Beats and rhythm are compared from here on.
    """

    database: str
    name: str
    split: str
    path: Path
    fs: float
    length_s: float
    learning_s: float
    beats_s: NDArray[np.float64] | None = None
    classes: NDArray[np.str_] | None = None
    rhythm: tuple[tuple[float, float, str], ...] = ()
    episodes: dict[str, list[Episode]] = field(default_factory=dict)
    stated: frozenset[str] = frozenset()
    possible: dict[str, list[Span]] = field(default_factory=dict)
    challenge: Challenge | None = None

    @property
    def vf(self) -> list[Span]:
        """The stretches in which there are no beats to be found."""
        return [(e.start_s, e.stop_s) for e in self.episodes.get(VF, ())]

    def spans(self, condition: str) -> list[Span]:
        """Return the annotated stretches of a condition."""
        return [(e.start_s, e.stop_s) for e in self.episodes.get(condition, ())]


@dataclass
class _Marks:
    """One annotation file: places in s, symbols, notes."""

    at_s: NDArray[np.float64]
    symbols: list[str]
    notes: list[str]

    @property
    def has_rhythm(self) -> bool:
        return any(note.startswith("(") for note in self.notes)


class Database:
    """A folder of records.

    Parameters
    ----------
    folder
        WFDB records, in it or below it.
    config
        The alarm limits, which say what of the annotated beats an alarm is due for.
    learning_s
        Where the comparison of beats and rhythm begins; None: after 5 min in records longer than 10 min (EC57), else at once.
    """

    def __init__(self, folder: Path, config: AlarmConfig, learning_s: float | None = None) -> None:
        if not folder.is_dir():
            raise ScoreError(f"{folder}: is no folder of records")
        self.folder, self.name = folder, folder.resolve().name
        self._config, self._learning_s = config, learning_s
        self.paths = headers_of(folder)
        if not self.paths:
            raise ScoreError(f"{folder}: holds no WFDB records (no .hea files)")
        self._vf = vf_table(folder)

    @cached_property
    def _speaks(self) -> tuple[bool, bool, bool]:
        """Whether any of the annotations names beat classes, rhythms, VF."""
        classes = rhythm = False
        vf = self._vf is not None
        for path in self.paths.values():
            try:
                marks = _marks(path, 1.0)
            except _UNREADABLE:
                continue
            if marks is not None:
                classes |= any(BEAT_OF_SYMBOL.get(symbol, "N") != "N" for symbol in marks.symbols)
                rhythm |= marks.has_rhythm
                vf |= "[" in marks.symbols
            if classes and rhythm:
                break
        return classes, rhythm, vf

    def truth(self, name: str, split: str = "") -> Truth:
        """Read what is stated of a record.

        Raises
        ------
        ScoreError
            If the record cannot be read, or nothing is stated.
        """
        path = self.paths.get(name)
        if path is None:
            raise ScoreError(f"{self.name}/{name}: {unknown('record', name, self.paths)}")
        try:
            header = read_header(path.with_name(f"{path.name}.hea"))
            fs = DEFAULT_HZ if header.fs is None else header.fs
            length = header.length or sum(length for _, length in header.segments)
            signals = bool(header.signals or header.segments) and all(
                file_of(header.path, described.file) is not None for described in header.signals
            )
            marks = _marks(path, fs) if signals else None  # of a day they take seconds to read
        except (*_UNREADABLE, DeviceError) as error:
            raise ScoreError(f"{self.name}/{name}: cannot be read ({error or type(error).__name__})") from error
        if not signals:
            raise ScoreError(f"{self.name}/{name}: its signals are not there, annotations alone cannot be scored")
        if not length or not fs:
            raise ScoreError(f"{self.name}/{name}: its header states no length or no rate")
        length_s = length / fs
        learning_s = self._learning_s if self._learning_s is not None else LEARNING_S if length_s > _LONG_S else 0.0
        base = Truth(self.name, name, split, path, fs, length_s, learning_s)
        challenge = _challenge(header.comments, length_s)
        if marks is None and challenge is None:
            raise ScoreError(f"{self.name}/{name}: nothing to compare with: no .atr or .ann, no alarm named in its header")
        return self._annotated(base, marks, challenge)

    def _annotated(self, base: Truth, marks: _Marks | None, challenge: Challenge | None) -> Truth:
        if marks is None:
            return replace(base, challenge=challenge)
        has_classes, has_rhythm, has_vf = self._speaks
        rhythm = _rhythm(marks, base.length_s)
        vf_marks = between_marks(marks.at_s.tolist(), marks.symbols, base.length_s)
        if self._vf is not None:
            vf_marks += [(start / base.fs, stop / base.fs) for start, stop in self._vf.get(base.name, ())]
        noted: dict[str, list[Span]] = {VF: vf_marks}
        possible: dict[str, list[Span]] = {}
        for start, stop, note in rhythm:
            if note in _CONDITION_OF:
                noted.setdefault(_CONDITION_OF[note], []).append((start, stop))
            elif note in _MAYBE_OF:
                possible.setdefault(_MAYBE_OF[note], []).append((start, stop))
        is_beat = np.array([symbol in BEAT_OF_SYMBOL for symbol in marks.symbols], bool)
        beats_s = marks.at_s[is_beat] if is_beat.any() else None
        classes = (
            np.array([BEAT_OF_SYMBOL[symbol] for symbol in marks.symbols if symbol in BEAT_OF_SYMBOL]) if has_classes else None
        )
        stated = {VF} if has_vf else set()
        if has_rhythm or not has_vf:  # a database of beats alone is one of normal rhythm
            stated |= {VF, VT, ASYSTOLE, AF}
        noted[VF] = merge(noted[VF])
        due_s = {AF: _REQUIRED_S + self._config.af_delay_s}
        episodes = {
            condition: [Episode(*span, span[1] - span[0] >= due_s.get(condition, _REQUIRED_S)) for span in merge(spans)]
            for condition, spans in noted.items()
        }
        if beats_s is not None:
            pauses = gaps(beats_s, self._config.asystole_s)
            outside = _pieces(beats_s, merge([*noted[VF], *((start + _INSIDE_S, stop - _INSIDE_S) for start, stop in pauses)]))
            if classes is not None:
                stated |= {*_RATES}
                episodes |= _rate_episodes(outside, self._config)
                if has_rhythm:
                    episodes[VT] = _ventricular(beats_s, classes, episodes.get(VT, []), self._config)
            if has_rhythm:
                pauses = [pause for pause in pauses if not overlaps(pause, noted[VF])]
                least_s = self._config.asystole_s + _MARGIN_S
                found = [Episode(start, stop, stop - start >= least_s) for start, stop in pauses]
                episodes[ASYSTOLE] = sorted([*episodes.get(ASYSTOLE, []), *found])
            elif has_vf:
                stated |= {ASYSTOLE}
                edges = [(0.0, float(beats_s[0])), (float(beats_s[-1]), base.length_s)]
                possible[ASYSTOLE] = merge([*pauses, *edges, *noted[VF]])
        return replace(
            base,
            beats_s=beats_s,
            classes=classes,
            rhythm=tuple(rhythm),
            episodes={condition: found for condition, found in episodes.items() if found},
            stated=frozenset(stated),
            possible=possible,
            challenge=challenge,
        )


_UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, OSError, OverflowError)
"""What wfdb raises for broken files."""


_OWN_RATE = b"## time resolution: "
"""What annotations of a rate of their own begin with: annot(5) of the WFDB Applications Guide."""


def _marks(path: Path, fs: float) -> _Marks | None:
    """Read the record's annotations; None where there are none."""
    for extension in _EXTENSIONS:
        file = path.with_name(f"{path.name}.{extension}")
        if file.is_file():
            read = wfdb.rdann(str(path), extension)
            notes = [note.strip("\x00 ") for note in read.aux_note]
            if not len(read.sample) == len(read.symbol) == len(notes):
                raise ValueError(f"{len(read.sample)} annotations with {len(read.symbol)} symbols and {len(notes)} notes")
            # Places count frames of the record, unless the file has a rate of its own: wfdb gives that, or the header's.
            counted_hz = read.fs if _OWN_RATE in file.read_bytes() else fs
            return _Marks(np.asarray(read.sample, np.float64) / counted_hz, list(read.symbol), notes)
    return None


def _challenge(comments: Sequence[str], length_s: float) -> Challenge | None:
    said = [comment.strip("# ") for comment in comments]
    alarm = next((line for line in said if line in CHALLENGE_ALARMS), None)
    verdict = next((line for line in said if line in ("True alarm", "False alarm")), None)
    if alarm is None or verdict is None:
        return None
    return Challenge(alarm, verdict == "True alarm", min(_ALARM_AT_S, length_s))


def _rhythm(marks: _Marks, length_s: float) -> list[tuple[float, float, str]]:
    """Return the stretch of every rhythm note; notes about beats leave the rhythm as it was."""
    notes = zip(marks.at_s.tolist(), marks.notes, strict=True)
    changes = [(at, note) for at, note in notes if note.startswith("(") and note not in ECTOPY]
    ends = [*(at for at, _ in changes[1:]), length_s]
    return [(start, stop, note) for (start, note), stop in zip(changes, ends, strict=False) if stop > start]


def between_marks(places: Iterable[_Place], symbols: Iterable[str], end: _Place) -> list[tuple[_Place, _Place]]:
    """Return the stretches from each "[" (onset of VF) to the next "]", or to the end where it is lacking."""
    spans: list[tuple[_Place, _Place]] = []
    onset: _Place | None = None
    for at, symbol in zip(places, symbols, strict=True):
        if symbol == "[" and onset is None:
            onset = at
        elif symbol == "]" and onset is not None:
            spans.append((onset, at))
            onset = None
    if onset is not None:
        spans.append((onset, end))
    return spans


def _pieces(beats_s: NDArray[np.float64], without: Iterable[Span]) -> list[NDArray[np.float64]]:
    """Cut the beats at stretches that have none."""
    pieces, rest = [], beats_s
    for start, stop in without:
        pieces.append(rest[rest < start])
        rest = rest[rest > stop]
    return [piece for piece in (*pieces, rest) if len(piece)]


def _rate_episodes(pieces: Sequence[NDArray[np.float64]], config: AlarmConfig) -> dict[str, list[Episode]]:
    """Return where the annotated beats are beyond the limits of the heart rate; one pause alone is no bradycardia."""
    limits = {
        "extreme-tachycardia": (config.extreme_tachy_bpm, config.extreme_tachy_beats, 1),
        "extreme-bradycardia": (config.extreme_brady_bpm, config.extreme_brady_beats, -1),
        "tachycardia": (config.hr_high_bpm, _LIMIT_BEATS, 1),
        "bradycardia": (config.hr_low_bpm, _LIMIT_BEATS, -1),
    }
    found: dict[str, list[Episode]] = {}
    for condition, (limit_bpm, count, sign) in limits.items():
        spans: list[Span] = []
        surely: list[Span] = []
        for beats in pieces:
            if len(beats) < count:
                continue
            start, stop = beats[: len(beats) - count + 1], beats[count - 1 :]
            beyond = sign * (60.0 * (count - 1) / np.maximum(stop - start, 1e-9) - limit_bpm)
            far = beyond > _MARGIN_BPM
            if condition == "extreme-bradycardia":
                intervals_s = np.lib.stride_tricks.sliding_window_view(np.diff(beats), count - 1)
                beyond = np.where((intervals_s <= 60.0 / limit_bpm).sum(axis=1) <= 1, beyond, 0.0)
                far &= intervals_s.min(axis=1) > SLOW_SHARE * 60.0 / limit_bpm
            spans += [(float(a), float(b)) for a, b in zip(start[beyond > 0], stop[beyond > 0], strict=True)]
            surely += [(float(a), float(b)) for a, b in zip(start[far], stop[far], strict=True)]
        delay_s = config.hr_delay_s + _MARGIN_S if condition in ("tachycardia", "bradycardia") else 0.0
        sure = [span for span in merge(surely) if span[1] - span[0] >= delay_s]
        found[condition] = [Episode(*span, overlaps(span, sure)) for span in merge(spans)]
    return found


def _ventricular(
    beats_s: NDArray[np.float64], classes: NDArray[np.str_], noted: Sequence[Episode], config: AlarmConfig
) -> list[Episode]:
    """Return the annotated tachycardias, and the runs of ventricular beats that are long and fast enough to be one."""
    runs: list[Span] = []
    first = 0
    for i in range(1, len(classes) + 1):
        if i == len(classes) or classes[i] != classes[first]:
            if classes[first] == "V" and i - first >= config.vt_beats:
                rate = 60.0 * (i - first - 1) / (beats_s[i - 1] - beats_s[first])
                if rate > config.vt_rate_bpm:
                    runs.append((float(beats_s[first]), float(beats_s[i - 1])))
            first = i
    spans = merge([*runs, *((e.start_s, e.stop_s) for e in noted)])
    return [Episode(*span, overlaps(span, runs)) for span in spans]
