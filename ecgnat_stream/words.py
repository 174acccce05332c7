"""Times, lengths and names as a person reads them."""

from __future__ import annotations

import re

__all__ = ["LINE", "NAME", "as_text", "cell", "cleaned", "clock", "counted", "length", "short_length"]

NAME = 80
"""Longest name from outside (of a lead, a person, a condition), characters."""

LINE = 300
"""Longest text from outside (what a device or a broker says), characters."""

_ODD = "\N{REPLACEMENT CHARACTER}"

_HALVES = re.compile("[\ud800-\udfff]")
"""Surrogates: alone they are no character."""

_LOOK_AT = 4

_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: cursor, colour, erase
    r"|(?:\x1b[PX\]^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90\x98\x9c-\x9f]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS: to their end
    r"|\x1b[ -/]*[0-~]"
)
"""Escape sequences of ECMA-48, 5.2 to 5.6 and 8.3, in their 7 bit and 8 bit forms."""

_INVISIBLE = frozenset(
    map(chr, (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)
"""Fillers, joiners and variation selectors, which Python calls printable (Unicode: Default_Ignorable_Code_Point)."""

_MARK = r"[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_MARKS = re.compile(f"({_MARK}{{4}}){_MARK}+")
"""Marks that are put on one letter: more than four of them are drawn over the lines above and below."""


_FORMULA = re.compile(r"[\s\0]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
"""How text begins that a spreadsheet takes for a formula, full-width signs among it (OWASP, CSV Injection)."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def clock(seconds: float) -> str:
    """Return a place as ``0:07`` or ``1:02:03``, its second begun."""
    minutes, second = divmod(int(seconds + 1e-6), 60)
    return f"{minutes}:{second:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"


def counted(number: int, what: str) -> str:
    """Return ``1 bed`` or ``12 beds``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def short_length(seconds: float) -> str:
    """Return a length of time for a column: ``4.2 s``, ``30:06`` (minutes) or ``24:00:00``."""
    return f"{seconds:.3g} s" if seconds < 60 else clock(round(seconds))


def length(seconds: float) -> str:
    """Return a length of time for a sentence: ``4.2 s``, ``30:06 min`` or ``24:00:00 h``."""
    unit = "" if seconds < 60 else " min" if round(seconds) < 3600 else " h"
    return short_length(seconds) + unit


def as_text(name: str) -> str:
    """Return the name of a file as text that every encoding of Unicode has: bytes of it that are no UTF-8 are replaced."""
    if name.isascii():
        return name
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:  # halves of pairs that are no bytes of a name
        return _HALVES.sub(_ODD, name)


def cleaned(value: object, limit: int = LINE) -> str:
    """Return text from outside as one line that a terminal, a log or a table may show.

    Every escape sequence, control or private character, half of a surrogate pair, character that turns the direction of writing
    and character that nobody sees becomes one replacement character, so that it stays visible that something stood there. Line
    breaks and all kinds of blanks become single blanks. Markup such as ``[red]`` stays: who draws must not read it as such.
    What is cleaned once is not changed by cleaning it again.

    Parameters
    ----------
    limit
        Longest result, characters; what is longer ends with an ellipsis.
    """
    text = value if isinstance(value, str) else str(value)
    if len(text) <= limit and text.isascii() and text.isprintable() and "  " not in text and text == text.strip():
        return text
    # The patterns look only at what may be shown: a long text costs no more than a short one.
    whole, text = len(text) <= _LOOK_AT * limit, as_text(text[: _LOOK_AT * limit])
    text = " ".join("".join(map(_shown, _SEQUENCE.sub(_ODD, text))).split())
    text = _MARKS.sub(r"\1", re.sub(f"{_ODD}+", _ODD, text))
    return text if whole and len(text) <= limit else text[: limit - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def cell(value: object) -> object:
    """Return a cell of CSV: an apostrophe stands before text that a spreadsheet takes for a formula; numbers stay numbers."""
    formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if formula else value


def _shown(character: str) -> str:
    if character.isspace():
        return " "
    return character if character.isprintable() and character not in _INVISIBLE else _ODD
