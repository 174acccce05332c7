"""What surrounds the program: optimised Python, a working folder that is gone, an account without a name, odd terminals."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ecgnat_stream.cli import command, main

COMMAND = [sys.executable, "-m", "ecgnat_stream.cli"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=120, env=os.environ | environment
    )


def ecgnat(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(str(ended.value.code))


@pytest.mark.parametrize("arguments", [["devices"], ["--help"], ["models"], ["run", "--example"], ["replay", "--help"]])
def test_python_without_docstrings_and_asserts_says_the_same(arguments: list[str]) -> None:
    plain, bare = run(*arguments), run(*arguments, PYTHONOPTIMIZE="2")
    assert (bare.returncode, bare.stderr) == (0, "")
    assert len(bare.stdout.splitlines()) == len(plain.stdout.splitlines()) > 5


def test_a_working_folder_that_is_gone_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert ecgnat("devices") == 2
    assert "the working folder cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found: 4711"), OSError("No username set in the environment")])
def test_an_account_without_a_name_may_order_something(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert command._account() == f"uid {os.getuid()}"


@pytest.mark.parametrize(
    "environment",
    [
        {"COLUMNS": "1"},
        {"COLUMNS": "no", "LINES": "-1"},
        {"TERM": ""},
        {"TERM": "no-such-terminal"},
        {"TZ": "Foo/Bar"},
        {"LANG": "x"},
    ],
    ids=str,
)
def test_an_odd_terminal_or_zone_changes_nothing_but_the_width(environment: dict[str, str]) -> None:
    done = run("devices", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "".join(done.stdout.split()).endswith("docs/configuration.md")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('[mqtt]\nurl = "broker:1883"\n', "mqtt.url: has no scheme"),
        ('[mqtt]\nurl = "mqtts://broker"\nca_file = "nowhere.pem"\n', "mqtt.ca_file: cannot read 'nowhere.pem' (No such file"),
        ('[zmq]\nbind = "tcp://127.0.0.1"\n', "zmq.bind: 'tcp://127.0.0.1' has no port"),
        ('[zmq]\nbind = "tcp://*:5556"\n', "zmq.bind: * is reached from other machines"),
        ('[zmq]\nsecret_key_file = "nowhere"\n', "zmq.secret_key_file: cannot read 'nowhere' (No such file"),
        ('[record]\ndirectory = "$NOT_SET/r"\n', "record.directory: $NOT_SET/r: the environment has no NOT_SET"),
    ],
)
def test_what_is_wrong_with_a_setting_names_the_file(
    table: str, said: str, untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NOT_SET", raising=False)
    bed = '[[bed]]\nid = "1"\ndevice = "simulate"\n'
    Path("ward.toml").write_text(f"{bed}[model]\nname = {str(untrained)!r}\n{table}", encoding="utf-8-sig")
    assert ecgnat("run", "ward.toml", "--headless", "--seconds", "1") in (1, 2)
    assert f"ecgnat: ward.toml: {said}" in capsys.readouterr().err
    assert not (tmp_path / "$NOT_SET").exists()


def test_a_configuration_comes_through_a_pipe(tmp_path: Path) -> None:
    text = '[[bed]]\nid = "1"\ndevice = "replay"\n'
    shell = f"{COMMAND[0]} -m ecgnat_stream.cli doctor --security <(printf '%s' '{text}') --json"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)
    assert '"findings"' in done.stdout, done.stderr


def test_findings_fit_a_narrow_terminal(tmp_path: Path) -> None:
    path = tmp_path / "ward.toml"
    path.write_text('[[bed]]\nid = "1"\ndevice = "replay"\n[zmq]\nbind = "tcp://*:5556"\n', encoding="utf-8")
    shown = run("doctor", "--security", str(path), COLUMNS="80").stdout
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert "high    zmq.bind" in lines
    assert any(line.startswith("        -> set secret_key_file and clients_dir") for line in lines)
