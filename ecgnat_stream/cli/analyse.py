"""``ecgnat analyse``: recordings, whole folders of them, through the monitor: a table, files and pages of what was found."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ecgnat_stream.cli.options import (
    a_path,
    add_mode,
    add_model,
    add_reading,
    check_part,
    lead_map,
    model_table,
    stated_differently,
)
from ecgnat_stream.errors import ConfigError, EcgnatError
from ecgnat_stream.suggest import proposal
from ecgnat_stream.words import cleaned, counted

if TYPE_CHECKING:
    from ecgnat_stream.batch.choose import Chosen, RecordingFile
    from ecgnat_stream.batch.lines import Lines
    from ecgnat_stream.batch.work import Order, Result

__all__ = ["add"]

_MOST_JOBS = 8
"""Without --jobs: more processes than this are seldom worth their memory, about 0.5 GB each."""

_SHOWN = 5
"""At most so many files that were passed over are named."""

_SIGNALS = 12
"""At most so many signals are named, where another one is not there."""


def add(commands: Any) -> None:
    """Add ``ecgnat analyse`` to the parser."""
    parser = commands.add_parser(
        "analyse",
        help="analyse recordings or folders of them: table, CSV, JSON, HTML",
        description="Put recordings (WFDB, EDF, BDF, CSV, NPY and others) through the whole monitor, and tell what was found in "
        "each. Folders are searched with all folders below them. docs/analyse.md defines every column.",
        epilog="""examples:
  ecgnat analyse mitdb                                    a table of all records in a folder
  ecgnat analyse 'study/**/*.edf' --html report           a page for each, and an index: open report/index.html
  ecgnat analyse holter --json all.jsonl --html report --resume     begin, or go on where it was ended
  ecgnat analyse lab/*.csv --fs 500 --units uV --lead A=II --csv figures.csv""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a record, a file, a folder, or a pattern in quotes")
    add_reading(parser)
    add_model(parser)
    add_mode(parser)
    parser.add_argument(
        "--config", type=a_path, metavar="FILE", help="settings, as for ecgnat run; its beds and sinks are left out"
    )
    parser.add_argument(
        "--diagnose",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="ask the 12-lead network for diagnostic statements (default: where 12 leads are there and it is installed)",
    )
    parser.add_argument("--csv", type=a_path, metavar="FILE", help="write the figures, one row a recording")
    parser.add_argument("--json", type=a_path, metavar="FILE", help="write everything, one JSON object a line and recording")
    parser.add_argument("--html", type=a_path, metavar="DIR", help="write a page for each recording, and index.html")
    parser.add_argument("--annotations", type=a_path, metavar="DIR", help="write what was said as WFDB annotations (.ecg)")
    parser.add_argument("--plot", type=a_path, metavar="DIR", help="write a picture (PNG) of each recording; needs matplotlib")
    parser.add_argument("--jobs", type=_jobs, metavar="N", help=f"processes (default: one for each core, at most {_MOST_JOBS})")
    parser.add_argument("--resume", action="store_true", help="keep what the file of --json holds already, and do the rest")
    parser.set_defaults(command=_analyse)


def _jobs(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _analyse(arguments: argparse.Namespace) -> int:
    """Analyse; return 0, 1 if a recording failed or a result could not be written, or 128 and the number of the signal that came.

    Raises
    ------
    ConfigError
        If there is nothing to analyse, for options that do not fit, and for a place that cannot be written.
    """
    from ecgnat_stream.batch.choose import choose
    from ecgnat_stream.batch.progress import Searching
    from ecgnat_stream.batch.targets import check_targets

    began = time.monotonic()
    _check(arguments)
    chosen = choose(arguments.paths, Searching(sys.stderr))
    _tell_passed(chosen)
    if not chosen.recordings:
        raise ConfigError(_nothing(arguments.paths, chosen))
    several = len(chosen.recordings) > 1
    if several and (note := stated_differently(arguments)):
        _say(note)
    order = _order(arguments, strict=not several)
    check_targets(order, chosen.recordings, [path for path in (arguments.csv, arguments.json) if path is not None])
    found: dict[str, Result] = {}
    ended = 0
    try:
        with _ended_by_signals():
            _run(arguments, order, chosen, found)
    except _EndedError as error:
        ended = error.number
    results = [found[recording.path] for recording in chosen.recordings if recording.path in found]
    unwritten = list(_write(arguments, order, results, chosen))
    for text in unwritten:
        _say(text)
    unwritten += [text for result in results for text in result.unwritten]
    _show(results)
    unknown = _tell_unknown(order.lead_map, results)
    _tell_end(results, chosen, time.monotonic() - began, ended, len(unwritten))
    if ended:
        return 128 + ended
    return 1 if chosen.missing or unwritten or unknown or any(result.error for result in results) else 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.resume and arguments.json is None:
        raise ConfigError("--resume needs --json FILE: what is finished is kept there")
    check_part(arguments)
    if arguments.plot is not None and find_spec("matplotlib") is None:
        raise ConfigError("--plot needs matplotlib, which is not installed: pip install matplotlib; --html does without it")


def _order(arguments: argparse.Namespace, *, strict: bool) -> Order:
    from msgspec.structs import replace

    from ecgnat_stream.batch.work import Order
    from ecgnat_stream.config import Config, load_config

    config = Config() if arguments.config is None else load_config(arguments.config)
    if model := model_table(arguments):
        config = replace(config, model=replace(config.model, **model))
    return Order(
        fs=arguments.fs,
        units=arguments.units,
        scale=arguments.scale,
        strict=strict,
        leads=arguments.leads,
        lead_map=lead_map(arguments.lead),
        start_s=arguments.start,
        stop_s=arguments.stop,
        diagnose=arguments.diagnose,
        config=replace(config, bed=(), mqtt=None, zmq=None, record=None, history=None),
        json=arguments.json is not None,
        html=arguments.html,
        annotations=arguments.annotations,
        plots=arguments.plot,
    )


def _run(arguments: argparse.Namespace, order: Order, chosen: Chosen, found: dict[str, Result]) -> None:
    """Analyse what is not finished; results go into ``found`` as they come, by path."""
    from ecgnat_stream.batch.lines import Lines
    from ecgnat_stream.batch.pool import Pool, Share, work_here
    from ecgnat_stream.batch.progress import Progress

    with ExitStack() as stack:
        lines = None
        if arguments.json is not None:
            lines = stack.enter_context(Lines(arguments.json, order, chosen.recordings, resume=arguments.resume))
            found.update({result.recording.path: result for result in lines.finished})
        if found:
            _say(f"{len(found)} of {len(chosen.recordings)} are finished already")
        left = [recording for recording in chosen.recordings if recording.path not in found]
        jobs = max(1, min(arguments.jobs or min(_cores(), _MOST_JOBS), len(left)))
        pool = stack.enter_context(Pool(order, jobs))
        progress = stack.enter_context(Progress(left, sys.stderr))
        for step in work_here(order, left[0], partial(progress.tell, left)) if len(left) == 1 else pool.run(left):
            if isinstance(step, Share):
                progress.tell(step.batch, step.share)
                continue
            result = step if lines is None else _put_down(lines, step)
            found[result.recording.path] = result
            for text in (result.error, *result.notes, *result.unwritten):
                if text:
                    progress.say(f"ecgnat: {_about(result.recording, text)}")
            progress.finish(result.recording)


def _put_down(lines: Lines, result: Result) -> Result:
    """Write a result as a line; one that cannot be written keeps no other result from being made."""
    from msgspec.structs import replace

    try:
        lines.write(result)
    except EcgnatError as error:
        return replace(result, unwritten=(*result.unwritten, str(error)))
    return result


def _about(recording: RecordingFile, text: str) -> str:
    """Put the name of a recording before what is said of it, once, and in place of its path."""
    path = Path(recording.path)
    for said in (f"{path}: ", f"{path.with_suffix('')}: ", f"{path.stem}: "):
        text = text.removeprefix(said)
    return cleaned(f"{recording.name}: {text}", 1000)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _EndedError(KeyboardInterrupt):
    """A signal asked for the end. What lets Ctrl-C through lets it through."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """End what runs within with an :class:`_EndedError` on Ctrl-C, SIGTERM and SIGHUP; a second one ends the program."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}

    def end(number: int, frame: FrameType | None) -> None:
        restore()
        raise _EndedError(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        restore()


def _write(arguments: argparse.Namespace, order: Order, results: Sequence[Result], chosen: Chosen) -> Iterator[str]:
    """Write what holds all recordings; yield what could not be written."""
    from ecgnat_stream.batch.work import write_whole

    whole: dict[Path, bytes] = {}
    if arguments.csv is not None:
        from ecgnat_stream.batch.table import as_csv

        whole[arguments.csv] = as_csv(results)
    if order.html is not None:
        whole[order.html / "index.html"] = _index(order.html, results, chosen)
    for path, content in whole.items():
        try:
            write_whole(path, content)
        except EcgnatError as error:
            yield str(error)


def _index(folder: Path, results: Sequence[Result], chosen: Chosen) -> bytes:
    from ecgnat_stream.batch.work import page_of
    from ecgnat_stream.report.index import Entry, index_page

    pages = {result.recording.name: page_of(result.recording.name) for result in results}
    written = {name: page if (folder / page).is_file() else "" for name, page in pages.items()}
    entries = [Entry(r.recording.name, written[r.recording.name], r.summary, r.error, r.notes) for r in results]
    entries += [Entry(what, "", None, why) for what, why in chosen.missing.items()]
    return index_page(entries, chosen.passed).encode("utf-8", "replace")


def _show(results: Sequence[Result]) -> None:
    from rich.console import Console

    from ecgnat_stream.batch.table import EXPLAINED, PIPE_WIDTH, as_tables

    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, markup=False, highlight=False)
    for table in as_tables(results):
        console.print(table)
    if any(result.summary is not None for result in results):
        _say(EXPLAINED)


def _say(text: str) -> None:
    print(f"ecgnat: {cleaned(text, 1000)}", file=sys.stderr)


def _tell_passed(chosen: Chosen) -> None:
    for what, why in chosen.missing.items():
        _say(f"{what}: {why}")
    passed = list(chosen.passed.items())
    for path, why in passed[:_SHOWN]:
        _say(f"passed over: {path} {why}")
    if len(passed) > _SHOWN:
        _say(f"passed over: {counted(len(passed) - _SHOWN, 'more file')} (the index of --html names them)")


def _nothing(paths: Sequence[str], chosen: Chosen) -> str:
    if chosen.missing:
        return "nothing to analyse: no path that was given leads to a recording"
    return f"nothing to analyse: no recording (.hea, .edf, .bdf, .csv, .tsv, .txt, .npy) in {', '.join(paths)}"


def _tell_unknown(names: Iterable[str], results: Sequence[Result]) -> bool:
    """Say which signals of ``--lead`` no recording has, and whether; nothing is known of recordings that could not be read."""
    told = False
    signals = list(dict.fromkeys(signal for result in results for signal in result.signals))
    for name in names:
        if signals and name not in signals:
            told = True
            _say(f"--lead {name}=...: no recording has an ECG signal {name!r}{proposal(name, signals) or _there_are(signals)}")
    return told


def _there_are(signals: Sequence[str]) -> str:
    more = len(signals) - _SIGNALS
    return f": there are {', '.join(signals[:_SIGNALS])}{f' and {more} more' if more > 0 else ''}"


def _tell_end(results: Sequence[Result], chosen: Chosen, took_s: float, ended: int, unwritten: int) -> None:
    failed = sum(bool(result.error) for result in results)
    text = f"{len(results) - failed} of {len(chosen.recordings) + len(chosen.missing)} recordings analysed in {took_s:.0f} s"
    if failed + len(chosen.missing):
        text += f", {failed + len(chosen.missing)} could not be"
    if unwritten:
        text += f"; {counted(unwritten, 'result')} could not be written"
    if ended:
        text += f"; ended by {signal.Signals(ended).name}, what was finished is written"
    _say(text)
