"""Outputs that are full or closed: one message that names them, exit code 1, no traceback; and standard error changes nothing."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import wfdb

COMMAND = (sys.executable, "-m", "ecgnat_stream.cli")
FULL = "standard output: cannot be written to (No space left on device); what was printed is not all there"
PRINTING = (
    ("--help",),
    ("--version",),
    ("models",),
    ("replay", "--help"),
    ("run", "--example"),
)


def ecgnat(*arguments: object, out: str = "", err: str = "", file_bytes: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command, its outputs as the shell's redirections ``out`` and ``err`` say; files may grow to ``file_bytes``."""

    def limit() -> None:
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    shell = ["bash", "-c", f'"$@" {out} {err}', "bash", *COMMAND, *map(str, arguments)]
    return subprocess.run(shell, capture_output=True, text=True, timeout=60, check=False, preexec_fn=limit)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 s of a heart at 75 beats a minute."""
    folder = tmp_path_factory.mktemp("recording")
    beat = np.exp(-(((np.arange(200) - 100) / 3.0) ** 2))
    signal = np.tile(beat, 25)[:, None] * [1.0, 0.7]
    wfdb.wrsamp("a", 250, ["mV", "mV"], ["II", "V1"], signal, fmt=["16", "16"], write_dir=str(folder))
    return folder / "a"


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_what_standard_output_cannot_take_is_told_once(arguments: tuple[str, ...]) -> None:
    done = ecgnat(*arguments, out=">/dev/full")
    assert (done.returncode, done.stderr) == (1, f"ecgnat: {FULL}\n")


def test_a_closed_standard_output_is_told_and_takes_nobodys_number() -> None:
    done = ecgnat("models", out=">&-")
    assert done.returncode == 1
    assert done.stderr.startswith("ecgnat: standard output: cannot be written to (Bad file descriptor)")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("err", ["2>&-", "2>/dev/full"])
@pytest.mark.parametrize(("arguments", "code"), [(("models",), 0), (("nonsense",), 2)])
def test_standard_error_that_is_closed_or_full_changes_no_exit_code_and_no_output(
    arguments: tuple[str, ...], code: int, err: str
) -> None:
    done, ordinary = ecgnat(*arguments, err=err), ecgnat(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (code, ordinary.stdout, "")
    assert ordinary.returncode == code


@pytest.mark.parametrize("err", ["2>&-", "2>/dev/full"])
def test_both_outputs_gone_is_an_error_without_a_word(err: str) -> None:
    assert ecgnat("models", out=">/dev/full", err=err).returncode == 1


@pytest.mark.parametrize("err", ["2>&-", "2>/dev/full"])
def test_events_come_whatever_standard_error_is(err: str, recording: Path) -> None:
    done = ecgnat("replay", recording, "--speed", "max", "--headless", "-v", err=err)
    types = [json.loads(line)["type"] for line in done.stdout.splitlines()]
    assert (done.returncode, types.count("beat") > 15) == (0, True)


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    done = ecgnat("models", out="| true; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (0, "")


def test_events_that_standard_output_cannot_take_are_counted_and_told(recording: Path) -> None:
    done = ecgnat("replay", recording, "--speed", "max", "--headless", out=">/dev/full")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.endswith("were not written to standard output: No space left on device")
    assert int(last.split()[3]) > 40
    assert "Traceback" not in done.stderr


def test_lines_that_a_log_file_cannot_take_are_counted(recording: Path) -> None:
    done = ecgnat("replay", recording, "--speed", "max", "--headless", "-v", "--log-file", "/dev/full", out=">/dev/null")
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("ecgnat: --log-file /dev/full: ")
    assert last.endswith("lines could not be written (No space left on device)")


def test_what_a_full_disk_has_cost_a_recording_adds_up_and_is_told(recording: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    done = ecgnat("replay", recording, "--speed", "max", "--headless", "--record", folder, out=">/dev/null", file_bytes=9_000)
    assert done.returncode == 1
    (header,) = folder.rglob("*.hea")
    (line,) = [line for line in done.stderr.splitlines() if "of signal" in line]
    assert line.startswith("ecgnat: record, replay/records/a: ")
    lost = int(line.split("of signal (")[1].split(" samples")[0])
    assert wfdb.rdheader(str(header.with_suffix(""))).sig_len + lost == 5000
    assert 0 < lost < 5000
    assert f"were not recorded: File too large: {header.parent}" in line


def test_results_of_an_analysis_that_a_full_disk_refuses_are_named_and_keep_no_other_from_being_made(
    recording: Path, tmp_path: Path
) -> None:
    table = tmp_path / "figures.csv"
    done = ecgnat("analyse", recording, "--json", "/dev/full", "--csv", table)
    assert done.returncode == 1
    assert "/dev/full: cannot be written (No space left on device)" in done.stderr
    assert "1 result could not be written" in done.stderr
    assert len(table.read_text().splitlines()) == 2
    assert done.stdout.count("\n") > 3
