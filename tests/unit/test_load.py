"""Overload: begins with its figure when windows are left out again and again, ends when none is."""

from __future__ import annotations

from ecgnat_stream.ward.load import Load


def test_one_pause_of_the_machine_is_no_overload() -> None:
    load, due = Load(), 0
    for tick in range(60):
        due += 10
        load.tick(due, 10 if tick >= 20 else 0)
        assert not load.overload


def test_windows_left_out_again_and_again_are_an_overload_until_they_stop() -> None:
    load, due, skipped = Load(), 0, 0
    begun = None
    for tick in range(40):
        due, skipped = due + 100, skipped + 6
        share = load.tick(due, skipped)
        if load.overload and begun is None:
            begun = tick
    assert begun == 2
    assert abs(share - 0.06) < 1e-9
    for _ in range(31):
        due += 100
        load.tick(due, skipped)
    assert not load.overload


def test_a_ward_without_windows_has_no_load() -> None:
    load = Load()
    assert load.tick(0, 0) == 0
    assert not load.overload
