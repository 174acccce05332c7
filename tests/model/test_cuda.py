"""Batches on their way to a device and back. Without CUDA the function itself stands for its graph; all else is the same code."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ecgnat_stream.model.cuda import GraphedBatches, Input, capture, graphed_step
from ecgnat_stream.model.preprocess import TOKEN
from ecgnat_stream.model.streaming import StreamingEcgNat
from tests.model.test_streaming import network, samples, whole

DEVICES = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
each_device = pytest.mark.parametrize("device", DEVICES, ids=str)


def frozen(run: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """What a graph does, on a CPU: its answer lies in the same place at every call."""
    answer = run()

    def replay() -> Tensor:
        answer.copy_(run())
        return answer

    return replay if device.type == "cpu" else capture(run, device)


def doubled(device: torch.device, sizes: tuple[int, ...] = (2, 8)) -> GraphedBatches:
    inputs = {"number": Input((), torch.long, -1), "values": Input((3,), torch.float32, 0.0)}
    return GraphedBatches(lambda number, values: (values * 2, number.float()[:, None]), inputs, sizes, device, graphs=frozen)


@each_device
def test_a_batch_of_any_number_comes_back_as_it_went(device: torch.device) -> None:
    batches = doubled(device)
    for count in (1, 2, 3, 8):
        number, values = torch.arange(count) + 2**40, torch.randn(count, 3)
        twice, same = batches.submit(number=number, values=values).result()
        assert torch.equal(twice, values * 2)
        assert torch.equal(same[:, 0], number.float())


@each_device
def test_answers_may_be_fetched_late_and_in_any_order(device: torch.device) -> None:
    batches = doubled(device)
    given = [torch.full((2, 3), float(k)) for k in range(7)]
    tickets = [batches.submit(number=torch.arange(2), values=values) for values in given]
    for ticket, values in reversed(list(zip(tickets, given, strict=True))):
        assert torch.equal(ticket.result()[0], values * 2)
        assert ticket.result() is ticket.result()


def test_each_size_is_captured_once_and_never_in_service() -> None:
    sizes: list[int] = []

    def counted(run: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
        sizes.append(len(run()))
        return run

    inputs = {"values": Input((), torch.float32, 0.0)}
    batches = GraphedBatches(lambda values: (values,), inputs, (1, 4, 16), torch.device("cpu"), graphs=counted)
    for count in (1, 2, 4, 5, 16):
        batches.submit(values=torch.zeros(count)).result()
    assert sizes == [16, 4, 1]


def test_a_batch_that_is_too_large_or_of_another_shape_is_refused() -> None:
    batches = doubled(torch.device("cpu"))
    with pytest.raises(ValueError, match="want at most 8 rows"):
        batches.submit(number=torch.arange(9), values=torch.zeros(9, 3))
    with pytest.raises(ValueError, match=r"'values': \(2, 4\)"):
        batches.submit(number=torch.arange(2), values=torch.zeros(2, 4))


@each_device
@pytest.mark.parametrize(("kept", "autocast", "atol"), [(torch.float32, None, 1e-4), (torch.bfloat16, torch.bfloat16, 0.5)])
def test_steps_by_graphs_equal_the_whole_record(
    device: torch.device, kept: torch.dtype, autocast: torch.dtype | None, atol: float
) -> None:
    net, x = network(), samples(3, 20)
    expected = whole(net, x)
    stream = StreamingEcgNat(net.to(device), 3, kept=kept)
    graphs = graphed_step(stream.network, stream.state, (1, 2, 4), (12, TOKEN), autocast=autocast, graphs=frozen)
    taken, waiting = [0] * 3, []
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        rows = [row for row in range(3) if torch.rand((), generator=generator) < 0.6 and taken[row] < 20]
        if not rows:
            continue
        part = torch.stack([x[row, :, TOKEN * taken[row] : TOKEN * (taken[row] + 1)] for row in rows])
        waiting.append((rows, [taken[row] for row in rows], graphs.submit(rows=torch.tensor(rows) + 1, samples=part)))
        for row in rows:
            taken[row] += 1
    for rows, at, ticket in waiting:
        rhythm = ticket.result()[0]
        for k, row in enumerate(rows):
            torch.testing.assert_close(rhythm[k, 0], expected.rhythm[row, at[k]], atol=atol, rtol=0)
    net.cpu()


@each_device
def test_a_stream_by_graphs_grows_resets_and_is_handed_over_as_one_without(device: torch.device) -> None:
    net, x = network().to(device), samples(3, 24)
    plain, graphed = StreamingEcgNat(net, 2), StreamingEcgNat(net, 2, graphs=(1, 4))
    everyone, moved = torch.arange(3), StreamingEcgNat(net, 4, graphs=(1,))
    seen = graphed.state[0].data_ptr()
    for stream in (plain, graphed):
        stream.step(torch.tensor([0, 1]), x[:2, :, :TOKEN])
        stream.grow(3)
        stream.step(everyone, x[:, :, TOKEN : 2 * TOKEN])
        stream.reset(torch.tensor([1]))
    assert graphed.state[0].data_ptr() != seen  # what was captured before would write into the old places
    moved.restore(3, graphed.save(0))
    for at in range(2 * TOKEN, x.shape[2], TOKEN):
        part = x[:, :, at : at + TOKEN]
        one, other = plain.step(everyone, part), graphed.step(everyone, part)
        third = moved.step(torch.tensor([3]), part[:1])
        torch.testing.assert_close(other.rhythm.cpu(), one.rhythm.cpu(), atol=1e-5, rtol=0)
        torch.testing.assert_close(third.beat.cpu(), one.beat[:1].cpu(), atol=1e-5, rtol=0)
    assert torch.equal(plain.taken.cpu(), graphed.taken.cpu())
    net.cpu()
