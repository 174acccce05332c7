"""Pages from measurements: nothing is lost, figures keep their intervals, and the same input gives the same bytes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from train.compare.study_page import Apart, Run, budgets, read_runs, study_page, study_plot
from train.judge.tables import cell, find
from train.judge.targets import Target
from train.report import page, plots, report, tables

EVALUATION: dict[str, Any] = {
    "command": "python -m train.evaluate --checkpoint nano",
    "checkpoint": "nano",
    "network": "nano",
    "split": "test",
    "records": {"cudb": 7, "mitdb": 10},
    "skipped": {"beats": "no record has marked beats"},
    "beats": None,
    "rhythm": {
        name: {
            "records": 10,
            "hours": 5.0,
            "classes": {
                "SINUS": {"stated_s": 10.0, "sensitivity": [0.98, 0.95, 0.99], "ppv": None},
                "VF": {"stated_s": 2.0, "sensitivity": [0.9, 0.8, 1.0], "ppv": [0.7, 0.6, 0.8]},
            },
            "shockable_4_s": {"windows": 100, "sensitivity": [0.9, 0.8, 1.0], "specificity": [0.94, 0.9, 0.99]},
        }
        for name in ("cudb", "arrhythmia")
    },
    "screen": {
        "records": 200,
        "mean_f1": [0.8, 0.78, 0.82],
        "classes": {"N": {"f1": [0.9, 0.88, 0.92]}, "~": None},
        "confusion": {"classes": ["N", "A", "O", "~"], "confusion": [[90, 5, 5, 0], [2, 40, 8, 0], [10, 9, 60, 1], [0, 0, 0, 0]]},
    },
    "window": None,
    "leads": {
        "window_records": 100,
        "sets": {
            "1": {"leads": "II", "macro_auroc": [0.85, 0.8, 0.88], "rhythm_f1": {"AF": [0.5, 0.4, 0.6]}},
            "12": {"leads": "I II III", "macro_auroc": [0.92, 0.9, 0.94], "rhythm_f1": {"AF": [0.6, 0.4, 0.7]}},
        },
    },
    "noise": {
        "snr": "std to std",
        "clean": {"f1": [0.95, 0.9, 1.0], "v_f1": None},
        "em": {"24 dB": {"f1": [0.8, 0.7, 0.9], "v_f1": None}, "0 dB": {"f1": [0.5, 0.4, 0.6], "v_f1": [0.1, 0.0, 0.2]}},
        "ma": {"24 dB": {"f1": [0.9, 0.8, 0.95], "v_f1": None}, "0 dB": {"f1": [0.7, 0.6, 0.8], "v_f1": None}},
    },
    "calibration": {
        "rhythm": {"decisions": 100, "ece": [0.04, 0.05, 0.06], "reliability": [[0.5, 0.4, 10], [0.9, 0.95, 90]]},
        "screen": None,
    },
    "cost": {"parameters": 1287216, "gmac_per_10_s": 0.064, "p50": 5.23, "p99": 6.0, "runs": 30, "device": "cpu", "threads": 1},
}


def row_of(text: str, first: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [part.strip() for part in line.strip("|").split("|")]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([0.9123, 0.8999, 0.92], "0.912 (0.900 to 0.920)"),
        ([12.34, 10.0, 15.55], "12.3 (10.0 to 15.6)"),
        ([0.03, 0.04, 0.05], "0.030 (0.040 to 0.050)"),
        ([-0.0001, -0.01, 0.01], "0.000 (-0.010 to 0.010)"),
        ([0.013, -0.0004, 0.027], "0.013 (-0.000 to 0.027)"),
        ([0.0, -0.0, 0.0], "0.000 (0.000 to 0.000)"),
        ([0.5, 0.6, 0.4], "[0.5, 0.6, 0.4]"),
        (None, "-"),
        (True, "yes"),
        (False, "no"),
        (1287216, "1287216"),
        (5.234, "5.234"),
        (1234.5, "1234"),
        ("a|b", "a\\|b"),
    ],
)
def test_cells(value: Any, text: str) -> None:
    assert cell(value) == text


def test_tables_join_what_shares_its_keys() -> None:
    databases, classes, shockable = tables(EVALUATION["rhythm"])
    assert row_of(databases, "cudb") == ["cudb", "10", "5.000"]
    assert classes.startswith("**classes**")
    assert row_of(classes, "cudb | SINUS") == ["cudb", "SINUS", "10.0", "0.980 (0.950 to 0.990)", "-"]
    assert row_of(classes, "arrhythmia | VF") == ["arrhythmia", "VF", "2.000", "0.900 (0.800 to 1.000)", "0.700 (0.600 to 0.800)"]
    assert shockable.startswith("**shockable 4 s**")
    assert row_of(shockable, "arrhythmia")[1:] == ["100", "0.900 (0.800 to 1.000)", "0.940 (0.900 to 0.990)"]


def test_tables_leave_out_matrices_and_columns_without_a_figure() -> None:
    records, clean, noisy = tables(EVALUATION["noise"])
    assert "std to std" in records
    assert "V F1" not in clean
    assert "V F1" in noisy
    assert row_of(noisy, "electrode motion | 0 dB") == [
        "electrode motion",
        "0 dB",
        "0.500 (0.400 to 0.600)",
        "0.100 (0.000 to 0.200)",
    ]
    assert len(list(tables(EVALUATION["screen"]))) == 2
    assert "reliability" not in "".join(tables(EVALUATION["calibration"]))


def test_one_row_of_many_figures_stands_upright() -> None:
    (cost,) = tables(EVALUATION["cost"])
    assert cost.splitlines()[0] == "| figure | value |"
    assert row_of(cost, "parameters") == ["parameters", "1287216"]
    assert row_of(cost, "threads") == ["threads", "1"]


def test_a_page_holds_the_sections_the_targets_and_what_is_missing() -> None:
    text = page(EVALUATION, {"screen": "nano-screen.png"})
    assert row_of(text, "VF in 4 s | sensitivity")[2:] == [
        "at least 0.95",
        "0.900 (0.800 to 1.000)",
        "no",
        "AHA > .90; .997 published",
    ]
    assert row_of(text, "one-lead screening | mean F1 of N, A, O")[4] == "yes"
    assert "S beats" not in text
    assert "![One-lead screening](nano-screen.png)" in text
    for title in ("Dense rhythm", "By lead set", "By signal-to-noise ratio", "Calibration", "Cost"):
        assert f"## {title}\n" in text
    assert "## Beats" not in text
    assert "- beats: no record has marked beats" in text
    assert text.startswith("# nano\n\nTest records: 7 cudb, 10 mitdb.")
    assert "`python -m train.evaluate --checkpoint nano`" in text
    own = (Target("AF", "F1", 0.83, "us", ("leads", "sets", "12", "rhythm_f1", "AF")),)
    assert row_of(page(EVALUATION, {}, own), "AF | F1")[2:] == ["at least 0.83", "0.600 (0.400 to 0.700)", "no", "us"]
    small = (Target("AF", "F1", 0.65, "", ("leads", "sets", "12", "rhythm_f1", "AF"), at_most=True),)
    assert row_of(page(EVALUATION, {}, small), "AF | F1")[2:] == ["at most 0.65", "0.600 (0.400 to 0.700)", "yes", "-"]


def test_find_ends_where_the_keys_end() -> None:
    assert find(EVALUATION, ("screen", "mean_f1")) == [0.8, 0.78, 0.82]
    assert find(EVALUATION, ("screen", "mean_f1", "deeper")) is None
    assert find(EVALUATION, ("beats", "mitdb")) is None


def test_plots_are_drawn_for_what_can_be_drawn() -> None:
    drawn = plots(EVALUATION)
    assert set(drawn) == {"screen", "noise", "leads", "calibration"}
    assert [axes.get_title() for axes in drawn["noise"].axes] == ["electrode motion", "muscle"]
    f1, v_f1 = (container.lines[0] for container in drawn["noise"].axes[0].containers)
    np.testing.assert_allclose(f1.get_ydata(), [0.95, 0.8, 0.5])  # clean first
    np.testing.assert_allclose(v_f1.get_ydata(), [0.1])
    assert round(float(v_f1.get_xdata()[0])) == 2
    matrix = drawn["screen"].axes[0].images[0].get_array()
    np.testing.assert_allclose(matrix[1], [0.04, 0.8, 0.16, 0.0])
    np.testing.assert_allclose(matrix[3], 0.0)
    assert [text.get_text() for text in drawn["screen"].axes[0].get_xticklabels()] == ["N", "A", "O", "~"]
    np.testing.assert_allclose(drawn["calibration"].axes[0].collections[0].get_offsets(), [[0.5, 0.4], [0.9, 0.95]])
    assert [line.get_label() for line in drawn["leads"].axes[0].containers] == ["macro AUROC"]


def runs() -> list[Run]:
    scores = {
        ("scratch", 0.01): [0.40, 0.42, 0.47],
        ("scratch", 1.0): [0.70, 0.72],
        ("ecgnat", 0.01): [0.50, 0.51, 0.60],
    }
    scores |= {("ecgnat", 1.0): [0.71], ("own", 0.01): [0.1], ("random-init probe", 0.01): [0.3, 0.3]}
    return [
        Run(
            arm=arm,
            task="screen",
            fraction=fraction,
            seed=seed,
            test=test,
            minutes=2,
            steps=100 + seed,
            records=round(4000 * fraction),
        )
        for (arm, fraction), tests in scores.items()
        for seed, test in enumerate(tests)
    ]


def test_a_study_compares_seed_by_seed() -> None:
    text = study_page(runs(), {})
    first, second, steps, pair = (part for part in text.split("\n\n") if part.startswith("|"))
    assert "1 % of labels (40 records)" in first
    assert row_of(first, "scratch") == ["scratch", "0.430 (0.400 to 0.470), n 3", "0.710 (0.700 to 0.720), n 2"]
    interval = ttest_1samp([0.10, 0.09, 0.13], 0).confidence_interval()
    want = f"+0.107 ({interval.low:+.3f} to {interval.high:+.3f}), n 3"
    assert row_of(second, "ecgnat") == ["ecgnat", want, "+0.010, n 1"]
    assert row_of(second, "own") == ["own", "-0.300, n 1", "-"]
    assert "| scratch |" not in second
    assert row_of(steps, "scratch")[1] == "101"
    assert row_of(pair, "masked pretraining and contrast of ECG-NAT")[1:] == ["ecgnat - scratch", want, "+0.010, n 1", "-"]
    order = [line.split("|")[1].strip() for line in first.splitlines()[2:]]
    assert order == ["scratch", "ecgnat", "own", "random-init probe"]  # as given; read_runs sorts


def test_pairs_say_what_a_claim_says() -> None:
    tests = {"beatnet": [0.8, 0.9], "xresnet1d101": [0.7, 0.7], "clear-hug": [0.5]}
    some = [Run(arm, "csn", 1.0, seed, test) for arm, values in tests.items() for seed, test in enumerate(values)]
    line = row_of(study_page(some, {}), "BEAT-Net over a convolutional network")
    assert line[1] == "beatnet - xresnet1d101"
    assert line[2].startswith("+0.150 (")
    assert "HUG over" not in study_page(some, {}), "clear was not run"
    some += [Run("xresnet1d101", "csn", 1.0, 0, 0.6, size="tiny")]
    assert "over a convolutional network" not in study_page(some, {}), "which of the two sizes?"
    some = [run for run in some if (run.arm, run.size) != ("xresnet1d101", "nano")]
    line = row_of(study_page(some, {}), "BEAT-Net over a convolutional network")
    assert line[1:] == ["beatnet (nano) - xresnet1d101 (tiny)", "+0.200, n 1", "-"]
    text = study_page(some, {}, {"csn-0": {"BEAT-Net over a convolutional network": Apart((0,), (0.2, 0.1, 0.3))}})
    assert row_of(text, "BEAT-Net over a convolutional network")[3] == "0.200 (0.100 to 0.300), n 1"


def test_runs_of_other_budgets_are_not_compared() -> None:
    some = [Run("scratch", "window", 1.0, 0, 0.8, minutes=2), Run("xresnet1d101", "window", 1.0, 0, 0.9, minutes=10)]
    text = study_page(some, {})
    assert text.count("## window") == 2
    assert "+0.1" not in text


def test_report_writes_the_same_bytes_from_any_order(tmp_path: Path) -> None:
    results, study = tmp_path / "results", tmp_path / "study"
    results.mkdir()
    study.mkdir()
    (results / "nano.json").write_text(json.dumps(EVALUATION))
    (results / "latency.json").write_text(json.dumps({"runs": [{"beds": 1}]}))
    (results / "list.json").write_text("[1, 2]")
    for number, run in enumerate(runs()):
        row = {name: getattr(run, name) for name in run.__struct_fields__} | {"unknown": 1}
        (study / f"{number * 7 % 10}-{number}.json").write_text(json.dumps(row) + "\n")
    written = report(results, study, tmp_path / "one")
    names = {path.name for path in written}
    assert {"nano.md", "nano-screen.png", "study.md", "study.jsonl", "study-screen-2.png"} <= names
    assert not {"latency.md", "list.md"} & names
    assert all(path.stat().st_size < 60_000 for path in written)
    report(results, study, tmp_path / "two")
    for path in written:
        assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes(), path.name
    page_before = (tmp_path / "one" / "study.md").read_bytes()
    report(results, tmp_path / "nowhere", tmp_path / "one")  # from study.jsonl
    assert (tmp_path / "one" / "study.md").read_bytes() == page_before
    assert [run.arm for run in read_runs(study)][:2] == ["ecgnat"] * 2


def test_pages_go_to_a_folder_of_their_own(tmp_path: Path) -> None:
    results, study, pages = tmp_path / "results", tmp_path / "study", tmp_path / "pages"
    results.mkdir()
    study.mkdir()
    (results / "nano.json").write_text(json.dumps(EVALUATION))
    for number, run in enumerate(runs()):
        (study / f"{number}.json").write_text(json.dumps({name: getattr(run, name) for name in run.__struct_fields__}))
    report(results, study, results, pages)
    assert {path.suffix for path in pages.iterdir()} == {".md", ".png"}
    assert {"nano.json", "study.jsonl"} == {path.name for path in results.iterdir()}


def test_runs_with_all_labels_have_figures_with_intervals_and_conditions() -> None:
    figure = (0.8, 0.7, 0.9)
    some = [
        Run(
            "ecgnat", "ptbxl-super", 1.0, 0, auroc=figure, auprc=figure, f1=None, left_out=("HYP",), robustness={"clean": figure}
        ),
        Run("ecgnat", "ptbxl-super", 1.0, 1, auroc=(0.6, 0.5, 0.7), auprc=figure, parameters=7),
        Run(
            "beatnet",
            "ptbxl-super",
            1.0,
            0,
            size="paper",
            auroc=figure,
            robustness={"clean": figure, "1 lead": (0.1, 0.05, 0.15)},
        ),
    ]
    assert list(budgets(some)) == ["ptbxl-super-0"]
    text = study_page(some, {})
    assert "0.700 (0.600 to 0.800)" in text, "means of the figures and of the ends of their intervals"
    assert "| ecgnat (nano) | 0.700 (0.600 to 0.800), n 2 |" in text, "of two sizes each is named with its own"
    assert "left out: HYP." in text
    assert row_of(text, "1 lead") == ["1 lead", "-", "0.100 (0.050 to 0.150)"]
    assert row_of(text, "clean") == ["clean", "0.800 (0.700 to 0.900)", "0.800 (0.700 to 0.900)"]


def test_what_cannot_be_measured_is_a_dash(tmp_path: Path) -> None:
    figure = (0.8, 0.7, 0.9)
    some = [Run(arm, "csn", fraction, 0, steps=2) for arm in ("scratch", "beatnet") for fraction in (0.1, 1.0)]
    text = study_page(some, {})
    assert "No class can be measured: none has ten test positives." in text
    first, steps = (part for part in text.split("\n\n") if part.startswith("|"))
    assert row_of(first, "beatnet") == ["beatnet", "-", "-"]
    assert row_of(steps, "beatnet") == ["beatnet", "2", "2"]
    some[3] = Run("beatnet", "csn", 1.0, 0, auroc=figure)
    text = study_page(some, {})
    assert "No class" not in text
    first, second, *_ = (part for part in text.split("\n\n") if part.startswith("|"))
    assert row_of(first, "scratch") == ["scratch", "-", "-"]
    assert row_of(first, "beatnet") == ["beatnet", "-", "0.800 (0.800 to 0.800), n 1"]
    assert row_of(second, "beatnet") == ["beatnet", "-", "-"]
    (tmp_path / "runs.json").write_text("\n".join(f'{{"arm": "{arm}", "task": "csn", "fraction": 1, "seed": 0}}' for arm in "ab"))
    written = report(tmp_path / "nowhere", tmp_path / "runs.json", tmp_path / "out")
    assert [path.name for path in written] == ["study.jsonl", "study.md"], "no plot of nothing"
    assert not re.search(r"\bnan\b", written[1].read_text())


def test_a_study_of_one_run_is_a_page(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text('{"arm": "scratch", "task": "window", "fraction": 1, "seed": 0, "test": 0.8}')
    report(tmp_path / "nowhere", tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "study.md").read_text()
    assert "0.800 (0.800 to 0.800), n 1" in text
    assert 'difference to "scratch" |' not in text
    assert (tmp_path / "out" / "study-window-0.png").exists()


def test_an_arm_of_one_fraction_has_no_line() -> None:
    legend = study_plot(runs()).axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["scratch", "ecgnat"]
    one = study_plot([run for run in runs() if run.fraction == 0.01]).axes[0].get_legend()
    assert one is not None
    assert len(one.get_texts()) == 4


def test_seeds_that_agree_are_drawn() -> None:
    same = [Run("random-init probe", "csn", 1.0, seed, 0.7) for seed in range(3)]
    assert np.mean([0.7, 0.7, 0.7]) < 0.7, "by a rounding"
    study_plot(same)
    both = [*same, *(Run("clear probe", "csn", 1.0, seed, 0.75) for seed in range(3))]
    assert "| clear probe | +0.050, n 3 |" in study_page(both, {}), "no interval of nothing"


def test_runs_of_two_settings_do_not_share_a_page() -> None:
    some = [Run("beatnet", "cinc2017", 1.0, 0, 0.5, asked_steps=steps, batch=32, lr=0.001) for steps in (10, 100_000)]
    with pytest.raises(
        ValueError, match=r"cinc2017, beatnet, 1 of the labels, seed 0: two runs.*=10, .*=100000,.*folder of its own"
    ):
        study_page(some, {})


def test_no_study_is_no_page(tmp_path: Path) -> None:
    assert report(tmp_path, tmp_path / "nowhere", tmp_path / "out") == []


def test_a_file_that_is_no_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('{"arm": "scratch"')
    with pytest.raises(ValueError, match=r"broken\.json: no run of a study"):
        read_runs(tmp_path)
    (tmp_path / "broken.json").write_text('{"arm": "scratch"}')
    with pytest.raises(ValueError, match=r"run train\.study again"):
        read_runs(tmp_path)
