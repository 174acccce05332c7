"""The guard of the process: a thread that ends it when its event loop stands still, or does not end when it is told to.

The watchdog looks whether the beds are watched; the guard looks whether the watchdog looks. It needs nothing of the event loop:
signals reach it through a socket that the operating system's handler writes to. Whoever started the process (systemd with
``Restart=always``, a container with a restart policy) starts it again after exit code 70.
"""

from __future__ import annotations

import faulthandler
import math
import os
import select
import signal
import socket
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["DIED", "LEAVE_S", "Guard", "guarded"]

DIED = 70
"""Exit code of a process that could not be trusted any more (EX_SOFTWARE of sysexits.h)."""

LEAVE_S = 8.5
"""A process that was told to end is ended after this time: SIGTERM is obeyed within 10 s, whatever hangs."""

_LOOK_S = 0.5
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def guarded() -> Iterator[Guard]:
    """Guard what runs within the block, all of the event loop; :meth:`Guard.watch` says what is to be guarded.

    When the block is left, the guard waits for the end of the program: what hangs there is ended too. A program that goes on is
    left alone.
    """
    inside, outside = socket.socketpair()
    for end in (inside, outside):
        end.setblocking(False)
    guard = Guard(inside)
    former = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
    former_fd = signal.set_wakeup_fd(outside.fileno(), warn_on_full_buffer=False)
    guard.start()
    try:
        yield guard
    finally:
        signal.set_wakeup_fd(former_fd)
        for number, handler in former.items():
            signal.signal(number, handler)
        outside.close()


class Guard(threading.Thread):
    """See the module; made by :func:`guarded`."""

    def __init__(self, signals: socket.socket) -> None:
        super().__init__(name="guard", daemon=True)
        self._signals = signals
        self._stop: Callable[[int], None] = lambda _: None
        self._watched_ns: Callable[[], int] | None = None
        self._loop_s = math.inf
        self._until = math.inf
        self._terminal = _terminal()

    def watch(self, stop: Callable[[int], None], watched_ns: Callable[[], int], loop_s: float) -> None:
        """Begin to look at a monitor.

        Parameters
        ----------
        stop
            Called in the guard's thread with the number of a signal that asks for the end.
        watched_ns
            Returns when the beds were last looked at, monotonic ns.
        loop_s
            How long that may be ago, s.
        """
        self._stop, self._loop_s, self._watched_ns = stop, loop_s, watched_ns
        _notify("READY=1")

    def leave(self) -> None:
        """Take note that the monitor is ending: the block has to be left within ``LEAVE_S``."""
        if self._until == math.inf:
            self._until = time.monotonic() + LEAVE_S
            _notify("STOPPING=1")

    def run(self) -> None:
        """Look until the program ends. A guard that fails ends the process: nobody would look any more, or hear a signal."""
        try:
            self._look()
        except BaseException as error:  # noqa: BLE001 - the border of the thread
            self._end(f"its guard has failed: {type(error).__name__}: {error}")

    def _look(self) -> None:
        """Look, twice a second, until the block is left; then wait for the end of the program."""
        held_up_s = 0.0
        asked = time.monotonic()
        while self._hear():
            now = time.monotonic()
            # A process that was stopped as a whole (a debugger, a machine that slept) has not looked, and could not.
            held_up_s = now - asked if now - asked > 4 * _LOOK_S else max(0.0, held_up_s - _LOOK_S)
            asked = now
            if now > self._until:
                self._end(f"it did not end within {LEAVE_S:g} s")
            if self._until == math.inf and self._watched_ns is not None:
                still_s = (time.monotonic_ns() - self._watched_ns()) / 1e9
                if still_s > self._loop_s + held_up_s:
                    self._end(f"nobody has looked at the beds for {still_s:.0f} s: the event loop stands still")
                _notify("WATCHDOG=1")
        self._signals.close()
        threading.main_thread().join()
        time.sleep(LEAVE_S)
        self._end(f"it did not end within {LEAVE_S:g} s")

    def _hear(self) -> bool:
        """Wait for a signal, or until it is time to look again; False when the block is left."""
        if not select.select([self._signals], [], [], _LOOK_S)[0]:
            return True
        heard = self._signals.recv(64)
        for number in heard:
            if number in _SIGNALS:
                self.leave()
                self._stop(number)
        return bool(heard)

    def _end(self, why: str) -> None:
        try:
            os.set_blocking(2, False)  # a pipe that nobody reads, or a terminal that hangs, does not keep the process
            if self._terminal is not None:
                descriptor, state = self._terminal
                termios.tcsetattr(descriptor, termios.TCSANOW, state)
                os.write(descriptor, b"\x1b[?1049l\x1b[?1000l\x1b[?1003l\x1b[?25h\r\n")
            os.write(2, f"ecgnat: the process is ended: {why}. Where each thread is:\n".encode())
            faulthandler.dump_traceback(2, all_threads=True)
            os.set_blocking(2, True)  # the shell may share it
        finally:
            os._exit(DIED)


def _terminal() -> tuple[int, list[Any]] | None:
    """Return the terminal and how it was before the dashboard drew on it."""
    if not sys.stderr.isatty():
        return None
    return sys.stderr.fileno(), termios.tcgetattr(sys.stderr.fileno())


def _notify(state: str) -> None:
    """Tell systemd, if it wants to know (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        try:
            service = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        except OSError:  # no file descriptor is left just now: it is told again in half a second
            return
        with service:
            try:
                service.connect("\0" + address[1:] if address.startswith("@") else address)
                with suppress(BlockingIOError):  # systemd is behind: it is told again in half a second
                    service.send(state.encode())
            except OSError:
                os.environ.pop("NOTIFY_SOCKET")  # nobody listens there: it is not asked again
