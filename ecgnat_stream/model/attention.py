"""1-D neighborhood attention behind one function: plain reference, CPU fast path, natten on CUDA.

Windows as in NATTEN (arXiv 2204.07143, 2209.15001): dilation ``d`` splits the tokens into ``d`` residue classes; inside its
class every query sees the ``kernel_size`` nearest tokens, shifted inwards at the ends so that it always has exactly that many.
In the causal form it sees itself and the ``kernel_size - 1`` tokens before it, clipped at the beginning.

Shapes: B batch, L tokens, H heads, K head dim, N neighbours. Queries, keys and values are ``(B, L, H, K)``, as in natten.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Backend", "choose_backend", "fit_kernel", "neighborhood_attention", "neighbours"]

Backend = Literal["reference", "masked", "natten"]


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
        "reference" gathers neighbours by the definition, "masked" is scaled dot product attention under a cached mask,
        "natten" its fused kernels. None takes :func:`choose_backend`.

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
    if backend in ("masked", "natten"):  # natten refuses a window longer than the sequence
        return _masked(query, key, value, kernel_size, dilation, is_causal)
    raise ValueError(f"unknown attention back end {backend!r}: one of reference, masked, natten")


def choose_backend(device: torch.device) -> Backend:
    """Name the fastest back end for a device: natten on CUDA where it is installed, else masked."""
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


def _natten(query: Tensor, key: Tensor, value: Tensor, kernel_size: int, dilation: int, is_causal: bool) -> Tensor:
    """Call natten; its kernels want a head dim that is a power of two, which nano's 12 is not: zeros change no logit."""
    from natten import na1d

    head_dim = query.shape[-1]
    missing = max(8, 1 << (head_dim - 1).bit_length()) - head_dim
    query, key, value = (F.pad(x, (0, missing)) if missing else x for x in (query, key, value))
    out: Tensor = na1d(query, key, value, kernel_size=kernel_size, dilation=dilation, is_causal=is_causal, scale=head_dim**-0.5)
    return out[..., :head_dim]
