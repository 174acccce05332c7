"""When the records of an EDF+ or BDF+ file were: the time that each of them keeps, and the stretches without a hole.

The first annotation of a record is its onset in s since the start of the file, and has no text (EDF+ 2003, 2.2.4).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ecgnat_devices.records.contents import wrong

__all__ = ["Stretch", "stretches"]

_ONSET = re.compile(rb"([+-]\d{1,12}(?:[.,]\d{0,12})?)\x14\x14")

_WRITTEN_S = 0.001
"""Many write an onset to the millisecond, so that it tells no less."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Records that follow one another without a hole.

    Parameters
    ----------
    start
        Time of the first one in s from the first of the file.
    first
        Its place in the file.
    records
        How many.
    """

    start: float
    first: int
    records: int


def stretches(
    path: Path, place: tuple[int, int, int], records: int, length: float, fastest: int, *, is_open: bool, notes: list[str]
) -> list[Stretch]:
    """Return the stretches of a file in the order of time.

    A record follows another if its onset is where that one ends, to a sample. Clocks drift, so that each counts from the one
    before; each stretch begins where its own onset says. A record that says no time has no place, and is left out. A file that
    calls itself continuous is one, unless every record says its time and these leave holes.

    Parameters
    ----------
    place
        Where in the file the first record keeps its time, how many bytes the next one is away, and how many to look at.
    length
        Of a record, in s.
    fastest
        Most samples of a signal in a record.
    is_open
        Whether the file says that it has holes (EDF+D).
    notes
        Takes what a person should know.

    Raises
    ------
    DeviceError
        If the records of a file with holes overlap, or say no times.
    """
    whole = [Stretch(0.0, 0, records)]
    onsets = _onsets(path, place, records)
    timeless = sum(onset is None for onset in onsets)
    in_order = sorted((onset, record) for record, onset in enumerate(onsets) if onset is not None)
    if is_open and records and not (length and in_order):
        raise wrong(
            path, f"is discontinuous, but {'does not say when its records were' if length else 'its records have no length'}"
        )
    if not is_open and (timeless or not length or not records):
        return whole
    near = max(length / fastest if fastest else 0.0, _WRITTEN_S)
    found: list[Stretch] = []
    last = (0.0, -1)
    for onset, record in in_order:
        hole = onset - last[0] - length
        if found and hole < -near:
            if not is_open:
                notes.append("the times of its records disagree with its length: it is read without holes, as it says it is")
                return whole
            raise wrong(
                path,
                f"has records that overlap: record {record + 1} begins {-hole:.4g} s before the end of record {last[1] + 1}; "
                "export it again",
            )
        if found and hole <= near and record == last[1] + 1:
            found[-1] = Stretch(found[-1].start, found[-1].first, found[-1].records + 1)
        else:
            found.append(Stretch(onset - in_order[0][0], record, 1))
        last = (onset, record)
    _tell(in_order, found, timeless, is_open, notes)
    return found


def _tell(in_order: list[tuple[float, int]], found: list[Stretch], timeless: int, is_open: bool, notes: list[str]) -> None:
    if any(second[1] < first[1] for first, second in pairwise(in_order)):
        notes.append("its records are not in the order of time: they are put in order")
    if timeless:
        notes.append(f"records that do not say when they were are left out: {timeless}")
    if not is_open and len(found) > 1:
        notes.append("it says that it has no holes, but the times of its records have: these are kept as holes")


def _onsets(path: Path, place: tuple[int, int, int], records: int) -> list[float | None]:
    """Return the time that each record keeps; None where it keeps none."""
    at, away, count = place
    onsets: list[float | None] = []
    with path.open("rb") as file:
        for record in range(records):
            file.seek(at + record * away)
            found = _ONSET.match(file.read(count))
            onsets.append(float(found[1].replace(b",", b".")) if found else None)
    return onsets
