"""``ecgnat bench``: the search, pairs, bars, verdicts, wrong options, and what is said of libraries that are not there."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

from ecgnat_stream.bench import PARTS, SCHEMA, Report
from ecgnat_stream.bench.commands import _speed
from ecgnat_stream.bench.feeder import FedDevice, Feeder, leads_of, patients
from ecgnat_stream.bench.live import SINKS, LiveTask, _against
from ecgnat_stream.bench.paired import pair
from ecgnat_stream.bench.report import BedLimit, Machine, Peaks, Ratio, Roof, Speed, StageCost, Stages, Start, Trial
from ecgnat_stream.bench.search import Sample, admitted, first_guess, most_beds
from ecgnat_stream.bench.show import bar, drawn, soak_drawn
from ecgnat_stream.bench.soak import SoakOptions, SoakRow, read_rows, soak, verdicts
from ecgnat_stream.bench.stages import STAGES, Stopwatch, stage_of_task
from ecgnat_stream.cli import bench as command
from ecgnat_stream.cli import main
from ecgnat_stream.clock import ManualClock
from ecgnat_stream.config import MOST_BEDS
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.testing import InstantClock

FS = 250.0


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["bench", *words])
    return int(ended.value.code or 0)


# the search


def test_the_first_guess_is_the_loop_or_the_cores_whichever_is_full_first() -> None:
    loop = first_guess(Sample(10, 0.02, 0.02), Sample(110, 0.12, 0.12), cores=2)
    assert loop == pytest.approx((0.85 - 0.01) / 0.001, abs=1)
    cores = first_guess(Sample(10, 0.02, 0.06), Sample(110, 0.12, 0.56), cores=2)
    assert cores == pytest.approx((1.8 - 0.01) / 0.005, abs=1)


def test_a_guess_from_noise_is_still_a_number_of_beds() -> None:
    assert first_guess(Sample(16, 0.05, 0.05), Sample(64, 0.04, 0.04), cores=2) >= 64
    with pytest.raises(ValueError, match="more beds"):
        first_guess(Sample(16, 0.05, 0.05), Sample(16, 0.04, 0.04), cores=2)


@pytest.mark.parametrize("true", [1, 7, 100, 333, 1000, 4096])
@pytest.mark.parametrize("guess", [1, 50, 300, 1200])
def test_the_search_closes_in_on_the_limit(true: int, guess: int) -> None:
    found = most_beds(lambda beds: beds <= true, guess, trials=60)
    assert found.carried <= true < (found.failed or 0)
    assert found.failed is not None and found.failed <= max(found.carried * 1.08, found.carried + 1)


def test_a_trial_that_fails_by_bad_luck_at_first_is_tried_again() -> None:
    answers = itertools.chain([False], itertools.repeat(True))
    found = most_beds(lambda beds: next(answers), 100, most=100)
    assert found.tried == [100, 100] and found.carried == 100 and found.failed is None


def test_where_nothing_is_carried_the_search_ends() -> None:
    found = most_beds(lambda beds: False, 5, trials=30)
    assert found.carried == 0 and found.failed == 1


def test_trials_are_bounded() -> None:
    assert len(most_beds(lambda beds: True, 1, trials=6).tried) == 6


@pytest.mark.parametrize(("carried", "given"), [(0, 0), (1, 0), (8, 6), (133, 99), (1240, 930), (1999, 1400)])
def test_a_machine_is_given_less_than_it_carries(carried: int, given: int) -> None:
    assert admitted(carried) == given


# pairs


def test_a_pair_is_measured_in_turn_now_one_first_and_now_the_other() -> None:
    order: list[str] = []
    now = itertools.count()
    pair(lambda: order.append("a"), lambda: order.append("b"), 0.0, lambda: float(next(now)), fewest=4)
    assert order == ["a", "b", *"ab", *"ba", *"ab", *"ba"]


def test_the_ratio_of_a_pair_is_the_median_of_its_pairs() -> None:
    time = [0.0]

    def takes(seconds: float) -> Any:
        def call() -> None:
            time[0] += seconds

        return call

    found = pair(takes(0.5), takes(2.0), 20.0, lambda: time[0])
    assert (found.ours_s, found.other_s, found.times, found.p10, found.p90) == pytest.approx((0.5, 2.0, 4.0, 4.0, 4.0))
    assert found.pairs >= 5


# the load


async def test_a_bed_gets_its_blocks_in_order_each_with_the_time_at_which_it_was_due() -> None:
    clock = ManualClock()
    signal = np.arange(2000, dtype=np.float32).reshape(2, 1000)
    feeder = Feeder([signal], 1, FS, ("II", "V1"), clock)
    (device,) = feeder.devices
    info = await device.__aenter__()
    assert (info.fs, info.leads, info.live) == (FS, ("II", "V1"), True)
    for due_ns in (100, 200, 300):
        device.deliver(due_ns)
    blocks = [block async for block in _first(device, 3)]
    assert [block.start for block in blocks] == [0, 25, 50]
    assert [block.t_ns for block in blocks] == [100, 200, 300]
    np.testing.assert_array_equal(np.concatenate([block.samples for block in blocks], axis=1), signal[:, :75])
    await device.__aexit__(None, None, None)


async def _first(device: FedDevice, count: int) -> Any:
    async for block in device:
        yield block
        count -= 1
        if not count:
            return


async def test_a_recording_ends_after_its_time() -> None:
    feeder = Feeder([np.zeros((1, 1000), np.float32)], 1, FS, ("II",), InstantClock(), live=False, total_s=2.0)
    async with feeder.devices[0] as info:
        blocks = [block async for block in feeder.devices[0]]
    assert info.total == 500 and blocks[-1].stop == 500 and not info.live


async def test_patients_differ_and_are_the_same_every_time() -> None:
    first, again = await patients(("II",), FS, 2, 3.0), await patients(("II",), FS, 2, 3.0)
    assert [signal.shape for signal in first] == [(1, 750), (1, 750)]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])


@pytest.mark.parametrize("count", [0, 13])
def test_a_bed_has_one_to_twelve_leads(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 12"):
        leads_of(count)


# stages


def test_every_stage_has_its_classes() -> None:
    """A class that was renamed would make its stage cost nothing."""
    from importlib import import_module

    for classes in STAGES.values():
        for module, name in classes:
            assert isinstance(getattr(import_module(module), name), type)


def test_time_of_a_stage_is_without_what_it_calls() -> None:
    watch = Stopwatch()
    watch.enter("ward")
    watch.enter("beats")
    watch.leave()
    watch.leave()
    shares = watch.shares(10.0)
    assert set(shares) == {"ward", "beats", "loop"} and sum(shares.values()) == pytest.approx(10.0)
    assert all(seconds >= 0 for seconds in shares.values())


def test_tasks_work_for_their_stages() -> None:
    names = {"intake a/b/1": "devices", "device link 3": "devices", "advance": "ward", "ZmqSink": "sinks", "monitor": "loop"}
    assert {name: stage_of_task(name) for name in names} == names


# what counts as carried


def test_beds_are_carried_unless_something_speaks_against_it() -> None:
    task = LiveTask(beds=10, labels_per_bed_s=1.0)
    assert _against(task, 499.0, 0, (), 0, 0.99, {}) == ""
    assert "p99 501" in _against(task, 501.0, 0, (), 0, 1.0, {})
    assert "3 windows skipped" in _against(task, 100.0, 3, (), 0, 1.0, {})
    assert "overload" in _against(task, 100.0, 0, ("overload",), 0, 1.0, {})
    assert "2 of 10 beds" in _against(task, None, 0, (), 2, 1.0, {})
    assert "0.50 labels" in _against(task, 100.0, 0, (), 0, 0.5, {})
    assert "the network" in _against(task, 100.0, 0, (), 0, 1.0, {"model": "the network is gone"})


# commands as fast as possible


def test_the_speed_of_a_recording_is_told_without_the_start() -> None:
    found = _speed("replay", 2, 560.0, short=(5.0, 4.0), long=(12.0, 8.0))
    assert (found.times_real_time, found.per_cpu_s, found.wall_s) == (80.0, 140.0, 7.0)
    assert found.start_s == pytest.approx(4.5)
    assert found.command == "ecgnat replay --speed max"


def test_a_difference_that_is_lost_in_the_noise_is_no_speed() -> None:
    found = _speed("score", 1, 280.0, short=(5.0, 4.0), long=(4.9, 4.1))
    assert found.times_real_time is None and found.per_cpu_s is None


# the soak


def row(at_s: float, **changes: Any) -> SoakRow:
    usual = {
        "run": 1,
        "beds": 2,
        "leads": 2,
        "live": True,
        "at_s": at_s,
        "run_s": at_s,
        "wall_s": 10.0,
        "rss_mb": 400.0,
        "labels": 20,
        "p50_ms": 100.0,
        "p99_ms": 150.0,
        "worst_ms": 160.0,
        "skipped": 0,
        "cpu_ms": 2.0,
    }
    return SoakRow(**usual | changes)


def test_a_leak_is_not_flat_and_noise_is() -> None:
    rng = np.random.default_rng(0)
    rows = [row(10.0 * k, rss_mb=400 + 0.2 * k + rng.normal(), p99_ms=150 + rng.normal(0, 5)) for k in range(1, 300)]
    flat = {verdict.what: verdict.flat for verdict in verdicts(rows)}
    assert flat == {"memory, MB": False, "p50, ms": True, "p99, ms": True, "processor time, ms per bed and s": True}
    (memory,) = (verdict for verdict in verdicts(rows) if verdict.what == "memory, MB")
    assert memory.per_hour == pytest.approx(72, abs=2) and memory.low < 72 < memory.high


def test_what_falls_does_no_harm() -> None:
    rows = [row(10.0 * k, rss_mb=500 - k, cpu_ms=3 - 0.01 * k) for k in range(1, 100)]
    assert all(verdict.flat for verdict in verdicts(rows))


def test_every_process_has_a_verdict_of_its_own() -> None:
    rows = [row(10.0 * k) for k in range(1, 20)] + [
        row(190 + 10.0 * k, run=2, run_s=10.0 * k, rss_mb=300.0) for k in range(1, 20)
    ]
    assert {verdict.run for verdict in verdicts(rows)} == {1, 2}
    assert all(verdict.flat for verdict in verdicts(rows))


def test_too_few_rows_have_no_verdict() -> None:
    assert verdicts([row(10.0 * k) for k in range(1, 9)]) == []


def test_a_soak_goes_on_after_a_line_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "soak.jsonl"
    path.write_bytes(msgspec.json.encode(row(10.0)) + b"\n" + msgspec.json.encode(row(20.0))[:30])
    assert [each.at_s for each in read_rows(path, SoakOptions(beds=2))] == [10.0]


@pytest.mark.parametrize("changes", [{"beds": 3}, {"leads": 12}, {"live": False}])
def test_a_file_of_another_soak_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "soak.jsonl"
    path.write_bytes(msgspec.json.encode(row(10.0)) + b"\n")
    with pytest.raises(ConfigError, match="is of 2 beds with 2 leads in real time"):
        read_rows(path, SoakOptions(**{"beds": 2} | changes))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "soak.jsonl"
    path.write_text("precious\nwords\n")
    with pytest.raises(ConfigError, match="line 1: no row of a soak"):
        read_rows(path, SoakOptions())
    assert path.read_text() == "precious\nwords\n"


async def test_a_soak_as_fast_as_possible_writes_a_row_every_ten_seconds_and_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "soak.jsonl"
    options = SoakOptions(beds=2, seconds=30.0, live=False, every_s=10.0)
    rows = await soak(options, path)
    assert rows[-1].at_s >= 30.0 and {each.run for each in rows} == {1} and all(each.skipped == 0 for each in rows)
    assert sum(each.labels for each in rows) >= 2 * 20
    more = await soak(msgspec.structs.replace(options, seconds=45.0), path)
    assert more[: len(rows)] == rows and more[-1].run == 2 and more[-1].at_s >= 45.0
    assert read_rows(path, options) == more
    assert await soak(options, path) == more


# the report


def trial(beds: int, **changes: Any) -> Trial:
    usual = {
        "beds": beds,
        "leads": 2,
        "fs": FS,
        "seconds": 20.0,
        "model": "ecgnat-nano",
        "mode": "window",
        "labels": 20 * beds,
        "labels_per_bed_s": 1.0,
        "p50_ms": 120.0,
        "p99_ms": 180.0,
        "worst_ms": 220.0,
        "skipped": 0,
        "late": (),
        "silent": 0,
        "cpu_ms": 3.0,
        "loop_ms": 1.0,
        "network_ms": 2.0,
        "load_ms": 0.1,
        "cores_used": 0.4,
        "rss_mb": 400.0,
        "sustained": True,
        "why": "",
    }
    return Trial(**usual | changes)


def report() -> Report:
    roof = Roof(flop=1e6, bytes=1e5, fraction=0.25, bound="arithmetic")
    failed = trial(512, p99_ms=900.0, sustained=False, why="p99 900 ms is beyond 500")
    return Report(
        version="1.0",
        time="2026-11-30T00:00:00+00:00",
        command="ecgnat bench",
        machine=Machine(
            system="Linux", processor="one", cores=2, memory_gb=24.0, python="3.11", torch="2.13", device="cpu", kernels="numpy"
        ),
        peaks=(Peaks(threads=1, gflop_per_s=100.0, gb_per_s=10.0),),
        beds=(
            BedLimit(
                leads=2,
                first_guess=300,
                sustained=256,
                failed_at=512,
                admission=190,
                mb_per_bed=0.6,
                trials=(trial(256), failed),
                roof=roof,
            ),
        ),
        stages=(
            Stages(
                beds=2,
                leads=2,
                sinks=("jsonl",),
                cpu_ms_per_bed_s=1.5,
                other_than_network_ms_per_bed_s=0.5,
                costs=(
                    StageCost(stage="beats", ms_per_bed_s=0.5, kb_per_bed=80.0, roof=roof),
                    StageCost(stage="network", ms_per_bed_s=1.0, kb_per_bed=10.0),
                ),
            ),
        ),
        start=Start(first_event_s=1.0, first_beat_s=2.0, first_label_s=7.0, signal_s=5.0, own_s=2.0, runs=3),
        ratios=(
            Ratio(
                group="network",
                what="token by token",
                against="windows",
                unit="ms",
                ours=0.1,
                other=1.0,
                times=10.0,
                p10=9.0,
                p90=11.0,
                pairs=20,
                wanted=8.0,
                roof=roof,
            ),
        ),
        speeds=(
            Speed(
                command="ecgnat analyse",
                records=8,
                signal_s=2000.0,
                wall_s=4.0,
                cpu_s=7.0,
                start_s=3.0,
                times_real_time=500.0,
                per_cpu_s=285.7,
            ),
        ),
        missing=("torch_ecg is not there",),
    )


def shown(found: Any, width: int = 180) -> str:
    console = Console(width=width, record=True, markup=False, highlight=False, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(found)
        return console.export_text()


def test_the_tables_say_what_was_found_with_bars() -> None:
    text = shown(drawn(report()))
    for words in (
        "256",
        "p99 900 ms is beyond 500",
        "Give this machine at most 190 beds",
        "not 512",
        "beats",
        "25.0 % (arithmetic)",
        "2 s its own",
        "token by token",
        "10.00",
        "ecgnat analyse",
        "500",
        "left out: torch_ecg is not there",
        "█",
    ):
        assert words in text, words


def test_the_report_as_json_keeps_its_form() -> None:
    """A field that goes, or changes its name, is another schema."""
    written = msgspec.json.decode(msgspec.json.encode(report()))
    assert written["schema"] == SCHEMA == 1
    assert list(written) == [
        "schema",
        "version",
        "time",
        "command",
        "machine",
        "peaks",
        "beds",
        "stages",
        "start",
        "ratios",
        "speeds",
        "missing",
    ]
    assert set(written["beds"][0]) == {
        "leads",
        "first_guess",
        "sustained",
        "failed_at",
        "admission",
        "mb_per_bed",
        "trials",
        "roof",
    }
    assert {"beds", "leads", "p50_ms", "p99_ms", "worst_ms", "skipped", "cpu_ms", "rss_mb", "sustained", "why"} <= set(
        written["beds"][0]["trials"][0]
    )
    assert {"times", "p10", "p90", "ours", "other", "unit", "roof"} <= set(written["ratios"][0])
    assert msgspec.json.decode(msgspec.json.encode(report()), type=Report) == report()


def test_bars_are_as_long_as_their_share() -> None:
    assert bar(0.0, 4) == "    " and bar(1.0, 4) == "████" and bar(0.5, 4) == "██  " and bar(9.0, 4) == "████"
    assert bar(1 / 32, 4) == "▏   " and bar(-1.0, 4) == "    "


def test_a_soak_is_drawn_with_its_verdicts() -> None:
    rows = [row(10.0 * k) for k in range(1, 30)]
    text = shown(soak_drawn(rows, verdicts(rows)))
    assert "memory, MB" in text and "flat" in text and "not flat" not in text
    assert "too few rows" in shown(soak_drawn(rows[:3], []))


# libraries that are not there


@pytest.mark.parametrize("library", ["torch_ecg.models", "neurokit2", "natten", "wfdb.processing", "train.fit.baselines"])
def test_a_library_that_is_missing_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    from ecgnat_stream.bench import rivals

    monkeypatch.setitem(sys.modules, library, None)
    build = {
        "torch_ecg.models": rivals.conv_recurrent,
        "neurokit2": rivals.neurokit,
        "natten": rivals.natten_there,
        "wfdb.processing": rivals.xqrs,
        "train.fit.baselines": rivals.residual,
    }[library]
    with pytest.raises(rivals.Missing, match=r"is not there .*: the comparison with .* is left out; pip install") as said:
        build()  # type: ignore[operator]
    assert "\n" not in str(said.value)


def test_both_detectors_find_the_beats_of_a_simulated_minute() -> None:
    import asyncio

    from ecgnat_stream.bench.detectors import streaming_detector
    from ecgnat_stream.bench.rivals import xqrs

    lead = asyncio.run(patients(("II",), FS, 1, 20.0))[0][0].astype(np.float64)
    ours, theirs = streaming_detector(lead, FS, 2)(), xqrs()(lead, FS)
    assert abs(len(ours) - len(theirs)) <= 2 and len(ours) >= 15


# wrong options


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "bed"], "beds"),
        (["--sinks", "mqttt"], "sink"),
        (["--beds", "0"], "1"),
        (["--beds", "2,x"], "x"),
        (["--leads", "13"], "12"),
        (["--seconds", "-1"], "-1"),
        (["--device", "tpu"], "cuda"),
        (["--model", "ecgnat-nan"], "did you mean ecgnat-nano"),
        (["--speed", "max"], "--soak"),
        (["--soak"], "--json"),
        (["--soak", "--quick", "--json", "x"], "--quick is not for --soak"),
        (["--soak", "--beds", "1,2", "--json", "x"], "one number"),
        (["--quick", "--json", "no/such/folder/x.json"], "cannot be written"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_cuda_where_there_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert run("--quick", "--device", "cuda") == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_what_the_command_offers_is_what_there_is() -> None:
    assert command._PARTS == PARTS and command._SINKS == SINKS and command._MOST_BEDS == MOST_BEDS
