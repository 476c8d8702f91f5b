"""Text burned into pixels: where it is, and taking it out.

The detector is RapidOCR's (PP-OCR, in its wheel), run on pixels normalised locally over their full depth, so that text
that a window hides is found as well. Side markers stay: a single glyph names nobody. What does not belong here: files.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radia.errors import Reason, Refusal

_LONGEST_SIDE = 1024
_HEAT = 0.3
_SCORE = 0.5
_GROW = 1.8  # the detector's map shows text shrunk; boxes grow back by this ratio of area to circumference


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


def find_text(stored: NDArray[Any]) -> list[Box]:
    """Boxes of burned-in text in gray stored values [rows, cols], side markers left out.

    Raises Refusal (TEXT_DETECTOR_MISSING) where RapidOCR or its models are not installed.
    """
    import cv2

    detector = _detector()
    rows, cols = stored.shape
    scale = min(1.0, _LONGEST_SIDE / max(rows, cols))
    normal = locally_normalised(stored)
    size = [max(32, round(side * scale / 32) * 32) for side in (cols, rows)]
    small = np.asarray(cv2.resize(normal, size, interpolation=cv2.INTER_AREA), np.uint8)
    heat = detector.run(small)
    boxes = _boxes(heat, cols / size[0], rows / size[1], rows, cols)
    return [box for box in boxes if not is_marker(normal, box)]


def locally_normalised(stored: NDArray[Any]) -> NDArray[np.uint8]:
    """Pixels as uint8 with the local mean at mid-gray and the local spread at full contrast, whatever the window."""
    import cv2

    values = stored.astype(np.float32)
    window = (65, 65)
    mean = cv2.blur(values, window)
    spread = np.sqrt(np.maximum(cv2.blur(values * values, window) - mean * mean, 0))
    floor = max(float(values.max() - values.min()) * 1e-3, 0.25)
    return np.clip((values - mean) / (spread + np.float32(floor)) * 42 + 128, 0, 255).astype(np.uint8)


def blank(stored: NDArray[Any], boxes: list[Box], *, lowest: int, highest: int, black_is_high: bool) -> NDArray[Any]:
    """A copy with each box filled by the darkest value that no pixel of the box had: nothing of it is left."""
    cleaned = stored.copy()
    for box in boxes:
        inside = set(np.unique(stored[box.y0 : box.y1, box.x0 : box.x1]).tolist())
        shades = range(highest, lowest - 1, -1) if black_is_high else range(lowest, highest + 1)
        fill = next((shade for shade in shades if shade not in inside), shades[0])
        cleaned[box.y0 : box.y1, box.x0 : box.x1] = fill
    return cleaned


def is_marker(normal: NDArray[np.uint8], box: Box) -> bool:
    """Whether a box holds one glyph (L, R, G, D): it is about as wide as high, and its ink hangs together."""
    import cv2

    crop = normal[box.y0 : box.y1, box.x0 : box.x1]
    high, wide = crop.shape
    if high < 8 or wide > 1.6 * high or high > 3 * wide:
        return False
    _, ink = cv2.threshold(crop, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    for mask in (ink, 255 - ink):
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        large = [part for part in stats[1:] if part[4] >= 0.03 * crop.size]
        inner = [part for part in large if part[0] > 0 and part[1] > 0]
        if len(large) == 1 and len(inner) == 1 and inner[0][3] >= 0.4 * high and inner[0][4] <= 0.6 * crop.size:
            return True
    return False


class _Detector:
    """PP-OCR's text detection network: an image [h, w] uint8, sides multiples of 32, to a map of text in 0..1."""

    def __init__(self, model: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        plane = image.astype(np.float32) / np.float32(127.5) - np.float32(1)
        batch = np.broadcast_to(plane, (1, 3, *plane.shape))
        heat: NDArray[np.float32] = self._session.run(None, {self._input: np.ascontiguousarray(batch)})[0][0, 0]
        return heat


@cache
def _detector() -> _Detector:
    """The network from the wheel. It is loaded from a file: nothing is fetched."""
    try:
        from importlib.util import find_spec

        found = find_spec("rapidocr")
        folder = Path(str(found.origin)).parent / "models" if found and found.origin else None
        models = sorted(folder.glob("*_det_*.onnx")) if folder else []
        if not models:
            raise Refusal(Reason.TEXT_DETECTOR_MISSING, "RapidOCR's detection model is not installed")
        return _Detector(models[0])
    except ImportError as error:
        raise Refusal(Reason.TEXT_DETECTOR_MISSING, "onnxruntime is not installed") from error


def _boxes(heat: NDArray[np.float32], x_scale: float, y_scale: float, rows: int, cols: int) -> list[Box]:
    import cv2

    mask = (heat > _HEAT).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    found = []
    for index in range(1, count):
        x, y, wide, high, area = (int(number) for number in stats[index])
        if area < 6 or min(wide, high) > 96:
            continue
        here = labels[y : y + high, x : x + wide] == index
        if float(heat[y : y + high, x : x + wide][here].mean()) < _SCORE:
            continue
        grow = area * _GROW / (2 * (wide + high)) + 1
        x0, y0 = int((x - grow) * x_scale), int((y - grow) * y_scale)
        x1, y1 = int(np.ceil((x + wide + grow) * x_scale)), int(np.ceil((y + high + grow) * y_scale))
        found.append(Box(max(x0, 0), max(y0, 0), min(x1, cols), min(y1, rows)))
    return found
