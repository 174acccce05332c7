"""Learn from another network: what it says about the same windows, softly, beside what the databases state.

A teacher that sees the future knows a rhythm sooner than a causal student can. The student then learns how sure one may be at a
token without what comes after it; the statements keep it from the teacher's errors.

Shapes: B batch, T time (100 Hz), P token, C class.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ecgnat_stream.errors import CheckpointError
from ecgnat_stream.model import NetworkOutput, load_checkpoint
from ecgnat_stream.model.preprocess import TOKEN

__all__ = ["Teacher", "distillation_losses"]

LONGEST = 2016
"""Samples that a teacher reads at a time: longer windows than it was trained on are read in equal parts."""


class Teacher:
    """A trained network that answers and does not learn. No module, so that no run keeps or averages it.

    Parameters
    ----------
    checkpoint
        Its folder.
    longest
        Samples that it reads at a time.

    Raises
    ------
    CheckpointError
        If the checkpoint cannot be read, or its network has to be given R peaks.
    """

    def __init__(self, checkpoint: Path, longest: int = LONGEST) -> None:
        self.network, _ = load_checkpoint(checkpoint)
        if self.network.needs_beats:
            raise CheckpointError(f"{checkpoint}: a teacher that reads heartbeats has other tokens; take one of ecgnat")
        self.network.eval().requires_grad_(False)
        self._longest = longest

    @torch.no_grad()
    def answer(self, windows: Tensor) -> NetworkOutput:
        """Return its logits for windows ``(B, 12, T)`` in mV.

        Statements about the whole window are the means over its parts.
        """
        network, (batch, _, length) = self.network.to(windows.device), windows.shape
        parts = -(-length // self._longest)
        tokens = -(-length // TOKEN)
        each = -(-tokens // parts) * TOKEN if parts > 1 else length
        filled = F.pad(windows, (0, parts * each - length), value=float("nan"))
        said = network(network.prepare(filled.reshape(batch, -1, parts, each).movedim(2, 1).flatten(0, 1)))
        rhythm, beat = (logits.float().reshape(batch, -1, logits.shape[2]) for logits in (said.rhythm, said.beat))
        window, screen = (logits.float().reshape(batch, parts, -1).mean(dim=1) for logits in (said.window, said.screen))
        return NetworkOutput(rhythm[:, :tokens], beat[:, : 4 * tokens], window, screen)


def distillation_losses(student: NetworkOutput, teacher: NetworkOutput, windows: Tensor) -> dict[str, Tensor]:
    """Return the cross-entropies of a student's answers against a teacher's, 0 where they are equal (Hinton 2015, 1503.02531).

    Parameters
    ----------
    windows
        ``(B, 12, T)`` in mV that both have read; tokens without any sample teach nothing, nor do windows that are not full
        about the whole window.

    Returns
    -------
    dict
        "rhythm", "beat", "window" and "screen": means over the tokens or windows that count, times the windows' share.
    """
    seen = _seen(windows)
    whole = seen.all(dim=1)
    share = whole.float().mean()
    there = seen.repeat_interleave(4, dim=1)
    peak = teacher.beat[..., 0].sigmoid()
    named = _divergence(student.beat[..., 2:], teacher.beat[..., 2:]) * peak
    placed = (student.beat[..., 1].sigmoid() - teacher.beat[..., 1].sigmoid()).abs() * peak
    beat = _binary(student.beat[..., 0], teacher.beat[..., 0])
    beats = (peak * there).sum().clamp(min=1.0)
    return {
        "rhythm": _mean(_divergence(student.rhythm, teacher.rhythm), seen),
        "beat": _mean(beat, there) + ((named + placed) * there).sum() / beats,
        "window": _mean(_binary(student.window, teacher.window).mean(dim=1), whole) * share,
        "screen": _mean(_divergence(student.screen, teacher.screen), whole) * share,
    }


def _seen(windows: Tensor) -> Tensor:
    """Return ``(B, P)``: whether a token holds a sample of any lead."""
    there = torch.isfinite(windows).any(dim=1)
    return F.pad(there, (0, -there.shape[1] % TOKEN)).reshape(len(there), -1, TOKEN).any(dim=2)


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Return Kullback and Leibler's, of exclusive classes in the last dimension."""
    log_p, log_q = teacher.log_softmax(dim=-1), student.float().log_softmax(dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def _binary(student: Tensor, teacher: Tensor) -> Tensor:
    p = teacher.sigmoid()
    return F.binary_cross_entropy_with_logits(student.float(), p, reduction="none") - F.binary_cross_entropy_with_logits(
        teacher, p, reduction="none"
    )


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    return (values * counted).sum() / counted.sum().clamp(min=1)
