"""The recorder: records that wfdb reads, also after a kill; gaps; sessions; a disk that fails."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb

from ecgnat_devices.records import open_record
from ecgnat_stream.bus import Bus
from ecgnat_stream.clock import ManualClock
from ecgnat_stream.errors import SinkError
from ecgnat_stream.events import Alarm, Beat, CommandResult, Meta, Quality, Technical, Vitals, Wave
from ecgnat_stream.signal import INPUT_MV, SampleBlock
from ecgnat_stream.sink.record import RecordConfig, RecordSink
from ecgnat_stream.testing import flushed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BED = "home/icu/1"
LEADS = ("MLII", "V1")


def meta(session: int = 1) -> Meta:
    return Meta(
        bed=BED, time=NOW, leads=LEADS, used_as=("II", "V1"), fs=250.0, uv_per_lsb=5.0, device="test", live=True, session=session
    )


def wave(start: int, samples: np.ndarray, t_ns: int = 1_000_000_000, bed: str = BED) -> Wave:
    return Wave(bed, NOW, 250.0, LEADS, 5.0, SampleBlock(start, samples.astype(np.float32), t_ns))


def alarm(sequence: int, bed: str = BED) -> Alarm:
    ids: Any = {"sequence": sequence, "alarm_id": f"a{sequence}", "event_id": f"e{sequence}"}
    about: Any = {"condition": "asystole", "kind": "physiological", "priority": "high", "phase": "start", "presence": "on"}
    return Alarm(bed=bed, time=NOW, text="asystole", **about, **ids)


def steps(first: int, length: int) -> np.ndarray:
    return np.vstack((np.arange(first, first + length), -np.arange(first, first + length))) * 0.005


async def record(folder: Path, *events: Any, **options: Any) -> list[Path]:
    bus = Bus()
    sink = RecordSink(RecordConfig(directory=str(folder), **options), bus, ManualClock())
    with bus:
        for event in events:
            bus.publish(event)
    await sink.run()
    return found(folder, "*.hea")


def found(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.rglob(pattern))


def read(header: Path) -> wfdb.Record:
    return wfdb.rdrecord(str(header.with_suffix("")))


async def test_a_record_has_leads_gain_rate_time_and_exact_samples(tmp_path: Path) -> None:
    (header,) = await record(tmp_path, meta(), wave(0, steps(0, 100), 1_396_000_000), wave(100, steps(100, 50)))
    assert header.parent == tmp_path / "home" / "icu" / "1"
    recorded = read(header)
    assert recorded.sig_name == list(LEADS)
    assert (recorded.fs, recorded.adc_gain, recorded.units, recorded.fmt) == (250, [200, 200], ["mV", "mV"], ["24", "24"])
    assert recorded.base_datetime == datetime(2026, 1, 1)
    np.testing.assert_allclose(recorded.p_signal.T, steps(0, 150), atol=1e-9)
    digital = wfdb.rdrecord(str(header.with_suffix("")), physical=False)
    assert [c % 2**16 for c in digital.checksum] == list(digital.calc_checksum())


ECG = np.exp(-(((np.arange(1000) % 200 - 100) / 3.0) ** 2))
OFFSETS: dict[str, Any] = {
    "none": 0.0,
    "+75 mV": 75.0,
    "-42 mV": -42.0,
    "+300 mV": 300.0,
    "-300 mV": -300.0,
    "drift through 600 mV": np.linspace(-300.0, 300.0, 1000),
    "electrode change of 100 mV": np.where(np.arange(1000) < 501, 5.0, 105.0),
    "at a rail": 4990.0,
}


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("uv_per_lsb", [0.001, 0.0477, 0.305, 0.5961, 1.0, 4.88, 10.0])
async def test_whatever_electrodes_add_what_is_recorded_is_the_signal_within_half_a_step(
    offset: str, uv_per_lsb: float, tmp_path: Path
) -> None:
    if offset == "at a rail" and uv_per_lsb == 0.001:
        pytest.skip("beyond the range of that step: see the next test")
    samples = np.vstack((ECG + OFFSETS[offset], 0.5 * ECG)).astype(np.float32)
    blocks = [Wave(BED, NOW, 250.0, LEADS, uv_per_lsb, SampleBlock(k, samples[:, k : k + 100], 1)) for k in range(0, 1000, 100)]
    heard: list[Any] = []
    async with recording(tmp_path) as (bus, sink, write):
        bus.listen(heard.append, Technical)
        await write(*blocks)
    (header,) = found(tmp_path, "*.hea")
    rounding = 1e-9 + np.abs(samples.astype(np.float64)) * 1e-12
    by_wfdb = read(header).p_signal.T
    assert np.all(np.abs(by_wfdb - samples) <= uv_per_lsb / 2000 + rounding)
    ours = open_record(header)
    assert ours.uv_per_lsb == pytest.approx(uv_per_lsb)
    np.testing.assert_allclose(ours.read(0, 1000), by_wfdb, rtol=1e-7)
    np.testing.assert_array_equal(ours.read(330, 770), ours.read(0, 1000)[:, 330:770])
    assert (heard, sink.missing) == ([], {})


async def test_what_does_not_fit_is_an_alarm_that_ends_and_is_counted(tmp_path: Path) -> None:
    heard: list[Any] = []

    def fine(start: int, *beyond: int) -> Wave:
        samples = np.zeros((2, 500), np.float32)
        samples[1, list(beyond)] = -3000.0
        return Wave(BED, NOW, 250.0, LEADS, 0.0005, SampleBlock(start, samples, 1))

    async with recording(tmp_path) as (bus, sink, write):
        bus.listen(heard.append, Technical)
        await write(meta(), fine(0), fine(500, 3, 4), fine(1000))
        assert [(t.bed, t.condition, t.present, t.detail) for t in heard] == [(BED, "clipped", True, "V1")]
        for start in range(1500, 5000, 500):
            await write(fine(start, *[7] * (start == 1500)))
        assert [t.present for t in heard] == [True, False], "10 s after the last sample that did not fit"
    (header,) = found(tmp_path, "*.hea")
    assert read(header).p_signal[503, 1] == pytest.approx(-(2**31 - 1) * 1e-6)
    assert sink.missing == {f"record, {BED}, clipped": f"3 samples of V1 did not fit into the recording in {header.parent}"}


async def test_what_was_cut_to_the_range_of_the_input_is_counted_as_well(tmp_path: Path) -> None:
    samples = np.zeros((2, 500), np.float32)
    samples[0, 100:110] = INPUT_MV
    samples[1, 100:107] = np.nan
    async with recording(tmp_path) as (_, sink, write):
        await write(meta(), wave(0, samples))
    (about,) = sink.missing.values()
    assert about.startswith("10 samples of MLII did not fit into the recording")


async def test_what_a_full_disk_has_cost_is_counted_by_sample_and_event_and_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, clock, heard = Disk(monkeypatch), ManualClock(), list[Any]()
    async with recording(tmp_path, clock) as (bus, sink, write):
        bus.listen(heard.append, Technical)
        await write(meta(), wave(0, steps(0, 100)))
        disk.room = 0
        await write(wave(100, steps(100, 50)))  # it is tried, and fails
        await write(wave(150, steps(150, 75)), alarm(1))  # it is not tried
        disk.room = 10**9
        await clock.advance(6.0)
        await write(wave(225, steps(225, 75)))
        await write()  # the word that the disk takes it again
        disk.room = 0
        await write(wave(300, steps(300, 500)), alarm(2))
    (header,) = found(tmp_path, "*.hea")
    kept = read(header).p_signal
    assert (len(kept), int(np.isnan(kept[:, 0]).sum())) == (300, 125)
    told = [t.detail for t in heard if t.bed == BED and not t.present]
    assert told == ["0.5 s of signal (125 samples) were not recorded"]
    lost = sink.missing[f"record, {BED}"]
    # What the disk did to this bed was said in it, too.
    assert lost.startswith(
        "2.5 s of signal (625 samples) and 2 events (1 of alarms) were not recorded: No space left on device: "
    )
    assert lost.split(": ")[-1].startswith(str(header.parent))


def beat(sample: int, label: Any = "N") -> Beat:
    return Beat(bed=BED, time=NOW, at_s=sample / 250, sample=sample, label=label)


def second(at_s: float) -> Quality:
    return Quality(bed=BED, time=NOW, at_s=at_s, leads={}, usable=True, best_lead=None)


async def test_annotations_stand_beside_the_samples_and_each_record_has_its_own(tmp_path: Path) -> None:
    first, after = wave(0, steps(0, 500)), wave(2000, steps(0, 500))
    headers = await record(tmp_path, meta(), first, beat(100), beat(300, "V"), after, beat(2040, "S"), max_gap_s=1.0)
    found = [wfdb.rdann(str(header.with_suffix("")), "ecg") for header in headers]
    assert sorted((one.sample.tolist(), one.symbol) for one in found) == [([40], ["S"]), ([100, 300], ["N", "V"])]


async def test_annotations_can_be_read_while_recording_and_grow(tmp_path: Path) -> None:
    bus = Bus()
    sink = RecordSink(RecordConfig(directory=str(tmp_path)), bus, ManualClock())
    running = asyncio.create_task(sink.run())
    for event in (meta(), wave(0, steps(0, 500)), beat(100)):
        bus.publish(event)
    counts = []
    for at_s in (25.0, 50.0):
        bus.publish(beat(round((at_s - 1) * 250)))
        bus.publish(second(at_s))
        await flushed(bus)
        bus.publish(Vitals(bed=BED, time=NOW, heart_rate_bpm=1.0))
        await flushed(bus)  # the reader takes this one only when the batch before it is on the disk
        (header,) = found(tmp_path, "*.hea")
        counts.append(wfdb.rdann(str(header.with_suffix("")), "ecg").sample.tolist())
    bus.close()
    await running
    assert counts == [[100], [100, 6000]]
    assert wfdb.rdann(str(header.with_suffix("")), "ecg").sample.tolist() == [100, 6000, 12250]


async def test_a_gap_and_missing_samples_stay_missing(tmp_path: Path) -> None:
    holed = steps(0, 10)
    holed[1, 3] = np.nan
    (header,) = await record(tmp_path, wave(0, holed), wave(15, steps(15, 5)))
    signal_ = read(header).p_signal.T
    assert np.isnan(signal_[1]).nonzero()[0].tolist() == [3, 10, 11, 12, 13, 14]
    np.testing.assert_allclose(signal_[:, 15:], steps(15, 5), atol=1e-9)


async def test_a_long_gap_a_new_session_and_other_leads_begin_new_records(tmp_path: Path) -> None:
    other = Wave(BED, NOW, 250.0, ("V5",), 5.0, SampleBlock(2000, np.zeros((1, 5), np.float32), 1_000_000_000))
    headers = await record(
        tmp_path, meta(1), wave(0, steps(0, 5)), wave(1000, steps(0, 6)), meta(2), wave(0, steps(0, 7)), other, max_gap_s=1.0
    )
    assert sorted((read(h).sig_len, read(h).sig_name[0]) for h in headers) == [(5, "MLII"), (5, "V5"), (6, "MLII"), (7, "MLII")]
    assert len(found(tmp_path, "*.jsonl")) == 2


async def test_events_are_json_lines_next_to_the_record(tmp_path: Path) -> None:
    await record(
        tmp_path, meta(), Vitals(bed=BED, time=NOW, heart_rate_bpm=60), Technical(bed="", time=NOW, condition="x", present=True)
    )
    (bed_file,) = found(tmp_path / "home", "*.jsonl")
    assert [json.loads(line)["type"] for line in bed_file.read_text().splitlines()] == ["meta", "vitals"]
    (general,) = set(found(tmp_path, "*.jsonl")) - {bed_file}
    assert json.loads(general.read_text())["condition"] == "x"


async def test_a_bed_cannot_leave_its_folder(tmp_path: Path) -> None:
    headers = await record(tmp_path / "in", wave(0, steps(0, 5), bed="../../x y/.."))
    assert [h.relative_to(tmp_path / "in").parts[:-1] for h in headers] == [("_", "_", "x_y", "_")]


async def test_nothing_is_recorded_before_samples_come(tmp_path: Path) -> None:
    assert await record(tmp_path) == []


KILLED = """
import asyncio, sys
import numpy as np
from datetime import UTC, datetime
from ecgnat_stream.bus import Bus
from ecgnat_stream.clock import SystemClock
from ecgnat_stream.events import Wave
from ecgnat_stream.signal import SampleBlock
from ecgnat_stream.sink.record import RecordConfig, RecordSink
from ecgnat_stream.testing import flushed
async def main():
    bus, clock = Bus(), SystemClock()
    running = asyncio.create_task(RecordSink(RecordConfig(directory=sys.argv[1]), bus, clock).run())
    start = 0
    while True:
        samples = (np.arange(start, start + 50, dtype=np.float32)[None] % 1000) * np.float32(0.005)
        bus.publish(Wave("a/b/c", datetime.now(UTC), 250.0, ("II",), 5.0, SampleBlock(start, samples, clock.monotonic_ns())))
        start += 50
        await flushed(bus)
        if start == 5000:
            print("recording", flush=True)
asyncio.run(main())
"""


@pytest.mark.timeout(60)
async def test_a_killed_process_leaves_a_readable_record(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, str(tmp_path), stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"recording\n"
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    (header,) = found(tmp_path, "*.hea")
    recorded = read(header)
    assert recorded.sig_len >= 4000
    np.testing.assert_allclose(recorded.p_signal[:, 0], np.arange(recorded.sig_len) % 1000 * 0.005, atol=1e-6)


async def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match=r"record\.directory: cannot write in .*file"):
        await RecordSink(RecordConfig(directory=str(tmp_path / "file")), Bus(), ManualClock()).prepare()


async def test_a_failing_disk_is_told_once_and_recording_comes_back(tmp_path: Path) -> None:
    bus, clock = Bus(), ManualClock()
    sink = RecordSink(RecordConfig(directory=str(tmp_path), retry_s=5.0), bus, clock)
    heard: list[Any] = []
    bus.listen(heard.append, Technical)
    running = asyncio.create_task(sink.run())

    async def write(start: int) -> None:
        bus.publish(wave(start, steps(start, 5)))
        bus.publish(wave(0, steps(0, 5), bed="home/icu/2"))
        await flushed(bus)
        bus.publish(Vitals(bed="home/icu/3", time=NOW, heart_rate_bpm=1.0))
        await flushed(bus)  # the reader takes this one only when the batch before it is on the disk

    blocker = tmp_path / "home" / "icu" / "1"
    blocker.parent.mkdir(parents=True)
    blocker.touch()
    for start in (0, 5):
        await write(start)
    assert [(t.bed, t.condition, t.present) for t in heard] == [(BED, "recorder-failed", True)]
    assert "1" in heard[0].detail
    blocker.unlink()
    await clock.advance(6.0)
    await write(10)
    bus.close()
    await running
    assert [t.present for t in heard] == [True, False]
    assert len(found(blocker, "*.hea")) == 1
    assert sink.lost >= 2


class Disk:
    """A disk with so much room left; the recorder's writes go through it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 10**9
        self._ordinary = os.pwrite
        monkeypatch.setattr("ecgnat_stream.sink.files.os.pwrite", self.write)

    def write(self, descriptor: int, data: Any, at: int) -> int:
        more = max(0, at + len(data) - os.fstat(descriptor).st_size)
        if more and not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        cut = max(0, more - self.room)
        written = self._ordinary(descriptor, data[: len(data) - cut], at)
        self.room -= max(0, more - cut)
        return written


@asynccontextmanager
async def recording(
    folder: Path, clock: ManualClock | None = None, **options: Any
) -> AsyncIterator[tuple[Bus, RecordSink, Callable[..., Awaitable[None]]]]:
    """A bus with a recorder on it, and a function that publishes and waits until that is written."""
    bus, beds = Bus(), options.pop("beds", ())
    sink = RecordSink(RecordConfig(directory=str(folder), **options), bus, clock or ManualClock(), beds=beds)
    running = asyncio.create_task(sink.run())

    async def write(*events: Any) -> None:
        for event in events:
            bus.publish(event)
        await flushed(bus)
        bus.publish(Vitals(bed="", time=NOW, heart_rate_bpm=1.0))
        await flushed(bus)  # the reader takes this one only when the batch before it is on the disk

    try:
        yield bus, sink, write
        bus.close()
        await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("room", [0, 1, 37, 400, 777, 1234, 2000])
async def test_a_full_disk_leaves_no_empty_file_and_recording_goes_on_in_the_same_files(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, clock, heard = Disk(monkeypatch), ManualClock(), list[Any]()
    async with recording(tmp_path, clock, retry_s=5.0) as (bus, sink, write):
        bus.listen(heard.append, Technical)
        disk.room = room
        await write(meta(), alarm(1))
        for start in range(0, 500, 50):
            await write(wave(start, steps(start, 50)), alarm(2 + start))
            await clock.advance(6.0)
        for _ in range(500):  # a thread may be trying just now, and takes back what it began
            full = [file for file in found(tmp_path, "*.*") if not file.stat().st_size and file.name != ".lock"]
            if not full:
                break
            await asyncio.sleep(0.01)
        assert full == []
        assert sum(bed_file.parent.name == "1" for bed_file in found(tmp_path, "*.jsonl")) <= 1
        disk.room = 10**9
        await clock.advance(6.0)
        await write(wave(500, steps(500, 50)), beat(510), alarm(1000))
        await write(wave(550, steps(550, 50)), alarm(1001))
    (header,) = found(tmp_path, "*.hea")
    recorded = read(header).p_signal.T
    end = steps(500, 100)
    np.testing.assert_allclose(recorded[:, -100:], end, atol=1e-9)
    kept_samples = ~np.isnan(recorded[0])
    places = steps(600 - recorded.shape[1], recorded.shape[1])[0]
    np.testing.assert_allclose(recorded[0][kept_samples], places[kept_samples], atol=1e-9)
    missing = 600 - int(kept_samples.sum())
    assert f"({missing} samples)" in sink.missing[f"record, {BED}"] if missing else sink.missing == {}
    assert wfdb.rdann(str(header.with_suffix("")), "ecg").symbol.count("N") == 1
    (bed_file,) = found(tmp_path / "home", "*.jsonl")
    events = [json.loads(line) for line in bed_file.read_text().splitlines()]
    assert [event["sequence"] for event in events if event["type"] == "alarm"] == [1, *range(2, 502, 50), 1000, 1001]
    assert (sink.alarms_delivered, sink.alarms_lost, sink.subscription.alarms) == (13, 0, 13)
    told = [(t.condition, t.present, "not recorded" in t.detail) for t in heard if t.bed == BED]
    assert told == [("recorder-failed", True, False), ("recorder-failed", False, True)]
    assert {file.suffix for file in header.parent.iterdir()} == {".hea", ".dat", ".ecg", ".jsonl"}


async def test_events_wait_for_a_failing_disk_in_a_bounded_queue_and_alarms_go_last_and_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, clock, heard = Disk(monkeypatch), ManualClock(), list[Any]()
    async with recording(tmp_path, clock, beds=(BED,)) as (bus, sink, write):
        bus.listen(heard.append, Technical)
        disk.room = 0
        await write(*(beat(k) for k in range(3000)))
        await write(*(alarm(k) for k in range(1500)))
        assert sink.alarms_lost == 0
        await write(*(alarm(k) for k in range(1500, 3000)))
        assert [(t.condition, t.present) for t in heard if t.condition == "alarms-lost"] == [("alarms-lost", True)]
        disk.room = 10**9
        await clock.advance(6.0)
        await write(alarm(3000))
    (bed_file,) = found(tmp_path / "home", "*.jsonl")
    kept = [json.loads(line) for line in bed_file.read_text().splitlines()]
    alarms = [event["sequence"] for event in kept if event["type"] == "alarm"]
    assert alarms == list(range(3001 - len(alarms), 3001))
    assert (sink.alarms_delivered, sink.alarms_lost) == (len(alarms), 3001 - len(alarms))
    beats = sum(event["type"] == "beat" for event in kept)
    assert sink.lost == 3000 - beats + sink.alarms_lost + 1, "what the disk does to this bed was said in it, too"
    assert [(t.condition, t.present) for t in heard if t.condition == "alarms-lost"][-1] == ("alarms-lost", False)


async def test_a_bed_whose_signal_cannot_be_written_concerns_no_other_bed_and_comes_back(tmp_path: Path) -> None:
    heard: list[Any] = []
    async with recording(tmp_path) as (bus, sink, write):
        bus.listen(heard.append, Technical)
        spoiled = Wave(BED, NOW, 250.0, LEADS, 0.0, SampleBlock(0, object(), 1))  # type: ignore[arg-type]
        await write(spoiled, alarm(1), wave(0, steps(0, 50), bed="home/icu/2"))
        await write(wave(0, steps(0, 50)), alarm(2))
    assert [(t.bed, t.condition, t.present) for t in heard] == [(BED, "recorder-failed", True), (BED, "recorder-failed", False)]
    assert sorted(read(header).sig_len for header in found(tmp_path, "*.hea")) == [50, 50]
    assert (sink.alarms_delivered, sink.alarms_lost) == (2, 0)


async def test_beds_that_are_not_here_get_no_folder_and_few_lines(tmp_path: Path) -> None:
    async with recording(tmp_path, beds=(BED,)) as (_, sink, write):
        for k in range(10):
            await write(
                *(
                    CommandResult(bed=f"home/icu/x{k}-{n}", time=NOW, accepted=False, action="reset", reason="no such bed")
                    for n in range(1000)
                )
            )
        await write(alarm(1))
    assert {file.parent for file in found(tmp_path, "*.jsonl")} == {tmp_path, tmp_path / "home" / "icu" / "1"}
    (own,) = (file for file in found(tmp_path, "*.jsonl") if file.parent == tmp_path)
    assert sum("no such bed" in line for line in own.read_text().splitlines()) == 999
    assert sink.lost == 9001


async def test_a_second_monitor_on_the_same_folder_is_refused_and_the_first_one_goes_on(tmp_path: Path) -> None:
    async with recording(tmp_path) as (_, _, write):
        await write(wave(0, steps(0, 5)))
        second = RecordSink(RecordConfig(directory=str(tmp_path)), Bus(), ManualClock())
        with pytest.raises(SinkError, match=rf"another monitor writes there \(process {os.getpid()}\)"):
            await second.prepare()
        await write(wave(5, steps(5, 5)))
    await second.prepare()
    (header,) = found(tmp_path, "*.hea")
    assert read(header).sig_len == 10


@pytest.mark.parametrize(("group", "file_mode", "folder_mode"), [(False, 0o600, 0o700), (True, 0o640, 0o750)])
async def test_recordings_are_private_or_the_groups_whatever_the_umask(
    group: bool, file_mode: int, folder_mode: int, tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        async with recording(tmp_path / "a" / "recordings", group=group) as (_, _, write):
            await write(meta(), wave(0, steps(0, 500)), beat(100), alarm(1))
    finally:
        os.umask(before)
    files = {path: path.stat().st_mode & 0o777 for path in (tmp_path / "a").rglob("*") if path.is_file() and path.name != ".lock"}
    assert {path.suffix for path in files} == {".hea", ".dat", ".ecg", ".jsonl"}
    assert set(files.values()) == {file_mode}
    folders = [tmp_path / "a", *(path for path in (tmp_path / "a").rglob("*") if path.is_dir())]
    assert {path.stat().st_mode & 0o777 for path in folders} == {folder_mode}


async def test_a_folder_that_others_may_read_is_named_and_left_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    folder.chmod(0o755)
    await record(folder, wave(0, steps(0, 5)))
    assert "recordings can be read by others (mode 755)" in caplog.text
    assert folder.stat().st_mode & 0o777 == 0o755


async def test_a_disk_that_hangs_keeps_neither_the_loop_nor_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hang, ordinary = threading.Event(), os.pwrite

    def write(*given: Any) -> int:
        hang.wait(30)
        return ordinary(*given)

    bus = Bus()
    sink = RecordSink(RecordConfig(directory=str(tmp_path)), bus, ManualClock())
    await sink.prepare()
    monkeypatch.setattr("ecgnat_stream.sink.files.os.pwrite", write)
    running = asyncio.create_task(sink.run())
    bus.publish(alarm(1, bed=""))
    await flushed(bus)
    bus.publish(alarm(2, bed=""))
    assert (sink.subscription.alarms, sink.alarms_delivered, sink.alarms_lost) == (2, 0, 0)
    running.cancel()
    _, late = await asyncio.wait([running], timeout=5)
    assert not late
    hang.set()
    bus.close()
    await sink.run()
    (own,) = (file for file in found(tmp_path, "*.jsonl") if file.parent == tmp_path)
    assert [json.loads(line)["sequence"] for line in own.read_text().splitlines()] == [1, 2]
    assert sink.alarms_delivered == 2


async def test_a_draft_that_a_killed_monitor_left_is_in_nobodys_way(tmp_path: Path) -> None:
    async with recording(tmp_path) as (_, _, write):
        await write(wave(0, steps(0, 5)))
        (header,) = found(tmp_path, "*.hea")
        header.with_suffix(".hea.tmp").write_text("half a head")
        await write(wave(5, steps(5, 5)))
        assert read(header).sig_len == 10
    assert found(tmp_path, "*.tmp") == []
