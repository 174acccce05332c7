"""Standard error that outlives its terminal.

Textual draws from a thread of its own. When the terminal is closed, writing to it fails, that thread dies, and the application
waits for it for ever: the monitor could not end. So what cannot be written is dropped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

__all__ = ["lasting_terminal"]


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
    """Let textual, which takes ``sys.__stderr__`` when it begins, draw on a terminal that may go away."""
    was = sys.__stderr__
    if was is not None:
        sys.__stderr__ = _Lasting(was)  # type: ignore[misc,assignment]
    try:
        yield
    finally:
        sys.__stderr__ = was  # type: ignore[misc]
