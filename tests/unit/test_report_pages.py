"""Pages of recordings: well formed, escaped, complete without anything else, with a strip for what was found."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from msgspec.structs import replace as changed

from ecgnat_stream.analysis import Analysis, analyse
from ecgnat_stream.analysis.excerpts import find_excerpts
from ecgnat_stream.report.course import draw_course
from ecgnat_stream.report.index import Entry, index_page
from ecgnat_stream.report.page import record_page

FS = 200.0


def heart(seconds: float, pause: tuple[float, float] = (0.0, 0.0)) -> np.ndarray[Any, Any]:
    """Return two leads with a QRS complex every 0.8 s but in a pause."""
    beats = np.arange(0.6, seconds - 0.4, 0.8)
    beats = beats[(beats <= pause[0]) | (beats >= pause[1])]
    at_s = np.arange(round(seconds * FS)) / FS
    apart = at_s[:, None] - beats
    lead = (1.2 * np.exp(-((apart / 0.014) ** 2)) + 0.3 * np.exp(-(((apart - 0.25) / 0.05) ** 2))).sum(axis=1)
    noise = np.random.default_rng(0).normal(0, 0.008, (2, len(at_s)))
    return lead * np.array([[1.0], [0.7]]) + noise


@pytest.fixture(scope="module")
def paused(untrained: Path) -> Analysis:
    """An analysis of a minute in which the heart stops for 7 s."""
    return analyse(heart(60.0, (30.0, 37.0)), fs=FS, leads=("II", "V1"), model=untrained, diagnose=False)


@pytest.fixture(scope="module")
def short(untrained: Path) -> Analysis:
    """An analysis of 8 s."""
    return analyse(heart(8.0), fs=FS, leads=("II", "V1"), model=untrained, diagnose=False)


def test_a_pause_has_a_strip_that_shows_it_before_the_alarm(paused: Analysis) -> None:
    excerpts, left = find_excerpts(paused, 40)
    assert not left
    alarm = next(one for one in paused.alarms if one["condition"] == "asystole")
    (excerpt,) = [m for m in excerpts if any(remark.kind == "asystole" for remark in m.remarks)]
    assert excerpt.start_s < 31.0 < alarm["start_s"] < excerpt.stop_s
    assert excerpt.remarks[0].text.startswith("*** asystole, ")
    kinds = {remark.kind for m in excerpts for remark in m.remarks}
    assert {"beginning", "pause", "lowest heart rate", "highest heart rate"} <= kinds
    assert all(m.start_s >= 0.0 and m.stop_s <= paused.length_s for m in excerpts)


def test_a_short_recording_is_one_strip_of_all_its_leads(short: Analysis) -> None:
    excerpts, _ = find_excerpts(short, 40)
    assert [(m.start_s, m.stop_s) for m in excerpts] == [(0.0, 8.0)]
    page = record_page(short, "a", "a.hea")
    assert page.count('class="strip"') == 1
    assert page.count('stroke-linejoin="round"') == 2


def test_what_a_page_cannot_take_is_counted_and_every_kind_gives_some(short: Analysis) -> None:
    many = np.zeros(500, short.alarms.dtype)
    many["condition"], many["priority"], many["kind"] = "pause", "low", "physiological"
    many["start_s"] = np.arange(500) * 20.0
    many["stop_s"] = many["start_s"] + 3
    many[7:9]["condition"], many[7:9]["priority"] = "asystole", "high"
    object.__setattr__(short, "length_s", 10_000.0)
    object.__setattr__(short, "alarms", many)
    try:
        excerpts, left = find_excerpts(short, 40)
    finally:
        object.__setattr__(short, "length_s", 8.0)
        object.__setattr__(short, "alarms", many[:0])
    assert len(excerpts) == 40
    assert left["pause"] > 400
    assert sum(remark.kind == "asystole" for m in excerpts for remark in m.remarks) == 2
    assert [m.start_s for m in excerpts] == sorted(m.start_s for m in excerpts)


def test_a_page_is_well_formed_escaped_and_needs_nothing_else(paused: Analysis) -> None:
    page = record_page(paused, "d & <x>/a \"b' <i>", "a <i>.hea")
    assert not re.search(r"<script|https?://(?!www\.w3\.org)|<i>|d & <x>", page)
    assert "a &quot;b&#x27; &lt;i&gt;" in page
    assert 'href="../../index.html"' in page
    assert "not a certified medical device" in page
    drawings = re.findall(r"<svg .*?</svg>", page, re.DOTALL)
    excerpts, _ = find_excerpts(paused, 40)
    assert len(drawings) == 2 + len(excerpts)
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    assert set(re.findall(r'href="#(strip-\d+)"', page)) == set(re.findall(r'<figure id="(strip-\d+)"', page))


def test_the_course_of_a_day_draws_the_extremes_alone(paused: Analysis) -> None:
    beats = np.zeros(100_000, paused.beats.dtype)
    beats["label"], beats["time_s"], beats["rr_ms"] = "N", np.arange(100_000) * 0.86, 860.0
    beats["rr_ms"][50_000] = 300.0
    day = Analysis(
        **{name: getattr(paused, name) for name in paused.__dataclass_fields__} | {"beats": beats, "length_s": 86_400.0}
    )
    drawing = draw_course(day, [])
    assert len(drawing) < 100_000
    ys = {float(y) for y in re.findall(r"M[\d.]+ ([\d.]+)h0", drawing)}
    assert len(ys) == 2
    assert "24:00:00" in drawing


def test_the_index_links_filters_and_names_what_failed(paused: Analysis) -> None:
    summary = changed(paused.summary(), diagnoses=("AFIB",), rhythm_s={"SINUS": 50.0, "AF": 10.0})
    name = "deep/a b#?%ü:<&\"'"
    page = index_page([Entry(name, f"records/{name}.html", summary), Entry("bad<", "", None, "torn <b>")])
    (link,) = re.findall(r'<td class="name"[^>]*><a href="([^"]*)"', page)
    assert unquote(link) == f"records/{name}.html"
    assert not set(link) & set("#?:<&\"' ")
    assert "torn &lt;b&gt;" in page
    assert "bad&lt;" in page
    assert not re.search(r"https?://|<b>torn|<link|src=", page)
    assert '<option value="AFIB">' in page
    assert '<option value="SINUS">sinus rhythm</option>' in page
    assert re.search(r'data-alarms="[^"]*high', page)


def test_the_index_names_what_was_passed_over_and_counts_the_rest() -> None:
    page = index_page([], {"in/<a>.json": "is JSON & no table (and 7 more .json files)"})
    assert "<h2>Passed over</h2>" in page
    assert "<b>in/&lt;a&gt;.json</b> is JSON &amp; no table (and 7 more .json files)" in page
    many = index_page([], {f"{at}.txt": "is no table of numbers" for at in range(103)})
    assert "99.txt" in many
    assert "100.txt" not in many
    assert "and 3 more files" in many
    assert "Passed over" not in index_page([])
