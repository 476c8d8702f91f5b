"""Text burned into pixels: where it is, whether it can be read, and taking it out.

Four steps. Strokes: what is thinner than a pen stands out from its surroundings in a top-hat of the stored values, in
full depth and at several scales, so that text which a window hides counts and a filled box around text does not
matter. Places: only where strokes are dense, begin again and again along a line, and stand out or are all of one
height can a line be; the rest is not looked at again. Lines: RapidOCR's detection network, from its wheel, on a mosaic
of these places. Reading: its recognition network says whether two characters or more are legible; anatomy is not, and
of side markers and the words of positioning nobody can be known. What does not belong here: files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radia.dicom.text import plain
from radia.errors import Reason, Refusal

_PEN = 7  # pixels: strokes are thinner, at one scale or another
_SCALES = (1, 2, 4, 8)
_SMALLEST = 180  # pixels: a side below which an image is not halved again
_NOISE, _TEXTURE = 3.0, 2.3  # times the usual stroke of noise, and of the surroundings: more is a stroke
_ENOUGH, _CLEAR = 0.035, 8.0  # of the range of the image, or times the noise: always more than enough
_CELL, _CELLS = 16, (5, 11)  # pixels; cells in a row: the lower of their medians is the usual stroke around
_GRID = 4  # pixels: the step in which places are looked for
_WINDOW = (9, 3)  # steps: the shortest piece of a line that is looked for
_DENSE, _CROSSED = 0.25, 0.083  # of a piece of a line: strokes; pixels at which one begins
_STANDS_OUT, _EVEN = 2.3, 0.14  # strokes: times the threshold; or, at any height, their spread over their mean
_FEW = 5  # steps: fewer together are chance
_AROUND = 12  # pixels: the detection network takes a piece without its surroundings for text
_STRONGEST = 4.0  # times the threshold: higher strokes look alike
_MOSAIC = 1024
_HEAT, _SCORE, _PEAK = 0.25, 0.4, 0.7
_GROW = 1.7
_GOES_ON = 0.035  # of the piece after the end of a line is its ink
_LEGIBLE = 1.9  # sum of the confidences of the characters read: two certain ones, or more doubtful ones
_SURE, _SURE_STANDING = 0.6, 0.7  # their mean (a spine looks like figures)
_ALONE = 0.9  # the confidence of a single letter that is a marker
_HOPELESS = 0.4  # so little after two readings: a third will not do
_WORDS = re.compile(r"[A-Z0-9]+")

_LOOKALIKES = str.maketrans("01|!", "OIII")


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels; x1 and y1 are the first outside."""

    x0: int
    y0: int
    x1: int
    y1: int

    def as_list(self) -> list[int]:
        """x0, y0, x1, y1."""
        return [self.x0, self.y0, self.x1, self.y1]

    @property
    def area(self) -> int:
        """In pixels."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)

    def scaled(self, factor: int, rows: int, cols: int) -> Box:
        """The same place in an image `factor` times as large, of at most that size."""
        x1, y1 = min(self.x1 * factor, cols), min(self.y1 * factor, rows)
        return Box(self.x0 * factor, self.y0 * factor, x1, y1)

    def meets(self, other: Box) -> bool:
        """Whether they share a pixel."""
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1

    def shared(self, other: Box) -> int:
        """The area that both have, in pixels."""
        wide = min(self.x1, other.x1) - max(self.x0, other.x0)
        high = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(wide, 0) * max(high, 0)

    def joined(self, other: Box) -> Box:
        """The smallest box around both."""
        corner = min(self.x0, other.x0), min(self.y0, other.y0)
        return Box(*corner, max(self.x1, other.x1), max(self.y1, other.y1))


def find_text(stored: NDArray[Any]) -> list[Box]:
    """Boxes of legible burned-in text in gray stored values [rows, cols]; side and positioning markers are left out.

    Raises Refusal (TEXT_DETECTOR_MISSING) where RapidOCR or its models are not installed.
    """
    import cv2

    cv2.setNumThreads(1)
    detector = _network("det")
    rows, cols = stored.shape
    if min(rows, cols) < _CELL:
        return []
    levels = _levels(_morphable(stored))
    return _without_doubles(_named(_lines(levels, detector), rows, cols))


def blank(stored: NDArray[Any], boxes: list[Box], *, lowest: int, highest: int, black_is_high: bool) -> NDArray[Any]:
    """A copy with each box filled by the darkest value that no pixel of the box had: nothing of it is left."""
    cleaned = stored.copy()
    for box in boxes:
        inside = set(np.unique(stored[box.y0 : box.y1, box.x0 : box.x1]).tolist())
        shades = range(highest, lowest - 1, -1) if black_is_high else range(lowest, highest + 1)
        fill = next((shade for shade in shades if shade not in inside), shades[0])
        cleaned[box.y0 : box.y1, box.x0 : box.x1] = fill
    return cleaned


# --- strokes ----------------------------------------------------------------------------------------------------------


def _morphable(stored: NDArray[Any]) -> NDArray[Any]:
    """Values as OpenCV's morphology takes them: unsigned 8 or 16 bits where that loses nothing, else float32."""
    if stored.dtype in (np.uint8, np.uint16):
        return stored
    low = stored.min()
    if stored.dtype.kind in "iu" and int(stored.max()) - int(low) < 65536:
        return (stored.astype(np.int64) - int(low)).astype(np.uint16)
    return stored.astype(np.float32)


@dataclass(frozen=True)
class _Ink:
    """Strokes lighter, or strokes darker, than what they are written on."""

    height: NDArray[Any]  # by how much
    threshold: NDArray[np.float32]
    strong: NDArray[np.uint8]  # 255 where that is more than the noise and the anatomy around


@dataclass(frozen=True)
class _Level:
    """The image at one scale: strokes of larger letters are thin in a smaller image."""

    scale: int
    gray: NDArray[Any]
    inks: tuple[_Ink, _Ink]


def _levels(gray: NDArray[Any]) -> list[_Level]:
    import cv2

    low, high = np.percentile(gray[::4, ::4], (1, 99))
    made = []
    rows, cols = gray.shape
    for scale in _SCALES:
        if scale > 1:
            if min(rows, cols) // scale < _SMALLEST:
                break
            gray = np.asarray(cv2.resize(gray, (cols // scale, rows // scale), interpolation=cv2.INTER_AREA))
        made.append(_Level(scale, gray, _inks(gray, float(high - low))))
    return made


def _inks(gray: NDArray[Any], extent: float) -> tuple[_Ink, _Ink]:
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


def _ink(height: NDArray[Any], floor: NDArray[np.float32]) -> _Ink:
    import cv2

    cells = _by_cells(height)
    usual = np.minimum(*(_median(cells, across) for across in _CELLS))
    least = np.maximum(floor, _TEXTURE * usual).astype(np.float32)
    threshold = np.asarray(cv2.resize(least, height.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
    if height.dtype.kind == "u":
        limit = np.minimum(np.ceil(threshold), np.iinfo(height.dtype).max).astype(height.dtype)
    else:
        limit = np.maximum(threshold, np.finfo(np.float32).tiny)
    return _Ink(height, threshold, np.asarray(cv2.compare(height, limit, cv2.CMP_GE), np.uint8))


def _by_cells(values: NDArray[Any]) -> NDArray[np.float32]:
    import cv2

    rows, cols = (max(side // _CELL, 1) for side in values.shape)
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


# --- places -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """A rectangle of one level where lines may be written, lying or standing."""

    level: _Level
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

    def ink(self) -> _Ink:
        """The ink that covers more of it."""
        inside = np.s_[self.box.y0 : self.box.y1, self.box.x0 : self.box.x1]
        sums = [float(ink.height[inside][ink.strong[inside] > 0].sum()) for ink in self.level.inks]
        return self.level.inks[0 if sums[0] >= sums[1] else 1]


def _places(level: _Level) -> list[_Place]:
    """Where strokes are dense, begin often along a line, and stand out or are all of one height."""
    import cv2

    rows, cols = level.gray.shape
    grids = [_Grid.of(ink) for ink in level.inks]
    found: list[_Place] = []
    for standing in (False, True):
        window = _WINDOW[::-1] if standing else _WINDOW
        likely = grids[0].likely(standing=standing) | grids[1].likely(standing=standing)
        around = [2 * (_AROUND // _GRID) + side for side in window]
        wide = np.asarray(cv2.dilate(likely.astype(np.uint8), np.ones(around[::-1], np.uint8)), np.uint8)
        found += [_Place(level, box, standing) for box in _boxes(wide, rows, cols)]
    return found


@dataclass(frozen=True)
class _Grid:
    """An ink in steps of a few pixels: means of what tells writing from anatomy."""

    dense: NDArray[np.float32]
    begins: tuple[NDArray[np.float32], NDArray[np.float32]]  # strokes, from left to right and from above
    tops: NDArray[np.float32]  # pixels at which a stroke is highest
    height: NDArray[np.float32]  # of strokes there; 0 elsewhere
    squares: NDArray[np.float32]
    threshold: NDArray[np.float32]
    rounding: float  # the variance that whole numbers bring with them

    @classmethod
    def of(cls, ink: _Ink) -> _Grid:
        import cv2

        lying, standing = ink.strong.copy(), ink.strong.copy()
        lying[:, 1:] &= ~ink.strong[:, :-1]
        standing[1:] &= ~ink.strong[:-1]
        around = cv2.dilate(ink.height, np.ones((3, 3), np.uint8))
        tops = cv2.bitwise_and(cv2.compare(ink.height, around, cv2.CMP_GE), ink.strong)
        height = cv2.copyTo(ink.height, tops).astype(np.float32)
        dense, *begins, count = (_by_grid(mask) / np.float32(255) for mask in (ink.strong, lying, standing, tops))
        threshold = np.asarray(cv2.resize(ink.threshold, dense.shape[::-1], interpolation=cv2.INTER_NEAREST))
        rounding = 0.25 if ink.height.dtype.kind == "u" else 0.0
        squares = _by_grid(height * height)
        return cls(dense, (begins[0], begins[1]), count, _by_grid(height), squares, threshold * count, rounding)

    def likely(self, *, standing: bool) -> NDArray[np.bool_]:
        """The middles of windows that hold a piece of a line."""
        import cv2

        window = _WINDOW[::-1] if standing else _WINDOW
        dense, begins, count, total, squares, limit = (
            np.asarray(cv2.blur(values, window))
            for values in (self.dense, self.begins[standing], self.tops, self.height, self.squares, self.threshold)
        )
        even = squares * count <= total * total * np.float32(1 + _EVEN**2) + count * count * np.float32(self.rounding)
        stands_out = total >= _STANDS_OUT * limit
        likely = (dense >= _DENSE) & (begins >= _CROSSED) & (stands_out | even)
        _, labels, sizes, _ = cv2.connectedComponentsWithStats(likely.astype(np.uint8), connectivity=8)
        large = sizes[:, 4] >= _FEW
        large[0] = False
        return np.asarray(large[labels], np.bool_)


def _by_grid(values: NDArray[Any]) -> NDArray[np.float32]:
    import cv2

    rows, cols = (max(side // _GRID, 1) for side in values.shape)
    return np.asarray(cv2.resize(values, (cols, rows), interpolation=cv2.INTER_AREA), np.float32)


def _boxes(wide: NDArray[np.uint8], rows: int, cols: int) -> Iterator[Box]:
    """Rectangles of pixels that cover the steps that are not 0."""
    import cv2

    count, labels, sizes, _ = cv2.connectedComponentsWithStats(wide, connectivity=4)
    for index in range(1, count):
        x, y, across, down, _ = (int(number) for number in sizes[index])
        part = labels[y : y + down, x : x + across] == index
        for x0, y0, x1, y1 in _split(part, x, y):
            yield Box(x0 * _GRID, y0 * _GRID, min(x1 * _GRID, cols), min(y1 * _GRID, rows))


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


# --- lines ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Line:
    """What the detection network takes for a line of text, in the pixels of its level."""

    place: _Place
    box: Box
    score: float

    def full(self, rows: int, cols: int) -> Box:
        """Its box in the pixels of the image."""
        return self.box.scaled(self.place.level.scale, rows, cols)

    def core(self, rows: int, cols: int) -> Box:
        """What remains in the middle of its box without a quarter of its height at each side."""
        box = self.full(rows, cols)
        edge = min(box.x1 - box.x0, box.y1 - box.y0) // 4
        return Box(box.x0 + edge, box.y0 + edge, box.x1 - edge, box.y1 - edge)


@dataclass
class _Mosaic:
    """Pictures of places side by side on one canvas, so that the network runs once."""

    wide: int
    high: int = 0
    shelf_x: int = 0
    shelf_y: int = 0
    pieces: list[tuple[_Place, NDArray[np.uint8], int, int]] = field(default_factory=list)

    def put(self, place: _Place, picture: NDArray[np.uint8], gap: int = 8) -> bool:
        high, wide = picture.shape
        if self.shelf_x and self.shelf_x + wide > self.wide:
            self.shelf_x, self.shelf_y = 0, self.high
        if self.pieces and self.shelf_y + high > _MOSAIC:
            return False
        self.pieces.append((place, picture, self.shelf_x, self.shelf_y))
        self.shelf_x += wide + gap
        self.high = max(self.high, self.shelf_y + high + gap)
        return True

    def canvas(self) -> NDArray[np.uint8]:
        sides = [-(-side // 32) * 32 for side in (self.high, max(self.wide, 32))]
        canvas = np.full(sides, 128, np.uint8)
        for _, picture, x, y in self.pieces:
            canvas[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
        return canvas


def _mosaics(pictures: list[tuple[_Place, NDArray[np.uint8]]]) -> list[_Mosaic]:
    pictures = sorted(pictures, key=lambda piece: -piece[1].shape[0])
    total = sum((picture.shape[0] + 8) * (picture.shape[1] + 8) for _, picture in pictures)
    widest = max((picture.shape[1] for _, picture in pictures), default=0)
    wide = max(widest, min(int(total**0.5), _MOSAIC))
    mosaics: list[_Mosaic] = []
    for place, picture in pictures:
        if not mosaics or not mosaics[-1].put(place, picture):
            mosaics.append(_Mosaic(wide))
            mosaics[-1].put(place, picture)
    return mosaics


def _lines(levels: list[_Level], detector: _Network) -> list[_Line]:
    """Lines of text, whatever they say."""
    places = [place for level in levels for place in _places(level)]
    found: list[_Line] = []
    for mosaic in _mosaics([(place, place.picture()) for place in places]):
        heat = detector.run(mosaic.canvas())[0, 0]
        for place, picture, x, y in mosaic.pieces:
            part = heat[y : y + picture.shape[0], x : x + picture.shape[1]]
            found += _hot(np.rot90(part, -1) if place.standing else part, place)
    return found


def _hot(heat: NDArray[np.float32], place: _Place) -> Iterator[_Line]:
    """Connected parts of the map, grown back: the network shows text shrunk by area over circumference."""
    import cv2

    if float(heat.max(initial=0)) < _PEAK:
        return
    mask = (heat > _HEAT).astype(np.uint8)
    rows, cols = place.level.gray.shape
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    for index in range(1, count):
        x, y, wide, high, area = (int(number) for number in stats[index])
        inside = labels[y : y + high, x : x + wide] == index
        values = heat[y : y + high, x : x + wide][inside]
        if area < 8 or float(values.mean()) < _SCORE or float(values.max()) < _PEAK:
            continue
        grow = area * _GROW / (2 * (wide + high)) + 2
        x0, y0 = max(int(place.box.x0 + x - grow), 0), max(int(place.box.y0 + y - grow), 0)
        x1, y1 = int(np.ceil(place.box.x0 + x + wide + grow)), int(np.ceil(place.box.y0 + y + high + grow))
        yield _Line(place, Box(x0, y0, min(x1, cols), min(y1, rows)), float(values.mean()))


def _whole(line: _Line) -> Box:
    """Its box, longer while ink of the same strength goes on at an end: the network tends to stop too early."""
    box, standing = line.box, line.place.standing
    ink = _Place(line.place.level, box, standing).ink()
    inside = np.s_[box.y0 : box.y1, box.x0 : box.x1]
    strokes = ink.height[inside][ink.strong[inside] > 0]
    if not strokes.size:
        return box
    strong = ink.strong > 0
    inked = strong & (ink.height >= np.percentile(strokes, 75) / 2)
    if standing:
        turned = _stretched(strong.T, inked.T, Box(box.y0, box.x0, box.y1, box.x1))
        return Box(turned.y0, turned.x0, turned.y1, turned.x1)
    return _stretched(strong, inked, box)


def _stretched(strong: NDArray[np.bool_], inked: NDArray[np.bool_], box: Box) -> Box:
    """The box about its strokes, and on to where the ink of the line ends."""
    across = strong[box.y0 : box.y1, box.x0 : box.x1].sum(axis=1)
    used = np.flatnonzero(across >= max(0.15 * float(across.max()), 1))
    y0, y1 = box.y0 + int(used[0]), box.y0 + int(used[-1]) + 1
    margin = 1 + (y1 - y0) // 5
    y0, y1 = max(y0 - margin, box.y0), min(y1 + margin, box.y1)
    right, left = _goes_on(inked[:, box.x1 :], y0, y1), _goes_on(inked[:, : box.x0][:, ::-1], y0, y1)
    rows, cols = strong.shape
    return Box(max(box.x0 - left - 1, 0), max(y0 - 1, 0), min(box.x1 + right + 1, cols), min(y1 + 1, rows))


def _goes_on(inked: NDArray[np.bool_], y0: int, y1: int) -> int:
    """How far ink goes on to the right from column 0, within the line and not above and below it."""
    high = y1 - y0
    step, far = max(high, 4), 0
    for _ in range(6):
        piece = inked[y0:y1, far : far + step]
        beside = inked[max(y0 - high // 2, 0) : y1 + high // 2, far : far + step]
        within = float(piece.sum())
        if within < _GOES_ON * high * step or float(beside.sum()) > 1.6 * within:
            break
        far += int(np.flatnonzero(piece.any(axis=0))[-1]) + 1
    return far


def _without_doubles(boxes: list[Box]) -> list[Box]:
    """Boxes that lie in another, or nearly, become one."""
    kept: list[tuple[Box, int]] = []  # with the area that each began with: it may grow by a third, once and for all
    for box in sorted(boxes, key=lambda box: -box.area):
        at = next((n for n, (other, area) in enumerate(kept) if box.joined(other).area <= 1.3 * area), None)
        if at is None:
            kept.append((box, box.area))
        else:
            kept[at] = (kept[at][0].joined(box), kept[at][1])
    return [box for box, _ in kept]


# --- reading ----------------------------------------------------------------------------------------------------------


def _named(lines: list[_Line], rows: int, cols: int) -> list[Box]:
    """Boxes of the lines that say more than a side or a position.

    One line is found at several scales, and at some in pieces. The whole one of the finest scale is read first; what
    lies in a line that was read is not read again.
    """
    found: list[Box] = []
    marks: list[tuple[Box, frozenset[str]]] = []
    for line in _whole_ones_first(lines, rows, cols):
        core = line.core(rows, cols)
        if any(core.shared(other) >= 0.8 * core.area for other in found):
            continue
        words, legible = _read_surely(line)
        if not legible:
            continue
        if words <= markers():
            marks.append((line.full(rows, cols), words))
        elif not any(core.shared(mark) >= 0.8 * core.area and _part_of(words, whole) for mark, whole in marks):
            found.append(_whole(line).scaled(line.place.level.scale, rows, cols))
    return found


def _part_of(words: frozenset[str], whole: frozenset[str]) -> bool:
    """Whether words are pieces of others."""
    return all(any(word in other for other in whole) for word in words)


def _whole_ones_first(lines: list[_Line], rows: int, cols: int) -> list[_Line]:
    """Lines in the order in which they are read."""
    cores = [line.core(rows, cols) for line in lines]

    def rank(at: int) -> tuple[bool, int, float]:
        line, core = lines[at], cores[at]
        rivals = [n for n, other in enumerate(cores) if 2 * core.shared(other) >= min(core.area, other.area)]
        longest = max(max(cores[n].x1 - cores[n].x0, cores[n].y1 - cores[n].y0) for n in rivals)
        whole = max(core.x1 - core.x0, core.y1 - core.y0) >= 0.85 * longest
        return not whole, line.place.level.scale, -line.score

    return [lines[at] for at in sorted(range(len(lines)), key=rank)]


def _read_surely(line: _Line) -> tuple[frozenset[str], bool]:
    """The words of a line, and whether they are legible; a letter of a side, alone, counts as a word."""
    words, confidence, letters = _read(line)
    sure = _SURE_STANDING if line.place.standing else _SURE
    if letters == 1:
        return words, words <= markers() and confidence > _ALONE
    return words, letters > 1 and confidence >= _LEGIBLE and confidence >= sure * letters


def _read(line: _Line) -> tuple[frozenset[str], float, int]:
    """The words of the best reading (of gray and of strokes, turned as it may be), its confidence, its letters."""
    best: tuple[frozenset[str], float, int] = (frozenset(), 0.0, 0)
    for number, picture in enumerate(_pictures(line)):
        text, confidence = _network("rec").read(picture)
        form = plain(text).translate(_LOOKALIKES) if plain(text).translate(_LOOKALIKES) in markers() else plain(text)
        letters = sum(c.isalnum() for c in form)
        if confidence > best[1]:
            best = (frozenset(_WORDS.findall(form)), confidence, letters)
        if letters and confidence / letters > 0.9:
            break  # sure enough
        if number == 1 and best[1] < _HOPELESS:
            break
    return best


def _pictures(line: _Line) -> Iterator[NDArray[np.uint8]]:
    """The line, as the networks see it and as gray alone, then upside down."""
    place = _Place(line.place.level, line.box, line.place.standing)
    drawn, gray = place.picture(), place.plain()
    for picture in (drawn, gray, drawn[::-1, ::-1], gray[::-1, ::-1]):
        yield np.ascontiguousarray(picture)


class _Network:
    """One of PP-OCR's networks on one thread. It is loaded from a file in RapidOCR's wheel: nothing is fetched."""

    def __init__(self, model: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # pictures differ in size: an arena would only grow
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        alphabet = self._session.get_modelmeta().custom_metadata_map.get("character", "")
        self._alphabet = ["", *alphabet.splitlines(), " "]

    def run(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The network's answer to a picture uint8 [h, w]."""
        plane = picture.astype(np.float32) / np.float32(127.5) - np.float32(1)
        batch = np.ascontiguousarray(np.broadcast_to(plane, (1, 3, *plane.shape)))
        answer: NDArray[np.float32] = self._session.run(None, {self._input: batch})[0]
        return answer

    def read(self, picture: NDArray[np.uint8]) -> tuple[str, float]:
        """What a line says, and the sum of the confidences of its letters and figures (of the Latin alphabet)."""
        import cv2

        high, wide = picture.shape
        width = int(np.clip(round(wide * 48 / high / 8) * 8, 16, 960))
        method = cv2.INTER_CUBIC if high < 48 else cv2.INTER_AREA
        answer = self.run(np.asarray(cv2.resize(picture, (width, 48), interpolation=method), np.uint8))[0]
        chosen, sure = answer.argmax(axis=1), answer.max(axis=1)
        new = np.flatnonzero((chosen != 0) & (chosen != np.concatenate(([0], chosen[:-1]))))
        letters = [(self._alphabet[chosen[at]], float(sure[at])) for at in new if chosen[at] < len(self._alphabet)]
        confidence = sum(share for letter, share in letters if letter.isalnum() and ord(letter[0]) < 0x250)
        return "".join(letter for letter, _ in letters), confidence


@cache
def markers() -> frozenset[str]:
    """Words of side, projection and positioning, which stay."""
    lines = (files("radia.dicom") / "rules" / "markers.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


@cache
def _network(kind: str) -> _Network:
    """`det` or `rec`."""
    found = find_spec("rapidocr")
    folder = Path(str(found.origin)).parent / "models" if found and found.origin else None
    models = sorted(folder.glob(f"*_{kind}_*.onnx")) if folder else []
    if not models:
        raise Refusal(Reason.TEXT_DETECTOR_MISSING, "RapidOCR's models are not installed")
    try:
        return _Network(models[0])
    except ImportError as error:
        raise Refusal(Reason.TEXT_DETECTOR_MISSING, "onnxruntime is not installed") from error
