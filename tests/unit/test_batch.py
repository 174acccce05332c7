"""Which recordings are analysed, in which batches, by processes of which any may die, and what is kept on disk."""

from __future__ import annotations

import csv
import io
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from ecgnat_stream.analysis import Summary
from ecgnat_stream.analysis.summary import Place
from ecgnat_stream.batch import pool
from ecgnat_stream.batch.choose import RecordingFile, choose
from ecgnat_stream.batch.lines import Lines
from ecgnat_stream.batch.pool import Pool, Share, batches
from ecgnat_stream.batch.progress import Progress, Searching
from ecgnat_stream.batch.table import COLUMNS, as_csv, as_tables
from ecgnat_stream.batch.targets import check_targets
from ecgnat_stream.batch.work import Order, Result, write_whole
from ecgnat_stream.errors import ConfigError, EcgnatError


def recording(name: str, size: int = 1000) -> RecordingFile:
    return RecordingFile(path=f"/x/{name}.hea", name=name, size=size, modified_ns=5)


def summary(**given: object) -> Summary:
    known: dict[str, object] = {
        "name": "a", "model": "net", "leads": ("II", "V1"), "length_s": 1800.0, "unusable_s": 18.0, "beats": 2000,
        "ventricular": 30, "supraventricular": 4, "without_class": 2, "heart_rate_min_bpm": 51.2, "heart_rate_mean_bpm": 72.0,
        "heart_rate_max_bpm": 131.4, "rhythm_s": {"AF": 900.0, "SINUS": 800.0, "UNKNOWN": 100.0}, "af_s": 900.0,
        "af_burden": 0.5294, "couplets": 3, "runs": 1, "longest_run": Place(5.0, 61.25), "longest_pause": Place(2.41, 700.5),
        "alarms": {"high": 1, "low": 7}, "technical_alarms": 2, "diagnoses": ("AFIB", "LVH"),
    }  # fmt: skip
    return Summary(**(known | given))  # type: ignore[arg-type]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("a 1 250 100\n" if name.endswith(".hea") else "1,2\n")


def test_a_recording_counts_once_however_it_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.hea", "a.dat", "a.atr", "b.csv")
    asked = [str(tmp_path / name) for name in ("a.dat", "a", "a.atr", "*", "a.hea", "")]
    chosen = choose(asked)
    assert [Path(one.path).name for one in chosen.recordings] == ["a.hea", "b.csv"]
    assert chosen.recordings[0].size == 2 * 12 - 8
    assert not chosen.missing


def test_names_are_places_below_what_all_have_in_common_and_differ(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.hea", "x/a.edf", "y/a.hea", "y/b c&<ü>.csv", "y/b.c.npy")
    assert {Path(one.path).name: one.name for one in choose([str(tmp_path / "y")]).recordings} == {
        "a.hea": "a",
        "b c&<ü>.csv": "b c&<ü>",
        "b.c.npy": "b.c",
    }
    both = choose([str(tmp_path / "y"), str(tmp_path / "x")])
    assert sorted(one.name for one in both.recordings) == ["x/a", "x/a.edf", "y/a", "y/b c&<ü>", "y/b.c"]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.csv", "notes.md")
    chosen = choose([str(tmp_path / "a.csv"), str(tmp_path / "gone"), str(tmp_path / "*.edf"), str(tmp_path / "*.md")])
    assert [one.name for one in chosen.recordings] == ["a"]
    assert list(chosen.missing.values()) == [
        "there is no such file, folder or record",
        "matches nothing",
        "matches no recording",
    ]
    assert choose([str(tmp_path / "**/*")]).recordings == chosen.recordings


def test_batches_hold_like_sizes_and_leave_something_for_every_process() -> None:
    small = [recording(str(i), 1000 + i) for i in range(200)]
    made = batches([*small, recording("day", 30_000_000)], 2)
    assert made[0] == (recording("day", 30_000_000),)
    assert [len(batch) for batch in made[1:]] == [32] * 6 + [8]
    assert sorted(one.name for batch in made for one in batch) == sorted([*map(str, range(200)), "day"])
    assert [len(batch) for batch in batches(small[:7], 2)] == [2, 2, 2, 1]
    assert batches([], 2) == []
    halves = [recording("a", 5_000_000), recording("b", 5_000_000)]
    assert batches(halves, 1) == [(halves[0],), (halves[1],)]


def work_or_die(connection: Connection, order: Order) -> None:
    """Stand in for an analysis: one recording kills its process."""
    try:
        while True:
            connection.send(pool._Ready())
            batch = connection.recv()
            connection.send(Share(batch, 0.5))
            for one in batch:
                if one.name == "deadly":
                    os.kill(os.getpid(), signal.SIGKILL)
                connection.send(Result(recording=one, summary=summary(name=one.name)))
    except EOFError:
        return


def die_at_once(connection: Connection, order: Order) -> None:
    """Stand in for a machine without memory."""
    raise SystemExit(7)


def refuse(connection: Connection, order: Order) -> None:
    """Stand in for a network that cannot be loaded."""
    connection.send(pool._Refused("no such network", wrong_usage=True))


def test_a_process_that_dies_is_named_and_all_others_are_analysed() -> None:
    asked = [recording(name) for name in ("a", "b", "deadly", "c", "d", "e", "f", "g", "h")]
    with Pool(Order(), 2, work_or_die) as processes:
        steps = list(processes.run(asked))
    results = [step for step in steps if isinstance(step, Result)]
    assert sorted(result.recording.name for result in results) == sorted(one.name for one in asked)
    (failed,) = [result for result in results if result.error]
    assert failed.recording.name == "deadly"
    assert failed.error == "the process that analysed it was killed (SIGKILL, perhaps for want of memory)"
    assert any(isinstance(step, Share) for step in steps)


def test_processes_that_cannot_begin_end_the_run() -> None:
    with Pool(Order(), 1, die_at_once) as processes, pytest.raises(EcgnatError, match="exit code 7 before it began"):
        list(processes.run([recording("a")]))
    with Pool(Order(), 1, refuse) as processes, pytest.raises(ConfigError, match="no such network"):
        list(processes.run([recording("a")]))


def analysed(one: RecordingFile) -> Result:
    text = msgspec.json.encode({"name": one.name, "summary": summary(name=one.name), "beats": []})
    return Result(recording=one, summary=summary(name=one.name), analysis=text)


def test_a_file_of_results_is_gone_on_with(tmp_path: Path) -> None:
    path, order = tmp_path / "out" / "all.jsonl", Order(json=True)
    asked = [recording(name) for name in "abcdefg"]
    with Lines(path, order, asked) as lines:
        for one in asked[:4]:
            lines.write(analysed(one))
        lines.write(Result(recording=asked[4], error="torn \udcff"))
    with path.open("ab") as file:
        file.write(b'{"type":"analysis","path":"/x/f.hea","na')
    first = path.read_bytes().splitlines()
    assert msgspec.json.decode(first[4]) == {"type": "failure", "path": "/x/e.hea", "name": "e", "error": "torn \ufffd"}
    changed = [msgspec.structs.replace(asked[1], size=7), *asked[2:]]
    with Lines(path, order, changed, resume=True) as lines:
        assert [result.recording.name for result in lines.finished] == ["c", "d"]
        assert lines.finished[0].summary == summary(name="c")
        lines.write(analysed(asked[4]))
    assert path.read_bytes().splitlines()[:2] == first[2:4]
    assert len(path.read_bytes().splitlines()) == 3
    with Lines(path, Order(json=True, start_s=5.0), asked, resume=True) as lines:
        assert lines.finished == []


def test_a_recording_whose_page_is_gone_is_analysed_again(tmp_path: Path) -> None:
    path, order, one = tmp_path / "all.jsonl", Order(json=True, html=tmp_path / "pages"), recording("a")
    with Lines(path, order, [one]) as lines:
        lines.write(analysed(one))
    with Lines(path, order, [one], resume=True) as lines:
        assert lines.finished == []
    with Lines(path, order, [one]) as lines:
        lines.write(analysed(one))
    (page,) = order.files_of(one)
    page.parent.mkdir(parents=True)
    page.touch()
    with Lines(path, order, [one], resume=True) as lines:
        assert len(lines.finished) == 1


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(EcgnatError, match=r"cannot be written \(Is a directory\)"):
        Lines(tmp_path, Order(), [])


def test_the_csv_has_a_row_for_each_with_what_is_known(tmp_path: Path) -> None:
    results = [
        Result(recording=recording("a,b"), summary=summary()),
        Result(recording=recording("bare"), summary=summary(longest_run=None, longest_pause=None, diagnoses=None, length_s=10.0)),
        Result(recording=recording("bad"), error="torn"),
    ]
    rows = list(csv.DictReader(io.StringIO(as_csv(results).decode())))
    assert tuple(rows[0]) == COLUMNS
    expected = {
        "name": "a,b", "leads": "II V1", "leading_rhythm": "AF", "af_burden": "0.5294", "longest_run_beats": "5",
        "longest_run_at_s": "61.25", "longest_pause_s": "2.41", "alarms_high": "1", "alarms_medium": "0", "alarms_low": "7",
        "unusable_share": "0.01", "diagnoses": "AFIB;LVH", "ventricular_per_hour": "60.6", "error": "",
    }  # fmt: skip
    assert {key: rows[0][key] for key in expected} == expected
    assert (
        rows[1]["longest_run_beats"]
        == rows[1]["longest_pause_s"]
        == rows[1]["diagnoses"]
        == rows[1]["ventricular_per_hour"]
        == ""
    )
    assert (rows[2]["error"], rows[2]["beats"]) == ("torn", "")


def test_the_table_fits_80_columns() -> None:
    results = [
        Result(recording=recording("a-record-with-a-long-name"), summary=summary(length_s=86_400.0, beats=104_000)),
        Result(recording=recording("bad"), error="torn"),
    ]
    text = io.StringIO()
    console = Console(file=text, width=80, markup=False)
    for table in as_tables(results):
        console.print(table)
    shown = text.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    for part in ("24:00:00", "104000", "51/72/131", "AF", "53%", "2.4 s", "1/0/7", "AFIB, LVH"):
        assert part in shown
    assert "torn" not in shown


def test_progress_without_a_terminal_is_a_line_now_and_then() -> None:
    now = [0.0]
    text = io.StringIO()
    asked = [recording("a", 90_000), recording("b", 90_000)]
    with Progress(asked, text, lambda: now[0]) as progress:
        progress.tell(asked, 0.1)
        now[0] = 20.0
        progress.tell(asked, 0.25)
        progress.finish(asked[0])
        now[0] = 300.0
        progress.finish(asked[0])
    assert text.getvalue().splitlines() == [
        "ecgnat: 0 of 2 recordings, about 60 s left",
        "ecgnat: 1 of 2 recordings, about 3 min left",
    ]


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("", "names nothing"),
        (" ", "names nothing"),
        ("~no such user/a", "there is no account no such user"),
        ("x" * 300, "cannot be read"),
    ],
)
def test_what_names_nothing_is_refused_with_the_reason(argument: str, reason: str) -> None:
    chosen = choose([argument])
    assert not chosen.recordings
    ((_, why),) = chosen.missing.items()
    assert why.startswith(reason)


def test_folders_without_a_name_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.csv", "deep/b.csv")
    monkeypatch.chdir(tmp_path / "deep")
    assert [one.name for one in choose(["."]).recordings] == ["b"]
    assert [one.name for one in choose([".."]).recordings] == ["a", "deep/b"]
    assert choose([str(tmp_path / "deep" / "..")]).missing == {}


@pytest.fixture
def record(tmp_path: Path) -> list[RecordingFile]:
    """A record whose signal file has a name of its own, chosen from a folder."""
    touch(tmp_path, "in/a.hea", "in/a.atr", "in/other.bin", "in/a.json", "in/c.csv")
    (tmp_path / "in" / "a.hea").write_text("a 1 250 100\nother.bin 16 200\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / "in" / "c.csv")
    return choose([str(tmp_path / "in" / "a"), str(tmp_path / "in" / "c.csv")]).recordings


@pytest.mark.parametrize("target", ["in/a.hea", "in/a.atr", "in/other.bin", "in/c.csv", "link.csv", "in/../in/a.hea"])
def test_no_result_replaces_what_is_read(target: str, record: list[RecordingFile], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"will not be written over, it belongs to the recording (a|c)"):
        check_targets(Order(), record, [tmp_path / target])


def test_no_file_in_a_folder_of_results_replaces_what_is_read(record: list[RecordingFile], tmp_path: Path) -> None:
    (tmp_path / "in" / "a.hea").write_text("a 1 250 100\na.png 16 200\n")
    touch(tmp_path, "in/a.png")
    with pytest.raises(ConfigError, match=r"a\.png: will not be written over"):
        check_targets(Order(plots=tmp_path / "in"), record, [])


@pytest.mark.parametrize(
    ("order", "file", "why"),
    [
        ({}, "in", "is a folder, but a file is wanted"),
        ({"html": "in/c.csv"}, None, "is a file, but a folder is wanted"),
        ({"plots": "in/c.csv/deep"}, None, "there can be no such folder"),
        ({"annotations": "made/new"}, "made/new/a.ecg", "two results cannot go to one file"),
        ({"html": "pages"}, "x" * 300, "cannot be written"),
        ({}, "taken/x.csv", "is a folder"),
    ],
)
def test_places_that_cannot_be_written(
    order: dict[str, str], file: str | None, why: str, record: list[RecordingFile], tmp_path: Path
) -> None:
    (tmp_path / "taken" / "x.csv").mkdir(parents=True)
    folders = {name: tmp_path / folder for name, folder in order.items()}
    with pytest.raises(ConfigError, match=why):
        check_targets(Order(**folders), record, [tmp_path / file] if file else [])


def test_trying_a_place_changes_nothing(record: list[RecordingFile], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    order = Order(html=tmp_path / "pages" / "deep", annotations=tmp_path / "in", plots=tmp_path)
    check_targets(order, record, [tmp_path / "in" / "a.json", tmp_path / "out" / "f.csv", Path("/dev/null")])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_is_written_whole_or_the_reason_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "a.csv")
    (tmp_path / "link.csv").symlink_to(tmp_path / "a.csv")
    write_whole(tmp_path / "link.csv", b"new")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "a.csv").read_bytes() == b"new"
    for wrong in (tmp_path / "a.csv" / "page.html", tmp_path, tmp_path / "a.csv" / "deep" / "page.html"):
        with pytest.raises(EcgnatError, match="cannot be written"):
            write_whole(wrong, b"lost")
    write_whole(Path("/dev/null"), b"gone")
    assert Path("/dev/null").is_char_device()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "link.csv"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "counts"), [(io.StringIO(), [2]), (Terminal(), [2, 4])])
def test_a_long_search_says_that_it_searches_and_how_many_files_it_has_seen(
    stream: io.StringIO, counts: list[int], tmp_path: Path
) -> None:
    times = iter([0.0, *(1.9, 2.0, 2.0), 11.9, 12.0, 12.0, 13.0])
    for number in range(5):
        (tmp_path / f"{number}.csv").write_text("no table\n")
    choose([str(tmp_path)], Searching(stream, lambda: next(times)))
    lines = [f"ecgnat: searching for recordings: {count} files looked at so far" for count in counts]
    assert stream.getvalue().splitlines() == lines


def test_a_short_search_says_nothing(tmp_path: Path) -> None:
    stream = Terminal()
    (tmp_path / "a.csv").write_text("no table\n")
    choose([str(tmp_path)], Searching(stream, lambda: 0.0))
    assert stream.getvalue() == ""
