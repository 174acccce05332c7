"""Names of leads by the codes of the standards, and the limb leads that follow from I and II."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ecgnat_devices.records.pieces import Piece

__all__ = ["mdc_lead", "scp_lead", "with_limb_leads"]

_FIRST = (
    *("", "I", "II", "V1", "V2", "V3", "V4", "V5", "V6", "V7", "V2R", "V3R", "V4R", "V5R", "V6R", "V7R", "X", "Y", "Z"),
    *("CC5", "CM5", "LA", "RA", "LL", "fI", "fE", "fC", "fA", "fM", "fF", "fH"),
)
_THEN = ("III", "aVR", "aVL", "aVF", "-aVR", "V8", "V9", "V8R", "V9R", "D", "A", "J")
_SCP = {**dict(enumerate(_FIRST)), **dict(enumerate(_THEN, start=61))}
"""Numbers of leads: EN 1064:2005 and ISO 11073-91064, table of lead identifications. DICOM (5.6.3-9-n) and 11073-10102 (2:n) have
the same numbers."""

_MDC = {"AVR": "aVR", "AVL": "aVL", "AVF": "aVF"}
_MDC_PREFIX = "MDC_ECG_LEAD_"


def scp_lead(number: int) -> str:
    """Return the name of a lead by its number; "" for one that is not specified, or that the standards do not have."""
    return _SCP.get(number, "")


def mdc_lead(code: str) -> str:
    """Return the name of a lead by its reference id of ISO 11073-10102, ``MDC_ECG_LEAD_AVR``; other codes stay as they are."""
    name = code.removeprefix(_MDC_PREFIX) if code.upper().startswith(_MDC_PREFIX) else code
    return _MDC.get(name.upper(), name)


def with_limb_leads(pieces: Sequence[Piece]) -> list[Piece]:
    """Add III, aVR, aVL and aVF where a file leaves them to be computed: it has I and II, but none of these.

    Einthoven: III = II - I. Goldberger: aVR = -(I + II) / 2, aVL = I - II / 2, aVF = II - I / 2.
    """
    named = {piece.name: piece for piece in pieces}
    one, two = named.get("I"), named.get("II")
    if one is None or two is None or {"III", "aVR", "aVL", "aVF"} & named.keys():
        return list(pieces)
    same = (one.fs, one.unit, one.start_s, len(one.raw)) == (two.fs, two.unit, two.start_s, len(two.raw))
    if not same or len(named) < len(pieces) or not 0 < abs(one.gain) < math.inf:
        return list(pieces)
    first, second = (piece.part(0, len(piece.raw)) / abs(one.gain) for piece in (one, two))
    made = {"III": second - first, "aVR": -(first + second) / 2, "aVL": first - second / 2, "aVF": second - first / 2}
    limb = [replace(one, name=name, raw=raw, gain=abs(one.gain), baseline=0.0, missing=None) for name, raw in made.items()]
    at = max(list(named).index("I"), list(named).index("II")) + 1
    return [*pieces[:at], *limb, *pieces[at:]]
