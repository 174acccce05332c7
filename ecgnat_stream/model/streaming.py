"""The causal network token by token: every new token of 0.32 s costs its own work alone, and a few keys and values that are kept.

A window of 10 s that is moved on by one second computes nine tenths of its tokens again. The causal form of
:class:`~ecgnat_stream.model.ecgnat.EcgNat` need not: a token depends on the past alone, through the last samples of each
convolution and through ``kernel_size - 1`` earlier keys and values of each attention, ``dilation`` apart. These are kept for each
bed, and what comes out is the encoder's output over the whole record up to rounding.

Beds lie side by side in contiguous tensors ``[bed, ...]``. A step takes the beds that have a new token, at whatever phase each of
them is; none sees another.

Keys and values lie in rings. A neighbourhood is a set: its order does not matter to attention, so that nothing is ever moved.
Where a step brings whole residue classes of the dilation (nano: 8, 4, 2 and 1 tokens, dilations 8, 4, 2, 1), each class has a
ring of its own with the neighbours and hardly anything else in it.

Shapes: B bed of a step, N token of a step, E width, H head, K head dim, G residue class, Q token of a class and step, S slot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ecgnat_stream.model.ecgnat import Downsampler, EcgNat, NatLayer, PaddedConv
from ecgnat_stream.model.network import NetworkOutput
from ecgnat_stream.model.preprocess import TOKEN, prepare
from ecgnat_stream.signal import LEADS

__all__ = ["StreamingEcgNat"]


class StreamingEcgNat:
    """A causal ECG-NAT that remembers, for a number of beds.

    Parameters
    ----------
    network
        In its causal form; put into eval mode.
    beds
        How many beds there are; all begin without a past.
    tokens
        Rhythm tokens of 0.32 s per step.
    window
        Rhythm tokens that the statements about the window look at, 10 s.

    Raises
    ------
    ValueError
        For a network that is not causal.
    """

    def __init__(self, network: EcgNat, beds: int, tokens: int = 1, window: int = 32) -> None:
        config = network.config
        if not config.is_causal:
            raise ValueError(f"{config.name} looks ahead: only a causal network can go token by token")
        self.network, self.beds, self.tokens = network.eval(), beds, tokens
        self.device = next(network.parameters()).device
        self._stem = [_ConvTail(part, beds) if isinstance(part, PaddedConv) else part for part in network.stem]
        self._stages: list[list[_ConvTail | _NormConv | _AttentionRing]] = []
        for stage, layers in enumerate(network.stages):
            count = tokens << (3 - stage)
            parts: list[_ConvTail | _NormConv | _AttentionRing] = []
            if stage:
                down = network.downsamplers[stage - 1]
                assert isinstance(down, Downsampler)
                parts.append(_NormConv(down, beds))
            for layer in layers:  # type: ignore[attr-defined]
                assert isinstance(layer, NatLayer)
                parts.append(_AttentionRing(layer, beds, count))
            self._stages.append(parts)
        self._last = torch.zeros(beds, window, network.embedding_dim, device=self.device)
        self.steps = torch.zeros(beds, dtype=torch.long, device=self.device)
        """Steps that each bed has taken since it began."""

    @property
    def state_bytes(self) -> int:
        """Bytes that are kept for each bed."""
        return sum(tensor[0].nbytes for tensor in self._state().values())

    @torch.inference_mode()
    def step(self, rows: Tensor, samples: Tensor) -> NetworkOutput:
        """Take the next samples of some beds.

        Parameters
        ----------
        rows
            ``(B,)`` int64, beds, each once.
        samples
            ``(B, 12, 32 * tokens)`` mV at 100 Hz, NaN where a lead or a sample is missing.

        Returns
        -------
        NetworkOutput
            Rhythm ``(B, tokens, C)`` and beats ``(B, 4 tokens, 2 + C)`` of the new tokens; window and screening ``(B, C)`` over
            the last tokens, those before the beginning left out.

        Raises
        ------
        ValueError
            For samples of another shape.
        """
        wanted = (len(rows), len(LEADS), TOKEN * self.tokens)
        if tuple(samples.shape) != wanted:
            raise ValueError(f"want samples {wanted}, got {tuple(samples.shape)}")
        at = _Place(rows, self.steps[rows], whole=len(rows) == self.beds and bool((rows == torch.arange(self.beds)).all()))
        x = prepare(samples.to(self.device), self.network.config.scaling)
        for part in self._stem:
            x = part.step(x, at) if isinstance(part, _ConvTail) else part(x)
        tokens, features = x.transpose(1, 2), []
        for layers in self._stages:
            for layer in layers:
                tokens = layer.step(tokens, at)
            features.append(tokens)
        self.steps[rows] += 1
        return self._read(features, at)

    def reset(self, rows: Tensor) -> None:
        """Let beds begin anew, without a past."""
        for tensor in self._state().values():
            tensor[rows] = 0

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
        if {name: tensor.shape for name, tensor in state.items()} != {name: tensor.shape[1:] for name, tensor in mine.items()}:
            raise ValueError("the state is that of a network of another shape, or of steps of another length")
        for name, tensor in state.items():
            mine[name][row] = tensor

    def _read(self, features: list[Tensor], at: _Place) -> NetworkOutput:
        last, network = features[-1], self.network
        window = self._last.shape[1]
        slots = (at.steps[:, None] * self.tokens + torch.arange(self.tokens, device=self.device)) % window
        self._last[at.rows[:, None], slots] = last
        kept = self._last if at.whole else self._last[at.rows]
        seen = torch.arange(window, device=self.device) < ((at.steps + 1) * self.tokens)[:, None]
        statements = [_summary(head.norm(kept), seen) for head in (network.window_head, network.screen_head)]
        return NetworkOutput(
            network.rhythm_head(last),
            network.beat_head(features[1], last),
            network.window_head.linear(statements[0]),
            network.screen_head.linear(statements[1]),
        )

    def _state(self) -> dict[str, Tensor]:
        state = {"steps": self.steps, "last": self._last}
        parts = [*self._stem, *(part for parts in self._stages for part in parts)]
        for place, part in enumerate(parts):
            if isinstance(part, _ConvTail | _NormConv | _AttentionRing):
                state |= {f"{place}.{name}": tensor for name, tensor in part.state().items()}
        return state


@dataclass(frozen=True, slots=True)
class _Place:
    """Which beds take a step, and how many each has taken. ``whole``: all of them in their order, so that nothing is copied."""

    rows: Tensor
    steps: Tensor
    whole: bool

    def of(self, tensor: Tensor) -> Tensor:
        return tensor if self.whole else tensor[self.rows]


class _ConvTail:
    """A convolution ``(B, C, T)`` that keeps the end of its input."""

    def __init__(self, conv: nn.Conv1d, beds: int) -> None:
        self.conv = conv
        tail = conv.kernel_size[0] - conv.stride[0]
        self.tail = torch.zeros(beds, conv.in_channels, tail, device=conv.weight.device)

    def step(self, x: Tensor, at: _Place) -> Tensor:
        x = torch.cat([at.of(self.tail), x], dim=-1)
        self.tail[at.rows] = x[..., x.shape[-1] - self.tail.shape[-1] :]
        return nn.functional.conv1d(x, self.conv.weight, self.conv.bias, self.conv.stride)

    def state(self) -> dict[str, Tensor]:
        return {"tail": self.tail}


class _NormConv:
    """A downsampler ``(B, N, E)`` that keeps its last token."""

    def __init__(self, down: Downsampler, beds: int) -> None:
        self.conv, self.norm = _ConvTail(down.conv, beds), down.norm

    def step(self, tokens: Tensor, at: _Place) -> Tensor:
        out: Tensor = self.norm(self.conv.step(tokens.transpose(1, 2), at).transpose(1, 2))
        return out

    def state(self) -> dict[str, Tensor]:
        return self.conv.state()


class _AttentionRing:
    """A layer ``(B, N, E)`` that keeps keys and values of the tokens that its next ones will see."""

    def __init__(self, layer: NatLayer, beds: int, count: int) -> None:
        self.layer, self.count = layer, count
        device = layer.qkv.weight.device
        by_class = count % layer.dilation == 0
        self.classes = layer.dilation if by_class else 1
        self.per_class = count // self.classes
        dilation = 1 if by_class else layer.dilation
        self.blocks = -(-(layer.kernel_size - 1) * dilation // self.per_class) + 1
        self.seen = _seen(layer.kernel_size, dilation, self.per_class, self.blocks).to(device)
        head_dim = layer.qkv.in_features // layer.num_heads
        shape = (beds, layer.num_heads, self.classes, self.blocks * self.per_class, head_dim)
        self.keys, self.values = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
        self.scale = head_dim**-0.5

    def step(self, tokens: Tensor, at: _Place) -> Tensor:
        layer = self.layer
        tokens = tokens + layer.proj(self._attend(layer.norm1(tokens), at))
        out: Tensor = tokens + layer.mlp(layer.norm2(tokens))
        return out

    def _attend(self, tokens: Tensor, at: _Place) -> Tensor:
        batch, count, dim = tokens.shape
        qkv = self.layer.qkv(tokens).view(batch, self.per_class, self.classes, 3, self.layer.num_heads, -1)
        query, key, value = qkv.permute(3, 0, 4, 2, 1, 5)  # (B, H, G, Q, K)
        phase = at.steps % self.blocks
        slots = phase[:, None] * self.per_class + torch.arange(self.per_class, device=phase.device)
        self.keys[at.rows[:, None], :, :, slots] = key.permute(0, 3, 1, 2, 4)
        self.values[at.rows[:, None], :, :, slots] = value.permute(0, 3, 1, 2, 4)
        entry = torch.where(at.steps < self.blocks, at.steps, self.blocks + phase)
        logits = query @ at.of(self.keys).transpose(-1, -2) * self.scale + self.seen[entry][:, None, None]
        mixed = logits.softmax(dim=-1) @ at.of(self.values)
        out: Tensor = mixed.permute(0, 3, 2, 1, 4).reshape(batch, count, dim)
        return out

    def state(self) -> dict[str, Tensor]:
        return {"keys": self.keys, "values": self.values}


def _seen(kernel_size: int, dilation: int, per_class: int, blocks: int) -> Tensor:
    """Say which slots the tokens of a step see, as an additive mask ``(2 * blocks, Q, S)``.

    The first half is for a bed's first steps, when older slots are empty; then the ring turns, one block a step.
    """
    steps = torch.arange(2 * blocks)
    age = (steps[:, None] - torch.arange(blocks)) % blocks  # (steps, block): how many steps ago a block was written
    written = age <= steps[:, None]
    behind = age[:, :, None] * per_class - torch.arange(per_class)  # (steps, block, slot in it): tokens before the step's first
    behind = (behind[:, None] + torch.arange(per_class)[:, None, None]).flatten(2)  # (steps, Q, S)
    sees = (behind >= 0) & (behind % dilation == 0) & (behind <= (kernel_size - 1) * dilation)
    sees &= written.repeat_interleave(per_class, 1)[:, None]
    return torch.zeros(sees.shape).masked_fill_(~sees, float("-inf"))


def _summary(tokens: Tensor, seen: Tensor) -> Tensor:
    """Return mean and maximum over the tokens ``(B, P, E)`` that are there ``(B, P)``, ``(B, 2 E)``."""
    there = seen[..., None]
    mean = (tokens * there).sum(dim=1) / there.sum(dim=1)
    return torch.cat([mean, tokens.masked_fill(~there, float("-inf")).amax(dim=1)], dim=-1)
