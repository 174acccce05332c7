"""Files of every format, all with the same signal, written by something else than what reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyedflib
import scipy.io
import wfdb
from numpy.typing import NDArray

from ecgnat_stream.recordings import Format
from tests.unit.records import bedside
from tests.unit.records.edf_files import STEP_MV, Channel, Header, onset, write

FS = 250.0
LEADS = ("II", "V1")
SCALES = {"uV": 1e3, "mV": 1.0, "V": 1e-3}


def signal(seconds: float = 20.0) -> NDArray[np.float64]:
    """Return two leads in mV, (2, T): none is the other, no sample like its neighbour, steps of 5 uV."""
    t = np.arange(round(seconds * FS)) / FS
    beats = np.exp(-0.5 * ((t % 0.8 - 0.3) / 0.012) ** 2)
    leads = np.stack([beats + 0.1 * np.sin(1.7 * t), -0.6 * beats + 0.07 * np.cos(2.3 * t)])
    return np.round(leads / 0.005) * 0.005


@dataclass(frozen=True)
class Maker:
    """How files of a format are made.

    ``make(path, samples, unit)`` writes ``samples`` (L, T) in mV, stated in ``unit``, to a path without a suffix, and returns the
    path to open. ``step_uv`` is how near the file comes. ``gap(path, samples, start, stop)`` writes a file that lacks the samples
    from ``start`` to ``stop``; None if the format cannot. ``asks`` are the options that its files need. ``fmt`` is the format, if
    it is not the name of the maker.
    """

    make: Callable[[Path, NDArray[np.float64], str], Path]
    step_uv: float = 0.01
    gap: Callable[[Path, NDArray[np.float64], int, int], Path] | None = None
    asks: tuple[str, ...] = ()
    units: tuple[str, ...] = ("uV", "mV", "V")
    fmt: Format | None = None


def wfdb_record(path: Path, samples: NDArray[np.float64], unit: str) -> Path:
    count = len(samples)
    wfdb.wrsamp(
        path.name,
        FS,
        [unit] * count,
        list(LEADS[:count]),
        samples.T * SCALES[unit],
        fmt=["16"] * count,
        adc_gain=[1000.0 / SCALES[unit]] * count,
        baseline=[0] * count,
        write_dir=str(path.parent),
    )
    return path


def wfdb_gap(path: Path, samples: NDArray[np.float64], start: int, stop: int) -> Path:
    for name, part in ((f"{path.name}_1", samples[:, :start]), (f"{path.name}_2", samples[:, stop:])):
        wfdb_record(path.with_name(name), part, "mV")
    total, count = samples.shape[1], len(samples)
    path.with_suffix(".hea").write_text(
        f"{path.name}/3 {count} {FS:g} {total}\n{path.name}_1 {start}\n~ {stop - start}\n{path.name}_2 {total - stop}\n"
    )
    return path


def edf(path: Path, samples: NDArray[np.float64], unit: str) -> Path:
    return _edf(path.with_suffix(".edf"), samples, unit, pyedflib.FILETYPE_EDFPLUS, 15)


def bdf(path: Path, samples: NDArray[np.float64], unit: str) -> Path:
    return _edf(path.with_suffix(".bdf"), samples, unit, pyedflib.FILETYPE_BDFPLUS, 23)


def _edf(file: Path, samples: NDArray[np.float64], unit: str, kind: int, bits: int) -> Path:
    most = 10.0 * SCALES[unit]
    with pyedflib.EdfWriter(str(file), len(samples), file_type=kind) as writer:
        for row, lead in enumerate(LEADS[: len(samples)]):
            writer.setSignalHeader(
                row,
                {
                    "label": f"ECG {lead}",
                    "dimension": unit,
                    "sample_frequency": FS,
                    "physical_max": most,
                    "physical_min": -most,
                    "digital_max": 2**bits - 1,
                    "digital_min": -(2**bits),
                    "transducer": "",
                    "prefilter": "",
                },
            )
        writer.writeSamples(list(samples * SCALES[unit]))
    return file


def edf_gap(path: Path, samples: NDArray[np.float64], start: int, stop: int) -> Path:
    return _edf_gap(path.with_suffix(".edf"), samples, start, stop, Header(kind="EDF+D"))


def bdf_gap(path: Path, samples: NDArray[np.float64], start: int, stop: int) -> Path:
    return _edf_gap(path.with_suffix(".bdf"), samples, start, stop, Header(b"\xffBIOSEMI", kind="BDF+D"))


def _edf_gap(file: Path, samples: NDArray[np.float64], start: int, stop: int, header: Header) -> Path:
    """Write records of one second; the gap begins and ends with a second."""
    step = round(FS)
    kept = np.round(np.delete(samples, slice(start, stop), axis=1) / STEP_MV).astype(int)
    seconds = [second for second in range(samples.shape[1] // step) if not start <= second * step < stop]
    channels = [Channel(row, step, f"ECG {lead}") for row, lead in zip(kept, LEADS, strict=False)]
    return write(file, channels, replace(header, onsets=[onset(second) for second in seconds]))


def csv(path: Path, samples: NDArray[np.float64], unit: str) -> Path:
    file = path.with_suffix(".csv")
    np.savetxt(file, samples.T * SCALES[unit], delimiter=",", header=",".join(LEADS[: len(samples)]), comments="", fmt="%.8g")
    return file


def csv_gap(path: Path, samples: NDArray[np.float64], start: int, stop: int) -> Path:
    file = path.with_suffix(".csv")
    table = np.delete(np.vstack([np.arange(samples.shape[1]) / FS, samples]), np.arange(start, stop), axis=1)
    header = ",".join(["time", *LEADS[: len(samples)]])
    np.savetxt(file, table.T, delimiter=",", header=header, comments="", fmt="%.8g")
    return file


def npz(path: Path, samples: NDArray[np.float64], unit: str) -> Path:
    file = path.with_suffix(".npz")
    np.savez_compressed(file, ecg=(samples * SCALES[unit]).T, fs=FS, units=unit, leads=LEADS[: len(samples)])
    return file


def npz_gap(path: Path, samples: NDArray[np.float64], start: int, stop: int) -> Path:
    file = path.with_suffix(".npz")
    cut, there = np.arange(start, stop), np.arange(samples.shape[1])
    leads = dict(zip(LEADS, np.delete(samples, cut, axis=1), strict=False))
    np.savez(file, time_ms=np.delete(there * 1000 / FS, cut), unit="mV", **leads)  # type: ignore[arg-type]
    return file


def mat(path: Path, samples: NDArray[np.float64], unit: str) -> Path:
    file = path.with_suffix(".mat")
    held = {"data": samples * SCALES[unit], "Fs": FS, "leads": list(LEADS[: len(samples)]), "units": unit}
    scipy.io.savemat(file, {"recording": held}, do_compression=True)
    return file


def npy(path: Path, samples: NDArray[np.float64], unit: str) -> Path:
    file = path.with_suffix(".npy")
    np.save(file, samples * SCALES[unit])
    return file


MAKERS: dict[str, Maker] = {
    "wfdb": Maker(wfdb_record, 1.0, wfdb_gap),
    "edf": Maker(edf, 0.31, edf_gap),
    "bdf": Maker(bdf, 0.01, bdf_gap, fmt="edf"),
    "csv": Maker(csv, gap=csv_gap, asks=("fs", "units")),
    "npy": Maker(npy, asks=("fs", "units", "leads")),
    "npz": Maker(npz, gap=npz_gap, fmt="npy"),
    "mat": Maker(mat),
    "dicom": Maker(bedside.dicom, gap=bedside.dicom_gap),
    "aecg": Maker(bedside.aecg, gap=bedside.aecg_gap),
    "scp": Maker(bedside.scp, units=("nV",)),
    "ishne": Maker(bedside.ishne, gap=bedside.ishne_gap, units=("nV",)),
    "philips": Maker(bedside.philips, units=("uV",)),
    "muse": Maker(bedside.muse, units=("uV", "mV")),
}
