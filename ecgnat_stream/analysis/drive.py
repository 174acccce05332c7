"""A recording through the ward, without asyncio: what the monitor says when it replays one bed as fast as it can.

The steps are those of :class:`~ecgnat_stream.monitor.Monitor` for a source that waits: deliver, work on frames, ask the network,
end. One batch is with the network while the next frames are worked on, and which windows make up a batch depends on the recording
alone, so that an analysis gives the same each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future

import numpy as np

from ecgnat_stream.analysis.source import Recording
from ecgnat_stream.bus import Published
from ecgnat_stream.clock import SystemClock
from ecgnat_stream.config import Config
from ecgnat_stream.device import LinkState
from ecgnat_stream.events import Event
from ecgnat_stream.model import Prediction, Predictor
from ecgnat_stream.signal import SampleBlock, StreamInfo, Window
from ecgnat_stream.ward import Ward

__all__ = ["monitor_recording"]

_PIECE_S = 60.0
"""Signal read at a time, s."""


def monitor_recording(
    config: Config,
    recording: Recording,
    predictor: Predictor,
    *,
    answered: Callable[[list[Window], Prediction], None] | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> list[Event]:
    """Return what the monitor says of a recording, in order.

    Parameters
    ----------
    config
        With one bed, which takes the recording.
    answered
        Called with every batch of windows and the network's answer.
    progress
        Called now and then with the seconds done, and those of the recording.

    Raises
    ------
    ConfigError
        For leads that cannot be assigned.
    DeviceError
        If the recording cannot be read to its end.
    """
    events: list[Event] = []

    def keep(event: Published) -> None:
        if isinstance(event, Event):
            events.append(event)

    ward = Ward(config, SystemClock(), keep)
    waiting: tuple[list[Window], Future[Prediction]] | None = None
    for item in _said_by(recording):
        for part in ward.parts(0, item):
            while not ward.make_way(0, part):
                while ward.advance():
                    pass
                if waiting is not None:
                    windows, answer = waiting[0], waiting[1].result()
                    ward.apply(windows, answer, predictor.path.name)
                    if answered is not None:
                        answered(windows, answer)
                windows = ward.next_batch()
                waiting = (windows, _ask(predictor, windows)) if windows else None
                if progress is not None:
                    progress(ward.progress()[0].done_s, recording.length_s)
            ward.accept(0, part)
    return events


def _said_by(recording: Recording) -> Iterator[StreamInfo | SampleBlock | LinkState]:
    """Yield what a device that replays it would say."""
    yield LinkState("connecting", session=1)
    yield recording.info
    yield LinkState("online", session=1)
    piece = round(_PIECE_S * recording.info.fs)
    for start in range(0, recording.total, piece):
        yield SampleBlock(start, recording.read(start, min(start + piece, recording.total)), 0)
    yield LinkState("ended", session=1)


def _ask(predictor: Predictor, windows: list[Window]) -> Future[Prediction]:
    samples = np.stack([window.samples for window in windows])
    beats = np.full((len(windows), max(1, *(len(window.beats) for window in windows))), np.nan, np.float32)
    for row, window in zip(beats, windows, strict=True):
        row[: len(window.beats)] = window.beats
    return predictor.submit(samples, beats)
