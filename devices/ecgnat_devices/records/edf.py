"""EDF, EDF+ and BDF (Kemp et al. 1992, Kemp and Olivan 2003; BioSemi)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyedflib

from ecgnat_devices.records.contents import Asked, Contents, Signal, Values, wrong

__all__ = ["open_edf"]

_EDF_LOCK = threading.Lock()  # edflib refuses a file that is open already, so that two beds take turns


def open_edf(path: Path, asked: Asked) -> Contents:
    """Open an EDF, EDF+ or BDF file.

    Raises
    ------
    DeviceError
        If it cannot be read.
    """
    try:
        with _EDF_LOCK, pyedflib.EdfReader(str(path), pyedflib.DO_NOT_READ_ANNOTATIONS, pyedflib.CHECK_FILE_SIZE) as edf:
            lengths = [int(n) for n in edf.getNSamples()]
            signals = tuple(
                Signal(
                    _lead(edf.getLabel(i)),
                    float(edf.getSampleFrequency(i)),
                    edf.getPhysicalDimension(i).strip(),
                    lengths[i],
                    step := abs(
                        (edf.getPhysicalMaximum(i) - edf.getPhysicalMinimum(i))
                        / ((edf.getDigitalMaximum(i) - edf.getDigitalMinimum(i)) or 1)
                    ),
                    f"the step {step:.3g} {edf.getPhysicalDimension(i).strip()} (physical by digital range)",
                )
                for i in range(edf.signals_in_file)
            )
    except OSError as error:
        raise wrong(path, f"is no readable EDF or BDF file ({error})") from error

    def read(rows: Sequence[int], start: int, stop: int) -> Values:
        with (
            _EDF_LOCK,
            pyedflib.EdfReader(str(path), pyedflib.DO_NOT_READ_ANNOTATIONS, pyedflib.DO_NOT_CHECK_FILE_SIZE) as edf,
        ):
            return np.array([edf.readSignal(row, start, stop - start) for row in rows])

    return Contents(signals, read)


def _lead(label: str) -> str:
    """Return the lead of an EDF+ label: the standard writes "ECG V1" (EDF+ 2003, 3.2)."""
    kind, _, lead = label.strip().partition(" ")
    return lead.strip() if kind.upper() in ("ECG", "EKG") and lead.strip() else label.strip()
