"""The way to the terminal: one that nobody reads (a link that hangs, a laptop that sleeps) does not stop the monitor.

Without a keyboard (``has_keyboard``) nothing is read, and the terminal is asked nothing that it would answer: the answers would
stand on the screen, and in the line of the shell afterwards.

Textual hands what it draws to a thread, and waits when 30 pieces wait there; the event loop would wait with it. Here pieces that
the terminal does not take in time are left out, and everything is drawn anew when it reads again.
"""

from __future__ import annotations

import asyncio
import re
import threading
from concurrent.futures import Future
from functools import partial
from typing import Any

from textual.drivers.linux_driver import LinuxDriver

from ecgnat_stream.sidethread import SideThread

__all__ = ["PatientDriver"]

_WAITING = 200
_CLOSE_S = 1.0

_ASKING = re.compile(r"\x1b\[(\?(1000|1003|1004|1006|1015|1016|2004|2048)h|\?\d+\$p|>\d+u)")
"""What makes a terminal talk: reports of the mouse, the focus and the size, bracketed pastes, questions, keys as sequences."""


class PatientDriver(LinuxDriver):
    """Textual's driver of a terminal, whose writing never waits."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._side = SideThread("terminal")
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._waiting = 0
        self._left_out = False

    def write(self, data: str) -> None:
        """Draw a piece, or leave it out."""
        if not self.input_tty and _ASKING.fullmatch(data):
            return
        with self._lock:
            self._left_out |= self._waiting >= _WAITING
            if self._left_out:
                return
            self._waiting += 1
        self._side.submit(partial(super().write, data)).add_done_callback(self._written)

    def _written(self, _: Future[None]) -> None:
        with self._lock:
            self._waiting -= 1
            again = self._left_out and not self._waiting
            if again:
                self._left_out = False
        if again and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(partial(self._app.refresh, layout=True))

    def run_input_thread(self) -> None:
        """Read keys, from a terminal; otherwise wait for the end."""
        if self.input_tty:
            super().run_input_thread()
        else:
            self.exit_event.wait()

    def close(self) -> None:
        """Let what waits be drawn, for a moment; a terminal that still takes nothing is left behind."""
        try:
            self._side.submit(lambda: None).result(_CLOSE_S)
        except TimeoutError:
            return
        super().close()
