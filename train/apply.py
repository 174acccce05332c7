"""Say which class recordings are of, by a network that learned labels of one's own.

    python -m train.apply --model mymodel --data FOLDER first.edf second.edf

Prints a CSV: path, the most likely class, and the probability of each, every one for itself; for recordings that cannot be read a
line on the error stream, and exit code 1. Recordings are conditioned as the monitor does and read in windows of 10 s end to end.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.condition import condition_record
from ecgnat_stream.errors import EcgnatError
from ecgnat_stream.model import ModelConfig, Predictor
from ecgnat_stream.signal import LEADS, MODEL_FS, Conditioned
from ecgnat_stream.words import cell
from train.data.record import leads_of, sidecar_of
from train.judge.reading import starts

__all__ = ["main", "say"]

_WINDOW = 10 * MODEL_FS


def say(predictor: Predictor, samples: NDArray[np.float32], fs: float) -> NDArray[np.float64]:
    """Return ``(C,)`` probabilities of the window classes for a recording ``(12, T)`` in mV; NaN where a lead is absent."""
    leads = condition_record(samples, fs).at(MODEL_FS).samples
    windows = np.full((len(at := starts(leads.shape[1], _WINDOW, _WINDOW)), len(LEADS), _WINDOW), np.nan, np.float32)
    for window, start in zip(windows, at, strict=True):
        part = leads[:, start : start + _WINDOW]
        window[:, : part.shape[1]] = part
    said = np.clip(predictor.predict(Conditioned(windows, MODEL_FS)).window.astype(np.float64), 1e-9, 1 - 1e-9)
    mean: NDArray[np.float64] = np.log(said / (1 - said)).mean(axis=0)
    return 1 / (1 + np.exp(-mean))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint of train.own")
    parser.add_argument("--data", type=Path, default=Path(), help="folder that the paths are relative to")
    parser.add_argument("path", nargs="+", help="recordings; a WFDB record goes without suffix")
    given = parser.parse_args(arguments)
    failed = False
    try:
        predictor = Predictor(ModelConfig(name=given.model, threads=1))
    except EcgnatError as error:
        parser.exit(1, f"{error}\n")
    with predictor:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["path", "label", *predictor.window_classes])
        for path in given.path:
            try:
                fs, samples = leads_of(given.data / path, sidecar_of(given.data / path, given.data))
            except (EcgnatError, ValueError, OSError, msgspec.DecodeError) as error:
                print(f"{path} cannot be read: {error}", file=sys.stderr)
                failed = True
                continue
            said = say(predictor, samples, fs)
            writer.writerow([cell(path), predictor.window_classes[int(said.argmax())], *(f"{p:.4f}" for p in said)])
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
