"""A recording at every speed: times run forwards, wall time and stream time agree, and alarms last what they last."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecgnat_devices.replay import ReplayDevice, ReplayOptions
from ecgnat_stream.bus import Bus, Published
from ecgnat_stream.clock import Clock
from ecgnat_stream.config import parse_config
from ecgnat_stream.device import LinkState
from ecgnat_stream.device.border import pieces
from ecgnat_stream.events import Alarm, Beat, Event, Meta, Quality, Vitals, Wave
from ecgnat_stream.signal import SampleBlock, StreamInfo
from ecgnat_stream.sink.history import HistoryConfig, HistorySink
from ecgnat_stream.sink.history.read import AlarmRecord, History
from ecgnat_stream.testing import InstantClock
from ecgnat_stream.ward import Ward
from ecgnat_stream.wire import WaveCutter, epoch_ns

FS, LENGTH_S, QUIET_S = 250, 36.0, (12.0, 24.0)
SPEEDS = (0.5, 1.0, 5.0, 20.0, 50.0, "max")
BED = "site/unit/a"
_LONGEST_NS = 90_000_000_000
"""A recording that is played again and again is left here."""


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A heart at 75 bpm that stands still for 12 s."""
    t = np.arange(round(LENGTH_S * FS)) / FS
    wave = np.exp(-((((t % 0.8) - 0.4) / 0.02) ** 2)) * ~((t > QUIET_S[0]) & (t < QUIET_S[1]))
    wave += np.random.default_rng(1).normal(0, 0.004, len(t))
    np.save(tmp_path / "heart.npy", wave[None].astype(np.float32))
    return tmp_path / "heart.npy"


async def played(path: Path, clock: Clock, **options: object) -> list[Published]:
    """Return what the ward says of a recording that is replayed on a clock of the test's own; no network answers."""
    said: list[Published] = []
    ward = Ward(parse_config({"bed": [{"id": "a", "device": "replay"}]}), clock, said.append)

    def work() -> None:
        while ward.advance():
            pass
        while windows := ward.next_batch():
            ward.fail(windows, "no network here")

    def take(item: StreamInfo | SampleBlock | LinkState) -> None:
        for part in ward.parts(0, item):
            while not ward.make_way(0, part):
                work()
            ward.accept(0, part)
        work()

    device = ReplayDevice(ReplayOptions(path=str(path), fs=FS, units="mV", leads=("II",), **options), clock)  # type: ignore[arg-type]
    async with device as info:
        for item in (LinkState("connecting", session=1), info, LinkState("online", session=1)):
            take(item)
        async for block in device:
            for piece in pieces(block, info, ward._beds[0].last_ns):
                take(piece)
            if clock.monotonic_ns() > _LONGEST_NS:
                break
    take(LinkState("ended", session=1))
    return said


def of_bed(said: list[Published], kind: type) -> list[Event]:
    return [event for event in said if isinstance(event, kind) and isinstance(event, Event) and event.bed == BED]


async def written(said: list[Published], path: Path, clock: Clock) -> tuple[AlarmRecord, float]:
    """Return the asystole as the alarm history has it, and for how long the bed was watched, s."""
    bus = Bus()
    sink = HistorySink(HistoryConfig(path=str(path)), bus, clock)
    for event in said:
        bus.publish(event)
    bus.close()
    await sink.run()
    with History(path) as history:
        (record,) = [record for record in history.alarms() if record.condition == "asystole"]
        return record, history.watched_s()[BED]


@pytest.mark.parametrize("block_s", [0.1, 10.0])
@pytest.mark.parametrize("speed", SPEEDS)
async def test_times_run_forwards_and_alarms_last_what_they_last(
    recording: Path, tmp_path: Path, speed: float, block_s: float
) -> None:
    clock = InstantClock()
    begun = clock.utc()
    said = await played(recording, clock, speed=speed, block_s=block_s)
    pace = 1.0 if speed == "max" else speed
    for kind in (Vitals, Quality, Beat, Alarm):
        times = [event.time for event in of_bed(said, kind)]
        assert times == sorted(times), kind
    for event in (event for kind in (Vitals, Quality, Beat) for event in of_bed(said, kind)):
        if event.at_s and (event.time - begun).total_seconds() < LENGTH_S / pace - 0.01:
            assert (event.time - begun).total_seconds() * pace == pytest.approx(event.at_s, abs=0.01 * max(1.0, pace))
    (meta,) = of_bed(said, Meta)
    assert isinstance(meta, Meta) and meta.pace == pace
    conditions = {event.condition for event in of_bed(said, Alarm)}  # type: ignore[attr-defined]
    assert "asystole" in conditions
    assert not conditions & {"clock-jump", "rate-mismatch", "no-data", "unwatched"}
    record, watched_s = await written(said, tmp_path / "alarms.db", clock)
    # Found 4 s after the last beat; a person has not acknowledged it, and it ends with the recording.
    assert record.at_s is not None
    assert record.duration_s == pytest.approx(LENGTH_S - record.at_s, abs=1.0)
    assert watched_s == pytest.approx(LENGTH_S, abs=1.0)


class SlowClock(InstantClock):
    """A clock of a host that takes a tenth of a second for every block, whatever the pace."""

    async def sleep_until(self, monotonic_ns: int) -> None:
        await super().sleep_until(max(monotonic_ns, self.monotonic_ns() + 100_000_000))


@pytest.mark.parametrize("speed", [1.0, 50.0, 200.0, 1000.0])
async def test_alarms_last_what_they_last_where_the_host_cannot_keep_the_pace(
    recording: Path, tmp_path: Path, speed: float
) -> None:
    clock = SlowClock()
    said = await played(recording, clock, speed=speed, block_s=1.0)
    record, watched_s = await written(said, tmp_path / "alarms.db", clock)
    assert record.at_s is not None
    ends = [event for event in of_bed(said, Alarm) if isinstance(event, Alarm) and event.phase == "end"]
    (end_s,) = [event.at_s for event in ends if event.condition == "asystole"]
    assert record.duration_s == pytest.approx(end_s - record.at_s)  # type: ignore[operator]
    assert record.duration_s == pytest.approx(LENGTH_S - record.at_s, abs=1.0)
    assert watched_s == pytest.approx(LENGTH_S, abs=0.5)


@pytest.mark.parametrize("speed", [0.5, 1.0, 20.0])
async def test_frames_of_the_wave_follow_each_other_at_every_speed(recording: Path, speed: float) -> None:
    clock = InstantClock()
    said = await played(recording, clock, speed=speed, block_s=7.3)
    waves = [event for event in said if isinstance(event, Wave)]
    cutter = WaveCutter(waves[0].fs, waves[0].leads, waves[0].uv_per_lsb)
    frames = [frame for wave in waves for frame in cutter.cut(wave, epoch_ns(clock.utc(wave.block.t_ns)))]
    apart_s = np.diff([frame.t0_ns for frame in frames]) / 1e9
    assert apart_s == pytest.approx(np.full(len(apart_s), 0.2 / speed), abs=0.005)


async def test_a_recording_that_is_played_again_and_again_is_of_its_own_rate(recording: Path) -> None:
    said = await played(recording, InstantClock(), speed=0.5, loop=True)
    assert not [event for event in said if isinstance(event, Alarm) and event.condition == "rate-mismatch"]
