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
from radia.dicom.burned_in_lines import Line, likely_lines, seen_lines, tight, whole
from radia.dicom.burned_in_networks import network
from radia.dicom.burned_in_places import heats
from radia.dicom.burned_in_strokes import CELL, levels
from radia.dicom.text import plain

__all__ = ["Box", "blank", "find_text", "markers"]

_LEGIBLE = 1.9  # sum of the confidences of the characters read: two certain ones, or more doubtful ones
_CERTAIN, _SURE = (2.5, 0.65), 0.85  # from that sum on, their mean may be lower
_WORTH = 0.2  # log odds below which a line that the detection network did not see is not read
_LIKELY = 0.5  # log odds that strokes alone must have, where the detection network saw nothing
_LARGE, _LIKELY_LARGE = 1 / 10, 2.0  # of the side of the image; of letters as high as ribs, more is asked
_PLAIN = 5.0  # so many characters, or their confidence, and its size does not matter
_PITCH = 1.2  # heights of a line for each of its letters: what has fewer is no text, unless surely read
_LONG, _BEGINNING = 13, 9  # heights: of a longer line, the beginning is read first
_ALONE = 0.9  # the confidence of a single letter that is a marker
_SHORT = 9  # letters: longer lines are no marker
_SPACE = 1.2  # heights from one letter to the next of the same line
_PIECES = 3  # that are read again at an end of a line, one after the other
_HOPELESS = 0.8  # so little after two readings: a third will not do
_WORDS = re.compile(r"[A-Z0-9]+")

_LOOKALIKES = str.maketrans("01|!", "OIII")
_MISREAD = str.maketrans("0Q1JL|!858V", "OOIIIIIBSBU")  # letters that small or faint ones are taken for
_LOOPS = str.maketrans("0QDC4", "OOOOA")  # closed loops that are read now as one, now as another
_WORD = 4  # letters of a marker from which on one that is misread so is known again


def find_text(stored: NDArray[Any]) -> list[Box]:
    """Boxes of legible burned-in text in gray stored values [rows, cols]; side and positioning markers are left out.

    Raises Refusal (TEXT_DETECTOR_MISSING) where RapidOCR or its models are not installed.
    """
    import cv2

    cv2.setNumThreads(1)
    detector = network("det")
    rows, cols = stored.shape
    if min(rows, cols) < CELL:
        return []
    likely = heats(levels(stored))
    return _without_doubles(_named(seen_lines(likely, detector), list(likely_lines(likely)), rows, cols))


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

    words: frozenset[str]
    confidence: float
    letters: int
    picture: int = 0
    """In which of its pictures."""

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


def _named(seen: list[Line], likely: list[Line], rows: int, cols: int) -> list[Box]:
    """Boxes of the lines that say more than a side or a position.

    One line is found at several scales, and at some in pieces. The whole one of the finest scale is read first; what
    lies in a line that was read is not read again, and of a line about a marker only what is beside the marker.
    """
    read: list[tuple[Line, _Reading]] = []
    found: list[Box] = []
    marks: list[Box] = []
    for line in (*_whole_ones_first(seen, rows, cols), *_whole_ones_first(likely, rows, cols)):
        core = line.core(rows, cols)
        if core.share_in(found) >= 0.8 or any(_is_inside(core, mark) for mark in marks):
            continue
        if not line.score and line.odds() < _WORTH:
            continue
        for part in _beside(line, marks):
            reading = _read(part)
            if not _is_legible(part, reading):
                continue
            if not reading.words <= markers() and reading.letters <= _SHORT:
                part, reading = _marker_instead(part, reading, seen)
            if not reading.words <= markers():
                read.append((part, reading))
                found.append(part.full(rows, cols))
                continue
            mark = tight(part).scaled(part.scale, rows, cols)
            of_a_line = any(mark.shared(other) >= 0.3 * mark.area for other in found)
            if not of_a_line and (reading.letters > 1 or (line.score and _is_letter(mark))):
                marks.append(mark)
    boxes = []
    for line, reading in read:
        box = _to_its_ends(line, reading).scaled(line.scale, rows, cols)
        boxes.append(_clear_of(box, marks, line.core(rows, cols)))
    return boxes


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
        if again.words <= markers() and again.mean > _ALONE and again.letters + 1 >= reading.letters > 1:
            return other, again
    return line, reading


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
    held = [mark for mark in marks if mark.shared(line.full(10**6, 10**6)) >= 0.8 * mark.area]
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
        return reading.words <= markers() and reading.confidence > _ALONE
    if reading.letters < 2 or reading.confidence < _LEGIBLE:
        return False
    large = line.height * line.scale > _LARGE * line.side
    if large and line.odds() < _LIKELY_LARGE and reading.confidence < _PLAIN:
        return False
    if reading.loops:
        return False
    if reading.mean >= _SURE:
        return True
    if line.length > (1 + _PITCH * reading.letters) * line.height or reading.monotonous:
        return False
    enough, sure = _CERTAIN
    likely = -np.inf if line.score else _LIKELY
    return reading.confidence >= enough and reading.mean >= sure and line.odds() >= likely


def _read(line: Line) -> _Reading:
    """The best reading: of gray and of strokes, turned as it may be. Of a long line, if that says enough, of a part."""
    if line.length > _LONG * line.height:
        part = _best_reading(line.cut(0, _BEGINNING * line.height), least=_SURE)
        if part.mean >= _SURE and part.letters > 3 and not part.words <= markers():
            return part
    return _best_reading(line)


def _best_reading(line: Line, *, least: float = 0.0) -> _Reading:
    best = _Reading(frozenset(), 0.0, 0)
    for number, picture in enumerate(_pictures(line)):
        read = network("rec").read(picture)
        form = plain("".join(letter.text for letter in read))
        form = form.translate(_LOOKALIKES) if form.translate(_LOOKALIKES) in markers() else form
        words = frozenset(map(_as_marker, _WORDS.findall(form)))
        confidence = sum(letter.confidence for letter in read if letter.counts)
        reading = _Reading(words, confidence, sum(c.isalnum() for c in form), number)
        if confidence > best.confidence:
            best = reading
        if reading.mean > 0.9 or best.mean < least:
            break  # sure enough, or not sure enough for a part
        if number == 1 and best.confidence < _HOPELESS:
            break
    return best


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
    backwards = reading.picture % 2 == 1
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
