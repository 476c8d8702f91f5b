"""Smooth fields on a pixel grid, made so that the same anatomy comes out at any side.

A field is float32 [side, side]. Everything is elementwise or a sparse product: no threads, the same bits on every run.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Field = NDArray[np.floating[Any]]
"""float32, [side, side] or a shape that broadcasts to it."""


@lru_cache(maxsize=64)
def spreading(coarse: int, side: int) -> sparse.csr_matrix:
    """Cubic B-spline weights [side, coarse] from a coarse grid's nodes to the centres of `side` pixels."""
    at = (np.arange(side) + 0.5) / side * coarse - 0.5
    node = np.floor(at).astype(int)
    t = at - node
    weights = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    rows = np.tile(np.arange(side), 4)
    columns = np.clip(np.concatenate([node + offset for offset in (-1, 0, 1, 2)]), 0, coarse - 1)
    return sparse.csr_matrix((np.concatenate(weights).astype(np.float32), (rows, columns)), shape=(side, coarse))


@lru_cache(maxsize=16)
def interpolating(coarse: int, side: int) -> sparse.csr_matrix:
    """Catmull-Rom weights [side, coarse]: sharper than `spreading`, and through the coarse grid's own values."""
    at = (np.arange(side) + 0.5) / side * coarse - 0.5
    node = np.floor(at).astype(int)
    t = at - node
    weights = (
        (-(t**3) + 2 * t**2 - t) / 2,
        (3 * t**3 - 5 * t**2 + 2) / 2,
        (-3 * t**3 + 4 * t**2 + t) / 2,
        (t**3 - t**2) / 2,
    )
    rows = np.tile(np.arange(side), 4)
    columns = np.clip(np.concatenate([node + offset for offset in (-1, 0, 1, 2)]), 0, coarse - 1)
    return sparse.csr_matrix((np.concatenate(weights).astype(np.float32), (rows, columns)), shape=(side, coarse))


@lru_cache(maxsize=64)
def averaging(fine: int, side: int) -> sparse.csr_matrix:
    """Area weights [side, fine]: each of `side` pixels is the mean of the fine pixels that it covers."""
    edges = np.linspace(0, fine, side + 1)
    low, high = edges[:-1, None], edges[1:, None]
    cells = np.arange(fine)[None, :]
    overlap = np.clip(np.minimum(high, cells + 1) - np.maximum(low, cells), 0, None)
    return sparse.csr_matrix((overlap / (fine / side)).astype(np.float32))


def resample(weights: sparse.csr_matrix, field: Field) -> Field:
    """The separable product weights · field · weightsᵀ."""
    once = weights @ field
    return np.ascontiguousarray((weights @ np.ascontiguousarray(once.T)).T)


def spread(coarse: Field, side: int) -> Field:
    """A square coarse grid drawn smoothly on `side` pixels."""
    return resample(spreading(coarse.shape[0], side), coarse)


def shrink(field: Field, side: int) -> Field:
    """A square field averaged down to `side` pixels."""
    return resample(averaging(field.shape[0], side), field)


def blur(field: Field, radius: float) -> Field:
    """A wide blur of about `radius` (fraction of the side), through a coarse grid."""
    side = field.shape[0]
    coarse = int(np.clip(round(0.8 / radius), 4, side))
    return spread(shrink(field, coarse), side)


def clouds(rng: np.random.Generator, side: int, *, scale: float, octaves: int = 1, roughness: float = 0.6) -> Field:
    """Smooth noise of about zero mean and unit spread; `scale`: size of the largest cloud, fraction of the side."""
    total = np.zeros((side, side), np.float32)
    weight, power = 1.0, 0.0
    for octave in range(octaves):
        coarse = max(4, round(2**octave / scale))
        nodes = rng.standard_normal((coarse, coarse), dtype=np.float32)
        if (
            coarse < side * 1.5
        ):  # finer clouds than pixels cannot be seen, but are drawn from the generator all the same
            total += weight * spread(nodes, side)
        power += weight**2
        weight *= roughness
    drawn: Field = total * (1.6 / power**0.5)
    return drawn


def step(distance: Field, width: float) -> Field:
    """A smooth step: 0 below -width / 2, 1 above width / 2."""
    t = np.clip(distance * (1 / width) + 0.5, 0, 1)
    risen: Field = t * t * (3 - 2 * t)
    return risen


def dome(squared: Field) -> Field:
    """Depth of a ball, (1 - q)^(1/2) inside q < 1, zero outside."""
    return np.sqrt(np.maximum(1 - squared, 0))


def slab(squared: Field) -> Field:
    """Depth of a body with flatter front and steeper sides than a ball's: (1 - q)^(3/8)."""
    root = np.sqrt(dome(squared))
    return root * np.sqrt(root)


def mound(squared: Field) -> Field:
    """Depth of a body without an edge: 1 - q inside q < 1."""
    return np.maximum(1 - squared, 0)


def deposit(x: NDArray[np.float64], y: NDArray[np.float64], mass: NDArray[np.float64], nodes: int) -> Field:
    """Masses at points (fractions of the side) gathered on a grid of nodes², per cell's area."""
    at_x, at_y = x * nodes - 0.5, y * nodes - 0.5
    column, row = np.floor(at_x).astype(np.int64), np.floor(at_y).astype(np.int64)
    u, v = at_x - column, at_y - row
    inside = (column >= 0) & (row >= 0) & (column < nodes - 1) & (row < nodes - 1)
    column, row, u, v, mass = column[inside], row[inside], u[inside], v[inside], mass[inside]
    corner = row * nodes + column
    total = np.zeros(nodes * nodes)
    for step_, weight in ((0, (1 - u) * (1 - v)), (1, u * (1 - v)), (nodes, (1 - u) * v), (nodes + 1, u * v)):
        total += np.bincount(corner + step_, weights=weight * mass, minlength=nodes * nodes)[: nodes * nodes]
    return (total * nodes**2).reshape(nodes, nodes).astype(np.float32)


def tube(distance: Field, hollow: float = 0.0) -> Field:
    """Depth along the ray through a tube of radius 1 whose axis is `distance` away; `hollow`: radius of its marrow."""
    squared = distance * distance
    depth = dome(squared)
    if hollow:
        depth = depth - (0.8 * hollow) * dome(squared * (1 / hollow**2))
    return depth
