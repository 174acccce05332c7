"""A training pack of synthetic records."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from train.data.labels import allow
from train.data.pack import Cached


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Write a pack: sinus-like and VF-like records of different frequency, with beats, screening classes and diagnoses."""
    rng = np.random.default_rng(0)
    rows, leads, rhythm, beats = [], [], [], [np.zeros((0, 2), np.float32)]
    at = rhythm_at = beats_at = 0
    for number in range(12):
        name, hz = ("SINUS", 1.0) if number % 2 else ("VF", 5.0)
        time = np.arange(3000) / 100
        signal = np.sin(2 * np.pi * hz * time) ** 9 if number % 2 else np.sin(2 * np.pi * hz * time)
        noisy = (signal + 0.05 * rng.standard_normal(3000)).astype(np.float16)
        slots = (1, 6) if number < 8 else (1,)
        split = "val" if number >= 8 else "train"
        row = Cached(
            database="mitdb",
            name=str(number),
            split=split,
            slots=slots,
            length=3000,
            at=at,
            rhythm_at=rhythm_at,
            bag=-1,
            window=(number % 4, 3)[number > 9] if number % 3 != 1 else -1,
            screen=number % 2 if number % 3 == 1 else -1,
        )
        if number % 2:
            own = np.stack([np.arange(25, 3000, 100), np.arange(30) % 3], axis=1).astype(np.float32)
            row = msgspec.structs.replace(row, beats_at=beats_at, beats=len(own))
            beats.append(own)
            beats_at += len(own)
        rows.append(row)
        leads += [noisy] * len(slots)
        rhythm.append(np.full(3000, allow(name), np.uint8))
        at += 3000 * len(slots)
        rhythm_at += 3000
    (tmp_path / "leads.f16").write_bytes(np.concatenate(leads).tobytes())
    (tmp_path / "rhythm.u8").write_bytes(np.concatenate(rhythm).tobytes())
    np.save(tmp_path / "beats.npy", np.concatenate(beats))
    np.save(tmp_path / "noise.npy", rng.standard_normal((6, 5000)).astype(np.float16))
    (tmp_path / "records.json").write_bytes(msgspec.json.encode(rows))
    return tmp_path
