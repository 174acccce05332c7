"""Masked autoencoder on an ECG-NAT encoder (He 2022, arXiv 2111.06377; for neighborhood attention after docs/models.md).

Neighborhood attention needs every token in its place, so nothing is dropped: masked samples are replaced in the input, in blocks
of one last-stage token (0.32 s). The limb leads are linear functions of two of them and are masked together; every chest lead
is masked on its own. Blocks are masked one by one, or heartbeat by heartbeat: then a QRS complex cannot be guessed from the rest
of its own beat in the same lead.

Shapes: B batch, L lead (12), T time, P block of 32 samples, N beat, E embed, D decoder width.
"""

from __future__ import annotations

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecgnat_stream.model import EcgNat
from ecgnat_stream.model.ecgnat import NatLayer
from ecgnat_stream.model.preprocess import TOKEN, prepare
from ecgnat_stream.signal import LEADS, MODEL_FS

__all__ = ["MaskedAutoencoder", "draw_mask", "level_and_spread", "masked_loss", "reconstruction_loss"]

_L = len(LEADS)
_LIMB = 6
_STRIDE = 4
_RAW = 0.1
"""Weight of the amplitude in mV beside the shape of every block."""

_FAR = 1.0 * MODEL_FS
"""Samples beyond which a block is of no heartbeat."""


class MaskedAutoencoder(nn.Module):
    """Encoder, a small decoder, and the loss.

    The decoder brings the outputs of all four stages to the stem's stride, adds them, mixes with two neighborhood-attention
    blocks and predicts, for every sample of every lead, the normalised block and its raw value.

    Parameters
    ----------
    mask_ratio
        Share of the blocks that is masked.
    """

    def __init__(self, encoder: EcgNat, decoder_embed_dim: int = 64, decoder_depth: int = 2, mask_ratio: float = 0.75) -> None:
        super().__init__()
        self.encoder, self.mask_ratio = encoder, mask_ratio
        config = msgspec.structs.replace(encoder.config, drop_path=0.0)
        self.mask_value = nn.Parameter(torch.zeros(_L))
        dims = [config.embed_dim << stage for stage in range(4)]
        self.embed = nn.ModuleList(nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, decoder_embed_dim)) for dim in dims)
        self.blocks = nn.ModuleList(
            NatLayer(decoder_embed_dim, 4, config, config.dilations[0] if block % 2 else 1, 0.0, encoder.backend)
            for block in range(decoder_depth)
        )
        self.norm = nn.LayerNorm(decoder_embed_dim)
        self.predict = nn.Linear(decoder_embed_dim, 2 * _STRIDE * _L)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss for ``windows`` ``(B, 12, T)`` in mV under a newly drawn mask; with ``beats``, of whole beats."""
        x = prepare(batch["windows"], self.encoder.config.scaling)
        there = x[:, _L : 2 * _L] > 0
        mask = draw_mask(x.shape[0], x.shape[2] // TOKEN, self.mask_ratio, x.device, batch.get("beats"))
        shape, raw = self.reconstruct(x, mask)
        return masked_loss(x[:, :_L], there, mask, shape, raw)

    def reconstruct(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalised and raw predictions, both ``(B, L, T)``, for prepared windows ``(B, 25, T)``.

        Parameters
        ----------
        mask
            ``(B, L, P)``, 0 = keep, 1 = masked.
        """
        hidden = mask.repeat_interleave(TOKEN, dim=2).bool()
        leads = torch.where(hidden & (x[:, _L : 2 * _L] > 0), self.mask_value[:, None], x[:, :_L])
        outputs = self.encoder.encode(torch.cat([leads, x[:, _L:]], dim=1))
        tokens = torch.zeros((), device=x.device)
        for stage, output in enumerate(outputs):
            tokens = tokens + self.embed[stage](output).repeat_interleave(1 << stage, dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        predicted = self.predict(self.norm(tokens)).view(x.shape[0], -1, 2, _L, _STRIDE)
        shape, raw = predicted.permute(2, 0, 3, 1, 4).flatten(3)
        return shape, raw


def draw_mask(
    batch: int, blocks: int, mask_ratio: float, device: torch.device | None = None, beats: Tensor | None = None
) -> Tensor:
    """Return a mask ``(B, L, P)``, 0 = keep, 1 = masked: one draw for the limb leads together, one for every chest lead.

    In every window and draw the same number of blocks is masked, ``round(mask_ratio * P)``.

    Parameters
    ----------
    beats
        ``(B, N)`` R peaks in samples, NaN behind the last: blocks are then masked beat by beat, the last beat of a draw in part.
        A block is of the beat that is nearest; farther than 1 s from all it stands alone.
    """
    noise = torch.rand(batch, 1 + _L - _LIMB, blocks, device=device)
    if beats is not None and beats.shape[1]:
        middle = (torch.arange(blocks, device=device) + 0.5) * TOKEN
        distance, nearest = (middle[:, None] - beats[:, None]).abs().nan_to_num(nan=torch.inf).min(dim=2)
        shared = torch.rand(batch, noise.shape[1], beats.shape[1], device=device)
        own = shared.gather(2, nearest[:, None].expand_as(noise))
        noise = torch.where((distance <= _FAR)[:, None], own, noise)
    masked = (noise.argsort(dim=2, stable=True).argsort(dim=2) < round(mask_ratio * blocks)).float()
    return torch.cat([masked[:, :1].expand(-1, _LIMB, -1), masked[:, 1:]], dim=1)


def masked_loss(leads: Tensor, there: Tensor, mask: Tensor, shape: Tensor, raw: Tensor) -> dict[str, Tensor]:
    """Return mean squared errors over masked samples that exist: "shape" (blocks normalised as in MAE), "raw", and their sum.

    Parameters
    ----------
    leads, there, shape, raw
        ``(B, L, T)``: scaled leads, whether a sample exists, the two predictions.
    mask
        ``(B, L, P)``.
    """
    blocks, exists, shape, raw = (x.view(len(leads), _L, -1, TOKEN) for x in (leads, there, shape, raw))
    return reconstruction_loss(blocks, exists, mask.bool(), shape, raw)


def reconstruction_loss(pieces: Tensor, exists: Tensor, masked: Tensor, shape: Tensor, raw: Tensor) -> dict[str, Tensor]:
    """Return the losses of :func:`masked_loss` for pieces of any length: their shape first, their level as a small term.

    Without normalisation the highest QRS would be most of the loss; without the raw term a reconstruction would say nothing about
    voltage.

    Parameters
    ----------
    pieces, exists, shape, raw
        ``(..., T)``: scaled signal, whether a sample exists, the two predictions.
    masked
        ``(...)``, True = masked: what the loss is taken over.
    """
    level, spread = level_and_spread(pieces, exists)
    weight = exists * masked[..., None]
    total = weight.sum().clamp(min=1)
    shape_error = (F.mse_loss(shape.float(), (pieces - level) / spread, reduction="none") * weight).sum() / total
    raw_error = (F.mse_loss(raw.float(), pieces, reduction="none") * weight).sum() / total
    return {"loss": shape_error + _RAW * raw_error, "shape": shape_error, "raw": raw_error}


def level_and_spread(pieces: Tensor, exists: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of every piece, ``(..., 1)``, over its samples that exist.

    The variance has a floor of 0.1 of the scale, squared: a flat piece must not become noise of unit variance.
    """
    count = exists.sum(dim=-1, keepdim=True).clamp(min=1)
    level = (pieces * exists).sum(dim=-1, keepdim=True) / count
    variance = ((pieces - level).square() * exists).sum(dim=-1, keepdim=True) / count
    return level, (variance + 0.01).sqrt()
