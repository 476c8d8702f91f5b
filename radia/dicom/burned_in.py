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

_STROKE = 9  # pixels: strokes of lines up to about 80 pixels high are thinner
_SCALES = (1, 3)  # the second finds the strokes of larger letters
_SURROUNDINGS = (65, 129)
_ORDINARY = 4.7  # times the usual response around: more is a stroke
_ENOUGH = 0.05  # of the range of the image: always a stroke (text of contrast 25/255 responds with up to 0.1)
_DENSE = 0.36  # of a piece of a line is strokes; text of that contrast has 0.46 and more somewhere
_LINE = (36, 12)  # pixels: the shortest piece of a line that is looked for
_AROUND = 24
_SPECK, _TURNED_SPECK = 12, 48  # pixels: fewer dense ones together are chance
_CELL = 16
_TALLEST = 72  # pixels: larger lettering has thicker strokes, and is found at the next scale
_INKED, _GOES_ON = 0.15, 0.2  # of a line's box, and of the piece after its end, is strokes
_MOSAIC = 1024
_HEAT, _SCORE, _PEAK = 0.25, 0.4, 0.7
_GROW = 1.7
_LEGIBLE = 1.9  # sum of the confidences of the characters read: two certain ones, or more doubtful ones
_SURE, _SURE_STANDING, _SURE_LARGE = 0.6, 0.7, 0.8  # their mean (a spine looks like figures)
_ROUNDS = 3
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

    def joined(self, other: Box) -> Box:
        """The smallest box around both."""
        corner = min(self.x0, other.x0), min(self.y0, other.y0)
        return Box(*corner, max(self.x1, other.x1), max(self.y1, other.y1))


def find_text(stored: NDArray[Any]) -> list[Box]:
    """Boxes of legible burned-in text in gray stored values [rows, cols]; side and positioning markers are left out.

    Raises Refusal (TEXT_DETECTOR_MISSING) where RapidOCR or its models are not installed.
    """
    found: list[Box] = []
    remaining = stored
    for _ in range(_ROUNDS):  # what stood beside a line shows once the line is gone
        more = _find(remaining)
        if not more:
            break
        found += more
        remaining = stored.copy()
        for box in found:
            place = remaining[box.y0 : box.y1, box.x0 : box.x1]
            place[:] = np.median(place).astype(stored.dtype)
    return found


def _find(stored: NDArray[Any]) -> list[Box]:
    import cv2

    cv2.setNumThreads(1)
    detector = _network("det")
    rows, cols = stored.shape
    level = _morphable(stored)
    found: list[Box] = []
    for scale in _SCALES:
        if min(rows, cols) // scale < 32:
            break
        if scale > 1:
            size = cols // scale, rows // scale
            level = np.asarray(cv2.resize(_morphable(stored), size, interpolation=cv2.INTER_AREA))
        strokes = _Strokes.of(level)
        for box in _lines(strokes, detector):
            full = box.scaled(scale, rows, cols)
            if any(full.meets(other) and full.joined(other).area <= 1.1 * other.area for other in found):
                continue
            if _names_somebody(level, strokes, box, large=scale > 1):
                found.append(_whole_line(strokes, box).scaled(scale, rows, cols))
    return found


def blank(stored: NDArray[Any], boxes: list[Box], *, lowest: int, highest: int, black_is_high: bool) -> NDArray[Any]:
    """A copy with each box filled by the darkest value that no pixel of the box had: nothing of it is left."""
    cleaned = stored.copy()
    for box in boxes:
        inside = set(np.unique(stored[box.y0 : box.y1, box.x0 : box.x1]).tolist())
        shades = range(highest, lowest - 1, -1) if black_is_high else range(lowest, highest + 1)
        fill = next((shade for shade in shades if shade not in inside), shades[0])
        cleaned[box.y0 : box.y1, box.x0 : box.x1] = fill
    return cleaned


# --- strokes and places -----------------------------------------------------------------------------------------------


def _morphable(stored: NDArray[Any]) -> NDArray[Any]:
    """Values as OpenCV's morphology takes them: unsigned 8 or 16 bits where that loses nothing, else float32."""
    if stored.dtype in (np.uint8, np.uint16):
        return stored
    low = stored.min()
    if stored.dtype.kind in "iu" and int(stored.max()) - int(low) < 65536:
        return (stored.astype(np.int64) - int(low)).astype(np.uint16)
    return stored.astype(np.float32)


@dataclass(frozen=True)
class _Strokes:
    """What is thinner than a pen: `picture` (uint8; bright strokes above 128, dark below) and where it is `strong`."""

    picture: NDArray[np.uint8]
    strong: NDArray[np.uint8]

    @classmethod
    def of(cls, level: NDArray[Any]) -> _Strokes:
        import cv2

        pen = np.ones((_STROKE, _STROKE), np.uint8)
        opened = cv2.morphologyEx(level, cv2.MORPH_OPEN, pen)
        closed = cv2.morphologyEx(level, cv2.MORPH_CLOSE, pen)
        response = 2 * level.astype(np.float32) - opened - closed
        size = np.abs(response)
        low, high = np.percentile(level[::4, ::4], (1, 99))
        root = np.sqrt(size)  # the mean of roots is about the noise between strokes, hardly about the strokes
        near, far = (cv2.blur(root, (window, window)) for window in _SURROUNDINGS)
        around = np.minimum(near, far) ** 2 * np.float32(_ORDINARY)
        threshold = np.clip(around, 1, max(_ENOUGH * float(high - low), 1))
        picture = np.clip(response / (threshold * np.float32(1.4)) * 64 + 128, 0, 255).astype(np.uint8)
        return cls(picture, (size >= threshold).astype(np.uint8))


def _places(strokes: _Strokes, *, beside: float) -> list[Box]:
    """Rectangles outside which strokes are too sparse for a lying line of text.

    A place counts where strokes are at least `beside` times as dense along a lying line as along a standing one.
    """
    import cv2

    strong = strokes.strong.astype(np.float32)
    lying, standing = cv2.blur(strong, _LINE), cv2.blur(strong, _LINE[::-1])
    dense = ((lying >= _DENSE) & (lying >= np.float32(beside) * standing)).astype(np.uint8)
    _, specks, sizes, _ = cv2.connectedComponentsWithStats(dense, connectivity=8)
    large = sizes[:, 4] >= (_SPECK if beside < 1 else _TURNED_SPECK)
    large[0] = False
    dense = large[specks]
    rows, cols = strong.shape
    padded = np.zeros((-(-rows // _CELL) * _CELL, -(-cols // _CELL) * _CELL), bool)
    padded[:rows, :cols] = dense
    cells = padded.reshape(padded.shape[0] // _CELL, _CELL, -1, _CELL).any(axis=(1, 3)).astype(np.uint8)
    count, labels = cv2.connectedComponents(np.asarray(cells, np.uint8), connectivity=8)
    places = [part for label in range(1, count) for part in _split(labels == label, 0, 0)]
    around = [Box(x0 * _CELL - _AROUND, y0 * _CELL - _AROUND, x1 * _CELL + _AROUND, y1 * _CELL + _AROUND)
              for x0, y0, x1, y1 in places]  # fmt: skip
    inside = [Box(max(box.x0, 0), max(box.y0, 0), min(box.x1, cols), min(box.y1, rows)) for box in around]
    if sum(box.area for box in inside) > 0.9 * rows * cols:
        inside = [Box(0, 0, cols, rows)]
    return [tile for box in inside for tile in _tiles(box)]


def _split(cells: NDArray[np.bool_], x: int, y: int) -> Iterator[tuple[int, int, int, int]]:
    """Rectangles of cells that cover the true ones and not many others: cut where the cut crosses the fewest."""
    used_rows, used_cols = np.flatnonzero(cells.any(axis=1)), np.flatnonzero(cells.any(axis=0))
    if not len(used_rows):
        return
    y0, y1, x0, x1 = used_rows[0], used_rows[-1] + 1, used_cols[0], used_cols[-1] + 1
    part = cells[y0:y1, x0:x1]
    if part.mean() > 0.6 or part.size <= 6:
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


def _tiles(box: Box, overlap: int = 160) -> Iterator[Box]:
    """A place in pieces that fit the mosaic. They overlap, so that a line cut in one is whole in another."""
    step = _MOSAIC - overlap
    for y in range(box.y0, max(box.y1 - overlap, box.y0 + 1), step):
        for x in range(box.x0, max(box.x1 - overlap, box.x0 + 1), step):
            yield Box(x, y, min(x + _MOSAIC, box.x1), min(y + _MOSAIC, box.y1))


@dataclass
class _Mosaic:
    """Places side by side on one canvas, so that the network runs once."""

    wide: int
    high: int = 0
    shelf_x: int = 0
    shelf_y: int = 0
    pieces: list[tuple[Box, int, int]] = field(default_factory=list)

    def place(self, box: Box, gap: int = 8) -> bool:
        wide, high = box.x1 - box.x0, box.y1 - box.y0
        if self.shelf_x and self.shelf_x + wide > self.wide:
            self.shelf_x, self.shelf_y = 0, self.high
        if self.pieces and self.shelf_y + high > _MOSAIC:
            return False
        self.pieces.append((box, self.shelf_x, self.shelf_y))
        self.shelf_x += wide + gap
        self.high = max(self.high, self.shelf_y + high + gap)
        return True


def _mosaics(places: list[Box]) -> list[_Mosaic]:
    ordered = sorted(places, key=lambda box: box.y0 - box.y1)
    total = sum(box.area for box in places)
    widest = max((box.x1 - box.x0 for box in places), default=0)
    wide = min(max(widest, int(total**0.5)), _MOSAIC)
    mosaics: list[_Mosaic] = []
    for box in ordered:
        if not mosaics or not mosaics[-1].place(box):
            mosaics.append(_Mosaic(wide))
            mosaics[-1].place(box)
    return mosaics


# --- lines ------------------------------------------------------------------------------------------------------------


def _lines(strokes: _Strokes, detector: _Network) -> list[Box]:
    """Boxes of lines of text, whatever they say. Standing lines are looked for in the picture turned by 90 degrees."""
    cols = strokes.strong.shape[1]
    turned = _Strokes(np.ascontiguousarray(np.rot90(strokes.picture)), np.ascontiguousarray(np.rot90(strokes.strong)))
    standing = _lying_lines(turned, detector, beside=1.5)
    upright = [Box(cols - box.y1, box.x0, cols - box.y0, box.x1) for box in standing]
    lines = [*_lying_lines(strokes, detector, beside=0.8), *upright]
    return _without_doubles([line for line in lines if _like_a_line(strokes, line)])


def _lying_lines(strokes: _Strokes, detector: _Network, *, beside: float) -> list[Box]:
    found: list[Box] = []
    for mosaic in _mosaics(_places(strokes, beside=beside)):
        sides = [-(-side // 32) * 32 for side in (mosaic.high, max(mosaic.wide, 32))]
        canvas = np.full(sides, 128, np.uint8)
        for box, x, y in mosaic.pieces:
            piece = strokes.picture[box.y0 : box.y1, box.x0 : box.x1]
            canvas[y : y + piece.shape[0], x : x + piece.shape[1]] = piece
        heat = detector.run(canvas)[0, 0]
        for box, x, y in mosaic.pieces:
            part = heat[y : y + box.y1 - box.y0, x : x + box.x1 - box.x0]
            found += _hot(part, box, strokes.strong.shape)
    return found


def _like_a_line(strokes: _Strokes, box: Box) -> bool:
    """Whether a box is no higher than lettering of such strokes, and inked as text is."""
    if min(box.x1 - box.x0, box.y1 - box.y0) > _TALLEST:
        return False
    return float(strokes.strong[box.y0 : box.y1, box.x0 : box.x1].mean()) >= _INKED


def _hot(heat: NDArray[np.float32], place: Box, shape: tuple[int, ...]) -> Iterator[Box]:
    """Connected parts of the map, grown back: the network shows text shrunk by area over circumference."""
    import cv2

    mask = (heat > _HEAT).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    for index in range(1, count):
        x, y, wide, high, area = (int(number) for number in stats[index])
        inside = labels[y : y + high, x : x + wide] == index
        values = heat[y : y + high, x : x + wide][inside]
        if area < 8 or float(values.mean()) < _SCORE or float(values.max()) < _PEAK:
            continue
        grow = area * _GROW / (2 * (wide + high)) + 2
        x0, y0 = max(int(place.x0 + x - grow), 0), max(int(place.y0 + y - grow), 0)
        x1, y1 = int(np.ceil(place.x0 + x + wide + grow)), int(np.ceil(place.y0 + y + high + grow))
        yield Box(x0, y0, min(x1, shape[1]), min(y1, shape[0]))


def _whole_line(strokes: _Strokes, box: Box) -> Box:
    """The box, longer at either end while strokes go on: the network tends to stop before the last letter."""
    strong = strokes.strong
    wide, high = box.x1 - box.x0, box.y1 - box.y0
    if high > 1.5 * wide:
        turned = _whole_line(_Strokes(strokes.picture.T, strong.T), Box(box.y0, box.x0, box.y1, box.x1))
        return Box(turned.y0, turned.x0, turned.y1, turned.x1)
    step = max(high, 6)
    x0, x1 = box.x0, box.x1
    for _ in range(2):
        left = strong[box.y0 : box.y1, max(x0 - step, 0) : x0]
        right = strong[box.y0 : box.y1, x1 : x1 + step]
        before = x0, x1
        if left.size and left.mean() > _GOES_ON:
            x0 = max(x0 - step, 0)
        if right.size and right.mean() > _GOES_ON:
            x1 = min(x1 + step, strong.shape[1])
        if before == (x0, x1):
            break
    return Box(x0, box.y0, x1, box.y1)


def _without_doubles(boxes: list[Box]) -> list[Box]:
    """Boxes that lie in another, or nearly, become one: tiles that overlap and the turned picture give them twice."""
    kept: list[tuple[Box, int]] = []  # with the area that each began with: it may grow by a third, once and for all
    for box in sorted(boxes, key=lambda box: -box.area):
        at = next((n for n, (other, area) in enumerate(kept) if box.joined(other).area <= 1.3 * area), None)
        if at is None:
            kept.append((box, box.area))
        else:
            kept[at] = (kept[at][0].joined(box), kept[at][1])
    return [box for box, _ in kept]


# --- reading ----------------------------------------------------------------------------------------------------------


def _names_somebody(level: NDArray[Any], strokes: _Strokes, box: Box, *, large: bool = False) -> bool:
    """Whether a line is legible and says more than a side or a position."""
    words, confidence, letters = _read(level, strokes, box)
    standing = box.y1 - box.y0 > 1.3 * (box.x1 - box.x0)
    sure = _SURE_LARGE if large else _SURE_STANDING if standing else _SURE
    if letters < 2 or confidence < _LEGIBLE or confidence < sure * letters:
        return False
    return not words <= markers()


def _read(level: NDArray[Any], strokes: _Strokes, box: Box) -> tuple[frozenset[str], float, int]:
    """The words of the best reading (of gray and of strokes, turned as it may be), its confidence, its letters."""
    best: tuple[frozenset[str], float, int] = (frozenset(), 0.0, 0)
    for number, picture in enumerate(_pictures(level, strokes, box)):
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


def _pictures(level: NDArray[Any], strokes: _Strokes, box: Box) -> Iterator[NDArray[np.uint8]]:
    crop = level[box.y0 : box.y1, box.x0 : box.x1].astype(np.float32)
    low, high = np.percentile(crop, (1, 99))
    gray = np.clip((crop - low) / max(float(high - low), 1e-6) * 255, 0, 255).astype(np.uint8)
    drawn = strokes.picture[box.y0 : box.y1, box.x0 : box.x1]
    tall = crop.shape[0] > 1.3 * crop.shape[1]
    for picture, turns in (
        ((gray, 1), (gray, 3), (drawn, 1), (drawn, 3)) if tall else ((gray, 0), (drawn, 0), (gray, 2))
    ):
        yield np.ascontiguousarray(np.rot90(picture, turns))


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
