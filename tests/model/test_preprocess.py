"""Windows to tensor: scaling, what is missing, whole tokens."""

from __future__ import annotations

import pytest
import torch

from ecgnat_stream.model.preprocess import IN_CHANNELS, TOKEN, prepare


def ecg(batch: int = 2, length: int = 1000, amplitude: float = 1.0) -> torch.Tensor:
    """Return spikes every 0.8 s, each lead at its own height."""
    time = torch.arange(length) / 100
    beat = torch.exp(-(((time % 0.8 - 0.4) / 0.02) ** 2))
    return amplitude * beat * torch.linspace(0.3, 1.5, 12)[:, None] * torch.ones(batch, 1, 1)


def test_shape_and_padding_to_whole_tokens() -> None:
    x = prepare(ecg())
    assert x.shape == (2, IN_CHANNELS, 1024)
    assert x.shape[2] % TOKEN == 0
    assert x[:, 12:24, :1000].eq(1).all()
    assert x[:, :, 1000:].eq(0).all()


def test_gain_goes_into_the_side_channel_and_nowhere_else() -> None:
    one, two = prepare(ecg(amplitude=2.0)), prepare(ecg(amplitude=4.0))
    torch.testing.assert_close(one[:, :12], two[:, :12])
    step = two[:, 24, :1000] - one[:, 24, :1000]
    torch.testing.assert_close(step, torch.full_like(step, 2.0).log())


def test_relative_voltages_of_the_leads_stay() -> None:
    x = prepare(ecg())
    peaks = x[0, :12].amax(dim=1)
    torch.testing.assert_close(peaks / peaks[0], torch.linspace(0.3, 1.5, 12) / 0.3)


def test_a_flat_line_stays_flat() -> None:
    x = prepare(0.01 * torch.randn(1, 12, 1000, generator=torch.Generator().manual_seed(0)))
    assert x[:, :12].abs().max() < 1


def test_two_seconds_of_artefact_do_not_set_the_scale() -> None:
    clean = ecg(1)
    spoilt = clean.clone()
    spoilt[:, :, 300:500] += 5 * torch.randn(200, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(prepare(spoilt)[0, 24, 0], prepare(clean)[0, 24, 0], atol=0.2, rtol=0)


def test_missing_leads_and_samples_are_told() -> None:
    windows = ecg(1)
    windows[0, 3] = torch.nan
    windows[0, 5, 100:200] = torch.inf
    x = prepare(windows)
    assert torch.isfinite(x).all()
    assert x[0, 3].eq(0).all()
    assert x[0, 15].eq(0).all()
    assert x[0, 17, 100:200].eq(0).all()
    assert x[0, 17, :100].eq(1).all()


@pytest.mark.parametrize("scaling", ["window", "fixed"])
def test_nothing_at_all_is_finite(scaling: str) -> None:
    x = prepare(torch.full((1, 12, 1000), torch.nan), scaling)  # type: ignore[arg-type]
    assert torch.isfinite(x).all()
    assert x[:, :24].eq(0).all()


def test_fixed_scaling_of_a_sample_does_not_depend_on_another() -> None:
    windows = ecg(1)
    changed = windows.clone()
    changed[:, :, 500:] *= 7
    torch.testing.assert_close(prepare(windows, "fixed")[..., :500], prepare(changed, "fixed")[..., :500], rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(12, 1000), (1, 11, 1000), (1, 12, 0)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="want windows"):
        prepare(torch.zeros(shape))
