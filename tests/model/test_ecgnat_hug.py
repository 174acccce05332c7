"""HUG on ECG-NAT: groups are read apart, missing ones do not count, and ECG-NAT's encoder fits."""

from __future__ import annotations

import msgspec
import pytest
import torch
from torch import Tensor

from ecgnat_stream.model.ecgnat import EcgNat, size
from ecgnat_stream.model.ecgnat_hug import ECGNAT_HUG_SIZES, EcgNatHug
from ecgnat_stream.model.hug import GROUPS
from ecgnat_stream.model.network import HEADS


def encoder_of(net: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in net.state_dict().items() if not name.startswith(HEADS)}


def network(head: str = "hug-gelu") -> EcgNatHug:
    torch.manual_seed(0)
    net = EcgNatHug(msgspec.structs.replace(ECGNAT_HUG_SIZES["nano"], head=head))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net.eval()


def windows(batch: int = 2) -> Tensor:
    return torch.randn(batch, 12, 640, generator=torch.Generator().manual_seed(1))


def test_the_encoder_has_the_parameters_of_ecgnat() -> None:
    own = EcgNat(size("nano"))
    net = network()
    assert {name: x.shape for name, x in encoder_of(net).items()} == {name: x.shape for name, x in encoder_of(own).items()}
    net.load_state_dict(encoder_of(own), strict=False)
    x = windows()
    x[:, 3:] = torch.nan
    with torch.inference_mode():
        groups = net.encode(net.prepare(x))
        torch.testing.assert_close(groups.stages[-1][:, 0], own.eval().encode(own.prepare(x))[-1])
    assert groups.present.tolist() == [[True, False, False]] * 2


def test_a_group_is_read_without_the_others() -> None:
    net, x = network(), windows()
    changed = x.clone()
    changed[:, list(GROUPS[1])] *= -1
    with torch.inference_mode():
        before, after = net.encode(net.prepare(x)).stages[-1], net.encode(net.prepare(changed)).stages[-1]
    moved = (after - before).abs().amax(dim=(0, 2, 3))
    assert moved[1] > 1e-3
    assert moved[0] == moved[2] == 0


@pytest.mark.parametrize("head", ["hug", "hug-gelu"])
def test_every_head_answers_and_missing_groups_do_not_count(head: str) -> None:
    net, x = network(head), windows(4)
    x[1, 6:], x[2, 1:], x[3] = torch.nan, torch.nan, torch.nan
    x[0, 2, 100] = torch.inf
    with torch.inference_mode():
        out = net(net.prepare(x))
        assert [tuple(logits.shape) for logits in out] == [(4, 20, 8), (4, 80, 7), (4, 5), (4, 4)]
        assert all(torch.isfinite(logits).all() for logits in out)
        for row in range(4):
            alone = net(net.prepare(x[row : row + 1]))
            for one, other in zip(alone, out, strict=True):
                torch.testing.assert_close(one[0], other[row], rtol=0, atol=1e-4)


def test_missing_copies_leave_the_batch_norm_alone() -> None:
    """Three copies of a one-lead window are one: what is told to be missing altogether must not enter the running mean."""
    net, own = network().train(), EcgNat(size("nano")).train()
    own.load_state_dict(encoder_of(net), strict=False)
    x = windows()
    x[:, :6] = torch.nan
    net.encode(net.prepare(x))
    own.encode(own.prepare(x))
    torch.testing.assert_close(net.stem[1].running_mean, own.stem[1].running_mean)


def test_gradients_reach_the_encoder_and_levels_are_those_of_ecgnat() -> None:
    net = network()
    sum(logits.square().mean() for logits in net(net.prepare(windows()))).backward()  # type: ignore[union-attr]
    assert net.stem[0].weight.grad is not None and net.stem[0].weight.grad.abs().sum() > 0
    own = EcgNat(size("nano"))
    assert all(net.level(name) == own.level(name) for name, _ in own.named_parameters() if not name.startswith(HEADS))
    assert net.level("window_head.hug.whole.0.weight") == 0
    assert net.pool(net.encode(net.prepare(windows()))).shape == (2, net.embedding_dim)
