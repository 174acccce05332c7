"""HUG on ECG-NAT: one encoder reads the three base lead groups apart, and the lead group head joins them.

ECG-NAT mixes the leads in its first convolution, so that it has no features of a lead. Here its encoder runs on three copies of
the window, in each of which the leads of the other groups are told to be missing: I II III, aVR aVL aVF, V1 to V6. Statements
about the window come from :class:`~ecgnat_stream.model.hug.Hug` over the pooled features of the groups; the dense heads read the
mean of the groups' tokens. The encoder's parameters have ECG-NAT's names: what was pretrained there fits here.

Shapes: B batch, G group (3), T time (100 Hz), P token, E width, C class.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from ecgnat_stream.model.attention import Backend
from ecgnat_stream.model.clear import mean_over
from ecgnat_stream.model.ecgnat import EcgNat, EcgNatConfig
from ecgnat_stream.model.hug import GROUPS, Hug, HugOutput
from ecgnat_stream.model.network import Network, NetworkOutput, initialise
from ecgnat_stream.model.preprocess import prepare
from ecgnat_stream.signal import LEADS

__all__ = ["ECGNAT_HUG_SIZES", "EcgNatHug", "EcgNatHugConfig", "GroupFeatures"]

_L = len(LEADS)


class EcgNatHugConfig(EcgNatConfig, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="arch", tag="ecgnat-hug"):
    """ECG-NAT's configuration, and whether the experts of :class:`Hug` have a non-linearity."""

    head: Literal["hug", "hug-gelu"] = "hug-gelu"


ECGNAT_HUG_SIZES = {
    "nano": EcgNatHugConfig(),
    "tiny": EcgNatHugConfig(name="tiny", embed_dim=32, depths=(3, 4, 6, 5)),
    "mini": EcgNatHugConfig(name="mini", embed_dim=64, depths=(3, 4, 6, 5)),
}
"""The sizes of ECG-NAT."""


class GroupFeatures(NamedTuple):
    """``stages``: tokens of every stage ``(B, G, P_s, E_s)``, 0 where a group is missing; ``present`` ``(B, G)``."""

    stages: list[Tensor]
    present: Tensor


class EcgNatHug(Network):
    """ECG-NAT's encoder and dense heads, and two lead group heads."""

    config: EcgNatHugConfig
    static: ClassVar[bool] = False

    def __init__(self, config: EcgNatHugConfig, backend: Backend | None = None) -> None:
        super().__init__()
        self.config, self.backend = config, backend
        own = EcgNat(config, backend)
        self.stem, self.stages, self.downsamplers = own.stem, own.stages, own.downsamplers
        self.rhythm_head, self.beat_head = own.rhythm_head, own.beat_head
        gelu = config.head == "hug-gelu"
        self.window_head = GroupHead(self.embedding_dim, len(config.window_classes), gelu)
        self.screen_head = GroupHead(self.embedding_dim, len(config.screen_classes), gelu)

    @property
    def embedding_dim(self) -> int:
        """Width of the last stage."""
        return self.config.embed_dim << 3

    def prepare(self, windows: Tensor, beats: Tensor | None = None) -> Tensor:
        """Return every lead group's own prepared window, ``(B, G, 25, T)``; beats are not looked at."""
        if windows.ndim != 3 or windows.shape[1] != _L or 0 in windows.shape:
            raise ValueError(f"want windows (B, {_L}, T), got {tuple(windows.shape)}")
        apart = windows.float()[:, None].repeat(1, len(GROUPS), 1, 1)
        for group, leads in enumerate(GROUPS):
            others = [lead for lead in range(_L) if lead not in leads]
            apart[:, group, others] = torch.nan
        x = prepare(apart.flatten(0, 1), self.config.scaling)
        return x.view(len(windows), len(GROUPS), *x.shape[1:])

    def encode(self, x: Tensor) -> GroupFeatures:
        """Return the tokens of every stage for every group that has a sample; where none has, the first stands for all."""
        present = (x[:, :, _L : 2 * _L] > 0).flatten(2).any(dim=2)
        read = present.clone()
        read[:, 0] |= ~present.any(dim=1)
        # ECG-NAT's encode looks at stem, stages and downsamplers alone, and these are here.
        outputs = EcgNat.encode(cast(EcgNat, self), x[read])
        stages = []
        for output in outputs:
            spread = output.new_zeros(*read.shape, *output.shape[1:])
            spread[read] = output
            stages.append(spread)
        return GroupFeatures(stages, present)

    def pool(self, features: GroupFeatures) -> Tensor:
        """Return the mean of the present groups' pooled tokens, ``(B, 8 E)``; 0 where no group is there."""
        return mean_over(self.window_head.norm(features.stages[-1]).mean(dim=2), features.present)

    def read(self, features: GroupFeatures) -> NetworkOutput:
        """Return every head's logits."""
        last, present = features.stages[-1], features.present
        second, joined = _joined(features.stages[1], present), _joined(last, present)
        window, screen = self.window_head(last, present), self.screen_head(last, present)
        return NetworkOutput(self.rhythm_head(joined), self.beat_head(second, joined), window.logits, screen.logits)

    def evidence(self, features: GroupFeatures) -> dict[str, Tensor]:
        """Return what every lead group says for every class, "window" and "screen" ``(B, 7, C)``."""
        last, present = features.stages[-1], features.present
        return {"window": self.window_head(last, present).evidence, "screen": self.screen_head(last, present).evidence}

    def level(self, name: str) -> int:
        """Count as ECG-NAT does."""
        return EcgNat.level(cast(EcgNat, self), name)


class GroupHead(nn.Module):
    """Statements about the window: mean and maximum of every group's tokens as in ECG-NAT's head, brought to E, and HUG."""

    def __init__(self, dim: int, classes: int, gelu: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.linear = nn.Linear(2 * dim, dim)
        self.apply(initialise)
        self.hug = Hug(dim, classes, gelu)
        initialise(self.hug.linear)

    def forward(self, tokens: Tensor, present: Tensor) -> HugOutput:
        """Return logits and evidence for ``(B, G, P, E)``, of which ``present`` ``(B, G)`` are there."""
        tokens = self.norm(tokens)
        pooled = self.linear(torch.cat([tokens.mean(dim=2), tokens.amax(dim=2)], dim=-1))
        return self.hug.of_groups(pooled, present)


def _joined(tokens: Tensor, present: Tensor) -> Tensor:
    """Return the mean of ``(B, G, P, E)`` over the groups that are there; the first where none is."""
    there = present.clone()
    there[:, 0] |= ~present.any(dim=1)
    return mean_over(tokens.transpose(1, 2), there[:, None])
