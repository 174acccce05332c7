"""Events to WFDB annotations: what wfdb reads back is what was said, in an order that the reference programs accept."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import wfdb
from hypothesis import given
from hypothesis import strategies as st

from ecgnat_stream.annotate import CODES, END, HOLD_S, Annotator, Mark, encode, marks_of
from ecgnat_stream.codes import Codes
from ecgnat_stream.events import Alarm, Beat, Event, LeadQuality, Meta, Quality, Rhythm, Timing

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FS = 250.0


def beat(at_s: float, label: Any = "N") -> Beat:
    return Beat(bed="a/b/c", time=NOW, at_s=at_s, sample=round(at_s * FS), label=label)


def rhythm(label: str, start_s: float, at_s: float) -> Rhythm:
    return Rhythm(
        bed="a/b/c", time=NOW, at_s=at_s, label=label, text=label, probability=1.0, probabilities={},
        start_s=start_s, stop_s=at_s, window_start=0, window_stop=round(at_s * FS), codes=Codes(), timing=Timing(0, 0, 0, 0),
    )  # fmt: skip


def quality(at_s: float, *, usable: bool = True, states: tuple[Any, Any] = ("good", "good"), reason: str = "") -> Quality:
    leads = {lead: LeadQuality(0.5, state) for lead, state in zip(("II", "V1"), states, strict=True)}
    return Quality(bed="a/b/c", time=NOW, at_s=at_s, leads=leads, usable=usable, best_lead=None, reason=reason)


def alarm(at_s: float, phase: Any, presence: Any = "on") -> Alarm:
    return Alarm(
        bed="a/b/c", time=NOW, at_s=at_s, condition="asystole", kind="physiological", priority="high", phase=phase,
        presence=presence, text="asystole", sequence=1, alarm_id="1", event_id="1",
    )  # fmt: skip


def meta(used_as: tuple[str | None, ...] = ("II", "V1")) -> Meta:
    return Meta(
        bed="a/b/c", time=NOW, leads=("x", "y"), used_as=used_as, fs=FS, uv_per_lsb=5.0, device="test", live=False, session=1
    )


def said(*events: Event) -> list[tuple[float, str, int, str]]:
    return [(mark.sample / FS, *mark[1:]) for mark in marks_of([meta(), *events], FS)]


def read(folder: Path, data: bytes) -> wfdb.Annotation:
    (folder / "r.ecg").write_bytes(data)
    return wfdb.rdann(str(folder / "r"), "ecg")


marks = st.lists(
    st.tuples(st.integers(1, 5_000_000), st.sampled_from(sorted(CODES)), st.integers(-1, 15), st.text("(ABN :x", max_size=255)),
    min_size=1,
    max_size=30,
    unique_by=lambda mark: mark[0],
).map(lambda found: [Mark(*mark) for mark in sorted(found)])


@given(marks, st.integers(0, 30))
def test_wfdb_reads_what_was_encoded_also_in_two_parts(tmp_path_factory: Any, every: list[Mark], cut: int) -> None:
    first, second = every[:cut], every[cut:]
    data = encode(first) + encode(second, first[-1].sample if first else 0) + END
    found = read(tmp_path_factory.mktemp("marks"), data)
    assert found.sample.tolist() == [mark.sample for mark in every]
    assert found.symbol == [mark.symbol for mark in every]
    assert found.subtype.tolist() == [mark.subtype for mark in every]
    assert [note.rstrip("\0") for note in found.aux_note] == [mark.note for mark in every]


def test_beats_keep_class_and_place_and_come_in_order() -> None:
    assert said(beat(1.0), beat(3.0, "V"), beat(2.0, "S"), beat(4.0, "Q")) == [
        (1.0, "N", 0, ""), (2.0, "S", 0, ""), (3.0, "V", 0, ""), (4.0, "Q", 0, ""),
    ]  # fmt: skip


def test_a_rhythm_is_marked_where_it_began_and_vf_is_bracketed() -> None:
    found = said(rhythm("SINUS", 1.0, 5.0), rhythm("STACH", 1.0, 6.0), rhythm("VF", 6.0, 8.0), rhythm("SINUS", 20.0, 24.0))
    step = 1 / FS
    assert found == [
        (1.0, "+", 0, "(N"),
        (6.0, "+", 0, "(VF"),
        (6.0 + step, "[", 0, ""),
        (20.0, "]", 0, ""),
        (20.0 + step, "+", 0, "(N"),
    ]


def test_a_refined_rhythm_is_marked_where_it_is_first_said() -> None:
    found = said(rhythm("SINUS", 1.0, 5.0), rhythm("SBRAD", 1.0, 6.0), rhythm("SBRAD", 1.0, 7.0), rhythm("STACH", 1.0, 8.0))
    assert found == [(1.0, "+", 0, "(N"), (5.0, "+", 0, "(SBR"), (7.0, "+", 0, "(N")]


def test_a_label_that_is_taken_back_leaves_no_mark() -> None:
    assert said(rhythm("SINUS", 1.0, 4.0), rhythm("VT", 9.0, 12.0), rhythm("VF", 8.0, 13.0))[1:3] == [
        (8.0, "+", 0, "(VF"), (8.0 + 1 / FS, "[", 0, ""),
    ]  # fmt: skip


def test_noise_names_the_leads_and_nothing_stands_between_the_ends_of_an_unreadable_stretch() -> None:
    found = said(
        quality(2.0, states=("good", "motion")),
        quality(5.0, usable=False, states=("off", "off")),
        beat(4.5),
        alarm(6.0, "start"),
        rhythm("AF", 7.0, 9.0),
        quality(10.0),
        beat(11.0),
    )
    assert found == [
        (1.0, "~", 2, ""),
        (4.0, "~", -1, ""),
        (9.0, "~", 0, ""),
        (9.0 + 1 / FS, '"', 0, "alarm start: asystole (high)"),
        (9.0 + 2 / FS, "+", 0, "(AFIB"),
        (11.0, "N", 0, ""),
    ]


def test_the_end_of_a_recording_is_no_unreadable_signal() -> None:
    assert said(beat(1.0), quality(10.0, usable=False, reason="ended")) == [(1.0, "N", 0, "")]


def test_the_start_and_the_end_of_an_alarm_are_noted() -> None:
    assert [mark[3] for mark in said(alarm(5.0, "start"), alarm(6.0, "continue"), alarm(9.0, "end", "off"))] == [
        "alarm start: asystole (high)",
        "alarm end: asystole (high)",
    ]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60))
def test_marks_that_leave_while_the_stream_runs_are_those_of_the_whole(steps: list[int]) -> None:
    labels = ("SINUS", "VF", "AF", "UNKNOWN")
    events: list[Event] = [meta()]
    at_s = 0.0
    for i, step in enumerate(steps):
        at_s += step / 10
        events += [beat(at_s), rhythm(labels[i * i % 4], max(0.0, at_s - 8.0), at_s), quality(at_s, usable=i % 5 != 3)]
    annotator = Annotator(FS, ("II", "V1"))
    running: list[Mark] = []
    for event in events:
        annotator.add(event)
        running += annotator.ready()
    assert running + annotator.finish() == marks_of(events, FS)
    places = [mark.sample for mark in running]
    assert (np.diff(places) > 0).all()


def test_a_mark_waits_until_nothing_can_come_before_it() -> None:
    annotator = Annotator(FS)
    annotator.add(beat(1.0))
    annotator.add(quality(HOLD_S + 1.0))
    assert annotator.ready() == []
    annotator.add(quality(HOLD_S + 1.1))
    assert [mark.symbol for mark in annotator.ready()] == ["N"]


def test_a_new_file_repeats_what_holds() -> None:
    annotator = Annotator(FS)
    for event in (rhythm("AF", 1.0, 9.0), quality(11.0, usable=False), quality(40.0, usable=False)):
        annotator.add(event)
    annotator.ready()
    annotator.begin(round(100 * FS))
    annotator.add(quality(110.0))
    assert [(mark.sample / FS, mark.symbol, mark.note) for mark in annotator.finish()] == [
        (100.0, "~", ""), (109.0, "~", ""), (109.0 + 1 / FS, "+", "(AFIB"),
    ]  # fmt: skip
