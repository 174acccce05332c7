"""What every network has in common: windows and beats in, the same four outputs out.

Trainer, predictor and evaluation know networks by this class alone. A network is an encoder with heads: ``prepare`` turns windows
into its input, ``encode`` that into features, ``read`` features into logits.

Shapes: B batch, T time (100 Hz), P rhythm token of 0.32 s, N beat, E width, C class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, NamedTuple

import msgspec
import torch
from torch import Tensor, nn

__all__ = ["HEADS", "BeatNetwork", "Count", "Gap", "Network", "NetworkOutput", "Rate", "Ratio", "initialise", "stochastic_depth"]

Count = Annotated[int, msgspec.Meta(ge=1)]
"""A width or a number of parts in a configuration."""

Ratio = Annotated[float, msgspec.Meta(gt=0)]
"""One width over another."""

Rate = Annotated[float, msgspec.Meta(ge=0, lt=1)]
"""Share that is left out while training."""

Gap = Annotated[float, msgspec.Meta(gt=0, le=0.96)]
"""Shortest stretch without beats that a network of heartbeats reads, s."""

HEADS = ("rhythm_head.", "beat_head.", "window_head.", "screen_head.")
"""Parameters of these names belong to the heads; all others are the encoder."""


class NetworkOutput(NamedTuple):
    """Logits of the four heads.

    Parameters
    ----------
    rhythm
        ``(B, P, C)``.
    beat
        ``(B, 4 P, 2 + C)``, see :class:`~ecgnat_stream.model.heads.BeatHead`.
    window, screen
        ``(B, C)``.
    """

    rhythm: Tensor
    beat: Tensor
    window: Tensor
    screen: Tensor


class Network(nn.Module, ABC):
    """An encoder with a rhythm, a beat, a window and a screening head.

    Parameters
    ----------
    config
        Everything that shapes the network, and the classes of its heads: ``name`` (of the size), ``rhythm_classes``,
        ``beat_classes``, ``window_classes`` (independent of each other) and ``screen_classes`` (exclusive).
    """

    config: Any
    needs_beats: ClassVar[bool] = False
    """Whether :meth:`prepare` has to be given R peaks."""
    static: ClassVar[bool] = True
    """Whether the shape of the batch settles all other shapes, so that compiling once per batch size is enough."""

    @property
    @abstractmethod
    def embedding_dim(self) -> int:
        """Width of :meth:`pool`."""

    @abstractmethod
    def prepare(self, windows: Tensor, beats: Tensor | None = None) -> Any:
        """Turn windows into what :meth:`encode` takes.

        Parameters
        ----------
        windows
            ``(B, 12, T)`` mV at 100 Hz, NaN where a lead or a sample is missing.
        beats
            ``(B, N)`` R peaks in samples from the start of the window, ascending, NaN behind the last.

        Raises
        ------
        ValueError
            For other shapes, or if the network needs beats and is given none.
        """

    @abstractmethod
    def encode(self, x: Any) -> Any:
        """Return the features that the heads read."""

    @abstractmethod
    def pool(self, features: Any) -> Tensor:
        """Return one embedding per window, ``(B, E)``."""

    def summary(self, features: Any) -> Tensor:
        """Return what a linear map to statements may read, ``(B, F)``; :meth:`pool` unless the head reads more."""
        return self.pool(features)

    @abstractmethod
    def read(self, features: Any) -> NetworkOutput:
        """Return every head's logits. A network without a dense head gives ``(B, 0, C)`` for it."""

    def forward(self, x: Any) -> NetworkOutput:
        """Return every head's logits for what :meth:`prepare` returned."""
        return self.read(self.encode(x))

    def level(self, name: str) -> int:
        """Return how far below the heads a parameter lies, 0 for the heads; for learning rates that fall with depth."""
        return 0 if name.startswith(HEADS) else 1


class BeatNetwork(Network):
    """A network whose tokens are heartbeats: what a token says alone is told apart from what the tokens say together.

    The former never changes once the beat is over, so that :class:`~ecgnat_stream.model.beat_streaming.StreamingBeats` keeps it.
    """

    needs_beats: ClassVar[bool] = True
    static: ClassVar[bool] = False

    @abstractmethod
    def encode_tokens(self, x: Any) -> tuple[Tensor, ...]:
        """Return what depends on a token's own ``waves``, ``valid``, ``lead``, ``amplitude`` and ``beat`` alone, ``(B, N, ...)``.

        Nothing else of ``x`` is looked at.
        """

    @abstractmethod
    def relate(self, own: tuple[Tensor, ...], x: Any) -> Any:
        """Return the features for what :meth:`encode_tokens` gave; of ``x`` neither ``waves`` nor ``valid`` are looked at."""

    def encode(self, x: Any) -> Any:
        """Return the features that the heads read."""
        return self.relate(self.encode_tokens(x), x)


def initialise(module: nn.Module) -> None:
    """Give a linear map weights from a truncated normal of 0.02 and no bias, as NAT does; other modules keep torch's default."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def stochastic_depth(branch: Tensor, rate: float, training: bool) -> Tensor:
    """Leave a branch ``(B, ...)`` out for a random part of the rows (arXiv 1603.09382); while training only."""
    if not training or rate == 0:
        return branch
    kept = torch.rand(len(branch), *[1] * (branch.ndim - 1), device=branch.device) < 1 - rate
    return branch * kept / (1 - rate)
