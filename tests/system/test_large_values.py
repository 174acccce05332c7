"""Values that no amplifier gives, through the ward: they are named, raise no alarm of the heart, and are over at once."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from ecgnat_stream.bus import Published
from ecgnat_stream.clock import ManualClock
from ecgnat_stream.config import parse_config
from ecgnat_stream.device import LinkState, open_device
from ecgnat_stream.events import Alarm, Beat, Quality, Vitals, Wave
from ecgnat_stream.signal import INPUT_MV, SampleBlock, StreamInfo
from ecgnat_stream.ward import Ward

FS, BEGINS_S, ENDS_S, LENGTH_S = 250, 15, 23, 32
OFFSETS_MV = [10.0, 30.0, 300.0, 1e3, 4.9e3, 6e3, 1e5, 1e6, 1e9, 1e12, 1e20, 1e30, 3.4e38, -300.0, -1e9, -1e30]


def patient() -> np.ndarray:
    """Return sinus rhythm on one lead, ``(1, T)`` mV."""
    script = [{"rhythm": "sinus", "seconds": LENGTH_S, "rate_bpm": 75}]
    device = open_device(
        "simulate", {"script": script, "loop": False, "speed": "max", "leads": ["II"], "seed": 5, "fs": FS}, ManualClock()
    )

    async def read() -> np.ndarray:
        async with device:
            return np.concatenate([block.samples async for block in device], axis=1)

    return asyncio.run(read())


def say(samples: dict[str, np.ndarray]) -> dict[str, list[Published]]:
    """Return what a ward publishes of live beds with these samples, by bed."""
    config = parse_config({"bed": [{"id": bed, "device": "simulate"} for bed in samples]})
    clock, said = ManualClock(), {f"site/unit/{bed}": [] for bed in samples}  # type: ignore[var-annotated]
    ward = Ward(config, clock, lambda event: said[event.bed].append(event) if event.bed else None)
    for row in range(len(samples)):
        ward.accept(row, StreamInfo(fs=FS, leads=("II",), device="test"))
        ward.accept(row, LinkState("online", "", 1))
    for start in range(0, LENGTH_S * FS, 50):
        clock._now_ns += 200_000_000
        for row, x in enumerate(samples.values()):
            ward.accept(row, SampleBlock(start, x[:, start : start + 50], clock.monotonic_ns()))
        ward.advance()
        while windows := ward.next_batch():
            ward.fail(windows, "no network here")
        ward.tick()
    return {name.rpartition("/")[2]: events for name, events in said.items()}


@pytest.fixture(scope="module")
def said() -> dict[str, list[Published]]:
    healthy = patient()
    samples = {"healthy": healthy}
    during = slice(BEGINS_S * FS, ENDS_S * FS)
    for i, offset in enumerate(OFFSETS_MV):
        for kind in ("constant", "offset"):
            x = healthy.copy()
            x[:, during] = offset if kind == "constant" else x[:, during] + np.float32(offset)
            samples[f"{kind}-{i}"] = x
    return say(samples)


def rates(events: list[Published], from_s: float, to_s: float) -> list[float | None]:
    return [event.heart_rate_bpm for event in events if isinstance(event, Vitals) and from_s <= event.at_s < to_s]


def began(events: list[Published]) -> set[str]:
    return {event.condition for event in events if isinstance(event, Alarm) and event.phase == "start"}


@pytest.mark.parametrize("kind", ["constant", "offset"])
@pytest.mark.parametrize("i", range(len(OFFSETS_MV)), ids=[f"{offset:g}" for offset in OFFSETS_MV])
def test_no_offset_makes_an_alarm_of_the_heart_or_outlasts_itself(said: dict[str, list[Published]], kind: str, i: int) -> None:
    events = said[f"{kind}-{i}"]
    assert began(events) <= {"noise"}, "what the lead shows is no heart"
    beats_s = [event.at_s for event in events if isinstance(event, Beat) and event.at_s >= ENDS_S]
    assert beats_s[0] < ENDS_S + 1, "the filters have recovered"
    usable = [event.usable for event in events if isinstance(event, Quality) and event.at_s > ENDS_S + 1]
    assert all(usable)
    # Three intervals of 0.8 s make a rate, and vitals come each second.
    after = rates(events, ENDS_S + 3.9, LENGTH_S)
    assert all(rate is not None and 70 < rate < 80 for rate in after), after
    if kind == "constant" or abs(OFFSETS_MV[i]) > INPUT_MV:
        states = {event.leads["II"].state for event in events if isinstance(event, Quality) and 17 < event.at_s < 22.5}
        assert states == {"saturated"}


@pytest.mark.parametrize("i", range(5))
def test_within_the_input_the_heart_rate_is_back_within_three_seconds(said: dict[str, list[Published]], i: int) -> None:
    events = said[f"offset-{i}"]
    assert None not in rates(events, BEGINS_S + 4, ENDS_S), "under the offset too"
    assert None not in rates(events, ENDS_S + 2.9, LENGTH_S)


def test_nothing_larger_than_the_input_is_published(said: dict[str, list[Published]]) -> None:
    waves = [event for events in said.values() for event in events if isinstance(event, Wave)]
    assert max(float(np.abs(wave.block.samples).max()) for wave in waves) == INPUT_MV


def test_a_healthy_signal_is_not_touched(said: dict[str, list[Published]]) -> None:
    waves = [event for event in said["healthy"] if isinstance(event, Wave)]
    assert np.array_equal(np.concatenate([wave.block.samples for wave in waves], axis=1), patient())
    assert not began(said["healthy"])
