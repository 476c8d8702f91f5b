"""Lines of text: what RapidOCR's detection network sees in likely places, and what it misses there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from radia.dicom.burned_in_boxes import Box
from radia.dicom.burned_in_networks import Network
from radia.dicom.burned_in_places import Heat, Place
from radia.dicom.burned_in_strokes import GRID

_MOSAIC = 1024
_HEAT, _SCORE, _PEAK = 0.25, 0.4, 0.7
_GROW = 1.7
_GOES_ON = 0.035  # of the piece after the end of a line is its ink
_MAYBE = -4.5  # log odds beyond the end of a line: less is none of it
_END, _BEYOND = 2, 3  # heights of a line that are read again at its end, and beyond it
_FURTHEST = 6  # heights: what is likely beyond is another line's, or none
_TALL = 0.4  # of its height: less is the edge of something
_GAP = 2  # steps that are not likely, within a line
_MOST = 0.85  # of all ink in a box: what is as strong as its letters
_VALLEY = 0.15  # of the fullest row: rows with less ink lie between lines
_HIGH = (6, 36)  # pixels of a level: lines


@dataclass(frozen=True)
class Line:
    """What may be a line of text, in the pixels of its level."""

    heat: Heat
    box: Box
    score: float
    """How sure the detection network is; 0 where it saw nothing."""

    @property
    def standing(self) -> bool:
        """Whether it goes upwards or downwards."""
        return self.heat.standing

    @property
    def scale(self) -> int:
        """How many pixels of the image one of its level is."""
        return self.heat.level.scale

    def place(self) -> Place:
        """Its box as a place."""
        return Place(self.heat.level, self.box, self.standing)

    @property
    def side(self) -> int:
        """Of the image, the shorter, in its pixels."""
        return int(min(self.heat.level.gray.shape)) * self.scale

    @property
    def height(self) -> int:
        """Of its box, across the line."""
        return self.box.x1 - self.box.x0 if self.standing else self.box.y1 - self.box.y0

    @property
    def length(self) -> int:
        """Of its box, along the line."""
        return self.box.y1 - self.box.y0 if self.standing else self.box.x1 - self.box.x0

    def cut(self, start: int, stop: int) -> Line:
        """What lies between two places along it, from the left or from above."""
        box = self.box
        if self.standing:
            return Line(self.heat, Box(box.x0, box.y0 + start, box.x1, min(box.y0 + stop, box.y1)), self.score)
        return Line(self.heat, Box(box.x0 + start, box.y0, min(box.x0 + stop, box.x1), box.y1), self.score)

    def goes_on(self, *, after: bool) -> Line | None:
        """Its end and what lies beyond it, where that may be more of it: after, or before it."""
        box, high, level = self.box, self.height, self.heat.level.gray.shape
        if self.standing:
            b0, b1, limit, rows = box.y0, box.y1, level[0], (box.x0, box.x1)
        else:
            b0, b1, limit, rows = box.x0, box.x1, level[1], (box.y0, box.y1)
        odds = self.heat.odds.T if self.standing else self.heat.odds
        band = odds[rows[0] // GRID : -(-rows[1] // GRID)]
        beyond = (
            slice(b1 // GRID, (b1 + 2 * high) // GRID) if after else slice(max(b0 - 2 * high, 0) // GRID, b0 // GRID)
        )
        if band[:, beyond].max(initial=-np.inf) < _MAYBE:
            return None
        start = max(b1 - _END * high, b0) if after else max(b0 - _BEYOND * high, 0)
        stop = min(b1 + _BEYOND * high, limit) if after else min(b0 + _END * high, b1)
        piece = Box(box.x0, start, box.x1, stop) if self.standing else Box(start, box.y0, stop, box.y1)
        return Line(self.heat, piece, self.score)

    def odds(self) -> float:
        """The mean log odds of the likely steps inside; very low where there are none."""
        box = self.box
        inside = np.s_[box.y0 // GRID : -(-box.y1 // GRID), box.x0 // GRID : -(-box.x1 // GRID)]
        likely = self.heat.odds[inside][self.heat.likely[inside]]
        return float(likely.mean()) if likely.size else -9.0

    def full(self, rows: int, cols: int) -> Box:
        """Its box in the pixels of the image."""
        return self.box.scaled(self.scale, rows, cols)

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
    pieces: list[tuple[Heat, Place, NDArray[np.uint8], int, int]] = field(default_factory=list)

    def put(self, heat: Heat, place: Place, picture: NDArray[np.uint8], gap: int = 8) -> bool:
        high, wide = picture.shape
        if self.shelf_x and self.shelf_x + wide > self.wide:
            self.shelf_x, self.shelf_y = 0, self.high
        if self.pieces and self.shelf_y + high > _MOSAIC:
            return False
        self.pieces.append((heat, place, picture, self.shelf_x, self.shelf_y))
        self.shelf_x += wide + gap
        self.high = max(self.high, self.shelf_y + high + gap)
        return True

    def canvas(self) -> NDArray[np.uint8]:
        sides = [-(-side // 32) * 32 for side in (self.high, max(self.wide, 32))]
        canvas = np.full(sides, 128, np.uint8)
        for *_, picture, x, y in self.pieces:
            canvas[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
        return canvas


def _mosaics(pictures: list[tuple[Heat, Place, NDArray[np.uint8]]]) -> list[_Mosaic]:
    pictures = sorted(pictures, key=lambda piece: -piece[2].shape[0])
    total = sum((picture.shape[0] + 8) * (picture.shape[1] + 8) for *_, picture in pictures)
    widest = max((picture.shape[1] for *_, picture in pictures), default=0)
    wide = max(widest, min(int(total**0.5), _MOSAIC))
    mosaics: list[_Mosaic] = []
    for piece in pictures:
        if not mosaics or not mosaics[-1].put(*piece):
            mosaics.append(_Mosaic(wide))
            mosaics[-1].put(*piece)
    return mosaics


def seen_lines(heats: list[Heat], detector: Network) -> list[Line]:
    """What the detection network takes for lines of text, whatever they say."""
    found: list[Line] = []
    for mosaic in _mosaics([(heat, place, place.picture()) for heat in heats for place in heat.places()]):
        answer = detector.run(mosaic.canvas())[0, 0]
        for heat, place, picture, x, y in mosaic.pieces:
            part = answer[y : y + picture.shape[0], x : x + picture.shape[1]]
            found += _hot(np.rot90(part, -1) if place.standing else part, heat, place)
    return found


def _hot(answer: NDArray[np.float32], heat: Heat, place: Place) -> Iterator[Line]:
    """Connected parts of the map, grown back: the network shows text shrunk by area over circumference."""
    import cv2

    if float(answer.max(initial=0)) < _PEAK:
        return
    mask = (answer > _HEAT).astype(np.uint8)
    rows, cols = place.level.gray.shape
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    for index in range(1, count):
        x, y, wide, high, area = (int(number) for number in stats[index])
        inside = labels[y : y + high, x : x + wide] == index
        values = answer[y : y + high, x : x + wide][inside]
        if area < 8 or float(values.mean()) < _SCORE or float(values.max()) < _PEAK:
            continue
        grow = area * _GROW / (2 * (wide + high)) + 2
        x0, y0 = max(int(place.box.x0 + x - grow), 0), max(int(place.box.y0 + y - grow), 0)
        x1, y1 = int(np.ceil(place.box.x0 + x + wide + grow)), int(np.ceil(place.box.y0 + y + high + grow))
        yield Line(heat, Box(x0, y0, min(x1, cols), min(y1, rows)), float(values.mean()))


def likely_lines(heats: list[Heat]) -> Iterator[Line]:
    """Lines as the strokes alone show them: likely steps that hang together, cut where rows are empty between them."""
    import cv2

    for heat in heats:
        likely = heat.likely.T if heat.standing else heat.likely
        lighter, darker = heat.level.inks
        strong = np.maximum(lighter.strong, darker.strong)
        strong = strong.T if heat.standing else strong
        count, labels, stats, _ = cv2.connectedComponentsWithStats(likely.astype(np.uint8), connectivity=4)
        for index in range(1, count):
            x, y, wide, high, area = (int(number) for number in stats[index])
            if area < 6 or wide < 4:
                continue
            part = labels[y : y + high, x : x + wide] == index
            for box in _rows_of(part, strong, x, y):
                yield Line(heat, Box(box.y0, box.x0, box.y1, box.x1) if heat.standing else box, 0.0)


def _rows_of(part: NDArray[np.bool_], strong: NDArray[np.uint8], x: int, y: int) -> Iterator[Box]:
    inside = np.kron(part, np.ones((GRID, GRID), bool))
    ink = strong[y * GRID : y * GRID + inside.shape[0], x * GRID : x * GRID + inside.shape[1]]
    inside = inside[: ink.shape[0], : ink.shape[1]]
    across = (inside & (ink > 0)).sum(axis=1)
    full = np.pad(across > _VALLEY * across.max(initial=1), 1)
    edges = np.flatnonzero(full[1:] != full[:-1]).reshape(-1, 2)
    bands: list[list[int]] = []
    for top, bottom in edges.tolist():
        if bands and top - bands[-1][1] < 2:
            bands[-1][1] = bottom
        else:
            bands.append([top, bottom])
    rows, cols = strong.shape
    for top, bottom in bands:
        used = np.flatnonzero(inside[top:bottom].any(axis=0))
        if not _HIGH[0] <= bottom - top <= _HIGH[1] or not len(used):
            continue
        edge = 2 + (bottom - top) // 5
        x0, x1 = x * GRID + int(used[0]) - edge, x * GRID + int(used[-1]) + 1 + edge
        yield Box(max(x0, 0), max(y * GRID + top - edge, 0), min(x1, cols), min(y * GRID + bottom + edge, rows))


# --- how far a line goes ----------------------------------------------------------------------------------------------


def whole(line: Line) -> Box:
    """Its box in the pixels of its level, longer while likely steps or ink of the same strength go on at an end: the
    network tends to stop too early.
    """
    box, heat = line.box, line.heat
    ink = line.place().ink()
    inside = np.s_[box.y0 : box.y1, box.x0 : box.x1]
    strokes = ink.height[inside][ink.strong[inside] > 0]
    if not strokes.size:
        return box
    strong: NDArray[np.bool_] = np.asarray(ink.strong > 0)
    inked = strong & (ink.height >= np.percentile(strokes, 75) / 2)
    most = bool(ink.height[inside][inked[inside]].sum() >= _MOST * strokes.sum())  # the rest is of what is around it
    within = inked if most else strong
    if line.standing:
        turned = _stretched(within.T, inked.T, heat.likely.T, Box(box.y0, box.x0, box.y1, box.x1))
        return Box(turned.y0, turned.x0, turned.y1, turned.x1)
    return _stretched(within, inked, heat.likely, box)


def tight(line: Line, share: float = 0.0) -> Box:
    """What of its box, in the pixels of its level, has ink: without the margins; ink of that share of the strongest."""
    box, ink = line.box, line.place().ink()
    height = ink.height[box.y0 : box.y1, box.x0 : box.x1]
    inside = ink.strong[box.y0 : box.y1, box.x0 : box.x1] > 0
    if share:
        inside = inside & (height >= share * np.percentile(height[inside], 95, method="lower"))
    across, along = inside.sum(axis=1), inside.sum(axis=0)
    used_rows = np.flatnonzero(across > _VALLEY * across.max(initial=0))
    used_cols = np.flatnonzero(along > _VALLEY * along.max(initial=0))
    if not len(used_rows) or not len(used_cols):
        return box
    y0, x0 = box.y0 + int(used_rows[0]) - 1, box.x0 + int(used_cols[0]) - 1
    y1, x1 = box.y0 + int(used_rows[-1]) + 2, box.x0 + int(used_cols[-1]) + 2
    return Box(max(x0, box.x0), max(y0, box.y0), min(x1, box.x1), min(y1, box.y1))


def likeness(line: Line, least: float, most: float) -> float:
    """How alike its strokes are to themselves some way further along the line, `least` to `most` of its height: 1 where
    the same signs come again and again at the same distance.
    """
    box = tight(line)
    height = line.place().ink().height[box.y0 : box.y1, box.x0 : box.x1].astype(np.float32)
    laid = np.rot90(height) if line.standing else height
    laid = np.minimum(laid, np.float32(np.percentile(laid, 95)))
    high, wide = laid.shape
    best = 0.0
    for lag in range(max(round(least * high), 2), min(round(most * high), wide - high // 2) + 1):
        first, second = laid[:, :-lag], laid[:, lag:]
        first, second = first - first.mean(), second - second.mean()
        size = max(float(np.sqrt((first**2).sum() * (second**2).sum())), 1e-6)
        best = max(best, float((first * second).sum()) / size)
    return best


def _stretched(strong: NDArray[np.bool_], inked: NDArray[np.bool_], likely: NDArray[np.bool_], box: Box) -> Box:
    """The box about its strokes, and on to where the ink of the line ends."""
    across = np.asarray(strong[box.y0 : box.y1, box.x0 : box.x1].sum(axis=1))
    used = np.flatnonzero(across >= max(0.15 * float(across.max()), 1))
    y0, y1 = box.y0 + int(used[0]), box.y0 + int(used[-1]) + 1
    margin = 2 + (y1 - y0) * 3 // 10  # accents
    rows, cols = strong.shape
    y0, y1 = max(y0 - margin, 0), min(y1 + margin, rows)
    x0, x1 = _as_far_as_likely(likely, box, y0, y1)
    x0, x1 = max(x0, 0), min(x1, cols)
    right, left = _goes_on(inked[:, x1:], y0, y1), _goes_on(np.fliplr(inked[:, :x0]), y0, y1)
    return Box(max(x0 - left - 1, 0), y0, min(x1 + right + 1, cols), y1)


def _as_far_as_likely(likely: NDArray[np.bool_], box: Box, y0: int, y1: int) -> tuple[int, int]:
    """From where to where the steps of its rows are likely without a gap."""
    middle = (y0 + y1) // 2 // GRID
    rows = slice(max(min((y0 + (y1 - y0) // 4) // GRID, middle), 0), max((y1 - (y1 - y0) // 4) // GRID, middle) + 1)
    along = np.atleast_1d(likely[rows].any(axis=0))
    gap = _GAP + (y1 - y0) // (2 * GRID)
    ends = []
    for piece in (along[: box.x0 // GRID][::-1], along[-(-box.x1 // GRID) :]):
        further = np.flatnonzero(piece)
        gaps = np.flatnonzero(np.diff(np.concatenate([[-1], further])) > gap)
        kept = further[: gaps[0]] if len(gaps) else further
        kept = kept[kept * GRID < _FURTHEST * (y1 - y0)]
        ends.append(int(kept[-1]) + 1 if len(kept) else 0)
    x0 = (box.x0 // GRID - ends[0]) * GRID if ends[0] else box.x0
    x1 = (-(-box.x1 // GRID) + ends[1]) * GRID if ends[1] else box.x1
    return x0, x1


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
        if piece.any(axis=1).mean() < _TALL:
            break
        far += int(np.flatnonzero(piece.any(axis=0))[-1]) + 1
    return far
