"""The causal network token by token says what it says of the whole record, however beds come and go."""

from __future__ import annotations

from functools import cache

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.model.ecgnat import EcgNat, EcgNatConfig, size
from ecgnat_stream.model.network import NetworkOutput
from ecgnat_stream.model.predict import fold_batch_norm
from ecgnat_stream.model.preprocess import TOKEN, prepare
from ecgnat_stream.model.streaming import StepNetwork, StreamingEcgNat

SMALL = msgspec.structs.replace(size("nano", is_causal=True), embed_dim=8, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8))
CONFIGS = {
    "nano": SMALL,
    "dilations that no step holds": msgspec.structs.replace(SMALL, kernel_size=5, dilations=(16, 3, 4, 2)),
    "even kernel, overlapping stem": msgspec.structs.replace(SMALL, kernel_size=4, stem="overlap"),
}


@cache
def network(name: str = "nano") -> EcgNat:
    torch.manual_seed(3)
    net = EcgNat(CONFIGS[name]).eval()
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return fold_batch_norm(net)  # type: ignore[return-value]


def samples(beds: int, tokens: int, seed: int = 0) -> Tensor:
    """ECG-like noise on a few leads, (B, 12, T) mV; leads are missing, and one bed lacks some seconds."""
    x = 0.4 * torch.randn(beds, 12, TOKEN * tokens, generator=torch.Generator().manual_seed(seed))
    x[:, 4:] = torch.nan
    x[-1, :, 300:520] = torch.nan
    return x


@torch.inference_mode()
def whole(net: EcgNat, x: Tensor) -> NetworkOutput:
    return net(prepare(x, "fixed"))


def streamed(stream: StreamingEcgNat, row: int, x: Tensor, tokens: int = 1) -> NetworkOutput:
    """Return what a stream says of (12, T) on one bed alone, in steps of so many tokens; statements of its end."""
    step = TOKEN * tokens
    parts = [stream.step(torch.tensor([row]), x[None, :, at : at + step]) for at in range(0, x.shape[1], step)]
    rhythm, beat = torch.cat([part.rhythm for part in parts], 1), torch.cat([part.beat for part in parts], 1)
    return NetworkOutput(rhythm, beat, parts[-1].window, parts[-1].screen)


@pytest.mark.parametrize("tokens", [1, 2, 3, 8])
@pytest.mark.parametrize("name", CONFIGS)
def test_steps_of_any_length_equal_the_whole_record(name: str, tokens: int) -> None:
    net, x = network(name), samples(2, 72)
    stream, expected = StreamingEcgNat(net, 2), whole(net, x)
    for row in range(2):
        said = streamed(stream, row, x[row], tokens)
        torch.testing.assert_close(said.rhythm[0], expected.rhythm[row], atol=1e-4, rtol=0)
        torch.testing.assert_close(said.beat[0], expected.beat[row], atol=1e-4, rtol=0)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sets(st.integers(0, 3), min_size=1), min_size=1, max_size=60))
def test_beds_at_any_phase_equal_the_whole_record(calls: list[set[int]]) -> None:
    net = network()
    stream, taken = StreamingEcgNat(net, 4), [0] * 4
    x = samples(4, 60)
    expected = whole(net, x)
    for rows in map(sorted, calls):
        part = torch.stack([x[row, :, TOKEN * taken[row] : TOKEN * (taken[row] + 1)] for row in rows])
        said = stream.step(torch.tensor(rows), part)
        for k, row in enumerate(rows):
            torch.testing.assert_close(said.rhythm[k, 0], expected.rhythm[row, taken[row]], atol=1e-4, rtol=0)
            taken[row] += 1


def test_statements_are_those_of_the_last_tokens() -> None:
    net, x = network(), samples(1, 50)
    stream = StreamingEcgNat(net, 1, statements=True)
    early = streamed(stream, 0, x[0, :, : 10 * TOKEN])
    expected = whole(net, x[:, :, : 10 * TOKEN])
    torch.testing.assert_close(early.window, expected.window, atol=1e-4, rtol=0)
    late = streamed(stream, 0, x[0, :, 10 * TOKEN :])
    with torch.inference_mode():
        last = net.encode(prepare(x, "fixed"))[-1][:, -32:]
        torch.testing.assert_close(late.window, net.window_head(last), atol=1e-4, rtol=0)
        torch.testing.assert_close(late.screen, net.screen_head(last), atol=1e-4, rtol=0)


def test_a_bed_that_begins_anew_has_no_past() -> None:
    net, x = network(), samples(2, 30)
    stream = StreamingEcgNat(net, 2, statements=True)
    expected = streamed(stream, 1, x[1])
    streamed(stream, 0, x[0])
    stream.reset(torch.tensor([0]))
    again = streamed(stream, 0, x[1])
    assert torch.equal(again.rhythm, expected.rhythm)
    assert torch.equal(again.window, expected.window)


def test_a_bed_goes_on_in_another_process_where_it_stood() -> None:
    net, x = network(), samples(1, 40)
    expected = whole(net, x)
    first, second = StreamingEcgNat(net, 3), StreamingEcgNat(net, 5)
    streamed(first, 2, x[0, :, : 17 * TOKEN])
    second.restore(4, first.save(2))
    said = streamed(second, 4, x[0, :, 17 * TOKEN :])
    torch.testing.assert_close(said.rhythm[0], expected.rhythm[0, 17:], atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="another shape"):
        StreamingEcgNat(net, 1, statements=True).restore(0, first.save(2))


def test_a_wild_bed_changes_no_other() -> None:
    net, x = network(), samples(3, 24)
    tame, wild = (StreamingEcgNat(net, 3, statements=True) for _ in range(2))
    everyone = torch.arange(3)
    for at in range(0, x.shape[2], TOKEN):
        part = x[:, :, at : at + TOKEN]
        spoiled = part.clone()
        spoiled[1] = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30])[torch.randint(0, 4, part[1].shape)]
        one, other = tame.step(everyone, part), wild.step(everyone, spoiled)
        for row in (0, 2):
            assert torch.equal(one.rhythm[row], other.rhythm[row])
            assert torch.equal(one.screen[row], other.screen[row])


def test_a_network_that_looks_ahead_and_samples_of_another_length_are_refused() -> None:
    with pytest.raises(ConfigError, match="looks ahead"):
        StreamingEcgNat(EcgNat(EcgNatConfig()), 1)
    stream = StreamingEcgNat(network(), 2)
    with pytest.raises(ValueError, match=r"want samples \(1, 12, n \* 32\), got \(1, 12, 100\)"):
        stream.step(torch.tensor([0]), torch.zeros(1, 12, 100))


def test_a_step_can_be_traced_and_compiled_as_one_graph() -> None:
    net, x = network(), samples(3, 6)
    run = torch.compile(StepNetwork(net), backend="eager", fullgraph=True, dynamic=False)
    stream, expected = StreamingEcgNat(StepNetwork(net), 3, run=run), whole(net, x)
    for at in range(6):
        said = stream.step(torch.tensor([2, 0, 1]), x[[2, 0, 1], :, TOKEN * at : TOKEN * (at + 1)], size=4)
        torch.testing.assert_close(said.rhythm[:, 0], expected.rhythm[[2, 0, 1], at], atol=1e-4, rtol=0)


def test_there_is_room_for_more_beds() -> None:
    net, x = network(), samples(1, 20)
    stream = StreamingEcgNat(net, 1)
    first = streamed(stream, 0, x[0, :, : 8 * TOKEN])
    stream.grow(4)
    said = torch.cat([first.rhythm, streamed(stream, 0, x[0, :, 8 * TOKEN :]).rhythm], 1)
    torch.testing.assert_close(said, whole(net, x).rhythm, atol=1e-4, rtol=0)
    torch.testing.assert_close(streamed(stream, 3, x[0]).rhythm, whole(net, x).rhythm, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="beds from 0 to 3"):
        stream.step(torch.tensor([4]), x[:, :, :TOKEN])
