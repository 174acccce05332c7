"""Where the time and the memory of a running monitor go, stage by stage.

Every public method of the stages' classes, and every step of every task, is timed without what is called from within. Processor
time of the event loop's thread is then shared out in these proportions: a clock of threads is too slow to be read so often. The
threads of the network and of sinks are taken from the system, by their names. Memory is what is found from the stages' objects.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from types import CoroutineType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from ecgnat_stream.bench.feeder import FEEDER

__all__ = ["ORDER", "STAGES", "Stopwatch", "held", "python_threads"]

STAGES: dict[str, tuple[tuple[str, str], ...]] = {
    "ring": (("ecgnat_stream.ring", "RingBuffer"),),
    "condition": (("ecgnat_stream.condition", "Conditioner"),),
    "quality": (("ecgnat_stream.quality", "QualityEstimator"), ("ecgnat_stream.ward.scale", "ScaleWatch")),
    "beats": (
        ("ecgnat_stream.beats", "QrsDetector"),
        ("ecgnat_stream.beats", "BeatClassifier"),
        ("ecgnat_stream.beats", "HeartRate"),
    ),
    "fibrillation": (("ecgnat_stream.fibrillation", "FibrillationDetector"),),
    "schedule": (("ecgnat_stream.schedule", "Scheduler"),),
    "rhythm": (("ecgnat_stream.rhythm", "RhythmTimeline"),),
    "alarms": (("ecgnat_stream.alarm", "AlarmEngine"),),
    "bus": (("ecgnat_stream.bus", "Bus"), ("ecgnat_stream.bus", "Subscription")),
    "network": (("ecgnat_stream.model", "Predictor"), ("ecgnat_stream.model.streaming", "StreamingEcgNat")),
    "ward": (("ecgnat_stream.ward", "Ward"), ("ecgnat_stream.ward.signal_path", "SignalPath")),
}
"""Stage to its classes with their subclasses, by module and name; what one holds is not looked for again in a later one."""

ORDER = ("devices", *STAGES, "sinks", "loop")

_TASKS = {"intake": "devices", "device": "devices", "advance": "ward", "_predict": "ward", "_tick": "ward", "_watch": "ward"}
"""Beginning of a task's name to the stage that it works for; a sink's task has the name of its class."""


class Stopwatch:
    """Times the stages of one event loop from :meth:`started` on.

    Attributes
    ----------
    spent
        Stage to s, without what it called of other stages.
    moved
        Stage to bytes of the arrays that were given to it and returned by it.
    """

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.moved: dict[str, int] = defaultdict(int)
        self._stack: list[list[Any]] = []
        self._thread = 0

    def clear(self) -> None:
        """Begin to count anew."""
        self.spent.clear()
        self.moved.clear()

    @contextmanager
    def started(self) -> Iterator[Stopwatch]:
        """Time what this thread's event loop does; the classes are as before afterwards."""
        self._thread = threading.get_ident()
        loop, replaced = asyncio.get_running_loop(), []
        for stage, classes in STAGES.items():
            for module, name in classes:
                family = _with_subclasses(getattr(import_module(module), name))
                for kind, method, function in [(each, *item) for each in family for item in vars(each).items()]:
                    plain = isinstance(function, FunctionType) and not asyncio.iscoroutinefunction(function)
                    if plain and not method.startswith("_"):
                        replaced.append((kind, method, function))
                        setattr(kind, method, self._timed(stage, function))
        loop.set_task_factory(lambda owner, work, **kwargs: asyncio.Task(_Stepped(work, self), loop=owner, **kwargs))
        try:
            yield self
        finally:
            loop.set_task_factory(None)
            for kind, method, function in replaced:
                setattr(kind, method, function)

    def _timed(self, stage: str, function: FunctionType) -> Callable[..., Any]:
        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != self._thread:
                return function(*args, **kwargs)
            outermost = not self._stack or self._stack[-1][0] != stage
            self.enter(stage)
            try:
                result = function(*args, **kwargs)
            finally:
                self.leave()
            if outermost:
                self.moved[stage] += _bytes_of(args[1:]) + _bytes_of(tuple(kwargs.values())) + _bytes_of(result)
            return result

        return timed

    def enter(self, stage: str) -> None:
        """Begin a piece of work of a stage."""
        self._stack.append([stage, time.perf_counter(), 0.0])

    def leave(self) -> None:
        """End it."""
        stage, began, within = self._stack.pop()
        took = time.perf_counter() - began
        self.spent[stage] += took - within
        if self._stack:
            self._stack[-1][2] += took

    def shares(self, loop_s: float) -> dict[str, float]:
        """Share out ``loop_s`` of the event loop's thread, without the load; what no task did is the loop's own."""
        spent = {stage: s for stage, s in self.spent.items() if stage != FEEDER}
        known = sum(spent.values())
        scale = min(1.0, loop_s / known) if known else 0.0
        found = {stage: s * scale for stage, s in spent.items()}
        found["loop"] = found.get("loop", 0.0) + max(0.0, loop_s - known * scale)
        return found


class _Stepped(Coroutine[Any, Any, Any]):
    """A task's coroutine, of which every step is timed."""

    def __init__(self, work: Coroutine[Any, Any, Any], watch: Stopwatch) -> None:
        self._work, self._watch = work, watch
        self._stage = ""
        self.__qualname__ = getattr(work, "__qualname__", type(work).__name__)

    def _entered(self) -> None:
        if not self._stage:
            task = asyncio.current_task()
            self._stage = stage_of_task(task.get_name() if task is not None else "")
        self._watch.enter(self._stage)

    def send(self, value: Any) -> Any:
        """Take a step."""
        self._entered()
        try:
            return self._work.send(value)
        finally:
            self._watch.leave()

    def throw(self, *args: Any) -> Any:
        """Take a step that begins with an error."""
        self._entered()
        try:
            return self._work.throw(*args)
        finally:
            self._watch.leave()

    def close(self) -> None:
        """End the coroutine."""
        self._work.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._work.__await__()


def stage_of_task(name: str) -> str:
    """Return the stage that a task of this name works for."""
    if name == FEEDER:
        return FEEDER
    if name.endswith("Sink"):
        return "sinks"
    return next((stage for begin, stage in _TASKS.items() if name.startswith(begin)), "loop")


def _bytes_of(value: Any, depth: int = 2) -> int:
    """Return the bytes of arrays among arguments or in a result, through tuples and structs of them."""
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if depth and isinstance(value, tuple):
        return sum(_bytes_of(each, depth - 1) for each in value)
    names = getattr(type(value), "__dataclass_fields__", None)
    return sum(_bytes_of(getattr(value, name), depth - 1) for name in names) if depth and names else 0


def python_threads() -> dict[str, float]:
    """Return the processor time in s of the threads that Python knows, by kind; empty where it cannot be read."""
    found: dict[str, float] = defaultdict(float)
    if not hasattr(time, "pthread_getcpuclockid"):
        return {}
    for thread in threading.enumerate():
        if thread.ident is not None:
            try:
                found[thread.name.rpartition("_")[0] or thread.name] += time.clock_gettime(
                    time.pthread_getcpuclockid(thread.ident)
                )
            except OSError:
                continue  # it has just ended
    return dict(found)


def held() -> dict[str, int]:
    """Return the bytes that the objects of every stage hold, arrays and Python objects; each object counts once."""
    kinds = {stage: tuple(getattr(import_module(m), name) for m, name in classes) for stage, classes in STAGES.items()}
    roots: dict[str, list[Any]] = {stage: [] for stage in STAGES}
    for thing in gc.get_objects():
        for stage, classes in kinds.items():
            if issubclass(type(thing), classes):  # isinstance would ask the thing itself, and proxies answer for another
                roots[stage].append(thing)
    seen: set[int] = set()
    every = tuple(kind for classes in kinds.values() for kind in classes)
    return {stage: sum(_held(root, seen, every) for root in roots[stage]) for stage in STAGES}


_NOT_ITS_OWN = (type, ModuleType, FunctionType, MethodType, FrameType, CoroutineType, asyncio.Future, asyncio.AbstractEventLoop)
"""What leads from one stage to others, or to the interpreter."""


def _with_subclasses(kind: type) -> list[type]:
    below: list[type] = kind.__subclasses__()
    return [kind, *(each for child in below for each in _with_subclasses(child))]


def _held(root: Any, seen: set[int], others: tuple[type, ...]) -> int:
    total, waiting = 0, [root]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, _NOT_ITS_OWN) or (thing is not root and isinstance(thing, others)):
            continue
        seen.add(id(thing))
        if isinstance(thing, np.ndarray):
            while isinstance(thing.base, np.ndarray):
                thing = thing.base
                if id(thing) in seen:
                    break
                seen.add(id(thing))
            else:
                total += int(thing.nbytes)
            if thing.dtype == object:
                waiting.extend(gc.get_referents(thing))
            continue
        if type(thing).__module__.startswith("torch") and hasattr(thing, "nbytes"):
            total += int(thing.nbytes)
            continue
        total += sys.getsizeof(thing, 0)
        waiting.extend(gc.get_referents(thing))
    return total
