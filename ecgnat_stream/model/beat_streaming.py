"""BEAT-Net and CLEAR beat by beat: a heartbeat is encoded once, when it is complete; only what beats say together runs again.

A window of 10 s that is moved on by one second cuts and encodes each of its beats again, ten times in all. Here each bed has a
ring of encoded beats, and what comes out is what the network itself says of the same tokens up to rounding.

How much is kept depends on the network (:meth:`~ecgnat_stream.model.network.BeatNetwork.encode_tokens`). BEAT-Net: the morphology
encoder and the lead encoder, all that does not know of other beats. CLEAR: the embedding of wave, voltage and lead. The time in
the window is added before the first block, so that each block changes with every window.

Where the tokens differ from those of a window, :mod:`~ecgnat_stream.model.token_stream` says.

Shapes: B bed of a step, N token of a window, K peak, M new token, S slot of a ring, T time (100 Hz).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ecgnat_stream.model.network import BeatNetwork, NetworkOutput
from ecgnat_stream.model.token_stream import CutTokens, TokenStream, check_state
from ecgnat_stream.model.tokens import LONGEST_RR_S, TOKEN_SAMPLES, BeatTokens, token_bounds
from ecgnat_stream.signal import LEADS, MODEL_FS

__all__ = ["StreamingBeats"]

_L = len(LEADS)
_STEP = MODEL_FS
_TILES = 4  # newest tiles that a missed beat found later may take the place of: 3 s


class StreamingBeats:
    """A network of heartbeats that remembers, for a number of beds.

    Parameters
    ----------
    network
        Put into eval mode.
    beds
        How many there are; all begin without a past.
    window
        Samples that the network looks at, back from the newest one.
    capacity
        Beats kept for each bed; of more within a window, the oldest are forgotten.
    delay
        See :class:`~ecgnat_stream.model.token_stream.TokenStream`.
    """

    def __init__(self, network: BeatNetwork, beds: int, window: int = 10 * MODEL_FS, capacity: int = 48, delay: int = 32) -> None:
        self.network, self.beds, self.window, self.capacity = network.eval(), beds, window, capacity
        self.device = next(network.parameters()).device
        self.stream = TokenStream(beds, delay, round(network.config.gap_s * MODEL_FS))
        self.count = torch.zeros(beds, dtype=torch.long)
        """Tokens of each bed since it began."""
        self._at, self._begin, self._before = (torch.full((beds, capacity), torch.nan, dtype=torch.float64) for _ in range(3))
        self._fixed = torch.zeros(beds, capacity, dtype=torch.bool)
        self._lead = torch.zeros(beds, capacity, _L, dtype=torch.bool)
        self._own = tuple(torch.zeros(beds, capacity, *part.shape[2:], device=self.device) for part in self._encode_nothing())

    @property
    def state_bytes(self) -> int:
        """Bytes that are kept for each bed."""
        return sum(tensor[0].nbytes for tensor in self._state().values())

    @torch.inference_mode()
    def step(self, rows: Tensor, samples: Tensor, peaks: Tensor) -> NetworkOutput:
        """Take what is new of some beds, and say what the network says of their last tokens: :meth:`take`, then :meth:`read`."""
        self.take(rows, samples, peaks)
        return self.read(rows)

    @torch.inference_mode()
    def take(self, rows: Tensor, samples: Tensor, peaks: Tensor) -> Tensor:
        """Take what is new of some beds; encode the beats that became complete.

        Parameters
        ----------
        rows
            ``(B,)`` int64, beds, each once.
        samples
            ``(B, 12, T)`` mV at 100 Hz, NaN where a lead or a sample is missing.
        peaks
            ``(B, K)`` R peaks that became known, in samples since the bed began (float64), ascending from call to call, NaN
            behind the last. Each is told once, with the samples up to it or later.

        Returns
        -------
        Tensor
            ``(B,)`` how many tokens came.

        Raises
        ------
        ValueError
            For other shapes.
        """
        if samples.ndim != 3 or samples.shape[:2] != (len(rows), _L):
            raise ValueError(f"want samples ({len(rows)}, {_L}, T), got {tuple(samples.shape)}")
        if peaks.ndim != 2 or len(peaks) != len(rows):
            raise ValueError(f"want peaks ({len(rows)}, K), got {tuple(peaks.shape)}")
        before = self.count[rows].clone()
        peaks, samples = peaks.double(), samples.float()
        for at in range(0, samples.shape[2], _STEP):
            part = samples[:, :, at : at + _STEP]
            stop = self.stream.received[rows, None] + part.shape[2]
            last = at + _STEP >= samples.shape[2]
            self._tell(rows, peaks if last else torch.where(peaks < stop, peaks, torch.nan))
            peaks = peaks if last else torch.where(peaks < stop, torch.nan, peaks)
            self._keep(self.stream.take(rows, part))
        return self.count[rows] - before

    @torch.inference_mode()
    def read(self, rows: Tensor) -> NetworkOutput:
        """Run the network over the tokens that some beds have in their window; of a bed without any, no number means anything.

        Returns
        -------
        NetworkOutput
            As of a window that ends with the newest sample: rhythm ``(B, P, C)``, beats ``(B, 4 P, 2 + C)``, statements.
        """
        own, tokens = self.remembered(rows)
        return self.network.read(self.network.relate(own, tokens))

    def remembered(self, rows: Tensor) -> tuple[tuple[Tensor, ...], BeatTokens]:
        """Return what was encoded of the tokens in the window, and the tokens, without their waves."""
        begin = (self.stream.received[rows] - self.window).double()[:, None]
        back = torch.arange(self.capacity)
        number = self.count[rows, None] - 1 - back
        place = number.clamp(min=0) % self.capacity
        at = self._at[rows[:, None], place]
        inside = (number >= 0) & (at >= begin)
        held = int(inside.sum(dim=1).max()) if len(rows) else 0
        count = inside.sum(dim=1, keepdim=True)
        slot = torch.arange(max(held, 1))
        beat = slot < count
        place = torch.where(beat, self.count[rows, None] - count + slot, 0).clamp(min=0) % self.capacity
        each = rows[:, None], place
        at = torch.where(beat, self._at[each] - begin, torch.inf)
        fixed, lead = self._fixed[each] & beat, self._lead[each] & beat[..., None]
        rr = _intervals(at, self._before[each] - begin, beat & ~fixed)
        nothing = count[:, 0] == 0  # a row has at least one token: here one without a lead
        at[nothing, 0], beat[nothing, 0], fixed[nothing, 0] = self.window / 2, True, True
        bounds = token_bounds(at.float(), beat, fixed, self.window)
        at_s = (torch.where(beat, at, 0.0) / MODEL_FS).float()
        empty = torch.zeros(*beat.shape, _L, 0)
        tokens = BeatTokens(empty, empty.bool(), lead, torch.zeros(lead.shape), beat, at_s, rr, bounds, fixed, self.window)
        tokens = _moved(tokens, self.device)
        there = tokens.beat & ~nothing.to(self.device)[:, None]
        on_device = rows.to(self.device)[:, None], place.to(self.device)
        own = (part[on_device] for part in self._own)
        return tuple(part * there.view(*there.shape, *[1] * (part.ndim - 2)) for part in own), tokens

    def without_beats(self, rows: Tensor) -> Tensor:
        """Return ``(B,)`` whether some beds have no heartbeat in their window, so that tiles alone are read."""
        begin = (self.stream.received[rows] - self.window).double()[:, None]
        number = self.count[rows, None] - 1 - torch.arange(self.capacity)
        each = rows[:, None], number.clamp(min=0) % self.capacity
        return ~((number >= 0) & (self._at[each] >= begin) & ~self._fixed[each]).any(dim=1)

    def reset(self, rows: Tensor) -> None:
        """Let beds begin anew, without a past."""
        self.stream.reset(rows)
        self.count[rows] = 0

    def save(self, row: int) -> dict[str, Tensor]:
        """Return all that is remembered of a bed, to be given to :meth:`restore` of another process."""
        return {name: tensor[row].clone() for name, tensor in self._state().items()}

    def restore(self, row: int, state: Mapping[str, Tensor]) -> None:
        """Let a bed go on where another one stood.

        Raises
        ------
        ValueError
            If the state is that of another network.
        """
        mine = self._state()
        check_state(state, mine)
        for name, tensor in state.items():
            mine[name][row] = tensor

    def _tell(self, rows: Tensor, peaks: Tensor) -> None:
        number = self.count[rows, None] - 1 - torch.arange(_TILES)
        place = number.clamp(min=0) % self.capacity
        tile = ((number >= 0) & self._fixed[rows[:, None], place]).cumprod(dim=1).bool()
        begins = torch.where(tile, self._begin[rows[:, None], place], torch.nan)
        self.count[rows] -= self.stream.tell(rows, peaks, begins)

    def _keep(self, cut: CutTokens) -> None:
        """Encode tokens, and put each into the ring of its bed."""
        if not len(cut.row):
            return
        own = self.network.encode_tokens(self._alone(cut))
        place = torch.empty_like(cut.row)
        order = cut.row.argsort(stable=True)
        row, many = torch.unique_consecutive(cut.row[order], return_counts=True)
        rank = torch.arange(len(order)) - (many.cumsum(0) - many).repeat_interleave(many)
        place[order] = (self.count[cut.row[order]] + rank) % self.capacity
        self.count[row] += many
        for ring, part in ((self._at, cut.at), (self._begin, cut.begin), (self._before, cut.before), (self._fixed, cut.fixed)):
            ring[cut.row, place] = part
        self._lead[cut.row, place] = cut.lead
        for ring, part in zip(self._own, own, strict=True):
            ring[cut.row.to(self.device), place.to(self.device)] = part[:, 0]

    def _alone(self, cut: CutTokens) -> BeatTokens:
        """Return tokens as rows of one beat each, of which the network looks at what does not depend on others."""
        beat = torch.ones(len(cut.row), 1, dtype=torch.bool)
        at = torch.zeros(beat.shape)
        rr, bounds = torch.zeros(*beat.shape, 4), torch.zeros(*beat.shape, 2, dtype=torch.long)
        waves, valid, lead, amplitude, fixed = (x[:, None] for x in (cut.waves, cut.valid, cut.lead, cut.amplitude, cut.fixed))
        tokens = BeatTokens(waves, valid, lead, amplitude, beat, at, rr, bounds, fixed, TOKEN_SAMPLES)
        return _moved(tokens, self.device)

    @torch.inference_mode()
    def _encode_nothing(self) -> tuple[Tensor, ...]:
        none = torch.zeros(1)
        wave, lead = torch.zeros(1, _L, TOKEN_SAMPLES), torch.zeros(1, _L)
        no = none.bool()
        cut = CutTokens(none.long(), none, none, none, none, no, wave, wave.bool(), lead.bool(), lead)
        return self.network.encode_tokens(self._alone(cut))

    def _state(self) -> dict[str, Tensor]:
        kept = {"count": self.count, "at": self._at, "begin": self._begin, "before": self._before, "fixed": self._fixed}
        own = {f"own.{number}": part for number, part in enumerate(self._own)}
        return {**kept, "lead": self._lead, **own, **{f"stream.{name}": part for name, part in self.stream.state().items()}}


def _moved(tokens: BeatTokens, device: torch.device) -> BeatTokens:
    parts = [part.to(device) for part in tokens if isinstance(part, Tensor)]
    waves, valid, lead, amplitude, beat, at, rr, bounds, fixed = parts
    return BeatTokens(waves, valid, lead, amplitude, beat, at, rr, bounds, fixed, tokens.length)


def _intervals(at: Tensor, before: Tensor, is_beat: Tensor) -> Tensor:
    """Return ``(B, N, 4)`` as ``BeatTokens.rr``: of beats that have the one before, and the one behind, in the window."""
    known = is_beat & (before >= 0)
    rr = torch.where(known, (at - before) / MODEL_FS, 0.0).clamp(max=LONGEST_RR_S).float()
    mean = rr.sum(dim=1, keepdim=True) / known.sum(dim=1, keepdim=True).clamp(min=1)
    ratio = torch.where(known, rr / mean.clamp(min=1e-6), 1.0)
    count = at.shape[1]
    number = torch.where(is_beat, torch.arange(count), count)
    following = torch.nn.functional.pad(number.flip(1).cummin(dim=1).values.flip(1)[:, 1:], (0, 1), value=count)
    after = torch.nn.functional.pad(rr, (0, 1)).gather(1, following)
    return torch.stack([rr, torch.where(is_beat, after, 0.0), ratio, known.float()], dim=-1)
