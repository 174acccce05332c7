"""What Home Assistant is told: the form of its device discovery, and templates that read our own messages."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment, StrictUndefined

from ecgnat_stream import wire
from ecgnat_stream.codes import RHYTHM_CODES
from ecgnat_stream.events import Alarm, DeviceStatus, EngineStatus, Event, LeadQuality, Quality, Rhythm, Timing, Vitals
from ecgnat_stream.sink.mqtt.home_assistant import HomeAssistant, discovery, discovery_topic

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BED = "home/icu/bed-1"
# What the MQTT integration takes: the discovery topic, and the options that a device shares with its components.
TOPIC = re.compile(r"homeassistant/device/[a-zA-Z0-9_-]+/config")
SHARED = {"device", "origin", "components", "availability", "availability_mode", "qos"}
OPTIONS = {
    "platform",
    "name",
    "unique_id",
    "icon",
    "device_class",
    "entity_category",
    "state_topic",
    "value_template",
    "json_attributes_topic",
    "json_attributes_template",
    "expire_after",
    "unit_of_measurement",
    "state_class",
    "options",
}

QUALITY = Quality(
    bed=BED,
    time=NOW,
    leads={"II": LeadQuality(0.914, "good"), "V1": LeadQuality(0.1, "noisy")},
    usable=True,
    best_lead="III",
)


def rhythm() -> Rhythm:
    return Rhythm(
        bed=BED,
        time=NOW,
        label="AF",
        text="atrial fibrillation",
        probability=0.93,
        probabilities={"AF": 0.93},
        start_s=0,
        stop_s=10,
        window_start=0,
        window_stop=2500,
        codes=RHYTHM_CODES["AF"],
        timing=Timing(0, 1, 2, 3),
    )


def alarm(condition: str, priority: Any, sequence: int, presence: Any = "on") -> Alarm:
    return Alarm(
        bed=BED,
        time=NOW,
        condition=condition,
        kind="physiological",
        priority=priority,
        phase="start",
        presence=presence,
        text=f"{condition}!",
        sequence=sequence,
        alarm_id="a",
        event_id="e",
    )


def read(template: str, event: Event) -> str:
    """Return what Home Assistant makes of a message."""
    environment = Environment(undefined=StrictUndefined, autoescape=False)
    return environment.from_string(template).render(value_json=json.loads(wire.encode_json(event)))


def test_the_message_has_the_form_of_device_discovery() -> None:
    message = discovery(BED, "w1")
    assert TOPIC.fullmatch(discovery_topic(BED))
    assert set(message) == SHARED
    assert message["device"]["identifiers"] == [f"ecgnat/{BED}"]
    assert message["origin"]["name"] == "ecgnat-stream"
    parts = message["components"]
    assert set(parts) == {"heart_rate", "rhythm", "alarm", "alarm_priority", "signal_quality"}
    assert {part["platform"] for part in parts.values()} == {"sensor", "binary_sensor"}
    assert len({part["unique_id"] for part in parts.values()}) == len(parts)
    for part in parts.values():
        assert set(part) <= OPTIONS
        assert part["state_topic"].startswith(f"ecg/v1/{BED}/")


def test_a_bed_is_available_while_it_and_its_monitor_are_online() -> None:
    message = discovery(BED, "w1")
    assert message["availability_mode"] == "all"
    bed, engine = message["availability"]
    values = {"since": NOW, "worker": "w1", "session": 1}
    for online, state, said in ((True, "online", "online"), (False, "ended", "offline")):
        status = wire.BedStatus(bed=BED, time=NOW, online=online, state=state, **values)  # type: ignore[arg-type]
        assert (bed["topic"], read(bed["value_template"], status)) == (wire.topic(status), said)
        worker = EngineStatus(bed="", time=NOW, site="home", worker="w1", online=online, session=1)
        assert (engine["topic"], read(engine["value_template"], worker)) == (wire.topic(worker), said)


@pytest.mark.parametrize(
    ("part", "event", "shown"),
    [
        ("heart_rate", Vitals(bed=BED, time=NOW, heart_rate_bpm=72.5), "72.5"),
        # Home Assistant shows "None" as unknown.
        ("heart_rate", Vitals(bed=BED, time=NOW, heart_rate_bpm=None), "None"),
        ("rhythm", rhythm(), "atrial fibrillation"),
        ("signal_quality", QUALITY, "91"),
        ("signal_quality", Quality(bed=BED, time=NOW, leads={}, usable=False, best_lead=None), "0"),
        ("alarm", wire.AlarmSummary(bed=BED, time=NOW, priority=None, conditions=()), "OFF"),
        ("alarm", wire.AlarmSummary(bed=BED, time=NOW, priority="low", conditions=("gap",)), "ON"),
        ("alarm_priority", wire.AlarmSummary(bed=BED, time=NOW, priority=None, conditions=()), "none"),
        ("alarm_priority", wire.AlarmSummary(bed=BED, time=NOW, priority="high", conditions=("asystole",)), "high"),
    ],
)
def test_the_templates_read_our_messages(part: str, event: Event, shown: str) -> None:
    component = discovery(BED, "w1")["components"][part]
    assert component["state_topic"] == wire.topic(event)
    assert read(component["value_template"], event) == shown
    if "options" in component:
        assert shown in component["options"]
    if "json_attributes_template" in component:
        assert component["json_attributes_topic"] == wire.topic(event)
        assert isinstance(json.loads(read(component["json_attributes_template"], event)), dict)


def test_a_new_bed_is_announced_once_with_no_alarm() -> None:
    home = HomeAssistant("w1")
    (topic, config), (summary_topic, summary) = home.messages(DeviceStatus(bed=BED, time=NOW, state="connecting"))
    assert (topic, json.loads(config)) == (discovery_topic(BED), discovery(BED, "w1"))
    assert summary_topic == f"ecg/v1/{BED}/alarm/summary"
    assert json.loads(summary)["conditions"] == []
    assert home.messages(DeviceStatus(bed=BED, time=NOW, state="online")) == []
    assert home.messages(Vitals(bed=BED, time=NOW, heart_rate_bpm=60)) == []


def test_the_summary_names_the_most_urgent_alarm_first() -> None:
    home = HomeAssistant("w1")
    assert home.messages(alarm("gap", "low", 1)) == []  # of a bed that nobody has announced: the worker's own
    home.messages(DeviceStatus(bed=BED, time=NOW, state="online"))

    def summary(event: Alarm) -> tuple[Any, ...]:
        ((_, payload),) = home.messages(event)
        found = wire.decode_json(payload)
        assert isinstance(found, wire.AlarmSummary)
        return found.priority, found.conditions, found.text

    assert summary(alarm("gap", "low", 1)) == ("low", ("gap",), "gap!")
    assert summary(alarm("asystole", "high", 2)) == ("high", ("asystole", "gap"), "asystole!")
    assert summary(alarm("no-data", "medium", 3)) == ("high", ("asystole", "no-data", "gap"), "asystole!")
    assert summary(alarm("asystole", "high", 4, "latched")) == ("high", ("asystole", "no-data", "gap"), "asystole!")
    assert summary(alarm("asystole", "high", 5, "off")) == ("medium", ("no-data", "gap"), "no-data!")
    assert summary(alarm("no-data", "medium", 6, "off")) == ("low", ("gap",), "gap!")
    assert summary(alarm("gap", "low", 7, "off")) == (None, (), "")


NAMES = st.from_regex(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,5}/[A-Za-z0-9][A-Za-z0-9._-]{0,5}/[A-Za-z0-9][A-Za-z0-9._-]{0,5}", fullmatch=True
)


@given(NAMES, NAMES)
def test_different_beds_have_different_topics_of_allowed_characters(one: str, other: str) -> None:
    assert TOPIC.fullmatch(discovery_topic(one))
    assert (discovery_topic(one) == discovery_topic(other)) == (one == other)
