"""Before the first step: whether training can start, on what, in which precision, and with which optimizer."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from radia.errors import TrainingError, UnknownFinding
from radia.model import ChestModel

if TYPE_CHECKING:
    from radia.settings import FinetuneSettings

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]


def trainable(
    model: ChestModel,
    ids: NDArray[Any],
    targets: Floats,
    weights: Floats,
    train: NDArray[np.bool_],
    validation: NDArray[np.bool_],
) -> tuple[Floats, Floats, tuple[str, ...]]:
    """Targets and weights as float32, with the findings left out of the loss that have no positive in training."""
    shape = (len(ids), len(model.findings))
    if targets.shape != shape or weights.shape != shape:
        raise TrainingError(
            f"targets {targets.shape} and weights {weights.shape} do not fit: expected {shape}, images by findings"
        )
    if not train.any() or not validation.any():
        raise TrainingError(
            f"{int(train.sum())} images to train on and {int(validation.sum())} to validate on: both need some; "
            "more patients are needed, or another split in params.yaml"
        )
    targets, weights = targets.astype(np.float32), weights.astype(np.float32)
    if not (np.isfinite(targets).all() and np.isfinite(weights).all() and targets.min() >= 0 and targets.max() <= 1):
        raise TrainingError("targets must lie in 0..1 and weights be finite: apply the uncertainty policy first")
    positive = np.any(((targets > 0) & (weights > 0))[train], axis=0)
    if not positive.any():
        raise TrainingError("no finding has a single positive image to train on: nothing can be learnt")
    untrained = tuple(finding for finding, there in zip(model.findings, positive, strict=True) if not there)
    if untrained:
        log.warning("no positive image to train on, left as the base has them: %s", ", ".join(untrained))
        weights = weights.copy()
        # only in the loss: validation keeps judging what the base can do
        weights[np.ix_(train, ~positive)] = 0.0
    return targets, weights, untrained


def validation_truth(model: ChestModel, targets: Floats, weights: Floats) -> NDArray[np.float64]:
    """What the validation images are judged by, [n, findings] of 1, 0 and NaN. Raises TrainingError."""
    truth = np.where(weights > 0, (targets >= 0.5).astype(np.float64), np.nan)
    judged = np.any(truth == 1, axis=0) & np.any(truth == 0, axis=0)
    if not judged.any():
        raise TrainingError("no finding is both present and absent among the validation images: no epoch can be chosen")
    if not judged.all():
        skipped = [finding for finding, ok in zip(model.findings, judged, strict=True) if not ok]
        log.warning("not both present and absent in validation, left out of its mean: %s", ", ".join(skipped))
    return truth


def finding_weights(findings: tuple[str, ...], settings: FinetuneSettings) -> Floats:
    """Each finding's weight in the loss, [findings]. Raises UnknownFinding."""
    unknown = [finding for finding in settings.finding_weights if finding not in findings]
    if unknown:
        raise UnknownFinding(unknown[0], findings)
    return np.array([settings.finding_weights.get(finding, 1.0) for finding in findings], np.float32)


def accelerator_of(device: str) -> str:
    """`cuda` or `cpu`. Raises TrainingError where CUDA was asked for and is not there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("CUDA was asked for and torch finds no such device: install a driver, or set device: auto")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def precision_of(asked: str, accelerator: str) -> str:
    """The precision that `auto` stands for on this machine."""
    if asked != "auto":
        return asked
    # emulated bf16 is several times slower than float32
    native = torch.cuda.is_bf16_supported() if accelerator == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if native else "32-true"


def optimizer_of(model: ChestModel, settings: FinetuneSettings) -> torch.optim.Optimizer:
    """AdamW; the learning rate falls from the head down to the first layer; biases and norms are not decayed."""
    layers = [layer for layer in model.trunk.children() if any(True for _ in layer.parameters())]
    groups: list[dict[str, Any]] = []
    for height, layer in enumerate([*layers, model.head]):
        peak = settings.learning_rate * settings.layer_decay ** (len(layers) - height)
        for decay, is_matrix in ((settings.weight_decay, True), (0.0, False)):
            parameters = [parameter for parameter in layer.parameters() if (parameter.ndim > 1) == is_matrix]
            if parameters:
                groups.append({"params": parameters, "weight_decay": decay, "peak": peak})
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


def set_learning_rate(optimizer: Any, factor: float) -> None:
    """Every group at this part of its own peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def only_head(model: ChestModel, only: bool) -> None:
    """Whether the trunk rests: no gradients, batch norms as they are."""
    model.trunk.requires_grad_(not only)
    if only:
        model.trunk.eval()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many CPU threads for torch inside the block (0: one a core that this process may use; workers share them)."""
    before = torch.get_num_threads()
    share = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(count or max(1, share))
    try:
        yield
    finally:
        torch.set_num_threads(before)
