"""Heartbeats cut out of streams, each once: :mod:`ecgnat_stream.model.tokens` for beds whose samples come bit by bit.

In: the next samples of some beds, and the R peaks that became known. Out: the tokens that became complete. A beat is complete
when the next one is known, or when none can come that near. What comes out does not depend on how the samples were cut into
steps.

Three things differ from a window's tokens. The amplitude is that of the ten seconds before the token's end, not that of a window
which goes on behind it. A beat keeps the samples that it had when it was cut: no window's edge takes any. A stretch without beats
is tiled from its beginning, 0.96 s at a time, since nobody knows how long it will be.

Shapes: B bed of a step, K peak, T time (100 Hz), M new token, S slot of a ring.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ecgnat_stream.model.preprocess import SCALE_BLOCK, block_deviations, scale_of
from ecgnat_stream.model.tokens import R_AT, TOKEN_SAMPLES, cut_waves
from ecgnat_stream.signal import LEADS, MODEL_FS

__all__ = ["CutTokens", "TokenStream"]

_KEPT = 6 * MODEL_FS
"""Samples kept: a token, a search for missed beats of up to 3 s, and a step."""

_STEP = MODEL_FS
"""Most samples taken at a time; longer steps are taken in several."""

_FIRST = 3 * SCALE_BLOCK
"""Samples before the first token is cut: an amplitude of less is none."""

_PENDING = 16
"""Peaks of a bed that may wait: more than fit into a step and what it waits for."""

_SILENT = 30
"""As in :mod:`~ecgnat_stream.model.tokens`: so many samples without any lead hide a beat."""

_LIMIT_MV = 1000.0


@dataclass(frozen=True, slots=True)
class CutTokens:
    """Tokens that became complete, those of a bed in their order.

    Parameters
    ----------
    row
        ``(M,)`` bed.
    at, begin, end
        ``(M,)`` R peak or middle of a tile, and the samples ``[begin, end)`` it has, in samples since the bed began.
    before
        ``(M,)`` the R peak before, ``-inf`` where there is none, where signal is missing between the two, and for tiles.
    fixed
        ``(M,)`` a tile.
    waves, valid, lead, amplitude
        As in :class:`~ecgnat_stream.model.tokens.BeatTokens`, ``(M, ...)``.
    """

    row: Tensor
    at: Tensor
    begin: Tensor
    end: Tensor
    before: Tensor
    fixed: Tensor
    waves: Tensor
    valid: Tensor
    lead: Tensor
    amplitude: Tensor


class TokenStream:
    """What is needed to cut the next tokens, for a number of beds; on the host, in float64 where it counts samples.

    Parameters
    ----------
    beds
        How many there are; all begin without a past.
    delay
        Samples behind the newest one from which no peak comes any more. One that comes all the same takes the place of tiles
        only; behind a beat that was cut it is left out and counted in :attr:`late`.
    gap
        Shortest stretch without beats that becomes a tile, in samples.
    """

    def __init__(self, beds: int, delay: int = 32, gap: int = TOKEN_SAMPLES) -> None:
        self.delay, self.gap = delay, gap
        self.received = torch.zeros(beds, dtype=torch.long)
        """Samples of each bed."""
        self.late = torch.zeros(beds, dtype=torch.long)
        """Peaks of each bed that came too late."""
        self._samples = torch.full((beds, len(LEADS), _KEPT), torch.nan)
        self._silent = torch.zeros(beds, _KEPT + 1, dtype=torch.long)  # before each sample; in the last place before the next one
        self._deviations = torch.full((beds, len(LEADS), 16), torch.nan)  # of the last blocks
        self._pending = torch.full((beds, _PENDING), torch.inf, dtype=torch.float64)
        self._behind = torch.zeros(beds, dtype=torch.float64)  # first sample that no token reaches
        self._last = torch.full((beds,), -torch.inf, dtype=torch.float64)  # the last beat
        self._silent_at_last = torch.zeros(beds, dtype=torch.long)
        self._after_beat = torch.zeros(beds, dtype=torch.bool)  # whether the last token is a beat

    def reset(self, rows: Tensor) -> None:
        """Let beds begin anew, without a past."""
        fresh = TokenStream(1, self.delay, self.gap).state()
        for name, tensor in self.state().items():
            tensor[rows] = fresh[name]

    def state(self) -> dict[str, Tensor]:
        """Return all that is remembered, ``(beds, ...)`` each; written into, it changes what is remembered."""
        return {
            "received": self.received,
            "late": self.late,
            "samples": self._samples,
            "silent": self._silent,
            "deviations": self._deviations,
            "pending": self._pending,
            "behind": self._behind,
            "last": self._last,
            "silent_at_last": self._silent_at_last,
            "after_beat": self._after_beat,
        }

    def tell(self, rows: Tensor, peaks: Tensor, tiles_from: Tensor) -> Tensor:
        """Take R peaks that became known.

        Parameters
        ----------
        rows
            ``(B,)`` beds, each once.
        peaks
            ``(B, K)`` float64, in samples since the bed began, ascending from call to call, NaN for none.
        tiles_from
            ``(B, W)`` where the newest tokens begin if they are tiles and nothing but tiles follows, newest first, NaN behind.

        Returns
        -------
        Tensor
            ``(B,)`` how many of these tiles have to be taken back, for a peak that came late.
        """
        taken_back = torch.zeros(len(rows), dtype=torch.long)
        for peak in peaks.unbind(1):
            pending, first = self._pending[rows], peak.round() - R_AT
            newest = torch.where(torch.isfinite(pending), pending, -torch.inf).amax(dim=1)
            comes = torch.isfinite(peak)
            told = comes & (peak > torch.maximum(self._last[rows], newest)) & torch.isinf(pending[:, -1])
            for count, begin in enumerate(tiles_from.unbind(1)):
                covered = told & (taken_back == count) & torch.isfinite(begin) & (first < self._behind[rows])
                self._behind[rows] = torch.where(covered, begin, self._behind[rows])
                self._after_beat[rows] |= covered & (begin == self._last[rows].round() - R_AT + TOKEN_SAMPLES)
                taken_back += covered
            told &= (first >= self._behind[rows]) | self._after_beat[rows] | (self._behind[rows] == 0)
            self.late[rows] += (comes & ~told).long()
            put = rows[told]
            self._pending[put, torch.isfinite(self._pending[put]).sum(dim=1)] = peak[told]
        return taken_back

    def take(self, rows: Tensor, samples: Tensor) -> CutTokens:
        """Take the next samples ``(B, 12, T)`` mV of beds, NaN where missing, T at most 1 s; return what became complete."""
        self._append(rows, samples)
        cuts = []
        while (cut := self._next(rows)) is not None:
            cuts.append(cut)
        return self._measured([torch.cat(part) for part in zip(*cuts, strict=True)]) if cuts else self._nothing()

    def _append(self, rows: Tensor, samples: Tensor) -> None:
        length, begin = samples.shape[2], self.received[rows]
        if length > _STEP:
            raise ValueError(f"want at most {_STEP} samples at a time, got {length}")
        slots = (begin[:, None] + torch.arange(length)) % _KEPT
        self._samples[rows[:, None], :, slots] = samples.transpose(1, 2)
        silent = ~torch.isfinite(samples).any(dim=1)
        total = self._silent[rows, _KEPT]
        running = total[:, None] + silent.cumsum(dim=1)
        self._silent[rows[:, None], slots] = running - silent.long()
        self._silent[rows, _KEPT] = running[:, -1]
        self.received[rows] += length
        full = self.received[rows] // SCALE_BLOCK > begin // SCALE_BLOCK
        if full.any():
            self._add_block(rows[full])

    def _add_block(self, rows: Tensor) -> None:
        block = self.received[rows] // SCALE_BLOCK - 1
        slots = (block[:, None] * SCALE_BLOCK + torch.arange(SCALE_BLOCK)) % _KEPT
        x = self._samples[rows[:, None], :, slots].transpose(1, 2)
        valid = torch.isfinite(x)
        values = torch.where(valid, x, 0.0).clamp(-_LIMIT_MV, _LIMIT_MV)
        self._deviations[rows, :, block % self._deviations.shape[2]] = block_deviations(values, valid, 1)[..., 0]

    def _next(self, rows: Tensor) -> tuple[Tensor, ...] | None:
        """Place the next token of every bed that has one: ``row, at, begin, end, before, fixed``."""
        pending, behind, last = self._pending[rows], self._behind[rows], self._last[rows]
        peak, following = pending[:, 0], pending[:, 1]
        settled = (self.received[rows] - self.delay).double()
        first = torch.where(torch.isfinite(peak), peak, settled).round() - R_AT
        free = first - behind
        known = torch.isfinite(peak)
        tile = (free >= TOKEN_SAMPLES) | (known & (free >= self.gap))
        beat = known & ~tile & (torch.isfinite(following) | (settled >= peak + TOKEN_SAMPLES))
        ready = (tile | beat) & (self.received[rows] >= _FIRST)
        if not ready.any():
            return None
        rows, tile, peak, following, behind, last, first = (x[ready] for x in (rows, tile, peak, following, behind, last, first))
        begin = torch.where(
            tile, behind, torch.maximum(first, torch.where(self._after_beat[rows], ((last + peak) / 2).ceil(), 0.0))
        )
        reach = torch.minimum(first + TOKEN_SAMPLES, ((peak + following) / 2).ceil())
        end = torch.where(tile, torch.minimum(first, behind + TOKEN_SAMPLES), reach)
        at = torch.where(tile, (begin + end) / 2, peak)
        silent = self._silent_before(rows, peak)
        joined = ~tile & (silent - self._silent_at_last[rows] < _SILENT)
        before = torch.where(joined, last, -torch.inf)
        beats = rows[~tile]
        self._behind[rows] = torch.where(tile, end, first + TOKEN_SAMPLES)
        self._after_beat[rows] = ~tile
        self._last[beats], self._silent_at_last[beats] = peak[~tile], silent[~tile]
        self._pending[beats] = torch.nn.functional.pad(self._pending[beats, 1:], (0, 1), value=torch.inf)
        return rows, at, begin, end, before, tile

    def _silent_before(self, rows: Tensor, peak: Tensor) -> Tensor:
        at = peak.nan_to_num(posinf=0.0).floor().long()
        return self._silent[rows, torch.where(at < self.received[rows], at % _KEPT, _KEPT)]

    def _measured(self, placed: list[Tensor]) -> CutTokens:
        row, at, begin, end, before, fixed = placed
        sample = at.round().long()[:, None] - R_AT + torch.arange(TOKEN_SAMPLES)
        inside = (sample >= begin[:, None]) & (sample < end[:, None])
        cut = self._samples[row[:, None], :, sample % _KEPT].transpose(1, 2)
        newest = end.long().clamp(min=_FIRST) // SCALE_BLOCK - 1
        blocks = newest[:, None] - torch.arange(10)
        kept = self._deviations[row[:, None], :, blocks % self._deviations.shape[2]].transpose(1, 2)
        scale = scale_of(torch.where((blocks >= 0)[:, None], kept, torch.nan))
        return CutTokens(row, at, begin, end, before, fixed, *cut_waves(cut, inside, scale))

    def _nothing(self) -> CutTokens:
        none = torch.zeros(0, dtype=torch.float64)
        wave, lead = torch.zeros(0, len(LEADS), TOKEN_SAMPLES), torch.zeros(0, len(LEADS))
        return CutTokens(none.long(), none, none, none, none, none.bool(), wave, wave.bool(), lead.bool(), lead)


def check_state(given: Mapping[str, Tensor], mine: Mapping[str, Tensor]) -> None:
    """Raise ``ValueError`` unless ``given`` is a bed's share of ``mine``."""
    if {name: tensor.shape for name, tensor in given.items()} != {name: tensor.shape[1:] for name, tensor in mine.items()}:
        raise ValueError("the state is that of another network, or was kept with other settings")
