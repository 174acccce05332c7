"""The figures as tables on a terminal, and the same rows for the HTML report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ["Sheet", "as_text", "sheets"]

_NAMES = {"QRS": "QRS", "V": "VEB", "S": "SVEB"}


class Sheet(NamedTuple):
    """A table: what it shows, its head, its rows of text."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


def sheets(summaries: Mapping[str, dict[str, Any]]) -> Iterator[Sheet]:
    """Yield the tables of all databases.

    Parameters
    ----------
    summaries
        Per database what :func:`~ecgnat_stream.score.report.summarise` gives.
    """
    for make in (_beats, _episodes, _found, _false, _challenge):
        for name, summary in summaries.items():
            yield from make(name, summary)


def as_text(sheet: Sheet) -> str:
    """Return a table in columns of equal width."""
    lines = [sheet.head, *sheet.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(sheet.head))]
    text = ["  ".join(_padded(line, widths)) for line in lines]
    return "\n".join([sheet.title, text[0], "-" * len(text[0]), *text[1:]]) + "\n"


def _padded(line: tuple[str, ...], widths: list[int]) -> Iterator[str]:
    yield line[0].ljust(widths[0])
    yield from (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))


def percent(value: float | None) -> str:
    """Return a share as per cent."""
    return "-" if value is None else f"{100 * value:.2f}"


def interval(figure: Mapping[str, float | None], scale: float = 100.0, digits: int = 2) -> str:
    """Return a figure with its 95 % interval."""
    value, low, high = (figure[key] for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "-"
    return f"{value * scale:.{digits}f} ({low * scale:.{digits}f} to {high * scale:.{digits}f})"


def seconds(value: float | None) -> str:
    """Return a time in s."""
    return "-" if value is None else f"{value:.1f}"


def _beats(name: str, summary: Mapping[str, Any]) -> Iterator[Sheet]:
    if "beats" not in summary:
        return
    rows: list[tuple[str, ...]] = []
    for kind, said in _NAMES.items():
        if kind not in summary["beats"]:
            continue
        one = summary["beats"][kind]
        row = (
            said,
            str(one["tp"] + one["fn"]),
            str(one["fn"]),
            str(one["fp"]),
            interval(one["sensitivity"]),
            interval(one["ppv"]),
        )
        rows.append((*row, interval(one["f1"]), percent(one["average_sensitivity"]), percent(one["average_ppv"])))
    yield Sheet(
        f"{name}: beats (EC57, 150 ms)",
        ("", "beats", "missed", "false", "Se %", "+P %", "F1 %", "average Se", "average +P"),
        rows,
    )


def _episodes(name: str, summary: Mapping[str, Any]) -> Iterator[Sheet]:
    rows: list[tuple[str, ...]] = []
    for label, by in summary.get("episodes", {}).items():
        for what, one in by.items():
            if not one["stated"] and not one["said"]:
                continue
            row = (
                f"{label} by {what}",
                f"{one['stated']:.0f}",
                f"{one['said']:.0f}",
                percent(one["episode_sensitivity"]["value"]),
                percent(one["episode_ppv"]["value"]),
                f"{one['stated_s']:.0f}",
                f"{one['said_s']:.0f}",
            )
            rows.append((*row, interval(one["duration_sensitivity"]), interval(one["duration_ppv"])))
    head = ("", "stated", "said", "Se %", "+P %", "stated s", "said s", "duration Se %", "duration +P %")
    if rows:
        yield Sheet(f"{name}: episodes (EC57)", head, rows)


def _found(name: str, summary: Mapping[str, Any]) -> Iterator[Sheet]:
    rows: list[tuple[str, ...]] = []
    for condition, one in summary.get("alarms", {}).get("conditions", {}).items():
        if not one["episodes"]:
            continue
        after = one["after_s"]
        row: tuple[str, ...] = (
            condition,
            str(one["episodes"]),
            str(one["within_10_s"]),
            str(one["any_high_within_10_s"]),
            str(one["missed"]),
            interval(one["sensitivity_10_s"], digits=1),
        )
        rows.append((*row, seconds(after["median"]), seconds(after["p95"]), seconds(after["worst"])))
    head = ("", "episodes", "in 10 s", "any high in 10 s", "missed", "in 10 s %", "median s", "95th s", "worst s")
    if rows:
        yield Sheet(f"{name}: time to alarm", head, rows)


def _false(name: str, summary: Mapping[str, Any]) -> Iterator[Sheet]:
    if "alarms" not in summary:
        return
    alarms = summary["alarms"]
    rows: list[tuple[str, ...]] = []
    for condition, one in alarms["conditions"].items():
        if not one["alarms"] or one.get("technical"):
            continue
        counts = tuple(str(one.get(key, 0)) for key in ("alarms", "true", "unjudged"))
        false = str(one["false"] + one.get("other", 0))
        rows.append((condition, *counts, false, *_false_alarms(one)))
    for priority, one in alarms["priorities"].items():
        rows.append((f"all of {priority} priority", str(one["alarms"]), "", "", str(one["false"]), *_false_alarms(one)))
    head = ("", "alarms", "true", "not judged", "false", "false per bed-day", "alarm s", "false s")
    yield Sheet(f"{name}: false alarms in {24 * alarms['bed_days']:.1f} h", head, rows)


def _false_alarms(one: Mapping[str, Any]) -> tuple[str, ...]:
    return interval(one["false_per_bed_day"], 1.0, 1), f"{one['seconds']:.0f}", f"{one['false_seconds']:.0f}"


def _challenge(name: str, summary: Mapping[str, Any]) -> Iterator[Sheet]:
    rows: list[tuple[str, ...]] = []
    for alarm, one in summary.get("challenge", {}).items():
        figures = (percent(one["sensitivity"]), percent(one["specificity"]), percent(one["score"]))
        rows.append((alarm, str(one["records"]), *(str(one[key]) for key in ("tp", "fn", "tn", "fp")), *figures))
    if rows:
        yield Sheet(f"{name}: Challenge 2015", ("", "records", "TP", "FN", "TN", "FP", "TPR %", "TNR %", "score"), rows)
