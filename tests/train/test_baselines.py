"""The compared networks: shapes, size, and that "full" attention is attention to everything."""

from __future__ import annotations

import msgspec
import pytest
import torch
from torch.nn import functional as F

from ecgnat_stream.model import EcgNat, size
from ecgnat_stream.model.attention import neighborhood_attention
from ecgnat_stream.model.ecgnat import NatLayer
from ecgnat_stream.model.preprocess import TOKEN, prepare
from train.fit.baselines import Bottleneck, XResNet1d, build, full_attention, xresnet_config


def windows(batch: int = 3, length: int = 1000) -> torch.Tensor:
    signal = torch.randn(batch, 12, length, generator=torch.Generator().manual_seed(0))
    signal[:, 3:6] = torch.nan
    return signal


def test_xresnet_is_the_network_of_the_benchmark() -> None:
    network = XResNet1d(xresnet_config())
    blocks = [module for module in network.modules() if isinstance(module, Bottleneck)]
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv1d)]
    shortcuts = [module for block in blocks for module in block.shortcut if isinstance(module, torch.nn.Conv1d)]
    assert len(blocks) == 33
    # 100 convolutions and a linear map are the 101 layers; this stem has three convolutions in place of one
    assert len(convolutions) - len(shortcuts) == 3 + 3 * 33
    assert len(shortcuts) == 1
    assert {module.kernel_size for module in convolutions} == {(1,), (5,)}
    assert all((block.last_norm.weight == 0).all() for block in blocks)
    assert 1.7e6 < sum(parameter.numel() for parameter in network.parameters()) < 2.0e6


def test_xresnet_has_the_interface_that_training_uses() -> None:
    network = XResNet1d(xresnet_config()).eval()
    x = prepare(windows(), network.config.scaling)
    tokens = network.encode(x)
    assert [tuple(stage.shape) for stage in tokens] == [(3, x.shape[2] // step, 256) for step in (4, 8, 16, TOKEN)]
    assert tokens[-1].shape[2] == network.config.embed_dim << 3
    output = network(x)
    assert output.rhythm.shape == (3, 0, 8)
    assert output.beat.shape == (3, 0, 7)
    assert output.window.shape == (3, 5)
    assert output.screen.shape == (3, 4)


@pytest.mark.parametrize("length", [32, 96, 3000])
def test_xresnet_takes_any_length(length: int) -> None:
    network = XResNet1d(xresnet_config()).eval()
    x = prepare(windows(2, length))
    assert network.encode(x)[-1].shape == (2, x.shape[2] // TOKEN, 256)


def test_xresnet_blocks_begin_as_their_shortcut() -> None:
    features = torch.randn(2, 256, 40, generator=torch.Generator().manual_seed(0)).relu()
    network = XResNet1d(xresnet_config())
    same, halved = network.stages[2][1], network.stages[2][0]
    torch.testing.assert_close(same(features), features)
    torch.testing.assert_close(halved(features), F.avg_pool1d(features, 2))


def test_xresnet_learns_a_screening_class() -> None:
    torch.manual_seed(0)
    network = XResNet1d(xresnet_config())
    time = torch.arange(256) / 100
    classes = torch.tensor([0, 1] * 4)
    signal = torch.full((8, 12, 256), torch.nan)
    signal[:, 0] = torch.sin(2 * torch.pi * (2.0 + 4.0 * classes[:, None]) * time)
    x = prepare(signal)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        loss = F.cross_entropy(network(x).screen, classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
    assert network.stages[0][0].branch[1][0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("length", [1, 31, 250])
@pytest.mark.parametrize("is_causal", [False, True])
def test_a_neighbourhood_beyond_the_sequence_is_global_attention(length: int, is_causal: bool) -> None:
    config = full_attention(size("nano", is_causal)).config
    query, key, value = torch.randn(3, 2, length, 4, 12, generator=torch.Generator().manual_seed(1))
    ours = neighborhood_attention(query, key, value, config.kernel_size, 1, is_causal, "masked")
    want = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value)), is_causal=is_causal)
    torch.testing.assert_close(ours, want.transpose(1, 2))


def test_full_attention_changes_attention_only() -> None:
    full, near = full_attention(size("nano")).eval(), EcgNat(size("nano")).eval()
    near.load_state_dict(full.state_dict())
    assert full.config.name == "nano-full"
    changed = {"name", "kernel_size", "dilations"}
    a, b = msgspec.structs.asdict(full.config), msgspec.structs.asdict(near.config)
    assert {key for key in a if a[key] != b[key]} == changed
    assert all(block.dilation == 1 for block in full.modules() if isinstance(block, NatLayer))
    short, long = prepare(windows(2, 32)), prepare(windows(2, 1000))
    torch.testing.assert_close(full(short).rhythm, near(short).rhythm)  # 8 tokens: all are neighbours
    assert (full.encode(long)[0] - near.encode(long)[0]).abs().max() > 1e-4


def test_full_attention_reaches_the_other_end_of_the_window() -> None:
    full, near = full_attention(size("nano")).eval(), EcgNat(size("nano")).eval()
    near.load_state_dict(full.state_dict())
    x = prepare(windows(1, 3200))
    changed = x.clone()
    changed[..., -40:] += 1.0
    with torch.no_grad():
        moved = [(net.encode(x)[0] - net.encode(changed)[0])[0, 0].abs().max() for net in (full, near)]
    assert moved[0] > 0
    assert moved[1] == 0


def test_build_names_what_it_can_build() -> None:
    assert isinstance(build("xresnet1d101"), XResNet1d)
    assert build("full").config.kernel_size > 1000
    assert build("ecgnat", "nano", True).config.is_causal
    with pytest.raises(ValueError, match=r"ecgnat, .*beatnet, .*full, xresnet1d101"):
        build("resnet")
    with pytest.raises(ValueError, match="no causal form"):
        build("xresnet1d101", "nano", True)
