"""Masked autoencoder on CLEAR's encoder: heartbeats are masked one lead at a time (arXiv 2512.24002; docs/models.md).

The encoder is given the visible tokens only. The decoder puts a learned value where a token is masked; such a token sees its own
heartbeat in the other leads and its lead's CLS token, and is reconstructed from them: f(B^j, c_i) in the paper [P]. A CLS sees
itself alone in the decoder [D], so that nothing of another heartbeat comes in but what the encoder put into the CLS; in the
released code it reads its lead again, and visible tokens see all visible tokens [C].

Shapes: B batch, N beat, L lead (12), S token in a flat list, E embed, D decoder width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ecgnat_stream.model.clear import Clear, ClearLayer, Grid, listed, time_code
from ecgnat_stream.model.network import initialise
from ecgnat_stream.model.tokens import TOKEN_SAMPLES, BeatTokens
from train.fit.mae import reconstruction_loss

__all__ = ["MaskedBeats", "draw_beat_mask"]


class MaskedBeats(nn.Module):
    """Encoder, decoder, and the loss.

    Parameters
    ----------
    decoder_embed_dim, decoder_depth, decoder_num_heads
        The decoder; by default two thirds of the encoder's width, and from a width of 768 on, the paper's, its 4 blocks of 16
        heads, below 2 blocks of 4.
    mask_ratio
        Share of the tokens that is masked, of those that are there.
    """

    def __init__(
        self,
        encoder: Clear,
        decoder_embed_dim: int = 0,
        decoder_depth: int = 0,
        decoder_num_heads: int = 0,
        mask_ratio: float = 0.8,
    ) -> None:
        super().__init__()
        self.encoder, self.mask_ratio = encoder, mask_ratio
        config = encoder.config
        large = config.embed_dim >= 768
        dim = decoder_embed_dim or config.embed_dim * 2 // 3
        heads = decoder_num_heads or (16 if large else 4)
        leads = len(encoder.cls)
        self.mask_value = nn.Parameter(torch.zeros(dim))
        self.lead = nn.Parameter(torch.zeros(leads, dim))
        self.embed = nn.Linear(config.embed_dim, dim)
        self.time = nn.Linear(encoder.time.in_features, dim, bias=False)
        self.blocks = nn.ModuleList(ClearLayer(dim, heads, config.mlp_ratio) for _ in range(decoder_depth or (4 if large else 2)))
        self.norm = nn.LayerNorm(dim)
        self.predict = nn.Linear(dim, 2 * TOKEN_SAMPLES)
        for part in (self.embed, self.time, self.blocks, self.predict):
            part.apply(initialise)
        nn.init.trunc_normal_(self.mask_value, std=0.02)
        nn.init.trunc_normal_(self.lead, std=0.02)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss for ``windows`` ``(B, 12, T)`` in mV and ``beats`` ``(B, N)``, under a newly drawn mask."""
        x = self.encoder.prepare(batch["windows"], batch["beats"])
        mask = draw_beat_mask(x, self.mask_ratio)
        shape, raw = self.reconstruct(x, mask)
        return reconstruction_loss(x.waves, x.valid, mask, shape, raw)

    def reconstruct(self, x: BeatTokens, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalised and raw predictions, both ``(B, N, L, 96)``.

        Parameters
        ----------
        mask
            ``(B, N, L)`` bool, True = masked.
        """
        cls, tokens = self.encoder.see(x, x.lead & x.beat[..., None] & ~mask)
        return self._decode(x, mask, cls, tokens)

    def _decode(self, x: BeatTokens, mask: Tensor, cls: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return both predictions from what the encoder returned."""
        where = torch.where(mask[..., None], self.mask_value.to(tokens.dtype), self.embed(tokens))
        where = where + self.time(time_code(x.at))[:, :, None] + self.lead
        flat = torch.cat([self.embed(cls) + self.lead, where.flatten(1, 2)], dim=1)
        there = x.lead & x.beat[..., None]
        if self.encoder.config.attention == "sparse":
            grid = Grid(there, cls_reads=False)
            flat = grid.spread(self._run(grid.pack(flat), grid))
        else:
            flat = self._run(flat, everything(there))
        predicted = self.predict(flat[:, cls.shape[1] :]).view(*mask.shape, 2, TOKEN_SAMPLES)
        return predicted[..., 0, :], predicted[..., 1, :]

    def _run(self, x: Tensor, mask: Tensor | Grid) -> Tensor:
        for block in self.blocks:
            x = block(x, mask)
        out: Tensor = self.norm(x)
        return out


def everything(there: Tensor) -> Tensor:
    """Return the dense mask of a whole grid ``(B, N, L)``."""
    beat, lead = torch.meshgrid(*(torch.arange(n, device=there.device) for n in there.shape[1:]), indexing="ij")
    flat = [index.flatten().expand(len(there), -1) for index in (beat, lead)]
    return listed(flat[0], flat[1], there.flatten(1), "dense")


def draw_beat_mask(x: BeatTokens, mask_ratio: float) -> Tensor:
    """Return which tokens are masked, ``(B, N, L)``: in every row ``round(mask_ratio * M)`` of the M that are there.

    One at least stays visible.
    """
    there = (x.lead & x.beat[..., None]).flatten(1)
    count = there.sum(dim=1)
    masked = torch.minimum((count * mask_ratio).round().long(), (count - 1).clamp(min=0))
    noise = torch.rand(there.shape, device=there.device).masked_fill(~there, torch.inf)
    return (noise.argsort(dim=1).argsort(dim=1) < masked[:, None]).view(x.lead.shape)
