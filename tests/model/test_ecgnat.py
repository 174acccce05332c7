"""The network: shapes, any leads and lengths, and causality from end to end."""

from __future__ import annotations

import msgspec
import pytest
import torch

from ecgnat_stream.model.ecgnat import SIZES, EcgNat, EcgNatConfig, size
from ecgnat_stream.model.preprocess import TOKEN, prepare


def network(config: EcgNatConfig, seed: int = 0) -> EcgNat:
    """Return a network in eval mode whose BatchNorm and biases are not at their trivial start."""
    torch.manual_seed(seed)
    net = EcgNat(config)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for name, buffer in net.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
    return net.eval()


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(("name", "millions"), [("nano", 1.29), ("tiny", 4.68), ("mini", 18.62)])
def test_sizes(name: str, millions: float, is_causal: bool) -> None:
    net = EcgNat(size(name, is_causal))
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("length", [30, 100, 999, 1000, 1024, 2500])
def test_one_token_per_320_ms_at_any_length(length: int, is_causal: bool) -> None:
    net = network(size("nano", is_causal))
    with torch.inference_mode():
        out = net(prepare(torch.randn(2, 12, length), net.config.scaling))
    assert out.rhythm.shape == (2, -(-length // TOKEN), 8)
    assert out.beat.shape == (2, 4 * out.rhythm.shape[1], 7)
    assert out.window.shape == (2, 5)
    assert out.screen.shape == (2, 4)
    assert torch.isfinite(out.rhythm).all()


@pytest.mark.parametrize("stem", ["conv", "overlap"])
def test_causal_tokens_do_not_see_the_future(stem: str) -> None:
    net = network(msgspec.structs.replace(size("nano", is_causal=True), stem=stem))
    windows = torch.randn(1, 12, 1024, generator=torch.Generator().manual_seed(1))
    changed = windows.clone()
    at = 17 * TOKEN
    changed[:, :, at:] = 3 * torch.randn(1, 12, 1024 - at, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        before, after = net(prepare(windows, "fixed")), net(prepare(changed, "fixed"))
    torch.testing.assert_close(after.rhythm[:, :17], before.rhythm[:, :17], rtol=0, atol=1e-6)
    torch.testing.assert_close(after.beat[:, : 4 * 17], before.beat[:, : 4 * 17], rtol=0, atol=1e-6)
    assert (after.rhythm[:, 17:] - before.rhythm[:, 17:]).abs().max() > 1e-3
    assert (after.beat[:, 4 * 17 :] - before.beat[:, 4 * 17 :]).abs().max() > 1e-3


def test_a_causal_prefix_equals_the_beginning_of_the_whole() -> None:
    net = network(size("nano", is_causal=True))
    windows = torch.randn(1, 12, 1024, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        whole = net(prepare(windows, "fixed")).rhythm
        prefix = net(prepare(windows[..., : 5 * TOKEN], "fixed")).rhythm
    torch.testing.assert_close(prefix, whole[:, :5], rtol=0, atol=1e-5)


def test_the_bidirectional_form_does_see_the_future() -> None:
    net = network(size("nano"))
    windows = torch.randn(1, 12, 1024, generator=torch.Generator().manual_seed(4))
    changed = windows.clone()
    changed[:, :, 600:] *= -1
    with torch.inference_mode():
        before, after = net(prepare(windows)).rhythm, net(prepare(changed)).rhythm
    assert (after[:, :17] - before[:, :17]).abs().max() > 1e-4


def test_both_attention_back_ends_give_one_network() -> None:
    reference = EcgNat(size("nano"), backend="reference")
    masked = network(size("nano"))
    reference.load_state_dict(masked.state_dict())
    x = prepare(torch.randn(2, 12, 1000, generator=torch.Generator().manual_seed(5)))
    with torch.inference_mode():
        torch.testing.assert_close(reference.eval()(x).rhythm, masked(x).rhythm, atol=1e-4, rtol=1e-4)


def test_a_missing_lead_is_not_a_zero_lead() -> None:
    net = network(size("nano"))
    windows = torch.randn(1, 12, 1000, generator=torch.Generator().manual_seed(6))
    zero, missing = windows.clone(), windows.clone()
    zero[:, 4], missing[:, 4] = 0.0, torch.nan
    with torch.inference_mode():
        assert (net(prepare(zero)).rhythm - net(prepare(missing)).rhythm).abs().max() > 1e-4


def test_every_parameter_learns() -> None:
    net = EcgNat(size("nano"))
    out = net(prepare(torch.randn(4, 12, 1000)))
    torch.stack([logits.square().mean() for logits in out]).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    "changes",
    [{"depths": (2, 2)}, {"num_heads": (5, 4, 8, 16)}, {"is_causal": True}],
)
def test_what_cannot_be_built_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"got"):
        msgspec.structs.replace(SIZES["nano"], **changes).__post_init__()


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(ValueError, match="'huge'"):
        size("huge")
