"""Processes that analyse recordings side by side. One that dies is replaced."""

from __future__ import annotations

import errno
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, NamedTuple, Self

from ecgnat_stream.batch.choose import RecordingFile
from ecgnat_stream.batch.work import Order, Result
from ecgnat_stream.errors import ConfigError, EcgnatError

__all__ = ["Pool", "Share", "batches", "work_here"]

_AT_ONCE = 32
_BATCH_BYTES = 8_000_000
"""A batch holds at most so many recordings, and bytes of files: what is at work is lost when the run is ended."""

_TURNS = 3
"""So many batches for each process at least, where there are recordings enough."""

_NO_MEMORY = errno.ENOMEM

_ENDS_S = 5.0
"""A process that does not end within this time is killed, s."""


class Share(NamedTuple):
    """How much of a batch is done, 0 to 1."""

    batch: tuple[RecordingFile, ...]
    share: float


class _Ready(NamedTuple):
    """A process waits for its next batch."""


class _Refused(NamedTuple):
    why: str
    wrong_usage: bool


class Pool:
    """Analyses recordings in ``jobs`` processes. Use as a context manager: leaving it ends them.

    Parameters
    ----------
    serve
        What a process does; for tests.
    """

    def __init__(self, order: Order, jobs: int, serve: Callable[[Connection, Order], None] | None = None) -> None:
        self._order, self._jobs = order, jobs
        self._serve = serve or _serve
        # Not forked: torch's threads do not live through that.
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[Connection, Any] = {}
        self._ready: set[Connection] = set()
        self._at_work: dict[Connection, tuple[RecordingFile, ...]] = {}

    def __enter__(self) -> Self:
        """Return itself; processes start with the first recording."""
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """End the processes, also those that are at work."""
        for process in self._processes.values():
            process.terminate()
        for connection, process in self._processes.items():
            process.join(_ENDS_S)
            if process.is_alive():
                process.kill()
                process.join()
            connection.close()
        self._processes.clear()

    def run(self, recordings: Sequence[RecordingFile]) -> Iterator[Share | Result]:
        """Yield what became of every recording as it finishes, and in between how far they are.

        Raises
        ------
        ConfigError
            If the network cannot be loaded.
        EcgnatError
            If no process can be started.
        """
        waiting = deque(batches(recordings, self._jobs))
        for _ in range(min(self._jobs, len(waiting))):
            self._start()
        while waiting or self._at_work:
            for connection in wait(list(self._processes)):
                assert isinstance(connection, Connection)
                try:
                    message = connection.recv()
                except (EOFError, OSError):
                    yield from self._died(connection, waiting)
                    continue
                if isinstance(message, _Refused):
                    raise (ConfigError if message.wrong_usage else EcgnatError)(message.why)
                if isinstance(message, _Ready):
                    self._ready.add(connection)
                    self._at_work.pop(connection, None)
                    if waiting:
                        self._give(connection, waiting.popleft())
                    continue
                if isinstance(message, Result):
                    at_work = self._at_work[connection]
                    self._at_work[connection] = tuple(one for one in at_work if one.path != message.recording.path)
                yield message

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=self._serve, args=(theirs, self._order), daemon=True)
        process.start()
        theirs.close()
        self._processes[ours] = process

    def _give(self, connection: Connection, batch: tuple[RecordingFile, ...]) -> None:
        self._at_work[connection] = batch
        try:
            connection.send(batch)
        except OSError:
            return  # it has died: its end of the connection says so next

    def _died(self, connection: Connection, waiting: deque[tuple[RecordingFile, ...]]) -> Iterator[Result]:
        """Replace a process. What it had not finished is tried again one by one; what was alone is given up."""
        process = self._processes.pop(connection)
        process.join()
        connection.close()
        how = _how(process.exitcode)
        if connection not in self._ready:
            raise EcgnatError(f"a process for analyses {how} before it began: is there enough memory? Try --jobs 1")
        left = self._at_work.pop(connection, ())
        if len(left) > 1:
            waiting.extendleft((recording,) for recording in reversed(left))
        if waiting:
            self._start()
        if len(left) == 1:
            yield Result(recording=left[0], error=f"the process that analysed it {how}")


def work_here(order: Order, recording: RecordingFile, tell: Callable[[float], None]) -> Iterator[Result]:
    """Yield what became of one recording, analysed in this process: another one takes seconds to begin, and would save nothing.

    Raises
    ------
    ConfigError
        If the network cannot be loaded.
    """
    from ecgnat_stream.batch.work import Worker

    try:
        worker = Worker(order)
    except EcgnatError as error:
        raise ConfigError(str(error)) from error
    try:
        yield from worker.work((recording,), tell)
    except MemoryError:
        yield Result(recording=recording, error="there is too little memory to analyse it")


def batches(recordings: Sequence[RecordingFile], jobs: int) -> list[tuple[RecordingFile, ...]]:
    """Put recordings of like size together, small ones in large batches; the largest first, so that none is left for the end."""
    most = min(_AT_ONCE, max(1, -(-len(recordings) // (jobs * _TURNS))))
    made: list[tuple[RecordingFile, ...]] = []
    batch: list[RecordingFile] = []
    for recording in sorted(recordings, key=lambda one: -one.size):
        if batch and (len(batch) >= most or sum(one.size for one in batch) + recording.size > _BATCH_BYTES):
            made.append(tuple(batch))
            batch = []
        batch.append(recording)
    return [*made, tuple(batch)] if batch else made


def _how(code: int) -> str:
    if code == _NO_MEMORY:
        return "had too little memory"
    if code >= 0:
        return f"stopped with exit code {code}"
    name = signal.Signals(-code).name
    return f"was killed ({name}{', perhaps for want of memory' if name == 'SIGKILL' else ''})"


def _serve(connection: Connection, order: Order) -> None:
    """Analyse what comes until nothing more comes. Ctrl-C is the parent's: it ends the processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from ecgnat_stream.batch.work import Worker

    try:
        worker = Worker(order)
    except EcgnatError as error:
        connection.send(_Refused(str(error), wrong_usage=True))
        return
    try:
        while True:
            connection.send(_Ready())
            batch = connection.recv()
            for result in worker.work(batch, partial(_tell, connection, batch)):
                connection.send(result)
    except MemoryError:
        raise SystemExit(_NO_MEMORY) from None
    except (EOFError, BrokenPipeError):
        return  # whoever asked is gone


def _tell(connection: Connection, batch: tuple[RecordingFile, ...], share: float) -> None:
    connection.send(Share(batch, share))
