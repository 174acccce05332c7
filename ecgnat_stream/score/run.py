"""Records through the real monitor: replayed as fast as it works, several beds at once, everything it says kept.

What is measured is what runs at a bed: the same configuration, the same stages, the same network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from ecgnat_stream.bus import Published
from ecgnat_stream.clock import SystemClock
from ecgnat_stream.config import BedConfig, Config, parse_config
from ecgnat_stream.events import Alarm, Beat, Event, Meta, Quality, Rhythm
from ecgnat_stream.monitor import Monitor
from ecgnat_stream.score.spans import Span
from ecgnat_stream.spans import AlarmSpan, RhythmSpan, alarm_spans, rhythm_spans, unusable_spans

__all__ = ["Observed", "RecordTask", "batches", "monitor", "settings"]


_BED_AND_SINKS = ("bed", "site", "unit", "worker", "dashboard", "mqtt", "zmq", "record", "history")


class RecordTask(NamedTuple):
    """One record to replay: its identity, its path without suffix, how long it is."""

    key: tuple[str, str]
    path: Path
    length_s: float


@dataclass(frozen=True, slots=True)
class Observed:
    """What the monitor said of one record, in s of its stream.

    Parameters
    ----------
    beats_s, classes
        ``(N,)`` QRS complexes in order of time, and their EC57 classes.
    rhythm
        See :func:`~ecgnat_stream.spans.rhythm_spans`.
    unusable
        Stretches in which the monitor called the signal unusable.
    alarms
        See :func:`~ecgnat_stream.spans.alarm_spans`.
    events
        Everything that annotations are made of, in order.
    """

    beats_s: NDArray[np.float64]
    classes: list[str]
    rhythm: list[RhythmSpan]
    unusable: list[Span]
    alarms: list[AlarmSpan]
    events: list[Event]
    model: str = ""

    def labelled(self, label: str) -> list[Span]:
        """Return where the rhythm had this label."""
        return [(span.start_s, span.stop_s) for span in self.rhythm if span.label == label]

    def alarmed(self, condition: str) -> list[Span]:
        """Return where this alarm was on."""
        return [(alarm.start_s, alarm.stop_s) for alarm in self.alarms if alarm.condition == condition]


def settings(table: Mapping[str, Any], model: Mapping[str, str]) -> Config:
    """Return the configuration that is measured: that of a file's table without its beds and sinks, or the default.

    ``model`` goes before what the file says of the network.
    """
    kept = {key: value for key, value in table.items() if key not in _BED_AND_SINKS}
    if model:
        kept["model"] = {**kept.get("model", {}), **model}
    return parse_config(kept, "score")


def batches(tasks: Sequence[RecordTask], at_once: int, short_s: float = 0.0, factor: int = 1) -> Iterator[list[RecordTask]]:
    """Put records of like length together, so that no bed of a batch waits long for the others to end.

    Of records not longer than ``short_s``, ``factor`` times as many.
    """
    order = sorted(tasks, key=lambda task: -task.length_s)
    while order:
        number = at_once * (factor if order[0].length_s <= short_s else 1)
        yield order[:number]
        order = order[number:]


async def monitor(
    config: Config, tasks: Sequence[RecordTask], said: Callable[[float], None]
) -> dict[tuple[str, str], Observed | str]:
    """Replay records, each on a bed of its own, and return what was said of each; a text tells why one could not be replayed.

    Parameters
    ----------
    said
        Called now and then with how many seconds of the batch have been monitored.

    Raises
    ------
    EcgnatError
        If the monitor cannot run at all.
    """
    beds = tuple(
        BedConfig(id=f"r{i}", device="replay", options={"path": str(task.path.resolve()), "speed": "max"})
        for i, task in enumerate(tasks)
    )
    instance = Monitor(replace(config, bed=beds), SystemClock())
    events: dict[str, list[Event]] = {name: [] for name in instance.beds}

    def keep(event: Published) -> None:
        assert isinstance(event, Event)
        if event.bed in events:
            events[event.bed].append(event)

    instance.bus.listen(keep, Meta, Beat, Rhythm, Alarm, Quality)
    watching = asyncio.create_task(_watch(instance, said))
    try:
        await instance.run()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    general = "; ".join(f"{what}: {why}" for what, why in instance.failures.items() if what not in events)
    found: dict[tuple[str, str], Observed | str] = {}
    for task, bed in zip(tasks, instance.beds, strict=True):
        trouble = instance.failures.get(bed) or general
        found[task.key] = trouble or _observed(events[bed], task.length_s, instance.model)
    return found


async def _watch(instance: Monitor, said: Callable[[float], None]) -> None:
    while True:
        await asyncio.sleep(1.0)
        said(sum(progress.done_s for progress in instance.progress()))


def _observed(events: list[Event], length_s: float, model: str) -> Observed:
    fs = next((event.fs for event in events if isinstance(event, Meta)), 1.0)
    beats = sorted((event.sample / fs, event.label) for event in events if isinstance(event, Beat))
    return Observed(
        beats_s=np.array([at_s for at_s, _ in beats], np.float64),
        classes=[label for _, label in beats],
        rhythm=rhythm_spans(event for event in events if isinstance(event, Rhythm)),
        unusable=unusable_spans((event for event in events if isinstance(event, Quality)), length_s),
        alarms=alarm_spans((event for event in events if isinstance(event, Alarm)), length_s),
        events=events,
        model=model,
    )
