"""HL7 Annotated ECG (HL7 V3 aECG, the format in which the FDA takes ECGs; Implementation Guide of 21 March 2005).

Read are the rhythm series: every sequence set with its time and its leads, so that what was recorded in parts keeps its holes.
Not read are derived series (representative beats) and annotations; sequences that are no lists of digits are refused by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from xml.etree.ElementTree import Element

from ecgnat_devices.records.contents import Asked, Contents, wrong
from ecgnat_devices.records.lead_codes import mdc_lead, with_limb_leads
from ecgnat_devices.records.markup import number_of, numbers_of, read_xml
from ecgnat_devices.records.pieces import Piece, contents_of
from ecgnat_stream.signal import mv_per

__all__ = ["open_aecg"]

_NOT_READ = ("subjectOf", "annotationSet", "controlVariable", "derivation")
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0, "h": 3600.0}
_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(\d\d)?(\d\d)?(\d\d)?(\.\d+)?([+-]\d{4})?")
"""A point in time of HL7 V3 (data type TS): YYYYMMDDHHMMSS.UUUU[+-]ZZZZ, of which the end may be left out."""


def open_aecg(path: Path, asked: Asked) -> Contents:
    """Read an annotated ECG.

    Raises
    ------
    DeviceError
        If it holds no rhythm, or one that cannot be read.
    """
    root = read_xml(path, ("AnnotatedECG",), leave_out=_NOT_READ)
    series = root.findall("component/series")
    rhythm = [one for one in series if _code(one) == "RHYTHM"] or series
    sets = [sequences for one in rhythm for sequences in one.findall("component/sequenceSet")]
    times = [_time(path, sequences) for sequences in sets]
    timeless = any(start_s is None for _, start_s in times)
    pieces: list[Piece] = []
    after_s = 0.0
    for sequences, (fs, start_s) in zip(sets, times, strict=True):
        leads = list(_leads(path, sequences, fs, after_s if timeless or start_s is None else start_s))
        pieces += with_limb_leads(leads)
        after_s = max([after_s, *(lead.start_s + len(lead.raw) / fs for lead in leads)])
    if not pieces:
        raise wrong(path, "holds no series with samples")
    return contents_of(path, pieces, ("has a time that is no time, so that its parts stand end to end",) if timeless else ())


def _code(element: Element) -> str:
    code = element.find("code")
    return "" if code is None else code.get("code", "").strip()


def _time(path: Path, sequences: Element) -> tuple[float, float | None]:
    """Return the rate in Hz and the time of the first sample in s of a sequence set; None if it is no time."""
    for sequence in sequences.findall("component/sequence"):
        if not _code(sequence).startswith("TIME_"):
            continue
        increment, head = sequence.find("value/increment"), sequence.find("value/head")
        if increment is None:
            raise wrong(path, "has a sequence of times without an increment (GLIST_TS or GLIST_PQ): it is not read")
        step_s = _quantity_s(path, increment)
        if not (math.isfinite(step_s) and step_s > 0):
            raise wrong(path, f"has an increment of {step_s:g} s between its samples: it is damaged")
        if head is None:
            return 1 / step_s, None
        if "unit" in head.attrib:
            start_s = _quantity_s(path, head)
            return 1 / step_s, start_s if math.isfinite(start_s) else None
        return 1 / step_s, _point_s(head.get("value", ""))
    raise wrong(path, "has a sequence set without times (TIME_ABSOLUTE or TIME_RELATIVE)")


def _quantity_s(path: Path, quantity: Element) -> float:
    unit = quantity.get("unit", "s").strip()
    if unit not in _SECONDS:
        raise wrong(path, f"has a time in {unit[:20]}: {', '.join(_SECONDS)} are read")
    return number_of(path, quantity.get("value", ""), "a time") * _SECONDS[unit]


def _point_s(text: str) -> float | None:
    """Return a point in time in s; None for what is none, 31 February among it."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    fraction, zone = match[7], match[8] or "+0000"
    east_s = int(f"{zone[0]}1") * (3600 * int(zone[1:3]) + 60 * int(zone[3:]))
    try:
        point = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    return point.timestamp() - east_s + float(fraction or 0)


def _leads(path: Path, sequences: Element, fs: float, start_s: float) -> Iterator[Piece]:
    for sequence in sequences.findall("component/sequence"):
        code = _code(sequence)
        if code.startswith("TIME_"):
            continue
        name, value = mdc_lead(code), sequence.find("value")
        digits = None if value is None else value.find("digits")
        if value is None or digits is None:
            kind = "nothing" if value is None else value.get("type", "no type")
            raise wrong(path, f"lead {name[:40]} is given as {kind[:40]}: only lists of digits (SLIST_PQ) are read")
        scale, scale_unit = _measure(path, value.find("scale"), 1.0)
        origin, origin_unit = _measure(path, value.find("origin"), 0.0)
        if origin and origin_unit != scale_unit:
            one, other = mv_per(origin_unit), mv_per(scale_unit)
            if one is None or other is None:
                raise wrong(path, f"lead {name[:40]} has its zero in {origin_unit[:20]}, but its step in {scale_unit[:20]}")
            origin *= one / other
        raw = numbers_of(path, digits.text or "", f"lead {name[:40]}")
        yield Piece(name, fs, scale_unit, raw, scale, origin, start_s=start_s)


def _measure(path: Path, quantity: Element | None, default: float) -> tuple[float, str]:
    if quantity is None:
        return default, ""
    return number_of(path, quantity.get("value", ""), f"its {quantity.tag}"), quantity.get("unit", "").strip()
