"""The gradients of one batch: in parts that fit into memory, over several workers, the same as of the whole at once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from radia.errors import DoesNotFit, TrainingError
from radia.fit.batches import Batch
from radia.fit.loss import Loss
from radia.fit.workers import gathered

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)


def gradients(fabric: Fabric, network: Any, x: Tensor, batch: Batch, loss_of: Loss, micro: int) -> tuple[Tensor, int]:
    """Adds up the batch's gradients over parts of at most `micro` images and over workers.

    Parts that do not fit into memory are halved. Returns each image's loss, whose sum is the batch's mean over weighed
    cells, and the size of part that did fit. Raises TrainingError; DoesNotFit where there are several workers: the
    others wait in a batch norm for this one's images, and only leaving lets them go.
    """
    while True:
        losses = _if_it_fits(fabric, network, x, batch, loss_of, micro)
        if losses is not None:
            return gathered(fabric, losses, len(batch.rows)), micro
        # here, and not where the error was caught: its traceback held the memory
        network.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        micro = min(micro, len(x)) // 2
        if micro < 1:
            raise TrainingError(
                "one image alone does not fit into the device's memory: choose a smaller finetune.side or backbone"
            )
        if fabric.world_size > 1:
            raise DoesNotFit(micro)
        log.warning("out of memory: %d images at once from here on, the batch stays %d", micro, len(x))


def parts_of(mine: int, whole: int, world: int, micro: int) -> list[slice]:
    """A worker's `mine` images of a batch of `whole` in parts of at most `micro`, nearly equal in size.

    Every worker has as many: their batch norms wait for each other in every part. One may be empty.
    """
    largest = -(-whole // world)
    count = -(-largest // min(micro, largest))
    return [slice(mine * number // count, mine * (number + 1) // count) for number in range(count)]


def _if_it_fits(fabric: Fabric, network: Any, x: Tensor, batch: Batch, loss_of: Loss, micro: int) -> Tensor | None:
    world, scale, losses = fabric.world_size, max(batch.cells, 1.0), []
    parts = parts_of(len(x), len(batch.rows), world, micro)
    try:
        for number, part in enumerate(parts, 1):
            with fabric.no_backward_sync(network, enabled=number < len(parts) and world > 1):
                per_image = loss_of(network(x[part]).float(), batch.target[part], batch.weight[part]) / scale
                fabric.backward(per_image.sum() * world)
            losses.append(per_image.detach())
    except torch.OutOfMemoryError:
        return None
    return torch.cat(losses)
