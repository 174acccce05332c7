"""The compiled conditioning stage equals the plain one, and a bed's signal does not depend on the beds beside it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ecgnat_stream.condition import ConditionConfig, Conditioner

pytest.importorskip("numba")

ROWS = 5


def samples_of(fs: float, seconds: float = 12) -> NDArray[np.float32]:
    """Return ``(ROWS, 12, T)``: hearts with spikes, steps, gaps of all lengths, leads that come late, few limb leads."""
    rng = np.random.default_rng(round(fs))
    t = np.arange(int(seconds * fs)) / fs
    x = np.full((ROWS, 12, len(t)), np.nan, np.float32)
    for row in range(ROWS):
        leads = ([1, 6], [0, 2, 7], [3, 5], list(range(12)), [4])[row]
        for lead in leads:
            wave = np.clip(1 - np.abs(t % 0.83 - 0.2) / 0.04, 0, 1) + 0.02 * rng.normal(size=len(t)) + rng.normal()
            for _ in range(12):
                at, width = rng.integers(0, len(t) - 8), rng.integers(1, 5)
                wave[at : at + width] += rng.choice([-1, 1]) * rng.choice([0.4, 3.0, 8.0, 300.0])
            at = rng.integers(0, len(t))
            wave[at:] += rng.choice([3.0, 30.0])
            for long in (1, 2, round(0.03 * fs), round(0.4 * fs)):
                at = rng.integers(0, len(t) - long)
                wave[at : at + long] = np.nan
            x[row, lead] = wave
        x[row, leads[-1], : len(t) // 3] = np.nan
    return x


class Run:
    """A conditioner that went through samples, some rows of them."""

    def __init__(
        self, fs: float, x: NDArray[np.float32], rows: NDArray[np.intp], places: int, config: ConditionConfig | None
    ) -> None:
        conditioner = Conditioner(fs, 1, config)
        conditioner.grow(places)
        self.compiled = conditioner._compiled is not None
        y, self.spikes = [], []
        padded = np.pad(x, ((0, 0), (0, 0), (round(fs), round(fs))), constant_values=np.nan)
        for frame in range(int(x.shape[2] / fs * 5)):
            frames = np.full(len(rows), frame) + np.arange(len(rows)) % 2  # beds are at different frames
            start, length = conditioner.needed(frames)
            cut = [padded[row, :, round(fs) + at :][:, :length] for row, at in zip(rows, start, strict=True)]
            if frame == 30:
                conditioner.reset(rows[:1])
            y.append(conditioner.process(rows, frames, np.stack(cut)))
            spikes = conditioner.spikes
            self.spikes += list(zip(spikes.row.tolist(), spikes.at.tolist(), spikes.leads.tolist(), strict=True))
        self.y = np.stack(y)


@pytest.mark.parametrize("fs", [100.0, 128.0, 200.0, 250.0, 257.3, 360.0, 500.0, 1000.0])
def test_kernels_equal_the_plain_code(monkeypatch: pytest.MonkeyPatch, fs: float) -> None:
    x, rows = samples_of(fs), np.arange(ROWS)
    config = ConditionConfig(mains_hz=0) if fs == 128.0 else None
    monkeypatch.setenv("ECGNAT_KERNELS", "off")
    want = Run(fs, x, rows, ROWS, config)
    monkeypatch.setenv("ECGNAT_KERNELS", "on")
    got = Run(fs, x, rows, ROWS, config)
    assert got.compiled
    assert not want.compiled
    assert len(want.spikes) > 20
    assert got.spikes == want.spikes
    np.testing.assert_array_equal(np.isnan(got.y), np.isnan(want.y))
    assert np.isnan(want.y).mean() < 0.8
    np.testing.assert_allclose(got.y, want.y, atol=1e-4, rtol=1e-5)  # of inputs of 30 mV and more, float32


@pytest.mark.parametrize("fs", [250.0, 257.3])
def test_a_bed_is_the_same_alone_and_among_others(kernels: str, fs: float) -> None:
    x = samples_of(fs)
    together = Run(fs, x, np.arange(ROWS), ROWS, None)
    for row in (0, 2, 4):  # these are at the same frames as a bed alone
        alone = Run(fs, x, np.array([row]), ROWS, None)
        if row == 0:
            np.testing.assert_array_equal(alone.y[:, 0], together.y[:, row])
            assert alone.spikes == [spike for spike in together.spikes if spike[0] == row]
        else:
            np.testing.assert_array_equal(alone.y[:30, 0], together.y[:30, row])
