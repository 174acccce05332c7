"""A central station that confirms the alarms of a simulated ward over MQTT. Run: python examples/central_station.py"""

import asyncio
import socket

import ecgnat_stream as ecgnat

SCRIPT = [{"rhythm": "sinus", "seconds": 12}, {"rhythm": "asystole", "seconds": 60}]
HEART = {"leads": ["II"], "speed": 4, "script": SCRIPT}


def ward(port: int) -> ecgnat.Monitor:
    """Return a monitor with a broker of its own, whose beds need the word of the central station."""
    mqtt = {"url": f"mqtt://127.0.0.1:{port}", "embedded": True, "confirm": "central-1"}
    bed = {"id": "1", "unit": "icu", "device": "simulate", "options": HEART}
    return ecgnat.Monitor(ecgnat.parse_config({"site": "home", "mqtt": mqtt, "bed": [bed]}))


async def show(broker: str) -> None:
    """Show what happens at the beds; each event is confirmed when the next one is asked for."""
    async with ecgnat.Receiver(broker, name="central-1", beds=["home/icu/+"]) as receiver:
        async for event in receiver:
            match event:
                case ecgnat.Alarm():
                    print(f"{event.bed}: {event.priority} {event.text} ({event.phase})", flush=True)
                    if event.condition == "asystole":
                        return
                case ecgnat.Technical():
                    print(f"{event.bed or 'this station'}: {event.condition}: {event.detail or 'over'}", flush=True)


async def main() -> None:
    """Run the ward and the central station side by side."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    async with ward(port):
        await show(f"mqtt://127.0.0.1:{port}")


asyncio.run(main())
