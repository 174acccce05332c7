"""Standard output and standard error that take every character, whatever the locale or PYTHONIOENCODING says."""

from __future__ import annotations

import codecs
import io
import sys

__all__ = ["take_every_character"]

_NAME = "ecgnat.escaped"


def take_every_character() -> None:
    """Write what an encoding does not have as ``\\u00b5``, as JSON does: lines of JSON stay JSON, and a name stays readable."""
    codecs.register_error(_NAME, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_NAME)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2)), error.end
