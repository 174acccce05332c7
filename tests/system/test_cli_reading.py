"""What a person gives for a recording at the command line: it counts, or it is refused in words of the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecgnat_stream.analysis.source import open_source
from ecgnat_stream.cli import main, parser
from ecgnat_stream.cli.options import lead_map
from ecgnat_stream.device import try_device
from ecgnat_stream.errors import ConfigError, EcgnatError, InputError
from ecgnat_stream.signal import StreamInfo, assign_leads, check_lead_map

FS = 250


def heart(seconds: float = 20.0) -> np.ndarray:
    t = np.arange(round(seconds * FS)) / FS
    return np.exp(-((((t % 0.8) - 0.4) / 0.02) ** 2)) + np.random.default_rng(0).normal(0, 0.01, len(t))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Recordings that say everything of themselves, and that say nothing."""
    two = np.stack([heart(), 0.5 * heart()])
    np.save(tmp_path / "two.npy", two)
    np.savetxt(tmp_path / "bare.csv", two.T, delimiter=",", fmt="%.4f")
    np.savetxt(tmp_path / "adc.csv", np.round(heart()[:, None] * 400), fmt="%d")
    wfdb.wrsamp("whole", FS, ["mV", "mV"], ["MLII", "V1"], p_signal=two.T, fmt=["16", "16"], write_dir=str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def replayed(*arguments: str) -> tuple[int, list[dict[str, object]], str]:
    """Replay as fast as possible; return exit code, events, and what was said to a person."""
    command = [sys.executable, "-m", "ecgnat_stream.cli", "replay", "--headless", "--speed", "max", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["two.npy", "--fs", "250", "--units", "MV", "--leads", "II,V1"],
        ["bare.csv", "--fs", "250", "--units", "mv", "--leads", "II,V1"],
        ["adc.csv", "--fs", "250", "--units", "uv", "--scale", "2.5", "--leads", "II"],
        ["whole", "--lead", "V1=V2", "--leads", "V1,MLII", "--units", "mV", "--fs", "250"],
    ],
)
def test_recordings_without_names_rate_or_unit_are_replayed(folder: Path, arguments: list[str]) -> None:
    code, events, said = replayed(*arguments)
    assert code == 0, said
    rates = [event["heart_rate_bpm"] for event in events if event["type"] == "vitals" and event["heart_rate_bpm"]]
    assert rates == pytest.approx([75] * len(rates), abs=2)
    assert len(rates) > 10
    assert not [event for event in events if event["type"] == "alarm"]
    if "whole" in arguments:
        (meta,) = [event for event in events if event["type"] == "meta"]
        assert (meta["leads"], meta["used_as"]) == (["V1", "MLII"], ["V2", "II"])


def test_a_stop_beyond_the_end_is_said_and_no_fault(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = replayed("whole", "--stop", "5000", "--start", "5")
    assert code == 0
    assert said.count("whole: --stop 5000 (stop_s): it ends at 20 s") == 1
    code, _, said = replayed("whole", "--stop", "20")
    assert (code, "--stop" in said) == (0, False)
    with pytest.raises(SystemExit) as done:
        main(["analyse", "whole", "--stop", "5000", "--no-diagnose"])
    assert not done.value.code
    assert "ecgnat: whole: --stop 5000 (stop_s): it ends at 20 s" in capsys.readouterr().err


def test_a_wrong_unit_is_said_and_is_no_asystole(folder: Path) -> None:
    code, events, _ = replayed("two.npy", "--fs", "250", "--units", "uV", "--leads", "II,V1")
    alarms = [event for event in events if event["type"] == "alarm" and event["phase"] == "start"]
    assert [(alarm["condition"], alarm["kind"], alarm["text"]) for alarm in alarms] == [
        ("wrong-units", "technical", "amplitude of 0.001 mV: wrong units? The rhythm is not judged")
    ]
    assert code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lead", "MLI=V1"], "unknown signal 'MLI': did you mean MLII? There are MLII, V1 (--lead, lead_map)"),
        (["--fs", "360"], "it states a rate of 250 Hz, but fs is 360"),
        (["--units", "uV"], "it states that lead MLII is in mV, but units is uV"),
        (["--start", "100"], "there is nothing from 100 s to the end: it is 20 s long (start_s and stop_s, --start and --stop)"),
        (["--leads", "V9"], "has no lead V9: it has MLII, V1"),
    ],
)
async def test_what_a_recording_contradicts_is_refused(folder: Path, arguments: Sequence[str], said: str) -> None:
    """As the monitor of ``replay`` opens it, and as ``analyse`` does."""
    given = parser().parse_args(["replay", "whole", *arguments])
    options = {"path": "whole", "speed": "max", "fs": given.fs, "units": given.units, "start_s": given.start or 0.0}
    options |= {"leads": given.leads and list(given.leads)}

    async def tried() -> None:
        from ecgnat_stream.clock import SystemClock
        from ecgnat_stream.device import open_device

        info = await try_device(lambda: open_device("replay", options, SystemClock()))
        check_lead_map(info, lead_map(given.lead))

    with pytest.raises(EcgnatError) as error:
        await tried()
    assert said in str(error.value)


def test_a_single_recording_is_strict_and_several_keep_their_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = replayed("whole", "--units", "uV")
    assert code == 1
    assert "leave units (--units) out" in said
    code, events, said = replayed("whole", "two.npy", "--units", "mV", "--fs", "250", "--leads", "MLII,V1", "--lead", "MLII=V5")
    assert code == 0, said
    assert "--fs and --units count for the recordings that do not say theirs; one that does keeps its own" in said
    assert {tuple(event["used_as"]) for event in events if event["type"] == "meta"} == {("V5", "V1")}  # type: ignore[arg-type]
    code, _, said = replayed("whole", "two.npy", "--units", "mV", "--fs", "250", "--leads", "MLII,V1", "--lead", "Q=V5")
    assert code == 2
    assert "--lead Q=V5: unknown signal 'Q': there are MLII, V1; no record has it" in said


@pytest.mark.parametrize("command", ["replay", "analyse"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--units", "mm"], "'mm' is no unit of an ECG: give uV, mV or V"),
        (["--scale", "0"], "'0' is no size of a step: give a number that is not 0"),
        (["--scale", "nan"], "'nan' is no size of a step"),
        (["--start", "-3"], "argument --start: '-3' is no place on a recording"),
        (["--start", "5", "--stop", "5"], "--stop 5 is not after --start 5"),
        (["--lead", "A=II", "--lead", "A=V1"], "--lead A: is said to be II and V1"),
        (["--lead", "A=IX"], "unknown lead 'IX'"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str, arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as end:
        sys.exit(main([command, "whole", *arguments]))
    assert end.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("text", ["uV", "UV", "µV", "μv", "microvolts"])
def test_units_are_taken_in_any_case(text: str) -> None:
    assert parser().parse_args(["replay", "x", "--units", text]).units == "uV"


def test_a_lead_that_a_person_names_goes_before_one_that_is_called_so() -> None:
    assert assign_leads(("MLII", "V1"), {"V1": "II"}) == (None, 1)
    info = StreamInfo(fs=250.0, leads=("A", "B"), device="x", left_out=("ABP",))
    check_lead_map(info, {"A": "II", "B": "V1", "ABP": ""})
    with pytest.raises(ConfigError, match="A and B are both said to be lead II: name one of them"):
        check_lead_map(info, {"A": "II", "B": "II"})
    with pytest.raises(ConfigError, match="ABP=V1: the signal ABP is left out; ask for it with leads"):
        check_lead_map(info, {"ABP": "V1"})
    with pytest.raises(ConfigError, match="unknown signal 'C': there are A, B, ABP"):
        check_lead_map(info, {"C": ""})


def test_the_option_is_named_beside_the_setting() -> None:
    with pytest.raises(ConfigError, match=r"on the command line --lead 'X 9=II', in a configuration lead_map = "):
        assign_leads(("X 9",))
    with pytest.raises(ConfigError, match=r"on the command line --lead RESP=II, in a configuration lead_map = "):
        assign_leads(("RESP",))


def test_a_scale_multiplies_what_is_in_memory_too() -> None:
    counts = np.round(heart() * 400)
    recording = open_source(counts, fs=FS, units="uv", scale=2.5)
    assert recording.read(0, 100)[0] == pytest.approx(counts[:100] * 2.5e-3, rel=1e-6)
    with pytest.raises(InputError, match="scale=0: give the size of one step"):
        open_source(counts, fs=FS, units="uV", scale=0.0)
