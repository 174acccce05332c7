"""Diagnostic statements about twelve leads: :func:`diagnose`.

The network reads windows of 10 s; a longer recording is read at places spread over it, and the probabilities are averaged.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.analysis import tables
from ecgnat_stream.analysis.source import Recording, Source, open_source, standard_leads
from ecgnat_stream.beats import find_beats
from ecgnat_stream.codes import STATEMENT_TEXTS
from ecgnat_stream.condition import condition_record
from ecgnat_stream.errors import CheckpointError, InputError
from ecgnat_stream.model import ModelConfig, Predictor
from ecgnat_stream.signal import LEADS, MODEL_FS, Conditioned, assign_leads
from ecgnat_stream.weights import installed

__all__ = ["TWELVE_LEADS", "Diagnosing", "diagnose", "has_twelve_leads"]

TWELVE_LEADS = "ecgnat-nano-12lead"
"""The network that was trained for diagnoses alone."""

_WINDOW_S = 10.0
_MOST_WINDOWS = 30
_RUN_IN_S = 4.0
"""Signal before a window in the midst of a recording, in which the high-pass settles, s."""

_LEAST_S = 5.0
"""Signal of all twelve leads in a window, s. Of less, it says little but what is frequent."""

_EDGE_S = 0.4
"""What filters and resampling take from the ends of a recording, s."""

_DEFAULT_THRESHOLD = 0.5


def diagnose(
    source: Source,
    *,
    fs: float | None = None,
    leads: Sequence[str] | None = None,
    units: str | None = None,
    lead_map: Mapping[str, str] | None = None,
    start_s: float | None = None,
    stop_s: float | None = None,
    model: str | os.PathLike[str] | Predictor = TWELVE_LEADS,
) -> NDArray[np.void]:
    """Return what a network states about the twelve leads of a recording, best of 10 s.

    It is conditioned, resampled and cut as the network was trained. V1 to V6 and two limb leads must be there, from which the
    others follow, and at least 5 s in which none of them is off.

    Parameters
    ----------
    source, fs, leads, units, lead_map, start_s, stop_s
        As for :func:`analyse`.
    model
        The network: a name, a folder, or a :class:`Predictor`, which is used and left open.

    Returns
    -------
    ndarray
        Structured, one row a statement: ``statement, text, probability, made``; made if the probability reaches the threshold
        of the network's card.

    Raises
    ------
    InputError
        If leads are missing, or there is too little of them; and as for :func:`analyse`.
    DeviceError, ConfigError, CheckpointError
        As for :func:`analyse`; a network that was not trained for statements is refused.

    Examples
    --------
    >>> import numpy as np
    >>> t = np.arange(10 * 250) / 250
    >>> samples = np.exp(-(((t % 0.8 - 0.4) / 0.02) ** 2)) * np.linspace(0.5, 1.5, 12)[:, None]
    >>> diagnose(samples, fs=250, leads=LEADS)["statement"].tolist()
    ['NORM', 'MI', 'STTC', 'CD', 'HYP']
    """
    recording = open_source(source, fs=fs, leads=leads, units=units, start_s=start_s, stop_s=stop_s, lead_map=lead_map)
    slots = assign_leads(recording.info.leads, lead_map, recorded=recording.info.recorded)
    used_as = [None if slot is None else LEADS[slot] for slot in slots]
    _check_leads(recording, used_as)
    windows = _needed(recording, used_as)
    with ExitStack() as stack:
        return _statements(windows, _network(model, stack))


class Diagnosing:
    """Asks for diagnoses within an analysis; the network is loaded when the first recording needs it.

    Parameters
    ----------
    wish
        True: of every recording, and one that cannot be asked about is refused; False: of none; None: of those with enough of
        twelve leads, if the network is installed.
    stack
        Closes the network.
    """

    def __init__(self, wish: bool | None, stack: ExitStack) -> None:
        self._wish, self._stack = wish, stack
        self._predictor: Predictor | None = None

    def of(self, recording: Recording, used_as: Sequence[str | None]) -> NDArray[np.void]:
        """Return the statements about one recording, without a row if it is not to be asked about.

        Raises
        ------
        InputError
            If it is to be asked about, and leads are missing, or there is too little of them.
        """
        if self._wish:
            _check_leads(recording, used_as)
            windows = _needed(recording, used_as)
        elif self._wish is None and has_twelve_leads(used_as) and TWELVE_LEADS in installed():
            windows = _windows(recording, used_as)
        else:
            return tables.no_diagnoses()
        if not len(windows):
            return tables.no_diagnoses()
        self._predictor = self._predictor or _network(TWELVE_LEADS, self._stack)
        return _statements(windows, self._predictor)


def has_twelve_leads(used_as: Sequence[str | None]) -> bool:
    """Return whether all leads are there: V1 to V6, and two of the limb leads, from which the others follow."""
    there = {lead for lead in used_as if lead}
    return there >= set(LEADS[6:]) and len(there & set(LEADS[:6])) >= 2


def _check_leads(recording: Recording, used_as: Sequence[str | None]) -> None:
    there = {lead for lead in used_as if lead}
    if has_twelve_leads(used_as):
        return
    missing = [lead for lead in LEADS[6:] if lead not in there]
    limbs = 2 - len(there & set(LEADS[:6]))
    if limbs > 0:
        missing.append("two limb leads" if limbs == 2 else "one more limb lead")
    has = ", ".join(lead for lead in LEADS if lead in there) or "none"
    raise InputError(
        f"{recording.name}: diagnoses need V1 to V6 and two of the limb leads ({', '.join(LEADS[:6])}). It has {has}; missing: "
        f"{', '.join(missing)}. If it has them under other names, say so with lead_map"
    )


def _needed(recording: Recording, used_as: Sequence[str | None]) -> NDArray[np.float32]:
    """Return the windows that can be asked about; at least one."""
    windows = _windows(recording, used_as)
    if not len(windows):
        raise InputError(
            f"{recording.name}: diagnoses need at least {_LEAST_S:g} s in which none of the twelve leads is off; it is "
            f"{recording.length_s:.3g} s long and has nowhere so much"
        )
    return windows


def _network(model: str | os.PathLike[str] | Predictor, stack: ExitStack) -> Predictor:
    predictor = model if isinstance(model, Predictor) else stack.enter_context(Predictor(ModelConfig(name=os.fspath(model))))
    if "window" not in predictor.card.heads or not predictor.window_classes:
        raise CheckpointError(
            f"{predictor.path.name} states no diagnoses: of its heads {', '.join(predictor.card.heads)} were trained; "
            f"take {TWELVE_LEADS}"
        )
    return predictor


def _windows(recording: Recording, used_as: Sequence[str | None]) -> NDArray[np.float32]:
    """Return ``(B, 12, T)``: the windows that hold enough of all leads."""
    windows = np.stack([_window(recording, used_as, start_s) for start_s in _starts(recording.length_s)])
    whole_s = np.isfinite(windows).all(axis=1).sum(axis=1) / MODEL_FS
    enough: NDArray[np.bool_] = (whole_s >= _LEAST_S - _EDGE_S) & (recording.length_s >= _LEAST_S)
    chosen: NDArray[np.float32] = windows[enough]
    return chosen


def _statements(windows: NDArray[np.float32], predictor: Predictor) -> NDArray[np.void]:
    answer = predictor.predict(Conditioned(windows, MODEL_FS), find_beats(windows) if predictor.needs_beats else None)
    probability = answer.window.mean(axis=0)
    thresholds = predictor.card.calibration.window_thresholds or (_DEFAULT_THRESHOLD,) * len(probability)
    rows = [
        (name, STATEMENT_TEXTS.get(name, name), p, p >= threshold)
        for name, p, threshold in zip(predictor.window_classes, probability.tolist(), thresholds, strict=True)
    ]
    return np.array(rows, tables.DIAGNOSES)


def _starts(length_s: float) -> list[float]:
    """Return where windows start: end to end, or so many spread over the recording."""
    last = max(0.0, length_s - _WINDOW_S)
    count = min(_MOST_WINDOWS, int(last // _WINDOW_S) + 1)
    return [0.0] if count == 1 else [float(start) for start in np.linspace(0.0, last, count)]


def _window(recording: Recording, used_as: Sequence[str | None], start_s: float) -> NDArray[np.float32]:
    """Return ``(12, T)`` at 100 Hz, NaN where there is nothing."""
    fs = recording.info.fs
    begin_s = max(0.0, start_s - _RUN_IN_S)
    begin, stop = round(begin_s * fs), min(recording.total, round((start_s + _WINDOW_S + 0.2) * fs))
    y = condition_record(standard_leads(recording.read(begin, stop), used_as), fs).at(MODEL_FS).samples
    y = y[:, round((start_s - begin_s) * MODEL_FS) :]
    window = np.full((len(LEADS), round(_WINDOW_S * MODEL_FS)), np.nan, np.float32)
    there = y[:, : window.shape[1]]
    window[:, : there.shape[1]] = there
    return window
