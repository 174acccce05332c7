"""What is reported: figures of a record and of a database, tables, noise at a stated ratio, strips and the page."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import wfdb

from ecgnat_stream.score.html import page
from ecgnat_stream.score.mistakes import STRIP_S, Mistake, choose, of_record
from ecgnat_stream.score.noise import FROM_S, TURN_S, mix, noisy_record, power_of_noise, power_of_signal
from ecgnat_stream.score.records import ScoreError
from ecgnat_stream.score.report import pairs_of, record_report, summarise
from ecgnat_stream.score.run import Observed, RecordTask, batches, settings
from ecgnat_stream.score.strips import read_leads
from ecgnat_stream.score.tables import as_text, sheets
from ecgnat_stream.score.truth import Challenge, Episode, Truth
from ecgnat_stream.spans import AlarmSpan, RhythmSpan

FS, SECONDS = 100.0, 700.0
EVERY = ("ventricular-fibrillation", "ventricular-tachycardia", "asystole", "atrial-fibrillation")


def truth(path: Path = Path("a"), **changes: Any) -> Truth:
    at_s = np.arange(1.0, SECONDS, 1.0)
    classes = np.where(np.arange(len(at_s)) % 10 == 5, "V", "N")
    episodes = {"ventricular-fibrillation": [Episode(400, 420, True), Episode(600, 610, True)]}
    one = Truth("d<b", "a&b", "test", path, FS, SECONDS, 300.0, at_s, classes, ((0, SECONDS, "(N<"),), episodes, frozenset(EVERY))
    return replace(one, **changes)


def observed(stated: Truth) -> Observed:
    assert stated.beats_s is not None
    assert stated.classes is not None
    kept = (stated.beats_s < 500) | (stated.beats_s >= 510)
    high = ("high", "physiological")
    said = sorted([*zip(stated.beats_s[kept].tolist(), stated.classes[kept].tolist(), strict=True), (650.5, "N")])
    return Observed(
        beats_s=np.array([at_s for at_s, _ in said]),
        classes=[label for _, label in said],
        rhythm=[RhythmSpan(0, 405, "SINUS", 1), RhythmSpan(405, 420, "VF", 1), RhythmSpan(420, SECONDS, "SINUS", 1)],
        unusable=[],
        alarms=[AlarmSpan("ventricular-fibrillation", 408, 425, *high), AlarmSpan("asystole", 500, 510, *high)],
        events=[],
    )


def test_one_record_is_compared_after_its_learning_time() -> None:
    stated = truth()
    row = record_report(stated, observed(stated))
    assert row.beats["QRS"] == {"tp": 400 - 21 - 11 - 10, "fn": 10, "fp": 1}
    assert row.beats["V"]["fn"] == 1
    assert [found.alarm_after_s for found in row.found] == [8, None]
    assert [alarm.verdict for alarm in row.alarms] == ["true", "false"]
    assert row.episodes["VF"]["label"]["shared_s"] == 15
    assert row.episodes["VF"]["alarm"]["stated_found"] == 1


def test_a_database_comes_to_figures_and_every_table_is_filled() -> None:
    stated = truth()
    asked = truth(beats_s=None, classes=None, episodes={}, stated=frozenset(), challenge=Challenge("Asystole", True, 500.0))
    rows = [record_report(stated, observed(stated)), record_report(asked, observed(stated))]
    summary = summarise(rows)
    found = summary["alarms"]["conditions"]["ventricular-fibrillation"]
    assert (found["episodes"], found["within_10_s"], found["missed"], found["false"]) == (2, 1, 1, 0)
    assert summary["alarms"]["priorities"]["high"]["false"] == 1
    assert summary["alarms"]["bed_days"] == round(SECONDS / 86400, 4)
    assert summary["challenge"]["all"]["tp"] == 1
    text = "\n".join(as_text(sheet) for sheet in sheets({"db": summary}))
    for word in ("beats (EC57, 150 ms)", "VF by label", "time to alarm", "all of high priority", "Challenge 2015"):
        assert word in text


def test_records_of_like_length_are_monitored_together() -> None:
    tasks = [RecordTask(("db", str(i)), Path(str(i)), length) for i, length in enumerate((90, 1800, 90, 1700, 90, 90, 90))]
    assert [[task.length_s for task in batch] for batch in batches(tasks, 2, short_s=300, factor=2)] == [
        [1800, 1700], [90, 90, 90, 90], [90],
    ]  # fmt: skip


def test_beds_and_sinks_of_a_configuration_are_left_out() -> None:
    table = {"bed": [{"id": "1", "device": "x"}], "mqtt": {"url": "mqtt://x"}, "alarm": {"asystole_s": 5.0}, "site": "home"}
    config = settings(table, {"name": "ecgnat-nano"})
    assert (config.bed, config.mqtt, config.alarm.asystole_s, config.model.name) == ((), None, 5.0, "ecgnat-nano")


def spikes(beats_s: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    lead = np.zeros(round(SECONDS * FS))
    lead[np.round(beats_s * FS).astype(int)] = 2.0
    return lead


def test_noise_has_the_stated_power_in_every_second_pair_of_minutes() -> None:
    beats_s = np.arange(1.0, SECONDS, 1.0)
    lead = spikes(beats_s)
    noise = np.random.default_rng(3).normal(0, 0.5, (1, 30_000))
    assert power_of_signal(lead, FS, beats_s) == pytest.approx(2.0**2 / 8)
    added = mix(lead[None], FS, noise, beats_s, 6.0)[0] - lead
    on = slice(round(FROM_S * FS), round((FROM_S + TURN_S) * FS))
    assert 10 * np.log10(0.5 / power_of_noise(added[on], FS)) == pytest.approx(6.0, abs=0.2)
    assert not added[: on.start].any()
    assert not added[on.stop : round((FROM_S + 2 * TURN_S) * FS)].any()


def write(folder: Path, name: str, samples: np.ndarray[Any, Any], fs: float = FS) -> Path:
    wfdb.wrsamp(name, fs, ["mV"] * samples.shape[1], [f"L{i}" for i in range(samples.shape[1])], p_signal=samples,
                fmt=["16"] * samples.shape[1], adc_gain=[500.0] * samples.shape[1], baseline=[0] * samples.shape[1],
                write_dir=str(folder))  # fmt: skip
    return folder / name


def test_a_noisy_record_keeps_its_length_rate_and_names(tmp_path: Path) -> None:
    stated = truth(name="a")
    assert stated.beats_s is not None
    path = write(tmp_path, "a", np.column_stack([spikes(stated.beats_s)] * 2))
    noise = write(tmp_path, "em", np.random.default_rng(0).normal(0, 1, (36_000, 1)), 360)
    mixed = wfdb.rdrecord(str(noisy_record(replace(stated, path=path), noise, 0.0, tmp_path / "out")))
    assert (mixed.sig_len, mixed.fs, mixed.sig_name) == (round(SECONDS * FS), FS, ["L0", "L1"])
    np.testing.assert_allclose(mixed.p_signal[:30_000, 0], spikes(stated.beats_s)[:30_000], atol=2e-3)
    with pytest.raises(ScoreError, match="no annotated beats"):
        noisy_record(replace(stated, beats_s=None), noise, 0.0, tmp_path / "out")


def test_every_mistake_of_alarms_is_shown_before_those_of_beats() -> None:
    stated = truth()
    seen = observed(stated)
    found = of_record(record_report(stated, seen), stated, pairs_of(stated, seen))
    assert [mistake.what for mistake in found] == [
        "false: asystole for 10.0 s",
        "missed: ventricular-fibrillation of 10.0 s, no alarm",
        "QRS: 10 wrong",
        "QRS: 1 wrong",
    ]
    assert all(0 <= mistake.start_s <= SECONDS - STRIP_S for mistake in found)


def test_a_report_with_few_strips_takes_them_from_every_record() -> None:
    alarms = [Mistake(("db", "bad"), f"false {i}", float(i)) for i in range(8)] + [Mistake(("db", "good"), "missed", 1.0)]
    beats = [Mistake(("db", "bad"), "QRS", float(i), 9 - i) for i in range(8)]
    chosen = choose([*alarms, *beats], 4)
    assert [mistake.what for mistake in chosen] == ["false 0", "false 1", "missed", "QRS"]
    assert len(choose([*alarms, *beats], 100)) == 17


def test_the_page_is_well_formed_escaped_and_needs_nothing_else(tmp_path: Path) -> None:
    samples = np.sin(np.arange(round(SECONDS * FS)) / 9)[:, None] * [1.0, 3.0]
    samples[40_500:41_000, 0] = np.nan
    stated = truth(write(tmp_path, "a", samples))
    seen = {("d<b", "a&b"): (stated, observed(stated))}
    rows = [record_report(*seen["d<b", "a&b"])]
    about = {"ecgnat_stream": "1", "model": "<m>", "split": "test", "noise": {"record": "em", "snr_db": 6.0}}
    text = page(about, {"d<b": summarise(rows)}, rows, seen, {"db/x": "torn <b>"}, 10)
    assert "a&amp;b" in text
    assert "torn &lt;b&gt;" in text
    assert not re.search(r"<script|https?://(?!www\.w3\.org)|a&b", text)
    drawings = re.findall(r"<svg .*?</svg>", text, re.DOTALL)
    assert len(drawings) == 1 + 4
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    assert drawings[2].count("<path") == 2
    gone = {("d<b", "a&b"): (replace(stated, path=tmp_path / "gone"), observed(stated))}
    assert "gone" in page(about, {"d<b": summarise(rows)}, rows, gone, {}, 1)


def test_strips_and_noise_read_a_record_as_the_monitor_does(tmp_path: Path) -> None:
    """µV is a microvolt there too, and a signal with samples of its own in a frame has its own rate."""
    stated = truth(name="a")
    assert stated.beats_s is not None
    lead = spikes(stated.beats_s)
    np.stack([np.round(1000 * lead), np.zeros(len(lead))], axis=1).astype("<i2").tofile(tmp_path / "a.dat")
    (tmp_path / "a.hea").write_text(
        f"a 2 {FS:g} {len(lead)} 24:00:00 30/02/2020\na.dat 16 1(0)/µV 16 0 0 0 0 L0\na.dat 16 1/mmHg 16 0 0 0 0 ABP\n"
    )
    stated = replace(stated, path=tmp_path / "a")
    names, fs, samples = read_leads(stated, 10.0, 20.0)
    assert (names, fs) == (("L0",), FS)
    np.testing.assert_allclose(samples[0], lead[round(10 * FS) : round(20 * FS)], atol=5e-4)
    noise = write(tmp_path, "em", np.random.default_rng(0).normal(0, 1, (36_000, 1)), 360)
    mixed = wfdb.rdrecord(str(noisy_record(stated, noise, 0.0, tmp_path / "out")))
    assert (mixed.units, mixed.sig_name) == (["mV"], ["L0"])
    np.testing.assert_allclose(mixed.p_signal[:30_000, 0], lead[:30_000], atol=2e-3)
    (tmp_path / "a.hea").write_text(f"a 1 {FS / 2:g} {len(lead)}\na.dat 16x2 1000(0)/mV 16 0 0 0 0 L0\n")
    names, fs, samples = read_leads(stated, 10.0, 20.0)
    assert (names, fs, samples.shape[1]) == (("L0",), FS, round(10 * FS))
    with pytest.raises(ScoreError, match="its annotations count at"):
        noisy_record(replace(stated, fs=FS / 2), noise, 0.0, tmp_path / "out")
