"""What ``ecgnat doctor --security`` finds open: each finding by a configuration that has it and one that has not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ecgnat_stream.cli import main, security
from ecgnat_stream.config import parse_config

BED: dict[str, Any] = {"id": "1", "device": "replay", "options": {"path": "a.hea"}}


@pytest.fixture(autouse=True)
def an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is root, and the folders above the test's are open, whoever runs it."""
    uid = os.geteuid() or 1000
    monkeypatch.setattr(security.os, "geteuid", lambda: uid)
    monkeypatch.delenv("ECGNAT_MQTT_USER", raising=False)
    monkeypatch.setattr(security, "_reached", lambda path, bits: (path.parent.stat().st_mode & 0o011) != 0)


def found(folder: Path, mode: int = 0o600, **tables: Any) -> dict[str, str]:
    path = folder / "ward.toml"
    path.touch()
    path.chmod(mode)
    folder.chmod(0o755)
    findings = security.open_places(parse_config({"bed": [BED]} | tables), path)
    return {finding.where: finding.severity for finding in findings}


def file(folder: Path, name: str, mode: int, text: str = "user:password\n") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return str(path)


SAFE = {"url": "mqtts://broker.example", "ca_file": "ca.pem"}


def test_a_ward_that_is_closed_has_only_notes(tmp_path: Path) -> None:
    mqtt = SAFE | {"ca_file": file(tmp_path, "ca.pem", 0o644), "credentials_file": file(tmp_path, "password", 0o600)}
    severities = found(tmp_path, mqtt=mqtt, history={"path": file(tmp_path, "alarms.db", 0o600, "")})
    assert set(severities.values()) <= {"low"}
    assert "mqtt commands" in severities


@pytest.mark.parametrize(
    ("table", "where", "severity"),
    [
        ({"url": "mqtt://broker.example"}, "mqtt.url", "high"),
        ({"url": "mqtt://broker.example"}, "mqtt", "high"),
        ({"url": "mqtt://127.0.0.1"}, "mqtt", "low"),
        ({"url": "mqtt://127.0.0.1"}, "mqtt.url", None),
        ({"url": "mqtts://broker.example"}, "mqtt.ca_file", "low"),
        ({"url": "mqtt://127.0.0.1", "embedded": True}, "mqtt.embedded", "low"),
        ({"url": "mqtt://0.0.0.0", "embedded": True}, "mqtt.embedded", "high"),
    ],
)
def test_a_broker(table: dict[str, Any], where: str, severity: str | None, tmp_path: Path) -> None:
    assert found(tmp_path, mqtt=table).get(where) == severity


@pytest.mark.parametrize(
    ("table", "where", "severity"),
    [
        ({"bind": "tcp://*:5556"}, "zmq.bind", "high"),
        ({"bind": "tcp://*:5556", "insecure": True}, "zmq.bind", "high"),
        ({"bind": "tcp://127.0.0.1:5556"}, "zmq.bind", "low"),
        ({"bind": "ipc:///run/ecgnat.sock"}, "zmq.bind", None),
        ({"bind": "tcp://*:5556", "secret_key_file": "KEY"}, "zmq.bind", None),
        ({"bind": "tcp://*:5556", "secret_key_file": "KEY"}, "zmq.clients_dir", "medium"),
        ({"bind": "tcp://127.0.0.1:5556", "insecure": True}, "zmq.insecure", "low"),
    ],
)
def test_a_publisher(table: dict[str, Any], where: str, severity: str | None, tmp_path: Path) -> None:
    table = {key: file(tmp_path, "server.key_secret", 0o600) if value == "KEY" else value for key, value in table.items()}
    assert found(tmp_path, zmq=table).get(where) == severity


@pytest.mark.parametrize(("mode", "severity"), [(0o600, None), (0o640, "low"), (0o644, "high"), (0o622, "high")])
@pytest.mark.parametrize(
    ("where", "tables"),
    [
        ("mqtt.credentials_file", lambda name: {"mqtt": SAFE | {"ca_file": "", "credentials_file": name}}),
        ("zmq.secret_key_file", lambda name: {"zmq": {"secret_key_file": name}}),
    ],
)
def test_who_reads_a_secret(
    where: str, tables: Callable[[str], dict[str, Any]], mode: int, severity: str | None, tmp_path: Path
) -> None:
    assert found(tmp_path, **tables(file(tmp_path, "secret", mode))).get(where) == severity


def test_a_folder_of_keys_that_others_can_write_to(tmp_path: Path) -> None:
    (clients := tmp_path / "clients").mkdir()
    for mode, severity in ((0o755, None), (0o777, "high")):
        clients.chmod(mode)
        table = {"secret_key_file": file(tmp_path, "k", 0o600), "clients_dir": str(clients)}
        assert found(tmp_path, zmq=table).get("zmq.clients_dir") == severity


def test_recordings_and_history_that_others_can_read(tmp_path: Path) -> None:
    (folder := tmp_path / "recordings").mkdir(mode=0o700)
    record, history = {"directory": str(folder)}, {"path": file(tmp_path, "alarms.db", 0o644)}
    file(folder, "a.dat", 0o600)
    assert found(tmp_path, record=record, history=history).get("history.path") == "medium"
    assert found(tmp_path, record=record).get("record.directory") is None
    folder.chmod(0o755)
    assert found(tmp_path, record=record).get("record.directory") == "low"
    file(folder, "b.dat", 0o644)
    assert found(tmp_path, record=record).get("record.directory") == "medium"


def test_a_configuration_that_others_can_read_or_change(tmp_path: Path) -> None:
    beds = [BED | {"options": {"path": "a.hea", "password": "x"}}]
    assert found(tmp_path, 0o600, bed=beds).get("bed 1") is None
    assert found(tmp_path, 0o644, bed=beds).get("bed 1") == "high"
    assert found(tmp_path, 0o666)[str(tmp_path / "ward.toml")] == "high"


def test_root_and_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(tmp_path) == {"sinks": "low", "history": "low"}
    monkeypatch.setattr(security.os, "geteuid", lambda: 0)
    assert found(tmp_path)["account"] == "medium"


def test_alarms_that_nobody_has_to_confirm(tmp_path: Path) -> None:
    mqtt = SAFE | {"ca_file": file(tmp_path, "ca.pem", 0o644)}
    assert found(tmp_path, mqtt=mqtt)["mqtt.confirm"] == "low"
    assert "mqtt.confirm" not in found(tmp_path, mqtt=mqtt | {"confirm": "central-1"})
    assert found(tmp_path, mqtt=mqtt | {"confirm": "central-1"}, bed=[BED | {"confirm": ""}])["mqtt.confirm"] == "low"


def test_a_file_in_a_closed_folder_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    (closed := tmp_path / "closed").mkdir(mode=0o700)
    assert not security._reached(closed / "file", 0o004)
    closed.chmod(0o755)
    monkeypatch.setattr(security.Path, "parents", property(lambda path: [Path(os.path.dirname(path))]))
    assert security._reached(closed / "file", 0o004)


def ecgnat(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(str(ended.value.code))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ward.toml"
    path.write_text('[[bed]]\nid = "1"\ndevice = "replay"\n[zmq]\nbind = "tcp://*:5556"\n', encoding="utf-8")
    path.chmod(0o600)
    assert ecgnat("doctor", "--security", str(path), "--json") == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert findings[0]["severity"] == "high"
    assert {"severity", "where", "what", "do"} == set(findings[0])
    assert ecgnat("doctor", "--security", str(path)) == 1
    shown = capsys.readouterr()
    assert "zmq.bind" in shown.out
    assert "1 high" in shown.err
    path.write_text('[[bed]]\nid = "1"\ndevice = "replay"\n', encoding="utf-8")
    assert ecgnat("doctor", "--security", str(path)) == 0
    assert ecgnat("doctor", "--json") == 2
    assert ecgnat("doctor", "--security", str(tmp_path / "nowhere.toml")) == 2
