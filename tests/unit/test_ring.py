import numpy as np
import pytest

from ecgnat_stream.ring import RingBuffer


def ramp(start: int, length: int) -> np.ndarray:
    return np.tile(np.arange(start, start + length, dtype=np.float32), (12, 1))


def read(ring: RingBuffer, start: int, length: int) -> np.ndarray:
    return ring.read(np.array([0]), np.array([start]), length)[0, 0]


def test_what_is_written_is_read():
    ring = RingBuffer(1, 10)
    for start in range(0, 21, 7):
        ring.append(0, start, ramp(start, 7))
        np.testing.assert_array_equal(read(ring, start, 7), np.arange(start, start + 7))
    assert (ring.next[0], ring.oldest[0], ring.gaps(0), ring.overwritten[0]) == (21, 11, [], 0)


def test_unread_samples_that_leave_are_counted_and_missing():
    ring = RingBuffer(1, 10)
    ring.append(0, 0, ramp(0, 8))
    ring.append(0, 8, ramp(8, 8))
    assert ring.overwritten[0] == 6
    got = read(ring, 4, 4)
    assert np.isnan(got[:2]).all()
    np.testing.assert_array_equal(got[2:], [6, 7])


def test_a_block_longer_than_the_ring_leaves_its_end():
    ring = RingBuffer(1, 10)
    ring.append(0, 0, ramp(0, 25))
    np.testing.assert_array_equal(read(ring, 15, 10), np.arange(15, 25))
    assert ring.overwritten[0] == 15


def test_a_jump_is_a_gap_and_stays_one():
    ring = RingBuffer(1, 20)
    ring.append(0, 0, ramp(0, 5))
    ring.append(0, 9, ramp(9, 5))
    got = read(ring, 0, 14)
    assert np.isnan(got[5:9]).all()
    assert not np.isnan(np.r_[got[:5], got[9:]]).any()
    assert ring.gaps(0) == [(5, 9)]


def test_before_the_stream_and_after_it_is_nothing():
    ring = RingBuffer(1, 20)
    ring.append(0, 0, ramp(0, 5))
    got = read(ring, -3, 12)
    assert np.isnan(got[:3]).all()
    assert np.isnan(got[8:]).all()


def test_clear_begins_anew_where_it_is_told():
    ring = RingBuffer(1, 20)
    ring.append(0, 0, ramp(0, 5))
    ring.clear(0, 100)
    ring.append(0, 100, ramp(100, 3))
    assert np.isnan(read(ring, 95, 5)).all()
    np.testing.assert_array_equal(read(ring, 100, 3), [100, 101, 102])
    assert ring.gaps(0) == []


def test_repeated_samples_are_refused_with_the_values():
    ring = RingBuffer(1, 20)
    ring.append(0, 0, ramp(0, 5))
    with pytest.raises(ValueError, match=r"starts at 3.*reaches 5"):
        ring.append(0, 3, ramp(3, 5))


def test_more_than_it_holds_cannot_be_read():
    with pytest.raises(ValueError, match="length=30"):
        RingBuffer(1, 20).read(np.array([0]), np.array([0]), 30)


def test_leads_that_a_row_does_not_deliver_are_missing_also_after_a_stream_that_had_them() -> None:
    ring = RingBuffer(1, 8, n_leads=3)
    ring.append(0, 0, np.ones((3, 8), np.float32))
    for leads in ([1], [0, 1], [2, 0], [0, 2]):
        ring.clear(0, 0, np.array(leads))
        given = np.arange(8 * len(leads), dtype=np.float32).reshape(len(leads), 8)
        ring.append(0, 0, given[:, :3])
        ring.append(0, 3, given[:, 3:])
        ring.grow(len(ring.next) + 1)
        out = ring.read(np.array([0]), np.array([0]), 8)[0]
        np.testing.assert_array_equal(out[leads], given)
        assert np.isnan(np.delete(out, leads, axis=0)).all()


def test_what_is_overwritten_unread_is_returned() -> None:
    ring = RingBuffer(1, 8, n_leads=1)
    assert ring.append(0, 0, np.ones((1, 8), np.float32)) == 0
    ring.read(np.array([0]), np.array([0]), 3)
    assert ring.append(0, 8, np.ones((1, 5), np.float32)) == 2
