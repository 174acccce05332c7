"""What can delay a high alarm, and by how much at most: every setting at both bounds, and networks that are wrong.

docs/alarms.md has the same figures in a table. Settings are found by looking at the structs, so a new one is tried too, and one
without bounds fails in tests/unit/test_settings.py. Simulated hearts go through the whole signal path and the alarm engine.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from ecgnat_devices.simulator import Patient, Segment, Signal
from ecgnat_stream.alarm.picture import COVERED_BY, HIGH
from ecgnat_stream.bus import Published
from ecgnat_stream.clock import ManualClock
from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.config import Config, parse_config
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.events import Alarm
from ecgnat_stream.model import Prediction, reading_mode
from ecgnat_stream.settings import Settings, bounds_of
from ecgnat_stream.signal import SampleBlock, StreamInfo, Window
from ecgnat_stream.ward import Ward

FS = 250.0
LEADS = ("I", "II", "V1", "V5")
ONSET_S = 12.0
LENGTH_S = 34.0

HEARTS = {
    "ventricular-fibrillation": Segment(rhythm="vf", seconds=LENGTH_S - ONSET_S, amplitude_mv=0.8, end_amplitude_mv=0.6),
    "asystole": Segment(rhythm="asystole", seconds=LENGTH_S - ONSET_S),
    "ventricular-tachycardia": Segment(rhythm="vt", seconds=LENGTH_S - ONSET_S, rate_bpm=185),
    "extreme-tachycardia": Segment(rhythm="svt", seconds=LENGTH_S - ONSET_S, rate_bpm=230),
    "extreme-bradycardia": Segment(rhythm="bradycardia", seconds=LENGTH_S - ONSET_S, rate_bpm=19),
}
"""For each high condition a heart that has it, beyond every limit that can be set."""

LONGEST_S = {
    "ventricular-fibrillation": 12.0,
    "asystole": 13.5,
    "ventricular-tachycardia": 12.0,
    "extreme-tachycardia": 10.0,
    "extreme-bradycardia": 20.0,
}
"""The latest alarm after the onset, in s of signal, whatever is set and whatever the network says: as docs/alarms.md says."""

LATE_S = 6.2
"""A network that answers late adds at most ``model_late_s`` (5 s), a second of the tick and a frame."""

NETWORK_SECTIONS = ("schedule", "rhythm")
SIGNAL_SECTIONS = ("", "condition", "quality", "beats", "fibrillation", *NETWORK_SECTIONS)
ELSEWHERE = ("device", "model", "dashboard", "mqtt", "zmq", "record", "history", "watchdog")
"""What is set here the signal path never reads: it delays signal before it, or what has been said after it."""


@cache
def hearts() -> dict[str, NDArray[np.float32]]:
    """Return ``(L, T)`` mV of each heart: twelve seconds of sinus rhythm, then the condition."""
    signals = {}
    for name, segment in HEARTS.items():
        script = (Segment(rhythm="sinus", seconds=ONSET_S), segment)
        patient = Patient(Signal(fs=FS, leads=LEADS, seed=3, script=script, loop=False))
        signals[name] = patient.read(round(LENGTH_S * FS))
    return signals


def always(probabilities: dict[str, float]) -> Callable[[Window], NDArray[np.float32]]:
    """A network that says the same of every window."""
    each = np.array([probabilities.get(name, 0.0) for name in RHYTHMS], np.float32)
    return lambda window: np.tile(each, (round(window.samples.shape[1] / 32), 1))


def _in_turn(window: Window) -> NDArray[np.float32]:
    tokens = window.stop // 100 + np.arange(round(window.samples.shape[1] / 32))
    return np.eye(len(RHYTHMS), dtype=np.float32)[tokens % len(RHYTHMS)]


NETWORKS: dict[str, Callable[[Window], NDArray[np.float32]] | None] = {
    "none": None,
    **{f"always {name}": always({name: 1.0}) for name in RHYTHMS},
    "undecided": always(dict.fromkeys(RHYTHMS, 1 / len(RHYTHMS))),
    "not a number": always(dict.fromkeys(RHYTHMS, float("nan"))),
    "all in turn": _in_turn,
}


def answer(ward: Ward, windows: list[Window], scripts: list[str], *, once: bool = False) -> None:
    """Let each bed's own network answer; where there is none it fails."""
    for window in windows:
        script = NETWORKS[scripts[window.row]]
        if script is None:
            ward.fail([window], "none")
            continue
        rhythm = script(window)[None]
        ward.apply([window], _prediction(rhythm, once=once), "scripted")


def _prediction(rhythm: NDArray[np.float32], *, once: bool) -> Prediction:
    empty = np.zeros((1, 0), np.float32)
    beat = np.zeros((1, 4 * rhythm.shape[1], 7), np.float32)
    return Prediction(rhythm, empty, np.full((1, 4), 0.25, np.float32), beat, np.zeros(1, bool), 0.32, 0, 0.0, once=once)


def heard(table: dict[str, Any], beds: list[tuple[str, str, dict[str, Any]]]) -> list[float | None]:
    """Return how long after the onset a high alarm that tells of the condition was on, per bed, in s of signal.

    Parameters
    ----------
    beds
        The heart, the network and the bed's own alarm settings.
    """
    named = [{"id": f"b{i}", "alarm": alarm} for i, (_, _, alarm) in enumerate(beds)]
    config = parse_config({**table, "bed": named})
    alarms: dict[str, list[Alarm]] = {}

    def keep(event: Published) -> None:
        if isinstance(event, Alarm):
            alarms.setdefault(event.bed, []).append(event)

    ward = Ward(config, ManualClock(), keep)
    piece = round(2.0 * FS)
    scripts = [network for _, network, _ in beds]
    for row in range(len(beds)):
        ward.accept(row, StreamInfo(FS, LEADS, "simulated", live=False))
    for start in range(0, round(LENGTH_S * FS), piece):
        for row, (heart, _, _) in enumerate(beds):
            ward.accept(row, SampleBlock(start, hearts()[heart][:, start : start + piece], 0))
        _work(ward, scripts, once=reading_mode(config.model) == "stream")
    return [_after_s(alarms.get(f"site/unit/b{i}", []), heart) for i, (heart, _, _) in enumerate(beds)]


def _work(ward: Ward, scripts: list[str], *, once: bool) -> None:
    while True:
        more = ward.advance()
        windows = ward.next_batch()
        answer(ward, windows, scripts, once=once)
        if not more and not windows:
            return


def _after_s(alarms: list[Alarm], heart: str) -> float | None:
    """Return when the first alarm of this condition, or of one that covers it, was on after the onset, or already."""
    telling = {heart, *COVERED_BY[heart]} if heart in COVERED_BY else {heart}
    for alarm in alarms:
        if alarm.condition in telling and alarm.priority == "high" and alarm.presence == "on" and alarm.at_s is not None:
            return round(max(0.0, alarm.at_s - ONSET_S), 3)
    return None


def in_time(found: float | None, heart: str, more_s: float = 0.0) -> bool:
    """Return whether the alarm came, and not later than is stated."""
    return found is not None and found <= LONGEST_S[heart] + more_s


def _at_bound(section: str, key: str, bound: float) -> dict[str, Any]:
    """Return the table that sets one key as near to its bound as the settings that belong to it let it be."""
    kind = Config if not section else type(getattr(Config(), section))
    start = getattr(kind(), key)

    def table(value: float) -> dict[str, Any]:
        kept = type(start)(value) if key not in ("window_s", "hop_s") else round(value * 5) / 5
        return {section: {key: kept}} if section else {key: kept}

    def allowed(value: float) -> bool:
        try:
            parse_config(table(value))
        except ConfigError:
            return False
        return True

    good, bad = float(start), float(bound)
    if allowed(bad):
        return table(bad)
    for _ in range(12):
        middle = (good + bad) / 2
        good, bad = (middle, bad) if allowed(middle) else (good, middle)
    assert good != start, f"{section}.{key} cannot be moved towards {bound}"
    return table(good)


def _sections() -> Iterator[tuple[str, type[Settings]]]:
    yield "", Config
    for field in msgspec.structs.fields(Config):
        kinds = [kind for kind in (field.type, *getattr(field.type, "__args__", ())) if isinstance(kind, type)]
        for kind in kinds:
            if issubclass(kind, Settings):
                yield field.name, kind


SECTIONS = dict(_sections())
STAGE_CASES = [
    (section, key, bound)
    for section, kind in SECTIONS.items()
    if section in SIGNAL_SECTIONS
    for key, within in bounds_of(kind).items()
    for bound in (within.low, within.high)
]
ALARM_CASES = [(key, bound) for key, within in bounds_of(SECTIONS["alarm"]).items() for bound in (within.low, within.high)]


def test_every_section_is_tried_or_lies_outside_the_signal_path() -> None:
    assert set(SECTIONS) == {*SIGNAL_SECTIONS, *ELSEWHERE, "alarm"}
    path = Path(__file__).parents[2] / "ecgnat_stream"
    text = "".join((path / "ward" / name).read_text(encoding="utf-8") for name in ("ward.py", "signal_path.py", "bed.py"))
    text = text.replace("reading_mode(config.model)", "")  # by windows or token by token: both are tried below
    assert [section for section in ELSEWHERE if re.search(rf"config\.{section}\b", text)] == []


@pytest.mark.parametrize(("section", "key", "bound"), STAGE_CASES)
def test_no_stage_setting_within_its_bounds_silences_a_high_alarm(section: str, key: str, bound: float) -> None:
    networks = ("always SINUS", "always NOISE") if section in NETWORK_SECTIONS else ("none", "always SINUS")
    beds = [(heart, network, {}) for network in networks for heart in HEARTS]
    found = heard(_at_bound(section, key, bound), beds)
    late = [(*bed[:2], after_s) for bed, after_s in zip(beds, found, strict=True) if not in_time(after_s, bed[0])]
    assert late == []


@pytest.mark.parametrize("network", ["none", "always SINUS"])
def test_no_limit_within_its_bounds_silences_a_high_alarm(network: str) -> None:
    limits = [_at_bound("alarm", key, bound)["alarm"] for key, bound in ALARM_CASES]
    beds = [(heart, network, limit) for limit in limits for heart in HEARTS]
    found = heard({}, beds)
    late = [(bed, after_s) for bed, after_s in zip(beds, found, strict=True) if not in_time(after_s, bed[0])]
    assert late == []


@pytest.mark.parametrize("mode", ["window", "stream"])
def test_no_network_silences_a_high_alarm(mode: str) -> None:
    beds = [(heart, network, {}) for network in NETWORKS for heart in HEARTS]
    table = {"model": {"name": "ecgnat-nano-causal", "mode": mode}}
    assert reading_mode(parse_config(table).model) == mode
    found = heard(table, beds)
    late = [(*bed[:2], after_s) for bed, after_s in zip(beds, found, strict=True) if not in_time(after_s, bed[0])]
    assert late == []
    assert {heart for heart, *_ in beds} == set(HIGH) == set(LONGEST_S)


@pytest.mark.parametrize("answers_after_s", [None, 4.9])
def test_a_network_that_is_late_or_never_answers_adds_the_wait_for_it(answers_after_s: float | None) -> None:
    """A live ward whose clock goes with the signal: what counts is when the alarm is published."""
    clock = ManualClock()
    begun = clock.utc()
    said: dict[str, float] = {}

    def keep(event: Published) -> None:
        if isinstance(event, Alarm) and event.bed in of_bed:
            heart = of_bed[event.bed]
            after_s = (clock.utc() - begun).total_seconds() - ONSET_S
            if event.condition in {heart, *COVERED_BY.get(heart, ())} and event.presence == "on" and after_s > 0:
                said.setdefault(heart, after_s)

    of_bed = {f"site/unit/b{row}": heart for row, heart in enumerate(HEARTS)}
    config = parse_config({"model_late_s": 5.0, "bed": [{"id": f"b{row}"} for row in range(len(HEARTS))]})
    ward = Ward(config, clock, keep)
    for row in range(len(HEARTS)):
        ward.accept(row, StreamInfo(FS, LEADS, "simulated"))
    asked: list[tuple[float, list[Window]]] = []
    piece = round(0.2 * FS)
    for count, start in enumerate(range(0, round(LENGTH_S * FS), piece)):
        asyncio.run(clock.advance(0.2))
        for row, heart in enumerate(HEARTS):
            ward.accept(row, SampleBlock(start, hearts()[heart][:, start : start + piece], clock.monotonic_ns()))
        while ward.advance():
            pass
        if answers_after_s is not None and (windows := ward.next_batch()):
            asked.append((count * 0.2 + answers_after_s, windows))
        while asked and asked[0][0] <= count * 0.2:
            answer(ward, asked.pop(0)[1], ["always SINUS"] * len(HEARTS))
        if count % 5 == 4:
            ward.tick()
    assert {heart: said.get(heart) for heart in HEARTS if not in_time(said.get(heart), heart, LATE_S)} == {}
