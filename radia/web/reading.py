"""One image through the model in use: what the page and the API show of it. Nothing is kept."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radia.errors import Reason, Refusal
from radia.explain import grad_cam, upsampled
from radia.images import letterbox
from radia.predict import predict
from radia.web.serving import Served

Gray = NDArray[np.float32]

DISPLAY_SIDE, MAP_SIDE = 768, 256
MAX_PIXELS = 8000 * 8000


@dataclass(frozen=True)
class FindingRead:
    """One finding: probability and threshold in 0..1, and its heat map as a PNG data URI."""

    finding: str
    probability: float
    threshold: float
    heat_map: str

    @property
    def above(self) -> bool:
        """Whether the model calls it present."""
        return self.probability >= self.threshold


@dataclass(frozen=True)
class Reading:
    """What the model says of one image."""

    model: str
    pixels_sha256: str
    picture: str
    findings: tuple[FindingRead, ...]

    def as_json(self) -> dict[str, Any]:
        """Without the pictures."""
        return {
            "model": self.model,
            "findings": {
                item.finding: {
                    "probability": round(item.probability, 6),
                    "threshold": item.threshold,
                    "above_threshold": item.above,
                }
                for item in self.findings
            },
            "notice": "assistance, not diagnosis",
        }


def read(served: Served, gray: Gray) -> Reading:
    """The served model's reading of a gray image [rows, columns] in 0..1, bone white."""
    model, checkpoint = served.model, served.checkpoint
    pixels = letterbox(gray, max(checkpoint.side, DISPLAY_SIDE))[np.newaxis]
    probabilities = predict(model, pixels).probabilities[0]
    maps = upsampled(grad_cam(model, pixels).maps[0], MAP_SIDE)
    order = np.argsort(-probabilities, kind="stable")
    findings = tuple(
        FindingRead(
            checkpoint.findings[k],
            float(probabilities[k]),
            checkpoint.thresholds.get(checkpoint.findings[k], 0.5),
            _png(_coloured(maps[k])),
        )
        for k in order
    )
    return Reading(served.name, hashlib.sha256(pixels.tobytes()).hexdigest(), _png(pixels[0]), findings)


def gray_of_upload(content: bytes) -> Gray:
    """Gray pixels in 0..1 of a DICOM, PNG or JPEG file in memory. Raises Refusal."""
    from radia.dicom.pixels import read_gray

    if not content:
        raise Refusal(Reason.EMPTY_FILE)
    if content.startswith((b"\x89PNG", b"\xff\xd8\xff")):
        return _gray_of_picture(content)
    return read_gray(io.BytesIO(content))


def _gray_of_picture(content: bytes) -> Gray:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise Refusal(Reason.UNREADABLE_PIXELS, f"more than {MAX_PIXELS:,} pixels")
            deep = picture.mode.startswith("I")
            values = np.asarray(picture if deep else picture.convert("L"), dtype=np.float32)
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
        raise Refusal(Reason.UNREADABLE_PIXELS, "not a readable PNG or JPEG file") from error
    return values / (65535.0 if deep else 255.0)


@lru_cache(maxsize=1)
def example_pixels(count: int) -> tuple[Gray, ...]:
    """Gray images of the embedded hospital, to try."""
    from radia.synthetic import phantom

    return tuple(np.asarray(image, np.float32) / 255.0 for image in phantom.examples(count, seed=7))


def _coloured(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A map in 0..1 as RGBA: from clear through amber to red, so that what it does not speak of stays visible."""
    red = np.clip(heat * 2.0, 0, 1)
    green = np.clip(1.6 - 1.5 * heat, 0, 1) * red
    alpha = np.clip(heat * 1.1 - 0.15, 0, 1) * 0.75
    return (np.stack([red, green, np.zeros_like(heat), alpha], axis=-1) * 255).astype(np.uint8)


def _png(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
