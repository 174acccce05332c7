"""Relief: steps up while the pressure lasts, back with patience; who is passed over, and who never is."""

from __future__ import annotations

import numpy as np
import pytest

from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.schedule import ScheduleConfig
from ecgnat_stream.ward.relief import Relief

BEDS = 16
SINUS, AF, VF = (RHYTHMS.index(name) for name in ("SINUS", "AF", "VF"))


def rested(**options: object) -> Relief:
    """Sixteen beds of which nothing unusual was seen for a minute."""
    settings = {"turn_s": 30.0, **{name: value for name, value in options.items() if name != "in_turns"}}
    limits = np.full(BEDS, 50.0), np.full(BEDS, 120.0)
    relief = Relief(BEDS, ScheduleConfig(**settings), limits, in_turns=bool(options.get("in_turns")))  # type: ignore[arg-type]
    for row in range(BEDS):
        relief.begin(row, 0.0)
    relief._at_s[:] = 60.0
    return relief


def press(relief: Relief, seconds: int, *, pressed: bool, start_s: int = 0) -> list[int]:
    """Return the level after every second."""
    levels = []
    for second in range(start_s, start_s + seconds):
        relief.step(second * 1_000_000_000, pressed)
        levels.append(relief.level)
    return levels


def test_steps_are_taken_one_by_one_up_to_the_slowest_hop() -> None:
    levels = press(rested(), 30, pressed=True)
    assert levels[:16] == [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3]
    assert levels[-1] == 3, "8 s"
    assert max(press(rested(slowest_hop_s=1.0), 30, pressed=True)) == 0, "none is allowed"
    assert max(press(rested(slowest_hop_s=60.0), 60, pressed=True)) == 3, "beyond the window nobody would read some signal"


def test_steps_are_taken_back_after_a_while_and_later_where_they_come_back() -> None:
    relief = rested()
    press(relief, 6, pressed=True)
    calm = press(relief, 200, pressed=False, start_s=6)
    assert calm.index(1) == pytest.approx(60, abs=1)
    assert calm.index(0) == pytest.approx(120, abs=1)
    press(relief, 1, pressed=True, start_s=206)
    assert relief.level == 1
    again = press(relief, 63, pressed=False, start_s=207)
    assert again.index(0) == pytest.approx(60, abs=1), "the pressure had been gone for longer than it takes"
    press(relief, 1, pressed=True, start_s=275)
    slower = press(relief, 400, pressed=False, start_s=276)
    assert slower.index(0) == pytest.approx(120, abs=1), "it came back soon"


def test_a_slower_hop_gives_every_bed_its_share_and_spreads_them() -> None:
    relief, rows = rested(), np.arange(BEDS)
    relief.level = 2
    given = np.array([~relief.spared(rows, np.full(BEDS, 5 * hop - 1)) for hop in range(1, 17)])
    assert (given.sum(axis=0) == 4).all(), "every bed each fourth hop"
    assert (given.sum(axis=1) == 4).all(), "every hop a fourth of the beds"
    relief.level = 0
    assert not relief.spared(rows, np.full(BEDS, 4)).any()


def test_in_turns_a_bed_has_the_network_for_a_while_without_a_break() -> None:
    relief, rows = rested(in_turns=True), np.arange(BEDS)
    relief.level = 1
    paused = []
    for frame in range(0, 4 * 150, 5):
        relief.spared(rows, np.full(BEDS, frame))
        paused.append(relief.paused.copy())
    assert (np.array(paused).sum(axis=1) == BEDS // 2).all()
    assert (np.diff(np.array(paused), axis=0).sum(axis=0) == 3).all(), "three changes in four turns"
    assert "one in 2 at a time, in turns" in relief.describe(rows)


@pytest.mark.parametrize("why", ["alarm", "network", "rhythm"])
@pytest.mark.parametrize("in_turns", [False, True])
def test_a_bed_that_is_not_at_rest_is_never_passed_over(why: str, in_turns: bool) -> None:
    relief, rows = rested(in_turns=in_turns), np.arange(BEDS)
    label, seconds = np.full(BEDS, SINUS, np.int8), np.zeros((BEDS, len(RHYTHMS)))
    relief.hear(rows, label, seconds)
    relief._at_s[:] = 120.0
    relief.hear(rows, label, seconds)
    assert relief.at_rest(rows).all()
    relief.level = 3
    if why == "alarm":
        relief.disturb(np.array([5]))
    elif why == "network":
        seconds[5, VF] = 0.4
        relief.hear(rows, label, seconds)
    else:
        label[5] = AF
        relief.hear(rows, label, seconds)
    frames = range(0, 800, 5)
    assert not any(relief.spared(rows, np.full(BEDS, frame - 1))[5] for frame in frames)
    assert "15 beds of 16" in relief.describe(rows)
    relief._at_s[:] = 136.0
    assert any(relief.spared(rows, np.full(BEDS, frame - 1))[5] for frame in frames), "at rest again"


def test_a_bed_that_begins_anew_is_not_at_rest() -> None:
    relief = rested()
    relief.begin(3, 60.0)
    assert not relief.at_rest(np.array([3]))[0]


def test_the_slowest_hop_is_no_shorter_than_the_hop() -> None:
    with pytest.raises(ConfigError, match="slowest_hop_s"):
        ScheduleConfig(hop_s=2.0, slowest_hop_s=1.0)
