"""Networks that ECG-NAT is compared with: the same prepared windows, losses and budget, another encoder.

"full" is ECG-NAT with global self-attention in place of neighborhood attention, nothing else changed. "xresnet1d101" is the
convolutional network that leads the PTB-XL benchmark (Strodthoff 2021, arXiv 2004.13701): a residual network of 101 layers with
the amendments of "Bag of Tricks" (He 2019, arXiv 1812.01187), in one dimension. It speaks about whole windows only.

Shapes: B batch, C channels, T time, P token, E width.
"""

from __future__ import annotations

from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from ecgnat_stream.model import ARCHITECTURES, EcgNat, EcgNatConfig, Network, configured, size
from ecgnat_stream.model import build as build_network
from ecgnat_stream.model.heads import WindowHead
from ecgnat_stream.model.network import NetworkOutput
from ecgnat_stream.model.preprocess import IN_CHANNELS, prepare

__all__ = ["TRAINED", "XResNet1d", "build", "full_attention", "xresnet_config"]

TRAINED = (*ARCHITECTURES, "full", "xresnet1d101")
"""What can be trained: the networks of the runtime, and two baselines."""

_BLOCKS = (3, 4, 23, 3)
_STEM = (32, 32, 64)
_WIDTH, _EXPANSION = 64, 4
_KERNEL_SIZE = 5
_EVERY_TOKEN = 10_000
"""A neighbourhood of this many tokens is the whole sequence up to 400 s: one longer than the sequence shrinks to it."""


def build(arch: str, size_name: str = "nano", is_causal: bool = False, **changes: Any) -> Network:
    """Return an untrained network.

    Parameters
    ----------
    arch
        One of :data:`TRAINED`.
    size_name, is_causal, changes
        See :func:`ecgnat_stream.model.configured`; xresnet1d101 has one size and no causal form.

    Raises
    ------
    ValueError
        For another architecture or size, or a causal xresnet1d101.
    """
    if arch not in TRAINED:
        raise ValueError(f"unknown architecture {arch!r}: one of {', '.join(TRAINED)}")
    if arch == "full":
        return full_attention(msgspec.structs.replace(size(size_name, is_causal), **changes))
    if arch == "xresnet1d101":
        if is_causal:
            raise ValueError("xresnet1d101 has no causal form: leave out --causal or take another architecture")
        return XResNet1d(msgspec.structs.replace(xresnet_config(), **changes))
    return build_network(configured(arch, size_name, is_causal, **changes))


def full_attention(config: EcgNatConfig) -> EcgNat:
    """Return the network of ``config`` in which every token attends to all, or in the causal form to all before it."""
    full = msgspec.structs.replace(config, name=f"{config.name}-full", kernel_size=_EVERY_TOKEN, dilations=(1, 1, 1, 1))
    return EcgNat(full, backend="masked")


def xresnet_config() -> EcgNatConfig:
    """Return what training reads of a configuration: scaling, classes, the last stage's width 256 (``embed_dim << 3``)."""
    return msgspec.structs.replace(size("nano"), name="xresnet1d101", embed_dim=_WIDTH * _EXPANSION >> 3, drop_path=0.0)


class XResNet1d(Network):
    """xresnet1d101 with the window and the screening head; tokens of its last stage are 32 samples, as ECG-NAT's.

    The heads pool mean and maximum, as the benchmark does, but with a LayerNorm before in place of its BatchNorm and dropout:
    they are ECG-NAT's own, so that encoders are compared and not heads.
    """

    config: EcgNatConfig

    def __init__(self, config: EcgNatConfig) -> None:
        super().__init__()
        self.config = config
        widths = (IN_CHANNELS, *_STEM)
        stem = [_conv(widths[i], widths[i + 1], _KERNEL_SIZE, 1 if i else 2) for i in range(len(_STEM))]
        self.stem = nn.Sequential(*stem, nn.MaxPool1d(3, stride=2, padding=1))
        self.stages = nn.ModuleList()
        channels = _STEM[-1]
        for stage, blocks in enumerate(_BLOCKS):
            layers = []
            for block in range(blocks):
                layers.append(Bottleneck(channels, _WIDTH, 2 if stage and not block else 1))
                channels = _WIDTH * _EXPANSION
            self.stages.append(nn.Sequential(*layers))
        self.window_head = WindowHead(channels, len(config.window_classes))
        self.screen_head = WindowHead(channels, len(config.screen_classes))
        self.apply(_initialise)
        for module in self.modules():  # after the rest: every block begins as its shortcut
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.last_norm.weight)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return the features of every stage, ``(B, P_s, 256)`` in steps of 4, 8, 16 and 32 samples, for ``(B, 25, T)``."""
        features = self.stem(x)
        outputs = []
        for stage in self.stages:
            features = stage(features)
            outputs.append(features.transpose(1, 2))
        return outputs

    @property
    def embedding_dim(self) -> int:
        """Width of the last stage."""
        return _WIDTH * _EXPANSION

    def prepare(self, windows: Tensor, beats: Tensor | None = None) -> Tensor:
        """Return prepared windows ``(B, 25, T)``; beats are not looked at."""
        return prepare(windows, self.config.scaling)

    def pool(self, features: list[Tensor]) -> Tensor:
        """Return the mean of the last stage, normalised, ``(B, 256)``."""
        pooled: Tensor = self.window_head.norm(features[-1]).mean(dim=1)
        return pooled

    def summary(self, features: list[Tensor]) -> Tensor:
        """Return mean and maximum of the last stage, normalised, ``(B, 512)``."""
        return self.window_head.summary(features[-1])

    def read(self, features: list[Tensor]) -> NetworkOutput:
        """Return window and screening logits; rhythm and beats are ``(B, 0, C)``, because there is no head for them."""
        last = features[-1]
        rhythm = last.new_empty(len(last), 0, len(self.config.rhythm_classes))
        beat = last.new_empty(len(last), 0, 2 + len(self.config.beat_classes))
        return NetworkOutput(rhythm, beat, self.window_head(last), self.screen_head(last))


class Bottleneck(nn.Module):
    """Convolutions of 1, 5 and 1 beside a shortcut; the stride sits in the middle one and in an average pool (He 2019, D)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = _EXPANSION * width
        self.last_norm = nn.BatchNorm1d(out)
        self.branch = nn.Sequential(
            _conv(channels, width, 1),
            _conv(width, width, _KERNEL_SIZE, stride),
            nn.Conv1d(width, out, 1, bias=False),
            self.last_norm,
        )
        shortcut: list[nn.Module] = [nn.AvgPool1d(2, ceil_mode=True)] if stride > 1 else []
        if channels != out:
            shortcut += [nn.Conv1d(channels, out, 1, bias=False), nn.BatchNorm1d(out)]
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, features: Tensor) -> Tensor:
        """Return ``(B, 4 width, T / stride)``."""
        return torch.relu(self.branch(features) + self.shortcut(features))


def _conv(channels: int, out: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv1d(channels, out, kernel_size, stride, padding=kernel_size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm1d(out), nn.ReLU())


def _initialise(module: nn.Module) -> None:
    """Initialise convolutions for ReLU (He 2015), linear maps as ECG-NAT does."""
    if isinstance(module, nn.Conv1d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
