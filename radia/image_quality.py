"""Measures of pixels: is an image blank, inverted, turned, cropped, a lateral view, or another one over again?

They look at the uint8 images of the shards, [n, side, side], a block at a time. Blank is a question of structure and
near-duplicates one of likeness; the others are answered by straight lines through a picture of 16 x 16 cells, whose
coefficients (image_quality.json) were found on drawn radiographs of nobody alone (radia/synthetic/defects.py). What
does not belong here: which of it blocks (quality_rules.yaml), whether a file is a chest radiograph (frontal.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby, product
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SIDES = ("top", "bottom", "left", "right")
DEFECTS = ("blank", "inverted", "turned", "cropped", "lateral")
COEFFICIENTS = Path(__file__).with_name("image_quality.json")

LEAST_STRUCTURE = 0.02
"""Standard deviation of gray (0..1) at 24 x 24, without a plane: an exposed chest has five times as much and more."""
MOST_HASH_BITS, LEAST_LIKENESS = 12, 0.94
"""Two images are one picture where so few of 64 bits differ and their details correlate so much."""

_BLOCK = 256
_GRID, _FINE = 16, 48


@dataclass(frozen=True)
class Coefficients:
    """Straight lines through the features of an image, [512] each, and where they cross zero.

    upright: higher for the right one of the 8 ways to turn and invert an image. edges [4, 512]: above 0 where the
    side in SIDES is cut off. lateral: above 0 for a lateral view.
    """

    upright: NDArray[np.float32]
    edges: NDArray[np.float32]
    edges_offset: NDArray[np.float32]
    lateral: NDArray[np.float32]
    lateral_offset: float


def measure(images: NDArray[np.uint8]) -> pd.DataFrame:
    """One row an image: measures, and a column of 0 and 1 for each of DEFECTS.

    images: [n, side, side], bone white, side >= 96. structure: 0..1. noise: standard deviation of the finest detail,
    0..1. upright: how much better it fits as it is than turned or inverted in any way (below 0: it does not). turn:
    degrees counter-clockwise that would put it right. cut_top … cut_right, side_view: above 0 where it is so, of the
    image put right.
    """
    blocks = [_measure_block(images[start : start + _BLOCK]) for start in range(0, len(images), _BLOCK)]
    return pd.concat(blocks, ignore_index=True) if blocks else _measure_block(np.zeros((0, 96, 96), np.uint8))


def survey(
    read: Callable[[Sequence[str]], NDArray[np.uint8]],
    manifest: pd.DataFrame,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """The table `pictures` of the rules of data quality: image, batch, what `measure` gives, and same_picture.

    read: ImageStore.read. manifest: columns image, batch, perceptual_hash. same_picture: how many other images are the
    same picture, of whatever patient.
    """
    ids = manifest["image"].to_list()
    parts = []
    for start in range(0, len(ids), _BLOCK):
        parts.append(measure(read(ids[start : start + _BLOCK])))
        if progress:
            progress(min(start + _BLOCK, len(ids)), len(ids))
    table = pd.concat(parts, ignore_index=True) if parts else measure(np.zeros((0, 96, 96), np.uint8))
    table.insert(0, "image", ids)
    table.insert(1, "batch", manifest["batch"].to_list())
    pairs = near_duplicates(lambda place: read([ids[place]])[0], manifest["perceptual_hash"].to_list())
    places = [place for pair in pairs for place in (pair.first, pair.second)]
    table["same_picture"] = np.bincount(np.array(places, dtype=np.int64), minlength=len(ids)).astype(np.int64)
    return table


def _measure_block(images: NDArray[np.uint8]) -> pd.DataFrame:
    lines = coefficients()
    ways = orientations(features(images))
    fits = ways @ lines.upright
    best = fits.argmax(axis=1)
    righted = ways[np.arange(len(ways)), best]
    cuts = righted @ lines.edges.T + lines.edges_offset
    side_view = righted @ lines.lateral + lines.lateral_offset
    table = pd.DataFrame({"structure": structure(images), "noise": noise(images)})
    table["upright"] = fits[:, 0] - fits[:, 1:].max(axis=1, initial=-np.inf)
    table["turn"] = 90 * (best % 4)
    for column, side in enumerate(SIDES):
        table[f"cut_{side}"] = cuts[:, column]
    table["side_view"] = side_view
    seen = table["structure"] >= LEAST_STRUCTURE
    table["blank"] = ~seen
    table["inverted"] = seen & (best >= 4)
    table["turned"] = seen & (best % 4 > 0)
    table["cropped"] = seen & (cuts > 0).any(axis=1)
    table["lateral"] = seen & (side_view > 0)
    return table.astype(dict.fromkeys(DEFECTS, np.int8))


@cache
def coefficients() -> Coefficients:
    """The lines that stand in image_quality.json."""
    content = json.loads(COEFFICIENTS.read_text(encoding="utf-8"))
    return Coefficients(
        upright=np.array(content["upright"], np.float32),
        edges=np.array([content["edges"][side]["line"] for side in SIDES], np.float32),
        edges_offset=np.array([content["edges"][side]["offset"] for side in SIDES], np.float32),
        lateral=np.array(content["lateral"]["line"], np.float32),
        lateral_offset=float(content["lateral"]["offset"]),
    )


# --- measures -------------------------------------------------------------------------------------------------------


def structure(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What is left of an image at 24 x 24 when a plane is taken away: standard deviation of gray, 0..1. [n]."""
    small = _reduced(images, 24).reshape(len(images), 24**2).astype(np.float64)
    y, x = np.mgrid[-1:1:24j, -1:1:24j].reshape(2, -1)
    plane, _ = np.linalg.qr(np.stack([np.ones_like(x), x, y], axis=1))
    rest = small - (small @ plane) @ plane.T
    return np.asarray(rest.std(axis=1) / 255)


def noise(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Standard deviation of noise, 0..1, from the mean absolute Laplacian of each image [n].

    Source: Immerkaer, Fast noise variance estimation, CVIU 64 (1996).
    """
    found = np.empty(len(images))
    for place, image in enumerate(images):
        gray = image.astype(np.int32)
        across = gray[:, 2:] - 2 * gray[:, 1:-1] + gray[:, :-2]
        both = across[2:] - 2 * across[1:-1] + across[:-2]
        found[place] = np.abs(both).mean() * np.sqrt(np.pi / 2) / 6 / 255
    return found


def features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the lines look at: [n, 2, 16, 16] in -0.5..0.5.

    Ranks of gray within the uniform border that collimators and letterboxes leave, so that exposure and window do not
    matter: of the image, and of the image without what changes over a third of it and more.
    """
    from scipy.ndimage import gaussian_filter

    inside = _without_border(_reduced(images, 2 * _FINE))
    local = inside - gaussian_filter(inside, (0, _FINE / 6, _FINE / 6), mode="nearest")
    step = _FINE // _GRID
    both = np.stack([_ranks(inside), _ranks(local)], axis=1) - 0.5
    return np.asarray(both.reshape(len(images), 2, _GRID, step, _GRID, step).mean((3, 5)), dtype=np.float32)


def orientations(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """The features of an image turned by 0, 90, 180, 270 degrees, then the same inverted: [n, 8, 512].

    Ranks of an inverted image are the negative of its ranks.
    """
    ways = [sign * np.rot90(cells, turns, axes=(2, 3)) for sign, turns in product((1, -1), range(4))]
    return np.stack([way.reshape(len(cells), 2 * _GRID**2) for way in ways], axis=1)


def _reduced(images: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Means over blocks: [n, side, side]. A side that does not divide is brought there by a box filter."""
    count, rows = images.shape[0], images.shape[1]
    if rows % side == 0:
        step = rows // side
        sums = np.add.reduceat(images, np.arange(0, rows, step), axis=2, dtype=np.uint32) if step > 1 else images
        sums = np.add.reduceat(sums, np.arange(0, rows, step), axis=1, dtype=np.uint32) if step > 1 else sums
        return np.asarray(sums / np.float32(step**2), dtype=np.float32).reshape(count, side, side)
    from PIL import Image

    box = Image.Resampling.BOX
    small = [np.asarray(Image.fromarray(image).convert("F").resize((side, side), box)) for image in images]
    return np.array(small, dtype=np.float32).reshape(count, side, side)


def _without_border(small: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each image from its first to its last row and column that is not uniform, stretched to 48 x 48."""
    from PIL import Image

    rows, columns = small.std(axis=2) > 4, small.std(axis=1) > 4
    inside = np.empty((len(small), _FINE, _FINE), dtype=np.float32)
    for place, image in enumerate(small):
        part = np.ascontiguousarray(image[_span(rows[place])][:, _span(columns[place])])
        inside[place] = np.asarray(Image.fromarray(part).resize((_FINE, _FINE), Image.Resampling.BOX))
    return inside


def _span(uneven: NDArray[np.bool_]) -> slice:
    """From the first to the last; all where little would be left."""
    found = np.flatnonzero(uneven)
    if len(found) < len(uneven) // 4:
        return slice(None)
    return slice(int(found[0]), int(found[-1]) + 1)


def _ranks(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each pixel's rank within its image in 0..1; pixels equal to a thousandth of the range share theirs."""
    flat = images.reshape(len(images), images.shape[1] * images.shape[2])
    low, high = flat.min(axis=1, keepdims=True, initial=np.inf), flat.max(axis=1, keepdims=True, initial=-np.inf)
    levels = ((flat - low) / np.maximum(high - low, 1e-6) * 1023).astype(np.int64)
    own = levels + 1024 * np.arange(len(images))[:, None]
    counts = np.bincount(own.ravel(), minlength=1024 * len(images)).reshape(len(images), 1024)
    middle = np.cumsum(counts, axis=1) - counts / 2
    ranks = np.take_along_axis(middle, levels, axis=1) / flat.shape[1]
    return np.asarray(ranks.reshape(images.shape), dtype=np.float32)


# --- near-duplicates ------------------------------------------------------------------------------------------------


_REACH, _INNER = 3, slice(8, 2 * _FINE - 8)
"""How many cells a tile may lie aside, and the part of the details that is cut into tiles."""


@dataclass(frozen=True)
class Likeness:
    """Two images, by their places, that are one picture: how many of 64 bits differ, how their details correlate."""

    first: int
    second: int
    bits: int
    correlation: float


def near_duplicates(read: Callable[[int], NDArray[np.uint8]], hashes: Sequence[str]) -> list[Likeness]:
    """Pairs that are one picture, whatever was done to its exposure, size, compression, noise or a little of its place.

    read: the image [side, side] at a place; hashes: the manifest's perceptual_hash of each (16 hex digits). Two images
    of one patient are not a pair unless they are one picture. Costs n * n / 2 comparisons of 64 bits.
    """
    found = []
    details: dict[int, NDArray[np.float64]] = {}
    still: dict[int, NDArray[np.float64]] = {}

    def detail(place: int) -> NDArray[np.float64]:
        if place not in details:
            details[place] = _details(read(place))
        return details[place]

    for first, pairs in groupby(_close_pairs(hashes), key=lambda pair: pair[0]):
        moved = _moved_tiles(detail(first))
        for _, second, bits in pairs:
            if second not in still:
                still[second] = _tiles(detail(second)[_INNER, _INNER])
            correlation = _likeness(moved, still[second])
            if correlation >= LEAST_LIKENESS:
                found.append(Likeness(first, second, bits, round(correlation, 4)))
    return found


def _close_pairs(hashes: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    numbers = np.array([int(text, 16) for text in hashes], dtype=np.uint64)
    for first in range(len(numbers) - 1):
        bits = np.bitwise_count(numbers[first + 1 :] ^ numbers[first])
        for offset in np.flatnonzero(bits <= MOST_HASH_BITS):
            yield first, first + 1 + int(offset), int(bits[offset])


def _details(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """96 x 96 of an image's edges and textures, of the same strength everywhere."""
    from scipy.ndimage import gaussian_filter

    small = _reduced(image[None], 2 * _FINE)[0].astype(np.float64)
    detail = gaussian_filter(small, 1) - gaussian_filter(small, 4)
    return np.asarray(detail / np.sqrt(gaussian_filter(detail**2, 8) + 4))


def _moved_tiles(detail: NDArray[np.float64]) -> NDArray[np.float64]:
    """The tiles of an image moved by up to three cells either way: [49, 16, cells]."""
    shifts = product(range(-_REACH, _REACH + 1), repeat=2)
    low, high = _INNER.start, _INNER.stop
    return np.stack([_tiles(detail[low + y : high + y, low + x : high + x]) for y, x in shifts])


def _likeness(moved: NDArray[np.float64], still: NDArray[np.float64]) -> float:
    """The mean over 4 x 4 tiles of their best correlation, where each may lie up to three cells aside."""
    return float(np.einsum("stc,tc->st", moved, still).max(axis=0).mean())


def _tiles(detail: NDArray[np.float64]) -> NDArray[np.float64]:
    """4 x 4 tiles as rows of mean 0 and length 1."""
    step = len(detail) // 4
    rows = detail.reshape(4, step, 4, step).swapaxes(1, 2).reshape(16, -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-9))
