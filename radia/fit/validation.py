"""Judging the model on the validation images as they are: no augmentation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radia.fit.batches import Pixels
from radia.metrics import auroc, auroc_influence, choose_thresholds
from radia.model import ChestModel
from radia.predict import predict

Floats64 = NDArray[np.float64]
CHUNK = 64
"""Images read at a time."""


@dataclass(frozen=True)
class Judge:
    """Another way to judge an epoch than by the given labels: where these are noisy and some studies were read.

    aurocs: from probabilities [n, findings] of the validation images to an AUROC by finding, NaN where none can be
    told: there the given labels do. name: what it rests on. key: changes when what it rests on changes.
    """

    aurocs: Callable[[Floats64], Floats64]
    name: str
    key: str

    def digest(self) -> str:
        """For telling whether a run is the same one."""
        return f"{self.name} {self.key}"


class Validation:
    """The validation images and what is known of them; `judged`: findings [f] both present and absent there."""

    def __init__(
        self,
        model: ChestModel,
        images: Pixels,
        ids: NDArray[Any],
        truth: Floats64,
        judge: Judge | None,
        *,
        fast: bool,
    ) -> None:
        self._model = model
        self._images = images
        self._ids = ids.tolist()
        self._truth = truth
        self._judge = judge
        self._fast = fast
        self.judged = np.any(truth == 1, axis=0) & np.any(truth == 0, axis=0)

    def entry(self, epoch: int, loss: float | None) -> tuple[dict[str, Any], NDArray[np.float32]]:
        """What the history keeps of an epoch, and the probabilities behind it."""
        scores = self._probabilities(fast=self._fast)
        values = self._aurocs(scores)
        by_finding = {
            finding: None if np.isnan(value) else float(value)
            for finding, value in zip(self._model.findings, values, strict=True)
        }
        return {
            "epoch": epoch,
            "loss": loss,
            "validation_auroc": float(np.nanmean(values)),
            "auroc": by_finding,
        }, scores

    def chance(self, best: NDArray[np.float32], other: NDArray[np.float32], *, errors: float) -> float:
        """So many standard errors of the difference of two epochs' mean AUROC, from their probabilities [n, findings].

        Of the given labels on these images, paired (DeLong et al. 1988). Few noisy images put epochs in an order that
        is mostly chance: the one standard error rule (Breiman et al. 1984) keeps what is simplest among those that
        cannot be told apart; here, what has learnt longest, since the learning rate falls to nothing.
        """
        if not errors:
            return 0.0
        moved = np.zeros(len(self._truth))
        for column in np.flatnonzero(self.judged):
            known = ~np.isnan(self._truth[:, column])
            scores = np.stack([best[known, column], other[known, column]], axis=1).astype(np.float64)
            _, influence = auroc_influence(self._truth[known, column] == 1, scores)
            moved[known] += (influence[0] - influence[1]) / self.judged.sum()
        return errors * float(np.sqrt(np.square(moved).sum()))

    def frozen(self, *, calibrate: bool) -> tuple[dict[str, float], float]:
        """The thresholds by finding, and the temperature, both of the model as it stands."""
        self._model.temperature.fill_(1.0)
        scores = self._probabilities(fast=False).astype(np.float64)
        temperature = best_temperature(self._truth, scores) if calibrate else 1.0
        chosen = choose_thresholds(self._truth, _tempered(scores, temperature))
        return {f: float(t) for f, t in zip(self._model.findings, chosen, strict=True)}, temperature

    def _aurocs(self, scores: NDArray[np.float32]) -> Floats64:
        by_labels = np.full(len(self.judged), np.nan)
        for column in np.flatnonzero(self.judged):
            known = ~np.isnan(self._truth[:, column])
            by_labels[column] = auroc(self._truth[known, column], scores[known, column])
        if self._judge is None:
            return by_labels
        values = self._judge.aurocs(scores.astype(np.float64))
        return np.where(np.isnan(values), by_labels, values)

    def _probabilities(self, *, fast: bool) -> NDArray[np.float32]:
        chunks = (self._images.read(self._ids[start : start + CHUNK]) for start in range(0, len(self._ids), CHUNK))
        device = next(self._model.parameters()).device
        return predict(self._model, chunks, device=device, fast=fast).probabilities


def best_temperature(truth: Floats64, probabilities: Floats64) -> float:
    """The temperature in 0.25..4 of least log loss (Guo et al., ICML 2017). truth: [n, f]; NaN is left out."""
    known = ~np.isnan(truth)
    grid = np.exp(np.linspace(math.log(0.25), math.log(4.0), 129))
    losses = []
    for temperature in grid:
        p = np.clip(_tempered(probabilities[known], float(temperature)), 1e-12, 1 - 1e-12)
        losses.append(-np.mean(truth[known] * np.log(p) + (1 - truth[known]) * np.log1p(-p)))
    return float(grid[int(np.argmin(losses))])


def _tempered(probabilities: Floats64, temperature: float) -> Floats64:
    clipped = np.clip(probabilities, 1e-12, 1 - 1e-12)
    logits = np.log(clipped) - np.log1p(-clipped)
    tempered: Floats64 = 1 / (1 + np.exp(-logits / temperature))
    return tempered
