"""CLEAR: who sees whom, proven by perturbation, and every defect of the released code as a test of its own."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ecgnat_stream.model.clear import CLEAR_SIZES, Clear, ClearFeatures, ClearLayer, Grid, allowed, listed
from ecgnat_stream.model.tokens import BeatTokens

SMALL: dict[str, Any] = {"embed_dim": 24, "depth": 3, "num_heads": 4}


def network(seed: int = 0, **changes: Any) -> Clear:
    """Return a network in eval mode whose parameters are not at their trivial start."""
    torch.manual_seed(seed)
    net = Clear(msgspec.structs.replace(CLEAR_SIZES["nano"], **(SMALL | changes)))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net.eval()


def ecg(batch: int = 2, seconds: int = 10, rr: int = 80, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return windows of noise on spikes, and the places of the spikes."""
    generator = torch.Generator().manual_seed(seed)
    windows = 0.1 * torch.randn(batch, 12, 100 * seconds, generator=generator)
    beats = torch.arange(50, 100 * seconds - 20, rr).float()
    height = 0.5 + torch.rand(batch, 12, 1, generator=generator)
    windows[:, :, beats.long()] += height
    return windows, beats.expand(batch, -1).clone()


def flat(x: BeatTokens) -> tuple[Tensor, Tensor, Tensor]:
    """Return beat, lead and presence of every token, in the order of the grid."""
    there = x.lead & x.beat[..., None]
    beat, lead = torch.meshgrid(torch.arange(there.shape[1]), torch.arange(12), indexing="ij")
    return beat.flatten().expand(len(there), -1), lead.flatten().expand(len(there), -1), there.flatten(1)


# Who sees whom.


def test_the_mask_is_conduction_and_view_and_oneself() -> None:
    """Three beats of three leads, in any order, with the CLS anywhere: compared with the sentence, pair by pair."""
    kinds = [("cls", 0, lead) for lead in range(3)] + [("token", beat, lead) for beat in range(3) for lead in range(3)]
    order = torch.randperm(len(kinds), generator=torch.Generator().manual_seed(0)).tolist()
    kinds = [kinds[i] for i in order]
    absent = kinds.index(("token", 1, 2))
    there = torch.ones(1, len(kinds), dtype=torch.bool)
    there[0, absent] = False
    beat, lead = torch.tensor([[k[1] for k in kinds]]), torch.tensor([[k[2] for k in kinds]])
    mask = allowed(beat, lead, torch.tensor([[k[0] == "cls" for k in kinds]]), there)[0]
    for row, (kind, b, i) in enumerate(kinds):
        for column, (other, c, j) in enumerate(kinds):
            if kind == other == "token":
                seen = b == c
            elif kind == other:
                seen = False
            else:
                seen = i == j
            assert mask[row, column] == (row == column or (seen and column != absent)), (kinds[row], kinds[column])


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("cls_reads", [False, True])
def test_changing_a_blocked_token_changes_nothing_and_an_allowed_one_does(cls_reads: bool, fast: bool) -> None:
    """One block, every pair of 12 CLS and 3 x 12 tokens, to the last bit."""
    torch.manual_seed(0)
    block = ClearLayer(16, 2, 2.0).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    beats = 3
    there = torch.ones(1, beats, 12, dtype=torch.bool)
    there[0, 1, 4] = there[0, :, 7] = False
    beat, lead = torch.meshgrid(torch.arange(beats), torch.arange(12), indexing="ij")
    definition = listed(beat.reshape(1, -1), lead.reshape(1, -1), there.flatten(1), cls_reads=cls_reads)
    count = 12 + beats * 12
    x = torch.randn(1, count, 16)
    changed = x.expand(count, -1, -1).clone()
    changed[torch.arange(count), torch.arange(count)] += torch.randn(count, 16)  # row c of the batch: token c is another one
    both = torch.cat([x, changed])
    with torch.inference_mode():
        if fast:
            grid = Grid(there.expand(1 + count, -1, -1), cls_reads)
            out = grid.spread(block(grid.pack(both), grid))
            rows = F.pad(there.flatten(), (12, 0), value=True)
            definition = definition & rows[:, None]  # a token that is not there has no output
        else:
            out = block(both, definition.expand(1 + count, -1, -1))
    moved = (out[1:] - out[:1]).abs().amax(dim=2).T  # (S, C): the change of s when c changes
    assert torch.equal(moved > 1e-4, definition[0])
    assert (moved[~definition[0]] == 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_fast_path_is_the_definition(seed: int) -> None:
    net = network(seed)
    windows, beats = ecg(4, seed=seed)
    windows[1, 3] = torch.nan
    windows[2, 1:, 300:700] = torch.nan
    windows[3] = torch.nan
    beats[2, 5:] = torch.nan
    x = net.prepare(windows, beats)
    with torch.inference_mode():
        fast = net.encode(x)
        leads, tokens = net.mix(net.embed(x).flatten(1, 2), *flat(x))
    torch.testing.assert_close(fast.leads, leads, rtol=0, atol=1e-5)
    there = flat(x)[2]
    torch.testing.assert_close(fast.tokens.flatten(1, 2)[there], tokens[there], rtol=0, atol=1e-5)
    assert (fast.tokens.flatten(1, 2)[~there] == 0).all()


def test_the_fast_path_has_the_gradients_of_the_definition() -> None:
    net, (windows, beats) = network(), ecg()
    x = net.prepare(windows, beats)
    fast = net.encode(x)
    fast.leads.square().mean().backward()
    gradient = net.blocks[0].qkv.weight.grad.clone()  # type: ignore[union-attr,operator]
    net.zero_grad()
    net.mix(net.embed(x).flatten(1, 2), *flat(x))[0].square().mean().backward()
    torch.testing.assert_close(net.blocks[0].qkv.weight.grad, gradient, rtol=1e-3, atol=1e-6)  # type: ignore[union-attr]


@pytest.mark.parametrize("attention", ["sparse", "dense"])
def test_the_order_of_the_tokens_does_not_matter(attention: str) -> None:
    net, (windows, beats) = network(attention=attention), ecg()
    x = net.prepare(windows, beats)
    embedded, (beat, lead, there) = net.embed(x).flatten(1, 2), flat(x)
    order = torch.randperm(beat.shape[1], generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        leads, tokens = net.mix(embedded, beat, lead, there)
        other, shuffled = net.mix(embedded[:, order], beat[:, order], lead[:, order], there[:, order])
    torch.testing.assert_close(other, leads, rtol=0, atol=1e-5)
    torch.testing.assert_close(shuffled, tokens[:, order], rtol=0, atol=1e-5)


@pytest.mark.parametrize("attention", ["sparse", "dense"])
def test_a_part_of_the_tokens_is_as_if_the_others_were_not_there(attention: str) -> None:
    net, (windows, beats) = network(attention=attention), ecg()
    x = net.prepare(windows, beats)
    embedded, (beat, lead, _) = net.embed(x).flatten(1, 2), flat(x)
    keep = torch.randperm(beat.shape[1], generator=torch.Generator().manual_seed(4))[:30]
    there = torch.zeros_like(beat, dtype=torch.bool)
    there[:, keep] = True
    with torch.inference_mode():
        leads, tokens = net.mix(embedded, beat, lead, there)
        few, part = net.mix(embedded[:, keep], beat[:, keep], lead[:, keep], there[:, keep])
    torch.testing.assert_close(few, leads, rtol=0, atol=1e-5)
    torch.testing.assert_close(part, tokens[:, keep], rtol=0, atol=1e-5)


def test_another_heartbeat_comes_in_through_a_cls_only() -> None:
    """With one block two beats cannot meet; with two they do, over the CLS of their lead."""
    for depth, meet in ((1, False), (2, True)):
        net, (windows, beats) = network(depth=depth, rr=False), ecg()
        x = net.prepare(windows, beats)
        changed = x._replace(waves=x.waves.clone())
        changed.waves[:, 0] *= -1
        with torch.inference_mode():
            moved = (net.encode(changed).tokens - net.encode(x).tokens).abs().amax(dim=(0, 2, 3))
        assert moved[0] > 1e-3
        assert bool((moved[1:] > 1e-5).all()) is meet
        assert bool((moved[1:] == 0).all()) is not meet


def test_dense_attention_lets_beats_meet_at_once() -> None:
    net, (windows, beats) = network(depth=1, attention="dense"), ecg()
    x = net.prepare(windows, beats)
    changed = x._replace(waves=x.waves.clone())
    changed.waves[:, 0] *= -1
    with torch.inference_mode():
        moved = (net.encode(changed).tokens - net.encode(x).tokens).abs().amax(dim=(0, 2, 3))
    assert (moved > 1e-5).all()


# Padding, missing leads, bad input.


@pytest.mark.parametrize("attention", ["sparse", "dense"])
def test_padding_does_not_matter(attention: str) -> None:
    net, (windows, beats) = network(attention=attention), ecg()
    with torch.inference_mode():
        alone = net(net.prepare(windows, beats))
        many, faster = ecg(1, rr=30, seed=5)
        both = torch.cat([F.pad(beats, (0, faster.shape[1] - beats.shape[1]), value=torch.nan), faster])
        padded = net(net.prepare(torch.cat([windows, many]), both))
    for one, other in zip(alone, padded, strict=True):
        torch.testing.assert_close(other[:2], one, rtol=0, atol=1e-5)


@pytest.mark.parametrize("head", ["linear", "hug", "hug-gelu"])
@pytest.mark.parametrize("attention", ["sparse", "dense"])
def test_what_an_absent_lead_would_hold_does_not_matter(attention: str, head: str) -> None:
    net, (windows, beats) = network(attention=attention, head=head), ecg()
    x = net.prepare(windows, beats)
    there = x.lead.clone()
    there[:, :, 4] = False
    x = x._replace(lead=there)
    changed = x._replace(waves=x.waves.clone(), amplitude=x.amplitude.clone())
    changed.waves[:, :, 4], changed.amplitude[:, :, 4] = 7.0, 3.0
    with torch.inference_mode():
        for before, after in zip(net(x), net(changed), strict=True):
            torch.testing.assert_close(after, before, rtol=0, atol=0)


def bad_inputs() -> dict[str, tuple[Tensor, Tensor]]:
    windows, beats = ecg(1)
    none = torch.full((1, 1), torch.nan)
    one_lead = torch.full_like(windows, torch.nan)
    one_lead[:, 1] = windows[:, 1]
    return {
        "no beats": (windows, none),
        "nothing connected": (torch.full_like(windows, torch.nan), none),
        "beats without a signal": (torch.full_like(windows, torch.nan), beats),
        "one lead": (one_lead, beats),
        "300 bpm": ecg(1, rr=20),
        "noise": (torch.randn(1, 12, 1000) * 50, torch.sort(torch.rand(1, 40) * 999).values),
        "flat": (torch.zeros(1, 12, 1000), beats),
        "a second": (windows[..., :100], beats[:, :1]),
        "infinite": (torch.full_like(windows, torch.inf), beats),
    }


@pytest.mark.parametrize("attention", ["sparse", "dense"])
@pytest.mark.parametrize("name", list(bad_inputs()))
def test_bad_input_gives_finite_logits_and_gradients(name: str, attention: str) -> None:
    windows, beats = bad_inputs()[name]
    net = network(attention=attention)
    out = net(net.prepare(windows, beats))
    tokens = -(-windows.shape[2] // 32)
    assert [tuple(logits.shape) for logits in out] == [(1, tokens, 8), (1, 4 * tokens, 7), (1, 5), (1, 4)]
    assert all(torch.isfinite(logits).all() for logits in out)
    sum(logits.sum() for logits in out).backward()  # type: ignore[union-attr]
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_it_asks_for_beats() -> None:
    net = network()
    assert net.needs_beats
    with pytest.raises(ValueError, match="give the R peaks"):
        net.prepare(ecg()[0])


# The defects of the released code, one by one.


def test_defect_the_mask_blocks() -> None:
    """Released: a float mask of 0 and 1 is added to the logits. Here a blocked key of any size has no weight at all."""
    block = ClearLayer(16, 2, 2.0).eval()
    x = torch.randn(1, 24, 16)
    loud = x.clone()
    loud[:, 5] *= 1e4
    mask = torch.ones(1, 24, 24, dtype=torch.bool)
    mask[0, :, 5] = False
    mask[0, 5, 5] = True
    rest = torch.arange(24) != 5
    with torch.inference_mode():
        assert torch.equal(block(loud, mask)[:, rest], block(x, mask)[:, rest])


def test_defect_the_columns_of_the_cls_are_counted() -> None:
    """Released: columns are off by the twelve CLS tokens. Here the tokens of a lead move its CLS and no other."""
    net, (windows, beats) = network(depth=1), ecg()
    x = net.prepare(windows, beats)
    for lead in (0, 3, 11):
        changed = x._replace(waves=x.waves.clone())
        changed.waves[:, :, lead] *= -1
        with torch.inference_mode():
            moved = (net.encode(changed).leads - net.encode(x).leads).abs().amax(dim=(0, 2))
        assert torch.nonzero(moved).flatten().tolist() == [lead]


def test_defect_tokens_need_not_be_sorted_by_lead() -> None:
    """Released: the mask assumes tokens sorted by lead, after a shuffle. Here a shuffled list gives every CLS the same."""
    net, (windows, beats) = network(), ecg(1)
    x = net.prepare(windows, beats)
    indices = flat(x)
    order = torch.randperm(indices[0].shape[1], generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        shuffled = net.mix(net.embed(x).flatten(1, 2)[:, order], *(index[:, order] for index in indices))[0]
        torch.testing.assert_close(shuffled, net.encode(x).leads, rtol=0, atol=1e-5)


def test_defect_evaluation_is_deterministic_and_draws_nothing() -> None:
    """Released: fine-tuned networks shuffle tokens at every call."""
    net, (windows, beats) = network(), ecg()
    x = net.prepare(windows, beats)
    state = torch.get_rng_state()
    with torch.inference_mode():
        first, second = net(x), net(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_defect_embedding_a_token_looks_at_no_other() -> None:
    """Released: a circular convolution over tokens mixes neighbours, and the last with the first, before anything is masked."""
    net, (windows, beats) = network(), ecg()
    x = net.prepare(windows, beats)
    changed = x._replace(waves=x.waves.clone())
    changed.waves[0, 3, 5] += 1.0
    with torch.inference_mode():
        moved = (net.embed(changed) - net.embed(x)).abs().amax(dim=-1)
    assert torch.nonzero(moved).tolist() == [[0, 3, 5]]


def test_defect_beats_beyond_fifteen_are_kept() -> None:
    """Released: 15 beats, so that 10 s above 90 bpm lose their end."""
    net, (windows, beats) = network(), ecg(1, rr=40)
    assert beats.shape[1] == 24
    x = net.prepare(windows, beats)
    assert x.beat.sum() == 24
    windows[:, :, int(beats[0, -1]) - 5 : int(beats[0, -1]) + 10] *= -2
    with torch.inference_mode():
        before, after = net(x), net(net.prepare(windows, beats))
    assert (after.window - before.window).abs().max() > 1e-4
    assert (after.rhythm[:, -1] - before.rhythm[:, -1]).abs().max() > 1e-4


def test_defect_voltage_is_kept() -> None:
    """Released: every token is normalised, so that a lead of half the height is the same lead."""
    net, (windows, beats) = network(), ecg()
    with torch.inference_mode():
        whole, half = net(net.prepare(windows, beats)), net(net.prepare(windows * 0.5, beats))
        assert (whole.window - half.window).abs().max() > 1e-2
        one = windows.clone()
        one[:, 6] *= 0.5
        assert (whole.window - net(net.prepare(one, beats)).window).abs().max() > 1e-3


def test_defect_a_window_without_beats_is_read() -> None:
    """Released: what has no QRS cannot be tokenised. Here it is cut into tiles, the tokens say so, and no beat is claimed."""
    net, windows = network(), ecg(1)[0]
    x = net.prepare(windows, torch.full((1, 1), torch.nan))
    assert x.fixed.all()
    with torch.inference_mode():
        out = net(x)
        told = net(x._replace(fixed=~x.fixed))
    assert (out.beat[..., 0] < 0).all()
    assert out.rhythm.std(dim=1).max() > 1e-3
    for name, a, b in zip(out._fields, out, told, strict=True):
        assert (a - b).abs().max() > 1e-3, name


def test_what_follows_the_last_beat_is_read() -> None:
    net, (windows, beats) = network(), ecg(1)
    early = torch.where(beats < 300, beats, torch.nan)
    x = net.prepare(windows, early)
    assert x.fixed.any()
    assert not x.fixed.all()
    windows[..., 600:] = windows[..., 600:].flip(-1)
    with torch.inference_mode():
        before, after = net(x).rhythm[0], net(net.prepare(windows, early)).rhythm[0]
    assert (before[20:] - after[20:]).abs().amax(dim=1).min() > 1e-4


# The rest of the interface.


def test_intervals_count_only_where_they_are_asked_for() -> None:
    windows, beats = ecg()
    for rr in (False, True):
        net = network(rr=rr)
        x = net.prepare(windows, beats)
        with torch.inference_mode():
            same = torch.equal(net(x).window, net(x._replace(rr=x.rr * 1.5)).window)
        assert same is not rr


def test_the_rhythm_of_a_beat_stands_where_the_beat_is() -> None:
    net, (windows, beats) = network(depth=1), ecg(1)
    x = net.prepare(windows, beats)
    features = net.encode(x)
    changed = features.tokens.clone()
    changed[:, 4] += torch.randn(24, generator=torch.Generator().manual_seed(6))
    with torch.inference_mode():
        before = net.read(features)
        after = net.read(ClearFeatures(features.leads, changed, x))
    moved = torch.nonzero((after.rhythm - before.rhythm).abs().amax(dim=(0, 2))).flatten()
    middle = moved * 32 + 16
    begin, end = x.bounds[0, 4].tolist()
    assert len(moved) in (2, 3)
    assert ((middle >= begin) & (middle < end)).all()
    assert (after.beat[..., :2] == before.beat[..., :2]).all()
    cell = int(beats[0, 4]) // 8
    assert (after.beat[0, cell, 2:] != before.beat[0, cell, 2:]).any()


def test_the_pool_is_the_mean_of_the_present_leads() -> None:
    net, (windows, beats) = network(), ecg()
    windows[0, 2:] = torch.nan
    with torch.inference_mode():
        features = net.encode(net.prepare(windows, beats))
        pooled = net.pool(features)
    assert pooled.shape == (2, net.embedding_dim)
    torch.testing.assert_close(pooled[0], features.leads[0, :2].mean(dim=0))
    torch.testing.assert_close(pooled[1], features.leads[1].mean(dim=0))


def test_levels_grow_from_the_heads_to_the_embedding() -> None:
    net = network()
    levels = [
        net.level(name) for name in ("window_head.hug.linear.weight", "norm.weight", "blocks.2.proj.bias", "blocks.0.proj.bias")
    ]
    assert levels == [0, 1, 1, 3]
    assert {net.level(name) for name in ("wave.weight", "cls", "lead", "time.weight", "side.weight")} == {4}


def test_the_papers_size_is_the_papers() -> None:
    """47.7 M in the paper: 47.28 M in the blocks, the same here; the rest is embedding, where ours has no position tables."""
    with torch.device("meta"):
        net = Clear(CLEAR_SIZES["paper"])
    encoder = sum(p.numel() for name, p in net.named_parameters() if net.level(name))
    assert sum(p.numel() for p in net.blocks.parameters()) == 47_281_152
    released = 3 * 96 * 768 + 12 * 768 + 192 * 768 + 2 * 16 * 768 + 2 * 768
    assert (47_281_152 + released) / 1e6 == pytest.approx(47.7, abs=0.05)
    assert encoder / 1e6 == pytest.approx(47.47, abs=0.01)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="must divide"):
        msgspec.structs.replace(CLEAR_SIZES["nano"], num_heads=5)


@pytest.mark.parametrize("head", ["linear", "hug", "hug-gelu"])
def test_it_learns_which_lead_is_high(head: str) -> None:
    """Sixteen windows, four statements about four leads: fitted in a few steps."""
    torch.manual_seed(0)
    net = Clear(msgspec.structs.replace(CLEAR_SIZES["nano"], **(SMALL | {"depth": 1}), head=head, drop_path=0.0))
    windows, beats = ecg(16)
    truth = torch.arange(16) % 4
    windows[torch.arange(16), truth * 3] *= 3.0
    x = net.prepare(windows, beats)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(140):
        loss = F.cross_entropy(net(x).screen, truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1
