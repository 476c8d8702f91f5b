"""Strokes in an image: what is thinner than a pen and stands out from its surroundings, at several scales.

A top-hat of the stored values in full depth, so that text which a window hides counts and a filled box around text
does not matter. What belongs here: levels, inks, and their means in steps of a few pixels. What does not: where lines
of text are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PEN = 7  # pixels: strokes are thinner, at one scale or another
_SCALES = (1, 2, 4, 8)
_SMALLEST = 180  # pixels: a side below which an image is not halved again
_NOISE, _TEXTURE = 3.0, 2.3  # times the usual stroke of noise, and of the surroundings: more is a stroke
_ENOUGH, _CLEAR = 0.035, 8.0  # of the range of the image, or times the noise: always more than enough
CELL, _CELLS = 16, (5, 11)  # pixels; cells in a row: the lower of their medians is the usual stroke around
GRID = 4  # pixels: the step in which places are looked for


def _morphable(stored: NDArray[Any]) -> NDArray[Any]:
    """Values as OpenCV's morphology takes them: unsigned 8 or 16 bits where that loses nothing, else float32."""
    if stored.dtype in (np.uint8, np.uint16):
        return stored
    low = stored.min()
    if stored.dtype.kind in "iu" and int(stored.max()) - int(low) < 65536:
        return (stored.astype(np.int64) - int(low)).astype(np.uint16)
    return stored.astype(np.float32)


@dataclass(frozen=True)
class Ink:
    """Strokes lighter, or strokes darker, than what they are written on."""

    height: NDArray[Any]  # by how much
    threshold: NDArray[np.float32]
    strong: NDArray[np.uint8]  # 255 where that is more than the noise and the anatomy around


@dataclass(frozen=True)
class Level:
    """The image at one scale: strokes of larger letters are thin in a smaller image."""

    scale: int
    gray: NDArray[Any]
    inks: tuple[Ink, Ink]


def value_range(stored: NDArray[Any]) -> float:
    """From the first to the last percentile of the stored values."""
    low, high = np.percentile(stored[::4, ::4], (1, 99))
    return float(high - low)


def levels(stored: NDArray[Any], extent: float) -> list[Level]:
    """An image of stored values [rows, cols], and as often halved as it is large enough for, with their strokes.

    `extent`: of the values of the whole image, where this is a part.
    """
    import cv2

    gray = _morphable(stored)
    made = []
    rows, cols = gray.shape
    for scale in _SCALES:
        if scale > 1:
            if min(rows, cols) // scale < _SMALLEST:
                break
            gray = np.asarray(cv2.resize(gray, (cols // scale, rows // scale), interpolation=cv2.INTER_AREA))
        made.append(Level(scale, gray, _inks(gray, extent)))
    return made


def _inks(gray: NDArray[Any], extent: float) -> tuple[Ink, Ink]:
    """What a pen covers: top-hats of a slightly smoothed image, and where they stand out.

    Of noise, either top-hat has its share at every pixel; of writing, only one of them: their minimum is the noise.
    """
    import cv2

    pen = np.ones((_PEN, _PEN), np.uint8)
    smooth = cv2.GaussianBlur(gray, (3, 3), 0.6)
    lighter = cv2.subtract(smooth, cv2.morphologyEx(smooth, cv2.MORPH_OPEN, pen))
    darker = cv2.subtract(cv2.morphologyEx(smooth, cv2.MORPH_CLOSE, pen), smooth)
    noise = cv2.blur(_by_cells(cv2.min(lighter, darker)), (3, 3))
    step = 1.5 if gray.dtype.kind == "u" else 0.0
    floor = np.maximum(np.minimum(_ENOUGH * extent, _CLEAR * noise), np.maximum(_NOISE * noise, step))
    return _ink(np.asarray(lighter), floor), _ink(np.asarray(darker), floor)


def _ink(height: NDArray[Any], floor: NDArray[np.float32]) -> Ink:
    import cv2

    cells = _by_cells(height)
    usual = np.minimum(*(_median(cells, across) for across in _CELLS))
    least = np.maximum(floor, _TEXTURE * usual).astype(np.float32)
    threshold = np.asarray(cv2.resize(least, height.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
    if height.dtype.kind == "u":
        limit = np.minimum(np.ceil(threshold), np.iinfo(height.dtype).max).astype(height.dtype)
    else:
        limit = np.maximum(threshold, np.finfo(np.float32).tiny)
    return Ink(height, threshold, np.asarray(cv2.compare(height, limit, cv2.CMP_GE), np.uint8))


def _by_cells(values: NDArray[Any]) -> NDArray[np.float32]:
    import cv2

    rows, cols = (max(side // CELL, 1) for side in values.shape)
    return np.asarray(cv2.resize(values.astype(np.float32), (cols, rows), interpolation=cv2.INTER_AREA), np.float32)


def _median(cells: NDArray[np.float32], across: int) -> NDArray[np.float32]:
    """The median of the cells around each, to the twelfth of an octave."""
    import cv2

    unit = max(float(cells.max()) / 2**20, 1e-6)
    octaves = np.clip(np.log2(cells / unit + 1) * 12, 0, 255).astype(np.uint8)
    edge = across // 2
    framed = cv2.copyMakeBorder(octaves, edge, edge, edge, edge, cv2.BORDER_REFLECT)
    middle = np.asarray(cv2.medianBlur(framed, across))[edge:-edge, edge:-edge]
    return ((np.exp2(middle.astype(np.float32) / 12) - 1) * unit).astype(np.float32)


def features(level: Level) -> NDArray[np.float32]:
    """What tells writing from anatomy, in steps of a few pixels: [14, rows, cols], seven of each ink.

    Of strokes: the share of pixels, those at which one begins from left to right and from above, and at which one is
    highest; how high they are there over the threshold (log2), and how unequal; what lies below the threshold too.
    """
    return np.concatenate([_features(ink) for ink in level.inks])


def _features(ink: Ink) -> NDArray[np.float32]:
    import cv2

    lying, standing = ink.strong.copy(), ink.strong.copy()
    lying[:, 1:] &= ~ink.strong[:, :-1]
    standing[1:] &= ~ink.strong[:-1]
    around = cv2.dilate(ink.height, np.ones((3, 3), np.uint8))
    tops = cv2.bitwise_and(cv2.compare(ink.height, around, cv2.CMP_GE), ink.strong)
    height = cv2.copyTo(ink.height, tops).astype(np.float32)
    dense, begun, begun_above, count = (
        _by_grid(mask) / np.float32(255) for mask in (ink.strong, lying, standing, tops)
    )
    threshold = np.asarray(cv2.resize(ink.threshold, dense.shape[::-1], interpolation=cv2.INTER_NEAREST), np.float32)
    mean = _by_grid(height) / np.maximum(count, np.float32(1e-6))
    spread = np.sqrt(np.maximum(_by_grid(height * height) / np.maximum(count, np.float32(1e-6)) - mean * mean, 0))
    lift = _by_grid(ink.height) / np.maximum(threshold, np.float32(1e-6))
    stands_out = np.log2(1 + np.minimum(mean / np.maximum(threshold, np.float32(1e-6)), 100))
    uneven = spread / np.maximum(mean, np.float32(1e-6))
    return np.stack(
        [dense, begun * 4, begun_above * 4, count * 4, stands_out / 2, uneven * 2, np.minimum(lift, 4)]
    ).astype(np.float32)


def _by_grid(values: NDArray[Any]) -> NDArray[np.float32]:
    import cv2

    rows, cols = (max(side // GRID, 1) for side in values.shape)
    return np.asarray(cv2.resize(values, (cols, rows), interpolation=cv2.INTER_AREA), np.float32)
