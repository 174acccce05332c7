"""Whatever the bytes: a frame or a FrameError. Whatever the blocks: the same frames."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ecgnat_stream import wire
from ecgnat_stream.errors import FrameError
from ecgnat_stream.events import Wave
from ecgnat_stream.signal import SampleBlock


def _with_baselines(frame: wire.WaveFrame, baselines: list[int]) -> wire.WaveFrame:
    return replace(frame, baseline=tuple(baselines[: len(frame.codes)]))


plain = st.builds(
    wire.WaveFrame,
    sequence=st.integers(0, 2**32 - 1),
    start=st.integers(0, 2**64 - 1),
    t0_ns=st.integers(0, 2**64 - 1),
    fs_mhz=st.integers(1, 2**32 - 1),
    uv_per_lsb=st.floats(2**-10, 1e6, width=32),
    codes=arrays.arrays(np.int16, st.tuples(st.integers(1, 12), st.integers(1, 60))),
    loss=st.booleans(),
)
frames = plain | st.builds(_with_baselines, plain, st.lists(st.integers(-(2**31), 2**31 - 1), min_size=12, max_size=12))


@given(frames)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_frame_round_trips_exactly(frame: wire.WaveFrame) -> None:
    data = frame.encode()
    decoded = wire.WaveFrame.decode(data)
    assert decoded.encode() == data
    np.testing.assert_array_equal(decoded.codes, frame.codes)
    assert (decoded.sequence, decoded.start, decoded.t0_ns) == (frame.sequence, frame.start, frame.t0_ns)
    assert decoded.baseline == frame.baseline


@given(st.binary(max_size=100) | st.binary(max_size=80).map(lambda tail: b"ECGW\x01" + tail))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_are_a_frame_or_a_frame_error(data: bytes) -> None:
    try:
        frame = wire.WaveFrame.decode(data)
    except FrameError as error:
        assert str(error)
    else:
        assert frame.encode() == data


@given(frames, st.integers(0, 200), st.binary(min_size=1, max_size=4))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_frame_never_raises_anything_else(frame: wire.WaveFrame, at: int, damage: bytes) -> None:
    data = bytearray(frame.encode())
    data[at : at + len(damage)] = damage
    try:
        wire.WaveFrame.decode(bytes(data))
    except FrameError as error:
        assert str(error)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_are_an_event_or_a_frame_error(data: bytes) -> None:
    try:
        event = wire.decode_json(data)
    except FrameError as error:
        assert str(error)
    else:
        assert wire.decode_json(wire.encode_json(event)) == event


@given(
    arrays.arrays(np.float32, (2, 20), elements=st.floats(-5000, 5000, width=32) | st.just(np.nan)),
    st.floats(1e-3, 10),
    st.sampled_from([0, 75, -42, 300, -300]),
)
@settings(max_examples=200, deadline=None)
def test_a_frame_gives_back_its_samples_within_half_a_step(samples: np.ndarray, uv_per_lsb: float, offset: int) -> None:
    samples = np.clip(samples + np.float32(offset), -5000, 5000)
    cutter = wire.WaveCutter(100.0, ("I", "II"), uv_per_lsb)
    wave = Wave("home/a/1", datetime(2026, 1, 1, tzinfo=UTC), 100.0, ("I", "II"), uv_per_lsb, SampleBlock(0, samples, 0))
    for frame in cutter.cut(wave, 10**15):
        again = wire.WaveFrame.decode(frame.encode())
        np.testing.assert_array_equal(np.isnan(again.samples), np.isnan(samples))
        error = np.abs(again.samples.astype(np.float64) - samples)
        assert np.all((error <= again.uv_per_lsb / 2000 + np.spacing(np.abs(samples))) | np.isnan(samples))


@given(st.lists(st.integers(1, 90), min_size=1, max_size=12), st.integers(0, 500))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_frames_do_not_depend_on_the_blocks(lengths: list[int], first: int) -> None:
    total = sum(lengths)
    samples = np.random.default_rng(1).normal(size=(2, total)).astype(np.float32)

    def cut(sizes: list[int]) -> list[tuple[int, int, bytes]]:
        cutter, found, start = wire.WaveCutter(130.0, ("I", "II"), 2.5), [], 0
        for size in sizes:
            block = SampleBlock(first + start, samples[:, start : start + size], 0)
            wave = Wave("home/a/1", datetime(2026, 1, 1, tzinfo=UTC), 130.0, ("I", "II"), 2.5, block)
            found += cutter.cut(wave, 10**15)
            start += size
        return [(f.sequence, f.start, f.codes.tobytes()) for f in found + cutter.flush()]

    assert cut(lengths) == cut([total]) == cut([1] * total)
