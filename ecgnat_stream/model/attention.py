"""1-D neighborhood attention behind one function: plain reference, banded CPU path, natten on CUDA.

Windows as in NATTEN (arXiv 2204.07143, 2209.15001): dilation ``d`` splits the tokens into ``d`` residue classes; inside its
class every query sees the ``kernel_size`` nearest tokens, shifted inwards at the ends so that it always has exactly that many.
In the causal form it sees itself and the ``kernel_size - 1`` tokens before it, clipped at the beginning.

Shapes: B batch, L tokens, H heads, K head dim, N neighbours. Queries, keys and values are ``(B, L, H, K)``, as in natten.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Backend", "choose_backend", "fit_kernel", "neighborhood_attention", "neighbours"]

Backend = Literal["reference", "masked", "banded", "blocks", "flex", "natten"]

_BLOCK = 16
"""Queries per block of the banded form: 16 see 28 keys of which 13 are theirs. 8 and 32 take 1.1 to 1.4 times as long."""

_DENSE_TOKENS, _DENSE_BATCH_TOKENS = 64, 512
"""Up to so many tokens of a residue class, or of a batch, one product of all with all is faster than blocks (measured for batches
of 1 to 64 windows of 10 s: docs/measured/networks.md)."""


def neighborhood_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int,
    dilation: int = 1,
    is_causal: bool = False,
    backend: Backend | None = None,
) -> Tensor:
    """Let every token attend to its neighbourhood.

    A bidirectional neighbourhood that does not fit into the sequence is shrunk by :func:`fit_kernel`; a causal one is only
    clipped.

    Parameters
    ----------
    query, key, value
        ``(B, L, H, K)``.
    backend
        "reference" gathers neighbours by the definition, "masked" is scaled dot product attention of all tokens under a cached
        mask, "banded" multiplies blocks of queries with the keys near them where that is faster, "blocks" does so whatever the
        batch, "flex" is PyTorch's flex attention, which skips blocks that no window reaches (compiled on CUDA, slow elsewhere),
        "natten" calls its fused kernels. None takes :func:`choose_backend`.

    Raises
    ------
    ValueError
        For shapes that differ, an empty sequence, a ``kernel_size`` below 2, a ``dilation`` below 1, or an unknown back end.
    """
    if query.ndim != 4 or query.shape != key.shape or query.shape != value.shape:
        raise ValueError(f"want three equal (B, L, H, K), got {tuple(query.shape)}, {tuple(key.shape)}, {tuple(value.shape)}")
    length = query.shape[1]
    if length < 1 or kernel_size < 2 or dilation < 1:
        raise ValueError(f"want tokens >= 1, kernel_size >= 2, dilation >= 1, got {length} tokens, {kernel_size=}, {dilation=}")
    backend = backend or choose_backend(query.device)
    if not is_causal:
        kernel_size, dilation = fit_kernel(length, kernel_size, dilation)
    if backend == "reference":
        return _gathered(query, key, value, kernel_size, dilation, is_causal)
    if backend == "natten" and kernel_size >= 2 and kernel_size * dilation <= length:
        return _natten(query, key, value, kernel_size, dilation, is_causal)
    if backend in ("banded", "blocks"):
        return _banded(query, key, value, kernel_size, dilation, is_causal, any_batch=backend == "blocks")
    if backend == "flex":
        return _flex(query, key, value, kernel_size, dilation, is_causal)
    if backend in ("masked", "natten"):  # natten refuses a window longer than the sequence
        return _masked(query, key, value, kernel_size, dilation, is_causal)
    raise ValueError(f"unknown attention back end {backend!r}: one of reference, masked, banded, blocks, flex, natten")


def choose_backend(device: torch.device) -> Backend:
    """Name the fastest back end for a device: natten on CUDA if installed, else masked; banded on a CPU."""
    if device.type == "cpu":
        return "banded"
    return "natten" if device.type == "cuda" and find_spec("natten") is not None else "masked"


def fit_kernel(length: int, kernel_size: int, dilation: int) -> tuple[int, int]:
    """Return the largest ``(kernel_size, dilation)`` that fits into ``length`` tokens: first less dilation, then fewer keys."""
    if kernel_size > length:
        return length, 1
    return kernel_size, min(dilation, length // kernel_size)


def neighbours(length: int, kernel_size: int, dilation: int, is_causal: bool) -> tuple[Tensor, Tensor]:
    """List the neighbours of every token.

    Returns
    -------
    tuple
        Token indices ``(L, N)``, N = kernel_size, and which of them exist ``(L, N)``: all in the bidirectional form.
    """
    tokens = torch.arange(length)
    rank, residue = tokens // dilation, tokens % dilation
    if is_causal:
        ranks = rank[:, None] - torch.arange(kernel_size - 1, -1, -1)
        exists = ranks >= 0
    else:
        last = (length - 1 - residue) // dilation  # rank of the last token of the class
        start = torch.minimum((rank - kernel_size // 2).clamp(min=0), last + 1 - kernel_size)
        ranks = start[:, None] + torch.arange(kernel_size)
        exists = torch.ones_like(ranks, dtype=torch.bool)
    return ranks.clamp(min=0) * dilation + residue[:, None], exists


def _gathered(query: Tensor, key: Tensor, value: Tensor, kernel_size: int, dilation: int, is_causal: bool) -> Tensor:
    index, exists = neighbours(query.shape[1], kernel_size, dilation, is_causal)
    index, exists = index.to(query.device), exists.to(query.device)
    logits = torch.einsum("blhk,blnhk->blhn", query, key[:, index]) * query.shape[-1] ** -0.5
    logits = logits.masked_fill(~exists[:, None, :], float("-inf"))
    return torch.einsum("blhn,blnhk->blhk", logits.softmax(dim=-1), value[:, index])


def _masked(query: Tensor, key: Tensor, value: Tensor, kernel_size: int, dilation: int, is_causal: bool) -> Tensor:
    mask = _mask(query.shape[1], kernel_size, dilation, is_causal, query.device, query.dtype)
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)


@lru_cache(maxsize=128)
def _mask(length: int, kernel_size: int, dilation: int, is_causal: bool, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Additive ``(L, L)`` mask: 0 for a neighbour, -inf else. A boolean one would be converted at every call."""
    index, exists = neighbours(length, kernel_size, dilation, is_causal)
    with torch.inference_mode(False):  # a mask first built while predicting must still serve training
        seen = torch.zeros(length, length + 1, dtype=torch.bool)
        seen.scatter_(1, torch.where(exists, index, length), True)
        return torch.zeros(length, length, dtype=dtype).masked_fill_(~seen[:, :length], float("-inf")).to(device)


def _banded(
    query: Tensor, key: Tensor, value: Tensor, kernel_size: int, dilation: int, is_causal: bool, any_batch: bool
) -> Tensor:
    """Attend in blocks of queries, each over the band of keys that its windows cover; residue classes lie side by side."""
    batch, length, heads, head_dim = query.shape
    ranks = -(-length // dilation)
    in_blocks = ranks > _DENSE_TOKENS and (any_batch or batch * ranks > _DENSE_BATCH_TOKENS)
    if not in_blocks and dilation == 1:
        return _masked(query, key, value, kernel_size, dilation, is_causal)
    band = _band(length, kernel_size, dilation, is_causal, _BLOCK if in_blocks else ranks)
    missing = band.ranks * dilation - length

    def by_class(x: Tensor) -> Tensor:  # (B, L, H, K) -> (B, H, residue, rank, K)
        x = F.pad(x, (0, 0, 0, 0, 0, missing)) if missing else x
        return x.view(batch, band.ranks, dilation, heads, head_dim).permute(0, 3, 2, 1, 4)

    query, key, value = by_class(query), by_class(key), by_class(value)
    mask = band.mask.to(query.device, query.dtype)
    if in_blocks:
        query = (query * head_dim**-0.5).reshape(batch, heads, dilation, len(band.starts), _BLOCK, head_dim)
        key, value = (torch.stack([x[:, :, :, start : start + band.width] for start in band.starts], dim=3) for x in (key, value))
        out = ((query @ key.transpose(-1, -2)) + mask).softmax(dim=-1) @ value
    else:
        query, key, value = (x.reshape(batch * heads, dilation, band.ranks, head_dim) for x in (query, key, value))
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask.transpose(0, 1))
    out = out.view(batch, heads, dilation, band.ranks, head_dim).permute(0, 3, 2, 1, 4)
    return out.reshape(batch, band.ranks * dilation, heads, head_dim)[:, :length]


class _Band(NamedTuple):
    """Blocks of queries of a residue class, and the keys that each block needs.

    Parameters
    ----------
    ranks
        Tokens of the longest class, rounded up to whole blocks.
    starts, width
        First key of every block, and how many there are.
    mask
        Additive, ``(residue, block, query, key)``: 0 for a neighbour, -inf else; 0 throughout for queries that do not exist. One
        for all residues where they have equally many tokens.
    """

    ranks: int
    starts: tuple[int, ...]
    width: int
    mask: Tensor


@lru_cache(maxsize=128)
def _band(length: int, kernel_size: int, dilation: int, is_causal: bool, block: int) -> _Band:
    longest = -(-length // dilation)
    ranks = -(-longest // block) * block
    index, exists = neighbours(length, kernel_size, dilation, is_causal)
    with torch.inference_mode(False):  # a band first built while predicting must still serve training
        seen = torch.zeros(dilation, ranks, ranks + 1, dtype=torch.bool)
        tokens = torch.arange(length)
        columns = torch.where(exists, index // dilation, ranks)
        seen[(tokens % dilation)[:, None], (tokens // dilation)[:, None], columns] = True
        seen = seen[..., :ranks].view(dilation, ranks // block, block, ranks)
        needed = seen.any(dim=2).any(dim=0)  # (block, key)
        first = needed.int().argmax(dim=1)
        width = int((ranks - needed.flip(1).int().argmax(dim=1) - first).max())
        starts = first.clamp(max=ranks - width)
        columns = (starts[:, None] + torch.arange(width))[None, :, None].expand(dilation, -1, block, -1)
        seen = seen.gather(3, columns)
        seen |= ~seen.any(dim=3, keepdim=True)
        mask = torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))
        mask = mask[:1].clone() if length % dilation == 0 else mask
    return _Band(ranks, tuple(starts.tolist()), width, mask)


def _flex(query: Tensor, key: Tensor, value: Tensor, kernel_size: int, dilation: int, is_causal: bool) -> Tensor:
    """Call flex attention, whose kernels want a head dim that is a power of two from 16 on: zeros change no logit."""
    from torch.nn.attention.flex_attention import flex_attention

    head_dim = query.shape[-1]
    missing = max(16, 1 << (head_dim - 1).bit_length()) - head_dim
    query, key, value = (F.pad(x, (0, missing)).transpose(1, 2) for x in (query, key, value))
    blocks = _flex_blocks(query.shape[2], kernel_size, dilation, is_causal, query.device)
    attend = _compiled_flex() if query.is_cuda else flex_attention
    out: Tensor = attend(query, key, value, block_mask=blocks, scale=head_dim**-0.5)
    return out[..., :head_dim].transpose(1, 2)


@lru_cache(maxsize=1)
def _compiled_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


@lru_cache(maxsize=128)
def _flex_blocks(length: int, kernel_size: int, dilation: int, is_causal: bool, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    with torch.inference_mode(False):
        seen = _mask(length, kernel_size, dilation, is_causal, device, torch.float32) == 0
        return create_block_mask(lambda batch, head, q, k: seen[q, k], None, None, length, length, device=device)


def _natten(query: Tensor, key: Tensor, value: Tensor, kernel_size: int, dilation: int, is_causal: bool) -> Tensor:
    """Call natten; its kernels want a head dim that is a power of two, which nano's 12 is not: zeros change no logit."""
    from natten import na1d

    head_dim = query.shape[-1]
    missing = max(8, 1 << (head_dim - 1).bit_length()) - head_dim
    query, key, value = (F.pad(x, (0, missing)) if missing else x for x in (query, key, value))
    out: Tensor = na1d(query, key, value, kernel_size=kernel_size, dilation=dilation, is_causal=is_causal, scale=head_dim**-0.5)
    return out[..., :head_dim]
