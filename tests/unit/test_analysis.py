"""The result of an analysis: tables, summary, frames, JSON, annotations, pictures; what looking ahead completes."""

from __future__ import annotations

import asyncio
import builtins
import doctest
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb

import ecgnat_stream.analysis.run
from ecgnat_stream import Analysis, Beat, Conditioned, EcgnatError, InputError, Predictor, Rhythm, analyse, analyse_many
from ecgnat_stream.analysis import source, tables
from ecgnat_stream.analysis.drive import monitor_recordings
from ecgnat_stream.analysis.summary import Place
from ecgnat_stream.clock import SystemClock
from ecgnat_stream.config import BedConfig, Config
from ecgnat_stream.device import open_device
from ecgnat_stream.model import ModelConfig
from ecgnat_stream.signal import StreamInfo

FS = 250.0
PVC = [{"rhythm": "sinus", "seconds": 20}, {"rhythm": "pvc", "seconds": 20, "every": 4}]


def simulated(script: list[dict[str, Any]], leads: tuple[str, ...] = ("II", "V1"), seed: int = 3) -> np.ndarray[Any, Any]:
    async def blocks() -> list[np.ndarray[Any, Any]]:
        options = {"script": script, "loop": False, "speed": "max", "seed": seed, "fs": FS, "leads": list(leads)}
        async with (device := open_device("simulate", options, SystemClock())):
            return [block.samples async for block in device]

    return np.concatenate(asyncio.run(blocks()), axis=1)


@pytest.fixture(scope="module")
def predictor(untrained: Path) -> Iterator[Predictor]:
    with Predictor(ModelConfig(name=str(untrained), threads=1)) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def analysis(predictor: Predictor) -> Analysis:
    return analyse(simulated(PVC), fs=FS, leads=("II", "V1"), model=predictor)


def test_tables_have_the_columns_that_are_promised(analysis: Analysis) -> None:
    assert analysis.beats.dtype.names == ("sample", "time_s", "label", "rr_ms", "lead")
    assert analysis.rhythm.dtype.names == ("start_s", "stop_s", "label", "probability")
    assert analysis.quality.dtype.names == ("at_s", "usable", "best_lead", "sqi", "state")
    assert analysis.vitals.dtype.names == ("at_s", "heart_rate_bpm", "pvc_per_min")
    assert analysis.alarms.dtype.names == ("condition", "priority", "kind", "start_s", "stop_s", "lead")
    assert analysis.diagnoses.dtype.names == ("statement", "text", "probability", "made")
    assert (analysis.fs, analysis.leads, analysis.used_as, analysis.length_s) == (FS, ("II", "V1"), ("II", "V1"), 40.0)
    assert (np.diff(analysis.beats["time_s"]) > 0).all()
    np.testing.assert_array_equal(analysis.quality["at_s"], np.arange(1, 41))
    assert set(analysis.quality["state"][0]) == {"", "good"}
    assert repr(analysis).startswith("<Analysis of samples: 40 s, ")


def test_the_first_beats_have_a_class_and_the_events_stay_as_they_were(analysis: Analysis) -> None:
    said = [event.label for event in analysis.events if isinstance(event, Beat)]
    assert said[:5] == ["Q"] * 5
    assert analysis.beats["label"][1:].tolist().count("Q") == 0
    assert (analysis.beats["label"] == "V").sum() >= 4


def test_the_rhythm_reaches_from_the_first_to_the_last_sample(analysis: Analysis) -> None:
    first = next(event for event in analysis.events if isinstance(event, Rhythm) and event.label != "UNKNOWN")
    assert first.start_s > 0
    assert analysis.rhythm["start_s"][0] == 0.0
    assert analysis.rhythm["stop_s"][-1] == analysis.length_s
    np.testing.assert_array_equal(analysis.rhythm["start_s"][1:], analysis.rhythm["stop_s"][:-1])


@pytest.mark.parametrize("seconds", [4.0, 5.0, 9.7])
def test_a_short_recording_gives_what_can_be_said(predictor: Predictor, seconds: float) -> None:
    short = analyse(simulated(PVC)[:, : round(seconds * FS)], fs=FS, leads=("II", "V1"), model=predictor)
    assert (short.rhythm["start_s"][0], short.rhythm["stop_s"][-1]) == (0.0, seconds)
    assert len(short.beats) >= seconds - 1
    assert (short.beats["label"][1:] == "N").all()
    assert short.summary().heart_rate_mean_bpm is not None
    assert len(short.quality) == int(seconds)


def test_too_little_to_tell_says_nothing_but_what_is_there(predictor: Predictor) -> None:
    short = analyse(simulated(PVC)[:, : round(1.4 * FS)], fs=FS, leads=("II", "V1"), model=predictor)
    assert (short.rhythm["label"].tolist(), set(short.beats["label"].tolist())) == (["UNKNOWN"], {"Q"})
    assert short.summary().leading_rhythm is None


def test_nothing_but_missing_samples_is_nothing_usable(predictor: Predictor) -> None:
    nothing = analyse(np.full((2, 5000), np.nan), fs=FS, leads=("II", "V1"), model=predictor)
    summary = nothing.summary()
    assert (len(nothing.beats), summary.heart_rate_mean_bpm, summary.unusable_share) == (0, None, 1.0)
    assert set(nothing.rhythm["label"].tolist()) <= {"UNKNOWN"}
    assert "100.0% unusable" in str(summary)
    json.loads(nothing.to_json())


def test_a_predictor_that_is_given_is_left_open(predictor: Predictor, analysis: Analysis) -> None:
    assert analysis.model == "untrained"
    assert predictor.predict(Conditioned(np.zeros((1, 12, 1000), np.float32), 100)).rhythm.shape[0] == 1


def test_the_summary_counts_what_the_tables_hold(analysis: Analysis) -> None:
    summary = analysis.summary()
    assert summary.beats == len(analysis.beats)
    assert summary.ventricular == (analysis.beats["label"] == "V").sum()
    assert summary.heart_rate_min_bpm <= summary.heart_rate_mean_bpm <= summary.heart_rate_max_bpm
    assert sum(summary.rhythm_s.values()) == pytest.approx(40.0, abs=0.2)
    assert summary.ventricular_per_hour is None, "40 s do not tell a count per hour"
    text = str(summary)
    for word in ("heart rate", "rhythm", "AF burden", "ventricular", "longest pause", "alarms", "untrained"):
        assert word in text


def test_runs_pauses_and_burden_are_found_where_they_are(analysis: Analysis) -> None:
    labels = "NVVNVVVVNSNVVN"
    rr = np.array([np.nan, 500, 400, 900, 500, 400, 400, 400, 900, 600, 2500, 500, np.nan, 800])
    time_s = np.cumsum(np.nan_to_num(rr, nan=1000.0)) / 1e3
    beats = np.zeros(len(labels), tables.BEATS)
    beats["label"], beats["rr_ms"], beats["time_s"] = list(labels), rr, time_s
    quality = np.zeros(20, tables.QUALITY)
    quality["at_s"], quality["usable"] = np.arange(1, 21), True
    rhythm = np.array([(0, 5, "AF", 1), (5, 15, "SINUS", 1), (15, 20, "UNKNOWN", 0)], tables.RHYTHM)
    fields = {name: getattr(analysis, name) for name in Analysis.__dataclass_fields__}
    made = Analysis(**fields | {"beats": beats, "quality": quality, "rhythm": rhythm, "length_s": 20.0}).summary()
    assert (made.couplets, made.runs, made.longest_run) == (1, 1, Place(4.0, float(time_s[4])))
    assert made.longest_pause == Place(2.5, pytest.approx(time_s[9], abs=0.01))
    assert (made.af_s, made.af_burden, made.leading_rhythm) == (5.0, 0.3333, "SINUS")
    quality["usable"][int(time_s[9]) + 1] = False
    assert Analysis(**fields | {"beats": beats, "quality": quality, "length_s": 20.0}).summary().longest_pause.length == 0.9


def test_frames_have_a_column_per_lead(analysis: Analysis) -> None:
    pytest.importorskip("pandas")
    frame = analysis.to_frame("quality")
    assert list(frame.columns) == ["at_s", "usable", "best_lead", "sqi_II", "sqi_V1", "state_II", "state_V1"]
    assert len(analysis.to_frame("beats")) == len(analysis.beats)
    with pytest.raises(ValueError, match="no table 'beat': there are beats, rhythm"):
        analysis.to_frame("beat")  # type: ignore[arg-type]


@pytest.mark.parametrize(("module", "call"), [("pandas", lambda a: a.to_frame("beats")), ("matplotlib", lambda a: a.plot())])
def test_what_is_not_installed_is_named(analysis: Analysis, monkeypatch: pytest.MonkeyPatch, module: str, call: Any) -> None:
    imported = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == module:
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(EcgnatError, match=f"needs {module}: pip install {module}"):
        call(analysis)


def test_json_holds_every_table_and_no_nan(analysis: Analysis) -> None:
    found = json.loads(analysis.to_json())
    assert len(found["beats"]) == len(analysis.beats)
    assert found["beats"][0]["rr_ms"] is None
    assert found["quality"][0]["state"][1] == "good"
    assert found["summary"]["ventricular"] == analysis.summary().ventricular
    assert {"rhythm", "vitals", "alarms", "diagnoses"} <= found.keys()


def test_annotations_reach_from_the_first_to_the_last_second(analysis: Analysis, tmp_path: Path) -> None:
    path = analysis.to_wfdb(tmp_path / "made", "ecg")
    marks = wfdb.rdann(str(path.with_suffix("")), "ecg")
    beats = [(s, c) for s, c in zip(marks.sample, marks.symbol, strict=True) if c in "NSVFQ"]
    assert beats == list(zip(analysis.beats["sample"], analysis.beats["label"], strict=True))
    notes = [(s, note.rstrip("\0")) for s, c, note in zip(marks.sample, marks.symbol, marks.aux_note, strict=True) if c == "+"]
    assert notes[0][0] <= 1, "the first rhythm begins with the recording"
    (tmp_path / "file").write_text("")
    with pytest.raises(EcgnatError, match="cannot be written"):
        analysis.to_wfdb(tmp_path / "file")


def test_pictures_show_the_signal_with_its_beats(analysis: Analysis, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = analysis.plot(5, 18, leads=["II"])
    assert figure.get_size_inches()[0] == pytest.approx((15 + 250 + 6) / 25.4)
    letters = [text.get_text() for axes in figure.axes for text in axes.texts]
    inside = analysis.beats[(analysis.beats["time_s"] >= 5) & (analysis.beats["time_s"] < 18)]
    assert sum(letter in tuple("NSVFQ") for letter in letters) == len(inside)
    figure.savefig(tmp_path / "strip.png")
    assert (tmp_path / "strip.png").stat().st_size > 20_000
    with pytest.raises(InputError, match="has no lead V6: it has II, V1"):
        analysis.plot(leads=["V6"])
    with pytest.raises(InputError, match="nothing between start_s=50"):
        analysis.plot(50)


def test_many_recordings_side_by_side_give_what_each_gives_alone(predictor: Predictor, analysis: Analysis) -> None:
    others = [simulated(PVC, seed=seed)[:, : 5000 + 700 * seed] for seed in (3, 4, 5)]
    sources = [others[0], np.zeros((2, 10)), others[1], others[2]]
    found = list(analyse_many(sources, fs=FS, leads=("II", "V1"), model=predictor, at_once=3))
    assert [given is mine for (given, _), mine in zip(found, sources, strict=True)] == [True] * 4
    assert isinstance(found[1][1], InputError)
    for samples, result in (found[0], found[2], found[3]):
        assert isinstance(result, Analysis)
        alone = analyse(samples, fs=FS, leads=("II", "V1"), model=predictor)
        for name in ("beats", "vitals", "alarms"):
            for column in getattr(alone, name).dtype.names:
                np.testing.assert_array_equal(getattr(result, name)[column], getattr(alone, name)[column])
        assert result.rhythm["label"].tolist() == alone.rhythm["label"].tolist()


def test_one_recording_that_breaks_off_leaves_the_others_alone(predictor: Predictor) -> None:
    whole = source.open_source(simulated(PVC), fs=FS, leads=("II", "V1"))

    def broken(start: int, stop: int) -> np.ndarray[Any, Any]:
        raise EcgnatError("the disk is gone")

    recordings = [source.Recording("broken", whole.info, whole.total, broken), whole]
    config = Config(bed=tuple(BedConfig(id=name, device="replay") for name in ("a", "b")))
    first, second = monitor_recordings(config, recordings, predictor)
    assert str(first.error) == "the disk is gone"
    assert second.error is None
    assert sum(isinstance(event, Beat) for event in second.events) > 30


def test_a_long_recording_is_read_in_pieces_that_are_let_go(predictor: Predictor) -> None:
    one = simulated(PVC)
    total = round(200 * FS)
    asked: list[tuple[int, int]] = []

    def read(start: int, stop: int) -> np.ndarray[Any, Any]:
        asked.append((start, stop))
        return one[:, np.arange(start, stop) % one.shape[1]]

    info = StreamInfo(fs=FS, leads=("II", "V1"), device="long", live=False, total=total)
    config = Config(bed=(BedConfig(id="a", device="replay"),))
    done: list[float] = []
    recording = source.Recording("long", info, total, read)
    (said,) = monitor_recordings(config, [recording], predictor, lambda at_s, of_s: done.append(at_s / of_s))
    assert max(stop - start for start, stop in asked) <= 60 * FS, "no piece is longer than a minute"
    assert [start for start, _ in asked] == [stop for _, stop in [(0, 0), *asked[:-1]]]
    assert len(said.beginning._frames) == 150, "30 s are kept, whatever the length"
    assert done == sorted(done)
    assert done[-1] == pytest.approx(1.0, abs=1e-3)


def test_the_examples_are_true() -> None:
    for module in (ecgnat_stream.analysis.run, ecgnat_stream.analysis.diagnoses, source):
        result = doctest.testmod(module)
        assert (result.failed, result.attempted > 0) == (0, True)


def test_a_long_hole_is_unusable_and_costs_nothing() -> None:
    minute = round(60 * FS)
    samples = np.full((1, 60 * minute), np.nan, np.float32)
    t = np.arange(minute) / FS
    samples[:, :minute] = samples[:, -minute:] = np.exp(-(((t % 0.8 - 0.4) / 0.02) ** 2))
    analysis = analyse(samples, fs=FS, leads=["II"])
    assert 3600 - 130 <= analysis.summary().unusable_s <= 3600 - 110
    assert len(analysis.quality) < 300
    assert {60 < time_s < 3540 for time_s in analysis.beats["time_s"].tolist()} == {False}
