"""The index of many recordings: a table that can be searched, filtered and sorted, with a link to each page."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import NamedTuple
from urllib.parse import quote

from ecgnat_stream.analysis import Summary
from ecgnat_stream.codes import PRIORITIES, RHYTHM_TEXTS
from ecgnat_stream.report.strips import rhythm_colour
from ecgnat_stream.report.style import document
from ecgnat_stream.words import cleaned, counted, length, short_length

__all__ = ["Entry", "index_page"]


class Entry(NamedTuple):
    """One recording: its name, the path of its page from the index ("" without one), and its figures; or why there are none.

    ``notes`` say what a person should know of it.
    """

    name: str
    page: str
    summary: Summary | None = None
    error: str = ""
    notes: tuple[str, ...] = ()


_HEAD = (
    ("recording", ""),
    ("length", "number"),
    ("leads", "number"),
    ("beats", "number"),
    ("bpm", "number"),
    ("lowest", "number"),
    ("highest", "number"),
    ("rhythm", ""),
    ("AF", "number"),
    ("V", "number"),
    ("S", "number"),
    ("pause", "number"),
    ("alarms", ""),
    ("bad", "number"),
)

_SCRIPT = files(__package__).joinpath("index.js").read_text(encoding="utf-8")


_PASSED = 100
"""At most so many files that were passed over are named."""


def index_page(entries: Sequence[Entry], passed: Mapping[str, str] | None = None) -> str:
    """Return the page.

    Parameters
    ----------
    passed
        Files that were passed over, each with the reason.
    """
    known = [(entry, entry.summary) for entry in entries if entry.summary is not None]
    failed = [entry for entry in entries if entry.summary is None]
    total = length(sum(summary.length_s for _, summary in known))
    about = f"{counted(len(known), 'recording')}, {total} of signal"
    if failed:
        about += f"; {len(failed)} could not be analysed"
    header = f'<h1>Recordings</h1><p class="soft small">{about}</p>'
    body = [
        *_filters([summary for _, summary in known]),
        '<div class="card wide"><table id="records"><thead><tr>',
        "".join(f'<th class="{style}"><button type="button">{name}</button></th>' for name, style in _HEAD),
        "</tr></thead><tbody>",
        *(_row(entry, summary) for entry, summary in known),
        "</tbody></table></div>",
        _legend([summary for _, summary in known]),
        *_failures(failed),
        *_passed_over(passed or {}),
        f"<script>{_SCRIPT}</script>",
    ]
    return document("Recordings - ecgnat", header, "\n".join(body))


def _filters(summaries: Sequence[Summary]) -> Iterator[str]:
    rhythms = sorted({label for summary in summaries for label in summary.rhythm_s}, key=list(RHYTHM_TEXTS).index)
    said = sorted({statement for summary in summaries for statement in summary.diagnoses or ()})
    yield '<form class="filters" onsubmit="return false"><label>search'
    yield '<input id="text" type="search" placeholder="name, rhythm, statement"></label>'
    yield _select("rhythm", "rhythm at any time", [(label, RHYTHM_TEXTS[label]) for label in rhythms])
    alarms = [("high", "high"), ("medium", "medium"), ("low", "low"), ("none", "none")]
    yield _select("alarms", "alarms", alarms)
    if said:
        yield _select("said", "12-lead statement", [(statement, statement) for statement in said])
    yield '<span id="count" class="soft small" role="status"></span></form>'


def _select(name: str, label: str, options: Sequence[tuple[str, str]]) -> str:
    choices = "".join(f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in options)
    return f'<label>{label}<select id="{name}"><option value="">all</option>{choices}</select></label>'


def _row(entry: Entry, summary: Summary) -> str:
    rhythm, pause, statements = summary.leading_rhythm, summary.longest_pause, summary.diagnoses or ()
    text = " ".join((entry.name, *(RHYTHM_TEXTS[label] for label in summary.rhythm_s), *summary.rhythm_s, *statements))
    priorities = [priority for priority in reversed(PRIORITIES) if summary.alarms.get(priority)]
    data = {
        "text": cleaned(text, 2000).lower(),
        "rhythms": " ".join(summary.rhythm_s),
        "alarms": " ".join(priorities),
        "said": "\n".join(statements),
    }
    urgent = sum(summary.alarms.get(priority, 0) * 1000**rank for rank, priority in enumerate(PRIORITIES))
    said = f'<div class="soft small">{escape(", ".join(statements))}</div>' if statements else ""
    if entry.notes:
        told = escape(cleaned("; ".join(entry.notes), 2000))
        said += f'<div class="soft small" title="{told}">{counted(len(entry.notes), "note")}</div>'
    name = escape(cleaned(entry.name))
    shown = f'<a href="{escape(_link(entry.page))}">{name}</a>' if entry.page else name
    cells = [
        f'<td class="name" data-v="{name}">{shown}{said}</td>',
        _number(summary.length_s, short_length(summary.length_s)),
        f'<td class="number" data-v="{len(summary.leads)}" title="{escape(", ".join(summary.leads))}">{len(summary.leads)}</td>',
        _number(summary.beats),
        *(
            _number(rate, "" if rate is None else f"{rate:.0f}")
            for rate in (summary.heart_rate_mean_bpm, summary.heart_rate_min_bpm, summary.heart_rate_max_bpm)
        ),
        f'<td class="rhythm" data-v="{_text_of(rhythm)}">{_text_of(rhythm)}{_tally(summary)}</td>',
        _number(summary.af_burden, "" if summary.af_burden is None else f"{summary.af_burden:.0%}"),
        _number(summary.ventricular),
        _number(summary.supraventricular),
        _number(None if pause is None else pause.length, "" if pause is None else f"{pause.length:.2f} s"),
        f'<td data-v="{urgent}">{_alarms(summary)}</td>',
        _number(summary.unusable_share, f"{summary.unusable_share:.0%}"),
    ]
    attributes = " ".join(f'data-{name}="{escape(value)}"' for name, value in data.items())
    return f"<tr {attributes}>{''.join(cells)}</tr>"


def _link(page: str) -> str:
    """Return a relative address: every byte that an address cannot hold is quoted, also a colon, which would be a scheme."""
    return quote(os.fsencode(page), safe="/")


def _number(value: float | None, text: str | None = None) -> str:
    shown = "" if value is None else f"{value}" if text is None else text
    return f'<td class="number" data-v="{"" if value is None else value}">{escape(shown) or "-"}</td>'


def _text_of(rhythm: str | None) -> str:
    return "-" if rhythm is None else escape(RHYTHM_TEXTS[rhythm])


def _shares(summary: Summary) -> list[tuple[str, float]]:
    told_s = sum(summary.rhythm_s.values()) or 1.0
    return [(label, round(seconds / told_s, 4)) for label, seconds in summary.rhythm_s.items()]


def _tally(summary: Summary) -> str:
    parts = "".join(
        f'<i style="width:{100 * share:.1f}%;background:{rhythm_colour(label)}" title="{RHYTHM_TEXTS[label]} {share:.0%}"></i>'
        for label, share in _shares(summary)
    )
    return f'<div class="tally">{parts}</div>'


def _alarms(summary: Summary) -> str:
    parts = [
        f'<span class="{priority}">{summary.alarms[priority]} {priority}</span>'
        for priority in reversed(PRIORITIES)
        if summary.alarms.get(priority)
    ]
    parts += [f'<span class="soft">{summary.technical_alarms} technical</span>'] if summary.technical_alarms else []
    return ", ".join(parts) or '<span class="soft">none</span>'


def _legend(summaries: Sequence[Summary]) -> str:
    labels = sorted({label for summary in summaries for label in summary.rhythm_s}, key=list(RHYTHM_TEXTS).index)
    items = "".join(
        f'<li><i style="background:{rhythm_colour(label)}"></i>{escape(RHYTHM_TEXTS[label])}</li>' for label in labels
    )
    items += "<li>bpm: mean heart rate</li><li>AF: share of the time</li><li>V, S: ventricular, supraventricular beats</li>"
    items += "<li>pause: longest RR interval</li><li>bad: share of unusable signal</li>"
    return f'<ul class="legend">{items}</ul>'


def _failures(failed: Sequence[Entry]) -> Iterator[str]:
    if failed:
        yield "<h2>Could not be analysed</h2><ul class='plain'>"
        yield from (f'<li class="failed"><b>{escape(cleaned(e.name))}</b>: {escape(cleaned(e.error, 1000))}</li>' for e in failed)
        yield "</ul>"


def _passed_over(passed: Mapping[str, str]) -> Iterator[str]:
    if passed:
        yield "<h2>Passed over</h2><ul class='plain'>"
        for path, why in list(passed.items())[:_PASSED]:
            yield f"<li><b>{escape(cleaned(path, 1000))}</b> {escape(cleaned(why, 1000))}</li>"
        if len(passed) > _PASSED:
            yield f"<li>and {counted(len(passed) - _PASSED, 'more file')}</li>"
        yield "</ul>"
