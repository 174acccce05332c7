import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from ecgnat_stream.condition import ConditionConfig, Conditioner, condition_record, condition_records
from ecgnat_stream.signal import FRAME, FS, LEADS

pytestmark = pytest.mark.usefixtures("kernels")


def conditioned(samples: np.ndarray, fs: float, config: ConditionConfig | None = None) -> np.ndarray:
    result = condition_record(samples, fs, config)
    assert result.fs == FS
    return result.samples


def one_lead(x: np.ndarray, lead: str = "II") -> np.ndarray:
    samples = np.full((12, len(x)), np.nan, np.float32)
    samples[LEADS.index(lead)] = x
    return samples


def response(f_hz: float, fs: float, config: ConditionConfig | None = None) -> complex:
    """Complex amplitude of the output for a unit cosine."""
    t = np.arange(int(12 * fs)) / fs
    y = conditioned(one_lead(np.cos(2 * np.pi * f_hz * t)), fs, config)[1, 4 * FS : 10 * FS]
    n = np.arange(4 * FS, 10 * FS) / FS
    return complex(2 * np.mean(y * np.exp(-2j * np.pi * f_hz * n)))


@pytest.mark.parametrize("fs", [100.0, 128.0, 200.0, 250.0, 257.3, 360.0, 500.0, 1000.0])
@pytest.mark.parametrize("f_hz", [5.0, 10.0, 20.0, 30.0])
def test_the_qrs_band_passes_in_place_and_in_time(fs, f_hz):
    h = response(f_hz, fs)
    assert abs(h) == pytest.approx(1.0, abs=0.02)
    assert abs(np.angle(h) / (2 * np.pi * f_hz)) < 0.005


@pytest.mark.parametrize("f_hz", [52.0, 60.0, 70.0, 95.0])
def test_what_would_alias_at_the_model_rate_is_gone(f_hz):
    t = np.arange(5000) / 500
    y = conditioned(one_lead(np.cos(2 * np.pi * f_hz * t)), 500.0)[1, 800:1900]
    assert y.std() * np.sqrt(2) < 0.015


@pytest.mark.parametrize("mains_hz", [50, 60])
def test_mains_is_removed(mains_hz):
    t = np.arange(5000) / 500
    y = conditioned(one_lead(np.cos(2 * np.pi * mains_hz * t)), 500.0, ConditionConfig(mains_hz=mains_hz))[1, 800:1900]
    assert y.std() < 0.003


def test_an_electrode_offset_leaves_no_step():
    y = conditioned(one_lead(np.full(3000, 280.0)), 250.0)[1]
    assert np.isnan(y[:FRAME]).all()
    assert np.abs(y[FRAME:]).max() < 1e-3


@pytest.mark.parametrize("step_mv", [3.0, 30.0, 300.0])
def test_a_jump_of_the_baseline_is_over_within_two_seconds(step_mv):
    x = np.where(np.arange(5000) < 2500, 0.0, step_mv)
    y = conditioned(one_lead(x), 250.0)[1]
    assert np.nanmax(np.abs(y[12 * FS :])) < 0.1
    assert np.isnan(y[10 * FS :]).sum() <= 2 * FRAME


def test_a_spike_does_not_charge_the_filter():
    x = np.zeros(5000)
    x[2500] = 300.0
    y = conditioned(one_lead(x), 250.0)[1]
    assert np.nanmax(np.abs(y[int(10.1 * FS) :])) < 0.25


@pytest.mark.parametrize(("a", "b"), [("I", "II"), ("I", "III"), ("aVR", "aVF"), ("II", "aVL"), ("III", "aVF")])
def test_limb_leads_come_from_any_two(a, b):
    rng = np.random.default_rng(3)
    i, ii = gaussian_filter1d(rng.normal(size=(2, 2000)), 4.0).astype(np.float32)
    limbs = dict(zip(LEADS[:6], (i, ii, ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2), strict=True))
    full = np.full((12, 2000), np.nan, np.float32)
    full[:6] = list(limbs.values())
    two = np.full((12, 2000), np.nan, np.float32)
    for lead in (a, b):
        two[LEADS.index(lead)] = limbs[lead]
    expected, got = conditioned(full, 250.0), conditioned(two, 250.0)
    np.testing.assert_allclose(got[:6, 5 * FS :], expected[:6, 5 * FS :], atol=1e-3)  # each begins on a median of its own
    assert np.isnan(got[6:]).all()


def test_one_limb_lead_derives_nothing():
    y = conditioned(one_lead(np.sin(np.arange(1000) / 9)), 250.0)
    assert np.isnan(np.delete(y, 1, axis=0)).all()


def test_single_missing_samples_stay_missing_and_disturb_nothing():
    t = np.arange(5000) / 250
    x = np.sin(2 * np.pi * 5 * t)
    holes = x.copy()
    holes[700::500] = np.nan
    whole, got = conditioned(one_lead(x), 250.0)[1], conditioned(one_lead(holes), 250.0)[1]
    missing = np.isnan(got)
    missing[:FRAME] = False
    assert set(np.flatnonzero(missing)) == set(range(560, 4000, 400))
    assert np.nanmax(np.abs(got - whole)) < 0.02


def test_a_long_gap_restarts_the_filter():
    x = np.where(np.arange(5000) < 2500, 0.0, 50.0) + np.sin(np.arange(5000) / 8)
    x[2450:2550] = np.nan
    y = conditioned(one_lead(x), 250.0)[1]
    gap = np.flatnonzero(np.isnan(y[FRAME:])) + FRAME
    assert gap[0] == pytest.approx(2450 / 250 * FS, abs=1)
    assert 2550 / 250 * FS < gap[-1] < 2550 / 250 * FS + 2 * FRAME
    assert np.nanmax(np.abs(y)) < 2.0


@pytest.mark.parametrize("fs", [100.0, 257.3, 999.9])
def test_rows_are_independent(fs):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4, 12, int(4 * fs))).astype(np.float32)
    x[rng.random(x.shape) < 0.003] = np.nan
    x[1, 3:9] = np.nan
    x[2, :, 200:300] = np.nan
    together = condition_records(x, fs)
    for row in range(4):
        np.testing.assert_array_equal(together[row], conditioned(x[row], fs))


def test_rows_at_different_frames_share_a_call():
    fs, rng = 257.3, np.random.default_rng(6)
    x = rng.normal(size=(12, 2000)).astype(np.float32)
    expected = conditioned(x, fs)
    conditioner = Conditioner(fs, 2)
    padded = np.pad(x, ((0, 0), (500, 500)), constant_values=np.nan)
    frame_of = np.array([0, 0])
    for turn in range(20):
        rows = np.array([0, 1]) if turn >= 3 else np.array([1])
        starts, n = conditioner.needed(frame_of[rows])
        block = np.stack([padded[:, start + 500 : start + 500 + n] for start in starts])
        y = conditioner.process(rows, frame_of[rows], block)
        for i, row in enumerate(rows):
            at = frame_of[row] * FRAME
            np.testing.assert_array_equal(y[i], expected[:, at : at + FRAME])
        frame_of[rows] += 1


def test_the_index_does_not_drift():
    conditioner = Conditioner(257.3, 1)
    start, _ = conditioner.needed(np.array([5 * 3600 * 24 * 30]))
    assert abs(int(start[0]) - 257.3 * 3600 * 24 * 30) < 40


def test_the_delay_is_small():
    assert all(Conditioner(fs, 1).delay_s <= 0.066 for fs in (100.0, 128.0, 250.0, 500.0))
    assert Conditioner(250.0, 1).delay_s < 0.06


@pytest.mark.parametrize("fs", [0.0, 99.0, 1001.0, float("nan")])
def test_other_rates_are_refused(fs):
    with pytest.raises(ValueError, match="100 to 1000"):
        Conditioner(fs, 1)
