"""What a person may have meant by a name that does not exist: the one place where names are refused and others proposed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

__all__ = ["close_to", "proposal", "unknown"]

_MOST, _COMPARED = 3, 30
_FEW = 12
"""A list of at most so many names is shown whole, beside what is proposed."""

_ALIKE = 0.65
_NEARLY = 0.15
"""Names that are so much less alike than the best one are not proposed."""


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return the sentence that refuses a name: ``unknown device 'repley': did you mean replay? There are replay, simulate``."""
    names = list(dict.fromkeys(known))
    close = close_to(name, names)
    if close and len(names) > _FEW:
        return f"unknown {what} {name!r}: did you mean {_either(close)}?"
    listed = ", ".join(names) or "none"
    if close:
        return f"unknown {what} {name!r}: did you mean {_either(close)}? There are {listed}"
    return f"unknown {what} {name!r}: there are {listed}"


def proposal(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 100 or 101?``, to be put behind another sentence; empty where nothing is close."""
    close = close_to(name, known)
    return f"; did you mean {_either(close)}?" if close else ""


def close_to(name: str, known: Iterable[str]) -> list[str]:
    """Return the names that may be meant, at most three, the likeliest first.

    A name is close if it differs in few letters, if its parts begin with the letters that were given (``vf`` for
    ``ventricular-fibrillation``), or if it holds what was given.
    """
    plain = {_plain(each): each for each in known}
    given = _plain(name)
    if not given:
        return []
    initials = [each for each in plain if given == "".join(part[0] for part in each.split())]
    ratios = {each: _ratio(given, each) for each in difflib.get_close_matches(given, plain, n=_COMPARED, cutoff=_ALIKE)}
    best = max(ratios.values(), default=0.0)
    alike = sorted((each for each in ratios if ratios[each] >= best - _NEARLY), key=lambda each: (-ratios[each], each))
    holding = [each for each in plain if len(given) > 2 and given in each]
    return [plain[each] for each in dict.fromkeys((*initials, *alike, *([] if best > 0.9 else holding)))][:_MOST]


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, other, one).ratio()


def _plain(name: str) -> str:
    """Return a name in small letters, its parts with one space between."""
    return " ".join(re.split(r"[\W_]+", name.casefold())).strip()


def _either(names: list[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
