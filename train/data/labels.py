"""What each database states, as sets of allowed rhythm classes: nothing is invented, and nothing stated is lost.

A statement is a bit mask over ``codes.RHYTHMS`` (bit c set: class c is possible). One class stated sets one bit; "other rhythm"
sets several; :data:`UNSTATED` (all bits) says nothing and is left out of the loss, which is ``-log(sum of p over the allowed
classes)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.codes import BEAT_OF_SYMBOL, BEATS, RHYTHMS
from ecgnat_stream.score.truth import ECTOPY

__all__ = [
    "ALARM_CLASSES",
    "BEAT_UNSTATED",
    "CHAPMAN",
    "CINC2017",
    "LUDB",
    "NO_BEAT",
    "PTBXL",
    "SNOMED",
    "SNOMED_EPISODES",
    "UNSTATED",
    "allow",
    "beat_classes",
    "forbid",
    "from_changes",
    "from_spans",
    "of_codes",
    "of_statements",
    "token_sets",
]

UNSTATED = (1 << len(RHYTHMS)) - 1


def allow(*classes: str) -> int:
    """Return the set of these classes."""
    return sum(1 << RHYTHMS.index(name) for name in set(classes))


def forbid(*classes: str) -> int:
    """Return the set of all but these classes."""
    return UNSTATED & ~allow(*classes)


WFDB_RHYTHMS = {
    "(N": allow("SINUS"),
    "(SBR": allow("SINUS"),
    "(BI": allow("SINUS"),  # first-degree block
    "(BII": allow("SINUS"),  # second-degree block: the atria are in sinus rhythm
    "(PREX": allow("SINUS"),  # pre-excitation
    "(AFIB": allow("AF"),
    "(AFL": allow("AF"),
    "(SVTA": allow("SVT"),
    "(VT": allow("VT"),
    "(VFL": allow("VF"),
    "(VF": allow("VF"),
    "(VFIB": allow("VF"),
    "(ASYS": allow("ASYSTOLE"),
    "(P": allow("PACED"),
    "(PM": allow("PACED"),
    "(NOISE": allow("NOISE"),
    "(NOD": allow("SINUS", "SVT"),  # junctional: regular and narrow, slow or fast
    "(J": allow("SINUS", "SVT"),  # the same in afdb
    "(IVR": allow("SINUS", "VT", "PACED"),  # idioventricular: wide, but no tachycardia; no class of its own
    "(VER": allow("SINUS", "VT", "PACED"),  # ventricular escape, likewise
    "(HGEA": allow("SINUS", "VT"),  # high-grade ventricular ectopy, runs among it
}
"""Rhythm change notes of mitdb, vfdb, afdb and ltafdb (``aux_note`` of ``.atr``)."""

BEAT_UNSTATED = 255
"""Class of a beat that is marked, but whose class is not stated."""

NO_BEAT = 254
"""Class of a mark that is no beat."""


def beat_classes(symbols: Sequence[str]) -> NDArray[np.uint8]:
    """Return an index into ``codes.BEATS`` per symbol, and :data:`NO_BEAT` for what is no beat."""
    classes = (BEAT_OF_SYMBOL.get(symbol) for symbol in symbols)
    return np.array([NO_BEAT if name is None else BEATS.index(name) for name in classes], np.uint8)


CINC2017 = {
    "N": allow("SINUS"),
    "A": allow("AF"),
    "O": forbid("AF", "VF", "ASYSTOLE", "NOISE"),
    "~": allow("NOISE"),
}

PTBXL = {
    "SR": allow("SINUS"), "STACH": allow("SINUS"), "SBRAD": allow("SINUS"), "SARRH": allow("SINUS"),
    "AFIB": allow("AF"), "AFLT": allow("AF"), "SVTAC": allow("SVT"), "PSVT": allow("SVT"), "PACE": allow("PACED"),
}  # fmt: skip

LUDB = {
    "Sinus rhythm": allow("SINUS"), "Sinus tachycardia": allow("SINUS"), "Sinus bradycardia": allow("SINUS"),
    "Sinus arrhythmia": allow("SINUS"), "Irregular sinus rhythm": allow("SINUS"),
    "Atrial fibrillation": allow("AF"), "Atrial flutter, typical": allow("AF"),
}  # fmt: skip

CHAPMAN = {
    "SR": allow("SINUS"), "SB": allow("SINUS"), "ST": allow("SINUS"), "SA": allow("SINUS"), "SI": allow("SINUS"),
    "AFIB": allow("AF"), "AF": allow("AF"), "SVT": allow("SVT"), "AT": allow("SVT"), "AVNRT": allow("SVT"), "AVRT": allow("SVT"),
    "SAAWR": allow("SINUS", "SVT"),  # wandering between sinus node and atria
}  # fmt: skip
"""Rhythms of Chapman-Shaoxing (Zheng 2020): AF is flutter there, AFIB fibrillation, SA and SI sinus irregularity."""

SNOMED = {
    "426783006": allow("SINUS"), "427084000": allow("SINUS"), "426177001": allow("SINUS"), "427393009": allow("SINUS"),
    "Normal": allow("SINUS"), "AF": allow("AF"), "164889003": allow("AF"), "164890007": allow("AF"), "426761007": allow("SVT"),
    "713422000": allow("SVT"), "233896004": allow("SVT"), "233897008": allow("SVT"), "67198005": allow("SVT"),
    "195101003": allow("SINUS", "SVT"), "10370003": allow("PACED"),
}  # fmt: skip
"""Rhythm statements of cinc2020 headers; CPSC2018 names two of them in words."""

SNOMED_EPISODES = {
    "164895002": allow("VT"), "425856008": allow("VT"), "164896001": allow("VF"), "111288001": allow("VF"),
}  # fmt: skip
"""Rhythms that a record holds somewhere: possible beside the rhythm that is stated for the whole, never all of it."""

ALARM_CLASSES = {"Asystole": "ASYSTOLE", "Ventricular_Tachycardia": "VT", "Ventricular_Flutter_Fib": "VF"}
"""cinc2015 alarms that are about one of our classes."""


def of_statements(statements: Iterable[str], vocabulary: dict[str, int]) -> int:
    """Join what several statements about one record allow; :data:`UNSTATED` where none is about rhythm."""
    joined = 0
    for statement in statements:
        joined |= vocabulary.get(statement, 0)
    return joined or UNSTATED


def of_codes(codes: Sequence[str]) -> int:
    """Return the set of a header's SNOMED codes: what the rhythm allows, and the episodes beside it."""
    underlying, episodes = of_statements(codes, SNOMED), of_statements(codes, SNOMED_EPISODES)
    return underlying if episodes == UNSTATED else underlying | episodes


def from_changes(length: int, at: Sequence[int], notes: Sequence[str]) -> NDArray[np.uint8]:
    """Spread rhythm change notes over the samples that follow them.

    Parameters
    ----------
    length
        Number of samples.
    at, notes
        Sample index and ``aux_note`` of every annotation; notes that do not begin with "(" are passed over, unknown ones leave
        their samples unstated.

    Returns
    -------
    NDArray
        ``(length,)`` sets.
    """
    sets = np.full(length, UNSTATED, np.uint8)
    underlying = allow("SINUS")
    changes = [(start, note.strip("\x00 ")) for start, note in zip(at, notes, strict=True) if note.startswith("(")]
    for (start, note), stop in zip(changes, [*(at for at, _ in changes[1:]), length][: len(changes)], strict=True):
        if note in ECTOPY:
            allowed = underlying | allow("SINUS")
        else:
            allowed = WFDB_RHYTHMS.get(note, UNSTATED)
            if allowed in (allow("SINUS"), allow("AF"), allow("PACED")):
                underlying = allowed
        sets[max(start, 0) : stop] = allowed
    return sets


def from_spans(length: int, inside: int, outside: int, spans: Iterable[tuple[int, int]]) -> NDArray[np.uint8]:
    """Return ``(length,)`` sets: ``inside`` on the half-open spans, ``outside`` elsewhere."""
    sets = np.full(length, outside, np.uint8)
    for start, stop in spans:
        sets[max(start, 0) : max(stop, 0)] = inside
    return sets


def token_sets(samples: NDArray[np.uint8], token: int) -> NDArray[np.uint8]:
    """Join per-sample sets ``(..., T)`` into tokens ``(..., P)``: where a rhythm changes inside a token, both are allowed."""
    missing = -samples.shape[-1] % token
    if missing:
        pad = [(0, 0)] * (samples.ndim - 1) + [(0, missing)]
        samples = np.pad(samples, pad, mode="edge")
    joined: NDArray[np.uint8] = np.bitwise_or.reduce(samples.reshape(*samples.shape[:-1], -1, token), axis=-1)
    return joined
