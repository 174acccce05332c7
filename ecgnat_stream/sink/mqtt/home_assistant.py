"""Home Assistant: what lets its MQTT integration find a bed, and the one alarm state per bed that its sensors need.

In come device states and alarms; out go retained messages for the MQTT sink. The form is that of device discovery,
``homeassistant/device/{id}/config`` (https://www.home-assistant.io/integrations/mqtt/, "Discovery messages and availability").
Home Assistant is a display here: nothing in it can acknowledge or pause an alarm.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ecgnat_stream import __version__, wire
from ecgnat_stream.bus import Published
from ecgnat_stream.codes import PRIORITIES, URGENCY
from ecgnat_stream.events import Alarm, DeviceStatus

__all__ = ["HomeAssistant", "discovery", "discovery_topic"]

_VITALS_EXPIRE_S = 15
"""Vitals and quality come once a second; a value older than this is shown as unavailable."""
_RHYTHM_EXPIRE_S = 60
"""A rhythm comes once per hop, which may be longer."""


def discovery_topic(bed: str) -> str:
    """Return the topic of a bed's discovery message. Only letters, digits, ``_`` and ``-`` may stand in its id."""
    name = "".join(c if c.isascii() and (c.isalnum() or c == "-") else f"_{ord(c):02x}" for c in bed)
    return f"homeassistant/device/ecgnat-{name}/config"


def discovery(bed: str, worker: str) -> dict[str, Any]:
    """Return the discovery message of a bed: what it is called, when it is there, and where each value is found.

    Parameters
    ----------
    bed
        ``site/unit/bed``.
    worker
        The monitor that has the bed: the bed is available while both say that they are online.
    """
    site, unit, name = bed.split("/")
    root = f"{wire.ROOT}/{bed}"
    online = "{{ 'online' if value_json.online else 'offline' }}"
    parts: dict[str, dict[str, Any]] = {
        "heart_rate": {
            "platform": "sensor",
            "name": "Heart rate",
            "icon": "mdi:heart-pulse",
            "state_topic": f"{root}/vitals",
            "value_template": "{{ value_json.heart_rate_bpm }}",
            "unit_of_measurement": "bpm",
            "state_class": "measurement",
            "expire_after": _VITALS_EXPIRE_S,
        },
        "rhythm": {
            "platform": "sensor",
            "name": "Rhythm",
            "icon": "mdi:pulse",
            "state_topic": f"{root}/rhythm",
            "value_template": "{{ value_json.text }}",
            "json_attributes_topic": f"{root}/rhythm",
            "json_attributes_template": "{{ {'label': value_json.label, 'probability': value_json.probability} | tojson }}",
            "expire_after": _RHYTHM_EXPIRE_S,
        },
        "alarm": {
            "platform": "binary_sensor",
            "name": "Alarm",
            "device_class": "problem",
            "state_topic": f"{root}/alarm/summary",
            "value_template": "{{ 'ON' if value_json.conditions else 'OFF' }}",
            "json_attributes_topic": f"{root}/alarm/summary",
            "json_attributes_template": "{{ {'conditions': value_json.conditions, 'text': value_json.text} | tojson }}",
        },
        "alarm_priority": {
            "platform": "sensor",
            "name": "Alarm priority",
            "device_class": "enum",
            "options": ["none", *PRIORITIES],
            "state_topic": f"{root}/alarm/summary",
            "value_template": "{{ value_json.priority or 'none' }}",
        },
        "signal_quality": {
            "platform": "sensor",
            "name": "Signal quality",
            "icon": "mdi:signal",
            "entity_category": "diagnostic",
            "state_topic": f"{root}/quality",
            # Of the best lead.
            "value_template": "{{ (100 * (value_json.leads.values() | map(attribute='sqi') | max | default(0))) | round | int }}",
            "unit_of_measurement": "%",
            "state_class": "measurement",
            "expire_after": _VITALS_EXPIRE_S,
        },
    }
    for key, part in parts.items():
        part["unique_id"] = f"ecgnat/{bed}/{key}"
    return {
        "device": {"identifiers": [f"ecgnat/{bed}"], "name": f"ECG {name}", "model": "ecgnat-stream", "suggested_area": unit},
        "origin": {"name": "ecgnat-stream", "sw_version": __version__},
        "availability": [
            {"topic": f"{root}/status", "value_template": online},
            {"topic": f"{wire.ROOT}/{site}/engine/{worker}/status", "value_template": online},
        ],
        "availability_mode": "all",
        "qos": 1,
        "components": parts,
    }


class HomeAssistant:
    """Makes the retained messages of the beds of one monitor.

    Parameters
    ----------
    worker
        Name of the monitor.
    """

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._alarms: dict[str, dict[str, Alarm]] = {}

    def messages(self, event: Published) -> list[tuple[str, bytes]]:
        """Return topic and payload of what is to be published, retained, because of an event."""
        match event:
            case DeviceStatus() if event.bed not in self._alarms:
                self._alarms[event.bed] = {}
                config = msgspec.json.encode(discovery(event.bed, self._worker))
                return [(discovery_topic(event.bed), config), self._summary(event)]
            case Alarm() if event.bed in self._alarms:
                alarms = self._alarms[event.bed]
                alarms.pop(event.condition, None)
                if event.presence != "off":
                    alarms[event.condition] = event
                return [self._summary(event)]
        return []

    def _summary(self, event: Alarm | DeviceStatus) -> tuple[str, bytes]:
        alarms = sorted(self._alarms[event.bed].values(), key=lambda alarm: (-URGENCY[alarm.priority], -alarm.sequence))
        summary = wire.AlarmSummary(
            bed=event.bed,
            time=event.time,
            at_s=event.at_s,
            priority=alarms[0].priority if alarms else None,
            conditions=tuple(alarm.condition for alarm in alarms),
            text=alarms[0].text if alarms else "",
        )
        return wire.topic(summary), wire.encode_json(summary)
