"""Replay: timing, parts, loops, and every way in which a recording can be wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgnat_devices.records import OpenRecord, open_record
from ecgnat_stream.clock import Clock, ManualClock
from ecgnat_stream.device import open_device
from ecgnat_stream.errors import ConfigError, DeviceError
from ecgnat_stream.signal import SampleBlock, StreamInfo, assign_leads, lead_notes
from ecgnat_stream.testing import InstantClock

FS = 200


@pytest.fixture
def record(tmp_path: Path) -> Path:
    x = np.arange(1000)[:, None] * [0.005, -0.005] % 3
    wfdb.wrsamp(
        "rec", FS, ["mV", "mV"], ["II", "V1"], x, fmt=["16", "16"], adc_gain=[200, 200], baseline=[0, 0], write_dir=str(tmp_path)
    )
    return tmp_path / "rec"


async def _replay(clock: Clock, **options: Any) -> tuple[StreamInfo, list[SampleBlock]]:
    device = open_device("replay", options, clock)
    async with device as info:
        return info, [block async for block in device]


async def test_finite_speed_is_live_and_max_is_not(record: Path, clock: InstantClock) -> None:
    assert (await _replay(clock, path=str(record)))[0].live
    assert not (await _replay(clock, path=str(record), speed="max"))[0].live


@pytest.mark.parametrize("speed", [1.0, 20.0, 0.5])
async def test_blocks_come_at_absolute_deadlines(record: Path, speed: float, clock: InstantClock) -> None:
    begun = clock.monotonic_ns()
    _, blocks = await _replay(clock, path=str(record), speed=speed, block=30)
    due = [begun + round(block.stop / FS / speed * 1e9) for block in blocks]
    assert [block.t_ns for block in blocks] == due


async def test_late_delivery_does_not_delay_what_follows(record: Path) -> None:
    clock = InstantClock()
    begun = clock.monotonic_ns()
    device = open_device("replay", {"path": str(record), "block": 20}, clock)
    async with device:
        async for block in device:
            if block.start == 200:
                await clock.sleep_until(clock.monotonic_ns() + 2_000_000_000)
    assert clock.monotonic_ns() == begun + 5_000_000_000


async def test_nothing_comes_before_its_time(record: Path) -> None:
    clock = ManualClock()
    device = open_device("replay", {"path": str(record), "block_s": 0.1}, clock)
    async with device:
        iterator = aiter(device)
        task = asyncio.ensure_future(anext(iterator))
        await asyncio.wait({task}, timeout=0.2)
        assert not task.done()
        await clock.advance(0.099)
        assert not task.done()
        await clock.advance(0.002)
        assert task.done()
        await iterator.aclose()  # type: ignore[attr-defined]


async def test_part_counts_from_zero(record: Path, clock: InstantClock) -> None:
    info, blocks = await _replay(clock, path=str(record), start_s=1.0, stop_s=2.5)
    assert info.total == 300
    assert blocks[0].start == 0
    assert blocks[-1].stop == 300
    x = np.concatenate([block.samples for block in blocks], axis=1)
    np.testing.assert_allclose(x[0], np.arange(200, 500) * 0.005 % 3, atol=1e-6)


async def test_loop_runs_on(record: Path, clock: InstantClock) -> None:
    device = open_device("replay", {"path": str(record), "loop": True, "block": 300, "speed": "max"}, clock)
    async with device as info:
        assert info.total is None
        blocks = []
        async for block in device:
            blocks.append(block)
            if block.stop >= 3000:
                break
    assert [block.start for block in blocks[1:]] == [block.stop for block in blocks[:-1]]
    x = np.concatenate([block.samples for block in blocks], axis=1)
    np.testing.assert_array_equal(x[:, :1000], x[:, 1000:2000])


@pytest.mark.parametrize("suffix", ["", ".hea", ".dat"])
def test_record_name_with_or_without_suffix(record: Path, suffix: str) -> None:
    assert open_record(f"{record}{suffix}").total == 1000


def test_invalid_samples_are_missing(tmp_path: Path) -> None:
    x = np.zeros((100, 1))
    x[40:50] = np.nan
    wfdb.wrsamp("rec", FS, ["mV"], ["ECG"], x, fmt=["16"], adc_gain=[200], baseline=[0], write_dir=str(tmp_path))
    samples = open_record(tmp_path / "rec").read(0, 100)
    assert np.flatnonzero(np.isnan(samples[0])).tolist() == list(range(40, 50))


@pytest.mark.parametrize(("unit", "factor"), [("uV", 1e-3), ("mV", 1.0), ("V", 1e3)])
def test_units_become_mv(tmp_path: Path, unit: str, factor: float) -> None:
    x = np.linspace(-1, 1, 100)[:, None]
    wfdb.wrsamp("rec", FS, [unit], ["II"], x, fmt=["16"], adc_gain=[1000], baseline=[0], write_dir=str(tmp_path))
    record = open_record(tmp_path / "rec")
    np.testing.assert_allclose(record.read(0, 100)[0], x[:, 0] * factor, atol=1e-3 * factor)
    assert record.uv_per_lsb == pytest.approx(factor)


def _replace(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text().replace(old, new))


async def _refused(**options: Any) -> str:
    with pytest.raises(DeviceError) as caught:
        await _replay(InstantClock(), **options)
    assert caught.value.permanent
    return str(caught.value)


async def test_missing_file() -> None:
    said = await _refused(path="nowhere/rec")
    assert "nowhere/rec" in said
    assert ".hea" in said
    assert "nowhere/rec.edf" in await _refused(path="nowhere/rec.edf")


async def test_folder(tmp_path: Path) -> None:
    assert "folder" in await _refused(path=str(tmp_path))


async def test_missing_signal_file(record: Path) -> None:
    record.with_suffix(".dat").unlink()
    said = await _refused(path=str(record))
    assert "rec.dat" in said
    assert "rec.hea" in said


async def test_truncated_signal_file(record: Path) -> None:
    dat = record.with_suffix(".dat")
    dat.write_bytes(dat.read_bytes()[:1234])
    said = await _refused(path=str(record))
    assert "rec.dat" in said
    assert "4000" in said
    assert "1234" in said


async def test_truncated_flac(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((4000, 1))
    wfdb.wrsamp("rec", FS, ["mV"], ["II"], x, fmt=["516"], adc_gain=[1000], baseline=[0], write_dir=str(tmp_path))
    dat = tmp_path / "rec.dat"
    dat.write_bytes(dat.read_bytes()[: dat.stat().st_size // 2])
    assert "rec" in await _refused(path=str(tmp_path / "rec"), speed="max")


async def test_rate_of_zero(record: Path) -> None:
    _replace(record.with_suffix(".hea"), "rec 2 200", "rec 2 0")
    assert "fs" in await _refused(path=str(record))
    info, _ = await _replay(InstantClock(), path=str(record), fs=200.0)
    assert info.fs == 200


async def test_empty_record(record: Path) -> None:
    _replace(record.with_suffix(".hea"), "rec 2 200 1000", "rec 2 200 0")
    record.with_suffix(".dat").write_bytes(b"")
    assert "no samples" in await _refused(path=str(record))


async def test_length_left_open_is_taken_from_the_file(record: Path) -> None:
    """A recorder that was killed cannot write the length."""
    _replace(record.with_suffix(".hea"), "rec 2 200 1000", "rec 2 200")
    with record.with_suffix(".dat").open("ab") as dat:
        dat.write(b"\x00\x01\x02")
    assert (await _replay(InstantClock(), path=str(record)))[0].total == 1000


def test_segments_are_joined(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 2.0)):
        x = np.full((100, 1), value)
        wfdb.wrsamp(name, FS, ["mV"], ["II"], x, fmt=["16"], adc_gain=[200], baseline=[0], write_dir=str(tmp_path))
    (tmp_path / "layout.hea").write_text("layout 1 200 0\n~ 0 200(0)/mV 16 0 0 0 0 II\n")
    (tmp_path / "rec.hea").write_text("rec/4 1 200 250\nlayout 0\na 100\n~ 50\nb 100\n")
    record = open_record(tmp_path / "rec")
    assert record.total == 250
    x = record.read(90, 160)[0]
    np.testing.assert_array_equal(x, [1.0] * 10 + [np.nan] * 50 + [2.0] * 10)


async def test_start_beyond_end(record: Path) -> None:
    said = await _refused(path=str(record), start_s=60)
    assert "start_s" in said
    assert "5 s long" in said


async def test_unknown_unit_names_the_option(record: Path) -> None:
    _replace(record.with_suffix(".hea"), "/mV", "/furlong")
    assert "units" in await _refused(path=str(record))
    assert (await _replay(InstantClock(), path=str(record), units="mV"))[0].total == 1000


async def test_pressure_is_left_out(tmp_path: Path) -> None:
    wfdb.wrsamp(
        "rec",
        FS,
        ["mV", "mmHg"],
        ["II", "ABP"],
        np.ones((10, 2)),
        fmt=["16"] * 2,
        adc_gain=[100] * 2,
        baseline=[0] * 2,
        write_dir=str(tmp_path),
    )
    info, blocks = await _replay(InstantClock(), path=str(tmp_path / "rec"))
    assert info.leads == ("II",)
    assert "ABP" in info.device
    assert blocks[0].samples.shape[0] == 1


async def test_leads_choose(record: Path) -> None:
    info, blocks = await _replay(InstantClock(), path=str(record), leads=["V1"])
    assert info.leads == ("V1",)
    np.testing.assert_allclose(blocks[0].samples[0, 1:3], [2.995, 2.99], atol=1e-6)
    assert "V9" in await _refused(path=str(record), leads=["V9"])


@pytest.mark.parametrize("name", ["rec.csv", "rec.npy"])
async def test_tables_must_say_what_they_hold(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name.endswith("npy"):
        np.save(file, np.zeros((2, 50)))
    else:
        np.savetxt(file, np.zeros((50, 2)), delimiter=",")
    assert "fs and units" in await _refused(path=str(file))
    assert "units" in await _refused(path=str(file), fs=200)
    assert "leads" in await _refused(path=str(file), fs=200, units="mV")
    assert "2 signals" in await _refused(path=str(file), fs=200, units="mV", leads=["I"])


def test_csv_time_column_gaps_and_semicolons(tmp_path: Path) -> None:
    file = tmp_path / "rec.csv"
    file.write_text("time;II;V1\n0;1.0;2.0\n0.01;;2.5\n0.02;3.0;nan\n")
    record = open_record(file, fs=100, units="mV")
    assert record.leads == ("II", "V1")
    np.testing.assert_array_equal(record.read(0, 3), np.array([[1, np.nan, 3], [2, 2.5, np.nan]], np.float32))


async def test_a_file_that_states_another_rate_or_unit_is_refused_or_keeps_its_own(record: Path) -> None:
    assert "states a rate of 200 Hz, but fs is 250" in await _refused(path=str(record), fs=250)
    assert "lead II is in mV, but units is uV" in await _refused(path=str(record), units="uV")
    own, _ = await _replay(InstantClock(), path=str(record))
    assert (await _replay(InstantClock(), path=str(record), fs=250, units="uV", strict=False))[0] == own
    assert (await _replay(InstantClock(), path=str(record), fs=200, units="mV"))[0] == own


def test_leads_choose_columns_that_have_names_and_name_those_that_have_none(tmp_path: Path) -> None:
    (tmp_path / "named.csv").write_text("time,V1,II\n0,1,2\n1,3,4\n")
    np.save(tmp_path / "nameless.npy", np.array([[1.0, 3.0], [2.0, 4.0]]))
    np.save(tmp_path / "one.npy", np.array([1.0, 3.0]))

    def opened(name: str, *leads: str) -> OpenRecord:
        return open_record(tmp_path / name, fs=100, units="mV", leads=leads or None)

    chosen = opened("named.csv", "II")
    assert (chosen.leads, chosen.left_out) == (("II",), ("V1",))
    np.testing.assert_array_equal(chosen.read(0, 2), [[2, 4]])
    both = opened("named.csv", "II", "V1")
    assert both.leads == ("II", "V1")
    np.testing.assert_array_equal(both.read(0, 2), [[2, 4], [1, 3]])
    assert opened("nameless.npy", "II", "V1").leads == ("II", "V1")
    assert opened("one.npy").leads == ("ECG",)
    for name, leads, said in (
        ("named.csv", ("I", "II"), "has no lead I: it has V1, II"),
        ("nameless.npy", (), r"does not say its leads: give leads.* --leads II,V1"),
        ("nameless.npy", ("II",), r"holds 2 signals without names, but 1 lead is named \(II\)"),
        ("nameless.npy", ("II", "II"), "names II more than once"),
    ):
        with pytest.raises(DeviceError, match=said):
            opened(name, *leads)


_NOT_RECORDINGS = [
    ("rec.csv", b"II\n1\nabc\n"),
    ("rec.csv", b"I,II\n1,2\n3\n"),
    ("rec.csv", b"\xff\xfe\x00"),
    ("rec.csv", b""),
    ("rec.npy", b"nonsense"),
    ("rec.npy", b""),
    ("rec.edf", b"0" * 300),
    ("rec.edf", b""),
    ("rec.hea", b""),
    ("rec.hea", b"nonsense\n"),
    ("rec.hea", b"\x00\xff\x00"),
]


@pytest.mark.parametrize(("name", "content"), _NOT_RECORDINGS)
@pytest.mark.filterwarnings("ignore:.*input contained no data.*:UserWarning")
async def test_not_a_recording(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert "rec" in await _refused(path=str(tmp_path / name), fs=200, units="mV", speed="max")


@given(header=st.text(alphabet="rec.dat 0123456789/()-mVIx#\n:", max_size=80), tail=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_header_opens_or_is_refused(tmp_path: Path, header: str, tail: bool) -> None:
    (tmp_path / "rec.dat").write_bytes(bytes(400))
    (tmp_path / "rec.hea").write_text(
        f"rec 1 200 100\nrec.dat {header}\n" if tail else f"rec {header}\nrec.dat 16 200 16 0 0 0 0 II\n"
    )
    try:
        record = open_record(tmp_path / "rec")
        samples = record.read(0, min(record.total, 50))
    except DeviceError as error:
        assert "rec" in str(error)
        return
    assert samples.dtype == np.float32
    assert samples.shape[0] == len(record.leads)


def test_unknown_option_names_itself_and_the_valid_ones(clock: InstantClock) -> None:
    with pytest.raises(ConfigError, match=r"'start'.*start_s"):
        open_device("replay", {"path": "x", "start": 3}, clock)
    with pytest.raises(ConfigError, match=r"speed.*-1|speed"):
        open_device("replay", {"path": "x", "speed": -1.0}, clock)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "fs", "leads", "total"),
    [
        ("mitdb/100", 360, 2, 650_000),
        ("vfdb/418", 250, 2, 525_000),
        ("cudb/cu20", 250, 1, 127_232),
        ("ludb/data/1", 500, 12, 5000),
        ("cinc2020/Q1804", 500, 12, 5000),
        ("nsrdb/16420", 128, 2, 1_000_000),
    ],
)
async def test_real_records(data_root: Path, name: str, fs: float, leads: int, total: int, clock: InstantClock) -> None:
    info, blocks = await _replay(clock, path=str(data_root / name), speed="max", stop_s=130, block_s=1.0)
    assert info.fs == fs
    assert sum(slot is not None for slot in assign_leads(info.leads)) == leads
    assert open_record(data_root / name).total == total
    x = np.concatenate([block.samples for block in blocks], axis=1)
    whole = wfdb.rdrecord(str(data_root / name), sampto=x.shape[1])
    np.testing.assert_allclose(x, whole.p_signal.T, atol=1e-6)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("ward/10O", r"is no recording: .*; did you mean 100 or 101\?"),
        ("ward/heart.cvs", r"is no recording: .*; did you mean heart\.csv\?"),
        ("ward/hart.csv", r"is no recording: .*; did you mean heart\.csv\?"),
        ("word/100", r"is no recording: .*; did you mean ward\?"),
        ("ward/zzz", r"is no recording: .*zzz\.hea$"),
    ],
)
def test_a_recording_that_is_not_there_is_refused_with_what_may_be_meant(path: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "ward").mkdir()
    for name in ("100.hea", "101.hea", "101.dat", "heart.csv", "notes.md"):
        (tmp_path / "ward" / name).touch()
    with pytest.raises(DeviceError, match=said):
        open_record(tmp_path / path, fs=250, units="mV")


def broken_npy(folder: Path) -> Path:
    path = folder / "x.npy"
    np.save(path, np.zeros((1, 100), np.float32))
    path.write_bytes(path.read_bytes().replace(b"(1, 100)", b"(1, (((("))
    return path


def negative_npy(folder: Path) -> Path:
    path = folder / "x.npy"
    np.save(path, np.zeros((1, 100), np.float32))
    path.write_bytes(path.read_bytes().replace(b"(1, 100)", b"(-9,100)"))
    return path


def too_many_names(folder: Path) -> Path:
    path = folder / "x.csv"
    path.write_text("time,I,II,V1\n0,0.1,0.2\n0.004,0.2,0.3\n")
    return path


def header_of_several_without_a_layout(folder: Path) -> Path:
    (folder / "x.hea").write_text("x/2 2 250 500\ns1 250\ns2 250\n")
    for name in ("s1", "s2"):
        (folder / f"{name}.hea").write_text(f"{name} 0 250 250\n")
    return folder / "x"


@pytest.mark.parametrize("spoil", [broken_npy, negative_npy, too_many_names, header_of_several_without_a_layout])
def test_whatever_a_library_raises_for_a_broken_file_names_the_file(spoil: Callable[[Path], Path], tmp_path: Path) -> None:
    path = spoil(tmp_path)
    with pytest.raises(DeviceError, match=f"{path.name}.*: ") as told:
        open_record(path, fs=250.0, units="mV").read(0, 10)
    assert told.value.permanent


async def test_a_long_hole_takes_no_time_at_full_speed_and_its_own_time_at_others(tmp_path: Path, clock: InstantClock) -> None:
    values = np.zeros((1, FS * 60 * 8), np.float32)
    values[:, FS * 90 : FS * 60 * 7] = np.nan
    np.save(tmp_path / "hole.npy", values)
    options = {"path": str(tmp_path / "hole.npy"), "fs": FS, "units": "mV", "block_s": 1.0}
    _, blocks = await _replay(clock, speed="max", **options)
    starts = [block.start // FS for block in blocks]
    assert starts == [*range(120), *range(60 * 7, 60 * 8)]
    _, blocks = await _replay(clock, speed=50.0, **options)
    assert [block.start // FS for block in blocks] == [*range(60 * 8)]


def test_a_signal_whose_name_says_nothing_is_left_out_beside_one_that_is_a_lead(tmp_path: Path) -> None:
    (tmp_path / "rec.csv").write_text("II,B1\n" + "0.1,0.2\n" * 500)
    record = open_record(tmp_path / "rec.csv", fs=FS, units="mV")
    assert record.leads == ("II", "B1")
    assert any("B1 has a name that is no lead" in note for note in lead_notes(record.leads))
    assert assign_leads(record.leads, recorded=True) == (1, None)
    assert assign_leads(record.leads, {"B1": "V1"}, recorded=True) == (1, 6)
    with pytest.raises(ConfigError, match="unknown lead name 'B1'"):
        assign_leads(record.leads)
    with pytest.raises(ConfigError, match="unknown lead name 'B1'"):
        assign_leads(("B1",), recorded=True)
