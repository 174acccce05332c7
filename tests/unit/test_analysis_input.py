"""What can be analysed, and what is refused or questioned: the message says what, where and what to do."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyedflib
import pytest
import wfdb

from ecgnat_stream import ConfigError, DeviceError, EcgnatError, InputError, analyse
from ecgnat_stream.analysis.source import condition_samples, open_source

FS = 250.0


def beating(seconds: float = 12.0, leads: int = 1, fs: float = FS) -> np.ndarray[Any, Any]:
    """Return something that moves as much as a heart does."""
    t = np.arange(round(seconds * fs)) / fs
    one = np.exp(-(((t % 0.8 - 0.4) / 0.02) ** 2))
    return np.stack([one * (1 + 0.1 * k) for k in range(leads)]).astype(np.float32)


@pytest.mark.parametrize(
    ("samples", "given", "message"),
    [
        (beating(), {}, "does not say its rate: give fs"),
        (beating(leads=2), {"fs": FS}, r"does not name its 2 leads: give leads, for example leads=\('II', 'V1'\)"),
        (beating(leads=12), {"fs": FS}, "LEADS if they are the twelve in this order: I, II, III"),
        (beating(leads=3), {"fs": FS, "leads": ("I", "II")}, r"has 3 leads, but 2 are named \(I, II\)"),
        (beating(leads=2).T, {"fs": FS, "leads": ("II", "V1")}, r"\(3000, 2\) look like \(samples, leads\).* give samples.T"),
        (np.zeros((3, 2, 1000)), {"fs": FS}, r"shape \(3, 2, 1000\)"),
        (np.zeros((1, 0)), {"fs": FS}, r"shape \(1, 0\).*none of them 0"),
        (np.zeros(0), {"fs": FS}, r"shape \(1, 0\)"),
        (np.ones((1, 1)), {"fs": FS}, r"1 sample \(0.004 s\)"),
        (beating(0.5), {"fs": FS}, "125 samples .* at least 1 s"),
        (beating(), {"fs": 2000}, "a rate of 2000 Hz is outside 100 to 1000 Hz: resample it first"),
        (beating(), {"fs": 50}, "a rate of 50 Hz is outside"),
        (beating() * 1000, {"fs": FS}, "move by 1e.03 mV within a second, which no heart does: .*units='uV'"),
        ((beating() * 200).astype(np.int16), {"fs": FS}, r"int16 do not say their unit: .*\(samples - baseline\) / gain"),
        (beating(), {"fs": FS, "units": "mmHg"}, "units='mmHg' is no voltage"),
        (np.array([["a", "b"]]), {"fs": FS}, "are no numbers"),
        (beating(), {"fs": FS, "start_s": 20}, "nothing between start_s=20"),
        (beating(), {"fs": FS, "start_s": 5, "stop_s": 5}, "nothing between"),
    ],
)
def test_samples_that_cannot_be_analysed_as_they_are(samples: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        analyse(samples, **given)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, EcgnatError)


def test_volts_that_are_given_as_mv_are_questioned_not_refused() -> None:
    with pytest.warns(UserWarning, match="too little for a beating heart: are the samples in V"):
        open_source(beating() / 1000, fs=FS)


@pytest.mark.parametrize("samples", [np.zeros((1, 3000)), np.full((2, 3000), np.nan), beating(), beating() * 8])
def test_a_flat_line_no_sample_at_all_and_a_large_heart_are_not_questioned(samples: Any) -> None:
    assert open_source(samples, fs=FS, leads=("II", "V1")[: len(samples)]).total == 3000


def test_units_turn_samples_into_mv() -> None:
    given = beating()
    for factor, units in ((1000.0, "uV"), (0.001, "V"), (1.0, "mV")):
        np.testing.assert_allclose(open_source(given * factor, fs=FS, units=units).read(0, 3000), given, rtol=1e-5, atol=1e-9)
    steps = open_source((given * 1000).astype(np.int32), fs=FS, units="uV")
    np.testing.assert_allclose(steps.read(0, 3000), given, atol=1e-3)


def test_one_lead_needs_no_second_axis_and_no_name() -> None:
    recording = open_source(beating()[0], fs=FS)
    assert (recording.info.leads, recording.total) == (("ECG",), 3000)


def test_infinite_values_are_missing() -> None:
    samples = beating()
    samples[0, 5] = np.inf
    assert np.isnan(open_source(samples, fs=FS).read(0, 10)[0, 5])


def test_a_part_counts_from_its_beginning() -> None:
    samples = beating()
    part = open_source(samples, fs=FS, start_s=2, stop_s=7)
    assert part.total == 1250
    np.testing.assert_array_equal(part.read(10, 20), samples[:, 510:520])


def test_unknown_leads_are_refused_with_a_proposal() -> None:
    with pytest.raises(ConfigError, match=r"unknown lead name 'aVX': did you mean .*lead_map"):
        analyse(beating(leads=2), fs=FS, leads=("II", "aVX"))


def test_unknown_models_are_refused_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(EcgnatError, match="ecgnat-nan0"):
        analyse(beating(), fs=FS, model="ecgnat-nan0")
    with pytest.raises(EcgnatError, match="is not a checkpoint"):
        analyse(beating(), fs=FS, model=tmp_path)


def test_a_model_that_was_not_trained_to_name_rhythms_is_refused_with_the_reason() -> None:
    with pytest.raises(EcgnatError, match="ecgnat-nano-12lead cannot monitor: of its heads only window was trained"):
        analyse(beating(), fs=FS, model="ecgnat-nano-12lead")


def test_files_and_folders_that_are_no_recording(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="is no recording"):
        analyse(tmp_path / "nothing")
    with pytest.raises(DeviceError, match="is a folder: name one record in it"):
        analyse(tmp_path)
    np.save(tmp_path / "x.npy", beating())
    with pytest.raises(DeviceError, match="does not say its fs and units"):
        analyse(tmp_path / "x.npy")


def write(folder: Path, samples: np.ndarray[Any, Any], units: str = "mV", names: tuple[str, ...] = ("II", "V1")) -> Path:
    wfdb.wrsamp(
        "rec", FS, [units] * 2, list(names), samples.T.astype(float), fmt=["16", "16"], adc_gain=[1000, 1000],
        baseline=[0, 0], write_dir=str(folder),
    )  # fmt: skip
    return folder / "rec"


def test_a_wfdb_record_is_read_as_its_file_is(tmp_path: Path) -> None:
    path = write(tmp_path, beating(leads=2), names=("II", "V1"))
    of_file = open_source(path)
    for record in (wfdb.rdrecord(str(path)), wfdb.rdrecord(str(path), physical=False)):
        recording = open_source(record)
        assert (recording.name, recording.info.leads, recording.info.fs, recording.total) == ("rec", of_file.info.leads, FS, 3000)
        np.testing.assert_array_equal(recording.read(100, 200), of_file.read(100, 200))
    assert open_source(wfdb.rdrecord(str(path)), leads=("II",)).info.leads == ("II",)
    with pytest.raises(InputError, match="has no lead V9: it has II, V1"):
        open_source(wfdb.rdrecord(str(path)), leads=("V9",))


def test_a_wfdb_record_without_samples_of_one_rate_or_a_voltage_is_refused() -> None:
    empty = SimpleNamespace(p_signal=None, d_signal=None, sig_name=["II"], units=["mV"], fs=FS, record_name="x", adc_gain=[200])
    with pytest.raises(InputError, match="holds no samples of one rate"):
        open_source(empty)
    pressure = SimpleNamespace(p_signal=beating().T, sig_name=["ABP"], units=["mmHg"], fs=FS, record_name="x", adc_gain=[1])
    with pytest.raises(InputError, match="holds no voltage: ABP"):
        open_source(pressure)
    strange = SimpleNamespace(p_signal=beating().T, sig_name=["II"], units=["adu"], fs=FS, record_name="x", adc_gain=[1])
    with pytest.raises(InputError, match="lead II is in adu, which is no voltage: give units"):
        open_source(strange)
    assert open_source(strange, units="mV").total == 3000


def edf(path: Path) -> Path:
    given = {"dimension": "mV", "sample_frequency": 250, "physical_min": -10, "physical_max": 10, "digital_min": -32768}
    header = given | {"digital_max": 32767, "transducer": "", "prefilter": "", "label": "II"}
    with pyedflib.EdfWriter(str(path), 1) as file:
        file.setSignalHeaders([header])
        file.writeSamples([beating()[0].astype(float)])
    return path


@pytest.mark.parametrize("kind", ["wfdb", "record", "rdsamp", "edf"])
def test_a_source_that_states_another_rate_or_unit_is_refused(kind: str, tmp_path: Path) -> None:
    path = edf(tmp_path / "rec.edf") if kind == "edf" else write(tmp_path, beating(leads=2))
    source: Any = {"record": wfdb.rdrecord, "rdsamp": wfdb.rdsamp}.get(kind, str)(str(path))
    with pytest.raises(
        InputError, match=r"states a rate of 250 Hz, but fs is 360: leave fs (\(--fs\) )?out\. .*resample it first"
    ):
        analyse(source, fs=360)
    with pytest.raises(InputError, match=r"states that lead II is in mV, but units is uV: leave units (\(--units\) )?out"):
        analyse(source, units="uV")
    whole = open_source(source, fs=250, units="mV")
    for recording in (open_source(source), open_source(source, fs=360, units="uV", strict=False)):
        assert recording.info == whole.info
        np.testing.assert_array_equal(recording.read(0, 500), whole.read(0, 500))


def test_masked_samples_are_missing() -> None:
    samples = np.ma.MaskedArray(beating(leads=2), mask=False)
    samples[0, 5:9] = np.ma.masked
    steps = np.ma.MaskedArray((samples.data * 1000).astype(np.int16), mask=samples.mask)
    for given, units in ((samples, "mV"), (list(samples), "mV"), (steps, "uV")):
        missing = np.isnan(open_source(given, fs=FS, leads=("II", "V1"), units=units).read(0, 20))
        assert np.argwhere(missing).tolist() == [[0, 5], [0, 6], [0, 7], [0, 8]]
    record = SimpleNamespace(p_signal=samples.T, sig_name=["II", "V1"], units=["mV"] * 2, fs=FS, record_name="x", adc_gain=None)
    assert np.isnan(open_source(record).read(0, 20)).sum() == 4


class Table(dict[Any, Any]):
    """A table as pandas and polars have it."""

    @property
    def columns(self) -> list[Any]:
        return list(self)


def test_columns_of_a_table_are_leads() -> None:
    second, first = beating(leads=2)
    table = Table(time=np.array(["0:00"] * 3000), V1=first, II=second)
    recording = open_source(table, fs=FS)
    assert recording.info.leads == ("V1", "II")
    np.testing.assert_array_equal(recording.read(0, 3000), [first, second])
    assert open_source(table, fs=FS, leads="II").info.leads == ("II",)
    assert open_source(Table(a=first, b=second), fs=FS, leads=("I", "II")).info.leads == ("I", "II")
    assert open_source(Table({0: first}), fs=FS).info.leads == ("ECG",)
    for wrong, given, message in (
        (table, {}, "does not say its rate: give fs"),
        (
            Table(II=second, patient=np.array(["p"] * 3000)),
            {"fs": FS, "leads": "patient"},
            "column 'patient' .* holds no numbers",
        ),
        (Table({0: first, 1: second}), {"fs": FS}, "does not name its 2 leads"),
        (Table(t=first), {"fs": FS}, "no column with samples"),
    ):
        with pytest.raises(InputError, match=message):
            open_source(wrong, **given)


def test_a_data_frame_is_such_a_table() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"Time (s)": np.arange(3000) / FS, "II": beating()[0]})
    assert open_source(frame, fs=FS).info.leads == ("II",)
    frame = pandas.DataFrame(beating(leads=2).T, columns=["II", "II"])
    with pytest.raises(InputError, match="several columns called II"):
        open_source(frame, fs=FS)


def test_times_of_a_data_frame_say_its_rate_and_holes() -> None:
    pandas = pytest.importorskip("pandas")
    rows, there = np.arange(3000), np.delete(np.arange(3000), np.arange(1000, 1500))
    samples, times = beating()[0], pandas.date_range("2021-03-04 05:06:07", periods=3000, freq="4ms")
    expected = np.where((rows >= 1000) & (rows < 1500), np.nan, samples)
    for frame in (
        pandas.DataFrame({"II": samples}, index=times),
        pandas.DataFrame({"II": samples}, index=times.tz_localize("Europe/Berlin")),
        pandas.DataFrame({"II": samples}, index=pandas.to_timedelta(rows / 250, unit="s")),
        pandas.DataFrame({"II": samples}, index=pandas.Index(rows * 4, name="time_ms")),
        pandas.DataFrame({"II": samples, "time": times}),
        pandas.DataFrame({"II": samples, "time": times.astype(str)}),
        pandas.DataFrame({"II": samples, "time": rows / 250}),
        pandas.DataFrame({"II (uV)": samples * 1e3, "time": rows / 250}),
        pandas.DataFrame({"II": [f"{value:.9f}" for value in samples], "time": rows / 250, "label": "N"}),
    ):
        recording = open_source(frame.iloc[there])
        assert (recording.info.fs, recording.info.leads, recording.total) == (250, ("II",), 3000)
        np.testing.assert_allclose(recording.read(0, 3000)[0], expected, rtol=1e-5, atol=1e-6)
        with pytest.raises(InputError, match=r"states a rate of 250 Hz \(its .*\), but fs is 360"):
            open_source(frame.iloc[there], fs=360)
    backwards = pandas.DataFrame({"II": samples, "time": np.r_[rows[:1500], rows[:1500]] / 250})
    with pytest.raises(InputError, match="row 1500 of the table, its column time: the time runs backwards"):
        open_source(backwards)


def test_coarse_times_and_an_index_with_a_hole_are_holes_of_a_data_frame() -> None:
    pandas = pytest.importorskip("pandas")
    rows, there = np.arange(60 * 250), np.delete(np.arange(60 * 250), np.arange(5100, 7600))
    samples = np.sin(rows / 9)
    times = pandas.Timestamp("2021-03-04 05:06:07") + pandas.to_timedelta(rows // 250, unit="s")
    for frame in (
        pandas.DataFrame({"II": samples}, index=times),
        pandas.DataFrame({"II": samples, "time": times}),
        pandas.DataFrame({"II": samples, "time": rows // 250}),
        pandas.DataFrame({"II": samples, "time": times.strftime("%H:%M:%S:000")}),
        pandas.DataFrame({"II": samples}),
    ):
        recording = open_source(frame.iloc[there], fs=250)
        assert abs(recording.total - len(rows)) <= 1
        holes = np.flatnonzero(np.isnan(recording.read(0, recording.total)[0]))
        assert (holes[0], abs(len(holes) - 2500) <= 1) == (5100, True)
        with pytest.raises(InputError, match="run backwards from there on; sort the table by time"):
            open_source(frame.iloc[::-1], fs=250)


def test_a_table_of_several_keeps_the_rate_and_unit_that_it_says() -> None:
    samples = beating()[0]
    table = Table({"time": np.arange(3000) / 500, "II (uV)": samples * 1e3})
    recording = open_source(table, fs=250, units="mV", strict=False)
    assert recording.info.fs == 500
    np.testing.assert_allclose(recording.read(0, 3000)[0], samples, rtol=1e-5, atol=1e-6)
    for given in ({"fs": 250.0}, {"units": "mV"}):
        with pytest.raises(InputError, match=r"states a rate of 500 Hz|states its unit"):
            open_source(table, **given)  # type: ignore[arg-type]


def test_a_column_called_as_times_that_cannot_be_read_is_named() -> None:
    table = Table(time=np.array(["first", "second", "third"] * 100), II=np.zeros(300))
    with pytest.raises(InputError, match="column 'time' of the table is called as times are, but holds 'first'"):
        open_source(table, fs=FS)


def test_leads_of_a_table_come_in_the_order_that_is_asked_for() -> None:
    first, second = beating(leads=2)
    recording = open_source(Table(V1=first, II=second, label=np.array(["N"] * 3000)), fs=FS, leads=("II", "V1"))
    np.testing.assert_array_equal(recording.read(0, 3000), [second, first])
    assert recording.info.device == "samples, without label"
    missing = Table(II=np.array([None, "NA", *second[2:]], object))
    np.testing.assert_array_equal(np.isnan(open_source(missing, fs=FS).read(0, 4)), [[True, True, False, False]])


def test_tensors_are_arrays_with_a_gradient_too_and_what_is_none_is_refused() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(beating()).requires_grad_()
    np.testing.assert_array_equal(open_source(tensor, fs=FS).read(0, 3000), beating())
    with pytest.raises(InputError, match="Tensor is no array of numbers"):
        open_source(tensor.to(torch.bfloat16), fs=FS)
    with pytest.raises(InputError, match="list is no array of numbers"):
        open_source([[1.0, 2.0], [3.0]], fs=FS)


@pytest.mark.parametrize("source", [beating(leads=2), "nowhere/rec"])
def test_leads_that_are_named_twice_are_refused(source: Any) -> None:
    with pytest.raises(InputError, match="leads names II more than once"):
        analyse(source, fs=FS, leads=("II", "II"))


def test_settings_are_a_config_or_the_path_of_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="config is of type dict: give a Config, or the path of a TOML file"):
        analyse(beating(), fs=FS, config={"unit": "x"})  # type: ignore[arg-type]
    (tmp_path / "monitor.toml").write_text("untit = 'x'\n")
    with pytest.raises(ConfigError, match=r"monitor\.toml: .*untit"):
        analyse(beating(), fs=FS, config=tmp_path / "monitor.toml")


def test_a_warning_points_at_the_line_that_gave_the_samples() -> None:
    for ask in (open_source, condition_samples):
        with pytest.warns(UserWarning, match="too little") as told:
            ask(beating() / 1000, fs=FS)
        assert told[0].filename == __file__


def test_what_a_file_does_not_say_is_said_as_a_warning(tmp_path: Path) -> None:
    """As `ecgnat analyse` prints it; a time that is none is no hindrance."""
    np.tile(np.arange(-100, 100), 10).astype("<i2").tofile(tmp_path / "rec.dat")
    (tmp_path / "rec.hea").write_text("rec 1\nrec.dat 16 200/mV 16 0 0 0 0 II\n")
    with pytest.warns(UserWarning, match=r"^rec: its header gives no rate: 250 Hz is taken"):
        assert open_source(tmp_path / "rec").info.fs == 250
    assert open_source(tmp_path / "rec", fs=360).info.fs == 360
    (tmp_path / "rec.hea").write_text("rec 1 360 2000 24:00:00\nrec.dat 16 200/mV 16 0 0 0 0 II\n")
    with pytest.warns(UserWarning, match="^rec: its time 24:00:00 is no time of day"):
        assert open_source(tmp_path / "rec").info.fs == 360
