"""Text burned into pixels: where it is, whether it can be read, and taking it out.

Four steps. Strokes (`burned_in_strokes`): what is thinner than a pen stands out from its surroundings. Places
(`burned_in_places`): a small network over the strokes says where lines may be; the rest is not looked at again. Lines
(`burned_in_lines`): RapidOCR's detection network on a mosaic of these places, and what the strokes alone show. Reading:
its recognition network says whether two characters or more are legible; anatomy is not, and of side markers and the
words of positioning nobody can be known. What does not belong here: files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radia.dicom.burned_in_boxes import Box
from radia.dicom.burned_in_lines import Line, likely_lines, likeness, seen_lines, tight, whole
from radia.dicom.burned_in_networks import network
from radia.dicom.burned_in_places import Least, heats
from radia.dicom.burned_in_strokes import CELL, levels, value_range
from radia.dicom.text import plain
from radia.errors import Reason, Refusal

__all__ = ["Box", "blank", "find_text", "markers"]

_LEGIBLE = 1.9  # sum of the confidences of the characters read: two certain ones, or more doubtful ones
_CERTAIN, _SURE = (2.5, 0.65), 0.85  # from that sum on, their mean may be lower
_WORTH = 0.2  # log odds below which a line that the detection network did not see is not read
_LIKELY = 0.5  # log odds that strokes alone must have, where the detection network saw nothing
_LARGE, _LIKELY_LARGE = 1 / 10, 2.0  # of the side of the image; of letters as high as ribs, more is asked
_PLAIN = 5.0  # so many characters, or their confidence, and its size does not matter
_PITCH = 1.2  # heights of a line for each of its letters: what has fewer is no text, unless surely read
_LONG, _LONGER, _PART = 8.5, 13, 6  # heights: of a longer line, a part is read first; of a still longer one, three
_WHOLE_WORD = 3  # letters: what the cut left of a beginning
_ALONE = 0.9  # the confidence of a single letter that is a marker
_SHORT = 9  # letters: longer lines are no marker
_SPACE = 1.2  # heights from one letter to the next of the same line
_PIECES = 3  # that are read again at an end of a line, one after the other
_HOPELESS = 0.8, 0.45  # so little, or with so little confidence, after two readings: a third will not do
_NARROW, _WIDE, _ALIKE = 0.5, 1.05, 0.82  # of the height of a closed loop, from one to the next; of type, how alike
_RULED, _TICKS, _TICKING = 3, (0.3, 2.5), 0.7  # letters; heights of a line between ticks of a scale; how alike they are
_FEW, _LEAD, _NARROWER = 4, 0.5, 0.75  # letters; of the strongest ink; of the area of a box
_SURE_OF_FEW = 0.95  # their mean confidence, where strokes do not look like text
_LOOKS, _REACH = 6, (5, 2)  # times; heights of a line, along and across it
_KNOWN = 0.8  # of a box: what was blanked before
_GAP = 11  # pixels: in a narrower gap between two boxes is no line
_WHERE_TEXT_IS = Least(seed=-0.5, likely=-2.5)
_WORDS = re.compile(r"[A-Z0-9]+")

_LOOKALIKES = str.maketrans("01|!", "OIII")
_MISREAD = str.maketrans("0Q1JL|!858V", "OOIIIIIBSBU")  # letters that small or faint ones are taken for
_LOOPS = str.maketrans("0QDC4", "OOOOA")  # closed loops that are read now as one, now as another
_WORD = 4  # letters of a marker from which on one that is misread so is known again


def find_text(stored: NDArray[Any]) -> list[Box]:
    """Boxes of legible burned-in text in gray stored values [rows, cols]; side and positioning markers are left out.

    Around what was found, the image is looked at again as it is once that is blanked, until nothing is left to read.
    Raises Refusal: TEXT_DETECTOR_MISSING where RapidOCR or its models are not installed, RESIDUAL_IDENTIFIER where text
    comes to no end.
    """
    import cv2

    cv2.setNumThreads(1)
    network("det")
    rows, cols = stored.shape
    if min(rows, cols) < CELL:
        return []
    extent = value_range(stored)
    seen = _look(stored, extent, Least(), _Seen([], [], []))
    boxes = latest = _without_doubles(seen.boxes)
    for _ in range(_LOOKS):
        left, cut = _left(stored, extent, boxes, latest, seen)
        boxes = _without_doubles([*boxes, *left]) if left else boxes
        latest = [*left, *cut]
        if not latest:
            return boxes
    if left:
        raise Refusal(Reason.RESIDUAL_IDENTIFIER, "burned-in text that comes to no end")
    return _without_doubles([*boxes, *cut])


@dataclass(frozen=True)
class _Seen:
    """What was read in an image: boxes of text, of side and positioning markers, and of what is illegible."""

    boxes: list[Box]
    marks: list[Box]
    nothing: list[Box]

    def moved(self, x: int, y: int) -> _Seen:
        """The same, so much further to the right and below."""
        return _Seen(*([box.moved(x, y) for box in boxes] for boxes in (self.boxes, self.marks, self.nothing)))


def _look(stored: NDArray[Any], extent: float, least: Least, known: _Seen) -> _Seen:
    """What can be read in an image, or in a part of it, of which some is known."""
    rows, cols = stored.shape
    likely = heats(levels(stored, extent), least)
    return _named(seen_lines(likely, network("det")), list(likely_lines(likely)), known, rows, cols)


def _left(
    stored: NDArray[Any], extent: float, boxes: list[Box], latest: list[Box], seen: _Seen
) -> tuple[list[Box], list[Box]]:  # fmt: skip
    """What can still be read about the latest boxes once all are blanked (where text is, less is taken for text): what
    is whole, and what is cut by the end of what was looked at.
    """
    rows, cols = stored.shape
    found: list[tuple[Box, bool]] = []
    for part in _surroundings(latest, rows, cols):
        again = _blanked(stored, part, boxes)
        new = _look(again, extent, _WHERE_TEXT_IS, seen.moved(-part.x0, -part.y0)).moved(part.x0, part.y0)
        found += [(box, _is_cut(box, part, rows, cols)) for box in new.boxes if box.share_in(boxes) < _KNOWN]
    whole = [box for box, is_cut in found if not is_cut]
    return whole, [box for box, is_cut in found if is_cut and box.share_in(whole) < _KNOWN]


def _is_cut(box: Box, part: Box, rows: int, cols: int) -> bool:
    """Whether a box ends at an edge of the part that was looked at and not of the image: there may be more of it."""
    left, above = box.x0 <= part.x0 > 0, box.y0 <= part.y0 > 0
    return left or above or box.x1 >= part.x1 < cols or box.y1 >= part.y1 < rows


def _blanked(stored: NDArray[Any], part: Box, boxes: list[Box]) -> NDArray[Any]:
    """A part of the image with each box, and what is too narrow for a line between two of them, as its paper."""
    import cv2

    again = stored[part.y0 : part.y1, part.x0 : part.x1].copy()
    inside = np.zeros(again.shape, np.uint8)
    for box in boxes:
        if box.meets(part):
            place = np.s_[max(box.y0 - part.y0, 0) : box.y1 - part.y0, max(box.x0 - part.x0, 0) : box.x1 - part.x0]
            again[place] = np.percentile(again[place], 50, method="lower")
            inside[place] = 1
    framed = cv2.copyMakeBorder(inside, _GAP, _GAP, _GAP, _GAP, cv2.BORDER_REPLICATE)
    closed = cv2.morphologyEx(framed, cv2.MORPH_CLOSE, np.ones((_GAP, _GAP), np.uint8))[_GAP:-_GAP, _GAP:-_GAP]
    count, gaps = cv2.connectedComponents(np.asarray(closed - inside, np.uint8), connectivity=4)
    for gap in range(1, count):
        again[gaps == gap] = np.percentile(again[gaps == gap], 50, method="lower")
    return again


def _surroundings(boxes: list[Box], rows: int, cols: int) -> list[Box]:
    """Rectangles about boxes, some heights of a line further on each side; those that mostly overlap are one."""
    parts: list[tuple[Box, int]] = []  # with the area of those that it is made of
    for box in boxes:
        wide, high = box.x1 - box.x0, box.y1 - box.y0
        along, across = (max(times * min(wide, high), 2 * CELL) for times in _REACH)
        x, y = (along, across) if wide >= high else (across, along)
        part = Box(max(box.x0 - x, 0), max(box.y0 - y, 0), min(box.x1 + x, cols), min(box.y1 + y, rows))
        area = part.area
        while near := [(other, its) for other, its in parts if other.joined(part).area <= its + area]:
            parts.remove(near[0])
            part, area = part.joined(near[0][0]), area + near[0][1]
        parts.append((part, area))
    return [part for part, _ in parts]


def blank(stored: NDArray[Any], boxes: list[Box], *, lowest: int, highest: int, black_is_high: bool) -> NDArray[Any]:
    """A copy with each box filled by the darkest value that no pixel of the box had: nothing of it is left."""
    cleaned = stored.copy()
    for box in boxes:
        inside = set(np.unique(stored[box.y0 : box.y1, box.x0 : box.x1]).tolist())
        shades = range(highest, lowest - 1, -1) if black_is_high else range(lowest, highest + 1)
        fill = next((shade for shade in shades if shade not in inside), shades[0])
        cleaned[box.y0 : box.y1, box.x0 : box.x1] = fill
    return cleaned


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


@dataclass(frozen=True)
class _Reading:
    """What a line says: its words, the sum of the confidences of its letters and figures, and their number."""

    words: tuple[str, ...]
    confidence: float
    letters: int
    picture: int = 0
    """In which of its pictures."""
    length: float = 0.0
    """Of what was read, in its heights."""

    @property
    def backwards(self) -> bool:
        """Whether it was read upside down, or from below."""
        return self.picture % 2 == 1

    @property
    def is_marker(self) -> bool:
        """Whether it says no more than a side or a position."""
        return markers().issuperset(self.words)

    @property
    def monotonous(self) -> bool:
        """Whether it is the same over and over, as a grid, a scale and a chain of wire loops are read."""
        signs = "".join(self.words)
        return self.loops or (self.letters > 5 and len(set(signs)) <= 2)

    @property
    def loops(self) -> bool:
        """Whether it is four letters or more, all of a kind."""
        return self.letters > 3 and len(set("".join(self.words).translate(_LOOPS))) == 1

    @property
    def mean(self) -> float:
        return self.confidence / max(self.letters, 1)


def _named(seen: list[Line], likely: list[Line], known: _Seen, rows: int, cols: int) -> _Seen:
    """The lines that say more than a side or a position, and those that do not. What is `known` is not read again.

    One line is found at several scales, and at some in pieces. The whole one of the finest scale is read first; what
    lies in a line that was read is not read again, and of a line about a marker only what is beside the marker.
    """
    read: list[tuple[Line, _Reading]] = []
    found: list[Box] = []
    marks, nothing = list(known.marks), list(known.nothing)
    backwards = {False: False, True: False}
    for line in (*_whole_ones_first(seen, rows, cols), *_whole_ones_first(likely, rows, cols)):
        core = line.core(rows, cols)
        if core.share_in(found) >= 0.8 or any(_is_inside(core, mark) for mark in marks):
            continue
        if any(_is_of(core, other) for other in known.nothing):
            continue
        if not line.score and line.odds() < _WORTH:
            continue
        for part in _beside(line, marks):
            reading = _read(part, backwards=backwards[line.standing])
            if not _is_legible(part, reading):
                nothing.append(part.core(rows, cols))
                continue
            if reading.letters > 1:
                backwards[line.standing] = reading.backwards
            if not reading.is_marker and reading.letters <= _SHORT:
                part, reading = _marker_instead(part, reading, seen)
            if not reading.is_marker:
                read.append((part, reading))
                found.append(part.full(rows, cols))
                continue
            mark = tight(part).scaled(part.scale, rows, cols)
            of_a_line = any(mark.shared(other) >= 0.3 * mark.area for other in found)
            if not of_a_line and (reading.letters > 1 or (line.score and _is_letter(mark))):
                marks.append(mark)
    boxes = []
    for line, reading in read:
        ends = _to_its_ends(line, reading) if reading.letters > _FEW else _narrowed(line, reading)
        box = ends.scaled(line.scale, rows, cols)
        boxes.append(_clear_of(box, marks, line.core(rows, cols)))
    return _Seen(boxes, marks, nothing)


def _marker_instead(line: Line, reading: _Reading, seen: list[Line]) -> tuple[Line, _Reading]:
    """The same line at a finer scale, if surely a marker there, of as many letters, and as long if this is sure."""
    box, inked = line.full(10**6, 10**6), tight(line).scaled(line.scale, 10**6, 10**6)
    for other in sorted(seen, key=lambda one: one.scale):
        if other.scale >= line.scale or other.standing != line.standing:
            continue
        core, there = other.core(10**6, 10**6), tight(other).scaled(other.scale, 10**6, 10**6)
        along = (
            (there.y1 - there.y0, inked.y1 - inked.y0) if line.standing else (there.x1 - there.x0, inked.x1 - inked.x0)
        )
        as_long = along[0] + 2 * line.scale >= 0.9 * along[1]
        if core.share_in([box]) < 0.9 or not (as_long or reading.mean < _SURE):
            continue
        again = _best_reading(other)
        if not as_long and again.letters < reading.letters:
            continue  # what is more, and longer than the marker, was read as letters
        if again.is_marker and again.mean > _ALONE and again.letters + 1 >= reading.letters > 1:
            return other, again
    return line, reading


def _is_of(core: Box, other: Box) -> bool:
    """Whether a line is another, of the same height, or a part of it."""
    high = min(other.x1 - other.x0, other.y1 - other.y0)
    return core.shared(other) >= 0.8 * core.area and min(core.x1 - core.x0, core.y1 - core.y0) >= 0.6 * high


def _is_inside(core: Box, mark: Box) -> bool:
    """Whether a line is no more than a marker: a further letter would reach out of it."""
    edge = 0.35 * min(mark.x1 - mark.x0, mark.y1 - mark.y0)
    across = core.x0 >= mark.x0 - edge and core.x1 <= mark.x1 + edge
    return across and core.y0 >= mark.y0 - edge and core.y1 <= mark.y1 + edge


def _is_letter(mark: Box) -> bool:
    """Whether it has the shape of one letter."""
    wide, high = mark.x1 - mark.x0, mark.y1 - mark.y0
    return 0.25 * high <= wide <= 1.8 * high


def _beside(line: Line, marks: list[Box]) -> list[Line]:
    """The line, or what it has on either side of the first marker that lies in it; nothing where that is too short."""
    box, scale = line.box, line.scale
    held = [mark for mark in marks if _holds(line, mark)]
    if not held:
        return [line]
    mark, others = held[0], held[1:]
    m0, m1 = (mark.y0, mark.y1) if line.standing else (mark.x0, mark.x1)
    b0, b1 = (box.y0, box.y1) if line.standing else (box.x0, box.x1)
    edge = max(min(mark.x1 - mark.x0, mark.y1 - mark.y0) // 8, 1)
    parts: list[Line] = []
    for start, stop in ((b0, (m0 - edge) // scale), (-(-(m1 + edge) // scale), b1)):
        if stop - start < line.height:
            continue
        parts += _beside(line.cut(start - b0, stop - b0), others)
    return parts


def _holds(line: Line, mark: Box) -> bool:
    """Whether a marker stands in a line: nearly all of its length, and half of the height of either."""
    full = line.full(10**6, 10**6)
    wide, high = min(full.x1, mark.x1) - max(full.x0, mark.x0), min(full.y1, mark.y1) - max(full.y0, mark.y0)
    if line.standing:
        return high >= 0.8 * (mark.y1 - mark.y0) and wide >= 0.5 * min(full.x1 - full.x0, mark.x1 - mark.x0)
    return wide >= 0.8 * (mark.x1 - mark.x0) and high >= 0.5 * min(full.y1 - full.y0, mark.y1 - mark.y0)


def _clear_of(box: Box, marks: list[Box], core: Box) -> Box:
    """The box without what it has of a marker at one of its sides, but with all of its core."""
    for mark in marks:
        if box.meets(mark):
            parts = (
                Box(box.x0, box.y0, box.x1, min(mark.y0, box.y1)), Box(box.x0, max(mark.y1, box.y0), box.x1, box.y1),
                Box(box.x0, box.y0, min(mark.x0, box.x1), box.y1), Box(max(mark.x1, box.x0), box.y0, box.x1, box.y1),
            )  # fmt: skip
            free = [part for part in parts if part.shared(core) == core.area]
            box = max(free, key=lambda part: part.area, default=box)
    return box


def _whole_ones_first(lines: list[Line], rows: int, cols: int) -> list[Line]:
    """Lines in the order in which they are read."""
    cores = [line.core(rows, cols) for line in lines]

    def rank(at: int) -> tuple[bool, int, float]:
        line, core = lines[at], cores[at]
        rivals = [n for n, other in enumerate(cores) if 2 * core.shared(other) >= min(core.area, other.area)]
        longest = max(max(cores[n].x1 - cores[n].x0, cores[n].y1 - cores[n].y0) for n in rivals)
        whole = max(core.x1 - core.x0, core.y1 - core.y0) >= 0.85 * longest
        return not whole, line.scale, -line.score

    return [lines[at] for at in sorted(range(len(lines)), key=rank)]


def _is_legible(line: Line, reading: _Reading) -> bool:
    """Whether enough of it was read; a letter of a side, alone, counts as a word."""
    if reading.letters == 1:
        return reading.is_marker and reading.confidence > _ALONE
    if reading.letters < 2 or reading.confidence < _LEGIBLE:
        return False
    large = line.height * line.scale > _LARGE * line.side
    if large and line.odds() < _LIKELY_LARGE and reading.confidence < _PLAIN:
        return False
    if reading.loops and not _is_set(line, reading):
        return False
    if reading.mean >= _SURE:
        return reading.letters > _FEW or reading.mean >= _SURE_OF_FEW or line.odds() >= 0
    if reading.length > 1 + _PITCH * reading.letters or (reading.monotonous and not reading.loops):
        return False
    if reading.letters > _RULED and likeness(line, *_TICKS) >= _TICKING:
        return False  # the ticks of a scale
    enough, sure = _CERTAIN
    likely = -np.inf if line.score else _LIKELY
    return reading.confidence >= enough and reading.mean >= sure and line.odds() >= likely


def _is_set(line: Line, reading: _Reading) -> bool:
    """Whether closed loops are as like each other, and as evenly spaced, as type is and wire is not."""
    times = len(set("".join(reading.words)))
    return likeness(line, times * _NARROW, times * _WIDE) >= _ALIKE


def _read(line: Line, *, backwards: bool = False) -> _Reading:
    """The best reading: of strokes and of gray, turned as it may be, and first as the lines before.

    Of a long line, if that says enough, of its beginning; of a still longer one of three parts.
    """
    high, length = line.height, line.length
    if length <= _LONG * high:
        return _best_reading(line, backwards=backwards)
    best = _Reading((), 0.0, 0)
    for start in (0,) if length <= _LONGER * high else (0, length // 2 - _PART * high // 2, length - _PART * high):
        part = _best_reading(line.cut(start, start + _PART * high), backwards=backwards, pictures=2)
        if part.mean >= _SURE and part.letters > 3 and _is_more_than_markers(part):
            return part
        best = max(best, part, key=lambda reading: reading.confidence)
    if length <= _LONGER * high or best.mean >= _SURE:
        return _best_reading(line, backwards=backwards)
    return best


def _is_more_than_markers(part: _Reading) -> bool:
    """Whether a part of a line says more than sides and positions, whatever the words are that were cut."""
    if any(len(word) >= _WHOLE_WORD and word not in markers() for word in part.words[1:-1]):
        return True
    return any(
        len(word) > _WORD and not any(word.translate(_MISREAD)[1:-1] in marker for marker in _misread_markers())
        for word in (part.words[0], part.words[-1])
    )


def _best_reading(line: Line, *, backwards: bool = False, pictures: int = 4) -> _Reading:
    best = _Reading((), 0.0, 0)
    made = list(_pictures(line))
    for count, number in enumerate((1, 0, 3, 2)[:pictures] if backwards else range(pictures), start=1):
        read = network("rec").read(made[number])
        form = plain("".join(letter.text for letter in read))
        form = form.translate(_LOOKALIKES) if form.translate(_LOOKALIKES) in markers() else form
        words = tuple(map(_as_marker, _WORDS.findall(form)))
        confidence = sum(letter.confidence for letter in read if letter.counts)
        reading = _Reading(words, confidence, sum(c.isalnum() for c in form), number, line.length / line.height)
        if confidence > best.confidence:
            best = reading
        if reading.mean > 0.9:
            break
        if count == 2 and (best.confidence < _HOPELESS[0] or best.mean < _HOPELESS[1]):
            break
    return best


def _narrowed(line: Line, reading: _Reading) -> Box:
    """The box of a few letters, in the pixels of its level: as narrow as its strongest ink, where this says as much."""
    box = _to_its_ends(line, reading)
    inked = tight(Line(line.heat, box, line.score), _LEAD)
    edge = 1 + min(inked.x1 - inked.x0, inked.y1 - inked.y0) // 6
    narrow = Box(
        max(inked.x0 - edge, box.x0), max(inked.y0 - edge, box.y0),
        min(inked.x1 + edge, box.x1), min(inked.y1 + edge, box.y1),
    )  # fmt: skip
    if narrow.area >= _NARROWER * box.area:
        return box
    again = _best_reading(Line(line.heat, narrow, line.score), backwards=reading.backwards, pictures=1)
    as_much = again.letters >= reading.letters and again.mean >= min(_SURE, reading.mean)
    return narrow if as_much else box


def _to_its_ends(line: Line, reading: _Reading) -> Box:
    """The box of a line in the pixels of its level, on to the last letters that can be read at its ends."""
    line = Line(line.heat, whole(line), line.score)
    for after in (False, True):
        for _ in range(_PIECES):
            piece = line.goes_on(after=after)
            further = _further(line, piece, reading, after=after) if piece else 0
            if not further:
                break
            box = line.box
            if line.standing:
                box = Box(box.x0, box.y0 - (0 if after else further), box.x1, box.y1 + (further if after else 0))
            else:
                box = Box(box.x0 - (0 if after else further), box.y0, box.x1 + (further if after else 0), box.y1)
            line = Line(line.heat, box, line.score)
    return line.box


def _further(line: Line, piece: Line, reading: _Reading, *, after: bool) -> int:
    """By how many pixels of its level letters go on in a piece at the end of a line."""
    picture = list(_pictures(piece))[reading.picture]
    backwards = reading.backwards
    own = piece.box.y0 if line.standing else piece.box.x0
    end = (line.box.y1 if line.standing else line.box.x1) if after else (line.box.y0 if line.standing else line.box.x0)
    beyond = []
    for letter in network("rec").read(picture):
        at = own + (1 - letter.at if backwards else letter.at) * piece.length
        past = at - end if after else end - at
        if letter.counts and past > 0.1 * line.height:
            beyond.append((past, letter.confidence))
    reach = 0.0
    for past, _ in sorted(beyond):
        if past - reach > _SPACE * line.height:
            break
        reach = past
    sure = [share for past, share in beyond if past <= reach]
    if not sure or sum(sure) < _SURE * len(sure):
        return 0
    limit = line.heat.level.gray.shape[0 if line.standing else 1]
    return int(min(reach + 0.5 * line.height, limit - end if after else end))


def _pictures(line: Line) -> Iterator[NDArray[np.uint8]]:
    """The line as the networks see it, upright and upside down, then as gray alone."""
    place = line.place()
    drawn, gray = place.picture(), place.plain()
    for picture in (drawn, drawn[::-1, ::-1], gray, gray[::-1, ::-1]):
        yield np.ascontiguousarray(picture)


def _as_marker(word: str) -> str:
    """The marker that this word must be, or the word."""
    if len(word) == 2 and word[0] == word[1] and word[0] in markers():
        return word[0]  # two of the same side beside each other
    return _misread_markers().get(word.translate(_MISREAD), word) if len(word) >= _WORD else word


@cache
def _misread_markers() -> dict[str, str]:
    return {word.translate(_MISREAD): word for word in markers() if len(word) >= _WORD}


@cache
def markers() -> frozenset[str]:
    """Words of side, projection and positioning, which stay."""
    lines = (files("radia.dicom") / "rules" / "markers.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())
