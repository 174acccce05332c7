"""A sink of one's own: alarms of a simulated bed go into a CSV file. Run: python examples/own_sink.py [FILE]"""

import asyncio
import csv
import sys
from pathlib import Path
from typing import TextIO

import ecgnat_stream as ecgnat

SCRIPT = [{"rhythm": "sinus", "seconds": 20}, {"rhythm": "vt", "seconds": 30}]
HEART = {"leads": ["II"], "speed": "max", "loop": False, "script": SCRIPT}


class AlarmTable:
    """Writes one row per phase of an alarm. A sink subscribes when it is made and reads until the bus is closed."""

    def __init__(self, monitor: ecgnat.Monitor, stream: TextIO) -> None:
        self.subscription = monitor.bus.subscribe("alarm table", ecgnat.Alarm)
        self.alarms_delivered = self.alarms_lost = 0  # the watchdog compares them with what was put into the subscription
        self._table = csv.writer(stream)
        self._table.writerow(["at_s", "bed", "priority", "condition", "phase"])

    async def run(self) -> None:
        """Write until the monitoring ends. When it raises it is called again, and goes on with the next alarm."""
        async for event in self.subscription:
            self._table.writerow([event.at_s, event.bed, event.priority, event.condition, event.phase])
            self.alarms_delivered += 1


file = Path(sys.argv[1] if len(sys.argv) > 1 else "alarms.csv")
monitor = ecgnat.Monitor(ecgnat.parse_config({"bed": [{"id": "1", "device": "simulate", "options": HEART}]}))
with file.open("w", encoding="utf-8", newline="") as stream:
    monitor.add(AlarmTable(monitor, stream))
    asyncio.run(monitor.run())
print(f"written to {file}:", file.read_text(encoding="utf-8"), sep="\n")
