"""A head for few labels: logistic regressions on what a frozen encoder says of windows, written into the window head.

Shapes: W window, F feature, C class.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler
from torch import nn

__all__ = ["fit_head"]

_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Tried for scikit-learn's C, the inverse of the strength of L2."""

_FOLDS = 5


def fit_head(linear: nn.Linear, features: NDArray[np.floating], stated: NDArray[np.intp], person: NDArray[Any]) -> float:
    """Fit one logistic regression per class, classes counting alike, and write them into a linear map; return its strength of L2.

    The strength is chosen by cross-validation over persons.

    Parameters
    ----------
    linear
        ``F`` to ``C``.
    features, stated, person
        ``(W, F)``, ``(W,)`` class and ``(W,)`` whose window it is.
    """
    scaler = StandardScaler()
    scaled = scaler.fit_transform(np.asarray(features, np.float64))
    folds = list(GroupKFold(min(_FOLDS, len(np.unique(person)))).split(scaled, stated, person))
    losses = {strength: _loss(scaled, stated, folds, strength, linear.out_features) for strength in _STRENGTHS}
    best = min(losses, key=lambda strength: losses[strength])
    weight, bias = _regressions(scaled, stated, best, linear.out_features)
    weight /= scaler.scale_
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight))
        linear.bias.copy_(torch.from_numpy(bias - weight @ scaler.mean_))
    return best


def _loss(x: NDArray[np.float64], stated: NDArray[np.intp], folds: list[Any], strength: float, classes: int) -> float:
    """Return the mean over classes of the cross-entropy of windows that the fit has not seen, classes counting alike."""
    total = []
    for train, rest in folds:
        weight, bias = _regressions(x[train], stated[train], strength, classes)
        logits = x[rest] @ weight.T + bias
        truth = stated[rest][:, None] == np.arange(classes)
        entropy = np.logaddexp(0.0, np.where(truth, -logits, logits))
        total += [
            entropy[truth[:, c] == yes, c].mean() for c in range(classes) for yes in (True, False) if (truth[:, c] == yes).any()
        ]
    return float(np.mean(total))


def _regressions(
    x: NDArray[np.float64], stated: NDArray[np.intp], strength: float, classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    weight, bias = np.zeros((classes, x.shape[1])), np.zeros(classes)
    for c in range(classes):
        truth = stated == c
        if truth.any() and not truth.all():
            model = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000).fit(x, truth)
            weight[c], bias[c] = model.coef_[0], model.intercept_[0]
    return weight, bias
