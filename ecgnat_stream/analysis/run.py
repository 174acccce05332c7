"""The front door for recordings: :func:`analyse`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ecgnat_stream.analysis import tables
from ecgnat_stream.analysis.drive import monitor_recording
from ecgnat_stream.analysis.result import Analysis
from ecgnat_stream.analysis.source import WfdbRecord, open_source
from ecgnat_stream.config import BedConfig, Config
from ecgnat_stream.events import Meta
from ecgnat_stream.model import Predictor, monitoring

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["analyse"]


def analyse(
    source: str | os.PathLike[str] | ArrayLike | WfdbRecord,
    *,
    fs: float | None = None,
    leads: Sequence[str] | None = None,
    units: str | None = None,
    lead_map: Mapping[str, str] | None = None,
    start_s: float | None = None,
    stop_s: float | None = None,
    config: Config | None = None,
    model: str | os.PathLike[str] | Predictor | None = None,
    diagnose: bool | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> Analysis:
    """Put a whole recording through the monitor, faster than real time, and return what it says.

    Parameters
    ----------
    source
        The path of a WFDB record (with or without suffix), EDF, BDF, CSV or NPY file; an array ``(L, T)``, or ``(T,)`` of one
        lead; or a ``wfdb.Record``. Files and arrays are read in pieces, so that a recording of 24 h needs no memory for its
        samples.
    fs
        Rate in Hz, 100 to 1000. Arrays, CSV and NPY do not say theirs; of other files it replaces what they say.
    leads
        Names of the rows of an array, or of the columns of a CSV or NPY file; of other files, which of their leads to read.
    units
        "uV", "mV" or "V". Arrays of floats are taken to be in mV; CSV and NPY files, and arrays of integers, do not say theirs.
    lead_map
        Name of a lead to one of the standard leads, or to "" to leave it out; for names that are not recognised.
    start_s, stop_s
        The part to analyse, in s. Times and samples of the result count from its beginning.
    config
        The monitor's settings; the beds and sinks in it are left out.
    model
        The network: a name, a folder, or a :class:`Predictor`, which is used and left open (with many recordings, load it once).
    diagnose
        Whether to ask the 12-lead network for diagnostic statements. None: where all twelve leads are there, or can be derived,
        and that network is installed.
    progress
        Called now and then with the seconds done, and those of the recording.

    Raises
    ------
    InputError
        For samples that cannot be analysed as they were given. It is a ``ValueError``, and an ``EcgnatError`` as all of these.
    DeviceError
        For a file that does not exist or cannot be read.
    ConfigError
        For leads or settings that cannot be used.
    CheckpointError
        For a model that cannot be loaded, or that was not trained to name rhythms.
    """
    recording = open_source(source, fs=fs, leads=leads, units=units, start_s=start_s, stop_s=stop_s)
    bed = BedConfig(id=_bed_id(recording.name), device="replay", lead_map=dict(lead_map or {}))
    settings = replace(config or Config(), bed=(bed,), mqtt=None, zmq=None, record=None, history=None)
    with _network(settings, model) as predictor:
        events = monitor_recording(settings, recording, predictor, progress=progress)
        name = predictor.path.name
    said = tables.said_of_signal(events)
    meta = next(event for event in said if isinstance(event, Meta))
    return Analysis(
        name=recording.name,
        fs=recording.info.fs,
        leads=recording.info.leads,
        used_as=meta.used_as,
        length_s=recording.length_s,
        model=name,
        beats=tables.beat_table(said, recording.info.fs),
        rhythm=tables.rhythm_table(tables.spans_of(said)),
        quality=tables.quality_table(said),
        vitals=tables.vitals_table(said),
        alarms=tables.alarm_table(events, recording.length_s),
        diagnoses=tables.no_diagnoses(),
        events=tuple(events),
        read=recording.read,
    )


@contextmanager
def _network(config: Config, model: str | os.PathLike[str] | Predictor | None) -> Iterator[Predictor]:
    """Yield the network that names the rhythm; one that was given is left open."""
    if isinstance(model, Predictor):
        monitoring(str(model.path))
        yield model
        return
    chosen = config.model if model is None else replace(config.model, name=os.fspath(model))
    monitoring(chosen.name)
    with Predictor(chosen) as predictor:
        yield predictor


def _bed_id(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", Path(name).name).lstrip("._-") or "record"
