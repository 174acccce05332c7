"""What is read from annotations: beats, episodes that an alarm is due for, what is not stated; databases known by their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecgnat_stream.alarm import AlarmConfig
from ecgnat_stream.score.records import ScoreError, select
from ecgnat_stream.score.truth import Challenge, Database, Episode, between_marks

FS = 100


def record(
    folder: Path,
    name: str,
    seconds: float,
    marks: Sequence[tuple[float, str, str]] = (),
    *,
    extension: str = "atr",
    comments: Sequence[str] = (),
) -> None:
    """Write a flat record with annotations of (place in s, symbol, note)."""
    folder.mkdir(exist_ok=True)
    samples = np.zeros((round(seconds * FS), 1))
    wfdb.wrsamp(name, FS, ["mV"], ["II"], p_signal=samples, fmt=["16"], adc_gain=[200], baseline=[0], write_dir=str(folder),
                comments=list(comments))  # fmt: skip
    if marks:
        places = np.array([round(at * FS) for at, _, _ in marks])
        symbols, notes = [symbol for _, symbol, _ in marks], [note for _, _, note in marks]
        wfdb.wrann(name, extension, places, symbols, aux_note=notes, write_dir=str(folder))


def beats(start: float, stop: float, every: float, symbol: str = "N") -> list[tuple[float, str, str]]:
    return [(float(at), symbol, "") for at in np.arange(start, stop, every)]


def database(folder: Path) -> Database:
    return Database(folder, AlarmConfig())


def test_beats_have_ec57_classes_and_rhythm_notes_become_episodes(tmp_path: Path) -> None:
    marks = [(0.5, "+", "(N"), (1, "R", ""), (2, "A", ""), (3, "E", ""), (4, "/", ""), (4.5, "~", ""), (5, "F", "")]
    record(
        tmp_path / "db",
        "a",
        60,
        [*marks, (20, "+", "(AFIB"), (30, "+", "(B"), (40, "+", "(VFL"), (50, "+", "(VF"), (55, "+", "(N")],
    )
    truth = database(tmp_path / "db").truth("a")
    assert truth.classes is not None
    assert truth.classes.tolist() == ["N", "S", "V", "Q", "F"]
    assert truth.episodes["atrial-fibrillation"] == [Episode(20, 40, True)]
    assert truth.episodes["ventricular-fibrillation"] == [Episode(40, 55, True)]
    assert truth.vf == [(40, 55)]


def test_a_run_is_a_tachycardia_to_be_alarmed_when_it_is_long_and_fast_enough(tmp_path: Path) -> None:
    slow, short = beats(10, 15, 0.8, "V"), beats(20, 21.4, 0.4, "V")
    fast = beats(30, 33, 0.4, "V")
    marks = [(0.5, "+", "(N"), *beats(1, 10, 0.8), *slow, *beats(15.2, 20, 0.8), *short]
    marks += [*beats(22, 30, 0.8), (29.9, "+", "(VT"), *fast, (33.2, "+", "(N"), *beats(33.6, 59, 0.8)]
    record(tmp_path / "db", "a", 60, marks)
    (found,) = database(tmp_path / "db").truth("a").episodes["ventricular-tachycardia"]
    assert (found.start_s, round(found.stop_s, 1), found.required) == (29.9, 33.2, True)


def test_pauses_and_rates_are_taken_from_the_beats(tmp_path: Path) -> None:
    marks = [(0.5, "+", "(N"), *beats(1, 10, 0.8), *beats(15, 30, 0.4), (30.4, "V", ""), *beats(32, 50, 1.7)]
    record(tmp_path / "db", "a", 60, marks)
    episodes = database(tmp_path / "db").truth("a").episodes
    (pause,) = episodes["asystole"]
    assert (pause.stop_s - pause.start_s > 4.5, pause.required) == (True, True)
    (fast,) = episodes["extreme-tachycardia"]
    assert (fast.start_s, fast.required) == (15, True)
    assert [episode.required for episode in episodes["extreme-bradycardia"]] == [True]


def test_the_merged_marks_of_a_pack_and_the_brackets_of_the_original_say_the_same(tmp_path: Path) -> None:
    record(tmp_path / "pack", "cu01", 100, [*beats(1, 40, 1), (40, "+", ""), (60, "+", ""), *beats(61, 99, 1)], extension="ann")
    (tmp_path / "pack" / "vf_episodes.csv").write_text("record,start,stop\ncu01,4000,6000\n")
    record(tmp_path / "original", "cu01", 100, [*beats(1, 40, 1), (40, "[", ""), (60, "]", ""), *beats(61, 99, 1)])
    for name in ("pack", "original"):
        truth = database(tmp_path / name).truth("cu01")
        assert truth.vf == [(40, 60)]
        assert truth.classes is None
        assert truth.beats_s is not None
        assert len(truth.beats_s) == 77
        assert truth.stated == {"ventricular-fibrillation", "asystole"}


def test_beats_without_any_rhythm_are_of_a_normal_heart(tmp_path: Path) -> None:
    record(tmp_path / "db", "a", 100, [*beats(1, 40, 0.8), (40, "V", ""), *beats(60, 99, 0.8)])
    truth = database(tmp_path / "db").truth("a")
    assert {"asystole", "ventricular-tachycardia", "atrial-fibrillation"} < truth.stated
    assert truth.episodes == {}


def test_the_header_of_a_challenge_record_names_the_alarm_and_its_moment(tmp_path: Path) -> None:
    record(tmp_path / "db", "a1s", 90, comments=["Asystole", "True alarm"])
    record(tmp_path / "db", "a2l", 330, comments=["Ventricular_Tachycardia", "False alarm"])
    read = database(tmp_path / "db")
    assert read.truth("a1s").challenge == Challenge("Asystole", True, 90)
    assert read.truth("a2l").challenge == Challenge("Ventricular_Tachycardia", False, 300)
    assert read.truth("a1s").stated == set()


def test_the_first_five_minutes_are_learning_in_long_records(tmp_path: Path) -> None:
    record(tmp_path / "db", "long", 601, [(1, "N", "")])
    record(tmp_path / "db", "short", 100, [(1, "N", "")])
    read = database(tmp_path / "db")
    assert [read.truth(name).learning_s for name in ("long", "short")] == [300, 0]
    assert Database(tmp_path / "db", AlarmConfig(), 7).truth("long").learning_s == 7


def test_records_are_those_named_or_of_the_split_or_all(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        record(tmp_path / "db", name, 10, [(1, "N", "")])
    read = database(tmp_path / "db")
    assert select(read.folder, read.paths, [], "test") == [("a", ""), ("b", ""), ("c", "")]
    (tmp_path / "splits.csv").write_text("database,record,split\ndb,a,test\ndb,b,train\nother,c,test\n")
    assert select(read.folder, read.paths, [], "test") == [("a", "test")]
    assert select(read.folder, read.paths, ["b", "x"], "test") == [("b", "train")]
    assert len(select(read.folder, read.paths, [], "all")) == 3
    with pytest.raises(ScoreError, match="no record in the split 'val'"):
        select(read.folder, read.paths, [], "val")


def test_what_cannot_be_scored_is_named(tmp_path: Path) -> None:
    record(tmp_path / "db", "mute", 10)
    record(tmp_path / "db", "torn", 10, [(1, "N", "")])
    (tmp_path / "db" / "torn.hea").write_text("nonsense")
    read = database(tmp_path / "db")
    with pytest.raises(ScoreError, match="db/mute: nothing to compare with"):
        read.truth("mute")
    with pytest.raises(ScoreError, match="db/torn: cannot be read"):
        read.truth("torn")
    with pytest.raises(ScoreError, match="unknown record"):
        read.truth("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScoreError, match="holds no WFDB records"):
        database(tmp_path / "empty")


def test_fibrillation_lasts_from_mark_to_mark_or_to_the_end() -> None:
    assert between_marks([5, 10, 20, 30, 60], ["N", "[", "N", "]", "["], 100) == [(10, 30), (60, 100)]
    assert between_marks([5], ["]"], 100) == []


def test_places_of_annotations_count_in_their_own_rate_if_they_have_one(tmp_path: Path) -> None:
    """As for records with several samples in a frame: frames of 15.5 Hz, marks at 496 Hz."""
    folder = tmp_path / "db"
    folder.mkdir()
    np.zeros((155, 32), "<i2").tofile(folder / "a.dat")
    (folder / "a.hea").write_text("a 1 15.5 155 24:00:00 30/02/2020\na.dat 16x32 200(0)/µV 16 0 0 0 0 ECG\n")
    for stated, per_s in ((496.0, 496), (None, 15.5)):
        places = np.round(np.array([1.0, 2.0, 4.0]) * per_s).astype(np.int64)
        wfdb.wrann("a", "atr", places, symbol=["N", "N", "N"], fs=stated, write_dir=str(folder))
        truth = database(folder).truth("a")
        assert (truth.fs, truth.length_s) == (15.5, 10.0)
        assert truth.beats_s is not None
        np.testing.assert_allclose(truth.beats_s, [1.0, 2.0, 4.0], atol=0.5 / per_s)
