"""Tokens of a stream: any blocks give the same, and they are those of a window."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgnat_stream.model.preprocess import window_scale
from ecgnat_stream.model.token_stream import StreamToken, TokenStream
from ecgnat_stream.model.tokens import beat_tokens

LENGTH = 3000
SIGNAL = np.random.default_rng(4).normal(size=(12, LENGTH)).astype(np.float32)
SIGNAL[3] = np.nan

peaks_of = st.lists(st.integers(8, 900), min_size=1, max_size=60).map(lambda steps: np.cumsum(steps) / 2)
"""R peaks at half samples, 40 ms to 4.5 s apart."""


def run(
    peaks: np.ndarray, cuts: list[int], lost: tuple[int, int] = (0, 0), delay: int = 25
) -> tuple[TokenStream, list[StreamToken]]:
    """Feed the signal in blocks that end at ``cuts``; every beat becomes known ``delay`` samples late."""
    stream, tokens = TokenStream(2), []
    peaks = peaks[peaks < LENGTH - delay]
    told = 0
    edges = sorted({0, LENGTH, *lost, *cuts})
    for start, stop in pairwise(edges):
        if lost[0] <= start < lost[1]:
            continue
        known = int(np.searchsorted(peaks, stop - delay))
        tokens += stream.add(1, start, SIGNAL[:, start:stop], peaks[told:known], stop - delay)
        told = known
    return stream, tokens


@settings(max_examples=40, deadline=None)
@given(
    peaks=peaks_of,
    cuts=st.lists(st.integers(1, LENGTH - 1), max_size=40),
    gap=st.tuples(st.integers(1, 2000), st.integers(0, 300)),
)
def test_blocks_do_not_matter(peaks, cuts, gap):
    lost = gap[0], gap[0] + gap[1]
    _, whole = run(peaks, [], lost)
    _, cut = run(peaks, cuts, lost)
    assert len(whole) == len(cut)
    for one, other in zip(whole, cut, strict=True):
        assert (one.row, one.at, one.rr_before_s, one.rr_after_s) == (other.row, other.at, other.rr_before_s, other.rr_after_s)
        np.testing.assert_array_equal(one.wave, other.wave)


@settings(max_examples=40, deadline=None)
@given(peaks=peaks_of, gap=st.tuples(st.integers(1, 2900), st.integers(0, 90)))
def test_the_tokens_of_the_last_10_s_are_those_of_the_window(peaks, gap):
    stream, tokens = run(peaks, list(range(100, LENGTH, 100)), (gap[0], gap[0] + gap[1]))
    x = SIGNAL.copy()
    x[:, gap[0] : gap[0] + gap[1]] = np.nan
    start = LENGTH - 1000
    known = peaks[(peaks >= start) & (peaks < LENGTH - 25)] - start
    window = torch.from_numpy(x[None, :, start:])
    expected = beat_tokens(window, torch.from_numpy(known.astype(np.float32))[None])
    found = stream.window_of(1)
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    scale = window_scale(torch.nan_to_num(window), torch.isfinite(window))
    inner = {token.at - start: token for token in tokens if len(known) and known[0] < token.at - start < known[-1]}
    assert set(inner) == set(known[1:-1].tolist())
    for n in range(1, len(known) - 1):
        token = inner[known[n]]
        wave = (torch.from_numpy(token.wave) / scale[0]).clamp(-20, 20)
        assert torch.equal(torch.isfinite(wave), expected.valid[0, n])
        torch.testing.assert_close(torch.nan_to_num(wave), expected.waves[0, n])
        torch.testing.assert_close(torch.tensor([token.rr_before_s, token.rr_after_s]), expected.rr[0, n, :2], atol=1e-4, rtol=0)


def test_a_token_comes_with_the_next_beat_or_3_s_later() -> None:
    stream = TokenStream(1)
    x = np.zeros((12, 100), np.float32)
    assert stream.add(0, 0, x, np.array([50.0]), 75) == []
    (token,) = stream.add(0, 100, x, np.array([150.0]), 175)
    assert (token.at, token.rr_before_s, token.rr_after_s) == (50, 0.0, 1.0)
    for start in (200, 300, 400):
        assert stream.add(0, start, x, np.zeros(0), start + 49) == []
    (token,) = stream.add(0, 500, x, np.zeros(0), 550)
    assert (token.at, token.rr_before_s, token.rr_after_s) == (150, 1.0, 3.0)


def test_memory_is_bounded_and_a_reset_forgets() -> None:
    stream = TokenStream(1)
    x = np.ones((12, 500), np.float32)
    for k in range(200):
        stream.add(0, 500 * k, x, np.arange(10.0) * 50 + 500 * k, 500 * k + 490)
    assert stream._signal.shape == (1, 12, 1000)
    assert len(stream._beats[0]) <= 22
    stream.reset(0)
    assert stream.window_of(0).fixed.all()
    (token, *_) = stream.add(0, 0, x, np.array([100.0, 200.0]), 400)
    assert (token.at, token.rr_before_s) == (100, 0.0)


def test_what_cannot_be_is_refused() -> None:
    stream = TokenStream(1)
    x = np.zeros((12, 100), np.float32)
    stream.add(0, 0, x, np.array([50.0]), 80)
    with pytest.raises(ValueError, match="up to 100 have come"):
        stream.add(0, 90, x, np.zeros(0), 150)
    for late in (50.0, 70.0):
        with pytest.raises(ValueError, match="beat of row 0"):
            stream.add(0, 100, x, np.array([late]), 150)
    with pytest.raises(ValueError, match="want samples"):
        stream.add(0, 100, x[:3], np.zeros(0), 150)
    with pytest.raises(ValueError, match="length=1001"):
        stream.window_of(0, 1001)
    with pytest.raises(ValueError, match="at least 4 s"):
        TokenStream(1, 3.0)
