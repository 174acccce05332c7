"""What the monitor does with signals that are not what one would wish for; docs/alarms.md says the same in words."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ecgnat_stream.clock import SystemClock
from ecgnat_stream.config import parse_config
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.events import Alarm, Beat, Event, Quality, Vitals
from ecgnat_stream.monitor import Monitor

BED = "site/unit/a"
RAIL = {"kind": "lead_off", "reported": False}


def bed(script: Sequence[dict[str, Any]], name: str = "a", alarm: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    given = {"script": list(script), "loop": False, "speed": "max", "seed": 5, "leads": ["II", "V1"]} | options
    return {"id": name, "device": "simulate", "options": given, "alarm": alarm or {}}


async def monitored(*beds: dict[str, Any]) -> list[Event]:
    """Run the monitor over simulated beds; return everything it said."""
    monitor = Monitor(parse_config({"bed": list(beds)}), SystemClock())
    events: list[Event] = []
    monitor.bus.listen(events.append, Event)  # type: ignore[arg-type]
    async with asyncio.timeout(120):
        await monitor.run()
    return events


def started(events: list[Event], kind: str = "physiological", bed: str = BED) -> list[str]:
    alarms = [event for event in events if isinstance(event, Alarm) and event.bed == bed]
    return [alarm.condition for alarm in alarms if alarm.phase == "start" and alarm.kind == kind]


def rates(events: list[Event], bed: str = BED, after_s: float = 10.0) -> list[float | None]:
    vitals = [event for event in events if isinstance(event, Vitals) and event.bed == bed and event.at_s is not None]
    return [event.heart_rate_bpm for event in vitals if event.at_s and event.at_s > after_s][:-1]


SINUS = [{"rhythm": "sinus", "seconds": 60, "rate_bpm": 72}]


@pytest.mark.parametrize("rail_mv", [0.0, 5.0, -5.0, None])
async def test_one_bad_lead_is_named_and_the_heart_rate_does_not_notice(rail_mv: float | None) -> None:
    broken = RAIL | {"leads": ["II"], "start_s": 20, "seconds": 20, "rail_mv": rail_mv}
    events = await monitored(bed(SINUS, artefacts=[broken]))
    assert started(events) == []
    assert all(rate is not None and abs(rate - 72) < 4 for rate in rates(events))
    during = [event for event in events if isinstance(event, Quality) and event.at_s and 25 < event.at_s < 38]
    assert {event.leads["II"].state for event in during} <= {"flat", "saturated", "missing"}
    assert {event.best_lead for event in during} == {"V1"}
    assert all(event.usable for event in during)


@pytest.mark.parametrize("rail_mv", [5.0, -5.0])
async def test_all_leads_at_the_rail_is_a_technical_alarm_and_no_heart_rate(rail_mv: float) -> None:
    broken = RAIL | {"leads": ["II", "V1"], "start_s": 20, "seconds": 40, "rail_mv": rail_mv}
    events = await monitored(bed(SINUS, artefacts=[broken]))
    assert {"noise"} <= set(started(events, "technical"))
    assert rates(events, after_s=30.0).count(None) == len(rates(events, after_s=30.0))


async def test_zero_from_the_start_is_technical_and_zero_after_a_heartbeat_is_asystole() -> None:
    leads = ["II", "V1"]
    dead = RAIL | {"leads": leads, "start_s": 0, "seconds": 60, "rail_mv": 0.0}
    dies = RAIL | {"leads": leads, "start_s": 30, "seconds": 30, "rail_mv": 0.0}
    events = await monitored(bed(SINUS, artefacts=[dead]), bed(SINUS, "b", artefacts=[dies]))
    assert started(events) == []
    assert "noise" in started(events, "technical")
    assert started(events, bed="site/unit/b") == ["pause", "asystole"]


@pytest.mark.parametrize("lead", ["II", "V1", "aVR"])
async def test_one_lead_alone_is_enough_for_every_dangerous_condition(lead: str) -> None:
    script = [
        {"rhythm": "sinus", "seconds": 40},
        {"rhythm": "vf", "seconds": 20},
        {"rhythm": "sinus", "seconds": 40},
        {"rhythm": "vt", "seconds": 20},
        {"rhythm": "sinus", "seconds": 40},
        {"rhythm": "asystole", "seconds": 12},
    ]
    events = await monitored(bed(script, leads=[lead]))
    high = {"ventricular-fibrillation", "ventricular-tachycardia", "asystole"}
    assert high <= set(started(events))


async def test_a_lead_without_a_known_name_is_refused_and_the_other_beds_go_on(tmp_path: Path) -> None:
    record = tmp_path / "odd.csv"
    record.write_text("thorax\n" + "0.1\n0.2\n" * 500, encoding="utf-8")
    odd = {"id": "odd", "device": "replay", "options": {"path": str(record), "fs": 250, "units": "mV", "speed": "max"}}
    events = await monitored(odd, bed(SINUS))
    alarms = [event for event in events if isinstance(event, Alarm) and event.bed == "site/unit/odd"]
    assert {alarm.condition for alarm in alarms} == {"no-data"}
    assert "thorax" in alarms[0].text
    assert "lead_map" in alarms[0].text
    assert rates(events)


@pytest.mark.parametrize("fs", [250.0, 500.0])
async def test_a_pacemaker_is_counted_once_per_beat_and_its_spikes_alone_are_no_beats(fs: float) -> None:
    script = [{"rhythm": "paced", "seconds": 40}, {"rhythm": "asystole", "seconds": 15}]
    spikes = {"kind": "spikes", "start_s": 40, "seconds": 15, "level_mv": 4.0}
    events = await monitored(bed(script, fs=fs, artefacts=[spikes]))
    beats = [event for event in events if isinstance(event, Beat)]
    assert abs(len([beat for beat in beats if 5 < (beat.at_s or 0) < 39]) - 34 * 70 / 60) <= 2
    assert not [beat for beat in beats if (beat.at_s or 0) > 41]
    assert started(events) == ["pause", "asystole"]


@pytest.mark.parametrize("rate_bpm", [150, 185])
async def test_a_childs_heart_rate_is_read_right_and_judged_by_the_beds_own_limits(rate_bpm: int) -> None:
    child = {"hr_high_bpm": 200, "hr_low_bpm": 70, "extreme_tachy_bpm": 220, "extreme_brady_bpm": 50, "svt_rate_bpm": 210}
    script = [{"rhythm": "sinus", "seconds": 60, "rate_bpm": rate_bpm}]
    events = await monitored(bed(script, alarm=child), bed(script, "adult"))
    assert all(rate is not None and abs(rate - rate_bpm) < 5 for rate in rates(events))
    assert started(events) == []
    assert "extreme-tachycardia" in started(events, bed="site/unit/adult")


def test_limits_of_a_bed_are_checked_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match=r"bed a: alarm\.asystole_s: 30.0 must be 3 to 10"):
        parse_config({"bed": [bed(SINUS, alarm={"asystole_s": 30})]})
    with pytest.raises(ConfigError, match=r"bed a: alarm\.asystol_s: unknown key 'asystol_s': did you mean asystole_s"):
        parse_config({"bed": [bed(SINUS, alarm={"asystol_s": 5})]})
