"""What depends on (seed, epoch, step) alone, so that a killed run goes on as if nothing had been."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from radia.model import Augmentation

Rows = NDArray[np.intp]

ROTATION_DEGREES, SCALE, SHIFT = 7.0, 0.08, 0.04
GAMMA, GAIN, OFFSET = 0.2, 0.15, 0.08
"""Half widths of the uniform draws of the augmentation. No flip: the heart's side means something."""


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Part of the peak learning rate at a step: a straight rise over the warm-up, then half a cosine down to 0."""
    rising = max(1, round(warmup * total))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step + 1 - rising) / (total - rising + 1)))


def draw_augmentation(n: int, seed: int, epoch: int, step: int) -> Augmentation:
    """Rotation, scale, shift, gamma, gain and offset for n images."""
    rng = np.random.default_rng([2, seed, epoch, step])
    angle, scale, x, y, gamma, gain, offset = rng.uniform(-1, 1, size=(7, n)).astype(np.float32)
    angle, scale = math.radians(ROTATION_DEGREES) * angle, 1 + SCALE * scale
    cosine, sine = np.cos(angle) / scale, np.sin(angle) / scale
    affine = np.stack([np.stack([cosine, -sine, 2 * SHIFT * x], -1), np.stack([sine, cosine, 2 * SHIFT * y], -1)], 1)
    tone = (np.exp(GAMMA * gamma), 1 + GAIN * gain, OFFSET * offset)
    return Augmentation(*(torch.from_numpy(value) for value in (affine, *tone)))


def epoch_batches(
    rows: Rows, size: int, seed: int, epoch: int, chances: NDArray[np.float64] | None = None
) -> list[Rows]:
    """A new order each epoch, or as many draws. The last batch is filled up from the start: all have the same shape."""
    rng = np.random.default_rng([1, seed, epoch])
    drawn = None if chances is None else rng.choice(rows, size=len(rows), p=chances / chances.sum())
    order = rng.permutation(rows) if drawn is None else drawn
    padded = np.concatenate([order, order[: -len(order) % size]])
    return list(padded.reshape(-1, size))


def torch_seed(seed: int, epoch: int) -> int:
    """For backbones that drop parts of themselves at random."""
    return int(np.random.default_rng([3, seed, epoch]).integers(2**63))


def balanced(
    patients: Sequence[str] | NDArray[Any], sites: Sequence[str] | NDArray[Any], among: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """How often to draw each image so that every site counts the same, and within it every patient.

    among: the images that are drawn from, [n]; the others are never drawn, and how many of them a site has plays no
    part.
    """
    inside = np.ones(len(patients), bool) if among is None else among
    _, patient = np.unique(np.asarray(patients)[inside], return_inverse=True)
    _, site = np.unique(np.asarray(sites)[inside], return_inverse=True)
    couples, couple = np.unique(np.stack([site, patient]), axis=1, return_inverse=True)
    couple = couple.reshape(-1)
    chances = 1 / np.bincount(couple)[couple] / np.bincount(couples[0])[site]
    result = np.zeros(len(inside))
    result[inside] = chances / chances.mean()
    return result
