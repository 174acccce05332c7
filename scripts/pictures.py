"""Draw docs/img/dashboard-*.svg: four simulated beds in a real monitor, a minute of real time: ``python scripts/pictures.py``."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from textual.pilot import Pilot

from ecgnat_stream.clock import SystemClock
from ecgnat_stream.config import parse_config
from ecgnat_stream.monitor import Monitor
from ecgnat_stream.sink.dashboard import Dashboard

FOLDER = Path(__file__).parents[1] / "docs" / "img"
FONT = 'font-family: "DejaVu Sans Mono", Menlo, Consolas, "Liberation Mono", monospace;'
WAIT_S = 55

SCRIPTS = {
    "1": [{"rhythm": "sinus", "seconds": 30, "rate_bpm": 72}, {"rhythm": "vt", "seconds": 60}],
    "2": [{"rhythm": "af", "seconds": 300}],
    "3": [{"rhythm": "pvc", "seconds": 300, "every": 3}],
    "4": [{"rhythm": "sinus", "seconds": 46, "rate_bpm": 64}, {"rhythm": "asystole", "seconds": 60}],
}
"""What happens at each bed, timed so that both alarms of high priority are on when the pictures are taken."""


class Photographer:
    """A sink that looks at the dashboard for a while, takes its pictures and leaves."""

    def __init__(self, dashboard: Dashboard) -> None:
        self._dashboard = dashboard

    async def run(self) -> None:
        """Show the dashboard, unseen, and write what it shows."""
        await self._dashboard.run(headless=True, size=(120, 36), auto_pilot=self._take)

    async def _take(self, pilot: Pilot[None]) -> None:
        app = self._dashboard.app
        await asyncio.sleep(WAIT_S)
        _save(app.export_screenshot(title="ecgnat demo"), FOLDER / "dashboard-wall.svg")
        await pilot.press("enter")
        await asyncio.sleep(3)
        _save(app.export_screenshot(title="ecgnat demo"), FOLDER / "dashboard-bed.svg")
        app.exit()


def _save(svg: str, path: Path) -> None:
    """Write a picture that loads nothing from elsewhere and keeps the names of its parts from run to run."""
    svg = re.sub(r"@font-face\s*\{.*?\}\s*", "", svg, flags=re.S)
    svg = re.sub(r"font-family: Fira Code, monospace;", FONT, svg)
    svg = re.sub(r"terminal-\d+", f"terminal-{path.stem}", svg)
    path.write_text(svg, encoding="utf-8")


async def main() -> None:
    """Run the monitor until the pictures are taken."""
    beds = [
        {"id": name, "device": "simulate", "options": {"script": script, "leads": ["II", "V1", "V5"], "seed": int(name)}}
        for name, script in SCRIPTS.items()
    ]
    config = parse_config({"site": "home", "unit": "icu", "bed": beds})
    clock = SystemClock()
    monitor = Monitor(config, clock, traces=True)
    limits = dict.fromkeys(monitor.beds, (config.alarm.hr_low_bpm, config.alarm.hr_high_bpm))
    dashboard = Dashboard(monitor.bus, clock, config.dashboard, beds=monitor.beds, limits=limits)
    monitor.add(Photographer(dashboard), essential=True)
    await monitor.run()


if __name__ == "__main__":
    asyncio.run(main())
