"""Recordings through one ward, without asyncio: what the monitor says when it replays them as fast as it can.

Each recording is a bed. The steps are those of :class:`~ecgnat_stream.monitor.Monitor` for sources that wait: hand over, work on
frames, ask the network, end. One batch is with the network while the next frames are worked on, and which windows make up a batch
depends on the recordings alone, so that an analysis gives the same each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from ecgnat_stream.analysis.ahead import Beginning
from ecgnat_stream.analysis.source import Recording
from ecgnat_stream.bus import Published
from ecgnat_stream.clock import SystemClock
from ecgnat_stream.config import Config
from ecgnat_stream.device import OPENING, LinkState
from ecgnat_stream.errors import EcgnatError
from ecgnat_stream.events import Event
from ecgnat_stream.model import Prediction, Predictor
from ecgnat_stream.signal import SampleBlock, StreamInfo, Window
from ecgnat_stream.ward import FrameResult, Ward

__all__ = ["Said", "monitor_recordings"]

_PIECE_S = 60.0
"""Signal read at a time, s."""

_Item = StreamInfo | SampleBlock | LinkState


@dataclass(slots=True)
class Said:
    """What the monitor said of one recording.

    Parameters
    ----------
    events
        In order.
    beginning
        What looking ahead makes of its first seconds.
    error
        Why it could not be monitored to its end; None if it was.
    """

    beginning: Beginning
    events: list[Event] = field(default_factory=list)
    error: EcgnatError | None = None


def monitor_recordings(
    config: Config,
    recordings: Sequence[Recording],
    predictor: Predictor,
    progress: Callable[[float, float], None] | None = None,
) -> list[Said]:
    """Return what the monitor says of each recording.

    Parameters
    ----------
    config
        With one bed per recording, in the same order.
    progress
        Called now and then with the seconds done, and those of all recordings.
    """
    said = [Said(Beginning(config)) for _ in recordings]
    of_bed = {config.name_of(bed): one.events for bed, one in zip(config.bed, said, strict=True)}

    def keep(event: Published) -> None:
        if isinstance(event, Event) and event.bed in of_bed:
            of_bed[event.bed].append(event)

    def watch(step: FrameResult) -> None:
        for i, row in enumerate(step.rows.tolist()):
            said[row].beginning.see(step, i)

    ward = Ward(config, SystemClock(), keep, run="analysis", watch=watch, mode=predictor.mode)
    network = _Network(ward, predictor, said)
    total_s = sum(recording.length_s for recording in recordings)
    items = [_parts(ward, row, recording) for row, recording in enumerate(recordings)]
    following: list[_Item | None] = [next(parts) for parts in items]
    while any(item is not None for item in following):
        for row, parts in enumerate(items):
            try:
                while (item := following[row]) is not None and ward.make_way(row, item):
                    ward.accept(row, item)
                    following[row] = next(parts, None)
            except EcgnatError as error:
                said[row].error, following[row] = error, None
        while ward.advance():
            pass
        network.exchange()
        if progress is not None:
            progress(sum(bed.done_s for bed in ward.progress()), total_s)
    return said


def _parts(ward: Ward, row: int, recording: Recording) -> Iterator[_Item]:
    """Yield what a device that replays the recording would say, in parts that the ward takes."""
    recorded = recording.info.recorded
    yield LinkState("connecting", OPENING if recorded else "", 1, recorded)
    yield recording.info
    yield LinkState("online", session=1)
    piece = round(_PIECE_S * recording.info.fs)
    for start in range(0, recording.total, piece):
        samples = recording.read(start, min(start + piece, recording.total))
        if start == 0 or not np.isnan(samples).all():  # a long hole takes no time: the index jumps
            yield from ward.parts(row, SampleBlock(start, samples, 0))
    yield LinkState("ended", session=1)


class _Network:
    """Takes windows from the ward to the network and answers back, one batch at a time."""

    def __init__(self, ward: Ward, predictor: Predictor, said: Sequence[Said]) -> None:
        self._ward, self._predictor, self._said = ward, predictor, said
        self._reader = predictor.reader(len(said))
        self._waiting: tuple[list[Window], Future[Prediction]] | None = None

    def exchange(self) -> None:
        """Bring the answer to the last batch, and ask for the next."""
        if self._waiting is not None:
            windows, answer = self._waiting[0], self._waiting[1].result()
            self._ward.apply(windows, answer, self._predictor.path.name)
            for i, window in enumerate(windows):
                self._said[window.row].beginning.hear(window, answer, i)
        windows = self._ward.next_batch()
        self._waiting = (windows, self._reader.submit(windows)) if windows else None
