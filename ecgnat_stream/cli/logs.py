"""What the program says about its own work: ``-v``, ``--log-level``, ``--log-file``, before or behind the name of a command.

Lines go to standard error, or to the file. While the dashboard draws, which it does on standard error, they are kept and shown
when it is closed; the oldest are dropped.
"""

from __future__ import annotations

import argparse
import logging
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ecgnat_stream.cli.options import a_path
from ecgnat_stream.errors import ConfigError, SinkError
from ecgnat_stream.words import cleaned

__all__ = ["add_logging", "beside", "kept_back", "logging_as_told", "told"]

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_OURS = ("ecgnat_stream", "ecgnat_devices")
_FULL = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_SHORT = "ecgnat: %(message)s"
_KEPT = 200
_LEAVE_S = 1.0
_LONGEST = 4000


def add_logging(parser: argparse.ArgumentParser) -> None:
    """Add the options; without a default, so that one before the command is not undone behind it."""
    group = parser.add_argument_group("messages")
    group.add_argument("-v", "--verbose", action="count", help="say more about what happens: -v info, -vv debug")
    group.add_argument("--log-level", choices=tuple(_LEVELS), help="say this and what is worse (default warning)")
    group.add_argument("--log-file", type=a_path, metavar="FILE", help="write messages to FILE, not to standard error")
    for action in group._group_actions:
        action.default = argparse.SUPPRESS


def _level(arguments: argparse.Namespace) -> int:
    named: str | None = getattr(arguments, "log_level", None)
    if named is not None:
        return _LEVELS[named]
    return (logging.WARNING, logging.INFO, logging.DEBUG)[min(getattr(arguments, "verbose", 0), 2)]


class _Formatter(logging.Formatter):
    """Writes a message as one line that moves no cursor, and cannot look like another message; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Return the line of a record."""
        record.message = cleaned(record.message, _LONGEST)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line and the traceback, in which the error's own words may be anybody's."""
        return "\n".join(map(_line, super().format(record).splitlines()))


def _line(line: str) -> str:
    text = line.lstrip(" ")
    return " " * (len(line) - len(text)) + cleaned(text, _LONGEST)


class _Screen(logging.Handler):
    """Writes to standard error as it is now (above bars, where some are drawn), or keeps lines back while the dashboard draws."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: deque[logging.LogRecord] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.kept is None:
            print(self.format(record), file=sys.stderr, flush=True)
        else:
            self.kept.append(record)


class _File(logging.Handler):
    """Appends to a file; lines that it cannot take (a full disk) are counted."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.lost, self.why = path, 0, ""
        # Not blocking: a pipe that nobody reads is refused, not waited for.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        self._descriptor = os.open(path, flags, 0o666)
        os.set_blocking(self._descriptor, True)

    def emit(self, record: logging.LogRecord) -> None:
        left = memoryview(f"{self.format(record)}\n".encode("utf-8", "backslashreplace"))
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            self.lost, self.why = self.lost + 1, str(error.strerror)

    def close(self) -> None:
        os.close(self._descriptor)
        super().close()


@contextmanager
def logging_as_told(arguments: argparse.Namespace) -> Iterator[None]:
    """Set the standard logging up for one command, and leave it as it was.

    Raises
    ------
    ConfigError
        For a file that cannot be written to.
    SinkError
        At the end, for one that could not take every line.
    """
    level = _level(arguments)
    path: Path | None = getattr(arguments, "log_file", None)
    handler: logging.Handler = _Screen()
    if path is not None:
        try:
            handler = _File(path)
        except OSError as error:
            raise ConfigError(f"--log-file {path}: cannot be written to ({error.strerror})") from error
    handler.setFormatter(_Formatter(_FULL if path is not None or level == logging.DEBUG else _SHORT))
    root, ours = logging.getLogger(), [logging.getLogger(name) for name in _OURS]
    before = [(log, log.level) for log in (root, *ours)]
    # Of other people's packages only -vv tells more than warnings, and never their debugging.
    root.setLevel(logging.INFO if level == logging.DEBUG else max(level, logging.WARNING))
    for log in ours:
        log.setLevel(level)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
        for log, was in before:
            log.setLevel(was)
    if isinstance(handler, _File) and handler.lost:
        raise SinkError(f"--log-file {handler.path}: {handler.lost} lines could not be written ({handler.why})")


class _Beside(logging.Handler):
    """Hands lines to a thread, so that a pipe that nobody reads, or a disk that hangs, does not stop who has something to say."""

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__()
        self._handler = handler
        self._lines: queue.Queue[logging.LogRecord | None] = queue.Queue(_KEPT)
        self._dropped = 0
        self._thread = threading.Thread(target=self._serve, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args = record.getMessage(), None  # what it speaks of may change before it is written
        try:
            self._lines.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def _serve(self) -> None:
        while (record := self._lines.get()) is not None:
            self._handler.handle(record)
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                text = f"{dropped} messages are lost: nobody has taken them"
                self._handler.handle(logging.LogRecord(__name__, logging.WARNING, "", 0, text, None, None))

    def leave(self) -> None:
        """Let what waits be written, for a moment."""
        with suppress(queue.Full):
            self._lines.put(None, timeout=_LEAVE_S)
        self._thread.join(_LEAVE_S)


@contextmanager
def beside() -> Iterator[None]:
    """Write lines in a thread of their own while an event loop runs."""
    root = logging.getLogger()
    pairs = [(handler, _Beside(handler)) for handler in root.handlers if isinstance(handler, _Screen | _File)]
    for handler, besides in pairs:
        root.removeHandler(handler)
        root.addHandler(besides)
    try:
        yield
    finally:
        for handler, besides in pairs:
            root.removeHandler(besides)
            besides.leave()
            root.addHandler(handler)


@contextmanager
def kept_back() -> Iterator[None]:
    """Keep lines off the screen, and show them at the end."""
    screens = [handler for handler in logging.getLogger().handlers if isinstance(handler, _Screen)]
    for screen in screens:
        screen.kept = deque(maxlen=_KEPT)
    try:
        yield
    finally:
        for screen in screens:
            kept, screen.kept = screen.kept or (), None
            for record in kept:
                screen.emit(record)


@contextmanager
def told(name: str) -> Iterator[None]:
    """Let one logger say what is information, unless the person asked for less than warnings or for more."""
    log = logging.getLogger(name)
    was = log.level
    if log.getEffectiveLevel() == logging.WARNING:
        log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(was)
