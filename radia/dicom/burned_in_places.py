"""Places where lines of text may be: a small network over the strokes of each level says where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from radia.dicom.burned_in_boxes import Box
from radia.dicom.burned_in_convolutions import Convolution, Convolutions
from radia.dicom.burned_in_strokes import GRID, Ink, Level, features

_FEW = 2  # steps above the first: fewer are chance
_NOWHERE = -9.0  # where strokes are too few
_PIECE, _DENSE = (9, 3), 0.1  # steps of a piece of a line; the share of its pixels that are strokes
_SIGHT = 6  # steps: how far the network looks, nearly
_AROUND = 3  # steps: the detection network takes a piece without its surroundings for text
_STRONGEST = 4.0  # times the threshold: higher strokes look alike


@dataclass(frozen=True)
class Place:
    """A rectangle of one level where lines may be written, lying or standing."""

    level: Level
    box: Box
    standing: bool

    def picture(self) -> NDArray[np.uint8]:
        """As the networks see it: half gray, for the surroundings, half strokes, for what gray hardly shows.

        Standing lines are laid down.
        """
        inside = np.s_[self.box.y0 : self.box.y1, self.box.x0 : self.box.x1]
        lighter, darker = self.level.inks
        strokes = lighter.height[inside].astype(np.float32) - darker.height[inside]
        strokes /= np.maximum(np.minimum(lighter.threshold[inside], darker.threshold[inside]), 1e-6) * _STRONGEST
        shown = (self._gray() - np.float32(0.5)) / 2 + np.clip(strokes, -1, 1) / 4
        return self._laid_down(shown + np.float32(0.5))

    def plain(self) -> NDArray[np.uint8]:
        """Its gray alone."""
        return self._laid_down(self._gray())

    def _gray(self) -> NDArray[np.float32]:
        crop = self.level.gray[self.box.y0 : self.box.y1, self.box.x0 : self.box.x1].astype(np.float32)
        low, high = (float(edge) for edge in np.percentile(crop, (1, 99)))
        shown: NDArray[np.float32] = np.clip((crop - np.float32(low)) / np.float32(max(high - low, 1e-6)), 0, 1)
        return shown

    def _laid_down(self, shown: NDArray[np.float32]) -> NDArray[np.uint8]:
        picture = np.clip(shown * 255, 0, 255).astype(np.uint8)
        return np.ascontiguousarray(np.rot90(picture) if self.standing else picture)

    def ink(self) -> Ink:
        """The ink that covers more of it."""
        inside = np.s_[self.box.y0 : self.box.y1, self.box.x0 : self.box.x1]
        sums = [float(ink.height[inside][ink.strong[inside] > 0].sum()) for ink in self.level.inks]
        return self.level.inks[0 if sums[0] >= sums[1] else 1]


@dataclass(frozen=True)
class Least:
    """Log odds: a line has steps of the one, and goes on as far as the other."""

    seed: float = 0.5
    likely: float = -1.5


@dataclass(frozen=True)
class Heat:
    """Log odds of text that lies, or that stands, in steps of a level."""

    level: Level
    standing: bool
    odds: NDArray[np.float32]
    likely: NDArray[np.bool_]
    """Steps of lines: those above the lower bound that hang together with enough above the higher one."""

    @classmethod
    def of(cls, level: Level, seen: NDArray[np.float32], dense: list[Box], least: Least, *, standing: bool) -> Heat:
        """From the features of a level, where strokes are dense."""
        import cv2

        odds = np.full(seen.shape[1:], _NOWHERE, np.float32)
        for box in dense:
            piece = seen[:, box.y0 : box.y1, box.x0 : box.x1]
            inside = odds[box.y0 : box.y1, box.x0 : box.x1]
            np.maximum(inside, heat(turned(piece)).T if standing else heat(piece), out=inside)
        count, labels = cv2.connectedComponents((odds > least.likely).astype(np.uint8), connectivity=8)
        seeds = np.bincount(labels[odds > least.seed], minlength=count)
        large = seeds >= _FEW
        large[0] = False
        return cls(level, standing, odds, np.asarray(large[labels], np.bool_))

    def places(self) -> Iterator[Place]:
        """Rectangles around all that is likely."""
        import cv2

        around = np.ones((2 * _AROUND + 1, 2 * _AROUND + 1), np.uint8)
        wide = np.asarray(cv2.dilate(self.likely.astype(np.uint8), around), np.uint8)
        for box in _boxes(wide, *self.level.gray.shape):
            yield Place(self.level, box, self.standing)


def heats(levels: list[Level], least: Least) -> list[Heat]:
    """Of each level, of text that lies and that stands."""
    found = []
    for level in levels:
        seen = features(level)
        dense = _dense(seen)
        found += [Heat.of(level, seen, dense, least, standing=standing) for standing in (False, True)]
    return found


def _dense(seen: NDArray[np.float32]) -> list[Box]:
    """Rectangles of steps outside of which strokes are too few for a line, with what the network sees around them."""
    import cv2

    share = np.maximum(seen[0], seen[7])
    most = np.maximum(cv2.blur(share, _PIECE), cv2.blur(share, _PIECE[::-1]))
    wide = cv2.dilate((most >= _DENSE).astype(np.uint8), np.ones((2 * _SIGHT + 1, 2 * _SIGHT + 1), np.uint8))
    return list(_boxes(np.asarray(wide, np.uint8), *wide.shape, step=1))


def _boxes(wide: NDArray[np.uint8], rows: int, cols: int, *, step: int = GRID) -> Iterator[Box]:
    """Rectangles of pixels that cover the steps that are not 0."""
    import cv2

    count, labels, sizes, _ = cv2.connectedComponentsWithStats(wide, connectivity=4)
    for index in range(1, count):
        x, y, across, down, _ = (int(number) for number in sizes[index])
        part = labels[y : y + down, x : x + across] == index
        for x0, y0, x1, y1 in _split(part, x, y):
            yield Box(x0 * step, y0 * step, min(x1 * step, cols), min(y1 * step, rows))


def _split(cells: NDArray[np.bool_], x: int, y: int) -> Iterator[tuple[int, int, int, int]]:
    """Rectangles of cells that cover the true ones and not many others: cut where the cut crosses the fewest."""
    used_rows, used_cols = np.flatnonzero(cells.any(axis=1)), np.flatnonzero(cells.any(axis=0))
    if not len(used_rows):
        return
    y0, y1, x0, x1 = used_rows[0], used_rows[-1] + 1, used_cols[0], used_cols[-1] + 1
    part = cells[y0:y1, x0:x1]
    if part.mean() > 0.5 or part.size <= 600:
        yield x + int(x0), y + int(y0), x + int(x1), y + int(y1)
        return
    upright = part.shape[0] >= part.shape[1]
    crossed = part.sum(axis=1 if upright else 0).astype(float)
    length = len(crossed)
    cuts = crossed[:-1] + crossed[1:] + np.abs(np.arange(1, length) - length / 2) / length
    at = int(np.argmin(cuts)) + 1
    first, second = (part[:at], part[at:]) if upright else (part[:, :at], part[:, at:])
    yield from _split(first, x + int(x0), y + int(y0))
    yield from _split(second, x + int(x0) + (0 if upright else at), y + int(y0) + (at if upright else 0))


def turned(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features as of the image with rows and columns exchanged."""
    order = [0, 2, 1, 3, 4, 5, 6, 7, 9, 8, 10, 11, 12, 13]
    return np.ascontiguousarray(features.transpose(0, 2, 1)[order])


def heat(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """How likely each step [rows, cols] of a grid belongs to a line of text that lies: log odds."""
    answer: NDArray[np.float32] = _writing()(features)[0]
    return answer


@cache
def _writing() -> Convolutions:
    mix, mix_bias, near, near_bias, far, far_bias, last, last_bias = _weights()
    return Convolutions(
        [Convolution(mix, mix_bias), Convolution(near, near_bias), Convolution(far, far_bias, step=2),
         Convolution(last, last_bias)]
    )  # fmt: skip


@cache
def _weights() -> tuple[NDArray[np.float32], ...]:
    """What benchmarks/burned_in_train.py learned: one tensor a line, its shape and its values."""
    tensors = []
    for line in (files("radia.dicom") / "rules" / "writing.csv").read_text(encoding="ascii").splitlines():
        shape, *values = line.split(",")
        tensors.append(np.array(values, np.float32).reshape([int(size) for size in shape.split("x")]))
    return tuple(tensors)
