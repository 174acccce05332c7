"""How many beds? A first guess from what few beds cost, then trials in real time that close in on the limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["ADMITTED", "Limit", "Sample", "admitted", "first_guess", "most_beds"]

ADMITTED = 0.75
"""Share of the beds carried that a machine should be given: the rest is for alarms of many beds at once, devices that come back
together with what they have kept, and whatever else runs there."""

_LOOP_SHARE, _CORES_SHARE = 0.85, 0.9
"""How far the event loop's own core, and all cores together, can be filled before beds wait for each other."""

_GROWTH = 1.3
_NEAR = 1.08
"""The search ends when what failed is at most so many times what was carried."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a small trial cost, s of processor time per second of signal: of the loop's thread, and of the whole process."""

    beds: int
    loop: float
    all: float


@dataclass(slots=True)
class Limit:
    """What the search has found: the most beds that were carried, the least that were not, and how many trials it took."""

    carried: int = 0
    failed: int | None = None
    tried: list[int] = field(default_factory=list)


def first_guess(few: Sample, more: Sample, cores: int) -> int:
    """Return how many beds should go by processor time: a fixed part, and one that grows with the beds.

    Raises
    ------
    ValueError
        If both trials have equally many beds.
    """
    if more.beds <= few.beds:
        raise ValueError(f"want more beds in the second trial, got {few.beds} and {more.beds}")
    room = []
    for below, above, share in ((few.loop, more.loop, _LOOP_SHARE), (few.all, more.all, _CORES_SHARE * cores)):
        each = (above - below) / (more.beds - few.beds)
        if each <= 0:  # noise of a small trial: the fixed part is taken to be nothing
            each = above / more.beds
        fixed = max(0.0, above - each * more.beds)
        room.append((share - fixed) / max(each, 1e-9))
    return max(more.beds, int(min(room)))


def most_beds(carries: Callable[[int], bool], guess: int, *, most: int = 1_000_000, trials: int = 8) -> Limit:
    """Return the most beds that ``carries`` says yes to, within 8 %, beginning at ``guess``.

    A trial on a shared machine may fail by bad luck: the number that ended the climb is tried a second time.

    Parameters
    ----------
    most
        More are never tried.
    trials
        At most so many calls.
    """
    limit, again = Limit(), True
    beds = max(1, min(guess, most))
    while len(limit.tried) < trials:
        limit.tried.append(beds)
        if carries(beds):
            limit.carried = max(limit.carried, beds)
            if limit.failed is not None and limit.failed <= beds:
                limit.failed = None
        elif again and limit.failed is None and limit.carried == 0:
            again = False
            continue
        else:
            limit.failed = beds if limit.failed is None else min(beds, limit.failed)
        following = _following(limit, most)
        if following is None:
            break
        beds = following
    return limit


def _following(limit: Limit, most: int) -> int | None:
    """Return how many beds to try next; None at the end."""
    if limit.failed is None:
        following = min(most, max(limit.carried + 1, int(limit.carried * _GROWTH)))
        return following if following > limit.carried else None
    if limit.carried == 0:
        return max(1, int(limit.failed / _GROWTH)) if limit.failed > 1 else None
    if limit.failed <= limit.carried + 1 or limit.failed <= limit.carried * _NEAR:
        return None
    return (limit.carried + limit.failed) // 2


def admitted(sustained: int) -> int:
    """Return how many beds a machine that carries ``sustained`` should be given, to two digits."""
    beds = int(ADMITTED * sustained)
    step = int(10 ** max(0, len(str(beds)) - 2))
    return beds // step * step
