"""The report as one HTML file that needs nothing else: the tables, then strips of the mistakes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from ecgnat_stream.report.strips import DEFINITIONS, draw
from ecgnat_stream.score.mistakes import STRIP_S, Mistake, choose, of_record
from ecgnat_stream.score.report import RecordReport, pairs_of
from ecgnat_stream.score.run import Observed
from ecgnat_stream.score.strips import compared
from ecgnat_stream.score.tables import Sheet, sheets
from ecgnat_stream.score.truth import Truth

__all__ = ["page"]

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c1c1c; max-width: 1200px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 2px solid #ddd; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; font-variant-numeric: tabular-nums; font-size: .9rem; }
caption { text-align: left; font-weight: 600; padding: .4rem 0; }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { background: #f4f6f8; }
figure { margin: 1.2rem 0; page-break-inside: avoid; } figcaption { font-size: .9rem; margin-bottom: .2rem; }
figcaption b { color: #b71c1c; } .strip { width: 100%; height: auto; border: 1px solid #e4e4e4; background: #fff; }
.about { color: #555; font-size: .9rem; } .failed { color: #b71c1c; } .wide { overflow-x: auto; }
"""


def page(
    about: Mapping[str, Any],
    summaries: Mapping[str, dict[str, Any]],
    rows: Sequence[RecordReport],
    seen: Mapping[tuple[str, str], tuple[Truth, Observed]],
    failed: Mapping[str, str],
    limit: int,
) -> str:
    """Return the report.

    Parameters
    ----------
    about
        What was measured: version, model, split, noise.
    rows
        The records' comparisons, see :func:`~ecgnat_stream.score.report.record_report`.
    seen
        Per record what was stated and what was said.
    limit
        At most so many strips.
    """
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>ecgnat score</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body>",
        f'<svg width="0" height="0" style="position:absolute">{DEFINITIONS}</svg>',
        "<h1>How good the monitor is</h1>",
        *_about(about, len(rows), failed),
        *(_table(sheet) for sheet in sheets(summaries)),
        *_strips(rows, seen, limit),
        "</body></html>",
    ]
    return "\n".join(parts)


def _about(about: Mapping[str, Any], records: int, failed: Mapping[str, str]) -> Iterator[str]:
    noise = about["noise"]
    what = [
        f"ecgnat-stream {about['ecgnat_stream']}",
        f"network {about['model']}",
        f"{records} records",
        f"split {about['split']}",
    ]
    if noise is not None:
        what.append(f"noise {noise['record']} at {noise['snr_db']:g} dB")
    yield f'<p class="about">{escape(", ".join(what))}. Intervals are 95 %, by resampling records.</p>'
    if failed:
        rows = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in failed.items())
        yield f'<div class="failed">Records that could not be scored:<ul>{rows}</ul></div>'


def _table(sheet: Sheet) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in sheet.head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in sheet.rows)
    table = f"<table><caption>{escape(sheet.title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _strips(rows: Sequence[RecordReport], seen: Mapping[tuple[str, str], tuple[Truth, Observed]], limit: int) -> Iterator[str]:
    pairs = {key: pairs_of(*both, whole=True) for key, both in seen.items()}
    every: list[Mistake] = []
    for row in rows:
        key = (row.database, row.record)
        every += of_record(row, seen[key][0], pairs_of(*seen[key]))
    chosen = choose(every, limit)
    yield f"<h2>Mistakes</h2><p>{len(chosen)} of {len(every)} strips, 25 mm/s and 10 mm/mV. Above each strip what experts"
    yield "marked, below it what the monitor said; beats that were missed, false or of another class are red.</p>"
    for mistake in chosen:
        truth, observed = seen[mistake.key]
        name = escape("/".join(mistake.key))
        place = f"{int(mistake.start_s) // 60}:{int(mistake.start_s) % 60:02d}"
        yield f"<figure><figcaption>{name} at {place}: <b>{escape(mistake.what)}</b></figcaption>"
        try:
            yield draw(compared(mistake.start_s, mistake.start_s + STRIP_S, truth, observed, pairs[mistake.key]))
        except ValueError as error:
            yield f'<p class="failed">{escape(str(error))}</p>'
        yield "</figure>"
