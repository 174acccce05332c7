"""The compact cache: what it holds, that a run cut short leaves none, and which packs are refused."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import numpy as np
import pytest
import wfdb
from rich.console import Console

from ecgnat_stream.signal import MODEL_FS
from train.data import pack as module
from train.data.labels import allow
from train.data.pack import FORMAT, Cached, Manifest, check_pack, prepare
from train.prepare import main


def write(folder: Path, name: str, fs: int, leads: list[str], seconds: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    signal = np.sin(np.arange(seconds * fs) / fs * 2 * np.pi * 5)[:, None].repeat(len(leads), axis=1)
    units, fmt = ["mV"] * len(leads), ["16"] * len(leads)
    wfdb.wrsamp(
        name, fs, units, leads, signal, fmt=fmt, adc_gain=[1000.0] * len(leads), baseline=[0] * len(leads), write_dir=str(folder)
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a data root: two mitdb records, one of ludb with beats marked in its middle."""
    root = tmp_path / "data"
    for name, seconds in (("100", 20), ("101", 30)):
        write(root / "mitdb", name, 360, ["MLII", "V5"], seconds)
        notes = ["(N", "", "", "(VT"]
        wfdb.wrann(name, "atr", np.array([0, 360, 720, 3600]), list("+NV+"), aux_note=notes, write_dir=str(root / "mitdb"))
    write(root / "ludb" / "data", "1", 500, ["i", "ii"], 10)
    wfdb.wrann("1", "ii", np.array([500, 1000, 4000]), list("(N)"), write_dir=str(root / "ludb" / "data"))
    (root / "ludb" / "ludb.csv").write_text("ID,Rhythms,Cardiac pacing\n1,Sinus rhythm,\n")
    return root


def run(root: Path, cache: Path, **options: object) -> tuple[list[Cached], str]:
    out = io.StringIO()
    rows = prepare(root, cache, console=Console(file=out, width=120), **options)  # type: ignore[arg-type]
    return rows, out.getvalue()


def manifest(cache: Path) -> Manifest:
    return msgspec.json.decode((cache / "manifest.json").read_bytes(), type=Manifest)


def test_the_files_hold_every_record(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    rows, _ = run(root, cache)
    assert [(row.database, row.name, row.split) for row in rows] == [
        ("mitdb", "100", "test"),
        ("mitdb", "101", "test"),
        ("ludb", "1", "test"),
    ]
    assert [row.length for row in rows] == [2000, 3000, 1000]
    assert rows[0].slots == (1, 10)
    leads = np.fromfile(cache / "leads.f16", np.float16)
    assert [row.at for row in rows] == [0, 4000, 10_000]
    second = leads[4000:10_000].reshape(2, 3000).astype(float)
    assert np.abs(second[:, 500:2500]).max() == pytest.approx(1.0, abs=0.05)
    rhythm = np.fromfile(cache / "rhythm.u8", np.uint8)
    assert (rhythm[2000:3000] == allow("SINUS")).all() and (rhythm[3000:5000] == allow("VT")).all()
    beats = np.load(cache / "beats.npy")
    assert beats[rows[1].beats_at : rows[1].beats_at + rows[1].beats].tolist() == [[100, 0], [200, 2]]
    assert [(row.beats, row.beats_start, row.beats_stop) for row in rows] == [(2, 0, -1), (2, 0, -1), (1, 100, 800)]
    assert msgspec.json.decode((cache / "records.json").read_bytes(), type=list[Cached]) == rows
    check_pack(cache)


def test_what_is_left_out_is_said(root: Path, tmp_path: Path) -> None:
    (root / "mitdb" / "100.dat").write_bytes(b"cut")
    rows, said = run(root, tmp_path / "cache")
    found = manifest(tmp_path / "cache")
    assert [row.name for row in rows] == ["101", "1"]
    assert len(found.unreadable) == 1 and "mitdb record 100" in found.unreadable[0]
    assert found.unreadable[0] in said
    assert {"vfdb", "ptbxl", "chapman"} <= set(found.skipped) and "vfdb" in said
    assert not found.noise and "no nstdb" in said
    assert np.load(tmp_path / "cache" / "noise.npy").shape == (0, 0)
    assert found.databases["mitdb"].records == 1 and found.databases["mitdb"].beats == 2
    assert found.databases["mitdb"].rhythm_hours == pytest.approx(30 / 3600)
    assert "every record is test" in said


def test_noise_is_six_leads(root: Path, tmp_path: Path) -> None:
    for name in ("bw", "em", "ma"):
        write(root / "nstdb", name, 360, ["noise1", "noise2"], 10)
    run(root, tmp_path / "cache", databases=("ludb",))
    noise = np.load(tmp_path / "cache" / "noise.npy")
    assert noise.shape == (6, 10 * MODEL_FS) and noise.dtype == np.float16
    assert manifest(tmp_path / "cache").noise


def test_named_databases_and_published_splits(root: Path, tmp_path: Path) -> None:
    write(root / "ours", "walk", 250, ["II"], 10)
    rows, said = run(root, tmp_path / "cache", databases=("mitdb", "ours", "vfdb"), published=True)
    assert {row.name: row.split for row in rows if row.database == "mitdb"} == {"100": "test", "101": "train"}
    assert manifest(tmp_path / "cache").skipped == ("vfdb",)
    assert "signals only" in said and "published splits" in said


def test_nothing_to_read_is_an_error(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds none of vfdb, cudb"):
        run(root, tmp_path / "cache", databases=("vfdb", "cudb"))
    (root / "ludb" / "data" / "1.dat").unlink()
    with pytest.raises(ValueError, match=r"no record of ludb .* ludb record 1"):
        run(root, tmp_path / "cache", databases=("ludb",))


def test_again_gives_the_same_and_leaves_no_scraps(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run(root, cache)
    before = {path.name: path.read_bytes() for path in cache.iterdir()}
    run(root, cache)
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == before
    assert not [name for name in before if name.endswith(".part")]


def test_a_run_cut_short_leaves_the_old_pack(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    run(root, cache, databases=("ludb",))
    before = (cache / "records.json").read_bytes()

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_noise", cut)
    with pytest.raises(KeyboardInterrupt):
        run(root, cache)
    assert (cache / "records.json").read_bytes() == before
    check_pack(cache)


def test_a_first_run_cut_short_leaves_no_pack(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_noise", cut)
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path / "cache")
    with pytest.raises(ValueError, match=r"unfinished one: it lacks leads.f16.*python -m train.prepare"):
        check_pack(tmp_path / "cache")


def test_packs_that_cannot_be_read_are_refused(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run(root, cache)
    (cache / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match=f"format 99, format {FORMAT} is needed"):
        check_pack(cache)
    (cache / "manifest.json").unlink()
    check_pack(cache)
    whole = (cache / "leads.f16").read_bytes()
    (cache / "leads.f16").write_bytes(whole[:-2])
    with pytest.raises(ValueError, match=f"{len(whole) - 2} bytes instead of {len(whole)}"):
        check_pack(cache)
    (cache / "records.json").write_text("[{}]")
    with pytest.raises(ValueError, match=f"no cache of format {FORMAT}"):
        check_pack(cache)


def test_records_of_mixed_length_are_conditioned_alone_or_together(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(root, tmp_path / "together")
    monkeypatch.setattr(module, "_BATCH_SAMPLES", 1)
    run(root, tmp_path / "alone")
    assert (tmp_path / "alone" / "leads.f16").read_bytes() == (tmp_path / "together" / "leads.f16").read_bytes()


def test_the_command_line(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["prepare", "--data", str(root), "--cache", str(tmp_path / "cache"), "--published-splits", "--databases"]
    monkeypatch.setattr("sys.argv", [*arguments, "mitdb,vfdb"])
    main()
    check_pack(tmp_path / "cache")
    assert "published splits" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*arguments, "vfdb"])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert "holds none of vfdb" in capsys.readouterr().err


@pytest.mark.data
def test_the_cache_holds_what_the_stream_would_see(data_root: Path, tmp_path: Path) -> None:
    small = tmp_path / "data"
    small.mkdir()
    for folder in ("cudb", "nstdb"):
        (small / folder).symlink_to(data_root / folder)
    (small / "splits.csv").write_text("database,record,split\ncudb,cu01,train\n")
    rows = prepare(small, tmp_path / "cache", ("cudb",))
    assert [(row.name, row.slots) for row in rows] == [("cu01", (1,))]
    assert rows[0].length == pytest.approx(127_232 / 250 * 100, abs=40)
    stored = np.fromfile(tmp_path / "cache" / "leads.f16", np.float16)
    assert len(stored) == rows[0].length
    assert np.nanstd(stored.astype(np.float32)) > 0.1
    assert np.load(tmp_path / "cache" / "noise.npy").shape[0] == 6
