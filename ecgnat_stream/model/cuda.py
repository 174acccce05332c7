"""Batches on a CUDA device: one captured graph for each size, one copy in, one copy out, both while the device computes.

A graph replays the kernels of a whole step by one call, where a step of a small network is otherwise hundreds of launches. It
reads and writes fixed addresses: each size has an input that never moves, and its answer. What comes from the host is first put
beside it, so that the copy of one batch runs while the graph of the one before does; pinned memory on both sides, and a stream
of its own for each direction.

On a CPU the same code runs without streams, pinned memory and graphs: the function is called in place of its capture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

__all__ = ["Capture", "GraphedBatches", "Input", "Ticket", "capture", "graphed_step"]

_WARM_UP = 3
"""Calls before a capture: libraries choose their kernels, and get their memory."""

_IN_FLIGHT = 2
"""Batches of one size on their way: while one is computed, the next one is copied in or the last one out."""

_ALIGNED = 16


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a batch: the shape of a row, its type, and what fills up the rows that are not there."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    fill: float


Capture = Callable[[Callable[[], Tensor], torch.device], Callable[[], Tensor]]
"""Turns a function that reads and writes fixed addresses into one that does the same by one call."""


def capture(run: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """Return the function as a captured CUDA graph; on another device as it is.

    Its answer is the same tensor at each call. While it is captured, nothing may wait for the device or allocate on the host, no
    shape may depend on data, and no other thread's calls matter (``thread_local``).
    """
    if device.type != "cuda":
        return run
    beside = _new_stream(device)
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(beside):
        for _ in range(_WARM_UP):
            run()
    torch.cuda.current_stream(device).wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=beside, capture_error_mode="thread_local"):
        answer = run()

    def replay() -> Tensor:
        graph.replay()
        return answer

    return replay


class Ticket:
    """A batch that is on its way."""

    def __init__(self, slot: _Slot, count: int, shapes: Sequence[tuple[int, ...]]) -> None:
        self._slot: _Slot | None = slot
        self._count, self._shapes = count, shapes
        self._answer: tuple[Tensor, ...] = ()

    def result(self) -> tuple[Tensor, ...]:
        """Wait, and return the outputs of the batch's rows on the host, float32."""
        if self._slot is not None:
            self._slot.wait()
            whole = self._slot.host_out[: self._count].clone()
            widths = [prod(shape) for shape in self._shapes]
            parts = zip(torch.split(whole, widths, dim=1), self._shapes, strict=True)
            self._answer = tuple(part.reshape(self._count, *shape) for part, shape in parts)
            self._slot = None
        return self._answer


class GraphedBatches:
    """A function of batches, run on a device by graphs that were captured before.

    Parameters
    ----------
    run
        Takes the inputs ``(size, ...)`` by name, returns outputs ``(size, ...)``. All else that it reads and writes (weights,
        what is remembered of beds) has to stay where it is, and whoever else changes it does so within :meth:`between`.
    inputs
        What a row of the batch is made of.
    sizes
        Sizes of batches; a batch is filled up to the next one.
    autocast
        Type in which matrix products run, None for that of their operands.
    graphs
        What captures; the function itself where a device has no graphs.
    """

    def __init__(
        self,
        run: Callable[..., tuple[Tensor, ...]],
        inputs: Mapping[str, Input],
        sizes: Sequence[int],
        device: torch.device,
        *,
        autocast: torch.dtype | None = None,
        graphs: Capture = capture,
    ) -> None:
        self.sizes, self.device, self._inputs = tuple(sorted(sizes)), device, dict(inputs)
        self._streams = _Streams(device)
        self._next = 0
        self._shapes: list[tuple[int, ...]] = []
        self._lanes: dict[int, _Lane] = {}
        for size in reversed(self.sizes):  # the largest first: the others fit into what it has left
            self._lanes[size] = self._lane(run, size, autocast, graphs)
        self._waiting: dict[tuple[int, int], Ticket] = {}
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def between(self) -> AbstractContextManager[Any]:
        """Return a context whose work on the device comes after the batches that were submitted, and before the next one."""
        return _on(self._streams.work)

    def submit(self, **inputs: Tensor) -> Ticket:
        """Send a batch on its way.

        Parameters
        ----------
        inputs
            ``(B, ...)`` on the host, B at most the largest size.

        Raises
        ------
        ValueError
            For a batch that is too large, or inputs of other shapes.
        """
        count = len(next(iter(inputs.values())))
        wanted = {name: (count, *each.shape) for name, each in self._inputs.items()}
        given = {name: tuple(tensor.shape) for name, tensor in inputs.items()}
        if given != wanted or not 0 < count <= self.sizes[-1]:
            raise ValueError(f"want at most {self.sizes[-1]} rows of {wanted}, got {given}")
        size = next(size for size in self.sizes if size >= count)
        lane, self._next = self._lanes[size], (self._next + 1) % _IN_FLIGHT
        slot = lane.slots[self._next]
        before = self._waiting.pop((size, self._next), None)
        if before is not None:
            before.result()  # its place is needed
        for name, part in _views(slot.host_in, self._inputs, size).items():
            part[:count] = inputs[name]
            part[count:] = self._inputs[name].fill
        self._streams.run(lane, slot)
        ticket = Ticket(slot, count, self._shapes)
        self._waiting[size, self._next] = ticket
        return ticket

    @torch.inference_mode()
    def replay(self, size: int) -> None:
        """Compute once more on what lies on the device, without copies: what is measured of the graph alone."""
        with self.between():
            self._lanes[size].call()

    def _lane(
        self, run: Callable[..., tuple[Tensor, ...]], size: int, autocast: torch.dtype | None, graphs: Capture
    ) -> _Lane:  # fmt: skip
        taken = torch.zeros(_bytes(self._inputs, size), dtype=torch.uint8, device=self.device)
        views = _views(taken, self._inputs, size)
        for name, part in views.items():
            part.fill_(self._inputs[name].fill)

        @torch.inference_mode()
        def whole() -> Tensor:
            # Casts are not kept from call to call: a graph may not read what was made outside of it.
            with torch.autocast(self.device.type, autocast or torch.bfloat16, enabled=autocast is not None, cache_enabled=False):
                outputs = run(**views)
            self._shapes = [tuple(part.shape[1:]) for part in outputs]
            return torch.cat([part.reshape(size, -1).float() for part in outputs], dim=1)

        call = graphs(whole, self.device)
        width = sum(map(prod, self._shapes)) if self._shapes else whole().shape[1]
        return _Lane(taken, call, [_Slot(self.device, len(taken), (size, width)) for _ in range(_IN_FLIGHT)])


def graphed_step(
    step: Callable[..., tuple[Tensor, ...]],
    state: Sequence[Tensor],
    sizes: Sequence[int],
    samples: tuple[int, int],
    **settings: Any,
) -> GraphedBatches:
    """Return the step of the causal network by graphs: inputs ``rows`` ``(B,)`` and ``samples`` ``(B, 12, 32 n)``.

    Parameters
    ----------
    step, state
        A :class:`~ecgnat_stream.model.streaming.StepNetwork`, and what it remembers, which must stay where it is; row 0 of the
        state is nobody's.
    samples
        Shape of a bed's samples.
    settings
        Of :class:`GraphedBatches`.
    """

    def run(rows: Tensor, samples: Tensor) -> tuple[Tensor, ...]:
        return step(samples, rows, *state)

    inputs = {"rows": Input((), torch.long, 0), "samples": Input(samples, torch.float32, float("nan"))}
    return GraphedBatches(run, inputs, sizes, state[0].device, **settings)


class _Slot:
    """Where one batch lies on its way in and out: pinned on the host, beside the graph's own input on the device."""

    def __init__(self, device: torch.device, given: int, said: tuple[int, int]) -> None:
        pinned = device.type == "cuda"
        self.host_in = torch.zeros(given, dtype=torch.uint8, pin_memory=pinned)
        self.host_out = torch.zeros(said, pin_memory=pinned)
        self.device_in = torch.zeros(given, dtype=torch.uint8, device=device)
        self.device_out = torch.zeros(said, device=device)
        self.came, self.computed, self.done = (_new_event(device) for _ in range(3))

    def wait(self) -> None:
        """Wait until the answer is on the host."""
        if self.done is not None:
            self.done.synchronize()


@dataclass(frozen=True, slots=True)
class _Lane:
    """Batches of one size: the graph's input, the graph, and the slots."""

    taken: Tensor
    call: Callable[[], Tensor]
    slots: list[_Slot]


class _Streams:
    """Three streams of the device, for copies in, for graphs and for copies out; on a CPU one thing after the other."""

    def __init__(self, device: torch.device) -> None:
        self._into, self.work, self._out = (_new_stream(device) for _ in range(3))

    @torch.inference_mode()
    def run(self, lane: _Lane, slot: _Slot) -> None:
        """Start all that a batch needs; nothing here waits.

        A slot is given again only when its answer is on the host, so that nothing still reads what is written here.
        """
        with _on(self._into):
            slot.device_in.copy_(slot.host_in, non_blocking=True)
            _record(slot.came, self._into)
        with _on(self.work):
            _wait(self.work, slot.came)
            lane.taken.copy_(slot.device_in, non_blocking=True)
            slot.device_out.copy_(lane.call(), non_blocking=True)
            _record(slot.computed, self.work)
        with _on(self._out):
            _wait(self._out, slot.computed)
            slot.host_out.copy_(slot.device_out, non_blocking=True)
            _record(slot.done, self._out)


def _new_stream(device: torch.device) -> Any:
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def _new_event(device: torch.device) -> Any:
    return torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def _on(stream: Any) -> AbstractContextManager[Any]:
    return nullcontext() if stream is None else torch.cuda.stream(stream)


def _record(event: Any, stream: Any) -> None:
    if event is not None:
        event.record(stream)


def _wait(stream: Any, event: Any) -> None:
    if event is not None:
        stream.wait_event(event)


def _offsets(inputs: Mapping[str, Input], size: int) -> list[int]:
    """Return where each input begins in the bytes of a batch, and where the last one ends."""
    offsets = [0]
    for each in inputs.values():
        length = size * prod(each.shape) * each.dtype.itemsize
        offsets.append(offsets[-1] + -(-length // _ALIGNED) * _ALIGNED)
    return offsets


def _bytes(inputs: Mapping[str, Input], size: int) -> int:
    return _offsets(inputs, size)[-1]


def _views(flat: Tensor, inputs: Mapping[str, Input], size: int) -> dict[str, Tensor]:
    """Return the inputs ``(size, ...)`` that lie in the bytes of a batch."""
    views = {}
    for (name, each), begin in zip(inputs.items(), _offsets(inputs, size), strict=False):
        length = size * prod(each.shape) * each.dtype.itemsize
        views[name] = flat[begin : begin + length].view(each.dtype).view(size, *each.shape)
    return views
