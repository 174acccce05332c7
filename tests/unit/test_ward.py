"""The ward: what is said of a bed depends neither on who listens, nor on the other beds, nor on how its blocks came in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ecgnat_stream.bus import Published
from ecgnat_stream.clock import ManualClock
from ecgnat_stream.config import parse_config
from ecgnat_stream.events import Alarm, Beat, DeviceStatus, Meta, Quality, Technical, Vitals, Wave
from ecgnat_stream.signal import SampleBlock, StreamInfo
from ecgnat_stream.ward import Ward

FS = 250.0
LENGTH_S = 24


def signal(stops_s: float) -> np.ndarray:
    """75 beats per minute on two leads ``(2, T)`` mV, and none any more from ``stops_s`` on."""
    t = np.arange(int(LENGTH_S * FS)) / FS
    beats = np.where(t < stops_s, np.clip(1 - np.abs(t % 0.8 - 0.2) / 0.04, 0, 1), 0.0)
    noise = 0.01 * np.random.default_rng(7).normal(size=(2, len(t)))
    return (beats + noise).astype(np.float32)


def watched(stops_s: list[float], *, at_once: bool = True, wanted: Callable[[type], bool] | None = None) -> list[Published]:
    """Everything that a ward says of live beds whose hearts stop at some time; the network has no answer."""
    clock, said = ManualClock(), list[Published]()
    config = parse_config({"bed": [{"id": f"bed-{row}", "device": "simulate"} for row in range(len(stops_s))]})
    ward = Ward(config, clock, said.append, run="run", wanted=wanted)
    for row in range(len(stops_s)):
        ward.accept(row, StreamInfo(fs=FS, leads=("II", "V1"), device="test"))
    signals = [signal(stop_s) for stop_s in stops_s]
    for start in range(0, int(LENGTH_S * FS), 50):
        clock._now_ns += 200_000_000
        for row, samples in enumerate(signals):
            block = SampleBlock(start, samples[:, start : start + 50], clock.monotonic_ns())
            if at_once:
                assert ward.take(row, block)
                continue
            for part in ward.parts(row, block):
                assert ward.make_way(row, part)
                ward.accept(row, part)
        while ward.advance():
            pass
        while windows := ward.next_batch():
            ward.fail(windows, "no network")
        if start % 250 == 0:
            ward.tick()
    return said


def of_bed(said: list[Published], row: int) -> list[Published]:
    return [event for event in said if event.bed.endswith(f"bed-{row}")]


def alarms(said: list[Published]) -> list[Published]:
    return [event for event in said if isinstance(event, Alarm) and event.bed]


def test_what_nobody_takes_is_not_made_and_alarms_are_the_same() -> None:
    everything = watched([14.0, 99.0])
    few = watched([14.0, 99.0], wanted=lambda kind: kind in (Alarm, Technical))
    assert {type(event) for event in everything} >= {Alarm, Beat, Quality, Vitals, Wave}
    assert {type(event) for event in few} <= {Alarm, Technical, Meta, DeviceStatus}
    assert alarms(few) == alarms(everything)
    assert {(event.bed[-5:], event.condition) for event in alarms(few) if isinstance(event, Alarm)} == {
        ("bed-0", "asystole"),
        ("bed-0", "pause"),
    }


def test_a_bed_is_told_of_alike_alone_and_among_others_and_however_its_blocks_come() -> None:
    among = watched([14.0, 99.0, 16.3])
    alone = watched([14.0], at_once=False)
    without_samples = [event for event in of_bed(alone, 0) if not isinstance(event, Wave)]
    assert without_samples == [event for event in of_bed(among, 0) if not isinstance(event, Wave)]
    assert len([event for event in of_bed(among, 0) if isinstance(event, Wave)]) == LENGTH_S * 5
