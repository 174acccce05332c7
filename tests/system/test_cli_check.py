"""``ecgnat run --check`` tries out what a configuration names, and tells all that is wrong in one go; so does a start."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from ecgnat_stream.cli import main
from ecgnat_stream.model import shipped

SOUND = {"id": "sound", "device": "simulate", "options": {"script": "af"}}


def check(path: Path, table: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Write a configuration, check it, return exit code and what was said."""
    path.write_text(toml(table), encoding="utf-8")
    with pytest.raises(SystemExit) as end:
        main(["run", "--check", str(path)])
    assert isinstance(end.value.code, int)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return end.value.code, said.splitlines()


def toml(table: dict[str, Any]) -> str:
    """Return a configuration of tables and beds as TOML; its values are written as in JSON, but for tables."""

    def value(item: Any) -> str:
        if isinstance(item, dict):
            return "{ " + ", ".join(f"{key} = {value(part)}" for key, part in item.items()) + " }"
        return json.dumps(item)

    def rows(part: dict[str, Any]) -> list[str]:
        return [f"{key} = {value(item)}" for key, item in part.items() if key != "bed"]

    beds = [line for bed in table.get("bed", ()) for line in ("[[bed]]", *rows(bed))]
    return "\n".join([*rows(table), *beds])


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path, free_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "file").write_text("no database, no folder", encoding="utf-8")
        table = {
            "bed": [
                SOUND,
                {"id": "lost", "device": "replay", "options": {"path": str(tmp_path / "nowhere" / "100")}},
                {"id": "wrong", "device": "simulat"},
                {"id": "odd", "device": "simulate", "options": {"sript": "tour"}},
            ],
            "model": {"name": "ecgnat-nan"},
            "mqtt": {"url": f"mqtt://127.0.0.1:{free_port}"},
            "zmq": {"bind": f"tcp://127.0.0.1:{port}"},
            "record": {"directory": str(tmp_path / "file" / "recordings")},
            "history": {"path": str(tmp_path / "file")},
        }
        code, said = check(tmp_path / "ward.toml", table, capsys)
    assert code == 2
    expected = [
        ("bed lost", "is no recording"),
        ("bed wrong", "unknown device 'simulat': did you mean simulate?"),
        ("bed odd", "unknown option 'sript': did you mean script?"),
        ("model", "unknown model 'ecgnat-nan': did you mean ecgnat-nano?"),
        ("mqtt", str(free_port)),
        ("zmq.bind", "in use"),
        ("record.directory", "cannot be made"),
        ("history.path", "cannot be read as an alarm history"),
    ]
    assert len(said) == len(expected) + 1, said
    for line, (where, what) in zip(said, expected, strict=False):
        assert f"ward.toml: {where}: " in line
        assert what in line
    assert said[-1].endswith("4 beds, 8 faults")
    assert not (tmp_path / "recordings").exists()


def test_what_is_right_is_called_so_and_nothing_is_written(
    tmp_path: Path, free_port: int, untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = {
        "bed": [SOUND],
        "model": {"name": str(untrained)},
        "mqtt": {"url": f"mqtt://127.0.0.1:{free_port}", "embedded": True},
        "zmq": {"bind": "tcp://127.0.0.1:*"},
        "record": {"directory": str(tmp_path / "a" / "recordings")},
        "history": {"path": str(tmp_path / "alarms.db")},
    }
    code, said = check(tmp_path / "ward.toml", table, capsys)
    assert (code, said[-1].partition(": ")[2]) == (0, "1 bed, nothing to complain about")
    assert [path.name for path in tmp_path.iterdir()] == ["ward.toml"]


def test_an_embedded_broker_whose_port_is_in_use_is_found(
    tmp_path: Path, untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        url = f"mqtt://127.0.0.1:{taken.getsockname()[1]}"
        table = {"bed": [SOUND], "model": {"name": str(untrained)}, "mqtt": {"url": url, "embedded": True}}
        code, said = check(tmp_path / "ward.toml", table, capsys)
    assert code == 2
    assert "the embedded broker cannot listen at" in said[0]


def test_every_wrong_key_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = check(tmp_path / "ward.toml", {"sight": "x", "alarm": {"asystole": 4}, "bed": [SOUND]}, capsys)
    assert code == 2
    assert "sight: unknown key 'sight': did you mean site?" in said[0]
    assert "alarm.asystole: unknown key 'asystole': did you mean asystole_s?" in said[0]


def test_a_lead_that_nobody_knows_is_found(tmp_path: Path, untrained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "odd.csv"
    record.write_text("thorax\n" + "0.1\n0.2\n" * 500, encoding="utf-8")
    bed = {"id": "odd", "device": "replay", "options": {"path": str(record), "fs": 250, "units": "mV"}}
    table = {"bed": [bed], "model": {"name": str(untrained)}}
    code, said = check(tmp_path / "ward.toml", table, capsys)
    assert (code, "no ECG lead among thorax: say which one is" in said[0]) == (2, True)
    table["bed"] = [bed | {"lead_map": {"thorax": "V5"}}]
    assert check(tmp_path / "ward.toml", table, capsys)[0] == 0


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    path = tmp_path / "odd"
    shutil.copytree(shipped("beatnet"), path)
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    config["model"]["embed_dim"] = 64
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return path


def test_a_ward_that_starts_by_itself_goes_on_without_a_damaged_network(
    damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bed = {"id": "1", "device": "simulate", "options": {"script": "af", "loop": False, "speed": "max"}}
    (tmp_path / "ward.toml").write_text(toml({"model": {"name": str(damaged)}, "bed": [bed]}), encoding="utf-8")
    with pytest.raises(SystemExit, match="1"):
        main(["run", "--headless", str(tmp_path / "ward.toml")])
    captured = capsys.readouterr()
    assert "monitoring without a network" in captured.err
    events = [json.loads(line) for line in captured.out.splitlines()]
    assert any(event["type"] == "alarm" and event["condition"] == "model-failed" for event in events)
    assert sum(event["type"] == "beat" for event in events) > 5


def test_a_network_that_does_not_exist_ends_a_ward(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ward.toml").write_text(toml({"model": {"name": "ecgnat-nan"}, "bed": [SOUND]}), encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        main(["run", "--headless", "--seconds", "1", str(tmp_path / "ward.toml")])
    captured = capsys.readouterr()
    assert "did you mean ecgnat-nano?" in captured.err
    assert captured.out == ""


def test_weights_that_do_not_fit_their_configuration_end_a_start(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = damaged
    with pytest.raises(SystemExit, match="2"):
        main(["demo", "--headless", "--seconds", "1", "--model", str(path)])
    captured = capsys.readouterr()
    assert "model.safetensors does not fit config.json" in captured.err
    assert captured.out == "", "nothing was monitored"
