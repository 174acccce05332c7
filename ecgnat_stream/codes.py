"""Rhythm classes, alarm priorities and alarm conditions, with their SNOMED CT and IEEE 11073 codes.

SNOMED CT as used by the PhysioNet/CinC Challenge 2021; MDC from IEEE 11073-10101 / 10102: part 10 holds rhythm annotations,
part 3 events. Where no public event code exists (ventricular fibrillation), the rhythm annotation code stands in.
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

__all__ = [
    "BEATS",
    "BEAT_OF_SYMBOL",
    "CONDITION_CODES",
    "PRIORITIES",
    "PRIORITY_MARKS",
    "RHYTHMS",
    "RHYTHM_CODES",
    "RHYTHM_TEXTS",
    "SCREENS",
    "STATEMENT_TEXTS",
    "URGENCY",
    "Codes",
    "Priority",
]


class Codes(msgspec.Struct, frozen=True, omit_defaults=True):
    """The codes of one label; None where the terminology has none that is public."""

    snomed: str | None = None
    mdc_part: int | None = None
    mdc: int | None = None


RHYTHMS = ("SINUS", "AF", "SVT", "VT", "VF", "ASYSTOLE", "PACED", "NOISE")
"""Classes of the dense rhythm head, in the order of its outputs. AF includes flutter, VF includes ventricular flutter."""

BEATS = ("N", "S", "V", "F", "Q")
"""Classes of the beat head, AAMI EC57: normal or bundle branch block, supraventricular, ventricular, fusion, paced or unknown."""

_SYMBOLS = {"N": "NLRBejn", "S": "AaJS", "V": "VEr", "F": "F", "Q": "/fQ?"}
BEAT_OF_SYMBOL = {symbol: name for name, symbols in _SYMBOLS.items() for symbol in symbols}
"""WFDB symbol of a beat (ecgcodes.h) to its class; what is not in it is no beat. B is a bundle branch block of unstated side."""

SCREENS = ("N", "A", "O", "~")
"""Classes of the screening head, one for the whole window: normal rhythm, AF, other rhythm, too noisy (Challenge 2017)."""

RHYTHM_TEXTS = {
    "SINUS": "sinus rhythm",
    "SBRAD": "sinus bradycardia",
    "STACH": "sinus tachycardia",
    "AF": "atrial fibrillation or flutter",
    "SVT": "supraventricular tachycardia",
    "VT": "ventricular tachycardia",
    "VF": "ventricular fibrillation or flutter",
    "ASYSTOLE": "asystole",
    "PACED": "paced rhythm",
    "NOISE": "noise",
    "UNKNOWN": "no decision",
}
"""What a person reads for every label that a rhythm event can carry."""

STATEMENT_TEXTS = {
    "NORM": "normal ECG",
    "MI": "myocardial infarction",
    "STTC": "ST/T change",
    "CD": "conduction disturbance",
    "HYP": "hypertrophy",
}
"""What a person reads for the diagnostic superclasses of PTB-XL (Wagner 2020)."""

RHYTHM_CODES = {
    "SINUS": Codes("426783006", 10, 9232),
    "SBRAD": Codes("426177001", 10, 9248),
    "STACH": Codes("427084000", 10, 9264),
    "AF": Codes("164889003", 10, 9472),
    "SVT": Codes("426761007", 10, 9504),
    "VT": Codes("164895002", 10, 9984),
    "VF": Codes("164896001", 10, 10016),
    "ASYSTOLE": Codes("397829000", 10, 10336),
    "PACED": Codes("10370003"),
    "NOISE": Codes(),
    "UNKNOWN": Codes(),
}

Priority = Literal["low", "medium", "high"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
"""From the least to the most urgent."""

URGENCY: dict[Priority, int] = {priority: rank for rank, priority in enumerate(PRIORITIES)}
"""Rank of a priority: the larger, the more urgent."""

PRIORITY_MARKS: dict[Priority, str] = {"high": "***", "medium": "**", "low": "*"}
"""How a priority is written, so that it can be told without colour."""

CONDITION_CODES = {
    "asystole": Codes("397829000", 3, 3076),
    "ventricular-fibrillation": Codes("164896001", 10, 10016),
    "ventricular-tachycardia": Codes("164895002", 3, 3224),
    "extreme-tachycardia": Codes(None, 3, 3122),
    "extreme-bradycardia": Codes(None, 3, 3086),
    "tachycardia": Codes("427084000"),
    "bradycardia": Codes("426627000", 3, 3084),
    "atrial-fibrillation": Codes("164889003", 3, 3128),
    "supraventricular-tachycardia": Codes("426761007", 10, 9504),
    "ventricular-run": Codes(None, 3, 3212),
    "r-on-t": Codes(),
    "pause": Codes(None, 3, 3108),
    "ventricular-pair": Codes(None, 10, 9952),
    "ventricular-bigeminy": Codes("11157007", 10, 9920),
    "ventricular-trigeminy": Codes("251180001", 10, 9936),
    "frequent-pvc": Codes("427172004"),
    "missed-beat": Codes(),
    "irregular-rhythm": Codes(),
    "leads-off": Codes(None, 3, 274),  # 196882 = 3 * 65536 + 274 in the 32-bit form
}
"""Codes per alarm condition; an empty entry has none that is public, technical conditions other than leads off have none."""
