"""WFDB records: headers from their bytes, samples of every format from any place, segments each by their own header."""

from __future__ import annotations

import os
import shutil
import socket
import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import wfdb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ecgnat_devices.records import open_record
from ecgnat_devices.records.contents import Asked
from ecgnat_devices.records.wfdb import open_wfdb
from ecgnat_stream.errors import DeviceError, InputError
from ecgnat_stream.wfdb_header import parse

CODES = (np.arange(400) * 7 % 401 - 200).astype("<i2")
II = "rec.dat 16 200(0)/mV 16 0 0 0 0 II"


def record(folder: Path, lines: str | bytes = II, first: str = "rec 1 250 400", codes: NDArray[np.int16] = CODES) -> Path:
    codes.tofile(folder / "rec.dat")
    content = lines if isinstance(lines, bytes) else lines.encode()
    (folder / "rec.hea").write_bytes(first.encode() + b"\n" + content + b"\n")
    return folder / "rec"


def samples(path: Path) -> NDArray[np.float32]:
    opened = open_record(path)
    return opened.read(0, opened.total)


# What a header says.


@pytest.mark.parametrize(
    "unit",
    [
        *("µV".encode(), "µV".encode("latin-1"), "μV".encode(), "μV".encode("iso-8859-7"), "µV".encode("cp437")),
        *(b"uV", b"UV", b"microVolts", b"MicroV", b"uVolts", b"[uV]", b"muV"),
    ],
)
def test_microvolts_are_microvolts_in_every_encoding(tmp_path: Path, unit: bytes) -> None:
    path = record(tmp_path, b"rec.dat 16 2(0)/" + unit + b" 16 0 0 0 0 II")
    opened = open_record(path)
    assert opened.uv_per_lsb == 0.5
    np.testing.assert_allclose(opened.read(0, 400)[0], CODES / 2 / 1000, rtol=1e-6)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_header_may_come_from_any_editor(tmp_path: Path, encoding: str, end: str) -> None:
    text = end.join(["", "# Müller", "rec\t1\t250\t400", "", "rec.dat\t16 \t 2(0)/µV  16 0 0 0 0\tII ", "#done", ""])
    path = record(tmp_path)
    path.with_suffix(".hea").write_bytes(text.encode(encoding))
    np.testing.assert_allclose(samples(path)[0], CODES / 2 / 1000, rtol=1e-6)


@pytest.mark.parametrize(
    ("unit", "said"),
    [("Âµ".encode() + b"V", "ÂµV"), (b"kV", "kV"), (b"furlong", "furlong")],
)
def test_a_unit_that_is_not_known_is_refused_by_name(tmp_path: Path, unit: bytes, said: str) -> None:
    path = record(tmp_path, b"rec.dat 16 2(0)/" + unit + b" 16 0 0 0 0 II")
    with pytest.raises(DeviceError, match=rf"lead II is in {said}, which is no voltage"):
        open_record(path)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("rec.dat 16 200(0)/mV 16 0 0 0 0 II", CODES / 200),
        ("rec.dat 16 200 16 0 0 0 0 II", CODES / 200),
        ("rec.dat 16 200/mV 12 100 0 0 0 II", (CODES - 100.0) / 200),
        ("rec.dat 16 200(-50)/mV 12 100 0 0 0 II", (CODES + 50.0) / 200),
        ("rec.dat 16 2e2(0)/mV 16 0 0 0 0 II", CODES / 200),
        ("rec.dat 16 0.2(1.5)/µV 16 0 0 0 0 II", (CODES - 1.5) / 200),
        ("rec.dat 16 0 16 0 0 0 0 II", CODES / 200),
        ("rec.dat 16 II", CODES / 200),
        ("rec.dat 16 200/mV II", CODES / 200),
        ("rec.dat 16 200/mV 12 II", CODES / 200),
        ("rec.dat 16 -200(0)/mV 16 0 0 0 0 II", CODES / -200),
        ("rec.dat 16x1:0+0 200(0)/mV 16 0 0 0 0 II", CODES / 200),
    ],
)
def test_gain_baseline_and_what_stands_for_them(tmp_path: Path, line: str, expected: NDArray[np.float64]) -> None:
    opened = open_record(record(tmp_path, line))
    assert opened.leads == ("II",)
    np.testing.assert_allclose(opened.read(0, 400)[0], expected, rtol=1e-6)


def test_a_signal_without_a_gain_is_read_with_the_usual_one_and_that_is_said(tmp_path: Path) -> None:
    assert open_record(record(tmp_path)).notes == ()
    for line in ("rec.dat 16 0/mV 16 0 0 0 0 II", "rec.dat 16"):
        (note,) = open_record(record(tmp_path, line)).notes
        assert "gives no gain" in note
        assert "200 steps per mV" in note


@pytest.mark.parametrize(
    "line",
    [
        "rec.dat 16 200/ uV 16 0 0 0 0 II",
        "rec.dat 16 200 uV 16 0 0 0 0 II",
        "rec.dat 16 200 °C 16 0 0 0 0 II",
        "rec.dat 16 200 mV II",
        "rec.dat 16 200 uV II",
        "rec.dat 16 200 µV ECG",
        "rec.dat 16 200(0) mV",
        "rec.dat 16 200 NU II",
        "rec.dat 16 200/mV 12 abc II",
        "rec.dat 16 200/mV 12 0 uV V1",
        "rec.dat 16 200 (0)/uV 16 0 0 0 0 II",
        "rec.dat 16 200 /uV 16 0 0 0 0 II",
        "rec.dat 16 200(0)uV 16 0 0 0 0 II",
        "rec.dat 16 200uV 16 0 0 0 0 II",
        "rec.dat 16 /uV 16 0 0 0 0 II",
        "rec.dat 16 uV 16 0 0 0 0 II",
        "rec.dat 16 200,5/mV 16 0 0 0 0 II",
        "rec.dat 16 200/mV 16 0.0 0 0 0 II",
        "rec.dat",
    ],
)
def test_a_line_that_can_be_taken_for_two_things_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    with pytest.raises(DeviceError, match=r"rec\.hea: line 2 \(rec\.dat"):
        open_record(record(tmp_path, line))


@pytest.mark.parametrize("fmt", ["16y2", "sixteen", "x2", "-16"])
def test_what_is_no_format_is_taken_for_a_part_of_the_name(tmp_path: Path, fmt: str) -> None:
    with pytest.raises(DeviceError, match=rf"rec\.dat {fmt} .*does not exist, but the header rec\.hea names it"):
        open_record(record(tmp_path, f"rec.dat {fmt} 200/mV 16 0 0 0 0 II"))


@pytest.mark.parametrize(
    ("rate", "fs"),
    [("360", 360), ("360/360", 360), ("360/24(0)", 360), ("360/1(-5.5)", 360), ("257.5", 257.5), ("2.5e2", 250), ("125.0", 125)],
)
def test_rates(tmp_path: Path, rate: str, fs: float) -> None:
    assert open_record(record(tmp_path, first=f"rec 1 {rate} 400")).fs == fs


@pytest.mark.parametrize("rate", ["360Hz", "fast", "360,5", "360/x", "-250", "-1e-9", "nan"])
def test_a_rate_that_is_none_is_refused(tmp_path: Path, rate: str) -> None:
    with pytest.raises(DeviceError, match=r"rec\.hea: gives the rate .* no number of Hz"):
        open_record(record(tmp_path, first=f"rec 1 {rate} 400"))


def test_without_a_rate_it_is_250_which_is_said_and_a_given_one_wins(tmp_path: Path) -> None:
    path = record(tmp_path, first="rec 1")
    opened = open_record(path)
    assert (opened.fs, opened.total) == (250, 400)
    assert "250 Hz" in opened.notes[0]
    assert open_record(path, fs=360).fs == 360
    with pytest.raises(InputError, match="states a rate of 250 Hz"):
        open_record(record(tmp_path), fs=360)


ODD_TIMES = """
12:00:00 30/02/2020, 12:00:00 00/00/0000, 24:00:00, 24:00:00 01/01/2020, 12:00:00 01/01/20, 12:00:00 01-01-2020, 12:60:00, noon,
12:00:00 2020-01-01, 04-Jun-2020 15:11:55, 01/02/2020, 12:00:00 01/13/2020, 0000 00/00/00, 99999999999999:00:00, 1:2:3 1/1/99999
"""


@pytest.mark.parametrize("when", [when.strip() for when in ODD_TIMES.split(",")])
def test_an_odd_time_or_date_is_said_and_refuses_nothing(tmp_path: Path, when: str) -> None:
    opened = open_record(record(tmp_path, first=f"rec 1 250 400 {when}"))
    assert opened.total == 400
    assert all("unknown" in note for note in opened.notes)
    assert opened.notes


@pytest.mark.parametrize("when", ["", "0:0:0", "12:34:56 01/02/1989", "12:34:56.789 31/12/2020", "23:59", "59.5"])
def test_a_good_time_says_nothing(tmp_path: Path, when: str) -> None:
    assert open_record(record(tmp_path, first=f"rec 1 250 400 {when}")).notes == ()


@pytest.mark.parametrize("first", ["rec 2 250 200", "rec 0 250 400", "rec 1 250 400\n" + II])
def test_more_or_fewer_signals_than_lines_are_refused(tmp_path: Path, first: str) -> None:
    with pytest.raises(DeviceError, match=r"rec\.hea: says that it has \d signals, and describes \d"):
        open_record(record(tmp_path, first=first))


def test_names_keep_their_letters_and_blanks(tmp_path: Path) -> None:
    lines = "\n".join(f"rec.dat 16 200/mV 16 0 0 0 0 {name}".rstrip() for name in ("ECG  größe", "Ableitung 2 µ", ""))
    names = [signal.name for signal in open_wfdb(record(tmp_path, lines, "rec 3 250 100"), Asked()).signals]
    assert names == ["ECG  größe", "Ableitung 2 µ", "CH3"]


@pytest.mark.parametrize("name", ["my rec", "rec 2", "a.b", "größe", "rec.v2"])
def test_records_may_be_called_anything(tmp_path: Path, name: str) -> None:
    CODES.tofile(tmp_path / f"{name}.dat")
    (tmp_path / f"{name}.hea").write_text(f"{name} 1 250 400\n{name}.dat 16 200/mV 16 0 0 0 0 II\n")
    record(tmp_path, "rec.dat 16 100/mV 16 0 0 0 0 V1")  # which a name with a point is not
    for path in (tmp_path / name, tmp_path / f"{name}.hea", tmp_path / f"{name}.dat", tmp_path / f"{name}.atr"):
        opened = open_record(path)
        assert opened.leads == ("II",)
        np.testing.assert_allclose(opened.read(0, 400)[0], CODES / 200, rtol=1e-6)


def test_a_renamed_header_still_says_what_it_said(tmp_path: Path) -> None:
    record(tmp_path).with_suffix(".hea").rename(tmp_path / "patient 7.hea")
    np.testing.assert_allclose(samples(tmp_path / "patient 7")[0], CODES / 200, rtol=1e-6)


# Where its files lie.


def moved(folder: Path, says: str, lies: str) -> Path:
    path = record(folder, II.replace("rec.dat", says))
    (folder / lies).parent.mkdir(exist_ok=True)
    path.with_suffix(".dat").rename(folder / lies)
    return path


@pytest.mark.parametrize(
    ("says", "lies", "said"),
    [
        ("sub/rec.dat", "sub/rec.dat", False),
        ("./rec.dat", "rec.dat", False),
        ("sub\\rec.dat", "sub/rec.dat", True),
        ("C:\\data\\rec.dat", "rec.dat", True),
        ("/no/such/place/rec.dat", "rec.dat", True),
        ("REC.DAT", "rec.dat", True),
        ("rec.dat", "REC.DAT", True),
        ("my rec.dat", "my rec.dat", False),
        ("größe.dat", "größe.dat", False),
    ],
)
def test_files_are_found_where_the_header_says_or_beside_it(tmp_path: Path, says: str, lies: str, said: bool) -> None:
    path = moved(tmp_path, says, lies)
    np.testing.assert_allclose(samples(path)[0], CODES / 200, rtol=1e-6)
    assert bool(open_record(path).notes) == said


def test_an_absolute_name_is_read(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    path = moved(tmp_path, str(tmp_path / "there" / "rec.dat"), "there/rec.dat")
    np.testing.assert_allclose(samples(path)[0], CODES / 200, rtol=1e-6)


def test_a_header_in_capitals_is_a_header(tmp_path: Path) -> None:
    path = record(tmp_path)
    path.with_suffix(".hea").rename(tmp_path / "rec.HEA")
    for name in ("rec", "rec.HEA", "rec.hea", "rec.dat"):
        np.testing.assert_allclose(samples(tmp_path / name)[0], CODES / 200, rtol=1e-6)


def test_a_folder_that_cannot_be_written_is_no_hindrance(tmp_path: Path) -> None:
    path = record(tmp_path)
    tmp_path.chmod(0o500)
    try:
        assert samples(path).shape == (1, 400)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("part", ["rec.hea", "rec.dat"])
def test_a_pipe_is_refused_and_nothing_waits_for_it(tmp_path: Path, part: str) -> None:
    record(tmp_path)
    (tmp_path / part).unlink()
    os.mkfifo(tmp_path / part)
    with pytest.raises(DeviceError, match="rec"):
        open_record(tmp_path / "rec")


@pytest.mark.parametrize("name", ["mitdb/100", "https://physionet.org/x/100", "s3://bucket/100", "100"])
def test_the_network_is_never_asked(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    monkeypatch.setattr(socket.socket, "connect", asked)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeviceError, match="is no recording"):
        open_record(name)
    with pytest.raises(DeviceError, match="does not exist"):
        open_record(record(tmp_path, II.replace("rec.dat", f"{name}.dat")))


@pytest.mark.parametrize("place", ["", "x/"])
def test_a_name_that_no_file_can_have_is_refused_as_any_other(tmp_path: Path, place: str) -> None:
    name = place + "s" * 300
    with pytest.raises(DeviceError, match="does not exist"):
        open_record(record(tmp_path, II.replace("rec.dat", f"{name}.dat")))
    with pytest.raises(DeviceError, match="does not exist"):
        open_record(master(tmp_path, f"{name} 100"))
    with pytest.raises(DeviceError, match="is no recording"):
        open_record(tmp_path / name)


# Samples of every format, from any place.

PACKED = (8, 16, 24, 32, 61, 80, 160, 212, 310, 311)
FLAC = {508: "PCM_S8", 516: "PCM_16", 524: "PCM_24"}


def signed(code: int, bits: int) -> int:
    return code - (1 << bits) if code >> (bits - 1) & 1 else code


def decoded(content: bytes, fmt: int) -> list[int]:
    """Decode whole groups one by one, as signal(5) describes them."""
    match fmt:
        case 8 | 16 | 32 | 61:
            return [code for (code,) in struct.iter_unpack({8: "b", 16: "<h", 32: "<i", 61: ">h"}[fmt], content)]
        case 80:
            return [code - 128 for code in content]
        case 160:
            return [code - 32768 for (code,) in struct.iter_unpack("<H", content)]
        case 24:
            return [int.from_bytes(content[i : i + 3], "little", signed=True) for i in range(0, len(content), 3)]
        case 212:
            groups = [content[i : i + 3] for i in range(0, len(content), 3)]
            return [signed(code, 12) for a, b, c in groups for code in (a + 256 * (b % 16), c + 256 * (b // 16))]
        case 310:
            pairs = list(struct.iter_unpack("<HH", content))
            return [
                signed(code, 10)
                for one, two in pairs
                for code in (one >> 1 & 0x3FF, two >> 1 & 0x3FF, (one >> 11) + 32 * (two >> 11))
            ]
        case _:
            return [signed(word >> shift & 0x3FF, 10) for (word,) in struct.iter_unpack("<I", content) for shift in (0, 10, 20)]


FRAMES = 240
"""A whole number of groups of every format, whatever a frame holds."""


def written(folder: Path, fmt: int, per_frame: Sequence[int], skew: Sequence[int]) -> tuple[Path, list[NDArray[np.float64]]]:
    """Write a file of noise and its header; return what its signals are, decoded by other means."""
    rng = np.random.default_rng(fmt)
    width = sum(per_frame)
    count = FRAMES * width
    offset = 0
    if fmt in FLAC:
        bits = fmt - 500
        flat = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (FRAMES * per_frame[0], len(per_frame)))
        soundfile.write(folder / "rec.dat", (flat << (32 - bits)).astype(np.int32), 250, FLAC[fmt], format="FLAC")
        parts = list(flat.T)
    else:
        size, of = {8: (1, 1), 80: (1, 1), 24: (3, 1), 32: (4, 1), 212: (3, 2), 310: (4, 3), 311: (4, 3)}.get(fmt, (2, 1))
        content = rng.integers(0, 256, count * size // of, np.uint8).tobytes()
        offset = 5
        (folder / "rec.dat").write_bytes(bytes(offset) + content)
        frames = np.array(decoded(content, fmt)).reshape(FRAMES, width)
        edges = [0, *np.cumsum(per_frame)]
        parts = [frames[:, a:b].reshape(-1) for a, b in pairwise(edges)]
    lines = [
        f"rec.dat {fmt}x{n}:{late}+{offset} 200(0)/mV 0 0 {7 * row} 0 0 S{row}"
        for row, (n, late) in enumerate(zip(per_frame, skew, strict=True))
    ]
    (folder / "rec.hea").write_text("\n".join([f"rec {len(lines)} 250 {FRAMES}", *lines, ""]))
    expected = []
    for row, (part, n, late) in enumerate(zip(parts, per_frame, skew, strict=True)):
        values = np.full(FRAMES * n, np.nan)
        codes = np.cumsum(part) + 7 * row if fmt == 8 else part
        values[: (FRAMES - late) * n] = codes[late * n :] / 200
        lowest = {80: 8, 508: 8, 310: 10, 311: 10, 212: 12, 24: 24, 524: 24, 32: 32}.get(fmt, 16)
        values[values == -(2 ** (lowest - 1)) / 200] = values[values == -(2 ** (lowest - 1)) / 200] if fmt == 8 else np.nan
        expected.append(values)
    return folder / "rec", expected


@pytest.mark.parametrize(("per_frame", "skew"), [((1,), (0,)), ((1, 1, 1), (0, 3, 1)), ((1, 4, 2), (2, 0, 1)), ((3, 3), (0, 0))])
@pytest.mark.parametrize("fmt", [*PACKED, *FLAC])
def test_any_cut_of_any_format_is_what_it_is_in_the_whole(
    fmt: int, per_frame: tuple[int, ...], skew: tuple[int, ...], tmp_path: Path
) -> None:
    if fmt in FLAC:
        per_frame = (per_frame[0],) * len(per_frame)
    path, expected = written(tmp_path, fmt, per_frame, skew)
    contents = open_wfdb(path, Asked())
    assert [signal.fs for signal in contents.signals] == [250 * n for n in per_frame]
    rows_of = {n: [row for row, other in enumerate(per_frame) if other == n] for n in per_frame}

    @settings(max_examples=12, deadline=None, database=None)
    @given(st.sampled_from(sorted(rows_of)), st.data())
    def cut(n: int, data: st.DataObject) -> None:
        rows = data.draw(st.lists(st.sampled_from(rows_of[n]), min_size=1, max_size=3))
        start = data.draw(st.integers(0, FRAMES * n))
        stop = data.draw(st.integers(start, FRAMES * n))
        np.testing.assert_array_equal(contents.read(rows, start, stop), [expected[row][start:stop] for row in rows])

    cut()
    for n, rows in rows_of.items():
        np.testing.assert_array_equal(contents.read(rows, 0, FRAMES * n), [expected[row] for row in rows])


@pytest.mark.parametrize("fmt", [*(fmt for fmt in PACKED if fmt != 311), *FLAC])
def test_the_whole_is_what_wfdb_reads(fmt: int, tmp_path: Path) -> None:
    """Without 311, of whose third sample wfdb 4.3 takes a bit too many."""
    path, expected = written(tmp_path, fmt, (2, 2), (0, 0))
    theirs = wfdb.rdrecord(str(path), smooth_frames=False)
    np.testing.assert_array_equal(theirs.e_p_signal, expected)
    ours = open_wfdb(path, Asked()).read([0, 1], 0, 2 * FRAMES)
    np.testing.assert_array_equal(ours, theirs.e_p_signal)


def test_differences_begin_with_the_first_sample_wherever_one_reads(tmp_path: Path) -> None:
    """Longer than what is kept between two sums, and read from behind first."""
    steps = np.random.default_rng(8).integers(-100, 101, (200_000, 2)).astype(np.int8)
    steps.tofile(tmp_path / "rec.dat")
    (tmp_path / "rec.hea").write_text("rec 2 250 200000\nrec.dat 8 200/mV 12 0 1000 0 0 II\nrec.dat 8 100/mV 12 0 -500 0 0 V1\n")
    expected = (np.cumsum(steps, axis=0, dtype=np.int64) + np.array([1000, -500])).T / [[200], [100]]
    opened = open_record(tmp_path / "rec")
    for start, stop in ((199_990, 200_000), (0, 10), (65_530, 65_540), (131_072, 131_073), (0, 200_000)):
        np.testing.assert_array_equal(opened.read(start, stop), expected[:, start:stop].astype(np.float32))


def test_differences_without_a_first_value_begin_at_the_zero_of_the_converter(tmp_path: Path) -> None:
    np.ones(10, np.int8).tofile(tmp_path / "rec.dat")
    (tmp_path / "rec.hea").write_text("rec 1 250 10\nrec.dat 8 200(0)/mV 12 1024\n")
    np.testing.assert_allclose(samples(tmp_path / "rec")[0], (1024 + np.arange(1, 11)) / 200, rtol=1e-6)


@pytest.mark.parametrize("fmt", PACKED)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 100, 101])
def test_a_length_left_open_is_what_the_file_holds(fmt: int, count: int, tmp_path: Path) -> None:
    size, of = {8: (1, 1), 80: (1, 1), 24: (3, 1), 32: (4, 1), 212: (3, 2), 310: (4, 3), 311: (4, 3)}.get(fmt, (2, 1))
    groups, rest = divmod(count, of)
    last = {212: (0, 2), 310: (0, 2, 4), 311: (0, 2, 3)}.get(fmt, (0,))[rest]
    (tmp_path / "rec.dat").write_bytes(bytes(groups * size + last))
    for length in ("", "0", str(count)):
        (tmp_path / "rec.hea").write_text(f"rec 1 250 {length}\nrec.dat {fmt} 200(0)/mV 16 0 0 0 0 II\n")
        opened = open_record(tmp_path / "rec")
        # three samples of ten bits fill four bytes, and so do two of format 310
        assert opened.total in ({count, count + 1} if (fmt, rest) == (310, 2) and not length.strip("0") else {count})
        assert opened.read(0, opened.total).shape == (1, opened.total)
    (tmp_path / "rec.hea").write_text(f"rec 1 250 {count + 2}\nrec.dat {fmt} 200(0)/mV 16 0 0 0 0 II\n")
    with pytest.raises(DeviceError, match=r"rec\.dat: is truncated"):
        open_record(tmp_path / "rec")


def test_signals_of_one_file_may_stand_apart(tmp_path: Path) -> None:
    CODES.reshape(-1, 2).tofile(tmp_path / "a.dat")
    (CODES[:200] + 1).astype("<i2").tofile(tmp_path / "b.dat")
    lines = [f"{file}.dat 16 200/mV 16 0 0 0 0 {name}" for file, name in (("a", "I"), ("b", "II"), ("a", "III"))]
    (tmp_path / "rec.hea").write_text("\n".join(["rec 3 250 200", *lines, ""]))
    np.testing.assert_allclose(samples(tmp_path / "rec"), np.array([CODES[::2], CODES[:200] + 1, CODES[1::2]]) / 200, rtol=1e-6)


@pytest.mark.parametrize("other", ["rec.dat 212 200/mV", "rec.dat 16+2 200/mV"])
def test_a_file_has_one_format_and_one_beginning(tmp_path: Path, other: str) -> None:
    with pytest.raises(DeviceError, match=r"gives its file rec\.dat several"):
        open_record(record(tmp_path, f"{II}\n{other} 16 0 0 0 0 V1", "rec 2 250 100"))


def test_a_format_that_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="signal format 17"):
        open_record(record(tmp_path, II.replace("16 200", "17 200")))


# Signals of other rates than the frames.


@pytest.mark.parametrize(
    ("frame_hz", "lines", "fs", "leads"),
    [
        (15.5, [("ECG", 32), ("EMG", 1), ("foot GSR", 2), ("HR", 1), ("marker", 1), ("RESP", 2)], 496, ("ECG",)),
        (62.5, [("PLETH", 2), ("II", 4), ("V", 4), ("RESP", 1)], 250, ("II", "V")),
        (125, [("II", 4), ("ABP", 1), ("AVR", 4)], 500, ("II", "AVR")),
    ],
)
def test_the_rate_of_a_signal_counts_not_that_of_the_frames(
    tmp_path: Path, frame_hz: float, lines: list[tuple[str, int]], fs: float, leads: tuple[str, ...]
) -> None:
    frames, width = 50, sum(n for _, n in lines)
    codes = (np.arange(frames * width) % 3001 - 1500).astype("<i2")
    codes.tofile(tmp_path / "rec.dat")
    said = [f"rec.dat 16x{n} 1000(0)/{'mV' if name in leads or name == 'EMG' else 'NU'} 16 0 0 0 0 {name}" for name, n in lines]
    (tmp_path / "rec.hea").write_text("\n".join([f"rec {len(lines)} {frame_hz} {frames}", *said, ""]))
    opened = open_record(tmp_path / "rec")
    per_frame = dict(lines)[leads[0]]
    assert (opened.fs, opened.leads, opened.total) == (fs, leads, frames * per_frame)
    assert set(opened.left_out) == {name for name, _ in lines} - set(leads)
    at = {name: sum(n for _, n in lines[:row]) for row, (name, _) in enumerate(lines)}
    expected = [codes.reshape(frames, width)[:, at[lead] : at[lead] + per_frame].reshape(-1) / 1000 for lead in leads]
    np.testing.assert_allclose(opened.read(0, opened.total), expected, rtol=1e-6)
    np.testing.assert_allclose(opened.read(7, 61), np.array(expected)[:, 7:61], rtol=1e-6)


def test_a_rate_that_is_given_is_that_of_the_signals(tmp_path: Path) -> None:
    path = record(tmp_path, "rec.dat 16x4 200/mV 16 0 0 0 0 II", "rec 1")
    assert open_record(path).fs == 1000
    assert open_record(path, fs=500).fs == 500
    with pytest.raises(DeviceError, match="signals have several"):
        open_record(record(tmp_path, f"rec.dat 16x4 200/mV 16 0 0 0 0 II\n{II.replace('II', 'RESP')}", "rec 2"), fs=500)


# Segments.


def segment(folder: Path, name: str, lines: Sequence[str], values: Sequence[float], first: str = "") -> None:
    """Write a segment: ``lines`` give format, gain, unit and name; its samples are ``values`` of each signal, as codes."""
    length = 100
    np.tile(np.array(values, "<i2"), (length, 1)).tofile(folder / f"{name}.dat")
    said = [f"{name}.dat {line}" for line in lines]
    (folder / f"{name}.hea").write_text("\n".join([first or f"{name} {len(lines)} 250 {length}", *said, ""]))


def master(folder: Path, *segments: str, fs: float = 250, signals: int = 1) -> Path:
    total = sum(int(line.split()[1]) for line in segments)
    (folder / "rec.hea").write_text("\n".join([f"rec/{len(segments)} {signals} {fs:g} {total}", *segments, ""]))
    return folder / "rec"


def test_each_segment_counts_by_its_own_header(tmp_path: Path) -> None:
    segment(tmp_path, "a", ["16 1000(0)/mV 16 0 0 0 0 II"], [1000])
    segment(tmp_path, "b", ["16 1(0)/uV 16 0 0 0 0 II"], [1000])
    segment(tmp_path, "c", ["16 200(40)/mV 16 0 0 0 0 II"], [240])
    segment(tmp_path, "d", ["16 2(0)/µV 16 0 0 0 0 II"], [2000])
    opened = open_record(master(tmp_path, "a 100", "b 100", "~ 50", "c 100", "d 100"))
    assert opened.total == 450
    x = opened.read(0, 450)[0]
    np.testing.assert_allclose(x[:200], 1.0, rtol=1e-6)
    assert np.isnan(x[200:250]).all()
    np.testing.assert_allclose(x[250:], 1.0, rtol=1e-6)
    assert opened.uv_per_lsb == pytest.approx(0.5)


def test_a_gain_that_none_has_is_refused_in_whichever_segment(tmp_path: Path) -> None:
    for gain in ("1e-50", "1e50", "inf", "nan"):
        segment(tmp_path, "a", ["16 1000(0)/mV 16 0 0 0 0 II"], [1000])
        segment(tmp_path, "b", [f"16 {gain}/mV 16 0 0 0 0 II"], [1000])
        with pytest.raises(DeviceError, match=r"lead II has the gain"):
            open_record(master(tmp_path, "a 100", "b 100"))


def test_signals_are_found_by_name_in_every_segment(tmp_path: Path) -> None:
    segment(tmp_path, "a", ["16 100/mV 16 0 0 0 0 II", "16 100/mV 16 0 0 0 0 V1"], [100, 200])
    segment(tmp_path, "b", ["16 100/mV 16 0 0 0 0 V1", "16 100/mV 16 0 0 0 0 II"], [200, 100])
    segment(tmp_path, "c", ["16 100/mV 16 0 0 0 0 V1"], [200])
    segment(tmp_path, "d", ["16 100/mV 16 0 0 0 0 V5", "16 100/mV 16 0 0 0 0 II"], [300, 100])
    opened = open_record(master(tmp_path, "a 100", "b 100", "c 100", "d 100", signals=2))
    assert opened.leads == ("II", "V1", "V5")
    nan = np.nan
    np.testing.assert_allclose(opened.read(0, 400)[:, ::100], [[1, 1, nan, 1], [2, 2, 2, nan], [nan, nan, nan, 3]])


@pytest.mark.parametrize(
    ("one", "other"), [("II", "MLII"), ("V", "V1"), ("ECG V5", "v5"), ("Lead I", "I"), ("aVF", "AVF"), ("ECG", "ecg")]
)
def test_a_lead_that_segments_spell_differently_is_one_and_that_is_said(tmp_path: Path, one: str, other: str) -> None:
    segment(tmp_path, "a", [f"16 100/mV 16 0 0 0 0 {one}"], [100])
    segment(tmp_path, "b", [f"16 1/uV 16 0 0 0 0 {other}"], [2000])
    opened = open_record(master(tmp_path, "a 100", "b 100"))
    assert (opened.leads, opened.notes) == ((one,), (f"its segments call one lead {one} and {other}: read as one",))
    np.testing.assert_allclose(opened.read(0, 200)[0, [0, 99, 100, 199]], [1, 1, 2, 2])


def test_what_a_layout_lists_twice_and_no_segment_has_twice_is_one_lead(tmp_path: Path) -> None:
    (tmp_path / "lay.hea").write_text("lay 2 250 0\n~ 0 7(0)/mV 16 0 0 0 0 MLII\n~ 0 7(0)/mV 16 0 0 0 0 II\n")
    segment(tmp_path, "a", ["16 100/mV 16 0 0 0 0 II"], [100])
    segment(tmp_path, "b", ["16 100/mV 16 0 0 0 0 MLII"], [200])
    opened = open_record(master(tmp_path, "lay 0", "a 100", "b 100", signals=2))
    assert opened.leads == ("MLII",)
    np.testing.assert_allclose(opened.read(0, 200)[:, ::100], [[1, 2]])


def test_two_names_of_a_lead_in_one_segment_are_two_signals(tmp_path: Path) -> None:
    segment(tmp_path, "a", ["16 100/mV 16 0 0 0 0 II", "16 100/mV 16 0 0 0 0 MLII"], [100, 200])
    segment(tmp_path, "b", ["16 100/mV 16 0 0 0 0 MLII"], [200])
    segment(tmp_path, "c", ["16 100/mV 16 0 0 0 0 ECG1", "16 100/mV 16 0 0 0 0 ECG2"], [300, 400])
    opened = open_record(master(tmp_path, "a 100", "b 100", "c 100", signals=2))
    assert (opened.leads, opened.notes) == (("II", "MLII", "ECG1", "ECG2"), ())
    nan = np.nan
    expected = [[1, nan, nan], [2, 2, nan], [nan, nan, 3], [nan, nan, 4]]
    np.testing.assert_allclose(opened.read(0, 300)[:, ::100], expected)


def test_a_layout_gives_the_order_and_segments_what_they_hold(tmp_path: Path) -> None:
    (tmp_path / "lay.hea").write_text(
        "lay 3 250 0\n~ 0 7(0)/uV 16 0 0 0 0 V1\n~ 0 7(0)/mV 16 0 0 0 0 II\n~ 0 0(0)/mmHg 16 0 0 0 0 ABP\n"
    )
    segment(tmp_path, "a", ["16 100/mV 16 0 0 0 0 II"], [100])
    segment(tmp_path, "b", ["16 100/mV 16 0 0 0 0 II", "16 1/uV 16 0 0 0 0 V1", "16 10/mmHg 16 0 0 0 0 ABP"], [100, 500, 900])
    path = master(tmp_path, "lay 0", "a 100", "~ 10", "b 100", signals=3)
    opened = open_record(path)
    assert (opened.leads, opened.left_out, opened.total, opened.notes) == (("V1", "II"), ("ABP",), 210, ())
    np.testing.assert_allclose(opened.read(0, 210)[:, [0, 105, 110, 209]], [[np.nan, np.nan, 0.5, 0.5], [1, np.nan, 1, 1]])


def test_segments_of_any_cut_are_those_of_the_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for name, per_frame in (("a", 4), ("b", 4)):
        codes = rng.integers(-1000, 1000, (100, per_frame + 1)).astype("<i2")
        codes.tofile(tmp_path / f"{name}.dat")
        gain = {"a": "1000(0)/mV", "b": "1(3)/uV"}[name]
        (tmp_path / f"{name}.hea").write_text(
            f"{name} 2 125 100\n{name}.dat 16x4:2 {gain} 16 0 0 0 0 II\n{name}.dat 16 1/NU 16 0 0 0 0 RESP\n"
        )
    opened = open_record(master(tmp_path, "a 100", "~ 7", "b 100", "a 100", fs=125, signals=2))
    assert (opened.fs, opened.total) == (500, 307 * 4)
    whole = opened.read(0, opened.total)
    assert np.isnan(whole).sum() == 7 * 4 + 3 * 2 * 4

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, opened.total), st.integers(0, opened.total))
    def cut(one: int, other: int) -> None:
        start, stop = sorted((one, other))
        np.testing.assert_array_equal(opened.read(start, stop), whole[:, start:stop])

    cut()


@pytest.mark.parametrize(
    ("first", "line", "said"),
    [
        ("b 1 500 100", "16 100/mV 16 0 0 0 0 II", "has 250 Hz, but its segment b has 500 Hz"),
        ("b 1 250 50", "16x2 100/mV 16 0 0 0 0 II", "says that its segment b has 100 samples, but b.hea says 50"),
        ("b 1", "16x2 100/mV 16 0 0 0 0 II", "truncated|2 in its segment b"),
        ("b 1 250 90", "16 100/mV 16 0 0 0 0 II", "says that its segment b has 100 samples, but b.hea says 90"),
        ("b/1 1 250 100", "16 100/mV 16 0 0 0 0 II", "has segments of its own|is no segment"),
        ("b 1 250 100", "16 100/mmHg 16 0 0 0 0 II", "lead II is in mV and mmHg, which is no voltage"),
        ("b 1 250 1000", "16 100/mV 16 0 0 0 0 II", "says that its segment b has 100 samples"),
    ],
)
def test_segments_that_do_not_fit_are_refused_by_name(tmp_path: Path, first: str, line: str, said: str) -> None:
    segment(tmp_path, "a", ["16 100/mV 16 0 0 0 0 II"], [100])
    segment(tmp_path, "b", [line], [100], first)
    with pytest.raises(DeviceError, match=said):
        open_record(master(tmp_path, "a 100", "b 100"))


def test_a_rate_that_only_the_segments_state_is_that_of_the_record(tmp_path: Path) -> None:
    segment(tmp_path, "a", ["16 100/mV 16 0 0 0 0 II"], [100], "a 1 360 100")
    segment(tmp_path, "b", ["16 100/mV 16 0 0 0 0 II"], [100], "b 1 360 100")
    (tmp_path / "rec.hea").write_text("rec/2 1\na 100\nb 100\n")
    opened = open_record(tmp_path / "rec")
    assert (opened.fs, opened.total, opened.notes) == (360, 200, ())
    segment(tmp_path, "b", ["16 100/mV 16 0 0 0 0 II"], [100], "b 1 500 100")
    with pytest.raises(DeviceError, match="has 360 Hz in its segment a, but its segment b has 500 Hz"):
        open_record(tmp_path / "rec")


def test_samples_per_frame_that_change_are_refused_by_name(tmp_path: Path) -> None:
    segment(tmp_path, "a", ["16 100/mV 16 0 0 0 0 II"], [100])
    segment(tmp_path, "b", ["16x2 100/mV 16 0 0 0 0 II"], [100], "b 1 250 50")
    with pytest.raises(DeviceError, match="lead II with 1 samples per frame, but 2 in its segment b"):
        open_record(master(tmp_path, "a 100", "b 50"))


def test_another_signal_that_changes_its_unit_is_left_out_and_the_leads_are_read(tmp_path: Path) -> None:
    segment(tmp_path, "a", ["16 100/mV 16 0 0 0 0 II", "16 100/mV 16 0 0 0 0 PLETH"], [100, 1])
    segment(tmp_path, "b", ["16 100/mV 16 0 0 0 0 II", "16 100/NU 16 0 0 0 0 PLETH"], [100, 1])
    opened = open_record(master(tmp_path, "a 100", "b 100", signals=2))
    assert (opened.leads, opened.left_out) == (("II",), ("PLETH",))
    np.testing.assert_allclose(opened.read(0, 200), 1.0)
    asked = open_record(tmp_path / "rec", leads=["PLETH"], units="mV")
    with pytest.raises(DeviceError, match="lead PLETH is in mV in the segment a, but in NU in b"):
        asked.read(0, 10)


def test_a_segment_that_is_not_there_is_named(tmp_path: Path) -> None:
    segment(tmp_path, "a", ["16 100/mV 16 0 0 0 0 II"], [100])
    with pytest.raises(DeviceError, match=r"b\.hea: does not exist, but the header rec\.hea names it"):
        open_record(master(tmp_path, "a 100", "b 100"))
    shutil.copy(tmp_path / "a.hea", tmp_path / "b.hea")
    (tmp_path / "a.dat").unlink()
    with pytest.raises(DeviceError, match=r"a\.dat: does not exist, but the header a\.hea names it"):
        open_record(tmp_path / "rec")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rec/3 1 250 200\na 100\na 100\n", "says that it has 3 segments, and lists 2"),
        ("rec/1 1 250 200\na 100\na 100\n", "says that it has 1 segments, and lists 2"),
        ("rec/2 1 250 300\na 100\na 100\n", "says that it has 300 samples, but its segments have 200"),
        ("rec/2 1 250 200\na 100\na\n", "line 3 .* is no segment"),
    ],
)
def test_a_list_of_segments_that_contradicts_itself_is_refused(tmp_path: Path, text: str, said: str) -> None:
    segment(tmp_path, "a", ["16 100/mV 16 0 0 0 0 II"], [100])
    (tmp_path / "rec.hea").write_text(text)
    with pytest.raises(DeviceError, match=said):
        open_record(tmp_path / "rec")


# Anything at all.


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=300) | st.text("rec.dat 0123456789/()-+x:mVµ\t\n#", max_size=200).map(lambda text: b"rec " + text.encode())
)
def test_any_bytes_are_a_header_or_refused(content: bytes) -> None:
    try:
        header = parse(content, Path("rec.hea"))
    except DeviceError as error:
        assert error.permanent
        assert len(str(error)) < 400
        return
    assert all(signal.gain and signal.per_frame >= 1 and signal.offset >= 0 for signal in header.signals)
