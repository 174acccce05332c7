"""Which module reads which format. A module, and the library that it needs, is imported with the first file of its kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ecgnat_devices.records.contents import Asked, Contents
from ecgnat_stream.errors import DeviceError
from ecgnat_stream.recordings import Format

__all__ = ["Reader", "reader"]

Reader = Callable[[Path, Asked], Contents]


def reader(fmt: Format) -> Reader:
    """Return what reads the files of a format.

    Raises
    ------
    DeviceError
        If a library that it needs is not installed.
    """
    try:
        return _reader(fmt)
    except ImportError as error:
        raise DeviceError(
            f"files of the format {fmt} need {error.name}: pip install 'ecgnat-stream[formats]'", permanent=True
        ) from error


def _reader(fmt: Format) -> Reader:
    match fmt:
        case "wfdb":
            from ecgnat_devices.records.wfdb import open_wfdb

            return open_wfdb
        case "edf":
            from ecgnat_devices.records.edf import open_edf

            return open_edf
        case "csv":
            from ecgnat_devices.records.table import open_table

            return open_table
        case "npy":
            from ecgnat_devices.records.arrays import open_npy

            return open_npy
        case "mat":
            from ecgnat_devices.records.mat import open_mat

            return open_mat
        case "dicom":
            from ecgnat_devices.records.dicom import open_dicom

            return open_dicom
        case "aecg":
            from ecgnat_devices.records.aecg import open_aecg

            return open_aecg
        case "scp":
            from ecgnat_devices.records.scp import open_scp

            return open_scp
        case "ishne":
            from ecgnat_devices.records.ishne import open_ishne

            return open_ishne
        case "philips":
            from ecgnat_devices.records.philips import open_philips

            return open_philips
        case "muse":
            from ecgnat_devices.records.muse import open_muse

            return open_muse
        case _:
            raise DeviceError(f"no reader for the format {fmt}", permanent=True)
