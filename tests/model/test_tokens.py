"""Beat tokens: where they lie, what they hold, what they say is missing, and the way back to the dense heads."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ecgnat_stream.model.preprocess import window_scale
from ecgnat_stream.model.tokens import R_AT, TOKEN_SAMPLES, BeatTokens, beat_logits, beat_tokens, to_grid

NAN = float("nan")


def windows(batch: int = 1, length: int = 1000) -> Tensor:
    return torch.randn(batch, 12, length, generator=torch.Generator().manual_seed(3))


def beats(*rows: list[float]) -> Tensor:
    most = max(map(len, rows))
    return torch.tensor([row + [NAN] * (most - len(row)) for row in rows])


def assert_finite(tokens: BeatTokens) -> None:
    for name, value in tokens._asdict().items():
        if isinstance(value, Tensor):
            assert torch.isfinite(value.float()).all(), name


def with_tiles(peaks: list[float], least: int, length: int = 1000) -> list[float]:
    """The definition: what is long enough, and farther than 0.48 s from every beat, is cut into equal tiles."""
    at = list(peaks)
    ends = [0, *(edge for peak in peaks for edge in (round(peak) - R_AT, round(peak) + R_AT)), length]
    for begin, end in zip(ends[::2], ends[1::2], strict=True):
        tiles = math.ceil((end - begin) / TOKEN_SAMPLES) if end - begin >= least or not peaks else 0
        at += [begin + (k + 0.5) * (end - begin) / tiles for k in range(tiles)]
    return sorted(at)


def border(left: float, right: float, peaks: list[float]) -> float:
    """Where two tokens meet: a beat keeps its 0.48 s beside a tile."""
    if (left in peaks) == (right in peaks):
        return (left + right) / 2
    return round(left) + R_AT if left in peaks else round(right) - R_AT


def slow_waves(x: Tensor, at: list[float], peaks: list[float]) -> tuple[Tensor, Tensor]:
    """The definition, sample by sample."""
    scale = float(window_scale(x[None].nan_to_num(), torch.isfinite(x)[None]))
    waves, valid = torch.zeros(len(at), 12, TOKEN_SAMPLES), torch.zeros(len(at), 12, TOKEN_SAMPLES, dtype=torch.bool)
    for n, centre in enumerate(at):
        for k in range(TOKEN_SAMPLES):
            sample = round(centre) - R_AT + k
            after_left = n == 0 or sample >= border(at[n - 1], centre, peaks)
            before_right = n == len(at) - 1 or sample < border(centre, at[n + 1], peaks)
            if 0 <= sample < x.shape[1] and after_left and before_right:
                valid[n, :, k] = torch.isfinite(x[:, sample])
                waves[n, :, k] = (x[:, sample].nan_to_num() / scale).clamp(-20, 20)
    return waves, valid


@pytest.mark.parametrize("gap_s", [0.96, 0.32])
@pytest.mark.parametrize(
    "peaks", [[5.0, 90.5, 180.0, 999.0], [300.0], [20.0 * k for k in range(50)], [0.0, 700.25, 850.75], [40.5, 168.5, 300.25]]
)
def test_tokens_equal_the_definition(peaks: list[float], gap_s: float) -> None:
    x = windows()
    x[0, 3] = NAN
    x[0, 5, 100:400] = NAN
    tokens = beat_tokens(x, beats(peaks), gap_s)
    at = with_tiles(peaks, round(100 * gap_s))
    torch.testing.assert_close(tokens.at[0], torch.tensor(at) / 100)
    assert tokens.fixed[0].tolist() == [centre not in peaks for centre in at]
    waves, valid = slow_waves(x[0], at, peaks)
    torch.testing.assert_close(tokens.waves[0], waves)
    torch.testing.assert_close(tokens.valid[0], valid)
    assert_finite(tokens)
    assert not tokens.lead[0, :, 3].any()
    assert (tokens.amplitude[0, :, 3] == 0).all()


def test_rr_before_and_after_and_relative() -> None:
    tokens = beat_tokens(windows(2), beats([100, 200, 350, 800], [500]))
    expected = torch.tensor(
        [[0, 1.0, 1, 0], [1.0, 1.5, 1.0 / (5.5 / 3), 1], [1.5, 3.0, 1.5 / (5.5 / 3), 1], [3.0, 0, 3 / (5.5 / 3), 1]]
    )
    own = ~tokens.fixed & tokens.beat
    torch.testing.assert_close(tokens.rr[0, own[0]], expected)  # 4.5 s counts as 3 s, and the tiles in between do not count
    torch.testing.assert_close(tokens.at[0, own[0]], torch.tensor([1.0, 2.0, 3.5, 8.0]))
    assert tokens.at[1, own[1]].tolist() == [5]
    assert (tokens.rr[~own] == torch.tensor([0.0, 0, 1, 0])).all()
    assert (tokens.rr[1] == torch.tensor([0.0, 0, 1, 0])).all()
    assert tokens.fixed.sum(dim=1).tolist() == [4 + 2, 5 + 5]
    assert tokens.beat.sum(dim=1).tolist() == [10, 11]


def test_an_interval_across_missing_signal_is_unknown() -> None:
    x = windows(3)
    x[0, :, 250:280] = NAN
    x[1, :, 250:279] = NAN
    x[2, :11, 250:280] = NAN
    rr = beat_tokens(x, beats(*[[100.0, 200, 300, 380, 480, 580, 680, 780, 880, 960]] * 3)).rr
    assert rr[:, :, 3].sum(dim=1).tolist() == [8, 9, 9]
    assert rr[0, 2].tolist() == [0, pytest.approx(0.8), 1, 0]
    assert rr[0, 1, 1] == 0
    assert rr[0, 1, 2] == pytest.approx(8 * 1.0 / 7.6)  # the mean is that of the known ones


@pytest.mark.parametrize("length", [50, 96, 320, 1000, 1001])
def test_bounds_tile_the_window(length: int) -> None:
    rows = beats([10, 30, 31.5, 40], [], [length - 1.0])
    tokens = beat_tokens(windows(3, length), rows)
    for bounds, own in zip(tokens.bounds, tokens.beat, strict=True):
        ends = bounds[own]
        assert ends[0, 0] == 0
        assert ends[-1, 1] == length
        assert (ends[1:, 0] == ends[:-1, 1]).all()
    assert (tokens.valid.any(dim=2).sum(dim=-1) <= (tokens.bounds[..., 1] - tokens.bounds[..., 0]).clamp(max=TOKEN_SAMPLES)).all()


def test_without_a_beat_there_are_tiles_and_they_say_so() -> None:
    x = windows(2)
    tokens = beat_tokens(x, beats([500], []))
    assert tokens.fixed[1].all()
    assert tokens.fixed[0].sum() == tokens.beat[0].sum() - 1
    assert (tokens.bounds[1, :, 1] - tokens.bounds[1, :, 0]).unique().tolist() == [90, 91]
    assert (tokens.rr == torch.tensor([0.0, 0, 1, 0])).all()
    torch.testing.assert_close(tokens.waves[1], beat_tokens(x[1:], torch.zeros(1, 0)).waves[0])


@pytest.mark.parametrize("gap_s", [0.96, 0.32, 0.01])
@pytest.mark.parametrize(
    "peaks", [[], [500.0], [30.0, 110.0, 190.0, 270.0], [60.0, 252.0, 443.0, 990.0], [80.5 + 128 * k for k in range(7)]]
)
def test_stretches_without_beats_are_read_once_from_a_length_on(peaks: list[float], gap_s: float) -> None:
    tokens = beat_tokens(windows(), beats(peaks), gap_s)
    start = (tokens.at[0] * 100).round().long() - R_AT
    read = torch.zeros(1000, dtype=torch.long)
    for begin, valid in zip(start.tolist(), tokens.valid[0, :, 0], strict=True):
        read[torch.nonzero(valid).flatten() + begin] += 1
    assert read.max() == 1
    unread = "".join("." if own else "x" for own in read.tolist())
    assert max(map(len, unread.split("."))) < 100 * gap_s


@pytest.mark.parametrize("rr", [100.0, 127.0, 128.0, 191.0, 192.0, 193.0, 200.5, 290.0])
def test_a_tile_takes_nothing_from_a_beat(rr: float) -> None:
    peaks = [100 + rr * k for k in range(1, math.ceil(900 / rr) - 1)]
    for gap_s in (0.96, 0.32):
        tokens = beat_tokens(windows(), beats(peaks), gap_s)
        assert (tokens.valid[0, ~tokens.fixed[0] & tokens.beat[0], 0].sum(dim=-1) == TOKEN_SAMPLES).all()


@pytest.mark.parametrize("value", [NAN, 0.0, float("inf"), 1e30, -1e30])
def test_nothing_and_absurd_values_stay_finite(value: float) -> None:
    tokens = beat_tokens(torch.full((2, 12, 1000), value), beats([100, 300], []))
    assert_finite(tokens)
    assert bool(tokens.lead.any()) == (abs(value) < float("inf"))


def test_amplitude_is_the_voltage_that_scaling_takes_away() -> None:
    x = torch.zeros(1, 12, 1000)
    x[0, :, 500] = torch.linspace(0.0, 1.1, 12)
    x[0, :, 100] = 0.3
    tokens = beat_tokens(x, beats([100, 500]))
    own = ~tokens.fixed[0]
    amplitude = tokens.amplitude[0, own]
    torch.testing.assert_close(amplitude[1], torch.linspace(0.0, 1.1, 12).clamp(min=0.01).log())
    doubled = beat_tokens(2 * x, beats([100, 500])).amplitude[0, own]
    torch.testing.assert_close(doubled[0], amplitude[0] + torch.tensor(2.0).log())


def test_a_lead_is_there_if_half_of_what_a_beat_could_have_is() -> None:
    x = windows()
    x[0, 0, 452:501] = NAN  # 49 of 96
    x[0, 1, 452:500] = NAN  # 48 of 96
    tokens = beat_tokens(x, beats([100, 500, 900]))
    lead = tokens.lead[0, tokens.at[0] == 5.0][0]
    assert lead.tolist() == [False, True] + [True] * 10


def test_300_bpm_has_all_its_beats_each_within_its_mid_points() -> None:
    peaks = [10.0 + 20 * k for k in range(50)]
    tokens = beat_tokens(windows(), beats(peaks))
    assert tokens.beat.sum() == 50
    assert (tokens.valid[0, 1:-1, 0].sum(dim=-1) == 20).all()
    assert tokens.lead.all()


def test_beats_outside_the_window_are_ignored() -> None:
    x = windows()
    inside = beat_tokens(x, beats([100, 500, 999.5]))
    around = beat_tokens(x, beats([-80, -0.5, 100, 500, 999.5, 1000, 1300]))
    for one, other in zip(inside, around, strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


@pytest.mark.parametrize("bad", [[200.0, 100.0], [100.0, 100.0], [NAN, 100.0], [100.0, NAN, 300.0]])
def test_beats_out_of_order_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="beats of window 1 are not strictly ascending"):
        beat_tokens(windows(2), beats([1.0, 2.0, 3.0], bad))


@pytest.mark.parametrize(
    ("shape", "count"), [((1, 11, 1000), 1), ((12, 1000), 1), ((1, 12, 0), 1), ((2, 12, 1000), 1), ((0, 12, 1000), 0)]
)
def test_other_shapes_are_refused(shape: tuple[int, ...], count: int) -> None:
    with pytest.raises(ValueError, match="want"):
        beat_tokens(torch.zeros(shape), torch.zeros(count, 3))


@pytest.mark.parametrize("step", [4, 8, 16, 32])
@pytest.mark.parametrize("length", [50, 1000, 1024])
def test_the_grid_takes_the_token_that_speaks_for_the_middle(step: int, length: int) -> None:
    tokens = beat_tokens(windows(3, length), beats([10, 18, 21, 40], [], [30, 33]))
    number = torch.arange(tokens.beat.shape[1], dtype=torch.float32)[None, :, None].repeat(3, 1, 1)
    grid = to_grid(number, tokens, step)
    assert grid.shape == (3, -(-length // 32) * 32 // step, 1)
    for row in range(3):
        for cell in range(grid.shape[1]):
            middle = min((cell + 0.5) * step, length - 0.5)
            begin, end = tokens.bounds[row, int(grid[row, cell, 0])]
            assert begin <= middle < end


def test_the_grid_refuses_other_steps_and_tokens() -> None:
    tokens = beat_tokens(windows(), beats([100, 200]))
    with pytest.raises(ValueError, match="step=5"):
        to_grid(torch.zeros(1, 10, 3), tokens, 5)
    with pytest.raises(ValueError, match=r"want values \(1, 10, 'C'\)"):
        to_grid(torch.zeros(1, 2, 3), tokens, 8)


def test_beat_logits_say_where_the_peaks_are_and_give_gradients() -> None:
    peaks = [0.0, 16.0, 100.0, 250.5, 999.0]
    tokens = beat_tokens(windows(2), beats(peaks, []))
    own = tokens.beat[0] & ~tokens.fixed[0]
    classes = torch.randn(2, tokens.beat.shape[1], 5, requires_grad=True)
    logits = beat_logits(classes, tokens)
    assert logits.shape == (2, 128, 7)
    cells = torch.nonzero(logits[0, :, 0] > 0).flatten()
    assert cells.tolist() == [0, 2, 12, 31, 124]
    place = (cells + logits[0, cells, 1].sigmoid()) * 8
    torch.testing.assert_close(place, torch.tensor(peaks), atol=0.17, rtol=0)
    torch.testing.assert_close(logits[0, cells, 2:], classes[0, own])
    assert (logits[1, :, 0] < 0).all()
    assert tokens.fixed[0].any()
    logits.sum().backward()
    assert (classes.grad[0, own].abs().sum(dim=-1) > 0).all()
    assert (classes.grad[0, ~tokens.beat[0]] == 0).all()


def test_every_sample_of_a_minute_falls_into_its_own_cell() -> None:
    peaks = torch.arange(0.0, 6000.0, 37.0)[None]
    logits = beat_logits(torch.zeros(1, peaks.shape[1], 5), beat_tokens(windows(1, 6000), peaks))
    assert torch.nonzero(logits[0, :, 0] > 0).flatten().tolist() == (peaks[0] // 8).long().tolist()


class _Operations(TorchDispatchMode):
    """Count the operations that torch carries out."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_a_batch_is_cut_by_as_many_operations_as_a_window_and_many_beats_as_few() -> None:
    counts = set()
    for count, every in [(1, 66.0), (32, 66.0), (32, 21.0)]:
        rows = torch.arange(20.0, 1000.0, every).repeat(count, 1)
        with _Operations() as operations:
            beat_tokens(windows(count), rows)
        counts.add(operations.count)
    assert len(counts) == 1
    assert 0 < counts.pop() < 500
