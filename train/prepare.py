"""Condition every record once, exactly as the monitor does, into a compact cache that training maps into memory.

    python -m train.prepare --data DATA --cache runs/cache

Writes ``leads.f16`` (mV at 100 Hz, the leads of one record behind each other), ``rhythm.u8`` (sets per sample), ``noise.npy``
``(N, T)`` and ``records.json``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from ecgnat_stream.condition import condition_records
from ecgnat_stream.signal import FS, MODEL_FS
from train.records import Record, read_database, read_noise, read_splits

__all__ = ["Cached", "prepare"]

DATABASES = ("mitdb", "vfdb", "cudb", "cinc2015", "ptbxl", "ludb", "cinc2020", "cinc2017")
_BATCH_SAMPLES = 12_000_000  # (12, T) samples conditioned side by side: about 50 MB


class Cached(msgspec.Struct, frozen=True):
    """Where one record lies in the cache.

    Parameters
    ----------
    slots
        The leads that are there, as indices into ``signal.LEADS``.
    length
        Samples per lead at 100 Hz.
    at
        Index of its first sample in ``leads.f16``.
    rhythm_at
        Index of its first set in ``rhythm.u8``.
    """

    database: str
    name: str
    split: str
    slots: tuple[int, ...]
    length: int
    at: int
    rhythm_at: int
    bag: int
    window: int


def prepare(data: Path, cache: Path, databases: tuple[str, ...] = DATABASES) -> list[Cached]:
    """Write the cache and return what it holds."""
    cache.mkdir(parents=True, exist_ok=True)
    splits = read_splits(data)
    rows: list[Cached] = []
    at = rhythm_at = 0
    with (cache / "leads.f16").open("wb") as leads, (cache / "rhythm.u8").open("wb") as rhythm:
        for database in databases:
            records = track(read_database(data, database, splits[database]), database, total=len(splits[database]))
            for record, conditioned, sets in _conditioned(iter(records)):
                slots = tuple(int(slot) for slot in np.flatnonzero(np.isfinite(conditioned).any(axis=1)))
                leads.write(conditioned[list(slots)].astype(np.float16).tobytes())
                rhythm.write(sets.tobytes())
                length = conditioned.shape[1]
                rows.append(Cached(database, record.name, record.split, slots, length, at, rhythm_at, record.bag, record.window))
                at += len(slots) * length
                rhythm_at += length
    np.save(cache / "noise.npy", _noise(data))
    (cache / "records.json").write_bytes(msgspec.json.encode(rows))
    return rows


def _conditioned(records: Iterator[Record]) -> Iterator[tuple[Record, NDArray[np.float32], NDArray[np.uint8]]]:
    """Yield every record with its conditioned leads and its sets, both at 100 Hz."""
    while first := next(records, None):
        count = max(1, _BATCH_SAMPLES // first.samples.size)
        group = [first, *islice(records, count - 1)]
        for fs in sorted({record.fs for record in group}):
            same = [record for record in group if record.fs == fs]
            longest = max(record.samples.shape[1] for record in same)
            stacked = np.full((len(same), first.samples.shape[0], longest), np.nan, np.float32)
            for row, record in enumerate(same):
                stacked[row, :, : record.samples.shape[1]] = record.samples
            for record, leads in zip(same, condition_records(stacked, fs), strict=True):
                stop = int(record.samples.shape[1] * FS / fs)
                out = leads[:, :stop:2]
                own = (np.arange(out.shape[1]) * fs / MODEL_FS).round().astype(int).clip(max=len(record.rhythm) - 1)
                yield record, out, record.rhythm[own]


def _noise(data: Path) -> NDArray[np.float16]:
    """Return ``(N, T)`` noise leads in mV at 100 Hz: baseline wander, electrode motion, muscle. Conditioned like ECG."""
    leads = []
    for _, fs, samples in read_noise(data):
        conditioned = condition_records(samples[None], fs)[0, :2, ::2]
        leads.append(conditioned)
    length = min(part.shape[1] for part in leads)
    noise: NDArray[np.float16] = np.nan_to_num(np.concatenate([part[:, :length] for part in leads])).astype(np.float16)
    return noise


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with mitdb, vfdb, ... and splits.csv")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="folder to write")
    arguments = parser.parse_args()
    prepared = prepare(arguments.data, arguments.cache)
    print(f"{len(prepared)} records, {sum(row.length for row in prepared) / MODEL_FS / 3600:.1f} h, in {arguments.cache}")
