"""Any cutting of a stream into blocks gives the same conditioned frames, gaps included."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgnat_stream.condition import Conditioner
from ecgnat_stream.ring import RingBuffer
from ecgnat_stream.signal import FRAME

SECONDS = 3


def run(x: np.ndarray, fs: float, cuts: list[int], lost: tuple[int, int]) -> np.ndarray:
    """Feed ``x`` without the samples in ``lost`` in blocks that end at ``cuts``; return the frames that come out."""
    ring, conditioner = RingBuffer(1, int(2 * SECONDS * fs)), Conditioner(fs, 1)
    rows, frame, out = np.array([0]), np.array([0]), []
    edges = sorted({0, x.shape[1], *lost, *(cut for cut in cuts if cut < x.shape[1])})
    for start, stop in pairwise(edges):
        if not lost[0] <= start < lost[1]:
            ring.append(0, start, x[:, start:stop])
        while True:
            first, n = conditioner.needed(frame)
            if ring.next[0] < first[0] + n:
                break
            out.append(conditioner.process(rows, frame, ring.read(rows, first, n))[0])
            frame += 1
    return np.concatenate(out, axis=1)


@settings(max_examples=25, deadline=None)
@given(
    fs=st.sampled_from([100.0, 128.0, 250.0, 257.3, 500.0]),
    cuts=st.lists(st.integers(1, 1499), max_size=40),
    gap=st.tuples(st.integers(0, 250), st.integers(0, 60)),
)
def test_blocks_do_not_matter(fs, cuts, gap):
    x = np.random.default_rng(1).normal(size=(12, int(SECONDS * fs))).astype(np.float32)
    x[2] = np.nan
    lost = (gap[0], gap[0] + gap[1])
    whole, cut = run(x, fs, [], lost), run(x, fs, cuts, lost)
    assert whole.shape[1] >= FRAME
    np.testing.assert_array_equal(whole, cut)


@pytest.mark.parametrize("block", [1, 7, 50, 1000])
def test_equal_blocks_do_not_matter(block):
    x = np.random.default_rng(2).normal(size=(12, 750)).astype(np.float32)
    np.testing.assert_array_equal(run(x, 250.0, [], (300, 320)), run(x, 250.0, list(range(block, 750, block)), (300, 320)))


@settings(max_examples=40, deadline=None)
@given(data=st.data(), capacity=st.integers(1, 30))
def test_the_ring_equals_a_dictionary(data, capacity):
    ring, truth, at = RingBuffer(1, capacity, n_leads=1), {}, 0
    for _ in range(data.draw(st.integers(1, 12))):
        at += data.draw(st.integers(0, 8))
        length = data.draw(st.integers(1, 40))
        truth |= {i: float(i) for i in range(at, at + length)}
        ring.append(0, at, np.arange(at, at + length, dtype=np.float32)[None])
        at += length
        start, count = data.draw(st.integers(-5, at + 5)), data.draw(st.integers(1, capacity))
        got = ring.read(np.array([0]), np.array([start]), count)[0, 0]
        expected = [truth.get(i, np.nan) if i >= at - capacity else np.nan for i in range(start, start + count)]
        np.testing.assert_array_equal(got, np.array(expected, np.float32))
