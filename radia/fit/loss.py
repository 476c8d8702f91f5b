"""Losses of a batch, image by image: each is a sum over the weighed cells of its row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from radia.findings import ancestors

Floats = NDArray[np.float32]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Called with logits, targets and weights, all [n, findings]; gives [n]."""


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighed binary cross-entropy of each image, summed over findings, [n]."""
    cells = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (cells * weight).sum(dim=1)


def auc_margin(logits: Tensor, target: Tensor, weight: Tensor, *, margin: float = 1.0) -> Tensor:
    """Each image's share of the AUC margin loss (Yuan et al., ICCV 2021), [n], with the batch's best a, b, alpha.

    Per finding: variance of the positives' scores + variance of the negatives' + max(0, margin - difference of their
    means)^2. Findings of which the batch has one class only are left out.
    """
    score = torch.sigmoid(logits)
    positive, negative = weight * target, weight * (1 - target)
    n_pos, n_neg = positive.sum(0), negative.sum(0)
    known = ((n_pos > 0) & (n_neg > 0)).to(score.dtype)
    mean_pos = (positive * score).sum(0) / n_pos.clamp(min=1e-6)
    mean_neg = (negative * score).sum(0) / n_neg.clamp(min=1e-6)
    spread = positive * (score - mean_pos) ** 2 / n_pos.clamp(min=1e-6)
    spread = spread + negative * (score - mean_neg) ** 2 / n_neg.clamp(min=1e-6)
    apart = (margin - (mean_pos - mean_neg)).clamp(min=0) ** 2 / len(score)
    # in the units of a sum over cells, as cross_entropy's
    return ((spread + apart) * known * weight.sum(0)).sum(dim=1)


def below_parents(targets: Floats, weights: Floats, findings: tuple[str, ...]) -> tuple[Floats, Floats]:
    """Targets and weights [n, findings] of conditional training (Pham et al. 2019, section 3.3).

    What is below another finding in the tree counts only where that one is present; and what is present makes
    everything above it present.
    """
    targets, weights = targets.copy(), weights.copy()
    at = {finding: column for column, finding in enumerate(findings)}
    for finding, column in at.items():
        for above in (at[name] for name in ancestors(finding) if name in at):
            implied = (targets[:, column] > targets[:, above]) & (weights[:, column] > 0)
            targets[implied, above] = targets[implied, column]
            weights[implied, above] = np.maximum(weights[implied, above], weights[implied, column])
    for finding, column in at.items():
        for above in (at[name] for name in ancestors(finding) if name in at):
            weights[:, column] *= (targets[:, above] >= 0.5) & (weights[:, above] > 0)
    return targets, weights
