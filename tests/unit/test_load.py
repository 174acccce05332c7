"""Overload: begins with its figure when the machine is too slow for many beds; a flood of one device is none."""

from __future__ import annotations

import numpy as np
import pytest

from ecgnat_stream.ward.load import Load, Pressure

SECOND = 1_000_000_000


class Counted:
    """A load with the counters of a scheduler, a tick a second unless told otherwise."""

    def __init__(self, beds: int) -> None:
        self.load, self.now_ns = Load(beds), 100 * SECOND
        self.cut, self.skipped = np.zeros(beds, np.int64), np.zeros(beds, np.int64)
        self.waiting = np.zeros(beds, bool)

    def tick(self, skips: dict[int, int] | None = None, cuts: int = 1, after_s: float = 1.0) -> Pressure:
        self.now_ns += round(after_s * SECOND)
        self.cut += cuts
        for row, count in (skips or {}).items():
            self.skipped[row] += count
        return self.load.tick(self.now_ns, self.cut, self.skipped, self.waiting)

    def work(self, rows: list[int], late_s: float, frame_s: float = 1.0) -> None:
        self.load.worked(np.array(rows), np.full(len(rows), self.now_ns - round(late_s * SECOND)), self.now_ns, frame_s)


def test_one_pause_of_the_machine_is_no_overload() -> None:
    beds = Counted(10)
    assert not any(beds.tick(dict.fromkeys(range(10), 3) if second == 20 else {}).present for second in range(60))


def test_windows_left_out_again_and_again_are_an_overload_until_they_stop() -> None:
    beds = Counted(100)
    pressures = [beds.tick(dict.fromkeys(range(second, second + 6), 1)) for second in range(40)]
    assert [pressure.present for pressure in pressures[:4]] == [False, False, True, True]
    assert pressures[-1].skipped == pytest.approx(0.06)
    assert "6 % of the windows skipped" in str(pressures[-1])
    after = [beds.tick() for _ in range(32)]
    assert after[20].present
    assert not after[-1].present


def test_a_bed_alone_that_skips_windows_is_no_overload_but_the_only_bed_is() -> None:
    many, alone = Counted(40), Counted(1)
    assert not any(many.tick({7: 1}).present for _ in range(60)), "one in forty is more than one in fifty"
    assert any(many.tick({second % 20: 1}).present for second in range(60)), "as many of many beds are one"
    assert any(alone.tick({0: 1}, cuts=1).present for _ in range(10))


def test_a_flood_of_one_device_counts_for_nothing_while_it_lasts() -> None:
    beds = Counted(3)
    for second in range(30):
        beds.work([0, 1], 0.1)
        beds.work([2], 0.0)
        beds.work([2], 8.0)  # ten seconds of samples within one: what is worked on next is of long ago
        beds.waiting[2] = True
        assert not beds.tick({2: 9, 1: int(second == 3)}).present


def test_signal_that_is_worked_on_late_is_an_overload_even_if_ticks_are_late_too() -> None:
    beds = Counted(20)
    beds.waiting[:] = True
    said = []
    for second in range(0, 40, 4):
        beds.work(list(range(20)), min(second / 4, 5.0))
        said.append(beds.tick(after_s=4.0, cuts=0))
    began = next(at for at, pressure in enumerate(said) if pressure.present)
    assert 4 * began <= 12, "within 12 s"
    assert said[-1].late_s == pytest.approx(9.0), "five seconds, and those until the tick"
    beds.waiting[:] = False
    assert not beds.tick().present


def test_a_few_beds_that_are_late_are_no_overload() -> None:
    beds = Counted(20)
    for _ in range(30):
        beds.work(list(range(17)), 0.1)
        beds.work([17, 18, 19], 6.0)
        beds.waiting[[17, 18, 19]] = True
        assert not beds.tick().present


def test_a_machine_that_was_stopped_for_a_moment_and_catches_up_is_no_overload() -> None:
    beds = Counted(5)
    beds.work(list(range(5)), 0.1)
    beds.waiting[:] = True
    assert not beds.tick(after_s=10.0).present
    assert not beds.tick(after_s=1.0).present
    beds.work(list(range(5)), 0.1)
    beds.waiting[:] = False
    assert not any(beds.tick().present for _ in range(20))


def test_before_the_network_is_there_no_window_is_left_out() -> None:
    beds = Counted(4)
    for _ in range(20):
        beds.cut += 1
        beds.skipped += 1
        beds.now_ns += SECOND
        assert not beds.load.tick(beds.now_ns, beds.cut, beds.skipped, beds.waiting, asked=False).present
    assert beds.tick().skipped == 0


def test_after_a_restart_only_what_comes_then_counts() -> None:
    beds = Counted(4)
    while not beds.tick(dict.fromkeys(range(4), 1)).present:
        pass
    beds.load.restart()
    assert beds.tick() == Pressure(present=False, skipped=0.0, late_s=0.0)


def test_a_ward_without_beds_or_windows_has_no_load() -> None:
    assert Counted(0).tick() == Pressure(present=False, skipped=0.0, late_s=0.0)
    assert not Counted(3).tick(cuts=0).present


def test_blocks_that_wait_to_be_taken_are_an_overload_but_devices_that_are_gone_are_none() -> None:
    def paced(share: float, seconds: int, away_after: int = 99) -> list[Pressure]:
        beds, said, done = Counted(20), [], 0.0
        for row in range(20):
            beds.load.begin(row, beds.now_ns)
        for second in range(seconds):
            done += 5 * share if second < away_after else 0
            while done >= 1:
                beds.work(list(range(20)), 0.1, 0.2)
                done -= 1
            said.append(beds.tick(cuts=0))
        return said

    slow = paced(0.5, 20)
    assert next(at for at, pressure in enumerate(slow) if pressure.present) <= 14
    assert "only 50 % of the signal" in str(slow[-1])
    assert not any(pressure.present for pressure in paced(1.0, 40))
    assert not any(pressure.present for pressure in paced(1.0, 60, away_after=30)), "all devices went away"
