"""CLEAR: every heartbeat of every lead is a token (arXiv 2512.24002; docs/models.md says what is the paper's and what is ours).

Beat tokens go in (:mod:`ecgnat_stream.model.tokens`); features of twelve CLS tokens, one per lead, and of every token come out.
Attention is sparse. The paper reconstructs beat j of lead i from the same heartbeat in the leads and from its lead's CLS token,
and calls the two parts of its mask conduction and view [P]: a token sees the tokens of its heartbeat and its lead's CLS; a CLS
sees the tokens of its lead and itself. In the released code the encoder limits the CLS tokens alone, by a float that does not
block [C]; here both kinds of rows are limited in every layer, by booleans made from each token's own indices [D].

No layer joins two heartbeats but through a CLS. No token is dropped, shuffled or counted: any number of beats in any order.

Shapes: B batch, N beat, L lead (12), S token in a flat list, E width, H head, K head dim, C class.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecgnat_stream.codes import BEATS, RHYTHMS, SCREENS
from ecgnat_stream.model.hug import GROUPS, Hug
from ecgnat_stream.model.network import BeatNetwork, Count, Gap, NetworkOutput, Rate, Ratio, initialise, stochastic_depth
from ecgnat_stream.model.preprocess import TOKEN
from ecgnat_stream.model.tokens import TOKEN_SAMPLES, TOKEN_SECONDS, BeatTokens, beat_logits, beat_tokens, to_grid
from ecgnat_stream.signal import LEADS

__all__ = ["CLEAR_SIZES", "AttentionKind", "Clear", "ClearConfig", "ClearFeatures", "ClearLayer", "Grid", "allowed", "time_code"]

AttentionKind = Literal["sparse", "dense"]

_L = len(LEADS)
_TIMES = 16
_SHORTEST_S, _LONGEST_S = 0.5, 60.0  # periods of the time code: from below one beat to beyond any window


class ClearConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="arch", tag="clear"):
    """Everything that shapes the network.

    Parameters
    ----------
    embed_dim, depth, num_heads
        Width, blocks, heads per block.
    mlp_ratio
        Width of the feed-forward part, over ``embed_dim``; 4/3 is the 1024 of the released code.
    attention
        "dense" lets every token see every token: the ablation.
    rr
        Whether a token is told its RR intervals.
    head
        What reads the lead features for statements about the window: "linear" on their mean, or :class:`Hug` without or with a
        non-linearity.
    drop_path
        Stochastic depth of the last block; it grows linearly from 0.
    gap_s
        Stretches without beats are tiled from this length on, see :func:`~ecgnat_stream.model.tokens.beat_tokens`.
    """

    name: str = "nano"
    embed_dim: Count = 96
    depth: Count = 4
    num_heads: Count = 4
    mlp_ratio: Ratio = 2.0
    attention: AttentionKind = "sparse"
    rr: bool = True
    head: Literal["linear", "hug", "hug-gelu"] = "hug"
    drop_path: Rate = 0.1
    gap_s: Gap = TOKEN_SECONDS
    rhythm_classes: tuple[str, ...] = RHYTHMS
    beat_classes: tuple[str, ...] = BEATS
    window_classes: tuple[str, ...] = ("NORM", "MI", "STTC", "CD", "HYP")
    screen_classes: tuple[str, ...] = SCREENS

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.embed_dim % self.num_heads:
            raise ValueError(f"the width must divide by the heads, got {self.embed_dim=}, {self.num_heads=}")


CLEAR_SIZES = {
    "paper": ClearConfig(name="paper", embed_dim=768, depth=12, num_heads=8, mlp_ratio=4 / 3, rr=False),
    "small": ClearConfig(name="small", embed_dim=192, depth=6, num_heads=6),
    "nano": ClearConfig(),
}
"""The paper's size, and two for a CPU."""


class ClearFeatures(NamedTuple):
    """``leads`` ``(B, L, E)``: the CLS tokens; ``tokens`` ``(B, N, L, E)``; and the ``beats`` they were made of."""

    leads: Tensor
    tokens: Tensor
    beats: BeatTokens

    @property
    def present(self) -> Tensor:
        """Which leads are there in any beat, ``(B, L)``."""
        return (self.beats.lead & self.beats.beat[..., None]).any(dim=1)


class Grid:
    """The sparse mask for L CLS tokens and N x L tokens, beat by beat; never written out, and run over what is there alone.

    Most places of a batch are empty: windows have fewer beats than the fullest one, and often one to three leads.

    Parameters
    ----------
    there
        ``(B, N, L)`` bool.
    cls_reads
        Whether a CLS sees its lead's tokens; if not, it sees itself alone.
    """

    def __init__(self, there: Tensor, cls_reads: bool = True) -> None:
        self.there, self.cls_reads = there, cls_reads
        batch, beats, _ = there.shape
        self._token = there.flatten().nonzero().squeeze(1)
        row = self._token // (beats * _L)
        self.cls = row * _L + self._token % _L
        """Of every packed token: which of the B x L CLS tokens is its lead's."""
        self.row = torch.cat([torch.arange(batch, device=there.device).repeat_interleave(_L), row])
        self.beats = there[there.any(dim=2)]
        """The heartbeats that have a token, ``(M', L)`` bool, in the order of the packed tokens."""
        self.slot = self.beats.flatten().nonzero().squeeze(1)

    def pack(self, x: Tensor) -> Tensor:
        """Return the CLS tokens and then the tokens that are there, ``(M, E)``, of ``(B, L + N L, E)``."""
        tokens = x[:, _L:].flatten(0, 1).index_select(0, self._token)
        return torch.cat([x[:, :_L].flatten(0, 1), tokens])

    def spread(self, x: Tensor) -> Tensor:
        """Undo :meth:`pack`, with 0 where nothing is there."""
        batch, width = len(self.there), x.shape[-1]
        tokens = x.new_zeros(self.there.numel(), width).index_copy(0, self._token, x[batch * _L :])
        return torch.cat([x[: batch * _L].view(batch, _L, width), tokens.view(batch, -1, width)], dim=1)

    def by_beat(self, x: Tensor) -> Tensor:
        """Return packed tokens, CLS left out, ``(M - B L, ...)``, heartbeat by heartbeat ``(M', L, ...)``, 0 in empty places."""
        return x.new_zeros(self.beats.numel(), *x.shape[1:]).index_copy(0, self.slot, x).view(-1, _L, *x.shape[1:])

    def by_token(self, x: Tensor) -> Tensor:
        """Undo :meth:`by_beat`."""
        return x.flatten(0, 1).index_select(0, self.slot)


def allowed(
    beat: Tensor, lead: Tensor, is_cls: Tensor, there: Tensor, attention: AttentionKind = "sparse", cls_reads: bool = True
) -> Tensor:
    """Return which token sees which, from what each of them is: the definition.

    Conduction: the same heartbeat in any lead. View: a lead's tokens and its CLS see each other. Everybody sees itself: no row
    is empty.

    Parameters
    ----------
    beat, lead
        ``(B, S)`` indices; the beat of a CLS does not matter.
    is_cls, there
        ``(B, S)`` bool; nobody sees what is not there.
    cls_reads
        Whether a CLS sees its lead's tokens.

    Returns
    -------
    Tensor
        ``(B, S, S)`` bool, rows look at columns.
    """
    row, column = is_cls[:, :, None], is_cls[:, None]
    conduction = ~row & ~column & (beat[:, :, None] == beat[:, None])
    view = (lead[:, :, None] == lead[:, None]) & (row ^ column)
    if not cls_reads:
        view = view & ~row
    seen = conduction | view if attention == "sparse" else torch.ones_like(conduction)
    return seen & there[:, None] | torch.eye(beat.shape[1], dtype=torch.bool, device=beat.device)


class Clear(BeatNetwork):
    """Token embedding, transformer blocks with the sparse mask, four heads."""

    config: ClearConfig

    def __init__(self, config: ClearConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.wave = nn.Linear(2 * TOKEN_SAMPLES, dim)
        self.side = nn.Linear(5 if config.rr else 1, dim, bias=False)
        self.time = nn.Linear(2 * _TIMES, dim, bias=False)
        self.lead = nn.Parameter(torch.zeros(_L, dim))
        self.cls = nn.Parameter(torch.zeros(_L, dim))
        self.fixed = nn.Parameter(torch.zeros(dim))
        rates = [config.drop_path * block / max(config.depth - 1, 1) for block in range(config.depth)]
        self.blocks = nn.ModuleList(ClearLayer(dim, config.num_heads, config.mlp_ratio, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim)
        self.rhythm_head = TokenHead(dim, len(config.rhythm_classes))
        self.beat_head = TokenHead(dim, len(config.beat_classes))
        self.window_head = LeadHead(config, len(config.window_classes))
        self.screen_head = LeadHead(config, len(config.screen_classes))
        self.apply(initialise)
        for head in (self.window_head, self.screen_head):
            if head.hug is not None:
                head.hug.initialise()
        for table in (self.lead, self.cls, self.fixed):
            nn.init.trunc_normal_(table, std=0.02)

    @property
    def embedding_dim(self) -> int:
        """Width of the tokens."""
        return self.config.embed_dim

    def prepare(self, windows: Tensor, beats: Tensor | None = None) -> BeatTokens:
        """Return the windows cut into beat tokens."""
        if beats is None:
            raise ValueError("CLEAR reads heartbeats: give the R peaks of every window as beats (B, N)")
        return beat_tokens(windows, beats, self.config.gap_s)

    def embed(self, x: BeatTokens) -> Tensor:
        """Return what every token is before it saw any other, ``(B, N, L, E)``; also of those that are not there."""
        return self._placed(self.encode_tokens(x)[0], x)

    def encode_tokens(self, x: BeatTokens) -> tuple[Tensor, ...]:
        """Return wave, voltage and lead of every token, ``(B, N, L, E)``: all that does not change with the window.

        Its time in the window, and its RR interval over their mean, do; and with them all blocks, from the first one on.
        """
        waves = self.wave(torch.cat([x.waves, x.valid.to(x.waves.dtype)], dim=-1))
        return (waves + x.amplitude[..., None] * self.side.weight[:, 0] + self.lead,)

    def _placed(self, tokens: Tensor, x: BeatTokens) -> Tensor:
        """Add to tokens ``(B, N, L, E)`` where they lie in the window."""
        of_beat = self.time(time_code(x.at)) + self.fixed * x.fixed[..., None]
        if self.config.rr:
            of_beat = of_beat + F.linear(x.rr, self.side.weight[:, 1:])
        placed: Tensor = tokens + of_beat[:, :, None]
        return placed

    def relate(self, own: tuple[Tensor, ...], x: BeatTokens) -> ClearFeatures:
        """Return the features of every CLS and of every token, 0 where ``x.lead`` or ``x.beat`` is False."""
        return ClearFeatures(*self._mixed(self._placed(own[0], x), x.lead & x.beat[..., None]), x)

    def see(self, x: BeatTokens, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Return the CLS tokens ``(B, L, E)`` and the visible tokens, ``(B, N, L, E)``, 0 elsewhere.

        Parameters
        ----------
        visible
            ``(B, N, L)`` bool; the others are left out, as if they did not exist.
        """
        return self._mixed(self.embed(x), visible)

    def _mixed(self, tokens: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        flat = tokens.flatten(1, 2)
        if self.config.attention == "sparse":
            grid = Grid(visible)
            mixed = grid.spread(self._run(grid.pack(self._with_cls(flat)), grid))
            return mixed[:, :_L], mixed[:, _L:].view(tokens.shape)
        there = visible.flatten(1)
        kept = (~there).long().argsort(dim=1, stable=True)[:, : max(int(there.sum(dim=1).max()), 1)]
        place = kept[..., None].expand(-1, -1, tokens.shape[-1])
        leads, mixed = self.mix(flat.gather(1, place), kept // _L, kept % _L, there.gather(1, kept))
        spread = mixed.new_zeros(flat.shape).scatter(1, place, mixed) * there[..., None]
        return leads, spread.view(tokens.shape)

    def mix(self, tokens: Tensor, beat: Tensor, lead: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Run the blocks over the CLS tokens and any list of tokens.

        Parameters
        ----------
        tokens
            ``(B, S, E)``, of :meth:`embed`.
        beat, lead, there
            ``(B, S)``: which heartbeat, which lead, and whether it is there.

        Returns
        -------
        tuple
            The CLS tokens ``(B, L, E)`` and the tokens ``(B, S, E)``.
        """
        x = self._run(self._with_cls(tokens), listed(beat, lead, there, self.config.attention))
        return x[:, :_L], x[:, _L:]

    def _with_cls(self, tokens: Tensor) -> Tensor:
        return torch.cat([self.cls.to(tokens.dtype).expand(len(tokens), -1, -1), tokens], dim=1)

    def _run(self, x: Tensor, mask: Tensor | Grid) -> Tensor:
        for block in self.blocks:
            x = block(x, mask)
        out: Tensor = self.norm(x)
        return out

    def pool(self, features: ClearFeatures) -> Tensor:
        """Return the mean of the present leads' CLS tokens, ``(B, E)``; 0 where no lead is there."""
        return mean_over(features.leads, features.present)

    def summary(self, features: ClearFeatures) -> Tensor:
        """Return what the linear head reads, :meth:`pool`, or, with HUG, the means of the three base groups, ``(B, 3 E)``.

        HUG without a non-linearity is a linear map of the latter.
        """
        if self.config.head == "linear":
            return self.pool(features)
        return torch.cat([mean_over(features.leads[:, list(g)], features.present[:, list(g)]) for g in GROUPS], dim=-1)

    def read(self, features: ClearFeatures) -> NetworkOutput:
        """Return every head's logits; every sample has those of the beat that speaks for it."""
        beats = mean_over(features.tokens, features.beats.lead)
        context = self.pool(features)[:, None].expand_as(beats)
        tokens = torch.cat([beats, context], dim=-1)
        rhythm = to_grid(self.rhythm_head(tokens), features.beats, TOKEN)
        beat = beat_logits(self.beat_head(tokens), features.beats)
        leads, present = features.leads, features.present
        return NetworkOutput(rhythm, beat, self.window_head(leads, present), self.screen_head(leads, present))

    def evidence(self, features: ClearFeatures) -> dict[str, Tensor]:
        """Return what every lead group of HUG says for every class, "window" and "screen" ``(B, 7, C)``.

        Raises
        ------
        ValueError
            If the network has the linear head.
        """
        heads = {"window": self.window_head, "screen": self.screen_head}
        if any(head.hug is None for head in heads.values()):
            raise ValueError("a linear head has no lead groups: build the network with head = 'hug' or 'hug-gelu'")
        return {name: head.hug(features.leads, features.present).evidence for name, head in heads.items() if head.hug is not None}

    def level(self, name: str) -> int:
        """Count from the heads: the last block is 1, the embedding lies below the first."""
        part, _, rest = name.partition(".")
        if part == "blocks":
            return self.config.depth - int(rest.partition(".")[0])
        if part == "norm":
            return 1
        return super().level(name) and self.config.depth + 1


class TokenHead(nn.Sequential):
    """Logits of a heartbeat from its own features and the window's, ``(B, N, 2 E)``."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__(nn.LayerNorm(2 * dim), nn.Linear(2 * dim, dim), nn.GELU(), nn.Linear(dim, classes))


class LeadHead(nn.Module):
    """Statements about the window from the lead features."""

    def __init__(self, config: ClearConfig, classes: int) -> None:
        super().__init__()
        self.hug = None if config.head == "linear" else Hug(config.embed_dim, classes, config.head == "hug-gelu")
        self.linear = nn.Linear(config.embed_dim, classes) if config.head == "linear" else None

    def forward(self, leads: Tensor, present: Tensor) -> Tensor:
        """Return logits ``(B, C)`` for ``(B, L, E)``, of which ``present`` ``(B, L)`` are there."""
        if self.hug is not None:
            logits: Tensor = self.hug(leads, present).logits
            return logits
        assert self.linear is not None
        logits = self.linear(mean_over(leads, present))
        return logits


class ClearLayer(nn.Module):
    """Masked attention and a feed-forward part, both pre-norm and residual."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, drop_path: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.drop_path = num_heads, drop_path
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        hidden = round(dim * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor, mask: Tensor | Grid) -> Tensor:
        """Mix ``(B, S, E)`` as a mask ``(B, S, S)`` allows, or what a :class:`Grid` packed, ``(M, E)``, as that does."""
        x = x + self._dropped(self.proj(self._attend(self.qkv(self.norm1(x)), mask)), mask)
        return x + self._dropped(self.mlp(self.norm2(x)), mask)

    def _attend(self, qkv: Tensor, mask: Tensor | Grid) -> Tensor:
        query, key, value = qkv.unflatten(-1, (3, self.num_heads, -1)).unbind(-3)  # type: ignore[no-untyped-call]
        attend = _attend_grid if isinstance(mask, Grid) else _attend
        return attend(query, key, value, mask).flatten(-2)  # type: ignore[arg-type]

    def _dropped(self, branch: Tensor, mask: Tensor | Grid) -> Tensor:
        """Leave the branch out for a random part of the windows, see :func:`stochastic_depth`."""
        if not isinstance(mask, Grid):
            return stochastic_depth(branch, self.drop_path, self.training)
        kept = stochastic_depth(branch.new_ones(len(mask.there)), self.drop_path, self.training)
        return branch * kept[mask.row, None]


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attend over ``(B, S, H, K)`` where ``mask`` ``(B, S, S)`` says so."""
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None]).transpose(1, 2)


def _attend_grid(query: Tensor, key: Tensor, value: Tensor, grid: Grid) -> Tensor:
    """Attend over packed tokens ``(M, H, K)``: :func:`allowed` without its empty parts, L + 1 scores per token."""
    count = len(grid.there) * _L
    query = query * query.shape[-1] ** -0.5
    (query_cls, query), (key_cls, key), (value_cls, value) = ((x[:count], x[count:]) for x in (query, key, value))

    beats = [grid.by_beat(x).transpose(1, 2) for x in (query, key, value)]
    conduction = (beats[0] @ beats[1].transpose(-1, -2)).masked_fill(~grid.beats[:, None, None], -torch.inf)
    view = (query * key_cls.index_select(0, grid.cls)).sum(dim=-1)
    weights = torch.cat([conduction, grid.by_beat(view).transpose(1, 2)[..., None]], dim=-1).softmax(dim=-1)
    tokens = grid.by_token((weights[..., :_L] @ beats[2]).transpose(1, 2))
    tokens = tokens + grid.by_token(weights[..., _L:].transpose(1, 2)) * value_cls.index_select(0, grid.cls)
    if not grid.cls_reads:
        return torch.cat([value_cls.to(tokens.dtype), tokens])

    own, view = (query_cls * key_cls).sum(dim=-1), (query_cls.index_select(0, grid.cls) * key).sum(dim=-1)
    lead = grid.cls[:, None].expand_as(view)
    highest = own.detach().scatter_reduce(0, lead, view.detach(), "amax")
    own, view = (own - highest).exp(), (view - highest.index_select(0, grid.cls)).exp()
    total = own.index_add(0, grid.cls, view)
    mixed = (own[..., None] * value_cls).index_add(0, grid.cls, view[..., None] * value)
    return torch.cat([mixed / total[..., None], tokens])


def listed(beat: Tensor, lead: Tensor, there: Tensor, attention: AttentionKind = "sparse", cls_reads: bool = True) -> Tensor:
    """Return :func:`allowed` for the CLS tokens followed by a list of tokens, whose indices are ``(B, S)``."""
    own = torch.arange(_L, device=lead.device).expand(len(lead), -1)
    is_cls = F.pad(torch.zeros_like(there), (_L, 0), value=True)
    lead = torch.cat([own, lead], dim=1)
    return allowed(F.pad(beat, (_L, 0)), lead, is_cls, F.pad(there, (_L, 0), value=True), attention, cls_reads)


def mean_over(values: Tensor, there: Tensor) -> Tensor:
    """Return the mean of ``(..., L, E)`` over the leads that are ``there`` ``(..., L)``; 0 where none is."""
    weight = there.to(values.dtype)[..., None]
    return (values * weight).sum(dim=-2) / weight.sum(dim=-2).clamp(min=1)


def time_code(at: Tensor) -> Tensor:
    """Return sines and cosines of a time in s, ``(B, N)`` to ``(B, N, 32)``: any time, any number of beats."""
    octaves = torch.linspace(0, math.log(_LONGEST_S / _SHORTEST_S), _TIMES, device=at.device)
    phase = 2 * math.pi * at[..., None] / (_SHORTEST_S * octaves.exp())
    return torch.cat([phase.sin(), phase.cos()], dim=-1)
