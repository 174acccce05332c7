"""The causal network token by token: every new token of 0.32 s costs its own work alone, and a few keys and values that are kept.

A window of 10 s that is moved on by one second computes nine tenths of its tokens again. The causal form of
:class:`~ecgnat_stream.model.ecgnat.EcgNat` need not: a token depends on the past alone, through the last samples of each
convolution and through ``kernel_size - 1`` earlier keys and values of each attention, ``dilation`` apart. These are kept for each
bed, and what comes out is the encoder's output over the whole record up to rounding.

:class:`StepNetwork` is the step as a module whose state is given to it, in tensors ``[bed, ...]`` that it changes in place: it
can be compiled, exported and captured in a graph. :class:`StreamingEcgNat` keeps these tensors. A step takes the beds that have
new tokens, at whatever phase each of them is; none sees another.

Keys and values lie in rings of the neighbours alone. A neighbourhood is a set: its order does not matter to attention, so that
nothing is ever moved. Where a token of 0.32 s brings whole residue classes of the dilation (nano: 8, 4, 2 and 1 tokens, dilations
8, 4, 2, 1), each class has a ring of its own.

Shapes: B bed of a step, N token, E width, H head, K head dim, G residue class, Q new token of a class, S slot of a ring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.model.cuda import GraphedBatches, graphed_step
from ecgnat_stream.model.ecgnat import Downsampler, EcgNat, NatLayer, PaddedConv
from ecgnat_stream.model.heads import WindowHead
from ecgnat_stream.model.network import Network, NetworkOutput
from ecgnat_stream.model.preprocess import TOKEN, prepare
from ecgnat_stream.signal import LEADS

__all__ = ["StepNetwork", "StreamingEcgNat", "can_stream"]

_SPARE = 1
"""Rows of the state in front of the beds: what fills up a step to a fixed number of beds is written there, and never read."""

_WINDOW = 32
"""Tokens that statements look at, 10 s."""


def can_stream(network: Network) -> bool:
    """Return whether a network can go token by token: it must not look ahead."""
    return isinstance(network, EcgNat) and network.config.is_causal


class StepNetwork(nn.Module):
    """One step of some beds: new samples and what is remembered in, logits out; what is remembered is changed in place.

    The weights are copies in the order in which a step reads them: scales of normalisation and attention lie in the maps behind
    and before them.

    Parameters
    ----------
    network
        In its causal form, without BatchNorm (:func:`~ecgnat_stream.model.predict.fold_batch_norm`).
    statements
        Whether the statements about the last 10 s are made too; they need memory of their own.

    Raises
    ------
    ConfigError
        For a network that looks ahead.
    """

    def __init__(self, network: EcgNat, *, statements: bool = False) -> None:
        super().__init__()
        config = network.config
        if not config.is_causal:
            raise ConfigError(
                f"the network {config.name} looks ahead: only a causal one, such as ecgnat-nano-causal, can go token by token"
            )
        network.eval()
        parts: list[nn.Module] = [_ConvStep(part) if isinstance(part, PaddedConv) else _Pointwise(part) for part in network.stem]
        self.ends: list[int] = []
        for stage, layers in enumerate(network.stages):
            if stage:
                down = network.downsamplers[stage - 1]
                assert isinstance(down, Downsampler)
                parts += [_ConvStep(down.conv), _Pointwise(down.norm)]
            assert isinstance(layers, nn.ModuleList)
            parts += [_LayerStep(layer, 8 >> stage) for layer in layers if isinstance(layer, NatLayer)]
            self.ends.append(len(parts))
        self.parts = nn.ModuleList(parts)
        self.rhythm_head, self.beat_head = network.rhythm_head, network.beat_head
        self.window_head, self.screen_head = network.window_head, network.screen_head
        self.width, self.statements = network.embedding_dim, statements

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape of what is remembered of each bed, in the order in which :meth:`forward` takes it."""
        shapes: dict[str, tuple[int, ...]] = {"taken": ()}
        for name, part in self.parts.named_children():
            if isinstance(part, _ConvStep):
                shapes[f"{name}.tail"] = part.shape
            elif isinstance(part, _LayerStep):
                shapes |= {f"{name}.keys": part.shape, f"{name}.values": part.shape}
        return shapes | ({"last": (_WINDOW, self.width)} if self.statements else {})

    def forward(self, samples: Tensor, rows: Tensor, taken: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Take the next samples of some beds.

        Parameters
        ----------
        samples
            ``(B, 12, 32 n)`` mV at 100 Hz, NaN where a lead or a sample is missing.
        rows
            ``(B,)`` int64, rows of the state, each once (but for one that nobody reads).
        taken, state
            ``(beds,)`` int64 tokens that each bed has taken, and the rest of :meth:`shapes`, ``(beds, ...)`` each; all 0 for a
            bed without a past.

        Returns
        -------
        tuple
            Logits of rhythm ``(B, n, C)`` and beats ``(B, 4 n, 2 + C)``; with statements, window and screening ``(B, C)`` too,
            tokens before the beginning left out.
        """
        said, new = self.look(samples, rows, taken, *state)
        self.keep(samples.shape[-1] // TOKEN, rows, new, taken, *state)
        return said

    def look(self, samples: Tensor, rows: Tensor, taken: Tensor, *state: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return what :meth:`forward` says, and what :meth:`keep` has to remember of it; change nothing."""
        at = _Place(rows, taken.index_select(0, rows), samples.shape[-1] // TOKEN)
        rest = iter(state)
        tokens = prepare(samples, "fixed").transpose(1, 2)
        features = []
        for number, part in enumerate(self.parts, 1):
            tokens = part(tokens, at, rest)
            if number in self.ends:
                features.append(tokens)
        rhythm, beat = self.rhythm_head(tokens), self.beat_head(features[1], tokens)
        said = (rhythm, beat, *self._state(tokens, at, rest)) if self.statements else (rhythm, beat)
        return said, tuple(at.new)

    def keep(self, count: int, rows: Tensor, new: Sequence[Tensor], taken: Tensor, *state: Tensor) -> None:
        """Remember what :meth:`look` has found in ``count`` tokens of each bed."""
        before = taken.index_select(0, rows)
        rest = iter(zip(state, new, strict=True))
        for part in self.parts:
            if isinstance(part, _ConvStep):
                _keep_whole(rows, *next(rest))
            elif isinstance(part, _LayerStep):
                part.keep(rows, before, count, next(rest), next(rest))
        if self.statements:
            _keep_whole(rows, *next(rest))
        taken.index_copy_(0, rows, before + count)

    def _state(self, tokens: Tensor, at: _Place, rest: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
        last = next(rest).index_select(0, at.rows)
        kept = min(at.count, _WINDOW)
        slots = (at.taken[:, None] + torch.arange(at.count - kept, at.count, device=tokens.device)) % _WINDOW
        last[torch.arange(last.shape[0], device=last.device)[:, None], slots] = tokens[:, at.count - kept :].to(last.dtype)
        at.new.append(last)
        seen = torch.arange(_WINDOW, device=tokens.device) < (at.taken + at.count)[:, None]
        window, screen = (_stated(head, last, seen) for head in (self.window_head, self.screen_head))
        return window, screen


class StreamingEcgNat:
    """A causal ECG-NAT that remembers, for a number of beds.

    Parameters
    ----------
    network
        In its causal form, as :class:`StepNetwork` takes it; or such a step, which several may share.
    beds
        How many beds there are; all begin without a past.
    statements
        See :class:`StepNetwork`.
    run
        What runs the step: the step itself, or what was made of it by a compiler.
    kept
        In which floating point numbers the past is kept; half as wide, it takes half the memory.
    graphs
        Sizes of steps of one token that are captured (:mod:`~ecgnat_stream.model.cuda`); None captures none. Then the answers are
        on the host, and only whole steps of these sizes are run.

    Raises
    ------
    ConfigError
        For a network that looks ahead.
    """

    def __init__(
        self,
        network: EcgNat | StepNetwork,
        beds: int,
        *,
        statements: bool = False,
        run: Callable[..., tuple[Tensor, ...]] | None = None,
        kept: torch.dtype = torch.float32,
        graphs: Sequence[int] | None = None,
    ) -> None:
        self.network = network if isinstance(network, StepNetwork) else StepNetwork(network, statements=statements)
        self._run, self._kept = self.network if run is None else run, kept
        self.device = next(self.network.parameters()).device
        self._state = {name: self._zeros(name, shape, beds + _SPARE) for name, shape in self.network.shapes().items()}
        self._sizes, self._graphs = graphs, self._captured(graphs)

    def _captured(self, sizes: Sequence[int] | None) -> GraphedBatches | None:
        return graphed_step(self._run, self.state, sizes, (len(LEADS), TOKEN)) if sizes else None

    def _between_steps(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._graphs is None else self._graphs.between()

    def _zeros(self, name: str, shape: tuple[int, ...], rows: int) -> Tensor:
        kind = torch.long if name == "taken" else self._kept
        return torch.zeros(rows, *shape, dtype=kind, device=self.device)

    @property
    def beds(self) -> int:
        """How many beds there are."""
        return len(self._state["taken"]) - _SPARE

    @property
    def state(self) -> tuple[Tensor, ...]:
        """What :class:`StepNetwork` takes, ``(1 + beds, ...)`` each; row 0 belongs to no bed. :meth:`grow` makes others."""
        return tuple(self._state.values())

    @property
    def taken(self) -> Tensor:
        """``(beds,)`` tokens that each bed has taken since it began."""
        return self._state["taken"][_SPARE:]

    @property
    def state_bytes(self) -> int:
        """Bytes that are kept for each bed."""
        return sum(tensor[0].nbytes for tensor in self._state.values())

    def grow(self, beds: int) -> None:
        """Make room for more beds; those that are there go on."""
        with torch.inference_mode(), self._between_steps():
            for name, tensor in self._state.items():
                more = self._zeros(name, tuple(tensor.shape[1:]), beds + _SPARE - len(tensor))
                self._state[name] = torch.cat([tensor, more])
        self._graphs = self._captured(self._sizes)

    @torch.inference_mode()
    def step(self, rows: Tensor, samples: Tensor, size: int | None = None) -> NetworkOutput:
        """Take the next samples of some beds.

        Parameters
        ----------
        rows
            ``(B,)`` int64, beds, each once.
        samples
            ``(B, 12, 32 n)`` mV at 100 Hz, NaN where a lead or a sample is missing.
        size
            To how many beds the step is filled up, so that it has one of few shapes; None leaves it as it is.

        Returns
        -------
        NetworkOutput
            Rhythm ``(B, n, C)`` and beats ``(B, 4 n, 2 + C)`` of the new tokens; window and screening ``(B, C)`` over the last
            10 s if asked for, else ``(B, 0)``.

        Raises
        ------
        ValueError
            For samples of another shape, or beds that are not there.
        """
        count = len(rows)
        if samples.ndim != 3 or samples.shape[:2] != (count, len(LEADS)) or samples.shape[2] % TOKEN or 0 in samples.shape:
            raise ValueError(f"want samples ({count}, {len(LEADS)}, n * {TOKEN}), got {tuple(samples.shape)}")
        if int(rows.min()) < 0 or int(rows.max()) >= self.beds:
            raise ValueError(f"want beds from 0 to {self.beds - 1}, got {int(rows.min())} to {int(rows.max())}")
        rows, samples = rows + _SPARE, samples.float()
        if size is not None and size > count:
            rows = torch.cat([rows, rows.new_zeros(size - count)])
            samples = torch.cat([samples, samples.new_full((size - count, *samples.shape[1:]), torch.nan)])
        said: tuple[Tensor, ...]
        if self._graphs is None:
            said = self._run(samples.to(self.device), rows.to(self.device), *self._state.values())
        else:
            said = self._graphs.submit(rows=rows, samples=samples).result()
        none = said[0].new_empty(count, 0)
        return NetworkOutput(*(part[:count] for part in said), *([none] * (4 - len(said))))

    def reset(self, rows: Tensor) -> None:
        """Let beds begin anew, without a past."""
        with torch.inference_mode(), self._between_steps():
            for tensor in self._state.values():
                tensor[rows.to(self.device) + _SPARE] = 0

    def save(self, row: int) -> dict[str, Tensor]:
        """Return all that is remembered of a bed, to be given to :meth:`restore` of another process."""
        with self._between_steps():
            return {name: tensor[row + _SPARE].cpu().clone() for name, tensor in self._state.items()}

    def restore(self, row: int, state: Mapping[str, Tensor]) -> None:
        """Let a bed go on where another one stood.

        Raises
        ------
        ValueError
            If the state is that of another network.
        """
        if {name: tuple(tensor.shape) for name, tensor in state.items()} != self.network.shapes():
            raise ValueError("the state is that of a network of another shape")
        with torch.inference_mode(), self._between_steps():
            for name, tensor in state.items():
                self._state[name][row + _SPARE] = tensor.to(self.device)


class _Place:
    """Which beds take a step, how many tokens each has taken and takes, and what is to be remembered of them.

    Masks are made once for all layers.
    """

    def __init__(self, rows: Tensor, taken: Tensor, count: int) -> None:
        self.rows, self.taken, self.count = rows, taken, count
        self.new: list[Tensor] = []
        self._masks: dict[tuple[int, int, int], Tensor] = {}

    def mask(self, per_token: int, dilation: int, slots: int) -> Tensor:
        """Say what new tokens see of a ring and of each other, as an additive mask ``(B, 1, Q, S + Q)``."""
        key = (per_token, dilation, slots)
        if key not in self._masks:
            device = self.rows.device
            new = torch.arange(per_token * self.count, device=device)
            first = (self.taken * per_token)[:, None]  # rank of the first new token within its class
            age = (first - 1 - torch.arange(slots, device=device)) % slots  # 0 for the last token before it
            behind = age[:, None] + 1 + new[:, None]
            sees = (behind % dilation == 0) & (behind <= slots) & (age < first)[:, None]
            between = new[:, None] - new
            among = (between >= 0) & (between % dilation == 0) & (between <= slots)
            seen = torch.cat([sees, among.expand(self.rows.shape[0], -1, -1)], dim=-1)
            self._masks[key] = torch.where(seen, 0.0, float("-inf"))[:, None]
        return self._masks[key]


class _Pointwise(nn.Module):
    """A part that looks at each token alone."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(part.normalized_shape) if isinstance(part, nn.LayerNorm) else None
        if self.norm is not None:
            self.norm.load_state_dict(part.state_dict())
        elif not isinstance(part, nn.GELU | nn.Identity):
            raise ConfigError(f"{type(part).__name__} in the stem: fold BatchNorm into the convolutions first")
        self.bends = isinstance(part, nn.GELU)

    def forward(self, tokens: Tensor, at: _Place, state: Iterator[Tensor]) -> Tensor:
        if self.norm is not None:
            out: Tensor = self.norm(tokens)
            return out
        return F.gelu(tokens) if self.bends else tokens


class _ConvStep(nn.Module):
    """A convolution of tokens ``(B, N, C)`` that keeps the end of its input."""

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        self.reach, self.stride = conv.kernel_size[0], conv.stride[0]
        self.shape = (self.reach - self.stride, conv.in_channels)
        self.weight = nn.Parameter(conv.weight.detach().permute(0, 2, 1).reshape(conv.out_channels, -1).clone(), False)
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().clone(), False)

    def forward(self, tokens: Tensor, at: _Place, state: Iterator[Tensor]) -> Tensor:
        tail = next(state)
        x = torch.cat([tail.index_select(0, at.rows), tokens], dim=1)
        batch, length, channels = x.shape
        at.new.append(x[:, length - self.shape[0] :])
        count = (length - self.reach) // self.stride + 1
        seen = x.as_strided((batch, count, self.reach * channels), (length * channels, self.stride * channels, 1))
        return F.linear(seen, self.weight, self.bias)


class _LayerStep(nn.Module):
    """A layer ``(B, N, E)`` that keeps keys and values of the tokens that its next ones will see."""

    def __init__(self, layer: NatLayer, per_token: int) -> None:
        super().__init__()
        by_class = per_token % layer.dilation == 0
        self.classes = layer.dilation if by_class else 1
        self.per_token = per_token // self.classes
        self.dilation = 1 if by_class else layer.dilation
        self.slots = (layer.kernel_size - 1) * self.dilation
        self.heads, self.width = layer.num_heads, layer.qkv.in_features
        head_dim = self.width // self.heads
        self.shape = (self.heads, self.classes, self.slots, head_dim)
        self.qkv = _normed(layer.norm1, layer.qkv)
        with torch.no_grad():
            self.qkv.weight[: self.width] *= head_dim**-0.5
            self.qkv.bias[: self.width] *= head_dim**-0.5
        wide, _, narrow = layer.mlp
        assert isinstance(wide, nn.Linear)
        self.proj, self.wide, self.narrow = layer.proj, _normed(layer.norm2, wide), narrow
        self.eps = layer.norm1.eps, layer.norm2.eps

    def forward(self, tokens: Tensor, at: _Place, state: Iterator[Tensor]) -> Tensor:
        normed = F.layer_norm(tokens, (self.width,), eps=self.eps[0])
        tokens = tokens + self.proj(self._attend(self.qkv(normed), at, next(state), next(state)))
        normed = F.layer_norm(tokens, (self.width,), eps=self.eps[1])
        out: Tensor = tokens + self.narrow(F.gelu(self.wide(normed)))
        return out

    def _attend(self, qkv: Tensor, at: _Place, keys: Tensor, values: Tensor) -> Tensor:
        batch, count, _ = qkv.shape
        new = count // self.classes
        parts = qkv.view(batch, new, self.classes, 3, self.heads, -1)
        query, key, value = parts.permute(3, 0, 4, 2, 1, 5)  # (B, H, G, Q, K)
        seen_keys = torch.cat([keys.index_select(0, at.rows), key], dim=3)
        seen_values = torch.cat([values.index_select(0, at.rows), value], dim=3)
        first = new - min(new, self.slots)
        at.new += [parts[:, first:, :, 1].transpose(2, 3), parts[:, first:, :, 2].transpose(2, 3)]
        mask = at.mask(self.per_token, self.dilation, self.slots)
        logits = query @ seen_keys.transpose(-1, -2) + mask[:, None]
        mixed = logits.softmax(dim=-1) @ seen_values
        out: Tensor = mixed.permute(0, 3, 2, 1, 4).reshape(batch, count, self.width)
        return out

    def keep(self, rows: Tensor, taken: Tensor, count: int, *rings: tuple[Tensor, Tensor]) -> None:
        """Put new keys and values into their rings, over the oldest."""
        new = count * self.per_token
        ranks = (taken * self.per_token)[:, None] + torch.arange(new - min(new, self.slots), new, device=rows.device)
        place = rows[:, None], slice(None), slice(None), ranks % self.slots
        for ring, tokens in rings:
            ring[place] = tokens.to(ring.dtype)


def _keep_whole(rows: Tensor, kept: Tensor, new: Tensor) -> None:
    kept.index_copy_(0, rows, new.to(kept.dtype))


def _normed(norm: nn.LayerNorm, linear: nn.Linear) -> nn.Linear:
    """Return a linear map with the scale and shift of the normalisation before it in it."""
    out = nn.Linear(linear.in_features, linear.out_features, device=linear.weight.device)
    with torch.no_grad():
        out.weight.copy_(linear.weight * norm.weight)
        out.bias.copy_(linear.weight @ norm.bias + (0 if linear.bias is None else linear.bias))
    return out.requires_grad_(False)


def _stated(head: WindowHead, tokens: Tensor, seen: Tensor) -> Tensor:
    """Return a head's logits ``(B, C)`` of the tokens ``(B, P, E)`` that are there ``(B, P)``."""
    tokens, there = head.norm(tokens), seen[..., None]
    mean = (tokens * there).sum(dim=1) / there.sum(dim=1)
    most = tokens.masked_fill(~there, float("-inf")).amax(dim=1)
    logits: Tensor = head.linear(torch.cat([mean, most], dim=-1))
    return logits
