"""The front door for recordings: :func:`analyse`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from ecgnat_stream.analysis import tables
from ecgnat_stream.analysis.diagnoses import Diagnosing
from ecgnat_stream.analysis.drive import Said, monitor_recordings
from ecgnat_stream.analysis.result import Analysis
from ecgnat_stream.analysis.source import Recording, Source, open_source
from ecgnat_stream.config import BedConfig, Config, load_config
from ecgnat_stream.errors import ConfigError, EcgnatError
from ecgnat_stream.events import Beat, Event, Meta
from ecgnat_stream.model import Predictor, monitoring
from ecgnat_stream.signal import check_lead_map

__all__ = ["analyse", "analyse_many"]

_FIRST_BEATS = 8
"""Beats whose rate refines the rhythm of the beginning."""


def analyse(
    source: Source,
    *,
    fs: float | None = None,
    leads: Sequence[str] | None = None,
    units: str | None = None,
    scale: float = 1.0,
    lead_map: Mapping[str, str] | None = None,
    start_s: float | None = None,
    stop_s: float | None = None,
    config: Config | str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | Predictor | None = None,
    diagnose: bool | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> Analysis:
    """Put a whole recording through the monitor, faster than real time, and return what it says.

    Parameters
    ----------
    source
        The path of a WFDB record (with or without suffix), EDF, BDF, CSV or NPY file; an array ``(L, T)``, or ``(T,)`` of one
        lead; a ``wfdb.Record``, or what ``wfdb.rdsamp`` returns; or a pandas ``DataFrame`` with a column for each lead (one
        called time, t, sample or index is left out). Files and arrays are read in pieces, so that a recording of 24 h needs no
        memory for its samples. What is masked, NaN or infinite is missing.
    fs
        Rate in Hz, 100 to 1000, of what does not state it: arrays, tables, CSV and NPY. A source that states another is refused.
    leads
        Which leads to read; where the source has no such names, as arrays and NPY files: those of all its rows, in order.
    units
        "uV", "mV" or "V", of what does not state it. Arrays and tables of floats are taken to be in mV; those of integers, CSV
        and NPY files do not say theirs. A source that states another is refused.
    scale
        Multiplies the samples before the unit counts: microvolts per step of a converter, with ``units="uV"``.
    lead_map
        Name of a lead to one of the standard leads, or to "" to leave it out; for names that are not recognised.
    start_s, stop_s
        The part to analyse, in s. Times and samples of the result count from its beginning.
    config
        The monitor's settings, or the path of a TOML file with them; the beds and sinks in it are left out.
    model
        The network: a name, a folder, or a :class:`Predictor`, which is used and left open (with many recordings, load it once).
    diagnose
        Whether to ask the 12-lead network for diagnostic statements. None: where all twelve leads are there, or can be derived,
        and that network is installed. True refuses a recording that :func:`diagnose` refuses.
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

    Examples
    --------
    >>> import numpy as np
    >>> t = np.arange(20 * 250) / 250
    >>> samples = np.exp(-(((t % 0.8 - 0.4) / 0.02) ** 2))  # 20 s of something that beats every 0.8 s, mV at 250 Hz
    >>> analysis = analyse(samples, fs=250)
    >>> analysis
    <Analysis of samples: 20 s, 24 beats, rhythm in 1 stretch, 0 alarms>
    >>> analysis.summary().heart_rate_mean_bpm
    75.0
    """
    ((_, result),) = analyse_many(
        [source],
        fs=fs,
        leads=leads,
        units=units,
        scale=scale,
        lead_map=lead_map,
        start_s=start_s,
        stop_s=stop_s,
        config=config,
        model=model,
        diagnose=diagnose,
        progress=progress,
    )
    if isinstance(result, EcgnatError):
        raise result
    return result


def analyse_many(
    sources: Iterable[Source],
    *,
    fs: float | None = None,
    leads: Sequence[str] | None = None,
    units: str | None = None,
    scale: float = 1.0,
    lead_map: Mapping[str, str] | None = None,
    start_s: float | None = None,
    stop_s: float | None = None,
    config: Config | str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | Predictor | None = None,
    diagnose: bool | None = None,
    progress: Callable[[float, float], None] | None = None,
    at_once: int = 32,
    strict: bool = True,
) -> Iterator[tuple[Source, Analysis | EcgnatError]]:
    """Analyse many recordings, several side by side, which takes far less time than one after the other.

    Parameters
    ----------
    sources
        As for :func:`analyse`; all other settings hold for each of them.
    progress
        Called now and then with the seconds done, and those of the recordings that are side by side.
    at_once
        How many are side by side. Put recordings of like length together: each batch waits for its longest.
    strict
        Whether a source that states another rate or unit than ``fs`` and ``units``, or has no signal that ``lead_map`` names, is
        refused. Without, it keeps its own, so that a folder may hold files of both kinds.

    Yields
    ------
    tuple
        Each source, in order, with its analysis, or with the error that says why there is none; the others go on.

    Raises
    ------
    ConfigError, CheckpointError
        For settings and models that cannot be used, as :func:`analyse`.
    """
    settings = replace(_settings(config), bed=(), mqtt=None, zmq=None, record=None, history=None)
    with _network(settings, model) as predictor, ExitStack() as stack:
        diagnosing = Diagnosing(diagnose, stack)
        rest = iter(sources)
        while batch := list(islice(rest, at_once)):
            part = {"start_s": start_s, "stop_s": stop_s}
            given = {"fs": fs, "leads": leads, "units": units, "scale": scale, "strict": strict, **part}
            opened = [_opened(source, lead_map, **given) for source in batch]
            recordings = [one for one in opened if isinstance(one, Recording)]
            rows = tuple(
                BedConfig(id=_bed_id(one.name, i if len(batch) > 1 else None), device="replay", lead_map=dict(lead_map or {}))
                for i, one in enumerate(recordings)
            )
            said = iter(monitor_recordings(replace(settings, bed=rows), recordings, predictor, progress) if rows else ())
            for source, one in zip(batch, opened, strict=True):
                yield source, one if isinstance(one, EcgnatError) else _completed(one, next(said), predictor, diagnosing)


def _settings(config: Config | str | os.PathLike[str] | None) -> Config:
    if isinstance(config, str | os.PathLike):
        return load_config(config)
    if config is not None and not isinstance(config, Config):
        raise ConfigError(
            f"config is of type {type(config).__name__}: give a Config, or the path of a TOML file; parse_config of "
            "ecgnat_stream.config makes a Config of a dict"
        )
    return config or Config()


def _opened(source: Source, lead_map: Mapping[str, str] | None, **given: Any) -> Recording | EcgnatError:
    try:
        recording = open_source(source, lead_map=lead_map, **given)
        if given["strict"]:
            check_lead_map(recording.info, lead_map)
        return recording
    except EcgnatError as error:
        return error


def _completed(recording: Recording, said: Said, predictor: Predictor, diagnosing: Diagnosing) -> Analysis | EcgnatError:
    """Make tables of what was said, and look ahead where that tells more."""
    if said.error is not None:
        return said.error
    fs, length_s = recording.info.fs, recording.length_s
    signal = tables.said_of_signal(said.events)
    used_as = next(event.used_as for event in signal if isinstance(event, Meta))
    completed = _with_classes(signal, said.beginning.classes(used_as))
    beats = tables.beat_table(completed, fs)
    spans = tables.spans_of(signal)
    rhythm = said.beginning.rhythm(spans, _first_rate_bpm(beats), length_s, predictor)
    try:
        diagnoses = diagnosing.of(recording, used_as)
    except EcgnatError as error:
        return error
    return Analysis(
        name=recording.name,
        fs=fs,
        leads=recording.info.leads,
        used_as=used_as,
        length_s=length_s,
        model=predictor.path.name,
        beats=beats,
        rhythm=tables.rhythm_table(rhythm),
        quality=tables.quality_table(signal),
        vitals=tables.vitals_table(signal),
        alarms=tables.alarm_table(said.events, length_s),
        diagnoses=diagnoses,
        events=tuple(said.events),
        read=recording.read,
        notes=recording.info.notes,
    )


def _with_classes(events: Sequence[Event], classes: Sequence[str]) -> list[Event]:
    """Give the first beats the classes that looking ahead has found."""
    rest = iter(classes)
    completed: list[Event] = []
    for event in events:
        label = next(rest, None) if isinstance(event, Beat) else None
        completed.append(event if label is None else replace(event, label=label))
    return completed


def _first_rate_bpm(beats: NDArray[np.void]) -> float | None:
    """Return the heart rate of the first beats."""
    rr_ms = beats["rr_ms"][:_FIRST_BEATS]
    return float(6e4 / np.nanmedian(rr_ms)) if np.isfinite(rr_ms).any() else None


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


def _bed_id(name: str, number: int | None) -> str:
    """Return a bed id for a recording: its name, in characters that a topic can hold, numbered among several."""
    clean = re.sub(r"[^A-Za-z0-9._-]", "_", Path(name).name).lstrip("._-") or "record"
    return clean if number is None else f"{clean}-{number + 1}"
