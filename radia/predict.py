"""A model's probabilities and features for many images. Nothing here trains, reads files or chooses thresholds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from radia.model import Augmentation, ChestModel, to_input, view


@dataclass(frozen=True)
class Predictions:
    """probabilities: calibrated, [n, findings] in 0..1. features: pooled, [n, channels]. Rows are as the images are."""

    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]


def predict(
    model: ChestModel,
    images: NDArray[np.uint8] | Iterable[NDArray[np.uint8]],
    *,
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    fast: bool = False,
) -> Predictions:
    """Predictions for images uint8 [n, rows, columns], or for an iterable of such batches (which may differ in length).

    In float32: the same image has the same probability to about 1e-6 whatever stands beside it. `fast` computes in
    bfloat16 instead, good to about 1e-2: for watching a training, not for a result.
    """
    probabilities: list[NDArray[np.float32]] = []
    features: list[NDArray[np.float32]] = []
    model = model.to(device)
    precision = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=fast)
    with torch.inference_mode(), evaluating(model), precision:
        for batch in _batches(images, batch_size):
            logits, pooled = [], []
            for _, maps in looks(model, as_tensor(batch, device)):
                logits.append(model.judge(maps).float())
                pooled.append(maps.float().mean(dim=(2, 3)))
            probabilities.append(model.probabilities(torch.stack(logits).mean(0)).cpu().numpy())
            features.append(torch.stack(pooled).mean(0).cpu().numpy())
    if not probabilities:
        channels = model.head.in_features
        return Predictions(np.empty((0, len(model.findings)), np.float32), np.empty((0, channels), np.float32))
    return Predictions(np.concatenate(probabilities), np.concatenate(features))


def looks(model: ChestModel, pixels: Tensor) -> Iterator[tuple[Augmentation | None, Tensor]]:
    """Each of the model's views of uint8 images [n, rows, columns]: how they are moved in it, and maps of features."""
    for number in range(model.views):
        moved = view(number, len(pixels), pixels.device)
        yield moved, model.features(to_input(pixels, model.preprocessing, moved))


def use_threads(count: int) -> None:
    """So many CPU threads for every forward pass of this process from now on."""
    torch.set_num_threads(count)


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode inside the block; after it, every part in its former mode."""
    # only the parts that train: to switch all of them twice takes a tenth of a small model's forward pass
    training = [part for part in model.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def as_tensor(pixels: NDArray[Any] | Tensor, device: str | torch.device) -> Tensor:
    """An array on the device. A read-only memory map is copied, because torch cannot share one."""
    if isinstance(pixels, Tensor):
        return pixels.to(device)
    array: NDArray[Any] = np.ascontiguousarray(pixels)
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)


def _batches(images: NDArray[np.uint8] | Iterable[NDArray[np.uint8]], size: int) -> Iterator[NDArray[np.uint8]]:
    for chunk in [images] if isinstance(images, np.ndarray) else images:
        for start in range(0, len(chunk), size):
            yield chunk[start : start + size]
