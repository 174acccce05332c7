"""Labels of one's own: what is refused and how, how persons are split, what is learned and kept, and the page that shows it."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from ecgnat_devices.simulator import Patient, Segment, Signal
from ecgnat_stream.errors import CheckpointError
from ecgnat_stream.model import ModelConfig, Predictor, load_checkpoint
from ecgnat_stream.model.catalogue import monitoring
from ecgnat_stream.signal import Conditioned
from train import apply, own
from train.data.own import FEWEST, LabelsError, read_labels, records_of, split
from train.fit.head import fit_head

PAGE = Path(__file__).parents[2] / "docs" / "own-labels.md"
FS = 250


def write(folder: Path, names: Sequence[str], seconds: float = 12.0, rhythms: Sequence[Any] = ("sinus",)) -> None:
    """Write simulated recordings of lead II, the rhythms in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "signals.json").write_text(f'{{"fs": {FS}, "units": "mV", "leads": ["II"]}}')
    for number, name in enumerate(names):
        script = (Segment(rhythm=rhythms[number % len(rhythms)], seconds=seconds),)
        signal = Signal(fs=FS, leads=("II",), seed=number, script=script, noise_mv=0.02)
        np.save(folder / f"{name}.npy", Patient(signal).read(round(seconds * FS)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of twelve short recordings a0 .. a5, b0 .. b5."""
    folder = tmp_path_factory.mktemp("labels") / "recordings"
    write(folder, [f"{kind}{number}" for kind in "ab" for number in range(6)], 4.0)
    (folder / "deep").mkdir()
    return folder


def good(header: str = "path,label", more: str = "") -> list[str]:
    return [header, *(f"{kind}{number}.npy,{kind}{more}" for kind in "ab" for number in range(6))]


def table(tmp_path: Path, lines: Sequence[str], encoding: str = "utf-8") -> Path:
    path = tmp_path / "labels.csv"
    path.write_bytes("\n".join([*lines, ""]).encode(encoding))
    return path


def said_of(tmp_path: Path, lines: Sequence[str], folder: Path, encoding: str = "utf-8") -> str:
    file = table(tmp_path, lines, encoding)
    with pytest.raises(LabelsError) as error:
        list(records_of(split(read_labels(file, folder), file), file, folder))
    said = str(error.value)
    assert said.startswith(str(file))
    return said.replace(f"{file}, ", "").replace(str(folder), "FOLDER")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, "is empty: want a line path,label"),
        ({0: "path,label"}, "line 1: there is a header and no row"),
        ({0: "file,label"}, "line 1: there is no column path: want path and label, found file, label"),
        ({0: "path;label", 1: "a;b"}, "line 1: the columns are separated by ';': want commas"),
        ({0: "path,label,path"}, "line 1: column path stands twice"),
        ({0: "path,label,start"}, "line 1: column 'start': did you mean start_s?"),
        ({0: "path,label,stop_s"}, "line 1: column stop_s stands alone"),
        ({3: "a2.npy"}, "line 4: it has 1 cells, the header has 2"),
        ({3: "a2.npy,"}, "line 4, column label: the cell is empty"),
        ({3: "a9.npy,a"}, "line 4, column path: there is no recording a9.npy in FOLDER: did you mean a"),
        ({3: "../a2.npy,a"}, "line 4, column path: ../a2.npy lies outside of FOLDER"),
        ({3: "/etc/hosts,a"}, "line 4, column path: /etc/hosts lies outside of FOLDER"),
        ({3: "deep,a"}, "line 4, column path: deep is a folder: name one recording"),
        ({3: "a1.npy,a"}, "line 4, column path: the same row as line 3"),
        ({3: "./a1.npy,b"}, "line 4, column label: 'b' contradicts 'a' in line 3"),
        ({3: 'a2.npy,"a'}, "a quote that is not closed?"),
        ({3: "signals.json,a"}, "line 4, column path: signals.json cannot be read"),
        (dict.fromkeys(range(7, 13), ""), "column label: all rows are of the class 'a': want two or more"),
        (dict.fromkeys(range(9, 13), ""), f"column label: 'b' has 2 persons or recordings: want {FEWEST} of every class"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, folder: Path, change: dict[int, str], says: str) -> None:
    lines = [] if not change else good() if min(change) else []
    for at, line in change.items():
        lines[at : at + 1] = [line]
    if (change and 0 in change and len(change) == 1 and "start_s" in says + change[0]) or change.get(0) in ("path,label,path",):
        lines += ["a0.npy,a,1"]
    assert says in said_of(tmp_path, lines, folder)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("a2.npy,3,1,a,,", "line 4, column start_s: 3 s is not less than stop_s, 1 s"),
        ("a2.npy,0,9,a,,", "line 4, column stop_s: 9 s lies beyond the end of a2.npy, 4.0 s"),
        ("a2.npy,0,1,a,,", "line 4, column path: a2.npy 0-1 s has 1 s: 2 s are the least"),
        ("a2.npy,,3,a,,", "line 4, column start_s: the cell is empty: give both times, or none"),
        ("a2.npy,-1,3,a,,", "line 4, column start_s: '-1' is no time in seconds from 0"),
        ("a2.npy,0,soon,a,,", "line 4, column stop_s: 'soon' is no time in seconds from 0"),
        ("a2.npy,0,3,a,,test", "line 4, column split: 'test': want train or val"),
        ("a2.npy,0,3,a,,train", "line 2, column split: the cell is empty, line 4 has 'train'"),
    ],
)
def test_what_is_wrong_with_a_stretch(tmp_path: Path, folder: Path, row: str, says: str) -> None:
    lines = ["path,start_s,stop_s,label,patient,split"]
    lines += [f"{kind}{number}.npy,0,3,{kind},," for kind in "ab" for number in range(6)]
    lines[3] = row
    assert says in said_of(tmp_path, lines, folder)


def test_encodings_and_several_problems(tmp_path: Path, folder: Path) -> None:
    lines = good()
    lines[2] = "a1.npy,naïve"
    assert said_of(tmp_path, lines, folder, "latin-1").startswith("line 3: byte 0xef is not UTF-8")
    bom = table(tmp_path, good(), "utf-8-sig")
    assert len(read_labels(bom, folder)) == 12
    wrong = [good()[0], *(f"x{number}.npy,a" for number in range(14))]
    said = said_of(tmp_path, wrong, folder).splitlines()
    assert len(said) == 11 and said[-1] == "... and 4 more"
    with pytest.raises(LabelsError, match="is no folder"):
        read_labels(bom, folder / "nowhere")
    with pytest.raises(LabelsError, match="is no file"):
        read_labels(tmp_path / "nothing.csv", folder)


def test_persons_are_on_one_side(tmp_path: Path, folder: Path) -> None:
    lines = ["path,label,patient", *(f"{kind}{number}.npy,{kind},p{number // 2}{kind}" for kind in "ab" for number in range(6))]
    few = said_of(tmp_path, lines, folder)
    assert "'a' has 3, 'b' has 3 persons" in few
    lines = ["path,start_s,stop_s,label"]
    lines += [f"{kind}{number}.npy,{at},{at + 2},{kind}" for kind in "ab" for number in range(6) for at in (0, 2)]
    file = table(tmp_path, lines)
    rows = split(read_labels(file, folder), file)
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row.person, set()).add(row.split)
    assert all(len(side) == 1 for side in sides.values())
    assert {(row.label, row.split) for row in rows} == {(kind, part) for kind in "ab" for part in ("train", "val")}
    assert split(read_labels(file, folder), file) == rows  # the same every time
    assert split(read_labels(file, folder), file, seed=1) != rows
    records = list(records_of(rows, file, folder))
    assert [record.codes for record in records] == [(row.label,) for row in rows]
    whole = np.load(folder / "a0.npy")[0]
    np.testing.assert_array_equal(records[1].samples[1], whole[2 * FS : 4 * FS].astype(np.float32))


def test_a_stated_split_is_kept_or_refused(tmp_path: Path, folder: Path) -> None:
    stated = ["path,label,split", *(f"{k}{n}.npy,{k},{'val' if n < 2 else 'train'}" for k in "ab" for n in range(6))]
    file = table(tmp_path, stated)
    assert [row.split for row in split(read_labels(file, folder), file)] == 2 * (["val"] * 2 + ["train"] * 4)
    one_sided = [line.replace("b,val", "b,train") for line in stated]
    assert "no row of class 'b' is val" in said_of(tmp_path, one_sided, folder)
    shared = [f"{line}," for line in stated]
    shared[0], shared[1], shared[4] = "path,label,split,patient", "a0.npy,a,val,one", "a3.npy,a,train,one"
    assert "line 5, column split: one is 'train' here and 'val' in line 2" in said_of(tmp_path, shared, folder)


def test_the_head_is_fitted_over_persons() -> None:
    rng = np.random.default_rng(0)
    stated = np.repeat([0, 1, 2], 80)
    features = rng.normal(size=(240, 12)) + 3 * np.eye(12)[stated]
    linear = torch.nn.Linear(12, 3)
    strength = fit_head(linear, features, stated, np.repeat(np.arange(60), 4))
    with torch.no_grad():
        said = linear(torch.tensor(features, dtype=torch.float32)).numpy()
    assert (said.argmax(axis=1) == stated).mean() > 0.95
    noise = fit_head(linear, rng.normal(size=(240, 12)), stated, np.repeat(np.arange(60), 4))
    assert noise < strength  # where nothing can be learnt, little is believed


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with recordings of two rhythms, labels, and what was learned of them."""
    base = tmp_path_factory.mktemp("own")
    names = [f"r{number}" for number in range(28)]
    write(base / "recordings", names, rhythms=("sinus", "af"))
    lines = ["path,label", *(f"{name}.npy,{('steady', 'unsteady')[n % 2]}" for n, name in enumerate(names))]
    (base / "labels.csv").write_text("\n".join(lines))
    own.main(["--data", str(base / "recordings"), "--labels", str(base / "labels.csv"), "--out", str(base / "mymodel")])
    return base


def test_two_rhythms_are_told_apart_and_the_rest_stays(taught: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped, mine = (load_checkpoint(path) for path in (monitoring("ecgnat-nano"), monitoring(str(taught / "mymodel"))))
    assert mine[1].model.window_classes == ("steady", "unsteady")
    found = mine[1].metrics["own labels"]
    assert found["macro AUROC"][0] > 0.9 and found["accuracy"][1] <= found["accuracy"][0] <= found["accuracy"][2]
    assert found["always the largest class"] == 0.5
    window = torch.randn(2, 12, 1000)
    with torch.no_grad():
        before, after = (network(network.prepare(window)) for network in (shipped[0], mine[0]))
    for head in ("rhythm", "beat", "screen"):
        torch.testing.assert_close(getattr(after, head), getattr(before, head), rtol=0, atol=0)
    assert mine[1].calibration.temperature == shipped[1].calibration.temperature
    card = (taught / "mymodel" / "README.md").read_text()
    assert "| steady | 10 | 4 |" in card and "not a certified medical device" in card
    with (taught / "mymodel" / "validation.csv").open() as file:
        said = list(csv.DictReader(file))
    assert len(said) == 8
    with pytest.raises(SystemExit) as ended:
        paths = [row["path"] for row in said]
        apply.main(["--model", str(taught / "mymodel"), "--data", str(taught / "recordings"), *paths, "nothing.npy"])
    out, err = capsys.readouterr()
    applied = list(csv.DictReader(io.StringIO(out)))
    assert ended.value.code == 1 and "nothing.npy cannot be read" in err
    assert [row["label"] for row in applied] == [row["said"] for row in said]
    for row, stated in zip(applied, said, strict=True):
        assert float(row["unsteady"]) == pytest.approx(float(stated["unsteady"]), abs=2e-3)  # a pack holds float16


def test_all_of_it_can_be_trained(taught: Path, tmp_path: Path) -> None:
    given = ["--data", str(taught / "recordings"), "--labels", str(taught / "labels.csv"), "--out", str(tmp_path / "all")]
    own.main([*given, "--tune", "all", "--minutes", "0.02"])
    network, card = load_checkpoint(tmp_path / "all")
    assert card.heads == ("window",)
    with pytest.raises(CheckpointError, match="cannot monitor"):
        monitoring(str(tmp_path / "all"))
    first = load_checkpoint(taught / "mymodel")[0].state_dict()
    assert any(not torch.equal(tensor, first[name]) for name, tensor in network.state_dict().items() if name.startswith("stem"))
    with Predictor(ModelConfig(name=str(tmp_path / "all"))) as predictor:
        assert predictor.predict(Conditioned(np.zeros((1, 12, 1000), np.float32), 100)).window.shape == (1, 2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"--init": "beatnet"}, "own labels need an ECG-NAT network"),
        ({"--init": "ecgnat-nanno"}, "ecgnat-nano"),
        ({"--labels": "nothing.csv"}, "is no file"),
        ({"--out": "mymodel"}, "is there and not empty"),
    ],
)
def test_the_command_line_refuses(
    taught: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(taught)
    given = {"--data": "recordings", "--labels": "labels.csv", "--out": "other"} | change
    with pytest.raises(SystemExit) as ended:
        own.main([part for pair in given.items() for part in pair])
    assert ended.value.code == 1 and says in capsys.readouterr().err
    assert not (taught / "other").exists()


def test_the_page_runs_as_it_stands(tmp_path: Path) -> None:
    """From a folder that is no checkout: the recordings of the page, its commands, its program."""
    text = PAGE.read_text(encoding="utf-8")
    make, program = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    commands = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    assert len(commands) == 1
    done = [run([sys.executable, "-c", make], tmp_path)]
    for line in commands[0].strip().splitlines():
        _, *rest = line.split()
        done.append(run([sys.executable, *rest], tmp_path))
    assert "macro AUROC" in done[1] and "my af, my sinus" in done[1]
    labels = [row["label"] for row in csv.DictReader(io.StringIO(done[2]))]
    assert labels == ["my sinus", "my af"]
    assert "my sinus" in run([sys.executable, "-c", program], tmp_path)
    card = msgspec.json.decode((tmp_path / "mymodel" / "config.json").read_bytes())
    assert card["trained_on"]["own labels"] == 24


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.data
def test_atrial_fibrillation_is_learnt_from_80_recordings(data_root: Path, tmp_path: Path) -> None:
    """Challenge 2017: 40 recordings of either kind train, up to 40 of the validation records of either kind measure."""
    index = data_root / "cinc2017" / "index.csv"
    if not index.is_file():
        pytest.skip("no pack of cinc2017 in this data root")
    with (data_root / "splits.csv").open() as file:
        part = {row["record"]: row["split"] for row in csv.DictReader(file) if row["database"] == "cinc2017"}
    signal = np.load(index.with_name("signal_100hz_4uV_int16.npy"), mmap_mode="r")
    taken: dict[tuple[str, str], int] = {}
    lines = ["path,label,split"]
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "signals.json").write_text('{"fs": 100, "units": "mV", "leads": ["II"]}')
    with index.open() as file:
        for row in csv.DictReader(file):
            kind, side = row["label"], part.get(row["record"], "")
            if kind not in "AN" or side not in ("train", "val") or taken.get((kind, side), 0) == 40:
                continue
            taken[kind, side] = taken.get((kind, side), 0) + 1
            cut = signal[int(row["start"]) : int(row["stop"])]
            np.save(tmp_path / "recordings" / f"{row['record']}.npy", cut[None] * np.float32(0.004))
            lines.append(f"{row['record']}.npy,{kind},{side}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    own.main(["--data", str(tmp_path / "recordings"), "--labels", str(tmp_path / "labels.csv"), "--out", str(tmp_path / "m")])
    assert load_checkpoint(tmp_path / "m")[1].metrics["own labels"]["macro AUROC"][0] > 0.9
