"""A central station that confirms alarms over MQTT: python examples/central_station.py [mqtt://BROKER [SITE/UNIT/BED ...]]"""

import asyncio
import sys

import ecgnat_stream as ecgnat
from ecgnat_stream.sink.mqtt.broker import free_port

HEART = {"leads": ["II"], "speed": 4, "script": [{"rhythm": "sinus", "seconds": 12}, {"rhythm": "asystole", "seconds": 60}]}


def ward(url: str) -> ecgnat.Monitor:
    """Return a monitor with a broker of its own, whose beds need the word of the central station."""
    mqtt = {"url": url, "embedded": True, "confirm": "central-1"}
    bed = {"id": "1", "unit": "icu", "device": "simulate", "options": HEART}
    return ecgnat.Monitor(ecgnat.parse_config({"site": "home", "mqtt": mqtt, "bed": [bed]}))


async def show(broker: str, beds: list[str], until: str = "") -> None:
    """Show what happens at the beds; each event is confirmed when the next one is asked for."""
    async with ecgnat.Receiver(broker, name="central-1", beds=beds) as receiver:
        async for event in receiver:
            match event:
                case ecgnat.Alarm():
                    print(f"{event.bed}: {event.priority} {event.text} ({event.phase})", flush=True)
                    if event.condition == until:
                        return
                case ecgnat.Technical():
                    print(f"{event.bed or 'this station'}: {event.condition}: {event.detail or 'over'}", flush=True)


async def main() -> None:
    """Watch a broker (every bed, unless some are named), or run a ward and its central station side by side."""
    if sys.argv[1:]:
        return await show(sys.argv[1], sys.argv[2:] or ["+/+/+"])
    async with ward(url := f"mqtt://127.0.0.1:{free_port()}"):
        await show(url, ["home/icu/+"], until="asystole")


asyncio.run(main())
