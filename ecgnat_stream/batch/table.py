"""The figures of recordings, one row each: as CSV for programs, as tables for a terminal."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ecgnat_stream.analysis import Summary
from ecgnat_stream.batch.work import Result
from ecgnat_stream.codes import PRIORITIES
from ecgnat_stream.words import cell, cleaned, short_length

__all__ = ["COLUMNS", "EXPLAINED", "PIPE_WIDTH", "as_csv", "as_tables"]

EXPLAINED = "bpm: lowest/mean/highest. alarms: high/medium/low. bad: share of unusable signal."
"""What the columns of the terminal's table mean."""

PIPE_WIDTH = 160
"""Width of tables that do not go to a terminal."""

_RIGHT = ("length", "leads", "beats", "AF", "V", "S", "pause", "bad")
_BROKEN = {"record": 8, "12-lead statements": 20}
"""Columns that may take several lines, and the width that they keep."""

COLUMNS = (
    "name",
    "path",
    "length_s",
    "leads",
    "model",
    "beats",
    "heart_rate_min_bpm",
    "heart_rate_mean_bpm",
    "heart_rate_max_bpm",
    "leading_rhythm",
    "af_burden",
    "af_s",
    "ventricular",
    "ventricular_per_hour",
    "supraventricular",
    "supraventricular_per_hour",
    "without_class",
    "couplets",
    "runs",
    "longest_run_beats",
    "longest_run_at_s",
    "longest_pause_s",
    "longest_pause_at_s",
    "alarms_high",
    "alarms_medium",
    "alarms_low",
    "technical_alarms",
    "unusable_share",
    "diagnoses",
    "notes",
    "error",
)
"""Names of the columns; docs/analyse.md says what each holds."""


def as_csv(results: Iterable[Result]) -> bytes:
    """Return the table in UTF-8, with a header; what has no value is empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for result in results:
        known = {"name": result.recording.name, "path": result.recording.path, "error": result.error}
        known["notes"] = " | ".join(result.notes)
        figures = (_figures(result.summary) if result.summary is not None else {}) | known
        writer.writerow({name: cell(value) for name, value in figures.items()})
    return os.fsencode(text.getvalue()).decode("utf-8", "replace").encode()


def _figures(summary: Summary) -> dict[str, object]:
    run, pause = summary.longest_run, summary.longest_pause
    figures: dict[str, object] = {name: getattr(summary, name) for name in COLUMNS if hasattr(summary, name)}
    return figures | {
        "leads": " ".join(summary.leads),
        "longest_run_beats": None if run is None else round(run.length),
        "longest_run_at_s": None if run is None else round(run.at_s, 2),
        "longest_pause_s": None if pause is None else pause.length,
        "longest_pause_at_s": None if pause is None else pause.at_s,
        **{f"alarms_{priority}": summary.alarms.get(priority, 0) for priority in ("high", "medium", "low")},
        "unusable_share": round(summary.unusable_share, 4),
        "diagnoses": None if summary.diagnoses is None else ";".join(summary.diagnoses),
    }


def as_tables(results: Sequence[Result]) -> Iterator[Table]:
    """Yield what a person sees: the figures of every recording, and below them what was said of 12 leads."""
    known = [(result.recording.name, result.summary) for result in results if result.summary is not None]
    if known:
        table = _table("record", "length", "leads", "beats", "bpm", "rhythm", "AF", "V", "S", "pause", "alarms", "bad")
        for name, summary in known:
            table.add_row(cleaned(name), *_cells(summary), style=_style(summary))
        yield table
    stated = [(name, summary.diagnoses) for name, summary in known if summary.diagnoses]
    if stated:
        table = _table("record", "12-lead statements")
        for name, statements in stated:
            table.add_row(cleaned(name), ", ".join(statements))
        yield table


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, padding=0)
    for column in columns:
        width = _BROKEN.get(column)
        justify: Literal["left", "right"] = "right" if column in _RIGHT else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=width is None, min_width=width)
    return table


def _cells(summary: Summary) -> tuple[str, ...]:
    rates = (summary.heart_rate_min_bpm, summary.heart_rate_mean_bpm, summary.heart_rate_max_bpm)
    pause = summary.longest_pause
    return (
        short_length(summary.length_s),
        str(len(summary.leads)),
        str(summary.beats),
        "-" if None in rates else "/".join(f"{rate:.0f}" for rate in rates if rate is not None),
        summary.leading_rhythm or "-",
        "-" if summary.af_burden is None else f"{summary.af_burden:.0%}",
        str(summary.ventricular),
        str(summary.supraventricular),
        "-" if pause is None else f"{pause.length:.1f} s",
        "/".join(str(summary.alarms.get(priority, 0)) for priority in reversed(PRIORITIES)),
        f"{summary.unusable_share:.0%}",
    )


def _style(summary: Summary) -> str:
    return "bold red" if summary.alarms.get("high") else "yellow" if summary.alarms.get("medium") else ""
