"""Measures of pixels: is an image blank, inverted, turned, cropped, lateral, written on, or another one over again?

They look at the uint8 images of the shards, [n, side, side], a block at a time. Blank is a question of structure, text
one of strokes and near-duplicates one of likeness; the others are answered by a line (which way is up) and a layer of
32 units (what is cut off, lateral views) over a picture of 16 x 16 cells, whose coefficients (image_quality.json) were
found on drawn radiographs of nobody alone (radia/synthetic/defects.py). What does not belong here: which of it blocks
(quality_rules.yaml), whether a file is a chest radiograph (frontal.py).
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radia import digests
from radia.workspace import written_whole

SIDES = ("top", "bottom", "left", "right")
DEFECTS = ("blank", "inverted", "turned", "cropped", "lateral", "text")
COEFFICIENTS = Path(__file__).with_name("image_quality.json")

LEAST_STRUCTURE = 0.02
"""Standard deviation of gray (0..1) at 24 x 24, without a plane: an exposed chest has five times as much and more."""
LEAST_CUT = -0.5
"""Above this answer a side is called cut off: chosen with 200 real radiographs in view (3 of 180 called, of which each
has lung at the edge of the film)."""
_TRIM = 0.04
"""Cut off at the left and at the right for a second and a third look: what is cut off stays so, a chance answer not."""
MOST_STROKES = 0.2
"""Changes from stroke to ground, a pixel along a line: a line of print has a quarter and more, anatomy a sixth."""
MOST_HASH_BITS, LEAST_SKETCH, LEAST_LIKENESS = 10, 0.92, 0.94
"""Two images are one picture where so few of 64 bits differ and their sketches, then their details, correlate so."""

_VERSION = 3
"""Of what is kept of a batch; raised when measures or coefficients change."""
_NOT_OF_PICTURES = ("image", "batch", "sketch", "twins")

_BLOCK = 256
_GRID, _FINE = 16, 48


@dataclass(frozen=True)
class Coefficients:
    """What the features of an image, [512], are weighed with.

    upright [512]: higher for the right one of the 8 ways to turn and invert an image. hidden [32, 512] and answers
    [5, 32], with their offsets: above 0 where the side in SIDES is cut off, and for a lateral view.
    """

    upright: NDArray[np.float32]
    hidden: NDArray[np.float32]
    hidden_offset: NDArray[np.float32]
    answers: NDArray[np.float32]
    answer_offsets: NDArray[np.float32]

    def answer(self, cells: NDArray[np.float32]) -> NDArray[np.float32]:
        """The answers for features [n, 2, 16, 16] and their mirror images, on average: [n, 5]."""
        mirrored = self._one_way(cells[..., ::-1])
        mirrored[:, 2:4] = mirrored[:, 3:1:-1].copy()
        return np.asarray((self._one_way(cells) + mirrored) / 2)

    def _one_way(self, cells: NDArray[np.float32]) -> NDArray[np.float32]:
        units = np.maximum(cells.reshape(len(cells), 2 * _GRID**2) @ self.hidden.T + self.hidden_offset, 0)
        return np.asarray(units @ self.answers.T + self.answer_offsets)


def measure(images: NDArray[np.uint8]) -> pd.DataFrame:
    """One row an image: measures, and a column of 0 and 1 for each of DEFECTS.

    images: [n, side, side], bone white, side >= 96. structure: 0..1. noise: standard deviation of the finest detail,
    0..1. upright: how much better it fits as it is than turned or inverted in any way (below 0: it does not). turn:
    degrees counter-clockwise that would put it right. cut_top … cut_right, side_view: above 0 where it is so, of the
    image put right (cuts also as it is). strokes: how much its most written-on place looks like a line of print.
    """
    blocks = [_measure_block(images[start : start + _BLOCK]) for start in range(0, len(images), _BLOCK)]
    return pd.concat(blocks, ignore_index=True) if blocks else _measure_block(np.zeros((0, 96, 96), np.uint8))


def survey(
    read: Callable[[Sequence[str]], NDArray[np.uint8]],
    manifest: pd.DataFrame,
    *,
    kept: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """The table `pictures` of the rules of data quality: image, batch, what `measure` gives, and same_picture.

    read: ImageStore.read. manifest: columns image, batch, pixel_sha256, perceptual_hash. same_picture: how many other
    images are the same picture, of whatever patient and batch. kept: a folder in which what was found of a batch stays,
    so that a new batch costs itself, and a comparison of its 64 bits with those of all others.
    """
    found = _Survey(read, manifest, kept)
    found.forget_others()
    done = 0
    for batch, rows in manifest.groupby("batch", sort=True):
        found.add(str(batch), rows)
        done += len(rows)
        if progress:
            progress(done, len(manifest))
    return found.table()


class _Survey:
    """Batches measured so far, each compared with those before it."""

    def __init__(
        self, read: Callable[[Sequence[str]], NDArray[np.uint8]], manifest: pd.DataFrame, kept: Path | None
    ) -> None:
        self._read, self._manifest, self._kept = read, manifest, kept
        self._parts: list[pd.DataFrame] = []
        self._gallery = Gallery()

    def add(self, batch: str, rows: pd.DataFrame) -> None:
        """One more batch: from its file if it has one, else from its pixels."""
        ids = rows["image"].to_list()
        part = self._load(batch, rows)
        known = part is not None
        if part is None:
            part = self._measured(ids).assign(image=ids, batch=batch, twins="")
        hashes = np.array([int(text, 16) for text in rows["perceptual_hash"]], dtype=np.uint64)
        sketches = np.frombuffer(b"".join(part["sketch"]), np.int8).reshape(len(part), _SKETCH**2)
        self._gallery.add(ids, hashes, sketches)
        if not known:
            part["twins"] = self._twins(ids)
            self._save(batch, rows, part)
        self._parts.append(part)

    def forget_others(self) -> None:
        """Takes away what was kept of batches that are not in the manifest any more."""
        batches = set(self._manifest["batch"])
        for path in self._kept.glob("*.parquet") if self._kept is not None else ():
            if path.name.rsplit(".", 2)[0] not in batches:
                path.unlink()

    def table(self) -> pd.DataFrame:
        """All batches, in the order of the manifest."""
        if not self._parts:
            empty = measure(np.zeros((0, 96, 96), np.uint8))
            return empty.assign(image=[], batch=[], same_picture=np.zeros(0, np.int64))
        table = pd.concat(self._parts, ignore_index=True)
        pairs = [
            (image, twin) for image, twins in zip(table["image"], table["twins"], strict=True) for twin in twins.split()
        ]
        here = set(table["image"])
        counts = Counter(name for pair in pairs if here.issuperset(pair) for name in pair)
        table["same_picture"] = table["image"].map(counts).fillna(0).astype(np.int64)
        columns = ["image", "batch", *(name for name in table.columns if name not in _NOT_OF_PICTURES)]
        order = pd.Index(table["image"]).get_indexer(pd.Index(self._manifest["image"]))
        pictures: pd.DataFrame = table.iloc[order][columns].reset_index(drop=True)
        return pictures

    def _measured(self, ids: list[str]) -> pd.DataFrame:
        parts = []
        for start in range(0, len(ids), _BLOCK):
            images = self._read(ids[start : start + _BLOCK])
            parts.append(measure(images).assign(sketch=[row.tobytes() for row in sketch(images)]))
        return pd.concat(parts, ignore_index=True)

    def _twins(self, ids: list[str]) -> list[str]:
        """Of each image of the newest batch, those of it and of earlier batches that are the same picture."""
        twins: dict[str, list[str]] = {image: [] for image in ids}
        for pair in confirmed(lambda image: self._read([image])[0], self._gallery.candidates(newest=len(ids))):
            twins[str(pair.second)].append(str(pair.first))
        return [" ".join(twins[image]) for image in ids]

    def _path(self, batch: str, rows: pd.DataFrame) -> Path | None:
        if self._kept is None:
            return None
        of_what = [_VERSION, rows["image"].to_list(), rows["pixel_sha256"].to_list()]
        return self._kept / f"{batch}.{digests.of_json(of_what)[:16]}.parquet"

    def _load(self, batch: str, rows: pd.DataFrame) -> pd.DataFrame | None:
        path = self._path(batch, rows)
        return pd.read_parquet(path) if path is not None and path.is_file() else None

    def _save(self, batch: str, rows: pd.DataFrame, part: pd.DataFrame) -> None:
        path = self._path(batch, rows)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        for older in path.parent.glob(f"{batch}.*.parquet"):
            older.unlink()
        with written_whole(path) as partial:
            part.to_parquet(partial, index=False)


def _measure_block(images: NDArray[np.uint8]) -> pd.DataFrame:
    weighed = coefficients()
    small = _reduced(images, 2 * _FINE)
    cells = _features_of(small)
    fits = orientations(cells) @ weighed.upright
    best = fits.argmax(axis=1)
    answers = weighed.answer(_righted(cells, best))
    cuts = np.mean([_cuts(part, weighed) for part in (cells, *map(_features_of, _trimmed(small)))], axis=0) - LEAST_CUT
    table = pd.DataFrame({"structure": structure(images), "noise": noise(images), "strokes": strokes(images)})
    table["upright"] = fits[:, 0] - fits[:, 1:].max(axis=1, initial=-np.inf)
    table["turn"] = 90 * (best % 4)
    for column, side in enumerate(SIDES):
        table[f"cut_{side}"] = cuts[:, column]
    table["side_view"] = answers[:, -1]
    seen = table["structure"] >= LEAST_STRUCTURE
    table["blank"] = ~seen
    table["inverted"] = seen & (best >= 4)
    table["turned"] = seen & (best % 4 > 0)
    table["cropped"] = seen & (cuts.max(axis=1, initial=-np.inf) > 0)
    table["lateral"] = seen & (answers[:, -1] > 0)
    table["text"] = table["strokes"] > MOST_STROKES
    return table.astype(dict.fromkeys(DEFECTS, np.int8))


def _cuts(cells: NDArray[np.float32], weighed: Coefficients) -> NDArray[np.float32]:
    """The answers for the four sides, [n, 4]. Half a chest may look turned: the image is asked as it is, too."""
    best = (orientations(cells) @ weighed.upright).argmax(axis=1)
    return np.maximum(weighed.answer(_righted(cells, best)), weighed.answer(cells))[:, :-1]


def _trimmed(small: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Images [n, s, s] without a little at the left, then at the right, of the same size again."""
    from PIL import Image

    side = small.shape[1]
    edge = max(1, round(_TRIM * side))
    for part in (small[:, :, edge:], small[:, :, :-edge]):
        resized = [
            np.asarray(Image.fromarray(np.ascontiguousarray(one)).resize((side, side), Image.Resampling.BILINEAR))
            for one in part
        ]
        yield np.array(resized, np.float32).reshape(small.shape)


def _righted(cells: NDArray[np.float32], best: NDArray[np.int64]) -> NDArray[np.float32]:
    """The features of each image in the best of its 8 ways: [n, 2, 16, 16]."""
    righted = [
        (-1 if way >= 4 else 1) * np.rot90(one, way % 4, axes=(1, 2)) for one, way in zip(cells, best, strict=True)
    ]
    return np.array(righted, np.float32).reshape(cells.shape)


@cache
def coefficients() -> Coefficients:
    """What stands in image_quality.json."""
    content = json.loads(COEFFICIENTS.read_text(encoding="utf-8"))
    kinds = (*SIDES, "lateral")
    offsets = np.array(content["hidden_offset"], np.float32)
    hidden = np.frombuffer(base64.b64decode(content["hidden"]), "<f2").astype(np.float32)
    return Coefficients(
        upright=np.array(content["upright"], np.float32),
        hidden=hidden.reshape(len(offsets), 2 * _GRID**2),
        hidden_offset=offsets,
        answers=np.array([content["answers"][kind] for kind in kinds], np.float32),
        answer_offsets=np.array([content["answer_offsets"][kind] for kind in kinds], np.float32),
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


_LINES = ((7, 32), (11, 44), (15, 60))
"""Heights and widths of windows that a line of print fills, in pixels."""


def strokes(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How much the most written-on place of each image looks like a line of print: [n].

    Print is many thin strokes side by side in a band with nothing thin above and below: counted are changes from stroke
    to ground along the rows of a window, less the strokes beyond its upper and lower edge. Strokes are what an opening
    (light) or a closing (dark) by 5 x 5 pixels takes away. Words that a cleaned image keeps on purpose count as well.
    """
    import cv2

    found = np.zeros(len(images))
    square = np.ones((5, 5), np.uint8)
    for place, image in enumerate(images):
        for kind in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT):
            thin = (cv2.morphologyEx(image, kind, square) > 30).astype(np.float32)
            if thin.any():
                found[place] = max(found[place], *(_print(thin, high, wide) for high, wide in _LINES))
    return found


def _print(thin: NDArray[np.float32], high: int, wide: int) -> float:
    import cv2

    changes = np.zeros_like(thin)
    changes[:, 1:] = np.abs(np.diff(thin, axis=1))
    inside = cv2.blur(changes, (wide, high), borderType=cv2.BORDER_CONSTANT)
    band = cv2.blur(thin, (wide, 2), borderType=cv2.BORDER_CONSTANT)
    away = high // 2 + 2
    beyond = np.zeros_like(thin)
    beyond[away:] = band[:-away]
    beyond[:-away] = np.maximum(beyond[:-away], band[away:])
    return float((inside - beyond).max())


def features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the lines look at: [n, 2, 16, 16] in -0.5..0.5.

    Ranks of gray within the uniform border that collimators and letterboxes leave, so that exposure and window do not
    matter: of the image, and of the image without what changes over a third of it and more.
    """
    return _features_of(_reduced(images, 2 * _FINE))


def _features_of(small: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features of images that were brought to 96 x 96."""
    from scipy.ndimage import gaussian_filter

    inside = _without_border(small)
    local = inside - gaussian_filter(inside, (0, _FINE / 6, _FINE / 6), mode="nearest")
    step = _FINE // _GRID
    both = np.stack([_ranks(inside), _ranks(local)], axis=1) - 0.5
    return np.asarray(both.reshape(len(small), 2, _GRID, step, _GRID, step).mean((3, 5)), dtype=np.float32)


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


_SKETCH = 16
_SCALE = 400.0
"""Of sketches of length 1, so that they fill 8 bits."""


@dataclass(frozen=True)
class Likeness:
    """Two images that are one picture: how many of 64 bits differ, how their details correlate."""

    first: object
    second: object
    bits: int
    correlation: float


def near_duplicates(read: Callable[[int], NDArray[np.uint8]], hashes: Sequence[str]) -> list[Likeness]:
    """Pairs that are one picture, whatever was done to its exposure, size, compression, noise or a little of its place.

    read: the image [side, side] at a place; hashes: the manifest's perceptual_hash of each (16 hex digits). Two images
    of one patient are not a pair unless they are one picture.
    """
    gallery = Gallery()
    sketches = [sketch(read(place)[None])[0] for place in range(len(hashes))]
    numbers = np.array([int(text, 16) for text in hashes], dtype=np.uint64)
    gallery.add(range(len(hashes)), numbers, np.array(sketches, np.int8).reshape(len(hashes), _SKETCH**2))
    return confirmed(read, gallery.candidates())


def confirmed(read: Callable[[Any], NDArray[np.uint8]], candidates: Iterable[Candidate]) -> list[Likeness]:
    """Those candidates whose details correlate. read: the image [side, side] of a name."""
    found = []
    for first, pairs in groupby(sorted(candidates, key=lambda pair: str(pair.first)), key=lambda pair: pair.first):
        moved = _moved_tiles(_details(read(first)))
        for pair in pairs:
            correlation = _likeness(moved, _tiles(_details(read(pair.second))[_INNER, _INNER]))
            if correlation >= LEAST_LIKENESS:
                found.append(Likeness(first, pair.second, pair.bits, round(correlation, 4)))
    return found


@dataclass(frozen=True)
class Candidate:
    """Two images whose 64 bits and sketches are alike, the earlier one first."""

    first: object
    second: object
    bits: int


class Gallery:
    """Names, 64 bits and sketches of images: 320 bytes each, so that a million fit into memory.

    The search over the 64 bits is exact: every pair is compared, a block at a time, a thousand million pairs a second
    and core. It finds too many of a million radiographs, which are all alike; the sketches leave the few to look at.
    """

    def __init__(self) -> None:
        self._names: list[object] = []
        self._hashes = np.zeros(0, np.uint64)
        self._sketches = np.zeros((0, _SKETCH**2), np.int8)

    def add(self, names: Iterable[object], hashes: NDArray[np.uint64], sketches: NDArray[np.int8]) -> None:
        """More images, after those there."""
        start = len(self._names)
        self._names += names
        if len(self._names) > len(self._hashes):  # twice the room: a batch costs itself, not all before it
            more = 2 * len(self._names) - len(self._hashes)
            self._hashes = np.concatenate([self._hashes, np.zeros(more, np.uint64)])
            self._sketches = np.concatenate([self._sketches, np.zeros((more, _SKETCH**2), np.int8)])
        self._hashes[start : len(self._names)] = hashes
        self._sketches[start : len(self._names)] = sketches

    def candidates(self, *, newest: int | None = None) -> Iterator[Candidate]:
        """Pairs, or those of which one is among the `newest` last images."""
        since = 0 if newest is None else len(self._names) - newest
        for first, second, bits in close_pairs(self._hashes[: len(self._names)], since=since):
            left, right = self._sketches[first].astype(np.float32), self._sketches[second].astype(np.float32)
            alike = np.einsum("nk,nk->n", left, right) >= LEAST_SKETCH * _SCALE**2
            for one, other, distance in zip(first[alike], second[alike], bits[alike], strict=True):
                yield Candidate(self._names[one], self._names[other], int(distance))


_ROWS, _COLUMNS = 128, 8192
"""Pairs compared at a time: few enough that they stay in the processor's cache."""


def close_pairs(
    hashes: NDArray[np.uint64], *, since: int = 0, bits: int = MOST_HASH_BITS
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]]:
    """All pairs that differ in so few of 64 bits, the second at or after `since`: their places and bits, in parts."""
    for top in range(since, len(hashes), _ROWS):
        rows = hashes[top : top + _ROWS, None]
        for left in range(0, min(top + _ROWS, len(hashes)), _COLUMNS):
            distances = np.bitwise_count(rows ^ hashes[None, left : left + _COLUMNS])
            second, first = np.nonzero(distances <= bits)
            before = first + left < second + top
            if before.any():
                second, first = second[before], first[before]
                yield first + left, second + top, distances[second, first]


def sketch(images: NDArray[np.uint8]) -> NDArray[np.int8]:
    """What lies where in each image, at 16 x 16 places, of the same strength everywhere: [n, 256], length 400.

    The correlation of two sketches is that of their edges and shadows of a thirtieth of the image and more.
    """
    from scipy.ndimage import gaussian_filter

    small = _reduced(images, 2 * _FINE)
    detail = gaussian_filter(small, (0, 2, 2)) - gaussian_filter(small, (0, 8, 8))
    detail /= np.sqrt(gaussian_filter(detail**2, (0, 12, 12)) + 4)
    step = 2 * _FINE // _SKETCH
    rows = detail[:, step // 2 :: step, step // 2 :: step].reshape(len(images), _SKETCH**2)
    rows = rows - rows.mean(axis=1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) + 1e-9
    return np.asarray(np.clip(np.round(rows * _SCALE), -127, 127), dtype=np.int8)


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
