"""Text burned into pixels: where it is, whether it can be read, and taking it out.

Four steps. Strokes: what is thinner than a pen stands out from its surroundings in a top-hat of the stored values, in
full depth, so that text which a window hides counts and a filled box around text does not matter. Places: only where
strokes are dense can a line of text be; the rest is not looked at again. Lines: RapidOCR's detection network, from its
wheel, on a mosaic of these places. Reading: its recognition network says whether two characters or more are legible;
anatomy is not, and of side markers and the words of positioning nobody can be known. What does not belong here: files.
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
_SMALLEST = 96  # pixels: a side below which an image is not halved again
_NOISE, _TEXTURE = 3.0, 2.3  # times the usual stroke of noise, and of the surroundings: more is a stroke
_ENOUGH, _CLEAR = 0.035, 8.0  # of the range of the image, or times the noise: always more than enough
_CELL, _CELLS = 16, 11  # pixels; cells in a row whose median is the usual stroke around
_GRID = 4  # pixels: the step in which places are looked for
_WINDOW = (9, 3)  # steps: the shortest piece of a line that is looked for
_DENSE, _CROSSED = 0.24, 0.085  # of a piece of a line: strokes; pixels at which one begins
_STANDS_OUT, _EVEN = 2.0, 0.16  # strokes: times the threshold; or, at any height, their spread over their mean
_FEW = 4  # steps: fewer together are chance
_AROUND = 8
_MOSAIC = 1024
_HEAT, _SCORE, _PEAK = 0.25, 0.4, 0.7
_GROW = 1.7
_GOES_ON = 0.12  # of the piece after the end of a line is strokes
_LEGIBLE = 1.9  # sum of the confidences of the characters read: two certain ones, or more doubtful ones
_SURE, _SURE_STANDING = 0.6, 0.7  # their mean (a spine looks like figures)
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
    """Boxes of legible burned-in text in stored values [rows, cols] or [rows, cols, colours].

    Side and positioning markers are left out. Of colours each is searched. Raises Refusal (TEXT_DETECTOR_MISSING)
    where RapidOCR or its models are not installed.
    """
    if stored.ndim == 3:
        planes = (np.ascontiguousarray(stored[..., colour]) for colour in range(min(stored.shape[2], 3)))
        return _without_doubles([box for plane in planes for box in find_text(plane)])
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

    usual = _median(_by_cells(height))
    cells = np.maximum(floor, _TEXTURE * usual).astype(np.float32)
    threshold = np.asarray(cv2.resize(cells, height.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
    if height.dtype.kind == "u":
        limit = np.minimum(np.ceil(threshold), np.iinfo(height.dtype).max).astype(height.dtype)
    else:
        limit = np.maximum(threshold, np.finfo(np.float32).tiny)
    return _Ink(height, threshold, np.asarray(cv2.compare(height, limit, cv2.CMP_GE), np.uint8))


def _by_cells(values: NDArray[Any]) -> NDArray[np.float32]:
    import cv2

    rows, cols = (max(side // _CELL, 1) for side in values.shape)
    return np.asarray(cv2.resize(values.astype(np.float32), (cols, rows), interpolation=cv2.INTER_AREA), np.float32)


def _median(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """The median of the cells around each, to the twelfth of an octave."""
    import cv2

    unit = max(float(cells.max()) / 2**20, 1e-6)
    octaves = np.clip(np.log2(cells / unit + 1) * 12, 0, 255).astype(np.uint8)
    edge = _CELLS // 2
    framed = cv2.copyMakeBorder(octaves, edge, edge, edge, edge, cv2.BORDER_REFLECT)
    middle = np.asarray(cv2.medianBlur(framed, _CELLS))[edge:-edge, edge:-edge]
    return ((np.exp2(middle.astype(np.float32) / 12) - 1) * unit).astype(np.float32)


# --- places -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """A rectangle of one level where a line may be written, lying or standing."""

    level: _Level
    ink: int
    box: Box
    standing: bool

    def picture(self) -> NDArray[np.uint8]:
        """Strokes as the networks see them: gray is none; the ink's own are light. Standing ones are laid down."""
        inside = np.s_[self.box.y0 : self.box.y1, self.box.x0 : self.box.x1]
        own, other = self.level.inks[self.ink], self.level.inks[1 - self.ink]
        height = own.height[inside].astype(np.float32)
        strokes = height[own.strong[inside] > 0]
        most = float(np.percentile(strokes, 90)) if strokes.size else float(height.max())
        drawn = (height - other.height[inside]) / np.float32(max(most, 1e-6))
        picture = np.clip(drawn * 127 + 128, 0, 255).astype(np.uint8)
        return np.ascontiguousarray(np.rot90(picture)) if self.standing else picture


def _places(level: _Level, ink: int) -> list[_Place]:
    """Where strokes are dense, begin often along a line, and stand out or are all of one height."""
    import cv2

    own = level.inks[ink]
    rows, cols = own.strong.shape
    if rows < _GRID or cols < _GRID:
        return []
    dense = _by_grid(own.strong) / np.float32(255)
    found = []
    for standing in (False, True):
        window = _WINDOW[::-1] if standing else _WINDOW
        begins = own.strong.copy()
        if standing:
            begins[1:] &= ~own.strong[:-1]
        else:
            begins[:, 1:] &= ~own.strong[:, :-1]
        crossed = _by_grid(begins) / np.float32(255)
        likely = (cv2.blur(dense, window) >= _DENSE) & (cv2.blur(crossed, window) >= _CROSSED)
        if likely.any():
            likely &= _written(own, window)
        found += [_Place(level, ink, box, standing) for box in _boxes(likely, window, rows, cols)]
    return found


def _written(ink: _Ink, window: tuple[int, int]) -> NDArray[np.bool_]:
    """Where the tops of strokes are high above the threshold, or as even as ink is."""
    import cv2

    height = ink.height
    tops = (cv2.compare(height, cv2.dilate(height, np.ones((3, 3), np.uint8)), cv2.CMP_GE) & ink.strong) > 0
    top = np.where(tops, height, 0).astype(np.float32)
    count, total, squares, limit = (
        cv2.blur(_by_grid(values), window)
        for values in (tops.astype(np.float32), top, top * top, np.where(tops, ink.threshold, np.float32(0)))
    )
    spread = squares * count - total * total * np.float32(1 + _EVEN**2)
    written: NDArray[np.bool_] = (total >= _STANDS_OUT * limit) | ((spread <= 0) & (count > 0.01))
    return written


def _by_grid(values: NDArray[Any]) -> NDArray[np.float32]:
    import cv2

    rows, cols = (max(side // _GRID, 1) for side in values.shape)
    return np.asarray(cv2.resize(values, (cols, rows), interpolation=cv2.INTER_AREA), np.float32)


def _boxes(likely: NDArray[np.bool_], window: tuple[int, int], rows: int, cols: int) -> Iterator[Box]:
    """Rectangles of pixels around the windows that are likely."""
    import cv2

    count, labels, sizes, _ = cv2.connectedComponentsWithStats(likely.astype(np.uint8), connectivity=8)
    large = sizes[:, 4] >= _FEW
    large[0] = False
    if not large.any():
        return
    wide = cv2.dilate(large[labels].astype(np.uint8), np.ones(window[::-1], np.uint8))
    count, labels, sizes, _ = cv2.connectedComponentsWithStats(np.asarray(wide, np.uint8), connectivity=8)
    for index in range(1, count):
        x, y, across, down, _ = (int(number) for number in sizes[index])
        part = labels[y : y + down, x : x + across] == index
        for x0, y0, x1, y1 in _split(part, x, y):
            yield Box(
                max(x0 * _GRID - _AROUND, 0),
                max(y0 * _GRID - _AROUND, 0),
                min(x1 * _GRID + _AROUND, cols),
                min(y1 * _GRID + _AROUND, rows),
            )


def _split(cells: NDArray[np.bool_], x: int, y: int) -> Iterator[tuple[int, int, int, int]]:
    """Rectangles of cells that cover the true ones and not many others: cut where the cut crosses the fewest."""
    used_rows, used_cols = np.flatnonzero(cells.any(axis=1)), np.flatnonzero(cells.any(axis=0))
    if not len(used_rows):
        return
    y0, y1, x0, x1 = used_rows[0], used_rows[-1] + 1, used_cols[0], used_cols[-1] + 1
    part = cells[y0:y1, x0:x1]
    if part.mean() > 0.5 or part.size <= 400:
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

    @property
    def tall(self) -> int:
        """The height of the line."""
        return self.box.x1 - self.box.x0 if self.place.standing else self.box.y1 - self.box.y0


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
    places = [place for level in levels for ink in (0, 1) for place in _places(level, ink)]
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
    """Its box, longer while strokes go on at an end, and as close to the strokes at the sides as they are."""
    strong = line.place.level.inks[line.place.ink].strong > 0
    box = line.box
    if line.place.standing:
        turned = _stretched(strong.T, Box(box.y0, box.x0, box.y1, box.x1))
        return Box(turned.y0, turned.x0, turned.y1, turned.x1)
    return _stretched(strong, box)


def _stretched(strong: NDArray[np.bool_], box: Box) -> Box:
    high = box.y1 - box.y0
    x0, x1 = box.x0, box.x1
    step = max(high, 6)
    for _ in range(8):
        left, right = strong[box.y0 : box.y1, max(x0 - step, 0) : x0], strong[box.y0 : box.y1, x1 : x1 + step]
        before = x0, x1
        if left.size and left.mean() > _GOES_ON:
            x0 = max(x0 - step // 2, 0)
        if right.size and right.mean() > _GOES_ON:
            x1 = min(x1 + step // 2, strong.shape[1])
        if before == (x0, x1):
            break
    margin = max(high // 8, 1)
    return Box(x0, max(box.y0 - margin, 0), x1, min(box.y1 + margin, strong.shape[0]))


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
    """Boxes of the lines that say more than a side or a position. What lies in one of them is not read again."""
    found: list[Box] = []
    vain: list[Box] = []
    for line in sorted(lines, key=lambda line: (not 10 <= line.tall <= 48, -line.score)):
        box = line.full(rows, cols)
        if any(box.shared(other) >= 0.8 * box.area for other in found):
            continue
        if any(box.shared(other) >= 0.75 * max(box.area, other.area) for other in vain):
            continue
        if _names_somebody(line):
            found.append(_whole(line).scaled(line.place.level.scale, rows, cols))
        else:
            vain.append(box)
    return found


def _names_somebody(line: _Line) -> bool:
    """Whether a line is legible and says more than a side or a position."""
    words, confidence, letters = _read(line)
    sure = _SURE_STANDING if line.place.standing else _SURE
    if letters < 2 or confidence < _LEGIBLE or confidence < sure * letters:
        return False
    return not words <= markers()


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
    """The line as gray and as strokes, then upside down."""
    place = _Place(line.place.level, line.place.ink, line.box, line.place.standing)
    crop = place.level.gray[line.box.y0 : line.box.y1, line.box.x0 : line.box.x1].astype(np.float32)
    low, high = np.percentile(crop, (1, 99))
    gray = np.clip((crop - low) / max(float(high - low), 1e-6) * 255, 0, 255).astype(np.uint8)
    gray = np.rot90(gray) if place.standing else gray
    drawn = place.picture()
    for picture in (gray, drawn, gray[::-1, ::-1], drawn[::-1, ::-1]):
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
