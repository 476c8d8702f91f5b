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
from radia.explain import explained, upsampled
from radia.frontal import objection
from radia.images import content_of_square, letterbox
from radia.web.batching import Batches
from radia.web.imaging import Film, Gray, Kind
from radia.web.serving import Served

MAP_SIDE = 256
UNSURE_ODDS = 1.5
"""A finding whose odds are within this factor of those of its operating point is called unsure."""

Call = Literal["above", "unsure", "below"]


@dataclass(frozen=True)
class FindingRead:
    """One finding: probability and threshold in 0..1, and where the model sees it, [h, w] over the whole film."""

    finding: str
    probability: float
    threshold: float
    map: Gray

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

    @property
    def heat_map(self) -> str:
        """The map as a PNG data URI, to lie over the film."""
        return _png_of_map(self.map)


@dataclass(frozen=True)
class Reading:
    """What the model says of one image. distance: from the training images, as a part of the limit; None: not known."""

    model: str
    pixels_sha256: str
    findings: tuple[FindingRead, ...]
    distance: float | None = None

    @property
    def unfamiliar(self) -> bool:
        """Whether the image is unlike the training images."""
        return self.distance is not None and not self.distance <= 1

    def of(self, finding: str) -> FindingRead | None:
        """What it says of one finding."""
        return next((item for item in self.findings if item.finding == finding), None)

    def as_json(self) -> dict[str, Any]:
        """Without the maps."""
        return {
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
        }


@dataclass(frozen=True)
class Prepared:
    """An image as the model takes it. pixels: [side, side]. shape: rows and columns of the film."""

    pixels: NDArray[np.uint8]
    shape: tuple[int, int]


@dataclass(frozen=True)
class Answer:
    """Of one image: probabilities [findings], pooled features [channels], maps [findings, h, w]."""

    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]
    maps: NDArray[np.float32]


Queue = Batches[Served, NDArray[np.uint8], Answer]


def queue() -> Queue:
    """What stands before the model: images asked for at the same time are answered in one forward pass."""
    return Batches(_answers)


def prepare(served: Served, film: Film, *, side: int) -> Prepared:
    """A film as the served model takes it, by way of an image of `side` pixels as in the archive.

    Raises Refusal for what is no frontal chest film.
    """
    _check_frontal(film.gray, film.kind)
    rows, columns = film.gray.shape
    return Prepared(letterbox(film.gray, max(served.checkpoint.side, side)), (rows, columns))


def read(served: Served, films: Sequence[Prepared], waiting: Queue) -> list[Reading | Refusal]:
    """The served model's reading of each film, all asked at once; a Refusal for what is unlike the model's training.

    Raises Busy where too many wait.
    """
    answers = waiting.ask(served, [film.pixels for film in films])
    return [_judged(served, film, answer) for film, answer in zip(films, answers, strict=True)]


def _judged(served: Served, film: Prepared, answer: Answer) -> Reading | Refusal:
    distance = _distance(served, answer)
    if distance is not None and not distance <= 1 and not served.stand_in:
        # a stand-in knows phantoms only and refuses nothing: its page says of every answer that it means nothing
        return Refusal(Reason.UNFAMILIAR, f"{distance:.1f} times the distance up to which the model may be asked")
    checkpoint = served.checkpoint
    maps = _over_the_film(answer.maps, film.shape)
    findings = tuple(
        FindingRead(
            checkpoint.findings[k],
            float(answer.probabilities[k]),
            checkpoint.thresholds.get(checkpoint.findings[k], 0.5),
            maps[k],
        )
        for k in np.argsort(-answer.probabilities, kind="stable")
    )
    return Reading(served.name, hashlib.sha256(film.pixels.tobytes()).hexdigest(), findings, distance)


def _answers(served: Served, questions: Sequence[NDArray[np.uint8]]) -> list[Answer]:
    said = explained(served.model, np.stack(questions))
    return [Answer(*rows) for rows in zip(said.probabilities, said.features, said.maps, strict=True)]


def _over_the_film(maps: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Maps [findings, h, w] of the square image, enlarged and cut to where the film lies in it; each peaks at 1."""
    down, across = content_of_square(*shape, MAP_SIDE)
    return upsampled(maps, MAP_SIDE)[:, down, across]


def _check_frontal(gray: Gray, kind: Kind) -> None:
    step = max(1, max(gray.shape) // 1024)  # a look at 48 x 48 needs no more
    seen = np.rint(gray[::step, ::step] * 255).astype(np.uint8)
    against = objection(modality=kind.modality, body_part=kind.body_part, view=kind.view, pixels=seen)
    if against:
        raise Refusal(Reason.NOT_CHEST, against)


def _distance(served: Served, answer: Answer) -> float | None:
    """The distance from the training images by its limit; None where the model keeps nothing of them."""
    if served.familiarity is None:
        return None
    return float(served.familiarity.distance(answer.features[np.newaxis])[0]) / served.familiarity.limit


def _logit(probability: float) -> float:
    inside = min(max(probability, 1e-6), 1 - 1e-6)
    return log(inside / (1 - inside))


def coloured(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Heat in 0..1 as RGBA: from clear through amber to red, so that what it does not speak of stays visible."""
    red = np.clip(heat * 2.0, 0, 1)
    green = np.clip(1.6 - 1.5 * heat, 0, 1) * red
    alpha = np.clip(heat * 1.1 - 0.15, 0, 1) * 0.75
    return (np.stack([red, green, np.zeros_like(heat), alpha], axis=-1) * 255).astype(np.uint8)


@lru_cache(maxsize=1)
def _palette() -> NDArray[np.uint8]:
    """The colours of 256 levels of heat, [256, 4]."""
    return coloured(np.linspace(0, 1, 256, dtype=np.float32))


def _png_of_map(heat: Gray) -> str:
    """A PNG of one byte a pixel with a palette: a fourth of the work of four bytes."""
    from PIL import Image

    picture = Image.fromarray(np.rint(heat * 255).astype(np.uint8), "P")
    picture.putpalette(_palette()[:, :3].tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1, transparency=_palette()[:, 3].tobytes())
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
