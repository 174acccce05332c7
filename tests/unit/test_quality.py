from itertools import pairwise

import numpy as np
import pytest

from ecgnat_devices.simulator import Patient, Segment, Signal
from ecgnat_stream.beats import HeartRate, QrsDetector
from ecgnat_stream.condition import Conditioner
from ecgnat_stream.events import LeadState
from ecgnat_stream.quality import FEATURES, STATES, QualityEstimator, weigh
from ecgnat_stream.quality.features import shipped_weights
from ecgnat_stream.signal import FRAME, FRAME_S, FS, LEADS

pytestmark = pytest.mark.usefixtures("kernels")

RNG = np.random.default_rng(4)
RATE = 250
T = np.arange(24 * RATE) / RATE
II, V5 = LEADS.index("II"), LEADS.index("V5")


@pytest.fixture(autouse=True)
def the_same_noise_whatever_ran_before():
    RNG.bit_generator.state = np.random.default_rng(4).bit_generator.state


def beats(t: np.ndarray) -> np.ndarray:
    """A QRS-like triangle of 1 mV and 80 ms every 0.8 s, with a T wave."""
    phase = t % 0.8
    return np.clip(1 - np.abs(phase - 0.2) / 0.04, 0, 1) + 0.25 * np.exp(-0.5 * ((phase - 0.5) / 0.05) ** 2)


def muscle(rms: float, length: int = len(T)) -> np.ndarray:
    return rms * np.convolve(RNG.normal(size=length + 2), [0.5, -0.1, 0.5], "valid") / 0.71


def motion(step: float) -> np.ndarray:
    """An electrode that is being moved: a random walk."""
    return np.cumsum(RNG.normal(0.0, step, len(T)))


def hum(amplitude: float, hz: float) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hz * T)


FIBRILLATION = 0.4 * np.sin(2 * np.pi * 5 * T + np.sin(1.1 * T)) * (1 + 0.4 * np.sin(3 * T))
QUIET = 0.005 * RNG.normal(size=len(T))
ECG = beats(T) + 0.01 * RNG.normal(size=len(T))


class Bed:
    """Condition and quality of one or more beds; ``frames`` of device samples ``(R, leads, T)`` go in at 250 Hz."""

    def __init__(self, rows: int = 1, slots: tuple[int, ...] = (II,)) -> None:
        self.slots, self.rows = slots, np.arange(rows)
        self.conditioner, self.estimator = Conditioner(RATE, rows), QualityEstimator(rows)

    def judge(self, x: np.ndarray, off=(), fs: float | None = RATE):
        """Yield each frame's conditioned signal and quality; ``off`` holds (lead, from s, to s)."""
        padded = np.pad(x.astype(np.float32), ((0, 0), (0, 0), (RATE, RATE)), constant_values=np.nan)
        for k in range(int(x.shape[2] / RATE / FRAME_S) - 1):
            number = np.full(len(self.rows), k)
            start, n = self.conditioner.needed(number)
            raw = np.full((len(self.rows), 12, n), np.nan, np.float32)
            raw[:, self.slots] = padded[:, :, RATE + start[0] : RATE + start[0] + n]
            y = self.conditioner.process(self.rows, number, raw)
            lead_off = np.zeros((len(self.rows), 12), bool)
            for lead, begin, end in off:
                lead_off[:, lead] = begin <= (k + 1) * FRAME_S < end
            yield y, self.estimator.process(self.rows, raw, y, lead_off, fs)


def last(x: np.ndarray, **options):
    """Judge one lead; return state, index, usable, best of the last frame."""
    *_, (_, result) = Bed().judge(x[None, None], **options)
    return STATES[result.state[0, II]], float(result.sqi[0, II]), bool(result.usable[0]), int(result.best[0])


def test_the_words_are_those_of_the_events():
    assert LeadState.__args__ == STATES


@pytest.mark.parametrize(
    ("x", "least"),
    [
        pytest.param(ECG, 0.8, id="ecg"),
        pytest.param(beats(T), 0.8, id="ecg without any noise"),
        pytest.param(QUIET, 0.8, id="asystole: nothing there and nothing detected"),
        pytest.param(QUIET + 0.1 * np.sin(2 * np.pi * 0.25 * T), 0.8, id="asystole with breathing"),
        pytest.param(QUIET + np.where(T % 5 < 0.7, muscle(0.3), 0.0), 0.0, id="asystole with an artefact now and then"),
        pytest.param(FIBRILLATION + 0.01 * RNG.normal(size=len(T)), 0.0, id="fibrillation: no QRS complex, but no noise"),
        pytest.param(300.0 + ECG, 0.8, id="electrode offset"),
        pytest.param(ECG + np.where(T < 12, 0.0, 100.0), 0.8, id="offset that jumps"),
    ],
)
def test_a_heart_however_ill_is_usable(x, least):
    state, sqi, usable, best = last(x)
    assert (state, usable, best) == ("good", True, II)
    assert least <= sqi <= 1.0


@pytest.mark.parametrize(
    ("x", "state"),
    [
        pytest.param(np.full(len(T), 0.3), "flat", id="constant"),
        pytest.param(np.zeros(len(T)), "flat", id="0 mV"),
        pytest.param(np.full(len(T), 5.0), "flat", id="constant at the upper rail"),
        pytest.param(np.full(len(T), -5.0), "flat", id="constant at the lower rail"),
        pytest.param(0.4 * beats(T) + muscle(0.5), "noisy", id="muscle"),
        pytest.param(0.2 * beats(T) + motion(0.08), "motion", id="electrode motion"),
        pytest.param(np.clip(12 * np.sin(2 * np.pi * T), -5, 5), "saturated", id="at both rails"),
        pytest.param(np.where(np.arange(len(T)) % 2 == 0, 5.0, -5.0), "saturated", id="rails in turn, every sample"),
        pytest.param(np.where(T % 0.4 < 0.2, 5.0, -5.0), "saturated", id="rails in turn, every frame"),
        pytest.param(np.where(T % 1.6 < 0.8, 5.0, -5.0), "saturated", id="rails in turn, slowly"),
        pytest.param(np.full(len(T), np.nan), "missing", id="nothing"),
        pytest.param(np.where(T < 10, beats(T), np.nan), "missing", id="ended"),
    ],
)
def test_faults_have_names(x, state):
    got, sqi, usable, best = last(x)
    assert (got, usable, best) == (state, False, -1)
    assert sqi < 0.3


@pytest.mark.parametrize("hz", [50.0, 60.0])
@pytest.mark.parametrize("amplitude", [0.2, 2.0, 8.0])
def test_mains_is_named_and_does_not_make_a_lead_unusable(hz, amplitude):
    state, sqi, usable, _ = last(ECG + hum(amplitude, hz))
    assert (state, usable) == ("mains", True)
    assert sqi > 0.5


def test_mains_is_looked_for_only_where_it_is():
    assert last(ECG + hum(0.2, 50.0), fs=None)[0] == "good"
    assert last(ECG + hum(0.02, 50.0))[0] == "good"
    assert last(ECG + muscle(0.05))[0] != "mains"


@pytest.mark.parametrize(("low", "high"), [(-5.0, 0.6), (-0.6, 5.0), (-0.5, 0.6)])
def test_cut_peaks_are_named_and_the_ecg_stays_usable(low, high):
    x = np.clip((1 if high < 1 else -1) * (ECG + 0.4 * np.sin(2 * np.pi * 0.11 * T) * (low == -0.5)), low, high)
    state, sqi, usable, _ = last(x)
    assert (state, usable) == ("clipped", True)
    assert sqi > 0.3


@pytest.mark.parametrize("x", [ECG, -ECG, np.round(200 * ECG) / 200, -np.round(200 * beats(T)) / 200, FIBRILLATION, 3 * ECG])
def test_round_peaks_and_level_base_lines_are_not_cut(x):
    assert last(x)[0] == "good"


def test_an_amplifier_that_saturates_softly_is_clipped():
    assert last(0.6 * np.tanh(8.0 * beats(T) ** 2) + 0.002 * RNG.normal(size=len(T)))[0] == "clipped"


def test_the_device_knows_best():
    assert last(beats(T), off=[(II, 0, 99)])[:3] == ("off", 0.0, False)


def test_short_gaps_leave_a_lead_as_it_was():
    x = ECG.copy()
    for at in range(2000, len(x), 700):
        x[at : at + 60] = np.nan
    results = [result for _, result in Bed().judge(x[None, None])][10:]
    assert {STATES[result.state[0, II]] for result in results} <= {"good", "missing"}
    assert all(0.0 <= result.sqi[0, II] <= 1.0 for result in results)
    assert STATES[results[-1].state[0, II]] == "good"


def test_one_bad_lead_of_two_and_then_both():
    x = np.stack([ECG, ECG + np.where(T < 8, 0.0, muscle(1.0))])[None]
    x[0, 0, 16 * RATE :] = 0.0
    results = [result for _, result in Bed(slots=(V5, II)).judge(x)]
    one, both = results[70], results[-1]
    assert [STATES[one.state[0, lead]] for lead in (II, V5)] == ["noisy", "good"]
    assert (bool(one.usable[0]), one.best[0]) == (True, V5)
    assert [STATES[both.state[0, lead]] for lead in (II, V5)] == ["noisy", "flat"]
    assert (bool(both.usable[0]), both.best[0]) == (False, -1)


def test_the_index_falls_with_muscle_noise():
    noise = muscle(1.0)
    index = [last(beats(T) + gain * noise)[1] for gain in (0, 0.1, 0.2, 0.5)]
    assert index[0] > 0.8
    assert index[-1] < 0.2
    assert index[1] > index[2] > index[3]


def test_noise_comes_and_goes_with_one_relapse_at_most():
    x = ECG + np.where((T > 6) & (T < 12), muscle(1.0), 0.0)
    states = [STATES[result.state[0, II]] for _, result in Bed().judge(x[None, None])]
    assert states[:30] == ["good"] * 30
    assert "noisy" in states[30:45]
    assert states[-1] == "good"
    assert sum((a == "good") != (b == "good") for a, b in pairwise(states)) <= 4


def test_the_best_lead_stays_until_another_is_clearly_better():
    x = np.stack([ECG, ECG + np.where(T < 8, muscle(0.12), 0.0)])[None]
    x[0, 0, 16 * RATE :] += muscle(1.0)[16 * RATE :]
    chosen = [int(result.best[0]) for _, result in Bed(slots=(V5, II)).judge(x)]
    assert chosen[79] == chosen[39]
    assert chosen[-1] == II


def worn(seed: int) -> tuple[np.ndarray, list[tuple[int, float, float]]]:
    """Two leads, II and V5, of a sinus rhythm for 150 s, one and then the other with a fault; and when II is off."""
    x = Patient(Signal(fs=RATE, leads=("II", "V5"), seed=seed, script=(Segment(rhythm="sinus", seconds=150),), loop=False))
    samples = x.read(150 * RATE).astype(float)
    noise = muscle(0.8, samples.shape[1])
    t = np.arange(samples.shape[1]) / RATE

    def during(begin: float, end: float) -> np.ndarray:
        return (t >= begin) & (t < end)

    samples[0] += np.where(during(20, 40), noise, 0.0)
    samples[0, during(55, 70)] = 4.9
    samples[1, during(85, 100)] = 0.0
    samples[1] = np.where(during(110, 125), np.clip(samples[1], -0.3, 0.5), samples[1])
    samples[1] += np.where(during(135, 150), noise, 0.0)
    return samples, [(II, 55.0, 70.0)]


@pytest.mark.parametrize("seed", range(4))
def test_the_heart_rate_does_not_jump_while_one_lead_after_the_other_fails(seed):
    x, off = worn(seed)
    bed, detector, rate = Bed(slots=(II, V5)), QrsDetector(1), HeartRate(1)
    bpm, best, states = [], [], []
    for k, (y, quality) in enumerate(bed.judge(x[None], off)):
        number = np.array([k])
        sqi = quality.sqi * np.isin(np.arange(12), bed.slots)
        found = detector.process(bed.rows, number, y, sqi)
        bpm.append(float(rate.process(bed.rows, number, found, quality.usable)[0]))
        best.append(int(quality.best[0]))
        states.append([STATES[code] for code in quality.state[0, [II, V5]]])
    settled = bpm[40:]
    assert not np.isnan(settled).any()
    assert max(abs(b - a) for a, b in pairwise(settled)) <= 4.0
    assert max(settled) - min(settled) <= 15.0
    assert [best[int(at / FRAME_S)] for at in (35, 65, 95, 147)] == [V5, V5, II, II]
    assert [states[int(at / FRAME_S)] for at in (15, 35, 65, 95, 122, 147)] == [
        ["good", "good"], ["noisy", "good"], ["off", "good"], ["good", "flat"], ["good", "clipped"], ["good", "noisy"],
    ]  # fmt: skip


MIXED = np.stack([beats(T + shift) + gain * muscle(1.0) for shift, gain in ((0, 0), (0.3, 0.1), (0.5, 0.6), (0.1, 0.3))])


def test_a_row_does_not_depend_on_the_others():
    many = np.concatenate([MIXED] * 40)[:, None]
    frames = 12 * RATE
    every = [result for _, result in Bed(160).judge(many[:, :, :frames])]
    for row in range(4):
        for one, among in zip(Bed().judge(many[row : row + 1, :, :frames]), every, strict=True):
            for copy in (row, 156 + row):
                np.testing.assert_array_equal(one[1].sqi[0], among.sqi[copy])
                np.testing.assert_array_equal(one[1].state[0], among.state[copy])


def faulty(beds: int, length: int) -> np.ndarray:
    """Return ``(beds, 12, length)`` at 250 Hz with every fault that has a name, in all combinations that come."""
    rng = np.random.default_rng(8)
    t = np.arange(length) / RATE
    x = np.empty((beds, 12, length), np.float32)
    for bed in range(beds):
        for lead in range(12):
            ecg = rng.choice([0.0, 1.0, 1.0]) * beats(t * rng.uniform(0.6, 2.0) + rng.random())
            humming = rng.choice([0.0, 0.0, 0.4]) * np.sin(2 * np.pi * rng.choice([5.0, 50.0, 60.0]) * t)
            walk = rng.choice([0.0, 0.001, 0.002, 0.08]) * np.cumsum(rng.normal(size=length))
            x[bed, lead] = ecg + humming + walk + rng.choice([0.0, 0.01, 0.3]) * rng.normal(size=length)
        x[bed, rng.permutation(12)[: bed % 12]] = np.nan
        x[bed, :, rng.integers(0, length, 40)] = np.nan
        gap = rng.integers(0, length)
        x[bed, :, gap : gap + 300] = np.nan
    x[1], x[2], x[3, :6] = np.clip(x[1], -0.3, 0.5), np.clip(20 * x[2], -5, 5), 0.3
    x[4, :, length // 2 :], x[5] = 12.0, np.round(x[5], 1)
    return x


def test_the_kernels_judge_as_the_plain_code_does():
    pytest.importorskip("numba")
    beds, frames = 14, 60
    x, rows, rng = faulty(beds, frames * RATE // 5 + RATE), np.arange(14)[::-1].copy(), np.random.default_rng(1)
    conditioner = Conditioner(RATE, beds)
    plain, compiled, *listening = (QualityEstimator(beds, kernels=kernels) for kernels in (False, True, False, True))
    seen = set()
    for k in range(frames):
        number = np.full(beds, k)
        start, n = conditioner.needed(number)
        raw = np.ascontiguousarray(x[:, :, RATE // 2 + start[0] : RATE // 2 + start[0] + n])
        y = conditioner.process(rows, number, raw)
        off, delivered = rng.random((beds, 12)) < 0.02, rng.random((beds, 12)) < 0.9
        expected, got = (one.process(rows, raw, y, off, RATE if k % 9 else None, delivered) for one in (plain, compiled))
        for field in ("state", "usable", "best"):
            np.testing.assert_array_equal(getattr(got, field), getattr(expected, field), err_msg=f"{field} of frame {k}")
        np.testing.assert_allclose(got.sqi, expected.sqi, rtol=0, atol=1e-5)
        (measured, span), (again, span_again) = (one.measure(rows, y) for one in listening)
        np.testing.assert_array_equal(span_again, span)
        np.testing.assert_allclose(again[:, ~np.isnan(span)], measured[:, ~np.isnan(span)], rtol=0, atol=1e-5)
        seen.update(STATES[code] for code in np.unique(got.state))
    assert seen == set(STATES)


def test_rows_may_start_at_different_times_and_come_in_any_order():
    bed = Bed(len(MIXED))
    judged = list(bed.judge(MIXED[:, None, : 12 * RATE]))
    shuffled, straight = QualityEstimator(len(MIXED)), QualityEstimator(len(MIXED))
    raw, off = np.full((len(MIXED), 12, 60), np.nan, np.float32), np.zeros((len(MIXED), 12), bool)
    order = np.array([2, 0, 3, 1])
    for k, (y, _) in enumerate(judged):
        expected = straight.process(bed.rows[:3], raw[:3], y[:3], off[:3])
        first = order[order != 3] if k < 7 else order
        got = shuffled.process(first, raw[first], y[first if k < 7 else np.where(order == 3, 1, order)], off[first])
        np.testing.assert_array_equal(got.sqi[first != 3], expected.sqi[first[first != 3]])
        np.testing.assert_array_equal(got.state[first != 3], expected.state[first[first != 3]])
    alone = QualityEstimator(1)
    for y, _ in judged[7:]:
        again = alone.process(bed.rows[:1], raw[:1], y[1:2], off[:1])
    np.testing.assert_array_equal(got.sqi[first == 3], again.sqi)
    assert again.sqi.max() > 0.1


def test_a_reset_row_starts_anew():
    used = Bed()
    for _ in used.judge((muscle(1.0) + hum(1.0, 50.0))[None, None]):
        pass
    used.estimator.reset(used.rows)
    used.conditioner.reset(used.rows)
    for (_, again), (_, fresh) in zip(used.judge(MIXED[1:2, None]), Bed().judge(MIXED[1:2, None]), strict=True):
        np.testing.assert_array_equal(again.sqi, fresh.sqi)
        np.testing.assert_array_equal(again.state, fresh.state)


def test_no_beds_give_no_answer():
    none = np.zeros((0, 12, FRAME), np.float32)
    result = QualityEstimator(2).process(np.zeros(0, np.intp), none, none, np.zeros((0, 12), bool), float(FS))
    assert (result.sqi.shape, result.usable.shape) == ((0, 12), (0,))


def test_the_weights_fit_the_features_and_say_nothing_beyond_what_was_seen():
    weights = shipped_weights()
    assert len(weights.mean) == len(weights.spread) == len(FEATURES)
    assert {len(row) for row in weights.hidden} == {len(FEATURES)}
    far = np.array(weights.mean) + 1e6 * np.array(weights.spread)
    limit = np.array(weights.mean) + 3.5 * np.array(weights.spread)
    for beyond, edge in zip(weigh(weights, far.astype(np.float32)), weigh(weights, limit.astype(np.float32)), strict=True):
        assert beyond == pytest.approx(edge, abs=1e-4)
        assert 0.0 <= beyond <= 1.0
