"""One image through the model in use: what the page and the API show of it, or why it is refused. Nothing is kept."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from radia.errors import Reason, Refusal
from radia.explain import grad_cam, upsampled
from radia.frontal import objection
from radia.images import letterbox
from radia.predict import predict
from radia.web.batching import Batches
from radia.web.imaging import Film, Gray, Kind
from radia.web.serving import Served

DISPLAY_SIDE, MAP_SIDE = 768, 256
UNSURE_ODDS = 1.5
"""A finding whose odds are within this factor of those of its operating point is called unsure."""

Call = Literal["above", "unsure", "below"]


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

    @property
    def call(self) -> Call:
        """Above or below the operating point, or too near to it to say."""
        if abs(_logit(self.probability) - _logit(self.threshold)) < log(UNSURE_ODDS):
            return "unsure"
        return "above" if self.above else "below"


@dataclass(frozen=True)
class Reading:
    """What the model says of one image. distance: from the training images, as a part of the limit; None: not known."""

    model: str
    pixels_sha256: str
    picture: str
    findings: tuple[FindingRead, ...]
    distance: float | None = None

    @property
    def unfamiliar(self) -> bool:
        """Whether the image is unlike the training images."""
        return self.distance is not None and not self.distance <= 1

    def as_json(self) -> dict[str, Any]:
        """Without the pictures."""
        return {
            "model": self.model,
            "findings": {
                item.finding: {
                    "probability": round(item.probability, 6),
                    "threshold": item.threshold,
                    "above_threshold": item.above,
                    "call": item.call,
                }
                for item in self.findings
            },
            "distance_from_training": None if self.distance is None else round(self.distance, 4),
            "notice": "assistance, not diagnosis",
        }


@dataclass(frozen=True)
class Answer:
    """Of one image: probabilities [findings], pooled features [channels], maps [findings, h, w]."""

    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]
    maps: NDArray[np.float32]


Queue = Batches[Served, NDArray[np.uint8], Answer]


def queue() -> Queue:
    """What stands before the model: images asked for at the same time are predicted together."""
    return Batches(_answers)


def read(served: Served, film: Film, waiting: Queue, *, side: int) -> Reading:
    """The served model's reading of a film, by way of an image of `side` pixels as in the archive.

    Raises Refusal for what is no frontal chest film or unlike the model's training, Busy where too many wait.
    """
    _check_frontal(film.gray, film.kind)
    pixels = letterbox(film.gray, max(served.checkpoint.side, side))
    (answer,) = waiting.ask(served, [pixels])
    distance = _distance(served, answer)
    maps = upsampled(answer.maps, MAP_SIDE)
    checkpoint = served.checkpoint
    findings = tuple(
        FindingRead(
            checkpoint.findings[k],
            float(answer.probabilities[k]),
            checkpoint.thresholds.get(checkpoint.findings[k], 0.5),
            _png(_coloured(maps[k])),
        )
        for k in np.argsort(-answer.probabilities, kind="stable")
    )
    picture = _png(letterbox(film.gray, DISPLAY_SIDE))
    return Reading(served.name, hashlib.sha256(pixels.tobytes()).hexdigest(), picture, findings, distance)


def example_film(count: int, number: int) -> Film:
    """One of so many images of the embedded hospital, from 0."""
    return Film.of_gray(example_pixels(count)[number])


def _answers(served: Served, questions: Sequence[NDArray[np.uint8]]) -> list[Answer]:
    pixels = np.stack(questions)
    predicted = predict(served.model, pixels)
    maps = grad_cam(served.model, pixels).maps
    return [Answer(*rows) for rows in zip(predicted.probabilities, predicted.features, maps, strict=True)]


def _check_frontal(gray: Gray, kind: Kind) -> None:
    step = max(1, max(gray.shape) // 1024)  # a look at 48 x 48 needs no more
    seen = np.rint(gray[::step, ::step] * 255).astype(np.uint8)
    against = objection(modality=kind.modality, body_part=kind.body_part, view=kind.view, pixels=seen)
    if against:
        raise Refusal(Reason.NOT_CHEST, against)


def _distance(served: Served, answer: Answer) -> float | None:
    """The distance from the training images by its limit. Raises Refusal beyond it.

    A stand-in knows phantoms only and refuses nothing: its page says of every answer that it means nothing.
    """
    if served.familiarity is None:
        return None
    distance = float(served.familiarity.distance(answer.features[np.newaxis])[0]) / served.familiarity.limit
    if not distance <= 1 and not served.stand_in:
        raise Refusal(Reason.UNFAMILIAR, f"{distance:.1f} times the distance up to which the model may be asked")
    return distance


def _logit(probability: float) -> float:
    inside = min(max(probability, 1e-6), 1 - 1e-6)
    return log(inside / (1 - inside))


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
