"""Monitor two simulated beds within an asyncio program until one of them alarms. Run: python examples/monitor_asyncio.py"""

import asyncio

import ecgnat_stream as ecgnat

CONFIG = {
    "bed": [
        {"id": "1", "device": "simulate", "options": {"leads": ["II"], "script": "af"}},
        {
            "id": "2",
            "device": "simulate",
            "options": {"leads": ["II"], "script": [{"rhythm": "sinus", "seconds": 8}, {"rhythm": "asystole", "seconds": 30}]},
        },
    ]
}


async def main() -> None:
    """Print rhythms and alarms; stop at the first alarm of high priority."""
    async with ecgnat.Monitor(ecgnat.parse_config(CONFIG)) as monitor:
        async for event in monitor.events(ecgnat.Alarm, ecgnat.Rhythm):
            print(f"{event.bed}  {event.at_s:5.1f} s  {event.text}")
            if isinstance(event, ecgnat.Alarm) and event.priority == "high":
                break


asyncio.run(main())
