"""Standard output and standard error of every command.

What standard output cannot take (a full disk, a device that is full, a closed descriptor) is told once, with exit code 1. What
standard error cannot take has nowhere to be told: it is dropped, and changes neither the exit code nor what a command does.
"""

from __future__ import annotations

import fcntl
import io
import os
import select
import sys
from typing import TextIO

from ecgnat_stream.errors import EcgnatError

__all__ = ["OutputError", "is_open", "let_go", "settled", "steady"]


class OutputError(EcgnatError):
    """Standard output could not take what was printed."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output: cannot be written to ({error.strerror}); what was printed is not all there")


class _Output(io.FileIO):
    """Standard output: says what it is when it cannot be written to, and waits where it is to be waited for."""

    def write(self, data: object) -> int:
        """Write some of the data, at least one byte.

        Raises
        ------
        OutputError
            If nothing could be written.
        BrokenPipeError
            If nobody reads any more.
        """
        try:
            while (written := super().write(data)) is None:  # type: ignore[arg-type]
                select.select((), (self,), ())
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(error) from error
        return written


class _Errors(io.FileIO):
    """Standard error: what it cannot take is dropped."""

    def write(self, data: object) -> int:
        """Write what can be written."""
        try:
            written = super().write(data)  # type: ignore[arg-type]
        except OSError:
            written = None
        return memoryview(data).nbytes if written is None else written  # type: ignore[arg-type]


def steady() -> None:
    """Make standard output and standard error what the module says, in place of the interpreter's own; before anything else.

    A closed descriptor is opened, or the next file that is opened would take its number: standard output so that whoever writes
    to it finds it closed. Streams that somebody has put in their place already (a test, a notebook) are left as they are.
    """
    for descriptor, flags in enumerate((os.O_RDWR, os.O_RDONLY, os.O_RDWR)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout, "strict")
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Errors(2, "w", closefd=False), sys.stderr, "backslashreplace")


def _text(raw: io.FileIO, like: TextIO | None, errors: str) -> TextIO:
    """Return a text stream with the encoding of the one that it replaces."""
    encoding = like.encoding if like is not None else "utf-8"
    lines = raw.isatty() or raw.fileno() == 2
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors=(like and like.errors) or errors, line_buffering=lines
    )


def is_open(stream: TextIO | None) -> bool:
    """Return whether a stream was open when the program was started."""
    try:
        return stream is not None and fcntl.fcntl(stream.fileno(), fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except (OSError, ValueError):
        return stream is not None  # one that has no descriptor of its own


def settled(code: int) -> int:
    """Return the exit code of a command that would end with ``code``: 1 if its output could not be written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        let_go()
    except OutputError as error:
        print(f"ecgnat: {error}", file=sys.stderr)
        let_go()
        return code or 1
    sys.stderr.flush()
    return code


def let_go() -> None:
    """Put nothing in the place of standard output: what still waits for it is dropped, and the interpreter does not complain."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.close(descriptor)
