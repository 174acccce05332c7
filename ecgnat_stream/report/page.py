"""The page of one recording: its figures, its course, and strips on ECG paper of what was found."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from html import escape

import numpy as np

from ecgnat_stream.analysis import Analysis, Summary
from ecgnat_stream.analysis.excerpts import Excerpt, Remark, find_excerpts
from ecgnat_stream.codes import PRIORITIES, RHYTHM_TEXTS
from ecgnat_stream.report.course import BEAT_COLOURS, draw_course
from ecgnat_stream.report.strips import DEFINITIONS, PRIORITY_COLOURS, Bar, Letter, Row, Strip, draw, rhythm_colour
from ecgnat_stream.report.style import document
from ecgnat_stream.signal import MONITORED_FIRST
from ecgnat_stream.words import cleaned, clock, length, short_length

__all__ = ["record_page"]

_LEADS_OF_STRIP = 2
_MOST_STRIPS = 40
_ROWS = 200
"""Rows of a table of stretches or alarms; CSV and JSON hold all."""


def record_page(analysis: Analysis, name: str, file: str) -> str:
    """Return the page.

    Parameters
    ----------
    name
        Place below the folder of all recordings; as many folders up is the index.
    file
        What was read.
    """
    summary = analysis.summary()
    excerpts, left = find_excerpts(analysis, _MOST_STRIPS)
    up = "../" * (name.count(os.sep) + 1)
    title = cleaned(os.path.basename(name))
    leads = ", ".join(summary.leads) or "none"
    about = f"{cleaned(file)}, {length(analysis.length_s)} at {analysis.fs:g} Hz, leads {leads}, network {analysis.model}"
    header = (
        f'<p class="noprint small"><a href="{up}index.html">&larr; all recordings</a></p>'
        f'<h1>{escape(title)}</h1><p class="soft small">{escape(about)}</p>'
    )
    body = [
        f'<svg width="0" height="0" style="position:absolute" aria-hidden="true">{DEFINITIONS}</svg>',
        *_notes(analysis.notes),
        _figures(summary),
        *_diagnoses(analysis),
        "<h2>The whole recording</h2>",
        f'<div class="card">{draw_course(analysis, excerpts)}{_legend(analysis)}</div>',
        *_strips(analysis, excerpts, left),
        *_rhythm_table(analysis),
        *_alarm_table(analysis, excerpts),
    ]
    return document(f"{title} - ecgnat", header, "\n".join(body))


def _notes(notes: Sequence[str]) -> Iterator[str]:
    if notes:
        yield f'<ul class="notice notes">{"".join(f"<li>{escape(cleaned(note, 1000))}</li>" for note in notes)}</ul>'


def _figures(summary: Summary) -> str:
    rates = (summary.heart_rate_min_bpm, summary.heart_rate_max_bpm)
    run, pause = summary.longest_run, summary.longest_pause
    leading = summary.leading_rhythm
    told_s = sum(summary.rhythm_s.values())
    rows: list[tuple[str, str, str]] = [
        (
            "heart rate",
            "-" if summary.heart_rate_mean_bpm is None else f"{summary.heart_rate_mean_bpm:.0f} bpm",
            "" if None in rates else f"lowest {rates[0]:.0f}, highest {rates[1]:.0f}",
        ),
        (
            "leading rhythm",
            "-" if leading is None else RHYTHM_TEXTS[leading],
            "" if leading is None else f"{summary.rhythm_s[leading] / told_s:.0%} of the time",
        ),
        (
            "AF burden",
            "-" if summary.af_burden is None else f"{summary.af_burden:.0%}",
            length(summary.af_s) if summary.af_s else "",
        ),
        ("ventricular beats", str(summary.ventricular), _extra(summary.ventricular_per_hour, summary)),
        (
            "longest run",
            "none" if run is None else f"{run.length:.0f} beats",
            "" if run is None else f"at {clock(run.at_s)}",
        ),
        ("supraventricular beats", str(summary.supraventricular), _hourly(summary.supraventricular_per_hour)),
        (
            "longest pause",
            "-" if pause is None else f"{pause.length:.2f} s",
            "" if pause is None else f"at {clock(pause.at_s)}",
        ),
        ("alarms", *_alarm_figure(summary)),
        ("unusable signal", f"{summary.unusable_share:.0%}", length(summary.unusable_s) if summary.unusable_s else ""),
        (
            "beats",
            f"{summary.beats:,}".replace(",", " "),
            f"{summary.without_class} without a class" if summary.without_class else "",
        ),
    ]
    cards = "".join(
        f'<div class="card"><dt>{name}</dt><dd>{escape(value)}</dd>{f"<dd>{escape(more)}</dd>" if more else ""}</div>'
        for name, value, more in rows
    )
    return f'<dl class="figures">{cards}</dl>'


def _hourly(per_hour: float | None) -> str:
    return "" if per_hour is None else f"{per_hour:g} per hour"


def _extra(per_hour: float | None, summary: Summary) -> str:
    parts = [_hourly(per_hour)] if per_hour is not None else []
    parts += [f"{summary.couplets} couplet{'s' if summary.couplets > 1 else ''}"] if summary.couplets else []
    parts += [f"{summary.runs} run{'s' if summary.runs > 1 else ''}"] if summary.runs else []
    return ", ".join(parts)


def _alarm_figure(summary: Summary) -> tuple[str, str]:
    total = sum(summary.alarms.values())
    parts = [f"{summary.alarms[priority]} {priority}" for priority in reversed(PRIORITIES) if summary.alarms.get(priority)]
    parts += [f"{summary.technical_alarms} technical"] if summary.technical_alarms else []
    return str(total) if total else "none", ", ".join(parts)


def _diagnoses(analysis: Analysis) -> Iterator[str]:
    rows = sorted(analysis.diagnoses, key=lambda row: (not row["made"], -float(row["probability"])))
    made = [row for row in rows if row["made"]]
    if not rows:
        return
    yield "<h2>12-lead statements</h2>"
    if not made:
        yield '<p class="soft">None reaches its threshold.</p>'
    cells = "".join(
        f"<tr><td><b>{escape(str(row['text']))}</b></td><td>{escape(str(row['statement']))}</td>"
        f'<td class="number">{float(row["probability"]):.0%}</td></tr>'
        for row in made
    )
    if made:
        yield '<div class="card wide"><table><thead><tr><th>statement</th><th>code</th><th class="number">probability</th></tr>'
        yield f"</thead><tbody>{cells}</tbody></table></div>"


def _legend(analysis: Analysis) -> str:
    labels = dict.fromkeys(analysis.rhythm["label"].tolist())
    items = [(rhythm_colour(label), RHYTHM_TEXTS.get(label, label)) for label in labels]
    classes = {"N": "normal beat", "S": "supraventricular", "V": "ventricular", "F": "fusion", "Q": "paced or without a class"}
    known = set(analysis.beats["label"].tolist())
    dots = [(BEAT_COLOURS[label], text) for label, text in classes.items() if label in known]
    squares = "".join(f'<li><i style="background:{colour}"></i>{escape(text)}</li>' for colour, text in items)
    round_ = "".join(f'<li><i style="background:{colour};border-radius:50%"></i>{escape(text)}</li>' for colour, text in dots)
    return f'<ul class="legend">{squares}{round_}<li>&#9660; a strip below</li></ul>'


def _strips(analysis: Analysis, excerpts: Sequence[Excerpt], left: Counter[str]) -> Iterator[str]:
    yield '<h2>Strips</h2><p class="soft small">25 mm/s, 10 mm/mV. Below each strip: beats (S, V and F are red), rhythm, alarms.'
    yield "An alarm comes when its condition has been seen for long enough, so its cause lies before it.</p>"
    if left:
        more = ", ".join(f"{number} of {kind.replace('-', ' ')}" for kind, number in left.most_common())
        yield f'<p class="soft small">Not drawn, since a page holds {len(excerpts)} strips: {escape(more)}.</p>'
    for number, excerpt in enumerate(excerpts, 1):
        whole = any(remark.kind == "beginning" for remark in excerpt.remarks)
        caption = "; ".join(_caption(remark) for remark in excerpt.remarks)
        yield f'<figure id="strip-{number}"><figcaption><b>{clock(excerpt.start_s)}</b> &nbsp;{caption}</figcaption>'
        yield draw(_strip(analysis, excerpt, whole=whole))
        yield "</figure>"


def _caption(remark: Remark) -> str:
    style = PRIORITIES[remark.urgency - 1] if remark.urgency > 0 else "soft" if remark.urgency < 0 else ""
    return f'<span class="{style}">{escape(remark.text)}</span>'


def _strip(analysis: Analysis, excerpt: Excerpt, *, whole: bool) -> Strip:
    start, stop = (
        min(round(at_s * analysis.fs), round(analysis.length_s * analysis.fs)) for at_s in (excerpt.start_s, excerpt.stop_s)
    )
    samples = analysis.read(start, stop)
    rows = _all_rows(analysis) if whole else _best_rows(analysis, excerpt)
    names = tuple(_lead_name(analysis, row) for row in rows)
    beats = analysis.beats[(analysis.beats["sample"] >= start) & (analysis.beats["sample"] < stop)]
    letters = [Letter(float(beat["time_s"]), str(beat["label"]), beat["label"] in ("S", "V", "F")) for beat in beats]
    rhythm = [
        Bar(float(span["start_s"]), float(span["stop_s"]), str(span["label"]), rhythm_colour(str(span["label"])))
        for span in analysis.rhythm
        if span["start_s"] < excerpt.stop_s and span["stop_s"] > excerpt.start_s
    ]
    below = [Row("beats", letters=letters), Row("rhythm", rhythm), *_alarm_rows(analysis, excerpt)]
    return Strip(names, samples[rows], analysis.fs, excerpt.start_s, (), below)


def _lead_name(analysis: Analysis, row: int) -> str:
    used = analysis.used_as[row]
    return analysis.leads[row] if used is None else used


def _all_rows(analysis: Analysis) -> list[int]:
    """Return the rows of the leads that are used, in the order of the recording."""
    return [row for row, lead in enumerate(analysis.used_as) if lead is not None]


def _best_rows(analysis: Analysis, excerpt: Excerpt) -> list[int]:
    """Return the rows of two leads: the best one of that time, and the next of the usual monitoring leads."""
    rows = {lead: row for row, lead in enumerate(analysis.used_as) if lead is not None}
    seconds = (analysis.quality["at_s"] > excerpt.start_s) & (analysis.quality["at_s"] <= excerpt.stop_s)
    best = Counter(lead for lead in analysis.quality["best_lead"][seconds].tolist() if lead in rows).most_common(1)
    order = [best[0][0]] if best else []
    order += [lead for lead in MONITORED_FIRST if lead in rows and lead not in order]
    return [rows[lead] for lead in order[:_LEADS_OF_STRIP]]


def _alarm_rows(analysis: Analysis, excerpt: Excerpt) -> list[Row]:
    rows: dict[str, list[Bar]] = {}
    for alarm in analysis.alarms:
        if alarm["start_s"] < excerpt.stop_s and alarm["stop_s"] > excerpt.start_s:
            colour = PRIORITY_COLOURS[str(alarm["priority"])]  # type: ignore[index]
            condition = str(alarm["condition"])
            bar = Bar(float(alarm["start_s"]), float(alarm["stop_s"]), condition.replace("-", " "), colour)
            rows.setdefault(condition, []).append(bar)
    return [Row("" if i else "alarms", bars) for i, bars in enumerate(rows.values())]


def _rhythm_table(analysis: Analysis) -> Iterator[str]:
    rows = [
        (
            clock(float(span["start_s"])),
            short_length(float(span["stop_s"] - span["start_s"])),
            RHYTHM_TEXTS.get(str(span["label"]), str(span["label"])),
            "" if np.isnan(span["probability"]) else f"{float(span['probability']):.0%}",
        )
        for span in analysis.rhythm
    ]
    yield from _table("Rhythm", ("from", "for", "rhythm", "probability"), rows, opened=len(rows) <= 20)


def _alarm_table(analysis: Analysis, excerpts: Sequence[Excerpt]) -> Iterator[str]:
    rows = [
        (
            clock(float(alarm["start_s"])),
            short_length(float(alarm["stop_s"] - alarm["start_s"])),
            f"{str(alarm['condition']).replace('-', ' ')} {alarm['lead']}".strip(),
            f"{alarm['priority']}{'' if alarm['kind'] == 'physiological' else ', technical'}",
        )
        for alarm in analysis.alarms
    ]
    yield from _table("Alarms", ("from", "for", "condition", "priority"), rows, opened=len(rows) <= 20)


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, opened: bool) -> Iterator[str]:
    if not rows:
        return
    yield f"<h2>{title}</h2><details{' open' if opened else ''}><summary>{len(rows)} rows</summary>"
    yield f'<div class="card wide"><table><thead><tr>{_cells("th", head)}</tr></thead><tbody>'
    yield "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows[:_ROWS])
    yield "</tbody></table></div>"
    if len(rows) > _ROWS:
        yield f'<p class="soft small">{len(rows) - _ROWS} more are in the JSON.</p>'
    yield "</details>"


def _cells(tag: str, cells: Iterable[str]) -> str:
    return "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells)
