"""What is read from the encoder: a rhythm for every 0.32 s, beats, and statements about the whole window.

Shapes: B batch, P token, E width of a stage, C class.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["BEAT_TOKEN", "BeatHead", "RhythmHead", "WindowHead"]

BEAT_TOKEN = 8
"""Samples per token of the second stage, on which beats are found: 80 ms, so that no token holds two."""


class RhythmHead(nn.Module):
    """Dense rhythm: ``(B, P, E)`` to logits ``(B, P, C)``."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.linear = nn.Linear(dim, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return one logit per class and token."""
        logits: Tensor = self.linear(self.norm(tokens))
        return logits


class BeatHead(nn.Module):
    """Beats on the tokens of the second stage, with the last stage as context: is an R peak in it, where, of which class."""

    def __init__(self, dim: int, last_dim: int, classes: int) -> None:
        super().__init__()
        self.norm, self.last_norm = nn.LayerNorm(dim), nn.LayerNorm(last_dim)
        self.local, self.context = nn.Linear(dim, 2 * dim), nn.Linear(last_dim, 2 * dim)
        self.linear = nn.Linear(2 * dim, 2 + classes)

    def forward(self, tokens: Tensor, last: Tensor) -> Tensor:
        """Return ``(B, 4 P, 2 + C)``: logit of a peak, its place in the token (0..1 after a sigmoid), class logits.

        Parameters
        ----------
        tokens, last
            Outputs of the second ``(B, 4 P, E)`` and the last stage ``(B, P, 4 E)``.
        """
        context = self.context(self.last_norm(last)).repeat_interleave(4, dim=1)
        out: Tensor = self.linear(nn.functional.gelu(self.local(self.norm(tokens)) + context))
        return out


class WindowHead(nn.Module):
    """Statements about the whole window: mean and maximum over all tokens, one logit per statement."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.linear = nn.Linear(2 * dim, classes)

    def summary(self, tokens: Tensor) -> Tensor:
        """Return mean and maximum, ``(B, 2 E)``."""
        tokens = self.norm(tokens)
        return torch.cat([tokens.mean(dim=1), tokens.amax(dim=1)], dim=-1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits ``(B, C)``."""
        logits: Tensor = self.linear(self.summary(tokens))
        return logits
