"""What a recording comes to: a handful of figures, and a block of text to read."""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.codes import PRIORITIES, RHYTHM_TEXTS, Priority
from ecgnat_stream.words import clock, length

if TYPE_CHECKING:
    from ecgnat_stream.analysis.result import Analysis

__all__ = ["Place", "Summary", "summarise"]

_LEAST_FOR_RATE_S = 60.0
"""Counts per hour are not told of shorter recordings."""

_NO_RHYTHM = ("UNKNOWN", "NOISE")


class Place(msgspec.Struct, frozen=True):
    """Something that has a length and a place: s from the start of the recording."""

    length: float
    at_s: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one recording; ``str()`` makes a readable block of them.

    Parameters
    ----------
    name, model, leads
        What was analysed, by which network, and the standard leads that were used.
    length_s, unusable_s
        Length in s, and how much of it nothing could be decided from.
    beats, ventricular, supraventricular, without_class
        QRS complexes; those of class V and of class S; those of class Q, which are paced or could not be told.
    heart_rate_min_bpm, heart_rate_mean_bpm, heart_rate_max_bpm
        Of the rate shown each second; None if there never was one.
    rhythm_s
        Seconds of every rhythm label, the longest first.
    af_s, af_burden
        Seconds of atrial fibrillation or flutter, and their share of the time that has a rhythm; None if none has.
    couplets, runs
        Two ventricular beats in a row, and three or more.
    longest_run
        In beats, and where it begins.
    longest_pause
        Longest RR interval in s, and where it begins; not across unusable signal.
    alarms, technical_alarms
        Alarms of the heart by priority, and alarms of the technique.
    diagnoses
        Statements that the 12-lead network makes; None if it was not asked.
    """

    name: str
    model: str
    leads: tuple[str, ...]
    length_s: float
    unusable_s: float
    beats: int
    ventricular: int
    supraventricular: int
    without_class: int
    heart_rate_min_bpm: float | None
    heart_rate_mean_bpm: float | None
    heart_rate_max_bpm: float | None
    rhythm_s: dict[str, float]
    af_s: float
    af_burden: float | None
    couplets: int
    runs: int
    longest_run: Place | None
    longest_pause: Place | None
    alarms: dict[Priority, int]
    technical_alarms: int
    diagnoses: tuple[str, ...] | None

    @property
    def leading_rhythm(self) -> str | None:
        """The rhythm of most of the time; None if there is none."""
        return next((label for label in self.rhythm_s if label not in _NO_RHYTHM), None)

    @property
    def unusable_share(self) -> float:
        """Share of the recording that nothing could be decided from."""
        return self.unusable_s / self.length_s

    @property
    def ventricular_per_hour(self) -> float | None:
        """Ventricular beats per hour of usable signal; None for recordings below a minute."""
        return self._per_hour(self.ventricular)

    @property
    def supraventricular_per_hour(self) -> float | None:
        """Supraventricular beats per hour of usable signal; None for recordings below a minute."""
        return self._per_hour(self.supraventricular)

    def _per_hour(self, count: int) -> float | None:
        usable_s = self.length_s - self.unusable_s
        return None if usable_s < _LEAST_FOR_RATE_S else round(count * 3600.0 / usable_s, 1)

    def __str__(self) -> str:
        """Return a block of text."""
        rows = [
            ("", f"{length(self.length_s)}, leads {', '.join(self.leads)}, {self.unusable_share:.1%} unusable"),
            ("heart rate", self._heart_rate()),
            ("rhythm", self._rhythm()),
            ("AF burden", "-" if self.af_burden is None else f"{self.af_burden:.1%} ({length(self.af_s)})"),
            ("beats", f"{self.beats}{f', {self.without_class} without a class' if self.without_class else ''}"),
            ("ventricular", _count(self.ventricular, self.ventricular_per_hour) + self._runs()),
            ("supraventricular", _count(self.supraventricular, self.supraventricular_per_hour)),
            ("longest pause", _place(self.longest_pause, lambda s: f"{s:.2f} s")),
            ("alarms", self._alarms()),
        ]
        if self.diagnoses is not None:
            rows.append(("12-lead statements", ", ".join(self.diagnoses) or "none"))
        rows.append(("network", self.model))
        width = max(len(name) for name, _ in rows) + 2
        lines = [f"{self.name}: {text}" if not name else f"  {name:<{width}}{text}" for name, text in rows]
        return "\n".join(lines)

    def _heart_rate(self) -> str:
        if self.heart_rate_mean_bpm is None:
            return "-"
        return (
            f"{self.heart_rate_mean_bpm:.0f} bpm on average, {self.heart_rate_min_bpm:.0f} to {self.heart_rate_max_bpm:.0f} bpm"
        )

    def _rhythm(self) -> str:
        told = sum(self.rhythm_s.values())
        parts = [
            f"{RHYTHM_TEXTS[label]} {seconds / told:.0%}" for label, seconds in self.rhythm_s.items() if seconds / told >= 0.005
        ]
        return ", ".join(parts) or "-"

    def _runs(self) -> str:
        parts = [f"{n} {word}{'s' if n > 1 else ''}" for n, word in ((self.couplets, "couplet"), (self.runs, "run")) if n]
        if self.longest_run is not None:
            parts.append(f"longest {self.longest_run.length:.0f} beats at {clock(self.longest_run.at_s)}")
        return "; " + ", ".join(parts) if parts else ""

    def _alarms(self) -> str:
        parts = [f"{n} {priority}" for priority, n in self.alarms.items()]
        parts += [f"{self.technical_alarms} technical"] if self.technical_alarms else []
        return ", ".join(parts) or "none"


def _count(count: int, per_hour: float | None) -> str:
    return f"{count}" if per_hour is None else f"{count} ({per_hour:g} per hour)"


def _place(place: Place | None, text: object) -> str:
    if place is None:
        return "-"
    assert callable(text)
    return f"{text(place.length)} at {clock(place.at_s)}"


def summarise(analysis: Analysis) -> Summary:
    """Return the figures of an analysis."""
    beats = analysis.beats
    rates = analysis.vitals["heart_rate_bpm"]
    rates = rates[np.isfinite(rates)]
    if not len(rates) and np.isfinite(beats["rr_ms"]).any():
        rates = np.array([6e4 / np.nanmean(beats["rr_ms"])])
    rhythm_s = _rhythm_s(analysis.rhythm)
    told_s = sum(seconds for label, seconds in rhythm_s.items() if label not in _NO_RHYTHM)
    af_s = rhythm_s.get("AF", 0.0)
    runs = _ventricular_runs(beats)
    longest = max(runs, key=lambda run: run.length, default=None)
    hearts = analysis.alarms[analysis.alarms["kind"] == "physiological"]["priority"].tolist()
    counts: dict[Priority, int] = {priority: hearts.count(priority) for priority in reversed(PRIORITIES) if priority in hearts}
    diagnoses = analysis.diagnoses
    return Summary(
        name=analysis.name,
        model=analysis.model,
        leads=tuple(lead for lead in analysis.used_as if lead),
        length_s=round(analysis.length_s, 3),
        unusable_s=float(max(0, int(analysis.length_s) - int(analysis.quality["usable"].sum()))),
        beats=len(beats),
        ventricular=int((beats["label"] == "V").sum()),
        supraventricular=int((beats["label"] == "S").sum()),
        without_class=int((beats["label"] == "Q").sum()),
        heart_rate_min_bpm=_round(rates.min()) if len(rates) else None,
        heart_rate_mean_bpm=_round(rates.mean()) if len(rates) else None,
        heart_rate_max_bpm=_round(rates.max()) if len(rates) else None,
        rhythm_s=rhythm_s,
        af_s=af_s,
        af_burden=round(af_s / told_s, 4) if told_s else None,
        couplets=sum(run.length == 2 for run in runs),
        runs=sum(run.length > 2 for run in runs),
        longest_run=longest if longest is not None and longest.length > 2 else None,
        longest_pause=_longest_pause(beats, analysis.quality),
        alarms=counts,
        technical_alarms=int((analysis.alarms["kind"] == "technical").sum()),
        diagnoses=tuple(diagnoses["statement"][diagnoses["made"]].tolist()) if len(diagnoses) else None,
    )


def _round(value: float) -> float:
    return round(float(value), 1)


def _rhythm_s(rhythm: NDArray[np.void]) -> dict[str, float]:
    total: dict[str, float] = {}
    for label, lasted_s in zip(rhythm["label"].tolist(), (rhythm["stop_s"] - rhythm["start_s"]).tolist(), strict=True):
        total[label] = total.get(label, 0.0) + lasted_s
    return {label: round(seconds, 1) for label, seconds in sorted(total.items(), key=lambda item: -item[1])}


def _ventricular_runs(beats: NDArray[np.void]) -> list[Place]:
    """Return every stretch of two or more ventricular beats that follow each other, without a gap, as beats and start."""
    runs: list[Place] = []
    joined = np.where(np.isnan(beats["rr_ms"]), "", beats["label"])  # a first beat after a gap continues nothing
    at = 0
    for ventricular, group in groupby(
        zip(beats["label"].tolist(), joined.tolist(), strict=True), key=lambda beat: beat[0] == "V"
    ):
        members = list(group)
        starts = [i for i, (_, follows) in enumerate(members) if i == 0 or not follows] + [len(members)]
        if ventricular:
            runs += [
                Place(float(stop - start), float(beats["time_s"][at + start]))
                for start, stop in pairwise(starts)
                if stop - start > 1
            ]
        at += len(members)
    return runs


def _longest_pause(beats: NDArray[np.void], quality: NDArray[np.void]) -> Place | None:
    """Return the longest RR interval in s that no unusable second is part of, and where it begins."""
    length_s = beats["rr_ms"] / 1e3
    start_s = beats["time_s"] - length_s
    bad_s = quality["at_s"][~quality["usable"]]
    touched = np.searchsorted(bad_s, beats["time_s"] + 1.0) > np.searchsorted(bad_s, start_s, side="right")
    known = np.isfinite(length_s) & ~touched
    if not known.any():
        return None
    best = int(np.where(known, length_s, -1.0).argmax())
    return Place(round(float(length_s[best]), 3), round(float(start_s[best]), 2))
