"""ECG-NAT: a hierarchical neighborhood-attention transformer over ECG, after arXiv 2605.13194 (no public code: docs/models.md).

Prepared windows ``(B, 25, T)`` go in; rhythm logits for every 0.32 s, beats and window logits come out. Four stages with token
steps of 40, 80, 160 and 320 ms. Two forms of one network: bidirectional, and causal (left-padded convolutions, causal attention),
where no output token depends on a sample after its own 0.32 s.

Shapes: B batch, C channels, T time, P token, E width, H head, K head dim.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecgnat_stream.codes import BEATS, RHYTHMS, SCREENS
from ecgnat_stream.model.attention import Backend, neighborhood_attention
from ecgnat_stream.model.heads import BeatHead, RhythmHead, WindowHead
from ecgnat_stream.model.network import Count, Network, NetworkOutput, Rate, Ratio, initialise, stochastic_depth
from ecgnat_stream.model.preprocess import IN_CHANNELS, Scaling, prepare
from ecgnat_stream.suggest import unknown

__all__ = ["SIZES", "EcgNat", "EcgNatConfig", "size"]


class EcgNatConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="arch", tag="ecgnat"):
    """Everything that shapes the network.

    Parameters
    ----------
    embed_dim
        Width of the first stage; it doubles from stage to stage.
    depths, num_heads
        Blocks and heads per stage.
    kernel_size, dilations
        Neighbours per token; dilation of every second block of a stage (the others have 1).
    stem
        "conv" is convolutions 7/5/3 with BatchNorm and GELU, "overlap" two convolutions of 3 and LayerNorm as in NAT.
    scaling
        See :mod:`ecgnat_stream.model.preprocess`; the causal form takes "fixed" only.
    drop_path
        Stochastic depth of the last block; it grows linearly from 0.
    window_classes
        Diagnostic statements, independent of each other.
    screen_classes
        Statements that exclude each other.
    """

    name: str = "nano"
    embed_dim: Count = 24
    depths: tuple[Count, ...] = (2, 2, 4, 2)
    num_heads: tuple[Count, ...] = (2, 4, 8, 16)
    kernel_size: Count = 13
    dilations: tuple[Count, ...] = (8, 4, 2, 1)
    mlp_ratio: Ratio = 3.0
    is_causal: bool = False
    stem: Literal["conv", "overlap"] = "conv"
    scaling: Scaling = "window"
    drop_path: Rate = 0.1
    rhythm_classes: tuple[str, ...] = RHYTHMS
    beat_classes: tuple[str, ...] = BEATS
    window_classes: tuple[str, ...] = ("NORM", "MI", "STTC", "CD", "HYP")
    screen_classes: tuple[str, ...] = SCREENS

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        stages = (len(self.depths), len(self.num_heads), len(self.dilations))
        if stages != (4, 4, 4):
            raise ValueError(
                f"want four stages, got depths {self.depths}, num_heads {self.num_heads}, dilations {self.dilations}"
            )
        if any((self.embed_dim << stage) % heads for stage, heads in enumerate(self.num_heads)):
            raise ValueError(f"every stage's width must divide by its heads, got {self.embed_dim=}, {self.num_heads=}")
        if self.is_causal and self.scaling != "fixed":
            raise ValueError(f"a causal network needs scaling='fixed', got {self.scaling!r}")


SIZES = {
    "nano": EcgNatConfig(),
    "tiny": EcgNatConfig(name="tiny", embed_dim=32, depths=(3, 4, 6, 5)),
    "mini": EcgNatConfig(name="mini", embed_dim=64, depths=(3, 4, 6, 5)),
}
"""The three sizes: 1.2, 4.6 and 18 million parameters."""


def size(name: str, is_causal: bool = False) -> EcgNatConfig:
    """Return the configuration of a size, in its bidirectional or causal form."""
    if name not in SIZES:
        raise ValueError(unknown("size", name, SIZES))
    config = SIZES[name]
    if not is_causal:
        return config
    return msgspec.structs.replace(config, name=f"{name}-causal", is_causal=True, scaling="fixed")


class EcgNat(Network):
    """Stem, four stages, four heads."""

    config: EcgNatConfig

    def __init__(self, config: EcgNatConfig, backend: Backend | None = None) -> None:
        super().__init__()
        self.config, self.backend = config, backend
        dims = [config.embed_dim << stage for stage in range(4)]
        self.stem = _conv_stem(config) if config.stem == "conv" else _overlap_stem(config)
        self.stages = nn.ModuleList()
        rates = torch.linspace(0, config.drop_path, sum(config.depths)).tolist()
        for stage, depth in enumerate(config.depths):
            dilations = [config.dilations[stage] if block % 2 else 1 for block in range(depth)]
            blocks = [
                NatLayer(dims[stage], config.num_heads[stage], config, dilation, rates.pop(0), backend) for dilation in dilations
            ]
            self.stages.append(nn.ModuleList(blocks))
        self.downsamplers = nn.ModuleList(Downsampler(a, b, config.is_causal) for a, b in pairwise(dims))
        self.rhythm_head = RhythmHead(dims[-1], len(config.rhythm_classes))
        self.beat_head = BeatHead(dims[1], dims[-1], len(config.beat_classes))
        self.window_head = WindowHead(dims[-1], len(config.window_classes))
        self.screen_head = WindowHead(dims[-1], len(config.screen_classes))
        self.apply(initialise)

    @property
    def embedding_dim(self) -> int:
        """Width of the last stage."""
        return self.config.embed_dim << 3

    def prepare(self, windows: Tensor, beats: Tensor | None = None) -> Tensor:
        """Return prepared windows ``(B, 25, T)``; beats are not looked at."""
        return prepare(windows, self.config.scaling)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return the tokens of every stage, ``(B, P_s, E_s)``, for prepared windows ``(B, 25, T)``."""
        tokens = self.stem(x).transpose(1, 2)
        outputs = []
        for stage, blocks in enumerate(self.stages):
            if stage:
                tokens = self.downsamplers[stage - 1](tokens)
            for block in blocks:  # type: ignore[attr-defined]
                tokens = block(tokens)
            outputs.append(tokens)
        return outputs

    def pool(self, features: list[Tensor]) -> Tensor:
        """Return the mean of the last stage's tokens, normalised, ``(B, 8 E)``."""
        pooled: Tensor = self.window_head.norm(features[-1]).mean(dim=1)
        return pooled

    def summary(self, features: list[Tensor]) -> Tensor:
        """Return mean and maximum of the last stage's tokens, normalised, ``(B, 16 E)``."""
        return self.window_head.summary(features[-1])

    def read(self, features: list[Tensor]) -> NetworkOutput:
        """Return every head's logits for the tokens of every stage, see :meth:`encode`."""
        last = features[-1]
        beat = self.beat_head(features[1], last)
        return NetworkOutput(self.rhythm_head(last), beat, self.window_head(last), self.screen_head(last))

    def level(self, name: str) -> int:
        """Count from the heads: stages 4 to 1, each with the downsampler behind it, and the stem."""
        part, _, rest = name.partition(".")
        if part == "stages":
            return 4 - int(rest[0])
        if part == "downsamplers":
            return 3 - int(rest[0])
        return 5 if part == "stem" else 0


class NatLayer(nn.Module):
    """Neighborhood attention and a feed-forward part, both pre-norm and residual."""

    def __init__(
        self, dim: int, num_heads: int, config: EcgNatConfig, dilation: int, drop_path: float, backend: Backend | None
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.kernel_size, self.dilation, self.is_causal = config.kernel_size, dilation, config.is_causal
        self.drop_path = drop_path
        self.backend = backend
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        hidden = int(dim * config.mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix ``(B, P, E)`` along P, then along E."""
        tokens = tokens + stochastic_depth(self._attend(self.norm1(tokens)), self.drop_path, self.training)
        return tokens + stochastic_depth(self.mlp(self.norm2(tokens)), self.drop_path, self.training)

    def _attend(self, tokens: Tensor) -> Tensor:
        batch, length, dim = tokens.shape
        query, key, value = self.qkv(tokens).view(batch, length, 3, self.num_heads, -1).unbind(2)
        mixed = neighborhood_attention(query, key, value, self.kernel_size, self.dilation, self.is_causal, self.backend)
        out: Tensor = self.proj(mixed.reshape(batch, length, dim))
        return out


class Downsampler(nn.Module):
    """Halve the tokens and widen them: convolution of 3 with stride 2, then LayerNorm."""

    def __init__(self, dim: int, out_dim: int, is_causal: bool) -> None:
        super().__init__()
        self.conv = PaddedConv(dim, out_dim, 3, 2, is_causal, bias=False)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return ``(B, P / 2, 2 E)``."""
        out: Tensor = self.norm(self.conv(tokens.transpose(1, 2)).transpose(1, 2))
        return out


class PaddedConv(nn.Conv1d):
    """A strided convolution whose output ``j`` speaks for the inputs ``[stride * j, stride * (j + 1))``.

    Bidirectional: padded on both sides. Causal: padded on the left only, so that nothing after those inputs is seen.
    """

    def __init__(
        self, channels: int, out_channels: int, kernel_size: int, stride: int, is_causal: bool, bias: bool = True
    ) -> None:
        super().__init__(channels, out_channels, kernel_size, stride, bias=bias)
        both = kernel_size // 2
        self.ends = (kernel_size - stride, 0) if is_causal else (both, both)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve ``(B, C, T)`` to ``(B, C', T / stride)``."""
        return super().forward(F.pad(input, self.ends))


class _ChannelNorm(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.transpose(1, 2)).transpose(1, 2)


def _conv_stem(config: EcgNatConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = IN_CHANNELS
    for kernel_size, stride in ((7, 2), (5, 2), (3, 1)):
        layers += [
            PaddedConv(channels, config.embed_dim, kernel_size, stride, config.is_causal, bias=False),
            nn.BatchNorm1d(config.embed_dim),
            nn.GELU(),
        ]
        channels = config.embed_dim
    return nn.Sequential(*layers)


def _overlap_stem(config: EcgNatConfig) -> nn.Sequential:
    half = config.embed_dim // 2
    first = PaddedConv(IN_CHANNELS, half, 3, 2, config.is_causal)
    return nn.Sequential(first, PaddedConv(half, config.embed_dim, 3, 2, config.is_causal), _ChannelNorm(config.embed_dim))
