"""Work that may hang, beside the event loop: a disk, a pipe, a recording on a share.

The threads of an executor are waited for when the program ends, so one write that never returns would keep the process alive;
and what shares the loop's own executor waits for one another. A side thread belongs to one part. It is left behind at the end.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["SideThread"]

_IDLE_S = 10.0
"""A thread that had nothing to do for so long ends; the next work begins another one."""

_AGAIN_S = 0.5
"""A thread that the machine did not give is asked for again after so long."""

_T = TypeVar("_T")


class SideThread:
    """One thread that does what it is given, in order; it begins with the first work.

    Parameters
    ----------
    name
        Name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._changed = threading.Condition()
        self._runs = False

    def submit(self, work: Callable[[], _T]) -> Future[_T]:
        """Queue work; never waits. Call it in the event loop."""
        future: Future[_T] = Future()
        with self._changed:
            self._work.append((future, work))
            if self._runs:
                self._changed.notify()
            else:
                self._begin()
        return future

    def _begin(self) -> None:
        """Start the thread; where the machine has none left now, the work waits and it is tried again."""
        try:
            threading.Thread(target=self._serve, name=self._name, daemon=True).start()
        except RuntimeError:
            asyncio.get_running_loop().call_later(_AGAIN_S, self._begin_again)
        else:
            self._runs = True

    def _begin_again(self) -> None:
        with self._changed:
            if self._work and not self._runs:
                self._begin()

    async def do(self, work: Callable[[], _T]) -> _T:
        """Do work and return its result; a cancellation does not wait for the thread, which goes on."""
        return await asyncio.shield(asyncio.wrap_future(self.submit(work)))

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            future, work = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
                future.set_exception(error)
            else:
                future.set_result(result)
            del job, future, work

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._changed:
            if not self._work and not self._changed.wait_for(lambda: bool(self._work), _IDLE_S):
                self._runs = False
                return None
            return self._work.popleft()
