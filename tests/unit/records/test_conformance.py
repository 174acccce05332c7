"""What every format keeps: the same signal reads the same from all of them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgnat_devices.records import Format, OpenRecord, open_record
from ecgnat_stream.errors import DeviceError
from ecgnat_stream.recordings import find_recordings, format_of
from tests.unit.records.makers import FS, LEADS, MAKERS, Maker, signal

EVERY = pytest.mark.parametrize("fmt", MAKERS)


def opened(maker: Maker, path: Path, unit: str = "mV", **more: Any) -> OpenRecord:
    given = {"fs": FS, "units": unit, "leads": LEADS}
    return open_record(path, **{name: given[name] for name in maker.asks} | more)


def test_every_format_has_a_maker() -> None:
    assert {maker.fmt or name for name, maker in MAKERS.items()} <= set(get_args(Format)) - {"auto"}


@EVERY
def test_the_signal_is_the_same(fmt: str, tmp_path: Path) -> None:
    maker, samples = MAKERS[fmt], signal()
    path = maker.make(tmp_path / "rec", samples, "mV")
    assert format_of(path) == (maker.fmt or fmt)
    record = opened(maker, path)
    assert (record.fs, record.leads, record.total, record.left_out) == (FS, LEADS, samples.shape[1], ())
    np.testing.assert_allclose(record.read(0, record.total), samples, atol=maker.step_uv / 1e3)


@EVERY
def test_a_folder_shows_it(fmt: str, tmp_path: Path) -> None:
    path = MAKERS[fmt].make(tmp_path / "rec", signal(), "mV")
    assert [found.stem for found in find_recordings(tmp_path).recordings] == [path.stem]


@EVERY
def test_any_cut_is_the_part_of_the_whole(fmt: str, tmp_path: Path) -> None:
    maker = MAKERS[fmt]
    record = opened(maker, maker.make(tmp_path / "rec", signal(), "mV"))
    whole = record.read(0, record.total)

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, record.total - 1), st.integers(1, 3000))
    def cut(start: int, length: int) -> None:
        stop = min(record.total, start + length)
        np.testing.assert_array_equal(record.read(start, stop), whole[:, start:stop])

    cut()


@EVERY
def test_units_are_those_of_the_file(fmt: str, tmp_path: Path) -> None:
    maker, samples = MAKERS[fmt], signal()
    for unit in maker.units:
        record = opened(maker, maker.make(tmp_path / unit, samples, unit), unit)
        np.testing.assert_allclose(record.read(0, record.total), samples, atol=maker.step_uv / 1e3, err_msg=unit)


@EVERY
def test_leads_choose_and_order(fmt: str, tmp_path: Path) -> None:
    maker, samples = MAKERS[fmt], signal()
    path = maker.make(tmp_path / "rec", samples, "mV")
    if "leads" in maker.asks:
        assert opened(maker, path, leads=("V5", "I")).leads == ("V5", "I")
        return
    record = opened(maker, path, leads=("V1", "II"))
    assert record.leads == ("V1", "II")
    np.testing.assert_allclose(record.read(0, record.total), samples[::-1], atol=maker.step_uv / 1e3)
    record = opened(maker, path, leads=("V1",))
    assert (record.leads, record.left_out) == (("V1",), ("II",))
    with pytest.raises(DeviceError, match="has no lead aVR: it has II, V1"):
        opened(maker, path, leads=("II", "aVR"))


@EVERY
def test_the_scale_multiplies(fmt: str, tmp_path: Path) -> None:
    maker, samples = MAKERS[fmt], signal()
    record = opened(maker, maker.make(tmp_path / "rec", samples, "mV"), scale=-0.5)
    np.testing.assert_allclose(record.read(0, record.total), -0.5 * samples, atol=maker.step_uv / 1e3)


@EVERY
def test_a_gap_is_a_gap(fmt: str, tmp_path: Path) -> None:
    maker, samples = MAKERS[fmt], signal()
    if maker.gap is None:
        pytest.skip("this format has no gaps")
    start, stop = round(4 * FS), round(11 * FS)
    record = opened(maker, maker.gap(tmp_path / "rec", samples, start, stop))
    expected = samples.copy()
    expected[:, start:stop] = np.nan
    np.testing.assert_allclose(record.read(0, record.total), expected, atol=maker.step_uv / 1e3)


@EVERY
def test_what_is_cut_off_is_named_or_read_as_far_as_it_goes(fmt: str, tmp_path: Path) -> None:
    maker, samples = MAKERS[fmt], signal()
    path = maker.make(tmp_path / "rec", samples, "mV")
    file = path if path.is_file() else path.with_suffix(".dat")
    whole = file.read_bytes()
    for part in (0.9, 0.5, 0.02):
        file.write_bytes(whole[: round(part * len(whole))])
        try:
            record = opened(maker, path)
        except DeviceError as error:
            assert "rec" in str(error)
            continue
        np.testing.assert_allclose(record.read(0, record.total), samples[:, : record.total], atol=maker.step_uv / 1e3)


@EVERY
def test_noise_in_the_file_is_an_error_or_a_signal(fmt: str, tmp_path: Path) -> None:
    maker = MAKERS[fmt]
    path = maker.make(tmp_path / "rec", signal(4.0), "mV")
    file = path if path.is_file() else path.with_suffix(".hea")
    whole = file.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(30):
        spoiled = bytearray(whole)
        for at in rng.integers(0, min(len(spoiled), 2000), 4):
            spoiled[at] = rng.integers(0, 256)
        file.write_bytes(spoiled)
        try:
            record = opened(maker, path, strict=False)
            part = record.read(0, min(record.total, 1000))
        except DeviceError as error:
            assert "rec" in str(error)
            continue
        assert part.shape == (len(record.leads), min(record.total, 1000))


@EVERY
def test_nothing_is_printed(fmt: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    maker = MAKERS[fmt]
    path = maker.make(tmp_path / "rec", signal(4.0), "mV")
    file = path if path.is_file() else path.with_suffix(".hea")
    whole = file.read_bytes()
    capfd.readouterr()
    for damaged in (whole, whole[: len(whole) // 2], whole[:-1], b"", whole.replace(b"mV", b"m\xffV"), bytes(len(whole))):
        file.write_bytes(damaged)
        with contextlib.suppress(DeviceError):
            record = opened(maker, path)
            record.read(0, record.total)
    assert capfd.readouterr() == ("", "")  # what a library of C prints too: standard output is for JSON lines
