"""The rate of a live device: found when it differs, never mistaken for what networks do."""

from __future__ import annotations

import numpy as np
import pytest

from ecgnat_stream.alarm import AlarmConfig
from ecgnat_stream.clock import ManualClock
from ecgnat_stream.device import LinkState
from ecgnat_stream.events import Alarm
from ecgnat_stream.signal import SampleBlock, StreamInfo
from ecgnat_stream.ward.bed import Bed
from ecgnat_stream.ward.rate import RateWatch

FS, BLOCK = 250.0, 25


def arrivals(actual_hz: float, delay: str, seconds: float = 300.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return when (s, ascending) which sample has been reached, as a network with its own habits delivers it."""
    rng = np.random.default_rng(seed)
    stop = np.arange(BLOCK, int(seconds * actual_hz), BLOCK)
    at = stop / actual_hz
    match delay:
        case "jitter":
            at = at + rng.exponential(0.3, len(at)).clip(max=2.0)
        case "bursts":
            at = np.ceil(at / 1.7) * 1.7
        case "held up":
            held = rng.random(len(at)) < 0.005
            until = np.where(held, at + 2.9, 0.0)
            at = np.maximum(at, until)
        case "ever later":
            at = at + np.minimum(at * 0.004, 2.0)
        case "backlog":
            at = np.where(stop < 8 * actual_hz, 0.001, at - 8.0)
    return np.maximum.accumulate(at), stop


def watch(actual_hz: float, delay: str, seed: int = 0) -> tuple[RateWatch, list[tuple[float, bool]]]:
    one, changes = RateWatch(FS), []
    for at, stop in zip(*arrivals(actual_hz, delay, seed=seed), strict=True):
        if one.see(int(stop), 10**9 + round(at * 1e9)):
            changes.append((float(at), one.differs))
    return one, changes


DELAYS = ["none", "jitter", "bursts", "held up", "ever later", "backlog"]


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("actual_hz", [250.0, 250.0 * 1.001, 250.0 * 0.999, 250.0 * 1.005])
def test_a_sound_device_is_never_blamed(actual_hz: float, delay: str) -> None:
    for seed in range(20):
        assert not watch(actual_hz, delay, seed)[1]


@pytest.mark.parametrize("delay", ["none", "jitter", "bursts", "held up"])
@pytest.mark.parametrize("actual_hz", [125.0, 200.0, 240.0, 257.0, 360.0, 500.0, 1000.0])
def test_another_rate_is_found_with_its_figure(actual_hz: float, delay: str) -> None:
    for seed in range(10):
        one, changes = watch(actual_hz, delay, seed)
        assert [differs for _, differs in changes] == [True]
        assert changes[0][0] < 62
        assert one.measured_hz == pytest.approx(actual_hz, rel=0.04)


def test_the_right_rate_ends_it() -> None:
    one, now_ns, stop, changes = RateWatch(FS), 10**9, 0, []
    for step in range(1200):
        now_ns += 100_000_000
        stop += 20 if step < 600 else 25
        if one.see(stop, now_ns):
            changes.append(one.differs)
    assert changes == [True, False]


def test_a_bed_says_both_rates_and_judges_on() -> None:
    clock, said = ManualClock(), []  # type: ignore[var-annotated]
    bed = Bed("site/unit/bed", {}, AlarmConfig(), clock, said.append)

    def stream(info: StreamInfo, per_block: int, seconds: int) -> list[Alarm]:
        before, start = len(said), bed.stop
        bed.begin(info)
        for _ in range(10 * seconds):
            clock._now_ns += 100_000_000
            bed.place(SampleBlock(start, np.zeros((1, per_block), np.float32), clock.monotonic_ns()))
            start += per_block
        return [event for event in said[before:] if isinstance(event, Alarm) and event.condition == "rate-mismatch"]

    info = StreamInfo(fs=FS, leads=("II",), device="test")
    (alarm,) = stream(info, 20, 60)
    assert alarm.phase == "start"
    assert alarm.priority == "medium"
    assert "250 Hz declared, 200 Hz measured" in alarm.text
    bed.link(LinkState("offline", "gone", 1))
    assert [alarm.condition for alarm in bed.alarms.active()] == ["no-data"]
    assert not stream(info, 25, 60)
    assert not stream(StreamInfo(fs=FS, leads=("II",), device="played fast", total=10**6, pace=4.0), 100, 60)
