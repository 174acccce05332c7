"""Losses for what the databases state, where they state it.

Shapes: B batch, P token, C class, E embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ecgnat_stream.codes import RHYTHMS
from train.data.labels import UNSTATED
from train.data.sample import BEAT_HIDDEN, BEAT_OTHER

__all__ = ["bag_loss", "beat_loss", "contrastive_loss", "labels_of", "partial_label_loss", "screen_loss", "window_loss"]

_BITS = 1 << torch.arange(len(RHYTHMS))


def partial_label_loss(logits: Tensor, sets: Tensor) -> Tensor:
    """Return ``-log(sum of p over the allowed classes)``, mean over the tokens that state something.

    Parameters
    ----------
    logits
        ``(B, P, C)``.
    sets
        ``(B, P)`` bit masks; all bits = nothing stated.
    """
    allowed = (sets.long()[..., None] & _BITS.to(sets.device)) != 0
    log_p = logits.log_softmax(dim=-1).masked_fill(~allowed, float("-inf")).logsumexp(dim=-1)
    stated = sets != UNSTATED
    return -torch.where(stated, log_p, 0.0).sum() / stated.sum().clamp(min=1)


def bag_loss(logits: Tensor, bag: Tensor, tokens: int = 6) -> Tensor:
    """Return ``-log`` of the mean probability of the bag's class over its ``tokens`` likeliest tokens; 0 without bags.

    Six tokens are 1.9 s: five beats of a ventricular tachycardia at 150 bpm, and half of an alarmed asystole.
    """
    rows = torch.nonzero(bag >= 0).squeeze(1)
    if len(rows) == 0:
        return logits.sum() * 0.0
    p = logits[rows].softmax(dim=-1).gather(2, bag[rows, None, None].expand(-1, logits.shape[1], 1)).squeeze(2)
    return -p.topk(tokens, dim=1).values.mean(dim=1).clamp(min=1e-4).log().mean() * len(rows) / len(bag)


def window_loss(logits: Tensor, stated: Tensor, exclusive: bool = False) -> Tensor:
    """Return the cross-entropy over the windows whose diagnoses are stated, weighted by their share.

    Parameters
    ----------
    logits, stated
        ``(B, C)``; a row of NaN states nothing.
    exclusive
        One class per row, else one binary statement per class.
    """
    there = torch.isfinite(stated).all(dim=1)
    if not there.any():
        return logits.sum() * 0.0
    loss = F.cross_entropy if exclusive else F.binary_cross_entropy_with_logits
    return loss(logits[there], stated[there]) * there.float().mean()


def screen_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Return cross-entropy over the windows ``(B,)`` whose class is stated (>= 0), weighted by their share."""
    there = classes >= 0
    if not there.any():
        return logits.sum() * 0.0
    return F.cross_entropy(logits[there], classes[there]) * there.float().mean()


def beat_loss(output: Tensor, beat: Tensor, place: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the losses of presence, place and class of beats, means over the tokens that state them, times the rows' share.

    Parameters
    ----------
    output
        ``(B, P, 2 + C)``, see :class:`ecgnat_stream.model.heads.BeatHead`.
    beat, place
        ``(B, P)``, see :func:`train.data.sample.beat_targets`.
    weights
        ``(C,)`` of the classes.
    """
    stated, present = beat != BEAT_HIDDEN, beat >= 0
    share = stated.any(dim=1).float().mean()
    if share == 0:
        return output.sum() * 0.0
    loss = F.binary_cross_entropy_with_logits(output[..., 0][stated], present[stated].float())
    if present.any():
        loss = loss + F.l1_loss(output[..., 1][present].sigmoid(), place[present])
    named = present & (beat < BEAT_OTHER)
    if named.any():
        loss = loss + F.cross_entropy(output[..., 2:][named], beat[named], weights)
    return loss * share


def contrastive_loss(embeddings: Tensor, labels: Tensor, group: Tensor, temperature: float = 0.1) -> Tensor:
    """Return the supervised contrastive loss, mean outside the logarithm (Khosla 2020, arXiv 2004.11362, equation 2).

    Positives of a row are the others of its group, weighted by the Jaccard overlap of their labels: 1 or 0 where every row has
    one label. Rows of other groups state other things and are neither positives nor negatives.

    Parameters
    ----------
    embeddings
        ``(B, E)`` of unit length.
    labels
        ``(B, C)`` of 0 and 1.
    group
        ``(B,)``; -1 takes no part.
    """
    same = (group[:, None] == group) & (group >= 0) & ~torch.eye(len(group), dtype=torch.bool, device=group.device)
    labels = labels.float()
    both = labels @ labels.T
    either = labels.sum(dim=1)[:, None] + labels.sum(dim=1) - both
    weight = both / either.clamp(min=1) * same
    logits = (embeddings @ embeddings.T / temperature).masked_fill(~same, -1e9)
    log_p = logits.log_softmax(dim=1)
    total = weight.sum(dim=1)
    rows = total > 0
    if not rows.any():
        return embeddings.sum() * 0.0
    return -((weight * log_p).sum(dim=1)[rows] / total[rows]).mean()


def labels_of(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return labels ``(B, C)`` and groups ``(B,)`` for :func:`contrastive_loss`.

    Group 0 states a screening class, 1 diagnoses, 2 at least one rhythm by token; a window is of the first group it fits.
    """
    screen, window, sets = batch["screen"], batch["window"], batch["sets"]
    width = max(int(screen.max()) + 1, window.shape[1], len(RHYTHMS))
    labels = torch.zeros(len(screen), width, device=screen.device)
    rhythms = (sets.long()[..., None] == _BITS.to(sets.device)).any(dim=1)
    diagnosed = torch.isfinite(window).all(dim=1)
    group = torch.where(rhythms.any(dim=1), 2, -1)
    labels[:, : len(RHYTHMS)] = rhythms.float()
    group = torch.where(diagnosed, 1, group)
    labels = torch.where(diagnosed[:, None], F.pad(window.nan_to_num(), (0, width - window.shape[1])), labels)
    group = torch.where(screen >= 0, 0, group)
    labels = torch.where((screen >= 0)[:, None], F.one_hot(screen.clamp(min=0), width).float(), labels)
    return labels, group
