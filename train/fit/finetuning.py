"""A network with its losses, ready to be fine-tuned: the module, the encoder to begin with, learning rates by depth.

Shapes: B batch, C class, E embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ecgnat_stream.model import HEADS, Network
from train.fit.losses import bag_loss, beat_loss, contrastive_loss, labels_of, partial_label_loss, screen_loss, window_loss
from train.fit.teacher import Teacher, distillation_losses

__all__ = ["Finetuning", "load_encoder", "parameter_groups"]

WEIGHTS = {"window": 2.0, "screen": 2.0}
"""Weights of the losses that are not 1: few rows of a batch state these."""

BEAT_WEIGHTS = (1.0, 3.0, 1.5, 2.0, 1.0)
"""Weights of N, S, V, F, Q: S and F beats are rare also in windows drawn for them."""


class Finetuning(nn.Module):
    """A network with a projection for the contrastive loss.

    Parameters
    ----------
    contrast
        Weight of the contrastive loss, lambda of the paper; 0 needs no second view.
    probe
        The encoder stays as it is; only the heads learn.
    exclusive
        Whether the statements of the window head exclude each other: cross-entropy in place of one binary one per class.
    teacher
        Says of the same windows what the network is to say, see :mod:`train.fit.teacher`; its losses are added to those of the
        statements with the same weights.
    """

    beat_weights: Tensor

    def __init__(
        self,
        network: Network,
        contrast: float = 0.5,
        probe: bool = False,
        exclusive: bool = False,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self._teacher = teacher
        self.network, self.contrast, self.probe, self.exclusive = network, contrast, probe, exclusive
        self.register_buffer("beat_weights", torch.tensor(BEAT_WEIGHTS), persistent=False)
        dim = network.embedding_dim
        self.projection = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 128))
        if probe:
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(name.startswith(HEADS))

    def train(self, mode: bool = True) -> Finetuning:
        """Switch to training, but leave a frozen encoder in its evaluating form."""
        super().train(mode)
        if self.probe:
            for name, child in self.network.named_children():
                child.train(mode and f"{name}.".startswith(HEADS))
        return self

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses of a batch of :class:`train.data.sample.Sampler`."""
        features = self.network.encode(self.network.prepare(batch["windows"], batch.get("beats")))
        output = self.network.read(features)
        losses = {
            "window": window_loss(output.window.float(), batch["window"], self.exclusive),
            "screen": screen_loss(output.screen.float(), batch["screen"]),
        }
        if output.rhythm.numel():
            losses["rhythm"] = partial_label_loss(output.rhythm.float(), batch["sets"])
            losses["bag"] = bag_loss(output.rhythm.float(), batch["bag"])
            losses["beat"] = beat_loss(output.beat.float(), batch["beat"], batch["place"], self.beat_weights)
        weights = WEIGHTS
        if self._teacher is not None:
            taught = distillation_losses(output, self._teacher.answer(batch["windows"]), batch["windows"])
            losses |= {f"teacher_{name}": loss for name, loss in taught.items()}
            weights = WEIGHTS | {f"teacher_{name}": WEIGHTS.get(name, 1.0) for name in taught}
        total = torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()
        if self.contrast > 0:
            embeddings = F.normalize(self.projection(self.network.pool(features)).float(), dim=1)
            losses["contrast"] = contrastive_loss(embeddings, *labels_of(batch))
            total = self.contrast * losses["contrast"] + (1 - self.contrast) * total
        return {"loss": total} | losses


def load_encoder(network: nn.Module, checkpoint: Path, heads: bool = False) -> None:
    """Take the encoder's weights of a checkpoint, and its heads' if ``heads``; else these stay as they are.

    Raises
    ------
    ValueError
        If the checkpoint's encoder has another size or form.
    """
    tensors = load_file(checkpoint / "model.safetensors")
    found = {name: tensor for name, tensor in tensors.items() if heads or not name.startswith(HEADS)}
    state = network.state_dict()
    wanted = {name: tensor.shape for name, tensor in state.items() if heads or not name.startswith(HEADS)}
    wrong = sorted(name for name in wanted.keys() | found.keys() if name not in found or wanted.get(name) != found[name].shape)
    if wrong:
        raise ValueError(f"{checkpoint}: its weights do not fit, {len(wrong)} tensors differ, first {wrong[0]}: another --size?")
    network.load_state_dict(state | found)


def parameter_groups(module: Finetuning, layer_decay: float) -> list[dict[str, Any]]:
    """Return parameter groups whose ``scale`` falls by ``layer_decay`` per level of the network, from the heads down.

    Biases and norms are not decayed.
    """
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            inside, _, rest = name.partition(".")
            level = module.network.level(rest) if inside == "network" else 0
            groups.setdefault((level, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": members, "scale": layer_decay**level} | ({} if decayed else {"weight_decay": 0.0})
        for (level, decayed), members in groups.items()
    ]
