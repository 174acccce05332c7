"""What is read from the encoder's last tokens: a rhythm for every 0.32 s, and statements about the whole window.

Shapes: B batch, P token, E width of the last stage, C class.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["RhythmHead", "WindowHead"]


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


class WindowHead(nn.Module):
    """Diagnostic statements, several at a time: mean and maximum over all tokens, one logit per statement."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.linear = nn.Linear(2 * dim, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits ``(B, C)``."""
        tokens = self.norm(tokens)
        logits: Tensor = self.linear(torch.cat([tokens.mean(dim=1), tokens.amax(dim=1)], dim=-1))
        return logits
