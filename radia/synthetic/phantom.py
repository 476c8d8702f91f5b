"""Frontal chest radiographs of nobody: pixels, true labels and boxes, at any side.

`public_set` stands in for a large public collection, `examples` for what a visitor of the web demo uploads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from radia.findings import FINDINGS
from radia.synthetic.anatomy import Body, Box, Pose, sample_body, sample_pose
from radia.synthetic.detector import Look, attenuation, collimate, expose, place_marker
from radia.synthetic.grids import Field, interpolating, resample
from radia.synthetic.pathology import Sign, draw_chest
from radia.synthetic.population import Population, populations, sample_age, sample_signs, truth_of

FINEST = 384
"""Above this side the anatomy is drawn at half of it: a chest has no finer detail, noise and letters have."""

Progress = Callable[[int, int], None]
Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Radiograph:
    """pixels: [side, side] in 0..1, bone white. boxes: (finding, x0, y0, x1, y1 as fractions of the side)."""

    pixels: Field
    truth: NDArray[np.float64]
    boxes: tuple[tuple[str, Box], ...]


class PublicSet(NamedTuple):
    """images: uint8 [n, side, side]; labels: [n, 14] of 1 and 0, a few wrong; truth: the same without errors."""

    images: NDArray[np.uint8]
    labels: NDArray[np.float64]
    truth: NDArray[np.float64]


class InMemory:
    """Images in an array, read by number like those of the archive."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images = images

    def read(self, ids: Sequence[str]) -> NDArray[np.uint8]:
        """The images of these numbers."""
        return self._images[[int(number) for number in ids]]


def radiograph(body: Body, pose: Pose, signs: tuple[Sign, ...], look: Look, *, side: int, seed: int) -> Radiograph:
    """Draws one radiograph. The same arguments show the same anatomy at every side; only the noise differs."""
    look_rng, noise = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
    chest = draw_chest(body, pose, signs, side if side <= FINEST else side // 2, seed=seed)
    integral = attenuation(chest)
    if chest.side < side:
        integral = resample(interpolating(chest.side, side), integral)
    picture = expose(integral, look, look_rng, noise)
    picture = place_marker(picture, look, look_rng, bedside=pose.view == "AP")
    picture = collimate(picture, look, look_rng)
    return Radiograph(np.clip(picture, 0, 1), truth_of(signs), tuple(chest.boxes))


def sample_radiograph(rng: np.random.Generator, population: Population, *, side: int) -> Radiograph:
    """A new patient of a population, drawn once."""
    body = sample_body(rng, sex="F" if rng.random() < 0.47 else "M", age=sample_age(rng, population))
    pose = sample_pose(rng, bedside=population.bedside)
    return radiograph(
        body, pose, sample_signs(rng, population), population.look, side=side, seed=int(rng.integers(2**31))
    )


def public_set(
    n: int, side: int, seed: int, *, label_noise: float = 0.02, workers: int = 0, progress: Progress | None = None
) -> PublicSet:
    """A public collection of n frontal radiographs, in memory; the same for any number of workers.

    label_noise: share of the labels that are turned round. workers: processes; 0: one per core.
    """
    images, truth = np.empty((n, side, side), np.uint8), np.empty((n, len(FINDINGS)))
    tasks = [(seed, index, side) for index in range(n)]
    for done, (pixels, labels) in enumerate(in_parallel(_public_image, tasks, workers=workers)):
        images[done], truth[done] = pixels, labels
        if progress is not None:
            progress(done + 1, n)
    wrong = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2,))).random(truth.shape) < label_noise
    return PublicSet(images, np.where(wrong, 1 - truth, truth), truth)


def examples(n: int, seed: int, *, side: int = 512) -> list[NDArray[np.uint8]]:
    """n pictures in the look of the public set, uint8 [side, side], for the web demo."""
    rngs = [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(3, index))) for index in range(n)]
    return [to_uint8(sample_radiograph(rng, populations()["public"], side=side).pixels) for rng in rngs]


def to_uint8(pixels: Field) -> NDArray[np.uint8]:
    """0..1 to 0..255, rounded."""
    return np.rint(pixels * 255).astype(np.uint8)


def in_parallel(function: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int) -> Iterator[Result]:
    """The results in the order of the tasks; in this process when one worker is enough. workers: 0, one per core."""
    workers = workers or len(os.sched_getaffinity(0))
    if workers <= 1 or len(tasks) < 16:
        yield from map(function, tasks)
        return
    chunk = max(1, min(16, len(tasks) // (4 * workers)))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(function, tasks, chunksize=chunk)


def _public_image(task: tuple[int, int, int]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    seed, index, side = task
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, index)))
    drawn = sample_radiograph(rng, populations()["public"], side=side)
    return to_uint8(drawn.pixels), drawn.truth
