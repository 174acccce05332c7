"""Tables as people, spreadsheets and recorders write them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgnat_devices.records import OpenRecord, open_record
from ecgnat_stream.errors import DeviceError, EcgnatError, InputError
from ecgnat_stream.recordings import find_recordings

ROWS = 50
II = [round(0.1 * row - 2 + row % 3, 3) for row in range(ROWS)]
V1 = [round(-0.2 * row + 3, 3) for row in range(ROWS)]


def lines(line: Callable[[int], str], rows: int = ROWS) -> str:
    return "".join(f"{line(row)}\n" for row in range(rows))


def opened(path: Path, text: str | bytes, **given: Any) -> OpenRecord:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_record(path, **given)


def check(record: OpenRecord, fs: float, **leads: list[float]) -> None:
    assert (record.fs, record.leads, record.total) == (fs, tuple(leads), ROWS)
    np.testing.assert_allclose(record.read(0, ROWS), list(leads.values()), rtol=1e-5, atol=1e-9)


MV: dict[str, Any] = {"fs": 250, "units": "mV"}
BOTH: dict[str, Any] = MV | {"leads": ("II", "V1")}

DIALECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("II,V1\n" + lines(lambda at: f"{II[at]},{V1[at]}"), MV),
    "no header": (lines(lambda at: f"{II[at]},{V1[at]}"), BOTH),
    "pandas": (",II,V1\n" + lines(lambda at: f"{at},{II[at]},{V1[at]}"), MV),
    "pandas without names": (",0,1\n" + lines(lambda at: f"{at},{II[at]},{V1[at]}"), BOTH),
    "R write.csv": ('"","II","V1"\n' + lines(lambda at: f'"{at + 1}",{II[at]},{V1[at]}'), MV),
    "R write.table": ('"II" "V1"\n' + lines(lambda at: f'"{at + 1}" {II[at]} {V1[at]}'), MV),
    "quoted": ('"II","V1"\n' + lines(lambda at: f'"{II[at]}","{V1[at]}"'), MV),
    "decimal comma": ("II;V1\n" + lines(lambda at: f"{II[at]};{V1[at]}".replace(".", ",")), MV),
    "decimal comma, quoted": ("II,V1\n" + lines(lambda at: f'"{II[at]}","{V1[at]}"'.replace(".", ",")), MV),
    "tabs": ("II\tV1\n" + lines(lambda at: f"{II[at]}\t{V1[at]}"), MV),
    "blanks": ("   II      V1\n" + lines(lambda at: f"  {II[at]:.3f}   {V1[at]:.3f}"), MV),
    "MATLAB": (lines(lambda at: f"  {II[at]:.7e}  {V1[at]:.7e}"), BOTH),
    "NumPy": ("# II V1\n" + lines(lambda at: f"{II[at]:.18e} {V1[at]:.18e}"), MV),
    "pipes": ("II|V1\n" + lines(lambda at: f"{II[at]}|{V1[at]}"), MV),
    "Excel": ("sep=;\nII;V1\n" + lines(lambda at: f"{II[at]};{V1[at]}"), MV),
    "a delimiter at the end": ("II,V1,\n" + lines(lambda at: f"{II[at]},{V1[at]},"), MV),
    "a delimiter at the end of numbers": ("II,V1\n" + lines(lambda at: f"{II[at]},{V1[at]},"), MV),
    "minus of Unicode": ("II,V1\n" + lines(lambda at: f"{II[at]},{V1[at]}".replace("-", "\N{MINUS SIGN}")), MV),
    "signs": ("II,V1\n" + lines(lambda at: f"{II[at]:+.3f},{V1[at]:+.3e}"), MV),
    "a byte order mark": ("\ufeffII,V1\n" + lines(lambda at: f"{II[at]},{V1[at]}"), MV),
    "text beside": ("II,V1,label\n" + lines(lambda at: f"{II[at]},{V1[at]},N"), MV),
    "units in names": ("II (mV),V1_mV\n" + lines(lambda at: f"{II[at]},{V1[at]}"), {"fs": 250}),
    "other units in names": ("II [uV],V1/V\n" + lines(lambda at: f"{1e3 * II[at]},{V1[at] / 1e3:.9f}"), {"fs": 250}),
    "units in a row": ("II,V1\nmV,mV\n" + lines(lambda at: f"{II[at]},{V1[at]}"), {"fs": 250}),
    "a comment": ("% made by hand\n# Sampling rate: 250 Hz\nII,V1\n" + lines(lambda at: f"{II[at]},{V1[at]}"), {"units": "mV"}),
    "time last": ("II,V1,time\n" + lines(lambda at: f"{II[at]},{V1[at]},{at / 250:.3f}"), {"units": "mV"}),
}


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_table_reads_the_same_however_it_is_written(name: str, end: str, tmp_path: Path) -> None:
    text, given = DIALECTS[name]
    check(opened(tmp_path / "a.csv", text.replace("\n", end), **given), 250, II=II, V1=V1)
    assert len(find_recordings(tmp_path).recordings) == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    text = ("II (µV),V1 (µV)\n" + lines(lambda at: f"{1e3 * II[at]},{1e3 * V1[at]}")).encode(encoding)
    check(opened(tmp_path / "a.csv", text, fs=250), 250, II=II, V1=V1)
    with gzip.open(tmp_path / "b.csv.gz", "wb") as file:
        file.write(text)
    check(open_record(tmp_path / "b.csv.gz", fs=250), 250, II=II, V1=V1)


@pytest.mark.parametrize("quotes", ["''", '""', "'"])
def test_a_line_of_quotes_alone_is_a_row_without_a_number(quotes: str, tmp_path: Path) -> None:
    record = opened(tmp_path / "a.csv", f"II\n0.1\n{quotes}\n0.3\n" + "0.4\n" * 300, fs=250, units="mV")
    np.testing.assert_allclose(record.read(0, 4)[0], [0.1, np.nan, 0.3, 0.4], atol=1e-6)
    alone = tmp_path / "b.csv"
    alone.write_bytes(b"\x01\r" + quotes.encode())
    assert np.isnan(open_record(alone, fs=250, units="mV").read(0, 1)).all()


def test_thousands_with_decimal_commas_are_read(tmp_path: Path) -> None:
    commas = [f"{value:.3f}".replace(".", ",") for value in V1]
    text = "II;V1\n" + lines(lambda at: f"1.234,{at:02d};{commas[at]}")
    check(opened(tmp_path / "a.csv", text, fs=250, units="mV"), 250, II=[1234 + at / 100 for at in range(ROWS)], V1=V1)


EXPORTS: dict[str, tuple[str, dict[str, Any], float, tuple[str, ...]]] = {
    "PhysioBank": (
        "'Elapsed time','MLII','V5'\n'hh:mm:ss.mmm','mV','mV'\n"
        + lines(lambda at: f"'0:{at / 250:06.3f}',{II[at]:.3f},{V1[at]:.3f}"),
        {}, 250, ("MLII", "V5"),
    ),
    "rdsamp": (
        "'Time and date','MLII','V5'\n'[hh:mm:ss.mmm dd/mm/yyyy]','mV','mV'\n"
        + lines(lambda at: f"'[23:59:{59 + at / 250 - 60 * (at >= 250):06.3f} 04/03/2021]',{II[at]:.3f},{V1[at]:.3f}"),
        {}, 250, ("MLII", "V5"),
    ),
    "Kaggle mitdb": (
        "'sample #','MLII','V5'\n" + lines(lambda at: f"{at},{II[at] * 200:.0f},{V1[at] * 200:.0f}"),
        {"fs": 250, "units": "uV", "scale": 5}, 250, ("MLII", "V5"),
    ),
    "OpenBCI": (
        "%OpenBCI Raw EXG Data\n%Number of channels = 2\n%Sample Rate = 250 Hz\n%Board = OpenBCI_GUI$BoardCytonSerial\n"
        "Sample Index, EXG Channel 0, EXG Channel 1, Accel Channel 0, Other, Timestamp, Other, Timestamp (Formatted)\n"
        + lines(lambda at: f"{at % 256}.0, {1e3 * II[at]}, {1e3 * V1[at]}, 0.1, 0, {1608141838.5 + at / 250:.6f}, 0, 13:03:58"),
        {}, 250, ("EXG Channel 0", "EXG Channel 1"),
    ),
    "OpenSignals": (
        "# OpenSignals Text File Format\n# "
        + json.dumps({"00:07:80": {"column": ["nSeq", "I1", "ECG", "ECG 2"], "sampling rate": 1000}})
        + "\n# EndOfHeader\n" + lines(lambda at: f"{at % 16}\t0\t{II[at] * 1000:.0f}\t{V1[at] * 1000:.0f}\t"),
        {"units": "uV", "leads": ("ECG", "ECG 2")}, 1000, ("ECG", "ECG 2"),
    ),
    "Polar": (
        "Phone timestamp;sensor timestamp [ns];timestamp [ms];ecg [uV];ecg 2 [uV]\n"
        + lines(lambda at: f"2022-01-13T12:00:02.{at:03d};{599616000000000000 + at * 7692307};{at * 7.692307:.6f};"
                f"{1e3 * II[at]:.0f};{1e3 * V1[at]:.0f}"),
        {}, 130, ("ecg", "ecg 2"),
    ),
    "Shimmer": (
        "sep=\t\nShimmer_8B2D_Timestamp_Unix_CAL\tECG LL-RA\tECG LA-RA\nms\tmV\tmV\n"
        + lines(lambda at: f"{1.4e12 + at * 1.953125}\t{II[at]}\t{V1[at]}\t"),
        {}, 512, ("ECG LL-RA", "ECG LA-RA"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPORTS)
def test_exports_open_as_they_are(name: str, tmp_path: Path) -> None:
    text, given, fs, leads = EXPORTS[name]
    check(opened(tmp_path / "a.csv", text, **given), fs, **dict(zip(leads, (II, V1), strict=True)))


@pytest.mark.parametrize(
    ("key", "rate", "lead", "comma"), [("Unit", "512 hertz", "Lead I", False), ("Einheit", "512 Hertz", "Ableitung I", True)]
)
def test_an_export_of_the_apple_watch(key: str, rate: str, lead: str, comma: bool, tmp_path: Path) -> None:
    head = f'Name,Anna\nDate of Birth,"Jan 1, 1980"\nRecorded Date,2021-03-04 05:06:07\nRate,{rate}\n\n\nx,{lead}\n{key},µV\n\n'
    body = lines(lambda at: f"{1e3 * II[at]:.3f}")
    record = opened(tmp_path / "a.csv", head + (body.replace(".", ",") if comma else body))
    check(record, 512, I=II)


MISSING = ("", "NA", "N/A", "NaN", "nan", "-", "null", "None", "#N/A", ".", "?")


@pytest.mark.parametrize("cell", MISSING)
def test_a_missing_cell_is_a_missing_sample(cell: str, tmp_path: Path) -> None:
    text = "II,V1\n" + lines(lambda at: f"{cell if at % 3 == 1 else II[at]},{cell if at % 5 == 2 else V1[at]}")
    expected = [
        [np.nan if at % 3 == 1 else II[at] for at in range(ROWS)],
        [np.nan if at % 5 == 2 else V1[at] for at in range(ROWS)],
    ]
    np.testing.assert_allclose(opened(tmp_path / "a.csv", text, **MV).read(0, ROWS), expected, rtol=1e-6)


def test_an_empty_line_of_one_column_is_a_missing_sample(tmp_path: Path) -> None:
    record = opened(tmp_path / "a.csv", "II\n" + lines(lambda at: "" if at == 7 else f"{II[at]}") + "\n\n", **MV)
    expected = [np.nan if at == 7 else II[at] for at in range(ROWS)]
    np.testing.assert_allclose(record.read(0, record.total), [expected], rtol=1e-6)


TIMES: dict[str, Callable[[float], str]] = {
    "time": lambda s: f"{s:.4f}",
    "time_ms": lambda s: f"{1e3 * s:.1f}",
    "Time (us)": lambda s: f"{1e6 * s:.0f}",
    "timestamp": lambda s: f"{1608141838.5 + s:.4f}",
    "timestamp [ns]": lambda s: f"{1608141838500000000 + round(1e9 * s)}",
    "epoch time": lambda s: f"{1608141838500 + 1e3 * s:.0f}",
    "Elapsed time (s)": lambda s: f"{s:.3f}",
    "t": lambda s: f"{1e3 * s:.0f}",
    "datetime": lambda s: f"2021-03-04 23:{59 if s < 50 else 58}:{10 + s % 50:06.3f}",
    "Zeit": lambda s: f"{int(s // 60)}:{s % 60:06.3f}",
    "sample": lambda s: f"{round(s * 250)}",
    "index": lambda s: f"{round(s * 250) % 256}",
}


@pytest.mark.parametrize("name", [name for name in TIMES if name not in ("sample", "index")])
@pytest.mark.parametrize("fs", [250.0, 360.0])
def test_a_column_of_times_gives_the_rate_and_its_holes_are_gaps(name: str, fs: float, tmp_path: Path) -> None:
    rows, start, stop = 8000, 2000, 2000 + round(10 * fs)
    there = [row for row in range(rows) if not start <= row < stop]
    text = f"II,{name}\n" + "".join(f"{row % 97},{TIMES[name](row / fs)}\n" for row in there)
    record = opened(tmp_path / "a.csv", text, units="mV")
    expected = np.arange(rows, dtype=float) % 97
    expected[start:stop] = np.nan
    assert (record.fs, record.total) == (fs, rows)
    np.testing.assert_array_equal(record.read(0, rows)[0], expected)
    np.testing.assert_array_equal(record.read(1990, 2010)[0], expected[1990:2010])
    with pytest.raises(InputError, match=rf"a rate of {fs:g} Hz \(its column .*\), but fs is 500"):
        open_record(tmp_path / "a.csv", units="mV", fs=500)
    assert open_record(tmp_path / "a.csv", units="mV", fs=fs * 1.0005).fs == fs * 1.0005


def test_a_first_column_that_only_rises_times_the_rows_without_a_header(tmp_path: Path) -> None:
    text = "".join(f"{row / 250:.3f},{row % 97}\n" for row in range(1000) if not 500 <= row < 600)
    record = opened(tmp_path / "a.csv", text, units="mV")
    assert (record.fs, record.leads, record.total) == (250, ("ECG",), 1000)
    assert np.isnan(record.read(500, 600)).all()


@pytest.mark.parametrize("name", ["sample", "index"])
def test_holes_of_a_counter_are_gaps_and_it_says_no_rate(name: str, tmp_path: Path) -> None:
    text = f"{name},II\n" + "".join(f"{TIMES[name](row / 250)},{row % 97}\n" for row in range(3000) if not 500 <= row < 600)
    expected = np.arange(3000, dtype=float) % 97
    expected[500:600] = np.nan
    record = opened(tmp_path / "a.csv", text, fs=250, units="mV")
    np.testing.assert_array_equal(record.read(0, record.total)[0], expected)
    with pytest.raises(DeviceError, match="does not say its fs"):
        open_record(tmp_path / "a.csv", units="mV")


def test_a_row_that_is_there_twice_counts_once_and_other_samples_of_one_time_are_refused(tmp_path: Path) -> None:
    rows = [f"{row / 250:.3f},{row % 97}\n" for row in range(1000)]
    record = opened(tmp_path / "a.csv", "time,II\n" + "".join(rows[:500] + rows[499:]), units="mV")
    np.testing.assert_array_equal(record.read(0, record.total)[0], np.arange(1000) % 97)
    assert record.notes == ("1 of its rows are there twice and count once",)
    with pytest.raises(DeviceError, match="line 502 has the time of the line before"):
        opened(tmp_path / "a.csv", "time,II\n" + "".join([*rows[:500], "1.996,0.5\n", *rows[500:]]), units="mV")


COARSE: dict[str, Callable[[float], str]] = {
    "time": lambda s: f"{int(s)}",
    "timestamp": lambda s: f"{1700000000 + int(s)}",
    "clock time": lambda s: f"10:{int(s // 60):02}:{int(s % 60):02}",
    "datetime": lambda s: f"2021-03-04 10:{int(s // 60):02}:{int(s % 60):02}",
    "Time": lambda s: f"00:{int(s // 60):02}:{int(s % 60):02}:{int(s * 1000) % 1000:03}",
    "time (s)": lambda s: f"{s:.4g}",
}


@pytest.mark.parametrize("name", COARSE)
@pytest.mark.parametrize("fs", [125, 360])
def test_times_coarser_than_the_rows_give_the_rate_and_their_holes_are_gaps(name: str, fs: int, tmp_path: Path) -> None:
    rows, start, stop = 120 * fs, 50 * fs + 1, 70 * fs
    there = [row for row in range(rows) if not start <= row < stop]
    text = f"{name},II\n" + "".join(f"{COARSE[name](row / fs)},{row % 97}\n" for row in there)
    options: list[dict[str, Any]] = [{}, {"fs": fs}, {"fs": fs + 0.1}, {"fs": 100, "strict": False}]
    for option in options:
        record = opened(tmp_path / "a.csv", text, units="mV", **option)
        assert record.fs == (fs if option.get("fs") in (None, 100) else option["fs"])
        assert abs(record.total - rows) <= 7
        holes = np.flatnonzero(np.isnan(record.read(0, record.total)[0]))
        assert (holes[0], holes[-1] - holes[0]) == (start, len(holes) - 1)
        assert abs(len(holes) - (stop - start)) <= 7
    with pytest.raises(InputError, match=r"a rate of \d+ Hz \(its column .*\), but fs is 100"):
        open_record(tmp_path / "a.csv", units="mV", fs=100)


def test_stamps_too_coarse_for_a_rate_need_fs_which_then_counts(tmp_path: Path) -> None:
    text = "time,II\n" + "".join(f"10:{row // 15_000:02},{row % 97}\n" for row in range(45_000) if not 16_000 <= row < 17_000)
    with pytest.raises(DeviceError, match="its column time holds stamps too coarse to say its rate: give fs"):
        opened(tmp_path / "a.csv", text, units="mV")
    assert open_record(tmp_path / "a.csv", units="mV", fs=250).fs == 250


def test_a_table_that_says_its_rate_keeps_it_beside_others_that_do_not(tmp_path: Path) -> None:
    for head, row in (("time,II", "{:.3f},{}"), ("# fs: 500\nindex,II", "{},{}")):
        text = f"{head}\n" + "".join(row.format(at / 500 if "." in row else at, at % 97) + "\n" for at in range(1000))
        assert opened(tmp_path / "a.csv", text, units="mV", fs=250, strict=False).fs == 500
        with pytest.raises(InputError, match=r"a rate of 500 Hz.*, but fs is 250"):
            opened(tmp_path / "a.csv", text, units="mV", fs=250)


def test_a_column_called_as_times_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    text = "Time,II\n" + lines(lambda at: f"at {at} ticks,{II[at]}")
    with pytest.raises(DeviceError, match=r"has a column Time, called as times are, but it holds 'at 0 ticks'.* rename it"):
        opened(tmp_path / "a.csv", text, fs=250, units="mV")
    renamed = opened(tmp_path / "b.csv", text.replace("Time", "note"), fs=250, units="mV")
    assert renamed.left_out == ("note",)


BACKWARDS: dict[str, tuple[str, Callable[[int], str]]] = {
    "s": ("time", lambda at: f"{at / 250:.4f}"),
    "ms": ("time", lambda at: f"{4 * at}"),
    "coarse": ("time", lambda at: f"{at // 250}"),
    "text": ("time", lambda at: f"00:00:0{at / 250:.3f}"),
    "an index of pandas": ("", lambda at: f"{at}"),
}


@pytest.mark.parametrize("kind", BACKWARDS)
def test_a_table_sorted_newest_first_is_refused_also_with_a_rate(kind: str, tmp_path: Path) -> None:
    name, begin = BACKWARDS[kind]
    text = f"{name},II\n" + "".join(f"{begin(at)},{at % 97 + 0.5}\n" for at in range(999, -1, -1))
    with pytest.raises(
        DeviceError, match=r"line \d+, its .*column.*: the times run backwards from there on; sort the table by t"
    ):
        opened(tmp_path / "a.csv", text, fs=250, units="mV")


RDSAMP = lines(lambda at: f"    0:{at / 250:06.3f}    {II[at]:6.3f}    {V1[at]:6.3f}")


@pytest.mark.parametrize("clock", ["hh:mm:ss.mmm", "(mm:ss.mmm)", "(seconds)"])
@pytest.mark.parametrize("names", ["       Elapsed time      II        V1", "   Elapsed time  II  V1"])
def test_names_and_units_between_blanks_are_read(clock: str, names: str, tmp_path: Path) -> None:
    record = opened(tmp_path / "a.txt", f"{names}\n    {clock}      (mV)      (mV)\n{RDSAMP}")
    check(record, 250, II=II, V1=V1)


@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize("far", [0, 200_000])
def test_points_that_could_stand_between_thousands_are_refused(delimiter: str, far: int, tmp_path: Path) -> None:
    """``far``: lines before the first of them, in another piece of the file than the beginning."""
    before = "".join(f"{at % 900 - 450}{delimiter}{at % 7 / 8}\n" for at in range(far + 40))
    text = f"II (uV){delimiter}V1 (uV)\n{before}1.370{delimiter}0.5\n" + f"-95{delimiter}0.5\n" * 20
    with pytest.raises(
        DeviceError, match=rf"line {far + 42} in its column II '1.370' among whole numbers .* between thousands: s"
    ):
        opened(tmp_path / "a.csv", text, fs=250)
    for cells in ("1.37", "0.370", "1370"):  # one other number in the column, and the points are decimal
        assert opened(tmp_path / "a.csv", f"{text}{cells}{delimiter}0.5\n", fs=250).leads == ("II", "V1")


def test_days_of_a_spreadsheet_are_times(tmp_path: Path) -> None:
    text = "time,II\n" + "".join(f"{44259.5 + row / 250 / 86_400:.10f},{row % 97}\n" for row in range(8000))
    record = opened(tmp_path / "a.csv", text, units="mV")
    assert (record.fs, record.total) == (250, 8000)


def with_line(text: str, line: str, at: int = 30) -> str:
    rows = text.split("\n")
    return "\n".join([*rows[:at], line, *rows[at:]])


PLAIN = "time,II,V1\n" + lines(lambda at: f"{at / 250:.3f},{II[at]},{V1[at]}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (with_line(PLAIN, "0.116,abc,1"), "line 31 in its column II holds 'abc', which is no number"),
        (with_line(PLAIN, "0.116,1_0,1"), "line 31 in its column II holds '1_0'"),
        (with_line(PLAIN, '0.116,"1,234.5",1'), "column II holds '1,234.5': numbers with separators between thousands"),
        (with_line(PLAIN, "0.116,1"), "line 31 has 2 cells, but the lines above have 3"),
        (with_line(PLAIN, "0.116,1,2,3"), "line 31 has 4 cells"),
        (with_line(PLAIN, "time,II,V1"), "line 31 repeats the header"),
        (with_line(PLAIN, "0.002,1,1"), "line 31, its column time: the time runs backwards"),
        (lines(lambda at: f"{II[at]},{V1[at]},0.1,0.2", 2), "rows look like leads"),
        (lines(lambda at: ",".join(["0.5"] * 188)), "188 columns of numbers without names, as tables that hold a heartbeat"),
        (lines(lambda at: f"{at % 7},{at % 11}"), "two columns, or one with decimal commas"),
        ("II;V1\n" + lines(lambda at: f"1,{at + 100};2,{at + 200}"), "could stand before decimals or between thousands"),
        ("# Sampling rate: 360 Hz\n" + PLAIN, "states a rate of 360 Hz above its samples, but 250 Hz by its column time"),
        ("time,II\n" + lines(lambda at: f"{at / 250 + 1e9 * (at > 20):.3f},{at}"), "line 23, its column time: the time leaps by"),
        ("time,rr_ms\n" + lines(lambda at: f"{at * 0.8:.1f},800"), "a column rr_ms, as tables with a heartbeat in each row"),
        ("t,RR interval (ms)\n" + lines(lambda at: f"{at * 0.8:.1f},800"), "tables with a heartbeat in each row"),
        ("index,lead,mV\n" + lines(lambda at: f"{at},{'II' if at < 25 else 'V1'},{II[at]}"), "column lead (line 51: 'V1'), a r"),
        ("time,ECG\n" + lines(lambda at: f"{at / 250:.3f}s,{II[at]}mV"), "line 2 in its column ECG holds '-2.0mV', a number"),
        ("temps (ms);II\n" + lines(lambda at: f"1\u202f{at + 100};{II[at]}"), "'1\\u202f100' in its column temps: numbers"),
        (with_line(PLAIN, "0.116,1\u202f370,1"), "column II holds '1\\u202f370': numbers with separators between"),
        ("II," + ",".join(f"{at % 9 / 8}" for at in range(20_000)), "a row for each sample is needed; if its rows are leads, t"),
        ('{"II":{' + ",".join(f'"{at}":0.125' for at in range(20_000)), "is JSON"),
        ("Dear Anna,\nthis is no table.\n", "is no table of numbers"),
        ("path,label\na.csv,N\n", "is no table of numbers"),
        ("", "holds nothing"),
        ('{"ecg": [1, 2]}', "is JSON"),
        ("[[1, 2], [3, 4]]", "is JSON"),
        ("<!DOCTYPE html><table>", "is HTML or XML"),
        (b"PK\x03\x04" + bytes(50), "is a spreadsheet of Excel"),
        (b"\x00\x01\x02\x03", "is not text"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(text: str | bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(DeviceError) as caught:
        opened(tmp_path / "a.csv", text, units="mV")
    assert said in str(caught.value)
    assert caught.value.permanent


@pytest.mark.parametrize("name", ["a.xlsx", "a.json", "a.html", "a.parquet", "a.csv"])
def test_a_table_that_is_no_text_is_named_whatever_its_suffix(name: str, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"spreadsheet of Excel .* save its table as CSV"):
        opened(tmp_path / name, b"PK\x03\x04" + bytes(50))


def test_two_columns_or_one_with_commas_is_settled_by_the_leads(tmp_path: Path) -> None:
    text = lines(lambda at: f"{at % 7},{at % 10}")
    assert opened(tmp_path / "a.csv", text, **BOTH).leads == ("II", "V1")
    one = open_record(tmp_path / "a.csv", fs=250, units="mV", leads=("II",))
    np.testing.assert_allclose(one.read(0, ROWS), [[at % 7 + at % 10 / 10 for at in range(ROWS)]], rtol=1e-6)
    named = opened(tmp_path / "b.csv", "II\n" + text, **MV)
    np.testing.assert_array_equal(named.read(0, ROWS), one.read(0, ROWS))


def test_text_and_what_is_no_voltage_is_left_out_and_named(tmp_path: Path) -> None:
    record = opened(tmp_path / "a.csv", "II,rhythm,Accel X\n" + lines(lambda at: f"{II[at]},{'N' if at else 'AF'},{at}"), **MV)
    assert (record.leads, record.left_out) == (("II",), ("rhythm", "Accel X"))
    with pytest.raises(DeviceError, match="column rhythm holds text"):
        open_record(tmp_path / "a.csv", leads=("rhythm",), **MV).read(0, 1)


def test_a_long_table_takes_bounded_memory(tmp_path: Path) -> None:
    import tracemalloc

    rows = 200_000
    (tmp_path / "a.csv").write_text("time,II\n" + "".join(f"{row / 250:.3f},{row % 977 / 500:.3f}\n" for row in range(rows)))
    tracemalloc.start()
    try:
        record = open_record(tmp_path / "a.csv", units="mV")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert record.total == rows
    assert peak < 40 * 2**20, f"{peak / 2**20:.0f} MiB"
    np.testing.assert_allclose(record.read(rows - 3, rows), [[row % 977 / 500 for row in range(rows - 3, rows)]], rtol=1e-6)


VALUES = st.lists(
    st.tuples(*[st.one_of(st.none(), st.integers(-5_000_000, 5_000_000).map(lambda value: value / 1e4))] * 2),
    min_size=12,
    max_size=30,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=VALUES,
    mark=st.sampled_from([",", ";", "\t", "|"]),
    comma=st.booleans(),
    quoted=st.booleans(),
    missing=st.sampled_from(["", "NA", "nan", "null", "#N/A"]),
    comments=st.lists(st.sampled_from(["# by hand", "% of a recorder", "#"]), max_size=3),
    first=st.sampled_from(["", "index", "time", "datetime"]),
    end=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
)
def test_a_table_of_any_dialect_reads_back(
    rows: list[tuple[float | None, float | None]], mark: str, comma: bool, quoted: bool, missing: str, comments: list[str],
    first: str, end: str, last: bool, tmp_path: Path,
) -> None:  # fmt: skip
    comma = comma and (quoted or mark != ",")

    def cell(value: float | None) -> str:
        text = missing if value is None else f"{value:.4f}"
        return f'"{text}"' if quoted else text

    def written(at: int, row: tuple[float | None, float | None]) -> str:
        places = {"": [], "index": [str(at)], "time": [f"{at / 250:.3f}"], "datetime": [f"2021-03-04T05:06:{at / 250:06.3f}"]}
        numbers = [cell(value).replace(".", ",") if comma else cell(value) for value in row]
        times = [f'"{text}"' if quoted else text for text in places[first]]
        return mark.join([*(text.replace(".", ",") if comma else text for text in times), *numbers])

    names = mark.join(([first] if first else []) + ["II", "V1"])
    text = end.join([*comments, names, *(written(at, row) for at, row in enumerate(rows))]) + (end if last else "")
    record = opened(tmp_path / "a.csv", text, **MV)
    expected = np.array([[np.nan if value is None else value for value in row] for row in rows]).T
    assert (record.fs, record.leads, record.total) == (250, ("II", "V1"), len(rows))
    np.testing.assert_allclose(record.read(0, len(rows)), expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    content=st.one_of(st.binary(max_size=300), st.text("0123456789.,;\t\n\r \"'-+eENa:/[]{}#%=TZ", max_size=300).map(str.encode))
)
def test_any_bytes_are_a_table_or_an_error(content: bytes, tmp_path: Path) -> None:
    try:
        record = opened(tmp_path / "a.csv", content, **MV)
        assert record.read(0, min(record.total, 100)).shape[1] == min(record.total, 100)
    except EcgnatError as error:
        assert "a.csv" in str(error)


def test_whole_numbers_without_a_unit_may_be_steps_of_a_converter(tmp_path: Path) -> None:
    said = "give scale too, for a step of 5 uV --units uV --scale 5"
    (tmp_path / "a.csv").write_text("sample,MLII,V5\n" + "".join(f"{at},{at % 7},{at % 5}\n" for at in range(500)))
    with pytest.raises(DeviceError) as caught:
        open_record(tmp_path / "a.csv", fs=360)
    assert str(caught.value).endswith(said)
    (tmp_path / "b.csv").write_text("sample,MLII,V5\n" + "".join(f"{at},{at % 7 / 10},{at % 5 / 10}\n" for at in range(500)))
    with pytest.raises(DeviceError, match=r"--units mV$"):
        open_record(tmp_path / "b.csv", fs=360)
