"""The dashboard's parts that need no terminal: the sweep, the trace buffer, the bell, the large digits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgnat_stream.signal import FS
from ecgnat_stream.sink.dashboard.bell import Bell
from ecgnat_stream.sink.dashboard.panels import spread
from ecgnat_stream.sink.dashboard.style import big_digits
from ecgnat_stream.sink.dashboard.sweep import Sweep, TraceBuffer, braille, pack


def filled(y: np.ndarray, start: int = 0) -> TraceBuffer:
    buffer = TraceBuffer()
    buffer.append(start / FS, np.broadcast_to(y.astype(np.float32), (12, y.size)))
    buffer.shown = float(buffer.stop)
    return buffer


def test_pack_sets_the_bits_of_unicode_braille() -> None:
    dots = np.zeros((4, 4), dtype=np.bool_)
    dots[0, 0] = dots[3, 1] = dots[2, 2] = True
    assert braille(pack(dots)[0]) == "⢁⠄"
    assert braille(pack(np.zeros((4, 2), dtype=np.bool_))[0]) == " "


def test_buffer_keeps_the_newest_and_shows_loss_as_nan() -> None:
    buffer = TraceBuffer(seconds=1)
    buffer.append(0.0, np.zeros((12, 40), dtype=np.float32))
    buffer.append(0.4, np.ones((12, 40), dtype=np.float32))
    y = buffer.read(1, 0, 130)
    assert np.array_equal(np.isnan(y), [False] * 40 + [True] * 40 + [False] * 40 + [True] * 10)
    buffer.append(1.0, np.full((12, 40), 2, dtype=np.float32))
    assert np.isnan(buffer.read(0, 0, 40)).all() and buffer.read(0, 200, 240).tolist() == [2.0] * 40
    buffer.append(0.0, np.full((12, 40), 3, dtype=np.float32))
    assert buffer.stop == 40 and np.isnan(buffer.read(0, 40, 240)).all()


def test_shown_part_follows_evenly_and_never_lags_far() -> None:
    buffer = TraceBuffer()
    buffer.append(0.0, np.zeros((12, 40), dtype=np.float32))
    buffer.play(0)
    buffer.play(100_000_000)
    assert buffer.shown == pytest.approx(20)
    buffer.play(10_000_000_000)
    assert buffer.shown == 40
    buffer.append(0.2, np.zeros((12, 400), dtype=np.float32))
    buffer.play(10_000_000_000)
    assert buffer.shown == pytest.approx(440 - 0.6 * FS)


def test_peak_of_a_single_sample_is_drawn() -> None:
    y = np.zeros(100)
    y[33] = 1.0
    sweep = Sweep(30, 8, 25.0, 10.0)
    sweep.advance(filled(y), 1)
    assert sweep.cells[2, 33 * 25 // FS // 2] != 0
    assert np.count_nonzero(sweep.cells[2]) == 1


@given(cuts=st.lists(st.integers(1, 60), min_size=1, max_size=25), gap=st.integers(0, 700))
@settings(max_examples=40, deadline=None)
def test_picture_does_not_depend_on_how_often_it_is_drawn(cuts: list[int], gap: int) -> None:
    t = np.arange(sum(cuts)) / FS
    y = np.sin(7 * t)
    y[gap : gap + 50] = np.nan
    whole, often = Sweep(40, 6, 37.5, 8.0), Sweep(40, 6, 37.5, 8.0)
    buffer = filled(y)
    whole.advance(buffer, 1)
    often._head, often._source = 0, (id(buffer), buffer.streams, 1)
    before = often.cells.copy()
    for stop in np.cumsum(cuts):
        buffer.shown = float(stop)
        changed = often.advance(buffer, 1)
        touched = np.zeros(40, dtype=np.bool_)
        for first, last in changed:
            touched[first:last] = True
        assert np.array_equal(before[:, ~touched], often.cells[:, ~touched])
        before = often.cells.copy()
    assert np.array_equal(whole.cells, often.cells)


def test_bad_scales_are_refused() -> None:
    with pytest.raises(ValueError, match="dots_per_s=400"):
        Sweep(10, 4, 400, 10)


def test_bell_pulses_by_priority_and_repeats() -> None:
    heard: list[tuple[float, str]] = []
    now = 0.0
    bell = Bell(lambda priority: heard.append((now, priority)))
    for i in range(0, 1200):
        now = i / 20
        priority = "low" if now < 10 else "medium" if now < 20 else "high" if now < 31 else None
        bell.update(priority, i * 50_000_000)
    assert [p for t, p in heard if t < 10] == ["low"]
    assert [p for t, p in heard if 10 <= t < 20] == ["medium"] * 3
    assert [p for t, p in heard if 20 <= t < 28] == ["high"] * 10
    assert {p for t, p in heard if 28 <= t < 31} == {"high"}
    assert not [t for t, _ in heard if t >= 31]


def test_bell_is_silent_when_switched_off() -> None:
    heard: list[str] = []
    Bell(heard.append, enabled=False).update("high", 0)
    assert heard == []


def test_big_digits_are_five_rows_of_equal_width() -> None:
    lines = big_digits("128", 2, 1)
    assert len(lines) == 5 and {len(line) for line in lines} == {22}
    assert len(big_digits("---", 3, 2)) == 10


@given(left=st.text(max_size=60), right=st.text("ab 12", max_size=10), width=st.integers(12, 50))
@settings(max_examples=50, deadline=None)
def test_spread_fills_the_line_exactly(left: str, right: str, width: int) -> None:
    from rich.cells import cell_len

    line = spread(left, right, width)
    assert cell_len(line) == width and line.rstrip().endswith(right.rstrip())
