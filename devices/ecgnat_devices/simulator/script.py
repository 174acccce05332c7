"""What a simulated patient goes through: rhythms one after the other, and artefacts at stated times."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ecgnat_stream.signal import LEADS

__all__ = ["LABELS", "SCRIPTS", "Artefact", "RhythmName", "Segment", "Signal"]

RhythmName = Literal[
    "sinus", "bradycardia", "tachycardia", "af", "flutter", "svt", "pvc", "vt", "vflutter", "vf",
    "asystole", "paced", "avb1", "avb2", "avb3",
]  # fmt: skip

LABELS: dict[str, str] = {
    "sinus": "SINUS", "bradycardia": "SINUS", "tachycardia": "SINUS", "af": "AF", "flutter": "AF", "svt": "SVT",
    "pvc": "SINUS", "vt": "VT", "vflutter": "VF", "vf": "VF", "asystole": "ASYSTOLE", "paced": "PACED",
    "avb1": "SINUS", "avb2": "SINUS", "avb3": "SINUS",
}  # fmt: skip
"""The class of ``codes.RHYTHMS`` that each scripted rhythm belongs to; AV block keeps the sinus node's rhythm."""

Positive = Annotated[float, msgspec.Meta(gt=0)]
NonNegative = Annotated[float, msgspec.Meta(ge=0)]


class Segment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rhythm for a while.

    Parameters
    ----------
    rhythm
        Its name.
    seconds
        How long it lasts.
    rate_bpm
        Ventricular rate, or that of the fibrillation or flutter waves for vf and vflutter; None: usual for the rhythm. Of the
        escape rhythm in avb3, of the atria in avb2, and following from ``ratio`` in flutter.
    every
        pvc: every n-th beat is premature (2 bigeminy, 3 trigeminy); 0: at random, ``pvc_per_min`` of them.
    pvc_per_min
        pvc: premature beats per minute.
    run
        pvc: how many ventricular beats follow each other (2 couplets, 3 and more runs).
    ratio
        flutter: atrial waves per QRS.
    amplitude_mv, end_amplitude_mv
        vf, vflutter: size of the waves at the beginning and at the end, mV; vf goes from coarse to fine.
    """

    rhythm: RhythmName
    seconds: Positive
    rate_bpm: Annotated[float, msgspec.Meta(ge=10, le=400)] | None = None
    every: Annotated[int, msgspec.Meta(ge=0)] = 0
    pvc_per_min: NonNegative = 10.0
    run: Annotated[int, msgspec.Meta(ge=1, le=30)] = 1
    ratio: Annotated[int, msgspec.Meta(ge=1, le=8)] = 4
    amplitude_mv: Positive | None = None
    end_amplitude_mv: Positive | None = None


class Artefact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something wrong for a while; times count from the beginning of the script and come again with each of its rounds.

    Parameters
    ----------
    kind
        ``noise`` white, ``wander`` baseline, ``mains`` hum, ``muscle`` tremor, ``motion`` of electrodes, ``spikes`` of a
        pacemaker at 70 per minute, one sample long, whatever the heart does, ``lead_off``, ``gap`` (samples that never arrive).
    start_s, seconds
        When, and how long.
    level_mv
        Size of noise (root mean square) and of the waves of the others (amplitude), mV.
    leads
        lead_off: leads, or electrodes (RA, LA, LL, V1 to V6), that fall off.
    rail_mv
        lead_off: the value that is then read; None: no value (NaN).
    reported
        lead_off: whether the device says so.
    """

    kind: Literal["noise", "wander", "mains", "muscle", "motion", "spikes", "lead_off", "gap"]
    start_s: NonNegative
    seconds: Positive
    level_mv: NonNegative = 0.2
    leads: tuple[str, ...] = ()
    rail_mv: float | None = None
    reported: bool = True


class Signal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that decides the samples of a simulated patient; documented in ``SimulateOptions``."""

    fs: Annotated[float, msgspec.Meta(ge=100, le=1000)] = 250.0
    leads: tuple[str, ...] = LEADS
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    script: tuple[Segment, ...] | str = "tour"
    artefacts: tuple[Artefact, ...] = ()
    loop: bool = True
    noise_mv: NonNegative = 0.008
    wander_mv: NonNegative = 0.04
    mains_mv: NonNegative = 0.0
    mains_hz: Annotated[float, msgspec.Meta(ge=40, le=70)] = 50.0
    muscle_mv: NonNegative = 0.0
    motion_mv: NonNegative = 0.0
    counter: bool = False


def _parts(*parts: tuple[RhythmName, float]) -> tuple[Segment, ...]:
    return tuple(Segment(rhythm=rhythm, seconds=seconds) for rhythm, seconds in parts)


SCRIPTS: dict[str, tuple[Segment, ...]] = {
    "sinus": _parts(("sinus", 60)),
    "tour": (
        *_parts(("sinus", 20), ("tachycardia", 20), ("af", 30), ("flutter", 20), ("svt", 20), ("sinus", 15)),
        Segment(rhythm="pvc", seconds=20, every=3),
        *_parts(("vt", 20), ("vf", 20), ("asystole", 12), ("paced", 20), ("bradycardia", 20)),
        *_parts(("avb1", 15), ("avb2", 20), ("avb3", 20)),
    ),
    "af": _parts(("sinus", 30), ("af", 60)),
    "svt": _parts(("sinus", 30), ("svt", 30)),
    "ectopy": (
        Segment(rhythm="pvc", seconds=30, pvc_per_min=8),
        Segment(rhythm="pvc", seconds=20, every=2),
        Segment(rhythm="pvc", seconds=20, pvc_per_min=6, run=4),
        Segment(rhythm="sinus", seconds=20),
    ),
    "arrest": (
        *_parts(("sinus", 20)),
        Segment(rhythm="pvc", seconds=15, every=3),
        *_parts(("vt", 20), ("vf", 40), ("asystole", 15), ("paced", 30)),
    ),
    "block": _parts(("sinus", 20), ("avb1", 20), ("avb2", 30), ("avb3", 30), ("paced", 30)),
}
"""Built-in scripts by name."""
