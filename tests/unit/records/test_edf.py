"""EDF, EDF+ and BDF as recorders really write them, against pyedflib where that reads them too."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyedflib
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ecgnat_devices.records import OpenRecord, open_record
from ecgnat_stream.errors import DeviceError, InputError
from ecgnat_stream.recordings import format_of
from tests.unit.records.edf_files import STEP_MV, Channel, Header, onset, steps, write

FS = 250
NAN = np.full(FS, np.nan)
DATED = "the time is unknown"


def one(values: np.ndarray | None = None, **more: object) -> Channel:
    return Channel(steps(4) if values is None else values, FS, **more)  # type: ignore[arg-type]


def values(record: OpenRecord, start: int = 0, stop: int | None = None) -> np.ndarray:
    return record.read(start, record.total if stop is None else stop)


def mv(steps: np.ndarray) -> np.ndarray:
    return (steps * STEP_MV).astype(np.float32)


def plus(kind: str, *seconds: float, **more: object) -> Header:
    return Header(kind=kind, onsets=[onset(second) for second in seconds], **more)  # type: ignore[arg-type]


def second(samples: np.ndarray, index: int) -> np.ndarray:
    return mv(samples[index * FS : (index + 1) * FS])


# Time


def test_the_holes_of_a_discontinuous_file_are_holes(tmp_path: Path) -> None:
    x = steps(4)
    record = open_record(write(tmp_path / "a.edf", [one(x)], plus("EDF+D", 0, 1, 4.5, 5.5)))
    hole = np.full(625, np.nan)
    np.testing.assert_allclose(values(record)[0], np.concatenate([mv(x[:500]), hole, mv(x[500:])]), atol=1e-6)
    assert (record.total, record.notes) == (1625, ())
    np.testing.assert_allclose(values(record, 490, 510)[0], [*mv(x[490:500]), *hole[:10]], atol=1e-6)


def test_a_fraction_of_a_second_at_the_start_is_no_hole(tmp_path: Path) -> None:
    onsets = ["+0,5\x14\x14\0", "+1,5\x14\x14text\x14\0+1\x153\x14later\x14\0", "+2.5\x14\x14\0", "+3.500\x14\x14\0"]
    assert open_record(write(tmp_path / "a.edf", [one()], Header(kind="EDF+D", onsets=onsets))).total == 1000
    for first in (0.75, 12.0, -3.25):
        onsets = [f"{first + n:+.9g}\x14\x14\0" for n in range(4)]
        record = open_record(write(tmp_path / "a.edf", [one()], Header(kind="EDF+D", onsets=onsets)))
        assert (record.total, record.notes) == (1000, ())


def test_onsets_within_a_sample_leave_no_hole_and_drift_does_not_add_up_to_an_overlap(tmp_path: Path) -> None:
    for drift in (0.003, -0.003, 0.0003):
        onsets = [n * (1 + drift) for n in range(4)]
        record = open_record(write(tmp_path / "a.edf", [one()], plus("EDF+D", *onsets)))
        assert record.total == 1000
        assert not np.isnan(values(record)).any()
    record = open_record(write(tmp_path / "a.edf", [one()], plus("EDF+D", 0, 1, 2.0101, 3.0101)))
    assert record.total == 1003  # 0.0101 s are 2.5 samples


def test_a_hole_is_as_long_for_every_signal(tmp_path: Path) -> None:
    x, slow = steps(4), steps(4, 10)
    path = write(tmp_path / "a.edf", [one(x), Channel(slow, 10, "ECG V1")], plus("EDF+D", 0, 1, 2.3, 3.3))
    record, other = open_record(path), open_record(path, fs=10, leads=["V1"])
    assert (record.total, record.fs, other.total, other.fs) == (1075, 250.0, 43, 10.0)
    assert np.flatnonzero(np.isnan(values(record)[0])).tolist() == list(range(500, 575))
    assert np.flatnonzero(np.isnan(values(other)[0])).tolist() == [20, 21, 22]


def test_records_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    x = steps(4)
    record = open_record(write(tmp_path / "a.edf", [one(x)], plus("EDF+D", 3, 0, 5, 1)))
    expected = [second(x, 1), second(x, 3), NAN, second(x, 0), NAN, second(x, 2)]
    np.testing.assert_allclose(values(record)[0], np.concatenate(expected), atol=1e-6)
    assert record.notes == ("its records are not in the order of time: they are put in order",)


def test_records_that_overlap_are_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.edf", [one()], plus("EDF+D", 0, 1, 1.5, 7))
    with pytest.raises(DeviceError, match=r"record 3 begins 0\.5 s before the end of record 2; export it again"):
        open_record(path)


def test_a_record_without_a_time_has_no_place(tmp_path: Path) -> None:
    x = steps(4)
    header = Header(kind="EDF+D", onsets=[onset(0), "damaged", onset(2), onset(3)])
    record = open_record(write(tmp_path / "a.edf", [one(x)], header))
    np.testing.assert_allclose(values(record)[0], np.concatenate([second(x, 0), NAN, second(x, 2), second(x, 3)]), atol=1e-6)
    assert record.notes == ("records that do not say when they were are left out: 1",)
    with pytest.raises(DeviceError, match="does not say when its records were"):
        open_record(write(tmp_path / "b.edf", [one(x)], replace(header, onsets=[""] * 4)))
    with pytest.raises(DeviceError, match="has no signal that says when its records were"):
        open_record(write(tmp_path / "c.edf", [one(x)], replace(header, onsets=None)))


def test_what_calls_itself_continuous_is_so_unless_its_times_leave_holes(tmp_path: Path) -> None:
    x = steps(4)
    record = open_record(write(tmp_path / "a.edf", [one(x)], plus("EDF+C", 0, 1, 2, 3)))
    assert (record.total, record.notes) == (1000, ())
    record = open_record(write(tmp_path / "b.edf", [one(x)], plus("EDF+C", 0, 1, 3, 4)))
    np.testing.assert_allclose(
        values(record)[0], np.concatenate([second(x, 0), second(x, 1), NAN, second(x, 2), second(x, 3)]), atol=1e-6
    )
    assert record.notes == ("it says that it has no holes, but the times of its records have: these are kept as holes",)
    record = open_record(write(tmp_path / "c.edf", [one(x)], plus("EDF+C", 0, 0, 0, 0)))
    assert (record.total, record.notes) == (
        1000,
        ("the times of its records disagree with its length: it is read without holes, as it says it is",),
    )
    record = open_record(write(tmp_path / "d.edf", [one(x)], Header(kind="EDF+C", onsets=[onset(0), "", "", onset(9)])))
    assert (record.total, record.notes) == (1000, ())


def test_the_annotations_of_a_plain_file_are_no_times(tmp_path: Path) -> None:
    record = open_record(write(tmp_path / "a.edf", [one()], Header(onsets=[onset(n * 7) for n in range(4)])))
    assert (record.total, record.leads, record.left_out) == (1000, ("II",), ())


def test_a_time_beyond_all_recorders_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.edf", [one()], plus("EDF+D", 0, 1, 2, 900_000_000))
    with pytest.raises(DeviceError, match="lasts 900000000 s by the times of its records"):
        open_record(path)


def test_many_holes_are_read_as_fast_as_none(tmp_path: Path) -> None:
    count = 3000
    x = steps(count, 10)
    record = open_record(
        write(tmp_path / "a.edf", [Channel(x, 10)], plus("EDF+D", *(2.0 * n for n in range(count)))), leads=["II"]
    )
    assert record.total == 20 * count - 10
    np.testing.assert_allclose(values(record, 40_000, 40_010)[0], mv(x[20_000:20_010]), atol=1e-6)


# Length


def test_a_recorder_that_was_killed_leaves_what_it_wrote(tmp_path: Path) -> None:
    x = steps(4)
    for records in ("-1", "0", "", "abc"):
        record = open_record(write(tmp_path / "a.edf", [one(x)], Header(records=records), tail=b"\1" * 77))
        np.testing.assert_allclose(values(record)[0], mv(x), atol=1e-6)
        assert record.notes == (
            "it does not say how many records it has, as if its recorder was stopped: the 4 in it are read; "
            "77 bytes of one that was not finished are left out",
        )


def test_a_file_that_is_written_at_this_moment_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    x = steps(6)
    path = write(tmp_path / "a.edf", [one(x[: 4 * FS])], Header(records="-1"))
    record = open_record(path)
    write(path, [one(x)], Header(records="-1"))
    np.testing.assert_allclose(values(record)[0], mv(x[: 4 * FS]), atol=1e-6)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DeviceError, match="has become shorter while it was read"):
        values(record)


def test_a_file_that_becomes_another_one_is_not_read_as_the_first(tmp_path: Path) -> None:
    path = write(tmp_path / "a.edf", [one()], Header(records="-1"))
    record = open_record(path)
    write(path, [one()])  # its recorder ended: the number of records is there
    assert record.read(0, 10).shape == (1, 10)
    for other in ([one(), one(label="ECG V1")], [one(unit="uV")]):
        write(path, other)
        with pytest.raises(DeviceError, match="has become another file while it was read"):
            record.read(0, 10)


def test_no_records_are_no_samples(tmp_path: Path) -> None:
    for records in ("0", "-1"):
        with pytest.raises(DeviceError, match="holds no samples"):
            open_record(write(tmp_path / "a.edf", [one(steps(0))], Header(records=records)))


def test_a_truncated_file_is_refused_and_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.edf", [one(), one(label="ECG V1")])
    whole = path.read_bytes()
    for size, why in (
        (len(whole) - 1, "4 records expected, 3 found; fetch it again"),
        (300, "ends within its header"),
        (0, "it is empty"),
    ):
        path.write_bytes(whole[:size])
        with pytest.raises(DeviceError, match=why):
            open_record(path)
    assert capfd.readouterr() == ("", "")


def test_more_records_than_stated_are_named(tmp_path: Path) -> None:
    record = open_record(write(tmp_path / "a.edf", [one()], Header(records="3")))
    assert (record.total, record.notes) == (750, ("it holds 4 records, and its header says 3: the others are not read",))


def test_a_header_of_another_size_counts_if_the_file_fits_it(tmp_path: Path) -> None:
    x = steps(4)
    path = write(tmp_path / "a.edf", [one(x)], Header(size="1024"))
    record = open_record(path)
    np.testing.assert_allclose(values(record)[0], mv(x), atol=1e-6)
    assert record.notes == ("it states a header of 1024 bytes, which has 512",)
    whole = path.read_bytes()
    path.write_bytes(whole[:512] + bytes(512) + whole[512:])
    record = open_record(path)
    np.testing.assert_allclose(values(record)[0], mv(x), atol=1e-6)
    assert record.notes == ()


# Rates


def test_an_eeg_at_another_rate_is_left_out_and_named(tmp_path: Path) -> None:
    x = steps(4, 256)
    path = write(
        tmp_path / "a.edf",
        [
            Channel(steps(4, 512, 2), 512, "EEG Fpz-Cz", "uV"),
            Channel(x, 256, "ECG II"),
            Channel(steps(4, 32, 3), 32, "Thor Res", "uV"),
            Channel(steps(4, 1, 4), 1, "SpO2", "%"),
        ],
        plus("EDF+C", 0, 1, 2, 3),
    )
    record = open_record(path)
    assert (record.fs, record.leads, record.total) == (256.0, ("II",), 1024)
    assert record.left_out == ("EEG Fpz-Cz", "Thor Res", "SpO2")
    np.testing.assert_allclose(values(record)[0], mv(x), atol=1e-6)


@pytest.mark.parametrize(
    ("length", "samples", "fs"), [("0.996", 249, 250.0), ("0,5", 128, 256.0), ("10", 3605, 360.5), ("2E0", 500, 250.0)]
)
def test_the_rate_is_exact(tmp_path: Path, length: str, samples: int, fs: float) -> None:
    record = open_record(write(tmp_path / "a.edf", [Channel(steps(40), samples)], Header(length=length)))
    assert record.fs == fs


def test_records_without_a_length_ask_for_the_rate(tmp_path: Path) -> None:
    x = steps(4)
    path = write(tmp_path / "a.edf", [one(x)], Header(length="0"))
    with pytest.raises(DeviceError, match=r"does not say its fs.*--fs 250"):
        open_record(path)
    record = open_record(path, fs=200)
    assert (record.fs, record.total) == (200.0, 1000)
    np.testing.assert_allclose(values(record)[0], mv(x), atol=1e-6)
    with pytest.raises(DeviceError, match="its records have no length"):
        open_record(write(tmp_path / "b.edf", [one()], plus("EDF+D", 0, 1, 2, 3, length="0")), fs=200)


@pytest.mark.parametrize("length", ["-1", "nan", "inf", "", "1e99", "1e-320", "x"])
def test_a_length_of_records_that_is_none_is_refused(tmp_path: Path, length: str) -> None:
    with pytest.raises(DeviceError, match="states records of"):
        open_record(write(tmp_path / "a.edf", [one()], Header(length=length)))


def test_another_rate_than_given_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"250 Hz.*360"):
        open_record(write(tmp_path / "a.edf", [one()]), fs=360)


# Values


@pytest.mark.parametrize(
    "unit", ["uV", "UV", b"\xb5V", b"\xc2\xb5V", b"\xce\xbcV", b"uV\0\0\0\0\0", "µV", " uV", b"uV\0xyz"], ids=repr
)
def test_microvolts_are_microvolts_however_written(tmp_path: Path, unit: str | bytes) -> None:
    x = steps(4)
    record = open_record(write(tmp_path / "a.edf", [one(x, unit=unit, physical=("-3276.8", "3276.7"))]))
    np.testing.assert_allclose(values(record)[0], x * 1e-4, atol=1e-7)
    assert record.uv_per_lsb == pytest.approx(0.1)


def test_units_that_are_no_voltage_or_missing(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="lead II is in mmHg, which is no voltage"):
        open_record(write(tmp_path / "a.edf", [one(unit="mmHg")]))
    with pytest.raises(DeviceError, match=r"does not say its units.*--units mV"):
        open_record(write(tmp_path / "a.edf", [one(unit="")]))
    assert open_record(write(tmp_path / "a.edf", [one(unit="")]), units="uV").read(0, 2).shape == (1, 2)
    with pytest.raises(DeviceError, match="is in \ufffdV, which is no voltage"):
        open_record(write(tmp_path / "a.edf", [one(unit=b"\x81V")]))


@pytest.mark.parametrize(
    ("physical", "digital", "factor", "shift"),
    [
        (("-32.768", "32.767"), ("-32768", "32767"), 0.001, 0.0),
        (("32.768", "-32.767"), ("-32768", "32767"), -0.001, 0.0),
        (("-32.767", "32.768"), ("32767", "-32768"), -0.001, 0.0),
        (("-32,768", "+32,767"), ("-32768", " 32767"), 0.001, 0.0),
        (("0", "4.095"), ("0", "4095"), 0.001, 0.0),
        (("-1", "1"), ("0", "4000"), 0.0005, -1.0),
        (("-2.5E-1", ".75"), ("-1000.0", "1.0e3"), 0.0005, 0.25),
        ((b"-10\0", b"10\0\0\0\0"), ("-100", "100"), 0.1, 0.0),
    ],
)
def test_ranges_scale_the_steps(
    tmp_path: Path, physical: tuple[str, str], digital: tuple[str, str], factor: float, shift: float
) -> None:
    x = steps(4)
    record = open_record(write(tmp_path / "a.edf", [one(x, physical=physical, digital=digital)]))
    np.testing.assert_allclose(values(record)[0], factor * x + shift, atol=1e-4)
    assert record.uv_per_lsb == pytest.approx(abs(1e3 * factor))


@pytest.mark.parametrize(
    ("physical", "digital"),
    [
        (("0", "0"), ("-32768", "32767")),
        (("-1", "1"), ("0", "0")),
        (("", "1"), ("-100", "100")),
        (("x", "1"), ("-100", "100")),
        (("nan", "1"), ("-100", "100")),
        (("-1e308", "1e308"), ("-100", "100")),
        (("-1", "1_0"), ("-100", "100")),
    ],
)
def test_ranges_that_are_none_are_named_and_harm_no_other_signal(
    tmp_path: Path, physical: tuple[str, str], digital: tuple[str, str]
) -> None:
    path = write(tmp_path / "a.edf", [one(physical=physical, digital=digital), one(label="ECG V1")])
    with pytest.raises(DeviceError, match=r"lead II has the physical range .* and the digital range .*: one step would be 0 uV"):
        open_record(path)
    assert open_record(path, leads=["V1"]).left_out == ("II",)


@pytest.mark.parametrize("unit", ["mV", "uV"])
def test_bdf_has_24_bits(tmp_path: Path, unit: str) -> None:
    x = np.array([*steps(4)[:-4], 8_388_607, -8_388_608, -1, 0])
    physical = ("-8388608", "8388607")
    path = write(
        tmp_path / "a.bdf", [one(x, unit=unit, physical=physical, digital=physical)], Header(b"\xffBIOSEMI", kind="24BIT")
    )
    record = open_record(path)
    np.testing.assert_array_equal(values(record)[0], (x * {"uV": 1e-3, "mV": 1.0}[unit]).astype(np.float32))


def test_bdf_with_holes_and_a_status_channel(tmp_path: Path) -> None:
    x = steps(4)
    status = Channel(np.full(4 * FS, 65_536), FS, "Status", "Boolean")
    header = replace(plus("BDF+D", 0, 1, 4, 5), version=b"\xffBIOSEMI")
    record = open_record(write(tmp_path / "a.bdf", [one(x), status], header))
    np.testing.assert_allclose(values(record)[0], np.concatenate([mv(x[:500]), NAN, NAN, mv(x[500:])]), atol=1e-6)
    assert (record.leads, record.left_out) == (("II",), ("Status",))


def test_another_order_of_bytes_is_not_guessed(tmp_path: Path) -> None:
    x = np.array([1, 256, -2, 0x0102])
    record = open_record(write(tmp_path / "a.edf", [Channel(x, 4)]))
    np.testing.assert_allclose(values(record)[0], mv(x), atol=1e-7)


# Header


@pytest.mark.parametrize(
    ("date", "time", "recording", "note"),
    [
        ("02.03.21", "10.20.30", "", None),
        ("29.02.00", "23.59.59", "", None),
        ("01-01-00", "10:20:30", "", None),
        ("01/01/99", "10.20.30", "", None),
        ("02.03.yy", "10.20.30", "Startdate 02-MAR-2085 X X X", None),
        ("00.00.00", "00.00.00", "", "its date is 00.00.00"),
        ("31.02.99", "10.20.30", "", "its date is 31.02.99"),
        ("29.02.01", "10.20.30", "", "its date is 29.02.01"),
        ("02.03.yy", "10.20.30", "", "its date is 02.03.yy"),
        ("02.03.yy", "10.20.30", "Startdate X X X X", "it does not say its date"),
        ("01.01.85", "00.00.00", "Startdate X X X X", "it does not say its date"),
        ("", "", "", "its date is empty"),
        ("XX.XX.XX", "10.20.30", "", "its date is XX.XX.XX"),
        ("1.1.1", "24.00.00", "", "its time of day is 24.00.00"),
        ("02.03.21", "", "", "its time of day is empty"),
        ("02.03.21", b"\0\0\0", "", "its time of day is empty"),
        (b"\xb2.\xb3.21", "10.20.30", "", "its date is ².³.21"),
    ],
)
def test_no_date_makes_a_file_unreadable(tmp_path: Path, date: str, time: str, recording: str, note: str | None) -> None:
    x = steps(4)
    record = open_record(
        write(tmp_path / "a.edf", [one(x)], Header(date=date, time=time, recording=recording, patient=b"\xe9\xff"))
    )
    np.testing.assert_allclose(values(record)[0], mv(x), atol=1e-6)
    assert record.notes == (() if note is None else (f"{note}: {DATED}",))


@pytest.mark.parametrize(
    ("label", "lead"),
    [
        ("ECG II", "II"),
        ("ECG V1", "V1"),
        ("ekg avr", "avr"),
        ("ECG MLII", "MLII"),
        ("ECG 1", "ECG 1"),
        ("ECG", "ECG"),
        ("EKG", "EKG"),
        ("ECG EKG1", "EKG1"),
        ("EcgWaveform", "EcgWaveform"),
        ("ECG V1-Ref", "V1-Ref"),
        ("ECG LA-RA", "LA-RA"),
        (b"ECG \xe9", "ECG é"),
        ("ECG é", "ECG é"),
        (b"ECG II\0\0garb", "II"),
        (b"ECG II\0\0\0\0\0\0\0\0\0\0", "II"),
    ],
    ids=repr,
)
def test_labels_become_leads(tmp_path: Path, label: str | bytes, lead: str) -> None:
    assert open_record(write(tmp_path / "a.edf", [one(label=label)])).leads == (lead,)


def test_only_annotations_are_no_signal(tmp_path: Path) -> None:
    for length in ("0", "1"):
        with pytest.raises(DeviceError, match="holds only annotations, no signal"):
            open_record(write(tmp_path / "a.edf", [], plus("EDF+C", 0, 0, 0, length=length)))
    with pytest.raises(DeviceError, match="describes no signals"):
        open_record(write(tmp_path / "a.edf", []))


def test_hundreds_of_signals_beside_the_ecg(tmp_path: Path) -> None:
    x, eeg = steps(4), np.zeros(4 * 2048, int)
    channels = [Channel(eeg, 2048, f"EEG A{n}", "uV") for n in range(1, 300)]
    path = write(tmp_path / "a.bdf", [*channels[:200], one(x), *channels[200:]], Header(b"\xffBIOSEMI", kind="24BIT"))
    record = open_record(path)
    assert (record.leads, record.fs, len(record.left_out)) == (("II",), 250.0, 299)
    np.testing.assert_allclose(values(record, 100, 900)[0], mv(x[100:900]), atol=1e-6)


def test_what_is_no_edf_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.edf"
    for name in ("a.edf", "a.gdf", "a"):
        (tmp_path / name).write_bytes(b"GDF 1.25" + bytes(600))
        with pytest.raises(DeviceError, match="is a GDF file, which is not read: convert it"):
            open_record(tmp_path / name)
    path.write_bytes(b"abc" * 300)
    with pytest.raises(DeviceError, match="begins with 'abcabcab', not with 0 or BIOSEMI"):
        open_record(path)
    path.write_bytes(b"")
    with pytest.raises(DeviceError, match="it is empty"):
        open_record(path)


def test_suffixes(tmp_path: Path) -> None:
    import gzip

    x = steps(4)
    path = write(tmp_path / "a.edf", [one(x)])
    raw = path.read_bytes()
    for name, content in {
        "b.rec": raw,
        "c.EDF": raw,
        "d.edf.gz": gzip.compress(raw),
        "e.bin": raw,
        "f.rec.gz": gzip.compress(raw),
    }.items():
        other = tmp_path / name
        other.write_bytes(content)
        assert format_of(other) == "edf", name
        np.testing.assert_allclose(values(open_record(other))[0], mv(x), atol=1e-6)


def test_two_beds_read_one_file_at_once(tmp_path: Path) -> None:
    x = steps(60)
    path = write(tmp_path / "a.edf", [one(x)])
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: values(open_record(path)), range(16)):
            np.testing.assert_allclose(found[0], mv(x), atol=1e-6)


# Kinds


@st.composite
def valid(draw: st.DrawFn) -> list[dict[str, object]]:
    """Return what pyedflib is told to write: signals of several rates and ranges."""
    signals = []
    for row in range(draw(st.integers(1, 4))):
        least = draw(st.integers(-30_000, 29_000))
        most = draw(st.integers(least + 1, least + 1000))
        first = draw(st.integers(-32_768, 32_000))
        last = draw(st.integers(first + 100, 32_767))
        signals.append(
            {
                "label": f"ECG {('II', 'V1', 'V5', 'I')[row]}",
                "dimension": draw(st.sampled_from(["uV", "mV"])),
                "sample_frequency": draw(st.sampled_from([1, 100, 128, 250, 512, 20_000])),
                "physical_min": least,
                "physical_max": most,
                "digital_min": first,
                "digital_max": last,
                "transducer": "",
                "prefilter": "",
            }
        )
    return signals


@pytest.mark.parametrize(
    "kind", [pyedflib.FILETYPE_EDF, pyedflib.FILETYPE_EDFPLUS, pyedflib.FILETYPE_BDF, pyedflib.FILETYPE_BDFPLUS]
)
def test_what_pyedflib_writes_and_reads_reads_the_same(kind: int, tmp_path: Path) -> None:
    path = tmp_path / "a.edf"

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(valid(), st.integers(1, 5), st.integers(0, 2**32))
    def same(signals: list[dict[str, object]], seconds: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        with pyedflib.EdfWriter(str(path), len(signals), file_type=kind) as writer:
            writer.setSignalHeaders(signals)
            ranges = [(int(one["digital_min"]), int(one["digital_max"])) for one in signals]  # type: ignore[call-overload]
            rates = [int(one["sample_frequency"]) for one in signals]  # type: ignore[call-overload]
            writer.writeSamples(
                [
                    rng.integers(*pair, seconds * fs, endpoint=True, dtype=np.int32)
                    for pair, fs in zip(ranges, rates, strict=True)
                ],
                digital=True,
            )
        with pyedflib.EdfReader(str(path)) as reader:
            theirs = [reader.readSignal(row) for row in range(len(signals))]
            fs = [reader.getSampleFrequency(row) for row in range(len(signals))]
        for row, signal in enumerate(signals):
            lead = str(signal["label"])[4:]
            record = open_record(path, leads=[lead])
            assert (record.fs, record.total) == (fs[row], theirs[row].size)
            expected = theirs[row] * (1e-3 if signal["dimension"] == "uV" else 1.0)
            np.testing.assert_allclose(values(record)[0], expected, rtol=1e-5, atol=1e-5 * record.uv_per_lsb)

    same()


FIELDS = st.sampled_from(
    [
        b"",
        b"-1",
        b"0",
        b"1",
        b"1e9",
        b"-0.5",
        b"0,1",
        b"nan",
        b"99999999",
        b"1e-5",
        b"\0" * 8,
        b"\xb5V",
        b"EDF+D",
        b"BDF+C",
        b"2",
        b"300",
    ]
)


@pytest.mark.parametrize("version", [b"0", b"\xffBIOSEMI"])
def test_whatever_a_header_holds_is_an_error_or_contents(version: bytes, tmp_path: Path) -> None:
    header = replace(plus("BDF+D" if version[1:] else "EDF+D", 0, 1, 4, 5), version=version)
    whole = write(tmp_path / "whole.edf", [one(), Channel(steps(4, 10), 10, "SpO2", "%")], header).read_bytes()
    path = tmp_path / "a.edf"
    numbers = st.sampled_from([168, 176, 184, 192, 236, 244, 252, *range(256 + 288, 256 + 3 * 136 + 3 * 8, 8), 960])

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.tuples(numbers, FIELDS), max_size=3),
        st.lists(st.tuples(st.integers(0, 1100), st.integers(0, 255)), max_size=3),
        st.integers(0, len(whole)) | st.none(),
    )
    @example([], [], None)
    def opened(fields: list[tuple[int, bytes]], noise: list[tuple[int, int]], size: int | None) -> None:
        raw = bytearray(whole)
        for at, text in fields:
            raw[at : at + 8] = text.ljust(8)
        for at, byte in noise:
            raw[at] = byte
        path.write_bytes(raw[:size])
        try:
            record = open_record(path, "edf", strict=False)
        except DeviceError as error:
            assert "a.edf: " in str(error)
            return
        assert record.fs > 0
        assert record.total > 0
        assert record.uv_per_lsb > 0
        for start in (0, record.total // 2, max(0, record.total - 100)):
            stop = min(record.total, start + 100)
            assert record.read(start, stop).shape == (len(record.leads), stop - start)

    opened()


def test_a_signal_without_samples_is_named_and_left_out_beside_one_that_has_some(tmp_path: Path) -> None:
    empty = Channel(np.zeros(0, int), 0, "ECG II")
    path = write(tmp_path / "empty.edf", [empty], Header(records="5"))
    for fs in (None, 250):
        with pytest.raises(DeviceError, match=r"holds no samples of II$"):
            open_record(path, fs=fs)
    both = write(tmp_path / "both.edf", [Channel(steps(5), 250, "ECG V1"), empty], Header(records="5"))
    assert (open_record(both).leads, open_record(both).left_out) == (("V1",), ("II",))
    with pytest.raises(DeviceError, match=r"holds no samples of II$"):
        open_record(both, leads=["II"])
