"""The evaluation against a predictor that reads the truth from the signal: what is right, wrong or absent is known."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ecgnat_stream.codes import BEATS, RHYTHMS, SCREENS
from ecgnat_stream.model import EcgNat, ModelCard, Predictor, build, configured, load_checkpoint, save_checkpoint, size
from ecgnat_stream.model.checkpoint import Calibration
from ecgnat_stream.model.heads import BEAT_TOKEN
from ecgnat_stream.model.preprocess import TOKEN
from ecgnat_stream.signal import LEADS, MODEL_FS, Conditioned
from train.data.labels import BEAT_UNSTATED, UNSTATED, allow
from train.data.pack import Cached
from train.data.sample import Cache
from train.data.tasks import TASKS
from train.evaluate import SECTIONS, evaluate, main, summary
from train.judge import by_task
from train.judge.cost import count_macs
from train.judge.reading import Reader
from train.judge.robustness import BEAT_ERRORS, AddNoise, beat_errors_section, keep, leads_section, noise_section
from train.judge.score_beats import count_beats, summarise_beats
from train.judge.sections import check_classes, judged_beats, long_sections, screen_section, window_section

SINUS, AF, VF = (RHYTHMS.index(name) for name in ("SINUS", "AF", "VF"))
N, V = BEATS.index("N"), BEATS.index("V")
RHYTHM_LEAD, BEAT_LEAD, SCREEN_LEAD, WINDOW_LEAD = (LEADS.index(name) for name in ("II", "V1", "V2", "V3"))
SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")


class Oracle:
    """Says what four leads hold as numbers: rhythm class, beat class + 1 at every R peak, screen class + 1, statement bits."""

    window_classes = SUPERCLASSES
    needs_beats = False
    path = Path("oracle")
    parameters = 1
    card = SimpleNamespace(calibration=Calibration(), model=SimpleNamespace(name="oracle"))

    def predict(self, windows: Conditioned, beats: None = None) -> Any:
        assert windows.fs == MODEL_FS
        batch, _, length = windows.samples.shape
        tokens = -(-length // TOKEN)
        padded = np.pad(np.nan_to_num(windows.samples), ((0, 0), (0, 0), (0, tokens * TOKEN - length)))
        rhythm = np.full((batch, tokens, len(RHYTHMS)), 0.01, np.float32)
        middle = np.minimum(np.arange(tokens) * TOKEN + TOKEN // 2, length - 1)
        said = padded[:, RHYTHM_LEAD, middle].round().astype(int).clip(0, 7)
        np.put_along_axis(rhythm, said[..., None], 0.93, axis=2)
        beat = np.zeros((batch, 4 * tokens, 2 + len(BEATS)), np.float32)
        marks = padded[:, BEAT_LEAD].round().astype(int).clip(0, len(BEATS))
        for row, at in zip(*np.nonzero(marks), strict=True):
            token = at // BEAT_TOKEN
            beat[row, token, :2] = 0.9, at % BEAT_TOKEN / BEAT_TOKEN
            beat[row, token, 1 + marks[row, at]] = 1
        screen = np.full((batch, len(SCREENS)), 0.02, np.float32)
        screen[np.arange(batch), np.maximum(padded[:, SCREEN_LEAD, 0].round().astype(int) - 1, 0)] = 0.94
        bits = padded[:, WINDOW_LEAD, 0].round().astype(int)
        window = np.where(bits[:, None] >> np.arange(len(SUPERCLASSES)) & 1, 0.9, 0.1).astype(np.float32)
        return SimpleNamespace(rhythm=rhythm, beat=beat, screen=screen, window=window)


class OfBeats(Oracle):
    """Says a normal beat at every R peak that it is given."""

    needs_beats = True

    def predict(self, windows: Conditioned, beats: NDArray[np.float32]) -> Any:  # type: ignore[override]
        prediction = super().predict(windows)
        prediction.beat[:] = 0
        for row, peaks in enumerate(beats):
            at = peaks[np.isfinite(peaks)] / BEAT_TOKEN
            prediction.beat[row, at.astype(int), :3] = np.stack([np.full_like(at, 0.9), at % 1, np.ones_like(at)], axis=1)
        return prediction


class Pack:
    """Collects synthetic records and writes them as a cache."""

    def __init__(self) -> None:
        self.rows: list[Cached] = []
        self.leads, self.sets, self.marks = [], [], [np.zeros((0, 2), np.float32)]
        self.at = self.rhythm_at = 0

    def add(
        self,
        database: str,
        rhythm: NDArray[np.int64],
        sets: NDArray[np.int64] | None = None,
        beats: NDArray[np.float32] | None = None,
        slots: tuple[int, ...] = tuple(range(12)),
        **stated: Any,
    ) -> None:
        """Add a record whose leads say ``rhythm`` ``(T,)``, beats and statements; ``sets`` are stated instead of ``rhythm``."""
        signal = np.zeros((len(LEADS), len(rhythm)), np.float16)
        signal[RHYTHM_LEAD] = rhythm
        if beats is not None:
            signal[BEAT_LEAD, beats[:, 0].astype(int)] = np.where(beats[:, 1] == BEAT_UNSTATED, 0, beats[:, 1]) + 1
        signal[SCREEN_LEAD], signal[WINDOW_LEAD] = stated.get("screen", -1) + 1, max(stated.get("window", -1), 0)
        row = Cached(
            database, str(len(self.rows)), stated.get("split", "test"), slots, len(rhythm), self.at, self.rhythm_at, -1,
            stated.get("window", -1), stated.get("screen", -1),
            sum(map(len, self.marks)), -1 if beats is None else len(beats),
        )  # fmt: skip
        self.rows.append(row)
        self.leads.append(signal[list(slots)].ravel())
        self.sets.append((1 << rhythm if sets is None else sets).astype(np.uint8))
        if beats is not None:
            self.marks.append(beats)
        self.at += len(slots) * len(rhythm)
        self.rhythm_at += len(rhythm)

    def write(self, path: Path, noise: bool = True) -> Cache:
        (path / "leads.f16").write_bytes(np.concatenate(self.leads).tobytes())
        (path / "rhythm.u8").write_bytes(np.concatenate(self.sets).tobytes())
        np.save(path / "beats.npy", np.concatenate(self.marks))
        np.save(path / "noise.npy", np.random.default_rng(0).normal(0, 1, (6 * noise, 3000)).astype(np.float16))
        (path / "records.json").write_bytes(msgspec.json.encode(self.rows))
        return Cache(path)


def every_second(length: int, kind: int = N) -> NDArray[np.float32]:
    places = np.arange(30, length, 100)
    return np.stack([places, np.full(len(places), kind)], axis=1).astype(np.float32)


def reader(cache: Cache, change: Any = None) -> Reader:
    return Reader(Oracle(), cache, change)  # type: ignore[arg-type]


@pytest.fixture
def pack(tmp_path: Path) -> Cache:
    """Two long records with VF and V beats, 12 of screening, 24 of twelve leads, one of another split."""
    made = Pack()
    rhythm = np.repeat([SINUS, VF, SINUS], [8288, 4000, 3733])
    mixed = every_second(len(rhythm))
    mixed[::4, 1] = V
    made.add("mitdb", rhythm, beats=mixed, slots=(1, 6))
    made.add("mitdb", np.full(13_001, AF), beats=every_second(13_001), slots=(1, 6))
    for number in range(12):
        made.add("cinc2017", np.full(900 + 700 * number, SINUS), screen=number % 4, slots=(1, 7))
    for number in range(24):
        made.add("ptbxl", np.full(1000, AF if number % 3 else SINUS), window=1 + number % 2)
    made.add("ptbxl", np.full(1000, SINUS), window=1, split="val")
    return made.write(tmp_path)


def records(cache: Cache) -> list[Cached]:
    return [record for record in cache.records if record.split == "test"]


def test_a_predictor_that_is_right_scores_one(pack: Cache) -> None:
    found = long_sections(reader(pack), records(pack))
    mitdb = found["rhythm"]["mitdb"]
    assert set(found["rhythm"]) == {"mitdb", "arrhythmia", "all"}  # records of 10 s are no dense rhythm
    assert mitdb["classes"]["AF"]["sensitivity"] == [1, 1, 1]
    for name in ("SINUS", "VF"):
        assert mitdb["classes"][name]["f1"][0] > 0.99
    assert mitdb["vf_episodes"]["number"] == mitdb["vf_episodes"]["found_as_vf"] == 1
    assert mitdb["vf_episodes"]["false_per_hour"][0] == 0
    shock = mitdb["shockable_4_s"]
    assert (shock["auroc"][0], shock["sensitivity"][0], shock["specificity"][0]) == (1, 1, 1)
    assert shock["positive"] == 10  # VF from 82.88 to 122.88 s; of the window from 80 s it is less than half
    assert found["calibration"]["ece"][0] == pytest.approx(0.07, abs=0.02)


def test_beats_are_found_once_and_not_in_vf(pack: Cache) -> None:
    figures = long_sections(reader(pack), records(pack))["beats"]["mitdb"]
    outside = int(((every_second(16_021)[:, 0] < 8288) | (every_second(16_021)[:, 0] >= 12_288)).sum())
    assert figures["beats"] == outside + len(every_second(13_001))
    assert figures["r_peak"] == {"sensitivity": [1, 1, 1], "ppv": [1, 1, 1], "f1": [1, 1, 1]}
    assert figures["classes"]["V"]["f1"][0] == 1
    assert figures["classes"]["S"] is None
    assert figures["error_ms"] == {"median": 0, "median_absolute": 0}
    assert figures["per_record"]["0"]["V_sensitivity"] == 1
    matrix = np.array(figures["confusion"]["confusion"])
    assert matrix.shape == (6, 6)
    assert matrix.trace() == matrix.sum() == figures["beats"]


def test_beats_are_counted_where_they_are_marked_only(tmp_path: Path) -> None:
    made = Pack()
    made.add("ludb", np.full(1000, SINUS), beats=np.array([[330, BEAT_UNSTATED], [430, BEAT_UNSTATED]], np.float32))
    made.rows[0] = msgspec.structs.replace(made.rows[0], beats_start=300, beats_stop=500)
    cache = made.write(tmp_path)
    said = SimpleNamespace(positions=np.array([130.0, 333.0, 480.0]), classes=np.array([N, V, N]))
    counts = judged_beats(cache, cache.records[0], said)  # type: ignore[arg-type]
    assert counts is not None
    figures = summarise_beats([counts])
    assert figures["r_peak"]["sensitivity"][0] == 0.5
    assert figures["r_peak"]["ppv"][0] == 0.5
    assert figures["classes"] is None  # presence only
    np.testing.assert_allclose(counts.errors_ms, [30])


def test_classes_after_ec57() -> None:
    f = BEATS.index("F")
    stated = np.array([[100, N], [200, V], [300, V], [400, f], [500, N], [600, BEAT_UNSTATED]], float)
    said = np.array([100, 200, 400, 500, 600, 700.0])
    counts = count_beats("100", stated, said, np.array([N, V, V, V, V, V]), np.ones(1000, bool))
    figures = summarise_beats([counts])["classes"]
    assert figures["V"]["sensitivity"][0] == 0.5
    assert figures["V"]["ppv"][0] == pytest.approx(1 / 3, abs=1e-3)  # one right, one N, one where nothing is; F exempt
    assert figures["N"]["ppv"][0] == 1
    assert figures["F"]["sensitivity"][0] == 0


def test_screening(pack: Cache) -> None:
    figures = screen_section(reader(pack), records(pack))
    assert figures is not None
    assert (figures["records"], figures["mean_f1"][0], figures["accuracy"][0], figures["macro_auroc"][0]) == (12, 1, 1, 1)
    assert np.array(figures["confusion"]["confusion"]).tolist() == (3 * np.eye(4, dtype=int)).tolist()
    assert figures["calibration"]["ece"][0] == pytest.approx(0.06, abs=0.01)
    blind = screen_section(reader(pack, keep(["II"])), records(pack))
    assert blind is not None
    assert blind["mean_f1"][0] == pytest.approx(0.4 / 3, abs=1e-3)  # all N: F1 of N is 2 * 3 / (12 + 3)
    assert blind["classes"]["A"]["f1"][0] == 0


def test_statements(pack: Cache) -> None:
    figures = window_section(reader(pack), records(pack))
    assert figures is not None
    assert (figures["records"], figures["macro_auroc"][0], figures["macro_f1"][0]) == (24, 1, 1)
    assert list(figures["classes"]) == ["NORM", "MI"]
    assert figures["left_out"] == {"STTC": 0, "CD": 0, "HYP": 0}
    assert figures["calibration"]["ece"][0] == pytest.approx(0.1, abs=0.01)


def test_fewer_leads_lose_what_they_held(pack: Cache) -> None:
    section = leads_section(reader(pack), records(pack))
    assert section is not None
    assert section["rhythm_records"] == {"SINUS": 8, "AF": 16}
    assert section["sets"]["12"]["window_macro_auroc"][0] == 1
    assert section["sets"]["1"]["window_macro_auroc"][0] == 0.5
    assert section["loss_from_12_to_1"]["window_macro_auroc"] == [0.5, 0.5, 0.5]
    assert section["loss_from_12_to_1"]["rhythm_macro_f1"] == [0, 0, 0]


def test_noise_has_the_level_that_it_is_said_to_have(pack: Cache) -> None:
    record = pack.records[0]
    clean = pack.cut(record, 0, record.length)[0]
    noisy = AddNoise(pack, 1, 6, {})(clean, record, 0)
    added = (noisy - clean)[RHYTHM_LEAD]
    assert 20 * np.log10(clean[RHYTHM_LEAD].std() / added.std()) == pytest.approx(6, abs=0.5)
    later = AddNoise(pack, 1, 6, {})(clean[:, 500:1500], record, 500)
    np.testing.assert_array_equal(later[RHYTHM_LEAD], noisy[RHYTHM_LEAD, 500:1500])
    assert np.isnan(noisy[0]).all()


def test_noise_section(pack: Cache) -> None:
    section = noise_section(reader(pack), records(pack))
    assert section is not None
    assert (section["screen_records"], section["beat_records"]) == (12, 2)
    assert (section["clean"]["screen_mean_f1"][0], section["clean"]["r_peak_f1"][0], section["clean"]["v_f1"][0]) == (1, 1, 1)
    assert list(section["em"]) == ["24 dB", "18 dB", "12 dB", "6 dB", "0 dB"]
    assert section["em"]["0 dB"]["r_peak_f1"][0] < section["em"]["24 dB"]["r_peak_f1"][0] + 1e-9


def test_wrong_beats_cost_what_is_said_of_them(pack: Cache) -> None:
    section = beat_errors_section(Reader(OfBeats(), pack), records(pack))  # type: ignore[arg-type]
    assert section is not None
    assert (section["screen_records"], section["beat_records"]) == (12, 2)
    assert set(section) == {"screen_records", "beat_records", "clean", *BEAT_ERRORS}
    found = {name: row["r_peak_f1"][0] for name, row in section.items() if isinstance(row, dict)}
    assert found["clean"] > 0.97
    assert found["20 % beats missed"] == pytest.approx(2 * 0.8 / 1.8, abs=0.04)
    assert found["20 % beats false"] < found["5 % beats false"] < found["clean"]
    assert beat_errors_section(reader(pack), records(pack)) is None, "finds beats for itself"


def test_what_is_absent_is_named_and_null(tmp_path: Path, untrained: Path) -> None:
    made = Pack()
    made.add("somewhere", np.full(2000, SINUS), sets=np.full(2000, UNSTATED), slots=(1,))
    made.add("mitdb", np.full(2000, SINUS), sets=np.full(2000, allow("SINUS")), slots=(1,), split="train")
    cache = made.write(tmp_path, noise=False)
    with Predictor(config(untrained)) as predictor:
        results = evaluate(predictor, cache, "test", robustness=True)
    assert results["records"] == {"somewhere": 1}
    assert [name for name in SECTIONS if results[name] is not None] == ["cost"]
    assert set(SECTIONS) - {"cost"} <= set(results["skipped"])
    assert results["skipped"]["mitdb"] == "has no record of split test"
    assert "vfdb" in results["skipped"]
    assert "skipped vfdb" in summary(results)


def test_the_program_writes_json_without_nan(tmp_path: Path, untrained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Pack()
    made.add("mitdb", np.full(12_000, SINUS), beats=every_second(12_000), slots=(1, 6))
    made.add("cinc2017", np.full(1500, AF), screen=1, slots=(1,))
    made.add("ptbxl", np.full(1000, SINUS), window=1)
    made.write(tmp_path)
    (tmp_path / "data" / "somewhere").mkdir(parents=True)
    file = tmp_path / "out" / "results.json"
    main(["--data", str(tmp_path / "data"), "--model", str(untrained), "--cache", str(tmp_path), "--json", str(file)])
    text = file.read_text()
    results = msgspec.json.decode(text)
    assert results["records"] == {"cinc2017": 1, "mitdb": 1, "ptbxl": 1}
    assert results["skipped"]["noise"].startswith("not asked for")
    assert "not known" in results["skipped"]["somewhere"]
    assert results["cost"]["parameters"] > 1e6
    assert str(tmp_path) not in text
    assert not re.search(r"\bNaN\b|Infinity", text)
    assert "beats mitdb" in capsys.readouterr().out


def test_a_wrong_root_is_an_error_that_says_what_to_do(
    tmp_path: Path, untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(SystemExit):
        main(["--data", str(tmp_path / "nothing"), "--model", str(untrained), "--json", str(tmp_path / "x.json")])
    assert "one folder per database" in capsys.readouterr().err


@pytest.fixture
def of_task(tmp_path: Path) -> list[str]:
    """Return the arguments for an untrained network of task cinc2017 and a pack with records of it, but no --task."""
    torch.manual_seed(0)
    network = build(configured("ecgnat", "nano", window_classes=SCREENS))
    save_checkpoint(tmp_path / "model", network, ModelCard(model=network.config))
    made = Pack()
    for number in range(54):
        made.add("cinc2017", np.full(1000, SINUS), screen=number % 3, slots=(1, 7), split="val" if number < 14 else "test")
    made.write(tmp_path)
    parts = {"--data": "data", "--cache": "", "--model": "model", "--json": "task.json"}
    return [text for key, part in parts.items() for text in (key, str(tmp_path / part))]


def test_a_checkpoint_of_a_task_is_judged_as_the_study_does(
    of_task: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_task, "robustness", lambda *_: {"clean": [0.7, 0.6, 0.8], "1 lead": [0.1, 0.0, 0.2], "6 leads": None})
    main([*of_task, "--task", "cinc2017", "--robustness"])
    results = msgspec.json.decode((tmp_path / "task.json").read_bytes())
    cache, task, cpu = Cache(tmp_path), TASKS["cinc2017"], torch.device("cpu")
    network = load_checkpoint(tmp_path / "model")[0]
    of = {part: task.records(cache.records, part) for part in ("val", "test")}
    said = {part: by_task.read(network, cache, some, task, cpu) for part, some in of.items()}
    want = by_task.judge(task, task.targets(of["test"]), said["test"], task.targets(of["val"]), said["val"])
    assert {key: results[key] for key in want} == want
    assert want["left_out"] == ["~"]
    assert results["records"] == {"cinc2017": 40}
    assert results["positives"] == {"N": 13, "A": 13, "O": 14, "~": 0}
    assert "rhythm" not in results, "heads that the study does not train"
    assert str(tmp_path) not in results["command"]
    printed = capsys.readouterr().out
    assert f"| {want['auroc'][0]:.3f} (" in printed
    assert "| 1 lead | 0.100 (0.000 to 0.200) |" in printed
    assert "6 leads" not in printed


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "knows N, A, O, ~, not the superclasses NORM, MI, STTC, CD, HYP: give --task cinc2017"),
        (["--task", "ptbxl-super"], "knows N, A, O, ~, not the classes of ptbxl-super NORM, MI, STTC, CD, HYP"),
        (["--task", "cinc2017", "--split", "val"], "not on split val"),
    ],
)
def test_a_checkpoint_is_not_measured_by_the_classes_of_another_task(
    of_task: list[str], given: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refusal:
        main([*of_task, *given])
    assert refusal.value.code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "task.json").exists()


def test_a_task_needs_test_records_and_no_others(of_task: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every = Cache(tmp_path).records
    write = (tmp_path / "records.json").write_bytes
    write(msgspec.json.encode([row for row in every if row.split == "test"]))
    main([*of_task, "--task", "cinc2017"])
    assert "macro-AUROC" in capsys.readouterr().out
    write(msgspec.json.encode([msgspec.structs.replace(row, split="train") for row in every]))
    with pytest.raises(SystemExit):
        main([*of_task, "--task", "cinc2017"])
    assert "task cinc2017 needs test records of cinc2017" in capsys.readouterr().err


def test_tasks_that_fit_a_checkpoint_are_named() -> None:
    with pytest.raises(ValueError, match="give --task chapman-rhythm or hospitals-shaoxing or hospitals-ptbxl"):
        check_classes(TASKS["hospitals-ptbxl"].classes, None)
    with pytest.raises(ValueError, match="no task has its classes"):
        check_classes(("NORM",), TASKS["cinc2017"])
    check_classes(SUPERCLASSES, None)
    check_classes(SUPERCLASSES, TASKS["ptbxl-super"])


def test_multiplications_grow_with_length_and_ignore_the_masked_form() -> None:
    network = EcgNat(size("nano")).eval()
    short, long = count_macs(network, 10.24), count_macs(network, 20.48)
    assert 0.05e9 < short < 0.08e9
    assert long == pytest.approx(2 * short, rel=0.01)
    assert torch.is_grad_enabled()


def config(path: Path) -> Any:
    from ecgnat_stream.model import ModelConfig

    return ModelConfig(name=str(path), threads=1, device="cpu")
