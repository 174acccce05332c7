"""``ecgnat score``: run the monitor over annotated records and say how good it is."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgnat_stream.cli.options import a_path, add_mode, add_model, model_table
from ecgnat_stream.words import cleaned, counted

if TYPE_CHECKING:
    from ecgnat_stream.config import Config
    from ecgnat_stream.score.report import RecordReport
    from ecgnat_stream.score.run import Observed, RecordTask
    from ecgnat_stream.score.truth import Truth

__all__ = ["add", "run"]

_SNR_DB = 6.0
_SHORT_S, _SHORT_FACTOR = 300.0, 4
"""So many times more of the records that are short are replayed at once: starting the network is what takes time there."""


def add(commands: Any) -> None:
    """Add the command to those of ``ecgnat``."""
    score = commands.add_parser(
        "score",
        help="run the monitor over annotated records and say how good it is",
        description="Run the monitor over annotated WFDB databases; print beats, episodes (EC57), time to alarm, false alarms "
        "and the Challenge 2015 score. docs/scoring.md defines every figure.",
        epilog="example: ecgnat score mitdb vfdb cudb --split test --json score.json --html score.html",
    )
    score.add_argument("databases", nargs="+", type=a_path, metavar="DATABASE_DIR", help="a folder of annotated WFDB records")
    score.add_argument("--records", nargs="+", default=[], metavar="R", help="only these records")
    score.add_argument(
        "--split", default="test", metavar="NAME", help="where there is a splits.csv (default %(default)s), or all"
    )
    score.add_argument("--from", dest="learning_s", type=float, metavar="S", help="compare beats and rhythm from here on, s")
    score.add_argument(
        "--config", type=a_path, metavar="FILE", help="settings to measure, as for ecgnat run; its beds are left out"
    )
    add_model(score)
    add_mode(score)
    score.add_argument("--at-once", type=int, default=8, metavar="N", help="beds at once (default %(default)s)")
    score.add_argument("--noise", type=a_path, metavar="RECORD", help="add this noise, a record of the noise stress database")
    score.add_argument("--snr", type=float, metavar="DB", help="signal-to-noise ratio for --noise (default 6 dB)")
    score.add_argument("--json", type=a_path, metavar="FILE", help="write everything that was found, per record")
    score.add_argument("--html", type=a_path, metavar="FILE", help="write a report with a strip of every mistake")
    score.add_argument("--strips", type=int, default=200, metavar="N", help="at most so many strips (default %(default)s)")
    score.add_argument("--annotations", type=a_path, metavar="DIR", help="write what the monitor said as WFDB annotations (.ecg)")
    score.set_defaults(command=run)


@dataclass
class _Work:
    """What has been found so far."""

    rows: list[RecordReport] = field(default_factory=list)
    seen: dict[tuple[str, str], tuple[Truth, Observed]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    unwritten: list[str] = field(default_factory=list)
    model: str = ""

    def fail(self, what: str, why: str) -> None:
        self.failed[what] = why
        print(f"ecgnat: {cleaned(why if what in why else f'{what}: {why}', 1000)}", file=sys.stderr)

    def write(self, path: Path, content: str | bytes) -> None:
        """Write a result; one that cannot be written is told, and keeps no other from being made."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        except OSError as error:
            self.unwritten.append(f"{path}: cannot be written ({error.strerror})")
            print(f"ecgnat: {cleaned(self.unwritten[-1], 1000)}", file=sys.stderr)

    def leave_out(self, database: str, reasons: dict[str, str]) -> None:
        """Take note of records that nothing can be said of; one line for all that share a reason."""
        alike: dict[str, list[str]] = {}
        for name, why in reasons.items():
            self.failed[f"{database}/{name}"] = why
            alike.setdefault(why.removeprefix(f"{database}/{name}: "), []).append(name)
        for why, names in alike.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            print(f"ecgnat: {cleaned(f'{database}/{names[0]}{more}: {why}', 1000)}", file=sys.stderr)


def run(arguments: argparse.Namespace) -> int:
    """Score; return 0, or 1 if a record could not be scored or a result could not be written.

    Raises
    ------
    ConfigError
        For settings that cannot be used.
    ScoreError
        For a folder without records.
    """
    import tempfile

    import msgspec

    from ecgnat_stream.score.report import summarise
    from ecgnat_stream.score.tables import as_text, sheets

    began = time.monotonic()
    config = _settings(arguments)
    work = _Work()
    with tempfile.TemporaryDirectory(prefix="ecgnat-score-") as scratch:
        truths, tasks = _tasks(arguments, config, work, Path(scratch))
        _replay(arguments, config, work, truths, tasks)
        summaries = {
            name: summarise([row for row in work.rows if row.database == name])
            for name in dict.fromkeys(row.database for row in work.rows)
        }
        if work.rows:
            print("\n".join(as_text(sheet) for sheet in sheets(summaries)))
        about = _about(arguments, config, work, time.monotonic() - began)
        if arguments.json:
            report = about | {"databases": summaries, "records": work.rows, "failed": work.failed}
            work.write(arguments.json, msgspec.json.encode(report) + b"\n")
        if arguments.html:
            from ecgnat_stream.score.html import page

            work.write(arguments.html, page(about, summaries, work.rows, work.seen, work.failed, arguments.strips))
    print(f"{counted(len(work.rows), 'record')} scored in {time.monotonic() - began:.0f} s", file=sys.stderr)
    return 1 if work.failed or work.unwritten else 0


def _settings(arguments: argparse.Namespace) -> Config:
    from ecgnat_stream.errors import ConfigError
    from ecgnat_stream.model import check_model
    from ecgnat_stream.score.run import settings

    if arguments.at_once < 1:
        raise ConfigError(f"--at-once {arguments.at_once}: at least 1")
    if arguments.snr is not None and arguments.noise is None:
        raise ConfigError("--snr needs --noise RECORD")
    table: dict[str, Any] = {}
    if arguments.config is not None:
        from ecgnat_stream.config import load_config, read_table

        load_config(arguments.config)
        table = read_table(arguments.config)
    config = settings(table, model_table(arguments))
    check_model(config.model)
    return config


def _tasks(
    arguments: argparse.Namespace, config: Config, work: _Work, scratch: Path
) -> tuple[dict[tuple[str, str], Truth], list[RecordTask]]:
    """Read what is stated of every record that is asked for."""
    from ecgnat_stream.score.noise import noisy_record
    from ecgnat_stream.score.records import ScoreError, select
    from ecgnat_stream.score.run import RecordTask
    from ecgnat_stream.score.truth import Database
    from ecgnat_stream.suggest import unknown

    truths: dict[tuple[str, str], Truth] = {}
    tasks: list[RecordTask] = []
    databases = [Database(folder, config.alarm, arguments.learning_s) for folder in arguments.databases]
    for name in arguments.records:
        if not any(name in database.paths for database in databases):
            work.fail(name, unknown("record", name, [each for database in databases for each in database.paths]))
    for database in databases:
        reasons: dict[str, str] = {}
        for name, split in select(database.folder, database.paths, arguments.records, arguments.split):
            key = (database.name, name)
            try:
                truth = database.truth(name, split)
                if arguments.noise is not None:
                    mixed = noisy_record(truth, arguments.noise, _snr_db(arguments), scratch / database.name)
                    truth = replace(truth, path=mixed)
            except ScoreError as error:
                reasons[name] = str(error)
                continue
            truths[key] = truth
            tasks.append(RecordTask(key, truth.path, truth.length_s))
        work.leave_out(database.name, reasons)
    return truths, tasks


def _replay(
    arguments: argparse.Namespace, config: Config, work: _Work, truths: dict[tuple[str, str], Truth], tasks: Sequence[RecordTask]
) -> None:
    import asyncio

    from ecgnat_stream.errors import EcgnatError
    from ecgnat_stream.score.report import record_report
    from ecgnat_stream.score.run import batches, monitor

    total_s, done_s = sum(task.length_s for task in tasks), 0.0
    began = time.monotonic()

    def say(seconds: float) -> None:
        if sys.stderr.isatty():
            share = (done_s + seconds) / max(total_s, 1.0)
            left = (time.monotonic() - began) * (1 / max(share, 1e-3) - 1)
            print(f"\r{100 * share:5.1f} % of {total_s / 3600:.1f} h, {left:.0f} s left   ", end="", file=sys.stderr, flush=True)

    for batch in batches(tasks, arguments.at_once, _SHORT_S, _SHORT_FACTOR):
        try:
            found = asyncio.run(monitor(config, batch, say))
        except EcgnatError as error:
            if not work.rows:
                raise
            found = {task.key: str(error) for task in batch}
        done_s += sum(task.length_s for task in batch)
        for key, observed in found.items():
            if isinstance(observed, str):
                work.fail("/".join(key), observed)
                continue
            work.model = observed.model
            work.rows.append(record_report(truths[key], observed))
            if arguments.annotations is not None:
                _annotate(work, arguments.annotations, truths[key], observed)
            observed.events.clear()
            work.seen[key] = (truths[key], observed)
        say(0.0)
        if not sys.stderr.isatty():
            print(f"{len(work.rows)} of {len(tasks)}: {', '.join(task.key[1] for task in batch)}", file=sys.stderr)
    order = {key: i for i, key in enumerate(truths)}
    work.rows.sort(key=lambda row: order[row.database, row.record])


def _annotate(work: _Work, folder: Path, truth: Truth, observed: Observed) -> None:
    from ecgnat_stream.annotate import END, encode, marks_of

    work.write(folder / truth.database / f"{truth.name}.ecg", encode(marks_of(observed.events, truth.fs)) + END)


def _snr_db(arguments: argparse.Namespace) -> float:
    return _SNR_DB if arguments.snr is None else float(arguments.snr)


def _about(arguments: argparse.Namespace, config: Config, work: _Work, took_s: float) -> dict[str, Any]:
    """Return what a reader needs to repeat the measurement."""
    import platform

    import msgspec
    import numpy as np

    from ecgnat_stream import __version__

    return {
        "ecgnat_stream": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "model": work.model,
        "configuration": msgspec.to_builtins(config),
        "split": arguments.split,
        "noise": None if arguments.noise is None else {"record": arguments.noise.name, "snr_db": _snr_db(arguments)},
        "took_s": round(took_s, 1),
    }
