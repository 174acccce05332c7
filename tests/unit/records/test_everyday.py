"""The commands that docs/formats.md gives for everyday exports open such files, in mV and at their rate, without a guess."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyedflib
import pyedflib.highlevel
import pytest
from numpy.typing import NDArray

from ecgnat_stream.analysis.source import open_source
from ecgnat_stream.cli import parser
from ecgnat_stream.cli.options import lead_map
from ecgnat_stream.signal import LEADS, assign_leads
from tests.unit.records import bedside

PAGE = (Path(__file__).parents[3] / "docs" / "formats.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\|.*\| `(ecgnat analyse [^`]*)` \|$", PAGE, re.MULTILINE)


def beats(fs: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return 12 s of times and of one lead with R waves of 1 mV."""
    at_s = np.arange(round(12 * fs)) / fs
    return at_s, np.exp(-0.5 * ((at_s % 0.8 - 0.4) / 0.015) ** 2)


def with_index(path: Path, fs: float = 250) -> None:
    _, lead = beats(fs)
    pd.DataFrame({"II": lead, "V1": 0.6 * lead}).to_csv(path)


def german(path: Path, fs: float = 250) -> None:
    at_s, lead = beats(fs)
    table = pd.DataFrame({"Zeit": at_s, "II": lead, "V1": 0.6 * lead})
    table.to_csv(path, sep=";", decimal=",", index=False, encoding="utf-8-sig")


def openbci(path: Path, fs: float = 250) -> None:
    at_s, lead = beats(fs)
    names = [f"EXG Channel {at}" for at in range(8)]
    lines = ["%OpenBCI Raw EXG Data", "%Number of channels = 8", f"%Sample Rate = {fs} Hz"]
    lines += [", ".join(["Sample Index", *names, "Accel Channel 0", "Timestamp"])]
    for at, (when, uv) in enumerate(zip(at_s, 1e3 * lead, strict=True)):
        cells = [f"{at % 256}.0", f"{uv:.3f}", *[f"{0.6 * uv:.3f}"] * 7, "0.0", f"{1.6e9 + when:.3f}"]
        lines.append(", ".join(cells))
    path.write_text("\n".join(lines) + "\n")


def kaggle(path: Path, fs: float = 360) -> None:
    _, lead = beats(fs)
    steps = np.stack([np.arange(len(lead)), np.round(lead * 200), np.round(lead * 120)], axis=1)
    np.savetxt(path, steps, "%d", delimiter=",", header="'sample #','MLII','V1'", comments="")


def physiobank(path: Path, fs: float = 360) -> None:
    at_s, lead = beats(fs)
    head = "'Elapsed time','MLII','V1'\n'seconds','mV','mV'"
    np.savetxt(path, np.stack([at_s, lead, 0.6 * lead], axis=1), "%.6f", delimiter=",", header=head, comments="")


def columns(path: Path, fs: float = 250) -> None:
    _, lead = beats(fs)
    np.save(path, np.stack([lead, 0.6 * lead], axis=1))


def twelve(path: Path, fs: float = 500) -> None:
    _, lead = beats(fs)
    np.save(path, np.stack([lead if name == "II" else 0.6 * lead for name in LEADS]))


def night(path: Path, fs: float = 250) -> None:
    _, lead = beats(fs)
    with pyedflib.EdfWriter(str(path), 2, pyedflib.FILETYPE_EDFPLUS) as edf:
        edf.setSignalHeader(0, pyedflib.highlevel.make_signal_header("EEG Fpz-Cz", "uV", 100, -500, 500))
        edf.setSignalHeader(1, pyedflib.highlevel.make_signal_header("ECG", "mV", fs, -5, 5))
        edf.writeSamples([np.zeros(1200), lead])


def cart(path: Path, fs: float = 250) -> None:
    _, lead = beats(fs)
    made = bedside.dicom(path.with_suffix(""), np.round(np.stack([lead, 0.6 * lead]) / 0.005) * 0.005, leads=("II", "V1"), fs=fs)
    if made != path:
        made.rename(path)


FILES: dict[str, tuple[Callable[[Path], None], float]] = {
    "pandas.csv": (with_index, 250),
    "excel.csv": (german, 250),
    "OpenBCI.txt": (openbci, 250),
    "100.csv": (kaggle, 360),
    "samples.csv": (physiobank, 360),
    "a.npy": (columns, 250),
    "twelve.npy": (twelve, 500),
    "night.edf": (night, 250),
    "ecg.dcm": (cart, 250),
}


def test_every_command_has_a_file() -> None:
    assert [shlex.split(command)[2] for command in COMMANDS] == list(FILES)


@pytest.mark.filterwarnings("ignore:a. the array is")
@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_opens_such_a_file(command: str, tmp_path: Path) -> None:
    arguments = parser().parse_args(shlex.split(command)[1:])
    (name,) = arguments.paths
    make, fs = FILES[name]
    make(tmp_path / name)
    named = lead_map(arguments.lead)
    recording = open_source(
        tmp_path / name, fs=arguments.fs, units=arguments.units, scale=arguments.scale, leads=arguments.leads, lead_map=named
    )
    assert recording.info.fs == pytest.approx(fs, rel=1e-3)
    used = [None if slot is None else LEADS[slot] for slot in assign_leads(recording.info.leads, named, recorded=True)]
    samples = recording.read(0, recording.total)
    assert np.ptp(samples[used.index("II")]) == pytest.approx(1.0, abs=0.02)
    if name != "night.edf":
        assert np.ptp(samples[used.index("V1")]) == pytest.approx(0.6, abs=0.02)
    assert not any("do not say which leads" in note for note in recording.info.notes)
