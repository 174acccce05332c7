"""How far recordings have come, on standard error, while their events go elsewhere.

On a terminal bars are drawn, with the time left; not where the events go to the same terminal, which show it themselves. Where
standard error is a file or a pipe, a line is logged every half minute, as information (``-v``): a log is read after something
went wrong, and should not hold an hour of good news.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ecgnat_stream.words import counted

if TYPE_CHECKING:
    from ecgnat_stream.monitor import Monitor
    from ecgnat_stream.ward import BedProgress

__all__ = ["progress_line", "progress_shown"]

_log = logging.getLogger(__name__)

_REDRAW_S = 0.25
_LINE_S = 30.0
_MOST_BARS = 8
"""More recordings than this share one bar."""


@asynccontextmanager
async def progress_shown(monitor: Monitor) -> AsyncIterator[None]:
    """Show progress as long as the block lasts."""
    import asyncio

    bars = sys.stderr.isatty() and not sys.stdout.isatty()
    task = asyncio.create_task(_draw_bars(monitor) if bars else _log_lines(monitor), name="progress")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def progress_line(beds: Sequence[BedProgress], took_s: float) -> str:
    """Return ``37 % of 1800 s in 2 recordings, about 40 s left``; empty where no length is known."""
    done_s, total_s, count = _sums(beds)
    if not total_s:
        return ""
    recordings = counted(count, "recording")
    left = f", about {took_s * (total_s - done_s) / done_s:.0f} s left" if 0 < done_s < total_s else ""
    return f"{100 * done_s / total_s:.0f} % of {total_s:.0f} s in {recordings}{left}"


def _sums(beds: Sequence[BedProgress]) -> tuple[float, float, int]:
    known = [(bed.done_s, bed.total_s) for bed in beds if bed.total_s is not None]
    return sum(min(done, total) for done, total in known), sum(total for _, total in known), len(known)


async def _log_lines(monitor: Monitor) -> None:
    import asyncio
    import time

    began = time.monotonic()
    while True:
        await asyncio.sleep(_LINE_S)
        line = progress_line(monitor.progress(), time.monotonic() - began)
        if line:
            _log.info("%s", line)


async def _draw_bars(monitor: Monitor) -> None:
    import asyncio

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} s"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}
        while True:
            for name, done_s, total_s in _bars(monitor.progress()):
                if name not in tasks:
                    tasks[name] = bars.add_task(name, total=total_s)
                bars.update(tasks[name], completed=done_s, total=total_s)
            await asyncio.sleep(_REDRAW_S)


def _bars(beds: Sequence[BedProgress]) -> list[tuple[str, float, float]]:
    """Return name, seconds done and seconds in all of every bar."""
    if len(beds) > _MOST_BARS:
        done_s, total_s, _ = _sums(beds)
        return [(f"{len(beds)} recordings", done_s, total_s)] if total_s else []
    return [(bed.bed, bed.done_s, bed.total_s) for bed in beds if bed.total_s is not None]
