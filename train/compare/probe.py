"""A linear probe: how much of a task can be read off a frozen encoder by one linear map.

The map is fitted to its optimum, one logistic regression per class on standardised features (scikit-learn's, L2), so that a probe
says something about the encoder and nothing about a learning rate. The strength of L2 is chosen on validation records.

Shapes: B batch, W window, F feature, C class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from ecgnat_stream.model import Network
from ecgnat_stream.model.network import NetworkOutput
from train.data.pack import Cached
from train.data.sample import Cache
from train.data.tasks import Task
from train.judge.by_task import averaged, quick_score, windows_of

__all__ = ["Probe", "fit_probe"]

_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Tried for scikit-learn's C, the inverse of the strength of L2."""

_NEVER = -20.0  # logit of a class that no or every training record states


class Probe(Network):
    """A frozen encoder and a linear map from its :meth:`~ecgnat_stream.model.Network.summary` to the window head's classes."""

    def __init__(self, encoder: Network, weight: NDArray[np.floating], bias: NDArray[np.floating]) -> None:
        super().__init__()
        self.config, self.encoder = encoder.config, encoder
        self.needs_beats = encoder.needs_beats  # type: ignore[misc]
        self.linear = nn.Linear(weight.shape[1], len(weight))
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(weight))
            self.linear.bias.copy_(torch.from_numpy(bias))

    @property
    def embedding_dim(self) -> int:
        """Features that the map reads."""
        return self.linear.in_features

    def prepare(self, windows: Tensor, beats: Tensor | None = None) -> Any:
        """Return what the encoder reads."""
        return self.encoder.prepare(windows, beats)

    def encode(self, x: Any) -> Tensor:
        """Return the summary ``(B, F)``."""
        return self.encoder.summary(self.encoder.encode(x))

    def pool(self, features: Tensor) -> Tensor:
        """Return the features themselves."""
        return features

    def read(self, features: Tensor) -> NetworkOutput:
        """Return the window head's logits, and nothing for the other heads."""
        none = features.new_zeros(len(features), 0)
        return NetworkOutput(none[..., None], none[..., None], self.linear(features), none)


@torch.no_grad()
def fit_probe(
    encoder: Network, cache: Cache, records: Sequence[Cached], val: Sequence[Cached], task: Task, device: torch.device
) -> tuple[Probe, float]:
    """Fit a probe to all windows of ``records``; return it, and its macro-AUROC on the records ``val``, NaN if it has none."""
    encoder.eval().to(device)
    parts, val_parts = (
        [(rows, encoder.summary(encoder.encode(x))) for rows, x in windows_of(encoder, cache, some, task, device)]
        for some in (records, val)
    )
    stated = task.targets(records)[[row for rows, _ in parts for row in rows]]
    scaler = StandardScaler()
    features = scaler.fit_transform(np.concatenate([part.double().cpu().numpy() for _, part in parts]))
    val_stated = task.targets(val)
    best: tuple[Probe, float] | None = None
    for strength in _STRENGTHS:
        weight, bias = _fit(features, stated, strength)
        weight /= scaler.scale_
        probe = Probe(encoder, weight, bias - weight @ scaler.mean_).eval().to(device)
        said = averaged(task, ((rows, probe.linear(part)) for rows, part in val_parts), len(val))
        score = quick_score(val_stated, said) if len(val) else float("nan")
        if best is None or score > best[1]:
            best = probe, score
    assert best is not None
    return best


def _fit(features: NDArray[np.float64], stated: NDArray[np.floating], strength: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return ``(C, F)`` weights and ``(C,)`` biases."""
    weight, bias = np.zeros((stated.shape[1], features.shape[1])), np.full(stated.shape[1], _NEVER)
    for c, truth in enumerate(stated.T > 0.5):
        if 0 < truth.sum() < len(truth):
            model = LogisticRegression(C=strength, max_iter=2000).fit(features, truth)
            weight[c], bias[c] = model.coef_[0], model.intercept_[0]
    return weight, bias
