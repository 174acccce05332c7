"""The terminal as the dashboard needs it: is there a keyboard, and one that may go away.

Keys are taken from a terminal only. What a file or a pipe holds on standard input was not pressed by a person: it must neither
acknowledge an alarm nor end the monitor.

Textual draws from a thread of its own. When the terminal is closed, writing to it fails, that thread dies, and the application
waits for it for ever: the monitor could not end. So what cannot be written is dropped. What is drawn is UTF-8, whatever the
locale says: with another encoding the traces, which are braille dots, could not be drawn at all.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

__all__ = ["has_keyboard", "lasting_terminal"]


def has_keyboard() -> bool:
    """Return whether standard input is a terminal, from which a person's keys come."""
    try:
        return sys.__stdin__ is not None and sys.__stdin__.isatty()
    except ValueError:  # it was closed
        return False


class _Lasting:
    """A text file whose writing never fails."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def lasting_terminal() -> Iterator[None]:
    """Let textual, which takes ``sys.__stderr__`` and ``sys.__stdin__`` when it begins, draw on a terminal that may go away."""
    drawn, keys = sys.__stderr__, sys.__stdin__
    encoding, errors = getattr(drawn, "encoding", ""), getattr(drawn, "errors", "")
    if isinstance(drawn, io.TextIOWrapper):
        drawn.reconfigure(encoding="utf-8", errors="replace")
    if drawn is not None:
        sys.__stderr__ = _Lasting(drawn)  # type: ignore[misc,assignment]
    nothing = None if has_keyboard() else open(os.devnull, encoding="utf-8")  # noqa: SIM115 - closed below
    if nothing is not None:
        sys.__stdin__ = nothing  # type: ignore[misc]
    try:
        yield
    finally:
        sys.__stderr__, sys.__stdin__ = drawn, keys  # type: ignore[misc]
        if isinstance(drawn, io.TextIOWrapper):
            drawn.reconfigure(encoding=encoding, errors=errors)
        if nothing is not None:
            nothing.close()
