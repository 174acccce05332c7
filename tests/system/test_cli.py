"""The command line as a user meets it: what it prints, how it ends, what it says of mistakes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import wfdb

from ecgnat_stream import __version__, device
from ecgnat_stream.cli import doctor, main, parser
from ecgnat_stream.cli.options import options_named
from ecgnat_stream.clock import ManualClock
from ecgnat_stream.device import open_device
from ecgnat_stream.errors import ConfigError

COMMAND = [sys.executable, "-m", "ecgnat_stream.cli"]


def ecgnat(*arguments: str) -> int:
    """Run a command in this process and return its exit code."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    code = end.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Return a WFDB record of 20 s with a beat per second."""
    t = np.arange(20 * 250) / 250
    signal = sum(np.exp(-0.5 * ((t - k - 0.5) / 0.012) ** 2) for k in range(20))
    wfdb.wrsamp(
        "beats", fs=250, units=["mV"], sig_name=["II"], p_signal=np.asarray(signal)[:, None], fmt=["16"], write_dir=str(tmp_path)
    )
    return tmp_path / "beats"


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_help_teaches_and_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert ecgnat("--help") == 0
    out = capsys.readouterr().out
    assert "ecgnat replay mitdb/100 --speed 1" in out
    assert "not a certified medical device" in out
    assert ecgnat("--version") == 0
    assert capsys.readouterr().out == f"ecgnat-stream {__version__}\n"


def test_a_replayed_record_is_told_as_json_lines(record: Path, untrained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ecgnat("replay", str(record), "--headless", "--speed", "max", "--model", str(untrained)) == 0
    captured = capsys.readouterr()
    events = lines(captured.out)
    assert {event["type"] for event in events} >= {
        "meta",
        "beat",
        "rhythm",
        "vitals",
        "quality",
        "device-status",
        "engine-status",
    }
    assert [event["state"] for event in events if event["type"] == "device-status"] == ["connecting", "online", "ended"]
    rates = [event["heart_rate_bpm"] for event in events if event["type"] == "vitals" and event["heart_rate_bpm"]]
    assert np.median(rates) == pytest.approx(60, abs=1)
    samples = [event["sample"] for event in events if event["type"] == "beat"]
    assert np.abs(np.array(samples[3:10]) % 250 - 125).max() <= 3
    assert "not a certified medical device" in captured.err


def test_a_recording_can_be_replayed_again(
    record: Path, untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert ecgnat("replay", str(record), "--headless", "--speed", "max", "--model", str(untrained), "--record", str(out)) == 0
    (header,) = out.rglob("*.hea")
    again = wfdb.rdrecord(str(header.with_suffix("")))
    assert (again.fs, again.sig_name) == (250, ["II"])
    np.testing.assert_allclose(again.p_signal, wfdb.rdrecord(str(record)).p_signal, atol=2e-3)
    journal = "".join(path.read_text(encoding="utf-8") for path in sorted(header.parent.glob("*.jsonl")))
    first = lines(capsys.readouterr().out)
    assert [e for e in lines(journal) if e["type"] == "beat"] == [e for e in first if e["type"] == "beat"]
    assert ecgnat("replay", str(header), "--headless", "--speed", "max", "--model", str(untrained)) == 0
    second = lines(capsys.readouterr().out)
    assert [e["sample"] for e in second if e["type"] == "beat"] == [e["sample"] for e in first if e["type"] == "beat"]


def truncate(record: Path) -> None:
    data = record.with_suffix(".dat")
    data.write_bytes(data.read_bytes()[:1001])


def no_rate(record: Path) -> None:
    header = record.with_suffix(".hea")
    header.write_text(header.read_text().replace("beats 1 250", "beats 1 0"))


def odd_units(record: Path) -> None:
    header = record.with_suffix(".hea")
    header.write_text(header.read_text().replace("/mV", "/furlongs"))


def odd_lead(record: Path) -> None:
    header = record.with_suffix(".hea")
    header.write_text(header.read_text().replace(" II", " Q7"))


def missing(record: Path) -> None:
    record.with_suffix(".dat").unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (truncate, ["beats.dat", "1001"]),
        (no_rate, ["beats", "0"]),
        (odd_units, ["furlongs", "units"]),
        (odd_lead, ["unknown lead name 'Q7'", "lead_map"]),
        (missing, ["beats.dat"]),
    ],
)
def test_a_spoiled_record_is_refused_with_what_and_where(
    spoil: Any, said: list[str], record: Path, untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(record)
    assert ecgnat("replay", str(record), "--headless", "--speed", "max", "--model", str(untrained)) == 1
    error = capsys.readouterr().err
    for part in said:
        assert part in error
    assert "Traceback" not in error


def test_a_lead_can_be_named_by_hand(record: Path, untrained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd_lead(record)
    given = ("--headless", "--speed", "max", "--model", str(untrained), "--lead", "Q7=V5")
    assert ecgnat("replay", str(record), *given) == 0
    assert next(e for e in lines(capsys.readouterr().out) if e["type"] == "meta")["used_as"] == ["V5"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["replay", "nowhere/100", "--headless", "--speed", "max"], 1, "nowhere/100"),
        (["replay", "x", "--speed", "fast"], 2, "'fast' is neither a number above 0 nor max"),
        (["replay", "x", "--headless", "--lead", "II"], 2, "--lead II: write NAME=LEAD"),
        (["replay", "x", "--headless", "--lead", "a=ZZ"], 2, "--lead a=ZZ: unknown lead 'ZZ': there are I, II"),
        (["demo", "--headless", "--seconds", "nan"], 2, "'nan' is not a number above 0"),
        (["run", "none.toml", "--headless"], 2, "none.toml: cannot be read"),
        (["run"], 2, "which configuration?"),
        (["demo", "--beds", "1000", "--headless"], 2, "--beds 1000: 1 to 64"),
        (["demo"], 2, "the dashboard needs a terminal"),
        (["replay", "nowhere/100"], 1, "nowhere/100: is no recording"),
        (["comand"], 2, "unknown command 'comand': did you mean command?"),
        (["--log-level", "error", "anlyse", "x"], 2, "did you mean analyse?"),
        (["replay", "x", "--stop", "inf"], 2, "argument --stop: 'inf' is no place on a recording: give seconds, from 0 to 1e+09"),
        (["replay", "x", "--start", "nan"], 2, "argument --start: 'nan' is no place on a recording"),
        (["analyse", "x", "--start", "-1"], 2, "argument --start: '-1' is no place on a recording"),
        (["replay", "x", "--start", "5", "--stop", "5"], 2, "--stop 5 is not after --start 5"),
        (["replay", "x", "--block", "0"], 2, "argument --block: '0' is not a whole number from 1 to 1000000"),
        (["replay", "x", "--block", "-1"], 2, "argument --block: '-1' is not a whole number from 1 to 1000000"),
        (["replay", "x", "--block", "9" * 20], 2, "is not a whole number from 1 to 1000000"),
        (["replay", "x", "--block", "1e3"], 2, "argument --block: '1e3' is not a whole number"),
        (["replay", "x", "--speed", "1e-308"], 2, "argument --speed: '1e-308' is not from 0.001 to 1e+06: give max"),
        (["replay", "x", "--speed", "1e308"], 2, "argument --speed: '1e308' is not from 0.001 to 1e+06: give max"),
        (["replay", ""], 2, "'': names nothing: is a variable of the shell empty? A dot is this folder"),
        (["replay", "x", " "], 2, "' ': names nothing: is a variable of the shell empty? A dot is this folder"),
        (
            ["demo", "--headless", "--seconds", "1", "--record", "/dev/null/x"],
            1,
            "ecgnat: --record: cannot write in '/dev/null/x'",
        ),
        (["alarms", "."], 1, ".: is a folder: name the file of an alarm history (that of --history, or of history.path"),
        (["alarms", "nowhere.db"], 1, "nowhere.db: there is no such file: name the file of an alarm history"),
        (["replay", "x", "--units", "kV"], 2, "--units: 'kV' is no unit of an ECG"),
        (["demo", "--headless", "--seconds", "1", "--mqtt", "http://a"], 2, "argument --mqtt: scheme 'http' is not known"),
        (["demo", "--headless", "--seconds", "1", "--record", "/dev/null/x"], 1, "/dev/null/x"),
        (["demo", "--headless", "--seconds", "1", "--model", "ecgnat-nan"], 2, "did you mean ecgnat-nano?"),
        (
            ["demo", "--headless", "--seconds", "1", "--model", "ecgnat-nano-12lead"],
            2,
            "cannot monitor: of its heads only window",
        ),
        (["score", "/", "--model", "clearhug"], 2, "did you mean clear-hug?"),
        (["replay", "x", "--headless", "--model", "not-a-model"], 2, "unknown model 'not-a-model': there are"),
    ],
)
def test_mistakes_end_with_a_clear_line(arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ecgnat(*arguments) == code
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_an_option_that_does_not_exist_is_found_by_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ecgnat("run", "--example") == 0
    example = capsys.readouterr().out
    path = tmp_path / "ward.toml"
    path.write_text(example, encoding="utf-8")
    assert ecgnat("run", "--check", str(path)) == 0
    path.write_text(example.replace("fs = 500", "rate = 500"), encoding="utf-8")
    capsys.readouterr()
    assert ecgnat("run", "--check", str(path)) == 2
    assert "bed bed-2: device 'simulate': unknown option 'rate'" in capsys.readouterr().err


def test_devices_are_listed_with_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert ecgnat("devices") == 0
    out = capsys.readouterr().out
    for word in ("replay", "simulate", "path", "script", "required", "whole number", "uV or mV or V"):
        assert word in out


def test_an_unreachable_broker_is_an_alarm_and_the_bed_goes_on(
    record: Path, untrained: Path, free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"mqtt://127.0.0.1:{free_port}"
    given = ("--headless", "--speed", "20", "--model", str(untrained), "--mqtt", url)
    ecgnat("replay", str(record), *given)
    events = lines(capsys.readouterr().out)
    alarms = [event for event in events if event["type"] == "alarm" and event["condition"] == "broker-lost"]
    assert alarms
    assert alarms[0]["kind"] == "technical"
    assert sum(event["type"] == "beat" for event in events) >= 15


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_a_monitor_that_ends_while_its_network_is_loaded_ends_in_the_usual_way(tmp_path: Path) -> None:
    path = tmp_path / "ward.toml"
    path.write_text('[[bed]]\nid = "1"\ndevice = "replay"\noptions = { path = "nothing" }\n', encoding="utf-8")
    done = subprocess.run([*COMMAND, "run", "--headless", str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.splitlines()[1:]) == (
        1,
        [line for line in done.stderr.splitlines() if "nothing" in line],
    )


def test_the_demo_can_be_piped_into_jq(untrained: Path) -> None:
    demo = f"{' '.join(COMMAND)} demo --headless --seconds 9 --model {untrained} | jq -r .type | sort -u"
    result = subprocess.run(["bash", "-c", demo], capture_output=True, text=True, timeout=120, check=True, env=os.environ)
    assert {"beat", "meta", "quality", "rhythm", "vitals"} <= set(result.stdout.split())


def test_a_closed_pipe_ends_the_monitoring_quietly(untrained: Path) -> None:
    demo = f"{' '.join(COMMAND)} demo --headless --seconds 60 --model {untrained} | head -n 3"
    result = subprocess.run(["bash", "-c", demo], capture_output=True, text=True, timeout=40, check=False, env=os.environ)
    assert len(result.stdout.splitlines()) == 3
    assert "Traceback" not in result.stderr


def test_the_doctor_finds_everything_a_monitor_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert ecgnat("doctor") == 0
    out = capsys.readouterr().out
    assert "FAIL" not in out
    for word in ("torch", "ecgnat-nano", "eager", "device replay", "embedded MQTT broker"):
        assert word in out


def test_the_doctor_prints_foreign_text_as_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    detail = "pip install 'ecgnat-stream[natten]' [/red] [bold]"
    monkeypatch.setattr(doctor, "_findings", lambda _: iter([doctor.Check("note", "[green]natten", detail)]))
    assert ecgnat("doctor") == 0
    assert "[green]natten" in (out := capsys.readouterr().out)
    assert detail in " ".join(out.split())


def test_options_of_a_foreign_device_are_printed_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        shade: str = "[red]"

    class Foreign:
        """A [bold]device[/bold] of somebody."""

    Foreign.Options = Options  # type: ignore[attr-defined]
    monkeypatch.setattr(device, "device_names", lambda: ("foreign",))
    monkeypatch.setattr(device, "adapter", lambda _: Foreign)
    assert ecgnat("devices") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "A [bold]device[/bold] of somebody." in out
    assert "'[red]'" in out


def test_the_doctor_says_that_a_broker_is_not_there(free_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert ecgnat("doctor", "--mqtt", f"mqtt://127.0.0.1:{free_port}") == 1
    assert "FAIL" in capsys.readouterr().out


def test_the_demo_labels_rhythms_with_what_is_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert ecgnat("demo", "--headless", "--seconds", "12", "--beds", "2") == 0
    events = lines(capsys.readouterr().out)
    labels = {event["label"] for event in events if event["type"] == "rhythm" and event["model"]}
    assert labels & {"SINUS", "SBRAD", "STACH"}


def test_the_networks_are_listed_with_what_they_are_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert ecgnat("models") == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.split()}
    assert rows["ecgnat-nano"][1:3] == ["monitor", "1.29"]
    assert rows["ecgnat-nano-12lead"][1] == "diagnose"
    assert ecgnat("models", "--json") == 0
    entries = {entry["name"]: entry for entry in lines(capsys.readouterr().out)}
    assert entries["beatnet"]["measured"]["R peaks, mitdb: F1"][0] == pytest.approx(float(rows["beatnet"][6]), abs=1e-3)
    assert entries["beatnet"]["trained_on"]["mitdb"] == 25


def test_networks_that_are_not_installed_are_named_with_the_way_to_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ecgnat_stream.model import catalogue

    own = {"ecgnat-nano": catalogue.installed()["ecgnat-nano"]}
    monkeypatch.setattr(catalogue, "installed", lambda: own)
    assert ecgnat("models") == 0
    out = capsys.readouterr().out
    assert "not installed" in next(line for line in out.splitlines() if line.lstrip().startswith("beatnet"))
    assert "pip install 'ecgnat-stream[models]'" in out


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("vf", "unknown condition 'vf': did you mean ventricular-fibrillation?"),
        ("asistole", "did you mean asystole?"),
        ("", "unknown condition ''"),
    ],
)
def test_an_unknown_condition_is_refused_before_connecting(condition: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ecgnat("command", "pause", "--bed", "a/b/c", "--condition", condition, "--mqtt", "mqtt://127.0.0.1:1") == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("words", [["help"], ["--help"]])
def test_help_is_a_word_too(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ecgnat(*words) == 0
    assert "ecgnat replay mitdb/100 --speed 1" in capsys.readouterr().out
    assert ecgnat("help", "replay") == 0
    assert "ecgnat replay" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["max", "Max", "MAX"])
def test_as_fast_as_possible_is_said_in_any_case(word: str) -> None:
    assert parser().parse_args(["replay", "x", "--speed", word]).speed == "max"


@pytest.mark.parametrize("speed", [0.001, 1_000_000.0])
def test_the_speeds_of_the_option_are_those_of_the_adapter(speed: float) -> None:
    assert parser().parse_args(["replay", "x", "--speed", f"{speed}"]).speed == speed
    assert open_device("replay", {"path": "x", "speed": speed}, ManualClock())
    for beyond in (speed / 2, speed * 2):
        if not 0.001 <= beyond <= 1_000_000:
            with pytest.raises(ConfigError, match="speed"):
                open_device("replay", {"path": "x", "speed": beyond}, ManualClock())


def test_options_stand_for_settings_and_paths_stay_as_they_are() -> None:
    said = "record.directory: cannot write in '/a/record.directory': history.path is '/b/history.path.db'; mqtt.url."
    assert options_named(said) == "--record: cannot write in '/a/record.directory': --history is '/b/history.path.db'; --mqtt."
