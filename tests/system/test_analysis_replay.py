"""An analysis says what the monitor says when it replays the same recording as fast as it can."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import wfdb

from ecgnat_stream import analyse
from ecgnat_stream.clock import SystemClock
from ecgnat_stream.config import parse_config
from ecgnat_stream.device import open_device
from ecgnat_stream.events import Alarm, Beat, DeviceStatus, Event, Meta, Quality, Rhythm, Vitals
from ecgnat_stream.monitor import Monitor

FS = 250.0
SCRIPT = [
    {"rhythm": "sinus", "seconds": 15},
    {"rhythm": "pvc", "seconds": 10, "every": 3},
    {"rhythm": "asystole", "seconds": 9},
    {"rhythm": "tachycardia", "seconds": 12.7, "rate_bpm": 160},
]
ARTEFACTS = [{"kind": "gap", "start_s": 5, "seconds": 1.3}, {"kind": "lead_off", "start_s": 18, "seconds": 4, "leads": ["V1"]}]

WALL = ("bed", "time", "timing", "alarm_id", "event_id", "session", "paused_until")
"""Fields that tell when and as what a recording was played, not what it shows."""


async def simulated(**options: Any) -> np.ndarray[Any, Any]:
    given = {"script": SCRIPT, "artefacts": ARTEFACTS, "loop": False, "speed": "max", "seed": 3, "fs": FS, "leads": ["II", "V1"]}
    blocks = []
    async with (device := open_device("simulate", given | options, SystemClock())) as info:
        end = 0
        async for block in device:
            lost = np.full((len(info.leads), block.start - end), np.nan, np.float32)
            blocks += [lost, block.samples]
            end = block.stop
    return np.concatenate(blocks, axis=1)


async def replayed(path: Path, model: str, **options: Any) -> list[Event]:
    bed = {"id": "a", "device": "replay", "options": {"path": str(path), "speed": "max", **options}}
    monitor = Monitor(parse_config({"bed": [bed], "model": {"name": model, "threads": 1}}), SystemClock())
    events: list[Event] = []
    monitor.bus.listen(events.append, Event)  # type: ignore[arg-type]
    async with asyncio.timeout(250):
        await monitor.run()
    assert not monitor.failures
    return events


def plain(event: Event) -> dict[str, Any]:
    return {key: value for key, value in msgspec.structs.asdict(event).items() if key not in WALL}


def assert_equal(mine: tuple[Event, ...], theirs: list[Event]) -> None:
    for kind in (Meta, DeviceStatus, Beat, Vitals, Quality, Alarm):
        assert [plain(e) for e in mine if isinstance(e, kind)] == [plain(e) for e in theirs if isinstance(e, kind)], kind
    pairs = zip(*([plain(e) for e in some if isinstance(e, Rhythm)] for some in (mine, theirs)), strict=True)
    for one, other in pairs:  # how windows share a batch may move the last digit of a probability
        for key in ("probability", "probabilities"):
            assert one.pop(key) == pytest.approx(other.pop(key), abs=2e-4)
        assert one == other


async def test_a_simulated_patient_gives_the_same_events(untrained: Path, tmp_path: Path) -> None:
    samples = await simulated()
    wfdb.wrsamp(
        "rec", FS, ["mV", "mV"], ["II", "V1"], samples.T.astype(float), fmt=["16", "16"], adc_gain=[1000, 1000],
        baseline=[0, 0], write_dir=str(tmp_path),
    )  # fmt: skip
    theirs = await replayed(tmp_path / "rec", str(untrained))
    mine = analyse(tmp_path / "rec", model=untrained)
    assert {"asystole"} <= {event.condition for event in mine.events if isinstance(event, Alarm)}
    assert len(mine.beats) > 40
    assert_equal(mine.events, theirs)


async def test_an_array_and_a_wfdb_record_give_what_their_file_gives(untrained: Path, tmp_path: Path) -> None:
    samples = np.round(await simulated() * 1000) / 1000
    wfdb.wrsamp(
        "rec", FS, ["mV", "mV"], ["II", "V1"], samples.T.astype(float), fmt=["16", "16"], adc_gain=[1000, 1000],
        baseline=[0, 0], write_dir=str(tmp_path),
    )  # fmt: skip
    path = tmp_path / "rec"
    of_file = analyse(path, model=untrained)
    others = [
        analyse(wfdb.rdrecord(str(path)), model=untrained),
        analyse(wfdb.rdrecord(str(path), physical=False), model=untrained),
        analyse(wfdb.rdrecord(str(path)).p_signal.T, fs=FS, leads=("II", "V1"), model=untrained),
        analyse(np.round(samples * 1000).T.copy().T, fs=FS, leads=("II", "V1"), units="uV", model=untrained),
    ]
    assert [other.name for other in others] == ["rec", "rec", "samples", "samples"]
    for other in others:
        for table in ("beats", "rhythm", "quality", "vitals", "alarms"):
            mine, theirs = getattr(other, table), getattr(of_file, table)
            for column in theirs.dtype.names:
                np.testing.assert_array_equal(mine[column], theirs[column])


@pytest.mark.data
@pytest.mark.parametrize(
    ("record", "start_s", "stop_s"), [("mitdb/203", 60, 180), ("vfdb/422", 0, 120), ("cinc2020/A0001", 0, 15)]
)
async def test_a_recording_gives_the_same_events(data_root: Path, record: str, start_s: float, stop_s: float) -> None:
    path = data_root / record
    theirs = await replayed(path, "ecgnat-nano", start_s=start_s, stop_s=stop_s)
    mine = analyse(path, start_s=start_s, stop_s=stop_s)
    assert len(mine.beats) > 5
    assert_equal(mine.events, theirs)


@pytest.mark.data
def test_the_rhythm_of_a_recording_is_what_was_said_at_each_second(data_root: Path) -> None:
    """Here a bradycardia goes over into a normal rate and back: it was one tachycardia once, as the last label took all."""
    found = analyse(data_root / "mitdb/202", start_s=560, stop_s=740)
    said = [event for event in found.events if isinstance(event, Rhythm) and event.model]
    assert len({event.label for event in said}) > 1
    for i, event in enumerate(said):
        (span,) = (span for span in found.rhythm if span["start_s"] < event.stop_s <= span["stop_s"])
        taken_back = any(later.start_s < event.stop_s and later.start_s != event.start_s for later in said[i + 1 :])
        assert span["label"] == event.label or taken_back
    assert [str(label) for label in found.rhythm["label"]].count("SBRAD") >= 2
