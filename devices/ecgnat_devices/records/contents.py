"""What every reader of a format gives, in the words of the file: its signals, and how to read them; and what all refuse."""

from __future__ import annotations

import struct
import tokenize
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from ecgnat_stream.errors import DeviceError, EcgnatError

__all__ = [
    "MOST_AT_ONCE",
    "MOST_SIGNALS",
    "TROUBLE",
    "Asked",
    "Contents",
    "Reading",
    "Signal",
    "Units",
    "Values",
    "border",
    "wrong",
]

Units = Literal["uV", "mV", "V"]

Values = NDArray[np.float64]

Reading = Callable[[Sequence[int], int, int], Values]
"""``read(rows, start, stop)`` gives ``(len(rows), stop - start)``, each row in the unit of its signal, NaN where nothing was
recorded. The rows have one rate, parts may be read in any order, and no more memory is taken than for what is asked."""

MOST_AT_ONCE = 2**28
"""Most values of a recording that are read at once, 1 GiB of float32."""

MOST_SIGNALS = 256
"""Most signals of a file."""

TROUBLE = (
    *(ValueError, TypeError, LookupError, AttributeError, OSError, ArithmeticError, EOFError, MemoryError, RecursionError),
    *(SyntaxError, NameError, AssertionError, tokenize.TokenError, struct.error, soundfile.LibsndfileError),
)
"""What the libraries that read files raise for broken ones, each in its way."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What whoever opens a file gives; a reader uses it only where it cannot read without.

    Parameters
    ----------
    fs, units, scale, leads, strict
        As for :func:`~ecgnat_devices.records.open_record`.
    """

    fs: float | None = None
    units: Units | None = None
    scale: float = 1.0
    leads: tuple[str, ...] | None = None
    strict: bool = True


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal of a file, as the file states it.

    Parameters
    ----------
    name
        Its name; "" if the file gives none.
    fs
        Rate in Hz; None if the file does not say.
    unit
        Unit of its values; "" if the file does not say.
    total
        Length in samples of its own rate, gaps included.
    step
        One step of the converter, in ``unit``; None if the values are numbers without steps.
    step_by
        What the file says of the step, in its own words, for messages.
    """

    name: str
    fs: float | None
    unit: str
    total: int
    step: float | None = None
    step_by: str = ""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds.

    Parameters
    ----------
    signals
        All signals, whether ECG or not, of any rate and unit.
    read
        Reads a part of some of them.
    notes
        What a person should know of this file: "its date is no date, so that its time is unknown".
    rate_by
        How the rate was found, if no header states it: "its column time".
    """

    signals: tuple[Signal, ...]
    read: Reading
    notes: tuple[str, ...] = ()
    rate_by: str = ""


def wrong(path: Path, what: str) -> DeviceError:
    """Return the error that a file is not usable, which no further attempt will change."""
    return DeviceError(f"{path}: {what}", permanent=True)


@contextmanager
def border(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a library raises for a broken file into what this package promises."""
    try:
        yield
    except EcgnatError:
        raise
    except TROUBLE as error:
        raise wrong(path, f"{what} ({str(error) or type(error).__name__})") from error
