"""The result of an analysis: tables, and what can be made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from ecgnat_stream.analysis.summary import Summary, summarise
from ecgnat_stream.annotate import END, Mark, encode, marks_of
from ecgnat_stream.errors import EcgnatError
from ecgnat_stream.events import Beat, Event
from ecgnat_stream.signal import LEADS
from ecgnat_stream.spans import RhythmSpan
from ecgnat_stream.words import counted

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Analysis", "TableName"]

TableName = Literal["beats", "rhythm", "quality", "vitals", "alarms", "diagnoses"]

_TABLES: tuple[TableName, ...] = ("beats", "rhythm", "quality", "vitals", "alarms", "diagnoses")


@dataclass(frozen=True, eq=False, repr=False)
class Analysis:
    """What the monitor says of a whole recording. Times are in s from its first sample.

    The tables are NumPy structured arrays: ``analysis.beats["time_s"]`` is a column, ``analysis.beats[0]`` a row.

    Parameters
    ----------
    name, fs, leads, used_as, length_s, model
        The recording: its name, rate in Hz, the names of its leads and the standard lead each is taken for (None: left out),
        its length in s; and the network.
    beats
        ``sample, time_s, label, rr_ms, lead``: QRS complexes in the order of time. Classes are completed by looking ahead: the
        monitor calls the first beats "Q", since it has nothing to compare them with.
    rhythm
        ``start_s, stop_s, label, probability``: stretches of one rhythm, ascending, disjoint; labels are keys of
        ``codes.RHYTHM_TEXTS``. Completed by looking ahead to the beginning and the end of the recording.
    quality
        ``at_s, usable, best_lead, sqi, state``: one row a second, of the second before; ``sqi`` and ``state`` have a value for
        each of the twelve ``LEADS``.
    vitals
        ``at_s, heart_rate_bpm, pvc_per_min``: what is shown each second, NaN for nothing.
    alarms
        ``condition, priority, kind, start_s, stop_s, lead``.
    diagnoses
        ``statement, text, probability, made``; empty if the 12-lead network was not asked.
    events
        The events as the monitor published them, equal to those of ``ecgnat replay --speed max``; nothing in them is completed.
    read
        ``read(start, stop)`` gives samples ``(L, stop - start)`` in mV; the analysis holds none itself.
    notes
        What a person should know of the recording: what it does not say and what is taken for it, and what is left out.
    """

    name: str
    fs: float
    leads: tuple[str, ...]
    used_as: tuple[str | None, ...]
    length_s: float
    model: str
    beats: NDArray[np.void]
    rhythm: NDArray[np.void]
    quality: NDArray[np.void]
    vitals: NDArray[np.void]
    alarms: NDArray[np.void]
    diagnoses: NDArray[np.void]
    events: tuple[Event, ...]
    read: Callable[[int, int], NDArray[np.float32]]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Say what it is in one line."""
        stretches = f"{len(self.rhythm)} stretch{'' if len(self.rhythm) == 1 else 'es'}"
        return (
            f"<Analysis of {self.name}: {self.length_s:.4g} s, {counted(len(self.beats), 'beat')}, rhythm in {stretches}, "
            f"{counted(len(self.alarms), 'alarm')}>"
        )

    def summary(self) -> Summary:
        """Return the figures that the recording comes to; ``print`` them for a readable block."""
        return summarise(self)

    def to_frame(self, table: TableName) -> pd.DataFrame:
        """Return one table as a pandas data frame; quality has a column per lead: ``sqi_II``, ``state_II``.

        Raises
        ------
        EcgnatError
            Without pandas.
        ValueError
            For a table that does not exist.
        """
        if table not in _TABLES:
            raise ValueError(f"no table {table!r}: there are {', '.join(_TABLES)}")
        try:
            import pandas as pd
        except ImportError as error:
            raise EcgnatError("to_frame() needs pandas: pip install pandas. Without it, use the NumPy tables") from error
        rows: NDArray[np.void] = getattr(self, table)
        columns: dict[str, Any] = {}
        for name in rows.dtype.names or ():
            if rows[name].ndim == 1:
                columns[name] = rows[name]
            else:
                columns |= {f"{name}_{lead}": rows[name][:, i] for i, lead in enumerate(LEADS) if lead in self.used_as}
        return pd.DataFrame(columns)

    def plot(self, start_s: float | None = None, stop_s: float | None = None, leads: Sequence[str] | None = None) -> Figure:
        """Draw the heart rate over the recording, and strips on ECG paper, 25 mm/s and 10 mm/mV; return the matplotlib figure.

        ``analysis.plot().savefig("200.pdf")`` has the true size on paper; a notebook shows what a cell returns.

        Parameters
        ----------
        start_s, stop_s
            Draw this part whole. Left out: all of a recording up to a minute, and strips of what stands out in a longer one.
        leads
            Standard leads to draw. Left out: all for a part or a short recording, else the one of the best quality.

        Raises
        ------
        EcgnatError
            Without matplotlib.
        InputError
            For leads that are not there, or a part outside the recording.
        """
        from ecgnat_stream.analysis.plot import draw

        return draw(self, start_s, stop_s, leads)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the events as dictionaries and lists; None for what has no value."""
        about = {"name": self.name, "fs": self.fs, "leads": self.leads, "used_as": self.used_as}
        about |= {"length_s": round(self.length_s, 3), "model": self.model, "summary": msgspec.to_builtins(self.summary())}
        return about | {table: [_row(row) for row in getattr(self, table)] for table in _TABLES}

    def to_json(self) -> str:
        """Return the summary and all tables as JSON."""
        return msgspec.json.encode(self.to_dict()).decode()

    def to_wfdb(self, folder: str | Path, extension: str = "ecg") -> Path:
        """Write beats, rhythm, quality and alarms as WFDB annotations; return the file, ``folder/name.extension``.

        They reach from the first to the last second, completed as in the tables. Samples count as in the recording.

        Raises
        ------
        EcgnatError
            If the file cannot be written.
        """
        path = Path(folder) / f"{self.name}.{extension}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(self._marks()) + END)
        except OSError as error:
            raise EcgnatError(f"{path}: cannot be written ({error.strerror})") from error
        return path

    def _marks(self) -> list[Mark]:
        label = dict(zip(self.beats["sample"].tolist(), self.beats["label"].tolist(), strict=True))
        events = (replace(event, label=label[event.sample]) if isinstance(event, Beat) else event for event in self.events)
        return marks_of(events, self.fs, [RhythmSpan(*row) for row in self.rhythm.tolist()])


def _row(row: np.void) -> dict[str, Any]:
    return {name: _plain(row[name]) for name in row.dtype.names or ()}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(part) for part in value]
    if isinstance(value, np.floating):
        return round(float(value), 4) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
