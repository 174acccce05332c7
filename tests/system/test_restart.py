"""A monitor that is killed and starts without a history: a receiver that keeps the rules of docs/interfaces.md loses nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

WARD = """
[model]
name = "{model}"
threads = 1

[[bed]]
id = "1"
device = "simulate"
options = {{ speed = 8.0, seed = {seed}, fs = 250.0, leads = ["II", "V1"], script = [
  {{ rhythm = "sinus", seconds = 6 }},
  {{ rhythm = "asystole", seconds = 9 }},
  {{ rhythm = "tachycardia", seconds = 9, rate_bpm = 170 }},
] }}
"""

KILLS_AFTER = (1, 2, 3, 4, 6, 9)
"""Lines about alarms and devices."""


class Receiver:
    """Takes events as the docs say: none twice, no status of a lower session."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.sessions: dict[tuple[str, str], int] = {}
        self.sequences: dict[tuple[str, str], int] = {}

    def takes(self, event: dict[str, Any]) -> bool:
        """Return whether an event counts."""
        if event["type"] == "alarm":
            start, _, number = event["event_id"].rpartition(":")
            assert int(number) == event["sequence"]
            key = (event["bed"], start)
            assert event["sequence"] == self.sequences.get(key, 0) + 1, "a gap within one start of the monitor"
            self.sequences[key] = event["sequence"]
            new = event["event_id"] not in self.seen
            self.seen.add(event["event_id"])
            return new
        if event["type"] in ("device-status", "engine-status", "meta"):
            about = (event["bed"], event.get("worker", ""))
            fresh: bool = event["session"] >= self.sessions.get(about, 0)
            self.sessions[about] = max(event["session"], self.sessions.get(about, 0))
            return fresh
        return True


def killed_after(ward: Path, lines: int) -> list[dict[str, Any]]:
    """Return what a monitor said until it was killed, some lines about alarms and devices after its start."""
    command = [sys.executable, "-m", "ecgnat_stream.cli", "run", str(ward), "--headless"]
    said: list[dict[str, Any]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(json.loads(line))
            lines -= said[-1]["type"] in ("alarm", "device-status")
            if lines <= 0:
                break
        process.kill()
        said += [json.loads(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith(b"\n")]
    return said


def test_a_receiver_loses_nothing_over_kills_without_a_history(untrained: Path, tmp_path: Path) -> None:
    receiver, starts = Receiver(), 0
    for number, lines in enumerate(KILLS_AFTER):
        ward = tmp_path / f"ward-{number}.toml"
        ward.write_text(WARD.format(model=untrained, seed=number))
        said = killed_after(ward, lines)
        assert said, "the monitor said nothing"
        taken = [event for event in said if receiver.takes(event)]
        assert taken == said, [event for event in said if event not in taken]
        starts += sum(
            event["type"] == "alarm" and event["condition"] == "asystole" and event["phase"] == "start" for event in said
        )
    assert starts, "the last kill comes after an asystole that has begun"
