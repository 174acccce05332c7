"""BEAT-Net: a window as a sequence of heartbeats, after arXiv 2601.07316 (no public code: docs/models.md).

Beat tokens go in, the four outputs of every network come out. Three encoders in a row: the morphology of each beat in each lead
(one small convolutional network for all), the leads of each beat (attention pooling over those that are there), the rhythm of the
beats (a transformer whose positions are the times of the R peaks). Heads of the window have one query per class for the leads and
one for the beats, so that each class tells which of them it looked at.

Shapes: B batch, N beat, L lead (12), M wave (a lead of a beat that is there), S sample or convolved position, D width, H head,
K head dim, C class, P rhythm token of 0.32 s.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecgnat_stream.codes import BEATS, RHYTHMS, SCREENS
from ecgnat_stream.model.heads import RhythmHead
from ecgnat_stream.model.network import HEADS, BeatNetwork, Count, Gap, NetworkOutput, Rate, Ratio, initialise, stochastic_depth
from ecgnat_stream.model.preprocess import TOKEN
from ecgnat_stream.model.tokens import TOKEN_SAMPLES, TOKEN_SECONDS, BeatTokens, beat_logits, beat_tokens, to_grid
from ecgnat_stream.signal import LEADS

__all__ = ["BEATNET_SIZES", "Attended", "BeatFeatures", "BeatNet", "BeatNetConfig"]

_L = len(LEADS)
_RR = 5  # the four of the tokens, and whether the RR interval after is known
_KERNELS = (7, 5, 3)
_PERIODS_S = (0.25, 64.0)  # of the continuous-time positions: below the shortest RR interval, beyond the longest window


class BeatNetConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="arch", tag="beatnet"):
    """Everything that shapes the network.

    Parameters
    ----------
    conv_dims, conv_strides
        Channels and strides of the morphology encoder's convolutions 7/5/3.
    embed_dim
        Width of a lead of a beat, and of a beat.
    depth, num_heads, mlp_ratio
        Blocks of the rhythm encoder.
    lead_heads
        Heads of the lead encoder's attention pooling.
    dropout
        Of the features of a lead of a beat and of the feed-forward parts.
    drop_path
        Stochastic depth of the last block; it grows linearly from 0.
    gap_s
        Stretches without beats are tiled from this length on, see :func:`~ecgnat_stream.model.tokens.beat_tokens`.
    window_classes
        Diagnostic statements, independent of each other.
    screen_classes
        Statements that exclude each other.
    """

    name: str = "paper"
    conv_dims: tuple[Count, Count, Count] = (32, 64, 128)
    conv_strides: tuple[Count, Count, Count] = (2, 2, 1)
    embed_dim: Count = 192
    depth: Count = 4
    num_heads: Count = 6
    mlp_ratio: Ratio = 4.0
    lead_heads: Count = 6
    dropout: Rate = 0.1
    drop_path: Rate = 0.1
    gap_s: Gap = TOKEN_SECONDS
    rhythm_classes: tuple[str, ...] = RHYTHMS
    beat_classes: tuple[str, ...] = BEATS
    window_classes: tuple[str, ...] = ("NORM", "MI", "STTC", "CD", "HYP")
    screen_classes: tuple[str, ...] = SCREENS

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if TOKEN_SAMPLES % math.prod(self.conv_strides):
            raise ValueError(f"the strides must divide the {TOKEN_SAMPLES} samples of a token, got {self.conv_strides=}")
        if self.embed_dim % (2 * self.num_heads) or self.embed_dim % self.lead_heads:
            raise ValueError(
                "the width must divide by twice the heads (positions turn pairs) and by the lead heads, "
                f"got {self.embed_dim=}, {self.num_heads=}, {self.lead_heads=}"
            )


BEATNET_SIZES = {
    "paper": BeatNetConfig(),
    "nano": BeatNetConfig(
        name="nano",
        conv_dims=(16, 24, 48),
        conv_strides=(3, 2, 1),
        embed_dim=96,
        depth=3,
        num_heads=4,
        mlp_ratio=3.0,
        lead_heads=4,
    ),
}
"""The size of docs/models.md, and one that is cheap to train on a CPU: 2.3 and 0.4 million parameters."""


class BeatFeatures(NamedTuple):
    """What the heads read.

    Parameters
    ----------
    beats
        ``(B, N, D)`` after the rhythm encoder.
    leads
        ``(B, N, L, D)`` before the pooling over leads, 0 where a lead is absent.
    lead_weights
        ``(B, N, L)`` of the lead encoder, mean over its heads: 1 over the leads that are there, 0 for a beat without any.
    rhythm_weights
        ``(depth, B, H, N, N)`` of the rhythm encoder, from beat to beat; None unless asked for.
    heard
        ``(B, N)`` tokens with at least one lead, in a window without any all of its tokens: the others are attended to by none.
    tokens
        What was encoded.
    """

    beats: Tensor
    leads: Tensor
    lead_weights: Tensor
    rhythm_weights: Tensor | None
    heard: Tensor
    tokens: BeatTokens


class Attended(NamedTuple):
    """What the classes of one head looked at.

    Parameters
    ----------
    beats
        ``(B, C, N)``: 1 over the beats of a window.
    leads
        ``(B, C, N, L)``: 1 over the leads that are there in a beat. ``beats[..., None] * leads`` is the share of one lead of one
        beat.
    """

    beats: Tensor
    leads: Tensor


class BeatNet(BeatNetwork):
    """Morphology, lead and rhythm encoder, four heads."""

    def __init__(self, config: BeatNetConfig) -> None:
        super().__init__()
        self.config: BeatNetConfig = config
        dim = config.embed_dim
        self.morphology = MorphologyEncoder(config)
        self.lead_encoder = LeadEncoder(config)
        self.rhythm_encoder = RhythmEncoder(config)
        self.rhythm_head = RhythmHead(dim, len(config.rhythm_classes))
        self.beat_head = RhythmHead(dim, len(config.beat_classes))
        self.window_head = ClassHead(dim, len(config.window_classes))
        self.screen_head = ClassHead(dim, len(config.screen_classes))
        self.apply(initialise)

    @property
    def embedding_dim(self) -> int:
        """Width of :meth:`pool`."""
        return self.config.embed_dim

    def prepare(self, windows: Tensor, beats: Tensor | None = None) -> BeatTokens:
        """Cut windows ``(B, 12, T)`` at their R peaks ``(B, N)``, see :func:`~ecgnat_stream.model.tokens.beat_tokens`."""
        if beats is None:
            raise ValueError("BEAT-Net reads beats: give R peaks (B, N), all NaN for a window in which none were found")
        return beat_tokens(windows, beats, self.config.gap_s)

    def encode(self, x: BeatTokens, weights: bool = False) -> BeatFeatures:
        """Return the features of every beat and of every lead of it; a lead counts where ``x.lead`` and ``x.beat`` are both True.

        Parameters
        ----------
        weights
            Also return the rhythm encoder's attention; slower.
        """
        return self.relate(self.encode_tokens(x), x, weights)

    def encode_tokens(self, x: BeatTokens) -> tuple[Tensor, ...]:
        """Return the leads of every beat ``(B, N, L, D)``, the beat ``(B, N, D)`` and its lead weights ``(B, N, L)``."""
        there = x.lead & x.beat[..., None]
        leads = self.lead_encoder.normalise(self.morphology(x, there), x.amplitude, there)
        return leads, *self.lead_encoder(leads, there)

    def relate(self, own: tuple[Tensor, ...], x: BeatTokens, weights: bool = False) -> BeatFeatures:
        """Run the rhythm encoder over the beats."""
        leads, pooled, lead_weights = own
        heard = (x.lead & x.beat[..., None]).any(dim=2)
        heard = torch.where(heard.any(dim=1, keepdim=True), heard, x.beat)
        beats, rhythm_weights = self.rhythm_encoder(pooled, x, heard, weights)
        return BeatFeatures(beats, leads, lead_weights, rhythm_weights, heard, x)

    def pool(self, features: BeatFeatures) -> Tensor:
        """Return the mean over the beats that are heard, ``(B, D)``."""
        heard = features.heard[..., None]
        return (features.beats * heard).sum(dim=1) / heard.sum(dim=1)

    def read(self, features: BeatFeatures) -> NetworkOutput:
        """Return every head's logits. Each beat speaks for the samples up to the middle between it and its neighbours."""
        tokens = features.tokens
        return NetworkOutput(
            to_grid(self.rhythm_head(features.beats), tokens, TOKEN),
            beat_logits(self.beat_head(features.beats), tokens),
            self.window_head(features)[0],
            self.screen_head(features)[0],
        )

    def explain(self, features: BeatFeatures) -> dict[str, Attended]:
        """Return what each class of the heads "window" and "screen" looked at."""
        return {"window": self.window_head(features)[1], "screen": self.screen_head(features)[1]}

    def level(self, name: str) -> int:
        """Return 0 for the heads, 1 for the last block of the rhythm encoder, most for the morphology encoder."""
        depth = self.config.depth
        if name.startswith(HEADS):
            return 0
        part, *path = name.split(".")
        if part == "rhythm_encoder":
            return {"norm": 1, "blocks": depth - int(path[1]) if path[0] == "blocks" else 0}.get(path[0], depth)
        return depth + (1 if part == "lead_encoder" else 2)


class MorphologyEncoder(nn.Module):
    """One convolutional network for every lead of every beat: 7/5/3 with BatchNorm and ReLU, pooled over samples that are there.

    A learned profile per channel says where in the beat its channel counts, as a softmax over the positions that are there: plain
    means would forget whether something happens before or after the R peak. Only the leads that are there are convolved.
    """

    def __init__(self, config: BeatNetConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 2  # the wave, and which of its samples are there
        for kernel_size, stride, dim in zip(_KERNELS, config.conv_strides, config.conv_dims, strict=True):
            layers += [
                nn.Conv1d(channels, dim, kernel_size, stride, kernel_size // 2, bias=False),
                nn.BatchNorm1d(dim),
                nn.ReLU(inplace=True),
            ]
            channels = dim
        self.layers = nn.Sequential(*layers)
        self.stride = math.prod(config.conv_strides)
        self.profile = nn.Parameter(torch.randn(channels, TOKEN_SAMPLES // self.stride))

    def forward(self, x: BeatTokens, there: Tensor) -> Tensor:
        """Return ``(M, channels)``, one row for each True in ``there`` ``(B, N, L)``."""
        valid = x.valid[there]
        if not len(valid):
            return x.waves.new_zeros(0, len(self.profile))
        wave = torch.where(valid, x.waves[there], 0.0)
        present = valid.to(wave.dtype)
        convolved = self.layers(torch.stack([wave, present], dim=1))
        present = F.max_pool1d(present[:, None], self.stride)
        profile = (self.profile - self.profile.amax(dim=1, keepdim=True)).exp()
        share = present[:, 0] @ profile.T  # the softmax, without a copy of the profile per wave
        pooled: Tensor = (convolved * present * profile).sum(dim=-1) / share.clamp(min=1e-6)
        return pooled


class LeadEncoder(nn.Module):
    """Lead normalisation, a learned embedding per lead, the voltage as a side feature; then attention pooling over the leads.

    Lead normalisation: features are standardised, then scaled and shifted by learned values of their lead, so that one
    morphology encoder serves leads of different axis and size.
    """

    def __init__(self, config: BeatNetConfig) -> None:
        super().__init__()
        channels, dim = config.conv_dims[-1], config.embed_dim
        self.standardise = nn.LayerNorm(channels, elementwise_affine=False)
        self.gain = nn.Parameter(torch.ones(_L, channels))
        self.offset = nn.Parameter(torch.zeros(_L, channels))
        self.linear = nn.Linear(channels, dim)
        self.voltage = nn.Linear(1, dim)
        self.embedding = nn.Parameter(0.02 * torch.randn(_L, dim))
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.score = nn.Linear(dim, config.lead_heads, bias=False)
        self.proj = nn.Linear(config.lead_heads * dim, dim)

    def normalise(self, waves: Tensor, amplitude: Tensor, there: Tensor) -> Tensor:
        """Return features ``(B, N, L, D)``, 0 where a lead is absent.

        Parameters
        ----------
        waves
            ``(M, channels)`` of the leads that are ``there`` ``(B, N, L)``.
        amplitude
            ``(B, N, L)`` log of peak-to-peak in mV.
        """
        at = torch.nonzero(there, as_tuple=True)
        x = self.linear(self.standardise(waves) * self.gain[at[2]] + self.offset[at[2]])
        x = F.gelu(x + self.embedding[at[2]] + self.voltage(amplitude[at][:, None].to(x.dtype)))
        x = self.dropout(self.norm(x))
        features: Tensor = x.new_zeros(*there.shape, x.shape[1]).index_put(at, x)
        return features

    def forward(self, leads: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Return pooled features ``(B, N, D)`` and the weights ``(B, N, L)``, mean over heads."""
        weights = _masked_softmax(self.score(leads).transpose(2, 3), there[:, :, None])
        pooled: Tensor = self.proj((weights @ leads).flatten(2))
        return pooled, weights.mean(dim=2)


class RhythmEncoder(nn.Module):
    """A transformer over the beats. RR intervals come in as numbers, R-peak times as rotations of query and key."""

    frequencies: Tensor

    def __init__(self, config: BeatNetConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.intervals = nn.Sequential(nn.Linear(_RR, dim), nn.GELU(), nn.Linear(dim, dim))
        self.fixed = nn.Parameter(0.02 * torch.randn(dim))
        rates = torch.linspace(0, config.drop_path, config.depth).tolist()
        self.blocks = nn.ModuleList(_Block(dim, config, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim)
        low, high = (math.log(2 * math.pi / period) for period in reversed(_PERIODS_S))
        pairs = dim // config.num_heads // 2
        self.register_buffer("frequencies", torch.linspace(low, high, pairs).exp(), persistent=False)

    def forward(self, pooled: Tensor, x: BeatTokens, heard: Tensor, weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return beats ``(B, N, D)``, 0 where padding, and the attention ``(depth, B, H, N, N)`` if asked for.

        Beats attend to those that are ``heard`` ``(B, N)``.
        """
        rr = torch.cat([x.rr, (x.rr[..., 1:2] > 0).to(x.rr.dtype)], dim=-1)
        beats = pooled + self.intervals(rr.to(pooled.dtype)) + self.fixed * x.fixed[..., None]
        angle = x.at.float()[:, None, :, None] * self.frequencies
        turn = angle.cos(), angle.sin()
        seen = []
        for block in self.blocks:
            beats, attention = block(beats, turn, heard[:, None, None], weights)
            seen.append(attention)
        return self.norm(beats) * x.beat[..., None], torch.stack(seen) if weights else None


class _Block(nn.Module):
    """Attention among the beats and a feed-forward part, both pre-norm and residual."""

    def __init__(self, dim: int, config: BeatNetConfig, drop_path: float) -> None:
        super().__init__()
        self.num_heads, self.drop_path = config.num_heads, drop_path
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        hidden = int(dim * config.mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(hidden, dim))

    def forward(
        self, beats: Tensor, turn: tuple[Tensor, Tensor], there: Tensor, weights: bool
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        query, key, value = self.qkv(self.norm1(beats)).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = _rotate(query, turn), _rotate(key, turn)
        attention = None
        if weights:
            attention = _masked_softmax(query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5, there)
            mixed = attention @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, there)
        beats = beats + stochastic_depth(self.proj(mixed.transpose(1, 2).flatten(2)), self.drop_path, self.training)
        return beats + stochastic_depth(self.mlp(self.norm2(beats)), self.drop_path, self.training), attention


class ClassHead(nn.Module):
    """One logit per class, from the leads and the beats that this class attends to.

    Each class pools the leads of every beat with weights of its own; they are joined with what the rhythm encoder says of the
    beat; then each class pools the beats.
    """

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.lead_score = nn.Linear(dim, classes, bias=False)
        self.from_leads, self.from_beat = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.beat_query = nn.Parameter(0.02 * torch.randn(classes, dim))
        self.weight = nn.Parameter(torch.randn(classes, dim) * dim**-0.5)
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, features: BeatFeatures) -> tuple[Tensor, Attended]:
        """Return logits ``(B, C)`` and what they are drawn from."""
        tokens = features.tokens
        there = tokens.lead & tokens.beat[..., None]
        leads = _masked_softmax(self.lead_score(features.leads).transpose(2, 3), there[:, :, None])
        joined = F.gelu(self.from_leads(leads @ features.leads) + self.from_beat(features.beats)[:, :, None])
        beats = _masked_softmax((joined * self.beat_query).sum(dim=-1).transpose(1, 2), features.heard[:, None])
        said = torch.einsum("bcn,bncd->bcd", beats, joined)
        return (said * self.weight).sum(dim=-1) + self.bias, Attended(beats, leads.transpose(1, 2))


def _masked_softmax(score: Tensor, there: Tensor) -> Tensor:
    """Softmax over what is there along the last axis; all 0 where nothing is."""
    return score.masked_fill(~there, torch.finfo(score.dtype).min).softmax(dim=-1) * there


def _rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turn pairs of ``(B, H, N, K)`` by their beat's angles (RoPE, arXiv 2104.09864, with times for positions).

    Scores then depend on the time between two beats, and not on where the window begins.
    """
    cos, sin = turn
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)
