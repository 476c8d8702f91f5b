"""Several devices, or several machines, that train one model together.

Each worker has its own part of every batch; gradients are averaged by DDP, batch norms see the images of all, and so
the losses are those of one worker. Who starts the processes (radia.fit.launch, or torchrun) says how many there are in
the environment. What must be the same everywhere (a state to go on from, how an epoch was judged) is the first's.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def open_fabric(accelerator: str, precision: str, *, rests: bool = False) -> Fabric:
    """One device, or as many as there are workers. rests: parts of the model may be left out of a step."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    class _Started(TorchElasticEnvironment):
        """Processes that were started by others, not always the same number on each machine."""

        def validate_settings(self, num_devices: int, num_nodes: int) -> None:
            """The environment alone says how many there are."""

    if accelerator == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.deterministic = True
    options: dict[str, Any] = {"accelerator": accelerator, "precision": precision, "devices": 1}
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        strategy = DDPStrategy(cluster_environment=_Started(), find_unused_parameters=rests)
        options |= {"strategy": strategy, "devices": local, "num_nodes": max(1, world // local)}
    fabric = Fabric(**options)
    fabric.launch()
    return fabric


@contextmanager
def quiet_fabric() -> Iterator[None]:
    """Without Fabric's own remarks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning_fabric")
        for name in ("lightning_fabric", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        yield


def first_says(value: Any) -> Any:
    """The first worker's value, in every worker."""
    if not _several():
        return value
    told = [value]
    torch.distributed.broadcast_object_list(told, 0)
    return told[0]


def least(number: int) -> int:
    """The smallest of the workers' numbers, in every worker."""
    if not _several():
        return number
    numbers: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(numbers, number)
    return int(min(numbers))


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def part_of(rank: int, world: int, n: int) -> slice:
    """A worker's part of a batch of n images; the parts differ by one image at most."""
    return slice(n * rank // world, n * (rank + 1) // world)


def gathered(fabric: Fabric, mine: Tensor, n: int) -> Tensor:
    """The losses of all workers' images, [n], in the batch's order."""
    if fabric.world_size == 1:
        return mine
    whole = torch.zeros(n, device=mine.device)
    whole[part_of(fabric.global_rank, fabric.world_size, n)] = mine
    torch.distributed.all_reduce(whole)
    return whole


class _SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the images of all workers; torch's own knows GPUs only."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        n = torch.tensor([x.numel() / x.shape[1]], device=x.device)
        values = x.float()
        sums = torch.cat([values.sum((0, 2, 3)), (values**2).sum((0, 2, 3)), n])
        sums = all_reduce(sums)  # type: ignore[no-untyped-call]
        channels, count = x.shape[1], sums[-1]
        mean, square = sums[:channels] / count, sums[channels:-1] / count
        variance = (square - mean**2).clamp(min=0)
        with torch.no_grad():
            cast(Tensor, self.running_mean).lerp_(mean, self.momentum or 0.1)
            cast(Tensor, self.running_var).lerp_(variance * count / (count - 1), self.momentum or 0.1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shared: Tensor = values * scale.view(1, -1, 1, 1) + (self.bias - mean * scale).view(1, -1, 1, 1)
        return shared.to(x.dtype)


def share_batch_norms(model: nn.Module) -> None:
    """Makes every batch norm take its statistics from the images of all workers, as one worker would."""
    for name, child in model.named_children():
        if isinstance(child, nn.BatchNorm2d):
            shared: Any = nn.SyncBatchNorm if child.weight.is_cuda else _SharedBatchNorm
            new: nn.Module = shared(child.num_features, child.eps, child.momentum or 0.1).to(child.weight.device)
            new.load_state_dict(child.state_dict())
            setattr(model, name, new)
        else:
            share_batch_norms(child)
