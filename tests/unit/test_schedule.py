"""The scheduler: windows at whole hops, skip-if-late for the living, nothing lost of a recording."""

from __future__ import annotations

import numpy as np
import pytest

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.schedule import ScheduleConfig, Scheduler, WindowScheduler
from ecgnat_stream.signal import FRAME, FS, MODEL_FS


def ramp(frame: int, rows: int = 1) -> np.ndarray:
    """Return frames whose value is the conditioned sample index, plus the row times a million."""
    y = np.arange(frame * FRAME, (frame + 1) * FRAME, dtype=np.float32)
    return np.broadcast_to(y, (rows, 12, FRAME)) + 1e6 * np.arange(rows, dtype=np.float32)[:, None, None]


def feed(scheduler: Scheduler, frames: range, rows: int = 1, live: bool = False) -> None:
    index = np.arange(rows)
    for frame in frames:
        times = np.full(rows, (frame + 1) * 200_000_000, np.int64)
        at = np.full(rows, frame, np.int64)
        scheduler.add(index, at, ramp(frame, rows), times, np.full(rows, live), now_ns=int(times[0]) + 5)


def test_windows_stop_at_whole_hops_and_hold_every_second_sample() -> None:
    scheduler = WindowScheduler(1, ScheduleConfig())
    feed(scheduler, range(60))
    windows = scheduler.next_batch()
    assert [w.stop for w in windows] == [MODEL_FS * s for s in range(5, 13)]
    last = windows[-1]
    assert (last.start, last.stop) == (200, 1200)
    np.testing.assert_array_equal(last.samples, np.broadcast_to(np.arange(400, 2400, 2, dtype=np.float32), (12, 1000)))
    assert last.last_sample_ns == 12_000_000_000
    assert last.cut_ns == last.last_sample_ns + 5


def test_what_the_first_windows_lack_is_missing() -> None:
    scheduler = WindowScheduler(1, ScheduleConfig())
    feed(scheduler, range(25))
    (window,) = scheduler.next_batch()
    assert (window.start, window.stop) == (-500, 500)
    assert np.isnan(window.samples[:, :500]).all()
    assert np.isfinite(window.samples[:, 500:]).all()


def test_a_live_bed_skips_late_windows_and_counts_them() -> None:
    scheduler = WindowScheduler(1, ScheduleConfig())
    feed(scheduler, range(50), live=True)
    assert [w.stop for w in scheduler.next_batch()] == [1000]
    assert scheduler.skipped[0] == 5
    assert scheduler.next_batch() == []


def test_a_recording_is_held_back_instead() -> None:
    scheduler = WindowScheduler(1, ScheduleConfig(ahead=3))
    feed(scheduler, range(35))
    assert scheduler.full(0)
    assert scheduler.oldest_waiting(0) == 500
    assert len(scheduler.next_batch()) == 3
    assert not scheduler.full(0)
    assert scheduler.skipped[0] == 0


def test_beds_share_batches_and_keep_their_own_signal() -> None:
    scheduler = WindowScheduler(5, ScheduleConfig(max_batch=3))
    feed(scheduler, range(50), rows=5, live=True)
    first, second = scheduler.next_batch(), scheduler.next_batch()
    assert [w.row for w in first + second] == [0, 1, 2, 3, 4]
    assert len(first) == 3
    for window in first + second:
        assert (window.samples[:, -1] == FS * 10 - 2 + 1e6 * window.row).all()


def test_a_reset_forgets_the_signal() -> None:
    scheduler = WindowScheduler(1, ScheduleConfig())
    feed(scheduler, range(40))
    scheduler.reset(0)
    assert scheduler.next_batch() == []
    feed(scheduler, range(25))
    (window,) = scheduler.next_batch()
    assert np.isnan(window.samples[:, :500]).all()


def test_a_hop_that_is_no_whole_number_of_frames_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"schedule\.hop_s = 0\.5"):
        ScheduleConfig(hop_s=0.5)


def feed_beats(scheduler: Scheduler, frames: range, known: dict[int, list[float]]) -> None:
    """Feed one bed; ``known`` says which R peaks become known with which frame."""
    row = np.array([0])
    for frame in frames:
        peaks = np.array(known.get(frame, []))
        beats = np.zeros(len(peaks), np.intp), peaks
        scheduler.add(row, np.array([frame]), ramp(frame), np.array([0]), np.array([False]), 0, beats)


def test_a_window_has_the_beats_that_were_known_when_it_was_cut() -> None:
    scheduler = WindowScheduler(1, ScheduleConfig())
    feed_beats(scheduler, range(60), {3: [71.0], 24: [905.5], 25: [981.0], 59: [2301.0, 2391.0]})
    windows = {window.stop: window for window in scheduler.next_batch()}
    np.testing.assert_allclose(windows[500].beats, [500 + 71 / 2, 500 + 905.5 / 2])  # the first window begins at -500
    np.testing.assert_allclose(windows[1000].beats, [71 / 2, 905.5 / 2, 981 / 2])
    np.testing.assert_allclose(windows[1100].beats, [905.5 / 2 - 100, 981 / 2 - 100])  # the first has left the window
    np.testing.assert_allclose(windows[1200].beats[-2:], [2301 / 2 - 200, 2391 / 2 - 200])
    assert windows[1200].beats.dtype == np.float32


def test_a_reset_forgets_the_beats() -> None:
    scheduler = WindowScheduler(1, ScheduleConfig())
    feed_beats(scheduler, range(20), {3: [71.0]})
    scheduler.reset(0)
    feed_beats(scheduler, range(25), {24: [905.0]})
    (window,) = scheduler.next_batch()
    np.testing.assert_allclose(window.beats, [500 + 905 / 2])
