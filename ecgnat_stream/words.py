"""Times, lengths and names as a person reads them."""

from __future__ import annotations

__all__ = ["clock", "length", "printable", "short_length"]


def clock(seconds: float) -> str:
    """Return a place as ``0:07`` or ``1:02:03``, its second begun."""
    minutes, second = divmod(int(seconds + 1e-6), 60)
    return f"{minutes}:{second:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"


def short_length(seconds: float) -> str:
    """Return a length of time for a column: ``4.2 s``, ``30:06`` (minutes) or ``24:00:00``."""
    return f"{seconds:.3g} s" if seconds < 60 else clock(round(seconds))


def length(seconds: float) -> str:
    """Return a length of time for a sentence: ``4.2 s``, ``30:06 min`` or ``24:00:00 h``."""
    unit = "" if seconds < 60 else " min" if round(seconds) < 3600 else " h"
    return short_length(seconds) + unit


def printable(value: object) -> str:
    """Return what a person may safely see: text from elsewhere does not move the cursor."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))
