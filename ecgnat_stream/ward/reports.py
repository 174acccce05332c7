"""What is told of a bed: pure functions from findings to the events that are published."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from math import isnan
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.beats import BeatFrame
from ecgnat_stream.codes import RHYTHM_CODES, RHYTHM_TEXTS, RHYTHMS
from ecgnat_stream.events import Beat, BeatLabel, Event, LeadQuality, LeadState, Meta, Quality, Rhythm, Timing, Vitals
from ecgnat_stream.model import Prediction
from ecgnat_stream.quality import STATES, QualityFrame
from ecgnat_stream.rhythm import RhythmDecision, label_text
from ecgnat_stream.signal import LEADS, MODEL_FS, StreamInfo, Window

__all__ = ["beat", "blank", "known", "lead_states", "meta", "quality", "rhythm", "vitals"]


def known(value: float) -> float | None:
    """Return a number, None for NaN."""
    return None if isnan(value) else value


def meta(bed: str, time: datetime, info: StreamInfo, used_as: Sequence[int | None], session: int) -> Meta:
    """Return what a stream delivers; ``used_as`` is the place in ``LEADS`` of each of its leads."""
    return Meta(
        bed=bed,
        time=time,
        leads=info.leads,
        used_as=tuple(None if slot is None else LEADS[slot] for slot in used_as),
        fs=info.fs,
        uv_per_lsb=info.uv_per_lsb,
        device=info.device,
        live=info.live,
        session=session,
        pace=info.pace,
        recorded=info.recorded,
    )


def beat(bed: str, time: datetime, at_s: float, fs: float, beats: BeatFrame, label: str, i: int) -> Beat:
    """Return the ``i``-th beat of a frame; ``at_s`` is where its R peak was placed."""
    rr_ms = known(float(beats.rr_ms[i]))
    return Beat(
        bed=bed,
        time=time,
        at_s=at_s,
        sample=round(at_s * fs),
        rr_ms=None if rr_ms is None else round(rr_ms, 1),
        label=cast(BeatLabel, label),
        lead=LEADS[int(beats.lead[i])],
    )


def lead_states(slots: NDArray[np.intp], frame: QualityFrame, i: int) -> dict[str, LeadQuality]:
    """Return the quality of the leads that a device delivers, of the ``i``-th bed of a frame."""
    sqi, state = frame.sqi[i], frame.state[i]
    return {LEADS[k]: LeadQuality(round(min(1.0, max(0.0, float(sqi[k]))), 3), cast(LeadState, STATES[state[k]])) for k in slots}


def quality(bed: str, time: datetime, at_s: float, slots: NDArray[np.intp], frame: QualityFrame, i: int) -> Quality:
    """Return a bed's signal quality; the best lead is one that the device delivers."""
    leads = lead_states(slots, frame, i)
    best = int(frame.best[i])
    if best >= 0 and best not in slots:
        best = int(slots[frame.sqi[i, slots].argmax()])
    usable = bool(frame.usable[i])
    return Quality(
        bed=bed,
        time=time,
        at_s=at_s,
        leads=leads,
        usable=usable,
        best_lead=LEADS[best] if best >= 0 else None,
        reason="" if usable else ", ".join(f"{lead} {state.state}" for lead, state in leads.items()),
    )


def vitals(bed: str, time: datetime, at_s: float, heart_rate_bpm: float | None, pvc_per_min: int | None) -> Vitals:
    """Return a bed's numbers."""
    shown = None if heart_rate_bpm is None else round(heart_rate_bpm, 1)
    rr_ms = shown and round(6e4 / shown, 1)
    return Vitals(bed=bed, time=time, at_s=at_s, heart_rate_bpm=shown, rr_ms=rr_ms, pvc_per_min=pvc_per_min)


def rhythm(
    bed: str,
    time: datetime,
    fs: float,
    window: Window,
    decision: RhythmDecision,
    k: int,
    heart_rate_bpm: float | None,
    prediction: Prediction,
    i: int,
    model: str,
    now_ns: int,
) -> Rhythm:
    """Return a bed's rhythm: the ``k``-th of the decisions, after the ``i``-th window of the prediction."""
    label = label_text(decision.names[k], heart_rate_bpm)
    at_s = window.stop / MODEL_FS
    return Rhythm(
        bed=bed,
        time=time,
        at_s=at_s,
        label=label,
        text=RHYTHM_TEXTS[label],
        probability=_probability(decision.probability[k]),
        probabilities={name: _probability(p) for name, p in zip(RHYTHMS, decision.probabilities[k], strict=True)},
        start_s=float(decision.start_s[k]),
        stop_s=float(decision.stop_s[k]),
        window_start=max(0, round(window.start / MODEL_FS * fs)),
        window_stop=round(window.reach / MODEL_FS * fs),
        codes=RHYTHM_CODES[label],
        timing=Timing(window.last_sample_ns, window.cut_ns, prediction.ready_ns, now_ns),
        model=model,
        without_beats=bool(prediction.without_beats[i]),
    )


def _probability(value: np.floating) -> float:
    return min(1.0, max(0.0, round(float(value), 4)))


def blank(bed: str, time: datetime, at_s: float, sample: int, reason: str, now_ns: int) -> tuple[Event, ...]:
    """Return what takes back every value that is shown: nothing is known any more. ``sample`` is how far the stream had come."""
    return (
        Vitals(bed=bed, time=time, at_s=at_s, heart_rate_bpm=None),
        Quality(bed=bed, time=time, at_s=at_s, leads={}, usable=False, best_lead=None, reason=reason),
        Rhythm(
            bed=bed,
            time=time,
            at_s=at_s,
            label="UNKNOWN",
            text=RHYTHM_TEXTS["UNKNOWN"],
            probability=0.0,
            probabilities={},
            start_s=at_s,
            stop_s=at_s,
            window_start=sample,
            window_stop=sample,
            codes=RHYTHM_CODES["UNKNOWN"],
            timing=Timing(now_ns, now_ns, now_ns, now_ns),
        ),
    )
