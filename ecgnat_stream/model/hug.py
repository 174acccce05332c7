"""HUG: the hierarchical lead group head of CLEAR-HUG (arXiv 2512.24002; docs/models.md says what is ours).

Features of twelve leads go in; seven experts read them: one per lead group (standard limb, augmented limb, chest), one per pair
of groups, one for all. A linear classifier reads their seven outputs, concatenated, so that every logit is a sum of seven parts
and a bias.

Shapes: B batch, L lead (12), G group (3), X expert (7), E width, C class.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["EXPERTS", "GROUPS", "Hug", "HugOutput"]

GROUPS = ((0, 1, 2), (3, 4, 5), (6, 7, 8, 9, 10, 11))
"""Leads of every base group: I II III, aVR aVL aVF, V1 to V6."""

_PAIRS = ((0, 1), (1, 2), (0, 2))

EXPERTS = ("standard", "augmented", "chest", "standard+augmented", "augmented+chest", "standard+chest", "all")
"""Names of the experts, in the order of the evidence."""


class HugOutput(NamedTuple):
    """``logits`` ``(B, C)`` and ``evidence`` ``(B, X, C)``, what every expert adds: with the bias it sums to them."""

    logits: Tensor
    evidence: Tensor


class Hug(nn.Module):
    """Seven experts over lead groups and a linear classifier over their concatenated outputs.

    Parameters
    ----------
    dim
        Width of the features, of every expert and of its output.
    classes
        Number of logits.
    gelu
        Whether every expert ends with a non-linearity. Without one the experts are linear, as released, and the whole head is
        one linear map of the three group means: it can do what a linear classifier of these means can do, and nothing more. It
        exists to be compared with.
    """

    def __init__(self, dim: int, classes: int, gelu: bool = False) -> None:
        super().__init__()
        self.gelu = gelu
        self.groups, self.pairs = (
            nn.ModuleList(_expert(dim, gelu) for _ in GROUPS),
            nn.ModuleList(_expert(dim, gelu) for _ in _PAIRS),
        )
        self.whole = _expert(dim, gelu)
        self.absent = nn.Parameter(torch.zeros(len(GROUPS), dim))
        self.linear = nn.Linear(len(EXPERTS) * dim, classes)
        self.initialise()

    def initialise(self) -> None:
        """Give every expert weights that keep the spread of what it reads (Glorot 2010; He 2015 with GELU).

        Experts read experts: with the 0.02 of other linear maps the pairs begin with a seventh of a base expert's say, "all" with
        a seventieth, and a short training leaves them there.
        """
        for module in (*self.groups.modules(), *self.pairs.modules(), *self.whole.modules()):
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight, gain=math.sqrt(2) if self.gelu else 1.0)
                nn.init.zeros_(module.bias)

    def forward(self, leads: Tensor, present: Tensor) -> HugOutput:
        """Return logits and evidence.

        Parameters
        ----------
        leads
            ``(B, L, E)`` features of the leads.
        present
            ``(B, L)`` bool. A group is the mean over its present leads; one without any is a learned value.
        """
        means = []
        for index, (expert, members) in enumerate(zip(self.groups, GROUPS, strict=True)):
            there = present[:, list(members), None]
            values = torch.where(there, expert(leads[:, list(members)]), 0.0)
            mean = values.sum(dim=1) / there.sum(dim=1).clamp(min=1)
            means.append(torch.where(there.any(dim=1), mean, self.absent[index].to(mean.dtype)))
        return self._rise(means)

    def of_groups(self, groups: Tensor, present: Tensor) -> HugOutput:
        """Return logits and evidence for features of the base groups ``(B, G, E)``, of which ``present`` ``(B, G)`` are there."""
        values = [expert(groups[:, index]) for index, expert in enumerate(self.groups)]
        return self._rise(
            [torch.where(present[:, i, None], value, self.absent[i].to(value.dtype)) for i, value in enumerate(values)]
        )

    def _rise(self, groups: list[Tensor]) -> HugOutput:
        """Go from the base groups to the pairs and to all."""
        pairs = [expert((groups[a] + groups[b]) / 2) for expert, (a, b) in zip(self.pairs, _PAIRS, strict=True)]
        whole = self.whole((pairs[0] + pairs[1] + pairs[2]) / 3)
        features = torch.stack([*groups, *pairs, whole], dim=1)
        weight = self.linear.weight.view(-1, len(EXPERTS), features.shape[-1])
        evidence = torch.einsum("bxe,cxe->bxc", features, weight.to(features.dtype))
        return HugOutput(evidence.sum(dim=1) + self.linear.bias, evidence)


def _expert(dim: int, gelu: bool) -> nn.Module:
    return nn.Sequential(nn.Linear(dim, dim), nn.GELU()) if gelu else nn.Linear(dim, dim)
