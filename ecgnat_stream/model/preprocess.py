"""Windows in mV to the network's input tensor: the one function for the monitor and for training.

In: ``(B, 12, T)`` at 100 Hz, mV, NaN where a lead or a sample is missing. Out: ``(B, 25, T')``: twelve scaled leads with 0 for
what is missing, twelve validity masks, and the scale as side information; T' is T rounded up to whole rhythm tokens, the rest
marked as missing.

"window" scaling divides all leads of a window by one robust amplitude, so that their relative voltages stay; it looks at the
whole window. "fixed" scaling divides by a constant: the causal form needs it, because a future sample must not change a past
output.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ecgnat_stream.signal import LEADS, MODEL_FS, TOKEN_S

__all__ = ["IN_CHANNELS", "SCALE_BLOCK", "TOKEN", "Scaling", "block_deviations", "prepare", "scale_of", "window_scale"]

Scaling = Literal["window", "fixed"]

IN_CHANNELS = 2 * len(LEADS) + 1
"""Twelve leads, twelve masks, one log scale."""

TOKEN = round(TOKEN_S * MODEL_FS)
"""Samples per rhythm token: the stride of the last stage (MODELS: 4 in the stem, three downsamplers)."""

SCALE_BLOCK = MODEL_FS
"""Samples of a block whose standard deviation counts for the amplitude, 1 s: one or more beats."""

_FIXED_MV = 0.25
_FLOOR_MV = 0.1  # a flat line must stay flat: standard deviations of living ECG on test strips lie between 0.1 and 0.5 mV
_LIMIT = 20.0  # in scaled units; keeps a defibrillation spike from saturating the network
_QUANTILE = 0.75  # of the blocks: neither two noisy seconds in ten nor a pause set the scale


def prepare(windows: Tensor, scaling: Scaling = "window") -> Tensor:
    """Scale windows, mark what is missing and pad to whole tokens.

    Parameters
    ----------
    windows
        ``(B, 12, T)`` float, mV, NaN or infinite = missing.

    Returns
    -------
    Tensor
        ``(B, 25, T')`` float32, T' the next multiple of :data:`TOKEN`.

    Raises
    ------
    ValueError
        For any other shape.
    """
    if windows.ndim != 3 or windows.shape[1] != len(LEADS) or 0 in windows.shape:
        raise ValueError(f"want windows (B, {len(LEADS)}, T), got {tuple(windows.shape)}")
    windows = windows.float()
    valid = torch.isfinite(windows)
    values = torch.where(valid, windows, 0.0)
    scale = window_scale(values, valid) if scaling == "window" else torch.full_like(values[:, :1, :1], _FIXED_MV)
    leads = (values / scale).clamp(-_LIMIT, _LIMIT)
    side = torch.log(scale / _FIXED_MV).expand(-1, -1, windows.shape[2])
    channels = torch.cat([leads, valid.float(), side], dim=1)
    missing = -windows.shape[2] % TOKEN
    return torch.nn.functional.pad(channels, (0, missing)) if missing else channels


def window_scale(values: Tensor, valid: Tensor) -> Tensor:
    """Return one amplitude per window in mV.

    Per lead the upper quartile of the standard deviations of its 1 s blocks, then the median over the leads that are there, at
    least 0.1 mV.

    Parameters
    ----------
    values, valid
        ``(B, 12, T)``, 0 where not valid.

    Returns
    -------
    Tensor
        ``(B, 1, 1)``.
    """
    length = values.shape[2]
    blocks = max(length // SCALE_BLOCK, 1)
    span = min(length, blocks * SCALE_BLOCK)
    return scale_of(block_deviations(values[..., length - span :], valid[..., length - span :], blocks))


def block_deviations(values: Tensor, valid: Tensor, blocks: int) -> Tensor:
    """Return the standard deviation of every block, ``(B, 12, blocks)``; NaN where less than half of it is there.

    Parameters
    ----------
    values, valid
        ``(B, 12, T)``, 0 where not valid; T a multiple of ``blocks``.
    """
    shape = (*values.shape[:2], blocks, values.shape[2] // blocks)
    x, there = values.reshape(shape), valid.reshape(shape)
    count = there.sum(dim=-1)
    mean = x.sum(dim=-1) / count.clamp(min=1)
    variance = (x.square().sum(dim=-1) / count.clamp(min=1) - mean.square()).clamp(min=0)
    return torch.where(count >= x.shape[-1] // 2, variance.sqrt(), torch.nan)


def scale_of(deviations: Tensor) -> Tensor:
    """Return one amplitude in mV for the deviations of blocks ``(B, 12, blocks)``, ``(B, 1, 1)``; see :func:`window_scale`."""
    per_window = _quantile(_quantile(deviations, _QUANTILE), 0.5).nan_to_num(_FLOOR_MV)
    return per_window.clamp(min=_FLOOR_MV)[:, None, None]


def _quantile(x: Tensor, fraction: float) -> Tensor:
    """Nearest-rank quantile over the last axis, NaN left out; NaN where nothing is left. NaN sorts last."""
    count = torch.isfinite(x).sum(dim=-1)
    rank = (count.sub(1).clamp(min=0) * fraction).round().long()
    return x.sort(dim=-1).values.gather(-1, rank.unsqueeze(-1)).squeeze(-1)
