"""Heartbeats are encoded once, and what is said of them is what the network itself says of the same tokens."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ecgnat_stream.model.beat_streaming import StreamingBeats
from ecgnat_stream.model.network import BeatNetwork, NetworkOutput
from ecgnat_stream.model.networks import build, configured
from ecgnat_stream.model.predict import fold_batch_norm
from ecgnat_stream.model.preprocess import window_scale
from ecgnat_stream.model.tokens import R_AT, TOKEN_SAMPLES, BeatTokens, beat_tokens, cut_waves, token_bounds

NETWORKS = ("beatnet", "clear")
DELAY = 32


@cache
def network(arch: str) -> BeatNetwork:
    torch.manual_seed(3)
    net = build(configured(arch, "nano")).eval()
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    folded = fold_batch_norm(net)
    assert isinstance(folded, BeatNetwork)
    return folded


class Record(NamedTuple):
    """Leads (12, T) mV, and R peaks with the sample at which each becomes known."""

    samples: Tensor
    peaks: np.ndarray
    told: np.ndarray


def record(seed: int, seconds: int = 24) -> Record:
    """Heartbeats at random intervals with pauses, ectopic beats, missing leads and a stretch without any."""
    rng = np.random.default_rng(seed)
    length, peaks, at = 100 * seconds, [], 20.0
    while at < length:
        peaks.append(at)
        at += rng.choice([rng.uniform(35, 120), rng.uniform(25, 40), rng.uniform(200, 420)], p=[0.85, 0.1, 0.05])
    time = np.arange(length)
    x = 0.05 * rng.standard_normal((12, length))
    for peak in peaks:
        x += rng.uniform(0.4, 1.4, (12, 1)) * np.exp(-0.5 * ((time - peak) / rng.uniform(2, 5)) ** 2)
    x[rng.integers(2, 8) :] = np.nan
    gap = int(rng.integers(500, length - 200))
    x[:, gap : gap + int(rng.integers(10, 180))] = np.nan
    at = np.array(peaks)
    return Record(torch.from_numpy(x).float(), at, np.ceil(at).astype(int) + rng.integers(0, DELAY, len(at)))


def told_between(heart: Record, begin: int, stop: int) -> Tensor:
    told = np.maximum.accumulate(heart.told)
    return torch.from_numpy(heart.peaks[(told >= begin) & (told < stop)])[None]


def play(stream: StreamingBeats, row: int, heart: Record, cuts: list[int], begin: int = 0) -> NetworkOutput | None:
    """Give a bed its record in pieces; return what is said at the end."""
    said = None
    for start, stop in zip([begin, *cuts], cuts, strict=False):
        said = stream.step(torch.tensor([row]), heart.samples[None, :, start:stop], told_between(heart, start, stop))
    return said


def expected(net: BeatNetwork, heart: Record, stop: int, window: int = 1000) -> NetworkOutput:
    """The definition, token by token in plain Python, and the network's own forward."""
    behind, last, tokens = 0, None, []
    known = [p for p, t in zip(heart.peaks, np.maximum.accumulate(heart.told), strict=True) if t < stop]
    silent = ~torch.isfinite(heart.samples).any(dim=0).numpy()
    for k, peak in enumerate(known):
        first = int(np.round(peak)) - R_AT
        while first - behind >= TOKEN_SAMPLES:
            tokens.append((behind + TOKEN_SAMPLES / 2, behind, behind + TOKEN_SAMPLES, None, True))
            behind += TOKEN_SAMPLES
        following = known[k + 1] if k + 1 < len(known) else None
        if following is None and stop - DELAY < peak + TOKEN_SAMPLES:
            break
        before_is_beat = bool(tokens) and not tokens[-1][4]
        begin = max(first, int(np.ceil((last + peak) / 2)) if before_is_beat else 0)  # type: ignore[operator]
        end = min(first + TOKEN_SAMPLES, int(np.ceil((peak + following) / 2)) if following is not None else 10**9)
        joined = last is not None and silent[int(last) : int(peak)].sum() < 30
        tokens.append((peak, begin, end, last if joined else None, False))
        behind, last = first + TOKEN_SAMPLES, peak
    else:
        while stop - DELAY - R_AT - behind >= TOKEN_SAMPLES:
            tokens.append((behind + TOKEN_SAMPLES / 2, behind, behind + TOKEN_SAMPLES, None, True))
            behind += TOKEN_SAMPLES
    return net(as_tokens(heart.samples, [token for token in tokens if token[0] >= stop - window], stop, window))


def as_tokens(samples: Tensor, tokens: list, stop: int, window: int) -> BeatTokens:
    origin = stop - window
    cuts, insides, scales = [], [], []
    padded = torch.nn.functional.pad(samples, (200, 200), value=torch.nan)
    for at, begin, end, _, _ in tokens:
        first = int(np.round(at)) - R_AT
        cuts.append(padded[:, 200 + first : 200 + first + TOKEN_SAMPLES])
        sample = torch.arange(first, first + TOKEN_SAMPLES)
        insides.append((sample >= begin) & (sample < end))
        block = max(int(end), 300) // 100 * 100
        seen = samples[None, :, max(block - 1000, 0) : block]
        scales.append(window_scale(seen.nan_to_num(), torch.isfinite(seen)))
    waves, valid, lead, amplitude = cut_waves(torch.stack(cuts)[None], torch.stack(insides)[None], torch.cat(scales)[None])
    at = torch.tensor([[token[0] - origin for token in tokens]])
    fixed = torch.tensor([[token[4] for token in tokens]])
    rr = torch.zeros(1, len(tokens), 4)
    rr[..., 2] = 1
    previous = None
    for k, (peak, _, _, before, tile) in enumerate(tokens):
        if tile:
            continue
        if before is not None and before >= origin:
            rr[0, k, 0], rr[0, k, 3] = min((peak - before) / 100, 3.0), 1
            if previous is not None:
                rr[0, previous, 1] = rr[0, k, 0]
        previous = k
    known = rr[0, :, 3] > 0
    if known.any():
        rr[0, known, 2] = rr[0, known, 0] / rr[0, known, 0].mean()
    beat = torch.ones(1, len(tokens), dtype=torch.bool)
    bounds = token_bounds(at.float(), beat, fixed, window)
    return BeatTokens(waves, valid, lead, amplitude, beat, (at / 100).float(), rr, bounds, fixed, window)


def assert_same(said: NetworkOutput | None, wanted: NetworkOutput, row: int = 0) -> None:
    assert said is not None
    for mine, theirs in zip(said, wanted, strict=True):
        torch.testing.assert_close(mine[row], theirs[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("arch", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_what_is_said_is_the_networks_own_word_of_the_same_tokens(arch: str, seed: int) -> None:
    heart = record(seed)
    stream = StreamingBeats(network(arch), 1, delay=DELAY)
    with torch.inference_mode():
        for begin, stop in zip(range(0, 2400, 160), range(160, 2401, 160), strict=True):
            said = play(stream, 0, heart, [stop], begin)
            if stop >= 400:
                assert_same(said, expected(network(arch), heart, stop))
    assert not stream.stream.late.any()


@pytest.mark.parametrize("arch", NETWORKS)
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 50), st.lists(st.integers(1, 400), min_size=1, max_size=40))
def test_how_the_record_is_cut_does_not_matter(arch: str, seed: int, lengths: list[int]) -> None:
    heart = record(seed)
    cuts = sorted({min(int(cut), 2399) for cut in np.cumsum(lengths)} | {2400})
    stream, whole = StreamingBeats(network(arch), 1, delay=DELAY), StreamingBeats(network(arch), 1, delay=DELAY)
    assert_same(play(stream, 0, heart, cuts), play(whole, 0, heart, list(range(32, 2401, 32))))  # type: ignore[arg-type]
    assert torch.equal(stream.count, whole.count)


@pytest.mark.parametrize("arch", NETWORKS)
def test_a_slow_steady_heart_is_read_as_its_window_is(arch: str) -> None:
    """Where no window's edge cuts a beat and the amplitude stays, streams and windows have the same tokens."""
    time = torch.arange(2100)
    x = torch.exp(-0.5 * (((time - 50) % 100 - 50).abs() / 3 - 50 / 3) ** 2) * torch.linspace(0.5, 1.5, 12)[:, None]
    peaks = torch.arange(100, 2100, 100, dtype=torch.float64) + 0.0
    net = network(arch)
    stream = StreamingBeats(net, 1, delay=DELAY)
    for at in range(0, 1950, 50):
        now = peaks[(peaks >= at) & (peaks < at + 50)][None]
        said = stream.step(torch.tensor([0]), x[None, :, at : at + 50], now)
    window, beats = x[None, :, 950:1950], (peaks[(peaks >= 950) & (peaks < 1950)] - 950)[None]
    own, tokens = stream.remembered(torch.tensor([0]))
    plain = beat_tokens(window, beats.float())
    kept = tokens.beat.shape[1]
    assert kept == plain.beat.shape[1] - 1  # the newest beat is not complete
    with torch.inference_mode():
        for mine, theirs in zip(own, net.encode_tokens(plain), strict=True):
            torch.testing.assert_close(mine[:, 1:], theirs[:, 1:kept], atol=1e-4, rtol=0)
        torch.testing.assert_close(said.rhythm, net.read(net.relate(own, tokens)).rhythm, atol=1e-6, rtol=0)
    torch.testing.assert_close(tokens.at, plain.at[:, :kept], atol=1e-4, rtol=0)
    torch.testing.assert_close(tokens.rr[:, :-1], plain.rr[:, : kept - 1], atol=1e-5, rtol=0)
    assert torch.equal(tokens.bounds[:, :-1], plain.bounds[:, : kept - 1])


def test_beds_come_and_go_at_any_phase() -> None:
    net, hearts = network("beatnet"), [record(seed) for seed in range(3)]
    together, done = StreamingBeats(net, 3, delay=DELAY), [0, 0, 0]
    rng = np.random.default_rng(0)
    while min(done) < 2000:
        rows = [row for row in range(3) if rng.random() < 0.6 and done[row] < 2300]
        if not rows:
            continue
        length = int(rng.integers(1, 101))
        parts = torch.stack([hearts[row].samples[:, done[row] : done[row] + length] for row in rows])
        now = [told_between(hearts[row], done[row], done[row] + length)[0] for row in rows]
        peaks = torch.nn.utils.rnn.pad_sequence(now, batch_first=True, padding_value=torch.nan)
        said = together.step(torch.tensor(rows), parts, peaks)
        for k, row in enumerate(rows):
            done[row] += length
            if done[row] >= 400:
                with torch.inference_mode():
                    assert_same(NetworkOutput(*(part[k : k + 1] for part in said)), expected(net, hearts[row], done[row]))


def test_a_bed_that_begins_anew_has_no_past_and_leaves_the_others_alone() -> None:
    net, heart = network("clear"), record(1)
    stream, fresh = StreamingBeats(net, 2, delay=DELAY), StreamingBeats(net, 2, delay=DELAY)
    play(stream, 0, record(2), [900])
    play(stream, 1, heart, [700])
    stream.reset(torch.tensor([0]))
    again, first = play(stream, 0, heart, [400, 900]), play(fresh, 0, heart, [400, 900])
    assert_same(again, first)  # type: ignore[arg-type]
    with torch.inference_mode():
        assert_same(stream.read(torch.tensor([1])), expected(net, heart, 700))


def test_a_bed_goes_on_in_another_process_where_it_stood() -> None:
    net, heart = network("beatnet"), record(4)
    first, second = StreamingBeats(net, 3, delay=DELAY), StreamingBeats(net, 5, delay=DELAY)
    play(first, 2, heart, [333, 1111])
    second.restore(4, first.save(2))
    with torch.inference_mode():
        assert_same(play(second, 4, heart, [1300, 1777], 1111), expected(net, heart, 1777))
    with pytest.raises(ValueError, match="another network"):
        StreamingBeats(network("clear"), 1).restore(0, first.save(2))


def test_a_wild_bed_changes_no_other() -> None:
    net, heart = network("beatnet"), record(5)
    tame, wild = StreamingBeats(net, 2, delay=DELAY), StreamingBeats(net, 2, delay=DELAY)
    rng = np.random.default_rng(1)
    for at in range(0, 2000, 50):
        part = heart.samples[None, :, at : at + 50].repeat(2, 1, 1)
        now = told_between(heart, at, at + 50).repeat(2, 1)
        spoiled, odd = part.clone(), now.clone()
        spoiled[1] = torch.from_numpy(rng.choice([np.nan, np.inf, -np.inf, 1e30], (12, 50))).float()
        odd[1] = torch.from_numpy(rng.choice([np.nan, 3.0, at + 40.0, at - 500.0], odd.shape[1]))
        one, other = tame.step(torch.arange(2), part, now), wild.step(torch.arange(2), spoiled, odd)
        torch.testing.assert_close(one.rhythm[0], other.rhythm[0], atol=1e-5, rtol=0)
        assert torch.isfinite(other.rhythm).all()


def test_a_beat_found_late_takes_the_place_of_tiles() -> None:
    x = 0.1 * torch.randn(1, 12, 900, generator=torch.Generator().manual_seed(0))
    stream = StreamingBeats(network("beatnet"), 1, delay=DELAY)
    row = torch.tensor([0])
    stream.take(row, x[:, :, :600], torch.tensor([[100.0, 200.0]], dtype=torch.float64))
    assert stream.remembered(row)[1].fixed.tolist() == [[False, False, True, True]]
    stream.take(row, x[:, :, 600:620], torch.tensor([[400.0]], dtype=torch.float64))
    tokens = stream.remembered(row)[1]
    assert tokens.fixed.tolist() == [[False, False, True, False]]
    assert tokens.at[0].tolist() == pytest.approx([at / 100 + 3.8 for at in (100, 200, 296, 400)])
    stream.take(row, x[:, :, 620:640], torch.tensor([[350.0]], dtype=torch.float64))
    assert stream.stream.late.tolist() == [1]


def test_beats_beyond_the_ring_are_forgotten_oldest_first() -> None:
    x = 0.1 * torch.randn(1, 12, 1000, generator=torch.Generator().manual_seed(0))
    stream = StreamingBeats(network("beatnet"), 1, capacity=8)
    stream.take(torch.tensor([0]), x, torch.arange(20, 1000, 40, dtype=torch.float64)[None])
    tokens = stream.remembered(torch.tensor([0]))[1]
    assert tokens.beat.sum() == 8
    assert tokens.at.max() > 9


def test_other_shapes_are_refused() -> None:
    stream = StreamingBeats(network("beatnet"), 2)
    with pytest.raises(ValueError, match=r"want samples \(1, 12, T\), got \(1, 3, 50\)"):
        stream.take(torch.tensor([0]), torch.zeros(1, 3, 50), torch.zeros(1, 0))
    with pytest.raises(ValueError, match=r"want peaks \(1, K\), got \(2, 1\)"):
        stream.take(torch.tensor([0]), torch.zeros(1, 12, 50), torch.zeros(2, 1))
