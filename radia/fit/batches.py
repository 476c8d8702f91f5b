"""Batches on the device before they are needed, and what became of their losses."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from radia.errors import TrainingError
from radia.fit.draws import Rows
from radia.model import Augmentation
from radia.predict import as_tensor

AHEAD = 2
"""Batches read, pinned and copied while one is trained on."""


class Pixels(Protocol):
    """Where uint8 images come from; radia.images.ImageStore is one."""

    def read(self, ids: Sequence[str]) -> NDArray[np.uint8]:
        """The images of these ids, [n, rows, columns]."""
        ...


@dataclass(frozen=True)
class Batch:
    """A worker's part of a batch on the device: pixels uint8 [n, rows, columns], target and weight [n, findings].

    rows: of the whole batch, whatever the worker's part. cells: the sum of the whole batch's weights.
    """

    rows: Rows
    pixels: Tensor
    target: Tensor
    weight: Tensor
    draws: Augmentation | None
    cells: float


@dataclass(frozen=True)
class Feed:
    """Reads batches in a thread of its own; on a GPU through pinned memory and a stream of its own."""

    images: Pixels
    ids: NDArray[Any]
    targets: NDArray[np.float32]
    weights: NDArray[np.float32]
    device: torch.device

    def __call__(self, batches: Iterable[tuple[Rows, slice, Augmentation | None]]) -> Iterator[Batch]:
        """Each batch (its rows, this worker's part of them, that part's augmentation) when its turn comes."""
        stream: Any = None
        begin: Callable[[], None] | None = None
        if self.device.type == "cuda":
            stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            # a thread begins on the first GPU, where other workers' threads have nothing to do
            begin = functools.partial(torch.cuda.set_device, self.device)
        with ThreadPoolExecutor(1, thread_name_prefix="batches", initializer=begin) as reader:
            waiting: deque[Future[tuple[Batch, Any]]] = deque()
            for batch in batches:
                waiting.append(reader.submit(self._loaded, *batch, stream))
                if len(waiting) > AHEAD:
                    yield self._arrived(waiting.popleft())
            while waiting:
                yield self._arrived(waiting.popleft())

    def _loaded(self, rows: Rows, part: slice, draws: Augmentation | None, stream: Any) -> tuple[Batch, Any]:
        mine, cells = rows[part], float(self.weights[rows].sum())
        pixels = as_tensor(self.images.read(self.ids[mine].tolist()), "cpu")
        target, weight = torch.from_numpy(self.targets[mine]), torch.from_numpy(self.weights[mine])
        if stream is None:
            return Batch(rows, pixels, target, weight, draws, cells), None
        with torch.cuda.stream(stream):
            pixels, target, weight = (self._sent(value) for value in (pixels, target, weight))
            if draws is not None:
                draws = Augmentation(*(self._sent(getattr(draws, one.name)) for one in fields(draws)))
            return Batch(rows, pixels, target, weight, draws, cells), stream.record_event()

    def _sent(self, value: Tensor) -> Tensor:
        return value.pin_memory().to(self.device, non_blocking=True)

    def _arrived(self, loading: Future[tuple[Batch, Any]]) -> Batch:
        batch, ready = loading.result()
        if ready is not None:
            here = torch.cuda.current_stream(self.device)
            here.wait_event(ready)
            # its memory belongs to the other stream, which must not use it again before this one is done
            augmented = () if batch.draws is None else [getattr(batch.draws, one.name) for one in fields(batch.draws)]
            for value in (batch.pixels, batch.target, batch.weight, *augmented):
                value.record_stream(here)
        return batch


class LossWatch:
    """The losses of an epoch; stops the training with the images' ids when one is not finite."""

    def __init__(self, ids: NDArray[Any], *, every: int) -> None:
        self._ids = ids
        self._every = every
        self._losses: list[Tensor] = []
        self._unseen: list[tuple[Rows, Tensor]] = []

    def add(self, rows: Rows, per_image: Tensor) -> None:
        """The images' shares of a batch's loss, left on the device until they are looked at."""
        self._losses.append(per_image.sum())
        self._unseen.append((rows, per_image))
        if len(self._unseen) >= self._every:
            self._look()

    def mean(self) -> float:
        """The epoch's mean loss a labelled cell."""
        self._look()
        return float(torch.stack(self._losses).mean())

    def _look(self) -> None:
        if not self._unseen:
            return
        # all in one copy: each makes a GPU wait
        found = torch.isfinite(torch.stack([per_image for _, per_image in self._unseen])).cpu().numpy()
        for (rows, _), finite in zip(self._unseen, found, strict=True):
            if not finite.all():
                bad = [str(image) for image in self._ids[rows[~finite]]]
                some = ", ".join(bad[:8]) + (f" and {len(bad) - 8} more" if len(bad) > 8 else "")
                raise TrainingError(
                    f"the loss of {len(bad)} of {len(rows)} images in one batch is not finite ({some}): look at these "
                    "images, or lower finetune.learning_rate"
                )
        self._unseen.clear()
