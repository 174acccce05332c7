"""Too many beds for the machine: the beds at rest get the network less often, those in danger do not, and it ends by itself.

A clock of the test's own, hearts of the simulator, and a network that answers so many windows a second and no more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from ecgnat_devices.simulator import Patient, Segment, Signal
from ecgnat_stream.bus import Published
from ecgnat_stream.clock import ManualClock, SystemClock
from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.config import BedConfig, Config, parse_config
from ecgnat_stream.events import Alarm, Technical
from ecgnat_stream.model import Mode, Prediction
from ecgnat_stream.monitor import Monitor
from ecgnat_stream.signal import SampleBlock, StreamInfo, Window
from ecgnat_stream.ward import FrameResult, Ward

FS = 250.0
SECOND = 1_000_000_000
ENDANGERED, FAST = 0, 1
VF_S = 60
"""From here on the first bed fibrillates. The second one is beyond its limit all the time."""


@cache
def heart(kind: str) -> NDArray[np.float32]:
    """Return ``(1, T)`` mV."""
    scripts = {
        "sinus": (Segment(rhythm="sinus", seconds=300, rate_bpm=70),),
        "fast": (Segment(rhythm="svt", seconds=300, rate_bpm=150),),
        "vf": (Segment(rhythm="sinus", seconds=VF_S, rate_bpm=70), Segment(rhythm="vf", seconds=300 - VF_S, amplitude_mv=0.8)),
    }
    patient = Patient(Signal(fs=FS, leads=("II",), seed=3, script=scripts[kind], loop=False))
    return patient.read(round(300 * FS))


class Clock(ManualClock):
    """Moves at once."""

    def forward(self, seconds: float) -> None:
        self._now_ns += round(seconds * SECOND)


class Machine:
    """A ward of live beds and a network of so many windows a second, which knows the truth.

    Parameters
    ----------
    frame_s
        How long the work on one frame of all beds takes.
    mode
        Whether the network reads windows or goes token by token.
    """

    def __init__(self, beds: int, frame_s: float = 0.0, mode: Mode = "window", **schedule: float) -> None:
        self.clock, self.said, self.second = Clock(), [], 0
        self.answered: list[tuple[int, int]] = []
        self.frame_s = frame_s
        config = parse_config({"bed": [{"id": f"b{i}"} for i in range(beds)], "schedule": {"max_batch": 1, **schedule}})
        self.ward = Ward(config, self.clock, self._hear, watch=self._worked, mode=mode)
        self.hearts = ["vf", "fast", *["sinus"] * (beds - 2)] if beds > 2 else ["sinus"] * beds
        self.flooding: set[int] = set()
        self.stops = [0] * beds
        for row in range(beds):
            self.ward.accept(row, StreamInfo(FS, ("II",), "simulated", live=True))

    def _hear(self, event: Published) -> None:
        self.said.append((self.second, event))

    def _worked(self, _: FrameResult) -> None:
        self.clock.forward(self.frame_s)

    def run(self, seconds: int, windows_per_s: int) -> None:
        """Let time pass; five blocks a second of every bed."""
        for _ in range(seconds):
            began_ns, self.second = self.clock.monotonic_ns(), self.second + 1
            for part in range(5):
                self._deliver()
                while self.frame_s == 0 and self.ward.advance():
                    pass
                if self.frame_s and part == 4:
                    self.ward.advance()
                if not self.frame_s:
                    self.clock.forward(0.2)
            for _ in range(windows_per_s):
                self._answer(self.ward.next_batch())
            spent_s = (self.clock.monotonic_ns() - began_ns) / SECOND
            self.clock.forward(max(0.0, 1.0 - spent_s))
            self.ward.tick()

    def _deliver(self) -> None:
        now_ns = self.clock.monotonic_ns()
        for row, kind in enumerate(self.hearts):
            for _ in range(10 if row in self.flooding else 1):
                start, length = self.stops[row], round(0.2 * FS)
                at = start % (heart(kind).shape[1] - length)
                block = SampleBlock(start, heart(kind)[:, at : at + length], now_ns)
                if self.ward.make_way(row, block):
                    self.ward.accept(row, block)
                    self.stops[row] += length

    def _answer(self, windows: list[Window]) -> None:
        for window in windows:
            self.answered.append((self.second, window.row))
            kind = self.hearts[window.row]
            says = "VF" if kind == "vf" and window.stop / 100 > VF_S else "SVT" if kind == "fast" else "SINUS"
            tokens = window.samples.shape[1] // 32
            rhythm = np.zeros((1, tokens, len(RHYTHMS)), np.float32)
            rhythm[..., RHYTHMS.index(says)] = 1.0
            empty, beat = np.zeros((1, 0), np.float32), np.zeros((1, 4 * tokens, 7), np.float32)
            said = Prediction(rhythm, empty, np.full((1, 4), 0.25, np.float32), beat, np.zeros(1, bool), 0.32, 0, 0.0)
            self.ward.apply([window], said, "scripted")

    def overloads(self) -> list[tuple[int, Technical]]:
        return [(at, e) for at, e in self.said if isinstance(e, Technical) and e.condition == "overload" and not e.bed]

    def alarms(self, row: int, condition: str) -> list[tuple[int, Alarm]]:
        return [
            (at, e) for at, e in self.said if isinstance(e, Alarm) and e.bed.endswith(f"/b{row}") and e.condition == condition
        ]

    def windows(self, since: int) -> Counter[int]:
        """Return how often each bed had the network since a second."""
        return Counter(row for at, row in self.answered if at > since)


def test_quiet_beds_give_way_step_by_step_and_get_back_what_they_gave() -> None:
    machine = Machine(8)
    machine.run(40, windows_per_s=100)
    assert machine.overloads() == []
    machine.run(20, windows_per_s=4)
    (at, first), *more = machine.overloads()
    assert at <= 40 + 5
    assert first.present
    assert "step 1 of 3" in first.detail
    assert "beds of 8 are at rest, and have the network every 2 s" in first.detail
    assert "% of the windows skipped" in first.detail
    assert "step 2 of 3" in more[0][1].detail, "five windows a second are still one too many"
    machine.run(40, windows_per_s=4)
    counted = machine.windows(since=70)
    assert counted[ENDANGERED] >= 29, "fibrillation is looked at each second"
    assert counted[FAST] >= 29, "and so is a heart beyond its limit"
    assert all(counted[row] in (7, 8) for row in range(2, 8)), "the others each fourth"
    fibrillation = machine.alarms(ENDANGERED, "ventricular-fibrillation")
    assert fibrillation[0][0] - VF_S <= 10
    machine.run(150, windows_per_s=100)
    assert [event.present for _, event in machine.overloads()][-1] is False
    assert "step 1" in machine.overloads()[-2][1].detail
    counted = machine.windows(since=240)
    assert all(counted[row] == 10 for row in range(8)), "every second again"


def test_a_network_that_goes_token_by_token_looks_at_quiet_beds_in_turns() -> None:
    machine = Machine(6, mode="stream", turn_s=20.0)
    machine.run(30, windows_per_s=100)
    machine.run(70, windows_per_s=4)
    assert "in turns" in machine.overloads()[0][1].detail
    for row in range(2, 6):
        told = [alarm.phase for _, alarm in machine.alarms(row, "network-paused")]
        assert told[:2] == ["start", "end"], "its turn comes"
    assert machine.alarms(FAST, "network-paused") == [], "beyond its limit"
    endangered = machine.alarms(ENDANGERED, "network-paused")
    assert not endangered or (endangered[-1][1].phase == "end" and endangered[-1][0] <= VF_S + 5), "not once it fibrillates"
    assert machine.alarms(ENDANGERED, "ventricular-fibrillation")[0][0] - VF_S <= 10


class SlowClock(SystemClock):
    """Time flies: each look at it takes 30 ms, so that a round of the loop is soon over."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def monotonic_ns(self) -> int:
        self.looks += 1
        return super().monotonic_ns() + self.looks * 30_000_000


async def test_devices_that_have_much_to_give_leave_other_tasks_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = Monitor(Config(bed=(BedConfig(id="a", device="simulate"),)), SlowClock())
    monkeypatch.setattr(monitor._ward, "take", lambda *_: True)
    block = SampleBlock(0, heart("sinus")[:, :50], 0)
    taken = [monitor._take_at_once(0, block) for _ in range(10)]
    assert taken == [True, True] + [False] * 8, "50 ms of a round"
    await asyncio.sleep(0)
    assert monitor._take_at_once(0, block), "the next round"
    waiting = asyncio.create_task(monitor._hand_over_safely(0, StreamInfo(FS, ("II",), "simulated", live=True)))
    while monitor._take_at_once(0, block):
        pass
    async with asyncio.timeout(5):
        await waiting


def test_an_overload_that_no_step_mends_says_so() -> None:
    machine = Machine(8)
    machine.run(30, windows_per_s=100)
    machine.run(40, windows_per_s=1)
    last = machine.overloads()[-1][1]
    assert last.present
    assert "step 3 of 3" in last.detail
    assert "% of the windows skipped" in last.detail


def test_where_no_slower_hop_is_allowed_the_overload_is_told_all_the_same() -> None:
    machine = Machine(8, slowest_hop_s=1.0)
    machine.run(20, windows_per_s=100)
    machine.run(20, windows_per_s=1)
    ((_, event),) = machine.overloads()
    assert event.present
    assert "step" not in event.detail


def test_a_machine_too_slow_for_the_signal_itself_says_so_within_15_s() -> None:
    machine = Machine(6, frame_s=0.3)
    machine.run(15, windows_per_s=6)
    at, event = machine.overloads()[0]
    assert at <= 15
    assert "signal worked on" in event.detail


def test_a_flood_of_one_device_is_its_beds_own_condition() -> None:
    machine = Machine(2)
    machine.run(8, windows_per_s=100)
    machine.flooding = {1}
    machine.run(24, windows_per_s=100)
    assert machine.overloads() == []
    assert machine.alarms(1, "rate-mismatch")
    assert machine.ward.skipped_windows > 10, "and yet windows were left out"
