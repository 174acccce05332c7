"""Windows cut into heartbeats: what BEAT-Net and CLEAR-HUG read, and the way back to the dense heads.

In: windows ``(B, 12, T)`` at 100 Hz in mV and their R peaks. Out: :class:`BeatTokens`, one token of 96 samples per beat with R at
sample 48 (arXiv 2512.24002), with pad mask and without a limit on their number. Where no beat is (a pause, asystole, ventricular
fibrillation, nothing connected) tiles of at most 0.96 s take the place of beats and say so. What lies further than 0.48 s from
every R peak is read from ``gap_s`` on, and shorter stretches are not read at all.

Shapes: B batch, N token, T time (100 Hz), K R peak, G stretch between R peaks, M tile, P rhythm token of 0.32 s, C class.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ecgnat_stream.model.heads import BEAT_TOKEN
from ecgnat_stream.model.preprocess import TOKEN, window_scale
from ecgnat_stream.signal import LEADS, MODEL_FS

__all__ = [
    "LONGEST_RR_S",
    "R_AT",
    "TOKEN_SAMPLES",
    "TOKEN_SECONDS",
    "BeatTokens",
    "beat_logits",
    "beat_tokens",
    "check_beats",
    "cut_waves",
    "to_grid",
    "token_bounds",
]

TOKEN_SAMPLES = 96
"""Samples of a token, 0.96 s."""

R_AT = 48
"""Sample of the R peak in its token."""

TOKEN_SECONDS = TOKEN_SAMPLES / MODEL_FS
"""The same in s."""

LONGEST_RR_S = 3.0
"""Longer intervals count as this long."""

_LIMIT = 20.0  # in scaled units, as in preprocess.prepare
_LIMIT_MV = 1000.0  # no electrode gives more; keeps the scale of absurd input finite
_FLOOR_MV = 0.01
_SILENT = 30  # samples without any lead between two beats: the interval may hold a beat that nobody saw
_SURE = 6.0  # logit: the peaks are given, not estimated
_EDGE = 0.02  # places 0 and 1 have no finite logit


class BeatTokens(NamedTuple):
    """The beats of a batch of windows.

    Parameters
    ----------
    waves
        ``(B, N, 12, 96)`` leads divided by the window's amplitude, R at sample 48; 0 where not valid.
    valid
        ``(B, N, 12, 96)`` which samples are signal: there, within the window, and within the token's bounds.
    lead
        ``(B, N, 12)`` whether at least half of the samples that a beat could have in a lead are there.
    amplitude
        ``(B, N, 12)`` log of peak-to-peak in mV, at least 0.01 mV, 0 where absent: the voltage that scaling takes away.
    beat
        ``(B, N)`` a heartbeat or a tile; False for padding. At least one token per row.
    at
        ``(B, N)`` R peak (middle of a tile) in s from the start of the window, 0 for padding.
    rr
        ``(B, N, 4)`` RR before and after in s, at most 3, 0 if unknown; RR before to the row's mean RR, 1 if unknown; 1 if RR
        before is known, else 0. Unknown for tiles, and where no lead has signal for 0.3 s or more between the two beats.
    bounds
        ``(B, N, 2)`` samples ``[begin, end)`` that a token speaks for, which tile the window; ``(T, T)`` for padding. Two beats,
        and two tiles, meet half-way; a beat and a tile 0.48 s from the R peak, so that a tile takes nothing from a beat.
    fixed
        ``(B, N)`` there was no beat: the token is a tile.
    length
        T.
    """

    waves: Tensor
    valid: Tensor
    lead: Tensor
    amplitude: Tensor
    beat: Tensor
    at: Tensor
    rr: Tensor
    bounds: Tensor
    fixed: Tensor
    length: int


def beat_tokens(windows: Tensor, beats: Tensor, gap_s: float = TOKEN_SECONDS) -> BeatTokens:
    """Cut windows into their beats.

    A stretch of ``gap_s`` or more that no beat's token reaches is cut into equal tiles: between two beats, before the first one,
    behind the last one. With 0.96 s that is within RR intervals from 1.92 s on, with 0.32 s from 1.28 s on.

    Parameters
    ----------
    windows
        ``(B, 12, T)`` float, mV at 100 Hz, NaN or infinite = missing.
    beats
        ``(B, N)`` R peaks in samples from the start of the window, ascending, NaN behind the last. Those outside the window are
        left out.
    gap_s
        Shortest stretch that is tiled, above 0.

    Raises
    ------
    ValueError
        For other shapes, an empty batch, or beats that are not strictly ascending.
    """
    if windows.ndim != 3 or windows.shape[1] != len(LEADS) or 0 in windows.shape:
        raise ValueError(f"want windows (B, {len(LEADS)}, T), got {tuple(windows.shape)}")
    if beats.ndim != 2 or beats.shape[0] != windows.shape[0]:
        raise ValueError(f"want beats ({windows.shape[0]}, N), one row per window, got {tuple(beats.shape)}")
    length = windows.shape[2]
    check_beats(beats)
    there = torch.isfinite(windows)
    peaks = _peaks(beats.to(windows.device, torch.float32), length)
    tiles = _tiles(peaks, length, gap_s * MODEL_FS)
    intervals = pad(_intervals(peaks, there.any(dim=1)), (0, 0, 0, tiles.shape[1]))
    intervals[:, peaks.shape[1] :, 2] = 1.0
    at, order = torch.cat([peaks, tiles], dim=1).sort(dim=1)
    beat = torch.isfinite(at)
    kept = max(int(beat.sum(dim=1).max()), 1)
    at, order, beat = at[:, :kept], order[:, :kept], beat[:, :kept]
    rr = intervals.gather(1, order[..., None].expand(-1, -1, intervals.shape[2]))
    fixed = beat & (order >= peaks.shape[1])
    bounds = token_bounds(at, beat, fixed, length)
    at = torch.where(beat, at, 0.0)

    windows = windows.float()
    scale = window_scale(torch.where(there, windows, 0.0).clamp(-_LIMIT_MV, _LIMIT_MV), there)
    start = at.round().long()
    padded = pad(windows, (R_AT, TOKEN_SAMPLES), value=torch.nan)
    row = torch.arange(len(windows), device=windows.device)[:, None]
    cut = padded.unfold(2, TOKEN_SAMPLES, 1).transpose(1, 2)[row, start]
    sample = start[..., None] - R_AT + torch.arange(TOKEN_SAMPLES, device=windows.device)
    inside = (sample >= bounds[..., :1]) & (sample < bounds[..., 1:])
    return BeatTokens(*cut_waves(cut, inside, scale[..., None]), beat, at / MODEL_FS, rr, bounds, fixed, length)


def cut_waves(cut: Tensor, inside: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what a token tells of its own samples: ``waves``, ``valid``, ``lead`` and ``amplitude`` of :class:`BeatTokens`.

    Parameters
    ----------
    cut
        ``(..., 12, 96)`` mV around the R peak, NaN or infinite = missing.
    inside
        ``(..., 96)`` samples that the token speaks for.
    scale
        ``(..., 1, 1)`` mV, see :func:`~ecgnat_stream.model.preprocess.window_scale`.
    """
    valid = torch.isfinite(cut) & inside[..., None, :]
    waves = (torch.where(valid, cut, 0.0).clamp(-_LIMIT_MV, _LIMIT_MV) / scale).clamp(-_LIMIT, _LIMIT)
    count = valid.sum(dim=-1)
    lead = (count > 0) & (2 * count >= inside.sum(dim=-1)[..., None])
    highest = torch.where(valid, waves, -torch.inf).amax(dim=-1)
    lowest = torch.where(valid, waves, torch.inf).amin(dim=-1)
    amplitude = torch.where(lead, ((highest - lowest) * scale[..., 0]).clamp(min=_FLOOR_MV), 1.0).log()
    return waves, valid, lead, amplitude


def check_beats(beats: Tensor) -> None:
    """Raise ``ValueError`` unless every row of ``(B, N)`` is strictly ascending, with NaN behind the last."""
    ascending = (beats[:, 1:] > beats[:, :-1]) | torch.isnan(beats[:, 1:])
    if not ascending.all():
        bad = int(torch.nonzero(~ascending)[0, 0])
        raise ValueError(
            f"beats of window {bad} are not strictly ascending with NaN behind the last: {beats[bad].tolist()}; "
            "sort them and drop doubles"
        )


def _peaks(beats: Tensor, length: int) -> Tensor:
    """Return the R peaks within the window, ``(B, K)`` in samples, infinite behind the last."""
    return torch.where((beats >= 0) & (beats < length), beats, torch.inf).sort(dim=1).values


def _reach(peaks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first sample of the tokens of peaks, and the one behind their last."""
    begin = peaks.round() - R_AT
    return begin, begin + TOKEN_SAMPLES


def _tiles(peaks: Tensor, length: int, least: float) -> Tensor:
    """Return the middles of tiles, ``(B, G M)`` in samples: at least one in a row without peaks; infinite where there is none."""
    first, behind = _reach(peaks)
    begin, end = pad(behind, (1, 0)), pad(first, (0, 1), value=length).clamp(max=length)
    gap = end - begin  # -inf behind the last peak
    count = torch.where(gap >= least, (gap / TOKEN_SAMPLES).ceil(), 0.0)
    count[:, 0] = torch.where(torch.isinf(peaks).all(dim=1), max(-(-length // TOKEN_SAMPLES), 1), count[:, 0])
    tile = torch.arange(int(count.max()), device=peaks.device)
    middle = begin[..., None] + (tile + 0.5) * (gap / count.clamp(min=1))[..., None]
    return torch.where(tile < count[..., None], middle, torch.inf).flatten(1)


def token_bounds(at: Tensor, beat: Tensor, fixed: Tensor, length: int) -> Tensor:
    """Return ``(B, N, 2)`` as ``BeatTokens.bounds``, the first from 0, the last to the window's end."""
    first, behind = _reach(at)
    between = (at[:, 1:] + at[:, :-1]) / 2
    between = torch.where(fixed[:, 1:] & ~fixed[:, :-1], behind[:, :-1], between)
    between = torch.where(~fixed[:, 1:] & fixed[:, :-1] & beat[:, 1:], first[:, 1:], between)
    begin = pad(between.ceil().clamp(max=length), (1, 0))  # a token and padding: infinite, so the end of the window
    begin = torch.where(beat, begin, length)
    end = pad(begin[:, 1:], (0, 1), value=float(length))
    return torch.stack([begin, end], dim=-1).long()


def _intervals(peaks: Tensor, signal: Tensor) -> Tensor:
    """Return ``(B, K, 4)`` as ``BeatTokens.rr``; ``signal`` ``(B, T)``: whether any lead is there."""
    silent = pad((~signal).cumsum(dim=1), (1, 0))
    silent = silent.gather(1, peaks.clamp(max=signal.shape[1]).long())
    known = torch.isfinite(peaks[:, 1:]) & (silent[:, 1:] - silent[:, :-1] < _SILENT)
    rr = torch.where(known, ((peaks[:, 1:] - peaks[:, :-1]) / MODEL_FS).clamp(max=LONGEST_RR_S), 0.0)
    mean = rr.sum(dim=1, keepdim=True) / known.sum(dim=1, keepdim=True).clamp(min=1)
    ratio = torch.where(known, rr / mean.clamp(min=1e-6), 1.0)
    return torch.stack([pad(rr, (1, 0)), pad(rr, (0, 1)), pad(ratio, (1, 0), value=1.0), pad(known.float(), (1, 0))], dim=-1)


def to_grid(values: Tensor, tokens: BeatTokens, step: int) -> Tensor:
    """Spread values of tokens over time: each cell takes those of the token whose bounds hold the cell's middle.

    Parameters
    ----------
    values
        ``(B, N, C)``.
    step
        Samples per cell, a divisor of 32.

    Returns
    -------
    Tensor
        ``(B, 32 P / step, C)``, P the rhythm tokens of the window; cells behind its end take the last token.

    Raises
    ------
    ValueError
        For values of other tokens, or a step that does not divide 32.
    """
    if values.ndim != 3 or values.shape[:2] != tokens.beat.shape:
        raise ValueError(f"want values {(*tokens.beat.shape, 'C')}, got {tuple(values.shape)}")
    if step < 1 or TOKEN % step:
        raise ValueError(f"{step=}: must divide the {TOKEN} samples of a rhythm token")
    cells = -(-tokens.length // TOKEN) * (TOKEN // step)
    middle = (torch.arange(cells, device=values.device) + 0.5) * step
    end = tokens.bounds[..., 1].float().contiguous()
    index = torch.searchsorted(end, middle.expand(len(end), -1).contiguous(), right=True)
    index = torch.minimum(index, tokens.beat.sum(dim=1, keepdim=True) - 1)
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))


def beat_logits(classes: Tensor, tokens: BeatTokens) -> Tensor:
    """Bring the classes of beats into the form of :class:`~ecgnat_stream.model.heads.BeatHead`.

    Parameters
    ----------
    classes
        ``(B, N, C)`` class logits.

    Returns
    -------
    Tensor
        ``(B, 4 P, 2 + C)``: 6 in the cell of an R peak and -6 elsewhere, so in all cells of tiles; the peak's place
        in the cell as a logit; class logits.
    """
    grid = to_grid(classes, tokens, BEAT_TOKEN)
    cells = grid.shape[1]
    place = tokens.at * (MODEL_FS / BEAT_TOKEN) + 1e-3  # s are rounded: a peak on the first sample of a cell must stay in it
    cell = place.floor()
    peak = tokens.beat & ~tokens.fixed
    index = torch.where(peak, cell.long(), cells)
    presence = grid.new_full((len(grid), cells + 1), -_SURE).scatter(1, index, _SURE)
    offset = (place - cell).clamp(_EDGE, 1 - _EDGE).logit().to(grid.dtype)
    where = grid.new_zeros(len(grid), cells + 1).scatter(1, index, offset)
    presence[:, cells:] = -_SURE
    return torch.cat([torch.stack([presence, where], dim=-1)[:, :cells], grid], dim=-1)
