"""Whether an image is a frontal chest radiograph: what the header says, checked against the pixels.

Headers are often wrong or silent: body parts are mislabelled in about one radiograph in seven (Gueld et al., Quality of
DICOM header information for image categorization, SPIE Medical Imaging 2002). So a header that says "chest" is
overruled only by pixels that have nothing of a chest, and a header that names another part of the body only by
pixels that are clearly one. In doubt an image is kept: the rules of data quality and people see it again.

The pixels are compared with a drawing of the thorax, two dark lung fields beside a bright mediastinum above a bright
abdomen, at many sizes and places, on gray levels replaced by their ranks so that exposure and window do not matter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

_SIDE = 48
_RADIOGRAPHS = frozenset({"CR", "DX", "DR", "RG", "SC", "OT"})
"""Modalities of projection radiography, and the two that say nothing of how an image was made."""
_LATERAL = re.compile(r"LAT|OBL|SWIM|\b(?:LL|RL|LLO|RLO|LLD|RLD|LAO|RAO|LPO|RPO)\b")
_FRONTAL = re.compile(r"\b(?:AP|PA)\b|ANTERO.?POST|POSTERO.?ANT")
_CHEST = re.compile(r"CHEST|THORA|LUNG|POUMON|PULM|RIB|COTE|STERN|CLAVIC|CARDI|HEART|PORT|WHOLE|ENTIRE|BODY|TORSE")

_SIZES = [
    (width, width * ratio)
    for width in (0.62, 0.75, 0.9, 1.05)
    for ratio in (0.75, 1, 1.3)
    if 0.45 <= width * ratio <= 1.2
]
"""Widths and heights of a thorax in parts of the image."""

DOUBTFUL, CLEAR = 0.6, 0.85
"""Likeness to a thorax below which nothing speaks for one, and from which much does."""


@dataclass(frozen=True)
class Look:
    """What the pixels look like.

    thorax: likeness to the drawing, -2 to 2. levels: gray levels in use, 1 to 64 (the exponential of the histogram's
    entropy). smoothness: correlation of neighbours at 48 x 48 pixels. symmetry: correlation of left and right.
    """

    thorax: float
    levels: float
    smoothness: float
    symmetry: float

    @property
    def could_be_chest(self) -> bool:
        """False only where nothing speaks for a chest radiograph."""
        exposed = self.levels >= 16 and self.smoothness >= 0.5
        # One lung may be white and a corner blanked: a clear thorax need not be symmetric.
        return exposed and self.thorax >= DOUBTFUL and (self.symmetry >= 0.3 or self.thorax >= CLEAR)

    @property
    def is_clearly_chest(self) -> bool:
        """Whether the pixels alone are enough."""
        return self.could_be_chest and self.thorax >= CLEAR and self.symmetry >= 0.3


def objection(*, modality: str | None, body_part: str | None, view: str | None, pixels: NDArray[np.uint8]) -> str:
    """Why this is no frontal chest radiograph, or "" where it is or may be one.

    pixels: [rows, columns], bone white, without padding. The answer never quotes the header.
    """
    if modality and modality not in _RADIOGRAPHS:
        return "the header names another modality than projection radiography"
    if view and _LATERAL.search(view) and not _FRONTAL.fullmatch(view):
        return "the header names a view that is not frontal"
    seen = look(pixels)
    if body_part and not _CHEST.search(body_part) and not seen.is_clearly_chest:
        return "the header names another part of the body, and the pixels do not speak against it"
    return "" if seen.could_be_chest else "the pixels have nothing of a frontal chest radiograph"


def frontal_view(view: str | None) -> str | None:
    """'AP' or 'PA' from a header's ViewPosition, None where it says neither."""
    if view is None:
        return None
    if re.search(r"\bPA\b|POSTERO.?ANT", view):
        return "PA"
    return "AP" if re.search(r"\bAP\b|ANTERO.?POST", view) else None


def look(pixels: NDArray[np.uint8]) -> Look:
    """Measures an image against what chest radiographs have in common. pixels: [rows, columns]."""
    small = _shrunk(pixels)
    ranks = _ranks(small)
    thorax = _thorax(ranks)
    if thorax < CLEAR:
        thorax = max(thorax, _thorax(_ranks(_flattened(small))))
    return Look(thorax, _levels(small), _smoothness(ranks), _symmetry(ranks))


# --- measures -------------------------------------------------------------------------------------------------------


def _shrunk(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """48 x 48 of what lies within the uniform border that collimators, film frames and padding leave."""
    from PIL import Image

    box = Image.Resampling.BOX
    double = np.asarray(Image.fromarray(pixels).resize((2 * _SIDE, 2 * _SIDE), box), dtype=np.float32)
    inside = double[_uneven(double, axis=1)][:, _uneven(double, axis=0)]
    return np.asarray(Image.fromarray(np.ascontiguousarray(inside)).resize((_SIDE, _SIDE), box))


def _uneven(double: NDArray[np.float32], *, axis: int) -> slice:
    """From the first to the last row (axis 1) or column (axis 0) that is not uniform; all if little would be left."""
    uneven = np.flatnonzero(double.std(axis=axis) > 4)
    if len(uneven) < _SIDE // 2:
        return slice(None)
    return slice(int(uneven[0]), int(uneven[-1]) + 1)


def _flattened(small: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without what changes over a third of the image and more, as in a film that is dark on one side or too pale."""
    from scipy.ndimage import gaussian_filter

    local = small - gaussian_filter(small, _SIDE / 6, mode="nearest")
    local -= local.min()
    return np.asarray(local * (63 / max(float(local.max()), 1e-6)), dtype=np.float32)


def _ranks(small: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each pixel's rank in 0..1; equal pixels share the middle of theirs."""
    values = np.round(small.ravel() * 4).astype(np.int64)
    counts = np.bincount(values, minlength=1)
    middle = np.cumsum(counts) - counts / 2
    return (middle[values] / values.size).reshape(small.shape).astype(np.float32)


def _levels(small: NDArray[np.float32]) -> float:
    low, high = float(small.min()), float(small.max())
    if high - low < 1:
        return 1.0
    bins = ((small - low) / (high - low) * 63.99).astype(np.int64)
    share = np.bincount(bins.ravel(), minlength=64) / bins.size
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def _smoothness(ranks: NDArray[np.float32]) -> float:
    centred = ranks - ranks.mean()
    variance = float((centred**2).mean()) + 1e-9
    across = float((centred[:, :-2] * centred[:, 2:]).mean())
    down = float((centred[:-2] * centred[2:]).mean())
    return min(across, down) / variance


def _symmetry(ranks: NDArray[np.float32]) -> float:
    """The best correlation with the mirror image over axes near the middle, at 12 x 12 blocks."""
    blocks = ranks.reshape(12, 4, 12, 4).mean((1, 3))
    best = -1.0
    for shift in range(-3, 4):
        part = blocks[:, max(0, shift) : 12 + min(0, shift)]
        centred = part - part.mean()
        variance = float((centred * centred).sum())
        if variance > 1e-6:
            best = max(best, float((centred * centred[:, ::-1]).sum()) / variance)
    return best


def _thorax(ranks: NDArray[np.float32]) -> float:
    """The best sum of two correlations with a drawing: over the whole trunk, and along its rows alone.

    The second sees the lungs beside the mediastinum and is blind to what merely grows brighter downwards.
    """
    drawings = _drawings()
    sums, squares = _summed(ranks), _summed(ranks * ranks)
    trunk, lungs = drawings.trunk, drawings.lungs
    variance = trunk.total(squares) - trunk.total(sums) ** 2 / trunk.size
    likeness = drawings.whole @ ranks.ravel() / np.sqrt(np.maximum(variance, 1e-3 * trunk.size))

    rows = sums[:, lungs.right] - sums[:, lungs.left]
    of_rows = _summed(np.diff(rows, axis=0) ** 2, axes=(0,))
    places = np.arange(len(lungs.top))
    within = (of_rows[lungs.bottom, places] - of_rows[lungs.top, places]) / (lungs.right - lungs.left)
    variance = lungs.total(squares) - within
    likeness += drawings.along @ ranks.ravel() / np.sqrt(np.maximum(variance, 1e-3 * lungs.size))
    return float(likeness.max())


def _summed(
    values: NDArray[np.float32] | NDArray[np.float64], *, axes: tuple[int, ...] = (0, 1)
) -> NDArray[np.float64]:
    """Sums over all that lies above and to the left, with a first row and column of zeros."""
    total = values.astype(np.float64)
    for axis in axes:
        total = np.cumsum(total, axis=axis)
    return np.pad(total, [(1, 0) if axis in axes else (0, 0) for axis in range(values.ndim)])


@dataclass(frozen=True)
class _Boxes:
    """Rectangles in the image, one a drawing: the first row and column inside, and the first after. Each [n]."""

    top: NDArray[np.int64]
    bottom: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]

    @staticmethod
    def around(areas: NDArray[np.bool_]) -> _Boxes:
        """The rectangles that areas [n, 48, 48] fill."""
        rows, columns = np.any(areas, axis=2), np.any(areas, axis=1)
        (top, bottom), (left, right) = (
            (filled.argmax(1), _SIDE - filled[:, ::-1].argmax(1)) for filled in (rows, columns)
        )
        return _Boxes(top, bottom, left, right)

    @property
    def size(self) -> NDArray[np.int64]:
        """Pixels in each."""
        return (self.bottom - self.top) * (self.right - self.left)

    def total(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over each, from sums over all that lies above and to the left."""
        below = sums[self.bottom, self.right] - sums[self.bottom, self.left]
        return np.asarray(below - sums[self.top, self.right] + sums[self.top, self.left])


@dataclass(frozen=True)
class _Drawings:
    """Drawings of the thorax at many sizes and places: where the trunk is and where in it the rows with lung are; the
    drawing with mean 0 and length 1 over the trunk, and with mean 0 in each row with lung, both [n, 48 * 48]."""

    trunk: _Boxes
    lungs: _Boxes
    whole: NDArray[np.float32]
    along: NDArray[np.float32]


@cache
def _drawings() -> _Drawings:
    y, x = (np.mgrid[:_SIDE, :_SIDE] + 0.5) / _SIDE
    trunks: list[NDArray[np.bool_]] = []
    lung_rows: list[NDArray[np.bool_]] = []
    wholes: list[NDArray[np.float64]] = []
    alongs: list[NDArray[np.float64]] = []
    for width, height in _SIZES:
        for middle_x in (0.4, 0.5, 0.6):
            for middle_y in (0.36, 0.43, 0.5, 0.57, 0.64):
                u, v = (x - middle_x) / width, (y - middle_y) / height
                lung = _lungs(u, v)
                trunk = (np.abs(u) < 0.5) & (v > -0.62) & (v < 0.55)
                beside = trunk & (lung & trunk).any(1, keepdims=True)
                drawing = np.where(lung, -1.0, 1.0)
                trunks.append(trunk)
                lung_rows.append(beside)
                wholes.append(_standard(drawing, trunk, axis=None))
                alongs.append(_standard(drawing, beside, axis=1))
    return _Drawings(
        trunk=_Boxes.around(np.array(trunks)),
        lungs=_Boxes.around(np.array(lung_rows)),
        whole=np.array(wholes, np.float32).reshape(len(wholes), -1),
        along=np.array(alongs, np.float32).reshape(len(alongs), -1),
    )


def _lungs(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Both lung fields; u, v run from -0.5 to 0.5 over the thorax, rightwards and downwards."""
    half = np.where(v < 0, 0.15 * np.sqrt(np.clip(1 - (v / 0.46) ** 2, 0, 1)), 0.155)
    inside = (v > -0.46) & (v < 0.3)
    left, right = (np.abs(u - sign * (0.235 + 0.03 * v)) < half for sign in (-1, 1))
    return (left | right) & inside


def _standard(drawing: NDArray[np.float64], area: NDArray[np.bool_], *, axis: int | None) -> NDArray[np.float64]:
    mean = (drawing * area).sum(axis, keepdims=True) / np.maximum(area.sum(axis, keepdims=True), 1)
    centred = np.where(area, drawing - mean, 0.0)
    return np.asarray(centred / np.sqrt((centred**2).sum()))
