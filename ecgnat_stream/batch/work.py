"""A batch of recordings: analysed side by side, and what is asked for written, in a process that loads its network once."""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from ecgnat_stream import __version__
from ecgnat_stream.analysis import Analysis, Summary, analyse_many
from ecgnat_stream.batch.choose import RecordingFile
from ecgnat_stream.config import Config
from ecgnat_stream.errors import EcgnatError
from ecgnat_stream.model import Predictor, monitoring

__all__ = ["Order", "Result", "Worker", "page_of", "write_whole"]

_TELL_S = 0.5
"""Time between two reports on a batch, s."""

_MOST_SHARE = 0.99
"""A batch is done when its last result is there."""


_ASKED = ("fs", "units", "scale", "leads", "lead_map", "start_s", "stop_s", "diagnose", "config")
"""What an analysis depends on."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for, for all recordings alike.

    Parameters
    ----------
    fs, units, scale, leads, lead_map, start_s, stop_s, diagnose, strict
        As :func:`ecgnat_stream.analyse_many` takes them.
    config
        Settings, the network's among them.
    json
        Whether results hold the whole analysis as JSON.
    html, annotations, plots
        Folders for pages, WFDB annotations and pictures.
    """

    fs: float | None = None
    units: str | None = None
    scale: float = 1.0
    leads: tuple[str, ...] | None = None
    lead_map: dict[str, str] = {}
    start_s: float | None = None
    stop_s: float | None = None
    diagnose: bool | None = None
    strict: bool = False
    config: Config = msgspec.field(default_factory=Config)
    json: bool = False
    html: Path | None = None
    annotations: Path | None = None
    plots: Path | None = None

    def fingerprint(self) -> str:
        """Return what is the same for orders that give the same analysis."""
        asked = {name: getattr(self, name) for name in _ASKED}
        # Not msgspec: the name of a network's folder may hold bytes that are no text.
        text = json.dumps([__version__, msgspec.to_builtins(asked)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def files_of(self, recording: RecordingFile) -> list[Path]:
        """Return the files that are written for a recording."""
        name = recording.name
        places = ((self.html, page_of(name)), (self.annotations, f"{name}.ecg"), (self.plots, f"{name}.png"))
        return [folder / place for folder, place in places if folder is not None]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one recording.

    Parameters
    ----------
    summary
        None if it could not be analysed.
    error
        Why not.
    notes
        What a person should know of the recording.
    unwritten
        What could not be written of an analysis, and why.
    signals
        Names of its ECG signals, as the recording has them.
    analysis
        Everything as JSON, where that is asked for.
    """

    recording: RecordingFile
    summary: Summary | None = None
    error: str = ""
    notes: tuple[str, ...] = ()
    unwritten: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()
    analysis: bytes = b""


def page_of(name: str) -> str:
    """Return where the page of a recording is, from the folder of all pages."""
    return f"records/{name}.html"


class Worker:
    """Analyses batches of recordings, with one network.

    Raises
    ------
    EcgnatError
        If the network cannot be loaded.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        monitoring(order.config.model.name)
        self._predictor = Predictor(order.config.model)

    def work(self, batch: Sequence[RecordingFile], tell: Callable[[float], None]) -> Iterator[Result]:
        """Analyse recordings side by side and write their files; what is wrong with one is in its result.

        Parameters
        ----------
        tell
            Called now and then with the share of the batch that is done.
        """
        told = time.monotonic()

        def progress(done_s: float, total_s: float) -> None:
            nonlocal told
            if time.monotonic() - told >= _TELL_S:
                told = time.monotonic()
                tell(min(_MOST_SHARE, done_s / total_s))

        order = self._order
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what is questioned is in the notes of each analysis
            analyses = analyse_many(
                [recording.path for recording in batch],
                fs=order.fs,
                units=order.units,
                scale=order.scale,
                leads=order.leads,
                lead_map=order.lead_map or None,
                start_s=order.start_s,
                stop_s=order.stop_s,
                config=order.config,
                model=self._predictor,
                diagnose=order.diagnose,
                progress=progress,
                at_once=len(batch),
                strict=order.strict,
            )
            for recording, (_, found) in zip(batch, analyses, strict=True):
                yield self._finish(recording, found)

    def _finish(self, recording: RecordingFile, found: Analysis | EcgnatError) -> Result:
        if isinstance(found, EcgnatError):
            return Result(recording=recording, error=str(found))
        unwritten = tuple(_write(self._order, recording, found))
        text = found.to_json().encode() if self._order.json else b""
        return Result(
            recording=recording,
            summary=found.summary(),
            notes=found.notes,
            unwritten=unwritten,
            signals=tuple(found.leads),
            analysis=text,
        )


def _write(order: Order, recording: RecordingFile, analysis: Analysis) -> Iterator[str]:
    """Write what is asked for; yield what could not be written."""
    for asked, write in ((order.html, _write_page), (order.annotations, _write_marks), (order.plots, _write_picture)):
        if asked is not None:
            try:
                write(asked, recording, analysis)
            except EcgnatError as error:
                yield str(error)


def _write_page(folder: Path, recording: RecordingFile, analysis: Analysis) -> None:
    from ecgnat_stream.report.page import record_page

    page = record_page(analysis, recording.name, Path(recording.path).name)
    write_whole(folder / page_of(recording.name), page.encode("utf-8", "replace"))


def _write_marks(folder: Path, recording: RecordingFile, analysis: Analysis) -> None:
    marks = folder / f"{recording.name}.ecg"
    replace(analysis, name=Path(recording.name).name).to_wfdb(marks.parent)


def _write_picture(folder: Path, recording: RecordingFile, analysis: Analysis) -> None:
    figure, picture = analysis.plot(), io.BytesIO()
    figure.savefig(picture, format="png")
    write_whole(folder / f"{recording.name}.png", picture.getvalue())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all; a pipe or a device takes what is written.

    Raises
    ------
    EcgnatError
        If it cannot be written.
    """
    whole = Path(os.path.realpath(path))
    part = whole.with_name(f".{whole.name}.{os.getpid()}.part")
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            path.write_bytes(content)
            return
        whole.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(content)
            part.replace(whole)
        finally:
            if part.exists():
                part.unlink()
    except OSError as error:
        raise EcgnatError(f"{path}: cannot be written ({error.strerror})") from error
