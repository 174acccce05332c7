"""The whole monitor on simulated patients: chunk invariance, one bed's trouble is its own, a failing network, a clean end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ecgnat_devices.simulate import SimulateDevice
from ecgnat_stream.clock import SystemClock
from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.condition import condition_record
from ecgnat_stream.config import parse_config
from ecgnat_stream.device import open_device
from ecgnat_stream.errors import DeviceError, EcgnatError
from ecgnat_stream.events import Alarm, Beat, DeviceStatus, EngineStatus, Event, Meta, Quality, Rhythm, Vitals
from ecgnat_stream.model import ModelCard, Prediction, Predictor, build, configured, save_checkpoint
from ecgnat_stream.monitor import Monitor
from ecgnat_stream.rhythm import RhythmTimeline
from ecgnat_stream.signal import LEADS, Conditioned, SampleBlock, StreamInfo, Window

SCRIPT = [
    {"rhythm": "sinus", "seconds": 15},
    {"rhythm": "pvc", "seconds": 10, "every": 3},
    {"rhythm": "asystole", "seconds": 9},
    {"rhythm": "tachycardia", "seconds": 15, "rate_bpm": 160},
]
ARTEFACTS = [{"kind": "gap", "start_s": 5, "seconds": 1.3}, {"kind": "lead_off", "start_s": 18, "seconds": 4, "leads": ["V1"]}]


def simulated(name: str = "a", **options: Any) -> dict[str, Any]:
    given = {"script": SCRIPT, "artefacts": ARTEFACTS, "loop": False, "speed": "max", "seed": 3} | options
    return {"id": name, "device": "simulate", "options": given}


class Run:
    """One run of a monitor and all it said."""

    def __init__(self, untrained: Path, *beds: dict[str, Any], **tables: Any) -> None:
        config = parse_config({"bed": list(beds), "model": {"name": str(untrained), "threads": 1}, **tables})
        self.monitor = Monitor(config, SystemClock())
        self.events: list[Event] = []
        self.windows: list[Window] = []
        self.monitor.bus.listen(self.events.append, Event)  # type: ignore[arg-type]
        next_batch = self.monitor._ward.next_batch

        def taken() -> list[Window]:
            windows = next_batch()
            self.windows += windows
            return windows

        self.monitor._ward.next_batch = taken  # type: ignore[method-assign]

    async def finish(self) -> Run:
        async with asyncio.timeout(120):
            await self.monitor.run()
        return self

    def of(self, kind: type, bed: str = "site/unit/a") -> list[Any]:
        return [event for event in self.events if isinstance(event, kind) and event.bed == bed]

    def starts(self, bed: str = "site/unit/a") -> list[str]:
        return [alarm.condition for alarm in self.of(Alarm, bed) if alarm.phase == "start"]


def decisions(run: Run) -> list[tuple[Any, ...]]:
    """Return what was decided, without wall times."""
    rows: list[tuple[Any, ...]] = [(b.sample, b.rr_ms, b.label, b.lead) for b in run.of(Beat)]
    rows += [(r.at_s, r.label, tuple(r.probabilities.values()), r.start_s, r.window_start, r.window_stop) for r in run.of(Rhythm)]
    rows += [(v.at_s, v.heart_rate_bpm) for v in run.of(Vitals)]
    rows += [(q.at_s, q.usable, q.best_lead, str(q.leads)) for q in run.of(Quality)]
    rows += [(a.sequence, a.condition, a.phase, a.priority, a.presence, a.at_s, a.onset_s, a.text) for a in run.of(Alarm)]
    return rows


@pytest.mark.parametrize(("fs", "leads"), [(250.0, ["II", "V1"]), (360.0, ["I", "II", "V5"])])
async def test_any_cutting_gives_the_same_windows_predictions_and_alarms(untrained: Path, fs: float, leads: list[str]) -> None:
    runs = [
        await Run(untrained, simulated(fs=fs, leads=leads, block=block), schedule={"max_batch": 1}).finish()
        for block in (1, 7, 50, 1000)
    ]
    first = runs[0]
    assert Counter(first.starts())["asystole"] == 1
    assert len(first.windows) > 40
    for other in runs[1:]:
        assert decisions(other) == decisions(first)
        for mine, theirs in zip(first.windows, other.windows, strict=True):
            assert (mine.start, mine.stop) == (theirs.start, theirs.stop)
            np.testing.assert_array_equal(mine.samples, theirs.samples)
            np.testing.assert_array_equal(mine.beats, theirs.beats)
    found = [window.start + window.beats for window in first.windows]
    assert max(len(beats) for beats in found) > 8
    said = np.array([beat.sample * 100 / fs for beat in runs[0].of(Beat)])
    away = [np.abs(said - at).min() for beats in found for at in beats]
    assert max(away) < 6, "windows hold the beats that are published, on the time of the conditioned signal"


@pytest.mark.parametrize("arch", ["beatnet", "clear"])
async def test_a_network_that_reads_heartbeats_runs_in_the_monitor(arch: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build(configured(arch, "nano"))
    save_checkpoint(tmp_path, network, ModelCard(model=network.config))
    runs = [
        await Run(tmp_path, simulated(leads=["II", "V1"], block=block), schedule={"max_batch": 1}).finish()
        for block in (50, 1000)
    ]
    assert not runs[0].monitor.failures
    assert "asystole" in runs[0].starts()
    rhythms = runs[0].of(Rhythm)
    assert len(rhythms) > 40
    assert all(np.isfinite(list(rhythm.probabilities.values())).all() for rhythm in rhythms)
    assert decisions(runs[0]) == decisions(runs[1])
    assert not any(rhythm.without_beats for rhythm in rhythms if rhythm.at_s < 25)
    silent = await Run(tmp_path, simulated(leads=["II"], script=[{"rhythm": "asystole", "seconds": 20}], artefacts=[])).finish()
    assert "asystole" in silent.starts()
    flags = [rhythm.without_beats for rhythm in silent.of(Rhythm)]
    assert sum(flags) > len(flags) / 2, flags


@pytest.mark.parametrize("name", ["ecgnat-nano", "ecgnat-nano-causal", "beatnet", "clear-hug"])
async def test_a_heart_that_stops_is_seen_by_every_shipped_network(name: str) -> None:
    """A network of heartbeats must read what follows the last beat: else it says sinus for as long as a window holds beats."""
    script = [{"rhythm": "sinus", "seconds": 25}, {"rhythm": "asystole", "seconds": 12}]
    run = await Run(Path(name), simulated(leads=["II", "V1"], script=script, artefacts=[]), schedule={"max_batch": 1}).finish()
    began = [alarm.at_s for alarm in run.of(Alarm) if alarm.condition == "asystole" and alarm.phase == "start"]
    assert len(began) == 1
    last = [rhythm for rhythm in run.of(Rhythm) if 33 < rhythm.at_s < 36.5]
    assert last
    assert {rhythm.label for rhythm in last} == {"ASYSTOLE"}
    # clear-hug sees it late (its card): the alarm waits for as long as it may for a network that says sinus.
    assert 28 < began[0] < (32 if name == "clear-hug" else 30)


async def test_live_at_a_finite_speed_decides_as_the_recording_does(untrained: Path) -> None:
    recorded = await Run(untrained, simulated(leads=["II", "V1"]), schedule={"max_batch": 1}).finish()
    live = await Run(untrained, simulated(leads=["II", "V1"], speed=10.0), schedule={"max_batch": 1}).finish()
    assert live.of(Meta)[0].live
    # A live source does not wait for its last frame's look-ahead to be padded; everything before that is the same.
    end = max(rhythm.at_s for rhythm in live.of(Rhythm)) - 1.0
    if not live.monitor._ward.skipped_windows:
        assert [d for d in decisions(live) if d in decisions(recorded)] == decisions(live)
    # On a busy machine a live monitor says that it is late itself, by the time on the wall: that is nothing in the recording.
    own_pace = ("unwatched", "overload", "model-late")
    heard = [a for a in live.of(Alarm) if a.phase == "start" and a.condition not in own_pace]
    assert [a.condition for a in heard if a.at_s < end] == [
        a.condition for a in recorded.of(Alarm) if a.phase == "start" and a.at_s < end
    ]


async def test_beds_of_different_rates_and_leads_do_not_touch_each_other(untrained: Path) -> None:
    beds = [
        simulated("a", fs=250.0, leads=["II"]),
        simulated("b", fs=500.0, seed=4),
        simulated("c", fs=128.0, leads=["V1", "V5"], seed=5),
    ]
    together = await Run(untrained, *beds, schedule={"max_batch": 1}).finish()
    alone = await Run(untrained, beds[0], schedule={"max_batch": 1}).finish()
    assert decisions(together) == decisions(alone)
    assert len(together.of(Rhythm, "site/unit/b")) == len(together.of(Rhythm, "site/unit/c")) > 40


async def test_a_gap_and_a_lead_off_are_said_with_the_lead(untrained: Path) -> None:
    run = await Run(untrained, simulated(leads=["II", "V1"])).finish()
    texts = {alarm.condition: alarm.text for alarm in run.of(Alarm) if alarm.phase == "start"}
    assert "1.3 s" in texts["gap"]
    assert "V1" in texts["leads-off"]
    during = [quality for quality in run.of(Quality) if 20 <= quality.at_s <= 21]
    assert {quality.leads["V1"].state for quality in during} == {"off"}
    assert all(quality.usable for quality in during)


async def test_one_bed_that_cannot_be_opened_does_not_stop_the_others(untrained: Path, tmp_path: Path) -> None:
    missing = {"id": "b", "device": "replay", "options": {"path": str(tmp_path / "none"), "speed": "max"}}
    run = await Run(untrained, simulated(), missing).finish()
    assert "asystole" in run.starts()
    assert "no-data" in run.starts("site/unit/b")
    assert "none" in run.monitor.failures["site/unit/b"]
    assert "site/unit/a" not in run.monitor.failures


async def test_unknown_leads_are_one_beds_alarm(untrained: Path, tmp_path: Path) -> None:
    path = tmp_path / "odd.npy"
    np.save(path, np.zeros((2000, 1), np.float32))
    odd = {
        "id": "b",
        "device": "replay",
        "options": {"path": str(path), "fs": 200, "units": "mV", "leads": ["X9"], "speed": "max"},
    }
    run = await Run(untrained, simulated(), odd).finish()
    assert "unknown lead name 'X9'" in run.monitor.failures["site/unit/b"]
    assert "asystole" in run.starts()


async def test_not_a_number_and_constant_leads_are_technical_conditions(untrained: Path, tmp_path: Path) -> None:
    for name, value in (("nan", np.nan), ("flat", 0.25)):
        np.save(tmp_path / f"{name}.npy", np.full((4000, 1), value, np.float32))
    beds = [
        {
            "id": name,
            "device": "replay",
            "options": {"path": str(tmp_path / f"{name}.npy"), "fs": 200, "units": "mV", "leads": ["II"], "speed": "max"},
        }
        for name in ("nan", "flat")
    ]
    run = await Run(untrained, *beds).finish()
    for name in ("nan", "flat"):
        bed = f"site/unit/{name}"
        assert {alarm.kind for alarm in run.of(Alarm, bed)} == {"technical"}, name
        assert not run.of(Beat, bed)
        assert not any(quality.usable for quality in run.of(Quality, bed) if quality.at_s > 3)
        assert all(vitals.heart_rate_bpm is None for vitals in run.of(Vitals, bed))


async def test_a_network_that_fails_is_an_alarm_and_asystole_is_still_found(
    untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = Predictor._predict

    def fail(self: Predictor, windows: np.ndarray, beats: np.ndarray | None) -> Prediction:
        if windows.any():  # the warm-up's zeros pass
            raise RuntimeError("out of memory")
        return predict(self, windows, beats)

    monkeypatch.setattr(Predictor, "_predict", fail)
    run = await Run(untrained, simulated()).finish()
    assert {rhythm.label for rhythm in run.of(Rhythm)} == {"UNKNOWN"}
    assert "asystole" in run.starts()
    assert "model-failed" in run.starts("")
    assert "out of memory" in run.monitor.failures["model"]


async def test_a_checkpoint_that_is_none_is_an_alarm_and_the_heart_is_watched_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    script = [
        {"rhythm": "sinus", "seconds": 30},
        {"rhythm": "vf", "seconds": 20},
        {"rhythm": "sinus", "seconds": 30},
        {"rhythm": "vt", "seconds": 20},
        {"rhythm": "sinus", "seconds": 30, "rate_bpm": 30},
        {"rhythm": "asystole", "seconds": 12},
    ]
    run = await Run(tmp_path, simulated(script=script, artefacts=[])).finish()
    assert "model-failed" in run.starts("")
    assert str(tmp_path) in run.monitor.failures["model"]
    high = {"ventricular-fibrillation", "ventricular-tachycardia", "extreme-bradycardia", "asystole"}
    assert high <= set(run.starts())
    assert not run.of(Rhythm)[:-1]


async def test_stopping_delivers_what_was_said_and_leaves_nothing_running(untrained: Path) -> None:
    run = Run(untrained, simulated(speed=1.0, loop=True))
    subscription = run.monitor.bus.subscribe("reader", Event)
    read: list[Event] = []

    class Reader:
        async def run(self) -> None:
            async for event in subscription:
                assert isinstance(event, Event)
                read.append(event)

    run.monitor.add(Reader())
    before = asyncio.all_tasks()
    asyncio.get_running_loop().call_later(1.0, run.monitor.stop)
    await run.finish()
    assert asyncio.all_tasks() == before
    assert read == run.events
    last = [event for event in read if isinstance(event, EngineStatus)][-1]
    assert not last.online
    assert [event for event in read if isinstance(event, DeviceStatus)][-1].state == "ended"


async def test_the_end_of_an_essential_sink_ends_the_monitoring(untrained: Path) -> None:
    run = Run(untrained, simulated(speed=1.0, loop=True))

    class Closed:
        async def run(self) -> None:
            return

    run.monitor.add(Closed(), essential=True)
    await run.finish()
    assert not run.of(EngineStatus, "")[-1].online


async def test_a_sink_that_fails_is_an_alarm_and_the_beds_go_on(untrained: Path) -> None:
    run = Run(untrained, simulated())

    class Broken:
        async def run(self) -> None:
            raise OSError("disk full")

    run.monitor.add(Broken())
    await run.finish()
    assert "asystole" in run.starts()
    alarms = run.of(Alarm, "")
    assert "disk full" in alarms[0].text


async def test_streaming_is_offline(untrained: Path) -> None:
    options = {"script": SCRIPT, "loop": False, "seed": 3, "fs": 360.0, "leads": ["I", "II", "V5"], "artefacts": ARTEFACTS[:1]}
    run = await Run(untrained, simulated(**options), schedule={"max_batch": 1}).finish()
    record = await delivered(options)
    offline = condition_record(record, 360.0).at(100).samples
    ahead = np.full((12, 1000), np.nan, np.float32)
    padded = np.concatenate([ahead, offline], axis=1)
    timeline = RhythmTimeline(1, run.monitor.config.rhythm)
    row = np.array([0])
    with Predictor(run.monitor.config.model) as predictor:
        told = [rhythm for rhythm in run.of(Rhythm) if rhythm.model]
        for window, rhythm in zip(run.windows, told, strict=True):
            if window.stop <= offline.shape[1]:
                np.testing.assert_array_equal(window.samples, padded[:, window.start + 1000 : window.stop + 1000])
            prediction = predictor.predict(Conditioned(window.samples[None], 100))
            timeline.add(row, np.array([window.start]), np.array([window.stop]), prediction.rhythm, prediction.token_s)
            decision = timeline.decide(row, None)
            assert rhythm.probabilities == pytest.approx(dict(zip(RHYTHMS, decision.probabilities[0], strict=True)), abs=1e-4)


async def delivered(options: dict[str, Any]) -> np.ndarray:
    """Return what a simulated device delivers, as a record ``(12, T)`` with NaN for what it does not."""
    device = open_device("simulate", {**options, "speed": "max"}, SystemClock())
    async with device as info:
        blocks = [block async for block in device]
    record = np.full((12, blocks[-1].stop), np.nan, np.float32)
    for block in blocks:
        for name, samples in zip(info.leads, block.samples, strict=True):
            record[LEADS.index(name), block.start : block.stop] = samples
    return record


class Falling:
    """A device that delivers ``seconds`` of a simulated patient and then fails, every time it is connected."""

    Options = SimulateDevice.Options

    def __init__(self, seconds: float, error: Exception, **options: Any) -> None:
        given = {"script": SCRIPT, "leads": ["II"], "speed": 20.0, **options}
        self._device = open_device("simulate", given, SystemClock())
        self._seconds, self._error = seconds, error

    async def __aenter__(self) -> StreamInfo:
        self._info = await self._device.__aenter__()
        return self._info

    async def __aexit__(self, *error: Any) -> None:
        await self._device.__aexit__(*error)

    async def __aiter__(self) -> AsyncIterator[SampleBlock]:
        async for block in self._device:
            if block.start >= self._seconds * self._info.fs:
                raise self._error
            yield block


@pytest.mark.parametrize("error", [DeviceError("unplugged", permanent=True), ValueError("defect in the adapter")])
async def test_a_lost_device_stays_an_alarm_and_shows_nothing_stale(untrained: Path, error: Exception) -> None:
    run = Run(untrained, simulated(speed=20.0), device={"backoff_first_s": 3.0, "jitter": 0.0})
    made: list[Falling] = []

    def link() -> Falling:
        made.append(Falling(8.3, error))
        if len(made) == 2:
            run.monitor.stop()  # a patient's device is tried again, whatever it said
        return made[-1]

    run.monitor._open_links = [link]
    await run.finish()
    states = [status.state for status in run.of(DeviceStatus)]
    assert states[:4] == ["connecting", "online", "offline", "connecting"]
    lost, tried = (run.events.index(run.of(DeviceStatus)[k]) for k in (2, 3))
    history = [(e.phase, i < tried) for i, e in enumerate(run.events) if isinstance(e, Alarm) and e.condition == "no-data"]
    assert history == [("start", True), ("end", False)]
    after = [event for event in run.events[lost:tried] if event.bed == "site/unit/a"]
    assert {e.label for e in after if isinstance(e, Rhythm)} == {"UNKNOWN"}
    assert {e.heart_rate_bpm for e in after if isinstance(e, Vitals)} == {None}
    assert not [e for e in after if isinstance(e, Beat)]


async def test_a_device_that_comes_back_with_other_leads_and_rate_goes_on_in_stream_time(untrained: Path) -> None:
    made: list[Falling] = []

    def link() -> Falling:
        options = [{"fs": 250.0}, {"fs": 500.0, "leads": ["V1", "II"]}][len(made) % 2]
        made.append(Falling(8.0 if len(made) < 2 else 1e9, DeviceError("reset"), loop=False, **options))
        return made[-1]

    run = Run(untrained, simulated(), device={"backoff_first_s": 0.05, "backoff_max_s": 0.05})
    run.monitor._open_links = [link]
    await run.finish()
    assert [meta.fs for meta in run.of(Meta)] == [250.0, 500.0, 250.0]
    times = [beat.at_s for beat in run.of(Beat)]
    assert times == sorted(times)
    alarms = run.of(Alarm)
    assert [alarm.sequence for alarm in alarms] == list(range(1, len(alarms) + 1))
    assert [a.phase for a in alarms if a.condition == "no-data"] == ["start", "end", "start", "end"]
    running: set[str] = set()
    for alarm in alarms:
        if alarm.phase == "start":
            running.add(alarm.alarm_id)
        else:
            assert alarm.alarm_id in running
    assert "asystole" in run.starts()


async def test_blocks_longer_than_the_ring_lose_nothing(untrained: Path) -> None:
    short = await Run(untrained, simulated(leads=["II"]), ring_s=5.0, schedule={"max_batch": 1}).finish()
    long = await Run(untrained, simulated(leads=["II"], block=20000), ring_s=5.0, schedule={"max_batch": 1}).finish()
    assert decisions(long) == decisions(short)


async def test_what_came_before_a_long_gap_is_decided_on_whatever_the_blocks(untrained: Path) -> None:
    gap = [{"kind": "gap", "start_s": 20, "seconds": 15}]
    runs = [
        await Run(untrained, simulated(leads=["II"], artefacts=gap, block=block), schedule={"max_batch": 1}).finish()
        for block in (10, 1000)
    ]
    assert decisions(runs[0]) == decisions(runs[1])
    before = [beat.at_s for beat in runs[0].of(Beat) if beat.at_s < 20]
    assert max(before) > 18.5


async def test_a_recordings_events_are_in_the_time_of_the_recording(untrained: Path) -> None:
    run = await Run(untrained, simulated(leads=["II"])).finish()
    times = [event.time for event in run.of(Alarm)]
    assert times == sorted(times)
    assert run.of(DeviceStatus)[-1].time >= run.of(Beat)[-1].time


async def test_a_defect_in_the_stages_is_an_alarm_and_the_monitor_goes_on(untrained: Path) -> None:
    run = Run(untrained, simulated(leads=["II"]))
    advance = run.monitor._ward.advance
    calls = 0

    def sometimes() -> bool:
        nonlocal calls
        calls += 1
        if calls in (3, 4):
            raise ValueError("a defect")
        return advance()

    run.monitor._ward.advance = sometimes  # type: ignore[method-assign]
    await run.finish()
    assert [a.phase for a in run.of(Alarm, "") if a.condition == "worker-lost"][0:1] == ["start"]
    assert "asystole" in run.starts()


async def test_a_defect_that_does_not_go_away_ends_the_monitor_with_its_reason(untrained: Path) -> None:
    run = Run(untrained, simulated(leads=["II"]))

    def always() -> bool:
        raise ValueError("a lasting defect")

    run.monitor._ward.advance = always  # type: ignore[method-assign]
    with pytest.raises(EcgnatError, match="advance failed 20 times in a row, last with ValueError: a lasting defect"):
        await run.finish()
